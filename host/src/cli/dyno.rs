//! `holeshot dyno`: the best that each car can do, and how it is driven.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use drag_race::Car;

use super::output::{grouped, note, say};
use super::serve::stop_signal;
use crate::dyno::{self, Findings, Work, text};
use crate::modules::read_module_file;
use crate::rules::{DRAG_RACE_WASM, Engine, EngineSettings, ModuleStore};

/// Instances beside those of the runs: the one that is asked for its manifest.
const INSTANCES_BESIDE: u32 = 2;
/// How often the progress is told, in milliseconds.
const PROGRESS_MS: u64 = 200;

#[derive(Debug, Clone, Args)]
pub(super) struct DynoArgs {
    /// Rules made from the drag race, in place of those that ship
    #[arg(long, value_name = "RULES.WASM")]
    module: Option<PathBuf>,
    /// Only this car; may be given several times
    #[arg(long, value_name = "ID")]
    car: Vec<String>,
    /// Print a table with a row per car, comma-separated
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

pub(super) async fn dyno(args: DynoArgs, as_json: bool) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    let work = Arc::new(Work::default());
    let begun = Instant::now();
    let working = Arc::clone(&work);
    let csv = args.csv;
    let mut found = tokio::task::spawn_blocking(move || find(&args, &working));
    let mut stop = std::pin::pin!(stop);
    let mut progress = tokio::time::interval(Duration::from_millis(PROGRESS_MS));
    let shown = std::io::stderr().is_terminal();
    let findings = loop {
        tokio::select! {
            found = &mut found => break found??,
            signal = &mut stop => {
                work.break_off();
                bail!("{signal}: the search was broken off");
            }
            _ = progress.tick(), if shown => {
                let line = format!("{} cars done, {} runs", work.cars(), grouped(work.runs()));
                let _nobody_reads = write!(std::io::stderr().lock(), "\r{line:<40}");
            }
        }
    };
    if shown {
        let _nobody_reads = write!(std::io::stderr().lock(), "\r{:<40}\r", "");
    }
    if as_json {
        say(serde_json::to_string(&findings)?);
    } else if csv {
        say(text::csv(&findings)?.trim_end());
    } else {
        say(text::text(&findings).trim_end());
    }
    if shown {
        let took_s = begun.elapsed().as_secs_f64();
        note(format_args!(
            "{} runs, {} ticks of the rules in {took_s:.1} s: {} runs a second",
            grouped(work.runs()),
            grouped(work.ticks()),
            grouped((work.runs() as f64 / took_s) as u64)
        ));
    }
    Ok(())
}

fn find(args: &DynoArgs, work: &Arc<Work>) -> anyhow::Result<Findings> {
    let cars = chosen(&args.car)?;
    let threads = u32::try_from(rayon::current_num_threads()).unwrap_or(1);
    // Each car may be worked on by each thread, which may stage it anew meanwhile.
    let instances_max = threads.saturating_mul(2 * cars.len() as u32).saturating_add(INSTANCES_BESIDE);
    let engine = Engine::new(EngineSettings { instances_max, ..EngineSettings::default() })?;
    let store = ModuleStore::new(engine, None)?;
    let module = match &args.module {
        Some(path) => store.load(&read_module_file(path)?)?,
        None => store.load(DRAG_RACE_WASM)?,
    };
    Ok(dyno::run(&module, &cars, work)?)
}

fn chosen(ids: &[String]) -> anyhow::Result<Vec<&'static Car>> {
    if ids.is_empty() {
        return Ok(drag_race::cars().iter().collect());
    }
    Ok(ids.iter().map(|id| drag_race::find_car(id).map(|(_, car)| car)).collect::<Result<_, _>>()?)
}
