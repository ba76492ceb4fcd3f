//! The thread that keeps the folder: closes what a killed host left, deletes journals that are too old or too many, and modules that no
//! journal and no name needs any more. Apart from the one that writes, so that a folder of a hundred thousand files makes nothing wait.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use holeshot_room::journal::JournalError;

use super::folder::Entry;
use super::read::ReadError;
use super::writer::tell;
use super::{Desk, JournalState};
use crate::clock::unix_ms;
use crate::events::EventSink;
use crate::modules::{KeptModule, KeptModules};
use crate::rules::ModuleHash;

/// How often the folder is looked through, in seconds.
const LOOK_EVERY_S: u64 = 600;
/// It is looked through no more often than this, in seconds, when running journals alone are above the bound.
const LOOK_PAUSE_S: u64 = 10;
/// A module that was touched within this time, in seconds, is kept: a room may begin with it at this moment, or a modder tries it again.
const MODULE_KEPT_S: u64 = 86_400;
/// Kept modules. A modder makes one per build: these are some weeks of work. Of more, those that nothing needs go at once, the one that was not
/// loaded for the longest time first. What a journal needs stays as long as the journal, and is told if it is too much.
pub(super) const MODULES_KEPT_MAX: usize = 1_024;
/// Bytes of all kept modules together, with the same outcome.
pub(super) const MODULES_KEPT_BYTES_MAX: u64 = 1 << 30;
const SECONDS_PER_DAY: u64 = 86_400;
/// How long one journal of an earlier start waits for its event to be on the disk, in milliseconds.
const TOLD_WAIT_MAX_MS: u64 = 2_000;

/// How long journals are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Days from when a journal was written last; 0 keeps none.
    pub days: u32,
    /// Bytes of all journals together. The oldest go first; those of open rooms count and stay.
    pub bytes_max: u64,
}

/// Says whether a name or an open room needs a module.
pub type ModulesInUse = Box<dyn Fn(&ModuleHash) -> bool + Send>;

/// The handle of the thread.
#[derive(Debug)]
pub(super) struct Keeper {
    poke: SyncSender<()>,
    /// Dropped to end the thread after the pass it is in.
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

pub(super) struct Work {
    desk: Arc<Desk>,
    kept: KeptModules,
    retention: Retention,
    in_use: ModulesInUse,
    sink: EventSink,
    /// The modules of closed journals, by room, as far as they have been read. A closed journal never changes.
    needed: BTreeMap<String, Vec<ModuleHash>>,
}

impl Keeper {
    pub(super) fn start(
        data_dir: &Path,
        desk: Arc<Desk>,
        retention: Retention,
        in_use: ModulesInUse,
        left: Vec<Entry>,
        sink: EventSink,
    ) -> std::io::Result<Self> {
        let (poke, poked) = sync_channel(1);
        let (stop, stopped) = sync_channel::<()>(1);
        let mut work = Work::new(data_dir, desk, retention, in_use, sink);
        let thread = std::thread::Builder::new().name("journal-keeper".into()).spawn(move || {
            for entry in left {
                if is_over(&stopped) {
                    return;
                }
                work.take_over(&entry);
            }
            work.keep(&poked, &stopped);
        })?;
        Ok(Self { poke, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn poke(&self) -> SyncSender<()> {
        self.poke.clone()
    }

    /// Ends the thread. Waits for what it does at the moment: one file, or one look through the folder.
    pub(super) fn stop(mut self) {
        self.stop = None;
        let _it_looks_up = self.poke.try_send(());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that keeps the journals panicked");
        }
    }
}

fn is_over(stopped: &Receiver<()>) -> bool {
    stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected)
}

impl Work {
    pub(super) fn new(
        data_dir: &Path,
        desk: Arc<Desk>,
        retention: Retention,
        in_use: ModulesInUse,
        sink: EventSink,
    ) -> Self {
        Self { desk, kept: KeptModules::of(data_dir), retention, in_use, sink, needed: BTreeMap::new() }
    }

    fn keep(&mut self, poked: &Receiver<()>, stopped: &Receiver<()>) {
        let mut wait = Duration::ZERO;
        let mut looked: Option<Instant> = None;
        loop {
            match poked.recv_timeout(wait) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if is_over(stopped) {
                return;
            }
            wait = Duration::from_secs(LOOK_EVERY_S);
            let pause = Duration::from_secs(LOOK_PAUSE_S);
            if let Some(left) = looked.and_then(|at| pause.checked_sub(at.elapsed())) {
                wait = left;
                continue;
            }
            looked = Some(Instant::now());
            self.look(SystemTime::now());
        }
    }

    /// Closes a journal that nobody writes any more: told, moved, and cut to its last whole block if the next one was not all written.
    fn take_over(&self, entry: &Entry) {
        let Entry { room, path, .. } = entry;
        if self.retention.days == 0 {
            let _gone_or_next_time = std::fs::remove_file(path);
            return;
        }
        let read = match super::read::prefix_of(path) {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "a journal of an earlier start cannot be read and stays where it is");
                return;
            }
        };
        let Some(prefix) = read else {
            tracing::warn!(path = %path.display(), "a journal of an earlier start has no whole header and is deleted");
            let _gone_or_next_time = std::fs::remove_file(path);
            return;
        };
        if prefix.is_torn {
            let cut = std::fs::OpenOptions::new().write(true).open(path).and_then(|file| {
                file.set_len(prefix.bytes)?;
                file.sync_data()
            });
            if let Err(error) = cut {
                tracing::warn!(path = %path.display(), %error, "a journal of an earlier start cannot be cut to its last whole block");
            }
        } else {
            tracing::warn!(path = %path.display(), byte = prefix.bytes, "a journal of an earlier start is damaged; what follows is kept and not read");
        }
        let state = if prefix.is_whole { JournalState::Whole } else { JournalState::CutShort };
        tell(&self.sink, room, &prefix.module_name, state, prefix.bytes, prefix.frames, None);
        // What is moved is not told again, so it is not moved before that is on the disk.
        let (mark, until) = (self.sink.mark(), Instant::now() + Duration::from_millis(TOLD_WAIT_MAX_MS));
        while !self.sink.is_durable(mark) {
            if Instant::now() >= until {
                tracing::warn!(path = %path.display(), "a journal of an earlier start stays where it was written: the disk does not take its event");
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if let Err(error) = std::fs::rename(path, self.desk.folder.closed(room)) {
            tracing::warn!(path = %path.display(), %error, "a journal of an earlier start stays where it was written");
        }
    }

    /// Deletes what is too old or too much.
    pub(super) fn look(&mut self, now: SystemTime) {
        let (running, mut closed) = match (self.desk.folder.list_running(), self.desk.folder.list_closed()) {
            (Ok(running), Ok(closed)) => (running, closed),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(folder = %self.desk.folder.path().display(), %error, "the journals cannot be listed; none is deleted");
                return;
            }
        };
        closed.sort_by(|a, b| (a.modified, &a.room).cmp(&(b.modified, &b.room)));
        let running_bytes: u64 = running.iter().map(|entry| entry.bytes).sum();
        let mut total = running_bytes.saturating_add(closed.iter().map(|entry| entry.bytes).sum());
        let age_max = Duration::from_secs(u64::from(self.retention.days) * SECONDS_PER_DAY);
        let mut deleted = 0u64;
        closed.retain(|entry| {
            let too_old = self.retention.days == 0 || now.duration_since(entry.modified).is_ok_and(|age| age > age_max);
            if !too_old && total <= self.retention.bytes_max {
                return true;
            }
            match std::fs::remove_file(&entry.path) {
                Ok(()) => {
                    deleted += 1;
                    total = total.saturating_sub(entry.bytes);
                    false
                }
                Err(error) => {
                    tracing::warn!(path = %entry.path.display(), %error, "a journal cannot be deleted");
                    true
                }
            }
        });
        self.desk.total_bytes.store(total, Ordering::Release);
        if deleted > 0 {
            tracing::info!(deleted, kept = closed.len(), bytes = total, "old journals are deleted");
        }
        if running_bytes > self.retention.bytes_max {
            tracing::warn!(
                running_bytes,
                journal_bytes_max = self.retention.bytes_max,
                "the journals of open rooms alone are above the bound; raise journal_bytes_max"
            );
        }
        self.delete_modules(&running, &closed, MODULES_KEPT_MAX, MODULES_KEPT_BYTES_MAX);
    }

    /// Deletes modules that nothing needs: the old ones, and of the others as many as are too many.
    pub(super) fn delete_modules(&mut self, running: &[Entry], closed: &[Entry], files_max: usize, bytes_max: u64) {
        let kept = self.kept.list();
        let mut files = kept.len();
        let mut bytes = kept.iter().fold(0u64, |sum, module| sum.saturating_add(module.bytes));
        let loaded_before_ms = unix_ms().saturating_sub(MODULE_KEPT_S * 1_000);
        let is_old = |module: &KeptModule| module.loaded_ms < loaded_before_ms;
        let is_too_much = |files: usize, bytes: u64| files > files_max || bytes > bytes_max;
        let candidates = kept.iter().filter(|module| is_old(module) || is_too_much(files, bytes));
        let candidates = candidates.filter_map(|module| module.hash.parse().ok());
        let mut unneeded: BTreeSet<ModuleHash> = candidates.filter(|hash| !(self.in_use)(hash)).collect();
        if !self.keep_needed(&mut unneeded, running, closed) {
            return;
        }
        for module in kept.iter().rev() {
            let Some(hash) = module.hash.parse().ok().filter(|hash| unneeded.contains(hash)) else { continue };
            // Somebody may have loaded it while the journals were read.
            if !(is_old(module) || is_too_much(files, bytes)) || (self.in_use)(&hash) {
                continue;
            }
            match self.kept.delete(&hash) {
                Ok(()) => {
                    tracing::info!(%hash, "a module that no journal and no name needs is deleted");
                    files -= 1;
                    bytes = bytes.saturating_sub(module.bytes);
                }
                Err(error) => tracing::warn!(%hash, %error, "a module cannot be deleted"),
            }
        }
        if is_too_much(files, bytes) {
            tracing::warn!(
                files,
                bytes,
                files_max,
                bytes_max,
                "journals, rooms and names need more modules than should be kept; lower journal_days or journal_bytes_max"
            );
        }
    }

    /// Takes out what a journal names. False if that is not known of one of them.
    fn keep_needed(&mut self, unneeded: &mut BTreeSet<ModuleHash>, running: &[Entry], closed: &[Entry]) -> bool {
        if unneeded.is_empty() {
            return true;
        }
        let closed_rooms: BTreeSet<&str> = closed.iter().map(|entry| entry.room.as_str()).collect();
        self.needed.retain(|room, _| closed_rooms.contains(room.as_str()));
        for Entry { room, .. } in running.iter().chain(closed) {
            let modules = match self.needed.get(room) {
                Some(modules) => modules.clone(),
                None => match self.modules_of(room) {
                    Ok(modules) => modules,
                    Err(error) => {
                        // It may need any of them.
                        tracing::warn!(%error, "a journal cannot be read; no module is deleted");
                        return false;
                    }
                },
            };
            for hash in &modules {
                unneeded.remove(hash);
            }
            if closed_rooms.contains(room.as_str()) {
                self.needed.insert(room.clone(), modules);
            }
        }
        true
    }

    /// The modules of a room's journal; none if it is gone by now, or says nothing because its header is missing.
    fn modules_of(&self, room: &str) -> Result<Vec<ModuleHash>, ReadError> {
        // One that is closed in between has moved: look once more.
        for _ in 0..2 {
            let Some(path) = self.desk.folder.find(room) else { return Ok(Vec::new()) };
            match super::read::modules_of(&path) {
                Err(ReadError::Unreadable { .. }) if !path.exists() => {}
                Err(ReadError::Journal { error: JournalError::NoHeader { .. }, .. }) => return Ok(Vec::new()),
                result => return result,
            }
        }
        Ok(Vec::new())
    }
}
