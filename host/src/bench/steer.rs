//! `holeshot bench steer`: what a datagram costs a host of several shards until its session is looked up, where the system gives each to its shard and where shards hand
//! them to each other. Two whole hosts, one of each kind, take turns, each with a room on every shard, so that all of them look every millisecond.
//!
//! The datagrams name sessions of every shard in turn, and none that there is: so what is measured is receiving and handing over, not opening, which costs the same in either.
//! Time of the processor is that of the shards' threads, less what they take in the same time without datagrams. Linux alone says it. On this machine's own network the sender
//! pays for the system's part of delivering; both hosts are alike in that.

use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use holeshot_wire::datagram::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, DATAGRAM_VERSION, HEADER_BYTES};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::swap::Folder;
use crate::config::Settings;
use crate::rooms::{CreateRoom, NewPlayer};
use crate::server::Server;
use crate::shard::{Command, ShardCounters};

/// Longest phase, in seconds.
const SECONDS_MAX: u64 = 60;
/// Most rounds: with the longest phases an hour.
const ROUNDS_MAX: usize = 15;
/// Most datagrams per second: more than one thread sends.
const DATAGRAMS_PER_S_MAX: u64 = 1_000_000;
/// Sockets that send in turn, as players have their own ports: without steering the system would still choose by them.
const SENDERS: usize = 256;
/// How often the sender sends, in microseconds.
const BURST_EVERY_US: u64 = 1_000;
/// Rooms that are opened until every shard has one: they are spread, so a few more than shards do.
const ROOMS_PER_SHARD_MAX: usize = 16;
/// How long a host may take until it has looked at all that was sent, in milliseconds.
const LOOK_WAIT_MAX_MS: u64 = 10_000;

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Shards of each host, 2 to the number of cores.
    pub shards: usize,
    /// Datagrams per second.
    pub datagrams_per_s: u64,
    /// Bytes of each.
    pub bytes: usize,
    /// How long each phase lasts, in seconds: without datagrams and with them, for both hosts.
    pub seconds: u64,
    /// Times that all of it is measured.
    pub rounds: usize,
}

impl Default for Options {
    /// As many datagrams as 1,000 players send, an input each with its repetitions; half a minute.
    fn default() -> Self {
        Self { shards: 2, datagrams_per_s: 50_000, bytes: 93, seconds: 2, rounds: 4 }
    }
}

/// What one kind of host did over all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Kind {
    /// Datagrams sent to it.
    pub sent: u64,
    /// Of these, those that it looked at; the system dropped the others.
    pub looked_at: u64,
    /// Of these, those that another shard than their own received, in percent.
    pub handed_over_percent: f64,
    /// Processor time of all shards for one of them, in nanoseconds, in the round in the middle.
    pub cpu_ns: f64,
    /// The same in the best round.
    pub cpu_best_ns: f64,
}

/// All figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether this program was built with optimisation.
    pub optimised: bool,
    /// Shards of each host.
    pub shards: usize,
    /// Datagrams per second that were asked for.
    pub datagrams_per_s: u64,
    /// Bytes of each.
    pub bytes: usize,
    /// Steered by the system.
    pub steered: Kind,
    /// Handed over between shards.
    pub handed_over: Kind,
    /// Processor time handed over, over that steered.
    pub ratio: f64,
}

/// A host, what it did, and what each of its rounds cost.
struct Measured {
    server: Server,
    sent: u64,
    looked_at: u64,
    handed_over: u64,
    cpu_ns: Vec<f64>,
}

/// Measures.
///
/// # Errors
/// An option out of range, or a system that does not steer or does not say what a thread takes.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let Options { shards, datagrams_per_s, bytes, seconds, rounds } = *options;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if !(2..=cores).contains(&shards) {
        bail!("2 to {cores} shards can be measured on this machine's {cores} cores, not {shards}");
    }
    if !(1..=SECONDS_MAX).contains(&seconds) || !(1..=ROUNDS_MAX).contains(&rounds) {
        bail!("1 to {SECONDS_MAX} seconds and 1 to {ROUNDS_MAX} rounds can be measured, not {seconds} and {rounds}");
    }
    if !(1..=DATAGRAMS_PER_S_MAX).contains(&datagrams_per_s)
        || !(DATAGRAM_BYTES_MIN..=DATAGRAM_BYTES_MAX).contains(&bytes)
    {
        bail!(
            "1 to {DATAGRAMS_PER_S_MAX} datagrams per second of {DATAGRAM_BYTES_MIN} to {DATAGRAM_BYTES_MAX} bytes, not {datagrams_per_s} of {bytes}"
        );
    }
    let folders = [Folder::make()?, Folder::make()?];
    let mut kinds = Vec::new();
    for (folder, steer) in folders.iter().zip([true, false]) {
        let server = start(folder, shards, steer).await?;
        kinds.push(Measured { server, sent: 0, looked_at: 0, handed_over: 0, cpu_ns: Vec::new() });
    }
    let mut measured = Ok(());
    'rounds: for _ in 0..rounds {
        for kind in &mut kinds {
            measured = kind.round(options).await;
            if measured.is_err() {
                break 'rounds;
            }
        }
    }
    let mut figures = Vec::new();
    for kind in kinds {
        figures.push(kind.figures());
        kind.server.stop().await?;
    }
    measured?;
    let [steered, handed_over] = figures[..] else { bail!("two hosts were measured") };
    if steered.handed_over_percent > 1.0 {
        bail!("the system does not steer: {:.0} % were handed over; the log says why", steered.handed_over_percent);
    }
    let ratio = handed_over.cpu_ns / steered.cpu_ns.max(1.0);
    Ok(Report { optimised: !cfg!(debug_assertions), shards, datagrams_per_s, bytes, steered, handed_over, ratio })
}

/// A host of its own, on ports that nobody has, with a room on every shard that waits for its players.
async fn start(folder: &Folder, shards: usize, steer: bool) -> anyhow::Result<Server> {
    let free = Some("127.0.0.1:0".parse()?);
    let settings = Settings {
        http_listen: free,
        udp_listen: free,
        mqtt_listen: free,
        data_dir: Some(folder.path.clone()),
        gather_wait_s: Some(86_400),
        shards: Some(shards),
        steer_datagrams: Some(steer),
        ..Settings::default()
    };
    let server = Server::start(settings.resolve()?).await?;
    let car = drag_race::cars().first().map(|car| car.id.to_string()).unwrap_or_default();
    let mut has_room = vec![false; shards];
    for _ in 0..shards * ROOMS_PER_SHARD_MAX {
        let player = |name: &str| NewPlayer { name: name.into(), data: Some(serde_json::json!({ "car": car })) };
        let players = vec![player("Ada"), player("Ben")];
        let room = server.rooms().create(CreateRoom { module: None, players, options: None, seed: Some(1) }).await?;
        let live = server.rooms().live(&room.room).context("a room that is gone at once")?;
        if let Some(has_room) = has_room.get_mut(live.shard) {
            *has_room = true;
        }
        if has_room.iter().all(|has_room| *has_room) {
            return Ok(server);
        }
    }
    server.stop().await?;
    bail!("no room comes to one of the shards")
}

impl Measured {
    /// A phase without datagrams and one with them.
    async fn round(&mut self, options: &Options) -> anyhow::Result<()> {
        let length = Duration::from_secs(options.seconds);
        let (before_ns, begun) = (self.cpu_ns().await?, Instant::now());
        sleep(length).await;
        let idle_ns = (self.cpu_ns().await? - before_ns) as f64 / begun.elapsed().as_secs_f64();

        let before = [self.sum(|c| &c.datagrams_received), self.sum(|c| &c.datagrams_handed_over)];
        let (before_ns, begun) = (self.cpu_ns().await?, Instant::now());
        let sender = Sender::start(self.server.addresses().udp, options)?;
        sleep(length).await;
        let sent = tokio::task::spawn_blocking(move || sender.stop()).await?;
        // What is on its way, or was dropped by now.
        let (looked, deadline) = (
            |kind: &Self| kind.sum(|c| &c.datagrams_received) - before[0],
            Instant::now() + Duration::from_millis(LOOK_WAIT_MAX_MS),
        );
        let mut last = looked(self);
        loop {
            sleep(Duration::from_millis(20)).await;
            let now = looked(self);
            if now >= sent || now == last {
                break;
            }
            if Instant::now() > deadline {
                bail!("the host does not come to an end with {sent} datagrams");
            }
            last = now;
        }
        let took_ns = (self.cpu_ns().await? - before_ns) as f64 - idle_ns * begun.elapsed().as_secs_f64();
        let looked_at = looked(self);
        self.sent += sent;
        self.looked_at += looked_at;
        self.handed_over += self.sum(|c| &c.datagrams_handed_over) - before[1];
        self.cpu_ns.push(took_ns.max(0.0) / looked_at.max(1) as f64);
        Ok(())
    }

    fn sum(&self, counter: impl Fn(&ShardCounters) -> &AtomicU64) -> u64 {
        self.server.shards().iter().map(|shard| counter(&shard.counters).load(Ordering::Relaxed)).sum()
    }

    /// What the threads of all shards took so far.
    async fn cpu_ns(&self) -> anyhow::Result<u64> {
        let mut sum_ns = 0;
        for shard in self.server.shards() {
            let (reply, answer) = oneshot::channel();
            shard.send(Command::Figures(Vec::new(), reply)).await;
            sum_ns += answer.await?.cpu_ns.context("this system does not say what a thread takes; Linux does")?;
        }
        Ok(sum_ns)
    }

    fn figures(&self) -> Kind {
        let mut sorted = self.cpu_ns.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        Kind {
            sent: self.sent,
            looked_at: self.looked_at,
            handed_over_percent: self.handed_over as f64 / self.looked_at.max(1) as f64 * 100.0,
            cpu_ns: at(sorted.len() / 2),
            cpu_best_ns: at(0),
        }
    }
}

/// A thread that sends.
#[derive(Debug)]
struct Sender {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Sender {
    fn start(to: SocketAddr, options: &Options) -> anyhow::Result<Self> {
        let mut sockets = Vec::new();
        for _ in 0..SENDERS {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(to)?;
            sockets.push(socket);
        }
        let (shards, per_s, bytes) = (options.shards as u64, options.datagrams_per_s, options.bytes);
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let send = move || {
            let (begun, mut number, mut sent) = (Instant::now(), 0_u64, 0);
            while !stopped.load(Ordering::Relaxed) {
                let due =
                    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_mul(per_s) / 1_000_000;
                while number < due {
                    let datagram = datagram(u32::try_from(number % shards).unwrap_or_default(), bytes);
                    // Every socket sends to every shard.
                    let socket = sockets.get((number / shards) as usize % SENDERS);
                    sent += u64::from(socket.is_some_and(|socket| socket.send(&datagram).is_ok()));
                    number += 1;
                }
                std::thread::sleep(Duration::from_micros(BURST_EVERY_US));
            }
            sent
        };
        Ok(Self { stop, thread: std::thread::Builder::new().name("steer-sender".into()).spawn(send)? })
    }

    /// How many it sent.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// One for a session of that shard which there is not: the last of its places.
fn datagram(shard: u32, bytes: usize) -> Vec<u8> {
    let mut datagram = vec![0; bytes.max(HEADER_BYTES)];
    let [s0, s1, s2, s3] = (0xffff_ff00 | shard).to_le_bytes();
    if let Some(header) = datagram.first_chunk_mut() {
        *header = [DATAGRAM_VERSION, s0, s1, s2, s3];
    }
    datagram
}

impl Report {
    /// The figures as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = super::head(self.optimised);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} shards, {} datagrams of {} bytes per second\n",
            self.shards, self.datagrams_per_s, self.bytes
        );
        let _ = writeln!(
            text,
            "{:<12} {:>10} {:>10} {:>12} {:>22} {:>14}",
            "", "sent", "looked at", "handed over", "CPU ns per datagram", "in the best"
        );
        for (name, kind) in [("steered", &self.steered), ("handed over", &self.handed_over)] {
            let _ = writeln!(
                text,
                "{name:<12} {:>10} {:>10} {:>10.1} % {:>22.0} {:>14.0}",
                kind.sent, kind.looked_at, kind.handed_over_percent, kind.cpu_ns, kind.cpu_best_ns
            );
        }
        let _ = writeln!(text, "\nhanded over costs {:.2} times as much as steered", self.ratio);
        text
    }
}

#[cfg(test)]
mod tests {
    use holeshot_wire::Header;

    use super::*;
    use crate::shard::SessionId;

    #[test]
    fn options_out_of_range_are_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for options in [
            Options { shards: 1, ..Options::default() },
            Options { shards: 1_000, ..Options::default() },
            Options { seconds: 0, ..Options::default() },
            Options { rounds: 0, ..Options::default() },
            Options { bytes: 1_201, ..Options::default() },
            Options { datagrams_per_s: 0, ..Options::default() },
        ] {
            assert!(runtime.block_on(run(&options)).is_err());
        }
    }

    #[test]
    fn a_datagram_names_its_shard() {
        for shard in 0..3 {
            let header = Header::peek(&datagram(shard, 93)).unwrap();
            assert_eq!(SessionId::from_bits(header.session).shard(), shard as usize);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_two_kinds_differ_in_what_is_handed_over() {
        if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
            println!("SKIPPED: two shards need two cores");
            return;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let options = Options { datagrams_per_s: 5_000, seconds: 1, rounds: 1, ..Options::default() };
        let report = runtime.block_on(run(&options)).unwrap();
        assert!(report.steered.looked_at >= 1_000 && report.handed_over.looked_at >= 1_000, "{report:?}");
        assert!(report.steered.handed_over_percent == 0.0, "{report:?}");
        assert!(report.handed_over.handed_over_percent > 0.0, "{report:?}");
        assert!(report.table().contains("times as much"), "{}", report.table());
    }
}
