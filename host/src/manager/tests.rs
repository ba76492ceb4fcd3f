//! The records' file: which files are taken and which are refused; and what events about swaps and journals make of it, in any order. How events get there is
//! tested in `events::tests`.

use std::time::{Duration, UNIX_EPOCH};

use rusqlite::Connection;
use serde_json::{Value, json};

use super::derive::derive;
use super::records::{self, MIGRATIONS, Records, RecordsError, SwapRecord};
use crate::events::CloudEvent;

#[test]
fn a_file_of_a_newer_program_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (connection, path) = records::open(directory.path()).unwrap();
    connection.execute_batch("PRAGMA user_version = 77").unwrap();
    drop(connection);
    let error = records::open(directory.path()).unwrap_err();
    assert_eq!(error, RecordsError::Newer { path: path.clone(), found: 77, known: 4 });
    assert!(error.to_string().contains("use the newer program"));
    let version: i64 = Connection::open(&path).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(version, 77);
}

#[test]
fn a_file_of_another_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    Connection::open(directory.path().join(records::FILE)).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(matches!(records::open(directory.path()).unwrap_err(), RecordsError::Foreign { .. }));
    std::fs::write(directory.path().join(records::FILE), b"no database at all, but a text").unwrap();
    assert!(matches!(records::open(directory.path()).unwrap_err(), RecordsError::Sqlite { .. }));
}

#[test]
fn opening_again_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (first, path) = records::open(directory.path()).unwrap();
    let id = super::manager_id(&first, &path).unwrap();
    drop(first);
    let (again, _) = records::open(directory.path()).unwrap();
    assert_eq!(super::manager_id(&again, &path).unwrap(), id);
}

#[test]
fn a_file_of_the_first_layout_is_taken_further() {
    let directory = tempfile::tempdir().unwrap();
    let old = Connection::open(directory.path().join(records::FILE)).unwrap();
    old.execute_batch(MIGRATIONS[0]).unwrap();
    old.execute_batch("INSERT INTO rooms (room, host) VALUES ('r-1', 'pit'); PRAGMA user_version = 1; PRAGMA application_id = 0x484F4C45;")
        .unwrap();
    drop(old);
    let (_, path) = records::open(directory.path()).unwrap();
    let room = Records::new(path).room("r-1").unwrap().unwrap();
    assert_eq!((room.summary.host.as_str(), room.swaps), ("pit", vec![]));
}

fn event(kind: &str, at_s: u64, data: Value) -> CloudEvent {
    CloudEvent {
        origin: "pit.1".into(),
        sequence: at_s,
        host: "pit".into(),
        kind: kind.into(),
        room: Some("r-1".into()),
        module: Some("drag-race".into()),
        time: UNIX_EPOCH + Duration::from_secs(at_s),
        data,
    }
}

#[test]
fn rooms_of_a_host_that_was_killed_end_though_its_clock_was_set_back() {
    let directory = tempfile::tempdir().unwrap();
    let (connection, path) = records::open(directory.path()).unwrap();
    let records = Records::new(path);
    let started = |origin: &str, at_s| CloudEvent {
        origin: origin.into(),
        room: None,
        module: None,
        ..event("host.started", at_s, json!({ "version": "1.0.0", "listen": {} }))
    };
    connection
        .execute_batch("INSERT INTO origins (id, origin, host) VALUES (1, 'pit.1', 'pit'), (2, 'pit.2', 'pit')")
        .unwrap();
    let opened = event(
        "room.opened",
        7_200,
        json!({ "module": { "name": "m", "version": "1.0.0", "hash": "h" }, "seed": 1, "players": [] }),
    );
    connection
        .execute(
            "INSERT INTO events (origin, sequence, time, kind, room, json) VALUES (1, 2, '', 'room.opened', 'r-1', '{}')",
            [],
        )
        .unwrap();
    let ending = |records: &Records| records.room("r-1").unwrap().unwrap().summary.reason;
    derive(&connection, &started("pit.1", 7_100)).unwrap();
    derive(&connection, &opened).unwrap();
    // The start that it belongs to, once more: no end.
    derive(&connection, &started("pit.1", 7_100)).unwrap();
    assert_eq!(ending(&records), None);
    derive(&connection, &started("pit.2", 3_600)).unwrap();
    assert_eq!(ending(&records).as_deref(), Some("host_lost"));
}

#[test]
fn the_last_start_of_a_host_is_the_one_that_came_last_whatever_its_clock_says() {
    let directory = tempfile::tempdir().unwrap();
    let (connection, path) = records::open(directory.path()).unwrap();
    let records = Records::new(path);
    let of_host = |origin: &str, kind: &str, at_s, data| CloudEvent {
        origin: origin.into(),
        room: None,
        module: None,
        ..event(kind, at_s, data)
    };
    let started = |origin: &str, at_s, version: &str| {
        of_host(origin, "host.started", at_s, json!({ "version": version, "listen": {} }))
    };
    let stopping = |origin: &str, at_s| of_host(origin, "host.stopping", at_s, json!({}));
    let host = |event: &CloudEvent| {
        derive(&connection, event).unwrap();
        let [host] = records.hosts().unwrap().try_into().unwrap();
        let at = |time: Option<String>| time.map(|time| time[11..16].to_owned());
        (host.version.unwrap(), at(host.started_at).unwrap(), at(host.stopping_at))
    };
    let is = |version: &str, started: &str, stopping: Option<&str>| {
        (version.to_owned(), started.to_owned(), stopping.map(str::to_owned))
    };
    connection.execute("INSERT INTO origins (id, origin, host) VALUES (1, 'pit.1', 'pit')", []).unwrap();
    assert_eq!(host(&started("pit.1", 7_200, "1.0.0")), is("1.0.0", "02:00", None));
    assert_eq!(host(&stopping("pit.1", 7_260)), is("1.0.0", "02:00", Some("02:01")));
    // Another host's starts are no matter.
    connection
        .execute("INSERT INTO origins (id, origin, host) VALUES (2, 'pit.2', 'pit'), (3, 'box.1', 'box')", [])
        .unwrap();
    // The clock was set back by an hour: it runs again, and so its stop is none of this start's.
    assert_eq!(host(&started("pit.2", 3_600, "1.1.0")), is("1.1.0", "01:00", None));
    // The first start once more.
    assert_eq!(host(&started("pit.1", 7_200, "1.0.0")), is("1.1.0", "01:00", None));
    assert_eq!(host(&stopping("pit.1", 7_260)), is("1.1.0", "01:00", None));
    assert_eq!(host(&stopping("pit.2", 3_660)), is("1.1.0", "01:00", Some("01:01")));
    // Forward again.
    connection.execute("INSERT INTO origins (id, origin, host) VALUES (4, 'pit.3', 'pit')", []).unwrap();
    assert_eq!(host(&started("pit.3", 10_800, "1.2.0")), is("1.2.0", "03:00", Some("01:01")));
}

/// What the records have of a room's swaps after these events.
fn swaps_after(events: &[&CloudEvent]) -> Vec<SwapRecord> {
    let directory = tempfile::tempdir().unwrap();
    let (connection, path) = records::open(directory.path()).unwrap();
    for event in events {
        derive(&connection, event).unwrap();
    }
    Records::new(path).room("r-1").unwrap().unwrap().swaps
}

#[test]
fn swaps_are_the_same_in_whatever_order_their_events_come() {
    let module = |hash: &str| json!({ "name": "drag-race", "version": format!("1.0.{hash}"), "hash": hash });
    let events = [
        event("room.rules_swapped", 1, json!({ "frame": 100, "module": module("b"), "from": module("a") })),
        event(
            "room.rules_rolled_back",
            2,
            json!({
                "frame": 130, "since_frame": 100, "module": module("a"), "failed": module("b"), "reason": "trap",
                "message": "tick: unreachable", "backtrace": "boom (0x12)", "void": [7], "void_internal": [],
            }),
        ),
        event("room.rules_swapped", 3, json!({ "frame": 131, "module": module("c"), "from": module("a") })),
        event("room.rules_kept", 4, json!({ "frame": 281, "since_frame": 131, "module": module("c"), "early": false })),
        event(
            "module.swap_refused",
            5,
            json!({ "frame": 270, "module": module("b"), "from": module("c"), "reason": "trap", "message": "m", "backtrace": null }),
        ),
        // The same one asked for again.
        event(
            "module.swap_refused",
            6,
            json!({ "module": module("b"), "from": module("c"), "reason": "state_refused", "message": "m" }),
        ),
        event("room.rules_retried", 7, json!({ "frame": 300, "module": module("c"), "fault": "trap", "message": "m" })),
        event("room.rules_swapped", 8, json!({ "frame": 301, "module": module("b"), "from": module("c") })),
    ];
    let in_order: Vec<&CloudEvent> = events.iter().collect();
    let expected = swaps_after(&in_order);
    let outcomes: Vec<_> = expected
        .iter()
        .map(|swap| (swap.outcome.as_str(), swap.frame, swap.to_hash.as_str(), swap.failing_frame))
        .collect();
    assert_eq!(
        outcomes,
        [
            ("rolled_back", Some(100), "b", Some(130)),
            ("kept", Some(131), "c", None),
            ("refused", None, "b", Some(270)),
            ("refused", None, "b", None),
            ("swapped", Some(301), "b", None),
        ]
    );
    let first = &expected[0];
    assert_eq!((first.from_hash.as_deref(), first.to_version.as_deref()), (Some("a"), Some("1.0.b")));
    assert_eq!((first.reason.as_deref(), first.backtrace.as_deref()), (Some("trap"), Some("boom (0x12)")));
    assert!(first.decided_at > Some(first.at.clone()) && expected[4].decided_at.is_none());
    for shift in 1..in_order.len() {
        let mut order = in_order.clone();
        order.rotate_left(shift);
        order.reverse();
        // And each of them twice.
        order.extend(in_order.iter().copied());
        assert_eq!(swaps_after(&order), expected, "shifted by {shift}");
    }
}

#[test]
fn a_journal_is_on_record_and_makes_no_room_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let (connection, path) = records::open(directory.path()).unwrap();
    let records = Records::new(path);
    let closed = |at_s, state: &str, problem: Value| {
        event("room.journal_closed", at_s, json!({ "state": state, "bytes": 900, "frames": 50, "problem": problem }))
    };
    // What a killed host left may belong to a room that it never came to tell of.
    derive(&connection, &closed(1, "cut_short", Value::Null)).unwrap();
    assert_eq!(records.room("r-1").unwrap(), None);
    derive(&connection, &event("room.closed", 2, json!({}))).unwrap();
    let journal = records.room("r-1").unwrap().unwrap().journal.unwrap();
    assert_eq!((journal.state.as_str(), journal.bytes, journal.frames), ("cut_short", 900, 50));
    // Told again, the later one counts.
    derive(&connection, &closed(3, "incomplete", json!("the disk is full"))).unwrap();
    let journal = records.room("r-1").unwrap().unwrap().journal.unwrap();
    assert_eq!((journal.state.as_str(), journal.problem.as_deref()), ("incomplete", Some("the disk is full")));
    // Another host may not speak of this room, and a word that is no state is refused.
    let foreign = CloudEvent { host: "other".into(), ..closed(4, "whole", Value::Null) };
    assert!(derive(&connection, &foreign).is_err());
    assert!(derive(&connection, &closed(5, "fine", Value::Null)).is_err());
}
