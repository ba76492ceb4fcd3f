//! Which lines of its memory a module's ticks write, found out by looking at a few ticks of one room: with the same module and as many players they lie at the
//! same addresses in every room, and can be fetched before they are needed. Being wrong costs nothing but the fetching.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use holeshot_abi::PLAYERS_MAX;
use holeshot_room::LINE_BYTES;

/// Ticks of a room before it is looked at for the first time, and for the others: what is written once at the start is over, and the players play; in a race the cars
/// then still stand, and are on their way the other times.
const TICKS_BEFORE: [u32; 3] = [50, 200, 450];
/// Ticks that are looked at each time: copying and comparing the memory takes 0.1 ms for each MiB. What only some ticks write is mostly seen in one of them.
const TICKS: u32 = 8;
/// Lines that are kept: 6 KiB. Who writes more in each tick waits for memory anyway, and eight rooms of that many would not stay in a first-level cache.
const LINES_MAX: usize = 96;
/// Lines between two that are written which count with them: what lies in the middle of values that change is mostly read, as what the drag race knows of its cars
/// is. To ask for one in vain takes 3 ns, to wait for one 50.
const GAP_LINES: usize = 8;
/// A page of the processor's, in bytes: the smallest that there is.
const PAGE_BYTES: u32 = 4_096;

/// The lines of one module, by the number of players.
#[derive(Debug, Default)]
pub(super) struct ModuleLines {
    /// At most [`PLAYERS_MAX`], and one for none.
    of: Mutex<Vec<(usize, Arc<Lines>)>>,
}

impl ModuleLines {
    /// The lines of rooms with so many players.
    pub(super) fn of(&self, players: usize) -> Arc<Lines> {
        let players = players.min(PLAYERS_MAX);
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, lines)) = of.iter().find(|(number, _)| *number == players) {
            return Arc::clone(lines);
        }
        let lines = Arc::<Lines>::default();
        of.push((players, Arc::clone(&lines)));
        lines
    }
}

/// The lines of one module with one number of players.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// After each time that a room was looked at; what was found before is in it.
    found: [OnceLock<Found>; TICKS_BEFORE.len()],
    /// A room is looked at.
    claimed: AtomicBool,
}

impl Lines {
    /// Of what was found so far one line of each page.
    pub(super) fn of_pages(&self) -> &[u32] {
        self.newest().map_or(&[], |found| &found.of_pages)
    }

    /// The others.
    pub(super) fn of_rest(&self) -> &[u32] {
        self.newest().map_or(&[], |found| &found.of_rest)
    }

    fn newest(&self) -> Option<&Found> {
        self.found.iter().rev().find_map(OnceLock::get)
    }

    /// Times that a room was looked at.
    fn times(&self) -> usize {
        self.found.iter().filter(|found| found.get().is_some()).count()
    }

    /// To be asked for by each room: the one that is to look, if none does.
    pub(super) fn look(self: &Arc<Self>) -> Option<Box<Look>> {
        let is_first = !self.claimed.swap(true, Ordering::Relaxed);
        let look = || {
            let mut written = Vec::new();
            for address in self.newest().into_iter().flat_map(|found| found.of_pages.iter().chain(&found.of_rest)) {
                let line = *address as usize / LINE_BYTES;
                written.resize(written.len().max(line + 1), false);
                if let Some(written) = written.get_mut(line) {
                    *written = true;
                }
            }
            Look { lines: Arc::clone(self), ticks: 0, time: self.times(), before: Vec::new(), written }
        };
        is_first.then(|| Box::new(look()))
    }
}

/// Addresses in the module's memory, each the first of its line, in rising order.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// The first of each page.
    of_pages: Box<[u32]>,
    of_rest: Box<[u32]>,
}

/// One room that is looked at. If it ends before enough was seen, another one is.
#[derive(Debug)]
pub(super) struct Look {
    lines: Arc<Lines>,
    ticks: u32,
    /// Which of its times this is.
    time: usize,
    before: Vec<u8>,
    /// Of each line, whether it was written.
    written: Vec<bool>,
}

impl Drop for Look {
    fn drop(&mut self) {
        if self.time < TICKS_BEFORE.len() {
            self.lines.claimed.store(false, Ordering::Relaxed);
        }
    }
}

impl Look {
    /// The ticks of its next time are over the first and up to the second.
    fn span(&self) -> (u32, u32) {
        let first = TICKS_BEFORE.get(self.time).copied().unwrap_or(u32::MAX);
        (first, first.saturating_add(TICKS))
    }

    /// Before a tick, with the memory.
    pub(super) fn before(&mut self, memory: &[u8]) {
        if self.ticks >= self.span().0 {
            self.before.clear();
            self.before.extend_from_slice(memory);
        }
    }

    /// After a tick, with the memory. False once everything was seen.
    pub(super) fn after(&mut self, memory: &[u8]) -> bool {
        self.ticks += 1;
        let (from, to) = self.span();
        if self.ticks <= from {
            return true;
        }
        let all = memory.len().div_ceil(LINE_BYTES);
        self.written.resize(self.written.len().max(all), false);
        let lines = self.before.chunks(LINE_BYTES).zip(memory.chunks(LINE_BYTES)).zip(&mut self.written);
        for ((before, after), written) in lines {
            *written |= before != after;
        }
        if self.ticks >= to {
            if let Some(place) = self.lines.found.get(self.time) {
                let _found_before = place.set(self.result());
            }
            self.time += 1;
            self.before = Vec::new();
        }
        self.time < TICKS_BEFORE.len()
    }

    /// The lines that were written, and short gaps between them.
    fn result(&self) -> Found {
        let mut lines: Vec<usize> = Vec::new();
        for (line, _) in self.written.iter().enumerate().filter(|(_, written)| **written) {
            let from = lines.last().map(|last| last + 1).filter(|from| line - from <= GAP_LINES).unwrap_or(line);
            lines.extend(from..=line);
        }
        let (mut of_pages, mut of_rest, mut page_before) = (Vec::new(), Vec::new(), None);
        for address in lines.into_iter().take(LINES_MAX).filter_map(|line| u32::try_from(line * LINE_BYTES).ok()) {
            let page = Some(address / PAGE_BYTES);
            if page == page_before { &mut of_rest } else { &mut of_pages }.push(address);
            page_before = page;
        }
        Found { of_pages: of_pages.into(), of_rest: of_rest.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_ticks_write_are_found_once_and_by_one_room() {
        let module = ModuleLines::default();
        let lines = module.of(2);
        assert!(Arc::ptr_eq(&lines, &module.of(2)) && !Arc::ptr_eq(&lines, &module.of(3)));
        let mut memory = vec![0u8; 128 * LINE_BYTES];
        // A room that ends too early leaves it to the next.
        drop(lines.look().unwrap());
        let ([first, second, third], all) = (TICKS_BEFORE, TICKS_BEFORE[2] + TICKS);
        let mut look = lines.look().unwrap();
        assert!(lines.look().is_none());
        let at = |lines: &[u32]| lines.iter().map(|at| *at as usize / LINE_BYTES).collect::<Vec<_>>();
        for ticks in 1..=all {
            look.before(&memory);
            // Line 1 at the start alone; 4 in every tick, 11 in every fourth, 30 in every fifth, at its last byte; of the next page the first two, but for the last only
            // from the second time on.
            memory[LINE_BYTES] = u8::from(ticks < first);
            memory[4 * LINE_BYTES] = ticks as u8;
            memory[11 * LINE_BYTES] = (ticks / 4) as u8;
            memory[31 * LINE_BYTES - 1] = (ticks / 5) as u8;
            memory[64 * LINE_BYTES..64 * LINE_BYTES + 1].fill(ticks as u8);
            memory[65 * LINE_BYTES] = if ticks > second { ticks as u8 } else { 0 };
            assert_eq!(look.after(&memory), ticks < all);
            if ticks == first + TICKS {
                // Another one goes on where the former ended.
                drop(look);
                look = lines.look().unwrap();
                look.ticks = ticks;
            }
            let rest: &[usize] = match ticks {
                _ if ticks < first + TICKS => &[],
                _ if ticks < second + TICKS => &[5, 6, 7, 8, 9, 10, 11, 30],
                _ => &[5, 6, 7, 8, 9, 10, 11, 30, 65],
            };
            assert_eq!(
                (at(lines.of_pages()).len(), at(lines.of_rest()).as_slice()),
                (if rest.is_empty() { 0 } else { 2 }, rest)
            );
        }
        assert_eq!(at(lines.of_pages()), [4, 64]);
        drop(look);
        assert!(lines.look().is_none() && third > second, "found once");
    }

    #[test]
    fn many_lines_are_cut() {
        let lines = Arc::<Lines>::default();
        let mut look = lines.look().unwrap();
        let mut memory = vec![0u8; 1_000 * LINE_BYTES];
        // It grows meanwhile.
        for tick in 0..TICKS_BEFORE[0] + TICKS {
            look.before(&memory);
            memory.resize(memory.len() + LINE_BYTES, 0);
            memory.fill(tick as u8);
            look.after(&memory);
        }
        assert_eq!(lines.of_pages().len() + lines.of_rest().len(), LINES_MAX);
    }
}
