//! What an open session that nobody says anything to has on the heap: a whole host, players who have come into rooms that wait for others, and a count of the bytes. Thousands of
//! them are open at a time, so that a buffer more is megabytes.
#![allow(
    unsafe_code,
    reason = "a global allocator is an unsafe trait; this one only counts and hands on to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use holeshot::api::Api;
use holeshot::config::Settings;
use holeshot::server::Server;
use holeshot_client::ConnectOptions;
use holeshot_wire::{ClientMessage, PROTOCOL_VERSION};
use serde_json::json;

static BYTES: AtomicIsize = AtomicIsize::new(0);
/// Whether it is noted where they came from.
static TRACED: AtomicBool = AtomicBool::new(false);
/// The places of what is there and was noted, by address.
static PLACES: Mutex<Option<HashMap<usize, (usize, String)>>> = Mutex::new(None);

thread_local! {
    /// Whether this thread is at a note, which allocates.
    static NOTING: Cell<bool> = const { Cell::new(false) };
}

fn count(bytes: isize, change: impl FnOnce(&mut HashMap<usize, (usize, String)>)) {
    if NOTING.get() {
        return;
    }
    BYTES.fetch_add(bytes, Ordering::Relaxed);
    if TRACED.load(Ordering::Relaxed) {
        NOTING.set(true);
        change(PLACES.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default());
        NOTING.set(false);
    }
}

fn come(ptr: *mut u8, bytes: usize) {
    count(bytes.cast_signed(), |places| {
        places.insert(ptr.addr(), (bytes, std::backtrace::Backtrace::force_capture().to_string()));
    });
}

fn go(ptr: *mut u8, bytes: usize) {
    count(-bytes.cast_signed(), |places| {
        places.remove(&ptr.addr());
    });
}

struct Counting;

// SAFETY: every call is handed on to the system's allocator unchanged; what is counted is in atomics, and notes do not note themselves.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        let ptr = unsafe { System.alloc(layout) };
        come(ptr, layout.size());
        ptr
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        go(ptr, layout.size());
        // SAFETY: the pointer came from the system's allocator, and the caller keeps the rest of the contract.
        let ptr = unsafe { System.realloc(ptr, layout, new_size) };
        come(ptr, new_size);
        ptr
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        go(ptr, layout.size());
        // SAFETY: the pointer came from `alloc` above, so from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Sessions that are opened while it is counted.
const SESSIONS: usize = 60;
/// Sessions before them, for which tables grow to 128 places: what is counted is what a session has besides its place in them.
const SESSIONS_BEFORE: usize = 66;
/// What one may have, in bytes: the WebSocket, its task, its queue, what the shard and the room know of the player.
const BYTES_MAX: usize = 4_500;

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_has_little_on_the_heap() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let free = Some("127.0.0.1:0".parse()?);
    let settings = Settings {
        http_listen: free,
        udp_listen: free,
        mqtt_listen: free,
        data_dir: Some(folder.path().to_owned()),
        rooms_max: Some(256),
        shards: Some(1),
        ..Settings::default()
    };
    let server = Server::start(settings.resolve()?).await?;
    let api = Api::new(&server.url())?;
    let address = server.url().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut grants = Vec::new();
    for _ in 0..SESSIONS_BEFORE + SESSIONS {
        // The second player never comes, and the room waits.
        let players = [json!({ "name": "ann" }), json!({ "name": "bob" })];
        let room = api.create_room(&players, &json!({ "tree": "sportsman" }), Some(1)).await?;
        grants.push(api.join(&room, "ann").await?.connect_options(false)?);
    }
    let (before, counted) = grants.split_at(SESSIONS_BEFORE);
    let mut open = Vec::new();
    for grant in before {
        open.push(enter(&address, grant)?);
    }
    let at_first = at_rest().await?;
    TRACED.store(std::env::var_os("HOLESHOT_ALLOCATIONS").is_some(), Ordering::Relaxed);
    for grant in counted {
        open.push(enter(&address, grant)?);
    }
    let bytes = at_rest().await?.saturating_sub(at_first);
    TRACED.store(false, Ordering::Relaxed);
    print_places();
    let each = usize::try_from(bytes)? / SESSIONS;
    println!("{each} bytes a session");
    assert!(each > 500, "the counter counts: {each} bytes");
    assert!(each <= BYTES_MAX, "{each} bytes a session; HOLESHOT_ALLOCATIONS=1 and --nocapture show where");
    drop(open);
    server.stop().await?;
    Ok(())
}

/// The bytes that are there once nothing changes them any more.
async fn at_rest() -> anyhow::Result<isize> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut least, mut since) = (BYTES.load(Ordering::Relaxed), Instant::now());
    while since.elapsed() < Duration::from_millis(500) {
        if Instant::now() > deadline {
            bail!("the host does not come to rest");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = BYTES.load(Ordering::Relaxed);
        // What comes and goes again, a journal's block or a look at the clock, is no session's.
        if now.abs_diff(least) > 2_048 {
            (least, since) = (now, Instant::now());
        }
        least = least.min(now);
    }
    Ok(least)
}

/// Opens a session as a browser does, with nothing of its own on the heap: what is counted is the host's.
fn enter(address: &str, grant: &ConnectOptions) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let path = grant.ws_url.split_once(address).context("a URL of another host")?.1;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    anyhow::ensure!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    let hello = ClientMessage::Hello {
        protocol: PROTOCOL_VERSION,
        ticket: grant.ticket.clone(),
        noise: None,
        after: None,
        deltas: false,
    };
    let text = hello.encode()?;
    // One frame with a mask of zeros (RFC 6455, section 5.2).
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend(u16::try_from(text.len())?.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    stream.write_all(&frame)?;
    let mut said = [0; 4];
    stream.read_exact(&mut said)?;
    anyhow::ensure!(said[..2] == [0x81, 126], "a message of 126 to 65,535 bytes: {said:?}");
    let mut welcome = vec![0; usize::from(u16::from_be_bytes([said[2], said[3]]))];
    stream.read_exact(&mut welcome)?;
    let welcome = String::from_utf8(welcome)?;
    anyhow::ensure!(welcome.contains("\"welcome\""), "{welcome}");
    Ok(stream)
}

/// Where the bytes are that were noted, most first.
fn print_places() {
    let places = PLACES.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
    let mut sums: HashMap<String, (usize, usize)> = HashMap::new();
    for (bytes, place) in places.into_values() {
        // Names, and not where in memory they are or in which file.
        let frames = place.lines().filter(|line| !line.trim_start().starts_with("at "));
        let frames = frames.filter_map(|line| line.split_once(": ").map(|(_, name)| name.trim()));
        let of_interest =
            |name: &&str| !name.contains("backtrace") && !name.contains("session_bytes::") && !name.contains("alloc::");
        let frames: Vec<_> = frames.filter(of_interest).take(16).collect();
        let sum = sums.entry(frames.join("\n    ")).or_default();
        *sum = (sum.0 + bytes, sum.1 + 1);
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, (bytes, _))| std::cmp::Reverse(*bytes));
    for (place, (bytes, times)) in sums.into_iter().take(40) {
        println!("{} bytes a session in {times} allocations\n    {place}\n", bytes / SESSIONS);
    }
}
