//! The game host.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod events;
pub mod manager;
pub mod rules;
