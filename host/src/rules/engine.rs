//! One engine per process: the configuration of compiler and pool, the cap on instances, and the thread that moves the watchdog's clock.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use holeshot_abi::{MEMORY_BYTES_MAX, TABLE_ELEMENTS_MAX};
use wasmtime::{
    Config, InstanceAllocationStrategy, OperatorCost, OptLevel, PoolingAllocationConfig, Strategy,
    VariableOperatorCost, WasmBacktraceDetails,
};

use super::FUEL_PER_US;
use crate::limits::mappings::Mappings;
use crate::limits::memory::address_space_left;

/// How often the watchdog's clock moves, in milliseconds. Its deadlines are many times that.
pub(super) const EPOCH_MS: u64 = 20;

/// Bytes behind a memory that trap when touched. Small: the compiler checks bounds explicitly, since 4 GiB slots would need more page tables.
const GUARD_BYTES: usize = 64 << 10;
/// Most instances an engine can be asked for: 256 GiB of addresses, which every 64-bit system has in one piece.
const INSTANCES_MAX: u32 = 65_536;

/// Addresses left to everything but the pool: stacks of threads, and the allocator's arenas of 64 MiB for each. A host on two cores takes 0.85 GiB.
const ADDRESSES_RESERVED_BYTES: u64 = 1 << 30;

/// What can be set of an [`Engine`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSettings {
    /// Most rooms at a time: an instance each.
    pub instances_max: u32,
    /// Instances beside those: for a module that loads, for rooms that close while others open, for trials. Address space for all is reserved at
    /// the start.
    pub instances_spare: u32,
    /// The part of a tick's time that one room may use, in percent, 1 to 100. The rest belongs to the other rooms of its shard and to the network.
    pub tick_share_percent: u32,
    /// Fuel for one tick in place of the one that follows from the share; for tests, and for modules known to need it.
    pub tick_fuel: Option<u64>,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self { instances_max: 4_096, instances_spare: 0, tick_share_percent: Self::TICK_SHARE_PERCENT, tick_fuel: None }
    }
}

impl EngineSettings {
    /// A quarter of the tick: three rooms whose modules use all they may still leave a quarter to everybody else.
    pub const TICK_SHARE_PERCENT: u32 = 25;

    /// All instances that there are places for.
    #[must_use]
    pub const fn instances(&self) -> u32 {
        self.instances_max.saturating_add(self.instances_spare)
    }

    /// Fuel for one tick at `tick_hz`.
    #[must_use]
    pub fn tick_fuel(&self, tick_hz: u32) -> u64 {
        let tick_us = 1_000_000 / u64::from(tick_hz.max(1));
        self.tick_fuel.unwrap_or(tick_us * u64::from(self.tick_share_percent.clamp(1, 100)) / 100 * FUEL_PER_US)
    }
}

/// Why an [`Engine`] cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// No instance, or more than an engine can have.
    #[error(
        "a host holds 1 to {INSTANCES_MAX} rooms, not {asked}; ask for a number in between, or start a second host"
    )]
    InstancesOutOfRange {
        /// Asked for.
        asked: u32,
    },
    /// The system's limit on memory mappings would be met, which ends the process without a word.
    #[error(
        "{asked} rooms need {needed} memory mappings, and vm.max_map_count is {limit}, which carries {possible} rooms; ask for \
         fewer rooms, or raise the limit as root: sysctl -w vm.max_map_count={suggested}"
    )]
    TooFewMappings {
        /// Rooms asked for.
        asked: u32,
        /// Mappings they need, with those of spare instances and of the rest of the process.
        needed: u64,
        /// The system's limit.
        limit: u64,
        /// Rooms that fit.
        possible: u64,
        /// A limit with which they fit.
        suggested: u64,
    },
    /// The limit on the process's address space would be met, which ends the process as soon as anything asks for memory.
    #[error(
        "{asked} rooms need {needed_mib} MiB of addresses, and the limit on address space leaves {left_mib} MiB; ask for fewer rooms, or \
         raise the limit: ulimit -v unlimited"
    )]
    TooFewAddresses {
        /// Rooms asked for.
        asked: u32,
        /// MiB that they need, with those of spare instances and of the rest of the process.
        needed_mib: u64,
        /// MiB that are left.
        left_mib: u64,
    },
    /// Address space or the processor does not allow it.
    #[error("no address space or no code for {asked} rooms: {problem}; ask for fewer rooms")]
    Unavailable {
        /// Instances asked for.
        asked: u32,
        /// What wasmtime says.
        problem: String,
    },
    /// The watchdog's thread cannot be started.
    #[error("the watchdog's thread cannot be started: {problem}")]
    Watchdog {
        /// What the system says.
        problem: String,
    },
}

/// The compiler and the pool of instances of a process. Clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    engine: wasmtime::Engine,
    settings: EngineSettings,
    // Dropped before the thread is joined: that ends it.
    stop: Option<mpsc::Sender<()>>,
    ticker: Option<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(ticker) = self.ticker.take() {
            // It cannot panic: it only waits and counts.
            let _ = ticker.join();
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

impl Engine {
    /// Reserves the pool and starts the watchdog.
    ///
    /// # Errors
    /// Too many instances for this system.
    pub fn new(settings: EngineSettings) -> Result<Self, EngineError> {
        let asked = settings.instances_max;
        check_mappings(&settings, Mappings::of_this_process())?;
        check_addresses(&settings, address_space_left(Path::new("/")))?;
        let engine = wasmtime::Engine::new(&config(settings.instances()))
            .map_err(|error| EngineError::Unavailable { asked, problem: format!("{error:#}") })?;
        let (stop, stopped) = mpsc::channel();
        let ticking = engine.clone();
        let ticker = std::thread::Builder::new()
            .name("rules-watchdog".into())
            .spawn(move || {
                let period = Duration::from_millis(EPOCH_MS);
                while stopped.recv_timeout(period) == Err(mpsc::RecvTimeoutError::Timeout) {
                    ticking.increment_epoch();
                }
            })
            .map_err(|error| EngineError::Watchdog { problem: error.to_string() })?;
        Ok(Self { inner: Arc::new(Inner { engine, settings, stop: Some(stop), ticker: Some(ticker) }) })
    }

    /// The settings it was made with.
    #[must_use]
    pub fn settings(&self) -> &EngineSettings {
        &self.inner.settings
    }

    /// Instances that exist now.
    #[must_use]
    pub fn instances(&self) -> u64 {
        self.inner.engine.pooling_allocator_metrics().map_or(0, |metrics| metrics.core_instances())
    }

    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner.engine
    }
}

/// Epochs until the watchdog bites, for a time in milliseconds. One more than the quotient: the current one may be almost over.
pub(super) const fn epochs(ms: u64) -> u64 {
    ms / EPOCH_MS + 1
}

fn config(instances_max: u32) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(instances_max)
        .total_memories(instances_max)
        .total_tables(instances_max)
        .max_memory_size(MEMORY_BYTES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX);
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        // Canonical NaNs cost a factor of two here, and are made where bytes leave a module.
        .cranelift_nan_canonicalization(false)
        .consume_fuel(true)
        .operator_cost(operator_cost())
        .epoch_interruption(true)
        // Small slots: thousands of rooms then share page-table pages.
        .memory_reservation(MEMORY_BYTES_MAX as u64)
        .memory_reservation_for_growth(0)
        .memory_guard_size(GUARD_BYTES as u64)
        .guard_before_linear_memory(false)
        .memory_may_move(false)
        // Data is mapped and copied on write: the drag race has 51 KiB, of which a room writes one page. Without it a room takes twice the
        // memory; with it, four mappings instead of two.
        .memory_init_cow(true)
        // A module that compiles must leave the other cores to the shards.
        .parallel_compilation(false)
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        // What the specification of the boundary names, and nothing else: a module that runs here runs on every host.
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_tail_call(false)
        .wasm_extended_const(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// What instructions cost where it is not 1. Work that takes many cycles or depends on an operand is paid by its amount, so that fuel, not the
/// watchdog, ends it. (Copying and filling cost 1 per byte by default.)
fn operator_cost() -> OperatorCost {
    OperatorCost {
        // In cycles of a current processor, times two instructions that a cycle otherwise runs.
        I32DivS: 20,
        I32DivU: 20,
        I32RemS: 20,
        I32RemU: 20,
        I64DivS: 30,
        I64DivU: 30,
        I64RemS: 30,
        I64RemU: 30,
        F32Div: 10,
        F64Div: 10,
        F32Sqrt: 15,
        F64Sqrt: 20,
        F32x4Div: 10,
        F64x2Div: 10,
        F32x4Sqrt: 15,
        F64x2Sqrt: 20,
        // Each is a call into the host, whether it succeeds or not.
        MemoryGrow: 255,
        TableGrow: 255,
        variable: VariableOperatorCost { memory_grow_per_page: 255, ..VariableOperatorCost::new() },
        ..OperatorCost::new()
    }
}

fn check_mappings(settings: &EngineSettings, mappings: Option<Mappings>) -> Result<(), EngineError> {
    let asked = settings.instances_max;
    if asked == 0 || settings.instances() > INSTANCES_MAX {
        return Err(EngineError::InstancesOutOfRange { asked });
    }
    let Some(mappings) = mappings else { return Ok(()) };
    let needed = mappings.needed(settings.instances().into());
    if needed <= mappings.limit {
        return Ok(());
    }
    let possible = mappings.instances_possible().saturating_sub(settings.instances_spare.into());
    let limit = mappings.limit;
    Err(EngineError::TooFewMappings { asked, needed, limit, possible, suggested: needed.next_power_of_two() })
}

/// An allocator without addresses aborts: better not to begin.
fn check_addresses(settings: &EngineSettings, left: Option<u64>) -> Result<(), EngineError> {
    let Some(left) = left else { return Ok(()) };
    let slot = (MEMORY_BYTES_MAX + GUARD_BYTES) as u64;
    let needed = u64::from(settings.instances()).saturating_mul(slot).saturating_add(ADDRESSES_RESERVED_BYTES);
    if needed <= left {
        return Ok(());
    }
    let asked = settings.instances_max;
    Err(EngineError::TooFewAddresses { asked, needed_mib: needed.div_ceil(1 << 20), left_mib: left >> 20 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_beyond_the_systems_mappings_are_refused_in_words() {
        let rooms = |instances_max| EngineSettings { instances_max, instances_spare: 100, ..EngineSettings::default() };
        let linux = Some(Mappings { limit: 65_530, used: 200 });
        assert_eq!(check_mappings(&rooms(4_096), None), Ok(()));
        assert_eq!(check_mappings(&rooms(4_096), linux), Ok(()));
        let Err(error) = check_mappings(&rooms(40_000), linux) else { panic!("40,000 rooms do not fit") };
        let (needed, limit, possible) = (168_792, 65_530, 14_184);
        assert_eq!(error, EngineError::TooFewMappings { asked: 40_000, needed, limit, possible, suggested: 262_144 });
        assert!(error.to_string().contains("sysctl -w vm.max_map_count=262144"));
        // What the message offers is taken, and one more is not.
        assert_eq!(check_mappings(&rooms(14_184), linux), Ok(()));
        assert!(check_mappings(&rooms(14_185), linux).is_err());
        for asked in [0, 65_500, u32::MAX] {
            assert_eq!(check_mappings(&rooms(asked), None), Err(EngineError::InstancesOutOfRange { asked }));
        }
    }

    #[test]
    fn rooms_beyond_the_limit_on_addresses_are_refused_in_words() {
        let settings = EngineSettings { instances_max: 200, instances_spare: 56, ..EngineSettings::default() };
        let needed: u64 = (1 << 30) + 256 * ((4 << 20) + (64 << 10));
        assert_eq!(check_addresses(&settings, None), Ok(()));
        assert_eq!(check_addresses(&settings, Some(needed)), Ok(()));
        let error = check_addresses(&settings, Some(needed - 1)).unwrap_err();
        assert_eq!(error, EngineError::TooFewAddresses { asked: 200, needed_mib: 2_064, left_mib: 2_063 });
        assert!(error.to_string().contains("ulimit -v unlimited"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_under_a_real_limit_on_addresses_is_refused_and_not_aborted() {
        const LIMITED: &str = "HOLESHOT_TEST_LIMITED";
        if std::env::var_os(LIMITED).is_some() {
            let error = Engine::new(EngineSettings { instances_max: 400, ..EngineSettings::default() });
            assert!(matches!(error, Err(EngineError::TooFewAddresses { asked: 400, .. })), "{error:?}");
            return;
        }
        let test = "rules::engine::tests::a_process_under_a_real_limit_on_addresses_is_refused_and_not_aborted";
        // 2 GiB: enough for 400 slots and too little for the rest of a host.
        let output = std::process::Command::new("sh")
            .args(["-c", "ulimit -v 2097152; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--test-threads=1"])
            .env(LIMITED, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    #[test]
    fn fuel_follows_from_the_share_of_the_tick() {
        let settings = EngineSettings { tick_share_percent: 25, ..EngineSettings::default() };
        assert_eq!(settings.tick_fuel(50), 5_000 * FUEL_PER_US);
        assert_eq!(settings.tick_fuel(100), 2_500 * FUEL_PER_US);
        assert_eq!(EngineSettings { tick_fuel: Some(7), ..settings }.tick_fuel(50), 7);
    }

    #[test]
    fn the_watchdogs_thread_ends_with_its_engine() {
        let engine = Engine::new(EngineSettings { instances_max: 1, ..EngineSettings::default() }).unwrap();
        let inner = Arc::downgrade(&engine.inner);
        let other = engine.clone();
        drop(engine);
        assert!(inner.upgrade().is_some());
        // Joins the thread: this test hangs if it does not end.
        drop(other);
        assert!(inner.upgrade().is_none());
    }
}
