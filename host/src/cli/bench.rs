//! `holeshot bench`: figures of this machine, each beside its limit from the same run.

use clap::{Args, Subcommand};

use super::output::{note, say};
use crate::bench::{replay, swap, tick};

#[derive(Debug, Clone, Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// One tick of the drag race: in wasm beside the same rules linked natively, one hot room and many rooms in turn. Use a release build
    Tick(TickArgs),
    /// The journal of a race, replayed and proven: in wasm beside the same rules linked natively. Use a release build
    Replay(ReplayArgs),
    /// New rules for all rooms of a running host: the pause in each room, ticks missed and late beside a second without. Use a release build
    Swap(SwapArgs),
}

#[derive(Debug, Clone, Args)]
struct TickArgs {
    /// Numbers of players in a room
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = tick::Options::default().players)]
    players: Vec<usize>,
    /// Rooms that are stepped in turn
    #[arg(long, value_name = "N", default_value_t = tick::Options::default().rooms)]
    rooms: u32,
    /// Times that the race is played hot
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
struct SwapArgs {
    /// Rooms of two players that run
    #[arg(long, value_name = "N", default_value_t = swap::Options::default().rooms)]
    rooms: u32,
    /// Times that all of them are swapped, 1 to 3
    #[arg(long, value_name = "N", default_value_t = swap::Options::default().rounds)]
    rounds: usize,
}

pub(super) async fn bench(args: BenchArgs, as_json: bool) -> anyhow::Result<()> {
    if !as_json {
        note(format_args!("measuring; this takes about half a minute"));
    }
    // As JSON and as a table.
    let (json, table) = match args.what {
        What::Tick(TickArgs { players, rooms, rounds }) => {
            let options = tick::Options { players, rooms, rounds };
            let report = tokio::task::spawn_blocking(move || tick::run(&options)).await??;
            (serde_json::to_string(&report)?, report.table())
        }
        What::Replay(ReplayArgs { players, rounds }) => {
            let options = replay::Options { players, rounds };
            let report = tokio::task::spawn_blocking(move || replay::run(&options)).await??;
            (serde_json::to_string(&report)?, report.table())
        }
        What::Swap(SwapArgs { rooms, rounds }) => {
            let report = swap::run(&swap::Options { rooms, rounds }).await?;
            (serde_json::to_string(&report)?, report.table())
        }
    };
    say(if as_json { json.as_str() } else { table.trim_end() });
    Ok(())
}
