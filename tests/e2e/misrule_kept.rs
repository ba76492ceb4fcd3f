//! The module that misbehaves does what it is ordered to and nothing else, without a host around it: what the scenarios of swaps and faults stand
//! on. With honest orders it is the drag race, byte for byte.

use std::sync::{Arc, LazyLock};

use drag_race::DragRace;
use holeshot::rules::{DRAG_RACE_WASM, Engine, EngineSettings, Module, ModuleStore, WasmRules};
use holeshot_guest::Rules as _;
use holeshot_room::{Fault, FaultKind, RestoreError, Rules};
use misrule::{Misdeed, Orders, When};

use crate::determinism::{journal, setup};
use crate::modules_made::misrule;

/// The frame or tick of misdeeds that have one.
const AT: u32 = 40;

/// One for all tests here: compiling is what takes time.
static STORE: LazyLock<ModuleStore> = LazyLock::new(|| {
    let engine = Engine::new(EngineSettings { instances_max: 32, ..EngineSettings::default() }).unwrap();
    ModuleStore::new(engine, None).unwrap()
});

fn orders(misdeed: Misdeed, when: When) -> Orders {
    Orders { misdeed, when, number: AT, serial: misdeed as u32 + 100 }
}

struct Stage {
    records: Vec<Vec<u8>>,
}

impl Stage {
    fn load(&self, orders: Orders) -> Arc<Module> {
        STORE.load(&misrule(orders)).unwrap_or_else(|error| panic!("{orders:?}: {error}"))
    }

    fn begin(&self, orders: Orders) -> WasmRules {
        self.load(orders).instantiate(&setup(2, 1), "stage").unwrap()
    }

    /// Ticks until a fault, and says in which frame; none if there is none in `frames`.
    fn fault(&self, rules: &mut WasmRules, frames: usize) -> Option<(u32, Fault)> {
        (0u32..).zip(&self.records[..frames]).find_map(|(frame, record)| Some((frame, rules.tick(record).err()?)))
    }
}

#[test]
fn honest_orders_make_the_drag_race_under_another_name() {
    let stage = Stage { records: journal(&setup(2, 1)) };
    let module = stage.load(Orders::honest(7));
    assert_ne!(module.hash(), stage.load(Orders::honest(8)).hash());
    let of_race = DragRace::manifest();
    assert_eq!(module.manifest().version, format!("{}-misrule.7", of_race.version));
    assert_eq!(module.manifest().name, of_race.name);
    let mut race = STORE.load(DRAG_RACE_WASM).unwrap().instantiate(&setup(2, 1), "race").unwrap();
    let mut honest = module.instantiate(&setup(2, 1), "honest").unwrap();
    for (frame, record) in stage.records.iter().enumerate() {
        assert!(race.tick(record).unwrap() == honest.tick(record).unwrap(), "the outputs of frame {frame} differ");
        if frame % 200 == 100 {
            // Each goes on from the other's state.
            let (of_race, of_honest) = (race.save().unwrap(), honest.save().unwrap());
            assert!(of_race == of_honest, "the states after frame {frame} differ");
            race.restore(1, &of_honest).unwrap();
            honest.restore(1, &of_race).unwrap();
        }
    }
}

#[test]
fn each_misdeed_is_committed_when_ordered() {
    use Misdeed as M;
    let stage = Stage { records: journal(&setup(2, 1)) };
    for (misdeed, kind, words, function) in [
        (M::Traps, FaultKind::Trap, "misrule was told to trap in frame 40", Some("misdeeds::traps")),
        (M::Spins, FaultKind::FuelExhausted, "endless loop", Some("misdeeds::spins")),
        (M::EatsMemory, FaultKind::MemoryExceeded, "4194304 bytes", Some("misdeeds::eats_memory")),
        (M::Recurses, FaultKind::Trap, "", Some("misdeeds::recurses")),
        (M::WildTickAddress, FaultKind::BadSpan, "outside the memory", None),
        (M::WildTickLength, FaultKind::BadSpan, "outside the memory", None),
    ] {
        let (frame, fault) = stage.fault(&mut stage.begin(orders(misdeed, When::InFrame)), 100).unwrap();
        assert_eq!((frame, fault.kind), (AT, kind), "{misdeed:?}: {fault}");
        assert!(fault.message.contains(words), "{misdeed:?}: {fault}");
        let backtrace = fault.backtrace.unwrap_or_default();
        assert!(function.is_none_or(|function| backtrace.contains(function)), "{misdeed:?}: {backtrace}");
    }
    // Outputs are checked by the room: here it is enough that they differ.
    for misdeed in [M::NoRecord, M::NoJson, M::ForgedEvent] {
        let (mut honest, mut other) = (stage.begin(Orders::honest(1)), stage.begin(orders(misdeed, When::InFrame)));
        for (frame, record) in (0u32..).zip(&stage.records[..=AT as usize]) {
            assert_eq!(honest.tick(record).unwrap() == other.tick(record).unwrap(), frame != AT, "{misdeed:?}");
        }
    }
    let mut leaks = stage.begin(orders(M::Leaks, When::InFrame));
    let (frame, fault) = stage.fault(&mut leaks, 200).unwrap();
    assert!(frame > 80 && fault.kind == FaultKind::MemoryExceeded, "{frame}: {fault}");
}

#[test]
fn instances_count_their_ticks_and_states_are_refused_as_ordered() {
    use Misdeed as M;
    let stage = Stage { records: journal(&setup(2, 1)) };
    let mut honest = stage.begin(Orders::honest(1));
    for record in &stage.records[..30] {
        honest.tick(record).unwrap();
    }
    let state = honest.save().unwrap();

    // Another instance counts from 0 again.
    let mut traps = stage.begin(orders(M::Traps, When::AfterTicks));
    traps.restore(1, &state).unwrap();
    let faulted = stage.records[30..].iter().position(|record| traps.tick(record).is_err());
    assert_eq!(faulted, Some(AT as usize));
    let mut spins = stage.begin(orders(M::Spins, When::FromFrame));
    assert_eq!(stage.fault(&mut spins, 100).unwrap().0, AT);

    let refusal = |rules: &mut WasmRules, version: u32, state: &[u8]| match rules.restore(version, state) {
        Err(RestoreError::Refused(text)) => text,
        other => panic!("{other:?}"),
    };
    let mut refuses = stage.begin(orders(M::RefusesState, When::InFrame));
    assert_eq!(refusal(&mut refuses, 1, &state), "misrule was told to refuse every state");
    let mut refuses = stage.begin(orders(M::RefusesOwnState, When::InFrame));
    refuses.restore(1, &state).unwrap();
    let own = refuses.save().unwrap();
    assert_eq!(refusal(&mut refuses, 1, &own), "misrule was told to refuse its own state");
    let mut another = stage.begin(orders(M::SavesAnother, When::InFrame));
    another.restore(1, &state).unwrap();
    assert_ne!(another.save().unwrap(), another.save().unwrap());
    let mut wild = stage.begin(orders(M::WildSave, When::InFrame));
    for record in &stage.records[..AT as usize] {
        wild.save().unwrap();
        wild.tick(record).unwrap();
    }
    assert_eq!(wild.save().unwrap_err().kind, FaultKind::BadSpan);
    let mut grows = stage.begin(Orders { number: 9_000, ..orders(M::Grows, When::InFrame) });
    grows.restore(1, &state).unwrap();
    grows.tick(&stage.records[30]).unwrap();
    let grown = grows.save().unwrap();
    assert!(grown.len() > 9_000);
    grows.restore(1, &grown).unwrap();
    assert_eq!(grows.save().unwrap(), grown);

    // Files that cannot be loaded, begun, or taken for the same game.
    let refused = STORE.load(&misrule(orders(M::WrongAbi, When::InFrame))).unwrap_err().to_string();
    assert!(refused.contains("9.0"), "{refused}");
    let wild = stage.load(orders(M::WildBuffer, When::InFrame));
    let refused = wild.instantiate(&setup(2, 1), "stage").unwrap_err().to_string();
    assert!(refused.contains("holeshot_buffer"), "{refused}");
    let manifest = |misdeed| stage.load(orders(misdeed, When::InFrame)).manifest().clone();
    assert_eq!(manifest(M::OtherName).name, "hill-climb");
    assert_eq!(manifest(M::OtherTickHz).tick_hz, 60);
    assert_eq!(manifest(M::OtherInput).input_bytes_max, 8);
    assert_eq!(manifest(M::OtherPlayers).players_max, 1);
}

#[test]
fn the_other_rules_have_another_tree_and_remember_open_throttles() {
    let stage = Stage { records: journal(&setup(2, 1)) };
    let mut honest = stage.begin(Orders::honest(1));
    for record in &stage.records[..30] {
        honest.tick(record).unwrap();
    }
    let state = honest.save().unwrap();
    let module = stage.load(orders(Misdeed::OtherTree, When::InFrame));
    assert_eq!(module.manifest().state_version, 2);
    let mut other = module.instantiate(&setup(2, 1), "other").unwrap();
    other.restore(1, &state).unwrap();
    let migrated = other.save().unwrap();
    assert_ne!(migrated, state);
    other.restore(2, &migrated).unwrap();
    assert_eq!(other.save().unwrap(), migrated);
    for record in &stage.records[30..300] {
        other.tick(record).unwrap();
    }
    let later = other.save().unwrap();
    let throttle = &later[later.len() - 16..later.len() - 8];
    assert_ne!(throttle, [0; 8]);
    other.restore(2, &later).unwrap();
    assert_eq!(other.save().unwrap(), later);
    assert!(matches!(honest.restore(2, &later), Err(RestoreError::Refused(_))));
}
