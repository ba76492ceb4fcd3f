//! `holeshot test`: scenarios against a module, with the report of a test runner.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::Failed;
use super::output::{grouped, say};
use crate::modder::scenario::{FileError, Tested, test as play};
use crate::rules::{Engine, EngineSettings, ModuleStore};

/// A room, and what is begun anew while it runs: after a fault, for a description.
const INSTANCES_MAX: u32 = 8;

/// The file's format at a glance; all of it is in the documentation of `modder::scenario`.
const FORMAT: &str = r#"A scenario is a TOML file:

  about = "A red light costs time, not the race"

  [room]                         # seed, options, tick_hz, frames (leave the game after so many)
  seed = 7
  options = { tree = "pro" }

  [[player]]                     # one for each, in the order of their slots
  name = "Ada"
  data = { car = "mx5" }

  [input]                        # how `input` becomes bytes: postcard, or fixed width (u16le …)
  fields = ["throttle:u8", "clutch:u8", "gear:u8"]

  [[play]]                       # what a player sends; or hex = "ff0001"
  player = "Ada"
  frames = "..tree_started+30"   # a number, or counted from an event; the end is not among them
  input = { clutch = 255 }

  [[lose]]  player, frames                       inputs that never arrive
  [[late]]  player, frames, by_frames            inputs that arrive too late
  [[action]]  player, frame, data                a player's action
  [[leave]]  player, frame, how                  "quit", "removed" or "connection_lost"
  [[return]]  player, frame                      the connection is back

  [[expect]]                     # one of event, result, state_after, snapshot_after, ending
  event = "penalty"              # with frames, count, public
  data = { lane = 0 }            # parts that have to be there
  between = { seconds = [0.5, 2.0] }
  absent = ["reason"]

  [[expect]]
  result = "Ada"                 # with outcome, place
  outcome = "won"

  [[expect]]
  state_after = "penalty"        # the state as holeshot_describe shows it
  data = { penalties_s = [1.0] }

  [[expect]]
  ending = "finished"            # running, rules_fault, too_long, everyone_left, not_enough_players

The rules must not fail on the way. What they log is shown with `--log holeshot::rules::guest=trace`. Exit codes: 0 all scenarios passed, 1 one did not, 2 wrong command line."#;

#[derive(Debug, Clone, Args)]
#[command(after_long_help = FORMAT)]
pub(super) struct TestArgs {
    /// The module
    #[arg(value_name = "RULES.WASM")]
    module: PathBuf,
    /// Scenarios: files, or folders with files that end in .toml. `--help` shows the format
    #[arg(value_name = "SCENARIO.TOML", required = true)]
    scenarios: Vec<PathBuf>,
}

pub(super) async fn test(args: TestArgs, as_json: bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    let tested = tokio::task::spawn_blocking(move || {
        let scenarios = files(&args.scenarios)?;
        let engine = Engine::new(EngineSettings { instances_max: INSTANCES_MAX, ..EngineSettings::default() })?;
        let module = ModuleStore::new(engine, None)?.load_file(&args.module)?;
        anyhow::Ok(scenarios.iter().map(|path| play(&module, path)).collect::<Vec<_>>())
    })
    .await??;
    let passed = |tested: &Result<Tested, FileError>| tested.as_ref().is_ok_and(Tested::passed);
    let all_passed = tested.iter().all(passed);
    if as_json {
        let scenarios = tested.iter().map(|tested| match tested {
            Ok(tested) => {
                let mut value = serde_json::to_value(tested)?;
                if let Some(fields) = value.as_object_mut() {
                    fields.insert("passed".into(), json!(tested.passed()));
                }
                Ok(value)
            }
            Err(error) => {
                Ok(json!({ "file": error.file, "line": error.line, "error": error.problem, "passed": false }))
            }
        });
        let scenarios = scenarios.collect::<Result<Vec<_>, serde_json::Error>>()?;
        say(json!({ "passed": all_passed, "scenarios": scenarios }));
    } else {
        for one in &tested {
            say(text(one).trim_end());
        }
        let count = tested.iter().filter(|tested| passed(tested)).count();
        let frames: u64 = tested.iter().flatten().map(|tested| u64::from(tested.frames)).sum();
        say(format_args!(
            "\nscenarios: {}. {count} passed, {} failed; {} frames in {:.2} s",
            if all_passed { "ok" } else { "FAILED" },
            tested.len() - count,
            grouped(frames),
            begun.elapsed().as_secs_f64()
        ));
    }
    if all_passed { Ok(()) } else { Err(Failed.into()) }
}

/// The files that are meant: those of a folder in the order of their names.
fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let found = in_folder(path).with_context(|| format!("{} cannot be read", path.display()))?;
        if found.is_empty() {
            bail!("{} has no file that ends in .toml", path.display());
        }
        files.extend(found);
    }
    Ok(files)
}

fn in_folder(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in path.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn text(tested: &Result<Tested, FileError>) -> String {
    let tested = match tested {
        Ok(tested) => tested,
        Err(error) => return format!("{error}\n  FAILED: this is no scenario"),
    };
    let mut text = String::new();
    let about = if tested.about.is_empty() { String::new() } else { format!(": {}", tested.about) };
    let _ = writeln!(text, "{}{about}", tested.file);
    for fault in &tested.faults {
        let _ = writeln!(text, "  FAILED  {}", fault.message);
        for line in fault.backtrace.iter().flat_map(|backtrace| backtrace.lines()) {
            let _ = writeln!(text, "              {line}");
        }
    }
    for check in &tested.checks {
        match &check.failure {
            None => {
                let _ = writeln!(text, "  ok      {}", check.expected);
            }
            Some(failure) => {
                let _ = writeln!(text, "  FAILED  {} (line {})", check.expected, check.line);
                for line in failure.lines() {
                    let _ = writeln!(text, "            {line}");
                }
            }
        }
    }
    for note in &tested.notes {
        let _ = writeln!(text, "  note    {note}");
    }
    let _ = writeln!(text, "          {} frames, {}", grouped(tested.frames.into()), tested.ending);
    text
}
