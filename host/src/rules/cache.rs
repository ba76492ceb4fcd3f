//! Compiled modules on disk. A file is native code that the host will run, so it is taken only from a folder that nobody else can write, and
//! only if its checksum is right; anything else is compiled again.

use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::module::ModuleHash;

/// Compiled modules that are kept; the ones that were not used for the longest time go first. A modder makes one per build.
const FILES_MAX: usize = 64;
/// Longest file that is read, in bytes: ten times the longest module.
const FILE_BYTES_MAX: u64 = 80 << 20;
const CHECKSUM_BYTES: usize = 32;
const EXTENSION: &str = "cwasm";

/// Why a folder is not used for compiled modules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// It cannot be made, or its permissions cannot be set.
    #[error("the folder {folder} for compiled modules cannot be used: {problem}; name another one, or run without")]
    Unusable {
        /// The folder.
        folder: String,
        /// What the system says.
        problem: String,
    },
    /// It belongs to somebody else, who could put code into it.
    #[error(
        "the folder {folder} for compiled modules belongs to another user, who could put code into this host; name another one"
    )]
    NotOurs {
        /// The folder.
        folder: String,
    },
}

#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    /// Hash of wasmtime's version, its settings and the processor: code compiled under another one is not found.
    environment: String,
}

impl Cache {
    pub(super) fn open(folder: PathBuf, engine: &wasmtime::Engine) -> Result<Self, CacheError> {
        let unusable = |error: std::io::Error| CacheError::Unusable {
            folder: folder.display().to_string(),
            problem: error.to_string(),
        };
        std::fs::create_dir_all(&folder).map_err(unusable)?;
        make_private(&folder)
            .map_err(unusable)?
            .then_some(())
            .ok_or_else(|| CacheError::NotOurs { folder: folder.display().to_string() })?;
        let mut hasher = StableHasher(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let environment = format!("{:016x}", hasher.finish());
        Ok(Self { folder, environment })
    }

    /// The compiled form of a module, if there is one that can be trusted.
    pub(super) fn read(&self, engine: &wasmtime::Engine, hash: &ModuleHash) -> Option<wasmtime::Module> {
        let path = self.path(hash);
        let mut bytes = Vec::new();
        let file = crate::files::open_regular(&path).ok()?;
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).ok()?;
        let sound = bytes.len() as u64 <= FILE_BYTES_MAX;
        let code = bytes.split_at_checked(CHECKSUM_BYTES).filter(|_| sound).and_then(|(checksum, code)| {
            // blake3's own comparison; there is no secret in it.
            (self.checksum(hash, code).as_slice() == checksum).then_some(code)
        });
        let Some(code) = code else {
            tracing::warn!(path = %path.display(), "a compiled module is damaged and will be compiled again");
            return None;
        };
        match deserialize(engine, code) {
            Ok(module) => {
                // For the order in which files go. A failure costs a compilation one day.
                let _ = std::fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                Some(module)
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a compiled module does not fit this host and will be compiled again");
                None
            }
        }
    }

    /// Keeps the compiled form of a module. A failure is logged: the next start compiles again.
    pub(super) fn write(&self, hash: &ModuleHash, module: &wasmtime::Module) {
        let path = self.path(hash);
        let result = module.serialize().map_err(|error| error.to_string()).and_then(|code| {
            self.write_file(&path, &self.checksum(hash, &code), &code).map_err(|error| error.to_string())
        });
        if let Err(problem) = result {
            tracing::warn!(path = %path.display(), problem, "a compiled module was not kept");
        }
        self.drop_oldest();
    }

    fn write_file(&self, path: &Path, checksum: &[u8; CHECKSUM_BYTES], code: &[u8]) -> std::io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let unique = COUNT.fetch_add(1, Ordering::Relaxed);
        // Renamed when it is whole, so that no reader and no crash sees half a file.
        let temporary = path.with_extension(format!("{}-{unique}.tmp", std::process::id()));
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        let written = file.write_all(checksum).and_then(|()| file.write_all(code));
        drop(file);
        let renamed = written.and_then(|()| std::fs::rename(&temporary, path));
        if renamed.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        renamed
    }

    fn drop_oldest(&self) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        let mut files: Vec<(SystemTime, PathBuf)> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION || extension == "tmp"))
            .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
            .collect();
        files.sort();
        for (_, path) in files.iter().take(files.len().saturating_sub(FILES_MAX)) {
            let _ = std::fs::remove_file(path);
        }
    }

    fn path(&self, hash: &ModuleHash) -> PathBuf {
        self.folder.join(format!("{hash}-{}.{EXTENSION}", self.environment))
    }

    /// Covers the file's name too: a renamed file is another module's code.
    fn checksum(&self, hash: &ModuleHash, code: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let mut hasher = blake3::Hasher::new_derive_key("holeshot compiled module 1");
        hasher.update(hash.as_bytes()).update(self.environment.as_bytes()).update(code);
        *hasher.finalize().as_bytes()
    }
}

#[allow(unsafe_code)]
fn deserialize(engine: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<wasmtime::Module> {
    // SAFETY: the bytes must be what `Module::serialize` gave. They come from a folder that only this user can write, where only this code writes,
    // and a checksum over name and content says that they are unchanged. Version and settings are checked by wasmtime.
    unsafe { wasmtime::Module::deserialize(engine, code) }
}

/// Closes a folder to everybody else; false if it is not ours to close.
#[cfg(unix)]
fn make_private(folder: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    // What we create is ours, so its owner is who we are. Only root gets past the line above without being the owner.
    let probe = folder.join(format!("{}-owner.tmp", std::process::id()));
    let file = std::fs::File::create(&probe)?;
    let ours = file.metadata()?.uid();
    let _ = std::fs::remove_file(&probe);
    Ok(folder.metadata()?.uid() == ours)
}

/// Folders of a user's profile are private already where there are no Unix permissions.
#[cfg(not(unix))]
fn make_private(_: &Path) -> std::io::Result<bool> {
    Ok(true)
}

/// A hash that is the same in every process and Rust release, for file names.
struct StableHasher(blake3::Hasher);

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = *self.0.finalize().as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}
