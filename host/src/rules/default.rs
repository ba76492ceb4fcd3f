//! The rules module that ships inside the binary. `build.rs` makes it.

/// The drag race as a rules module, built from `game-logic/drag-race` together with this binary.
pub const DRAG_RACE_WASM: &[u8] = include_bytes!(env!("HOLESHOT_DRAG_RACE_WASM"));
