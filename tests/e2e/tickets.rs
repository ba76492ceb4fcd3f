//! Tickets: every one that opens nothing, tried on a room whose game runs and must not notice; tickets of matchmakers, among them one in another
//! language; what a thief gets; datagrams that somebody recorded. Then who may open rooms, and that no log has a secret. The claims and keys
//! one by one are in `host/src/doors/tickets`, what a seat remembers in `host/src/shard/seats.rs`.

use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holeshot::config::OpenDoors;
use holeshot::doors::tickets::keys::KeyPair;
use holeshot::rules::{DRAG_RACE_WASM, Engine, EngineSettings, ModuleStore};
use holeshot_room::journal::Journal;
use holeshot_wire::{ByeCode, ClientMessage, PROTOCOL_VERSION, RefusalCode, ToHost};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio_tungstenite::tungstenite::Message;

use crate::command::{FREE_PORTS, Served, holeshot, output, text};
use crate::harness::{Grant, Host, SOON, compiled, data_dir, eventually, lines_with, run, tell};
use crate::modules_made::{SHORT, Tally, short};
use crate::peer::{Peer, Said, UdpPeer, tally_of};
use crate::proof::prove;

/// A game that is longer than any test.
const LONG: &str = "tally-long";

fn modules() -> Vec<Vec<u8>> {
    vec![short(), Tally::new(LONG, 100_000).wasm()]
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// One who signs tickets for a host, with a key of each kind.
struct Matchmaker {
    pair: KeyPair,
    secret: [u8; 32],
    tickets: u32,
}

impl Matchmaker {
    fn new() -> Self {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).unwrap();
        Self { pair: KeyPair::make(Some("lobby-ed")).unwrap(), secret, tickets: 0 }
    }

    /// The keys as a host gets them.
    fn jwks(&self) -> String {
        let secret = URL_SAFE_NO_PAD.encode(self.secret);
        let mac = json!({ "kty": "oct", "k": secret, "kid": "lobby-mac", "alg": "HS256" });
        json!({ "keys": [self.pair.public_jwk, mac] }).to_string()
    }

    /// A player's claims, good for a minute.
    fn claims(&mut self, host: &Host, room: &str, player: u16, name: &str) -> Value {
        self.tickets += 1;
        json!({
            "iss": "lobby", "aud": host.server().host_id(), "sub": name, "room": room, "role": "player", "player": player,
            "iat": now_s(), "exp": now_s() + 60, "jti": format!("t-{}", self.tickets),
        })
    }

    fn mint(&self, header: &Value, claims: &Value) -> String {
        let (key, algorithm) = match header["alg"].as_str() {
            Some("EdDSA") => (EncodingKey::from_ed_pem(self.pair.private_pem.as_bytes()).unwrap(), Algorithm::EdDSA),
            _ => (EncodingKey::from_secret(&self.secret), Algorithm::HS256),
        };
        signed(header, claims, &key, algorithm)
    }

    fn ed(&self, claims: &Value) -> String {
        self.mint(&json!({ "alg": "EdDSA", "kid": "lobby-ed" }), claims)
    }
}

fn signed(header: &Value, claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// A host that knows a matchmaker, and a game of Ada and Ben that runs on it.
struct Match {
    host: Host,
    lobby: Matchmaker,
    room: String,
    /// Where to go; the ticket is Ada's, used up.
    grant: Grant,
    ada: UdpPeer,
    ben: Peer,
    frame: u32,
    /// What Ada has sent so far, all of it taken.
    sum: u32,
    inputs: u64,
}

impl Match {
    async fn start() -> Self {
        let mut lobby = Matchmaker::new();
        let keys = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(keys.path(), lobby.jwks()).unwrap();
        let host = Host::start_with_modules(&modules(), |settings| {
            settings.ticket_keys = vec![keys.path().to_path_buf()];
            settings.ticket_lifetime_max_s = Some(600);
        })
        .await;
        let room = host.open(LONG, &["Ada", "Ben"]).await;
        // Both tickets are the matchmaker's: one of each kind. The host's own only says where to go.
        let mut grant = host.join(&room, "Ada").await;
        let claims = lobby.claims(&host, &room, 0, "Ada");
        grant.ticket = lobby.ed(&claims);
        let mut ada = UdpPeer::enter(&grant).await;
        let claims = lobby.claims(&host, &room, 1, "Ben");
        let of_ben = lobby.mint(&json!({ "alg": "HS256", "kid": "lobby-mac" }), &claims);
        let mut ben = Peer::enter(&Grant { ticket: of_ben, ..grant.clone() }).await;
        ada.establish().await;
        ada.peer.ready().await;
        ben.ready().await;
        ben.event("started").await;
        let mut this = Self { host, lobby, room, grant, ada, ben, frame: 0, sum: 0, inputs: 0 };
        this.plays_on().await;
        this
    }

    /// Ada plays, and her tally is exactly what she sent.
    async fn plays_on(&mut self) {
        let (attempts, frame, _) = self.ada.counts(0, 3, self.frame + 1).await;
        (self.frame, self.inputs, self.sum) = (frame, self.inputs + attempts, self.sum + 3);
        let (frame, snapshot) = self.ada.snapshot(self.frame + 1).await;
        assert_eq!((tally_of(&snapshot, 0), tally_of(&snapshot, 1)), (Some(self.sum), Some(0)));
        self.frame = frame;
    }

    fn with(&self, ticket: String) -> Grant {
        Grant { ticket, ..self.grant.clone() }
    }

    /// Shows a ticket that must open nothing, with datagrams and without.
    async fn refuses(&mut self, what: &str, ticket: String, code: RefusalCode) -> String {
        let refused = Peer::try_enter(&self.with(ticket), Some(0)).await;
        let Err((found, reason)) = refused else { panic!("{what}: let in") };
        assert_eq!(found, code, "{what}: {reason}");
        assert!(reason.len() > 15, "{what}: {reason}");
        reason
    }

    /// A ticket of Ada's with some claims changed, or taken away where null.
    fn adas(&mut self, changes: &Value) -> String {
        let mut claims = self.lobby.claims(&self.host, &self.room, 0, "Ada");
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        self.lobby.ed(&claims)
    }

    /// Ends the match, after what it was all about: both are where they were, and the room counted no input but Ada's.
    async fn ends_undisturbed(mut self) -> Host {
        self.plays_on().await;
        self.ada.peer.say(&ClientMessage::Leave).await;
        self.ben.say(&ClientMessage::Leave).await;
        assert_eq!(self.ben.bye().await.0, ByeCode::Left);
        let record = self.host.ended(&self.room).await;
        let ended = record["events"].as_array().unwrap().iter().find(|e| e["kind"] == "room.aborted").unwrap();
        let players = &ended["event"]["data"]["players"];
        assert_eq!(players[0]["inputs"]["received"], json!(self.inputs), "{players}");
        assert_eq!(players[0]["inputs"]["reconnects"], json!(0), "{players}");
        assert_eq!(players[1]["inputs"]["received"], json!(0), "{players}");
        let names = self.ben.names();
        assert_eq!(names.iter().filter(|name| **name == "player_joined").count(), 2, "{names:?}");
        self.host
    }
}

macro_rules! outsider {
    ($(#[$doc:meta])* $name:ident, |$game:ident| $body:block) => {
        $(#[$doc])*
        #[test]
        fn $name() {
            run(60, async {
                let mut started = Match::start().await;
                {
                    let $game = &mut started;
                    $body
                }
                started.ends_undisturbed().await.stop().await;
            });
        }
    };
}

outsider!(who_has_no_ticket_gets_nowhere, |game| {
    for (what, hello, code) in [
        ("none", json!({}), RefusalCode::BadMessage),
        ("null", json!({ "ticket": null }), RefusalCode::BadMessage),
        ("empty", json!({ "ticket": "" }), RefusalCode::BadMessage),
        ("a word", json!({ "ticket": "please" }), RefusalCode::BadTicket),
        ("dots", json!({ "ticket": ".." }), RefusalCode::BadTicket),
        ("long", json!({ "ticket": "a".repeat(2_048) }), RefusalCode::BadTicket),
        ("too long", json!({ "ticket": "a".repeat(2_049) }), RefusalCode::BadMessage),
    ] {
        let mut text = json!({ "type": "hello", "protocol": PROTOCOL_VERSION, "room": game.room, "player": 0 });
        text.as_object_mut().unwrap().extend(hello.as_object().unwrap().clone());
        let mut peer = Peer::open(&game.host.ws_url()).await;
        peer.send(Message::text(text.to_string())).await.unwrap();
        let Said::Message(holeshot_wire::HostMessage::Refused { code: found, .. }) = peer.hear().await else {
            panic!("{what}: no refusal")
        };
        assert_eq!(found, code, "{what}");
        peer.closed().await;
    }
});

outsider!(an_expired_ticket_gets_nowhere, |game| {
    let late = game.adas(&json!({ "iat": now_s() - 100, "exp": now_s() - 6 }));
    let reason = game.refuses("expired", late, RefusalCode::ExpiredTicket).await;
    assert!(reason.contains("expired") && reason.contains("ask for a new one"), "{reason}");
});

outsider!(a_ticket_that_is_not_good_yet_gets_nowhere, |game| {
    for claims in [json!({ "iat": now_s() + 60, "exp": now_s() + 90 }), json!({ "nbf": now_s() + 30 })] {
        let early = game.adas(&claims);
        let reason = game.refuses("early", early, RefusalCode::EarlyTicket).await;
        assert!(reason.contains("clock"), "{reason}");
    }
});

outsider!(a_ticket_that_is_good_for_too_long_gets_nowhere, |game| {
    let forever = game.adas(&json!({ "exp": now_s() + 100_000 }));
    let reason = game.refuses("too long", forever, RefusalCode::BadTicket).await;
    assert!(reason.contains("ticket_lifetime_max_s"), "{reason}");
});

outsider!(a_foreign_ticket_gets_nowhere, |game| {
    let other = Host::start_with_modules(&modules(), |_| {}).await;
    let of_other = game.adas(&json!({ "aud": other.server().host_id() }));
    let reason = game.refuses("for another host", of_other, RefusalCode::BadTicket).await;
    assert!(reason.contains(other.server().host_id()), "{reason}");
    // A room with the same players, on a host of the same kind: its own ticket.
    let elsewhere = other.open(LONG, &["Ada", "Ben"]).await;
    let ticket = other.join(&elsewhere, "Ada").await.ticket;
    game.refuses("another host's own", ticket, RefusalCode::BadTicket).await;
    other.stop().await;
    let claims = game.lobby.claims(&game.host, &game.room, 0, "Ada");
    let stranger = Matchmaker::new();
    for header in [
        json!({ "alg": "EdDSA", "kid": "lobby-ed" }),
        json!({ "alg": "HS256", "kid": "lobby-mac" }),
        json!({ "alg": "EdDSA" }),
        json!({ "alg": "HS256", "kid": "host" }),
    ] {
        game.refuses("another key", stranger.mint(&header, &claims), RefusalCode::BadTicket).await;
    }
    let unknown = game.lobby.mint(&json!({ "alg": "EdDSA", "kid": "lobby-ed-2" }), &claims);
    let reason = game.refuses("an unknown kid", unknown, RefusalCode::BadTicket).await;
    assert!(reason.contains("lobby-ed-2"), "{reason}");
});

outsider!(a_tampered_ticket_gets_nowhere, |game| {
    // Two tickets of the same maker: no part of one goes with the others of the other.
    let (first, second) = (game.adas(&json!({})), game.adas(&json!({ "exp": now_s() + 500 })));
    let parts = |ticket: &str| ticket.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (first, second) = (parts(&first), parts(&second));
    let header = URL_SAFE_NO_PAD.encode(json!({ "alg": "EdDSA", "kid": "lobby-ed", "typ": "x" }).to_string());
    for (what, ticket) in [
        ("another header", [header.as_str(), &first[1], &first[2]].join(".")),
        ("other claims", [first[0].as_str(), &second[1], &first[2]].join(".")),
        ("another signature", [first[0].as_str(), &first[1], &second[2]].join(".")),
        ("no signature", [first[0].as_str(), &first[1], ""].join(".")),
        ("a part more", [first[0].as_str(), &first[1], &first[2], ""].join(".")),
        ("a part less", [first[0].as_str(), &first[1]].join(".")),
        ("half a signature", [first[0].as_str(), &first[1], &first[2][..40]].join(".")),
    ] {
        game.refuses(what, ticket, RefusalCode::BadTicket).await;
    }
});

outsider!(a_used_ticket_gets_nowhere, |game| {
    let used = game.grant.ticket.clone();
    let reason = game.refuses("used", used, RefusalCode::UsedTicket).await;
    assert!(reason.contains("used up"), "{reason}");
});

outsider!(an_older_ticket_gets_nowhere, |game| {
    for (older, code) in [(1, RefusalCode::SupersededTicket), (500, RefusalCode::SupersededTicket)] {
        let iat = now_s() - 10 - older;
        let ticket = game.adas(&json!({ "iat": iat, "exp": iat + 600 }));
        game.refuses("older", ticket, code).await;
    }
});

outsider!(a_ticket_of_another_room_gets_nowhere, |game| {
    let other = game.host.open(LONG, &["Ada", "Ben", "Cleo"]).await;
    for (what, changes, code) in [
        ("a room that is not open", json!({ "room": "0".repeat(32) }), RefusalCode::RoomClosed),
        ("another slot's name", json!({ "player": 1 }), RefusalCode::WrongRoom),
        ("a name that nobody has", json!({ "sub": "ada" }), RefusalCode::WrongRoom),
        ("a slot of the other room", json!({ "player": 2, "sub": "Cleo" }), RefusalCode::WrongRoom),
    ] {
        let ticket = game.adas(&changes);
        game.refuses(what, ticket, code).await;
    }
    // Good for the other room, and there it leads.
    let ticket = game.adas(&json!({ "room": other }));
    let mut there = Peer::enter(&game.with(ticket)).await;
    assert_eq!(there.event("player_joined").await.data, json!({ "player": 0, "name": "Ada" }));
    assert!(!there.welcome().resumed);
});

outsider!(a_spectators_ticket_has_no_say, |game| {
    let both = game.adas(&json!({ "role": "spectator" }));
    game.refuses("a spectator with a slot", both, RefusalCode::BadTicket).await;
    let data = game.adas(&json!({ "role": "spectator", "player": null, "data": 1 }));
    game.refuses("a spectator with data", data, RefusalCode::BadTicket).await;
    let unnamed = game.adas(&json!({ "player": null }));
    game.refuses("a player without a slot", unnamed, RefusalCode::BadTicket).await;
    let watcher = game.adas(&json!({ "role": "spectator", "player": null }));
    let grant = game.with(watcher.clone());
    let mut eve = UdpPeer::enter(&grant).await;
    eve.establish().await;
    let (frame, _) = eve.snapshot(0).await;
    // Inputs for the frames that come, over datagrams and over the WebSocket: they are nobody's.
    for ahead in 1..60 {
        eve.input(frame + ahead, &[50]).await;
        eve.peer.input(frame + ahead, &[50]).await;
    }
    game.refuses("a spectator's, used", watcher, RefusalCode::UsedTicket).await;
    // It comes back as what it was.
    let again = eve.peer.resume(&grant);
    drop(eve);
    let mut eve = Peer::enter(&again).await;
    eve.confirm().await;
    eve.frame(frame + 60).await;
    game.refuses("a spectator's way back, used", again.ticket, RefusalCode::UsedTicket).await;
});

outsider!(no_algorithm_and_another_algorithm_get_nowhere, |game| {
    let claims = game.lobby.claims(&game.host, &game.room, 0, "Ada");
    let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
    for algorithm in ["none", "NONE", "nOnE", "", "RS256", "ES256", "HS512", "Ed25519"] {
        for kid in ["", ",\"kid\":\"lobby-ed\"", ",\"kid\":\"lobby-mac\"", ",\"kid\":\"host\""] {
            let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"{algorithm}\"{kid}}}"));
            game.refuses(algorithm, format!("{header}.{payload}."), RefusalCode::BadTicket).await;
        }
    }
    // A secret that everybody knows: the public key, as bytes, as base64, as the whole JWK.
    let x = game.lobby.pair.public_jwk["x"].as_str().unwrap().to_owned();
    let raw = URL_SAFE_NO_PAD.decode(&x).unwrap();
    let jwk = game.lobby.pair.public_jwk.to_string();
    for secret in [raw.as_slice(), x.as_bytes(), jwk.as_bytes()] {
        for kid in ["lobby-ed", "lobby-mac", "host"] {
            let header = json!({ "alg": "HS256", "kid": kid });
            let forged = signed(&header, &claims, &EncodingKey::from_secret(secret), Algorithm::HS256);
            game.refuses("HS256 with the public key", forged, RefusalCode::BadTicket).await;
        }
    }
    let swapped = game.lobby.mint(&json!({ "alg": "EdDSA", "kid": "lobby-mac" }), &claims);
    game.refuses("EdDSA for the secret", swapped, RefusalCode::BadTicket).await;
});

outsider!(a_stolen_ticket_is_worth_nothing_after_its_use, |game| {
    // The thief has read everything that Ada's client ever had as text: her ticket, and the one for coming back of an earlier session.
    let stolen = game.grant.ticket.clone();
    game.refuses("after use", stolen, RefusalCode::UsedTicket).await;
    // Of Cleo, who is in a room of her own, thief first: then Cleo is refused, and a newer ticket throws the thief out.
    let room = game.host.open(LONG, &["Cleo"]).await;
    let first = game.host.join(&room, "Cleo").await;
    let mut thief = Peer::enter(&first).await;
    thief.confirm().await;
    let (code, _) = Peer::try_enter(&first, None).await.unwrap_err();
    assert_eq!(code, RefusalCode::UsedTicket);
    let way_back = thief.resume(&first);
    let newer = game.host.join(&room, "Cleo").await;
    let mut cleo = Peer::enter(&newer).await;
    assert_eq!(thief.bye().await.0, ByeCode::Replaced);
    for ticket in [&first, &way_back] {
        let (code, reason) = Peer::try_enter(ticket, None).await.unwrap_err();
        // Made in the same second or before.
        assert!(matches!(code, RefusalCode::UsedTicket | RefusalCode::SupersededTicket), "{code}: {reason}");
    }
    cleo.confirm().await;
    // The same ticket at once, before anything came from the first of the two: there is never more than one session of it.
    let race = game.host.join(&room, "Cleo").await;
    let mut one = Peer::enter(&race).await;
    let mut two = Peer::enter(&race).await;
    assert_eq!(one.bye().await.0, ByeCode::Replaced);
    two.confirm().await;
    assert_eq!(Peer::try_enter(&race, None).await.unwrap_err().0, RefusalCode::UsedTicket);
});

/// Sends recorded datagrams from a stranger's address, and from one that was a player's own.
async fn replay(recorded: &[Vec<u8>], own: &UdpSocket, stranger: &UdpSocket, host: std::net::SocketAddr) {
    for datagram in recorded {
        stranger.send_to(datagram, host).await.unwrap();
        own.send_to(datagram, host).await.unwrap();
    }
}

fn datagrams_refused(host: &Host) -> u64 {
    let shards = host.server().shards().iter();
    shards.map(|shard| shard.counters.datagrams_refused.load(std::sync::atomic::Ordering::Relaxed)).sum()
}

fn is_silent(socket: &UdpSocket) -> bool {
    match socket.try_recv_from(&mut [0; 1_500]) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            true
        }
    }
}

#[test]
fn datagrams_that_were_recorded_do_nothing_in_any_session() {
    run(60, async {
        let mut game = Match::start().await;
        let udp = game.host.udp();
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let _registered = tokio::time::timeout(std::time::Duration::from_millis(1), stranger.readable()).await;
        // Recorded on the wire, all of them delivered: inputs, pings, a probe, an answer to a challenge.
        let mut recorded = Vec::new();
        for number in 0..20u8 {
            let input = game.ada.input(game.frame + 10 + u32::from(number), &[0]).await;
            game.inputs += 1;
            recorded.push(input);
            let ping = game.ada.seal(&ToHost::Ping(u64::from(number)));
            game.ada.send_raw(&ping).await;
            recorded.push(ping);
        }
        let probe = game.ada.seal(&ToHost::Probe);
        game.ada.send_raw(&probe).await;
        recorded.push(probe);
        game.plays_on().await;
        let before = datagrams_refused(&game.host);
        replay(&recorded, &game.ada.socket, &stranger, udp).await;
        game.plays_on().await;
        assert!(is_silent(&stranger), "the host answered a recorded datagram");
        assert_eq!(datagrams_refused(&game.host) - before, 2 * recorded.len() as u64);

        // Ada comes back: new keys. Now those that never reached the host are tried as well, for they are new to every window.
        for number in 0..10u8 {
            let payload = crate::peer::inputs_payload(game.frame + 40 + u32::from(number), &[77]);
            let mut kept_back = Vec::new();
            game.ada.sealer.seal_bytes(&payload, &mut kept_back).unwrap();
            recorded.push(kept_back);
        }
        let grant = game.with(game.ada.peer.welcome().resume.clone());
        let first = std::mem::replace(&mut game.ada, UdpPeer::enter(&grant).await);
        let mut old = first.peer;
        assert_eq!(old.bye().await.0, ByeCode::Replaced);
        game.ada.establish().await;
        let (ours, theirs) = (game.ada.peer.welcome().session, old.welcome().session);
        assert_ne!(ours, theirs);
        // For the session that they were sealed for, and with the number of the new one.
        let mut renumbered = recorded.clone();
        for datagram in &mut renumbered {
            datagram[1..5].copy_from_slice(&ours.to_le_bytes());
        }
        for set in [&recorded, &renumbered] {
            let before = datagrams_refused(&game.host);
            replay(set, &game.ada.socket, &stranger, udp).await;
            replay(set, &first.socket, &stranger, udp).await;
            game.plays_on().await;
            assert!(is_silent(&stranger), "the host answered a recorded datagram");
            assert_eq!(datagrams_refused(&game.host) - before, 4 * set.len() as u64);
        }
        // A newer ticket takes over from another place; then Ada leaves for good. Neither gives them a meaning again.
        let newer = game.adas(&json!({ "iat": now_s() + 2 }));
        let taken_over = UdpPeer::enter(&game.with(newer)).await;
        let second = std::mem::replace(&mut game.ada, taken_over);
        drop(second.peer);
        game.ada.establish().await;
        replay(&recorded, &second.socket, &stranger, udp).await;
        game.plays_on().await;
        game.ada.peer.say(&ClientMessage::Leave).await;
        assert_eq!(game.ada.peer.bye().await.0, ByeCode::Left);
        let before = datagrams_refused(&game.host);
        replay(&recorded, &game.ada.socket, &stranger, udp).await;
        eventually("all of them are refused", SOON, async || {
            let refused = datagrams_refused(&game.host) - before;
            if refused >= 2 * recorded.len() as u64 { Ok(()) } else { Err(refused.to_string()) }
        })
        .await;
        assert!(is_silent(&stranger));
        game.ben.frame(game.frame + 10).await;
        assert_eq!(tally_of(&game.ben.snapshot, 0), Some(game.sum));
        game.ben.say(&ClientMessage::Leave).await;
        let record = game.host.ended(&game.room).await;
        let ended = record["events"].as_array().unwrap().iter().find(|e| e["kind"] == "room.aborted").unwrap();
        let inputs = &ended["event"]["data"]["players"][0]["inputs"];
        assert_eq!(inputs["received"], json!(game.inputs), "{inputs}");
        game.host.stop().await;
    });
}

// ---- matchmakers ----

/// What the script of the matchmaker in Node prints; none where there is no Node, which continuous integration does not let pass.
fn node(args: &[&str]) -> Option<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/node/mint.mjs");
    match std::process::Command::new("node").arg(script).args(args).output() {
        Ok(said) if said.status.success() => Some(text(&said.stdout).trim().to_owned()),
        Ok(said) => panic!("{}", text(&said.stderr)),
        Err(error) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("node: {error}"),
        Err(error) => {
            tell!("SKIPPED: node: {error}; install nodejs to run this test");
            None
        }
    }
}

#[test]
fn a_matchmaker_in_another_language_lets_players_in() {
    run(60, async {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let Some(_) = node(&["keys", &path("")]) else { return };
        let secret = URL_SAFE_NO_PAD.encode([0xa5; 48]);
        std::fs::write(path("set.json"), json!({ "keys": [{ "kty": "oct", "k": secret, "kid": "mac" }] }).to_string())
            .unwrap();
        // The third key is the command's: its private half must do for Node.
        let made =
            output(&["ticket-key", "--private", &path("ours.pem"), "--public", &path("ours.jwk"), "--kid", "ours"])
                .await;
        assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
        let again = output(&["ticket-key", "--private", &path("ours.pem"), "--public", &path("x")]).await;
        assert!(again.status.code() == Some(1) && text(&again.stderr).contains("is there already"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(path("ours.pem")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let files = ["public.pem", "set.json", "ours.jwk"].map(|name| path(name).into());
        let host = Host::start_with_modules(&modules(), |settings| {
            settings.ticket_keys = files.to_vec();
            // A matchmaker needs no door.
            settings.open_doors = Some(OpenDoors::No);
        })
        .await;
        let players = ["Ada", "Ben", "Cleo"].map(|name| json!({ "name": name }));
        let (status, body) = host.post_as_admin("/api/rooms", &json!({ "module": SHORT, "players": players })).await;
        assert_eq!(status, 201, "{body}");
        let room = body["room"].as_str().unwrap();
        let claims = |player: u16, name: &str| {
            json!({
                "iss": "node", "aud": [host.server().host_id()], "sub": name, "room": room, "role": "player", "player": player,
                "iat": now_s(), "exp": now_s() + 30, "jti": format!("{name}-1"),
            })
            .to_string()
        };
        let mut peers = Vec::new();
        for (args, player, name) in [
            // The key in PEM has no name; it is not the only one of its algorithm, but the only one without a name.
            (["EdDSA", &path("private.pem"), ""], 0, "Ada"),
            (["HS256", &secret, "mac"], 1, "Ben"),
            (["EdDSA", &path("ours.pem"), "ours"], 2, "Cleo"),
        ] {
            let ticket = node(&[args[0], args[1], args[2], &claims(player, name)]).unwrap();
            let grant = Grant {
                room: room.into(),
                player,
                ticket,
                expires_ms: 0,
                ws_url: host.ws_url(),
                udp_port: 0,
                host_key: String::new(),
            };
            peers.push(Peer::enter(&grant).await);
            let (code, _) = {
                peers.last_mut().unwrap().confirm().await;
                Peer::try_enter(&grant, None).await.unwrap_err()
            };
            assert_eq!(code, RefusalCode::UsedTicket);
        }
        for peer in &mut peers {
            peer.ready().await;
        }
        peers[0].event("finished").await;
        let record = host.ended(room).await;
        assert_eq!(record["state"], "finished");
        host.stop().await;
    });
}

#[test]
fn keys_change_while_the_host_runs_and_bad_ones_do_not_count() {
    run(60, async {
        let (mut before, mut after) = (Matchmaker::new(), Matchmaker::new());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys.json");
        std::fs::write(&file, before.jwks()).unwrap();
        let host = Host::start_with_modules(&modules(), |settings| settings.ticket_keys = vec![file.clone()]).await;
        let room = host.open(LONG, &["Ada", "Ben"]).await;
        let grant = host.join(&room, "Ada").await;
        let claims = before.claims(&host, &room, 0, "Ada");
        let mut ada = Peer::enter(&Grant { ticket: before.ed(&claims), ..grant.clone() }).await;
        // Half a file, as one who writes it in place leaves it for a moment: the keys before stay.
        std::fs::write(&file, "{\"keys\":[").unwrap();
        eventually("the refusal is logged", SOON, async || {
            let lines = lines_with("the ticket keys changed and are refused");
            if lines.iter().any(|line| line.contains(file.to_str().unwrap())) {
                Ok(())
            } else {
                Err(format!("{lines:?}"))
            }
        })
        .await;
        let claims = before.claims(&host, &room, 1, "Ben");
        let mut ben = Peer::enter(&Grant { ticket: before.ed(&claims), ..grant.clone() }).await;
        ben.confirm().await;
        std::fs::write(&file, after.jwks()).unwrap();
        eventually("the new keys count", SOON, async || {
            let claims = after.claims(&host, &room, 1, "Ben");
            match Peer::try_enter(&Grant { ticket: after.ed(&claims), ..grant.clone() }, None).await {
                Ok(peer) => {
                    ben = peer;
                    Ok(())
                }
                Err(refused) => Err(format!("{refused:?}")),
            }
        })
        .await;
        let claims = before.claims(&host, &room, 1, "Ben");
        let (code, _) =
            Peer::try_enter(&Grant { ticket: before.ed(&claims), ..grant.clone() }, None).await.unwrap_err();
        assert_eq!(code, RefusalCode::BadTicket);
        // The session that the old key opened is still there, and the host's own key always is.
        ada.ready().await;
        ben.ready().await;
        ada.event("started").await;
        Peer::enter(&host.watch(&room).await).await.frame(1).await;
        host.stop().await;

        std::fs::write(&file, "no keys").unwrap();
        let args = ["serve", "--data-dir", dir.path().to_str().unwrap(), "--ticket-keys", file.to_str().unwrap()];
        let refused = output(&args).await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(
            text(&refused.stderr).contains("cannot be used: it is neither a JWK Set nor"),
            "{}",
            text(&refused.stderr)
        );
    });
}

// ---- roles ----

#[test]
fn closed_doors_open_for_the_admin_only() {
    run(60, async {
        for (setting, listen) in [(OpenDoors::No, "127.0.0.1:0"), (OpenDoors::Auto, "0.0.0.0:0")] {
            let host = Host::start_with_modules(&modules(), |settings| {
                settings.open_doors = Some(setting);
                settings.http_listen = Some(listen.parse().unwrap());
            })
            .await;
            let asked = json!({ "module": SHORT, "players": [{ "name": "Ada" }] });
            let (status, body) = host.post_as_admin("/api/rooms", &asked).await;
            assert_eq!(status, 201, "{body}");
            let room = body["room"].as_str().unwrap().to_owned();
            let (join, watch) = (format!("/api/rooms/{room}/join"), format!("/api/rooms/{room}/watch"));
            for (path, body) in [
                ("/api/rooms", &asked),
                (&join, &json!({ "player": "Ada" })),
                (&watch, &json!({})),
                (&watch, &json!({ "x": 1 })),
            ] {
                let (status, refused) = host.post(path, body).await;
                assert_eq!((status, &refused["error"]["code"]), (401, &json!("unauthorized")), "{path}: {refused}");
                let words = refused["error"]["message"].as_str().unwrap();
                assert!(words.contains("admin-token") && words.contains("Bearer"), "{words}");
            }
            // A wrong token is no token.
            let wrong = host.http().post(host.url(&watch)).bearer_auth("a-token-that-is-long-enough").json(&json!({}));
            let wrong = wrong.send().await.unwrap();
            assert_eq!(wrong.status(), 401);
            assert_eq!(wrong.headers()["www-authenticate"], "Bearer");
            for path in
                ["/api/rooms", &format!("/api/rooms/{room}"), "/api/events", "/api/modules", "/metrics", "/readyz"]
            {
                let open = host.http().get(host.url(path)).send().await.unwrap();
                assert_eq!(open.status(), 200, "{path}");
            }
            let (status, ticket) = host.post_as_admin(&join, &json!({ "player": "Ada", "lifetime_s": 30 })).await;
            assert_eq!(status, 200, "{ticket}");
            assert!(ticket["expires_ms"].as_u64().unwrap() <= (now_s() + 31) * 1_000);
            let (status, refused) = host.post_as_admin(&join, &json!({ "player": "Ada", "lifetime_s": 3_601 })).await;
            assert_eq!((status, &refused["error"]["code"]), (422, &json!("bad_request")), "{refused}");
            let long = json!({ "player": "Ada", "data": "x".repeat(3_000) });
            let (status, refused) = host.post_as_admin(&join, &long).await;
            assert_eq!(status, 422, "{refused}");
            assert!(refused["error"]["message"].as_str().unwrap().contains("`data`"), "{refused}");
            host.stop().await;
        }
        let host = Host::start_with_modules(&modules(), |settings| settings.open_doors = Some(OpenDoors::Auto)).await;
        host.open(SHORT, &["Ada"]).await;
        host.stop().await;
    });
}

#[test]
fn commands_show_the_token_of_the_data_folder_and_no_log_has_a_secret() {
    run(120, async {
        let dir = data_dir();
        let path = dir.path().to_str().unwrap();
        let log = dir.path().join("log");
        let mut args = vec!["serve", "--json", "--data-dir", path, "--open-doors", "no", "--log", "trace"];
        args.extend(FREE_PORTS);
        let mut command = holeshot(&args);
        command.stderr(Stdio::from(std::fs::File::create(&log).unwrap()));
        let served = Served::started(command).await;
        let url = served.url.as_str();
        let token = std::fs::read_to_string(dir.path().join("admin-token")).unwrap().trim().to_owned();

        // Without the token, in another folder, nothing; with it, from either place, all.
        let elsewhere = tempfile::tempdir().unwrap();
        let no_token = elsewhere.path().to_str().unwrap();
        let refused = output(&["bots", "--url", url, "--data-dir", no_token]).await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains("needs the admin token"), "{}", text(&refused.stderr));
        let args = ["bots", "--url", url, "--data-dir", path, "--json", "--no-udp", "--seed", "5"];
        let raced = output(&args);
        let room = served_room(&served, &token);
        let (raced, (room, ticket)) = tokio::join!(raced, room);
        assert_eq!(raced.status.code(), Some(0), "{}", text(&raced.stderr));

        let data_args = ["--url", url, "--data-dir", path];
        let mut args = vec!["ticket", "--room", room.as_str(), "--player", "Ada", "--data", "{\"car\":\"mx5\"}"];
        args.extend(data_args);
        let minted = output(&args).await;
        assert_eq!(minted.status.code(), Some(0), "{}", text(&minted.stderr));
        let minted = text(&minted.stdout).trim().to_owned();
        let claims = URL_SAFE_NO_PAD.decode(minted.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(
            (&claims["sub"], &claims["data"], &claims["role"]),
            (&json!("Ada"), &json!({ "car": "mx5" }), &json!("player"))
        );
        let mut by_env =
            holeshot(&["ticket", "--room", &room, "--spectator", "--json", "--url", url, "--data-dir", no_token]);
        let by_env = by_env.env("HOLESHOT_TOKEN", &token).output().await.unwrap();
        assert_eq!(by_env.status.code(), Some(0), "{}", text(&by_env.stderr));
        let watcher: Value = serde_json::from_slice(&by_env.stdout).unwrap();
        assert!(watcher["player"].is_null() && watcher["ws_url"].is_string(), "{watcher}");
        for args in [vec!["ticket", "--room", "x"], vec!["ticket", "--room", "x", "--spectator", "--data", "1"]] {
            assert_eq!(output(&args).await.status.code(), Some(2));
        }

        // A session, a way back, and a ticket that is refused: all of it may be in the log, the tickets may not.
        let grant: Grant = serde_json::from_value(ticket.clone()).unwrap();
        let mut ada = Peer::enter(&grant).await;
        ada.confirm().await;
        let back = ada.resume(&grant);
        assert!(Peer::try_enter(&grant, None).await.is_err());
        drop(ada);
        let again = Peer::enter(&back).await;
        served.signal(libc::SIGTERM);
        assert_eq!(ended(served).await, Some(0));
        let log = std::fs::read_to_string(&log).unwrap();
        assert!(log.contains("shard runs") && log.contains("session refused"), "{} bytes of log", log.len());
        let identity: Value =
            serde_json::from_str(&std::fs::read_to_string(dir.path().join("identity.json")).unwrap()).unwrap();
        for (what, secret) in [
            ("the admin token", token.as_str()),
            ("the ticket key", identity["ticket_key"].as_str().unwrap()),
            ("the handshake key", identity["handshake_key"].as_str().unwrap()),
            ("a ticket", grant.ticket.as_str()),
            ("a ticket's signature", grant.ticket.rsplit('.').next().unwrap()),
            ("a way back", back.ticket.rsplit('.').next().unwrap()),
            ("the next way back", again.welcome().resume.rsplit('.').next().unwrap()),
            ("a ticket of the command", minted.rsplit('.').next().unwrap()),
        ] {
            assert!(secret.len() > 20, "{what}");
            assert!(!log.contains(secret), "{what} is in the log");
        }
        println!("{} KiB of log at TRACE without a secret", log.len() >> 10);
    });
}

/// A room of one driver, and a ticket for it.
async fn served_room(served: &Served, token: &str) -> (String, Value) {
    let post = async |path: &str, body: Value| -> Value {
        let request = crate::harness::client().post(format!("{}{path}", served.url)).bearer_auth(token).json(&body);
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        answer.json().await.unwrap()
    };
    let players = json!([{ "name": "Ada", "data": { "car": "gtr" } }, { "name": "Ben", "data": { "car": "gtr" } }]);
    let room = post("/api/rooms", json!({ "players": players })).await["room"].as_str().unwrap().to_owned();
    let ticket = post(&format!("/api/rooms/{room}/join"), json!({ "player": "Ada" })).await;
    (room, ticket)
}

/// Waits for the end of a host whose log goes to a file.
async fn ended(mut served: Served) -> Option<i32> {
    tokio::time::timeout(SOON, served.child.wait()).await.expect("the host ends").unwrap().code()
}

// ---- data for the rules ----

/// What the records say that a player has.
async fn data_of(host: &Host, room: &str, player: usize, expected: &Value) {
    let what = format!("has the data {expected} of player {player}");
    host.recorded(room, &what, |record| &record["players"][player]["data"] == expected).await;
}

#[test]
fn the_data_of_tickets_counts_while_a_room_gathers_its_players_and_not_after() {
    run(120, async {
        let mut lobby = Matchmaker::new();
        let keys = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(keys.path(), lobby.jwks()).unwrap();
        let host = Host::start_with(|settings| {
            settings.ticket_keys = vec![keys.path().to_path_buf()];
            settings.linger_s = Some(1);
        })
        .await;
        let players = json!([{ "name": "Ada", "data": { "car": "gtr" } }, { "name": "Ben", "data": { "car": "gtr" } }]);
        let asked = json!({ "players": players, "options": { "tree": "pro" }, "seed": 3 });
        let room = host.open_room(&asked).await;
        let grant = host.join(&room, "Ada").await;
        let mut ticket = |player: u16, changes: Value| {
            let mut claims = lobby.claims(&host, &room, player, ["Ada", "Ben"][usize::from(player)]);
            claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            Grant { ticket: lobby.ed(&claims), ..grant.clone() }
        };
        // The rules refuse it, in their own words; the ticket is not used up, the room is as it was.
        let boat = ticket(0, json!({ "data": { "car": "boat" } }));
        for _ in 0..2 {
            let (code, reason) = Peer::try_enter(&boat, None).await.unwrap_err();
            assert_eq!(code, RefusalCode::RefusedByRules, "{reason}");
            assert!(reason.contains("boat"), "{reason}");
        }
        data_of(&host, &room, 0, &json!({ "car": "gtr" })).await;
        // Ada comes in another car, and again in another: the last one counts.
        let mut first = Peer::enter(&ticket(0, json!({ "data": { "car": "hellcat" } }))).await;
        first.confirm().await;
        data_of(&host, &room, 0, &json!({ "car": "hellcat" })).await;
        let mut ada = Peer::enter(&ticket(0, json!({ "data": { "car": "mx5" }, "iat": now_s() + 2 }))).await;
        assert_eq!(first.bye().await.0, ByeCode::Replaced);
        ada.ready().await;
        data_of(&host, &room, 0, &json!({ "car": "mx5" })).await;
        // A ticket that opens nothing changes nothing: used up, and older than the session.
        let used = ticket(0, json!({ "data": { "car": "corvette_c8" }, "iat": now_s() - 1 }));
        assert_eq!(Peer::try_enter(&used, None).await.unwrap_err().0, RefusalCode::SupersededTicket);
        // Another room, in which both come at the same moment, each with a car.
        let both = host.open_room(&asked).await;
        let mut at_once = Vec::new();
        for (player, name, car) in [(0, "Ada", "mx5"), (1, "Ben", "hellcat")] {
            let mut claims = lobby.claims(&host, &both, player, name);
            claims["data"] = json!({ "car": car });
            at_once.push(Grant { ticket: lobby.ed(&claims), ..grant.clone() });
        }
        let (one, two) = tokio::join!(Peer::enter(&at_once[0]), Peer::enter(&at_once[1]));
        data_of(&host, &both, 0, &json!({ "car": "mx5" })).await;
        data_of(&host, &both, 1, &json!({ "car": "hellcat" })).await;
        drop((one, two));

        // Ben completes the first room, with data that is what he has: nothing is begun anew. Its race is driven by nobody, and is a race.
        let mut claims = lobby.claims(&host, &room, 1, "Ben");
        claims["data"] = json!({ "car": "gtr" });
        let mut ben = Peer::enter(&Grant { ticket: lobby.ed(&claims), ..grant.clone() }).await;
        ben.ready().await;
        ben.event("started").await;
        // In mid-race a newer ticket of another car: the session is his, the car stays.
        let mut claims = lobby.claims(&host, &room, 1, "Ben");
        claims["data"] = json!({ "car": "boat" });
        claims["iat"] = json!(now_s() + 3);
        let mut late = Peer::enter(&Grant { ticket: lobby.ed(&claims), ..grant.clone() }).await;
        assert!(late.welcome().resumed);
        let finished = late.event("finished").await;
        let cars: Vec<&Value> =
            finished.data["results"].as_array().unwrap().iter().map(|result| &result["data"]["car"]).collect();
        let mut cars: Vec<&str> = cars.into_iter().map(|car| car.as_str().unwrap()).collect();
        cars.sort_unstable();
        assert_eq!(cars, ["gtr", "mx5"], "{}", finished.data);
        data_of(&host, &room, 1, &json!({ "car": "gtr" })).await;

        // The journal begins with the setup in force, once, and proves the room.
        crate::journal::closed_journal(&host, &room).await;
        let journal = Journal::read(&crate::journal::download(&host, &room).await).unwrap();
        let setup: Vec<&str> = journal.setup().players.iter().map(|player| player.data.as_str()).collect();
        assert_eq!(setup, ["{\"car\":\"mx5\"}", "{\"car\":\"gtr\"}"]);
        let engine = Engine::new(EngineSettings::default()).unwrap();
        let module = ModuleStore::new(engine, Some(compiled().to_owned())).unwrap().load(DRAG_RACE_WASM).unwrap();
        prove("a race that was set up anew", &journal, &[module]);
        host.stop().await;
    });
}

#[test]
fn rules_that_were_swapped_while_the_room_gathers_are_set_up_anew_as_they_are() {
    run(120, async {
        let host = Host::start_with(|settings| settings.linger_s = Some(1)).await;
        let players = json!([{ "name": "Ada", "data": { "car": "gtr" } }]);
        let room = host.open_room(&json!({ "players": players, "seed": 4 })).await;
        // Another build of the same rules: a section that says nothing, so that it has another hash.
        let other = [DRAG_RACE_WASM, &[0, 5, 4, b'n', b'o', b't', b'e']].concat();
        let (status, report) = host.put_module("drag-race", "all", other.clone()).await;
        assert_eq!((status, &report["rooms"][0]["verdict"]), (200, &json!("swapped")), "{report}");
        let body = json!({ "player": "Ada", "data": { "car": "mx5" } });
        let (status, body) = host.post(&format!("/api/rooms/{room}/join"), &body).await;
        assert_eq!(status, 200, "{body}");
        let grant: Grant = serde_json::from_value(body).unwrap();
        let mut ada = Peer::enter(&grant).await;
        data_of(&host, &room, 0, &json!({ "car": "mx5" })).await;
        let hash = report["module"]["hash"].as_str().unwrap();
        assert_eq!(ada.welcome().rules.hash, hash);
        let (_, body) = host.get(&format!("/api/rooms/{room}")).await;
        assert_eq!(body["open"]["on_probation"], json!(false), "{body}");
        // A swap after that finds the room as it is now.
        let (status, report) = host.put_module("drag-race", &room, DRAG_RACE_WASM.to_vec()).await;
        assert_eq!((status, &report["rooms"][0]["verdict"]), (200, &json!("swapped")), "{report}");
        ada.ready().await;
        ada.event("finished").await;
        crate::journal::closed_journal(&host, &room).await;
        let journal = Journal::read(&crate::journal::download(&host, &room).await).unwrap();
        assert_eq!(journal.setup().players[0].data, "{\"car\":\"mx5\"}");
        let engine = Engine::new(EngineSettings::default()).unwrap();
        let store = ModuleStore::new(engine, Some(compiled().to_owned())).unwrap();
        let modules = [store.load(DRAG_RACE_WASM).unwrap(), store.load(&other).unwrap()];
        prove("a room with other rules, set up anew, with other rules again", &journal, &modules);
        host.stop().await;
    });
}
