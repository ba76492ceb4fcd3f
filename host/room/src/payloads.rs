//! The JSON data of the events that a room itself sends. Names and meanings of fields are part of its contract.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::counters::{PlayerCounters, RoomCounters};

/// `player_joined`, `player_ready`.
#[derive(Serialize)]
pub(crate) struct PlayerNamed<'a> {
    pub(crate) player: u16,
    pub(crate) name: &'a str,
}

/// `player_left`.
#[derive(Serialize)]
pub(crate) struct PlayerLeft<'a> {
    pub(crate) player: u16,
    pub(crate) name: &'a str,
    pub(crate) reason: &'a str,
}

/// `cutscene`.
#[derive(Serialize)]
pub(crate) struct Cutscene {
    pub(crate) duration_ms: u32,
}

/// `countdown`.
#[derive(Serialize)]
pub(crate) struct Countdown {
    pub(crate) remaining: u32,
}

/// `started`.
#[derive(Serialize)]
pub(crate) struct Started<'a> {
    pub(crate) frame: u32,
    pub(crate) tick_hz: u32,
    pub(crate) players: &'a [u16],
}

/// `finished`.
#[derive(Serialize)]
pub(crate) struct Finished<'a> {
    pub(crate) frames: u32,
    pub(crate) results: &'a RawValue,
}

/// `aborted`.
#[derive(Serialize)]
pub(crate) struct Aborted<'a> {
    pub(crate) frames: u32,
    pub(crate) reason: &'a str,
    /// The kind of the fault, if the rules failed. Its message is for people who write rules, not for players.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fault: Option<&'a str>,
}

/// What happened to a fault, for records.
#[derive(Serialize)]
pub(crate) struct FaultRecord<'a> {
    pub(crate) kind: &'a str,
    pub(crate) message: &'a str,
    pub(crate) frame: u32,
}

/// One player's counters, for records.
#[derive(Serialize)]
pub(crate) struct PlayerRecord<'a> {
    pub(crate) player: u16,
    pub(crate) name: &'a str,
    /// Why it left, if it did.
    pub(crate) left: Option<&'a str>,
    pub(crate) inputs: PlayerCounters,
}

/// `room.finished`, `room.aborted`.
#[derive(Serialize)]
pub(crate) struct RoomEnded<'a> {
    pub(crate) frames: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fault: Option<FaultRecord<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) results: Option<&'a RawValue>,
    pub(crate) players: Vec<PlayerRecord<'a>>,
    pub(crate) counters: RoomCounters,
}

/// `room.closed`.
#[derive(Serialize)]
pub(crate) struct RoomClosed<'a> {
    pub(crate) outcome: &'a str,
}

/// An internal event: the room it is from, then its own fields.
#[derive(Serialize)]
pub(crate) struct OfRoom<'a, T> {
    pub(crate) room: &'a str,
    #[serde(flatten)]
    pub(crate) data: T,
}

/// The text of one of these. They have string keys and no custom serialisers, so writing them cannot fail.
pub(crate) fn text(payload: &impl Serialize) -> String {
    serde_json::to_string(payload).unwrap_or_else(|_| String::from("null"))
}
