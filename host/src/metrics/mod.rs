//! What the host tells about itself in figures: what modules and rooms cost, how late steps come, what waits where.
//!
//! Each shard keeps the figures of its own rooms and hands out copies when it is asked, as it does everything else: between two passes, by a
//! command. So a tick takes no lock, and nobody reads what is half written. [`gather`] asks and puts together; the text for Prometheus is made
//! in `page`.

pub mod budget;
pub mod distribution;
pub mod gather;
mod page;
pub(crate) mod process;

pub use page::CONTENT_TYPE;

use budget::{ModuleFigures, RoomFigures};
use distribution::Distribution;

/// Copies of a shard's figures.
#[derive(Debug)]
pub struct ShardFigures {
    /// Processor time of its thread, in nanoseconds; none where the system does not say.
    pub cpu_ns: Option<u64>,
    /// How late steps with ticks came, in microseconds.
    pub lateness_us: Distribution,
    /// How long steps with ticks took, with everything that left their rooms, in microseconds.
    pub step_us: Distribution,
    /// Sessions of players and spectators.
    pub sessions: usize,
    /// Rooms.
    pub rooms: usize,
    /// Its modules.
    pub modules: Vec<ModuleFigures>,
    /// Times that a room had a module of which no figures are kept.
    pub modules_left_out: u64,
    /// Of the rooms asked for, those that are here.
    pub of_rooms: Vec<(String, RoomFigures)>,
}
