//! An internal event on the wire: a CloudEvents 1.0 object in structured JSON mode
//! (`application/cloudevents+json`, CloudEvents 1.0.2 JSON format). Encoding and strict parsing, nothing else.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Map, Value};

use super::outbox::DATA_MAX_BYTES;

/// Content type of what [`CloudEvent::encode`] gives.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// What an event has around its data, in bytes: all names at their longest take half of it.
const ENVELOPE_MAX_BYTES: usize = 2 * 1024;

/// Largest event that is read, in bytes: the largest data that a sink accepts with room for the envelope.
pub const EVENT_MAX_BYTES: usize = DATA_MAX_BYTES + ENVELOPE_MAX_BYTES;

/// Digits of `sequence`. The CloudEvents extension of this name wants strings that sort as numbers do.
const SEQUENCE_DIGITS: usize = 16;

/// First second that RFC 3339 cannot write with four digits of year: 10000-01-01T00:00:00Z.
const YEAR_10000_S: u64 = 253_402_300_800;

/// What every `type` begins with.
const TYPE_PREFIX: &str = "holeshot.";

/// What every `source` begins with.
const SOURCE_PREFIX: &str = "/holeshot/";

/// Longest piece of a wrong value that an error repeats, in characters.
const FOUND_MAX_CHARS: usize = 60;

/// An internal event as it travels, with its identity.
#[derive(Debug, Clone, PartialEq)]
pub struct CloudEvent {
    /// One start of one host: sequences count from 1 within it.
    pub origin: String,
    /// Position within `origin`, without holes.
    pub sequence: u64,
    /// The host that reports.
    pub host: String,
    /// What happened (`room.finished`).
    pub kind: String,
    /// The room that it concerns.
    pub room: Option<String>,
    /// The rules module that it concerns.
    pub module: Option<String>,
    /// When it happened, to the microsecond.
    pub time: SystemTime,
    /// What the kind says about it.
    pub data: Value,
}

/// Why a payload is not one of our CloudEvents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloudEventError {
    /// Longer than [`EVENT_MAX_BYTES`].
    #[error("the event has {bytes} bytes, more than the {EVENT_MAX_BYTES} that are read")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// No JSON, or not an object.
    #[error("the event is not a JSON object: {0}")]
    NotAnObject(String),
    /// An attribute that must be there is not.
    #[error("attribute `{attribute}` is missing")]
    Missing {
        /// Its name.
        attribute: &'static str,
    },
    /// An attribute has a value that it may not have.
    #[error("attribute `{attribute}` must be {expected}, but is {found}")]
    Wrong {
        /// Its name.
        attribute: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is, shortened.
        found: String,
    },
}

#[derive(Serialize)]
struct Wire<'a> {
    specversion: &'static str,
    id: String,
    source: String,
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    time: String,
    datacontenttype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dataschema: Option<String>,
    origin: &'a str,
    sequence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<&'a str>,
    data: &'a Value,
}

impl CloudEvent {
    /// The event as JSON text.
    pub fn encode(&self) -> Vec<u8> {
        let wire = Wire {
            specversion: "1.0",
            id: format!("{}/{}", self.origin, self.sequence),
            source: format!("{SOURCE_PREFIX}{}", self.host),
            r#type: format!("{TYPE_PREFIX}{}", self.kind),
            subject: self.room.as_deref(),
            time: rfc3339(self.time),
            datacontenttype: "application/json",
            dataschema: super::asyncapi::schema_of(&self.kind),
            origin: &self.origin,
            sequence: format!("{:0width$}", self.sequence, width = SEQUENCE_DIGITS),
            room: self.room.as_deref(),
            module: self.module.as_deref(),
            data: &self.data,
        };
        // Writing strings and JSON values into a Vec cannot fail.
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    /// Reads an event. Attributes that are not ours are passed over, as CloudEvents ask, and so is `dataschema`: events of hosts before 0.2 have
    /// none, and the type says it already.
    ///
    /// # Errors
    /// The first attribute that is missing or wrong.
    pub fn parse(payload: &[u8]) -> Result<Self, CloudEventError> {
        if payload.len() > EVENT_MAX_BYTES {
            return Err(CloudEventError::TooLong { bytes: payload.len() });
        }
        let mut map: Map<String, Value> =
            serde_json::from_slice(payload).map_err(|error| CloudEventError::NotAnObject(error.to_string()))?;

        expect(&map, "specversion", "\"1.0\"", |s| s == "1.0")?;
        expect(&map, "datacontenttype", "\"application/json\"", |s| s == "application/json")?;
        let origin = expect(&map, "origin", "1 to 128 of a-z 0-9 - _ .", is_origin)?.to_owned();
        let sequence = expect(&map, "sequence", "16 digits, from 1", |s| parse_sequence(s).is_some())?;
        let sequence = parse_sequence(sequence).unwrap_or_default();
        expect(&map, "id", "origin/sequence", |s| {
            s.strip_prefix(origin.as_str()).and_then(|rest| rest.strip_prefix('/'))
                == Some(sequence.to_string().as_str())
        })?;
        let host = expect(&map, "source", "/holeshot/ and a host id", |s| {
            s.strip_prefix(SOURCE_PREFIX).is_some_and(super::topics::is_host_id)
        })?
        .strip_prefix(SOURCE_PREFIX)
        .unwrap_or_default()
        .to_owned();
        let kind = expect(&map, "type", "holeshot. and a kind", |s| {
            s.strip_prefix(TYPE_PREFIX).is_some_and(super::topics::is_kind)
        })?
        .strip_prefix(TYPE_PREFIX)
        .unwrap_or_default()
        .to_owned();
        let time = expect(&map, "time", "an RFC 3339 time in UTC", |s| humantime::parse_rfc3339(s).is_ok())?;
        let time = humantime::parse_rfc3339(time).unwrap_or(SystemTime::UNIX_EPOCH);
        let room = optional(&map, "room", "a room id", super::topics::is_room)?;
        let module = optional(&map, "module", "a module's name", super::topics::is_module)?;
        let subject = optional(&map, "subject", "the room's id", super::topics::is_room)?;
        if subject != room {
            return Err(CloudEventError::Wrong {
                attribute: "subject",
                expected: "the same as `room`",
                found: shorten(&format!("{subject:?}")),
            });
        }
        let data = map.remove("data").ok_or(CloudEventError::Missing { attribute: "data" })?;
        Ok(Self { origin, sequence, host, kind, room, module, time, data })
    }

    /// The identity (origin, sequence) of a payload that [`CloudEvent::parse`] refused, if so much can be read: with it
    /// the manager can acknowledge an event that it cannot use.
    pub fn identity(payload: &[u8]) -> Option<(String, u64)> {
        if payload.len() > EVENT_MAX_BYTES {
            return None;
        }
        let map: Map<String, Value> = serde_json::from_slice(payload).ok()?;
        let origin = map.get("origin")?.as_str().filter(|s| is_origin(s))?;
        let sequence = parse_sequence(map.get("sequence")?.as_str()?)?;
        Some((origin.to_owned(), sequence))
    }
}

/// `time` as RFC 3339 in UTC with microseconds. Times outside 1970 to 9999 become the nearest that can be written.
pub fn rfc3339(time: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(YEAR_10000_S - 1);
    humantime::format_rfc3339_micros(time.clamp(SystemTime::UNIX_EPOCH, last)).to_string()
}

/// Whether `origin` looks like one: a host id, a dot and a generation.
pub(crate) fn is_origin(origin: &str) -> bool {
    !origin.is_empty()
        && origin.len() <= 2 * super::topics::NAME_MAX_BYTES
        && origin.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
}

fn parse_sequence(text: &str) -> Option<u64> {
    if text.len() != SEQUENCE_DIGITS || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|&sequence| sequence >= 1)
}

fn expect<'a>(
    map: &'a Map<String, Value>,
    attribute: &'static str,
    expected: &'static str,
    right: impl FnOnce(&str) -> bool,
) -> Result<&'a str, CloudEventError> {
    let value = map.get(attribute).ok_or(CloudEventError::Missing { attribute })?;
    match value.as_str() {
        Some(text) if right(text) => Ok(text),
        _ => Err(CloudEventError::Wrong { attribute, expected, found: shorten(&value.to_string()) }),
    }
}

fn optional(
    map: &Map<String, Value>,
    attribute: &'static str,
    expected: &'static str,
    right: impl FnOnce(&str) -> bool,
) -> Result<Option<String>, CloudEventError> {
    if !map.contains_key(attribute) {
        return Ok(None);
    }
    expect(map, attribute, expected, right).map(|text| Some(text.to_owned()))
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(FOUND_MAX_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> CloudEvent {
        CloudEvent {
            origin: "pit.0190f3".to_owned(),
            sequence: 42,
            host: "pit".to_owned(),
            kind: "room.finished".to_owned(),
            room: Some("r-1".to_owned()),
            module: Some("drag-race".to_owned()),
            time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_000_000_123_456),
            data: json!({"frames": 900}),
        }
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        let event = sample();
        assert_eq!(CloudEvent::parse(&event.encode()), Ok(event));
        let bare = CloudEvent { room: None, module: None, data: Value::Null, ..sample() };
        assert_eq!(CloudEvent::parse(&bare.encode()), Ok(bare));
    }

    #[test]
    fn the_longest_data_that_a_sink_accepts_is_read_back_with_the_longest_names() {
        use super::super::topics::{KIND_MAX_BYTES, NAME_MAX_BYTES, ROOM_MAX_BYTES};
        let longest = CloudEvent {
            origin: "o".repeat(2 * NAME_MAX_BYTES),
            sequence: 9_999_999_999_999_999,
            host: "h".repeat(NAME_MAX_BYTES),
            // One of the rules, so that it names its schema, too.
            kind: format!("rules.{}.{}", "k".repeat(NAME_MAX_BYTES), "k".repeat(KIND_MAX_BYTES - NAME_MAX_BYTES - 7)),
            room: Some("r".repeat(ROOM_MAX_BYTES)),
            module: Some("m".repeat(NAME_MAX_BYTES)),
            data: Value::String("x".repeat(DATA_MAX_BYTES - 2)),
            ..sample()
        };
        assert_eq!(longest.kind.len(), KIND_MAX_BYTES);
        let bytes = longest.encode();
        assert!(bytes.len() > DATA_MAX_BYTES + 1_000, "{}", bytes.len());
        assert_eq!(CloudEvent::parse(&bytes), Ok(longest.clone()));
        assert_eq!(CloudEvent::identity(&bytes), Some((longest.origin, longest.sequence)));
    }

    #[test]
    fn the_attributes_are_those_of_the_specification() {
        let json: Value = serde_json::from_slice(&sample().encode()).unwrap();
        assert_eq!(
            json,
            json!({
                "specversion": "1.0", "id": "pit.0190f3/42", "source": "/holeshot/pit",
                "type": "holeshot.room.finished", "subject": "r-1", "time": "2026-11-18T11:06:40.123456Z",
                "datacontenttype": "application/json",
                "dataschema": "holeshot:/asyncapi.json#/components/schemas/room.finished",
                "origin": "pit.0190f3", "sequence": "0000000000000042",
                "room": "r-1", "module": "drag-race", "data": {"frames": 900},
            })
        );
    }

    #[test]
    fn events_of_before_are_read_without_a_schema() {
        let mut map: Map<String, Value> = serde_json::from_slice(&sample().encode()).unwrap();
        map.remove("dataschema").unwrap();
        assert_eq!(CloudEvent::parse(&serde_json::to_vec(&map).unwrap()), Ok(sample()));
        // A kind that is in no document has none.
        let other = CloudEvent { kind: "tyres.changed".to_owned(), ..sample() };
        let json: Value = serde_json::from_slice(&other.encode()).unwrap();
        assert!(json.get("dataschema").is_none(), "{json}");
    }

    #[test]
    fn an_error_names_the_attribute() {
        let good: Value = serde_json::from_slice(&sample().encode()).unwrap();
        for attribute in
            ["specversion", "id", "source", "type", "time", "datacontenttype", "origin", "sequence", "data"]
        {
            let mut map = good.as_object().unwrap().clone();
            map.remove(attribute);
            let error = CloudEvent::parse(&serde_json::to_vec(&map).unwrap()).unwrap_err();
            assert_eq!(error, CloudEventError::Missing { attribute });
        }
        for (attribute, value) in [
            ("specversion", json!("0.3")),
            ("specversion", json!(1)),
            ("id", json!("pit.0190f3/43")),
            ("source", json!("/holeshot/")),
            ("source", json!("/holeshot/a/b")),
            ("type", json!("room.finished")),
            ("time", json!("yesterday")),
            ("time", json!(["x".repeat(500)])),
            ("datacontenttype", json!("text/plain")),
            ("origin", json!("../..")),
            ("sequence", json!(42)),
            ("sequence", json!("42")),
            ("sequence", json!("0000000000000000")),
            ("room", json!("a b")),
            ("subject", json!("another")),
            ("module", json!("Drag Race")),
        ] {
            let mut map = good.as_object().unwrap().clone();
            map.insert(attribute.to_owned(), value);
            let error = CloudEvent::parse(&serde_json::to_vec(&map).unwrap()).unwrap_err();
            let CloudEventError::Wrong { attribute: named, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!(*named, attribute, "{error}");
            assert!(error.to_string().len() < 400, "{error}");
        }
    }

    #[test]
    fn bytes_that_are_no_json_object_are_refused() {
        for bytes in [&b""[..], b"{", b"[]", b"null", b"\xff\xfe", b"{\"specversion\":\"1.0\"} x"] {
            assert!(matches!(CloudEvent::parse(bytes), Err(CloudEventError::NotAnObject(_))));
        }
        let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
        assert!(CloudEvent::parse(format!("{{\"data\":{deep}}}").as_bytes()).is_err());
        assert!(matches!(CloudEvent::parse(&vec![b' '; EVENT_MAX_BYTES + 1]), Err(CloudEventError::TooLong { .. })));
    }

    #[test]
    fn times_outside_the_calendar_are_clamped() {
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(YEAR_10000_S)), "9999-12-31T23:59:59.000000Z");
    }

    #[test]
    fn the_identity_of_a_wrong_event_is_found() {
        let mut event = sample();
        event.kind = "NOT A KIND".to_owned();
        let bytes = event.encode();
        assert!(CloudEvent::parse(&bytes).is_err());
        assert_eq!(CloudEvent::identity(&bytes), Some(("pit.0190f3".to_owned(), 42)));
        assert_eq!(CloudEvent::identity(b"nonsense"), None);
    }
}
