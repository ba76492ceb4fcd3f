//! The game host.
