//! The public events of a room, kept for players that reconnect: numbered without a gap, bounded in number and bytes.

use std::collections::VecDeque;

use crate::messages::PublicEvent;

/// Events for which there is place at first, and by which it grows: a game has some ten, and doubling would leave a third of it idle.
const GROWTH_EVENTS: usize = 4;

#[derive(Debug)]
struct Kept {
    seq: u64,
    frame: Option<u32>,
    at_us: u64,
    name_bytes: usize,
    /// Its name, and its data behind it: one block of memory for both.
    text: Box<str>,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.text.len()
    }

    fn view(&self) -> PublicEvent<'_> {
        let (name, json) = self.text.split_at_checked(self.name_bytes).unwrap_or_default();
        PublicEvent { seq: self.seq, name, frame: self.frame, at_us: self.at_us, json }
    }
}

#[derive(Debug)]
pub(crate) struct History {
    events: VecDeque<Kept>,
    bytes: usize,
    last_seq: u64,
    events_max: usize,
    bytes_max: usize,
    dropped: u64,
}

impl History {
    pub(crate) fn new(events_max: usize, bytes_max: usize) -> Self {
        Self { events: VecDeque::new(), bytes: 0, last_seq: 0, events_max, bytes_max, dropped: 0 }
    }

    /// Numbers an event and keeps it, dropping the oldest as needed; the new one always stays.
    pub(crate) fn push(&mut self, name: &str, frame: Option<u32>, at_us: u64, json: &str) -> u64 {
        self.last_seq += 1;
        let text = [name, json].concat().into_boxed_str();
        let event = Kept { seq: self.last_seq, frame, at_us, name_bytes: name.len(), text };
        self.bytes += event.bytes();
        while self.events.len() >= self.events_max.max(1) || self.bytes > self.bytes_max {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.dropped += 1;
        }
        if self.events.len() == self.events.capacity() {
            self.events.reserve_exact((self.events.len() / 4).max(GROWTH_EVENTS));
        }
        self.events.push_back(event);
        self.last_seq
    }

    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(crate) fn after(&self, seq: u64) -> EventsAfter<'_> {
        let oldest = self.events.front().map_or(self.last_seq + 1, |e| e.seq);
        let skip = usize::try_from(seq.saturating_add(1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        EventsAfter {
            missed: oldest.saturating_sub(seq.saturating_add(1)),
            events: self.events.range(skip.min(self.events.len())..),
        }
    }
}

/// The public events that follow a given one, oldest first.
#[derive(Debug, Clone)]
pub struct EventsAfter<'a> {
    missed: u64,
    events: std::collections::vec_deque::Iter<'a, Kept>,
}

impl EventsAfter<'_> {
    /// How many of the events asked for are no longer kept. If it is not 0, the player has a gap before the first event of this
    /// iterator and has to be told so: it cannot get these events from anywhere.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.missed
    }
}

impl<'a> Iterator for EventsAfter<'a> {
    type Item = PublicEvent<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.events.next().map(Kept::view)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.events.size_hint()
    }
}

impl ExactSizeIterator for EventsAfter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_a_gap_is_told() {
        let mut history = History::new(3, 1000);
        assert_eq!((history.after(0).missed(), history.after(0).len()), (0, 0));
        for n in 1..=5 {
            assert_eq!(history.push("e", None, 0, &n.to_string()), n);
        }
        let seen = |seq| (history.after(seq).missed(), history.after(seq).map(|e| e.seq).collect::<Vec<_>>());
        assert_eq!(seen(0), (2, vec![3, 4, 5]));
        assert_eq!(seen(1), (1, vec![3, 4, 5]));
        assert_eq!(seen(2), (0, vec![3, 4, 5]));
        assert_eq!(seen(4), (0, vec![5]));
        assert_eq!(seen(5), (0, vec![]));
        assert_eq!(seen(u64::MAX), (0, vec![]));
        assert_eq!(history.dropped(), 2);
    }

    #[test]
    fn bytes_are_bounded_but_the_newest_always_stays() {
        let mut history = History::new(100, 10);
        history.push("a", None, 0, "1234");
        history.push("b", None, 0, "1234");
        assert_eq!(history.after(0).len(), 2, "ten bytes may stay");
        history.push("b", None, 0, "");
        assert_eq!(history.after(0).map(|e| e.seq).collect::<Vec<_>>(), [2, 3], "eleven may not");
        history.push("c", Some(7), 90, "12345678901234567890");
        let kept: Vec<_> = history.after(0).collect();
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].seq, kept[0].name, kept[0].frame, kept[0].at_us), (4, "c", Some(7), 90));
        history.push("d", None, 0, "1");
        assert_eq!(history.after(0).map(|e| e.seq).collect::<Vec<_>>(), [5]);
        assert_eq!(history.bytes, 2);
    }
}
