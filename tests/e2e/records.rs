//! Records that people ask for: real races from the start to leaderboards, personal bests and head-to-head, as JSON and as CSV; the live feed while
//! they run; rules replaced in the match; and questions that are refused. Answers over thousands of random results are compared with a plain
//! computation in `host/src/manager/records/tests.rs`.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use holeshot::api::Api;
use holeshot::bots::{self, Bot};
use holeshot::rules::ModuleHash;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::command::output;
use crate::harness::{Host, SOON, eventually, run};
use crate::modules_made::Tally;
use crate::peer::Peer;

/// A name that spreadsheets, addresses and SQL take for something else.
const ODD: &str = "=1+1 \"Zoë\"; DROP TABLE results; -- %2F/?&#";

/// A text as it stands in an address.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

// ---- the live feed ----

/// A client of the feed, which knows what it has heard.
struct Follower {
    body: futures_util::stream::BoxStream<'static, reqwest::Result<Vec<u8>>>,
    text: String,
    events: Vec<Value>,
    heartbeats: usize,
}

impl Follower {
    async fn start(host: &Host, query: &str, last: Option<i64>) -> Self {
        // Without a limit of time: the answer has no end.
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client.get(host.url(&format!("/api/events/stream{query}")));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let body = response.bytes_stream().map(|chunk| chunk.map(|bytes| bytes.to_vec())).boxed();
        Self { body, text: String::new(), events: Vec::new(), heartbeats: 0 }
    }

    /// The next piece; false at the end.
    async fn hear(&mut self) -> bool {
        let Some(chunk) = self.body.next().await else { return false };
        self.text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        while let Some((block, rest)) = self.text.split_once("\n\n") {
            let data = block.lines().find_map(|line| line.strip_prefix("data: "));
            match data {
                Some(data) => {
                    let event: Value = serde_json::from_str(data).unwrap();
                    assert!(block.starts_with(&format!("id: {}\n", event["id"])), "{block}");
                    self.events.push(event);
                }
                None => self.heartbeats += usize::from(block == ":"),
            }
            self.text = rest.to_owned();
        }
        true
    }

    async fn hear_until(&mut self, what: &str, wished: impl Fn(&[Value]) -> bool) {
        let heard = async {
            while !wished(&self.events) {
                assert!(self.hear().await, "the stream ended before {what}");
            }
        };
        timeout(SOON, heard).await.unwrap_or_else(|_| panic!("{what} did not come"));
    }

    fn ids(&self) -> Vec<i64> {
        self.events.iter().map(|event| event["id"].as_i64().unwrap()).collect()
    }
}

async fn csv_of(host: &Host, path: &str) -> Vec<csv::StringRecord> {
    let response = host.http().get(host.url(path)).header("accept", "text/csv").send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/csv"), "{path}");
    let text = response.text().await.unwrap();
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    reader.records().collect::<Result<_, _>>().unwrap()
}

async fn ok(host: &Host, path: &str) -> Value {
    let (status, body) = host.get(path).await;
    assert_eq!(status, 200, "{path}: {body}");
    body
}

#[test]
fn races_become_lists_that_can_be_asked_for() {
    run(120, async {
        let host = Host::start_with(|settings| settings.linger_s = Some(0)).await;
        let api = Api::new(&host.server().url()).unwrap();
        let mut all = Follower::start(&host, "?after=0", None).await;
        let mut finishes = Follower::start(&host, "?kind=room.fin", None).await;

        // Two races at the same time: Ada in both.
        let bot =
            |name: &str, car: &str, seed| Bot { name: name.into(), car: car.into(), skill: 1.0, seed, with_udp: true };
        let races = [[bot("Ada", "gtr", 11), bot("Ben", "gtr", 12)], [bot("Ada", "hellcat", 13), bot(ODD, "mx5", 14)]];
        let mut rooms = Vec::new();
        for race in &races {
            let players: Vec<_> =
                race.iter().map(|bot| json!({ "name": bot.name, "data": { "car": bot.car, "crew": "red" } })).collect();
            rooms.push(host.open_room(&json!({ "players": players, "options": { "tree": "pro" }, "seed": 3 })).await);
        }
        let [first, second] = &races;
        let (a, b, c, d) = tokio::join!(
            bots::play(&api, &rooms[0], &first[0], None),
            bots::play(&api, &rooms[0], &first[1], None),
            bots::play(&api, &rooms[1], &second[0], None),
            bots::play(&api, &rooms[1], &second[1], None),
        );
        for report in [a, b, c, d] {
            assert_eq!(report.unwrap().ending, "finished");
        }
        let mut records = Vec::new();
        for room in &rooms {
            records.push(host.recorded(room, "is closed", |record| !record["closed_at"].is_null()).await);
        }
        // What each got, as the room's record has it.
        let result = |race: usize, slot: usize| -> Value {
            let results = records[race]["results"].as_array().unwrap();
            results.iter().find(|result| result["player"] == slot).unwrap().clone()
        };
        let hash = records[0]["module_hash"].as_str().unwrap();

        // Results: by player, by what the player brought, by what came of it, by day, in pages.
        let of_ada = ok(&host, "/api/results?player=Ada").await;
        let listed: BTreeSet<&str> =
            of_ada["results"].as_array().unwrap().iter().map(|row| row["room"].as_str().unwrap()).collect();
        assert_eq!(listed, rooms.iter().map(String::as_str).collect());
        let odd = ok(&host, &format!("/api/results?player={}", encoded(ODD))).await;
        let row = &odd["results"][0];
        assert_eq!((&row["name"], &row["data"]), (&json!(ODD), &result(1, 1)["data"]));
        assert_eq!((&row["hash"], &row["mixed"], &row["module"]), (&json!(hash), &json!(false), &json!("drag-race")));
        let day = row["ended_at"].as_str().unwrap()[..10].to_owned();
        for (query, count) in [
            ("data.crew=red".to_owned(), 4),
            ("data.car=gtr".to_owned(), 2),
            ("data.car=mx5&data.crew=red&module=drag-race".to_owned(), 1),
            (format!("hash={hash}&from={day}"), 4),
            (format!("room={}&limit=1", rooms[0]), 1),
            ("data.car=boat".to_owned(), 0),
            ("to=2020-01-01".to_owned(), 0),
            ("day=2020-01-01".to_owned(), 0),
            (format!("player={}", encoded("Ada' OR '1'='1")), 0),
        ] {
            let body = ok(&host, &format!("/api/results?{query}")).await;
            assert_eq!(body["results"].as_array().unwrap().len(), count, "{query}: {body}");
        }
        let (mut paged, mut path) = (Vec::new(), "/api/results?limit=1&format=json".to_owned());
        loop {
            let response = host.http().get(host.url(&path)).send().await.unwrap();
            let link = response.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
            let body: Value = response.json().await.unwrap();
            assert_eq!(link.is_some(), !body["next"].is_null());
            paged.extend(body["results"].as_array().unwrap().clone());
            let Some(link) = link else { break };
            path = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
        }
        let whole = ok(&host, "/api/results").await;
        assert_eq!(json!(paged), whole["results"]);
        assert_eq!(paged.len(), 4);

        // The leaderboard of each class has the best fair time of each driver.
        let boards = ok(&host, "/api/leaderboards?module=drag-race").await;
        let board = &boards["leaderboards"][0];
        assert_eq!(
            (&board["board"], &board["newest"], &board["hash"]),
            (&json!("elapsed-time"), &json!(true), &json!(hash))
        );
        assert_eq!(board["group_by"], json!(["class", "distance_m"]));
        for (class, of) in [("12.0", vec![(0, 0), (0, 1), (1, 0)]), ("15.0", vec![(1, 1)])] {
            let mut expected: Vec<(f64, String, String)> = of
                .iter()
                .filter_map(|(race, slot)| {
                    let data = &result(*race, *slot)["data"];
                    assert_eq!((&data["class"], &data["distance_m"]), (&json!(class), &json!(402.336)));
                    assert_eq!(data["elapsed_s"].is_null(), data["red_light"].as_bool().unwrap());
                    Some((data["elapsed_s"].as_f64()?, races[*race][*slot].name.clone(), rooms[*race].clone()))
                })
                .collect();
            expected.sort_by(|a, b| a.partial_cmp(b).unwrap());
            // Only the better one of the two by the same driver.
            let mut seen = BTreeSet::new();
            expected.retain(|(_, name, _)| seen.insert(name.clone()));
            let path = format!("/api/leaderboards/drag-race/elapsed-time?group.class={class}&group.distance_m=402.336");
            let body = ok(&host, &path).await;
            let entries: Vec<_> = body["entries"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| {
                    let text = |field: &str| entry[field].as_str().unwrap().to_owned();
                    (entry["score"].as_f64().unwrap(), text("name"), text("room"))
                })
                .collect();
            assert_eq!(entries, expected, "{class}");
            assert_eq!(body["group"], json!({ "class": class, "distance_m": 402.336 }));
            let table = csv_of(&host, &path).await;
            assert_eq!(table[0].iter().collect::<Vec<_>>()[..3], ["place", "name", "score"]);
            for (row, (score, name, _)) in table[1..].iter().zip(&expected) {
                let shown = if name == ODD { format!("'{name}") } else { name.clone() };
                assert_eq!((&row[1], row[2].parse::<f64>().unwrap()), (shown.as_str(), *score));
            }
            assert_eq!(table.len(), expected.len() + 1);
            let old = host.get(&format!("{path}&hash={}", "0".repeat(64))).await;
            assert_eq!((old.0, &old.1["error"]["code"]), (404, &json!("unknown_module")));
        }
        let bests = ok(&host, "/api/players/Ada/bests").await;
        let best = |race| result(race, 0)["data"]["elapsed_s"].as_f64();
        let expected: Option<f64> = best(0).into_iter().chain(best(1)).reduce(f64::min);
        assert_eq!(bests["bests"].as_array().unwrap().first().map(|best| best["score"].as_f64().unwrap()), expected);

        // Players, and two of them.
        let ada = ok(&host, "/api/players/Ada").await;
        let wins = (0..2).filter(|race| result(*race, 0)["place"] == 1).count();
        assert_eq!((&ada["rooms"], &ada["finished"], &ada["wins"]), (&json!(2), &json!(2), &json!(wins)));
        assert!(ada["first_seen_at"].as_str() < ada["last_seen_at"].as_str(), "{ada}");
        assert_eq!(ok(&host, &format!("/api/players/{}", encoded(ODD))).await["name"], ODD);
        let versus = ok(&host, "/api/versus?player=Ben&player=Ada").await;
        assert_eq!((&versus["finished"], &versus["complete"]), (&json!(1), &json!(true)));
        assert_eq!(versus["rooms"][0]["places"], json!([result(0, 1)["place"], result(0, 0)["place"]]));
        let table = csv_of(&host, &format!("/api/versus?player=Ada&player={}&limit=9", encoded(ODD))).await;
        assert_eq!((table.len(), &table[1][0]), (2, rooms[1].as_str()));
        let table = csv_of(&host, "/api/results").await;
        assert!(table[1..].iter().all(|row| row[10].starts_with('{')), "{table:?}");

        // The command says the same, and says why where it cannot.
        let url = host.server().url();
        let said = async |args: &[&str]| {
            let output = output(&[&["records"], args, &["--url", &url]].concat()).await;
            (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
        };
        let (code, text, _) = said(&["results", "--limit", "3", "--json"]).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((code, &answer["results"]), (Some(0), &json!(whole["results"].as_array().unwrap()[..3])));
        let (code, text, _) = said(&["results", "--player", ODD, "--csv"]).await;
        assert_eq!((code, text.lines().count()), (Some(0), 2), "{text}");
        let (code, text, _) = said(&["versus", "Ada", "Ben"]).await;
        assert!(code == Some(0) && text.contains("of 1 rooms") && text.contains(&rooms[0]), "{text}");
        let (code, _, error) = said(&["bests", "Nobody"]).await;
        assert!(code == Some(1) && error.contains("no room on record had a player"), "{error}");
        let (code, _, error) = said(&["leaderboard", "drag-race", "elapsed-time"]).await;
        assert!(code == Some(1) && error.contains("group.class=…"), "{error}");

        // The feed has said all of it, once and in order; and says it again from wherever one was.
        all.hear_until("both ends", |events| events.iter().filter(|event| event["kind"] == "room.closed").count() == 2)
            .await;
        let pages = ok(&host, "/api/events?limit=200").await;
        let recorded = pages["events"].as_array().unwrap();
        assert_eq!(all.events, recorded[..all.events.len()]);
        finishes.hear_until("both finishes", |events| events.len() == 2).await;
        assert!(finishes.events.iter().all(|event| event["kind"] == "room.finished"));
        let middle = all.ids()[all.events.len() / 2];
        let mut again = Follower::start(&host, "?after=0", Some(middle)).await;
        let last = *all.ids().last().unwrap();
        again
            .hear_until("the rest", |events| events.last().is_some_and(|event| event["id"].as_i64() >= Some(last)))
            .await;
        let expected: Vec<i64> =
            recorded.iter().map(|event| event["id"].as_i64().unwrap()).filter(|id| *id > middle).collect();
        assert_eq!(again.ids(), expected[..again.events.len()]);
        let of_room = format!("?after=0&room={}&kind=player.", rooms[0]);
        let mut of_room = Follower::start(&host, &of_room, None).await;
        of_room.hear_until("the joins", |events| events.len() >= 2).await;
        assert!(of_room.events.iter().all(|event| event["room"] == rooms[0].as_str()), "{:?}", of_room.events);

        // A stop ends the feed, and the feed does not hold up the stop.
        let begun = std::time::Instant::now();
        let (_dir, ()) = tokio::join!(host.stop(), async {
            for mut follower in [all, finishes, again, of_room] {
                while follower.hear().await {}
            }
        });
        println!("stopped with four streams open in {:?}", begun.elapsed());
        assert!(begun.elapsed() < SOON);
    });
}

#[test]
fn the_feed_is_bounded_and_outlives_every_limit_of_a_request() {
    run(60, async {
        let host = Host::start_with(|settings| settings.streams_max = Some(2)).await;
        let mut first = Follower::start(&host, "", None).await;
        let second = Follower::start(&host, "", None).await;
        let (status, body) = host.get("/api/events/stream").await;
        assert_eq!((status, &body["error"]["code"]), (503, &json!("full")), "{body}");
        assert!(body["error"]["message"].as_str().unwrap().contains("streams_max"), "{body}");
        drop(second);
        eventually("a place is free again", SOON, async || {
            let response = host.http().get(host.url("/api/events/stream")).send().await.unwrap();
            if response.status() == 200 { Ok(()) } else { Err(response.status().to_string()) }
        })
        .await;
        // Two heartbeats: half a minute, which is all that a request has to be answered.
        let heard = async {
            while first.heartbeats < 2 {
                assert!(first.hear().await, "the stream ended");
            }
        };
        timeout(2 * SOON, heard).await.expect("a heartbeat every 15 s");
        for (query, words) in
            [("?after=x", "accepted: the id"), ("?kinds=room.", "`kinds`"), ("?room=a&room=b", "2 times")]
        {
            let (status, body) = host.get(&format!("/api/events/stream{query}")).await;
            assert_eq!(status, 400, "{body}");
            assert!(body["error"]["message"].as_str().unwrap().contains(words), "{body}");
        }
        host.stop().await;
    });
}

#[test]
fn a_match_under_two_rules_is_on_record_as_mixed() {
    run(60, async {
        const GAME: &str = "tally-mixed";
        let first = Tally::new(GAME, 300).wasm();
        let second = Tally::new(GAME, 301).wasm();
        let host = Host::start_with_modules(&[first], |settings| settings.linger_s = Some(0)).await;
        let room = host.open(GAME, &["Ada"]).await;
        let mut ada = Peer::enter(&host.join(&room, "Ada").await).await;
        ada.ready().await;
        ada.frame(5).await;
        let (status, report) = host.put_module(GAME, &room, second.clone()).await;
        assert_eq!((status, &report["swapped"]), (200, &json!(1)), "{report}");
        ada.event("finished").await;
        host.ended(&room).await;
        let body = ok(&host, &format!("/api/results?room={room}")).await;
        let row = &body["results"][0];
        assert_eq!(
            (&row["mixed"], &row["hash"]),
            (&json!(true), &json!(ModuleHash::of(&second).to_string())),
            "{body}"
        );
        let record = host.ended(&room).await;
        assert_eq!(record["results"][0]["mixed"], true, "{record}");
        host.stop().await;
    });
}

#[test]
fn a_question_that_cannot_be_answered_says_why() {
    run(60, async {
        let host = Host::start().await;
        let long = "x".repeat(300);
        let board = "/api/leaderboards/drag-race/elapsed-time";
        for (path, status, code, words) in [
            ("/api/results?plyer=Ada".to_owned(), 400, "bad_request", "`plyer`"),
            (format!("/api/results?player={long}"), 400, "bad_request", "300 bytes"),
            ("/api/results?player=%ff".into(), 400, "bad_request", "UTF-8"),
            ("/api/results?player=a&player=b".into(), 400, "bad_request", "2 times"),
            ("/api/results?limit=201".into(), 400, "bad_request", "1 to 200"),
            ("/api/results?limit=-1".into(), 400, "bad_request", "limit"),
            ("/api/results?day=2026-02-30".into(), 400, "bad_request", "2026-11-21"),
            ("/api/results?day=yesterday".into(), 400, "bad_request", "2026-11-21"),
            ("/api/results?day=2026-11-21&to=2026-11-22".into(), 400, "bad_request", "either"),
            ("/api/results?from=2026-11-21T18:00:00%2B01:00".into(), 400, "bad_request", "UTC"),
            ("/api/results?after=WzEsMl0".into(), 400, "bad_request", "next"),
            ("/api/results?data.=1".into(), 400, "bad_request", "no field"),
            ("/api/results?data.a=1&data.b=1&data.c=1&data.d=1&data.e=1".into(), 400, "bad_request", "up to 4"),
            ("/api/results?format=xml".into(), 400, "bad_request", "csv"),
            (format!("/api/results?{}", "a=b&".repeat(4_500)), 414, "bad_request", "bytes"),
            ("/api/players/Nobody".into(), 404, "unknown_player", "Nobody"),
            ("/api/players/Nobody/bests".into(), 404, "unknown_player", "Nobody"),
            (format!("/api/players/{long}"), 400, "bad_request", "300 bytes"),
            ("/api/players/%ff".into(), 400, "bad_request", ""),
            ("/api/players/..%2f..%2fetc".into(), 404, "unknown_player", "../../etc"),
            ("/api/players/Ada?limit=1".into(), 400, "bad_request", "`limit`"),
            ("/api/versus".into(), 400, "bad_request", "twice"),
            ("/api/versus?player=a".into(), 400, "bad_request", "twice"),
            ("/api/versus?player=a&player=a".into(), 400, "bad_request", "two players"),
            ("/api/versus?player=a&player=b&player=c".into(), 400, "bad_request", "twice"),
            ("/api/versus?player=a&player=b".into(), 404, "unknown_player", "\"a\""),
            ("/api/leaderboards?name=x".into(), 400, "bad_request", "`module`"),
            ("/api/leaderboards/chess/elo".into(), 404, "unknown_module", "chess"),
            ("/api/leaderboards/drag-race/speed".into(), 404, "unknown_leaderboard", "elapsed-time"),
            (board.into(), 400, "bad_request", "group.class=…&group.distance_m=…"),
            (format!("{board}?group.class=12.0"), 400, "bad_request", "group.distance_m"),
            (format!("{board}?group.class=12.0&group.distance=1"), 400, "bad_request", "group.distance_m"),
            (format!("{board}?class=12.0"), 400, "bad_request", "`class`"),
        ] {
            // The host has loaded its module, and the manager has heard of it.
            let what = path.get(..80).unwrap_or(&path).to_owned();
            eventually(&what, SOON, async || {
                let (found, body) = host.get(&path).await;
                let message = body["error"]["message"].as_str().unwrap_or_default();
                let is_so = found == status && body["error"]["code"] == code && message.contains(words);
                if is_so { Ok(()) } else { Err(format!("{found} {body}")) }
            })
            .await;
        }
        let empty = ok(&host, &format!("{board}?group.class=12.0&group.distance_m=402.336")).await;
        assert_eq!((&empty["entries"], &empty["next"]), (&json!([]), &Value::Null));
        assert_eq!(ok(&host, "/api/results").await, json!({ "results": [], "next": null }));
        host.stop().await;
    });
}
