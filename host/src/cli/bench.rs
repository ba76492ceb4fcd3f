//! `holeshot bench`: figures of this machine, each beside its limit from the same run.

use clap::{Args, Subcommand};

use super::output::{note, say};
use crate::bench::tick;

#[derive(Debug, Clone, Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// One tick of the drag race: in wasm beside the same rules linked natively, one hot room and many rooms in turn. Use a release build
    Tick(TickArgs),
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

pub(super) async fn bench(args: BenchArgs, as_json: bool) -> anyhow::Result<()> {
    let What::Tick(TickArgs { players, rooms, rounds }) = args.what;
    if !as_json {
        note(format_args!("measuring; this takes about half a minute"));
    }
    let options = tick::Options { players, rooms, rounds };
    let report = tokio::task::spawn_blocking(move || tick::run(&options)).await??;
    if as_json {
        say(format_args!("{}", serde_json::to_string(&report)?));
    } else {
        say(report.table().trim_end());
    }
    Ok(())
}
