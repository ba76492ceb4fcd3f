//! What a room counts, per player and as a whole. Counters only grow.

use serde::Serialize;

/// What became of one player's inputs and actions.
///
/// Every input that came is counted in exactly one of `taken`, `late`, `behind`, `ahead`, `duplicate`, `conflicting`, `too_long` and
/// `out_of_game`, which add up to `received`. Every tick is counted in exactly one of `fresh`, `repeated` and `absent`,
/// which add up to the ticks of the room. `fresh` is at most `taken`; the rest of `taken` was for frames that never came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct PlayerCounters {
    /// Inputs that came, copies included.
    pub received: u64,
    /// First inputs of a frame that came in time.
    pub taken: u64,
    /// Inputs for a frame that had been stepped without them: the first of each frame. Later copies are duplicates.
    pub late: u64,
    /// Inputs for a frame further back than the track, each copy: whether an earlier one came is not known any more.
    pub behind: u64,
    /// Inputs for a frame further ahead than the track.
    pub ahead: u64,
    /// Further copies of an input, equal to the first.
    pub duplicate: u64,
    /// Further inputs for a frame that differ from the first.
    pub conflicting: u64,
    /// Inputs longer than the manifest allows.
    pub too_long: u64,
    /// Inputs before the cutscene, after the end or after the player left.
    pub out_of_game: u64,
    /// Ticks that had an input sent for them.
    pub fresh: u64,
    /// Ticks that repeated an older input.
    pub repeated: u64,
    /// Ticks without any input.
    pub absent: u64,
    /// Actions given to the rules.
    pub actions_applied: u64,
    /// Actions answered with a refusal.
    pub actions_refused: u64,
    /// Times the player came back within the grace time.
    pub reconnects: u64,
}

/// What a room did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RoomCounters {
    /// Frames stepped, skipped and faulted ones included. Equal to the number of frames, unless a rollback showed that the game had
    /// finished earlier.
    pub ticks: u64,
    /// Frames in which the rules took too long, and which they never saw.
    pub ticks_skipped: u64,
    /// Ticks that were due and never made up for: the schedule was shifted by as many.
    pub ticks_lost: u64,
    /// Calls of `step` that ran more than one tick.
    pub catch_ups: u64,
    /// Public events sent.
    pub public_events: u64,
    /// Public events that are no longer kept for players who reconnect.
    pub public_events_dropped: u64,
    /// Times the rules were replaced.
    pub swaps: u64,
    /// Times the former rules were put back because new ones failed on probation.
    pub rollbacks: u64,
    /// Faults that did not come again when the frame was run once more.
    pub retries: u64,
}
