//! The journal of a room: everything that decided it, compact, written while it runs. This page specifies the format; writing, reading
//! and replaying have their own files. Files and their names are the host's affair: in here a journal is bytes.
//!
//! # Format, version 1
//!
//! A journal is the 8 bytes `HSJOURN1`, then blocks. A *block* is a u32 `len`, a u32 CRC-32 (IEEE, as in zlib) of the body, and a body of `len`
//! bytes, 1 to [`BLOCK_BYTES_MAX`]. A body is whole entries, one after the other. A journal that was cut off is read up to its last whole block;
//! so it is where a CRC does not fit, or where `len` is out of range: a power cut leaves zeros at the end of a file.
//!
//! Integers are little-endian and unsigned. A *varint* is LEB128: 7 bits per byte, lowest first, the top bit set in all but the last byte;
//! at most 64 bits. *Text* is a varint length and as many bytes of UTF-8. A *hash* is 32 bytes of BLAKE3. An entry is a u8 `kind` and its fields:
//!
//! | kind | entry | fields |
//! | --- | --- | --- |
//! | 0x01 | header: the first entry, once, alone in its block | text `room`; u64 `opened_unix_ms`; varint length and setup record; text manifest (JSON); hash of the module |
//! | 0x02 | checkpoint: the state before `next_frame` | u32 `next_frame`; u32 `state_version`; varint `len` of the state; hash of the state; u8: 1 if the `len` bytes of the state follow, 0 if not |
//! | 0x03 | swapped: other rules from `next_frame` on | u32 `next_frame`; hash of the module before; hash of the new one; text: the new one's manifest (JSON) |
//! | 0x04 | kept: the new rules are no longer on probation | u32 `next_frame` |
//! | 0x05 | rolled back | u32 `since_frame`; u32 `frame`; hash of the failed module; hash of the one that goes on; u8 fault; text message; varint count and as many varints: numbers of void events; varint count and as many u32: `output_crcs` |
//! | 0x06 | retried: a fault that did not come again | u32 `frame`; u8 fault; text message |
//! | 0x07 | ticks lost | varint `count`; u32 `next_frame` |
//! | 0x08 | the rules failed, the match ends | u32 `frame`; u8 fault; text message |
//! | 0x09 | ended | u32 `frames`; u8 outcome; text results (JSON), empty if there are none |
//! | 0x0a | end of the journal: the last entry | |
//! | 0x10 + flags | a frame that was stepped | [record](#records); u32 CRC-32 of the output record |
//! | 0x20 + flags | a frame that was skipped | record; u8 fault |
//! | 0x30 + flags | a frame in which the rules failed for good | record; u8 fault |
//!
//! A fault is 1 `trap`, 2 `fuel_exhausted`, 3 `deadline_exceeded`, 4 `memory_exceeded`, 5 `bad_span`, 6 `bad_output`, 7 `state_refused`,
//! 8 `no_instance`. An outcome is 0 finished, or why the match was broken off: 1 `not_enough_players`, 2 `everyone_left`, 3 `too_long`, 4 `rules_fault`,
//! 5 `host_stopping`, 6 `requested`. Messages are cut at [`MESSAGE_BYTES_MAX`].
//!
//! ## Records
//!
//! The frames of a journal are numbered from 0 without a gap, in the order of their entries. Each entry holds the tick record of its frame
//! (see `holeshot-abi`) as the difference to what was expected. The number of players is that of the setup, the stride that of the header's
//! manifest. Flags say what follows, in this order:
//!
//! | flag | what follows |
//! | --- | --- |
//! | 1 | inputs that are not as expected: a bit per player, player 0 in the lowest bit of the first byte, `(players + 7) / 8` bytes; then for each player whose bit is set an input |
//! | 2 | changes: a varint count, then each as the 4 bytes of the tick record |
//! | 4 | actions: a varint count, then for each a varint player and its text |
//!
//! Expected is: of a player whose input in the frame before was absent (or before frame 0), an absent one; of any other a fresh one with the same bytes. An
//! input that is not as expected begins with a u8 `form`:
//!
//! | form | input |
//! | --- | --- |
//! | 0 to 240 | fresh; as many bytes follow |
//! | 241 | absent |
//! | 242 | repeated, with the bytes of the frame before; its age is 1 more than that of the frame before, saturating (a fresh one has age 0) |
//! | 243 | repeated: u16 age, u8 length, and as many bytes |
//!
//! # What it means
//!
//! To replay a journal, begin the header's module with the setup and give it the record of every *stepped* frame. Its output must have the CRC of the entry. It
//! never sees a skipped frame. Where the entry is *swapped*, save the state, begin the new module with the same setup and let it restore the state. At
//! a checkpoint the saved state must have the hash.
//!
//! The room went on in a fresh instance where a frame was *skipped*, at *retried*, and at a *swapped* that never happened (below). To do the same, begin the
//! module with the setup, let it restore the state of the last checkpoint that counts, and give it the records of the stepped frames since. For rules whose
//! state holds all that they remember this changes nothing; others (rules that leak memory, say) give the same bytes only then.
//!
//! A rollback changes what came before it. Going back from *rolled back*, the swaps with `next_frame` = `since_frame`, as far as there is no *kept* and no
//! other *rolled back* in between, never happened; from the first of them on up to *rolled back*, no checkpoint counts, and the outputs of the stepped frames
//! have the `output_crcs`, in order. Frames for which these do not suffice were never run: the former rules had ended the game before them.
//!
//! # Blocks
//!
//! The writer closes a block after the header, a checkpoint, a swap, a rollback, *kept*, a failure and the end, after [`BLOCK_FRAMES_MAX`] frames, and
//! when it has [`BLOCK_BYTES_AIM`]. A state follows its hash if it has at most [`STATE_BYTES_SMALL`], and otherwise if the last one that did is at least
//! [`STATE_EVERY_FRAMES`] old.

mod codec;
mod reader;
mod replay;
mod writer;

pub use reader::{Entries, Entry, Journal, JournalError, JournalOutcome, Recorded, RollbackMark, SwapMark};
pub use replay::{Difference, FindProgram, ReplayError, Replayed, ReplayedAs, Replayer};
pub use writer::JournalWriter;

/// What a journal begins with.
pub const MAGIC: [u8; 8] = *b"HSJOURN1";

/// Length of a block's body in bytes: the largest entry is a state of 1 MiB.
pub const BLOCK_BYTES_MAX: usize = 2 << 20;

/// A block with as many bytes is closed, so that little is lost when the host is killed.
pub const BLOCK_BYTES_AIM: usize = 64 << 10;

/// A block with as many frames is closed: a second at 50 Hz is lost when the host is killed.
pub const BLOCK_FRAMES_MAX: u32 = 50;

/// A state of at most so many bytes is part of every checkpoint: at one per second it makes a journal a few times larger, and any frame can be shown without
/// running all those before it.
pub const STATE_BYTES_SMALL: usize = 8 << 10;

/// A larger state is part of a checkpoint if the last one is so many frames old: ten seconds at 50 Hz.
pub const STATE_EVERY_FRAMES: u32 = 500;

/// Length of a message in bytes; the rest is cut.
pub const MESSAGE_BYTES_MAX: usize = 1 << 10;

/// What a journal begins with: all that decided the room before frame 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalHeader {
    /// The room's id.
    pub room: String,
    /// When the room was opened, in milliseconds since 1970.
    pub opened_unix_ms: u64,
    /// The setup record.
    pub setup: Vec<u8>,
    /// The manifest of the module, JSON text.
    pub manifest: String,
    /// The module that the room began with.
    pub module: [u8; 32],
}
