//! `holeshot bench tick`: what one tick of each game that ships costs in WebAssembly and natively, with the same records behind the same trait.
//!
//! The records are those of a real game: bots play it once, natively, and what they did is played again. Hot means one room stepped again and
//! again; cold means thousands of rooms stepped in turn, as a host does it. Wasm and native take turns within one process, so that
//! whatever else the machine does meets both. Every output of the wasm is held against the native one's bytes once, and again at the end of every block.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use arena::Arena;
use drag_race::{DragRace, Driver, cars};
use holeshot_abi::{Change, ChangeKind, InputStatus, Item, OutputReader, PlayerInput, PlayerSetup, Setup, TickRecord};
use holeshot_guest::Rules as Guest;
use holeshot_guest::export::Instance;
use holeshot_room::{Fault, RestoreError, Rules};
use serde::Serialize;

use super::{Cost, cost};
use crate::bots::{GameName, Plays, arena as arena_bots};
use crate::rules::{
    ARENA_WASM, DRAG_RACE_WASM, Engine, EngineError, EngineSettings, InstantiateError, LoadError, Module, ModuleStore,
    NativeRules, WasmRules,
};

/// Ticks that are timed together: the clock costs as much as a small tick.
const BLOCK_TICKS: usize = 50;
/// Frames of a game that are played, at most: staging, tree and the whole quarter mile of every car.
const FRAMES_MAX: usize = 1_500;
/// Length of the match in the arena, in s.
const MATCH_S: u32 = 20;
/// Times that all rooms are stepped once, in the cold part.
const SWEEPS: usize = 40;
/// Rooms whose memory is measured, per number of players. Enough that a room's pages outweigh what else the process does.
const MEMORY_ROOMS: u32 = 200;
/// Instances beside the rooms: the one that plays hot, and one that is asked for the manifest.
const INSTANCES_BESIDE: u32 = 4;

const EMPTY_WASM: &[u8] = include_bytes!("empty.wasm");

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The games.
    pub games: Vec<GameName>,
    /// Numbers of players, each 1 to 64.
    pub players: Vec<usize>,
    /// Rooms that are stepped in turn.
    pub rooms: u32,
    /// Times that a game is played hot.
    pub rounds: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { games: vec![GameName::DragRace, GameName::Arena], players: vec![2, 8, 64], rooms: 4_000, rounds: 5 }
    }
}

/// Wasm against native.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pair {
    /// The rules in WebAssembly.
    pub wasm: Cost,
    /// The same rules linked into this program.
    pub native: Cost,
    /// The median over blocks or sweeps of wasm time over the native time next to it.
    pub ratio: f64,
}

/// Memory that rooms took from the system, pages and page tables, in KiB per room.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Memory {
    /// In WebAssembly.
    pub wasm_kib: f64,
    /// Natively.
    pub native_kib: f64,
}

/// Figures for one game and number of players.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The game.
    pub game: GameName,
    /// Players in the room.
    pub players: usize,
    /// Frames that were played.
    pub frames: usize,
    /// One room.
    pub hot: Pair,
    /// All rooms in turn.
    pub cold: Pair,
    /// Memory per room; none where the system does not tell.
    pub memory: Option<Memory>,
    /// Fuel of the dearest tick.
    pub fuel_max: u64,
    /// Fuel per microsecond of wasm time, hot.
    pub fuel_per_us: f64,
    /// Bytes that left the module, over all frames; equal for both.
    pub output_bytes: usize,
}

/// All figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether this program was built with optimisation. Without it the native figures mean nothing.
    pub optimised: bool,
    /// Rooms of the cold part.
    pub rooms: u32,
    /// A tick of a module that does nothing: record written, fuel and watchdog set, call, span checked.
    pub empty_call: Cost,
    /// One row per game and number of players.
    pub rows: Vec<Row>,
}

/// Why there are no figures.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BenchError {
    /// An option is out of its range.
    #[error("{0}")]
    Option(String),
    /// Too many rooms for this system.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A module that ships with the host does not load: a fault of the build.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A room did not begin.
    #[error(transparent)]
    Instantiate(#[from] InstantiateError),
    /// Rules failed.
    #[error("the rules failed: {0}")]
    Fault(#[from] Fault),
    /// A bot does not play: a fault of the build.
    #[error("a bot does not play: {0}")]
    Bot(String),
    /// A state did not come back.
    #[error("the state of the same rules was not taken: {0}")]
    Restore(#[from] RestoreError),
    /// Wasm and native do not do the same: the figures would compare different work.
    #[error("{game} with {players} players, frame {frame}: {what} of wasm and of native rules differ")]
    Differ {
        /// The game.
        game: GameName,
        /// Players in the room.
        players: usize,
        /// The frame.
        frame: usize,
        /// What differs.
        what: &'static str,
    },
}

/// Measures. Takes some seconds per number of players, and a minute for 64 of them.
///
/// # Errors
/// An option out of range, too little room on this system, or wasm and native rules that differ.
pub fn run(options: &Options, mut progress: impl FnMut(&str)) -> Result<Report, BenchError> {
    if let Some(players) = options.players.iter().find(|players| !(1..=64).contains(*players)) {
        return Err(BenchError::Option(format!("a room has 1 to 64 players, not {players}")));
    }
    if options.rooms == 0 || options.rounds == 0 {
        return Err(BenchError::Option("at least one room and one round are needed".into()));
    }
    let engine = Engine::new(EngineSettings {
        instances_max: options.rooms.saturating_add(INSTANCES_BESIDE),
        ..EngineSettings::default()
    })?;
    let store = match ModuleStore::new(engine, None) {
        Ok(store) => store,
        Err(error) => return Err(BenchError::Option(error.to_string())),
    };
    let empty_call = empty_call(&*store.load(EMPTY_WASM)?)?;
    let mut rows = Vec::new();
    for game in &options.games {
        rows.extend(match game {
            GameName::DragRace => rows_of::<DragRace>(&store, options, &mut progress)?,
            GameName::Arena => rows_of::<Arena>(&store, options, &mut progress)?,
        });
    }
    Ok(Report { optimised: !cfg!(debug_assertions), rooms: options.rooms, empty_call, rows })
}

/// A game that is measured: its rules, natively and as wasm, and bots for them.
trait Game: Guest {
    const NAME: GameName;
    const WASM: &'static [u8];

    /// A room of so many players.
    fn setup(players: usize) -> Setup;
    /// A bot for a slot of that room.
    fn bot(setup: &Setup, slot: usize) -> Result<impl Plays, BenchError>;
}

/// The best bot has the skill 1, the last one half of it.
fn skill(setup: &Setup, slot: usize) -> f64 {
    1.0 - slot as f64 / (2 * setup.players.len()) as f64
}

impl Game for DragRace {
    const NAME: GameName = GameName::DragRace;
    const WASM: &'static [u8] = DRAG_RACE_WASM;

    fn setup(players: usize) -> Setup {
        let player =
            |slot| PlayerSetup { name: format!("driver {slot}"), data: format!("{{\"car\":\"{}\"}}", car_of(slot)) };
        Setup {
            seed: 20_000 + players as u64,
            tick_hz: 50,
            options: String::new(),
            players: (0..players).map(player).collect(),
        }
    }

    fn bot(setup: &Setup, slot: usize) -> Result<impl Plays, BenchError> {
        Driver::new(car_of(slot), slot, skill(setup, slot), slot as u64)
            .map_err(|error| BenchError::Bot(error.to_string()))
    }
}

/// The car of a lane: those of the catalogue in turn.
fn car_of(slot: usize) -> &'static str {
    let garage = cars();
    garage.get(slot % garage.len().max(1)).map_or("", |car| &*car.id)
}

impl Game for Arena {
    const NAME: GameName = GameName::Arena;
    const WASM: &'static [u8] = ARENA_WASM;

    fn setup(players: usize) -> Setup {
        let player = |slot| PlayerSetup { name: format!("fighter {slot}"), data: String::new() };
        Setup {
            seed: 20_000 + players as u64,
            tick_hz: 50,
            options: format!("{{\"duration_s\":{MATCH_S}}}"),
            players: (0..players).map(player).collect(),
        }
    }

    fn bot(setup: &Setup, slot: usize) -> Result<impl Plays, BenchError> {
        Ok(arena_bots::player(skill(setup, slot), slot as u64, Default::default()))
    }
}

fn rows_of<G: Game>(
    store: &ModuleStore,
    options: &Options,
    progress: &mut impl FnMut(&str),
) -> Result<Vec<Row>, BenchError> {
    let name = G::NAME;
    let module = store.load(G::WASM)?;
    let recordings = options.players.iter().map(|&players| {
        progress(&format!("{name}: recording a game of {players} players"));
        record::<G>(players)
    });
    let recordings: Vec<Recording> = recordings.collect::<Result<_, _>>()?;
    progress(&format!("{name}: measuring the memory of {} rooms", options.rooms));
    let memories = memories::<G>(&module, &recordings, options.rooms)?;
    let rows = recordings.iter().zip(memories).map(|(recording, memory)| {
        progress(&format!("{name}: measuring ticks of {} players", recording.setup.players.len()));
        row::<G>(&module, recording, memory, options)
    });
    rows.collect()
}

impl Report {
    /// The figures as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        if !self.optimised {
            text.push_str("This program was built without optimisation: its native figures mean nothing. Run it with `cargo run --release`.\n\n");
        }
        text.push_str("ns per tick (min / median)\n\n");
        text.push_str(
            "game       players  what                          wasm              native   ratio   KiB per room (native)\n",
        );
        for row in &self.rows {
            let memory = match row.memory {
                Some(memory) => format!("{:.1} ({:.1})", memory.wasm_kib, memory.native_kib),
                None => "not told by this system".into(),
            };
            line(&mut text, row, "hot, one room", row.hot, "");
            line(&mut text, row, &format!("{} rooms", self.rooms), row.cold, &memory);
        }
        text.push('\n');
        for row in &self.rows {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{}, {:>2} players: {} frames, {} bytes of output, equal from wasm and native; fuel of the dearest tick {}, {:.0} fuel per µs",
                row.game, row.players, row.frames, row.output_bytes, row.fuel_max, row.fuel_per_us
            );
        }
        let _ = writeln!(
            text,
            "a tick that does nothing: {:.0} / {:.0} ns",
            self.empty_call.min_ns, self.empty_call.median_ns
        );
        text
    }
}

fn line(text: &mut String, row: &Row, what: &str, pair: Pair, memory: &str) {
    let cost = |cost: Cost| format!("{:.0} / {:.0}", cost.min_ns, cost.median_ns);
    let _ = writeln!(
        text,
        "{:<10} {:>7}  {what:<14}  {:>18}  {:>18}  {:>6.2}   {memory}",
        row.game,
        row.players,
        cost(pair.wasm),
        cost(pair.native),
        pair.ratio
    );
}

/// A game that was played once.
struct Recording {
    setup: Setup,
    /// The record of each frame.
    records: Vec<Vec<u8>>,
    /// The output of each frame.
    outputs: Vec<Vec<u8>>,
    /// The state before frame 0.
    start: Vec<u8>,
    /// A frame in which everybody is under way, and the state before it.
    under_way: (usize, Vec<u8>),
}

fn record<G: Game>(players: usize) -> Result<Recording, BenchError> {
    let setup = G::setup(players);
    let mut bots = (0..players).map(|slot| G::bot(&setup, slot)).collect::<Result<Vec<_>, _>>()?;
    let mut instance: Instance<G> = Instance::new();
    let mut bytes = Vec::new();
    setup.write(&mut bytes).map_err(InstantiateError::Setup)?;
    instance.init(&bytes).map_err(|text| InstantiateError::Refused { text })?;
    let start = instance.save().to_vec();
    let stride = G::manifest().input_stride_bytes();
    let mut recording =
        Recording { setup: setup.clone(), records: vec![], outputs: vec![], start, under_way: (0, vec![]) };
    let mut record = TickRecord::default();
    let mut states = Vec::new();
    for frame in 0..FRAMES_MAX {
        record.begin(frame as u32, players, stride);
        if let Some(output) = recording.outputs.last() {
            let (shared, own) = snapshots(output, players);
            for (slot, (bot, own)) in bots.iter_mut().zip(own).enumerate() {
                let Some(seen) = own.or(shared) else { continue };
                let (input, _) = bot.answer(seen, 0).map_err(|error| BenchError::Bot(error.to_string()))?;
                record.set_input(slot, PlayerInput { status: InputStatus::Fresh, age_frames: 0, bytes: &input });
            }
        } else {
            for slot in 0..players {
                record.push_change(Change { player: slot as u16, kind: ChangeKind::Joined });
            }
        }
        states.push(instance.save().to_vec());
        recording.outputs.push(instance.tick(record.bytes()).to_vec());
        recording.records.push(record.bytes().to_vec());
        if instance.finished() {
            break;
        }
    }
    // Two thirds of the way everybody has left the line; the cold part needs SWEEPS frames from there.
    let at = (recording.records.len() * 2 / 3).min(recording.records.len().saturating_sub(SWEEPS + 1));
    recording.under_way = (at, states.into_iter().nth(at).unwrap_or_default());
    Ok(recording)
}

/// The snapshot for everybody, and that of each player who has one of its own.
fn snapshots(output: &[u8], players: usize) -> (Option<&[u8]>, Vec<Option<&[u8]>>) {
    let (mut shared, mut own) = (None, vec![None; players]);
    for item in OutputReader::of_checked(output).items() {
        match item {
            Item::SharedSnapshot(bytes) => shared = Some(bytes),
            Item::Snapshot { player, bytes } => {
                if let Some(slot) = own.get_mut(usize::from(player)) {
                    *slot = Some(bytes);
                }
            }
            _ => {}
        }
    }
    (shared, own)
}

fn row<G: Game>(
    module: &Module,
    recording: &Recording,
    memory: Option<Memory>,
    options: &Options,
) -> Result<Row, BenchError> {
    let players = recording.setup.players.len();
    let state_version = module.manifest().state_version;

    let begin_wasm = || module.instantiate(&recording.setup, "bench");
    let begin_native = || NativeRules::<G>::new(&recording.setup);
    let mut wasm_rooms = rooms(options.rooms, begin_wasm)?;
    warm(&mut wasm_rooms, recording, state_version)?;
    let mut native_rooms = rooms(options.rooms, begin_native)?;
    warm(&mut native_rooms, recording, state_version)?;
    let cold = cold(&mut wasm_rooms, &mut native_rooms, recording, players)?;
    drop(wasm_rooms);
    drop(native_rooms);

    let mut wasm = begin_wasm()?;
    let mut native = begin_native()?;
    let (fuel_total, fuel_max) = compare_all(&mut wasm, &mut native, recording, players)?;
    let mut samples = Samples::default();
    let mut wasm_ns_per_frame = Vec::new();
    for _ in 0..options.rounds {
        wasm.restore(state_version, &recording.start)?;
        native.restore(state_version, &recording.start)?;
        let before = samples.wasm.len();
        hot_round(&mut wasm, &mut native, recording, players, &mut samples)?;
        let round = samples.wasm.get(before..).unwrap_or_default();
        wasm_ns_per_frame.push(round.iter().sum::<f64>() / round.len().max(1) as f64);
    }
    let fuel_per_frame = fuel_total as f64 / recording.records.len().max(1) as f64;
    let best_round_ns = wasm_ns_per_frame.into_iter().fold(f64::INFINITY, f64::min);
    Ok(Row {
        game: G::NAME,
        players,
        frames: recording.records.len(),
        hot: samples.pair(),
        cold,
        memory,
        fuel_max,
        fuel_per_us: fuel_per_frame / best_round_ns * 1_000.0,
        output_bytes: recording.outputs.iter().map(Vec::len).sum(),
    })
}

/// Memory per room of each recording. The rooms play from the start to where everybody is under way, and all are kept until the last is
/// measured: what one gave back, the next would take without asking the system.
fn memories<G: Game>(
    module: &Module,
    recordings: &[Recording],
    rooms_max: u32,
) -> Result<Vec<Option<Memory>>, BenchError> {
    let count = MEMORY_ROOMS.min(rooms_max / recordings.len().max(1) as u32).max(1);
    let play = |room: &mut dyn Rules, recording: &Recording| {
        recording.records.iter().take(recording.under_way.0).try_for_each(|record| room.tick(record).map(|_| ()))
    };
    let (mut wasm_kept, mut native_kept, mut memories) = (Vec::new(), Vec::new(), Vec::new());
    for recording in recordings {
        // The first room of a kind also takes what all will share.
        for _ in 0..2 {
            play(&mut module.instantiate(&recording.setup, "bench")?, recording)?;
            play(&mut NativeRules::<G>::new(&recording.setup)?, recording)?;
        }
        let before = system_kib();
        for _ in 0..count {
            let mut room = module.instantiate(&recording.setup, "bench")?;
            play(&mut room, recording)?;
            wasm_kept.push(room);
        }
        let with_wasm = system_kib();
        for _ in 0..count {
            let mut room = NativeRules::<G>::new(&recording.setup)?;
            play(&mut room, recording)?;
            native_kept.push(room);
        }
        let with_native = system_kib();
        memories.push(match (before, with_wasm, with_native) {
            (Some(before), Some(wasm), Some(native)) => Some(Memory {
                wasm_kib: wasm.saturating_sub(before) as f64 / f64::from(count),
                native_kib: native.saturating_sub(wasm) as f64 / f64::from(count),
            }),
            _ => None,
        });
    }
    Ok(memories)
}

fn rooms<R>(count: u32, begin: impl Fn() -> Result<R, InstantiateError>) -> Result<Vec<R>, InstantiateError> {
    (0..count).map(|_| begin()).collect()
}

/// Brings rooms to the frame in which everybody is under way, and steps them once so that they have touched their memory.
fn warm(rooms: &mut [impl Rules], recording: &Recording, state_version: u32) -> Result<(), BenchError> {
    let (frame, state) = &recording.under_way;
    for room in rooms {
        room.restore(state_version, state)?;
        if let Some(record) = recording.records.get(*frame) {
            room.tick(record)?;
        }
    }
    Ok(())
}

fn cold<G: Game>(
    wasm_rooms: &mut [WasmRules],
    native_rooms: &mut [NativeRules<G>],
    recording: &Recording,
    players: usize,
) -> Result<Pair, BenchError> {
    let first = recording.under_way.0 + 1;
    let mut samples = Samples::default();
    for (frame, record) in recording.records.iter().enumerate().skip(first).take(SWEEPS) {
        // Who goes first changes: the second finds the caches full of the other's rooms.
        if frame % 2 == 0 {
            samples.wasm.push(sweep(wasm_rooms, record)?);
            samples.native.push(sweep(native_rooms, record)?);
        } else {
            samples.native.push(sweep(native_rooms, record)?);
            samples.wasm.push(sweep(wasm_rooms, record)?);
        }
    }
    // Every room of both kinds did the same work.
    let expected = match wasm_rooms.first_mut() {
        Some(room) => room.save()?,
        None => Vec::new(),
    };
    let last = first + SWEEPS;
    for state in wasm_rooms.iter_mut().map(Rules::save).chain(native_rooms.iter_mut().map(Rules::save)) {
        if state? != expected {
            return Err(BenchError::Differ { game: G::NAME, players, frame: last, what: "the states" });
        }
    }
    Ok(samples.pair())
}

/// Steps each room once; nanoseconds per room.
fn sweep(rooms: &mut [impl Rules], record: &[u8]) -> Result<f64, Fault> {
    let begun = Instant::now();
    for room in &mut *rooms {
        black_box(room.tick(black_box(record))?);
    }
    Ok(begun.elapsed().as_nanos() as f64 / rooms.len().max(1) as f64)
}

/// Plays the whole game once and compares every output and the last state. Fuel in total and of the dearest tick.
fn compare_all<G: Game>(
    wasm: &mut WasmRules,
    native: &mut NativeRules<G>,
    recording: &Recording,
    players: usize,
) -> Result<(u64, u64), BenchError> {
    let differ = |frame, what| BenchError::Differ { game: G::NAME, players, frame, what };
    let (mut total, mut max) = (0, 0);
    for (frame, (record, expected)) in recording.records.iter().zip(&recording.outputs).enumerate() {
        if wasm.tick(record)? != expected || native.tick(record)? != expected {
            return Err(differ(frame, "the outputs"));
        }
        total += wasm.last_tick_fuel();
        max = max.max(wasm.last_tick_fuel());
    }
    if wasm.save()? != native.save()? {
        return Err(differ(recording.records.len(), "the states"));
    }
    Ok((total, max))
}

/// Plays the game in blocks. The last tick of each is outside of the timing, and its outputs are compared.
fn hot_round<G: Game>(
    wasm: &mut WasmRules,
    native: &mut NativeRules<G>,
    recording: &Recording,
    players: usize,
    samples: &mut Samples,
) -> Result<(), BenchError> {
    let blocks = recording.records.chunks_exact(BLOCK_TICKS).zip(recording.outputs.chunks_exact(BLOCK_TICKS));
    for (at, (records, outputs)) in blocks.enumerate() {
        let (Some((last, timed)), Some(expected)) = (records.split_last(), outputs.last()) else { continue };
        if at % 2 == 0 {
            samples.wasm.push(block(wasm, timed)?);
            samples.native.push(block(native, timed)?);
        } else {
            samples.native.push(block(native, timed)?);
            samples.wasm.push(block(wasm, timed)?);
        }
        if wasm.tick(last)? != expected || native.tick(last)? != expected {
            return Err(BenchError::Differ {
                game: G::NAME,
                players,
                frame: (at + 1) * BLOCK_TICKS - 1,
                what: "the outputs",
            });
        }
    }
    Ok(())
}

/// Nanoseconds per tick of a few ticks in a row.
fn block(rules: &mut impl Rules, records: &[Vec<u8>]) -> Result<f64, Fault> {
    let begun = Instant::now();
    for record in records {
        black_box(rules.tick(black_box(record))?);
    }
    Ok(begun.elapsed().as_nanos() as f64 / records.len().max(1) as f64)
}

fn empty_call(module: &Module) -> Result<Cost, BenchError> {
    const BLOCKS: usize = 200;
    let player = PlayerSetup { name: String::new(), data: String::new() };
    let setup = Setup { seed: 1, tick_hz: 50, options: String::new(), players: vec![player.clone(), player] };
    let mut rules = module.instantiate(&setup, "bench")?;
    let mut record = TickRecord::default();
    record.begin(0, 2, 16);
    let records = vec![record.bytes().to_vec(); BLOCK_TICKS * 20];
    let mut samples = Vec::new();
    for _ in 0..BLOCKS {
        samples.push(block(&mut rules, &records)?);
    }
    Ok(cost(&samples))
}

#[derive(Debug, Default)]
struct Samples {
    wasm: Vec<f64>,
    native: Vec<f64>,
}

impl Samples {
    fn pair(&self) -> Pair {
        let ratios: Vec<f64> = self.wasm.iter().zip(&self.native).map(|(wasm, native)| wasm / native).collect();
        Pair { wasm: cost(&self.wasm), native: cost(&self.native), ratio: cost(&ratios).median_ns }
    }
}

/// Memory of this process and the page tables that map it, in KiB. A page that many rooms share (the module's constant data) counts once, which
/// the resident size does not do: it counts it in every room.
fn system_kib() -> Option<u64> {
    let field = |file: &str, name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(file).ok()?;
        text.lines().find_map(|line| line.strip_prefix(name))?.trim_end_matches("kB").trim().parse().ok()
    };
    Some(field("/proc/self/smaps_rollup", "Pss:")? + field("/proc/self/status", "VmPTE:")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_module_is_what_its_text_says() {
        assert_eq!(wat::parse_str(include_str!("empty.wat")).unwrap(), EMPTY_WASM);
    }

    #[test]
    fn a_small_run_compares_wasm_with_native_and_has_figures() {
        let options = Options { players: vec![2], rooms: 3, rounds: 1, ..Options::default() };
        let mut said = Vec::new();
        let report = run(&options, |what| said.push(what.to_owned())).unwrap();
        assert!(said.iter().any(|what| what == "arena: measuring ticks of 2 players"), "{said:?}");
        assert_eq!(report.rows.iter().map(|row| row.game).collect::<Vec<_>>(), options.games);
        for row in &report.rows {
            assert_eq!(row.players, 2);
            assert!(row.frames > 300, "a game is longer than {} frames", row.frames);
            for cost in [row.hot.wasm, row.hot.native, row.cold.wasm, row.cold.native, report.empty_call] {
                assert!(cost.min_ns > 0.0 && cost.median_ns >= cost.min_ns, "{cost:?}");
            }
            assert!(row.fuel_max > 1_000 && row.output_bytes > row.frames * 8);
        }
        let table = report.table();
        assert!(table.contains("hot, one room") && table.contains("3 rooms"), "{table}");
        assert!(table.contains("drag-race        2") && table.contains("arena            2"), "{table}");
    }

    #[test]
    fn options_out_of_range_are_refused() {
        for options in [
            Options { players: vec![65], ..Options::default() },
            Options { players: vec![0], ..Options::default() },
            Options { rooms: 0, ..Options::default() },
        ] {
            assert!(matches!(run(&options, |_| {}), Err(BenchError::Option(_))), "{options:?}");
        }
        let many = Options { rooms: u32::MAX, ..Options::default() };
        assert!(matches!(run(&many, |_| {}), Err(BenchError::Engine(_))));
    }
}
