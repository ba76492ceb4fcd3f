//! What it takes to bring fresh rules to where the old ones were: a saved state, and the tick records since.

use crate::warm::{Ask, LINE_BYTES};

/// A saved state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// The first frame that it has not seen.
    pub(crate) next_frame: u32,
    /// That of the rules which saved it.
    pub(crate) state_version: u32,
    pub(crate) state: Vec<u8>,
}

/// The least by which a buffer of records grows, in bytes. Each room has one, which is full once between two checkpoints: doubled, half of it would lie idle.
const GROWTH_BYTES: usize = 256;
/// The same, in frames.
const GROWTH_FRAMES: usize = 32;

#[derive(Debug, Clone, Copy)]
struct Kept {
    frame: u32,
    /// Where its record ends. Far below 4 GiB: a checkpoint comes before there are so many.
    end: u32,
}

/// The records of the frames that were stepped since a checkpoint, one after the other in one buffer that is used again. Skipped frames
/// are not among them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Records {
    bytes: Vec<u8>,
    kept: Vec<Kept>,
    fuel: u64,
    /// The record before the first: the last one that was kept when they were cleared.
    before: Vec<u8>,
}

impl Records {
    pub(crate) fn push(&mut self, frame: u32, record: &[u8], fuel: u64) {
        // By an eighth at least, so that what is copied stays in proportion to what is kept.
        if self.bytes.capacity() - self.bytes.len() < record.len() {
            self.bytes.reserve_exact(record.len().max(self.bytes.len() / 8).max(GROWTH_BYTES));
        }
        if self.kept.len() == self.kept.capacity() {
            self.kept.reserve_exact((self.kept.len() / 8).max(GROWTH_FRAMES));
        }
        self.bytes.extend_from_slice(record);
        self.kept.push(Kept { frame, end: u32::try_from(self.bytes.len()).unwrap_or(u32::MAX) });
        self.fuel = self.fuel.saturating_add(fuel);
    }

    /// The part of the records in [`Room::warm`](crate::Room::warm): where the next one goes.
    pub(crate) fn warm(&self, ask: impl Ask) {
        // It is shorter than a line, and mostly lies in two.
        let end = self.bytes.as_ptr().wrapping_add(self.bytes.len());
        ask(end);
        ask(end.wrapping_add(LINE_BYTES));
        ask(self.kept.as_ptr().wrapping_add(self.kept.len()).cast());
    }

    pub(crate) fn clear(&mut self) {
        if !self.is_empty() {
            let from = self.kept.iter().rev().nth(1).map_or(0, |kept| kept.end as usize);
            self.before.clear();
            self.before.extend_from_slice(self.bytes.get(from..).unwrap_or_default());
        }
        self.bytes.clear();
        self.kept.clear();
        self.fuel = 0;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many frames.
    pub(crate) fn frames(&self) -> usize {
        self.kept.len()
    }

    /// What running all of them again costs.
    pub(crate) fn fuel(&self) -> u64 {
        self.fuel
    }

    pub(crate) fn set_fuel(&mut self, fuel: u64) {
        self.fuel = fuel;
    }

    /// The record before the first; empty if there was none.
    pub(crate) fn before(&self) -> &[u8] {
        &self.before
    }

    /// Frame and record of each, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let mut from = 0;
        self.kept.iter().map(move |kept| {
            let record = self.bytes.get(from..kept.end as usize).unwrap_or_default();
            from = kept.end as usize;
            (kept.frame, record)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_in_order() {
        let mut records = Records::default();
        records.push(3, b"abc", 10);
        records.push(5, b"", 5);
        records.push(6, b"d", 1);
        let all: Vec<_> = records.iter().collect();
        assert_eq!(all, [(3, &b"abc"[..]), (5, b""), (6, b"d")]);
        assert_eq!((records.bytes(), records.fuel()), (4, 16));
        for _ in 0..2 {
            records.clear();
            assert_eq!(records.before(), b"d");
        }
        assert!(records.is_empty());
        assert_eq!((records.bytes(), records.fuel(), records.iter().count()), (0, 0, 0));
    }
}
