//! Spectators: they get the events and the snapshots that are for everybody, over the WebSocket or over datagrams, and have no say.

use holeshot_client::{Carrier, Client, ConnectOptions, Incoming};
use holeshot_wire::{ByeCode, RefusalCode, ToHost};
use serde_json::json;

use crate::harness::{Host, run};
use crate::modules_made::Tally;
use crate::peer::{Peer, inputs_payload};

#[test]
fn spectators_see_what_players_see_and_have_no_say() {
    run(60, async {
        let game = Tally::new("tally-watched", 150);
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
        ada.input(60, &[3]).await;

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

        // One ticket opens as many sessions as there are places: spectators do not displace each other.
        let grant = host.watch(&room).await;
        let mut crowd = Vec::new();
        for _ in 0..holeshot::shard::SPECTATORS_MAX {
            crowd.push(Peer::enter(&grant).await);
        }
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
