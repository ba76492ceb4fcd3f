//! The arena: a shooter for up to 64 players, seen from above, as a rules module of the Holeshot game host.
//!
//! `rules` is what a host runs; it wraps [`World`] (moving, firing, hits, coming back), which knows the ground by [`map`] and finds who is hit by
//! [`grid`]; `view` makes each player's snapshot. [`Bot`] plays. README.md of this folder explains the model and what a tick costs.

mod bot;
mod fighter;
pub mod grid;
pub mod map;
mod pickups;
mod prng;
mod rules;
pub mod shots;
mod snapshot;
mod view;
mod weapon;
mod world;

pub use bot::Bot;
pub use fighter::{Fighter, HALF_MM, HEALTH_MAX, PROTECTED_MS, RESPAWN_MS};
pub use map::{Map, MapName, Point};
pub use pickups::{PICKUPS_MAX, Pickup, Pickups};
pub use rules::{Arena, DURATION_DEFAULT_S, DURATION_MAX_S, DURATION_MIN_S, ResultData};
pub use shots::{SHOTS_MAX, Shot};
pub use snapshot::{FighterView, Input, Leader, Own, PickupKind, PickupView, Record, Records, ShotView, Snapshot};
pub use view::is_near;
pub use weapon::{Figures, Weapon, toward};
pub use world::{Frag, RUN_SPEED_MM_S, World};

#[cfg(feature = "module")]
holeshot_guest::export!(Arena);
