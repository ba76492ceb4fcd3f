//! `holeshot events`: what hosts say, as it happens.

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use super::output::{note, say};
use super::serve::stop_signal;
use crate::config::{ConfigError, MQTT_PORT};
use crate::events::access::{AccessError, BrokerSettings};
use crate::events::cloudevent::{CloudEvent, rfc3339};
use crate::events::follow::{Followed, Follower};

#[derive(Debug, Clone, Args)]
pub(super) struct EventsArgs {
    #[command(flatten)]
    broker: BrokerSettings,
    /// Only events of this room
    #[arg(long, value_name = "ROOM")]
    room: Option<String>,
    /// Only events whose kind begins with this, such as `room.` or `rules.`
    #[arg(long, value_name = "PREFIX")]
    kind: Option<String>,
    /// End after this many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

pub(super) async fn events(args: EventsArgs, as_json: bool) -> anyhow::Result<()> {
    let mut settings = args.broker;
    // A host on this machine, if nothing else is said.
    let url = settings.broker.get_or_insert_with(|| format!("mqtt://127.0.0.1:{MQTT_PORT}")).clone();
    let Some(access) = settings.resolve().map_err(ConfigError::Broker)? else {
        return Err(ConfigError::Broker(AccessError::Missing).into());
    };
    let stop = stop_signal()?;
    let mut follower = Follower::start(access);
    let follow = async {
        let mut shown = 0;
        while let Some(followed) = follower.next().await {
            match followed {
                Followed::Subscribed => {
                    note(format_args!("following {}; stop with ctrl-C", url));
                }
                Followed::Disconnected => {
                    note(format_args!(
                        "the connection to {} is lost; events until it is back are in the records only",
                        url
                    ));
                }
                Followed::Unreachable { reason } => {
                    note(format_args!("no broker takes this connection at {}: {reason}; trying again", url));
                }
                Followed::Refused => bail!(
                    "the broker at {} refuses the subscription; does it want --broker-username and --broker-password-file?",
                    url
                ),
                Followed::NotAnEvent { topic, error } => {
                    note(format_args!("on {topic} came something that is no event: {error}"))
                }
                Followed::Event(event) => {
                    let of_kind = args.kind.as_ref().is_none_or(|prefix| event.kind.starts_with(prefix));
                    let of_room = args.room.as_ref().is_none_or(|room| event.room.as_ref() == Some(room));
                    if of_kind && of_room {
                        if !say(if as_json { whole(&event) } else { line(&event) }) {
                            // Whoever read this has had enough.
                            break;
                        }
                        shown += 1;
                        if args.count.is_some_and(|count| shown >= count) {
                            break;
                        }
                    }
                }
            }
        }
        Ok(())
    };
    tokio::select! {
        followed = follow => followed,
        _ = stop => Ok(()),
    }
}

fn whole(event: &CloudEvent) -> String {
    let event: Value = serde_json::from_slice(&event.encode()).unwrap_or_default();
    event.to_string()
}

/// Width of the data in a line for people, in characters.
const DATA_CHARS_MAX: usize = 120;

fn line(event: &CloudEvent) -> String {
    let mut data = if event.data == json!({}) { String::new() } else { event.data.to_string() };
    if let Some((cut, _)) = data.char_indices().nth(DATA_CHARS_MAX) {
        data.truncate(cut);
        data.push('…');
    }
    format!("{}  {:<16} {:<32} {data}", rfc3339(event.time), event.kind, event.room.as_deref().unwrap_or("-"))
}
