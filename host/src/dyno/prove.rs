//! The proof of a search: every plan of a coarse grid, each run from the line to the end. It shares nothing with the search but the strip: no run is given
//! up, none begins on the way, and no plan is left out because another was slow.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::attempt::Shifts;
use super::error::StripError;
use super::search::{Best, GRIP_ADVISED, LAUNCH_STEP_RPM, Tune, launches};
use super::strip::Strip;

/// Runs of a proof, at most: a quarter of a minute on two cores. A car with many gears gets a coarser grid.
pub const RUNS_MAX: usize = 12_000;
/// Launch speeds of the grid, from idle to the limiter.
const LAUNCHES: usize = 7;
/// Speeds to change up at, for each gear, at least and at most: from [`SHIFT_SHARE_MIN`] of the limiter's up to it. With two of them the nine
/// changes of a box with ten gears are 7,168 runs, so a grid within [`RUNS_MAX`] is there for every car.
const SPEEDS: std::ops::RangeInclusive<usize> = 2..=11;
/// The lowest speed to change up at in the grid, over the limiter's.
const SHIFT_SHARE_MIN: f64 = 0.7;
/// How much quicker than the search a grid may be that holds its proof, in ms: a tenth of what a strip's clock prints in three digits. Nearer than
/// that, the launch's luck with single ticks decides.
const TOLERANCE_MS: f64 = 0.1;

/// What a grid found beside a search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// The car.
    pub car: String,
    /// Launch speeds that were tried, in rpm.
    pub launches_rpm: Vec<f64>,
    /// Grips that were asked for: what a driver is advised, and what the search found.
    pub grips: Vec<f64>,
    /// Engine speeds to change up at that were tried for each gear that the best run leaves, in rpm.
    pub shifts_rpm: Vec<f64>,
    /// Changes of gear of each run.
    pub shifts: usize,
    /// Runs: all combinations.
    pub runs: usize,
    /// The quickest of them.
    pub grid: GridBest,
    /// What the search found, in s.
    pub search_elapsed_s: f64,
    /// How much slower the grid's best is than the search's, in ms.
    pub search_is_ahead_ms: f64,
    /// Whether nothing in the grid is quicker than what the search found.
    pub holds: bool,
}

/// The quickest plan of a grid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GridBest {
    /// Its elapsed time, in s.
    pub elapsed_s: f64,
    /// Its launch speed, in rpm.
    pub launch_rpm: f64,
    /// The grip it asks for.
    pub grip_use: f64,
    /// Its engine speeds to change up at, first gear first, in rpm.
    pub shifts_rpm: Vec<f64>,
}

/// Tries every plan of a grid for the car of a strip. `runs_max` bounds how fine it is; the coarsest has two speeds for each change of gear.
///
/// # Errors
/// See [`StripError`]; [`StripError::NoTime`] if no plan of the grid reaches the finish line.
pub fn prove(strip: &Strip, best: &Best, runs_max: usize) -> Result<Proof, StripError> {
    let car = strip.car();
    let (first, last) = launches(car).into_inner();
    let mut launch_steps: Vec<i32> =
        (0..LAUNCHES as i32).map(|step| first + (last - first) * step / (LAUNCHES as i32 - 1)).collect();
    launch_steps.dedup();
    let found = Tune::of(&best.run.plan);
    let mut grip_steps = vec![GRIP_ADVISED, found.grip];
    grip_steps.dedup();
    let shifts = best.run.plan.shift_ticks.len();
    let tunes: Vec<Tune> =
        launch_steps.iter().flat_map(|&launch| grip_steps.iter().map(move |&grip| Tune { launch, grip })).collect();
    let speeds = SPEEDS
        .rev()
        .find(|speeds| combinations(*speeds, shifts).saturating_mul(tunes.len()) <= runs_max)
        .unwrap_or(*SPEEDS.start());
    let shifts_rpm: Vec<f64> = (0..speeds)
        .map(|step| {
            let share = step as f64 / (speeds - 1) as f64;
            car.limiter_rpm * (1.0 - (1.0 - SHIFT_SHARE_MIN) * share)
        })
        .collect();
    let runs = combinations(speeds, shifts).saturating_mul(tunes.len());

    let one = |number: usize| -> Result<Option<GridBest>, StripError> {
        // The number's digits are the choices.
        let Some(tune) = tunes.get(number % tunes.len()) else { return Ok(None) };
        let mut rest = number / tunes.len();
        let mut rpms = Vec::with_capacity(shifts);
        for _ in 0..shifts {
            rpms.extend(shifts_rpm.get(rest % speeds).copied());
            rest /= speeds;
        }
        let start = strip.launch(tune.launch_rpm(), tune.grip_use())?;
        let attempt = strip.attempt(&start, Shifts::AtRpm(&rpms), None, false)?;
        Ok(attempt.end.elapsed_s().map(|elapsed_s| GridBest {
            elapsed_s,
            launch_rpm: tune.launch_rpm(),
            grip_use: tune.grip_use(),
            shifts_rpm: rpms,
        }))
    };
    let tried: Vec<Result<Option<GridBest>, StripError>> = (0..runs).into_par_iter().map(one).collect();
    let mut grid: Option<GridBest> = None;
    for tried in tried {
        let quicker = |other: &GridBest| grid.as_ref().is_none_or(|best| other.elapsed_s < best.elapsed_s);
        if let Some(better) = tried?.filter(quicker) {
            grid = Some(better);
        }
    }
    let grid = grid.ok_or_else(|| strip.never_arrives())?;
    let search_is_ahead_ms = 1e3 * (grid.elapsed_s - best.run.elapsed_s);
    Ok(Proof {
        car: car.id.to_string(),
        launches_rpm: launch_steps.iter().map(|step| f64::from(step * LAUNCH_STEP_RPM)).collect(),
        grips: grip_steps.iter().map(|grip| Tune { launch: 0, grip: *grip }.grip_use()).collect(),
        shifts_rpm,
        shifts,
        runs,
        search_elapsed_s: best.run.elapsed_s,
        search_is_ahead_ms,
        holds: search_is_ahead_ms >= -TOLERANCE_MS,
        grid,
    })
}

fn combinations(speeds: usize, shifts: usize) -> usize {
    (0..shifts).fold(1, |product: usize, _| product.saturating_mul(speeds))
}
