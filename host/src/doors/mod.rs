//! Where people and programs come in: HTTP and WebSocket on one port. Datagrams come in at the shards.

mod entry;
pub mod gate;
pub mod http;
mod journal;
mod linger;
pub mod listen;
pub mod manager;
mod modules;
pub mod records;
pub mod roles;
mod stall;
pub mod tickets;
pub mod websocket;
