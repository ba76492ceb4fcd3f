//! The replay window: which sequence numbers of one direction have been opened. It knows nothing of keys; the
//! opener asks it before opening and tells it after.

/// How many sequence numbers, counted back from the highest one opened, are remembered. At 128 datagrams/s this is
/// 8 s of reordering, more than any path that is still playable.
pub const REPLAY_WINDOW_SEQUENCES: u64 = 1_024;

const WORD_BITS: u64 = 64;
const WORDS: usize = (REPLAY_WINDOW_SEQUENCES / WORD_BITS) as usize;

/// Why the window refuses a sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It was opened before.
    Duplicate,
    /// It is 1,024 or more behind the highest one opened, so whether it was opened is forgotten.
    TooOld,
}

/// A bit per sequence number: bit `d` is set if `top - d` was opened. Everything is computed as `top - seq`, which
/// cannot overflow where `seq <= top`; `seq + window` would, near the end of the range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    /// The highest sequence number opened; `None` before the first.
    top: Option<u64>,
    bits: [u64; WORDS],
}

impl Window {
    pub(crate) fn new() -> Self {
        Self { top: None, bits: [0; WORDS] }
    }

    /// Whether `seq` may still be opened. Changes nothing. `Ok(true)`: it is higher than all before it.
    pub(crate) fn check(&self, seq: u64) -> Result<bool, Refusal> {
        let Some(top) = self.top else {
            return Ok(true);
        };
        if seq > top {
            return Ok(true);
        }
        let behind = top - seq;
        if behind >= REPLAY_WINDOW_SEQUENCES {
            return Err(Refusal::TooOld);
        }
        let word = self.bits.get((behind / WORD_BITS) as usize).copied();
        if word.unwrap_or(u64::MAX) & (1 << (behind % WORD_BITS)) != 0 {
            return Err(Refusal::Duplicate);
        }
        Ok(false)
    }

    /// Remembers `seq`. Call it only after the datagram opened: a forged sequence number must not move the window.
    pub(crate) fn mark(&mut self, seq: u64) {
        let behind = match self.top {
            None => {
                self.top = Some(seq);
                0
            }
            Some(top) if seq > top => {
                self.shift(seq - top);
                self.top = Some(seq);
                0
            }
            Some(top) => top - seq,
        };
        if behind < REPLAY_WINDOW_SEQUENCES
            && let Some(word) = self.bits.get_mut((behind / WORD_BITS) as usize)
        {
            *word |= 1 << (behind % WORD_BITS);
        }
    }

    /// Moves every bit `by` places up: the top rose by that much.
    fn shift(&mut self, by: u64) {
        if by >= REPLAY_WINDOW_SEQUENCES {
            self.bits = [0; WORDS];
            return;
        }
        let words = (by / WORD_BITS) as usize;
        let bits = (by % WORD_BITS) as u32;
        let old = self.bits;
        for (index, word) in self.bits.iter_mut().enumerate() {
            let low = index.checked_sub(words).and_then(|from| old.get(from));
            let carry = index
                .checked_sub(words + 1)
                .and_then(|from| old.get(from))
                // A shift by 64 is no shift in Rust, so the carry of a whole-word move is nothing.
                .and_then(|word| word.checked_shr(64 - bits));
            *word = (low.copied().unwrap_or(0) << bits) | carry.unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The rule in its plainest form: remember everything.
    #[derive(Default)]
    struct Model {
        seen: BTreeSet<u64>,
    }

    impl Model {
        fn check(&self, seq: u64) -> Result<bool, Refusal> {
            let Some(&top) = self.seen.last() else {
                return Ok(true);
            };
            if seq > top {
                Ok(true)
            } else if u128::from(seq) + u128::from(REPLAY_WINDOW_SEQUENCES) <= u128::from(top) {
                Err(Refusal::TooOld)
            } else if self.seen.contains(&seq) {
                Err(Refusal::Duplicate)
            } else {
                Ok(false)
            }
        }
    }

    /// Feeds `seqs` to both and compares the answer for each, and for its neighbours.
    fn agree(seqs: impl IntoIterator<Item = u64>) {
        let mut window = Window::new();
        let mut model = Model::default();
        for seq in seqs {
            for near in [seq, seq.saturating_sub(1), seq.saturating_add(1)] {
                assert_eq!(window.check(near), model.check(near), "at {near}");
            }
            if window.check(seq).is_ok() {
                window.mark(seq);
                model.seen.insert(seq);
            }
        }
    }

    #[test]
    fn every_distance_around_the_edges_of_the_window() {
        for base in [0, 1, 5_000, u64::MAX - 4_096] {
            for step in (0..=130).chain(1_000..=1_100) {
                let top = base + step;
                let mut seqs = vec![base, top];
                seqs.extend((0..1_100).map(|back| top.saturating_sub(back)));
                seqs.push(base);
                agree(seqs);
            }
        }
    }

    #[test]
    fn the_last_sequence_number_of_all() {
        let mut window = Window::new();
        window.mark(u64::MAX);
        assert_eq!(window.check(u64::MAX), Err(Refusal::Duplicate));
        assert_eq!(window.check(u64::MAX - 1), Ok(false));
        assert_eq!(window.check(u64::MAX - 1_023), Ok(false));
        assert_eq!(window.check(u64::MAX - 1_024), Err(Refusal::TooOld));
        assert_eq!(window.check(0), Err(Refusal::TooOld));
        let mut window = Window::new();
        window.mark(0);
        window.mark(u64::MAX);
        assert_eq!(window.check(0), Err(Refusal::TooOld));
    }

    #[test]
    fn each_number_opens_once_in_any_order() {
        let mut window = Window::new();
        // 389 and 1,024 have no common factor, so this visits each of the 1,024 numbers once.
        let order: Vec<u64> = (0..1_024u64).map(|i| i * 389 % 1_024).collect();
        for &seq in &order {
            assert!(window.check(seq).is_ok(), "{seq} refused the first time");
            window.mark(seq);
        }
        for seq in order {
            assert_eq!(window.check(seq), Err(Refusal::Duplicate));
        }
    }

    proptest! {
        #[test]
        fn agrees_with_remembering_everything(
            base in prop_oneof![Just(0u64), Just(u64::MAX - 6_000), any::<u64>().prop_map(|x| x / 2)],
            steps in proptest::collection::vec(0u64..3_000, 1..300),
        ) {
            agree(steps.into_iter().map(|step| base + step));
        }
    }
}
