//! What can be wrong with a module or with the beginning of a room, in words for the person who wrote the module.

use holeshot_abi::{ABI_VERSION, MANIFEST_BYTES_MAX, MEMORY_BYTES_MAX, Malformed, ManifestError, TABLE_ELEMENTS_MAX};
use holeshot_room::Fault;

use super::MODULE_BYTES_MAX;

/// Why a file is not taken as a rules module. Each text says what was found, what is needed and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {problem}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        problem: String,
    },
    /// The file is too long.
    #[error(
        "the module has {found_bytes} bytes, at most {MODULE_BYTES_MAX} are taken; build it with `--release`, and strip its debug \
         information (`strip = \"debuginfo\"` in the profile)"
    )]
    TooLong {
        /// Bytes found; where the file is longer than is read, one more than is taken.
        found_bytes: u64,
    },
    /// Compiling it would take too long.
    #[error(
        "compiling the module would take too long: of {what}, locals times branches are {found}, at most {most} are taken; split the largest \
         functions, or build with less inlining (`opt-level = \"s\"`)"
    )]
    TooTangled {
        /// What of it: one function, or all of them together.
        what: &'static str,
        /// Locals times branches.
        found: u64,
        /// The most that is taken.
        most: u64,
    },
    /// The bytes are something else.
    #[error("this is not a WebAssembly module: it begins with {start}, not with \"\\0asm\"{hint}")]
    NotWasm {
        /// The first bytes.
        start: String,
        /// What it may be instead, and what to do.
        hint: &'static str,
    },
    /// A component, which wraps core modules.
    #[error(
        "this is a WebAssembly component; a core module is needed. Build for wasm32-unknown-unknown rather than wasm32-wasip2, without \
         `wasm-tools component new` or cargo-component"
    )]
    Component,
    /// The bytes break the rules of WebAssembly, or use a proposal beyond the specification of the boundary.
    #[error(
        "the module is not valid at byte {offset:#x}: {problem}. Accepted are WebAssembly 1.0, bulk memory, sign extension, saturating float \
         conversion, multi-value, function references in tables and fixed-width SIMD; a file that was cut short or changed has to be built again"
    )]
    Invalid {
        /// Where, from the start of the file.
        offset: u64,
        /// What is wrong there.
        problem: String,
    },
    /// An import that the host does not have.
    #[error("the module imports `{module}.{name}`; a rules module may import `holeshot.log` and nothing else. {hint}")]
    UnknownImport {
        /// The import's module.
        module: String,
        /// The import's name.
        name: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The log import with another type.
    #[error("the module imports `holeshot.log` as {found}; needed is {needed}")]
    ImportSignature {
        /// Its type in the module.
        found: String,
        /// The type it has.
        needed: String,
    },
    /// An export is missing.
    #[error("the module does not export `{name}`, needed is {needed}. {hint}")]
    MissingExport {
        /// The export.
        name: &'static str,
        /// Its type.
        needed: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// An export is of another type.
    #[error("the module exports `{name}` as {found}; needed is {needed}")]
    ExportSignature {
        /// The export.
        name: &'static str,
        /// Its type in the module.
        found: String,
        /// The type it needs.
        needed: String,
    },
    /// More memory at the start than an instance may have.
    #[error(
        "the module's memory begins with {found_bytes} bytes, an instance has at most {MEMORY_BYTES_MAX}; make static data smaller, or \
         the stack (`-C link-arg=-zstack-size=65536`)"
    )]
    MemoryTooLarge {
        /// Bytes found.
        found_bytes: u64,
    },
    /// A memory of a kind that the boundary does not have.
    #[error("the module has {found}; needed is one 32-bit memory that is not shared. {hint}")]
    MemoryKind {
        /// What was found.
        found: &'static str,
        /// What to do about it.
        hint: &'static str,
    },
    /// More table elements than an instance may have, or several tables.
    #[error(
        "the module has {tables} tables with {elements} elements together; an instance has one with at most {TABLE_ELEMENTS_MAX}. Each \
         function whose address is taken needs an element: fewer trait objects and function pointers need fewer"
    )]
    Tables {
        /// Number of tables.
        tables: usize,
        /// Elements they begin with, together.
        elements: u64,
    },
    /// It was written for another version of the boundary.
    #[error(
        "the module speaks version {}.{} of the boundary, this host speaks {}.0 to {}.{}; build the module with the \
         holeshot-guest of this host's release, or update the host",
        found >> 16, found & 0xffff, ABI_VERSION >> 16, ABI_VERSION >> 16, ABI_VERSION & 0xffff
    )]
    AbiVersion {
        /// The version found: major in the upper 16 bits, minor in the lower.
        found: u32,
    },
    /// The compiler or the pool does not take it.
    #[error("the module cannot be compiled: {problem}")]
    Compile {
        /// What wasmtime says.
        problem: String,
    },
    /// The module faulted before it could say what it is.
    #[error(
        "the module failed in its start function, `_initialize`, `holeshot_abi_version` or `holeshot_manifest`: {fault}"
    )]
    Faulted {
        /// The fault.
        fault: Fault,
    },
    /// The host has no instance left to ask the module in.
    #[error(
        "the host has no room left to load a module in: all {instances_max} are taken; end a room, or raise the number of rooms"
    )]
    HostFull {
        /// Most instances at a time.
        instances_max: u32,
    },
    /// The manifest is too long.
    #[error("the manifest has {found_bytes} bytes, at most {MANIFEST_BYTES_MAX} are read")]
    ManifestTooLong {
        /// Bytes found.
        found_bytes: usize,
    },
    /// The manifest is no text.
    #[error(
        "the manifest is not UTF-8 text: byte {offset} is wrong. Does the span of `holeshot_manifest` have the address in its upper half?"
    )]
    ManifestNotUtf8 {
        /// The first wrong byte.
        offset: usize,
    },
    /// The manifest is no JSON object of the fields that are needed.
    #[error("the manifest is not the JSON object that is needed: {problem}. It begins: {start}")]
    ManifestNotJson {
        /// What the JSON reader says, with line and column.
        problem: String,
        /// Its first characters.
        start: String,
    },
    /// A field of the manifest is out of its range.
    #[error("{0}")]
    Manifest(#[from] ManifestError),
}

/// Why a room does not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstantiateError {
    /// The module refuses the setup: its own words.
    #[error("the module refuses the setup: {text}")]
    Refused {
        /// The module's text, for the person who made the setup.
        text: String,
    },
    /// The setup does not fit in a setup record.
    #[error("the setup cannot be written: {0}")]
    Setup(#[from] Malformed),
    /// The module faulted.
    #[error("the module failed while the room began: {0}")]
    Faulted(Fault),
    /// Every instance is taken.
    #[error("the host is full: all {instances_max} rooms are taken; try again when one has ended")]
    HostFull {
        /// Most instances at a time.
        instances_max: u32,
    },
}
