//! The whole path with nothing replaced: events from a sink over a real broker and real sockets into real SQLite
//! files, with the broker, the manager and the host dying on the way, and with foreign clients at the broker. Not
//! covered: TLS, brokers other than the embedded one, power cuts.

mod damaged;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rumqttc::{AsyncClient, EventLoop, MqttOptions, QoS};
use serde_json::{Value, json};

use super::access::Protocol;
use super::broker::Broker;
use super::outbox::EventClass;
use super::payload::{
    HostStarted, HostStopping, ModuleLoaded, ModuleRef, Payload, PlayerJoined, PlayerLeft, PlayerResult, RoomAborted,
    RoomClosed, RoomFinished, RoomOpened, RoomPlayer, RoomStarted,
};
use super::{BrokerAccess, BrokerConfig, EmitError, Events, EventsConfig, EventsError, Limits};
use super::{EventSink, InternalEvent, topics};
use crate::manager::chores::Retention;
use crate::manager::records::{EventRecord, RoomState, RoomsPage};
use crate::manager::{Manager, ManagerConfig, Records};

/// Longer than anything here takes on a loaded machine; reached only by a failure.
const DEADLINE: Duration = Duration::from_secs(60);

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn events_in(directory: &Path, broker: BrokerConfig) -> Events {
    let config =
        EventsConfig { host_id: "pit".to_owned(), data_dir: directory.to_owned(), broker, outbox: Limits::default() };
    Events::start(config).await.unwrap()
}

async fn embedded(directory: &Path) -> Events {
    events_in(directory, BrokerConfig::Embedded { listen: ANY_PORT }).await
}

fn external(access: &BrokerAccess) -> BrokerConfig {
    BrokerConfig::External(access.clone())
}

fn in_version(broker: &Broker, protocol: Protocol) -> BrokerAccess {
    let mut access = broker.access().clone();
    access.protocol = protocol;
    access
}

async fn manager_in(directory: &Path, access: &BrokerAccess) -> Manager {
    Manager::start(ManagerConfig {
        broker: access.clone(),
        data_dir: directory.to_owned(),
        retention: Retention::default(),
    })
    .await
    .unwrap()
}

fn numbered(number: u64) -> InternalEvent {
    InternalEvent {
        kind: "rules.passed".to_owned(),
        module: Some("drag-race".to_owned()),
        room: Some(format!("r-{}", number % 7)),
        data: json!({ "number": number }),
        time: SystemTime::now(),
    }
}

/// Emits, waiting where the queue is full, as a test may and the game loop may not.
async fn emit(sink: &EventSink, event: InternalEvent) {
    loop {
        match sink.emit(event.clone()) {
            Ok(()) => return,
            Err(EmitError::QueueFull { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

fn all(records: &Records) -> Vec<EventRecord> {
    let mut all: Vec<EventRecord> = Vec::new();
    loop {
        let after = all.last().map_or(0, |event| event.id);
        let page = records.events(after, 200).unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// Every number of `0..count` was recorded exactly once, and the events of each origin were recorded in their order,
/// from sequence 1 on without a hole.
fn exactly_once(records: &Records, count: u64) {
    let mut origins: BTreeMap<String, (i64, u64)> = BTreeMap::new();
    let mut numbers = Vec::new();
    for event in all(records) {
        let number = event.event["data"]["number"].as_u64().unwrap();
        numbers.push(number);
        let last = origins.entry(event.origin).or_insert((0, number));
        assert_eq!(event.sequence, last.0 + 1);
        assert!(number >= last.1);
        *last = (event.sequence, number);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
}

/// A client that nobody of ours wrote the rules for.
struct Foreign {
    client: AsyncClient,
    events: EventLoop,
}

impl Foreign {
    fn new(access: &BrokerAccess, id: &str, change: impl FnOnce(&mut MqttOptions)) -> Self {
        let mut options = MqttOptions::new(id, access.host.clone(), access.port);
        options.set_max_packet_size(1 << 20, 1 << 20);
        change(&mut options);
        let (client, events) = AsyncClient::new(options, 100);
        Self { client, events }
    }

    async fn next(&mut self) -> Result<rumqttc::Packet, String> {
        loop {
            let event = tokio::time::timeout(DEADLINE, self.events.poll()).await;
            match event.expect("nothing came") {
                Ok(rumqttc::Event::Incoming(packet)) => return Ok(packet),
                Ok(rumqttc::Event::Outgoing(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    async fn message(&mut self) -> rumqttc::Publish {
        loop {
            match self.next().await {
                Ok(rumqttc::Packet::Publish(publish)) => return publish,
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn subscribe(&mut self, filter: &str) -> rumqttc::SubscribeReasonCode {
        self.client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        loop {
            if let rumqttc::Packet::SubAck(ack) = self.next().await.unwrap() {
                return ack.return_codes[0];
            }
        }
    }

    /// The next message on the status topic with this state.
    async fn status(&mut self, state: &str) -> (rumqttc::Publish, Value) {
        loop {
            let publish = self.message().await;
            let status: Value = serde_json::from_slice(&publish.payload).unwrap();
            if publish.topic == "holeshot/v1/pit/status" && status["state"] == state {
                return (publish, status);
            }
        }
    }
}

/// The embedded broker speaks both versions of MQTT, and so do our clients: everything arrives once in either, also when the broker dies
/// meanwhile, and what a foreign client hears says in version 5 what it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_of_mqtt_bring_everything_once() {
    use rumqttc::v5;
    use v5::mqttbytes::v5::Packet;
    const COUNT: u64 = 600;
    for protocol in [Protocol::V311, Protocol::V5] {
        let broker = Broker::start(ANY_PORT).unwrap();
        let access = in_version(&broker, protocol);
        let (of_host, of_manager) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut options = v5::MqttOptions::new("foreign", access.host.clone(), access.port);
        options.set_max_packet_size(Some(1 << 20));
        let (client, mut foreign) = v5::AsyncClient::new(options, 10);
        client.subscribe("holeshot/#", v5::mqttbytes::QoS::AtLeastOnce).await.unwrap();
        loop {
            if let v5::Event::Incoming(Packet::SubAck(_)) = foreign.poll().await.unwrap() {
                break;
            }
        }
        let events = events_in(of_host.path(), external(&access)).await;
        let manager = manager_in(of_manager.path(), &access).await;
        let sink = events.sink();
        for number in 0..COUNT / 2 {
            emit(&sink, numbered(number)).await;
        }
        let mut types = BTreeMap::new();
        while types.len() < 4 {
            let event = tokio::time::timeout(DEADLINE, foreign.poll()).await.expect("all kinds of messages").unwrap();
            if let v5::Event::Incoming(Packet::Publish(publish)) = event {
                let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                let properties = publish.properties.unwrap_or_default();
                types.insert(
                    topic.split('/').nth(3).unwrap().to_owned(),
                    (properties.content_type, properties.payload_format_indicator),
                );
            }
        }
        let said = |content: &str| match protocol {
            Protocol::V5 => (Some(content.to_owned()), Some(1)),
            _ => (None, None),
        };
        let json = said("application/json");
        let event = said("application/cloudevents+json; charset=utf-8");
        let expected = [("events", event), ("outbox", json.clone()), ("status", json.clone()), ("stored", json)];
        assert_eq!(types, expected.map(|(kind, types)| (kind.to_owned(), types)).into(), "{protocol:?}");

        until("some are stored", || events.stats().stored > 0).await;
        let address = broker.address();
        broker.stop();
        for number in COUNT / 2..COUNT {
            emit(&sink, numbered(number)).await;
        }
        until("the loss is noticed", || !events.stats().connected).await;
        // Another password: nobody of before may enter, so these clients start anew.
        let flushed = events.shutdown(Duration::ZERO).await;
        manager.shutdown().await;
        drop(events);
        let broker = Broker::start(address).unwrap();
        let access = in_version(&broker, protocol);
        let events = events_in(of_host.path(), external(&access)).await;
        let manager = manager_in(of_manager.path(), &access).await;
        until("all are stored", || events.stats().queued == 0).await;
        exactly_once(&manager.records(), COUNT);
        println!("{protocol:?}: sent {COUNT}, recorded {COUNT}, left by the first start {}", flushed.left);
        assert_eq!(events.shutdown(DEADLINE).await.left, 0);
        manager.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_race_becomes_rows() {
    let directory = tempfile::tempdir().unwrap();
    let events = embedded(directory.path()).await;
    let manager = manager_in(directory.path(), events.broker_access()).await;
    let records = manager.records();
    let sink = events.sink();
    let module = ModuleRef { hash: "ab".repeat(32), name: "drag-race".to_owned(), version: "0.1.0".to_owned() };
    let host = |event: InternalEvent| sink.emit(event).unwrap();
    let now = SystemTime::now;
    host(HostStarted { version: "0.1.0".to_owned(), listen: json!({"http": "127.0.0.1:8080"}) }.event(
        None,
        None,
        now(),
    ));
    host(
        ModuleLoaded {
            name: module.name.clone(),
            version: module.version.clone(),
            hash: module.hash.clone(),
            abi: 1,
            bytes: 123_456,
            leaderboards: Vec::new(),
        }
        .event(None, None, now()),
    );
    let in_room = |event: InternalEvent| InternalEvent {
        room: Some("r-1".to_owned()),
        module: Some("drag-race".to_owned()),
        ..event
    };
    host(in_room(
        RoomOpened {
            module: module.clone(),
            seed: u64::MAX,
            options: json!({"tree": "pro"}),
            players: ["Ann", "Bob"]
                .iter()
                .zip(0..)
                .map(|(name, player)| RoomPlayer { player, name: (*name).to_owned(), data: json!({"car": "m3"}) })
                .collect(),
        }
        .event(None, None, now()),
    ));
    for (player, name) in [(0, "Ann"), (1, "Bob")] {
        host(in_room(PlayerJoined { player, name: name.to_owned(), transport: "udp".to_owned() }.event(
            None,
            None,
            now(),
        )));
    }
    host(in_room(RoomStarted { frame: 0 }.event(None, None, now())));
    host(in_room(InternalEvent {
        kind: "rules.red-light".to_owned(),
        module: None,
        room: None,
        data: json!({"player": 1}),
        time: now(),
    }));
    host(in_room(
        RoomFinished {
            frames: 900,
            results: vec![
                PlayerResult {
                    player: 1,
                    place: Some(2),
                    outcome: "red-light".to_owned(),
                    data: json!({"et_s": 13.1}),
                },
                PlayerResult { player: 0, place: Some(1), outcome: "won".to_owned(), data: json!({"et_s": 14.2}) },
            ],
            counters: json!({"ticks": 3}),
            players: json!([{"inputs": {"late": 3}}]),
        }
        .event(None, None, now()),
    ));
    host(in_room(PlayerLeft { player: 0, name: "Ann".to_owned(), reason: "done".to_owned() }.event(None, None, now())));
    host(in_room(RoomClosed {}.event(None, None, now())));
    host(HostStopping {}.event(None, None, now()));

    let flush = events.shutdown(DEADLINE).await;
    assert_eq!((flush.stored, flush.left), (11, 0));
    let stats = manager.stats();
    assert_eq!((stats.stored, stats.rejected), (11, 0), "{:?}", records.rejected(10));
    manager.shutdown().await;
    events.stop_broker().await;
    assert_eq!(sink.emit(numbered(0)), Err(EmitError::Closed));

    let room = records.room("r-1").unwrap().unwrap();
    assert_eq!(room.summary.state, RoomState::Finished);
    assert_eq!(room.summary.host, "pit");
    assert_eq!(room.summary.module_hash, Some(module.hash.clone()));
    assert_eq!(room.summary.frames, Some(900));
    assert!(room.summary.closed_at.is_some());
    assert_eq!(room.seed.as_deref(), Some("18446744073709551615"));
    assert_eq!(room.options, json!({"tree": "pro"}));
    assert_eq!(room.counters, json!({"room": {"ticks": 3}, "players": [{"inputs": {"late": 3}}]}));
    let names: Vec<&str> = room.players.iter().map(|player| player.name.as_str()).collect();
    assert_eq!(names, ["Ann", "Bob"]);
    assert_eq!(room.players[0].left_reason.as_deref(), Some("done"));
    assert_eq!(room.players[1].transport.as_deref(), Some("udp"));
    let slips: Vec<(i64, &str)> = room.results.iter().map(|result| (result.player, result.outcome.as_str())).collect();
    assert_eq!(slips, [(0, "won"), (1, "red-light")]);
    assert_eq!(room.results[0].data, json!({"et_s": 14.2}));
    let kinds: Vec<&str> = room.events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "room.opened",
            "player.joined",
            "player.joined",
            "room.started",
            "rules.red-light",
            "room.finished",
            "player.left",
            "room.closed"
        ]
    );
    let hosts = records.hosts().unwrap();
    assert_eq!(hosts[0].listen, json!({"http": "127.0.0.1:8080"}));
    assert!(hosts[0].stopping_at >= hosts[0].started_at);
    let modules = records.modules().unwrap();
    assert_eq!((modules[0].abi, modules[0].bytes), (Some(1), Some(123_456)));
    assert_eq!(records.room("nobody").unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_events_arrive_once_and_in_order() {
    const COUNT: u64 = 10_000;
    let directory = tempfile::tempdir().unwrap();
    let events = embedded(directory.path()).await;
    let manager = manager_in(directory.path(), events.broker_access()).await;
    until("the manager listens", || manager.stats().subscribed).await;
    let sink = events.sink();
    let start = Instant::now();
    for number in 0..COUNT {
        emit(&sink, numbered(number)).await;
    }
    let emitted = start.elapsed();
    let flush = events.shutdown(DEADLINE).await;
    println!("emitted in {emitted:?}, recorded in {:?}; {:?}; {:?}", start.elapsed(), events.stats(), manager.stats());
    assert_eq!((flush.stored, flush.left), (COUNT, 0));
    assert_eq!(manager.stats().stored, COUNT);
    exactly_once(&manager.records(), COUNT);
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_dies_in_a_burst_costs_nothing() {
    const COUNT: u64 = 6_000;
    let (host, keeper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let broker = Broker::start(ANY_PORT).unwrap();
    let access = broker.access().clone();
    let address = broker.address();
    let password = access.password.clone().unwrap();
    let events = events_in(host.path(), external(&access)).await;
    let manager = manager_in(keeper.path(), &access).await;
    let sink = events.sink();
    let mut broker = Some(broker);
    for number in 0..COUNT {
        if number == COUNT / 3 || number == COUNT * 2 / 3 {
            // More than were sent before the first death, so that the second one finds a connection to cut.
            until("some are recorded", || manager.stats().stored > number * 5 / 8).await;
            broker.take().unwrap().stop();
            // More come while it is away.
        }
        if number == COUNT / 3 + 500 || number == COUNT * 2 / 3 + 500 {
            broker = Some(Broker::start_with(address, password.clone()).unwrap());
        }
        emit(&sink, numbered(number)).await;
    }
    until("everything has its receipt", || events.stats().queued == 0).await;
    println!("{:?}; {:?}", events.stats(), manager.stats());
    assert!(events.stats().reconnects >= 2);
    exactly_once(&manager.records(), COUNT);
    assert_eq!(events.shutdown(DEADLINE).await.left, 0);
    manager.shutdown().await;
}

/// The broker is away and the outbox small: the events of the rules are refused first, those of the host last, what was accepted is all
/// recorded when the broker is there, and then there is room again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_outbox_refuses_by_class_and_loses_nothing_that_it_took() {
    for limits in [Limits { events_max: 400, ..Limits::default() }, Limits { bytes_max: 400_000, ..Limits::default() }]
    {
        let (host, keeper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let broker = Broker::start(ANY_PORT).unwrap();
        let (access, address) = (broker.access().clone(), broker.address());
        broker.stop();
        let config = EventsConfig {
            host_id: "pit".to_owned(),
            data_dir: host.path().to_owned(),
            broker: external(&access),
            outbox: limits,
        };
        let events = Events::start(config).await.unwrap();
        let sink = events.sink();
        let event = |number: u64, of_rules: bool| {
            let kind = if of_rules { "rules.passed" } else { "room.passed" };
            // A kilobyte or so.
            let data = json!({ "number": number, "padding": "x".repeat(700) });
            InternalEvent { kind: kind.to_owned(), data, ..numbered(number) }
        };
        let mut accepted = 0;
        let mut shares = Vec::new();
        for (of_rules, class) in [(true, EventClass::Rules), (false, EventClass::Host)] {
            loop {
                match sink.emit(event(accepted, of_rules)) {
                    Ok(()) => accepted += 1,
                    Err(refused) => {
                        assert_eq!(refused, EmitError::OutboxFull { class });
                        break;
                    }
                }
                // Written one by one, so that each weighs what it weighs in the file.
                until("it is written", || events.stats().outbox_bytes > 0 && events.outbox.0.pending() == 0).await;
            }
            shares.push(accepted);
            // Once full for a class, it is full for that class, however often it is asked.
            for _ in 0..50 {
                assert!(sink.emit(event(accepted, of_rules)).is_err());
            }
        }
        assert!(sink.emit(event(accepted, true)).is_err());
        let full = events.stats();
        assert_eq!((full.refused_rules, full.refused_host, full.queued, full.lost), (52, 51, accepted, 0));
        assert_eq!((full.queued_max, full.outbox_bytes_max), (limits.events_max, limits.bytes_max));
        assert!(full.queued <= full.queued_max && full.oldest_unix_us.is_some() && full.stored == 0, "{full:?}");
        assert!(full.queued == full.queued_max || full.outbox_bytes >= full.outbox_bytes_max, "{full:?}");
        let (of_rules, of_all) = (shares[0], shares[1]);
        assert!((of_all * 2 / 5..=of_all * 3 / 5).contains(&of_rules), "{shares:?}");

        let broker = Broker::start_with(address, access.password.clone().unwrap()).unwrap();
        let manager = manager_in(keeper.path(), &access).await;
        until("everything has its receipt", || events.stats().queued == 0).await;
        exactly_once(&manager.records(), accepted);
        assert_eq!((events.stats().oldest_unix_us, events.stats().outbox_bytes), (None, 0));
        sink.emit(event(accepted, true)).unwrap();
        assert_eq!(events.shutdown(DEADLINE).await.left, 0);
        exactly_once(&manager.records(), accepted + 1);
        println!(
            "{limits:?}: accepted {of_rules} of the rules and {} of the host, refused {} and {}, recorded {accepted}, lost 0, doubled 0",
            of_all - of_rules,
            full.refused_rules,
            full.refused_host
        );
        manager.shutdown().await;
        broker.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_stops_dies_or_starts_anew_costs_nothing() {
    const COUNT: u64 = 6_000;
    let (host, keeper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let events = embedded(host.path()).await;
    let access = events.broker_access().clone();
    let mut manager = Some(manager_in(keeper.path(), &access).await);
    let sink = events.sink();
    for number in 0..COUNT {
        if number == 2_000 {
            let running = manager.take().unwrap();
            until("some are recorded", || running.stats().stored > 500).await;
            running.shutdown().await;
        }
        if number == 4_000 {
            let running = manager.take().unwrap();
            until("some are recorded", || running.stats().stored > 500).await;
            drop(running);
        }
        if number == 3_000 || number == 5_000 {
            manager = Some(manager_in(keeper.path(), &access).await);
        }
        emit(&sink, numbered(number)).await;
    }
    until("everything has its receipt", || events.stats().queued == 0).await;
    let running = manager.take().unwrap();
    exactly_once(&running.records(), COUNT);
    println!("{:?}; {:?}", events.stats(), running.stats());
    running.shutdown().await;

    // A manager with an empty file and another identity: it gets what is new, and does not wait for what is gone.
    let elsewhere = tempfile::tempdir().unwrap();
    let another = manager_in(elsewhere.path(), &access).await;
    for number in COUNT..COUNT + 100 {
        emit(&sink, numbered(number)).await;
    }
    let flush = events.shutdown(DEADLINE).await;
    assert_eq!(flush.left, 0);
    let new: Vec<EventRecord> = all(&another.records());
    assert_eq!(new.len(), 100);
    assert_eq!(new[0].sequence, COUNT as i64 + 1);
    another.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_vanishes_finds_its_events_again() {
    const COUNT: u64 = 3_000;
    let (host, keeper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = embedded(host.path()).await;
    let sink = first.sink();
    let manager = manager_in(keeper.path(), first.broker_access()).await;
    for number in 0..COUNT {
        emit(&sink, numbered(number)).await;
    }
    until("some are recorded", || manager.stats().stored > 100).await;
    // Neither says farewell.
    drop(manager);
    drop(first);

    let second = embedded(host.path()).await;
    let manager = manager_in(keeper.path(), second.broker_access()).await;
    for number in COUNT..COUNT + 100 {
        emit(&second.sink(), numbered(number)).await;
    }
    let flush = second.shutdown(DEADLINE).await;
    println!("{flush:?} {:?}", manager.stats());
    assert_eq!(flush.left, 0);
    exactly_once(&manager.records(), COUNT + 100);
    let origins: std::collections::BTreeSet<String> =
        all(&manager.records()).into_iter().map(|event| event.origin).collect();
    assert_eq!(origins.len(), 2, "each start is an origin");
    manager.shutdown().await;
}

/// Names the data directory to the process of the next test that is to be killed.
const VICTIM: &str = "HOLESHOT_TEST_VICTIM";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_killed_finds_its_events_again() {
    if let Some(directory) = std::env::var_os(VICTIM) {
        return victim(Path::new(&directory)).await;
    }
    let (host, keeper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("events::tests::a_host_that_is_killed_finds_its_events_again")
        .env(VICTIM, host.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut written = 0_u64;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while written < 2_000 {
        let line = lines.next().expect("the victim ended").unwrap();
        if let Some(count) = line.strip_prefix("written ") {
            written = count.parse().unwrap();
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it said until it died counts.
    for line in lines.map_while(Result::ok) {
        if let Some(count) = line.strip_prefix("written ") {
            written = count.parse().unwrap();
        }
    }

    let events = embedded(host.path()).await;
    let manager = manager_in(keeper.path(), events.broker_access()).await;
    let flush = events.shutdown(DEADLINE).await;
    assert_eq!(flush.left, 0);
    let recorded = all(&manager.records()).len() as u64;
    println!("said to be written {written}, recorded {recorded}");
    assert!(recorded >= written);
    exactly_once(&manager.records(), recorded);
    manager.shutdown().await;
}

/// Emits without end, without a manager, and says how many events are on disk.
async fn victim(directory: &Path) {
    let events = embedded(directory).await;
    let sink = events.sink();
    let level = events.outbox.0.level();
    for number in 0.. {
        emit(&sink, numbered(number)).await;
        if number % 50 == 0 {
            println!("written {}", level.borrow().events);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_client_sees_events_and_presence() {
    let directory = tempfile::tempdir().unwrap();
    let events = embedded(directory.path()).await;
    let mut watcher = Foreign::new(events.broker_access(), "watcher", |_| {});
    assert!(matches!(watcher.subscribe("holeshot/#").await, rumqttc::SubscribeReasonCode::Success(_)));
    until("there is a connection", || events.stats().connected).await;
    let (_, status) = watcher.status("online").await;
    assert_eq!(status["boot"], events.boot());

    events.sink().emit(numbered(42)).unwrap();
    let publish = loop {
        let publish = watcher.message().await;
        if publish.topic.starts_with("holeshot/v1/pit/events/") {
            break publish;
        }
    };
    assert_eq!(publish.topic, "holeshot/v1/pit/events/drag-race/rules.passed");
    assert!(!publish.retain);
    let event: Value = serde_json::from_slice(&publish.payload).unwrap();
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["type"], "holeshot.rules.passed");
    assert_eq!(event["data"]["number"], 42);

    // One who comes later finds the presence there.
    let mut late = Foreign::new(events.broker_access(), "late", |_| {});
    late.subscribe("holeshot/v1/+/status").await;
    let (publish, _) = late.status("online").await;
    assert!(publish.retain);

    // A farewell.
    let flush = events.shutdown(Duration::from_millis(1)).await;
    assert_eq!(flush.left, 1);
    watcher.status("offline").await;
    let mut later = Foreign::new(events.broker_access(), "later", |_| {});
    later.subscribe("holeshot/v1/+/status").await;
    let (publish, status) = later.status("offline").await;
    assert!(publish.retain);
    assert_eq!(status["boot"], events.boot());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_vanishes_is_reported_offline() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::start(ANY_PORT).unwrap();
    let mut watcher = Foreign::new(broker.access(), "watcher", |_| {});
    watcher.subscribe("holeshot/v1/pit/status").await;
    let events = events_in(directory.path(), external(broker.access())).await;
    watcher.status("online").await;
    let boot = events.boot().to_owned();
    drop(events);
    let (_, status) = watcher.status("offline").await;
    assert_eq!(status["boot"], boot);
    let mut late = Foreign::new(broker.access(), "late", |_| {});
    late.subscribe("holeshot/v1/pit/status").await;
    assert!(late.status("offline").await.0.retain);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_client_cannot_publish() {
    let directory = tempfile::tempdir().unwrap();
    let events = embedded(directory.path()).await;
    let access = events.broker_access().clone();
    let manager = manager_in(directory.path(), &access).await;
    until("the manager listens", || manager.stats().subscribed).await;
    let topic = topics::event("pit", None, "room.finished");
    let mut watcher = Foreign::new(&access, "watcher", |_| {});
    watcher.subscribe("holeshot/v1/+/events/#").await;

    // Version 3.1.1: the connection is cut, whatever the QoS.
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        // Another id each time: the broker may still be busy with the end of the last.
        let mut forger = Foreign::new(&access, &format!("forger-{qos:?}"), |_| {});
        forger.next().await.unwrap();
        forger.client.publish(&topic, qos, false, "{}").await.unwrap();
        let ended = loop {
            match forger.next().await {
                Ok(rumqttc::Packet::PubAck(_) | rumqttc::Packet::PubRec(_)) => {
                    panic!("the broker took it")
                }
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        println!("{qos:?}: {ended}");
    }

    // Version 5: it says so.
    {
        use rumqttc::v5::mqttbytes::QoS;
        use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
        use rumqttc::v5::{AsyncClient, Event, MqttOptions};
        let options = MqttOptions::new("forger5", access.host.clone(), access.port);
        let (client, mut polled) = AsyncClient::new(options, 10);
        client.publish(&topic, QoS::AtLeastOnce, false, "{}").await.unwrap();
        let reason = loop {
            let event = tokio::time::timeout(DEADLINE, polled.poll()).await.unwrap().unwrap();
            if let Event::Incoming(Packet::PubAck(ack)) = event {
                break ack.reason;
            }
        };
        assert_eq!(reason, PubAckReason::NotAuthorized);
    }

    // A will would be published past the rules, a client id of ours would end our session, a name must be ours.
    type Change = fn(&mut MqttOptions);
    let refused: [(&str, Change); 4] = [
        ("will", |options| {
            let topic = topics::status("pit");
            options.set_last_will(rumqttc::LastWill::new(topic, "{}", QoS::AtLeastOnce, true));
        }),
        ("holeshot-pit-control", |_| {}),
        ("guest", |options| {
            options.set_credentials("guest", "guest");
        }),
        ("thief", |options| {
            options.set_credentials("holeshot", "");
        }),
    ];
    for (id, change) in refused {
        let mut client = Foreign::new(&access, id, change);
        let error = client.next().await.unwrap_err();
        assert!(error.contains("refused"), "{id}: {error}");
    }
    let mut curious = Foreign::new(&access, "curious", |_| {});
    for filter in ["#", "$SYS/#", "+/v1/#", "holeshot"] {
        assert_eq!(curious.subscribe(filter).await, rumqttc::SubscribeReasonCode::Failure, "{filter}");
    }

    // Nothing of it reached anyone: the first thing that arrives is ours.
    events.sink().emit(numbered(1)).unwrap();
    let publish = watcher.message().await;
    assert_eq!(publish.topic, "holeshot/v1/pit/events/drag-race/rules.passed");
    assert_eq!(events.shutdown(DEADLINE).await.left, 0);
    let stats = manager.stats();
    assert_eq!((stats.stored, stats.rejected), (1, 0));
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_wrong_are_kept_apart_and_hold_nothing_up() {
    let directory = tempfile::tempdir().unwrap();
    let events = embedded(directory.path()).await;
    let access = events.broker_access().clone();
    let manager = manager_in(directory.path(), &access).await;
    until("the manager listens", || manager.stats().subscribed).await;
    // With our credentials: as another program would on an external broker.
    let mut other = Foreign::new(&access, "other", |options| {
        options.set_credentials(access.username.clone().unwrap(), access.password.clone().unwrap());
    });
    let event = |sequence: u64, kind: &str, room: Option<&str>, data: Value| {
        let mut event = json!({
            "specversion": "1.0", "id": format!("other.1/{sequence}"), "source": "/holeshot/other",
            "type": format!("holeshot.{kind}"), "time": "2026-11-21T12:00:00Z",
            "datacontenttype": "application/json", "origin": "other.1",
            "sequence": format!("{sequence:016}"), "data": data,
        });
        if let Some(room) = room {
            event["room"] = json!(room);
            event["subject"] = json!(room);
        }
        event.to_string().into_bytes()
    };
    let mut foreign_origin: Value = serde_json::from_slice(&event(9, "host.stopping", None, json!({}))).unwrap();
    foreign_origin["source"] = json!("/holeshot/third");
    let room_topic = "holeshot/v1/other/events/host/room.finished";
    let messages: Vec<(&str, Vec<u8>)> = vec![
        // No JSON; JSON of another kind; too long.
        (room_topic, b"\xff\xfe\x00".to_vec()),
        (room_topic, b"[1,2]".to_vec()),
        (room_topic, vec![b'x'; 200 * 1024]),
        // No event: its identity counts, so that its host does not send it for ever.
        (room_topic, event(1, "NO KIND", None, json!({}))),
        // An event on another's topic.
        ("holeshot/v1/third/events/host/room.finished", event(2, "room.finished", None, json!({}))),
        // Events without the room, with wrong data, with numbers out of range: stored, but nothing derived.
        (room_topic, event(2, "room.finished", None, json!({"frames": 1, "results": []}))),
        (room_topic, event(3, "room.finished", Some("x"), json!({"frames": "many"}))),
        (room_topic, event(4, "room.finished", Some("x"), json!({"frames": u64::MAX, "results": []}))),
        (
            room_topic,
            event(
                5,
                "room.finished",
                Some("x"),
                json!({"frames": 1, "results": vec![json!({"player": 1, "outcome": "won"}); 1000]}),
            ),
        ),
        // An origin that belongs to another host.
        ("holeshot/v1/third/events/host/host.stopping", foreign_origin.to_string().into_bytes()),
        // One that would be another's, if its own host had spoken first.
        ("holeshot/v1/third/outbox", br#"{"origins":[{"origin":"fourth.1","floor":7}]}"#.to_vec()),
        // Notes about outboxes.
        ("holeshot/v1/other/outbox", b"{}".to_vec()),
        ("holeshot/v1/other/outbox", br#"{"origins":[{"origin":"other.1","floor":18446744073709551615}]}"#.to_vec()),
        // And one that is right, though it comes before the room was opened.
        (
            room_topic,
            event(
                6,
                "room.finished",
                Some("y"),
                json!({"frames": 7, "results": [{"player": 0, "place": 1, "outcome": "won"}]}),
            ),
        ),
    ];
    let wrong = messages.len() as u64 - 1;
    for (topic, payload) in messages {
        other.client.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
    }
    let pump = tokio::spawn(async move { while other.next().await.is_ok() {} });
    until("the last is stored", || manager.stats().stored == 5).await;
    let records = manager.records();
    let rejected = records.rejected(200).unwrap();
    for row in &rejected {
        println!("{}: {}", row.topic, row.reason);
    }
    assert_eq!(manager.stats().rejected, wrong);
    assert_eq!(rejected.len() as u64, wrong);
    assert!(rejected.iter().all(|row| row.payload.len() <= 64 * 1024));
    assert!(rejected.iter().any(|row| row.reason.contains("`type`")));
    assert!(rejected.iter().any(|row| row.reason.contains("`room` is missing")));
    assert!(rejected.iter().any(|row| row.reason.contains("belongs to another host")));
    let room = records.room("y").unwrap().unwrap();
    assert_eq!((room.summary.state, room.results.len()), (RoomState::Finished, 1));

    // Our own host is not held up by it.
    events.sink().emit(numbered(0)).unwrap();
    assert_eq!(events.shutdown(DEADLINE).await.left, 0);
    pump.abort();
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_rooms_come_in_pages_and_by_state() {
    let directory = tempfile::tempdir().unwrap();
    let events = embedded(directory.path()).await;
    let manager = manager_in(directory.path(), events.broker_access()).await;
    let sink = events.sink();
    for number in 0..250 {
        let room = format!("r-{number}");
        let room = Some(room.as_str());
        let now = SystemTime::now();
        let module = ModuleRef { hash: "00".to_owned(), name: "m".to_owned(), version: "1".to_owned() };
        let opened = RoomOpened { module, seed: number, options: Value::Null, players: Vec::new() };
        sink.emit(opened.event(Some("m"), room, now)).unwrap();
        if number % 5 > 0 {
            sink.emit(RoomStarted { frame: 0 }.event(Some("m"), room, now)).unwrap();
        }
        match number % 5 {
            2 => {
                let finished =
                    RoomFinished { frames: 1, results: Vec::new(), counters: Value::Null, players: Value::Null };
                sink.emit(finished.event(Some("m"), room, now)).unwrap();
            }
            3 => {
                let (counters, players) = (Value::Null, Value::Null);
                let aborted = RoomAborted { reason: "the module trapped".to_owned(), frames: 1, counters, players };
                sink.emit(aborted.event(Some("m"), room, now)).unwrap();
                sink.emit(RoomClosed {}.event(Some("m"), room, now)).unwrap();
            }
            4 => sink.emit(RoomClosed {}.event(Some("m"), room, now)).unwrap(),
            _ => {}
        }
    }
    assert_eq!(events.shutdown(DEADLINE).await.left, 0);
    let records = manager.records();
    manager.shutdown().await;

    let first = records.rooms(&RoomsPage::default()).unwrap();
    assert_eq!(first.len(), 200);
    assert_eq!(first[0].room, "r-249");
    let after = RoomsPage { after: Some(first[199].room.clone()), limit: Some(10_000), state: None };
    let second = records.rooms(&after).unwrap();
    assert_eq!(second.len(), 50);
    assert_eq!((second[0].room.as_str(), second[49].room.as_str()), ("r-49", "r-0"));
    for (remainder, state) in
        [RoomState::Open, RoomState::Running, RoomState::Finished, RoomState::Aborted, RoomState::Closed]
            .into_iter()
            .enumerate()
    {
        let page = RoomsPage { state: Some(state), ..RoomsPage::default() };
        let rooms = records.rooms(&page).unwrap();
        assert_eq!(rooms.len(), 50, "{state:?}");
        for room in rooms {
            assert_eq!(room.state, state);
            let number: usize = room.room.trim_start_matches("r-").parse().unwrap();
            assert_eq!(number % 5, remainder);
        }
    }
    let nobody = RoomsPage { after: Some("nobody".to_owned()), ..RoomsPage::default() };
    assert!(records.rooms(&nobody).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_data_that_is_accepted_is_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let records_directory = tempfile::tempdir().unwrap();
    let events = embedded(directory.path()).await;
    let manager = manager_in(records_directory.path(), &events.broker_access().clone()).await;
    let data = json!("x".repeat(super::outbox::DATA_MAX_BYTES - 2));
    events.sink().emit(InternalEvent { data: data.clone(), ..numbered(0) }).unwrap();
    emit(&events.sink(), numbered(1)).await;
    until("both are recorded", || all(&manager.records()).len() == 2 && events.stats().queued == 0).await;
    assert_eq!((&all(&manager.records())[0].event["data"], events.stats().set_aside), (&data, 0));
    manager.shutdown().await;
    events.shutdown(DEADLINE).await;
    events.stop_broker().await;
}

#[tokio::test]
async fn an_event_that_cannot_be_is_refused_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let events = embedded(directory.path()).await;
    let sink = events.sink();
    let wrong = [
        InternalEvent { kind: "Room Finished".to_owned(), ..numbered(0) },
        InternalEvent { kind: "a/b".to_owned(), ..numbered(0) },
        InternalEvent { module: Some("#".to_owned()), ..numbered(0) },
        InternalEvent { room: Some("a b".to_owned()), ..numbered(0) },
        InternalEvent { data: json!("x".repeat(super::outbox::DATA_MAX_BYTES)), ..numbered(0) },
    ];
    for event in wrong {
        println!("{}", sink.emit(event).unwrap_err());
    }
    assert_eq!(events.stats().queued, 0);

    let config = |host_id: &str| EventsConfig {
        host_id: host_id.to_owned(),
        data_dir: directory.path().to_owned(),
        broker: BrokerConfig::Embedded { listen: ANY_PORT },
        outbox: Limits::default(),
    };
    for host_id in ["", "all", "Pit", "a/b", "+"] {
        let error = Events::start(config(host_id)).await.unwrap_err();
        assert_eq!(error, EventsError::HostId(host_id.to_owned()));
    }
    let error = Events::start(config("second")).await.unwrap_err();
    assert!(error.to_string().contains("another host uses"), "{error}");
    let taken: SocketAddr = events.broker_address().parse().unwrap();
    let error = Broker::start(taken).unwrap_err();
    assert!(error.to_string().contains("cannot listen on"), "{error}");
}
