//! How to connect, and what can go wrong on the way. Nothing is done here.

use std::fmt;

use holeshot_wire::{HandshakeError, MessageError, RefusalCode};

use crate::tls::{Trust, TrustError};

/// How often a lost connection is tried again by default. With pauses that double from 0.1 s to 2 s this is about 9 s, a
/// little less than the 10 s that a room waits by default.
pub const RECONNECT_ATTEMPTS_MAX: u32 = 8;

/// How inputs and snapshots travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Sealed datagrams; binary WebSocket messages while UDP is silent.
    Udp,
    /// Binary WebSocket messages, as a browser does.
    WebSocketOnly,
}

/// What [`crate::Client::connect`] needs.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The host's WebSocket, as in `ws://host:port/path`, or `wss://` for TLS.
    pub ws_url: String,
    /// The permission to open a session. It is good for one; the client comes back with another, which the host gives it.
    pub ticket: String,
    /// The host's public key; comes with the ticket. Needed for UDP.
    pub host_key: Option<[u8; 32]>,
    /// How inputs and snapshots travel.
    pub transport: Transport,
    /// The seq of the last event that this player has seen, in an earlier connection: the later ones come again. 0 for all
    /// that the host still has; `None` for none.
    pub after: Option<u64>,
    /// Whether snapshots may come as deltas, which takes fewer bytes on the way, and memory for the last 32 of them here. The
    /// program sees whole ones either way.
    pub deltas: bool,
    /// How often a lost connection is tried again before giving up; 0 for never.
    pub reconnect_attempts_max: u32,
    /// Whom to trust when the URL is `wss://`; `None` for the authorities that this machine trusts.
    pub trust: Option<Trust>,
}

impl ConnectOptions {
    /// Over UDP, with all events that the host still has.
    pub fn udp(ws_url: impl Into<String>, ticket: impl Into<String>, host_key: [u8; 32]) -> Self {
        Self { host_key: Some(host_key), transport: Transport::Udp, ..Self::websocket(ws_url, ticket) }
    }

    /// Over the WebSocket alone, with all events that the host still has.
    pub fn websocket(ws_url: impl Into<String>, ticket: impl Into<String>) -> Self {
        Self {
            ws_url: ws_url.into(),
            ticket: ticket.into(),
            host_key: None,
            transport: Transport::WebSocketOnly,
            after: Some(0),
            deltas: true,
            reconnect_attempts_max: RECONNECT_ATTEMPTS_MAX,
            trust: None,
        }
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever has the ticket can play in this player's name, so it is not printed.
        f.debug_struct("ConnectOptions")
            .field("ws_url", &self.ws_url)
            .field("transport", &self.transport)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

/// Why a connection could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The URL is not one of a WebSocket.
    #[error(
        "`{url}` is not the URL of a WebSocket ({reason}); it looks like ws://host:port/path or wss://host:port/path"
    )]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No TLS with this host: its certificate is not to be trusted, or it does not speak TLS.
    #[error("no TLS with {url}: {reason}")]
    Tls {
        /// What was tried.
        url: String,
        /// Why not.
        reason: String,
    },
    /// There is nobody to trust for TLS.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The host has too much to do: for this client's address, or for anybody.
    #[error("the host is busy (HTTP {status}); try again in {retry_after_s} s")]
    Busy {
        /// 429 if this client's address asked too much, 503 if all together did.
        status: u16,
        /// When to try again, in seconds.
        retry_after_s: u64,
    },
    /// [`Transport::Udp`] was asked for without the host's key.
    #[error("UDP needs the host's public key, which comes with the ticket; give it, or use the WebSocket only")]
    HostKeyMissing,
    /// The host could not be reached, or the connection broke before `welcome`.
    #[error("cannot reach {what}: {reason}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        reason: String,
    },
    /// It took too long.
    #[error("no welcome from the host within {waited_ms} ms")]
    Timeout {
        /// How long it was waited for, in milliseconds.
        waited_ms: u64,
    },
    /// What answered is not a WebSocket of a host.
    #[error("what answers at this URL is not a host's WebSocket: {reason}")]
    WebSocket {
        /// What it did.
        reason: String,
    },
    /// The host said no.
    #[error("the host refused: {code}: {reason}")]
    Refused {
        /// Why, for programs.
        code: RefusalCode,
        /// Why, for people.
        reason: String,
    },
    /// The host sent something that this client does not understand.
    #[error("the host does not speak this client's protocol: {reason}")]
    Protocol {
        /// What it sent.
        reason: String,
    },
    /// The handshake failed: it is not the host that the ticket is for.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The ticket cannot be sent.
    #[error("the ticket cannot be sent: {0}")]
    Ticket(MessageError),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {reason}")]
    Random {
        /// What it says.
        reason: String,
    },
}

impl ConnectError {
    /// Whether the same attempt may succeed a little later.
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Timeout { .. } | Self::Busy { .. } => true,
            Self::Refused { code, .. } => code.may_retry(),
            _ => false,
        }
    }
}

/// Why an action, `ready` or `leave` was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// The session is over.
    #[error("the session is over; Client::next says why")]
    Closed,
    /// It cannot be sent as it is.
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// Why an input was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// The session is over.
    #[error("the session is over; Client::next says why")]
    Closed,
    /// Larger than an input may be.
    #[error("an input has at most {max} bytes; this one has {bytes}")]
    TooLong {
        /// Its size, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// 2^32 - 1 is not a frame.
    #[error("{frame} is not a frame")]
    Frame {
        /// The number given.
        frame: u32,
    },
}
