//! What the host keeps beside a running instance, and the one import: a line of log.

use std::sync::Arc;

use holeshot_abi::{LOG_LINE_BYTES_MAX, LOG_LINES_PER_CALL_MAX, MEMORY_BYTES_MAX, TABLE_ELEMENTS_MAX, names};
use wasmtime::{Caller, Extern, Linker, Memory, ResourceLimiter};

use super::module::ModuleHash;

const LEVEL_ERROR: i32 = 1;

/// Who a module's lines belong to.
#[derive(Debug, Clone)]
pub(super) struct GuestName {
    /// The manifest's name; before there is a manifest, nothing.
    pub(super) module: Arc<str>,
    pub(super) hash: ModuleHash,
    pub(super) room: Arc<str>,
}

/// Data of a store.
#[derive(Debug)]
pub(super) struct Guest {
    name: GuestName,
    /// Set once the instance is there. A start function that logs runs before that.
    pub(super) memory: Option<Memory>,
    lines_in_call: usize,
    lines_dropped: u64,
    /// The last line of level error in this call; empty if there is none.
    last_error: String,
    /// More memory or table elements were asked for in this call than an instance may have.
    memory_refused: bool,
}

/// A log call with an address or a length outside the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("holeshot.log was called with {len} bytes at address {address}, outside the memory of {memory_bytes} bytes")]
pub(super) struct LogOutside {
    address: u32,
    len: u32,
    memory_bytes: usize,
}

impl Guest {
    pub(super) const fn new(name: GuestName) -> Self {
        Self {
            name,
            memory: None,
            lines_in_call: 0,
            lines_dropped: 0,
            last_error: String::new(),
            memory_refused: false,
        }
    }

    /// Starts counting lines anew. Before every call into the module.
    pub(super) fn begin_call(&mut self) {
        self.lines_in_call = 0;
        self.last_error.clear();
        self.memory_refused = false;
    }

    /// Lines that were dropped because a call wrote too many, since the instance began.
    pub(super) const fn lines_dropped(&self) -> u64 {
        self.lines_dropped
    }

    /// The last line logged as an error in this call: the message and place of a panic.
    pub(super) fn last_error(&self) -> Option<&str> {
        (!self.last_error.is_empty()).then_some(self.last_error.as_str())
    }

    /// Whether this call asked for more memory or table elements than an instance may have.
    pub(super) const fn memory_refused(&self) -> bool {
        self.memory_refused
    }

    fn line(&mut self, level: i32, bytes: &[u8]) {
        self.lines_in_call += 1;
        if self.lines_in_call > LOG_LINES_PER_CALL_MAX {
            self.lines_dropped += 1;
            if self.lines_in_call == LOG_LINES_PER_CALL_MAX + 1 {
                let GuestName { module, hash, room } = &self.name;
                tracing::warn!(target: "holeshot::rules::guest", %module, %hash, %room, "more than {LOG_LINES_PER_CALL_MAX} lines in one call; the rest is dropped");
            }
            return;
        }
        let text = readable(bytes);
        let GuestName { module, hash, room } = &self.name;
        match level {
            LEVEL_ERROR => tracing::error!(target: "holeshot::rules::guest", %module, %hash, %room, "{text}"),
            2 => tracing::warn!(target: "holeshot::rules::guest", %module, %hash, %room, "{text}"),
            4 => tracing::debug!(target: "holeshot::rules::guest", %module, %hash, %room, "{text}"),
            _ => tracing::info!(target: "holeshot::rules::guest", %module, %hash, %room, "{text}"),
        }
        if level == LEVEL_ERROR {
            self.last_error = text;
        }
    }
}

/// The pool refuses what does not fit in its slots; this remembers that it did, for the trap that usually follows. The module sees -1.
impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grows(desired, maximum, MEMORY_BYTES_MAX))
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grows(desired, maximum, TABLE_ELEMENTS_MAX))
    }
}

impl Guest {
    fn grows(&mut self, desired: usize, maximum: Option<usize>, most: usize) -> bool {
        let fits = desired <= maximum.map_or(most, |maximum| maximum.min(most));
        self.memory_refused |= !fits;
        fits
    }
}

/// Bytes of a module as one line of text: cut, replaced where they are not UTF-8, and without what could move a terminal's cursor.
pub(super) fn readable(bytes: &[u8]) -> String {
    let cut = bytes.get(..LOG_LINE_BYTES_MAX).unwrap_or(bytes);
    let text = String::from_utf8_lossy(cut);
    text.trim_end()
        .chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

/// The imports that a module may have.
pub(super) fn linker(engine: &wasmtime::Engine) -> Result<Linker<Guest>, wasmtime::Error> {
    let mut linker = Linker::new(engine);
    linker.func_wrap(names::IMPORT_MODULE, names::LOG, log)?;
    Ok(linker)
}

/// Fuel that one call of the import takes: what a microsecond buys, which is what a line costs the host. Without a price a module
/// that logs in a loop would be stopped by the watchdog's clock, at another instruction on every machine.
const LOG_FUEL: u64 = super::FUEL_PER_US;

fn log(mut caller: Caller<'_, Guest>, level: i32, address: i32, len: i32) -> Result<(), wasmtime::Error> {
    let Some(left) = caller.get_fuel()?.checked_sub(LOG_FUEL) else {
        return Err(wasmtime::Trap::OutOfFuel.into());
    };
    caller.set_fuel(left)?;
    let (address, len) = (address.cast_unsigned(), len.cast_unsigned());
    let memory = match caller.data().memory {
        Some(memory) => memory,
        None => match caller.get_export(names::MEMORY) {
            Some(Extern::Memory(memory)) => memory,
            _ => return Err(LogOutside { address, len, memory_bytes: 0 }.into()),
        },
    };
    let (bytes, guest) = memory.data_and_store_mut(&mut caller);
    match span(bytes, address, len) {
        Some(line) => {
            guest.line(level, line);
            Ok(())
        }
        None => Err(LogOutside { address, len, memory_bytes: bytes.len() }.into()),
    }
}

/// The bytes of a span, if all of them are in memory. The address of an empty one is ignored.
pub(super) fn span(memory: &[u8], address: u32, len: u32) -> Option<&[u8]> {
    if len == 0 {
        return Some(&[]);
    }
    let start = address as usize;
    memory.get(start..start.checked_add(len as usize)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_checked_at_both_ends() {
        let memory = [1, 2, 3, 4];
        assert_eq!(span(&memory, 0, 4), Some(&memory[..]));
        assert_eq!(span(&memory, 3, 1), Some(&memory[3..]));
        assert_eq!(span(&memory, u32::MAX, 0), Some(&[][..]));
        for (address, len) in [(0, 5), (3, 2), (4, 1), (u32::MAX, 1), (1, u32::MAX), (u32::MAX, u32::MAX)] {
            assert_eq!(span(&memory, address, len), None, "{len} bytes at {address}");
        }
    }

    #[test]
    fn a_line_cannot_move_the_cursor_or_fill_the_disk() {
        assert_eq!(readable(b"panicked at src/lib.rs:3:1:\nno car\n"), "panicked at src/lib.rs:3:1: no car");
        assert_eq!(readable(b"\x1b[2Jgone\xff"), "\u{fffd}[2Jgone\u{fffd}");
        assert_eq!(readable(&[b'x'; 5_000]).len(), LOG_LINE_BYTES_MAX);
    }
}
