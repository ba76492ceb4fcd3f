//! What players send and what they see: the input of one frame and the snapshot of one tick. Plain data, postcard on
//! the wire.

use serde::{Deserialize, Serialize};

use crate::tree::{Lamps, TreeKind};

/// What a driver's feet and hand do in one frame.
///
/// Every field is a position, not a push: an input that is repeated, because a datagram was lost, neither doubles nor
/// loses a gear change, since `gear` names the gear wished for and goes on naming it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Throttle, 0 closed to 255 wide open.
    pub throttle: u8,
    /// The left pedal, 0 up to 255 down: the clutch of a manual or dual-clutch car, the brake of the others. Down, it
    /// also tells the starter that this driver is ready to be staged.
    pub clutch: u8,
    /// The gear wished for, from 1; 0 keeps the present one. A gear that the car has not, or that would overrev the
    /// engine, is left for later: the wish is looked at again in every frame.
    pub gear: u8,
}

/// Where a lane is in its race.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Waits for its driver's left pedal.
    Approaching,
    /// In the first beam.
    PreStaged,
    /// In the second beam: the tree may start.
    Staged,
    /// Has left the line.
    Racing,
    /// Is over the finish line.
    Finished,
    /// Takes no more part: never staged, left, or ran out of time.
    Out,
}

/// One lane as everyone sees it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaneView {
    /// Where it is in its race.
    pub phase: Phase,
    /// Its red lamp is on.
    pub red_light: bool,
    /// A gear change is under way.
    pub shifting: bool,
    /// The driven wheels slip by more than their best.
    pub wheel_spin: bool,
    /// The gear, from 1.
    pub gear: u8,
    /// Distance from the staged position, in m.
    pub distance_m: f32,
    /// Speed over the ground, in m/s.
    pub speed_mps: f32,
    /// Speed of the driven tyres' tread, in m/s.
    pub tread_mps: f32,
    /// Engine speed, in rpm.
    pub rpm: f32,
    /// Reaction time, once the start beam is free, in s.
    pub reaction_s: Option<f32>,
    /// Elapsed time over the quarter mile, once there, in s.
    pub elapsed_s: Option<f32>,
}

/// The race at the end of a tick.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The tick's number, from 0. Behind the room's frame by as many ticks as the host skipped.
    pub frame: u32,
    /// Time since the game loop began, at the end of the tick, in ms.
    pub time_ms: u32,
    /// The tree's programme.
    pub tree: TreeKind,
    /// The lamps that the lanes share.
    pub lamps: Lamps,
    /// The lanes; a player's lane is its slot.
    pub lanes: Vec<LaneView>,
}

impl Snapshot {
    /// Reads what the rules gave a player, as many times as a program needs it: compiled here, it is optimised in every build.
    ///
    /// # Errors
    /// The bytes are not a snapshot of the drag race.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        holeshot_guest::read_state(bytes)
    }
}
