//! `holeshot bench`: measurements of this build on this machine. What is measured is the real thing; nothing here is used by a running host.

pub mod events;
pub mod flood;
mod recorded;
pub mod replay;
pub mod seal;
pub mod swap;
pub mod tick;

/// Above the figures of a program that was built without optimisation.
const UNOPTIMISED: &str = "This program was built without optimisation: run it with `cargo run --release`.\n\n";
