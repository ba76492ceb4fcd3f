//! The life of a room through real sockets: players who do not come, are not ready, leave, are lost and return, and a host that stops.
//! The game is tally, which is short and finishes whoever left. The exact times of each wait are covered in `host/room/tests`.

use std::net::TcpListener;

use holeshot_client::{Carrier, Client, ConnectOptions, Incoming};
use holeshot_wire::{ByeCode, ClientMessage, Phase, RefusalCode};
use serde_json::{Value, json};

use crate::harness::{Host, SOON, eventually, kinds, run};
use crate::modules_made::{SHORT, Tally, short};
use crate::peer::{Peer, Proxy, tally_of};

/// A game that lasts longer than any test.
const LONG: &str = "tally-long";
/// A game with a cutscene of 3 s and a countdown of two steps of 1.5 s.
const STAGED: &str = "tally-staged";
/// A game that needs two players.
const DUEL: &str = "tally-duel";
/// A game of 3 s: time to do something while it runs.
const PLAYED: &str = "tally-played";

fn modules() -> Vec<Vec<u8>> {
    vec![
        short(),
        Tally::new(LONG, 100_000).wasm(),
        Tally::new(PLAYED, 150).wasm(),
        Tally::new(STAGED, 150).with_start(3_000, 2, 1_500).wasm(),
        Tally::new(DUEL, 25).with_players_min(2).wasm(),
    ]
}

async fn enter(host: &Host, room: &str, player: &str) -> Peer {
    Peer::enter(&host.join(room, player).await).await
}

/// Opens a room of two and lets both in.
async fn pair(host: &Host, module: &str) -> (String, Peer, Peer) {
    let room = host.open(module, &["Ada", "Ben"]).await;
    let ada = enter(host, &room, "Ada").await;
    let ben = enter(host, &room, "Ben").await;
    (room, ada, ben)
}

/// A pair whose game runs.
async fn playing(host: &Host, module: &str) -> (String, Peer, Peer) {
    let (room, mut ada, mut ben) = pair(host, module).await;
    ada.ready().await;
    ben.ready().await;
    ada.event("started").await;
    ben.event("started").await;
    (room, ada, ben)
}

fn left(player: u16, name: &str, reason: &str) -> Value {
    json!({ "player": player, "name": name, "reason": reason })
}

#[test]
fn who_never_comes_is_given_up_and_the_others_play() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |settings| {
            settings.gather_wait_s = Some(3);
            settings.linger_s = Some(1);
        })
        .await;
        let room = host.open(PLAYED, &["Ada", "Ben"]).await;
        let late = host.join(&room, "Ben").await;
        let mut ada = enter(&host, &room, "Ada").await;
        // Ready before everyone is there: it counts.
        ada.ready().await;
        assert_eq!(ada.event("player_left").await.data, left(1, "Ben", "never_came"));
        // Ben comes while Ada plays, and is told that it is too late.
        ada.event("started").await;
        let (code, reason) = Peer::try_enter(&late, Some(0)).await.unwrap_err();
        assert_eq!(code, RefusalCode::RoomClosed);
        assert!(reason.contains("player 1 is out of this room: never_came"), "{reason}");
        let finished = ada.event("finished").await;
        assert_eq!(finished.data["frames"], 150);
        assert_eq!(ada.bye().await.0, ByeCode::RoomFinished);
        let record = host.ended(&room).await;
        assert_eq!(record["players"][1]["left_reason"], "never_came");
        assert!(record["players"][1]["joined_at"].is_null());

        // A game that needs both cannot begin.
        let room = host.open(DUEL, &["Ada", "Ben"]).await;
        let mut ada = enter(&host, &room, "Ada").await;
        ada.ready().await;
        let aborted = ada.event("aborted").await;
        assert_eq!(aborted.data, json!({ "frames": 0, "reason": "not_enough_players" }));
        assert_eq!(ada.names(), ["player_joined", "player_ready", "player_left", "aborted"]);
        assert_eq!(ada.bye().await.0, ByeCode::RoomAborted);
        let record = host.ended(&room).await;
        assert_eq!((&record["state"], &record["reason"]), (&json!("aborted"), &json!("not_enough_players")));
        host.stop().await;
    });
}

#[test]
fn who_is_never_ready_is_put_out_and_the_others_play() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |settings| settings.ready_wait_s = Some(3)).await;
        let (room, mut ada, mut ben) = pair(&host, SHORT).await;
        ada.ready().await;
        assert_eq!(ada.event("player_left").await.data, left(1, "Ben", "not_ready"));
        let (code, reason) = ben.bye().await;
        assert_eq!((code, reason.as_str()), (ByeCode::Removed, "not_ready"));
        assert_eq!(ben.names().last(), Some(&"player_left"));
        ada.event("finished").await;
        let record = host.ended(&room).await;
        assert_eq!(record["players"][1]["left_reason"], "not_ready");

        let (room, mut ada, _ben) = pair(&host, DUEL).await;
        ada.ready().await;
        assert_eq!(ada.event("aborted").await.data["reason"], "not_enough_players");
        assert_eq!(host.ended(&room).await["reason"], "not_enough_players");
        host.stop().await;
    });
}

/// Ben quits once the room is in a phase, and Ada plays on.
async fn quits_in(host: &Host, phase: &'static str) {
    let room = host.open(STAGED, &["Ada", "Ben"]).await;
    let mut ben = enter(host, &room, "Ben").await;
    let mut entered = None;
    if phase != "gathering" {
        let mut ada = enter(host, &room, "Ada").await;
        if phase != "readying" {
            ada.ready().await;
            ben.ready().await;
            let until = if phase == "running" { "started" } else { phase };
            ben.event(until).await;
        }
        entered = Some(ada);
    }
    if phase != "finished" {
        host.wait_phase(&room, phase).await;
    }
    ben.say(&ClientMessage::Leave).await;
    if phase == "finished" {
        // The match is over: leaving is no event any more.
        let mut ada = entered.unwrap();
        ada.event("finished").await;
        assert!(!ada.names().contains(&"player_left"));
        assert!(host.ended(&room).await["players"][1]["left_reason"].is_null());
        return;
    }
    assert_eq!(ben.bye().await.0, ByeCode::Left, "{phase}");
    let mut ada = match entered {
        Some(ada) => ada,
        None => enter(host, &room, "Ada").await,
    };
    ada.ready().await;
    let event = ada.event("player_left").await;
    assert_eq!(event.data, left(1, "Ben", "quit"), "{phase}");
    ada.event("finished").await;
    // Where in the course of events it came.
    let names = ada.names();
    let at = |name: &str| names.iter().position(|n| *n == name).unwrap();
    let (after, before) = match phase {
        "gathering" | "readying" => ("player_joined", "cutscene"),
        "cutscene" => ("cutscene", "countdown"),
        "countdown" => ("countdown", "started"),
        _ => ("started", "finished"),
    };
    assert!(at(after) < at("player_left") && at("player_left") < at(before), "{phase}: {names:?}");
    // The rules hear of it only if the game runs; tally says `left` then.
    assert_eq!(names.contains(&"left"), phase == "running", "{names:?}");
    // The ticket opens nothing any more. The match is over, so the outcome may still be read.
    let record = host.ended(&room).await;
    assert_eq!(record["players"][1]["left_reason"], "quit", "{phase}");
    assert_eq!(record["state"], "finished");
}

#[test]
fn a_player_may_quit_in_every_phase() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |_| {}).await;
        tokio::join!(
            quits_in(&host, "gathering"),
            quits_in(&host, "readying"),
            quits_in(&host, "cutscene"),
            quits_in(&host, "countdown"),
            quits_in(&host, "running"),
            quits_in(&host, "finished"),
        );
        host.stop().await;
    });
}

#[test]
fn a_lost_player_returns_and_gets_what_it_missed() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |_| {}).await;
        let room = host.open(LONG, &["Ada", "Ben", "Cleo"]).await;
        let mut ada = enter(&host, &room, "Ada").await;
        let grant = host.join(&room, "Ben").await;
        let mut ben = Peer::enter(&grant).await;
        let mut cleo = enter(&host, &room, "Cleo").await;
        for peer in [&mut ada, &mut ben, &mut cleo] {
            peer.ready().await;
        }
        ben.event("started").await;
        ben.frame(20).await;
        let last_seq = ben.events.last().unwrap().seq;
        let last_frame = *ben.snapshot_frames.last().unwrap();
        assert!(!ben.welcome().resumed);
        let back = ben.resume(&grant);
        // No goodbye: the connection just ends.
        drop(ben);
        // What Ben will have missed.
        cleo.say(&ClientMessage::Leave).await;
        ada.event("left").await;
        let missed: Vec<_> = ada.events.iter().filter(|event| event.seq > last_seq).cloned().collect();
        assert!(missed.iter().any(|event| event.name == "player_left" && event.data["name"] == "Cleo"), "{missed:?}");

        let mut ben = Peer::enter_after(&back, Some(last_seq)).await;
        assert!(ben.welcome().resumed);
        assert_eq!(ben.welcome().phase, Phase::Running);
        ben.event("left").await;
        assert_eq!(ben.events, missed);
        // The game went on without Ben and goes on with him.
        ben.frame(last_frame + 1).await;
        assert_eq!(tally_of(&ben.snapshot, 1), Some(0));
        ben.counts(1, 9).await;
        let frame = *ben.snapshot_frames.last().unwrap();
        // One who returns with nothing gets everything again.
        let back = ben.resume(&grant);
        drop(ben);
        let mut ben = Peer::enter(&back).await;
        ben.frame(frame).await;
        let seqs: Vec<_> = ben.events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (1..=missed.last().unwrap().seq).collect::<Vec<_>>());
        assert!(!ada.names().contains(&"player_lost") && ada.last("player_left").data["name"] == "Cleo");

        ada.say(&ClientMessage::Leave).await;
        ben.say(&ClientMessage::Leave).await;
        let record = host.ended(&room).await;
        assert_eq!(record["reason"], "everyone_left");
        let ended = record["events"].as_array().unwrap().iter().find(|e| e["kind"] == "room.aborted").unwrap();
        // The second time the host may have learnt of the new session before it saw the old one end: that is no return then.
        let reconnects = &ended["event"]["data"]["players"][1]["inputs"]["reconnects"];
        assert!([json!(1), json!(2)].contains(reconnects), "{ended}");
        host.stop().await;
    });
}

#[test]
fn the_client_library_comes_back_by_itself_with_new_keys() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |_| {}).await;
        let room = host.open(LONG, &["Ada", "Ben"]).await;
        let mut ben = enter(&host, &room, "Ben").await;
        let proxy = Proxy::start(host.server().addresses().http).await;
        let grant = host.join(&room, "Ada").await;
        let mut ada = Client::connect(ConnectOptions::udp(proxy.ws_url(), &grant.ticket, grant.key())).await.unwrap();
        ada.ready().await.unwrap();
        ben.ready().await;
        let mut seqs = Vec::new();
        let mut frames = Vec::new();
        // On a busy machine datagrams may be slow to prove themselves, and the WebSocket carries meanwhile.
        let (mut carriers_before, mut carriers_since) = (Vec::new(), Vec::new());
        let mut returned = false;
        // Until snapshots come again after the return, and datagrams.
        loop {
            match ada.next().await.unwrap() {
                Incoming::Event(event) => seqs.push(event.seq),
                Incoming::Snapshot(snapshot) => {
                    frames.push(snapshot.frame);
                    ada.send_input(&[1]).unwrap();
                    if frames.len() == 20 {
                        proxy.cut();
                        // An event that Ada can only get afterwards.
                        ben.say(&ClientMessage::Leave).await;
                    }
                    if carriers_since.contains(&Carrier::Udp) && frames.len() > 60 {
                        break;
                    }
                }
                Incoming::Carrier(carrier) => match returned {
                    false => carriers_before.push(carrier),
                    true => carriers_since.push(carrier),
                },
                Incoming::Reconnecting { .. } => {}
                Incoming::Reconnected(welcome) => {
                    assert!(welcome.resumed);
                    returned = true;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
        assert!(frames.windows(2).all(|pair| pair[0] < pair[1]), "{frames:?}");
        assert!(carriers_before.contains(&Carrier::Udp), "{carriers_before:?}");
        assert_eq!(ada.stats().reconnects, 1);
        ada.leave().await.unwrap();
        let record = host.ended(&room).await;
        assert_eq!(
            (&record["players"][0]["left_reason"], &record["reason"]),
            (&json!("quit"), &json!("everyone_left"))
        );
        host.stop().await;
    });
}

#[test]
fn a_lost_player_who_does_not_return_is_out() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |settings| settings.reconnect_grace_s = Some(1)).await;
        let room = host.open(LONG, &["Ada", "Ben"]).await;
        let mut ada = enter(&host, &room, "Ada").await;
        let grant = host.join(&room, "Ben").await;
        let mut ben = Peer::enter(&grant).await;
        ada.ready().await;
        ben.ready().await;
        ben.event("started").await;
        let back = ben.resume(&grant);
        drop(ben);
        assert_eq!(ada.event("player_left").await.data, left(1, "Ben", "connection_lost"));
        // The rules were told, and Ada plays on.
        assert_eq!(ada.event("left").await.data, json!({ "player": 1 }));
        let frame = ada.snapshot_frames.last().copied().unwrap_or(0);
        ada.frame(frame + 5).await;
        let (code, reason) = Peer::try_enter(&back, None).await.unwrap_err();
        assert_eq!(code, RefusalCode::RoomClosed);
        assert!(reason.contains("connection_lost"), "{reason}");
        let record = host.recorded(&room, "says who left", |r| !r["players"][1]["left_reason"].is_null()).await;
        assert_eq!(record["players"][1]["left_reason"], "connection_lost");
        host.stop().await;
    });
}

#[test]
fn a_second_session_takes_over_from_the_first() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |_| {}).await;
        let room = host.open(LONG, &["Ada", "Ben"]).await;
        let grant = host.join(&room, "Ada").await;
        let mut first = Peer::enter(&grant).await;
        let mut ben = enter(&host, &room, "Ben").await;
        first.ready().await;
        ben.ready().await;
        first.event("started").await;
        let mut second = Peer::enter_after(&host.join(&room, "Ada").await, None).await;
        assert!(second.welcome().resumed);
        assert_ne!(second.welcome().session, first.welcome().session);
        assert_eq!(first.bye().await.0, ByeCode::Replaced);
        second.frame(5).await;
        // The end of the first connection is not the end of the player.
        let frame = *second.snapshot_frames.last().unwrap();
        second.frame(frame + 60).await;
        assert!(second.events.is_empty(), "{:?}", second.events);
        host.stop().await;
    });
}

#[test]
fn when_everyone_leaves_the_room_ends() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |settings| settings.linger_s = Some(0)).await;
        // Before the start.
        let (before, mut ada, mut ben) = pair(&host, LONG).await;
        ada.say(&ClientMessage::Leave).await;
        ben.say(&ClientMessage::Leave).await;
        assert_eq!((ada.bye().await.0, ben.bye().await.0), (ByeCode::Left, ByeCode::Left));
        assert_eq!(host.ended(&before).await["reason"], "not_enough_players");
        // In the middle.
        let (middle, mut ada, mut ben) = playing(&host, LONG).await;
        ada.frame(10).await;
        ada.say(&ClientMessage::Leave).await;
        ben.say(&ClientMessage::Leave).await;
        assert_eq!((ada.bye().await.0, ben.bye().await.0), (ByeCode::Left, ByeCode::Left));
        let record = host.recorded(&middle, "is closed", |record| !record["closed_at"].is_null()).await;
        assert_eq!((&record["state"], &record["reason"]), (&json!("aborted"), &json!("everyone_left")));
        assert!(record["frames"].as_u64().unwrap() >= 10);
        let expected = [
            "room.opened",
            "player.joined",
            "player.joined",
            "room.started",
            "player.left",
            "player.left",
            "room.aborted",
            "room.closed",
        ];
        assert_eq!(kinds(&host.records(), &middle), expected);
        // Nothing of it is left open.
        eventually("no open room", SOON, async || {
            let (_, rooms) = host.get("/api/rooms").await;
            if rooms["open"] == json!([]) { Ok(()) } else { Err(rooms["open"].to_string()) }
        })
        .await;
        host.stop().await;
    });
}

#[test]
fn who_comes_after_the_end_gets_the_outcome_until_the_room_closes() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |settings| settings.linger_s = Some(6)).await;
        let (room, mut ada, ben) = playing(&host, SHORT).await;
        let grant = host.join(&room, "Ben").await;
        drop(ben);
        let finished = ada.event("finished").await;
        let mut ben = Peer::enter(&grant).await;
        assert_eq!(ben.welcome().phase, Phase::Finished);
        assert!(ben.welcome().resumed);
        assert_eq!(ben.event("finished").await, finished);
        assert_eq!(ben.events, ada.events);
        // Being ready, inputs and leaving change nothing any more.
        ben.ready().await;
        ben.input(3, &[1]).await;
        assert_eq!(ada.bye().await.0, ByeCode::RoomFinished);
        assert_eq!(ben.bye().await.0, ByeCode::RoomFinished);
        let (code, _) = Peer::try_enter(&grant, None).await.unwrap_err();
        assert_eq!(code, RefusalCode::RoomClosed);
        let (status, body) = host.post(&format!("/api/rooms/{room}/join"), &json!({ "player": "Ben" })).await;
        assert_eq!((status, &body["error"]["code"]), (404, &json!("unknown_room")));
        host.stop().await;
    });
}

#[test]
fn ready_twice_is_ready_once() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |_| {}).await;
        let (_, mut ada, mut ben) = pair(&host, SHORT).await;
        for _ in 0..3 {
            ada.ready().await;
        }
        ada.event("player_ready").await;
        ada.ready().await;
        ben.ready().await;
        ben.event("finished").await;
        let of_ada = ben.events.iter().filter(|e| e.name == "player_ready" && e.data["player"] == 0).count();
        assert_eq!(of_ada, 1, "{:?}", ben.names());
        host.stop().await;
    });
}

#[test]
fn a_stop_in_the_middle_ends_every_room_and_leaves_nothing() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |_| {}).await;
        let (running, mut ada, mut ben) = playing(&host, LONG).await;
        let (gathering, mut cleo, dan) = pair(&host, LONG).await;
        drop(dan);
        ada.frame(10).await;
        let addresses = host.server().addresses().clone();
        let (dir, ()) = tokio::join!(host.stop(), async {
            for peer in [&mut ada, &mut ben, &mut cleo] {
                assert_eq!(peer.event("aborted").await.data["reason"], "host_stopping");
                assert_eq!(peer.bye().await.0, ByeCode::HostClosing);
            }
        });
        for (room, started) in [(&running, true), (&gathering, false)] {
            let kinds = kinds(addresses.records.as_ref().unwrap(), room);
            let end = ["room.aborted", "room.closed"];
            assert_eq!(kinds[kinds.len() - 2..], end, "{kinds:?}");
            assert_eq!(kinds.contains(&"room.started".to_owned()), started);
        }
        // Every port is free again, and so is the folder. Another test may hold a port for a moment, as the number of a connection of its own.
        eventually("the ports are free", SOON, async || {
            let bound = TcpListener::bind(addresses.http)
                .and_then(|_| TcpListener::bind(&*addresses.mqtt))
                .and_then(|_| std::net::UdpSocket::bind(addresses.udp));
            bound.map(drop).map_err(|error| error.to_string())
        })
        .await;
        let again = Host::start_in(dir, |_| {}).await;
        let (_, body) = again.get(&format!("/api/rooms/{running}")).await;
        assert_eq!(body["recorded"]["reason"], "host_stopping", "{body}");
        again.stop().await;
    });
}
