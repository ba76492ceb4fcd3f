//! What the rules of rooms cost, per room and per module. A shard writes its own, without locks, as its rooms step; others get copies.

use std::sync::Arc;

use holeshot_abi::Manifest;
use holeshot_room::{Departure, Program, Ran, Usage};
use serde::Serialize;

use super::distribution::{Distribution, TICK_FUEL, TICK_NS};

/// Modules that one shard keeps figures of. A module on each day's swap makes a new one; those without rooms go first, the longest unused of them
/// before the others.
pub const MODULES_METERED_MAX: usize = 64;

/// Ticks that a room keeps before it adds them to its figures and its module's: a line of memory.
const RECENT_TICKS_MAX: usize = 8;

/// What happened, counted since the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Frames that the rules stepped.
    pub ticks: u64,
    /// Frames that were skipped because the rules took too long.
    pub overruns: u64,
    /// Times the rules failed, whether that was undone or ended the room; overruns not counted, unless they ended it.
    pub faults: u64,
    /// Faults that did not come again when the frame was run once more.
    pub retries: u64,
    /// Times these rules (of a room: its rules) were replaced by others because they failed on probation.
    pub rollbacks: u64,
    /// Times these rules (of a room: any) took over in a running room.
    pub swaps: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        let Self { ticks, overruns, faults, retries, rollbacks, swaps } = other;
        self.ticks += ticks;
        self.overruns += overruns;
        self.faults += faults;
        self.retries += retries;
        self.rollbacks += rollbacks;
        self.swaps += swaps;
    }
}

/// What ticks cost.
#[derive(Debug, Clone)]
pub struct Costs {
    /// Fuel of each tick that was stepped.
    pub fuel: Distribution,
    /// Nanoseconds of each tick that was stepped.
    pub time_ns: Distribution,
    /// What happened.
    pub counts: Counts,
}

impl Default for Costs {
    fn default() -> Self {
        Self { fuel: Distribution::new(TICK_FUEL), time_ns: Distribution::new(TICK_NS), counts: Counts::default() }
    }
}

impl Costs {
    /// Those of one of thousands.
    fn of_a_room() -> Self {
        Self { fuel: Distribution::small(TICK_FUEL), time_ns: Distribution::small(TICK_NS), counts: Counts::default() }
    }

    fn stepped(&mut self, fuel: u64, time_ns: u64) {
        self.counts.ticks += 1;
        self.fuel.record(fuel);
        self.time_ns.record(time_ns);
    }

    fn add(&mut self, other: &Self) {
        self.fuel.add(&other.fuel);
        self.time_ns.add(&other.time_ns);
        self.counts.add(&other.counts);
    }
}

/// The figures of one room.
#[derive(Debug)]
pub struct RoomBudget {
    costs: Costs,
    /// Of its last ticks, those that are not among the figures yet: with other rooms in turn, each visit to the figures waits for memory.
    recent: [(u32, u32); RECENT_TICKS_MAX],
    recent_ticks: usize,
    memory_bytes: u64,
    /// Its module's place in [`ModuleBudgets`]; none if there was no place.
    module: Option<usize>,
}

/// A copy of the figures of one room.
#[derive(Debug, Clone)]
pub struct RoomFigures {
    /// What its ticks cost and what happened.
    pub costs: Costs,
    /// Memory that its rules have, in bytes; as of the last tick.
    pub memory_bytes: u64,
    /// Ticks in a second, on which the budget of a tick depends.
    pub tick_hz: u32,
}

/// The figures of one module on one shard.
#[derive(Debug, Clone)]
pub struct ModuleFigures {
    /// Its hash.
    pub hash: [u8; 32],
    /// Its manifest's name.
    pub name: Arc<str>,
    /// Ticks in a second, on which the budget of a tick depends.
    pub tick_hz: u32,
    /// What the ticks of its rooms cost and what happened.
    pub costs: Costs,
    /// Rooms that it runs now.
    pub rooms: u64,
    /// Memory that its rules have in these rooms, in bytes.
    pub memory_bytes: u64,
    /// Most memory that one of its rooms ever had, in bytes.
    pub memory_bytes_max: u64,
}

impl ModuleFigures {
    /// Adds the figures of the same module on another shard.
    pub fn add(&mut self, other: &Self) {
        self.costs.add(&other.costs);
        self.rooms += other.rooms;
        self.memory_bytes += other.memory_bytes;
        self.memory_bytes_max = self.memory_bytes_max.max(other.memory_bytes_max);
    }
}

/// The figures of the modules of one shard.
#[derive(Debug, Default)]
pub struct ModuleBudgets {
    /// With the number of the last change of rooms, by which the longest unused is known.
    modules: Vec<(u64, ModuleFigures)>,
    changes: u64,
    left_out: u64,
}

impl ModuleBudgets {
    /// A copy of all.
    #[must_use]
    pub fn figures(&self) -> Vec<ModuleFigures> {
        self.modules.iter().map(|(_, figures)| figures.clone()).collect()
    }

    /// Times that a room had a module for which there was no place.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// One more room runs this module. Gives its place.
    fn enter(&mut self, hash: [u8; 32], manifest: &Manifest) -> Option<usize> {
        self.changes += 1;
        let found = self.modules.iter().position(|(_, figures)| figures.hash == hash);
        let place = found.or_else(|| self.free_place(hash, manifest));
        match place.and_then(|place| self.modules.get_mut(place)) {
            Some((used, figures)) => {
                *used = self.changes;
                figures.rooms += 1;
            }
            None => self.left_out += 1,
        }
        place
    }

    fn free_place(&mut self, hash: [u8; 32], manifest: &Manifest) -> Option<usize> {
        let (costs, name) = (Costs::default(), manifest.name.as_str().into());
        let figures = ModuleFigures {
            hash,
            name,
            tick_hz: manifest.tick_hz,
            costs,
            rooms: 0,
            memory_bytes: 0,
            memory_bytes_max: 0,
        };
        if self.modules.len() < MODULES_METERED_MAX {
            self.modules.push((self.changes, figures));
            return Some(self.modules.len() - 1);
        }
        // Places of modules with rooms are never given away: their rooms know them.
        let unused = self.modules.iter().enumerate().filter(|(_, (_, figures))| figures.rooms == 0);
        let (place, _) = unused.min_by_key(|(_, (used, _))| *used)?;
        *self.modules.get_mut(place)? = (self.changes, figures);
        Some(place)
    }

    fn leave(&mut self, place: Option<usize>, memory_bytes: u64) {
        self.changes += 1;
        let changes = self.changes;
        if let Some((used, figures)) = place.and_then(|place| self.modules.get_mut(place)) {
            *used = changes;
            figures.rooms = figures.rooms.saturating_sub(1);
            figures.memory_bytes = figures.memory_bytes.saturating_sub(memory_bytes);
        }
    }

    fn of(&mut self, place: Option<usize>) -> Option<&mut ModuleFigures> {
        self.modules.get_mut(place?).map(|(_, figures)| figures)
    }
}

impl RoomBudget {
    /// The figures of a room that opens with this module.
    #[must_use]
    pub fn open(modules: &mut ModuleBudgets, program: &dyn Program) -> Self {
        let module = modules.enter(program.hash(), program.manifest());
        Self { costs: Costs::of_a_room(), recent: [(0, 0); RECENT_TICKS_MAX], recent_ticks: 0, memory_bytes: 0, module }
    }

    /// Takes note of what leaves the room.
    pub fn note(&mut self, modules: &mut ModuleBudgets, departure: &Departure<'_>) {
        match departure {
            Departure::Tick { ran: Ran::Stepped { usage, .. }, .. } => self.stepped(modules, *usage),
            Departure::Tick { ran: Ran::Skipped { .. }, .. } => self.count(modules, |counts| counts.overruns += 1),
            // `RulesFault` comes for it, and also when there is no tick.
            Departure::Tick { ran: Ran::Faulted { .. }, .. } => {}
            Departure::RulesFault { .. } => self.count(modules, |counts| counts.faults += 1),
            Departure::RulesRetried { .. } => self.count(modules, |counts| {
                counts.faults += 1;
                counts.retries += 1;
            }),
            Departure::RulesSwapped { to, .. } => {
                self.change_module(modules, *to);
                self.count(modules, |counts| counts.swaps += 1);
            }
            Departure::RulesRolledBack { to, .. } => {
                // Of the failed module: it still is the room's.
                self.count(modules, |counts| {
                    counts.faults += 1;
                    counts.rollbacks += 1;
                });
                self.change_module(modules, *to);
            }
            _ => {}
        }
    }

    /// The room is gone.
    pub fn close(mut self, modules: &mut ModuleBudgets) {
        self.settle(modules);
        modules.leave(self.module, self.memory_bytes);
    }

    /// A copy of the figures, of a room with so many ticks in a second; without its last ticks, unless they were [settled](Self::settle).
    #[must_use]
    pub fn figures(&self, tick_hz: u32) -> RoomFigures {
        RoomFigures { costs: self.costs.clone(), memory_bytes: self.memory_bytes, tick_hz }
    }

    /// Bytes that the figures of a room take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let Costs { fuel, time_ns, .. } = &self.costs;
        size_of::<Self>() - 2 * size_of::<Distribution>() + fuel.bytes() + time_ns.bytes()
    }

    fn stepped(&mut self, modules: &mut ModuleBudgets, usage: Usage) {
        if let Some(place) = self.recent.get_mut(self.recent_ticks) {
            // The watchdog and the budget end a tick long before either is more than 32 bits tell.
            let narrow = |value| u32::try_from(value).unwrap_or(u32::MAX);
            *place = (narrow(usage.fuel), narrow(usage.time_ns));
            self.recent_ticks += 1;
        }
        if self.recent_ticks == self.recent.len() {
            self.settle(modules);
        }
        let memory_bytes = usage.memory_bytes as u64;
        if memory_bytes != self.memory_bytes {
            let before = std::mem::replace(&mut self.memory_bytes, memory_bytes);
            if let Some(module) = modules.of(self.module) {
                module.memory_bytes = (module.memory_bytes + memory_bytes).saturating_sub(before);
                module.memory_bytes_max = module.memory_bytes_max.max(memory_bytes);
            }
        }
    }

    /// Adds its last ticks to its figures and its module's. Whoever reads figures does this first.
    pub fn settle(&mut self, modules: &mut ModuleBudgets) {
        let mut module = modules.of(self.module);
        for (fuel, time_ns) in self.recent.iter().take(self.recent_ticks) {
            let (fuel, time_ns) = (u64::from(*fuel), u64::from(*time_ns));
            self.costs.stepped(fuel, time_ns);
            if let Some(module) = &mut module {
                module.costs.stepped(fuel, time_ns);
            }
        }
        self.recent_ticks = 0;
    }

    fn count(&mut self, modules: &mut ModuleBudgets, count: impl Fn(&mut Counts)) {
        count(&mut self.costs.counts);
        if let Some(module) = modules.of(self.module) {
            count(&mut module.costs.counts);
        }
    }

    fn change_module(&mut self, modules: &mut ModuleBudgets, program: &dyn Program) {
        self.settle(modules);
        modules.leave(self.module, self.memory_bytes);
        self.memory_bytes = 0;
        self.module = modules.enter(program.hash(), program.manifest());
    }
}

#[cfg(test)]
mod tests {
    use holeshot_abi::Setup;
    use holeshot_room::{BeginError, Fault, FaultKind, Rules};

    use super::*;

    /// A module in name only.
    #[derive(Debug)]
    struct Named {
        hash: [u8; 32],
        manifest: Manifest,
        setup: Setup,
    }

    impl Program for Named {
        fn hash(&self) -> [u8; 32] {
            self.hash
        }
        fn manifest(&self) -> &Manifest {
            &self.manifest
        }
        fn setup(&self) -> &Setup {
            &self.setup
        }
        fn begin(&self) -> Result<Box<dyn Rules + Send>, BeginError> {
            Err(BeginError::NoInstance("it is one in name only".into()))
        }
    }

    fn program(number: u8) -> Named {
        let manifest =
            r#"{"name":"named","version":"1","state_version":1,"players_min":1,"players_max":4,"input_bytes_max":4}"#;
        Named {
            hash: [number; 32],
            manifest: serde_json::from_str(manifest).unwrap(),
            setup: Setup { seed: 0, tick_hz: 50, options: String::new(), players: Vec::new() },
        }
    }

    fn tick(fuel: u64, memory_bytes: usize) -> Departure<'static> {
        let usage = Usage { fuel, time_ns: fuel / 4, memory_bytes };
        Departure::Tick { frame: 0, record: &[], ran: Ran::Stepped { output: &[], usage } }
    }

    #[test]
    fn a_swap_that_fails_counts_for_the_module_that_failed() {
        let (old, new) = (program(1), program(2));
        let fault = Fault::new(FaultKind::Trap, "");
        let mut modules = ModuleBudgets::default();
        let mut room = RoomBudget::open(&mut modules, &old);
        let other = RoomBudget::open(&mut modules, &old);
        for departure in [
            tick(1_000, 100),
            Departure::RulesSwapped { next_frame: 1, from: &old, to: &new },
            tick(9_000, 300),
            tick(9_000, 200),
            Departure::RulesRolledBack {
                since_frame: 1,
                frame: 3,
                failed: &new,
                to: &old,
                fault: &fault,
                void: &[],
                output_crcs: &[],
            },
            tick(2_000, 120),
            Departure::RulesRetried { frame: 4, fault: &fault },
            tick(2_000, 120),
            Departure::Tick { frame: 5, record: &[], ran: Ran::Skipped { fault: &fault } },
            Departure::Tick { frame: 6, record: &[], ran: Ran::Faulted { fault: &fault } },
            Departure::RulesFault { frame: 6, fault: &fault },
        ] {
            room.note(&mut modules, &departure);
        }
        let counts = |ticks, overruns, faults, retries, rollbacks, swaps| Counts {
            ticks,
            overruns,
            faults,
            retries,
            rollbacks,
            swaps,
        };
        room.settle(&mut modules);
        let figures = room.figures(50);
        assert_eq!((figures.costs.counts, figures.memory_bytes), (counts(5, 1, 3, 1, 1, 1), 120));
        assert_eq!((figures.costs.fuel.sum(), figures.costs.time_ns.max()), (23_000, 2_250));
        let of_modules = modules.figures();
        let [of_old, of_new] = &of_modules[..] else { panic!("{of_modules:?}") };
        assert_eq!((of_old.costs.counts, of_old.rooms, of_old.memory_bytes), (counts(3, 1, 2, 1, 0, 0), 2, 120));
        assert_eq!((of_new.costs.counts, of_new.rooms, of_new.memory_bytes), (counts(2, 0, 1, 0, 1, 1), 0, 0));
        assert_eq!((of_new.memory_bytes_max, of_new.costs.fuel.max(), of_old.costs.fuel.max()), (300, 9_000, 2_000));
        room.close(&mut modules);
        other.close(&mut modules);
        assert!(modules.figures().iter().all(|module| module.rooms == 0 && module.memory_bytes == 0));
    }

    #[test]
    fn modules_without_rooms_make_place_and_modules_with_rooms_stay() {
        let mut modules = ModuleBudgets::default();
        let staying: Vec<_> = (0..32).map(|number| RoomBudget::open(&mut modules, &program(number))).collect();
        for number in 100..200 {
            RoomBudget::open(&mut modules, &program(number)).close(&mut modules);
        }
        let hashes: Vec<u8> = modules.figures().iter().map(|module| module.hash[0]).collect();
        assert_eq!((hashes.len(), modules.left_out()), (MODULES_METERED_MAX, 0));
        assert!((0..32).chain(168..200).all(|number| hashes.contains(&number)), "{hashes:?}");
        // All places taken: the room has its own figures, and the module none.
        let more: Vec<_> = (32..80).map(|number| RoomBudget::open(&mut modules, &program(number))).collect();
        assert_eq!((modules.figures().len(), modules.left_out()), (MODULES_METERED_MAX, 16));
        let mut last = more.into_iter().last().unwrap();
        last.note(&mut modules, &tick(5, 7));
        last.settle(&mut modules);
        assert_eq!(last.figures(50).costs.counts.ticks, 1);
        last.close(&mut modules);
        assert_eq!(modules.figures().iter().map(|module| module.costs.counts.ticks).sum::<u64>(), 0);
        assert_eq!(staying.len(), 32);
    }

    #[test]
    fn a_room_takes_a_kilobyte_at_most() {
        let mut modules = ModuleBudgets::default();
        let bytes = RoomBudget::open(&mut modules, &program(1)).bytes();
        println!("{bytes} bytes for the figures of a room");
        assert!(bytes <= 1_024, "{bytes}");
    }
}
