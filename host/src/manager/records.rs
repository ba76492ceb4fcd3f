//! The records: the SQLite file, its layout and its migrations, and the handle that reads it. Writing is the business
//! of `recorder` and `derive`.
//!
//! Migrations are an ordered list of SQL texts, counted by `PRAGMA user_version`: the next migration is a new entry
//! at the end, and none is ever changed. That is all a crate for it would do here, in a dozen lines. A file of a newer
//! program is refused, as is a file of another program (by `PRAGMA application_id`).

pub mod boards;
pub mod events;
pub mod people;
pub mod results;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use crate::files::check_database;

/// File of the records in the data directory.
pub const FILE: &str = "records.sqlite3";

/// Most entries that one call returns.
pub const PAGE_MAX: usize = 200;

/// "HOLE": tells our files from those of other programs.
pub(crate) const APPLICATION_ID: i64 = 0x484F_4C45;

/// How long another connection is waited for.
pub(super) const BUSY_MAX: Duration = Duration::from_secs(5);

/// Read connections that are kept for the next call. More calls at once open their own.
const IDLE_READERS_MAX: usize = 4;

/// Events of one room that [`Records::room`] returns: a race of two has 7; a rules module that talks without end must
/// not make the answer endless. [`Records::events`] has them all.
pub const ROOM_EVENTS_MAX: usize = 1000;

/// Swaps of one room that [`Records::room`] returns, the latest: a modder at work makes one a minute, or has one refused.
pub const ROOM_SWAPS_MAX: usize = 200;

/// The WAL file is cut back to this after a checkpoint, in bytes.
const WAL_KEPT_BYTES: u64 = 64 * 1024 * 1024;

/// One entry per layout; the position of an entry is the layout that it starts from.
pub(super) const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE origins (
    id INTEGER PRIMARY KEY,
    origin TEXT NOT NULL UNIQUE,
    host TEXT NOT NULL,
    stored INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    origin INTEGER NOT NULL REFERENCES origins (id),
    sequence INTEGER NOT NULL,
    time TEXT NOT NULL,
    kind TEXT NOT NULL,
    room TEXT,
    module TEXT,
    json TEXT NOT NULL,
    UNIQUE (origin, sequence)
);
CREATE INDEX events_of_room ON events (room, id) WHERE room IS NOT NULL;
CREATE TABLE hosts (
    host TEXT PRIMARY KEY,
    version TEXT,
    listen TEXT,
    started_at TEXT,
    stopping_at TEXT,
    last_event_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE modules (
    hash TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    abi INTEGER,
    bytes INTEGER,
    first_loaded_at TEXT,
    last_loaded_at TEXT
) WITHOUT ROWID;
CREATE TABLE rooms (
    id INTEGER PRIMARY KEY,
    room TEXT NOT NULL UNIQUE,
    host TEXT NOT NULL,
    module_hash TEXT,
    module_name TEXT,
    module_version TEXT,
    seed TEXT,
    options TEXT,
    opened_at TEXT,
    started_at TEXT,
    ended_at TEXT,
    outcome TEXT CHECK (outcome IN ('finished', 'aborted')),
    reason TEXT,
    frames INTEGER,
    counters TEXT,
    closed_at TEXT
);
CREATE TABLE players (
    room TEXT NOT NULL,
    player INTEGER NOT NULL,
    name TEXT NOT NULL,
    data TEXT,
    transport TEXT,
    joined_at TEXT,
    left_at TEXT,
    left_reason TEXT,
    PRIMARY KEY (room, player)
) WITHOUT ROWID;
CREATE TABLE results (
    room TEXT NOT NULL,
    player INTEGER NOT NULL,
    place INTEGER,
    outcome TEXT NOT NULL,
    data TEXT,
    PRIMARY KEY (room, player)
) WITHOUT ROWID;
CREATE TABLE rejected (
    id INTEGER PRIMARY KEY,
    received_at TEXT NOT NULL,
    topic TEXT NOT NULL,
    reason TEXT NOT NULL,
    payload BLOB NOT NULL
);
",
    "
CREATE TABLE swaps (
    id INTEGER PRIMARY KEY,
    room TEXT NOT NULL,
    frame INTEGER,
    outcome TEXT NOT NULL CHECK (outcome IN ('swapped', 'kept', 'rolled_back', 'refused')),
    from_hash TEXT,
    to_hash TEXT NOT NULL,
    failing_frame INTEGER,
    reason TEXT,
    message TEXT,
    backtrace TEXT,
    at TEXT NOT NULL,
    decided_at TEXT
);
CREATE UNIQUE INDEX swaps_made ON swaps (room, frame, to_hash) WHERE outcome <> 'refused';
CREATE UNIQUE INDEX swaps_refused ON swaps (room, to_hash, at) WHERE outcome = 'refused';
",
    "
CREATE TABLE journals (
    room TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('whole', 'incomplete', 'cut_short')),
    bytes INTEGER NOT NULL,
    frames INTEGER NOT NULL,
    problem TEXT,
    closed_at TEXT NOT NULL
) WITHOUT ROWID;
",
    // Results are found by player, module and time; scores and the best of them by leaderboard. `rank` is the score, or its negative where the highest
    // is the best: lower is better throughout. A mixed room has no scores. `days` says how far recording was at the end of a day by the manager's clock.
    "
ALTER TABLE modules ADD COLUMN boards TEXT;
ALTER TABLE modules ADD COLUMN unscored_after INTEGER;
ALTER TABLE rooms ADD COLUMN finish_hash TEXT;
ALTER TABLE rooms ADD COLUMN mixed INTEGER NOT NULL DEFAULT 0;
UPDATE rooms SET
    finish_hash = COALESCE(
        (SELECT s.to_hash FROM swaps AS s WHERE s.room = rooms.room AND s.outcome IN ('swapped', 'kept')
         ORDER BY s.frame DESC, s.id DESC LIMIT 1),
        module_hash),
    mixed = EXISTS (SELECT 1 FROM swaps AS s WHERE s.room = rooms.room AND s.outcome IN ('swapped', 'kept') AND s.frame > 0)
WHERE outcome = 'finished';
ALTER TABLE results RENAME TO results_of_layout_3;
CREATE TABLE results (
    id INTEGER PRIMARY KEY,
    room TEXT NOT NULL,
    player INTEGER NOT NULL,
    name TEXT,
    module_name TEXT,
    module_hash TEXT,
    mixed INTEGER NOT NULL DEFAULT 0,
    place INTEGER,
    outcome TEXT NOT NULL,
    data TEXT,
    ended_at TEXT NOT NULL,
    UNIQUE (room, player)
);
INSERT INTO results (room, player, name, module_name, module_hash, mixed, place, outcome, data, ended_at)
    SELECT o.room, o.player, p.name, r.module_name, r.finish_hash, COALESCE(r.mixed, 0), o.place, o.outcome, o.data,
        COALESCE(r.ended_at, r.closed_at, r.opened_at, '')
    FROM results_of_layout_3 AS o LEFT JOIN rooms AS r ON r.room = o.room
    LEFT JOIN players AS p ON p.room = o.room AND p.player = o.player
    ORDER BY 10, o.room, o.player;
DROP TABLE results_of_layout_3;
CREATE INDEX results_by_time ON results (ended_at, id);
CREATE INDEX results_by_name ON results (name, ended_at, id, place);
CREATE INDEX results_by_module ON results (module_name, ended_at, id);
CREATE INDEX results_by_hash ON results (module_hash, ended_at, id);
CREATE INDEX players_by_name ON players (name, joined_at);
CREATE TABLE scores (
    room TEXT NOT NULL,
    player INTEGER NOT NULL,
    board TEXT NOT NULL,
    name TEXT NOT NULL,
    module_hash TEXT NOT NULL,
    group_key TEXT NOT NULL,
    rank REAL NOT NULL,
    ended_at TEXT NOT NULL,
    PRIMARY KEY (room, player, board)
) WITHOUT ROWID;
CREATE INDEX scores_of_player ON scores (name, module_hash, board, group_key, rank, ended_at, room, player);
CREATE TABLE bests (
    name TEXT NOT NULL,
    module_hash TEXT NOT NULL,
    board TEXT NOT NULL,
    group_key TEXT NOT NULL,
    rank REAL NOT NULL,
    ended_at TEXT NOT NULL,
    room TEXT NOT NULL,
    player INTEGER NOT NULL,
    PRIMARY KEY (name, module_hash, board, group_key)
) WITHOUT ROWID;
CREATE INDEX bests_by_rank ON bests (module_hash, board, group_key, rank, ended_at, name, room, player);
CREATE TABLE days (
    day TEXT PRIMARY KEY,
    event INTEGER NOT NULL,
    room INTEGER NOT NULL,
    rejected INTEGER NOT NULL
) WITHOUT ROWID;
",
];

/// The newest layout that this program knows, as `PRAGMA user_version`.
pub(crate) const LAYOUT: i64 = MIGRATIONS.len() as i64;

/// Why the records cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// The file is of a newer program.
    #[error(
        "{path} has layout {found}, this program knows up to {known}: use the newer program, or move the file away"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
        /// The newest layout that is known.
        known: i64,
    },
    /// The file belongs to another program.
    #[error("{path} is an SQLite file of another program: choose another data directory")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The directory cannot be made.
    #[error("cannot use {path}: {reason}")]
    File {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// SQLite refused.
    #[error(
        "cannot use {path}: {reason}. If another program holds it, end that one; if the disk is full or read-only, change that; if the file is damaged, restore it from a backup or move it away (the records so far are in it)"
    )]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
}

/// Opens the file for writing, and brings its layout up to date.
pub(crate) fn open(directory: &Path) -> Result<(Connection, PathBuf), RecordsError> {
    std::fs::create_dir_all(directory)
        .map_err(|error| RecordsError::File { path: directory.to_owned(), reason: error.to_string() })?;
    let path = directory.join(FILE);
    let sqlite = |error: rusqlite::Error| RecordsError::Sqlite { path: path.clone(), reason: error.to_string() };
    check_database(&path).map_err(|error| RecordsError::File { path: path.clone(), reason: error.to_string() })?;
    let mut connection = Connection::open(&path).map_err(sqlite)?;
    // First: switching to WAL needs the lock that another connection may hold.
    connection.busy_timeout(BUSY_MAX).map_err(sqlite)?;
    let number = |connection: &Connection, pragma: &str| -> Result<i64, RecordsError> {
        connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).map_err(sqlite)
    };
    let found = number(&connection, "user_version")?;
    let tables: i64 =
        connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(sqlite)?;
    if tables > 0 && number(&connection, "application_id")? != APPLICATION_ID {
        return Err(RecordsError::Foreign { path });
    }
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(RecordsError::Newer { path, found, known });
    }
    let set_up = |connection: &mut Connection| -> rusqlite::Result<()> {
        let _mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        connection.execute_batch(&format!(
            "PRAGMA synchronous = NORMAL;
             PRAGMA journal_size_limit = {WAL_KEPT_BYTES};"
        ))?;
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        // Read again: another manager may have been faster.
        let from: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        for migration in MIGRATIONS.iter().skip(usize::try_from(from).unwrap_or(0)) {
            transaction.execute_batch(migration)?;
        }
        transaction
            .execute_batch(&format!("PRAGMA user_version = {known}; PRAGMA application_id = {APPLICATION_ID};"))?;
        transaction.commit()
    };
    set_up(&mut connection).map_err(sqlite)?;
    Ok((connection, path))
}

/// The id of the newest event; 0 if there is none.
pub(super) fn newest_event(connection: &Connection, path: &Path) -> Result<i64, RecordsError> {
    connection
        .query_row("SELECT COALESCE(MAX(id), 0) FROM events", [], |row| row.get(0))
        .map_err(|error| RecordsError::Sqlite { path: path.to_owned(), reason: error.to_string() })
}

/// Where a room stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoomState {
    /// Waiting for its players.
    Open,
    /// In the game loop.
    Running,
    /// Over, with results.
    Finished,
    /// Over, without results.
    Aborted,
    /// Gone without a word about its end.
    Closed,
}

impl RoomState {
    /// The condition that rooms of this state meet.
    fn condition(self) -> &'static str {
        match self {
            Self::Finished => "outcome = 'finished'",
            Self::Aborted => "outcome = 'aborted'",
            Self::Closed => "outcome IS NULL AND closed_at IS NOT NULL",
            Self::Running => "outcome IS NULL AND closed_at IS NULL AND started_at IS NOT NULL",
            Self::Open => "outcome IS NULL AND closed_at IS NULL AND started_at IS NULL",
        }
    }
}

/// A piece of a long list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomsPage {
    /// Rooms recorded before this one; none for the newest.
    #[serde(default)]
    pub after: Option<String>,
    /// How many, 1 to [`PAGE_MAX`]; others are brought within.
    #[serde(default)]
    pub limit: Option<usize>,
    /// Only rooms in this state.
    #[serde(default)]
    pub state: Option<RoomState>,
}

/// A room in a list. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoomSummary {
    /// Its id.
    pub room: String,
    /// The host that runs or ran it.
    pub host: String,
    /// Where it stands.
    pub state: RoomState,
    /// BLAKE3 of the rules module, in hexadecimal.
    pub module_hash: Option<String>,
    /// Name of the rules module.
    pub module_name: Option<String>,
    /// Version of the rules module.
    pub module_version: Option<String>,
    /// When it was created.
    pub opened_at: Option<String>,
    /// When the game loop began.
    pub started_at: Option<String>,
    /// When it finished or was aborted.
    pub ended_at: Option<String>,
    /// When it was gone.
    pub closed_at: Option<String>,
    /// Why it was aborted.
    pub reason: Option<String>,
    /// Ticks of the game loop.
    pub frames: Option<i64>,
    /// Number of players, expected or seen.
    pub player_count: i64,
}

/// Everything about a room.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoomRecord {
    /// What lists show, too.
    #[serde(flatten)]
    pub summary: RoomSummary,
    /// Seed of its randomness, in decimal digits: all 64 bits of it.
    pub seed: Option<String>,
    /// Options given to the rules.
    pub options: Value,
    /// What the room (`room`) and its input cache for each player (`players`) counted.
    pub counters: Value,
    /// Its players, by slot.
    pub players: Vec<PlayerRecord>,
    /// Its results, by place: the time slips of a race.
    pub results: Vec<ResultRecord>,
    /// What became of other rules that it had or was to have, in the order of time; the last [`ROOM_SWAPS_MAX`].
    pub swaps: Vec<SwapRecord>,
    /// What became of its journal; none while it is written, or if it has none.
    pub journal: Option<JournalRecord>,
    /// Its events in the order in which they happened; the first [`ROOM_EVENTS_MAX`].
    pub events: Vec<EventRecord>,
}

/// A journal that is closed. Its file is the host's: it may be deleted by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalRecord {
    /// `whole`, `incomplete` (the host gave up writing it) or `cut_short` (the host was killed).
    pub state: String,
    /// Its length in bytes.
    pub bytes: i64,
    /// Frames that it has.
    pub frames: i64,
    /// Why it is incomplete.
    pub problem: Option<String>,
    /// When it was closed.
    pub closed_at: String,
}

/// A player of a room.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlayerRecord {
    /// Slot, from 0.
    pub player: i64,
    /// Name to show.
    pub name: String,
    /// What the creator of the room said about the player.
    pub data: Value,
    /// How the player was connected.
    pub transport: Option<String>,
    /// When the session opened.
    pub joined_at: Option<String>,
    /// When the session ended.
    pub left_at: Option<String>,
    /// Why it ended.
    pub left_reason: Option<String>,
}

/// What a player achieved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResultRecord {
    /// Slot, from 0.
    pub player: i64,
    /// Place, from 1.
    pub place: Option<i64>,
    /// The rules' word for it.
    pub outcome: String,
    /// What the rules say about it.
    pub data: Value,
    /// BLAKE3 of the module in force at the finish, in hexadecimal.
    pub module_hash: Option<String>,
    /// The rules were replaced in the match, and not taken back: it counts for no leaderboard.
    pub mixed: bool,
}

/// Rules that took over in a room, or were to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SwapRecord {
    /// `refused`: they never took over; `swapped`: they did, and are (or were at the end) on probation; `kept`: they passed it; `rolled_back`: they
    /// failed in it, and the former ones went on.
    pub outcome: String,
    /// Their first frame; none if they were refused.
    pub frame: Option<i64>,
    /// BLAKE3 of the module before, in hexadecimal.
    pub from_hash: Option<String>,
    /// BLAKE3 of the module, in hexadecimal.
    pub to_hash: String,
    /// Version from its manifest.
    pub to_version: Option<String>,
    /// The frame in which they failed, in the room or in the trial before.
    pub failing_frame: Option<i64>,
    /// How they failed, as a word.
    pub reason: Option<String>,
    /// How they failed, for the person who wrote them.
    pub message: Option<String>,
    /// The module's functions at that time, innermost first.
    pub backtrace: Option<String>,
    /// When they took over or were refused.
    pub at: String,
    /// When they were kept or rolled back.
    pub decided_at: Option<String>,
}

/// An event as it was recorded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventRecord {
    /// Order of recording; to be given as `after`.
    pub id: i64,
    /// Start of the host that it comes from.
    pub origin: String,
    /// Position within the origin, from 1.
    pub sequence: i64,
    /// When it happened.
    pub time: String,
    /// What happened.
    pub kind: String,
    /// The room.
    pub room: Option<String>,
    /// The rules module.
    pub module: Option<String>,
    /// The whole CloudEvent.
    pub event: Value,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HostRecord {
    /// Its id.
    pub host: String,
    /// Version of the program.
    pub version: Option<String>,
    /// Where it listens.
    pub listen: Value,
    /// Last start.
    pub started_at: Option<String>,
    /// When it last began to stop; before `started_at` if it runs again.
    pub stopping_at: Option<String>,
    /// Time of its latest event.
    pub last_event_at: String,
}

/// A rules module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModuleRecord {
    /// BLAKE3 of its bytes, in hexadecimal.
    pub hash: String,
    /// Name from its manifest.
    pub name: String,
    /// Version from its manifest.
    pub version: String,
    /// ABI version.
    pub abi: Option<i64>,
    /// Size in bytes.
    pub bytes: Option<i64>,
    /// When a host first loaded it.
    pub first_loaded_at: Option<String>,
    /// When a host last loaded it.
    pub last_loaded_at: Option<String>,
}

/// A message that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectedRecord {
    /// Order of arrival.
    pub id: i64,
    /// When it arrived.
    pub received_at: String,
    /// Its topic.
    pub topic: String,
    /// What is wrong with it.
    pub reason: String,
    /// The message, shortened; bytes that are no UTF-8 are replaced.
    pub payload: String,
}

/// Reads the records. Every call waits for the disk: from async code, call it within `spawn_blocking`. Readers do not
/// hold up the writer, nor it them.
#[derive(Debug, Clone)]
pub struct Records {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    commits: watch::Receiver<i64>,
}

impl Records {
    /// A handle to a file that [`open`] has prepared, without a recorder.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self::live(path, watch::channel(0).1)
    }

    /// A handle to a file that [`open`] has prepared, with what its recorder says of its commits.
    pub(crate) fn live(path: PathBuf, commits: watch::Receiver<i64>) -> Self {
        Self { inner: Arc::new(Inner { path, idle: Mutex::new(Vec::new()), commits }) }
    }

    /// The id of the newest event that is committed, as the recorder says it; closed once there is no recorder.
    pub fn commits(&self) -> watch::Receiver<i64> {
        self.inner.commits.clone()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Rooms, newest first.
    ///
    /// # Errors
    /// [`RecordsError::Sqlite`].
    pub fn rooms(&self, page: &RoomsPage) -> Result<Vec<RoomSummary>, RecordsError> {
        let state = page.state.map_or("1", RoomState::condition);
        self.read(|connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {ROOM_COLUMNS} FROM rooms AS r
                     WHERE {state} AND (?1 IS NULL OR r.id < (SELECT id FROM rooms WHERE room = ?1))
                     ORDER BY r.id DESC LIMIT ?2"
                ))?
                .query_map(params![page.after, limit(page.limit)], summary)?
                .collect()
        })
    }

    /// One room with its players, results and events; none if it is not known.
    ///
    /// # Errors
    /// [`RecordsError::Sqlite`].
    pub fn room(&self, room: &str) -> Result<Option<RoomRecord>, RecordsError> {
        self.read(|connection| {
            // One transaction: players, results and events of the same moment.
            let connection = connection.unchecked_transaction()?;
            let found = connection
                .prepare_cached(&format!(
                    "SELECT {ROOM_COLUMNS}, r.seed, r.options, r.counters FROM rooms AS r WHERE r.room = ?1"
                ))?
                .query_row([room], |row| {
                    Ok(RoomRecord {
                        summary: summary(row)?,
                        seed: row.get("seed")?,
                        options: json(row, "options")?,
                        counters: json(row, "counters")?,
                        players: Vec::new(),
                        results: Vec::new(),
                        swaps: Vec::new(),
                        journal: None,
                        events: Vec::new(),
                    })
                })
                .optional()?;
            let Some(mut record) = found else {
                return Ok(None);
            };
            record.players = connection
                .prepare_cached("SELECT * FROM players WHERE room = ?1 ORDER BY player")?
                .query_map([room], |row| {
                    Ok(PlayerRecord {
                        player: row.get("player")?,
                        name: row.get("name")?,
                        data: json(row, "data")?,
                        transport: row.get("transport")?,
                        joined_at: row.get("joined_at")?,
                        left_at: row.get("left_at")?,
                        left_reason: row.get("left_reason")?,
                    })
                })?
                .collect::<rusqlite::Result<_>>()?;
            record.results = connection
                .prepare_cached("SELECT * FROM results WHERE room = ?1 ORDER BY place IS NULL, place, player")?
                .query_map([room], |row| {
                    Ok(ResultRecord {
                        player: row.get("player")?,
                        place: row.get("place")?,
                        outcome: row.get("outcome")?,
                        data: json(row, "data")?,
                        module_hash: row.get("module_hash")?,
                        mixed: row.get("mixed")?,
                    })
                })?
                .collect::<rusqlite::Result<_>>()?;
            record.swaps = connection
                .prepare_cached(
                    "SELECT s.*, m.version AS to_version FROM swaps AS s LEFT JOIN modules AS m ON m.hash = s.to_hash
                     WHERE s.room = ?1 ORDER BY s.at DESC, s.id DESC LIMIT ?2",
                )?
                .query_map(params![room, ROOM_SWAPS_MAX as i64], swap)?
                .collect::<rusqlite::Result<_>>()?;
            record.swaps.reverse();
            record.journal = connection
                .prepare_cached("SELECT state, bytes, frames, problem, closed_at FROM journals WHERE room = ?1")?
                .query_row([room], |row| {
                    Ok(JournalRecord {
                        state: row.get("state")?,
                        bytes: row.get("bytes")?,
                        frames: row.get("frames")?,
                        problem: row.get("problem")?,
                        closed_at: row.get("closed_at")?,
                    })
                })
                .optional()?;
            record.events = connection
                .prepare_cached(&format!(
                    "SELECT {EVENT_COLUMNS} WHERE e.room = ?1 ORDER BY e.origin, e.sequence LIMIT ?2"
                ))?
                .query_map(params![room, ROOM_EVENTS_MAX as i64], event)?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Some(record))
        })
    }

    /// Events in the order of recording, after the one with id `after` (0: from the beginning).
    ///
    /// # Errors
    /// [`RecordsError::Sqlite`].
    pub fn events(&self, after: i64, limit_max: usize) -> Result<Vec<EventRecord>, RecordsError> {
        self.read(|connection| {
            connection
                .prepare_cached(&format!("SELECT {EVENT_COLUMNS} WHERE e.id > ?1 ORDER BY e.id LIMIT ?2"))?
                .query_map(params![after, limit(Some(limit_max))], event)?
                .collect()
        })
    }

    /// All hosts, by id.
    ///
    /// # Errors
    /// [`RecordsError::Sqlite`].
    pub fn hosts(&self) -> Result<Vec<HostRecord>, RecordsError> {
        self.read(|connection| {
            connection
                .prepare_cached("SELECT * FROM hosts ORDER BY host LIMIT ?1")?
                .query_map([limit(Some(PAGE_MAX))], |row| {
                    Ok(HostRecord {
                        host: row.get("host")?,
                        version: row.get("version")?,
                        listen: json(row, "listen")?,
                        started_at: row.get("started_at")?,
                        stopping_at: row.get("stopping_at")?,
                        last_event_at: row.get("last_event_at")?,
                    })
                })?
                .collect()
        })
    }

    /// Rules modules, the most recently loaded first; [`PAGE_MAX`] at most.
    ///
    /// # Errors
    /// [`RecordsError::Sqlite`].
    pub fn modules(&self) -> Result<Vec<ModuleRecord>, RecordsError> {
        self.read(|connection| {
            connection
                .prepare_cached("SELECT * FROM modules ORDER BY last_loaded_at DESC, hash LIMIT ?1")?
                .query_map([limit(Some(PAGE_MAX))], |row| {
                    Ok(ModuleRecord {
                        hash: row.get("hash")?,
                        name: row.get("name")?,
                        version: row.get("version")?,
                        abi: row.get("abi")?,
                        bytes: row.get("bytes")?,
                        first_loaded_at: row.get("first_loaded_at")?,
                        last_loaded_at: row.get("last_loaded_at")?,
                    })
                })?
                .collect()
        })
    }

    /// Messages that could not be used, newest first.
    ///
    /// # Errors
    /// [`RecordsError::Sqlite`].
    pub fn rejected(&self, limit_max: usize) -> Result<Vec<RejectedRecord>, RecordsError> {
        self.read(|connection| {
            connection
                .prepare_cached("SELECT * FROM rejected ORDER BY id DESC LIMIT ?1")?
                .query_map([limit(Some(limit_max))], |row| {
                    let payload: Vec<u8> = row.get("payload")?;
                    Ok(RejectedRecord {
                        id: row.get("id")?,
                        received_at: row.get("received_at")?,
                        topic: row.get("topic")?,
                        reason: row.get("reason")?,
                        payload: String::from_utf8_lossy(&payload).into_owned(),
                    })
                })?
                .collect()
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, RecordsError> {
        let idle = || self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let run = || -> rusqlite::Result<T> {
            let kept = idle().pop();
            let connection = match kept {
                Some(connection) => connection,
                None => {
                    let connection = Connection::open_with_flags(
                        &self.inner.path,
                        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
                    )?;
                    connection.busy_timeout(BUSY_MAX)?;
                    connection
                }
            };
            let result = read(&connection)?;
            let mut idle = idle();
            if idle.len() < IDLE_READERS_MAX {
                idle.push(connection);
            }
            Ok(result)
        };
        run().map_err(|error| RecordsError::Sqlite { path: self.inner.path.clone(), reason: error.to_string() })
    }
}

const ROOM_COLUMNS: &str = "r.room, r.host, r.module_hash, r.module_name, r.module_version, r.opened_at, r.started_at,
    r.ended_at, r.closed_at, r.outcome, r.reason, r.frames,
    (SELECT COUNT(*) FROM players AS p WHERE p.room = r.room) AS player_count";

const EVENT_COLUMNS: &str = "e.id, o.origin, e.sequence, e.time, e.kind, e.room, e.module, e.json
    FROM events AS e JOIN origins AS o ON o.id = e.origin";

fn limit(asked: Option<usize>) -> i64 {
    asked.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX) as i64
}

fn summary(row: &Row<'_>) -> rusqlite::Result<RoomSummary> {
    let outcome: Option<String> = row.get("outcome")?;
    let started_at: Option<String> = row.get("started_at")?;
    let closed_at: Option<String> = row.get("closed_at")?;
    let state = match outcome.as_deref() {
        Some("finished") => RoomState::Finished,
        Some(_) => RoomState::Aborted,
        None if closed_at.is_some() => RoomState::Closed,
        None if started_at.is_some() => RoomState::Running,
        None => RoomState::Open,
    };
    Ok(RoomSummary {
        room: row.get("room")?,
        host: row.get("host")?,
        state,
        module_hash: row.get("module_hash")?,
        module_name: row.get("module_name")?,
        module_version: row.get("module_version")?,
        opened_at: row.get("opened_at")?,
        started_at,
        ended_at: row.get("ended_at")?,
        closed_at,
        reason: row.get("reason")?,
        frames: row.get("frames")?,
        player_count: row.get("player_count")?,
    })
}

fn swap(row: &Row<'_>) -> rusqlite::Result<SwapRecord> {
    Ok(SwapRecord {
        outcome: row.get("outcome")?,
        frame: row.get("frame")?,
        from_hash: row.get("from_hash")?,
        to_hash: row.get("to_hash")?,
        to_version: row.get("to_version")?,
        failing_frame: row.get("failing_frame")?,
        reason: row.get("reason")?,
        message: row.get("message")?,
        backtrace: row.get("backtrace")?,
        at: row.get("at")?,
        decided_at: row.get("decided_at")?,
    })
}

fn event(row: &Row<'_>) -> rusqlite::Result<EventRecord> {
    Ok(EventRecord {
        id: row.get("id")?,
        origin: row.get("origin")?,
        sequence: row.get("sequence")?,
        time: row.get("time")?,
        kind: row.get("kind")?,
        room: row.get("room")?,
        module: row.get("module")?,
        event: json(row, "json")?,
    })
}

fn json(row: &Row<'_>, column: &str) -> rusqlite::Result<Value> {
    let text: Option<String> = row.get(column)?;
    text.map_or(Ok(Value::Null), |text| {
        serde_json::from_str(&text).map_err(|error| {
            let index = row.as_ref().column_index(column).unwrap_or(0);
            rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error))
        })
    })
}
