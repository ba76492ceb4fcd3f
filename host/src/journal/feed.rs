//! A journal in place of players: what they sent is handed to a real room frame by frame, so that spectators see the match as if it were
//! live. Opening the room is `rooms.rs`' affair, the pace the room's own.

use std::collections::VecDeque;
use std::sync::Arc;

use holeshot_abi::{ChangeKind, InputStatus, LeaveReason, TickReader};
use holeshot_room::journal::{Entry, Journal, Recorded};
use holeshot_room::{AbortReason, Arrival, Departure, Limits, Program, Room, Supervisor};

use super::replay::{ModuleShelf, ReplayFailure};
use crate::rules::ModuleHash;

/// What players sent for one frame.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Inputs that were sent for it, by slot.
    pub(crate) inputs: Vec<(u16, Box<[u8]>)>,
    /// Actions, JSON text.
    pub(crate) actions: Vec<(u16, Box<str>)>,
    left: Vec<(u16, LeaveReason)>,
    /// The rules that took over before this frame.
    swap: Option<Arc<dyn Program>>,
}

/// What players sent, frame by frame, and which slots were in the match when it began.
pub(crate) fn sent(journal: &Journal) -> (VecDeque<Sent>, Vec<bool>) {
    let mut frames: VecDeque<Sent> = VecDeque::new();
    let mut present = vec![false; journal.setup().players.len()];
    // A frame that was skipped left its changes and actions to the next one, where they come first.
    let (mut changes_left_over, mut actions_left_over) = (0, 0);
    let mut entries = journal.entries();
    while let Some(entry) = entries.next() {
        let Entry::Frame { record, ran, .. } = entry else { continue };
        // Checked when the journal was read.
        let Ok(tick) = TickReader::read(record) else { break };
        let mut sent = Sent::default();
        for (player, input) in (0u16..).zip(tick.inputs()) {
            if input.status == InputStatus::Fresh {
                sent.inputs.push((player, input.bytes.into()));
            }
        }
        for change in tick.changes().skip(changes_left_over) {
            match change.kind {
                ChangeKind::Joined => {
                    if let Some(place) = present.get_mut(usize::from(change.player)) {
                        *place = true;
                    }
                }
                ChangeKind::Left(reason) => sent.left.push((change.player, reason)),
            }
        }
        let actions = tick.actions().skip(actions_left_over);
        sent.actions.extend(actions.map(|action| (action.player, action.json.into())));
        frames.push_back(sent);
        (changes_left_over, actions_left_over) = match ran {
            Recorded::Skipped(_) => (tick.changes().count(), tick.actions().count()),
            Recorded::Stepped(_) | Recorded::Faulted(_) => (0, 0),
        };
    }
    (frames, present)
}

/// The players of a journal. Goes with a room of the same setup, whose [`limits`](JournalFeed::limits) are these.
#[derive(Debug)]
pub struct JournalFeed {
    frames: VecDeque<Sent>,
    /// The frame that is at the front.
    next_frame: u32,
    /// Slots that were in the match when it began.
    present: Vec<bool>,
    has_begun: bool,
    /// The last number that was given to an action.
    action_id: u64,
}

impl JournalFeed {
    /// Takes a journal apart. Blocks while modules are found and compiled.
    ///
    /// # Errors
    /// A module is missing.
    pub fn new(journal: &Journal, shelf: &mut ModuleShelf) -> Result<Self, ReplayFailure> {
        let (mut frames, present) = sent(journal);
        for swap in journal.swaps().iter().filter(|swap| !swap.rolled_back) {
            let module = shelf.find(ModuleHash::from(swap.to))?;
            if let Some(sent) = frames.get_mut(swap.next_frame as usize) {
                sent.swap = Some(ModuleShelf::program(&module, journal));
            }
        }
        Ok(Self { frames, next_frame: 0, present, has_begun: false, action_id: 0 })
    }

    /// What a room that is fed needs: a lost player is out at once, as the journal says, and every tick comes after what was sent for it.
    #[must_use]
    pub fn limits() -> Limits {
        Limits { reconnect_grace_us: 0, catch_up_ticks_max: 1, ..Limits::default() }
    }

    /// Hands the room what was sent before the step that it is about to take.
    pub(crate) fn before_step(
        &mut self,
        now_us: u64,
        room: &mut Room,
        rules: &mut Supervisor,
        out: &mut dyn FnMut(Departure<'_>),
    ) {
        let arrive = |room: &mut Room, arrival: Arrival<'_>| arrive(now_us, room, arrival);
        if !std::mem::replace(&mut self.has_begun, true) {
            for (player, present) in (0u16..).zip(&self.present) {
                if *present {
                    arrive(room, Arrival::Connected { player });
                    arrive(room, Arrival::Ready { player });
                } else {
                    arrive(room, Arrival::Remove { player });
                }
            }
            // They wait for frame 0 however early they come, and a room without a cutscene steps it at once.
            for (player, json) in
                self.frames.front_mut().map(|sent| std::mem::take(&mut sent.actions)).unwrap_or_default()
            {
                self.action_id += 1;
                arrive(room, Arrival::Action { player, id: self.action_id, json: &json });
            }
        }
        // That frame 0 can have had no inputs, since there was no time for them.
        if self.next_frame == 0 && room.frame() == Some(0) {
            self.frames.pop_front();
            self.next_frame = 1;
        }
        let is_due = room.tick_due_us(self.next_frame).is_some_and(|due_us| due_us <= now_us);
        if !is_due || room.phase().is_over() {
            return;
        }
        let Some(sent) = self.frames.pop_front() else {
            // The journal ends before the match does: the host was killed, or ended it.
            return arrive(room, Arrival::Abort { reason: AbortReason::Requested });
        };
        self.next_frame += 1;
        if let Some(program) = sent.swap {
            let swapped = rules.trial().run(program).and_then(|candidate| room.swap(now_us, rules, candidate, out));
            if let Err(refusal) = swapped {
                tracing::warn!(room = room.id(), %refusal, "the rules that took over then do not now; the former ones go on");
            }
        }
        for (player, reason) in sent.left {
            arrive(
                room,
                match reason {
                    LeaveReason::Quit => Arrival::Quit { player },
                    LeaveReason::ConnectionLost => Arrival::Disconnected { player },
                    LeaveReason::Removed => Arrival::Remove { player },
                },
            );
        }
        for (player, json) in &sent.actions {
            self.action_id += 1;
            arrive(room, Arrival::Action { player: *player, id: self.action_id, json });
        }
        let frame = self.next_frame - 1;
        for (player, bytes) in &sent.inputs {
            arrive(room, Arrival::Input { player: *player, frame, bytes });
        }
    }
}

fn arrive(now_us: u64, room: &mut Room, arrival: Arrival<'_>) {
    if let Err(not_taken) = room.handle(now_us, arrival) {
        tracing::debug!(room = room.id(), %not_taken, "what the journal has found no place");
    }
}
