//! The sheet of one car: everything that is told of it, made from its best run. Tables, CSV, JSON and pictures are made from it.

use serde::{Deserialize, Serialize};

use super::search::Best;

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
    /// The highest speed in it without slip, in km/h.
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

/// What keeps a car from being quicker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// The tyres.
    Grip,
    /// The engine's power.
    Power,
    /// The gears: too long, too short, or being changed.
    Gearing,
}

/// A part of the run with one limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LimitPhase {
    /// What limits.
    pub by: Limit,
    /// From this time after the launch, in s.
    pub from_s: f64,
    /// To this time, in s.
    pub to_s: f64,
    /// From this distance, in m.
    pub from_m: f64,
    /// To this distance, in m.
    pub to_m: f64,
}

/// What limits a car when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// The parts of the run, without gaps, from the launch to the finish.
    pub phases: Vec<LimitPhase>,
    /// Share of the time in which the tyres limit, 0 to 1.
    pub grip_share: f64,
    /// Share of the time in which power limits.
    pub power_share: f64,
    /// Share of the time in which the gears limit.
    pub gearing_share: f64,
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
