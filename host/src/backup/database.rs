//! One SQLite file of a data folder: copied while its host writes to it, and looked at afterwards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use super::Watch;
use crate::{events::outbox, manager::records};

/// Pages that are copied at a time: 4 MiB of the usual 4 KiB pages, between two looks at whether to stop.
const PAGES_PER_STEP: i32 = 1_024;
/// How long another connection is waited for.
const BUSY_MAX: Duration = Duration::from_secs(5);
/// Pause before a page that cannot be had is asked for again, and how often.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const RETRIES_MAX: u32 = 200;
/// Tables of one file: ours have a dozen. More is not a file of ours.
const TABLES_MAX: usize = 100;
/// Faults of a damaged file that are told.
const FAULTS_SHOWN_MAX: usize = 3;

/// The databases of a data folder, in the order in which they are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Events on their way.
    Outbox,
    /// Events that are recorded.
    Records,
}

impl Kind {
    /// The outbox first: see the module's documentation.
    pub(crate) const ALL: [Self; 2] = [Self::Outbox, Self::Records];

    pub(crate) const fn file(self) -> &'static str {
        match self {
            Self::Outbox => outbox::FILE,
            Self::Records => records::FILE,
        }
    }

    /// The newest layout that this program knows.
    pub(crate) const fn layout(self) -> i64 {
        match self {
            Self::Outbox => outbox::SCHEMA_VERSION,
            Self::Records => records::LAYOUT,
        }
    }
}

/// What is in a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Its layout (`PRAGMA user_version`).
    pub layout: i64,
    /// Rows of each table.
    pub rows: BTreeMap<String, u64>,
    /// The highest sequence of each origin that has events in it.
    pub origins: BTreeMap<String, u64>,
}

/// Why a database cannot be copied or is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseError {
    /// SQLite refused.
    #[error(
        "cannot use {path}: {reason}. If the disk is full, free some space; if only the host's user may read it, use that user; `holeshot doctor` says whether the file is damaged"
    )]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
    /// It is of a newer program.
    #[error("{path} has layout {found}, this program knows up to {known}: use the newer program")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
        /// The newest layout that is known.
        known: i64,
    },
    /// It is no file of ours.
    #[error("{path} is no database of a host")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// What is in it does not fit together.
    #[error("{path} is damaged: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        problem: String,
    },
    /// The work was told to stop.
    #[error("stopped")]
    Stopped,
}

/// A file that is open for reading, whoever writes to it meanwhile.
pub(crate) struct Reader {
    pub(crate) connection: Connection,
    kind: Kind,
    path: PathBuf,
}

impl Reader {
    /// Opens a database, and checks that it is one of ours that this program can read.
    pub(crate) fn open(kind: Kind, path: &Path) -> Result<Self, DatabaseError> {
        check_files(path)?;
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
                .map_err(|error| sqlite(path, &error))?;
        Self::of(connection, kind, path)
    }

    /// Opens a database that nobody has open, without making files beside it: what has no WAL is only read.
    pub(crate) fn open_untouched(kind: Kind, path: &Path) -> Result<Self, DatabaseError> {
        check_files(path)?;
        let mut uri = String::from("file:");
        for byte in path.as_os_str().as_encoded_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
                byte => uri.push_str(&format!("%{byte:02x}")),
            }
        }
        uri.push_str("?immutable=1");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(uri, flags).map_err(|error| sqlite(path, &error))?;
        Self::of(connection, kind, path)
    }

    fn of(connection: Connection, kind: Kind, path: &Path) -> Result<Self, DatabaseError> {
        connection.busy_timeout(BUSY_MAX).map_err(|error| sqlite(path, &error))?;
        let reader = Self { connection, kind, path: path.to_owned() };
        let layout = reader.number("PRAGMA user_version")?;
        let is_ours = match kind {
            Kind::Records => reader.number("PRAGMA application_id")? == records::APPLICATION_ID,
            Kind::Outbox => {
                reader.number("SELECT COUNT(*) FROM sqlite_schema WHERE name IN ('outbox', 'origins')")? == 2
            }
        };
        if !is_ours || layout < 1 {
            return Err(DatabaseError::Foreign { path: path.to_owned() });
        }
        if layout > kind.layout() {
            return Err(DatabaseError::Newer { path: path.to_owned(), found: layout, known: kind.layout() });
        }
        Ok(reader)
    }

    /// A number that SQLite tells.
    pub(crate) fn number(&self, sql: &str) -> Result<i64, DatabaseError> {
        self.connection.query_row(sql, [], |row| row.get(0)).map_err(|error| sqlite(&self.path, &error))
    }

    /// What is in it.
    pub(crate) fn facts(&self) -> Result<Facts, DatabaseError> {
        let read = || -> rusqlite::Result<(Vec<String>, BTreeMap<String, u64>)> {
            let mut select = self.connection.prepare(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name LIMIT ?1",
            )?;
            let tables = select.query_map([TABLES_MAX as i64 + 1], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let sql = match self.kind {
                Kind::Records => {
                    "SELECT o.origin, (SELECT MAX(sequence) FROM events WHERE origin = o.id) FROM origins AS o"
                }
                // An origin ends where the next one starts.
                Kind::Outbox => {
                    "SELECT o.origin, (SELECT MAX(position) FROM outbox WHERE position > o.start AND position <= COALESCE(
                         (SELECT MIN(start) FROM origins WHERE start > o.start), 9223372036854775807)) - o.start
                     FROM origins AS o"
                }
            };
            let mut select = self.connection.prepare(sql)?;
            let found = select.query_map([], |row| Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?)))?;
            let mut origins = BTreeMap::new();
            for origin in found {
                if let (origin, Some(highest)) = origin? {
                    origins.insert(origin, u64::try_from(highest).unwrap_or_default());
                }
            }
            Ok((tables, origins))
        };
        let (tables, origins) = read().map_err(|error| sqlite(&self.path, &error))?;
        if tables.len() > TABLES_MAX {
            return Err(DatabaseError::Foreign { path: self.path.clone() });
        }
        let mut rows = BTreeMap::new();
        for table in tables {
            let count = self.number(&format!("SELECT COUNT(*) FROM \"{}\"", table.replace('"', "\"\"")))?;
            rows.insert(table, u64::try_from(count).unwrap_or_default());
        }
        Ok(Facts { layout: self.number("PRAGMA user_version")?, rows, origins })
    }

    /// Looks for damage: every page, and with `thorough` also whether the indexes say what the tables say, and whether what a row names is there.
    pub(crate) fn check(&self, thorough: bool) -> Result<(), DatabaseError> {
        let pragma = if thorough { "integrity_check" } else { "quick_check" };
        let read = || -> rusqlite::Result<Vec<String>> {
            let mut select = self.connection.prepare(&format!("PRAGMA {pragma}({FAULTS_SHOWN_MAX})"))?;
            let mut faults: Vec<String> = select.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            faults.retain(|fault| fault != "ok");
            if thorough {
                let mut select = self.connection.prepare("PRAGMA foreign_key_check")?;
                let found = select.query_map([], |row| row.get::<_, String>(0))?;
                for table in found.take(FAULTS_SHOWN_MAX) {
                    faults.push(format!("a row of the table {} names one that is not there", table?));
                }
            }
            Ok(faults)
        };
        let faults = read().map_err(|error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                DatabaseError::Damaged { path: self.path.clone(), problem: error.to_string() }
            }
            _ => sqlite(&self.path, &error),
        })?;
        if faults.is_empty() {
            return Ok(());
        }
        Err(DatabaseError::Damaged { path: self.path.clone(), problem: faults.join("; ") })
    }

    /// Whether a table has a row of a room.
    pub(super) fn has_room(&self, table: &str, room: &str) -> Result<bool, DatabaseError> {
        self.connection
            .prepare_cached(&format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE room = ?1)"))
            .and_then(|mut select| select.query_row([room], |row| row.get(0)))
            .map_err(|error| sqlite(&self.path, &error))
    }
}

/// SQLite waits for the other end of a pipe in the place of a file.
fn check_files(path: &Path) -> Result<(), DatabaseError> {
    crate::files::check_database(path)
        .map_err(|error| DatabaseError::Sqlite { path: path.to_owned(), reason: error.to_string() })
}

fn sqlite(path: &Path, error: &rusqlite::Error) -> DatabaseError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt) => {
            DatabaseError::Damaged { path: path.to_owned(), problem: error.to_string() }
        }
        Some(rusqlite::ErrorCode::NotADatabase) => DatabaseError::Foreign { path: path.to_owned() },
        _ => DatabaseError::Sqlite { path: path.to_owned(), reason: error.to_string() },
    }
}

/// The length of a database in bytes, of its pages, not of its file: what is in the WAL counts.
pub(super) fn bytes_of(kind: Kind, path: &Path) -> Result<u64, DatabaseError> {
    let reader = Reader::open(kind, path)?;
    let (pages, page) = (reader.number("PRAGMA page_count")?, reader.number("PRAGMA page_size")?);
    Ok(u64::try_from(pages.saturating_mul(page)).unwrap_or_default())
}

/// Copies one moment of a database into a new file, while others write to it. Says what is in that moment.
pub(super) fn copy(kind: Kind, from: &Path, to: &Path, watch: &mut Watch<'_>) -> Result<Facts, DatabaseError> {
    let source = Reader::open(kind, from)?;
    // Without it every write of the host would begin the copy again. While it is held the WAL grows and is not cut back; the host notices nothing else.
    source.connection.execute_batch("BEGIN").map_err(|error| sqlite(from, &error))?;
    let facts = source.facts()?;
    let page_bytes = u64::try_from(source.number("PRAGMA page_size")?).unwrap_or_default();
    let target_error = |error: rusqlite::Error| sqlite(to, &error);
    {
        let mut target = Connection::open(to).map_err(target_error)?;
        // A copy that is not finished is deleted, so nothing has to be undone in it; it is synced when it is verified.
        pragma(&target, "journal_mode = OFF")
            .and_then(|()| pragma(&target, "synchronous = OFF"))
            .map_err(target_error)?;
        let backup = Backup::new(&source.connection, &mut target).map_err(target_error)?;
        let (mut copied, mut retries) = (0u64, 0);
        loop {
            let step = backup.step(PAGES_PER_STEP).map_err(target_error)?;
            let progress = backup.progress();
            let done = u64::try_from(progress.pagecount.saturating_sub(progress.remaining)).unwrap_or_default();
            watch.add(done.saturating_sub(copied).saturating_mul(page_bytes)).map_err(|_| DatabaseError::Stopped)?;
            copied = copied.max(done);
            match step {
                StepResult::Done => break,
                StepResult::Busy | StepResult::Locked if retries < RETRIES_MAX => {
                    retries += 1;
                    std::thread::sleep(RETRY_PAUSE);
                }
                StepResult::More => retries = 0,
                _ => {
                    let reason = "another program holds it for too long".to_owned();
                    return Err(DatabaseError::Sqlite { path: from.to_owned(), reason });
                }
            }
        }
    }
    // The copy of a WAL database says that it is one; opening it would make files beside it.
    let target = Connection::open(to).map_err(target_error)?;
    pragma(&target, "journal_mode = DELETE").map_err(target_error)?;
    target.close().map_err(|(_, error)| target_error(error))?;
    Ok(facts)
}

/// Opens a copy, looks for damage and for what should be in it.
pub(super) fn verify(kind: Kind, path: &Path, expected: &Facts) -> Result<(), DatabaseError> {
    let reader = Reader::open(kind, path)?;
    reader.check(true)?;
    let found = reader.facts()?;
    if found == *expected {
        return Ok(());
    }
    let problem = match expected.rows.iter().find(|(table, rows)| found.rows.get(*table) != Some(rows)) {
        Some((table, rows)) => format!(
            "the table {table} has {} rows instead of {rows}",
            found.rows.get(table).map_or_else(|| "no".to_owned(), u64::to_string)
        ),
        None => "its layout, its tables or its origins are others than it should have".to_owned(),
    };
    Err(DatabaseError::Damaged { path: path.to_owned(), problem })
}

/// Sets a pragma that may answer with a row.
fn pragma(connection: &Connection, text: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!("PRAGMA {text}"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}
