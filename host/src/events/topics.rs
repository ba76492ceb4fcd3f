//! The names that appear in MQTT topics: which are allowed, and the topics built from them. Nothing here talks to
//! a broker.

/// Every topic begins with this: the program, and the version of the topic tree.
pub const ROOT: &str = "holeshot/v1";

/// What a foreign client of the embedded broker may subscribe to: this prefix and all below it.
pub const TREE: &str = "holeshot/";

/// The module level of events that the host itself reports.
pub const HOST_LEVEL: &str = "host";

/// A host id that no host may have: topics under it speak to every host.
pub const ALL_HOSTS: &str = "all";

/// Longest host id, module name or kind, in bytes. AWS IoT allows a topic of 256 bytes: three of these and the
/// fixed levels stay below it.
pub const NAME_MAX_BYTES: usize = 64;

/// Longest kind of an event, in bytes: a module's own name of 64 with `rules.` in front.
pub const KIND_MAX_BYTES: usize = 80;

/// Longest room id, in bytes. It never appears in a topic, only in payloads and tables.
pub const ROOM_MAX_BYTES: usize = 128;

/// The filter of the manager: the events of every host.
pub const EVERY_EVENT: &str = "holeshot/v1/+/events/#";

/// The filter of the manager: what every host says about its outbox.
pub const EVERY_OUTBOX: &str = "holeshot/v1/+/outbox";

fn is_level(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX_BYTES
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

/// Whether `name` may be a host id: 1 to 64 of `a-z 0-9 - _`, and not `all`.
pub fn is_host_id(name: &str) -> bool {
    is_level(name) && name != ALL_HOSTS
}

/// Whether `name` may be the module level of a topic: 1 to 64 of `a-z 0-9 - _`.
pub fn is_module(name: &str) -> bool {
    is_level(name)
}

/// Whether `kind` may be the kind of an event: words of `a-z 0-9 - _` joined by single dots, 80 bytes at most.
pub fn is_kind(kind: &str) -> bool {
    kind.len() <= KIND_MAX_BYTES && kind.split('.').all(is_level)
}

/// Whether `room` may be a room id: 1 to 128 of `A-Z a-z 0-9 - _ . :`.
pub fn is_room(room: &str) -> bool {
    !room.is_empty()
        && room.len() <= ROOM_MAX_BYTES
        && room.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'))
}

/// The retained presence of a host.
pub fn status(host: &str) -> String {
    format!("{ROOT}/{host}/status")
}

/// The manager's receipts for a host.
pub fn stored(host: &str) -> String {
    format!("{ROOT}/{host}/stored")
}

/// What a host says about its outbox.
pub fn outbox(host: &str) -> String {
    format!("{ROOT}/{host}/outbox")
}

/// The topic of an event. `module` is the rules module's name; without one the event is the host's own.
pub fn event(host: &str, module: Option<&str>, kind: &str) -> String {
    format!("{ROOT}/{host}/events/{}/{kind}", module.unwrap_or(HOST_LEVEL))
}

/// The host level of a topic below [`ROOT`], if the topic has one.
pub fn host_of(topic: &str) -> Option<&str> {
    let host = topic.strip_prefix(ROOT)?.strip_prefix('/')?.split('/').next()?;
    is_host_id(host).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_change_a_topic_are_refused() {
        for bad in ["", "a/b", "a+", "#", "A", "a b", "ä", "$sys", "a.b", "all", "a\0b"] {
            assert!(!is_host_id(bad), "{bad:?}");
        }
        assert!(is_host_id("pit-lane_1"));
        for bad in ["", ".", "a.", ".a", "a..b", "room/finished", "Room.Finished"] {
            assert!(!is_kind(bad), "{bad:?}");
        }
        assert!(is_kind("room.finished"));
        assert!(!is_kind(&format!("a.{}", "a".repeat(NAME_MAX_BYTES)).repeat(2)));
    }

    #[test]
    fn topics_stay_within_seven_levels_and_give_their_host_back() {
        let topic = event("pit", Some("drag-race"), "rules.red-light");
        assert_eq!(topic, "holeshot/v1/pit/events/drag-race/rules.red-light");
        assert!(topic.split('/').count() <= 7);
        assert_eq!(host_of(&topic), Some("pit"));
        assert_eq!(host_of("holeshot/v1//status"), None);
        assert_eq!(host_of("holeshot/v2/pit/status"), None);
        assert_eq!(event("pit", None, "host.started"), "holeshot/v1/pit/events/host/host.started");
    }
}
