//! Files that are there whole or not at all: written beside their place, brought to the disk, then renamed. And files that
//! one process holds at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Who may read a file that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Whom the system's defaults allow.
    Usual,
    /// Its owner alone (mode 0600), where the system has such a thing.
    Owner,
}

/// Opens a file to read it, and never waits: what is no regular file is refused. Whoever opens a pipe waits until somebody opens its other end, so a
/// file that is looked at again and again would never be looked at any more.
///
/// # Errors
/// What the system says; that it is no regular file.
pub(crate) fn open_regular(path: &Path) -> std::io::Result<File> {
    // Before it is opened: opening is what waits.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    File::open(path)
}

/// Whether a file that is not there, or a regular one, is in a place where a program that cannot be told not to wait is about to open one (SQLite).
///
/// # Errors
/// What the system says; that it is no regular file, with its path.
pub(crate) fn check_regular(path: &Path) -> std::io::Result<()> {
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            Err(std::io::Error::other(format!("{} is not a regular file; move it away", path.display())))
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The same for an SQLite database and the files that SQLite keeps beside it.
///
/// # Errors
/// As [`check_regular`].
pub(crate) fn check_database(path: &Path) -> std::io::Result<()> {
    let beside = ["-wal", "-shm", "-journal"].map(|suffix| {
        let mut name = path.as_os_str().to_os_string();
        name.push(suffix);
        PathBuf::from(name)
    });
    beside.iter().try_for_each(|path| check_regular(path))?;
    check_regular(path)
}

/// Why a text file was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TextError {
    /// What the system says.
    #[error("it cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// It is longer than anything that belongs there.
    #[error("it has more than {0} bytes")]
    TooLong(u64),
    /// The byte that is wrong.
    #[error("it is not UTF-8 text: byte {0} is wrong")]
    NotText(usize),
}

/// Reads a text of at most so many bytes that a person names: a pipe is as good as a file there.
///
/// # Errors
/// Why it is not read.
pub(crate) fn read_text(path: &Path, bytes_max: u64) -> Result<String, TextError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(TextError::TooLong(bytes_max));
    }
    String::from_utf8(bytes).map_err(|error| TextError::NotText(error.utf8_error().valid_up_to()))
}

/// Writes a file so that a crash leaves the one before or the new one, and never half of one.
///
/// # Errors
/// What the system says. What was there before is untouched then.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], readers: Readers) -> std::io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut beside_name = name.to_os_string();
    // The process and a number: neither another host nor another thread writes the same file beside.
    beside_name.push(format!(".{}-{}.part", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    let beside = path.with_file_name(beside_name);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if readers == Readers::Owner {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    let written = options.open(&beside).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    let renamed = written.and_then(|()| std::fs::rename(&beside, path));
    if renamed.is_err() {
        let _not_there = std::fs::remove_file(&beside);
        return renamed;
    }
    sync_folder(path);
    Ok(())
}

/// Why a file is not held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LockError {
    /// It cannot be opened.
    #[error("cannot open {path}: {reason}; the data folder must be writable")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// Another process, or another part of this one, holds it.
    #[error("{path} is held by another process")]
    Held {
        /// The file.
        path: PathBuf,
    },
}

/// Holds a file, which is made if need be, until the result is dropped or the process ends in whatever way.
///
/// # Errors
/// [`LockError`].
pub(crate) fn hold(path: PathBuf) -> Result<File, LockError> {
    let opened =
        check_regular(&path).and_then(|()| File::options().create(true).truncate(false).write(true).open(&path));
    let file = match opened {
        Ok(file) => file,
        Err(error) => return Err(LockError::Unusable { path, reason: error.to_string() }),
    };
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LockError::Held { path }),
        // A file system without locks: two processes on one folder are then the operator's affair.
        Err(TryLockError::Error(error)) => {
            tracing::warn!(%error, path = %path.display(), "the data folder cannot be locked; make sure that nobody else uses it");
            Ok(file)
        }
    }
}

/// Whether some process holds a file, without making it or holding it for longer than it takes to ask. None if that cannot be told.
pub(crate) fn is_held(path: &Path) -> Option<bool> {
    let file = match open_regular(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some(false),
        Err(_) => return None,
    };
    match file.try_lock_shared() {
        Ok(()) => Some(false),
        Err(TryLockError::WouldBlock) => Some(true),
        Err(TryLockError::Error(_)) => None,
    }
}

/// Brings the new name to the disk. Where a folder cannot be opened as a file (Windows), the file system sees to it.
fn sync_folder(path: &Path) {
    if let Some(folder) = path.parent() {
        let _no_such_thing = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn what_would_be_waited_for_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (file, pipe) = (dir.path().join("file"), dir.path().join("pipe"));
        std::fs::write(&file, b"text").unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(open_regular(&file).is_ok());
        assert!(check_database(&file).is_ok() && check_database(&dir.path().join("absent")).is_ok());
        let beside = dir.path().join("absent-wal");
        std::fs::rename(&pipe, &beside).unwrap();
        let error = check_database(&dir.path().join("absent")).unwrap_err().to_string();
        assert!(error.contains("absent-wal is not a regular file"), "{error}");
        std::fs::rename(&beside, &pipe).unwrap();
        assert!(check_database(&pipe).is_err() && is_held(&pipe).is_none());
        assert!(matches!(hold(pipe.clone()), Err(LockError::Unusable { .. })));
        for other in [pipe.as_path(), dir.path(), Path::new("/dev/zero")] {
            let error = open_regular(other).unwrap_err().to_string();
            assert!(error.contains("not a regular file"), "{}: {error}", other.display());
        }
        assert_eq!(open_regular(&dir.path().join("absent")).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.json");
        for bytes in [&b"one"[..], b"", b"two"] {
            write_whole(&path, bytes, Readers::Usual).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        // A folder stands in the place: the rename fails, and the file beside goes.
        let blocked = dir.path().join("blocked");
        std::fs::create_dir(&blocked).unwrap();
        std::fs::write(blocked.join("inside"), "").unwrap();
        write_whole(&blocked, b"three", Readers::Usual).unwrap_err();
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}
