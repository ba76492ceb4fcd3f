//! Rows of the outbox that somebody damaged: all others are recorded, and each of them is kept.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::super::damaged::SET_ASIDE_MAX_EVENTS;
use super::super::outbox::FILE;
use super::*;

/// Emits these, and waits until they are in the outbox; without a manager, which would take them out again.
async fn fill(events: &Events, numbers: std::ops::Range<u64>) {
    let before = events.stats().queued;
    let count = numbers.end - numbers.start;
    for number in numbers {
        emit(&events.sink(), numbered(number)).await;
    }
    until("all are written", || events.outbox.0.pending() == 0 && events.stats().queued == before + count).await;
}

fn numbers(records: &Records) -> BTreeSet<u64> {
    let all = all(records);
    let numbers: BTreeSet<u64> = all.iter().map(|event| event.event["data"]["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers.len(), all.len(), "an event was recorded twice");
    numbers
}

/// Reasons and positions of what is set aside, in the order of positions.
fn set_aside(connection: &Connection) -> Vec<(i64, String)> {
    let mut statement = connection.prepare("SELECT position, reason FROM set_aside ORDER BY position").unwrap();
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_rows_are_set_aside_and_those_behind_them_are_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let records_directory = tempfile::tempdir().unwrap();
    let events = embedded(directory.path()).await;
    fill(&events, 0..300).await;
    // A host that runs has some rows in memory already, and would send them as they were.
    events.shutdown(Duration::ZERO).await;
    events.stop_broker().await;
    drop(events);
    let database = Connection::open(directory.path().join(FILE)).unwrap();
    database.busy_timeout(DEADLINE).unwrap();
    let damage = |sql: &str| assert_eq!(database.execute(sql, []).unwrap(), 1, "{sql}");
    let good = "SELECT topic FROM outbox WHERE position = 300";
    damage("UPDATE outbox SET payload = 'text' WHERE position = 1");
    damage("UPDATE outbox SET payload = x'00ff' WHERE position = 2");
    damage("UPDATE outbox SET topic = x'ff' WHERE position = 40");
    damage("UPDATE outbox SET topic = 'holeshot/#' WHERE position = 41");
    damage("UPDATE outbox SET payload = (SELECT payload FROM outbox WHERE position = 99) WHERE position = 100");
    damage("UPDATE outbox SET topic = replace(topic, 'passed', 'lost') WHERE position = 150");
    damage("UPDATE outbox SET payload = 7 WHERE position = 200");
    damage("UPDATE outbox SET payload = x'' WHERE position = 299");
    let topic: String = database.query_row(good, [], |row| row.get(0)).unwrap();
    // A manager can say what is wrong with this one: it has its place in the order.
    damage(
        "UPDATE outbox SET payload = CAST(json_remove(CAST(payload AS TEXT), '$.type') AS BLOB) WHERE position = 250",
    );

    let events = embedded(directory.path()).await;
    let access = events.broker_access().clone();
    let manager = manager_in(records_directory.path(), &access).await;
    until("nothing waits any more", || events.stats().queued == 0).await;
    let expected: BTreeSet<u64> =
        (0..300).filter(|number| ![1, 2, 40, 41, 100, 150, 200, 250, 299].contains(&(number + 1))).collect();
    assert_eq!(numbers(&manager.records()), expected);
    let aside = set_aside(&database);
    let positions: Vec<i64> = aside.iter().map(|(position, _)| *position).collect();
    assert_eq!(positions, [1, 2, 40, 41, 100, 150, 200, 299], "{aside:?}");
    assert_eq!(events.stats().set_aside, 8);
    for ((_, reason), words) in aside.iter().zip([
        "of type text and not blob",
        "not a JSON object",
        "of type blob, is no text",
        "none of a host's",
        "it says that it is event 99 of",
        "by its payload should be",
        "of type integer",
        "not a JSON object",
    ]) {
        assert!(reason.contains(words), "{reason}: no {words}");
    }
    // Kept whole, with what it should be.
    let (kept, origin, sequence): (String, String, i64) = database
        .query_row("SELECT topic, origin, sequence FROM set_aside WHERE position = 299", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert!(
        origin.starts_with("pit.") && sequence == 299 && kept.starts_with("holeshot/v1/pit/events/"),
        "{kept} {topic}"
    );
    // It goes on.
    for number in 300..310 {
        emit(&events.sink(), numbered(number)).await;
    }
    until("nothing waits any more", || events.stats().queued == 0).await;
    assert_eq!(numbers(&manager.records()).len(), expected.len() + 10);
    manager.shutdown().await;
    events.shutdown(DEADLINE).await;
    events.stop_broker().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_damaged_outbox_goes_on_and_a_full_table_takes_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let records_directory = tempfile::tempdir().unwrap();
    let events = embedded(directory.path()).await;
    fill(&events, 0..10).await;
    events.shutdown(Duration::ZERO).await;
    events.stop_broker().await;
    drop(events);
    let database = Connection::open(directory.path().join(FILE)).unwrap();
    database.execute("UPDATE outbox SET payload = 'text' WHERE position = 1", []).unwrap();
    database
        .execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO set_aside (at, reason, origin, sequence, position) SELECT 't', 'r', 'o', i, i FROM n",
            [i64::try_from(SET_ASIDE_MAX_EVENTS).unwrap()],
        )
        .unwrap();
    let events = embedded(directory.path()).await;
    let manager = manager_in(records_directory.path(), &events.broker_access().clone()).await;
    let stats = events.stats();
    assert_eq!((stats.set_aside, stats.queued), (SET_ASIDE_MAX_EVENTS, 10));
    // Somebody looks, and makes room.
    database.busy_timeout(DEADLINE).unwrap();
    database.execute("DELETE FROM set_aside WHERE id > 1", []).unwrap();
    until("nothing waits any more", || events.stats().queued == 0).await;
    assert_eq!(numbers(&manager.records()), (1..10).collect());
    assert_eq!((events.stats().set_aside, set_aside(&database).len()), (2, 2));
    manager.shutdown().await;
    events.shutdown(DEADLINE).await;
    events.stop_broker().await;
}
