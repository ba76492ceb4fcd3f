//! The drag race: the default rules module of the Holeshot game host.
//!
//! [`cars`] is the catalogue, `physics` moves one car. README.md of this folder explains the
//! model and shows how it compares with the published tests.

pub mod cars;
pub mod physics;
