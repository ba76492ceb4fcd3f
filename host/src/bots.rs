//! Drivers that play the drag race over real sockets, as any player's program would: join, connect, be ready, answer snapshots with
//! inputs until the race is over.

use anyhow::{Context, bail};
use drag_race::{Driver, Snapshot};
use holeshot_client::{Client, Event, Incoming, NetStats};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::api::Api;

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

/// What a bot sees while it plays, for whoever watches.
#[derive(Debug, Clone)]
pub enum Seen {
    /// A public event.
    Event(Event),
    /// The race at the end of a tick.
    Snapshot(Snapshot),
}

/// How it went for one bot.
#[derive(Debug, Clone, Serialize)]
pub struct BotReport {
    /// The player's name.
    pub name: String,
    /// The player's slot.
    pub player: u16,
    /// The event that ended the race: `finished` or `aborted`.
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

/// Plays one race to its end.
///
/// `seen` gets what the bot sees; it is given up when nobody listens, and what finds no place in it is left out.
///
/// # Errors
/// If the bot cannot join or connect, or the connection ends before the race does.
pub async fn play(api: &Api, room: &str, bot: &Bot, seen: Option<mpsc::Sender<Seen>>) -> anyhow::Result<BotReport> {
    let grant = api.join(room, &bot.name).await?;
    let mut client = Client::connect(grant.connect_options(bot.with_udp)?)
        .await
        .with_context(|| format!("{} cannot connect", bot.name))?;
    let player = client.welcome().player.context("the host let a player in as a spectator")?;
    let tick_ms = 1_000 / u32::from(client.welcome().tick_hz.max(1));
    let mut driver = Driver::new(&bot.car, usize::from(player), bot.skill, bot.seed)?;
    client.ready().await?;
    let show = |sight: Seen| {
        if let Some(seen) = &seen {
            let _nobody_or_slow = seen.try_send(sight);
        }
    };
    loop {
        match client.next().await {
            Some(Incoming::Snapshot(snapshot)) => {
                let snapshot: Snapshot = postcard::from_bytes(&snapshot.bytes)
                    .context("a snapshot of another game: this host runs other rules than the bots know")?;
                driver.set_delay_ms(client.stats().lead_frames * tick_ms);
                let input = postcard::to_allocvec(&driver.drive(&snapshot)).context("an input cannot be written")?;
                client.send_input(&input)?;
                show(Seen::Snapshot(snapshot));
            }
            Some(Incoming::Event(event)) => {
                show(Seen::Event(event.clone()));
                if matches!(event.name.as_str(), "finished" | "aborted") {
                    let stats = client.stats();
                    // The race is over either way; the host counts a player who is gone as gone.
                    let _over = client.leave().await;
                    return Ok(report(bot, player, event, stats));
                }
            }
            Some(Incoming::Bye { code, reason }) => {
                bail!("{}: the host said goodbye before the race was over: {code}: {reason}", bot.name)
            }
            Some(Incoming::Disconnected { error }) => {
                return Err(error).with_context(|| format!("{} lost the connection", bot.name));
            }
            Some(_) => {}
            None => bail!("{}: the connection ended before the race was over", bot.name),
        }
    }
}

fn report(bot: &Bot, player: u16, ending: Event, stats: NetStats) -> BotReport {
    BotReport {
        name: bot.name.clone(),
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
