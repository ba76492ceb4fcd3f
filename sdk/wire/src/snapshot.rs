//! Cutting a snapshot into parts that fit a datagram, joining them again, and making a snapshot of a delta. The layout of a part is in
//! [`crate::payload`], that of a delta in [`crate::delta`].
//!
//! # Specification
//!
//! A snapshot has 0 to 8,192 bytes. Over UDP it is cut every 1,158 bytes: part `p` starts at `p * 1158`, every part but
//! the last is full, and the last has at least one byte; an empty snapshot is one empty part. Over the WebSocket a
//! snapshot is one message, part 0 of 1, whatever its size.
//!
//! The receiver keeps the parts of one frame only, the newest it has heard of. A part of a newer frame drops what is
//! there; a part of an older frame, or of one that was already joined, is dropped, and so is one that does not agree with the first that came of its
//! frame (another number of parts, a Snapshot where that was a Delta). So joined snapshots come out with rising frames, and a lost part costs one snapshot.
//!
//! A delta is cut and joined in the same way, as if it was the snapshot. What it makes is a snapshot like any other, and it too may be a base.
//!
//! ## Bases
//!
//! A client whose `hello` had `deltas` keeps each snapshot that it has whole, until it has one that is 32 frames newer, and acknowledges it (`snapshot_frame`
//! of Inputs, or Ack). The host sends a frame as a delta only to one of the snapshots that this session acknowledged, the newest of them, and only
//! if it is 1 to 32 frames older; it remembers for that what it sent. So whatever is lost, doubled or out of order, in both directions: a delta that arrives
//! has its base, and the snapshots are byte for byte those that the host would have sent whole. What a new session has, after a
//! reconnect, is nothing: the first snapshots are whole.

use crate::bases::{BASES_BYTES_MAX, Bases};
use crate::delta::Delta;
use crate::payload::{PayloadError, SNAPSHOT_BYTES_MAX, SNAPSHOT_PART_BYTES, Snapshot};

/// The parts in which a snapshot travels over UDP: `(part, parts, bytes)` for each.
///
/// Errors: [`PayloadError::Range`] if the snapshot is larger than [`SNAPSHOT_BYTES_MAX`].
pub fn snapshot_parts(snapshot: &[u8]) -> Result<impl Iterator<Item = (u8, u8, &[u8])>, PayloadError> {
    if snapshot.len() > SNAPSHOT_BYTES_MAX {
        return Err(PayloadError::Range {
            field: "bytes of the snapshot",
            got: snapshot.len() as u64,
            min: 0,
            max: SNAPSHOT_BYTES_MAX as u64,
        });
    }
    // At most 8, see SNAPSHOT_PARTS_MAX.
    let parts = snapshot.len().div_ceil(SNAPSHOT_PART_BYTES).max(1) as u8;
    // `chunks` of nothing is no chunk, but an empty snapshot is one empty part.
    let empty: Option<&[u8]> = snapshot.is_empty().then_some(&[]);
    let chunks = snapshot.chunks(SNAPSHOT_PART_BYTES).chain(empty);
    Ok((0..parts).zip(chunks).map(move |(part, bytes)| (part, parts, bytes)))
}

/// A snapshot with all its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WholeSnapshot<'a> {
    /// The frame after which the room was in this state.
    pub frame: u32,
    /// As in [`Snapshot`].
    pub margin_ms: Option<i16>,
    /// As in [`Snapshot`].
    pub newest_input_frame: Option<u32>,
    /// The state, as the rules module wrote it for this player.
    pub bytes: &'a [u8],
}

/// What became of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined<'a> {
    /// It was the last one missing: here is the snapshot.
    Whole(WholeSnapshot<'a>),
    /// It was kept; others are missing.
    Partial,
    /// It was here before, or belongs to a frame that is over. Dropped.
    Stale,
    /// It does not agree with the parts of its frame that are here (another number of parts, another kind). Dropped.
    Contradiction,
    /// It was the last one missing of a delta whose base is not here: this frame has no snapshot. Not an error of the host if this client
    /// acknowledged the base and could not keep it.
    BaseMissing {
        /// The frame of the base; `None` if the delta names one before frame 0.
        base_frame: Option<u32>,
    },
    /// It was the last one missing of what is no delta: this frame has no snapshot.
    NoDelta(PayloadError),
}

/// Joins the parts of snapshots, and makes snapshots from deltas. Its memory is bounded: one snapshot in parts, and with deltas one more, and the snapshots
/// that can be bases ([`BASES_BYTES_MAX`] at most, in practice 32 times their size).
///
/// Contract: give it every part of a snapshot or delta that opened, in the order of arrival. The frames of the snapshots that it gives rise strictly, and
/// these are the frames to acknowledge. After a new `welcome`, start with a new one.
#[derive(Debug)]
pub struct Reassembler {
    buffer: Vec<u8>,
    /// The newest frame heard of; `None` before the first part.
    frame: Option<u32>,
    parts: u8,
    is_delta: bool,
    /// Bit `p` is set if part `p` is in the buffer. All of `parts` set: the frame was given out.
    have: u8,
    last_part_bytes: usize,
    /// The snapshots that were given out, if deltas may come.
    bases: Option<Bases>,
    /// The snapshot made from a delta.
    made: Vec<u8>,
}

impl Default for Reassembler {
    fn default() -> Self {
        Self::new()
    }
}

impl Reassembler {
    /// One that has heard of nothing and makes nothing of deltas: for a client whose `hello` says nothing of them.
    pub fn new() -> Self {
        Self {
            buffer: vec![0; SNAPSHOT_BYTES_MAX],
            frame: None,
            parts: 0,
            is_delta: false,
            have: 0,
            last_part_bytes: 0,
            bases: None,
            made: Vec::new(),
        }
    }

    /// One that has heard of nothing, for a client whose `hello` had `deltas`.
    pub fn with_deltas() -> Self {
        Self { bases: Some(Bases::new(BASES_BYTES_MAX)), ..Self::new() }
    }

    /// Takes one part of a snapshot. `part` must come from [`crate::ToClient::decode`], which checks its sizes; a part with sizes that do not fit is a
    /// [`Joined::Contradiction`].
    pub fn push(&mut self, part: &Snapshot<'_>) -> Joined<'_> {
        match self.join(part, false) {
            Ok(bytes) => {
                let bytes = self.buffer.get(..bytes).unwrap_or_default();
                if let Some(bases) = &mut self.bases {
                    bases.push(part.frame, bytes);
                }
                Joined::Whole(whole(part, bytes))
            }
            Err(not_whole) => not_whole,
        }
    }

    /// Takes one part of a delta; as [`Reassembler::push`].
    pub fn push_delta(&mut self, part: &Snapshot<'_>) -> Joined<'_> {
        let bytes = match self.join(part, true) {
            Ok(bytes) => bytes,
            Err(not_whole) => return not_whole,
        };
        let delta = match Delta::read(self.buffer.get(..bytes).unwrap_or_default()) {
            Ok(delta) => delta,
            Err(error) => return Joined::NoDelta(error),
        };
        let base_frame = part.frame.checked_sub(u32::from(delta.age()));
        let Some(bases) = &mut self.bases else { return Joined::BaseMissing { base_frame } };
        let Some(base) = base_frame.and_then(|frame| bases.get(frame)) else {
            return Joined::BaseMissing { base_frame };
        };
        if let Err(error) = delta.apply(base, &mut self.made) {
            return Joined::NoDelta(error);
        }
        bases.push(part.frame, &self.made);
        Joined::Whole(whole(part, &self.made))
    }

    /// Puts a part into the buffer. Gives the size of all parts together if it was the last one missing.
    fn join(&mut self, part: &Snapshot<'_>, is_delta: bool) -> Result<usize, Joined<'static>> {
        if self.frame.is_some_and(|frame| part.frame < frame) {
            return Err(Joined::Stale);
        }
        let Some(bit) = 1u8.checked_shl(u32::from(part.part)) else {
            return Err(Joined::Contradiction);
        };
        let start = usize::from(part.part) * SNAPSHOT_PART_BYTES;
        let end = start + part.bytes.len();
        if part.part >= part.parts || end > SNAPSHOT_BYTES_MAX {
            return Err(Joined::Contradiction);
        }
        if self.frame != Some(part.frame) {
            self.frame = Some(part.frame);
            self.parts = part.parts;
            self.is_delta = is_delta;
            self.have = 0;
        } else if (self.parts, self.is_delta) != (part.parts, is_delta) {
            return Err(Joined::Contradiction);
        }
        if self.have & bit != 0 {
            return Err(Joined::Stale);
        }
        let Some(place) = self.buffer.get_mut(start..end) else {
            return Err(Joined::Contradiction);
        };
        place.copy_from_slice(part.bytes);
        self.have |= bit;
        if part.part + 1 == part.parts {
            self.last_part_bytes = part.bytes.len();
        }
        if self.have.count_ones() < u32::from(self.parts) {
            return Err(Joined::Partial);
        }
        Ok(usize::from(self.parts - 1) * SNAPSHOT_PART_BYTES + self.last_part_bytes)
    }
}

fn whole<'a>(part: &Snapshot<'_>, bytes: &'a [u8]) -> WholeSnapshot<'a> {
    WholeSnapshot { frame: part.frame, margin_ms: part.margin_ms, newest_input_frame: part.newest_input_frame, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::SNAPSHOT_PARTS_MAX;
    use proptest::prelude::*;

    fn snapshot(frame: u32, part: u8, parts: u8, bytes: &[u8]) -> Snapshot<'_> {
        Snapshot { frame, part, parts, margin_ms: Some(3), newest_input_frame: Some(9), bytes }
    }

    /// The state that a room has at `frame` in these tests.
    fn state(frame: u32, bytes: usize) -> Vec<u8> {
        (0..bytes).map(|index| (index as u32 ^ frame.wrapping_mul(31)) as u8).collect()
    }

    #[test]
    fn an_empty_snapshot_is_one_empty_part() {
        let parts: Vec<_> = snapshot_parts(&[]).unwrap().collect();
        assert_eq!(parts, [(0, 1, &[][..])]);
        let mut joiner = Reassembler::new();
        let Joined::Whole(whole) = joiner.push(&snapshot(4, 0, 1, &[])) else { panic!() };
        assert_eq!((whole.frame, whole.bytes), (4, &[][..]));
    }

    #[test]
    fn sizes_around_the_edges_are_cut_as_specified() {
        for (bytes, parts) in [(1, 1), (1_158, 1), (1_159, 2), (2_316, 2), (2_317, 3), (8_192, 8)] {
            let state = state(1, bytes);
            let cut: Vec<_> = snapshot_parts(&state).unwrap().collect();
            assert_eq!(cut.len(), parts, "{bytes}");
            assert!(cut.len() <= SNAPSHOT_PARTS_MAX);
            let joined: Vec<u8> = cut.iter().flat_map(|(_, _, part)| part.to_vec()).collect();
            assert_eq!(joined, state);
        }
        assert!(snapshot_parts(&[0; SNAPSHOT_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn a_whole_snapshot_in_one_part_is_taken() {
        let state = state(1, SNAPSHOT_BYTES_MAX);
        let mut joiner = Reassembler::new();
        let Joined::Whole(whole) = joiner.push(&snapshot(1, 0, 1, &state)) else { panic!() };
        assert_eq!(whole.bytes, state);
    }

    #[test]
    fn older_frames_and_repeated_parts_are_stale() {
        let mut joiner = Reassembler::new();
        assert!(matches!(joiner.push(&snapshot(5, 0, 1, b"five")), Joined::Whole(_)));
        assert_eq!(joiner.push(&snapshot(5, 0, 1, b"five")), Joined::Stale);
        assert_eq!(joiner.push(&snapshot(4, 0, 1, b"four")), Joined::Stale);
        let full = [0; SNAPSHOT_PART_BYTES];
        assert_eq!(joiner.push(&snapshot(6, 0, 2, &full)), Joined::Partial);
        assert_eq!(joiner.push(&snapshot(6, 0, 2, &full)), Joined::Stale);
        assert_eq!(joiner.push(&snapshot(6, 2, 3, b"x")), Joined::Contradiction);
        assert!(matches!(joiner.push(&snapshot(7, 0, 1, b"seven")), Joined::Whole(_)));
        assert_eq!(joiner.push(&snapshot(6, 1, 2, b"late")), Joined::Stale);
    }

    #[test]
    fn parts_that_were_never_decoded_do_no_harm() {
        let mut joiner = Reassembler::new();
        let huge = vec![0; 9_000];
        for (part, parts, bytes) in
            [(255, 255, &huge[..1]), (8, 9, &[]), (0, 0, &[]), (0, 1, &huge), (7, 8, &huge[..1_158])]
        {
            assert_eq!(joiner.push(&snapshot(1, part, parts, bytes)), Joined::Contradiction);
        }
    }

    proptest! {
        /// Parts of several frames arrive mixed, doubled and with losses: what comes out is right, rising, and complete
        /// where nothing of the newest frame was lost.
        #[test]
        fn joining_under_loss_and_reordering(
            sizes in proptest::collection::vec(0usize..=SNAPSHOT_BYTES_MAX, 1..5),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 1..80),
        ) {
            let states: Vec<_> =
                sizes.iter().enumerate().map(|(frame, &size)| state(frame as u32, size)).collect();
            let mut all = Vec::new();
            for (frame, state) in states.iter().enumerate() {
                for (part, parts, bytes) in snapshot_parts(state).unwrap() {
                    all.push(snapshot(frame as u32, part, parts, bytes));
                }
            }
            let mut joiner = Reassembler::new();
            let mut last = None;
            for pick in order {
                if let Joined::Whole(whole) = joiner.push(pick.get(&all)) {
                    prop_assert_eq!(whole.bytes, &states[whole.frame as usize][..]);
                    prop_assert!(last < Some(whole.frame));
                    last = Some(whole.frame);
                }
            }
            let newest = states.len() as u32 - 1;
            for part in all.iter().filter(|part| part.frame == newest) {
                if let Joined::Whole(whole) = joiner.push(part) {
                    last = Some(whole.frame);
                }
            }
            prop_assert_eq!(last, Some(newest));
        }
    }
}
