//! What each address has open and has taken lately: a table with a bound. Pure: the time is an argument.
//!
//! An attacker has more addresses than any table has entries. So entries that say nothing any more are dropped when there is no place left; and an
//! address for which there is still none is not known, not limited and not refused: the limits for all addresses together carry the host then, and a
//! table that is full of strangers keeps nobody out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::allowance::SharedAllowance;
use super::bucket::Bucket;

/// How often the table is searched for entries to drop, in microseconds: once it is full of entries that say something, every new address would.
const SWEEP_EVERY_US: u64 = 1_000_000;

/// Things of which an address may have a number at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Connection,
    HalfOpen,
    Session,
    Stream,
}

/// Things that an address may do so often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    Handshake,
    Request,
    Room,
    BadTicket,
}

/// What is known of an address.
#[derive(Debug, Default)]
pub(super) struct Entry {
    held: [u32; 4],
    done: [Bucket; 4],
    /// What its sessions share, since it had one.
    allowance: Option<Arc<SharedAllowance>>,
}

impl Entry {
    pub(super) const fn held(&mut self, what: Held) -> &mut u32 {
        let [connections, half_open, sessions, streams] = &mut self.held;
        match what {
            Held::Connection => connections,
            Held::HalfOpen => half_open,
            Held::Session => sessions,
            Held::Stream => streams,
        }
    }

    pub(super) const fn done(&mut self, what: Done) -> &mut Bucket {
        let [handshakes, requests, rooms, bad_tickets] = &mut self.done;
        match what {
            Done::Handshake => handshakes,
            Done::Request => requests,
            Done::Room => rooms,
            Done::BadTicket => bad_tickets,
        }
    }

    /// What its sessions share.
    pub(super) fn allowance(&mut self, make: impl FnOnce() -> SharedAllowance) -> Arc<SharedAllowance> {
        Arc::clone(self.allowance.get_or_insert_with(|| Arc::new(make())))
    }

    fn says_nothing(&self, now_us: u64) -> bool {
        self.held == [0; 4]
            && self.done.iter().all(|bucket| bucket.is_full(now_us))
            && self.allowance.as_ref().is_none_or(|allowance| allowance.is_full(now_us))
    }
}

/// Whom an address stands for: itself, or its network of 64 bits if it is IPv6.
pub(super) fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Addresses {
    entries: HashMap<IpAddr, Entry>,
    max: usize,
    next_sweep_us: u64,
}

impl Addresses {
    /// A table of `max` entries.
    pub(super) fn new(max: usize) -> Self {
        Self { entries: HashMap::new(), max, next_sweep_us: 0 }
    }

    /// How many addresses it knows.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry of a [`group`]; none if the table is full.
    pub(super) fn entry(&mut self, group: IpAddr, now_us: u64) -> Option<&mut Entry> {
        if self.entries.len() >= self.max && !self.entries.contains_key(&group) {
            if now_us < self.next_sweep_us {
                return None;
            }
            self.next_sweep_us = now_us.saturating_add(SWEEP_EVERY_US);
            self.entries.retain(|_, entry| !entry.says_nothing(now_us));
            if self.entries.len() >= self.max {
                return None;
            }
        }
        Some(self.entries.entry(group).or_default())
    }

    /// Gives back what an address held.
    pub(super) fn give_back(&mut self, group: IpAddr, what: Held) {
        // An entry that holds something is never dropped.
        if let Some(entry) = self.entries.get_mut(&group) {
            let held = entry.held(what);
            *held = held.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bucket::Rate;
    use super::*;
    use proptest::prelude::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn a_household_is_one_address() {
        let of = |text: &str| group(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn a_full_table_forgets_who_says_nothing_and_knows_nobody_else() {
        let mut table = Addresses::new(3);
        let rate = Rate::new(1, 1_000_000, 1);
        *table.entry(address(1), 0).unwrap().held(Held::Session) += 1;
        let bucket = table.entry(address(2), 0).unwrap().done(Done::Request);
        *bucket = rate.take(*bucket, 1, 0).unwrap();
        table.entry(address(3), 0).unwrap();
        // The third said nothing; the place is used again.
        assert!(table.entry(address(4), 1).is_some());
        let bucket = table.entry(address(4), 1).unwrap().done(Done::Request);
        *bucket = rate.take(*bucket, 1, 1).unwrap();
        assert!(table.entry(address(5), 2).is_none() && table.len() == 3);
        assert!(table.entry(address(1), 2).is_some(), "who is known stays known");
        // A second later the requests are forgotten.
        assert!(table.entry(address(5), 1_500_000).is_some());
        assert_eq!(*table.entry(address(1), 1_500_000).unwrap().held(Held::Session), 1);
        table.give_back(address(1), Held::Session);
        table.give_back(address(1), Held::Session);
        table.give_back(address(99), Held::Session);
        assert_eq!(*table.entry(address(1), 1_500_000).unwrap().held(Held::Session), 0);
    }

    proptest! {
        #[test]
        fn it_never_grows_and_never_forgets_what_is_held(
            max in 1..20usize, steps in prop::collection::vec((0..40u32, any::<bool>(), 0..400_000u64), 1..300),
        ) {
            let mut table = Addresses::new(max);
            let mut held = HashMap::<u32, u32>::new();
            let mut now_us = 0;
            for (number, takes, pause_us) in steps {
                now_us += pause_us;
                if takes {
                    if let Some(entry) = table.entry(address(number), now_us) {
                        *entry.held(Held::Connection) += 1;
                        *held.entry(number).or_default() += 1;
                    }
                } else if let Some(count) = held.get_mut(&number).filter(|count| **count > 0) {
                    *count -= 1;
                    table.give_back(address(number), Held::Connection);
                }
                prop_assert!(table.len() <= max);
                for (number, count) in held.iter().filter(|(_, count)| **count > 0) {
                    let entry = table.entries.get_mut(&address(*number)).expect("what is held is known");
                    prop_assert_eq!(*entry.held(Held::Connection), *count);
                }
            }
        }
    }
}
