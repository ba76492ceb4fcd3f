//! The game host Holeshot: the I/O shell around the pure [room](holeshot_room) and [wire](holeshot_wire). Start reading at
//! [`server::Server`], which puts a host together; the binary is [`run`].
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod admin;
pub mod api;
pub mod backup;
pub mod bench;
pub mod bots;
pub mod budget;
pub mod child;
mod cli;
pub mod clock;
pub mod config;
pub mod doctor;
pub mod doors;
pub mod dyno;
pub mod events;
mod files;
#[doc(hidden)]
pub mod fuzzing;
pub mod identity;
pub mod journal;
pub mod limits;
pub mod load;
pub mod manager;
pub mod metrics;
pub mod modder;
pub mod modules;
mod page;
mod prefetch;
mod random;
pub mod rooms;
pub mod rules;
pub mod server;
pub mod shard;
pub mod swap;
pub mod tls;

pub use cli::run;
