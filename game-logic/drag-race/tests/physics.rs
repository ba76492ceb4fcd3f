//! Sanity of the model: it converges with the step, and respects grip, energy, limiter and standstill.

use drag_race::physics::{CarState, Controls, GRAVITY_MPS2, RAD_S_PER_RPM, driven_load_share, step, torque_at};
use drag_race::race::SUBSTEP_MAX_MS;
use drag_race::timing::{BEAM_1320_FT, Timing};
use drag_race::{Car, Drive, Driver, Lamps, LaneView, Phase, Plan, Snapshot, Transmission, TreeKind, cars, find_car};
use proptest::prelude::*;

const TICK_S: f64 = 0.02;

/// A good driver's run from a standstill with `substeps` a tick; `look` sees every state before and after a substep.
/// Returns the time from the free start beam to the finish line, in s.
fn run(car: &'static Car, plan: Plan, substeps: u32, mut look: impl FnMut(&CarState, &CarState, f64)) -> f64 {
    let dt_s = TICK_S / f64::from(substeps);
    let mut driver = Driver::with_plan(car, 0, plan);
    let mut state = CarState::at_rest(car);
    let mut timing = Timing::default();
    for tick in 0..2000_u32 {
        // Half a second to rev, then the green lamp.
        let snapshot = Snapshot {
            frame: tick,
            time_ms: tick * 20,
            tree: TreeKind::Pro,
            lamps: Lamps { ambers: 0, green: tick >= 25 },
            lanes: vec![view(car, &state)],
        };
        let input = driver.drive(&snapshot);
        let controls = Controls {
            throttle: f64::from(input.throttle) / 255.0,
            left_pedal: f64::from(input.clutch) / 255.0,
            brake: 0.0,
            gear: input.gear,
        };
        for substep in 0..substeps {
            let before = state;
            step(car, &mut state, &controls, dt_s);
            look(&before, &state, dt_s);
            let at_s = f64::from(tick) * TICK_S + f64::from(substep) * dt_s;
            timing.note(before.distance_m, state.distance_m, at_s, dt_s);
            if let Some(elapsed_s) = timing.elapsed_s(BEAM_1320_FT) {
                return elapsed_s;
            }
        }
    }
    panic!("{} did not finish: {state:?}", car.id)
}

fn view(car: &Car, state: &CarState) -> LaneView {
    LaneView {
        phase: Phase::Staged,
        red_light: false,
        shifting: state.shift_left_s > 0.0,
        wheel_spin: false,
        gear: state.gear,
        distance_m: state.distance_m as f32,
        speed_mps: state.speed_mps as f32,
        tread_mps: state.tread_mps(car) as f32,
        rpm: state.engine_rpm() as f32,
        reaction_s: None,
        elapsed_s: None,
    }
}

#[test]
fn the_races_step_is_within_0_1_percent_of_one_of_0_25_ms() {
    for car in cars() {
        // At the tyres' very peak a driver's corrections are a game of their own; this one stays a little below.
        let plan = Plan { grip_use: 0.8, ..Plan::of(car) };
        let time = |substeps| run(car, plan.clone(), substeps, |_, _, _| {});
        let (race_s, half_s, finest_s) = (time(20 / SUBSTEP_MAX_MS), time(40 / SUBSTEP_MAX_MS), time(80));
        println!("{:14} the race's step {race_s:.4} s, half of it {half_s:.4} s, 0.25 ms {finest_s:.4} s", car.id);
        // The driver's feet move every 20 ms, so a shift may fall into another tick: the times jump by a few ms.
        for time_s in [race_s, half_s] {
            assert!((time_s / finest_s - 1.0).abs() < 1e-3, "{}: {time_s} s against {finest_s} s", car.id);
        }
    }
}

#[test]
fn nothing_accelerates_beyond_its_grip_or_makes_energy() {
    for car in cars() {
        let wheels = if car.drive == Drive::Awd { 4.0 } else { 2.0 };
        let energy = |state: &CarState| {
            0.5 * (car.mass_kg * state.speed_mps * state.speed_mps
                + wheels * car.wheel_inertia_kgm2 * state.wheel_rad_s * state.wheel_rad_s
                + car.engine_inertia_kgm2 * state.engine_rad_s * state.engine_rad_s)
        };
        let mut given = energy(&CarState::at_rest(car));
        run(car, Plan::of(car), 20 / SUBSTEP_MAX_MS, |before, after, dt_s| {
            let grip = car.tyre_grip * driven_load_share(car, before.settled_accel_mps2) * GRAVITY_MPS2;
            let accel = (after.speed_mps - before.speed_mps) / dt_s;
            assert!(accel <= grip * 1.000_001, "{}: {accel} m/s² with a grip of {grip} in {before:?}", car.id);
            assert!(after.distance_m >= before.distance_m && after.speed_mps >= 0.0, "{}", car.id);
            let rad_s = before.engine_rad_s.max(after.engine_rad_s);
            // Idle control may add up to its stiffness below idle.
            given += (torque_at(car, before.engine_rpm()) + 50.0 * f64::from(before.engine_rpm() < car.idle_rpm))
                * rad_s
                * dt_s;
            assert!(energy(after) <= given * 1.01 + 50.0, "{}: {} J of {given} J in {after:?}", car.id, energy(after));
        });
    }
}

#[test]
fn an_engine_revs_to_its_limiter_and_idles() {
    for car in cars().iter().filter(|car| car.has_clutch()) {
        let mut state = CarState::at_rest(car);
        let mut rev = |throttle: f64| {
            for _ in 0..2000 {
                step(car, &mut state, &Controls { throttle, left_pedal: 1.0, ..Controls::default() }, 0.002);
            }
            assert_eq!((state.speed_mps, state.distance_m), (0.0, 0.0), "{}", car.id);
            state.engine_rpm()
        };
        let limited = rev(1.0);
        assert!(limited > car.limiter_rpm - 50.0 && limited < car.limiter_rpm + 150.0, "{}: {limited} rpm", car.id);
        let idle = rev(0.0);
        assert!((idle - car.idle_rpm).abs() < 50.0, "{}: {idle} rpm", car.id);
    }
}

#[test]
fn a_braked_converter_lets_the_engine_rev_to_its_stall_speed_and_no_more() {
    for car in cars() {
        let Transmission::Automatic { stall_rpm, .. } = car.transmission else { continue };
        let rpm_at = |throttle: f64| {
            let mut state = CarState::at_rest(car);
            for _ in 0..1500 {
                step(car, &mut state, &Controls { throttle, left_pedal: 1.0, ..Controls::default() }, 0.002);
            }
            assert_eq!(state.distance_m, 0.0, "{}", car.id);
            state.engine_rpm()
        };
        let (low, high) = (rpm_at(0.2), rpm_at(0.4));
        assert!(low > 0.9 * car.idle_rpm && high > low + 100.0 && high < stall_rpm, "{}: {low} and {high} rpm", car.id);
    }
}

#[test]
fn a_car_left_alone_stops_and_stays() {
    for car in cars() {
        let mut state = CarState::at_rest(car);
        state.speed_mps = 40.0;
        state.wheel_rad_s = 40.0 / car.tyre_radius_m;
        let nobody =
            Controls { left_pedal: if car.has_clutch() { 1.0 } else { 0.0 }, brake: 0.4, ..Controls::default() };
        for _ in 0..15_000 {
            step(car, &mut state, &nobody, 0.002);
        }
        let at_m = state.distance_m;
        assert!(state.speed_mps == 0.0 && at_m > 50.0 && at_m < 400.0, "{}: {state:?}", car.id);
        step(car, &mut state, &nobody, 0.002);
        assert_eq!(state.distance_m, at_m, "{}", car.id);
    }
}

#[test]
fn a_gear_that_would_break_the_engine_is_not_taken() {
    let (_, car) = find_car("mx5").unwrap();
    let mut state = CarState { gear: 3, speed_mps: 30.0, ..CarState::at_rest(car) };
    state.wheel_rad_s = 30.0 / car.tyre_radius_m;
    state.engine_rad_s = state.wheel_rad_s * car.ratios[2];
    assert!(state.engine_rad_s < car.limiter_rpm * RAD_S_PER_RPM);
    step(car, &mut state, &Controls { gear: 1, ..Controls::default() }, 0.002);
    assert_eq!(state.gear, 3);
    step(car, &mut state, &Controls { gear: 4, ..Controls::default() }, 0.002);
    assert_eq!((state.gear, state.shift_left_s > 0.0), (4, true));
    // The wish for fifth waits until fourth is in.
    step(car, &mut state, &Controls { gear: 5, ..Controls::default() }, 0.002);
    assert_eq!(state.gear, 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_controls_keep_every_figure_finite(
        car in 0..cars().len(),
        feet in prop::collection::vec((any::<f64>(), any::<f64>(), any::<f64>(), any::<u8>(), 1u32..40), 1..40),
        dt_ms in 1u32..5,
    ) {
        let car = &cars()[car];
        let mut state = CarState::at_rest(car);
        let mut distance_m = 0.0;
        for (throttle, left_pedal, brake, gear, steps) in feet {
            for _ in 0..steps {
                let controls = Controls { throttle, left_pedal, brake, gear: gear % 12 };
                step(car, &mut state, &controls, f64::from(dt_ms) / 1000.0);
                for figure in [state.distance_m, state.speed_mps, state.engine_rad_s, state.wheel_rad_s, state.settled_accel_mps2] {
                    prop_assert!(figure.is_finite(), "{}: {state:?}", car.id);
                }
                prop_assert!(state.distance_m >= distance_m && state.speed_mps >= 0.0 && state.wheel_rad_s >= 0.0);
                prop_assert!(state.engine_rpm() < 1.6 * car.limiter_rpm, "{}: {} rpm", car.id, state.engine_rpm());
                distance_m = state.distance_m;
            }
        }
    }
}
