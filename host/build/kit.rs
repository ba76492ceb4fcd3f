//! Lists the sources that `holeshot new` writes into a modder's crate, for the binary to carry.

use std::path::{Path, PathBuf};

use crate::module::stop;

/// The packages whose sources are written, and what of each; their tests stay here.
const PACKAGES: [&str; 3] = ["sdk/abi", "sdk/guest", "game-logic/drag-race"];
const PARTS: [&str; 6] = ["Cargo.toml", "README.md", "build.rs", "build", "cars.toml", "src"];
/// Other files that go with them.
const FILES: [&str; 5] =
    ["Cargo.toml", "Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT", "game-logic/drag-race/clippy.toml"];

/// Writes the list as Rust into `folder`: pairs of a path from the workspace's root, with `/`, and the text.
pub(crate) fn list(root: &Path, folder: &Path) {
    let mut files: Vec<PathBuf> = FILES.iter().map(PathBuf::from).collect();
    for package in PACKAGES {
        for part in PARTS {
            add(root, &Path::new(package).join(part), &mut files);
        }
    }
    let mut list = String::from("[\n");
    for file in files {
        let path = root.join(&file);
        println!("cargo::rerun-if-changed={}", path.display());
        let parts: Vec<_> = file.iter().map(|part| part.to_string_lossy()).collect();
        list += &format!("    ({:?}, include_str!({:?})),\n", parts.join("/"), path);
    }
    list += "]\n";
    let target = folder.join("kit.rs");
    if let Err(error) = std::fs::write(&target, list) {
        stop(format!("{}: {error}", target.display()));
    }
}

/// Adds a file, or the files of a folder in the order of their names; nothing where a package has no such part.
fn add(root: &Path, part: &Path, files: &mut Vec<PathBuf>) {
    let path = root.join(part);
    if path.is_file() {
        files.push(part.to_owned());
    } else if path.is_dir() {
        let entries = path.read_dir().unwrap_or_else(|error| stop(format!("{}: {error}", path.display())));
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        names.iter().for_each(|name| add(root, &part.join(name), files));
    }
}
