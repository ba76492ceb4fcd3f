//! Bots of the arena, who play it over real sockets.

use anyhow::Context;
use arena::{Bot, Snapshot, Weapon};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{BotReport, NO_INPUT, OTHER_GAME, Plays, Seen, play_as};
use crate::api::Api;

/// The module's name.
pub const MODULE: &str = "arena";

/// A bot.
#[derive(Debug, Clone)]
pub struct Fighter {
    /// The player's name in the room.
    pub name: String,
    /// What it takes into its hand.
    pub weapon: Weapon,
    /// 0 slow and wild, 1 quick and sure.
    pub skill: f64,
    /// Decides its ways and its errors.
    pub seed: u64,
    /// Datagrams for inputs and snapshots; the WebSocket alone otherwise.
    pub with_udp: bool,
}

/// What the bot in a slot takes into its hand: every third a scatter gun.
#[must_use]
pub const fn weapon(slot: usize) -> Weapon {
    if slot % 3 == 2 { Weapon::Scatter } else { Weapon::Rifle }
}

/// Fighters of a match.
#[must_use]
pub fn fighters(count: usize, skill: f64, seed: u64, with_udp: bool) -> Vec<Fighter> {
    (0..count)
        .map(|slot| Fighter {
            name: super::name(slot),
            weapon: weapon(slot),
            skill,
            seed: seed.wrapping_add(slot as u64),
            with_udp,
        })
        .collect()
}

/// Plays one match to its end, as [`super::play`] does a race.
///
/// # Errors
/// If the bot cannot join or connect, or the connection ends before the match does.
pub async fn play(
    api: &Api,
    room: &str,
    fighter: &Fighter,
    seen: Option<mpsc::Sender<Seen<Snapshot>>>,
) -> anyhow::Result<BotReport> {
    let make = |_| Ok(player(fighter.skill, fighter.seed, fighter.weapon));
    play_as(api, room, &fighter.name, fighter.with_udp, make, seen).await
}

/// A bot without a connection.
pub(crate) fn player(skill: f64, seed: u64, weapon: Weapon) -> impl Plays<Sight = Snapshot> {
    Player { bot: Bot::new(skill, seed), weapon }
}

/// A bot with what it wants in its hand.
#[derive(Debug)]
struct Player {
    bot: Bot,
    weapon: Weapon,
}

impl Plays for Player {
    type Sight = Snapshot;

    fn first_action(&self) -> Option<Value> {
        // Everybody begins with the rifle.
        (self.weapon != Weapon::default()).then(|| json!({ "weapon": self.weapon }))
    }

    fn answer(&mut self, snapshot: &[u8], delay_ms: u32) -> anyhow::Result<(Vec<u8>, Snapshot)> {
        let snapshot: Snapshot = postcard::from_bytes(snapshot).context(OTHER_GAME)?;
        self.bot.set_delay_ms(delay_ms);
        let input = postcard::to_allocvec(&self.bot.play(&snapshot)).context(NO_INPUT)?;
        Ok((input, snapshot))
    }
}
