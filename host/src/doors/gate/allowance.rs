//! What sessions may say: messages and bytes of one session, of all sessions of an address, and of all sessions. Pure: the time is an argument.
//!
//! A message asks nothing that others ask: a session draws from its address's and from the common [`SharedAllowance`] in portions, and spends them by
//! itself. A draw is one atomic exchange; nobody waits. The price: what sessions have drawn and not spent they may say later, beyond the rate, a
//! portion each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bucket::{Bucket, Rate};
use super::limits::{Limit, Limits};

/// Messages that a session draws at a time, at most. A client at 128 Hz draws four times a second.
const PORTION_MESSAGES_MAX: u64 = 32;
/// Bytes that a session draws at a time, at most: the longest message. Inputs of common size take it in a second.
const PORTION_BYTES_MAX: u64 = 8 << 10;
/// A portion is at most this part of what may be said in a second, so that small limits hold, too.
const PORTIONS_PER_S: u64 = 256;

/// A message is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// By this limit.
    pub limit: Limit,
    /// When it would not be, in microseconds from now, at least 1; later if others are quicker.
    pub wait_us: u64,
}

/// One limit that sessions share.
#[derive(Debug)]
struct Common {
    limit: Limit,
    rate: Rate,
    portion: u64,
    bucket: AtomicU64,
}

impl Common {
    fn new(limits: &Limits, limit: Limit, portion_max: u64) -> Self {
        let portion = (limits.get(limit) / PORTIONS_PER_S).clamp(1, portion_max);
        Self { limit, rate: limits.rate(limit), portion, bucket: AtomicU64::default() }
    }

    /// Sees to it that `drawn` has `units`.
    fn draw(&self, drawn: &mut u64, units: u64, now_us: u64) -> Result<(), Over> {
        let Some(missing @ 1..) = units.checked_sub(*drawn) else { return Ok(()) };
        let portion = missing.max(self.portion);
        let mut wait_us = 1;
        let take = |bits| match self.rate.take(Bucket::from_bits(bits), portion, now_us) {
            Ok(bucket) => Some(bucket.bits()),
            Err(wait) => {
                wait_us = wait;
                None
            }
        };
        let taken = self.bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        if taken.is_err() {
            return Err(Over { limit: self.limit, wait_us });
        }
        *drawn = drawn.saturating_add(portion);
        Ok(())
    }
}

/// What sessions may say together.
#[derive(Debug)]
pub struct SharedAllowance {
    messages: Common,
    bytes: Common,
}

impl SharedAllowance {
    /// That of one address.
    #[must_use]
    pub fn of_address(limits: &Limits) -> Self {
        Self::new(limits, Limit::AddressMessages, Limit::AddressBytes)
    }

    /// That of all together.
    #[must_use]
    pub fn of_all(limits: &Limits) -> Self {
        Self::new(limits, Limit::Messages, Limit::Bytes)
    }

    fn new(limits: &Limits, messages: Limit, bytes: Limit) -> Self {
        Self {
            messages: Common::new(limits, messages, PORTION_MESSAGES_MAX),
            bytes: Common::new(limits, bytes, PORTION_BYTES_MAX),
        }
    }

    /// Whether all that was drawn has been given back.
    pub(super) fn is_full(&self, now_us: u64) -> bool {
        [&self.messages, &self.bytes]
            .iter()
            .all(|common| Bucket::from_bits(common.bucket.load(Ordering::Relaxed)).is_full(now_us))
    }
}

/// The limits on what one session says.
#[derive(Debug, Clone)]
pub struct MessageLimits {
    messages: Rate,
    bytes: Rate,
    /// None for an address without limits of its own.
    address: Option<Arc<SharedAllowance>>,
    all: Arc<SharedAllowance>,
}

impl MessageLimits {
    /// By these limits, for sessions that share the limits for all.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            messages: limits.rate(Limit::SessionMessages),
            bytes: limits.rate(Limit::SessionBytes),
            address: None,
            all: Arc::new(SharedAllowance::of_all(limits)),
        }
    }

    /// The same for a session of this address.
    #[must_use]
    pub fn at(&self, address: Option<Arc<SharedAllowance>>) -> Self {
        Self { address, ..self.clone() }
    }
}

/// What a session has said, and what it has drawn and not said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    messages: Bucket,
    bytes: Bucket,
    of_address: Drawn,
    of_all: Drawn,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Drawn {
    messages: u64,
    bytes: u64,
}

impl Drawn {
    fn draw(&mut self, shared: &SharedAllowance, bytes: u64, now_us: u64) -> Result<(), Over> {
        shared.messages.draw(&mut self.messages, 1, now_us)?;
        shared.bytes.draw(&mut self.bytes, bytes, now_us)
    }

    const fn spend(&mut self, bytes: u64) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Allowance {
    /// Takes a message of so many bytes. One that is too many takes nothing, and what was drawn for it waits for the next try.
    ///
    /// # Errors
    /// The first limit that it is beyond: the session's, the address's, that of all.
    pub fn take(&mut self, limits: &MessageLimits, bytes: usize, now_us: u64) -> Result<(), Over> {
        let bytes = bytes as u64;
        let over = |limit| move |wait_us| Over { limit, wait_us };
        let said = limits.messages.take(self.messages, 1, now_us).map_err(over(Limit::SessionMessages))?;
        let said_bytes = limits.bytes.take(self.bytes, bytes, now_us).map_err(over(Limit::SessionBytes))?;
        if let Some(address) = &limits.address {
            self.of_address.draw(address, bytes, now_us)?;
        }
        self.of_all.draw(&limits.all, bytes, now_us)?;
        (self.messages, self.bytes) = (said, said_bytes);
        self.of_address.spend(bytes);
        self.of_all.spend(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::LimitSetting;
    use super::*;
    use proptest::prelude::*;

    const SECOND_US: u64 = 1_000_000;

    fn limits(set: &[(Limit, u64)]) -> Limits {
        let set: Vec<_> = set.iter().map(|(limit, value)| LimitSetting::new(*limit, *value)).collect();
        Limits::new(&set).unwrap()
    }

    /// Sessions of one address.
    fn sessions(limits: &Limits) -> MessageLimits {
        MessageLimits::new(limits).at(Some(Arc::new(SharedAllowance::of_address(limits))))
    }

    /// How many messages one session gets through at one moment.
    fn says(allowance: &mut Allowance, limits: &MessageLimits, bytes: usize, now_us: u64) -> (u64, Over) {
        let mut said = 0;
        loop {
            match allowance.take(limits, bytes, now_us) {
                Ok(()) => said += 1,
                Err(over) => return (said, over),
            }
        }
    }

    #[test]
    fn each_limit_holds_by_itself() {
        for (limit, value, bytes, at_once) in [
            (Limit::SessionMessages, 10, 1, 20),
            (Limit::SessionBytes, 10_000, 1_000, 40),
            (Limit::AddressMessages, 10, 1, 20),
            (Limit::AddressBytes, 10_000, 1_000, 20),
            (Limit::Messages, 10, 1, 20),
            (Limit::Bytes, 10_000, 1_000, 20),
        ] {
            let sessions = sessions(&limits(&[(limit, value)]));
            let mut ada = Allowance::default();
            let (said, over) = says(&mut ada, &sessions, bytes, 7);
            assert_eq!((said, over.limit), (at_once, limit));
            // It may go on when it was told, and not before.
            assert!(ada.take(&sessions, bytes, 7 + over.wait_us - 1).is_err(), "{limit}");
            ada.take(&sessions, bytes, 7 + over.wait_us).unwrap();
        }
    }

    #[test]
    fn an_address_shares_and_another_has_its_own() {
        let limits = limits(&[(Limit::AddressMessages, 10)]);
        let of_one = sessions(&limits);
        let of_other = of_one.at(Some(Arc::new(SharedAllowance::of_address(&limits))));
        let exempt = of_one.at(None);
        assert_eq!(says(&mut Allowance::default(), &of_one, 1, 0).0, 20);
        assert_eq!(says(&mut Allowance::default(), &of_one, 1, 0).0, 0);
        assert_eq!(says(&mut Allowance::default(), &of_other, 1, 0).0, 20);
        // Its session's limit alone.
        assert_eq!(says(&mut Allowance::default(), &exempt, 1, 0).0, 800);
        let address = of_one.address.as_ref().unwrap();
        assert!(!address.is_full(2 * SECOND_US - 1) && address.is_full(2 * SECOND_US));
    }

    #[test]
    fn what_is_too_much_takes_nothing() {
        let limits = sessions(&limits(&[(Limit::Bytes, 8_192), (Limit::AddressBytes, 1_000_000)]));
        let mut ada = Allowance::default();
        let (_, over) = says(&mut ada, &limits, 1_000, 0);
        assert_eq!(over.limit, Limit::Bytes);
        let before = (ada, limits.address.as_ref().unwrap().bytes.bucket.load(Ordering::Relaxed));
        for _ in 0..1_000 {
            ada.take(&limits, 1_000, 0).unwrap_err();
        }
        let after = (ada, limits.address.as_ref().unwrap().bytes.bucket.load(Ordering::Relaxed));
        assert_eq!(after, before);
    }

    proptest! {
        #[test]
        fn all_sessions_together_say_no_more_than_the_rate_a_burst_and_a_portion_each(
            value in 1..5_000u64, asks in prop::collection::vec((0..8usize, 0..20_000u64, 1..60u64), 1..200),
        ) {
            let limits = sessions(&limits(&[(Limit::AddressMessages, value), (Limit::SessionMessages, 1_000_000)]));
            let portion = limits.address.as_ref().unwrap().messages.portion;
            let mut sessions = [Allowance::default(); 8];
            let (mut now_us, mut said) = (0, 0);
            for (session, pause_us, times) in asks {
                now_us += pause_us;
                for _ in 0..times {
                    said += u64::from(sessions[session].take(&limits, 1, now_us).is_ok());
                }
            }
            let most = (now_us * value).div_ceil(SECOND_US) + 2 * value + portion * 8 + 1;
            prop_assert!(said <= most, "{said} in {now_us} us, {most} at most");
        }

        #[test]
        fn who_keep_to_the_rate_together_are_never_refused(value in 600..50_000u64, times in 1..400u64) {
            // Eight sessions take turns.
            let limits = sessions(&limits(&[(Limit::Messages, value), (Limit::AddressMessages, value), (Limit::SessionMessages, value)]));
            let mut sessions = [Allowance::default(); 8];
            for at in 0..times {
                let now_us = at * SECOND_US.div_ceil(value);
                prop_assert!(sessions[(at % 8) as usize].take(&limits, 1, now_us).is_ok());
            }
        }
    }

    #[test]
    fn threads_share_it_without_a_lock() {
        let limits = sessions(&limits(&[(Limit::Messages, 10_000), (Limit::SessionMessages, 1_000_000)]));
        let said: u64 = std::thread::scope(|scope| {
            let one = || says(&mut Allowance::default(), &limits, 1, 0).0;
            let all: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            all.into_iter().map(|one| one.join().unwrap()).sum()
        });
        // All of it, to the last whole portion.
        assert_eq!(said, 20_000 / 32 * 32);
    }
}
