//! A distribution of measured values in about a kilobyte: what most of them were, and the worst.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Significant digits of a quantile. One makes steps of a sixteenth of the value (6 %), which is far less than what two runs of the same
/// game differ by; two would take eight times the memory.
const DIGITS: u8 = 1;

/// The values that a [`Distribution`] tells apart. Both bounds are powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Values below 32 times this are told apart by steps of this.
    step: u64,
    /// Values above count as this one; the greatest is kept as it was all the same.
    most: u64,
    /// What a [`Distribution::small`] one has room for from the beginning.
    usual: u64,
}

/// Nanoseconds of a tick: steps of 0.1 µs up to 4 µs, then of 6 %, up to 67 ms. A tick that is over its budget is seen from the greatest value.
pub const TICK_NS: Bounds = Bounds { step: 1 << 7, most: 1 << 26, usual: 1 << 14 };
/// Fuel of a tick: steps of 256 up to 8,192, then of 6 %, up to 134 million, 33 ms of work.
pub const TICK_FUEL: Bounds = Bounds { step: 1 << 8, most: 1 << 27, usual: 1 << 15 };
/// Microseconds that a step came late: steps of 1 µs up to 32 µs, then of 6 %, up to a second.
pub const LATENESS_US: Bounds = Bounds { step: 1, most: 1 << 20, usual: 1 << 10 };

/// Microseconds that a step took: the same.
pub const STEP_US: Bounds = LATENESS_US;

/// How often which values came. One thread writes it; others get copies.
#[derive(Debug, Clone)]
pub struct Distribution {
    histogram: Histogram<u32>,
    sum: u64,
    max: u64,
    /// Values above count as this one.
    most: u64,
}

/// What is told of a distribution, in the unit of its values. All zero while there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Quantiles {
    /// Half of the values were at most this.
    pub p50: u64,
    /// 99 of 100 values were at most this.
    pub p99: u64,
    /// The greatest value.
    pub max: u64,
}

impl Distribution {
    /// An empty one.
    #[must_use]
    #[allow(clippy::missing_panics_doc, clippy::expect_used)]
    pub fn new(bounds: Bounds) -> Self {
        // Bounds are made in this file alone, and a test makes a distribution of each.
        let histogram = Histogram::new_with_bounds(bounds.step, bounds.most, DIGITS).expect("the bounds are valid");
        Self { histogram, sum: 0, max: 0, most: bounds.most }
    }

    /// An empty one with room for the usual values, which grows for others: a third of the memory of one that has it for all, and an allocation for the first value in
    /// each doubling beyond. For what there are thousands of.
    #[must_use]
    pub fn small(bounds: Bounds) -> Self {
        let mut small = Self::new(Bounds { most: bounds.usual, ..bounds });
        small.histogram.auto(true);
        Self { most: bounds.most, ..small }
    }

    /// Adds a value.
    pub fn record(&mut self, value: u64) {
        // Fails for none that its bounds hold.
        let _within = self.histogram.record(value.min(self.most));
        self.sum = self.sum.saturating_add(value);
        self.max = self.max.max(value);
    }

    /// Adds the values of another one. Of other bounds, its values count at the nearest that these have.
    pub fn add(&mut self, other: &Self) {
        if self.histogram.add(&other.histogram).is_err() {
            for step in other.histogram.iter_recorded() {
                self.histogram.saturating_record_n(step.value_iterated_to(), step.count_at_value());
            }
        }
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// The values that came after `earlier`, an older copy of this one. Their greatest is known to the next step upwards.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut histogram = self.histogram.clone();
        // Fails if it is no older copy; all values are then told.
        let _not_older = histogram.subtract(&earlier.histogram);
        let max = if histogram.is_empty() { 0 } else { histogram.max().min(self.max) };
        Self { histogram, sum: self.sum.saturating_sub(earlier.sum), max, most: self.most }
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// All values together.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// The greatest value, exactly.
    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// The value that the part `of_all` (0 to 1) of the values does not exceed, to the next step upwards; 0 while there are none.
    #[must_use]
    pub fn quantile(&self, of_all: f64) -> u64 {
        if self.histogram.is_empty() {
            return 0;
        }
        self.histogram.value_at_quantile(of_all).min(self.max)
    }

    /// What is told of it.
    #[must_use]
    pub fn quantiles(&self) -> Quantiles {
        Quantiles { p50: self.quantile(0.5), p99: self.quantile(0.99), max: self.max }
    }

    /// How many values came in each range, for those who add up the ranges of many hosts: ten ranges, each with the greatest value that belongs
    /// to it and four times as wide as the one before; the last has no end.
    #[must_use]
    pub fn ranges(&self) -> Vec<(Option<u64>, u64)> {
        /// From 8 steps (1 µs of a tick) to 2 to the power of 16 times that.
        const ENDS: usize = 9;
        let mut ranges = Vec::with_capacity(ENDS + 1);
        let (mut from, mut end, mut rest) = (0, self.histogram.low().saturating_mul(8), self.histogram.len());
        for _ in 0..ENDS {
            // The ends are ends of steps, so no step counts in two ranges.
            // What lies beyond a small one's room counts as its last step, which is not there.
            let has_room = from == 0 || from <= self.histogram.high();
            let count = if has_room { self.histogram.count_between(from, end - 1) } else { 0 };
            ranges.push((Some(end - 1), count));
            rest = rest.saturating_sub(count);
            (from, end) = (end, end.saturating_mul(4));
        }
        ranges.push((None, rest));
        ranges
    }

    /// How many values came in each step, for those who take off what came before: the greatest value of the step, and how many. Steps without any are left
    /// out.
    #[must_use]
    pub fn steps(&self) -> Vec<(u64, u64)> {
        self.histogram
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), u64::from(step.count_at_value())))
            .collect()
    }

    /// Bytes that it takes, those on the heap included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.histogram.distinct_values() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_at_most_a_sixteenth_above_the_values() {
        for (bounds, scale) in [(TICK_NS, 400), (TICK_FUEL, 900), (LATENESS_US, 3)] {
            let mut distribution = Distribution::new(bounds);
            assert_eq!(distribution.quantiles(), Quantiles::default());
            for value in 1..=1_000 {
                distribution.record(value * scale);
            }
            let Quantiles { p50, p99, max } = distribution.quantiles();
            let near = |found: u64, exact: u64| (exact..=exact + exact / 16 + bounds.step).contains(&found);
            assert!(near(p50, 500 * scale) && near(p99, 990 * scale), "{p50} {p99} {scale}");
            assert_eq!((max, distribution.sum(), distribution.count()), (1_000 * scale, 500_500 * scale, 1_000));
        }
    }

    #[test]
    fn a_value_beyond_the_bounds_counts_and_the_greatest_stays_exact() {
        let mut distribution = Distribution::new(TICK_NS);
        for value in [0, u64::MAX, 500_000_123] {
            distribution.record(value);
        }
        assert_eq!((distribution.count(), distribution.max(), distribution.sum()), (3, u64::MAX, u64::MAX));
        assert!(distribution.quantile(0.5) >= TICK_NS.most && distribution.quantile(0.01) == 127);
    }

    #[test]
    fn every_value_counts_in_exactly_one_range() {
        for bounds in [TICK_NS, TICK_FUEL, LATENESS_US] {
            let mut distribution = Distribution::new(bounds);
            let values = (0..=30).flat_map(|power| [(1u64 << power) - 1, 1 << power, (1 << power) + 1]);
            let mut counted = std::collections::BTreeMap::new();
            let ends: Vec<_> = distribution.ranges().iter().map(|(most, _)| most.unwrap_or(u64::MAX)).collect();
            assert!(ends.len() == 10 && ends.is_sorted(), "{ends:?}");
            for value in values {
                distribution.record(value);
                *counted.entry(*ends.iter().find(|most| value <= **most).unwrap()).or_insert(0) += 1;
            }
            let found: Vec<_> =
                distribution.ranges().iter().map(|(most, count)| (most.unwrap_or(u64::MAX), *count)).collect();
            let expected: Vec<_> = ends.iter().map(|most| (*most, counted.get(most).copied().unwrap_or(0))).collect();
            assert_eq!(found, expected);
            assert_eq!(found.iter().map(|(_, count)| count).sum::<u64>(), distribution.count());
        }
    }

    #[test]
    fn steps_have_every_value_once_and_in_order() {
        let mut distribution = Distribution::new(LATENESS_US);
        [3, 3, 31, 1_000, 1_001, 1 << 30].into_iter().for_each(|value| distribution.record(value));
        let steps = distribution.steps();
        assert_eq!(steps.iter().map(|(_, count)| count).sum::<u64>(), distribution.count());
        assert_eq!(steps.get(..2), Some(&[(3, 2), (31, 1)][..]));
        assert!(steps.is_sorted_by(|a, b| a.0 < b.0), "{steps:?}");
        let (most, count) = steps[2];
        assert!((1_001..=1_064).contains(&most) && count == 2, "{steps:?}");
        assert!(Distribution::new(LATENESS_US).steps().is_empty());
    }

    #[test]
    fn two_together_are_one_of_all_values() {
        let mut whole = Distribution::new(TICK_FUEL);
        let mut parts = [Distribution::new(TICK_FUEL), Distribution::new(TICK_FUEL)];
        for value in 0..5_000 {
            whole.record(value * 17);
            parts[usize::from(value % 3 == 0)].record(value * 17);
        }
        let [mut first, second] = parts;
        first.add(&second);
        assert_eq!((first.quantiles(), first.sum(), first.count()), (whole.quantiles(), whole.sum(), whole.count()));
        // Of other bounds: nothing is lost but precision.
        let mut other = Distribution::new(LATENESS_US);
        other.add(&whole);
        assert_eq!((other.count(), other.sum(), other.max()), (whole.count(), whole.sum(), whole.max()));
    }

    #[test]
    fn a_small_one_tells_the_same_whatever_comes() {
        for bounds in [TICK_NS, TICK_FUEL, LATENESS_US] {
            let (mut whole, mut small) = (Distribution::new(bounds), Distribution::small(bounds));
            assert!(small.bytes() * 2 < whole.bytes() && small.ranges() == whole.ranges());
            let mut earlier = (whole.clone(), small.clone());
            for value in (0..=40).map(|power| (1u64 << power) + 1).chain([bounds.most, 7, u64::MAX, 3]) {
                whole.record(value);
                small.record(value);
                assert_eq!((small.steps(), small.ranges()), (whole.steps(), whole.ranges()), "{value}");
                assert_eq!((small.quantiles(), small.count()), (whole.quantiles(), whole.count()));
                let (whole_since, small_since) = (whole.since(&earlier.0), small.since(&earlier.1));
                assert_eq!((small_since.steps(), small_since.max()), (whole_since.steps(), whole_since.max()));
                if value % 3 == 0 {
                    earlier = (whole.clone(), small.clone());
                }
            }
            let mut sum = Distribution::new(bounds);
            sum.add(&small);
            assert_eq!(sum.steps(), whole.steps());
        }
    }

    #[test]
    fn it_takes_about_a_kilobyte() {
        for bounds in [TICK_NS, TICK_FUEL, LATENESS_US] {
            let bytes = Distribution::new(bounds).bytes();
            println!("{bounds:?}: {bytes} bytes");
            assert!(bytes <= 1_280, "{bounds:?}: {bytes}");
        }
    }

    #[test]
    fn what_came_since_is_without_what_came_before() {
        let mut all = Distribution::new(LATENESS_US);
        [900, 5, 7].into_iter().for_each(|value| all.record(value));
        let earlier = all.clone();
        assert_eq!((all.since(&earlier).count(), all.since(&earlier).quantiles()), (0, Quantiles::default()));
        [3, 4, 20].into_iter().for_each(|value| all.record(value));
        let since = all.since(&earlier);
        assert_eq!((since.count(), since.sum(), since.quantiles()), (3, 27, Quantiles { p50: 4, p99: 20, max: 20 }));
    }
}
