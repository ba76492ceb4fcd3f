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
pub fn snapshot_parts(
    snapshot: &[u8],
) -> Result<impl Iterator<Item = (u8, u8, &[u8])>, PayloadError> {
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
    Ok((0..parts)
        .zip(chunks)
        .map(move |(part, bytes)| (part, parts, bytes)))
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
        Self {
            buffer: vec![0; SNAPSHOT_BYTES_MAX],
            frame: None,
            parts: 0,
            have: 0,
            last_part_bytes: 0,
        }
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
