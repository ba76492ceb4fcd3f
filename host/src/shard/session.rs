//! Sessions of a shard: where a player's messages and payloads go, and the keys that its datagrams are opened and sealed with.

use std::collections::VecDeque;
use std::net::SocketAddr;

use holeshot_room::ask_for;
use holeshot_seal::RingCipher;
use holeshot_wire::path::Asks;
use holeshot_wire::payload::Encode;
use holeshot_wire::{ByeCode, Heard, HostMessage, Opener, Path, Route, Sealer, Sent, SessionKeys, ToClient, ToHost};
use tokio_tungstenite::tungstenite::{Bytes, Utf8Bytes};

use super::meter::Operation;
use super::outbound::{Outbound, OutboundSender};
use super::outgoing::Outgoing;
use super::{ShardCounters, count};
use crate::doors::gate::Allowance;
use crate::prefetch;

/// Names a session: 8 bits of shard, 16 of place, 8 of generation, so that a datagram finds its session without a search and a place that is
/// used again has another name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionId(u32);

impl SessionId {
    const fn new(shard: u8, place: u16, generation: u8) -> Self {
        Self((shard as u32) | (place as u32) << 8 | (generation as u32) << 24)
    }

    /// From the number in a datagram or message.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The number for datagrams and messages.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The shard that owns the session.
    #[must_use]
    pub const fn shard(self) -> usize {
        (self.0 & 0xff) as usize
    }

    /// Its place in the shard; neighbours in a room have neighbouring ones, mostly.
    pub(super) const fn place(self) -> usize {
        (self.0 >> 8 & 0xffff) as usize
    }

    const fn generation(self) -> u8 {
        (self.0 >> 24) as u8
    }
}

/// Sessions that one shard holds: what 16 bits can name.
pub const SESSIONS_MAX: usize = 1 << 16;
/// Free places that are left alone as long as there are others. A WebSocket may speak for up to 20 s after its session was
/// replaced; a name must not come again within that time, or it would speak for another player. It comes again after
/// 255 times as many sessions.
const FREE_PLACES_KEPT: usize = 1_024;

/// One player's or spectator's authenticated presence.
pub(super) struct Session {
    pub(super) room: usize,
    /// The slot that it plays in; none for a spectator.
    pub(super) player: Option<u16>,
    pub(super) path: Path<SocketAddr>,
    /// Something came from it: its client has its welcome, and the ticket is used up.
    pub(super) is_confirmed: bool,
    /// What it was sent and has; none if its client takes no deltas.
    pub(super) sent: Option<Sent>,
    keys: Option<(Sealer<RingCipher>, Opener<RingCipher>)>,
    outbound: OutboundSender,
    /// What it says in datagrams.
    said: Allowance,
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        room: usize,
        player: Option<u16>,
        keys: Option<SessionKeys>,
        deltas: bool,
        outbound: OutboundSender,
    ) -> Self {
        let keys = keys.map(|keys| keys.into_host_with(id.bits()));
        let path = if keys.is_some() { Path::udp() } else { Path::websocket() };
        let sent = deltas.then(Sent::default);
        Self { room, player, path, is_confirmed: false, sent, keys, outbound, said: Default::default() }
    }

    /// Takes note of the newest snapshot that its client has.
    pub(super) fn acknowledged(&mut self, frame: u32) {
        if let Some(sent) = &mut self.sent {
            sent.acknowledge(frame);
        }
    }

    /// Whether the client asked for datagrams.
    pub(super) const fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// Opens a datagram: whether it is the newest, and its payload.
    pub(super) fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Option<(bool, &'a [u8])> {
        let (_, opener) = self.keys.as_mut()?;
        let opened = opener.open(datagram).ok()?;
        self.is_confirmed = true;
        Some((opened.newest, opened.payload))
    }

    /// Whether a datagram that opened is one too many. Who cannot seal one spends nothing of this.
    pub(super) fn is_too_much(&mut self, bytes: usize, now_us: u64) -> bool {
        let limits = self.outbound.limits();
        let taken = self.said.take(&limits.said, bytes, now_us);
        taken.inspect_err(|over| limits.refused.count(over.limit)).is_err()
    }

    /// Takes note of a datagram that opened, and challenges a new address.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn heard(
        &mut self,
        from: SocketAddr,
        bytes: usize,
        newest: bool,
        payload: &ToHost<'_>,
        outgoing: &mut Outgoing,
        counters: &ShardCounters,
    ) {
        let heard = Heard { from, bytes, newest, asks: Asks::from(payload) };
        // Without random bytes the challenge could be guessed; a challenge of a failed source is never confirmed, because zeros are not sent.
        let mut random = [0u8; 8];
        let mut failed = false;
        let challenge = self.path.on_datagram(heard, || {
            failed = getrandom::fill(&mut random).is_err();
            random
        });
        if let Some(challenge) = challenge.filter(|_| !failed)
            && let Some((sealer, _)) = &mut self.keys
        {
            let payload = ToClient::Challenge(challenge.bytes);
            outgoing.put(challenge.to, counters, |datagram| sealer.seal(&payload, datagram).is_ok());
        }
    }

    pub(super) fn pong(&mut self, value: u64, outgoing: &mut Outgoing, counters: &ShardCounters) {
        self.send_payload(&ToClient::Pong(value), outgoing, counters);
    }

    /// Where payloads go now.
    pub(super) fn route(&self) -> Route<SocketAddr> {
        self.path.route()
    }

    /// Sends a payload the way the client last asked for, a datagram with the next that [leave](Outgoing::send). It may be lost.
    pub(super) fn send_payload(&mut self, payload: &impl Encode, outgoing: &mut Outgoing, counters: &ShardCounters) {
        match self.path.route() {
            Route::Nowhere => {}
            Route::Udp(to) => {
                let Some((sealer, _)) = &mut self.keys else { return };
                let begun = counters.meter.begin();
                outgoing.put(to, counters, |datagram| {
                    let sealed = sealer.seal(payload, datagram).is_ok();
                    counters.meter.end(Operation::Seal, begun);
                    sealed
                });
            }
            Route::WebSocket => {
                let Some(buffer) = outgoing.buffer() else { return };
                buffer.clear();
                if payload.encode(buffer).is_ok() {
                    let sent = self.outbound.payload(Bytes::copy_from_slice(buffer));
                    count(&counters.messages_unsent, u64::from(!sent));
                }
            }
        }
    }

    fn send_text(&self, text: Utf8Bytes) -> bool {
        self.outbound.message(Outbound::Text(text))
    }

    /// Says goodbye and closes the WebSocket. A queue that is full closes all the same, when the sender goes.
    pub(super) fn bye(&self, code: ByeCode, reason: &str) {
        if let Ok(text) = (HostMessage::Bye { code, reason: reason.into() }).encode() {
            let _full = self.send_text(text.into());
        }
        let _full = self.outbound.message(Outbound::Close);
    }
}

/// The sessions of one shard, found by their ids.
pub(super) struct Sessions {
    shard: u8,
    places: Vec<(u8, Option<Session>)>,
    /// Places to use again, the one that is free for longest first.
    free: VecDeque<u16>,
    /// For deltas, one after the other.
    delta_buffer: Vec<u8>,
}

impl Sessions {
    pub(super) const fn new(shard: u8) -> Self {
        Self { shard, places: Vec::new(), free: VecDeque::new(), delta_buffer: Vec::new() }
    }

    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.places.len().saturating_sub(self.free.len())
    }

    /// Whether there is no place for another session.
    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty() && self.places.len() >= SESSIONS_MAX
    }

    /// Adds a session. None if the shard has no place left.
    pub(super) fn insert(&mut self, make: impl FnOnce(SessionId) -> Session) -> Option<SessionId> {
        let place = if self.free.len() < FREE_PLACES_KEPT && self.places.len() < SESSIONS_MAX {
            let place = u16::try_from(self.places.len()).ok()?;
            self.places.push((0, None));
            place
        } else {
            self.free.pop_front()?
        };
        let (generation, session) = self.places.get_mut(usize::from(place))?;
        let id = SessionId::new(self.shard, place, *generation);
        *session = Some(make(id));
        Some(id)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.with_buffer(id).map(|(session, _)| session)
    }

    /// Asks for the memory of a session.
    pub(super) fn warm(&self, id: SessionId) {
        if let Some(place) = self.places.get(id.place()) {
            ask_for(place, prefetch::ask);
        }
    }

    /// A session, and a buffer for a delta to it.
    pub(super) fn with_buffer(&mut self, id: SessionId) -> Option<(&mut Session, &mut Vec<u8>)> {
        let (generation, session) = self.places.get_mut(id.place())?;
        let session = if *generation == id.generation() { session.as_mut() } else { None };
        Some((session?, &mut self.delta_buffer))
    }

    pub(super) fn remove(&mut self, id: SessionId) -> Option<Session> {
        let (generation, session) = self.places.get_mut(id.place())?;
        if *generation != id.generation() {
            return None;
        }
        let session = session.take()?;
        *generation = generation.wrapping_add(1);
        self.free.extend(u16::try_from(id.place()));
        Some(session)
    }

    /// Removes a session with a goodbye.
    pub(super) fn end(&mut self, id: SessionId, code: ByeCode, reason: &str) {
        if let Some(session) = self.remove(id) {
            session.bye(code, reason);
        }
    }

    /// Sends a message that must not be lost. False if the session is gone or cannot take it: it is then to be dropped.
    pub(super) fn send_text(&mut self, id: SessionId, text: Utf8Bytes, counters: &ShardCounters) -> bool {
        let Some(session) = self.get_mut(id) else { return false };
        let sent = session.send_text(text);
        count(&counters.messages_unsent, u64::from(!sent));
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::super::outbound::{outbound, tests::limits};
    use super::*;

    #[test]
    fn a_name_does_not_come_again_soon() {
        let mut sessions = Sessions::new(3);
        let session = |id| Session::new(id, 0, Some(0), None, false, outbound(limits(1_000)).0);
        let first = sessions.insert(session).unwrap();
        assert_eq!((first.shard(), first.place()), (3, 0));
        assert!(sessions.get_mut(first).is_some());
        assert!(sessions.remove(first).is_some());
        // One player that comes and goes.
        for _ in 0..255 * FREE_PLACES_KEPT {
            let id = sessions.insert(session).unwrap();
            assert_ne!(id, first);
            assert!(sessions.get_mut(first).is_none() && sessions.remove(first).is_none());
            assert_eq!(sessions.len(), 1);
            assert!(sessions.remove(id).is_some());
        }
        assert_eq!(sessions.len(), 0);
        assert!(sessions.places.len() <= FREE_PLACES_KEPT + 1);
        assert!(sessions.get_mut(SessionId::from_bits(u32::MAX)).is_none());
    }

    #[test]
    fn a_shard_holds_as_many_sessions_as_it_can_name() {
        let mut sessions = Sessions::new(0);
        for _ in 0..SESSIONS_MAX {
            assert!(
                sessions.insert(|id| Session::new(id, 0, Some(0), None, false, outbound(limits(1_000)).0)).is_some()
            );
        }
        assert!(sessions.is_full());
        assert!(sessions.insert(|id| Session::new(id, 0, Some(0), None, false, outbound(limits(1_000)).0)).is_none());
    }
}
