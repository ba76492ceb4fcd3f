//! `holeshot budget --check`: predicts what loads cost a shard, and lets a real host carry them, in a process of its own, with players in this one.
//!
//! A shared machine is not as fast in one minute as in the next. So the operations are measured before and after each load, with other numbers of rooms, and
//! the prediction is the mean of both; each load is run several times, and the run counts whose prediction is off by the median. How far the runs, and the two
//! measurements around each, are apart says how steady the machine was.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use tokio::time::sleep;

use super::counts::{self, PerFrame};
use super::measure::{self, Calibration, Prediction, SECONDS_MAX, SETTLE_MS};
use crate::child::{self, Host};
use crate::load::{Counts, Load, Options as LoadOptions};

/// How far a prediction may be off, as a part of what was measured.
pub const OFF_MAX: f64 = 0.2;
/// A load is measured in windows of this length, and the one in the middle counts: what a neighbour takes of a shared machine comes in bursts.
const WINDOW: Duration = Duration::from_secs(1);
/// How far the runs of a load may be apart in what their predictions are off, and the predictions from before and after a run: the machine was steady then.
pub const DRIFT_MAX: f64 = 0.2;
/// Most runs of a load: with the most loads and the longest measurements that is half a day.
const RUNS_MAX: usize = 10;
/// Places for rooms that the host has beyond the largest load: those of the load before may still be closing.
const ROOMS_SPARE: u32 = 8;
/// Most loads of one check.
const LOADS_MAX: usize = 16;

/// What is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// A rules module to load besides those that ship.
    pub modules: Vec<PathBuf>,
    /// What is played; its number of rooms is that of each load in turn.
    pub load: LoadOptions,
    /// Rooms of each load.
    pub loads: Vec<usize>,
    /// How long each is measured, in seconds; the operations as long.
    pub seconds: u64,
    /// With how many rooms the operations are measured: few and many.
    pub measured_rooms: [usize; 2],
    /// How often each load is run.
    pub runs: usize,
}

/// One load, predicted and measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Row {
    /// What was predicted.
    pub predicted: Prediction,
    /// What was counted.
    pub measured: PerFrame,
    /// What the players counted.
    pub players: Counts,
    /// The prediction's difference, as a part of what was measured.
    pub off: f64,
    /// How far the runs of this load were apart in that, or the predictions from before and after one of them, whichever is more.
    pub drift: f64,
}

/// What the rows say of the predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All are within [`OFF_MAX`].
    Fits,
    /// One is not, on a machine that was steady meanwhile.
    Off,
    /// One is not, and the machine was not steady: [`DRIFT_MAX`]. What is predicted from one minute is then measured in another one.
    NotShown,
}

impl Outcome {
    /// That of a check.
    #[must_use]
    pub fn of(rows: &[Row]) -> Self {
        let mut off = rows.iter().filter(|row| row.off.abs() > OFF_MAX || row.off.is_nan()).peekable();
        if off.peek().is_none() {
            Self::Fits
        } else if off.any(|row| row.drift <= DRIFT_MAX) {
            Self::Off
        } else {
            Self::NotShown
        }
    }
}

/// Runs the loads, one after the other, on one host.
///
/// # Errors
/// Options out of range, or a host or players that do not do what they should.
pub async fn run(options: &Options, mut progress: impl FnMut(&str)) -> anyhow::Result<Vec<Row>> {
    if options.loads.is_empty() || options.loads.len() > LOADS_MAX || !(1..=SECONDS_MAX).contains(&options.seconds) {
        bail!("1 to {LOADS_MAX} loads of 1 to {SECONDS_MAX} seconds can be checked");
    }
    if !(1..=RUNS_MAX).contains(&options.runs) {
        bail!("a load can be run 1 to {RUNS_MAX} times, not {}", options.runs);
    }
    let measured =
        measure::Options { modules: options.modules.clone(), load: options.load.clone(), seconds: options.seconds };
    progress("measuring the operations");
    let mut before = Calibration::run(&measured, options.measured_rooms, |_| {}).await?;
    progress("starting a host in a process of its own");
    let most = options.loads.iter().max().copied().unwrap_or_default();
    let host = Host::start(&child::Options {
        shards: Some(1),
        rooms_max: Some(u32::try_from(most)?.saturating_add(ROOMS_SPARE)),
        modules: options.modules.clone(),
        ..child::Options::default()
    })
    .await?;
    let mut rows = Vec::new();
    for &rooms in &options.loads {
        let mut of_load = Vec::new();
        for run in 1..=options.runs {
            progress(&format!("{rooms} rooms of {} players, run {run} of {}", options.load.players, options.runs));
            let (counted, players) = carry(&host, options, rooms).await?;
            progress("measuring the operations");
            let after = Calibration::run(&measured, options.measured_rooms, |_| {}).await?;
            of_load.push(Row::of([&before, &after].map(|at| at.predict(rooms, options.load.seed)), counted, players)?);
            before = after;
        }
        rows.extend(Row::median(of_load));
    }
    Ok(rows)
}

impl Row {
    fn of(predicted: [Prediction; 2], measured: PerFrame, players: Counts) -> anyhow::Result<Self> {
        let cpu_us = measured.cpu_us.context("the host's system does not tell the processor time of a thread")?;
        let [before, after] = predicted;
        let predicted = before.between(&after, 0.5);
        let drift = (after.cpu_us - before.cpu_us).abs() / predicted.cpu_us;
        Ok(Self { predicted, measured, players, off: predicted.cpu_us / cpu_us - 1.0, drift })
    }

    /// The one in the middle of the runs of a load; of an even number the one that is off by more.
    fn median(mut runs: Vec<Self>) -> Option<Self> {
        runs.sort_by(|a, b| a.off.total_cmp(&b.off));
        let [least, most] = [runs.first()?.off, runs.last()?.off];
        let middle = [runs.get((runs.len() - 1) / 2)?, runs.get(runs.len() / 2)?];
        let row = middle.into_iter().max_by(|a, b| a.off.abs().total_cmp(&b.off.abs()))?;
        let drift = runs.iter().map(|run| run.drift).fold(most - least, f64::max);
        Some(Self { drift, ..*row })
    }
}

/// Lets the host carry so many rooms, and counts.
async fn carry(host: &Host, options: &Options, rooms: usize) -> anyhow::Result<(PerFrame, Counts)> {
    let load = Load::start(&host.api, &LoadOptions { rooms, ..options.load.clone() }).await?;
    load.begun().await?;
    sleep(Duration::from_millis(SETTLE_MS)).await;
    let before = load.counts();
    let mut windows = Vec::new();
    for _ in 0..options.seconds {
        let mut counted = counts::between(&host.api, WINDOW).await?;
        // Ticks tell how many frames there were better than the moments at which the pages came, which a busy machine delays.
        let by_ticks = |cpu_us: f64| cpu_us * rooms as f64 / counted.rooms.max(f64::MIN_POSITIVE);
        counted.cpu_us = counted.cpu_us.map(by_ticks);
        windows.push(counted);
    }
    let players = load.counts().since(before);
    load.stop().await?;
    host.emptied().await?;
    if players.games_over > 0 {
        bail!("games ended while they were measured: check for fewer seconds");
    }
    let cpu_us = |counted: &PerFrame| counted.cpu_us.unwrap_or_default();
    windows.sort_by(|a, b| cpu_us(a).total_cmp(&cpu_us(b)));
    let middle = windows.get(windows.len() / 2).context("nothing was counted")?;
    Ok((*middle, players))
}

#[cfg(test)]
mod tests {
    use super::super::queue::Outcome as Queue;
    use super::*;

    fn row(off: f64, drift: f64) -> Row {
        let queue =
            Queue { rooms: 1, lateness_p50_ms: 0.0, lateness_p99_ms: 0.0, unread_ticks: 0.0, sleeps: 0.0, busy: 0.0 };
        let measured = PerFrame {
            rooms: 1.0,
            players: 2.0,
            datagrams: 0.0,
            inputs: 0.0,
            snapshots: 0.0,
            sent: 0.0,
            public_events: 0.0,
            internal_events: 0.0,
            opened: 0.0,
            closed: 0.0,
            sleeps: 0.0,
            cpu_us: None,
            lateness_p99_ms: 0.0,
        };
        Row { predicted: Prediction { rooms: 1, cpu_us: 1.0, queue }, measured, players: Counts::default(), off, drift }
    }

    #[test]
    fn a_prediction_is_wrong_only_where_the_machine_was_steady() {
        assert_eq!(Outcome::of(&[row(0.2, 0.5), row(-0.2, 0.0)]), Outcome::Fits);
        assert_eq!(Outcome::of(&[row(0.0, 0.0), row(-0.21, 0.21)]), Outcome::NotShown);
        assert_eq!(Outcome::of(&[row(0.3, 0.21), row(0.21, 0.2)]), Outcome::Off);
        assert_eq!(Outcome::of(&[row(f64::NAN, 0.0)]), Outcome::Off);
    }

    #[test]
    fn the_median_of_the_runs_counts() {
        let of = |offs: &[f64]| {
            let row = Row::median(offs.iter().map(|off| row(*off, 0.0)).collect());
            row.map(|row| (row.off, (row.drift * 100.0).round()))
        };
        assert_eq!(of(&[0.3, -0.1, 0.05]), Some((0.05, 40.0)));
        assert_eq!(of(&[0.05, -0.1]), Some((-0.1, 15.0)));
        assert_eq!((of(&[0.2]), of(&[])), (Some((0.2, 0.0)), None));
        let steadier = [row(0.1, 0.0), row(0.3, 0.5), row(0.2, 0.1)];
        assert_eq!(Row::median(steadier.to_vec()).map(|row| (row.off, row.drift)), Some((0.2, 0.5)));
    }
}
