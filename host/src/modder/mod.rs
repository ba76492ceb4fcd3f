//! For people who write rules: a crate to begin with ([`kit`]). Nothing in here talks to a running host.

pub mod kit;
