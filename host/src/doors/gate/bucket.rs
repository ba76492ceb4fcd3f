//! How often something may happen: the generic cell rate algorithm (ITU-T I.371, annex A), which is a token bucket kept as one moment in time.
//! Pure: the time is an argument.

/// So much of something in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The time that one of it takes.
    interval_ns: u64,
    /// How far ahead of the time a bucket may be: what may happen at once.
    burst_ns: u64,
}

impl Rate {
    /// `count` in each `period_us` microseconds on average, and up to `burst` at once. Of none of them may be 0; 0 counts as 1.
    #[must_use]
    pub const fn new(count: u64, period_us: u64, burst: u64) -> Self {
        let count = if count == 0 { 1 } else { count };
        let interval_ns = period_us.saturating_mul(1_000).div_ceil(count);
        let interval_ns = if interval_ns == 0 { 1 } else { interval_ns };
        Self { interval_ns, burst_ns: interval_ns.saturating_mul(if burst == 0 { 1 } else { burst }) }
    }

    /// Takes `units` at the time `now_us`: the bucket's new state, or how long to wait for them in microseconds. More units than the
    /// burst has are taken from a bucket that is full, so that whoever waits for them gets them.
    ///
    /// # Errors
    /// The wait, at least 1.
    pub const fn take(&self, bucket: Bucket, units: u64, now_us: u64) -> Result<Bucket, u64> {
        let now_ns = now_us.saturating_mul(1_000);
        let from_ns = if bucket.0 > now_ns { bucket.0 } else { now_ns };
        let cost_ns = self.interval_ns.saturating_mul(units);
        let fits_ns = if cost_ns > self.burst_ns { cost_ns } else { self.burst_ns };
        let until_ns = from_ns.saturating_add(cost_ns);
        match until_ns.saturating_sub(now_ns).checked_sub(fits_ns) {
            None | Some(0) => Ok(Bucket(until_ns)),
            Some(over_ns) => Err(over_ns.div_ceil(1_000)),
        }
    }

    /// Whether one more can be taken: how long to wait for it otherwise, in microseconds.
    ///
    /// # Errors
    /// The wait, at least 1.
    pub const fn check(&self, bucket: Bucket, now_us: u64) -> Result<(), u64> {
        match self.take(bucket, 1, now_us) {
            Ok(_) => Ok(()),
            Err(wait_us) => Err(wait_us),
        }
    }
}

/// What was taken: the moment, in nanoseconds, at which all of it will have been given back. A new one is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket(u64);

impl Bucket {
    /// From a number of [`Bucket::bits`].
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The state as a number, for an atomic.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all that was taken has been given back.
    #[must_use]
    pub const fn is_full(self, now_us: u64) -> bool {
        self.0 <= now_us.saturating_mul(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND_US: u64 = 1_000_000;

    #[test]
    fn a_burst_goes_through_and_then_the_rate_holds() {
        let rate = Rate::new(10, SECOND_US, 5);
        let mut bucket = Bucket::default();
        for _ in 0..5 {
            bucket = rate.take(bucket, 1, 7).unwrap();
        }
        assert_eq!(rate.take(bucket, 1, 7), Err(100_000));
        assert_eq!(rate.check(bucket, 7), Err(100_000));
        assert!(!bucket.is_full(500_006) && bucket.is_full(500_007));
        bucket = rate.take(bucket, 1, 100_007).unwrap();
        assert_eq!(rate.take(bucket, 1, 100_008), Err(99_999));
        // What is larger than the burst waits until the bucket is full.
        assert_eq!(rate.take(bucket, 50, 100_007), Err(500_000));
        assert!(rate.take(bucket, 50, 600_007).is_ok());
    }

    proptest! {
        #[test]
        fn no_more_than_the_rate_and_a_burst_is_ever_let_through(
            count in 1..100_000u64, burst in 1..1_000u64, asks in prop::collection::vec((0..50_000u64, 1..20u64), 1..300),
        ) {
            let rate = Rate::new(count, SECOND_US, burst);
            let (mut bucket, mut now_us, mut taken, mut largest) = (Bucket::default(), 0, 0, 0);
            for (pause_us, units) in asks {
                now_us += pause_us;
                largest = largest.max(units);
                match rate.take(bucket, units, now_us) {
                    Ok(after) => (bucket, taken) = (after, taken + units),
                    Err(wait_us) => {
                        // The wait is right to the microsecond.
                        prop_assert!(wait_us >= 1);
                        prop_assert!(rate.take(bucket, units, now_us + wait_us).is_ok());
                        prop_assert!(rate.take(bucket, units, now_us + wait_us - 1).is_err());
                    }
                }
                let most = (now_us as u128 * count as u128).div_ceil(SECOND_US as u128) + u128::from(burst.max(largest)) + 1;
                prop_assert!(u128::from(taken) <= most, "{taken} in {now_us} us");
            }
        }

        #[test]
        fn who_keeps_to_the_rate_is_never_refused(count in 1..10_000u64, burst in 1..100u64, times in 1..500u64) {
            let rate = Rate::new(count, SECOND_US, burst);
            let mut bucket = Bucket::default();
            for at in 0..times {
                bucket = rate.take(bucket, 1, at * SECOND_US.div_ceil(count)).unwrap();
            }
        }

        #[test]
        fn nothing_overflows(count: u64, period_us: u64, burst: u64, bits: u64, units: u64, now_us: u64) {
            let rate = Rate::new(count, period_us, burst);
            let _whatever = rate.take(Bucket::from_bits(bits), units, now_us);
        }
    }
}
