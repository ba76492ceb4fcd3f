//! Which lines of its memory a module's ticks write, found out by looking at a few ticks of one room: with the same module and as many players they lie at the
//! same addresses in every room, and can be fetched before they are needed. Being wrong costs nothing but the fetching.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use holeshot_abi::PLAYERS_MAX;
use holeshot_room::LINE_BYTES;

/// Ticks of a room before it is looked at: what is written once at the start is over, and the players play.
const TICKS_BEFORE: u32 = 50;
/// Ticks that are looked at: copying and comparing the memory takes 0.1 ms for each MiB. What only some ticks write is mostly seen in one of them.
const TICKS: u32 = 8;
/// Lines that are kept: 4 KiB. Who writes more in each tick waits for memory anyway, and eight rooms of that many would not stay in a first-level cache.
const LINES_MAX: usize = 64;
/// Lines between two that are written which count with them: what lies in the middle of a value that changes is mostly read.
const GAP_LINES: usize = 2;

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
    /// Addresses in the module's memory, each the first of its line, in rising order.
    found: OnceLock<Box<[u32]>>,
    /// A room is looked at.
    claimed: AtomicBool,
}

impl Lines {
    /// What was found; nothing before.
    pub(super) fn found(&self) -> &[u32] {
        self.found.get().map_or(&[], |lines| lines)
    }

    /// To be asked for by each room: the one that is to look, if none does.
    pub(super) fn look(self: &Arc<Self>) -> Option<Box<Look>> {
        let is_first = !self.claimed.swap(true, Ordering::Relaxed);
        is_first.then(|| Box::new(Look { lines: Arc::clone(self), ticks: 0, before: Vec::new(), written: Vec::new() }))
    }
}

/// One room that is looked at. If it ends before enough was seen, another one is.
#[derive(Debug)]
pub(super) struct Look {
    lines: Arc<Lines>,
    ticks: u32,
    before: Vec<u8>,
    /// Of each line, whether it was written.
    written: Vec<bool>,
}

impl Drop for Look {
    fn drop(&mut self) {
        if self.lines.found.get().is_none() {
            self.lines.claimed.store(false, Ordering::Relaxed);
        }
    }
}

impl Look {
    /// Before a tick, with the memory.
    pub(super) fn before(&mut self, memory: &[u8]) {
        if self.ticks >= TICKS_BEFORE {
            self.before.clear();
            self.before.extend_from_slice(memory);
        }
    }

    /// After a tick, with the memory. False once everything was seen.
    pub(super) fn after(&mut self, memory: &[u8]) -> bool {
        self.ticks += 1;
        if self.ticks <= TICKS_BEFORE {
            return true;
        }
        self.written.resize(memory.len().div_ceil(LINE_BYTES), false);
        let lines = self.before.chunks(LINE_BYTES).zip(memory.chunks(LINE_BYTES)).zip(&mut self.written);
        for ((before, after), written) in lines {
            *written |= before != after;
        }
        let goes_on = self.ticks < TICKS_BEFORE + TICKS;
        if !goes_on {
            let _found_before = self.lines.found.set(self.result());
        }
        goes_on
    }

    /// The lines that were written, and short gaps between them.
    fn result(&self) -> Box<[u32]> {
        let mut lines: Vec<usize> = Vec::new();
        for (line, _) in self.written.iter().enumerate().filter(|(_, written)| **written) {
            let from = lines.last().map(|last| last + 1).filter(|from| line - from <= GAP_LINES).unwrap_or(line);
            lines.extend(from..=line);
        }
        let addresses = lines.into_iter().take(LINES_MAX).filter_map(|line| u32::try_from(line * LINE_BYTES).ok());
        addresses.collect()
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
        let mut memory = vec![0u8; 64 * LINE_BYTES];
        // A room that ends too early leaves it to the next.
        drop(lines.look().unwrap());
        let mut look = lines.look().unwrap();
        assert!(lines.look().is_none());
        let mut ticks = 0u32;
        loop {
            ticks += 1;
            look.before(&memory);
            // Line 1 at the start alone; 4 in every tick, 7 in every fourth, 20 in every tenth, at its last byte.
            memory[LINE_BYTES] = u8::from(ticks < TICKS_BEFORE);
            memory[4 * LINE_BYTES] = ticks as u8;
            memory[7 * LINE_BYTES] = (ticks / 4) as u8;
            memory[21 * LINE_BYTES - 1] = (ticks / 5) as u8;
            if !look.after(&memory) {
                break;
            }
            assert!(lines.found().is_empty(), "not before the end");
        }
        drop(look);
        assert_eq!(ticks, TICKS_BEFORE + TICKS);
        assert_eq!(lines.found(), [4, 5, 6, 7, 20].map(|line| line * LINE_BYTES as u32));
        assert!(lines.look().is_none(), "found once");
    }

    #[test]
    fn many_lines_are_cut() {
        let lines = Arc::<Lines>::default();
        let mut look = lines.look().unwrap();
        let mut memory = vec![0u8; 1_000 * LINE_BYTES];
        // It grows meanwhile.
        for tick in 0..TICKS_BEFORE + TICKS {
            look.before(&memory);
            memory.resize(memory.len() + LINE_BYTES, 0);
            memory.fill(tick as u8);
            look.after(&memory);
        }
        assert_eq!(lines.found().len(), LINES_MAX);
    }
}
