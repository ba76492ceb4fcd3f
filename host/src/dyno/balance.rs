//! Balance: the smallest change that brings a car to its class's target. For each car that is off by more than
//! [`TOLERANCE_S`](super::classes::TOLERANCE_S) three ways are tried: ballast, power, final drive. Each is solved with quick runs (the best run's
//! launch and engine speeds, without a search) and then proven by a full search for the changed car, after which it is corrected if it must be.
//!
//! The smallest is the one that changes its own figure (mass, power, ratios) by the fewest percent: [`Candidate::size_percent`]. Figures change in
//! whole steps, so that they can be read and typed. `balance_file.rs` writes them into a car file.

use std::sync::Arc;

use drag_race::{Car, Torque};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::attempt::Shifts;
use super::classes::{Classes, TOLERANCE_S};
use super::error::{StripError, Work};
use super::search;
use super::sheet::{Sheet, shifts_rpm};
use super::strip::Strip;
use crate::rules::Module;

/// Ballast that may be put in, in kg: four heavy passengers and a full boot.
pub const BALLAST_KG_MAX: i32 = 500;
/// Mass that may be taken out, in kg: seats, trim and glass of a road car.
pub const BALLAST_KG_MIN: i32 = -150;
/// How far power may be changed, in thousandths: what a restrictor takes, and what an engine of the same kind gives.
pub const POWER_PERMILLE_MAX: i32 = 300;
/// How far the final drive may be changed, in thousandths: the range of ratios that fit into an axle.
pub const FINAL_DRIVE_PERMILLE_MAX: i32 = 300;
/// Steps between the changes that are looked at before the search goes into one interval. It holds the range's ends and no change at all.
const GRID_STEPS: usize = 50;
/// The same for the final drive: an elapsed time has a valley over it, and both its sides may reach the target.
const FINAL_DRIVE_GRID_STEPS: usize = 25;
/// Full searches for one candidate, at most: the quick runs are right to some hundredths of a second, and one correction is usual.
const SEARCHES_MAX: usize = 4;
/// How near the target a change is aimed at without another correction, in s: half the tolerance, so that the result is no borderline.
const AIM_S: f64 = TOLERANCE_S / 2.0;

/// What can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Mass, in kg more or less.
    Ballast,
    /// The whole torque curve, in thousandths more or less.
    Power,
    /// All ratios, in thousandths more or less.
    FinalDrive,
}

/// A change of a car.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What is changed.
    pub figure: Figure,
    /// By how much: kg, or thousandths.
    pub steps: i32,
}

/// One way to bring a car to its target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The change; none if nothing within the limits comes near the target.
    pub change: Option<Change>,
    /// What would be changed.
    pub figure: Figure,
    /// The change in percent of the car's own figure: of its mass, its power, its ratios.
    pub size_percent: Option<f64>,
    /// The changed car's best time, found by a full search, in s.
    pub after_s: Option<f64>,
    /// Whether that is within the tolerance of the target.
    pub reaches: bool,
    /// Why it does not reach the target, in words.
    pub problem: Option<String>,
}

/// What is proposed for a car that is off its class's target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// Its id in the car file.
    pub car_id: String,
    /// Its class.
    pub class: String,
    /// The class's target, in s.
    pub target_s: f64,
    /// The car's best time now, in s.
    pub before_s: f64,
    /// All ways that were tried: ballast, power, final drive.
    pub candidates: Vec<Candidate>,
    /// The one to take: of those that reach the target the smallest. None if the target cannot be reached within the limits.
    pub chosen: Option<Candidate>,
}

impl Change {
    /// The changed car.
    #[must_use]
    pub fn applied(self, car: &Car) -> Car {
        let share = 1.0 + f64::from(self.steps) / 1_000.0;
        let mut car = car.clone();
        match self.figure {
            Figure::Ballast => car.mass_kg += f64::from(self.steps),
            Figure::Power => {
                car.torque_nm =
                    Torque::new(car.torque_nm.points().iter().map(|[rpm, nm]| [*rpm, nm * share]).collect());
                car.peak_torque_nm *= share;
                car.peak_power_kw *= share;
            }
            Figure::FinalDrive => car.ratios = car.ratios.iter().map(|ratio| ratio * share).collect(),
        }
        car
    }

    /// The change in percent of the car's own figure.
    #[must_use]
    pub fn size_percent(self, car: &Car) -> f64 {
        let steps = f64::from(self.steps.abs());
        match self.figure {
            Figure::Ballast => 100.0 * steps / car.mass_kg,
            Figure::Power | Figure::FinalDrive => steps / 10.0,
        }
    }

    /// The change in words: `+37 kg of ballast`.
    #[must_use]
    pub fn words(self) -> String {
        let percent = f64::from(self.steps) / 10.0;
        match self.figure {
            Figure::Ballast if self.steps < 0 => format!("{} kg of mass", self.steps),
            Figure::Ballast => format!("{:+} kg of ballast", self.steps),
            Figure::Power => format!("{percent:+.1} % of power"),
            Figure::FinalDrive => format!("{percent:+.1} % of final drive"),
        }
    }
}

impl Figure {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 3] = [Self::Ballast, Self::Power, Self::FinalDrive];

    /// Its name: `final drive`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ballast => "ballast",
            Self::Power => "power",
            Self::FinalDrive => "final drive",
        }
    }

    fn range(self) -> std::ops::RangeInclusive<i32> {
        match self {
            Self::Ballast => BALLAST_KG_MIN..=BALLAST_KG_MAX,
            Self::Power => -POWER_PERMILLE_MAX..=POWER_PERMILLE_MAX,
            Self::FinalDrive => -FINAL_DRIVE_PERMILLE_MAX..=FINAL_DRIVE_PERMILLE_MAX,
        }
    }

    /// Steps between which the elapsed time only rises or only falls, near enough.
    fn grid(self) -> Vec<i32> {
        let range = self.range();
        match self {
            Self::Ballast | Self::Power => range.step_by(GRID_STEPS).collect(),
            Self::FinalDrive => range.step_by(FINAL_DRIVE_GRID_STEPS).collect(),
        }
    }

    fn limits(self) -> String {
        match self {
            Self::Ballast => format!("{BALLAST_KG_MIN} to +{BALLAST_KG_MAX} kg"),
            Self::Power => format!("±{} % of power", POWER_PERMILLE_MAX / 10),
            Self::FinalDrive => format!("±{} % of final drive", FINAL_DRIVE_PERMILLE_MAX / 10),
        }
    }
}

/// Proposes a change for each car that is off its class's target by more than the tolerance. Takes some seconds per car.
///
/// # Errors
/// See [`StripError`]: that of a run of a changed car.
pub fn balance(
    module: &Arc<Module>,
    cars: &[Arc<Car>],
    sheets: &[Sheet],
    classes: &Classes,
    work: &Arc<Work>,
) -> Result<Vec<Proposal>, StripError> {
    let mut proposals = Vec::new();
    for (car, sheet) in cars.iter().zip(sheets) {
        let Some(class) = classes.of_car(&car.id) else { continue };
        let before_s = sheet.best.run.elapsed_s;
        if (before_s - class.target_s).abs() <= TOLERANCE_S {
            continue;
        }
        let bench = Bench { module, work, car, sheet, target_s: class.target_s };
        let candidates: Vec<Candidate> =
            Figure::ALL.iter().map(|figure| bench.candidate(*figure)).collect::<Result<_, _>>()?;
        let size = |candidate: &&Candidate| candidate.size_percent.unwrap_or(f64::INFINITY);
        let reaching = candidates.iter().filter(|candidate| candidate.reaches);
        proposals.push(Proposal {
            car_id: car.id.to_string(),
            class: class.name.clone(),
            target_s: class.target_s,
            before_s,
            chosen: reaching.min_by(|a, b| size(a).total_cmp(&size(b))).cloned(),
            candidates,
        });
    }
    Ok(proposals)
}

/// A car on its way to a target.
struct Bench<'a> {
    module: &'a Arc<Module>,
    work: &'a Arc<Work>,
    car: &'a Arc<Car>,
    sheet: &'a Sheet,
    target_s: f64,
}

/// An elapsed time of the car with so many steps of change, in s.
type Point = (i32, f64);

impl Bench<'_> {
    fn candidate(&self, figure: Figure) -> Result<Candidate, StripError> {
        let mut candidate =
            Candidate { change: None, figure, size_percent: None, after_s: None, reaches: false, problem: None };
        // The quick run of the unchanged car is later than its best by so much; so, near enough, are those of changed ones.
        let Some(quick_s) = self.quick_s(Change { figure, steps: 0 })? else {
            candidate.problem = Some("its shift table alone does not bring it to the finish line".into());
            return Ok(candidate);
        };
        let late_s = quick_s - self.sheet.best.run.elapsed_s;
        let grid: Vec<Result<Option<Point>, StripError>> =
            figure.grid().into_par_iter().map(|steps| self.point(figure, steps, late_s)).collect();
        let grid: Vec<Option<Point>> = grid.into_iter().collect::<Result<_, _>>()?;
        let Some((low, high)) = self.nearest_interval(&grid) else {
            let nearest = grid.iter().flatten().min_by(|a, b| self.off_s(**a).abs().total_cmp(&self.off_s(**b).abs()));
            let nearest =
                nearest.map_or_else(String::new, |(_, time_s)| format!(", which comes to {time_s:.2} s at best"));
            candidate.problem = Some(format!("out of reach within {}{nearest}", figure.limits()));
            return Ok(candidate);
        };
        let (mut steps, slope) = self.solve(figure, low, high, late_s)?;
        let mut nearest: Option<Point> = None;
        for _ in 0..SEARCHES_MAX {
            let change = Change { figure, steps };
            let after_s = self.searched_s(change)?;
            if nearest.is_none_or(|nearest| self.off_s((steps, after_s)).abs() < self.off_s(nearest).abs()) {
                nearest = Some((steps, after_s));
            }
            let off_s = self.off_s((steps, after_s));
            let range = figure.range();
            let next = steps.saturating_sub((off_s / slope).round() as i32).clamp(*range.start(), *range.end());
            if off_s.abs() <= AIM_S || next == steps || !self.is_accepted(Change { figure, steps: next }) {
                break;
            }
            steps = next;
        }
        if let Some((steps, after_s)) = nearest {
            let change = Change { figure, steps };
            candidate.change = Some(change);
            candidate.size_percent = Some(change.size_percent(self.car));
            candidate.after_s = Some(after_s);
            candidate.reaches = self.off_s((steps, after_s)).abs() <= TOLERANCE_S;
            if !candidate.reaches {
                candidate.problem = Some(format!("comes to {after_s:.3} s and no nearer"));
            }
        }
        Ok(candidate)
    }

    fn off_s(&self, (_, time_s): Point) -> f64 {
        time_s - self.target_s
    }

    fn is_accepted(&self, change: Change) -> bool {
        change.applied(self.car).check().is_ok()
    }

    /// What a changed car's best time will be, by a quick run; none if such a car is not accepted or does not arrive.
    fn point(&self, figure: Figure, steps: i32, late_s: f64) -> Result<Option<Point>, StripError> {
        let time_s = self.quick_s(Change { figure, steps })?;
        Ok(time_s.map(|time_s| (steps, time_s - late_s)))
    }

    /// Of the intervals with the target inside the one with the least change. Where a car is not accepted an interval ends.
    fn nearest_interval(&self, grid: &[Option<Point>]) -> Option<(Point, Point)> {
        let pairs = grid.iter().zip(grid.iter().skip(1)).filter_map(|(low, high)| Some(((*low)?, (*high)?)));
        let inside = pairs.filter(|(low, high)| (self.off_s(*low) > 0.0) != (self.off_s(*high) > 0.0));
        inside.min_by_key(|((low, _), (high, _))| low.abs().min(high.abs()))
    }

    /// Halves the interval down to one step: the step nearer to the target, and the slope in s per step over the interval's last part that is
    /// wide enough to tell one.
    fn solve(&self, figure: Figure, low: Point, high: Point, late_s: f64) -> Result<(i32, f64), StripError> {
        /// Steps over which a slope is told: less, and the ticks of shifts show.
        const SLOPE_STEPS: i32 = 20;
        let (mut low, mut high) = (low, high);
        let mut slope = (high.1 - low.1) / f64::from(high.0 - low.0);
        while high.0 - low.0 > 1 {
            let middle = low.0 + (high.0 - low.0) / 2;
            let Some(point) = self.point(figure, middle, late_s)? else { break };
            if (self.off_s(point) > 0.0) == (self.off_s(low) > 0.0) {
                low = point
            } else {
                high = point
            }
            if high.0 - low.0 >= SLOPE_STEPS && high.1 != low.1 {
                slope = (high.1 - low.1) / f64::from(high.0 - low.0);
            }
        }
        let nearer = if self.off_s(low).abs() <= self.off_s(high).abs() { low } else { high };
        Ok((nearer.0, slope))
    }

    /// The elapsed time with the best run's launch and its engine speeds for changing up, in s.
    fn quick_s(&self, change: Change) -> Result<Option<f64>, StripError> {
        let car = change.applied(self.car);
        if car.check().is_err() {
            return Ok(None);
        }
        let strip = Strip::open(self.module, &Arc::new(car), self.work)?;
        let plan = &self.sheet.best.run.plan;
        let start = strip.launch(plan.launch_rpm, plan.grip_use)?;
        let speeds = shifts_rpm(&self.sheet.shift_table);
        Ok(strip.attempt(&start, Shifts::AtRpm(&speeds), None, false)?.end.elapsed_s())
    }

    /// The best time of a changed car, in s.
    fn searched_s(&self, change: Change) -> Result<f64, StripError> {
        let strip = Strip::open(self.module, &Arc::new(change.applied(self.car)), self.work)?;
        Ok(search::search(&strip)?.run.elapsed_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dyno::classes::{Class, Member, Method};
    use crate::dyno::drivers::{self, Draw};
    use crate::rules::{DRAG_RACE_WASM, Engine, EngineSettings, ModuleStore};

    fn module() -> Arc<Module> {
        let engine = Engine::new(EngineSettings { instances_max: 64, ..EngineSettings::default() }).unwrap();
        ModuleStore::new(engine, None).unwrap().load(DRAG_RACE_WASM).unwrap()
    }

    /// A class of these cars that wants a time of them.
    fn class(cars: &[Arc<Car>], sheets: &[Sheet], target_s: f64) -> Classes {
        let member = |(car, sheet): (&Arc<Car>, &Sheet)| Member {
            car_id: car.id.to_string(),
            quarter_mile_s: sheet.best.run.elapsed_s,
            off_s: sheet.best.run.elapsed_s - target_s,
            out_of_place: true,
        };
        let class = Class { name: "test".into(), target_s, members: cars.iter().zip(sheets).map(member).collect() };
        Classes { method: Method::Index, classes: vec![class] }
    }

    #[test]
    fn a_proposal_reaches_its_target_in_another_search_and_what_cannot_be_reached_is_told() {
        let (module, work) = (module(), Arc::new(Work::default()));
        // It has one gear, so a search is quick.
        let cars = [Arc::new(drag_race::find_car("model_3p").unwrap().1.clone())];
        let strip = Strip::open(&module, &cars[0], &work).unwrap();
        let sheets = [Sheet::new(&strip, search::search(&strip).unwrap()).unwrap()];
        let before_s = sheets[0].best.run.elapsed_s;
        let proposals =
            |target_s: f64| balance(&module, &cars, &sheets, &class(&cars, &sheets, target_s), &work).unwrap();

        assert_eq!(proposals(before_s + 0.9 * TOLERANCE_S), []);
        let target_s = before_s + 0.2;
        let [proposal] = proposals(target_s).try_into().unwrap();
        let chosen = proposal.chosen.clone().unwrap();
        assert_eq!(proposal.candidates.iter().map(|one| one.figure).collect::<Vec<_>>(), Figure::ALL);
        for candidate in proposal.candidates.iter().filter(|candidate| candidate.reaches) {
            assert!(chosen.size_percent <= candidate.size_percent);
            let changed = Arc::new(candidate.change.unwrap().applied(&cars[0]));
            let again = search::search(&Strip::open(&module, &changed, &work).unwrap()).unwrap().run.elapsed_s;
            assert_eq!(Some(again), candidate.after_s);
            assert!((again - target_s).abs() <= TOLERANCE_S, "{candidate:?}");
        }

        // No car of its kind gets there.
        let [proposal] = proposals(8.0).try_into().unwrap();
        assert_eq!(proposal.chosen, None);
        for candidate in &proposal.candidates {
            assert!(!candidate.reaches);
            let problem = candidate.problem.clone().unwrap();
            assert!(problem.contains("out of reach within") && problem.contains("s at best"), "{problem}");
        }

        // The same seed gives the same drivers, with any number of threads.
        let classes = class(&cars, &sheets, before_s);
        let drive = |threads: usize, seed: u64| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let draw = Draw { skill: 0.3, runs: 8, seed };
            pool.install(|| drivers::drive(&module, &cars, &sheets, &classes, draw, &work)).unwrap()
        };
        assert_eq!(drive(1, 5), drive(3, 5));
        assert_ne!(drive(1, 5), drive(1, 6));
    }

    #[test]
    fn a_change_is_measured_and_told() {
        let car = drag_race::find_car("mx5").unwrap().1;
        let ballast = Change { figure: Figure::Ballast, steps: 113 };
        assert!((ballast.applied(car).mass_kg - car.mass_kg - 113.0).abs() < 1e-9);
        assert!((ballast.size_percent(car) - 100.0 * 113.0 / car.mass_kg).abs() < 1e-9);
        assert_eq!(ballast.words(), "+113 kg of ballast");
        let power = Change { figure: Figure::Power, steps: -57 };
        let changed = power.applied(car);
        assert!((changed.peak_power_kw / car.peak_power_kw - 0.943).abs() < 1e-9 && changed.check().is_ok());
        assert_eq!((power.size_percent(car), power.words()), (5.7, "-5.7 % of power".into()));
        assert!(
            changed
                .torque_nm
                .points()
                .iter()
                .zip(car.torque_nm.points())
                .all(|([_, after], [_, before])| after < before)
        );
        let axle = Change { figure: Figure::FinalDrive, steps: 20 };
        assert!((axle.applied(car).ratios[2] / car.ratios[2] - 1.02).abs() < 1e-9);
        for figure in Figure::ALL {
            let grid = figure.grid();
            assert!(
                grid.contains(&0)
                    && grid.first() == Some(figure.range().start())
                    && grid.last() == Some(figure.range().end())
            );
        }
    }
}
