//! What the recorder does beside recording: it deletes what is older than it has to be kept, and scores what was recorded before its module's leaderboards were
//! known. All of it in small steps between two batches, on the recorder's own thread and connection, so that there is never a second writer to
//! wait for: recording waits for one step at most, and all steps together take at most a fifth of the time ([`REST_FACTOR`]).
//!
//! Age is counted in days of the manager's clock, by when something was recorded: once an hour the table `days` is told how far recording has come. A host
//! whose clock is years off has its events kept as long as all others. A manager whose own clock was wrong deletes too late or, if it was ahead by more than
//! is to be kept, too early.
//!
//! Deleted events leave no trace but `origins.stored`, which is never deleted: an event that comes again has a sequence that is stored, and is a duplicate.
//! The space that they had is used again by SQLite; the file does not shrink. After a pass that deleted something the WAL is truncated.

use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::scores::{find_best, forget_scores, score_some};
use crate::events::cloudevent::rfc3339;

/// Events that one step deletes, and results that one step scores. Recording waits for it: 53 to 95 ms were measured on two cores with a load of 15, less on a
/// machine with nothing else to do. `holeshot_manager_chore_longest_seconds` says how long it was here.
const STEP_ROWS: usize = 500;

/// Rooms that one step deletes with their players, results and scores.
const STEP_ROOMS: usize = 50;

/// A step that took some time is followed by so many times that before the next: chores take a fifth of the time at most.
const REST_FACTOR: u32 = 4;

/// Time from the end of one pass to the begin of the next.
const PASS_EVERY: Duration = Duration::from_secs(3_600);

/// Marks of days that are kept: ten years, as long as anything may be kept, and one more.
const DAYS_MAX: i64 = 4_000;

/// How long records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Days that events and rejected messages are kept; 0 for ever.
    pub events_days: u32,
    /// Days that rooms are kept, with players, results and scores; 0 for ever.
    pub records_days: u32,
}

impl Retention {
    /// Days that events are kept unless the setting says otherwise: a season.
    pub const EVENTS_DAYS: u32 = 90;
    /// Rooms and results are kept for ever unless the setting says otherwise.
    pub const RECORDS_DAYS: u32 = 0;
    /// Ten years: more is a mistake in the units.
    pub const DAYS_MAX: u32 = 3_660;
}

impl Default for Retention {
    fn default() -> Self {
        Self { events_days: Self::EVENTS_DAYS, records_days: Self::RECORDS_DAYS }
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) events: u64,
    pub(super) rejected: u64,
    pub(super) rooms: u64,
    pub(super) scored: bool,
    /// Nothing is left to do until the next pass.
    pub(super) finished: bool,
}

/// The work under way.
pub(super) struct Chores {
    retention: Retention,
    next: Instant,
    /// The last room that the pass looked at.
    room: i64,
    deleted: bool,
}

impl Chores {
    pub(super) fn new(retention: Retention) -> Self {
        Self { retention, next: Instant::now(), room: 0, deleted: false }
    }

    /// How long until there is something to do.
    pub(super) fn wait(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Leaderboards became known: there may be something to score.
    pub(super) fn wake(&mut self) {
        self.next = Instant::now();
    }

    /// One step, and when the next one is due. What fails is tried again in the next pass: nothing depends on it.
    pub(super) fn step(&mut self, connection: &mut Connection) -> Done {
        let begun = Instant::now();
        let done = match self.work(connection, SystemTime::now()) {
            Ok(done) => done,
            Err(error) => {
                tracing::warn!(%error, "the records cannot be tidied up now; trying again in an hour");
                Done { finished: true, ..Done::default() }
            }
        };
        let rest = if done.finished { PASS_EVERY } else { begun.elapsed().saturating_mul(REST_FACTOR) };
        self.next = Instant::now() + rest;
        done
    }

    fn work(&mut self, connection: &mut Connection, now: SystemTime) -> rusqlite::Result<Done> {
        let mut done = Done::default();
        // As a writer from the start, like the recorder's own: an hour is long to wait because another program wrote at this moment.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        mark_day(&transaction, now)?;
        if score_some(&transaction, STEP_ROWS)? {
            done.scored = true;
        } else if let Some((event, _, rejected)) = mark_before(&transaction, now, self.retention.events_days)? {
            done.events = delete_some(&transaction, "events", event)?;
            done.rejected = delete_some(&transaction, "rejected", rejected)?;
        }
        if done == Done::default()
            && let Some((_, last, _)) = mark_before(&transaction, now, self.retention.records_days)?
        {
            done.rooms = self.delete_rooms(&transaction, last)?;
        }
        done.finished = done == Done::default();
        transaction.commit()?;
        self.deleted |= done.events + done.rejected + done.rooms > 0;
        if done.finished {
            self.room = 0;
            if std::mem::take(&mut self.deleted) {
                truncate_wal(connection)?;
            }
        }
        Ok(done)
    }

    /// Deletes rooms up to the one with id `last` that are over.
    fn delete_rooms(&mut self, connection: &Connection, last: i64) -> rusqlite::Result<u64> {
        let rooms: Vec<(i64, String)> = connection
            .prepare_cached(
                "SELECT id, room FROM rooms WHERE id > ?1 AND id <= ?2 AND (outcome IS NOT NULL OR closed_at IS NOT NULL)
                 ORDER BY id LIMIT ?3",
            )?
            .query_map(params![self.room, last, STEP_ROOMS as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        for (id, room) in &rooms {
            let entries = forget_scores(connection, room)?;
            for entry in &entries {
                find_best(connection, entry)?;
            }
            for table in ["players", "results", "swaps", "journals", "rooms"] {
                connection.prepare_cached(&format!("DELETE FROM {table} WHERE room = ?1"))?.execute([room])?;
            }
            self.room = *id;
        }
        Ok(rooms.len() as u64)
    }
}

/// Tells the table `days` how far recording has come today.
fn mark_day(connection: &Connection, now: SystemTime) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO days (day, event, room, rejected)
             SELECT ?1, (SELECT COALESCE(MAX(id), 0) FROM events), (SELECT COALESCE(MAX(id), 0) FROM rooms),
                (SELECT COALESCE(MAX(id), 0) FROM rejected)
             WHERE true
             ON CONFLICT (day) DO UPDATE SET event = MAX(event, excluded.event), room = MAX(room, excluded.room),
             rejected = MAX(rejected, excluded.rejected)
             WHERE excluded.event > event OR excluded.room > room OR excluded.rejected > rejected",
        )?
        .execute([day(now)])?;
    connection
        .prepare_cached("DELETE FROM days WHERE day < (SELECT day FROM days ORDER BY day DESC LIMIT 1 OFFSET ?1)")?
        .execute([DAYS_MAX])?;
    Ok(())
}

/// How far recording was when what is to be kept `days` days began; none if everything is to be kept.
fn mark_before(connection: &Connection, now: SystemTime, days: u32) -> rusqlite::Result<Option<(i64, i64, i64)>> {
    let age = Duration::from_secs(u64::from(days) * 24 * 3_600);
    let Some(first) = now.checked_sub(age).filter(|_| days > 0) else { return Ok(None) };
    connection
        .prepare_cached("SELECT event, room, rejected FROM days WHERE day < ?1 ORDER BY day DESC LIMIT 1")?
        .query_row([day(first)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()
}

fn day(time: SystemTime) -> String {
    let text = rfc3339(time);
    text.get(..10).unwrap_or(&text).to_owned()
}

fn delete_some(connection: &Connection, table: &str, last: i64) -> rusqlite::Result<u64> {
    let deleted = connection
        .prepare_cached(&format!(
            "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE id <= ?1 ORDER BY id LIMIT ?2)"
        ))?
        .execute(params![last, STEP_ROWS as i64])?;
    Ok(deleted as u64)
}

/// Brings the WAL into the file and cuts it back to nothing, unless somebody reads: then the next checkpoint does it.
fn truncate_wal(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::ZERO)?;
    let checkpoint = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    connection.busy_timeout(super::records::BUSY_MAX)?;
    checkpoint
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{CloudEvent, topics};
    use crate::manager::recorder::Offline;
    use crate::manager::records;
    use std::time::UNIX_EPOCH;

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    fn on_day(day: u32) -> SystemTime {
        // In the middle of a day, years after 1970.
        UNIX_EPOCH + DAY * (20_000 + day) + DAY / 2
    }

    fn count(connection: &Connection, table: &str) -> i64 {
        connection.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }

    /// A day's events and rooms, whose own clock says what it likes.
    fn record(connection: &Connection, day: u32, count: u32) {
        let transaction = connection.unchecked_transaction().unwrap();
        connection
            .execute("INSERT OR IGNORE INTO origins (id, origin, host, stored) VALUES (1, 'pit.1', 'pit', 999)", [])
            .unwrap();
        for n in 0..count {
            let room = format!("r-{day}-{n}");
            let time = ["1970-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z"][n as usize % 2];
            connection
                .execute(
                    "INSERT INTO events (origin, sequence, time, kind, room, json) VALUES (1, ?1, ?2, 'room.finished', ?3, ?4)",
                    params![day * 100_000 + n, time, room, format!("{{\"x\":\"{}\"}}", "y".repeat(400))],
                )
                .unwrap();
            connection
                .execute(
                    "INSERT INTO rooms (room, host, outcome) VALUES (?1, 'pit', ?2)",
                    params![room, (n != 0).then_some("finished")],
                )
                .unwrap();
            connection
                .execute("INSERT INTO players (room, player, name) VALUES (?1, 0, 'Ada')", params![room])
                .unwrap();
            connection
                .execute(
                    "INSERT INTO results (room, player, name, outcome, ended_at) VALUES (?1, 0, 'Ada', 'won', ?2)",
                    params![room, time],
                )
                .unwrap();
            // Better on every later day, and the best of all on the first.
            let rank = if day == 0 { 0.0 } else { f64::from(100 - day) };
            for table in ["scores", "bests"] {
                let sql = format!(
                    "INSERT OR IGNORE INTO {table} (room, player, board, name, module_hash, group_key, rank, ended_at)
                     VALUES (?1, 0, 'b', 'Ada', 'h', '{{}}', ?2, ?3)"
                );
                connection.execute(&sql, params![room, rank, time]).unwrap();
            }
        }
        connection
            .execute("INSERT INTO rejected (received_at, topic, reason, payload) VALUES ('t', 't', 'r', x'00')", [])
            .unwrap();
        transaction.commit().unwrap();
    }

    /// A whole pass, and the longest of its steps.
    fn pass(chores: &mut Chores, connection: &mut Connection, now: SystemTime) -> (Done, Duration) {
        let (mut all, mut longest) = (Done::default(), Duration::ZERO);
        loop {
            let begun = Instant::now();
            let done = chores.work(connection, now).unwrap();
            longest = longest.max(begun.elapsed());
            assert!(done.events <= STEP_ROWS as u64 && done.rooms <= STEP_ROOMS as u64);
            all.events += done.events;
            all.rejected += done.rejected;
            all.rooms += done.rooms;
            if done.finished {
                return (all, longest);
            }
        }
    }

    #[test]
    fn what_is_older_goes_by_the_day_it_was_recorded_and_the_space_is_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let (mut connection, path) = records::open(directory.path()).unwrap();
        let mut chores = Chores::new(Retention { events_days: 3, records_days: 5 });
        let mut pages = Vec::new();
        for today in 0..12 {
            record(&connection, today, 1_200);
            let (done, longest) = pass(&mut chores, &mut connection, on_day(today));
            println!("day {today}: {done:?}, the longest step took {longest:?}");
            assert_eq!((done.events, done.rejected), if today < 4 { (0, 0) } else { (1_200, 1) });
            // One room of each day never ended.
            assert_eq!(done.rooms, if today < 6 { 0 } else { 1_199 });
            pages.push(connection.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).unwrap());
            // The same day again: nothing more.
            assert_eq!(pass(&mut chores, &mut connection, on_day(today)).0, Done::default());
        }
        assert_eq!((count(&connection, "events"), count(&connection, "rejected")), (4 * 1_200, 4));
        assert_eq!((count(&connection, "rooms"), count(&connection, "results")), (6 * 1_200 + 6, 6 * 1_200 + 6));
        assert_eq!(count(&connection, "players"), count(&connection, "results"));
        // The file is as large as it was when the first day went.
        assert!(pages[11] <= pages[7] + pages[7] / 20, "{pages:?}");
        let wal = std::fs::metadata(path.with_extension("sqlite3-wal")).map_or(0, |file| file.len());
        assert_eq!(wal, 0);
        // The best of all has gone with its room; the one that never ended keeps its own.
        let best: f64 = connection.query_row("SELECT rank FROM bests", [], |row| row.get(0)).unwrap();
        assert_eq!(best, 0.0);
        connection.execute("UPDATE rooms SET outcome = 'aborted'", []).unwrap();
        pass(&mut chores, &mut connection, on_day(12));
        let best: f64 = connection.query_row("SELECT rank FROM bests", [], |row| row.get(0)).unwrap();
        assert_eq!(best, 89.0);
        // What came once is known for ever.
        assert_eq!(count(&connection, "origins"), 1);
    }

    #[test]
    fn what_was_deleted_is_not_new_when_it_comes_again() {
        let directory = tempfile::tempdir().unwrap();
        let open = || records::open(directory.path()).unwrap().0;
        let batch: Vec<(String, Vec<u8>)> = (1..=700)
            .map(|sequence| {
                let event = CloudEvent {
                    origin: "pit.0193a1".into(),
                    sequence,
                    host: "pit".into(),
                    kind: "room.opened".into(),
                    room: Some(format!("r-{sequence}")),
                    module: Some("laps".into()),
                    time: on_day(0),
                    data: serde_json::json!({ "module": { "hash": "aa", "name": "laps", "version": "1" }, "seed": 1 }),
                };
                (topics::event("pit", Some("laps"), "room.opened"), event.encode())
            })
            .collect();
        let mut recorder = Offline::new(open());
        assert_eq!(recorder.take(&batch).unwrap(), (700, 0, 0));
        let mut connection = open();
        connection.execute("UPDATE rooms SET outcome = 'aborted'", []).unwrap();
        let mut chores = Chores::new(Retention { events_days: 1, records_days: 1 });
        pass(&mut chores, &mut connection, on_day(0));
        let (done, _) = pass(&mut chores, &mut connection, on_day(2));
        assert_eq!((done.events, done.rooms), (700, 700));
        // By the recorder that knew them, and by one that was started anew.
        assert_eq!(recorder.take(&batch).unwrap(), (0, 700, 0));
        assert_eq!(Offline::new(open()).take(&batch).unwrap(), (0, 700, 0));
        assert_eq!((count(&connection, "events"), count(&connection, "rooms")), (0, 0));
    }

    #[test]
    fn for_ever_is_for_ever_and_a_clock_that_jumps_back_deletes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (mut connection, _) = records::open(directory.path()).unwrap();
        record(&connection, 0, 10);
        let mut for_ever = Chores::new(Retention { events_days: 0, records_days: 0 });
        pass(&mut for_ever, &mut connection, on_day(0));
        assert_eq!(pass(&mut for_ever, &mut connection, on_day(3_000)).0, Done::default());
        let mut chores = Chores::new(Retention { events_days: 1, records_days: 1 });
        assert_eq!(pass(&mut chores, &mut connection, UNIX_EPOCH).0, Done::default());
        assert_eq!(count(&connection, "events"), 10);
    }
}
