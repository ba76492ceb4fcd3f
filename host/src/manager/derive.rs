//! What an event says about hosts, modules, rooms, players and results, as rows. Runs within the transaction that
//! stores the event. Events may come in any order and a row may be derived twice, so every statement adds what it
//! knows to a row that may be there already.

use holeshot_abi::Leaderboard;
use rusqlite::{Connection, ErrorCode, params};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::scores::{score_room, set_boards};
use crate::events::CloudEvent;
use crate::events::cloudevent::rfc3339;
use crate::events::payload::{
    HostStarted, HostStopping, JournalClosed, ModuleLoaded, ModuleRef, Payload, PlayerDataChanged, PlayerJoined,
    PlayerLeft, RoomAborted, RoomClosed, RoomFinished, RoomOpened, RoomStarted, RulesKept, RulesRetried,
    RulesRolledBack, RulesSwapped, SwapRefused,
};

/// Players and results of one event that are taken: no room is that large.
const ROWS_MAX: usize = 256;

/// Why no rows were derived.
#[derive(Debug)]
pub(super) enum DeriveError {
    /// The event is at fault: the same would happen again.
    Event(String),
    /// The database is: it may work later.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for DeriveError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(
                ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig
                | ErrorCode::ParameterOutOfRange,
            ) => Self::Event(error.to_string()),
            _ => Self::Database(error),
        }
    }
}

/// Derives the rows of one event. Kinds that say nothing about these tables (`rules.*`) only move the host's
/// `last_event_at`.
pub(super) fn derive(connection: &Connection, event: &CloudEvent) -> Result<(), DeriveError> {
    let time = rfc3339(event.time);
    run(
        connection,
        "INSERT INTO hosts (host, last_event_at) VALUES (?1, ?2)
         ON CONFLICT (host) DO UPDATE SET last_event_at = MAX(last_event_at, excluded.last_event_at)",
        params![event.host, time],
    )?;
    match event.kind.as_str() {
        HostStarted::KIND => {
            let data: HostStarted = data(event)?;
            if is_last_start(connection, event)? {
                run(
                    connection,
                    "UPDATE hosts SET version = ?2, listen = ?3, started_at = ?4,
                     stopping_at = CASE WHEN stopping_at <= ?4 THEN stopping_at END WHERE host = ?1",
                    params![event.host, data.version, text(&data.listen), time],
                )?;
            }
            // What a host that was killed did not come to say. If an event of that start is still on its way, it has the last word. The clock may
            // have been set back since the room was opened: then the order of the starts counts, in which their events came first.
            run(
                connection,
                "UPDATE rooms SET outcome = 'aborted', reason = 'host_lost', ended_at = ?2
                 WHERE host = ?1 AND outcome IS NULL AND (opened_at < ?2 OR EXISTS (
                     SELECT 1 FROM events AS e WHERE e.room = rooms.room AND e.kind = 'room.opened'
                     AND e.origin < (SELECT id FROM origins WHERE origin = ?3)))",
                params![event.host, time, event.origin],
            )?;
        }
        HostStopping::KIND => {
            let HostStopping {} = data(event)?;
            if is_last_start(connection, event)? {
                run(connection, "UPDATE hosts SET stopping_at = ?2 WHERE host = ?1", params![event.host, time])?;
            }
        }
        ModuleLoaded::KIND => {
            let data: ModuleLoaded = data(event)?;
            run(
                connection,
                "INSERT INTO modules (hash, name, version, abi, bytes, first_loaded_at, last_loaded_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
                 ON CONFLICT (hash) DO UPDATE SET abi = excluded.abi, bytes = excluded.bytes,
                 first_loaded_at = MIN(COALESCE(first_loaded_at, excluded.first_loaded_at), excluded.first_loaded_at),
                 last_loaded_at = MAX(COALESCE(last_loaded_at, excluded.last_loaded_at), excluded.last_loaded_at)",
                params![data.hash, data.name, data.version, data.abi, signed(data.bytes)?, time],
            )?;
            Leaderboard::validate_all(&data.leaderboards).map_err(|error| DeriveError::Event(error.to_string()))?;
            set_boards(connection, &data.hash, &data.leaderboards)?;
        }
        RoomOpened::KIND => opened(connection, event, &data(event)?, &time)?,
        PlayerJoined::KIND => {
            let data: PlayerJoined = data(event)?;
            let room = room(connection, event)?;
            run(
                connection,
                "INSERT INTO players (room, player, name, transport, joined_at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (room, player) DO UPDATE SET transport = excluded.transport,
                 joined_at = MIN(COALESCE(joined_at, excluded.joined_at), excluded.joined_at)",
                params![room, data.player, data.name, data.transport, time],
            )?;
        }
        PlayerLeft::KIND => {
            let data: PlayerLeft = data(event)?;
            let room = room(connection, event)?;
            run(
                connection,
                "INSERT INTO players (room, player, name, left_at, left_reason) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (room, player) DO UPDATE SET left_at = excluded.left_at, left_reason = excluded.left_reason
                 WHERE left_at IS NULL OR left_at <= excluded.left_at",
                params![room, data.player, data.name, time, data.reason],
            )?;
        }
        PlayerDataChanged::KIND => {
            let data: PlayerDataChanged = data(event)?;
            let room = room(connection, event)?;
            run(
                connection,
                "INSERT INTO players (room, player, name, data) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (room, player) DO UPDATE SET data = excluded.data",
                params![room, data.player, data.name, text(&data.data)],
            )?;
        }
        RoomStarted::KIND => {
            let RoomStarted { frame: _ } = data(event)?;
            let room = room(connection, event)?;
            run(connection, "UPDATE rooms SET started_at = ?2 WHERE room = ?1", params![room, time])?;
        }
        SwapRefused::KIND => {
            let data: SwapRefused = data(event)?;
            let room = room(connection, event)?;
            name_module(connection, &data.module)?;
            run(
                connection,
                "INSERT INTO swaps (room, outcome, from_hash, to_hash, failing_frame, reason, message, backtrace, at)
                 VALUES (?1, 'refused', ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT (room, to_hash, at) WHERE outcome = 'refused' DO NOTHING",
                params![
                    room,
                    data.from.hash,
                    data.module.hash,
                    data.frame.map(signed).transpose()?,
                    data.reason,
                    data.message,
                    data.backtrace,
                    time
                ],
            )?;
        }
        RulesSwapped::KIND => {
            let data: RulesSwapped = data(event)?;
            let room = room(connection, event)?;
            name_module(connection, &data.module)?;
            // What became of it may be known before.
            run(
                connection,
                "INSERT INTO swaps (room, frame, outcome, from_hash, to_hash, at) VALUES (?1, ?2, 'swapped', ?3, ?4, ?5)
                 ON CONFLICT (room, frame, to_hash) WHERE outcome <> 'refused'
                 DO UPDATE SET from_hash = excluded.from_hash, at = excluded.at",
                params![room, signed(data.frame)?, data.from.hash, data.module.hash, time],
            )?;
        }
        RulesKept::KIND => {
            let data: RulesKept = data(event)?;
            let room = room(connection, event)?;
            name_module(connection, &data.module)?;
            run(
                connection,
                "INSERT INTO swaps (room, frame, outcome, to_hash, at, decided_at) VALUES (?1, ?2, 'kept', ?3, ?4, ?4)
                 ON CONFLICT (room, frame, to_hash) WHERE outcome <> 'refused'
                 DO UPDATE SET outcome = excluded.outcome, decided_at = excluded.decided_at",
                params![room, signed(data.since_frame)?, data.module.hash, time],
            )?;
        }
        RulesRolledBack::KIND => {
            let data: RulesRolledBack = data(event)?;
            let room = room(connection, event)?;
            name_module(connection, &data.failed)?;
            run(
                connection,
                "INSERT INTO swaps (room, frame, outcome, from_hash, to_hash, failing_frame, reason, message, backtrace, at, decided_at)
                 VALUES (?1, ?2, 'rolled_back', ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9)
                 ON CONFLICT (room, frame, to_hash) WHERE outcome <> 'refused' DO UPDATE SET
                 outcome = excluded.outcome, failing_frame = excluded.failing_frame, reason = excluded.reason,
                 message = excluded.message, backtrace = excluded.backtrace, decided_at = excluded.decided_at",
                params![
                    room,
                    signed(data.since_frame)?,
                    data.module.hash,
                    data.failed.hash,
                    signed(data.frame)?,
                    data.reason,
                    data.message,
                    data.backtrace,
                    time
                ],
            )?;
        }
        RulesRetried::KIND => {
            let RulesRetried { frame: _ } = data(event)?;
            room(connection, event)?;
        }
        RoomFinished::KIND => finished(connection, event, &data(event)?, &time)?,
        RoomAborted::KIND => {
            let data: RoomAborted = data(event)?;
            let room = room(connection, event)?;
            run(
                connection,
                "UPDATE rooms SET outcome = 'aborted', reason = ?2, frames = ?3, counters = ?4, ended_at = ?5 WHERE room = ?1",
                params![
                    room,
                    data.reason,
                    signed(data.frames)?,
                    text(&json!({ "room": data.counters, "players": data.players })),
                    time
                ],
            )?;
        }
        RoomClosed::KIND => {
            let RoomClosed {} = data(event)?;
            let room = room(connection, event)?;
            run(connection, "UPDATE rooms SET closed_at = ?2 WHERE room = ?1", params![room, time])?;
        }
        JournalClosed::KIND => {
            let data: JournalClosed = data(event)?;
            let room = known_room(connection, event)?;
            run(
                connection,
                "INSERT INTO journals (room, state, bytes, frames, problem, closed_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (room) DO UPDATE SET state = excluded.state, bytes = excluded.bytes,
                 frames = excluded.frames, problem = excluded.problem, closed_at = excluded.closed_at",
                params![room, data.state, signed(data.bytes)?, signed(data.frames)?, data.problem, time],
            )?;
        }
        _ => {}
    }
    // What these say about a room may come after its results.
    if let (
        RoomOpened::KIND
        | PlayerJoined::KIND
        | RulesSwapped::KIND
        | RulesKept::KIND
        | RulesRolledBack::KIND
        | RoomFinished::KIND
        | RoomAborted::KIND,
        Some(room),
    ) = (event.kind.as_str(), event.room.as_deref())
    {
        score_room(connection, room)?;
    }
    Ok(())
}

/// Whether nothing was heard of a later start of the event's host. The order of the starts counts and not their times: the clock may have been set back.
fn is_last_start(connection: &Connection, event: &CloudEvent) -> Result<bool, DeriveError> {
    let sql = "SELECT NOT EXISTS (
        SELECT 1 FROM origins WHERE host = ?1 AND id > (SELECT id FROM origins WHERE origin = ?2))";
    Ok(connection.prepare_cached(sql)?.query_row(params![event.host, event.origin], |row| row.get(0))?)
}

fn opened(connection: &Connection, event: &CloudEvent, data: &RoomOpened, time: &str) -> Result<(), DeriveError> {
    few("players", data.players.len())?;
    let room = room(connection, event)?;
    run(
        connection,
        "UPDATE rooms SET module_hash = ?2, module_name = ?3, module_version = ?4, seed = ?5, options = ?6, opened_at = ?7
         WHERE room = ?1",
        params![
            room,
            data.module.hash,
            data.module.name,
            data.module.version,
            data.seed.to_string(),
            text(&data.options),
            time
        ],
    )?;
    name_module(connection, &data.module)?;
    for player in &data.players {
        run(
            connection,
            "INSERT INTO players (room, player, name, data) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (room, player) DO UPDATE SET name = excluded.name, data = COALESCE(data, excluded.data)",
            params![room, player.player, player.name, text(&player.data)],
        )?;
    }
    Ok(())
}

/// Takes note that there is such a module.
fn name_module(connection: &Connection, module: &ModuleRef) -> Result<(), DeriveError> {
    run(
        connection,
        "INSERT INTO modules (hash, name, version) VALUES (?1, ?2, ?3) ON CONFLICT (hash) DO NOTHING",
        params![module.hash, module.name, module.version],
    )?;
    Ok(())
}

fn finished(connection: &Connection, event: &CloudEvent, data: &RoomFinished, time: &str) -> Result<(), DeriveError> {
    few("results", data.results.len())?;
    let room = room(connection, event)?;
    run(
        connection,
        "UPDATE rooms SET outcome = 'finished', reason = NULL, frames = ?2, counters = ?3, ended_at = ?4 WHERE room = ?1",
        params![room, signed(data.frames)?, text(&json!({ "room": data.counters, "players": data.players })), time],
    )?;
    for result in &data.results {
        run(
            connection,
            // As it nearly always is in the end, so that nothing has to be written twice; `score_room` has the last word.
            "INSERT INTO results (room, player, place, outcome, data, ended_at, name, module_hash, module_name)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, (SELECT p.name FROM players AS p WHERE p.room = ?1 AND p.player = ?2),
                r.module_hash, r.module_name FROM rooms AS r WHERE r.room = ?1
             ON CONFLICT (room, player) DO UPDATE SET
             place = excluded.place, outcome = excluded.outcome, data = excluded.data",
            params![room, result.player, result.place, result.outcome, text(&result.data), time],
        )?;
    }
    Ok(())
}

/// The room of the event, with a row for it. A room belongs to the host that was first to speak of it.
fn room<'a>(connection: &Connection, event: &'a CloudEvent) -> Result<&'a str, DeriveError> {
    let Some(room) = event.room.as_deref() else {
        return Err(DeriveError::Event(format!("attribute `room` is missing from an event of kind {}", event.kind)));
    };
    run(
        connection,
        "INSERT INTO rooms (room, host) VALUES (?1, ?2) ON CONFLICT (room) DO NOTHING",
        params![room, event.host],
    )?;
    let owner: String =
        connection.prepare_cached("SELECT host FROM rooms WHERE room = ?1")?.query_row([room], |row| row.get(0))?;
    if owner == event.host {
        Ok(room)
    } else {
        Err(DeriveError::Event(format!("room {room} belongs to host {owner}, not to {}", event.host)))
    }
}

/// The room of the event, without a row for it if there is none: a host that was killed may have written a journal whose room it had not come to tell of.
fn known_room<'a>(connection: &Connection, event: &'a CloudEvent) -> Result<&'a str, DeriveError> {
    let Some(id) = event.room.as_deref() else { return room(connection, event) };
    let is_known: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM rooms WHERE room = ?1)")?
        .query_row([id], |row| row.get(0))?;
    if is_known { room(connection, event) } else { Ok(id) }
}

fn data<T: DeserializeOwned>(event: &CloudEvent) -> Result<T, DeriveError> {
    T::deserialize(&event.data)
        .map_err(|error| DeriveError::Event(format!("the data of kind {} is wrong: {error}", event.kind)))
}

fn few(what: &str, count: usize) -> Result<(), DeriveError> {
    if count <= ROWS_MAX {
        return Ok(());
    }
    Err(DeriveError::Event(format!("the event has {count} {what}, more than the {ROWS_MAX} that are taken")))
}

fn signed(number: u64) -> Result<i64, DeriveError> {
    i64::try_from(number).map_err(|_| DeriveError::Event(format!("{number} is larger than the database can keep")))
}

fn text(value: &Value) -> Option<String> {
    (!value.is_null()).then(|| value.to_string())
}

fn run(connection: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<usize, DeriveError> {
    Ok(connection.prepare_cached(sql)?.execute(values)?)
}
