//! What players saw over time, as HdrHistograms: gaps between snapshots, how long an input takes until its frame's snapshot is there, and how late this generator
//! itself was.
//!
//! # Coordinated omission
//!
//! A generator that waits for the host before it sends the next thing measures only the moments in which the host was well: while the host hangs, nothing is
//! sent, so nothing is slow. Gil Tene named it coordinated omission ("How NOT to Measure Latency", 2013; HdrHistogram's `recordValueWithExpectedInterval`
//! and wrk2 are his). Two things are done about it:
//!
//! - An input is due at a moment of the player's own clock, whether a snapshot came or not, and is sent then. Its delay counts from that moment, also where this
//!   generator sent it later; a frame that was skipped because it came too late counts from the moment at which it was due. Every input is counted
//!   once, when the first snapshot of its frame or a newer one is there. So no correction is needed, as in wrk2.
//! - A gap between snapshots that is longer than a tick stands for the snapshots that did not come in it: besides itself it is recorded less one tick, less
//!   two, and so on, which is HdrHistogram's correction with the tick as the expected interval.

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest time that is told apart, in microseconds: a minute. What is longer counts as that.
const LONGEST_US: u64 = 60_000_000;
/// Significant digits: a thousandth of a value, in 140 KiB for each histogram.
const DIGITS: u8 = 3;

/// Times in microseconds, and how often each came.
#[derive(Debug, Clone, PartialEq)]
pub struct Times(Histogram<u64>);

/// What players saw.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Between one whole snapshot of a player and its next, corrected for coordinated omission.
    pub snapshot_gap: Times,
    /// From the moment at which an input was due to the arrival of the first snapshot that can show it.
    pub input_delay: Times,
    /// How much later than it should this generator handed datagrams with inputs to the system.
    pub send_late: Times,
}

/// What is told of [`Times`], in microseconds. All zero while there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Quantiles {
    /// How many values there are.
    pub count: u64,
    /// Half of them were at most this.
    pub p50: u64,
    /// 90 of 100.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1,000.
    pub p999: u64,
    /// The greatest.
    pub max: u64,
}

impl Times {
    /// None yet.
    #[must_use]
    #[allow(clippy::missing_panics_doc, clippy::expect_used)]
    pub fn new() -> Self {
        // The bounds are constants, and every test of this file makes one.
        Self(Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("the bounds are valid"))
    }

    /// Adds one.
    pub fn record(&mut self, us: u64) {
        self.0.saturating_record(us);
    }

    /// Adds one that stands for others that are missing: they should have come every `interval_us`.
    pub fn record_corrected(&mut self, us: u64, interval_us: u64) {
        // Fails for values beyond the bounds only.
        let _fits = self.0.record_correct(us.min(LONGEST_US), interval_us.max(1));
    }

    /// Adds those of another.
    pub fn add(&mut self, other: &Self) {
        // Their bounds are the same.
        let _same_bounds = self.0.add(&other.0);
    }

    /// Those that came since `earlier`, an older copy of this.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.0.clone();
        // Fails if it is no older copy; all are told then.
        let _not_older = since.subtract(&earlier.0);
        Self(since)
    }

    /// What is told of them.
    #[must_use]
    pub fn quantiles(&self) -> Quantiles {
        if self.0.is_empty() {
            return Quantiles::default();
        }
        let at = |part: f64| self.0.value_at_quantile(part).min(self.0.max());
        Quantiles { count: self.0.len(), p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: self.0.max() }
    }

    /// The value that a part (0 to 1) of them does not exceed.
    #[must_use]
    pub fn at(&self, part: f64) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.value_at_quantile(part).min(self.0.max()) }
    }
}

impl Default for Times {
    fn default() -> Self {
        Self::new()
    }
}

impl Observed {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { snapshot_gap: Times::new(), input_delay: Times::new(), send_late: Times::new() }
    }

    /// Adds what others saw.
    pub fn add(&mut self, other: &Self) {
        self.snapshot_gap.add(&other.snapshot_gap);
        self.input_delay.add(&other.input_delay);
        self.send_late.add(&other.send_late);
    }

    /// What was seen since `earlier`, an older copy of this.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            snapshot_gap: self.snapshot_gap.since(&earlier.snapshot_gap),
            input_delay: self.input_delay.since(&earlier.input_delay),
            send_late: self.send_late.since(&earlier.send_late),
        }
    }
}

impl Default for Observed {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut times = Times::new();
        assert_eq!(times.quantiles(), Quantiles::default());
        (1..=10_000).for_each(|us| times.record(us));
        let Quantiles { count, p50, p90, p99, p999, max } = times.quantiles();
        let near = |got: u64, wanted: u64| assert!(got.abs_diff(wanted) <= wanted / 500, "{got} {wanted}");
        near(p50, 5_000);
        near(p90, 9_000);
        near(p99, 9_900);
        near(p999, 9_990);
        near(max, 10_000);
        assert_eq!(count, 10_000);
        times.record(u64::MAX);
        assert!(times.quantiles().max >= LONGEST_US);
    }

    #[test]
    fn a_long_gap_stands_for_what_did_not_come_in_it() {
        let (mut plain, mut corrected) = (Times::new(), Times::new());
        for _ in 0..99 {
            plain.record(20_000);
            corrected.record_corrected(20_000, 20_000);
        }
        // Two seconds in which a hundred snapshots should have come.
        plain.record(2_000_000);
        corrected.record_corrected(2_000_000, 20_000);
        assert!(plain.at(0.98) < 21_000, "one in a hundred, if it is counted once");
        assert_eq!(corrected.quantiles().count, 99 + 100);
        assert!(corrected.at(0.75) > 900_000, "and half of all that should have come, if it is not");
    }

    #[test]
    fn what_came_since_is_without_what_came_before() {
        let mut all = Observed::new();
        all.send_late.record(5);
        all.input_delay.record(7);
        let earlier = all.clone();
        all.send_late.record(900);
        let since = all.since(&earlier);
        assert_eq!((since.send_late.quantiles().count, since.input_delay.quantiles().count), (1, 0));
        assert!(since.send_late.quantiles().max >= 900);
        let mut both = earlier;
        both.add(&since);
        assert_eq!(both.send_late.quantiles(), all.send_late.quantiles());
    }
}
