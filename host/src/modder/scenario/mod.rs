//! `holeshot test`: plays a scenario against the module that ships, in the room that a host runs, and compares what comes of it with what was expected. No
//! server, no socket, no waiting: a race of half a minute takes some milliseconds.
//!
//! # The file
//!
//! TOML. A small one, for the drag race:
//!
//! ```toml
//! about = "Leaving before green is a red light"
//!
//! [room]
//! seed = 7
//! options = { tree = "pro" }
//!
//! [[player]]
//! name = "Ada"
//! data = { car = "mx5" }
//!
//! [input]
//! fields = ["throttle:u8", "clutch:u8", "gear:u8"]
//!
//! [[play]]                       # the clutch down until the tree starts, then away
//! player = "Ada"
//! frames = "..tree_started+1"
//! input = { throttle = 150, clutch = 255, gear = 1 }
//!
//! [[play]]
//! player = "Ada"
//! frames = "tree_started+1.."
//! input = { throttle = 255, gear = 1 }
//!
//! [[expect]]
//! event = "red_light"
//! data = { lanes = [{ lane = 0 }] }
//! between = { "lanes.0.reaction_s" = [-0.5, 0.0] }
//! ```
//!
//! **Frames** are a number (`120`), or the first frame in which an event was seen with an offset (`"launched+50"`, `"launched-2"`). Ranges are as in
//! Rust: `"0..80"` is 0 to 79, `"launched.."` goes on to the end. A range whose beginning was not seen has not begun; one whose end was not seen goes on.
//! What players do in a frame that has passed when its event is seen, they do in the next one.
//!
//! | table | keys | meaning |
//! | --- | --- | --- |
//! | (top) | `about` | what the scenario is for, shown in the report |
//! | `[room]` | `seed` (1), `tick_hz` (the module's), `options` (none) | the setup; `options` is any value, given to the module as JSON |
//! | | `frames` (the module's `frames_max`) | the game is left after so many frames, if it is not over |
//! | `[[player]]` | `name`, `data` (none) | a player slot, in this order; all are connected and ready when the game starts |
//! | `[input]` | `fields`: `"name:type"` … | how `input` becomes bytes: the fields in this order, those not named are 0 |
//! | `[snapshot]` | `fields` | how a snapshot is read, from its beginning; what follows these fields is ignored |
//! | `[[play]]` | `player`, `frames`, and `input = { … }` or `hex = "00ff"` | what a player sends for these frames. Of several for one frame the last in the file counts |
//! | `[[lose]]` | `player`, `frames` | what is sent for these frames never arrives: the module sees a repeated input |
//! | `[[late]]` | `player`, `frames`, `by_frames` | what is sent for these frames arrives so many frames later, which is too late: the host drops it |
//! | `[[action]]` | `player`, `frame`, `data` | an action, as JSON, before this frame |
//! | `[[leave]]` | `player`, `frame`, `how` (`"quit"`, `"removed"` or `"connection_lost"`) | a player leaves before this frame. Who lost the connection leaves when the grace time is over |
//! | `[[return]]` | `player`, `frame` | a player whose connection was lost is back before this frame |
//! | `[[expect]]` | see below | what has to come of it |
//!
//! `player` is a name or a list of names. Types of fields: `bool`, `u8`, `u16`, `u32`, `u64`, `i8`, `i16`, `i32`, `i64`, `f32`, `f64` as postcard writes them, and
//! `u16le`, `u32le`, `u64le`, `i16le`, `i32le`, `i64le` of fixed width, little-endian.
//!
//! Each `[[expect]]` has one of these, and beside it what its data has to be:
//!
//! | key | beside it | expected |
//! | --- | --- | --- |
//! | `event` | `frames`, `count`, `public` | at least one such event in these frames, or exactly `count` (0: none); `public = false`: an internal one |
//! | `result` | `outcome`, `place` | the result of the player of this name |
//! | `state_after` | | the state at the end of this frame, as `holeshot_describe` shows it |
//! | `snapshot_after` | `player`, `hex` | the snapshot of this frame for this player: all of its bytes, or fields of `[snapshot]` |
//! | `ending` | | `"finished"`, `"running"`, `"rules_fault"`, `"too_long"`, `"everyone_left"` or `"not_enough_players"` |
//!
//! `data = { … }` names the parts that have to be there: of an object the keys that it names, of a list all elements. `between = { path = [least, most] }`
//! holds numbers in a range, `absent = ["path"]` says where nothing (or null) may be; a path has dots between its keys and indices, and is quoted then.
//!
//! Besides, the rules must not fail: a fault, a frame that took too long, or one that had to be run twice fails the scenario, unless it expects `ending = "rules_fault"`.

mod compare;
mod fields;
mod file;
mod frames;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use holeshot_room::{Arrival, Fault, Supervision};
use serde::Serialize;
use serde_json::Value;

use super::game::{Ending, Event, Game, describe};
use crate::rules::Module;
use compare::{mismatch, short};
use file::{Deed, Expectation, Expected, Script, What};
use frames::{FirstSeen, Point};

pub use file::{FILE_BYTES_MAX, FileError};

/// Events that a failure shows, of those that came nearest.
const NEAREST_MAX: usize = 3;
/// Names of events that a failure lists.
const NAMES_MAX: usize = 40;

/// What came of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tested {
    /// The file.
    pub file: String,
    /// What the scenario says of itself.
    pub about: String,
    /// Frames that were played.
    pub frames: u32,
    /// How the game ended: a word as for `ending`.
    pub ending: String,
    /// Each expectation, in the order of the file.
    pub checks: Vec<Check>,
    /// Faults of the rules, and why a game did not begin.
    pub faults: Vec<Failure>,
    /// What did not happen because its event was not seen.
    pub notes: Vec<String>,
}

/// One expectation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// Its line in the file, from 1.
    pub line: usize,
    /// What was expected.
    pub expected: String,
    /// What was found instead; none if it came true.
    pub failure: Option<String>,
}

/// The rules failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What happened.
    pub message: String,
    /// Where in the module, as far as it tells.
    pub backtrace: Option<String>,
}

impl Tested {
    /// Whether everything came true.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.faults.is_empty() && self.checks.iter().all(|check| check.failure.is_none())
    }
}

/// Plays the scenario of a file against a module.
///
/// # Errors
/// The file is no scenario. What does not come true is in the report.
pub fn test(module: &Arc<Module>, path: &Path) -> Result<Tested, FileError> {
    let script = file::read(path, module.manifest())?;
    Ok(run(module, &path.display().to_string(), &script))
}

/// Reads a scenario without playing it, for [`crate::fuzzing`]: its number of frames, plays, deeds and expectations.
pub(crate) fn parsed(text: &str, manifest: &holeshot_abi::Manifest) -> Result<[usize; 4], FileError> {
    let script = file::parse("scenario.toml", text, manifest)?;
    Ok([script.frames as usize, script.plays.len(), script.deeds.len(), script.expectations.len()])
}

fn run(module: &Arc<Module>, file: &str, script: &Script) -> Tested {
    let mut tested = Tested {
        file: file.to_owned(),
        about: script.about.clone(),
        frames: 0,
        ending: "running".to_owned(),
        checks: Vec::new(),
        faults: Vec::new(),
        notes: Vec::new(),
    };
    let mut supervision = Supervision::default();
    if script.expectations.iter().any(|expectation| matches!(expectation.what, Expected::State { .. })) {
        // The room's checkpoints are the states that are looked at.
        supervision.checkpoint_frames = 1;
    }
    let game = match Game::begin(module, script.setup.clone(), supervision) {
        Ok(game) => game,
        Err(error) => {
            tested.faults.push(Failure { message: format!("the game does not begin: {error}"), backtrace: None });
            return tested;
        }
    };
    let mut played = Played::new(game, script);
    played.play();
    played.report(&mut tested);
    tested
}

/// A scenario that is played.
struct Played<'a> {
    game: Game,
    script: &'a Script,
    seen: FirstSeen,
    /// The frame of each event, by its index: of one that has none, the frame that came next.
    event_frames: Vec<u32>,
    done: Vec<bool>,
    active: Vec<bool>,
    /// Inputs on their way: before which frame they arrive, whose, for which frame.
    late: Vec<(u32, u16, u32, Vec<u8>)>,
    action_id: u64,
    /// What was looked at, by the index of the expectation.
    looked: Vec<Option<Result<Value, String>>>,
    frames: u32,
}

impl<'a> Played<'a> {
    fn new(game: Game, script: &'a Script) -> Self {
        let mut played = Self {
            game,
            script,
            seen: FirstSeen::new(),
            event_frames: Vec::new(),
            done: vec![false; script.deeds.len()],
            active: vec![false; script.plays.len()],
            late: Vec::new(),
            action_id: 0,
            looked: vec![None; script.expectations.len()],
            frames: 0,
        };
        played.note_events(0);
        played
    }

    fn play(&mut self) {
        while let Some(frame) = self.game.next_frame().filter(|frame| *frame < self.script.frames) {
            self.do_deeds(frame);
            self.send_inputs(frame);
            self.game.step();
            self.frames = frame.saturating_add(1);
            self.note_events(frame);
            self.look(frame);
        }
    }

    fn do_deeds(&mut self, frame: u32) {
        for (deed, done) in self.script.deeds.iter().zip(&mut self.done) {
            if *done || deed.before.frame(&self.seen).is_none_or(|before| i64::from(frame) < before) {
                continue;
            }
            *done = true;
            let player = deed.player;
            self.game.handle(match &deed.what {
                What::Action(json) => {
                    self.action_id += 1;
                    Arrival::Action { player, id: self.action_id, json }
                }
                What::Quit => Arrival::Quit { player },
                What::Removed => Arrival::Remove { player },
                What::Disconnect => Arrival::Disconnected { player },
                What::Return => Arrival::Connected { player },
            });
        }
    }

    fn send_inputs(&mut self, frame: u32) {
        let arrived = |(due, ..): &(u32, u16, u32, Vec<u8>)| *due <= frame;
        for (_, player, for_frame, bytes) in self.late.extract_if(.., |late| arrived(late)) {
            self.game.handle(Arrival::Input { player, frame: for_frame, bytes: &bytes });
        }
        let covers = |players: &[u16], player: u16| players.contains(&player);
        for player in 0..self.game.players() {
            let mut plays = self.script.plays.iter().enumerate().rev();
            let Some((at, play)) =
                plays.find(|(_, play)| covers(&play.players, player) && play.frames.contain(frame, &self.seen))
            else {
                continue;
            };
            if let Some(active) = self.active.get_mut(at) {
                *active = true;
            }
            let mut losses = self.script.losses.iter();
            if losses.any(|(players, frames)| covers(players, player) && frames.contain(frame, &self.seen)) {
                continue;
            }
            let mut late = self.script.late.iter();
            match late.find(|(players, frames, _)| covers(players, player) && frames.contain(frame, &self.seen)) {
                Some((_, _, by_frames)) if *by_frames > 0 => {
                    self.late.push((frame.saturating_add(*by_frames), player, frame, play.bytes.clone()));
                }
                _ => self.game.handle(Arrival::Input { player, frame, bytes: &play.bytes }),
            }
        }
    }

    fn note_events(&mut self, frame: u32) {
        for event in self.game.told().events.iter().skip(self.event_frames.len()) {
            let frame = event.frame.unwrap_or(frame);
            self.event_frames.push(frame);
            self.seen.entry(event.name.clone()).or_insert(frame);
        }
    }

    /// Looks at states and snapshots that are expected after this frame.
    fn look(&mut self, frame: u32) {
        for (expectation, looked) in self.script.expectations.iter().zip(&mut self.looked) {
            let (Expected::State { after } | Expected::Snapshot { after, .. }) = &expectation.what else { continue };
            let Some(after) = after.frame(&self.seen).filter(|_| looked.is_none()) else { continue };
            if after < i64::from(frame) {
                let problem = "that frame had passed when the event was seen; count from 0 on";
                *looked = Some(Err(problem.into()));
            } else if after == i64::from(frame) {
                *looked = Some(match &expectation.what {
                    Expected::Snapshot { player, hex, .. } => self.game.snapshot(*player, frame).and_then(|bytes| {
                        let as_hex = || Value::String(fields::hex(bytes));
                        if hex.is_some() { Ok(as_hex()) } else { self.script.snapshot.decode(bytes) }
                    }),
                    _ => self.game.state(frame),
                });
            }
        }
    }

    fn report(&self, tested: &mut Tested) {
        let told = self.game.told();
        tested.frames = self.frames;
        tested.ending = match &told.ending {
            None => "running",
            Some(Ending::Finished { .. }) => "finished",
            Some(Ending::Aborted { reason, .. }) => reason.as_str(),
        }
        .to_owned();
        let fault_expected = self
            .script
            .expectations
            .iter()
            .any(|expectation| matches!(&expectation.what, Expected::Ending(ending) if ending == "rules_fault"));
        if !fault_expected {
            let failure = |(frame, fault, end): &(u32, Fault, super::game::FaultEnd)| Failure {
                message: format!("frame {frame}: {fault}; {}", end.as_str()),
                backtrace: fault.backtrace.clone(),
            };
            tested.faults.extend(told.faults.iter().map(failure));
        }
        for (index, expectation) in self.script.expectations.iter().enumerate() {
            let (expected, failure) = self.check(index, expectation, &tested.ending);
            tested.checks.push(Check { line: expectation.line, expected, failure });
        }
        let not_seen = |point: &Point| point.event().filter(|event| !self.seen.contains_key(*event)).map(str::to_owned);
        for (deed, _) in self.script.deeds.iter().zip(&self.done).filter(|(_, done)| !**done) {
            let why = not_seen(&deed.before).map_or_else(
                || format!("the game was over before frame {}", deed.before),
                |event| format!("there was no event `{event}`"),
            );
            tested.notes.push(format!("{} never happened: {why}", deed.describe(self.script)));
        }
        for (play, _) in self.script.plays.iter().zip(&self.active).filter(|(_, active)| !**active) {
            tested.notes.push(format!("what is played in frames {} was never sent", play.frames));
        }
    }

    /// What was expected, and what was found instead.
    fn check(&self, index: usize, expectation: &Expectation, ending: &str) -> (String, Option<String>) {
        let values = &expectation.values;
        let with = values.data.as_ref().map(|data| format!(" with {}", short(data))).unwrap_or_default();
        match &expectation.what {
            Expected::Event { name, frames, count, public } => {
                let mut expected = match count {
                    None => format!("event `{name}`"),
                    Some(0) => format!("no event `{name}`"),
                    Some(1) => format!("one event `{name}`"),
                    Some(count) => format!("{count} events `{name}`"),
                };
                if let Some(frames) = frames {
                    expected += &format!(" at {frames}");
                }
                let events = self.game.told().events.iter().zip(&self.event_frames);
                let candidates: Vec<(&Event, u32)> = events
                    .map(|(event, frame)| (event, *frame))
                    .filter(|(event, _)| event.name == *name && public.is_none_or(|public| event.public == public))
                    .collect();
                let in_frames = |frame: u32| frames.as_ref().is_none_or(|frames| frames.contain(frame, &self.seen));
                let problem = |event: &Event, frame: u32| {
                    if in_frames(frame) { mismatch(values, &event.data) } else { Some("not in these frames".into()) }
                };
                let matching: Vec<_> =
                    candidates.iter().filter(|(event, frame)| problem(event, *frame).is_none()).collect();
                let fine = count.map_or(!matching.is_empty(), |count| matching.len() == count);
                let failure = (!fine).then(|| self.nearest(name, matching.len(), &candidates, problem));
                (expected + &with, failure)
            }
            Expected::Result { player, name, outcome, place } => {
                let mut expected = format!("result of {name}");
                if let Some(outcome) = outcome {
                    expected += &format!(": {outcome}");
                }
                if let Some(place) = place {
                    expected += &format!(", place {place}");
                }
                (expected + &with, self.check_result(*player, outcome.as_deref(), *place, values, ending))
            }
            Expected::State { after } => {
                (format!("state after frame {after}{with}"), self.check_looked(index, after, values, None))
            }
            Expected::Snapshot { after, name, hex, .. } => {
                let expected = format!("snapshot of {name} after frame {after}{with}");
                (expected, self.check_looked(index, after, values, hex.as_deref()))
            }
            Expected::Ending(wanted) => {
                let failure = (wanted != ending)
                    .then(|| format!("expected {wanted}, found {ending} after {} frames", self.frames));
                (format!("ending: {wanted}"), failure)
            }
        }
    }

    fn nearest(
        &self,
        name: &str,
        matching: usize,
        candidates: &[(&Event, u32)],
        problem: impl Fn(&Event, u32) -> Option<String>,
    ) -> String {
        let mut text = format!("found {matching} that match");
        if candidates.is_empty() {
            let mut names: Vec<String> = self.seen.iter().map(|(name, frame)| format!("{name}@{frame}")).collect();
            if names.len() > NAMES_MAX {
                names.truncate(NAMES_MAX);
                names.push("…".into());
            }
            return text + &format!("; there was no event `{name}`. There were {}", names.join(", "));
        }
        for (event, frame) in candidates.iter().take(NEAREST_MAX) {
            let problem = problem(event, *frame).unwrap_or_else(|| "matches".into());
            text += &format!("\nframe {frame}: {problem}\n  data {}", short(&event.data));
        }
        if candidates.len() > NEAREST_MAX {
            text += &format!("\n… and {} more", candidates.len() - NEAREST_MAX);
        }
        text
    }

    fn check_result(
        &self,
        player: u16,
        outcome: Option<&str>,
        place: Option<u16>,
        values: &file::Values,
        ending: &str,
    ) -> Option<String> {
        let Some(Ending::Finished { results, .. }) = &self.game.told().ending else {
            return Some(format!("there are no results: the game is {ending} after {} frames", self.frames));
        };
        let Some(result) = results.iter().find(|result| result.player == player) else {
            return Some("the results leave this player out".into());
        };
        let found = format!(
            "found {}, place {}\n  data {}",
            result.outcome,
            result.place.map_or_else(|| "none".into(), |place| place.to_string()),
            short(&result.data)
        );
        if outcome.is_some_and(|outcome| outcome != result.outcome) || (place.is_some() && place != result.place) {
            return Some(found);
        }
        mismatch(values, &result.data).map(|problem| format!("{problem}\n{found}"))
    }

    fn check_looked(&self, index: usize, after: &Point, values: &file::Values, hex: Option<&[u8]>) -> Option<String> {
        let Some(Some(looked)) = self.looked.get(index) else {
            return Some(match after.event().filter(|event| !self.seen.contains_key(*event)) {
                Some(event) => format!("there was no event `{event}`"),
                None => format!("the game was left before it, after {} frames", self.frames),
            });
        };
        let found = match looked {
            Ok(found) => found,
            Err(problem) => return Some(problem.clone()),
        };
        if let Some(hex) = hex {
            let wanted = fields::hex(hex);
            return (found.as_str() != Some(&wanted)).then(|| format!("expected {wanted}\nfound    {}", short(found)));
        }
        mismatch(values, found).map(|problem| format!("{problem}\n  found {}", short(found)))
    }
}

impl Deed {
    fn describe(&self, script: &Script) -> String {
        let name = script.setup.players.get(usize::from(self.player)).map_or("", |player| player.name.as_str());
        let what = match &self.what {
            What::Action(json) => format!("action {json}"),
            What::Quit => "leaving".into(),
            What::Removed => "removal".into(),
            What::Disconnect => "loss of the connection".into(),
            What::Return => "return".into(),
        };
        format!("{what} of {name} before frame {}", self.before)
    }
}

impl Game {
    /// The bytes that a player saw at the end of a frame.
    fn snapshot(&self, player: u16, frame: u32) -> Result<&[u8], String> {
        match self.told().snapshots.get(usize::from(player)) {
            Some(Some((found, bytes))) if *found == frame => Ok(bytes),
            Some(Some((found, _))) => Err(format!("the last snapshot that this player got is of frame {found}")),
            _ => Err("this player got no snapshot".into()),
        }
    }

    /// The state at the end of a frame, as the module describes it.
    fn state(&self, frame: u32) -> Result<Value, String> {
        let Some((next_frame, version, state)) = &self.told().checkpoint else {
            return Err("no state was saved".into());
        };
        if *next_frame != frame.saturating_add(1) {
            return Err(
                "the game was over with that frame, and no state is saved then; look at the frame before".into()
            );
        }
        match describe(self.program(), *version, state) {
            Ok(Some(text)) => serde_json::from_str(&text).map_err(|error| error.to_string()),
            Ok(None) => Err("the module does not export holeshot_describe, so its state cannot be shown".into()),
            Err(fault) => Err(format!("the state cannot be shown: {fault}")),
        }
    }
}
