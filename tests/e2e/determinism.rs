//! The rule that a room is a fold: one journal of tick records gives the same bytes from the native rules and from the wasm that the host
//! carries, tick by tick, and so does a state that was saved in the middle. Not covered: a browser's engine, other processors.

use std::process::Command;

use drag_race::{DragRace, Driver};
use holeshot::rules::{ARENA_WASM, DRAG_RACE_WASM, Engine, EngineSettings, ModuleHash, ModuleStore, NativeRules};
use holeshot_abi::{LeaveReason, PlayerSetup, Setup};
use holeshot_guest::Rules as _;
use holeshot_guest::bench::Bench;
use holeshot_room::Rules;

use crate::harness::{Host, run};

/// Frames between two comparisons of the whole state.
const SAVED_EVERY_FRAMES: usize = 100;
/// A journal longer than any race of the catalogue's slowest car.
const FRAMES_MAX: u32 = 4_000;

/// Small numbers from a seed: which frames are lost and who leaves.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // Knuth's MMIX generator; its upper bits are good enough to pick frames.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

pub(crate) fn setup(lanes: usize, seed: u64) -> Setup {
    let cars = drag_race::cars();
    let car = |lane: usize| &*cars[(lane + (seed % 1_000) as usize) % cars.len()].id;
    let player = |lane| PlayerSetup { name: format!("driver {lane}"), data: format!("{{\"car\":\"{}\"}}", car(lane)) };
    Setup {
        seed,
        tick_hz: DragRace::manifest().tick_hz,
        options: r#"{"tree":"sportsman"}"#.into(),
        players: (0..lanes).map(player).collect(),
    }
}

/// Plays a race of drivers who lose inputs; with more than two lanes one player leaves and one is lost.
pub(crate) fn journal(setup: &Setup) -> Vec<Vec<u8>> {
    let mut dice = Dice(setup.seed);
    let mut bench = Bench::<DragRace>::with_setup(setup).unwrap();
    bench.without_restore_check().join_all();
    let cars = drag_race::cars();
    for (lane, player) in setup.players.iter().enumerate() {
        let car = cars.iter().find(|car| player.data.contains(&format!("\"{}\"", car.id))).unwrap();
        let skill = dice.roll(11) as f64 / 10.0;
        let mut driver = Driver::new(&car.id, lane, skill, dice.roll(1 << 30)).unwrap();
        bench.control(lane as u16, move |_, seen| {
            let seen: drag_race::Snapshot = postcard::from_bytes(seen?).unwrap();
            Some(driver.drive(&seen))
        });
        for _ in 0..12 {
            let first = dice.roll(1_200) as u32;
            bench.lose(lane as u16, first..first + 1 + dice.roll(15) as u32);
        }
    }
    if setup.players.len() > 2 {
        bench.run_to_frame(300 + dice.roll(300) as u32).leave(1, LeaveReason::Quit);
        bench.run_to_frame(700 + dice.roll(100) as u32).leave(2, LeaveReason::ConnectionLost);
    }
    bench.run_to_results(FRAMES_MAX).unwrap();
    bench.records().to_vec()
}

fn store() -> ModuleStore {
    let engine = Engine::new(EngineSettings { instances_max: 4, ..EngineSettings::default() }).unwrap();
    ModuleStore::new(engine, None).unwrap()
}

/// Runs a journal through both and gives the hash of everything that left them.
fn compare(lanes: usize, seed: u64) -> String {
    let setup = setup(lanes, seed);
    let records = journal(&setup);
    let module = store().load(DRAG_RACE_WASM).unwrap();
    let mut wasm = module.instantiate(&setup, "wasm").unwrap();
    let mut native = NativeRules::<DragRace>::new(&setup).unwrap();
    let mut everything = Vec::new();
    let mut saved = 0;
    for (frame, record) in records.iter().enumerate() {
        let (from_wasm, from_native) = (wasm.tick(record).unwrap(), native.tick(record).unwrap());
        assert!(from_wasm == from_native, "{lanes} lanes, seed {seed}: the outputs of frame {frame} differ");
        everything.extend_from_slice(from_wasm);
        if frame % SAVED_EVERY_FRAMES == 0 {
            let (from_wasm, from_native) = (wasm.save().unwrap(), native.save().unwrap());
            assert!(from_wasm == from_native, "{lanes} lanes, seed {seed}: the states after frame {frame} differ");
            everything.extend_from_slice(&from_wasm);
            saved += 1;
        }
        if frame == records.len() / 2 {
            // Each goes on from the other's state, in a fresh instance.
            let version = DragRace::manifest().state_version;
            let (of_wasm, of_native) = (wasm.save().unwrap(), native.save().unwrap());
            wasm = module.instantiate(&setup, "restored").unwrap();
            wasm.restore(version, &of_native).unwrap();
            native = NativeRules::new(&setup).unwrap();
            native.restore(version, &of_wasm).unwrap();
        }
    }
    let hash = ModuleHash::of(&everything).to_string();
    println!(
        "{lanes} lanes, seed {seed}: {} frames, {saved} states, {} bytes, {hash}",
        records.len(),
        everything.len()
    );
    assert!(records.len() > 800, "{} frames are no race", records.len());
    hash
}

#[test]
fn two_lanes_give_equal_bytes() {
    for seed in [1, 20_261_121, u64::MAX] {
        compare(2, seed);
    }
}

#[test]
fn eight_lanes_with_losses_and_leaves_give_equal_bytes() {
    for seed in [2, 987_654_321] {
        compare(8, seed);
    }
}

/// What the other process runs; on its own it only prints.
#[test]
fn a_journal_has_a_hash() {
    println!("module {}", ModuleHash::of(DRAG_RACE_WASM));
    println!("journal {}", compare(3, 42));
}

#[test]
fn another_process_gives_the_same_bytes() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["determinism::a_journal_has_a_hash", "--exact", "--nocapture", "--test-threads", "1"])
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{output}{}", String::from_utf8_lossy(&child.stderr));
    for line in [format!("module {}", ModuleHash::of(DRAG_RACE_WASM)), format!("journal {}", compare(3, 42))] {
        assert!(output.contains(&line), "no {line:?} in {output}");
    }
}

#[test]
fn the_module_has_the_same_name_in_every_host() {
    run(60, async {
        for _ in 0..2 {
            let host = Host::start().await;
            let (_, modules) = host.get("/api/modules").await;
            for (at, shipped) in [ARENA_WASM, DRAG_RACE_WASM].into_iter().enumerate() {
                assert_eq!(modules["loaded"][at]["hash"], ModuleHash::of(shipped).to_string(), "{modules}");
            }
            host.stop().await;
        }
    });
}
