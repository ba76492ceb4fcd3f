//! What a module puts out: the record, and what a room lets leave of it.

use std::sync::Arc;

use holeshot_abi::{
    EVENT_BYTES_MAX, EVENTS_PER_TICK_MAX, Item, Manifest, OutputReader, OutputWriter, RESULTS_BYTES_MAX,
    SNAPSHOT_BYTES_MAX, is_event_name,
};
use holeshot_room::{
    Arrival, Departure, EventSource, INTERNAL_PREFIXES_RESERVED, Limits, Outcome, PUBLIC_NAMES_RESERVED, Room,
    RoomConfig, Supervision, Supervisor,
};

use crate::rules::{GivenProgram, setup};
use crate::take::Take;

/// Frames that a room runs on one output: in the second one everything is told a second time.
const FRAMES: u64 = 2;

pub(crate) fn target(input: &[u8]) {
    let mut input = Take(input);
    let players = usize::from(input.u8() % 4) + 1;
    let output = input.rest();
    let read = OutputReader::read(output, players);
    if let Ok(reader) = &read {
        let items: Vec<Item<'_>> = reader.items().collect();
        assert_eq!(items, OutputReader::of_checked(output).items().collect::<Vec<_>>());
        // Eight bytes of each item, and of the record.
        assert!(items.len() * 8 <= output.len());
        let events = items.iter().filter(|item| matches!(item, Item::PublicEvent { .. } | Item::InternalEvent { .. }));
        assert!(events.count() <= EVENTS_PER_TICK_MAX);
        let mut writer = OutputWriter::new();
        writer.begin();
        for item in &items {
            let len = match item {
                Item::SharedSnapshot(bytes) | Item::Snapshot { bytes, .. } => {
                    assert!(bytes.len() <= SNAPSHOT_BYTES_MAX);
                    continue_with(&mut writer, *item)
                }
                Item::PublicEvent { name, json } | Item::InternalEvent { name, json } => {
                    assert!(is_event_name(name) && json.len() <= EVENT_BYTES_MAX);
                    continue_with(&mut writer, *item)
                }
                Item::Results(json) => {
                    assert!(json.len() <= RESULTS_BYTES_MAX);
                    continue_with(&mut writer, *item)
                }
            };
            assert!(len.is_multiple_of(4), "records are whole words");
        }
        let written = writer.finish().to_vec();
        let again = OutputReader::read(&written, players).expect("what was read can be written");
        assert_eq!(again.items().collect::<Vec<_>>(), items);
    }
    room(players, output, read.is_ok());
}

/// Appends an item; gives its length, padding included.
fn continue_with(writer: &mut OutputWriter, item: Item<'_>) -> usize {
    let before = writer.finish().len();
    writer.push(item);
    writer.finish().len() - before
}

/// Runs a room on this output: what leaves it is within the limits, and what is wrong ends it with a fault.
fn room(players: usize, output: &[u8], is_read: bool) {
    let mut manifest = Manifest::new("given", "1.0.0", 1..=4, 4);
    manifest.tick_hz = 50;
    let setup = setup(players, 50);
    let program =
        GivenProgram { hash: [1; 32], manifest: manifest.clone(), setup: setup.clone(), output: output.into() };
    let mut rules = Supervisor::begin(Arc::new(program), Supervision::default()).expect("they begin with anything");
    let config = RoomConfig { id: "r".into(), manifest, setup, limits: Limits::default() };
    let mut room = Room::open(config, 0).expect("the config is valid");
    for player in 0..players as u16 {
        room.handle(0, Arrival::Connected { player }).expect("everybody may come");
        room.handle(0, Arrival::Ready { player }).expect("everybody may be ready");
    }
    let (mut ticks, mut ended, mut faults, mut snapshots) = (0, 0, 0, 0);
    for at_us in (0..FRAMES).map(|frame| frame * 20_000) {
        room.step(at_us, &mut rules, &mut |departure| match departure {
            Departure::Tick { .. } => ticks += 1,
            Departure::PublicEvent(event) => {
                assert!(serde_json::from_str::<serde_json::Value>(event.json).is_ok(), "{}", event.json);
                assert!(event.frame.is_some() || PUBLIC_NAMES_RESERVED.contains(&event.name));
            }
            Departure::InternalEvent { source, kind, json, .. } => {
                assert!(serde_json::from_str::<serde_json::Value>(json).is_ok(), "{json}");
                let is_reserved = INTERNAL_PREFIXES_RESERVED.iter().any(|prefix| kind.starts_with(prefix));
                assert_eq!(is_reserved, source == EventSource::Room, "{kind}");
            }
            Departure::Snapshot { player, bytes, .. } => {
                assert!(usize::from(player) < players && bytes.len() <= SNAPSHOT_BYTES_MAX);
                snapshots += 1;
            }
            Departure::RulesFault { fault, .. } => {
                assert!(fault.message.len() <= 2_048);
                faults += 1;
            }
            Departure::Ended { outcome } => {
                ended += 1;
                if let Outcome::Finished { results, .. } = outcome {
                    let results: Vec<holeshot_abi::PlayerResult<serde_json::Value>> =
                        serde_json::from_str(results).expect("results of a finished game can be read");
                    let mut slots: Vec<u16> = results.iter().map(|result| result.player).collect();
                    slots.sort_unstable();
                    slots.dedup();
                    assert_eq!(slots.len(), results.len());
                    assert!(slots.iter().all(|slot| usize::from(*slot) < players));
                }
            }
            _ => {}
        });
    }
    assert!(is_read || faults == 1, "an output that cannot be read ends the room");
    assert_eq!(ticks == FRAMES, ended == 0, "{ticks} ticks, {ended} ends");
    assert!(snapshots <= players as u64 * FRAMES);
}
