//! One car alone on the strip, in an instance of the rules module, driven by a plan. What plan is best is `search.rs`' affair.
//!
//! A run does not begin at frame 0 again and again. For each engine speed to launch with, the car is staged once and the state of the rules kept
//! where the lamp is green and the engine has settled; runs begin from that state. So do runs that differ late from one that is known: they begin from a
//! state on its way. The rules' own `save` and `restore` do it, so what comes of it is what a host would see.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use drag_race::timing::TimeSlip;
use drag_race::{Car, Driver, Input, Phase, Plan, Shifts as DriverShifts, Snapshot};
use serde::{Deserialize, Serialize};

use super::attempt::{Attempt, End, Point, Reach, Shifts, attempt};
use super::error::{StripError, Work};
use super::rooms::{Room, Rooms, Told};
use crate::rules::Module;

/// Longest time from frame 0 to the green lamp, in s: twice what the drag race allows for staging.
const STAGING_S_MAX: f64 = 40.0;
/// Time with the green lamp on before a run begins, in s: the engine settles at its launch speed.
const SETTLING_S: f64 = 1.0;
/// Longest time from the launch to the finish line, in s: that of the drag race.
pub(super) const RUN_S_MAX: f64 = 60.0;
/// Longest time from the finish line to the results, in s: five times the drag race's.
const RESULTS_S_MAX: f64 = 10.0;
/// A reaction that no driver waits for, in s, and its opposite: the dyno says itself when the foot comes up.
const NEVER_S: f64 = 1e6;

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

impl RunPlan {
    /// The same for a driver.
    #[must_use]
    pub fn plan(&self) -> Plan {
        Plan {
            launch_rpm: self.launch_rpm,
            shifts: DriverShifts::AtTick(self.shift_ticks.clone()),
            grip_use: self.grip_use,
        }
    }
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

/// A strip with one car.
#[derive(Debug)]
pub struct Strip {
    rooms: Rooms,
    /// Where runs begin, by the launch speed's bits.
    starts: Mutex<BTreeMap<u64, Arc<Start>>>,
}

/// A car that is staged, with the lamp green and the engine at its launch speed, or one that left the line by itself before. A driver sees the last
/// two snapshots before it launches.
#[derive(Debug)]
struct Start {
    state: Vec<u8>,
    next_frame: u32,
    before: Snapshot,
    last: Snapshot,
}

impl Strip {
    /// A strip with a car, under a module.
    ///
    /// # Errors
    /// The module does not take such a room.
    pub fn open(module: &Arc<Module>, car: &Arc<Car>, work: &Arc<Work>) -> Result<Self, StripError> {
        Ok(Self { rooms: Rooms::open(module, car, work)?, starts: Mutex::default() })
    }

    /// The car.
    #[must_use]
    pub const fn car(&self) -> &Arc<Car> {
        self.rooms.car()
    }

    /// Length of a tick, in s.
    #[must_use]
    pub fn tick_s(&self) -> f64 {
        self.rooms.tick_s()
    }

    /// Runs a plan, from the launch to the results.
    ///
    /// # Errors
    /// See [`StripError`]; [`StripError::NoTime`] if the plan brings the car not to the finish line.
    pub fn run(&self, plan: &RunPlan) -> Result<Run, StripError> {
        let start = self.launch(plan.launch_rpm, plan.grip_use)?;
        let (attempt, mut room) = attempt(&self.rooms, &start, Shifts::AtTick(&plan.shift_ticks), None, true)?;
        let End::Finished { elapsed_s } = attempt.end else {
            return Err(self.rooms.no_time(format!("it did not reach the finish line within {RUN_S_MAX} s")));
        };
        let slip = attempt.slip.map_or_else(|| self.results(&mut room, attempt.next_frame), Ok)?;
        self.rooms.give_back(room);
        let (Some(rollout_s), Some(_)) = (attempt.rollout_s, slip.quarter_mile_s) else {
            return Err(self.rooms.foreign("its results have no time slip with `quarter_mile_s`".into()));
        };
        let launch_rpm = start.seen.lanes.first().map_or(0.0, |lane| lane.rpm);
        Ok(Run { plan: plan.clone(), elapsed_s, slip, rollout_s, launch_rpm, trace: attempt.trace })
    }

    /// Drives from frame 0 as a driver does, by the lamps, to the results: the time slip.
    ///
    /// # Errors
    /// See [`StripError`]; [`StripError::NoTime`] if it does not come to results.
    pub fn drive(&self, mut driver: Driver) -> Result<TimeSlip, StripError> {
        let mut room = self.rooms.begin()?;
        let mut input = None;
        for frame in 0..self.rooms.ticks(STAGING_S_MAX + RUN_S_MAX) {
            let Told { snapshot, slip } = self.rooms.tick(&mut room, frame, input)?;
            if let Some(slip) = slip {
                return Ok(slip);
            }
            input = Some(driver.drive(&snapshot));
        }
        Err(self.rooms.no_time("there are no results".into()))
    }

    /// A state in which the car leaves the line in the next tick.
    pub(super) fn launch(&self, launch_rpm: f64, grip_use: f64) -> Result<Point, StripError> {
        let start = self.start(launch_rpm)?;
        let mut driver = self.driver(launch_rpm, grip_use);
        driver.set_reaction_s(NEVER_S);
        driver.drive(&start.before);
        driver.set_reaction_s(-NEVER_S);
        Ok(Point {
            tick: 0,
            next_frame: start.next_frame,
            state: start.state.as_slice().into(),
            driver,
            seen: start.last.clone(),
            last: None,
            rollout_s: None,
        })
    }

    /// Goes on from a point to the finish line, or until it is given up.
    pub(super) fn attempt(
        &self,
        from: &Point,
        shifts: Shifts<'_>,
        reach: Option<Reach<'_>>,
        keep: bool,
    ) -> Result<Attempt, StripError> {
        let (attempt, room) = attempt(&self.rooms, from, shifts, reach, keep)?;
        self.rooms.give_back(room);
        Ok(attempt)
    }

    fn driver(&self, launch_rpm: f64, grip_use: f64) -> Driver {
        // The dyno changes gears itself.
        Driver::with_plan(
            Arc::clone(self.car()),
            0,
            Plan { launch_rpm, grip_use, shifts: DriverShifts::AtTick(Vec::new()) },
        )
    }

    fn start(&self, launch_rpm: f64) -> Result<Arc<Start>, StripError> {
        let key = launch_rpm.to_bits();
        if let Some(start) = self.starts.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(start));
        }
        // Two threads may do it at the same time; both find the same.
        let start = Arc::new(self.stage(launch_rpm)?);
        self.starts.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&start));
        Ok(start)
    }

    fn stage(&self, launch_rpm: f64) -> Result<Start, StripError> {
        let mut room = self.rooms.begin()?;
        let mut driver = self.driver(launch_rpm, 1.0);
        driver.set_reaction_s(NEVER_S);
        let (mut input, mut before, mut green_ticks) = (None, None, 0);
        for frame in 0..self.rooms.ticks(STAGING_S_MAX) {
            let Told { snapshot, slip } = self.rooms.tick(&mut room, frame, input)?;
            let view = self.rooms.view(&snapshot)?;
            if slip.is_some() || matches!(view.phase, Phase::Finished | Phase::Out) {
                return Err(self.rooms.no_time("its race was over before it was staged".into()));
            }
            green_ticks += u32::from(snapshot.lamps.green && view.phase == Phase::Staged);
            // With so much torque against the brake it left by itself: an attempt from here is given up before its first tick.
            if view.phase == Phase::Racing || green_ticks > self.rooms.ticks(SETTLING_S) {
                let state = self.rooms.save(&mut room, frame + 1)?;
                let before = before.unwrap_or_else(|| snapshot.clone());
                return Ok(Start { state, next_frame: frame + 1, before, last: snapshot });
            }
            input = Some(driver.drive(&snapshot));
            before = Some(snapshot);
        }
        Err(self.rooms.no_time(format!(
            "no green lamp came on for it within {STAGING_S_MAX} s, although its driver held the left pedal down"
        )))
    }

    /// Rolls out until there are results.
    fn results(&self, room: &mut Room, next_frame: u32) -> Result<TimeSlip, StripError> {
        for frame in next_frame..next_frame.saturating_add(self.rooms.ticks(RESULTS_S_MAX)) {
            let told = self.rooms.tick(room, frame, Some(Input { throttle: 0, clutch: 255, gear: 0 }))?;
            if let Some(slip) = told.slip {
                return Ok(slip);
            }
        }
        Err(self
            .rooms
            .foreign(format!("there are no results {RESULTS_S_MAX} s after the only car is over the finish line")))
    }

    #[cold]
    pub(super) fn never_arrives(&self) -> StripError {
        self.rooms.no_time(format!(
            "none of the launches and changes of gear that were tried brings it to the finish line within {RUN_S_MAX} s"
        ))
    }

    #[cold]
    pub(super) fn no_split(&self) -> StripError {
        self.rooms.foreign("its time slip has no times between the line and the finish".into())
    }

    #[cold]
    pub(super) fn two_ways(&self, one_s: f64, other_s: f64) -> StripError {
        self.rooms.foreign(format!(
            "the same inputs gave {one_s} s once and {other_s} s another time; rules must do the same each time (`holeshot check`)"
        ))
    }
}
