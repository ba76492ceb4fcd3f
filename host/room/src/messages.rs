//! What goes into a room and what comes out of it, as types. No behaviour lives here.

use std::fmt;

use crate::actions::ActionOutcome;
use crate::rules::{Fault, Program, Usage};
use holeshot_abi::LeaveReason;

/// Something that reaches a room from outside. Players are named by their slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// The player has a session now: its first, or a new one in place of the one before.
    Connected {
        /// The slot.
        player: u16,
    },
    /// The player's session ended without a farewell. Only the session that is current may say so, not one that was replaced.
    Disconnected {
        /// The slot.
        player: u16,
    },
    /// The player is ready. A second time is harmless.
    Ready {
        /// The slot.
        player: u16,
    },
    /// The player leaves of its own will.
    Quit {
        /// The slot.
        player: u16,
    },
    /// The host takes the player out.
    Remove {
        /// The slot.
        player: u16,
    },
    /// A player's reliable message for the rules.
    Action {
        /// The slot.
        player: u16,
        /// The player's own number for it, greater than those it sent before. Sent again after a reconnect it is not applied again.
        id: u64,
        /// JSON text; checked by the room.
        json: &'a str,
    },
    /// What a player's controls say for one frame.
    Input {
        /// The slot.
        player: u16,
        /// The frame it is for.
        frame: u32,
        /// The module's own format; the room checks only the length.
        bytes: &'a [u8],
    },
    /// The host ends the match. A room that has already ended closes at once.
    Abort {
        /// Why.
        reason: AbortReason,
    },
}

/// Why an arrival has no effect. Inputs that miss their frame are not among these: they are counted; nor are
/// actions that the room refuses: they are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The room has no such slot.
    #[error("the room has no player slot {player}")]
    UnknownPlayer {
        /// The slot that was named.
        player: u16,
    },
    /// The player left or never came in time; a slot that was given up stays empty.
    #[error("player {player} is out of this room: {reason}")]
    PlayerLeft {
        /// The slot.
        player: u16,
        /// Why it is out.
        reason: LeftReason,
    },
    /// The player has no session.
    #[error("player {player} is not connected")]
    NotConnected {
        /// The slot.
        player: u16,
    },
    /// The match has ended.
    #[error("the match has ended")]
    Over,
    /// The room is closed: there is nothing left to take part in.
    #[error("the room is closed")]
    Closed,
    /// The player sends actions faster than it can be answered; the room has not looked at this one.
    #[error("player {player} has too many unanswered actions")]
    TooManyActions {
        /// The slot.
        player: u16,
    },
}

/// Something that leaves a room. Texts and bytes are borrowed: what is needed later has to be copied.
#[derive(Debug, Clone, Copy)]
pub enum Departure<'a> {
    /// The room is in another phase now.
    PhaseChanged {
        /// The new one.
        phase: Phase,
    },
    /// For every connected player, reliable and in order.
    PublicEvent(PublicEvent<'a>),
    /// For the broker.
    InternalEvent {
        /// Whose event it is.
        source: EventSource,
        /// `room.started`, `player.left` … or the module's own name.
        kind: &'a str,
        /// The frame in which a module sent it.
        frame: Option<u32>,
        /// Its data, JSON text.
        json: &'a str,
    },
    /// The player is out: its session, if there is one, has no more business here once it has read the events before.
    PlayerLeft {
        /// The slot.
        player: u16,
        /// Why.
        reason: LeftReason,
    },
    /// A frame was stepped: for the journal. Comes right after the rules ran and before anything else of this frame.
    Tick {
        /// The frame.
        frame: u32,
        /// All that decides this frame.
        record: &'a [u8],
        /// What became of it.
        ran: Ran<'a>,
    },
    /// The state was saved: whatever happens later need not be undone beyond this point.
    Checkpoint {
        /// The first frame that the state has not seen.
        next_frame: u32,
        /// Version of the state: that of the rules which saved it.
        state_version: u32,
        /// The state.
        state: &'a [u8],
    },
    /// The rules were replaced between two frames. Comes right after the `Checkpoint` with the state that was handed over.
    RulesSwapped {
        /// The first frame of the new rules.
        next_frame: u32,
        /// The rules before.
        from: &'a dyn Program,
        /// The rules from now on.
        to: &'a dyn Program,
    },
    /// The new rules have passed their probation. Comes right before the `Checkpoint` that makes it so.
    RulesKept {
        /// The frame that comes next.
        next_frame: u32,
    },
    /// The new rules failed on probation: the former ones are back, and have run every frame since they were replaced.
    RulesRolledBack {
        /// The first frame of the failed rules.
        since_frame: u32,
        /// The frame in which they failed. Its `Tick` follows; it came before if it was the saving after it that failed, and there is none if
        /// the former rules finished the game, or failed, in an earlier frame.
        frame: u32,
        /// The rules that failed.
        failed: &'a dyn Program,
        /// The rules from now on.
        to: &'a dyn Program,
        /// How they failed.
        fault: &'a Fault,
        /// The numbers of the public events that only the failed rules told.
        void: &'a [u64],
        /// CRC-32 of the output record of each frame that was run again, from `since_frame` on, in order. What the failed rules put out
        /// in these frames is void, and so is every frame beyond them.
        output_crcs: &'a [u32],
    },
    /// A fault did not come again: fresh rules were taken through the frames since the last checkpoint, and on.
    RulesRetried {
        /// The frame that failed at first. Its `Tick` follows, unless it was the saving after it that failed.
        frame: u32,
        /// How it failed at first.
        fault: &'a Fault,
    },
    /// For one connected player, on the fast channel.
    Snapshot {
        /// The slot.
        player: u16,
        /// The frame whose end it shows.
        frame: u32,
        /// The module's bytes.
        bytes: &'a [u8],
        /// How early the player's inputs come: the worst of the last [`MARGIN_WINDOW_INPUTS`](crate::MARGIN_WINDOW_INPUTS) or more, in microseconds before
        /// their frame was due; negative when late. None before the first input.
        margin_us: Option<i32>,
        /// The newest frame of which an input came from this player.
        last_input_frame: Option<u32>,
        /// It is the one that is for every player.
        is_shared: bool,
    },
    /// The snapshot that is for every player without one of its own; also what spectators see. Comes once a tick, before
    /// those of the players. A tick whose snapshots are all for single players has none.
    SharedSnapshot {
        /// The frame whose end it shows.
        frame: u32,
        /// The module's bytes.
        bytes: &'a [u8],
    },
    /// For one player: what became of an action.
    ActionResult {
        /// The slot.
        player: u16,
        /// The player's number of the action.
        id: u64,
        /// What became of it.
        outcome: ActionOutcome,
    },
    /// Ticks were overdue by more than one call may make up for; the schedule is shifted.
    TicksLost {
        /// How many.
        count: u64,
        /// The frame that comes next.
        next_frame: u32,
    },
    /// The rules failed; `Ended` follows. For the log: the backtrace is in no event.
    RulesFault {
        /// The frame that failed.
        frame: u32,
        /// How.
        fault: &'a Fault,
    },
    /// The match has ended. Comes exactly once, after the public and the internal event that say so.
    Ended {
        /// How.
        outcome: Outcome<'a>,
    },
}

/// What became of a frame.
#[derive(Debug, Clone, Copy)]
pub enum Ran<'a> {
    /// The rules stepped it.
    Stepped {
        /// The output record, checked.
        output: &'a [u8],
        /// What it took.
        usage: Usage,
    },
    /// The rules took too long. It is as if they had never been called for it: its joins, leaves and actions are in the record of the next
    /// frame.
    Skipped {
        /// How they were stopped.
        fault: &'a Fault,
    },
    /// The rules failed; the match ends.
    Faulted {
        /// How.
        fault: &'a Fault,
    },
}

/// An event for all players of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicEvent<'a> {
    /// Number of the event in its room, from 1 without a gap.
    pub seq: u64,
    /// Its name.
    pub name: &'a str,
    /// The frame that brought it about, if one did.
    pub frame: Option<u32>,
    /// When it left the room, in microseconds on the clock that the room was given. The same when it is told again.
    pub at_us: u64,
    /// Its data, JSON text.
    pub json: &'a str,
}

/// Who says an internal event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventSource {
    /// The room itself; its `kind`s begin with `room.` or `player.`.
    Room,
    /// The rules module.
    Module,
}

/// How a match ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The rules said so.
    Finished {
        /// Frames stepped, skipped ones included.
        frames: u32,
        /// JSON text of an array of `PlayerResult`, checked.
        results: &'a str,
    },
    /// It was broken off; there are no results.
    Aborted {
        /// Frames stepped, skipped ones and one that failed included.
        frames: u32,
        /// Why.
        reason: AbortReason,
    },
}

/// Where a room is in its life. It only moves downwards in this list; a cutscene or a countdown that the manifest does not
/// ask for is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Waiting for all players to connect.
    Gathering,
    /// Waiting for all players to be ready.
    Readying,
    /// The cutscene plays; the start is scheduled.
    Cutscene,
    /// The countdown runs, or what is left until the room's beat: less than a tick.
    Countdown,
    /// The game loop.
    Running,
    /// The rules finished the game; the outcome stays available for a while.
    Finished,
    /// The match was broken off; likewise.
    Aborted,
    /// Nothing happens any more.
    Closed,
}

impl Phase {
    /// The phase as a word for records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gathering => "gathering",
            Self::Readying => "readying",
            Self::Cutscene => "cutscene",
            Self::Countdown => "countdown",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Aborted => "aborted",
            Self::Closed => "closed",
        }
    }

    /// Whether the match has ended, one way or the other.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Finished | Self::Aborted | Self::Closed)
    }
}

/// Why a player is out of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftReason {
    /// It said that it leaves.
    Quit,
    /// Its connection was lost for longer than the grace time.
    ConnectionLost,
    /// The host removed it.
    Removed,
    /// It did not connect in time.
    NeverCame,
    /// It was not ready in time.
    NotReady,
}

impl LeftReason {
    /// The reason as a word for events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::ConnectionLost => "connection_lost",
            Self::Removed => "removed",
            Self::NeverCame => "never_came",
            Self::NotReady => "not_ready",
        }
    }

    /// The reason as the rules see it. Who is put out before the game starts is never seen by them.
    pub(crate) const fn for_rules(self) -> LeaveReason {
        match self {
            Self::Quit => LeaveReason::Quit,
            Self::ConnectionLost => LeaveReason::ConnectionLost,
            Self::Removed | Self::NeverCame | Self::NotReady => LeaveReason::Removed,
        }
    }
}

/// Why a match was broken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortReason {
    /// Fewer players than the module needs were left before frame 0.
    NotEnoughPlayers,
    /// All players left during the game, and the rules did not finish it when told so.
    EveryoneLeft,
    /// The rules did not finish within the manifest's `frames_max`.
    TooLong,
    /// The rules failed.
    RulesFault,
    /// The host is stopping.
    HostStopping,
    /// Somebody with the right to do so asked for it.
    Requested,
}

impl AbortReason {
    /// The reason as a word for events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotEnoughPlayers => "not_enough_players",
            Self::EveryoneLeft => "everyone_left",
            Self::TooLong => "too_long",
            Self::RulesFault => "rules_fault",
            Self::HostStopping => "host_stopping",
            Self::Requested => "requested",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for LeftReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
