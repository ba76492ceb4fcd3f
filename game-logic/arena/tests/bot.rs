//! The bot: it plays from snapshots alone, better with more skill, and the same from the same seed.

use arena::{Arena, Bot, Input, Snapshot};
use holeshot_guest::bench::Bench;

/// Frags of two sides of bots after a match, the first side with one skill and the second with another.
fn frags(seed: u64, map: &str, skills: [f64; 2], each: usize, delay_ms: u32) -> [u64; 2] {
    let players = vec![("Ada", ""); 2 * each];
    let options = format!(r#"{{"map":"{map}","duration_s":30}}"#);
    let mut bench = Bench::<Arena>::new(seed, &options, &players).unwrap();
    bench.without_restore_check().join_all();
    for slot in 0..2 * each {
        let mut bot = Bot::new(skills[slot % 2], seed ^ slot as u64);
        bot.set_delay_ms(delay_ms);
        let mut held: Vec<Input> = vec![Input::default(); delay_ms as usize / 20];
        bench.answer(slot as u16, move |_, seen: Option<Snapshot>| {
            // What is answered now takes effect later, as over a network.
            held.push(bot.play(&seen?));
            Some(held.remove(0))
        });
    }
    let results = bench.run_to_results(31 * 50).unwrap();
    let side = |side: usize| {
        results.iter().skip(side).step_by(2).map(|result| result.data["frags"].as_u64().unwrap()).sum::<u64>()
    };
    [side(0), side(1)]
}

#[test]
fn skill_tells() {
    for (map, delay_ms) in [("open", 0), ("yard", 0), ("ruins", 60)] {
        let mut sums = [0, 0];
        for seed in 0..6 {
            let [masters, beginners] = frags(seed, map, [1.0, 0.1], 4, delay_ms);
            sums[0] += masters;
            sums[1] += beginners;
        }
        println!("{map}, {delay_ms} ms: {sums:?}");
        assert!(sums[0] > 2 * sums[1] && sums[1] > 0, "{map}, {delay_ms} ms: {sums:?}");
    }
}

#[test]
fn the_same_seed_plays_the_same_match() {
    assert_eq!(frags(11, "ruins", [0.8, 0.5], 3, 20), frags(11, "ruins", [0.8, 0.5], 3, 20));
}

#[test]
fn a_bot_without_news_lets_go() {
    let mut bot = Bot::new(1.0, 1);
    let mut bench = Bench::<Arena>::new(1, "", &[("Ada", "")]).unwrap();
    bench.join_all();
    bench.run_to_frame(60);
    let snapshot: Snapshot = bench.last_snapshot(0).unwrap();
    let first = bot.play(&snapshot);
    assert!(first.move_x != 0 || first.move_y != 0);
    for _ in 0..12 {
        assert_eq!(bot.play(&snapshot), first);
    }
    assert_eq!(bot.play(&snapshot), Input { aim: first.aim, ..Input::default() });
}
