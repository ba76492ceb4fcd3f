//! A shard's part in changing rules: it hands out what a trial needs and lets a candidate take over between two ticks. Trials themselves never run
//! here.

use std::time::Instant;

use holeshot_room::{Candidate, SwapRefusal, Trial};
use tokio::sync::oneshot;

use super::Shard;

/// What a shard is asked for, to change the rules of one of its rooms. The answer is none if it does not have the room.
#[derive(Debug)]
pub enum SwapCommand {
    /// Copy what a trial needs.
    Trial {
        /// The room.
        room: String,
        /// Gets the copy.
        reply: oneshot::Sender<Option<Trial>>,
    },
    /// Let a candidate take over, now: no tick is under way when a command is obeyed.
    Swap {
        /// The room.
        room: String,
        /// It has passed its trial.
        candidate: Box<Candidate>,
        /// Gets what became of it.
        reply: oneshot::Sender<Option<Result<SwapDone, SwapRefusal>>>,
    },
}

/// A candidate took over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwapDone {
    /// Its first frame.
    pub next_frame: u32,
    /// How long the shard stood still for it, in microseconds: saving, restoring, telling everyone.
    pub pause_us: u64,
}

impl Shard {
    pub(super) fn obey_swap(&mut self, command: SwapCommand) {
        match command {
            SwapCommand::Trial { room, reply } => {
                let index = self.places.get(&room).copied();
                let slot = index.and_then(|index| self.rooms.get(index)?.as_ref());
                let _asker_gone = reply.send(slot.map(|slot| slot.rules.trial()));
            }
            SwapCommand::Swap { room, candidate, reply } => {
                let begun = Instant::now();
                let index = self.places.get(&room).copied();
                let swapped = index.and_then(|index| {
                    let now_us = self.clock.now_us();
                    self.with_room(index, now_us, |room, rules, out| room.swap(now_us, rules, *candidate, out))
                });
                // Where probation is switched off, nobody will say that it is over.
                let slot = index.and_then(|index| self.rooms.get(index)?.as_ref());
                if let Some(slot) = slot.filter(|slot| slot.rules.probation().is_none()) {
                    slot.live.rules.kept();
                }
                let pause_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                let done = swapped
                    .map(|(result, _)| result.map(|swapped| SwapDone { next_frame: swapped.next_frame, pause_us }));
                let _asker_gone = reply.send(done);
            }
        }
    }
}
