//! The module's side of the boundary: [`Instance`] speaks records for any [`Rules`], in wasm behind the exports of [`export!`](crate::export!), natively
//! for tests and benchmarks. Nothing here knows a game.

use holeshot_abi::{OutputWriter, Setup, TickReader, read_restore};

use crate::rules::{Action, Change, Output, PlayerTick, Rules, Tick};

/// One room of rules `R`, spoken to in records.
///
/// The order of calls is that of the boundary: `init`, then optionally `restore`, then `tick` per frame, `save` between any two; `describe` last.
pub struct Instance<R: Rules> {
    rules: Option<R>,
    players: Vec<PlayerTick<R::Input>>,
    changes: Vec<Change>,
    output: OutputWriter,
    saved: Vec<u8>,
    refusal: String,
    finished: bool,
}

impl<R: Rules> core::fmt::Debug for Instance<R> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Instance").field("begun", &self.rules.is_some()).field("finished", &self.finished).finish()
    }
}

impl<R: Rules> Default for Instance<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: Rules> Instance<R> {
    /// An instance that has no room yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            rules: None,
            players: Vec::new(),
            changes: Vec::new(),
            output: OutputWriter::new(),
            saved: Vec::new(),
            refusal: String::new(),
            finished: false,
        }
    }

    /// Begins a room from a setup record.
    ///
    /// # Errors
    /// The refusal, for the person who made the setup.
    pub fn init(&mut self, record: &[u8]) -> Result<(), String> {
        let setup = Setup::read(record).map_err(|malformed| malformed.to_string())?;
        let manifest = R::manifest();
        let players = setup.players.len();
        if !(usize::from(manifest.players_min)..=usize::from(manifest.players_max)).contains(&players) {
            return Err(format!(
                "{} takes {} to {} players, not {players}",
                manifest.name, manifest.players_min, manifest.players_max
            ));
        }
        self.rules = Some(R::new(&setup)?);
        self.players.clear();
        self.players.resize(players, PlayerTick::default());
        self.finished = false;
        Ok(())
    }

    /// Steps the game with a tick record; the result is an output record.
    ///
    /// # Panics
    /// If the record is malformed, or the calls are out of order: the host is then broken, and a trap is the only honest answer.
    pub fn tick(&mut self, record: &[u8]) -> &[u8] {
        let reader = match TickReader::read(record) {
            Ok(reader) => reader,
            Err(malformed) => panic!("{malformed}"),
        };
        let Some(rules) = &mut self.rules else { panic!("a tick before init") };
        assert!(!self.finished, "a tick after the game finished");
        assert!(
            reader.players() == self.players.len(),
            "a tick with {} players, init had {}",
            reader.players(),
            self.players.len()
        );
        for (player, given) in self.players.iter_mut().zip(reader.inputs()) {
            player.status = given.status;
            player.age_frames = given.age_frames;
            match given.status {
                holeshot_abi::InputStatus::Absent => player.input = R::Input::default(),
                // A repeated input is decoded again, so that the tick depends on the record alone.
                _ => match postcard::from_bytes(given.bytes) {
                    Ok(input) => player.input = input,
                    // Bytes that are no input are a player's doing: it gets what a silent player gets.
                    Err(_) => *player = PlayerTick::default(),
                },
            }
        }
        self.changes.clear();
        self.changes.extend(reader.changes());
        let actions: Vec<Action<'_>> = reader.actions().collect();
        self.output.begin();
        let tick = Tick { frame: reader.frame, players: &self.players, changes: &self.changes, actions: &actions };
        rules.tick(&tick, &mut Output::new(&mut self.output, &mut self.finished));
        self.output.finish()
    }

    /// The state: what serde derives, as postcard, with canonical NaNs.
    ///
    /// # Panics
    /// Before `init`, or if the state cannot be serialised.
    pub fn save(&mut self) -> &[u8] {
        let Some(rules) = &self.rules else { panic!("a save before init") };
        self.saved.clear();
        self.saved.push(u8::from(self.finished));
        if let Err(error) = crate::canonical::to_postcard(rules, &mut self.saved) {
            panic!("the state cannot be serialised: {error}");
        }
        &self.saved
    }

    /// Takes over the state of a restore record.
    ///
    /// # Errors
    /// Why the state is refused; the room is then as it was.
    pub fn restore(&mut self, record: &[u8]) -> Result<(), String> {
        let (state_version, state) = read_restore(record).map_err(|malformed| malformed.to_string())?;
        let Some(rules) = &mut self.rules else { return Err("a restore before init".into()) };
        let Some((&finished, state)) = state.split_first() else { return Err("the state is empty".into()) };
        if state_version == R::manifest().state_version {
            *rules = read_state(state).map_err(|problem| format!("version {state_version}: {problem}"))?;
        } else {
            rules.migrate(state_version, state)?;
        }
        self.finished = finished != 0;
        Ok(())
    }

    /// The state as JSON text for people: what serde derives. A float that is no number is `"NaN"`, `"inf"` or `"-inf"`.
    ///
    /// # Panics
    /// Before `init`, or if the state cannot be JSON: a map whose keys are neither text, numbers nor enums without fields.
    #[cold]
    pub fn describe(&mut self) -> &[u8] {
        let Some(rules) = &self.rules else { panic!("a description before init") };
        // The buffer of saved states: what was saved before is not asked for any more.
        self.saved.clear();
        if let Err(error) = serde_json::to_writer(&mut self.saved, &crate::canonical::Canonical(rules)) {
            panic!("the state cannot be described as JSON: {error}");
        }
        &self.saved
    }

    /// The rules, once a room has begun.
    #[must_use]
    pub const fn rules(&self) -> Option<&R> {
        self.rules.as_ref()
    }

    /// Whether the game has finished.
    #[must_use]
    pub const fn finished(&self) -> bool {
        self.finished
    }

    /// Remembers a refusal so that its text outlives the call that made it. Empty when there is none.
    fn answer(&mut self, result: Result<(), String>) -> &[u8] {
        self.refusal.clear();
        if let Err(text) = result {
            // A refusal without words is still a refusal: an empty span would say yes.
            self.refusal.push_str(if text.is_empty() { "refused without a reason" } else { &text });
        }
        self.refusal.as_bytes()
    }
}

/// Reads what serde derived for a type as postcard, which is how a state of it was saved: for [`Rules::migrate`].
///
/// # Errors
/// The bytes are no such state, or go on after it.
pub fn read_state<T: serde::de::DeserializeOwned>(state: &[u8]) -> Result<T, String> {
    let (restored, rest) =
        postcard::take_from_bytes(state).map_err(|error| format!("the state cannot be read: {error}"))?;
    if rest.is_empty() { Ok(restored) } else { Err(format!("{} bytes follow the state", rest.len())) }
}

/// What the exports call: an [`Instance`] with the buffer that the host writes to.
#[doc(hidden)]
#[derive(Debug)]
pub struct Module<R: Rules> {
    instance: Instance<R>,
    // u64 for the alignment that the boundary promises.
    buffer: Vec<u64>,
    manifest: String,
}

impl<R: Rules> Default for Module<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: Rules> Module<R> {
    #[must_use]
    pub const fn new() -> Self {
        Self { instance: Instance::new(), buffer: Vec::new(), manifest: String::new() }
    }

    pub fn manifest(&mut self) -> &[u8] {
        self.manifest = match serde_json::to_string(&R::manifest()) {
            Ok(json) => json,
            Err(error) => panic!("the manifest cannot be serialised: {error}"),
        };
        self.manifest.as_bytes()
    }

    pub fn buffer(&mut self, len: usize) -> *mut u64 {
        self.buffer.clear();
        self.buffer.resize(len.div_ceil(8), 0);
        self.buffer.as_mut_ptr()
    }

    pub fn init(&mut self, len: usize) -> &[u8] {
        let result = self.instance.init(record(&self.buffer, len));
        self.instance.answer(result)
    }

    pub fn tick(&mut self, len: usize) -> &[u8] {
        self.instance.tick(record(&self.buffer, len))
    }

    pub fn save(&mut self) -> &[u8] {
        self.instance.save()
    }

    pub fn describe(&mut self) -> &[u8] {
        self.instance.describe()
    }

    pub fn restore(&mut self, len: usize) -> &[u8] {
        let result = self.instance.restore(record(&self.buffer, len));
        self.instance.answer(result)
    }
}

fn record(buffer: &[u64], len: usize) -> &[u8] {
    let bytes = bytes_of(buffer);
    assert!(len <= bytes.len(), "a record of {len} bytes in a buffer of {}", bytes.len());
    &bytes[..len]
}

#[allow(unsafe_code)]
fn bytes_of(words: &[u64]) -> &[u8] {
    // SAFETY: the bytes of initialised u64s are initialised, a u8 needs no alignment, and the length in bytes is that of the slice.
    unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

#[cfg(target_arch = "wasm32")]
pub use wasm::ModuleCell;
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::host_log;

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod wasm {
    //! The parts that only a wasm build has.

    use core::cell::UnsafeCell;

    use super::Module;
    use crate::rules::Rules;

    #[link(wasm_import_module = "holeshot")]
    unsafe extern "C" {
        fn log(level: i32, address: *const u8, len: usize);
    }

    pub(crate) fn host_log(level: i32, text: &str) {
        // SAFETY: the host reads `len` bytes at `address` before it returns, and both are those of `text`.
        unsafe { log(level, text.as_ptr(), text.len()) }
    }

    /// Lets the message and place of a panic reach the host's log before the trap.
    fn log_panics() {
        static SET: std::sync::Once = std::sync::Once::new();
        SET.call_once(|| std::panic::set_hook(Box::new(|panic| host_log(1, &panic.to_string()))));
    }

    /// The one module of a wasm instance.
    #[doc(hidden)]
    pub struct ModuleCell<R: Rules>(UnsafeCell<Module<R>>);

    // SAFETY: the boundary has one thread and one call at a time; the module has no threads feature.
    unsafe impl<R: Rules> Sync for ModuleCell<R> {}

    impl<R: Rules> Default for ModuleCell<R> {
        fn default() -> Self {
            Self::new()
        }
    }

    impl<R: Rules> ModuleCell<R> {
        /// A module that has no room yet.
        #[must_use]
        pub const fn new() -> Self {
            Self(UnsafeCell::new(Module::new()))
        }

        /// Runs one call of the host. The span that comes back is that of bytes the module keeps until the next call.
        pub fn call<'a>(&'a self, call: impl FnOnce(&'a mut Module<R>) -> &'a [u8]) -> i64 {
            log_panics();
            // SAFETY: calls do not nest (the only import does not call back), so this is the only reference.
            let bytes = call(unsafe { &mut *self.0.get() });
            holeshot_abi::pack_span(bytes.as_ptr() as u32, bytes.len() as u32)
        }

        /// `holeshot_buffer`.
        pub fn buffer(&self, len: usize) -> u32 {
            log_panics();
            // SAFETY: as in `call`.
            unsafe { &mut *self.0.get() }.buffer(len) as u32
        }
    }
}

/// Exports a type that implements [`Rules`] as the rules of this module. Once per crate.
#[macro_export]
macro_rules! export {
    ($rules:ty) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)] // an exported symbol name is an unsafe attribute; there is no other unsafe code in here
        mod holeshot_exports {
            use super::*;

            static MODULE: $crate::export::ModuleCell<$rules> = $crate::export::ModuleCell::new();

            #[unsafe(no_mangle)]
            extern "C" fn holeshot_abi_version() -> u32 {
                $crate::export::ABI_VERSION
            }
            #[unsafe(no_mangle)]
            extern "C" fn holeshot_manifest() -> i64 {
                MODULE.call(|module| module.manifest())
            }
            #[unsafe(no_mangle)]
            extern "C" fn holeshot_buffer(len: usize) -> u32 {
                MODULE.buffer(len)
            }
            #[unsafe(no_mangle)]
            extern "C" fn holeshot_init(len: usize) -> i64 {
                MODULE.call(|module| module.init(len))
            }
            #[unsafe(no_mangle)]
            extern "C" fn holeshot_tick(len: usize) -> i64 {
                MODULE.call(|module| module.tick(len))
            }
            #[unsafe(no_mangle)]
            extern "C" fn holeshot_save() -> i64 {
                MODULE.call(|module| module.save())
            }
            #[unsafe(no_mangle)]
            extern "C" fn holeshot_restore(len: usize) -> i64 {
                MODULE.call(|module| module.restore(len))
            }
            #[unsafe(no_mangle)]
            extern "C" fn holeshot_describe() -> i64 {
                MODULE.call(|module| module.describe())
            }
        }
    };
}

pub use holeshot_abi::ABI_VERSION;
