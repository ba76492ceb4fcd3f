//! `holeshot bench replay`: how fast the journal of a race is run again and proven, in WebAssembly and with the same rules linked natively.
//!
//! The journal is that of a race which drivers drove through a room, once. Each round replays it from its first frame to its last on one core: a fresh
//! instance, every record read, every output checked and compared, every state hashed. Reading the file and compiling are not part of it; the reading of its
//! bytes is measured beside it. Wasm and native take turns, so that whatever else the machine does meets both.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use drag_race::DragRace;
use holeshot_room::Program;
use holeshot_room::journal::{Journal, ReplayError, Replayer};
use serde::Serialize;

use super::recorded;
use crate::rules::{
    DRAG_RACE_WASM, Engine, EngineError, EngineSettings, LoadError, ModuleStore, NativeProgram, RoomProgram,
};

/// Instances at a time: one that plays, and one while the module loads.
const INSTANCES_MAX: u32 = 4;

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Numbers of players, each 1 to 64.
    pub players: Vec<usize>,
    /// Times that each journal is replayed, in wasm and natively.
    pub rounds: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { players: vec![2, 8, 64], rounds: 200 }
    }
}

/// How fast one kind of rules was.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Speed {
    /// Microseconds per frame in the best round.
    pub min_us_per_frame: f64,
    /// In the round in the middle.
    pub median_us_per_frame: f64,
    /// How many times faster than the race itself, in the round in the middle.
    pub times_real_time: f64,
}

/// Figures for one number of players.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Players in the room.
    pub players: usize,
    /// Frames of the race.
    pub frames: u32,
    /// Seconds that it took when it was driven.
    pub game_s: f64,
    /// Length of the journal in bytes.
    pub journal_bytes: usize,
    /// In WebAssembly.
    pub wasm: Speed,
    /// The same rules linked into this program.
    pub native: Speed,
    /// The median over rounds of wasm time over the native time next to it.
    pub ratio: f64,
    /// Microseconds that reading and checking the journal's bytes takes, once per replay, in the round in the middle.
    pub read_us: f64,
}

/// All figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether this program was built with optimisation. Without it the figures mean little.
    pub optimised: bool,
    /// One row per number of players.
    pub rows: Vec<Row>,
}

/// Why there are no figures.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BenchError {
    /// An option is out of its range.
    #[error("{0}")]
    Option(String),
    /// The race could not be driven.
    #[error("the race that is to be replayed: {0}")]
    Race(String),
    /// The runtime cannot be set up.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The module cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The replay broke off.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The replay was another race.
    #[error("the replay of {players} players with {kind} rules is not the race that was driven: {problem}")]
    Differs {
        /// Players.
        players: usize,
        /// `wasm` or `native`.
        kind: &'static str,
        /// What differs.
        problem: String,
    },
}

/// Drives the races and replays them.
///
/// # Errors
/// An option out of range, or a replay that is not the race.
pub fn run(options: &Options) -> Result<Report, BenchError> {
    if let Some(players) = options.players.iter().find(|players| !(1..=64).contains(*players)) {
        return Err(BenchError::Option(format!("a room has 1 to 64 players, not {players}")));
    }
    if options.rounds == 0 {
        return Err(BenchError::Option("at least one round is needed".into()));
    }
    let engine = Engine::new(EngineSettings { instances_max: INSTANCES_MAX, ..EngineSettings::default() })?;
    let store = ModuleStore::new(engine, None).map_err(|error| BenchError::Option(error.to_string()))?;
    let module = store.load(DRAG_RACE_WASM)?;
    let mut rows = Vec::new();
    for &players in &options.players {
        let setup = recorded::setup(players, 20_000 + players as u64);
        let wasm: Arc<dyn Program> =
            Arc::new(RoomProgram::new(Arc::clone(&module), Arc::new(setup.clone()), "bench".into()));
        let native: Arc<dyn Program> = Arc::new(NativeProgram::<DragRace>::new(setup, module.hash()));
        rows.push(row(players, &wasm, &native, options.rounds)?);
    }
    Ok(Report { optimised: !cfg!(debug_assertions), rows })
}

fn row(players: usize, wasm: &Arc<dyn Program>, native: &Arc<dyn Program>, rounds: usize) -> Result<Row, BenchError> {
    let bytes = recorded::journal(Arc::clone(wasm)).map_err(BenchError::Race)?;
    let (mut wasm_us, mut native_us, mut read_us) = (Vec::new(), Vec::new(), Vec::new());
    let unreadable = |error: holeshot_room::journal::JournalError| BenchError::Race(error.to_string());
    let journal = Journal::read(&bytes).map_err(unreadable)?;
    let frames = journal.frames();
    for round in 0..rounds {
        let started = Instant::now();
        Journal::read(&bytes).map_err(unreadable)?;
        read_us.push(started.elapsed().as_secs_f64() * 1e6);
        // Who goes first changes.
        for is_wasm in [round % 2 == 0, round % 2 != 0] {
            let (kind, program, times) =
                if is_wasm { ("wasm", wasm, &mut wasm_us) } else { ("native", native, &mut native_us) };
            let started = Instant::now();
            replay(&journal, program).map_err(|error| match error {
                Failed::Replay(error) => BenchError::Replay(error),
                Failed::Differs(problem) => BenchError::Differs { players, kind, problem },
            })?;
            times.push(started.elapsed().as_secs_f64() * 1e6);
        }
    }
    let ratios = wasm_us.iter().zip(&native_us).map(|(wasm, native)| wasm / native).collect();
    let game_s = f64::from(frames) / f64::from(journal.setup().tick_hz.max(1));
    Ok(Row {
        players,
        frames,
        game_s,
        journal_bytes: bytes.len(),
        wasm: speed(wasm_us, frames, game_s),
        native: speed(native_us, frames, game_s),
        ratio: median(ratios),
        read_us: median(read_us),
    })
}

enum Failed {
    Replay(ReplayError),
    Differs(String),
}

/// One proof.
fn replay(journal: &Journal, program: &Arc<dyn Program>) -> Result<(), Failed> {
    let mut replayer = Replayer::new(journal, &mut |_| Some(Arc::clone(program))).map_err(Failed::Replay)?;
    while replayer.step().map_err(Failed::Replay)?.is_some() {}
    if let Some(difference) = replayer.difference() {
        return Err(Failed::Differs(format!("frame {} differs", difference.frame())));
    }
    if replayer.next_frame() != journal.frames() {
        return Err(Failed::Differs(format!("it has {} frames, not {}", replayer.next_frame(), journal.frames())));
    }
    Ok(())
}

fn speed(mut us: Vec<f64>, frames: u32, game_s: f64) -> Speed {
    let frames = f64::from(frames.max(1));
    us.sort_by(f64::total_cmp);
    let middle = median(us.clone());
    Speed {
        min_us_per_frame: us.first().copied().unwrap_or(f64::NAN) / frames,
        median_us_per_frame: middle / frames,
        times_real_time: game_s * 1e6 / middle,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Report {
    /// The figures as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        if !self.optimised {
            text.push_str("This program was built without optimisation: its figures mean little. Run it with `cargo run --release`.\n\n");
        }
        text.push_str("a race replayed and proven on one core; µs per frame (min / median), times real time\n\n");
        text.push_str("players  frames  journal bytes            wasm    times          native    times   ratio   reading it µs\n");
        for row in &self.rows {
            let cost = |speed: Speed| format!("{:.2} / {:.2}", speed.min_us_per_frame, speed.median_us_per_frame);
            let _infallible = writeln!(
                text,
                "{:>7}  {:>6}  {:>13}  {:>14}  {:>7.0}  {:>14}  {:>7.0}  {:>6.2}   {:>13.0}",
                row.players,
                row.frames,
                row.journal_bytes,
                cost(row.wasm),
                row.wasm.times_real_time,
                cost(row.native),
                row.native.times_real_time,
                row.ratio,
                row.read_us
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_race_is_replayed_by_both_kinds_of_rules() {
        let report = run(&Options { players: vec![2], rounds: 1 }).unwrap();
        let row = &report.rows[0];
        assert!(row.frames > 400 && row.journal_bytes > 1_000, "{row:?}");
        assert!(row.wasm.times_real_time > 1.0 && row.native.times_real_time > 1.0, "{row:?}");
        let table = report.table();
        assert!(table.contains(&format!("      2  {:>6}", row.frames)), "{table}");
        assert!(run(&Options { players: vec![65], rounds: 1 }).is_err());
        assert!(run(&Options { players: vec![2], rounds: 0 }).is_err());
    }
}
