//! Fuzz targets: one function for each decoder of bytes that come from outside. A target asserts what has to hold for any input (what can be read
//! is written with the same meaning, limits hold, no forged thing opens), not only that nothing panics. `README.md` says how the corpora
//! are replayed and explored; there is no libFuzzer in here.

mod arena;
mod backup;
mod budget_model;
mod car_file;
mod config;
mod datagram;
mod delta;
mod event;
mod figures;
mod forwarded;
mod handshake;
mod journal;
mod manifest;
mod measured;
mod message;
mod module;
mod output;
mod records;
mod rules;
mod scenario;
mod take;
pub mod ticket;

/// A target: panics if something does not hold for this input.
pub type Target = fn(&[u8]);

/// Every target: its name, which is that of its corpus, and its function.
pub const TARGETS: &[(&str, Target)] = &[
    ("arena", arena::target),
    ("backup", backup::target),
    ("budget_model", budget_model::target),
    ("car_file", car_file::target),
    ("config", config::target),
    ("datagram", datagram::target),
    ("delta", delta::target),
    ("event", event::target),
    ("figures", figures::target),
    ("forwarded", forwarded::target),
    ("handshake", handshake::target),
    ("journal", journal::target),
    ("manifest", manifest::target),
    ("measured", measured::target),
    ("message", message::target),
    ("module", module::target),
    ("output", output::target),
    ("records", records::target),
    ("scenario", scenario::target),
    ("ticket", ticket::target),
];

/// The target of a name.
#[must_use]
pub fn find(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// Length of the longest input of each target in bytes, of the explorer and of mutations: inputs above it find nothing that shorter ones do not,
/// and each costs time. What is above a decoder's own limit has tests of its own.
#[must_use]
pub fn input_bytes_max(name: &str) -> usize {
    match name {
        // One full datagram and a mode.
        "datagram" => 1_201,
        "handshake" => 256,
        // Longer tickets are refused unseen; files of keys say nothing new above it.
        "ticket" => 2_100,
        _ => 4_096,
    }
}

pub use journal::{framed, unframed};
