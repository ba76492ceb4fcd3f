//! Backups of a data folder: made while its host runs on, verified by reading them back, and restored whole or not at all. What people see of it is
//! in `cli`; what is in the files is their owners' business.
//!
//! # What a backup is
//!
//! A folder (mode 0700: the keys of the host and its admin token are in it) with copies of the data folder's files under their own names, and
//! a manifest, [`MANIFEST_FILE`], which is written last. While it is made it is called `<name>.part`, and has no manifest: what was not finished
//! cannot be taken for a backup.
//!
//! | file | what is copied |
//! | --- | --- |
//! | `identity.json`, `admin-token` | as they are; mode 0600 |
//! | `outbox.sqlite3`, `records.sqlite3` | one moment of each, by SQLite's online backup; not in WAL mode, so that reading makes no files beside |
//! | `modules.json`, `modules/<hash>.wasm` | as they are. Compiled forms are made again |
//! | `journals/closed/<room>.journal` | as they are |
//! | `journals/<room>.journal` | of rooms that were open: whole blocks, up to the last one that was all there |
//!
//! Not in it: the settings file, the files of `--module` and `--watch`, certificates. They are the operator's, and outside the data folder.
//!
//! The folder of a `holeshot manager` has records and nothing else, and is backed up like any other.
//!
//! # Why no event is missing
//!
//! Outbox and records are two files, and are copied one after the other: each copy is one moment of its file (a read transaction that is held from the
//! first page to the last, so that writers go on and the copy does not begin again with each write). **The outbox comes first.** An event leaves
//! the outbox only when it is committed in the records. So an event that was in the outbox or in the records when the backup began
//!
//! - is in the outbox's copy if it had not left the outbox by the first moment;
//! - is in the records' copy otherwise: it was committed before it left, and so before the second moment.
//!
//! What is in both is sent again after a restore and dropped by the manager, which knows it by origin and sequence. The other order would lose what was
//! committed and left the outbox between the two moments. With a manager elsewhere (`--broker`) the same holds for its records, which are not in this
//! backup: whatever had left the outbox is there.
//!
//! What happened after the first moment may be in the records' copy or not, as far as the manager had come: a room may be finished there, or open.
//! Rooms that are open there are reported as aborted (`host_lost`) at the next start, as those of a killed host are. An event that waited in the host's
//! memory for its commit at the first moment (milliseconds) is treated as one that came later.
//!
//! Journals are copied after the records. A journal that was closed before the outbox was copied, or that the records' copy knows as closed, stays
//! closed. One of a room that was open then is left as a killed host leaves it, for the next start to close and to tell. Rooms that
//! began after that and that the records' copy does not know are not in the backup. Modules are copied before the journals that need them, and once
//! more after them for those that came meanwhile.
//!
//! # After a restore
//!
//! Every start of a host is a new origin, so nothing that a restored host says has the name of something that was said before. A manager elsewhere that
//! has recorded later events of the old origin drops what the restored outbox sends again, and answers with a receipt beyond
//! the end of what is there; the outbox takes it as "all of this origin" and no more. What such a manager has of rooms after the backup stays.
//! A backup and its original must not run at the same time: both have the same name and keys.
//!
//! # The manifest
//!
//! A JSON object, see [`Manifest`]. The hashes find what a disk or a copy has changed. They are no signature: whoever can write into the backup can
//! write the manifest, too.

mod database;
mod files;
mod make;
mod manifest;
mod restore;

#[cfg(test)]
mod tests;

pub use database::{DatabaseError, Facts};
pub(crate) use database::{Kind, Reader};
pub use files::FileError;
pub use make::{BackupError, Made, Options, make};
pub use manifest::{FORMAT, FileEntry, MANIFEST_FILE, Manifest};
pub use restore::{RestoreError, Restored, restore};

use std::sync::atomic::{AtomicBool, Ordering};

/// What is being done, for people who wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Files are copied.
    Copying,
    /// The copy is read back.
    Verifying,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Bytes that are done.
    pub done_bytes: u64,
    /// Bytes in all, as far as is known: a running host's files grow.
    pub total_bytes: u64,
}

/// Tells how far a long work is, and asks whether it should end.
pub struct Watch<'a> {
    tell: &'a mut dyn FnMut(Progress),
    stop: &'a AtomicBool,
    now: Progress,
}

/// The work was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

impl<'a> Watch<'a> {
    /// A watch that calls `tell` for every few MiB, and ends the work once `stop` is set.
    pub fn new(tell: &'a mut dyn FnMut(Progress), stop: &'a AtomicBool) -> Self {
        Self { tell, stop, now: Progress { stage: Stage::Copying, done_bytes: 0, total_bytes: 0 } }
    }

    pub(crate) fn begin(&mut self, stage: Stage, total_bytes: u64) {
        self.now = Progress { stage, done_bytes: 0, total_bytes };
        (self.tell)(self.now);
    }

    pub(crate) fn add(&mut self, bytes: u64) -> Result<(), Stopped> {
        self.now.done_bytes = self.now.done_bytes.saturating_add(bytes);
        self.now.total_bytes = self.now.total_bytes.max(self.now.done_bytes);
        (self.tell)(self.now);
        if self.stop.load(Ordering::Acquire) { Err(Stopped) } else { Ok(()) }
    }
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("now", &self.now).finish_non_exhaustive()
    }
}
