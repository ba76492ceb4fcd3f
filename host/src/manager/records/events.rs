//! Events in the order of recording, for those who follow them.

use rusqlite::params;

use super::{EVENT_COLUMNS, EventRecord, Records, RecordsError, event};

/// Events that are looked at in one go: a millisecond or two, whatever is asked for.
const LOOK_ROWS_MAX: usize = 1_000;

/// What an event takes in an answer beside its own JSON, in bytes: the columns, with names at their usual length.
const COLUMNS_BYTES: usize = 300;

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedQuery {
    /// Of this room.
    pub room: Option<String>,
    /// Of kinds that begin with this.
    pub kind: Option<String>,
}

/// Some events, and how far was looked.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedPage {
    /// The events.
    pub events: Vec<EventRecord>,
    /// The last event that was looked at, whether it is one of these or not.
    pub cursor: i64,
    /// Whether there may be more.
    pub more: bool,
}

impl Records {
    /// Events after the one with id `after`, until what they take in an answer has reached about `bytes_max`.
    ///
    /// # Errors
    /// [`RecordsError::Sqlite`].
    pub fn feed(&self, query: &FeedQuery, after: i64, bytes_max: usize) -> Result<FeedPage, RecordsError> {
        let condition = if query.room.is_some() { "e.room = ?3 AND" } else { "?3 IS NULL AND" };
        self.read(|connection| {
            let mut select = connection.prepare_cached(&format!(
                "SELECT {EVENT_COLUMNS} WHERE {condition} e.id > ?1 ORDER BY e.id LIMIT ?2"
            ))?;
            let mut rows = select.query(params![after, LOOK_ROWS_MAX as i64, query.room])?;
            let mut page = FeedPage { events: Vec::new(), cursor: after, more: false };
            let (mut looked, mut bytes) = (0_usize, 0_usize);
            while let Some(row) = rows.next()? {
                looked += 1;
                page.cursor = row.get("id")?;
                let kind = row.get_ref("kind")?.as_str()?;
                if query.kind.as_ref().is_none_or(|prefix| kind.starts_with(prefix.as_str())) {
                    bytes = bytes.saturating_add(row.get_ref("json")?.as_str()?.len()).saturating_add(COLUMNS_BYTES);
                    page.events.push(event(row)?);
                }
                if bytes >= bytes_max {
                    page.more = true;
                    return Ok(page);
                }
            }
            page.more = looked >= LOOK_ROWS_MAX;
            Ok(page)
        })
    }
}
