//! Runs journals again: finds the modules that they need, proves them, says what differs in words of the game, and runs their inputs under other
//! rules. Printing is the commands' affair; the pace too: [`Replay::step`] is one frame.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holeshot_abi::{Item, OutputReader};
use holeshot_room::Program;
use holeshot_room::journal::{Difference, Entry, Journal, ReplayError, Replayed, ReplayedAs, Replayer};
use serde::Serialize;
use serde_json::Value;

use super::compare::{self, Bytes, Field};
use super::find::JOURNAL_FOLDERS_DEEP;
use crate::modules::MODULES_FOLDER;
use crate::rules::{
    CacheError, Engine, EngineError, EngineSettings, LoadError, MODULE_BYTES_MAX, Module, ModuleHash, ModuleStore,
    RoomProgram, SHIPPED,
};

/// Instances at a time: two replays, one that shows a state, and one while a module loads.
const INSTANCES_MAX: u32 = 8;
/// Files of a folder that are looked at for a module: weeks of a modder's builds.
const FILES_MAX: usize = 10_000;

/// Why a journal is not replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayFailure {
    /// A module that it needs is nowhere.
    #[error(
        "the journal needs the module {hash}, which is not here; a file {hash}.wasm (or any file with those bytes) in one of these folders would help: {looked}. \
         Name another folder with --modules"
    )]
    NoModule {
        /// Its hash.
        hash: String,
        /// Where it was looked for.
        looked: String,
    },
    /// A file is no module that this program can run.
    #[error("{path}: {error}")]
    Module {
        /// The file.
        path: String,
        /// What is wrong with it.
        error: LoadError,
    },
    /// A file cannot be read.
    #[error(transparent)]
    Unreadable(LoadError),
    /// The runtime cannot be set up.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The cache of compiled modules cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The replay cannot go on.
    #[error("the replay cannot go on: {0}")]
    Replay(#[from] ReplayError),
    /// The journal does not have that frame.
    #[error("there is no frame {asked} in the replay; the last frame is {last}")]
    NoFrame {
        /// The frame that was asked for.
        asked: u32,
        /// The last one that there is, in words.
        last: String,
    },
}

/// The modules that a replay may need, by hash.
#[derive(Debug)]
pub struct ModuleShelf {
    store: ModuleStore,
    folders: Vec<PathBuf>,
    found: BTreeMap<ModuleHash, Arc<Module>>,
}

impl ModuleShelf {
    /// The module that ships inside the binary, those kept in a data folder, and those in `folders`. Of a journal at `journal` also those of the data folder that
    /// it is in. Compiled forms are kept where a host keeps them, if there is such a folder. `tick_share_percent` is that of the host: it decides where fuel
    /// runs out.
    ///
    /// # Errors
    /// The runtime cannot be set up.
    pub fn new(
        data_dir: &Path,
        folders: &[PathBuf],
        journal: Option<&Path>,
        tick_share_percent: u32,
    ) -> Result<Self, ReplayFailure> {
        let settings = EngineSettings { instances_max: INSTANCES_MAX, tick_share_percent, ..EngineSettings::default() };
        let engine = Engine::new(settings)?;
        let kept = data_dir.join(MODULES_FOLDER);
        // The folder may be another user's, or read-only: then modules are compiled each time.
        let cache = Some(kept.clone()).filter(|folder| folder.is_dir());
        let store = match ModuleStore::new(engine.clone(), cache) {
            Ok(store) => store,
            Err(_) => ModuleStore::new(engine, None)?,
        };
        let mut folders = folders.to_vec();
        folders.push(kept);
        let around = journal.into_iter().flat_map(Path::ancestors).skip(2).take(JOURNAL_FOLDERS_DEEP);
        for folder in around.map(|folder| folder.join(MODULES_FOLDER)) {
            if folder.is_dir() && !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        Ok(Self { store, folders, found: BTreeMap::new() })
    }

    /// Loads a file, whatever its hash. Blocks.
    ///
    /// # Errors
    /// It is no module.
    pub fn load(&mut self, path: &Path) -> Result<Arc<Module>, ReplayFailure> {
        let module = self.store.load_file(path).map_err(|error| match error {
            // It names the file itself.
            LoadError::Unreadable { .. } => ReplayFailure::Unreadable(error),
            error => ReplayFailure::Module { path: path.display().to_string(), error },
        })?;
        self.found.insert(module.hash(), Arc::clone(&module));
        Ok(module)
    }

    /// The module of this hash. Blocks.
    ///
    /// # Errors
    /// It is nowhere, or no module that this program can run.
    pub fn find(&mut self, hash: ModuleHash) -> Result<Arc<Module>, ReplayFailure> {
        if let Some(module) = self.found.get(&hash) {
            return Ok(Arc::clone(module));
        }
        let (path, bytes) = if let Some(bytes) = SHIPPED.into_iter().find(|bytes| ModuleHash::of(bytes) == hash) {
            ("the module inside this program".to_owned(), bytes.to_vec())
        } else {
            let found = self.folders.iter().find_map(|folder| file_of(folder, hash));
            found.ok_or_else(|| {
                let looked: Vec<String> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
                ReplayFailure::NoModule { hash: hash.to_string(), looked: looked.join(", ") }
            })?
        };
        let module = self.store.load(&bytes).map_err(|error| ReplayFailure::Module { path, error })?;
        self.found.insert(hash, Arc::clone(&module));
        Ok(module)
    }

    /// The module with the setup of this journal's room.
    pub(super) fn program(module: &Arc<Module>, journal: &Journal) -> Arc<dyn Program> {
        let (setup, room) = (Arc::new(journal.setup().clone()), journal.header().room.as_str().into());
        Arc::new(RoomProgram::new(Arc::clone(module), setup, room))
    }
}

/// The file of a module in a folder: by its name, or by its bytes.
fn file_of(folder: &Path, hash: ModuleHash) -> Option<(String, Vec<u8>)> {
    let read = |path: &Path| {
        let is_short = path.metadata().is_ok_and(|m| m.is_file() && m.len() <= MODULE_BYTES_MAX as u64);
        let bytes = is_short.then(|| std::fs::read(path).ok()).flatten()?;
        (ModuleHash::of(&bytes) == hash).then(|| (path.display().to_string(), bytes))
    };
    read(&folder.join(format!("{hash}.wasm"))).or_else(|| {
        let files = std::fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path());
        let is_wasm = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "wasm");
        files.filter(is_wasm).take(FILES_MAX).find_map(|path| read(&path))
    })
}

/// A journal that is run again under the modules that its room had.
#[derive(Debug)]
pub struct Replay<'a> {
    journal: &'a Journal,
    replayer: Replayer<'a>,
    results: Option<Value>,
    stepped: u64,
    skipped: u64,
}

/// How a proof went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proof {
    /// Frames, skipped ones included.
    pub frames: u64,
    /// Outputs compared.
    pub outputs_compared: u64,
    /// States compared.
    pub states_compared: u64,
    /// Frames that the rules had not seen.
    pub skipped: u64,
    /// The results, if the game was finished.
    pub results: Option<Value>,
    /// What differs first.
    pub difference: Option<Told>,
    /// Why the replay could not go on.
    pub broke_off: Option<String>,
    /// How long the frames took, in microseconds: running, comparing, reading the journal; not compiling.
    pub took_us: u64,
}

/// A difference in words of the game.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Told {
    /// The frame in which it shows.
    pub frame: u32,
    /// `output`, `state`, `no_fault` (the rules had failed in this frame) or `end` (the game was finished in one of the two).
    pub what: &'static str,
    /// The frame after which the two states were looked at; none if the journal has no state of its own after the difference.
    pub state_after_frame: Option<u32>,
    /// The fields that differ; `left` is on record, or that of the recorded rules.
    pub fields: Vec<Field>,
    /// How many fields differ.
    pub fields_count: usize,
    /// Where the bytes differ first, if the module does not describe its state.
    pub bytes: Option<Bytes>,
}

impl<'a> Replay<'a> {
    /// Begins. Blocks while modules are found and compiled.
    ///
    /// # Errors
    /// A module is missing, or does not begin.
    pub fn begin(journal: &'a Journal, shelf: &mut ModuleShelf) -> Result<Self, ReplayFailure> {
        let mut failed = None;
        let begun = Replayer::new(journal, &mut |hash| match shelf.find(ModuleHash::from(*hash)) {
            Ok(module) => Some(ModuleShelf::program(&module, journal)),
            Err(failure) => {
                failed = Some(failure);
                None
            }
        });
        let replayer = begun.map_err(|error| failed.unwrap_or(ReplayFailure::Replay(error)))?;
        Ok(Self { journal, replayer, results: None, stepped: 0, skipped: 0 })
    }

    /// Begins under another module, from frame 0 on: nothing is compared.
    ///
    /// # Errors
    /// The module does not begin.
    pub fn begin_under(journal: &'a Journal, module: &Arc<Module>) -> Result<Self, ReplayFailure> {
        let replayer = Replayer::under(journal, ModuleShelf::program(module, journal))?;
        Ok(Self { journal, replayer, results: None, stepped: 0, skipped: 0 })
    }

    /// Runs the next frame; none at the end.
    ///
    /// # Errors
    /// What keeps the replay from going on.
    pub fn step(&mut self) -> Result<Option<Replayed<'_>>, ReplayError> {
        let replayed = self.replayer.step()?;
        if let Some(replayed) = &replayed {
            match replayed.ran {
                ReplayedAs::Stepped { output, .. } => {
                    self.stepped += 1;
                    if let Some(results) = results_of(output) {
                        self.results = Some(results);
                    }
                }
                ReplayedAs::Skipped => self.skipped += 1,
                ReplayedAs::Faulted => {}
            }
        }
        Ok(replayed)
    }

    /// The state after the frame that was stepped last.
    ///
    /// # Errors
    /// The rules fail.
    pub fn state(&mut self, shelf: &mut ModuleShelf) -> Result<State, ReplayFailure> {
        let (version, bytes) = self.replayer.save()?;
        let module = shelf.find(ModuleHash::from(self.replayer.program().hash()))?;
        let described = describe(&module, self.journal, version, &bytes);
        Ok(State { module: module.hash(), version, bytes, described })
    }

    /// Runs to the end and says whether everything was as recorded.
    pub fn prove(mut self, shelf: &mut ModuleShelf) -> Proof {
        let started = Instant::now();
        let mut broke_off = None;
        while self.replayer.difference().is_none() {
            match self.step() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    broke_off = Some(error.to_string());
                    break;
                }
            }
        }
        let took = started.elapsed();
        let (frames, compared) = (u64::from(self.replayer.next_frame()), self.stepped);
        let (states, skipped) = (self.replayer.states_compared(), self.skipped);
        let difference = self.replayer.difference().cloned().map(|difference| self.tell(&difference, shelf));
        Proof {
            frames,
            outputs_compared: compared,
            states_compared: states,
            skipped,
            results: self.results,
            difference,
            broke_off,
            took_us: us(took),
        }
    }

    /// Says what a difference is. Of an output the journal has only the CRC: what differs shows in the next state that it has.
    fn tell(&mut self, difference: &Difference, shelf: &mut ModuleShelf) -> Told {
        let what = match difference {
            Difference::Output { .. } => "output",
            Difference::State { .. } => "state",
            Difference::NoFault { .. } => "no_fault",
            Difference::End { .. } => "end",
        };
        let frame = difference.frame();
        let mut told = Told { frame, what, state_after_frame: None, fields: vec![], fields_count: 0, bytes: None };
        let program = ModuleHash::from(self.replayer.program().hash());
        let pair = match difference {
            Difference::State { recorded: Some((version, state)), found, .. } => {
                Some((frame, *version, state.clone(), found.clone()))
            }
            Difference::Output { .. } => self.state_after(frame),
            _ => None,
        };
        if let (Some((after, version, recorded, found)), Ok(module)) = (pair, shelf.find(program)) {
            told.state_after_frame = Some(after);
            let describe = |state: &[u8]| describe(&module, self.journal, version, state);
            told.differ(describe(&recorded), describe(&found), &recorded, &found);
        }
        told
    }

    /// The first state that the journal has after a frame, and the replay's own there: the frame, version, recorded, found.
    fn state_after(&mut self, frame: u32) -> Option<(u32, u32, Vec<u8>, Vec<u8>)> {
        // States that were taken on the way to a rollback are those of rules that never ran.
        let is_undone = |next: u32| {
            self.journal.rollbacks().iter().any(|rollback| rollback.since_frame < next && next <= rollback.frame)
        };
        let mut entries = self.journal.entries();
        let (next_frame, version, recorded) = loop {
            match entries.next()? {
                Entry::Checkpoint { next_frame, state_version, state: Some(state), .. }
                    if next_frame > frame && !is_undone(next_frame) =>
                {
                    break (next_frame, state_version, state.to_vec());
                }
                _ => {}
            }
        };
        while self.replayer.next_frame() < next_frame {
            self.replayer.step().ok()??;
        }
        let (_, found) = self.replayer.save().ok()?;
        Some((next_frame.saturating_sub(1), version, recorded, found))
    }
}

impl Told {
    fn differ(&mut self, left: Option<Value>, right: Option<Value>, left_bytes: &[u8], right_bytes: &[u8]) {
        if let (Some(left), Some(right)) = (left, right) {
            (self.fields, self.fields_count) = compare::fields(&left, &right);
        }
        // What a description leaves out, or that of a module that has none.
        if self.fields_count == 0 {
            self.bytes = compare::bytes(left_bytes, right_bytes);
        }
    }
}

/// A state.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The module that saved it.
    pub module: ModuleHash,
    /// Its version.
    pub version: u32,
    /// As the module saved it.
    pub bytes: Vec<u8>,
    /// As the module describes it; none if it does not.
    pub described: Option<Value>,
}

/// A state as its module shows it: a fresh instance takes it over and is asked.
fn describe(module: &Arc<Module>, journal: &Journal, version: u32, state: &[u8]) -> Option<Value> {
    use holeshot_room::Rules as _;
    let described = module.instantiate(journal.setup(), &journal.header().room).ok().and_then(|mut instance| {
        instance.restore(version, state).ok()?;
        instance.describe().ok()?
    });
    serde_json::from_str(&described?).ok()
}

/// The state after a frame of a journal.
///
/// # Errors
/// The replay does not get there.
pub fn state_at(journal: &Journal, shelf: &mut ModuleShelf, frame: u32) -> Result<State, ReplayFailure> {
    let mut replay = Replay::begin(journal, shelf)?;
    loop {
        match replay.step()? {
            Some(replayed) if replayed.frame >= frame => break,
            Some(_) => {}
            None => {
                let last = replay.replayer.next_frame().checked_sub(1);
                let last = last.map_or_else(|| "none, the game did not begin".to_owned(), |frame| frame.to_string());
                return Err(ReplayFailure::NoFrame { asked: frame, last });
            }
        }
    }
    replay.state(shelf)
}

/// One of two runs of the same inputs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Frames that it ran.
    pub frames: u64,
    /// The results, if the rules finished the game.
    pub results: Option<Value>,
    /// Why it ended before the inputs did, other than by finishing.
    pub broke_off: Option<String>,
}

/// What other rules make of the same inputs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Under the rules that the room had.
    pub recorded: Run,
    /// Under the other ones.
    pub other: Run,
    /// The first frame whose output is another one, and how the states differ after it.
    pub first_difference: Option<Told>,
    /// The fields of the results that are not the same.
    pub results_changed: Vec<Field>,
    /// How many fields of the results are not the same.
    pub results_changed_count: usize,
    /// How long both took together, in microseconds.
    pub took_us: u64,
}

/// Runs the inputs of a journal under its own rules and under another module, side by side from frame 0 on.
///
/// # Errors
/// One of the two does not begin.
pub fn compare(journal: &Journal, shelf: &mut ModuleShelf, other: &Arc<Module>) -> Result<Comparison, ReplayFailure> {
    let mut recorded = Replay::begin(journal, shelf)?;
    let mut changed = Replay::begin_under(journal, other)?;
    let started = Instant::now();
    let mut first = None;
    let mut broke_off: [Option<String>; 2] = [None, None];
    let [broke_recorded, broke_other] = &mut broke_off;
    let (mut recorded_runs, mut other_runs) = (true, true);
    while recorded_runs || other_runs {
        let frame = recorded.replayer.next_frame().min(changed.replayer.next_frame());
        // The output is copied: each of the two is borrowed from its replay.
        let left = next_output(&mut recorded, &mut recorded_runs, broke_recorded);
        let right = next_output(&mut changed, &mut other_runs, broke_other);
        if first.is_none() && left != right {
            let mut told =
                Told { frame, what: "output", state_after_frame: None, fields: vec![], fields_count: 0, bytes: None };
            if left.is_none() || right.is_none() {
                told.what = "end";
            } else if let (Ok(left), Ok(right)) = (recorded.state(shelf), changed.state(shelf)) {
                told.state_after_frame = Some(frame);
                told.differ(left.described, right.described, &left.bytes, &right.bytes);
            }
            first = Some(told);
        }
    }
    let took_us = us(started.elapsed());
    let run = |replay: &Replay<'_>, broke_off: Option<String>| Run {
        frames: replay.stepped + replay.skipped,
        results: replay.results.clone(),
        broke_off,
    };
    let [broke_recorded, broke_other] = broke_off;
    let (recorded, other) = (run(&recorded, broke_recorded), run(&changed, broke_other));
    let (results_changed, results_changed_count) =
        compare::fields(&by_name(journal, recorded.results.as_ref()), &by_name(journal, other.results.as_ref()));
    Ok(Comparison { recorded, other, first_difference: first, results_changed, results_changed_count, took_us })
}

/// The output of the next frame; none if there is none.
fn next_output(replay: &mut Replay<'_>, runs: &mut bool, broke_off: &mut Option<String>) -> Option<Vec<u8>> {
    if !*runs {
        return None;
    }
    match replay.step() {
        Ok(Some(Replayed { ran: ReplayedAs::Stepped { output, .. }, .. })) => Some(output.to_vec()),
        Ok(Some(Replayed { ran: ReplayedAs::Skipped, .. })) => Some(Vec::new()),
        Ok(Some(Replayed { ran: ReplayedAs::Faulted, .. }) | None) => {
            *runs = false;
            None
        }
        Err(error) => {
            *runs = false;
            *broke_off = Some(error.to_string());
            None
        }
    }
}

/// The results in an output record that was checked, if the game is finished in it.
fn results_of(output: &[u8]) -> Option<Value> {
    OutputReader::of_checked(output).items().find_map(|item| match item {
        Item::Results(json) => serde_json::from_str(json).ok(),
        _ => None,
    })
}

/// Results by the name of the player, so that another order is no difference.
fn by_name(journal: &Journal, results: Option<&Value>) -> Value {
    let results = results.and_then(Value::as_array).into_iter().flatten();
    let named = results.map(|result| {
        let slot = result.get("player").and_then(Value::as_u64).and_then(|slot| usize::try_from(slot).ok());
        let name = slot.and_then(|slot| journal.setup().players.get(slot)).map_or("?", |player| player.name.as_str());
        (name.to_owned(), result.clone())
    });
    Value::Object(named.collect())
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
