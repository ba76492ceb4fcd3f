//! What the broker brings: events and floors to the manager's recorder, with a real database behind it, and receipts to a host.
//!
//! An input is lines. A line is a payload, with its topic and a tab in front if it is to come on another than its own.

use std::cell::RefCell;
use std::collections::BTreeMap;

use holeshot::events::{CloudEvent, topics};
use holeshot::fuzzing::{Recorded, Recording, receipt};
use holeshot::manager::records::{PAGE_MAX, RoomsPage};

/// Messages of one input.
const MESSAGES_MAX: usize = 24;

/// The topic of what has none of its own.
const TOPIC: &str = "holeshot/v1/pit/events/host/host.started";

struct Files {
    _folder: tempfile::TempDir,
    recording: Recording,
}

thread_local! {
    static FILES: RefCell<Option<Files>> = const { RefCell::new(None) };
}

pub(crate) fn target(input: &[u8]) {
    let mut batch = Vec::new();
    for line in input.split(|byte| *byte == b'\n').take(MESSAGES_MAX) {
        let message = message(line);
        parse(&message.1);
        batch.push(message);
    }
    FILES.with_borrow_mut(|files| {
        let files = files.get_or_insert_with(|| {
            let folder = tempfile::tempdir().expect("a folder for the records");
            let recording = Recording::open(folder.path()).expect("records in an empty folder");
            Files { _folder: folder, recording }
        });
        record(&mut files.recording, &batch);
    });
}

fn message(line: &[u8]) -> (String, Vec<u8>) {
    if let Some(at) = line.iter().position(|byte| *byte == b'\t')
        && let Ok(topic) = std::str::from_utf8(&line[..at])
    {
        return (topic.to_owned(), line[at + 1..].to_vec());
    }
    let topic = match CloudEvent::parse(line) {
        Ok(event) => topics::event(&event.host, event.module.as_deref(), &event.kind),
        Err(_) if line.starts_with(b"{\"origins\"") => topics::outbox("pit"),
        Err(_) => TOPIC.to_owned(),
    };
    (topic, line.to_vec())
}

/// An event that can be read is written with the same meaning; so is a receipt.
fn parse(payload: &[u8]) {
    match CloudEvent::parse(payload) {
        Ok(event) => {
            assert!(event.sequence >= 1 && !event.origin.is_empty() && topics::is_host_id(&event.host));
            let topic = topics::event(&event.host, event.module.as_deref(), &event.kind);
            assert_eq!(topics::host_of(&topic), Some(event.host.as_str()));
            assert!(topic.len() <= 256 && !topic.contains(['+', '#', '\0']));
            assert_eq!(CloudEvent::identity(payload), Some((event.origin.clone(), event.sequence)));
            let written = event.encode();
            // Times are kept to the microsecond.
            let again = CloudEvent::parse(&written).expect("what was read can be written");
            assert!(event.time.duration_since(again.time).is_ok_and(|lost| lost.as_micros() == 0));
            assert_eq!(again, CloudEvent { time: again.time, ..event });
        }
        Err(error) => assert!(error.to_string().len() <= 1_024, "{error}"),
    }
    if let Some((said, written)) = receipt(payload) {
        assert_eq!(receipt(&written).map(|(said, _)| said), Some(said));
    }
}

fn record(recording: &mut Recording, batch: &[(String, Vec<u8>)]) {
    let first = recording.take(batch).expect("no message makes the database fail");
    let events = recording.events().expect("the events can be read");
    assert_eq!(events.len() as u64, first.stored, "{first:?}");
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for (origin, sequence, json) in &events {
        assert!(last.insert(origin, *sequence).is_none_or(|last| last < *sequence), "each event once");
        let event = CloudEvent::parse(json.as_bytes()).expect("what was stored can be read");
        assert_eq!((&event.origin, event.sequence), (origin, *sequence));
    }
    // The same again: nothing is stored twice.
    let again = recording.take(batch).expect("no message makes the database fail");
    assert_eq!(again.stored, 0, "{again:?} after {first:?}");
    assert_eq!(recording.events().as_ref(), Ok(&events));
    read(recording, &events);
    // One by one instead of together: the same.
    recording.clear().expect("tables can be emptied");
    let mut apart = Recorded { stored: 0, duplicates: 0, rejected: 0 };
    for message in batch {
        let one = recording.take(std::slice::from_ref(message)).expect("no message makes the database fail");
        apart.stored += one.stored;
        apart.duplicates += one.duplicates;
        apart.rejected += one.rejected;
    }
    assert_eq!((apart, recording.events()), (first, Ok(events)));
    recording.clear().expect("tables can be emptied");
}

/// Whatever the events say, the records can be read.
fn read(recording: &Recording, events: &[(String, u64, String)]) {
    let records = recording.records();
    let rooms =
        records.rooms(&RoomsPage { limit: Some(PAGE_MAX), ..RoomsPage::default() }).expect("the rooms can be read");
    for room in &rooms {
        let found = records.room(&room.room).expect("a room can be read");
        assert_eq!(found.map(|found| found.summary.host), Some(room.host.clone()));
    }
    let listed = records.events(0, PAGE_MAX).expect("the events can be read");
    assert_eq!(listed.len(), events.len());
    records.hosts().expect("the hosts can be read");
    records.modules().expect("the modules can be read");
    records.rejected(PAGE_MAX).expect("what was rejected can be read");
}
