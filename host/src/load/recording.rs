//! Inputs that a journal has: the same game again, in as many rooms as wished, by players who send what the journal's players sent. What is sent late or lost
//! there makes the game another one; it is a load and no replay (`holeshot replay` is).

use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::journal::{self, feed};

/// What one player sent.
#[derive(Debug, Clone, Default)]
struct Player {
    name: String,
    data: Value,
    /// Frame and input, in order.
    inputs: Vec<(u32, Box<[u8]>)>,
    /// Frame and action, in order.
    actions: Vec<(u32, Value)>,
}

/// The players of a journal.
#[derive(Debug, Clone)]
pub struct Recording {
    module: String,
    seed: u64,
    options: Value,
    tick_hz: u32,
    players: Vec<Player>,
}

impl Recording {
    /// Reads a journal's file. Blocks.
    ///
    /// # Errors
    /// It is no journal, or nobody did anything in it.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let journal = journal::read(path)?.journal;
        let setup = journal.setup();
        let of_text = |text: &str| match text {
            "" => Ok(Value::Null),
            text => serde_json::from_str(text).with_context(|| format!("{}: its setup is no JSON", path.display())),
        };
        let mut players = Vec::new();
        for player in &setup.players {
            players.push(Player { name: player.name.clone(), data: of_text(&player.data)?, ..Player::default() });
        }
        let (frames, _) = feed::sent(&journal);
        for (frame, sent) in (0u32..).zip(frames) {
            for (slot, bytes) in sent.inputs {
                if let Some(player) = players.get_mut(usize::from(slot)) {
                    player.inputs.push((frame, bytes));
                }
            }
            for (slot, action) in sent.actions {
                if let Some(player) = players.get_mut(usize::from(slot)) {
                    player.actions.push((frame, of_text(&action)?));
                }
            }
        }
        if players.iter().all(|player| player.inputs.is_empty()) {
            bail!("{}: nobody sent an input in this journal", path.display());
        }
        Ok(Self {
            module: journal.manifest().name.clone(),
            seed: setup.seed,
            options: of_text(&setup.options)?,
            tick_hz: setup.tick_hz,
            players,
        })
    }

    /// The name of the rules module that it was played under.
    #[must_use]
    pub fn module(&self) -> &str {
        &self.module
    }

    /// The seed of its room.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The options of its room.
    #[must_use]
    pub const fn options(&self) -> &Value {
        &self.options
    }

    /// How many players it has.
    #[must_use]
    pub fn players(&self) -> usize {
        self.players.len()
    }

    /// A player as a room is opened with it.
    #[must_use]
    pub fn player(&self, slot: usize) -> Value {
        match self.players.get(slot) {
            Some(Player { name, data: Value::Null, .. }) => json!({ "name": name }),
            Some(Player { name, data, .. }) => json!({ "name": name, "data": data }),
            None => Value::Null,
        }
    }

    /// The player's name.
    #[must_use]
    pub fn name(&self, slot: usize) -> &str {
        self.players.get(slot).map_or("", |player| &player.name)
    }

    /// What the player sent for a frame, or last before it.
    #[must_use]
    pub fn input(&self, slot: usize, frame: u32) -> &[u8] {
        let Some(player) = self.players.get(slot) else { return &[] };
        let until = player.inputs.partition_point(|(at, _)| *at <= frame);
        // Before the first one the first: the controls were there, and the player not yet.
        let input = player.inputs.get(until.saturating_sub(1));
        input.map_or(&[], |(_, bytes)| bytes)
    }

    /// The player's actions, with the time after the start of the game at which they took effect, in milliseconds.
    #[must_use]
    pub fn actions(&self, slot: usize) -> Vec<(u64, Value)> {
        let actions = self.players.get(slot).map(|player| player.actions.as_slice()).unwrap_or_default();
        let at_ms = |frame: u32| u64::from(frame) * 1_000 / u64::from(self.tick_hz.max(1));
        actions.iter().map(|(frame, action)| (at_ms(*frame), action.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(inputs: &[(u32, &[u8])]) -> Recording {
        let inputs = inputs.iter().map(|(frame, bytes)| (*frame, (*bytes).into())).collect();
        let actions = vec![(0, json!({ "ready": true })), (75, json!({ "horn": 1 }))];
        let player = Player { name: "Ada".into(), data: Value::Null, inputs, actions };
        Recording { module: "m".into(), seed: 1, options: Value::Null, tick_hz: 50, players: vec![player] }
    }

    #[test]
    fn a_frame_without_an_input_repeats_the_last_one() {
        let recording = recording(&[(3, b"a"), (4, b"b"), (9, b"")]);
        let said: Vec<&[u8]> = [0, 3, 4, 8, 9, u32::MAX].map(|frame| recording.input(0, frame)).into();
        assert_eq!(said, [&b"a"[..], b"a", b"b", b"b", b"", b""]);
        assert_eq!(recording.input(1, 3), b"", "nobody is there");
    }

    #[test]
    fn actions_come_when_they_came() {
        let recording = recording(&[]);
        assert_eq!(recording.actions(0), [(0, json!({ "ready": true })), (1_500, json!({ "horn": 1 }))]);
        assert!(recording.actions(7).is_empty());
        assert_eq!((recording.player(0), recording.player(7)), (json!({ "name": "Ada" }), Value::Null));
    }

    #[test]
    fn what_is_no_journal_is_told_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.journal");
        for bytes in [&b""[..], b"no journal", &[0; 500]] {
            std::fs::write(&path, bytes).unwrap();
            let error = format!("{:#}", Recording::read(&path).unwrap_err());
            assert!(error.contains("a.journal"), "{error}");
        }
        assert!(Recording::read(&folder.path().join("none")).is_err());
    }
}
