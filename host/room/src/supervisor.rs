//! Runs the rules of one room so that a failure can be undone: checkpoints, the records since, and what is done when rules fail. What
//! players and journals are told of it is the room's affair; the trial of new rules and the comparison after a rollback have files of their own.

use std::fmt;
use std::sync::Arc;

use crate::output;
use crate::records::{Checkpoint, Records};
use crate::rollback::{Comparison, Probationary, Rerun, Rollback};
use crate::rules::{BeginError, Fault, FaultKind, Program, Rules, Usage};
use crate::trial::{Candidate, SwapRefusal, SwapRefusalKind, Trial, saved};
use crate::warm::{Ask, AskMany, ask_for};

/// How often a room's only rules may fail and be run again. A fault that does not come again is the machine's, or that of rules which break
/// determinism; after eight of them neither is to be trusted with a race.
pub const RETRIES_MAX: u32 = 8;

/// Bytes of tick records between two checkpoints. As much as a state may have: what one room may keep for its safety, beside its rules.
pub const RECORDS_BYTES_MAX: usize = 1 << 20;

/// How a room's rules are supervised. [`Default`] gives the constants below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supervision {
    /// Frames between two checkpoints; 0 counts as 1.
    pub checkpoint_frames: u32,
    /// Frames that new rules are on probation; 0: they are not.
    pub probation_frames: u32,
    /// How many frames in a row may overrun; the last of them ends the room. 0 counts as 1.
    pub overruns_max: u32,
    /// Fuel that running the records since a checkpoint again may cost. Where nobody counts fuel this says nothing.
    pub replay_fuel_max: u64,
}

impl Supervision {
    /// Fifty frames, a second at 50 Hz: saving costs as much as some ticks, running fifty ticks again less than one tick lasts.
    pub const CHECKPOINT_FRAMES: u32 = 50;
    /// 150 frames, three seconds at 50 Hz: mistakes in new rules mostly show in the first frames. All of it can be run again within a tick.
    pub const PROBATION_FRAMES: u32 = 150;
    /// Five frames in a row, 100 ms at 50 Hz: as long as a player takes for a hiccup. Each also costs the host a whole budget.
    pub const OVERRUNS_MAX: u32 = 5;
    /// Forty million, about 10 ms on a server's core: half a tick at 50 Hz, so that the frame that failed can still be in time.
    pub const REPLAY_FUEL_MAX: u64 = 40_000_000;
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            checkpoint_frames: Self::CHECKPOINT_FRAMES,
            probation_frames: Self::PROBATION_FRAMES,
            overruns_max: Self::OVERRUNS_MAX,
            replay_fuel_max: Self::REPLAY_FUEL_MAX,
        }
    }
}

/// New rules that can still be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probation {
    /// Hash of the module before.
    pub former: [u8; 32],
    /// The first frame of the new rules.
    pub since_frame: u32,
    /// The probation is over when this frame comes next, or earlier.
    pub ends_frame: u32,
}

/// The rules of one room, and what it takes to undo their failure: the state at the last checkpoint and the tick records since.
///
/// A *fault* is any [`Fault`] of the rules, a bad output included; an *overrun* is one that says they took too long
/// ([`FaultKind::is_overrun`]). Rules that failed are never called again: going back means a fresh instance that takes the checkpoint over and
/// runs the records since.
///
/// # Policy
///
/// | what happens | what is done | what players see |
/// | --- | --- | --- |
/// | `checkpoint_frames` since the last checkpoint, or running the records since again would cost more than `replay_fuel_max`, or they have more than [`RECORDS_BYTES_MAX`] | after the frame the state is saved; the records before it are dropped | nothing |
/// | a fault, no probation | the same module goes back and runs the frame once more ("retry"), at most [`RETRIES_MAX`] times in a room | nothing, if it succeeds |
/// | … and it fails again | the room ends: `rules_fault`; but if it is an overrun now, the frame is skipped as below | `aborted` |
/// | an overrun, no probation | the same module goes back to before the frame, and the frame is *skipped*: the module never sees it. Its joins, leaves and actions are in the next record, its inputs are lost | the snapshots of the frame before once more, under the new frame number |
/// | … the `overruns_max`th in a row | the room ends: `rules_fault` | `aborted` |
/// | going back after an overrun fails | likewise | `aborted` |
/// | saving for a checkpoint fails | as a fault: the module goes back, runs to where it was, and saves once more | nothing, or `aborted` |
/// | a retry, or a skipped frame | the next frame that is stepped is followed by a checkpoint, so that what comes next is cheap to undo | nothing |
/// | new rules take over | the state that the former ones saved is the checkpoint of a probation of `probation_frames` frames; it and all records since stay | `rules_swapped` |
/// | they take over from rules that have not yet run a frame of their own probation | the probation begins anew; the rules before both, and their checkpoint, stay | `rules_swapped` |
/// | any fault or overrun on probation | the *former* module goes back to the checkpoint, runs every frame since, and the one that failed, at once ("rollback"); it is the room's only rules again | what only the former rules tell; then `rules_rolled_back`, which names the events that only the failed ones told; the frame's snapshot as always |
/// | … the former module finishes the game on the way | the game is finished with those results, in that frame. Actions that were answered since stay answered | `finished` |
/// | … the former module fails on the way | it goes back and tries once more; failing again ends the room | `rules_rolled_back`, `aborted` |
/// | … the former module fails in the frame in which the new one failed | as without probation: retry or skip | as there |
/// | the probation is over; or running it again would cost more than `replay_fuel_max`, or it has [`RECORDS_BYTES_MAX`] of records or [`PROBATION_EVENTS_MAX`](crate::PROBATION_EVENTS_MAX) events (then it is over early) | the new rules save; if they can, they are the room's only rules. If they cannot, that is a fault on probation | nothing |
/// | the room ends on probation | the new rules are not undone: their results stand | as always |
/// | the state has more than `STATE_BYTES_MAX` bytes | saving it is a fault (`bad_output`) | as for the fault |
///
/// Everything but the swap itself is decided by the rules and their records, so a journal can follow it. The exceptions are faults that are
/// the machine's: `deadline_exceeded`, `no_instance`, and a fault that does not come again.
pub struct Supervisor {
    program: Arc<dyn Program>,
    settings: Supervision,
    players: usize,
    /// None once it failed, until a fresh one is where it was.
    instance: Option<Box<dyn Rules + Send>>,
    /// Why there is none.
    lost: Option<Fault>,
    checkpoint: Checkpoint,
    records: Records,
    /// The first frame that was neither stepped nor skipped.
    next_frame: u32,
    /// A checkpoint is due after the next frame, whatever the count says.
    checkpoint_asked: bool,
    retries: u32,
    /// Frames in a row that were skipped, up to now, no matter under which rules: that is how long the players wait.
    overruns: u32,
    probation: Option<Box<Probationary>>,
    /// The output record of the last frame that was stepped.
    output: Vec<u8>,
    usage: Usage,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("program", &self.program)
            .field("settings", &self.settings)
            .field("next_frame", &self.next_frame)
            .field("checkpoint_frame", &self.checkpoint.next_frame)
            .field("probation", &self.probation)
            .finish_non_exhaustive()
    }
}

/// What became of a frame.
#[derive(Debug)]
pub(crate) struct Ticked {
    pub(crate) end: TickEnd,
    /// The fault that did not come again.
    pub(crate) retried: Option<Fault>,
    pub(crate) rolled_back: Option<Box<Rollback>>,
}

#[derive(Debug)]
pub(crate) enum TickEnd {
    Stepped,
    Skipped(Fault),
    Faulted(Fault),
    /// The former rules ended the game before this frame, one way or the other.
    Over,
}

impl From<TickEnd> for Ticked {
    fn from(end: TickEnd) -> Self {
        Self { end, retried: None, rolled_back: None }
    }
}

/// What became of a checkpoint that was due.
#[derive(Debug)]
pub(crate) struct Checkpointed {
    pub(crate) end: CheckpointEnd,
    /// The fault that did not come again.
    pub(crate) retried: Option<Fault>,
}

#[derive(Debug)]
pub(crate) enum CheckpointEnd {
    /// The state was saved.
    Taken {
        /// The probation that this ends: its first frame, and whether it ends early.
        kept: Option<(u32, bool)>,
    },
    /// The rules on probation could not save.
    RolledBack(Box<Rollback>),
    /// The only rules could not save.
    Failed(Fault),
}

/// How rules were replaced.
#[derive(Debug)]
pub(crate) struct Replaced {
    pub(crate) from: Arc<dyn Program>,
    pub(crate) state_version: u32,
    pub(crate) state: Vec<u8>,
}

impl Supervisor {
    /// Begins the rules of a room and takes the first checkpoint, before frame 0.
    ///
    /// # Errors
    /// The rules do not begin, or cannot save what they begin with.
    pub fn begin(program: Arc<dyn Program>, settings: Supervision) -> Result<Self, BeginError> {
        let mut instance = program.begin()?;
        let state = saved(&mut *instance).map_err(BeginError::Fault)?;
        let state_version = program.manifest().state_version;
        Ok(Self {
            players: program.setup().players.len(),
            program,
            settings,
            instance: Some(instance),
            lost: None,
            checkpoint: Checkpoint { next_frame: 0, state_version, state },
            records: Records::default(),
            next_frame: 0,
            checkpoint_asked: false,
            retries: 0,
            overruns: 0,
            probation: None,
            output: Vec::new(),
            usage: Usage::default(),
        })
    }

    /// The module that the room has now.
    #[must_use]
    pub const fn program(&self) -> &Arc<dyn Program> {
        &self.program
    }

    /// The settings.
    #[must_use]
    pub const fn settings(&self) -> &Supervision {
        &self.settings
    }

    /// The probation that the room's module is on, if it is on one.
    #[must_use]
    pub fn probation(&self) -> Option<Probation> {
        let probation = self.probation.as_ref()?;
        Some(Probation {
            former: probation.former.hash(),
            since_frame: probation.since_frame,
            ends_frame: probation.ends_frame,
        })
    }

    /// What the frame that was stepped last used.
    #[must_use]
    pub const fn usage(&self) -> Usage {
        self.usage
    }

    /// The part of the rules in [`Room::warm`](crate::Room::warm).
    pub(crate) fn warm(&self, ask: impl Ask) {
        if let Some(instance) = &self.instance {
            ask_for(&**instance, ask);
        }
        ask_for(self.output.as_slice(), ask);
        self.records.warm(ask);
    }

    /// Asks for what is behind the rules' own pointers, once the rules themselves are there: after [`Room::warm`](crate::Room::warm), and first for their
    /// pages, see [`Rules::warm_pages`].
    pub fn warm_pages_of_rules(&self, ask: AskMany) {
        if let Some(instance) = &self.instance {
            instance.warm_pages(ask);
        }
    }

    /// Asks for the rest of it: after [`warm_pages_of_rules`](Supervisor::warm_pages_of_rules).
    pub fn warm_rules(&self, ask: AskMany) {
        if let Some(instance) = &self.instance {
            instance.warm(ask);
        }
    }

    /// Reads what cannot be asked for: after [`warm_rules`](Supervisor::warm_rules), see [`Rules::touch`].
    pub fn touch_rules(&self) {
        if let Some(instance) = &self.instance {
            instance.touch();
        }
    }

    /// Copies what a trial of other rules needs: the checkpoint and the records since, up to 2 MiB, mostly a few KiB.
    #[must_use]
    pub fn trial(&self) -> Trial {
        Trial {
            program: Arc::clone(&self.program),
            checkpoint: self.checkpoint.clone(),
            records: self.records.clone(),
            next_frame: self.next_frame,
        }
    }

    /// Runs a frame, and does what the policy says if it fails.
    pub(crate) fn tick(&mut self, frame: u32, record: &[u8]) -> Ticked {
        self.next_frame = frame.saturating_add(1);
        match self.attempt(frame, record) {
            Ok(()) => {
                self.keep(frame, record);
                TickEnd::Stepped.into()
            }
            Err(fault) => self.recover(frame, record, fault),
        }
    }

    /// The output record of the last frame that was stepped, checked; to be given back with [`give_back`](Self::give_back).
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Takes the record back, which is needed if the next frame is skipped, and its memory.
    pub(crate) fn give_back(&mut self, output: Vec<u8>) {
        self.output = output;
    }

    /// Takes note of an event of the rules that was told, in case it has to be called void.
    pub(crate) fn told(&mut self, seq: Option<u64>, frame: u32, name: &str, json: &str) {
        if let Some(probation) = &mut self.probation {
            probation.note(seq, frame, name, json);
        }
    }

    /// Takes a checkpoint after a frame, if one is due.
    pub(crate) fn checkpoint_if_due(&mut self) -> Option<Checkpointed> {
        // Without an instance there is nothing to save; the next frame finds out.
        if self.records.is_empty() || self.instance.is_none() {
            return None;
        }
        let is_dear = self.rerun_fuel() > self.settings.replay_fuel_max || self.records.bytes() > RECORDS_BYTES_MAX;
        match &self.probation {
            None => {
                let frames = self.next_frame.saturating_sub(self.checkpoint.next_frame);
                let is_due = is_dear || self.checkpoint_asked || frames >= self.settings.checkpoint_frames;
                is_due.then(|| self.take_checkpoint())
            }
            Some(probation) => {
                let is_over = self.next_frame >= probation.ends_frame;
                let is_due = is_over || is_dear || probation.is_full();
                is_due.then(|| self.end_probation(!is_over))
            }
        }
    }

    /// The state at the last checkpoint.
    pub(crate) const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Replaces the rules between two frames.
    pub(crate) fn swap(&mut self, candidate: Candidate) -> Result<Replaced, SwapRefusal> {
        if candidate.program().setup() != self.program.setup() {
            // Its trial was of a room that is set up otherwise by now. Trying again is all that it takes, as on probation.
            let message = "the setup of the room has changed since the trial began; try again";
            return Err(SwapRefusal::new(SwapRefusalKind::OnProbation, message));
        }
        if self.probation.is_some() && !self.records.is_empty() {
            let message = "the rules of the room are on probation; try again when that is over";
            return Err(SwapRefusal::new(SwapRefusalKind::OnProbation, message));
        }
        let state = self.save().map_err(|fault| {
            let refusal = SwapRefusal::of_fault(fault, None);
            let message = format!("the rules of the room, not the new ones, could not save: {}", refusal.message);
            SwapRefusal { message, ..refusal }
        })?;
        let Candidate { program, mut instance } = candidate;
        let state_version = self.program.manifest().state_version;
        instance.restore(state_version, &state).map_err(SwapRefusal::of_restore)?;
        let from = std::mem::replace(&mut self.program, program);
        self.instance = Some(instance);
        let frames = self.settings.probation_frames;
        if let Some(probation) = self.probation.take() {
            // Nothing has run since: the rules before both are the ones that are known to work.
            let Probationary { former, former_tick_fuel, .. } = *probation;
            self.probation = Some(Box::new(Probationary::new(former, former_tick_fuel, self.next_frame, frames)));
        } else {
            let tick_fuel = self.usage.fuel.max(self.records.fuel().div_ceil(self.records.frames().max(1) as u64));
            self.checkpoint = Checkpoint { next_frame: self.next_frame, state_version, state: state.clone() };
            self.records.clear();
            self.checkpoint_asked = false;
            if frames > 0 {
                let probation = Probationary::new(Arc::clone(&from), tick_fuel, self.next_frame, frames);
                self.probation = Some(Box::new(probation));
            }
        }
        Ok(Replaced { from, state_version, state })
    }

    // Running.

    /// What running the records again will cost after one more frame. On probation it is the former rules that would be run: as dear as they were,
    /// or as the new ones are.
    fn rerun_fuel(&self) -> u64 {
        let own = self.records.fuel().saturating_add(self.usage.fuel);
        let former = self.probation.as_ref().map_or(0, |probation| {
            let frames = u64::try_from(self.records.frames()).unwrap_or(u64::MAX).saturating_add(1);
            probation.former_tick_fuel.saturating_mul(frames)
        });
        own.max(former)
    }

    /// Runs a frame once. After an error there is no instance.
    fn attempt(&mut self, frame: u32, record: &[u8]) -> Result<(), Fault> {
        let Some(instance) = &mut self.instance else {
            return Err(self.lost.clone().unwrap_or_else(|| Fault::new(FaultKind::Trap, "the rules failed earlier")));
        };
        let result = match instance.tick(record) {
            Ok(bytes) => match output::check(bytes, self.players) {
                Ok(()) => {
                    self.output.clear();
                    self.output.extend_from_slice(bytes);
                    Ok(())
                }
                Err(problem) => Err(output::bad(frame, &problem)),
            },
            Err(fault) => Err(fault),
        };
        match result {
            Ok(()) => {
                self.usage = instance.usage();
                Ok(())
            }
            Err(fault) => Err(self.lose(fault)),
        }
    }

    fn lose(&mut self, fault: Fault) -> Fault {
        self.instance = None;
        self.lost = Some(fault.clone());
        fault
    }

    fn save(&mut self) -> Result<Vec<u8>, Fault> {
        let Some(instance) = &mut self.instance else {
            return Err(self.lost.clone().unwrap_or_else(|| Fault::new(FaultKind::Trap, "the rules failed earlier")));
        };
        saved(&mut **instance).map_err(|fault| self.lose(fault))
    }

    fn keep(&mut self, frame: u32, record: &[u8]) {
        self.records.push(frame, record, self.usage.fuel);
        self.overruns = 0;
    }

    /// Brings a fresh instance to where the last one was before it failed. `see` gets frame and output of every frame on the way, and says
    /// whether to go on.
    fn rebuild(&mut self, mut see: impl FnMut(u32, &[u8], Usage) -> bool) -> Result<(), (Option<u32>, Fault)> {
        self.instance = None;
        let begun = self.program.begin().map_err(Fault::from).and_then(|mut instance| {
            instance.restore(self.checkpoint.state_version, &self.checkpoint.state)?;
            Ok(instance)
        });
        self.instance = Some(begun.map_err(|fault| (None, self.lose(fault)))?);
        // Taken out and put back: an attempt needs the rest of this.
        let records = std::mem::take(&mut self.records);
        let mut result = Ok(());
        for (frame, record) in records.iter() {
            result = self.attempt(frame, record).map_err(|fault| (Some(frame), fault));
            if result.is_err() || !see(frame, &self.output, self.usage) {
                break;
            }
        }
        self.records = records;
        result
    }

    // Failing.

    #[cold]
    fn recover(&mut self, frame: u32, record: &[u8], fault: Fault) -> Ticked {
        let Some(probation) = self.probation.take() else { return self.recover_alone(frame, record, fault) };
        let rollback = Box::new(self.roll_back(&probation, frame, fault));
        let ticked = match &rollback.rerun {
            Rerun::Finished { .. } | Rerun::Failed(_) => TickEnd::Over.into(),
            Rerun::Whole => match self.attempt(frame, record) {
                Ok(()) => {
                    self.keep(frame, record);
                    TickEnd::Stepped.into()
                }
                Err(fault) => self.recover_alone(frame, record, fault),
            },
        };
        Ticked { rolled_back: Some(rollback), ..ticked }
    }

    /// The policy for the room's only rules.
    fn recover_alone(&mut self, frame: u32, record: &[u8], fault: Fault) -> Ticked {
        if fault.kind.is_overrun() {
            return self.skip(fault).into();
        }
        if self.retries >= RETRIES_MAX {
            return TickEnd::Faulted(fault).into();
        }
        self.retries += 1;
        if let Err((_, second)) = self.rebuild(|_, _, _| true) {
            return TickEnd::Faulted(both(fault, &second)).into();
        }
        self.checkpoint_asked = true;
        let end = match self.attempt(frame, record) {
            Ok(()) => {
                self.keep(frame, record);
                TickEnd::Stepped
            }
            Err(second) if second.kind.is_overrun() => self.skip(second),
            Err(second) => return TickEnd::Faulted(both(fault, &second)).into(),
        };
        Ticked { end, retried: Some(fault), rolled_back: None }
    }

    /// Goes back to before a frame that took too long, unless too many in a row have.
    fn skip(&mut self, fault: Fault) -> TickEnd {
        self.overruns += 1;
        if self.overruns >= self.settings.overruns_max.max(1) {
            let message = format!("{} (the rules took too long {} times in a row)", fault.message, self.overruns);
            return TickEnd::Faulted(Fault { message, ..fault });
        }
        match self.rebuild(|_, _, _| true) {
            Ok(()) => {
                self.checkpoint_asked = true;
                TickEnd::Skipped(fault)
            }
            Err((_, second)) => TickEnd::Faulted(both(fault, &second)),
        }
    }

    /// Puts the former rules back and brings them to where the room is.
    fn roll_back(&mut self, probation: &Probationary, frame: u32, fault: Fault) -> Rollback {
        let failed = std::mem::replace(&mut self.program, Arc::clone(&probation.former));
        let mut comparison = Comparison::default();
        let (mut rerun, mut failed_in) = (Rerun::Whole, None);
        // Twice, because the room's former rules deserve what its only rules get.
        for _ in 0..2 {
            comparison = Comparison::of(probation);
            let (mut fuel, mut finished) = (0u64, None);
            let result = self.rebuild(|frame, output, usage| {
                fuel = fuel.saturating_add(usage.fuel);
                comparison.see(frame, output);
                finished = output::results(output).map(|results| (frame, results.to_owned()));
                finished.is_none()
            });
            self.records.set_fuel(fuel);
            (rerun, failed_in) = match (result, finished) {
                (Ok(()), Some((frame, results))) => (Rerun::Finished { frame, results }, None),
                (Ok(()), None) => (Rerun::Whole, None),
                (Err((frame, second)), _) => {
                    // Where nothing was run, nothing is known.
                    let frame = frame.unwrap_or(probation.since_frame);
                    let message = format!("{}; before, the new rules had failed: {}", second.message, fault.message);
                    (Rerun::Failed(Fault { message, ..second }), Some(frame))
                }
            };
            if failed_in.is_none() {
                break;
            }
        }
        comparison.finish(probation.since_frame, frame, failed, fault, rerun, failed_in)
    }

    fn take_checkpoint(&mut self) -> Checkpointed {
        let fault = match self.save() {
            Ok(state) => {
                self.set_checkpoint(state);
                return Checkpointed { end: CheckpointEnd::Taken { kept: None }, retried: None };
            }
            Err(fault) => fault,
        };
        if self.retries >= RETRIES_MAX {
            return Checkpointed { end: CheckpointEnd::Failed(fault), retried: None };
        }
        self.retries += 1;
        let again = self.rebuild(|_, _, _| true).map_err(|(_, fault)| fault);
        match again.and_then(|()| self.save()) {
            Ok(state) => {
                self.set_checkpoint(state);
                Checkpointed { end: CheckpointEnd::Taken { kept: None }, retried: Some(fault) }
            }
            Err(second) => Checkpointed { end: CheckpointEnd::Failed(both(fault, &second)), retried: None },
        }
    }

    fn end_probation(&mut self, early: bool) -> Checkpointed {
        let saved = self.save();
        let Some(probation) = self.probation.take() else { return self.take_checkpoint() };
        let end = match saved {
            Ok(state) => {
                self.set_checkpoint(state);
                CheckpointEnd::Taken { kept: Some((probation.since_frame, early)) }
            }
            Err(fault) => {
                let frame = self.next_frame.saturating_sub(1);
                CheckpointEnd::RolledBack(Box::new(self.roll_back(&probation, frame, fault)))
            }
        };
        Checkpointed { end, retried: None }
    }

    fn set_checkpoint(&mut self, state: Vec<u8>) {
        let state_version = self.program.manifest().state_version;
        self.checkpoint = Checkpoint { next_frame: self.next_frame, state_version, state };
        self.records.clear();
        self.checkpoint_asked = false;
    }
}

/// A fault that could not be undone. Mostly it just came again; if not, both are told.
fn both(first: Fault, second: &Fault) -> Fault {
    if first.message == second.message {
        return first;
    }
    let message = format!("{}; and when it was tried again: {second}", first.message);
    Fault { message, ..first }
}
