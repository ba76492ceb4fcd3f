//! `holeshot bench soak`: a host in a process of its own that carries rooms for a long time, games that end and new ones that open, and then everybody leaves.
//! What it has then must be what it had before: a leak of a descriptor, a mapping, a page or a row in each room shows after a thousand of them.
//!
//! *Before* is after a first turn of all rooms: a host keeps warm what it will need again (slots of instances, pages of databases, threads). Rooms come in
//! [`WAVES`] groups, one after the other, so that some always end while others begin.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::shards::Shards;
use super::{head, percent};
use crate::api::Api;
use crate::budget::report::columns;
use crate::child::{self, Host};
use crate::limits::mappings::mappings_of;
use crate::load::{Load, Options as LoadOptions, PLAYERS_MAX};
use crate::metrics::process::Process;

/// Players in a room.
const PLAYERS: usize = 2;
/// Groups of rooms, each of which plays a game after the other.
const WAVES: usize = 4;
/// How much later than the wave before it each wave begins, at most: a race with its start takes four times that, so they are spread over one.
const WAVES_APART_MAX: Duration = Duration::from_secs(5);
/// Of a short run it is this part.
const WAVES_APART: u32 = 16;
/// Longest run, in minutes: a week.
const MINUTES_MAX: f64 = 10_080.0;
/// How often is looked what the host has; more seldom in long runs, so that there are at most [`SAMPLES_MAX`] looks.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Looks that are kept: a line through more of them is no straighter.
const SAMPLES_MAX: u32 = 2_000;
/// How long a game may take, in seconds: four times a race. A wave whose games are not over then is left all the same, and counted.
const GAME_WAIT_MAX_S: u64 = 120;
/// How long the host may take to be as before once everybody has left, in seconds: idle threads of its runtime end after ten.
const CALM_WAIT_MAX_S: u64 = 40;
/// How often is looked whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest page of figures that is read, in bytes: a host writes a few hundred kilobytes.
const PAGE_BYTES_MAX: usize = 16 << 20;
/// Descriptors that a host may have more than before: readers of its databases, which are opened when more of them are wanted at a time.
const FILES_SPARE: u64 = 16;
/// Mappings that it may have more than before: two for each thread of its runtime that stays for a while, and heaps of the allocator that grew apart.
const MAPPINGS_SPARE: u64 = 256;
/// Memory is flat if a straight line through its samples rises by no more than this, in bytes, over the whole run: what caches of databases take until they are
/// full.
const RISE_MAX_BYTES: f64 = (16 << 20) as f64;
/// Or by no more than this part of what it was.
const RISE_MAX: f64 = 0.05;
/// The first part of the samples that is left out of that line: memory is taken until every wave has been through once.
const WARM_UP: f64 = 0.25;

/// What is run.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// For how long, in minutes.
    pub minutes: f64,
    /// Rooms at a time.
    pub rooms: usize,
    /// Decides what the players do.
    pub seed: u64,
    /// The game: the name of a rules module; none for the default.
    pub game: Option<String>,
    /// Rules modules to load besides those that ship.
    pub modules: Vec<std::path::PathBuf>,
}

impl Default for Options {
    /// Some hundred rooms: in half an hour twenty thousand come and go. Half of what a machine carries is for its owner to say.
    fn default() -> Self {
        Self { minutes: 30.0, rooms: 400, seed: 1, game: None, modules: Vec::new() }
    }
}

/// What a host has at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Since the run began, in milliseconds.
    pub at_ms: u64,
    /// Memory in RAM, in bytes.
    pub resident_bytes: u64,
    /// Descriptors.
    pub open_files: u64,
    /// Memory mappings.
    pub mappings: u64,
    /// Threads.
    pub threads: u64,
    /// Open rooms.
    pub rooms: u64,
    /// Sessions.
    pub sessions: u64,
    /// WebSockets.
    pub websockets: u64,
    /// Instances of rules.
    pub instances: u64,
    /// Events in the outbox.
    pub events_queued: u64,
}

/// One thing that is checked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What.
    pub what: &'static str,
    /// What it was before.
    pub before: f64,
    /// The most that it was.
    pub most: f64,
    /// What it is at the end.
    pub after: f64,
    /// What it may be.
    pub allowed: f64,
    /// Whether it is.
    pub holds: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether this program was built with optimisation.
    pub optimised: bool,
    /// What the players began with.
    pub seed: u64,
    /// How long it ran, in seconds, without the first turn and the end.
    pub seconds: f64,
    /// Rooms at a time.
    pub rooms: usize,
    /// Rooms that were opened and came to their end.
    pub rooms_played: u64,
    /// Players whose game did not come to an end in time, or who lost their session.
    pub players_left_over: u64,
    /// Room-ticks.
    pub ticks: u64,
    /// The part of one core that the host took.
    pub of_core: f64,
    /// How much memory rises, by a straight line, in KiB a minute.
    pub rise_kib_per_minute: f64,
    /// The checks.
    pub checks: Vec<Check>,
    /// Looks at the host.
    pub samples: Vec<Sample>,
    /// Whether every check holds.
    pub holds: bool,
}

/// Runs it.
///
/// # Errors
/// Options out of range, or a host or players that do not do what they should.
pub async fn run(options: &Options, mut progress: impl FnMut(&str)) -> anyhow::Result<Report> {
    let Options { minutes, rooms, .. } = options;
    let is_in_range = *minutes > 0.0 && *minutes <= MINUTES_MAX;
    if !is_in_range || !(WAVES..=PLAYERS_MAX / PLAYERS).contains(rooms) {
        let most = PLAYERS_MAX / PLAYERS;
        bail!("{WAVES} to {most} rooms can be run for up to {MINUTES_MAX} minutes, not {rooms} for {minutes}");
    }
    let default = crate::config::Settings::default().resolve()?.rooms_max;
    // Rooms of a wave may still be closing when its next ones open.
    let needed = u32::try_from(rooms * 2)?;
    progress("starting a host");
    let host = Host::start(&child::Options {
        modules: options.modules.clone(),
        rooms_max: (needed > default).then_some(needed),
        ..child::Options::default()
    })
    .await?;
    progress("the first turn of all rooms");
    let first = turns(&host.api, options, None).await?;
    host.emptied().await?;
    let begun = Instant::now();
    let before = calm(&host, begun, None).await?;
    let (shards, cpu) = (Shards::of(&host.api).await?, Process::of(host.pid).context("the host is gone")?);

    let until = begun + Duration::from_secs_f64(minutes * 60.0);
    let (api, of_turns) = (host.api.clone(), options.clone());
    let playing = tokio::spawn(async move { turns(&api, &of_turns, Some(until)).await });
    let every = SAMPLE_EVERY.max(until.saturating_duration_since(begun) / SAMPLES_MAX);
    let mut samples = Vec::new();
    while !playing.is_finished() {
        let sample = Sample::of(&host, begun).await?;
        progress(&format!(
            "{:.1} of {minutes:.1} minutes, {} rooms, {} MiB",
            sample.at_ms as f64 / 60_000.0,
            sample.rooms,
            sample.resident_bytes >> 20
        ));
        samples.push(sample);
        sleep(every).await;
    }
    let played = playing.await??;
    let seconds = begun.elapsed().as_secs_f64();
    let ticks = Shards::of(&host.api).await?.since(&shards).ticks;
    let cpu_s = Process::of(host.pid).context("the host is gone")?.cpu_s() - cpu.cpu_s();
    progress("everybody has left");
    host.emptied().await?;
    let after = calm(&host, begun, Some(&before)).await?;
    let rows = rows_at_rest(host.data_dir()).await?;
    let mut checks = checks(&before, &after, &samples);
    let rise = rise_bytes(&samples, seconds);
    let allowed = (before.resident_bytes as f64 * RISE_MAX).max(RISE_MAX_BYTES);
    checks.push(Check {
        what: "rise of memory over the run, bytes",
        before: 0.0,
        most: rise,
        after: rise,
        allowed,
        holds: rise <= allowed,
    });
    checks.extend(rows.into_iter().map(|(what, rows)| none(what, rows as f64)));
    checks.push(none("players whose game did not end", (first.left_over + played.left_over) as f64));
    Ok(Report {
        optimised: !cfg!(debug_assertions),
        seed: options.seed,
        seconds,
        rooms: *rooms,
        rooms_played: first.rooms + played.rooms,
        players_left_over: first.left_over + played.left_over,
        ticks,
        of_core: cpu_s / seconds,
        rise_kib_per_minute: rise / 1_024.0 / (seconds / 60.0).max(f64::MIN_POSITIVE),
        holds: checks.iter().all(|check| check.holds),
        checks,
        samples,
    })
}

/// What became of some turns.
#[derive(Debug, Clone, Copy, Default)]
struct Played {
    rooms: u64,
    left_over: u64,
}

/// Lets every wave play a game after the other until that time; without one, a single game.
async fn turns(api: &Api, options: &Options, until: Option<Instant>) -> anyhow::Result<Played> {
    let mut waves = JoinSet::new();
    let left = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
    let apart = WAVES_APART_MAX.min(left / WAVES_APART);
    for wave in 0..WAVES {
        // As evenly as it goes.
        let rooms = options.rooms * (wave + 1) / WAVES - options.rooms * wave / WAVES;
        let (api, module, seed) = (api.clone(), options.game.clone(), options.seed);
        waves.spawn(async move {
            let mut played = Played::default();
            sleep(apart * wave as u32).await;
            for turn in 0_u64.. {
                let seed = seed.wrapping_add((turn * WAVES as u64 + wave as u64) * PLAYERS_MAX as u64);
                let module = module.clone();
                let load = LoadOptions { module, rooms, players: PLAYERS, seed, ..LoadOptions::default() };
                let left_over = game(&api, load).await?;
                played.rooms += rooms as u64;
                played.left_over += left_over;
                if until.is_none_or(|until| Instant::now() >= until) {
                    break;
                }
            }
            anyhow::Ok(played)
        });
    }
    let mut all = Played::default();
    while let Some(played) = waves.join_next().await {
        let played = played??;
        all.rooms += played.rooms;
        all.left_over += played.left_over;
    }
    Ok(all)
}

/// Plays one game in each of some rooms. Gives the players whose game did not come to its end, or who lost their session before it had.
async fn game(api: &Api, options: LoadOptions) -> anyhow::Result<u64> {
    let players = (options.rooms * options.players) as u64;
    let load = Load::start(api, &options).await?;
    let give_up = Instant::now() + Duration::from_secs(GAME_WAIT_MAX_S);
    while load.counts().games_over < players && Instant::now() < give_up {
        sleep(LOOK_EVERY).await;
    }
    let over = load.counts().games_over;
    load.stop().await?;
    Ok(players.saturating_sub(over))
}

impl Report {
    /// What was found, as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = head(self.optimised);
        let _infallible = writeln!(
            text,
            "{} rooms of two at a time for {:.1} minutes (seed {}): {} rooms came to their end, {} room-ticks, {} of a core",
            self.rooms,
            self.seconds / 60.0,
            self.seed,
            self.rooms_played,
            self.ticks,
            percent(self.of_core)
        );
        let _infallible =
            writeln!(text, "memory rises by {:.1} KiB a minute, by a straight line\n", self.rise_kib_per_minute);
        let mut rows = vec![["", "before", "most", "after", "allowed", ""].map(str::to_owned)];
        for Check { what, before, most, after, allowed, holds } in &self.checks {
            let [before, most, after, allowed] = [before, most, after, allowed].map(|count| format!("{count:.0}"));
            rows.push([
                (*what).to_owned(),
                before,
                most,
                after,
                allowed,
                if *holds { "" } else { "LEFT BEHIND" }.into(),
            ]);
        }
        columns(&mut text, &rows);
        text.push_str(if self.holds { "\nNothing is left behind.\n" } else { "\nSomething is left behind.\n" });
        text
    }
}

impl Sample {
    async fn of(host: &Host, begun: Instant) -> anyhow::Result<Self> {
        let gone = "the host is gone, or this system does not tell what a process has";
        let process = Process::of(host.pid).context(gone)?;
        let (page, _) = host.api.page("/metrics").await.context("no figures of the host")?;
        let page = String::from_utf8_lossy(page.get(..PAGE_BYTES_MAX).unwrap_or(&page));
        Ok(Self {
            at_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            resident_bytes: process.resident_bytes,
            open_files: process.open_files,
            mappings: mappings_of(host.pid).context(gone)?,
            threads: process.threads,
            rooms: gauge(&page, "holeshot_rooms")?,
            sessions: gauge(&page, "holeshot_shard_sessions")?,
            websockets: gauge(&page, "holeshot_websockets")?,
            instances: gauge(&page, "holeshot_instances")?,
            events_queued: gauge(&page, "holeshot_events_queued")?,
        })
    }
}

/// The sum of the samples of this name on a page of figures.
fn gauge(page: &str, name: &str) -> anyhow::Result<u64> {
    let mut sum = None;
    for line in page.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        if !rest.starts_with(['{', ' ']) {
            continue;
        }
        let value = rest.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
        let value = value.filter(|value| (0.0..=1e15).contains(value));
        let value = value.with_context(|| format!("the host's figure `{name}` is no number: {line}"))?;
        sum = Some(sum.unwrap_or(0_u64).saturating_add(value as u64));
    }
    sum.with_context(|| format!("what answers tells no `{name}`; is it a Holeshot host of this version?"))
}

/// Looks until the host has nothing more of what rooms take than before, or as long as it may take; without a before, until its events are recorded.
async fn calm(host: &Host, begun: Instant, before: Option<&Sample>) -> anyhow::Result<Sample> {
    let give_up = Instant::now() + Duration::from_secs(CALM_WAIT_MAX_S);
    loop {
        let sample = Sample::of(host, begun).await?;
        let is_calm = sample.rooms == 0 && sample.sessions == 0 && sample.websockets == 0 && sample.events_queued == 0;
        let is_back = before.is_none_or(|before| checks(before, &sample, &[]).iter().all(|check| check.holds));
        if is_calm && is_back || Instant::now() > give_up {
            return Ok(sample);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What must be as before. Every one of these is a number of something that a room or a player takes.
fn checks(before: &Sample, after: &Sample, samples: &[Sample]) -> Vec<Check> {
    let check = |what: &'static str, of: fn(&Sample) -> u64, spare: u64| {
        let most = samples.iter().map(of).fold(of(before).max(of(after)), u64::max);
        let allowed = of(before).saturating_add(spare);
        let [before, most, after_is, allowed_is] = [of(before), most, of(after), allowed].map(|count| count as f64);
        Check { what, before, most, after: after_is, allowed: allowed_is, holds: of(after) <= allowed }
    };
    vec![
        check("rooms", |sample| sample.rooms, 0),
        check("sessions", |sample| sample.sessions, 0),
        check("WebSockets", |sample| sample.websockets, 0),
        check("instances of rules", |sample| sample.instances, 0),
        check("descriptors", |sample| sample.open_files, FILES_SPARE),
        check("mappings", |sample| sample.mappings, MAPPINGS_SPARE),
        check("events in the outbox", |sample| sample.events_queued, 0),
    ]
}

fn none(what: &'static str, count: f64) -> Check {
    Check { what, before: 0.0, most: count, after: count, allowed: 0.0, holds: count == 0.0 }
}

/// By how much memory rises over so many seconds, by a straight line through the samples after the warm-up (least squares). Nothing if there are too few.
fn rise_bytes(samples: &[Sample], seconds: f64) -> f64 {
    let skipped = (samples.len() as f64 * WARM_UP) as usize;
    let points: Vec<(f64, f64)> = samples
        .iter()
        .skip(skipped)
        .map(|sample| (sample.at_ms as f64 / 1_000.0, sample.resident_bytes as f64))
        .collect();
    let count = points.len() as f64;
    if count < 2.0 {
        return 0.0;
    }
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (mean_s, mean_bytes) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(s, _)| (s - mean_s).powi(2)).sum();
    let together: f64 = points.iter().map(|(s, bytes)| (s - mean_s) * (bytes - mean_bytes)).sum();
    if spread > 0.0 { together / spread * seconds } else { 0.0 }
}

/// Looks until no row is there that should not be, or as long as that may take: what happened is recorded a moment later.
async fn rows_at_rest(folder: &Path) -> anyhow::Result<Vec<(&'static str, u64)>> {
    let give_up = Instant::now() + Duration::from_secs(CALM_WAIT_MAX_S);
    loop {
        let rows = rows_left(folder)?;
        if rows.iter().all(|(_, count)| *count == 0) || Instant::now() > give_up {
            return Ok(rows);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Rows that a host without rooms should not have, whose events are all recorded.
fn rows_left(folder: &Path) -> anyhow::Result<Vec<(&'static str, u64)>> {
    let open = |file: &str| {
        let path = folder.join(file);
        Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .with_context(|| format!("cannot read {}", path.display()))
    };
    let (outbox, records) = (open(crate::events::outbox::FILE)?, open(crate::manager::records::FILE)?);
    let count = |database: &Connection, sql: &str| -> anyhow::Result<u64> {
        let rows: i64 =
            database.query_row(sql, [], |row| row.get(0)).context("the host's databases have other tables")?;
        Ok(u64::try_from(rows).unwrap_or_default())
    };
    Ok(vec![
        ("rows of the outbox", count(&outbox, "SELECT COUNT(*) FROM outbox")?),
        ("events set aside", count(&outbox, "SELECT COUNT(*) FROM set_aside")?),
        ("events rejected", count(&records, "SELECT COUNT(*) FROM rejected")?),
        ("rooms on record without an end", count(&records, "SELECT COUNT(*) FROM rooms WHERE closed_at IS NULL")?),
        (
            "rooms without a whole journal",
            count(
                &records,
                "SELECT COUNT(*) FROM rooms WHERE room NOT IN (SELECT room FROM journals WHERE state = 'whole')",
            )?,
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_s: u64, resident_bytes: u64) -> Sample {
        Sample {
            at_ms: at_s * 1_000,
            resident_bytes,
            open_files: 40,
            mappings: 300,
            threads: 12,
            rooms: 0,
            sessions: 0,
            websockets: 0,
            instances: 0,
            events_queued: 0,
        }
    }

    #[test]
    fn memory_that_rises_is_told_from_memory_that_goes_up_and_down() {
        let rising: Vec<Sample> = (0..100).map(|s| sample(s, 100_000_000 + s * 1_000_000)).collect();
        assert!((rise_bytes(&rising, 100.0) - 100_000_000.0).abs() < 1.0);
        let waves: Vec<Sample> = (0..1_000).map(|s| sample(s, 100_000_000 + s % 10 * 5_000_000)).collect();
        assert!(rise_bytes(&waves, 1_000.0).abs() < RISE_MAX_BYTES);
        // What it takes at first is no rise.
        let warm: Vec<Sample> = (0..100).map(|s| sample(s, if s < 25 { 0 } else { 100_000_000 })).collect();
        assert_eq!((rise_bytes(&warm, 100.0), rise_bytes(&[], 1.0), rise_bytes(&warm[..1], 1.0)), (0.0, 0.0, 0.0));
    }

    #[test]
    fn what_is_left_behind_is_found() {
        let before = sample(0, 1);
        let holds = |after: Sample| checks(&before, &after, &[]).iter().all(|check| check.holds);
        assert!(holds(before) && holds(Sample { open_files: 40 + FILES_SPARE, mappings: 200, ..before }));
        for after in [
            Sample { open_files: 41 + FILES_SPARE, ..before },
            Sample { mappings: 301 + MAPPINGS_SPARE, ..before },
            Sample { rooms: 1, ..before },
            Sample { instances: 1, ..before },
            Sample { events_queued: 1, ..before },
        ] {
            assert!(!holds(after), "{after:?}");
        }
        let during = [Sample { websockets: 8, ..before }];
        let all = checks(&before, &before, &during);
        assert!(all.iter().any(|check| check.what == "WebSockets" && check.most == 8.0 && check.after == 0.0));
    }

    #[test]
    fn figures_are_read_by_their_whole_name() {
        let page = "# HELP holeshot_rooms x\nholeshot_rooms{phase=\"running\"} 3\nholeshot_rooms{phase=\"lobby\"} 2\n\
                    holeshot_rooms_limit 4000\nholeshot_instances 5.0\nholeshot_bad -1\n";
        assert_eq!((gauge(page, "holeshot_rooms").unwrap(), gauge(page, "holeshot_instances").unwrap()), (5, 5));
        assert!(gauge(page, "holeshot_bad").is_err() && gauge(page, "holeshot_none").is_err());
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for options in [
            Options { minutes: 0.0, ..Options::default() },
            Options { minutes: f64::NAN, ..Options::default() },
            Options { rooms: 1, ..Options::default() },
            Options { rooms: PLAYERS_MAX, ..Options::default() },
        ] {
            assert!(runtime.block_on(run(&options, |_| {})).is_err(), "{options:?}");
        }
    }
}
