//! One player's body and what it has done so far.

use serde::{Deserialize, Serialize};

use crate::map::Point;
use crate::weapon::Weapon;

/// Half the breadth of a body, in mm.
pub const HALF_MM: i32 = 400;

/// Health of who has just come.
pub const HEALTH_MAX: u8 = 100;

/// From going down to coming back, in ms.
pub const RESPAWN_MS: u32 = 2_000;

/// How long shots do nothing to who has just come, in ms: time to look around.
pub const PROTECTED_MS: u32 = 1_000;

/// One player's fighter. Ticks are counted from the match's first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fighter {
    /// Its player is there.
    pub present: bool,
    /// What it holds.
    pub weapon: Weapon,
    /// Where it is, or was when it went down.
    pub at: Point,
    /// Where it aims, in 65,536ths of a turn.
    pub aim: u16,
    /// Health, up to [`HEALTH_MAX`]; 0 while it is down or away.
    pub health: u8,
    /// The tick in which it comes back, while it is down.
    pub respawn_frame: u32,
    /// From this tick on shots hurt it.
    pub protected_frame: u32,
    /// Until before this tick it fires twice as fast.
    pub overdrive_frame: u32,
    /// From this tick on the weapon is ready.
    pub ready_frame: u32,
    /// Others whom it brought down.
    pub frags: u16,
    /// Times that it went down.
    pub deaths: u16,
    /// Frags since it last came.
    pub streak: u16,
    /// The longest streak.
    pub best_streak: u16,
    /// Shots fired.
    pub shots: u32,
    /// Shots that hit somebody.
    pub hits: u32,
    /// Health that it took from others.
    pub damage: u32,
}

impl Fighter {
    /// How long it takes to change weapons, in ms.
    pub(crate) const TAKE_MS: u32 = 400;

    /// One who is not there yet.
    pub(crate) fn new(weapon: Weapon) -> Self {
        Self {
            present: false,
            weapon,
            at: Point::default(),
            aim: 0,
            health: 0,
            respawn_frame: 0,
            protected_frame: 0,
            overdrive_frame: 0,
            ready_frame: 0,
            frags: 0,
            deaths: 0,
            streak: 0,
            best_streak: 0,
            shots: 0,
            hits: 0,
            damage: 0,
        }
    }
}
