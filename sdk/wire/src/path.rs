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
    /// Nothing: inputs, pings and acknowledgements.
    Nothing,
    /// A challenge.
    Challenge,
    /// To be confirmed, with the bytes of a challenge.
    Confirmation([u8; CHALLENGE_BYTES]),
}

impl From<&ToHost<'_>> for Asks {
    fn from(payload: &ToHost<'_>) -> Self {
        match payload {
            ToHost::Inputs(_) | ToHost::Ping(_) | ToHost::Ack(_) => Self::Nothing,
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
        Self { websocket: false, in_use: None, recheck: None, candidate: None }
    }

    /// The path of a session without keys: the WebSocket, for good.
    pub fn websocket() -> Self {
        Self { websocket: true, ..Self::udp() }
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
                Some(Challenge { to: heard.from, bytes })
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
                self.candidate =
                    Some(Candidate { address: heard.from, challenge: random(), budget_bytes: heard.bytes });
            }
            _ => return None,
        }
        let candidate = self.candidate.as_mut()?;
        if !heard.newest {
            return None;
        }
        candidate.budget_bytes = candidate.budget_bytes.checked_sub(CHALLENGE_DATAGRAM_BYTES)?;
        Some(Challenge { to: candidate.address, bytes: candidate.challenge })
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn heard(from: u8, newest: bool, asks: Asks) -> Heard<u8> {
        Heard { from, bytes: CHALLENGE_DATAGRAM_BYTES, newest, asks }
    }

    fn fixed(bytes: u8) -> impl FnOnce() -> [u8; 8] {
        move || [bytes; 8]
    }

    fn never() -> [u8; 8] {
        panic!("no new challenge is due")
    }

    /// A path whose address 1 has answered.
    fn at_address_1() -> Path<u8> {
        let mut path = Path::udp();
        let challenge = path.on_datagram(heard(1, true, Asks::Challenge), fixed(11));
        assert_eq!(challenge, Some(Challenge { to: 1, bytes: [11; 8] }));
        assert_eq!(path.route(), Route::Nowhere);
        path.on_datagram(heard(1, true, Asks::Confirmation([11; 8])), never);
        assert_eq!(path.route(), Route::Udp(1));
        path
    }

    #[test]
    fn an_address_is_used_after_it_answered() {
        let mut path = at_address_1();
        assert_eq!(path.on_datagram(heard(1, true, Asks::Nothing), never), None);
        assert_eq!(path.route(), Route::Udp(1));
    }

    #[test]
    fn a_new_address_waits_while_the_old_one_is_served() {
        let mut path = at_address_1();
        let challenge = path.on_datagram(heard(2, true, Asks::Nothing), fixed(22)).unwrap();
        assert_eq!((challenge.to, path.route()), (2, Route::Udp(1)));
        // The challenge comes again with the next datagram, and is the same.
        assert_eq!(path.on_datagram(heard(2, true, Asks::Nothing), never), Some(challenge));
        // The answer from elsewhere, or another answer, does not move it.
        path.on_datagram(heard(1, false, Asks::Confirmation([22; 8])), never);
        path.on_datagram(heard(2, true, Asks::Confirmation([23; 8])), never);
        assert_eq!(path.route(), Route::Udp(1));
        path.on_datagram(heard(2, false, Asks::Confirmation([22; 8])), never);
        assert_eq!(path.route(), Route::Udp(2));
    }

    #[test]
    fn only_the_newest_datagram_proposes_an_address() {
        let mut path = at_address_1();
        assert_eq!(path.on_datagram(heard(2, false, Asks::Challenge), never), None);
        // A candidate is over when the address in use is heard again.
        path.on_datagram(heard(2, true, Asks::Nothing), fixed(22));
        path.on_datagram(heard(1, true, Asks::Nothing), never);
        path.on_datagram(heard(2, false, Asks::Confirmation([22; 8])), never);
        assert_eq!(path.route(), Route::Udp(1));
    }

    #[test]
    fn a_session_moves_to_the_websocket_and_back() {
        let mut path = at_address_1();
        path.on_binary_message();
        assert_eq!(path.route(), Route::WebSocket);
        // Inputs that were still under way do not switch it back, nor does an old answer.
        path.on_datagram(heard(1, true, Asks::Nothing), never);
        path.on_datagram(heard(1, true, Asks::Confirmation([11; 8])), never);
        assert_eq!(path.route(), Route::WebSocket);
        let challenge = path.on_datagram(heard(1, true, Asks::Challenge), fixed(33)).unwrap();
        path.on_datagram(heard(1, true, Asks::Confirmation(challenge.bytes)), never);
        assert_eq!(path.route(), Route::Udp(1));
    }

    #[test]
    fn a_session_without_keys_has_the_websocket() {
        assert_eq!(Path::<u8>::websocket().route(), Route::WebSocket);
        assert_eq!(Path::<u8>::udp().route(), Route::Nowhere);
        let mut path = Path::<u8>::udp();
        path.on_binary_message();
        assert_eq!(path.route(), Route::WebSocket);
    }

    /// What a datagram of the property test asks; challenges cannot be guessed, so only ones that were sent are repeated.
    #[derive(Debug, Clone)]
    enum Ask {
        Nothing,
        Challenge,
        Guess,
        /// The answer to one of the challenges sent so far, to whichever address.
        Repeat(prop::sample::Index),
    }

    fn ask() -> impl Strategy<Value = Ask> {
        prop_oneof![
            Just(Ask::Nothing),
            Just(Ask::Challenge),
            Just(Ask::Guess),
            any::<prop::sample::Index>().prop_map(Ask::Repeat),
        ]
    }

    proptest! {
        /// Whatever comes: an address that never answered is sent no more than it sent, and only an address that
        /// answered its own challenge is used.
        #[test]
        fn never_more_to_an_address_than_came_from_it(
            datagrams in proptest::collection::vec((0u8..4, 20usize..200, any::<bool>(), ask()), 1..200),
        ) {
            let mut path = Path::udp();
            let mut next = 0u64;
            let mut sent_bytes: BTreeMap<u8, usize> = BTreeMap::new();
            let mut came_bytes: BTreeMap<u8, usize> = BTreeMap::new();
            let mut challenges: Vec<Challenge<u8>> = Vec::new();
            for (from, bytes, newest, ask) in datagrams {
                *came_bytes.entry(from).or_default() += bytes;
                let before = path.route();
                let asks = match ask {
                    Ask::Nothing => Asks::Nothing,
                    Ask::Challenge => Asks::Challenge,
                    Ask::Guess => Asks::Confirmation([0; 8]),
                    Ask::Repeat(_) if challenges.is_empty() => Asks::Nothing,
                    Ask::Repeat(pick) => Asks::Confirmation(pick.get(&challenges).bytes),
                };
                let challenge = path.on_datagram(Heard { from, bytes, newest, asks }, || {
                    next += 1;
                    next.to_le_bytes()
                });
                if path.route() != before {
                    prop_assert_eq!(path.route(), Route::Udp(from));
                    let answered = |c: &Challenge<u8>| c.to == from && asks == Asks::Confirmation(c.bytes);
                    prop_assert!(challenges.iter().any(answered), "moved without an answer");
                }
                if let Some(challenge) = challenge {
                    prop_assert!(newest);
                    prop_assert_eq!(challenge.to, from);
                    challenges.push(challenge);
                    if before != Route::Udp(from) {
                        *sent_bytes.entry(from).or_default() += CHALLENGE_DATAGRAM_BYTES;
                    }
                }
                for (address, sent) in &sent_bytes {
                    prop_assert!(*sent <= came_bytes[address], "{} bytes to {}", sent, address);
                }
            }
        }
    }
}
