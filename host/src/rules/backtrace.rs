//! The functions that a module was in when it trapped, as text for the person who wrote it: with names, and with file and line where the module
//! carries debug information (DWARF). Nothing here runs unless a module has failed.

use std::fmt::Write as _;

use wasmtime::{FrameInfo, WasmBacktrace};

use super::guest::readable;

/// Lines of a backtrace. The runtime keeps 20 frames; each may stand for several functions that the compiler put into one.
const LINES_MAX: usize = 64;
/// Bytes of the whole text: a name and a place may have a KiB each and three times that where characters are replaced, and the text has to fit into one
/// event beside all else that the event says (see [`DATA_MAX_BYTES`](crate::events::outbox::DATA_MAX_BYTES)).
pub(super) const TEXT_BYTES_MAX: usize = 16 << 10;

/// How the runtime begins the line of a function that was put into the one of the line before.
const INLINED: &str = "                - ";
/// How it begins the line of a place.
const PLACE: &str = "                    at ";

/// One line per function, innermost first: `gearbox::shift (my-rules/src/gearbox.rs:31)`, or with the offset in the module where there are no lines.
pub(super) fn text(trace: &WasmBacktrace) -> Option<String> {
    let frames = trace.frames();
    let functions = frames.iter().map(|frame| frame.symbols().len().max(1)).sum::<usize>();
    // Only the runtime's own text has the names demangled.
    let full = trace.to_string();
    let mut names = demangled(&full, frames).filter(|names| names.len() == functions).map(Vec::into_iter);
    let mut lines: Vec<String> = Vec::new();
    for function in frames.iter().flat_map(functions_of).take(LINES_MAX) {
        let mut line = match names.as_mut().and_then(Iterator::next).or(function.name) {
            Some(name) => without_hashes(&readable(name.as_bytes())),
            None => format!("function {}", function.index),
        };
        if let Some(place) = function.place {
            let _ = write!(line, " ({place})");
        }
        lines.push(line);
    }
    let told = after_the_panic(&lines);
    let mut bytes = 0usize;
    let fits = |line: &&String| {
        bytes = bytes.saturating_add(line.len() + 1);
        bytes <= TEXT_BYTES_MAX
    };
    let shown: Vec<&str> = told.iter().take_while(fits).map(String::as_str).collect();
    let more = functions.saturating_sub(LINES_MAX) + told.len().saturating_sub(shown.len());
    let mut text = shown.join("\n");
    if more > 0 {
        let _ = write!(text, "\n… {more} more");
    }
    (!text.is_empty()).then_some(text)
}

/// The lines from the function on that panicked. What Rust does between a panic and the trap is the same every time, and as long as the rest.
fn after_the_panic(lines: &[String]) -> &[String] {
    let machinery = lines.iter().position(|line| {
        let name = line.split(" (").next().unwrap_or_default();
        name == "rust_begin_unwind" || name.ends_with("::rust_begin_unwind")
    });
    let Some(unwind) = machinery else { return lines };
    let is_panic = |line: &&String| line.starts_with("core::panicking::") || line.starts_with("std::panicking::");
    let from = unwind + 1 + lines.iter().skip(unwind + 1).take_while(is_panic).count();
    lines.get(from..).filter(|rest| !rest.is_empty()).unwrap_or(lines)
}

/// A function of a backtrace, as far as the module tells.
struct Function<'a> {
    /// Its number in the module.
    index: u32,
    /// As the compiler wrote it.
    name: Option<&'a str>,
    place: Option<String>,
}

fn functions_of(frame: &FrameInfo) -> Vec<Function<'_>> {
    let offset = || frame.module_offset().map(|offset| format!("{offset:#x}"));
    let index = frame.func_index();
    if frame.symbols().is_empty() {
        return vec![Function { index, name: frame.func_name(), place: offset() }];
    }
    let symbols = frame.symbols().iter().map(|symbol| {
        let line = || symbol.line().map_or_else(String::new, |line| format!(":{line}"));
        let place = symbol.file().map(|file| readable(format!("{}{}", short_path(file), line()).as_bytes()));
        Function { index, name: symbol.name().or(frame.func_name()), place: place.or_else(offset) }
    });
    symbols.collect()
}

/// The names in the runtime's text. None where it is not of the form that is known here: a name with a line break in it, or a later runtime.
fn demangled<'a>(full: &'a str, frames: &[FrameInfo]) -> Option<Vec<&'a str>> {
    let mut frames = frames.iter().enumerate();
    let mut names = Vec::new();
    // The first line is a title.
    for line in full.lines().skip(1).filter(|line| !line.starts_with(PLACE)) {
        if let Some(name) = line.strip_prefix(INLINED) {
            names.push(name);
            continue;
        }
        let (number, frame) = frames.next()?;
        let mut name = line.strip_prefix(&format!("  {number:>3}: "))?;
        if let Some(offset) = frame.module_offset() {
            name = name.strip_prefix(&format!("{offset:#8x} - "))?;
        }
        if frame.symbols().is_empty() {
            name = name.strip_prefix(&format!("{}!", frame.module().name().unwrap_or("<unknown>")))?;
        }
        names.push(name);
    }
    Some(names)
}

/// A name without the hashes by which Rust tells builds of a crate apart: `::h` and 16 digits at its end, 16 digits in brackets after a crate.
fn without_hashes(name: &str) -> String {
    const DIGITS: usize = 16;
    let is_hash = |text: &str| text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut name = match name.rsplit_once("::h") {
        Some((name, hash)) if is_hash(hash) => name,
        _ => name,
    };
    let mut plain = String::new();
    while let Some((before, after)) = name.split_once('[') {
        plain.push_str(before);
        name = match after.split_once(']') {
            Some((hash, rest)) if is_hash(hash) => rest,
            _ => {
                plain.push('[');
                after
            }
        };
    }
    plain + name
}

/// The part of a path that a reader needs, with `/`: from the folder of the crate, which is the one around `src`; otherwise the file and its folder.
/// What comes before names the machine on which the module was built.
fn short_path(path: &str) -> String {
    let parts: Vec<&str> = path.split(['/', '\\']).filter(|part| !part.is_empty() && *part != ".").collect();
    let from = match parts.iter().rposition(|part| *part == "src") {
        Some(src) => src.saturating_sub(1),
        None => parts.len().saturating_sub(2),
    };
    parts.get(from..).unwrap_or_default().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_begins_where_the_rules_panicked() {
        let lines = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let shown = |text: &str| after_the_panic(&lines(text)).join(",");
        assert_eq!(
            shown(
                "__rustc::__rust_abort (0x1),__rustc::rust_begin_unwind (0x2),core::panicking::panic_fmt (0x3),a::b (0x4),c"
            ),
            "a::b (0x4),c"
        );
        assert_eq!(shown("rust_begin_unwind (a/src/b.rs:3),a::b"), "a::b");
        // Where there is nothing else, and where nothing panicked.
        assert_eq!(shown("x,rust_begin_unwind,core::panicking::panic"), "x,rust_begin_unwind,core::panicking::panic");
        assert_eq!(shown("core::panicking::mine,a::b"), "core::panicking::mine,a::b");
    }

    #[test]
    fn names_lose_their_hashes_and_nothing_else() {
        for (name, plain) in [
            ("lines::garage::ratio::hc01801038fe596f6", "lines::garage::ratio"),
            ("core[c5930c85a12de822]::wasm32::unreachable", "core::wasm32::unreachable"),
            ("<[u8; 4] as a[0123456789abcdef]::B>::c", "<[u8; 4] as a::B>::c"),
            ("a::hello", "a::hello"),
            ("x[", "x["),
            ("x[]]", "x[]]"),
            ("", ""),
        ] {
            assert_eq!(without_hashes(name), plain);
        }
    }

    #[test]
    fn paths_begin_at_their_crate() {
        for (path, short) in [
            ("/home/ada/games/my-rules/src/lib.rs", "my-rules/src/lib.rs"),
            ("C:\\Users\\Ada\\my-rules\\src\\cars\\gearbox.rs", "my-rules/src/cars/gearbox.rs"),
            ("/rustc/0123456789abcdef/library/core/src/panicking.rs", "core/src/panicking.rs"),
            ("/home/ada/.cargo/registry/src/mirror-0123/libm-0.2.16/src/math/exp.rs", "libm-0.2.16/src/math/exp.rs"),
            ("/games/tally.c", "games/tally.c"),
            ("tally.c", "tally.c"),
            ("./src/lib.rs", "src/lib.rs"),
            ("/src/a/b.rs", "src/a/b.rs"),
            ("", ""),
        ] {
            assert_eq!(short_path(path), short, "{path}");
        }
    }
}
