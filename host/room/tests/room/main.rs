//! Tests of a room through its public interface, in virtual time. They cover neither sockets nor wasm nor a real clock.

mod faulty;
mod journal;
mod lifecycle;
mod network;
mod properties;
mod simulation;
mod supervision;
mod support;
mod ticks;
