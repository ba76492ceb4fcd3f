//! Reads journals. Every byte may be anything: a journal is checked as a whole once, and then walked entry by entry without keeping
//! more than one record.

use holeshot_abi::{Manifest, Setup, TickRecord};

use super::codec::{
    Bad, CHECKPOINT, END, ENDED, Expected, FAULT, FAULTED, HEADER, KEPT, RETRIED, ROLLED_BACK, SKIPPED, STEPPED,
    SWAPPED, TICKS_LOST, Walk, abort_reason, frame_kind, is_frame,
};
use super::{BLOCK_BYTES_MAX, JournalHeader, MAGIC};
use crate::messages::AbortReason;
use crate::rules::FaultKind;

/// Why bytes are not taken as a journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// They begin otherwise.
    #[error("this is not a journal of a room: it does not begin with `HSJOURN1`")]
    NotAJournal,
    /// They end, or are damaged, before the end of the header: there is nothing to replay.
    #[error("the journal breaks off in its header, at byte {offset}; nothing of it can be used")]
    NoHeader {
        /// Where, from the start.
        offset: usize,
    },
    /// A whole block, whose CRC fits, has an entry that breaks the format: it was written by something else, or by a newer host.
    #[error(
        "the journal breaks its format in the block at byte {offset}: `{field}` {problem}; was it written by a newer host?"
    )]
    Malformed {
        /// Where the block begins.
        offset: usize,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// How a match ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalOutcome {
    /// The rules finished it.
    Finished {
        /// Frames of the game.
        frames: u32,
        /// The results, JSON text.
        results: String,
    },
    /// It was broken off.
    Aborted {
        /// Frames of the game.
        frames: u32,
        /// Why.
        reason: AbortReason,
    },
}

/// A change of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwapMark {
    /// The first frame of the new rules.
    pub next_frame: u32,
    /// The module before.
    pub from: [u8; 32],
    /// The new module.
    pub to: [u8; 32],
    /// The new module's version.
    pub version: String,
    /// It was undone later.
    pub rolled_back: bool,
}

/// New rules that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollbackMark {
    /// Their first frame.
    pub since_frame: u32,
    /// In which they failed.
    pub frame: u32,
    /// Their module.
    pub failed: [u8; 32],
    /// The module that went on.
    pub to: [u8; 32],
    /// How they failed.
    pub fault: FaultKind,
    /// In words.
    pub message: String,
}

/// A part of a journal that a rollback has changed.
#[derive(Debug, Clone)]
pub(super) struct Undone {
    /// From the first swap that never happened …
    from: usize,
    /// … up to the rollback.
    to: usize,
    output_crcs: Vec<u32>,
}

/// A journal that was read and checked.
#[derive(Debug, Clone)]
pub struct Journal {
    header: JournalHeader,
    setup: Setup,
    manifest: Manifest,
    /// The entries of all whole blocks but the first.
    entries: Vec<u8>,
    frames: u32,
    swaps: Vec<SwapMark>,
    rollbacks: Vec<RollbackMark>,
    undone: Vec<Undone>,
    outcome: Option<JournalOutcome>,
    is_whole: bool,
    truncated_at: Option<usize>,
}

/// An entry of a journal, after the header.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    /// A frame.
    Frame {
        /// Its number.
        frame: u32,
        /// The tick record.
        record: &'a [u8],
        /// What became of it.
        ran: Recorded,
    },
    /// A state.
    Checkpoint {
        /// The first frame that it has not seen.
        next_frame: u32,
        /// That of the module which saved it.
        state_version: u32,
        /// BLAKE3 of the state.
        hash: [u8; 32],
        /// The state, if it is part of the journal.
        state: Option<&'a [u8]>,
    },
    /// The rules were replaced.
    Swapped {
        /// The first frame of the new ones.
        next_frame: u32,
        /// The module before.
        from: [u8; 32],
        /// The new module.
        to: [u8; 32],
        /// The new module's manifest, JSON text.
        manifest: &'a str,
    },
    /// The new rules passed their probation.
    Kept {
        /// The frame that came next.
        next_frame: u32,
    },
    /// The new rules failed.
    RolledBack {
        /// Their first frame.
        since_frame: u32,
        /// In which they failed.
        frame: u32,
        /// Their module.
        failed: [u8; 32],
        /// The module that went on.
        to: [u8; 32],
        /// How they failed.
        fault: FaultKind,
        /// In words.
        message: &'a str,
    },
    /// A fault did not come again.
    Retried {
        /// The frame.
        frame: u32,
        /// The fault.
        fault: FaultKind,
        /// In words.
        message: &'a str,
    },
    /// The game stood still.
    TicksLost {
        /// For so many ticks.
        count: u64,
        /// The frame that came next.
        next_frame: u32,
    },
    /// The rules failed for good.
    Fault {
        /// The frame.
        frame: u32,
        /// The fault.
        fault: FaultKind,
        /// In words.
        message: &'a str,
    },
    /// The match ended.
    Ended {
        /// Frames of the game.
        frames: u32,
        /// Why it was broken off, if it was.
        reason: Option<AbortReason>,
        /// The results, JSON text; empty if it was broken off.
        results: &'a str,
    },
    /// The journal is whole.
    End,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It was stepped; the CRC-32 of its output.
    Stepped(u32),
    /// The rules never saw it.
    Skipped(FaultKind),
    /// The rules failed in it.
    Faulted(FaultKind),
}

impl Journal {
    /// Reads a journal. Of one that was cut off, or is damaged further on, what comes before.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn read(bytes: &[u8]) -> Result<Self, JournalError> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(JournalError::NotAJournal)?;
        let mut blocks = Blocks { bytes, offset: bytes.len() - rest.len() };
        let Some((offset, body)) = blocks.next() else {
            return Err(JournalError::NoHeader { offset: blocks.offset });
        };
        let malformed =
            |bad: Bad| JournalError::Malformed { offset, field: bad.field, problem: bad.problem.to_owned() };
        let header = read_header(body).map_err(malformed)?;
        let setup = Setup::read(&header.setup).map_err(|error| JournalError::Malformed {
            offset,
            field: "setup",
            problem: format!("is none: {error}"),
        })?;
        let manifest: Manifest = serde_json::from_str(&header.manifest).map_err(|error| JournalError::Malformed {
            offset,
            field: "manifest",
            problem: format!("is none: {error}"),
        })?;
        manifest.validate().map_err(|error| JournalError::Malformed {
            offset,
            field: "manifest",
            problem: format!("is out of range: {error}"),
        })?;
        let mut journal = Self {
            header,
            setup,
            manifest,
            entries: Vec::with_capacity(rest.len()),
            frames: 0,
            swaps: Vec::new(),
            rollbacks: Vec::new(),
            undone: Vec::new(),
            outcome: None,
            is_whole: false,
            truncated_at: None,
        };
        let mut checker = Checker { decoder: Decoder::new(&journal), pending: Vec::new() };
        while let Some((offset, body)) = blocks.next() {
            let start = journal.entries.len();
            journal.entries.extend_from_slice(body);
            checker.check_block(&mut journal, start).map_err(|bad| JournalError::Malformed {
                offset,
                field: bad.field,
                problem: bad.problem.to_owned(),
            })?;
        }
        journal.truncated_at = (blocks.offset < bytes.len()).then_some(blocks.offset);
        Ok(journal)
    }

    /// What it begins with.
    #[must_use]
    pub const fn header(&self) -> &JournalHeader {
        &self.header
    }

    /// The setup of the room.
    #[must_use]
    pub const fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The manifest of the module that the room began with.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Frames that it has.
    #[must_use]
    pub const fn frames(&self) -> u32 {
        self.frames
    }

    /// Every change of rules, also those that were undone.
    #[must_use]
    pub fn swaps(&self) -> &[SwapMark] {
        &self.swaps
    }

    /// Every rollback.
    #[must_use]
    pub fn rollbacks(&self) -> &[RollbackMark] {
        &self.rollbacks
    }

    /// How the match ended; none if the journal ends before.
    #[must_use]
    pub const fn outcome(&self) -> Option<&JournalOutcome> {
        self.outcome.as_ref()
    }

    /// The writer finished it, and nothing is missing.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Where the first block begins that is cut off or damaged, in bytes from the start; what follows was not read.
    #[must_use]
    pub const fn truncated_at(&self) -> Option<usize> {
        self.truncated_at
    }

    /// Walks the entries, in order.
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        Entries { journal: self, at: 0, decoder: Decoder::new(self) }
    }

    /// Whether the entry at `at` is in a part that a rollback has changed, and in which.
    pub(super) fn undone(&self, at: usize) -> Option<(usize, &[u32])> {
        let index = self.undone.partition_point(|undone| undone.to < at);
        let undone = self.undone.get(index)?;
        (undone.from <= at && at < undone.to).then_some((index, undone.output_crcs.as_slice()))
    }
}

/// Walks the entries of a [`Journal`]. Not an `Iterator`: an entry is borrowed until the next one.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    journal: &'a Journal,
    at: usize,
    decoder: Decoder,
}

impl Entries<'_> {
    /// The next entry.
    #[expect(clippy::should_implement_trait, reason = "the entry borrows the walk's buffer")]
    pub fn next(&mut self) -> Option<Entry<'_>> {
        self.next_at().map(|(_, entry)| entry)
    }

    /// The next entry, and where it begins.
    pub(super) fn next_at(&mut self) -> Option<(usize, Entry<'_>)> {
        let at = self.at;
        let mut walk = Walk::new(&self.journal.entries, at);
        if walk.is_at_end() {
            return None;
        }
        // Every entry was checked when the journal was read.
        let entry = self.decoder.entry(&mut walk).ok()?;
        self.at = walk.at();
        Some((at, entry))
    }
}

/// The blocks that are whole.
struct Blocks<'a> {
    bytes: &'a [u8],
    /// Where the next one begins.
    offset: usize,
}

impl<'a> Blocks<'a> {
    /// The next block: where it begins, and its body.
    fn next(&mut self) -> Option<(usize, &'a [u8])> {
        let mut walk = Walk::new(self.bytes, self.offset);
        let len = walk.u32("len").ok()? as usize;
        let crc = walk.u32("crc").ok()?;
        // A file's tail is zeros after a power cut, and 0 is the CRC of no bytes.
        if len == 0 || len > BLOCK_BYTES_MAX {
            return None;
        }
        let body = walk.take("body", len).ok()?;
        if crc32fast::hash(body) != crc {
            return None;
        }
        Some((std::mem::replace(&mut self.offset, walk.at()), body))
    }
}

fn read_header(body: &[u8]) -> Result<JournalHeader, Bad> {
    let mut walk = Walk::new(body, 0);
    if walk.u8("kind")? != HEADER {
        return Err(Bad { field: "kind", problem: "of the first entry is not that of a header" });
    }
    let header = JournalHeader {
        room: walk.text("room")?.to_owned(),
        opened_unix_ms: walk.u64("opened_unix_ms")?,
        setup: walk.bytes("setup")?.to_vec(),
        manifest: walk.text("manifest")?.to_owned(),
        module: walk.hash("module")?,
    };
    if walk.is_at_end() {
        Ok(header)
    } else {
        Err(Bad { field: "header", problem: "is followed by more in its block" })
    }
}

/// Reads entries one after the other.
#[derive(Debug, Clone)]
struct Decoder {
    expected: Expected,
    stride: usize,
    record: TickRecord,
}

impl Decoder {
    fn new(journal: &Journal) -> Self {
        Self {
            expected: Expected::new(journal.setup.players.len()),
            stride: journal.manifest.input_stride_bytes(),
            record: TickRecord::default(),
        }
    }

    fn entry<'s, 'a: 's>(&'s mut self, walk: &mut Walk<'a>) -> Result<Entry<'s>, Bad> {
        let kind = walk.u8("kind")?;
        if is_frame(kind) {
            let frame = self.expected.next_frame();
            self.expected.decode(kind, walk, self.stride, &mut self.record)?;
            let ran = match frame_kind(kind) {
                STEPPED => Recorded::Stepped(walk.u32("crc")?),
                SKIPPED => Recorded::Skipped(walk.fault("fault")?),
                FAULTED => Recorded::Faulted(walk.fault("fault")?),
                _ => return Err(Bad { field: "kind", problem: "is unknown" }),
            };
            return Ok(Entry::Frame { frame, record: self.record.bytes(), ran });
        }
        Ok(match kind {
            CHECKPOINT => {
                let (next_frame, state_version) = (walk.u32("next_frame")?, walk.u32("state_version")?);
                let len = walk.varint("len")?;
                let hash = walk.hash("hash")?;
                let state = match walk.u8("has_state")? {
                    0 => None,
                    1 => {
                        let len = usize::try_from(len).unwrap_or(usize::MAX);
                        Some(walk.take("state", len)?)
                    }
                    _ => return Err(Bad { field: "has_state", problem: "is neither 0 nor 1" }),
                };
                Entry::Checkpoint { next_frame, state_version, hash, state }
            }
            SWAPPED => Entry::Swapped {
                next_frame: walk.u32("next_frame")?,
                from: walk.hash("from")?,
                to: walk.hash("to")?,
                manifest: walk.text("manifest")?,
            },
            KEPT => Entry::Kept { next_frame: walk.u32("next_frame")? },
            ROLLED_BACK => {
                let entry = Entry::RolledBack {
                    since_frame: walk.u32("since_frame")?,
                    frame: walk.u32("frame")?,
                    failed: walk.hash("failed")?,
                    to: walk.hash("to")?,
                    fault: walk.fault("fault")?,
                    message: walk.text("message")?,
                };
                for _ in 0..walk.count("void", 1)? {
                    walk.varint("void")?;
                }
                let crcs = walk.count("output_crcs", 4)?;
                walk.take("output_crcs", crcs.saturating_mul(4))?;
                entry
            }
            RETRIED => Entry::Retried {
                frame: walk.u32("frame")?,
                fault: walk.fault("fault")?,
                message: walk.text("message")?,
            },
            TICKS_LOST => Entry::TicksLost { count: walk.varint("count")?, next_frame: walk.u32("next_frame")? },
            FAULT => {
                Entry::Fault { frame: walk.u32("frame")?, fault: walk.fault("fault")?, message: walk.text("message")? }
            }
            ENDED => {
                let frames = walk.u32("frames")?;
                let reason = match walk.u8("outcome")? {
                    0 => None,
                    code => Some(abort_reason(code).ok_or(Bad { field: "outcome", problem: "is unknown" })?),
                };
                Entry::Ended { frames, reason, results: walk.text("results")? }
            }
            END => Entry::End,
            _ => return Err(Bad { field: "kind", problem: "is unknown" }),
        })
    }
}

/// Checks a journal while it is read, and finds out what its rollbacks have undone.
struct Checker {
    decoder: Decoder,
    /// The swaps on probation: where each is, its frame and its place in the list.
    pending: Vec<(usize, u32, usize)>,
}

impl Checker {
    fn check_block(&mut self, journal: &mut Journal, start: usize) -> Result<(), Bad> {
        let mut walk = Walk::new(&journal.entries, start);
        while !walk.is_at_end() {
            if journal.is_whole {
                return Err(Bad { field: "kind", problem: "follows the end of the journal" });
            }
            let at = walk.at();
            let before = walk;
            match self.decoder.entry(&mut walk)? {
                Entry::Frame { .. } => journal.frames += 1,
                Entry::Swapped { next_frame, from, to, manifest } => {
                    let manifest: Manifest = serde_json::from_str(manifest)
                        .map_err(|_| Bad { field: "manifest", problem: "is not the JSON of a manifest" })?;
                    let version = manifest.version;
                    self.pending.push((at, next_frame, journal.swaps.len()));
                    journal.swaps.push(SwapMark { next_frame, from, to, version, rolled_back: false });
                }
                Entry::Kept { .. } => self.pending.clear(),
                Entry::RolledBack { since_frame, frame, failed, to, fault, message } => {
                    let message = message.to_owned();
                    journal.rollbacks.push(RollbackMark { since_frame, frame, failed, to, fault, message });
                    self.pending.retain(|(_, next_frame, _)| *next_frame == since_frame);
                    let Some((from, _, _)) = self.pending.first().copied() else {
                        return Err(Bad { field: "since_frame", problem: "is not the frame of a swap on probation" });
                    };
                    for (_, _, index) in self.pending.drain(..) {
                        if let Some(swap) = journal.swaps.get_mut(index) {
                            swap.rolled_back = true;
                        }
                    }
                    let output_crcs = output_crcs(before)?;
                    journal.undone.push(Undone { from, to: at, output_crcs });
                }
                Entry::Ended { frames, reason, results } => {
                    journal.outcome = Some(match reason {
                        None => JournalOutcome::Finished { frames, results: results.to_owned() },
                        Some(reason) => JournalOutcome::Aborted { frames, reason },
                    });
                }
                Entry::End => journal.is_whole = true,
                Entry::Checkpoint { .. } | Entry::Retried { .. } | Entry::TicksLost { .. } | Entry::Fault { .. } => {}
            }
        }
        Ok(())
    }
}

/// The CRCs of a rollback, whose entry was checked.
fn output_crcs(mut walk: Walk<'_>) -> Result<Vec<u32>, Bad> {
    walk.take("kind", 1 + 4 + 4 + 32 + 32 + 1)?;
    walk.text("message")?;
    for _ in 0..walk.count("void", 1)? {
        walk.varint("void")?;
    }
    let count = walk.count("output_crcs", 4)?;
    (0..count).map(|_| walk.u32("output_crcs")).collect()
}
