//! For people who write rules: a crate to begin with ([`kit`]), what a host would say of a module ([`check`]), and games played from a script against the
//! module itself ([`scenario`]). Nothing in here talks to a running host.

pub mod check;
mod game;
pub mod kit;
pub mod scenario;
