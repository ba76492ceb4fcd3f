//! Rules that are replaced, that fail and are undone, in a room with the real wasm and two drivers, on a clock of the test's own and without
//! sockets: each race is run again without the swap, and must come out the same, byte for byte. The same through a whole host
//! is in `rollback.rs`; each line of the supervisor's policy, with native rules, in `host/room/tests`.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use drag_race::Driver;
use holeshot::rules::{DRAG_RACE_WASM, Engine, EngineSettings, Module, ModuleStore, RoomProgram};
use holeshot_abi::Setup;
use holeshot_room::journal::{Journal, JournalHeader, JournalWriter};
use holeshot_room::{
    Arrival, Departure, EventSource, Limits, Outcome, Ran, Room, RoomConfig, Supervision, Supervisor, SwapRefusal,
    Swapped,
};
use misrule::{Misdeed, Orders, THROTTLE_EVENT, THROTTLE_EVENT_EVERY_FRAMES, When};
use serde_json::{Value, json};

use crate::determinism::setup;
use crate::harness::{announce_errors, compiled};
use crate::modules_made::{Bad, OTHER_TREE, TRIAL_TICKS_MAX, bad_in_trial, bad_on_probation, misrule, orders};
use crate::proof::{prove, results};

/// Name of every room here, in the log.
const ROOM: &str = "a room without a host";
/// Seed of the race that every test here runs.
const SEED: u64 = 20_261_121;
/// A race that takes longer hangs.
const STEPS_MAX: u32 = 6_000;
/// Frames between a snapshot and the frame for which a driver answers it: a short way to the host and back.
const LEAD_FRAMES: u32 = 2;

static STORE: LazyLock<ModuleStore> = LazyLock::new(|| {
    let engine = Engine::new(EngineSettings { instances_max: 64, ..EngineSettings::default() }).unwrap();
    ModuleStore::new(engine, Some(compiled().to_owned())).unwrap()
});

static DRAG_RACE: LazyLock<Arc<Module>> = LazyLock::new(|| STORE.load(DRAG_RACE_WASM).unwrap());

/// The race as it is without any swap.
static PLAIN: LazyLock<Told> = LazyLock::new(|| Race::open(&DRAG_RACE, Supervision::default()).run(|_, _| {}));

/// Everything that left a room.
#[derive(Debug, Default, Clone, PartialEq)]
struct Told {
    /// Snapshots of each player: frame and bytes.
    snapshots: BTreeMap<u16, Vec<(u32, Vec<u8>)>>,
    /// Public events: number, name, frame, data.
    events: Vec<(u64, String, Option<u32>, Value)>,
    /// Internal events: kind and data.
    internal: Vec<(String, Value)>,
    /// Records of the frames that were stepped.
    records: Vec<(u32, Vec<u8>)>,
    skipped: Vec<u32>,
    /// Frame and message of what the room said about a fault in its only rules.
    retried: Vec<u32>,
    results: Option<Value>,
    aborted: Option<&'static str>,
    journal: Vec<u8>,
}

impl Told {
    fn take(&mut self, departure: Departure<'_>) {
        match departure {
            Departure::Snapshot { player, frame, bytes, .. } => {
                self.snapshots.entry(player).or_default().push((frame, bytes.to_vec()));
            }
            Departure::PublicEvent(event) => {
                let data = serde_json::from_str(event.json).unwrap();
                self.events.push((event.seq, event.name.to_owned(), event.frame, data));
            }
            Departure::InternalEvent { source: EventSource::Room, kind, json, .. } => {
                self.internal.push((kind.to_owned(), serde_json::from_str(json).unwrap()));
            }
            Departure::Tick { frame, record, ran } => match ran {
                Ran::Stepped { .. } => self.records.push((frame, record.to_vec())),
                Ran::Skipped { .. } => self.skipped.push(frame),
                Ran::Faulted { .. } => {}
            },
            Departure::RulesRetried { frame, .. } => self.retried.push(frame),
            Departure::Ended { outcome: Outcome::Finished { results, .. } } => {
                self.results = Some(serde_json::from_str(results).unwrap());
            }
            Departure::Ended { outcome: Outcome::Aborted { reason, .. } } => self.aborted = Some(reason.as_str()),
            _ => {}
        }
    }

    /// The journal, proved under the drag race and these modules.
    #[track_caller]
    fn prove(&self, what: &str, modules: &[&Arc<Module>]) -> Journal {
        let journal = Journal::read(&self.journal).unwrap_or_else(|error| panic!("{what}: {error}"));
        let modules: Vec<_> = modules.iter().copied().chain([&*DRAG_RACE]).cloned().collect();
        prove(what, &journal, &modules);
        assert_eq!(results(&journal), self.results, "{what}");
        journal
    }

    fn named(&self, name: &str) -> Vec<&Value> {
        self.events.iter().filter(|(_, named, ..)| named == name).map(|(.., data)| data).collect()
    }

    fn internal(&self, kind: &str) -> Vec<&Value> {
        self.internal.iter().filter(|(named, _)| named == kind).map(|(_, data)| data).collect()
    }

    /// Public events that are about the race and not about its rules.
    fn of_race(&self) -> Vec<(&str, Option<u32>, &Value)> {
        let events = self.events.iter().filter(|(_, name, ..)| !name.starts_with("rules_"));
        events.map(|(_, name, frame, data)| (name.as_str(), *frame, data)).collect()
    }

    /// Fails unless this race was the plain one: the same records in, the same snapshots, events and results out; and unless its journal proves
    /// it, under the drag race and `modules`. Not compared: what the room counts, and events about rules.
    #[track_caller]
    fn check_same(&self, what: &str, modules: &[&Arc<Module>]) {
        self.prove(what, modules);
        self.check_same_but_for_proof(what);
    }

    #[track_caller]
    fn check_same_but_for_proof(&self, what: &str) {
        let other = &*PLAIN;
        assert!(other.results.is_some() && other.records.len() > 800);
        for (player, snapshots) in &self.snapshots {
            let others = &other.snapshots[player];
            let differ = snapshots.iter().zip(others).find(|(one, two)| one != two).map(|(one, _)| one.0);
            assert_eq!(differ, None, "{what}: frame of the first snapshot of player {player} that differs");
            assert_eq!(snapshots.len(), others.len(), "{what}: snapshots of player {player}");
        }
        assert!(self.records == other.records, "{what}: the records differ");
        assert_eq!(self.of_race(), other.of_race(), "{what}");
        assert_eq!((&self.results, self.aborted), (&other.results, other.aborted), "{what}");
        let seqs: Vec<u64> = self.events.iter().map(|(seq, ..)| *seq).collect();
        assert_eq!(seqs, (1..=self.events.len() as u64).collect::<Vec<_>>(), "{what}");
    }
}

/// A race that is stepped by hand.
struct Race {
    setup: Arc<Setup>,
    room: Room,
    rules: Supervisor,
    drivers: Vec<Driver>,
    now_us: u64,
    told: Told,
    journal: JournalWriter,
}

impl Race {
    fn open(module: &Arc<Module>, supervision: Supervision) -> Self {
        announce_errors(ROOM, "misrule was told");
        let setup = Arc::new(setup(2, SEED));
        let config = RoomConfig {
            id: ROOM.into(),
            manifest: module.manifest().clone(),
            setup: (*setup).clone(),
            limits: Limits::default(),
        };
        let drivers = (0..2).map(|lane| {
            let car =
                drag_race::cars().iter().find(|car| setup.players[lane].data.contains(&format!("\"{}\"", car.id)));
            Driver::new(&car.unwrap().id, lane, 0.9, SEED + lane as u64).unwrap()
        });
        let mut setup_record = Vec::new();
        setup.write(&mut setup_record).unwrap();
        let header = JournalHeader {
            room: ROOM.into(),
            opened_unix_ms: 0,
            setup: setup_record,
            manifest: serde_json::to_string(module.manifest()).unwrap(),
            module: *module.hash().as_bytes(),
        };
        let mut race = Self {
            journal: JournalWriter::begin(&header),
            room: Room::open(config, 0).unwrap(),
            rules: Supervisor::begin(program(module, &setup), supervision).unwrap(),
            drivers: drivers.collect(),
            setup,
            now_us: 0,
            told: Told::default(),
        };
        for player in 0..2 {
            race.room.handle(0, Arrival::Connected { player }).unwrap();
            race.room.handle(0, Arrival::Ready { player }).unwrap();
        }
        race
    }

    /// Steps the room to its end. `steer` is called once before each frame, before frame 0 while the room gathers.
    fn run(mut self, mut steer: impl FnMut(u32, &mut Self)) -> Told {
        let mut steered = None;
        for _ in 0..STEPS_MAX {
            let next_frame = self.room.frame().map_or(0, |frame| frame + 1);
            if steered != Some(next_frame) {
                steered = Some(next_frame);
                steer(next_frame, &mut self);
            }
            self.now_us = self.now_us.max(self.room.next_due_us().unwrap());
            let (told, journal) = (&mut self.told, &mut self.journal);
            self.room.step(self.now_us, &mut self.rules, &mut |departure| {
                journal.note(&departure);
                told.take(departure);
            });
            if self.told.results.is_some() || self.told.aborted.is_some() {
                self.journal.finish();
                self.told.journal = self.journal.take();
                return self.told;
            }
            self.drive();
        }
        panic!("the race is not over after {STEPS_MAX} steps");
    }

    /// Every driver answers the last snapshot, if it is a new one.
    fn drive(&mut self) {
        for (player, driver) in (0u16..).zip(&mut self.drivers) {
            let Some((frame, bytes)) = self.told.snapshots.get(&player).and_then(|all| all.last()) else { continue };
            if Some(*frame) != self.room.frame() {
                continue;
            }
            let seen: drag_race::Snapshot = postcard::from_bytes(bytes).unwrap();
            let input = postcard::to_allocvec(&driver.drive(&seen)).unwrap();
            let input = Arrival::Input { player, frame: frame + LEAD_FRAMES, bytes: &input };
            self.room.handle(self.now_us, input).unwrap();
        }
    }

    /// Trial and swap, as the host does them, but between two frames.
    fn swap(&mut self, module: &Arc<Module>) -> Result<Swapped, SwapRefusal> {
        let candidate = self.rules.trial().run(program(module, &self.setup))?;
        let (told, journal) = (&mut self.told, &mut self.journal);
        self.room.swap(self.now_us, &mut self.rules, candidate, &mut |departure| {
            journal.note(&departure);
            told.take(departure);
        })
    }
}

fn program(module: &Arc<Module>, setup: &Arc<Setup>) -> Arc<RoomProgram> {
    Arc::new(RoomProgram::new(Arc::clone(module), Arc::clone(setup), ROOM.into()))
}

/// A module with orders. The store forgets those that nobody holds.
fn ordered(orders: Orders) -> Arc<Module> {
    STORE.load(&misrule(orders)).unwrap()
}

#[test]
fn a_race_of_a_hundred_swaps_is_the_race_that_never_swapped() {
    let builds = [ordered(Orders::honest(0)), ordered(Orders::honest(1))];
    let supervision = Supervision { probation_frames: 3, ..Supervision::default() };
    let mut swaps = 0;
    let told = Race::open(&DRAG_RACE, supervision).run(|frame, race| {
        // From before the first frame to the run-out.
        if frame % 8 == 0 && swaps < 100 {
            let swapped = race.swap(&builds[swaps % 2]).unwrap();
            assert_eq!(swapped.next_frame, frame);
            swaps += 1;
        }
    });
    assert_eq!(swaps, 100);
    told.check_same("a hundred swaps", &[&builds[0], &builds[1]]);
    assert_eq!(told.named("rules_swapped").len(), 100);
    assert_eq!(told.internal("room.rules_swapped").len(), 100);
    assert_eq!(told.internal("room.finished")[0]["counters"]["swaps"], 100);
    assert_eq!((told.named("rules_rolled_back").len(), told.skipped.len(), told.retried.len()), (0, 0, 0));
}

#[test]
fn a_swap_in_any_phase_of_the_race_changes_nothing() {
    let build = ordered(Orders::honest(0));
    let last = PLAIN.records.last().unwrap().0;
    // Staging, the tree, the run, the last frames; and the very last, in which nothing can be saved any more.
    for at in [0, 1, 49, 50, 51, 130, 250, 400, last - 60, last - 1, last] {
        let mut swapped = None;
        let told = Race::open(&DRAG_RACE, Supervision::default()).run(|frame, race| {
            if frame == at {
                swapped = Some(race.swap(&build).unwrap());
            }
        });
        assert_eq!(swapped.unwrap().next_frame, at);
        told.check_same(&format!("a swap before frame {at}"), &[&build]);
    }
}

/// Frame before which the bad modules take over: staging is under way.
const SWAP_AT: u32 = 120;

#[test]
fn a_bad_module_is_refused_in_its_trial_with_the_reason_and_the_race_is_the_same() {
    for bad in bad_in_trial() {
        let Bad { orders, kind, words, function } = bad;
        let module = STORE.load(&misrule(orders)).unwrap();
        let mut refused = None;
        let told = Race::open(&DRAG_RACE, Supervision::default()).run(|frame, race| {
            if frame == SWAP_AT {
                refused = Some(race.swap(&module));
            }
        });
        let refusal = refused.unwrap().expect_err(&format!("{orders:?}"));
        // The last checkpoint was before frame 100.
        let frame = match (kind, orders.misdeed, orders.when) {
            ("incompatible" | "state_refused" | "state_differs", ..) => None,
            (_, Misdeed::WildBuffer | Misdeed::WildSave | Misdeed::Grows, _) => None,
            (.., When::AfterTicks) => Some(100 + orders.number),
            _ => Some(100),
        };
        assert_eq!((refusal.kind.as_str(), refusal.frame), (kind, frame), "{orders:?}: {refusal}");
        assert!(refusal.message.contains(words), "{orders:?}: {refusal}");
        let backtrace = refusal.backtrace.unwrap_or_default();
        assert!(backtrace.contains(function), "{orders:?}: {backtrace}");
        // The room never noticed.
        told.check_same(&format!("{orders:?}"), &[]);
        assert_eq!(told, *PLAIN, "{orders:?}");
    }
}

#[test]
fn a_module_that_fails_on_probation_is_undone_and_the_race_is_the_same() {
    for bad in bad_on_probation().into_iter().flatten() {
        let Bad { orders, kind, words, function } = bad;
        let module = STORE.load(&misrule(orders)).unwrap();
        let mut swapped = None;
        let told = Race::open(&DRAG_RACE, Supervision::default()).run(|frame, race| {
            if frame == SWAP_AT {
                swapped = Some(race.swap(&module));
            }
        });
        swapped.unwrap().unwrap_or_else(|refusal| panic!("{orders:?}: {refusal}"));
        // Without the failed module: in the journal's end it never ran.
        told.check_same(&format!("{orders:?}"), &[]);
        let [public] = told.named("rules_rolled_back")[..] else { panic!("{orders:?}: {:?}", told.events) };
        let [internal] = told.internal("room.rules_rolled_back")[..] else { panic!("{orders:?}: {:?}", told.internal) };
        let failed_after = public["frame"].as_u64().unwrap() - u64::from(SWAP_AT);
        match orders.misdeed {
            // How long 4 MiB last is not what is tested.
            Misdeed::Leaks => assert!((80..130).contains(&failed_after), "{orders:?}: {public}"),
            // Found after the last frame of the probation.
            Misdeed::WildSave | Misdeed::Grows => assert_eq!(failed_after, 149, "{orders:?}: {public}"),
            _ => assert_eq!(failed_after, u64::from(TRIAL_TICKS_MAX), "{orders:?}: {public}"),
        }
        assert_eq!((&public["since_frame"], &public["reason"]), (&json!(SWAP_AT), &json!(kind)), "{orders:?}");
        assert_eq!(public["failed"]["version"], json!(format!("0.1.0-misrule.{}", orders.serial)), "{orders:?}");
        assert_eq!(public["module"]["version"], "0.1.0", "{orders:?}");
        assert_eq!(public["void"], json!([]), "{orders:?}");
        assert!(internal["message"].as_str().unwrap().contains(words), "{orders:?}: {internal}");
        let backtrace = internal["backtrace"].as_str().unwrap_or_default();
        assert!(backtrace.contains(function), "{orders:?}: {internal}");
        assert!(told.internal("room.rules_kept").is_empty(), "{orders:?}");
        assert_eq!(told.internal("room.finished")[0]["counters"]["rollbacks"], 1, "{orders:?}");
    }
}

#[test]
fn other_rules_take_the_state_over_by_migrate() {
    let other = ordered(OTHER_TREE);
    // Before the tree starts.
    const SWAP_AT: u32 = 60;
    let told = Race::open(&DRAG_RACE, Supervision::default()).run(|frame, race| {
        if frame == SWAP_AT {
            race.swap(&other).unwrap();
        }
    });
    assert!(told.named("rules_rolled_back").is_empty(), "{:?}", told.events);
    assert_eq!(told.internal("room.rules_kept").len(), 1);
    told.prove("other rules", &[&other]);
    // Until the swap the snapshots are those of the plain race; from then on they show the other tree.
    let tree = |(_, bytes): &(u32, Vec<u8>)| postcard::from_bytes::<drag_race::Snapshot>(bytes).unwrap().tree;
    let snapshots = &told.snapshots[&0];
    assert!(snapshots[..SWAP_AT as usize] == PLAIN.snapshots[&0][..SWAP_AT as usize]);
    assert_eq!(tree(&snapshots[SWAP_AT as usize - 1]), drag_race::TreeKind::Sportsman);
    assert!(snapshots[SWAP_AT as usize..].iter().all(|snapshot| tree(snapshot) == drag_race::TreeKind::Pro));
    assert_eq!(told.named("tree_started")[0]["tree"], "pro");
    // The new field begins at 0 and counts.
    let throttle: Vec<u64> =
        told.named(THROTTLE_EVENT).iter().map(|data| data["frames"][0].as_u64().unwrap()).collect();
    let frames = told.records.len() as u32;
    assert_eq!(throttle.len() as u32, frames.div_ceil(THROTTLE_EVENT_EVERY_FRAMES) - SWAP_AT.div_ceil(50));
    assert!(throttle.is_sorted() && throttle[0] == 0 && *throttle.last().unwrap() > 100, "{throttle:?}");
    let results = told.results.as_ref().unwrap();
    assert_ne!(results, PLAIN.results.as_ref().unwrap());
    assert!(results.as_array().unwrap().iter().all(|result| result["data"]["quarter_mile_s"].is_f64()), "{results}");
}

#[test]
fn rules_that_fail_without_a_swap_are_run_again_and_then_end_the_room() {
    use Misdeed as M;
    // The same frame fails again: the rules are bad.
    let module = ordered(orders(M::Traps, When::InFrame, 300));
    let told = Race::open(&module, Supervision::default()).run(|_, _| {});
    assert_eq!((told.aborted, told.results.is_none()), (Some("rules_fault"), true));
    assert_eq!(told.named("aborted"), [&json!({ "frames": 301, "reason": "rules_fault", "fault": "trap" })]);
    let fault = &told.internal("room.aborted")[0]["fault"];
    assert!(fault["message"].as_str().unwrap().contains("misrule was told to trap in frame 300"), "{fault}");
    assert_eq!(told.records.len(), 300);
    told.prove("a fault", &[&module]);
    assert!(told.snapshots[&0] == PLAIN.snapshots[&0][..300], "up to the fault it is the plain race");
    assert_eq!(told.retried.len(), 0);

    // It fails after so many ticks of one instance, and not when a fresh one runs it: nobody notices.
    let module = ordered(orders(M::Traps, When::AfterTicks, 330));
    let told = Race::open(&module, Supervision::default()).run(|_, _| {});
    // No journal proves rules that depend on which instance runs them.
    told.check_same_but_for_proof("a fault that does not come again");
    assert_eq!(told.retried.first(), Some(&330));
    assert_eq!(told.internal("room.rules_retried").len(), told.retried.len());

    // One frame is too much work: it is skipped. Five in a row are too many.
    let module = ordered(orders(M::Spins, When::InFrame, 300));
    let told = Race::open(&module, Supervision::default()).run(|_, _| {});
    assert_eq!(told.skipped, [300]);
    told.prove("a frame that was skipped", &[&module]);
    assert!(told.results.is_some());
    let snapshots = &told.snapshots[&0];
    assert_eq!(snapshots[300].0, 300);
    assert!(snapshots[300].1 == snapshots[299].1 && snapshots[301].1 != snapshots[299].1);
    assert_eq!(told.internal("room.finished")[0]["counters"]["ticks_skipped"], 1);
    let module = ordered(orders(M::Spins, When::FromFrame, 300));
    let told = Race::open(&module, Supervision::default()).run(|_, _| {});
    assert_eq!(told.skipped, [300, 301, 302, 303]);
    told.prove("five frames that took too long", &[&module]);
    assert_eq!(told.named("aborted"), [&json!({ "frames": 305, "reason": "rules_fault", "fault": "fuel_exhausted" })]);
}
