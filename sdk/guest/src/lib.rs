//! What a rules module links.
//!
//! A module is a plain struct that serde can derive, an `impl Rules` and one line of export:
//!
//! ```
//! use holeshot_guest::{Manifest, Output, PlayerResult, Rules, Setup, Tick, export};
//! use serde::{Deserialize, Serialize};
//!
//! /// First to press the button ten times wins.
//! #[derive(Serialize, Deserialize)]
//! struct Presses {
//!     counts: Vec<u32>,
//! }
//!
//! #[derive(Serialize, Deserialize, Default, Clone, Copy)]
//! struct Buttons {
//!     pressed: bool,
//! }
//!
//! impl Rules for Presses {
//!     type Input = Buttons;
//!     type Snapshot = Vec<u32>;
//!
//!     fn manifest() -> Manifest {
//!         Manifest::new("presses", "0.1.0", 1..=8, 1)
//!     }
//!
//!     fn new(setup: &Setup) -> Result<Self, String> {
//!         Ok(Self { counts: vec![0; setup.players.len()] })
//!     }
//!
//!     fn tick(&mut self, tick: &Tick<'_, Buttons>, out: &mut Output<'_, Self>) {
//!         for (count, player) in self.counts.iter_mut().zip(tick.players) {
//!             *count += u32::from(player.input.pressed);
//!         }
//!         out.snapshot(&self.counts);
//!         if let Some(winner) = self.counts.iter().position(|&count| count >= 10) {
//!             out.finish(&[PlayerResult { player: winner as u16, place: Some(1), outcome: "won".into(), data: () }]);
//!         }
//!     }
//! }
//!
//! export!(Presses);
//! # fn main() {}
//! ```
//!
//! Build it with `crate-type = ["cdylib", "rlib"]` for `wasm32-unknown-unknown`. The exports exist in the wasm build only; a native build of the
//! same crate is what tests link. The boundary itself is specified in [`holeshot_abi`].
//!
//! # What keeps a module deterministic
//!
//! Everything a module may use is in its setup and its ticks. Take functions like `exp` and `sin` from the `libm`
//! crate: those of std come from the C library in a native build and differ in the last bit. `+ - * /` and `sqrt` are the same everywhere.
//! Do not let a result depend on the order of a `HashMap`. NaNs are made canonical where they leave ([`canonical`]).
//!
//! # Memory
//!
//! A room of a small game takes the pages of 4 KiB that its module writes to: mostly one of its stack, one of its data, and those of its heap. With the feature `small-heap` the
//! heap begins in the page where the data ends and touches no other before it must: two pages less for each room. It is for games that ask for much the
//! same sizes all the time; others are better off with std's allocator, which they have without the feature.
//!
//! # Leaderboards
//!
//! A manifest may say which number of a result's data is a score, and the host keeps lists of the best ones:
//!
//! ```
//! # use holeshot_guest::{Leaderboard, Manifest};
//! # fn manifest() -> Manifest {
//! Manifest {
//!     leaderboards: vec![Leaderboard::lowest("lap", "lap_s").group_by(["track", "laps"])],
//!     ..Manifest::new("laps", "0.1.0", 1..=8, 1)
//! }
//! # }
//! # manifest().validate().unwrap();
//! ```
//!
//! A result whose data has no such field, or `None` there, is on no list.
//!
//! # State
//!
//! What serde derives for the struct is the state that the host saves, restores and moves to the next version of the module. A field
//! that serde skips is lost there; the test bench (feature `bench`) finds that.
//!
//! A running room can go on under other rules. `state_version` in the manifest says which struct the saved bytes are: leave it while the fields, their
//! types and their order stay (postcard writes no names), count it up when one of them changes, and write [`Rules::migrate`] for the versions
//! that may be running. [`bench::Bench::swap`](bench/struct.Bench.html#method.swap) tries that out in a test. Constants and code may change under the
//! same version: the room goes on with the new ones in the next tick.
//!
//! The same struct is what people see: `holeshot_describe` shows it as JSON, with the names of its fields.

pub mod canonical;
pub mod export;
#[cfg(any(test, all(target_arch = "wasm32", feature = "small-heap")))]
mod heap;
pub mod log;
mod rules;

#[cfg(feature = "bench")]
pub mod bench;

pub use export::read_state;
pub use holeshot_abi::{
    Best, ChangeKind, InputStatus, Leaderboard, LeaveReason, Manifest, PlayerResult, PlayerSetup, Setup,
};
pub use rules::{Action, Change};
pub use rules::{Output, PlayerTick, Rules, Tick};
