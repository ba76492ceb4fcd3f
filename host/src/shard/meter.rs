//! Times the operations of a shard where they happen, while somebody asks for it: `holeshot budget --measure`. Off, each costs a tick one load and
//! one branch; on, two readings of the clock, whose cost [`clock_cost`] says so that it can be taken off.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::count;

/// Ranges for each doubling of the time: a value is known to 6 %, and in the mean over many to less.
const RANGES_PER_DOUBLING: usize = 16;
/// Doublings that are told apart: up to 16 s.
const DOUBLINGS: usize = 31;
const RANGES: usize = RANGES_PER_DOUBLING * DOUBLINGS;
/// Timings of nothing from which the cost of the clock is known.
const NOTHINGS: u32 = 20_000;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Taking a datagram from the system.
    Receive,
    /// Opening it: session, key, replay window, form, rates, address.
    Open,
    /// Caching one of its inputs.
    Input,
    /// A step of a room that has a frame, with all that leaves the room.
    Step,
    /// Its part in the rules: as the room measures it.
    Rules,
    /// Its part in the journal.
    Journal,
    /// Encoding and sealing a snapshot, or a part of one, or an answer.
    Seal,
    /// Sending a datagram.
    Send,
    /// Telling a public event to everybody.
    PublicEvent,
    /// Putting an event into the outbox.
    InternalEvent,
    /// Opening a session: ticket, seat, welcome.
    Attach,
    /// Ending one.
    Detach,
    /// How much later than it wanted the shard woke up.
    Wake,
}

impl Operation {
    /// Every one.
    pub const ALL: [Self; 13] = [
        Self::Receive,
        Self::Open,
        Self::Input,
        Self::Step,
        Self::Rules,
        Self::Journal,
        Self::Seal,
        Self::Send,
        Self::PublicEvent,
        Self::InternalEvent,
        Self::Attach,
        Self::Detach,
        Self::Wake,
    ];
}

/// Times of the operations of one shard. The shard alone writes them.
#[derive(Debug)]
pub struct Meter {
    is_on: AtomicBool,
    of: [Times; Operation::ALL.len()],
}

#[derive(Debug)]
struct Times {
    sum_ns: AtomicU64,
    ranges: Box<[AtomicU64]>,
}

impl Default for Meter {
    fn default() -> Self {
        let times = |_| Times { sum_ns: AtomicU64::new(0), ranges: (0..RANGES).map(|_| AtomicU64::new(0)).collect() };
        Self { is_on: AtomicBool::new(false), of: std::array::from_fn(times) }
    }
}

impl Meter {
    /// Begins or ends to time.
    pub fn set(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// The time of an operation that begins now; none while nobody asks.
    pub(super) fn begin(&self) -> Option<Instant> {
        self.is_on.load(Ordering::Relaxed).then(Instant::now)
    }

    /// An operation that began then is done.
    pub(super) fn end(&self, operation: Operation, begun: Option<Instant>) {
        self.end_many(operation, begun, 1);
    }

    /// So many alike that began then are done.
    pub(super) fn end_many(&self, operation: Operation, begun: Option<Instant>, times: u64) {
        if let Some(begun) = begun {
            let ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.record(operation, ns / times.max(1), times);
        }
    }

    /// An operation took so long, measured elsewhere.
    pub(super) fn took(&self, operation: Operation, ns: u64) {
        if self.is_on.load(Ordering::Relaxed) {
            self.record(operation, ns, 1);
        }
    }

    fn record(&self, operation: Operation, ns: u64, times: u64) {
        let Some(of) = self.of.get(operation as usize) else { return };
        count(&of.sum_ns, ns.saturating_mul(times));
        if let Some(range) = of.ranges.get(range_of(ns)) {
            count(range, times);
        }
    }

    /// Timings as if an operation had always taken so long.
    #[cfg(test)]
    pub(crate) fn timing(operation: Operation, ns: u64) -> Timed {
        let meter = Self::default();
        meter.set(true);
        meter.took(operation, ns);
        meter.timed(operation)
    }

    /// What was timed of an operation so far.
    #[must_use]
    pub fn timed(&self, operation: Operation) -> Timed {
        let Some(of) = self.of.get(operation as usize) else { return Timed::default() };
        let ranges: Vec<u64> = of.ranges.iter().map(|range| range.load(Ordering::Relaxed)).collect();
        Timed { count: ranges.iter().sum(), sum_ns: of.sum_ns.load(Ordering::Relaxed), ranges }
    }
}

/// What was timed of one operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timed {
    /// How many.
    pub count: u64,
    /// All of them together, in nanoseconds.
    pub sum_ns: u64,
    ranges: Vec<u64>,
}

impl Timed {
    /// What was timed since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |at: usize| earlier.ranges.get(at).copied().unwrap_or_default();
        Self {
            count: self.count.saturating_sub(earlier.count),
            sum_ns: self.sum_ns.saturating_sub(earlier.sum_ns),
            ranges: self.ranges.iter().enumerate().map(|(at, count)| count.saturating_sub(before(at))).collect(),
        }
    }

    /// This and another of the same operation.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.ranges.resize(self.ranges.len().max(other.ranges.len()), 0);
        for (mine, count) in self.ranges.iter_mut().zip(&other.ranges) {
            *mine += count;
        }
    }

    /// The time that a part of all (0 to 1) does not exceed, in nanoseconds; 0 while there are none.
    #[must_use]
    pub fn quantile_ns(&self, of_all: f64) -> f64 {
        let rank = (of_all * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, count) in self.ranges.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return middle_of(at);
            }
        }
        0.0
    }

    /// The mean of those between two parts of all, in nanoseconds: what another program took of the processor meanwhile is not among the operation's own
    /// times, and is among the greatest.
    #[must_use]
    pub fn mean_ns(&self, from: f64, to: f64) -> f64 {
        let [from, to] = [from, to].map(|part| (part * self.count as f64) as u64);
        let (mut seen, mut sum, mut taken) = (0u64, 0.0, 0u64);
        for (at, count) in self.ranges.iter().enumerate() {
            let within = (seen + count).min(to).saturating_sub(seen.max(from));
            sum += middle_of(at) * within as f64;
            taken += within;
            seen += count;
        }
        if taken == 0 { 0.0 } else { sum / taken as f64 }
    }
}

/// The range of a time. Below 16 ns each has its own.
fn range_of(ns: u64) -> usize {
    let bits = 64 - ns.leading_zeros() as usize;
    let shift = bits.saturating_sub(5);
    let range = shift * RANGES_PER_DOUBLING + (ns >> shift) as usize;
    range.min(RANGES - 1)
}

/// The middle of a range, in nanoseconds.
fn middle_of(range: usize) -> f64 {
    let shift = (range / RANGES_PER_DOUBLING).saturating_sub(1);
    let step = range - shift * RANGES_PER_DOUBLING;
    (step as f64 + if shift == 0 { 0.0 } else { 0.5 }) * (1u64 << shift) as f64
}

/// What a timing costs on this machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClockCost {
    /// The part of it that is within the time told, in nanoseconds.
    pub within_ns: f64,
    /// All of it, in nanoseconds.
    pub whole_ns: f64,
}

/// Measures what a timing costs.
#[must_use]
pub fn clock_cost() -> ClockCost {
    let meter = Meter::default();
    meter.set(true);
    let begun = Instant::now();
    for _ in 0..NOTHINGS {
        let one = meter.begin();
        meter.end(Operation::Step, std::hint::black_box(one));
    }
    let whole_ns = begun.elapsed().as_nanos() as f64 / f64::from(NOTHINGS);
    ClockCost { within_ns: meter.timed(Operation::Step).mean_ns(0.0, 0.99), whole_ns }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_range_and_is_near_its_middle() {
        let mut last = 0;
        for ns in (0..100_000).chain((17..34).map(|bits| (1u64 << bits) - 1)).chain([10_000_000_000]) {
            let range = range_of(ns);
            assert!(range >= last || ns < 100_000, "{ns}");
            last = range;
            assert!((middle_of(range) - ns as f64).abs() <= ns as f64 / 16.0, "{ns}: {}", middle_of(range));
        }
        assert_eq!(range_of(u64::MAX), RANGES - 1);
    }

    #[test]
    fn nothing_is_timed_while_nobody_asks_and_means_leave_out_what_is_asked() {
        let meter = Meter::default();
        assert!(meter.begin().is_none());
        meter.took(Operation::Rules, 5);
        assert_eq!(meter.timed(Operation::Rules).count, 0);
        meter.set(true);
        for ns in [10, 10, 10, 10, 10, 10, 10, 10, 10, 1_000_000] {
            meter.took(Operation::Rules, ns);
        }
        let timed = meter.timed(Operation::Rules);
        assert_eq!((timed.count, timed.sum_ns), (10, 1_000_090));
        assert_eq!((timed.mean_ns(0.0, 0.9), timed.quantile_ns(0.5)), (10.0, 10.0));
        assert!((timed.quantile_ns(1.0) / 1e6 - 1.0).abs() < 0.07 && timed.mean_ns(0.0, 1.0) > 90_000.0);
        meter.end_many(Operation::Input, meter.begin(), 8);
        assert_eq!(meter.timed(Operation::Input).count, 8);
        assert_eq!(meter.timed(Operation::Send).mean_ns(0.0, 1.0), 0.0);
        let cost = clock_cost();
        assert!(cost.within_ns > 0.0 && cost.whole_ns >= cost.within_ns, "{cost:?}");
    }
}
