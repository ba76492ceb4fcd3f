//! `holeshot bench`: figures of this machine, each beside its limit from the same run.

use clap::{Args, Subcommand};

use super::output::{note, say};
use crate::bench::{events, flood, replay, seal, swap, tick};
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
    /// New rules for all rooms of a running host: the pause in each room, ticks missed and late beside a second without. Use a release build
    Swap(SwapArgs),
    /// Events from a room's thread to a row of the manager, over the embedded broker and over mosquitto, beside raw inserts. Use a release build
    Events(EventsArgs),
    /// Races of real clients, without and with a flood of garbage datagrams, silent connections and half-open WebSockets: how late ticks come, and what is
    /// lost. Use a release build
    Flood(FloodArgs),
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
    if !as_json {
        note(format_args!("measuring; this takes about half a minute"));
    }
    // As JSON and as a table.
    let (json, table) = match args.what {
        What::Tick(TickArgs { games, players, rooms, rounds }) => {
            let options = tick::Options { games, players, rooms, rounds };
            let report = tokio::task::spawn_blocking(move || tick::run(&options)).await??;
            (serde_json::to_string(&report)?, report.table())
        }
        What::Replay(ReplayArgs { players, rounds }) => {
            let options = replay::Options { players, rounds };
            let report = tokio::task::spawn_blocking(move || replay::run(&options)).await??;
            (serde_json::to_string(&report)?, report.table())
        }
        What::Seal(SealArgs { payload_bytes, sessions, rounds }) => {
            let options = seal::Options { payload_bytes, sessions, rounds };
            let report = tokio::task::spawn_blocking(move || seal::run(&options)).await??;
            (serde_json::to_string(&report)?, report.table())
        }
        What::Flood(FloodArgs { seconds, rooms, datagrams_per_s, sockets, niceness }) => {
            let options = flood::Options { seconds, rooms, datagrams_per_s, sockets, niceness };
            let report = flood::run(&options).await?;
            (serde_json::to_string(&report)?, report.table())
        }
        What::Swap(SwapArgs { rooms, rounds }) => {
            let report = swap::run(&swap::Options { rooms, rounds }).await?;
            (serde_json::to_string(&report)?, report.table())
        }
        What::Events(EventsArgs { events, rounds, pace_per_s, pace_s }) => {
            let report = events::run(&events::Options { events, rounds, pace_per_s, pace_s }).await?;
            (serde_json::to_string(&report)?, report.table())
        }
    };
    say(if as_json { json.as_str() } else { table.trim_end() });
    Ok(())
}
