//! The driver: hits the reaction it tries for, gets better with skill, and stays safe when it sees nothing new.

use std::collections::VecDeque;

use drag_race::race::{Feet, LaneResult, Race};
use drag_race::{Driver, Input, Phase, Plan, Snapshot, TreeKind, cars, find_car};

/// A lone run in which inputs take effect `delay_frames` after the snapshot that they answer, and every snapshot for
/// which `lost` says so never comes.
fn run(car: &str, mut driver: Driver, tree: TreeKind, delay_frames: usize, lost: impl Fn(u32) -> bool) -> LaneResult {
    let mut race = Race::new(3, 50, tree, &[find_car(car).unwrap().0]);
    race.set_present(0, true);
    let mut under_way: VecDeque<Input> = vec![Input::default(); delay_frames].into();
    let mut happened = Vec::new();
    let mut seen: Option<Snapshot> = None;
    let mut feet = [Feet { input: Input::default(), age_frames: Some(0) }];
    while !race.over() {
        race.tick(&feet, &mut happened);
        let snapshot = race.snapshot();
        if !lost(snapshot.frame) {
            seen = Some(snapshot);
        }
        under_way.push_back(seen.as_ref().map_or_else(Input::default, |snapshot| driver.drive(snapshot)));
        feet[0].input = under_way.pop_front().unwrap();
    }
    race.results().next().unwrap()
}

fn never(_: u32) -> bool {
    false
}

#[test]
fn a_driver_leaves_when_it_means_to() {
    for car in cars() {
        for (tree, reaction_s) in [(TreeKind::Sportsman, 0.0), (TreeKind::Sportsman, 0.123), (TreeKind::Pro, 0.4)] {
            let mut driver = Driver::with_plan(car, 0, Plan::of(car));
            driver.set_reaction_s(reaction_s);
            let real_s = run(&car.id, driver, tree, 0, never).slip.reaction_s.unwrap();
            assert!((real_s - reaction_s).abs() < 0.03, "{} on {tree:?}: {real_s} s for {reaction_s} s", car.id);
        }
    }
}

#[test]
fn nobody_beats_the_eye_on_a_pro_tree() {
    for car in cars() {
        let mut driver = Driver::with_plan(car, 0, Plan::of(car));
        driver.set_reaction_s(-0.3);
        let result = run(&car.id, driver, TreeKind::Pro, 0, never);
        // The foot moves 0.15 s after the ambers at the earliest, 0.25 s before green.
        assert!(result.slip.reaction_s.unwrap() > -0.25, "{}: {:?}", car.id, result.slip.reaction_s);
    }
}

#[test]
fn a_driver_that_knows_of_its_delay_makes_up_for_it() {
    for delay_frames in [1, 3, 5] {
        let mut driver = Driver::with_plan(find_car("wrx").unwrap().1, 0, Plan::of(find_car("wrx").unwrap().1));
        driver.set_reaction_s(0.05);
        driver.set_delay_ms(delay_frames as u32 * 20);
        let result = run("wrx", driver, TreeKind::Sportsman, delay_frames, never);
        let reaction_s = result.slip.reaction_s.unwrap();
        assert!((reaction_s - 0.05).abs() < 0.03, "{delay_frames} frames: {reaction_s} s");
        assert!(result.slip.quarter_mile_s.unwrap() < 14.0, "{delay_frames} frames: {:?}", result.slip);
    }
}

#[test]
fn skill_shows_in_the_time_from_green_to_the_line() {
    for car in ["golf_gti", "hellcat", "mx5", "model_3p"] {
        let mean = |skill: f64| {
            let times: Vec<f64> = (0..24)
                .map(|seed| {
                    let slip = run(car, Driver::new(car, 0, skill, seed).unwrap(), TreeKind::Sportsman, 0, never).slip;
                    slip.quarter_mile_s.unwrap() + slip.reaction_s.unwrap()
                })
                .collect();
            times.iter().sum::<f64>() / times.len() as f64
        };
        let (beginner_s, fair_s, expert_s) = (mean(0.0), mean(0.5), mean(1.0));
        println!("{car}: {beginner_s:.3} s, {fair_s:.3} s, {expert_s:.3} s");
        assert!(beginner_s > fair_s + 0.05 && fair_s > expert_s + 0.05, "{car}");
    }
}

#[test]
fn few_drivers_jump_the_light_whatever_their_skill() {
    for skill in [0.0, 0.5, 1.0] {
        let red = (0..400).filter(|seed| Driver::new("mx5", 0, skill, *seed).unwrap().reaction_s() < 0.0).count();
        assert!(red < 20, "{red} of 400 at skill {skill}");
    }
}

#[test]
fn the_seed_decides_a_driver() {
    let slip = |seed| run("mx5", Driver::new("mx5", 0, 0.3, seed).unwrap(), TreeKind::Sportsman, 0, never).slip;
    assert_eq!(slip(5), slip(5));
    assert_ne!(slip(5), slip(6));
}

#[test]
fn lost_snapshots_cost_little() {
    for car in ["mx5", "corvette_c8", "hellcat"] {
        let (_, entry) = find_car(car).unwrap();
        let clean = run(car, Driver::with_plan(entry, 0, Plan::of(entry)), TreeKind::Sportsman, 0, never).slip;
        for phase in 0..3 {
            let lost = move |frame: u32| frame % 3 == phase;
            let slip = run(car, Driver::with_plan(entry, 0, Plan::of(entry)), TreeKind::Sportsman, 0, lost).slip;
            let more_s = slip.quarter_mile_s.unwrap() - clean.quarter_mile_s.unwrap();
            assert!(more_s < 0.3, "{car}: {more_s} s more");
        }
    }
}

#[test]
fn a_driver_who_sees_nothing_new_lifts_and_does_not_leave_the_line() {
    let (_, car) = find_car("mx5").unwrap();
    let mut race = Race::new(3, 50, TreeKind::Sportsman, &[find_car("mx5").unwrap().0]);
    race.set_present(0, true);
    let mut driver = Driver::with_plan(car, 0, Plan::of(car));
    let mut happened = Vec::new();
    let mut feet = [Feet { input: Input { throttle: 0, clutch: 255, gear: 1 }, age_frames: Some(0) }];
    for _ in 0..70 {
        race.tick(&feet, &mut happened);
        feet[0].input = driver.drive(&race.snapshot());
    }
    let frozen = race.snapshot();
    assert_eq!(frozen.lanes[0].phase, Phase::Staged);
    let inputs: Vec<Input> = (0..200).map(|_| driver.drive(&frozen)).collect();
    assert!(inputs.iter().all(|input| input.clutch == 255) && inputs[100..].iter().all(|input| input.throttle == 0));
}

#[test]
fn a_snapshot_without_the_drivers_lane_is_no_disaster() {
    let mut race = Race::new(3, 50, TreeKind::Pro, &[0]);
    race.tick(&[], &mut Vec::new());
    assert_eq!(Driver::new("mx5", 7, 0.5, 1).unwrap().drive(&race.snapshot()), Input::default());
    assert!(Driver::new("horse", 0, 0.5, 1).is_err());
    for skill in [f64::NAN, -3.0, 9.0, f64::INFINITY] {
        let driver = Driver::new("mx5", 0, skill, 1).unwrap();
        assert!(run("mx5", driver, TreeKind::Pro, 0, never).slip.quarter_mile_s.unwrap() < 20.0, "{skill}");
    }
}

#[test]
fn a_gear_that_no_car_has_is_no_disaster() {
    let mut race = Race::new(3, 50, TreeKind::Pro, &[0]);
    race.tick(&[], &mut Vec::new());
    for gear in [0, u8::MAX] {
        let mut driver = Driver::new("mx5", 0, 0.5, 1).unwrap();
        driver.set_reaction_s(-9.0);
        let mut snapshot = race.snapshot();
        snapshot.lamps.green = true;
        snapshot.lanes[0].phase = Phase::Racing;
        snapshot.lanes[0].gear = gear;
        let inputs: Vec<Input> = (0..20)
            .map(|_| {
                snapshot.time_ms += 20;
                driver.drive(&snapshot)
            })
            .collect();
        // The foot has come up, so the driver has looked at the gear.
        assert_ne!(inputs[19].clutch, 255, "{gear}");
    }
}
