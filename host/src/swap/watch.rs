//! Watched files: a rules module that is built again and again takes over in running rooms as soon as it is whole. Looks at size and time, since
//! every file system has these and a build may replace the file or write over it; what to do with a module is the business of
//! [`super::service`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;

use super::{SwapError, SwapRequest, Swaps, Target};
use crate::modules::{Source, read_module_file};
use crate::rules::ModuleHash;

/// How often a file is looked at, in milliseconds, and how long it must not have changed before it is read: a linker writes a module in much less.
pub(crate) const LOOK_EVERY_MS: u64 = 250;

/// What a look at a file tells.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// Nothing that was not seen before, or nothing that has settled yet.
    Nothing,
    /// It is not there; told once.
    Missing,
    /// It cannot be read; told once for each reason.
    Unreadable(String),
    /// It has settled, and was not seen before.
    Module(Vec<u8>, ModuleHash),
}

/// A file that is watched.
#[derive(Debug)]
pub(crate) struct Watched {
    path: PathBuf,
    /// Size and time at the last look.
    last: Option<(u64, SystemTime)>,
    /// Those under which it was read.
    read: Option<(u64, SystemTime)>,
    /// The module that was tried last: the same bytes again are no news, whatever their time says.
    tried: Option<ModuleHash>,
    is_missing: bool,
    problem: Option<String>,
}

impl Watched {
    /// A file; it need not be there yet.
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path, last: None, read: None, tried: None, is_missing: false, problem: None }
    }

    /// Looks at the file twice, so that rooms opened right after the start have its rules if it is there. Then keeps looking until it is aborted.
    pub(crate) async fn start(mut self, swaps: Arc<Swaps>) -> Option<tokio::task::JoinHandle<()>> {
        tracing::info!(path = %self.path.display(), "watching this file: whenever it changes, its rules take over in open rooms and in new ones");
        for look in 0..2 {
            if look > 0 && self.last.is_some() {
                tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
            }
            self = self.once(&swaps).await?;
        }
        Some(tokio::spawn(async move {
            let mut watched = self;
            loop {
                tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
                match watched.once(&swaps).await {
                    Some(next) => watched = next,
                    None => return,
                }
            }
        }))
    }

    /// One look and what follows from it. None if the runtime is ending.
    async fn once(self, swaps: &Arc<Swaps>) -> Option<Self> {
        let mut watched = self;
        let (mut watched, seen) = spawn_blocking(move || {
            let seen = watched.look();
            (watched, seen)
        })
        .await
        .ok()?;
        let path = watched.path.display().to_string();
        match seen {
            Seen::Nothing => {}
            Seen::Missing => tracing::info!(path, "the watched file is not there (yet); waiting for it"),
            Seen::Unreadable(problem) => tracing::warn!(path, problem, "the watched file cannot be read; trying again"),
            Seen::Module(wasm, hash) => {
                tracing::info!(path, hash = %hash, "the watched file has new rules; compiling and trying them");
                let request = SwapRequest { wasm, name: None, target: Target::All, source: Source::Watched };
                match swaps.swap(request).await {
                    // What became of each room is logged where it is decided.
                    Ok(_) => {}
                    Err(SwapError::Busy) => watched.forget(),
                    Err(error) => {
                        tracing::warn!(path, "the new rules are not used, every room keeps those it has: {error}");
                    }
                }
            }
        }
        Some(watched)
    }

    /// Tries the same bytes once more.
    fn forget(&mut self) {
        (self.read, self.tried) = (None, None);
    }

    fn look(&mut self) -> Seen {
        let now = match size_and_time(&self.path) {
            Ok(now) => now,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                (self.last, self.read, self.problem) = (None, None, None);
                return if std::mem::replace(&mut self.is_missing, true) { Seen::Nothing } else { Seen::Missing };
            }
            Err(error) => return self.unreadable(error.to_string()),
        };
        self.is_missing = false;
        let has_settled = self.last.replace(now) == Some(now);
        // An empty file is one that is about to be written.
        if !has_settled || self.read == Some(now) || now.0 == 0 {
            return Seen::Nothing;
        }
        let bytes = match read_module_file(&self.path) {
            Ok(bytes) => bytes,
            Err(error) => return self.unreadable(error.to_string()),
        };
        // Written to while it was read.
        if size_and_time(&self.path).ok() != Some(now) {
            return Seen::Nothing;
        }
        (self.read, self.problem) = (Some(now), None);
        let hash = ModuleHash::of(&bytes);
        if self.tried.replace(hash) == Some(hash) { Seen::Nothing } else { Seen::Module(bytes, hash) }
    }

    fn unreadable(&mut self, problem: String) -> Seen {
        self.last = None;
        if self.problem.as_ref() == Some(&problem) {
            return Seen::Nothing;
        }
        self.problem = Some(problem.clone());
        Seen::Unreadable(problem)
    }
}

fn size_and_time(path: &Path) -> std::io::Result<(u64, SystemTime)> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    Ok((metadata.len(), metadata.modified()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn write(path: &Path, bytes: &[u8], at_s: u64) {
        std::fs::write(path, bytes).unwrap();
        std::fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(UNIX_EPOCH + Duration::from_secs(at_s))
            .unwrap();
    }

    fn module(bytes: &[u8]) -> Seen {
        Seen::Module(bytes.to_vec(), ModuleHash::of(bytes))
    }

    #[test]
    fn a_file_is_read_once_it_has_settled_and_the_same_bytes_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules.wasm");
        let mut watched = Watched::new(path.clone());
        assert_eq!([watched.look(), watched.look()], [Seen::Missing, Seen::Nothing]);
        // Being written: it changes from look to look.
        write(&path, b"", 100);
        assert_eq!([watched.look(), watched.look()], [Seen::Nothing, Seen::Nothing]);
        write(&path, b"\0as", 100);
        assert_eq!(watched.look(), Seen::Nothing);
        write(&path, b"\0asm one", 100);
        assert_eq!(watched.look(), Seen::Nothing);
        assert_eq!([watched.look(), watched.look()], [module(b"\0asm one"), Seen::Nothing]);
        // Of the same length: the time tells.
        write(&path, b"\0asm two", 101);
        assert_eq!([watched.look(), watched.look()], [Seen::Nothing, module(b"\0asm two")]);
        // Touched, or deleted and made again, but the same.
        write(&path, b"\0asm two", 102);
        assert_eq!([watched.look(), watched.look()], [Seen::Nothing, Seen::Nothing]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!([watched.look(), watched.look()], [Seen::Missing, Seen::Nothing]);
        write(&path, b"\0asm two", 103);
        assert_eq!([watched.look(), watched.look(), watched.look()], [Seen::Nothing, Seen::Nothing, Seen::Nothing]);
        // Back to the one before: that is news again.
        write(&path, b"\0asm one", 104);
        assert_eq!([watched.look(), watched.look()], [Seen::Nothing, module(b"\0asm one")]);
        watched.forget();
        assert_eq!([watched.look(), watched.look()], [module(b"\0asm one"), Seen::Nothing]);
    }

    #[test]
    fn what_cannot_be_read_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules.wasm");
        std::fs::create_dir(&path).unwrap();
        let mut watched = Watched::new(path.clone());
        assert!(matches!(watched.look(), Seen::Unreadable(_)));
        assert_eq!(watched.look(), Seen::Nothing);
        std::fs::remove_dir(&path).unwrap();
        write(&path, b"\0asm one", 100);
        assert_eq!([watched.look(), watched.look()], [Seen::Nothing, module(b"\0asm one")]);
    }
}
