//! The rules on the SDK's test bench: every frame is also saved, restored and compared, so each of these races is a
//! test of the state too.

use drag_race::race::{Feet, Race};
use drag_race::{DragRace, Driver, Input, Judging, Phase, Plan, Snapshot, TreeKind, cars, find_car};
use holeshot_guest::bench::Bench;
use holeshot_guest::{LeaveReason, PlayerResult, Rules, Setup};
use proptest::prelude::*;
use serde_json::Value;

/// Longest race in frames: the manifest's bound.
const LIMIT: u32 = 170 * 50;

const PEDAL_DOWN: Input = Input { throttle: 0, clutch: 255, gear: 1 };
const GO: Input = Input { throttle: 255, clutch: 0, gear: 1 };

fn bench(options: &str, cars: &[&str]) -> Bench<DragRace> {
    let data: Vec<String> = cars.iter().map(|car| format!("{{\"car\":\"{car}\"}}")).collect();
    let players: Vec<(&str, &str)> = data.iter().map(|data| ("Ada", data.as_str())).collect();
    Bench::new(7, options, &players).unwrap()
}

/// Lets `driver` play: it answers every snapshot it sees.
fn drives(bench: &mut Bench<DragRace>, player: u16, mut driver: Driver) {
    bench.control(player, move |_, seen| {
        Some(seen.map_or(PEDAL_DOWN, |bytes| driver.drive(&postcard::from_bytes::<Snapshot>(bytes).unwrap())))
    });
}

fn driver(car: &str, lane: usize, reaction_s: f64) -> Driver {
    let (_, car) = find_car(car).unwrap();
    let mut driver = Driver::with_plan(car, lane, Plan::of(car));
    driver.set_reaction_s(reaction_s);
    driver
}

fn number(result: &PlayerResult<Value>, field: &str) -> f64 {
    result.data[field].as_f64().unwrap_or_else(|| panic!("no number {field} in {}", result.data))
}

fn outcomes(results: &[PlayerResult<Value>]) -> Vec<(&str, Option<u16>)> {
    results.iter().map(|result| (result.outcome.as_str(), result.place)).collect()
}

fn names(bench: &Bench<DragRace>) -> Vec<&str> {
    bench.events().iter().map(|event| event.name.as_str()).collect()
}

#[test]
fn a_race_of_two_goes_from_staging_to_time_slips() {
    let mut bench = bench("", &["mustang_gt", "wrx"]);
    bench.join_all();
    drives(&mut bench, 0, driver("mustang_gt", 0, 0.05));
    drives(&mut bench, 1, driver("wrx", 1, 0.2));
    let results = bench.run_to_results(LIMIT).unwrap().to_vec();
    assert_eq!(outcomes(&results), [("won", Some(1)), ("lost", Some(2))]);
    for result in &results {
        let times = ["sixty_foot_s", "three_thirty_foot_s", "eighth_mile_s", "thousand_foot_s", "quarter_mile_s"]
            .map(|field| number(result, field));
        assert!(times.is_sorted() && times[0] > 1.0, "{times:?}");
        let mph = number(result, "quarter_mile_mph");
        assert!(mph > number(result, "eighth_mile_mph"));
        assert!((number(result, "quarter_mile_mps") / 0.44704 - mph).abs() < 0.02);
    }
    let total = |result: &PlayerResult<Value>| number(result, "reaction_s") + number(result, "quarter_mile_s");
    let margin = total(&results[1]) - total(&results[0]);
    assert!((number(&results[0], "margin_s") - margin).abs() < 3e-4);
    assert!((number(&results[1], "margin_s") - margin).abs() < 3e-4);
    assert_eq!(
        names(&bench),
        [
            "staged",
            "tree_started",
            "launched",
            "launched",
            "sixty_foot",
            "sixty_foot",
            "three_thirty_foot",
            "three_thirty_foot",
            "eighth_mile",
            "eighth_mile",
            "thousand_foot",
            "thousand_foot",
            "quarter_mile",
            "time_slip",
            "quarter_mile",
            "time_slip",
            "race_decided",
        ]
    );
}

#[test]
fn a_slower_car_wins_on_the_start() {
    let mut bench = bench("{\"tree\":\"sportsman\"}", &["carrera_s", "gtr"]);
    bench.join_all();
    drives(&mut bench, 0, driver("carrera_s", 0, 0.02));
    drives(&mut bench, 1, driver("gtr", 1, 0.35));
    // The GT-R is quicker, but by less than it slept.
    let results = bench.run_to_results(LIMIT).unwrap().to_vec();
    assert_eq!(outcomes(&results), [("won", Some(1)), ("lost", Some(2))]);
    assert!(number(&results[0], "quarter_mile_s") > number(&results[1], "quarter_mile_s"));
    assert_eq!((&results[0].data["holeshot"], &results[1].data["holeshot"]), (&true.into(), &false.into()));
    let decided = bench.events().iter().find(|event| event.name == "race_decided").unwrap();
    assert_eq!((&decided.data["winners"], &decided.data["holeshot"]), (&serde_json::json!([0]), &true.into()));
}

#[test]
fn a_win_without_need_of_the_start_is_no_holeshot() {
    let mut bench = bench("", &["hellcat", "mx5"]);
    bench.join_all();
    drives(&mut bench, 0, driver("hellcat", 0, 0.3));
    drives(&mut bench, 1, driver("mx5", 1, 0.02));
    let results = bench.run_to_results(LIMIT).unwrap();
    assert_eq!(outcomes(results), [("won", Some(1)), ("lost", Some(2))]);
    assert_eq!(results[0].data["holeshot"], false);
}

#[test]
fn equal_runs_are_a_dead_heat() {
    let mut bench = bench("", &["mx5", "mx5"]);
    bench.join_all();
    drives(&mut bench, 0, driver("mx5", 0, 0.05));
    drives(&mut bench, 1, driver("mx5", 1, 0.05));
    let results = bench.run_to_results(LIMIT).unwrap();
    assert_eq!(outcomes(results), [("dead_heat", Some(1)), ("dead_heat", Some(1))]);
    assert_eq!(results[0].data["quarter_mile_s"], results[1].data["quarter_mile_s"]);
    let decided = bench.events().last().unwrap();
    assert_eq!(decided.data["winners"], serde_json::json!([0, 1]));
}

#[test]
fn leaving_before_green_is_a_red_light_and_loses() {
    let mut bench = bench("", &["hellcat", "mx5"]);
    bench.join_all();
    drives(&mut bench, 0, driver("hellcat", 0, -0.04));
    drives(&mut bench, 1, driver("mx5", 1, 0.4));
    let red = bench.run_to_event("red_light", LIMIT).unwrap();
    let reaction_s = red.data["lanes"][0]["reaction_s"].as_f64().unwrap();
    assert!((-0.2..0.0).contains(&reaction_s), "{reaction_s}");
    assert!(bench.last_snapshot::<Snapshot>(1).unwrap().lanes[0].red_light);
    let results = bench.run_to_results(LIMIT).unwrap();
    assert_eq!(outcomes(results), [("red_light", Some(2)), ("won", Some(1))]);
    // The foul still gets its times.
    assert!(number(&results[0], "quarter_mile_s") < number(&results[1], "quarter_mile_s"));
    // But none that is compared with others'.
    assert_eq!(results[0].data.get("elapsed_s"), None);
    assert_eq!(results[1].data["elapsed_s"], results[1].data["quarter_mile_s"]);
    assert_eq!((&results[0].data["class"], &results[1].data["class"]), (&"12.0".into(), &"15.0".into()));
    assert_eq!(results[0].data["distance_m"], 402.336);
}

#[test]
fn of_two_red_lights_the_first_loses() {
    let mut bench = bench("", &["mx5", "mx5"]);
    bench.join_all();
    drives(&mut bench, 0, driver("mx5", 0, -0.05));
    drives(&mut bench, 1, driver("mx5", 1, -0.25));
    let results = bench.run_to_results(LIMIT).unwrap();
    assert_eq!(outcomes(results), [("won", Some(1)), ("red_light", Some(2))]);
    assert_eq!((&results[0].data["red_light"], &results[1].data["red_light"]), (&true.into(), &true.into()));
}

#[test]
fn rolling_out_of_the_beam_before_the_tree_starts_is_a_red_light_too() {
    let mut bench = bench("", &["mx5", "mx5"]);
    bench.join_all();
    bench.script(0, 0..60, PEDAL_DOWN).script(0, 60..400, Input { throttle: 120, clutch: 0, gear: 1 });
    drives(&mut bench, 1, driver("mx5", 1, 0.1));
    let red = bench.run_to_event("red_light", LIMIT).unwrap();
    assert_eq!(red.data["lanes"][0]["lane"], 0);
    let results = bench.run_to_results(LIMIT).unwrap();
    assert_eq!(outcomes(results)[1], ("won", Some(1)));
    assert!(number(&results[0], "reaction_s") < -1.0);
}

#[test]
fn a_lone_player_has_a_bye() {
    let mut bench = bench("", &["mx5"]);
    bench.join_all();
    drives(&mut bench, 0, driver("mx5", 0, 0.1));
    assert_eq!(outcomes(bench.run_to_results(LIMIT).unwrap()), [("won", Some(1))]);
}

#[test]
fn a_player_who_never_comes_leaves_the_other_a_bye() {
    let mut bench = bench("", &["mx5", "hellcat"]);
    bench.join(0);
    drives(&mut bench, 0, driver("mx5", 0, 0.1));
    let results = bench.run_to_results(LIMIT).unwrap();
    assert_eq!(outcomes(results), [("won", Some(1)), ("left", None)]);
    // Three seconds of grace, the tree, fifteen seconds of run: nobody waited for longer.
    assert!(bench.frame() < 26 * 50, "{}", bench.frame());
}

/// Other rules may let a red light cost time. It never gains any: the clock then runs from when the car left.
#[test]
fn a_red_light_may_cost_a_penalty_in_place_of_the_race() {
    let mut bench = bench("", &["mx5", "hellcat"]);
    bench.join_all();
    drives(&mut bench, 0, driver("mx5", 0, 0.1));
    drives(&mut bench, 1, driver("hellcat", 1, -0.3));
    let strip = bench.run_to_results(LIMIT).unwrap().to_vec();
    assert_eq!(outcomes(&strip), [("won", Some(1)), ("red_light", Some(2))]);
    assert!(strip[1].data.get("penalty_s").is_none());

    let judged = |penalties_s: &[f64]| {
        let judging = Judging { red_light_loses: false, penalties_s };
        let results: Vec<_> = bench.rules().results(judging).collect();
        let race: Vec<_> = bench.rules().race().results_by(judging).map(|lane| (lane.outcome, lane.place)).collect();
        assert_eq!(race, results.iter().map(|lane| (lane.outcome.clone(), lane.place)).collect::<Vec<_>>());
        results
    };
    let (reaction_s, slower_s) = (number(&strip[0], "reaction_s"), number(&strip[0], "quarter_mile_s"));
    let quicker_s = number(&strip[1], "quarter_mile_s");
    let lead_s = reaction_s + slower_s - quicker_s;
    let results = judged(&[0.0, 1.0]);
    assert_eq!((results[1].outcome.as_str(), results[1].place, results[1].data.penalty_s), ("won", Some(1), Some(1.0)));
    assert!(results[1].data.red_light && results[0].outcome == "lost" && results[0].data.penalty_s.is_none());
    assert!((results[1].data.margin_s.unwrap() - (lead_s - 1.0)).abs() < 2e-4, "{results:?} {lead_s}");
    // A penalty that is dear enough costs the race, and the start that decided it is a holeshot only with times that count it.
    let results = judged(&[0.0, lead_s + 0.01]);
    assert_eq!((results[0].outcome.as_str(), results[1].outcome.as_str(), results[1].place), ("won", "lost", Some(2)));
    assert!(!results[0].data.holeshot && (results[0].data.margin_s.unwrap() - 0.01).abs() < 2e-4, "{results:?}");
    // Fair lanes too may get one; a slip knows nothing of it.
    let results = judged(&[0.5, lead_s]);
    assert_eq!((results[1].outcome.as_str(), results[0].data.penalty_s), ("won", Some(0.5)));
    assert_eq!(results[0].data.slip.quarter_mile_s, Some(slower_s));
}

#[test]
fn a_player_who_never_stages_is_not_waited_for() {
    let mut bench = bench("", &["mx5", "hellcat"]);
    bench.join_all();
    drives(&mut bench, 0, driver("mx5", 0, 0.1));
    bench.script(1, 0..LIMIT, Input { throttle: 255, clutch: 0, gear: 3 });
    let tree = bench.run_to_event("tree_started", LIMIT).unwrap();
    assert!((8 * 50..11 * 50).contains(&tree.frame), "{}", tree.frame);
    let snapshot: Snapshot = bench.last_snapshot(0).unwrap();
    assert_eq!((snapshot.lanes[1].phase, snapshot.lanes[1].distance_m), (Phase::Out, 0.0));
    assert_eq!(outcomes(bench.run_to_results(LIMIT).unwrap()), [("won", Some(1)), ("did_not_stage", None)]);
}

#[test]
fn a_race_in_which_nobody_does_anything_ends_without_a_winner() {
    let mut bench = bench("", &["mx5", "hellcat"]);
    bench.join_all();
    let results = bench.run_to_results(LIMIT).unwrap();
    assert_eq!(outcomes(results), [("did_not_stage", None), ("did_not_stage", None)]);
    assert_eq!(bench.frame(), (20 + 2) * 50);
}

#[test]
fn a_player_who_leaves_on_the_way_slows_down_and_the_other_finishes() {
    let mut bench = bench("", &["mx5", "hellcat"]);
    bench.join_all();
    drives(&mut bench, 0, driver("mx5", 0, 0.1));
    drives(&mut bench, 1, driver("hellcat", 1, 0.1));
    let tree = bench.run_to_event("tree_started", LIMIT).unwrap();
    bench.run_to_frame(tree.frame + 75 + 150);
    let before: Snapshot = bench.last_snapshot(0).unwrap();
    bench.leave(1, LeaveReason::ConnectionLost);
    bench.run_to_frame(tree.frame + 75 + 150 + 50);
    let after: Snapshot = bench.last_snapshot(0).unwrap();
    assert!(after.lanes[1].speed_mps < before.lanes[1].speed_mps - 2.0, "{before:?} {after:?}");
    let results = bench.run_to_results(LIMIT).unwrap();
    assert_eq!(outcomes(results), [("won", Some(1)), ("left", Some(2))]);
    assert!(results[1].data["quarter_mile_s"].is_null() && number(&results[1], "sixty_foot_s") > 1.0);
}

#[test]
fn a_player_who_comes_back_in_time_races_on() {
    let mut bench = bench("", &["mx5"]);
    bench.join_all();
    drives(&mut bench, 0, driver("mx5", 0, 0.1));
    let tree = bench.run_to_event("tree_started", LIMIT).unwrap();
    bench.run_to_frame(tree.frame + 200).leave(0, LeaveReason::ConnectionLost);
    bench.run_to_frame(tree.frame + 300).join(0).script(0, tree.frame + 300..LIMIT, Input { gear: 3, ..GO });
    assert_eq!(outcomes(bench.run_to_results(LIMIT).unwrap()), [("won", Some(1))]);
}

#[test]
fn a_car_left_without_inputs_does_not_finish_but_is_not_waited_for_long() {
    let mut bench = bench("", &["mx5", "mx5"]);
    bench.join_all();
    drives(&mut bench, 0, driver("mx5", 0, 0.1));
    drives(&mut bench, 1, driver("mx5", 1, 0.1));
    let tree = bench.run_to_event("tree_started", LIMIT).unwrap();
    bench.lose(1, tree.frame + 120..LIMIT);
    let results = bench.run_to_results(LIMIT).unwrap();
    assert_eq!(outcomes(results), [("won", Some(1)), ("did_not_finish", Some(2))]);
    assert!(bench.frame() < tree.frame + 75 + 63 * 50, "{}", bench.frame());
}

/// Gears seen from launch to finish, without repetitions, and the time slip.
fn gears_with_losses(lost: impl Fn(u32) -> bool + 'static) -> (Vec<u8>, Value) {
    let mut bench = bench("", &["mx5"]);
    bench.join_all();
    let mut driver = driver("mx5", 0, 0.1);
    bench.control(0, move |frame, seen| {
        let input = seen.map_or(PEDAL_DOWN, |bytes| driver.drive(&postcard::from_bytes::<Snapshot>(bytes).unwrap()));
        (!lost(frame)).then_some(input)
    });
    let slip = bench.run_to_results(LIMIT).unwrap()[0].data.clone();
    let mut gears: Vec<u8> = bench
        .snapshots()
        .iter()
        .map(|snapshot| postcard::from_bytes::<Snapshot>(&snapshot.bytes).unwrap().lanes[0].gear)
        .collect();
    gears.dedup();
    (gears, slip)
}

#[test]
fn an_input_that_is_lost_or_repeated_neither_doubles_nor_loses_a_shift() {
    let (gears, clean) = gears_with_losses(|_| false);
    assert_eq!(gears, [1, 2, 3, 4]);
    // Two of three inputs lost, in every phase; then bursts of 8 frames.
    for phase in 0..3 {
        assert_eq!(gears_with_losses(move |frame| frame % 3 != phase).0, gears);
    }
    let (burst, slip) = gears_with_losses(|frame| frame % 20 < 8);
    assert_eq!(burst, gears);
    let lag = slip["quarter_mile_s"].as_f64().unwrap() - clean["quarter_mile_s"].as_f64().unwrap();
    assert!(lag.abs() < 0.5, "{lag} s");
}

#[test]
fn the_trees_differ_as_they_should() {
    for (options, step_frames) in [("{\"tree\":\"pro\"}", 20), ("{\"tree\":\"sportsman\"}", 75), ("", 75)] {
        let mut bench = bench(options, &["mx5"]);
        bench.join_all().script(0, 0..LIMIT, PEDAL_DOWN);
        let tree = bench.run_to_event("tree_started", LIMIT).unwrap();
        assert_eq!(tree.data["green_in_ms"], step_frames * 20);
        let lit = bench.last_snapshot::<Snapshot>(0).unwrap();
        assert!(lit.lamps.ambers != 0 && !lit.lamps.green);
        bench.run_to_frame(tree.frame + step_frames);
        assert!(!bench.last_snapshot::<Snapshot>(0).unwrap().lamps.green);
        bench.tick();
        assert!(bench.last_snapshot::<Snapshot>(0).unwrap().lamps.green);
    }
}

#[test]
fn the_delay_before_the_tree_follows_the_seed() {
    let start = |seed| {
        let mut bench = Bench::<DragRace>::new(seed, "", &[("Ada", "")]).unwrap();
        bench.join_all().script(0, 0..LIMIT, PEDAL_DOWN);
        bench.run_to_event("tree_started", LIMIT).unwrap().frame
    };
    let frames: Vec<u32> = (0..20).map(start).collect();
    assert_eq!(frames, (0..20).map(start).collect::<Vec<_>>());
    // Staged after 1 s, then 0.6 to 1.4 s.
    assert!(frames.iter().all(|frame| (79..=120).contains(frame)), "{frames:?}");
    assert!(frames.iter().any(|frame| *frame != frames[0]));
}

#[test]
fn sixty_four_lanes_run_in_one_room() {
    let ids: Vec<&str> = (0..64).map(|lane| &*cars()[lane % cars().len()].id).collect();
    let mut bench = bench("", &ids);
    bench.join_all().without_restore_check();
    for (lane, id) in ids.iter().enumerate() {
        drives(&mut bench, lane as u16, driver(id, lane, 0.05));
    }
    // The bench checks the events of a tick, the sizes of snapshots and of the output.
    let results = bench.run_to_results(LIMIT).unwrap();
    assert_eq!(results.len(), 64);
    let winners: Vec<&str> =
        results.iter().filter(|r| r.place == Some(1)).map(|r| r.data["car"].as_str().unwrap()).collect();
    assert_eq!(winners, ["corvette_c8"; 6]);
    assert!(results.iter().all(|result| result.place.is_some()));
    let state = postcard::to_allocvec(bench.rules()).unwrap();
    assert!(state.len() < 64 * 160, "{} bytes", state.len());
}

#[test]
fn a_wrong_setup_is_refused_with_what_is_known() {
    let refused = |options: &str, data: &str| Bench::<DragRace>::new(1, options, &[("Ada", data)]).unwrap_err();
    let text = refused("", "{\"car\":\"dragster\"}");
    assert!(text.contains("player 0") && text.contains("\"dragster\"") && text.contains("corvette_c8"), "{text}");
    let text = refused("{\"tree\":\"oak\"}", "");
    assert!(text.contains("oak") && text.contains("sportsman"), "{text}");
    assert!(refused("{\"trea\":\"pro\"}", "").contains("trea"));
    assert!(refused("", "[]").contains("player 0"));
    assert!(refused("{", "").contains("options"));
}

/// One seeded race of two drivers of middling skill, with all it says.
#[test]
fn a_seeded_race_gives_the_same_slips_as_ever() {
    let mut bench = bench("", &["civic_type_r", "golf_gti"]);
    bench.join_all();
    drives(&mut bench, 0, Driver::new("civic_type_r", 0, 0.6, 11).unwrap());
    drives(&mut bench, 1, Driver::new("golf_gti", 1, 0.9, 12).unwrap());
    let results = bench.run_to_results(LIMIT).unwrap().to_vec();
    insta::assert_json_snapshot!(
        "seeded_race",
        serde_json::json!({
            "results": results,
            "events": bench.events().iter().map(|event| format!("{} {} {}", event.frame, event.name, event.data)).collect::<Vec<_>>(),
        })
    );
}

#[test]
fn a_saved_race_goes_on_bit_for_bit_in_other_hands() {
    let indices = ["gtr", "hellcat"].map(|car| find_car(car).unwrap().0);
    let mut here = Race::new(7, 50, TreeKind::Sportsman, &indices);
    let mut drivers = [driver("gtr", 0, 0.1), driver("hellcat", 1, 0.2)];
    let mut feet = [Feet::default(); 2];
    let (mut happened, mut happened_there) = (Vec::new(), Vec::new());
    here.set_present(0, true);
    here.set_present(1, true);
    let mut there: Option<Race> = None;
    while !here.over() {
        // In the middle of a shift of the one and of wheel spin of the other, another room takes over the state.
        if here.snapshot().frame == 300 {
            let saved = postcard::to_allocvec(&here).unwrap();
            assert!(here.lanes().iter().all(|lane| lane.state().speed_mps > 5.0));
            there = Some(postcard::from_bytes(&saved).unwrap());
            happened_there = happened.clone();
        }
        here.tick(&feet, &mut happened);
        if let Some(there) = &mut there {
            there.tick(&feet, &mut happened_there);
            assert_eq!(postcard::to_allocvec(&*there).unwrap(), postcard::to_allocvec(&here).unwrap());
        }
        for (foot, driver) in feet.iter_mut().zip(&mut drivers) {
            *foot = Feet { input: driver.drive(&here.snapshot()), age_frames: Some(0) };
        }
    }
    assert!(there.unwrap().results().eq(here.results()));
    assert_eq!(happened_there, happened);
}

/// A host may ask for other ticks than the manifest does; the strip's clocks must not follow.
#[test]
fn the_tick_rate_changes_no_times() {
    let elapsed_s = |tick_hz| {
        let mut race = Race::new(7, tick_hz, TreeKind::Sportsman, &[find_car("gtr").unwrap().0]);
        race.set_present(0, true);
        let mut driver = driver("gtr", 0, 0.1);
        let mut feet = [Feet { input: PEDAL_DOWN, age_frames: Some(0) }];
        while !race.over() {
            race.tick(&feet, &mut Vec::new());
            feet[0].input = driver.drive(&race.snapshot());
        }
        race.results().next().unwrap().slip.quarter_mile_s.unwrap()
    };
    let usual_s = elapsed_s(50);
    for tick_hz in [25, 40, 60, 100, 128] {
        assert!((elapsed_s(tick_hz) / usual_s - 1.0).abs() < 0.01, "{tick_hz} Hz: {}", elapsed_s(tick_hz));
    }
}

/// The state comes from a host's file: whatever it holds, the rules must answer and not trap.
#[test]
fn a_damaged_state_is_no_panic() {
    let mut race = Race::new(7, 50, TreeKind::Pro, &[3, 5]);
    race.set_present(0, true);
    race.set_present(1, true);
    let feet = [Feet { input: GO, age_frames: Some(0) }; 2];
    for _ in 0..60 {
        race.tick(&feet, &mut Vec::new());
    }
    let saved = postcard::to_allocvec(&race).unwrap();
    for at in 0..saved.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = saved.clone();
            bytes[at] = value;
            let Ok(mut damaged) = postcard::from_bytes::<Race>(&bytes) else { continue };
            for _ in 0..3 {
                damaged.tick(&feet, &mut Vec::new());
                let _ = (damaged.snapshot(), damaged.results().count(), damaged.over());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever players send, no figure that they see is beyond reason, distance only grows and the race ends.
    #[test]
    fn garbage_inputs_never_spoil_a_snapshot(
        seed: u64,
        first in 0..cars().len(),
        second in 0..cars().len(),
        inputs in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>(), 1u32..60), 10..120),
    ) {
        let data = [first, second].map(|car| format!("{{\"car\":\"{}\"}}", cars()[car].id));
        let mut bench = Bench::<DragRace>::new(seed, "", &[("Ada", &data[0]), ("Ben", &data[1])]).unwrap();
        bench.join_all();
        // Both stage, then do anything.
        bench.script(0, 0..80, PEDAL_DOWN).script(1, 0..80, PEDAL_DOWN);
        let mut frame = 80;
        for (throttle, clutch, gear, frames) in inputs {
            bench.script(0, frame..frame + frames, Input { throttle, clutch, gear: gear % 12 });
            bench.script(1, frame..frame + frames, Input { throttle: clutch, clutch: throttle, gear });
            frame += frames;
        }
        prop_assert!(bench.run_to_results(LIMIT).is_ok());
        let mut distance_m = [0.0, 0.0];
        for snapshot in bench.snapshots() {
            let snapshot: Snapshot = postcard::from_bytes(&snapshot.bytes).unwrap();
            for (lane, before_m) in snapshot.lanes.iter().zip(&mut distance_m) {
                for figure in [lane.distance_m, lane.speed_mps, lane.tread_mps, lane.rpm] {
                    prop_assert!((0.0..50_000.0).contains(&figure), "{lane:?}");
                }
                prop_assert!(lane.distance_m >= *before_m);
                *before_m = lane.distance_m;
            }
        }
    }
}

#[test]
fn the_manifest_is_in_its_ranges() {
    let manifest = DragRace::manifest();
    assert_eq!(manifest.validate(), Ok(()));
    let widest = Input { throttle: 255, clutch: 255, gear: 255 };
    assert!(postcard::to_allocvec(&widest).unwrap().len() <= usize::from(manifest.input_bytes_max));
    let setup = Setup { seed: 1, tick_hz: 50, options: String::new(), players: Vec::new() };
    assert!(DragRace::new(&setup).is_ok());
}
