//! `holeshot bench swap`: what changing the rules of every room costs the rooms. A whole host with its real shard thread, its doors and its
//! records; the drag race in WebAssembly, driven; and another build of the same rules, which differs by a custom section and so by its hash.
//!
//! A second without swaps and the time of a swap of all rooms take turns within one process. How late ticks come is noted by the shard itself, to 6 %. Players
//! have sessions and send inputs, but nothing is sent to them: their sockets are measured elsewhere.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use drag_race::Input;
use holeshot_room::{Phase, Supervision};
use holeshot_wire::{ClientHandshake, HostKeypair, Inputs};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Bytes;

use crate::config::Settings;
use crate::doors::gate::Limits;
use crate::identity::random;
use crate::metrics::distribution::{Distribution, LATENESS_US, Quantiles};
use crate::modules::Source;
use crate::rooms::{CreateRoom, LiveRoom, NewPlayer};
use crate::rules::DRAG_RACE_WASM;
use crate::server::Server;
use crate::shard::{
    Attach, Command, OutboundReceiver, Pass, SessionId, SessionLimits, ShardHandle, TicketId, outbound,
};
use crate::swap::{SwapReport, SwapRequest, Target, Verdict};

/// The least that is looked at, with swaps and without, in milliseconds.
const WINDOW_MS: u64 = 1_000;
/// How often a player's input is sent, in milliseconds: cars whose driver says nothing for half a second stop.
const INPUT_EVERY_MS: u64 = 300;
/// The frame in which every driver lets the clutch go: they are staged long before and have 15 s from the green.
const LAUNCH_FRAME: u32 = 450;
/// Frames under power after that. Then the cars coast, so that a race lasts until the rules give up on it, 60 s after the green: it must not be over
/// before the new rules are compiled, which takes a program without optimisation on a busy machine longer than a race at full throttle.
const POWER_FRAMES: u32 = 60;
/// Frames before the first measurement.
const WARM_FRAMES: u32 = 100;
/// Rounds that fit into one race: each takes a second, a swap, and a probation of three seconds.
const ROUNDS_MAX: usize = 3;
/// Most rooms: those that one shard steps without being late, several times over.
const ROOMS_MAX: u32 = 10_000;
/// How long anything that is waited for may take, in milliseconds.
const WAIT_MAX_MS: u64 = 60_000;

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Rooms of two players.
    pub rooms: u32,
    /// Times that all of them are swapped.
    pub rounds: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { rooms: 1_000, rounds: ROUNDS_MAX }
    }
}

/// The spread of a figure, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Values.
    pub count: usize,
    /// Half of them were at most this.
    pub p50_us: u64,
    /// 99 of 100 were at most this.
    pub p99_us: u64,
    /// The greatest.
    pub max_us: u64,
}

/// What became of ticks while something was going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ticks {
    /// How long it was looked at, over all rounds, in milliseconds.
    pub took_ms: u64,
    /// Ticks stepped.
    pub stepped: u64,
    /// Ticks lost because the shard came too late, or skipped because the rules took too long.
    pub missed: u64,
    /// How late steps came, to 6 %.
    pub late: Spread,
}

/// All figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether this program was built with optimisation.
    pub optimised: bool,
    /// Rooms.
    pub rooms: u32,
    /// Swaps of all of them.
    pub rounds: usize,
    /// Rooms that were swapped, over all rounds.
    pub swapped: usize,
    /// The pause that a swap puts into a room, and into the others of its shard.
    pub pause: Spread,
    /// The trial of one room, while the room runs on.
    pub trial: Spread,
    /// Loading the module, in milliseconds, the slowest of the rounds.
    pub compile_ms: f64,
    /// From the request to the last room's verdict, in milliseconds, the slowest of the rounds.
    pub whole_ms: u64,
    /// Without swaps.
    pub without: Ticks,
    /// From each request to the last verdict, a second at least.
    pub with: Ticks,
}

/// Measures. Takes half a minute.
///
/// # Errors
/// An option out of range, or a host or room that does not do what it should.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let Options { rooms, rounds } = *options;
    if !(1..=ROOMS_MAX).contains(&rooms) || !(1..=ROUNDS_MAX).contains(&rounds) {
        bail!("1 to {ROOMS_MAX} rooms and 1 to {ROUNDS_MAX} rounds can be measured, not {rooms} and {rounds}");
    }
    let folder = Folder::make()?;
    let server = start(&folder.path, rooms).await?;
    let measured = measure(&server, rooms, rounds).await;
    server.stop().await?;
    measured
}

impl Report {
    /// The figures as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = super::head(self.optimised);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} rooms of two at 50 Hz on one shard; all of them swapped to another build of the same rules, {} times\n",
            self.rooms, self.rounds
        );
        let _ = writeln!(text, "{:<38} {:>9} {:>9} {:>9}", "in microseconds", "p50", "p99", "max");
        for (what, spread) in [
            ("pause that a swap puts into a room", self.pause),
            ("trial of a room, which runs on", self.trial),
            ("ticks late, without swaps", self.without.late),
            ("ticks late, during swaps", self.with.late),
        ] {
            let _ = writeln!(text, "{what:<38} {:>9} {:>9} {:>9}", spread.p50_us, spread.p99_us, spread.max_us);
        }
        text.push('\n');
        for (what, ticks) in [("without swaps", self.without), ("during swaps", self.with)] {
            let _ = writeln!(
                text,
                "{what}: {} ticks in {:.1} s, missed {}",
                ticks.stepped,
                ticks.took_ms as f64 / 1_000.0,
                ticks.missed
            );
        }
        let _ = writeln!(
            text,
            "compile time {:.0} ms; from the request to the last of {} rooms {} ms; {} swaps of a room",
            self.compile_ms, self.rooms, self.whole_ms, self.swapped
        );
        text
    }
}

async fn measure(server: &Server, rooms: u32, rounds: usize) -> anyhow::Result<Report> {
    let drivers = seat_drivers(server, rooms).await?;
    let driving = {
        let drivers = Arc::new(drivers);
        let of_task = Arc::clone(&drivers);
        let task = tokio::spawn(async move { drive(&of_task).await });
        (drivers, task)
    };
    let measured = async {
        let lives: Vec<Arc<LiveRoom>> = driving.0.iter().map(|driver| Arc::clone(&driver.live)).collect();
        until("every room runs", || lives.iter().all(|live| live.frame().is_some_and(|frame| frame >= WARM_FRAMES)))
            .await?;
        let mut watch = Watch::new(server)?;
        let (mut without, mut with) = (Seen::nothing(), Seen::nothing());
        let (mut pauses, mut trials, mut compile_ms, mut whole_ms) = (Vec::new(), Vec::new(), 0.0_f64, 0);
        for round in 0..rounds {
            watch.begin().await?;
            sleep(Duration::from_millis(WINDOW_MS)).await;
            watch.end(&mut without).await?;

            watch.begin().await?;
            let begun = Instant::now();
            let report = swap_all(server, round).await?;
            whole_ms = whole_ms.max(millis(begun.elapsed()));
            sleep(Duration::from_millis(WINDOW_MS.saturating_sub(millis(begun.elapsed())))).await;
            watch.end(&mut with).await?;
            if report.rooms.len() != lives.len() {
                let (open, all) = (report.rooms.len(), lives.len());
                bail!(
                    "only {open} of {all} rooms were still open when the new rules were compiled, which took {:.0} ms: the races are over before; use a machine that is less busy",
                    report.compile_ms
                );
            }
            compile_ms = compile_ms.max(report.compile_ms);
            for room in &report.rooms {
                match &room.verdict {
                    Verdict::Swapped { trial_us, pause_us, .. } => {
                        trials.push(*trial_us);
                        pauses.push(*pause_us);
                    }
                    other => bail!("room {} was not swapped: {other:?}", room.room),
                }
            }
            until("every probation is over", || lives.iter().all(|live| !live.rules.on_probation())).await?;
        }
        Ok(Report {
            optimised: !cfg!(debug_assertions),
            rooms,
            rounds,
            swapped: pauses.len(),
            pause: spread(pauses),
            trial: spread(trials),
            compile_ms,
            whole_ms,
            without: without.ticks(),
            with: with.ticks(),
        })
    }
    .await;
    driving.1.abort();
    measured
}

/// A host of its own, on ports that nobody has.
async fn start(data_dir: &Path, rooms: u32) -> anyhow::Result<Server> {
    let free = Some("127.0.0.1:0".parse()?);
    let settings = Settings {
        http_listen: free,
        udp_listen: free,
        mqtt_listen: free,
        data_dir: Some(data_dir.to_owned()),
        rooms_max: Some(rooms),
        linger_s: Some(0),
        shards: Some(1),
        probation_frames: Some(Supervision::PROBATION_FRAMES),
        ..Settings::default()
    };
    Server::start(settings.resolve()?).await
}

/// Both drivers of a room.
struct Drivers {
    live: Arc<LiveRoom>,
    shard: ShardHandle,
    sessions: Vec<SessionId>,
    /// What the room tells them. There is room for all of it.
    _told: Vec<OutboundReceiver>,
}

async fn seat_drivers(server: &Server, rooms: u32) -> anyhow::Result<Vec<Drivers>> {
    let host = HostKeypair::from_private(random()?)?;
    let mut all = Vec::new();
    for number in 0..rooms {
        let names = ["left", "right"];
        let players = names.map(|name| NewPlayer { name: name.into(), data: None }).into();
        let request = CreateRoom { module: None, players, options: None, seed: Some(number.into()) };
        let room = server.rooms().create(request).await?.room;
        let live = server.rooms().live(&room).context("a room was gone at once")?;
        let shard = server.rooms().shard_of(&live).context("a room without a shard")?.clone();
        let (mut sessions, mut told) = (Vec::new(), Vec::new());
        for player in 0..2 {
            // With keys and without an address a session gets no snapshots: sending them is not what is measured.
            let (_, message) = ClientHandshake::start(&host.public(), "bench", random()?)?;
            let keys = Some(holeshot_wire::accept(&host, "bench", &message, random()?)?);
            let (outbound, messages) = outbound(SessionLimits::new(&Limits::default(), Arc::default()));
            let (reply, answer) = oneshot::channel();
            let pass = Pass {
                ticket: TicketId::of("bench", "first"),
                iat_s: 0,
                forget_s: 0,
                shown_s: 0,
                is_resume: false,
                resume_ticket: TicketId::of("bench", "next"),
                resume: "bench".into(),
            };
            let attach = Attach {
                room: room.clone(),
                player: Some(player),
                pass,
                setup: None,
                keys,
                after: None,
                deltas: false,
                outbound,
                reply,
            };
            shard.send(Command::Attach(Box::new(attach))).await;
            let session = answer.await?.map_err(|(code, reason)| anyhow::anyhow!("{code}: {reason}"))?;
            sessions.push(session);
            told.push(messages);
        }
        all.push(Drivers { live, shard, sessions, _told: told });
    }
    // A millisecond apart, so that the rooms are spread over the tick as they are on a host where people come and go.
    for driver in &all {
        for session in &driver.sessions {
            driver.shard.send(Command::Ready(*session)).await;
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(all)
}

/// Sends every driver's feet again and again.
async fn drive(all: &[Drivers]) {
    let (mut input, mut payload) = (Vec::new(), Vec::new());
    loop {
        let begun = Instant::now();
        for driver in all {
            let frame = driver.live.frame().unwrap_or(0);
            if driver.live.phase() != Phase::Running {
                continue;
            }
            let feet = match frame.checked_sub(LAUNCH_FRAME) {
                None => Input { throttle: 120, clutch: 255, gear: 1 },
                Some(under_way) if under_way < POWER_FRAMES => Input { throttle: 255, clutch: 0, gear: 1 },
                Some(_) => Input { throttle: 0, clutch: 255, gear: 1 },
            };
            input.clear();
            payload.clear();
            let written = postcard::to_io(&feet, &mut input).is_ok();
            if !written || Inputs::write(frame + 3, None, [input.as_slice()], &mut payload).is_err() {
                continue;
            }
            let bytes = Bytes::copy_from_slice(&payload);
            for session in &driver.sessions {
                driver.shard.send(Command::Payload(*session, bytes.clone())).await;
            }
        }
        sleep(Duration::from_millis(INPUT_EVERY_MS).saturating_sub(begun.elapsed())).await;
    }
}

async fn swap_all(server: &Server, round: usize) -> anyhow::Result<SwapReport> {
    let request = SwapRequest {
        wasm: other_build(round),
        name: Some("drag-race".into()),
        target: Target::All,
        source: Source::Set,
    };
    Ok(server.swaps().swap(request).await?)
}

/// The drag race with a custom section more: the same code under another hash, not in the cache of compiled modules.
fn other_build(round: usize) -> Vec<u8> {
    let name = format!("bench-{round}");
    let mut wasm = DRAG_RACE_WASM.to_vec();
    // Id 0, then the lengths of section and name: both are below 128, and so one byte of LEB128 each.
    wasm.extend([0, 1 + name.len() as u8, name.len() as u8]);
    wasm.extend(name.as_bytes());
    wasm
}

/// Reads the shard's counters and its lateness.
pub(super) struct Watch<'a> {
    shard: &'a ShardHandle,
    begun: Instant,
    before: (u64, u64),
    late_before: Distribution,
}

/// What was seen over all rounds.
#[derive(Debug)]
pub(super) struct Seen {
    took: Duration,
    stepped: u64,
    missed: u64,
    late_us: Distribution,
}

impl Seen {
    pub(super) fn ticks(self) -> Ticks {
        let Self { took, stepped, missed, late_us } = self;
        let Quantiles { p50, p99, max } = late_us.quantiles();
        let count = usize::try_from(late_us.count()).unwrap_or(usize::MAX);
        Ticks { took_ms: millis(took), stepped, missed, late: Spread { count, p50_us: p50, p99_us: p99, max_us: max } }
    }

    pub(super) fn nothing() -> Self {
        Self { took: Duration::ZERO, stepped: 0, missed: 0, late_us: Distribution::new(LATENESS_US) }
    }
}

impl<'a> Watch<'a> {
    pub(super) fn new(server: &'a Server) -> anyhow::Result<Self> {
        let shard = server.shards().first().context("a host without a shard")?;
        Ok(Self { shard, begun: Instant::now(), before: (0, 0), late_before: Distribution::new(LATENESS_US) })
    }

    pub(super) async fn begin(&mut self) -> anyhow::Result<()> {
        self.late_before = self.lateness().await?;
        self.begun = Instant::now();
        self.before = self.counted();
        Ok(())
    }

    pub(super) async fn end(&self, seen: &mut Seen) -> anyhow::Result<()> {
        let (stepped, missed) = self.counted();
        seen.took += self.begun.elapsed();
        seen.stepped += stepped - self.before.0;
        seen.missed += missed - self.before.1;
        seen.late_us.add(&self.lateness().await?.since(&self.late_before));
        Ok(())
    }

    fn counted(&self) -> (u64, u64) {
        let counters = &self.shard.counters;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        (read(&counters.ticks), read(&counters.ticks_lost) + read(&counters.ticks_skipped))
    }

    async fn lateness(&self) -> anyhow::Result<Distribution> {
        let (reply, answer) = oneshot::channel();
        self.shard.send(Command::Figures(Vec::new(), reply)).await;
        Ok(answer.await?.lateness_us)
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !is_so() {
        if millis(begun.elapsed()) > WAIT_MAX_MS {
            bail!("waited {} s in vain until {what}", WAIT_MAX_MS / 1_000);
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn spread(mut values: Vec<u64>) -> Spread {
    values.sort_unstable();
    let at = |of_thousand: usize| {
        let rank = (values.len() * of_thousand).div_ceil(1_000).saturating_sub(1);
        values.get(rank).copied().unwrap_or_default()
    };
    Spread { count: values.len(), p50_us: at(500), p99_us: at(990), max_us: at(1_000) }
}

/// A folder for the host, which goes when the measurement is over.
pub(super) struct Folder {
    pub(super) path: PathBuf,
}

impl Folder {
    pub(super) fn make() -> anyhow::Result<Self> {
        let name: String = random::<8>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = std::env::temp_dir().join(format!("holeshot-bench-{name}"));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left_behind = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_run_swaps_every_room_and_has_figures() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let report = runtime.block_on(run(&Options { rooms: 4, rounds: 2 })).unwrap();
        assert_eq!((report.swapped, report.pause.count, report.trial.count), (8, 8, 8));
        assert!(report.pause.p50_us <= report.pause.p99_us && report.pause.p99_us <= report.pause.max_us);
        assert!(report.trial.p50_us > 0 && report.compile_ms > 0.0);
        // Two windows of a second with four rooms each, looked at from a machine that may be busy.
        for ticks in [report.without, report.with] {
            assert!(ticks.stepped >= 100 && ticks.late.count > 0, "{ticks:?}");
        }
        let table = report.table();
        assert!(table.contains("pause that a swap puts into a room") && table.contains("compile time"), "{table}");
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for options in [Options { rooms: 0, rounds: 1 }, Options { rooms: 1, rounds: 9 }] {
            let error = runtime.block_on(run(&options)).unwrap_err().to_string();
            assert!(error.contains("can be measured"), "{error}");
        }
    }

    #[test]
    fn ranks_are_those_of_the_sorted_values() {
        let spread = spread((1..=200).rev().collect());
        assert_eq!(spread, Spread { count: 200, p50_us: 100, p99_us: 198, max_us: 200 });
        assert_eq!(super::spread(vec![7]), Spread { count: 1, p50_us: 7, p99_us: 7, max_us: 7 });
        assert_eq!(super::spread(vec![]), Spread::default());
    }
}
