//! Where the host sends a session's payloads: to which address, or over the WebSocket. This is the host's side of
//! path validation; it owns no socket and does not know what an address is.
//!
//! # Specification
//!
//! - The address of a session moves only on the newest valid datagram: one that opened, and whose sequence is the
//!   highest so far. So a replayed or delayed datagram cannot pull a session back to an old address.
//! - A new address is not used before it answered: the host sends it a `Challenge` with 8 random bytes, and takes the
//!   address when a `Response` with the same 8 bytes opens that came from it. Until then payloads go where they
//!   went before. If the newest valid datagram comes from the address in use again, or from a third one, the
//!   candidate is forgotten.
//! - An address that has not answered is sent no more bytes than came from it in valid datagrams. A challenge is as
//!   small as the smallest datagram of a client, so each datagram pays for one.
//! - Every newest datagram from a candidate is answered with its challenge again, until it is answered; so is every
//!   newest `Probe` from the address in use. A client probes the address in use to learn whether UDP works again.
//! - The session uses the WebSocket after a binary message from the client, and UDP after a `Response` that fits.

use crate::payload::{CHALLENGE_BYTES, CHALLENGE_DATAGRAM_BYTES, ToHost};

/// A valid datagram, as far as the path cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard<A> {
    /// Where it came from.
    pub from: A,
    /// Its size on the wire, header and tag included, in bytes.
    pub bytes: usize,
    /// Whether it is the newest so far: [`crate::Opened::newest`].
    pub newest: bool,
    /// What it asks of the path.
    pub asks: Asks,
}

/// What a payload asks of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// Nothing: inputs and pings.
    Nothing,
    /// A challenge.
    Challenge,
    /// To be confirmed, with the bytes of a challenge.
    Confirmation([u8; CHALLENGE_BYTES]),
}

impl From<&ToHost<'_>> for Asks {
    fn from(payload: &ToHost<'_>) -> Self {
        match payload {
            ToHost::Inputs(_) | ToHost::Ping(_) => Self::Nothing,
            ToHost::Probe => Self::Challenge,
            ToHost::Response(bytes) => Self::Confirmation(*bytes),
        }
    }
}

/// A challenge to be sealed and sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge<A> {
    /// The address to send it to.
    pub to: A,
    /// The bytes of `ToClient::Challenge`.
    pub bytes: [u8; CHALLENGE_BYTES],
}

/// Where a payload goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<A> {
    /// Sealed, to this address.
    Udp(A),
    /// As a binary message.
    WebSocket,
    /// Nowhere yet: the session asked for UDP and has not answered a challenge.
    Nowhere,
}

/// The path of one session, on the host's side.
///
/// Contract: call [`Path::on_datagram`] for every datagram of the session that opened, and for no other, before its
/// payload is acted on, and send the challenge that it gives (sealed, that is
/// [`CHALLENGE_DATAGRAM_BYTES`]). Call [`Path::on_binary_message`] for every binary message that decoded. Ask
/// [`Path::route`] for every payload to send. It holds at most one address in use and one candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path<A> {
    websocket: bool,
    in_use: Option<A>,
    /// The challenge that the address in use asked for with a probe.
    recheck: Option<[u8; CHALLENGE_BYTES]>,
    candidate: Option<Candidate<A>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate<A> {
    address: A,
    challenge: [u8; CHALLENGE_BYTES],
    /// Bytes that came from it, less bytes sent to it.
    budget_bytes: usize,
}

impl<A: Copy + Eq> Path<A> {
    /// The path of a session with keys: nowhere until a challenge is answered.
    pub fn udp() -> Self {
        Self {
            websocket: false,
            in_use: None,
            recheck: None,
            candidate: None,
        }
    }

    /// The path of a session without keys: the WebSocket, for good.
    pub fn websocket() -> Self {
        Self {
            websocket: true,
            ..Self::udp()
        }
    }

    /// Takes note of a valid datagram. `random` must give 8 fresh random bytes; it is called only for a new challenge.
    pub fn on_datagram(
        &mut self,
        heard: Heard<A>,
        random: impl FnOnce() -> [u8; CHALLENGE_BYTES],
    ) -> Option<Challenge<A>> {
        if self.in_use == Some(heard.from) {
            self.on_address_in_use(heard, random)
        } else {
            self.on_other_address(heard, random)
        }
    }

    fn on_address_in_use(
        &mut self,
        heard: Heard<A>,
        random: impl FnOnce() -> [u8; CHALLENGE_BYTES],
    ) -> Option<Challenge<A>> {
        if heard.newest {
            self.candidate = None;
        }
        match heard.asks {
            Asks::Nothing => None,
            Asks::Challenge if heard.newest => {
                let bytes = *self.recheck.get_or_insert_with(random);
                Some(Challenge {
                    to: heard.from,
                    bytes,
                })
            }
            Asks::Challenge => None,
            Asks::Confirmation(bytes) => {
                if self.recheck == Some(bytes) {
                    self.recheck = None;
                    self.websocket = false;
                }
                None
            }
        }
    }

    fn on_other_address(
        &mut self,
        heard: Heard<A>,
        random: impl FnOnce() -> [u8; CHALLENGE_BYTES],
    ) -> Option<Challenge<A>> {
        match &mut self.candidate {
            Some(candidate) if candidate.address == heard.from => {
                candidate.budget_bytes = candidate.budget_bytes.saturating_add(heard.bytes);
                if heard.asks == Asks::Confirmation(candidate.challenge) {
                    self.in_use = Some(heard.from);
                    self.candidate = None;
                    self.recheck = None;
                    self.websocket = false;
                    return None;
                }
            }
            _ if heard.newest => {
                self.candidate = Some(Candidate {
                    address: heard.from,
                    challenge: random(),
                    budget_bytes: heard.bytes,
                });
            }
            _ => return None,
        }
        let candidate = self.candidate.as_mut()?;
        if !heard.newest {
            return None;
        }
        candidate.budget_bytes = candidate
            .budget_bytes
            .checked_sub(CHALLENGE_DATAGRAM_BYTES)?;
        Some(Challenge {
            to: candidate.address,
            bytes: candidate.challenge,
        })
    }

    /// Takes note of a binary message from the client: payloads go over the WebSocket from now on.
    pub fn on_binary_message(&mut self) {
        self.websocket = true;
    }

    /// Where to send a payload now.
    pub fn route(&self) -> Route<A> {
        match self.in_use {
            _ if self.websocket => Route::WebSocket,
            Some(address) => Route::Udp(address),
            None => Route::Nowhere,
        }
    }
}
