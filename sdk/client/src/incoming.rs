//! What a client hands to the player program.

use holeshot_wire::{ByeCode, Phase, PlayerName, RulesInfo};
use serde_json::Value;

use crate::options::ConnectError;

/// How inputs and snapshots travel right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// Sealed datagrams.
    Udp,
    /// Binary messages.
    WebSocket,
}

/// What the host said when the session opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The session's number.
    pub session: u32,
    /// The room's id.
    pub room: String,
    /// The slot of this player; `None` for a spectator.
    pub player: Option<u16>,
    /// Everybody in the room.
    pub players: Vec<PlayerName>,
    /// Ticks per second.
    pub tick_hz: u16,
    /// The rules of the room.
    pub rules: RulesInfo,
    /// Where the room stood.
    pub phase: Phase,
    /// Whether this player had been in the room before.
    pub resumed: bool,
}

/// A public event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its number in the room, from 1. If numbers are missing, the host no longer had those events.
    pub seq: u64,
    /// Its name.
    pub name: String,
    /// The frame that it belongs to.
    pub frame: Option<u32>,
    /// When it happened, in milliseconds since the Unix epoch, by the host's clock.
    pub time_ms: Option<u64>,
    /// What happened.
    pub data: Value,
}

/// The state of the room as this player sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The frame after which the room was in this state.
    pub frame: u32,
    /// How early this player's inputs arrive at the host, in milliseconds; `None` if none did lately.
    pub margin_ms: Option<i16>,
    /// The highest frame for which the host has an input of this player.
    pub newest_input_frame: Option<u32>,
    /// The state, in the form that the rules give it.
    pub bytes: Vec<u8>,
}

/// Something that came in, or happened to the connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// A public event: each once, in order.
    Event(Event),
    /// The newest snapshot.
    Snapshot(Snapshot),
    /// What became of an action: each once.
    ActionResult {
        /// The id that [`crate::Client::action`] gave.
        id: u64,
        /// Whether the rules took it.
        accepted: bool,
        /// Why not.
        reason: Option<String>,
    },
    /// Inputs and snapshots travel this way from now on.
    Carrier(Carrier),
    /// The connection was lost; it is being opened again.
    Reconnecting {
        /// What happened.
        reason: String,
    },
    /// The connection is open again.
    Reconnected(Welcome),
    /// The host ended the session. Nothing comes after this.
    Bye {
        /// Why, for programs.
        code: ByeCode,
        /// Why, for people.
        reason: String,
    },
    /// The connection is lost for good. Nothing comes after this.
    Disconnected {
        /// What happened last.
        error: ConnectError,
    },
}
