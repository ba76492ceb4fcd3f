//! The thread that writes the records: it takes what the link brings, stores a batch in one transaction, acknowledges
//! it after the commit and sends the hosts their receipts. A message that cannot be used goes to the table `rejected`;
//! none holds up the queue. Events of one origin are stored in their order: one that comes too early is held (and
//! acknowledged to the broker: its host keeps it until there is a receipt) or, when too many are held, comes again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tokio::sync::watch;

use super::chores::{Chores, Retention};
use super::derive::{DeriveError, derive};
use crate::events::cloudevent::{CloudEvent, CloudEventError, is_origin, rfc3339};
use crate::events::link::{Ack, Content, LinkHandle, Message, Refused};
use crate::events::payload::{ModuleLoaded, Payload};
use crate::events::publisher::{Floor, Floors, Receipt};
use crate::events::topics;

/// Messages in one transaction: beyond this, larger batches gain nothing (measured: 395,000 rows/s at 100, 551,000 at 1,000).
const BATCH_MAX_MESSAGES: usize = 1000;

/// Messages that wait for the writer. A broker sends no more than its in-flight limit before acknowledgements come
/// (the embedded one 500); this is for one without such a limit.
const QUEUE_MAX_MESSAGES: usize = 20_000;

/// Least time between two receipts for the same origin.
const RECEIPT_EVERY: Duration = Duration::from_millis(50);

/// A receipt is due before that when so many more events are stored: a host sends a thousand beyond its last receipt.
const RECEIPT_EVENTS: u64 = 250;

/// Rows in `rejected`; the oldest go.
const REJECTED_MAX_ROWS: i64 = 1000;

/// Bytes that are kept of a rejected message.
const REJECTED_MAX_BYTES: usize = 16 * 1024;

/// Origins whose progress is kept in memory. Others are read again when they speak.
const ORIGINS_MAX: usize = 1024;

/// Events after a gap that are held per origin until the gap is closed. A host that hears of a gap sends everything again,
/// so this only saves time: twice its window, five times over.
const HELD_MAX_EVENTS: usize = 1000;

/// Bytes of events that are held, of all origins together.
const HELD_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Pause before a failed write is tried again; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);

/// Longest pause before a failed write is tried again.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Tries to write what is left when the manager is stopped. What is given up is not acknowledged, so it comes again.
const LAST_TRIES_MAX: u32 = 3;

/// Pause while the link's queue is full.
const ACK_PAUSE: Duration = Duration::from_millis(1);

/// Tries to acknowledge a message on a link whose queue is full: 5 s of them.
const ACK_TRIES_MAX: u32 = 5_000;

/// Least time between two log lines about rejected messages.
const REJECTION_LOG_EVERY: Duration = Duration::from_secs(10);

/// Counters of the manager since its start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) received: AtomicU64,
    pub(super) stored: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) overflowed: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) deleted_events: AtomicU64,
    pub(super) deleted_rooms: AtomicU64,
    pub(super) chore_longest_us: AtomicU64,
    pub(super) subscribed: AtomicBool,
}

#[derive(Default)]
struct Inbox {
    messages: VecDeque<Message>,
    /// The link has a new connection: the hosts may have missed receipts.
    renewed: bool,
    stop: bool,
}

/// What the link's task and the writer share.
#[derive(Default)]
pub(super) struct Desk {
    inbox: Mutex<Inbox>,
    work: Condvar,
    pub(super) counters: Counters,
    /// The id of the newest event that is committed.
    pub(super) committed: watch::Sender<i64>,
}

impl Desk {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message, without waiting. One too many is not acknowledged: its host sends it again.
    pub(super) fn put(&self, message: Message) {
        self.counters.received.fetch_add(1, Ordering::Relaxed);
        let mut inbox = self.inbox();
        if inbox.messages.len() >= QUEUE_MAX_MESSAGES {
            self.counters.overflowed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        inbox.messages.push_back(message);
        drop(inbox);
        self.work.notify_one();
    }

    pub(super) fn renewed(&self) {
        self.inbox().renewed = true;
        self.work.notify_one();
    }

    pub(super) fn stop(&self) {
        self.inbox().stop = true;
        self.work.notify_one();
    }
}

/// How far an origin is stored.
struct Progress {
    id: i64,
    host: String,
    /// Everything up to here is stored, or will never come.
    stored: u64,
    /// The highest sequence that arrived.
    seen: u64,
    /// Arrived after a gap, waiting for it to close: events of an origin are stored in their order.
    held: BTreeMap<u64, Message>,
    /// A receipt is due.
    due: bool,
    told: Option<Instant>,
    /// What the last receipt said.
    told_stored: u64,
}

/// The origins that spoke.
#[derive(Default)]
struct Origins {
    known: BTreeMap<String, Progress>,
    /// Those that a receipt is due for, because the batch concerned them.
    touched: BTreeSet<String>,
    held_bytes: usize,
}

impl Origins {
    fn hold(&mut self, origin: &str, sequence: u64, message: Message) {
        let bytes = message.payload.len();
        if self.held_bytes.saturating_add(bytes) > HELD_MAX_BYTES {
            return;
        }
        if let Some(progress) = self.known.get_mut(origin)
            && progress.held.len() < HELD_MAX_EVENTS
            && progress.held.insert(sequence, message).is_none()
        {
            self.held_bytes += bytes;
        }
    }

    /// The held event that is next, if it is there. Forgets those that are stored.
    fn next_held(&mut self, origin: &str) -> Option<Message> {
        let progress = self.known.get_mut(origin)?;
        loop {
            let entry = progress.held.first_entry()?;
            let sequence = *entry.key();
            if sequence > progress.stored.saturating_add(1) {
                return None;
            }
            let message = entry.remove();
            self.held_bytes = self.held_bytes.saturating_sub(message.payload.len());
            if sequence > progress.stored {
                return Some(message);
            }
        }
    }

    fn forget(&mut self) {
        *self = Self::default();
    }
}

/// The file of the records, as it was opened. SQLite writes on to a file whose name was deleted or given to another one, and all of it is gone when
/// the process ends: a receipt for that would make a host forget what nobody has.
struct Place {
    path: Option<PathBuf>,
    opened: Option<(u64, u64)>,
}

impl Place {
    fn of(connection: &Connection) -> Self {
        let path = connection.path().filter(|path| !path.is_empty()).map(PathBuf::from);
        let opened = path.as_deref().and_then(device_and_inode);
        Self { path, opened }
    }

    /// What is wrong, if another file, or none, is where this one was.
    fn problem(&self) -> Option<String> {
        let path = self.path.as_deref().filter(|_| self.opened.is_some())?;
        (device_and_inode(path) != self.opened).then(|| {
            format!(
                "{} was moved, deleted or replaced while it is written to; put it back, or end this process and start it again: the hosts send what has \
                 no receipt",
                path.display()
            )
        })
    }
}

/// Tells one file from another; none where the system has no such thing, or no such file.
fn device_and_inode(path: &Path) -> Option<(u64, u64)> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
    }
    #[cfg(not(unix))]
    {
        let _no_inodes = path;
        None
    }
}

/// The writer. Runs on a thread of its own until it is told to stop.
pub(super) struct Recorder {
    desk: Arc<Desk>,
    link: LinkHandle,
    connection: Connection,
    place: Place,
    origins: Origins,
    chores: Chores,
    rejection_logged: Option<Instant>,
}

impl Recorder {
    pub(super) fn new(desk: Arc<Desk>, link: LinkHandle, connection: Connection, retention: Retention) -> Self {
        let chores = Chores::new(retention);
        let place = Place::of(&connection);
        Self { desk, link, connection, place, origins: Origins::default(), chores, rejection_logged: None }
    }

    pub(super) fn run(mut self) {
        loop {
            let (batch, stop) = self.take();
            if !batch.is_empty() {
                self.record(&batch);
            }
            self.send_receipts(stop);
            if stop {
                return;
            }
            // Between batches, however many wait: what is old must go under load, too.
            if self.chores.wait().is_zero() {
                self.tidy_up();
            }
        }
    }

    fn tidy_up(&mut self) {
        let begun = Instant::now();
        let done = self.chores.step(&mut self.connection);
        let counters = &self.desk.counters;
        counters.deleted_events.fetch_add(done.events, Ordering::Relaxed);
        counters.deleted_rooms.fetch_add(done.rooms, Ordering::Relaxed);
        let took_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        counters.chore_longest_us.fetch_max(took_us, Ordering::Relaxed);
    }

    /// Waits for messages, for a receipt that is due, or for the end.
    fn take(&mut self) -> (Vec<Message>, bool) {
        let desk = Arc::clone(&self.desk);
        let mut inbox = desk.inbox();
        loop {
            if std::mem::take(&mut inbox.renewed) {
                for progress in self.origins.known.values_mut() {
                    progress.due = true;
                    progress.told = None;
                }
            }
            let count = inbox.messages.len().min(BATCH_MAX_MESSAGES);
            if count > 0 {
                let stop = inbox.stop && inbox.messages.len() == count;
                return (inbox.messages.drain(..count).collect(), stop);
            }
            if inbox.stop {
                return (Vec::new(), true);
            }
            let chore = self.chores.wait();
            let wait = self.next_receipt().map_or(chore, |receipt| receipt.min(chore));
            if wait.is_zero() {
                return (Vec::new(), false);
            }
            inbox = self.desk.work.wait_timeout(inbox, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How long until a receipt may be sent; none if none is due, or if there is nobody to send it through.
    fn next_receipt(&self) -> Option<Duration> {
        if !self.link.is_connected() {
            return None;
        }
        let now = Instant::now();
        self.origins
            .known
            .values()
            .filter(|progress| progress.due)
            .map(|progress| {
                progress.told.map_or(Duration::ZERO, |told| RECEIPT_EVERY.saturating_sub(now.duration_since(told)))
            })
            .min()
    }

    fn send_receipts(&mut self, all: bool) {
        let now = Instant::now();
        for (origin, progress) in &mut self.origins.known {
            let soon = progress.told.is_some_and(|told| now.duration_since(told) < RECEIPT_EVERY);
            let many = progress.stored.saturating_sub(progress.told_stored) >= RECEIPT_EVENTS;
            if !progress.due || (soon && !many && !all) {
                continue;
            }
            let receipt = Receipt::Stored {
                origin: origin.clone(),
                stored: progress.stored,
                gap: progress.seen > progress.stored,
            };
            let payload = serde_json::to_vec(&receipt).unwrap_or_default();
            // Not taken means not connected: the next connection makes it due again.
            if self.link.publish(None, &topics::stored(&progress.host), payload, false, false, Content::Json).is_ok() {
                progress.due = false;
                progress.told = Some(now);
                progress.told_stored = progress.stored;
            } else {
                return;
            }
        }
        if self.origins.known.len() > ORIGINS_MAX {
            self.origins.known.retain(|_, progress| progress.due || !progress.held.is_empty());
        }
    }

    /// Stores a batch and acknowledges it, however often it takes.
    fn record(&mut self, batch: &[Message]) {
        let mut pause = RETRY_MIN;
        let mut last_tries = 0;
        loop {
            let written = match self.place.problem() {
                None => self.transact(batch).map_err(|error| error.to_string()),
                Some(problem) => Err(problem),
            };
            match written {
                Ok(tally) => {
                    let counters = &self.desk.counters;
                    counters.stored.fetch_add(tally.stored, Ordering::Relaxed);
                    counters.duplicates.fetch_add(tally.duplicates, Ordering::Relaxed);
                    counters.rejected.fetch_add(tally.rejected, Ordering::Relaxed);
                    counters.batches.fetch_add(1, Ordering::Relaxed);
                    if tally.newest > 0 {
                        self.desk.committed.send_replace(tally.newest);
                    }
                    if tally.loaded {
                        self.chores.wake();
                    }
                    break;
                }
                Err(error) => {
                    // What was rolled back is not stored. What was held comes again.
                    self.origins.forget();
                    tracing::error!(error, messages = batch.len(), "cannot write the records; trying again");
                    if self.desk.inbox().stop {
                        last_tries += 1;
                        if last_tries >= LAST_TRIES_MAX {
                            tracing::error!("gave up; the hosts keep these events and send them again");
                            return;
                        }
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
        for ack in batch.iter().filter_map(|message| message.ack) {
            if !self.acknowledge(ack) {
                break;
            }
        }
    }

    /// Says whether the next may be acknowledged, too. A lost connection is why not: the broker delivers again, and
    /// duplicates are known.
    fn acknowledge(&self, ack: Ack) -> bool {
        for _ in 0..ACK_TRIES_MAX {
            match self.link.ack(ack) {
                Ok(()) => return true,
                Err(Refused::NotConnected | Refused::TooLarge) => return false,
                // An acknowledgement that is left out would take a place of the broker's window for ever.
                Err(Refused::Full) => std::thread::sleep(ACK_PAUSE),
            }
        }
        self.link.reconnect();
        false
    }

    fn transact(&mut self, batch: &[Message]) -> rusqlite::Result<Tally> {
        let tally = transact(&mut self.connection, &mut self.origins, batch)?;
        if let Some(reason) = &tally.reason {
            let now = Instant::now();
            if self.rejection_logged.is_none_or(|then| now.duration_since(then) >= REJECTION_LOG_EVERY) {
                self.rejection_logged = Some(now);
                tracing::warn!(
                    reason,
                    rejected = tally.rejected,
                    "messages could not be used; see the table `rejected`"
                );
            }
        }
        Ok(tally)
    }
}

/// Stores a batch in one transaction.
fn transact(connection: &mut Connection, origins: &mut Origins, batch: &[Message]) -> rusqlite::Result<Tally> {
    let mut tally = Tally::default();
    // From the start as a writer: one that reads first and is overtaken by another program may not write any more.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut work = Work { connection: &transaction, origins, tally: &mut tally };
    for message in batch {
        if message.topic.ends_with("/outbox") {
            work.take_floors(message)?;
        } else {
            work.take_event(message)?;
        }
    }
    for origin in std::mem::take(&mut origins.touched) {
        if let Some(progress) = origins.known.get_mut(&origin) {
            progress.due = true;
            transaction
                .prepare_cached("UPDATE origins SET stored = ?2 WHERE id = ?1")?
                .execute(params![progress.id, signed(progress.stored)])?;
        }
    }
    if tally.rejected > 0 {
        transaction
            .prepare_cached("DELETE FROM rejected WHERE id <= (SELECT MAX(id) FROM rejected) - ?1")?
            .execute([REJECTED_MAX_ROWS])?;
    }
    transaction.commit()?;
    Ok(tally)
}

#[derive(Default)]
struct Tally {
    stored: u64,
    duplicates: u64,
    rejected: u64,
    reason: Option<String>,
    /// The id of the last event.
    newest: i64,
    /// A module was loaded, whose leaderboards may be news.
    loaded: bool,
}

/// One batch within its transaction.
struct Work<'a> {
    connection: &'a Connection,
    origins: &'a mut Origins,
    tally: &'a mut Tally,
}

impl Work<'_> {
    /// The progress of an origin, from memory or from the file. None if the origin belongs to another host.
    fn progress(&mut self, origin: &str, host: &str) -> rusqlite::Result<Option<&mut Progress>> {
        if !self.origins.known.contains_key(origin) {
            let found: Option<(i64, String, i64)> = self
                .connection
                .prepare_cached("SELECT id, host, stored FROM origins WHERE origin = ?1")?
                .query_row([origin], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?;
            let (id, owner, stored) = match found {
                Some(found) => found,
                // A host's origins begin with its id, which has no dot. Without this, whoever may speak for one host could take the origin of another
                // before the records have heard of it, and the other's events would be refused from then on.
                None if origin.strip_prefix(host).is_none_or(|rest| !rest.starts_with('.')) => return Ok(None),
                None => {
                    self.connection
                        .prepare_cached("INSERT INTO origins (origin, host) VALUES (?1, ?2)")?
                        .execute(params![origin, host])?;
                    (self.connection.last_insert_rowid(), host.to_owned(), 0)
                }
            };
            let stored = u64::try_from(stored).unwrap_or(0);
            let progress = Progress {
                id,
                host: owner,
                stored,
                seen: stored,
                held: BTreeMap::new(),
                due: false,
                told: None,
                told_stored: stored,
            };
            self.origins.known.insert(origin.to_owned(), progress);
        }
        Ok(self.origins.known.get_mut(origin).filter(|progress| progress.host == host))
    }

    fn take_event(&mut self, message: &Message) -> rusqlite::Result<()> {
        let parsed = CloudEvent::parse(&message.payload);
        let (origin, sequence, host) = match &parsed {
            Ok(event) => {
                let topic = topics::event(&event.host, event.module.as_deref(), &event.kind);
                if topic != message.topic {
                    let reason = format!("the event says that its topic is {topic}, but it came on another");
                    return self.reject(message, reason);
                }
                (event.origin.clone(), event.sequence, event.host.clone())
            }
            Err(error) => {
                // With an identity it takes its place in the order, so that its host does not send it for ever.
                let identity = CloudEvent::identity(&message.payload);
                match (identity, topics::host_of(&message.topic)) {
                    (Some((origin, sequence)), Some(host)) => (origin, sequence, host.to_owned()),
                    _ => return self.reject(message, error.to_string()),
                }
            }
        };
        let Some(progress) = self.progress(&origin, &host)? else {
            return self.reject(message, format!("origin {origin} belongs to another host"));
        };
        progress.seen = progress.seen.max(sequence);
        let stored = progress.stored;
        if sequence == stored.saturating_add(1) {
            self.store(message, parsed, sequence, &origin)?;
            self.store_held(&origin)?;
        } else if sequence <= stored {
            self.tally.duplicates += 1;
        } else {
            self.origins.hold(&origin, sequence, message.clone());
        }
        if !self.origins.touched.contains(&origin) {
            self.origins.touched.insert(origin);
        }
        Ok(())
    }

    /// Stores what waited for the event that was stored last.
    fn store_held(&mut self, origin: &str) -> rusqlite::Result<()> {
        while let Some(message) = self.origins.next_held(origin) {
            let parsed = CloudEvent::parse(&message.payload);
            let Some(progress) = self.origins.known.get(origin) else {
                return Ok(());
            };
            let sequence = progress.stored.saturating_add(1);
            self.store(&message, parsed, sequence, origin)?;
        }
        Ok(())
    }

    /// Stores the next event of an origin, or the fact that it cannot be used.
    fn store(
        &mut self,
        message: &Message,
        parsed: Result<CloudEvent, CloudEventError>,
        sequence: u64,
        origin: &str,
    ) -> rusqlite::Result<()> {
        let Some(progress) = self.origins.known.get_mut(origin) else {
            return Ok(());
        };
        let id = progress.id;
        progress.stored = sequence;
        let event = match parsed {
            Ok(event) => event,
            Err(error) => return self.reject(message, error.to_string()),
        };
        let json = match std::str::from_utf8(&message.payload) {
            Ok(json) => json,
            // JSON that was parsed is UTF-8.
            Err(error) => return self.reject(message, error.to_string()),
        };
        let inserted = self
            .connection
            .prepare_cached(
                "INSERT INTO events (origin, sequence, time, kind, room, module, json)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (origin, sequence) DO NOTHING",
            )?
            .execute(params![
                id,
                signed(event.sequence),
                rfc3339(event.time),
                event.kind,
                event.room,
                event.module,
                json
            ])?;
        if inserted == 0 {
            self.tally.duplicates += 1;
            return Ok(());
        }
        self.tally.stored += 1;
        self.tally.newest = self.connection.last_insert_rowid();
        self.tally.loaded |= event.kind == ModuleLoaded::KIND;
        match derive(self.connection, &event) {
            Ok(()) => Ok(()),
            Err(DeriveError::Event(reason)) => self.reject(message, reason),
            Err(DeriveError::Database(error)) => Err(error),
        }
    }

    fn take_floors(&mut self, message: &Message) -> rusqlite::Result<()> {
        let Some(host) = topics::host_of(&message.topic) else {
            return self.reject(message, "the topic names no host".to_owned());
        };
        let floors: Floors = match serde_json::from_slice(&message.payload) {
            Ok(floors) => floors,
            Err(error) => return self.reject(message, error.to_string()),
        };
        for Floor { origin, floor } in floors.origins {
            if !is_origin(&origin) || i64::try_from(floor).is_err() {
                return self.reject(message, "an origin or a floor is none".to_owned());
            }
            // An origin of which everything is still to come needs no row yet.
            if floor == 0 && !self.origins.known.contains_key(&origin) {
                continue;
            }
            let Some(progress) = self.progress(&origin, host)? else {
                return self.reject(message, format!("origin {origin} belongs to another host"));
            };
            progress.seen = progress.seen.max(floor);
            progress.stored = progress.stored.max(floor);
            self.store_held(&origin)?;
            self.origins.touched.insert(origin);
        }
        Ok(())
    }

    fn reject(&mut self, message: &Message, reason: String) -> rusqlite::Result<()> {
        reject(self.connection, message, &reason)?;
        self.tally.rejected += 1;
        self.tally.reason = Some(reason);
        Ok(())
    }
}

fn reject(connection: &Connection, message: &Message, reason: &str) -> rusqlite::Result<()> {
    let kept = message.payload.get(..REJECTED_MAX_BYTES).unwrap_or(&message.payload);
    connection
        .prepare_cached("INSERT INTO rejected (received_at, topic, reason, payload) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![rfc3339(SystemTime::now()), message.topic, reason, kept])?;
    Ok(())
}

/// Sequences have 16 digits at most, so they fit.
fn signed(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

/// The recorder without a link, for [`crate::fuzzing`].
pub(crate) struct Offline {
    connection: Connection,
    origins: Origins,
}

impl Offline {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection, origins: Origins::default() }
    }

    /// Stores a batch of topics and payloads; gives how many events were new, known, and not of use.
    pub(crate) fn take(&mut self, batch: &[(String, Vec<u8>)]) -> rusqlite::Result<(u64, u64, u64)> {
        let message = |(topic, payload): &(String, Vec<u8>)| Message {
            topic: topic.clone(),
            payload: payload.clone(),
            ack: None,
        };
        let batch: Vec<Message> = batch.iter().map(message).collect();
        let tally = transact(&mut self.connection, &mut self.origins, &batch)?;
        Ok((tally.stored, tally.duplicates, tally.rejected))
    }

    /// Every event, by origin and sequence, as its JSON.
    pub(crate) fn events(&self) -> rusqlite::Result<Vec<(String, u64, String)>> {
        let sql = "SELECT o.origin, e.sequence, e.json FROM events e JOIN origins o ON o.id = e.origin ORDER BY 1, 2";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs(), row.get(2)?));
        self.connection.prepare_cached(sql)?.query_map([], row)?.collect()
    }

    /// Empties every table but that of the records' own name.
    pub(crate) fn clear(&mut self) -> rusqlite::Result<()> {
        self.origins.forget();
        let transaction = self.connection.transaction()?;
        transaction.execute_batch("PRAGMA defer_foreign_keys = ON")?;
        let tables: Vec<String> = transaction
            .prepare_cached(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'meta'",
            )?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for table in tables {
            transaction.prepare_cached(&format!("DELETE FROM {table}"))?.execute([])?;
        }
        transaction.commit()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn records_that_lost_their_name_are_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, path) = super::super::records::open(dir.path()).unwrap();
        let place = Place::of(&connection);
        assert_eq!(place.problem(), None);
        let aside = dir.path().join("aside");
        std::fs::rename(&path, &aside).unwrap();
        assert!(place.problem().unwrap().contains("was moved, deleted or replaced"));
        std::fs::write(&path, b"another").unwrap();
        assert!(place.problem().is_some());
        std::fs::rename(&aside, &path).unwrap();
        assert_eq!(place.problem(), None);
        // Records in memory have no place that they could lose.
        assert_eq!(Place::of(&Connection::open_in_memory().unwrap()).problem(), None);
    }
}
