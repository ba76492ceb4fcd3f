//! Rules for tests that misbehave as they are ordered, and are the drag race otherwise: same name, same state, so that a running race can be
//! swapped to them. Built once; a test patches the orders into the file ([`wasm`]), so that one build gives any number of modules.
//!
//! `orders.rs` says which misdeeds there are, `rules.rs` commits them, `exports.rs` is the boundary.

#[cfg(target_arch = "wasm32")]
mod exports;
mod orders;
mod rules;

pub use orders::{Misdeed, Orders, When, wasm};
pub use rules::{Misrule, THROTTLE_EVENT, THROTTLE_EVENT_EVERY_FRAMES};
