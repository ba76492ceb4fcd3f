//! Goodbyes that wait for the disk. Who is told that a room is over may believe that it is on record, whatever dies next: so the goodbye
//! comes after the commit of the room's events to the outbox. The shard itself does not wait; it looks with every pass.

use std::collections::VecDeque;

use holeshot_wire::ByeCode;

use super::session::Session;
use crate::events::{EventSink, Mark};

/// How long a goodbye waits for the disk, in microseconds: two waits for a database that another program holds, and some. Less than the 20 s
/// for which a silent WebSocket is kept.
const FAREWELL_WAIT_MAX_US: u64 = 15_000_000;
/// How long it waits when the host stops, in microseconds.
const FAREWELL_STOP_WAIT_MAX_US: u64 = 2_000_000;

/// The sessions of one closed room.
struct Farewell {
    /// Behind the last event of the room.
    mark: Mark,
    deadline_us: u64,
    code: ByeCode,
    sessions: Vec<Session>,
}

/// The sessions of a shard's closed rooms, the room that closed first in front. Their number is bounded by that of the host's WebSockets.
#[derive(Default)]
pub(super) struct Farewells {
    waiting: VecDeque<Farewell>,
}

impl Farewells {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Says goodbye to the sessions of a room whose last event was emitted: at once if the disk has it, otherwise when it does.
    pub(super) fn say(&mut self, now_us: u64, sink: &EventSink, code: ByeCode, sessions: Vec<Session>) {
        if !sessions.is_empty() {
            let deadline_us = now_us.saturating_add(FAREWELL_WAIT_MAX_US);
            self.waiting.push_back(Farewell { mark: sink.mark(), deadline_us, code, sessions });
            self.look(now_us, sink);
        }
    }

    /// Says the goodbyes that need not wait any longer.
    pub(super) fn look(&mut self, now_us: u64, sink: &EventSink) {
        // Events are written in their order, so none behind the first is ready before it.
        while let Some(first) = self.waiting.front() {
            let is_durable = sink.is_durable(first.mark);
            if !is_durable && now_us < first.deadline_us {
                return;
            }
            let Some(Farewell { code, sessions, .. }) = self.waiting.pop_front() else { return };
            for session in sessions {
                match code {
                    // It promises nothing.
                    ByeCode::HostClosing => session.bye(code, "the room is closed"),
                    code if is_durable => session.bye(code, "the room is closed"),
                    _ => session
                        .bye(ByeCode::Internal, "the room is closed, but the host's disk does not take its record"),
                }
            }
        }
    }

    /// The host stops: nobody waits for long.
    pub(super) fn hurry(&mut self, now_us: u64) {
        for farewell in &mut self.waiting {
            farewell.deadline_us = farewell.deadline_us.min(now_us.saturating_add(FAREWELL_STOP_WAIT_MAX_US));
        }
    }
}
