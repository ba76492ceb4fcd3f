//! Where people and programs come in: HTTP and WebSocket on one port. Datagrams come in at the shards.

pub mod http;
mod journal;
pub mod listen;
pub mod manager;
mod modules;
pub mod records;
mod stall;
pub mod tickets;
pub mod websocket;
