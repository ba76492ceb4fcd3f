//! Spectators: they get the events and the snapshots that are for everybody, over the WebSocket or over datagrams, and have no say.

use std::collections::BTreeMap;

use holeshot_client::{Carrier, Client, ConnectOptions, Incoming};
use holeshot_wire::{ByeCode, RefusalCode, ToHost};
use serde_json::{Value, json};

use crate::command::{output, text};
use crate::harness::{Host, run};
use crate::modules_made::Tally;
use crate::peer::{Peer, inputs_payload};

#[test]
fn spectators_see_what_players_see_and_have_no_say() {
    run(60, async {
        let game = Tally::new("tally-watched", 300);
        let host = Host::start_with_modules(&[game.wasm()], |_| {}).await;
        let room = host.open(&game.name, &["Ada", "Ben"]).await;
        let mut ada = Peer::enter(&host.join(&room, "Ada").await).await;
        let mut ben = Peer::enter(&host.join(&room, "Ben").await).await;
        let mut eve = Peer::enter(&host.watch(&room).await).await;
        assert!(!eve.welcome().resumed);
        let grant = host.watch(&room).await;
        let options = ConnectOptions::udp(&grant.ws_url, &grant.ticket, grant.key());
        let mut over_udp = Client::connect(options).await.unwrap();
        assert_eq!((over_udp.welcome().player, over_udp.welcome().players.len()), (None, 2));
        ada.ready().await;
        ben.ready().await;
        ada.event("started").await;
        // Inputs of a spectator are nobody's, whatever they are called; the tally would sum them up.
        eve.event("started").await;
        for frame in 0..100 {
            let payload = inputs_payload(frame, &[50]);
            eve.send(tokio_tungstenite::tungstenite::Message::binary(payload)).await.unwrap();
            over_udp.send_input_for(frame, &[50]).unwrap();
        }
        ada.counts(0, 3).await;

        // Who says what only a player may say is shown out; the room does not notice.
        for words in [r#"{"type":"ready"}"#, r#"{"type":"action","id":1,"data":1}"#, r#"{"type":"leave"}"#] {
            let mut mallory = Peer::enter(&host.watch(&room).await).await;
            mallory.say_payload(&ToHost::Ping(7)).await;
            mallory.frame(1).await;
            mallory.say_text(words).await;
            let (code, reason) = mallory.bye().await;
            let expected = if words.contains("leave") { ByeCode::Left } else { ByeCode::BadMessage };
            assert_eq!(code, expected, "{words}: {reason}");
        }

        let finished = ada.event("finished").await;
        assert_eq!(finished.data["results"][0]["data"], 3, "{}", finished.data);
        assert_eq!(finished.data["results"][1]["data"], 0, "{}", finished.data);
        eve.event("finished").await;
        ben.event("finished").await;
        assert_eq!(eve.events, ada.events);
        assert_eq!(eve.events, ben.events);
        let missed = ada.snapshot_frames.iter().filter(|frame| !eve.snapshot_frames.contains(frame)).count();
        assert_eq!((missed, &eve.snapshot), (0, &ada.snapshot));

        let mut events = 0;
        while let Some(incoming) = over_udp.next().await {
            if let Incoming::Event(event) = incoming {
                events += 1;
                if event.name == "finished" {
                    break;
                }
            }
        }
        assert_eq!(events, eve.events.len());
        // Of snapshots the client hands out the newest only; it counts all.
        let stats = over_udp.stats();
        assert_eq!(stats.carrier, Some(Carrier::Udp));
        assert!(stats.snapshots_received > 100, "{stats:?}");
        // Its leave is the end of its session and of nothing else.
        over_udp.leave().await.unwrap();
        assert_eq!(host.ended(&room).await["state"], "finished");
        host.stop().await;
    });
}

#[test]
fn a_spectators_ticket_opens_its_room_only_and_a_full_room_of_them_says_so() {
    run(60, async {
        let game = Tally::new("tally-crowded", 100);
        let host = Host::start_with_modules(&[game.wasm()], |_| {}).await;
        let (status, body) = host.post("/api/rooms/none/watch", &json!({})).await;
        assert_eq!((status, &body["error"]["code"]), (404, &json!("unknown_room")));
        let room = host.open(&game.name, &["Ada"]).await;
        let long = json!({ "name": "x".repeat(65) });
        assert_eq!(host.post(&format!("/api/rooms/{room}/watch"), &long).await.0, 422);

        // Spectators do not displace each other.
        let mut crowd = Vec::new();
        for _ in 0..holeshot::shard::SPECTATORS_MAX {
            crowd.push(Peer::enter(&host.watch(&room).await).await);
        }
        let grant = host.watch(&room).await;
        let Err((code, reason)) = Peer::try_enter(&grant, None).await else { panic!("one too many was let in") };
        assert_eq!(code, RefusalCode::TooManySessions, "{reason}");
        let mut left = crowd.pop().unwrap();
        left.say_text(r#"{"type":"leave"}"#).await;
        left.bye().await;
        crowd.push(Peer::enter(&grant).await);

        // The player finds its place among them all.
        let mut ada = Peer::enter(&host.join(&room, "Ada").await).await;
        ada.ready().await;
        ada.event("finished").await;
        for spectator in &mut crowd {
            spectator.event("finished").await;
        }
        host.stop().await;
    });
}

/// A line that `replay --speed --json` printed: an event's number, name, frame and data, or a snapshot's frame and bytes.
fn shown(lines: &str) -> (Vec<Value>, BTreeMap<u64, String>) {
    let (mut events, mut snapshots) = (Vec::new(), BTreeMap::new());
    for line in lines.lines() {
        let mut line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if line["snapshot"].is_object() {
            let bytes = line["snapshot"]["bytes"].as_str().unwrap().to_owned();
            snapshots.insert(line["snapshot"]["frame"].as_u64().unwrap(), bytes);
        } else {
            let event = line["event"].as_object_mut().unwrap();
            event.remove("time_ms");
            events.push(line["event"].take());
        }
    }
    (events, snapshots)
}

#[test]
fn a_replay_shows_spectators_the_match_as_it_was() {
    run(120, async {
        let game = Tally::new("tally-again", 200);
        let host = Host::start_with_modules(&[game.wasm()], |settings| settings.linger_s = Some(1)).await;
        let room = host.open(&game.name, &["Ada", "Ben", "Cleo"]).await;
        let mut ada = Peer::enter(&host.join(&room, "Ada").await).await;
        let mut ben = Peer::enter(&host.join(&room, "Ben").await).await;
        let mut cleo = Peer::enter(&host.join(&room, "Cleo").await).await;
        let mut eve = Peer::enter(&host.watch(&room).await).await;
        for player in [&mut ada, &mut ben, &mut cleo] {
            player.ready().await;
        }
        ada.event("started").await;
        // Inputs that count, that are repeated and that come late; actions; a leave.
        for frame in [0, 40, 41, 90, 91, 150] {
            ada.input(frame, &[frame as u8]).await;
            cleo.input(frame + 7, &[3]).await;
        }
        ada.frame(60).await;
        ada.say_text(r#"{"type":"action","id":1,"data":null}"#).await;
        ben.say_text(r#"{"type":"action","id":5,"data":[1]}"#).await;
        ben.say_text(r#"{"type":"leave"}"#).await;
        eve.event("finished").await;
        let closed = host.recorded(&room, "has a journal", |record| !record["journal"].is_null()).await;
        assert_eq!(closed["journal"]["state"], "whole", "{closed}");
        let dir = host.stop().await;

        let data_dir = dir.path().to_str().unwrap();
        let again = output(&["replay", &room, "--data-dir", data_dir, "--speed", "2.5", "--json"]).await;
        let (said, error) = (text(&again.stdout), text(&again.stderr));
        assert_eq!(again.status.code(), Some(0), "{said}{error}");
        let (events, snapshots) = shown(&said);
        let names = |events: &[Value]| events.iter().map(|event| event["name"].clone()).collect::<Vec<_>>();
        let seen: Vec<Value> =
            eve.events.iter().map(|event| json!({ "name": event.name, "data": event.data })).collect();
        // Who came in which order is not on record, nor does it decide anything; what follows is as it was.
        let from_start = |events: &[Value]| {
            events.iter().skip_while(|event| event["name"] != "started").cloned().collect::<Vec<_>>()
        };
        assert_eq!(names(&from_start(&events)), names(&from_start(&seen)), "{events:#?}");
        for (again, before) in from_start(&events).iter().zip(from_start(&seen)) {
            if before["name"] != "started" {
                assert_eq!((&again["name"], &again["data"]), (&before["name"], &before["data"]));
            }
        }
        let last = eve.snapshot.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(snapshots.values().last(), Some(&last), "{snapshots:?}");
        assert_eq!(snapshots.keys().last(), eve.snapshot_frames.last().map(|frame| u64::from(*frame)).as_ref());

        for (speed, words) in [("3", "0.02 to 2.56"), ("0", "0.02 to 2.56"), ("fast", "--speed")] {
            let refused = output(&["replay", &room, "--data-dir", data_dir, "--speed", speed]).await;
            assert_ne!(refused.status.code(), Some(0));
            assert!(text(&refused.stderr).contains(words), "{}", text(&refused.stderr));
        }
    });
}
