//! `holeshot bench flood`: what strangers at the doors cost the races that run. A whole host; races of real clients over datagrams; the same races again while
//! somebody floods the host with garbage datagrams, connections that ask nothing and WebSockets that never say hello.
//!
//! The flooder shares the machine with the host and its clients. It has threads of its own with the lowest priority (nice 19; on a machine that has other work it needs more to be a flood) and a rate that it keeps to, and the
//! part of a core that it took is printed: what it takes, and what the system takes for it to deliver on this machine's own network, a flooder from
//! elsewhere would not.

use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use holeshot_wire::datagram::{DATAGRAM_BYTES_MAX, DATAGRAM_VERSION};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::swap::{Folder, Seen, Ticks, Watch};
use crate::api::Api;
use crate::bots::{self, Bot};
use crate::clock::{set_niceness, thread_cpu_ns};
use crate::config::Settings;
use crate::doors::gate::Limit;
use crate::identity::random;
use crate::server::Server;

/// Most rooms: each has two clients, whose work this machine does, too.
const ROOMS_MAX: u32 = 500;
/// Longest phase, in seconds.
const SECONDS_MAX: u64 = 600;
/// Most datagrams per second that are asked for: more than one thread sends.
const DATAGRAMS_PER_S_MAX: u64 = 2_000_000;
/// Most sockets of each kind that the flooder holds.
const SOCKETS_MAX: usize = 5_000;
/// New sockets of each kind per second: a handshake takes work of the flooder, too.
const SOCKETS_PER_S: u64 = 200;
/// How often the flooder sends, in microseconds.
const BURST_EVERY_US: u64 = 1_000;
/// How long a room may take to be on record after its race, in milliseconds.
const RECORD_WAIT_MAX_MS: u64 = 30_000;

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Each phase lasts until the races are over that began within so many seconds.
    pub seconds: u64,
    /// Rooms of two drivers.
    pub rooms: u32,
    /// Garbage datagrams per second.
    pub datagrams_per_s: u64,
    /// TCP connections without a request, and as many WebSockets without a hello, that the flooder keeps open.
    pub sockets: usize,
    /// Niceness of the flooder's threads, -20 to 19.
    pub niceness: i32,
}

impl Default for Options {
    /// A phase of races of half a minute, as one shard carries them beside their clients on two cores; a tenth of what one core can send.
    fn default() -> Self {
        Self { seconds: 10, rooms: 20, datagrams_per_s: 50_000, sockets: 500, niceness: 19 }
    }
}

/// What became of the races of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Phase {
    /// Races that finished.
    pub races: u64,
    /// Their ticks.
    pub ticks: Ticks,
    /// Ticks of a driver for which its input was there.
    pub inputs_fresh: u64,
    /// Ticks of a driver without its input: lost or late, or not sent yet (a race begins with some).
    pub inputs_missing: u64,
    /// Snapshots that clients received.
    pub snapshots_received: u64,
    /// Snapshots that clients missed.
    pub snapshots_missed: u64,
}

/// What the flooder did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Flood {
    /// How long it ran, in milliseconds.
    pub took_ms: u64,
    /// Datagrams that it sent.
    pub datagrams: u64,
    /// Of these, those that the host looked at and refused; the system dropped the others.
    pub datagrams_refused: u64,
    /// Connections without a request that it opened.
    pub connections: u64,
    /// WebSockets without a hello that it opened.
    pub websockets: u64,
    /// Of these, those that the host refused to take.
    pub websockets_refused: u64,
    /// How much it gave way to others.
    pub niceness: i32,
    /// The part of one core that it took, in percent; none where the system does not say.
    pub cpu_percent: Option<f64>,
}

/// All figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Report {
    /// Whether this program was built with optimisation.
    pub optimised: bool,
    /// Rooms at a time.
    pub rooms: u32,
    /// Without the flood.
    pub without: Phase,
    /// With it.
    pub with: Phase,
    /// The flood.
    pub flood: Flood,
}

/// Measures.
///
/// # Errors
/// An option out of range, or a host or client that does not do what it should.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let Options { seconds, rooms, datagrams_per_s, sockets, niceness } = *options;
    if !(1..=ROOMS_MAX).contains(&rooms) || !(1..=SECONDS_MAX).contains(&seconds) {
        bail!("1 to {ROOMS_MAX} rooms and 1 to {SECONDS_MAX} seconds can be measured, not {rooms} and {seconds}");
    }
    if !(1..=DATAGRAMS_PER_S_MAX).contains(&datagrams_per_s) || !(1..=SOCKETS_MAX).contains(&sockets) {
        bail!(
            "1 to {DATAGRAMS_PER_S_MAX} datagrams per second and 1 to {SOCKETS_MAX} sockets, not {datagrams_per_s} and {sockets}"
        );
    }
    if !(-20..=19).contains(&niceness) {
        bail!("niceness goes from -20 to 19; {niceness} is none");
    }
    let folder = Folder::make()?;
    let server = start(&folder, rooms).await?;
    let measured = measure(&server, options).await;
    server.stop().await?;
    measured
}

/// A host of its own, on ports that nobody has.
async fn start(folder: &Folder, rooms: u32) -> anyhow::Result<Server> {
    let free = Some("127.0.0.1:0".parse()?);
    let settings = Settings {
        http_listen: free,
        udp_listen: free,
        mqtt_listen: free,
        data_dir: Some(folder.path.clone()),
        rooms_max: Some(rooms * 2 + 8),
        linger_s: Some(0),
        shards: Some(1),
        ..Settings::default()
    };
    Server::start(settings.resolve()?).await
}

async fn measure(server: &Server, options: &Options) -> anyhow::Result<Report> {
    let without = phase(server, options, 1_000).await?;
    let refused_before = server.refused(Limit::HalfOpen) + server.refused(Limit::Handshakes);
    let shard = server.shards().first().context("a host without a shard")?;
    let datagrams_before = shard.counters.datagrams_refused.load(Ordering::Relaxed);
    let flooder = Flooder::start(server, options)?;
    let with = phase(server, options, 2_000).await;
    let mut flood = tokio::task::spawn_blocking(move || flooder.stop()).await?;
    flood.datagrams_refused = shard.counters.datagrams_refused.load(Ordering::Relaxed) - datagrams_before;
    flood.websockets_refused = server.refused(Limit::HalfOpen) + server.refused(Limit::Handshakes) - refused_before;
    Ok(Report { optimised: !cfg!(debug_assertions), rooms: options.rooms, without, with: with?, flood })
}

/// Races in every room, one after the other until the time is over.
async fn phase(server: &Server, options: &Options, seed: u64) -> anyhow::Result<Phase> {
    let api = Api::new(&server.url())?;
    let until = Instant::now() + Duration::from_secs(options.seconds);
    let mut watch = Watch::new(server)?;
    watch.begin().await?;
    let mut playing = JoinSet::new();
    for room in 0..options.rooms {
        let api = api.clone();
        playing.spawn(async move {
            // A few milliseconds apart, so that the rooms are spread over the tick as they are where people come and go.
            sleep(Duration::from_millis(u64::from(room) * 7)).await;
            let (mut rooms, mut reports) = (Vec::new(), Vec::new());
            while Instant::now() < until {
                let (room, race) = race(&api, seed + u64::from(room)).await?;
                rooms.push(room);
                reports.extend(race);
            }
            anyhow::Ok((rooms, reports))
        });
    }
    let (mut rooms, mut snapshots) = (Vec::new(), (0, 0));
    while let Some(played) = playing.join_next().await {
        let (raced, reports) = played??;
        rooms.extend(raced);
        for report in reports {
            snapshots.0 += report.snapshots_received;
            snapshots.1 += report.snapshots_missed;
        }
    }
    let mut seen = Seen::nothing();
    watch.end(&mut seen).await?;
    let (mut fresh, mut missing) = (0, 0);
    for room in &rooms {
        for player in recorded(&api, room).await? {
            let count = |name: &str| player.pointer(&format!("/inputs/{name}")).and_then(Value::as_u64).unwrap_or(0);
            fresh += count("fresh");
            missing += count("repeated") + count("absent");
        }
    }
    Ok(Phase {
        races: rooms.len() as u64,
        ticks: seen.ticks(),
        inputs_fresh: fresh,
        inputs_missing: missing,
        snapshots_received: snapshots.0,
        snapshots_missed: snapshots.1,
    })
}

async fn race(api: &Api, seed: u64) -> anyhow::Result<(String, Vec<bots::BotReport>)> {
    let drivers: Vec<Bot> = (0..2)
        .map(|lane| Bot {
            name: bots::name(lane),
            car: drag_race::cars().first().map(|car| car.id.to_string()).unwrap_or_default(),
            skill: 0.8,
            seed: seed.wrapping_mul(2).wrapping_add(lane as u64),
            with_udp: true,
        })
        .collect();
    let players: Vec<Value> =
        drivers.iter().map(|bot| json!({ "name": bot.name, "data": { "car": bot.car } })).collect();
    let room = api.create_room(&players, &json!({ "tree": "sportsman" }), Some(seed)).await?;
    let mut playing = JoinSet::new();
    for bot in drivers {
        let (api, room) = (api.clone(), room.clone());
        playing.spawn(async move { bots::play(&api, &room, &bot, None).await });
    }
    let mut reports = Vec::new();
    while let Some(played) = playing.join_next().await {
        let report = played??;
        if report.ending != "finished" {
            bail!("a race was aborted: {}", report.outcome);
        }
        reports.push(report);
    }
    Ok((room, reports))
}

/// What a room counted for each of its players.
async fn recorded(api: &Api, room: &str) -> anyhow::Result<Vec<Value>> {
    let begun = Instant::now();
    loop {
        let record = api.get(&format!("/api/rooms/{room}")).await?;
        if let Some(players) = record.pointer("/recorded/counters/players").and_then(Value::as_array) {
            return Ok(players.clone());
        }
        if begun.elapsed() > Duration::from_millis(RECORD_WAIT_MAX_MS) {
            bail!("room {room} is not on record after {} s", RECORD_WAIT_MAX_MS / 1_000);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[derive(Debug, Default)]
struct Counted {
    stop: AtomicBool,
    datagrams: AtomicU64,
    connections: AtomicU64,
    websockets: AtomicU64,
}

/// Threads that do what strangers do.
#[derive(Debug)]
struct Flooder {
    begun: Instant,
    counted: Arc<Counted>,
    niceness: i32,
    /// Each gives the processor time that it took, in nanoseconds.
    threads: Vec<JoinHandle<Option<u64>>>,
}

impl Flooder {
    fn start(server: &Server, options: &Options) -> anyhow::Result<Self> {
        let counted = Arc::<Counted>::default();
        let (udp, http) = (server.addresses().udp, server.addresses().http);
        let seed = u64::from_le_bytes(random()?);
        let (per_s, niceness) = (options.datagrams_per_s, options.niceness);
        let thread = |name: &str, work: Box<dyn FnOnce(&Counted) + Send>| {
            let counted = Arc::clone(&counted);
            std::thread::Builder::new().name(name.to_owned()).spawn(move || {
                set_niceness(niceness);
                work(&counted);
                thread_cpu_ns()
            })
        };
        let sockets = options.sockets;
        let threads = vec![
            thread("flood-datagrams", Box::new(move |counted| send_garbage(counted, udp, per_s, seed)))?,
            thread("flood-sockets", Box::new(move |counted| hold_sockets(counted, http, sockets)))?,
        ];
        Ok(Self { begun: Instant::now(), counted, niceness, threads })
    }

    fn stop(self) -> Flood {
        self.counted.stop.store(true, Ordering::Relaxed);
        let took = self.begun.elapsed();
        let processor: Option<u64> =
            self.threads.into_iter().map(|thread| thread.join().ok().flatten()).sum::<Option<u64>>();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Flood {
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            datagrams: read(&self.counted.datagrams),
            datagrams_refused: 0,
            connections: read(&self.counted.connections),
            websockets: read(&self.counted.websockets),
            websockets_refused: 0,
            niceness: self.niceness,
            cpu_percent: processor.map(|ns| ns as f64 / took.as_nanos().max(1) as f64 * 100.0),
        }
    }
}

/// Datagrams of every length. A third of them has no right header, a third names sessions that there may be, the rest sessions that there are not.
fn send_garbage(counted: &Counted, to: SocketAddr, per_s: u64, mut seed: u64) {
    let Ok(socket) = UdpSocket::bind("127.0.0.1:0") else { return };
    let _send_to_works_too = socket.connect(to);
    let _full_is_full = socket.set_nonblocking(true);
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    let begun = Instant::now();
    let mut sent = 0;
    while !counted.stop.load(Ordering::Relaxed) {
        let due = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_mul(per_s) / 1_000_000;
        // Who was away from the processor does not make up for more than ten bursts.
        let burst = due.saturating_sub(sent).min(per_s * BURST_EVERY_US / 100_000);
        for number in 0..burst {
            // Marsaglia's xorshift64.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            if let Some(bytes) = datagram.first_chunk_mut::<16>() {
                let noise = (u128::from(seed) << 64 | u128::from(seed.rotate_left(32))).to_le_bytes();
                *bytes = noise;
                if number % 3 != 0 {
                    let session = if number % 3 == 1 { (seed as u32 & 0x7f) << 8 } else { seed as u32 };
                    let [s0, s1, s2, s3] = session.to_le_bytes();
                    bytes[..5].copy_from_slice(&[DATAGRAM_VERSION, s0, s1, s2, s3]);
                }
            }
            let length = 20 + (seed >> 32) as usize % 180;
            if let Some(datagram) = datagram.get(..length) {
                counted.datagrams.fetch_add(u64::from(socket.send(datagram).is_ok()), Ordering::Relaxed);
            }
        }
        sent = due;
        std::thread::sleep(Duration::from_micros(BURST_EVERY_US));
    }
}

/// Keeps so many connections open that ask nothing, and so many WebSockets that say no hello. The host ends each after a time; then there is another.
fn hold_sockets(counted: &Counted, to: SocketAddr, sockets: usize) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let (mut silent, mut half_open) = (JoinSet::new(), JoinSet::new());
        let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 / SOCKETS_PER_S));
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !counted.stop.load(Ordering::Relaxed) {
            pace.tick().await;
            while silent.try_join_next().is_some() {}
            while half_open.try_join_next().is_some() {}
            if silent.len() < sockets
                && let Ok(stream) = TcpStream::connect(to).await
            {
                counted.connections.fetch_add(1, Ordering::Relaxed);
                silent.spawn(until_ended(stream));
            }
            if half_open.len() < sockets
                && let Ok(mut stream) = TcpStream::connect(to).await
            {
                let request = format!(
                    "GET /ws HTTP/1.1\r\nHost: {to}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                );
                if stream.write_all(request.as_bytes()).await.is_ok() {
                    counted.websockets.fetch_add(1, Ordering::Relaxed);
                    half_open.spawn(until_ended(stream));
                }
            }
        }
    });
}

async fn until_ended(mut stream: TcpStream) {
    let _ended = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

impl Report {
    /// The figures as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = super::head(self.optimised);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} races of two at a time over datagrams, on one shard\n", self.rooms);
        let _ = writeln!(
            text,
            "{:<16} {:>6} {:>8} {:>7} {:>14} {:>14} {:>14} {:>15} {:>17}",
            "",
            "races",
            "ticks",
            "missed",
            "late p50 (us)",
            "late p99 (us)",
            "late max (us)",
            "inputs missing",
            "snapshots missed"
        );
        for (name, phase) in [("without flood", &self.without), ("with flood", &self.with)] {
            let Ticks { stepped, missed, late, .. } = &phase.ticks;
            let inputs = share(phase.inputs_missing, phase.inputs_fresh);
            let snapshots = share(phase.snapshots_missed, phase.snapshots_received);
            let _ = writeln!(
                text,
                "{name:<16} {:>6} {stepped:>8} {missed:>7} {:>14} {:>14} {:>14} {:>15} {:>17}",
                phase.races, late.p50_us, late.p99_us, late.max_us, inputs, snapshots
            );
        }
        let flood = &self.flood;
        let per_s = |count: u64| count.saturating_mul(1_000) / flood.took_ms.max(1);
        let _ = writeln!(
            text,
            "\nflood: {} datagrams/s sent, {} of them looked at by the host; {} connections/s without a request, {} WebSockets/s without a hello ({} refused)",
            per_s(flood.datagrams),
            share_of(flood.datagrams_refused, flood.datagrams),
            per_s(flood.connections),
            per_s(flood.websockets),
            flood.websockets_refused,
        );
        let _ = match flood.cpu_percent {
            Some(percent) => writeln!(text, "the flooder, at nice {}, took {percent:.0} % of one core", flood.niceness),
            None => writeln!(text, "how much of a core the flooder took, this system does not say"),
        };
        text
    }
}

fn share(part: u64, rest: u64) -> String {
    share_of(part, part.saturating_add(rest))
}

fn share_of(part: u64, all: u64) -> String {
    format!("{:.2} %", part as f64 / all.max(1) as f64 * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for options in [
            Options { rooms: 0, ..Options::default() },
            Options { seconds: 0, ..Options::default() },
            Options { sockets: 5_001, ..Options::default() },
        ] {
            assert!(runtime.block_on(run(&options)).is_err());
        }
    }

    #[test]
    fn a_flood_reaches_the_host_and_is_told() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let options = Options { seconds: 1, rooms: 2, datagrams_per_s: 5_000, sockets: 20, niceness: 0 };
        let flood = runtime.block_on(async {
            let folder = Folder::make().unwrap();
            let server = start(&folder, 2).await.unwrap();
            let flooder = Flooder::start(&server, &options).unwrap();
            let refused = || server.shards()[0].counters.datagrams_refused.load(Ordering::Relaxed);
            let begun = Instant::now();
            while refused() < 1_000 || flooder.counted.websockets.load(Ordering::Relaxed) < 20 {
                assert!(begun.elapsed() < Duration::from_secs(60), "{flooder:?}, {} refused", refused());
                sleep(Duration::from_millis(20)).await;
            }
            let flood = Flood { datagrams_refused: refused(), ..flooder.stop() };
            server.stop().await.unwrap();
            flood
        });
        assert!(flood.datagrams_refused <= flood.datagrams && flood.connections >= 1, "{flood:?}");
        assert!(!cfg!(target_os = "linux") || flood.cpu_percent.is_some_and(|percent| percent > 0.0), "{flood:?}");
        let phase = Phase {
            races: 2,
            ticks: Seen::nothing().ticks(),
            inputs_fresh: 99,
            inputs_missing: 1,
            snapshots_received: 3,
            snapshots_missed: 1,
        };
        let table = Report { optimised: true, rooms: 2, without: phase, with: phase, flood }.table();
        assert!(table.contains("without flood") && table.contains("1.00 %") && table.contains("25.00 %"), "{table}");
        assert!(table.contains("nice 0"), "{table}");
    }
}
