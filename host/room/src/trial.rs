//! The trial of a module before it takes a room over: it re-runs the room's last frames on copies, away from the room. And why a
//! module may not take over. How it does is the supervisor's and the room's affair.

use std::fmt;
use std::sync::Arc;

use holeshot_abi::{Change, ChangeKind, InputStatus, Manifest, PlayerInput, STATE_BYTES_MAX, TickReader, TickRecord};

use crate::output;
use crate::records::{Checkpoint, Records};
use crate::rules::{BeginError, Fault, FaultKind, Program, RestoreError, Rules};

/// Frames that a trial runs beyond the recorded ones, with the last inputs repeated: half a second at 50 Hz, long enough for what goes
/// wrong right after the swap, short enough to be run in a moment.
pub const TRIAL_FRAMES_BEYOND: u32 = 25;

/// Instances of a candidate at a time, from the begin of its trial to the swap.
pub const INSTANCES_PER_CANDIDATE_MAX: u32 = 1;

/// Everything that a trial needs, copied out of a room: it can be run on any thread, for several candidates.
#[derive(Debug, Clone)]
pub struct Trial {
    pub(crate) program: Arc<dyn Program>,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) records: Records,
    /// The first frame that the room has not stepped.
    pub(crate) next_frame: u32,
}

/// A module that has passed its trial, with an instance that was just begun. For [`Room::swap`](crate::Room::swap) of the room that
/// the trial was of.
pub struct Candidate {
    pub(crate) program: Arc<dyn Program>,
    pub(crate) instance: Box<dyn Rules + Send>,
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate").field("program", &self.program).finish_non_exhaustive()
    }
}

impl Candidate {
    /// The module.
    #[must_use]
    pub const fn program(&self) -> &Arc<dyn Program> {
        &self.program
    }
}

/// Why a module does not take a room over. The room goes on as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}{}: {message}", frame.map(|frame| format!(" in frame {frame}")).unwrap_or_default())]
pub struct SwapRefusal {
    /// The kind, for records.
    pub kind: SwapRefusalKind,
    /// The frame in which it failed its trial, if it did in one.
    pub frame: Option<u32>,
    /// What happened, for the person who wrote the rules.
    pub message: String,
    /// Where in the rules it happened, if that is known.
    pub backtrace: Option<String>,
}

/// The kinds of [`SwapRefusal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SwapRefusalKind {
    /// Its manifest differs in what a running room cannot change: `name`, `tick_hz`, `input_bytes_max`, `input_track_frames`; or it does not
    /// take that many players (before the start: as are left), or ends the game (`frames_max`) within its probation.
    Incompatible,
    /// It refuses the room's setup.
    SetupRefused,
    /// There was no instance for it.
    NoInstance,
    /// It does not take the state of the rules before.
    StateRefused,
    /// It saved a state, took it over in a fresh instance, and saved another one then or played on differently.
    StateDiffers,
    /// It failed.
    Fault(FaultKind),
    /// It used more fuel or time than a call may.
    Overrun,
    /// The match has ended.
    RoomOver,
    /// The rules that the room has now are on probation themselves.
    OnProbation,
}

impl SwapRefusalKind {
    /// The kind as a word for records: `incompatible`, `trap` …
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Incompatible => "incompatible",
            Self::SetupRefused => "setup_refused",
            Self::NoInstance => "no_instance",
            Self::StateRefused => "state_refused",
            Self::StateDiffers => "state_differs",
            Self::Fault(kind) => kind.as_str(),
            Self::Overrun => "overrun",
            Self::RoomOver => "room_over",
            Self::OnProbation => "on_probation",
        }
    }
}

impl fmt::Display for SwapRefusalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl SwapRefusal {
    pub(crate) fn new(kind: SwapRefusalKind, message: impl Into<String>) -> Self {
        Self { kind, frame: None, message: message.into(), backtrace: None }
    }

    pub(crate) fn of_fault(fault: Fault, frame: Option<u32>) -> Self {
        let kind = match fault.kind {
            kind if kind.is_overrun() => SwapRefusalKind::Overrun,
            FaultKind::NoInstance => SwapRefusalKind::NoInstance,
            kind => SwapRefusalKind::Fault(kind),
        };
        Self { kind, frame, message: fault.message, backtrace: fault.backtrace }
    }

    pub(crate) fn of_restore(error: RestoreError) -> Self {
        match error {
            RestoreError::Refused(text) => Self::new(SwapRefusalKind::StateRefused, text),
            RestoreError::Fault(fault) => Self::of_fault(fault, None),
        }
    }

    fn of_begin(error: BeginError) -> Self {
        match error {
            BeginError::Refused(text) => Self::new(SwapRefusalKind::SetupRefused, text),
            BeginError::Fault(fault) => Self::of_fault(fault, None),
            BeginError::NoInstance(text) => Self::new(SwapRefusalKind::NoInstance, text),
        }
    }
}

/// Whether rules with the manifest `to` may take over a room of `from` with so many players: in what a running room cannot change they must
/// be the same.
pub(crate) fn check_compatible(from: &Manifest, to: &Manifest, players: usize) -> Result<(), SwapRefusal> {
    let refuse = |message: String| Err(SwapRefusal::new(SwapRefusalKind::Incompatible, message));
    if from.name != to.name {
        return refuse(format!(
            "the room plays `{}`, the module is `{}`; it opens rooms of its own",
            from.name, to.name
        ));
    }
    let same = [
        ("tick_hz", from.tick_hz, to.tick_hz),
        ("input_bytes_max", from.input_bytes_max.into(), to.input_bytes_max.into()),
        ("input_track_frames", from.input_track_frames.into(), to.input_track_frames.into()),
    ];
    for (field, from, to) in same {
        if from != to {
            return refuse(format!(
                "`{field}` is {from} in the room and {to} in the module; only a new room can have another"
            ));
        }
    }
    if !(usize::from(to.players_min)..=usize::from(to.players_max)).contains(&players) {
        let (min, max) = (to.players_min, to.players_max);
        return refuse(format!("the room has {players} player slots, the module takes {min} to {max}"));
    }
    Ok(())
}

impl Trial {
    /// The module that the room has.
    #[must_use]
    pub const fn program(&self) -> &Arc<dyn Program> {
        &self.program
    }

    /// Tries a module: it takes over the room's last checkpoint, re-runs the recorded frames, saves its state, and runs [`TRIAL_FRAMES_BEYOND`] frames
    /// more, every output checked. A fresh instance takes that state over, and must save the same bytes, put out the same in the frames beyond, and be in
    /// the same state after them: only then can the supervisor undo what fails later.
    ///
    /// Takes as long as the frames take; not for a shard's thread. Never has more than [`INSTANCES_PER_CANDIDATE_MAX`] instances at a time.
    ///
    /// # Errors
    /// The first thing that went wrong.
    pub fn run(&self, candidate: Arc<dyn Program>) -> Result<Candidate, SwapRefusal> {
        let players = self.program.setup().players.len();
        check_compatible(self.program.manifest(), candidate.manifest(), players)?;
        let mut rules = candidate.begin().map_err(SwapRefusal::of_begin)?;
        rules.restore(self.checkpoint.state_version, &self.checkpoint.state).map_err(SwapRefusal::of_restore)?;
        let is_over = self.play(&mut *rules, players)?;
        let saved = save(&mut *rules)?;
        same_state(&saved, &save(&mut *rules)?, "saved twice in a row")?;
        let beyond = if is_over { Vec::new() } else { self.play_beyond(&mut *rules, players)? };
        let saved_beyond = save(&mut *rules)?;
        // See INSTANCES_PER_CANDIDATE_MAX: each may be all that the host has left.
        drop(rules);
        let mut again = candidate.begin().map_err(SwapRefusal::of_begin)?;
        again.restore(candidate.manifest().state_version, &saved).map_err(|error| {
            let refusal = SwapRefusal::of_restore(error);
            SwapRefusal { message: format!("of its own state: {}", refusal.message), ..refusal }
        })?;
        same_state(&saved, &save(&mut *again)?, "saved, restored and saved again")?;
        if !is_over {
            let beyond_again = self.play_beyond(&mut *again, players)?;
            if let Some(at) =
                (0..beyond.len().max(beyond_again.len())).find(|at| beyond.get(*at) != beyond_again.get(*at))
            {
                let frame = u32::try_from(at).map_or(u32::MAX, |at| self.next_frame.saturating_add(at));
                let message = "an instance that took over its own state puts out something else than the one that saved it; a state has to \
                               hold all that the rules remember";
                let refusal = SwapRefusal::new(SwapRefusalKind::StateDiffers, message);
                return Err(SwapRefusal { frame: Some(frame), ..refusal });
            }
        }
        same_state(&saved_beyond, &save(&mut *again)?, "restored and run on")?;
        drop(again);
        let instance = candidate.begin().map_err(SwapRefusal::of_begin)?;
        Ok(Candidate { program: candidate, instance })
    }

    /// Runs the recorded frames. True if the rules finished the game in one.
    fn play(&self, rules: &mut dyn Rules, players: usize) -> Result<bool, SwapRefusal> {
        for (frame, record) in self.records.iter() {
            if tick(rules, frame, record, players)?.is_over {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Runs the frames beyond, and gives the CRC-32 of each output. Rules that finish the game are done.
    fn play_beyond(&self, rules: &mut dyn Rules, players: usize) -> Result<Vec<u32>, SwapRefusal> {
        let last = self.records.iter().last().map_or(self.records.before(), |(_, record)| record);
        let mut record = TickRecord::default();
        let mut output_crcs = Vec::with_capacity(TRIAL_FRAMES_BEYOND as usize);
        for frame in self.next_frame..self.next_frame.saturating_add(TRIAL_FRAMES_BEYOND) {
            self.write_beyond(frame, last, players, &mut record);
            let tried = tick(rules, frame, record.bytes(), players)?;
            output_crcs.push(tried.output_crc);
            if tried.is_over {
                break;
            }
        }
        Ok(output_crcs)
    }

    /// A frame that never was: every player's last input again; in frame 0 everybody joins.
    fn write_beyond(&self, frame: u32, last: &[u8], players: usize, record: &mut TickRecord) {
        record.begin(frame, players, self.program.manifest().input_stride_bytes());
        if let Ok(last) = TickReader::read(last) {
            for (slot, input) in last.inputs().enumerate() {
                let age_frames = u32::from(input.age_frames).saturating_add(frame.saturating_sub(last.frame));
                let age_frames = u16::try_from(age_frames).unwrap_or(u16::MAX);
                if input.status != InputStatus::Absent {
                    record.set_input(slot, PlayerInput { status: InputStatus::Repeated, age_frames, ..input });
                }
            }
        }
        if frame == 0 {
            for player in 0..players.min(usize::from(u16::MAX)) as u16 {
                record.push_change(Change { player, kind: ChangeKind::Joined });
            }
        }
    }
}

/// A frame of a trial.
struct Tried {
    output_crc: u32,
    /// The rules finished the game in it.
    is_over: bool,
}

fn tick(rules: &mut dyn Rules, frame: u32, record: &[u8], players: usize) -> Result<Tried, SwapRefusal> {
    let output = rules.tick(record).map_err(|fault| SwapRefusal::of_fault(fault, Some(frame)))?;
    output::check(output, players)
        .map_err(|problem| SwapRefusal::of_fault(output::bad(frame, &problem), Some(frame)))?;
    Ok(Tried { output_crc: crc32fast::hash(output), is_over: output::results(output).is_some() })
}

/// Refuses rules whose state should be the same and is not.
fn same_state(saved: &[u8], other: &[u8], how: &str) -> Result<(), SwapRefusal> {
    if saved == other {
        return Ok(());
    }
    let at = saved.iter().zip(other).take_while(|(a, b)| a == b).count();
    let message = format!(
        "a state of {} bytes that was {how} has {} bytes, and differs from byte {at} on; a state has to hold all that the rules remember, and \
         nothing else",
        saved.len(),
        other.len()
    );
    Err(SwapRefusal::new(SwapRefusalKind::StateDiffers, message))
}

fn save(rules: &mut dyn Rules) -> Result<Vec<u8>, SwapRefusal> {
    saved(rules).map_err(|fault| SwapRefusal::of_fault(fault, None))
}

/// A state that a checkpoint may hold.
pub(crate) fn saved(rules: &mut dyn Rules) -> Result<Vec<u8>, Fault> {
    let state = rules.save()?;
    if state.len() > STATE_BYTES_MAX {
        let message = format!("the state has {} bytes; at most {STATE_BYTES_MAX} are kept", state.len());
        return Err(Fault::new(FaultKind::BadOutput, message));
    }
    Ok(state)
}
