//! Rows of the outbox that can never be recorded: what somebody, or a disk, has made of them cannot be sent, or not be taken by any manager. Behind one of them
//! all later events would wait for ever. So it is set aside in a table of its own, whole and with the reason, and what is behind it goes on. Nothing is
//! lost in silence: the log, the metrics and the doctor tell of it, and the row stays until somebody deletes it.

use std::time::SystemTime;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::cloudevent::{CloudEvent, rfc3339};
use super::outbox::OutboxRow;
use super::topics;

/// Events that are set aside at most. Beyond it nobody has looked for long, or the outbox is not damaged in single rows: it stops, and says so.
pub(crate) const SET_ASIDE_MAX_EVENTS: u64 = 1_000;
/// Longest topic, in bytes (MQTT 5.0, section 1.5.4: a string has a length of 16 bits).
const TOPIC_MAX_BYTES: usize = u16::MAX as usize;

/// A row that can never be recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event at position {position} of the table `outbox` is damaged: {reason}")]
pub(crate) struct Damage {
    /// Its row.
    pub(crate) position: i64,
    /// What is wrong with it.
    pub(crate) reason: String,
}

/// Why rows could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    /// The first of them is damaged.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// SQLite says this.
    #[error("{0}")]
    Sqlite(String),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error.to_string())
    }
}

/// Makes the table, in files that do not have it yet. A program that does not know it passes it over.
pub(crate) const SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS set_aside (id INTEGER PRIMARY KEY, at TEXT NOT NULL, reason TEXT NOT NULL,
     origin TEXT NOT NULL, sequence INTEGER NOT NULL, position INTEGER NOT NULL, topic, payload);";

/// Events that are set aside; none in a file that has no such table.
pub(crate) fn count(connection: &Connection) -> rusqlite::Result<u64> {
    let has_table = connection
        .query_row("SELECT 1 FROM sqlite_schema WHERE name = 'set_aside'", [], |_| Ok(()))
        .optional()?
        .is_some();
    if !has_table {
        return Ok(0);
    }
    let count: i64 = connection.query_row("SELECT COUNT(*) FROM set_aside", [], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// What a row of position, topic and payload holds, if it can be sent at all.
pub(crate) fn read(row: &Row<'_>) -> Result<OutboxRow, ReadError> {
    let position = row.get(0)?;
    let damage = |reason: String| Damage { position, reason };
    let kind = |value: ValueRef<'_>| value.data_type().to_string().to_lowercase();
    let (topic, payload) = (row.get_ref(1)?, row.get_ref(2)?);
    let ValueRef::Blob(payload) = payload else {
        return Err(damage(format!("its payload is of type {} and not blob", kind(payload))).into());
    };
    let topic = topic.as_str().map_err(|_| damage(format!("its topic, of type {}, is no text", kind(topic))))?;
    if topic.len() > TOPIC_MAX_BYTES || topic.contains(['+', '#', '\0']) || topics::host_of(topic).is_none() {
        return Err(damage(format!("its topic {:?} is none of a host's", shortened(topic))).into());
    }
    Ok(OutboxRow { position, topic: topic.to_owned(), payload: payload.to_vec() })
}

/// Why no manager would ever take this event for the one that it has to be, by its origin and sequence; or that it would. A manager takes also what it
/// cannot use, if it has its identity: it keeps it among what it rejected, and goes on.
pub(crate) fn judge(row: &OutboxRow, origin: &str, sequence: u64) -> Result<(), Damage> {
    let damage = |reason: String| Damage { position: row.position, reason };
    let (found, found_sequence) = match CloudEvent::parse(&row.payload) {
        Ok(event) => {
            let topic = topics::event(&event.host, event.module.as_deref(), &event.kind);
            if topic != row.topic {
                let found = shortened(&row.topic);
                return Err(damage(format!("its topic is {found:?}, and by its payload should be {topic:?}")));
            }
            (event.origin, event.sequence)
        }
        Err(error) => CloudEvent::identity(&row.payload).ok_or_else(|| damage(format!("in its payload {error}")))?,
    };
    if (found.as_str(), found_sequence) == (origin, sequence) {
        return Ok(());
    }
    Err(damage(format!(
        "it says that it is event {found_sequence} of {found}, and should be event {sequence} of {origin}"
    )))
}

/// What was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SetAside {
    /// Bytes of topic and payload that the outbox has less.
    pub(crate) bytes: u64,
    /// Events that are set aside now.
    pub(crate) events: u64,
}

/// Moves a row out of the way. None if it is not there any more.
pub(crate) fn set_aside(
    connection: &mut Connection,
    damage: &Damage,
    origin: &str,
    sequence: u64,
) -> Result<Option<SetAside>, String> {
    let mut move_row = || -> rusqlite::Result<Result<Option<SetAside>, String>> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let before = count(&transaction)?;
        if before >= SET_ASIDE_MAX_EVENTS {
            return Ok(Err(format!("{before} events are set aside already, as many as may be")));
        }
        let bytes: Option<i64> = transaction
            .query_row(
                "SELECT COALESCE(LENGTH(topic), 0) + COALESCE(LENGTH(payload), 0) FROM outbox WHERE position = ?1",
                [damage.position],
                |row| row.get(0),
            )
            .optional()?;
        let Some(bytes) = bytes else { return Ok(Ok(None)) };
        transaction.execute(
            "INSERT INTO set_aside (at, reason, origin, sequence, position, topic, payload)
             SELECT ?2, ?3, ?4, ?5, position, topic, payload FROM outbox WHERE position = ?1",
            params![
                damage.position,
                rfc3339(SystemTime::now()),
                damage.reason,
                origin,
                i64::try_from(sequence).unwrap_or(i64::MAX)
            ],
        )?;
        transaction.execute("DELETE FROM outbox WHERE position = ?1", [damage.position])?;
        transaction.commit()?;
        Ok(Ok(Some(SetAside { bytes: u64::try_from(bytes).unwrap_or(0), events: before + 1 })))
    };
    move_row().map_err(|error| error.to_string())?
}

/// The beginning of what may be anything.
fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}
