//! The thread that writes: takes blocks from the queue in order, appends each to its room's file, and closes the files of rooms that are gone.
//!
//! A file is opened for each piece and closed again: it costs some 10 µs, a room has a piece per second, and 4,000 rooms need no 4,000
//! file descriptors on top of those of their players.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use super::{Desk, JournalState, Message, Open, SYNC_QUEUED_BYTES_MAX};
use crate::events::payload::{JournalClosed, Payload};
use crate::events::{EmitError, EventSink, Mark};

/// How long the thread rests when it has written what was waiting, in milliseconds. Who waits at a queue must be woken, by a call of the system on the
/// shard's time and a turn of the thread for each block: 1,000 rooms hand over 1,000 blocks a second. Longer would save nothing, and what waits is lost with a killed host.
const REST_MS: u64 = 50;
/// How often the thread looks for journals whose rooms are gone and could not say so, in milliseconds.
const ROUND_MS: u64 = 500;
/// A full disk ends the journals of every room at once: one line of log in this time, in seconds, with the number of the others. Each has its event.
const LOG_EVERY_S: u64 = 10;
/// How often closed journals are looked at whose event is not on the disk, in milliseconds: about one commit.
const SETTLE_MS: u64 = 5;
/// Closed journals that wait for their event to be on the disk: as many as the queue of events holds. With more, the oldest is moved all the
/// same, and a kill at that moment would lose its event.
const CLOSING_MAX: usize = 16_384;
/// How long a stop waits for those events, in milliseconds. A journal that stays where it was written is told again at the next start.
const STOP_WAIT_MS: u64 = 2_000;

/// A journal that is told to be closed and not moved yet.
struct Closing {
    /// Behind the event that tells it.
    mark: Mark,
    journal: Arc<Open>,
    from: PathBuf,
    to: PathBuf,
    /// Bytes in the file.
    bytes: u64,
}

pub(super) struct Writer {
    desk: Arc<Desk>,
    messages: Receiver<Message>,
    sink: EventSink,
    /// Tells the keeper that there is too much.
    poke: mpsc::SyncSender<()>,
    bytes_max: u64,
    /// In the order of their marks.
    closing: VecDeque<Closing>,
    logged: Option<Instant>,
    unlogged: u64,
    /// Something was done since it rested.
    has_worked: bool,
}

impl Writer {
    pub(super) fn new(
        desk: Arc<Desk>,
        messages: Receiver<Message>,
        sink: EventSink,
        poke: mpsc::SyncSender<()>,
        bytes_max: u64,
    ) -> Self {
        Self {
            desk,
            messages,
            sink,
            poke,
            bytes_max,
            closing: VecDeque::new(),
            logged: None,
            unlogged: 0,
            has_worked: false,
        }
    }

    pub(super) fn run(mut self) {
        let round = Duration::from_millis(ROUND_MS);
        let mut last_round = Instant::now();
        loop {
            let wait = if self.closing.is_empty() { round } else { Duration::from_millis(SETTLE_MS) };
            match self.next(wait) {
                Ok(Message::Blocks { journal, bytes, frames }) => self.write(&journal, &bytes, frames),
                Ok(Message::Anew(journal)) => self.begin_anew(&journal),
                Ok(Message::Left(journal)) => self.close_if_done(&journal),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.settle();
            if last_round.elapsed() >= round {
                last_round = Instant::now();
                self.go_round();
            }
        }
        self.go_round();
        let until = Instant::now() + Duration::from_millis(STOP_WAIT_MS);
        while !self.closing.is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(SETTLE_MS));
            self.settle();
        }
    }

    /// What is to be done next. Rests first if everything is done that was waiting when it rested last.
    fn next(&mut self, wait: Duration) -> Result<Message, RecvTimeoutError> {
        if let Ok(message) = self.messages.try_recv() {
            self.has_worked = true;
            return Ok(message);
        }
        if std::mem::take(&mut self.has_worked) {
            std::thread::sleep(Duration::from_millis(REST_MS));
            return Err(RecvTimeoutError::Timeout);
        }
        self.messages.recv_timeout(wait).inspect(|_| self.has_worked = true)
    }

    fn write(&mut self, journal: &Arc<Open>, bytes: &[u8], frames: u32) {
        let len = bytes.len() as u64;
        let before = journal.bytes.load(Ordering::Acquire);
        // What comes after a gap is of no use.
        if !Self::is_closed(journal) {
            match append(&self.desk.folder.running(&journal.room), before, bytes) {
                Ok(()) => {
                    journal.bytes.store(before.saturating_add(len), Ordering::Release);
                    journal.frames.store(frames, Ordering::Release);
                    let total = self.desk.total_bytes.fetch_add(len, Ordering::AcqRel).saturating_add(len);
                    if total > self.bytes_max {
                        // It has been told already, otherwise.
                        let _told = self.poke.try_send(());
                    }
                }
                Err(error) => {
                    let _first = journal.problem.set(format!("the disk does not take it: {error}"));
                    self.close(journal);
                }
            }
        }
        self.desk.queued_bytes.fetch_sub(len, Ordering::AcqRel);
        journal.waiting.fetch_sub(1, Ordering::AcqRel);
        self.close_if_done(journal);
    }

    /// Takes away what was written of a journal that begins anew.
    fn begin_anew(&mut self, journal: &Arc<Open>) {
        if !Self::is_closed(journal) {
            match std::fs::remove_file(self.desk.folder.running(&journal.room)) {
                Ok(()) => {
                    let bytes = journal.bytes.swap(0, Ordering::AcqRel);
                    let less = |total: u64| Some(total.saturating_sub(bytes));
                    let _always = self.desk.total_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => journal.bytes.store(0, Ordering::Release),
                Err(error) => {
                    let _first = journal.problem.set(format!("it should begin anew, and its file stays: {error}"));
                    self.close(journal);
                }
            }
        }
        journal.waiting.fetch_sub(1, Ordering::AcqRel);
        self.close_if_done(journal);
    }

    fn is_closed(journal: &Arc<Open>) -> bool {
        journal.closed.load(Ordering::Acquire)
    }

    fn go_round(&mut self) {
        let open: Vec<Arc<Open>> = self.desk.open().values().cloned().collect();
        for journal in open {
            self.close_if_done(&journal);
        }
    }

    /// Closes a journal of which nothing more comes and nothing waits.
    fn close_if_done(&mut self, journal: &Arc<Open>) {
        // In this order: what was handed over before the room left is counted by then.
        let over = journal.left.load(Ordering::Acquire);
        if over && journal.waiting.load(Ordering::Acquire) == 0 && !Self::is_closed(journal) {
            self.close(journal);
        }
    }

    /// Syncs a journal and tells what became of it. It is moved to where nobody writes any more when that is on the disk.
    fn close(&mut self, journal: &Arc<Open>) {
        journal.closed.store(true, Ordering::Release);
        if journal.void.load(Ordering::Acquire) {
            let _nothing_was_written = std::fs::remove_file(self.desk.folder.running(&journal.room));
            self.desk.open().remove(&journal.room);
            return;
        }
        let (from, to) = (self.desk.folder.running(&journal.room), self.desk.folder.closed(&journal.room));
        let quiet = self.desk.queued_bytes.load(Ordering::Acquire) <= SYNC_QUEUED_BYTES_MAX;
        if journal.bytes.load(Ordering::Acquire) > 0
            && quiet
            && let Err(error) = std::fs::File::open(&from).and_then(|file| file.sync_data())
        {
            let _first = journal.problem.set(format!("the disk did not keep it: {error}"));
        }
        if let Some(problem) = journal.problem.get() {
            self.log(&journal.room, problem);
        }
        let facts = journal.facts();
        let state = if facts.problem.is_some() { JournalState::Incomplete } else { JournalState::Whole };
        // Told, and that on the disk, before it is moved: if the host is killed in between, the next start finds it and tells it again.
        tell(&self.sink, &journal.room, &journal.module, state, facts.bytes, facts.frames, facts.problem);
        let (mark, journal, bytes) = (self.sink.mark(), Arc::clone(journal), facts.bytes);
        self.closing.push_back(Closing { mark, journal, from, to, bytes });
        self.settle();
    }

    /// Moves the closed journals whose event is on the disk.
    fn settle(&mut self) {
        while let Some(first) = self.closing.front()
            && (self.sink.is_durable(first.mark) || self.closing.len() > CLOSING_MAX)
            && let Some(Closing { journal, from, to, bytes, .. }) = self.closing.pop_front()
        {
            // What has no whole header says nothing.
            let moved = if bytes > 0 { std::fs::rename(&from, &to) } else { std::fs::remove_file(&from) };
            match moved {
                Ok(()) => {}
                // Not one byte of it was written.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(room = journal.room, %error, "a journal stays where it was written; the next start moves it");
                }
            }
            self.desk.open().remove(&journal.room);
        }
    }

    fn log(&mut self, room: &str, problem: &str) {
        self.unlogged += 1;
        if self.logged.is_none_or(|at| at.elapsed() >= Duration::from_secs(LOG_EVERY_S)) {
            let others = self.unlogged - 1;
            tracing::error!(room, problem, others, "a journal is incomplete; its room goes on");
            self.logged = Some(Instant::now());
            self.unlogged = 0;
        }
    }
}

/// Tells what became of a journal.
pub(super) fn tell(
    sink: &EventSink,
    room: &str,
    module: &str,
    state: JournalState,
    bytes: u64,
    frames: u32,
    problem: Option<String>,
) {
    let closed = JournalClosed { state: state.as_str().to_owned(), bytes, frames: frames.into(), problem };
    let module = Some(module).filter(|name| !name.is_empty());
    match sink.emit(closed.event(module, Some(room), SystemTime::now())) {
        Ok(()) => {}
        // The host stops; the file says by itself how far it reads.
        Err(EmitError::Closed) => tracing::debug!(room, "the end of a journal is not told"),
        Err(error) => tracing::error!(room, %error, "the event that a journal is closed is lost"),
    }
}

/// Adds bytes to a file that has `before` bytes. If they do not fit, the file is as before, as far as the system lets it be.
fn append(path: &Path, before: u64, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    if before == 0 {
        // A file of that name would be another room's.
        options.write(true).create_new(true);
    } else {
        options.append(true);
    }
    let mut file = options.open(path)?;
    // Somebody else has cut it, or put another one in its place: what is added would be of no use.
    let found = file.metadata()?.len();
    if found != before {
        return Err(io::Error::other(format!("the file has {found} bytes, and {before} were written")));
    }
    file.write_all(bytes).inspect_err(|_| {
        // A journal that ends within a block reads up to there; without the rest it is tidier.
        let _as_it_is = file.set_len(before);
    })
}
