//! Modules that are whole, and modules that are broken in one way each, against the engine as rooms use it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use holeshot_abi::{
    Action, Change, ChangeKind, InputStatus, Item, Leaderboard, LeaveReason, MEMORY_BYTES_MAX, OutputReader,
    PlayerInput, PlayerSetup, Setup, TickRecord,
};
use holeshot_room::{Fault, FaultKind, RestoreError, Rules};

use super::*;

fn engine(settings: EngineSettings) -> Engine {
    Engine::new(EngineSettings { instances_max: 8, ..settings }).unwrap()
}

fn store() -> ModuleStore {
    ModuleStore::new(engine(EngineSettings::default()), None).unwrap()
}

fn store_with_fuel(tick_fuel: u64) -> ModuleStore {
    ModuleStore::new(engine(EngineSettings { tick_fuel: Some(tick_fuel), ..EngineSettings::default() }), None).unwrap()
}

fn setup(players: usize) -> Setup {
    let player = |slot| PlayerSetup { name: format!("driver {slot}"), data: String::new() };
    Setup { seed: 7, tick_hz: 50, options: String::new(), players: (0..players).map(player).collect() }
}

fn record(frame: u32, players: usize) -> Vec<u8> {
    let mut record = TickRecord::default();
    record.begin(frame, players, 4);
    record.bytes().to_vec()
}

const MANIFEST: &str =
    r#"{"name":"broken","version":"1","state_version":1,"players_min":1,"players_max":4,"input_bytes_max":4}"#;

/// A module that does nothing, with some of its parts replaced. A part is named by what it exports; other names are added.
pub(crate) fn module_with(replaced: &[(&str, &str)]) -> Vec<u8> {
    let manifest = format!(
        "(data (i32.const 16) \"{}\") (func (export \"holeshot_manifest\") (result i64) (i64.const {}))",
        MANIFEST.replace('"', "\\\""),
        (16u64 << 32) | MANIFEST.len() as u64
    );
    let mut parts = vec![
        ("import", String::new()),
        ("memory", r#"(memory (export "memory") 1)"#.to_owned()),
        (
            "holeshot_abi_version",
            r#"(func (export "holeshot_abi_version") (result i32) (i32.const 0x10000))"#.to_owned(),
        ),
        ("holeshot_manifest", manifest),
        (
            "holeshot_buffer",
            r#"(func (export "holeshot_buffer") (param i32) (result i32) (i32.const 4096))"#.to_owned(),
        ),
        ("holeshot_init", r#"(func (export "holeshot_init") (param i32) (result i64) (i64.const 0))"#.to_owned()),
        ("holeshot_tick", r#"(func (export "holeshot_tick") (param i32) (result i64) (i64.const 0))"#.to_owned()),
        ("holeshot_save", r#"(func (export "holeshot_save") (result i64) (i64.const 0))"#.to_owned()),
        ("holeshot_restore", r#"(func (export "holeshot_restore") (param i32) (result i64) (i64.const 0))"#.to_owned()),
    ];
    for (name, text) in replaced {
        match parts.iter_mut().find(|(part, _)| part == name) {
            Some((_, part)) => *part = (*text).to_owned(),
            None => parts.push((name, (*text).to_owned())),
        }
    }
    let text: String = parts.into_iter().map(|(_, text)| text + "\n").collect();
    wat::parse_str(format!("(module {text})")).unwrap_or_else(|error| panic!("{error}"))
}

/// The body of an export in place of the one that does nothing.
fn body(export: &str, body: &str) -> (String, String) {
    let (params, result) = match export {
        "holeshot_save" | "holeshot_manifest" => ("", "i64"),
        "holeshot_abi_version" => ("", "i32"),
        "holeshot_buffer" => ("(param $len i32)", "i32"),
        _ => ("(param $len i32)", "i64"),
    };
    (export.to_owned(), format!("(func (export \"{export}\") {params} (result {result}) {body})"))
}

pub(crate) fn module_with_body(export: &str, code: &str, others: &[(&str, &str)]) -> Vec<u8> {
    let (name, text) = body(export, code);
    let mut parts = vec![(name.as_str(), text.as_str())];
    parts.extend_from_slice(others);
    module_with(&parts)
}

fn begin(bytes: &[u8]) -> WasmRules {
    store().load(bytes).unwrap().instantiate(&setup(2), "room").unwrap()
}

#[track_caller]
fn refused(bytes: &[u8]) -> LoadError {
    match store().load(bytes) {
        Ok(module) => panic!("{module:?} was loaded"),
        Err(error) => {
            eprintln!("{error}");
            error
        }
    }
}

/// The fault of the first tick. The instance is dead after it, whatever is asked of it.
#[track_caller]
fn tick_fault(mut rules: WasmRules) -> Fault {
    let fault = rules.tick(&record(0, 2)).expect_err("the tick should have faulted");
    eprintln!("{fault}\n{}", fault.backtrace.as_deref().unwrap_or("no backtrace"));
    for again in [
        rules.tick(&record(1, 2)).map(<[u8]>::len).expect_err("a dead instance was stepped"),
        rules.save().expect_err("a dead instance was saved"),
        match rules.restore(1, &[]) {
            Err(RestoreError::Fault(fault)) => fault,
            other => panic!("{other:?} from a dead instance"),
        },
    ] {
        assert_eq!(again.kind, fault.kind);
        assert!(again.message.starts_with("this instance ended earlier: "), "{again}");
    }
    assert_eq!(rules.memory_bytes(), 0);
    fault
}

// ---- whole modules ----

fn tally_wat() -> Vec<u8> {
    wat::parse_str(include_str!("../../../tests/modules/tally.wat")).unwrap()
}

const TALLY_C: &[u8] = include_bytes!("../../../tests/modules/tally-c.wasm");

/// Plays a game of tally and returns every output record and the state after every tick.
fn play_tally(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let module = store().load(bytes).unwrap();
    assert_eq!(module.manifest().name, "tally");
    let mut rules = module.instantiate(&setup(3), "room").unwrap();
    let mut record = TickRecord::default();
    let mut played = Vec::new();
    for frame in 0..100 {
        record.begin(frame, 3, 4);
        let status = [InputStatus::Fresh, InputStatus::Repeated, InputStatus::Fresh][frame as usize % 3];
        record.set_input(0, PlayerInput { status, age_frames: 0, bytes: &[frame as u8] });
        record.set_input(1, PlayerInput { status: InputStatus::Fresh, age_frames: 0, bytes: &[200] });
        if frame == 0 {
            (0..3).for_each(|player| assert!(record.push_change(Change { player, kind: ChangeKind::Joined })));
        }
        if frame == 50 {
            assert!(record.push_change(Change { player: 2, kind: ChangeKind::Left(LeaveReason::Quit) }));
        }
        for _ in 0..frame % 4 {
            assert!(record.push_action(Action { player: 2, json: &"x".repeat(frame as usize * 10) }));
        }
        let output = rules.tick(record.bytes()).unwrap().to_vec();
        assert!(rules.last_tick_fuel() > 0 && rules.last_tick_fuel() < rules.tick_fuel());
        let state = rules.save().unwrap();
        played.push((output, state));
    }
    played
}

#[test]
fn a_module_by_hand_counts_and_finishes() {
    let played = play_tally(&tally_wat());
    let items = |frame: usize| OutputReader::read(&played[frame].0, 3).unwrap().items().collect::<Vec<_>>();
    assert_eq!(
        items(0)[..3],
        [0, 1, 2].map(|player| Item::PublicEvent {
            name: "joined",
            json: ["{\"player\":0}", "{\"player\":1}", "{\"player\":2}"][player]
        })
    );
    assert_eq!(items(50)[0], Item::PublicEvent { name: "left", json: "{\"player\":2}" });
    // What the rules add up, by hand: fresh bytes of two players, and 100 per action.
    let fresh: u32 = (0..100).filter(|frame| frame % 3 != 1).sum();
    let actions: u32 = (0..100).map(|frame| frame % 4).sum();
    let expected = [fresh, 100 * 200, 100 * actions];
    let snapshot: Vec<u8> = expected.iter().flat_map(|tally| tally.to_le_bytes()).collect();
    assert_eq!(items(99)[0], Item::SharedSnapshot(&snapshot));
    let Item::Results(results) = items(99)[1] else { panic!("no results at the end") };
    let results: Vec<holeshot_abi::PlayerResult<u32>> = serde_json::from_str(results).unwrap();
    assert_eq!(results.iter().map(|result| result.data).collect::<Vec<_>>(), expected);
}

#[test]
fn a_module_in_c_gives_the_same_bytes_as_the_one_by_hand() {
    assert_eq!(play_tally(TALLY_C), play_tally(&tally_wat()));
}

#[test]
fn a_saved_state_goes_on_in_another_instance() {
    for bytes in [tally_wat(), TALLY_C.to_vec()] {
        let module = store().load(&bytes).unwrap();
        let mut first = module.instantiate(&setup(2), "first").unwrap();
        let mut second = module.instantiate(&setup(2), "second").unwrap();
        let mut tick = TickRecord::default();
        let mut record = |frame| {
            tick.begin(frame, 2, 4);
            tick.set_input(1, PlayerInput { status: InputStatus::Fresh, age_frames: 0, bytes: &[9] });
            tick.bytes().to_vec()
        };
        for frame in 0..40 {
            first.tick(&record(frame)).unwrap();
        }
        let state = first.save().unwrap();
        second.restore(1, &state).unwrap();
        for frame in 40..100 {
            let record = record(frame);
            assert_eq!(first.tick(&record).unwrap(), second.tick(&record).unwrap(), "frame {frame}");
        }
        // A refusal leaves the instance alive, and as it was.
        let before = first.save().unwrap();
        assert_eq!(first.restore(2, &state), Err(RestoreError::Refused("tally knows state version 1 only".into())));
        assert_eq!(
            first.restore(1, &state[4..]),
            Err(RestoreError::Refused("the state is of another number of players".into()))
        );
        assert_eq!(first.save().unwrap(), before);
    }
}

#[test]
fn a_setup_that_the_module_refuses_says_why() {
    for bytes in [tally_wat(), TALLY_C.to_vec()] {
        let module = store().load(&bytes).unwrap();
        let with_options = Setup { options: "{}".into(), ..setup(2) };
        let refused =
            |setup: &Setup| module.instantiate(setup, "room").expect_err("the setup should have been refused");
        assert_eq!(refused(&with_options), InstantiateError::Refused { text: "tally takes no options".into() });
        assert_eq!(refused(&setup(9)), InstantiateError::Refused { text: "tally takes 1 to 8 players".into() });
        assert!(matches!(refused(&setup(65)), InstantiateError::Setup(_)));
    }
}

#[test]
fn constructors_run_before_anything_else() {
    let bytes = module_with_body(
        "holeshot_abi_version",
        "(global.get $version)",
        &[(
            "more",
            "(global $version (mut i32) (i32.const 0)) (func (export \"_initialize\") (global.set $version (i32.const 0x10000)))",
        )],
    );
    begin(&bytes).tick(&record(0, 2)).unwrap();
}

#[test]
fn the_same_bytes_are_loaded_once() {
    let store = store();
    let first = store.load(&tally_wat()).unwrap();
    assert!(Arc::ptr_eq(&first, &store.load(&tally_wat()).unwrap()));
    assert!(Arc::ptr_eq(&first, &store.get(&first.hash()).unwrap()));
    let hash = first.hash();
    assert_eq!(hash.to_string().parse(), Ok(hash));
    assert!("not a hash".parse::<ModuleHash>().is_err());
    drop(first);
    assert!(store.get(&hash).is_none());
}

#[test]
fn a_full_host_says_so_and_takes_rooms_again_when_one_ends() {
    let module = store().load(&tally_wat()).unwrap();
    let mut rooms: Vec<_> = (0..8).map(|_| module.instantiate(&setup(1), "room").unwrap()).collect();
    let full = module.instantiate(&setup(1), "room").expect_err("there are 8 instances");
    assert_eq!(full, InstantiateError::HostFull { instances_max: 8 });
    rooms.pop();
    module.instantiate(&setup(1), "room").unwrap();
}

#[test]
fn a_fault_frees_its_instance_at_once() {
    let store = store();
    let module = store.load(&module_with_body("holeshot_tick", "unreachable", &[])).unwrap();
    let mut dead: Vec<_> = (0..20)
        .map(|_| module.instantiate(&setup(1), "room").unwrap())
        .map(|mut rules| {
            rules.tick(&record(0, 1)).expect_err("it traps");
            rules
        })
        .collect();
    assert_eq!(store.engine().instances(), 0);
    dead.clear();
}

// ---- descriptions ----

/// What a module says its state is that returns this span, with these bytes at 1024.
fn described(span: &str, bytes: &str) -> Result<Option<String>, Fault> {
    let describe = format!("(func (export \"holeshot_describe\") (result i64) {span})");
    let data = format!("(data (i32.const 1024) \"{bytes}\")");
    begin(&module_with(&[("describe", &describe), ("more", &data)])).describe()
}

#[test]
fn modules_of_both_versions_run_and_the_later_may_describe_its_state() {
    let mut former = begin(&tally_wat());
    assert_eq!(former.describe(), Ok(None));
    former.tick(&record(0, 2)).unwrap();
    begin(&module_with_body("holeshot_abi_version", "(i32.const 0x10001)", &[])).tick(&record(0, 2)).unwrap();
    assert_eq!(described("(i64.const 0x0000040000000007)", "{\\22a\\22:1}rest"), Ok(Some("{\"a\":1}".to_owned())));
}

#[test]
fn a_description_that_is_no_description_is_a_fault() {
    for (span, bytes, kind, part) in [
        (
            "(i64.const 0x0000040000000002)",
            "{]",
            FaultKind::BadOutput,
            "no JSON: key must be a string at line 1 column 2",
        ),
        ("(i64.const 0x0000040000000002)", "1\\ff", FaultKind::BadOutput, "byte 1 is wrong"),
        ("(i64.const 0)", "", FaultKind::BadOutput, "no JSON: EOF"),
        ("(i64.const 0x0000ffff00000002)", "", FaultKind::BadSpan, "outside the memory of 65536 bytes"),
        ("unreachable", "", FaultKind::Trap, "holeshot_describe: wasm trap: wasm `unreachable`"),
        ("(loop (br 0)) unreachable", "", FaultKind::FuelExhausted, "holeshot_describe"),
    ] {
        let fault = described(span, bytes).expect_err("the description is bad");
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.message.contains(part), "{fault}");
    }
    let memory = ("memory", "(memory (export \"memory\") 64)");
    let long = format!("(func (export \"holeshot_describe\") (result i64) (i64.const {}))", (1 << 20) + 1);
    let mut rules = begin(&module_with(&[memory, ("describe", &long)]));
    assert!(rules.describe().expect_err("it is too long").message.contains("at most 1048576"));
    assert!(rules.describe().expect_err("it is dead").message.starts_with("this instance ended earlier"));
    // Nesting is bounded by the reader.
    let deep = "[".repeat(200) + &"]".repeat(200);
    let fault = described(&format!("(i64.const {})", (1024u64 << 32) | 400), &deep).expect_err("it is too deep");
    assert!(fault.message.contains("recursion limit exceeded"), "{fault}");
}

#[test]
fn the_default_game_describes_the_same_state_in_wasm_and_natively() {
    let module = store().load(DRAG_RACE_WASM).unwrap();
    let setup = setup(2);
    let (mut wasm, mut native) =
        (module.instantiate(&setup, "room").unwrap(), NativeRules::<drag_race::DragRace>::new(&setup).unwrap());
    let mut tick = TickRecord::default();
    for frame in 0..120 {
        tick.begin(frame, 2, 4);
        (0..2).for_each(|player| {
            let bytes = &[200, if frame < 110 { 255 } else { 0 }, 1];
            assert!(tick.set_input(player, PlayerInput { status: InputStatus::Fresh, age_frames: 0, bytes }));
            if frame == 0 {
                assert!(tick.push_change(Change { player: player as u16, kind: ChangeKind::Joined }));
            }
        });
        assert_eq!(wasm.tick(tick.bytes()).unwrap(), native.tick(tick.bytes()).unwrap());
    }
    // In an instance that took the state over, as a host does it.
    let mut thrown_away = module.instantiate(&setup, "room").unwrap();
    thrown_away.restore(module.manifest().state_version, &wasm.save().unwrap()).unwrap();
    let text = thrown_away.describe().unwrap().expect("it describes");
    assert_eq!(Some(&text), native.describe().unwrap().as_ref());
    let state: serde_json::Value = serde_json::from_str(&text).unwrap();
    eprintln!("{} bytes: {text}", text.len());
    assert!(state.is_object() && text.contains("distance_m"), "{text}");
}

#[test]
fn what_a_shipped_module_writes_begins_where_a_page_does() {
    for module in SHIPPED {
        let sections = wasmparser::Parser::new(0).parse_all(module).filter_map(|payload| match payload {
            Ok(wasmparser::Payload::DataSection(segments)) => Some(segments),
            _ => None,
        });
        let addresses: Vec<u32> = sections
            .flatten()
            .map(|segment| {
                let wasmparser::DataKind::Active { offset_expr, .. } = segment.unwrap().kind else {
                    panic!("a segment that is copied when asked for");
                };
                let Ok(wasmparser::Operator::I32Const { value }) = offset_expr.get_operators_reader().read() else {
                    panic!("an address that is not constant");
                };
                value as u32
            })
            .collect();
        // The first are constants, the last is what the build script moves.
        assert!(addresses.len() == 2 && addresses.is_sorted(), "{addresses:x?}");
        assert!(addresses[1] % 4_096 < 256, "{addresses:x?}");
    }
}

#[test]
fn a_room_of_the_default_game_asks_for_no_memory_beyond_what_its_module_begins_with() {
    // 8 KiB of pages that it would touch: see `small-heap` of holeshot-guest.
    let memories = wasmparser::Parser::new(0).parse_all(DRAG_RACE_WASM).find_map(|payload| match payload {
        Ok(wasmparser::Payload::MemorySection(memories)) => memories.into_iter().next(),
        _ => None,
    });
    let begins_with = usize::try_from(memories.unwrap().unwrap().initial).unwrap() << 16;
    let module = store().load(DRAG_RACE_WASM).unwrap();
    let mut rules = module.instantiate(&setup(2), "room").unwrap();
    let mut tick = TickRecord::default();
    for frame in 0..1_000 {
        tick.begin(frame, 2, module.manifest().input_stride_bytes());
        for player in 0..2 {
            let bytes = &[200, if frame < 110 { 255 } else { 0 }, 1];
            assert!(tick.set_input(player, PlayerInput { status: InputStatus::Fresh, age_frames: 0, bytes }));
            if frame == 0 {
                assert!(tick.push_change(Change { player: player as u16, kind: ChangeKind::Joined }));
            }
        }
        rules.tick(tick.bytes()).unwrap();
        if frame % 50 == 0 {
            rules.save().unwrap();
        }
    }
    assert_eq!(rules.memory_bytes(), begins_with);
}

// ---- the cache ----

#[test]
fn compiled_modules_come_from_the_cache_and_damaged_ones_are_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("modules");
    let load = || {
        let store = ModuleStore::new(engine(EngineSettings::default()), Some(cache.clone())).unwrap();
        let module = store.load(&tally_wat()).unwrap();
        let mut rules = module.instantiate(&setup(1), "room").unwrap();
        rules.tick(&record(0, 1)).unwrap();
        module.origin()
    };
    let file = || {
        let files: Vec<PathBuf> = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    };
    assert_eq!(load(), Origin::Compiled);
    assert_eq!(load(), Origin::Cache);
    let whole = std::fs::read(file()).unwrap();
    let spoilt = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    for damaged in [spoilt(0), spoilt(40), spoilt(whole.len() - 1), whole[..whole.len() / 2].to_vec(), Vec::new()] {
        std::fs::write(file(), damaged).unwrap();
        assert_eq!(load(), Origin::Compiled);
        assert_eq!(std::fs::read(file()).unwrap(), whole);
        assert_eq!(load(), Origin::Cache);
    }
    // Another module's sound file under this one's name.
    let store = ModuleStore::new(engine(EngineSettings::default()), Some(cache.clone())).unwrap();
    let name = file();
    store.load(TALLY_C).unwrap();
    let other =
        std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).find(|path| *path != name).unwrap();
    std::fs::rename(other, name).unwrap();
    assert_eq!(load(), Origin::Compiled);
}

#[cfg(unix)]
#[test]
fn the_cache_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &std::path::Path| ModuleStore::new(engine(EngineSettings::default()), Some(path.to_owned()));
    let cache = folder.path().join("modules");
    std::fs::create_dir(&cache).unwrap();
    std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o777)).unwrap();
    open(&cache).unwrap();
    assert_eq!(std::fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(open(&file), Err(CacheError::Unusable { .. })));
}

// ---- refusals at load ----

#[test]
fn what_is_no_module_is_refused_by_what_it_is() {
    let hint = |bytes: &[u8]| match refused(bytes) {
        LoadError::NotWasm { hint, .. } => hint,
        other => panic!("{other:?}"),
    };
    assert!(hint(b"").contains("empty"));
    assert!(hint(b"  (module)").contains("wat2wasm"));
    assert!(hint(b"\x7fELF\x02\x01\x01").contains("--target wasm32-unknown-unknown"));
    assert!(hint(b"PK\x03\x04").contains("unpack"));
    assert!(hint(b"\xff\xfegarbage").contains("target/wasm32-unknown-unknown"));
    assert!(matches!(refused(b"\0asm"), LoadError::Invalid { .. }));
    assert!(matches!(refused(b"\0asm\x02\0\0\0"), LoadError::Invalid { .. }));
    assert_eq!(refused(b"\0asm\x0d\0\x01\0"), LoadError::Component);
    assert!(matches!(refused(&vec![0; MODULE_BYTES_MAX + 1]), LoadError::TooLong { .. }));
    let missing = store().load_file("/nowhere/at all.wasm".as_ref()).expect_err("there is no such file");
    assert!(matches!(missing, LoadError::Unreadable { .. }) && missing.to_string().contains("/nowhere/at all.wasm"));
}

#[test]
fn a_tangle_that_would_be_compiled_for_minutes_is_refused() {
    let tangled = |functions: usize, locals: usize, loops: usize| {
        let (locals, loops) = ("i64 ".repeat(locals), "(loop (br_if 0 (i32.const 0)))".repeat(loops));
        let function = format!("(func (param i32) (local {locals}) {loops})");
        refused(&wat::parse_str(format!("(module {})", function.repeat(functions))).unwrap())
    };
    let error = tangled(1, 3_000, 12_000);
    assert_eq!(error, LoadError::TooTangled { what: "one function", found: 3_001 * 24_000, most: 2 << 20 });
    assert!(error.to_string().contains("72024000"), "{error}");
    let error = tangled(5, 999, 1_000);
    assert_eq!(error, LoadError::TooTangled { what: "all functions together", found: 10_000_000, most: 8 << 20 });
    // What it lacks otherwise is told when it could be compiled.
    assert!(matches!(tangled(4, 999, 1_000), LoadError::MissingExport { .. }));
}

#[test]
fn a_file_that_was_cut_or_changed_is_refused_or_faults_but_never_more() {
    let whole = tally_wat();
    let store = store();
    let first_tick = |bytes: &[u8]| {
        let module = store.load(bytes).ok()?;
        let mut rules = module.instantiate(&setup(2), "room").unwrap();
        Some(rules.tick(&record(0, 2)).unwrap().to_vec())
    };
    let expected = first_tick(&whole);
    let loaded: Vec<usize> = (0..whole.len())
        .filter(|&cut| {
            let output = first_tick(&whole[..cut]);
            assert!(output.is_none() || output == expected, "cut at {cut}");
            output.is_some()
        })
        .collect();
    // A cut that loses the section of names, and exactly that, leaves a whole module.
    assert_eq!(loaded.len(), 1, "{loaded:?}");
    // Every thirteenth byte: each of them compiles a module.
    for at in (8..whole.len()).step_by(13) {
        let mut changed = whole.clone();
        changed[at] ^= 0x41;
        if let Ok(module) = store.load(&changed)
            && let Ok(mut rules) = module.instantiate(&setup(2), "room")
            && let Ok(output) = rules.tick(&record(0, 2))
        {
            let _ = OutputReader::read(output, 2);
        }
    }
}

#[test]
fn a_component_and_an_unknown_abi_are_refused() {
    let module = |version: &str| module_with_body("holeshot_abi_version", version, &[]);
    assert_eq!(refused(&module("(i32.const 0x20000)")), LoadError::AbiVersion { found: 0x20000 });
    assert_eq!(refused(&module("(i32.const 0x10003)")), LoadError::AbiVersion { found: 0x10003 });
    assert_eq!(refused(&module("(i32.const 0)")), LoadError::AbiVersion { found: 0 });
    assert!(refused(&module("(i32.const 0x30007)")).to_string().contains("version 3.7"));
}

#[test]
fn each_missing_or_wrong_export_is_named() {
    for name in [
        "holeshot_abi_version",
        "holeshot_manifest",
        "holeshot_buffer",
        "holeshot_init",
        "holeshot_tick",
        "holeshot_save",
        "holeshot_restore",
        "memory",
    ] {
        // The memory stays, but is not exported.
        let missing = module_with(&[(name, if name == "memory" { "(memory 1)" } else { "" })]);
        let error = refused(&missing);
        assert!(matches!(&error, LoadError::MissingExport { name: found, .. } if *found == name), "{error:?}");
        let wrong = format!("(func (export \"{name}\") (param f32))");
        let wrong = module_with(&[(name, if name == "memory" { "(memory 1)" } else { "" }), ("more", &wrong)]);
        let error = refused(&wrong);
        assert!(matches!(&error, LoadError::ExportSignature { name: found, .. } if *found == name), "{error:?}");
    }
    let text = refused(&module_with(&[("holeshot_tick", "(global (export \"holeshot_tick\") i32 (i32.const 1))")]))
        .to_string();
    assert!(text.contains("a global") && text.contains("(i32) -> (i64)"), "{text}");
    let initialize = module_with(&[("more", "(func (export \"_initialize\") (result i32) (i32.const 1))")]);
    assert!(matches!(refused(&initialize), LoadError::ExportSignature { name: "_initialize", .. }));
    let describe = module_with(&[("more", "(func (export \"holeshot_describe\") (result i32) (i32.const 1))")]);
    assert!(matches!(refused(&describe), LoadError::ExportSignature { name: "holeshot_describe", .. }));
}

#[test]
fn unknown_imports_are_named_with_what_to_do() {
    let import = |import: &str| refused(&module_with(&[("import", import)]));
    for (text, module, name, hint) in [
        (
            "(import \"wasi_snapshot_preview1\" \"fd_write\" (func))",
            "wasi_snapshot_preview1",
            "fd_write",
            "wasm32-unknown-unknown",
        ),
        (
            "(import \"__wbindgen_placeholder__\" \"__wbindgen_throw\" (func))",
            "__wbindgen_placeholder__",
            "__wbindgen_throw",
            "cargo tree",
        ),
        ("(import \"env\" \"sinf\" (func (param f32) (result f32)))", "env", "sinf", "Define it"),
        ("(import \"holeshot\" \"clock\" (func))", "holeshot", "clock", "later host"),
        ("(import \"a\\nb\" \"\\1b[2J\" (func))", "a\\nb", "\\u{1b}[2J", "records"),
    ] {
        let error = import(text);
        let LoadError::UnknownImport { module: found_module, name: found_name, hint: found_hint } = &error else {
            panic!("{error:?}")
        };
        assert_eq!((found_module.as_str(), found_name.as_str()), (module, name));
        assert!(found_hint.contains(hint), "{error}");
    }
    let memory = module_with(&[
        ("memory", ""),
        ("import", r#"(import "env" "memory" (memory 1)) (export "memory" (memory 0))"#),
    ]);
    assert!(refused(&memory).to_string().contains("--import-memory"));
    let log = import("(import \"holeshot\" \"log\" (func (param i32 i64)))");
    assert!(
        matches!(&log, LoadError::ImportSignature { found, .. } if found == "a function (i32, i64) -> ()"),
        "{log:?}"
    );
    assert!(matches!(import("(import \"holeshot\" \"log\" (global i32))"), LoadError::ImportSignature { .. }));
}

#[test]
fn memories_and_tables_beyond_the_boundary_are_refused() {
    let memory = |memory: &str| refused(&module_with(&[("memory", memory)]));
    assert_eq!(memory("(memory (export \"memory\") 65)"), LoadError::MemoryTooLarge { found_bytes: 65 << 16 });
    let kind = |text: &str| match memory(text) {
        LoadError::MemoryKind { found, .. } => found,
        other => panic!("{other:?}"),
    };
    assert_eq!(kind("(memory (export \"memory\") 1 2 shared)"), "a shared memory");
    assert_eq!(kind("(memory (export \"memory\") i64 1)"), "a 64-bit memory");
    assert_eq!(kind("(memory (export \"memory\") 1) (memory 1)"), "more than one memory");
    assert_eq!(kind("(memory (export \"memory\") 1 (pagesize 1))"), "a memory with pages of its own size");
    let table = |table: &str| refused(&module_with(&[("more", table)]));
    assert_eq!(table("(table 4097 funcref)"), LoadError::Tables { tables: 1, elements: 4097 });
    assert_eq!(table("(table 1 funcref) (table 2 funcref)"), LoadError::Tables { tables: 2, elements: 3 });
    // The most that is allowed is.
    begin(&module_with(&[("memory", "(memory (export \"memory\") 64)"), ("more", "(table 4096 funcref)")]));
}

#[test]
fn proposals_beyond_the_boundary_are_refused() {
    for more in [
        "(func (drop (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0))))",
        "(func (drop (i32.atomic.load (i32.const 0))))",
        "(func $f (return_call $f))",
        "(table 1 externref)",
        "(type (struct (field i32)))",
        "(tag)",
    ] {
        let error = refused(&module_with(&[("more", more)]));
        assert!(matches!(error, LoadError::Invalid { .. } | LoadError::Compile { .. }), "{more}: {error:?}");
    }
    for more in [
        "(func (drop (i8x16.swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0))))",
        "(func (result i32 i32) (i32.const 1) (i32.extend8_s (i32.const 2)))",
        "(func (memory.fill (i32.const 0) (i32.const 0) (i32.const 1)) (drop (i32.trunc_sat_f32_s (f32.const nan))))",
        "(table $t 1 funcref) (func (drop (table.grow $t (ref.null func) (i32.const 1))))",
    ] {
        begin(&module_with(&[("more", more)]));
    }
}

#[test]
fn leaderboards_are_read_of_modules_that_know_them() {
    let load = |version: &str, boards: &str| {
        let json = MANIFEST.replace('}', &format!(",\"leaderboards\":{boards}}}"));
        let data = format!("(data (i32.const 1024) \"{}\")", json.replace('"', "\\\""));
        let code = format!("(i64.const {})", (1024u64 << 32) | json.len() as u64);
        let (name, abi) = body("holeshot_abi_version", &format!("(i32.const {version})"));
        store().load(&module_with_body("holeshot_manifest", &code, &[("more", &data), (name.as_str(), &abi)]))
    };
    let boards = r#"[{"name":"lap","score":"lap_s","best":"lowest","group_by":["track"]}]"#;
    let module = load("0x10002", boards).unwrap();
    assert_eq!(module.manifest().leaderboards, [Leaderboard::lowest("lap", "lap_s").group_by(["track"])]);
    // What was unknown to a module is nothing to its host, whatever it is.
    for boards in [boards, "7", "[{}]"] {
        assert_eq!(load("0x10001", boards).unwrap().manifest().leaderboards, []);
    }
    assert!(matches!(load("0x10002", "7").unwrap_err(), LoadError::ManifestNotJson { .. }));
    let twice = r#"[{"name":"a","score":"s","best":"highest"},{"name":"a","score":"t","best":"highest"}]"#;
    let error = load("0x10002", twice).unwrap_err().to_string();
    assert!(error.contains("`leaderboards.name` is \"a\"; accepted: a name that no other"), "{error}");
}

#[test]
fn manifests_are_checked_field_by_field() {
    let manifest = |json: &str| {
        let data = format!("(data (i32.const 1024) \"{}\")", json.replace('"', "\\\""));
        let code = format!("(i64.const {})", (1024u64 << 32) | json.len() as u64);
        refused(&module_with_body("holeshot_manifest", &code, &[("more", &data)]))
    };
    let spoilt = |from: &str, to: &str| manifest(&MANIFEST.replace(from, to));
    let field = |error: LoadError| match error {
        LoadError::Manifest(error) => error.field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(spoilt("\"broken\"", "\"Broken\"")), "name");
    assert_eq!(field(spoilt("\"players_max\":4", "\"players_max\":65")), "players_max");
    assert_eq!(field(spoilt("}", ",\"tick_hz\":129}")), "tick_hz");
    for (error, part) in [
        (manifest(""), "empty"),
        (manifest("[]"), "struct"),
        (manifest("{\"name\":"), "line 1"),
        (spoilt("\"state_version\":1,", ""), "state_version"),
        (spoilt("\"players_max\":4", "\"players_max\":-4"), "-4"),
    ] {
        assert!(
            matches!(&error, LoadError::ManifestNotJson { problem, start } if problem.contains(part) || start.contains(part)),
            "{error:?}"
        );
    }
    let code = |code: &str| {
        refused(&module_with_body("holeshot_manifest", code, &[("more", "(data (i32.const 8) \"{\\ff\")")]))
    };
    assert_eq!(code("(i64.const 0x800000002)"), LoadError::ManifestNotUtf8 { offset: 1 });
    assert_eq!(code("(i64.const 0x800008000)"), LoadError::ManifestTooLong { found_bytes: 0x8000 });
    let fault = |error: LoadError| match error {
        LoadError::Faulted { fault } => fault,
        other => panic!("{other:?}"),
    };
    assert_eq!(fault(code("(i64.const 0xffff00000008)")).kind, FaultKind::BadSpan);
    assert_eq!(fault(code("(loop (br 0)) (i64.const 0)")).kind, FaultKind::FuelExhausted);
    assert_eq!(fault(code("unreachable")).kind, FaultKind::Trap);
}

#[test]
fn a_module_that_hangs_or_fails_before_it_is_asked_is_refused() {
    let fault = |more: &str| match refused(&module_with(&[("more", more)])) {
        LoadError::Faulted { fault } => fault,
        other => panic!("{other:?}"),
    };
    let hangs = fault("(func $spin (loop (br 0))) (start $spin)");
    assert_eq!(hangs.kind, FaultKind::FuelExhausted);
    assert!(hangs.message.contains("start function"), "{hangs}");
    let hangs = fault("(func (export \"_initialize\") (loop (br 0)))");
    assert_eq!(hangs.kind, FaultKind::FuelExhausted);
    assert!(hangs.message.contains("_initialize"), "{hangs}");
    // Data outside of the memory.
    assert_eq!(fault("(data (i32.const 65535) \"ab\")").kind, FaultKind::Trap);
}

// ---- faults ----

#[test]
fn an_endless_tick_is_stopped_by_fuel_at_the_same_instruction_every_time() {
    let counting =
        "(loop (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))) (br 0)) (i64.const 0)";
    let module = store_with_fuel(100_000).load(&module_with_body("holeshot_tick", counting, &[])).unwrap();
    let used: Vec<u64> = (0..3)
        .map(|_| {
            let mut rules = module.instantiate(&setup(2), "room").unwrap();
            assert_eq!(rules.tick(&record(0, 2)).expect_err("it never ends").kind, FaultKind::FuelExhausted);
            rules.last_tick_fuel()
        })
        .collect();
    assert_eq!(used[0], used[1]);
    assert_eq!(used[0], used[2]);
    assert!(used[0] <= 100_000);
}

#[test]
fn work_that_one_instruction_does_is_paid_by_its_amount() {
    for code in [
        "(loop (memory.fill (i32.const 0) (i32.const 0) (i32.const 65536)) (br 0)) (i64.const 0)",
        "(loop (memory.copy (i32.const 0) (i32.const 1) (i32.const 65535)) (br 0)) (i64.const 0)",
        "(loop (drop (memory.grow (i32.const 100000))) (br 0)) (i64.const 0)",
    ] {
        let module = store_with_fuel(1_000_000).load(&module_with_body("holeshot_tick", code, &[])).unwrap();
        let rules = module.instantiate(&setup(2), "room").unwrap();
        assert_eq!(tick_fault(rules).kind, FaultKind::FuelExhausted, "{code}");
    }
}

#[test]
fn the_watchdog_ends_what_fuel_does_not() {
    let module = store_with_fuel(u64::MAX >> 1)
        .load(&module_with_body("holeshot_tick", "(loop (br 0)) (i64.const 0)", &[]))
        .unwrap();
    let fault = tick_fault(module.instantiate(&setup(2), "room").unwrap());
    assert_eq!(fault.kind, FaultKind::DeadlineExceeded);
}

#[test]
fn a_trap_tells_its_kind_and_the_functions_it_went_through() {
    for (code, part) in [
        ("unreachable", "unreachable"),
        ("(i64.extend_i32_u (i32.div_u (i32.const 1) (i32.const 0)))", "divide by zero"),
        ("(i64.load (i32.const -1))", "out of bounds memory access"),
        ("(call $deeper) (i64.const 0)", "call stack exhausted"),
    ] {
        let bytes = module_with_body("holeshot_tick", code, &[("more", "(func $deeper (call $deeper))")]);
        let fault = tick_fault(begin(&bytes));
        assert_eq!(fault.kind, FaultKind::Trap);
        assert!(fault.message.contains("holeshot_tick") && fault.message.contains(part), "{fault}");
    }
    let named = r#"(func $inner unreachable) (func $_ZN4cars7gearbox5shift17h0123456789abcdefE (call $inner))"#;
    let bytes = module_with_body(
        "holeshot_tick",
        "(call $_ZN4cars7gearbox5shift17h0123456789abcdefE) (i64.const 0)",
        &[("more", named)],
    );
    let fault = tick_fault(begin(&bytes));
    let backtrace = fault.backtrace.expect("there are frames");
    let lines: Vec<&str> = backtrace.lines().collect();
    assert_eq!(lines.len(), 3, "{backtrace}");
    assert!(lines[0].starts_with("inner (0x"), "{backtrace}");
    assert!(lines[1].starts_with("cars::gearbox::shift"), "{backtrace}");
}

/// Built from `tests/modules/lines.rs`, with debug information.
const LINES: &[u8] = include_bytes!("../../../tests/modules/lines.wasm");

#[test]
fn a_backtrace_of_long_names_is_cut_after_a_whole_line() {
    // Twenty frames of a name whose every character becomes three bytes.
    let name = "\\u{1}".repeat(1_000);
    let named = format!("(func $deep (@name \"{name}\") (call $deep))");
    let fault =
        tick_fault(begin(&module_with_body("holeshot_tick", "(call $deep) (i64.const 0)", &[("deep", &named)])));
    let backtrace = fault.backtrace.expect("there are frames");
    let lines: Vec<&str> = backtrace.lines().collect();
    let (last, whole) = lines.split_last().unwrap();
    assert!(
        whole.len() > 2 && whole.iter().all(|line| line.matches(char::REPLACEMENT_CHARACTER).count() == 1_000),
        "{} lines",
        whole.len()
    );
    let more: usize = last.strip_prefix("… ").and_then(|rest| rest.strip_suffix(" more")).unwrap().parse().unwrap();
    assert_eq!(whole.len() + more, 20, "{last}");
    assert!(backtrace.len() <= super::backtrace::TEXT_BYTES_MAX + last.len());
}

#[test]
fn a_backtrace_has_files_and_lines_where_the_module_has_them() {
    let source = include_str!("../../../tests/modules/lines.rs");
    let line_of = |text: &str| source.lines().position(|line| line.contains(text)).unwrap() + 1;
    let backtrace = tick_fault(begin(LINES)).backtrace.expect("there are frames");
    let lines: Vec<&str> = backtrace.lines().collect();
    // What was put into the function that stopped, that function, and the export. Where the first is, core's own source says.
    let [stop, ratio, change_gear, tick] = lines[..] else { panic!("{backtrace}") };
    assert!(stop.starts_with("core::") && stop.contains("unreachable (core_arch/src/wasm32/mod.rs:"), "{backtrace}");
    let place = |text: &str| format!("(my-rules/src/lines.rs:{})", line_of(text));
    assert_eq!(ratio, format!("lines::garage::ratio {}", place("if len > 0")));
    assert_eq!(change_gear, format!("lines::garage::change_gear {}", place("i64::from(ratio")));
    assert_eq!(tick, format!("holeshot_tick {}", place("garage::change_gear(len)")));
}

#[test]
fn names_that_break_a_backtraces_lines_are_shown_as_they_are() {
    let named = "(func $a (@name \"x\\n    0: 0x1 - y\") unreachable)";
    let fault = tick_fault(begin(&module_with_body("holeshot_tick", "(call $a) (i64.const 0)", &[("more", named)])));
    let backtrace = fault.backtrace.expect("there are frames");
    let lines: Vec<&str> = backtrace.lines().collect();
    assert_eq!(lines.len(), 2, "{backtrace}");
    assert!(lines[0].starts_with("x     0: 0x1 - y (0x") && lines[1].starts_with("function "), "{backtrace}");
}

#[test]
fn a_trap_carries_the_error_logged_before_it() {
    let import = ("import", "(import \"holeshot\" \"log\" (func $log (param i32 i32 i32)))");
    let data = ("more", "(data (i32.const 1024) \"panicked at src/lib.rs:3:9:\\0ano such car\")");
    let code = "(call $log (i32.const 1) (i32.const 1024) (i32.const 39)) unreachable";
    let fault = tick_fault(begin(&module_with_body("holeshot_tick", code, &[import, data])));
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(fault.message.ends_with("panicked at src/lib.rs:3:9: no such car"), "{fault}");
    // Of this call, not of an earlier one.
    let (init, text) = body("holeshot_init", "(call $log (i32.const 1) (i32.const 1024) (i32.const 39)) (i64.const 0)");
    let fault = tick_fault(begin(&module_with_body("holeshot_tick", "unreachable", &[import, data, (&init, &text)])));
    assert!(!fault.message.contains("no such car"), "{fault}");
}

#[test]
fn memory_ends_at_the_ceiling_and_a_module_may_live_with_that() {
    // Grows until it is refused; then says how many bytes it has.
    let lives = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
        (i32.store (i32.const 0) (memory.size)) (i64.const 4)";
    let mut rules = begin(&module_with_body("holeshot_tick", lives, &[]));
    assert_eq!(rules.tick(&record(0, 2)).unwrap(), 64u32.to_le_bytes());
    assert_eq!(rules.memory_bytes(), MEMORY_BYTES_MAX);
    rules.tick(&record(1, 2)).unwrap();
    // Rust and C abort.
    let aborts = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
    let fault = tick_fault(begin(&module_with_body("holeshot_tick", aborts, &[])));
    assert_eq!(fault.kind, FaultKind::MemoryExceeded);
    let table = "(loop (br_if 0 (i32.ne (table.grow $t (ref.null func) (i32.const 64)) (i32.const -1)))) unreachable";
    let fault = tick_fault(begin(&module_with_body("holeshot_tick", table, &[("more", "(table $t 1 funcref)")])));
    assert_eq!(fault.kind, FaultKind::MemoryExceeded);
}

#[test]
fn spans_outside_the_memory_are_faults() {
    for span in ["0xffffffff_00000001", "0x0000fffd_00000004", "0x00010000_00000001", "0x00000000_00010001", "-1"] {
        let code = format!("(i64.const {span})");
        let fault = tick_fault(begin(&module_with_body("holeshot_tick", &code, &[])));
        assert_eq!(fault.kind, FaultKind::BadSpan, "{fault}");
    }
    let mut rules = begin(&module_with_body("holeshot_save", "(i64.const 0xffffffff00000001)", &[]));
    assert_eq!(rules.save().expect_err("the span is outside").kind, FaultKind::BadSpan);
    assert_eq!(rules.tick(&record(0, 2)).expect_err("it is dead").kind, FaultKind::BadSpan);
    // An empty span's address does not matter.
    let mut rules = begin(&module_with_body("holeshot_tick", "(i64.const 0xffffffff00000000)", &[]));
    assert_eq!(rules.tick(&record(0, 2)).unwrap(), b"");
}

#[test]
fn more_bytes_than_allowed_are_faults() {
    let memory = ("memory", "(memory (export \"memory\") 64)");
    let long = format!("(i64.const {})", (1 << 20) + 1);
    let fault = tick_fault(begin(&module_with_body("holeshot_tick", &long, &[memory])));
    assert_eq!(fault.kind, FaultKind::BadSpan);
    assert!(fault.message.contains("at most 1048576"), "{fault}");
    let mut rules = begin(&module_with_body("holeshot_save", &long, &[memory]));
    assert!(rules.save().expect_err("the state is too long").message.contains("at most 1048576"));
}

#[test]
fn a_malformed_output_comes_out_as_it_is_for_the_room_to_judge() {
    let mut rules = begin(&module_with_body("holeshot_tick", "(i64.const 0x1000000004)", &[]));
    let output = rules.tick(&record(0, 2)).unwrap();
    assert!(OutputReader::read(output, 2).is_err());
}

#[test]
fn the_buffer_is_checked_whenever_it_is_asked_for() {
    for (code, part) in [
        ("(i32.const 0)", "there is none"),
        ("(i32.const 4)", "multiple of 8"),
        ("(i32.const 65536)", "in memory"),
        ("(i32.const 65528)", "in memory"),
        ("(i32.const -8)", "in memory"),
    ] {
        let module = store().load(&module_with_body("holeshot_buffer", code, &[])).unwrap();
        let error = module.instantiate(&setup(2), "room").expect_err("the buffer is bad");
        let InstantiateError::Faulted(fault) = error else { panic!("{error:?}") };
        assert_eq!(fault.kind, FaultKind::BadSpan);
        assert!(fault.message.contains(part), "{fault}");
    }
    let module = store().load(&module_with_body("holeshot_buffer", "(loop (br 0)) (i32.const 8)", &[])).unwrap();
    let error = module.instantiate(&setup(2), "room").expect_err("the buffer never comes");
    assert!(matches!(&error, InstantiateError::Faulted(fault) if fault.kind == FaultKind::FuelExhausted), "{error:?}");
}

#[test]
fn the_buffer_may_move_when_a_longer_one_is_asked_for_and_only_then() {
    // The buffer is at 8 x the number of times it was asked for; a tick returns the first 8 bytes of the record, found there, and that number.
    let buffer = "(global.set $asked (i32.add (global.get $asked) (i32.const 1)))
        (drop (memory.grow (i32.const 1)))
        (i32.mul (global.get $asked) (i32.const 4096))";
    let (tick, text) = body(
        "holeshot_tick",
        "(i64.store (i32.const 0) (i64.load (i32.mul (global.get $asked) (i32.const 4096))))
         (i32.store (i32.const 8) (global.get $asked)) (i64.const 12)",
    );
    let bytes = module_with_body(
        "holeshot_buffer",
        buffer,
        &[(&tick, &text), ("more", "(global $asked (mut i32) (i32.const 0))")],
    );
    let mut rules = begin(&bytes);
    let mut asked = |record: &[u8]| {
        let output = rules.tick(record).unwrap();
        assert_eq!(output[..8], record[..8]);
        output[8]
    };
    assert_eq!(asked(&record(0, 2)), 1);
    assert_eq!(asked(&record(1, 4)), 1);
    let mut long = TickRecord::default();
    long.begin(2, 4, 4);
    assert!(long.push_action(Action { player: 0, json: &"x".repeat(1_000) }));
    assert_eq!(asked(long.bytes()), 2);
    assert_eq!(asked(&record(3, 2)), 2);
    assert_eq!(asked(long.bytes()), 2);
}

#[test]
fn refusals_are_cut_and_made_readable() {
    let memory = ("more", "(data (i32.const 1024) \"no\\1b[31m cars\\ff\")");
    let module = store().load(&module_with_body("holeshot_init", "(i64.const 0x40000004000)", &[memory])).unwrap();
    let Err(InstantiateError::Refused { text }) = module.instantiate(&setup(2), "room") else { panic!("not refused") };
    assert!(text.starts_with("no\u{fffd}[31m cars\u{fffd}"), "{text}");
    assert!(text.chars().count() <= holeshot_abi::REFUSAL_BYTES_MAX);
    let module = store().load(&module_with_body("holeshot_init", "(i64.const 0xffffffff00000010)", &[])).unwrap();
    let error = module.instantiate(&setup(2), "room").expect_err("the refusal is outside");
    assert!(matches!(&error, InstantiateError::Faulted(fault) if fault.kind == FaultKind::BadSpan), "{error:?}");
    let mut rules = begin(&module_with_body("holeshot_restore", "unreachable", &[]));
    assert!(matches!(rules.restore(1, &[]), Err(RestoreError::Fault(fault)) if fault.kind == FaultKind::Trap));
}

// ---- the log ----

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs one tick of a module that logs, and returns what reached the host's log, and the rules.
fn logged(code: &str) -> (String, WasmRules, Result<(), Fault>) {
    let import = ("import", "(import \"holeshot\" \"log\" (func $log (param i32 i32 i32)))");
    let data = ("more", "(data (i32.const 1024) \"hello\")");
    let mut rules = begin(&module_with_body("holeshot_tick", code, &[import, data]));
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let result = tracing::subscriber::with_default(subscriber, || rules.tick(&record(0, 2)).map(|_| ()));
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    (text, rules, result)
}

#[test]
fn a_line_reaches_the_log_with_its_level_module_and_room() {
    for (level, word) in [(1, "ERROR"), (2, "WARN"), (3, "INFO"), (4, "DEBUG"), (99, "INFO")] {
        let (text, rules, result) =
            logged(&format!("(call $log (i32.const {level}) (i32.const 1024) (i32.const 5)) (i64.const 0)"));
        result.unwrap();
        assert_eq!(rules.log_lines_dropped(), 0);
        for part in [word, "holeshot::rules::guest", "hello", "module=broken", "room=room", "hash="] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}

#[test]
fn a_flood_of_lines_is_counted_and_dropped() {
    let flood = "(local $i i32)
        (loop
          (call $log (i32.const 3) (i32.const 1024) (i32.const 5))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if 0 (i32.lt_u (local.get $i) (i32.const 1000))))
        (i64.const 0)";
    let (text, rules, result) = logged(flood);
    result.unwrap();
    assert_eq!(text.matches("hello").count(), 32);
    assert_eq!(text.matches("more than 32 lines").count(), 1);
    assert_eq!(rules.log_lines_dropped(), 968);
}

#[test]
fn a_line_outside_the_memory_is_a_fault() {
    for call in ["(i32.const 65536) (i32.const 1)", "(i32.const 1024) (i32.const -1)", "(i32.const -1) (i32.const 2)"] {
        let (text, _, result) = logged(&format!("(call $log (i32.const 1) {call}) (i64.const 0)"));
        let fault = result.expect_err("the line is outside");
        assert_eq!(fault.kind, FaultKind::BadSpan);
        assert!(fault.message.contains("holeshot.log"), "{fault}");
        assert_eq!(text, "");
    }
}

#[test]
fn a_start_function_may_log() {
    let import = ("import", "(import \"holeshot\" \"log\" (func $log (param i32 i32 i32)))");
    let start = |call: &str| {
        let more = format!("(func $begin (call $log (i32.const 3) {call})) (start $begin)");
        module_with(&[import, ("more", &more)])
    };
    begin(&start("(i32.const 1024) (i32.const 5)"));
    assert!(
        matches!(refused(&start("(i32.const -1) (i32.const 5)")), LoadError::Faulted { fault } if fault.kind == FaultKind::BadSpan)
    );
}

/// A module whose memory grows by a page whenever it is ticked, with data in two places.
fn growing_module() -> Vec<u8> {
    let tick = r#"(func (export "holeshot_tick") (param i32) (result i64) (drop (memory.grow (i32.const 1))) (i64.const 0))
        (data (i32.const 60000) "here") (data (i32.const 130000) "there")"#;
    module_with(&[("memory", r#"(memory (export "memory") 3)"#), ("holeshot_tick", tick)])
}

/// Runs a test of this file in a process of its own, where no other test maps memory. True in that process.
#[cfg(target_os = "linux")]
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "HOLESHOT_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    false
}

#[test]
#[cfg(target_os = "linux")]
fn an_instance_takes_no_more_mappings_than_the_limit_on_rooms_counts() {
    use crate::limits::mappings::{MAPPINGS_PER_INSTANCE, mappings_used};
    const ROOMS: u32 = 400;
    /// What the allocator and the runtime map meanwhile, for all rooms together.
    const OTHERS_MAX: u64 = 40;
    if !is_alone("rules::tests::an_instance_takes_no_more_mappings_than_the_limit_on_rooms_counts") {
        return;
    }
    let engine = Engine::new(EngineSettings { instances_max: ROOMS, ..EngineSettings::default() }).unwrap();
    let store = ModuleStore::new(engine, None).unwrap();
    let modules = [DRAG_RACE_WASM.to_vec(), tally_wat(), growing_module()].map(|bytes| store.load(&bytes).unwrap());
    let drivers = |count: usize| {
        let player = |slot| PlayerSetup { name: format!("driver {slot}"), data: r#"{"car":"mx5"}"#.into() };
        Setup { players: (0..count).map(player).collect(), ..setup(0) }
    };
    let before = mappings_used().unwrap();
    // Places keep their mappings when an instance ends, and are taken by another module then. Twice, for the other order.
    for round in 0..2 {
        for (number, module) in modules.iter().enumerate() {
            let mut rooms: Vec<_> = (0..ROOMS).map(|_| module.instantiate(&drivers(2), "room").unwrap()).collect();
            for frame in 0..3 {
                for rules in &mut rooms {
                    let mut record = TickRecord::default();
                    record.begin(frame, 2, module.manifest().input_stride_bytes());
                    rules.tick(record.bytes()).unwrap();
                }
            }
            let taken = mappings_used().unwrap().saturating_sub(before);
            println!("round {round}, module {number}: {taken} mappings for {ROOMS} rooms");
            assert!(
                taken <= u64::from(ROOMS) * MAPPINGS_PER_INSTANCE + OTHERS_MAX,
                "module {number} takes {taken} mappings for {ROOMS} rooms"
            );
        }
    }
}
