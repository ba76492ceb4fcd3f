//! `holeshot watch`: a room of a running host as a spectator sees it.

use std::io::IsTerminal;

use anyhow::{Context, bail};
use clap::Args;
use drag_race::Snapshot;
use futures_util::FutureExt;
use holeshot_client::{Client, Event, Incoming};
use serde_json::{Value, json};

use super::arena_view::ArenaView;
use super::host::HostArgs;
use super::output::{note, say};
use super::serve::stop_signal;
use super::view::View;
use crate::api::Api;
use crate::bots::arena;

#[derive(Debug, Clone, Args)]
pub(super) struct WatchArgs {
    /// The room's id, whole; `GET /api/rooms` of the host lists the open ones
    #[arg(value_name = "ROOM")]
    room: String,
    #[command(flatten)]
    host: HostArgs,
}

pub(super) async fn watch(args: WatchArgs, as_json: bool) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    let api = args.host.api()?;
    tokio::select! {
        seen = spectate(&api, &args.room, as_json) => seen,
        _ = stop => Ok(()),
    }
}

/// How a room is shown to people.
enum Shown {
    /// The race as it happens; under rules that are neither game, their events.
    Race(View),
    /// A match of the arena.
    Arena(ArenaView),
}

/// Shows a room until it ends: people see the race or the match (or, under rules that are neither, the events), programs a JSON object per line for each
/// event and snapshot.
pub(super) async fn spectate(api: &Api, room: &str, as_json: bool) -> anyhow::Result<()> {
    let about = api.get(&format!("/api/rooms/{room}")).await?;
    let drivers = drivers(&about);
    let grant = api.watch(room).await?;
    // Over the WebSocket alone: a spectator sends nothing that would keep a path for datagrams open.
    let mut client = Client::connect(grant.connect_options(false)?).await.context("cannot connect as a spectator")?;
    let drivers = drivers.iter().map(|(name, car)| (name.as_str(), car.as_str()));
    // By the name of its rules: a snapshot of one game may be read as one of another.
    let mut view = if about.pointer("/open/module/name").and_then(Value::as_str) == Some(arena::MODULE) {
        Shown::Arena(ArenaView::new(drivers.map(|(name, _)| name.to_owned()).collect()))
    } else {
        Shown::Race(View::new(drivers, std::io::stdout().is_terminal(), as_json))
    };
    let mut rules_are_known = true;
    let mut ended = false;
    loop {
        // The last snapshot came before the event that ends the match, and is handed out after it.
        let next = if ended { client.next().now_or_never().flatten() } else { client.next().await };
        match next {
            Some(Incoming::Event(event)) => {
                if as_json && !say(event_line(&event)) {
                    return Ok(());
                }
                match &mut view {
                    Shown::Race(view) => view.event(&event).unwrap_or_default(),
                    Shown::Arena(view) if !as_json => view.event(&event),
                    Shown::Arena(_) => {}
                }
                ended |= matches!(event.name.as_str(), "finished" | "aborted");
            }
            Some(Incoming::Snapshot(snapshot)) => {
                if as_json {
                    let hex: String = snapshot.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                    if !say(json!({ "snapshot": { "frame": snapshot.frame, "bytes": hex } })) {
                        return Ok(());
                    }
                    continue;
                }
                let shown = match &mut view {
                    Shown::Race(view) => postcard::from_bytes::<Snapshot>(&snapshot.bytes)
                        .map(|shown| view.snapshot(&shown).unwrap_or_default()),
                    Shown::Arena(view) => postcard::from_bytes(&snapshot.bytes).map(|shown| view.snapshot(&shown)),
                };
                if shown.is_err() && std::mem::take(&mut rules_are_known) {
                    note(format_args!("these rules have snapshots of their own; only their events are shown"));
                }
            }
            Some(Incoming::Bye { .. }) if ended => {}
            Some(Incoming::Bye { code, reason }) => bail!("the host said goodbye: {code}: {reason}"),
            Some(Incoming::Disconnected { error }) => return Err(error).context("the connection is lost"),
            Some(_) => {}
            None => {
                if let Shown::Race(view) = &mut view {
                    view.end().unwrap_or_default();
                }
                return Ok(());
            }
        }
    }
}

fn event_line(event: &Event) -> Value {
    json!({ "event": {
        "seq": event.seq, "name": event.name, "frame": event.frame, "time_ms": event.time_ms, "data": event.data,
    } })
}

/// Names and cars of a room's players, from what the host says of the room. A room that has just opened may not be on record yet: then names only.
fn drivers(room: &Value) -> Vec<(String, String)> {
    let players = |from: &str| room.pointer(from).and_then(Value::as_array).cloned().unwrap_or_default();
    let recorded = players("/recorded/players");
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    players("/open/players")
        .iter()
        .map(|player| {
            let same = recorded.iter().find(|other| other.get("player") == player.get("player"));
            (text(player.get("name")), text(same.and_then(|other| other.pointer("/data/car"))))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cars_come_from_the_record_if_there_is_one() {
        let mut room =
            json!({ "open": { "players": [{ "player": 0, "name": "Ada" }, { "player": 1, "name": "Ben" }] } });
        assert_eq!(drivers(&room), [("Ada".into(), String::new()), ("Ben".into(), String::new())]);
        room["recorded"] = json!({ "players": [{ "player": 1, "data": { "car": "mx5" } }, { "player": 0 }] });
        assert_eq!(drivers(&room), [("Ada".into(), String::new()), ("Ben".into(), "mx5".into())]);
        assert_eq!(drivers(&json!({})), []);
    }
}
