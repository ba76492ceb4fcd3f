//! The drag race as a rules module: setup and manifest, inputs in, events and results out. What happens on the strip
//! is decided in `race.rs`. [`DragRace`] is also what other rules are made from: it steps, tells and judges in calls of their own, so that
//! rules around it can leave out, change or add at each.

use holeshot_guest::{ChangeKind, InputStatus, Leaderboard, Manifest, Output, PlayerResult, Rules, Setup, Tick};
use serde::{Deserialize, Serialize};

use crate::race::{Feet, Happened, Judging, LaneResult, Race};
use crate::room_cars::{CarsOption, RaceCars, RoomCars};
use crate::snapshot::{Input, Snapshot};
use crate::timing::{BEAM_660_FT, BEAM_1320_FT, DISTANCE_M, TimeSlip, tenths_of_ms};
use crate::tree::TreeKind;

/// Lanes named in one event. Sixty-four lanes may cross a beam in one tick and a host takes 64 events a tick of 16 KiB
/// each: eleven kinds of event, in four parts, of sixteen lanes with a time slip (400 bytes) stay below both.
const LANES_PER_EVENT_MAX: usize = 16;

/// The car of a player who names none.
const CAR_DEFAULT: &str = "mx5";

/// The rules of the drag race; its serialised form is the whole state of a room.
///
/// Rules that change a part of it hold one, and do in their `tick` what this one does:
///
/// ```
/// # use drag_race::{DragRace, Input, Judging, Snapshot};
/// # use holeshot_guest::{Manifest, Output, Rules, Setup, Tick};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct MyRules { base: DragRace }
/// # impl Rules for MyRules {
/// #     type Input = Input;
/// #     type Snapshot = Snapshot;
/// #     fn manifest() -> Manifest { DragRace::manifest() }
/// #     fn new(setup: &Setup) -> Result<Self, String> { Ok(Self { base: DragRace::new(setup)? }) }
/// fn tick(&mut self, tick: &Tick<'_, Input>, out: &mut Output<'_, Self>) {
///     let happened = self.base.step(tick);
///     let judging = Judging::default();
///     self.base.tell(&happened, judging, out);
///     out.snapshot(&self.base.race().snapshot());
///     if self.base.race().over() {
///         out.finish(self.base.results(judging));
///     }
/// }
/// # }
/// # let setup = Setup { seed: 1, tick_hz: 50, options: String::new(), players: vec![] };
/// # assert!(MyRules::new(&setup).is_ok());
/// ```
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DragRace {
    race: Race,
    /// What was told last, for its memory alone.
    #[serde(skip)]
    snapshot: Snapshot,
}

/// A room's options.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    tree: TreeKind,
    cars: CarsOption,
}

/// What a player brings.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PlayerData {
    car: Option<String>,
}

/// One lane in an event.
#[derive(Debug, Serialize)]
struct LaneEvent<'a> {
    /// The lane, which is the player's slot.
    lane: u16,
    car: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reaction_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    elapsed_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mph: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slip: Option<TimeSlip>,
}

#[derive(Serialize)]
struct LanesEvent<'a> {
    lanes: &'a [LaneEvent<'a>],
}

#[derive(Serialize)]
struct TreeStarted {
    tree: TreeKind,
    green_in_ms: u32,
}

#[derive(Serialize)]
struct Decided {
    /// Lanes that share the first place; empty if nobody won.
    winners: Vec<u16>,
    holeshot: bool,
    margin_s: Option<f64>,
}

/// What a player's result says beyond place and outcome. The fields are those of [`LaneResult`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResultData {
    /// The lane, which is the player's slot.
    pub lane: u16,
    /// Id of the car.
    pub car: String,
    /// The car's index class, in which its times are compared: the published quarter-mile time rounded up to the half second, as text: `12.5`. Left out
    /// for a car without a published time, which then is on no leaderboard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<&'static str>,
    /// Length of the race, in m.
    pub distance_m: f64,
    /// What the leaderboard compares: the elapsed time over the whole distance with penalties, in s. Only of a fair start that reached the finish line:
    /// left out after a red light, also where other rules do not let it lose, and where there is no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_s: Option<f64>,
    /// Whether it left before green.
    pub red_light: bool,
    /// Won although another fair lane had the shorter elapsed time.
    pub holeshot: bool,
    /// At the line: for the winner the time until the next car, for the others the time since the winner, in s.
    pub margin_s: Option<f64>,
    /// Time that was added before lanes were compared, in s; left out where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub penalty_s: Option<f64>,
    /// The time slip.
    #[serde(flatten)]
    pub slip: TimeSlip,
}

impl DragRace {
    /// The race itself.
    pub fn race(&self) -> &Race {
        &self.race
    }

    /// The race itself, for rules that change it on its way into another version.
    pub fn race_mut(&mut self) -> &mut Race {
        &mut self.race
    }

    /// Moves the race on by one tick. What happened comes back by lane, in order; events of the whole race have lane 0.
    pub fn step(&mut self, tick: &Tick<'_, Input>) -> Vec<(u16, Happened)> {
        for change in tick.changes {
            self.race.set_present(change.player, change.kind == ChangeKind::Joined);
        }
        let feet = tick.players.iter().map(|player| Feet {
            input: player.input,
            age_frames: (player.status != InputStatus::Absent).then_some(player.age_frames),
        });
        let mut happened = Vec::new();
        self.race.tick_with(feet, &mut happened);
        happened
    }

    /// Tells players what happened: one public event for all lanes of a kind. Takes any rules' output, so that rules made from these can tell the
    /// same, or less: what is left out of `happened` is not told.
    #[inline(never)]
    pub fn tell<R: Rules>(&self, happened: &[(u16, Happened)], judging: Judging<'_>, out: &mut Output<'_, R>) {
        for (at, (_, kind)) in happened.iter().enumerate() {
            let Some(name) = kind.name() else { continue };
            if happened.iter().take(at).any(|(_, earlier)| earlier == kind) {
                continue;
            }
            match kind {
                Happened::TreeStarted => out.public_event(
                    name,
                    &TreeStarted { tree: self.race.tree(), green_in_ms: self.race.green_after_ms() },
                ),
                Happened::Decided => out.public_event(name, &decided(self.race.results_by(judging))),
                _ => {
                    // An event's worth at a time: what all lanes would take here, the room's memory would keep.
                    let mut lanes = happened.iter().filter(|(_, other)| other == kind).peekable();
                    while lanes.peek().is_some() {
                        let some = lanes.by_ref().take(LANES_PER_EVENT_MAX);
                        let lanes: Vec<LaneEvent<'_>> = some.map(|(lane, _)| self.lane_event(*lane, kind)).collect();
                        out.public_event(name, &LanesEvent { lanes: &lanes });
                    }
                }
            }
        }
    }

    /// The results as a host takes them, in the order of the lanes.
    pub fn results<'a>(&'a self, judging: Judging<'a>) -> impl Iterator<Item = PlayerResult<ResultData>> + 'a {
        self.race.results_by(judging).map(player_result)
    }

    fn lane_event(&self, number: u16, happened: &Happened) -> LaneEvent<'_> {
        let mut event = LaneEvent { lane: number, car: "", reaction_s: None, elapsed_s: None, mph: None, slip: None };
        let Some(lane) = self.race.lanes().get(number as usize) else { return event };
        event.car = &self.race.car(lane).id;
        let slip = lane.timing().slip(self.race.green_s());
        match happened {
            Happened::Launched | Happened::RedLight => event.reaction_s = slip.reaction_s,
            Happened::Beam(beam) => {
                event.elapsed_s = lane.timing().elapsed_s(*beam).map(tenths_of_ms);
                event.mph = match *beam {
                    BEAM_660_FT => slip.eighth_mile_mph,
                    BEAM_1320_FT => slip.quarter_mile_mph,
                    _ => None,
                };
            }
            Happened::TimeSlip => event.slip = Some(slip),
            _ => {}
        }
        event
    }
}

impl Rules for DragRace {
    type Input = Input;
    type Snapshot = Snapshot;

    fn manifest() -> Manifest {
        let mut manifest = Manifest::new("drag-race", env!("CARGO_PKG_VERSION"), 1..=64, 6);
        manifest.tick_hz = 50;
        manifest.cutscene_ms = 3_000;
        manifest.countdown_steps = 3;
        manifest.countdown_step_ms = 1_000;
        // Staging 20 s, the tree's delay 1.4 s and programme 1.5 s, the run 60 s, the run-out 2 s; as much again.
        manifest.frames_max = 170 * 50;
        manifest.leaderboards =
            vec![Leaderboard::lowest("elapsed-time", "elapsed_s").group_by(["class", "distance_m"])];
        manifest
    }

    fn new(setup: &Setup) -> Result<Self, String> {
        let options: Options = parse(&setup.options).map_err(|error| {
            format!(
                "the race's options are not like {{\"tree\": \"pro\"}} (or sportsman), with {{\"cars\": {{\"shared\": {{…}}, \"car\": [{{…}}]}}}} for \
                 cars of its own: {error}"
            )
        })?;
        let room = RoomCars::read(options.cars).map_err(|error| format!("the race's option `cars`: {error}"))?;
        let mut numbers = Vec::with_capacity(setup.players.len());
        let mut cars = RaceCars::default();
        for (slot, player) in setup.players.iter().enumerate() {
            let data: PlayerData = parse(&player.data)
                .map_err(|error| format!("player {slot}: the data is not like {{\"car\": \"mx5\"}}: {error}"))?;
            let id = data.car.as_deref().unwrap_or(CAR_DEFAULT);
            numbers.push(room.choose(id, &mut cars).map_err(|error| format!("player {slot}: {error}"))?);
        }
        let race = Race::with_cars(setup.seed, setup.tick_hz, options.tree, &numbers, cars);
        Ok(Self { race, snapshot: Snapshot::default() })
    }

    fn tick(&mut self, tick: &Tick<'_, Input>, out: &mut Output<'_, Self>) {
        let happened = self.step(tick);
        if !happened.is_empty() {
            self.tell(&happened, Judging::default(), out);
        }
        self.race.snapshot_into(&mut self.snapshot);
        out.snapshot(&self.snapshot);
        if self.race.over() {
            // One at a time: 64 results and their text at once is memory that the room would keep.
            out.finish(self.results(Judging::default()));
        }
    }
}

fn decided(results: impl Iterator<Item = LaneResult>) -> Decided {
    let mut decided = Decided { winners: Vec::new(), holeshot: false, margin_s: None };
    for result in results.filter(|result| matches!(result.outcome.as_str(), "won" | "dead_heat")) {
        decided.winners.push(result.lane);
        decided.holeshot |= result.holeshot;
        decided.margin_s = result.margin_s;
    }
    decided
}

fn player_result(result: LaneResult) -> PlayerResult<ResultData> {
    let fair_s = result.slip.quarter_mile_s.filter(|_| !result.red_light);
    PlayerResult {
        player: result.lane,
        place: result.place,
        outcome: result.outcome,
        data: ResultData {
            lane: result.lane,
            car: result.car,
            class: result.class,
            distance_m: DISTANCE_M,
            elapsed_s: fair_s.map(|slip_s| tenths_of_ms(slip_s + result.penalty_s)),
            red_light: result.red_light,
            holeshot: result.holeshot,
            margin_s: result.margin_s,
            penalty_s: (result.penalty_s != 0.0).then_some(result.penalty_s),
            slip: result.slip,
        },
    }
}

/// A JSON object, or the default where there is no text.
fn parse<T: Default + for<'a> Deserialize<'a>>(text: &str) -> Result<T, String> {
    let text = text.trim();
    if text.is_empty() || text == "null" {
        return Ok(T::default());
    }
    // serde would take a list of the fields for the struct.
    if !text.starts_with('{') {
        return Err("it is not a JSON object".to_string());
    }
    serde_json::from_str(text).map_err(|error| error.to_string())
}
