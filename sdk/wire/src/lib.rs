//! What a player's program and a host say to each other: the bytes of datagrams, the text of messages, the
//! handshake that gives a session its keys, and the small state machines that both sides run over them. This
//! crate is pure: no sockets, no clock, no randomness. Time and random bytes are arguments, so everything here
//! can be replayed from a test.
//!
//! This documentation is the specification of **protocol 1** ([`PROTOCOL_VERSION`]). A second implementation can
//! be written from it in any language; `VECTORS.md` beside the crate's manifest holds test vectors, which a test
//! of this crate checks.
//!
//! # The two channels
//!
//! A player opens a **WebSocket** to the host (RFC 6455). Text messages on it are JSON objects ([`message`]):
//! they are reliable and ordered, and carry the handshake, actions and public events. Inputs and snapshots are
//! **payloads** ([`payload`]): small binary records that may be lost. They travel in one of two ways:
//!
//! - over **UDP**, one payload per datagram, sealed ([`datagram`]) with the keys of the handshake;
//! - for a client without UDP (a browser, a closed firewall), as **binary WebSocket messages**: one payload per
//!   message, the same bytes, unsealed. `Probe`, `Challenge` and `Response` are for UDP only: on a WebSocket the
//!   receiver ignores them.
//!
//! All integers in binary records are little-endian; all offsets and sizes are in bytes.
//!
//! # The course of a session
//!
//! 1. The player gets a **ticket** (a text that the host can verify; opaque here), the URL of the host's
//!    WebSocket and, if it wants UDP, the host's public key (32 bytes).
//! 2. It opens the WebSocket and sends `hello` with the ticket. If it wants UDP, `hello.noise` holds handshake
//!    message 1 ([`handshake`]).
//! 3. The host answers `welcome` (with handshake message 2 in `welcome.noise`, the session's number and the UDP
//!    port), or `refused` and closes. Nothing else may come before either of them.
//! 4. With UDP, the client sends a `Probe` to that port, and repeats it until a `Challenge` comes back, which it
//!    answers with a `Response` ([`path`]). Then snapshots come to the address that the response came from.
//! 5. The client sends `ready`, then `action`s and inputs as the game asks; the host sends `event`s,
//!    `action_result`s and snapshots.
//! 6. The host says `bye` before it closes; a client says `leave`. After a connection that broke without either the
//!    client opens another, with the ticket that `welcome.resume` brought: the new `hello` makes a new session number and
//!    new keys, says in `after` the last event that it has, and gets the later ones again. Sequence numbers start at 0
//!    under the new keys. The old session ends with it. Was there no `welcome`, the first ticket is good once more: a ticket
//!    is used up when anything comes from its session, or 10 s after it was opened.
//!
//! # How long each side waits
//!
//! - `hello` has to be there 5 s after the WebSocket; else `refused` with `hello_timeout`.
//! - When nothing came over a WebSocket for 10 s, or earlier, the host sends a ping (RFC 6455, section 5.5.2), which most libraries answer by
//!   themselves. A WebSocket over which nothing comes for 30 s, not even a pong, ends with `bye` and `idle`: datagrams do not
//!   keep it. One that takes nothing for 10 s is cut.
//! - A player whose WebSocket is gone keeps its place for a while (10 s by default, a setting of the host). Meanwhile
//!   its last input is repeated; what comes over UDP for the session that is gone is dropped.
//! - Datagrams are never waited for: a session whose UDP falls silent goes on. A client that hears nothing over UDP for 2 s should send over the
//!   WebSocket, and probe again now and then.
//!
//! # Which way payloads go
//!
//! The host sends payloads the way the client last asked for ([`Path`] is this rule as code):
//!
//! - A session whose `hello` had no `noise` uses the WebSocket from the start.
//! - A session with `noise` gets no payload until it has answered a challenge, or has sent a payload as a binary
//!   message.
//! - A binary message from the client switches the session to the WebSocket. That is how a client falls back
//!   when UDP is silent.
//! - Every `Probe` is answered with a `Challenge`. A `Response` that fits switches the session to UDP, at the
//!   address that the response came from.
//!
//! # For which frame an input is
//!
//! The host steps frame `f` at a moment of its own, and takes for it the first input that came for `f` before. One for a frame that is
//! stepped already is late and is nothing but counted. So is one that is `input_track_frames` or more
//! ahead of the next frame (64, unless the module's manifest says another number). Inputs count from the cutscene on, so that frame 0 can have one; who waits for
//! the first snapshot before it sends loses the first few frames, for which the rules see no input.
//!
//! A client has to know which frame the host is at. Snapshot `f` is sent when `f` was stepped, so `arrival - f / tick_hz` is a constant and the
//! jitter of the way; the smallest of the last second is the best guess of the constant, and any moment then has a frame: the one whose
//! snapshot would just arrive. An input is for that frame plus a **lead**: the way down, the way up, the tick that is under way, and one for jitter. It begins as the round
//! trip in frames, rounded up, and 2. After that `margin_ms` of the snapshots ([`payload`]) decides: below 5 ms the lead is raised at once by what is
//! missing, in whole frames; with more than one and a half ticks to spare it is lowered by one. The margin is the smallest of up to 100 inputs, so after a change it is not believed
//! before so many were sent and a round trip is over. Half a second is the longest lead that makes sense.
//!
//! Frames that a raised lead skips get the same input as the next one, since an Inputs has no gaps. Each Inputs repeats the ones before: with
//! eight in each, seven datagrams in a row may be lost, if the lead leaves the copies time to come.
//!
//! # Both sides of one datagram
//!
//! ```
//! use holeshot_wire::{ClientHandshake, HostKeypair, Heard, Header, Path, Route, ToClient, ToHost, accept};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // All random bytes are arguments; these are none.
//! let host = HostKeypair::from_private([1; 32])?;
//! let (client, message_1) = ClientHandshake::start(&host.public(), "the ticket", [2; 32])?;
//! let (host_keys, message_2) = accept(&host, "the ticket", &message_1, [3; 32])?;
//! let (mut client_seals, _client_opens) = client.finish(&message_2)?.into_client(7);
//! let (mut host_seals, mut host_opens) = host_keys.into_host(7);
//! let mut path = Path::udp();
//!
//! // The client sends; one buffer serves all datagrams.
//! let mut datagram = Vec::with_capacity(holeshot_wire::datagram::DATAGRAM_BYTES_MAX);
//! client_seals.seal(&ToHost::Probe, &mut datagram)?;
//!
//! // The host receives: find the session, open, tell the path, and only then act.
//! let from = "192.0.2.1:4000";
//! let bytes = datagram.len();
//! assert_eq!(Header::peek(&datagram)?.session, 7);
//! let opened = host_opens.open(&mut datagram)?;
//! let payload = ToHost::decode(opened.payload)?;
//! let heard = Heard { from, bytes, newest: opened.newest, asks: (&payload).into() };
//! let challenge = path.on_datagram(heard, || [4; 8]).ok_or("a new address is challenged")?;
//! assert_eq!((challenge.to, path.route()), (from, Route::Nowhere));
//! host_seals.seal(&ToClient::Challenge(challenge.bytes), &mut datagram)?;
//! # Ok(()) }
//! ```
//!
//! # Rules for both sides
//!
//! - Unknown fields in messages are ignored. Unknown message types and payload kinds are refused, as are fields
//!   of the wrong type or out of range: over the WebSocket the host answers `bye` (`refused` before `welcome`) with the code
//!   `bad_message` and a reason, which names the field of a text message, and closes. In a datagram that opened they are dropped and counted.
//! - A datagram that does not open is dropped without an answer and without any change of state.
//! - A client sends no binary message longer than a datagram's payload (1,171 bytes). The host's have up to 8,205: a whole snapshot in one part.
//! - Snapshots come as deltas ([`delta`]) only to a client that said in `hello` that it takes them, from a host that said in `welcome` that it sends
//!   them. Peers that know nothing of it leave the fields out and get and send whole ones, so protocol 1 has room for both.
//! - A client without inputs to send sends a `Ping` every second ([`KEEP_ALIVE_MS`]), so that address
//!   translators on the way keep the path open. The session itself lives as long as its WebSocket.
//! - The keys protect datagrams only. Use `wss://` (TLS in front of the host) where the network in between is
//!   not trusted: the ticket and the messages travel over the WebSocket as it is.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod bases;
pub mod cipher;
pub mod datagram;
pub mod delta;
pub mod handshake;
pub mod message;
pub mod path;
pub mod payload;
pub mod sent;
pub mod snapshot;
mod window;

pub use bases::Bases;
pub use cipher::{Cipher, PortableCipher};
pub use datagram::{Header, OpenError, Opened, Opener, SealError, Sealer};
pub use delta::{Delta, write_delta};
pub use handshake::{ClientHandshake, HandshakeError, HandshakeMessage, HostKeypair, SessionKeys, accept};
pub use message::{ByeCode, ClientMessage, HostMessage, MessageError, Phase, PlayerName, RefusalCode, RulesInfo};
pub use path::{Challenge, Heard, Path, Route};
pub use payload::{Inputs, PayloadError, Snapshot, ToClient, ToHost};
pub use sent::{Sent, SentToAll};
pub use snapshot::{Joined, Reassembler, WholeSnapshot, snapshot_parts};

/// The version that this crate speaks: `hello.protocol`, and the number in the handshake's prologue. It grows by
/// one with every change that an older peer could not ignore.
pub const PROTOCOL_VERSION: u32 = 1;

/// A client that has sent no payload for this long sends a `Ping`, in milliseconds. Address translators forget an
/// idle UDP mapping after 30 s or more (RFC 4787, REQ-5, asks for at least 2 minutes, many keep less), so one
/// second leaves room for many losses; it also measures the round trip often enough to show it.
pub const KEEP_ALIVE_MS: u64 = 1_000;
