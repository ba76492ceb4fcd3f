//! The rules modules that ship inside the binary. `build.rs` makes them.

/// The drag race as a rules module, built from `game-logic/drag-race` together with this binary.
pub const DRAG_RACE_WASM: &[u8] = include_bytes!(env!("HOLESHOT_DRAG_RACE_WASM"));

/// The arena as a rules module, built from `game-logic/arena` together with this binary.
pub const ARENA_WASM: &[u8] = include_bytes!(env!("HOLESHOT_ARENA_WASM"));

/// All of them. A room asks for one by its manifest's name.
pub const SHIPPED: [&[u8]; 2] = [DRAG_RACE_WASM, ARENA_WASM];
