//! The manifest: what a module says of itself. JSON is read and written by those who link this crate.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::{
    INPUT_BYTES_MAX, LEADERBOARD_FIELD_BYTES_MAX, LEADERBOARD_GROUP_FIELDS_MAX, LEADERBOARDS_MAX, PLAYERS_MAX,
};

/// What a module says of itself and asks of its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The game, 1 to 64 characters of `a-z 0-9 -`, beginning with a letter. It appears in topics and records.
    pub name: String,
    /// The module's own version, 1 to 32 printable ASCII characters; semantic versions by custom.
    pub version: String,
    /// Version of the bytes that `holeshot_save` gives: changes when their meaning does.
    pub state_version: u32,
    /// Fewest players a game can start with, 1 to `players_max`.
    pub players_min: u16,
    /// Most player slots a room can have, up to [`PLAYERS_MAX`].
    pub players_max: u16,
    /// Ticks per second, 1 to 128; 50 if absent.
    #[serde(default = "tick_hz_default")]
    pub tick_hz: u32,
    /// How long the cutscene lasts between the last player's *ready* and the countdown, in milliseconds, up to 60,000; 0, no
    /// cutscene, if absent.
    #[serde(default)]
    pub cutscene_ms: u32,
    /// Number of countdown events before frame 0, up to 10; 0 if absent.
    #[serde(default)]
    pub countdown_steps: u32,
    /// Time between two countdown events and between the last one and frame 0, in milliseconds, 1 to 10,000; 1,000 if
    /// absent.
    #[serde(default = "countdown_step_ms_default")]
    pub countdown_step_ms: u32,
    /// Longest input of one player for one frame, in bytes, up to [`INPUT_BYTES_MAX`].
    pub input_bytes_max: u16,
    /// How many frames of input the host keeps per player: an input further ahead of the current frame is dropped. 1 to 256; 64 if
    /// absent.
    #[serde(default = "input_track_frames_default")]
    pub input_track_frames: u16,
    /// A game that has not finished after this many frames is aborted by the host. 1 to [`FRAMES_MAX`](Manifest::FRAMES_MAX), 4,320,000, which it is if absent.
    #[serde(default = "frames_max_default")]
    pub frames_max: u32,
    /// What of the results is kept as records, since 1.2; none if absent; up to [`LEADERBOARDS_MAX`], each with a name of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaderboards: Vec<Leaderboard>,
}

/// A list of the best scores, one entry per player, made by the manager from the results of finished rooms. The fields that it names are fields of
/// the object in a result's `data`. A result counts if that object has the field `score` with a number, and every field of `group_by` with a
/// text or a number; otherwise it counts for no list of this name, which is how rules leave a foul out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaderboard {
    /// Its name, 1 to 64 characters of `a-z 0-9 -`.
    pub name: String,
    /// The field with the score, 1 to [`LEADERBOARD_FIELD_BYTES_MAX`] bytes.
    pub score: String,
    /// Which score is the best.
    pub best: Best,
    /// Fields whose values must be the same for scores to be compared, each 1 to [`LEADERBOARD_FIELD_BYTES_MAX`] bytes; up to
    /// [`LEADERBOARD_GROUP_FIELDS_MAX`]. None: one list for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group_by: Vec<String>,
}

/// Which score is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Best {
    /// A time, say.
    Lowest,
    /// Points, say.
    Highest,
}

impl Leaderboard {
    /// A list where the lowest score is the best, for all results together.
    #[must_use]
    pub fn lowest(name: &str, score: &str) -> Self {
        Self { name: name.to_string(), score: score.to_string(), best: Best::Lowest, group_by: Vec::new() }
    }

    /// A list where the highest score is the best, for all results together.
    #[must_use]
    pub fn highest(name: &str, score: &str) -> Self {
        Self { best: Best::Highest, ..Self::lowest(name, score) }
    }

    /// The same with a list of its own for each combination of these fields' values.
    #[must_use]
    pub fn group_by<'a>(mut self, fields: impl IntoIterator<Item = &'a str>) -> Self {
        self.group_by = fields.into_iter().map(ToString::to_string).collect();
        self
    }

    /// Checks the leaderboards of one manifest.
    ///
    /// # Errors
    /// The first field out of range.
    pub fn validate_all(boards: &[Self]) -> Result<(), ManifestError> {
        check(boards.len() <= LEADERBOARDS_MAX, "leaderboards", &boards.len(), "up to 8")?;
        let field_is_fine = |field: &str| (1..=LEADERBOARD_FIELD_BYTES_MAX).contains(&field.len());
        for (at, board) in boards.iter().enumerate() {
            let name_is_fine = (1..=64).contains(&board.name.len())
                && board.name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
            check(name_is_fine, "leaderboards.name", &board.name, "1 to 64 characters of a-z, 0-9 and -")?;
            let is_new = !boards.iter().take(at).any(|other| other.name == board.name);
            check(is_new, "leaderboards.name", &board.name, "a name that no other leaderboard has")?;
            check(field_is_fine(&board.score), "leaderboards.score", &board.score, "a name of 1 to 64 bytes")?;
            let fields = &board.group_by;
            check(
                fields.len() <= LEADERBOARD_GROUP_FIELDS_MAX,
                "leaderboards.group_by",
                &fields.len(),
                "up to 4 fields",
            )?;
            for (at, field) in fields.iter().enumerate() {
                check(field_is_fine(field), "leaderboards.group_by", field, "names of 1 to 64 bytes")?;
                check(
                    !fields.iter().take(at).any(|other| other == field),
                    "leaderboards.group_by",
                    field,
                    "each once",
                )?;
            }
        }
        Ok(())
    }
}

/// One field against its range.
fn check(fine: bool, field: &'static str, value: &dyn fmt::Debug, accepted: &'static str) -> Result<(), ManifestError> {
    if fine { Ok(()) } else { Err(ManifestError { field, value: alloc::format!("{value:?}"), accepted }) }
}

const fn tick_hz_default() -> u32 {
    50
}
const fn countdown_step_ms_default() -> u32 {
    1_000
}
const fn input_track_frames_default() -> u16 {
    64
}
const fn frames_max_default() -> u32 {
    Manifest::FRAMES_MAX
}

/// A manifest with a field out of its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// The field.
    pub field: &'static str,
    /// The value found.
    pub value: String,
    /// What is accepted.
    pub accepted: &'static str,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "manifest field `{}` is {}; accepted: {}", self.field, self.value, self.accepted)
    }
}

impl core::error::Error for ManifestError {}

impl Manifest {
    /// The longest game: a day at 50 Hz. A room that runs longer is more likely forgotten than played.
    pub const FRAMES_MAX: u32 = 24 * 3600 * 50;

    /// A manifest with the defaults of every optional field.
    #[must_use]
    pub fn new(name: &str, version: &str, players: core::ops::RangeInclusive<u16>, input_bytes_max: u16) -> Self {
        Self {
            name: name.to_string(),
            version: version.to_string(),
            state_version: 1,
            players_min: *players.start(),
            players_max: *players.end(),
            tick_hz: tick_hz_default(),
            cutscene_ms: 0,
            countdown_steps: 0,
            countdown_step_ms: countdown_step_ms_default(),
            input_bytes_max,
            input_track_frames: input_track_frames_default(),
            frames_max: frames_max_default(),
            leaderboards: Vec::new(),
        }
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field out of range.
    pub fn validate(&self) -> Result<(), ManifestError> {
        let name_is_fine = self.name.len() <= 64
            && self.name.starts_with(|c: char| c.is_ascii_lowercase())
            && self.name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        check(name_is_fine, "name", &self.name, "1 to 64 characters of a-z, 0-9 and -, beginning with a letter")?;
        let version_is_fine =
            (1..=32).contains(&self.version.len()) && self.version.bytes().all(|b| b.is_ascii_graphic());
        check(version_is_fine, "version", &self.version, "1 to 32 printable ASCII characters without spaces")?;
        check((1..=PLAYERS_MAX).contains(&usize::from(self.players_max)), "players_max", &self.players_max, "1 to 64")?;
        check(
            (1..=self.players_max).contains(&self.players_min),
            "players_min",
            &self.players_min,
            "1 to players_max",
        )?;
        check((1..=128).contains(&self.tick_hz), "tick_hz", &self.tick_hz, "1 to 128")?;
        check(self.cutscene_ms <= 60_000, "cutscene_ms", &self.cutscene_ms, "0 to 60000")?;
        check(self.countdown_steps <= 10, "countdown_steps", &self.countdown_steps, "0 to 10")?;
        check(
            (1..=10_000).contains(&self.countdown_step_ms),
            "countdown_step_ms",
            &self.countdown_step_ms,
            "1 to 10000",
        )?;
        check(
            usize::from(self.input_bytes_max) <= INPUT_BYTES_MAX,
            "input_bytes_max",
            &self.input_bytes_max,
            "0 to 240",
        )?;
        check(
            (1..=256).contains(&self.input_track_frames),
            "input_track_frames",
            &self.input_track_frames,
            "1 to 256",
        )?;
        check((1..=Self::FRAMES_MAX).contains(&self.frames_max), "frames_max", &self.frames_max, "1 to 4320000")?;
        Leaderboard::validate_all(&self.leaderboards)
    }

    /// Bytes of input per player in a tick record: `input_bytes_max` rounded up to a multiple of 4.
    #[must_use]
    pub const fn input_stride_bytes(&self) -> usize {
        (self.input_bytes_max as usize).next_multiple_of(4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn optional_fields_have_defaults_and_unknown_ones_are_ignored() {
        let text = r#"{"name":"g","version":"1","state_version":1,"players_min":1,"players_max":2,"input_bytes_max":3,"later":[]}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        assert_eq!(manifest, Manifest::new("g", "1", 1..=2, 3));
        manifest.validate().unwrap();
        assert_eq!(manifest.input_stride_bytes(), 4);
    }

    fn board(name: &str) -> Leaderboard {
        Leaderboard::highest(name, "points")
    }

    #[test]
    fn leaderboards_are_read_as_they_are_specified() {
        let text = r#"{"name":"g","version":"1","state_version":1,"players_min":1,"players_max":2,"input_bytes_max":3,
            "leaderboards":[{"name":"lap","score":"lap_s","best":"lowest","group_by":["track"]},
                            {"name":"points","score":"points","best":"highest"}]}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        manifest.validate().unwrap();
        assert_eq!(manifest.leaderboards, [Leaderboard::lowest("lap", "lap_s").group_by(["track"]), board("points")]);
        let again = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&again).unwrap(), manifest);
        // A manifest without any is written as one of version 1.1.
        assert!(!serde_json::to_string(&Manifest::new("g", "1", 1..=2, 3)).unwrap().contains("leaderboards"));
        assert!(serde_json::from_str::<Leaderboard>(r#"{"name":"a","score":"s","best":"middle"}"#).is_err());
    }

    #[test]
    fn every_range_is_kept() {
        type Spoil = fn(&mut Manifest);
        let spoils: [(&str, Spoil); 23] = [
            ("name", |m| m.name = "".into()),
            ("name", |m| m.name = "a/b".into()),
            ("name", |m| m.name = "1up".into()),
            ("name", |m| m.name = "a".repeat(65)),
            ("version", |m| m.version = "1 0".into()),
            ("players_max", |m| m.players_max = 65),
            ("players_min", |m| m.players_min = 3),
            ("tick_hz", |m| m.tick_hz = 0),
            ("cutscene_ms", |m| m.cutscene_ms = 60_001),
            ("countdown_steps", |m| m.countdown_steps = 11),
            ("countdown_step_ms", |m| m.countdown_step_ms = 0),
            ("input_bytes_max", |m| m.input_bytes_max = 241),
            ("input_track_frames", |m| m.input_track_frames = 0),
            ("frames_max", |m| m.frames_max = 0),
            ("leaderboards", |m| m.leaderboards = (0..9).map(|n| board(&n.to_string())).collect()),
            ("leaderboards.name", |m| m.leaderboards = vec![board("")]),
            ("leaderboards.name", |m| m.leaderboards = vec![board("a_b")]),
            ("leaderboards.name", |m| m.leaderboards = vec![board("a"), board("a")]),
            ("leaderboards.score", |m| m.leaderboards = vec![Leaderboard::lowest("a", "")]),
            ("leaderboards.score", |m| m.leaderboards = vec![Leaderboard::lowest("a", &"s".repeat(65))]),
            ("leaderboards.group_by", |m| m.leaderboards = vec![board("a").group_by(["1", "2", "3", "4", "5"])]),
            ("leaderboards.group_by", |m| m.leaderboards = vec![board("a").group_by(["x", "x"])]),
            ("leaderboards.group_by", |m| m.leaderboards = vec![board("a").group_by([""])]),
        ];
        for (field, spoil) in spoils {
            let mut manifest = Manifest::new("g", "1", 1..=2, 3);
            spoil(&mut manifest);
            assert_eq!(manifest.validate().unwrap_err().field, field);
        }
    }
}
