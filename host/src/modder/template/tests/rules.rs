//! The rules tick by tick, with no host. The bench also saves and restores the state in every frame, and finds a field that does not survive that.

use drag_race::{DragRace, Driver, Input, find_car};
use holeshot_guest::Rules;
use holeshot_guest::bench::Bench;
use my_rules::{MyRules, RED_LIGHT_S};

/// Longest race in frames, of 20 ms each.
const LIMIT: u32 = 170 * 50;

/// Both feet on the pedals, until there is something to see.
const WAITING: Input = Input {
    throttle: 0,
    clutch: 255,
    gear: 1,
};

/// A race of an MX-5, which leaves at green, and a Hellcat, which leaves before it.
fn race_with_a_red_light<R: Rules<Input = Input, Snapshot = drag_race::Snapshot>>() -> Bench<R> {
    let mut bench = Bench::<R>::new(
        7,
        "",
        &[("Ada", r#"{"car":"mx5"}"#), ("Ben", r#"{"car":"hellcat"}"#)],
    )
    .unwrap();
    bench.join_all();
    for (lane, id, reaction_s) in [(0, "mx5", 0.1), (1, "hellcat", -0.3)] {
        let (_, car) = find_car(id).unwrap();
        let mut driver = Driver::with_plan(car, lane, drag_race::Plan::of(car));
        driver.set_reaction_s(reaction_s);
        bench.answer(lane as u16, move |_, seen| {
            Some(seen.map_or(WAITING, |snapshot| driver.drive(&snapshot)))
        });
    }
    bench
}

#[test]
fn a_red_light_costs_time_and_not_the_race() {
    let mut bench = race_with_a_red_light::<MyRules>();
    let penalty = bench.run_to_event("penalty", LIMIT).unwrap();
    assert_eq!(
        (&penalty.data["lane"], &penalty.data["seconds"]),
        (&1.into(), &RED_LIGHT_S.into())
    );
    let results = bench.run_to_results(LIMIT).unwrap();
    // The Hellcat is two seconds quicker: one of them is the price.
    assert_eq!(
        (results[0].outcome.as_str(), results[1].outcome.as_str()),
        ("lost", "won")
    );
    assert_eq!(results[1].data["penalty_s"], RED_LIGHT_S);
    assert_eq!(results[1].data["red_light"], true);
}

#[test]
fn a_race_that_runs_is_taken_over_with_its_red_light() {
    let mut bench = race_with_a_red_light::<DragRace>();
    let red = bench.run_to_event("red_light", LIMIT).unwrap();
    bench.run_to_frame(red.frame + 100);
    let mut bench = bench.swap::<MyRules>().unwrap();
    let results = bench.run_to_results(LIMIT).unwrap();
    assert_eq!(
        (results[0].outcome.as_str(), results[1].outcome.as_str()),
        ("lost", "won")
    );
    assert_eq!(results[1].data["penalty_s"], RED_LIGHT_S);
}
