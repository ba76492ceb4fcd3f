//! The boundary between a Holeshot host and a rules module, version 1.2.
//!
//! This page is the specification: a module can be written in any language from it alone, with no code of
//! ours. The types below are the same rules as Rust, shared by the host and by `holeshot-guest`.
//! What lives here is layout only; what a module puts inside its inputs, snapshots and state is its own.
//!
//! # The module
//!
//! A rules module is one core WebAssembly module (MVP plus bulk memory, sign extension, saturating float
//! conversion, multi-value, function references in tables and fixed-width SIMD; no threads, no relaxed SIMD, no 64-bit memory, no GC, no WASI).
//! It has one linear memory and is called from one thread, one call at a time. The host creates one instance per room.
//! It may use at most [`MEMORY_BYTES_MAX`] of memory, and at most one table, of function references, with at most [`TABLE_ELEMENTS_MAX`]
//! elements.
//!
//! ## Exports
//!
//! All but the last are required. A *span* is an `i64` whose upper 32 bits are an address in the module's memory and whose lower
//! 32 bits are a length in bytes, both unsigned. A span with length 0 is empty; its address is ignored. The
//! bytes of a span belong to the module and stay unchanged until the host's next call into it.
//!
//! | export | type | meaning |
//! | --- | --- | --- |
//! | `memory` | memory | the module's memory |
//! | `holeshot_abi_version` | `() -> i32` | the version it was written for: major in the upper 16 bits, minor in the lower; this page is `0x0001_0002` |
//! | `holeshot_manifest` | `() -> i64` | span of the [manifest](#manifest) |
//! | `holeshot_buffer` | `(i32 len) -> i32` | address, aligned to 8, of a buffer of at least `len` bytes where the host writes the next record; 0 if there is none. It stays valid, and the same, until the next call of `holeshot_buffer` |
//! | `holeshot_init` | `(i32 len) -> i64` | a [setup record](#setup-record) of `len` bytes is in the buffer: begin a room. Empty span: accepted. Otherwise the span is UTF-8 text that says why the setup is refused |
//! | `holeshot_tick` | `(i32 len) -> i64` | a [tick record](#tick-record) is in the buffer: step the game once. Span of an [output record](#output-record), or empty when nothing leaves |
//! | `holeshot_save` | `() -> i64` | span of the state, in the module's own format |
//! | `holeshot_restore` | `(i32 len) -> i64` | a [restore record](#restore-record) is in the buffer: take that state over. Result as for `holeshot_init` |
//! | `holeshot_describe` | `() -> i64` | optional, since 1.1: span of the state as JSON text in UTF-8, for people and tools; see [below](#describing-a-state) |
//!
//! If the module exports `_initialize: () -> ()` the host calls it once, before anything else (toolchains put constructors
//! there). A WebAssembly start function is run as usual. Other exports are ignored; names that begin with `holeshot_` are kept for later versions of this page.
//!
//! ## Imports
//!
//! One, which a module need not import: `holeshot.log: (i32 level, i32 address, i32 len) -> ()`. It hands a line of
//! UTF-8 text to the host's log. Levels: 1 error, 2 warning, 3 info, 4 debug. Bytes that are not UTF-8 are replaced;
//! a line longer than [`LOG_LINE_BYTES_MAX`] is cut; lines after the first [`LOG_LINES_PER_CALL_MAX`] of one call are
//! counted and dropped. An address or length outside the memory is a fault of the module, like a trap. A module that imports anything else is refused at load.
//!
//! ## The order of calls
//!
//! `holeshot_abi_version`, `holeshot_manifest` once after instantiation; then per room `holeshot_init` once; then optionally
//! `holeshot_restore`; then `holeshot_tick` for frame 0, 1, 2 … (after a restore: from the frame that follows the saved state).
//! Frame numbers rise by one, or by more after a tick that was *skipped*: a module that takes too long in one frame is taken back to before it, and
//! goes on with the next one; what happened in between (joins, leaves, actions) is in that next record, inputs of the skipped frame are lost.
//! The first frame that a module sees may so be above 0. A game that needs to count its ticks counts them itself.
//!
//! `holeshot_save` may come after `holeshot_init` and between any two ticks, and must not change the game. A host calls it often: once a second, and
//! whenever the rules are replaced. `holeshot_restore` may come at any frame, in an instance that was just begun, with a state that this module or
//! another one of the same name saved. A state has to hold all that the module remembers: the same records after a restore must give the same
//! bytes as without it, and saving right after a restore of an own state must give that state.
//!
//! A host may run any frame again in another instance, from a saved state: to take a fault back, to try a module before it takes a room over, to prove
//! a journal. What leaves the module then is compared or dropped.
//!
//! Before `init`, `restore` and `tick` the host calls `holeshot_buffer` only if its record is longer than the length it asked for
//! last. After a tick that finished the game no further tick comes.
//!
//! That frames may be skipped, that states are saved regularly and that frames are run again makes version 1.0 clearer and asks nothing new of its modules: under 1.0
//! the frame that is skipped now would have ended the room.
//!
//! ## Describing a state
//!
//! `holeshot_describe` shows the state where a person looks at it: in a replay, beside a test that failed, in a debugger. It may be called after
//! `holeshot_init`, between any two calls, and is the last call of its instance: a host that wants to look at a running room saves its state,
//! restores that into a fresh instance, asks there and throws the instance away. So a description cannot change a game, and need
//! not be cheap. The span is one JSON value of at most [`DESCRIPTION_BYTES_MAX`] bytes, nested at most 100 deep; which one is the module's own affair, an object with the
//! names of its fields is best. The same state must give the same text. JSON has no NaN and no infinity: a module writes them as the strings `"NaN"`,
//! `"inf"` and `"-inf"`.
//!
//! A module without this export runs as any other; its state is then shown as bytes. One whose description is a fault, no JSON or too long runs
//! on too: the host says what was wrong with the description in its place.
//!
//! ## Faults
//!
//! A trap, a span outside memory, a malformed record or more fuel or time than allowed is a *fault*. An instance that
//! faulted is never called again.
//!
//! ## Determinism
//!
//! A module sees nothing but what these calls bring: no clock, no randomness but `seed`, no address of its host. The same
//! records must give the same bytes, on every machine. So every NaN that leaves the module (in a snapshot, in the
//! state) must be canonical: `0x7fc0_0000` as `f32`, `0x7ff8_0000_0000_0000` as `f64`; the sign and payload of a computed
//! NaN differ between processors. `holeshot-guest` sees to this for Rust modules.
//!
//! # Records
//!
//! All integers are little-endian and unsigned unless said otherwise. A record starts at an address that is a
//! multiple of 8. *Padded* bytes are followed by 0 to 3 zero bytes so that the next field starts at a multiple of 4 from the
//! record's start. Fields named `reserved` are 0 when written and ignored when read.
//!
//! ## Setup record
//!
//! | offset | type | field |
//! | --- | --- | --- |
//! | 0 | u64 | `seed`: the room's only randomness |
//! | 8 | u32 | `tick_hz`: ticks per second, 1 to 128 |
//! | 12 | u16 | `players`: number of player slots, 1 to 64. A player is named by its slot, from 0 |
//! | 14 | u16 | `reserved` |
//! | 16 | u32 | `options_len` |
//! | 20 | u32 | `reserved` |
//! | 24 | `options_len` bytes, padded | the room's options: JSON text, or empty |
//! | … | per player | u16 `name_len`, u16 `data_len`, then the name (UTF-8) and the data (JSON text, or empty), each padded |
//!
//! Names are at most [`PLAYER_NAME_BYTES_MAX`] bytes, the data of a player (chosen car, team …) at most
//! [`PLAYER_DATA_BYTES_MAX`], options at most [`OPTIONS_BYTES_MAX`].
//!
//! ## Tick record
//!
//! | offset | type | field |
//! | --- | --- | --- |
//! | 0 | u32 | `frame`: 0 at the first tick, then rising by one, or by more after a skipped tick |
//! | 4 | u16 | `players`: as in the setup |
//! | 6 | u16 | `changes` |
//! | 8 | u16 | `actions` |
//! | 10 | u16 | `stride`: bytes of input per player in this record: the manifest's `input_bytes_max` rounded up to a multiple of 4 |
//! | 12 | u32 | `reserved` |
//! | 16 | per player, 4 + `stride` bytes | u8 `status`, u8 `len` (≤ `stride`), u16 `age_frames`, `stride` bytes of which the first `len` are the input and the rest are 0 |
//! | … | per change, 4 bytes | u16 `player`, u8 `change`, u8 `reason` |
//! | … | per action | u16 `player`, u16 `len`, then `len` bytes of JSON text, padded |
//!
//! `status` of a player's input: 0 absent (no input was ever received since the player joined; `len` is 0), 1 fresh (sent for
//! this frame), 2 repeated (none came for this frame in time: this is the player's last one, `age_frames` frames
//! old, saturating at 65,535). `age_frames` is 0 when fresh or absent.
//!
//! `change`: 1 joined, 2 left. Players that are present when the game starts join in frame 0. A player may join again after it left.
//! `reason` of a leave: 1 it quit, 2 its connection was lost for longer than the grace time, 3 the host removed it; of a join: 0.
//!
//! Changes and actions come in the order in which they happened. A change or action of one player never overtakes
//! another of the same player within its list. There are at most [`ACTIONS_PER_TICK_MAX`] actions of at most
//! [`ACTION_BYTES_MAX`] bytes in a record.
//!
//! ## Output record
//!
//! | offset | type | field |
//! | --- | --- | --- |
//! | 0 | u32 | `items` |
//! | 4 | u32 | `reserved` |
//! | 8 | per item | u8 `kind`, u8 `name_len`, u16 `player`, u32 `data_len`, then `name_len` bytes of name, then `data_len` bytes of data, each padded |
//!
//! | kind | item | name | player | data |
//! | --- | --- | --- | --- | --- |
//! | 1 | snapshot for all players | – | 0 | the module's bytes, at most [`SNAPSHOT_BYTES_MAX`] |
//! | 2 | snapshot for one player | – | its slot | likewise |
//! | 3 | public event | [event name](is_event_name) | 0 | JSON text, at most [`EVENT_BYTES_MAX`] |
//! | 4 | internal event | event name | 0 | JSON text, likewise |
//! | 5 | results: the game is finished | – | 0 | JSON text, at most [`RESULTS_BYTES_MAX`]: an array of [`PlayerResult`] |
//!
//! At most one item of kind 1, one of kind 2 per player, one of kind 5; a player for whom there is an item of kind 2 gets
//! that and not the one of kind 1. At most [`EVENTS_PER_TICK_MAX`] events. The whole record is at most [`OUTPUT_BYTES_MAX`] bytes.
//! Events are delivered in the order of the items. An event's data is sent on as it is.
//!
//! The host sends public events of its own: `player_joined`, `player_ready`, `player_left`, `cutscene`, `countdown`, `started`,
//! `finished`, `aborted`, `rules_swapped`, `rules_rolled_back`; its internal events have names that begin with `host.`, `room.` or `player.`. A module that uses one of
//! these names has a fault, and so has one whose event data or results are not JSON that everybody can read (a number that no double holds, half of a
//! surrogate pair, more than 100 lists and objects in each other), or whose results name a slot twice or one that the room does
//! not have, a place 0, or an outcome that is not an [event name](is_event_name). Of an output with a fault nothing is delivered.
//! `rules_swapped` and `rules_rolled_back` are reserved since 1.1. This is the one thing in which 1.1 breaks a module written for 1.0: if it has a public event of
//! one of these names, the event needs another one.
//!
//! ## Restore record
//!
//! | offset | type | field |
//! | --- | --- | --- |
//! | 0 | u32 | `state_version`: that of the module that saved |
//! | 4 | u32 | `reserved` |
//! | 8 | bytes | what `holeshot_save` returned |
//!
//! A module that gets a version it does not know refuses with a text. A state is at most [`STATE_BYTES_MAX`] bytes.
//!
//! # Manifest
//!
//! UTF-8 JSON text, an object with the fields of [`Manifest`], at most [`MANIFEST_BYTES_MAX`] bytes. Unknown fields are ignored. All numbers are whole. These six have
//! to be there; [`Manifest`] says what the others are if they are absent:
//!
//! ```json
//! { "name": "my-game", "version": "0.1.0", "state_version": 1, "players_min": 1, "players_max": 8, "input_bytes_max": 3 }
//! ```
//!
//! ## Leaderboards
//!
//! The optional field `leaderboards`, since 1.2, says which results are worth comparing: an array of at most [`LEADERBOARDS_MAX`] objects with the fields of
//! [`Leaderboard`]. In a module that says 1.1 or 1.0 a field of this name is unknown, and ignored.
//!
//! ```json
//! "leaderboards": [{ "name": "lap", "score": "lap_s", "best": "lowest", "group_by": ["track", "laps"] }]
//! ```
//!
//! Where a host's records are kept, the results of a finished room are looked through for each leaderboard of the module. A result counts if its `data` is
//! an object that has, at its top level, the field named by `score` with a number and every field named by `group_by` with a text of at most
//! [`LEADERBOARD_GROUP_TEXT_BYTES_MAX`] bytes or a number. A result without them, or with `null` there, is a result like any other and is not on the
//! list: so rules leave out who did not finish, or was not fair. What counts is compared with the same player's other results of the same list, the same values of
//! `group_by` and the same module (by its hash), and the best is kept: the `lowest` or the `highest` number; of equal ones the earlier. Results of a room
//! whose rules were replaced after frame 0, and not taken back, count for no list. Results of different modules are never compared, be it two versions of one game.
//!
//! # Versions
//!
//! A host accepts a module whose major version is its own and whose minor version is not above its own. A minor version only adds:
//! optional exports, imports, item kinds, manifest fields, meanings of `reserved` fields; a module written for 1.0 runs on every 1.x
//! host with the same results. Anything else is a new major version; a host may speak several.
//! `state_version` in the manifest is the module's own affair: it changes when the meaning of its saved bytes does.
#![no_std]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

extern crate alloc;

mod bytes;
mod manifest;
mod output;
mod setup;
mod tick;

pub use bytes::Malformed;
pub use manifest::{Best, Leaderboard, Manifest, ManifestError};
pub use output::{Item, OutputReader, OutputWriter, PlayerResult, is_event_name};
pub use setup::{PlayerSetup, RESTORE_HEADER_BYTES, Setup, read_restore, write_restore};
pub use tick::{
    Action, Change, ChangeKind, InputStatus, LeaveReason, PlayerInput, TickReader, TickRecord, count_inputs,
};

/// The version of this specification: major in the upper 16 bits, minor in the lower.
pub const ABI_VERSION: u32 = 0x0001_0002;

/// The first version whose manifest may have `leaderboards`.
pub const LEADERBOARDS_SINCE: u32 = 0x0001_0002;

/// Whether a host of [`ABI_VERSION`] runs a module that says `version`.
#[must_use]
pub const fn abi_version_is_supported(version: u32) -> bool {
    version >> 16 == ABI_VERSION >> 16 && version & 0xffff <= ABI_VERSION & 0xffff
}

/// Names of the exports and of the import, for hosts and SDKs.
pub mod names {
    /// The module's memory.
    pub const MEMORY: &str = "memory";
    /// `() -> i32`
    pub const ABI_VERSION: &str = "holeshot_abi_version";
    /// `() -> i64`
    pub const MANIFEST: &str = "holeshot_manifest";
    /// `(i32) -> i32`
    pub const BUFFER: &str = "holeshot_buffer";
    /// `(i32) -> i64`
    pub const INIT: &str = "holeshot_init";
    /// `(i32) -> i64`
    pub const TICK: &str = "holeshot_tick";
    /// `() -> i64`
    pub const SAVE: &str = "holeshot_save";
    /// `(i32) -> i64`
    pub const RESTORE: &str = "holeshot_restore";
    /// `() -> i64`, optional; since 1.1.
    pub const DESCRIBE: &str = "holeshot_describe";
    /// `() -> ()`, optional.
    pub const INITIALIZE: &str = "_initialize";
    /// The module name of the import.
    pub const IMPORT_MODULE: &str = "holeshot";
    /// `(i32 level, i32 address, i32 len) -> ()`
    pub const LOG: &str = "log";
}

/// Memory an instance may have, in bytes: a pooled slot of the host. Small slots keep thousands of rooms in few page tables.
pub const MEMORY_BYTES_MAX: usize = 4 << 20;
/// Table elements an instance may have: each indirect callee of the module takes one.
pub const TABLE_ELEMENTS_MAX: usize = 4096;
/// Player slots of a room. The host's per-player work of one tick stays well below a tick.
pub const PLAYERS_MAX: usize = 64;
/// Length of a manifest in bytes.
pub const MANIFEST_BYTES_MAX: usize = 16 << 10;
/// Leaderboards of a module: the manager looks every result through for each.
pub const LEADERBOARDS_MAX: usize = 8;
/// Fields by whose values a leaderboard is divided: a person chooses among their combinations.
pub const LEADERBOARD_GROUP_FIELDS_MAX: usize = 4;
/// Length of a field's name in a leaderboard in bytes.
pub const LEADERBOARD_FIELD_BYTES_MAX: usize = 64;
/// Length of a text by which a leaderboard is divided in bytes: it is stored with every score.
pub const LEADERBOARD_GROUP_TEXT_BYTES_MAX: usize = 64;
/// Length of a room's options in bytes of JSON.
pub const OPTIONS_BYTES_MAX: usize = 16 << 10;
/// Length of a player's name in bytes of UTF-8.
pub const PLAYER_NAME_BYTES_MAX: usize = 64;
/// Length of a player's data in bytes of JSON.
pub const PLAYER_DATA_BYTES_MAX: usize = 4 << 10;
/// Length of one input in bytes: sixteen of them, each repeated for redundancy, must fit beside others in a datagram.
pub const INPUT_BYTES_MAX: usize = 240;
/// Length of one action in bytes of JSON.
pub const ACTION_BYTES_MAX: usize = 1 << 10;
/// Actions in one tick: four per player of a full room; the host holds back the rest for the next tick.
pub const ACTIONS_PER_TICK_MAX: usize = 256;
/// Length of a snapshot in bytes: eight datagrams.
pub const SNAPSHOT_BYTES_MAX: usize = 8 << 10;
/// Events in one tick, public and internal together.
pub const EVENTS_PER_TICK_MAX: usize = 64;
/// Length of an event's name in bytes.
pub const EVENT_NAME_BYTES_MAX: usize = 64;
/// Length of an event's data in bytes of JSON.
pub const EVENT_BYTES_MAX: usize = 16 << 10;
/// Length of the results in bytes of JSON: 768 for each of 64 players; a text message to a player holds them with room to spare.
pub const RESULTS_BYTES_MAX: usize = 48 << 10;
/// Length of an output record in bytes: 64 snapshots of full size and as much again.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Length of a state in bytes: what one room may add to a journal at a checkpoint.
pub const STATE_BYTES_MAX: usize = 1 << 20;
/// Length of a state's description in bytes of JSON: as much as a state. A longer one is for a tool that knows the state's own format.
pub const DESCRIPTION_BYTES_MAX: usize = 1 << 20;
/// Length of a line of log in bytes.
pub const LOG_LINE_BYTES_MAX: usize = 1 << 10;
/// Lines of log that one call may write.
pub const LOG_LINES_PER_CALL_MAX: usize = 32;
/// Length of a refusal text that the host reads, in bytes; the rest is cut.
pub const REFUSAL_BYTES_MAX: usize = 1 << 10;

/// Packs an address and a length into a span.
#[must_use]
pub const fn pack_span(address: u32, len: u32) -> i64 {
    (((address as u64) << 32) | len as u64).cast_signed()
}

/// Takes a span apart into address and length, both in bytes.
#[must_use]
pub const fn unpack_span(span: i64) -> (u32, u32) {
    let bits = span.cast_unsigned();
    ((bits >> 32) as u32, bits as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_keep_both_halves() {
        for (address, len) in [(0, 0), (1, 2), (u32::MAX, 0), (0x8000_0000, u32::MAX)] {
            assert_eq!(unpack_span(pack_span(address, len)), (address, len));
        }
    }

    #[test]
    fn versions_add_only_downwards() {
        assert!(abi_version_is_supported(0x0001_0000));
        assert!(abi_version_is_supported(0x0001_0001));
        assert!(abi_version_is_supported(0x0001_0002));
        assert!(!abi_version_is_supported(0x0001_0003));
        assert!(!abi_version_is_supported(0x0002_0000));
        assert!(!abi_version_is_supported(0x0000_0001));
        assert!(!abi_version_is_supported(0));
    }
}
