//! One room's side of its journal: lives with the room on the shard and never waits.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use holeshot_abi::Setup;
use holeshot_room::journal::{JournalHeader, JournalWriter};
use holeshot_room::{Ask, Departure, Program};

use super::{Desk, JOURNAL_BYTES_MAX, Journals, Message, Open, is_file_name};
use crate::rooms::LiveRoom;

/// The journal of a room that runs. Dropping it without [`finish`](RoomJournal::finish) leaves the journal incomplete: what was handed over is kept.
#[derive(Debug, Default)]
pub struct RoomJournal {
    /// None if the host keeps no journals, and once this one has ended.
    pub(super) inner: Option<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    writer: JournalWriter,
    /// A shard has the room: something was noted.
    is_taken: bool,
    /// Ticks noted.
    frames: u32,
    /// The match has ended: no tick comes any more.
    over: bool,
    desk: Arc<Desk>,
    pub(super) open: Arc<Open>,
    /// Bytes handed over.
    pub(super) bytes: u64,
}

impl Journals {
    /// Begins the journal of a room. A host that keeps none gives one that does nothing.
    #[must_use]
    pub fn begin(&self, live: &LiveRoom, setup: &Setup, program: &dyn Program) -> RoomJournal {
        if self.desk.is_none() {
            return RoomJournal::default();
        }
        match header(live, setup, program) {
            Ok(header) => self.begin_with(&header, &program.manifest().name),
            Err(problem) => {
                tracing::error!(room = live.id, problem, "a room has no journal: its setup cannot be written");
                RoomJournal::default()
            }
        }
    }

    pub(super) fn begin_with(&self, header: &JournalHeader, module: &str) -> RoomJournal {
        let room = header.room.as_str();
        // Ids are the host's own; one that could not be a file's name would be a mistake in it.
        let Some(desk) = self.desk.clone().filter(|_| is_file_name(room)) else { return RoomJournal::default() };
        let open = Arc::new(Open {
            room: room.to_owned(),
            module: module.to_owned(),
            waiting: AtomicU32::new(0),
            bytes: AtomicU64::new(0),
            frames: AtomicU32::new(0),
            problem: OnceLock::new(),
            void: AtomicBool::new(false),
            left: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        desk.open().insert(room.to_owned(), Arc::clone(&open));
        let writer = JournalWriter::begin(header);
        let mut journal = RoomJournal {
            inner: Some(Inner { writer, is_taken: false, frames: 0, over: false, desk, open, bytes: 0 }),
        };
        journal.hand_over();
        journal
    }
}

/// The header of a room's journal.
fn header(live: &LiveRoom, setup: &Setup, program: &dyn Program) -> Result<JournalHeader, String> {
    let mut record = Vec::new();
    // Both were written once before, when the rules were set up.
    setup.write(&mut record).map_err(|error| error.to_string())?;
    let manifest = serde_json::to_string(program.manifest()).map_err(|error| error.to_string())?;
    let (room, opened_unix_ms) = (live.id.clone(), live.opened_ms);
    Ok(JournalHeader { room, opened_unix_ms, setup: record, manifest, module: program.hash() })
}

impl RoomJournal {
    /// Begins anew: the room's rules were begun anew with another setup before frame 0, and nothing that was noted so far is theirs.
    pub fn begin_anew(&mut self, live: &LiveRoom, setup: &Setup, program: &dyn Program) {
        let Some(inner) = &mut self.inner else { return };
        let begun = header(live, setup, program).and_then(|header| {
            inner.desk.begin_anew(&inner.open)?;
            inner.writer = JournalWriter::begin(&header);
            inner.bytes = 0;
            Ok(())
        });
        match begun {
            Ok(()) => self.hand_over(),
            Err(problem) => self.leave(Some(problem)),
        }
    }

    /// Takes note of what left the room. Every departure, in order.
    pub fn note(&mut self, departure: &Departure<'_>) {
        let Some(inner) = &mut self.inner else { return };
        inner.is_taken = true;
        inner.writer.note(departure);
        match departure {
            Departure::Tick { frame, .. } => inner.frames = frame.saturating_add(1),
            Departure::Ended { .. } => inner.over = true,
            _ => {}
        }
    }

    /// The part of the journal in [`Room::warm`](holeshot_room::Room::warm).
    pub fn warm(&self, ask: impl Ask) {
        if let Some(inner) = &self.inner {
            inner.writer.warm(ask);
        }
    }

    /// Hands over the blocks that are whole. After each step of the room.
    pub fn hand_over(&mut self) {
        let Some(inner) = &mut self.inner else { return };
        if inner.over {
            return self.finish();
        }
        let blocks = inner.writer.take();
        self.hand(blocks);
    }

    /// Ends the journal: the room is closed. Nothing happens if it has ended already, as it does with the match.
    pub fn finish(&mut self) {
        let Some(inner) = &mut self.inner else { return };
        inner.writer.finish();
        let blocks = inner.writer.take();
        self.hand(blocks);
        self.leave(None);
    }

    fn hand(&mut self, blocks: Vec<u8>) {
        let Some(inner) = self.inner.as_mut().filter(|_| !blocks.is_empty()) else { return };
        let bytes = inner.bytes.saturating_add(blocks.len() as u64);
        // The disk may have failed meanwhile.
        let given_up = inner.open.problem.get().is_some();
        let handed = if given_up {
            Ok(())
        } else if bytes > JOURNAL_BYTES_MAX {
            Err(format!("it would have more than {} MiB, the most that one room may have", JOURNAL_BYTES_MAX >> 20))
        } else {
            inner.desk.hand(&inner.open, blocks, inner.frames)
        };
        inner.bytes = bytes;
        match handed {
            Ok(()) if given_up => self.leave(None),
            Ok(()) => {}
            Err(problem) => self.leave(Some(problem)),
        }
    }

    fn leave(&mut self, problem: Option<String>) {
        let Some(Inner { desk, open, is_taken, .. }) = self.inner.take() else { return };
        // Nobody ever heard of a room that no shard took: there is nothing to keep and nothing to tell.
        open.void.store(!is_taken, Ordering::Release);
        if let Some(problem) = problem {
            let _first = open.problem.set(problem);
        }
        open.left.store(true, Ordering::Release);
        // If there is no place for it, the thread finds it on its round.
        let _on_its_round = desk.queue.try_send(Message::Left(open));
    }
}

impl Drop for RoomJournal {
    fn drop(&mut self) {
        self.leave(Some("its room was lost".to_owned()));
    }
}
