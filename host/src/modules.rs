//! The rules modules that rooms of this host can have: one for each name, replaceable while the host runs. Every module that was loaded is kept on disk
//! by its hash, so that the journal of a room can be replayed under the rules that it had. Running rooms are the business of
//! [`crate::swap`]; compiling is that of [`crate::rules`].
//!
//! # Who wins at a start
//!
//! For each name, the strongest of these that there is:
//!
//! 1. the file of a `--module` flag: what the operator says at this start;
//! 2. what the name was last set to by a request (`PUT /api/modules/{name}`, `holeshot swap`), remembered in [`CHOSEN_FILE`], unless it failed in
//!    every room (see [`crate::swap`]);
//! 3. the module that ships inside the binary: two names have one.
//!
//! A flag is good for its start only: it neither changes nor deletes what is remembered. A file of `--watch` replaces any of them as soon as it
//! is there, and is not remembered: the file itself is the memory.
//!
//! # On disk
//!
//! `<data folder>/modules/<hash>.wasm` is a module's file, byte by byte; its name is the BLAKE3 hash of its bytes in 64 hexadecimal digits. A file whose
//! bytes have another hash is named in the log and not used. It goes when no name, no room and no journal needs it any more, which
//! [`crate::journal`] looks after. Compiled forms (`.cwasm`) lie beside it and belong to [`crate::rules`].
//!
//! `<data folder>/modules.json` is one JSON object, from the name to what it was set to: `{"drag-race": {"hash": "…", "set_ms": 1795262640000}}`. It is
//! a file and not a table of the records: those belong to the manager, which may run on another machine.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::clock::unix_ms;
use crate::files::{Readers, write_whole};
use crate::rooms::ModuleName;
use crate::rules::{LoadError, MODULE_BYTES_MAX, Module, ModuleHash, ModuleStore, SHIPPED};

/// Folder of the data folder in which modules are kept, as they came and compiled.
pub const MODULES_FOLDER: &str = "modules";
/// File of the data folder that says what names were last set to by a request.
pub const CHOSEN_FILE: &str = "modules.json";
/// Names that modules may have at a time. Each holds a compiled module in memory; a host has a handful of games.
pub const NAMES_MAX: usize = 256;
/// Longest [`CHOSEN_FILE`] that is read, in bytes: [`NAMES_MAX`] entries, several times over.
const CHOSEN_BYTES_MAX: u64 = 256 << 10;
const EXTENSION: &str = "wasm";

/// Why a name has the module that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// It is inside the binary.
    Shipped,
    /// A `--module` flag of this start.
    Flag,
    /// A request set it, in this run or in an earlier one.
    Set,
    /// A `--watch` flag of this start.
    Watched,
}

/// What new rooms that ask for a name get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoadedModule {
    /// Name, version and hash.
    #[serde(flatten)]
    pub module: ModuleName,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Why it is this one.
    pub source: Source,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

/// A module on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptModule {
    /// BLAKE3 of the file, as its name says; the bytes are checked when they are read.
    pub hash: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// When it was last loaded, in milliseconds since 1970.
    pub loaded_ms: u64,
}

/// A module that was just loaded.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The module.
    pub module: Arc<Module>,
    /// How long loading took, in microseconds: reading, checking, compiling.
    pub load_us: u64,
}

/// Why a module cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModulesError {
    /// It is no module that this host can run.
    #[error("{0}")]
    Load(#[from] LoadError),
    /// The disk does not take it.
    #[error(
        "cannot write {path}: {reason}. Modules are kept so that rooms can be replayed; check that the data folder is writable and its disk not full"
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// Every name is taken.
    #[error("the host has modules under {NAMES_MAX} names already; replace one of them")]
    TooManyNames,
}

/// Why the file of a module is not to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeptError {
    /// It is not kept, or not any more.
    #[error("the module {hash} is not in {folder}; give its file with --module")]
    NotKept {
        /// Its hash.
        hash: String,
        /// The folder.
        folder: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The file has other bytes than its name says.
    #[error("{path} is damaged: its bytes have the hash {found}. It is not used; delete it, and load the module again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The hash of what is there.
        found: String,
    },
}

/// The modules kept in a data folder, by hash. Needs no host: `holeshot replay` reads them too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptModules {
    folder: PathBuf,
}

impl KeptModules {
    /// Those of a data folder; it need not be there.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self { folder: data_dir.join(MODULES_FOLDER) }
    }

    /// The bytes of a module, checked against its hash. Blocks.
    ///
    /// # Errors
    /// See [`KeptError`].
    pub fn read(&self, hash: &ModuleHash) -> Result<Vec<u8>, KeptError> {
        let path = self.path(hash);
        let file = crate::files::open_regular(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => KeptError::NotKept { hash: hash.to_string(), folder: self.folder.clone() },
            _ => KeptError::Unreadable { path: path.clone(), reason: error.to_string() },
        })?;
        let mut bytes = Vec::new();
        file.take(MODULE_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| KeptError::Unreadable { path: path.clone(), reason: error.to_string() })?;
        let found = ModuleHash::of(&bytes);
        if found == *hash { Ok(bytes) } else { Err(KeptError::Damaged { path, found: found.to_string() }) }
    }

    /// What is there, the one that was loaded last first. Files with other names are not ours and not listed. Blocks.
    #[must_use]
    pub fn list(&self) -> Vec<KeptModule> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let ours = |entry: std::fs::DirEntry| {
            let path = entry.path();
            let hash: ModuleHash = path.file_stem()?.to_str()?.parse().ok()?;
            let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
            let loaded = metadata.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            let loaded_ms = u64::try_from(loaded.as_millis()).unwrap_or(u64::MAX);
            let kept = KeptModule { hash: hash.to_string(), bytes: metadata.len(), loaded_ms };
            (path.extension()? == EXTENSION).then_some(kept)
        };
        let mut kept: Vec<KeptModule> = entries.filter_map(Result::ok).filter_map(ours).collect();
        kept.sort_by(|a, b| b.loaded_ms.cmp(&a.loaded_ms).then_with(|| a.hash.cmp(&b.hash)));
        kept
    }

    /// Deletes a module that nothing needs any more. Blocks.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn delete(&self, hash: &ModuleHash) -> std::io::Result<()> {
        std::fs::remove_file(self.path(hash))
    }

    /// Keeps a module. One that is there already is only noted as loaded now; one that is there with other bytes is written anew.
    fn keep(&self, hash: &ModuleHash, bytes: &[u8]) -> Result<(), ModulesError> {
        let path = self.path(hash);
        match self.read(hash) {
            Ok(_) => {
                // For the order in which files go.
                let _older = std::fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                return Ok(());
            }
            Err(KeptError::NotKept { .. }) => {}
            Err(error) => tracing::warn!(%error, "a kept module is written anew"),
        }
        std::fs::create_dir_all(&self.folder)
            .and_then(|()| write_whole(&path, bytes, Readers::Usual))
            .map_err(|error| ModulesError::Unwritable { path, reason: error.to_string() })
    }

    fn path(&self, hash: &ModuleHash) -> PathBuf {
        self.folder.join(format!("{hash}.{EXTENSION}"))
    }
}

/// The modules of a running host.
#[derive(Debug)]
pub struct Modules {
    store: ModuleStore,
    kept: KeptModules,
    chosen_path: PathBuf,
    names: Mutex<BTreeMap<String, Current>>,
    /// What is in the file. Its own lock: it is held while the file is written.
    chosen: Mutex<BTreeMap<String, Chosen>>,
}

/// What a name had before it was set.
#[derive(Debug, Clone)]
pub struct Former {
    current: Option<Current>,
    /// What was remembered, which need not be what it had.
    chosen: Option<Chosen>,
}

#[derive(Debug, Clone)]
struct Current {
    module: Arc<Module>,
    source: Source,
    since_ms: u64,
}

/// An entry of [`CHOSEN_FILE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chosen {
    hash: String,
    set_ms: u64,
}

impl Modules {
    /// The modules of a data folder, without any name yet. What is remembered is read here; a file that cannot be read is named in the log, and
    /// nothing is remembered then.
    #[must_use]
    pub fn open(store: ModuleStore, data_dir: &Path) -> Self {
        let chosen_path = data_dir.join(CHOSEN_FILE);
        let chosen = read_chosen(&chosen_path).unwrap_or_else(|problem| {
            tracing::warn!(path = %chosen_path.display(), problem, "which modules were set is not known; names have what ships or what flags say");
            BTreeMap::new()
        });
        Self {
            store,
            kept: KeptModules::of(data_dir),
            chosen_path,
            names: Mutex::default(),
            chosen: Mutex::new(chosen),
        }
    }

    /// Fills the names as the module's documentation says who wins. `flags` are the files of `--module`. Blocks.
    ///
    /// # Errors
    /// A file of a flag is no module, or two have the same name; the text names the file. A remembered module that cannot be used is
    /// logged, and the next weaker one is taken.
    pub fn start(&self, flags: &[PathBuf]) -> anyhow::Result<()> {
        use anyhow::Context as _;
        for bytes in SHIPPED {
            let shipped =
                self.load(bytes).context("a rules module that this binary was built with cannot be loaded")?;
            self.put(&shipped.module, Source::Shipped, unix_ms())?;
        }
        let remembered = self.lock_chosen().clone();
        for (name, chosen) in remembered {
            match self.load_chosen(&name, &chosen) {
                Ok(module) => self.put(&module, Source::Set, chosen.set_ms)?,
                Err(problem) => {
                    tracing::warn!(
                        module = name,
                        hash = chosen.hash,
                        problem,
                        "the module that this name was set to cannot be used"
                    );
                }
            }
        }
        let mut named = std::collections::BTreeSet::new();
        for path in flags {
            let failed = || format!("the rules module {} cannot be loaded", path.display());
            let bytes = read_module_file(path).with_context(failed)?;
            let module = self.load(&bytes).with_context(failed)?.module;
            let name = &module.manifest().name;
            if !named.insert(name.clone()) {
                anyhow::bail!(
                    "two modules are named {name}; the second is {}. A room asks for a module by its manifest's name",
                    path.display()
                );
            }
            self.put(&module, Source::Flag, unix_ms())?;
        }
        Ok(())
    }

    /// Loads a module from its bytes and keeps them. No name has it yet. Blocks, for seconds if it has to be compiled.
    ///
    /// # Errors
    /// The bytes are no module that this host can run, or the disk does not take them.
    pub fn load(&self, bytes: &[u8]) -> Result<Loaded, ModulesError> {
        let begun = Instant::now();
        let module = self.store.load(bytes)?;
        let load_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.kept.keep(&module.hash(), bytes)?;
        Ok(Loaded { module, load_us })
    }

    /// Gives a module to its name: new rooms get it from now on. If a request asked for it, that is remembered over a restart. Gives what the name
    /// had, for [`put_back`](Self::put_back). Blocks.
    ///
    /// # Errors
    /// [`ModulesError::TooManyNames`], or [`ModulesError::Unwritable`] if it cannot be remembered: the name keeps what it has then.
    pub fn set(&self, module: &Arc<Module>, source: Source) -> Result<Former, ModulesError> {
        let (name, now_ms) = (&module.manifest().name, unix_ms());
        // Held to the end, so that of two who set a name at once the same one is remembered and in force.
        let mut chosen = self.lock_chosen();
        if !self.has_place(name) {
            return Err(ModulesError::TooManyNames);
        }
        let former = Former { current: self.lock().get(name).cloned(), chosen: chosen.get(name).cloned() };
        if source == Source::Set {
            // A name of an earlier run that no flag brought back is as good a place as any.
            if chosen.len() >= NAMES_MAX && !chosen.contains_key(name) {
                return Err(ModulesError::TooManyNames);
            }
            let entry = Chosen { hash: module.hash().to_string(), set_ms: now_ms };
            self.remember(&mut chosen, name, Some(entry))?;
        }
        self.put(module, source, now_ms)?;
        Ok(former)
    }

    /// Gives a name back what it had before `failed`, also over a restart. False if it has another module by now, or had none. Blocks.
    ///
    /// # Errors
    /// [`ModulesError::Unwritable`]: nothing has changed.
    pub fn put_back(&self, failed: &ModuleHash, former: &Former) -> Result<bool, ModulesError> {
        let mut chosen = self.lock_chosen();
        let Some(current) = &former.current else { return Ok(false) };
        let name = &current.module.manifest().name;
        if self.lock().get(name).is_none_or(|now| now.module.hash() != *failed) {
            return Ok(false);
        }
        if chosen.get(name) != former.chosen.as_ref() {
            self.remember(&mut chosen, name, former.chosen.clone())?;
        }
        self.lock().insert(name.clone(), current.clone());
        Ok(true)
    }

    /// The module of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Module>> {
        self.lock().get(name).map(|current| Arc::clone(&current.module))
    }

    /// The names there are.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// What each name has, by name.
    #[must_use]
    pub fn loaded(&self) -> Vec<LoadedModule> {
        let of = |current: &Current| LoadedModule {
            module: ModuleName::of(&current.module),
            bytes: current.module.wasm_bytes() as u64,
            source: current.source,
            since_ms: current.since_ms,
        };
        self.lock().values().map(of).collect()
    }

    /// Each name's module itself, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Module>> {
        self.lock().values().map(|current| Arc::clone(&current.module)).collect()
    }

    /// The modules on disk.
    #[must_use]
    pub const fn kept(&self) -> &KeptModules {
        &self.kept
    }

    /// What compiles and holds the modules.
    #[must_use]
    pub const fn store(&self) -> &ModuleStore {
        &self.store
    }

    /// Whether a name, an open room or what is remembered for a name needs this module.
    #[must_use]
    pub fn is_in_use(&self, hash: &ModuleHash) -> bool {
        self.store.get(hash).is_some() || self.is_chosen(hash)
    }

    fn load_chosen(&self, name: &str, chosen: &Chosen) -> Result<Arc<Module>, String> {
        let hash: ModuleHash = chosen.hash.parse().map_err(|error| format!("{error}"))?;
        let bytes = self.kept.read(&hash).map_err(|error| error.to_string())?;
        let module = self.load(&bytes).map_err(|error| error.to_string())?.module;
        let found = &module.manifest().name;
        if found == name { Ok(module) } else { Err(format!("its manifest has another name, {found:?}")) }
    }

    /// Writes what a name is set to; none: that it is not set.
    fn remember(
        &self,
        chosen: &mut BTreeMap<String, Chosen>,
        name: &str,
        entry: Option<Chosen>,
    ) -> Result<(), ModulesError> {
        let mut next = chosen.clone();
        match entry {
            Some(entry) => drop(next.insert(name.to_owned(), entry)),
            None => drop(next.remove(name)),
        }
        let unwritable = |reason| ModulesError::Unwritable { path: self.chosen_path.clone(), reason };
        let text = serde_json::to_string_pretty(&next).map_err(|error| unwritable(error.to_string()))?;
        write_whole(&self.chosen_path, text.as_bytes(), Readers::Usual)
            .map_err(|error| unwritable(error.to_string()))?;
        *chosen = next;
        Ok(())
    }

    fn put(&self, module: &Arc<Module>, source: Source, since_ms: u64) -> Result<(), ModulesError> {
        let name = &module.manifest().name;
        let mut names = self.lock();
        if names.len() >= NAMES_MAX && !names.contains_key(name) {
            return Err(ModulesError::TooManyNames);
        }
        names.insert(name.clone(), Current { module: Arc::clone(module), source, since_ms });
        Ok(())
    }

    fn has_place(&self, name: &str) -> bool {
        let names = self.lock();
        names.len() < NAMES_MAX || names.contains_key(name)
    }

    fn is_chosen(&self, hash: &ModuleHash) -> bool {
        let hash = hash.to_string();
        self.lock_chosen().values().any(|chosen| chosen.hash == hash)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Current>> {
        // The map is never left half changed, so a thread that panicked while it held the lock spoilt nothing.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_chosen(&self) -> MutexGuard<'_, BTreeMap<String, Chosen>> {
        // Replaced whole; likewise.
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a file that should be a module; of a longer one, a byte more than is taken.
///
/// # Errors
/// [`LoadError::Unreadable`].
pub fn read_module_file(path: &Path) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    crate::files::open_regular(path)
        .and_then(|file| file.take(MODULE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| LoadError::Unreadable { path: path.display().to_string(), problem: error.to_string() })?;
    Ok(bytes)
}

fn read_chosen(path: &Path) -> Result<BTreeMap<String, Chosen>, String> {
    let file = match crate::files::open_regular(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.to_string()),
    };
    let mut bytes = Vec::new();
    file.take(CHOSEN_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > CHOSEN_BYTES_MAX {
        return Err(format!("it has more than {CHOSEN_BYTES_MAX} bytes"));
    }
    let chosen: BTreeMap<String, Chosen> = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if chosen.len() > NAMES_MAX {
        return Err(format!("it has {} names, more than {NAMES_MAX}", chosen.len()));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{ARENA_WASM, DRAG_RACE_WASM, Engine, EngineSettings};

    fn modules(data_dir: &Path) -> Modules {
        let engine = Engine::new(EngineSettings { instances_max: 2, ..EngineSettings::default() }).unwrap();
        Modules::open(ModuleStore::new(engine, Some(data_dir.join(MODULES_FOLDER))).unwrap(), data_dir)
    }

    /// The drag race under another hash: a custom section at its end.
    fn other_build(text: &str) -> Vec<u8> {
        let mut bytes = DRAG_RACE_WASM.to_vec();
        let name = b"build";
        bytes.extend([0, u8::try_from(1 + name.len() + text.len()).unwrap(), u8::try_from(name.len()).unwrap()]);
        bytes.extend(name);
        bytes.extend(text.as_bytes());
        bytes
    }

    fn hash_of(modules: &Modules) -> String {
        modules.get("drag-race").unwrap().hash().to_string()
    }

    #[test]
    fn the_default_module_may_be_replaced_once_by_flags() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, DRAG_RACE_WASM).unwrap();
            path
        };
        let (first, second) = (file("first.wasm"), file("second.wasm"));
        let modules = modules(dir.path());
        modules.start(std::slice::from_ref(&first)).unwrap();
        let loaded = modules.loaded();
        let names: Vec<_> = loaded.iter().map(|loaded| (loaded.module.name.as_str(), loaded.source)).collect();
        assert_eq!(names, [("arena", Source::Shipped), ("drag-race", Source::Flag)]);
        assert_eq!(loaded[0].module.hash, ModuleHash::of(ARENA_WASM).to_string());
        let message = modules.start(&[first, second]).unwrap_err().to_string();
        assert!(message.contains("two modules are named drag-race") && message.contains("second.wasm"), "{message}");
        let none = dir.path().join("none.wasm");
        let message = format!("{:#}", modules.start(&[none]).unwrap_err());
        assert!(message.contains("none.wasm"), "{message}");
    }

    #[test]
    fn a_set_name_is_remembered_and_a_flag_is_stronger() {
        let dir = tempfile::tempdir().unwrap();
        let (set, flag) = (other_build("set"), other_build("flag"));
        let path = dir.path().join("flag.wasm");
        std::fs::write(&path, &flag).unwrap();
        let first = modules(dir.path());
        first.start(&[]).unwrap();
        assert_eq!(hash_of(&first), ModuleHash::of(DRAG_RACE_WASM).to_string());
        let loaded = first.load(&set).unwrap();
        assert_eq!(hash_of(&first), ModuleHash::of(DRAG_RACE_WASM).to_string(), "loading sets nothing");
        first.set(&loaded.module, Source::Set).unwrap();
        assert_eq!(hash_of(&first), ModuleHash::of(&set).to_string());
        // Watched ones are not remembered.
        first.set(&first.load(&flag).unwrap().module, Source::Watched).unwrap();
        assert_eq!(hash_of(&first), ModuleHash::of(&flag).to_string());
        drop(first);

        let again = modules(dir.path());
        again.start(&[]).unwrap();
        assert_eq!(hash_of(&again), ModuleHash::of(&set).to_string());
        assert_eq!(again.loaded()[1].source, Source::Set);
        let flagged = modules(dir.path());
        flagged.start(&[path]).unwrap();
        assert_eq!(hash_of(&flagged), ModuleHash::of(&flag).to_string());
        // The flag was for that start.
        let last = modules(dir.path());
        last.start(&[]).unwrap();
        assert_eq!(hash_of(&last), ModuleHash::of(&set).to_string());
    }

    #[test]
    fn a_name_gets_back_what_it_had_unless_it_was_set_again() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two, three] = ["one", "two", "three"].map(other_build);
        let modules = modules(dir.path());
        modules.start(&[]).unwrap();
        let load = |wasm: &[u8]| modules.load(wasm).unwrap().module;
        let chosen = || std::fs::read_to_string(dir.path().join(CHOSEN_FILE)).unwrap();
        let shipped = modules.loaded();
        // Back to what ships: nothing is remembered any more.
        let before_one = modules.set(&load(&one), Source::Set).unwrap();
        assert!(modules.put_back(&ModuleHash::of(&one), &before_one).unwrap());
        assert_eq!((modules.loaded(), chosen().as_str()), (shipped, "{}"));
        // Back to what was set, with the time at which it was.
        modules.set(&load(&one), Source::Set).unwrap();
        let (loaded, remembered) = (modules.loaded(), chosen());
        let before_two = modules.set(&load(&two), Source::Set).unwrap();
        assert!(chosen().contains(&ModuleHash::of(&two).to_string()));
        assert!(modules.put_back(&ModuleHash::of(&two), &before_two).unwrap());
        assert_eq!((modules.loaded(), chosen()), (loaded, remembered.clone()));
        // A watched one was never remembered.
        let before_three = modules.set(&load(&three), Source::Watched).unwrap();
        assert!(modules.put_back(&ModuleHash::of(&three), &before_three).unwrap());
        assert_eq!((hash_of(&modules), chosen()), (ModuleHash::of(&one).to_string(), remembered));
        // Set again meanwhile, the name keeps what it has.
        let before_two = modules.set(&load(&two), Source::Set).unwrap();
        modules.set(&load(&three), Source::Set).unwrap();
        assert!(!modules.put_back(&ModuleHash::of(&two), &before_two).unwrap());
        assert_eq!(hash_of(&modules), ModuleHash::of(&three).to_string());
        drop(modules);
        let again = super::tests::modules(dir.path());
        again.start(&[]).unwrap();
        assert_eq!(hash_of(&again), ModuleHash::of(&three).to_string());
    }

    #[test]
    fn what_cannot_be_remembered_or_read_falls_back_to_what_ships() {
        let dir = tempfile::tempdir().unwrap();
        let set = other_build("set");
        let hash = ModuleHash::of(&set);
        let shipped = ModuleHash::of(DRAG_RACE_WASM).to_string();
        let first = modules(dir.path());
        first.set(&first.load(&set).unwrap().module, Source::Set).unwrap();
        drop(first);
        let kept = KeptModules::of(dir.path());
        assert_eq!(kept.read(&hash).unwrap(), set);
        // The file has other bytes than its name says.
        std::fs::write(kept.path(&hash), &set[..set.len() - 1]).unwrap();
        assert!(matches!(kept.read(&hash), Err(KeptError::Damaged { .. })));
        let damaged = modules(dir.path());
        damaged.start(&[]).unwrap();
        assert_eq!(hash_of(&damaged), shipped);
        // Loading it again mends the file.
        damaged.load(&set).unwrap();
        assert_eq!(kept.read(&hash).unwrap(), set);
        std::fs::remove_file(kept.path(&hash)).unwrap();
        assert!(matches!(kept.read(&hash), Err(KeptError::NotKept { .. })));
        for text in ["", "{", "[]", "{\"drag-race\":{}}", "{\"drag-race\":{\"hash\":\"no\",\"set_ms\":1}}"] {
            std::fs::write(dir.path().join(CHOSEN_FILE), text).unwrap();
            let bad = modules(dir.path());
            bad.start(&[]).unwrap();
            assert_eq!(hash_of(&bad), shipped, "{text}");
        }
    }

    #[test]
    fn files_that_are_not_ours_are_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = KeptModules::of(dir.path());
        assert!(kept.list().is_empty());
        let bytes: Vec<Vec<u8>> = (0..8_u64).map(|n| n.to_le_bytes().to_vec()).collect();
        for (n, bytes) in bytes.iter().enumerate() {
            kept.keep(&ModuleHash::of(bytes), bytes).unwrap();
            let file = std::fs::File::open(kept.path(&ModuleHash::of(bytes))).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000 + n as u64)).unwrap();
        }
        std::fs::write(kept.folder.join("notes.wasm"), "mine").unwrap();
        std::fs::write(kept.folder.join(format!("{}.cwasm", ModuleHash::of(b"x"))), "compiled").unwrap();
        assert_eq!(kept.list().len(), 8);
        assert_eq!(kept.list()[0].hash, ModuleHash::of(bytes.last().unwrap()).to_string());
        kept.delete(&ModuleHash::of(&bytes[0])).unwrap();
        assert_eq!(kept.list().len(), 7);
        assert!(kept.folder.join("notes.wasm").exists());
    }

    #[test]
    fn a_folder_that_takes_no_files_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let modules = modules(dir.path());
        let module = modules.load(DRAG_RACE_WASM).unwrap().module;
        std::fs::create_dir(dir.path().join(CHOSEN_FILE)).unwrap();
        std::fs::write(dir.path().join(CHOSEN_FILE).join("inside"), "").unwrap();
        let error = modules.set(&module, Source::Set).unwrap_err();
        assert!(matches!(error, ModulesError::Unwritable { .. }), "{error}");
        assert!(modules.get("drag-race").is_none(), "what is not remembered is not set");
    }
}
