//! Runs a journal again: under the modules that it was run under, to prove it byte for byte, or under another one, to see what that would
//! have made of it.

use std::sync::Arc;

use super::reader::{Entries, Entry, Journal, Recorded};
use crate::output;
use crate::records::{Checkpoint, Records};
use crate::rules::{BeginError, Fault, FaultKind, Program, RestoreError, Rules, Usage};
use crate::supervisor::RECORDS_BYTES_MAX;
use crate::trial::saved;

/// Bytes of tick records since a checkpoint that a replay keeps: twice what a room keeps, which may have one record too many. Of a journal with more, which
/// no room wrote, frames are run on in the same instance.
const RECORDS_KEPT_BYTES_MAX: usize = 2 * RECORDS_BYTES_MAX;

/// Why a journal cannot be run on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A module that the room ran under is not at hand.
    #[error("the module {} is not at hand", hex(hash))]
    NoModule {
        /// Its hash.
        hash: [u8; 32],
    },
    /// The module does not begin.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// The module does not take over the state of the one before, or its own.
    #[error("before frame {next_frame}, where a fresh instance takes over: {error}")]
    Restore {
        /// The first frame that the state has not seen.
        next_frame: u32,
        /// What it says.
        error: RestoreError,
    },
    /// The rules failed where they had not.
    #[error("in frame {frame}: {fault}")]
    Fault {
        /// The frame.
        frame: u32,
        /// How.
        fault: Fault,
    },
    /// The rules could not save.
    #[error("the state before frame {next_frame} cannot be saved: {fault}")]
    Save {
        /// The frame that comes next.
        next_frame: u32,
        /// How.
        fault: Fault,
    },
}

/// The first thing that is not as the journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The output of a frame.
    Output {
        /// The frame.
        frame: u32,
    },
    /// The state before a frame; those of all earlier checkpoints, and all outputs before, were equal.
    State {
        /// The first frame that the state has not seen.
        next_frame: u32,
        /// The state that was recorded, if it is part of the journal, and its version.
        recorded: Option<(u32, Vec<u8>)>,
        /// The state now.
        found: Vec<u8>,
    },
    /// The rules had failed in a frame, in the same way each time, and do not now.
    NoFault {
        /// The frame.
        frame: u32,
    },
    /// The game was finished in a frame, and was not when it was recorded, or the other way around.
    End {
        /// The frame.
        frame: u32,
    },
}

impl Difference {
    /// The frame in which it shows.
    #[must_use]
    pub const fn frame(&self) -> u32 {
        match self {
            Self::Output { frame } | Self::NoFault { frame } | Self::End { frame } => *frame,
            Self::State { next_frame, .. } => next_frame.saturating_sub(1),
        }
    }
}

/// Finds a module by its hash, with the setup of the journal's room.
pub type FindProgram<'a> = dyn FnMut(&[u8; 32]) -> Option<Arc<dyn Program>> + 'a;

/// A frame that was run again.
#[derive(Debug, Clone, Copy)]
pub struct Replayed<'a> {
    /// Its number.
    pub frame: u32,
    /// The tick record.
    pub record: &'a [u8],
    /// What became of it now.
    pub ran: ReplayedAs<'a>,
}

/// What became of a frame that was run again.
#[derive(Debug, Clone, Copy)]
pub enum ReplayedAs<'a> {
    /// It was stepped.
    Stepped {
        /// The output record, checked.
        output: &'a [u8],
        /// What it took.
        usage: Usage,
    },
    /// The rules had taken too long in it, and were not called.
    Skipped,
    /// The rules failed, as they had; nothing follows.
    Faulted,
}

/// Runs a journal again, frame by frame. A rollback never shows: frames are run under the rules that count in the end.
///
/// Where the room went on in a fresh instance (a retry, a skipped frame, a rollback), so does a replay that proves: rules that leak memory, or remember
/// what their state does not hold, give the same bytes only then.
pub struct Replayer<'a> {
    journal: &'a Journal,
    entries: Entries<'a>,
    programs: Vec<Arc<dyn Program>>,
    program: Arc<dyn Program>,
    rules: Box<dyn Rules + Send>,
    /// Whether what was recorded is compared, and swaps are followed.
    proves: bool,
    /// The part undone by a rollback that was last seen, and its stepped frames so far.
    undone: Option<(usize, usize)>,
    /// The last state that counts, and the records of the stepped frames since. None if they became too many, and where nothing is proved.
    checkpoint: Option<Checkpoint>,
    records: Records,
    next_frame: u32,
    record: Vec<u8>,
    output: Vec<u8>,
    difference: Option<Difference>,
    states_compared: u64,
    over: bool,
}

impl std::fmt::Debug for Replayer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replayer")
            .field("program", &self.program)
            .field("next_frame", &self.next_frame)
            .field("difference", &self.difference)
            .finish_non_exhaustive()
    }
}

impl<'a> Replayer<'a> {
    /// A replay that proves a journal. `programs` finds the modules that the room ran under by their hash, with the room's setup; it is asked for each
    /// once.
    ///
    /// # Errors
    /// A module is missing, or the first one does not begin.
    pub fn new(journal: &'a Journal, programs: &mut FindProgram<'_>) -> Result<Self, ReplayError> {
        let mut found: Vec<Arc<dyn Program>> = Vec::new();
        let in_effect = journal.swaps().iter().filter(|swap| !swap.rolled_back).map(|swap| &swap.to);
        for hash in std::iter::once(&journal.header().module).chain(in_effect) {
            if !found.iter().any(|program| program.hash() == *hash) {
                found.push(programs(hash).ok_or(ReplayError::NoModule { hash: *hash })?);
            }
        }
        let first = found.first().cloned().ok_or(ReplayError::NoModule { hash: journal.header().module })?;
        Self::begin(journal, first, found, true)
    }

    /// A replay under another module, from frame 0 on: nothing is compared, and swaps are passed over.
    ///
    /// # Errors
    /// The module does not begin.
    pub fn under(journal: &'a Journal, program: Arc<dyn Program>) -> Result<Self, ReplayError> {
        Self::begin(journal, program, Vec::new(), false)
    }

    fn begin(
        journal: &'a Journal,
        program: Arc<dyn Program>,
        programs: Vec<Arc<dyn Program>>,
        proves: bool,
    ) -> Result<Self, ReplayError> {
        let mut rules = program.begin()?;
        let mut checkpoint = None;
        if proves {
            // A room's first checkpoint is taken before frame 0; saving must not change anything, and here it shows if it does.
            let state = saved(&mut *rules).map_err(|fault| ReplayError::Save { next_frame: 0, fault })?;
            checkpoint = Some(Checkpoint { next_frame: 0, state_version: program.manifest().state_version, state });
        }
        Ok(Self {
            journal,
            entries: journal.entries(),
            programs,
            rules,
            program,
            proves,
            undone: None,
            checkpoint,
            records: Records::default(),
            next_frame: 0,
            record: Vec::new(),
            output: Vec::new(),
            difference: None,
            states_compared: 0,
            over: false,
        })
    }

    /// Runs the next frame; none at the end.
    ///
    /// # Errors
    /// What keeps the replay from going on. There is no next frame then.
    pub fn step(&mut self) -> Result<Option<Replayed<'_>>, ReplayError> {
        while !self.over {
            let Some((at, entry)) = self.entries.next_at() else { break };
            let undone = self.journal.undone(at);
            match entry {
                Entry::Frame { frame, record, ran } => {
                    let crc = match (ran, undone) {
                        (Recorded::Stepped(crc), None) => Some(crc),
                        (Recorded::Stepped(_), Some((part, crcs))) => {
                            let seen = match self.undone {
                                Some((last, seen)) if last == part => seen,
                                _ => 0,
                            };
                            self.undone = Some((part, seen + 1));
                            match crcs.get(seen) {
                                Some(crc) => Some(*crc),
                                // The former rules had ended the game before it.
                                None => break,
                            }
                        }
                        _ => None,
                    };
                    self.next_frame = frame.saturating_add(1);
                    self.record.clear();
                    self.record.extend_from_slice(record);
                    if self.proves && matches!(ran, Recorded::Skipped(_)) {
                        self.rebuild()?;
                    }
                    return self.step_frame(frame, ran, crc).map(Some);
                }
                Entry::Checkpoint { next_frame, state_version, hash, state } if self.proves && undone.is_none() => {
                    if next_frame != self.next_frame || self.difference.is_some() {
                        continue;
                    }
                    let found = saved(&mut *self.rules).map_err(|fault| {
                        self.over = true;
                        ReplayError::Save { next_frame, fault }
                    })?;
                    self.states_compared += 1;
                    if *blake3::hash(&found).as_bytes() != hash {
                        let recorded = state.map(|state| (state_version, state.to_vec()));
                        self.difference = Some(Difference::State { next_frame, recorded, found });
                    } else {
                        self.records.clear();
                        let state_version = self.program.manifest().state_version;
                        self.checkpoint = Some(Checkpoint { next_frame, state_version, state: found });
                    }
                }
                // That of a frame is told before the frame, that of a checkpoint before the checkpoint.
                Entry::Retried { .. } if self.proves => self.rebuild()?,
                // Rolled back later: the former rules went on from the state that was saved here.
                Entry::Swapped { .. } if self.proves && undone.is_some() => self.rebuild()?,
                Entry::Swapped { next_frame, to, .. } if self.proves && undone.is_none() => {
                    self.swap(next_frame, &to)?;
                }
                Entry::Ended { reason: None, .. } if self.proves => {
                    // Rules that finish end the replay before this.
                    self.difference.get_or_insert(Difference::End { frame: self.next_frame.saturating_sub(1) });
                    break;
                }
                _ => {}
            }
        }
        self.over = true;
        Ok(None)
    }

    /// The state after the frame that was stepped last, and its version.
    ///
    /// # Errors
    /// The rules fail; nothing can be stepped then.
    pub fn save(&mut self) -> Result<(u32, Vec<u8>), ReplayError> {
        let next_frame = self.next_frame;
        let state = saved(&mut *self.rules).map_err(|fault| {
            self.over = true;
            ReplayError::Save { next_frame, fault }
        })?;
        Ok((self.program.manifest().state_version, state))
    }

    /// The first thing that is not as the journal says, as far as it was run.
    #[must_use]
    pub const fn difference(&self) -> Option<&Difference> {
        self.difference.as_ref()
    }

    /// The module that runs now.
    #[must_use]
    pub const fn program(&self) -> &Arc<dyn Program> {
        &self.program
    }

    /// The frame that comes next.
    #[must_use]
    pub const fn next_frame(&self) -> u32 {
        self.next_frame
    }

    /// How many states were compared with the journal's.
    #[must_use]
    pub const fn states_compared(&self) -> u64 {
        self.states_compared
    }

    fn step_frame(&mut self, frame: u32, ran: Recorded, crc: Option<u32>) -> Result<Replayed<'_>, ReplayError> {
        let record = self.record.as_slice();
        let faulted = match ran {
            Recorded::Skipped(_) => return Ok(Replayed { frame, record, ran: ReplayedAs::Skipped }),
            Recorded::Faulted(kind) => Some(kind),
            Recorded::Stepped(_) => None,
        };
        let players = self.journal.setup().players.len();
        let result = self.rules.tick(record).and_then(|output| match output::check(output, players) {
            Ok(()) => Ok(output),
            Err(problem) => Err(output::bad(frame, &problem)),
        });
        let output = match result {
            Ok(output) => output,
            Err(fault) => {
                self.over = true;
                return if self.proves && faulted.is_some() {
                    Ok(Replayed { frame, record, ran: ReplayedAs::Faulted })
                } else {
                    Err(ReplayError::Fault { frame, fault })
                };
            }
        };
        self.output.clear();
        self.output.extend_from_slice(output);
        if self.checkpoint.is_some() {
            self.records.push(frame, record, 0);
            if self.records.bytes() > RECORDS_KEPT_BYTES_MAX {
                self.checkpoint = None;
                self.records.clear();
            }
        }
        let finished = output::results(&self.output).is_some();
        if self.proves {
            let difference = match (faulted, crc) {
                // These are the machine's, not the rules'.
                (Some(FaultKind::DeadlineExceeded | FaultKind::NoInstance), _) => None,
                (Some(_), _) => Some(Difference::NoFault { frame }),
                (None, Some(crc)) if crc32fast::hash(&self.output) != crc => Some(Difference::Output { frame }),
                _ => None,
            };
            if self.difference.is_none() {
                self.difference = difference;
            }
        }
        self.over = finished || (self.proves && faulted.is_some());
        let usage = self.rules.usage();
        Ok(Replayed { frame, record: &self.record, ran: ReplayedAs::Stepped { output: &self.output, usage } })
    }

    /// Goes on in a fresh instance, as the room did: from the last checkpoint, with the records since.
    fn rebuild(&mut self) -> Result<(), ReplayError> {
        let Some(Checkpoint { next_frame, state_version, state }) = &self.checkpoint else { return Ok(()) };
        let next_frame = *next_frame;
        self.over = true;
        let mut rules = self.program.begin()?;
        rules.restore(*state_version, state).map_err(|error| ReplayError::Restore { next_frame, error })?;
        for (frame, record) in self.records.iter() {
            rules.tick(record).map_err(|fault| ReplayError::Fault { frame, fault })?;
        }
        self.rules = rules;
        self.over = false;
        Ok(())
    }

    fn swap(&mut self, next_frame: u32, to: &[u8; 32]) -> Result<(), ReplayError> {
        let (state_version, state) = self.save()?;
        self.over = true;
        let program = self.programs.iter().find(|program| program.hash() == *to);
        let program = Arc::clone(program.ok_or(ReplayError::NoModule { hash: *to })?);
        let mut rules = program.begin()?;
        rules.restore(state_version, &state).map_err(|error| ReplayError::Restore { next_frame, error })?;
        self.rules = rules;
        self.program = program;
        self.over = false;
        Ok(())
    }
}

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
