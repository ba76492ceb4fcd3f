//! The durable outbox: every accepted event is written to SQLite before it is published, and leaves when the manager
//! says that it is committed there. One thread writes (group commit); readers have connections of their own. What is
//! published when is decided in [`super::publisher`].
//!
//! Policy when the manager stays away and the outbox fills: nothing accepted is ever deleted before its receipt. New
//! events are refused, by class: those of the rules (`rules.*`) from half of each bound on, those of the host (the
//! record of rooms and players) at the full bound. Refusals are counted, logged once a while, and returned by
//! [`super::EventSink::emit`]; nothing ever waits.
//!
//! With SQLite's `synchronous = NORMAL` the death of the process loses nothing that was written; a power cut may roll
//! back the last commits. Sequences of an origin could then be used twice, so every start is a new origin.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};
use tokio::sync::watch;

use super::cloudevent::CloudEvent;
use super::damaged::{self, Damage, ReadError};
use super::{EmitError, InternalEvent, topics};
use crate::files::{check_database, check_regular};

/// File of the outbox in the data directory.
pub const FILE: &str = "outbox.sqlite3";

/// File whose lock says that a host uses the data directory.
pub(crate) const LOCK_FILE: &str = "outbox.lock";

/// Largest data of one event, in bytes of JSON. The largest is `room.finished`: 48 KiB of results and the counters of 64
/// players, half a KiB each. Time slips have a few hundred; rmqtt and rumqttc take 256 KiB.
pub const DATA_MAX_BYTES: usize = 128 * 1024;

/// Events that wait for the writer. One commit takes up to 13 ms at a checkpoint: at 100,000 events a second that is
/// 1,300; the rest is for a slow disk.
pub const QUEUE_MAX_EVENTS: u64 = 16_384;

/// Data that waits for the writer, in bytes.
pub const QUEUE_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Events in the file unless the setting says otherwise. A race of two has 7: 28,000 races without a manager.
pub const OUTBOX_MAX_EVENTS: u64 = 200_000;

/// Topics and payloads in the file, in bytes, unless the setting says otherwise: 1.3 KiB for each of that many events, a race's average.
pub const OUTBOX_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Events in one transaction: beyond this, larger batches gain nothing (measured: 395,000 rows/s at 100, 551,000 at 1,000).
const BATCH_MAX_EVENTS: usize = 1000;

/// How long another connection is waited for.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// Pause before a failed write is tried again; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);

/// Longest pause before a failed write is tried again.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Tries to write what is left when the outbox is being closed.
const LAST_TRIES_MAX: u32 = 3;

/// Origins named in one announcement: each start of the host with something left is one.
const FLOORS_MAX: usize = 64;

/// Least time between two log lines about refused events.
const REFUSAL_LOG_EVERY: Duration = Duration::from_secs(10);

/// The WAL file is cut back to this after a checkpoint, in bytes.
const WAL_KEPT_BYTES: u64 = 16 * 1024 * 1024;

/// Layout of the file, as `PRAGMA user_version`.
pub(crate) const SCHEMA_VERSION: i64 = 1;

/// Why the outbox cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboxError {
    /// The directory or a file in it cannot be made or opened.
    #[error("cannot use {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// Another process holds the data directory.
    #[error("another host uses {path}: give this one another data directory, or stop the other")]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The file is from a later version of the program.
    #[error(
        "{path} has layout {found}, this program knows up to {SCHEMA_VERSION}: use the newer program, or move the file away"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
    },
    /// SQLite refused.
    #[error(
        "cannot use {path}: {reason}. If another program holds it, end that one; if the disk is full or read-only, change that; if the file is damaged, restore it from a backup or move it away (the events that were not recorded yet are in it)"
    )]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
    /// No thread or no random bytes.
    #[error("the system refused: {0}")]
    System(String),
}

/// Which events give way first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventClass {
    /// What the rules report (`rules.*`): refused from half of each bound on.
    Rules,
    /// What the host reports: refused at the full bound.
    Host,
}

impl EventClass {
    /// The class of a kind.
    pub fn of(kind: &str) -> Self {
        if kind.starts_with("rules.") { Self::Rules } else { Self::Host }
    }

    fn share(self, bound: u64) -> u64 {
        match self {
            Self::Rules => bound / 2,
            Self::Host => bound,
        }
    }
}

/// Wakes one thread that waits, from any other, without losing a wake-up.
#[derive(Default)]
pub(crate) struct Wake {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Wake {
    pub(crate) fn notify(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    pub(crate) fn seen(&self) -> u64 {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there was a notification after `seen`, at most `wait`.
    pub(crate) fn wait_past(&self, seen: u64, wait: Duration) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let _unused = self.changed.wait_timeout_while(count, wait, |count| *count == seen);
    }
}

/// The bounds of the file. Events of the rules have half of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Events.
    pub events_max: u64,
    /// Their topics and payloads, in bytes.
    pub bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { events_max: OUTBOX_MAX_EVENTS, bytes_max: OUTBOX_MAX_BYTES }
    }
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Level {
    /// Written, without a receipt.
    pub(crate) events: u64,
    /// Topics and payloads of those, in bytes.
    pub(crate) bytes: u64,
}

#[derive(Default)]
struct Inbox {
    events: VecDeque<(InternalEvent, u64)>,
    receipts: BTreeMap<String, u64>,
    /// Events that are not written yet: those in `events` and those of the batch that is being written.
    pending: u64,
    /// Their data, in bytes.
    pending_bytes: u64,
    /// Events accepted since the start.
    accepted: u64,
    closed: bool,
    refusal_logged: Option<Instant>,
}

/// One start of a host, as a range of positions: the event at `start + n` has sequence n.
#[derive(Debug, Clone)]
struct Span {
    origin: String,
    start: i64,
    /// Last position; none for the origin of this start.
    end: Option<i64>,
}

struct Shared {
    host: String,
    origin: String,
    path: PathBuf,
    limits: Limits,
    inbox: Mutex<Inbox>,
    work: Condvar,
    level: watch::Sender<Level>,
    last_position: AtomicI64,
    /// When the oldest event in the file happened, in microseconds since 1970; 0 while there is none.
    oldest_unix_us: AtomicU64,
    /// Events written since the start, in the order in which they were accepted.
    written: AtomicU64,
    stored: AtomicU64,
    refused_rules: AtomicU64,
    refused_host: AtomicU64,
    lost: AtomicU64,
    set_aside: AtomicU64,
    spans: Vec<Span>,
    reader: Arc<Wake>,
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counters of an outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OutboxCounters {
    pub(crate) stored: u64,
    pub(crate) refused_rules: u64,
    pub(crate) refused_host: u64,
    pub(crate) lost: u64,
    /// Events in the table `set_aside`, also of earlier starts.
    pub(crate) set_aside: u64,
}

/// The outbox of one host. Dropping it writes what was accepted and ends the writer.
pub(crate) struct Outbox {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    // Held for as long as the file is used.
    _lock: File,
}

impl Outbox {
    /// Opens or creates the outbox in `directory`. `reader` is notified whenever there is more to publish.
    pub(crate) fn open(directory: &Path, host: &str, limits: Limits, reader: Arc<Wake>) -> Result<Self, OutboxError> {
        let file_error = |path: &Path, error: &dyn std::fmt::Display| OutboxError::File {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        std::fs::create_dir_all(directory).map_err(|error| file_error(directory, &error))?;
        let lock_path = directory.join(LOCK_FILE);
        let lock = check_regular(&lock_path).and_then(|()| File::create(&lock_path));
        let lock = lock.map_err(|error| file_error(&lock_path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OutboxError::InUse { path: directory.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(file_error(&lock_path, &error)),
        }

        let path = directory.join(FILE);
        let sqlite = |error: rusqlite::Error| OutboxError::Sqlite { path: path.clone(), reason: error.to_string() };
        check_database(&path).map_err(|error| file_error(&path, &error))?;
        let connection = Connection::open(&path).map_err(sqlite)?;
        let found = prepare(&connection).map_err(sqlite)?;
        if found > SCHEMA_VERSION {
            return Err(OutboxError::Newer { path, found });
        }
        let origin = format!("{host}.{}", uuid::Uuid::now_v7().simple());
        let spans = begin(&connection, &origin).map_err(sqlite)?;
        let (events, bytes, last): (u64, u64, Option<i64>) = connection
            .query_row(
                "SELECT COUNT(*), COALESCE(SUM(LENGTH(topic) + LENGTH(payload)), 0), MAX(position) FROM outbox",
                [],
                |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?, row.get(2)?)),
            )
            .map_err(sqlite)?;
        if events > 0 {
            tracing::info!(events, bytes, "events of an earlier start are still to be recorded");
        }
        let shared = Arc::new(Shared {
            host: host.to_owned(),
            origin,
            path: path.clone(),
            limits,
            inbox: Mutex::new(Inbox::default()),
            work: Condvar::new(),
            level: watch::Sender::new(Level { events, bytes }),
            last_position: AtomicI64::new(last.unwrap_or(0)),
            oldest_unix_us: AtomicU64::new(oldest_unix_us(&connection).map_err(sqlite)?),
            written: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            refused_rules: AtomicU64::new(0),
            refused_host: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            set_aside: AtomicU64::new(damaged::count(&connection).map_err(sqlite)?),
            spans,
            reader,
        });
        let for_writer = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("outbox".to_owned())
            .spawn(move || Writer::new(for_writer, connection).run())
            .map_err(|error| OutboxError::System(format!("no thread: {error}")))?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)), _lock: lock })
    }

    /// The origin of this start.
    pub(crate) fn origin(&self) -> &str {
        &self.shared.origin
    }

    /// A handle that pushes events.
    pub(crate) fn sink(&self) -> OutboxSink {
        OutboxSink(Arc::clone(&self.shared))
    }

    /// A connection of its own for reading.
    pub(crate) fn reader(&self) -> Result<OutboxReader, OutboxError> {
        OutboxReader::open(Arc::clone(&self.shared))
    }

    /// How much there is, to be watched.
    pub(crate) fn level(&self) -> watch::Receiver<Level> {
        self.shared.level.subscribe()
    }

    /// The bounds.
    pub(crate) fn limits(&self) -> Limits {
        self.shared.limits
    }

    /// When the oldest event in the file happened, in microseconds since 1970; none if there is none.
    pub(crate) fn oldest_unix_us(&self) -> Option<u64> {
        Some(self.shared.oldest_unix_us.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    /// Events that were accepted and are not written yet.
    pub(crate) fn pending(&self) -> u64 {
        self.shared.inbox().pending
    }

    pub(crate) fn counters(&self) -> OutboxCounters {
        let shared = &self.shared;
        OutboxCounters {
            stored: shared.stored.load(Ordering::Relaxed),
            refused_rules: shared.refused_rules.load(Ordering::Relaxed),
            refused_host: shared.refused_host.load(Ordering::Relaxed),
            lost: shared.lost.load(Ordering::Relaxed),
            set_aside: shared.set_aside.load(Ordering::Relaxed),
        }
    }

    /// Takes no more events. Those that were accepted are written; receipts are still taken.
    pub(crate) fn refuse_more(&self) {
        self.shared.inbox().closed = true;
        self.shared.work.notify_all();
    }

    /// Writes what was accepted and ends the writer. Blocks for a commit.
    pub(crate) fn close(&self) {
        self.refuse_more();
        {
            // The writer ends when it is told so a second time: by this mark.
            let mut inbox = self.shared.inbox();
            inbox.receipts.insert(END.to_owned(), 0);
        }
        self.shared.work.notify_all();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the outbox's writer panicked");
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.close();
    }
}

/// No origin is called this (they have a host id and a dot): the mark that ends the writer.
const END: &str = "";

/// Pushes events and receipts, from any thread, without waiting for the disk.
#[derive(Clone)]
pub(crate) struct OutboxSink(Arc<Shared>);

impl OutboxSink {
    /// Accepts an event whose data has `bytes` bytes as JSON, or says why not.
    pub(crate) fn push(&self, event: InternalEvent, bytes: u64) -> Result<(), EmitError> {
        let shared = &self.0;
        let class = EventClass::of(&event.kind);
        let mut inbox = shared.inbox();
        if inbox.closed {
            return Err(EmitError::Closed);
        }
        // After the lock: the writer moves what it has written from the one to the other under it.
        let level = *shared.level.borrow();
        let limits = &shared.limits;
        let outbox_full = level.events + inbox.pending >= class.share(limits.events_max)
            || level.bytes + inbox.pending_bytes >= class.share(limits.bytes_max);
        let queue_full = inbox.pending >= class.share(QUEUE_MAX_EVENTS)
            || inbox.pending_bytes + bytes > class.share(QUEUE_MAX_BYTES);
        if outbox_full || queue_full {
            let counter = match class {
                EventClass::Rules => &shared.refused_rules,
                EventClass::Host => &shared.refused_host,
            };
            let refused = counter.fetch_add(1, Ordering::Relaxed) + 1;
            let now = Instant::now();
            if inbox.refusal_logged.is_none_or(|then| now.duration_since(then) >= REFUSAL_LOG_EVERY) {
                inbox.refusal_logged = Some(now);
                drop(inbox);
                tracing::error!(
                    kind = event.kind,
                    refused,
                    events = level.events,
                    bytes = level.bytes,
                    "refused an event: {}",
                    if outbox_full {
                        "the outbox is full because no manager records"
                    } else {
                        "the disk is slower than the events"
                    }
                );
            }
            return Err(if outbox_full { EmitError::OutboxFull { class } } else { EmitError::QueueFull { class } });
        }
        inbox.pending += 1;
        inbox.pending_bytes += bytes;
        inbox.accepted += 1;
        inbox.events.push_back((event, bytes));
        drop(inbox);
        shared.work.notify_one();
        Ok(())
    }

    /// How many events were accepted since the start.
    pub(crate) fn accepted(&self) -> u64 {
        self.0.inbox().accepted
    }

    /// How many of them, the first ones, are written.
    pub(crate) fn written(&self) -> u64 {
        self.0.written.load(Ordering::Acquire)
    }

    /// Takes the manager's word that the events of `origin` up to `sequence` are committed there. Gives the position of the last of them, none
    /// if the origin is not in this file.
    pub(crate) fn receipt(&self, origin: &str, sequence: u64) -> Option<i64> {
        let shared = &self.0;
        // Receipts for origins that are not in this file (an earlier one, a foreign one) say nothing about it.
        let span = shared.spans.iter().find(|span| span.origin == origin)?;
        let last = span.end.unwrap_or_else(|| shared.last_position.load(Ordering::Acquire));
        let position = i64::try_from(sequence)
            .ok()
            .and_then(|sequence| span.start.checked_add(sequence))
            .unwrap_or(last)
            .min(last);
        let mut inbox = shared.inbox();
        let stored = inbox.receipts.entry(origin.to_owned()).or_insert(0);
        *stored = (*stored).max(sequence);
        drop(inbox);
        shared.work.notify_one();
        Some(position)
    }
}

/// An event as it is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutboxRow {
    pub(crate) position: i64,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
}

/// Reads the outbox on a connection of its own.
pub(crate) struct OutboxReader {
    connection: Connection,
    shared: Arc<Shared>,
}

impl OutboxReader {
    fn open(shared: Arc<Shared>) -> Result<Self, OutboxError> {
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(
                &shared.path,
                OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )?;
            connection.busy_timeout(BUSY_MAX)?;
            Ok(connection)
        };
        let connection =
            open().map_err(|error| OutboxError::Sqlite { path: shared.path.clone(), reason: error.to_string() })?;
        Ok(Self { connection, shared })
    }

    /// Position of the last event that was written.
    pub(crate) fn last_position(&self) -> i64 {
        self.shared.last_position.load(Ordering::Acquire)
    }

    /// How many events have no receipt.
    pub(crate) fn events(&self) -> u64 {
        self.shared.level.borrow().events
    }

    /// The next events after `position`, `max` at most.
    ///
    /// # Errors
    /// That the first of them cannot be sent; before another one of that kind the answer ends.
    pub(crate) fn after(&self, position: i64, max: usize) -> Result<VecDeque<OutboxRow>, ReadError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT position, topic, payload FROM outbox WHERE position > ?1 ORDER BY position LIMIT ?2",
        )?;
        let mut found = statement.query(params![position, max as i64])?;
        let mut rows = VecDeque::new();
        while let Some(row) = found.next()? {
            match damaged::read(row) {
                Ok(row) => rows.push_back(row),
                Err(ReadError::Damaged(_)) if !rows.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(rows)
    }

    /// Whether the first event that is left is one that no manager would ever take: all behind it would wait for it.
    ///
    /// # Errors
    /// What SQLite says.
    pub(crate) fn damage_at_the_front(&self) -> Result<Option<Damage>, String> {
        match self.after(0, 1) {
            Ok(rows) => Ok(rows.front().and_then(|row| {
                let (origin, sequence) = self.identity_of(row.position)?;
                damaged::judge(row, &origin, sequence).err()
            })),
            Err(ReadError::Damaged(damage)) => Ok(Some(damage)),
            Err(ReadError::Sqlite(error)) => Err(error),
        }
    }

    /// Moves a damaged event to the table `set_aside`, so that those behind it are sent.
    ///
    /// # Errors
    /// Why it stays where it is.
    pub(crate) fn set_aside(&self, damage: &Damage) -> Result<(), String> {
        let shared = &self.shared;
        let (origin, sequence) = self.identity_of(damage.position).ok_or("it belongs to no start of this host")?;
        // Only the writer has one of its own: this is needed once in a host's life, if ever.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = Connection::open_with_flags(&shared.path, flags);
        let open = open.and_then(|connection| connection.busy_timeout(BUSY_MAX).map(|()| connection));
        let mut connection = open.map_err(|error| error.to_string())?;
        let Some(moved) = damaged::set_aside(&mut connection, damage, &origin, sequence)? else { return Ok(()) };
        shared.set_aside.store(moved.events, Ordering::Relaxed);
        {
            let _inbox = shared.inbox();
            shared.level.send_modify(|level| {
                level.events = level.events.saturating_sub(1);
                level.bytes = level.bytes.saturating_sub(moved.bytes);
            });
        }
        match oldest_unix_us(&connection) {
            Ok(at) => shared.oldest_unix_us.store(at, Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "the oldest event in the outbox cannot be looked at"),
        }
        Ok(())
    }

    /// Where the outbox is.
    pub(crate) fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Which event a row is by its position.
    fn identity_of(&self, position: i64) -> Option<(String, u64)> {
        let holds = |span: &&Span| span.start < position && span.end.is_none_or(|end| position <= end);
        let span = self.shared.spans.iter().find(holds)?;
        Some((span.origin.clone(), u64::try_from(position.checked_sub(span.start)?).ok()?))
    }

    /// For every origin with something left (and this start's): the sequence up to which nothing is left.
    pub(crate) fn floors(&self) -> Result<Vec<(String, u64)>, String> {
        let read = |span: &Span| -> rusqlite::Result<Option<i64>> {
            self.connection
                .prepare_cached("SELECT MIN(position) FROM outbox WHERE position > ?1 AND position <= ?2")?
                .query_row(params![span.start, span.end.unwrap_or(i64::MAX)], |row| row.get(0))
        };
        // Read before the rows: a row that is written in between only makes the floor too low.
        let last = self.last_position();
        let mut floors = Vec::new();
        for span in &self.shared.spans {
            let first = read(span).map_err(|error| error.to_string())?;
            let floor = match (first, span.end) {
                (Some(first), _) => first - 1 - span.start,
                (None, None) => (last - span.start).max(0),
                (None, Some(_)) => continue,
            };
            floors.push((span.origin.clone(), u64::try_from(floor).unwrap_or(0)));
            if floors.len() >= FLOORS_MAX {
                break;
            }
        }
        Ok(floors)
    }
}

/// Sets the connection up; gives the layout that was found, without touching a newer one.
fn prepare(connection: &Connection) -> rusqlite::Result<i64> {
    // First: switching to WAL needs the lock that another process may hold.
    connection.busy_timeout(BUSY_MAX)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > SCHEMA_VERSION {
        return Ok(found);
    }
    let _mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    connection.execute_batch(&format!(
        "PRAGMA synchronous = NORMAL;
         PRAGMA journal_size_limit = {WAL_KEPT_BYTES};
         BEGIN IMMEDIATE;
         CREATE TABLE IF NOT EXISTS origins (start INTEGER PRIMARY KEY, origin TEXT NOT NULL UNIQUE);
         CREATE TABLE IF NOT EXISTS outbox (position INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL);
         {}
         PRAGMA user_version = {SCHEMA_VERSION};
         COMMIT;",
        damaged::SCHEMA
    ))?;
    Ok(found)
}

/// When the oldest event happened, in microseconds since 1970; 0 if there is none, or its time cannot be read.
fn oldest_unix_us(connection: &Connection) -> rusqlite::Result<u64> {
    // A payload of another type is damaged, and no reason not to start.
    let payload: Option<Vec<u8>> = connection
        .prepare_cached("SELECT CAST(payload AS BLOB) FROM outbox ORDER BY position LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let event = payload.and_then(|payload| CloudEvent::parse(&payload).ok());
    let since = event.and_then(|event| event.time.duration_since(SystemTime::UNIX_EPOCH).ok());
    Ok(since.and_then(|since| u64::try_from(since.as_micros()).ok()).unwrap_or(0))
}

/// Begins a new origin after everything that is left, and forgets the origins of which nothing is left.
fn begin(connection: &Connection, origin: &str) -> rusqlite::Result<Vec<Span>> {
    let transaction = connection.unchecked_transaction()?;
    let last: i64 = transaction.query_row("SELECT COALESCE(MAX(position), 0) FROM outbox", [], |row| row.get(0))?;
    let mut known: Vec<(i64, String)> = transaction
        .prepare("SELECT start, origin FROM origins ORDER BY start")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    known.retain(|(start, _)| *start < last);
    known.push((last, origin.to_owned()));
    let ends = known.iter().skip(1).map(|(start, _)| Some(*start)).chain([None]);
    let mut spans = Vec::new();
    for ((start, origin), end) in known.iter().zip(ends) {
        let left = transaction
            .query_row(
                "SELECT 1 FROM outbox WHERE position > ?1 AND position <= ?2 LIMIT 1",
                params![start, end.unwrap_or(i64::MAX)],
                |_| Ok(()),
            )
            .optional()?
            .is_some();
        if left || end.is_none() {
            spans.push(Span { origin: origin.clone(), start: *start, end });
        }
    }
    transaction.execute("DELETE FROM origins", [])?;
    for span in &spans {
        transaction.execute("INSERT INTO origins (start, origin) VALUES (?1, ?2)", params![span.start, span.origin])?;
    }
    transaction.commit()?;
    Ok(spans)
}

struct Writer {
    shared: Arc<Shared>,
    connection: Connection,
    last_position: i64,
}

impl Writer {
    fn new(shared: Arc<Shared>, connection: Connection) -> Self {
        let last_position = shared.last_position.load(Ordering::Acquire);
        Self { shared, connection, last_position }
    }

    fn run(mut self) {
        loop {
            let (batch, bytes, receipts, end) = self.take();
            if !batch.is_empty() || !receipts.is_empty() {
                self.write(batch, bytes, &receipts);
            }
            if end {
                return;
            }
        }
    }

    /// Waits for work and takes it: events, the bytes of their data, receipts, and whether this is the end.
    fn take(&self) -> (Vec<InternalEvent>, u64, BTreeMap<String, u64>, bool) {
        let mut inbox = self.shared.inbox();
        while inbox.events.is_empty() && inbox.receipts.is_empty() {
            inbox = self.shared.work.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
        let count = inbox.events.len().min(BATCH_MAX_EVENTS);
        let mut batch_bytes = 0_u64;
        let batch: Vec<InternalEvent> = inbox
            .events
            .drain(..count)
            .map(|(event, bytes)| {
                batch_bytes += bytes;
                event
            })
            .collect();
        let mut receipts = std::mem::take(&mut inbox.receipts);
        let mut end = receipts.remove(END).is_some();
        if end && !inbox.events.is_empty() {
            // Everything accepted is written first.
            inbox.receipts.insert(END.to_owned(), 0);
            end = false;
        }
        (batch, batch_bytes, receipts, end)
    }

    /// Gives the events their positions and sequences, and encodes them.
    fn encode(&self, batch: Vec<InternalEvent>) -> Vec<OutboxRow> {
        let start = self.shared.spans.last().map_or(0, |span| span.start);
        let mut position = self.last_position;
        batch
            .into_iter()
            .map(|event| {
                position += 1;
                let topic = topics::event(&self.shared.host, event.module.as_deref(), &event.kind);
                let payload = CloudEvent {
                    origin: self.shared.origin.clone(),
                    sequence: u64::try_from(position - start).unwrap_or(0),
                    host: self.shared.host.clone(),
                    kind: event.kind,
                    room: event.room,
                    module: event.module,
                    time: event.time,
                    data: event.data,
                }
                .encode();
                OutboxRow { position, topic, payload }
            })
            .collect()
    }

    fn write(&mut self, batch: Vec<InternalEvent>, batch_bytes: u64, receipts: &BTreeMap<String, u64>) {
        let batch = self.encode(batch);
        let batch_events = batch.len() as u64;
        let mut pause = RETRY_MIN;
        let mut last_tries = 0;
        loop {
            match self.transact(&batch, receipts) {
                Ok(change) => {
                    self.shared.last_position.store(self.last_position, Ordering::Release);
                    self.shared.written.fetch_add(batch_events, Ordering::Release);
                    self.shared.stored.fetch_add(change.gone_events, Ordering::Relaxed);
                    self.look_at_the_oldest(change.gone_events > 0);
                    self.settle(batch_events, batch_bytes, |level| {
                        level.events = (level.events + batch_events).saturating_sub(change.gone_events);
                        level.bytes = (level.bytes + change.added_bytes).saturating_sub(change.gone_bytes);
                    });
                    self.shared.reader.notify();
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, path = %self.shared.path.display(), events = batch.len(),
                        "cannot write to the outbox; trying again");
                    if self.shared.inbox().closed {
                        last_tries += 1;
                        if last_tries >= LAST_TRIES_MAX {
                            self.shared.lost.fetch_add(batch_events, Ordering::Relaxed);
                            self.settle(batch_events, batch_bytes, |_| {});
                            tracing::error!(events = batch.len(), "gave up: these events are lost");
                            return;
                        }
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Keeps the time of the oldest event, for the figures. Before the level changes: an empty outbox has none.
    fn look_at_the_oldest(&self, others_are_gone: bool) {
        if others_are_gone || self.shared.oldest_unix_us.load(Ordering::Relaxed) == 0 {
            match oldest_unix_us(&self.connection) {
                Ok(at) => self.shared.oldest_unix_us.store(at, Ordering::Relaxed),
                Err(error) => tracing::debug!(%error, "the oldest event in the outbox cannot be looked at"),
            }
        }
    }

    /// The batch is done with: at one moment it is no longer pending and the level is what it has become.
    fn settle(&self, events: u64, bytes: u64, change: impl FnOnce(&mut Level)) {
        let mut inbox = self.shared.inbox();
        inbox.pending = inbox.pending.saturating_sub(events);
        inbox.pending_bytes = inbox.pending_bytes.saturating_sub(bytes);
        self.shared.level.send_modify(change);
    }

    fn transact(&mut self, batch: &[OutboxRow], receipts: &BTreeMap<String, u64>) -> rusqlite::Result<Change> {
        let mut change = Change::default();
        // From the start as a writer: one that reads first and is overtaken by another program may not write any more.
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert =
                transaction.prepare_cached("INSERT INTO outbox (position, topic, payload) VALUES (?1, ?2, ?3)")?;
            for row in batch {
                change.added_bytes += (row.topic.len() + row.payload.len()) as u64;
                insert.execute(params![row.position, row.topic, row.payload])?;
            }
        }
        for (origin, sequence) in receipts {
            let Some(span) = self.shared.spans.iter().find(|span| span.origin == *origin) else {
                continue;
            };
            let last = span.end.unwrap_or(self.last_position);
            let through = i64::try_from(*sequence)
                .ok()
                .and_then(|sequence| span.start.checked_add(sequence))
                .unwrap_or(i64::MAX)
                .min(last);
            let (events, bytes): (u64, u64) = transaction
                .prepare_cached(
                    "SELECT COUNT(*), COALESCE(SUM(LENGTH(topic) + LENGTH(payload)), 0) FROM outbox
                     WHERE position > ?1 AND position <= ?2",
                )?
                .query_row(params![span.start, through], |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)))?;
            transaction
                .prepare_cached("DELETE FROM outbox WHERE position > ?1 AND position <= ?2")?
                .execute(params![span.start, through])?;
            change.gone_events += events;
            change.gone_bytes += bytes;
        }
        transaction.commit()?;
        if let Some(row) = batch.last() {
            self.last_position = row.position;
        }
        Ok(change)
    }
}

/// A count, which SQLite keeps as a signed number.
fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    Ok(u64::try_from(value).unwrap_or(0))
}

#[derive(Default)]
struct Change {
    added_bytes: u64,
    gone_events: u64,
    gone_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(kind: &str) -> InternalEvent {
        InternalEvent { kind: kind.to_owned(), module: None, room: None, data: json!("x"), time: SystemTime::now() }
    }

    fn written(outbox: &Outbox, events: u64) {
        let start = Instant::now();
        while outbox.pending() > 0 || outbox.level().borrow().events != events {
            assert!(start.elapsed() < Duration::from_secs(30), "{}", outbox.level().borrow().events);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn open(directory: &Path, limits: Limits) -> Outbox {
        Outbox::open(directory, "pit", limits, Arc::new(Wake::default())).unwrap()
    }

    #[test]
    fn events_of_the_rules_give_way_first_and_nothing_accepted_goes() {
        for limits in
            [Limits { events_max: 100, bytes_max: u64::MAX }, Limits { events_max: u64::MAX, bytes_max: 40_000 }]
        {
            let directory = tempfile::tempdir().unwrap();
            let outbox = open(directory.path(), limits);
            let sink = outbox.sink();
            let mut accepted = 0;
            for (kind, class) in [("rules.a", EventClass::Rules), ("room.a", EventClass::Host)] {
                let refused = loop {
                    match sink.push(event(kind), 3) {
                        Ok(()) => accepted += 1,
                        Err(error) => break error,
                    }
                    // In small steps, so that what is written weighs what it weighs in the file.
                    written(&outbox, accepted);
                };
                assert_eq!(refused, EmitError::OutboxFull { class });
                let level = *outbox.level().borrow();
                let share = class.share(limits.events_max.min(limits.bytes_max));
                let reached = if limits.events_max < limits.bytes_max { level.events } else { level.bytes };
                assert!(reached >= share && reached < share + 600, "{reached} {share}");
            }
            assert!(sink.push(event("rules.a"), 3).is_err());
            let counters = outbox.counters();
            assert_eq!((counters.refused_rules, counters.refused_host), (2, 1));
            // A receipt makes room.
            sink.receipt(outbox.origin(), 10);
            written(&outbox, accepted - 10);
            assert_eq!(outbox.counters().stored, 10);
            sink.push(event("room.a"), 3).unwrap();
        }
    }

    #[test]
    fn a_queue_that_is_full_refuses_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let outbox = open(directory.path(), Limits::default());
        let sink = outbox.sink();
        let class = EventClass::Host;
        let huge = QUEUE_MAX_BYTES + 1;
        assert_eq!(sink.push(event("room.a"), huge), Err(EmitError::QueueFull { class }));
        let class = EventClass::Rules;
        assert_eq!(sink.push(event("rules.a"), huge / 2 + 1), Err(EmitError::QueueFull { class }));
        outbox.refuse_more();
        assert_eq!(sink.push(event("room.a"), 3), Err(EmitError::Closed));
    }

    #[test]
    fn every_start_is_an_origin_and_receipts_find_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let mut origins = Vec::new();
        for start in 0..3_u64 {
            let outbox = open(directory.path(), Limits::default());
            for _ in 0..10 {
                outbox.sink().push(event("room.a"), 3).unwrap();
            }
            written(&outbox, 10 * (start + 1));
            origins.push(outbox.origin().to_owned());
        }
        let outbox = open(directory.path(), Limits::default());
        let reader = outbox.reader().unwrap();
        let floors = |reader: &OutboxReader| -> Vec<u64> {
            reader.floors().unwrap().into_iter().map(|(_, floor)| floor).collect()
        };
        assert_eq!(floors(&reader), [0, 0, 0, 0]);
        let rows = reader.after(0, 100).unwrap();
        assert_eq!(rows.len(), 30);
        for (row, number) in rows.iter().zip(0_u64..) {
            let event = CloudEvent::parse(&row.payload).unwrap();
            assert_eq!(event.sequence, number % 10 + 1);
            assert_eq!(event.origin, origins[(number / 10) as usize]);
        }
        // Receipts in any order, beyond the end, and for origins that are not ours.
        let sink = outbox.sink();
        sink.receipt(&origins[1], 4);
        sink.receipt(&origins[0], u64::MAX);
        sink.receipt("elsewhere.1", 10);
        sink.receipt(outbox.origin(), 1000);
        written(&outbox, 16);
        assert_eq!(floors(&reader), [4, 0, 0]);
        sink.push(event("room.a"), 3).unwrap();
        written(&outbox, 17);
        assert_eq!(outbox.counters().stored, 14);
    }

    #[test]
    fn files_that_are_not_for_us_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let outbox = open(directory.path(), Limits::default());
        let again = Outbox::open(directory.path(), "pit", Limits::default(), Arc::default());
        assert!(matches!(again.err(), Some(OutboxError::InUse { .. })));
        drop(outbox);
        let connection = Connection::open(directory.path().join(FILE)).unwrap();
        connection.execute_batch("PRAGMA user_version = 9").unwrap();
        drop(connection);
        let newer = Outbox::open(directory.path(), "pit", Limits::default(), Arc::default());
        assert!(matches!(newer.err(), Some(OutboxError::Newer { found: 9, .. })));
        std::fs::write(directory.path().join(FILE), b"not a database").unwrap();
        let text = Outbox::open(directory.path(), "pit", Limits::default(), Arc::default());
        assert!(matches!(text.err(), Some(OutboxError::Sqlite { .. })));
    }
}
