//! What every test stands on: a host in this process on ports that the system picks, requests to it, its records, waiting for a
//! condition, and the guard that fails a test when the host panicked or logged an error. Players are in `peer.rs`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use holeshot::config::{Config, Settings};
use holeshot::server::Server;
use rusqlite::{Connection, OpenFlags};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// How long a condition may take that needs no waiting of the game's own: far more than it should, for a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

// ---- the frame of a test ----

/// Runs a test that has `limit_s` seconds, and fails it if the host panicked or logged an unannounced error meanwhile.
#[track_caller]
pub(crate) fn run(limit_s: u64, test: impl Future<Output = ()>) {
    watch_this_process();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let in_time = runtime.block_on(async { timeout(Duration::from_secs(limit_s), test).await });
    runtime.shutdown_timeout(Duration::from_secs(5));
    let seen = unannounced();
    assert!(in_time.is_ok(), "the test was not over after {limit_s} s\n{seen}");
    assert!(seen.is_empty(), "{seen}");
}

/// Waits until `look` finds what it looks for; fails after `limit` with what it said last.
pub(crate) async fn eventually<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() >= deadline => panic!("{what}: not within {limit:?}; last seen: {seen}"),
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// Says a line that is seen although the test passes: the test runner keeps to itself what `println!` says then.
macro_rules! tell {
    ($($said:tt)*) => {
        crate::harness::tell_args(format_args!($($said)*))
    };
}
pub(crate) use tell;

pub(crate) fn tell_args(line: std::fmt::Arguments<'_>) {
    // One write, so that lines of tests that run at once do not mix.
    let _closed = std::io::Write::write_all(&mut std::io::stderr(), format!("{line}\n").as_bytes());
}

// ---- the guard ----

/// A line that the host logged, of level warning or error, or of any level if a module wrote it.
#[derive(Debug, Clone)]
struct Line {
    level: tracing::Level,
    target: String,
    room: Option<String>,
    text: String,
}

#[derive(Default)]
struct Seen {
    lines: Vec<Line>,
    panics: Vec<String>,
    /// Rooms whose errors are what their test is about.
    announced: Vec<(String, String)>,
}

static SEEN: LazyLock<Mutex<Seen>> = LazyLock::new(Mutex::default);

fn seen() -> MutexGuard<'static, Seen> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets the host log errors about `room` that contain `words`, and no others.
pub(crate) fn announce_errors(room: &str, words: &str) {
    seen().announced.push((room.to_owned(), words.to_owned()));
}

/// The lines that modules and the host logged about a room, with their levels.
pub(crate) fn lines_of(room: &str) -> Vec<(tracing::Level, String)> {
    let of_room = |line: &&Line| line.room.as_deref() == Some(room);
    seen().lines.iter().filter(of_room).map(|line| (line.level, line.text.clone())).collect()
}

/// Every line with these words.
pub(crate) fn lines_with(words: &str) -> Vec<String> {
    seen().lines.iter().filter(|line| line.text.contains(words)).map(|line| line.text.clone()).collect()
}

fn unannounced() -> String {
    let seen = seen();
    let mut text = String::new();
    for panic in &seen.panics {
        let _ = writeln!(text, "a thread of the host panicked: {panic}");
    }
    for line in seen.lines.iter().filter(|line| line.level == tracing::Level::ERROR) {
        let is_announced =
            |(room, words): &(String, String)| line.room.as_deref() == Some(room) && line.text.contains(words.as_str());
        if !seen.announced.iter().any(is_announced) {
            let _ = writeln!(text, "the host logged an error: {}: {} (room {:?})", line.target, line.text, line.room);
        }
    }
    text
}

fn watch_this_process() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::registry().with(Watch);
        tracing::subscriber::set_global_default(subscriber).expect("nobody else watches this process");
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("a thread without a name");
            // A test's own thread has the test's name, with its module: that panic is the test's verdict.
            if !name.contains("::") {
                seen().panics.push(format!("{name}: {info}"));
            }
            report(info);
        }));
    });
}

/// Keeps what the guard looks at.
struct Watch;

impl<S: tracing::Subscriber> Layer<S> for Watch {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        let of_module = metadata.target() == "holeshot::rules::guest";
        *metadata.level() <= tracing::Level::WARN || of_module && *metadata.level() <= tracing::Level::INFO
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        #[derive(Default)]
        struct Fields {
            room: Option<String>,
            text: String,
        }
        impl tracing::field::Visit for Fields {
            fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
                match field.name() {
                    "room" => self.room = Some(value.to_owned()),
                    name => {
                        let _ = write!(self.text, " {name}={value}");
                    }
                }
            }
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                match field.name() {
                    "message" => self.text.insert_str(0, &format!("{value:?}")),
                    "room" => self.room = Some(format!("{value:?}")),
                    name => {
                        let _ = write!(self.text, " {name}={value:?}");
                    }
                }
            }
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        seen().lines.push(Line {
            level: *metadata.level(),
            target: metadata.target().to_owned(),
            room: fields.room,
            text: fields.text,
        });
    }
}

// ---- a host ----

/// Compiled modules, shared by all hosts of this test run: compiling takes seconds, and is tested where compiling is the subject.
static COMPILED: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

/// The folder of compiled modules.
pub(crate) fn compiled() -> &'static Path {
    COMPILED.path()
}

/// A new data folder whose compiled modules are shared.
pub(crate) fn data_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(COMPILED.path(), dir.path().join("modules")).unwrap();
    dir
}

/// Settings of a host for tests: free ports, and waits so long that no test meets one that it does not shorten.
pub(crate) fn settings(data_dir: &Path) -> Settings {
    let free = Some("127.0.0.1:0".parse().unwrap());
    Settings {
        http_listen: free,
        udp_listen: free,
        mqtt_listen: free,
        data_dir: Some(data_dir.to_owned()),
        rooms_max: Some(64),
        gather_wait_s: Some(60),
        ready_wait_s: Some(60),
        reconnect_grace_s: Some(60),
        linger_s: Some(60),
        ..Settings::default()
    }
}

/// Writes modules into a folder and gives their files.
fn modules_in(dir: &TempDir, modules: &[Vec<u8>]) -> Vec<PathBuf> {
    let write = |(number, bytes): (usize, &Vec<u8>)| {
        let path = dir.path().join(format!("module-{number}.wasm"));
        std::fs::write(&path, bytes).unwrap();
        path
    };
    modules.iter().enumerate().map(write).collect()
}

/// A host that runs in this process.
#[derive(Debug)]
pub(crate) struct Host {
    server: Server,
    http: reqwest::Client,
    pub(crate) dir: TempDir,
    rooms: Rooms,
}

/// The rooms that a test opened. A test that fails leaves its host behind, whose errors are no other test's business.
#[derive(Debug, Default)]
struct Rooms {
    opened: Mutex<Vec<String>>,
    are_stopped: bool,
}

impl Drop for Rooms {
    fn drop(&mut self) {
        if !self.are_stopped {
            for room in self.opened.get_mut().unwrap_or_else(PoisonError::into_inner) {
                announce_errors(room, "");
            }
        }
    }
}

/// A player's permission to come in, as the HTTP interface gives it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Grant {
    pub(crate) room: String,
    pub(crate) player: u16,
    pub(crate) ticket: String,
    pub(crate) expires_ms: u64,
    pub(crate) ws_url: String,
    pub(crate) udp_port: u16,
    pub(crate) host_key: String,
}

impl Grant {
    /// The host's public key.
    pub(crate) fn key(&self) -> [u8; 32] {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&self.host_key).unwrap().try_into().unwrap()
    }
}

impl Host {
    /// Starts a host with the settings of [`settings`].
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts a host with some settings changed.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_in(data_dir(), change).await
    }

    /// Starts a host that has rules modules, given as WebAssembly.
    pub(crate) async fn start_with_modules(modules: &[Vec<u8>], change: impl FnOnce(&mut Settings)) -> Self {
        let dir = data_dir();
        let files = modules_in(&dir, modules);
        Self::start_in(dir, |settings| {
            settings.modules = files;
            change(settings);
        })
        .await
    }

    /// Starts a host in a folder that may have been another host's.
    pub(crate) async fn start_in(dir: TempDir, change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_with_both(dir, change, |_| {}).await
    }

    /// Starts a host that has rules modules, with settings that are changed after they were checked: what this machine's own would not allow.
    pub(crate) async fn start_resolved(modules: &[Vec<u8>], change: impl FnOnce(&mut Config)) -> Self {
        let dir = data_dir();
        let files = modules_in(&dir, modules);
        Self::start_with_both(dir, |settings| settings.modules = files, change).await
    }

    async fn start_with_both(
        dir: TempDir,
        change: impl FnOnce(&mut Settings),
        change_resolved: impl FnOnce(&mut Config),
    ) -> Self {
        let mut settings = settings(dir.path());
        change(&mut settings);
        let mut config = settings.resolve().unwrap();
        change_resolved(&mut config);
        let server = Server::start(config).await.unwrap_or_else(|error| panic!("{error:#}"));
        Self { server, http: client(), dir, rooms: Rooms::default() }
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.url())
    }

    pub(crate) fn ws_url(&self) -> String {
        format!("ws://{}/ws", self.server.addresses().http)
    }

    pub(crate) fn udp(&self) -> std::net::SocketAddr {
        self.server.addresses().udp
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Status and body of an answer to GET.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.http.get(self.url(path))).await
    }

    /// Status and body of an answer to POST.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        answer(self.http.post(self.url(path)).json(body)).await
    }

    /// Status and body of an answer to POST with the admin token.
    pub(crate) async fn post_as_admin(&self, path: &str, body: &Value) -> (u16, Value) {
        let token = self.server.admin().reveal().to_owned();
        answer(self.http.post(self.url(path)).bearer_auth(token).json(body)).await
    }

    /// Status and body of an answer to PUT of a module, with the admin token from where the host keeps it.
    pub(crate) async fn put_module(&self, name: &str, rooms: &str, wasm: Vec<u8>) -> (u16, Value) {
        let token = std::fs::read_to_string(self.dir.path().join("admin-token")).unwrap();
        let path = format!("/api/modules/{name}?rooms={rooms}");
        answer(self.http.put(self.url(&path)).bearer_auth(token.trim()).body(wasm)).await
    }

    /// Opens a room.
    pub(crate) async fn open_room(&self, request: &Value) -> String {
        let (status, body) = self.post("/api/rooms", request).await;
        assert_eq!(status, 201, "{body}");
        let room = body["room"].as_str().unwrap().to_owned();
        self.rooms.opened.lock().unwrap_or_else(PoisonError::into_inner).push(room.clone());
        room
    }

    /// Opens a room of a module for players who bring nothing.
    pub(crate) async fn open(&self, module: &str, players: &[&str]) -> String {
        let players: Vec<_> = players.iter().map(|name| json!({ "name": name })).collect();
        self.open_room(&json!({ "module": module, "players": players })).await
    }

    /// Gets a player's ticket.
    pub(crate) async fn join(&self, room: &str, player: &str) -> Grant {
        let (status, body) = self.post(&format!("/api/rooms/{room}/join"), &json!({ "player": player })).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_value(body).unwrap()
    }

    /// Gets a spectator's ticket.
    pub(crate) async fn watch(&self, room: &str) -> Grant {
        let (status, mut body) = self.post(&format!("/api/rooms/{room}/watch"), &json!({})).await;
        assert_eq!((status, body.get("player")), (200, None), "{body}");
        // No slot has this number; a spectator has none.
        body["player"] = u16::MAX.into();
        serde_json::from_value(body).unwrap()
    }

    /// The record of a room, once its match has ended.
    pub(crate) async fn ended(&self, room: &str) -> Value {
        self.recorded(room, "has an end", |record| !record["ended_at"].is_null()).await
    }

    /// The record of a room, once it is as wished.
    pub(crate) async fn recorded(&self, room: &str, what: &str, wished: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/api/rooms/{room}");
        eventually(&format!("the record of room {room} {what}"), SOON, async || {
            let (status, mut body) = self.get(&path).await;
            let record = body["recorded"].take();
            if status == 200 && wished(&record) { Ok(record) } else { Err(format!("{status} {record:#}")) }
        })
        .await
    }

    /// The phase of an open room; none when it is gone.
    pub(crate) async fn phase(&self, room: &str) -> Option<String> {
        let (_, body) = self.get(&format!("/api/rooms/{room}")).await;
        body["open"]["phase"].as_str().map(str::to_owned)
    }

    /// Waits until an open room is in a phase.
    pub(crate) async fn wait_phase(&self, room: &str, phase: &str) {
        eventually(&format!("room {room} is {phase}"), SOON, async || match self.phase(room).await {
            Some(now) if now == phase => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// The file of records.
    pub(crate) fn records(&self) -> PathBuf {
        self.server.addresses().records.clone().expect("this host keeps records")
    }

    /// Stops the host; every event is recorded then. Gives its data folder back.
    pub(crate) async fn stop(mut self) -> TempDir {
        let flush = self.server.stop().await.unwrap();
        assert_eq!(flush.left, 0, "events that are not recorded: {flush:?}");
        let lost = unheard(&self.dir.path().join("records.sqlite3"));
        assert!(lost.is_empty(), "{lost}");
        self.rooms.are_stopped = true;
        self.dir
    }
}

/// An HTTP client.
pub(crate) fn client() -> reqwest::Client {
    holeshot::tls::install_provider();
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap()
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status}, not JSON ({error}): {text}"));
    (status, body)
}

// ---- records ----

/// Opens the records as any program may: read-only, with plain SQLite.
pub(crate) fn open_records(path: &Path) -> Connection {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    connection
}

/// The event of a room that comes when the disk is done with its journal, whenever that is.
pub(crate) const JOURNAL_CLOSED: &str = "room.journal_closed";

/// Kinds of a room's events in the order in which they happened, without [`JOURNAL_CLOSED`].
pub(crate) fn kinds(path: &Path, room: &str) -> Vec<String> {
    let connection = open_records(path);
    let sql = "SELECT kind FROM events WHERE room = ?1 AND kind <> ?2 ORDER BY origin, sequence";
    let mut select = connection.prepare(sql).unwrap();
    select.query_map([room, JOURNAL_CLOSED], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// What is wrong with the records as a whole: events that are missing or that the manager rejected. Every start of a host counts its events
/// from 1 without a hole.
pub(crate) fn unheard(path: &Path) -> String {
    let connection = open_records(path);
    let mut text = String::new();
    let mut select = connection
        .prepare("SELECT origin, COUNT(*), MIN(sequence), MAX(sequence) FROM events GROUP BY origin")
        .unwrap();
    let rows = select
        .query_map([], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?))
        })
        .unwrap();
    for row in rows {
        let (origin, count, first, last) = row.unwrap();
        if (first, last) != (1, count) {
            let _ = writeln!(text, "origin {origin} has {count} events, from {first} to {last}");
        }
    }
    let mut select = connection.prepare("SELECT topic, reason FROM rejected").unwrap();
    let rows = select.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap();
    for row in rows {
        let (topic, reason) = row.unwrap();
        let _ = writeln!(text, "the manager rejected what came on {topic}: {reason}");
    }
    text
}
