//! `holeshot bench all`: every bench, several times, and one report of it, so that two commits can be compared ([`super::compare`]).
//!
//! The benches take turns, as often as all of them are run: what a machine does for some minutes then meets each of them once, and shows as the spread of its
//! figures and not as a difference between commits.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Instant, SystemTime};

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::figure::{Figure, Told};
use super::machine::Machine;
use super::{events, flood, percent, replay, rooms, seal, snapshots, steer, swap, tick};
use crate::budget::report::columns;

/// The version of the report's format. Another one is not compared.
pub const FORMAT: u32 = 1;
/// Most times that all benches are run: an hour or two.
pub const TIMES_MAX: usize = 20;
/// Longest report that is read, in bytes: one has a hundred kilobytes.
const REPORT_BYTES_MAX: u64 = 16 << 20;
/// Most figures of a report that is read: several times as many as there are.
const FIGURES_MAX: usize = 10_000;

/// A bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// One tick of each game.
    Tick,
    /// Sealing and opening a datagram.
    Seal,
    /// Snapshots, whole and as deltas.
    Snapshots,
    /// Replaying a journal.
    Replay,
    /// New rules for running rooms.
    Swap,
    /// Events into the records.
    Events,
    /// Races while strangers flood the host.
    Flood,
    /// Datagrams for hosts of several shards.
    Steer,
    /// How many rooms a host carries.
    Rooms,
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The benches; empty for all.
    pub only: Vec<Name>,
    /// How often each is run.
    pub times: usize,
    /// With options so small that the figures say nothing: to see that everything runs.
    pub quick: bool,
}

/// One bench, over all its runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Of {
    /// Its name.
    pub name: String,
    /// How long one run took at most, in seconds.
    pub took_s: f64,
    /// The figures that commits are compared by: the value of the run in the middle, with the range over all runs.
    pub figures: Vec<Figure>,
    /// The table of the last run.
    pub table: String,
    /// All of the last run.
    pub last: Value,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this format: [`FORMAT`].
    pub format: u32,
    /// When it was begun.
    pub begun: String,
    /// What it is of.
    pub machine: Machine,
    /// How often each bench was run.
    pub times: usize,
    /// Whether it was run with options so small that the figures say nothing.
    pub quick: bool,
    /// The benches.
    pub benches: Vec<Of>,
}

/// Runs them. Takes ten minutes for each time, most of it for [`Name::Rooms`].
///
/// # Errors
/// Options out of range, or the first bench that fails.
pub async fn run(options: &Options, mut progress: impl FnMut(&str)) -> anyhow::Result<Report> {
    let Options { only, times, quick } = options;
    if !(1..=TIMES_MAX).contains(times) {
        bail!("benches can be run 1 to {TIMES_MAX} times, not {times}");
    }
    // Which takes two cores.
    let can_steer = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    let wanted = |name: &Name| if only.is_empty() { *name != Name::Steer || can_steer } else { only.contains(name) };
    let names: Vec<Name> = Name::value_variants().iter().copied().filter(wanted).collect();
    let begun = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut runs: Vec<Vec<(f64, Box<dyn Told>)>> = names.iter().map(|_| Vec::new()).collect();
    for time in 1..=*times {
        for (name, runs) in names.iter().zip(&mut runs) {
            progress(&format!("{} ({time} of {times})", name.as_str()));
            let started = Instant::now();
            let told = one(*name, *quick, &mut progress).await.with_context(|| format!("bench {}", name.as_str()))?;
            runs.push((started.elapsed().as_secs_f64(), told));
        }
    }
    let benches = names.iter().zip(runs).map(|(name, runs)| Of::merged(name.as_str(), &runs));
    let benches = benches.collect::<anyhow::Result<_>>()?;
    Ok(Report { format: FORMAT, begun, machine: Machine::this(), times: *times, quick: *quick, benches })
}

impl Name {
    /// Its name on the command line and in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tick => "tick",
            Self::Seal => "seal",
            Self::Snapshots => "snapshots",
            Self::Replay => "replay",
            Self::Swap => "swap",
            Self::Events => "events",
            Self::Flood => "flood",
            Self::Steer => "steer",
            Self::Rooms => "rooms",
        }
    }
}

/// Runs one bench once.
async fn one(name: Name, quick: bool, progress: &mut impl FnMut(&str)) -> anyhow::Result<Box<dyn Told>> {
    /// The options of a bench: its own, or some that take a second.
    fn options<T: Default>(quick: bool, small: T) -> T {
        if quick { small } else { T::default() }
    }
    Ok(match name {
        Name::Tick => {
            let options =
                options(quick, tick::Options { players: vec![2], rooms: 20, rounds: 1, ..tick::Options::default() });
            Box::new(tokio::task::spawn_blocking(move || tick::run(&options, |_| {})).await??)
        }
        Name::Seal => {
            let options = options(quick, seal::Options { sessions: 8, rounds: 20, ..seal::Options::default() });
            Box::new(tokio::task::spawn_blocking(move || seal::run(&options)).await??)
        }
        Name::Snapshots => {
            let small = snapshots::Options { players: vec![2], delays: vec![3], rounds: 1, ..Default::default() };
            let options = options(quick, small);
            Box::new(tokio::task::spawn_blocking(move || snapshots::run(&options)).await??)
        }
        Name::Replay => {
            let options = options(quick, replay::Options { players: vec![2], rounds: 3 });
            Box::new(tokio::task::spawn_blocking(move || replay::run(&options)).await??)
        }
        Name::Swap => Box::new(swap::run(&options(quick, swap::Options { rooms: 4, rounds: 1 })).await?),
        Name::Events => {
            let small = events::Options { events: 1_000, rounds: 1, pace_per_s: 100, pace_s: 1 };
            Box::new(events::run(&options(quick, small)).await?)
        }
        Name::Flood => {
            let small = flood::Options { seconds: 1, rooms: 1, sockets: 5, ..flood::Options::default() };
            Box::new(flood::run(&options(quick, small)).await?)
        }
        Name::Steer => {
            let small = steer::Options { datagrams_per_s: 1_000, seconds: 1, rounds: 1, ..steer::Options::default() };
            Box::new(steer::run(&options(quick, small)).await?)
        }
        Name::Rooms => {
            let small = rooms::Options { rooms: vec![1], seconds: 1, ..rooms::Options::default() };
            Box::new(rooms::run(&options(quick, small), progress).await?)
        }
    })
}

impl Of {
    fn merged(name: &str, runs: &[(f64, Box<dyn Told>)]) -> anyhow::Result<Self> {
        let (_, last) = runs.last().context("a bench without a run")?;
        let all: Vec<Vec<Figure>> = runs.iter().map(|(_, told)| told.figures()).collect();
        let mut figures = Vec::new();
        for figure in all.iter().flatten() {
            if figures.iter().any(|known: &Figure| known.name == figure.name) {
                continue;
            }
            let same: Vec<&Figure> = all.iter().flatten().filter(|other| other.name == figure.name).collect();
            figures.extend(Figure::merged(&same));
        }
        let took_s = runs.iter().map(|(took_s, _)| *took_s).fold(0.0, f64::max);
        Ok(Self { name: name.to_owned(), took_s, figures, table: last.table(), last: last.json()? })
    }
}

impl Report {
    /// Reads one that was written as JSON.
    ///
    /// # Errors
    /// In words: what is wrong with the file, and the next step.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let unread = || format!("{} cannot be read", path.display());
        let bytes = std::fs::metadata(path).with_context(unread)?.len();
        if bytes > REPORT_BYTES_MAX {
            bail!("{} has {bytes} bytes; a report has {REPORT_BYTES_MAX} at most", path.display());
        }
        Self::parse(&std::fs::read(path).with_context(unread)?)
            .with_context(|| format!("{} is no report; `holeshot bench all` writes one", path.display()))
    }

    /// Reads the bytes of one.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let format: Value = serde_json::from_slice(bytes)?;
        let found = format.get("format").and_then(Value::as_u64);
        if found != Some(u64::from(FORMAT)) {
            bail!(
                "its format is {}, and this program compares {FORMAT}: measure that commit again with this program's bench",
                found.map_or_else(|| "not told".to_owned(), |found| found.to_string())
            );
        }
        let report: Self = serde_json::from_value(format)?;
        let figures = || report.benches.iter().flat_map(|bench| &bench.figures);
        let finite = |figure: &Figure| {
            [figure.value, figure.range.0, figure.range.1, figure.limit.unwrap_or(0.0)].iter().all(|value| {
                // Beyond this nothing that a bench measures lies, and ratios stay numbers.
                value.abs() <= 1e15
            })
        };
        if figures().count() > FIGURES_MAX {
            bail!("it has more than {FIGURES_MAX} figures");
        }
        if let Some(figure) = figures().find(|figure| !finite(figure)) {
            bail!("the figure {:?} is no number that a bench measures", figure.name);
        }
        Ok(report)
    }

    /// The report as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let Self { begun, machine, times, quick, benches, .. } = self;
        let mut text = format!("# What Holeshot costs\n\n{}.\nBegun {begun}; each bench ", machine.line());
        let _ = match times {
            1 => writeln!(text, "was run once."),
            times => writeln!(text, "was run {times} times, in turns."),
        };
        if *quick {
            text.push_str("\n**Run with `--quick`: the figures say nothing.**\n");
        }
        if machine.build != "release" {
            text.push_str("\n**Built without optimisation: the figures say nothing.**\n");
        }
        for Of { name, took_s, figures, table, .. } in benches {
            let _ = writeln!(
                text,
                "\n## bench {name}\n\nOne run took up to {took_s:.0} s. What commits are compared by:\n"
            );
            text.push_str("```text\n");
            columns(&mut text, &rows(figures));
            let _ = writeln!(text, "```\n\nThe last run:\n\n```text\n{}\n```", table.trim_end());
        }
        text
    }
}

fn rows(figures: &[Figure]) -> Vec<[String; 6]> {
    let mut rows = vec![["figure", "value", "unit", "limit", "ratio", "known to"].map(str::to_owned)];
    let dash = || "-".to_owned();
    for figure in figures {
        rows.push([
            figure.name.clone(),
            number(figure.value),
            figure.unit.clone(),
            figure.limit.map_or_else(dash, number),
            figure.ratio().map_or_else(dash, |ratio| format!("{ratio:.2}")),
            if figure.range.0 == figure.range.1 { dash() } else { format!("+-{}", percent(figure.noise())) },
        ]);
    }
    rows
}

/// A number with three digits or more.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        most if most >= 100.0 => format!("{value:.0}"),
        most if most >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_written_and_read_again_and_two_runs_are_one() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = Options { only: vec![Name::Seal], times: 2, quick: true };
        let mut said = Vec::new();
        let report = runtime.block_on(run(&options, |what| said.push(what.to_owned()))).unwrap();
        assert_eq!(said, ["seal (1 of 2)", "seal (2 of 2)"]);
        let json = serde_json::to_vec(&report).unwrap();
        assert_eq!(Report::parse(&json).unwrap(), report);
        let bench = &report.benches[0];
        assert_eq!((bench.name.as_str(), bench.figures.len(), report.benches.len()), ("seal", 6, 1));
        for figure in &bench.figures {
            let (least, most) = figure.range;
            assert!(least <= figure.value && figure.value <= most && figure.ratio().is_some(), "{figure:?}");
        }
        let markdown = report.markdown();
        for words in ["# What Holeshot costs", "--quick", "## bench seal", "seal/open 64 bytes", "chacha20poly1305"] {
            assert!(markdown.contains(words), "{words}: {markdown}");
        }
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let good = r#"{"format":1,"begun":"","machine":{"processor":"","cores":1,"memory_mib":1,"system":"","build":"dev",
            "version":"","commit":null},"times":1,"quick":false,"benches":[{"name":"x","took_s":1.0,"table":"","last":null,
            "figures":[{"name":"x/y","unit":"ns","value":1.0,"range":[1.0,1.0],"better":"less"}]}]}"#;
        let report = Report::parse(good.as_bytes()).unwrap();
        assert_eq!(report.benches[0].figures[0].limit, None);
        for (from, to, words) in [
            ("\"format\":1", "\"format\":2", "its format is 2"),
            ("\"format\":1", "\"other\":1", "its format is not told"),
            ("\"value\":1.0", "\"value\":1e300", "no number that a bench measures"),
            ("\"better\":\"less\"", "\"better\":\"so\"", "unknown variant"),
        ] {
            let error = format!("{:#}", Report::parse(good.replace(from, to).as_bytes()).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
        assert!(Report::parse(b"").is_err() && Report::parse(b"[]").is_err());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let none = Options { only: vec![], times: 0, quick: true };
        assert!(runtime.block_on(run(&none, |_| {})).is_err());
    }
}
