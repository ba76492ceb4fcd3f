use std::path::Path;

use super::keys::{KEYS_MAX, KeyPair};
use super::*;
use serde_json::json;

const HOST: &str = "host-a";
const BOUNDS: Bounds = Bounds { lifetime_max_s: 600, leeway_s: 5 };

fn tickets() -> Tickets {
    Tickets::new(HOST, &[7; 32], KeySet::default(), BOUNDS)
}

fn of(player: Option<u16>) -> NewTicket<'static> {
    NewTicket { room: "room-1", player, name: "Ada", data: None, lifetime_s: 60 }
}

fn own() -> String {
    tickets().sign(&of(Some(1)), 1_000).unwrap().ticket
}

/// A matchmaker of the given keys, and the host's side of it.
struct Matchmaker {
    pair: KeyPair,
    tickets: Tickets,
}

const SECRET: [u8; 40] = [9; 40];

impl Matchmaker {
    fn new() -> Self {
        let pair = KeyPair::make(Some("ed")).unwrap();
        let secret = URL_SAFE_NO_PAD.encode(SECRET);
        let set =
            json!({ "keys": [pair.public_jwk, { "kty": "oct", "k": secret, "kid": "mac" }, { "kty": "RSA", "n": 1 }] });
        let mut keys = KeySet::default();
        keys.add(Path::new("keys"), set.to_string().as_bytes()).unwrap();
        assert_eq!(keys.len(), 2);
        Self { pair, tickets: Tickets::new(HOST, &[7; 32], keys, BOUNDS) }
    }

    fn claims() -> Value {
        json!({
            "iss": "lobby", "aud": HOST, "sub": "Ada", "room": "room-1", "player": 1, "role": "player",
            "data": { "car": "mx5" }, "iat": 1_000, "nbf": 1_000, "exp": 1_300, "jti": "t-1",
        })
    }

    /// The usual claims with some changed, or taken away where null.
    fn with(changes: Value) -> Value {
        let mut claims = Self::claims();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        claims
    }

    fn mint(&self, header: Value, claims: &Value) -> String {
        let text = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", text(&header), text(claims));
        let (key, algorithm) = match header["alg"].as_str() {
            Some("EdDSA") => (EncodingKey::from_ed_pem(self.pair.private_pem.as_bytes()).unwrap(), Algorithm::EdDSA),
            _ => (EncodingKey::from_secret(&SECRET), Algorithm::HS256),
        };
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
        format!("{message}.{signature}")
    }

    fn ed(&self, claims: &Value) -> String {
        self.mint(json!({ "alg": "EdDSA", "kid": "ed", "typ": "JWT" }), claims)
    }

    fn check(&self, claims: &Value, now_s: u64) -> Result<Ticket, TicketError> {
        self.tickets.check(&self.ed(claims), now_s)
    }
}

#[test]
fn a_ticket_opens_until_it_expires() {
    let ticket = tickets().check(&own(), 1_059).unwrap();
    assert_eq!((ticket.room.as_str(), ticket.player, ticket.name.as_str()), ("room-1", Some(1), "Ada"));
    assert!(!ticket.is_resume && ticket.data.is_none());
    let watcher = tickets().sign(&of(None), 1_000).unwrap().ticket;
    assert_eq!(tickets().check(&watcher, 1_000).unwrap().player, None);
    assert_eq!(tickets().check(&own(), 1_060), Err(TicketError::Expired(0)));
}

#[test]
fn own_tickets_are_never_older_than_those_before() {
    let tickets = tickets();
    let first = tickets.check(&tickets.sign(&of(Some(1)), 1_000).unwrap().ticket, 1_000).unwrap();
    // The clock was set back.
    let second = tickets.check(&tickets.sign(&of(Some(1)), 400).unwrap().ticket, 400).unwrap();
    assert_eq!((first.iat_s, second.iat_s), (1_000, 1_000));
    assert_ne!(first.id, second.id);
}

#[test]
fn the_resume_ticket_is_of_the_same_player_and_age() {
    let tickets = tickets();
    let first = tickets.check(&own(), 1_000).unwrap();
    let pass = tickets.pass(&first, 1_030).unwrap();
    assert_eq!((pass.ticket, pass.iat_s, pass.is_resume), (first.id, 1_000, false));
    let resume = tickets.check(&pass.resume, 1_030 + RESUME_LIFETIME_S - 1).unwrap();
    assert_eq!((resume.id, resume.iat_s, resume.is_resume), (pass.resume_ticket, 1_000, true));
    assert_eq!((&resume.name, &resume.room, resume.player), (&first.name, &first.room, first.player));
    assert!(pass.resume.len() < 700, "{}", pass.resume.len());
}

#[test]
fn a_ticket_of_another_key_or_host_is_refused() {
    let other = Tickets::new(HOST, &[8; 32], KeySet::default(), BOUNDS);
    assert!(matches!(other.check(&own(), 1_000), Err(TicketError::Invalid(_))));
    let other = Tickets::new("host-b", &[7; 32], KeySet::default(), BOUNDS).check(&own(), 1_000);
    assert!(matches!(other, Err(TicketError::OtherHost(host)) if host.contains(HOST)));
}

#[test]
fn every_changed_character_and_every_cut_is_refused() {
    let maker = Matchmaker::new();
    for good in [own(), maker.ed(&Matchmaker::claims())] {
        assert!(maker.tickets.check(&good, 1_000).is_ok());
        for at in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            // The last character of a base64 text carries bits that decode to nothing; a strict decoder refuses those too.
            assert!(maker.tickets.check(&changed, 1_000).is_err(), "changed at {at}");
            assert!(maker.tickets.check(&good[..at], 1_000).is_err(), "cut at {at}");
        }
    }
}

#[test]
fn an_unsigned_token_is_refused() {
    let claims = URL_SAFE_NO_PAD.decode(own().split('.').nth(1).unwrap()).unwrap();
    for algorithm in ["none", "None", "HS512", "RS256", "ES256", ""] {
        for kid in ["", ",\"kid\":\"host\""] {
            let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"{algorithm}\",\"typ\":\"JWT\"{kid}}}"));
            let token = format!("{header}.{}.", URL_SAFE_NO_PAD.encode(&claims));
            assert!(matches!(tickets().check(&token, 1_000), Err(TicketError::Invalid(_))), "{algorithm}");
        }
    }
    assert!(matches!(tickets().check(&"x".repeat(3_000), 1_000), Err(TicketError::Invalid(_))));
}

#[test]
fn a_matchmakers_ticket_is_read_whole() {
    let maker = Matchmaker::new();
    for header in [
        json!({ "alg": "EdDSA", "kid": "ed" }),
        json!({ "alg": "HS256", "kid": "mac" }),
        // The only key of its algorithm.
        json!({ "alg": "EdDSA" }),
        json!({ "alg": "HS256", "typ": "at+jwt", "more": [1] }),
    ] {
        let ticket = maker.tickets.check(&maker.mint(header.clone(), &Matchmaker::claims()), 1_000).unwrap();
        assert_eq!((ticket.name.as_str(), ticket.room.as_str(), ticket.player), ("Ada", "room-1", Some(1)), "{header}");
        assert_eq!((ticket.iat_s, ticket.exp_s, ticket.is_resume), (1_000, 1_300, false));
        assert_eq!(ticket.data.as_deref(), Some("{\"car\":\"mx5\"}"));
    }
    for (changes, now_s) in [
        (json!({ "aud": ["host-b", HOST] }), 1_000),
        (json!({ "iat": 1_000.75, "exp": 1_299.5, "nbf": null }), 1_000),
        (json!({ "iat": 1_005, "nbf": 1_005 }), 1_000),
        (json!({}), 1_304),
        (json!({ "data": null }), 1_000),
        (json!({ "role": "spectator", "player": null, "data": null }), 1_000),
        (json!({ "resume": true, "colour": "red" }), 1_000),
        (json!({ "exp": 1_600 }), 1_000),
    ] {
        let ticket = maker.check(&Matchmaker::with(changes.clone()), now_s);
        assert!(ticket.as_ref().is_ok_and(|ticket| !ticket.is_resume), "{changes}: {ticket:?}");
    }
}

#[test]
fn what_is_wrong_with_a_matchmakers_ticket_is_said() {
    let maker = Matchmaker::new();
    let long = "x".repeat(129);
    for (changes, now_s, words) in [
        (json!({ "aud": "host-b" }), 1_000, "for [\"host-b\"], not for this host"),
        (json!({ "aud": [] }), 1_000, "not for this host"),
        (json!({ "aud": vec![HOST; 9] }), 1_000, "`aud` has 9 hosts"),
        (json!({ "aud": 7 }), 1_000, "not valid"),
        (json!({ "aud": null }), 1_000, "missing field `aud`"),
        (json!({ "iss": null }), 1_000, "missing field `iss`"),
        (json!({ "iss": "" }), 1_000, "`iss` has 0 bytes"),
        (json!({ "jti": null }), 1_000, "missing field `jti`"),
        (json!({ "jti": long }), 1_000, "`jti` has 129 bytes"),
        (json!({ "room": "r".repeat(65) }), 1_000, "`room` has 65 bytes"),
        (json!({ "sub": "" }), 1_000, "`sub` has 0 bytes"),
        (json!({ "role": null }), 1_000, "missing field `role`"),
        (json!({ "role": "admin" }), 1_000, "unknown variant `admin`"),
        (json!({ "role": "spectator" }), 1_000, "has `player`, a slot"),
        (json!({ "role": "spectator", "player": null }), 1_000, "has `data`"),
        (json!({ "player": null }), 1_000, "the slot, is missing"),
        (json!({ "player": -1 }), 1_000, "not valid"),
        (json!({ "player": 70_000 }), 1_000, "not valid"),
        (json!({ "iat": null }), 1_000, "missing field `iat`"),
        (json!({ "exp": null }), 1_000, "missing field `exp`"),
        (json!({ "exp": "tomorrow" }), 1_000, "not valid"),
        (json!({ "exp": -5 }), 1_000, "seconds since 1970"),
        (json!({ "exp": 1e300 }), 1_000, "seconds since 1970"),
        (json!({ "exp": u64::MAX }), 1_000, "seconds since 1970"),
        (json!({ "exp": 1_000 }), 1_000, "`exp` is not after its `iat`"),
        (json!({ "exp": 1_601 }), 1_000, "good for 601 s; this host takes tickets for at most 600 s"),
        (json!({}), 1_305, "expired 0 s ago"),
        (json!({ "iat": 1_006, "nbf": null }), 1_000, "good in 6 s only"),
        (json!({ "nbf": 1_100 }), 1_000, "good in 100 s only"),
    ] {
        let error = maker.check(&Matchmaker::with(changes.clone()), now_s).unwrap_err().to_string();
        assert!(error.contains(words), "{changes}: {error}");
    }
    // Twice the same claim: which one would be meant?
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"mac"}"#);
    let twice = Matchmaker::claims().to_string().replacen('{', "{\"player\":0,", 1);
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(twice));
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &EncodingKey::from_secret(&SECRET), Algorithm::HS256);
    let error = maker.tickets.check(&format!("{message}.{}", signature.unwrap()), 1_000).unwrap_err();
    assert!(error.to_string().contains("duplicate field"), "{error}");
}

#[test]
fn a_key_has_one_algorithm() {
    let maker = Matchmaker::new();
    let (claims, public) = (Matchmaker::claims(), maker.pair.public_jwk["x"].as_str().unwrap().to_owned());
    let signed_with = |header: Value, key: &[u8]| {
        let message =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &EncodingKey::from_secret(key), Algorithm::HS256);
        format!("{message}.{}", signature.unwrap())
    };
    // HS256 with what is no secret: the public key, in every form of it.
    let raw = URL_SAFE_NO_PAD.decode(&public).unwrap();
    for key in [raw.as_slice(), public.as_bytes(), maker.pair.public_jwk.to_string().as_bytes(), b""] {
        for header in
            [json!({ "alg": "HS256", "kid": "ed" }), json!({ "alg": "HS256" }), json!({ "alg": "HS256", "kid": "mac" })]
        {
            let refused = maker.tickets.check(&signed_with(header.clone(), key), 1_000);
            assert!(matches!(refused, Err(TicketError::Invalid(_))), "{header}: {refused:?}");
        }
    }
    // The other way round, and keys that nobody has.
    for (header, words) in [
        (json!({ "alg": "EdDSA", "kid": "mac" }), "not the one of its key"),
        (json!({ "alg": "EdDSA", "kid": "host" }), "not the one of its key"),
        (json!({ "alg": "EdDSA", "kid": "none" }), "none with the `kid` \"none\""),
        (json!({ "alg": "EdDSA", "kid": "x".repeat(129) }), "`kid` is too long"),
        (json!({ "alg": "EdDSA", "kid": 1 }), "header cannot be read"),
        (json!({ "alg": "EdDSA", "kid": "ed", "crit": ["b64"], "b64": false }), "has `crit`"),
        (json!({ "kid": "ed" }), "header cannot be read"),
    ] {
        let error = maker.tickets.check(&maker.mint(header.clone(), &claims), 1_000).unwrap_err().to_string();
        assert!(error.contains(words), "{header}: {error}");
    }
    // Without keys nobody's are taken.
    assert!(matches!(tickets().check(&maker.ed(&claims), 1_000), Err(TicketError::UnknownKey(_))));
}

#[test]
fn keys_that_cannot_be_used_are_refused_with_the_reason() {
    let add = |text: &str| {
        let mut keys = KeySet::default();
        keys.add(Path::new("the-file"), text.as_bytes()).map(|()| keys.len()).map_err(|error| error.to_string())
    };
    let pair = KeyPair::make(None).unwrap();
    let jwk = |field: &str, value: Value| {
        let mut key = pair.public_jwk.clone();
        key[field] = value;
        key.to_string()
    };
    let der = [&[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0][..], &[5; 32]].concat();
    let pem = |der: &[u8]| {
        let base64 = base64::engine::general_purpose::STANDARD.encode(der);
        format!("# a comment\n-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----\n")
    };
    assert_eq!(add(&pem(&der)), Ok(1));
    assert_eq!(add(&pair.public_jwk.to_string()), Ok(1));
    let mut other_curve = der.clone();
    other_curve[8] = 0x71;
    let secret = |bytes: usize| json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(vec![1; bytes]) });
    let many: Vec<Value> = (0..=KEYS_MAX).map(|_| secret(32)).collect();
    for (text, words) in [
        (String::new(), "neither a JWK Set nor"),
        ("{".into(), "not JSON"),
        ("{}".into(), "no key of Ed25519 or HMAC"),
        (json!({ "keys": [] }).to_string(), "no key of Ed25519 or HMAC"),
        (json!({ "keys": 1 }).to_string(), "no JWK Set"),
        (json!({ "keys": many }).to_string(), "more than 16 ticket keys"),
        (json!({ "keys": [pair.public_jwk, pair.public_jwk] }).to_string(), "has the `kid` of another one"),
        (pair.private_pem.clone(), "is a private key"),
        (jwk("d", json!("AA")), "is a private key"),
        (jwk("kid", json!("host")), "the host's own"),
        (jwk("kid", json!("")), "`kid` has 0 bytes"),
        (jwk("x", json!("AA")), "`x` has 1 bytes"),
        (jwk("x", json!("??")), "not base64"),
        (jwk("x", Value::Null), "`x` is missing"),
        (jwk("alg", json!("HS256")), "`alg` is \"HS256\""),
        (jwk("use", json!("enc")), "`use` is not sig"),
        (jwk("crv", json!("X25519")), "no key of Ed25519"),
        (secret(31).to_string(), "`k` has 31 bytes"),
        (secret(513).to_string(), "`k` has 513 bytes"),
        (pem(&other_curve), "another kind than Ed25519"),
        (pem(&der[..40]), "another kind than Ed25519"),
        (pem(&der) + &pem(&der), "more than one PEM block"),
        ("-----BEGIN PUBLIC KEY-----\n".into(), "neither a JWK Set nor"),
        (" ".repeat(65 << 10), "more than 64 KiB"),
    ] {
        let error = add(&text).unwrap_err();
        assert!(error.contains(words) && error.contains("the-file"), "{text}: {error}");
    }
    assert!(KeySet::read(&["nowhere".into()]).unwrap_err().to_string().contains("cannot read"));
}

#[test]
fn two_keys_without_names_are_not_mixed_up() {
    let (first, second) = (KeyPair::make(None).unwrap(), KeyPair::make(None).unwrap());
    let nameless = |pair: &KeyPair| {
        let mut key = pair.public_jwk.clone();
        key.as_object_mut().unwrap().remove("kid");
        key.to_string()
    };
    let mut keys = KeySet::default();
    keys.add(Path::new("1"), nameless(&first).as_bytes()).unwrap();
    keys.add(Path::new("2"), second.public_jwk.to_string().as_bytes()).unwrap();
    assert!(keys.find(None, Algorithm::EdDSA).is_ok());
    assert!(keys.find(None, Algorithm::HS256).unwrap_err().contains("none for HS256"));
    keys.add(Path::new("3"), nameless(&second).as_bytes()).unwrap();
    assert!(keys.find(None, Algorithm::EdDSA).unwrap_err().contains("several"));
}

#[test]
fn data_that_makes_a_ticket_too_long_is_refused() {
    let data = json!({ "text": "x".repeat(2_000) });
    let refused = tickets().sign(&NewTicket { data: Some(&data), ..of(Some(1)) }, 1_000);
    assert!(matches!(refused, Err(TicketError::TooLong { bytes }) if bytes > 2_048));
    let data = json!({ "text": "x".repeat(1_000) });
    let signed = tickets().sign(&NewTicket { data: Some(&data), ..of(Some(1)) }, 1_000).unwrap();
    assert_eq!(tickets().check(&signed.ticket, 1_000).unwrap().data, Some(data.to_string()));
}
