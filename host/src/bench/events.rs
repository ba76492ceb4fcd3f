//! `holeshot bench events`: how many events a second come from a room's thread into the manager's database, with the embedded broker and
//! with mosquitto, beside the same rows inserted raw; how long one takes at a steady pace; what it costs.
//!
//! Everything on the way is real: outbox, publisher, a broker on a socket, recorder, receipts back. Host and manager share this process.
//! Raw is what SQLite alone takes: the rows that the recorder wrote, into a database of the same tables, indices and settings, a thousand
//! in a transaction, without JSON, without MQTT and without the outbox. The three take turns.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use rusqlite::{Connection, OpenFlags, params};
use serde::Serialize;
use serde_json::json;

use super::swap::Folder;
use crate::events::access::BrokerAccess;
use crate::events::outbox::Limits;
use crate::events::{BrokerConfig, EmitError, EventSink, Events, EventsConfig, InternalEvent};
use crate::manager::chores::Retention;
use crate::manager::{Manager, ManagerConfig, ManagerFigures, records};
use crate::metrics::process::Process;

/// Most events of one round: half a minute of them.
const EVENTS_MAX: usize = 1_000_000;
/// Most rounds.
const ROUNDS_MAX: usize = 20;
/// Rows in a transaction of the raw inserts, as in the recorder's.
const RAW_BATCH: usize = 1_000;
/// Events before the measurement: connections, statements and caches are warm then.
const WARM_EVENTS: usize = 1_000;
/// The room's thread looks after so many events whether those before are on the disk: the queue holds twice as many and more.
const LOOK_AFTER_EVENTS: usize = 2_048;
/// Pause of the room's thread when the disk is behind, or the outbox is full.
const FULL_PAUSE: Duration = Duration::from_micros(200);
/// How often is looked whether a row is there.
const LOOK_EVERY: Duration = Duration::from_micros(50);
/// How often is looked whether an event is in the outbox's file.
const DISK_LOOK_EVERY: Duration = Duration::from_micros(20);
/// How long anything that is waited for may take.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Debian puts servers where users do not look.
const MOSQUITTO: [&str; 2] = ["mosquitto", "/usr/sbin/mosquitto"];

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Events of each round, 1,000 to 1,000,000.
    pub events: usize,
    /// Rounds, 1 to 20.
    pub rounds: usize,
    /// Events a second of the paced run, 1 to 10,000.
    pub pace_per_s: u32,
    /// Seconds of the paced run, 1 to 60.
    pub pace_s: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { events: 50_000, rounds: 3, pace_per_s: 1_000, pace_s: 5 }
    }
}

/// Figures of one way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Way {
    /// Over which broker.
    pub broker: String,
    /// Events a second, from the first `emit` to the commit of the last row, in the round in the middle.
    pub events_per_s: f64,
    /// The slowest round and the fastest.
    pub events_per_s_range: (f64, f64),
    /// The median over rounds of this divided by the raw inserts next to it.
    pub of_raw: f64,
    /// From the commit of the last row until the host has forgotten the last event, in milliseconds, in the round in the middle.
    pub receipts_ms: f64,
    /// Processor time of all that takes part, in microseconds per event, in the round in the middle; the figure is good to 10 ms per round.
    pub cpu_us_per_event: Option<f64>,
    /// Messages that arrived twice, over all rounds.
    pub delivered_again: u64,
    /// At the steady pace: half of the events were in the outbox's file within this time of their `emit`. A room's players wait so long for
    /// their `bye`.
    pub on_disk_p50_us: u64,
    /// 99 of 100 were.
    pub on_disk_p99_us: u64,
    /// At the steady pace: half of the rows were committed within this time of their `emit`.
    pub latency_p50_us: u64,
    /// 99 of 100 were.
    pub latency_p99_us: u64,
}

/// All figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether this program was built with optimisation.
    pub optimised: bool,
    /// Events of each round.
    pub events: usize,
    /// Rounds.
    pub rounds: usize,
    /// Events a second of the paced run.
    pub pace_per_s: u32,
    /// Bytes of an event as it is sent and kept.
    pub event_bytes: usize,
    /// Raw inserts a second, in the round in the middle.
    pub raw_per_s: f64,
    /// Over the embedded broker, and over mosquitto if there is one.
    pub ways: Vec<Way>,
    /// Why mosquitto is not among them.
    pub without_mosquitto: Option<String>,
}

/// Measures. Takes half a minute.
///
/// # Errors
/// An option out of range, or a part that does not do what it should.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let Options { events, rounds, pace_per_s, pace_s } = *options;
    if !(WARM_EVENTS..=EVENTS_MAX).contains(&events) || !(1..=ROUNDS_MAX).contains(&rounds) {
        bail!(
            "{WARM_EVENTS} to {EVENTS_MAX} events and 1 to {ROUNDS_MAX} rounds can be measured, not {events} and {rounds}"
        );
    }
    if !(1..=10_000).contains(&pace_per_s) || !(1..=60).contains(&pace_s) {
        bail!("1 to 10000 events a second for 1 to 60 s can be paced, not {pace_per_s} for {pace_s} s");
    }
    let folder = Folder::make()?;
    let mut sites = vec![Site::start("embedded", &folder.path.join("embedded"), None).await?];
    let (mosquitto, without_mosquitto) = match Mosquitto::start(&folder.path.join("mosquitto")) {
        Ok(Some(mosquitto)) => (Some(mosquitto), None),
        Ok(None) => (None, Some("mosquitto is not installed".to_owned())),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    if let Some(mosquitto) = &mosquitto {
        sites.push(Site::start("mosquitto", &folder.path.join("external"), Some(mosquitto)).await?);
    }
    for site in &mut sites {
        site.round(WARM_EVENTS).await?;
    }
    let (mut raws, mut event_bytes) = (Vec::new(), 0);
    for round in 0..rounds {
        for site in &mut sites {
            let figures = site.round(events).await?;
            site.rounds.push(figures);
        }
        let (from, to) = (sites.first().map(Site::records), folder.path.join(format!("raw-{round}")));
        let from = from.context("there is a way")?;
        let (raw_per_s, bytes) = tokio::task::spawn_blocking(move || raw(&from, &to, events)).await??;
        raws.push(raw_per_s);
        event_bytes = bytes;
    }
    let mut ways = Vec::new();
    for site in sites {
        ways.push(site.end(&raws, pace_per_s, pace_s).await?);
    }
    Ok(Report {
        optimised: !cfg!(debug_assertions),
        events,
        rounds,
        pace_per_s,
        event_bytes,
        raw_per_s: median(&raws),
        ways,
        without_mosquitto,
    })
}

impl Report {
    /// The figures as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = super::head(self.optimised);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} events of {} bytes from a room's thread to a row of the manager, the median of {} rounds; p50 / p99 at {} a second\n",
            self.events, self.event_bytes, self.rounds, self.pace_per_s
        );
        let _ = writeln!(
            text,
            "{:<18} {:>9} {:>7} {:>10} {:>17} {:>17} {:>15}",
            "", "events/s", "of raw", "CPU µs", "in the outbox ms", "row committed ms", "receipts ms"
        );
        let _ = writeln!(text, "{:<18} {:>9.0} {:>6.0}%", "raw inserts", self.raw_per_s, 100.0);
        let ms = |p50: u64, p99: u64| format!("{:.1} / {:.1}", p50 as f64 / 1_000.0, p99 as f64 / 1_000.0);
        for way in &self.ways {
            let cpu = way.cpu_us_per_event.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.0}"));
            let _ = writeln!(
                text,
                "{:<18} {:>9.0} {:>6.1}% {cpu:>10} {:>17} {:>17} {:>15.1}",
                format!("over {}", way.broker),
                way.events_per_s,
                way.of_raw * 100.0,
                ms(way.on_disk_p50_us, way.on_disk_p99_us),
                ms(way.latency_p50_us, way.latency_p99_us),
                way.receipts_ms
            );
        }
        if let Some(reason) = &self.without_mosquitto {
            let _ = writeln!(text, "Without mosquitto: {reason}.");
        }
        text
    }
}

/// One round.
struct Round {
    events_per_s: f64,
    receipts_ms: f64,
    cpu_us_per_event: Option<f64>,
}

/// A host's events, a broker and a manager.
struct Site {
    name: &'static str,
    events: Events,
    manager: Manager,
    figures: ManagerFigures,
    records: PathBuf,
    /// A broker in a process of its own.
    broker: Option<u32>,
    /// Rows so far.
    stored: u64,
    rounds: Vec<Round>,
}

impl Site {
    async fn start(name: &'static str, folder: &Path, mosquitto: Option<&Mosquitto>) -> anyhow::Result<Self> {
        let broker = match mosquitto {
            None => BrokerConfig::Embedded { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) },
            Some(mosquitto) => BrokerConfig::External(BrokerAccess::from_url(&mosquitto.url(), None, None)?),
        };
        let config =
            EventsConfig { host_id: "bench".into(), data_dir: folder.to_owned(), broker, outbox: Limits::default() };
        let events = Events::start(config).await?;
        let config = ManagerConfig {
            broker: events.broker_access().clone(),
            data_dir: folder.to_owned(),
            retention: Retention::default(),
        };
        let manager = Manager::start(config).await?;
        let (figures, records) = (manager.figures(), manager.records().path().to_owned());
        until("the manager subscribes", || figures.stats().subscribed).await?;
        let broker = mosquitto.map(|mosquitto| mosquitto.child.id());
        Ok(Self { name, events, manager, figures, records, broker, stored: 0, rounds: Vec::new() })
    }

    fn records(&self) -> PathBuf {
        self.records.clone()
    }

    fn cpu_s(&self) -> Option<f64> {
        let own = Process::read()?.cpu_s();
        self.broker.map_or(Some(own), |broker| Some(own + Process::of(broker)?.cpu_s()))
    }

    /// Sends as many events as it takes, as fast as it goes.
    async fn round(&mut self, events: usize) -> anyhow::Result<Round> {
        let sink = self.events.sink();
        let (cpu, begun) = (self.cpu_s(), Instant::now());
        let room = std::thread::Builder::new().name("room".into()).spawn(move || -> Result<(), EmitError> {
            let mut before = sink.mark();
            for number in 0..events {
                emit(&sink, number)?;
                if number % LOOK_AFTER_EVENTS == 0 {
                    while !sink.is_durable(before) {
                        std::thread::sleep(FULL_PAUSE);
                    }
                    before = sink.mark();
                }
            }
            Ok(())
        })?;
        self.stored += events as u64;
        let (goal, figures) = (self.stored, &self.figures);
        let look = || figures.stats().stored >= goal;
        until("the last row is committed", look).await?;
        let took = begun.elapsed();
        if room.join().map_err(|_| anyhow::anyhow!("the room's thread panicked"))?.is_err() {
            bail!("an event was not taken");
        }
        let events_stats = &self.events;
        until("every event has its receipt", || events_stats.stats().queued == 0).await?;
        let receipts_ms = (begun.elapsed() - took).as_secs_f64() * 1_000.0;
        let cpu_us_per_event = cpu.zip(self.cpu_s()).map(|(before, after)| (after - before) * 1e6 / events as f64);
        Ok(Round { events_per_s: events as f64 / took.as_secs_f64(), receipts_ms, cpu_us_per_event })
    }

    /// How many microseconds each event takes at a steady pace until it is in the outbox's file, and until its row is committed.
    async fn paced(&mut self, per_s: u32, seconds: u32) -> anyhow::Result<(Vec<u64>, Vec<u64>)> {
        let events = per_s as usize * seconds as usize;
        let (sink, every) = (self.events.sink(), Duration::from_secs(1) / per_s);
        let room = std::thread::Builder::new().name("room".into()).spawn(move || {
            let begun = Instant::now();
            let (mut emitted, mut on_disk) = (Vec::with_capacity(events), Vec::with_capacity(events));
            for number in 0..events {
                let due = begun + every * u32::try_from(number).unwrap_or(u32::MAX);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let now = Instant::now();
                emitted.push(now);
                emit(&sink, number)?;
                let mark = sink.mark();
                while !sink.is_durable(mark) {
                    std::thread::sleep(DISK_LOOK_EVERY);
                }
                on_disk.push(micros(now.elapsed()));
            }
            Ok::<_, EmitError>((emitted, on_disk))
        })?;
        let before = self.stored;
        self.stored += events as u64;
        let (desk, goal) = (self.manager.figures(), self.stored);
        let looked = tokio::task::spawn_blocking(move || {
            let mut committed = Vec::with_capacity(events);
            let give_up = Instant::now() + WAIT_MAX + every * u32::try_from(events).unwrap_or(u32::MAX);
            while before + (committed.len() as u64) < goal && Instant::now() < give_up {
                let (stored, now) = (desk.stats().stored, Instant::now());
                while before + (committed.len() as u64) < stored {
                    committed.push(now);
                }
                std::thread::sleep(LOOK_EVERY);
            }
            committed
        });
        let committed = looked.await?;
        let emitted = room.join().map_err(|_| anyhow::anyhow!("the room's thread panicked"))?;
        let (emitted, on_disk) = emitted.context("an event was not taken")?;
        if committed.len() != emitted.len() {
            bail!("only {} of {events} rows were committed in time", committed.len());
        }
        let took = committed.iter().zip(&emitted).map(|(row, event)| row.saturating_duration_since(*event));
        Ok((on_disk, took.map(micros).collect()))
    }

    async fn end(mut self, raws: &[f64], pace_per_s: u32, pace_s: u32) -> anyhow::Result<Way> {
        let (on_disk, committed) = self.paced(pace_per_s, pace_s).await?;
        let of = |figure: &dyn Fn(&Round) -> f64| self.rounds.iter().map(figure).collect::<Vec<f64>>();
        let speeds = of(&|round| round.events_per_s);
        let cpu: Option<Vec<f64>> = self.rounds.iter().map(|round| round.cpu_us_per_event).collect();
        let (slowest, fastest) =
            speeds.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), &speed| (low.min(speed), high.max(speed)));
        let way = Way {
            broker: self.name.to_owned(),
            events_per_s: median(&speeds),
            events_per_s_range: (slowest, fastest),
            of_raw: median(&speeds.iter().zip(raws).map(|(speed, raw)| speed / raw).collect::<Vec<_>>()),
            receipts_ms: median(&of(&|round| round.receipts_ms)),
            cpu_us_per_event: cpu.map(|cpu| median(&cpu)),
            delivered_again: self.figures.stats().duplicates,
            on_disk_p50_us: quantile(&on_disk, 50),
            on_disk_p99_us: quantile(&on_disk, 99),
            latency_p50_us: quantile(&committed, 50),
            latency_p99_us: quantile(&committed, 99),
        };
        self.events.shutdown(WAIT_MAX).await;
        self.manager.shutdown().await;
        self.events.stop_broker().await;
        Ok(way)
    }
}

/// Emits one event as a module's: 126 bytes of data, as much as a time at a line of the track has.
fn emit(sink: &EventSink, number: usize) -> Result<(), EmitError> {
    loop {
        let event = InternalEvent {
            kind: "rules.split".to_owned(),
            module: Some("bench".to_owned()),
            room: Some(format!("room-{}", number / 100)),
            data: json!({ "frame": number, "data": {
                "player": number % 8, "line": "60ft", "time_s": 1.987, "speed_mps": 27.4, "reaction_s": 0.512, "car": "some-car"
            } }),
            time: SystemTime::now(),
        };
        match sink.emit(event) {
            Ok(()) => return Ok(()),
            Err(EmitError::QueueFull { .. } | EmitError::OutboxFull { .. }) => std::thread::sleep(FULL_PAUSE),
            Err(error) => return Err(error),
        }
    }
}

/// Inserts the first rows of a database into a new one, and gives rows a second and the bytes of an event.
fn raw(from: &Path, to: &Path, rows: usize) -> anyhow::Result<(f64, usize)> {
    let from = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut select =
        from.prepare("SELECT sequence, time, kind, room, module, json FROM events ORDER BY id LIMIT ?1")?;
    let taken = select.query_map([i64::try_from(rows)?], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
            row.get::<_, Option<String>>(3)?,
            row.get::<_, Option<String>>(4)?,
            row.get::<_, String>(5)?,
        ))
    })?;
    let taken: Vec<_> = taken.collect::<Result<_, _>>()?;
    let bytes = taken.last().map_or(0, |row| row.5.len());
    let (mut connection, _) = records::open(to)?;
    connection.execute("INSERT INTO origins (id, origin, host) VALUES (1, 'bench.1', 'bench')", [])?;
    let begun = Instant::now();
    for batch in taken.chunks(RAW_BATCH) {
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO events (origin, sequence, time, kind, room, module, json)
                 VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (origin, sequence) DO NOTHING",
            )?;
            for (sequence, time, kind, room, module, json) in batch {
                insert.execute(params![sequence, time, kind, room, module, json])?;
            }
        }
        transaction.commit()?;
    }
    Ok((taken.len() as f64 / begun.elapsed().as_secs_f64(), bytes))
}

/// A mosquitto with its default settings, on a port that the system picked. Dropping it kills it.
struct Mosquitto {
    child: Child,
    port: u16,
}

impl Mosquitto {
    /// None if the program is not installed.
    fn start(folder: &Path) -> anyhow::Result<Option<Self>> {
        let is_there =
            |name: &&str| Command::new(name).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
        let Some(program) = MOSQUITTO.into_iter().find(is_there) else { return Ok(None) };
        std::fs::create_dir_all(folder)?;
        // Free at the moment; nobody else asks the system for this one soon.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let settings = folder.join("mosquitto.conf");
        std::fs::write(&settings, format!("listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"))?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut mosquitto = Self { child: command.spawn().context("cannot start mosquitto")?, port };
        let give_up = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if mosquitto.child.try_wait()?.is_some() || Instant::now() > give_up {
                bail!("mosquitto does not listen on port {port}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Some(mosquitto))
    }

    fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _gone_already = self.child.wait();
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let give_up = Instant::now() + WAIT_MAX;
    while !holds() {
        if Instant::now() > give_up {
            bail!("{what}: not within {} s", WAIT_MAX.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn quantile(values: &[u64], of_hundred: usize) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    let rank = (values.len() * of_hundred).div_ceil(100).saturating_sub(1);
    values.get(rank).copied().unwrap_or_default()
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_run_records_every_event_and_has_figures() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let options = Options { events: 2_000, rounds: 2, pace_per_s: 500, pace_s: 1 };
        let report = runtime.block_on(run(&options)).unwrap();
        assert!(report.raw_per_s > 0.0 && report.event_bytes > 300, "{report:?}");
        assert_eq!(report.ways.len(), if report.without_mosquitto.is_some() { 1 } else { 2 });
        for way in &report.ways {
            assert!(way.events_per_s > 0.0 && way.of_raw > 0.0, "{way:?}");
            assert!(way.latency_p50_us > 0 && way.latency_p50_us <= way.latency_p99_us, "{way:?}");
        }
        let table = report.table();
        assert!(table.contains("raw inserts") && table.contains("over embedded"), "{table}");
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for change in [
            |options: &mut Options| options.events = 10,
            |options: &mut Options| options.rounds = 0,
            |options: &mut Options| options.pace_per_s = 0,
            |options: &mut Options| options.pace_s = 61,
        ] {
            let mut options = Options::default();
            change(&mut options);
            let error = runtime.block_on(run(&options)).unwrap_err().to_string();
            assert!(error.contains("can be"), "{error}");
        }
    }
}
