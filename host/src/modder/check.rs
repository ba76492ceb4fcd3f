//! `holeshot check`: all that a host would say about a module, before it is on a host. It is loaded as a host loads it, and played by the room that a
//! host runs: for the fewest and the most players, without inputs, with zeros and with random bytes.

use std::sync::Arc;
use std::time::Instant;

use holeshot_abi::{ABI_VERSION, Manifest, PlayerSetup, Setup};
use holeshot_room::{Arrival, BeginError, Fault, Program, Supervision};
use serde::Serialize;

use super::game::{FaultEnd, Game, GameError, describe};
use crate::random::Random;
use crate::rules::{
    Engine, EngineError, EngineSettings, Facts, LoadError, Module, ModuleHash, ModuleStore, RoomProgram, facts,
};

/// Frames that are played by default: ten seconds at 50 Hz.
pub const FRAMES: u32 = 500;
/// Most frames that can be asked for: ten minutes at 50 Hz, which a large game plays in as many seconds.
pub const FRAMES_MAX: u32 = 30_000;
/// Frames before which it is tried to swap another module for this one.
const SWAPS_BEFORE_FRAMES: [u32; 3] = [0, 100, 400];
/// A room, its trial, what a trial begins anew, a description, and one that is asked for its manifest; for two modules.
const INSTANCES_MAX: u32 = 10;

/// What is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Frames to play in each run.
    pub frames: u32,
    /// Decides the random inputs, and is the seed of the rooms.
    pub seed: u64,
    /// Options of the rooms, JSON text or empty.
    pub room_options: String,
    /// What each player brings, JSON text or empty.
    pub player_data: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { frames: FRAMES, seed: 1, room_options: String::new(), player_data: String::new() }
    }
}

/// Why there is no report: this machine, not the module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// No engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// No store; without a cache this does not happen.
    #[error(transparent)]
    Store(#[from] crate::rules::CacheError),
    /// The module to compare with is none.
    #[error("the module to compare with is not taken: {0}")]
    Against(LoadError),
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// BLAKE3 of the bytes: the module's name on hosts.
    pub hash: String,
    /// Length of the file.
    pub bytes: usize,
    /// What a host would refuse or stop. Empty: a host takes the module.
    pub problems: Vec<Problem>,
    /// What is worth knowing and no problem.
    pub notes: Vec<String>,
    /// What the module is; none if it was refused at load.
    pub module: Option<About>,
    /// Every run.
    pub runs: Vec<Run>,
    /// Whether it could take over rooms of another module.
    pub against: Option<Against>,
}

/// Something that a host would refuse or stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where: `load`, or runs.
    pub places: Vec<String>,
    /// What, in the host's words.
    pub message: String,
    /// The module's functions at that time, where they are known.
    pub backtrace: Option<String>,
}

/// What a module is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct About {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The version of the boundary that it was written for, major and minor.
    pub abi: [u16; 2],
    /// That of this host.
    pub abi_of_host: [u16; 2],
    /// What is in the file.
    pub facts: Facts,
    /// How long compiling took, with this program.
    pub compile_ms: f64,
    /// Fuel that a tick may use.
    pub tick_fuel: u64,
    /// Time that a tick may use of its share, in microseconds.
    pub tick_us: u64,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Players in the room.
    pub players: u16,
    /// What they send.
    pub inputs: Inputs,
    /// Frames that were played.
    pub frames: u32,
    /// Whether the game finished within them.
    pub finished: bool,
    /// Fuel per tick.
    pub fuel: Spread,
    /// Time per tick on this machine, in nanoseconds.
    pub time_ns: Spread,
    /// The dearest tick's part of the fuel that a tick may use, in percent.
    pub budget_percent: f64,
    /// Memory of the module at the end, in bytes.
    pub memory_bytes: usize,
    /// Length of the last saved state.
    pub state_bytes: usize,
    /// Length of its description as JSON; none where the module has none.
    pub description_bytes: Option<usize>,
}

/// What players of a run send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Inputs {
    /// Nothing.
    Absent,
    /// As many zeros as an input may have bytes.
    Zeros,
    /// Random bytes, of a random length.
    Random,
}

impl Inputs {
    /// As a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Zeros => "zeros",
            Self::Random => "random",
        }
    }
}

/// Middle, 99th of a hundred, and largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Spread {
    /// Half of the ticks took at most this.
    pub p50: u64,
    /// 99 of 100 took at most this.
    pub p99: u64,
    /// The most.
    pub max: u64,
}

/// Whether the module could take over rooms of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Against {
    /// The other module.
    pub hash: String,
    /// Its name and version.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Each swap that was tried.
    pub swaps: Vec<TriedSwap>,
}

/// One swap that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TriedSwap {
    /// Players in the room.
    pub players: u16,
    /// The first frame that the module would have run.
    pub before_frame: u32,
    /// Why not, in the words of the room; none if it would have taken over.
    pub refusal: Option<String>,
}

/// Checks a module, and whether it could take over rooms of another.
///
/// # Errors
/// This machine does not let it be checked, or the other module is none. What is wrong with the module itself is in the report.
pub fn check(bytes: &[u8], against: Option<&[u8]>, options: &Options) -> Result<Report, CheckError> {
    let engine = Engine::new(EngineSettings { instances_max: INSTANCES_MAX, ..EngineSettings::default() })?;
    let store = ModuleStore::new(engine, None)?;
    let against = against.map(|bytes| store.load(bytes)).transpose().map_err(CheckError::Against)?;
    let mut report = Report {
        hash: ModuleHash::of(bytes).to_string(),
        bytes: bytes.len(),
        problems: Vec::new(),
        notes: Vec::new(),
        module: None,
        runs: Vec::new(),
        against: None,
    };
    let begun = Instant::now();
    let module = match store.load(bytes) {
        Ok(module) => module,
        Err(error) => {
            let backtrace = match &error {
                LoadError::Faulted { fault } => fault.backtrace.clone(),
                _ => None,
            };
            report.problems.push(Problem { places: vec!["load".into()], message: error.to_string(), backtrace });
            return Ok(report);
        }
    };
    let compile_ms = begun.elapsed().as_secs_f64() * 1e3;
    let manifest = module.manifest();
    report.module = Some(About {
        manifest: manifest.clone(),
        abi: halves(module.abi_version()),
        abi_of_host: halves(ABI_VERSION),
        facts: facts(bytes),
        compile_ms,
        tick_fuel: module.tick_fuel(),
        tick_us: module.tick_fuel() / crate::rules::FUEL_PER_US,
    });
    let mut sizes = vec![manifest.players_min];
    if manifest.players_max != manifest.players_min {
        sizes.push(manifest.players_max);
    }
    for &players in &sizes {
        for inputs in [Inputs::Absent, Inputs::Zeros, Inputs::Random] {
            run(&module, players, inputs, options, &mut report);
        }
    }
    if let Some(other) = against {
        report.against = Some(try_swaps(&module, &other, options));
    }
    Ok(report)
}

const fn halves(version: u32) -> [u16; 2] {
    [(version >> 16) as u16, version as u16]
}

fn setup(manifest: &Manifest, players: u16, options: &Options) -> Setup {
    let player = |slot| PlayerSetup { name: format!("player {slot}"), data: options.player_data.clone() };
    Setup {
        seed: options.seed,
        tick_hz: manifest.tick_hz,
        options: options.room_options.clone(),
        players: (0..players).map(player).collect(),
    }
}

fn run(module: &Arc<Module>, players: u16, inputs: Inputs, options: &Options, report: &mut Report) {
    let place = format!("{}, inputs {}", self::players(players), inputs.as_str());
    let problem = |message: String, fault: Option<&Fault>| Problem {
        places: vec![place.clone()],
        message,
        backtrace: fault.and_then(|fault| fault.backtrace.clone()),
    };
    let mut game = match Game::begin(module, setup(module.manifest(), players, options), Supervision::default()) {
        Ok(game) => game,
        Err(GameError::Begin(BeginError::Fault(fault))) => {
            report.add(problem(format!("a room does not begin: {fault}"), Some(&fault)));
            return;
        }
        Err(error) => {
            let message = format!(
                "a room does not begin: {error}. If it needs options or data of the players, give them with --options and --player-data"
            );
            report.add(problem(message, None));
            return;
        }
    };
    let mut random = Random::new(options.seed);
    play(&mut game, inputs, options.frames, &mut random);
    for (frame, fault, end) in &game.told().faults {
        report.add(problem(format!("frame {frame}: {fault}; {}", end.as_str()), Some(fault)));
    }
    // What was saved last, and what comes of it: the trial that a host makes before a swap, against itself.
    let fine = game.next_frame().filter(|_| game.told().faults.is_empty());
    let trial = fine.map(|_| game.trial().run(Arc::clone(game.program()) as Arc<dyn Program>));
    if let Some(Err(refusal)) = trial {
        let message = format!("it could not take over a room from itself: {refusal}");
        report.add(Problem { places: vec![place.clone()], message, backtrace: refusal.backtrace });
    }
    let mut description_bytes = None;
    let checkpoint = game.told().checkpoint.as_ref();
    if let Some((_, version, state)) = checkpoint {
        match describe(game.program(), *version, state) {
            Ok(text) => description_bytes = text.map(|text| text.len()),
            // Such a module runs; only its state cannot be shown.
            Err(fault) => report.notes.push(format!("{place}: the state cannot be shown: {fault}")),
        }
    }
    let told = game.told();
    let fuel = spread(told.usages.iter().map(|usage| usage.fuel));
    report.runs.push(Run {
        players,
        inputs,
        frames: told.usages.len() as u32,
        finished: matches!(told.ending, Some(super::game::Ending::Finished { .. })),
        fuel,
        time_ns: spread(told.usages.iter().map(|usage| usage.time_ns)),
        budget_percent: fuel.max as f64 * 100.0 / module.tick_fuel().max(1) as f64,
        memory_bytes: told.usages.last().map_or(0, |usage| usage.memory_bytes),
        state_bytes: checkpoint.map_or(0, |(_, _, state)| state.len()),
        description_bytes,
    });
}

/// Plays frames until that many are over, the game is, or the rules have failed often enough.
fn play(game: &mut Game, inputs: Inputs, frames: u32, random: &mut Random) {
    /// Frames that may be left out before a run is given up: each is told, and takes a whole budget.
    const SKIPPED_MAX: usize = 3;
    /// JSON of every kind.
    const ACTIONS: [&str; 6] = ["null", "{}", "[]", "\"go\"", "-1", "{\"type\":\"go\"}"];
    let input_bytes_max = game.program().manifest().input_bytes_max;
    let mut bytes = Vec::new();
    let mut action_id = 0;
    while let Some(frame) = game.next_frame().filter(|frame| *frame < frames) {
        for player in 0..game.players() {
            bytes.clear();
            match inputs {
                Inputs::Absent => continue,
                Inputs::Zeros => bytes.resize(usize::from(input_bytes_max), 0),
                Inputs::Random => {
                    let len = random.below(u64::from(input_bytes_max) + 1);
                    bytes.extend((0..len).map(|_| random.next() as u8));
                }
            }
            game.handle(Arrival::Input { player, frame, bytes: &bytes });
            if inputs == Inputs::Random && random.below(64) == 0 {
                action_id += 1;
                let json = ACTIONS.get(random.below(ACTIONS.len() as u64) as usize).copied().unwrap_or("null");
                game.handle(Arrival::Action { player, id: action_id, json });
            }
        }
        game.step();
        let skipped = game.told().faults.iter().filter(|(_, _, end)| *end == FaultEnd::Skipped).count();
        if skipped >= SKIPPED_MAX {
            return;
        }
    }
}

/// Tries to take over rooms of `other`, as a host would.
fn try_swaps(module: &Arc<Module>, other: &Arc<Module>, options: &Options) -> Against {
    let manifest = other.manifest();
    let mut swaps = Vec::new();
    let sizes = [manifest.players_min, manifest.players_max];
    for players in sizes.into_iter().take(if sizes[0] == sizes[1] { 1 } else { 2 }) {
        let begun = Game::begin(other, setup(manifest, players, options), Supervision::default());
        let mut game = match begun {
            Ok(game) => game,
            Err(error) => {
                let refusal = Some(format!("no room of the other module begins: {error}"));
                swaps.push(TriedSwap { players, before_frame: 0, refusal });
                continue;
            }
        };
        let setup = Arc::new(setup(manifest, players, options));
        let mut random = Random::new(options.seed);
        for before_frame in SWAPS_BEFORE_FRAMES {
            play(&mut game, Inputs::Random, before_frame, &mut random);
            // The game is over, or the other one fails: there is nothing to take over any more.
            if game.next_frame() != Some(before_frame) {
                break;
            }
            let candidate = RoomProgram::new(Arc::clone(module), Arc::clone(&setup), "check".into());
            let refusal = game.trial().run(Arc::new(candidate)).err().map(|refusal| refusal.to_string());
            swaps.push(TriedSwap { players, before_frame, refusal });
        }
    }
    Against { hash: other.hash().to_string(), name: manifest.name.clone(), version: manifest.version.clone(), swaps }
}

/// A number of players, in words.
#[must_use]
pub fn players(players: u16) -> String {
    if players == 1 { "1 player".into() } else { format!("{players} players") }
}

impl Report {
    /// Adds a problem; the same one of another run only adds its place.
    fn add(&mut self, problem: Problem) {
        let same = |other: &&mut Problem| other.message == problem.message && other.backtrace == problem.backtrace;
        match self.problems.iter_mut().find(same) {
            Some(other) => other.places.extend(problem.places),
            None => self.problems.push(problem),
        }
    }

    /// Whether a host takes the module, and every swap that was tried would have been made.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        let all_swapped = |against: &Against| against.swaps.iter().all(|swap| swap.refusal.is_none());
        self.problems.is_empty() && self.against.as_ref().is_none_or(all_swapped)
    }
}

fn spread(values: impl Iterator<Item = u64>) -> Spread {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    let at = |percent: usize| {
        let rank = (values.len() * percent).div_ceil(100).saturating_sub(1);
        values.get(rank).copied().unwrap_or_default()
    };
    Spread { p50: at(50), p99: at(99), max: at(100) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::DRAG_RACE_WASM;
    use crate::rules::tests::{module_with, module_with_body};

    const LINES: &[u8] = include_bytes!("../../../tests/modules/lines.wasm");
    const TALLY: &[u8] = include_bytes!("../../../tests/modules/tally-c.wasm");

    fn short() -> Options {
        Options { frames: 120, ..Options::default() }
    }

    fn checked(bytes: &[u8]) -> Report {
        check(bytes, None, &short()).unwrap()
    }

    /// The one problem of a module.
    #[track_caller]
    fn problem(bytes: &[u8]) -> Problem {
        let mut report = checked(bytes);
        assert!(!report.is_fine());
        assert_eq!(report.problems.len(), 1, "{:#?}", report.problems);
        report.problems.remove(0)
    }

    #[test]
    fn the_default_game_is_taken_and_costs_a_small_part_of_a_tick() {
        let report = check(DRAG_RACE_WASM, Some(DRAG_RACE_WASM), &short()).unwrap();
        assert!(report.is_fine() && report.notes.is_empty(), "{report:#?}");
        let about = report.module.unwrap();
        assert_eq!((about.manifest.name.as_str(), about.abi, about.abi_of_host), ("drag-race", [1, 2], [1, 2]));
        assert_eq!(about.facts.imports, ["holeshot.log"]);
        assert!(about.facts.exports.iter().any(|name| name == "holeshot_describe") && about.facts.names);
        assert!(about.facts.code_bytes > 50_000 && about.facts.code_bytes < report.bytes);
        let runs: Vec<_> = report.runs.iter().map(|run| (run.players, run.inputs, run.frames)).collect();
        let inputs = [Inputs::Absent, Inputs::Zeros, Inputs::Random];
        let expected: Vec<_> =
            [1, 64].into_iter().flat_map(|players| inputs.map(|inputs| (players, inputs, 120))).collect();
        assert_eq!(runs, expected);
        for run in &report.runs {
            assert!(run.fuel.p50 > 0 && run.fuel.p50 <= run.fuel.p99 && run.fuel.p99 <= run.fuel.max, "{run:?}");
            assert!(run.budget_percent > 0.0 && run.budget_percent < 20.0 && run.memory_bytes > 0, "{run:?}");
            assert!(run.state_bytes > 100 && run.description_bytes > Some(run.state_bytes), "{run:?}");
        }
        // The same seed gives the same game, to the instruction.
        let again = checked(DRAG_RACE_WASM);
        assert!(again.runs.iter().zip(&report.runs).all(|(a, b)| (a.fuel, a.state_bytes) == (b.fuel, b.state_bytes)));
        let swaps: Vec<_> = report
            .against
            .unwrap()
            .swaps
            .into_iter()
            .map(|swap| (swap.players, swap.before_frame, swap.refusal))
            .collect();
        assert_eq!(swaps.len(), 6, "{swaps:?}");
    }

    #[test]
    fn a_module_of_the_version_before_has_no_description_and_is_fine() {
        let report = checked(TALLY);
        assert!(report.is_fine(), "{report:#?}");
        assert_eq!(report.module.unwrap().abi, [1, 0]);
        // A hundred frames are its whole game.
        assert!(report.runs.iter().all(|run| run.finished && run.frames == 100 && run.description_bytes.is_none()));
    }

    #[test]
    fn what_a_host_refuses_is_said_as_the_host_says_it() {
        let refused = problem(b"(module)");
        assert_eq!(refused.places, ["load"]);
        assert!(refused.message.contains("wat2wasm"), "{refused:?}");
        let refused = problem(&module_with_body("holeshot_manifest", "unreachable", &[]));
        assert!(refused.message.contains("holeshot_manifest") && refused.backtrace.is_some(), "{refused:?}");
        let refuses = [("more", "(data (i32.const 1024) \"no boats\")")];
        let refused = problem(&module_with_body("holeshot_init", "(i64.const 0x40000000008)", &refuses));
        assert_eq!(refused.places.len(), 6);
        assert!(refused.message.contains("no boats") && refused.message.contains("--player-data"), "{refused:?}");
    }

    #[test]
    fn what_a_host_would_stop_is_found_in_every_run() {
        let stopped = problem(LINES);
        assert_eq!((stopped.places.len(), stopped.places[0].as_str()), (6, "1 player, inputs absent"));
        assert!(
            stopped.message.starts_with("frame 0: trap: ") && stopped.message.ends_with("a host ends the room"),
            "{stopped:?}"
        );
        assert!(stopped.backtrace.unwrap().contains("lines.rs:"));
        let bad = problem(&module_with_body("holeshot_tick", "(i64.const 0x1000000004)", &[]));
        assert!(bad.message.contains("bad_output"), "{bad:?}");
        let spins = checked(&module_with_body("holeshot_tick", "(loop (br 0)) (i64.const 0)", &[]));
        assert_eq!(spins.problems.len(), 3);
        assert!(
            spins.problems[0].message.contains("fuel_exhausted")
                && spins.problems[0].message.contains("leaves this frame out"),
            "{spins:#?}"
        );
    }

    #[test]
    fn a_state_that_does_not_hold_all_is_found() {
        // Counts its ticks, saves the count, and takes over nothing.
        let save = "(func (export \"holeshot_save\") (result i64) (i64.const 0x0000000800000004))";
        let count = "(i32.store (i32.const 8) (i32.add (i32.load (i32.const 8)) (i32.const 1))) (i64.const 0)";
        let forgets = problem(&module_with_body("holeshot_tick", count, &[("holeshot_save", save)]));
        assert!(forgets.message.contains("could not take over a room from itself: state_differs"), "{forgets:?}");
        // One that cannot be shown is worth a note.
        let dumb = "(func (export \"holeshot_describe\") (result i64) unreachable)";
        let report = checked(&module_with(&[("describe", dumb)]));
        assert!(
            report.is_fine() && report.notes.len() == 6 && report.notes[0].contains("cannot be shown"),
            "{report:#?}"
        );
    }

    #[test]
    fn rooms_of_another_game_are_not_taken_over() {
        let report = check(DRAG_RACE_WASM, Some(TALLY), &short()).unwrap();
        assert!(report.problems.is_empty() && !report.is_fine());
        let against = report.against.unwrap();
        assert_eq!(against.name, "tally");
        assert!(
            against.swaps.iter().all(|swap| swap
                .refusal
                .as_ref()
                .unwrap()
                .starts_with("incompatible: the room plays `tally`"))
        );
        let error = check(DRAG_RACE_WASM, Some(b"nothing"), &short()).unwrap_err();
        assert!(matches!(error, CheckError::Against(_)), "{error}");
    }
}
