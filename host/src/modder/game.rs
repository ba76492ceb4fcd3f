//! A game without a host: the room that a host runs, with the module that it would run, on a clock that only moves when it is told to. Who plays
//! what is the caller's affair.

use std::sync::Arc;

use holeshot_abi::{PlayerResult, Setup};
use holeshot_room::{
    AbortReason, Arrival, BeginError, Departure, Fault, Limits, OpenError, Outcome, Phase, Program, Ran, Room,
    RoomConfig, Supervision, Supervisor, Trial, Usage,
};
use serde_json::Value;

use crate::rules::{Module, RoomProgram};

/// An event that left the room.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    /// The frame that brought it about; none for one before frame 0, or one that follows from a connection.
    pub(super) frame: Option<u32>,
    pub(super) public: bool,
    pub(super) name: String,
    pub(super) data: Value,
}

/// How the game ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ending {
    Finished { frames: u32, results: Vec<PlayerResult<Value>> },
    Aborted { frames: u32, reason: AbortReason },
}

/// What left the room so far.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) events: Vec<Event>,
    /// Faults with the frame and what came of them; those that did not come again included.
    pub(super) faults: Vec<(u32, Fault, FaultEnd)>,
    pub(super) ending: Option<Ending>,
    /// What each player saw last: frame and bytes.
    pub(super) snapshots: Vec<Option<(u32, Vec<u8>)>>,
    /// The last saved state: the first frame that it has not seen, its version, its bytes.
    pub(super) checkpoint: Option<(u32, u32, Vec<u8>)>,
    /// What each frame used.
    pub(super) usages: Vec<Usage>,
}

/// What came of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultEnd {
    /// It did not come again when the frame was run once more.
    Retried,
    /// The frame was left out.
    Skipped,
    /// The game ended.
    Ended,
}

impl FaultEnd {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Retried => {
                "it did not come again when the frame was run once more: the rules do not do the same each time"
            }
            Self::Skipped => "a host leaves this frame out, and ends the room when there are several in a row",
            Self::Ended => "a host ends the room",
        }
    }
}

/// Why a game does not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum GameError {
    /// A host would not open a room like that.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The module does not begin, or cannot save what it begins with.
    #[error(transparent)]
    Begin(#[from] BeginError),
}

/// A room with its rules and its clock.
#[derive(Debug)]
pub(super) struct Game {
    room: Room,
    rules: Supervisor,
    program: Arc<RoomProgram>,
    now_us: u64,
    told: Told,
}

impl Game {
    /// A room of this module where every player is connected and ready. Frame 0 comes with the first [`step`](Game::step).
    pub(super) fn begin(module: &Arc<Module>, setup: Setup, supervision: Supervision) -> Result<Self, GameError> {
        let players = setup.players.len();
        let config = RoomConfig {
            id: "scenario".to_owned(),
            manifest: module.manifest().clone(),
            setup: setup.clone(),
            limits: Limits::default(),
        };
        let room = Room::open(config, 0)?;
        let program = Arc::new(RoomProgram::new(Arc::clone(module), Arc::new(setup), "scenario".into()));
        let rules = Supervisor::begin(Arc::clone(&program) as Arc<dyn Program>, supervision)?;
        let told = Told { snapshots: vec![None; players], ..Told::default() };
        let mut game = Self { room, rules, program, now_us: 0, told };
        for player in 0..game.players() {
            game.handle(Arrival::Connected { player });
        }
        game.run_room();
        for player in 0..game.players() {
            game.handle(Arrival::Ready { player });
        }
        let manifest = game.room.manifest();
        // Where there is a wait before frame 0 it begins now, and frame 0 can have inputs. Otherwise the next step runs it.
        if manifest.cutscene_ms > 0 || manifest.countdown_steps > 0 {
            game.run_room();
        }
        Ok(game)
    }

    pub(super) fn players(&self) -> u16 {
        self.told.snapshots.len() as u16
    }

    /// The frame that comes next; none when the game is over.
    pub(super) fn next_frame(&self) -> Option<u32> {
        self.told.ending.is_none().then(|| self.room.frame().map_or(0, |frame| frame.saturating_add(1)))
    }

    /// Hands something to the room. What it does not take is as it would be on a host: without effect.
    pub(super) fn handle(&mut self, arrival: Arrival<'_>) {
        let _without_effect = self.room.handle(self.now_us, arrival);
    }

    /// Runs the next frame. Nothing, when the game is over.
    pub(super) fn step(&mut self) {
        let Some(frame) = self.next_frame() else { return };
        // Once the start is scheduled a frame has its time; until then the room has something to do at once.
        while self.next_frame() == Some(frame) {
            let due_us = self.room.tick_due_us(frame).or_else(|| self.room.next_due_us());
            let Some(due_us) = due_us.filter(|_| self.room.phase() != Phase::Closed) else { return };
            self.now_us = self.now_us.max(due_us);
            self.run_room();
        }
    }

    /// What left the room so far.
    pub(super) const fn told(&self) -> &Told {
        &self.told
    }

    pub(super) const fn program(&self) -> &Arc<RoomProgram> {
        &self.program
    }

    /// What a trial of other rules for this game needs.
    pub(super) fn trial(&self) -> Trial {
        self.rules.trial()
    }

    fn run_room(&mut self) {
        let told = &mut self.told;
        self.room.step(self.now_us, &mut self.rules, &mut |departure| told.note(departure));
    }
}

impl Told {
    fn note(&mut self, departure: Departure<'_>) {
        let data = |json: &str| serde_json::from_str(json).unwrap_or(Value::Null);
        match departure {
            Departure::PublicEvent(event) => self.events.push(Event {
                frame: event.frame,
                public: true,
                name: event.name.to_owned(),
                data: data(event.json),
            }),
            Departure::InternalEvent { kind, frame, json, .. } => {
                self.events.push(Event { frame, public: false, name: kind.to_owned(), data: data(json) });
            }
            Departure::Snapshot { player, frame, bytes, .. } => {
                if let Some(last) = self.snapshots.get_mut(usize::from(player)) {
                    *last = Some((frame, bytes.to_vec()));
                }
            }
            Departure::Checkpoint { next_frame, state_version, state } => {
                self.checkpoint = Some((next_frame, state_version, state.to_vec()));
            }
            Departure::Tick { frame, ran, .. } => match ran {
                Ran::Stepped { usage, .. } => self.usages.push(usage),
                Ran::Skipped { fault } => self.faults.push((frame, fault.clone(), FaultEnd::Skipped)),
                // `RulesFault` follows.
                Ran::Faulted { .. } => {}
            },
            Departure::RulesRetried { frame, fault } => {
                self.faults.push((frame, fault.clone(), FaultEnd::Retried));
            }
            Departure::RulesFault { frame, fault } => self.faults.push((frame, fault.clone(), FaultEnd::Ended)),
            Departure::Ended { outcome } => {
                self.ending = Some(match outcome {
                    Outcome::Finished { frames, results } => {
                        Ending::Finished { frames, results: serde_json::from_str(results).unwrap_or_default() }
                    }
                    Outcome::Aborted { frames, reason } => Ending::Aborted { frames, reason },
                });
            }
            _ => {}
        }
    }
}

/// The state of a module as JSON text, shown by an instance of its own that is thrown away. None when the module has no description.
pub(super) fn describe(program: &RoomProgram, state_version: u32, state: &[u8]) -> Result<Option<String>, Fault> {
    use holeshot_room::{FaultKind, RestoreError, Rules as _};
    let begun = program.module().instantiate(program.setup(), "description").map_err(BeginError::from);
    let mut rules = begun.map_err(Fault::from)?;
    rules.restore(state_version, state).map_err(|error| match error {
        RestoreError::Refused(text) => Fault::new(FaultKind::StateRefused, text),
        RestoreError::Fault(fault) => fault,
    })?;
    rules.describe()
}
