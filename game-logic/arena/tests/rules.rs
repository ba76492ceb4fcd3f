//! The rules on the SDK's test bench: every frame is also saved, restored and compared, so each of these matches is a test of the state too.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use arena::map::{SIDE_MM, TILE_MM};
use arena::{Arena, Bot, HALF_MM, HEALTH_MAX, Input, Map, MapName, SHOTS_MAX, Snapshot, World, is_near};
use holeshot_guest::bench::Bench;
use holeshot_guest::{LeaveReason, PlayerResult, Rules, Setup};
use proptest::prelude::*;
use serde_json::{Value, json};

const LIMIT: u32 = 605 * 50;

fn bench(seed: u64, options: &str, players: usize) -> Bench<Arena> {
    let players: Vec<(&str, &str)> =
        (0..players).map(|slot| ("Ada", if slot % 3 == 1 { r#"{"weapon":"scatter"}"# } else { "" })).collect();
    Bench::new(seed, options, &players).unwrap()
}

/// Lets bots play all slots.
fn play(bench: &mut Bench<Arena>, players: usize, skill: impl Fn(usize) -> f64) {
    for slot in 0..players {
        let mut bot = Bot::new(skill(slot), slot as u64);
        bench.answer(slot as u16, move |_, seen: Option<Snapshot>| Some(bot.play(&seen?)));
    }
}

fn refusal(options: &str, data: &str) -> String {
    Bench::<Arena>::new(1, options, &[("Ada", data)]).unwrap_err()
}

fn data<'a>(result: &'a PlayerResult<Value>, field: &str) -> &'a Value {
    result.data.get(field).unwrap_or(&Value::Null)
}

fn number(result: &PlayerResult<Value>, field: &str) -> u64 {
    data(result, field).as_u64().unwrap_or_else(|| panic!("no number {field} in {}", result.data))
}

/// What must hold after every tick.
fn check(world: &World) {
    assert!(world.shots().len() <= SHOTS_MAX);
    for fighter in world.fighters().iter().filter(|fighter| fighter.health > 0) {
        assert!(fighter.present && fighter.health <= HEALTH_MAX);
        for (dx, dy) in
            [(-HALF_MM, -HALF_MM), (HALF_MM - 1, -HALF_MM), (-HALF_MM, HALF_MM - 1), (HALF_MM - 1, HALF_MM - 1)]
        {
            let corner = arena::Point { x_mm: fighter.at.x_mm + dx, y_mm: fighter.at.y_mm + dy };
            assert!(!world.map().is_wall(corner), "{fighter:?} is in a wall");
        }
    }
    for shot in world.shots() {
        assert!(!world.map().is_wall(shot.at), "{shot:?} is in a wall");
        assert!(shot.end_frame > world.frames(), "{shot:?} has outlived its time in tick {}", world.frames());
    }
}

#[test]
fn eight_bots_play_to_the_end_and_the_best_has_won() {
    let mut bench = bench(3, r#"{"map":"open","duration_s":20}"#, 8);
    bench.join_all();
    play(&mut bench, 8, |slot| slot as f64 / 8.0);
    let ground = bench.run_to_event("arena", 1).unwrap().data.clone();
    assert_eq!(
        (&ground["map"], &ground["duration_s"], &ground["tile_mm"]),
        (&json!("open"), &json!(20), &json!(TILE_MM))
    );
    assert_eq!(ground["rows"].as_array().unwrap().len(), 32);
    while bench.frame() < 20 * 50 {
        bench.tick();
        check(bench.rules().world());
    }
    let told: usize = bench
        .events()
        .iter()
        .filter(|event| event.name == "frags")
        .map(|event| event.data["frags"].as_array().unwrap().len())
        .sum();
    let results = bench.run_to_results(LIMIT).unwrap().to_vec();
    assert_eq!((bench.frame(), results.len()), (20 * 50, 8));
    let frags: u64 = results.iter().map(|result| number(result, "frags")).sum();
    let deaths: u64 = results.iter().map(|result| number(result, "deaths")).sum();
    assert!(frags >= 8, "{frags} frags are no fight");
    assert_eq!((frags, deaths), (told as u64, told as u64));
    let best = results.iter().map(|result| number(result, "frags")).max().unwrap();
    for result in &results {
        let first = result.place == Some(1);
        assert_eq!(matches!(result.outcome.as_str(), "won" | "drawn"), first, "{result:?}");
        assert!(!first || number(result, "frags") == best);
        assert_eq!(data(result, "score"), data(result, "frags"));
        assert!(
            number(result, "hits") <= number(result, "shots")
                && number(result, "damage") <= 25 * number(result, "hits")
        );
        assert!(number(result, "best_streak") <= number(result, "frags"));
    }
}

#[test]
fn a_full_room_keeps_its_bounds_and_its_snapshots_are_small() {
    let mut bench = bench(9, r#"{"map":"open","duration_s":8}"#, 64);
    bench.without_restore_check().join_all();
    play(&mut bench, 64, |_| 0.9);
    while bench.frame() < 8 * 50 {
        bench.tick();
        check(bench.rules().world());
    }
    let state = postcard::to_allocvec(bench.rules()).unwrap().len();
    bench.run_to_results(LIMIT).unwrap();
    let own: Vec<usize> = bench.snapshots().iter().filter(|s| s.player.is_some()).map(|s| s.bytes.len()).collect();
    let (most, mean) = (*own.iter().max().unwrap(), own.iter().sum::<usize>() / own.len());
    let everything = bench.snapshots().iter().filter(|s| s.player.is_none()).map(|s| s.bytes.len()).max().unwrap();
    println!("snapshots: {mean} bytes in the mean, {most} at most, {everything} of everything; state: {state} bytes");
    assert!(state < 12_000, "{state}");
    assert_eq!(own.len(), 64 * 400);
    // One datagram holds 1,100 bytes of a snapshot; the open map without walls is the worst.
    assert!(most < 1_100 && everything < 4_000, "{most} {everything}");
}

#[test]
fn a_player_sees_what_is_near_and_not_behind_a_wall() {
    let mut bench = bench(4, r#"{"map":"yard","duration_s":10}"#, 24);
    bench.without_restore_check().join_all();
    play(&mut bench, 24, |_| 0.5);
    for _ in 0..300 {
        bench.tick();
        let world = bench.rules().world().clone();
        for (player, own) in (0..).zip(world.fighters()) {
            let snapshot: Snapshot = bench.last_snapshot(player).unwrap();
            let you = snapshot.you.unwrap();
            assert_eq!((u16::from(you.player), you.at, you.health), (player, own.at, own.health));
            let mut seen: Vec<_> =
                snapshot.fighters.iter().map(|it| (u16::from(it.player), it.at, it.health)).collect();
            seen.sort_by_key(|(slot, ..)| *slot);
            let expected: Vec<_> = (0..)
                .zip(world.fighters())
                .filter(|(slot, it)| *slot != player && it.health > 0 && is_near(own.at, it.at))
                // Of two who are up the lower slot has looked.
                .filter(|(slot, it)| {
                    if *slot < player && own.health > 0 {
                        world.map().sees(it.at, own.at)
                    } else {
                        world.map().sees(own.at, it.at)
                    }
                })
                .map(|(slot, it)| (slot, it.at, it.health))
                .collect();
            assert_eq!(seen, expected);
            let mut shots: Vec<u16> = snapshot.shots.iter().map(|shot| shot.number).collect();
            shots.sort_unstable();
            let near: Vec<u16> =
                world.shots().iter().filter(|shot| is_near(own.at, shot.at)).map(|shot| shot.number).collect();
            assert_eq!(shots, near);
        }
    }
}

#[test]
fn who_watches_sees_everything() {
    let mut bench = bench(5, r#"{"map":"ruins","duration_s":6}"#, 6);
    bench.join_all();
    play(&mut bench, 6, |_| 0.9);
    bench.run_to_frame(150);
    let shared = bench.snapshots().iter().rev().find(|snapshot| snapshot.player.is_none()).unwrap();
    let snapshot: Snapshot = postcard::from_bytes(&shared.bytes).unwrap();
    let world = bench.rules().world();
    assert_eq!(snapshot.you, None);
    assert_eq!(snapshot.fighters.len(), world.fighters().iter().filter(|fighter| fighter.health > 0).count());
    assert_eq!(snapshot.shots.len(), world.shots().len());
    assert_eq!(snapshot.pickups.len(), world.pickups().there(world.frames()).count());
    assert_eq!((snapshot.frame, snapshot.time_ms, snapshot.left_ms), (149, 3_000, 3_000));
}

/// A repeated input is a held position: nobody goes or fires twice for it, and after half a second without a fresh one a player stands still.
#[test]
fn a_player_without_input_stands_still_and_holds_its_fire() {
    let mut bench = bench(6, r#"{"map":"open","duration_s":10}"#, 1);
    bench.join_all();
    let run = Input { move_x: 127, move_y: 0, aim: 0, fire: true };
    bench.script(0, 0..5, run);
    let mut xs = Vec::new();
    for _ in 0..60 {
        bench.tick();
        xs.push(bench.rules().world().fighters()[0].at.x_mm);
    }
    let moved = xs.windows(2).filter(|pair| pair[0] != pair[1]).count();
    // Five fresh inputs and 25 repeated ones move; the first move is before the first look.
    assert!(moved == 29 || xs[59] == SIDE_MM - TILE_MM - HALF_MM, "{xs:?}");
    // Fires in ticks 0, 13, 26 (every 250 ms), and not in tick 39.
    assert_eq!(bench.rules().world().fighters()[0].shots, 3);
    // Full speed also on a diagonal, and not more.
    bench.script(0, 60..61, Input { move_x: -127, move_y: -127, aim: 0, fire: false });
    let before = bench.rules().world().fighters()[0].at;
    bench.tick();
    let after = bench.rules().world().fighters()[0].at;
    let way = before.distance_squared(after).isqrt();
    assert!((118..=120).contains(&way) || before == after, "{way} mm");
}

#[test]
fn who_leaves_is_gone_and_may_come_back_with_its_score() {
    let mut bench = bench(7, r#"{"map":"open","duration_s":12}"#, 4);
    bench.join_all();
    play(&mut bench, 4, |_| 1.0);
    bench.run_to_frame(250).leave(1, LeaveReason::Quit).leave(2, LeaveReason::ConnectionLost);
    bench.tick();
    let before = bench.rules().world().fighters()[1].clone();
    assert!(!before.present && before.health == 0);
    bench.run_to_frame(400);
    let snapshot: Snapshot = bench.last_snapshot(0).unwrap();
    assert!(snapshot.fighters.iter().all(|fighter| fighter.player == 3));
    bench.join(1);
    bench.tick();
    let back = &bench.rules().world().fighters()[1];
    assert_eq!((back.present, back.health), (true, HEALTH_MAX));
    assert!((back.frags, back.deaths) >= (before.frags, before.deaths));
    let results = bench.run_to_results(LIMIT).unwrap();
    assert_eq!(
        (results[2].outcome.as_str(), results[2].place, data(&results[2], "score")),
        ("left", None, &Value::Null)
    );
    assert!(results[1].place.is_some() && results.iter().all(|result| result.place.is_none_or(|place| place <= 3)));
}

#[test]
fn an_action_changes_the_weapon_and_nonsense_does_nothing() {
    let mut bench = bench(8, r#"{"duration_s":5}"#, 1);
    bench.join_all().tick();
    for nonsense in ["1", "[]", "{}", r#"{"weapon":"laser"}"#, r#"{"weapon":7}"#, r#"["scatter"]"#] {
        bench.action(0, nonsense);
    }
    bench.tick();
    assert_eq!(bench.last_snapshot::<Snapshot>(0).unwrap().you.unwrap().weapon, arena::Weapon::Rifle);
    bench.action(0, r#"{"weapon":"scatter"}"#).tick();
    let you = bench.last_snapshot::<Snapshot>(0).unwrap().you.unwrap();
    assert_eq!((you.weapon, you.reload_ms), (arena::Weapon::Scatter, 380));
    bench.script(0, 3..40, Input { fire: true, ..Input::default() });
    bench.run_to_frame(40);
    assert_eq!(bench.rules().world().fighters()[0].shots, 5);
}

#[test]
fn a_setup_out_of_range_is_refused_with_what_is_accepted() {
    for (options, data, expected) in [
        (r#"{"map":"moon"}"#, "", "unknown variant `moon`, expected one of `yard`, `ruins`, `open`"),
        (r#"{"duration_s":4}"#, "", "duration_s is 5 to 600, not 4"),
        (r#"{"duration_s":601}"#, "", "duration_s is 5 to 600, not 601"),
        (r#"{"duration_s":-1}"#, "", "invalid value: integer `-1`"),
        (r#"{"time_s":60}"#, "", "unknown field `time_s`, expected `map` or `duration_s`"),
        ("[60]", "", "it is not a JSON object"),
        ("", r#"{"weapon":"bow"}"#, "player 0: the data is not like"),
    ] {
        let text = refusal(options, data);
        assert!(text.contains(expected), "{options} {data}: {text}");
    }
    for fine in ["", "null", "{}", r#"{"map":"ruins","duration_s":600}"#] {
        assert!(Bench::<Arena>::new(1, fine, &[("Ada", r#"{"car":"mx5"}"#)]).is_ok(), "{fine}");
    }
}

#[test]
fn a_match_in_which_nobody_does_anything_is_drawn() {
    let mut bench = bench(1, r#"{"duration_s":5}"#, 3);
    bench.join_all();
    let results = bench.run_to_results(LIMIT).unwrap();
    assert!(results.iter().all(|result| (result.outcome.as_str(), result.place) == ("drawn", Some(1))));
}

/// The longest results of all fit: 64 players, figures as large as they can be.
#[test]
fn the_manifest_and_the_results_fit_the_boundary() {
    Arena::manifest().validate().unwrap();
    let longest = json!({
        "player": 63, "place": 64, "outcome": "drawn",
        "data": { "map": "ruins", "duration_s": 600, "players": 64, "score": 65535, "frags": 65535, "deaths": 65535,
            "best_streak": 65535, "shots": u32::MAX, "hits": u32::MAX, "damage": u32::MAX },
    });
    assert!(longest.to_string().len() < 768);
    assert!(Arena::manifest().frames_max > 600 * 50);
}

#[test]
fn other_tick_rates_keep_the_speed_and_the_time() {
    for tick_hz in [1, 7, 50, 128] {
        let player = holeshot_guest::PlayerSetup { name: "Ada".into(), data: String::new() };
        let setup =
            Setup { seed: 2, tick_hz, options: r#"{"map":"ruins","duration_s":6}"#.into(), players: vec![player; 6] };
        let mut bench = Bench::<Arena>::with_setup(&setup).unwrap();
        bench.join_all();
        play(&mut bench, 6, |_| 0.9);
        while bench.frame() < 6 * tick_hz {
            bench.tick();
            check(bench.rules().world());
        }
        bench.run_to_results(LIMIT).unwrap();
    }
}

/// Two who stand in the open and shoot at each other: a rifle takes four hits, and protection is over by then.
#[test]
fn four_hits_bring_somebody_down_who_comes_back_protected() {
    let log: Rc<RefCell<BTreeMap<u32, u8>>> = Rc::default();
    let mut bench = bench(12, r#"{"map":"open","duration_s":30}"#, 2);
    bench.join_all();
    let mut bot = Bot::new(1.0, 1);
    bench.answer(0, move |_, seen: Option<Snapshot>| Some(bot.play(&seen?)));
    // The other one takes a rifle and does nothing.
    bench.action(1, r#"{"weapon":"rifle"}"#);
    let seen = Rc::clone(&log);
    bench.answer(1, move |frame, snapshot: Option<Snapshot>| {
        seen.borrow_mut().insert(frame, snapshot?.you?.health);
        Some(Input::default())
    });
    let frag = bench.run_to_event("frags", LIMIT).unwrap();
    assert_eq!(frag.data, json!({ "frags": [{ "by": 0, "of": 1, "weapon": "rifle" }] }));
    let down = bench.frame();
    bench.run_to_frame(down + 110);
    let world = bench.rules().world();
    assert_eq!(world.fighters()[1].health, HEALTH_MAX);
    assert!(world.fighters()[1].protected_frame > down + 100);
    let mut steps: Vec<u8> = log.borrow().values().copied().collect();
    steps.dedup();
    assert_eq!(steps, [100, 75, 50, 25, 0, 100]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Any inputs, joins, leaves and actions: the bounds hold, and the bench saves and restores every frame.
    #[test]
    fn nothing_leaves_its_bounds_whatever_players_do(
        seed: u64,
        map in prop::sample::select(MapName::ALL.to_vec()),
        inputs in prop::collection::vec((any::<i8>(), any::<i8>(), any::<u16>(), prop::bool::weighted(0.8), 0..12u16), 60..180),
    ) {
        let players = 12;
        let mut bench = bench(seed, &json!({ "map": map, "duration_s": 5 }).to_string(), players);
        bench.join_all();
        for (frame, (move_x, move_y, aim, fire, who)) in (0..).zip(inputs) {
            let input = Input { move_x, move_y, aim, fire };
            bench.script(who, frame..frame + 40, input);
            match aim % 23 {
                0 => { bench.leave(who, LeaveReason::Quit); }
                1 => { bench.join(who); }
                2 => { bench.action(who, if fire { r#"{"weapon":"scatter"}"# } else { r#"{"weapon":"rifle"}"# }); }
                _ => {}
            }
            bench.tick();
            check(bench.rules().world());
        }
    }

    /// Bytes that are no state are refused, or taken as another one; reading them never panics.
    #[test]
    fn a_damaged_state_is_read_without_a_panic(seed: u64, at in 0usize..1_200, value: u8) {
        use holeshot_guest::export::Instance;
        let mut bench = bench(seed, r#"{"duration_s":5}"#, 6);
        bench.without_restore_check().join_all();
        play(&mut bench, 6, |_| 1.0);
        bench.run_to_frame(60);
        let setup = Setup { seed, tick_hz: 50, options: String::new(), players: vec![holeshot_guest::PlayerSetup { name: String::new(), data: String::new() }; 6] };
        let mut record = Vec::new();
        setup.write(&mut record).unwrap();
        let mut state = vec![0];
        state.extend(postcard::to_allocvec(bench.rules()).unwrap());
        if let Some(byte) = state.get_mut(at + 1) {
            *byte = value;
        }
        let mut restore = vec![1, 0, 0, 0, 0, 0, 0, 0];
        restore.extend(&state);
        let mut instance = Instance::<Arena>::new();
        instance.init(&record).unwrap();
        let _refused_or_taken = instance.restore(&restore);
    }
}

#[test]
fn maps_have_room_for_everybody() {
    for seed in 0..50 {
        for name in MapName::ALL {
            assert!(Map::new(name, seed).free_tiles() > 10 * 64, "{name:?} {seed}");
        }
    }
}
