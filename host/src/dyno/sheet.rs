//! The sheet of one car: everything that is told of it, made from its best run. Tables, CSV, JSON and pictures are made from it.

use drag_race::physics::{road_load_n, torque_at};
use drag_race::timing::MPH_MPS;
use drag_race::{Aspiration, Car, Drive, EngineAt, Transmission};
use serde::{Deserialize, Serialize};

use super::attempt::{RPM_PER_RAD_S, Shifts};
use super::error::StripError;
use super::limits::AT_LIMITER_RPM;
pub use super::limits::{Limit, LimitPhase, Limits};
use super::search::Best;
use super::strip::{Run, Sample, Strip};

/// Engine and gearbox turn as one when their speeds differ by less than this share.
const COUPLED_SHARE: f64 = 0.02;
/// Steps in which the end of a gear is looked for, from its limiter down: half a km/h in the longest gears.
const TOP_STEPS: u32 = 1_000;
/// By how much the changes of gear are moved to see how forgiving a car is, in rpm.
pub const SHIFT_OFFS_RPM: [i32; 6] = [-500, -300, -100, 100, 300, 500];
/// Kilometres per hour in one m/s.
pub(super) const KMH_PER_MPS: f64 = 3.6;

/// What the dyno tells of one car.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sheet {
    /// Which car.
    pub car: CarFacts,
    /// Its best run, how it was found and what its neighbours give.
    pub best: Best,
    /// The clocks along the strip.
    pub splits: Splits,
    /// From rest to 100 km/h; none if the car does not reach it within the quarter mile.
    pub zero_to_100_kmh: Option<ZeroTo>,
    /// From rest to 60 mph; none if the car does not reach it within the quarter mile.
    pub zero_to_60_mph: Option<ZeroTo>,
    /// Engine speed to leave the line with, as the tachometer shows it, in rpm; none for a car that cannot rev at rest.
    pub launch_rpm: Option<f64>,
    /// When to change up.
    pub shift_table: Vec<ShiftRow>,
    /// The end of each gear.
    pub top_of_gear: Vec<TopOfGear>,
    /// What it costs to change up early or late.
    pub forgiving: Vec<Forgiving>,
    /// What limits the car when.
    pub limits: Limits,
    /// Beside the published test; none for a car without one.
    pub published: Option<Published>,
}

/// Which car.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CarFacts {
    /// Its id in the car file and in a race's setup.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Its model year.
    pub year: u16,
    /// Driven wheels, engine and gearbox in words: `RWD, turbo, manual`.
    pub layout: String,
    /// Mass with driver, in kg.
    pub mass_kg: f64,
    /// Rated power, in kW.
    pub peak_power_kw: f64,
    /// Rated torque, in Nm.
    pub peak_torque_nm: f64,
}

/// The clocks along the strip, from the free start beam. Speeds are means over the 66 ft before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Splits {
    /// To 60 ft, in s.
    pub sixty_foot_s: f64,
    /// To 330 ft, in s.
    pub three_thirty_foot_s: f64,
    /// To the eighth mile, in s.
    pub eighth_mile_s: f64,
    /// Trap speed of the eighth mile, in mph.
    pub eighth_mile_mph: f64,
    /// The same in km/h.
    pub eighth_mile_kmh: f64,
    /// To 1000 ft, in s.
    pub thousand_foot_s: f64,
    /// To the quarter mile, in s: the elapsed time.
    pub quarter_mile_s: f64,
    /// Trap speed of the quarter mile, in mph.
    pub quarter_mile_mph: f64,
    /// The same in km/h.
    pub quarter_mile_kmh: f64,
}

/// Time from rest to a speed, by the two ways in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ZeroTo {
    /// As magazines in the USA measure: the clock starts one foot down the strip, in s.
    pub with_rollout_s: f64,
    /// From the launch, the moment in which the left foot comes up, in s.
    pub from_rest_s: f64,
}

/// One change of gear.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ShiftRow {
    /// From this gear.
    pub from_gear: u8,
    /// To this gear.
    pub to_gear: u8,
    /// Engine speed at which it is asked for, in rpm.
    pub rpm: f64,
    /// Speed then, in km/h.
    pub kmh: f64,
    /// Time then, from the launch, in s.
    pub time_s: f64,
    /// The same in ticks.
    pub tick: u32,
    /// Engine speed in the new gear, once the clutch holds, in rpm; none if it does not before the finish.
    pub rpm_after: Option<f64>,
}

/// The end of a gear.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TopOfGear {
    /// The gear.
    pub gear: u8,
    /// The highest speed in it without slip that it can hold, in km/h.
    pub kmh: f64,
    /// The same in mph.
    pub mph: f64,
    /// Engine speed then, in rpm: that of the limiter, or less where air and rolling resistance end the gear earlier.
    pub rpm: f64,
    /// Whether it is the limiter that ends it.
    pub at_limiter: bool,
    /// Whether the best run uses the gear.
    pub used: bool,
}

/// What it costs to make every change of gear early or late.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Forgiving {
    /// How far all changes are moved, in rpm: -500, -300, -100, 100, 300 or 500.
    pub shift_off_rpm: i32,
    /// What it costs, in ms; none if the limiter keeps the engine from that speed.
    pub penalty_ms: Option<f64>,
    /// The gear in which the limiter stood in the way.
    pub limiter_in_gear: Option<u8>,
}

/// The best run beside a published test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Published time over the quarter mile, in s.
    pub quarter_mile_s: f64,
    /// Published trap speed, in mph.
    pub trap_mph: f64,
    /// The dyno's time over the published one, less 1, in percent.
    pub time_off_percent: f64,
    /// The same for the trap speed.
    pub speed_off_percent: f64,
}

impl Sheet {
    /// Makes the sheet of a car from its best run. Runs the car some more times, to see how forgiving it is.
    ///
    /// # Errors
    /// See [`StripError`].
    pub fn new(strip: &Strip, best: Best) -> Result<Self, StripError> {
        let car = strip.car();
        let splits = Splits::of(&best.run).ok_or_else(|| strip.no_split())?;
        let used = best.run.trace.iter().map(|sample| sample.gear).max().unwrap_or(1);
        Ok(Self {
            car: CarFacts::of(car),
            splits,
            zero_to_100_kmh: ZeroTo::of(&best.run, 100.0 / KMH_PER_MPS),
            zero_to_60_mph: ZeroTo::of(&best.run, 60.0 * MPH_MPS),
            launch_rpm: (car.transmission != Transmission::SingleSpeed).then_some(f64::from(best.run.launch_rpm)),
            shift_table: shift_table(car, &best.run, strip.tick_s()),
            top_of_gear: (1..=car.top_gear()).map(|gear| TopOfGear::of(car, gear, gear <= used)).collect(),
            forgiving: forgiving(strip, &best.run)?,
            limits: Limits::of(car, &best.run),
            published: Published::of(car, &splits),
            best,
        })
    }
}

impl CarFacts {
    /// The facts of a car.
    #[must_use]
    pub fn of(car: &Car) -> Self {
        Self {
            id: car.id.to_string(),
            name: car.name.to_string(),
            year: car.year,
            layout: layout(car),
            mass_kg: car.mass_kg,
            peak_power_kw: car.peak_power_kw,
            peak_torque_nm: car.peak_torque_nm,
        }
    }
}

/// Driven wheels, engine and gearbox in words.
fn layout(car: &Car) -> String {
    let drive = match car.drive {
        Drive::Fwd => "FWD",
        Drive::Rwd => "RWD",
        Drive::Awd => "AWD",
    };
    let engine_at = match car.engine_at {
        EngineAt::Front => "",
        EngineAt::Mid => " mid engine",
        EngineAt::Rear => " rear engine",
    };
    let aspiration = match car.aspiration {
        Aspiration::Natural => "natural",
        Aspiration::Turbo => "turbo",
        Aspiration::Supercharged => "supercharged",
        Aspiration::Electric => return format!("{drive}, electric"),
    };
    let gearbox = match car.transmission {
        Transmission::Manual => "manual",
        Transmission::Dct => "dual clutch",
        Transmission::Automatic { .. } => "automatic",
        Transmission::SingleSpeed => "single speed",
    };
    format!("{drive}{engine_at}, {aspiration}, {gearbox}")
}

impl Splits {
    /// None if the slip is not whole.
    fn of(run: &Run) -> Option<Self> {
        let slip = &run.slip;
        Some(Self {
            sixty_foot_s: slip.sixty_foot_s?,
            three_thirty_foot_s: slip.three_thirty_foot_s?,
            eighth_mile_s: slip.eighth_mile_s?,
            eighth_mile_mph: slip.eighth_mile_mph?,
            eighth_mile_kmh: kmh(slip.eighth_mile_mps?),
            thousand_foot_s: slip.thousand_foot_s?,
            quarter_mile_s: slip.quarter_mile_s?,
            quarter_mile_mph: slip.quarter_mile_mph?,
            quarter_mile_kmh: kmh(slip.quarter_mile_mps?),
        })
    }
}

fn kmh(mps: f64) -> f64 {
    mps * KMH_PER_MPS
}

impl ZeroTo {
    fn of(run: &Run, speed_mps: f64) -> Option<Self> {
        let at = run.trace.iter().position(|sample| f64::from(sample.speed_mps) >= speed_mps)?;
        let after = run.trace.get(at)?;
        let (from_s, from_mps) = at
            .checked_sub(1)
            .and_then(|before| run.trace.get(before))
            .map_or((0.0, 0.0), |sample| (sample.time_s, f64::from(sample.speed_mps)));
        let share = (speed_mps - from_mps) / (f64::from(after.speed_mps) - from_mps);
        let from_rest_s = from_s + share * (after.time_s - from_s);
        Some(Self { with_rollout_s: from_rest_s - run.rollout_s, from_rest_s })
    }
}

/// Engine speed that goes with the tread's speed in a gear, in rpm.
fn rpm_of_tread(car: &Car, tread_mps: f64, gear: u8) -> f64 {
    let ratio = car.ratios.get(usize::from(gear).wrapping_sub(1)).copied().unwrap_or(1.0);
    tread_mps / car.tyre_radius_m * ratio * RPM_PER_RAD_S
}

fn shift_table(car: &Car, run: &Run, tick_s: f64) -> Vec<ShiftRow> {
    let mut rows: Vec<ShiftRow> = Vec::new();
    let ticks = &run.plan.shift_ticks;
    for (at, &tick) in ticks.iter().enumerate() {
        // Of changes at one tick the last counts: gears between are left out.
        if ticks.get(at + 1) == Some(&tick) {
            continue;
        }
        let to_gear = u8::try_from(at + 2).unwrap_or(u8::MAX);
        // What the driver sees as it asks is the end of the tick before.
        let Some(seen) = (tick as usize).checked_sub(1).and_then(|before| run.trace.get(before)) else { continue };
        let holds = |sample: &&Sample| {
            let wheels_rpm = rpm_of_tread(car, f64::from(sample.tread_mps), to_gear);
            let off = (f64::from(sample.rpm) / wheels_rpm - 1.0).abs();
            sample.gear == to_gear && !sample.shifting && off < COUPLED_SHARE
        };
        rows.push(ShiftRow {
            from_gear: seen.gear,
            to_gear,
            rpm: f64::from(seen.rpm),
            kmh: kmh(f64::from(seen.speed_mps)),
            time_s: f64::from(tick) * tick_s,
            tick,
            rpm_after: run.trace.get(tick as usize..).into_iter().flatten().find(holds).map(|s| f64::from(s.rpm)),
        });
    }
    rows
}

impl TopOfGear {
    fn of(car: &Car, gear: u8, used: bool) -> Self {
        let rpm_per_mps = rpm_of_tread(car, 1.0, gear);
        let limiter_mps = car.limiter_rpm / rpm_per_mps;
        let pulls = |speed_mps: f64| {
            let wheels_n = torque_at(car, speed_mps * rpm_per_mps) * rpm_per_mps / RPM_PER_RAD_S;
            wheels_n * car.driveline_efficiency >= road_load_n(car, speed_mps)
        };
        // From the limiter down: of several speeds at which the forces are equal the highest counts.
        let steps = (0..=TOP_STEPS).rev().map(|step| limiter_mps * f64::from(step) / f64::from(TOP_STEPS));
        let at_limiter = pulls(limiter_mps);
        let mps = steps.into_iter().find(|speed_mps| pulls(*speed_mps)).unwrap_or(0.0);
        Self {
            gear,
            kmh: kmh(mps),
            mph: mps / MPH_MPS,
            rpm: if at_limiter { car.limiter_rpm } else { mps * rpm_per_mps },
            at_limiter,
            used,
        }
    }

    /// The end of the gear in which the car is fastest, used or not.
    pub(super) fn of_car(car: &Car) -> Self {
        let first = Self::of(car, 1, false);
        (2..=car.top_gear())
            .map(|gear| Self::of(car, gear, false))
            .fold(first, |best, next| if next.kmh > best.kmh { next } else { best })
    }
}

/// The engine speed at which each gear is left, first gear first, for [`Shifts::AtRpm`]: less than any for a gear that is left out.
pub(super) fn shifts_rpm(shift_table: &[ShiftRow]) -> Vec<f64> {
    let last = shift_table.last().map_or(1, |row| row.to_gear);
    let speed =
        |gear: u8| shift_table.iter().find(|row| row.from_gear == gear).map_or(f64::NEG_INFINITY, |row| row.rpm);
    (1..last).map(speed).collect()
}

/// Changes every gear as soon as the tachometer shows so much more or less than it shows at the best moment.
fn forgiving(strip: &Strip, run: &Run) -> Result<Vec<Forgiving>, StripError> {
    let car = strip.car();
    let table = shift_table(car, run, strip.tick_s());
    if table.is_empty() {
        return Ok(Vec::new());
    }
    let one = |shift_off_rpm: i32| {
        let speeds: Vec<f64> = shifts_rpm(&table).into_iter().map(|rpm| rpm + f64::from(shift_off_rpm)).collect();
        let start = strip.launch(run.plan.launch_rpm, run.plan.grip_use)?;
        let attempt = strip.attempt(&start, Shifts::AtRpm(&speeds), None, true)?;
        // The gear in which it stayed to the end, although it should have left it.
        let last = u8::try_from(attempt.shift_ticks.len() + 1).unwrap_or(u8::MAX);
        let should_leave = table.iter().any(|row| row.from_gear == last);
        let at_limiter =
            |sample: &Sample| sample.gear == last && f64::from(sample.rpm) >= car.limiter_rpm - AT_LIMITER_RPM;
        let limiter_in_gear = (should_leave && attempt.trace.iter().any(at_limiter)).then_some(last);
        let elapsed_s = attempt.end.elapsed_s().filter(|_| limiter_in_gear.is_none());
        let penalty_ms = elapsed_s.map(|elapsed_s| 1e3 * (elapsed_s - run.elapsed_s));
        Ok(Forgiving { shift_off_rpm, penalty_ms, limiter_in_gear })
    };
    SHIFT_OFFS_RPM.iter().map(|&off_rpm| one(off_rpm)).collect()
}

impl Published {
    fn of(car: &Car, splits: &Splits) -> Option<Self> {
        let drag_race::Published { quarter_mile_s, trap_mph } = car.published?;
        Some(Self {
            quarter_mile_s,
            trap_mph,
            time_off_percent: 100.0 * (splits.quarter_mile_s / quarter_mile_s - 1.0),
            speed_off_percent: 100.0 * (splits.quarter_mile_mph / trap_mph - 1.0),
        })
    }
}
