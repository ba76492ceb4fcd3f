//! A bad network, as dice and a queue: what becomes of each datagram of one way (lost, late, twice, overtaken), decided by a seed, and a bounded place where
//! datagrams wait until they are due. Pure: the time is an argument, nothing is sent.
//!
//! Every datagram draws the same number of dice whatever becomes of it. So with the same seed the n-th datagram of a way has the same fate in every run, and a
//! change of one figure moves no dice of the others.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

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

/// What waits until it is due.
#[derive(Debug)]
pub struct Waiting<T> {
    heap: BinaryHeap<Entry<T>>,
    /// How many came so far: what is due at the same moment leaves in the order in which it came.
    came: u64,
}

#[derive(Debug)]
struct Entry<T> {
    due_us: u64,
    order: u64,
    what: T,
}

impl<T> Waiting<T> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { heap: BinaryHeap::new(), came: 0 }
    }

    /// Puts something in until `due_us`.
    ///
    /// # Errors
    /// Gives it back if [`WAITING_MAX`] wait already.
    pub fn push(&mut self, due_us: u64, what: T) -> Result<(), T> {
        if self.heap.len() >= WAITING_MAX {
            return Err(what);
        }
        self.heap.push(Entry { due_us, order: self.came, what });
        self.came += 1;
        Ok(())
    }

    /// The next that is due by `now_us`, with the moment at which it was.
    pub fn pop_due(&mut self, now_us: u64) -> Option<(u64, T)> {
        if self.heap.peek()?.due_us > now_us {
            return None;
        }
        self.heap.pop().map(|entry| (entry.due_us, entry.what))
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self::new()
    }
}

// The heap gives the greatest, and the one that is due first is wanted.
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due_us, other.order).cmp(&(self.due_us, self.order))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}

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
            waiting.push(due_us, what).unwrap();
        }
        assert_eq!(waiting.pop_due(9), None);
        assert_eq!(waiting.pop_due(20), Some((10, 'a')));
        assert_eq!(waiting.pop_due(20), Some((20, 'b')));
        assert_eq!(waiting.pop_due(20), None);
        assert_eq!((waiting.pop_due(99), waiting.pop_due(99)), (Some((30, 'c')), Some((30, 'd'))));
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_full_queue_gives_back_what_finds_no_place() {
        let mut waiting = Waiting::new();
        for number in 0..WAITING_MAX {
            waiting.push(number as u64, number).unwrap();
        }
        assert_eq!(waiting.push(0, 7), Err(7));
        assert_eq!(waiting.len(), WAITING_MAX);
        assert!(waiting.pop_due(0).is_some() && waiting.push(0, 7).is_ok());
    }
}
