//! Where journals are on disk. Names and lists only; what is in the files is `holeshot_room`'s, who writes them is in `writer`.
//!
//! ```text
//! <data folder>/journals/<room>.journal          written at the moment, or left by a host that was killed
//! <data folder>/journals/closed/<room>.journal   never written again
//! <data folder>/modules/<hash>.wasm              the modules that they need
//! ```

use std::fs::DirEntry;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use holeshot_room::RoomConfig;

/// Folder of the journals in the data folder.
pub const JOURNALS_FOLDER: &str = "journals";
/// Folder of those that are closed, in that folder.
pub(crate) const CLOSED_FOLDER: &str = "closed";
/// How their files' names end.
pub const JOURNAL_EXTENSION: &str = "journal";

/// The folder of the journals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    running: PathBuf,
    closed: PathBuf,
}

/// A journal's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) room: String,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// When it was written last.
    pub(crate) modified: SystemTime,
}

impl Folder {
    /// The folder of the journals in a data folder.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        let running = data_dir.join(JOURNALS_FOLDER);
        Self { closed: running.join(CLOSED_FOLDER), running }
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.running
    }

    /// Makes both folders.
    pub(super) fn make(&self) -> io::Result<()> {
        std::fs::create_dir_all(&self.closed)
    }

    /// Where a room's journal is written. The id must be one that [`is_file_name`] accepts.
    pub(super) fn running(&self, room: &str) -> PathBuf {
        self.running.join(format!("{room}.{JOURNAL_EXTENSION}"))
    }

    /// Where it goes then.
    pub(super) fn closed(&self, room: &str) -> PathBuf {
        self.closed.join(format!("{room}.{JOURNAL_EXTENSION}"))
    }

    /// The file of a room's journal, if there is one, running or closed.
    #[must_use]
    pub fn find(&self, room: &str) -> Option<PathBuf> {
        if !is_file_name(room) {
            return None;
        }
        // A link may lead anywhere, and whoever reaches the API may read a journal.
        let is_file = |path: &PathBuf| path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
        // In this order: a journal that is closed in between is found in the second place.
        [self.running(room), self.closed(room)].into_iter().find(is_file)
    }

    /// Ids of the rooms that have a journal here, sorted.
    #[must_use]
    pub fn rooms(&self) -> Vec<String> {
        let names = [&self.running, &self.closed].into_iter().filter_map(|folder| names(folder).ok());
        let mut rooms: Vec<String> = names.flatten().map(|(room, _)| room).collect();
        rooms.sort();
        rooms.dedup();
        rooms
    }

    /// Those that are written, or were left.
    pub(crate) fn list_running(&self) -> io::Result<Vec<Entry>> {
        list(&self.running)
    }

    /// Those that are closed.
    pub(crate) fn list_closed(&self) -> io::Result<Vec<Entry>> {
        list(&self.closed)
    }
}

/// Whether a room's id is safe as a part of a file's name: 1 to 64 letters, digits, `-` and `_`.
#[must_use]
pub fn is_file_name(room: &str) -> bool {
    (1..=RoomConfig::ID_BYTES_MAX).contains(&room.len())
        && room.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn names(folder: &Path) -> io::Result<impl Iterator<Item = (String, DirEntry)>> {
    let name = |entry: DirEntry| {
        let path = entry.path();
        let is_journal = path.extension().is_some_and(|extension| extension == JOURNAL_EXTENSION);
        let room = path.file_stem()?.to_str()?.to_owned();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        (is_file && is_journal && is_file_name(&room)).then_some((room, entry))
    };
    Ok(std::fs::read_dir(folder)?.filter_map(Result::ok).filter_map(name))
}

fn list(folder: &Path) -> io::Result<Vec<Entry>> {
    let entry = |(room, entry): (String, DirEntry)| {
        // One that is gone by now needs no entry.
        let metadata = entry.metadata().ok()?;
        Some(Entry { room, path: entry.path(), bytes: metadata.len(), modified: metadata.modified().ok()? })
    };
    Ok(names(folder)?.filter_map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_leads_out_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::of(dir.path());
        folder.make().unwrap();
        std::fs::write(dir.path().join("secret.journal"), "").unwrap();
        std::fs::write(folder.closed("r-1"), "").unwrap();
        for bad in ["", "../secret", "..", "a/b", "a\\b", "a.b", "a\0b", "ä", &"x".repeat(65)] {
            assert!(!is_file_name(bad), "{bad:?}");
            assert_eq!(folder.find(bad), None, "{bad:?}");
        }
        assert_eq!(folder.find("r-1"), Some(folder.closed("r-1")));
        assert_eq!(folder.find("r-2"), None);
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(dir.path().join("secret.journal"), folder.closed("r-2")).unwrap();
            assert_eq!(folder.find("r-2"), None, "nor does a link");
        }
    }

    #[test]
    fn lists_name_journals_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::of(dir.path());
        assert!(folder.rooms().is_empty() && folder.list_closed().is_err());
        folder.make().unwrap();
        std::fs::write(folder.running("a"), "12").unwrap();
        std::fs::write(folder.closed("b"), "123").unwrap();
        std::fs::write(folder.path().join("notes.txt"), "").unwrap();
        std::fs::write(folder.path().join("a b.journal"), "").unwrap();
        std::fs::create_dir(folder.path().join("c.journal")).unwrap();
        let names = |entries: Vec<Entry>| entries.into_iter().map(|e| (e.room, e.bytes)).collect::<Vec<_>>();
        assert_eq!(names(folder.list_running().unwrap()), [("a".to_owned(), 2)]);
        assert_eq!(names(folder.list_closed().unwrap()), [("b".to_owned(), 3)]);
        assert_eq!(folder.rooms(), ["a", "b"]);
    }
}
