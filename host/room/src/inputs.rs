//! The input cache: for each player a ring of frames, and how early its inputs come. When a frame is due, and what
//! becomes of players, is decided elsewhere.

use holeshot_abi::{InputStatus, PlayerInput};

use crate::warm::{Ask, LINE_BYTES, ask_for};

/// What became of an input that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The first for its frame, in time.
    Taken,
    /// Its frame was stepped without it.
    Late,
    /// Its frame is further back than the track: nothing is known of it any more.
    Behind,
    /// Its frame is further ahead than the track.
    Ahead,
    /// A copy of one that came before.
    Duplicate,
    /// It differs from one that came before for the same frame.
    Conflicting,
    /// Longer than the manifest allows.
    TooLong,
}

/// How far ahead of the frame that is stepped next inputs come, mostly: what [`InputCache::warm_of`] asks for, which may be wrong.
const AHEAD_FRAMES: usize = 3;

/// What is known of one frame of one player.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// Nothing came.
    Empty,
    /// Its input came in time, `len` bytes.
    Filled { frame: u32, len: u8 },
    /// It was stepped without an input; `late`: one came afterwards.
    Missed { frame: u32, late: bool },
}

/// Bytes of a [`Mark`] in front of the input it is of: eight inputs in a row, as a datagram brings them, are then in two cache lines.
const MARK_BYTES: usize = 5;

impl Mark {
    const MISSED: u8 = 1;
    const MISSED_LATE: u8 = 2;
    /// And more by the length, at most 240.
    const FILLED: u8 = 3;

    const fn read([kind, frame @ ..]: [u8; MARK_BYTES]) -> Self {
        let frame = u32::from_le_bytes(frame);
        match kind {
            0 => Self::Empty,
            Self::MISSED => Self::Missed { frame, late: false },
            Self::MISSED_LATE => Self::Missed { frame, late: true },
            filled => Self::Filled { frame, len: filled - Self::FILLED },
        }
    }

    const fn bytes(self) -> [u8; MARK_BYTES] {
        let (kind, frame) = match self {
            Self::Empty => (0, 0),
            Self::Missed { frame, late: false } => (Self::MISSED, frame),
            Self::Missed { frame, late: true } => (Self::MISSED_LATE, frame),
            Self::Filled { frame, len } => (Self::FILLED.saturating_add(len), frame),
        };
        let [f0, f1, f2, f3] = frame.to_le_bytes();
        [kind, f0, f1, f2, f3]
    }
}

/// The last input that was stepped fresh.
#[derive(Debug, Clone, Copy)]
struct Last {
    frame: u32,
    len: u8,
}

/// The inputs of all players of a room.
///
/// Per player there is room for twice the track: as many frames ahead as the manifest says, and as many behind, so that
/// the copies in redundant datagrams are told from inputs that come too late. All memory is taken at the start.
#[derive(Debug)]
pub(crate) struct InputCache {
    track_frames: u32,
    slots_per_player: usize,
    stride_bytes: usize,
    input_bytes_max: usize,
    /// Of each player and frame a [`Mark`], and the input's bytes.
    slots: Vec<u8>,
    last: Vec<Option<Last>>,
    last_bytes: Vec<u8>,
}

impl InputCache {
    pub(crate) fn new(players: usize, track_frames: u16, input_bytes_max: u16) -> Self {
        let slots_per_player = usize::from(track_frames) * 2;
        let input_bytes_max = usize::from(input_bytes_max);
        let stride_bytes = MARK_BYTES + input_bytes_max;
        Self {
            track_frames: u32::from(track_frames),
            slots_per_player,
            stride_bytes,
            input_bytes_max,
            slots: vec![0; players * slots_per_player * stride_bytes],
            last: vec![None; players],
            last_bytes: vec![0; players * input_bytes_max],
        }
    }

    /// Where the slot of a frame begins.
    fn at(&self, player: usize, frame: u32) -> usize {
        (player * self.slots_per_player + frame as usize % self.slots_per_player.max(1)) * self.stride_bytes
    }

    /// The part of the inputs in [`Room::warm`](crate::Room::warm).
    pub(crate) fn warm(&self, frame: u32, ask: impl Ask) {
        for player in 0..self.last.len() {
            ask(self.slots.as_ptr().wrapping_add(self.at(player, frame)));
        }
        ask_for(self.last.as_slice(), ask);
        ask_for(self.last_bytes.as_slice(), ask);
    }

    /// The part of the inputs in [`Room::warm_inputs`](crate::Room::warm_inputs).
    pub(crate) fn warm_of(&self, player: usize, frame: u32, ask: impl Ask) {
        let at = self.slots.as_ptr().wrapping_add(self.at(player, frame));
        // The frames before it come with it, as copies, and it is mostly one or two ahead of the frame that is stepped next.
        ask(at.wrapping_sub(LINE_BYTES));
        ask(at);
        ask(at.wrapping_add(AHEAD_FRAMES * self.stride_bytes));
    }

    /// Takes an input, or says why not. `next_frame` is the frame that is stepped next.
    pub(crate) fn offer(&mut self, player: usize, next_frame: u32, frame: u32, input: &[u8]) -> Verdict {
        if input.len() > self.input_bytes_max {
            return Verdict::TooLong;
        }
        if frame >= next_frame && frame - next_frame >= self.track_frames {
            return Verdict::Ahead;
        }
        if frame < next_frame && next_frame - frame > self.track_frames {
            // The ring has moved on.
            return Verdict::Behind;
        }
        let at = self.at(player, frame);
        let slot = self.slots.get_mut(at..at + self.stride_bytes);
        let Some((mark, bytes)) = slot.and_then(|slot| slot.split_first_chunk_mut()) else { return Verdict::Ahead };
        match Mark::read(*mark) {
            Mark::Filled { frame: known, len } if known == frame => {
                let first = bytes.get(..usize::from(len)).unwrap_or_default();
                if is_same(first, input) { Verdict::Duplicate } else { Verdict::Conflicting }
            }
            Mark::Missed { frame: known, late } if known == frame => {
                *mark = Mark::Missed { frame, late: true }.bytes();
                if late { Verdict::Duplicate } else { Verdict::Late }
            }
            _ if frame < next_frame => Verdict::Late,
            _ => {
                let Some(place) = bytes.get_mut(..input.len()) else { return Verdict::TooLong };
                place.copy_from_slice(input);
                // `input_bytes_max` of a valid manifest is at most 240.
                *mark = Mark::Filled { frame, len: input.len() as u8 }.bytes();
                Verdict::Taken
            }
        }
    }

    /// The input of a player for the frame that is stepped now. Each frame of each player is asked for once, in order.
    pub(crate) fn take(&mut self, player: usize, frame: u32) -> PlayerInput<'_> {
        let (at, last_at) = (self.at(player, frame), player * self.input_bytes_max);
        let absent = PlayerInput::default();
        let slot = self.slots.get_mut(at..at + self.stride_bytes);
        let Some((mark, bytes)) = slot.and_then(|slot| slot.split_first_chunk_mut()) else { return absent };
        let Some(last) = self.last.get_mut(player) else { return absent };
        let (status, age_frames) = match Mark::read(*mark) {
            Mark::Filled { frame: known, len } if known == frame => {
                if let (Some(from), Some(to)) =
                    (bytes.get(..usize::from(len)), self.last_bytes.get_mut(last_at..last_at + usize::from(len)))
                {
                    to.copy_from_slice(from);
                }
                *last = Some(Last { frame, len });
                (InputStatus::Fresh, 0)
            }
            _ => {
                *mark = Mark::Missed { frame, late: false }.bytes();
                let Some(last) = last else { return absent };
                (InputStatus::Repeated, u16::try_from(frame - last.frame).unwrap_or(u16::MAX))
            }
        };
        let len = last.map_or(0, |last| usize::from(last.len));
        PlayerInput { status, age_frames, bytes: self.last_bytes.get(last_at..last_at + len).unwrap_or_default() }
    }

    /// Forgets a player that left: its slot is absent from now on.
    pub(crate) fn forget(&mut self, player: usize) {
        let (from, len) = (self.at(player, 0), self.slots_per_player * self.stride_bytes);
        if let Some(slots) = self.slots.get_mut(from..from + len) {
            // Of empty marks.
            slots.fill(0);
        }
        if let Some(last) = self.last.get_mut(player) {
            *last = None;
        }
    }
}

/// Whether two inputs are the same. Most have a few bytes, and most that come are copies: a call of the library's comparison would take longer.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one == other)
}

/// How many inputs the advice on a player's lead looks back at, at least; at most twice as many. A second at 50 Hz: long enough
/// to see the jitter of a path, short enough to follow a change.
pub const MARGIN_WINDOW_INPUTS: u32 = 50;

/// The worst margin of the recent inputs of a player, in two halves, so that neither a list nor a sort is needed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Margin {
    before: Option<i32>,
    current: Option<i32>,
    count: u32,
    newest_frame: Option<u32>,
}

impl Margin {
    /// Notes how long before its frame was due an input came. Only the first input of a newer frame than any before counts, and `margin_us` is asked
    /// for that one alone: the copies of older ones in the same datagram say nothing of the path.
    pub(crate) fn note(&mut self, frame: u32, verdict: Verdict, margin_us: impl FnOnce() -> i32) {
        let is_newer = self.newest_frame.is_none_or(|newest| frame > newest);
        match verdict {
            Verdict::Taken | Verdict::Late | Verdict::Behind if is_newer => self.newest_frame = Some(frame),
            // It counts, for a player so far ahead must hear it; but a frame from the far future must not become the newest.
            Verdict::Ahead if is_newer => {}
            _ => return,
        }
        if self.count >= MARGIN_WINDOW_INPUTS {
            self.before = self.current.take();
            self.count = 0;
        }
        self.count += 1;
        let margin_us = margin_us();
        self.current = Some(self.current.map_or(margin_us, |worst| worst.min(margin_us)));
    }

    pub(crate) fn worst_us(&self) -> Option<i32> {
        match (self.before, self.current) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(crate) fn newest_frame(&self) -> Option<u32> {
        self.newest_frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn seen(input: PlayerInput<'_>) -> (InputStatus, u16, Vec<u8>) {
        (input.status, input.age_frames, input.bytes.to_vec())
    }

    #[test]
    fn the_policy_case_by_case() {
        use InputStatus::{Absent, Fresh, Repeated};
        let mut cache = InputCache::new(2, 4, 3);
        assert_eq!(seen(cache.take(0, 0)), (Absent, 0, vec![]));
        assert_eq!(cache.offer(0, 1, 0, b"x"), Verdict::Late);
        assert_eq!(cache.offer(0, 1, 0, b"x"), Verdict::Duplicate, "a copy of the late one");
        assert_eq!(cache.offer(0, 1, 1, b"one"), Verdict::Taken);
        assert_eq!(cache.offer(0, 1, 1, b"one"), Verdict::Duplicate);
        assert_eq!(cache.offer(0, 1, 1, b"on"), Verdict::Conflicting);
        assert_eq!(cache.offer(0, 1, 1, b"four"), Verdict::TooLong);
        assert_eq!(cache.offer(0, 1, 4, b"4"), Verdict::Taken, "the last frame of the track");
        assert_eq!(cache.offer(0, 1, 5, b"5"), Verdict::Ahead);
        assert_eq!(cache.offer(0, 1, u32::MAX, b"5"), Verdict::Ahead);
        assert_eq!(seen(cache.take(0, 1)), (Fresh, 0, b"one".to_vec()));
        assert_eq!(cache.offer(0, 2, 1, b"one"), Verdict::Duplicate, "it was stepped with it");
        assert_eq!(cache.offer(0, 2, 1, b"two"), Verdict::Conflicting);
        assert_eq!(seen(cache.take(0, 2)), (Repeated, 1, b"one".to_vec()));
        assert_eq!(seen(cache.take(0, 3)), (Repeated, 2, b"one".to_vec()));
        assert_eq!(seen(cache.take(0, 4)), (Fresh, 0, b"4".to_vec()));
        assert_eq!(seen(cache.take(0, 5)), (Repeated, 1, b"4".to_vec()));
        assert_eq!(cache.offer(0, 6, 1, b"one"), Verdict::Behind, "further behind than the track");
        assert_eq!(cache.offer(0, 6, 6, b""), Verdict::Taken, "an input may be empty");
        assert_eq!(seen(cache.take(0, 6)), (Fresh, 0, vec![]));
        assert_eq!(seen(cache.take(0, 7)), (Repeated, 1, vec![]));
        cache.offer(0, 8, 8, b"8");
        cache.forget(0);
        assert_eq!(seen(cache.take(0, 8)), (Absent, 0, vec![]));
    }

    #[test]
    fn an_age_saturates() {
        let mut cache = InputCache::new(1, 1, 1);
        cache.offer(0, 0, 0, b"a");
        cache.take(0, 0);
        assert_eq!(cache.take(0, 65_535).age_frames, 65_535);
        assert_eq!(cache.take(0, 65_536).age_frames, 65_535);
    }

    #[test]
    fn a_margin_is_the_worst_of_the_recent_and_only_of_new_frames() {
        let mut margin = Margin::default();
        assert_eq!(margin.worst_us(), None);
        margin.note(1, Verdict::Taken, || 500);
        margin.note(2, Verdict::Late, || -300);
        margin.note(1, Verdict::Duplicate, || -90_000);
        margin.note(2, Verdict::Late, || -90_000);
        assert_eq!((margin.worst_us(), margin.newest_frame()), (Some(-300), Some(2)));
        margin.note(u32::MAX, Verdict::Ahead, || 9_000_000);
        assert_eq!((margin.worst_us(), margin.newest_frame()), (Some(-300), Some(2)));
        for frame in 0..2 * MARGIN_WINDOW_INPUTS {
            margin.note(3 + frame, Verdict::Taken, || 700);
        }
        assert_eq!(margin.worst_us(), Some(700), "an old hiccup is forgotten");
    }

    proptest! {
        /// The ring against a plain map that forgets nothing.
        #[test]
        fn the_ring_agrees_with_a_map(
            track in 1u16..9,
            steps in proptest::collection::vec((any::<bool>(), -20i64..20, 0u8..3), 0..300),
        ) {
            let mut cache = InputCache::new(1, track, 1);
            let (mut next, mut last) = (0u32, None);
            let mut first: BTreeMap<u32, (u8, bool)> = BTreeMap::new();
            for (tick, offset, value) in steps {
                if tick {
                    let got = seen(cache.take(0, next));
                    match first.get(&next) {
                        Some((value, true)) => {
                            last = Some((next, *value));
                            prop_assert_eq!(got, (InputStatus::Fresh, 0, vec![*value]));
                        }
                        _ => match last {
                            Some((frame, value)) => {
                                prop_assert_eq!(got, (InputStatus::Repeated, (next - frame) as u16, vec![value]));
                            }
                            None => prop_assert_eq!(got, (InputStatus::Absent, 0, vec![])),
                        },
                    }
                    next += 1;
                } else {
                    let frame = (i64::from(next) + offset).max(0) as u32;
                    let expected = if frame >= next + u32::from(track) {
                        Verdict::Ahead
                    } else if frame + u32::from(track) < next {
                        Verdict::Behind
                    } else {
                        match first.get(&frame) {
                            Some((_, false)) => Verdict::Duplicate,
                            Some((v, true)) if *v == value => Verdict::Duplicate,
                            Some((_, true)) => Verdict::Conflicting,
                            None => {
                                first.insert(frame, (value, frame >= next));
                                if frame >= next { Verdict::Taken } else { Verdict::Late }
                            }
                        }
                    };
                    prop_assert_eq!(cache.offer(0, next, frame, &[value]), expected);
                }
            }
        }
    }
}
