//! Writes a journal, departure by departure, into memory: who keeps the bytes takes them from time to time.

use holeshot_abi::{Setup, TickReader};

use super::codec::{
    CHECKPOINT, END, ENDED, Expected, FAULT, FAULTED, HEADER, KEPT, RETRIED, ROLLED_BACK, SKIPPED, STEPPED, SWAPPED,
    TICKS_LOST, abort_code, fault_code, push_bytes, push_varint,
};
use super::{
    BLOCK_BYTES_AIM, BLOCK_FRAMES_MAX, JournalHeader, MAGIC, MESSAGE_BYTES_MAX, STATE_BYTES_SMALL, STATE_EVERY_FRAMES,
};
use crate::messages::{Departure, Outcome, Ran};
use crate::rules::Fault;
use crate::warm::{Ask, LINE_BYTES};

/// Writes the journal of one room.
///
/// [`note`](Self::note) every departure of the room, in order; [`take`](Self::take) what is ready whenever there is time to write it away;
/// [`finish`](Self::finish) when the room is closed, and take once more.
#[derive(Debug)]
pub struct JournalWriter {
    /// Whole blocks that were not yet taken.
    ready: Vec<u8>,
    /// The entries of the block that is being written.
    body: Vec<u8>,
    frames: u32,
    expected: Expected,
    /// Before which frame the last state that is part of the journal was saved.
    state_frame: Option<u32>,
    finished: bool,
}

impl JournalWriter {
    /// Begins a journal.
    #[must_use]
    pub fn begin(header: &JournalHeader) -> Self {
        // A setup that cannot be read has no players, and the reader refuses the journal.
        let players = Setup::read(&header.setup).map_or(0, |setup| setup.players.len());
        let mut writer = Self {
            ready: MAGIC.to_vec(),
            body: Vec::new(),
            frames: 0,
            expected: Expected::new(players),
            state_frame: None,
            finished: false,
        };
        let body = &mut writer.body;
        body.push(HEADER);
        push_bytes(body, header.room.as_bytes());
        body.extend_from_slice(&header.opened_unix_ms.to_le_bytes());
        push_bytes(body, &header.setup);
        push_bytes(body, header.manifest.as_bytes());
        body.extend_from_slice(&header.module);
        writer.close_block();
        writer
    }

    /// Takes note of what left the room. What is not for a journal is passed over.
    pub fn note(&mut self, departure: &Departure<'_>) {
        if self.finished {
            return;
        }
        let body = &mut self.body;
        let closes = match *departure {
            Departure::Tick { frame, record, ran } => return self.note_tick(frame, record, ran),
            Departure::Checkpoint { next_frame, state_version, state } => {
                let last = self.state_frame;
                let is_kept = state.len() <= STATE_BYTES_SMALL
                    || last.is_none_or(|last| next_frame.saturating_sub(last) >= STATE_EVERY_FRAMES);
                body.push(CHECKPOINT);
                body.extend_from_slice(&next_frame.to_le_bytes());
                body.extend_from_slice(&state_version.to_le_bytes());
                push_varint(body, state.len() as u64);
                body.extend_from_slice(blake3::hash(state).as_bytes());
                body.push(u8::from(is_kept));
                if is_kept {
                    body.extend_from_slice(state);
                    self.state_frame = Some(next_frame);
                }
                true
            }
            Departure::RulesSwapped { next_frame, from, to } => {
                body.push(SWAPPED);
                body.extend_from_slice(&next_frame.to_le_bytes());
                body.extend_from_slice(&from.hash());
                body.extend_from_slice(&to.hash());
                push_bytes(body, &serde_json::to_vec(to.manifest()).unwrap_or_default());
                true
            }
            Departure::RulesKept { next_frame } => {
                body.push(KEPT);
                body.extend_from_slice(&next_frame.to_le_bytes());
                true
            }
            Departure::RulesRolledBack { since_frame, frame, failed, to, fault, void, output_crcs } => {
                body.push(ROLLED_BACK);
                body.extend_from_slice(&since_frame.to_le_bytes());
                body.extend_from_slice(&frame.to_le_bytes());
                body.extend_from_slice(&failed.hash());
                body.extend_from_slice(&to.hash());
                push_fault(body, fault);
                push_varint(body, void.len() as u64);
                void.iter().for_each(|seq| push_varint(body, *seq));
                push_varint(body, output_crcs.len() as u64);
                output_crcs.iter().for_each(|crc| body.extend_from_slice(&crc.to_le_bytes()));
                true
            }
            Departure::RulesRetried { frame, fault } => {
                body.push(RETRIED);
                body.extend_from_slice(&frame.to_le_bytes());
                push_fault(body, fault);
                false
            }
            Departure::TicksLost { count, next_frame } => {
                body.push(TICKS_LOST);
                push_varint(body, count);
                body.extend_from_slice(&next_frame.to_le_bytes());
                false
            }
            Departure::RulesFault { frame, fault } => {
                body.push(FAULT);
                body.extend_from_slice(&frame.to_le_bytes());
                push_fault(body, fault);
                true
            }
            Departure::Ended { outcome } => {
                let (frames, code, results) = match outcome {
                    Outcome::Finished { frames, results } => (frames, 0, results),
                    Outcome::Aborted { frames, reason } => (frames, abort_code(reason), ""),
                };
                body.push(ENDED);
                body.extend_from_slice(&frames.to_le_bytes());
                body.push(code);
                push_bytes(body, results.as_bytes());
                true
            }
            Departure::PhaseChanged { .. }
            | Departure::PublicEvent(_)
            | Departure::InternalEvent { .. }
            | Departure::PlayerLeft { .. }
            | Departure::Snapshot { .. }
            | Departure::SharedSnapshot { .. }
            | Departure::ActionResult { .. } => return,
        };
        if closes || self.body.len() >= BLOCK_BYTES_AIM {
            self.close_block();
        }
    }

    /// The whole blocks since the last call; empty if there are none.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ready)
    }

    /// The part of the journal in [`Room::warm`](crate::Room::warm).
    pub fn warm(&self, ask: impl Ask) {
        self.expected.warm(ask);
        let end = self.body.as_ptr().wrapping_add(self.body.len());
        ask(end);
        ask(end.wrapping_add(LINE_BYTES));
    }

    /// Bytes that [`take`](Self::take) would give.
    #[must_use]
    pub fn ready_bytes(&self) -> usize {
        self.ready.len()
    }

    /// Ends the journal: it is whole now, and what is noted later is passed over.
    pub fn finish(&mut self) {
        if !self.finished {
            self.finished = true;
            self.body.push(END);
            self.close_block();
        }
    }

    fn note_tick(&mut self, frame: u32, bytes: &[u8], ran: Ran<'_>) {
        // A room writes its records as specified, and numbers its frames without a gap.
        let Ok(record) = TickReader::read(bytes) else { return };
        if frame != self.expected.next_frame() {
            return;
        }
        let body = &mut self.body;
        match ran {
            Ran::Stepped { output, .. } => {
                self.expected.encode(STEPPED, &record, body);
                body.extend_from_slice(&crc32fast::hash(output).to_le_bytes());
            }
            Ran::Skipped { fault } => {
                self.expected.encode(SKIPPED, &record, body);
                body.push(fault_code(fault.kind));
            }
            Ran::Faulted { fault } => {
                self.expected.encode(FAULTED, &record, body);
                body.push(fault_code(fault.kind));
            }
        }
        self.frames += 1;
        if self.frames >= BLOCK_FRAMES_MAX || self.body.len() >= BLOCK_BYTES_AIM {
            self.close_block();
        }
    }

    fn close_block(&mut self) {
        self.frames = 0;
        // In one piece: the buffer is handed over with each block, so that each begins with an empty one.
        self.ready.reserve(2 * size_of::<u32>() + self.body.len());
        // An entry has at most a state of 1 MiB; a block never grows to 4 GiB.
        self.ready.extend_from_slice(&(self.body.len() as u32).to_le_bytes());
        self.ready.extend_from_slice(&crc32fast::hash(&self.body).to_le_bytes());
        self.ready.extend_from_slice(&self.body);
        self.body.clear();
    }
}

fn push_fault(body: &mut Vec<u8>, fault: &Fault) {
    let mut end = fault.message.len().min(MESSAGE_BYTES_MAX);
    while !fault.message.is_char_boundary(end) {
        end -= 1;
    }
    body.push(fault_code(fault.kind));
    push_bytes(body, fault.message.get(..end).unwrap_or_default().as_bytes());
}
