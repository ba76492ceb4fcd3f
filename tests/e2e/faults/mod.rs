//! Faults survived, by real processes: whatever is killed, stopped, refused, full, locked or set back, and in whatever order, every event of
//! every room that its player saw end is in the records exactly once. Each scenario prints what was sent and recorded, and how much of it was
//! lost or doubled. The faults of single parts, seeded and in process, are in `host/src/events/tests.rs`.

mod burst;
mod clock;
mod disk;
mod kills;
mod network;
mod process;
mod proxy;
mod site;

pub(crate) use process::signal;
