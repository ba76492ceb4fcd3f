//! The messages of real rooms, as a foreign client hears them over MQTT 5, against the document that the host serves at `/asyncapi.json`: each
//! comes on a channel of the document, and has the attributes and fields that are described there, no more and no fewer.

use std::collections::{BTreeMap, BTreeSet};

use holeshot::api::Api;
use holeshot::bots::{self, Bot};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::{Host, SOON, run};
use crate::modules_made::Tally;
use crate::peer::Peer;

const GAME: &str = "tally-told";

/// Whether `value` is what `schema` says. The keywords are those that the document uses. Beyond JSON Schema, a field that an object's schema
/// does not describe is wrong, unless the schema describes none or has `additionalProperties`.
fn conforms(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let parts = flattened(document, schema);
    let mut described = BTreeSet::new();
    let mut is_open = false;
    for part in &parts {
        for keyword in part.as_object().ok_or("a schema is no object")?.keys() {
            let known = [
                "type",
                "description",
                "required",
                "properties",
                "items",
                "const",
                "enum",
                "minimum",
                "pattern",
                "format",
                "additionalProperties",
                "$ref",
                "allOf",
            ];
            if !known.contains(&keyword.as_str()) {
                return Err(format!("{at}: this test does not know the keyword {keyword}"));
            }
        }
        if let Some(expected) = part.get("const")
            && expected != value
        {
            return Err(format!("{at}: {value} is not {expected}"));
        }
        if let Some(all) = part.get("enum").and_then(Value::as_array)
            && !all.contains(value)
        {
            return Err(format!("{at}: {value} is none of {all:?}"));
        }
        if let Some(types) = part.get("type") {
            let types: Vec<&str> = match types {
                Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
                one => one.as_str().into_iter().collect(),
            };
            let found = match value {
                Value::Null => "null",
                Value::Bool(_) => "boolean",
                Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
                Value::Number(_) => "number",
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            };
            if !(types.contains(&found) || found == "integer" && types.contains(&"number")) {
                return Err(format!("{at}: {value} is no {types:?}"));
            }
        }
        if let Some(least) = part.get("minimum").and_then(Value::as_f64)
            && value.as_f64().is_some_and(|number| number < least)
        {
            return Err(format!("{at}: {value} is less than {least}"));
        }
        for required in part.get("required").and_then(Value::as_array).into_iter().flatten() {
            if value.get(required.as_str().unwrap_or_default()).is_none() {
                return Err(format!("{at}: {required} is missing in {value}"));
            }
        }
        if let Some(items) = part.get("items") {
            for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                conforms(document, items, item, &format!("{at}[{number}]"))?;
            }
        }
        is_open |= part.get("additionalProperties") == Some(&json!(true));
        if let Some(properties) = part.get("properties").and_then(Value::as_object) {
            for (name, of_field) in properties {
                described.insert(name.as_str());
                if let Some(field) = value.get(name) {
                    conforms(document, of_field, field, &format!("{at}.{name}"))?;
                }
            }
        }
    }
    let describes = parts.iter().any(|part| part.get("properties").is_some());
    if describes && !is_open {
        for field in value.as_object().into_iter().flat_map(|object| object.keys()) {
            if !described.contains(field.as_str()) {
                return Err(format!("{at}: the field {field} is described nowhere: {value}"));
            }
        }
    }
    Ok(())
}

/// A schema with what it refers to.
fn flattened<'a>(document: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let mut parts = vec![schema];
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let target =
            document.pointer(target.trim_start_matches('#')).unwrap_or_else(|| panic!("{target} leads nowhere"));
        parts.extend(flattened(document, target));
    }
    for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        parts.extend(flattened(document, part));
    }
    parts
}

/// Whether a topic is one of an address with parameters.
fn is_at(topic: &str, address: &str) -> bool {
    let (topic, address): (Vec<_>, Vec<_>) = (topic.split('/').collect(), address.split('/').collect());
    topic.len() == address.len()
        && topic.iter().zip(address).all(|(level, named)| *level == named || named.starts_with('{') && *level != "all")
}

/// The name of the one message of the document that this is.
fn message_of(document: &Value, topic: &str, payload: &Value) -> Result<String, String> {
    let channels = document["channels"].as_object().unwrap();
    // The channel that names more of its levels is the right one: `events/host` is no module.
    let channel = channels
        .values()
        .filter(|channel| is_at(topic, channel["address"].as_str().unwrap()))
        .min_by_key(|channel| channel["address"].as_str().unwrap().matches('{').count())
        .ok_or_else(|| format!("{topic} is no channel of the document"))?;
    let mut problems = Vec::new();
    for name in channel["messages"].as_object().unwrap().keys() {
        let message = &document["components"]["messages"][name];
        match conforms(document, &message["payload"], payload, name) {
            Ok(()) => return Ok(name.clone()),
            Err(problem) => problems.push(problem),
        }
    }
    // The message that it means to be, if it says so, is the one whose problem is of interest.
    let kind = payload["type"].as_str().unwrap_or_default().trim_start_matches("holeshot.").to_owned();
    problems.sort_by_key(|problem| !problem.starts_with(&kind));
    Err(format!("on {topic}: {problems:#?}"))
}

struct Foreign {
    events: EventLoop,
    _client: AsyncClient,
    heard: Vec<(String, Value, Option<String>)>,
}

impl Foreign {
    async fn follow(host: &Host) -> Self {
        let (address, port) = host.server().addresses().mqtt.rsplit_once(':').unwrap();
        let mut options = MqttOptions::new("foreign", address, port.parse().unwrap());
        options.set_max_packet_size(Some(1 << 20));
        let (client, mut events) = AsyncClient::new(options, 8);
        client.subscribe("holeshot/v1/#", QoS::AtLeastOnce).await.unwrap();
        loop {
            if let Event::Incoming(Packet::SubAck(_)) = timeout(SOON, events.poll()).await.unwrap().unwrap() {
                return Self { events, _client: client, heard: Vec::new() };
            }
        }
    }

    /// Hears until the host says that it is gone, or its broker is.
    async fn until_the_end(&mut self) {
        while let Ok(event) = self.events.poll().await {
            if let Event::Incoming(Packet::Publish(publish)) = event {
                let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                let payload: Value = serde_json::from_slice(&publish.payload).unwrap();
                let is_end = topic.ends_with("/status") && payload["state"] == "offline";
                self.heard.push((topic, payload, publish.properties.and_then(|properties| properties.content_type)));
                if is_end {
                    return;
                }
            }
        }
    }
}

/// A race of two bots, who drive it over datagrams and over the WebSocket.
async fn race(host: &Host) {
    let api = Api::new(&host.server().url()).unwrap();
    let bot = |name: &str, seed, with_udp| Bot { name: name.into(), car: "gtr".into(), skill: 0.7, seed, with_udp };
    let (ada, ben) = (bot("Ada", 1, true), bot("Ben", 2, false));
    let players = [&ada, &ben].map(|bot| json!({ "name": bot.name, "data": { "car": bot.car } }));
    let mut players = players;
    players[0]["data"]["car"] = json!("mx5");
    let room = host.open_room(&json!({ "players": players, "options": { "tree": "pro" }, "seed": 3 })).await;
    // Ada's ticket brings another car. Her driver comes with a newer one.
    let brings = json!({ "player": "Ada", "data": { "car": "gtr" } });
    let (status, grant) = host.post(&format!("/api/rooms/{room}/join"), &brings).await;
    assert_eq!(status, 200, "{grant}");
    Peer::enter(&serde_json::from_value(grant).unwrap()).await.confirm().await;
    let (of_ada, of_ben) = tokio::join!(bots::play(&api, &room, &ada, None), bots::play(&api, &room, &ben, None));
    assert_eq!((of_ada.unwrap().ending, of_ben.unwrap().ending), ("finished".into(), "finished".into()));
}

/// A game whose rules are replaced for good, replaced and undone, and not replaced; then it is broken off.
async fn swaps(host: &Host) {
    let game = || Tally::new(GAME, 100_000);
    let room = host.open(GAME, &["Cleo", "Dan"]).await;
    let mut cleo = Peer::enter(&host.join(&room, "Cleo").await).await;
    let mut dan = Peer::enter(&host.join(&room, "Dan").await).await;
    cleo.ready().await;
    dan.ready().await;
    cleo.frame(5).await;
    let kept = game().at_frame(0, "(drop (i32.const 7))").wasm();
    assert_eq!(host.put_module(GAME, &room, kept).await.0, 200);
    cleo.event("rules_swapped").await;
    // The probation of the first is over before the second comes.
    let since = *cleo.snapshot_frames.last().unwrap();
    cleo.frame(since + 170).await;
    let fails = game().after_ticks(100, "(unreachable)").wasm();
    assert_eq!(host.put_module(GAME, &room, fails).await.0, 200);
    cleo.event("rules_rolled_back").await;
    let faster = Tally { manifest: ",\"tick_hz\":100".into(), ..game() }.wasm();
    assert_eq!(host.put_module(GAME, &room, faster).await.0, 409);
    // Dan drops out, and Cleo is left alone with it.
    dan.say(&holeshot_wire::ClientMessage::Leave).await;
    cleo.event("player_left").await;
}

#[test]
fn every_message_of_real_rooms_is_as_the_document_says() {
    run(120, async {
        let host = Host::start_with_modules(&[Tally::new(GAME, 100_000).wasm()], |settings| {
            settings.linger_s = Some(1);
        })
        .await;
        let (status, document) = host.get("/asyncapi.json").await;
        assert_eq!((status, &document["asyncapi"]), (200, &json!("3.0.0")));
        let mut foreign = Foreign::follow(&host).await;
        let told = async {
            tokio::join!(race(&host), swaps(&host));
            host.stop().await
        };
        let (_dir, ()) = tokio::join!(told, foreign.until_the_end());

        let mut heard: BTreeMap<String, u32> = BTreeMap::new();
        for (topic, payload, content_type) in &foreign.heard {
            let name = message_of(&document, topic, payload).unwrap_or_else(|problem| panic!("{problem}"));
            let described = &document["components"]["messages"][&name]["contentType"];
            assert_eq!(content_type.as_deref(), described.as_str(), "{name}");
            if payload.get("specversion").is_some() {
                let level = payload["module"].as_str().unwrap_or("host");
                let kind = payload["type"].as_str().unwrap().trim_start_matches("holeshot.");
                assert!(topic.ends_with(&format!("/events/{level}/{kind}")), "{topic}");
            }
            *heard.entry(name).or_default() += 1;
        }
        println!("{} messages: {heard:?}", foreign.heard.len());
        for name in [
            "status",
            "stored",
            "host.stopping",
            "room.opened",
            "player.joined",
            "player.left",
            "player.data_changed",
            "room.started",
            "room.rules_swapped",
            "room.rules_kept",
            "room.rules_rolled_back",
            "module.swap_refused",
            "room.finished",
            "room.aborted",
            "room.closed",
            "room.journal_closed",
        ] {
            assert!(heard.contains_key(name), "no {name} was heard: {heard:?}");
        }
    });
}

#[test]
fn the_examples_are_as_the_document_says_and_what_is_not_is_noticed() {
    let document: Value = serde_json::from_str(holeshot::events::asyncapi::DOCUMENT).unwrap();
    let messages = document["components"]["messages"].as_object().unwrap();
    for (name, message) in messages {
        for example in message["examples"].as_array().unwrap() {
            conforms(&document, &message["payload"], &example["payload"], name)
                .unwrap_or_else(|problem| panic!("{problem}"));
        }
    }
    let finished = &messages["room.finished"];
    let good = &finished["examples"][0]["payload"];
    let change = |pointer: &str, value: Value| {
        let mut changed = good.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[field] = value;
        changed
    };
    let without = |field: &str| {
        let mut changed = good.clone();
        changed.as_object_mut().unwrap().remove(field).unwrap();
        changed
    };
    for wrong in [
        change("/data/winner", json!("Ada")),
        change("/more", json!(1)),
        change("/specversion", json!("0.3")),
        change("/data/frames", json!("many")),
        change("/data/frames", json!(-1)),
        change("/data/results/0/place", json!(1.5)),
        change("/data/counters/ticks", Value::Null),
        change("/type", json!("holeshot.room.closed")),
        without("room"),
        without("dataschema"),
        without("data"),
    ] {
        assert!(conforms(&document, &finished["payload"], &wrong, "changed").is_err(), "{wrong}");
    }
    assert!(message_of(&document, "holeshot/v1/pit/elsewhere", good).is_err());
    assert!(message_of(&document, "holeshot/v1/pit/events/host/room.finished", good).is_err());
}
