//! The drag race: the default rules module of the Holeshot game host.
//!
//! `rules` is what a host runs; it wraps `race` (staging, lights, clocks, results), which moves cars with `physics`
//! and watches them with `timing` and `tree`. [`cars`] is the catalogue, [`Driver`] plays. README.md of this folder
//! explains the model and shows how it compares with published tests.

mod cars;
mod driver;
pub mod physics;
mod prng;
pub mod race;
mod rules;
mod snapshot;
pub mod timing;
pub mod tree;

pub use cars::{Aspiration, Car, Drive, EngineAt, Published, Shift, Source, Transmission, UnknownCar, cars, find_car};
pub use driver::{Driver, Plan};
pub use race::{Happened, Judging};
pub use rules::{DragRace, ResultData};
pub use snapshot::{Input, LaneView, Phase, Snapshot};
pub use tree::{Lamps, TreeKind};

#[cfg(feature = "module")]
holeshot_guest::export!(DragRace);
