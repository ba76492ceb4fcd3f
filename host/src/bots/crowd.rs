//! The players' programs for many rooms at once: what each game's rooms are opened with, and what its players answer to snapshots. The load generator knows no
//! game; this file knows which there are.

use drag_race::Driver;
use serde_json::{Value, json};

use super::Plays;
use super::arena as fighters;

/// Answers a snapshot with an input. The number is how long after the snapshot the answer will take effect, in milliseconds. None: nothing to say.
pub type Answer = Box<dyn FnMut(&[u8], u32) -> Option<Vec<u8>> + Send>;

/// How good players are: neither the best nor beginners.
const SKILL: f64 = 0.8;
/// How long a match of the arena lasts, in seconds: longer than it is looked at.
const MATCH_S: u32 = 600;
/// Bytes of an input for a game that is not known here: rules that take inputs at all take one byte.
const BYTES_OF_ANY_INPUT: usize = 1;

/// A player's program.
pub struct Player {
    /// What it does before the game starts.
    pub first_action: Option<Value>,
    /// What it answers.
    pub answer: Answer,
}

impl std::fmt::Debug for Player {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Player").field("first_action", &self.first_action).finish_non_exhaustive()
    }
}

/// One room of a game.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Game {
    kind: Kind,
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    DragRace,
    Arena,
    Any,
}

/// A room of the game of a module, the host's default if it is not named. For a module that is not known here players send bytes that mean nothing.
#[must_use]
pub fn game(module: Option<&str>, seed: u64) -> Game {
    let kind = match module {
        None | Some("drag-race") => Kind::DragRace,
        Some(fighters::MODULE) => Kind::Arena,
        Some(_) => Kind::Any,
    };
    Game { kind, seed }
}

impl Game {
    /// The room's options.
    #[must_use]
    pub fn options(self) -> Value {
        match self.kind {
            Kind::DragRace => json!({ "tree": "sportsman" }),
            Kind::Arena => json!({ "duration_s": MATCH_S }),
            Kind::Any => Value::Null,
        }
    }

    /// The data of a player.
    #[must_use]
    pub fn data(self, slot: usize) -> Value {
        match self.kind {
            Kind::DragRace => json!({ "car": self.car(slot) }),
            Kind::Arena | Kind::Any => Value::Null,
        }
    }

    /// The program of a player.
    #[must_use]
    pub fn player(self, slot: usize) -> Player {
        let seed = self.seed.wrapping_add(slot as u64);
        match self.kind {
            Kind::DragRace => match Driver::new(self.car(slot), slot, SKILL, seed) {
                Ok(driver) => playing(driver),
                Err(_) => Player { first_action: None, answer: Box::new(|_, _| None) },
            },
            Kind::Arena => playing(fighters::player(SKILL, seed, fighters::weapon(slot))),
            Kind::Any => {
                let mut state = seed | 1;
                let answer: Answer = Box::new(move |_, _| {
                    // Marsaglia's xorshift64: any bytes will do.
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state.to_le_bytes().get(..BYTES_OF_ANY_INPUT).map(<[u8]>::to_vec)
                });
                Player { first_action: None, answer }
            }
        }
    }

    fn car(self, slot: usize) -> &'static str {
        let cars = drag_race::cars();
        let at = (self.seed as usize).wrapping_add(slot) % cars.len().max(1);
        cars.get(at).map_or("", |car| &*car.id)
    }
}

/// The program of a bot that plays a game.
fn playing(mut bot: impl Plays + Send + 'static) -> Player {
    let first_action = bot.first_action();
    let answer = move |snapshot: &[u8], delay_ms| Some(bot.answer(snapshot, delay_ms).ok()?.0);
    Player { first_action, answer: Box::new(answer) }
}
