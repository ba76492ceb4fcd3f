//! `holeshot bench`: measurements of this build on this machine. What is measured is the real thing; nothing here is used by a running host.

pub mod all;
pub mod compare;
pub mod events;
pub mod figure;
pub mod flood;
pub mod limit;
pub mod machine;
mod recorded;
pub mod replay;
pub mod rooms;
mod rooms_text;
pub mod seal;
pub mod shards;
pub mod snapshots;
pub mod soak;
pub mod steer;
pub mod swap;
pub mod tick;
mod told;

use serde::Serialize;

/// Nanoseconds for one of what is measured: a tick, a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    /// In the best block, sweep or round.
    pub min_ns: f64,
    /// In the one in the middle.
    pub median_ns: f64,
}

/// What samples say of it.
fn cost(samples: &[f64]) -> Cost {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
    Cost { min_ns: at(0), median_ns: at(sorted.len() / 2) }
}

/// A part of a whole, for people.
fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}

/// Above the figures of a program that was built without optimisation.
const UNOPTIMISED: &str = "This program was built without optimisation: run it with `cargo run --release`.\n\n";

/// What a report for people begins with: a word on the build, if its figures are worth little.
fn head(optimised: bool) -> String {
    if optimised { String::new() } else { UNOPTIMISED.to_owned() }
}
