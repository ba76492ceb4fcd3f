//! The description of the events for programs and people: an AsyncAPI 3.0 document, served at `/asyncapi.json`, and the names of its schemas.

use super::payload::HOST_KINDS;

/// The document.
pub const DOCUMENT: &str = include_str!("asyncapi.json");

/// What every `dataschema` begins with. CloudEvents ask for an absolute URI, and a host knows no address that is right for every
/// subscriber: what follows the scheme is the path to the schema on any host.
pub const SCHEMA_PREFIX: &str = "holeshot:/asyncapi.json#/components/schemas/";

/// The name of the schema of everything that rules say.
const RULES: &str = "rules";

/// The schema of an event's data, as a URI; none for a kind that the document does not know.
#[must_use]
pub fn schema_of(kind: &str) -> Option<String> {
    let name = if kind.starts_with("rules.") { RULES } else { HOST_KINDS.iter().find(|known| **known == kind)? };
    Some(format!("{SCHEMA_PREFIX}{name}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::de::DeserializeOwned;
    use serde_json::Value;

    use super::super::payload::{self, Payload};
    use super::super::publisher::{Floors, Receipt, Status};
    use super::super::{CloudEvent, topics};
    use super::*;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    fn examples<'a>(document: &'a Value, message: &str) -> Vec<&'a Value> {
        let examples = document["components"]["messages"][message]["examples"].as_array().unwrap();
        assert!(!examples.is_empty(), "{message}");
        examples.iter().map(|example| &example["payload"]).collect()
    }

    /// The example's data read as our own type, and written again.
    fn there_and_back<T: Payload + DeserializeOwned>(document: &Value) -> &'static str {
        for example in examples(document, T::KIND) {
            let read: T = serde_json::from_value(example["data"].clone()).unwrap();
            let written = serde_json::to_value(&read).unwrap();
            // A room says more than a manager reads; what both have is the same.
            for (field, value) in written.as_object().unwrap() {
                let said = example["data"].get(field).unwrap_or(&Value::Null);
                assert_eq!(value, said, "{} {field}", T::KIND);
            }
        }
        T::KIND
    }

    #[test]
    fn every_kind_is_described_with_an_example_that_our_own_types_read() {
        let document = document();
        let read = [
            there_and_back::<payload::HostStarted>(&document),
            there_and_back::<payload::HostStopping>(&document),
            there_and_back::<payload::ModuleLoaded>(&document),
            there_and_back::<payload::SwapRefused>(&document),
            there_and_back::<payload::RoomOpened>(&document),
            there_and_back::<payload::PlayerJoined>(&document),
            there_and_back::<payload::PlayerLeft>(&document),
            there_and_back::<payload::PlayerDataChanged>(&document),
            there_and_back::<payload::RoomStarted>(&document),
            there_and_back::<payload::RulesSwapped>(&document),
            there_and_back::<payload::RulesKept>(&document),
            there_and_back::<payload::RulesRolledBack>(&document),
            there_and_back::<payload::RulesRetried>(&document),
            there_and_back::<payload::RoomFinished>(&document),
            there_and_back::<payload::RoomAborted>(&document),
            there_and_back::<payload::RoomClosed>(&document),
            there_and_back::<payload::JournalClosed>(&document),
        ];
        assert_eq!(read, HOST_KINDS);
        let schemas = &document["components"]["schemas"];
        for name in HOST_KINDS.iter().copied().chain([RULES]) {
            assert!(schemas.get(name).is_some(), "{name}");
            for example in examples(&document, name) {
                let event = CloudEvent::parse(example.to_string().as_bytes()).unwrap();
                let again: Value = serde_json::from_slice(&event.encode()).unwrap();
                assert_eq!(&again, example, "{name}");
                assert_eq!(example["dataschema"], schema_of(&event.kind).unwrap());
                let pointer = schema_of(&event.kind).unwrap();
                let pointer = pointer.split_once('#').unwrap().1.to_owned();
                assert_eq!(document.pointer(&pointer), schemas.get(name));
            }
        }
        assert_eq!(schema_of("tyres.changed"), None);
    }

    #[test]
    fn the_channels_are_the_topics_and_carry_every_message() {
        let document = document();
        let channels = document["channels"].as_object().unwrap();
        let addresses: BTreeSet<&str> = channels.values().map(|channel| channel["address"].as_str().unwrap()).collect();
        let topics = [
            topics::status("{host}"),
            topics::outbox("{host}"),
            topics::stored("{host}"),
            topics::stored(topics::ALL_HOSTS),
            topics::event("{host}", None, "{kind}"),
            topics::event("{host}", Some("{module}"), "{kind}"),
        ];
        assert_eq!(addresses, topics.iter().map(String::as_str).collect());
        let carried: BTreeSet<&str> = channels
            .values()
            .flat_map(|channel| channel["messages"].as_object().unwrap().keys())
            .map(String::as_str)
            .collect();
        let described = document["components"]["messages"].as_object().unwrap();
        assert_eq!(carried, described.keys().map(String::as_str).collect());
        let operated: BTreeSet<&str> = document["operations"]
            .as_object()
            .unwrap()
            .values()
            .map(|operation| operation["channel"]["$ref"].as_str().unwrap().trim_start_matches("#/channels/"))
            .collect();
        assert_eq!(operated, channels.keys().map(String::as_str).collect());
    }

    #[test]
    fn the_other_messages_are_read_by_our_own_types() {
        let document = document();
        for example in examples(&document, "status") {
            let status: Status = serde_json::from_value(example.clone()).unwrap();
            assert_eq!(&serde_json::to_value(status).unwrap(), example);
        }
        for example in examples(&document, "outbox") {
            let floors: Floors = serde_json::from_value(example.clone()).unwrap();
            assert_eq!(&serde_json::to_value(floors).unwrap(), example);
        }
        for message in ["stored", "ready"] {
            for example in examples(&document, message) {
                let receipt: Receipt = serde_json::from_value(example.clone()).unwrap();
                assert_eq!(&serde_json::to_value(receipt).unwrap(), example);
            }
        }
    }
}
