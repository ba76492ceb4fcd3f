//! Cutting a snapshot into parts that fit a datagram, and joining them again. The layout of a part is in
//! [`crate::payload`].
//!
//! # Specification
//!
//! A snapshot has 0 to 8,192 bytes. Over UDP it is cut every 1,158 bytes: part `p` starts at `p * 1158`, every part but
//! the last is full, and the last has at least one byte; an empty snapshot is one empty part. Over the WebSocket a
//! snapshot is one message, part 0 of 1, whatever its size.
//!
//! The receiver keeps the parts of one frame only, the newest it has heard of. A part of a newer frame drops what is
//! there; a part of an older frame, or of one that was already joined, is dropped. So joined snapshots come out
//! with rising frames, and a lost part costs one snapshot.

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined<'a> {
    /// It was the last one missing: here is the snapshot.
    Whole(WholeSnapshot<'a>),
    /// It was kept; others are missing.
    Partial,
    /// It was here before, or belongs to a frame that is over. Dropped.
    Stale,
    /// It does not agree with the parts of its frame that are here (another number of parts). Dropped.
    Contradiction,
}

/// Joins the parts of snapshots. Its memory is one snapshot, allocated once.
///
/// Contract: give it every snapshot part that opened, in the order of arrival. The frames of the snapshots that it
/// gives rise strictly. After a new `welcome`, start with a new one.
#[derive(Debug)]
pub struct Reassembler {
    buffer: Vec<u8>,
    /// The newest frame heard of; `None` before the first part.
    frame: Option<u32>,
    parts: u8,
    /// Bit `p` is set if part `p` is in the buffer. All of `parts` set: the frame was given out.
    have: u8,
    last_part_bytes: usize,
}

impl Default for Reassembler {
    fn default() -> Self {
        Self::new()
    }
}

impl Reassembler {
    /// One that has heard of nothing.
    pub fn new() -> Self {
        Self { buffer: vec![0; SNAPSHOT_BYTES_MAX], frame: None, parts: 0, have: 0, last_part_bytes: 0 }
    }

    /// Takes one part. `part` must come from [`crate::ToClient::decode`], which checks its sizes; a part with sizes
    /// that do not fit is a [`Joined::Contradiction`].
    pub fn push(&mut self, part: &Snapshot<'_>) -> Joined<'_> {
        if self.frame.is_some_and(|frame| part.frame < frame) {
            return Joined::Stale;
        }
        let Some(bit) = 1u8.checked_shl(u32::from(part.part)) else {
            return Joined::Contradiction;
        };
        let start = usize::from(part.part) * SNAPSHOT_PART_BYTES;
        let end = start + part.bytes.len();
        if part.part >= part.parts || end > SNAPSHOT_BYTES_MAX {
            return Joined::Contradiction;
        }
        if self.frame != Some(part.frame) {
            self.frame = Some(part.frame);
            self.parts = part.parts;
            self.have = 0;
        } else if self.parts != part.parts {
            return Joined::Contradiction;
        }
        if self.have & bit != 0 {
            return Joined::Stale;
        }
        let Some(place) = self.buffer.get_mut(start..end) else {
            return Joined::Contradiction;
        };
        place.copy_from_slice(part.bytes);
        self.have |= bit;
        if part.part + 1 == part.parts {
            self.last_part_bytes = part.bytes.len();
        }
        if self.have.count_ones() < u32::from(self.parts) {
            return Joined::Partial;
        }
        let bytes = usize::from(self.parts - 1) * SNAPSHOT_PART_BYTES + self.last_part_bytes;
        Joined::Whole(WholeSnapshot {
            frame: part.frame,
            margin_ms: part.margin_ms,
            newest_input_frame: part.newest_input_frame,
            bytes: self.buffer.get(..bytes).unwrap_or_default(),
        })
    }
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
