//! Builds the rules modules that ship with the host, those of `game-logic/`, for WebAssembly; `src/rules/default.rs` puts them into the binary. Cargo
//! runs this again when a source of one changed, so that the binary never carries a stale one. How they are built is in `build/module.rs`.
//! Lists the sources for `holeshot new` too: `build/kit.rs`.

#[path = "build/kit.rs"]
mod kit;
#[path = "build/module.rs"]
mod module;

use std::path::PathBuf;

/// What the modules are made of, from the root of the workspace. Files that these name (another crate of the workspace, say) are added from
/// what cargo noted during the build.
const SOURCES: [&str; 12] = [
    "Cargo.toml",
    "Cargo.lock",
    "game-logic/arena/Cargo.toml",
    "game-logic/arena/src",
    "game-logic/drag-race/Cargo.toml",
    "game-logic/drag-race/build.rs",
    "game-logic/drag-race/cars.toml",
    "game-logic/drag-race/src",
    "sdk/abi/Cargo.toml",
    "sdk/abi/src",
    "sdk/guest/Cargo.toml",
    "sdk/guest/src",
];

fn main() {
    let root = module::workspace();
    module::watch(&root, &SOURCES);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build/module.rs");
    println!("cargo::rerun-if-changed=build/kit.rs");
    let folder = PathBuf::from(module::env("OUT_DIR"));
    kit::list(&root, &folder);
    let [drag_race, arena] = module::build(&root, &folder, ["drag-race", "arena"]);
    println!("cargo::rustc-env=HOLESHOT_DRAG_RACE_WASM={}", drag_race.display());
    println!("cargo::rustc-env=HOLESHOT_ARENA_WASM={}", arena.display());
    // Those who build more modules share this folder, and with it all that the modules have in common.
    println!("cargo::metadata=module_folder={}", folder.display());
}
