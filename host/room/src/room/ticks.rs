//! The ticks of a room: what the rules are given, what becomes of what they put out, and how their replacement and their failures are
//! told. What is done about failures is decided by the supervisor.

use holeshot_abi::{InputStatus, Item, Manifest, PLAYERS_MAX};

use super::Room;
use crate::messages::{AbortReason, Departure, EventSource, Phase, Ran};
use crate::rollback::{Rerun, Rollback};
use crate::rules::{Fault, Program};
use crate::supervisor::{CheckpointEnd, Checkpointed, Supervisor, TickEnd, Ticked};
use crate::trial::{Candidate, SwapRefusal, SwapRefusalKind, check_compatible};
use crate::{output, payloads};

/// The rules of a room were replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swapped {
    /// The first frame of the new rules.
    pub next_frame: u32,
    /// Hash of the module before.
    pub from: [u8; 32],
    /// Hash of the module from now on.
    pub to: [u8; 32],
}

impl Room {
    /// Replaces the rules between two steps: the state is saved from the old and restored into the new ones. Announces it.
    ///
    /// # Errors
    /// Why nothing has changed. If it was the old rules that could not save, the next frame goes back to the last checkpoint, as after any
    /// fault.
    pub fn swap(
        &mut self,
        now_us: u64,
        rules: &mut Supervisor,
        candidate: Candidate,
        out: &mut dyn FnMut(Departure<'_>),
    ) -> Result<Swapped, SwapRefusal> {
        self.now_us = self.now_us.max(now_us);
        if self.phase.is_over() {
            return Err(SwapRefusal::new(SwapRefusalKind::RoomOver, "the match has ended"));
        }
        let next_frame = self.next_frame;
        let manifest = candidate.program().manifest();
        check_compatible(&self.manifest, manifest, self.players.len())?;
        let left = self.left_in_room();
        // A room that has too few under its own rules ends in its next step whatever they are.
        if self.phase < Phase::Running && !self.has_too_few() && left < usize::from(manifest.players_min) {
            let message = format!(
                "{left} players are left before the start, the module takes {} at least: the room would end at once",
                manifest.players_min
            );
            return Err(SwapRefusal::new(SwapRefusalKind::Incompatible, message));
        }
        let probation_ends = next_frame.saturating_add(rules.settings().probation_frames);
        if manifest.frames_max < self.manifest.frames_max && manifest.frames_max <= probation_ends {
            let message = format!(
                "`frames_max` of the module is {}, and the room is before frame {next_frame}: the game would be broken off on probation",
                manifest.frames_max
            );
            return Err(SwapRefusal::new(SwapRefusalKind::Incompatible, message));
        }
        let replaced = rules.swap(candidate)?;
        let to = rules.program();
        self.replace_manifest(to.manifest());
        self.counters.swaps += 1;
        out(Departure::Checkpoint { next_frame, state_version: replaced.state_version, state: &replaced.state });
        out(Departure::RulesSwapped { next_frame, from: &*replaced.from, to: &**to });
        let told = payloads::RulesSwapped {
            frame: next_frame,
            module: payloads::ModuleNamed::of(&**to),
            from: payloads::ModuleNamed::of(&*replaced.from),
        };
        self.tell_public("rules_swapped", None, &payloads::text(&told), out);
        self.tell_internal("room.rules_swapped", told, out);
        Ok(Swapped { next_frame, from: replaced.from.hash(), to: to.hash() })
    }

    fn replace_manifest(&mut self, manifest: &Manifest) {
        self.manifest = manifest.clone();
    }

    pub(super) fn tick(&mut self, rules: &mut Supervisor, out: &mut dyn FnMut(Departure<'_>)) {
        let frame = self.next_frame;
        let actions = self.write_record(frame);
        self.next_frame += 1;
        self.counters.ticks += 1;
        let Ticked { end, retried, rolled_back } = rules.tick(frame, self.record.bytes());
        if let Some(rollback) = &rolled_back {
            self.tell_rolled_back(rollback, rules, out);
        }
        if let Some(fault) = retried {
            self.tell_retried(frame, &fault, &**rules.program(), out);
        }
        let record = self.record.bytes();
        match end {
            TickEnd::Stepped => {
                let output = rules.take_output();
                out(Departure::Tick { frame, record, ran: Ran::Stepped { output: &output, usage: rules.usage() } });
                self.settle(frame, actions);
                if let Some(results) = self.tell_output(frame, &output, Some(rules), out) {
                    self.finish(frame, results, out);
                }
                // Before the checkpoint, which may go back.
                rules.give_back(output);
                if !self.phase.is_over() {
                    self.end_of_frame(rules, out);
                }
            }
            TickEnd::Skipped(fault) => {
                out(Departure::Tick { frame, record, ran: Ran::Skipped { fault: &fault } });
                self.counters.ticks_skipped += 1;
                let output = rules.take_output();
                self.tell_output(frame, &output, None, out);
                rules.give_back(output);
                self.end_if_too_long(out);
            }
            TickEnd::Faulted(fault) => {
                out(Departure::Tick { frame, record, ran: Ran::Faulted { fault: &fault } });
                self.abort(AbortReason::RulesFault, Some(&fault), out);
            }
            TickEnd::Over => self.end_by_rerun(rolled_back.as_deref(), out),
        }
    }

    /// Everything that decides a frame, and nothing else. Gives the number of actions in it.
    fn write_record(&mut self, frame: u32) -> usize {
        self.record.begin(frame, self.players.len(), self.manifest.input_stride_bytes());
        for (slot, player) in self.players.iter_mut().enumerate() {
            let input = self.inputs.take(slot, frame);
            let counters = &mut player.counters;
            *match input.status {
                InputStatus::Fresh => &mut counters.fresh,
                InputStatus::Repeated => &mut counters.repeated,
                InputStatus::Absent => &mut counters.absent,
            } += 1;
            self.record.set_input(slot, input);
        }
        for change in &self.changes {
            self.record.push_change(*change);
        }
        self.actions.write(&mut self.record)
    }

    /// The rules have seen the frame: its changes and actions are done with. Until then they belong to the next frame.
    fn settle(&mut self, frame: u32, actions: usize) {
        self.changes.clear();
        let players = &mut self.players;
        self.actions.applied(actions, frame, |player| {
            if let Some(player) = players.get_mut(usize::from(player)) {
                player.counters.actions_applied += 1;
            }
        });
    }

    /// Sends what is in an output record, and gives the results in it. Of a frame that was skipped, without `rules`, only the snapshots.
    fn tell_output<'o>(
        &mut self,
        frame: u32,
        output: &'o [u8],
        mut rules: Option<&mut Supervisor>,
        out: &mut dyn FnMut(Departure<'_>),
    ) -> Option<&'o str> {
        let mut results = None;
        for item in output::items(output) {
            match (item, &mut rules) {
                (Item::SharedSnapshot(_) | Item::Snapshot { .. }, _) => {}
                (Item::PublicEvent { name, json }, Some(rules)) => {
                    let seq = self.tell_public(name, Some(frame), json, out);
                    rules.told(Some(seq), frame, name, json);
                }
                (Item::InternalEvent { name, json }, Some(rules)) => {
                    out(Departure::InternalEvent { source: EventSource::Module, kind: name, frame: Some(frame), json });
                    rules.told(None, frame, name, json);
                }
                (Item::Results(json), _) => results = Some(json),
                (Item::PublicEvent { .. } | Item::InternalEvent { .. }, None) => {}
            }
        }
        self.tell_snapshots(frame, output, out);
        results
    }

    /// Sends the snapshots in an output record.
    fn tell_snapshots(&self, frame: u32, output: &[u8], out: &mut dyn FnMut(Departure<'_>)) {
        let (mut shared, mut has_own) = (None, false);
        for item in output::items(output) {
            match item {
                Item::SharedSnapshot(bytes) => shared = Some(bytes),
                Item::Snapshot { .. } => has_own = true,
                Item::PublicEvent { .. } | Item::InternalEvent { .. } | Item::Results(_) => {}
            }
        }
        if let Some(bytes) = shared {
            out(Departure::SharedSnapshot { frame, bytes });
        }
        // Clearing places for all players that there could be would take a room of two longer than the rest of this, and most modules need none.
        let own = has_own.then(|| own_snapshots(output));
        for (at, (slot, player)) in (0u16..).zip(&self.players).enumerate() {
            let own = own.as_ref().and_then(|own| *own.get(at)?);
            if let Some(bytes) = own.or(shared).filter(|_| player.is_in() && player.connected) {
                out(Departure::Snapshot {
                    player: slot,
                    frame,
                    bytes,
                    margin_us: player.margin.worst_us(),
                    last_input_frame: player.margin.newest_frame(),
                    is_shared: own.is_none(),
                });
            }
        }
    }

    fn end_if_too_long(&mut self, out: &mut dyn FnMut(Departure<'_>)) -> bool {
        let is_too_long = self.next_frame >= self.manifest.frames_max;
        if is_too_long {
            self.abort(AbortReason::TooLong, None, out);
        }
        is_too_long
    }

    /// The frame is told, and the rules would go on.
    fn end_of_frame(&mut self, rules: &mut Supervisor, out: &mut dyn FnMut(Departure<'_>)) {
        if self.left_in_room() == 0 {
            self.abort(AbortReason::EveryoneLeft, None, out);
            return;
        }
        if self.end_if_too_long(out) {
            return;
        }
        let Some(Checkpointed { end, retried }) = rules.checkpoint_if_due() else { return };
        let next_frame = self.next_frame;
        if let Some(fault) = retried {
            self.tell_retried(next_frame.saturating_sub(1), &fault, &**rules.program(), out);
        }
        match end {
            CheckpointEnd::Taken { kept } => {
                if kept.is_some() {
                    out(Departure::RulesKept { next_frame });
                }
                let checkpoint = rules.checkpoint();
                let (state_version, state) = (checkpoint.state_version, checkpoint.state.as_slice());
                out(Departure::Checkpoint { next_frame, state_version, state });
                if let Some((since_frame, early)) = kept {
                    let module = payloads::ModuleNamed::of(&**rules.program());
                    let kept = payloads::RulesKept { frame: next_frame, since_frame, module, early };
                    self.tell_internal("room.rules_kept", kept, out);
                }
            }
            CheckpointEnd::RolledBack(rollback) => {
                self.tell_rolled_back(&rollback, rules, out);
                self.end_by_rerun(Some(&rollback), out);
            }
            CheckpointEnd::Failed(fault) => self.abort(AbortReason::RulesFault, Some(&fault), out),
        }
    }

    /// Ends the match if the former rules ended it while they were brought to where the room is.
    fn end_by_rerun(&mut self, rollback: Option<&Rollback>, out: &mut dyn FnMut(Departure<'_>)) {
        match rollback.map(|rollback| &rollback.rerun) {
            Some(Rerun::Finished { frame, results }) => self.finish(*frame, results, out),
            Some(Rerun::Failed(fault)) => self.abort(AbortReason::RulesFault, Some(fault), out),
            Some(Rerun::Whole) | None => {}
        }
    }

    fn tell_retried(&mut self, frame: u32, fault: &Fault, program: &dyn Program, out: &mut dyn FnMut(Departure<'_>)) {
        self.counters.retries += 1;
        out(Departure::RulesRetried { frame, fault });
        let module = payloads::ModuleNamed::of(program);
        let retried = payloads::RulesRetried { frame, module, fault: fault.kind.as_str(), message: &fault.message };
        self.tell_internal("room.rules_retried", retried, out);
    }

    fn tell_rolled_back(&mut self, rollback: &Rollback, rules: &Supervisor, out: &mut dyn FnMut(Departure<'_>)) {
        let to = &**rules.program();
        self.replace_manifest(to.manifest());
        self.counters.rollbacks += 1;
        let Rollback { since_frame, frame, failed, fault, output_crcs, void, .. } = rollback;
        out(Departure::RulesRolledBack {
            since_frame: *since_frame,
            frame: *frame,
            failed: &**failed,
            to,
            fault,
            void,
            output_crcs,
        });
        for event in &rollback.untold {
            let (frame, name, json) = (Some(event.frame), event.name.as_str(), event.json.as_str());
            if event.public {
                self.tell_public(name, frame, json, out);
            } else {
                out(Departure::InternalEvent { source: EventSource::Module, kind: name, frame, json });
            }
        }
        let told = payloads::RulesRolledBack {
            frame: *frame,
            since_frame: *since_frame,
            module: payloads::ModuleNamed::of(to),
            failed: payloads::ModuleNamed::of(&**failed),
            reason: fault.kind.as_str(),
            void,
            untold: rollback.untold_dropped,
        };
        self.tell_public("rules_rolled_back", None, &payloads::text(&told), out);
        let void_internal = rollback.void_internal.iter();
        let void_internal = void_internal.map(|(frame, name)| payloads::VoidEvent { frame: *frame, name }).collect();
        let record = payloads::RulesRolledBackRecord {
            told,
            message: &fault.message,
            backtrace: fault.backtrace.as_deref(),
            void_internal,
        };
        self.tell_internal("room.rules_rolled_back", record, out);
    }
}

/// The snapshots in an output record that are for one player each, by slot.
#[inline(never)]
fn own_snapshots(output: &[u8]) -> [Option<&[u8]>; PLAYERS_MAX] {
    let mut own = [None; PLAYERS_MAX];
    for item in output::items(output) {
        if let Item::Snapshot { player, bytes } = item
            && let Some(place) = own.get_mut(usize::from(player))
        {
            *place = Some(bytes);
        }
    }
    own
}
