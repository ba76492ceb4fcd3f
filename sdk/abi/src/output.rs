//! The output record: everything that leaves a module in one tick.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use crate::bytes::{Cursor, Malformed, pad, push_padded};
use crate::{
    EVENT_BYTES_MAX, EVENT_NAME_BYTES_MAX, EVENTS_PER_TICK_MAX, OUTPUT_BYTES_MAX, PLAYERS_MAX, RESULTS_BYTES_MAX,
    SNAPSHOT_BYTES_MAX,
};

/// One thing that leaves a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// The snapshot for every player that has none of its own.
    SharedSnapshot(&'a [u8]),
    /// The snapshot for one player.
    Snapshot {
        /// Its slot.
        player: u16,
        /// The module's bytes.
        bytes: &'a [u8],
    },
    /// A public event.
    PublicEvent {
        /// Its name.
        name: &'a str,
        /// JSON text; not yet checked to be JSON.
        json: &'a str,
    },
    /// An internal event.
    InternalEvent {
        /// Its name.
        name: &'a str,
        /// JSON text; not yet checked to be JSON.
        json: &'a str,
    },
    /// The game is finished: JSON text of an array of [`PlayerResult`]; not yet checked.
    Results(&'a str),
}

/// How a game ended for one player. `D` is the module's own detail (the drag race: a time slip).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlayerResult<D> {
    /// The player's slot.
    pub player: u16,
    /// Place, from 1; several players may share one; none if the player has no place.
    #[serde(default)]
    pub place: Option<u16>,
    /// One word for queries, an [event name](is_event_name): `won`, `lost`, `red_light`, `did_not_finish` …
    pub outcome: String,
    /// The module's own detail.
    pub data: D,
}

/// Whether this is a name that an event or an outcome may have: 1 to 64 characters, words of `a-z 0-9 _` joined by single dots,
/// beginning with a letter. It becomes a level of a topic.
#[must_use]
pub fn is_event_name(name: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    name.len() <= EVENT_NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.split('.').all(is_word)
}

const HEADER_BYTES: usize = 8;

const SHARED_SNAPSHOT: u8 = 1;
const SNAPSHOT: u8 = 2;
const PUBLIC_EVENT: u8 = 3;
const INTERNAL_EVENT: u8 = 4;
const RESULTS: u8 = 5;

/// Builds an output record in a buffer that is used again for every tick.
#[derive(Debug, Clone, Default)]
pub struct OutputWriter {
    bytes: Vec<u8>,
    items: u32,
}

impl OutputWriter {
    /// A writer; call [`begin`](OutputWriter::begin) before each record.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), items: 0 }
    }

    /// Starts an empty record.
    pub fn begin(&mut self) {
        self.items = 0;
        self.bytes.clear();
        self.bytes.resize(HEADER_BYTES, 0);
    }

    /// Appends an item.
    pub fn push(&mut self, item: Item<'_>) {
        let (kind, player, name, data) = match item {
            Item::SharedSnapshot(bytes) => (SHARED_SNAPSHOT, 0, "", bytes),
            Item::Snapshot { player, bytes } => (SNAPSHOT, player, "", bytes),
            Item::PublicEvent { name, json } => (PUBLIC_EVENT, 0, name, json.as_bytes()),
            Item::InternalEvent { name, json } => (INTERNAL_EVENT, 0, name, json.as_bytes()),
            Item::Results(json) => (RESULTS, 0, "", json.as_bytes()),
        };
        self.header(kind, name, player, data.len() as u32);
        push_padded(&mut self.bytes, data);
    }

    /// Appends a snapshot (for one player, or shared when `player` is none) that `write` puts at the end of the buffer it gets.
    ///
    /// # Errors
    /// Those of `write`; the item is then taken back.
    pub fn push_snapshot_with<E>(
        &mut self,
        player: Option<u16>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.push_with(if player.is_some() { SNAPSHOT } else { SHARED_SNAPSHOT }, "", player.unwrap_or(0), write)
    }

    /// Appends an event, public or internal, whose JSON text `write` puts at the end of the buffer it gets.
    ///
    /// # Errors
    /// Those of `write`; the item is then taken back.
    pub fn push_event_with<E>(
        &mut self,
        public: bool,
        name: &str,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.push_with(if public { PUBLIC_EVENT } else { INTERNAL_EVENT }, name, 0, write)
    }

    /// Appends the results, whose JSON text `write` puts at the end of the buffer it gets.
    ///
    /// # Errors
    /// Those of `write`; the item is then taken back.
    pub fn push_results_with<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        self.push_with(RESULTS, "", 0, write)
    }

    fn push_with<E>(
        &mut self,
        kind: u8,
        name: &str,
        player: u16,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        self.header(kind, name, player, 0);
        let data = self.bytes.len();
        if let Err(error) = write(&mut self.bytes) {
            self.bytes.truncate(start);
            self.items -= 1;
            return Err(error);
        }
        let len = self.bytes.len().saturating_sub(data) as u32;
        if let Some(field) = self.bytes.get_mut(start + 4..start + 8) {
            field.copy_from_slice(&len.to_le_bytes());
        }
        pad(&mut self.bytes);
        Ok(())
    }

    /// The record.
    pub fn finish(&mut self) -> &[u8] {
        if let Some(field) = self.bytes.get_mut(..4) {
            field.copy_from_slice(&self.items.to_le_bytes());
        }
        &self.bytes
    }

    fn header(&mut self, kind: u8, name: &str, player: u16, data_len: u32) {
        let name_len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        let player = player.to_le_bytes();
        self.bytes.extend_from_slice(&[kind, name_len, player[0], player[1]]);
        self.bytes.extend_from_slice(&data_len.to_le_bytes());
        push_padded(&mut self.bytes, name.as_bytes().get(..usize::from(name_len)).unwrap_or_default());
        self.items += 1;
    }
}

/// Reads an output record. [`read`](OutputReader::read) checks all that the specification says of layout, sizes and counts;
/// it leaves to the host whether texts are JSON.
#[derive(Debug, Clone, Copy)]
pub struct OutputReader<'a> {
    items: Cursor<'a>,
    count: u32,
}

impl<'a> OutputReader<'a> {
    /// Reads the output of a room with `players` slots. Empty bytes are an empty record.
    ///
    /// # Errors
    /// The first field that does not follow the specification.
    pub fn read(bytes: &'a [u8], players: usize) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("output", bytes);
        if bytes.is_empty() {
            return Ok(Self { items: cursor, count: 0 });
        }
        if bytes.len() > OUTPUT_BYTES_MAX {
            return Err(cursor.malformed("items", "the record is longer than 1 MiB"));
        }
        let count = cursor.u32("items")?;
        cursor.u32("reserved")?;
        let items = cursor;
        // One bit per player slot, and the top two for the items that may come once.
        let mut seen = [false; PLAYERS_MAX + 2];
        let mut events = 0usize;
        for _ in 0..count {
            let start = cursor;
            let once = match next_item(&mut cursor)? {
                Item::SharedSnapshot(_) => Some(PLAYERS_MAX),
                Item::Results(_) => Some(PLAYERS_MAX + 1),
                Item::Snapshot { player, .. } if usize::from(player) < players => Some(usize::from(player)),
                Item::Snapshot { .. } => {
                    return Err(start.malformed("player", "a snapshot for a slot that the room does not have"));
                }
                Item::PublicEvent { .. } | Item::InternalEvent { .. } => {
                    events += 1;
                    None
                }
            };
            if let Some(flag) = once.and_then(|at| seen.get_mut(at)) {
                if *flag {
                    return Err(start.malformed("kind", "a second item of a kind that may come once"));
                }
                *flag = true;
            }
            if events > EVENTS_PER_TICK_MAX {
                return Err(start.malformed("kind", "more than 64 events in one tick"));
            }
        }
        cursor.end()?;
        Ok(Self { items, count })
    }

    /// Reads a record that [`read`](OutputReader::read) has accepted before, without the checks. Of other bytes it gives the items up to
    /// the first that cannot be read.
    #[must_use]
    pub fn of_checked(bytes: &'a [u8]) -> Self {
        let mut items = Cursor::new("output", bytes);
        let count = items.u32("items").unwrap_or(0);
        let count = if items.u32("reserved").is_ok() { count } else { 0 };
        Self { items, count }
    }

    /// The items, in order.
    pub fn items(&self) -> impl Iterator<Item = Item<'a>> + use<'a> {
        let mut cursor = self.items;
        (0..self.count).map_while(move |_| next_item(&mut cursor).ok())
    }
}

fn next_item<'a>(cursor: &mut Cursor<'a>) -> Result<Item<'a>, Malformed> {
    let start = *cursor;
    let kind = cursor.u8("kind")?;
    let name_len = usize::from(cursor.u8("name_len")?);
    let player = cursor.u16("player")?;
    let data_len = cursor.u32("data_len")? as usize;
    let limit = match kind {
        SHARED_SNAPSHOT | SNAPSHOT => SNAPSHOT_BYTES_MAX,
        PUBLIC_EVENT | INTERNAL_EVENT => EVENT_BYTES_MAX,
        RESULTS => RESULTS_BYTES_MAX,
        _ => return Err(start.malformed("kind", "unknown")),
    };
    if data_len > limit {
        return Err(start.malformed(
            "data_len",
            match kind {
                SHARED_SNAPSHOT | SNAPSHOT => "a snapshot longer than 8192 bytes",
                RESULTS => "results longer than 49152 bytes",
                _ => "an event longer than 16384 bytes",
            },
        ));
    }
    let name = cursor.padded_str("name", name_len)?;
    match kind {
        PUBLIC_EVENT | INTERNAL_EVENT if !is_event_name(name) => {
            return Err(start.malformed(
                "name",
                "an event name that is not 1 to 64 characters, words of a-z, 0-9 and _ joined by single dots, beginning with a letter",
            ));
        }
        PUBLIC_EVENT | INTERNAL_EVENT => {}
        _ if name_len > 0 => return Err(start.malformed("name_len", "only events have a name")),
        _ => {}
    }
    Ok(match kind {
        SHARED_SNAPSHOT => Item::SharedSnapshot(cursor.padded("data", data_len)?),
        SNAPSHOT => Item::Snapshot { player, bytes: cursor.padded("data", data_len)? },
        PUBLIC_EVENT => Item::PublicEvent { name, json: cursor.padded_str("data", data_len)? },
        INTERNAL_EVENT => Item::InternalEvent { name, json: cursor.padded_str("data", data_len)? },
        _ => Item::Results(cursor.padded_str("data", data_len)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn written(items: &[Item<'_>]) -> Vec<u8> {
        let mut writer = OutputWriter::default();
        writer.begin();
        for item in items {
            writer.push(*item);
        }
        writer.finish().to_vec()
    }

    #[test]
    fn a_record_comes_back_and_every_cut_is_refused() {
        let items = [
            Item::PublicEvent { name: "red_light", json: "{\"player\":1}" },
            Item::SharedSnapshot(b"12345"),
            Item::Snapshot { player: 1, bytes: b"" },
            Item::InternalEvent { name: "a", json: "1" },
            Item::Results("[]"),
        ];
        let bytes = written(&items);
        let reader = OutputReader::read(&bytes, 2).unwrap();
        assert_eq!(reader.items().collect::<Vec<_>>(), items);
        assert_eq!(OutputReader::of_checked(&bytes).items().collect::<Vec<_>>(), items);
        assert_eq!(OutputReader::of_checked(&bytes[..7]).items().count(), 0);
        for cut in 1..bytes.len() {
            assert!(OutputReader::read(&bytes[..cut], 2).is_err(), "cut at {cut}");
        }
        assert_eq!(OutputReader::read(&[], 2).unwrap().items().count(), 0);
    }

    #[test]
    fn an_item_written_in_place_is_the_same_as_one_pushed() {
        let mut writer = OutputWriter::default();
        writer.begin();
        writer
            .push_snapshot_with(Some(1), |out| {
                out.extend_from_slice(b"abc");
                Ok::<_, ()>(())
            })
            .unwrap();
        assert_eq!(writer.push_snapshot_with(None, |_| Err(7)), Err(7));
        let text = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"[1]");
            Ok::<_, ()>(())
        };
        writer.push_event_with(true, "red", text).unwrap();
        writer.push_event_with(false, "blue", text).unwrap();
        writer.push_results_with(text).unwrap();
        let expected = [
            Item::Snapshot { player: 1, bytes: b"abc" },
            Item::PublicEvent { name: "red", json: "[1]" },
            Item::InternalEvent { name: "blue", json: "[1]" },
            Item::Results("[1]"),
        ];
        assert_eq!(writer.finish(), written(&expected));
    }

    #[test]
    fn what_the_specification_forbids_is_named() {
        let long = "x".repeat(EVENT_BYTES_MAX + 1);
        let many = vec![Item::PublicEvent { name: "e", json: "1" }; EVENTS_PER_TICK_MAX + 1];
        let wide = vec![0; SNAPSHOT_BYTES_MAX + 1];
        let cases: [(&[Item<'_>], &str); 7] = [
            (&[Item::SharedSnapshot(b""), Item::SharedSnapshot(b"")], "kind"),
            (&[Item::Results("[]"), Item::Results("[]")], "kind"),
            (&[Item::Snapshot { player: 2, bytes: b"" }], "player"),
            (&[Item::PublicEvent { name: "Not", json: "1" }], "name"),
            (&[Item::PublicEvent { name: "e", json: &long }], "data_len"),
            (&[Item::SharedSnapshot(&wide)], "data_len"),
            (&many, "kind"),
        ];
        for (items, field) in cases {
            assert_eq!(OutputReader::read(&written(items), 2).unwrap_err().field, field);
        }
    }

    #[test]
    fn event_names_are_safe_in_topics() {
        for good in ["a", "red_light", "pit.stop.2"] {
            assert!(is_event_name(good), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "1a", "A", "a/b", "a+", "#", "a b", "é"] {
            assert!(!is_event_name(bad), "{bad}");
        }
        assert!(!is_event_name(&"a".repeat(65)));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(bytes: Vec<u8>, players in 0usize..70) {
            if let Ok(reader) = OutputReader::read(&bytes, players) {
                reader.items().count();
            }
            OutputReader::of_checked(&bytes).items().count();
        }

        #[test]
        fn a_spoilt_record_never_panics(at in 0usize..60, value: u8) {
            let mut bytes = written(&[Item::PublicEvent { name: "red", json: "{}" }, Item::SharedSnapshot(b"12345")]);
            if let Some(byte) = bytes.get_mut(at) { *byte = value; }
            if let Ok(reader) = OutputReader::read(&bytes, 2) {
                reader.items().count();
            }
        }
    }
}
