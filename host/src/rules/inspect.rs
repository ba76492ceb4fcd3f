//! What a file is, before anything of it is compiled or run: imports, exports, memory and tables against the specification of the boundary.
//! Function bodies are only measured here; the compiler validates them.

use holeshot_abi::{MEMORY_BYTES_MAX, TABLE_ELEMENTS_MAX, names};
use wasmparser::types::{EntityType, TypesRef};
use wasmparser::{
    CompositeInnerType, Encoding, Import, MemoryType, Operator, Parser, Payload, TypeRef, ValType, ValidPayload,
    Validator, WasmFeatures,
};

use super::MODULE_BYTES_MAX;
use super::error::LoadError;

const PAGE_BYTES: u64 = 64 << 10;

/// Locals times branches of one function. Beyond the length of the code, this is what the compiler's time and memory grow with: at this bound two
/// seconds and 200 MiB, at 36 times as much (a file of 270 KB) minutes and gigabytes.
const FUNCTION_TANGLE_MAX: u64 = 2 << 20;
/// The same, summed over all functions: some ten seconds. The drag race has 150,000, and a module of the greatest length would have six million if
/// it were like it.
const MODULE_TANGLE_MAX: u64 = 8 << 20;

struct Signature {
    params: &'static [ValType],
    results: &'static [ValType],
}

const LOG: Signature = Signature { params: &[ValType::I32, ValType::I32, ValType::I32], results: &[] };

const EXPORTS: [(&str, Signature); 7] = [
    (names::ABI_VERSION, Signature { params: &[], results: &[ValType::I32] }),
    (names::MANIFEST, Signature { params: &[], results: &[ValType::I64] }),
    (names::BUFFER, Signature { params: &[ValType::I32], results: &[ValType::I32] }),
    (names::INIT, Signature { params: &[ValType::I32], results: &[ValType::I64] }),
    (names::TICK, Signature { params: &[ValType::I32], results: &[ValType::I64] }),
    (names::SAVE, Signature { params: &[], results: &[ValType::I64] }),
    (names::RESTORE, Signature { params: &[ValType::I32], results: &[ValType::I64] }),
];

/// Exports that a module may have.
const OPTIONAL: [(&str, Signature); 2] = [
    (names::INITIALIZE, Signature { params: &[], results: &[] }),
    (names::DESCRIBE, Signature { params: &[], results: &[ValType::I64] }),
];

const HINT_EXPORT: &str = "In Rust: `crate-type = [\"cdylib\", \"rlib\"]` and one `holeshot_guest::export!(YourRules);`. In C: the attribute export_name, and `-Wl,--no-entry`";
const HINT_MEMORY: &str =
    "Linkers export it by default; look for an option that imports or hides it (`--import-memory`)";

/// What is in a file, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Facts {
    /// Imports, as `module.name`.
    pub imports: Vec<String>,
    /// Names of exports.
    pub exports: Vec<String>,
    /// Memory at the start, in bytes.
    pub memory_bytes: u64,
    /// The most memory that the module itself allows, in bytes; none where it sets no limit.
    pub memory_bytes_max: Option<u64>,
    /// Functions with a body.
    pub functions: u32,
    /// Length of the code, in bytes.
    pub code_bytes: usize,
    /// Length of the constant data, in bytes.
    pub data_bytes: usize,
    /// Length of the debug information, in bytes. 0: backtraces have no lines.
    pub debug_bytes: usize,
    /// Whether functions have names. Without them backtraces have numbers.
    pub names: bool,
}

/// Looks at a module that was loaded. What cannot be read is left out.
#[must_use]
pub fn facts(bytes: &[u8]) -> Facts {
    let mut facts = Facts::default();
    for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
        match payload {
            Payload::ImportSection(section) => {
                let imports = section.into_imports().flatten();
                facts.imports.extend(imports.map(|import| format!("{}.{}", clip(import.module), clip(import.name))));
            }
            Payload::ExportSection(section) => {
                facts.exports.extend(section.into_iter().flatten().map(|export| clip(export.name)));
            }
            Payload::MemorySection(section) => {
                for memory in section.into_iter().flatten() {
                    facts.memory_bytes = memory.initial.saturating_mul(PAGE_BYTES);
                    facts.memory_bytes_max = memory.maximum.map(|pages| pages.saturating_mul(PAGE_BYTES));
                }
            }
            Payload::CodeSectionStart { count, size, .. } => {
                facts.functions = count;
                facts.code_bytes = size as usize;
            }
            Payload::DataSection(section) => facts.data_bytes = section.range().len(),
            Payload::CustomSection(section) if section.name().starts_with(".debug_") => {
                facts.debug_bytes += section.data().len();
            }
            Payload::CustomSection(section) if section.name() == "name" => facts.names = true,
            _ => {}
        }
    }
    facts
}

/// Checks everything that can be known without running the module.
pub(crate) fn inspect(bytes: &[u8]) -> Result<(), LoadError> {
    if bytes.len() > MODULE_BYTES_MAX {
        return Err(LoadError::TooLong { found_bytes: bytes.len() as u64 });
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(not_wasm(bytes));
    }
    let features = WasmFeatures::WASM2.difference(WasmFeatures::GC_TYPES);
    let mut validator = Validator::new_with_features(features);
    let mut parser = Parser::new(0);
    parser.set_features(features);
    let mut types = None;
    let mut tangle = Tangle::default();
    for payload in parser.parse_all(bytes) {
        let payload = payload.map_err(invalid)?;
        tangle.see(&payload).map_err(invalid)?;
        // These come before the validator, which knows only that a proposal is off, not what to do about it.
        match &payload {
            Payload::Version { encoding: Encoding::Component, .. } => return Err(LoadError::Component),
            Payload::ImportSection(section) => {
                for import in section.clone().into_imports() {
                    check_import_name(&import.map_err(invalid)?)?;
                }
            }
            Payload::MemorySection(section) => {
                for (at, memory) in section.clone().into_iter().enumerate() {
                    check_memory(at, memory.map_err(invalid)?)?;
                }
            }
            Payload::TableSection(section) => {
                let (mut tables, mut elements) = (0, 0u64);
                for table in section.clone() {
                    tables += 1;
                    elements = elements.saturating_add(table.map_err(invalid)?.ty.initial);
                }
                if tables > 1 || elements > TABLE_ELEMENTS_MAX as u64 {
                    return Err(LoadError::Tables { tables, elements });
                }
            }
            _ => {}
        }
        if let ValidPayload::End(found) = validator.payload(&payload).map_err(invalid)? {
            types = Some(found);
        }
    }
    let types = types.ok_or_else(|| LoadError::Invalid {
        offset: bytes.len() as u64,
        problem: "the file ends before the module does".into(),
    })?;
    for (what, found, most) in [
        ("one function", tangle.largest, FUNCTION_TANGLE_MAX),
        ("all functions together", tangle.sum, MODULE_TANGLE_MAX),
    ] {
        if found > most {
            return Err(LoadError::TooTangled { what, found, most });
        }
    }
    check_types(types.as_ref())
}

/// How much of a tangle the functions of a module are.
#[derive(Debug, Default)]
struct Tangle {
    /// Parameters of each type; of one that is no function, none.
    params: Vec<u64>,
    /// Parameters of the functions whose bodies are to come, in order.
    functions: std::collections::VecDeque<u64>,
    largest: u64,
    sum: u64,
}

impl Tangle {
    fn see(&mut self, payload: &Payload<'_>) -> Result<(), wasmparser::BinaryReaderError> {
        match payload {
            Payload::TypeSection(section) => {
                for ty in section.clone().into_iter_err_on_gc_types() {
                    self.params.push(ty?.params().len() as u64);
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section.clone() {
                    self.functions.push_back(self.params.get(ty? as usize).copied().unwrap_or_default());
                }
            }
            Payload::CodeSectionEntry(body) => {
                let mut locals = self.functions.pop_front().unwrap_or_default();
                for group in body.get_locals_reader()? {
                    locals = locals.saturating_add(group?.0.into());
                }
                let mut branches = 0;
                for operator in body.get_operators_reader()? {
                    branches += match operator? {
                        Operator::Block { .. }
                        | Operator::Loop { .. }
                        | Operator::If { .. }
                        | Operator::Br { .. }
                        | Operator::BrIf { .. } => 1,
                        Operator::BrTable { targets } => u64::from(targets.len()) + 1,
                        _ => 0,
                    };
                }
                let found = locals.saturating_mul(branches);
                self.largest = self.largest.max(found);
                self.sum = self.sum.saturating_add(found);
            }
            _ => {}
        }
        Ok(())
    }
}

fn check_types(types: TypesRef<'_>) -> Result<(), LoadError> {
    // Names were checked; what is left to check is the type of the log.
    for (_, _, ty) in types.core_imports().into_iter().flatten() {
        let found = describe(types, ty);
        let needed = LOG.describe();
        if found != needed {
            return Err(LoadError::ImportSignature { found, needed });
        }
    }
    let export = |name| types.core_exports().into_iter().flatten().find(|(found, _)| *found == name).map(|(_, ty)| ty);
    for (name, signature) in EXPORTS {
        let needed = signature.describe();
        let ty = export(name).ok_or(LoadError::MissingExport { name, needed: needed.clone(), hint: HINT_EXPORT })?;
        let found = describe(types, ty);
        if found != needed {
            return Err(LoadError::ExportSignature { name, found, needed });
        }
    }
    for (name, signature) in OPTIONAL {
        let Some(ty) = export(name) else { continue };
        let (found, needed) = (describe(types, ty), signature.describe());
        if found != needed {
            return Err(LoadError::ExportSignature { name, found, needed });
        }
    }
    match export(names::MEMORY) {
        Some(EntityType::Memory(_)) => Ok(()),
        Some(ty) => Err(LoadError::ExportSignature {
            name: names::MEMORY,
            found: describe(types, ty),
            needed: "a memory".into(),
        }),
        None => Err(LoadError::MissingExport { name: names::MEMORY, needed: "a memory".into(), hint: HINT_MEMORY }),
    }
}

fn check_import_name(import: &Import<'_>) -> Result<(), LoadError> {
    if (import.module, import.name) == (names::IMPORT_MODULE, names::LOG) {
        return Ok(());
    }
    let hint = match import.module {
        names::IMPORT_MODULE => {
            "Was it built for a later host? Build it with the holeshot-guest of this host's release"
        }
        "wasi_snapshot_preview1" | "wasi_unstable" => {
            "WASI is not there: rules have no clock, files or environment. Build for wasm32-unknown-unknown (C: `--target=wasm32 -nostdlib`)"
        }
        "__wbindgen_placeholder__" | "__wbindgen_externref_xform__" | "wbg" => {
            "That is wasm-bindgen, for browsers. Some dependency asks for it (often getrandom, uuid, chrono or web-time): find it with \
             `cargo tree -i wasm-bindgen --target wasm32-unknown-unknown` and turn its `js` or `wasm-bindgen` feature off"
        }
        "env" if matches!(import.ty, TypeRef::Memory(_)) => {
            "A module brings its own memory and exports it: link without `--import-memory`"
        }
        "env" => {
            "The linker left a name open: a C function that nobody defines, or an `extern` block. Define it, or leave it out (the linker names it \
             when `--allow-undefined` is off)"
        }
        "GOT.mem" | "GOT.func" => "Link statically: no `--shared`, no `-pie`",
        _ => "Everything a module may know is in its records",
    };
    Err(LoadError::UnknownImport { module: clip(import.module), name: clip(import.name), hint })
}

fn check_memory(at: usize, memory: MemoryType) -> Result<(), LoadError> {
    let kind = |found, hint| Err(LoadError::MemoryKind { found, hint });
    if at > 0 {
        return kind("more than one memory", "Link it as one program, without the multi-memory proposal");
    }
    if memory.shared {
        return kind("a shared memory", "Build without threads (`-C target-feature=-atomics`, no `-pthread`)");
    }
    if memory.memory64 {
        return kind("a 64-bit memory", "Build for wasm32 rather than wasm64");
    }
    if memory.page_size_log2.is_some() {
        return kind("a memory with pages of its own size", "Build without the custom-page-sizes proposal");
    }
    let found_bytes = memory.initial.saturating_mul(PAGE_BYTES);
    if found_bytes > MEMORY_BYTES_MAX as u64 {
        return Err(LoadError::MemoryTooLarge { found_bytes });
    }
    Ok(())
}

fn not_wasm(bytes: &[u8]) -> LoadError {
    let text = bytes.trim_ascii_start();
    let hint = if bytes.is_empty() {
        "; the file is empty"
    } else if text.starts_with(b"(module") || text.starts_with(b"(;") || text.starts_with(b";;") {
        "; it is WebAssembly text: turn it into a module with wat2wasm or `wasm-tools parse`"
    } else if bytes.starts_with(b"\x7fELF") || bytes.starts_with(b"MZ") || bytes.starts_with(b"\xcf\xfa\xed\xfe") {
        "; it is a native program or library: build it with `--target wasm32-unknown-unknown`"
    } else if bytes.starts_with(b"\x1f\x8b") || bytes.starts_with(b"PK") || bytes.starts_with(b"\x28\xb5\x2f\xfd") {
        "; it is compressed: unpack it first"
    } else {
        ". With cargo the file is target/wasm32-unknown-unknown/<profile>/<name>.wasm"
    };
    let start: Vec<u8> = bytes.iter().take(8).copied().collect();
    LoadError::NotWasm { start: format!("\"{}\"", start.escape_ascii()), hint }
}

fn invalid(error: wasmparser::BinaryReaderError) -> LoadError {
    LoadError::Invalid { offset: error.offset() as u64, problem: error.message().to_owned() }
}

/// A name from the file, for a message: short, and without control characters.
fn clip(name: &str) -> String {
    const CHARS_MAX: usize = 80;
    name.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect()
}

fn describe(types: TypesRef<'_>, ty: EntityType) -> String {
    match ty {
        EntityType::Func(id) | EntityType::FuncExact(id) => types.get(id).map_or_else(
            || "a function".into(),
            |ty| match &ty.composite_type.inner {
                CompositeInnerType::Func(ty) => describe_func(ty.params(), ty.results()),
                _ => "no function".into(),
            },
        ),
        EntityType::Table(_) => "a table".into(),
        EntityType::Memory(_) => "a memory".into(),
        EntityType::Global(_) => "a global".into(),
        EntityType::Tag(_) => "a tag".into(),
    }
}

impl Signature {
    fn describe(&self) -> String {
        describe_func(self.params, self.results)
    }
}

fn describe_func(params: &[ValType], results: &[ValType]) -> String {
    let list = |types: &[ValType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("a function ({}) -> ({})", list(params), list(results))
}
