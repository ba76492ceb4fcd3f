//! Makes the seeds of the corpora from real traffic: a race between two drivers in a real room, its journal, its outputs and its events, and the messages,
//! tickets, handshakes and files of every kind. Run after a format has changed:
//!
//! ```text
//! cargo test -p holeshot-fuzz --test seeds -- --ignored
//! ```
//!
//! It replaces the files `seed-*` of each corpus and leaves those that exploring found.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use drag_race::{DragRace, Driver};
use holeshot::doors::tickets::{NewTicket, Tickets};
use holeshot::events::CloudEvent;
use holeshot::rules::{ModuleHash, NativeProgram};
use holeshot_abi::{Item, Manifest, OutputReader, OutputWriter, PlayerSetup, Setup, TickRecord, write_restore};
use holeshot_fuzz::{TARGETS, find, framed, input_bytes_max, unframed};
use holeshot_guest::Rules as _;
use holeshot_guest::bench::Bench;
use holeshot_room::journal::{JournalHeader, JournalWriter};
use holeshot_room::{
    AbortReason, Arrival, Departure, Fault, FaultKind, Limits, Outcome, Program, Ran, Room, RoomConfig, Supervision,
    Supervisor, Usage,
};
use holeshot_wire::payload::Encode;
use holeshot_wire::{
    ByeCode, ClientHandshake, ClientMessage, HandshakeMessage, HostKeypair, HostMessage, Inputs, Phase, PlayerName,
    RefusalCode, RulesInfo, Snapshot, ToClient, ToHost, accept, write_delta,
};
use serde_json::{Value, json};

/// Seeds of one target by their names.
type Seeds = BTreeMap<String, Vec<u8>>;

#[test]
#[ignore = "writes into the corpora"]
fn seeds_are_made_from_real_traffic() {
    let race = Race::run();
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, _) in TARGETS {
        let seeds = match *name {
            "arena" => arena_snapshots(),
            "backup" => backups(),
            "budget_model" => budget_models(),
            "car_file" => car_files(),
            "config" => config(),
            "datagram" => datagrams(&race),
            "delta" => deltas(&race),
            "event" => events(&race),
            "figures" => figures(),
            "forwarded" => forwarded(),
            "handshake" => handshakes(),
            "journal" => journals(&race),
            "manifest" => manifests(),
            "measured" => measured(),
            "message" => messages(&race),
            "module" => modules(),
            "output" => outputs(&race),
            "records" => records(&race),
            "scenario" => scenarios(),
            "ticket" => tickets(),
            other => panic!("no seeds for {other}"),
        };
        let folder = corpora.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|file| file.to_string_lossy().starts_with("seed-")) {
                std::fs::remove_file(path).unwrap();
            }
        }
        for (seed, bytes) in seeds {
            assert!(bytes.len() <= input_bytes_max(name), "{name}/{seed} has {} bytes", bytes.len());
            find(name).unwrap()(&bytes);
            std::fs::write(folder.join(format!("seed-{seed}")), bytes).unwrap();
        }
    }
}

/// Deltas between snapshots of the race and of a match, and sessions over good and bad networks.
fn deltas(race: &Race) -> Seeds {
    let match_of_12 = arena_snapshots_of("player-0");
    let [early, late] = [400, 404].map(|at| race.snapshots[at].clone());
    let piece = |bytes: &[u8]| [&(bytes.len() as u16).to_le_bytes()[..], bytes].concat();
    let delta = |base: &[u8], snapshot: &[u8]| {
        let mut out = Vec::new();
        assert!(write_delta(4, base, snapshot, usize::MAX, &mut out));
        out
    };
    let mut seeds = Seeds::new();
    for (name, base, snapshot) in [("race", &early, &late), ("arena", &match_of_12[0], &match_of_12[1])] {
        let read = [piece(base), delta(base, snapshot)].concat();
        seeds.insert(format!("read-{name}"), with_mode(0, &read));
        seeds.insert(format!("write-{name}"), with_mode(1, &[vec![4], piece(base), snapshot.clone()].concat()));
    }
    let part = |frame, part, parts, bytes| Snapshot {
        frame,
        part,
        parts,
        margin_ms: Some(-3),
        newest_input_frame: Some(11),
        bytes,
    };
    let bytes = delta(&early, &late);
    let missing = delta(b"base", b"bare");
    let parts = [
        ToClient::Snapshot(part(400, 0, 1, &early)),
        ToClient::Delta(part(404, 0, 1, &bytes)),
        ToClient::Delta(part(409, 0, 1, &missing)),
        ToClient::Delta(part(411, 0, 1, b"none")),
    ];
    let parts: Vec<u8> = parts.iter().flat_map(|payload| piece(&encoded(payload))).collect();
    seeds.insert("parts".into(), with_mode(2, &parts));
    // Each frame: what changes, where, to what; and what becomes of what is on the way.
    let steps = |fate: fn(u8) -> u8| (0..60u8).flat_map(move |at| [(at % 4) | 16, at, 0, at ^ 0x5A, fate(at)]);
    let start = piece(&match_of_12[0].iter().chain(&early).copied().collect::<Vec<_>>());
    for (name, fate) in [
        ("good", (|_| 1) as fn(u8) -> u8),
        ("late", |at| ((at % 3) << 2) | (at % 3)),
        ("bad", |at| at.wrapping_mul(37)),
    ] {
        let steps: Vec<u8> = steps(fate).collect();
        seeds.insert(format!("session-{name}"), with_mode(3, &[start.clone(), steps].concat()));
    }
    seeds
}

/// What one player of a match sees in some frames of it.
fn arena_snapshots_of(player: &str) -> Vec<Vec<u8>> {
    let slot = player.trim_start_matches("player-").parse().unwrap();
    let bench = arena_match();
    let seen = bench.snapshots().iter().filter(|seen| seen.player == Some(slot));
    seen.skip(150).step_by(3).take(3).map(|seen| seen.bytes.clone()).collect()
}

/// What three players of a match see in the middle of it, and what a spectator does.
fn arena_snapshots() -> Seeds {
    let bench = arena_match();
    let newest = bench.snapshots().iter().rev().take(13).rev();
    newest
        .take(4)
        .map(|seen| (seen.player.map_or("spectator".into(), |player| format!("player-{player}")), seen.bytes.clone()))
        .collect()
}

fn arena_match() -> Bench<arena::Arena> {
    let mut bench = Bench::<arena::Arena>::new(5, r#"{"map":"open","duration_s":6}"#, &[("Ada", ""); 12]).unwrap();
    bench.without_restore_check().join_all();
    for slot in 0..12 {
        let mut bot = arena::Bot::new(0.9, u64::from(slot));
        bench.answer(slot, move |_, seen: Option<arena::Snapshot>| Some(bot.play(&seen?)));
    }
    bench.run_to_frame(170);
    bench
}

fn with_mode(mode: u8, bytes: &[u8]) -> Vec<u8> {
    [&[mode], bytes].concat()
}

fn encoded(payload: &impl Encode) -> Vec<u8> {
    let mut out = Vec::new();
    payload.encode(&mut out).unwrap();
    out
}

/// A race of two drivers, in the room that a host runs.
struct Race {
    setup: Setup,
    journal: Vec<u8>,
    outputs: Vec<Vec<u8>>,
    ticks: Vec<Vec<u8>>,
    snapshots: Vec<Vec<u8>>,
    public: Vec<(u64, String, Option<u32>, String)>,
    internal: Vec<(String, String)>,
}

impl Race {
    fn run() -> Self {
        let car = |id: &str| format!("{{\"car\":\"{id}\"}}");
        let cars = [&drag_race::cars()[0].id, &drag_race::cars()[1].id];
        let manifest = DragRace::manifest();
        let setup = Setup {
            seed: 20_261_121,
            tick_hz: manifest.tick_hz,
            options: r#"{"tree":"sportsman"}"#.into(),
            players: ["Ada", "Ben"]
                .iter()
                .zip(cars)
                .map(|(name, id)| PlayerSetup { name: (*name).into(), data: car(id) })
                .collect(),
        };
        let hash = ModuleHash::of(b"drag race");
        let program: Arc<dyn Program> = Arc::new(NativeProgram::<DragRace>::new(setup.clone(), hash));
        let mut rules = Supervisor::begin(Arc::clone(&program), Supervision::default()).unwrap();
        let config = RoomConfig {
            id: "r-1".into(),
            manifest: manifest.clone(),
            setup: setup.clone(),
            limits: Limits::default(),
        };
        let mut room = Room::open(config, 0).unwrap();
        let mut record = Vec::new();
        setup.write(&mut record).unwrap();
        let mut journal = JournalWriter::begin(&JournalHeader {
            room: "r-1".into(),
            opened_unix_ms: 1_795_000_000_000,
            setup: record,
            manifest: serde_json::to_string(&manifest).unwrap(),
            module: *hash.as_bytes(),
        });
        let mut race = Self {
            setup,
            journal: Vec::new(),
            outputs: Vec::new(),
            ticks: Vec::new(),
            snapshots: Vec::new(),
            public: Vec::new(),
            internal: Vec::new(),
        };
        let mut drivers: Vec<Driver> =
            cars.iter().enumerate().map(|(lane, id)| Driver::new(id, lane, 0.8, lane as u64).unwrap()).collect();
        for player in 0..2 {
            room.handle(0, Arrival::Connected { player }).unwrap();
            room.handle(0, Arrival::Ready { player }).unwrap();
        }
        let mut now_us = 0;
        while let Some(due_us) = room.next_due_us() {
            now_us = due_us.max(now_us);
            let frame = room.frame().map_or(0, |frame| frame + 1);
            if let Some(seen) = race.snapshots.last().and_then(|bytes| postcard::from_bytes(bytes).ok()) {
                for (player, driver) in (0..2).zip(&mut drivers) {
                    let bytes = postcard::to_allocvec(&driver.drive(&seen)).unwrap();
                    // One in fifteen is lost.
                    if (frame + u32::from(player)) % 15 != 3 {
                        let _over = room.handle(now_us, Arrival::Input { player, frame, bytes: &bytes });
                    }
                }
            }
            room.step(now_us, &mut rules, &mut |departure| {
                journal.note(&departure);
                race.take(&departure);
            });
        }
        journal.finish();
        race.journal = journal.take();
        assert!(race.outputs.len() > 500 && race.internal.iter().any(|(kind, _)| kind == "room.finished"));
        race
    }

    fn take(&mut self, departure: &Departure<'_>) {
        match *departure {
            Departure::Tick { record, ran: Ran::Stepped { output, .. }, .. } => {
                self.ticks.push(record.to_vec());
                self.outputs.push(output.to_vec());
            }
            Departure::PublicEvent(event) => {
                self.public.push((event.seq, event.name.into(), event.frame, event.json.into()));
            }
            Departure::InternalEvent { kind, json, .. } => self.internal.push((kind.into(), json.into())),
            Departure::SharedSnapshot { bytes, .. } => self.snapshots.push(bytes.to_vec()),
            _ => {}
        }
    }
}

fn datagrams(race: &Race) -> Seeds {
    let mut seeds = Seeds::new();
    let mut inputs = Vec::new();
    Inputs::write(812, Some(810), [&[1u8, 2, 3][..]; 6], &mut inputs).unwrap();
    let part = |part, parts, bytes| {
        encoded(&ToClient::Snapshot(Snapshot {
            frame: 9,
            part,
            parts,
            margin_ms: Some(-3),
            newest_input_frame: Some(11),
            bytes,
        }))
    };
    let snapshot = race.snapshots.last().unwrap();
    for (name, payload) in [
        ("inputs", inputs),
        ("probe", encoded(&ToHost::Probe)),
        ("response", encoded(&ToHost::Response([1, 2, 3, 4, 5, 6, 7, 8]))),
        ("ping", encoded(&ToHost::Ping(77))),
        ("snapshot", part(0, 1, snapshot)),
        ("snapshot-last", part(1, 2, snapshot)),
        ("challenge", encoded(&ToClient::Challenge([8; 8]))),
        ("pong", encoded(&ToClient::Pong(77))),
    ] {
        seeds.insert(format!("sealed-{name}"), with_mode(2, &[&[20, 0, 4][..], &payload].concat()));
        seeds.insert(format!("payload-{name}"), with_mode(0, &payload));
    }
    let mut garbage = vec![1, 7, 0, 0, 0, 200, 0, 0, 0, 0, 0, 0, 0];
    garbage.extend([0x55; 17]);
    seeds.insert("garbage".into(), with_mode(1, &garbage));
    garbage[1] = 8;
    seeds.insert("garbage-other-session".into(), with_mode(1, &garbage));
    seeds.insert(
        "window-reordered".into(),
        with_mode(3, &[0, 1, 2, 3, 4, 253, 252, 251, 250, 255, 253, 100, 9, 0, 255, 254]),
    );
    seeds.insert(
        "window-too-old".into(),
        with_mode(3, &[0, 1, 2, 100, 255, 100, 255, 100, 255, 0, 255, 254, 200, 201, 202, 203]),
    );
    let parts: Vec<u8> = [part(0, 1, snapshot), part(1, 2, snapshot), part(0, 1, b"")]
        .iter()
        .flat_map(|part| [&(part.len() as u16).to_le_bytes()[..], part].concat())
        .collect();
    seeds.insert("snapshots-parts".into(), with_mode(4, &[&[0][..], &parts].concat()));
    let mut whole = vec![1];
    whole.extend([3, 0, 1, 3, 2, 1, 0, 9, 9, 1, 2, 3, 4, 5, 6, 7]);
    whole.push(6);
    whole.extend(snapshot.repeat(20).iter().take(1_000));
    seeds.insert("snapshots-whole".into(), with_mode(4, &whole));
    seeds
}

fn handshakes() -> Seeds {
    let host = HostKeypair::from_private([9; 32]).unwrap();
    let (_, message_1) = ClientHandshake::start(&host.public(), "a ticket", [3; 32]).unwrap();
    let (_, message_2) = accept(&host, "a ticket", &message_1, [4; 32]).unwrap();
    let mut both = vec![3];
    both.extend([5; 96]);
    both.extend([4, 0]);
    both.extend(b"pingan unused ticket");
    let mut other = with_mode(1, &[0]);
    other.extend([0; 48]);
    Seeds::from([
        ("text-1".into(), with_mode(0, message_1.to_base64().as_bytes())),
        ("text-2".into(), with_mode(0, message_2.to_base64().as_bytes())),
        ("bytes".into(), with_mode(0, &message_1.0)),
        ("first-made-up".into(), with_mode(1, &[&[1][..], &message_1.0].concat())),
        ("first-same-ticket".into(), [&other[..], b"a ticket"].concat()),
        ("first-other-ticket".into(), [&other[..], b"another"].concat()),
        ("second-made-up".into(), with_mode(2, &[&[1][..], &message_1.0].concat())),
        ("second-altered".into(), with_mode(2, &[0, 0, 0, 128])),
        ("both".into(), both),
    ])
}

fn messages(race: &Race) -> Seeds {
    let noise = HandshakeMessage([0xFB; 48]);
    let client = [
        (
            "hello",
            ClientMessage::Hello {
                protocol: 1,
                ticket: "t.t.t".into(),
                noise: Some(noise),
                after: Some(4),
                deltas: true,
            },
        ),
        (
            "hello-bare",
            ClientMessage::Hello { protocol: 2, ticket: "t".into(), noise: None, after: None, deltas: false },
        ),
        ("ready", ClientMessage::Ready),
        ("action", ClientMessage::Action { id: 3, data: json!({ "gear": [1, -2.5, "up", null, true, 1e300] }) }),
        ("leave", ClientMessage::Leave),
        ("ping", ClientMessage::Ping { t: 9_007_199_254_740_991 }),
    ];
    let players =
        vec![PlayerName { player: 0, name: "Ada \"the\" First".into() }, PlayerName { player: 1, name: "Zoë".into() }];
    let rules = RulesInfo { name: "drag-race".into(), version: "0.1.0".into(), hash: "0123456789abcdef".repeat(4) };
    let host = [
        (
            "welcome",
            HostMessage::Welcome {
                session: u32::MAX,
                room: "r-1".into(),
                player: Some(1),
                players: players.clone(),
                udp_port: Some(7700),
                noise: Some(noise),
                tick_hz: 50,
                rules: rules.clone(),
                phase: Phase::Gathering,
                resumed: true,
                resume: Some("t.t.t".into()),
                deltas: true,
            },
        ),
        (
            "welcome-spectator",
            HostMessage::Welcome {
                session: 0,
                room: "r-1".into(),
                player: None,
                players,
                udp_port: None,
                noise: None,
                tick_hz: 128,
                rules,
                phase: Phase::Closed,
                resumed: false,
                resume: None,
                deltas: false,
            },
        ),
        ("refused", HostMessage::Refused { code: RefusalCode::ExpiredTicket, reason: "it expired 3 s ago".into() }),
        ("bye", HostMessage::Bye { code: ByeCode::RoomFinished, reason: String::new() }),
        ("action-result", HostMessage::ActionResult { id: 3, accepted: false, reason: Some("too late".into()) }),
        ("pong", HostMessage::Pong { t: 1 }),
    ];
    let mut seeds = Seeds::new();
    for (name, message) in client {
        seeds.insert(format!("client-{name}"), message.encode().unwrap().into_bytes());
    }
    for (name, message) in host {
        seeds.insert(format!("host-{name}"), message.encode().unwrap().into_bytes());
    }
    for (seq, name, frame, json) in &race.public {
        let data = serde_json::from_str(json).unwrap();
        let event =
            HostMessage::Event { seq: *seq, name: name.clone(), frame: *frame, time_ms: Some(1_795_000_000_123), data };
        seeds.insert(format!("event-{name}"), event.encode().unwrap().into_bytes());
    }
    seeds
}

fn tickets() -> Seeds {
    use holeshot_fuzz::ticket::{BOUNDS, HOST, HOST_KEY, KEYS, NOW_S};
    let keys = || holeshot::fuzzing::ticket_keys(KEYS.as_bytes()).unwrap();
    let ours = Tickets::new(HOST, &HOST_KEY, keys(), BOUNDS);
    let data = json!({ "car": "mx5" });
    let new = |player, data, lifetime_s| NewTicket { room: "r-1", player, name: "Ada", data, lifetime_s };
    let signed = |tickets: &Tickets, new: &NewTicket<'_>, now_s| tickets.sign(new, now_s).unwrap().ticket;
    let player = signed(&ours, &new(Some(1), Some(&data), 3_600), NOW_S);
    let expired = signed(&Tickets::new(HOST, &HOST_KEY, keys(), BOUNDS), &new(Some(0), None, 60), NOW_S - 100);
    let foreign = signed(&Tickets::new("host-paddock", &HOST_KEY, keys(), BOUNDS), &new(Some(0), None, 60), NOW_S);
    let resume = ours.pass(&ours.check(&player, NOW_S).unwrap(), NOW_S).unwrap().resume;
    let made = |mode: u8, header: Value, claims: &Value| {
        let header = header.to_string();
        [&[mode][..], &(header.len() as u16).to_le_bytes(), header.as_bytes(), claims.to_string().as_bytes()].concat()
    };
    let claims = json!({
        "iss": "mm", "aud": HOST, "sub": "Ada", "room": "r-1", "role": "player", "player": 1, "data": data,
        "iat": NOW_S - 3, "nbf": NOW_S, "exp": NOW_S + 60, "jti": "t-1",
    });
    let spectator = json!({
        "iss": "mm", "aud": [HOST, "host-paddock"], "sub": "Zoë", "room": "r-1", "role": "spectator",
        "iat": 1_795_000_000.5, "exp": NOW_S + 60, "jti": "t-2", "resume": true,
    });
    let host_header = json!({ "alg": "HS256", "typ": "JWT", "kid": "host" });
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
    let seeds = Seeds::from([
        ("player".into(), with_mode(0, player.as_bytes())),
        ("spectator".into(), with_mode(0, signed(&ours, &new(None, None, 60), NOW_S).as_bytes())),
        ("resume".into(), with_mode(0, resume.as_bytes())),
        ("expired".into(), with_mode(0, expired.as_bytes())),
        ("foreign".into(), with_mode(0, foreign.as_bytes())),
        ("cut".into(), with_mode(0, &player.as_bytes()[..player.len() - 1])),
        ("keys".into(), with_mode(1, KEYS.as_bytes())),
        ("keys-pem".into(), with_mode(1, pem.as_bytes())),
        ("host".into(), made(2, host_header, &claims)),
        ("mm".into(), made(3, json!({ "alg": "HS256", "kid": "mm" }), &claims)),
        ("mm-no-kid".into(), made(3, json!({ "alg": "HS256" }), &spectator)),
        ("mm-unsigned".into(), made(3, json!({ "alg": "none" }), &claims)),
        ("mm-crit".into(), made(3, json!({ "alg": "HS256", "kid": "mm", "crit": ["b64"] }), &claims)),
        ("ed".into(), made(4, json!({ "alg": "EdDSA", "kid": "ed" }), &claims)),
        ("ed-spectator".into(), made(4, json!({ "alg": "EdDSA", "kid": "ed" }), &spectator)),
    ]);
    for good in ["player", "spectator", "resume", "host", "mm", "ed", "ed-spectator"] {
        ours.check(&holeshot_fuzz::ticket::written(&seeds[good]).unwrap(), NOW_S).unwrap();
    }
    seeds
}

fn manifests() -> Seeds {
    let text = |manifest: &Manifest| serde_json::to_vec(manifest).unwrap();
    let bare = json!({ "name": "g", "version": "1", "state_version": 1, "players_min": 1, "players_max": 2, "input_bytes_max": 3 });
    let mut most = Manifest::new("most", "1.0.0", 1..=64, 240);
    (most.tick_hz, most.cutscene_ms, most.countdown_steps, most.input_track_frames) = (128, 60_000, 10, 256);
    let mut least = Manifest::new("least", "0", 1..=1, 0);
    (least.tick_hz, least.frames_max, least.input_track_frames) = (1, 1, 1);
    let wrong = Manifest::new("Wrong", "1 0", 3..=65, 241);
    Seeds::from([
        ("drag-race".into(), text(&DragRace::manifest())),
        ("bare".into(), bare.to_string().into_bytes()),
        ("most".into(), text(&most)),
        ("least".into(), text(&least)),
        ("wrong".into(), text(&wrong)),
    ])
}

fn outputs(race: &Race) -> Seeds {
    let mut seeds = Seeds::new();
    // Of each kind of frame the first: by the items that its output has.
    for output in &race.outputs {
        let reader = OutputReader::read(output, 2).unwrap();
        let kinds: Vec<&str> = reader
            .items()
            .map(|item| match item {
                Item::SharedSnapshot(_) => "shared",
                Item::Snapshot { .. } => "own",
                Item::PublicEvent { name, .. } | Item::InternalEvent { name, .. } => name,
                Item::Results(_) => "results",
            })
            .collect();
        seeds.entry(kinds.join("-")).or_insert_with(|| with_mode(1, output));
    }
    let mut writer = OutputWriter::new();
    let mut made = |name: &str, items: &[Item<'_>]| {
        writer.begin();
        items.iter().for_each(|item| writer.push(*item));
        seeds.insert(name.into(), with_mode(1, writer.finish()));
    };
    made("made-own", &[Item::Snapshot { player: 0, bytes: b"a" }, Item::Snapshot { player: 1, bytes: b"bc" }]);
    made("made-reserved", &[Item::PublicEvent { name: "finished", json: "1" }]);
    made("made-reserved-internal", &[Item::InternalEvent { name: "room.finished", json: "{}" }]);
    made("made-no-json", &[Item::PublicEvent { name: "x", json: "{\"a\":" }]);
    made("made-results", &[Item::Results(r#"[{"player":1,"place":1,"outcome":"won","data":null}]"#)]);
    made(
        "made-results-twice",
        &[Item::Results(r#"[{"player":0,"outcome":"won","data":1},{"player":0,"outcome":"won","data":1}]"#)],
    );
    seeds.insert("empty".into(), vec![0]);
    seeds
}

fn records(race: &Race) -> Seeds {
    let mut setup = Vec::new();
    race.setup.write(&mut setup).unwrap();
    let mut restore = Vec::new();
    write_restore(3, b"a state", &mut restore);
    let mut seeds = Seeds::from([
        ("setup".into(), with_mode(0, &setup)),
        ("restore".into(), with_mode(2, &restore)),
        ("tick-first".into(), with_mode(1, &race.ticks[0])),
        ("tick-later".into(), with_mode(1, &race.ticks[300])),
    ]);
    let mut record = TickRecord::default();
    record.begin(7, 2, 8);
    for reason in [holeshot_abi::LeaveReason::Quit, holeshot_abi::LeaveReason::ConnectionLost] {
        record.push_change(holeshot_abi::Change { player: 1, kind: holeshot_abi::ChangeKind::Left(reason) });
    }
    record.push_action(holeshot_abi::Action { player: 1, json: "{\"gear\":2}" });
    seeds.insert("tick-actions".into(), with_mode(1, record.bytes()));
    seeds
}

/// The first whole blocks of a journal that fit into an input.
fn head(journal: &[u8]) -> Vec<u8> {
    let mut at = 8;
    while let Some(len) = journal.get(at..at + 4) {
        let next = at + 8 + u32::from_le_bytes(len.try_into().unwrap()) as usize;
        if next > 4_000 {
            break;
        }
        at = next;
    }
    journal[..at].to_vec()
}

fn journals(race: &Race) -> Seeds {
    let raced = framed(&head(&race.journal)).unwrap();
    assert_eq!(unframed(&raced), head(&race.journal));
    let mut seeds =
        Seeds::from([("raw-race".into(), with_mode(0, &head(&race.journal)[..1_500])), ("race".into(), raced)]);
    // What a race does not bring about: swaps, rollbacks, retries, faults, lost ticks, leaves.
    let setup =
        Setup { players: vec![PlayerSetup { name: "Ada".into(), data: String::new() }; 3], ..race.setup.clone() };
    let mut record = Vec::new();
    setup.write(&mut record).unwrap();
    let manifest = Manifest::new("made", "1.0.0", 1..=4, 8);
    let header = JournalHeader {
        room: "made".into(),
        opened_unix_ms: 1,
        setup: record,
        manifest: serde_json::to_string(&manifest).unwrap(),
        module: [1; 32],
    };
    let program = |seed: &[u8]| NativeProgram::<DragRace>::new(setup.clone(), ModuleHash::of(seed));
    let (one, two) = (program(b"one"), program(b"two"));
    let fault = |kind| Fault::new(kind, "a reason");
    let tick = |writer: &mut JournalWriter, frame: u32, ran: Ran<'_>| {
        let mut record = TickRecord::default();
        record.begin(frame, 3, 8);
        let bytes = (frame / 3).to_le_bytes();
        record.set_input(
            1,
            holeshot_abi::PlayerInput { status: holeshot_abi::InputStatus::Fresh, age_frames: 0, bytes: &bytes },
        );
        if frame.is_multiple_of(2) {
            let repeated = holeshot_abi::InputStatus::Repeated;
            record.set_input(2, holeshot_abi::PlayerInput { status: repeated, age_frames: frame as u16, bytes: b"ab" });
        }
        if frame == 4 {
            record.push_change(holeshot_abi::Change { player: 0, kind: holeshot_abi::ChangeKind::Joined });
            record.push_action(holeshot_abi::Action { player: 2, json: "[1]" });
        }
        writer.note(&Departure::Tick { frame, record: record.bytes(), ran });
    };
    let stepped = || Ran::Stepped { output: b"", usage: Usage::default() };
    let mut writer = JournalWriter::begin(&header);
    writer.note(&Departure::Checkpoint { next_frame: 0, state_version: 1, state: &0u32.to_le_bytes() });
    for frame in 0..6 {
        tick(&mut writer, frame, stepped());
    }
    writer.note(&Departure::TicksLost { count: 300, next_frame: 6 });
    tick(&mut writer, 6, Ran::Skipped { fault: &fault(FaultKind::FuelExhausted) });
    writer.note(&Departure::Checkpoint { next_frame: 7, state_version: 1, state: &6u32.to_le_bytes() });
    writer.note(&Departure::RulesSwapped { next_frame: 7, from: &one, to: &two });
    tick(&mut writer, 7, stepped());
    tick(&mut writer, 8, stepped());
    writer.note(&Departure::RulesRolledBack {
        since_frame: 7,
        frame: 9,
        failed: &two,
        to: &one,
        fault: &fault(FaultKind::Trap),
        void: &[3, 300],
        output_crcs: &[0, 0],
    });
    tick(&mut writer, 9, stepped());
    writer.note(&Departure::RulesSwapped { next_frame: 10, from: &one, to: &two });
    tick(&mut writer, 10, stepped());
    writer.note(&Departure::RulesKept { next_frame: 11 });
    writer.note(&Departure::RulesRetried { frame: 11, fault: &fault(FaultKind::MemoryExceeded) });
    tick(&mut writer, 11, stepped());
    tick(&mut writer, 12, Ran::Faulted { fault: &fault(FaultKind::BadOutput) });
    writer.note(&Departure::RulesFault { frame: 12, fault: &fault(FaultKind::BadOutput) });
    writer.note(&Departure::Ended { outcome: Outcome::Aborted { frames: 13, reason: AbortReason::RulesFault } });
    writer.finish();
    seeds.insert("eventful".into(), framed(&writer.take()).unwrap());
    let mut writer = JournalWriter::begin(&header);
    tick(&mut writer, 0, stepped());
    writer.note(&Departure::Ended { outcome: Outcome::Finished { frames: 1, results: "[]" } });
    writer.finish();
    seeds.insert("finished".into(), framed(&writer.take()).unwrap());
    seeds
}

/// The catalogue's shared table with a car of each kind of gearbox, and one file with all that may be left out left out.
fn car_files() -> Seeds {
    let (shared, cars) = drag_race::CATALOGUE_TOML.split_once("[[car]]").unwrap();
    let shared: String = shared.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let file = |id: &str| {
        let car = cars.split("[[car]]").find(|car| car.contains(&format!("id = \"{id}\""))).unwrap();
        format!("{shared}[[car]]{car}")
    };
    let mut seeds: Seeds = ["mx5", "golf_gti", "hellcat", "model_3p"]
        .into_iter()
        .map(|id| (id.to_owned(), file(id).into_bytes()))
        .collect();
    let mx5 = file("mx5");
    let least = mx5.split_once("published =").unwrap().0;
    seeds.insert("least".into(), least.into());
    seeds.insert("misspelt".into(), least.replace("wheelbase_m", "wheelbse_m").into());
    seeds
}

fn config() -> Seeds {
    let every = r#"http_listen = "0.0.0.0:7700"
udp_listen = "[::]:7700"
mqtt_listen = "127.0.0.1:1883"
data_dir = "/var/lib/holeshot"
modules = ["a.wasm", "b.wasm"]
watch = ["c.wasm"]
shards = 1
rooms_max = 4000
memory_reserve_mib = 256
tick_share_percent = 25
overruns_max = 5
checkpoint_frames = 50
probation_frames = 150
gather_wait_s = 60
ready_wait_s = 60
reconnect_grace_s = 10
linger_s = 10
ticket_lifetime_s = 3600
journal_days = 30
journal_bytes_max = 4294967296
"#;
    Seeds::from([
        ("every".into(), every.as_bytes().to_vec()),
        ("empty".into(), b"# nothing is set\n".to_vec()),
        ("out-of-range".into(), b"rooms_max = 30001\nshards = 0\n".to_vec()),
        ("unknown".into(), b"rooms = 7\n".to_vec()),
        ("wrong-type".into(), b"\nrooms_max = \"many\"\n".to_vec()),
        (
            "table".into(),
            b"[a]\nb = 1979-05-27T07:32:00Z\n[[c.d]]\ne = { f = 'g', h = [1, 0xff, 1e5, inf] }\n".to_vec(),
        ),
    ])
}

fn events(race: &Race) -> Seeds {
    let event = |sequence: u64, kind: &str, room: Option<&str>, data: Value| {
        let module = (!kind.starts_with("host.")).then(|| "drag-race".to_owned());
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_000_000_123_456 + sequence);
        let (origin, host, kind) = ("pit.0190f3".to_owned(), "pit".to_owned(), kind.to_owned());
        CloudEvent { origin, sequence, host, kind, room: room.map(str::to_owned), module, time, data }.encode()
    };
    let module = |hash: &str| json!({ "hash": hash.repeat(64), "name": "drag-race", "version": "0.1.0" });
    let opened = json!({
        "module": module("a"), "seed": 7, "options": { "tree": "pro" },
        "players": [{ "player": 0, "name": "Ada", "data": { "car": "x" } }, { "player": 1, "name": "Ben", "data": null }],
    });
    let mut lines = vec![
        event(1, "host.started", None, json!({ "version": "0.1.0", "listen": { "http": "127.0.0.1:7700" } })),
        event(
            2,
            "module.loaded",
            None,
            json!({ "name": "drag-race", "version": "0.1.0", "hash": "a".repeat(64), "abi": 65537, "bytes": 9 }),
        ),
        event(3, "room.opened", Some("r-1"), opened),
    ];
    // What a race's room said, in its order.
    for (sequence, (kind, text)) in (4..).zip(&race.internal) {
        let mut data: Value = serde_json::from_str(text).unwrap();
        if kind == "player.joined" {
            data["transport"] = "udp".into();
        }
        let kind = if kind.contains('.') { kind.clone() } else { format!("rules.{kind}") };
        lines.push(event(sequence, &kind, Some("r-1"), data));
    }
    let mut seeds = Seeds::new();
    let joined = |lines: &[Vec<u8>]| lines.join(&b'\n');
    let mut start = lines[0].clone();
    // As many as fit: one that is left out would be a gap.
    for line in lines.drain(1..) {
        if start.len() + line.len() >= 4_000 {
            break;
        }
        start = joined(&[start, line]);
    }
    seeds.insert("race".into(), start);
    let swap = |sequence, kind: &str, data: Value| event(sequence, kind, Some("r-1"), data);
    seeds.insert(
        "swaps".into(),
        joined(&[
            swap(1, "room.rules_swapped", json!({ "frame": 100, "module": module("b"), "from": module("a") })),
            swap(
                2,
                "room.rules_rolled_back",
                json!({ "frame": 130, "since_frame": 100, "module": module("a"), "failed": module("b"), "reason": "trap", "message": "m", "backtrace": null }),
            ),
            swap(3, "room.rules_kept", json!({ "frame": 281, "since_frame": 131, "module": module("c") })),
            swap(4, "room.rules_retried", json!({ "frame": 300 })),
            swap(5, "module.swap_refused", json!({ "module": module("b"), "from": module("c"), "reason": "trap", "message": "m" })),
        ]),
    );
    let finished = json!({ "frames": 900, "results": [{ "player": 0, "place": 1, "outcome": "won", "data": { "elapsed_s": 9.5 } }], "counters": {}, "players": [] });
    seeds.insert(
        "ends".into(),
        joined(&[
            event(1, "room.finished", Some("r-1"), finished),
            event(2, "room.closed", Some("r-1"), json!({})),
            event(
                3,
                "room.journal_closed",
                Some("r-1"),
                json!({ "state": "whole", "bytes": 900, "frames": 50, "problem": null }),
            ),
            event(4, "room.aborted", Some("r-2"), json!({ "reason": "everyone_left", "frames": 3 })),
            event(5, "host.stopping", None, json!({})),
        ]),
    );
    // All of them are of use: the recorder takes them whole.
    let folder = tempfile::tempdir().unwrap();
    let mut recording = holeshot::fuzzing::Recording::open(folder.path()).unwrap();
    for (name, lines) in &seeds {
        let message = |line: &[u8]| {
            let event = CloudEvent::parse(line).unwrap();
            (holeshot::events::topics::event(&event.host, event.module.as_deref(), &event.kind), line.to_vec())
        };
        let batch: Vec<_> = lines.split(|byte| *byte == b'\n').map(message).collect();
        let recorded = recording.take(&batch).unwrap();
        assert_eq!(
            (recorded.stored, recorded.rejected),
            (batch.len() as u64, 0),
            "{name}: {:?}",
            recording.records().rejected(9)
        );
        recording.clear().unwrap();
    }
    // Out of order, twice, and after a gap that a floor closes.
    let plain = |sequence| event(sequence, "host.stopping", None, json!({}));
    let floors = holeshot::fuzzing::floors(&[("pit.0190f3", 4), ("pit.2", 0)]);
    seeds.insert("gap".into(), joined(&[plain(2), plain(1), plain(1), plain(6), plain(5), floors]));
    seeds.insert("wrong-topic".into(), [b"holeshot/v1/pit/events/host/x\t".to_vec(), plain(1)].concat());
    let wrong = String::from_utf8(plain(1)).unwrap().replace("holeshot.host.stopping", "holeshot.NO KIND");
    seeds.insert("wrong-kind".into(), wrong.into_bytes());
    seeds.insert("receipt".into(), br#"{"origin":"pit.1","stored":7,"gap":false}"#.to_vec());
    seeds.insert("receipt-ready".into(), br#"{"ready":true}"#.to_vec());
    seeds
}

fn scenarios() -> Seeds {
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../host/src/modder/template/scenarios");
    let mut seeds = Seeds::new();
    for entry in std::fs::read_dir(template).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        seeds.insert(name, std::fs::read(&path).unwrap());
    }
    let every = r#"about = "every key"
[room]
seed = 7
tick_hz = 50
options = { tree = "pro" }
frames = 400
[[player]]
name = "Ada"
data = { car = "x" }
[[player]]
name = "Ben"
[input]
fields = ["throttle:u8", "gear:i8", "at:u16le"]
[snapshot]
fields = ["time:f32", "lane:u32", "open:bool"]
[[play]]
player = "Ada"
frames = "0..100"
hex = "0102"
[[play]]
player = "Ben"
frames = "..green"
input = { throttle = 255, gear = -1, at = 400 }
[[lose]]
player = ["Ada", "Ben"]
frames = "green+3..green+9"
[[late]]
player = "Ben"
frames = "5..9"
by_frames = 3
[[action]]
player = "Ada"
frame = 3
data = { gear = 2 }
[[leave]]
player = "Ben"
frame = "green+20"
how = "connection_lost"
[[return]]
player = "Ben"
frame = "green+30"
[[expect]]
event = "green"
count = 1
public = true
between = { "lanes.0.x" = [0, 1] }
[[expect]]
result = "Ada"
outcome = "won"
place = 1
absent = ["x.y"]
[[expect]]
state_after = "green+9"
data = { lanes = [{ lane = 0 }] }
[[expect]]
snapshot_after = 30
player = "Ada"
hex = "00ff"
[[expect]]
ending = "finished"
"#;
    seeds.insert("every".into(), every.as_bytes().to_vec());
    for (name, text) in &seeds {
        let manifest = Manifest::new("drag-race", "1.0.0", 1..=8, 8);
        let read = holeshot::fuzzing::scenario(std::str::from_utf8(text).unwrap(), &manifest);
        assert!(read.is_ok(), "{name}: {read:?}");
    }
    seeds
}

fn backups() -> Seeds {
    let hash = "0123456789abcdef".repeat(4);
    let file = |mode: Value| json!({ "bytes": 900, "blake3": hash, "mode": mode });
    let facts = json!({ "layout": 4, "rows": { "events": 12 }, "origins": { "pit.1": 16 } });
    let whole = json!({
        "format": 1, "program": "0.1.0", "made_at": "2026-11-21T19:09:02.438668Z", "host": "host-pit", "journals": true, "mode": "750",
        "records": facts, "outbox": facts,
        "files": {
            "identity.json": file(json!("600")), "admin-token": file(json!("600")), "records.sqlite3": file(json!("644")),
            "outbox.sqlite3": file(Value::Null), "modules.json": file(Value::Null),
            (format!("modules/{hash}.wasm")): file(Value::Null), "journals/closed/r-1.journal": file(Value::Null),
        },
    });
    holeshot::fuzzing::backup_manifest(whole.to_string().as_bytes()).unwrap();
    let mut out = whole.clone();
    out["files"]["../identity.json"] = file(Value::Null);
    let mut newer = whole.clone();
    newer["format"] = 2.into();
    let mut torn = whole.clone();
    torn["outbox"] = Value::Null;
    let text = |json: Value| json.to_string().into_bytes();
    Seeds::from([
        ("whole".into(), text(whole)),
        ("leads-out".into(), text(out)),
        ("newer".into(), text(newer)),
        ("of-two-minds".into(), text(torn)),
    ])
}

fn budget_models() -> Seeds {
    let mut seeds = Seeds::new();
    seeds.insert("shooter".into(), holeshot::budget::example::SHOOTER_TOML.as_bytes().to_vec());
    let every = r#"[model]
name = "every key"
frames_per_second = 50.5
cores = 0x10
comment = "of it"
[[operation]]
name = "a"
n = { players = 64, things = 2.5 }
t_us = { min = 1, likely = 2.5, max = 16 }
p = { min = 0, likely = 0.5, max = 1 }
complexity = "n log n"
comment = "why"
alternative = { n = 3, t_ns = 7, p = 0.01, complexity = "n^2", comment = "so" }
[[operation]]
name = "b"
n = 1e12
t_s = 0.1
p = 1
complexity = "constant"
"#;
    seeds.insert("every".into(), every.as_bytes().to_vec());
    for (name, text) in &seeds {
        let read = holeshot::budget::file::parse(name, std::str::from_utf8(text).unwrap());
        assert!(read.is_ok(), "{name}: {read:?}");
    }
    seeds.insert("slip".into(), every.replace("likely = 2.5", "likly = 2.5").into_bytes());
    seeds
}

fn figures() -> Seeds {
    let page = |ticks: u32, cpu_s: f64, in_time: u32| {
        format!(
            "# TYPE holeshot_shard_ticks counter\nholeshot_shard_ticks_total{{shard=\"0\"}} {ticks}\nholeshot_shard_ticks_total{{shard=\"1\"}} 9\n\
             holeshot_shard_sleeps_total{{shard=\"0\"}} {ticks}\nholeshot_shard_cpu_seconds_total{{shard=\"0\"}} {cpu_s}\n\
             holeshot_shard_sessions{{shard=\"0\"}} 20\nholeshot_shard_sessions_opened_total{{shard=\"0\"}} 20\n\
             holeshot_shard_lateness_seconds_bucket{{shard=\"0\",le=\"0.001\"}} {in_time}\n\
             holeshot_shard_lateness_seconds_bucket{{shard=\"0\",le=\"+Inf\"}} {ticks}\n# EOF\n"
        )
    };
    let (before, after) = (page(1_000, 1.0, 990), page(2_000, 1.5, 1_900));
    let mut seeds = Seeds::new();
    seeds.insert("two".into(), [before.as_bytes(), after.as_bytes()].concat());
    seeds.insert("backwards".into(), [after.as_bytes(), before.as_bytes()].concat());
    seeds.insert("absurd".into(), [before.as_bytes(), after.replace("1.5", "1e400").as_bytes()].concat());
    seeds
}

/// A report of benches, and what a host says of two shards.
fn measured() -> Seeds {
    let figure = |name: &str, value: f64, limit: Option<f64>| json!({ "name": name, "unit": "ns", "value": value, "range": [value * 0.9, value * 1.1], "limit": limit, "better": "less" });
    let report = |figures: Vec<Value>| {
        json!({
            "format": 1, "begun": "2026-01-01T00:00:00Z", "times": 3, "quick": false,
            "machine": {
                "processor": "some", "cores": 2, "memory_mib": 8_000, "system": "linux 6.1", "build": "release",
                "version": "0.1.0", "commit": null,
            },
            "benches": [{ "name": "seal", "took_s": 1.5, "figures": figures, "table": "a table", "last": {} }],
        })
    };
    let shard = |index: u64| {
        json!({
            "shard": index, "rooms": 10, "sessions": 20, "cpu_ns": 1_500_000_000_u64, "ticks": 5_000, "ticks_lost": 0,
            "inputs_fresh": 9_980, "inputs_repeated": 15, "inputs_absent": 5, "datagrams_received": 10_200,
            "received_bytes": 900_000, "datagrams_sent": 10_000, "sent_bytes": 1_200_000,
            "lateness_us": [[31, 4_000], [67, 900], [1_023, 100]], "step_us": [[9, 5_000]],
        })
    };
    let good = report(vec![figure("seal/64", 200.0, Some(190.0)), figure("tick/2", 0.0, None)]);
    let mut other_format = good.clone();
    other_format["format"] = json!(2);
    let twice = report(vec![figure("same", 1.0, None), figure("same", 2.0, Some(0.0))]);
    Seeds::from([
        ("report".into(), good.to_string().into_bytes()),
        ("other-format".into(), other_format.to_string().into_bytes()),
        ("twice".into(), twice.to_string().into_bytes()),
        ("shards".into(), json!({ "shards": [shard(0), shard(1)] }).to_string().into_bytes()),
        ("no-shards".into(), json!({ "shards": [] }).to_string().into_bytes()),
    ])
}

fn forwarded() -> Seeds {
    let x = |text: &str| with_mode(0, text.as_bytes());
    let rfc = |text: &str| with_mode(1, text.as_bytes());
    Seeds::from([
        ("x".into(), x("203.0.113.9, 10.0.0.1\n\nhttps")),
        ("x-forged".into(), x("192.0.2.66\n203.0.113.9:4711, 10.0.0.1, 10.0.0.2")),
        ("x-six".into(), x("[2001:db8::1]:443, ::ffff:10.0.0.1, fd00::1\n\nwss, http")),
        ("x-none".into(), x("unknown, 10.0.0.1")),
        ("rfc".into(), rfc("for=203.0.113.9;proto=https;by=10.0.0.1, for=10.0.0.2")),
        ("rfc-quoted".into(), rfc("For=\"[2001:db8::1]:4711\" ; Proto=\"wss\";host=\"a\\\"b,c\"\nfor=10.1.2.3")),
        ("rfc-hidden".into(), rfc("for=_hidden, for=unknown, for=\"10.0.0.1\"")),
        ("rfc-torn".into(), rfc("for=\"203.0.113.9, for=10.0.0.1")),
    ])
}

fn modules() -> Seeds {
    let whole = r#"(module
        (import "holeshot" "log" (func $log (param i32 i32 i32)))
        (memory (export "memory") 2 8)
        (table 2 funcref)
        (global $at (mut i32) (i32.const 1024))
        (func (export "holeshot_abi_version") (result i32) (i32.const 0x10001))
        (func (export "holeshot_manifest") (result i64) (i64.const 0))
        (func (export "holeshot_buffer") (param i32) (result i32) (global.get $at))
        (func (export "holeshot_init") (param i32) (result i64) (i64.const 0))
        (func (export "holeshot_tick") (param i32) (result i64)
            (local $i i32)
            (block $out (loop $again
                (br_if $out (i32.gt_u (local.get $i) (local.get 0)))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_table $again $out (local.get $i))))
            (call $log (i32.const 1) (i32.const 0) (i32.const 0))
            (i64.const 0))
        (func (export "holeshot_save") (result i64) (i64.const 0))
        (func (export "holeshot_restore") (param i32) (result i64) (i64.const 0))
        (func (export "holeshot_describe") (result i64) (i64.const 0))
        (data (i32.const 0) "{\"name\":\"whole\"}"))"#;
    let module = |text: &str| wat::parse_str(text).unwrap();
    holeshot::fuzzing::inspect(&module(whole)).unwrap();
    Seeds::from([
        ("whole".into(), module(whole)),
        ("empty".into(), module("(module)")),
        ("memory64".into(), module("(module (memory i64 1))")),
        ("shared".into(), module("(module (memory 1 1 shared))")),
        ("memories".into(), module("(module (memory 1) (memory 1))")),
        ("tables".into(), module("(module (table 5000 funcref) (table 1 externref))")),
        (
            "wasi".into(),
            module(
                r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))))"#,
            ),
        ),
        ("gc".into(), module("(module (type (struct (field i32))))")),
        ("component".into(), module("(component)")),
        ("text".into(), b"(module)".to_vec()),
        ("elf".into(), b"\x7fELF\x02\x01\x01".to_vec()),
    ])
}
