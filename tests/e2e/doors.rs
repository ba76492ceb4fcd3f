//! The doors against everyone who does not keep to the rules: every HTTP route and its description, malformed requests, tickets that open
//! nothing, WebSockets and datagrams that say what no client says. After each the host plays a game. The decoding of
//! each field is covered in `sdk/wire`; here it is what the host makes of it.

use std::time::Duration;

use holeshot_wire::message::CLIENT_MESSAGE_BYTES_MAX;
use holeshot_wire::{ByeCode, ClientMessage, HandshakeMessage, PROTOCOL_VERSION, RefusalCode, ToClient, ToHost};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Grant, Host, SOON, eventually, run};
use crate::modules_made::{SHORT, Tally, short};
use crate::peer::{Peer, Said, UdpPeer, serves_a_game, tally_of};

/// A game that is longer than any test.
const LONG: &str = "tally-long";
/// A game whose snapshots are nearly as large as they may be, 128 times a second.
const WIDE: &str = "tally-wide";

fn modules() -> Vec<Vec<u8>> {
    let wide = Tally { manifest: ",\"tick_hz\":128".into(), ..Tally::new(WIDE, 100_000) };
    vec![short(), Tally::new(LONG, 100_000).wasm(), wide.with_wide_snapshot().wasm()]
}

// ---- HTTP ----

async fn request(host: &Host, method: Method, path: &str, body: Option<&str>) -> (u16, Option<Value>, String) {
    let mut request = host.http().request(method, host.url(path));
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_owned());
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).ok(), text)
}

/// Every refusal is an object with a code for programs and words for people.
#[track_caller]
fn check_error(what: &str, (status, body, text): &(u16, Option<Value>, String), expected: u16, code: &str) {
    assert_eq!(*status, expected, "{what}: {text}");
    let error = body.as_ref().map(|body| &body["error"]).unwrap_or_else(|| panic!("{what}: not JSON: {text}"));
    assert_eq!(error["code"], code, "{what}: {text}");
    assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{what}: {text}");
}

#[test]
fn every_route_answers_as_its_description_says() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |_| {}).await;
        let (status, document) = host.get("/openapi.json").await;
        assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
        let room = host.open(SHORT, &["Ada", "Ben"]).await;
        host.recorded(&room, "is there", |record| !record.is_null()).await;
        let paths = document["paths"].as_object().unwrap();
        for (path, operations) in paths {
            let real = path.replace("{room}", &room).replace("{name}", SHORT).replace("{player}", "Ada");
            let real = match path.as_str() {
                "/api/versus" => format!("{real}?player=Ada&player=Ben"),
                "/api/leaderboards/{module}/{board}" => {
                    "/api/leaderboards/drag-race/elapsed-time?group.class=12.0&group.distance_m=402.336".to_owned()
                }
                _ => real,
            };
            assert!(!real.contains('{'), "{path} has a parameter that this test does not know");
            let operations = operations.as_object().unwrap();
            for (method, operation) in operations {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                let body = match path.as_str() {
                    _ if operation["requestBody"].is_null() => None,
                    // What it takes is no text; `swap.rs` has it all.
                    "/api/modules/{name}" => {
                        let said = host.put_module(SHORT, "all", short()).await;
                        assert_eq!(said.0, 200, "{}", said.1);
                        let refused = request(&host, method, &real, Some("")).await;
                        check_error(path, &refused, 401, "unauthorized");
                        continue;
                    }
                    "/api/rooms" => Some(format!(r#"{{"module":"{SHORT}","players":[{{"name":"Ada"}}]}}"#)),
                    "/api/rooms/{room}/watch" => Some("{}".to_owned()),
                    "/api/rooms/{room}/join" => Some(r#"{"player":"Ada"}"#.to_owned()),
                    other => panic!("{other} takes a body that this test does not know"),
                };
                if path == "/api/rooms/{room}/journal" {
                    eventually("the journal begins", SOON, async || {
                        let (_, body) = host.get(&format!("/api/rooms/{room}")).await;
                        if body["journal"].is_null() { Err(body.to_string()) } else { Ok(()) }
                    })
                    .await;
                }
                if path == "/api/events/stream" {
                    // Its answer has no end; `records.rs` hears it.
                    let response = host.http().get(host.url(&real)).send().await.unwrap();
                    assert_eq!(response.status(), 200, "{path}");
                    continue;
                }
                let answer = request(&host, method.clone(), &real, body.as_deref()).await;
                let said = format!("{method} {path}: {} {}", answer.0, answer.2);
                assert!(operation["responses"].get(answer.0.to_string()).is_some(), "an answer not described: {said}");
                // A plain request finds no WebSocket, and is told so.
                let expected = match (path.as_str(), method.as_str()) {
                    ("/ws", _) => 426,
                    ("/api/rooms", "POST") => 201,
                    _ => 200,
                };
                assert_eq!(answer.0, expected, "{said}");
                let is_described_as_bytes =
                    operation.pointer("/responses/200/content/application~1octet-stream").is_some();
                let is_json = path != "/metrics" && !is_described_as_bytes;
                assert!(answer.1.is_some() == is_json, "not JSON, or not text: {said}");
            }
            for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                if !operations.contains_key(&method.as_str().to_lowercase()) {
                    let answer = request(&host, method.clone(), &real, None).await;
                    check_error(&format!("{method} {path}"), &answer, 405, "method_not_allowed");
                }
            }
        }
        // The router's own list: what is routed is described, and the other way round.
        let sources = [include_str!("../../host/src/doors/http.rs"), include_str!("../../host/src/doors/records.rs")];
        let routed: std::collections::BTreeSet<&str> = sources
            .iter()
            .flat_map(|source| source.split(".route(\"").skip(1))
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        assert_eq!(routed, paths.keys().map(String::as_str).collect());
        // Every parameter that a page takes is described, and works.
        for (path, parameters) in
            [("/api/rooms", &["after", "limit", "state"][..]), ("/api/events", &["after", "limit"])]
        {
            let described: Vec<_> = document["paths"][path]["get"]["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .map(|parameter| match parameter["$ref"].as_str() {
                    Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap()["name"].clone(),
                    None => parameter["name"].clone(),
                })
                .collect();
            assert_eq!(described, parameters, "{path}");
        }
        // What the questions to the records take they say themselves.
        for path in paths.keys().filter(|path| {
            let path = path.as_str();
            ["/api/results", "/api/players/", "/api/versus", "/api/leaderboards", "/api/events/stream"]
                .iter()
                .any(|start| path.starts_with(start))
        }) {
            let mut described: Vec<String> = document["paths"][path]["get"]["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .map(|parameter| match parameter["$ref"].as_str() {
                    Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
                    None => parameter,
                })
                .filter(|parameter| parameter["in"] == "query")
                .map(|parameter| format!("`{}`", parameter["name"].as_str().unwrap()))
                .collect();
            let real =
                path.replace("{player}", "Ada").replace("{module}", "drag-race").replace("{board}", "elapsed-time");
            let refused = request(&host, Method::GET, &format!("{real}?zzz=1"), None).await;
            check_error(path, &refused, 400, "bad_request");
            let message = refused.1.unwrap()["error"]["message"].as_str().unwrap().to_owned();
            let mut accepted: Vec<String> =
                message.split_once("accepted: ").unwrap().1.split(", ").map(str::to_owned).collect();
            described.sort();
            accepted.sort();
            assert_eq!(described, accepted, "{path}: {message}");
        }
        for path in ["/api/rooms?limit=1&state=finished", "/api/rooms?after=x", "/api/events?after=1&limit=200"] {
            assert_eq!(host.get(path).await.0, 200, "{path}");
        }
        host.stop().await;
    });
}

#[test]
fn a_request_that_cannot_be_met_says_why() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |_| {}).await;
        let room = host.open(SHORT, &["Ada", "Ben"]).await;
        let many: Vec<_> = (0..65).map(|n| json!({ "name": format!("p{n}") })).collect();
        let long = "x".repeat(20 << 10);
        let rooms: Vec<(String, u16, &str)> = vec![
            ("{".into(), 400, "bad_request"),
            (String::new(), 400, "bad_request"),
            ("null".into(), 422, "bad_request"),
            ("[]".into(), 422, "bad_request"),
            ("{}".into(), 422, "bad_request"),
            (json!({ "players": "Ada" }).to_string(), 422, "bad_request"),
            (json!({ "players": [] }).to_string(), 422, "bad_request"),
            (json!({ "players": [{}] }).to_string(), 422, "bad_request"),
            (json!({ "players": [{ "name": 7 }] }).to_string(), 422, "bad_request"),
            (json!({ "players": [{ "name": "" }] }).to_string(), 422, "bad_request"),
            (json!({ "players": [{ "name": "a\u{0}b" }] }).to_string(), 422, "bad_request"),
            (json!({ "players": [{ "name": "Ada" }, { "name": "Ada" }] }).to_string(), 422, "bad_request"),
            (json!({ "players": [{ "name": "Ada", "colour": "red" }] }).to_string(), 422, "bad_request"),
            (json!({ "players": [{ "name": "Ada" }], "map": 1 }).to_string(), 422, "bad_request"),
            (json!({ "players": many }).to_string(), 422, "bad_request"),
            (json!({ "players": [{ "name": "Ada" }], "seed": -1 }).to_string(), 422, "bad_request"),
            (json!({ "players": [{ "name": "Ada" }], "seed": 0.5 }).to_string(), 422, "bad_request"),
            (json!({ "players": [{ "name": "Ada", "data": long }] }).to_string(), 422, "bad_request"),
            (json!({ "players": [{ "name": "Ada" }], "options": long }).to_string(), 422, "bad_request"),
            (json!({ "players": [{ "name": "Ada" }], "module": "chess" }).to_string(), 404, "unknown_module"),
            (json!({ "players": [{ "name": "Ada", "data": { "car": "boat" } }] }).to_string(), 422, "refused_by_rules"),
            (
                json!({ "players": [{ "name": "Ada" }], "options": { "tree": "oak" } }).to_string(),
                422,
                "refused_by_rules",
            ),
            (
                json!({ "players": [{ "name": "Ada" }], "module": SHORT, "options": 1 }).to_string(),
                422,
                "refused_by_rules",
            ),
            (format!("{{\"options\":{}", "[".repeat(100_000)), 400, "bad_request"),
            (" ".repeat((1 << 20) + 1), 413, "bad_request"),
        ];
        for (body, status, code) in &rooms {
            let answer = request(&host, Method::POST, "/api/rooms", Some(body)).await;
            check_error(&body[..body.len().min(80)], &answer, *status, code);
        }
        // JSON that does not say that it is JSON.
        let plain = host.http().post(host.url("/api/rooms")).body("{}").send().await.unwrap();
        assert_eq!(plain.status(), 415);
        assert_eq!(plain.json::<Value>().await.unwrap()["error"]["code"], "bad_request");
        let join = format!("/api/rooms/{room}/join");
        for (path, body, status, code) in [
            (join.as_str(), "{", 400, "bad_request"),
            (&join, "{}", 422, "bad_request"),
            (&join, r#"{"player":0}"#, 422, "bad_request"),
            (&join, r#"{"player":"Ada","x":1}"#, 422, "bad_request"),
            (&join, r#"{"player":"Cleo"}"#, 404, "unknown_player"),
            ("/api/rooms/none/join", r#"{"player":"Ada"}"#, 404, "unknown_room"),
        ] {
            check_error(body, &request(&host, Method::POST, path, Some(body)).await, status, code);
        }
        for (path, status, code) in [
            ("/api/rooms/none", 404, "unknown_room"),
            ("/api/rooms/%ff", 400, "bad_request"),
            ("/api/rooms?limit=0", 400, "bad_request"),
            ("/api/rooms?limit=201", 400, "bad_request"),
            ("/api/rooms?limit=many", 400, "bad_request"),
            ("/api/rooms?state=lost", 400, "bad_request"),
            ("/api/rooms?page=2", 400, "bad_request"),
            ("/api/events?after=x", 400, "bad_request"),
            ("/api/events?after=99999999999999999999", 400, "bad_request"),
            ("/api", 404, "not_found"),
            ("/", 404, "not_found"),
            ("/api/rooms/a/b/c", 404, "not_found"),
        ] {
            check_error(path, &request(&host, Method::GET, path, None).await, status, code);
        }
        // Bytes that are no HTTP at all.
        for bytes in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
            b"GET\r\n\r\n",
            &[0; 4096],
            b"GET / HTTP/9.9\r\n\r\n",
        ] {
            let mut tcp = TcpStream::connect(host.server().addresses().http).await.unwrap();
            let _cut = tcp.write_all(bytes).await;
            let mut answer = Vec::new();
            let _ended = timeout(SOON, tcp.read_to_end(&mut answer)).await.expect("the host ends such a connection");
        }
        assert_eq!(host.get("/readyz").await, (200, json!({ "status": "ready" })));
        serves_a_game(&host).await;
        host.stop().await;
    });
}

#[test]
fn a_full_host_says_so_and_takes_rooms_again() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |settings| {
            settings.rooms_max = Some(2);
            settings.linger_s = Some(0);
        })
        .await;
        let first = host.open(LONG, &["Ada"]).await;
        let _second = host.open(LONG, &["Ben"]).await;
        let body = json!({ "module": SHORT, "players": [{ "name": "Cleo" }] });
        let answer = request(&host, Method::POST, "/api/rooms", Some(&body.to_string())).await;
        check_error("a third room", &answer, 503, "full");
        let mut ada = Peer::enter(&host.join(&first, "Ada").await).await;
        ada.say(&ClientMessage::Leave).await;
        ada.bye().await;
        eventually("a place for a room", SOON, async || match host.post("/api/rooms", &body).await {
            (201, _) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        host.stop().await;
    });
}

// ---- tickets ----

#[test]
fn a_ticket_of_somebody_else_opens_nothing() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |settings| settings.ticket_lifetime_s = Some(1)).await;
        let other = Host::start_with_modules(&modules(), |_| {}).await;
        let room = host.open(SHORT, &["Ada", "Ben"]).await;
        let good = host.join(&room, "Ada").await;
        assert!(good.expires_ms > 1_700_000_000_000);
        let with = |ticket: String| Grant { ticket, ..good.clone() };
        // Of another host, where a room with the same player is open.
        let elsewhere = other.open(SHORT, &["Ada", "Ben"]).await;
        let foreign = other.join(&elsewhere, "Ada").await.ticket;
        // Signed by who does not have the key; and with no signature at all.
        let claims = json!({
            "iss": host.server().host_id(), "sub": "Ada", "room": room, "player": 0,
            "iat": 1_700_000_000, "exp": 4_000_000_000u64, "jti": "1",
        });
        let key = jsonwebtoken::EncodingKey::from_secret(&[7; 32]);
        let forged = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
        let (header, rest) = forged.split_once('.').unwrap();
        let (payload, _) = rest.split_once('.').unwrap();
        // {"typ":"JWT","alg":"none"}
        let unsigned = format!("eyJ0eXAiOiJKV1QiLCJhbGciOiJub25lIn0.{payload}.");
        let (_, signature) = good.ticket.rsplit_once('.').unwrap();
        let changed = format!("{header}.{payload}.{signature}");
        for (what, ticket) in [
            ("garbage", "not a ticket".to_owned()),
            ("dots", "..".into()),
            ("long", "a".repeat(2_048)),
            ("of another host", foreign),
            ("with another key", forged.clone()),
            ("without a signature", unsigned),
            ("changed after signing", changed),
            ("cut", good.ticket[..good.ticket.len() - 1].to_owned()),
        ] {
            let (code, reason) = Peer::try_enter(&with(ticket), None).await.expect_err(what);
            assert_eq!(code, RefusalCode::BadTicket, "{what}: {reason}");
            assert!(!reason.is_empty(), "{what}");
        }
        // Its time over, the good one opens nothing either.
        eventually("the ticket expires", SOON, async || match Peer::try_enter(&good, None).await {
            Err((RefusalCode::ExpiredTicket, reason)) => {
                assert!(reason.contains("expired") && reason.contains("join"), "{reason}");
                Ok(())
            }
            other => Err(format!("{:?}", other.map(|peer| peer.welcome))),
        })
        .await;
        // None of these came into the room, but for the good one.
        let (_, body) = host.get(&format!("/api/rooms/{room}")).await;
        assert_eq!(body["open"]["phase"], "gathering", "{body}");
        host.stop().await;
        other.stop().await;
    });
}

// ---- WebSocket ----

/// The answer to a first message that is no good.
async fn refused(host: &Host, message: Message) -> RefusalCode {
    let mut peer = Peer::open(&host.ws_url()).await;
    peer.send(message).await.unwrap();
    refusal(&mut peer).await
}

async fn refusal(peer: &mut Peer) -> RefusalCode {
    match peer.hear().await {
        Said::Message(holeshot_wire::HostMessage::Refused { code, reason }) => {
            assert!(!reason.is_empty());
            peer.closed().await;
            code
        }
        other => panic!("an answer to no hello: {other:?}"),
    }
}

#[test]
fn a_first_message_that_is_no_hello_is_refused() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |_| {}).await;
        let room = host.open(LONG, &["Ada"]).await;
        let grant = host.join(&room, "Ada").await;
        // Silent all the while: refused when its time is over.
        let mut silent = Peer::open(&host.ws_url()).await;
        let hello = |more: Value| {
            let mut hello = json!({ "type": "hello", "protocol": PROTOCOL_VERSION, "ticket": grant.ticket });
            hello.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Message::text(hello.to_string())
        };
        let noise = HandshakeMessage([9; 48]).to_base64();
        for (what, message, code) in [
            ("no JSON", Message::text("hello"), RefusalCode::BadMessage),
            ("no object", Message::text("[]"), RefusalCode::BadMessage),
            ("nothing", Message::text(""), RefusalCode::BadMessage),
            ("ready", Message::text(r#"{"type":"ready"}"#), RefusalCode::BadMessage),
            ("unknown type", Message::text(r#"{"type":"login"}"#), RefusalCode::BadMessage),
            ("no ticket", Message::text(r#"{"type":"hello","protocol":1}"#), RefusalCode::BadMessage),
            ("binary", Message::binary(vec![2, 0, 0, 0, 0, 0, 0, 0, 0]), RefusalCode::BadMessage),
            ("too long", Message::text("x".repeat(CLIENT_MESSAGE_BYTES_MAX + 1)), RefusalCode::BadMessage),
            ("much too long", Message::text("x".repeat(1 << 20)), RefusalCode::BadMessage),
            ("another protocol", hello(json!({ "protocol": 2 })), RefusalCode::ProtocolVersion),
            ("protocol as text", hello(json!({ "protocol": "1" })), RefusalCode::BadMessage),
            ("noise of another host", hello(json!({ "noise": noise })), RefusalCode::BadHandshake),
            ("noise too short", hello(json!({ "noise": "abc" })), RefusalCode::BadMessage),
            ("after out of range", hello(json!({ "after": -1 })), RefusalCode::BadMessage),
        ] {
            assert_eq!(refused(&host, message).await, code, "{what}");
        }
        assert_eq!(refusal(&mut silent).await, RefusalCode::HelloTimeout);
        serves_a_game(&host).await;
        host.stop().await;
    });
}

#[test]
fn a_session_that_breaks_the_protocol_ends_and_the_other_player_plays_on() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |_| {}).await;
        let room = host.open(LONG, &["Ada", "Ben"]).await;
        let grant = host.join(&room, "Ada").await;
        let mut ada = Peer::enter(&grant).await;
        let mut ben = Peer::enter(&host.join(&room, "Ben").await).await;
        ada.ready().await;
        ben.ready().await;
        ben.event("started").await;
        let hello = json!({ "type": "hello", "protocol": PROTOCOL_VERSION, "ticket": grant.ticket }).to_string();
        let large = json!({ "type": "action", "id": 1, "data": "x".repeat(2_000) }).to_string();
        for (what, message) in [
            ("a second hello", Message::text(hello)),
            ("no JSON", Message::text("{")),
            ("an unknown type", Message::text(r#"{"type":"cheat"}"#)),
            ("an action without an id", Message::text(r#"{"type":"action","data":1}"#)),
            ("an action that is too large", Message::text(large)),
            ("too long", Message::text("x".repeat(CLIENT_MESSAGE_BYTES_MAX + 1))),
            ("a payload of no kind", Message::binary(vec![99; 30])),
            ("an empty payload", Message::binary(Vec::new())),
            ("a payload of the host's", Message::binary(vec![0x84, 0, 0, 0, 0, 0, 0, 0, 0])),
            ("a payload that is cut", Message::binary(vec![1, 5, 0, 0, 0])),
        ] {
            ada.send(message).await.unwrap();
            let (code, reason) = ada.bye().await;
            assert_eq!(code, ByeCode::BadMessage, "{what}: {reason}");
            assert!(!reason.is_empty(), "{what}");
            // Ben does not notice, and Ada may come back and do better.
            let frame = ben.snapshot_frames.last().copied().unwrap_or(0);
            ben.frame(frame + 2).await;
            ada = Peer::enter_after(&ada.resume(&grant), None).await;
            assert!(ada.welcome().resumed);
        }
        assert_eq!(ben.names().iter().filter(|name| **name == "player_left").count(), 0);
        // What is odd and allowed: probes on the WebSocket, pings, being ready again, a message of a later version's fields.
        for payload in [ToHost::Probe, ToHost::Response([1; 8]), ToHost::Ping(5)] {
            ada.say_payload(&payload).await;
        }
        ada.say_text(r#"{"type":"ready","new":[1,2]}"#).await;
        ada.say_text(r#"{"type":"ping","t":41}"#).await;
        loop {
            match ada.hear().await {
                Said::Message(holeshot_wire::HostMessage::Pong { t: 41 }) => break,
                Said::Closed => panic!("closed"),
                _ => {}
            }
        }
        let frame = *ben.snapshot_frames.last().unwrap();
        ada.frame(frame + 3).await;
        // A flood of actions is answered or refused, never believed more than once a number.
        for _ in 0..100 {
            ada.say_text(r#"{"type":"action","id":9,"data":null}"#).await;
        }
        // A later action comes behind all of them; so when it has counted, they have.
        ada.say_text(r#"{"type":"action","id":10,"data":null}"#).await;
        loop {
            match ada.hear().await {
                Said::Message(holeshot_wire::HostMessage::ActionResult { id: 10, accepted, .. }) => {
                    assert!(accepted);
                    break;
                }
                Said::Closed => panic!("closed"),
                _ => {}
            }
        }
        let frame = ben.snapshot_frames.last().max(ada.snapshot_frames.last()).copied().unwrap();
        ada.frame(frame + 20).await;
        assert_eq!(tally_of(&ada.snapshot, 0), Some(200), "two actions count 100 each, once");
        serves_a_game(&host).await;
        host.stop().await;
    });
}

/// A WebSocket below the level of messages: the upgrade is done, the bytes are the caller's.
async fn upgraded(host: &Host) -> TcpStream {
    let address = host.server().addresses().http;
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(SOON, tcp.read_u8()).await.unwrap().unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    tcp
}

/// A frame of a client (RFC 6455, section 5.2), masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

#[test]
fn frames_that_break_the_websocket_end_the_connection() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |_| {}).await;
        let room = host.open(LONG, &["Ada", "Ben"]).await;
        let grant = host.join(&room, "Ada").await;
        let hello = json!({ "type": "hello", "protocol": PROTOCOL_VERSION, "ticket": grant.ticket }).to_string();
        let hello = frame(0x81, hello.as_bytes());
        let mut huge = vec![0x81, 0x80 | 127];
        huge.extend(u64::MAX.to_be_bytes());
        huge.extend([0; 64]);
        for (what, bytes) in [
            ("text that is not UTF-8", frame(0x81, &[0xff, 0xfe])),
            ("a frame without a mask", vec![0x81, 2, b'h', b'i']),
            ("a reserved opcode", frame(0x83, b"x")),
            ("reserved bits", frame(0xf1, b"x")),
            ("a ping in pieces", frame(0x09, b"x")),
            ("a piece of nothing", frame(0x80, b"x")),
            ("a length of 2^64 - 1", huge),
        ] {
            // As the first thing, and within a session.
            for before in [&[][..], &hello] {
                let mut tcp = upgraded(&host).await;
                tcp.write_all(before).await.unwrap();
                let _cut = tcp.write_all(&bytes).await;
                let mut answer = Vec::new();
                let ended = timeout(SOON, tcp.read_to_end(&mut answer)).await;
                assert!(ended.is_ok(), "{what}: the host keeps the connection");
            }
        }
        // Half a frame, then nothing: dropped when its time is over, like any silence; it must not hold a stop up.
        let mut half = upgraded(&host).await;
        half.write_all(&hello[..20]).await.unwrap();
        serves_a_game(&host).await;
        host.stop().await;
    });
}

#[test]
fn a_player_who_does_not_read_is_dropped_and_the_other_is_not_hurt() {
    run(90, async {
        let host = Host::start_with_modules(&modules(), |settings| settings.reconnect_grace_s = Some(1)).await;
        let room = host.open(WIDE, &["Ada", "Ben"]).await;
        // Ada's system takes little off the wire for her.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let tcp = socket.connect(host.server().addresses().http).await.unwrap();
        let mut ada = Peer::over(tcp, &host.ws_url()).await;
        let grant = host.join(&room, "Ada").await;
        let (protocol, ticket) = (PROTOCOL_VERSION, grant.ticket);
        let hello = ClientMessage::Hello { protocol, ticket, noise: None, after: None, deltas: false };
        ada.say(&hello).await;
        let mut ben = Peer::enter(&host.join(&room, "Ben").await).await;
        ada.ready().await;
        ben.ready().await;
        ben.event("started").await;
        // From here on Ada reads nothing. Ben gets every snapshot until the host gives Ada up.
        let left = timeout(Duration::from_secs(60), ben.event("player_left")).await.expect("Ada is given up");
        assert_eq!(left.data, json!({ "player": 0, "name": "Ada", "reason": "connection_lost" }));
        let frames = &ben.snapshot_frames;
        assert!(frames.len() > 500, "{} snapshots", frames.len());
        let missed = frames.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        // None is dropped for Ada's sake; this test itself may be too slow for some on a busy machine.
        assert!(missed * 2 < frames.len(), "{missed} gaps in {} snapshots", frames.len());
        let frame = *frames.last().unwrap();
        ben.frame(frame + 50).await;
        drop(ada);
        serves_a_game(&host).await;
        host.stop().await;
    });
}

// ---- datagrams ----

/// Whether anything waits in a socket. To be asked after the host has answered something that was sent later.
fn is_silent(socket: &UdpSocket) -> bool {
    let mut buffer = [0; 1_500];
    match socket.try_recv_from(&mut buffer) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            true
        }
    }
}

/// Sends a ping and reads until its pong: by then the host has looked at every datagram that was sent before.
async fn after_all(ada: &mut UdpPeer, token: u64) {
    ada.send(&ToHost::Ping(token)).await;
    loop {
        let payload = ada.receive(SOON).await.expect("a pong");
        if ToClient::decode(&payload).unwrap() == ToClient::Pong(token) {
            return;
        }
    }
}

#[test]
fn datagrams_of_strangers_are_not_believed_and_not_answered() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |_| {}).await;
        let room = host.open(LONG, &["Ada", "Ben"]).await;
        let mut ada = UdpPeer::enter(&host.join(&room, "Ada").await).await;
        let mut ben = Peer::enter(&host.join(&room, "Ben").await).await;
        ada.establish().await;
        ada.peer.ready().await;
        ben.ready().await;
        ben.event("started").await;
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // `is_silent` needs the socket to have been registered for reading.
        let _ = timeout(Duration::from_millis(1), stranger.readable()).await;
        let udp = host.udp();

        // A real datagram of this session: an input that counts 5.
        let (mut inputs_sent, _, genuine) = ada.counts(0, 5, 0).await;

        let mut forgeries: Vec<Vec<u8>> = Vec::new();
        // Noise of every size, in the shape of the protocol and without.
        let mut noise = vec![0; 1_400];
        getrandom::fill(&mut noise).unwrap();
        forgeries.extend((0..=1_400).step_by(50).map(|len| noise[..len].to_vec()));
        forgeries.extend((13..=1_400).step_by(77).map(|len| {
            let mut datagram = noise[..len].to_vec();
            datagram[..13].copy_from_slice(&genuine[..13]);
            datagram
        }));
        // The real one: again, cut, longer, with each byte changed, for other sessions, with a later sequence.
        forgeries.push(genuine.clone());
        forgeries.extend((0..genuine.len()).map(|len| genuine[..len].to_vec()));
        forgeries.push([&genuine[..], &[0]].concat());
        forgeries.extend((0..genuine.len()).map(|at| {
            let mut changed = genuine.clone();
            changed[at] ^= 1 << (at % 8);
            changed
        }));
        forgeries.extend([0u32, 1, 0xff, 0xffff_ff00, u32::MAX].map(|session| {
            let mut other = genuine.clone();
            other[1..5].copy_from_slice(&session.to_le_bytes());
            other
        }));
        forgeries.extend([1_000u64, u64::MAX - 1, u64::MAX].map(|sequence| {
            let mut later = genuine.clone();
            later[5..13].copy_from_slice(&sequence.to_le_bytes());
            later
        }));
        for (number, forgery) in forgeries.iter().enumerate() {
            // From elsewhere, and from Ada's own address.
            stranger.send_to(forgery, udp).await.unwrap();
            ada.send_raw(forgery).await;
            if number % 50 == 49 {
                after_all(&mut ada, 1_000 + number as u64).await;
            }
        }
        after_all(&mut ada, 2).await;
        assert!(is_silent(&stranger), "the host answered a stranger");
        // Ada's path, her inputs and her snapshots are as they were.
        let (frame, snapshot) = ada.snapshot(0).await;
        assert_eq!(tally_of(&snapshot, 0), Some(5));
        let (attempts, frame, _) = ada.counts(0, 7, frame + 1).await;
        inputs_sent += attempts;
        let (frame, snapshot) = ada.snapshot(frame + 1).await;
        assert_eq!(tally_of(&snapshot, 0), Some(12));

        // A real datagram that comes from another address first, as one who sits on the way could do. The host may ask that address
        // whether it is Ada's, with no more bytes than came; it goes on to send to Ada.
        let caught = ada.seal(&ToHost::Ping(55));
        stranger.send_to(&caught, udp).await.unwrap();
        after_all(&mut ada, 3).await;
        let mut buffer = [0; 1_500];
        let mut answered = 0;
        while let Ok((len, _)) = stranger.try_recv_from(&mut buffer) {
            answered += len;
        }
        assert!(answered <= caught.len(), "{answered} bytes for {}", caught.len());
        ada.snapshot(frame + 5).await;
        assert!(is_silent(&stranger), "snapshots to an address that confirmed nothing");

        // What the room counted are the inputs that Ada sent, and no others.
        ada.peer.say(&ClientMessage::Leave).await;
        ben.say(&ClientMessage::Leave).await;
        let record = host.ended(&room).await;
        let ended = record["events"].as_array().unwrap().iter().find(|e| e["kind"] == "room.aborted").unwrap();
        let inputs = &ended["event"]["data"]["players"][0]["inputs"];
        assert_eq!((&inputs["received"], &inputs["taken"]), (&json!(inputs_sent), &json!(2)), "{inputs}");
        serves_a_game(&host).await;
        host.stop().await;
    });
}

#[test]
fn a_session_moves_to_a_new_address_only_when_that_address_answers() {
    run(60, async {
        let host = Host::start_with_modules(&modules(), |_| {}).await;
        let room = host.open(LONG, &["Ada"]).await;
        let mut ada = UdpPeer::enter(&host.join(&room, "Ada").await).await;
        // Before a challenge is answered nothing comes, whatever is sent.
        ada.peer.ready().await;
        ada.peer.event("started").await;
        ada.send(&ToHost::Ping(1)).await;
        let mut frames = Vec::new();
        while let Some(payload) = ada.receive(Duration::from_millis(300)).await {
            if let ToClient::Snapshot(snapshot) = ToClient::decode(&payload).unwrap() {
                frames.push(snapshot.frame);
            }
        }
        assert!(frames.is_empty(), "snapshots to an address that confirmed nothing: {frames:?}");
        ada.establish().await;
        let (frame, _) = ada.snapshot(0).await;
        // Ada's phone changes networks: another address, the same keys. She shows it, and it is used.
        let before = std::mem::replace(&mut ada.socket, UdpSocket::bind("127.0.0.1:0").await.unwrap());
        ada.establish().await;
        let (frame, _) = ada.snapshot(frame + 1).await;
        let _ = timeout(Duration::from_millis(1), before.readable()).await;
        while !is_silent(&before) {}
        ada.snapshot(frame + 5).await;
        assert!(is_silent(&before), "snapshots still go to the address that was left");
        // And the WebSocket, if datagrams find no way.
        ada.peer.say_payload(&ToHost::Ping(9)).await;
        ada.peer.frame(frame + 6).await;
        host.stop().await;
    });
}
