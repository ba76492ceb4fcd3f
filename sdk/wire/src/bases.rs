//! The snapshots that can be bases of deltas: the last ones, in a ring of bytes. The host keeps what it sent until something newer is acknowledged, the
//! client what it has. The coding of deltas is in [`crate::delta`].

use std::collections::VecDeque;

use crate::delta::DELTA_AGE_FRAMES_MAX;
use crate::payload::SNAPSHOT_BYTES_MAX;

/// Bytes with which a ring holds every snapshot that can be a base, whatever their sizes: as many as there are, and one more, as a snapshot is not split
/// at the ring's end.
pub const BASES_BYTES_MAX: usize = (DELTA_AGE_FRAMES_MAX as usize + 1) * SNAPSHOT_BYTES_MAX;

/// The first size of a ring, in snapshots: those of a short round trip. It doubles while some that may be needed would go.
const FIRST_SNAPSHOTS: usize = 4;

#[derive(Debug, Clone, Copy)]
struct Kept {
    frame: u32,
    start: usize,
    bytes: usize,
}

impl Kept {
    /// The place behind it. An empty one takes a byte, so that no two begin at the same place.
    const fn end(self) -> usize {
        self.start + place_bytes(self.bytes)
    }
}

const fn place_bytes(bytes: usize) -> usize {
    if bytes == 0 { 1 } else { bytes }
}

/// The last snapshots.
///
/// Contract: frames rise; a snapshot of an older frame is not kept. It keeps those that are no more than [`DELTA_AGE_FRAMES_MAX`] frames older than
/// the next one, unless they are forgotten, or do not fit into the bytes that it may take: then the oldest go. It allocates nothing before the
/// first snapshot, and when its snapshots have found their size nothing more.
#[derive(Debug)]
pub struct Bases {
    bytes_max: usize,
    ring: Vec<u8>,
    /// By rising frame. From the first to the last, their places go up, around the end at most once.
    kept: VecDeque<Kept>,
}

impl Bases {
    /// One that takes so many bytes at most.
    pub const fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ring: Vec::new(), kept: VecDeque::new() }
    }

    /// The snapshot of a frame, if it is here.
    pub fn get(&self, frame: u32) -> Option<&[u8]> {
        let at = self.kept.binary_search_by_key(&frame, |kept| kept.frame).ok()?;
        let Kept { start, bytes, .. } = *self.kept.get(at)?;
        self.ring.get(start..start.checked_add(bytes)?)
    }

    /// The frame of the newest snapshot here.
    pub fn newest(&self) -> Option<u32> {
        self.kept.back().map(|kept| kept.frame)
    }

    /// Bytes of memory that it takes now.
    pub fn memory_bytes(&self) -> usize {
        self.ring.capacity() + self.kept.capacity() * size_of::<Kept>()
    }

    /// Forgets the snapshots before a frame.
    pub fn forget_before(&mut self, frame: u32) {
        while self.kept.front().is_some_and(|kept| kept.frame < frame) {
            self.kept.pop_front();
        }
    }

    /// Keeps a snapshot.
    pub fn push(&mut self, frame: u32, snapshot: &[u8]) {
        if self.newest().is_some_and(|newest| frame <= newest) {
            return;
        }
        // What is too old for the next frame.
        self.forget_before(frame.saturating_add(1).saturating_sub(u32::from(DELTA_AGE_FRAMES_MAX)));
        let place_bytes = place_bytes(snapshot.len());
        if place_bytes > self.bytes_max {
            return;
        }
        while self.place_for(place_bytes).is_none() && self.ring.len() < self.bytes_max {
            self.grow(place_bytes);
        }
        // The ring is as large as it may be: the oldest go.
        let start = loop {
            match self.place_for(place_bytes) {
                Some(start) => break start,
                None if self.kept.pop_front().is_none() => return,
                None => {}
            }
        };
        if let Some(place) = self.ring.get_mut(start..start + snapshot.len()) {
            place.copy_from_slice(snapshot);
            self.kept.push_back(Kept { frame, start, bytes: snapshot.len() });
        }
    }

    /// Where so many bytes are free.
    fn place_for(&self, bytes: usize) -> Option<usize> {
        let (Some(first), Some(last)) = (self.kept.front(), self.kept.back()) else {
            return (bytes <= self.ring.len()).then_some(0);
        };
        if last.start < first.start {
            // Around the end: what is free lies between the last and the first.
            return (bytes <= first.start - last.end()).then_some(last.end());
        }
        if bytes <= self.ring.len() - last.end() {
            return Some(last.end());
        }
        (bytes <= first.start).then_some(0)
    }

    fn grow(&mut self, bytes: usize) {
        let wanted = (self.ring.len() * 2).max((bytes * FIRST_SNAPSHOTS).next_power_of_two()).min(self.bytes_max);
        let mut ring = Vec::with_capacity(wanted);
        for kept in &mut self.kept {
            let moved = self.ring.get(kept.start..kept.end()).unwrap_or_default();
            kept.start = ring.len();
            ring.extend_from_slice(moved);
        }
        ring.resize(wanted, 0);
        self.ring = ring;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The snapshot of a frame in these tests.
    fn snapshot(frame: u32, bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at as u32 ^ frame.wrapping_mul(37)) as u8).collect()
    }

    #[test]
    fn what_can_be_a_base_is_kept_and_the_ring_finds_its_size() {
        let mut bases = Bases::new(BASES_BYTES_MAX);
        assert_eq!((bases.memory_bytes(), bases.newest()), (0, None));
        for frame in 0..500 {
            bases.push(frame, &snapshot(frame, 190));
        }
        let memory = bases.memory_bytes();
        assert!((32 * 190..=8_192 + 64 * 24).contains(&memory), "{memory}");
        for frame in 500..3_000 {
            bases.push(frame, &snapshot(frame, 190));
            assert_eq!(bases.memory_bytes(), memory);
            assert_eq!(bases.get(frame - 31), Some(&snapshot(frame - 31, 190)[..]));
            assert_eq!((bases.get(frame - 32), bases.get(frame + 1)), (None, None));
        }
        // Whatever is older than what a client has said that it has is of no use any more.
        bases.forget_before(2_990);
        assert_eq!((bases.get(2_989), bases.get(2_990)), (None, Some(&snapshot(2_990, 190)[..])));
        // An older frame once more, and one after a long time.
        bases.push(2_999, b"other");
        assert_eq!(bases.get(2_999), Some(&snapshot(2_999, 190)[..]));
        bases.push(10_000, b"later");
        assert_eq!((bases.get(2_999), bases.get(10_000)), (None, Some(&b"later"[..])));
        bases.push(u32::MAX - 1, b"");
        assert_eq!(bases.get(u32::MAX - 1), Some(&[][..]));
    }

    #[test]
    fn who_needs_few_takes_little() {
        let mut bases = Bases::new(16 << 10);
        for frame in 5..1_000 {
            bases.forget_before(frame - 5);
            bases.push(frame, &snapshot(frame, 600));
            assert_eq!(bases.get(frame - 4).is_some(), frame > 8);
        }
        assert!(bases.memory_bytes() <= 8_192 + 16 * 24, "{}", bases.memory_bytes());
    }

    #[test]
    fn the_largest_snapshots_all_fit_into_the_largest_ring() {
        let mut bases = Bases::new(BASES_BYTES_MAX);
        for frame in 0..200u32 {
            let bytes = if frame % 7 == 3 { 1 + frame as usize * 11 } else { SNAPSHOT_BYTES_MAX };
            bases.push(frame, &vec![frame as u8; bytes]);
            for back in 0..32.min(frame + 1) {
                assert_eq!(bases.get(frame - back).map(|kept| kept[0]), Some((frame - back) as u8), "{frame} - {back}");
            }
        }
    }

    proptest! {
        /// Whatever comes, what is there is what was pushed, and no more memory is taken than allowed.
        #[test]
        fn what_is_there_is_right(
            bytes_max in 0usize..6_000,
            pushes in proptest::collection::vec((1u32..9, 0usize..2_500, 0u32..40), 1..200),
        ) {
            let mut bases = Bases::new(bytes_max);
            let (mut frame, mut sizes) = (0, Vec::new());
            for (step, bytes, back) in pushes {
                frame += step;
                if back < 20 {
                    bases.forget_before(frame.saturating_sub(back));
                }
                bases.push(frame, &snapshot(frame, bytes));
                sizes.push((frame, bytes));
                prop_assert!(bases.ring.len() <= bytes_max);
                prop_assert_eq!(bases.get(frame).is_some(), bytes.max(1) <= bytes_max);
                for (frame, bytes) in &sizes {
                    if let Some(kept) = bases.get(*frame) {
                        prop_assert_eq!(kept, &snapshot(*frame, *bytes)[..]);
                    }
                }
            }
        }
    }
}
