//! The rules runtime: loads rules modules, runs one instance per room, and stops an instance that misbehaves. The only place that
//! names wasmtime. What the records of a module mean is the room's affair; what they look like is `holeshot_abi`'s.
//!
//! - [`Engine`]: one per process. Configuration of the compiler and of the pool that instances live in; the watchdog's clock.
//! - [`ModuleStore`]: from bytes or a file to a [`Module`], named by the hash of its bytes. Refuses what cannot run, with a text for the modder.
//! - [`Module::instantiate`]: begins a room. The [`WasmRules`] that come back step it.
//!
//! Loading compiles, which takes from milliseconds to seconds: call [`ModuleStore::load`] where waiting is allowed
//! (`tokio::task::spawn_blocking`), never on a shard. Everything else is made for a shard's thread.

mod backtrace;
mod cache;
mod default;
mod engine;
mod error;
mod guest;
mod inspect;
mod instance;
mod lines;
mod module;
mod native;
mod program;

use holeshot_abi::names;
use holeshot_room::{Fault, FaultKind};

pub use cache::CacheError;
pub use default::{ARENA_WASM, DRAG_RACE_WASM, SHIPPED};
pub use engine::{Engine, EngineError, EngineSettings};
pub use error::{InstantiateError, LoadError};
pub(crate) use inspect::inspect as inspect_module;
pub use inspect::{Facts, facts};
pub use instance::WasmRules;
pub use module::{MODULES_LOADING_MAX, Module, ModuleHash, ModuleStore, Origin};
pub use native::NativeRules;
pub use program::{NativeProgram, RoomProgram};

/// Length of a rules module's file in bytes: several times a large game, and still compiled within seconds.
pub const MODULE_BYTES_MAX: usize = 8 << 20;

/// Fuel that a microsecond buys, in WebAssembly instructions. `holeshot bench tick` prints what this machine does: 5,000 to 10,000 with the drag
/// race on a server's core of 2025, since many instructions (reading a local, a constant) become no code. Set lower, so that a machine of half the
/// speed still keeps a room within its share of the tick.
pub const FUEL_PER_US: u64 = 4_000;

/// Fuel for a module's start function, `_initialize`, version and manifest, each: a tenth of a second, while nobody plays.
pub const LOAD_FUEL: u64 = 100_000 * FUEL_PER_US;
/// Fuel for beginning a room: two and a half ticks of a shard, if it is done there.
pub const INIT_FUEL: u64 = 50_000 * FUEL_PER_US;
/// Fuel for saving a state: half a tick, because the other rooms of the shard wait for it. A state of 1 MiB takes about 4 ms.
pub const SAVE_FUEL: u64 = 10_000 * FUEL_PER_US;
/// Fuel for taking a state over: as for beginning a room.
pub const RESTORE_FUEL: u64 = 50_000 * FUEL_PER_US;
/// Fuel for describing a state: nobody plays in the instance that does it, and JSON of 1 MiB takes about 20 ms.
pub const DESCRIBE_FUEL: u64 = 100_000 * FUEL_PER_US;

/// When the watchdog ends a tick that fuel did not end, in milliseconds. Fuel is the budget and stops at the same instruction everywhere; this only
/// catches what fuel prices too low, so it is far above a tick's share.
pub const TICK_WATCHDOG_MS: u64 = 500;
/// The same for the other calls, in milliseconds.
pub const CALL_WATCHDOG_MS: u64 = 5_000;

/// What a module says its state is, once it is known to be JSON.
fn description(bytes: &[u8]) -> Result<String, Fault> {
    let bad = |problem: String| {
        Fault::new(FaultKind::BadOutput, format!("{}: the description is {problem}", names::DESCRIBE))
    };
    let text = std::str::from_utf8(bytes)
        .map_err(|error| bad(format!("not UTF-8 text: byte {} is wrong", error.valid_up_to())))?;
    // Read as a whole: readers bound how deep it is nested, and nobody who is handed this shall find it unreadable.
    let _: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| bad(format!("no JSON: {}", guest::readable(error.to_string().as_bytes()))))?;
    Ok(text.to_owned())
}

#[cfg(test)]
pub(crate) mod tests;
