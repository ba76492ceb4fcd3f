//! What limits a car when.
//!
//! Each tick of the best run is put down to one of three, the first that holds:
//! - **gearing**, while a gear is being changed;
//! - **grip**, while the driver holds the throttle back, or the driven tyres slip by [`GRIP_SLIP_SHARE`] of the slip at which they pull hardest, or more;
//! - **gearing**, while the engine is at its limiter, or gives less than [`POWER_SHARE`] of its peak power at the speed at which it turns;
//! - **power**, otherwise.

use drag_race::Car;
use drag_race::physics::torque_at;
use drag_race::timing::DISTANCE_M;
use serde::{Deserialize, Serialize};

use super::attempt::RPM_PER_RAD_S;
use super::strip::{Run, Sample};

/// Slip from which grip limits, over the slip at which the tyres pull hardest: there they give 96 % of their grip, and a driver does not dare more.
pub const GRIP_SLIP_SHARE: f64 = 0.75;
/// Power below which the gear is the wrong one, over peak power.
pub const POWER_SHARE: f64 = 0.9;
/// Throttle from which it counts as wide open: a foot's lowest position but three.
const WIDE_OPEN: f32 = 252.0 / 255.0;
/// How near the limiter an engine counts as being at it, in rpm.
pub(super) const AT_LIMITER_RPM: f64 = 25.0;
/// Shortest phase that is told as one, in s; what is shorter belongs to the one before it. The shares count every tick as it is.
const PHASE_S_MIN: f64 = 0.1;

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

impl Limits {
    /// What limits in a run of a car.
    #[must_use]
    pub fn of(car: &Car, run: &Run) -> Self {
        let finish_s = run.rollout_s + run.elapsed_s;
        let mut phases: Vec<LimitPhase> = Vec::new();
        let mut spent_s = [0.0; 3];
        let (mut from_s, mut from_m) = (0.0, 0.0);
        for sample in &run.trace {
            let by = limit(car, sample);
            let (to_s, to_m) = (sample.time_s.min(finish_s), f64::from(sample.distance_m).min(DISTANCE_M));
            if let Some(spent_s) = spent_s.get_mut(by as usize) {
                *spent_s += to_s - from_s;
            }
            match phases.last_mut() {
                Some(last) if last.by == by => (last.to_s, last.to_m) = (to_s, to_m),
                _ => phases.push(LimitPhase { by, from_s, to_s, from_m, to_m }),
            }
            (from_s, from_m) = (to_s, to_m);
        }
        let share = |limit: Limit| spent_s.get(limit as usize).copied().unwrap_or(0.0) / from_s;
        Self {
            grip_share: share(Limit::Grip),
            power_share: share(Limit::Power),
            gearing_share: share(Limit::Gearing),
            phases: merged(phases),
        }
    }
}

impl LimitPhase {
    fn is_short(&self) -> bool {
        self.to_s - self.from_s < PHASE_S_MIN
    }
}

/// Phases without those that are too short to be told.
fn merged(phases: Vec<LimitPhase>) -> Vec<LimitPhase> {
    let mut kept: Vec<LimitPhase> = Vec::new();
    for phase in phases {
        match kept.last_mut() {
            Some(last) if last.by == phase.by || phase.is_short() => {
                (last.to_s, last.to_m) = (phase.to_s, phase.to_m);
            }
            // One at the very beginning has none before it.
            Some(last) if last.is_short() => *last = LimitPhase { from_s: last.from_s, from_m: last.from_m, ..phase },
            _ => kept.push(phase),
        }
    }
    kept
}

/// What limits in one tick; the module's documentation has the definition.
fn limit(car: &Car, sample: &Sample) -> Limit {
    let against_mps = sample.tread_mps.max(sample.speed_mps).max(0.5);
    let slip = f64::from((sample.tread_mps - sample.speed_mps) / against_mps);
    let rpm = f64::from(sample.rpm);
    let power_kw = torque_at(car, rpm) * rpm / RPM_PER_RAD_S / 1e3;
    if sample.shifting {
        Limit::Gearing
    } else if sample.throttle < WIDE_OPEN || slip >= GRIP_SLIP_SHARE * car.shared.peak_slip {
        Limit::Grip
    } else if rpm >= car.limiter_rpm - AT_LIMITER_RPM || power_kw < POWER_SHARE * car.peak_power_kw {
        Limit::Gearing
    } else {
        Limit::Power
    }
}
