//! The host's side of deltas: what each session was sent and has acknowledged, and from that whether a snapshot goes to it as a delta. The client's side is
//! [`crate::Reassembler`]. Nothing here knows what is in a snapshot.
//!
//! A snapshot goes as a delta if the session acknowledged one of the 32 frames before, if what was sent for that frame is still here, and if the
//! delta is a sixteenth smaller at least. Whether that can be is not even looked at for small snapshots ([`DELTA_FROM_BYTES`], [`OWN_DELTA_FROM_BYTES`]), nor for a while after a
//! delta did not pay: so what has no deltas (small, compressed, without acknowledgements) costs nothing, and no memory either.

use crate::bases::Bases;
use crate::delta::{DELTA_AGE_FRAMES_MAX, write_delta};
use crate::payload::SNAPSHOT_BYTES_MAX;

/// Snapshots for everybody in a room are tried as deltas from this size on, in bytes. The delta is made once for all who have the same base. A smaller one,
/// sealed and with the headers of IP and UDP, is mostly not its own bytes, and thousands of small rooms are to touch little memory.
pub const DELTA_FROM_BYTES: usize = 128;

/// Snapshots for one player are tried as deltas from this size on, in bytes: making one costs a fifth of what sending does, for each player anew.
pub const OWN_DELTA_FROM_BYTES: usize = 256;

/// Bytes that a session's own snapshots may take: 32 of a kilobyte, or four of the largest. They are those since the newest that it acknowledged, so the
/// round trip decides how many there are.
pub const SENT_BYTES_MAX: usize = 4 * SNAPSHOT_BYTES_MAX;

/// Bytes that the snapshots of a room that are for everybody may take: all 32 of 2 KiB.
pub const SENT_TO_ALL_BYTES_MAX: usize = 8 * SNAPSHOT_BYTES_MAX;

/// A delta has to be smaller than the snapshot by this part of it: less does not pay for making it on one side and undoing it on the other.
const GAIN_ONE_IN: usize = 16;

/// Snapshots for which no delta is tried after the first that did not pay, and after many: twice as many each time, half as many after one that
/// did. So what never pays is tried every five seconds.
const SKIPPED_AFTER_LOSS: (u8, u8) = (15, 255);

/// When a delta is tried.
#[derive(Debug, Default)]
struct Tries {
    /// Snapshots for which none is.
    skip: u8,
    /// As many as after the next loss, but for the last doubling.
    after_loss: u8,
}

impl Tries {
    fn is_skipped(&mut self) -> bool {
        let is_skipped = self.skip > 0;
        self.skip = self.skip.saturating_sub(1);
        is_skipped
    }

    /// Writes a delta, if it pays.
    fn write(&mut self, frame: u32, base_frame: u32, base: &[u8], snapshot: &[u8], out: &mut Vec<u8>) -> bool {
        let age = u8::try_from(frame.saturating_sub(base_frame)).unwrap_or(0);
        let bytes_max = snapshot.len() - snapshot.len() / GAIN_ONE_IN;
        let pays = write_delta(age, base, snapshot, bytes_max, out);
        if pays {
            self.after_loss /= 2;
        } else {
            let (first, last) = SKIPPED_AFTER_LOSS;
            self.skip = self.after_loss.saturating_mul(2).saturating_add(1).clamp(first, last);
            self.after_loss = self.skip;
        }
        pays
    }

    /// Whether one is tried before what is sent now is too old to be its base.
    const fn is_near(&self) -> bool {
        self.skip < DELTA_AGE_FRAMES_MAX
    }

    /// Whether hardly one ever paid.
    const fn is_in_vain(&self) -> bool {
        self.after_loss == SKIPPED_AFTER_LOSS.1
    }
}

/// What a room's snapshots for everybody were. One for each room, however many sessions see them.
#[derive(Debug)]
pub struct SentToAll {
    bases: Bases,
    /// A delta that was made last, for all sessions that have the same base.
    delta: Vec<u8>,
    /// Its frame and that of its base; whether it pays.
    made: Option<(u32, u32, bool)>,
    /// The newest frame for which one was asked for, and whether none is tried for it.
    asked: Option<(u32, bool)>,
    tries: Tries,
}

impl Default for SentToAll {
    fn default() -> Self {
        Self {
            bases: Bases::new(SENT_TO_ALL_BYTES_MAX),
            delta: Vec::new(),
            made: None,
            asked: None,
            tries: Tries::default(),
        }
    }
}

impl SentToAll {
    /// Bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.bases.memory_bytes() + self.delta.capacity()
    }

    /// Whether a delta pays; if so, it is in `self.delta`.
    fn pays(&mut self, frame: u32, base_frame: u32, snapshot: &[u8]) -> bool {
        if let Some((of, from, pays)) = self.made
            && (of, from) == (frame, base_frame)
        {
            return pays;
        }
        let skips = match self.asked {
            Some((of, skips)) if of == frame => skips,
            _ => self.tries.is_skipped(),
        };
        self.asked = Some((frame, skips));
        if skips {
            return false;
        }
        let Some(base) = self.bases.get(base_frame) else { return false };
        let pays = self.tries.write(frame, base_frame, base, snapshot, &mut self.delta);
        self.made = Some((frame, base_frame, pays));
        pays
    }
}

/// What one session was sent and has acknowledged.
///
/// Contract: [`Sent::delta`] is asked for every snapshot that is sent to the session, and what it gives is sent in the snapshot's place;
/// [`Sent::acknowledge`] is told every frame that the session acknowledges. Frames rise.
#[derive(Debug, Default)]
pub struct Sent {
    newest: Option<u32>,
    acknowledged: Option<u32>,
    /// Since this frame, whatever was sent was for everybody.
    for_all_since: Option<u32>,
    /// Its own ones.
    bases: Option<Box<Bases>>,
    tries: Tries,
}

impl Sent {
    /// Takes note that the session has the snapshot of a frame. One that it cannot have is ignored.
    pub fn acknowledge(&mut self, frame: u32) {
        if self.newest.is_some_and(|newest| frame <= newest) && self.acknowledged.is_none_or(|before| frame > before) {
            self.acknowledged = Some(frame);
        }
    }

    /// Bytes of memory that it takes beside itself.
    pub fn memory_bytes(&self) -> usize {
        self.bases.as_ref().map_or(0, |bases| size_of::<Bases>() + bases.memory_bytes())
    }

    /// The delta to send instead of a snapshot, if there is one; in any case the snapshot counts as sent. `to_all` is there if the snapshot is for
    /// everybody in the room; `buffer` is for the delta, if it is not.
    pub fn delta<'a>(
        &mut self,
        frame: u32,
        snapshot: &[u8],
        to_all: Option<&'a mut Option<Box<SentToAll>>>,
        buffer: &'a mut Vec<u8>,
    ) -> Option<&'a [u8]> {
        if self.newest.is_some_and(|newest| frame <= newest) {
            return None;
        }
        self.newest = Some(frame);
        self.for_all_since = to_all.is_some().then_some(self.for_all_since.unwrap_or(frame));
        let from_bytes = if to_all.is_some() { DELTA_FROM_BYTES } else { OWN_DELTA_FROM_BYTES };
        // Who acknowledges nothing has no bases, so nothing is kept for it.
        let acknowledged = self.acknowledged.filter(|_| snapshot.len() >= from_bytes)?;
        let age = frame.saturating_sub(acknowledged);
        if age > 2 * u32::from(DELTA_AGE_FRAMES_MAX) {
            return None;
        }
        let can_be_base = age <= u32::from(DELTA_AGE_FRAMES_MAX);
        match to_all {
            Some(all) => {
                let all = &mut **all.get_or_insert_default();
                let has_base = can_be_base && self.for_all_since.is_some_and(|since| since <= acknowledged);
                let pays = has_base && all.pays(frame, acknowledged, snapshot);
                all.bases.push(frame, snapshot);
                pays.then_some(&all.delta)
            }
            None => {
                let skips = self.tries.is_skipped();
                if !self.tries.is_near() {
                    self.bases.take_if(|_| self.tries.is_in_vain());
                    return None;
                }
                let bases = self.bases.get_or_insert_with(|| Box::new(Bases::new(SENT_BYTES_MAX)));
                bases.forget_before(acknowledged);
                let base = bases.get(acknowledged).filter(|_| can_be_base && !skips);
                let pays = base.is_some_and(|base| self.tries.write(frame, acknowledged, base, snapshot, buffer));
                bases.push(frame, snapshot);
                pays.then_some(buffer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::payload::Encode;
    use crate::{Joined, Reassembler, Snapshot, ToClient, snapshot_parts};

    /// The state of a room in these tests: things that move, come and go, in the view of one player or of all.
    fn state(frame: u32, view: u32, things: u32) -> Vec<u8> {
        let mut bytes = frame.to_le_bytes().to_vec();
        for thing in 0..things {
            let (seed, age) = (thing.wrapping_mul(2_654_435_761) ^ view, frame.wrapping_add(thing * 7));
            if !age.is_multiple_of(23) {
                let at = seed.wrapping_add(frame * (thing % 5));
                bytes.extend([thing as u8, 0, at as u8, (at >> 8) as u8, (seed >> 3) as u8, 100, view as u8, 0]);
            }
        }
        bytes.truncate(SNAPSHOT_BYTES_MAX);
        bytes
    }

    /// A room, one session and its client, with a network between them that is decided by the test.
    struct Session {
        sent: Sent,
        joiner: Reassembler,
        /// Datagrams on their way to the client, and acknowledgements to the host.
        down: Vec<Vec<u8>>,
        up: Vec<u32>,
        has: Option<u32>,
        /// What was sent for each frame.
        truth: BTreeMap<u32, Vec<u8>>,
        got: BTreeSet<u32>,
        deltas: u32,
    }

    impl Session {
        fn new() -> Self {
            Self {
                sent: Sent::default(),
                joiner: Reassembler::with_deltas(),
                down: Vec::new(),
                up: Vec::new(),
                has: None,
                truth: BTreeMap::new(),
                got: BTreeSet::new(),
                deltas: 0,
            }
        }

        fn send(&mut self, frame: u32, state: &[u8], to_all: Option<&mut Option<Box<SentToAll>>>) {
            let mut buffer = Vec::new();
            let delta = self.sent.delta(frame, state, to_all, &mut buffer);
            self.deltas += u32::from(delta.is_some());
            assert!(delta.is_none_or(|delta| delta.len() <= state.len() - state.len() / GAIN_ONE_IN));
            for (part, parts, bytes) in snapshot_parts(delta.unwrap_or(state)).unwrap() {
                let part = Snapshot { frame, part, parts, margin_ms: None, newest_input_frame: None, bytes };
                let payload = if delta.is_some() { ToClient::Delta(part) } else { ToClient::Snapshot(part) };
                let mut out = Vec::new();
                payload.encode(&mut out).unwrap();
                self.down.push(out);
            }
            self.truth.insert(frame, state.to_vec());
        }

        fn hear(&mut self, payload: &[u8]) {
            let joined = match ToClient::decode(payload).unwrap() {
                ToClient::Snapshot(part) => self.joiner.push(&part),
                ToClient::Delta(part) => self.joiner.push_delta(&part),
                other => panic!("{other:?}"),
            };
            match joined {
                Joined::Whole(whole) => {
                    assert_eq!(whole.bytes, self.truth[&whole.frame], "frame {}", whole.frame);
                    assert!(self.has < Some(whole.frame));
                    self.has = Some(whole.frame);
                    self.got.insert(whole.frame);
                }
                Joined::Partial | Joined::Stale => {}
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn who_acknowledges_gets_deltas_and_who_does_not_costs_nothing() {
        let (mut acks, mut silent, mut all) = (Session::new(), Session::new(), None);
        for frame in 0..200 {
            for session in [&mut acks, &mut silent] {
                session.send(frame, &state(frame, 0, 40), Some(&mut all));
                for payload in std::mem::take(&mut session.down) {
                    session.hear(&payload);
                }
            }
            acks.sent.acknowledge(frame);
        }
        assert_eq!((acks.got.len(), silent.got.len()), (200, 200));
        assert!(acks.deltas > 190 && silent.deltas == 0, "{}", acks.deltas);
        assert_eq!(acks.sent.memory_bytes() + silent.sent.memory_bytes(), 0, "what is for all is with the room");
        assert!(all.unwrap().memory_bytes() < 32 << 10);

        let mut own = Session::new();
        for frame in 0..200 {
            own.send(frame, &state(frame, 1, 40), None);
            own.sent.acknowledge(frame.saturating_sub(3));
        }
        assert!(own.deltas > 190 && own.sent.memory_bytes() <= 2_048 + 400, "{}", own.sent.memory_bytes());
        let mut small = Session::new();
        for frame in 0..200 {
            small.send(frame, &state(frame, 1, 8), None);
            small.sent.acknowledge(frame);
        }
        assert_eq!((small.deltas, small.sent.memory_bytes()), (0, 0));
    }

    #[test]
    fn what_is_no_base_is_not_taken_for_one() {
        let (mut session, mut all) = (Session::new(), None);
        // Not sent yet; and for everybody, while its own one was sent.
        session.sent.acknowledge(5);
        session.send(0, &state(0, 0, 40), Some(&mut all));
        session.sent.acknowledge(1);
        session.send(1, &state(1, 0, 40), Some(&mut all));
        assert_eq!(session.deltas, 0);
        session.sent.acknowledge(1);
        session.send(2, &state(2, 1, 40), None);
        session.sent.acknowledge(2);
        let mut other = Session::new();
        other.send(1, &state(1, 0, 40), Some(&mut all));
        other.sent.acknowledge(1);
        other.send(2, &state(2, 0, 40), Some(&mut all));
        session.send(3, &state(3, 0, 40), Some(&mut all));
        assert_eq!(session.deltas, 0);
        session.sent.acknowledge(3);
        session.send(4, &state(4, 0, 40), Some(&mut all));
        assert_eq!(session.deltas, 1);
        // Too long ago, and then not at all any more.
        session.send(36, &state(36, 0, 40), Some(&mut all));
        session.send(100, &state(100, 0, 40), Some(&mut all));
        session.sent.acknowledge(36);
        session.send(101, &state(101, 0, 40), Some(&mut all));
        assert_eq!(session.deltas, 1);
        for payload in std::mem::take(&mut session.down) {
            session.hear(&payload);
        }
        assert_eq!(session.got.len(), 8);
    }

    #[test]
    fn what_never_pays_is_seldom_tried_and_takes_no_memory() {
        let noise = |frame: u32| -> Vec<u8> {
            (0..400u32).map(|at| ((at ^ frame << 9).wrapping_mul(2_654_435_761) >> 11) as u8).collect()
        };
        for is_shared in [true, false] {
            let (mut session, mut all) = (Session::new(), None);
            let (mut tries, mut before) = (0, 0);
            for frame in 0..2_000 {
                session.send(frame, &noise(frame), is_shared.then_some(&mut all));
                session.sent.acknowledge(frame);
                let skip = all.as_ref().map_or(session.sent.tries.skip, |all| all.tries.skip);
                tries += u32::from(skip > before);
                before = skip;
            }
            assert_eq!(session.deltas, 0);
            assert!((8..=12).contains(&tries), "{tries}");
            assert_eq!(session.sent.memory_bytes(), 0);
            // It notices when that changes.
            for frame in 2_000..4_000 {
                session.send(frame, &state(frame, 1, 40), is_shared.then_some(&mut all));
                session.sent.acknowledge(frame);
            }
            assert!(session.deltas > 1_700, "{}", session.deltas);
        }
    }

    proptest! {
        /// Whatever the network loses, doubles, keeps back and mixes up, in both directions: what the client has is what was sent, and no delta comes to a
        /// client that cannot read it.
        #[test]
        fn snapshots_survive_any_network(
            seed: u64,
            things in 0u32..200,
            lost in 0u64..60,
            doubled in 0u64..30,
            waits in 0u64..12,
            mixes_views: bool,
        ) {
            let mut lots = seed;
            // SplitMix64 (Steele, Lea, Flood 2014).
            let mut draw = move |below: u64| {
                lots = lots.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = lots;
                mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                (mixed ^ mixed >> 31) % below.max(1)
            };
            let mut all = None;
            let mut sessions = [Session::new(), Session::new(), Session::new()];
            let mut frame = 0;
            for _ in 0..120 {
                frame += 1 + u32::from(draw(50) == 0) * draw(40) as u32;
                for (view, session) in (0..).zip(&mut sessions) {
                    // The first sees what all see, the second has a view of its own, the third now this, now that.
                    let own = view == 1 || view == 2 && mixes_views && draw(9) == 0;
                    if own {
                        session.send(frame, &state(frame, view, things), None);
                    } else {
                        session.send(frame, &state(frame, 0, things), Some(&mut all));
                    }
                    // Each datagram waits for some frames, so that later ones come first.
                    let mut waiting = Vec::new();
                    let mut down = std::mem::take(&mut session.down);
                    while !down.is_empty() {
                        let payload = down.swap_remove(draw(down.len() as u64) as usize);
                        if draw(100) < lost {
                            continue;
                        }
                        if draw(12) < waits {
                            waiting.push(payload);
                            continue;
                        }
                        session.hear(&payload);
                        if draw(100) < doubled {
                            waiting.push(payload);
                        }
                    }
                    session.down = waiting;
                    session.up.extend(session.has);
                    let mut late = Vec::new();
                    for acknowledged in std::mem::take(&mut session.up) {
                        match draw(100) {
                            fate if fate < lost => {}
                            fate if fate < 80 => session.sent.acknowledge(acknowledged),
                            _ => late.push(acknowledged),
                        }
                    }
                    session.up = late;
                }
            }
            for session in &sessions {
                // On a network that is good, and with enough to tell, most are deltas.
                if lost == 0 && waits == 0 && things > 60 && !mixes_views {
                    prop_assert_eq!(session.got.len(), session.truth.len());
                    prop_assert!(session.deltas > 60, "{}", session.deltas);
                }
                prop_assert!(session.sent.memory_bytes() <= SENT_BYTES_MAX + 2_048);
            }
        }
    }
}
