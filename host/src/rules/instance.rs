//! A running instance: calls into the module with their budgets, and every span that comes back checked. After a fault the instance is gone.

use std::sync::Arc;
use std::time::Instant;

use holeshot_abi::{
    DESCRIPTION_BYTES_MAX, MEMORY_BYTES_MAX, OUTPUT_BYTES_MAX, REFUSAL_BYTES_MAX, STATE_BYTES_MAX, Setup,
    TABLE_ELEMENTS_MAX, names, unpack_span, write_restore,
};
use holeshot_room::{AskMany, Fault, FaultKind, LINE_BYTES, RestoreError, Rules, Usage};
use wasmtime::{
    InstancePre, Memory, PoolConcurrencyLimitError, Store, Trap, TypedFunc, WasmBacktrace, WasmParams, WasmResults,
};

use super::engine::epochs;
use super::error::InstantiateError;
use super::guest::{Guest, GuestName, LogOutside, readable, span};
use super::lines::{Lines, Look};
use super::{CALL_WATCHDOG_MS, DESCRIBE_FUEL, INIT_FUEL, RESTORE_FUEL, SAVE_FUEL, TICK_WATCHDOG_MS};

/// The least that is asked of `holeshot_buffer`, in bytes: a record of a few players, so that it is asked once and not for every action.
const BUFFER_BYTES_MIN: usize = 512;

/// Lines of a store that are asked for, from the first: what its end, where the guest's data is, leaves of wasmtime's own in front of it.
const STORE_LINES: [u32; 16] = lines();
/// Lines of an instance: what wasmtime has of its own in front of what it calls the tick by, or the nearest part of that.
const INSTANCE_LINES: [u32; 11] = lines();

/// Rules that run in WebAssembly: one instance, one room.
pub struct WasmRules {
    /// None after a fault: the state is half written, and no call may come near it again.
    live: Option<Live>,
    tick_fuel: u64,
    last_tick_fuel: u64,
    last_tick_ns: u64,
    /// The fault that ended it.
    ended_by: Option<Fault>,
    /// What its ticks come to in its memory.
    lines: Arc<Lines>,
    /// If that is found out with this instance.
    look: Option<Box<Look>>,
}

/// An instance that can be called.
pub(super) struct Live {
    store: Store<Guest>,
    instance: wasmtime::Instance,
    memory: Memory,
    buffer: TypedFunc<u32, u32>,
    tick: TypedFunc<u32, i64>,
    save: TypedFunc<(), i64>,
    buffer_address: u32,
    buffer_bytes: usize,
    /// Where the memory begins, which does not move: for [`Live::warm`] alone, which may be wrong.
    memory_at: usize,
    /// Likewise what wasmtime calls the tick by.
    tick_at: usize,
}

/// Fuel and watchdog of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) fuel: u64,
    pub(super) watchdog_ms: u64,
}

impl Budget {
    pub(super) const fn call(fuel: u64) -> Self {
        Self { fuel, watchdog_ms: CALL_WATCHDOG_MS }
    }
}

/// The distances of so many lines in a row.
#[allow(clippy::indexing_slicing, reason = "for constants, whose indices are checked by the compiler")]
const fn lines<const N: usize>() -> [u32; N] {
    let (mut lines, mut line) = ([0; N], 0);
    while line < N {
        lines[line] = (line * LINE_BYTES) as u32;
        line += 1;
    }
    lines
}

/// Why there is no instance.
#[derive(Debug)]
pub(super) enum StartError {
    Full,
    Fault(Fault),
}

impl std::fmt::Debug for WasmRules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WasmRules")
            .field("live", &self.live.is_some())
            .field("tick_fuel", &self.tick_fuel)
            .field("last_tick_fuel", &self.last_tick_fuel)
            .field("ended_by", &self.ended_by)
            .finish()
    }
}

impl WasmRules {
    /// Begins a room in a fresh instance.
    pub(super) fn begin(
        pre: &InstancePre<Guest>,
        name: GuestName,
        setup: &Setup,
        tick_fuel: u64,
        instances_max: u32,
        lines: Arc<Lines>,
    ) -> Result<Self, InstantiateError> {
        let mut record = Vec::new();
        setup.write(&mut record)?;
        let mut live = Live::start(pre, name, Budget::call(INIT_FUEL)).map_err(|error| match error {
            StartError::Full => InstantiateError::HostFull { instances_max },
            StartError::Fault(fault) => InstantiateError::Faulted(fault),
        })?;
        match live.ask(names::INIT, &record, Budget::call(INIT_FUEL)).map_err(InstantiateError::Faulted)? {
            None => {
                let look = lines.look();
                Ok(Self {
                    live: Some(live),
                    tick_fuel,
                    last_tick_fuel: 0,
                    last_tick_ns: 0,
                    ended_by: None,
                    lines,
                    look,
                })
            }
            Some(text) => Err(InstantiateError::Refused { text }),
        }
    }

    /// Fuel that a tick may use.
    #[must_use]
    pub const fn tick_fuel(&self) -> u64 {
        self.tick_fuel
    }

    /// Fuel that the last tick used; of the tick that faulted, what it had used by then.
    #[must_use]
    pub const fn last_tick_fuel(&self) -> u64 {
        self.last_tick_fuel
    }

    /// Bytes of memory that the module has now; 0 after a fault.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.live.as_ref().map_or(0, |live| live.memory.data_size(&live.store))
    }

    /// Lines of log that were dropped because a call wrote too many; 0 after a fault.
    #[must_use]
    pub fn log_lines_dropped(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.store.data().lines_dropped())
    }

    /// The state as JSON text, for people and tools. None when the module has no `holeshot_describe`.
    ///
    /// It must be the last call: to look at a room that goes on, save its state, restore that into a fresh instance of the module, and ask there.
    ///
    /// # Errors
    /// The module faulted, or what it returned is too long or no JSON. A room from which the state came is none the worse for it.
    pub fn describe(&mut self) -> Result<Option<String>, Fault> {
        let result = self.live()?.describe();
        result.map_err(|fault| self.end(fault))
    }

    fn live(&mut self) -> Result<&mut Live, Fault> {
        self.live.as_mut().ok_or_else(|| match &self.ended_by {
            Some(fault) => {
                Fault { message: format!("this instance ended earlier: {}", fault.message), ..fault.clone() }
            }
            None => Fault::new(FaultKind::Trap, "this instance ended earlier"),
        })
    }

    fn end(&mut self, fault: Fault) -> Fault {
        self.ended_by = Some(fault.clone());
        self.live = None;
        fault
    }
}

impl Rules for WasmRules {
    fn tick(&mut self, record: &[u8]) -> Result<&[u8], Fault> {
        let tick_fuel = self.tick_fuel;
        if let (Some(look), Some(live)) = (&mut self.look, &self.live) {
            look.before(live.memory.data(&live.store));
        }
        let live = self.live()?;
        let begun = Instant::now();
        let result = live.tick(record, tick_fuel);
        let took_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let used = tick_fuel.saturating_sub(live.store.get_fuel().unwrap_or(0));
        self.last_tick_fuel = used;
        self.last_tick_ns = took_ns;
        if let (Some(look), Some(live)) = (&mut self.look, &self.live)
            && !look.after(live.memory.data(&live.store))
        {
            self.look = None;
        }
        match result {
            // The span was checked, and nothing has run since.
            Ok((address, len)) => Ok(self
                .live
                .as_ref()
                .and_then(|live| span(live.memory.data(&live.store), address, len))
                .unwrap_or_default()),
            Err(fault) => Err(self.end(fault)),
        }
    }

    fn save(&mut self) -> Result<Vec<u8>, Fault> {
        let result = self.live()?.save();
        result.map_err(|fault| self.end(fault))
    }

    fn restore(&mut self, state_version: u32, state: &[u8]) -> Result<(), RestoreError> {
        let mut record = Vec::new();
        write_restore(state_version, state, &mut record);
        let live = self.live().map_err(RestoreError::Fault)?;
        match live.ask(names::RESTORE, &record, Budget::call(RESTORE_FUEL)) {
            Ok(None) => Ok(()),
            Ok(Some(text)) => Err(RestoreError::Refused(text)),
            Err(fault) => Err(RestoreError::Fault(self.end(fault))),
        }
    }

    fn warm_pages(&self, ask: AskMany) {
        if let Some(live) = &self.live {
            ask(live.memory_at(), self.lines.of_pages());
        }
    }

    fn warm(&self, ask: AskMany) {
        if let Some(live) = &self.live {
            live.warm(self.lines.of_rest(), ask);
        }
    }

    fn touch(&self) {
        if let Some(live) = &self.live {
            // Through the store and the instance, which wasmtime keeps to itself. Nobody needs it, which the compiler must not know.
            std::hint::black_box(live.memory.data_ptr(&live.store));
        }
    }

    fn usage(&self) -> Usage {
        Usage { fuel: self.last_tick_fuel, time_ns: self.last_tick_ns, memory_bytes: self.memory_bytes() }
    }
}

impl Live {
    /// Instantiates, runs the start function and `_initialize`.
    pub(super) fn start(pre: &InstancePre<Guest>, name: GuestName, budget: Budget) -> Result<Self, StartError> {
        let mut store = Store::new(pre.module().engine(), Guest::new(name));
        store.limiter(|guest| guest);
        if let Err(error) = arm(&mut store, budget) {
            return Err(StartError::Fault(error));
        }
        let instance = pre.instantiate(&mut store).map_err(|error| {
            if error.is::<PoolConcurrencyLimitError>() {
                StartError::Full
            } else {
                StartError::Fault(fault(&error, "the start function", store.data()))
            }
        })?;
        let exports = (|| {
            let memory = instance
                .get_memory(&mut store, names::MEMORY)
                .ok_or_else(|| wasmtime::Error::msg("no memory is exported"))?;
            let buffer = instance.get_typed_func(&mut store, names::BUFFER)?;
            let tick = instance.get_typed_func(&mut store, names::TICK)?;
            let save = instance.get_typed_func(&mut store, names::SAVE)?;
            Ok::<_, wasmtime::Error>((memory, buffer, tick, save))
        })();
        let (memory, buffer, tick, save) =
            exports.map_err(|error| StartError::Fault(fault(&error, "the exports", store.data())))?;
        store.data_mut().memory = Some(memory);
        let memory_at = memory.data_ptr(&store).addr();
        let tick_at = tick.func().to_raw(&mut store).addr();
        let mut live = Self {
            store,
            instance,
            memory,
            buffer,
            tick,
            save,
            buffer_address: 0,
            buffer_bytes: 0,
            memory_at,
            tick_at,
        };
        if live.instance.get_export(&mut live.store, names::INITIALIZE).is_some() {
            live.call_named::<(), ()>(names::INITIALIZE, (), budget).map_err(StartError::Fault)?;
        }
        Ok(live)
    }

    /// Calls an export that is called once in an instance's life.
    pub(super) fn call_named<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &'static str,
        params: P,
        budget: Budget,
    ) -> Result<R, Fault> {
        let func = self
            .instance
            .get_typed_func::<P, R>(&mut self.store, name)
            .map_err(|error| fault(&error, name, self.store.data()))?;
        call(&mut self.store, &func, name, params, budget)
    }

    /// The bytes of a span that the module returned.
    pub(super) fn bytes(&self, name: &'static str, returned: i64) -> Result<&[u8], Fault> {
        let (address, len) = unpack_span(returned);
        span(self.memory.data(&self.store), address, len).ok_or_else(|| self.bad_span(name, address, len))
    }

    fn tick(&mut self, record: &[u8], fuel: u64) -> Result<(u32, u32), Fault> {
        let budget = Budget { fuel, watchdog_ms: TICK_WATCHDOG_MS };
        let len = self.write_record(record, budget)?;
        let (address, len) = unpack_span(call(&mut self.store, &self.tick, names::TICK, len, budget)?);
        let memory = self.memory.data(&self.store);
        if len as usize > OUTPUT_BYTES_MAX || span(memory, address, len).is_none() {
            return Err(self.bad_output(names::TICK, address, len, OUTPUT_BYTES_MAX));
        }
        Ok((address, len))
    }

    fn save(&mut self) -> Result<Vec<u8>, Fault> {
        let returned = call(&mut self.store, &self.save, names::SAVE, (), Budget::call(SAVE_FUEL))?;
        let bytes = self.bytes(names::SAVE, returned)?;
        if bytes.len() > STATE_BYTES_MAX {
            let (address, len) = unpack_span(returned);
            return Err(self.bad_output(names::SAVE, address, len, STATE_BYTES_MAX));
        }
        Ok(bytes.to_vec())
    }

    fn describe(&mut self) -> Result<Option<String>, Fault> {
        if self.instance.get_export(&mut self.store, names::DESCRIBE).is_none() {
            return Ok(None);
        }
        let returned: i64 = self.call_named(names::DESCRIBE, (), Budget::call(DESCRIBE_FUEL))?;
        let bytes = self.bytes(names::DESCRIBE, returned)?;
        if bytes.len() > DESCRIPTION_BYTES_MAX {
            let (address, len) = unpack_span(returned);
            return Err(self.bad_output(names::DESCRIBE, address, len, DESCRIPTION_BYTES_MAX));
        }
        super::description(bytes).map(Some)
    }

    fn memory_at(&self) -> *const u8 {
        std::ptr::without_provenance(self.memory_at)
    }

    /// Asks for store and instance, and these lines of its memory.
    fn warm(&self, lines: &[u32], ask: AskMany) {
        let store = std::ptr::from_ref(self.store.data()).cast::<u8>();
        ask(store.wrapping_sub((STORE_LINES.len() - 1) * LINE_BYTES), &STORE_LINES);
        let tick = std::ptr::without_provenance::<u8>(self.tick_at);
        ask(tick.wrapping_sub((INSTANCE_LINES.len() - 1) * LINE_BYTES), &INSTANCE_LINES);
        ask(self.memory_at(), lines);
    }

    /// Hands over a record and takes the answer: nothing, or the text of a refusal.
    fn ask(&mut self, name: &'static str, record: &[u8], budget: Budget) -> Result<Option<String>, Fault> {
        let len = self.write_record(record, budget)?;
        let returned = self.call_named::<u32, i64>(name, len, budget)?;
        let text = self.bytes(name, returned)?;
        let text = text.get(..REFUSAL_BYTES_MAX).unwrap_or(text);
        Ok((!text.is_empty()).then(|| readable(text)))
    }

    /// Writes a record into the module's buffer, which is asked for when the one at hand is too short.
    fn write_record(&mut self, record: &[u8], budget: Budget) -> Result<u32, Fault> {
        if record.len() > self.buffer_bytes {
            self.ask_buffer(record.len(), budget)?;
        }
        let start = self.buffer_address as usize;
        // Checked when the buffer was asked for; a memory never shrinks.
        if let Some(target) = self.memory.data_mut(&mut self.store).get_mut(start..start + record.len()) {
            target.copy_from_slice(record);
        }
        Ok(record.len() as u32)
    }

    #[cold]
    fn ask_buffer(&mut self, len: usize, budget: Budget) -> Result<(), Fault> {
        // More than is needed, so that a few actions more do not ask again.
        let asked = len.next_power_of_two().max(BUFFER_BYTES_MIN);
        let wide =
            u32::try_from(asked).map_err(|_| Fault::new(FaultKind::BadSpan, format!("a record of {len} bytes")))?;
        self.buffer_bytes = 0;
        let address = call(&mut self.store, &self.buffer, names::BUFFER, wide, budget)?;
        let problem = if address == 0 {
            "which means that there is none"
        } else if !address.is_multiple_of(8) {
            "which is not a multiple of 8"
        } else if span(self.memory.data(&self.store), address, wide).is_none() {
            "which does not leave as many in memory"
        } else {
            self.buffer_address = address;
            self.buffer_bytes = asked;
            return Ok(());
        };
        let memory_bytes = self.memory.data_size(&self.store);
        Err(Fault::new(
            FaultKind::BadSpan,
            format!(
                "holeshot_buffer was asked for {asked} bytes and returned address {address}, {problem}; the memory has {memory_bytes} bytes"
            ),
        ))
    }

    #[cold]
    fn bad_span(&self, name: &str, address: u32, len: u32) -> Fault {
        let memory_bytes = self.memory.data_size(&self.store);
        Fault::new(
            FaultKind::BadSpan,
            format!(
                "{name} returned a span of {len} bytes at address {address}, outside the memory of {memory_bytes} bytes"
            ),
        )
    }

    #[cold]
    fn bad_output(&self, name: &str, address: u32, len: u32, bytes_max: usize) -> Fault {
        if len as usize > bytes_max && span(self.memory.data(&self.store), address, len).is_some() {
            return Fault::new(
                FaultKind::BadSpan,
                format!("{name} returned {len} bytes, at most {bytes_max} are taken"),
            );
        }
        self.bad_span(name, address, len)
    }
}

#[inline]
fn call<P: WasmParams, R: WasmResults>(
    store: &mut Store<Guest>,
    func: &TypedFunc<P, R>,
    name: &'static str,
    params: P,
    budget: Budget,
) -> Result<R, Fault> {
    arm(store, budget)?;
    func.call(&mut *store, params).map_err(|error| fault(&error, name, store.data()))
}

/// Gives a call its budget.
#[inline]
fn arm(store: &mut Store<Guest>, budget: Budget) -> Result<(), Fault> {
    store.data_mut().begin_call();
    store.set_epoch_deadline(epochs(budget.watchdog_ms));
    // Fails only if fuel is off in the engine's configuration.
    store.set_fuel(budget.fuel).map_err(|error| fault(&error, "the host", store.data()))
}

/// What a failed call was.
#[cold]
fn fault(error: &wasmtime::Error, call: &str, guest: &Guest) -> Fault {
    let trap = error.downcast_ref::<Trap>();
    let kind = match trap {
        Some(Trap::OutOfFuel) => FaultKind::FuelExhausted,
        Some(Trap::Interrupt) => FaultKind::DeadlineExceeded,
        Some(_) if guest.memory_refused() => FaultKind::MemoryExceeded,
        Some(_) => FaultKind::Trap,
        None if error.is::<LogOutside>() => FaultKind::BadSpan,
        None => FaultKind::Trap,
    };
    let cause = match trap {
        Some(Trap::OutOfFuel) => {
            "used more instructions than allowed (an endless loop, or too much work in one call)".into()
        }
        Some(Trap::Interrupt) => "took longer than the watchdog allows".into(),
        Some(trap) if guest.memory_refused() => {
            format!(
                "{trap}, after it was refused more memory than the {MEMORY_BYTES_MAX} bytes (and {TABLE_ELEMENTS_MAX} table elements) that an instance may have"
            )
        }
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    let message = match guest.last_error() {
        Some(line) => format!("{call}: {cause}; the last error it logged: {line}"),
        None => format!("{call}: {cause}"),
    };
    Fault { kind, message, backtrace: error.downcast_ref::<WasmBacktrace>().and_then(super::backtrace::text) }
}
