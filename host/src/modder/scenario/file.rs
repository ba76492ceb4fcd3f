//! A scenario's file, from TOML to a script that can be played. Each mistake is told with the file, the line and what to write instead.

use std::fmt;
use std::path::Path;

use holeshot_abi::{Manifest, PlayerSetup, Setup};
use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Spanned;

use super::fields::{Layout, parse_hex};
use super::frames::{Frames, Point};
use crate::files::read_text;

/// Longest file of a scenario in bytes: thousands of entries.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file that is no scenario.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {problem}", line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct FileError {
    /// The file.
    pub file: String,
    /// The line of the entry that is wrong, from 1; none where it is the whole file.
    pub line: Option<usize>,
    /// What is wrong, and what to write.
    pub problem: String,
}

/// What is played and what has to come of it.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) about: String,
    pub(super) setup: Setup,
    /// The game is left after so many frames.
    pub(super) frames: u32,
    pub(super) snapshot: Layout,
    pub(super) plays: Vec<Play>,
    /// Inputs that never arrive.
    pub(super) losses: Vec<(Vec<u16>, Frames)>,
    /// Inputs that arrive so many frames after the one that they are for.
    pub(super) late: Vec<(Vec<u16>, Frames, u32)>,
    pub(super) deeds: Vec<Deed>,
    pub(super) expectations: Vec<Expectation>,
}

#[derive(Debug, Clone)]
pub(super) struct Play {
    pub(super) players: Vec<u16>,
    pub(super) frames: Frames,
    pub(super) bytes: Vec<u8>,
}

/// Something that a player does before a frame.
#[derive(Debug, Clone)]
pub(super) struct Deed {
    pub(super) player: u16,
    pub(super) before: Point,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Action(String),
    Quit,
    Removed,
    Disconnect,
    Return,
}

/// Something that has to come of it.
#[derive(Debug, Clone)]
pub(super) struct Expectation {
    pub(super) line: usize,
    pub(super) what: Expected,
    pub(super) values: Values,
}

#[derive(Debug, Clone)]
pub(super) enum Expected {
    Event { name: String, frames: Option<Frames>, count: Option<usize>, public: Option<bool> },
    Result { player: u16, name: String, outcome: Option<String>, place: Option<u16> },
    State { after: Point },
    Snapshot { after: Point, player: u16, name: String, hex: Option<Vec<u8>> },
    Ending(String),
}

/// What data has to be: parts of it, ranges by path, and paths where there is nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Values {
    pub(super) data: Option<Value>,
    pub(super) between: Vec<(String, f64, f64)>,
    pub(super) absent: Vec<String>,
}

/// Words for `ending`.
pub(super) const ENDINGS: [&str; 6] =
    ["finished", "running", "rules_fault", "too_long", "everyone_left", "not_enough_players"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    about: String,
    #[serde(default)]
    room: RoomTable,
    #[serde(default, rename = "player")]
    players: Vec<Spanned<PlayerTable>>,
    input: Option<Spanned<LayoutTable>>,
    snapshot: Option<Spanned<LayoutTable>>,
    #[serde(default)]
    play: Vec<Spanned<PlayTable>>,
    #[serde(default)]
    lose: Vec<Spanned<LoseTable>>,
    #[serde(default)]
    late: Vec<Spanned<LateTable>>,
    #[serde(default)]
    action: Vec<Spanned<ActionTable>>,
    #[serde(default)]
    leave: Vec<Spanned<LeaveTable>>,
    #[serde(default, rename = "return")]
    comes_back: Vec<Spanned<ReturnTable>>,
    #[serde(default)]
    expect: Vec<Spanned<ExpectTable>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoomTable {
    seed: Option<u64>,
    tick_hz: Option<u32>,
    options: Option<toml::Value>,
    frames: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlayerTable {
    name: String,
    data: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LayoutTable {
    fields: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`player` is a name, or a list of names")]
enum Names {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlayTable {
    player: Names,
    frames: Frames,
    input: Option<toml::Table>,
    hex: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoseTable {
    player: Names,
    frames: Frames,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LateTable {
    player: Names,
    frames: Frames,
    by_frames: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionTable {
    player: Names,
    frame: Point,
    data: toml::Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeaveTable {
    player: Names,
    frame: Point,
    #[serde(default)]
    how: How,
}

#[derive(Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    #[default]
    Quit,
    Removed,
    ConnectionLost,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReturnTable {
    player: Names,
    frame: Point,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectTable {
    event: Option<String>,
    frames: Option<Frames>,
    count: Option<usize>,
    public: Option<bool>,
    result: Option<String>,
    outcome: Option<String>,
    place: Option<u16>,
    state_after: Option<Point>,
    snapshot_after: Option<Point>,
    player: Option<String>,
    hex: Option<String>,
    ending: Option<String>,
    data: Option<toml::Value>,
    #[serde(default)]
    between: toml::Table,
    #[serde(default)]
    absent: Vec<String>,
}

/// Reads a scenario for a module with this manifest.
pub(super) fn read(path: &Path, manifest: &Manifest) -> Result<Script, FileError> {
    let file = path.display().to_string();
    let text = read_text(path, FILE_BYTES_MAX).map_err(|error| FileError {
        file: file.clone(),
        line: None,
        problem: error.to_string(),
    })?;
    parse(&file, &text, manifest)
}

/// As [`read`], of a text; `file` names it in errors.
pub(super) fn parse(file: &str, text: &str, manifest: &Manifest) -> Result<Script, FileError> {
    let reader = Reader { file, text, manifest, players: Vec::new(), input: None };
    let found: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| reader.line(span.start));
        FileError { file: file.to_owned(), line, problem: error.message().to_owned() }
    })?;
    reader.script(found)
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    manifest: &'a Manifest,
    players: Vec<String>,
    input: Option<Layout>,
}

impl Reader<'_> {
    fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count()
    }

    /// An error of an entry.
    fn wrong<T>(&self, entry: &Spanned<T>, problem: impl fmt::Display) -> FileError {
        FileError {
            file: self.file.to_owned(),
            line: Some(self.line(entry.span().start)),
            problem: problem.to_string(),
        }
    }

    fn script(mut self, file: File) -> Result<Script, FileError> {
        let whole = |problem: String| FileError { file: self.file.to_owned(), line: None, problem };
        let mut players = Vec::new();
        for entry in &file.players {
            let PlayerTable { name, data } = entry.get_ref();
            if self.players.contains(name) {
                return Err(self.wrong(entry, format_args!("two players are named {name:?}; a name says who is meant")));
            }
            self.players.push(name.clone());
            players.push(PlayerSetup { name: name.clone(), data: data.as_ref().map(json_text).unwrap_or_default() });
        }
        if players.is_empty() {
            return Err(whole("there is no player; write a [[player]] with a `name` for each".into()));
        }
        let mut snapshot = Layout::default();
        for (entry, target) in [(&file.input, None), (&file.snapshot, Some(&mut snapshot))] {
            let Some(entry) = entry else { continue };
            let layout = Layout::parse(&entry.get_ref().fields).map_err(|problem| self.wrong(entry, problem))?;
            match target {
                Some(target) => *target = layout,
                None => self.input = Some(layout),
            }
        }
        let mut script = Script {
            about: file.about,
            setup: Setup {
                seed: file.room.seed.unwrap_or(1),
                tick_hz: file.room.tick_hz.unwrap_or(self.manifest.tick_hz),
                options: file.room.options.as_ref().map(json_text).unwrap_or_default(),
                players,
            },
            frames: file.room.frames.unwrap_or(self.manifest.frames_max),
            snapshot,
            plays: Vec::new(),
            losses: Vec::new(),
            late: Vec::new(),
            deeds: Vec::new(),
            expectations: Vec::new(),
        };
        for entry in &file.play {
            let play = entry.get_ref();
            let players = self.slots(entry, &play.player)?;
            let bytes = self.input_bytes(play).map_err(|problem| self.wrong(entry, problem))?;
            script.plays.push(Play { players, frames: play.frames.clone(), bytes });
        }
        for entry in &file.lose {
            let LoseTable { player, frames } = entry.get_ref();
            script.losses.push((self.slots(entry, player)?, frames.clone()));
        }
        for entry in &file.late {
            let LateTable { player, frames, by_frames } = entry.get_ref();
            script.late.push((self.slots(entry, player)?, frames.clone(), *by_frames));
        }
        for entry in &file.action {
            let ActionTable { player, frame, data } = entry.get_ref();
            self.deeds(&mut script, entry, player, frame, &What::Action(json_text(data)))?;
        }
        for entry in &file.leave {
            let LeaveTable { player, frame, how } = entry.get_ref();
            let what = match how {
                How::Quit => What::Quit,
                How::Removed => What::Removed,
                How::ConnectionLost => What::Disconnect,
            };
            self.deeds(&mut script, entry, player, frame, &what)?;
        }
        for entry in &file.comes_back {
            let ReturnTable { player, frame } = entry.get_ref();
            self.deeds(&mut script, entry, player, frame, &What::Return)?;
        }
        for entry in &file.expect {
            let what =
                self.expected(entry.get_ref(), &script.snapshot).map_err(|problem| self.wrong(entry, problem))?;
            let values = values(entry.get_ref()).map_err(|problem| self.wrong(entry, problem))?;
            let line = self.line(entry.span().start);
            script.expectations.push(Expectation { line, what, values });
        }
        if script.expectations.is_empty() {
            return Err(whole(
                "nothing is expected; write an [[expect]], for example with `ending = \"finished\"`".into(),
            ));
        }
        Ok(script)
    }

    fn slot(&self, name: &str) -> Result<u16, String> {
        let slot = self.players.iter().position(|player| player == name);
        slot.map(|slot| slot as u16)
            .ok_or_else(|| format!("no player is named {name:?}; the players are {}", self.players.join(", ")))
    }

    fn slots<T>(&self, entry: &Spanned<T>, names: &Names) -> Result<Vec<u16>, FileError> {
        let names = match names {
            Names::One(name) => std::slice::from_ref(name),
            Names::Many(names) => names,
        };
        names.iter().map(|name| self.slot(name).map_err(|problem| self.wrong(entry, problem))).collect()
    }

    fn deeds<T>(
        &self,
        script: &mut Script,
        entry: &Spanned<T>,
        player: &Names,
        before: &Point,
        what: &What,
    ) -> Result<(), FileError> {
        for player in self.slots(entry, player)? {
            script.deeds.push(Deed { player, before: before.clone(), what: what.clone() });
        }
        Ok(())
    }

    fn input_bytes(&self, play: &PlayTable) -> Result<Vec<u8>, String> {
        let bytes = match (&play.input, &play.hex, &self.input) {
            (None, Some(hex), _) => parse_hex(hex)?,
            (Some(input), None, Some(layout)) => layout.encode(&json_object(input))?,
            (Some(_), None, None) => {
                return Err("`input` needs a table [input] that declares its `fields`, like [\"throttle:u8\"]; or write the bytes as `hex`".into());
            }
            _ => return Err("what is played is either `input` or `hex`".into()),
        };
        let most = usize::from(self.manifest.input_bytes_max);
        if bytes.len() > most {
            return Err(format!("the input has {} bytes, and the module takes at most {most}", bytes.len()));
        }
        Ok(bytes)
    }

    fn expected(&self, table: &ExpectTable, snapshot: &Layout) -> Result<Expected, String> {
        let kinds = [
            ("event", table.event.is_some(), &["frames", "count", "public", "data", "between", "absent"][..]),
            ("result", table.result.is_some(), &["outcome", "place", "data", "between", "absent"]),
            ("state_after", table.state_after.is_some(), &["data", "between", "absent"]),
            ("snapshot_after", table.snapshot_after.is_some(), &["player", "hex", "data", "between", "absent"]),
            ("ending", table.ending.is_some(), &[]),
        ];
        let given: Vec<_> = kinds.iter().filter(|(_, given, _)| *given).collect();
        let [(kind, _, allowed)] = given[..] else {
            return Err(
                "an [[expect]] has exactly one of `event`, `result`, `state_after`, `snapshot_after` and `ending`"
                    .into(),
            );
        };
        let beside = [
            ("frames", table.frames.is_some()),
            ("count", table.count.is_some()),
            ("public", table.public.is_some()),
            ("outcome", table.outcome.is_some()),
            ("place", table.place.is_some()),
            ("player", table.player.is_some()),
            ("hex", table.hex.is_some()),
            ("data", table.data.is_some()),
            ("between", !table.between.is_empty()),
            ("absent", !table.absent.is_empty()),
        ];
        if let Some((key, _)) = beside.iter().find(|(key, given)| *given && !allowed.contains(key)) {
            return Err(format!("`{key}` says nothing beside `{kind}`"));
        }
        if let Some(name) = &table.event {
            return Ok(Expected::Event {
                name: name.clone(),
                frames: table.frames.clone(),
                count: table.count,
                public: table.public,
            });
        }
        if let Some(name) = &table.result {
            let outcome = table.outcome.clone();
            return Ok(Expected::Result { player: self.slot(name)?, name: name.clone(), outcome, place: table.place });
        }
        if let Some(after) = &table.state_after {
            return Ok(Expected::State { after: after.clone() });
        }
        if let Some(after) = &table.snapshot_after {
            let name = match (&table.player, &self.players[..]) {
                (Some(name), _) => name.clone(),
                (None, [name]) => name.clone(),
                (None, _) => return Err("`snapshot_after` needs a `player`: each may see something else".into()),
            };
            if table.hex.is_none() && *snapshot == Layout::default() {
                return Err("a snapshot is compared as `hex`, or by fields that a table [snapshot] declares, like [\"frame:u32\"]".into());
            }
            let hex = table.hex.as_deref().map(parse_hex).transpose()?;
            return Ok(Expected::Snapshot { after: after.clone(), player: self.slot(&name)?, name, hex });
        }
        let ending = table.ending.clone().unwrap_or_default();
        if !ENDINGS.contains(&ending.as_str()) {
            return Err(format!("`ending` is one of {}", ENDINGS.join(", ")));
        }
        Ok(Expected::Ending(ending))
    }
}

fn values(table: &ExpectTable) -> Result<Values, String> {
    let mut between = Vec::new();
    for (path, range) in &table.between {
        let numbers: Option<Vec<f64>> = range.as_array().map(|range| {
            range.iter().filter_map(|end| end.as_float().or_else(|| end.as_integer().map(|end| end as f64))).collect()
        });
        match numbers.as_deref() {
            Some(&[min, max]) if min <= max => between.push((path.clone(), min, max)),
            _ => {
                return Err(format!(
                    "`between.{path}` is a list of the least and the most, like [0.0, 0.5]; a path into the data is quoted: {{ \"lanes.0.reaction_s\" = [0.0, 0.5] }}"
                ));
            }
        }
    }
    Ok(Values { data: table.data.as_ref().map(json), between, absent: table.absent.clone() })
}

fn json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(is) => (*is).into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(list) => list.iter().map(json).collect(),
        toml::Value::Table(table) => Value::Object(json_object(table)),
    }
}

fn json_object(table: &toml::Table) -> Map<String, Value> {
    table.iter().map(|(key, value)| (key.clone(), json(value))).collect()
}

fn json_text(value: &toml::Value) -> String {
    json(value).to_string()
}
