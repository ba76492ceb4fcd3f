//! Native rules with programmable ills, and a room with a journal to run them in.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use holeshot_abi::{ChangeKind, Item, Manifest, OutputWriter, PlayerSetup, STATE_BYTES_MAX, Setup, TickReader};
use holeshot_room::journal::{Journal, JournalHeader, JournalWriter, ReplayedAs, Replayer};
use holeshot_room::{
    Arrival, BeginError, Candidate, Departure, Fault, FaultKind, Limits, Outcome, Phase, Program, Ran, RestoreError,
    Room, RoomConfig, Rules, Supervision, Supervisor, SwapRefusal, Swapped, Usage,
};

/// What is wrong with a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ill {
    /// It traps in this frame and in every later one.
    TrapsFrom(u32),
    /// The machine makes it trap in this frame, once.
    MachineTraps(u32),
    /// It takes too long in this frame.
    Overruns(u32),
    /// It takes too long from this frame on.
    OverrunsFrom(u32),
    /// What it puts out from this frame on cannot be used.
    BadOutputFrom(u32),
    /// It refuses the room's setup.
    RefusesSetup,
    /// It traps while it begins.
    TrapsAtBegin,
    /// There is no instance for it.
    NoInstance,
    /// It refuses states that another build saved.
    RefusesOthers,
    /// It refuses states that it saved itself.
    RefusesOwn,
    /// It cannot save after this frame.
    SaveTrapsFrom(u32),
    /// Its state is too large after this frame.
    GrowsFrom(u32),
    /// What it saves is another state each time.
    Forgets,
    /// Its state does not hold how many frames its instance has run, and from so many on it plays differently.
    RemembersFrames(u32),
    /// The same in every frame: what it plays depends on how many frames its instance has run.
    Wobbles,
    /// Its memory is full when its instance has run so many frames.
    Leaks(u32),
    /// It tells as many public events of as many bytes in every frame.
    Talks(u32, usize),
}

/// A module: what it does is decided by its flavour, its name by its build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) build: u64,
    /// Other flavours make another game of the same records.
    pub(crate) flavour: u64,
    /// 1, or 2: which has one field more, and understands 1.
    pub(crate) state_version: u32,
    pub(crate) finish_at: u32,
    pub(crate) finishes_when_empty: bool,
    pub(crate) ills: Vec<Ill>,
    pub(crate) fuel_per_tick: u64,
}

impl Spec {
    /// A healthy module.
    pub(crate) fn build(build: u64) -> Self {
        Self {
            build,
            flavour: 0,
            state_version: 1,
            finish_at: u32::MAX,
            finishes_when_empty: false,
            ills: Vec::new(),
            fuel_per_tick: 1_000,
        }
    }

    pub(crate) fn ill(mut self, ill: Ill) -> Self {
        self.ills.push(ill);
        self
    }

    pub(crate) fn finishing(self, finish_at: u32) -> Self {
        Self { finish_at, ..self }
    }

    pub(crate) fn flavoured(self, flavour: u64) -> Self {
        Self { flavour, ..self }
    }

    pub(crate) fn program(&self, setup: &Setup) -> Arc<dyn Program> {
        self.program_with(setup, |_| ())
    }

    pub(crate) fn program_with(&self, setup: &Setup, change: impl FnOnce(&mut Manifest)) -> Arc<dyn Program> {
        let mut manifest = manifest();
        manifest.version = format!("{}", self.build);
        manifest.state_version = self.state_version;
        change(&mut manifest);
        let spent = Arc::default();
        Arc::new(Faulty { spec: self.clone(), manifest, setup: setup.clone(), spent })
    }
}

pub(crate) fn manifest() -> Manifest {
    let mut manifest = Manifest::new("faulty", "0", 1..=8, 4);
    manifest.input_track_frames = 8;
    manifest
}

pub(crate) fn setup(players: usize) -> Setup {
    let players = (0..players).map(|slot| PlayerSetup { name: format!("p{slot}"), data: String::new() });
    Setup { seed: 9, tick_hz: 50, options: String::new(), players: players.collect() }
}

#[derive(Debug)]
struct Faulty {
    spec: Spec,
    manifest: Manifest,
    setup: Setup,
    /// Frames in which the machine has made it trap.
    spent: Arc<Mutex<BTreeSet<u32>>>,
}

impl Program for Faulty {
    fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.spec.build.to_le_bytes()).as_bytes()
    }

    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn setup(&self) -> &Setup {
        &self.setup
    }

    fn begin(&self) -> Result<Box<dyn Rules + Send>, BeginError> {
        for ill in &self.spec.ills {
            match ill {
                Ill::RefusesSetup => return Err(BeginError::Refused("no such car".into())),
                Ill::TrapsAtBegin => return Err(BeginError::Fault(Fault::new(FaultKind::Trap, "at begin"))),
                Ill::NoInstance => return Err(BeginError::NoInstance("all are taken".into())),
                _ => {}
            }
        }
        Ok(Box::new(Game {
            spec: self.spec.clone(),
            state: State { hash: self.setup.seed, next_frame: 0, present: 0, fresh: 0 },
            forgotten: 0,
            frames_run: 0,
            spent: Arc::clone(&self.spent),
            failed: false,
            writer: OutputWriter::default(),
        }))
    }
}

#[derive(Debug, Clone, Copy)]
struct State {
    hash: u64,
    next_frame: u32,
    /// A bit per player.
    present: u8,
    /// Version 2 only: fresh inputs.
    fresh: u32,
}

struct Game {
    spec: Spec,
    state: State,
    forgotten: u8,
    /// By this instance.
    frames_run: u32,
    spent: Arc<Mutex<BTreeSet<u32>>>,
    failed: bool,
    writer: OutputWriter,
}

impl Game {
    fn fail(&mut self, kind: FaultKind, text: &str) -> Fault {
        self.failed = true;
        Fault {
            backtrace: Some("faulty::tick".into()),
            ..Fault::new(kind, format!("{text} of build {}", self.spec.build))
        }
    }
}

impl Rules for Game {
    fn tick(&mut self, record: &[u8]) -> Result<&[u8], Fault> {
        assert!(!self.failed, "rules that failed are called again");
        let tick = TickReader::read(record).expect("the room writes records as specified");
        let frame = tick.frame;
        assert!(frame >= self.state.next_frame, "frame {frame} comes after {}", self.state.next_frame);
        self.state.next_frame = frame + 1;
        for byte in record {
            self.state.hash = (self.state.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.state.hash = self.state.hash.rotate_left(7) ^ self.spec.flavour;
        for change in tick.changes() {
            let bit = 1 << change.player;
            match change.kind {
                ChangeKind::Joined => self.state.present |= bit,
                ChangeKind::Left(_) => {
                    assert!(self.state.present & bit != 0, "a player leaves once");
                    self.state.present &= !bit;
                }
            }
        }
        for action in tick.actions() {
            assert!(self.state.present & (1 << action.player) != 0, "an action of a player who is not there");
        }
        let fresh = tick.inputs().filter(|input| input.status == holeshot_abi::InputStatus::Fresh).count();
        self.state.fresh += fresh as u32;
        self.frames_run += 1;
        if self.spec.ills.contains(&Ill::Wobbles) {
            self.state.hash ^= u64::from(self.frames_run);
        }
        if self.spec.ills.iter().any(|ill| matches!(ill, Ill::RemembersFrames(most) if self.frames_run > *most)) {
            self.state.hash ^= 1;
        }
        let hash = self.state.hash;
        self.writer.begin();
        self.writer.push(Item::SharedSnapshot(&hash.to_le_bytes()));
        if hash.is_multiple_of(3) {
            self.writer.push(Item::PublicEvent { name: "third", json: &hash.to_string() });
        }
        if hash.is_multiple_of(12) {
            self.writer.push(Item::PublicEvent { name: "third", json: "\"again\"" });
        }
        if hash.is_multiple_of(5) {
            self.writer.push(Item::InternalEvent { name: "fifth", json: &hash.to_string() });
        }
        for ill in self.spec.ills.clone() {
            match ill {
                Ill::TrapsFrom(from) if frame >= from => return Err(self.fail(FaultKind::Trap, "a trap")),
                Ill::MachineTraps(at) if frame == at && self.spent.lock().expect("no panic").insert(at) => {
                    return Err(self.fail(FaultKind::Trap, "a cosmic ray"));
                }
                Ill::Leaks(frames) if self.frames_run > frames => {
                    return Err(self.fail(FaultKind::MemoryExceeded, "a leak"));
                }
                Ill::Overruns(at) if frame == at => return Err(self.fail(FaultKind::FuelExhausted, "a loop")),
                Ill::OverrunsFrom(from) if frame >= from => return Err(self.fail(FaultKind::FuelExhausted, "a loop")),
                Ill::Talks(events, bytes) => {
                    let json = format!("\"{}\"", "x".repeat(bytes.saturating_sub(2)));
                    (0..events).for_each(|_| self.writer.push(Item::PublicEvent { name: "talk", json: &json }));
                }
                Ill::BadOutputFrom(from) if frame >= from => {
                    self.writer.push(Item::PublicEvent { name: "finished", json: "1" });
                    self.failed = true;
                }
                _ => {}
            }
        }
        if frame >= self.spec.finish_at || (self.spec.finishes_when_empty && self.state.present == 0) {
            let results = format!(r#"[{{"player":0,"place":1,"outcome":"won","data":{hash}}}]"#);
            self.writer.push(Item::Results(&results));
        }
        Ok(self.writer.finish())
    }

    fn save(&mut self) -> Result<Vec<u8>, Fault> {
        assert!(!self.failed, "rules that failed are asked to save");
        for ill in self.spec.ills.clone() {
            match ill {
                Ill::SaveTrapsFrom(from) if self.state.next_frame > from => {
                    return Err(self.fail(FaultKind::Trap, "a trap while saving"));
                }
                Ill::GrowsFrom(from) if self.state.next_frame > from => return Ok(vec![7; STATE_BYTES_MAX + 1]),
                Ill::Forgets => self.forgotten += 1,
                _ => {}
            }
        }
        let State { hash, next_frame, present, fresh } = self.state;
        let mut bytes = self.spec.build.to_le_bytes().to_vec();
        bytes.extend(hash.to_le_bytes());
        bytes.extend(next_frame.to_le_bytes());
        bytes.push(present);
        bytes.push(self.forgotten);
        if self.spec.state_version == 2 {
            bytes.extend(fresh.to_le_bytes());
        }
        Ok(bytes)
    }

    fn restore(&mut self, state_version: u32, state: &[u8]) -> Result<(), RestoreError> {
        assert!(!self.failed, "rules that failed are asked to restore");
        let refused = |why: &str| Err(RestoreError::Refused(why.into()));
        if state_version > self.spec.state_version {
            return refused("a state from the future");
        }
        let (build, rest) = state.split_first_chunk().expect("a state of these rules");
        let (hash, rest) = rest.split_first_chunk().expect("a state of these rules");
        let (next_frame, rest) = rest.split_first_chunk().expect("a state of these rules");
        let is_own = u64::from_le_bytes(*build) == self.spec.build;
        if is_own && self.spec.ills.contains(&Ill::RefusesOwn) {
            return refused("its own state");
        }
        if !is_own && self.spec.ills.contains(&Ill::RefusesOthers) {
            return refused("another build's state");
        }
        let [present, forgotten, fresh @ ..] = rest else { panic!("a state of these rules") };
        let fresh = fresh.try_into().map_or(0, u32::from_le_bytes);
        let (hash, next_frame) = (u64::from_le_bytes(*hash), u32::from_le_bytes(*next_frame));
        self.forgotten = *forgotten;
        self.state = State { hash, next_frame, present: *present, fresh };
        Ok(())
    }

    fn usage(&self) -> Usage {
        Usage { fuel: self.spec.fuel_per_tick, time_ns: 0, memory_bytes: 65_536 }
    }
}

/// What left a room, as far as the tests look at it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Seen {
    /// Per frame: `stepped`, `skipped` or `faulted`.
    pub(crate) frames: Vec<&'static str>,
    /// Number, frame, name and data.
    pub(crate) public: Vec<(u64, Option<u32>, String, String)>,
    /// Name, frame and data.
    pub(crate) internal: Vec<(String, Option<u32>, String)>,
    /// Frame, player and bytes.
    pub(crate) snapshots: Vec<(u32, u16, Vec<u8>)>,
    /// Before which frame, and by which build.
    pub(crate) checkpoints: Vec<u32>,
    pub(crate) kept: Vec<u32>,
    /// Since, in, void, frames run again.
    pub(crate) rollbacks: Vec<(u32, u32, Vec<u64>, usize)>,
    pub(crate) retried: Vec<u32>,
    pub(crate) results: Vec<(u16, u64, String)>,
    pub(crate) outcome: Option<(u32, String)>,
}

impl Seen {
    fn see(&mut self, departure: &Departure<'_>) {
        match *departure {
            Departure::Tick { frame, ran, .. } => {
                assert_eq!(frame as usize, self.frames.len());
                self.frames.push(match ran {
                    Ran::Stepped { .. } => "stepped",
                    Ran::Skipped { .. } => "skipped",
                    Ran::Faulted { .. } => "faulted",
                });
            }
            Departure::PublicEvent(event) => {
                assert_eq!(event.seq as usize, self.public.len() + 1);
                serde_json::from_str::<serde_json::Value>(event.json).expect("JSON");
                self.public.push((event.seq, event.frame, event.name.into(), event.json.into()));
            }
            Departure::InternalEvent { kind, frame, json, .. } => {
                serde_json::from_str::<serde_json::Value>(json).expect("JSON");
                self.internal.push((kind.into(), frame, json.into()));
            }
            Departure::Snapshot { player, frame, bytes, .. } => self.snapshots.push((frame, player, bytes.to_vec())),
            Departure::Checkpoint { next_frame, .. } => self.checkpoints.push(next_frame),
            Departure::RulesKept { next_frame } => self.kept.push(next_frame),
            Departure::RulesRolledBack { since_frame, frame, void, output_crcs, .. } => {
                self.rollbacks.push((since_frame, frame, void.to_vec(), output_crcs.len()));
            }
            Departure::RulesRetried { frame, .. } => self.retried.push(frame),
            Departure::ActionResult { player, id, outcome } => self.results.push((player, id, format!("{outcome:?}"))),
            Departure::Ended { outcome } => {
                assert_eq!(self.outcome, None);
                self.outcome = Some(match outcome {
                    Outcome::Finished { frames, results } => (frames, results.into()),
                    Outcome::Aborted { frames, reason } => (frames, reason.as_str().into()),
                });
            }
            Departure::PhaseChanged { .. }
            | Departure::PlayerLeft { .. }
            | Departure::TicksLost { .. }
            | Departure::SharedSnapshot { .. }
            | Departure::RulesSwapped { .. }
            | Departure::RulesFault { .. } => {}
        }
    }

    /// The rules' public events that count in the end: frame, name and data.
    pub(crate) fn valid_public(&self) -> Vec<(u32, String, String)> {
        let void: Vec<u64> = self.rollbacks.iter().flat_map(|rollback| rollback.2.clone()).collect();
        let events = self.public.iter().filter(|(_, _, name, _)| name == "third");
        let events = events.filter(|(seq, ..)| !void.contains(seq));
        let mut events: Vec<_> =
            events.map(|(_, frame, name, json)| (frame.expect("a frame"), name.clone(), json.clone())).collect();
        events.sort();
        events
    }

    /// The rules' internal events that count in the end.
    pub(crate) fn valid_internal(&self) -> Vec<(u32, String)> {
        let mut events: Vec<(u32, String)> = Vec::new();
        for (name, frame, json) in &self.internal {
            if name == "fifth" {
                events.push((frame.expect("a frame"), json.clone()));
            }
            if name == "room.rules_rolled_back" {
                let data: serde_json::Value = serde_json::from_str(json).expect("JSON");
                for void in data["void_internal"].as_array().expect("a list") {
                    // What the former rules tell in its place came before this, and after what is void.
                    let frame = void["frame"].as_u64().expect("a frame") as u32;
                    let at = events.iter().position(|(told, _)| *told == frame).expect("it was told");
                    events.remove(at);
                }
            }
        }
        events.sort();
        events
    }

    pub(crate) fn public_names(&self) -> Vec<&str> {
        self.public.iter().map(|(_, _, name, _)| name.as_str()).collect()
    }
}

/// A room with its rules and its journal.
pub(crate) struct World {
    pub(crate) room: Room,
    pub(crate) rules: Supervisor,
    pub(crate) seen: Seen,
    pub(crate) writer: JournalWriter,
    pub(crate) bytes: Vec<u8>,
    pub(crate) setup: Setup,
    programs: Vec<Arc<dyn Program>>,
}

impl World {
    /// A room of these rules, in which nobody is yet.
    pub(crate) fn open(spec: &Spec, setup: Setup, settings: Supervision, limits: Limits) -> Self {
        let program = spec.program(&setup);
        let rules = Supervisor::begin(Arc::clone(&program), settings).expect("they begin");
        let config = RoomConfig { id: "w".into(), manifest: program.manifest().clone(), setup: setup.clone(), limits };
        let mut record = Vec::new();
        setup.write(&mut record).expect("a setup that fits");
        let header = JournalHeader {
            room: "w".into(),
            opened_unix_ms: 1_700_000_000_000,
            setup: record,
            manifest: serde_json::to_string(program.manifest()).expect("a manifest"),
            module: program.hash(),
        };
        Self {
            room: Room::open(config, 0).expect("the config is valid"),
            rules,
            seen: Seen::default(),
            writer: JournalWriter::begin(&header),
            bytes: Vec::new(),
            setup,
            programs: vec![program],
        }
    }

    /// A room whose players are there and ready, before frame 0.
    pub(crate) fn ready(spec: &Spec, settings: Supervision) -> Self {
        let mut world = Self::open(spec, setup(2), settings, Limits::default());
        for player in 0..2 {
            world.arrive(Arrival::Connected { player });
            world.arrive(Arrival::Ready { player });
        }
        world
    }

    pub(crate) fn arrive(&mut self, arrival: Arrival<'_>) {
        self.room.handle(0, arrival).expect("it is taken");
    }

    pub(crate) fn step(&mut self, now_us: u64) {
        let Self { room, rules, seen, writer, .. } = self;
        room.step(now_us, rules, &mut |departure| {
            seen.see(&departure);
            writer.note(&departure);
        });
        self.bytes.extend(self.writer.take());
    }

    /// Runs until frame `frame` was stepped, or the match is over.
    pub(crate) fn run_to(&mut self, frame: u32) -> &mut Self {
        while self.room.frame().is_none_or(|at| at < frame) && !self.room.phase().is_over() {
            let due_us = self.room.next_due_us().expect("a room that is open");
            self.step(due_us);
        }
        self
    }

    pub(crate) fn try_candidate(&mut self, spec: &Spec) -> Result<Candidate, SwapRefusal> {
        let program = spec.program(&self.setup);
        self.programs.push(Arc::clone(&program));
        self.rules.trial().run(program)
    }

    pub(crate) fn commit(&mut self, candidate: Candidate) -> Result<Swapped, SwapRefusal> {
        let Self { room, rules, seen, writer, .. } = self;
        // Time never runs back in a room: this is the time of the last step.
        let swapped = room.swap(0, rules, candidate, &mut |departure| {
            seen.see(&departure);
            writer.note(&departure);
        });
        self.bytes.extend(self.writer.take());
        swapped
    }

    pub(crate) fn swap(&mut self, spec: &Spec) -> Result<Swapped, SwapRefusal> {
        let candidate = self.try_candidate(spec)?;
        self.commit(candidate)
    }

    /// The build that the room has now.
    pub(crate) fn build(&self) -> String {
        self.rules.program().manifest().version.clone()
    }

    /// Runs to the closing and finishes the journal.
    pub(crate) fn close(&mut self) {
        while let Some(due_us) = self.room.next_due_us() {
            self.step(due_us);
        }
        assert_eq!(self.room.phase(), Phase::Closed);
        self.writer.finish();
        self.bytes.extend(self.writer.take());
    }

    /// Replays a journal of this room, proves it, and gives the effective outputs.
    #[track_caller]
    pub(crate) fn replay(&self, journal: &Journal) -> Vec<Option<Vec<u8>>> {
        let mut find = |hash: &[u8; 32]| self.programs.iter().find(|program| program.hash() == *hash).cloned();
        let mut replayer = Replayer::new(journal, &mut find).expect("the modules are there");
        let mut outputs = Vec::new();
        loop {
            match replayer.step() {
                Ok(Some(replayed)) => {
                    assert_eq!(replayed.frame as usize, outputs.len());
                    outputs.push(match replayed.ran {
                        ReplayedAs::Stepped { output, .. } => Some(output.to_vec()),
                        ReplayedAs::Skipped | ReplayedAs::Faulted => None,
                    });
                }
                Ok(None) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(replayer.difference(), None);
        outputs
    }

    /// Closes the room, reads its journal and proves it.
    #[track_caller]
    pub(crate) fn prove(&mut self) -> Vec<Option<Vec<u8>>> {
        self.close();
        let journal = Journal::read(&self.bytes).expect("a journal");
        assert!(journal.is_whole() && journal.truncated_at().is_none());
        self.replay(&journal)
    }
}
