//! `holeshot bench`: figures of this machine, each beside its limit from the same run.

use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use super::Failed;
use super::output::{note, say};
use crate::bench::figure::Told;
use crate::bench::{all, compare, events, flood, limit, replay, rooms, seal, snapshots, soak, steer, swap, tick};
use crate::bots::GameName;

#[derive(Debug, Clone, Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// One tick of each game that ships: in wasm beside the same rules linked natively, one hot room and many rooms in turn. Use a release build
    Tick(TickArgs),
    /// The journal of a race, replayed and proven: in wasm beside the same rules linked natively. Use a release build
    Replay(ReplayArgs),
    /// Sealing and opening one datagram: as the host does it and with chacha20poly1305, beside ring alone. Use a release build
    Seal(SealArgs),
    /// Snapshots of each game that ships, whole and as deltas: bytes, datagrams, and what either costs host and client. Use a release build
    Snapshots(SnapshotsArgs),
    /// New rules for all rooms of a running host: the pause in each room, ticks missed and late beside a second without. Use a release build
    Swap(SwapArgs),
    /// Events from a room's thread to a row of the manager, over the embedded broker and over mosquitto, beside raw inserts. Use a release build
    Events(EventsArgs),
    /// Races of real clients, without and with a flood of garbage datagrams, silent connections and half-open WebSockets: how late ticks come, and what is
    /// lost. Use a release build
    Flood(FloodArgs),
    /// What a datagram costs a host of several shards, given to its shard by the system and handed over between shards. Use a release build
    Steer(SteerArgs),
    /// More and more rooms on a host in a process of its own, until ticks come too late: processor time per room-tick beside a bare loop with the same
    /// datagrams, lateness, memory. Use a release build
    Rooms(RoomsArgs),
    /// A host that carries rooms for a long time, and then everybody leaves: whether memory stays flat and nothing is left behind. Fails if not
    Soak(SoakArgs),
    /// Every bench, several times, in one report (Markdown and JSON), and what moved since another report. Use a release build
    All(AllArgs),
    /// The bare loop beside `rooms`, in a process of its own
    #[command(hide = true)]
    Limit(LimitArgs),
}

#[derive(Debug, Clone, Args)]
struct RoomsArgs {
    /// Numbers of rooms [default: 100, 200, 400 and so on until it is too many, and then between the last two]
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    rooms: Vec<usize>,
    /// How long each is measured, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = rooms::Options::default().seconds)]
    seconds: u64,
    /// Threads of the players
    #[arg(long, value_name = "N", default_value_t = rooms::Options::default().threads)]
    threads: usize,
    #[command(flatten)]
    game: GameArgs,
}

#[derive(Debug, Clone, Args)]
struct GameArgs {
    /// What the players begin with
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The game: the name of a rules module [default: the host's default]
    #[arg(long, value_name = "NAME")]
    game: Option<String>,
    /// A rules module to load besides those that ship; `--game` names it
    #[arg(long = "module", value_name = "FILE", requires = "game")]
    modules: Vec<PathBuf>,
}

#[derive(Debug, Clone, Args)]
struct SoakArgs {
    /// For how long, in minutes
    #[arg(long, value_name = "MINUTES", default_value_t = soak::Options::default().minutes)]
    minutes: f64,
    /// Rooms at a time: half of those at which `bench rooms` breaks on this machine
    #[arg(long, value_name = "N", default_value_t = soak::Options::default().rooms)]
    rooms: usize,
    #[command(flatten)]
    game: GameArgs,
}

#[derive(Debug, Clone, Args)]
struct AllArgs {
    /// These benches alone
    #[arg(long, value_enum, value_name = "BENCH,BENCH", value_delimiter = ',')]
    only: Vec<all::Name>,
    /// How often each is run: what repeating shows is the noise that a change must exceed
    #[arg(long, value_name = "N", default_value_t = 3)]
    times: usize,
    /// So small that the figures say nothing: to see that everything runs
    #[arg(long)]
    quick: bool,
    /// Write the report to FILE.md and FILE.json, which must not be there yet [default: print the Markdown]
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Say what moved since this report by more than its noise
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// Fail if a figure got worse, for `git bisect run`
    #[arg(long, requires = "compare")]
    fail_if_worse: bool,
    /// Take this report instead of measuring
    #[arg(long, value_name = "NEW.json", requires = "compare", conflicts_with_all = ["only", "times", "quick", "write"])]
    from: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
struct LimitArgs {
    #[arg(long)]
    sessions: u32,
    #[arg(long)]
    received_per_s: f64,
    #[arg(long)]
    received_bytes: usize,
    #[arg(long)]
    sent_per_s: f64,
    #[arg(long)]
    sent_bytes: usize,
}

#[derive(Debug, Clone, Args)]
struct SteerArgs {
    /// Shards of each host
    #[arg(long, value_name = "N", default_value_t = steer::Options::default().shards)]
    shards: usize,
    /// Datagrams per second
    #[arg(long, value_name = "N", default_value_t = steer::Options::default().datagrams_per_s)]
    datagrams_per_s: u64,
    /// Bytes of each
    #[arg(long, value_name = "N", default_value_t = steer::Options::default().bytes)]
    bytes: usize,
    /// How long each of the four phases of a round lasts, in seconds
    #[arg(long, value_name = "N", default_value_t = steer::Options::default().seconds)]
    seconds: u64,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = steer::Options::default().rounds)]
    rounds: usize,
}

#[derive(Debug, Clone, Args)]
struct FloodArgs {
    /// Each half of the measurement lasts until the races are over that began within so many seconds
    #[arg(long, value_name = "N", default_value_t = flood::Options::default().seconds)]
    seconds: u64,
    /// Rooms of two drivers that race at the same time
    #[arg(long, value_name = "N", default_value_t = flood::Options::default().rooms)]
    rooms: u32,
    /// Garbage datagrams per second
    #[arg(long, value_name = "N", default_value_t = flood::Options::default().datagrams_per_s)]
    datagrams_per_s: u64,
    /// Connections without a request, and as many WebSockets without a hello, that the flooder keeps open
    #[arg(long, value_name = "N", default_value_t = flood::Options::default().sockets)]
    sockets: usize,
    /// How much the flooder gives way to the host and its clients, -20 to 19
    #[arg(long, value_name = "N", default_value_t = flood::Options::default().niceness, allow_negative_numbers = true)]
    niceness: i32,
}

#[derive(Debug, Clone, Args)]
struct TickArgs {
    /// Games
    #[arg(long, value_enum, value_name = "GAME,GAME", value_delimiter = ',', default_values_t = tick::Options::default().games)]
    games: Vec<GameName>,
    /// Numbers of players in a room
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = tick::Options::default().players)]
    players: Vec<usize>,
    /// Rooms that are stepped in turn
    #[arg(long, value_name = "N", default_value_t = tick::Options::default().rooms)]
    rooms: u32,
    /// Times that a game is played hot
    #[arg(long, value_name = "N", default_value_t = tick::Options::default().rounds)]
    rounds: usize,
}

#[derive(Debug, Clone, Args)]
struct ReplayArgs {
    /// Numbers of players in a room
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = replay::Options::default().players)]
    players: Vec<usize>,
    /// Times that each journal is replayed
    #[arg(long, value_name = "N", default_value_t = replay::Options::default().rounds)]
    rounds: usize,
}

#[derive(Debug, Clone, Args)]
struct SealArgs {
    /// Sizes of payloads, in bytes
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = seal::Options::default().payload_bytes)]
    payload_bytes: Vec<usize>,
    /// Sessions that take turns
    #[arg(long, value_name = "N", default_value_t = seal::Options::default().sessions)]
    sessions: u32,
    /// Times that each session seals and opens a datagram of each size
    #[arg(long, value_name = "N", default_value_t = seal::Options::default().rounds)]
    rounds: usize,
}

#[derive(Debug, Clone, Args)]
struct SnapshotsArgs {
    /// Games
    #[arg(long, value_enum, value_name = "GAME,GAME", value_delimiter = ',', default_values_t = snapshots::Options::default().games)]
    games: Vec<GameName>,
    /// Numbers of players in a room
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = snapshots::Options::default().players)]
    players: Vec<usize>,
    /// After how many frames the host has the acknowledgement of a snapshot
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = snapshots::Options::default().delays)]
    delays: Vec<u32>,
    /// Times that all snapshots are sent
    #[arg(long, value_name = "N", default_value_t = snapshots::Options::default().rounds)]
    rounds: usize,
}

#[derive(Debug, Clone, Args)]
struct SwapArgs {
    /// Rooms of two players that run
    #[arg(long, value_name = "N", default_value_t = swap::Options::default().rooms)]
    rooms: u32,
    /// Times that all of them are swapped, 1 to 3
    #[arg(long, value_name = "N", default_value_t = swap::Options::default().rounds)]
    rounds: usize,
}

#[derive(Debug, Clone, Args)]
struct EventsArgs {
    /// Events of each round, 1000 to 1000000
    #[arg(long, value_name = "N", default_value_t = events::Options::default().events)]
    events: usize,
    /// Rounds, 1 to 20
    #[arg(long, value_name = "N", default_value_t = events::Options::default().rounds)]
    rounds: usize,
    /// Events a second while latency is measured, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = events::Options::default().pace_per_s)]
    pace_per_s: u32,
    /// Seconds for which latency is measured, 1 to 60
    #[arg(long, value_name = "SECONDS", default_value_t = events::Options::default().pace_s)]
    pace_s: u32,
}

pub(super) async fn bench(args: BenchArgs, as_json: bool) -> anyhow::Result<()> {
    let told: Box<dyn Told> = match args.what {
        What::Limit(LimitArgs { sessions, received_per_s, received_bytes, sent_per_s, sent_bytes }) => {
            let flow = limit::Flow { sessions, received_per_s, received_bytes, sent_per_s, sent_bytes };
            return tokio::task::spawn_blocking(move || limit::run(&flow)).await?;
        }
        What::All(args) => return every(&args, as_json).await,
        What::Soak(SoakArgs { minutes, rooms, game: GameArgs { seed, game, modules } }) => {
            let report = soak::run(&soak::Options { minutes, rooms, seed, game, modules }, progress).await?;
            let text = if as_json { serde_json::to_string(&report)? } else { report.table() };
            say(text.trim_end());
            return if report.holds { Ok(()) } else { Err(Failed.into()) };
        }
        What::Rooms(RoomsArgs { rooms, seconds, threads, game: GameArgs { seed, game, modules } }) => {
            Box::new(rooms::run(&rooms::Options { rooms, seconds, threads, seed, game, modules }, progress).await?)
        }
        What::Tick(TickArgs { games, players, rooms, rounds }) => {
            let options = tick::Options { games, players, rooms, rounds };
            Box::new(tokio::task::spawn_blocking(move || tick::run(&options, progress)).await??)
        }
        What::Replay(ReplayArgs { players, rounds }) => {
            let options = replay::Options { players, rounds };
            half_a_minute(as_json);
            Box::new(tokio::task::spawn_blocking(move || replay::run(&options)).await??)
        }
        What::Seal(SealArgs { payload_bytes, sessions, rounds }) => {
            let options = seal::Options { payload_bytes, sessions, rounds };
            half_a_minute(as_json);
            Box::new(tokio::task::spawn_blocking(move || seal::run(&options)).await??)
        }
        What::Snapshots(SnapshotsArgs { games, players, delays, rounds }) => {
            let options = snapshots::Options { games, players, delays, rounds };
            half_a_minute(as_json);
            Box::new(tokio::task::spawn_blocking(move || snapshots::run(&options)).await??)
        }
        What::Flood(FloodArgs { seconds, rooms, datagrams_per_s, sockets, niceness }) => {
            let options = flood::Options { seconds, rooms, datagrams_per_s, sockets, niceness };
            half_a_minute(as_json);
            Box::new(flood::run(&options).await?)
        }
        What::Steer(SteerArgs { shards, datagrams_per_s, bytes, seconds, rounds }) => {
            half_a_minute(as_json);
            Box::new(steer::run(&steer::Options { shards, datagrams_per_s, bytes, seconds, rounds }).await?)
        }
        What::Swap(SwapArgs { rooms, rounds }) => {
            half_a_minute(as_json);
            Box::new(swap::run(&swap::Options { rooms, rounds }).await?)
        }
        What::Events(EventsArgs { events, rounds, pace_per_s, pace_s }) => {
            half_a_minute(as_json);
            Box::new(events::run(&events::Options { events, rounds, pace_per_s, pace_s }).await?)
        }
    };
    let text = if as_json { told.json()?.to_string() } else { told.table() };
    say(text.trim_end());
    Ok(())
}

/// Runs all benches, or reads what they said, and compares.
async fn every(args: &AllArgs, as_json: bool) -> anyhow::Result<()> {
    let AllArgs { only, times, quick, write, compare, fail_if_worse, from } = args;
    let files = write.as_deref().map(|stem| [beside(stem, "md"), beside(stem, "json")]);
    // Before an hour is spent.
    if let Some(path) = files.iter().flatten().find(|path| path.exists()) {
        bail!("{} is there already; name files that are not there yet", path.display());
    }
    let old = compare.as_deref().map(all::Report::read).transpose()?;
    let report = match from {
        Some(path) => all::Report::read(path)?,
        None => {
            let options = all::Options { only: only.clone(), times: *times, quick: *quick };
            all::run(&options, progress).await?
        }
    };
    if let Some([markdown, json]) = &files {
        for (path, text) in [(markdown, report.markdown()), (json, serde_json::to_string_pretty(&report)?)] {
            std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
            note(format_args!("{} is written", path.display()));
        }
    }
    let compared = old.map(|old| compare::compare(&old, &report));
    match (&compared, as_json) {
        (Some(compared), true) => say(serde_json::to_string(compared)?),
        (Some(compared), false) => say(compared.table().trim_end()),
        (None, true) => say(serde_json::to_string(&report)?),
        (None, false) if files.is_none() => say(report.markdown().trim_end()),
        (None, false) => true,
    };
    let is_worse = compared.is_some_and(|compared| compared.moved.iter().any(|moved| !moved.is_better));
    if *fail_if_worse && is_worse { Err(Failed.into()) } else { Ok(()) }
}

/// The file of this name with this ending added: a name may have dots of its own.
fn beside(stem: &Path, ending: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn half_a_minute(as_json: bool) {
    if !as_json {
        note(format_args!("measuring; this takes about half a minute"));
    }
}

/// Says what is being done, to a person who waits.
fn progress(what: &str) {
    if stderr().is_terminal() {
        note(format_args!("{what} ..."));
    }
}
