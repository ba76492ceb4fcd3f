//! The module that misbehaves by order is the drag race, byte for byte, where it has no orders, and other rules where these are its orders: what the
//! scenarios of swaps stand on. Its misdeeds show in `undo.rs`.

use std::sync::{Arc, LazyLock};

use drag_race::DragRace;
use holeshot::rules::{DRAG_RACE_WASM, Engine, EngineSettings, Module, ModuleStore, WasmRules};
use holeshot_guest::Rules as _;
use holeshot_room::{RestoreError, Rules};
use misrule::Orders;

use crate::determinism::{journal, setup};
use crate::harness::compiled;
use crate::modules_made::{OTHER_TREE, misrule};

/// One for all tests here: compiling is what takes time.
static STORE: LazyLock<ModuleStore> = LazyLock::new(|| {
    let engine = Engine::new(EngineSettings { instances_max: 32, ..EngineSettings::default() }).unwrap();
    ModuleStore::new(engine, Some(compiled().to_owned())).unwrap()
});

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
}

#[test]
fn honest_orders_make_the_drag_race_under_another_name() {
    let stage = Stage { records: journal(&setup(2, 1)) };
    let module = stage.load(Orders::honest(0));
    assert_ne!(module.hash(), stage.load(Orders::honest(1)).hash());
    let of_race = DragRace::manifest();
    assert_eq!(module.manifest().version, format!("{}-misrule.0", of_race.version));
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
fn the_other_rules_have_another_tree_and_remember_open_throttles() {
    let stage = Stage { records: journal(&setup(2, 1)) };
    let mut honest = stage.begin(Orders::honest(1));
    for record in &stage.records[..30] {
        honest.tick(record).unwrap();
    }
    let state = honest.save().unwrap();
    let module = stage.load(OTHER_TREE);
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
