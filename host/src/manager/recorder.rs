//! The thread that writes the records: it takes what the link brings, stores a batch in one transaction, acknowledges
//! it after the commit and sends the hosts their receipts. A message that cannot be used goes to the table `rejected`;
//! none holds up the queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, OptionalExtension, params};

use super::derive::{DeriveError, derive};
use crate::events::cloudevent::{CloudEvent, rfc3339};
use crate::events::link::{LinkHandle, Message};
use crate::events::publisher::{Floors, Receipt};
use crate::events::topics;

/// Messages in one transaction: beyond this, larger batches gain nothing (measured: 395,000 rows/s at 100, 551,000 at 1,000).
const BATCH_MAX_MESSAGES: usize = 1000;

/// Messages that wait for the writer. A broker sends no more than its in-flight limit before acknowledgements come
/// (the embedded one 500); this is for one without such a limit.
const QUEUE_MAX_MESSAGES: usize = 20_000;

/// Least time between two receipts for the same origin.
const RECEIPT_EVERY: Duration = Duration::from_millis(50);

/// Rows in `rejected`; the oldest go.
const REJECTED_MAX_ROWS: i64 = 1000;

/// Bytes that are kept of a rejected message.
const REJECTED_MAX_BYTES: usize = 16 * 1024;

/// Origins whose progress is kept in memory. Others are read again when they speak.
const ORIGINS_MAX: usize = 1024;

/// Sequences after a gap that are remembered per origin. Beyond, they are stored but must be sent again to count.
const BEYOND_MAX: usize = 250_000;

/// Pause before a failed write is tried again; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);

/// Longest pause before a failed write is tried again.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Tries to write what is left when the manager is stopped. What is given up is not acknowledged, so it comes again.
const LAST_TRIES_MAX: u32 = 3;

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
    /// Stored after a gap.
    beyond: BTreeSet<u64>,
    /// A receipt is due.
    due: bool,
    told: Option<Instant>,
}

impl Progress {
    fn note(&mut self, sequence: u64) {
        if sequence > self.stored && self.beyond.len() < BEYOND_MAX {
            self.beyond.insert(sequence);
        }
        self.absorb();
    }

    fn raise(&mut self, floor: u64) {
        if floor > self.stored {
            self.stored = floor;
            self.beyond = self.beyond.split_off(&floor.saturating_add(1));
        }
        self.absorb();
    }

    fn absorb(&mut self) {
        while self.stored.checked_add(1).is_some_and(|next| self.beyond.remove(&next)) {
            self.stored += 1;
        }
    }
}

/// The writer. Runs on a thread of its own until it is told to stop.
pub(super) struct Recorder {
    desk: Arc<Desk>,
    link: LinkHandle,
    connection: Connection,
    origins: BTreeMap<String, Progress>,
    rejection_logged: Option<Instant>,
}

impl Recorder {
    pub(super) fn new(desk: Arc<Desk>, link: LinkHandle, connection: Connection) -> Self {
        Self { desk, link, connection, origins: BTreeMap::new(), rejection_logged: None }
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
        }
    }

    /// Waits for messages, for a receipt that is due, or for the end.
    fn take(&mut self) -> (Vec<Message>, bool) {
        let desk = Arc::clone(&self.desk);
        let mut inbox = desk.inbox();
        loop {
            if std::mem::take(&mut inbox.renewed) {
                for progress in self.origins.values_mut() {
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
            match self.next_receipt() {
                Some(wait) if wait.is_zero() => return (Vec::new(), false),
                Some(wait) => {
                    inbox = self.desk.work.wait_timeout(inbox, wait).unwrap_or_else(PoisonError::into_inner).0;
                }
                None => {
                    inbox = self.desk.work.wait(inbox).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// How long until a receipt may be sent; none if none is due, or if there is nobody to send it through.
    fn next_receipt(&self) -> Option<Duration> {
        if !self.link.is_connected() {
            return None;
        }
        let now = Instant::now();
        self.origins
            .values()
            .filter(|progress| progress.due)
            .map(|progress| {
                progress.told.map_or(Duration::ZERO, |told| RECEIPT_EVERY.saturating_sub(now.duration_since(told)))
            })
            .min()
    }

    fn send_receipts(&mut self, all: bool) {
        let now = Instant::now();
        for (origin, progress) in &mut self.origins {
            let soon = progress.told.is_some_and(|told| now.duration_since(told) < RECEIPT_EVERY);
            if !progress.due || (soon && !all) {
                continue;
            }
            let receipt =
                Receipt::Stored { origin: origin.clone(), stored: progress.stored, gap: !progress.beyond.is_empty() };
            let payload = serde_json::to_vec(&receipt).unwrap_or_default();
            // Not taken means not connected: the next connection makes it due again.
            if self.link.publish(None, &topics::stored(&progress.host), payload, false, false).is_ok() {
                progress.due = false;
                progress.told = Some(now);
            } else {
                return;
            }
        }
        if self.origins.len() > ORIGINS_MAX {
            self.origins.retain(|_, progress| progress.due || !progress.beyond.is_empty());
        }
    }

    /// Stores a batch and acknowledges it, however often it takes.
    fn record(&mut self, batch: &[Message]) {
        let mut pause = RETRY_MIN;
        let mut last_tries = 0;
        loop {
            match self.transact(batch) {
                Ok(tally) => {
                    let counters = &self.desk.counters;
                    counters.stored.fetch_add(tally.stored, Ordering::Relaxed);
                    counters.duplicates.fetch_add(tally.duplicates, Ordering::Relaxed);
                    counters.rejected.fetch_add(tally.rejected, Ordering::Relaxed);
                    counters.batches.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Err(error) => {
                    // What was rolled back is not stored.
                    self.origins.clear();
                    tracing::error!(%error, messages = batch.len(), "cannot write the records; trying again");
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
            // A lost connection is why not; the broker delivers again, and duplicates are known.
            if self.link.ack(ack).is_err() {
                break;
            }
        }
    }

    fn transact(&mut self, batch: &[Message]) -> rusqlite::Result<Tally> {
        let mut tally = Tally::default();
        let transaction = self.connection.transaction()?;
        let mut touched: BTreeSet<String> = BTreeSet::new();
        for message in batch {
            let outcome = if message.topic.ends_with("/outbox") {
                take_floors(&transaction, &mut self.origins, message, &mut touched)?
            } else {
                take_event(&transaction, &mut self.origins, message, &mut touched)?
            };
            match outcome {
                Outcome::Stored => tally.stored += 1,
                Outcome::Duplicate => tally.duplicates += 1,
                Outcome::Noted => {}
                Outcome::StoredBut(reason) => {
                    tally.stored += 1;
                    tally.rejected += 1;
                    reject(&transaction, message, &reason)?;
                    tally.reason = Some(reason);
                }
                Outcome::Rejected(reason) => {
                    tally.rejected += 1;
                    reject(&transaction, message, &reason)?;
                    tally.reason = Some(reason);
                }
            }
        }
        for origin in &touched {
            if let Some(progress) = self.origins.get_mut(origin) {
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

#[derive(Default)]
struct Tally {
    stored: u64,
    duplicates: u64,
    rejected: u64,
    reason: Option<String>,
}

enum Outcome {
    Stored,
    /// Stored, but no rows could be derived from it.
    StoredBut(String),
    Duplicate,
    Rejected(String),
    /// A note about an outbox.
    Noted,
}

/// The progress of an origin, from memory or from the file. None if the origin belongs to another host.
fn progress<'a>(
    connection: &Connection,
    origins: &'a mut BTreeMap<String, Progress>,
    origin: &str,
    host: &str,
) -> rusqlite::Result<Option<&'a mut Progress>> {
    if !origins.contains_key(origin) {
        let found: Option<(i64, String, i64)> = connection
            .prepare_cached("SELECT id, host, stored FROM origins WHERE origin = ?1")?
            .query_row([origin], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let (id, owner, stored) = match found {
            Some(found) => found,
            None => {
                connection
                    .prepare_cached("INSERT INTO origins (origin, host) VALUES (?1, ?2)")?
                    .execute(params![origin, host])?;
                (connection.last_insert_rowid(), host.to_owned(), 0)
            }
        };
        let beyond = connection
            .prepare_cached(
                "SELECT sequence FROM events WHERE origin = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
            )?
            .query_map(params![id, stored, BEYOND_MAX as i64], |row| row.get::<_, i64>(0))?
            .map(|sequence| sequence.map(|sequence| u64::try_from(sequence).unwrap_or(0)))
            .collect::<rusqlite::Result<_>>()?;
        let mut progress =
            Progress { id, host: owner, stored: u64::try_from(stored).unwrap_or(0), beyond, due: false, told: None };
        progress.absorb();
        origins.insert(origin.to_owned(), progress);
    }
    Ok(origins.get_mut(origin).filter(|progress| progress.host == host))
}

fn take_event(
    connection: &Connection,
    origins: &mut BTreeMap<String, Progress>,
    message: &Message,
    touched: &mut BTreeSet<String>,
) -> rusqlite::Result<Outcome> {
    let event = match CloudEvent::parse(&message.payload) {
        Ok(event) => event,
        Err(error) => {
            // Its host must not send it for ever.
            if let (Some(host), Some((origin, sequence))) =
                (topics::host_of(&message.topic), CloudEvent::identity(&message.payload))
                && let Some(progress) = progress(connection, origins, &origin, host)?
            {
                progress.note(sequence);
                touched.insert(origin);
            }
            return Ok(Outcome::Rejected(error.to_string()));
        }
    };
    if topics::event(&event.host, event.module.as_deref(), &event.kind) != message.topic {
        return Ok(Outcome::Rejected(format!(
            "the event says host {}, module {:?}, kind {}, but its topic says otherwise",
            event.host, event.module, event.kind
        )));
    }
    let Some(progress) = progress(connection, origins, &event.origin, &event.host)? else {
        return Ok(Outcome::Rejected(format!("origin {} belongs to another host", event.origin)));
    };
    let json = match std::str::from_utf8(&message.payload) {
        Ok(json) => json,
        // JSON that was parsed is UTF-8.
        Err(error) => return Ok(Outcome::Rejected(error.to_string())),
    };
    let inserted = connection
        .prepare_cached(
            "INSERT INTO events (origin, sequence, time, kind, room, module, json)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (origin, sequence) DO NOTHING",
        )?
        .execute(params![
            progress.id,
            signed(event.sequence),
            rfc3339(event.time),
            event.kind,
            event.room,
            event.module,
            json
        ])?;
    progress.note(event.sequence);
    if !touched.contains(&event.origin) {
        touched.insert(event.origin.clone());
    }
    if inserted == 0 {
        return Ok(Outcome::Duplicate);
    }
    match derive(connection, &event) {
        Ok(()) => Ok(Outcome::Stored),
        Err(DeriveError::Event(reason)) => Ok(Outcome::StoredBut(reason)),
        Err(DeriveError::Database(error)) => Err(error),
    }
}

fn take_floors(
    connection: &Connection,
    origins: &mut BTreeMap<String, Progress>,
    message: &Message,
    touched: &mut BTreeSet<String>,
) -> rusqlite::Result<Outcome> {
    let Some(host) = topics::host_of(&message.topic) else {
        return Ok(Outcome::Rejected("the topic names no host".to_owned()));
    };
    let floors: Floors = match serde_json::from_slice(&message.payload) {
        Ok(floors) => floors,
        Err(error) => return Ok(Outcome::Rejected(error.to_string())),
    };
    for floor in floors.origins {
        if !crate::events::cloudevent::is_origin(&floor.origin) || i64::try_from(floor.floor).is_err() {
            return Ok(Outcome::Rejected("an origin or a floor is none".to_owned()));
        }
        // An origin of which nothing was ever written needs no row.
        if floor.floor == 0 && !origins.contains_key(&floor.origin) {
            continue;
        }
        let Some(progress) = progress(connection, origins, &floor.origin, host)? else {
            return Ok(Outcome::Rejected(format!("origin {} belongs to another host", floor.origin)));
        };
        progress.raise(floor.floor);
        touched.insert(floor.origin);
    }
    Ok(Outcome::Noted)
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
