//! `holeshot dyno`: the best that each car can do, and how it is driven.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use clap::builder::PossibleValuesParser;
use clap::{Args, value_parser};
use drag_race::car_file::{self, CAR_FILE_BYTES_MAX};
use drag_race::ranges::CARS_MAX;
use drag_race::{CATALOGUE_TOML, Car, to_options_json};
use holeshot_abi::OPTIONS_BYTES_MAX;
use serde_json::json;

use super::Failed;
use super::output::{grouped, note, say};
use super::serve::stop_signal;
use crate::dyno::drivers::{RUNS_DEFAULT, RUNS_MAX};
use crate::dyno::report::{self, Report};
use crate::dyno::{self, Draw, Findings, Method, Sheet, Strip, Work, balance, balance_file, drivers, prove, text};
use crate::files::{Readers, open_regular, write_whole};
use crate::rules::{DRAG_RACE_WASM, Engine, EngineSettings, MODULE_BYTES_MAX, Module, ModuleStore};

/// Instances beside those of the runs: the one that is asked for its manifest.
const INSTANCES_BESIDE: u32 = 2;
/// How often the progress is told, in milliseconds.
const PROGRESS_MS: u64 = 200;
/// Characters of a day in a time as text: 2026-11-21.
const DAY_CHARS: usize = 10;
/// Ids of cars that an error lists.
const IDS_SHOWN_MAX: usize = 32;

#[derive(Debug, Clone, Args)]
#[command(after_help = "`holeshot dyno --example > cars.toml` writes a car file to change.")]
pub(super) struct DynoArgs {
    /// A car file, in place of the catalogue
    #[arg(value_name = "CARS.TOML")]
    cars: Option<PathBuf>,
    /// Rules made from the drag race, in place of those that ship
    #[arg(long, value_name = "RULES.WASM")]
    module: Option<PathBuf>,
    /// Only this car; may be given several times
    #[arg(long, value_name = "ID")]
    car: Vec<String>,
    /// Print a table with a row per car, comma-separated: the sheets, without classes, drivers and balance
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Hold the search for the first of the cars against every plan of a coarse grid
    #[arg(long, conflicts_with = "csv")]
    prove: bool,
    /// Write a report with pictures besides, to open in a browser
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// The day that the report says it was made on, in place of today's: for the same bytes again
    #[arg(long, value_name = "DAY", requires = "html")]
    date: Option<String>,
    /// Print the catalogue as a car file and end
    #[arg(long)]
    example: bool,
    /// Print the options of a room that brings these cars and end
    #[arg(long, conflicts_with = "example")]
    options: bool,
    #[command(flatten)]
    race: RaceArgs,
}

/// What is found about the cars together.
#[derive(Debug, Clone, Args)]
struct RaceArgs {
    /// How cars are put into classes: by half seconds as strips have them, or where their times part by themselves
    #[arg(long, value_name = "METHOD", default_value = "index", value_parser = PossibleValuesParser::new(["index", "natural"]))]
    classes: String,
    /// Find the smallest change (ballast, power or final drive) that brings each car to its class's target
    #[arg(long)]
    balance: bool,
    /// Write a car file with these changes
    #[arg(long, value_name = "FILE", requires = "balance")]
    write: Option<PathBuf>,
    /// Drivers that run each car, to see how times spread and who wins in a class; 0 for none
    #[arg(long, value_name = "N", default_value_t = RUNS_DEFAULT, value_parser = value_parser!(u32).range(0..=i64::from(RUNS_MAX)))]
    runs: u32,
    /// Their skill: 0 a beginner, 1 near the best the car can do
    #[arg(long, default_value_t = 0.8, value_parser = super::race::parse_skill)]
    skill: f64,
    /// Decides their reactions and errors; the same seed gives the same drivers
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(super) async fn dyno(args: DynoArgs, as_json: bool) -> anyhow::Result<()> {
    if args.example {
        say(CATALOGUE_TOML.trim_end());
        return Ok(());
    }
    if args.options {
        say(options(&chosen(CarText::read(args.cars.as_deref())?.cars()?, &args.car)?)?);
        return Ok(());
    }
    if let Some(path) = &args.html {
        // Told now and not after the search.
        check_place("--html", path)?;
    }
    if let Some(path) = &args.race.write {
        check_place("--write", path)?;
        if path.exists() {
            bail!("{} exists already, and is not written over; give --write another name", path.display());
        }
    }
    let stop = stop_signal()?;
    let work = Arc::new(Work::default());
    let begun = Instant::now();
    let working = Arc::clone(&work);
    let DynoArgs { csv, html, date, race: RaceArgs { write, .. }, .. } = args.clone();
    let car_file = args.cars.as_ref().map_or("the catalogue".to_owned(), |path| path.display().to_string());
    let mut found = tokio::task::spawn_blocking(move || find(&args, &working));
    let mut stop = std::pin::pin!(stop);
    let mut progress = tokio::time::interval(Duration::from_millis(PROGRESS_MS));
    let shown = std::io::stderr().is_terminal();
    let (findings, cars, file) = loop {
        tokio::select! {
            found = &mut found => {
                clear_progress(shown);
                break found??;
            }
            signal = &mut stop => {
                clear_progress(shown);
                work.break_off();
                bail!("{signal}: the search was broken off");
            }
            _ = progress.tick(), if shown => {
                let line = format!("{} cars done, {} runs", work.cars(), grouped(work.runs()));
                let _nobody_reads = write!(std::io::stderr().lock(), "\r{line:<40}");
            }
        }
    };
    if as_json {
        say(serde_json::to_string(&findings)?);
    } else if csv {
        say(text::csv(&findings)?.trim_end());
    } else {
        say(text::text(&findings).trim_end());
    }
    if let (Some(path), Some(proposals)) = (write, &findings.balance) {
        let text = balance_file::balanced(&file.text, &file.shown, proposals)?;
        write_new(&path, &text).with_context(|| format!("the car file {}", path.display()))?;
        note(format_args!("the balanced cars are in {}", path.display()));
    }
    if let Some(path) = html {
        let today =
            || humantime::format_rfc3339_seconds(SystemTime::now()).to_string().chars().take(DAY_CHARS).collect();
        let date = date.unwrap_or_else(today);
        let version = env!("CARGO_PKG_VERSION");
        let report = Report { findings: &findings, cars: &cars, car_file: &car_file, version, date: &date };
        write_report(&path, &report)?;
        note(format_args!("the report is in {}", path.display()));
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
    let holds = findings.proof.as_ref().is_none_or(|proof| proof.holds);
    if holds { Ok(()) } else { Err(Failed.into()) }
}

fn clear_progress(shown: bool) {
    if shown {
        let _nobody_reads = write!(std::io::stderr().lock(), "\r{:<40}\r", "");
    }
}

/// What was found, the cars that it was found of, and the file that they are from.
fn find(args: &DynoArgs, work: &Arc<Work>) -> anyhow::Result<(Findings, Vec<Arc<Car>>, CarText)> {
    let file = CarText::read(args.cars.as_deref())?;
    let cars = chosen(file.cars()?, &args.car)?;
    let race = &args.race;
    let module = load(args.module.as_deref(), cars.len())?;
    let method = if race.classes == "natural" { Method::Natural } else { Method::Index };
    let mut findings = dyno::run(&module, &cars, method, work)?;
    // The table has no column for drivers.
    let shown = !args.csv || args.html.is_some();
    if race.runs > 0 && shown {
        let draw = Draw { skill: race.skill, runs: race.runs, seed: race.seed };
        findings.drivers = Some(drivers::drive(&module, &cars, &findings.sheets, &findings.classes, draw, work)?);
    }
    if race.balance {
        findings.balance = Some(balance::balance(&module, &cars, &findings.sheets, &findings.classes, work)?);
    }
    if let (true, Some(car), Some(Sheet { best, .. })) = (args.prove, cars.first(), findings.sheets.first()) {
        findings.proof = Some(prove::prove(&Strip::open(&module, car, work)?, best, prove::RUNS_MAX)?);
    }
    Ok((findings, cars, file))
}

/// What a room that brings these cars is opened with.
fn options(cars: &[Arc<Car>]) -> anyhow::Result<String> {
    let shared = cars.first().map(|car| car.shared).unwrap_or_default();
    let cars: Vec<Car> = cars.iter().map(|car| Car::clone(car)).collect();
    let options = json!({ "cars": to_options_json(&cars, &shared) }).to_string();
    if options.len() > OPTIONS_BYTES_MAX {
        bail!(
            "the options of a room with {} cars have {} bytes, and a host takes {OPTIONS_BYTES_MAX}; name those that are driven with --car",
            cars.len(),
            options.len()
        );
    }
    Ok(options)
}

/// Whether the file of an option can be written, as far as that can be seen before.
pub(super) fn check_place(option: &str, path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() || path.file_name().is_none() {
        bail!("{option} {}: this is a folder; name a file in it", path.display());
    }
    if !folder.is_dir() {
        bail!("{option} {}: the folder {} does not exist; make it first", path.display(), folder.display());
    }
    Ok(())
}

fn write_report(path: &Path, report: &Report) -> anyhow::Result<()> {
    let html = report::html(report)?;
    write_whole(path, html.as_bytes(), Readers::Usual).with_context(|| format!("the report {}", path.display()))
}

fn load(path: Option<&Path>, cars: usize) -> anyhow::Result<Arc<Module>> {
    let threads = u32::try_from(rayon::current_num_threads()).unwrap_or(1);
    // Each car may be worked on by each thread, which may stage it anew meanwhile.
    let instances_max = threads.saturating_mul(2 * cars as u32).saturating_add(INSTANCES_BESIDE);
    let engine = Engine::new(EngineSettings { instances_max, ..EngineSettings::default() })?;
    let store = ModuleStore::new(engine, None)?;
    Ok(match path {
        Some(path) => {
            let bytes = read(path, MODULE_BYTES_MAX).with_context(|| format!("the module {}", path.display()))?;
            store.load(&bytes).with_context(|| format!("the module {}", path.display()))?
        }
        None => store.load(DRAG_RACE_WASM)?,
    })
}

/// Reads a file that is no pipe and no device, up to a byte more than is taken: who looks at the bytes says that they are too many.
fn read(path: &Path, bytes_max: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file that is not there yet.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A car file.
struct CarText {
    /// Its name, for errors.
    shown: String,
    text: String,
}

impl CarText {
    /// The file, or the catalogue's.
    fn read(path: Option<&Path>) -> anyhow::Result<Self> {
        match path {
            Some(path) => read_text(path),
            None => Ok(Self { shown: "cars.toml".into(), text: CATALOGUE_TOML.into() }),
        }
    }

    fn cars(&self) -> anyhow::Result<Vec<Arc<Car>>> {
        let file = car_file::read(&self.text, &self.shown)
            .context("the car file was refused; `holeshot dyno --example` prints one that is right")?;
        Ok(file.cars().into_iter().map(Arc::new).collect())
    }
}

fn read_text(path: &Path) -> anyhow::Result<CarText> {
    let shown = path.display().to_string();
    let bytes = read(path, CAR_FILE_BYTES_MAX).with_context(|| format!("the car file {shown}"))?;
    if bytes.len() > CAR_FILE_BYTES_MAX {
        bail!(
            "the car file {shown} has more than {CAR_FILE_BYTES_MAX} bytes, in which {CARS_MAX} cars with all their sources have room"
        );
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        anyhow::anyhow!("the car file {shown} is not UTF-8 text: byte {} is wrong", error.utf8_error().valid_up_to())
    })?;
    Ok(CarText { shown, text })
}

fn chosen(cars: Vec<Arc<Car>>, ids: &[String]) -> anyhow::Result<Vec<Arc<Car>>> {
    if ids.is_empty() {
        return Ok(cars);
    }
    let find = |id: &String| {
        cars.iter().find(|car| car.id == id.as_str()).cloned().ok_or_else(|| {
            let known: Vec<&str> = cars.iter().take(IDS_SHOWN_MAX).map(|car| &*car.id).collect();
            anyhow::anyhow!("no car has the id {id:?}; there are {}", known.join(", "))
        })
    };
    let mut chosen: Vec<Arc<Car>> = ids.iter().map(find).collect::<Result<_, _>>()?;
    // Twice the same would be twice the work.
    let mut seen = std::collections::BTreeSet::new();
    chosen.retain(|car| seen.insert(car.id.to_string()));
    Ok(chosen)
}
