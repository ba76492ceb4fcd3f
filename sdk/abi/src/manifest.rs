//! The manifest: what a module says of itself. JSON is read and written by those who link this crate.

use alloc::string::{String, ToString};
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::{INPUT_BYTES_MAX, PLAYERS_MAX};

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
    /// Ticks per second, 1 to 128.
    #[serde(default = "tick_hz_default")]
    pub tick_hz: u32,
    /// How long the cutscene lasts between the last player's *ready* and the countdown, in milliseconds, up to 60,000.
    #[serde(default)]
    pub cutscene_ms: u32,
    /// Number of countdown events before frame 0, up to 10.
    #[serde(default)]
    pub countdown_steps: u32,
    /// Time between two countdown events and between the last one and frame 0, in milliseconds, 1 to 10,000.
    #[serde(default = "countdown_step_ms_default")]
    pub countdown_step_ms: u32,
    /// Longest input of one player for one frame, in bytes, up to [`INPUT_BYTES_MAX`].
    pub input_bytes_max: u16,
    /// How many frames of input the host keeps per player: an input further ahead of the current frame is dropped. 1 to 256.
    #[serde(default = "input_track_frames_default")]
    pub input_track_frames: u16,
    /// A game that has not finished after this many frames is aborted by the host. 1 to [`FRAMES_MAX`](Manifest::FRAMES_MAX).
    #[serde(default = "frames_max_default")]
    pub frames_max: u32,
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
        }
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field out of range.
    pub fn validate(&self) -> Result<(), ManifestError> {
        let check = |fine: bool, field, value: &dyn fmt::Debug, accepted| {
            if fine { Ok(()) } else { Err(ManifestError { field, value: alloc::format!("{value:?}"), accepted }) }
        };
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
        check((1..=Self::FRAMES_MAX).contains(&self.frames_max), "frames_max", &self.frames_max, "1 to 4320000")
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

    #[test]
    fn optional_fields_have_defaults_and_unknown_ones_are_ignored() {
        let text = r#"{"name":"g","version":"1","state_version":1,"players_min":1,"players_max":2,"input_bytes_max":3,"later":[]}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        assert_eq!(manifest, Manifest::new("g", "1", 1..=2, 3));
        manifest.validate().unwrap();
        assert_eq!(manifest.input_stride_bytes(), 4);
    }

    #[test]
    fn every_range_is_kept() {
        type Spoil = fn(&mut Manifest);
        let spoils: [(&str, Spoil); 14] = [
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
        ];
        for (field, spoil) in spoils {
            let mut manifest = Manifest::new("g", "1", 1..=2, 3);
            spoil(&mut manifest);
            assert_eq!(manifest.validate().unwrap_err().field, field);
        }
    }
}
