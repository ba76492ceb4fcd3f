//! The JSON data of the events that a room itself sends. Names and meanings of fields are part of its contract.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::counters::{PlayerCounters, RoomCounters};
use crate::rules::Program;

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

/// A module in an event.
#[derive(Clone, Serialize)]
pub(crate) struct ModuleNamed<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    /// 64 hexadecimal digits.
    pub(crate) hash: String,
}

impl<'a> ModuleNamed<'a> {
    pub(crate) fn of(program: &'a dyn Program) -> Self {
        let manifest = program.manifest();
        let hash = program.hash().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { name: &manifest.name, version: &manifest.version, hash }
    }
}

/// `rules_swapped`, `room.rules_swapped`.
#[derive(Serialize)]
pub(crate) struct RulesSwapped<'a> {
    pub(crate) frame: u32,
    pub(crate) module: ModuleNamed<'a>,
    pub(crate) from: ModuleNamed<'a>,
}

/// `rules_rolled_back`.
#[derive(Serialize)]
pub(crate) struct RulesRolledBack<'a> {
    pub(crate) frame: u32,
    pub(crate) since_frame: u32,
    pub(crate) module: ModuleNamed<'a>,
    pub(crate) failed: ModuleNamed<'a>,
    pub(crate) reason: &'a str,
    pub(crate) void: &'a [u64],
    /// Events that should be told now, and are not because there are too many.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) untold: u64,
}

/// An internal event that only the failed rules told.
#[derive(Serialize)]
pub(crate) struct VoidEvent<'a> {
    pub(crate) frame: u32,
    pub(crate) name: &'a str,
}

/// `room.rules_rolled_back`.
#[derive(Serialize)]
pub(crate) struct RulesRolledBackRecord<'a> {
    #[serde(flatten)]
    pub(crate) told: RulesRolledBack<'a>,
    pub(crate) message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) backtrace: Option<&'a str>,
    pub(crate) void_internal: Vec<VoidEvent<'a>>,
}

/// `room.rules_kept`.
#[derive(Serialize)]
pub(crate) struct RulesKept<'a> {
    pub(crate) frame: u32,
    pub(crate) since_frame: u32,
    pub(crate) module: ModuleNamed<'a>,
    /// The probation ended before its time, because undoing it would have taken too long.
    pub(crate) early: bool,
}

/// `room.rules_retried`.
#[derive(Serialize)]
pub(crate) struct RulesRetried<'a> {
    pub(crate) frame: u32,
    pub(crate) module: ModuleNamed<'a>,
    pub(crate) fault: &'a str,
    pub(crate) message: &'a str,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
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
