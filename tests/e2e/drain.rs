//! A host that is told to stop while games run: real processes and signals. What is asked of each part of the drain is one test.

use std::path::Path;
use std::time::Duration;

use holeshot_wire::{ByeCode, ClientMessage};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use crate::command::{FREE_PORTS, LONG, Served, holeshot, text};
use crate::harness::{Grant, SOON, client, data_dir, eventually, kinds, open_records, run, unheard};
use crate::modules_made::Tally;
use crate::peer::Peer;

/// A game of some seconds: long enough for what a test does meanwhile.
const SOME: &str = "tally-some";
/// Its frames, at 50 in a second.
const SOME_FRAMES: u32 = 200;

/// A host with the game of some seconds and the one that is longer than any test.
async fn serve(dir: &Path, more: &[&str]) -> Served {
    let module = dir.join("some.wasm");
    std::fs::write(&module, Tally::new(SOME, SOME_FRAMES).wasm()).unwrap();
    Served::start_with_games(dir, &[&["--module", module.to_str().unwrap()][..], more].concat()).await
}

async fn open(served: &Served, module: &str, names: &[&str]) -> String {
    let players: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
    let created = served.request("/api/rooms", Some(json!({ "module": module, "players": players }))).await;
    created["room"].as_str().unwrap().to_owned()
}

async fn join(served: &Served, room: &str, name: &str) -> Grant {
    let grant = served.request(&format!("/api/rooms/{room}/join"), Some(json!({ "player": name }))).await;
    serde_json::from_value(grant).unwrap()
}

/// A room whose game runs, its one player, and what the player came with.
async fn playing(served: &Served, module: &str) -> (String, Peer, Grant) {
    let room = open(served, module, &["Ada"]).await;
    let grant = join(served, &room, "Ada").await;
    let mut ada = Peer::enter(&grant).await;
    ada.say(&ClientMessage::Ready).await;
    ada.event("started").await;
    (room, ada, grant)
}

/// Status and error of an answer that is none of success.
async fn refused(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json::<Value>().await.unwrap()["error"].take())
}

/// Waits until the host says that it drains: the first answer that is not `ready` has to be that.
async fn draining(served: &Served) {
    eventually("readyz says draining", SOON, async || {
        let answer = client().get(format!("{}/readyz", served.url)).send().await.unwrap();
        if answer.status() == 200 {
            return Err("ready".to_owned());
        }
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        assert_eq!((status, &body["error"]["code"]), (503, &json!("draining")), "{body}");
        Ok(())
    })
    .await;
}

/// The end of a host, which has to be one in order with every event recorded: what it said meanwhile.
async fn ends_in_order(served: Served, dir: &Path) -> Vec<Value> {
    let (code, said, error) = served.end().await;
    assert_eq!(code, Some(0), "{said:?}\n{error}");
    let said: Vec<Value> = said.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = said.last().unwrap();
    assert_eq!((&last["stopped"], &last["events_left"]), (&json!(true), &json!(0)), "{last}");
    assert_eq!(unheard(&dir.join("records.sqlite3")), "");
    said
}

fn kinds_of(dir: &Path, room: &str) -> Vec<String> {
    kinds(&dir.join("records.sqlite3"), room)
}

#[test]
fn a_race_goes_on_to_its_time_slips_and_is_recorded() {
    run(150, async {
        let dir = data_dir();
        let served = Served::start(dir.path(), &[]).await;
        let bots = tokio::spawn(
            holeshot(&["bots", "--url", &served.url, "--json", "--races", "1", "--players", "2", "--seed", "7"])
                .output(),
        );
        let room = eventually("the race runs", SOON * 2, async || {
            let rooms = served.request("/api/rooms", None).await;
            let open = rooms["open"][0].clone();
            if open["phase"] == "running" {
                Ok(open["room"].as_str().unwrap().to_owned())
            } else {
                Err(rooms.to_string())
            }
        })
        .await;
        served.signal(libc::SIGTERM);
        draining(&served).await;
        let report = timeout(SOON * 4, bots).await.expect("the race ends").unwrap().unwrap();
        let said = ends_in_order(served, dir.path()).await;
        let waited: Vec<_> = said.iter().filter(|line| line["draining"] == true).collect();
        assert_eq!(waited[0]["rooms"], 1, "{said:?}");
        assert!(waited[0]["seconds_left"].as_u64().is_some_and(|left_s| (100..=120).contains(&left_s)), "{said:?}");
        let report = text(&report.stdout);
        let report: Value = serde_json::from_str(report.trim()).unwrap_or_else(|error| panic!("{error}: {report}"));
        let players = report["players"].as_array().unwrap();
        assert!(players.len() == 2 && players.iter().all(|player| player["ending"] == "finished"), "{report}");
        // The time slips are on record, with all that led to them.
        let records = open_records(&dir.path().join("records.sqlite3"));
        let slips: Vec<String> = records
            .prepare("SELECT data FROM results WHERE room = ?1")
            .unwrap()
            .query_map([&room], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(slips.len(), 2);
        assert!(slips.iter().all(|slip| serde_json::from_str::<Value>(slip).unwrap()["quarter_mile_s"].is_f64()));
        let kinds = kinds_of(dir.path(), &room);
        assert_eq!(kinds.last().map(String::as_str), Some("room.closed"), "{kinds:?}");
        assert!(kinds.iter().any(|kind| kind == "room.finished"), "{kinds:?}");
    });
}

#[test]
fn what_has_not_begun_ends_at_once_and_nothing_new_begins() {
    run(60, async {
        let dir = data_dir();
        let served = serve(dir.path(), &[]).await;
        let (runs, mut ada, _) = playing(&served, SOME).await;
        // One waits for players, one for their ready.
        let gathering = open(&served, SOME, &["Ben", "Cleo"]).await;
        let mut ben = Peer::enter(&join(&served, &gathering, "Ben").await).await;
        let readying = open(&served, SOME, &["Dan"]).await;
        let mut dan = Peer::enter(&join(&served, &readying, "Dan").await).await;
        let late = join(&served, &gathering, "Cleo").await;
        served.signal(libc::SIGTERM);
        draining(&served).await;
        for waits in [&mut ben, &mut dan] {
            assert_eq!(waits.event("aborted").await.data["reason"], "host_stopping");
            assert_eq!(waits.bye().await.0, ByeCode::HostClosing);
        }
        let (status, error) = refused(
            client()
                .post(format!("{}/api/rooms", served.url))
                .json(&json!({ "module": SOME, "players": [{ "name": "Eve" }] })),
        )
        .await;
        assert_eq!((status, &error["code"]), (503, &json!("stopping")), "{error}");
        assert!(error["message"].as_str().unwrap().contains("opens no more rooms"), "{error}");
        let token = std::fs::read_to_string(dir.path().join("admin-token")).unwrap();
        let put = client().put(format!("{}/api/modules/{SOME}", served.url)).bearer_auth(token.trim());
        let (status, error) = refused(put.body(Tally::new(SOME, 9).wasm())).await;
        assert_eq!((status, &error["code"]), (503, &json!("stopping")), "{error}");
        assert!(Peer::try_enter(&late, None).await.is_err(), "a room that is over lets nobody in");
        // The game that runs does not notice.
        ada.event("finished").await;
        assert_eq!(ada.bye().await.0, ByeCode::RoomFinished);
        ends_in_order(served, dir.path()).await;
        assert!(kinds_of(dir.path(), &runs).contains(&"room.finished".to_owned()));
        for room in [gathering, readying] {
            assert!(kinds_of(dir.path(), &room).contains(&"room.aborted".to_owned()));
        }
    });
}

#[test]
fn a_player_who_is_lost_meanwhile_comes_back_to_the_game_and_to_its_results() {
    run(60, async {
        let dir = data_dir();
        let served = serve(dir.path(), &["--linger-s", "30"]).await;
        let (_, mut ada, grant) = playing(&served, SOME).await;
        ada.frame(10).await;
        served.signal(libc::SIGTERM);
        draining(&served).await;
        // In the middle of the game.
        let back = ada.resume(&grant);
        drop(ada);
        let mut ada = Peer::enter_after(&back, None).await;
        assert!(ada.welcome().resumed);
        ada.frame(60).await;
        // And after its end: the room waits for the player who has not seen it.
        let back = ada.resume(&grant);
        drop(ada);
        eventually("the game is over", SOON, async || {
            let rooms = served.request("/api/rooms", None).await;
            if rooms["open"][0]["phase"] == "finished" { Ok(()) } else { Err(rooms["open"].to_string()) }
        })
        .await;
        let mut ada = Peer::enter_after(&back, Some(0)).await;
        ada.event("finished").await;
        assert_eq!(ada.bye().await.0, ByeCode::RoomFinished);
        // No need to wait for the half minute of linger: SOON is less.
        ends_in_order(served, dir.path()).await;
    });
}

#[test]
fn what_runs_longer_than_the_limit_is_ended() {
    run(60, async {
        let dir = data_dir();
        let served = serve(dir.path(), &["--drain-wait-s", "1"]).await;
        let (room, mut ada, _) = playing(&served, LONG).await;
        served.signal(libc::SIGTERM);
        draining(&served).await;
        assert_eq!(ada.event("aborted").await.data["reason"], "host_stopping");
        assert_eq!(ada.bye().await.0, ByeCode::HostClosing);
        let said = ends_in_order(served, dir.path()).await;
        assert_eq!(said[0], json!({ "draining": true, "rooms": 1, "seconds_left": 1 }));
        assert_eq!(kinds_of(dir.path(), &room).last().map(String::as_str), Some("room.closed"));
    });
}

#[test]
fn a_second_signal_ends_the_rooms_and_a_third_the_host() {
    run(90, async {
        // With a broker that is not there the host waits for receipts, so that there is time for a third signal.
        for (broker, signals) in [(None, 2), (Some("mqtt://127.0.0.1:9"), 3)] {
            let dir = data_dir();
            let more: Vec<&str> = broker.map_or(vec![], |broker| vec!["--broker", broker, "--manager", "no"]);
            let served = serve(dir.path(), &more).await;
            let (_, mut ada, _) = playing(&served, LONG).await;
            served.signal(libc::SIGTERM);
            draining(&served).await;
            // It goes on.
            let frame = ada.snapshot_frames.last().copied().unwrap_or(0);
            ada.frame(frame + 20).await;
            served.signal(libc::SIGINT);
            assert_eq!(ada.event("aborted").await.data["reason"], "host_stopping");
            assert_eq!(ada.bye().await.0, ByeCode::HostClosing);
            if signals == 2 {
                ends_in_order(served, dir.path()).await;
                continue;
            }
            served.signal(libc::SIGTERM);
            let (code, _, error) = served.end().await;
            assert_eq!(code, Some(1), "{error}");
            assert!(error.contains("SIGTERM came once more") && error.contains("next start"), "{error}");
            // Nothing is lost: what was not sent is in the outbox.
            let outbox = open_records(&dir.path().join("outbox.sqlite3"));
            let waiting: i64 = outbox.query_row("SELECT COUNT(*) FROM outbox", [], |row| row.get(0)).unwrap();
            assert!(waiting > 0);
        }
    });
}

#[test]
fn a_signal_while_the_host_starts_ends_it_in_order() {
    run(90, async {
        let dir = data_dir();
        // At moments of a start that others can see: the folder is locked, the database of events is there, the doors are open.
        for seen in ["holeshot.lock", "outbox.sqlite3", "records.sqlite3"] {
            for file in ["outbox.sqlite3", "records.sqlite3", "holeshot.lock"] {
                let _absent = std::fs::remove_file(dir.path().join(file));
            }
            let mut args = vec!["serve", "--data-dir", dir.path().to_str().unwrap()];
            args.extend(FREE_PORTS);
            let mut child = holeshot(&args).spawn().unwrap();
            eventually(seen, SOON, async || {
                if dir.path().join(seen).exists() { Ok(()) } else { Err("it is not there".to_owned()) }
            })
            .await;
            let pid = libc::pid_t::try_from(child.id().unwrap()).unwrap();
            // SAFETY: kill takes two numbers and touches no memory. The process is a child that was not waited for, so the number is still its own.
            #[allow(unsafe_code)]
            let sent = unsafe { libc::kill(pid, libc::SIGTERM) };
            assert_eq!(sent, 0);
            let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
            let status = timeout(SOON, child.wait()).await.expect("it ends").unwrap();
            let mut error = String::new();
            while let Ok(Ok(Some(line))) = timeout(Duration::from_secs(1), said.next_line()).await {
                error.push_str(&line);
            }
            assert_eq!(status.code(), Some(0), "at {seen}: {error}");
            assert!(error.contains("the host was not started") || error.contains("stopped; all"), "at {seen}: {error}");
        }
        // What was begun is no obstacle to the next start.
        let served = serve(dir.path(), &[]).await;
        let (_, mut ada, _) = playing(&served, SOME).await;
        ada.frame(5).await;
        served.signal(libc::SIGTERM);
        ada.event("finished").await;
        ends_in_order(served, dir.path()).await;
    });
}
