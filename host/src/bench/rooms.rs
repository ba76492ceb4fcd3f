//! `holeshot bench rooms`: how many rooms a host carries, and what a tick of one costs. A host in a process of its own, with everything on as it is by
//! default; players from another process over real sockets. More and more rooms, until ticks come too late or inputs are lost.
//!
//! Beside each number of rooms, right after it, [`limit`](super::limit) is measured with the same datagrams. Every number gets a host of its own, so that
//! memory, figures and caches are not those of the number before. Players share the machine with the host: how late they were is told, and when it was them.
//!
//! A room-tick is one frame of one room. Its processor time is that of the whole server process, with its WebSockets, events, records and journals; that of
//! the shard's thread alone stands beside it.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;
use tokio::time::sleep;

use super::limit::{self, Flow};
use super::shards::{Lateness, Shards};
use crate::child::{self, Host};
use crate::load::observed::{Observed, Quantiles};
use crate::load::{Counts, Load, Options as LoadOptions, PLAYERS_MAX};
use crate::metrics::process::{Process, proportional_bytes};

/// Players in a room.
const PLAYERS: usize = 2;
/// Most rooms: as many as the load generator plays.
pub const ROOMS_MAX: usize = PLAYERS_MAX / PLAYERS;
/// Rooms of the first step, if no steps are asked for.
const ROOMS_FIRST: usize = 100;
/// Numbers of rooms of one run.
const STEPS_MAX: usize = 24;
/// The search ends when the number that held and the one that broke are no further apart than this, as a part of the former: two runs of the same number differ
/// by as much.
const SEARCH_ENDS_AT: f64 = 0.1;
/// Longest measurement of one number of rooms, in seconds: a race is over after half a minute.
pub const SECONDS_MAX: u64 = 20;
/// A game's first frames, in milliseconds: clients find their lead meanwhile.
const SETTLE_MS: u64 = 1_000;
/// How long a host is left alone before its memory is read, in milliseconds.
const EMPTY_MS: u64 = 500;
/// How often it is looked what was counted. What repeating shows of a figure is the spread of these windows.
const WINDOW: Duration = Duration::from_secs(1);
/// Places for rooms that a host has beyond those that are measured.
const ROOMS_SPARE: usize = 8;

/// So many rooms are too many if 99 of 100 steps come later than this, in microseconds: a quarter of the tick, beyond which players see it.
pub const LATENESS_P99_MAX_US: u64 = 5_000;
/// Or if this part of the inputs was not there when its frame was stepped. Not none: clients find their lead by being late now and then.
pub const INPUTS_MISSING_MAX: f64 = 0.005;
/// Or if fewer than this part of the snapshots were sent, one to each player in each frame: a shard that overruns leaves them out to keep its ticks in time.
pub const SNAPSHOTS_MIN: f64 = 0.98;
/// The players are held to be the bottleneck if 99 of 100 of their datagrams were later than this, in microseconds: they are then no better than a host of which
/// that is too much.
const PLAYERS_LATE_P99_MAX_US: u64 = LATENESS_P99_MAX_US;

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Numbers of rooms; empty: 100, 200, 400 and so on until it is too many, and then between the last two.
    pub rooms: Vec<usize>,
    /// How long each is measured, in seconds.
    pub seconds: u64,
    /// Threads of the players.
    pub threads: usize,
    /// Decides what the players do.
    pub seed: u64,
    /// The game: the name of a rules module; none for the default.
    pub game: Option<String>,
    /// Rules modules to load besides those that ship.
    pub modules: Vec<std::path::PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { rooms: Vec::new(), seconds: 6, threads: 1, seed: 1, game: None, modules: Vec::new() }
    }
}

/// Processor time for each room-tick, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cpu {
    /// All of it.
    pub us: f64,
    /// In programs.
    pub user_us: f64,
    /// In the system: sockets, files, waking up.
    pub system_us: f64,
    /// The part of one core that it is, 0 to 1 and more with more cores.
    pub of_core: f64,
}

/// The bare loop with the same datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limit {
    /// Its processor time, for as many room-ticks.
    pub cpu: Cpu,
    /// Datagrams that it received, as a part of those that it should have.
    pub received: f64,
    /// Datagrams that it sent, as a part of those that it should have.
    pub sent: f64,
    /// How much later than it wanted it looked, at worst, in microseconds.
    pub late_us_max: u64,
}

/// Why so many rooms were too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Broke {
    /// Steps came later than [`LATENESS_P99_MAX_US`].
    Late,
    /// Inputs were not there in time: more than [`INPUTS_MISSING_MAX`].
    Inputs,
    /// Frames were lost: the shard came too late to make up for them.
    Frames,
    /// The shard left out snapshots: fewer than [`SNAPSHOTS_MIN`] were sent. What a tick costs is then that of a smaller one.
    Snapshots,
}

/// One number of rooms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Rooms.
    pub rooms: usize,
    /// How long they were measured, in seconds.
    pub seconds: f64,
    /// Room-ticks in that time.
    pub ticks: u64,
    /// Frames never made up for.
    pub ticks_lost: u64,
    /// The server process.
    pub cpu: Cpu,
    /// The shard's thread alone, in microseconds for each room-tick; none where the system does not say.
    pub shard_us: Option<f64>,
    /// The least and the greatest of its windows of a second.
    pub shard_us_range: Option<(f64, f64)>,
    /// How late steps came.
    pub lateness: Lateness,
    /// Inputs that were there in time: one of each player for each frame.
    pub inputs: u64,
    /// Inputs that were not.
    pub inputs_missing: u64,
    /// What the players counted.
    pub players: Counts,
    /// How much later than they should the players sent their inputs, in microseconds.
    pub players_late_us: Quantiles,
    /// From the moment at which an input was due until the first snapshot that can show it was there, in microseconds.
    pub input_delay_us: Quantiles,
    /// The part of one core that players took.
    pub players_of_core: f64,
    /// Memory that the host took beyond that of an empty one, in KiB for each room.
    pub memory_kib: f64,
    /// Tables in which the system finds that memory, in KiB for each room: not part of the former.
    pub page_tables_kib: f64,
    /// Datagrams that the host received in each room-tick.
    pub received_per_tick: f64,
    /// Bytes of each, header and tag included.
    pub received_bytes: f64,
    /// Datagrams that it sent.
    pub sent_per_tick: f64,
    /// Bytes of each.
    pub sent_bytes: f64,
    /// The bare loop with the same datagrams.
    pub limit: Limit,
    /// Processor time over that of the bare loop.
    pub ratio: f64,
    /// Why it was too many; none if it held.
    pub broke: Option<Broke>,
    /// Whether the players were too late to say anything of the host.
    pub players_were_late: bool,
}

/// All figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether this program was built with optimisation.
    pub optimised: bool,
    /// What the players began with.
    pub seed: u64,
    /// Each number of rooms, the fewest first.
    pub rows: Vec<Row>,
    /// The most that held.
    pub holds: Option<usize>,
    /// The fewest that were too many; none if none was.
    pub breaks: Option<usize>,
    /// Half of that, or the number next to it that was measured: what a host is run at.
    pub half: Option<usize>,
}

/// Measures. Takes twenty seconds for each number of rooms.
///
/// # Errors
/// Options out of range, or a host or players that do not do what they should.
pub async fn run(options: &Options, mut progress: impl FnMut(&str)) -> anyhow::Result<Report> {
    let Options { rooms, seconds, .. } = options;
    if rooms.len() > STEPS_MAX || rooms.iter().any(|rooms| !(1..=ROOMS_MAX).contains(rooms)) {
        bail!("up to {STEPS_MAX} numbers of 1 to {ROOMS_MAX} rooms can be measured, not {rooms:?}");
    }
    if !(1..=SECONDS_MAX).contains(seconds) {
        bail!("1 to {SECONDS_MAX} seconds can be measured, as races are over after half a minute; not {seconds}");
    }
    let mut rows = Vec::new();
    if rooms.is_empty() {
        let mut search = Search::default();
        while let Some(rooms) = search.next() {
            let row = step(options, rooms, &mut progress).await?;
            search.note(rooms, row.broke.is_none());
            rows.push(row);
        }
        if let Some(half) = search.half() {
            rows.push(step(options, half, &mut progress).await?);
        }
    } else {
        for rooms in rooms {
            rows.push(step(options, *rooms, &mut progress).await?);
        }
    }
    rows.sort_by_key(|row| row.rooms);
    Ok(Report::of(rows, options.seed))
}

impl Report {
    fn of(rows: Vec<Row>, seed: u64) -> Self {
        let breaks = rows.iter().find(|row| row.broke.is_some()).map(|row| row.rooms);
        let below = |rooms: &usize| breaks.is_none_or(|breaks| *rooms < breaks);
        let holds = rows.iter().filter(|row| row.broke.is_none()).map(|row| row.rooms).filter(below).max();
        let near = |row: &&Row| breaks.is_some_and(|breaks| is_near(row.rooms, breaks / 2));
        let half = rows.iter().find(near).map(|row| row.rooms);
        Self { optimised: !cfg!(debug_assertions), seed, rows, holds, breaks, half }
    }
}

/// Whether two numbers of rooms are as good as the same.
fn is_near(one: usize, other: usize) -> bool {
    one.abs_diff(other) as f64 <= SEARCH_ENDS_AT * other as f64
}

/// Which number of rooms comes next: twice as many until it is too many, then halves of what lies between, and half of what was too many for the figures there.
#[derive(Debug, Default)]
struct Search {
    tried: Vec<usize>,
    holds: Option<usize>,
    breaks: Option<usize>,
}

impl Search {
    /// Half of what was too many, if no such number was tried.
    fn half(&self) -> Option<usize> {
        let half = self.breaks? / 2;
        (half > 0 && !self.tried.iter().any(|tried| is_near(*tried, half))).then_some(half)
    }

    fn next(&self) -> Option<usize> {
        if self.tried.len() >= STEPS_MAX {
            return None;
        }
        match (self.holds, self.breaks) {
            (None, None) => Some(ROOMS_FIRST.min(ROOMS_MAX)),
            (Some(holds), None) => (holds < ROOMS_MAX).then(|| holds.saturating_mul(2).min(ROOMS_MAX)),
            // Not even the first number: downwards.
            (None, Some(breaks)) => (breaks > 1).then_some(breaks / 2),
            (Some(holds), Some(breaks)) => {
                let apart = breaks.saturating_sub(holds);
                (apart as f64 > SEARCH_ENDS_AT * holds as f64 && apart > 1).then(|| holds.midpoint(breaks))
            }
        }
    }

    fn note(&mut self, rooms: usize, held: bool) {
        self.tried.push(rooms);
        if held {
            self.holds = self.holds.max(Some(rooms));
        } else {
            self.breaks = Some(self.breaks.map_or(rooms, |breaks| breaks.min(rooms)));
        }
    }
}

/// What a host takes of the machine's memory.
#[derive(Clone, Copy)]
struct Memory {
    pages_bytes: u64,
    tables_bytes: u64,
}

impl Memory {
    fn of(pid: u32) -> Option<Self> {
        let Process { resident_bytes, page_tables_bytes, .. } = Process::of(pid)?;
        Some(Self { pages_bytes: proportional_bytes(pid).unwrap_or(resident_bytes), tables_bytes: page_tables_bytes })
    }
}

/// A moment of a measurement.
struct Moment {
    at: Instant,
    host: Process,
    own: Process,
    shards: Shards,
    players: Counts,
    observed: Observed,
}

impl Moment {
    async fn now(host: &Host, load: &Load) -> anyhow::Result<Self> {
        let told = "this system does not tell the processor time of a process, so nothing can be measured on it";
        Ok(Self {
            host: Process::of(host.pid).context(told)?,
            own: Process::read().context(told)?,
            // Last what ticks are counted by, right beside the clock.
            players: load.counts(),
            observed: load.observed(),
            shards: Shards::of(&host.api).await?,
            at: Instant::now(),
        })
    }
}

/// Measures one number of rooms.
async fn step(options: &Options, rooms: usize, progress: &mut impl FnMut(&str)) -> anyhow::Result<Row> {
    progress(&format!("{rooms} rooms: starting a host"));
    let default = crate::config::Settings::default().resolve()?.rooms_max;
    let needed = u32::try_from(rooms + ROOMS_SPARE)?;
    let host = Host::start(&child::Options {
        modules: options.modules.clone(),
        rooms_max: (needed > default).then_some(needed),
        ..child::Options::default()
    })
    .await?;
    sleep(Duration::from_millis(EMPTY_MS)).await;
    let empty = Memory::of(host.pid).context("the host has ended")?;
    progress(&format!("{rooms} rooms: letting players in"));
    let (module, threads, seed) = (options.game.clone(), options.threads, options.seed);
    let options_of_load = LoadOptions { module, rooms, players: PLAYERS, threads, seed, ..LoadOptions::default() };
    let load = Load::start(&host.api, &options_of_load).await?;
    load.begun().await?;
    sleep(Duration::from_millis(SETTLE_MS)).await;
    progress(&format!("{rooms} rooms: measuring"));
    let mut moments = vec![Moment::now(&host, &load).await?];
    for _ in 0..options.seconds {
        sleep(WINDOW).await;
        let moment = Moment::now(&host, &load).await?;
        // From the first game on that is over there are fewer rooms than are counted.
        let over = moment.players.games_over > 0 || moment.players.sessions_lost > 0;
        if over {
            break;
        }
        moments.push(moment);
    }
    let full = Memory::of(host.pid).context("the host has ended")?;
    let lost = load.counts().sessions_lost;
    load.stop().await?;
    drop(host);
    if lost > 0 {
        bail!("{lost} of {} players lost their session with {rooms} rooms", rooms * PLAYERS);
    }
    if moments.len() < 2 {
        bail!(
            "with {rooms} rooms the first games were over before the last had begun: this machine lets too few players in a second; \
             measure fewer rooms, or a game that is longer (--game)"
        );
    }
    progress(&format!("{rooms} rooms: measuring the limit"));
    Row::of(rooms, empty, full, &moments).await
}

impl Row {
    async fn of(rooms: usize, empty: Memory, full: Memory, moments: &[Moment]) -> anyhow::Result<Self> {
        let (Some(first), Some(last)) = (moments.first(), moments.last()) else { bail!("nothing was measured") };
        let took = last.at.duration_since(first.at);
        let (seconds, shards, players) =
            (took.as_secs_f64(), last.shards.since(&first.shards), last.players.since(first.players));
        if shards.ticks == 0 {
            bail!("no room ticked while {rooms} of them were measured");
        }
        let ticks = shards.ticks as f64;
        let cpu = |user_s: f64, system_s: f64, seconds: f64, ticks: f64| Cpu {
            us: (user_s + system_s) * 1e6 / ticks,
            user_us: user_s * 1e6 / ticks,
            system_us: system_s * 1e6 / ticks,
            of_core: (user_s + system_s) / seconds,
        };
        let host_cpu =
            cpu(last.host.user_s - first.host.user_s, last.host.system_s - first.host.system_s, seconds, ticks);
        let shard_us = |shards: &Shards| shards.cpu_ns.map(|ns| ns as f64 / 1e3 / shards.ticks.max(1) as f64);
        let windows = moments.windows(2).filter_map(|pair| match pair {
            [before, after] => shard_us(&after.shards.since(&before.shards)),
            _ => None,
        });
        let mean = |all: u64, count: u64| if count == 0 { 0.0 } else { all as f64 / count as f64 };
        let (received_bytes, sent_bytes) =
            (mean(shards.received_bytes, shards.datagrams_received), mean(shards.sent_bytes, shards.datagrams_sent));
        let flow = Flow {
            sessions: u32::try_from(rooms * PLAYERS)?,
            received_per_s: shards.datagrams_received as f64 / seconds,
            received_bytes: received_bytes.round() as usize,
            sent_per_s: shards.datagrams_sent as f64 / seconds,
            sent_bytes: sent_bytes.round() as usize,
        };
        let bare = tokio::task::spawn_blocking(move || limit::measure(&flow, took)).await??;
        // As many room-ticks as there were in that time.
        let limit_cpu = cpu(bare.user_s, bare.system_s, bare.seconds, ticks / seconds * bare.seconds);
        let kept = |count: u64, per_s: f64| count as f64 / (per_s * bare.seconds).max(1.0);
        let kib = |now: u64, then: u64| now.saturating_sub(then) as f64 / 1_024.0 / rooms as f64;
        let inputs = shards.inputs_fresh.saturating_add(shards.inputs_missing);
        let lateness = shards.lateness();
        let observed = last.observed.since(&first.observed);
        let players_late_us = observed.send_late.quantiles();
        let broke = if lateness.p99_us > LATENESS_P99_MAX_US {
            Some(Broke::Late)
        } else if shards.inputs_missing as f64 > inputs as f64 * INPUTS_MISSING_MAX {
            Some(Broke::Inputs)
        } else if shards.ticks_lost > 0 {
            Some(Broke::Frames)
        } else {
            let all = ticks * PLAYERS as f64;
            ((shards.datagrams_sent as f64) < all * SNAPSHOTS_MIN).then_some(Broke::Snapshots)
        };
        Ok(Self {
            rooms,
            seconds,
            ticks: shards.ticks,
            ticks_lost: shards.ticks_lost,
            cpu: host_cpu,
            shard_us: shard_us(&shards),
            shard_us_range: range(windows),
            lateness,
            inputs: shards.inputs_fresh,
            inputs_missing: shards.inputs_missing,
            players,
            players_late_us,
            input_delay_us: observed.input_delay.quantiles(),
            players_of_core: (last.own.cpu_s() - first.own.cpu_s()) / seconds,
            memory_kib: kib(full.pages_bytes, empty.pages_bytes),
            page_tables_kib: kib(full.tables_bytes, empty.tables_bytes),
            received_per_tick: shards.datagrams_received as f64 / ticks,
            received_bytes,
            sent_per_tick: shards.datagrams_sent as f64 / ticks,
            sent_bytes,
            limit: Limit {
                cpu: limit_cpu,
                received: kept(bare.received, flow.received_per_s),
                sent: kept(bare.sent, flow.sent_per_s),
                late_us_max: bare.late_us_max,
            },
            ratio: if limit_cpu.us > 0.0 { host_cpu.us / limit_cpu.us } else { f64::INFINITY },
            broke,
            players_were_late: players_late_us.p99 > PLAYERS_LATE_P99_MAX_US,
        })
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, value| {
        let (least, most) = range.unwrap_or((value, value));
        Some((value.min(least), value.max(most)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that are tried where so many rooms hold.
    fn tried(most: usize) -> (Vec<usize>, Search) {
        let (mut search, mut all) = (Search::default(), Vec::new());
        while let Some(rooms) = search.next() {
            search.note(rooms, rooms <= most);
            all.push(rooms);
        }
        (all, search)
    }

    #[test]
    fn the_search_doubles_and_then_closes_in() {
        let (all, search) = tried(330);
        assert_eq!(all.get(..3), Some(&[100, 200, 400][..]));
        let (holds, breaks) = (search.holds.unwrap(), search.breaks.unwrap());
        assert!(holds <= 330 && 330 < breaks && (breaks - holds) as f64 <= 0.1 * holds as f64, "{search:?}");
        let half = search.half();
        assert!(half.is_none_or(|half| half == breaks / 2 && !all.contains(&half)), "{search:?}");
        // Everything holds: up to the most and no further.
        let (all, search) = tried(usize::MAX);
        assert_eq!((all.last(), search.holds, search.breaks), (Some(&ROOMS_MAX), Some(ROOMS_MAX), None));
        // Nothing holds, or one room alone.
        assert_eq!(tried(0).0, [100, 50, 25, 12, 6, 3, 1]);
        assert_eq!((tried(1).1.holds, tried(0).1.half()), (Some(1), None));
        assert_eq!(tried(250).1.half(), Some(tried(250).1.breaks.unwrap() / 2));
        assert!((0..2_000).all(|most| tried(most).0.len() <= STEPS_MAX));
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for options in [
            Options { rooms: vec![0], ..Options::default() },
            Options { rooms: vec![ROOMS_MAX + 1], ..Options::default() },
            Options { rooms: vec![1; STEPS_MAX + 1], ..Options::default() },
            Options { seconds: 0, ..Options::default() },
            Options { seconds: SECONDS_MAX + 1, ..Options::default() },
        ] {
            let error = runtime.block_on(run(&options, |_| {})).unwrap_err().to_string();
            assert!(error.contains("can be measured"), "{error}");
        }
    }

    #[test]
    fn the_range_of_values_has_all_of_them() {
        assert_eq!(range([3.0, 1.0, 2.0].into_iter()), Some((1.0, 3.0)));
        assert_eq!(range(std::iter::empty()), None);
    }
}
