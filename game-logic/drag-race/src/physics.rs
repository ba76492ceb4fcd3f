//! One car on a straight, flat strip: engine, clutch or converter, gearbox, tyres, load transfer and air, moved on by
//! one small step. It knows nothing of races, lanes or players. README.md gives the formulas and their sources.
//!
//! Only `+ - * /` and comparisons are used, so a step gives the same bits natively and in any wasm engine. A division takes as long as a dozen of the others, and
//! a step waits for most of them: what many steps divide by is divided once, and multiplied by.

use serde::{Deserialize, Serialize};

use crate::cars::{Car, Drive, TorqueLine, Transmission};

/// Standard gravity, in m/s².
pub const GRAVITY_MPS2: f64 = 9.80665;

/// Radians per second for one turn per minute: π / 30.
pub const RAD_S_PER_RPM: f64 = core::f64::consts::PI / 30.0;

/// Turns per minute for one radian per second.
const RPM_PER_RAD_S: f64 = 1.0 / RAD_S_PER_RPM;

/// Rolling resistance over weight at rest. Gillespie, Fundamentals of Vehicle Dynamics, ch. 4: 0.01 (1 + V/100 mph).
const ROLLING_RESISTANCE: f64 = 0.01;
/// The speed at which that resistance has doubled: 100 mph in m/s.
const ROLLING_DOUBLES_AT_MPS: f64 = 44.704;

/// Below this speed slip is measured against it instead of against the wheel's speed, which may be zero, in m/s.
const SLIP_SPEED_MIN_MPS: f64 = 0.5;

/// Deceleration of a car with its brakes fully applied, over gravity: what an ordinary driver asks of a street tyre.
const BRAKING_SHARE_MAX: f64 = 0.8;

/// Torque to turn a closed-throttle engine, over its peak torque: at rest and for each rpm more, of which it is 0.02 for 1000.
const MOTORING_SHARE: f64 = 0.06;
const MOTORING_SHARE_PER_RPM: f64 = 0.02 / 1000.0;
/// Width of the band above idle in which that torque comes, in rpm.
const MOTORING_BAND_RPM: f64 = 200.0;

/// Width of the band above the limiter in which fuel is taken away, in rpm.
const LIMITER_BAND_RPM: f64 = 100.0;

/// Stiffness of the idle governor, in Nm for each rad/s below idle.
const IDLE_GOVERNOR_NMS: f64 = 2.0;

/// A gearbox change is refused if it would turn the engine faster than this many times its limiter.
const OVERREV_FACTOR_MAX: f64 = 1.03;

/// Share of the clutch's capacity that a controlled gearbox (dual clutch, automatic) uses to pull the engine down to
/// the new gear's speed, over the engine's present torque.
const SYNCHRONISING_FACTOR: f64 = 1.1;

/// Speed ratio (turbine over engine) at which a converter couples: its torque ratio has fallen to 1, and its lock-up
/// clutch closes.
const CONVERTER_COUPLING_RATIO: f64 = 0.88;

/// A converter's lock-up clutch is open below this many times idle.
const LOCK_UP_IDLE_FACTOR: f64 = 1.5;

/// Of a gear that a car has not, which only a damaged state names.
const RATIO_OF_NO_GEAR: f64 = 1.0;

/// What moves the car during a step, from the driver's feet and hand.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Controls {
    /// Throttle, 0 to 1.
    pub throttle: f64,
    /// Left pedal, 0 (up) to 1 (down): the clutch, or the brake in a car without one.
    pub left_pedal: f64,
    /// Brake beyond the left pedal, 0 to 1: used by the rules after the finish line.
    pub brake: f64,
    /// The gear wished for; 0 keeps the present one.
    pub gear: u8,
}

/// The moving parts of one car.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CarState {
    /// Distance of the front tyre's leading edge beyond the starting line, in m.
    pub distance_m: f64,
    /// Speed over the ground, in m/s; never negative.
    pub speed_mps: f64,
    /// Engine speed, in rad/s.
    pub engine_rad_s: f64,
    /// Speed of the driven wheels, in rad/s.
    pub wheel_rad_s: f64,
    /// The acceleration that the suspension has answered so far, in m/s².
    pub settled_accel_mps2: f64,
    /// Time left of a gear change, in s.
    pub shift_left_s: f64,
    /// The gear engaged, from 1.
    pub gear: u8,
    /// Engine and gearbox turn as one.
    pub coupled: bool,
}

impl CarState {
    /// A car at rest on the starting line in first gear, its engine idling.
    pub fn at_rest(car: &Car) -> Self {
        Self {
            distance_m: 0.0,
            speed_mps: 0.0,
            engine_rad_s: car.idle_rpm * RAD_S_PER_RPM,
            wheel_rad_s: 0.0,
            settled_accel_mps2: 0.0,
            shift_left_s: 0.0,
            gear: 1,
            coupled: car.transmission == Transmission::SingleSpeed,
        }
    }

    /// Engine speed, in rpm.
    pub fn engine_rpm(&self) -> f64 {
        self.engine_rad_s * RPM_PER_RAD_S
    }

    /// Speed of the driven tyres' tread, in m/s.
    pub fn tread_mps(&self, car: &Car) -> f64 {
        self.wheel_rad_s * car.tyre_radius_m
    }

    /// Slip of the driven tyres: (tread speed - speed) / the larger of the two, 0 when at rest.
    pub fn slip(&self, car: &Car) -> f64 {
        slip(self.tread_mps(car), self.speed_mps).0
    }
}

/// Moves `state` on by `dt_s` seconds (meant for 0.5 to 4 ms). Controls outside their ranges are cut to them.
pub fn step(car: &Car, state: &mut CarState, controls: &Controls, dt_s: f64) {
    Figures::of(car, dt_s).run(&|| car, controls, state, &mut Recall::default(), 1, |_, _, _| {});
}

/// What steps of one length need of a car, as they need it: worked out once for a race and not in every tick. A car has a kilobyte of figures, in several pages
/// of memory that all rooms share and that each has to find: with hundreds of rooms a tick waited longer for those than for the rest of its memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    gearbox: Gearbox,
    has_clutch: bool,
    top_gear: u8,
    shift_time_s: f64,
    shift_torque_share: f64,
    road: Road,
    load: Load,
    radius_m: f64,
    tyre_grip: f64,
    per_peak_slip: f64,
    sliding_grip_share: f64,
    driveline_efficiency: f64,
    idle_rpm: f64,
    limiter_rpm: f64,
    peak_torque_nm: f64,
    engine_inertia_kgm2: f64,
    per_engine_inertia: f64,
    weight_n: f64,
    /// One over the mass that the tyres' force moves: the car's and that of the undriven wheels as their turning feels.
    per_moving_kg: f64,
    /// Inertia of the driven wheels, in kg m².
    wheel_inertia_kgm2: f64,
    /// What the clutch can carry with the pedal up, in Nm.
    clutch_nm: f64,
    /// Share of the way that the suspension comes nearer to the acceleration in one step.
    settling_share: f64,
    dt_s: f64,
    per_dt_s: f64,
}

/// What was looked up of a car last, and is mostly what the next step needs too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recall {
    /// The gear that was engaged, and its ratio.
    gear: u8,
    ratio: f64,
    /// Where on its curve the engine was: it stays on one line for many ticks.
    line: TorqueLine,
}

impl Default for Recall {
    fn default() -> Self {
        Self { gear: 0, ratio: RATIO_OF_NO_GEAR, line: TorqueLine::default() }
    }
}

/// What is recalled changes no step: states that differ in it alone are the same.
impl PartialEq for Recall {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// What a step asks of the [`Transmission`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Gearbox {
    #[default]
    Manual,
    Dct,
    Automatic(Converter),
    SingleSpeed,
}

impl Figures {
    pub(crate) fn of(car: &Car, dt_s: f64) -> Self {
        let (driven_wheels, undriven_wheels) = wheels(car);
        let radius_m = car.tyre_radius_m;
        let shift = car.shift();
        Self {
            gearbox: match car.transmission {
                Transmission::Manual => Gearbox::Manual,
                Transmission::Dct => Gearbox::Dct,
                Transmission::Automatic { stall_rpm, torque_ratio } => {
                    Gearbox::Automatic(Converter::of(car, stall_rpm, torque_ratio))
                }
                Transmission::SingleSpeed => Gearbox::SingleSpeed,
            },
            has_clutch: car.has_clutch(),
            top_gear: car.top_gear(),
            shift_time_s: shift.time_s,
            shift_torque_share: shift.torque_share,
            road: Road::of(car),
            load: Load::of(car),
            radius_m,
            tyre_grip: car.tyre_grip,
            per_peak_slip: 1.0 / car.shared.peak_slip,
            sliding_grip_share: car.shared.sliding_grip_share,
            driveline_efficiency: car.driveline_efficiency,
            idle_rpm: car.idle_rpm,
            limiter_rpm: car.limiter_rpm,
            peak_torque_nm: car.peak_torque_nm,
            engine_inertia_kgm2: car.engine_inertia_kgm2,
            per_engine_inertia: 1.0 / car.engine_inertia_kgm2,
            weight_n: car.mass_kg * GRAVITY_MPS2,
            per_moving_kg: 1.0 / (car.mass_kg + undriven_wheels * car.wheel_inertia_kgm2 / (radius_m * radius_m)),
            wheel_inertia_kgm2: driven_wheels * car.wheel_inertia_kgm2,
            clutch_nm: car.shared.clutch_capacity_factor * car.peak_torque_nm,
            settling_share: dt_s / (car.shared.suspension_lag_s + dt_s),
            dt_s,
            per_dt_s: 1.0 / dt_s,
        }
    }

    /// Whether the left pedal is a clutch, see [`Car::has_clutch`].
    pub(crate) const fn has_clutch(&self) -> bool {
        self.has_clutch
    }

    /// Speed of the driven tyres' tread in a state, in m/s, and whether they slip by more than half as much again as is best.
    pub(crate) fn tread(&self, state: &CarState) -> (f64, bool) {
        let tread_mps = state.wheel_rad_s * self.radius_m;
        (tread_mps, slip(tread_mps, state.speed_mps).0 * self.per_peak_slip > 1.5)
    }

    /// Takes so many steps. `car` finds the car that these are the figures of. `moved` gets the number of each, and the distances before and after it.
    #[inline(always)]
    pub(crate) fn run<'a>(
        &self,
        car: &impl Fn() -> &'a Car,
        controls: &Controls,
        state: &mut CarState,
        recall: &mut Recall,
        steps: u32,
        mut moved: impl FnMut(u32, f64, f64),
    ) {
        let stepper = Stepper::new(self, controls);
        let mut moving = *state;
        let Recall { mut gear, mut ratio, mut line } = *recall;
        for number in 0..steps {
            stepper.begin_shift(&mut moving, car);
            if gear != moving.gear {
                (gear, ratio) = (moving.gear, look_up_ratio(car, moving.gear));
            }
            let rpm = moving.engine_rpm();
            if !line.holds(rpm) {
                line = look_up_line(car, rpm);
            }
            stepper.step(&mut moving, rpm, line.nm(rpm), ratio, |before_m, now_m| moved(number, before_m, now_m));
        }
        *state = moving;
        *recall = Recall { gear, ratio, line };
    }
}

/// A car and its driver's feet: all that does not change from step to step of a tick.
///
/// In a module every access to memory is checked, which costs more than what is then done with the number. So the figures are copied here, and the state is while
/// its steps are taken: then both are in registers and on the machine's stack.
#[derive(Clone, Copy, Debug)]
struct Stepper {
    figures: Figures,
    /// The gear wished for; 0 keeps the present one.
    wish: u8,
    throttle: f64,
    /// Force of the brakes, in N; 0 if nobody brakes.
    brake_n: f64,
    /// What the clutch can carry with the pedal where it is, in Nm.
    pedal_nm: f64,
}

impl Stepper {
    #[inline(always)]
    fn new(figures: &Figures, controls: &Controls) -> Self {
        let left_pedal = unit(controls.left_pedal);
        let (pedal_opens_clutch, brake) = if figures.has_clutch {
            (left_pedal, unit(controls.brake))
        } else {
            (0.0, larger(left_pedal, unit(controls.brake)))
        };
        Self {
            figures: *figures,
            wish: if controls.gear <= figures.top_gear { controls.gear } else { 0 },
            throttle: unit(controls.throttle),
            brake_n: brake * BRAKING_SHARE_MAX * figures.weight_n,
            pedal_nm: (1.0 - pedal_opens_clutch) * figures.clutch_nm,
        }
    }

    #[inline(always)]
    fn step(&self, state: &mut CarState, rpm: f64, full_nm: f64, ratio: f64, moved: impl FnOnce(f64, f64)) {
        let Self { brake_n, figures: Figures { weight_n, per_moving_kg, radius_m, dt_s, per_dt_s, .. }, .. } = *self;
        let drive = DriveStep::new(self, state, rpm, full_nm, ratio);
        // A car that its brakes hold asks nothing of its tyres.
        if state.speed_mps == 0.0 && brake_n > 0.0 && drive.wheel_torque_nm <= brake_n * radius_m {
            drive.apply(self, state, 0.0);
            state.shift_left_s = larger(0.0, state.shift_left_s - dt_s);
            state.settled_accel_mps2 = 0.0;
            moved(state.distance_m, state.distance_m);
            return;
        }
        let driven_load_n = weight_n * self.figures.load.share(state.settled_accel_mps2);
        let grip_n = self.figures.tyre_grip * driven_load_n;
        let tyre = self.tyre_force(state.wheel_rad_s * radius_m, state.speed_mps, grip_n);
        let resistance_n = self.figures.road.load_n(state.speed_mps) + brake_n;

        // A gripping tyre answers within a fraction of a step, so its force is taken linearly implicit: it is the one that
        // goes with the speeds that wheel and car will have at the step's end.
        let per_inertia = 1.0 / drive.turning_inertia;
        let stiffness = tyre.stiffness_ns_m * dt_s;
        let wished_n = (tyre.force_n
            + stiffness * (radius_m * drive.wheel_torque_nm * per_inertia + resistance_n * per_moving_kg))
            / (1.0 + stiffness * (radius_m * radius_m * per_inertia + per_moving_kg));
        let force_n = between(-grip_n, wished_n, grip_n);
        let wished_mps = state.speed_mps + (force_n - resistance_n) * per_moving_kg * dt_s;
        let speed_mps = larger(0.0, wished_mps);
        let before_m = state.distance_m;
        state.distance_m += 0.5 * (state.speed_mps + speed_mps) * dt_s;
        // Asked here, before the engine: a compiler that puts a number off until it is needed (Cranelift does) would otherwise work out the force once for
        // each way that the engine may take, and once more behind them.
        moved(before_m, state.distance_m);
        let accel_mps2 = (speed_mps - state.speed_mps) * per_dt_s;
        state.speed_mps = speed_mps;
        state.settled_accel_mps2 += (accel_mps2 - state.settled_accel_mps2) * self.figures.settling_share;
        let wheel_rad_s =
            larger(0.0, state.wheel_rad_s + (drive.wheel_torque_nm - force_n * radius_m) * per_inertia * dt_s);
        drive.apply(self, state, wheel_rad_s);
        state.shift_left_s = larger(0.0, state.shift_left_s - dt_s);
    }

    /// Starts a gear change if another gear is wished for, none is under way and the engine would bear it.
    #[inline(always)]
    fn begin_shift<'a>(&self, state: &mut CarState, car: &impl Fn() -> &'a Car) {
        if self.wish == 0 || self.wish == state.gear || state.shift_left_s > 0.0 {
            return;
        }
        if state.wheel_rad_s * look_up_ratio(car, self.wish)
            > self.figures.limiter_rpm * RAD_S_PER_RPM * OVERREV_FACTOR_MAX
        {
            return;
        }
        state.gear = self.wish;
        state.coupled = false;
        state.shift_left_s = self.figures.shift_time_s;
    }

    /// Engine speed below which a lock-up clutch is open, in rad/s.
    #[inline(always)]
    fn lock_up_rad_s(&self) -> f64 {
        LOCK_UP_IDLE_FACTOR * self.figures.idle_rpm * RAD_S_PER_RPM
    }

    /// Losses count when the engine pulls; when the wheels turn the engine they are left out.
    #[inline(always)]
    fn efficiency(&self, torque_nm: f64) -> f64 {
        if torque_nm > 0.0 { self.figures.driveline_efficiency } else { 1.0 }
    }

    /// Torque of the engine at its flywheel: between motoring and full torque by the throttle, less above the limiter,
    /// more below idle.
    #[inline(always)]
    fn engine_torque(&self, rpm: f64, throttle: f64, full_nm: f64) -> f64 {
        // Asked before they are divided: as a rule the answer is 1, and a division is what a step waits for.
        let limited = if rpm <= self.figures.limiter_rpm {
            1.0
        } else {
            unit(1.0 - (rpm - self.figures.limiter_rpm) / LIMITER_BAND_RPM)
        };
        if self.figures.gearbox == Gearbox::SingleSpeed {
            return throttle * limited * full_nm;
        }
        let over_idle_rpm = rpm - self.figures.idle_rpm;
        let turning = if over_idle_rpm >= MOTORING_BAND_RPM { 1.0 } else { unit(over_idle_rpm / MOTORING_BAND_RPM) };
        let motoring_nm = self.figures.peak_torque_nm * (MOTORING_SHARE + MOTORING_SHARE_PER_RPM * rpm) * turning;
        let fed = throttle * limited;
        let torque_nm = fed * (full_nm + motoring_nm) - motoring_nm;
        larger(torque_nm, (self.figures.idle_rpm - rpm) * RAD_S_PER_RPM * IDLE_GOVERNOR_NMS)
    }

    /// Longitudinal force of the driven tyres. Rises to the whole grip at [`peak_slip`](crate::Shared::peak_slip) and falls to the sliding grip: the
    /// shape of Pacejka's curves by a rational function, `2u / (1 + u²)` with `u` = slip / peak slip.
    #[inline(always)]
    fn tyre_force(&self, tread_mps: f64, speed_mps: f64, grip_n: f64) -> Tyre {
        let (slip, per_against_mps) = slip(tread_mps, speed_mps);
        let u = slip * self.figures.per_peak_slip;
        let per_bell = 1.0 / (1.0 + u * u);
        let rise = 2.0 * u * per_bell;
        if magnitude(u) <= 1.0 {
            let slope = 2.0 * (1.0 - u * u) * per_bell * per_bell * self.figures.per_peak_slip;
            Tyre { force_n: grip_n * rise, stiffness_ns_m: grip_n * slope * per_against_mps }
        } else {
            let sliding = if u > 0.0 { self.figures.sliding_grip_share } else { -self.figures.sliding_grip_share };
            Tyre { force_n: grip_n * (sliding + (1.0 - self.figures.sliding_grip_share) * rise), stiffness_ns_m: 0.0 }
        }
    }
}

/// What holds a car back on a flat road without its brakes: air `rho CdA v^2 / 2`, rolling `0.01 (1 + v / 100 mph) m g` (Gillespie, ch. 4), and
/// the bearings of an axle that is not driven.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Road {
    /// Air, over the square of the speed, in kg/m.
    air_kgpm: f64,
    /// Rolling at rest, in N.
    rolling_n: f64,
    bearing_n: f64,
}

impl Road {
    #[inline]
    fn of(car: &Car) -> Self {
        Self {
            air_kgpm: 0.5 * car.shared.air_density_kgm3 * car.drag_area_m2,
            rolling_n: car.mass_kg * GRAVITY_MPS2 * ROLLING_RESISTANCE,
            bearing_n: if car.drive == Drive::Awd {
                0.0
            } else {
                car.shared.undriven_wheel_drag_nm / car.tyre_radius_m
            },
        }
    }

    #[inline(always)]
    fn load_n(&self, speed_mps: f64) -> f64 {
        let rolling_n = self.rolling_n * (1.0 + speed_mps * (1.0 / ROLLING_DOUBLES_AT_MPS));
        let drag_n = self.air_kgpm * speed_mps * speed_mps;
        drag_n + rolling_n + self.bearing_n
    }
}

/// The engine's side of a step, before the tyre is asked.
struct DriveStep {
    /// Torque at the driven wheels from the clutch or the converter, in Nm. While coupled: from the engine, its
    /// inertia not yet taken off.
    wheel_torque_nm: f64,
    /// Torque of the engine, in Nm.
    engine_torque_nm: f64,
    /// Torque that the clutch or the converter takes from the engine, in Nm; meaningless while coupled.
    load_torque_nm: f64,
    /// The most that the clutch can carry now, in Nm.
    capacity_nm: f64,
    /// Engine turns per wheel turn.
    ratio: f64,
    /// Inertia that turns with the wheels, in kg m²: theirs, and while coupled the engine's as they feel it.
    turning_inertia: f64,
    /// Through the converter and not through a clutch.
    by_converter: bool,
}

impl DriveStep {
    #[inline(always)]
    fn new(stepper: &Stepper, state: &CarState, rpm: f64, full_nm: f64, ratio: f64) -> Self {
        let Stepper { throttle, figures: Figures { idle_rpm, peak_torque_nm, .. }, .. } = *stepper;
        let shifting = state.shift_left_s > 0.0;
        let engine_torque_nm = stepper.engine_torque(rpm, if shifting { 0.0 } else { throttle }, full_nm);
        // Near standstill a clutch that stayed closed would stall the engine: it opens below idle, as a launching
        // driver's foot or a gearbox's controller would have it.
        let alive = if rpm >= idle_rpm {
            1.0
        } else if idle_rpm > 0.0 {
            unit(2.0 * rpm / idle_rpm - 1.0)
        } else {
            1.0
        };
        let controlled = stepper.figures.gearbox != Gearbox::Manual;
        let capacity_nm = if shifting {
            stepper.figures.shift_torque_share * throttle * full_nm * alive
        } else if controlled && !state.coupled && state.gear > 1 {
            let wanted = SYNCHRONISING_FACTOR * larger(engine_torque_nm, 0.1 * peak_torque_nm);
            smaller(wanted, stepper.pedal_nm) * alive
        } else {
            stepper.pedal_nm * alive
        };

        let wheel_inertia = stepper.figures.wheel_inertia_kgm2;
        let mut drive = Self {
            wheel_torque_nm: 0.0,
            engine_torque_nm,
            load_torque_nm: 0.0,
            capacity_nm,
            ratio,
            turning_inertia: wheel_inertia,
            by_converter: false,
        };
        let to_wheels_nm = if state.coupled {
            let felt = ratio * ratio * stepper.efficiency(engine_torque_nm);
            drive.turning_inertia = wheel_inertia + stepper.figures.engine_inertia_kgm2 * felt;
            engine_torque_nm
        } else {
            let input_rad_s = state.wheel_rad_s * ratio;
            match stepper.figures.gearbox {
                Gearbox::Automatic(converter) if state.gear == 1 && !shifting => {
                    drive.by_converter = true;
                    let (pump_nm, turbine_nm) = converter.torques(state.engine_rad_s, input_rad_s);
                    drive.load_torque_nm = pump_nm;
                    turbine_nm
                }
                _ => {
                    drive.load_torque_nm = if state.engine_rad_s >= input_rad_s { capacity_nm } else { -capacity_nm };
                    drive.load_torque_nm
                }
            }
        };
        drive.wheel_torque_nm = to_wheels_nm * ratio * stepper.efficiency(to_wheels_nm);
        drive
    }

    /// New speeds of engine and wheels, once the tyre has said what the wheels do.
    #[inline(always)]
    fn apply(&self, stepper: &Stepper, state: &mut CarState, wheel_rad_s: f64) {
        let Figures { engine_inertia_kgm2: engine_inertia, per_engine_inertia, dt_s, per_dt_s, .. } = stepper.figures;
        if state.coupled {
            let engine_rad_s = wheel_rad_s * self.ratio;
            let clutch_nm = self.engine_torque_nm - engine_inertia * (engine_rad_s - state.engine_rad_s) * per_dt_s;
            state.wheel_rad_s = wheel_rad_s;
            state.engine_rad_s = engine_rad_s;
            state.coupled = match stepper.figures.gearbox {
                Gearbox::SingleSpeed => true,
                Gearbox::Automatic(_) if engine_rad_s < stepper.lock_up_rad_s() => false,
                _ => magnitude(clutch_nm) <= self.capacity_nm,
            };
            return;
        }

        let engine_rad_s =
            state.engine_rad_s + dt_s * (self.engine_torque_nm - self.load_torque_nm) * per_engine_inertia;
        let before = state.engine_rad_s - state.wheel_rad_s * self.ratio;
        let after = engine_rad_s - wheel_rad_s * self.ratio;
        state.engine_rad_s = larger(0.0, engine_rad_s);
        state.wheel_rad_s = wheel_rad_s;
        if self.by_converter {
            state.coupled = wheel_rad_s * self.ratio > CONVERTER_COUPLING_RATIO * state.engine_rad_s
                && state.engine_rad_s > stepper.lock_up_rad_s();
        } else if self.capacity_nm > 0.0 && (before > 0.0) != (after > 0.0) {
            state.coupled = true;
            state.shift_left_s = 0.0;
        }
        if state.coupled {
            // Both turn as one from here, with the angular momentum they had.
            let wheel_inertia = self.turning_inertia;
            let reflected = engine_inertia * self.ratio;
            let turning = wheel_inertia + reflected * self.ratio;
            state.wheel_rad_s = (wheel_inertia * wheel_rad_s + reflected * state.engine_rad_s) / turning;
            state.engine_rad_s = state.wheel_rad_s * self.ratio;
        }
    }
}

/// A torque converter. The capacity law (torque by the square of the engine's speed) and the straight fall of the torque ratio to the coupling point
/// are those of Gillespie, ch. 2 and of SAE J643 charts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Converter {
    /// Torque over the square of the engine's speed, with the turbine at rest.
    capacity: f64,
    torque_ratio: f64,
}

impl Converter {
    #[inline]
    fn of(car: &Car, stall_rpm: f64, torque_ratio: f64) -> Self {
        let stall_rad_s = stall_rpm * RAD_S_PER_RPM;
        Self { capacity: torque_at(car, stall_rpm) / (stall_rad_s * stall_rad_s), torque_ratio }
    }

    /// Torques that it takes from the engine and gives to the gearbox.
    #[inline(always)]
    fn torques(self, engine_rad_s: f64, turbine_rad_s: f64) -> (f64, f64) {
        let Self { capacity, torque_ratio } = self;
        let speed_ratio = if engine_rad_s > 1.0 { smaller(turbine_rad_s / engine_rad_s, 1.3) } else { 1.3 };
        let square = speed_ratio * speed_ratio;
        let pump_nm = capacity * engine_rad_s * engine_rad_s * (1.0 - square * square);
        let gain = larger(1.0, torque_ratio - (torque_ratio - 1.0) * speed_ratio * (1.0 / CONVERTER_COUPLING_RATIO));
        (pump_nm, pump_nm * gain)
    }
}

/// What holds a car back on a flat road without its brakes, in N: air, rolling and the bearings of an axle that is not driven.
pub fn road_load_n(car: &Car, speed_mps: f64) -> f64 {
    Road::of(car).load_n(speed_mps)
}

/// Full-throttle torque at `rpm`, in Nm.
pub fn torque_at(car: &Car, rpm: f64) -> f64 {
    car.torque_nm.line_at(rpm).nm(rpm)
}

/// Engine turns for one of the wheels in a gear.
///
/// What looks something up in a car gets a way to find it, and is not inlined: of a car that is at hand a compiler reads all that may be needed before the first step.
#[cold]
#[inline(never)]
fn look_up_ratio<'a>(car: &impl Fn() -> &'a Car, gear: u8) -> f64 {
    car().ratios.get((gear as usize).wrapping_sub(1)).copied().unwrap_or(RATIO_OF_NO_GEAR)
}

#[cold]
#[inline(never)]
fn look_up_line<'a>(car: &impl Fn() -> &'a Car, rpm: f64) -> TorqueLine {
    car().torque_nm.line_at(rpm)
}

/// What the driven tyres do at a given slip.
struct Tyre {
    /// Force on the car, in N.
    force_n: f64,
    /// How much it grows for each m/s more of tread speed, in N s/m; never negative.
    stiffness_ns_m: f64,
}

/// Slip, and one over the speed that it is measured against.
#[inline(always)]
fn slip(tread_mps: f64, speed_mps: f64) -> (f64, f64) {
    let against_mps = larger(larger(tread_mps, speed_mps), SLIP_SPEED_MIN_MPS);
    let per_against_mps = 1.0 / against_mps;
    ((tread_mps - speed_mps) * per_against_mps, per_against_mps)
}

/// Share of the weight on the driven wheels when the car accelerates. Gillespie, ch. 1: the load that moves to the rear
/// is m a h / L. With all wheels driven through a locked centre the whole weight pulls.
pub fn driven_load_share(car: &Car, accel_mps2: f64) -> f64 {
    Load::of(car).share(accel_mps2)
}

/// Where a car's weight goes, see [`driven_load_share`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Load {
    /// Share on the driven wheels at rest.
    at_rest: f64,
    /// What comes to it for each m/s².
    gained_per_mps2: f64,
}

impl Load {
    #[inline]
    fn of(car: &Car) -> Self {
        let front = car.front_weight_share;
        let moved_per_mps2 = car.cg_height_m / (GRAVITY_MPS2 * car.wheelbase_m);
        let (at_rest, gained_per_mps2) = match car.drive {
            Drive::Fwd => (front, -moved_per_mps2),
            Drive::Rwd => (1.0 - front, moved_per_mps2),
            Drive::Awd => (1.0, 0.0),
        };
        Self { at_rest, gained_per_mps2 }
    }

    #[inline(always)]
    fn share(&self, accel_mps2: f64) -> f64 {
        unit(self.at_rest + accel_mps2 * self.gained_per_mps2)
    }
}

/// Numbers of driven and of undriven wheels.
#[inline(always)]
fn wheels(car: &Car) -> (f64, f64) {
    if car.drive == Drive::Awd { (4.0, 0.0) } else { (2.0, 2.0) }
}

/// `value` cut to 0..1; a NaN becomes 0.
#[inline(always)]
fn unit(value: f64) -> f64 {
    if value >= 1.0 {
        1.0
    } else if value > 0.0 {
        value
    } else {
        0.0
    }
}

// Written out because `f64::min` and `f64::max` leave the sign of zero to the machine.
#[inline(always)]
fn larger(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

#[inline(always)]
fn smaller(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

#[inline(always)]
fn between(low: f64, value: f64, high: f64) -> f64 {
    smaller(larger(low, value), high)
}

#[inline(always)]
fn magnitude(value: f64) -> f64 {
    if value < 0.0 { -value } else { value }
}
