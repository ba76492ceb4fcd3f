//! The command line: what can be asked for, and how it is answered. People get text, programs get `--json`.
//!
//! Exit codes: 0 done, 1 failed (the reason is on standard error), 2 the command line or the settings are wrong.

mod arena_view;
mod backup;
mod bench;
mod bots;
mod budget;
mod check;
mod doctor;
mod dyno;
mod events;
mod host;
mod load;
mod manager;
mod new;
mod output;
mod race;
mod records;
mod replay;
mod serve;
mod slips;
mod swap;
mod test;
mod ticket;
mod view;
mod watch;

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::ConfigError;
use output::{Log, Written, note};

#[derive(Debug, Parser)]
#[command(
    name = "holeshot",
    version,
    about = "A game host in one binary: networking, a 20 ms clock, events and records. The rules are a WebAssembly module",
    after_help = "Without a command, `serve` runs. `holeshot race` shows a race in this terminal. Options come after the command: `holeshot race --json`.",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Clone, Args)]
struct OutputArgs {
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    json: bool,
    /// What to log: a level (error, warn, info, debug, trace) or filters like `holeshot::shard=debug,warn`
    #[arg(long, global = true, env = "HOLESHOT_LOG", value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a host until ctrl-C
    Serve(Box<serve::ServeArgs>),
    /// Keep the records of hosts that run with `--manager no`, over their broker
    Manager(manager::ManagerArgs),
    /// Run a host and a race between drivers in this terminal
    Race(race::RaceArgs),
    /// Give the rooms of a running host other rules
    Swap(swap::SwapArgs),
    /// Let drivers race, or fighters fight, on a running host
    Bots(bots::BotsArgs),
    /// Watch a room of a running host as a spectator
    Watch(watch::WatchArgs),
    /// Ask a running host for results, personal bests, head-to-head and leaderboards
    Records(records::RecordsArgs),
    /// Follow the events of hosts as they happen
    Events(events::EventsArgs),
    /// Write a crate of rules to begin with, which builds without this repository
    New(new::NewArgs),
    /// Say what a host would say about a rules module: what it is, what a tick costs, what is wrong with it
    Check(check::CheckArgs),
    /// Play scenarios against a rules module, without a server, and compare what comes of them
    Test(test::TestArgs),
    /// Run the journal of a room again: prove it, look into it, or try other rules on it
    Replay(replay::ReplayArgs),
    /// Copy the data folder of a host, which runs on, and read the copy back
    Backup(backup::BackupArgs),
    /// Put a backup in the place of a data folder, whole or not at all
    Restore(backup::RestoreArgs),
    /// Look at what a host with these settings needs, and say what to do; takes the settings of `serve` and changes nothing
    Doctor(Box<doctor::DoctorArgs>),
    /// Get a ticket for a room of a running host, for a person or a script
    Ticket(ticket::TicketArgs),
    /// Make a pair of keys for a matchmaker that signs tickets itself
    TicketKey(ticket::TicketKeyArgs),
    /// What the operations of a server's frame cost together: by a model file, or measured on this machine
    Budget(budget::BudgetArgs),
    /// Let rooms full of players play on a host, over a network as bad as asked for, and say what they saw; the exit code is 0 if no input was lost, 1 if one was, 3 if the
    /// run is not to be believed
    Load(Box<load::LoadArgs>),
    /// Find the best that each car can do under rules made from the drag race: launch, changes of gear, times, limits
    Dyno(dyno::DynoArgs),
    /// Measure this machine
    Bench(bench::BenchArgs),
}

/// Threads of a host that serve WebSockets, HTTP and MQTT: half of the cores, as what they do for a room is a seventh of what its shard does. A thread that is woken wakes
/// another one where there is one that sleeps, and on two cores that one would take the shard's.
const fn host_workers(cores: usize) -> usize {
    if cores < 4 { 1 } else { cores / 2 }
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    // First of all: what has an arena keeps it.
    crate::limits::allocator::use_few_arenas();
    let cli = Cli::parse();
    let command = cli.command.unwrap_or_else(|| Command::Serve(Box::new(cli.serve)));
    let default_filter = match command {
        // Other people's crates say at INFO what concerns nobody here.
        Command::Serve(_) | Command::Manager(_) => "warn,holeshot=info",
        // They run rules that fail many times over, and their report says once what the rules logged last.
        Command::Check(_) | Command::Test(_) => "error,holeshot::rules::guest=off",
        _ => "error",
    };
    let log = match log_to_stderr(&cli.output, default_filter) {
        Ok(log) => log,
        Err(error) => {
            note(format_args!("error: {error}"));
            return ExitCode::from(2);
        }
    };
    crate::tls::install_provider();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if matches!(command, Command::Serve(_))
        && let Ok(cores) = std::thread::available_parallelism()
    {
        runtime.worker_threads(host_workers(cores.get()));
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            note(format_args!("error: the system gives no threads or timers: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let json = cli.output.json;
    let result = runtime.block_on(async {
        match command {
            Command::Serve(args) => serve::serve(*args, json).await,
            Command::Manager(args) => manager::manager(args, json).await,
            Command::Race(args) => race::race(args, json).await,
            Command::Swap(args) => swap::swap(args, json).await,
            Command::Bots(args) => bots::bots(args, json).await,
            Command::Watch(args) => watch::watch(args, json).await,
            Command::Records(args) => records::records(args, json).await,
            Command::Events(args) => events::events(args, json).await,
            Command::New(args) => new::new(&args, json),
            Command::Check(args) => check::check(args, json).await,
            Command::Test(args) => test::test(args, json).await,
            Command::Replay(args) => replay::replay(args, json).await,
            Command::Backup(args) => backup::backup(args, json).await,
            Command::Restore(args) => backup::restore(args, json).await,
            Command::Doctor(args) => doctor::doctor(*args, json).await,
            Command::Ticket(args) => ticket::ticket(args, json).await,
            Command::TicketKey(args) => ticket::ticket_key(&args, json),
            Command::Budget(args) => budget::budget(args, json).await,
            Command::Load(args) => load::load(*args, json).await,
            Command::Dyno(args) => dyno::dyno(args, json).await,
            Command::Bench(args) => bench::bench(args, json).await,
        }
    });
    // What is still blocked (a resolver, a disk) must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    log.finish();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if error.is::<Failed>() {
                return ExitCode::FAILURE;
            }
            if error.is::<Undecided>() {
                return ExitCode::from(UNDECIDED);
            }
            note(format_args!("error: {error:#}"));
            if error.downcast_ref::<ConfigError>().is_some() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// The exit code of [`Undecided`]: 1 is a no, 2 a command that cannot be run.
const UNDECIDED: u8 = 3;

/// The command did what it should, and what it measured is not to be believed: it is printed why.
#[derive(Debug, thiserror::Error)]
#[error("undecided")]
struct Undecided;

/// The command did what it should and the answer is no: it is printed already, and the exit code says so too.
#[derive(Debug, thiserror::Error)]
#[error("failed")]
struct Failed;

fn log_to_stderr(output: &OutputArgs, default_filter: &str) -> anyhow::Result<Written> {
    let filter = output.log.as_deref().unwrap_or(default_filter);
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| anyhow::anyhow!("--log {filter:?} is no filter: {error}. Try `--log debug`"))?;
    let (log, written) = Log::start(stderr())?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log);
    if output.json {
        logs.json().init();
    } else {
        logs.with_ansi(stderr().is_terminal()).init();
    }
    Ok(written)
}
