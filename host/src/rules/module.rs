//! Modules: from bytes to something that rooms can be begun with. The store keeps each module once.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use holeshot_abi::{LEADERBOARDS_SINCE, MANIFEST_BYTES_MAX, Manifest, Setup, abi_version_is_supported, names};
use serde::Deserialize;
use wasmtime::InstancePre;

use super::cache::{Cache, CacheError};
use super::engine::Engine;
use super::error::{InstantiateError, LoadError};
use super::guest::{Guest, GuestName, linker, readable};
use super::inspect::inspect;
use super::instance::{Budget, Live, StartError, WasmRules};
use super::lines::ModuleLines;
use super::{LOAD_FUEL, MODULE_BYTES_MAX};

/// Modules that a store loads at a time; each has an instance while it is asked for its manifest. One leaves the other cores to the shards.
pub const MODULES_LOADING_MAX: u32 = 1;

/// The name of a module: the BLAKE3 hash of its bytes. Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleHash([u8; 32]);

impl ModuleHash {
    /// The name of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The hash itself.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for ModuleHash {
    fn from(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl fmt::Display for ModuleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ModuleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ModuleHash {
    type Err = NotAModuleHash;

    fn from_str(text: &str) -> Result<Self, NotAModuleHash> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| NotAModuleHash)?;
        Ok(Self(*hash.as_bytes()))
    }
}

/// A text that is no [`ModuleHash`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a module is named by 64 hexadecimal digits, the BLAKE3 hash of its bytes")]
pub struct NotAModuleHash;

/// Where the code of a module came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was compiled.
    Compiled,
    /// Its compiled form was in the cache.
    Cache,
}

/// A module that rooms can be begun with.
pub struct Module {
    hash: ModuleHash,
    abi_version: u32,
    manifest: Manifest,
    name: Arc<str>,
    wasm_bytes: usize,
    origin: Origin,
    tick_fuel: u64,
    pre: InstancePre<Guest>,
    engine: Engine,
    lines: ModuleLines,
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module").field("hash", &self.hash).field("manifest", &self.manifest).finish_non_exhaustive()
    }
}

impl Module {
    /// Its name.
    #[must_use]
    pub const fn hash(&self) -> ModuleHash {
        self.hash
    }

    /// The version of the boundary that it was written for: major in the upper 16 bits, minor in the lower.
    #[must_use]
    pub const fn abi_version(&self) -> u32 {
        self.abi_version
    }

    /// What it says of itself; every field is in its range.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Length of its file, in bytes.
    #[must_use]
    pub const fn wasm_bytes(&self) -> usize {
        self.wasm_bytes
    }

    /// Where its code came from.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    /// The engine that it runs in.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Fuel that each tick of its rooms may use.
    #[must_use]
    pub const fn tick_fuel(&self) -> u64 {
        self.tick_fuel
    }

    /// Begins a room: a fresh instance, `_initialize`, `holeshot_init`. `room` is the room's name in the lines that the module logs.
    ///
    /// Takes from ten microseconds to what [`INIT_FUEL`](super::INIT_FUEL) allows; a shard may do it between ticks, a thread for it is better.
    ///
    /// # Errors
    /// The module refuses the setup, faults, or there is no instance left.
    pub fn instantiate(&self, setup: &Setup, room: &str) -> Result<WasmRules, InstantiateError> {
        let name = GuestName { module: self.name.clone(), hash: self.hash, room: room.into() };
        let lines = self.lines.of(setup.players.len());
        WasmRules::begin(&self.pre, name, setup, self.tick_fuel, self.engine.settings().instances_max, lines)
    }
}

/// Loads modules and keeps those in use, so that one file is compiled and held once.
#[derive(Debug)]
pub struct ModuleStore {
    engine: Engine,
    cache: Option<Cache>,
    loaded: Mutex<BTreeMap<ModuleHash, Weak<Module>>>,
    /// Held while a module compiles and is asked: see [`MODULES_LOADING_MAX`].
    loading: Mutex<()>,
}

impl ModuleStore {
    /// A store that keeps compiled modules in `cache_folder`, or keeps none.
    ///
    /// # Errors
    /// The folder cannot be made, or belongs to somebody else.
    pub fn new(engine: Engine, cache_folder: Option<PathBuf>) -> Result<Self, CacheError> {
        let cache = cache_folder.map(|folder| Cache::open(folder, engine.wasmtime())).transpose()?;
        Ok(Self { engine, cache, loaded: Mutex::default(), loading: Mutex::default() })
    }

    /// The engine that its modules run in.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// A module that is in use.
    #[must_use]
    pub fn get(&self, hash: &ModuleHash) -> Option<Arc<Module>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(hash)?.upgrade()
    }

    /// Loads a module from its bytes: at once if it is in use, in under a millisecond if its compiled form is cached, otherwise in about a
    /// second per megabyte. Blocks; not for a shard's thread.
    ///
    /// # Errors
    /// The bytes are no module that this host can run.
    pub fn load(&self, bytes: &[u8]) -> Result<Arc<Module>, LoadError> {
        let hash = ModuleHash::of(bytes);
        if let Some(module) = self.get(&hash) {
            return Ok(module);
        }
        inspect(bytes)?;
        // Nothing is left half done by a panic in here.
        let _one_at_a_time = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = self.get(&hash) {
            return Ok(module);
        }
        let module = Arc::new(self.build(bytes, hash)?);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.retain(|_, module| module.strong_count() > 0);
        loaded.insert(hash, Arc::downgrade(&module));
        Ok(module)
    }

    /// Loads a module from a file. Otherwise as [`load`](ModuleStore::load).
    ///
    /// # Errors
    /// The file cannot be read, or is no module that this host can run.
    pub fn load_file(&self, path: &Path) -> Result<Arc<Module>, LoadError> {
        let unreadable = |error: std::io::Error| LoadError::Unreadable {
            path: path.display().to_string(),
            problem: error.to_string(),
        };
        let file = crate::files::open_regular(path).map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(MODULE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        self.load(&bytes)
    }

    fn build(&self, bytes: &[u8], hash: ModuleHash) -> Result<Module, LoadError> {
        let engine = self.engine.wasmtime();
        let compile =
            |error: wasmtime::Error| LoadError::Compile { problem: readable(format!("{error:#}").as_bytes()) };
        let cached = self.cache.as_ref().and_then(|cache| cache.read(engine, &hash));
        let (module, origin) = match cached {
            Some(module) => (module, Origin::Cache),
            None => {
                let module = wasmtime::Module::from_binary(engine, bytes).map_err(compile)?;
                if let Some(cache) = &self.cache {
                    cache.write(&hash, &module);
                }
                (module, Origin::Compiled)
            }
        };
        let pre = linker(engine).and_then(|linker| linker.instantiate_pre(&module)).map_err(compile)?;
        let (abi_version, manifest) = self.ask_manifest(&pre, hash)?;
        let tick_fuel = self.engine.settings().tick_fuel(manifest.tick_hz);
        let name = manifest.name.as_str().into();
        Ok(Module {
            hash,
            abi_version,
            manifest,
            name,
            wasm_bytes: bytes.len(),
            origin,
            tick_fuel,
            pre,
            engine: self.engine.clone(),
            lines: ModuleLines::default(),
        })
    }

    fn ask_manifest(&self, pre: &InstancePre<Guest>, hash: ModuleHash) -> Result<(u32, Manifest), LoadError> {
        let budget = Budget::call(LOAD_FUEL);
        let name = GuestName { module: "".into(), hash, room: "".into() };
        let faulted = |fault| LoadError::Faulted { fault };
        let mut live = Live::start(pre, name, budget).map_err(|error| match error {
            StartError::Full => LoadError::HostFull { instances_max: self.engine.settings().instances_max },
            StartError::Fault(fault) => faulted(fault),
        })?;
        let found: u32 = live.call_named(names::ABI_VERSION, (), budget).map_err(faulted)?;
        if !abi_version_is_supported(found) {
            return Err(LoadError::AbiVersion { found });
        }
        let returned: i64 = live.call_named(names::MANIFEST, (), budget).map_err(faulted)?;
        Ok((found, parse_manifest(found, live.bytes(names::MANIFEST, returned).map_err(faulted)?)?))
    }
}

fn parse_manifest(abi_version: u32, bytes: &[u8]) -> Result<Manifest, LoadError> {
    if bytes.len() > MANIFEST_BYTES_MAX {
        return Err(LoadError::ManifestTooLong { found_bytes: bytes.len() });
    }
    let text =
        std::str::from_utf8(bytes).map_err(|error| LoadError::ManifestNotUtf8 { offset: error.valid_up_to() })?;
    let read = if abi_version < LEADERBOARDS_SINCE { read_before_1_2(text) } else { serde_json::from_str(text) };
    let manifest = read.map_err(|error| {
        let start: String = text.chars().take(60).collect();
        LoadError::ManifestNotJson {
            problem: readable(error.to_string().as_bytes()),
            start: if start.is_empty() { "(it is empty)".into() } else { readable(start.as_bytes()) },
        }
    })?;
    manifest.validate()?;
    Ok(manifest)
}

/// A manifest of a time when `leaderboards` was a field like any unknown one, whatever it holds.
fn read_before_1_2(text: &str) -> Result<Manifest, serde_json::Error> {
    let mut value: serde_json::Value = serde_json::from_str(text)?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("leaderboards");
    }
    Manifest::deserialize(value)
}
