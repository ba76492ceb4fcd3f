//! Rooms in the order in which they are due. Rooms tick at moments that the shard looks at anyway ([`super::beats`]), many at each: they wait in a ring of these moments
//! (a timing wheel: Varghese and Lauck, "Hashed and hierarchical timing wheels", 1987), where coming and going is a step in one list. All other times, of waits and of
//! what cannot wait, are in a heap. In a heap alone a tick of one of 600 rooms took 0.12 µs of 14 more.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::POLL_US;

/// Moments of the ring: more than half a tick of the slowest room that has a place among the beats, and six of a room with 50 a second.
const MOMENTS: usize = 128;

/// Rooms by when they are due; each as often as it was put in.
#[derive(Debug)]
pub(super) struct Due {
    /// Of each moment, by its number modulo [`MOMENTS`], rooms in the order in which they came.
    ring: Box<[VecDeque<usize>]>,
    /// The number of the first moment that may have rooms: its time divided by [`POLL_US`]. The ring holds it and those that follow.
    first: u64,
    in_ring: usize,
    others: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Default for Due {
    fn default() -> Self {
        let ring = std::iter::repeat_with(VecDeque::new).take(MOMENTS).collect();
        Self { ring, first: 0, in_ring: 0, others: BinaryHeap::new() }
    }
}

impl Due {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.in_ring + self.others.len()
    }

    /// Puts a room in.
    pub(super) fn push(&mut self, due_us: u64, room: usize) {
        let moment = due_us / POLL_US;
        let is_near = moment.checked_sub(self.first).is_some_and(|ahead| ahead < MOMENTS as u64);
        match self.ring.get_mut(place(moment)) {
            Some(rooms) if is_near && due_us.is_multiple_of(POLL_US) => {
                rooms.push_back(room);
                self.in_ring += 1;
            }
            _ => self.others.push(Reverse((due_us, room))),
        }
    }

    /// Takes out the room that is due first, with its time, if that is not after `until_us`.
    pub(super) fn pop(&mut self, until_us: u64) -> Option<(u64, usize)> {
        let other = self.others.peek().map(|Reverse(other)| *other).filter(|(due_us, _)| *due_us <= until_us);
        let before_us = other.map_or(until_us, |(due_us, _)| due_us);
        if let Some(moment) = self.reach(before_us) {
            let room = self.ring.get_mut(place(moment))?.pop_front()?;
            self.in_ring -= 1;
            return Some((moment * POLL_US, room));
        }
        if other.is_some() {
            self.others.pop();
        }
        other
    }

    /// Whether a room is due at a time.
    pub(super) fn is_due(&mut self, now_us: u64) -> bool {
        self.others.peek().is_some_and(|Reverse((due_us, _))| *due_us <= now_us) || self.reach(now_us).is_some()
    }

    /// When the first room is due of those that the shard has to wake up for: moments of the ring are among its looks.
    pub(super) fn next_between_looks_us(&self) -> Option<u64> {
        self.others.peek().map(|Reverse((due_us, _))| *due_us)
    }

    /// Moves on to the first moment that has rooms and is not after a time; none if there is none.
    fn reach(&mut self, until_us: u64) -> Option<u64> {
        let last = until_us / POLL_US;
        if self.in_ring == 0 {
            // Nothing is passed over.
            self.first = self.first.max(last);
            return None;
        }
        while self.first <= last {
            if self.ring.get(place(self.first)).is_some_and(|rooms| !rooms.is_empty()) {
                return Some(self.first);
            }
            self.first += 1;
        }
        None
    }
}

fn place(moment: u64) -> usize {
    (moment % MOMENTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is put in when comes out when it is due, in the order of times, and nothing else.
        #[test]
        fn rooms_come_out_in_order_and_none_before_its_time(
            puts in prop::collection::vec((0..300_000u64, prop::bool::ANY, 0..40_000u64), 0..200),
            begin_us in 0..10_000_000u64,
        ) {
            let (mut due, mut model, mut now_us) = (Due::default(), Vec::new(), begin_us);
            for (room, (ahead_us, is_beat, later_us)) in puts.into_iter().enumerate() {
                // Also times that are over.
                let at_us = (now_us + ahead_us).saturating_sub(50_000);
                let at_us = if is_beat { at_us / POLL_US * POLL_US } else { at_us };
                due.push(at_us, room);
                model.push((at_us, room));
                now_us += later_us;
                prop_assert_eq!(due.len(), model.len());
                prop_assert_eq!(due.is_due(now_us), model.iter().any(|(at_us, _)| *at_us <= now_us));
                let mut last_us = 0;
                while let Some(out) = due.pop(now_us) {
                    prop_assert!(out.0 <= now_us && out.0 >= last_us, "{out:?} at {now_us}, after {last_us}");
                    let place = model.iter().position(|put| *put == out);
                    model.swap_remove(place.expect("it was put in"));
                    last_us = out.0;
                }
                prop_assert!(model.iter().all(|(at_us, _)| *at_us > now_us), "{model:?} at {now_us}");
                let between = model.iter().filter(|(at_us, _)| !at_us.is_multiple_of(POLL_US)).map(|(at_us, _)| *at_us).min();
                prop_assert!(between.is_none_or(|at_us| due.next_between_looks_us().is_some_and(|next| next <= at_us)));
            }
        }
    }

    #[test]
    fn rooms_of_one_moment_come_out_as_they_went_in() {
        let mut due = Due::default();
        (0..5).for_each(|room| due.push(40_000, room));
        due.push(39_999, 9);
        assert!(!due.is_due(39_998) && due.pop(39_998).is_none());
        let out: Vec<_> = std::iter::from_fn(|| due.pop(40_000)).map(|(_, room)| room).collect();
        assert_eq!(out, [9, 0, 1, 2, 3, 4]);
        assert_eq!(due.len(), 0);
    }
}
