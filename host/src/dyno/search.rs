//! The search for the plan with the smallest elapsed time. What one plan gives is `strip.rs`' affair.
//!
//! It goes from coarse to fine. First with changes of gear at engine speeds, which go with any launch: one speed for all gears, then a grid over
//! launch speed and grip, then a speed for each gear, then a finer grid. Then in ticks, as a driver's hand does it: the best of a set of small changes is
//! taken as long as one helps. Last, each neighbour of what was found is run once more from the line, to the end: see [`LocalOptimum`].
//!
//! Runs that are hopeless are given up, and many begin where they first differ from the best so far. The last step does neither. Batches run on all cores, and
//! the best of a batch is the first of the quickest in its order, so that the number of threads changes nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use drag_race::{Car, Transmission};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::attempt::{Attempt, End, Point, Reach, Shifts};
use super::error::StripError;
use super::strip::{Run, RunPlan, Strip};

/// Step of the launch speed, in rpm: what a driver can tell apart on a tachometer.
pub const LAUNCH_STEP_RPM: i32 = 50;
/// Steps of the grip asked for in one, so that a plan is made of whole numbers.
const GRIP_STEPS: i32 = 100;
/// The grip that the drag race's driver is advised to ask for, in steps.
pub(super) const GRIP_ADVISED: i32 = 98;
/// Grip that a driver can ask for, in steps: the range that the driver takes.
const GRIP_RANGE: std::ops::RangeInclusive<i32> = 30..=150;

/// Changes that the search makes one after the other, at most. The catalogue's cars need 5 to 40; a search that comes here says that its result is
/// not proven.
const ROUNDS_MAX: usize = 300;
/// How much later than the best so far a run may be at a place where it is also slower, in s, before it is given up: while little is known …
const COARSE_LAG_MAX_S: f64 = 0.15;
/// … and while small changes are tried.
const FINE_LAG_MAX_S: f64 = 0.04;

/// The best that a search found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The quickest run, with its plan.
    pub run: Run,
    /// Runs that the search made, those included that were given up on the way.
    pub evaluations: u64,
    /// The last step of the search: whether a small change of the plan would help.
    pub optimum: LocalOptimum,
}

/// What the neighbours of a plan give: each shift one tick earlier or later, launch speed and grip one step less or more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LocalOptimum {
    /// Whether no neighbour is quicker. False only where the search came to its bound before.
    pub proven: bool,
    /// Each neighbour.
    pub neighbours: Vec<Neighbour>,
}

/// A plan that differs from the best by one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Neighbour {
    /// What is other: `shift 1-2 a tick earlier`, `launch 50 rpm more`.
    pub change: String,
    /// What it costs, in ms; never negative for a proven optimum. None if such a run has no time: it left the line by itself, or never arrived.
    pub costs_ms: Option<f64>,
}

/// Finds the best plan for the car of a strip.
///
/// # Errors
/// See [`StripError`].
pub fn search(strip: &Strip) -> Result<Best, StripError> {
    let search = Search { strip, evaluations: AtomicU64::new(0) };
    let mut known = search.by_rpm()?;
    let mut rounds = 0;
    loop {
        while rounds < ROUNDS_MAX && search.improve(&mut known)? {
            rounds += 1;
        }
        let (optimum, better) = search.neighbours(&known)?;
        match better {
            // Its way was given up too early before: rare, and then the search goes on from there.
            Some(better) if rounds < ROUNDS_MAX => {
                rounds += 1;
                known = better;
            }
            _ => {
                let run = strip.run(&known.plan())?;
                search.count(1);
                if run.elapsed_s != known.elapsed_s {
                    return Err(strip.two_ways(known.elapsed_s, run.elapsed_s));
                }
                return Ok(Best { run, evaluations: search.evaluations.into_inner(), optimum });
            }
        }
    }
}

/// What a plan has beside its shifts, in whole steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tune {
    /// In steps of [`LAUNCH_STEP_RPM`].
    pub(super) launch: i32,
    /// In steps of a [`GRIP_STEPS`]th.
    pub(super) grip: i32,
}

impl Tune {
    pub(super) fn of(plan: &RunPlan) -> Self {
        Self {
            launch: (plan.launch_rpm / f64::from(LAUNCH_STEP_RPM)).round() as i32,
            grip: (plan.grip_use * f64::from(GRIP_STEPS)).round() as i32,
        }
    }

    pub(super) fn launch_rpm(self) -> f64 {
        f64::from(self.launch * LAUNCH_STEP_RPM)
    }

    pub(super) fn grip_use(self) -> f64 {
        f64::from(self.grip) / f64::from(GRIP_STEPS)
    }

    fn by(self, launch: i32, grip: i32) -> Self {
        Self { launch: self.launch + launch, grip: self.grip + grip }
    }

    /// Whether a driver of this car can do it.
    pub(super) fn is_possible(self, car: &Car) -> bool {
        let launches = launches(car);
        GRIP_RANGE.contains(&self.grip) && launches.contains(&self.launch)
    }
}

/// Launch speeds of a car, in steps. One alone if it cannot rev at rest.
pub(super) fn launches(car: &Car) -> std::ops::RangeInclusive<i32> {
    if car.transmission == Transmission::SingleSpeed {
        return 0..=0;
    }
    let steps = |rpm: f64| rpm / f64::from(LAUNCH_STEP_RPM);
    steps(car.idle_rpm).ceil() as i32..=steps(car.limiter_rpm).floor() as i32
}

/// A plan, whether it was tried or not.
#[derive(Debug, Clone, PartialEq)]
struct Choice {
    tune: Tune,
    shift_ticks: Vec<u32>,
}

/// A plan that was run, with what helps to run others like it.
struct Known {
    tune: Tune,
    shift_ticks: Vec<u32>,
    elapsed_s: f64,
    attempt: Attempt,
}

impl Known {
    fn plan(&self) -> RunPlan {
        RunPlan {
            launch_rpm: self.tune.launch_rpm(),
            grip_use: self.tune.grip_use(),
            shift_ticks: self.shift_ticks.clone(),
        }
    }

    fn reach(&self, lag_max_s: f64) -> Reach<'_> {
        Reach { against: &self.attempt.trace, rollout_s: self.attempt.rollout_s.unwrap_or(0.0), lag_max_s }
    }

    /// The last state that a run with these shifts has in common with this one.
    fn point(&self, shift_ticks: &[u32]) -> Option<&Point> {
        let same = self.shift_ticks.iter().zip(shift_ticks).take_while(|(one, other)| one == other).count();
        let first = [&self.shift_ticks, shift_ticks].iter().filter_map(|ticks| ticks.get(same)).min().copied();
        self.attempt.points.iter().rev().find(|point| first.is_none_or(|first| point.tick <= first))
    }
}

struct Search<'a> {
    strip: &'a Strip,
    evaluations: AtomicU64,
}

impl Search<'_> {
    /// The best with changes of gear at engine speeds.
    fn by_rpm(&self) -> Result<Known, StripError> {
        let car = self.strip.car();
        let advised = (car.launch_rpm / f64::from(LAUNCH_STEP_RPM)).round() as i32;
        let launches = launches(car);
        let mut tune = Tune { launch: advised.clamp(*launches.start(), *launches.end()), grip: GRIP_ADVISED };
        let gears = usize::from(car.top_gear()).saturating_sub(1);

        // One speed for all gears.
        let speeds: Vec<Vec<f64>> = std::iter::once(car.shift_rpm)
            .chain((0..=12).map(|step| car.limiter_rpm * (1.0 - 0.025 * f64::from(step))))
            .map(|rpm| vec![rpm; gears])
            .collect();
        let ends_with = |tune: Tune| {
            let start = self.strip.launch(tune.launch_rpm(), tune.grip_use())?;
            self.all(&speeds, |rpms| self.strip.attempt(&start, Shifts::AtRpm(rpms), None, false))
        };
        let mut ends = ends_with(tune)?;
        if best(&ends).is_none() {
            // The advice may be more than the brake holds.
            tune.launch = *launches.start();
            ends = ends_with(tune)?;
        }
        let (_, at) = best(&ends).ok_or_else(|| self.strip.never_arrives())?;
        let mut rpms = speeds.into_iter().nth(at).unwrap_or_default();
        let mut known = self.run_at_rpm(tune, &rpms)?;

        for (launch_reach, launch_step, grip_reach, grip_step) in [(i32::MAX, 5, 20, 4), (10, 1, 4, 2)] {
            // Launch speed and grip, together: what the one should be depends on the other.
            let tunes: Vec<Tune> = launches
                .clone()
                .filter(|launch| launch.abs_diff(tune.launch) <= launch_reach.unsigned_abs())
                .filter(|launch| (launch - tune.launch) % launch_step == 0)
                .flat_map(|launch| {
                    let grips = (-grip_reach..=grip_reach).step_by(grip_step as usize);
                    grips.map(move |grip| Tune { launch, grip: tune.grip + grip })
                })
                .filter(|tune| tune.is_possible(car))
                .collect();
            let ends = self.all(&tunes, |tune| {
                let start = self.strip.launch(tune.launch_rpm(), tune.grip_use())?;
                self.strip.attempt(&start, Shifts::AtRpm(&rpms), Some(known.reach(COARSE_LAG_MAX_S)), false)
            })?;
            if let Some((_, better)) = best(&ends).filter(|(elapsed_s, _)| *elapsed_s < known.elapsed_s) {
                tune = tunes.get(better).copied().unwrap_or(tune);
                known = self.run_at_rpm(tune, &rpms)?;
            }
            // Each gear's own speed, first gear first.
            let start = self.strip.launch(tune.launch_rpm(), tune.grip_use())?;
            for gear in 0..known.shift_ticks.len() {
                let speeds: Vec<Vec<f64>> = (0..=18)
                    .map(|step| {
                        let mut speeds = rpms.clone();
                        if let Some(rpm) = speeds.get_mut(gear) {
                            *rpm = car.limiter_rpm * (1.0 - 0.025 * f64::from(step));
                        }
                        speeds
                    })
                    .collect();
                let ends = self.all(&speeds, |rpms| {
                    // From where the gear before was changed.
                    let changed = gear.checked_sub(1).and_then(|before| known.shift_ticks.get(before)).copied();
                    let from = known.attempt.points.iter().rev().find(|point| point.tick <= changed.unwrap_or(0));
                    let from = from.unwrap_or(&start);
                    self.strip.attempt(from, Shifts::AtRpm(rpms), Some(known.reach(COARSE_LAG_MAX_S)), false)
                })?;
                if let Some((_, better)) = best(&ends).filter(|(elapsed_s, _)| *elapsed_s < known.elapsed_s) {
                    rpms = speeds.into_iter().nth(better).unwrap_or(rpms);
                    known = self.run_at_rpm(tune, &rpms)?;
                }
            }
        }
        let choice = Choice { tune, shift_ticks: known.shift_ticks };
        self.known(choice)?.ok_or_else(|| self.strip.never_arrives())
    }

    /// Takes the best of many small changes, if one helps.
    fn improve(&self, known: &mut Known) -> Result<bool, StripError> {
        for choices in [small_changes(known, self.strip.car()), large_changes(known, self.strip.car())] {
            let ends = self.all(&choices, |choice| self.try_choice(known, choice))?;
            if let Some((_, better)) = best(&ends).filter(|(elapsed_s, _)| *elapsed_s < known.elapsed_s)
                && let Some(choice) = choices.get(better)
                && let Some(better) = self.known(choice.clone())?
            {
                *known = better;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn try_choice(&self, known: &Known, choice: &Choice) -> Result<Attempt, StripError> {
        let shifts = Shifts::AtTick(&choice.shift_ticks);
        let reach = Some(known.reach(FINE_LAG_MAX_S));
        match known.point(&choice.shift_ticks).filter(|_| choice.tune == known.tune) {
            Some(point) => self.strip.attempt(point, shifts, reach, false),
            None => {
                let start = self.strip.launch(choice.tune.launch_rpm(), choice.tune.grip_use())?;
                self.strip.attempt(&start, shifts, reach, false)
            }
        }
    }

    /// Runs all neighbours from the line to the end; the best of them, if one is quicker.
    fn neighbours(&self, known: &Known) -> Result<(LocalOptimum, Option<Known>), StripError> {
        let car = self.strip.car();
        let mut changes: Vec<(String, Choice)> = Vec::new();
        for at in 0..known.shift_ticks.len() {
            for (by, word) in [(-1, "earlier"), (1, "later")] {
                if let Some(shift_ticks) = moved(&known.shift_ticks, at, at + 1, by) {
                    let name = format!("shift {}-{} a tick {word}", at + 1, at + 2);
                    changes.push((name, Choice { tune: known.tune, shift_ticks }));
                }
            }
        }
        let steps = [(format!("launch {LAUNCH_STEP_RPM} rpm"), (1, 0)), ("grip 1 %".into(), (0, 1))];
        for (name, (launch, grip)) in steps {
            for (sign, word) in [(-1, "less"), (1, "more")] {
                let tune = known.tune.by(sign * launch, sign * grip);
                let choice = Choice { tune, shift_ticks: known.shift_ticks.clone() };
                changes.extend(tune.is_possible(car).then(|| (format!("{name} {word}"), choice)));
            }
        }
        let ends = self.all(&changes, |(_, choice)| {
            let start = self.strip.launch(choice.tune.launch_rpm(), choice.tune.grip_use())?;
            self.strip.attempt(&start, Shifts::AtTick(&choice.shift_ticks), None, false)
        })?;
        let better = match best(&ends).filter(|(elapsed_s, _)| *elapsed_s < known.elapsed_s) {
            Some((_, at)) => match changes.get(at) {
                Some((_, choice)) => self.known(choice.clone())?,
                None => None,
            },
            None => None,
        };
        let neighbours = changes
            .into_iter()
            .zip(&ends)
            .map(|((change, _), end)| Neighbour {
                change,
                costs_ms: end.elapsed_s().map(|elapsed_s| 1e3 * (elapsed_s - known.elapsed_s)),
            })
            .collect();
        Ok((LocalOptimum { proven: better.is_none(), neighbours }, better))
    }

    fn run_at_rpm(&self, tune: Tune, rpms: &[f64]) -> Result<Known, StripError> {
        self.count(1);
        let start = self.strip.launch(tune.launch_rpm(), tune.grip_use())?;
        let attempt = self.strip.attempt(&start, Shifts::AtRpm(rpms), None, true)?;
        let elapsed_s = attempt.end.elapsed_s().ok_or_else(|| self.strip.never_arrives())?;
        Ok(Known { tune, shift_ticks: attempt.shift_ticks.clone(), elapsed_s, attempt })
    }

    /// Runs a choice from the line and keeps what helps to run others like it.
    fn known(&self, choice: Choice) -> Result<Option<Known>, StripError> {
        self.count(1);
        let Choice { tune, mut shift_ticks } = choice;
        let start = self.strip.launch(tune.launch_rpm(), tune.grip_use())?;
        let attempt = self.strip.attempt(&start, Shifts::AtTick(&shift_ticks), None, true)?;
        // A change of gear after the finish line is none.
        shift_ticks.retain(|tick| (*tick as usize) < attempt.trace.len());
        Ok(attempt.end.elapsed_s().map(|elapsed_s| Known { tune, shift_ticks, elapsed_s, attempt }))
    }

    fn count(&self, runs: usize) {
        self.evaluations.fetch_add(runs as u64, Ordering::Relaxed);
    }

    /// Tries many on all cores; what came of each, in their order.
    fn all<T: Sync>(
        &self,
        tried: &[T],
        attempt: impl Fn(&T) -> Result<Attempt, StripError> + Sync,
    ) -> Result<Vec<End>, StripError> {
        self.count(tried.len());
        // All of them first: which of several errors is told must not depend on the threads.
        let ends: Vec<Result<End, StripError>> =
            tried.par_iter().map(|one| attempt(one).map(|attempt| attempt.end)).collect();
        ends.into_iter().collect()
    }
}

/// The smallest elapsed time and where it is; the first of equal ones.
fn best(ends: &[End]) -> Option<(f64, usize)> {
    let times = ends.iter().enumerate().filter_map(|(at, end)| Some((end.elapsed_s()?, at)));
    times.reduce(|best, other| if other.0 < best.0 { other } else { best })
}

/// The shifts with those of `from..to` moved by some ticks; none if that changes their order, or one would be before the launch.
fn moved(shift_ticks: &[u32], from: usize, to: usize, by: i32) -> Option<Vec<u32>> {
    let mut shift_ticks = shift_ticks.to_vec();
    for tick in shift_ticks.get_mut(from..to)? {
        *tick = tick.checked_add_signed(by)?;
    }
    shift_ticks.is_sorted().then_some(shift_ticks)
}

/// Shifts, launch and grip a little other, alone and together.
fn small_changes(known: &Known, car: &Car) -> Vec<Choice> {
    let ticks = &known.shift_ticks;
    let mut choices = Vec::new();
    for at in 0..ticks.len() {
        for by in [1, 2, 3, 5, 8, 13] {
            choices.extend([by, -by].into_iter().filter_map(|by| moved(ticks, at, at + 1, by)));
        }
        for by in [-2, -1, 1, 2] {
            choices.extend(moved(ticks, at, ticks.len(), by).filter(|_| at + 1 < ticks.len()));
        }
        for by in [-1, 1] {
            let pair = moved(ticks, at, at + 1, by).and_then(|ticks| moved(&ticks, at + 1, at + 2, -by));
            choices.extend(pair.filter(|_| at + 1 < ticks.len()));
        }
    }
    let mut choices: Vec<Choice> =
        choices.into_iter().map(|shift_ticks| Choice { tune: known.tune, shift_ticks }).collect();
    let tunes = [(1, 0), (2, 0), (3, 0), (5, 0), (8, 0), (0, 1), (0, 2), (0, 3), (1, 1), (1, -1), (2, 2), (2, -2)];
    for (launch, grip) in tunes {
        for sign in [1, -1] {
            let tune = known.tune.by(sign * launch, sign * grip);
            for by in [0, -1, 1] {
                let shift_ticks = moved(ticks, 0, ticks.len(), by).filter(|_| tune.is_possible(car));
                choices.extend(shift_ticks.map(|shift_ticks| Choice { tune, shift_ticks }));
            }
        }
    }
    choices
}

/// Gears left out, one gear less or more at the end.
fn large_changes(known: &Known, car: &Car) -> Vec<Choice> {
    let ticks = &known.shift_ticks;
    let mut choices: Vec<Vec<u32>> = Vec::new();
    for at in 0..ticks.len().saturating_sub(1) {
        let (Some(&first), Some(&second)) = (ticks.get(at), ticks.get(at + 1)) else { continue };
        // From the gear below straight to the one above, at some moments between.
        for part in 0..=4 {
            let tick = first + (second - first) * part / 4;
            let mut other = ticks.clone();
            if let Some(both) = other.get_mut(at..at + 2) {
                both.fill(tick);
            }
            choices.push(other);
        }
    }
    if let Some((_, fewer)) = ticks.split_last() {
        choices.push(fewer.to_vec());
    }
    if ticks.len() + 1 < usize::from(car.top_gear()) {
        let from = ticks.last().map_or(0, |last| last + MORE_GEARS_STEP_TICKS);
        for tick in (from..known.attempt.trace.len() as u32).step_by(MORE_GEARS_STEP_TICKS as usize) {
            choices.push(ticks.iter().copied().chain([tick]).collect());
        }
    }
    choices.into_iter().map(|shift_ticks| Choice { tune: known.tune, shift_ticks }).collect()
}

/// Ticks between the moments at which one gear more is tried.
const MORE_GEARS_STEP_TICKS: u32 = 10;
