//! Bots that play over real sockets, as any player's program would: join, connect, be ready, answer snapshots with inputs until the game is over.
//! Drivers of the drag race are here, players of the arena in [`arena`].

pub mod arena;
pub mod crowd;

use anyhow::{Context, bail};
use drag_race::{Driver, Snapshot};
use holeshot_client::{Client, Event, Incoming, NetStats};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::api::Api;

const OTHER_GAME: &str = "a snapshot of another game: this host runs other rules than the bots know";
const NO_INPUT: &str = "an input cannot be written";

/// A game that ships, by the name of its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum GameName {
    /// The drag race
    DragRace,
    /// The shooter
    Arena,
}

impl std::fmt::Display for GameName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::DragRace => "drag-race",
            Self::Arena => arena::MODULE,
        })
    }
}

/// A driver and its car.
#[derive(Debug, Clone)]
pub struct Bot {
    /// The player's name in the room.
    pub name: String,
    /// A car of the drag race's catalogue.
    pub car: String,
    /// 0 a beginner, 1 near the best that the car can do.
    pub skill: f64,
    /// Decides its reaction and its errors.
    pub seed: u64,
    /// Datagrams for inputs and snapshots; the WebSocket alone otherwise.
    pub with_udp: bool,
}

/// What a bot sees while it plays, for whoever watches: a drag race unless it is said otherwise.
#[derive(Debug, Clone)]
pub enum Seen<S = Snapshot> {
    /// A public event.
    Event(Event),
    /// The game at the end of a tick.
    Snapshot(S),
}

/// How it went for one bot.
#[derive(Debug, Clone, Serialize)]
pub struct BotReport {
    /// The player's name.
    pub name: String,
    /// The player's slot.
    pub player: u16,
    /// The event that ended the game: `finished` or `aborted`.
    pub ending: String,
    /// That event's data.
    pub outcome: Value,
    /// Snapshots that came.
    pub snapshots_received: u64,
    /// Snapshots that did not.
    pub snapshots_missed: u64,
    /// Frames for which an input was sent.
    pub inputs_sent: u64,
    /// How far ahead of the host inputs were sent at the end, in frames.
    pub lead_frames: u32,
    /// The round trip, in microseconds.
    pub rtt_us: Option<u64>,
    /// `udp` or `websocket`: how inputs and snapshots travelled at the end.
    pub carrier: Option<&'static str>,
}

/// How a bot plays one game: an input for each snapshot, both as the game's own bytes.
pub trait Plays {
    /// What it sees in a tick.
    type Sight;

    /// What it does before the game starts, as an action of the game; nothing by default.
    fn first_action(&self) -> Option<Value> {
        None
    }

    /// Answers the newest snapshot. `delay_ms` is how long after the snapshot the answer will take effect.
    ///
    /// # Errors
    /// The bytes are no snapshot of this game.
    fn answer(&mut self, snapshot: &[u8], delay_ms: u32) -> anyhow::Result<(Vec<u8>, Self::Sight)>;
}

impl Plays for Driver {
    type Sight = Snapshot;

    fn answer(&mut self, snapshot: &[u8], delay_ms: u32) -> anyhow::Result<(Vec<u8>, Snapshot)> {
        let snapshot: Snapshot = postcard::from_bytes(snapshot).context(OTHER_GAME)?;
        self.set_delay_ms(delay_ms);
        let input = postcard::to_allocvec(&self.drive(&snapshot)).context(NO_INPUT)?;
        Ok((input, snapshot))
    }
}

/// Plays one race to its end.
///
/// `seen` gets what the bot sees; it is given up when nobody listens, and what finds no place in it is left out.
///
/// # Errors
/// If the bot cannot join or connect, or the connection ends before the race does.
pub async fn play(api: &Api, room: &str, bot: &Bot, seen: Option<mpsc::Sender<Seen>>) -> anyhow::Result<BotReport> {
    let driver = |player: u16| Ok(Driver::new(&bot.car, usize::from(player), bot.skill, bot.seed)?);
    play_as(api, room, &bot.name, bot.with_udp, driver, seen).await
}

/// Plays one game to its end, as [`play`] does a race. `make` makes the bot for the slot that it got.
///
/// # Errors
/// As for [`play`].
pub async fn play_as<P: Plays>(
    api: &Api,
    room: &str,
    name: &str,
    with_udp: bool,
    make: impl FnOnce(u16) -> anyhow::Result<P>,
    seen: Option<mpsc::Sender<Seen<P::Sight>>>,
) -> anyhow::Result<BotReport> {
    let grant = api.join(room, name).await?;
    let mut client =
        Client::connect(grant.connect_options(with_udp)?).await.with_context(|| format!("{name} cannot connect"))?;
    let player = client.welcome().player.context("the host let a player in as a spectator")?;
    let tick_ms = 1_000 / u32::from(client.welcome().tick_hz.max(1));
    let mut bot = make(player)?;
    client.ready().await?;
    if let Some(action) = bot.first_action() {
        client.action(action).await?;
    }
    let show = |sight: Seen<P::Sight>| {
        if let Some(seen) = &seen {
            let _nobody_or_slow = seen.try_send(sight);
        }
    };
    loop {
        match client.next().await {
            Some(Incoming::Snapshot(snapshot)) => {
                let (input, sight) = bot.answer(&snapshot.bytes, client.stats().lead_frames * tick_ms)?;
                client.send_input(&input)?;
                show(Seen::Snapshot(sight));
            }
            Some(Incoming::Event(event)) => {
                show(Seen::Event(event.clone()));
                if matches!(event.name.as_str(), "finished" | "aborted") {
                    let stats = client.stats();
                    // The game is over either way; the host counts a player who is gone as gone.
                    let _over = client.leave().await;
                    return Ok(report(name, player, event, stats));
                }
            }
            Some(Incoming::Bye { code, reason }) => {
                bail!("{name}: the host said goodbye before the game was over: {code}: {reason}")
            }
            Some(Incoming::Disconnected { error }) => {
                return Err(error).with_context(|| format!("{name} lost the connection"));
            }
            Some(_) => {}
            None => bail!("{name}: the connection ended before the game was over"),
        }
    }
}

fn report(name: &str, player: u16, ending: Event, stats: NetStats) -> BotReport {
    BotReport {
        name: name.to_owned(),
        player,
        ending: ending.name,
        outcome: ending.data,
        snapshots_received: stats.snapshots_received,
        snapshots_missed: stats.snapshots_missed,
        inputs_sent: stats.inputs_sent,
        lead_frames: stats.lead_frames,
        rtt_us: stats.rtt_us,
        carrier: stats.carrier.map(|carrier| match carrier {
            holeshot_client::Carrier::Udp => "udp",
            holeshot_client::Carrier::WebSocket => "websocket",
        }),
    }
}

/// Names for bots whose maker gives none.
const NAMES: [&str; 8] = ["Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gia", "Hugo"];

/// The name of the bot with this number, no two alike.
#[must_use]
pub fn name(number: usize) -> String {
    let round = number / NAMES.len();
    let name = NAMES.get(number % NAMES.len()).copied().unwrap_or("Bot");
    if round == 0 { name.to_owned() } else { format!("{name}-{}", round + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_bots_have_the_same_name() {
        let names: std::collections::BTreeSet<_> = (0..64).map(name).collect();
        assert_eq!(names.len(), 64);
    }
}
