//! The limits of the doors, each met by somebody who takes too much: what is answered, that it is counted, and that a proxy's word counts only if it is
//! trusted. The arithmetic of rates and the table of addresses are covered in `host/src/doors/gate`.

use std::time::Duration;

use holeshot::config::{OpenDoors, Settings};
use holeshot::doors::gate::{Limit, LimitSetting};
use holeshot_wire::{ByeCode, ClientMessage, HostMessage, RefusalCode, ToHost};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::harness::{Grant, Host, SOON, eventually, run};
use crate::modules_made::{SHORT, Tally, short};
use crate::peer::{Peer, Said, UdpPeer, serves_a_game};

const LONG: &str = "tally-long";

/// A host with these limits, which hold for this machine too if `for_all`.
async fn limited(limits: &[(Limit, u64)], for_all: bool) -> Host {
    Host::start_with_modules(&[short(), Tally::new(LONG, 100_000).wasm()], |settings: &mut Settings| {
        settings.limits = limits.iter().map(|(limit, value)| LimitSetting::new(*limit, *value)).collect();
        if for_all {
            settings.limits_exempt = vec!["none".into()];
        }
    })
    .await
}

/// How often a limit has held, by the page of metrics that is made from now on.
async fn refused(host: &Host, limit: Limit) -> u64 {
    let name = format!("holeshot_limit_refused_total{{limit=\"{limit}\"}} ");
    let text = host.http().get(host.url("/metrics")).send().await.unwrap().text().await.unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix(&name))
        .unwrap_or_else(|| panic!("no {name}: {text}"))
        .parse()
        .unwrap()
}

async fn is_counted(host: &Host, limit: Limit) {
    eventually(&format!("{limit} is counted"), SOON, async || match refused(host, limit).await {
        0 => Err("0".into()),
        _ => Ok(()),
    })
    .await;
}

/// The answer to a request for a WebSocket: status, Retry-After, body.
async fn upgrade_refused(host: &Host) -> Option<(u16, String, String)> {
    let tcp = TcpStream::connect(host.server().addresses().http).await.unwrap();
    match tokio_tungstenite::client_async(host.ws_url(), tcp).await {
        Ok(_) => None,
        Err(Error::Http(answer)) => {
            let after = answer.headers()["retry-after"].to_str().unwrap().to_owned();
            let body = String::from_utf8(answer.body().clone().unwrap_or_default()).unwrap();
            Some((answer.status().as_u16(), after, body))
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn an_address_may_have_so_many_sockets_and_no_more() {
    run(60, async {
        let set = [(Limit::AddressHalfOpen, 2), (Limit::AddressSessions, 1), (Limit::AddressConnections, 4)];
        let host = limited(&set, true).await;
        let (one, two) = (Peer::open(&host.ws_url()).await, Peer::open(&host.ws_url()).await);
        let (status, after, body) = upgrade_refused(&host).await.expect("a third half-open WebSocket");
        assert_eq!((status, after.as_str()), (429, "1"));
        assert!(body.is_empty() || body.contains("address_half_open_max"), "{body}");
        drop((one, two));
        let room = host.open(LONG, &["Ada", "Ben"]).await;
        let _ada = eventually("a place again", SOON, async || {
            Peer::try_enter(&host.join(&room, "Ada").await, None).await.map_err(|(code, _)| code.to_string())
        })
        .await;
        let (code, reason) = Peer::try_enter(&host.join(&room, "Ben").await, None).await.unwrap_err();
        assert_eq!(code, RefusalCode::TooManySessions, "{reason}");
        assert!(reason.contains("`address_sessions_max` of this host is 1"), "{reason}");
        for limit in [Limit::AddressHalfOpen, Limit::AddressSessions] {
            is_counted(&host, limit).await;
        }
        // Connections that ask nothing: of eight at least four are too many, more if the client of this test still holds some.
        let address = host.server().addresses().http;
        let mut idle = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            idle.spawn(async move {
                let mut answer = Vec::new();
                let ended = stream.read_to_end(&mut answer).await;
                let answer = String::from_utf8(answer).unwrap();
                assert!(ended.is_err() || answer.contains("429 Too Many Requests"), "{answer}");
            });
        }
        for _ in 0..4 {
            timeout(SOON, idle.join_next()).await.expect("four are sent away").unwrap().unwrap();
        }
        drop(idle);
        eventually("connections are taken again", SOON, async || {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _cut = stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
            let mut answer = String::new();
            let _reset = stream.read_to_string(&mut answer).await;
            if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
        })
        .await;
        is_counted(&host, Limit::AddressConnections).await;
        host.stop().await;
    });
}

#[test]
fn an_address_may_ask_so_often_and_no_more() {
    run(60, async {
        let set = [(Limit::AddressRooms, 2), (Limit::AddressBadTickets, 2), (Limit::AddressHandshakes, 2)];
        let host = limited(&set, true).await;
        let room = host.open(LONG, &["Ada", "Ben"]).await;
        host.open(LONG, &["Ada"]).await;
        let request = json!({ "module": LONG, "players": [{ "name": "Ada" }] });
        let answer = host.http().post(host.url("/api/rooms")).json(&request).send().await.unwrap();
        let after: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert_eq!((answer.status().as_u16(), (1..=30).contains(&after)), (429, true), "{after}");
        let body: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "too_many_requests", "{body}");
        assert_eq!(body["error"]["details"], json!({ "limit": "address_rooms_per_minute", "value": 2 }));
        assert!(body["error"]["message"].as_str().unwrap().contains("try again in"), "{body}");

        let good = host.join(&room, "Ada").await;
        let bad = Grant { ticket: "nonsense".into(), ..good.clone() };
        for _ in 0..2 {
            assert_eq!(Peer::try_enter(&bad, None).await.unwrap_err().0, RefusalCode::BadTicket);
        }
        let (code, reason) = Peer::try_enter(&good, None).await.unwrap_err();
        assert_eq!(code, RefusalCode::TooManyAttempts, "{reason}");
        // Two a second, ten at once, three of which are gone.
        let mut refusal = None;
        for _ in 0..40 {
            refusal = upgrade_refused(&host).await;
            if refusal.is_some() {
                break;
            }
        }
        assert_eq!(refusal.expect("forty handshakes at once").0, 429);
        for limit in [Limit::AddressRooms, Limit::AddressBadTickets, Limit::AddressHandshakes] {
            is_counted(&host, limit).await;
        }
        host.stop().await;

        let host = limited(&[(Limit::AddressRequests, 2)], true).await;
        let mut statuses = Vec::new();
        for _ in 0..30 {
            statuses.push(host.http().get(host.url("/healthz")).send().await.unwrap().status().as_u16());
        }
        assert!(statuses[..10].iter().all(|status| *status == 200) && statuses.contains(&429), "{statuses:?}");
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        eventually("it is counted", SOON, async || {
            let answer = host.http().get(host.url("/metrics")).send().await.unwrap();
            let text = answer.text().await.unwrap();
            let name = "holeshot_limit_refused_total{limit=\"address_requests_per_s\"} ";
            text.lines().find_map(|line| line.strip_prefix(name)).filter(|count| *count != "0").map(drop).ok_or(text)
        })
        .await;
        host.stop().await;
    });
}

#[test]
fn all_together_may_have_so_much_wherever_they_come_from() {
    run(60, async {
        let set = [(Limit::HalfOpen, 1), (Limit::Rooms, 1), (Limit::Websockets, 2)];
        let host = limited(&set, false).await;
        let room = host.open(LONG, &["Ada", "Ben"]).await;
        let request = json!({ "module": LONG, "players": [{ "name": "Ada" }] });
        let (status, body) = host.post("/api/rooms", &request).await;
        assert_eq!((status, &body["error"]["code"]), (503, &json!("busy")), "{body}");
        let half_open = Peer::open(&host.ws_url()).await;
        assert_eq!(upgrade_refused(&host).await.expect("a second one without hello").0, 503);
        drop(half_open);
        let enter = async |player: &str, others: usize| {
            let grant = host.join(&room, player).await;
            eventually("a place", SOON, async || match upgrade_refused(&host).await {
                None => Ok(()),
                Some(refusal) => Err(format!("{refusal:?}")),
            })
            .await;
            // The one that tried has to be gone first; its connection lingers a little longer than its place among the half-open ones.
            let gone = ["\nholeshot_websockets_half_open 0\n".to_owned(), format!("\nholeshot_websockets {others}\n")];
            eventually("a place again", SOON, async || {
                match host.http().get(host.url("/metrics")).send().await.unwrap().text().await {
                    Ok(text) if gone.iter().all(|line| text.contains(line)) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
            Peer::enter(&grant).await
        };
        let (_ada, _ben) = (enter("Ada", 0).await, enter("Ben", 1).await);
        assert_eq!(upgrade_refused(&host).await.expect("a third WebSocket").0, 503);
        for limit in [Limit::HalfOpen, Limit::Rooms, Limit::Websockets] {
            is_counted(&host, limit).await;
        }
        host.stop().await;

        let host = limited(&[(Limit::Requests, 2), (Limit::Handshakes, 1)], false).await;
        let mut handshakes = Vec::new();
        for _ in 0..8 {
            handshakes.push(upgrade_refused(&host).await.map(|(status, ..)| status));
        }
        assert!(handshakes.contains(&Some(503)), "{handshakes:?}");
        let mut statuses = Vec::new();
        for _ in 0..30 {
            statuses.push(host.http().get(host.url("/healthz")).send().await.unwrap().status().as_u16());
        }
        assert!(statuses.contains(&503), "{statuses:?}");
        host.stop().await;
    });
}

#[test]
fn a_session_may_say_so_much_and_no_more() {
    run(60, async {
        let set = [(Limit::SessionMessages, 50), (Limit::SessionBytes, 8_192)];
        let host = limited(&set, true).await;
        let room = host.open(LONG, &["Ada", "Ben"]).await;
        let mut ada = Peer::enter(&host.join(&room, "Ada").await).await;
        for _ in 0..300 {
            if ada.send(Message::text(r#"{"type":"ping","t":1}"#)).await.is_err() {
                break;
            }
        }
        let (code, reason) = ada.bye().await;
        assert_eq!(code, ByeCode::TooManyMessages, "{reason}");
        assert!(reason.contains("session_messages_per_s"), "{reason}");
        let mut ada = Peer::enter(&host.join(&room, "Ada").await).await;
        let long = json!({ "type": "ready", "new": "x".repeat(8_000) }).to_string();
        for _ in 0..20 {
            if ada.send(Message::text(long.clone())).await.is_err() {
                break;
            }
        }
        let (code, reason) = ada.bye().await;
        assert_eq!(code, ByeCode::TooManyMessages, "{reason}");
        assert!(reason.contains("session_bytes_per_s"), "{reason}");
        for limit in [Limit::SessionMessages, Limit::SessionBytes] {
            is_counted(&host, limit).await;
        }
        // Datagrams beyond it are dropped, and the session goes on.
        let before = refused(&host, Limit::SessionMessages).await;
        let mut ben = UdpPeer::enter(&host.join(&room, "Ben").await).await;
        ben.establish().await;
        for number in 0..400 {
            ben.send(&ToHost::Ping(number)).await;
        }
        eventually("datagrams are dropped", SOON, async || match refused(&host, Limit::SessionMessages).await {
            now if now > before => Ok(()),
            now => Err(now.to_string()),
        })
        .await;
        ben.establish().await;
        ben.peer.say(&ClientMessage::Leave).await;
        assert_eq!(ben.peer.bye().await.0, ByeCode::Left);
        host.stop().await;
    });
}

/// Says hello as `player` and sends so many pings at once, each of so many bytes. Every one is answered, later if need be.
async fn pings(host: &Host, room: &str, player: &str, count: u64, bytes: usize) {
    let mut peer = Peer::enter(&host.join(room, player).await).await;
    for t in 0..count {
        peer.say_text(json!({ "type": "ping", "t": t, "new": "x".repeat(bytes) }).to_string()).await;
    }
    let mut answered = 0;
    while answered < count {
        match peer.hear().await {
            Said::Message(HostMessage::Pong { t }) => {
                assert_eq!(t, answered, "in their order");
                answered += 1;
            }
            Said::Message(HostMessage::Bye { code, reason }) => panic!("{player}: {code}: {reason}"),
            Said::Closed => panic!("{player}: closed"),
            _ => {}
        }
    }
}

#[test]
fn those_of_one_address_and_all_together_may_say_so_much_and_what_is_more_comes_later() {
    run(60, async {
        // The limits of one address do not hold for this machine unless that is asked for; those for all do. Both together are a second beyond them, so
        // that a machine that is slow to send is beyond them, too.
        for (limit, value, count, bytes, for_all) in [
            (Limit::AddressMessages, 50, 80, 1, true),
            (Limit::AddressBytes, 16_384, 4, 8_000, true),
            (Limit::Messages, 50, 80, 1, false),
            (Limit::Bytes, 16_384, 4, 8_000, false),
        ] {
            let host = limited(&[(limit, value)], for_all).await;
            let room = host.open(LONG, &["Ada", "Ben"]).await;
            // Each by itself is within it.
            tokio::join!(pings(&host, &room, "Ada", count, bytes), pings(&host, &room, "Ben", count, bytes));
            is_counted(&host, limit).await;
            // A datagram that is one too many has nobody who waits for it: it is dropped, and its session goes on.
            let before = refused(&host, limit).await;
            let mut ben = UdpPeer::enter(&host.join(&room, "Ben").await).await;
            ben.establish().await;
            for number in 0..1_500 {
                ben.send(&ToHost::Ping(number)).await;
            }
            eventually(&format!("{limit} holds for datagrams"), SOON, async || match refused(&host, limit).await {
                now if now > before => Ok(()),
                now => Err(now.to_string()),
            })
            .await;
            ben.establish().await;
            ben.peer.say(&ClientMessage::Leave).await;
            assert_eq!(ben.peer.bye().await.0, ByeCode::Left);
            host.stop().await;
        }
        let host = limited(&[(Limit::AddressMessages, 1), (Limit::AddressBytes, 8_192)], false).await;
        let room = host.open(LONG, &["Ada"]).await;
        pings(&host, &room, "Ada", 100, 1).await;
        assert_eq!(refused(&host, Limit::AddressMessages).await, 0, "this machine is exempt");
        host.stop().await;
    });
}

#[test]
fn an_address_may_hear_so_many_streams_of_events() {
    run(60, async {
        let host = limited(&[(Limit::AddressStreams, 2)], true).await;
        let open = async || host.http().get(host.url("/api/events/stream")).send().await.unwrap();
        let (one, two) = (open().await, open().await);
        assert_eq!((one.status().as_u16(), two.status().as_u16()), (200, 200));
        let third = open().await;
        assert_eq!((third.status().as_u16(), third.headers()["retry-after"].as_bytes()), (429, &b"1"[..]));
        let body: serde_json::Value = third.json().await.unwrap();
        assert_eq!(body["error"]["details"], json!({ "limit": "address_streams_max", "value": 2 }), "{body}");
        is_counted(&host, Limit::AddressStreams).await;
        // A question that is refused holds no place.
        for _ in 0..3 {
            let refused = host.http().get(host.url("/api/events/stream?after=x")).send().await.unwrap();
            assert_ne!(refused.status(), 200);
        }
        drop(one);
        eventually("a place again", SOON, async || match open().await.status().as_u16() {
            200 => Ok(()),
            status => Err(status.to_string()),
        })
        .await;
        host.stop().await;
    });
}

#[test]
fn what_waits_for_a_slow_reader_is_bounded_in_bytes() {
    run(90, async {
        let wide = Tally { manifest: ",\"tick_hz\":128".into(), ..Tally::new(LONG, 100_000) }.with_wide_snapshot();
        let host = Host::start_with_modules(&[short(), wide.wasm()], |settings| {
            settings.limits = vec![LimitSetting::new(Limit::SessionQueued, 131_072)];
            settings.reconnect_grace_s = Some(1);
        })
        .await;
        let room = host.open(LONG, &["Ada", "Ben"]).await;
        let mut ada = Peer::enter(&host.join(&room, "Ada").await).await;
        let mut ben = Peer::enter(&host.join(&room, "Ben").await).await;
        ada.ready().await;
        ben.ready().await;
        ben.event("started").await;
        // Ada reads nothing any more. What was sent to her is what buffers hold, and no more; then she is given up.
        let left = timeout(Duration::from_secs(60), ben.event("player_left")).await.expect("Ada is given up");
        assert_eq!(left.data["player"], 0);
        let bytes = ben.snapshot.len();
        let mut read = 0;
        while !matches!(ada.hear().await, Said::Closed) {
            read += bytes;
        }
        // The queue, the WebSocket's buffer, and both systems' buffers, which the kernel doubles.
        assert!(read < 8 << 20, "{read} bytes were kept for Ada");
        serves_a_game(&host).await;
        host.stop().await;
    });
}

#[test]
fn a_proxys_word_counts_if_it_is_trusted() {
    run(60, async {
        let start = async |trusted: &[&str]| {
            Host::start_with_modules(&[short()], |settings| {
                settings.limits = vec![LimitSetting::new(Limit::AddressRooms, 1)];
                // Behind a proxy they would be closed.
                settings.open_doors = Some(OpenDoors::Yes);
                settings.trusted_proxies = trusted.iter().map(|range| range.parse().unwrap()).collect();
            })
            .await
        };
        let request = json!({ "module": SHORT, "players": [{ "name": "Ada" }] });
        let open = async |host: &Host, client: &str| {
            let request = host.http().post(host.url("/api/rooms")).header("x-forwarded-for", client).json(&request);
            request.send().await.unwrap().status().as_u16()
        };
        let ws_url = async |host: &Host| {
            let rooms = host.get("/api/rooms").await.1;
            let room = rooms["open"][0]["room"].as_str().unwrap().to_owned();
            let join =
                host.http().post(host.url(&format!("/api/rooms/{room}/join"))).header("x-forwarded-proto", "https");
            let grant: serde_json::Value =
                join.json(&json!({ "player": "Ada" })).send().await.unwrap().json().await.unwrap();
            grant["ws_url"].as_str().unwrap().to_owned()
        };
        let host = start(&["127.0.0.0/8"]).await;
        assert_eq!(open(&host, "192.0.2.1").await, 201);
        assert_eq!(open(&host, "192.0.2.1").await, 429);
        // What the client itself wrote stands before what its proxy adds.
        assert_eq!(open(&host, "192.0.2.77, 192.0.2.1").await, 429);
        assert_eq!(open(&host, "192.0.2.1, 192.0.2.2").await, 201);
        assert_eq!(open(&host, "nonsense").await, 201);
        assert!(ws_url(&host).await.starts_with("wss://"));
        host.stop().await;
        // From anybody else the headers say nothing: this is this machine, which is exempt, and without TLS.
        let host = start(&["192.0.2.0/24"]).await;
        for _ in 0..3 {
            assert_eq!(open(&host, "192.0.2.1").await, 201);
        }
        assert!(ws_url(&host).await.starts_with("ws://"));
        host.stop().await;
    });
}
