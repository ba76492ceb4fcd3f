//! The second game that ships: a full room of 64 bots over datagrams, from the tickets to the leaderboard; its rules replaced while it runs, and its
//! journal proven; and the wasm that the host carries against the same rules linked natively, byte by byte. What the rules decide is tested in
//! `game-logic/arena`.

use std::collections::BTreeSet;

use arena::{Arena, Bot, Snapshot};
use holeshot::api::Api;
use holeshot::bots::arena as bots;
use holeshot::bots::{BotReport, Seen};
use holeshot::rules::{ARENA_WASM, Engine, EngineSettings, ModuleStore, NativeRules};
use holeshot_abi::{LeaveReason, PlayerSetup, Setup};
use holeshot_guest::Rules as _;
use holeshot_guest::bench::Bench;
use holeshot_room::Rules;
use holeshot_room::journal::Journal;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::harness::{Host, compiled, run};
use crate::proof::prove;

/// Frames between two comparisons of the whole state.
const SAVED_EVERY_FRAMES: usize = 50;

/// Opens a match and lets bots play it to its end. What the first of them saw comes with it.
async fn a_match(
    host: &Host,
    count: usize,
    options: Value,
    meanwhile: impl AsyncFnOnce(&str),
) -> (String, Vec<BotReport>, Vec<Snapshot>) {
    let api = Api::new(&host.server().url()).unwrap();
    let fighters = bots::fighters(count, 0.9, 77, true);
    let players: Vec<Value> = fighters.iter().map(|fighter| json!({ "name": fighter.name })).collect();
    let room = host.open_room(&json!({ "module": "arena", "players": players, "options": options, "seed": 77 })).await;
    let (sights, mut seen) = mpsc::channel(1_024);
    let mut sights = Some(sights);
    let mut playing = JoinSet::new();
    for fighter in fighters {
        let (api, room, sights) = (api.clone(), room.clone(), sights.take());
        playing.spawn(async move { bots::play(&api, &room, &fighter, sights).await });
    }
    let (reports, ()) = tokio::join!(playing.join_all(), meanwhile(&room));
    let mut reports: Vec<BotReport> = reports.into_iter().map(Result::unwrap).collect();
    reports.sort_by_key(|report| report.player);
    let mut snapshots = Vec::new();
    while let Ok(sight) = seen.try_recv() {
        if let Seen::Snapshot(snapshot) = sight {
            snapshots.push(snapshot);
        }
    }
    (room, reports, snapshots)
}

fn store() -> ModuleStore {
    let engine = Engine::new(EngineSettings { instances_max: 8, ..EngineSettings::default() }).unwrap();
    ModuleStore::new(engine, Some(compiled().to_owned())).unwrap()
}

/// The arena under another hash: a custom section at its end.
fn other_build() -> Vec<u8> {
    [ARENA_WASM, &[0, 5, 4, b'n', b'o', b't', b'e']].concat()
}

#[test]
fn sixty_four_bots_play_a_match_over_datagrams_to_the_leaderboard() {
    const PLAYERS: usize = 64;
    const DURATION_S: u64 = 6;
    const FRAMES: u64 = DURATION_S * 50;
    run(120, async {
        let host = Host::start_with(|settings| settings.linger_s = Some(1)).await;
        let options = json!({ "map": "ruins", "duration_s": DURATION_S });
        let (room, reports, seen) = a_match(&host, PLAYERS, options, async |_: &str| {}).await;
        assert_eq!(reports.len(), PLAYERS);
        for report in &reports {
            // The rules count their own ticks: had one been skipped, the match had taken a frame more.
            assert_eq!((report.ending.as_str(), &report.outcome["frames"]), ("finished", &json!(FRAMES)), "{report:?}");
            assert_eq!(report.carrier, Some("udp"), "{report:?}");
            assert!(report.snapshots_received * 4 >= FRAMES, "{report:?}");
            assert_eq!(report.outcome, reports[0].outcome, "all are told the same");
        }
        assert!(seen.iter().all(|snapshot| snapshot.you.is_some_and(|you| u16::from(you.player) == reports[0].player)));
        let widest = seen.iter().map(|snapshot| snapshot.fighters.len()).max().unwrap();
        assert!((1..PLAYERS - 1).contains(&widest), "a player sees some of the others: {widest}");

        // The record has the same results, and what the host counted.
        let record = host.recorded(&room, "is closed", |record| !record["closed_at"].is_null()).await;
        assert_eq!((&record["state"], &record["frames"]), (&json!("finished"), &json!(FRAMES)), "{record:#}");
        let results = record["results"].as_array().unwrap();
        let slots: BTreeSet<u64> = results.iter().map(|result| result["player"].as_u64().unwrap()).collect();
        assert_eq!(slots, (0..PLAYERS as u64).collect());
        let n = |result: &Value, field: &str| result["data"][field].as_u64().unwrap();
        let frags: u64 = results.iter().map(|result| n(result, "frags")).sum();
        assert!(frags > 0 && frags == results.iter().map(|result| n(result, "deaths")).sum::<u64>(), "{frags}");
        let mut fresh = 0;
        for player in record["counters"]["players"].as_array().unwrap() {
            let inputs = &player["inputs"];
            let n = |field: &str| inputs[field].as_u64().unwrap();
            assert_eq!(n("fresh") + n("repeated") + n("absent"), FRAMES, "{player}");
            assert_eq!((n("conflicting"), n("too_long"), n("reconnects")), (0, 0, 0), "{player}");
            // How many come in time is the machine's business: nearly all, where no other tests take its cores.
            assert!(n("fresh") > 0, "{player}");
            fresh += n("fresh");
        }
        println!("{fresh} of {} inputs came in time; {frags} frags", FRAMES * PLAYERS as u64);

        // The leaderboard is led by the most frags.
        let path = format!("/api/leaderboards/arena/frags?group.map=ruins&group.duration_s={DURATION_S}");
        let (status, board) = host.get(&path).await;
        assert_eq!(status, 200, "{board}");
        let best = results.iter().map(|result| n(result, "frags")).max().unwrap();
        assert_eq!(board["entries"][0]["score"].as_f64(), Some(best as f64), "{board}");

        // And the journal is the match.
        crate::journal::closed_journal(&host, &room).await;
        let journal = Journal::read(&crate::journal::download(&host, &room).await).unwrap();
        prove("a match of 64", &journal, &[store().load(ARENA_WASM).unwrap()]);
        host.stop().await;
    });
}

#[test]
fn a_match_goes_on_under_another_build_of_its_rules() {
    run(120, async {
        let host = Host::start_with(|settings| settings.linger_s = Some(1)).await;
        let (_, modules) = host.get("/api/modules").await;
        let names: Vec<&str> =
            modules["loaded"].as_array().unwrap().iter().map(|module| module["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["arena", "drag-race"]);
        let swap = async |room: &str| {
            host.wait_phase(room, "running").await;
            let (status, report) = host.put_module("arena", room, other_build()).await;
            assert_eq!((status, &report["rooms"][0]["verdict"]), (200, &json!("swapped")), "{report}");
        };
        let (room, reports, _) = a_match(&host, 6, json!({ "map": "open", "duration_s": 6 }), swap).await;
        assert!(reports.iter().all(|report| report.ending == "finished"), "{reports:?}");
        let record = host.ended(&room).await;
        assert_eq!(record["swaps"].as_array().unwrap().len(), 1, "{record}");
        crate::journal::closed_journal(&host, &room).await;
        let journal = Journal::read(&crate::journal::download(&host, &room).await).unwrap();
        let store = store();
        let modules = [store.load(ARENA_WASM).unwrap(), store.load(&other_build()).unwrap()];
        prove("a match under two builds", &journal, &modules);
        host.stop().await;
    });
}

#[test]
fn a_setup_that_the_arena_refuses_is_told_with_what_it_accepts() {
    run(60, async {
        let host = Host::start().await;
        for (options, words) in [
            (json!({ "duration_s": 3 }), "duration_s is 5 to 600, not 3"),
            (json!({ "map": "moon" }), "unknown variant `moon`, expected one of `yard`, `ruins`, `open`"),
        ] {
            let request = json!({ "module": "arena", "players": [{ "name": "Ada" }], "options": options });
            let (status, answer) = host.post_as_admin("/api/rooms", &request).await;
            assert!(status / 100 == 4 && answer.to_string().contains(words), "{status} {answer}");
        }
        host.stop().await;
    });
}

/// Plays a match on the bench in which inputs are lost, players leave and come back and weapons change, and gives its records.
fn journal(setup: &Setup) -> Vec<Vec<u8>> {
    let mut bench = Bench::<Arena>::with_setup(setup).unwrap();
    bench.without_restore_check().join_all();
    let players = setup.players.len() as u16;
    for slot in 0..players {
        let mut bot = Bot::new(1.0 - f64::from(slot) / 100.0, setup.seed ^ u64::from(slot));
        bench.control(slot, move |_, seen| Some(bot.play(&postcard::from_bytes::<Snapshot>(seen?).unwrap())));
        for lost in 0..6 {
            let first = 40 * lost + u32::from(slot) * 3;
            bench.lose(slot, first..first + 1 + (u32::from(slot) * 7 + lost) % 30);
        }
    }
    for frame in 1..250 {
        if frame % 20 == 0 {
            bench.action((frame / 20) as u16 % players, r#"{"weapon":"scatter"}"#);
        }
        if players > 2 && frame == 100 {
            bench.leave(1, LeaveReason::Quit).leave(2, LeaveReason::ConnectionLost);
        }
        if players > 2 && frame == 180 {
            bench.join(1);
        }
        bench.run_to_frame(frame);
    }
    bench.run_to_results(500).unwrap();
    bench.records().to_vec()
}

#[test]
fn native_and_wasm_give_equal_bytes() {
    for (players, seed, map) in [(1, 1, "yard"), (2, 20_261_121, "ruins"), (8, u64::MAX, "open"), (64, 3, "ruins")] {
        let setup = Setup {
            seed,
            tick_hz: 50,
            options: json!({ "map": map, "duration_s": 5 }).to_string(),
            players: (0..players).map(|slot| PlayerSetup { name: format!("p{slot}"), data: String::new() }).collect(),
        };
        let records = journal(&setup);
        assert_eq!(records.len(), 250);
        let module = store().load(ARENA_WASM).unwrap();
        let mut wasm = module.instantiate(&setup, "wasm").unwrap();
        let mut native = NativeRules::<Arena>::new(&setup).unwrap();
        for (frame, record) in records.iter().enumerate() {
            let (from_wasm, from_native) = (wasm.tick(record).unwrap(), native.tick(record).unwrap());
            assert!(from_wasm == from_native, "{players} players: the outputs of frame {frame} differ");
            if frame % SAVED_EVERY_FRAMES == 0 {
                let (of_wasm, of_native) = (wasm.save().unwrap(), native.save().unwrap());
                assert!(of_wasm == of_native, "{players} players: the states after frame {frame} differ");
                // Each goes on from the other's state, in a fresh instance.
                let version = Arena::manifest().state_version;
                wasm = module.instantiate(&setup, "restored").unwrap();
                wasm.restore(version, &of_native).unwrap();
                native = NativeRules::new(&setup).unwrap();
                native.restore(version, &of_wasm).unwrap();
            }
        }
    }
}
