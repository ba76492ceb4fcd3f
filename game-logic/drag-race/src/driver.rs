//! A driver: sees snapshots, gives inputs, has a skill. For bots and for the tests that compare the model with
//! published runs. It has no clock and no access to a race's state; what it knows beyond a snapshot is its car.

use std::sync::Arc;

use crate::cars::{Car, Drive, Transmission, UnknownCar, find_car};
use crate::physics::{CarState, Controls, GRAVITY_MPS2, RAD_S_PER_RPM, driven_load_share, step, torque_at};
use crate::prng::Prng;
use crate::ranges::SHIFT_OVER_LIMITER_MIN;
use crate::snapshot::{Input, LaneView, Phase, Snapshot};
use crate::timing::FOOT_M;
use crate::tree::TreeKind;

/// Shortest time from seeing a lamp to moving a foot, in s: trained people need 0.15 to 0.2 s for a light.
const HUMAN_REACTION_MIN_S: f64 = 0.15;

/// Calls without a newer snapshot during which the driver goes on as before; then it lifts. A quarter of a second at
/// 50 Hz, a usual burst of lost datagrams.
const STALE_CALLS_MAX: u32 = 12;

/// Share of the best slip that a driver holds the tyres at: 0.85 gives 99 % of the grip, with room before it is lost.
const SLIP_SHARE_WANTED: f64 = 0.85;

/// How fast the right foot learns from the slip, in units of torque share per unit of slip and second. Grip that is
/// lost comes back late, so it gives slowly and takes fast.
const TRIM_UP_PER_S: f64 = 20.0;
const TRIM_DOWN_PER_S: f64 = 40.0;

/// Time in which a driver without delay may correct without overdoing it: four ticks, in s.
const ANSWER_MIN_S: f64 = 0.08;

/// What a driver means to do with its car.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Engine speed to leave the line with, in rpm.
    pub launch_rpm: f64,
    /// When to change up.
    pub shifts: Shifts,
    /// Share of the tyres' grip to ask for.
    pub grip_use: f64,
}

/// When a driver changes up.
#[derive(Clone, Debug, PartialEq)]
pub enum Shifts {
    /// At this engine speed in every gear, in rpm.
    Rpm(f64),
    /// At the engine speed of each gear, first gear first, in rpm. Gears beyond the list's end take its last; an empty list never changes.
    RpmOfGear(Vec<f64>),
    /// By the clock, whatever the engine does: so many ticks after the one with whose input the left foot came up, first change first. The input of
    /// that tick asks for the next gear. Two equal numbers skip a gear; a list shorter than the gears stays in the gear that it ends with.
    AtTick(Vec<u32>),
}

impl Shifts {
    /// The engine speed at which a gear is left, if that is what decides.
    fn rpm_of(&self, gear: u8) -> Option<f64> {
        match self {
            Self::Rpm(rpm) => Some(*rpm),
            Self::RpmOfGear(list) => list.get(usize::from(gear).saturating_sub(1)).or(list.last()).copied(),
            Self::AtTick(_) => None,
        }
    }

    /// With every engine speed within what makes sense for the car.
    fn within(self, car: &Car) -> Self {
        let sensible = |rpm: f64| rpm.clamp(SHIFT_OVER_LIMITER_MIN * car.limiter_rpm, car.limiter_rpm);
        match self {
            Self::Rpm(rpm) => Self::Rpm(sensible(rpm)),
            Self::RpmOfGear(list) => Self::RpmOfGear(list.into_iter().map(sensible).collect()),
            Self::AtTick(ticks) => Self::AtTick(ticks),
        }
    }
}

impl Plan {
    /// The advice that comes with a car.
    pub fn of(car: &Car) -> Self {
        Self { launch_rpm: car.launch_rpm, shifts: Shifts::Rpm(car.shift_rpm), grip_use: 0.98 }
    }
}

/// A driver of one lane.
#[derive(Clone, Debug)]
pub struct Driver {
    car: Arc<Car>,
    lane: usize,
    plan: Plan,
    /// Reaction (green to free start beam) that this driver will try for, in s.
    reaction_s: f64,
    /// Time this car takes from the driver's foot to the free start beam, in s.
    rollout_s: f64,
    /// Time from a snapshot to the tick that the answering input moves, in s.
    delay_s: f64,
    green_ms: Option<f64>,
    launched: bool,
    /// Frame of the snapshot that the launch answered.
    launch_frame: Option<u32>,
    /// Ticks from that to the newest one.
    since_launch_ticks: u32,
    /// Time since the launch, in s.
    since_launch_s: f64,
    last_time_ms: Option<u32>,
    last_rpm: f64,
    stale_calls: u32,
    /// What the right foot has learnt of this launch: asks for more where the tyres slip less than they might.
    trim: f64,
    gear: u8,
    last: Input,
}

impl Driver {
    /// A driver for the car `car_id` in `lane` (the player's slot), with a skill from 0 (a beginner) to 1 (near the
    /// best that the car can do). The seed decides its reaction and its errors.
    ///
    /// # Errors
    /// If no car has that id.
    pub fn new(car_id: &str, lane: usize, skill: f64, seed: u64) -> Result<Self, UnknownCar> {
        let (_, car) = find_car(car_id)?;
        Ok(Self::with_skill(car, lane, skill, seed))
    }

    /// The same for any car.
    pub fn with_skill(car: impl Into<Arc<Car>>, lane: usize, skill: f64, seed: u64) -> Self {
        let car = car.into();
        let best = Plan::of(&car);
        Self::with_skill_at(car, lane, best, skill, seed)
    }

    /// The same for any car and what would be its best run: the driver means to do that, and errs as its skill has it. Errors in changing up are of
    /// engine speed; a plan that changes by the clock is kept.
    pub fn with_skill_at(car: impl Into<Arc<Car>>, lane: usize, best: Plan, skill: f64, seed: u64) -> Self {
        let error = 1.0 - if skill > 0.0 { if skill < 1.0 { skill } else { 1.0 } } else { 0.0 };
        let mut prng = Prng::new(seed ^ 0x6472_6976_6572);
        let launch_rpm = best.launch_rpm * (1.0 + 0.12 * error * prng.bell());
        let early = 1.0 - 0.08 * error * (1.0 + magnitude(prng.bell()));
        let plan = Plan {
            launch_rpm,
            shifts: match best.shifts {
                Shifts::Rpm(rpm) => Shifts::Rpm(rpm * early),
                Shifts::RpmOfGear(list) => Shifts::RpmOfGear(list.into_iter().map(|rpm| rpm * early).collect()),
                Shifts::AtTick(ticks) => Shifts::AtTick(ticks),
            },
            grip_use: best.grip_use * (1.0 + 0.10 * error * prng.bell()),
        };
        let reaction_s = 0.035 + 0.22 * error + (0.010 + 0.07 * error) * prng.bell();
        let mut driver = Self::with_plan(car, lane, plan);
        driver.reaction_s = reaction_s;
        driver
    }

    /// A driver without error that follows `plan` and aims at a reaction of 0.1 s. The car is one that [`Car::check`] accepts, of the catalogue or not.
    pub fn with_plan(car: impl Into<Arc<Car>>, lane: usize, plan: Plan) -> Self {
        let car = car.into();
        let plan = Plan {
            launch_rpm: plan.launch_rpm.clamp(car.idle_rpm, car.limiter_rpm),
            shifts: plan.shifts.within(&car),
            grip_use: plan.grip_use.clamp(0.3, 1.5),
        };
        let mut driver = Self {
            car,
            lane,
            plan,
            reaction_s: 0.1,
            rollout_s: 0.0,
            delay_s: 0.0,
            green_ms: None,
            launched: false,
            launch_frame: None,
            since_launch_ticks: 0,
            since_launch_s: 0.0,
            last_time_ms: None,
            last_rpm: 0.0,
            stale_calls: 0,
            trim: 1.0,
            gear: 1,
            last: Input::default(),
        };
        driver.rollout_s = driver.tried_rollout_s();
        driver
    }

    /// Tells the driver that its inputs take effect this long after the snapshot that they answer, in ms: the lead at
    /// which a client sends. It leaves the line that much earlier.
    pub fn set_delay_ms(&mut self, delay_ms: u32) {
        self.delay_s = f64::from(delay_ms) / 1000.0;
    }

    /// Sets the reaction to try for (green to free start beam), in s.
    pub fn set_reaction_s(&mut self, reaction_s: f64) {
        self.reaction_s = reaction_s;
    }

    /// The reaction this driver tries for, in s; negative for one who will jump the light.
    pub fn reaction_s(&self) -> f64 {
        self.reaction_s
    }

    /// The input for the next frame, from the newest snapshot. Called once per tick, with the old snapshot again where
    /// no newer one came.
    pub fn drive(&mut self, snapshot: &Snapshot) -> Input {
        let Some(view) = snapshot.lanes.get(self.lane) else { return Input::default() };
        let tick_s = match self.last_time_ms {
            Some(last_ms) if snapshot.time_ms <= last_ms => {
                self.stale_calls += 1;
                if self.stale_calls > STALE_CALLS_MAX {
                    // Blind: no foot on the throttle, and the line is not left.
                    self.last.throttle = 0;
                    if !self.launched {
                        self.last.clutch = 255;
                    }
                }
                return self.last;
            }
            Some(last_ms) => f64::from(snapshot.time_ms - last_ms) / 1000.0,
            None => 0.02,
        };
        self.stale_calls = 0;
        self.last_time_ms = Some(snapshot.time_ms);
        self.watch_tree(snapshot);

        self.last = match view.phase {
            Phase::Approaching | Phase::PreStaged => self.wait(view),
            Phase::Staged | Phase::Racing => match self.foot_share(snapshot, tick_s) {
                None if !self.launched => self.wait(view),
                share => {
                    let launch_frame = *self.launch_frame.get_or_insert(snapshot.frame);
                    self.since_launch_ticks = snapshot.frame.saturating_sub(launch_frame);
                    self.go(view, tick_s, share.unwrap_or(1.0))
                }
            },
            Phase::Finished | Phase::Out => Input { throttle: 0, clutch: 255, gear: 0 },
        };
        self.last_rpm = f64::from(view.rpm);
        self.last
    }

    /// Learns from the lamps when green will come.
    fn watch_tree(&mut self, snapshot: &Snapshot) {
        if self.green_ms.is_some() {
            return;
        }
        let now_ms = f64::from(snapshot.time_ms);
        let lamps = snapshot.lamps;
        let left_s = match (snapshot.tree, lamps.ambers, lamps.green) {
            (_, _, true) => 0.0,
            (TreeKind::Pro, ambers, _) if ambers != 0 => 0.4,
            (TreeKind::Sportsman, 0b001, _) => 1.5,
            (TreeKind::Sportsman, 0b010, _) => 1.0,
            (TreeKind::Sportsman, 0b100, _) => 0.5,
            _ => return,
        };
        let human_ms = 1000.0 * (HUMAN_REACTION_MIN_S + self.rollout_s - self.reaction_s);
        // The foot cannot move before the eye has seen: on a pro tree a car that leaves quickly waits for the foot.
        let green_ms = now_ms + 1000.0 * left_s;
        let late_ms = human_ms - 1000.0 * left_s;
        self.green_ms = Some(green_ms + if late_ms > 0.0 { late_ms } else { 0.0 });
    }

    /// Whether the left foot comes up in the coming tick, and for which share of it.
    fn foot_share(&mut self, snapshot: &Snapshot, tick_s: f64) -> Option<f64> {
        if self.launched {
            return Some(1.0);
        }
        let leave_ms = self.green_ms? + 1000.0 * (self.reaction_s - self.rollout_s - self.delay_s);
        let in_s = (leave_ms - f64::from(snapshot.time_ms)) / 1000.0;
        if in_s >= tick_s {
            return None;
        }
        self.launched = true;
        Some(if in_s > 0.0 { 1.0 - in_s / tick_s } else { 1.0 })
    }

    /// Left pedal down, engine at the launch speed.
    fn wait(&self, view: &LaneView) -> Input {
        let rpm = f64::from(view.rpm);
        let throttle = if self.car.transmission == Transmission::SingleSpeed {
            0.0
        } else {
            // The throttle that holds an engine at a speed carries its losses, 4 % of its torque and more.
            0.06 + (self.plan.launch_rpm - rpm) / 2500.0
        };
        Input { throttle: byte(throttle), clutch: 255, gear: 1 }
    }

    /// From the line to the finish.
    fn go(&mut self, view: &LaneView, tick_s: f64, share: f64) -> Input {
        let car = Arc::clone(&self.car);
        let rpm = f64::from(view.rpm);
        let tread_mps = f64::from(view.tread_mps);
        let speed_mps = f64::from(view.speed_mps);
        let ratio = car.ratios.get(usize::from(view.gear).wrapping_sub(1)).copied().unwrap_or(1.0);

        // What the tyres will bear, less when they already slip beyond their best.
        let against_mps = if tread_mps > 1.0 { tread_mps } else { 1.0 };
        let slip = (tread_mps - speed_mps) / against_mps;
        let caution = if slip > car.shared.peak_slip { 1.0 / (1.0 + 6.0 * (slip - car.shared.peak_slip)) } else { 1.0 };
        if self.last.throttle < 255 && !view.shifting && speed_mps > 0.5 {
            let missing = SLIP_SHARE_WANTED * self.plan.grip_use * car.shared.peak_slip - slip;
            let per_s = if missing > 0.0 { TRIM_UP_PER_S } else { TRIM_DOWN_PER_S };
            self.trim = (self.trim + per_s * tick_s * ANSWER_MIN_S / self.answer_s() * missing).clamp(0.6, 1.6);
        }
        let grip_nm = self.bearable_force_n() * caution * self.trim * car.tyre_radius_m;
        self.since_launch_s += tick_s;

        let engine_nm = torque_at(&car, rpm);
        let wheels_rpm = tread_mps / car.tyre_radius_m * ratio / RAD_S_PER_RPM;
        self.shift_up(view, rpm, wheels_rpm, tick_s);
        let through = ratio * car.driveline_efficiency;
        let (throttle, clutch) = match car.transmission {
            Transmission::Manual | Transmission::Dct if view.gear == 1 && wheels_rpm < 0.97 * rpm => {
                self.slip_clutch(rpm, engine_nm, grip_nm / through)
            }
            Transmission::Automatic { torque_ratio, .. } if view.gear == 1 && wheels_rpm < 0.97 * rpm => {
                let gain = torque_ratio - (torque_ratio - 1.0) * wheels_rpm / (0.9 * rpm);
                (grip_nm / (through * gain * engine_nm), 0.0)
            }
            // After a shift the clutch comes up only as fast as the tyres bear.
            Transmission::Manual if view.gear > 1 && wheels_rpm < 0.97 * rpm => {
                (1.0, 1.0 - grip_nm / through / (car.shared.clutch_capacity_factor * car.peak_torque_nm))
            }
            // The engine's own inertia takes its part while the revs rise.
            _ => (grip_nm * 1.1 / (through * engine_nm), 0.0),
        };
        let pedal = 1.0 - (1.0 - clutch) * share;
        Input { throttle: byte(throttle), clutch: byte(pedal), gear: self.gear }
    }

    /// Throttle and clutch pedal that put `wish_nm` (or what the engine has) through a slipping clutch and keep the
    /// engine at the launch speed.
    fn slip_clutch(&self, rpm: f64, engine_nm: f64, wish_nm: f64) -> (f64, f64) {
        let car = &*self.car;
        let capacity_nm = car.shared.clutch_capacity_factor * car.peak_torque_nm;
        // The torque that brings the engine back to its launch speed within the time that the feet can answer.
        let over_rad_s = (rpm - self.plan.launch_rpm) * RAD_S_PER_RPM;
        let slowing_nm = over_rad_s * car.engine_inertia_kgm2 / self.answer_s();
        let hold_nm = engine_nm + slowing_nm;
        let through_nm = if hold_nm < wish_nm { hold_nm } else { wish_nm };
        let throttle = if hold_nm < wish_nm { 1.0 } else { (through_nm - slowing_nm) / engine_nm };
        (throttle, 1.0 - through_nm / capacity_nm)
    }

    /// Time in which this driver may correct without overdoing it: a few ticks, and more where it sees late.
    fn answer_s(&self) -> f64 {
        ANSWER_MIN_S + 2.0 * self.delay_s
    }

    /// The largest force that the driven tyres give once the load has moved, times the share the plan asks for. In the
    /// first instants the load has not come to the rear yet; to the front it will not come, so nobody counts on it.
    fn bearable_force_n(&self) -> f64 {
        let car = &*self.car;
        let settled = match car.drive {
            Drive::Fwd => 1.0,
            _ => self.since_launch_s / (self.since_launch_s + car.shared.suspension_lag_s),
        };
        let mut accel_mps2 = 0.0;
        for _ in 0..6 {
            accel_mps2 = car.tyre_grip * GRAVITY_MPS2 * driven_load_share(car, accel_mps2 * settled);
        }
        accel_mps2 * car.mass_kg * self.plan.grip_use
    }

    fn shift_up(&mut self, view: &LaneView, rpm: f64, wheels_rpm: f64, tick_s: f64) {
        if let Shifts::AtTick(ticks) = &self.plan.shifts {
            let passed = ticks.iter().filter(|tick| self.since_launch_ticks >= **tick).count();
            self.gear = (1 + passed).min(usize::from(self.car.top_gear())) as u8;
            return;
        }
        let Some(shift_rpm) = self.plan.shifts.rpm_of(view.gear) else { return };
        // While the clutch still slips the engine's speed says nothing of the car's.
        let slipping = wheels_rpm < 0.8 * shift_rpm;
        if slipping || view.shifting || view.gear != self.gear || view.gear >= self.car.top_gear() {
            return;
        }
        // The change begins one tick after the snapshot, or later by the delay.
        let rise_rpm = (rpm - self.last_rpm) * (1.0 + self.delay_s / tick_s);
        if rpm + if rise_rpm > 0.0 { rise_rpm } else { 0.0 } >= shift_rpm {
            self.gear += 1;
        }
    }

    /// Drives the first foot on its own, from an engine that has settled, to learn how long this car takes for it.
    fn tried_rollout_s(&self) -> f64 {
        const TICK_S: f64 = 0.02;
        const SUBSTEPS: u32 = 5;
        const SETTLING_TICKS: u32 = 100;
        const TICKS_MAX: u32 = SETTLING_TICKS + 100;
        let dt_s = TICK_S / f64::from(SUBSTEPS);
        let mut trial = self.clone();
        let mut state = CarState::at_rest(&self.car);
        let mut time_s = 0.0;
        for tick in 0..TICKS_MAX {
            let view = LaneView {
                phase: Phase::Staged,
                red_light: false,
                shifting: false,
                wheel_spin: false,
                gear: state.gear,
                distance_m: 0.0,
                speed_mps: state.speed_mps as f32,
                tread_mps: state.tread_mps(&self.car) as f32,
                rpm: state.engine_rpm() as f32,
                reaction_s: None,
                elapsed_s: None,
            };
            let input = if tick < SETTLING_TICKS { trial.wait(&view) } else { trial.go(&view, TICK_S, 1.0) };
            trial.last = input;
            trial.last_rpm = f64::from(view.rpm);
            let controls = Controls {
                throttle: f64::from(input.throttle) / 255.0,
                left_pedal: f64::from(input.clutch) / 255.0,
                brake: 0.0,
                gear: 0,
            };
            for _ in 0..SUBSTEPS {
                step(&self.car, &mut state, &controls, dt_s);
                if tick >= SETTLING_TICKS {
                    time_s += dt_s;
                }
                if state.distance_m >= FOOT_M {
                    return time_s;
                }
            }
        }
        time_s
    }
}

/// A position from 0 to 1 as a byte; a NaN is 0.
fn byte(share: f64) -> u8 {
    libm::round(share * 255.0) as u8
}

fn magnitude(value: f64) -> f64 {
    if value < 0.0 { -value } else { value }
}
