//! `holeshot budget`: what the operations of a server's frame cost together: by a model, as measured on this machine, and whether that is right.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _, stderr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Args};
use serde_json::json;

use super::output::{note, say};
use super::{Failed, Undecided};
use crate::api::Api;
use crate::budget::check::{self, DRIFT_MAX, OFF_MAX, Outcome, Row};
use crate::budget::measure::{self, Calibration, Measured, Prediction};
use crate::budget::report::{Report, columns};
use crate::budget::{counts, example, file, model::Model, spread};
use crate::load;

/// Words above the figures of a program that was built without optimisation.
const UNOPTIMISED: &str =
    "This program was built without optimisation: the figures are those of no host that serves anybody.";

#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["model", "example", "measure", "check"]))]
#[command(group = ArgGroup::new("real").args(["measure", "check"]))]
pub(super) struct BudgetArgs {
    /// A model file: operations with N, T, P and how they grow. `--example --write FILE` writes one that explains itself
    #[arg(value_name = "MODEL.toml")]
    model: Option<PathBuf>,
    /// The shooter with 64 players from which the model comes
    #[arg(long)]
    example: bool,
    /// Time the operations of a host on this machine, in this process, and say how many rooms one core holds
    #[arg(long)]
    measure: bool,
    /// Predict some loads, and run them on a host in another process. The exit code is 0 if every prediction is within 20 %, 1 if one is not, 3 if one is not
    /// and the machine was not steady. Takes some minutes: the operations are measured before and after each load
    #[arg(long)]
    check: bool,
    /// Write the model to this file, which must not be there yet
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "check"])]
    write: Option<PathBuf>,
    /// With --measure: take N and P from the host at this URL, between two looks at its /metrics
    #[arg(long, value_name = "URL", requires = "measure")]
    against: Option<String>,
    /// Whom to trust for https:// with --against: certificates (PEM) of authorities
    #[arg(long, env = "HOLESHOT_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The game to measure: the name of a rules module [default: the host's default]
    #[arg(long, value_name = "NAME", requires = "real")]
    game: Option<String>,
    /// A rules module to load besides those that ship; `--game` names it
    #[arg(long = "module", value_name = "FILE", requires = "game")]
    modules: Vec<PathBuf>,
    /// Players in each room
    #[arg(long, value_name = "N", default_value_t = 2, requires = "real")]
    players: usize,
    /// Rooms that are measured at a time: few (20 or more: one for each look of the shard in a tick), which find caches cold each time, and many
    #[arg(long, value_name = "FEW,MANY", value_delimiter = ',', num_args = 1..=2, default_values_t = [20, 200], requires = "real")]
    rooms: Vec<usize>,
    /// Rooms of each load of --check
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [30, 60, 120, 300], requires = "check")]
    loads: Vec<usize>,
    /// How often each load of --check is run: the run counts whose prediction is off by the median
    #[arg(long, value_name = "N", default_value_t = 3, requires = "check")]
    runs: usize,
    /// How long is measured, each time, in seconds [default: 9; 5 with --check, which measures more often]
    #[arg(long, value_name = "SECONDS", requires = "real")]
    seconds: Option<u64>,
    /// With --measure: how late 99 of 100 steps may come, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5.0, requires = "measure")]
    lateness_ms: f64,
    /// What draws and players begin with
    #[arg(long, value_name = "N", default_value_t = spread::SEED)]
    seed: u64,
}

impl BudgetArgs {
    fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(if self.check { 5 } else { 9 })
    }
}

pub(super) async fn budget(args: BudgetArgs, as_json: bool) -> anyhow::Result<()> {
    if let Some(path) = args.write.as_ref().filter(|path| path.exists()) {
        bail!("{} is there already; name a file that is not there yet", path.display());
    }
    if args.measure || args.check {
        return real(&args, as_json).await;
    }
    let model = match &args.model {
        Some(path) => file::read(path)?,
        None => {
            if let Some(path) = &args.write {
                write_new(path, example::SHOOTER_TOML)?;
            }
            example::shooter()?
        }
    };
    let report = Report::of(&model, args.seed);
    if as_json {
        say(serde_json::to_string(&report)?);
    } else {
        say(report.table().trim_end());
    }
    Ok(())
}

/// Measures, and predicts or checks.
async fn real(args: &BudgetArgs, as_json: bool) -> anyhow::Result<()> {
    if !(args.lateness_ms > 0.0 && args.lateness_ms <= 1_000.0) {
        bail!("--lateness-ms is {}; accepted: more than 0, up to 1000", args.lateness_ms);
    }
    let &[few, many] = args.rooms.as_slice() else { bail!("--rooms takes two numbers, as in --rooms 20,200") };
    let load = load::Options {
        module: args.game.clone(),
        rooms: many,
        players: args.players,
        seed: args.seed,
        ..load::Options::default()
    };
    let options = measure::Options { modules: args.modules.clone(), load: load.clone(), seconds: args.seconds() };
    if args.check {
        let options = check::Options {
            modules: args.modules.clone(),
            load,
            loads: args.loads.clone(),
            seconds: args.seconds(),
            measured_rooms: [few, many],
            runs: args.runs,
        };
        let rows = check::run(&options, progress).await?;
        let outcome = Outcome::of(&rows);
        if as_json {
            let optimised = !cfg!(debug_assertions);
            say(json!({
                "optimised": optimised, "seed": args.seed, "players": args.players, "rows": rows, "outcome": outcome,
            }));
        } else {
            say(check_table(args, &rows, outcome).trim_end());
        }
        return match outcome {
            Outcome::Fits => Ok(()),
            Outcome::Off => Err(Failed.into()),
            Outcome::NotShown => Err(Undecided.into()),
        };
    }
    let calibration = Calibration::run(&options, [few, many], progress).await?;
    let measured = &calibration.many;
    let (counts, source) = match &args.against {
        Some(url) => {
            progress("counting what the host at that URL does");
            let api = Api::trusting(url, args.ca.as_deref())?;
            (counts::between(&api, Duration::from_secs(args.seconds())).await?, url.clone())
        }
        None => (measured.counts, "this measurement's own rooms".to_owned()),
    };
    let model = measured.model(&counts);
    let most = measured.most_rooms(args.lateness_ms, args.seed);
    let report = Report::of(&model, args.seed);
    if let Some(path) = &args.write {
        write_new(path, &file::write(&model, &head(args, &source)))?;
    }
    if as_json {
        let optimised = !cfg!(debug_assertions);
        say(json!({
            "optimised": optimised, "counts": counts, "counts_of": source, "report": report,
            "lateness_ms": args.lateness_ms, "most": most, "players": args.players,
        }));
    } else {
        say(measure_text(args, &model, &report, measured, most, &source).trim_end());
    }
    Ok(())
}

fn head(args: &BudgetArgs, source: &str) -> Vec<String> {
    let many = args.rooms.last().copied().unwrap_or_default();
    let game = args.game.as_deref().unwrap_or("the default game");
    let mut head = vec![
        format!("What a frame of 20 ms of a shard consists of: {game}, {} players in a room.", args.players),
        format!("T: measured by `holeshot budget --measure`, with {many} rooms in turn, in {} s.", args.seconds()),
        format!("N and P: counted, of {source}."),
        "T is { min, likely, max }: 5 % took less than min, 1 % more than max, and likely is the mean without the latter.".into(),
    ];
    if cfg!(debug_assertions) {
        head.push(UNOPTIMISED.into());
    }
    head
}

fn measure_text(
    args: &BudgetArgs,
    model: &Model,
    report: &Report,
    measured: &Measured,
    most: Option<Prediction>,
    source: &str,
) -> String {
    let mut text = String::new();
    if cfg!(debug_assertions) {
        let _ = writeln!(text, "{UNOPTIMISED}\n");
    }
    let _ = writeln!(text, "{}", report.table());
    let frame_us = model.frame_ms().likely * 1e3;
    let _ = writeln!(text, "N and P are of {source}.");
    if let (Some(cpu_us), None) = (measured.counts.cpu_us, &args.against) {
        let _ = writeln!(
            text,
            "The shard's processor time in these frames was {cpu_us:.0} us; the model says {frame_us:.0}. More than a little apart: other programs took the core while operations were timed, so measure again when they do not."
        );
    }
    let (late, players) = (args.lateness_ms, args.players);
    match most {
        Some(Prediction { rooms, cpu_us, queue }) => {
            let _ = writeln!(
                text,
                "One core holds {rooms} rooms of {players} players ({} players) at 50 Hz with 99 of 100 steps at most {late} ms late (seed {}):\n\
                 {cpu_us:.0} us of processor time in a frame of 20,000, half of the steps at most {:.2} ms late.",
                rooms * players,
                args.seed,
                queue.lateness_p50_ms
            );
        }
        None => {
            let _ =
                writeln!(text, "Not even one room of {players} players has 99 of 100 steps at most {late} ms late.");
        }
    }
    let _ = writeln!(
        text,
        "That assumes rooms and players spread over the tick by chance, and a core that other programs leave to the shard as they did while this was measured."
    );
    text
}

fn check_table(args: &BudgetArgs, rows: &[Row], outcome: Outcome) -> String {
    let mut text = String::new();
    if cfg!(debug_assertions) {
        let _ = writeln!(text, "{UNOPTIMISED}\n");
    }
    let _ = writeln!(text, "processor time of the shard in a frame of 20 ms, in microseconds");
    let head = [
        "rooms",
        "players",
        "predicted",
        "measured",
        "off",
        "drift",
        "sleeps",
        "counted",
        "late p99 ms",
        "measured",
        "snapshots missed",
    ];
    let mut table = vec![head.map(str::to_owned)];
    for Row { predicted, measured, players, off, drift } in rows {
        table.push([
            predicted.rooms.to_string(),
            (predicted.rooms * args.players).to_string(),
            format!("{:.0}", predicted.cpu_us),
            format!("{:.0}", measured.cpu_us.unwrap_or_default()),
            format!("{:+.1} %", off * 100.0),
            format!("{:.1} %", drift * 100.0),
            format!("{:.1}", predicted.queue.sleeps),
            format!("{:.1}", measured.sleeps),
            format!("{:.2}", predicted.queue.lateness_p99_ms),
            format!("{:.2}", measured.lateness_p99_ms),
            format!("{:.2} %", missed_percent(players.snapshots, players.snapshots_missed)),
        ]);
    }
    columns(&mut text, &table);
    let verdict = match outcome {
        Outcome::Fits => "FITS: every prediction is within",
        Outcome::Off => "DOES NOT FIT: not every prediction is within",
        Outcome::NotShown => "NOT SHOWN: not every prediction is within",
    };
    let _ = writeln!(text, "\n{verdict} {:.0} % (seed {}).", OFF_MAX * 100.0, args.seed);
    if rows.iter().any(|row| row.drift > DRIFT_MAX) {
        let _ = writeln!(
            text,
            "The runs of a load, or what the operations took before and after one, differ by more than {:.0} % (drift): the machine's speed changed meanwhile, by what other programs took of it. Check again when they do not.",
            DRIFT_MAX * 100.0
        );
    }
    text
}

fn missed_percent(came: u64, missed: u64) -> f64 {
    let all = came.saturating_add(missed);
    if all == 0 { 0.0 } else { missed as f64 * 100.0 / all as f64 }
}

/// Says what is being done, to a person who waits.
fn progress(what: &str) {
    if stderr().is_terminal() {
        note(format_args!("{what} ..."));
    }
}

/// Writes a file that is not there yet: nothing that somebody wrote is lost.
fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let file = std::fs::File::options().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("{} cannot be written; name a file that is not there yet", path.display()))?;
    note(format_args!("{} is written; `holeshot budget {}` reads it", path.display(), path.display()));
    Ok(())
}
