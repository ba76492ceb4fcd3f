//! Compares the model with published tests of every car, and the driver with the best that the car can do.

use drag_race::race::{Feet, Race};
use drag_race::timing::TimeSlip;
use drag_race::{Car, Driver, Plan, Shifts, TreeKind, cars, find_car};

/// One car alone on the strip, driven by `driver`: its time slip.
fn solo(car: &Car, mut driver: Driver, tick_hz: u32) -> TimeSlip {
    let (index, _) = find_car(&car.id).unwrap();
    let mut race = Race::new(1, tick_hz, TreeKind::Sportsman, &[index]);
    race.set_present(0, true);
    let mut happened = Vec::new();
    let mut feet = [Feet::default()];
    while !race.over() {
        race.tick(&feet, &mut happened);
        feet[0] = Feet { input: driver.drive(&race.snapshot()), age_frames: Some(0) };
    }
    race.results().next().unwrap().slip
}

fn planned(car: &'static Car, plan: Plan) -> TimeSlip {
    solo(car, Driver::with_plan(car, 0, plan), 50)
}

/// The best elapsed time of a search over launch and shift rpm and grip, one after the other, twice.
fn best(car: &'static Car) -> (Plan, TimeSlip) {
    let mut plan = Plan::of(car);
    let mut slip = planned(car, plan.clone());
    for _ in 0..2 {
        let launches =
            (-8..=8).map(|step| Plan { launch_rpm: plan.launch_rpm + f64::from(step) * 250.0, ..plan.clone() });
        let shifts = (-6..=6)
            .map(|step| Plan { shifts: Shifts::Rpm(shift_rpm(&plan) + f64::from(step) * 100.0), ..plan.clone() });
        let grips = (-4..=4).map(|step| Plan { grip_use: plan.grip_use + f64::from(step) * 0.02, ..plan.clone() });
        for tried in launches.chain(shifts).chain(grips).collect::<Vec<_>>() {
            let tried_slip = planned(car, tried.clone());
            if tried_slip.quarter_mile_s.unwrap_or(99.0) < slip.quarter_mile_s.unwrap_or(99.0) {
                (plan, slip) = (tried, tried_slip);
            }
        }
    }
    (plan, slip)
}

fn shift_rpm(plan: &Plan) -> f64 {
    match plan.shifts {
        Shifts::Rpm(rpm) => rpm,
        _ => panic!("{plan:?}"),
    }
}

#[test]
fn every_car_is_within_3_percent_of_its_published_quarter_mile() {
    let mut wrong = Vec::new();
    println!("| car | published | model | ET | trap | 60 ft | 0-1/8 | launch | shift | grip | advice ET |");
    for car in cars() {
        let (plan, slip) = best(car);
        let advised = planned(car, Plan::of(car));
        let published = car.published.unwrap();
        let (et_s, trap_mph) = (slip.quarter_mile_s.unwrap_or(99.0), slip.quarter_mile_mph.unwrap_or(0.0));
        let et_off = et_s / published.quarter_mile_s - 1.0;
        let trap_off = trap_mph / published.trap_mph - 1.0;
        println!(
            "| {} | {:.2} s @ {:.1} mph | {et_s:.2} s @ {trap_mph:.1} mph | {:+.1} % | {:+.1} % | {:.2} | {:.2} | {:.0} | {:.0} | {:.2} | {:.2} |",
            car.id,
            published.quarter_mile_s,
            published.trap_mph,
            100.0 * et_off,
            100.0 * trap_off,
            slip.sixty_foot_s.unwrap_or(0.0),
            slip.eighth_mile_s.unwrap_or(0.0),
            plan.launch_rpm,
            shift_rpm(&plan).min(car.limiter_rpm),
            plan.grip_use,
            advised.quarter_mile_s.unwrap_or(0.0),
        );
        let advised_s = advised.quarter_mile_s.unwrap_or(99.0);
        assert!(advised_s < et_s * 1.01, "{}: the catalogue's advice gives {advised_s} s, the search {et_s} s", car.id);
        if et_off.abs() > 0.03 || trap_off.abs() > 0.03 {
            wrong.push(car.id.clone());
        }
    }
    assert!(wrong.is_empty(), "off by more than 3 %: {wrong:?}");
}
