//! Deltas: a snapshot written as what differs from an older one, its base. This is the coding alone: which snapshots can be bases is in [`crate::bases`],
//! how a delta travels in [`crate::payload`], and how a client gets the snapshot back in [`crate::snapshot`].
//!
//! # Specification
//!
//! ```text
//! offset  size  what
//!      0     1  age: how many frames the base is older than the snapshot, 1 to 32
//!      1     2  bytes: the size of the snapshot, u16, 0 to 8,192
//!      3     n  steps
//! ```
//!
//! The steps make the snapshot from its front to its end, eight bytes at a time. Byte `i` of it is *predicted* by byte `i + shift` of the base, where
//! `shift` begins as 0; what lies before the base or behind it is predicted as 0. A step begins with one byte:
//!
//! ```text
//! 0x00                the next 8 bytes are as predicted
//! 0x01 to 0xFE, b...  the next 8 bytes: where bit k of the first byte is set (bit 0 is the lowest), byte k follows in b,
//!                     lowest k first; where it is clear, byte k is as predicted
//! 0xFF, e             e from 0x00 to 0x7F: the next 8 * (e + 2) bytes are as predicted
//!                     e = 0xC0: the next 8 bytes follow as they are
//!                     e otherwise: `shift` changes by e - 0xC0, which is -64 to 63; no byte is made
//! ```
//!
//! Where fewer than 8 bytes of the snapshot are left, `0x00` and `0x01 to 0xFE` make those, and bits for bytes behind the end are clear; `0xFF, e` with e up
//! to 0x7F makes what is left if that is more than 8 * (e + 1) bytes; `0xFF, 0xC0` is not used. The steps end with the last byte of the snapshot. A
//! delta with a step missing, left over or beyond the end is refused whole.
//!
//! How a writer chooses its shifts is its own business: without any of them a delta is right, and longer.
//!
//! # Where it comes from
//!
//! That both sides keep what was acknowledged, and send the difference from it, is how Quake III Arena sends snapshots (Brian Hook's "The Quake3
//! Networking Model", 1999); it knows its fields and marks each that changed with a bit. A host does not know the fields of its games, so the bits are for
//! bytes. The shift is the address of a COPY in VCDIFF (RFC 3284 section 3), kept from step to step: things that come and go in a list move all that is
//! behind them.

use crate::payload::{PayloadError, Reader, SNAPSHOT_BYTES_MAX, in_range};

/// How much older than a snapshot its base may be, in frames: what a client has to keep. At 50 Hz 640 ms, at 128 Hz 250 ms: longer than the round trip
/// of anybody who plays. Whoever is further away gets whole snapshots.
pub const DELTA_AGE_FRAMES_MAX: u8 = 32;

/// The size of a delta's header, in bytes.
pub const DELTA_HEADER_BYTES: usize = 3;

/// Bytes of the snapshot that one step makes.
const GROUP_BYTES: usize = 8;
/// The first byte of a step that is no mask.
const OTHER: u8 = 0xFF;
/// Its second byte, for bytes that follow as they are; around it, for shifts.
const AS_THEY_ARE: u8 = 0xC0;
/// Groups as predicted that one step can make.
const GROUPS_PER_STEP_MAX: usize = 0x7F + 2;
/// How far a shift is looked for in each direction, in bytes: some things of a list that came or went. Twice as far finds next to nothing more in the games
/// that ship, and takes twice as long.
const SHIFT_BYTES_MAX: i64 = 32;
/// A group in which so many bytes differ may have been moved: then a shift is looked for.
const DIFFERENT_BYTES_MIN: u32 = 6;
/// How many more bytes have to be as predicted for a shift to be taken: one more than its step costs.
const GAIN_BYTES_MIN: u32 = 3;
/// How many looks may be in vain in one snapshot; one that is not makes up for one that was. A look costs as much as a dozen groups: what has no lists is
/// not to pay for them.
const LOOKS_IN_VAIN_MAX: u32 = 6;

/// Writes `snapshot` as a delta to `base`, which is `age` frames older, to `out` (cleared first). False, with `out` empty, if the delta would be longer
/// than `bytes_max`, or if it cannot be written: an age of 0 or above [`DELTA_AGE_FRAMES_MAX`], a snapshot larger than [`SNAPSHOT_BYTES_MAX`].
///
/// It does not allocate if the capacity of `out` is at least `bytes_max` and 16 more.
pub fn write_delta(age: u8, base: &[u8], snapshot: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> bool {
    out.clear();
    let Ok(bytes) = u16::try_from(snapshot.len()) else { return false };
    if !(1..=DELTA_AGE_FRAMES_MAX).contains(&age) || snapshot.len() > SNAPSHOT_BYTES_MAX {
        return false;
    }
    let [low, high] = bytes.to_le_bytes();
    out.extend_from_slice(&[age, low, high]);
    let (mut shift, mut same, mut in_vain) = (0i64, 0usize, 0u32);
    for (at, group) in (0i64..).step_by(GROUP_BYTES).zip(snapshot.chunks(GROUP_BYTES)) {
        let (mut bytes, mut differ) = difference(group, predicted(base, at + shift));
        if differ.count() >= DIFFERENT_BYTES_MIN && in_vain < LOOKS_IN_VAIN_MAX {
            if let Some(by) = better_shift(base, snapshot, at, shift) {
                in_vain = in_vain.saturating_sub(1);
                write_same(&mut same, out);
                out.extend_from_slice(&[OTHER, (i64::from(AS_THEY_ARE) + by) as u8]);
                shift += by;
                (bytes, differ) = difference(group, predicted(base, at + shift));
            } else {
                in_vain += 1;
            }
        }
        match differ.mask() {
            0 => same += 1,
            mask => {
                write_same(&mut same, out);
                write_group(mask, bytes, out);
            }
        }
        if out.len() > bytes_max {
            out.clear();
            return false;
        }
    }
    write_same(&mut same, out);
    let fits = out.len() <= bytes_max;
    if !fits {
        out.clear();
    }
    fits
}

fn write_same(groups: &mut usize, out: &mut Vec<u8>) {
    while *groups > 0 {
        let taken = (*groups).min(GROUPS_PER_STEP_MAX);
        match taken {
            1 => out.push(0),
            // At most 0x7F.
            _ => out.extend_from_slice(&[OTHER, (taken - 2) as u8]),
        }
        *groups -= taken;
    }
}

fn write_group(mask: u8, bytes: [u8; GROUP_BYTES], out: &mut Vec<u8>) {
    out.push(mask);
    if mask == OTHER {
        out.push(AS_THEY_ARE);
        out.extend_from_slice(&bytes);
        return;
    }
    for (bit, byte) in bytes.into_iter().enumerate() {
        if mask >> bit & 1 == 1 {
            out.push(byte);
        }
    }
}

/// Which bytes of a group differ: the lowest bit of each byte says it of that byte.
#[derive(Clone, Copy)]
struct Differ(u64);

impl Differ {
    const LOW: u64 = 0x7F7F_7F7F_7F7F_7F7F;

    fn new(one: u64, other: u64) -> Self {
        let differ = one ^ other;
        // The highest bit of each byte: whether one of the others carries into it, or it itself.
        let carried = ((differ & Self::LOW) + Self::LOW) | differ;
        Self((carried & !Self::LOW) >> 7)
    }

    fn count(self) -> u32 {
        (self.0.wrapping_mul(0x0101_0101_0101_0101) >> 56) as u32
    }

    /// The lowest bits next to each other: byte k's goes to bit 56 + k, all others below or out.
    fn mask(self) -> u8 {
        (self.0.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8
    }
}

/// A group with what is predicted behind its end, and where it differs from what is predicted.
fn difference(group: &[u8], predicted: [u8; GROUP_BYTES]) -> ([u8; GROUP_BYTES], Differ) {
    let bytes = match group.first_chunk() {
        Some(whole) => *whole,
        None => {
            let mut bytes = predicted;
            bytes.iter_mut().zip(group).for_each(|(place, byte)| *place = *byte);
            bytes
        }
    };
    (bytes, Differ::new(u64::from_le_bytes(bytes), u64::from_le_bytes(predicted)))
}

/// Eight bytes of the base, and zeros outside of it.
fn predicted(base: &[u8], at: i64) -> [u8; GROUP_BYTES] {
    let inside = usize::try_from(at).ok().and_then(|at| base.get(at..)?.first_chunk());
    inside.copied().unwrap_or_else(|| {
        let byte = |at: i64| usize::try_from(at).ok().and_then(|at| base.get(at)).copied();
        let mut bytes = [0; GROUP_BYTES];
        bytes.iter_mut().zip(at..).for_each(|(place, at)| *place = byte(at).unwrap_or(0));
        bytes
    })
}

/// By how much the shift is to change, if there is a change that pays: of all that are near the one with which most bytes of this group are as
/// predicted, the nearest of equals, unless the next group loses what is gained.
fn better_shift(base: &[u8], snapshot: &[u8], at: i64, shift: i64) -> Option<i64> {
    let ahead = snapshot.get(usize::try_from(at).ok()?..)?;
    let group = u64::from_le_bytes(*ahead.first_chunk()?);
    let from = at + shift;
    let differ = |group: u64, from: i64| Differ::new(group, u64::from_le_bytes(predicted(base, from))).count();
    let now = differ(group, from);
    let first = (from - SHIFT_BYTES_MAX).max(0);
    let near = base.get(usize::try_from(first).ok()?..)?;
    let count = usize::try_from(from + SHIFT_BYTES_MAX + 1 - first).ok()?;
    let mut best: Option<(u32, i64)> = None;
    for (by, bytes) in (first - from..).zip(near.windows(GROUP_BYTES)).take(count) {
        let Some(bytes) = bytes.first_chunk() else { continue };
        let count = Differ::new(group, u64::from_le_bytes(*bytes)).count();
        if best.is_none_or(|(least, nearest)| count < least || count == least && by.abs() < nearest.abs()) {
            best = Some((count, by));
        }
    }
    let (then, by) = best?;
    let next = ahead.get(GROUP_BYTES..).and_then(<[u8]>::first_chunk).map(|next| u64::from_le_bytes(*next));
    let of_next = |by: i64| next.map_or(0, |next| differ(next, from + GROUP_BYTES as i64 + by));
    let pays = then + GAIN_BYTES_MIN <= now && then + of_next(by) + GAIN_BYTES_MIN <= now + of_next(0);
    pays.then_some(by)
}

/// A delta that was read: its header is in range, its steps are not looked at yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delta<'a> {
    age: u8,
    bytes: u16,
    steps: &'a [u8],
}

impl<'a> Delta<'a> {
    /// Reads the header. Errors: [`PayloadError::Truncated`] and [`PayloadError::Range`].
    pub fn read(delta: &'a [u8]) -> Result<Self, PayloadError> {
        let mut reader = Reader { rest: delta };
        let age = reader.u8("age")?;
        let bytes = u16::from_le_bytes(reader.array("bytes")?);
        in_range("age", u64::from(age), 1, u64::from(DELTA_AGE_FRAMES_MAX))?;
        in_range("bytes", u64::from(bytes), 0, SNAPSHOT_BYTES_MAX as u64)?;
        Ok(Self { age, bytes, steps: reader.rest })
    }

    /// How many frames the base is older than the snapshot.
    pub fn age(&self) -> u8 {
        self.age
    }

    /// Makes the snapshot from its base, in `out` (cleared first), which takes [`SNAPSHOT_BYTES_MAX`] at most.
    ///
    /// Errors: [`PayloadError`] if the steps do not make exactly the snapshot; then `out` is empty. That it is the right base cannot be seen here.
    pub fn apply(&self, base: &[u8], out: &mut Vec<u8>) -> Result<(), PayloadError> {
        out.clear();
        out.reserve(usize::from(self.bytes));
        let made = self.steps(base, out);
        if made.is_err() {
            out.clear();
        }
        made
    }

    fn steps(&self, base: &[u8], out: &mut Vec<u8>) -> Result<(), PayloadError> {
        let mut reader = Reader { rest: self.steps };
        let mut shift = 0i64;
        while let Some(left) = usize::from(self.bytes).checked_sub(out.len()).filter(|left| *left > 0) {
            let from = out.len() as i64 + shift;
            match reader.u8("step")? {
                0 => copy(base, from, left.min(GROUP_BYTES), out),
                OTHER => match reader.u8("second byte of the step")? {
                    more @ ..=0x7F => {
                        let groups = usize::from(more) + 2;
                        in_range("groups of the step", groups as u64, 2, left.div_ceil(GROUP_BYTES) as u64)?;
                        copy(base, from, left.min(groups * GROUP_BYTES), out);
                    }
                    AS_THEY_ARE => {
                        in_range("bytes of the step", GROUP_BYTES as u64, 0, left as u64)?;
                        out.extend_from_slice(reader.bytes("bytes of the step", GROUP_BYTES)?);
                    }
                    by => shift += i64::from(by) - i64::from(AS_THEY_ARE),
                },
                mask => {
                    let count = left.min(GROUP_BYTES);
                    in_range("step", u64::from(mask), 1, (1 << count) - 1)?;
                    let mut bytes = predicted(base, from);
                    for (bit, byte) in bytes.iter_mut().enumerate() {
                        if mask >> bit & 1 == 1 {
                            *byte = reader.u8("bytes of the step")?;
                        }
                    }
                    out.extend(bytes.iter().take(count));
                }
            }
        }
        reader.end()
    }
}

/// Appends `count` predicted bytes.
fn copy(base: &[u8], from: i64, count: usize, out: &mut Vec<u8>) {
    let inside = usize::try_from(from).ok().and_then(|from| base.get(from..from.checked_add(count)?));
    match inside {
        Some(bytes) => out.extend_from_slice(bytes),
        None => {
            let byte = |at: i64| usize::try_from(at).ok().and_then(|at| base.get(at)).copied();
            out.extend((from..).take(count).map(|at| byte(at).unwrap_or(0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(base: &[u8], snapshot: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(write_delta(1, base, snapshot, usize::MAX, &mut out));
        out
    }

    fn applied(base: &[u8], delta: &[u8]) -> Result<Vec<u8>, PayloadError> {
        let mut out = vec![9; 3];
        let made = Delta::read(delta)?.apply(base, &mut out);
        assert!(made.is_ok() || out.is_empty());
        made.map(|()| out)
    }

    #[test]
    fn the_steps_are_the_ones_specified() {
        // What differs, and what is as predicted, up to an end that is not a whole group.
        let base: Vec<u8> = (0..20).collect();
        let mut snapshot = base.clone();
        (snapshot[1], snapshot[7], snapshot[19]) = (100, 101, 102);
        assert_eq!(written(&base, &snapshot), [1, 20, 0, 0x82, 100, 101, 0, 0x08, 102]);
        // Runs, and their bounds: 130 groups, the last of one byte.
        let long: Vec<u8> = (0..1_033).map(|at| at as u8).collect();
        assert_eq!(written(&long, &long), [1, 9, 4, 0xFF, 0x7F, 0]);
        assert_eq!(written(&long[..9], &long[..9]), [1, 9, 0, 0xFF, 0]);
        assert_eq!(written(&[], &[]), [1, 0, 0]);
        // Nothing to predict from: zeros.
        assert_eq!(written(&[], &[0, 0, 5]), [1, 3, 0, 4, 5]);
        assert_eq!(written(&[], &[1; 8]), [1, 8, 0, 0xFF, 0xC0, 1, 1, 1, 1, 1, 1, 1, 1]);
        // Eight bytes in the middle are gone, eight others came behind them.
        let base: Vec<u8> = (10..60).collect();
        let mut snapshot = base.clone();
        snapshot.drain(16..24);
        assert_eq!(written(&base, &snapshot), [1, 42, 0, 0xFF, 0, 0xFF, 0xC8, 0xFF, 2]);
        assert_eq!(applied(&base, &[1, 42, 0, 0xFF, 0, 0xFF, 0xC8, 0xFF, 2]), Ok(snapshot.clone()));
        let back = written(&snapshot, &base);
        assert_eq!(applied(&snapshot, &back), Ok(base.clone()));
        assert!(back.len() <= 3 + 2 + 10 + 2 + 2, "{back:?}");
    }

    #[test]
    fn what_is_not_specified_is_refused() {
        let base = [7; 16];
        let refused = |delta: &[u8]| applied(&base, delta).unwrap_err();
        let range = |field, got, min, max| PayloadError::Range { field, got, min, max };
        let truncated = |field| PayloadError::Truncated { field };
        assert_eq!(refused(&[]), truncated("age"));
        assert_eq!(refused(&[1, 0]), truncated("bytes"));
        assert_eq!(refused(&[0, 0, 0]), range("age", 0, 1, 32));
        assert_eq!(refused(&[33, 0, 0]), range("age", 33, 1, 32));
        assert_eq!(refused(&[1, 1, 32, 0]), range("bytes", 8_193, 0, 8_192));
        assert_eq!(refused(&[1, 9, 0, 0]), truncated("step"));
        assert_eq!(refused(&[1, 8, 0, 0, 0]), PayloadError::LeftOver { bytes: 1 });
        assert_eq!(refused(&[1, 0, 0, 5]), PayloadError::LeftOver { bytes: 1 });
        assert_eq!(refused(&[1, 8, 0, 3, 1]), truncated("bytes of the step"));
        assert_eq!(refused(&[1, 2, 0, 4, 1]), range("step", 4, 1, 3));
        assert_eq!(refused(&[1, 8, 0, 0xFF]), truncated("second byte of the step"));
        assert_eq!(refused(&[1, 8, 0, 0xFF, 0]), range("groups of the step", 2, 2, 1));
        assert_eq!(refused(&[1, 16, 0, 0xFF, 1]), range("groups of the step", 3, 2, 2));
        assert_eq!(refused(&[1, 7, 0, 0xFF, 0xC0, 1, 2, 3, 4, 5, 6, 7]), range("bytes of the step", 8, 0, 7));
        assert_eq!(refused(&[1, 8, 0, 0xFF, 0xC0, 1, 2, 3, 4, 5, 6, 7]), truncated("bytes of the step"));
        // A shift that makes nothing, again and again, ends with the delta.
        assert_eq!(refused(&[&[1, 8, 0][..], &[0xFF; 8_000]].concat()), truncated("step"));
        // Far outside of the base are zeros.
        assert_eq!(applied(&base, &[&[1, 8, 0][..], &[0xFF, 0x80].repeat(4_000), &[0]].concat()), Ok(vec![0; 8]));
    }

    #[test]
    fn what_cannot_be_written_or_is_too_long_leaves_nothing() {
        let mut out = vec![1];
        let noise: Vec<u8> = (0..100u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for (age, snapshot, max) in
            [(0, &[][..], 99), (33, &[], 99), (1, &[0; 8_193], 9_999), (1, &[0; 70_000], 99_999), (1, &noise, 99)]
        {
            assert!(!write_delta(age, &[], snapshot, max, &mut out), "{age} {}", snapshot.len());
            assert!(out.is_empty());
        }
        assert!(!write_delta(1, &[], &[0; 8], 3, &mut out) && write_delta(1, &[], &[0; 8], 4, &mut out));
    }

    /// Bytes, and others that come from them as snapshots do: some bytes differ, pieces are gone, moved or new.
    fn like_snapshots() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let edit = (0..4u8, any::<prop::sample::Index>(), 0..90usize, any::<u8>());
        let edits = proptest::collection::vec(edit, 0..40);
        (proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..1_500), edits).prop_map(|(base, edits)| {
            let mut snapshot = base.clone();
            for (what, at, count, byte) in edits {
                let at = at.index(snapshot.len() + 1);
                let end = (at + count).min(snapshot.len());
                match what {
                    0 => drop(snapshot.drain(at..end)),
                    1 => drop(snapshot.splice(at..at, vec![byte; count])),
                    2 => snapshot[at..end].reverse(),
                    _ => snapshot[at..end].iter_mut().take(1).for_each(|place| *place = byte),
                }
            }
            snapshot.truncate(SNAPSHOT_BYTES_MAX);
            (base, snapshot)
        })
    }

    proptest! {
        #[test]
        fn what_was_written_comes_back((base, snapshot) in like_snapshots(), age in 1..=DELTA_AGE_FRAMES_MAX) {
            let mut delta = Vec::new();
            prop_assert!(write_delta(age, &base, &snapshot, usize::MAX, &mut delta));
            prop_assert_eq!(Delta::read(&delta).unwrap().age(), age);
            prop_assert_eq!(applied(&base, &delta), Ok(snapshot.clone()));
            // Within a bound it is the same or nothing.
            let mut within = Vec::with_capacity(delta.len() + 16);
            let room = within.capacity();
            prop_assert!(write_delta(age, &base, &snapshot, delta.len(), &mut within));
            prop_assert_eq!((&within, within.capacity()), (&delta, room));
            prop_assert!(!write_delta(age, &base, &snapshot, delta.len() - 1, &mut within));
        }

        #[test]
        fn any_two_come_back(base: Vec<u8>, snapshot: Vec<u8>) {
            prop_assert_eq!(applied(&base, &written(&base, &snapshot)), Ok(snapshot));
        }

        /// A damaged delta is an error, or makes as many bytes as it says; no more memory than the largest snapshot is taken.
        #[test]
        fn damaged_deltas_do_no_harm(
            (base, snapshot) in like_snapshots(),
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
            is_cut: bool,
        ) {
            let mut delta = written(&base, &snapshot);
            for (at, byte) in damage {
                let at = at.index(delta.len());
                delta[at] = byte;
            }
            if is_cut {
                delta.truncate(cut.index(delta.len()));
            }
            if let Ok(read) = Delta::read(&delta) {
                let mut out = Vec::new();
                if read.apply(&base, &mut out).is_ok() {
                    prop_assert_eq!(out.len(), usize::from(u16::from_le_bytes([delta[1], delta[2]])));
                }
                prop_assert!(out.capacity() <= SNAPSHOT_BYTES_MAX);
            }
        }
    }
}
