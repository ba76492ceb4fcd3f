//! The race as a state machine: staging, tree, lights, clocks, limits and the decision. It moves on by one tick at a
//! time and hands back what happened; how that reaches players is `rules.rs`.

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::cars::Car;
use crate::physics::{CarState, Controls, Figures, Recall};
use crate::room_cars::RaceCars;
use crate::snapshot::{Input, LaneView, Phase, Snapshot};
use crate::timing::{
    BEAM_60_FT, BEAM_330_FT, BEAM_660_FT, BEAM_1000_FT, BEAM_1320_FT, BEAM_START, TimeSlip, Timing, tenths_of_ms,
};
use crate::tree::{Lamps, TreeKind, delay_s};

/// Longest physics step, in ms. At 4 ms every car's quarter mile is within 0.1 % of that with 0.25 ms (a test holds
/// it there); a tick of 20 ms then takes five steps. The steps are what a tick costs.
pub const SUBSTEP_MAX_MS: u32 = 4;

/// The left pedal counts as down from here: half way.
const PEDAL_DOWN_MIN: u8 = 128;

/// Rolling from beam to beam, in ms: the driver holds the pedal down for this long before each of the two lamps.
const ROLL_TO_BEAM_MS: u32 = 500;

/// Time for the others to stage once one car is staged, in ms: the 7 s of NHRA's AutoStart.
const STAGE_AFTER_FIRST_MAX_MS: u32 = 7_000;

/// Time for anyone to stage, from frame 0, in ms: the cutscene and countdown are over, so readers of the screen know
/// what to do; longer than the 7 s above so that the first car may take its time too.
const STAGE_MAX_MS: u32 = 20_000;

/// Time to leave the line after green, in ms. Real starters wave a car off after about as long.
const LEAVE_MAX_MS: u32 = 15_000;

/// Time to reach the finish line after green, in ms: three times the slowest car of the catalogue with a poor driver.
const RUN_MAX_MS: u32 = 60_000;

/// Without input for this long a car is on its own: off the throttle, clutch down, on the brake, in ms.
const HANDS_OFF_AFTER_MS: u32 = 500;

/// Without its player for this long a lane is given up, in ms. Shorter than a re-connection would be a pity, longer
/// would keep the others waiting.
const GIVEN_UP_AFTER_MS: u32 = 3_000;

/// Time from the decision to the end of the game, in ms: the slower cars roll out and everyone sees the win lamp.
const RUN_OUT_MS: u32 = 2_000;

/// Brake of a car that nobody drives any more.
const ROLL_OUT_BRAKE: f64 = 0.4;

/// What the host knows of a player in one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feet {
    /// The input, fresh or repeated.
    pub input: Input,
    /// How old it is, in frames; `None` if there is none.
    pub age_frames: Option<u16>,
}

/// How a lane's race ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// Crossed the finish line.
    Finished,
    /// Ran out of time after green.
    DidNotFinish,
    /// Was not staged in time.
    DidNotStage,
    /// Its player was gone for too long.
    Left,
}

/// Something that happened to a lane; see [`Happened::name`].
#[derive(Clone, Debug, PartialEq)]
pub enum Happened {
    /// The tree's first amber will light in this tick's end.
    TreeStarted,
    /// In the second beam.
    Staged,
    /// The start beam came free after green.
    Launched,
    /// The start beam came free before green.
    RedLight,
    /// Crossed a beam.
    Beam(usize),
    /// Its race is over.
    TimeSlip,
    /// All lanes are done.
    Decided,
}

impl Happened {
    /// The event's name; `None` for a beam that only times a speed trap.
    pub fn name(&self) -> Option<&'static str> {
        Some(match self {
            Happened::TreeStarted => "tree_started",
            Happened::Staged => "staged",
            Happened::Launched => "launched",
            Happened::RedLight => "red_light",
            Happened::Beam(BEAM_60_FT) => "sixty_foot",
            Happened::Beam(BEAM_330_FT) => "three_thirty_foot",
            Happened::Beam(BEAM_660_FT) => "eighth_mile",
            Happened::Beam(BEAM_1000_FT) => "thousand_foot",
            Happened::Beam(BEAM_1320_FT) => "quarter_mile",
            Happened::Beam(_) => return None,
            Happened::TimeSlip => "time_slip",
            Happened::Decided => "race_decided",
        })
    }
}

/// One lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lane {
    /// Number of its car, see [`RaceCars::car`].
    car: u16,
    phase: Phase,
    /// How long the pedal has been held for the next beam, in frames.
    roll_frames: u16,
    /// Its player is connected.
    present: bool,
    away_frames: u16,
    red_light: bool,
    fate: Option<Fate>,
    state: CarState,
    timing: Timing,
    /// What its steps need of its car.
    #[serde(skip)]
    figures: Figures,
    #[serde(skip)]
    recall: Recall,
}

/// The outcome of one lane in a decided race.
#[derive(Clone, Debug, PartialEq)]
pub struct LaneResult {
    /// The lane, which is the player's slot.
    pub lane: u16,
    /// Id of the car.
    pub car: String,
    /// The car's [`index_class`](Car::index_class), if it has one.
    pub class: Option<&'static str>,
    /// Place from 1, shared by a dead heat; none for a lane that was never staged.
    pub place: Option<u16>,
    /// `won`, `dead_heat`, `lost`, `red_light`, `did_not_finish`, `did_not_stage` or `left`.
    pub outcome: String,
    /// Whether it left before green.
    pub red_light: bool,
    /// Won although another fair lane had the shorter elapsed time.
    pub holeshot: bool,
    /// At the line: for the winner the time until the next car, for the others the time since the winner, in s. With penalties.
    pub margin_s: Option<f64>,
    /// Time that was added before lanes were compared, in s; 0 by the rules of the strip.
    pub penalty_s: f64,
    /// The time slip, which knows no penalty.
    pub slip: TimeSlip,
}

/// How lanes are compared once the race is decided: what other rules than the strip's may say of it. The default is the strip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judging<'a> {
    /// A red light loses against every fair start. Where it does not, such a lane's time counts from when it left, not from green: leaving
    /// early gains nothing, and costs what `penalties_s` says.
    pub red_light_loses: bool,
    /// Time added at the finish line, by lane, in s. Lanes beyond the end have none.
    pub penalties_s: &'a [f64],
}

impl Default for Judging<'_> {
    fn default() -> Self {
        Self { red_light_loses: true, penalties_s: &[] }
    }
}

impl Judging<'_> {
    fn penalty_s(&self, lane: usize) -> f64 {
        self.penalties_s.get(lane).copied().unwrap_or(0.0)
    }
}

/// A race.
///
/// Its bytes are those of its fields in order. Cars of its own come last, and only where a lane has one: a race of the catalogue's cars has the
/// bytes that it had before rooms could bring cars, and goes on under rules from before and after that.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Race {
    seed: u64,
    tick_hz: u32,
    tree: TreeKind,
    /// Frames stepped so far.
    frames: u32,
    first_staged_frame: Option<u32>,
    tree_frame: Option<u32>,
    decided_frame: Option<u32>,
    lanes: Vec<Lane>,
    #[serde(skip_serializing_if = "RaceCars::is_empty")]
    cars: RaceCars,
}

/// The part of a race that every state has.
#[derive(Deserialize)]
struct Head {
    seed: u64,
    tick_hz: u32,
    tree: TreeKind,
    frames: u32,
    first_staged_frame: Option<u32>,
    tree_frame: Option<u32>,
    decided_frame: Option<u32>,
    lanes: Vec<Lane>,
}

impl<'de> Deserialize<'de> for Race {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;

        impl<'de> Visitor<'de> for Parts {
            type Value = Race;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("a race, and its cars where it has some of its own")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Race, A::Error> {
                let mut head: Head = parts.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
                let cars = if head.lanes.iter().any(|lane| RaceCars::is_own(lane.car)) {
                    parts.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?
                } else {
                    RaceCars::default()
                };
                let (_, substep_s) = substeps(head.tick_hz);
                for lane in &mut head.lanes {
                    lane.figures = Figures::of(cars.car(lane.car), substep_s);
                }
                let Head { seed, tick_hz, tree, frames, first_staged_frame, tree_frame, decided_frame, lanes } = head;
                Ok(Race { seed, tick_hz, tree, frames, first_staged_frame, tree_frame, decided_frame, lanes, cars })
            }
        }

        // A state is postcard, in which a struct is its fields one after the other, however they are grouped.
        deserializer.deserialize_tuple(2, Parts)
    }
}

impl Lane {
    fn new(number: u16, car: &Car, substep_s: f64) -> Self {
        Self {
            car: number,
            phase: Phase::Approaching,
            roll_frames: 0,
            present: false,
            away_frames: 0,
            red_light: false,
            fate: None,
            state: CarState::at_rest(car),
            timing: Timing::default(),
            figures: Figures::of(car, substep_s),
            recall: Recall::default(),
        }
    }

    /// Whether it left the line before green.
    pub fn red_light(&self) -> bool {
        self.red_light
    }

    /// The car's moving parts.
    pub fn state(&self) -> &CarState {
        &self.state
    }

    /// The lane's clocks.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// How far it is to the next beam that its clocks wait for, in m from the staged position.
    fn next_beam_m(&self) -> f64 {
        if self.fate.is_none() { self.timing.next_beam_m() } else { f64::INFINITY }
    }

    /// Its tyre went from one place to another in the time from `at_s`: stops the clocks of the beams in between.
    #[cold]
    #[inline(never)]
    fn cross(
        &mut self,
        number: u16,
        (from_m, to_m): (f64, f64),
        (at_s, dt_s): (f64, f64),
        green_s: Option<f64>,
        happened: &mut Vec<(u16, Happened)>,
    ) {
        let crossed = self.timing.note(from_m, to_m, at_s, dt_s);
        for beam in self.timing.crossed() - crossed as usize..self.timing.crossed() {
            if beam == BEAM_START {
                self.phase = Phase::Racing;
                let start_s = self.timing.at_s(BEAM_START).unwrap_or(at_s);
                self.red_light = green_s.is_none_or(|green_s| start_s < green_s);
                happened.push((number, if self.red_light { Happened::RedLight } else { Happened::Launched }));
            } else {
                happened.push((number, Happened::Beam(beam)));
            }
            if beam == BEAM_1320_FT {
                self.end(Fate::Finished);
                happened.push((number, Happened::TimeSlip));
            }
        }
    }

    fn end(&mut self, fate: Fate) {
        self.fate = Some(fate);
        self.phase = if fate == Fate::Finished { Phase::Finished } else { Phase::Out };
    }
}

impl Race {
    /// A race of these cars (indices in the catalogue), one lane each, before frame 0.
    pub fn new(seed: u64, tick_hz: u32, tree: TreeKind, cars: &[u16]) -> Self {
        Self::with_cars(seed, tick_hz, tree, cars, RaceCars::default())
    }

    /// The same with cars of the race's own behind some of the numbers.
    pub(crate) fn with_cars(seed: u64, tick_hz: u32, tree: TreeKind, numbers: &[u16], cars: RaceCars) -> Self {
        let (_, substep_s) = substeps(tick_hz);
        Self {
            seed,
            tick_hz,
            tree,
            frames: 0,
            first_staged_frame: None,
            tree_frame: None,
            decided_frame: None,
            lanes: numbers.iter().map(|number| Lane::new(*number, cars.car(*number), substep_s)).collect(),
            cars,
        }
    }

    /// The lanes.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The car of one of its lanes.
    pub fn car(&self, lane: &Lane) -> &Car {
        self.cars.car(lane.car)
    }

    /// When the green lamp comes on, in seconds since frame 0; `None` until the tree's start is set.
    pub fn green_s(&self) -> Option<f64> {
        self.tree_frame.map(|frame| self.time_s(frame) + self.tree.green_after_s())
    }

    /// From the first amber to green, in ms.
    pub fn green_after_ms(&self) -> u32 {
        libm::round(self.tree.green_after_s() * 1000.0) as u32
    }

    /// The tree's programme.
    pub fn tree(&self) -> TreeKind {
        self.tree
    }

    /// Takes another tree. The first amber stays when it is, the green lamp comes on when the new tree's programme says.
    pub fn set_tree(&mut self, tree: TreeKind) {
        self.tree = tree;
    }

    /// Whether the game is over: decided, and rolled out.
    pub fn over(&self) -> bool {
        self.decided_frame.is_some_and(|frame| self.frames >= frame.saturating_add(self.frames_in(RUN_OUT_MS)))
    }

    /// Notes that a lane's player is there, or is not.
    pub fn set_present(&mut self, lane: u16, present: bool) {
        if let Some(lane) = self.lanes.get_mut(lane as usize) {
            lane.present = present;
        }
    }

    /// Moves on by one tick. `feet` are by lane; a lane without any is driven by nobody. `happened` gets the lane and
    /// the event, in order; events of the whole race have lane 0.
    pub fn tick(&mut self, feet: &[Feet], happened: &mut Vec<(u16, Happened)>) {
        self.tick_with(feet.iter().copied(), happened);
    }

    /// The same, where the feet are in no list yet: a tick in a module allocates nothing unless something happens.
    pub(crate) fn tick_with(&mut self, feet: impl Iterator<Item = Feet>, happened: &mut Vec<(u16, Happened)>) {
        let mut feet = feet.fuse();
        let start_s = self.time_s(self.frames);
        let green_s = self.green_s();
        let hands_off_frames = self.frames_in(HANDS_OFF_AFTER_MS);
        let given_up_frames = self.frames_in(GIVEN_UP_AFTER_MS);
        let roll_frames = self.frames_in(ROLL_TO_BEAM_MS);
        let (substeps, substep_s) = substeps(self.tick_hz);

        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let number = index as u16;
            let feet = feet.next().unwrap_or_default();
            lane.away_frames = if lane.present { 0 } else { lane.away_frames.saturating_add(1) };
            if lane.fate.is_none() && u32::from(lane.away_frames) >= given_up_frames {
                lane.end(Fate::Left);
                happened.push((number, Happened::TimeSlip));
            }
            let driven = lane.present
                && lane.fate.is_none()
                && feet.age_frames.is_some_and(|age| u32::from(age) <= hands_off_frames);
            if driven {
                roll_into_beams(lane, number, feet.input, roll_frames, happened);
            }
            let controls = controls(lane.figures.has_clutch(), lane.phase, driven.then_some(feet.input));
            run(&self.cars, lane, number, controls, substeps, start_s, substep_s, green_s, happened);
        }

        self.frames = self.frames.saturating_add(1);
        self.keep_limits(happened);
        self.start_tree(happened);
        if self.decided_frame.is_none() && self.lanes.iter().all(|lane| lane.fate.is_some()) {
            self.decided_frame = Some(self.frames);
            happened.push((0, Happened::Decided));
        }
    }

    /// What players see now.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        self.snapshot_into(&mut snapshot);
        snapshot
    }

    /// The same into a snapshot whose memory is used again.
    pub(crate) fn snapshot_into(&self, snapshot: &mut Snapshot) {
        let now_s = self.time_s(self.frames);
        let green_s = self.green_s();
        let lamps = self.tree_frame.map_or(Lamps::default(), |frame| self.tree.lamps(now_s - self.time_s(frame)));
        let view = |lane: &Lane| {
            let (tread_mps, wheel_spin) = lane.figures.tread(&lane.state);
            let start_s = lane.timing.at_s(BEAM_START);
            LaneView {
                phase: lane.phase,
                red_light: lane.red_light,
                shifting: lane.state.shift_left_s > 0.0,
                wheel_spin,
                gear: lane.state.gear,
                distance_m: lane.state.distance_m as f32,
                speed_mps: lane.state.speed_mps as f32,
                tread_mps: tread_mps as f32,
                rpm: lane.state.engine_rpm() as f32,
                reaction_s: start_s.zip(green_s).map(|(start_s, green_s)| (start_s - green_s) as f32),
                elapsed_s: lane.timing.elapsed_s(BEAM_1320_FT).map(|elapsed_s| elapsed_s as f32),
            }
        };
        snapshot.frame = self.frames.saturating_sub(1);
        snapshot.time_ms = libm::round(now_s * 1000.0) as u32;
        snapshot.tree = self.tree;
        snapshot.lamps = lamps;
        snapshot.lanes.clear();
        snapshot.lanes.extend(self.lanes.iter().map(view));
    }

    /// The lanes' results by the rules of the strip, in the order of the lanes; of use once the race is decided.
    ///
    /// A fair start beats a red light. Among fair lanes the first over the line wins, so a slower car can win on its
    /// start. Two red lights: the earlier one loses. A lane that broke after a fair start still beats a foul.
    pub fn results(&self) -> impl Iterator<Item = LaneResult> + '_ {
        self.results_by(Judging::default())
    }

    /// As [`results`](Race::results), by other rules.
    pub fn results_by<'a>(&'a self, judging: Judging<'a>) -> impl Iterator<Item = LaneResult> + 'a {
        let standings: Vec<Standing> =
            self.lanes.iter().enumerate().map(|(index, lane)| self.standing(lane, index, judging)).collect();
        let best = standings.iter().copied().reduce(|a, b| if b.beats(&a) { b } else { a }).unwrap_or(Standing::Absent);
        let fouled = standings.iter().any(|other| matches!(other, Standing::Foul { .. } | Standing::Absent));
        let first_wins = match best {
            Standing::AtLine { .. } | Standing::Foul { .. } => true,
            Standing::Broke { launched, .. } => launched && fouled,
            Standing::Absent => false,
        };
        let line = |standing: &Standing| match standing {
            Standing::AtLine { time_s } => Some(*time_s),
            _ => None,
        };
        let first_s = line(&best);
        let next_s = standings
            .iter()
            .filter(|other| best.beats(other))
            .filter_map(line)
            .reduce(|a, b| if b < a { b } else { a });
        let winners = standings.iter().filter(|other| !best.beats(other)).count();
        let quickest_loser = self
            .lanes
            .iter()
            .enumerate()
            .zip(&standings)
            .filter(|(_, standing)| best.beats(standing) && line(standing).is_some())
            .filter_map(|((index, lane), _)| Some(lane.timing.elapsed_s(BEAM_1320_FT)? + judging.penalty_s(index)))
            .reduce(|a, b| if b < a { b } else { a });

        self.lanes.iter().enumerate().zip(standings.clone()).map(move |((index, lane), standing)| {
            let standing = &standing;
            let first = first_wins && !best.beats(standing);
            let outcome = match (first, standing, lane.fate) {
                (true, Standing::AtLine { .. }, _) if winners > 1 => "dead_heat",
                (true, _, _) => "won",
                (_, Standing::Foul { .. }, _) => "red_light",
                (_, _, Some(Fate::Finished)) => "lost",
                (_, _, Some(Fate::DidNotStage)) => "did_not_stage",
                (_, _, Some(Fate::Left)) => "left",
                (_, _, Some(Fate::DidNotFinish) | None) => "did_not_finish",
            };
            let penalty_s = judging.penalty_s(index);
            let elapsed_s = lane.timing.elapsed_s(BEAM_1320_FT).map(|elapsed_s| elapsed_s + penalty_s);
            let margin_s = match (first, first_s, line(standing)) {
                (true, Some(own_s), _) => next_s.map(|next_s| tenths_of_ms(next_s - own_s)),
                (false, Some(first_s), Some(own_s)) => Some(tenths_of_ms(own_s - first_s)),
                _ => None,
            };
            LaneResult {
                lane: index as u16,
                car: self.car(lane).id.to_string(),
                class: self.car(lane).index_class(),
                place: match standing {
                    Standing::Absent => None,
                    _ => Some(1 + standings.iter().filter(|other| other.beats(standing)).count() as u16),
                },
                outcome: outcome.to_string(),
                red_light: lane.red_light,
                holeshot: first
                    && line(standing).is_some()
                    && elapsed_s.zip(quickest_loser).is_some_and(|(own_s, other_s)| other_s < own_s),
                margin_s,
                penalty_s,
                slip: lane.timing.slip(self.green_s()),
            }
        })
    }

    fn standing(&self, lane: &Lane, index: usize, judging: Judging<'_>) -> Standing {
        let green_s = self.green_s().unwrap_or(0.0);
        let penalty_s = judging.penalty_s(index);
        match (lane.red_light, lane.fate, lane.timing.at_s(BEAM_1320_FT)) {
            (true, Some(Fate::Finished), Some(time_s)) if !judging.red_light_loses => {
                let left_s = lane.timing.at_s(BEAM_START).unwrap_or(green_s);
                Standing::AtLine { time_s: tenths_of_ms(time_s - left_s + penalty_s) }
            }
            (true, _, _) if judging.red_light_loses => {
                Standing::Foul { start_s: lane.timing.at_s(BEAM_START).unwrap_or(0.0) }
            }
            (_, Some(Fate::Finished), Some(time_s)) => {
                Standing::AtLine { time_s: tenths_of_ms(time_s - green_s + penalty_s) }
            }
            (_, Some(Fate::DidNotStage), _) => Standing::Absent,
            (_, Some(Fate::Left), _) if lane.timing.crossed() == 0 => Standing::Absent,
            _ => Standing::Broke { distance_m: lane.state.distance_m, launched: lane.timing.crossed() > 0 },
        }
    }

    /// Ends the lanes whose time is up.
    fn keep_limits(&mut self, happened: &mut Vec<(u16, Happened)>) {
        let staging_over = self.frames >= self.frames_in(STAGE_MAX_MS)
            || self
                .first_staged_frame
                .is_some_and(|frame| self.frames >= frame.saturating_add(self.frames_in(STAGE_AFTER_FIRST_MAX_MS)));
        if self.first_staged_frame.is_none() && self.lanes.iter().any(|lane| lane.phase == Phase::Staged) {
            self.first_staged_frame = Some(self.frames);
        }
        let since_green_s = self.green_s().map(|green_s| self.time_s(self.frames) - green_s);
        let later_than = |limit_ms: u32| since_green_s.is_some_and(|since_s| since_s * 1000.0 > f64::from(limit_ms));
        for (index, lane) in self.lanes.iter_mut().enumerate().filter(|(_, lane)| lane.fate.is_none()) {
            let fate = match lane.phase {
                Phase::Approaching | Phase::PreStaged if staging_over => Fate::DidNotStage,
                Phase::Staged if later_than(LEAVE_MAX_MS) => Fate::DidNotFinish,
                Phase::Racing if later_than(RUN_MAX_MS) => Fate::DidNotFinish,
                _ => continue,
            };
            lane.end(fate);
            happened.push((index as u16, Happened::TimeSlip));
        }
    }

    /// Sets the tree going once everyone who is still there has staged.
    fn start_tree(&mut self, happened: &mut Vec<(u16, Happened)>) {
        if self.tree_frame.is_none() {
            let waiting = self.lanes.iter().any(|lane| matches!(lane.phase, Phase::Approaching | Phase::PreStaged));
            let staged = self.lanes.iter().any(|lane| matches!(lane.phase, Phase::Staged | Phase::Racing));
            if staged && !waiting {
                let delay_frames = libm::round(delay_s(self.seed) * f64::from(self.hz())) as u32;
                self.tree_frame = Some(self.frames.saturating_add(delay_frames.max(1)));
            }
        }
        if self.tree_frame == Some(self.frames) {
            happened.push((0, Happened::TreeStarted));
        }
    }

    /// Ticks per second, within what the boundary allows even if a damaged state says otherwise.
    fn hz(&self) -> u32 {
        self.tick_hz.clamp(1, 128)
    }

    fn time_s(&self, frame: u32) -> f64 {
        f64::from(frame) / f64::from(self.hz())
    }

    /// Frames in `ms`, rounded up.
    fn frames_in(&self, ms: u32) -> u32 {
        (ms * self.hz()).div_ceil(1000)
    }
}

/// What counts when lanes are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Standing {
    /// Fair, and over the line this long after green, to 0.1 ms.
    AtLine { time_s: f64 },
    /// Fair, but not over the line.
    Broke { distance_m: f64, launched: bool },
    /// Left before green, at this time.
    Foul { start_s: f64 },
    /// Took no part.
    Absent,
}

impl Standing {
    fn beats(&self, other: &Standing) -> bool {
        match (self, other) {
            (Standing::AtLine { time_s: a }, Standing::AtLine { time_s: b }) => a < b,
            (Standing::Broke { distance_m: a, .. }, Standing::Broke { distance_m: b, .. }) => a > b,
            (Standing::Foul { start_s: a }, Standing::Foul { start_s: b }) => a > b,
            _ => self.class() < other.class(),
        }
    }

    fn class(&self) -> u8 {
        match self {
            Standing::AtLine { .. } => 0,
            Standing::Broke { .. } => 1,
            Standing::Foul { .. } => 2,
            Standing::Absent => 3,
        }
    }
}

/// Staging is automatic: while the left pedal is down the car rolls into the first beam, then into the second.
fn roll_into_beams(lane: &mut Lane, number: u16, input: Input, roll_frames: u32, happened: &mut Vec<(u16, Happened)>) {
    if !matches!(lane.phase, Phase::Approaching | Phase::PreStaged) {
        return;
    }
    if input.clutch < PEDAL_DOWN_MIN {
        return;
    }
    lane.roll_frames = lane.roll_frames.saturating_add(1);
    if u32::from(lane.roll_frames) < roll_frames {
        return;
    }
    lane.roll_frames = 0;
    if lane.phase == Phase::Approaching {
        lane.phase = Phase::PreStaged;
    } else {
        lane.phase = Phase::Staged;
        happened.push((number, Happened::Staged));
    }
}

/// What reaches the car from an input, or from nobody.
fn controls(has_clutch: bool, phase: Phase, input: Option<Input>) -> Controls {
    match (input, phase) {
        (Some(input), Phase::Approaching | Phase::PreStaged) => {
            Controls { throttle: f64::from(input.throttle) / 255.0, left_pedal: 1.0, brake: 1.0, gear: 0 }
        }
        (Some(input), _) => Controls {
            throttle: f64::from(input.throttle) / 255.0,
            left_pedal: f64::from(input.clutch) / 255.0,
            brake: 0.0,
            gear: input.gear,
        },
        (None, _) => {
            let left_pedal = if has_clutch { 1.0 } else { 0.0 };
            Controls { throttle: 0.0, left_pedal, brake: ROLL_OUT_BRAKE, gear: 0 }
        }
    }
}

/// One tick of physics and of the clocks for one lane.
#[allow(clippy::too_many_arguments)]
fn run(
    cars: &RaceCars,
    lane: &mut Lane,
    number: u16,
    controls: Controls,
    substeps: u32,
    start_s: f64,
    substep_s: f64,
    green_s: Option<f64>,
    happened: &mut Vec<(u16, Happened)>,
) {
    if lane.fate.is_some() && lane.state.speed_mps == 0.0 {
        return;
    }
    let Lane { car, mut state, figures, mut recall, .. } = *lane;
    let mut next_beam_m = lane.next_beam_m();
    figures.run(&|| cars.car(car), &controls, &mut state, &mut recall, substeps, |substep, before_m, now_m| {
        // As a rule it reached no beam, and no more than this is asked.
        if now_m >= next_beam_m {
            let at_s = start_s + substep_s * f64::from(substep);
            lane.cross(number, (before_m, now_m), (at_s, substep_s), green_s, happened);
            next_beam_m = lane.next_beam_m();
        }
    });
    (lane.state, lane.recall) = (state, recall);
}

/// Physics steps of a tick, and the length of one in s. A rate beyond what the boundary allows, in a damaged state, is cut to it.
fn substeps(tick_hz: u32) -> (u32, f64) {
    let hz = tick_hz.clamp(1, 128);
    let substeps = 1000_u32.div_ceil(SUBSTEP_MAX_MS * hz);
    (substeps, 1.0 / f64::from(hz) / f64::from(substeps))
}
