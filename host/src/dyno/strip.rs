//! One car alone on the strip, in an instance of the rules module, driven by a plan. What plan is best is `search.rs`' affair.

use drag_race::timing::TimeSlip;
use serde::{Deserialize, Serialize};

/// How a run is driven.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunPlan {
    /// Engine speed that the driver's right foot aims at before the launch, in rpm. The foot holds it with a small lag: what the tachometer
    /// shows is [`Run::launch_rpm`]. Without effect for a car that cannot rev at rest.
    pub launch_rpm: f64,
    /// Share of the tyres' grip that the driver asks for, 0.3 to 1.5.
    pub grip_use: f64,
    /// When each change of gear is asked for, in ticks after the launch, first change first. The first goes to second gear, and so on; two at
    /// the same tick leave a gear out. Gears beyond are not used.
    pub shift_ticks: Vec<u32>,
}

/// The car at the end of one tick.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Time since the launch, in s. The launch is the beginning of the tick in which the driver's left foot comes up.
    pub time_s: f64,
    /// Distance of the front tyre from the staged position, in m.
    pub distance_m: f32,
    /// Speed over the ground, in m/s.
    pub speed_mps: f32,
    /// Speed of the driven tyres' tread, in m/s.
    pub tread_mps: f32,
    /// Engine speed, in rpm.
    pub rpm: f32,
    /// The gear, from 1.
    pub gear: u8,
    /// A change of gear is under way.
    pub shifting: bool,
    /// Throttle in this tick, 0 closed to 1 wide open.
    pub throttle: f32,
    /// Left pedal in this tick, 0 up to 1 down: the clutch, or the brake of a car without one.
    pub left_pedal: f32,
    /// The rules say that the driven wheels spin.
    pub wheel_spin: bool,
}

/// One run, from the launch to the tick in which the car crosses the finish line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// How it was driven.
    pub plan: RunPlan,
    /// Elapsed time over the quarter mile as the rules' snapshot says it: finer than the 0.1 ms of the slip, in s.
    pub elapsed_s: f64,
    /// The rules' own time slip.
    pub slip: TimeSlip,
    /// From the launch to the free start beam, one foot down the strip, in s: clocks start there. A sample's time less this is time on the slip.
    pub rollout_s: f64,
    /// Engine speed at the launch, in rpm.
    pub launch_rpm: f32,
    /// The samples, one per tick.
    pub trace: Vec<Sample>,
}
