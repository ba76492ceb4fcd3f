//! The text messages of the WebSocket: their fields, their limits and their JSON. What they mean for a room is the
//! room's business; the handshake inside `hello` and `welcome` is in [`crate::handshake`].
//!
//! # Specification
//!
//! A message is one JSON object (RFC 8259) in one text message of the WebSocket. Its field `type` names it. Fields
//! marked `?` may be absent or null. Unknown fields are ignored; an unknown `type` is refused. Integers are whole
//! numbers from 0 to 2^53 - 1, so that every JSON parser keeps them, unless a smaller range is given. Text lengths are
//! in bytes of UTF-8. A message from a client has at most 8,192 bytes, one from the host at most 65,536.
//!
//! Client to host:
//!
//! ```text
//! hello   protocol: integer, 1
//!         ticket: text, 1 to 2,048
//!         noise?: text, 64: handshake message 1. Present: the client wants UDP
//!         after?: integer: the seq of the last event that the client has, 0 for none. Events after it are sent
//!                 again, as far as the host still keeps them; absent: only events from now on
//!         deltas?: true or false: the client makes snapshots from deltas, and keeps those that it acknowledges. Absent: false
//! ready   (nothing). Repeating it does no harm: a client repeats it after a reconnect before the start
//! action  id: integer, higher than that of the player's action before. The host gives an id to the rules once; after
//!         a reconnect the client repeats, with the same ids, what has no action_result yet
//!         data: any JSON, at most 1,024 bytes when written without spaces
//! leave   (nothing)
//! ping    t: integer
//! ```
//!
//! Host to client:
//!
//! ```text
//! welcome        session: integer, 0 to 2^32 - 1
//!                room: text, 1 to 64
//!                player?: integer, 0 to 65,535: the number of this player's slot. Absent: the session is a spectator's. It
//!                gets events and the snapshots that are for all players; of its messages the host takes ping and leave
//!                players: list, at most 128, of {player: integer, name: text, 0 to 64}
//!                udp_port?: integer, 1 to 65,535: on the host that the WebSocket went to. With noise only
//!                noise?: text, 64: handshake message 2. Present if and only if hello had it and the host has UDP
//!                tick_hz: integer, 1 to 128
//!                rules: {name: text, 1 to 64; version: text, 1 to 64; hash: text, 64: BLAKE3 of the module, hex}
//!                phase: one of opened, gathering, readying, cutscene, countdown, running, finished, aborted, closed
//!                resumed: true if this player has been in the room before; false for a spectator
//!                resume?: text, 1 to 2,048: a ticket with which this client opens its session again after its connection
//!                was lost. The ticket that it came with is used up. Each welcome brings another, and only the last one is good
//!                deltas?: true or false: snapshots may come as deltas, and the host takes Ack. Only if hello had it. Absent: false
//! refused        code: see below; reason: text, at most 512. The answer to hello; the host closes after it
//! event          seq: integer from 1, one higher for each public event of the room. A gap means that the host no
//!                longer keeps the events in between
//!                name: text, 1 to 64
//!                frame?: integer, 0 to 2^32 - 2: the frame that it belongs to
//!                time_ms?: integer: when it happened, milliseconds since the Unix epoch
//!                data: any JSON
//! action_result  id: integer: that of the action; accepted: true or false; reason?: text, at most 512
//! pong           t: integer: that of the ping
//! bye            code: see below; reason: text, at most 512. The host closes after it
//! ```
//!
//! Codes are words; [`RefusalCode`] and [`ByeCode`] say what each means. Of `refused`: `bad_ticket`, `expired_ticket`, `early_ticket`, `used_ticket`, `superseded_ticket`,
//! `wrong_room`, `refused_by_rules`, `room_closed`, `protocol_version`, `bad_message`, `bad_handshake`, `hello_timeout`, `too_many_sessions`, `too_many_attempts`, `host_closing`,
//! `internal`. After `early_ticket`, `hello_timeout`, `too_many_sessions`, `too_many_attempts` and `internal` the same ticket may work later. Of `bye`: `room_finished`, `room_aborted`, `left`,
//! `removed`, `replaced`, `bad_message`, `too_many_messages`, `too_slow`, `idle`, `host_closing`, `internal`. After `too_slow`, `idle` and `internal` the client may come back, with the
//! ticket of its last welcome. A code that the receiver does not know is read as `other`: the reason still tells a person what happened.
//!
//! ## Events of the room
//!
//! The events of a game are its module's. These are the room's own, in every game; other fields may come later.
//!
//! | name | data | when |
//! | --- | --- | --- |
//! | `player_joined` | `player`, `name` | its first session |
//! | `player_ready` | `player`, `name` | its first `ready` |
//! | `player_left` | `player`, `name`, `reason`: `quit`, `connection_lost`, `removed`, `never_came`, `not_ready` | it is out of the game |
//! | `cutscene` | `duration_ms` | all are ready; comes only if the module has a cutscene |
//! | `countdown` | `remaining`: n, n - 1 … 1 | each step of the countdown, if the module has one |
//! | `started` | `frame`: 0, `tick_hz`, `players`: the slots that play | frame 0 is due |
//! | `finished` | `frames`, `results`: list of `player`, `place?`, `outcome`, `data` | the game is over; `bye` follows when the room closes |
//! | `aborted` | `frames`, `reason`: `not_enough_players`, `everyone_left`, `too_long`, `rules_fault`, `host_stopping`, `requested`; `fault?`: how the rules failed | the game ended without results |
//! | `rules_swapped` | `frame`: the first of the new rules; `module`, `from`: `name`, `version`, `hash` | the rules were replaced |
//! | `rules_rolled_back` | `frame`: where the new rules failed, `since_frame`: their first; `module`: the rules from now on, `failed`; `reason`; `void`: the `seq` of events that did not happen; `untold?`: how many events there was no room for | the rules before are back |

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::handshake::HandshakeMessage;

/// The longest text message from a client, in bytes: a ticket or an action with room for escapes and spaces.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = 8_192;

/// The longest text message from the host, in bytes: the event that ends a room carries its results, for which rules
/// have 48 KiB, and a third more for the rest of the message.
pub const HOST_MESSAGE_BYTES_MAX: usize = 64 << 10;

/// The longest ticket, in bytes. A signed JWT with a dozen claims has about 500.
pub const TICKET_BYTES_MAX: usize = 2_048;

/// The longest `data` of an action, in bytes of JSON without spaces. Actions are journalled one by one.
pub const ACTION_DATA_BYTES_MAX: usize = 1_024;

/// The longest name (player, room, event, rules), in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// The longest reason, in bytes. Longer ones are cut when they are written.
pub const REASON_BYTES_MAX: usize = 512;

/// How many players a room has at most, so that `welcome` fits into a message even if every name needs escapes.
pub const PLAYERS_COUNT_MAX: usize = 128;

/// The highest tick rate, in Hz.
pub const TICK_HZ_MAX: u16 = 128;

/// The highest integer in a message: 2^53 - 1, the last that an IEEE 754 double keeps exactly.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

const FRAME_MAX: u64 = u32::MAX as u64 - 1;
const HASH_BYTES: usize = 64;

/// Why a text message was refused, or could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Longer than any message of its direction may be.
    #[error("the message has {bytes} bytes; at most {max} are allowed")]
    TooLong {
        /// Its size, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// Not JSON.
    #[error("the message is not JSON: {reason}")]
    NotJson {
        /// What the parser says, with line and column.
        reason: String,
    },
    /// JSON, but not an object.
    #[error("a message is a JSON object; this is {got}")]
    NotAnObject {
        /// What it is instead.
        got: &'static str,
    },
    /// No message of this direction has this type.
    #[error("unknown message type `{got}`; known are {known}")]
    UnknownType {
        /// The value of `type`, cut at 64 bytes.
        got: String,
        /// The types that this side understands.
        known: &'static str,
    },
    /// A field is wrong.
    #[error("`{field}` of `{message}` {problem}")]
    Field {
        /// The type of the message.
        message: &'static str,
        /// The field; inside a list or an object with its path, as in `players[3].name`.
        field: String,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is absent.
    #[error("is missing")]
    Missing,
    /// It is of another type.
    #[error("must be {expected}, not {got}")]
    Type {
        /// What it must be.
        expected: &'static str,
        /// What it is.
        got: &'static str,
    },
    /// The number is out of range.
    #[error("must be a whole number from {min} to {max}")]
    Range {
        /// The lowest value allowed.
        min: u64,
        /// The highest value allowed.
        max: u64,
    },
    /// The text, list or value is too short or too long.
    #[error("must have {min} to {max} {unit}; it has {got}")]
    Length {
        /// How long it is.
        got: usize,
        /// The least allowed.
        min: usize,
        /// The most allowed.
        max: usize,
        /// What is counted.
        unit: &'static str,
    },
    /// The text is not one of those allowed.
    #[error("must be {expected}")]
    Value {
        /// What is allowed.
        expected: &'static str,
    },
}

/// A message from a client to the host.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientMessage {
    /// The first message: who wants to join, and how.
    Hello {
        /// The version of the protocol that the client speaks. Any number is read, so that the host can answer
        /// [`RefusalCode::ProtocolVersion`].
        protocol: u32,
        /// The permission to open a session.
        ticket: String,
        /// Handshake message 1, if the client wants UDP.
        #[serde(skip_serializing_if = "Option::is_none")]
        noise: Option<HandshakeMessage>,
        /// The last event that the client has; events after it are sent again.
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
        /// The client makes snapshots from deltas.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        deltas: bool,
    },
    /// The player is ready for the race.
    Ready,
    /// A reliable, ordered message to the rules.
    Action {
        /// Chosen by the client, rising; comes back in `action_result`.
        id: u64,
        /// What the rules get.
        data: Value,
    },
    /// The player leaves the room for good.
    Leave,
    /// Asks for a pong with the same `t`.
    Ping {
        /// Opaque to the host.
        t: u64,
    },
}

/// A player of a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlayerName {
    /// The number of the slot.
    pub player: u16,
    /// The name to show.
    pub name: String,
}

/// The rules that a room runs by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RulesInfo {
    /// The module's name.
    pub name: String,
    /// The module's version.
    pub version: String,
    /// BLAKE3 of the module's bytes, 64 hexadecimal digits.
    pub hash: String,
}

/// A message from the host to a client.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HostMessage {
    /// The session is open.
    Welcome {
        /// The session's number: in the header of every datagram.
        session: u32,
        /// The room's id.
        room: String,
        /// The slot of this player; `None` for a spectator.
        #[serde(skip_serializing_if = "Option::is_none")]
        player: Option<u16>,
        /// Every player of the room, this one included.
        players: Vec<PlayerName>,
        /// Where to send datagrams, on the host that the WebSocket went to.
        #[serde(skip_serializing_if = "Option::is_none")]
        udp_port: Option<u16>,
        /// Handshake message 2.
        #[serde(skip_serializing_if = "Option::is_none")]
        noise: Option<HandshakeMessage>,
        /// Ticks per second.
        tick_hz: u16,
        /// The rules of the room.
        rules: RulesInfo,
        /// Where the room stands.
        phase: Phase,
        /// Whether this player has been in the room before.
        resumed: bool,
        /// The ticket for the next connection, when this one is lost.
        #[serde(skip_serializing_if = "Option::is_none")]
        resume: Option<String>,
        /// Snapshots may come as deltas.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        deltas: bool,
    },
    /// The session is not opened; the host closes.
    Refused {
        /// Why, for programs.
        code: RefusalCode,
        /// Why, for people.
        reason: String,
    },
    /// A public event.
    Event {
        /// Its number in the room, from 1.
        seq: u64,
        /// Its name.
        name: String,
        /// The frame that it belongs to.
        #[serde(skip_serializing_if = "Option::is_none")]
        frame: Option<u32>,
        /// When it happened, in milliseconds since the Unix epoch.
        #[serde(skip_serializing_if = "Option::is_none")]
        time_ms: Option<u64>,
        /// What happened.
        data: Value,
    },
    /// What became of an action.
    ActionResult {
        /// The action's id.
        id: u64,
        /// Whether the rules took it.
        accepted: bool,
        /// Why not.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The answer to a ping.
    Pong {
        /// That of the ping.
        t: u64,
    },
    /// The session ends; the host closes.
    Bye {
        /// Why, for programs.
        code: ByeCode,
        /// Why, for people.
        reason: String,
    },
}

macro_rules! words {
    (
        $(#[$doc:meta])* $name:ident {
            $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// The word in messages.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// The value that this word stands for.
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }

            #[cfg(test)]
            const ALL: &'static [Self] = &[$(Self::$variant),*];
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

words! {
    /// Where a room stands.
    Phase {
        /// It exists; nobody is expected yet.
        Opened = "opened",
        /// It waits for its players to connect.
        Gathering = "gathering",
        /// All are here; it waits until each is ready.
        Readying = "readying",
        /// The scene before the race plays.
        Cutscene = "cutscene",
        /// The countdown runs.
        Countdown = "countdown",
        /// The game loop runs.
        Running = "running",
        /// The game is over, with results.
        Finished = "finished",
        /// The game ended without results.
        Aborted = "aborted",
        /// The room is gone.
        Closed = "closed",
    }
}

words! {
    /// Why a session was not opened.
    RefusalCode {
        /// The ticket is not one of this host's.
        BadTicket = "bad_ticket",
        /// The ticket was good once. Ask for a new one.
        ExpiredTicket = "expired_ticket",
        /// The ticket is not good yet: a clock is wrong, or it was made for later.
        EarlyTicket = "early_ticket",
        /// The ticket has opened a session already. Ask for a new one.
        UsedTicket = "used_ticket",
        /// A newer ticket of this player has opened a session. Ask for a new one.
        SupersededTicket = "superseded_ticket",
        /// The ticket names a player that its room does not have.
        WrongRoom = "wrong_room",
        /// The rules refuse what the ticket says of its player; the reason is theirs.
        RefusedByRules = "refused_by_rules",
        /// The room is over.
        RoomClosed = "room_closed",
        /// The host does not speak the client's version.
        ProtocolVersion = "protocol_version",
        /// `hello` could not be understood; the reason names the field.
        BadMessage = "bad_message",
        /// The handshake does not fit the host's key and the ticket.
        BadHandshake = "bad_handshake",
        /// No `hello` came in time.
        HelloTimeout = "hello_timeout",
        /// The host has as many sessions as it takes.
        TooManySessions = "too_many_sessions",
        /// This ticket or address connects too often.
        TooManyAttempts = "too_many_attempts",
        /// The host is shutting down.
        HostClosing = "host_closing",
        /// The host failed; its log says more.
        Internal = "internal",
        /// A code that this side does not know.
        Other = "other",
    }
}

impl RefusalCode {
    /// Whether the same ticket may work later.
    pub fn may_retry(self) -> bool {
        matches!(
            self,
            Self::EarlyTicket | Self::HelloTimeout | Self::TooManySessions | Self::TooManyAttempts | Self::Internal
        )
    }
}

words! {
    /// Why the host ended a session.
    ByeCode {
        /// The room finished. All that happened in it is on the host's disk.
        RoomFinished = "room_finished",
        /// The room was aborted. All that happened in it is on the host's disk.
        RoomAborted = "room_aborted",
        /// The player left.
        Left = "left",
        /// The player was removed from the room.
        Removed = "removed",
        /// Another session of the same player was opened, by a newer ticket or by its own client that came back.
        Replaced = "replaced",
        /// A message or payload could not be understood; the reason names the field.
        BadMessage = "bad_message",
        /// The client sent more messages than the host takes.
        TooManyMessages = "too_many_messages",
        /// The client reads more slowly than the host writes.
        TooSlow = "too_slow",
        /// Nothing came from the client for too long.
        Idle = "idle",
        /// The host is shutting down.
        HostClosing = "host_closing",
        /// The host failed; its log says more.
        Internal = "internal",
        /// A code that this side does not know.
        Other = "other",
    }
}

impl ByeCode {
    /// Whether a client may connect again, with the ticket that its welcome brought.
    pub fn may_reconnect(self) -> bool {
        matches!(self, Self::TooSlow | Self::Idle | Self::Internal)
    }
}

impl Serialize for HandshakeMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_base64())
    }
}

impl ClientMessage {
    const TYPES: &'static str = "hello, ready, action, leave, ping";

    /// Writes the message as JSON.
    ///
    /// Errors: [`MessageError::Field`] if a field is outside its limits.
    pub fn encode(&self) -> Result<String, MessageError> {
        encode(self, CLIENT_MESSAGE_BYTES_MAX, |text| Self::decode(text).map(drop))
    }

    /// Reads a message from a client. Errors: all of [`MessageError`].
    pub fn decode(text: &str) -> Result<Self, MessageError> {
        let object = parse(text, CLIENT_MESSAGE_BYTES_MAX)?;
        match type_of(&object)? {
            "hello" => {
                let fields = Fields::of("hello", &object);
                Ok(Self::Hello {
                    protocol: fields.integer("protocol", 0, u64::from(u32::MAX))? as u32,
                    ticket: fields.text("ticket", 1, TICKET_BYTES_MAX)?,
                    noise: fields.noise()?,
                    after: fields.optional("after", |f| f.integer("after", 0, INTEGER_MAX))?,
                    deltas: fields.optional("deltas", |f| f.boolean("deltas"))?.unwrap_or(false),
                })
            }
            "ready" => Ok(Self::Ready),
            "action" => {
                let fields = Fields::of("action", &object);
                let id = fields.integer("id", 0, INTEGER_MAX)?;
                let data = fields.any("data")?;
                let bytes = data.to_string().len();
                if bytes > ACTION_DATA_BYTES_MAX {
                    return Err(fields.length("data", bytes, 0, ACTION_DATA_BYTES_MAX, "bytes"));
                }
                Ok(Self::Action { id, data })
            }
            "leave" => Ok(Self::Leave),
            "ping" => Ok(Self::Ping { t: Fields::of("ping", &object).integer("t", 0, INTEGER_MAX)? }),
            other => Err(unknown(other, Self::TYPES)),
        }
    }
}

impl HostMessage {
    const TYPES: &'static str = "welcome, refused, event, action_result, pong, bye";

    /// Writes the message as JSON. Reasons longer than [`REASON_BYTES_MAX`] are cut.
    ///
    /// Errors: [`MessageError::Field`] if a field is outside its limits, [`MessageError::TooLong`] if all of it is.
    pub fn encode(&self) -> Result<String, MessageError> {
        let check = |text: &str| Self::decode(text).map(drop);
        match self {
            Self::Refused { code, reason } if reason.len() > REASON_BYTES_MAX => {
                let cut = Self::Refused { code: *code, reason: cut(reason, REASON_BYTES_MAX) };
                encode(&cut, HOST_MESSAGE_BYTES_MAX, check)
            }
            Self::Bye { code, reason } if reason.len() > REASON_BYTES_MAX => {
                let cut = Self::Bye { code: *code, reason: cut(reason, REASON_BYTES_MAX) };
                encode(&cut, HOST_MESSAGE_BYTES_MAX, check)
            }
            Self::ActionResult { id, accepted, reason: Some(reason) } if reason.len() > REASON_BYTES_MAX => {
                let cut =
                    Self::ActionResult { id: *id, accepted: *accepted, reason: Some(cut(reason, REASON_BYTES_MAX)) };
                encode(&cut, HOST_MESSAGE_BYTES_MAX, check)
            }
            _ => encode(self, HOST_MESSAGE_BYTES_MAX, check),
        }
    }

    /// Reads a message from the host. Errors: all of [`MessageError`].
    pub fn decode(text: &str) -> Result<Self, MessageError> {
        let object = parse(text, HOST_MESSAGE_BYTES_MAX)?;
        match type_of(&object)? {
            "welcome" => {
                let fields = Fields::of("welcome", &object);
                let rules = fields.object("rules")?;
                Ok(Self::Welcome {
                    session: fields.integer("session", 0, u64::from(u32::MAX))? as u32,
                    room: fields.text("room", 1, NAME_BYTES_MAX)?,
                    player: fields
                        .optional("player", |f| f.integer("player", 0, u64::from(u16::MAX)))?
                        .map(|player| player as u16),
                    players: fields.players()?,
                    udp_port: fields
                        .optional("udp_port", |f| f.integer("udp_port", 1, u64::from(u16::MAX)))?
                        .map(|port| port as u16),
                    noise: fields.noise()?,
                    tick_hz: fields.integer("tick_hz", 1, u64::from(TICK_HZ_MAX))? as u16,
                    rules: RulesInfo {
                        name: rules.text("name", 1, NAME_BYTES_MAX)?,
                        version: rules.text("version", 1, NAME_BYTES_MAX)?,
                        hash: rules.hash("hash")?,
                    },
                    phase: fields.word("phase", Phase::from_word, "the name of a phase")?,
                    resumed: fields.boolean("resumed")?,
                    resume: fields.optional("resume", |f| f.text("resume", 1, TICKET_BYTES_MAX))?,
                    deltas: fields.optional("deltas", |f| f.boolean("deltas"))?.unwrap_or(false),
                })
            }
            "refused" => {
                let fields = Fields::of("refused", &object);
                let code = fields.text("code", 1, NAME_BYTES_MAX)?;
                Ok(Self::Refused {
                    code: RefusalCode::from_word(&code).unwrap_or(RefusalCode::Other),
                    reason: fields.text("reason", 0, REASON_BYTES_MAX)?,
                })
            }
            "event" => {
                let fields = Fields::of("event", &object);
                Ok(Self::Event {
                    seq: fields.integer("seq", 1, INTEGER_MAX)?,
                    name: fields.text("name", 1, NAME_BYTES_MAX)?,
                    frame: fields.optional("frame", |f| f.integer("frame", 0, FRAME_MAX))?.map(|frame| frame as u32),
                    time_ms: fields.optional("time_ms", |f| f.integer("time_ms", 0, INTEGER_MAX))?,
                    data: fields.any("data")?,
                })
            }
            "action_result" => {
                let fields = Fields::of("action_result", &object);
                Ok(Self::ActionResult {
                    id: fields.integer("id", 0, INTEGER_MAX)?,
                    accepted: fields.boolean("accepted")?,
                    reason: fields.optional("reason", |f| f.text("reason", 0, REASON_BYTES_MAX))?,
                })
            }
            "pong" => Ok(Self::Pong { t: Fields::of("pong", &object).integer("t", 0, INTEGER_MAX)? }),
            "bye" => {
                let fields = Fields::of("bye", &object);
                let code = fields.text("code", 1, NAME_BYTES_MAX)?;
                Ok(Self::Bye {
                    code: ByeCode::from_word(&code).unwrap_or(ByeCode::Other),
                    reason: fields.text("reason", 0, REASON_BYTES_MAX)?,
                })
            }
            other => Err(unknown(other, Self::TYPES)),
        }
    }
}

/// Writes a message and reads it back, so that this side never sends what the other must refuse.
fn encode(
    message: &impl Serialize,
    max: usize,
    check: impl Fn(&str) -> Result<(), MessageError>,
) -> Result<String, MessageError> {
    let text = serde_json::to_string(message).map_err(|error| MessageError::NotJson { reason: error.to_string() })?;
    if text.len() > max {
        return Err(MessageError::TooLong { bytes: text.len(), max });
    }
    check(&text)?;
    Ok(text)
}

fn parse(text: &str, max: usize) -> Result<Map<String, Value>, MessageError> {
    if text.len() > max {
        return Err(MessageError::TooLong { bytes: text.len(), max });
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(MessageError::NotAnObject { got: kind_of(&other) }),
        Err(error) => Err(MessageError::NotJson { reason: error.to_string() }),
    }
}

fn type_of(object: &Map<String, Value>) -> Result<&str, MessageError> {
    let problem = match object.get("type") {
        Some(Value::String(name)) => return Ok(name),
        Some(other) => Problem::Type { expected: "text", got: kind_of(other) },
        None => Problem::Missing,
    };
    Err(MessageError::Field { message: "message", field: "type".into(), problem })
}

fn unknown(got: &str, known: &'static str) -> MessageError {
    MessageError::UnknownType { got: cut(got, NAME_BYTES_MAX), known }
}

/// The longest start of `text` with at most `max` bytes that does not end inside a character.
fn cut(text: &str, max: usize) -> String {
    let end = text.floor_char_boundary(max);
    text.get(..end).unwrap_or_default().to_owned()
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The fields of an object, with the names that an error needs.
struct Fields<'a> {
    message: &'static str,
    /// Where the object is inside the message: empty, or a path that ends in a dot.
    prefix: String,
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn of(message: &'static str, object: &'a Map<String, Value>) -> Self {
        Self { message, prefix: String::new(), object }
    }

    fn error(&self, field: &str, problem: Problem) -> MessageError {
        let field = format!("{}{field}", self.prefix);
        MessageError::Field { message: self.message, field, problem }
    }

    fn wrong(&self, field: &str, expected: &'static str, got: &Value) -> MessageError {
        self.error(field, Problem::Type { expected, got: kind_of(got) })
    }

    fn length(&self, field: &str, got: usize, min: usize, max: usize, unit: &'static str) -> MessageError {
        self.error(field, Problem::Length { got, min, max, unit })
    }

    fn get(&self, field: &str) -> Result<&'a Value, MessageError> {
        self.object.get(field).ok_or_else(|| self.error(field, Problem::Missing))
    }

    fn optional<T>(
        &self,
        field: &str,
        read: impl FnOnce(&Self) -> Result<T, MessageError>,
    ) -> Result<Option<T>, MessageError> {
        match self.object.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => read(self).map(Some),
        }
    }

    fn any(&self, field: &str) -> Result<Value, MessageError> {
        self.get(field).cloned()
    }

    fn integer(&self, field: &str, min: u64, max: u64) -> Result<u64, MessageError> {
        let value = self.get(field)?;
        let Value::Number(number) = value else {
            return Err(self.wrong(field, "a whole number", value));
        };
        number
            .as_u64()
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| self.error(field, Problem::Range { min, max }))
    }

    fn boolean(&self, field: &str) -> Result<bool, MessageError> {
        let value = self.get(field)?;
        value.as_bool().ok_or_else(|| self.wrong(field, "true or false", value))
    }

    fn text(&self, field: &str, min: usize, max: usize) -> Result<String, MessageError> {
        let value = self.get(field)?;
        let Value::String(text) = value else {
            return Err(self.wrong(field, "text", value));
        };
        if !(min..=max).contains(&text.len()) {
            return Err(self.length(field, text.len(), min, max, "bytes"));
        }
        Ok(text.clone())
    }

    fn word<T>(
        &self,
        field: &str,
        read: impl FnOnce(&str) -> Option<T>,
        expected: &'static str,
    ) -> Result<T, MessageError> {
        let word = self.text(field, 0, NAME_BYTES_MAX)?;
        read(&word).ok_or_else(|| self.error(field, Problem::Value { expected }))
    }

    fn hash(&self, field: &str) -> Result<String, MessageError> {
        let text = self.text(field, HASH_BYTES, HASH_BYTES)?;
        if !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            let expected = "64 lower-case hexadecimal digits";
            return Err(self.error(field, Problem::Value { expected }));
        }
        Ok(text)
    }

    fn noise(&self) -> Result<Option<HandshakeMessage>, MessageError> {
        self.optional("noise", |f| {
            let value = f.get("noise")?;
            let Value::String(text) = value else {
                return Err(f.wrong("noise", "text", value));
            };
            let expected = "64 characters of URL-safe base64 without padding";
            HandshakeMessage::from_base64(text).map_err(|_| f.error("noise", Problem::Value { expected }))
        })
    }

    fn object(&self, field: &str) -> Result<Fields<'a>, MessageError> {
        let value = self.get(field)?;
        let Value::Object(object) = value else {
            return Err(self.wrong(field, "an object", value));
        };
        let prefix = format!("{}{field}.", self.prefix);
        Ok(Fields { message: self.message, prefix, object })
    }

    fn players(&self) -> Result<Vec<PlayerName>, MessageError> {
        let value = self.get("players")?;
        let Value::Array(list) = value else {
            return Err(self.wrong("players", "a list", value));
        };
        if list.len() > PLAYERS_COUNT_MAX {
            return Err(self.length("players", list.len(), 0, PLAYERS_COUNT_MAX, "entries"));
        }
        list.iter()
            .enumerate()
            .map(|(index, value)| {
                let Value::Object(object) = value else {
                    return Err(self.wrong(&format!("players[{index}]"), "an object", value));
                };
                let prefix = format!("players[{index}].");
                let fields = Fields { message: self.message, prefix, object };
                Ok(PlayerName {
                    player: fields.integer("player", 0, u64::from(u16::MAX))? as u16,
                    name: fields.text("name", 0, NAME_BYTES_MAX)?,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::HANDSHAKE_MESSAGE_BYTES;
    use proptest::prelude::*;
    use serde_json::json;

    fn noise() -> HandshakeMessage {
        HandshakeMessage([0xFB; HANDSHAKE_MESSAGE_BYTES])
    }

    fn welcome() -> HostMessage {
        HostMessage::Welcome {
            session: u32::MAX,
            room: "race-1".into(),
            player: Some(1),
            players: vec![
                PlayerName { player: 0, name: "Ada \"the\" First".into() },
                PlayerName { player: 1, name: "Zoë".into() },
            ],
            udp_port: Some(4_000),
            noise: Some(noise()),
            tick_hz: 50,
            rules: RulesInfo { name: "drag-race".into(), version: "0.1.0".into(), hash: "0123456789abcdef".repeat(4) },
            phase: Phase::Gathering,
            resumed: false,
            resume: Some("a.b.c".into()),
            deltas: true,
        }
    }

    fn spectators_welcome() -> HostMessage {
        let HostMessage::Welcome { session, room, players, tick_hz, rules, phase, resumed, .. } = welcome() else {
            unreachable!()
        };
        HostMessage::Welcome {
            session,
            room,
            player: None,
            players,
            udp_port: None,
            noise: None,
            tick_hz,
            rules,
            phase,
            resumed,
            resume: None,
            deltas: false,
        }
    }

    fn client_messages() -> Vec<ClientMessage> {
        vec![
            ClientMessage::Hello {
                protocol: 1,
                ticket: "t".repeat(TICKET_BYTES_MAX),
                noise: Some(noise()),
                after: Some(0),
                deltas: true,
            },
            ClientMessage::Hello { protocol: 9, ticket: "t".into(), noise: None, after: None, deltas: false },
            ClientMessage::Ready,
            ClientMessage::Action { id: INTEGER_MAX, data: json!({"car": "x", "n": [1, -2.5, null]}) },
            ClientMessage::Leave,
            ClientMessage::Ping { t: 5 },
        ]
    }

    fn host_messages() -> Vec<HostMessage> {
        let mut all = vec![
            welcome(),
            spectators_welcome(),
            HostMessage::Event {
                seq: 1,
                name: "countdown".into(),
                frame: Some(0),
                time_ms: Some(1_800_000_000_000),
                data: json!({"seconds": 3}),
            },
            HostMessage::Event { seq: 2, name: "e".into(), frame: None, time_ms: None, data: Value::Null },
            HostMessage::ActionResult { id: 0, accepted: true, reason: None },
            HostMessage::ActionResult { id: 1, accepted: false, reason: Some("no such car".into()) },
            HostMessage::Pong { t: 5 },
        ];
        for &code in RefusalCode::ALL {
            all.push(HostMessage::Refused { code, reason: "because".into() });
        }
        for &code in ByeCode::ALL {
            all.push(HostMessage::Bye { code, reason: String::new() });
        }
        all
    }

    #[test]
    fn messages_come_back() {
        for message in client_messages() {
            let text = message.encode().unwrap();
            assert_eq!(ClientMessage::decode(&text), Ok(message), "{text}");
        }
        for message in host_messages() {
            let text = message.encode().unwrap();
            assert_eq!(HostMessage::decode(&text), Ok(message), "{text}");
        }
        for &phase in Phase::ALL {
            assert_eq!(Phase::from_word(phase.as_str()), Some(phase));
        }
    }

    #[test]
    fn the_json_is_the_one_specified() {
        let hello =
            ClientMessage::Hello { protocol: 1, ticket: "abc".into(), noise: None, after: Some(7), deltas: false };
        assert_eq!(hello.encode().unwrap(), r#"{"type":"hello","protocol":1,"ticket":"abc","after":7}"#);
        assert_eq!(ClientMessage::Ready.encode().unwrap(), r#"{"type":"ready"}"#);
        let bye = HostMessage::Bye { code: ByeCode::HostClosing, reason: "good night".into() };
        assert_eq!(bye.encode().unwrap(), r#"{"type":"bye","code":"host_closing","reason":"good night"}"#);
        insta::assert_snapshot!(welcome().encode().unwrap(), @r#"{"type":"welcome","session":4294967295,"room":"race-1","player":1,"players":[{"player":0,"name":"Ada \"the\" First"},{"player":1,"name":"Zoë"}],"udp_port":4000,"noise":"-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7","tick_hz":50,"rules":{"name":"drag-race","version":"0.1.0","hash":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},"phase":"gathering","resumed":false,"resume":"a.b.c","deltas":true}"#);
    }

    #[test]
    fn unknown_fields_are_ignored_and_null_is_absent() {
        let text = r#"{"new":{"a":[1]},"ticket":"t","protocol":1,"noise":null,"type":"hello"}"#;
        let hello = ClientMessage::Hello { protocol: 1, ticket: "t".into(), noise: None, after: None, deltas: false };
        assert_eq!(ClientMessage::decode(text), Ok(hello));
    }

    #[test]
    fn unknown_codes_are_read_as_other() {
        let text = r#"{"type":"bye","code":"eclipse","reason":"r"}"#;
        let bye = HostMessage::Bye { code: ByeCode::Other, reason: "r".into() };
        assert_eq!(HostMessage::decode(text), Ok(bye));
    }

    /// What is said about a message that a client got wrong.
    fn complaint(text: &str) -> String {
        ClientMessage::decode(text).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_field() {
        let many = format!(r#"{{"type":"action","id":1,"data":"{}"}}"#, "x".repeat(1_023));
        let cases = [
            ("", "the message is not JSON: EOF while parsing a value at line 1 column 0"),
            ("[]", "a message is a JSON object; this is a list"),
            ("{}", "`type` of `message` is missing"),
            (r#"{"type":3}"#, "`type` of `message` must be text, not a number"),
            (r#"{"type":"hallo"}"#, "unknown message type `hallo`; known are hello, ready, action, leave, ping"),
            (r#"{"type":"hello","ticket":"t"}"#, "`protocol` of `hello` is missing"),
            (
                r#"{"type":"hello","protocol":"1","ticket":"t"}"#,
                "`protocol` of `hello` must be a whole number, not text",
            ),
            (
                r#"{"type":"hello","protocol":1.5,"ticket":"t"}"#,
                "`protocol` of `hello` must be a whole number from 0 to 4294967295",
            ),
            (r#"{"type":"hello","protocol":1,"ticket":""}"#, "`ticket` of `hello` must have 1 to 2048 bytes; it has 0"),
            (
                r#"{"type":"hello","protocol":1,"ticket":"t","noise":"AAAA"}"#,
                "`noise` of `hello` must be 64 characters of URL-safe base64 without padding",
            ),
            (
                r#"{"type":"hello","protocol":1,"ticket":"t","after":-1}"#,
                "`after` of `hello` must be a whole number from 0 to 9007199254740991",
            ),
            (r#"{"type":"action","id":1}"#, "`data` of `action` is missing"),
            (
                r#"{"type":"ping","t":9007199254740992}"#,
                "`t` of `ping` must be a whole number from 0 to 9007199254740991",
            ),
            (many.as_str(), "`data` of `action` must have 0 to 1024 bytes; it has 1025"),
        ];
        for (text, expected) in cases {
            assert_eq!(complaint(text), expected, "{text}");
        }
        let mut bad = serde_json::to_value(welcome()).unwrap();
        bad["players"][1]["name"] = json!(5);
        let error = HostMessage::decode(&bad.to_string()).unwrap_err();
        assert_eq!(error.to_string(), "`players[1].name` of `welcome` must be text, not a number");
        let mut bad = serde_json::to_value(welcome()).unwrap();
        bad["rules"]["hash"] = json!("Z".repeat(64));
        let error = HostMessage::decode(&bad.to_string()).unwrap_err();
        assert_eq!(error.to_string(), "`rules.hash` of `welcome` must be 64 lower-case hexadecimal digits");
    }

    /// Each field of each message, taken away or replaced by something of another type, is named in the error, or the
    /// field is one that may be absent.
    #[test]
    fn every_field_is_checked() {
        let wrong = [json!([[]]), json!(-1), json!(1.5), json!("\u{0}".repeat(3_000)), json!(true)];
        let mut refused = 0;
        let client = client_messages().into_iter().map(|m| serde_json::to_value(m).unwrap());
        let host = host_messages().into_iter().map(|m| serde_json::to_value(m).unwrap());
        for (of_host, message) in client.map(|m| (false, m)).chain(host.map(|m| (true, m))) {
            let read = |value: &Value| {
                let text = value.to_string();
                if of_host { HostMessage::decode(&text).map(drop) } else { ClientMessage::decode(&text).map(drop) }
            };
            let keys: Vec<String> = message.as_object().unwrap().keys().cloned().collect();
            for key in keys.iter().filter(|key| *key != "type" && *key != "data") {
                let mut without = message.clone();
                without.as_object_mut().unwrap().remove(key);
                let absent = read(&without);
                let optional =
                    ["noise", "after", "frame", "player", "time_ms", "udp_port", "reason", "resume", "deltas"];
                if !optional.contains(&key.as_str()) {
                    let error = absent.unwrap_err().to_string();
                    assert!(error.contains(&format!("`{key}`")), "{error}");
                }
                for value in &wrong {
                    let is_flag = ["accepted", "resumed", "deltas"].contains(&key.as_str());
                    if value == &message[key] || is_flag && value == &json!(true) {
                        continue;
                    }
                    let mut bad = message.clone();
                    bad[key] = value.clone();
                    match read(&bad).unwrap_err() {
                        MessageError::Field { field, .. } => {
                            assert!(field.starts_with(key.as_str()), "{field} for {key}");
                        }
                        MessageError::TooLong { .. } => {}
                        other => panic!("{other} for {key}"),
                    }
                    refused += 1;
                }
            }
        }
        assert!(refused > 100, "only {refused} were tried");
    }

    #[test]
    fn sizes_are_bounded_before_anything_is_parsed() {
        let long = " ".repeat(CLIENT_MESSAGE_BYTES_MAX + 1);
        assert!(matches!(ClientMessage::decode(&long), Err(MessageError::TooLong { .. })));
        let long = " ".repeat(HOST_MESSAGE_BYTES_MAX + 1);
        assert!(matches!(HostMessage::decode(&long), Err(MessageError::TooLong { .. })));
        // Nesting is bounded too.
        let deep = format!("{}{}", "[".repeat(4_000), "]".repeat(4_000));
        assert!(matches!(ClientMessage::decode(&deep), Err(MessageError::NotJson { .. })));
    }

    #[test]
    fn the_largest_welcome_fits() {
        let HostMessage::Welcome { session, player, udp_port, noise, tick_hz, rules, phase, resumed, .. } = welcome()
        else {
            panic!()
        };
        let players = (0..PLAYERS_COUNT_MAX)
            .map(|player| PlayerName { player: player as u16, name: "\u{1}".repeat(NAME_BYTES_MAX) })
            .collect();
        let room = "\u{1}".repeat(NAME_BYTES_MAX);
        let resume = Some("r".repeat(TICKET_BYTES_MAX));
        let message = HostMessage::Welcome {
            session,
            room,
            player,
            players,
            udp_port,
            noise,
            tick_hz,
            rules,
            phase,
            resumed,
            resume,
            deltas: true,
        };
        message.encode().unwrap();
    }

    #[test]
    fn what_the_other_side_would_refuse_is_not_written() {
        let hello = ClientMessage::Hello {
            protocol: 1,
            ticket: "t".repeat(TICKET_BYTES_MAX + 1),
            noise: None,
            after: None,
            deltas: false,
        };
        assert!(matches!(hello.encode(), Err(MessageError::Field { .. })));
        let event = |data| HostMessage::Event { seq: 1, name: "e".into(), frame: None, time_ms: None, data };
        assert!(matches!(event(json!("x".repeat(HOST_MESSAGE_BYTES_MAX))).encode(), Err(MessageError::TooLong { .. })));
        let deep = (0..200).fold(Value::Null, |inner, _| json!([inner]));
        assert!(matches!(event(deep).encode(), Err(MessageError::NotJson { .. })));
        // Reasons are cut, between characters.
        let reason = "é".repeat(400);
        let text = HostMessage::Bye { code: ByeCode::Internal, reason }.encode().unwrap();
        let Ok(HostMessage::Bye { reason, .. }) = HostMessage::decode(&text) else { panic!() };
        assert_eq!(reason, "é".repeat(256));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,200}") {
            let _ = ClientMessage::decode(&text);
            let _ = HostMessage::decode(&text);
        }

        /// A good message with some of its characters replaced.
        #[test]
        fn damaged_messages_never_panic(
            which in any::<prop::sample::Index>(),
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..4),
        ) {
            let mut all: Vec<String> =
                client_messages().iter().skip(1).map(|m| m.encode().unwrap()).collect();
            all.extend(host_messages().iter().map(|m| m.encode().unwrap()));
            let mut text: Vec<char> = which.get(&all).chars().collect();
            for (at, with) in damage {
                let at = at.index(text.len());
                text[at] = with;
            }
            let text: String = text.into_iter().collect();
            if let Ok(message) = ClientMessage::decode(&text) {
                prop_assert_eq!(ClientMessage::decode(&message.encode().unwrap()), Ok(message));
            }
            if let Ok(message) = HostMessage::decode(&text) {
                prop_assert_eq!(HostMessage::decode(&message.encode().unwrap()), Ok(message));
            }
        }
    }
}
