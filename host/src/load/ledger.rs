//! The account of a player's inputs from both sides: this side knows of each whether any copy of it was handed to the system, the host says how many it had in
//! time and how many came too late. Pure.
//!
//! # What adds up
//!
//! A game has `frames`, and the host counts each of them for each player as stepped with its input (`fresh`) or without (`repeated`, `absent`). Of this player's
//! frames some were never given an input: those before the first snapshot came and those that end the game before the player could know. Of the inputs
//! that were sent, some were lost in every copy, which no host can help. The rest was handed to the system: in time, and the host stepped their frames with them; or too
//! late, and the host counts them as `late`, each once. What is left over has one of four causes, and the first that can be is taken:
//!
//! - The host had no place for their frame, because one of the two stood still for long: it counts each such copy as `behind` or `ahead` ([`Account::out_of_track`]).
//! - No copy reached the room. The host counts every copy that did (`received`), and this side every copy that it handed over. Where the system dropped datagrams at
//!   a full buffer it says how many; if it dropped none, they were lost in the host ([`Account::never_received`]).
//! - The host had them and did not use them: [`Account::unexplained`], which must be none.
//!
//! A host that counts more than was handed over is a fault, too: [`Account::surplus`].
//!
//! # The end of a game
//!
//! What comes after the last frame was stepped is nobody's any more, and the host does not count it as late. Each snapshot says which input was the newest
//! that the host had in this frame (`newest_input_frame`). Datagrams arrive in the order in which they were handed over (on one machine they do). So the inputs
//! that were first handed over after the datagram of that newest one came after that frame was stepped; with the last frame's snapshot that is exact. A
//! player-game of which the last snapshot was not seen is not compared.

use serde::{Deserialize, Serialize};

/// Frames that are looked back on: half a second of lead, three of delay and jitter, and the copies, at 128 Hz.
const FRAMES_MAX: usize = 512;

/// What is known of a frame.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// The frame's number and 1; 0: nothing is known.
    frame_plus_1: u32,
    /// Which datagram with this input was the first that was handed to the system, counted from 1; 0: none so far.
    handed: u32,
    /// An input was sent for it.
    said: bool,
    /// Its first datagram was lost on the way.
    first_lost: bool,
    /// The host stepped it and had no input that new.
    missed: bool,
}

/// What one player sent in one game, and what became of it as far as this side knows.
#[derive(Debug, Clone)]
pub struct Ledger {
    entries: Box<[Entry]>,
    /// Datagrams with inputs that were handed to the system.
    handed: u32,
    /// Inputs in them, copies included.
    copies: u64,
    /// The newest frame that a snapshot told of, and the newest input that the host had in it.
    seen: Option<(u32, Option<u32>)>,
    newest: Option<u32>,
    /// Of frames that are no longer looked at.
    before: Told,
}

/// What a ledger says at the end of a game.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// Frames of the game for which an input was sent.
    pub sent: u64,
    /// Of these, those of which no copy was handed to the system.
    pub lost: u64,
    /// Those of which a copy came, but only after the game was over.
    pub after_end: u64,
    /// Inputs handed to the system, each copy.
    pub copies: u64,
    /// Those that the host stepped without it, as its snapshots told, and whose first datagram was lost.
    pub missed_after_loss: u64,
    /// The same, and the first datagram was not lost.
    pub missed_otherwise: u64,
    /// The last snapshot was seen, so that what came after the end is known.
    pub is_exact: bool,
}

/// What the host counted of a player's inputs: `PlayerCounters` of holeshot-room, as the records have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostCounts {
    /// Inputs that came to the room, each copy.
    pub received: u64,
    /// Frames stepped with their input.
    pub fresh: u64,
    /// Frames that repeated an older one.
    pub repeated: u64,
    /// Frames without any.
    pub absent: u64,
    /// Inputs that came after their frame: the first of each.
    pub late: u64,
    /// Inputs for a frame so far back that the host knows nothing of it any more, each copy. Older records have none: they counted these as late.
    #[serde(default)]
    pub behind: u64,
    /// Inputs for a frame too far ahead, each copy.
    pub ahead: u64,
    /// Further copies.
    pub duplicate: u64,
    /// Copies that differ from the first.
    pub conflicting: u64,
    /// Inputs longer than the rules take, each copy.
    pub too_long: u64,
    /// Inputs out of the game, each copy.
    pub out_of_game: u64,
}

impl HostCounts {
    /// Frames of the game.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.fresh.saturating_add(self.repeated).saturating_add(self.absent)
    }
}

/// The inputs of all games that were compared, by the counters of both sides. A game of one player is a player-game.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Account {
    /// Player-games that were compared.
    pub games: u64,
    /// Player-games of which the last snapshot was not seen, or which the host did not record in time, or not at all.
    pub not_compared: u64,
    /// Frames that the host stepped.
    pub frames: u64,
    /// Of these, frames for which no input was sent.
    pub not_sent: u64,
    /// Frames for which an input was sent.
    pub sent: u64,
    /// Of the inputs sent, those whose every copy was lost on the way.
    pub lost: u64,
    /// Those that came after the game was over.
    pub after_end: u64,
    /// Those that the host stepped their frame with, by its own count.
    pub in_time: u64,
    /// Those that came after their frame was stepped, by the host's own count.
    pub late: u64,
    /// Frames that were stepped without their input, as snapshots told, and whose first datagram was lost: the copies came too late, or none came.
    pub missed_after_loss: u64,
    /// Frames that were stepped without their input, as snapshots told, although the first datagram was not lost: it took longer than the lead.
    pub missed_otherwise: u64,
    /// Inputs longer than the rules take, each copy, by the host's own count: they are among the unexplained.
    pub too_long: u64,
    /// Inputs further ahead than the host keeps them, each copy, by its own count: a later copy may have been in time.
    pub ahead: u64,
    /// Inputs further back than the host keeps them, each copy, by its own count: an earlier copy may have been in time.
    pub behind: u64,
    /// Inputs that came only where the host has no place for their frame, as its counts of `ahead` and `behind` explain.
    pub out_of_track: u64,
    /// Inputs of which copies were handed to the system, and none came to the room, as the host's count of all that came explains.
    pub never_received: u64,
    /// Inputs that came and of which the host knows nothing. More than none is a fault of the host or of this account.
    pub unexplained: u64,
    /// Inputs that the host had and that, by this side's count, it cannot have had.
    pub surplus: u64,
}

impl Ledger {
    /// Of a game that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self {
            entries: vec![Entry::default(); FRAMES_MAX].into_boxed_slice(),
            handed: 0,
            copies: 0,
            seen: None,
            newest: None,
            before: Told::default(),
        }
    }

    /// The newest frame for which an input was sent.
    #[must_use]
    pub const fn newest(&self) -> Option<u32> {
        self.newest
    }

    /// The newest frame that the host is known to have stepped.
    #[must_use]
    pub fn seen_frame(&self) -> Option<u32> {
        self.seen.map(|(frame, _)| frame)
    }

    /// Reads what is known of a frame and of one seven before, so that it is near the processor when it is asked for: a generator has thousands of these.
    #[must_use]
    pub fn warm(&self, frame: u32) -> u64 {
        let read = |frame: u32| self.entries.get(frame as usize % FRAMES_MAX).map_or(0, |entry| entry.handed);
        u64::from(read(frame) ^ read(frame.wrapping_sub(7)))
    }

    /// The entry of a frame; whatever was in its place is settled. None for a frame that is further back than is looked.
    fn entry(&mut self, frame: u32) -> Option<&mut Entry> {
        let place = self.entries.get_mut(frame as usize % FRAMES_MAX)?;
        let frame_plus_1 = frame.checked_add(1)?;
        if place.frame_plus_1 > frame_plus_1 {
            return None;
        }
        if place.frame_plus_1 != frame_plus_1 {
            let old = std::mem::replace(place, Entry { frame_plus_1, ..Entry::default() });
            self.before.add(&old, u32::MAX);
        }
        Some(place)
    }

    /// Inputs for the `new` newest frames up to `newest` are sent for the first time, in a datagram that is lost on the way or not.
    pub fn say(&mut self, newest: u32, new: u32, is_lost: bool) {
        for frame in newest.saturating_sub(new.saturating_sub(1))..=newest {
            if let Some(entry) = self.entry(frame) {
                entry.said = true;
                entry.first_lost = is_lost;
            }
        }
        self.newest = self.newest.max(Some(newest));
    }

    /// A datagram with `count` inputs up to `newest` was handed to the system.
    pub fn hand(&mut self, newest: u32, count: u32) {
        self.handed = self.handed.saturating_add(1);
        self.copies += u64::from(count);
        let handed = self.handed;
        for frame in newest.saturating_sub(count.saturating_sub(1))..=newest {
            if let Some(entry) = self.entry(frame).filter(|entry| entry.handed == 0) {
                entry.handed = handed;
            }
        }
    }

    /// A snapshot of `frame` came, before whatever the network of this side does to it; `newest` is the newest input that the host had.
    pub fn see(&mut self, frame: u32, newest: Option<u32>) {
        if self.seen.is_some_and(|(seen, _)| frame <= seen) {
            return;
        }
        self.seen = Some((frame, newest));
        if newest.is_none_or(|newest| newest < frame)
            && let Some(entry) = self.entry(frame)
        {
            entry.missed = true;
        }
    }

    /// What it says of a game of so many frames.
    #[must_use]
    pub fn tell(&self, frames: u64) -> Told {
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        let mut told = Told { copies: self.copies, ..self.before };
        // The datagram that brought the newest input that the host had in the last frame.
        let last = match self.seen.and_then(|(_, newest)| newest) {
            Some(newest) => self.entries.iter().find(|entry| entry.frame_plus_1 == newest.saturating_add(1)),
            None => None,
        };
        let last = last.map_or(0, |entry| entry.handed);
        for entry in self.entries.iter().filter(|entry| entry.frame_plus_1 > 0 && entry.frame_plus_1 <= frames) {
            told.add(entry, last);
        }
        let seen_frames = self.seen.map_or(0, |(frame, _)| frame.saturating_add(1));
        // All that was sent was stepped, or the game's last frame was seen.
        told.is_exact = seen_frames >= frames || self.newest.is_none_or(|newest| newest < seen_frames);
        told
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Told {
    fn add(&mut self, entry: &Entry, last: u32) {
        if !entry.said {
            return;
        }
        self.sent += 1;
        self.lost += u64::from(entry.handed == 0);
        self.after_end += u64::from(entry.handed > last);
        self.missed_after_loss += u64::from(entry.missed && entry.first_lost);
        self.missed_otherwise += u64::from(entry.missed && !entry.first_lost);
    }
}

impl Account {
    /// Adds a game of one player: what this side knows, and what the host counted.
    pub fn add(&mut self, ledger: &Ledger, host: &HostCounts) {
        let told = ledger.tell(host.frames());
        if !told.is_exact {
            self.not_compared += 1;
            return;
        }
        let came = told.sent.saturating_sub(told.lost).saturating_sub(told.after_end);
        let counted = host.fresh.saturating_add(host.late);
        let missing = came.saturating_sub(counted);
        let out_of_track = missing.min(host.ahead.saturating_add(host.behind));
        let never_received = (missing - out_of_track).min(told.copies.saturating_sub(host.received));
        self.games += 1;
        self.frames += host.frames();
        self.not_sent += host.frames().saturating_sub(told.sent);
        self.sent += told.sent;
        self.lost += told.lost;
        self.after_end += told.after_end;
        self.in_time += host.fresh;
        self.late += host.late;
        self.too_long += host.too_long;
        self.ahead += host.ahead;
        self.missed_after_loss += told.missed_after_loss;
        self.missed_otherwise += told.missed_otherwise;
        self.behind += host.behind;
        self.out_of_track += out_of_track;
        self.never_received += never_received;
        self.unexplained += missing - out_of_track - never_received;
        self.surplus += counted.saturating_sub(came);
    }

    /// Whether both sides say the same: what did not come to a room is said to be missing by both.
    #[must_use]
    pub const fn agrees(&self) -> bool {
        self.unexplained == 0 && self.surplus == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::collections::BTreeSet;
    use std::ops::Range;

    /// Copies of each input.
    const COPIES: u32 = 8;
    /// Frames that the host keeps inputs for, ahead and behind.
    const TRACK: u32 = 64;

    /// Inputs in the datagram with this newest one: there are none before that for frame `first`.
    fn count(newest: u32, first: u32) -> u32 {
        COPIES.min(newest - first + 1)
    }

    /// A player and a host with a network between them: what is sent in each tick comes `delay` ticks later, or not.
    struct World {
        ledger: Ledger,
        host: HostCounts,
        cache: BTreeSet<u32>,
        missed: BTreeSet<u32>,
        newest: Option<u32>,
        on_the_way: Vec<(u32, u32)>,
        /// The generator stands still in these ticks; what is due leaves it afterwards, all at once.
        stall: Range<u32>,
        /// Of what it hands over, so much finds the host's buffer full.
        dropped_percent: u64,
        random: Random,
    }

    impl World {
        fn new(seed: u64) -> Self {
            println!("seed {seed}");
            Self {
                ledger: Ledger::new(),
                host: HostCounts::default(),
                cache: BTreeSet::new(),
                missed: BTreeSet::new(),
                newest: None,
                on_the_way: Vec::new(),
                stall: 0..0,
                dropped_percent: 0,
                random: Random::new(seed),
            }
        }

        /// In each tick the host steps a frame and a player sends; `lead` ahead, `delay` ticks on the way. Gives what is neither sent nor used at the end.
        fn play(mut self, frames: u32, lead: u32, delay: u32, loss_percent: u64, last_seen: bool) -> (Account, Self) {
            for frame in 0..frames {
                self.arrive(frame, lead);
                if self.cache.contains(&frame) {
                    self.host.fresh += 1;
                } else {
                    self.missed.insert(frame);
                    self.host.repeated += 1;
                }
                if last_seen || frame + 1 < frames {
                    self.ledger.see(frame, self.newest);
                }
                if self.stall.contains(&frame) {
                    continue;
                }
                let newest = frame + lead;
                let is_lost = self.random.below(100) < loss_percent;
                // As many as the datagram has: what was skipped while it stood still is given up.
                let new = self.ledger.newest().map_or(1, |before| newest - before).min(COPIES);
                self.ledger.say(newest, new, is_lost);
                if !is_lost {
                    self.on_the_way.push((frame + delay, newest));
                }
            }
            // What is still on the way comes when nobody counts any more.
            for (_, newest) in std::mem::take(&mut self.on_the_way) {
                self.ledger.hand(newest, count(newest, lead));
                self.host.received += u64::from(COPIES);
                self.host.out_of_game += u64::from(COPIES);
            }
            let mut account = Account::default();
            account.add(&self.ledger, &self.host);
            (account, self)
        }

        fn arrive(&mut self, now: u32, lead: u32) {
            if self.stall.contains(&now) {
                return;
            }
            let due: Vec<u32> =
                self.on_the_way.iter().filter(|(at, _)| *at <= now).map(|(_, newest)| *newest).collect();
            self.on_the_way.retain(|(at, _)| *at > now);
            for newest in due {
                let count = count(newest, lead);
                self.ledger.hand(newest, count);
                if self.random.below(100) < self.dropped_percent {
                    continue;
                }
                self.newest = self.newest.max(Some(newest));
                for frame in newest + 1 - count..=newest {
                    self.host.received += 1;
                    if frame + TRACK < now {
                        self.host.behind += 1;
                    } else if frame >= now + TRACK {
                        self.host.ahead += 1;
                    } else if self.missed.remove(&frame) {
                        self.host.late += 1;
                    } else if frame >= now {
                        self.cache.insert(frame);
                    }
                }
            }
        }
    }

    #[test]
    fn without_loss_every_input_is_in_time() {
        let (account, _) = World::new(1).play(2_000, 6, 4, 0, true);
        assert!(account.agrees(), "{account:?}");
        assert_eq!((account.games, account.frames, account.sent), (1, 2_000, 1_994));
        // The first input was for frame 6. The datagram with the input for the last frame came in time, and those before it.
        assert_eq!((account.not_sent, account.in_time, account.late, account.lost), (6, 1_994, 0, 0));
        assert_eq!((account.after_end, account.missed_otherwise, account.missed_after_loss), (0, 0, 0));
    }

    #[test]
    fn both_sides_agree_whatever_is_lost_and_late() {
        for seed in 0..60 {
            let (lead, delay) = (seed as u32 % 7, seed as u32 % 5 + 1);
            let (account, world) = World::new(seed).play(3_000, lead, delay, seed % 4 * 20, true);
            assert!(account.agrees(), "{account:?}");
            assert_eq!(account.games, 1);
            let came = account.in_time + account.late;
            assert_eq!(account.sent, came + account.lost + account.after_end, "{account:?}");
            // What the snapshots told of is what the host missed, but for frames that no input was sent for.
            let missed = account.missed_after_loss + account.missed_otherwise;
            assert_eq!(missed + account.not_sent, world.host.repeated, "{account:?}");
        }
    }

    #[test]
    fn a_lead_that_is_too_small_makes_late_ones_and_no_riddles() {
        let (account, _) = World::new(5).play(1_000, 2, 4, 0, true);
        assert!(account.agrees() && account.in_time == 0, "{account:?}");
        assert!(account.late > 950 && account.missed_otherwise > 950 && account.missed_after_loss == 0, "{account:?}");
        // Those that were on the way in the last frame.
        assert!((1..=4).contains(&account.after_end), "{account:?}");
    }

    #[test]
    fn copies_that_come_long_after_their_frame_are_no_late_inputs() {
        // What was on the way when the generator stood still comes after 64 frames and more, and most of it had been in time in another copy. A host that counts each
        // copy of them as late has more inputs than were sent: that was the case, and is what this test is for.
        let stalled = |ticks: u32| {
            let world = World { stall: 500..500 + ticks, ..World::new(3) };
            world.play(2_000, 6, 3, 5, true).0
        };
        let long = stalled(100);
        assert!(long.agrees() && long.behind > 0 && long.out_of_track > 0, "{long:?}");
        assert!(long.out_of_track < long.behind, "{long:?}");
        assert_eq!(long.sent, long.in_time + long.late + long.lost + long.after_end + long.out_of_track, "{long:?}");
        let short = stalled(30);
        assert!(short.agrees() && short.behind == 0 && short.out_of_track == 0 && short.late > 0, "{short:?}");
    }

    #[test]
    fn what_a_full_buffer_dropped_is_told_from_what_the_host_lost() {
        let world = World { dropped_percent: 60, ..World::new(4) };
        let (account, mut world) = world.play(3_000, 8, 3, 5, true);
        assert!(account.never_received > 0 && account.agrees() && account.surplus == 0, "{account:?}");
        // All came to the room, and the same are not in its counts.
        world.host.received = world.ledger.tell(3_000).copies;
        let mut account = Account::default();
        account.add(&world.ledger, &world.host);
        assert!(account.never_received == 0 && account.unexplained > 0, "{account:?}");
    }

    #[test]
    fn an_input_that_the_host_had_and_did_not_use_shows() {
        let (_, mut world) = World::new(9).play(1_000, 6, 4, 5, true);
        world.host.fresh -= 3;
        world.host.repeated += 3;
        let mut account = Account::default();
        account.add(&world.ledger, &world.host);
        assert_eq!((account.unexplained, account.surplus, account.agrees()), (3, 0, false));
        world.host.fresh += 5;
        world.host.repeated -= 5;
        account.add(&world.ledger, &world.host);
        assert_eq!((account.unexplained, account.surplus), (3, 2));
    }

    #[test]
    fn without_the_last_snapshot_nothing_is_claimed() {
        let (account, _) = World::new(9).play(1_000, 6, 4, 5, false);
        assert_eq!((account.games, account.not_compared, account.sent), (0, 1, 0));
    }

    #[test]
    fn a_game_that_never_began_and_frames_at_the_end_of_numbers_do_no_harm() {
        let mut account = Account::default();
        account.add(&Ledger::new(), &HostCounts::default());
        assert!(account.agrees() && account.games == 1);
        let mut ledger = Ledger::new();
        for frame in [u32::MAX, u32::MAX - 1, 0, 5] {
            ledger.say(frame, 40, false);
            ledger.hand(frame, 16);
            ledger.see(frame, Some(u32::MAX));
        }
        assert!(ledger.tell(u64::MAX).sent > 0);
    }

    #[test]
    fn an_order_that_the_network_changed_costs_no_input() {
        let mut ledger = Ledger::new();
        for frame in 4..20 {
            ledger.say(frame, 1, false);
        }
        // The datagram of 10 comes after that of 11, which has its inputs too.
        for newest in [4, 5, 6, 7, 8, 9, 11, 10, 12, 13] {
            ledger.hand(newest, 8.min(newest - 3));
        }
        ledger.see(13, Some(13));
        let told = ledger.tell(14);
        assert_eq!((told.sent, told.lost, told.after_end, told.is_exact), (10, 0, 0, true));
    }
}
