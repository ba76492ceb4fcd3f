//! A bad network, as dice and a queue: what becomes of each datagram of one way (lost, late, twice, overtaken), decided by a seed, and a bounded place where
//! datagrams wait until they are due. Pure: the time is an argument, nothing is sent.
//!
//! Every datagram draws the same number of dice whatever becomes of it. So with the same seed the n-th datagram of a way has the same fate in every run, and a
//! change of one figure moves no dice of the others.

use serde::Serialize;

use crate::random::Random;

/// The longest delay, in milliseconds: a path around the world takes 300.
pub const DELAY_MS_MAX: u32 = 2_000;
/// The largest jitter, in milliseconds: with the delay it stays below what the account of inputs looks back on.
pub const JITTER_MS_MAX: u32 = 1_000;
/// All of a way's datagrams, in parts of a million.
pub const ALL_PPM: u32 = 1_000_000;
/// How much later a datagram comes that is to be overtaken, in microseconds: longer than a tick at 50 Hz, so that the next one of a stream comes before it.
pub const HELD_BACK_US: u64 = 30_000;
/// Datagrams of one thread that wait, at most: those of 4,000 players at 50 Hz in both directions for a third of a second, about 40 MiB. One that finds no place is
/// lost and counted, and the figures are not believed then.
pub const WAITING_MAX: usize = 1 << 17;
/// A span of the queue, in microseconds: as long as a thread of players sleeps, so that a look takes all of one span and a part of the next.
const SPAN_US: u64 = 1_000;
/// Spans of the queue: more than the longest delay has, and a second in which a thread did not look.
const SPANS: usize = 4_096;
/// How much later than the first that waits anything may be due, in microseconds.
pub const WAIT_US_MAX: u64 = SPANS as u64 * SPAN_US;

/// What a network does to datagrams, in each direction alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Impairment {
    /// Lost, in parts of a million.
    pub loss_ppm: u32,
    /// How long each takes, in milliseconds.
    pub delay_ms: u32,
    /// How much less or more than that it may be, in milliseconds, evenly spread. No delay is below 0.
    pub jitter_ms: u32,
    /// Coming twice, each copy with a jitter of its own, in parts of a million.
    pub duplicate_ppm: u32,
    /// Held back by [`HELD_BACK_US`], so that later ones overtake them, in parts of a million.
    pub reorder_ppm: u32,
}

/// A figure of an [`Impairment`] out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {got}; accepted: 0 to {max}")]
pub struct ImpairmentError {
    /// The figure, with its unit.
    pub what: &'static str,
    /// What it is.
    pub got: u32,
    /// The most that it may be.
    pub max: u32,
}

impl Impairment {
    /// Whether nothing is done.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Looks at the ranges.
    ///
    /// # Errors
    /// The first figure that is out of its range.
    pub fn check(&self) -> Result<(), ImpairmentError> {
        let ranges = [
            ("loss in parts of a million", self.loss_ppm, ALL_PPM),
            ("delay in ms", self.delay_ms, DELAY_MS_MAX),
            ("jitter in ms", self.jitter_ms, JITTER_MS_MAX),
            ("duplication in parts of a million", self.duplicate_ppm, ALL_PPM),
            ("reordering in parts of a million", self.reorder_ppm, ALL_PPM),
        ];
        match ranges.into_iter().find(|(_, got, max)| got > max) {
            Some((what, got, max)) => Err(ImpairmentError { what, got, max }),
            None => Ok(()),
        }
    }

    /// The longest that a datagram may wait, in microseconds.
    #[must_use]
    pub fn delay_us_max(&self) -> u64 {
        let held_back_us = if self.reorder_ppm > 0 { HELD_BACK_US } else { 0 };
        u64::from(self.delay_ms.saturating_add(self.jitter_ms)) * 1_000 + held_back_us
    }
}

/// What becomes of one datagram: for each of its copies how long it takes, in microseconds. None at all: it is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    /// The first copy.
    pub first_us: Option<u64>,
    /// A second one.
    pub second_us: Option<u64>,
}

impl Fate {
    /// Whether nothing of it comes.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.first_us.is_none()
    }

    /// How long each copy takes.
    pub fn delays_us(self) -> impl Iterator<Item = u64> {
        self.first_us.into_iter().chain(self.second_us)
    }
}

/// One direction of one player's network.
#[derive(Debug, Clone)]
pub struct Way {
    impairment: Impairment,
    random: Random,
}

impl Way {
    /// A way whose dice come from `seed`.
    #[must_use]
    pub const fn new(impairment: Impairment, seed: u64) -> Self {
        Self { impairment, random: Random::new(seed) }
    }

    /// What becomes of the next datagram.
    pub fn decide(&mut self) -> Fate {
        let Impairment { loss_ppm, duplicate_ppm, reorder_ppm, .. } = self.impairment;
        let mut falls = |ppm: u32| self.random.below(u64::from(ALL_PPM)) < u64::from(ppm);
        let (lost, doubled, held_back) = (falls(loss_ppm), falls(duplicate_ppm), falls(reorder_ppm));
        let (first_us, second_us) = (self.delay_us(), self.delay_us());
        if lost {
            return Fate { first_us: None, second_us: None };
        }
        let first_us = first_us + if held_back { HELD_BACK_US } else { 0 };
        Fate { first_us: Some(first_us), second_us: doubled.then_some(second_us) }
    }

    fn delay_us(&mut self) -> u64 {
        let (delay_us, jitter_us) =
            (u64::from(self.impairment.delay_ms) * 1_000, u64::from(self.impairment.jitter_ms) * 1_000);
        (delay_us + self.random.below(2 * jitter_us + 1)).saturating_sub(jitter_us)
    }
}

/// What waits until it is due, each with some bytes: a ring of short spans of time, so that putting in and taking out touch the memory of one span and no heap's whole
/// depth. What is due in one span is put into order when its time has come.
#[derive(Debug)]
pub struct Waiting<T> {
    /// Span `n` is in place `n % SPANS`.
    spans: Box<[Span<T>]>,
    /// The first span that may hold something.
    first: u64,
    len: usize,
    /// The memory of spans that are over; the last one that was is still near the processor.
    spare: Vec<Span<T>>,
}

/// What is due within [`SPAN_US`].
#[derive(Debug)]
struct Span<T> {
    entries: Vec<Entry<T>>,
    /// Those before have left.
    taken: usize,
    is_sorted: bool,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Entry<T> {
    due_us: u64,
    /// How many came into its span before: what is due at the same moment leaves in the order in which it came.
    order: u32,
    /// Where its bytes are.
    start: u32,
    end: u32,
    what: T,
}

impl<T> Span<T> {
    const fn new() -> Self {
        Self { entries: Vec::new(), taken: 0, is_sorted: true, bytes: Vec::new() }
    }
}

impl<T: Copy> Waiting<T> {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let spans = std::iter::repeat_with(Span::new).take(SPANS).collect();
        Self { spans, first: 0, len: 0, spare: Vec::new() }
    }

    /// Puts something in until `due_us`. What is due already leaves next.
    ///
    /// # Errors
    /// Gives it back if [`WAITING_MAX`] wait already, or if it is due later than anything should be: [`WAIT_US_MAX`] after the first that waits.
    pub fn push(&mut self, due_us: u64, what: T, bytes: &[u8]) -> Result<(), T> {
        let number = (due_us / SPAN_US).max(self.first);
        if self.len >= WAITING_MAX || number - self.first >= SPANS as u64 {
            return Err(what);
        }
        let Some(span) = self.spans.get_mut(place(number)) else { return Err(what) };
        if span.entries.capacity() == 0
            && let Some(spare) = self.spare.pop()
        {
            *span = spare;
        }
        let (Ok(order), Ok(start), Ok(end)) = (
            u32::try_from(span.entries.len()),
            u32::try_from(span.bytes.len()),
            u32::try_from(span.bytes.len().saturating_add(bytes.len())),
        ) else {
            return Err(what);
        };
        span.bytes.extend_from_slice(bytes);
        span.entries.push(Entry { due_us, order, start, end, what });
        span.is_sorted = false;
        self.len += 1;
        Ok(())
    }

    /// The next that is due by `now_us`, with the moment at which it was; its bytes are put in place of those in the buffer.
    pub fn pop_due(&mut self, now_us: u64, bytes: &mut Vec<u8>) -> Option<(u64, T)> {
        let now = now_us / SPAN_US;
        if self.len == 0 {
            self.first = self.first.max(now);
            return None;
        }
        while self.first <= now {
            let span = self.spans.get_mut(place(self.first))?;
            if span.taken == span.entries.len() {
                if self.first == now {
                    return None;
                }
                self.first += 1;
                continue;
            }
            if !span.is_sorted {
                let waiting = span.entries.get_mut(span.taken..)?;
                waiting.sort_unstable_by_key(|entry| (entry.due_us, entry.order));
                span.is_sorted = true;
            }
            let Entry { due_us, start, end, what, .. } = *span.entries.get(span.taken)?;
            if due_us > now_us {
                return None;
            }
            bytes.clear();
            bytes.extend_from_slice(span.bytes.get(start as usize..end as usize).unwrap_or_default());
            span.taken += 1;
            self.len -= 1;
            if span.taken == span.entries.len() {
                let mut over = std::mem::replace(span, Span::new());
                (over.taken, over.is_sorted) = (0, true);
                over.entries.clear();
                over.bytes.clear();
                self.spare.push(over);
            }
            return Some((due_us, what));
        }
        None
    }

    /// What leaves next, as far as it is known: none where a span begins.
    pub fn upcoming(&self) -> impl Iterator<Item = &T> {
        let span = self.spans.get(place(self.first)).filter(|span| span.is_sorted);
        let waiting = span.and_then(|span| span.entries.get(span.taken..)).unwrap_or_default();
        waiting.iter().map(|entry| &entry.what)
    }

    /// How many wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T: Copy> Default for Waiting<T> {
    fn default() -> Self {
        Self::new()
    }
}

const fn place(number: u64) -> usize {
    (number % SPANS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: Impairment =
        Impairment { loss_ppm: 50_000, delay_ms: 40, jitter_ms: 10, duplicate_ppm: 20_000, reorder_ppm: 10_000 };

    fn fates(impairment: Impairment, seed: u64, count: usize) -> Vec<Fate> {
        let mut way = Way::new(impairment, seed);
        (0..count).map(|_| way.decide()).collect()
    }

    #[test]
    fn the_same_seed_is_the_same_fate_and_another_is_not() {
        assert_eq!(fates(BAD, 7, 10_000), fates(BAD, 7, 10_000));
        assert_ne!(fates(BAD, 7, 100), fates(BAD, 8, 100));
    }

    #[test]
    fn another_figure_moves_no_dice() {
        let (few, many) = (fates(BAD, 3, 5_000), fates(Impairment { loss_ppm: 300_000, ..BAD }, 3, 5_000));
        for (few, many) in few.iter().zip(&many) {
            assert!(many.is_lost() || many == few, "what comes takes as long: {few:?} {many:?}");
            assert!(!few.is_lost() || many.is_lost(), "what was lost at less is lost at more");
        }
    }

    #[test]
    fn as_many_as_asked_are_lost_late_and_doubled() {
        const COUNT: usize = 100_000;
        let all = fates(BAD, 11, COUNT);
        let share = |is: &dyn Fn(&Fate) -> bool| all.iter().filter(|fate| is(fate)).count() as f64 / COUNT as f64;
        let near = |got: f64, wanted: f64| assert!((got / wanted - 1.0).abs() < 0.1, "{got} instead of {wanted}");
        near(share(&Fate::is_lost), 0.05);
        near(share(&|fate| fate.second_us.is_some()), 0.95 * 0.02);
        near(share(&|fate| fate.first_us.is_some_and(|us| us > 50_000)), 0.95 * 0.01);
        for us in all.iter().flat_map(|fate| fate.delays_us()) {
            assert!((30_000..=50_000).contains(&us) || (60_000..=80_000).contains(&us), "{us}");
            assert!(us <= BAD.delay_us_max());
        }
    }

    #[test]
    fn without_figures_nothing_happens_and_jitter_never_goes_below_zero() {
        assert!(Impairment::default().is_none() && !BAD.is_none());
        let now = Fate { first_us: Some(0), second_us: None };
        assert!(fates(Impairment::default(), 1, 1_000).iter().all(|fate| *fate == now));
        let more_jitter = Impairment { delay_ms: 1, jitter_ms: 5, ..Impairment::default() };
        let delays: Vec<u64> = fates(more_jitter, 1, 1_000).iter().filter_map(|fate| fate.first_us).collect();
        assert!(delays.iter().all(|us| *us <= 6_000) && delays.contains(&0));
    }

    #[test]
    fn figures_out_of_range_are_named() {
        assert_eq!(BAD.check(), Ok(()));
        let text = |impairment: Impairment| impairment.check().unwrap_err().to_string();
        assert_eq!(text(Impairment { delay_ms: 2_001, ..BAD }), "delay in ms is 2001; accepted: 0 to 2000");
        assert!(text(Impairment { loss_ppm: 1_000_001, ..BAD }).contains("accepted: 0 to 1000000"));
        assert!(Impairment { jitter_ms: u32::MAX, ..BAD }.check().is_err());
    }

    #[test]
    fn what_waits_leaves_when_it_is_due_and_in_order() {
        let mut waiting = Waiting::new();
        for (due_us, what) in [(30, 'c'), (10, 'a'), (30, 'd'), (20, 'b')] {
            waiting.push(due_us, what, what.to_string().repeat(due_us as usize).as_bytes()).unwrap();
        }
        let mut bytes = b"old".to_vec();
        assert_eq!(waiting.pop_due(9, &mut bytes), None);
        assert_eq!(waiting.pop_due(20, &mut bytes), Some((10, 'a')));
        assert_eq!(bytes, b"aaaaaaaaaa");
        assert_eq!(waiting.pop_due(20, &mut bytes), Some((20, 'b')));
        assert_eq!(waiting.pop_due(20, &mut bytes), None);
        // Due already when it comes, before what waits.
        waiting.push(5, 'e', b"").unwrap();
        let all: Vec<_> = std::iter::from_fn(|| waiting.pop_due(99, &mut bytes)).collect();
        assert_eq!((all, bytes.len()), (vec![(5, 'e'), (30, 'c'), (30, 'd')], 30));
        assert!(waiting.is_empty());
    }

    #[test]
    fn it_is_the_same_as_a_sorted_list() {
        for seed in 0..20 {
            println!("seed {seed}");
            let (mut random, mut waiting, mut list) = (Random::new(seed), Waiting::new(), Vec::new());
            let (mut now_us, mut bytes) = (0, Vec::new());
            for number in 0u32..4_000 {
                // Now and then nobody looks for a second, and then at once.
                let stood_still = random.below(500) == 0;
                now_us += if stood_still { 1_000_000 } else { random.below(400) };
                let due_us = now_us.saturating_sub(random.below(3_000)) + random.below(1 + (seed % 4) * 900_000);
                waiting.push(due_us, number, &number.to_le_bytes()).unwrap();
                list.push((due_us, number));
                if random.below(30) == 0 || stood_still {
                    let mut due: Vec<_> = list.extract_if(.., |(due_us, _)| *due_us <= now_us).collect();
                    due.sort_unstable();
                    let mut popped = Vec::new();
                    while let Some(next) = waiting.pop_due(now_us, &mut bytes) {
                        assert_eq!(bytes, next.1.to_le_bytes());
                        popped.push(next);
                    }
                    assert_eq!(popped, due);
                    assert_eq!(waiting.len(), list.len());
                }
            }
        }
    }

    #[test]
    fn what_is_due_too_late_finds_no_place_and_memory_is_used_again() {
        let (mut waiting, mut bytes) = (Waiting::new(), Vec::new());
        assert_eq!(waiting.push(WAIT_US_MAX, 'a', b""), Err('a'));
        for turn in 0..3 {
            let from_us = turn * 2 * WAIT_US_MAX;
            assert_eq!(waiting.pop_due(from_us, &mut bytes), None);
            for at in 0..100 {
                waiting.push(from_us + at * SPAN_US, 'b', b"b").unwrap();
            }
            let later_us = from_us + WAIT_US_MAX - 1;
            waiting.push(later_us, 'c', b"c").unwrap();
            assert_eq!(std::iter::from_fn(|| waiting.pop_due(later_us, &mut bytes)).count(), 101);
            assert_eq!(waiting.spare.len(), 101, "and no more than wait at a time");
        }
    }

    #[test]
    fn a_full_queue_gives_back_what_finds_no_place() {
        let (mut waiting, mut bytes) = (Waiting::new(), Vec::new());
        for number in 0..WAITING_MAX {
            waiting.push(number as u64, number, b"").unwrap();
        }
        assert_eq!(waiting.push(0, 7, b""), Err(7));
        assert_eq!(waiting.len(), WAITING_MAX);
        assert!(waiting.pop_due(0, &mut bytes).is_some() && waiting.push(0, 7, b"").is_ok());
    }
}
