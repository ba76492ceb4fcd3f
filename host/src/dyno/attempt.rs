//! Attempts at a run: from the launch, or from a state on the way, to the finish line, or until there is no hope. Which are made is `search.rs`'
//! affair.

use std::sync::Arc;

use drag_race::physics::RAD_S_PER_RPM;
use drag_race::timing::{FOOT_M, TimeSlip};
use drag_race::{Car, Driver, Input, LaneView, Phase, Snapshot};

use super::error::StripError;
use super::rooms::{Room, Rooms, Told};
use super::strip::{RUN_S_MAX, Sample};

/// Ticks between the states that are kept along a run, for others to begin from. A state takes a few microseconds, a tick one or two.
const POINT_TICKS: u32 = 8;
/// How far a car may have rolled by itself before the launch, in m.
const CREPT_M_MAX: f32 = 0.01;
/// Turns per minute of one radian per second.
pub(super) const RPM_PER_RAD_S: f64 = 1.0 / RAD_S_PER_RPM;
/// The clutch has taken hold when the wheels turn the gearbox this share as fast as the engine turns.
const HOLDING_SHARE: f64 = 0.95;

/// The state of a run before one of its ticks.
#[derive(Debug, Clone)]
pub(super) struct Point {
    /// The tick after the launch that comes next.
    pub(super) tick: u32,
    pub(super) next_frame: u32,
    pub(super) state: Arc<[u8]>,
    pub(super) driver: Driver,
    /// What the driver saw last, and has not answered yet.
    pub(super) seen: Snapshot,
    /// The car at the end of the tick before; none before the launch.
    pub(super) last: Option<Sample>,
    /// When the start beam came free, if it did.
    pub(super) rollout_s: Option<f64>,
}

/// When gears are changed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shifts<'a> {
    /// At these ticks after the launch.
    AtTick(&'a [u32]),
    /// As soon as the tachometer shows so much in first gear, second gear and so on, and the clutch has taken hold. Less than any engine speed: the
    /// gear is left out.
    AtRpm(&'a [f64]),
}

/// When a run is given up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach<'a> {
    /// The run that it is held against, from its launch.
    pub(super) against: &'a [Sample],
    /// When the start beam came free in that run, in s.
    pub(super) rollout_s: f64,
    /// How much later it may be at a place where it is slower, too, in s.
    pub(super) lag_max_s: f64,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum End {
    /// At the finish line.
    Finished {
        /// The elapsed time, in s.
        elapsed_s: f64,
    },
    /// Given up: out of [`Reach`], or not there within [`RUN_S_MAX`].
    GivenUp,
}

/// An attempt at a run, or at the end of one.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) end: End,
    /// When each change of gear was asked for from where it began, with [`Shifts::AtRpm`].
    pub(super) shift_ticks: Vec<u32>,
    /// The samples from where it began, if they were to be kept.
    pub(super) trace: Vec<Sample>,
    /// States along it, if they were to be kept.
    pub(super) points: Vec<Point>,
    /// When the start beam came free, if it did.
    pub(super) rollout_s: Option<f64>,
    /// The frame after the last, for who goes on.
    pub(super) next_frame: u32,
    /// The time slip, if the rules gave it with the last frame already.
    pub(super) slip: Option<TimeSlip>,
}

impl End {
    pub(super) const fn elapsed_s(self) -> Option<f64> {
        match self {
            Self::Finished { elapsed_s } => Some(elapsed_s),
            Self::GivenUp => None,
        }
    }
}

/// Goes on from a point to the finish line, or until it is given up. The room is as it is then.
pub(super) fn attempt(
    rooms: &Rooms,
    from: &Point,
    shifts: Shifts<'_>,
    reach: Option<Reach<'_>>,
    keep: bool,
) -> Result<(Attempt, Room), StripError> {
    rooms.work().note_run();
    let mut room = rooms.restored(&from.state, from.next_frame)?;
    let mut at = from.clone();
    let mut shifter = Shifter::new(rooms.car(), shifts, &from.seen);
    let mut chase = reach.map(|reach| Chase { reach, at: 0 });
    let mut attempt = Attempt {
        end: End::GivenUp,
        shift_ticks: Vec::new(),
        trace: Vec::new(),
        points: Vec::new(),
        rollout_s: None,
        next_frame: at.next_frame,
        slip: None,
    };
    let tick_s = rooms.tick_s();
    while at.tick < rooms.ticks(RUN_S_MAX) {
        if keep && at.tick.is_multiple_of(POINT_TICKS) {
            at.state = rooms.save(&mut room, at.next_frame)?.into();
            attempt.points.push(at.clone());
        }
        let view = rooms.view(&at.seen)?;
        if at.tick == 0 && (view.phase != Phase::Staged || view.distance_m > CREPT_M_MAX) {
            // So much torque against the brake makes the car creep: it would cross the start beam at speed.
            break;
        }
        let mut input = at.driver.drive(&at.seen);
        input.gear = shifter.gear(at.tick, view);
        let Told { snapshot, slip } = rooms.tick(&mut room, at.next_frame, Some(input))?;
        (at.seen, attempt.slip) = (snapshot, slip);
        at.next_frame += 1;
        at.tick += 1;
        let view = rooms.view(&at.seen)?;
        let sample = sample(view, input, f64::from(at.tick) * tick_s);
        if at.rollout_s.is_none() {
            at.rollout_s = crossing_s(at.last.as_ref(), &sample, FOOT_M);
        }
        at.last = Some(sample);
        if keep {
            attempt.trace.push(sample);
        }
        match view.phase {
            Phase::Finished => {
                if let Some(elapsed_s) = view.elapsed_s {
                    attempt.end = End::Finished { elapsed_s: f64::from(elapsed_s) };
                }
                break;
            }
            Phase::Out => break,
            _ => {}
        }
        if let (Some(chase), Some(rollout_s)) = (&mut chase, at.rollout_s)
            && chase.is_out_of_reach(&sample, rollout_s)
        {
            break;
        }
    }
    attempt.shift_ticks = shifter.asked;
    attempt.rollout_s = at.rollout_s;
    attempt.next_frame = at.next_frame;
    Ok((attempt, room))
}

/// Says which gear to wish for.
#[derive(Debug)]
struct Shifter<'a> {
    car: &'a Car,
    shifts: Shifts<'a>,
    gear: u8,
    asked: Vec<u32>,
}

impl<'a> Shifter<'a> {
    fn new(car: &'a Car, shifts: Shifts<'a>, seen: &Snapshot) -> Self {
        let gear = seen.lanes.first().map_or(1, |view| view.gear.max(1));
        Self { car, shifts, gear, asked: Vec::new() }
    }

    fn gear(&mut self, tick: u32, view: &LaneView) -> u8 {
        let top = self.car.top_gear();
        match self.shifts {
            Shifts::AtTick(ticks) => {
                let asked = ticks.iter().filter(|at| **at <= tick).count();
                self.gear = u8::try_from(asked).unwrap_or(u8::MAX).saturating_add(1).min(top);
            }
            Shifts::AtRpm(speeds) => {
                let at_rpm = speeds.get(usize::from(self.gear).wrapping_sub(1)).copied().unwrap_or(f64::INFINITY);
                let ratio = self.car.ratios.get(usize::from(view.gear).wrapping_sub(1)).copied().unwrap_or(1.0);
                let wheels_rpm = f64::from(view.tread_mps) / self.car.tyre_radius_m * ratio * RPM_PER_RAD_S;
                let holds = wheels_rpm >= HOLDING_SHARE * f64::from(view.rpm);
                if view.gear == self.gear && !view.shifting && holds && f64::from(view.rpm) >= at_rpm && self.gear < top
                {
                    self.change(tick);
                    while speeds.get(usize::from(self.gear) - 1) == Some(&f64::NEG_INFINITY) && self.gear < top {
                        self.change(tick);
                    }
                }
            }
        }
        self.gear
    }

    fn change(&mut self, tick: u32) {
        self.gear = self.gear.saturating_add(1);
        self.asked.push(tick);
    }
}

/// Follows the place of another run's trace.
#[derive(Debug)]
struct Chase<'a> {
    reach: Reach<'a>,
    at: usize,
}

impl Chase<'_> {
    /// Whether the car is later than the other at this place by more than it may be, and slower, too.
    fn is_out_of_reach(&mut self, sample: &Sample, rollout_s: f64) -> bool {
        while self.reach.against.get(self.at).is_some_and(|other| other.distance_m < sample.distance_m) {
            self.at += 1;
        }
        // The other's sample is at this place or a little further on: its time there is late by less than a tick.
        let Some(other) = self.reach.against.get(self.at) else { return false };
        let lag_s = (sample.time_s - rollout_s) - (other.time_s - self.reach.rollout_s);
        lag_s > self.reach.lag_max_s && sample.speed_mps < other.speed_mps
    }
}

fn sample(view: &LaneView, input: Input, time_s: f64) -> Sample {
    Sample {
        time_s,
        distance_m: view.distance_m,
        speed_mps: view.speed_mps,
        tread_mps: view.tread_mps,
        rpm: view.rpm,
        gear: view.gear,
        shifting: view.shifting,
        throttle: f32::from(input.throttle) / 255.0,
        left_pedal: f32::from(input.clutch) / 255.0,
        wheel_spin: view.wheel_spin,
    }
}

/// When a place between two samples was crossed, with an even acceleration between them, in s; none if it was not. Before the first sample the car
/// stands at the line.
pub(super) fn crossing_s(before: Option<&Sample>, after: &Sample, at_m: f64) -> Option<f64> {
    if f64::from(after.distance_m) < at_m {
        return None;
    }
    let (from_s, from_m, from_mps) =
        before.map_or((0.0, 0.0, 0.0), |s| (s.time_s, f64::from(s.distance_m), f64::from(s.speed_mps)));
    let span_s = after.time_s - from_s;
    let missing_m = at_m - from_m;
    if missing_m <= 0.0 || span_s <= 0.0 {
        return Some(from_s);
    }
    let accel_mps2 = (f64::from(after.speed_mps) - from_mps) / span_s;
    // The root of v t + a t²/2 = d, written so that it holds for no acceleration as well.
    let root = (from_mps * from_mps + 2.0 * accel_mps2 * missing_m).max(0.0).sqrt();
    let after_s = 2.0 * missing_m / (from_mps + root);
    Some(from_s + if after_s.is_finite() { after_s.clamp(0.0, span_s) } else { span_s })
}
