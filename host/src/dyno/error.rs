//! Why a car cannot be run, and what goes on while it is: for whoever waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use holeshot_room::Fault;

use crate::rules::InstantiateError;

/// Why a car cannot be run under a module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StripError {
    /// The module does not take a room of one of its cars.
    #[error(
        "the module {module} is not of the drag race's family: it does not take a room with {car}: {problem}. The dyno is for rules \
         made from the drag race (`holeshot new`)"
    )]
    Setup {
        /// The module's name.
        module: String,
        /// The car.
        car: String,
        /// What it says.
        problem: String,
    },
    /// What players see of it is not what players of the drag race see.
    #[error(
        "the module {module} is not of the drag race's family: {problem}. The dyno is for rules made from the drag race (`holeshot new`)"
    )]
    Foreign {
        /// The module's name.
        module: String,
        /// What is other.
        problem: String,
    },
    /// The rules failed.
    #[error("the module {module} failed in frame {frame} while {car} ran: {fault}; `holeshot check` says more of it")]
    Fault {
        /// The module's name.
        module: String,
        /// The car.
        car: String,
        /// The frame.
        frame: u32,
        /// The fault.
        fault: Fault,
    },
    /// The car gets no time.
    #[error("{car} has no time under the module {module}: {problem}")]
    NoTime {
        /// The module's name.
        module: String,
        /// The car.
        car: String,
        /// Why.
        problem: String,
    },
    /// The room did not begin for a reason that is the machine's.
    #[error(transparent)]
    Machine(InstantiateError),
    /// Whoever asked does not wait any more.
    #[error("it was broken off")]
    BrokenOff,
}

/// What goes on, for whoever waits; and whether anybody does. Shared by all strips of one use of the dyno.
#[derive(Debug, Default)]
pub struct Work {
    runs: AtomicU64,
    ticks: AtomicU64,
    cars: AtomicU64,
    broken_off: AtomicBool,
}

impl Work {
    /// Runs that began so far.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    /// Ticks of the rules so far.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Cars that are done so far.
    #[must_use]
    pub fn cars(&self) -> u64 {
        self.cars.load(Ordering::Relaxed)
    }

    pub(super) fn note_run(&self) {
        self.runs.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_tick(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_car(&self) {
        self.cars.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets every run end within a few ticks, with [`StripError::BrokenOff`].
    pub fn break_off(&self) {
        self.broken_off.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_broken_off(&self) -> bool {
        self.broken_off.load(Ordering::Relaxed)
    }
}
