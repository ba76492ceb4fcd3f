//! Journals on disk: a shard hands over whole blocks of bytes, one thread writes them to a file per room while the room runs, another
//! one keeps the folder within its bounds. What is in a journal is `holeshot_room::journal`'s; reading one again is [`replay`]'s.
//!
//! # What a shard sees
//!
//! [`RoomJournal`] never waits: blocks go into a queue with a bound on bytes and on blocks. A full queue, a disk that fails and a journal
//! that has reached [`JOURNAL_BYTES_MAX`] all end that journal, once, with an error in the log and an event; the room goes on.
//!
//! # What is on disk, and when
//!
//! A block is handed to the system (`write`) as soon as the thread gets to it: within 50 ms, for it rests in between, unless the disk is slow. A *killed host*
//! (`kill -9`, a crash, out of memory) loses the block that a room had not finished, a second of a game at 50 Hz, and what was in the
//! queue at that moment; what was written is the system's and survives. A *power cut* also loses what the system had not written back,
//! on Linux up to about half a minute of every room that runs. Files are synced (`fdatasync`) once, when they are closed: before that it would be a sync
//! per room and second, thousands of them where a disk does hundreds, to save seconds of a game that is over anyway. A closed journal is on
//! disk before the event says so, unless so much is waiting ([`SYNC_QUEUED_BYTES_MAX`]) that the queue would fill up meanwhile.
//! Either way a journal reads up to its last whole block, and says so.
//!
//! # Why files, and a row in the records
//!
//! The records get a row per journal (table `journals`: state, size, frames), by an event, as everything that the manager records. The bytes stay a
//! file: a journal as a BLOB would go through the one transaction that the events of every room wait for, would be written twice (into the
//! WAL and out of it), would not give its space back when it is deleted, and a manager on another machine would need it over
//! MQTT. A file is there for `holeshot replay` while the room runs, and after a crash nothing has to be moved to where it belongs. The price: a backup
//! is the data folder, not one file; `holeshot backup` makes it.
//!
//! # States
//!
//! | state | meaning |
//! | --- | --- |
//! | `writing` | the room is open |
//! | `whole` | all of the room is in it |
//! | `incomplete` | the host gave up writing it: full queue, failing disk, too long. It reads up to there |
//! | `cut_short` | the host was killed while it was written. It reads up to its last whole block; the next start closed it |

pub mod compare;
pub mod feed;
mod find;
mod folder;
mod keeper;
mod read;
pub mod replay;
mod room;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::events::EventSink;
pub use find::{FindError, find};
pub(crate) use folder::{CLOSED_FOLDER, Entry};
pub use folder::{Folder, JOURNAL_EXTENSION, JOURNALS_FOLDER, is_file_name};
pub use keeper::{ModulesInUse, Retention};
pub(crate) use read::whole_blocks_of;
pub use read::{JournalFile, ReadError, read};
pub use room::RoomJournal;

/// Length of one journal in bytes: hours of a race of two, half an hour of the largest room whose players never stop steering. More is
/// a game that should have ended; its journal ends as `incomplete`.
pub const JOURNAL_BYTES_MAX: u64 = 64 << 20;
/// Bytes that wait for the disk, over all rooms: ten seconds of 4,000 races. A disk that is later than that does not catch up.
pub const QUEUED_BYTES_MAX: u64 = 64 << 20;
/// Blocks that wait for the disk: the same ten seconds, a block per room and second, doubled.
pub const QUEUED_BLOCKS_MAX: usize = 80_000;
/// A journal that is closed is synced while no more than this waits, in bytes: a quarter of the queue.
pub const SYNC_QUEUED_BYTES_MAX: u64 = QUEUED_BYTES_MAX / 4;
/// How long a stop of the host waits for the disk, in seconds. What is not written by then is cut short.
const STOP_WAIT_S: u64 = 10;

/// Where the journal of a room stands. The words are those of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalState {
    /// The room is open.
    Writing,
    /// All of the room is in it.
    Whole,
    /// The host gave up writing it.
    Incomplete,
    /// The host was killed while it was written.
    CutShort,
}

impl JournalState {
    /// The state as a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Writing => "writing",
            Self::Whole => "whole",
            Self::Incomplete => "incomplete",
            Self::CutShort => "cut_short",
        }
    }
}

/// What is known of the journal of an open room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalFacts {
    /// Where it stands.
    pub state: JournalState,
    /// Bytes in the file.
    pub bytes: u64,
    /// Frames in the file.
    pub frames: u32,
    /// Why it is incomplete.
    pub problem: Option<String>,
}

/// Why a host cannot keep journals.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalsError {
    /// The folder cannot be made or read.
    #[error(
        "cannot use the folder {folder} for journals: {problem}. Check who may write there and that its disk is not full, or keep none with --journal-days 0"
    )]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        problem: String,
    },
    /// No thread.
    #[error("the system gives no thread for journals: {problem}")]
    Thread {
        /// What the system says.
        problem: String,
    },
}

/// A journal that is written.
#[derive(Debug)]
struct Open {
    room: String,
    /// The name of its rules, for topics.
    module: String,
    /// Handed over and not yet looked at by the thread.
    waiting: AtomicU32,
    bytes: AtomicU64,
    frames: AtomicU32,
    /// Why it ended before its room did. Set once, by whoever gives it up.
    problem: OnceLock<String>,
    /// The room was never opened.
    void: AtomicBool,
    /// The room is gone: nothing more comes.
    left: AtomicBool,
    /// Nothing more is written.
    closed: AtomicBool,
}

impl Open {
    fn facts(&self) -> JournalFacts {
        let problem = self.problem.get().cloned();
        JournalFacts {
            state: if problem.is_some() { JournalState::Incomplete } else { JournalState::Writing },
            bytes: self.bytes.load(Ordering::Acquire),
            frames: self.frames.load(Ordering::Acquire),
            problem,
        }
    }
}

/// What the thread is told.
#[derive(Debug)]
enum Message {
    /// Write these whole blocks. They reach up to this many frames.
    Blocks { journal: Arc<Open>, bytes: Vec<u8>, frames: u32 },
    /// What was written of it so far counts no more: it begins anew.
    Anew(Arc<Open>),
    /// The room is gone.
    Left(Arc<Open>),
    /// Write what is here and end.
    Stop,
}

/// What shards, doors and the threads share.
#[derive(Debug)]
struct Desk {
    folder: Folder,
    queue: SyncSender<Message>,
    queued_bytes: AtomicU64,
    open: Mutex<BTreeMap<String, Arc<Open>>>,
    /// Bytes of all journals on disk, as of the last look of the keeper and what was written since.
    total_bytes: AtomicU64,
}

impl Desk {
    fn new(folder: Folder) -> (Arc<Self>, Receiver<Message>) {
        let (queue, messages) = sync_channel(QUEUED_BLOCKS_MAX);
        let desk = Self {
            folder,
            queue,
            queued_bytes: AtomicU64::new(0),
            open: Mutex::default(),
            total_bytes: AtomicU64::new(0),
        };
        (Arc::new(desk), messages)
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Open>>> {
        // Never left half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a journal begin anew, without waiting. Says why not.
    fn begin_anew(&self, journal: &Arc<Open>) -> Result<(), String> {
        journal.waiting.fetch_add(1, Ordering::AcqRel);
        self.queue.try_send(Message::Anew(Arc::clone(journal))).map_err(|_| {
            journal.waiting.fetch_sub(1, Ordering::AcqRel);
            "its room was set up anew, and there was no place in the queue of the disk to say so".to_owned()
        })
    }

    /// Hands blocks to the thread, without waiting. Says why not.
    fn hand(&self, journal: &Arc<Open>, bytes: Vec<u8>, frames: u32) -> Result<(), String> {
        let len = bytes.len() as u64;
        let queued = self.queued_bytes.fetch_add(len, Ordering::AcqRel).saturating_add(len);
        journal.waiting.fetch_add(1, Ordering::AcqRel);
        let message = Message::Blocks { journal: Arc::clone(journal), bytes, frames };
        let sent =
            if queued <= QUEUED_BYTES_MAX { self.queue.try_send(message) } else { Err(TrySendError::Full(message)) };
        sent.map_err(|error| {
            self.queued_bytes.fetch_sub(len, Ordering::AcqRel);
            journal.waiting.fetch_sub(1, Ordering::AcqRel);
            match error {
                TrySendError::Full(_) => format!(
                    "the disk is slower than the rooms: more than {} MiB or {QUEUED_BLOCKS_MAX} blocks were waiting to be written",
                    QUEUED_BYTES_MAX >> 20
                ),
                TrySendError::Disconnected(_) => "the thread that writes journals has ended".to_owned(),
            }
        })
    }
}

/// The journals of a host. Clones are the same.
#[derive(Debug, Clone)]
pub struct Journals {
    /// None if the host keeps none.
    desk: Option<Arc<Desk>>,
    folder: Folder,
}

/// The threads behind [`Journals`].
#[derive(Debug)]
pub struct JournalThreads {
    desk: Option<Arc<Desk>>,
    written: Option<Receiver<()>>,
    writer: Option<JoinHandle<()>>,
    keeper: Option<keeper::Keeper>,
}

impl Journals {
    /// Makes the folder, takes note of what a killed host left there, and starts the threads. Waits for the disk.
    ///
    /// With [`Retention::days`] 0 no journal is written, and those that are there are deleted.
    ///
    /// # Errors
    /// See [`JournalsError`].
    pub fn start(
        data_dir: &Path,
        retention: Retention,
        modules: ModulesInUse,
        sink: EventSink,
    ) -> Result<(Self, JournalThreads), JournalsError> {
        let folder = Folder::of(data_dir);
        let unusable = |error: io::Error| JournalsError::Folder {
            folder: folder.path().to_path_buf(),
            problem: error.to_string(),
        };
        let no_thread = |error: io::Error| JournalsError::Thread { problem: error.to_string() };
        folder.make().map_err(unusable)?;
        // Before a room is opened: what is here now is nobody's.
        let left = folder.list_running().map_err(unusable)?;
        let (desk, messages) = Desk::new(folder.clone());
        let keeper = keeper::Keeper::start(data_dir, Arc::clone(&desk), retention, modules, left, sink.clone())
            .map_err(no_thread)?;
        let (done, written) = sync_channel(1);
        let writer = writer::Writer::new(Arc::clone(&desk), messages, sink, keeper.poke(), retention.bytes_max);
        let writer = std::thread::Builder::new()
            .name("journals".into())
            .spawn(move || {
                writer.run();
                let _nobody_waits = done.send(());
            })
            .map_err(no_thread)?;
        let kept = (retention.days > 0).then(|| Arc::clone(&desk));
        let threads =
            JournalThreads { desk: Some(desk), written: Some(written), writer: Some(writer), keeper: Some(keeper) };
        Ok((Self { desk: kept, folder }, threads))
    }

    /// Whether this host keeps journals.
    #[must_use]
    pub const fn are_kept(&self) -> bool {
        self.desk.is_some()
    }

    /// Where they are.
    #[must_use]
    pub const fn folder(&self) -> &Folder {
        &self.folder
    }

    /// What is known of the journal of an open room; none if it has none that is written.
    #[must_use]
    pub fn facts(&self, room: &str) -> Option<JournalFacts> {
        self.desk.as_ref()?.open().get(room).map(|open| open.facts())
    }

    /// The file of a room's journal and its length in bytes as of now: all of it whole blocks unless the disk failed. Waits for the disk.
    ///
    /// # Errors
    /// The system's, other than that there is no such file.
    pub fn read(&self, room: &str) -> io::Result<Option<(std::fs::File, u64)>> {
        // A journal that is closed in between has moved: look once more.
        for _ in 0..2 {
            let Some(path) = self.folder.find(room) else { return Ok(None) };
            match crate::files::open_regular(&path) {
                Ok(file) => {
                    let bytes = file.metadata()?.len();
                    return Ok(Some((file, bytes)));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

impl JournalThreads {
    /// Writes what is waiting, for at most some seconds, and ends both threads. Every room must be gone by then. Blocks.
    pub fn stop(mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.stop();
        }
        let Some(desk) = self.desk.take() else { return };
        let deadline = Instant::now() + Duration::from_secs(STOP_WAIT_S);
        let mut message = Message::Stop;
        while let Err(TrySendError::Full(back)) = desk.queue.try_send(message) {
            if Instant::now() >= deadline {
                tracing::warn!("journals were not written in {STOP_WAIT_S} s; the next start closes them");
                return;
            }
            message = back;
            std::thread::sleep(Duration::from_millis(10));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match self.written.take().map(|written| written.recv_timeout(left)) {
            Some(Err(std::sync::mpsc::RecvTimeoutError::Timeout)) => {
                tracing::warn!("journals were not written in {STOP_WAIT_S} s; the next start closes them");
            }
            _ => {
                if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
                    tracing::error!("the thread that writes journals panicked");
                }
            }
        }
    }
}
