//! The last inputs of a player, newest first, in one piece of memory: a datagram repeats them all, and a generator has thousands of players.

use holeshot_wire::payload::INPUTS_COUNT_MAX;

/// As many as a datagram takes at most.
#[derive(Debug, Default)]
pub(super) struct Recent {
    bytes: Vec<u8>,
    lens: [u16; INPUTS_COUNT_MAX],
    count: usize,
}

impl Recent {
    /// Puts one before the others, of which the oldest goes if there are too many. One that is too long for any datagram is empty.
    pub(super) fn push(&mut self, input: &[u8]) {
        let (input, len) = u16::try_from(input.len()).map_or((&[][..], 0), |len| (input, len));
        if self.count == INPUTS_COUNT_MAX {
            let oldest = self.lens.last().copied().map_or(0, usize::from);
            self.bytes.truncate(self.bytes.len().saturating_sub(oldest));
        } else {
            self.count += 1;
        }
        self.lens.rotate_right(1);
        self.lens[0] = len;
        self.bytes.splice(..0, input.iter().copied());
    }

    /// Reads what a datagram will need, so that it is near the processor then.
    pub(super) fn warm(&self) -> u64 {
        self.bytes.first().copied().map_or(0, u64::from)
    }

    /// From the newest on.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        self.lens.iter().take(self.count).map(move |len| {
            let (input, older) = rest.split_at_checked(usize::from(*len)).unwrap_or_default();
            rest = older;
            input
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_come_first_and_the_oldest_goes() {
        let mut recent = Recent::default();
        assert_eq!(recent.iter().count(), 0);
        let input = |number: usize| vec![number as u8; number * 7 % 5];
        for number in 0..100 {
            recent.push(&input(number));
            let wanted: Vec<_> = (0..=number).rev().take(INPUTS_COUNT_MAX).map(input).collect();
            assert_eq!(recent.iter().map(<[u8]>::to_vec).collect::<Vec<_>>(), wanted);
        }
        recent.push(&[1; 70_000]);
        assert_eq!(recent.iter().next(), Some(&[][..]));
    }
}
