//! Builds rules modules of this workspace for WebAssembly, from a build script: the host's for the modules that it carries, and that of the
//! end-to-end tests for theirs. Which packages, and what they are made of, is with those.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const TARGET: &str = "wasm32-unknown-unknown";
const PROFILE: &str = "module";

/// What the outer cargo sets for the host's build and must not reach the module's: flags for another target, clippy's wrapper, a coverage run.
const NOT_FOR_THE_MODULE: [&str; 15] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_TARGET_DIR",
    "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOC",
    "CLIPPY_ARGS",
    "LLVM_PROFILE_FILE",
    "TARGET",
];

/// Makes cargo run this build script again when one of these paths, from the root of the workspace, changes.
pub(crate) fn watch(root: &Path, sources: &[&str]) {
    for source in sources {
        let path = root.join(source);
        // A path that is not there would make every build run this again.
        if !path.exists() {
            stop(format!("{} is missing; a source of a rules module", path.display()));
        }
        println!("cargo::rerun-if-changed={}", path.display());
    }
    // Another toolchain makes another module.
    println!("cargo::rerun-if-env-changed=RUSTUP_TOOLCHAIN");
}

/// Builds the libraries of `packages` within `folder`, side by side, and gives the modules' files. Modules that are built within one folder share
/// what they are made of.
pub(crate) fn build<const N: usize>(root: &Path, folder: &Path, packages: [&str; N]) -> [PathBuf; N] {
    let rustc = env("RUSTC");
    add_target(&rustc, root);

    // A folder of its own: the outer cargo holds the lock of the usual one while it waits for this.
    let target_dir = folder.join("module-target");
    let cargo = Cargo { rustc: &rustc, root, flags: module_flags(root, folder), target_dir: &target_dir };
    cargo.run("build", &packages, None);
    packages.map(|package| {
        let module = target_dir.join(TARGET).join(PROFILE).join(format!("{}.wasm", package.replace('-', "_")));
        if !module.is_file() {
            stop(format!("{} was not built; has the crate a cdylib of another name?", module.display()));
        }
        if let Some(base) = base_for_data_page(&module) {
            cargo.run("rustc", &[package], Some(&format!("-Clink-arg=--global-base={base}")));
        }
        for source in noted_sources(&module.with_extension("d"), root, folder) {
            println!("cargo::rerun-if-changed={}", source.display());
        }
        module
    })
}

/// How cargo is called for modules.
struct Cargo<'a> {
    rustc: &'a str,
    root: &'a Path,
    flags: String,
    target_dir: &'a Path,
}

impl Cargo<'_> {
    /// Builds the libraries of these packages; with `rustc` for a command, of one package with a flag for it alone.
    fn run(&self, command: &str, packages: &[&str], flag: Option<&str>) {
        let mut cargo = Command::new(env("CARGO"));
        for name in NOT_FOR_THE_MODULE {
            cargo.env_remove(name);
        }
        // Variables of this build script's own package, which build scripts of the module would take for theirs.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_FEATURE_")
                || text.starts_with("CARGO_CFG_")
                || text.starts_with("CARGO_PROFILE_")
                || text.starts_with("DEP_")
            {
                cargo.env_remove(name);
            }
        }
        cargo
            .current_dir(self.root)
            .env("RUSTC", self.rustc)
            .env("CARGO_ENCODED_RUSTFLAGS", &self.flags)
            .args([command, "--locked", "--quiet", "--color", "never", "--lib"])
            .args(packages.iter().flat_map(|package| ["--package", package]))
            .args(["--target", TARGET, "--profile", PROFILE])
            .arg("--target-dir")
            .arg(self.target_dir)
            .args(flag.iter().flat_map(|flag| ["--", flag]));
        let output = cargo.output().unwrap_or_else(|error| stop(format!("{cargo:?} does not start: {error}")));
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            text.lines().for_each(|line| println!("cargo::warning={line}"));
            stop(format!(
                "a rules module does not build for {TARGET}; its errors are above. To see them alone: \
                 cargo build --package {} --target {TARGET} --profile {PROFILE}",
                packages.join(" --package ")
            ));
        }
    }
}

/// A page of memory of the machines that run modules, in bytes.
const PAGE_BYTES: u64 = 4 << 10;
/// Constants may begin at multiples of this, in bytes: what the linker rounds up to is not more.
const CONSTANTS_ALIGNED_BYTES: u64 = 256;

/// Where a module's constants have to begin for what it writes, which comes after them, to begin where a page does. None if it does.
///
/// Each room has its own copy of the pages that its module writes. Where the data begins follows from how many constants there are before it, so that data and heap, 3 KiB
/// for the drag race, lie in one page or in two by chance: 4 KiB of a room's 44, and a page more to find in every tick.
fn base_for_data_page(module: &Path) -> Option<u64> {
    let bytes = std::fs::read(module).unwrap_or_else(|error| stop(format!("{}: {error}", module.display())));
    let segments = data_segments(&bytes).unwrap_or_else(|| stop(format!("{} is no module", module.display())));
    let (Some(first), Some(last)) = (segments.iter().min(), segments.iter().max()) else { return None };
    let over = last % PAGE_BYTES;
    let is_there = over < CONSTANTS_ALIGNED_BYTES || first == last;
    (!is_there).then(|| first + (PAGE_BYTES - over).next_multiple_of(CONSTANTS_ALIGNED_BYTES))
}

/// The addresses of a module's data segments (WebAssembly Core Specification 2.0, 5.5.14: section 11, a list of segments that each begin with a kind and, those that are
/// copied at once, with `i32.const`, the address and `end`). Those of a linker's modules are such; the list ends before one that is not.
fn data_segments(module: &[u8]) -> Option<Vec<u64>> {
    const DATA_SECTION: u8 = 11;
    const I32_CONST: u8 = 0x41;
    let mut rest = module.strip_prefix(b"\0asm\x01\0\0\0")?;
    let mut addresses = Vec::new();
    while let Some((section, after)) = rest.split_first() {
        let (len, content) = leb128(after)?;
        let (mut content, after) = content.split_at_checked(usize::try_from(len).ok()?)?;
        rest = after;
        if *section != DATA_SECTION {
            continue;
        }
        let (count, segments) = leb128(content)?;
        content = segments;
        for _ in 0..count {
            let [0, I32_CONST, segment @ ..] = content else { break };
            // It is signed, which for an address below 2 GiB makes no difference.
            let (address, segment) = leb128(segment)?;
            let (len, segment) = leb128(segment.split_first()?.1)?;
            addresses.push(address);
            content = segment.get(usize::try_from(len).ok()?..)?;
        }
    }
    Some(addresses)
}

/// A number in LEB128, and what follows it.
fn leb128(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().take(9).position(|byte| byte & 0x80 == 0)?;
    let (number, rest) = bytes.split_at(end + 1);
    Some((number.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f)), rest))
}

/// The sources within the workspace that cargo noted for the module, in the form of a makefile: `<module>: <source> <source> …`.
fn noted_sources(notes: &Path, root: &Path, folder: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(notes).unwrap_or_else(|error| stop(format!("{}: {error}", notes.display())));
    // A space within a path is written with a backslash before it.
    let text = text.replace("\\ ", "\0");
    let sources = text.lines().filter_map(|line| line.split_once(": ")).flat_map(|(_, sources)| sources.split(' '));
    sources
        .map(|source| PathBuf::from(source.replace('\0', " ")))
        .filter(|source| source.starts_with(root) && !source.starts_with(folder) && source.exists())
        .collect()
}

/// Flags that keep this machine's folders out of the module: its bytes, and so its name, are the same wherever it is built.
fn module_flags(root: &Path, folder: &Path) -> String {
    let mut remaps = vec![format!("--remap-path-prefix={}=", slash(root))];
    // CARGO_HOME is where sources of dependencies are; by default below the home folder.
    let cargo_home =
        std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    if let Some(home) = cargo_home {
        remaps.push(format!("--remap-path-prefix={}=cargo", home.display()));
        // The folder of a registry is named after its host, which may be a mirror.
        for registry in home.join("registry/src").read_dir().into_iter().flatten().flatten() {
            remaps.push(format!("--remap-path-prefix={}=crates", registry.path().display()));
        }
    }
    // Later ones win in rustc, and the folder is within the workspace as a rule: generated code gets a name of its own.
    remaps.push(format!("--remap-path-prefix={}=generated", folder.display()));
    remaps.join("\x1f")
}

fn slash(folder: &Path) -> String {
    format!("{}{}", folder.display(), std::path::MAIN_SEPARATOR)
}

/// Adds the WebAssembly target to the toolchain if it is not there.
fn add_target(rustc: &str, root: &Path) {
    if has_target(rustc) {
        return;
    }
    println!("cargo::warning=the Rust target {TARGET} is missing; adding it with rustup");
    let added = Command::new("rustup").args(["target", "add", TARGET]).current_dir(root).output();
    let problem = match added {
        Ok(output) if output.status.success() && has_target(rustc) => return,
        Ok(output) if output.status.success() => {
            format!("rustup added it to another toolchain than the one that builds ({rustc})")
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
        Err(error) => format!("rustup does not start: {error}"),
    };
    stop(format!(
        "the rules module needs Rust's standard library for {TARGET}. {problem}. With rustup: `rustup target add {TARGET}`. Without it: install \
         your distribution's package (Debian: libstd-rust-dev-wasm32; Fedora: rust-std-static-{TARGET}; Arch: rust-wasm), or take Rust from \
         https://rustup.rs"
    ));
}

fn has_target(rustc: &str) -> bool {
    let output = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    let Ok(output) = output else { return false };
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    // The folder may be there and empty.
    output.status.success() && folder.read_dir().is_ok_and(|mut files| files.next().is_some())
}

/// The root of the workspace, of which this build script's package is one folder below.
pub(crate) fn workspace() -> PathBuf {
    let package = PathBuf::from(env("CARGO_MANIFEST_DIR"));
    match package.parent() {
        Some(root) => root.to_owned(),
        None => stop("the package's folder has no folder above it"),
    }
}

pub(crate) fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|error| stop(format!("cargo did not set {name}: {error}")))
}

pub(crate) fn stop(problem: impl Display) -> ! {
    println!("cargo::error={problem}");
    exit(1)
}
