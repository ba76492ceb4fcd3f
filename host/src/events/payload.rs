//! The data of the events that the host itself reports, one type per kind. The host fills them in, the manager
//! reads them back with the same types; other subscribers see them as the `data` of a CloudEvent.

use std::time::SystemTime;

use holeshot_abi::Leaderboard;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::InternalEvent;

/// Data of an event whose kind is fixed.
pub trait Payload: Serialize {
    /// The kind, as it stands in topics and in the CloudEvent's `type`.
    const KIND: &'static str;

    /// The internal event that carries this data. `module` is the name of the rules module that the event concerns,
    /// if the event is to be found under that module's topics.
    fn event(&self, module: Option<&str>, room: Option<&str>, time: SystemTime) -> InternalEvent {
        InternalEvent {
            kind: Self::KIND.to_owned(),
            module: module.map(str::to_owned),
            room: room.map(str::to_owned),
            // These types have string keys and finite numbers only, or hold values that are JSON already.
            data: serde_json::to_value(self).unwrap_or(Value::Null),
            time,
        }
    }
}

macro_rules! kinds {
    ($($payload:ident => $kind:literal),+ $(,)?) => {
        $(impl Payload for $payload { const KIND: &'static str = $kind; })+
        /// Every kind that the host itself reports.
        pub const HOST_KINDS: &[&str] = &[$($kind),+];
    };
}

kinds! {
    HostStarted => "host.started",
    HostStopping => "host.stopping",
    ModuleLoaded => "module.loaded",
    SwapRefused => "module.swap_refused",
    RoomOpened => "room.opened",
    PlayerJoined => "player.joined",
    PlayerLeft => "player.left",
    PlayerDataChanged => "player.data_changed",
    RoomStarted => "room.started",
    RulesSwapped => "room.rules_swapped",
    RulesKept => "room.rules_kept",
    RulesRolledBack => "room.rules_rolled_back",
    RulesRetried => "room.rules_retried",
    RoomFinished => "room.finished",
    RoomAborted => "room.aborted",
    RoomClosed => "room.closed",
    JournalClosed => "room.journal_closed",
}

/// The host serves: its doors are open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostStarted {
    /// Version of the program.
    pub version: String,
    /// Where it listens: an object from the name of the door (`http`, `udp`, `mqtt`) to its address.
    #[serde(default)]
    pub listen: Value,
}

/// The host stops in order: no new rooms from here on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostStopping {}

/// A rules module was loaded and may be used for rooms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModuleLoaded {
    /// Name from the module's manifest.
    pub name: String,
    /// Version from the module's manifest.
    pub version: String,
    /// BLAKE3 of the module's bytes, in hexadecimal.
    pub hash: String,
    /// ABI version that the module speaks.
    pub abi: u32,
    /// Size of the module in bytes.
    pub bytes: u64,
    /// The leaderboards of the module's manifest; absent where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaderboards: Vec<Leaderboard>,
}

/// Which rules module a room uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModuleRef {
    /// BLAKE3 of the module's bytes, in hexadecimal.
    pub hash: String,
    /// Name from the module's manifest.
    pub name: String,
    /// Version from the module's manifest.
    pub version: String,
}

/// A player who is expected in a room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomPlayer {
    /// Slot in the room, from 0.
    pub player: u32,
    /// Name to show.
    pub name: String,
    /// What the creator of the room said about the player (the car, say).
    #[serde(default)]
    pub data: Value,
}

/// A room was created and waits for its players.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomOpened {
    /// The rules of the room.
    pub module: ModuleRef,
    /// Seed of the room's randomness.
    pub seed: u64,
    /// Options that the creator gave to the rules.
    #[serde(default)]
    pub options: Value,
    /// The expected players.
    #[serde(default)]
    pub players: Vec<RoomPlayer>,
}

/// A player's session is open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlayerJoined {
    /// Slot in the room, from 0.
    pub player: u32,
    /// Name to show.
    pub name: String,
    /// How the player is connected: `udp`, `websocket`.
    pub transport: String,
}

/// A player's session has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlayerLeft {
    /// Slot in the room, from 0.
    pub player: u32,
    /// Name to show.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// A ticket brought other data of a player than the room was opened with, before the match began: the rules were begun anew with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlayerDataChanged {
    /// Slot in the room, from 0.
    pub player: u32,
    /// Name to show.
    pub name: String,
    /// What the rules get of this player from now on, as JSON.
    pub data: Value,
}

/// The game loop of a room has begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomStarted {
    /// Number of the first tick: 0.
    pub frame: u64,
}

/// A module was to take over in a room and did not: the room goes on under the rules that it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SwapRefused {
    /// The frame of the trial that failed, if it was one.
    #[serde(default)]
    pub frame: Option<u64>,
    /// The module that did not take over.
    pub module: ModuleRef,
    /// The module that the room has.
    pub from: ModuleRef,
    /// Why, as a word.
    pub reason: String,
    /// Why, for the person who wrote the module.
    pub message: String,
    /// The module's functions at that time, innermost first.
    #[serde(default)]
    pub backtrace: Option<String>,
}

/// Other rules took over in a room. They are on probation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RulesSwapped {
    /// Their first frame.
    pub frame: u64,
    /// The new module.
    pub module: ModuleRef,
    /// The module before.
    pub from: ModuleRef,
}

/// New rules have passed their probation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RulesKept {
    /// The frame that comes next.
    pub frame: u64,
    /// Their first frame.
    pub since_frame: u64,
    /// The module.
    pub module: ModuleRef,
}

/// New rules failed on probation; the room was taken back to their first frame and went on under the former ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RulesRolledBack {
    /// The frame in which they failed.
    pub frame: u64,
    /// Their first frame.
    pub since_frame: u64,
    /// The module that is back.
    pub module: ModuleRef,
    /// The module that failed.
    pub failed: ModuleRef,
    /// How, as a word.
    pub reason: String,
    /// How, for the person who wrote the module.
    pub message: String,
    /// The module's functions at that time, innermost first.
    #[serde(default)]
    pub backtrace: Option<String>,
}

/// Rules failed in a frame, and did not when it was run again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RulesRetried {
    /// The frame.
    pub frame: u64,
}

/// What one player achieved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlayerResult {
    /// Slot in the room, from 0.
    pub player: u32,
    /// Place, from 1; none if the player was not placed.
    #[serde(default)]
    pub place: Option<u32>,
    /// The rules' word for it (`won`, `lost`, `red-light`).
    pub outcome: String,
    /// What the rules say about it: the time slip, in the drag race.
    #[serde(default)]
    pub data: Value,
}

/// The rules said that the game is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomFinished {
    /// Ticks of the game loop.
    pub frames: u64,
    /// One entry per player.
    pub results: Vec<PlayerResult>,
    /// What the room counted: an object from the counter's name to its value.
    #[serde(default)]
    pub counters: Value,
    /// What became of each player and of its inputs.
    #[serde(default)]
    pub players: Value,
}

/// The room ended without a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomAborted {
    /// Why.
    pub reason: String,
    /// Ticks of the game loop until then.
    pub frames: u64,
    /// What the room counted: an object from the counter's name to its value.
    #[serde(default)]
    pub counters: Value,
    /// What became of each player and of its inputs.
    #[serde(default)]
    pub players: Value,
}

/// The room is gone; nothing follows about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomClosed {}

/// The journal of a room is closed: nothing is added to it any more. Comes when the disk is done with it, usually after `room.closed`; for a
/// room whose host was killed at the next start of that host. May come twice with the same content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalClosed {
    /// `whole`, `incomplete` or `cut_short`: see [`crate::journal`].
    pub state: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Frames that it has.
    pub frames: u64,
    /// Why it is incomplete.
    #[serde(default)]
    pub problem: Option<String>,
}
