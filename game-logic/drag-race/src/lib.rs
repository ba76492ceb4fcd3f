//! The drag race: the default rules module of the Holeshot game host.
//!
//! `rules` is what a host runs; it wraps `race` (staging, lights, clocks, results), which moves cars with `physics`
//! and watches them with `timing` and `tree`. [`cars`] is the catalogue, a room may bring others (`room_cars`), which `car_file` reads from
//! a file; [`Driver`] plays. README.md of this folder explains the model and shows how it compares with published tests.

#[cfg(feature = "car-file")]
pub mod car_file;
mod cars;
mod check;
mod curve;
mod driver;
#[cfg(feature = "car-file")]
mod file_cars;
pub mod physics;
mod prng;
pub mod race;
pub mod ranges;
mod room_cars;
mod rules;
mod snapshot;
pub mod timing;
pub mod tree;

pub use cars::{
    Aspiration, CATALOGUE_TOML, Car, Drive, EngineAt, Published, Shared, Shift, Source, Torque, Transmission,
    UnknownCar, cars, find_car,
};
pub use check::CarError;
pub use driver::{Driver, Plan, Shifts};
pub use race::{Happened, Judging};
pub use room_cars::to_options_json;
pub use rules::{DragRace, ResultData};
pub use snapshot::{Input, LaneView, Phase, Snapshot};
pub use tree::{Lamps, TreeKind};

#[cfg(feature = "module")]
holeshot_guest::export!(DragRace);
