//! Builds the module that misbehaves, `modules/misrule`, for WebAssembly. How modules are built is in `host/build/module.rs`.

#[path = "../host/build/module.rs"]
mod module;

use std::path::PathBuf;

/// What the module is made of and cargo does not note during the build, from the root of the workspace.
const SOURCES: [&str; 5] = [
    "Cargo.toml",
    "Cargo.lock",
    "tests/modules/misrule/Cargo.toml",
    "tests/modules/misrule/src",
    "game-logic/drag-race/cars.toml",
];

fn main() {
    let root = module::workspace();
    module::watch(&root, &SOURCES);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../host/build/module.rs");
    // Where the host's build script has built most of it already.
    let folder = PathBuf::from(module::env("DEP_HOLESHOT_MODULE_FOLDER"));
    let [module] = module::build(&root, &folder, ["misrule"]);
    println!("cargo::rustc-env=HOLESHOT_MISRULE_WASM={}", module.display());
}
