//! What a player program links to play on a Holeshot host: one [`Client`] connects, keeps the session through lost
//! connections, streams inputs and hands out snapshots and events. The protocol itself is `holeshot-wire`; the rules
//! of a game, and what inputs and snapshots mean, belong to the game.
//!
//! ```no_run
//! use holeshot_client::{Client, ConnectOptions, Incoming};
//!
//! # async fn play(url: String, ticket: String, host_key: [u8; 32]) -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::connect(ConnectOptions::udp(url, ticket, host_key)).await?;
//! client.ready().await?;
//! while let Some(incoming) = client.next().await {
//!     match incoming {
//!         Incoming::Snapshot(snapshot) => {
//!             let input = [snapshot.bytes.len() as u8]; // whatever the game makes of it
//!             client.send_input(&input)?;
//!         }
//!         Incoming::Event(event) if event.name == "finished" => break,
//!         other => println!("{other:?}"),
//!     }
//! }
//! client.leave().await?;
//! # Ok(()) }
//! ```
//!
//! # Contract
//!
//! - [`Client::next`] gives events and action results in the host's order, none lost and none twice; while nobody calls
//!   it, they wait here and then at the host. Of snapshots it gives the newest only: one that was not taken in time is
//!   replaced. Between events and snapshots there is no order.
//! - Inputs go out at once and never wait. Each datagram repeats the last ones.
//! - A lost connection is opened again, with the ticket that the host's welcome brought for that; events after the last one
//!   seen come again, and actions without a result are repeated under their ids, so that the rules see each once. Where another
//!   session of the player took over meanwhile, the host refuses, and this one stays closed.
//! - Dropping the client closes the connection without leaving the room; [`Client::leave`] leaves it.
//! - A client runs one task on the current tokio runtime.

mod client;
mod driver;
mod incoming;
mod link;
mod options;
pub mod pacer;
mod shared;
mod tls;

pub use client::Client;
pub use holeshot_wire::{ByeCode, Phase, PlayerName, RefusalCode, RulesInfo};
pub use incoming::{Carrier, Event, Incoming, Snapshot, Welcome};
pub use options::{ActionError, ConnectError, ConnectOptions, InputError, RECONNECT_ATTEMPTS_MAX, Transport};
pub use shared::NetStats;
pub use tls::{Trust, TrustError, tls_problem};
