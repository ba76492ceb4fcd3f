//! A broker that runs elsewhere, and the records in a process of their own: settings, what a host without records answers, and a race
//! that is recorded all the same. Kills and faults are in other files.

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::command::{Served, holeshot, output, text};
use crate::harness::{SOON, client, data_dir, eventually, open_records, run};
use crate::modules_made::SHORT;
use crate::mosquitto::Mosquitto;

/// A manager in another process.
pub(crate) async fn manager(dir: &std::path::Path, broker: &str, more: &[&str]) -> Served {
    let mut args = vec!["manager", "--json", "--broker", broker, "--data-dir", dir.to_str().unwrap()];
    args.extend(["--http-listen", "127.0.0.1:0"]);
    args.extend(more);
    Served::started(holeshot(&args)).await
}

pub(crate) async fn ready(url: &str) {
    eventually("readyz says ready", SOON, async || match client().get(format!("{url}/readyz")).send().await {
        Ok(answer) if answer.status() == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

pub(crate) fn rows(dir: &std::path::Path, kind: &str) -> i64 {
    let sql = "SELECT COUNT(*) FROM events WHERE kind = ?1";
    open_records(&dir.join("records.sqlite3")).query_row(sql, [kind], |row| row.get(0)).unwrap()
}

#[test]
fn a_race_is_recorded_by_a_manager_in_a_process_of_its_own() {
    run(90, async {
        let Some(broker) = Mosquitto::start("").await else { return };
        let (host_dir, manager_dir) = (data_dir(), tempfile::tempdir().unwrap());
        let recorder = manager(manager_dir.path(), &broker.url(), &[]).await;
        assert_eq!(recorder.listen["mqtt"], json!(format!("127.0.0.1:{}", broker.port)));
        ready(&recorder.url).await;

        let host = Served::start_with_games(host_dir.path(), &["--broker", &broker.url(), "--manager", "no"]).await;
        assert_eq!((&host.listen["records"], &host.listen["mqtt"]), (&Value::Null, &recorder.listen["mqtt"]));
        let (room, mut ada) = host.playing(SHORT).await;
        // The open room is known; what was before is asked elsewhere.
        let open = host.request(&format!("/api/rooms/{room}"), None).await;
        assert_eq!((&open["recorded"], &open["open"]["room"]), (&Value::Null, &json!(room)), "{open}");
        assert_eq!(host.request("/api/rooms", None).await["recorded"], Value::Null);
        for path in ["/api/rooms/r-none", "/api/events", "/api/hosts"] {
            let answer = client().get(format!("{}{path}", host.url)).send().await.unwrap();
            assert_eq!(answer.status(), 503, "{path}");
            let answer: Value = answer.json().await.unwrap();
            assert_eq!(answer["error"]["code"], "records_elsewhere", "{path}: {answer}");
            assert!(answer["error"]["message"].as_str().unwrap().contains("holeshot manager"), "{path}: {answer}");
        }
        ada.event("finished").await;
        host.signal(libc::SIGTERM);
        let (code, rest, error) = host.end().await;
        assert_eq!(code, Some(0), "{error}");
        let last: Value = serde_json::from_str(rest.last().unwrap()).unwrap();
        assert_eq!(last["events_left"], 0, "{last}");

        // The manager answers what the host cannot.
        let record = recorder.request(&format!("/api/rooms/{room}"), None).await;
        assert_eq!((&record["recorded"]["state"], &record["open"]), (&json!("finished"), &Value::Null), "{record}");

        recorder.signal(libc::SIGTERM);
        let (code, rest, error) = recorder.end().await;
        assert_eq!(code, Some(0), "{error}");
        let stopped: Value = serde_json::from_str(rest.last().unwrap()).unwrap();
        assert_eq!(
            (&stopped["stopped"], &stopped["events_stored"]),
            (&json!(true), &last["events_stored"]),
            "{stopped}"
        );
        for kind in ["host.started", "room.opened", "room.finished", "room.closed", "host.stopping"] {
            assert_eq!(rows(manager_dir.path(), kind), 1, "{kind}");
        }
        assert!(!host_dir.path().join("records.sqlite3").exists());
    });
}

#[test]
fn settings_of_brokers_that_cannot_be_are_refused_with_the_next_step() {
    run(60, async {
        let dir = data_dir();
        let data = dir.path().to_str().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "hidden\n").unwrap();
        let file = file.to_str().unwrap();
        for (args, code, words) in [
            (vec!["serve", "--manager", "no"], 2, "holeshot manager"),
            (vec!["serve", "--manager", "perhaps"], 2, "--manager"),
            (vec!["serve", "--broker", "broker.example"], 2, "mqtt://"),
            (vec!["serve", "--broker-username", "pit"], 2, "broker_username"),
            (vec!["serve", "--broker", "mqtt://x", "--broker-password-file", file], 2, "broker_username"),
            (vec!["manager"], 2, "--broker"),
            (vec!["manager", "--broker", "mqtt://x:y"], 2, "port"),
            (vec!["manager", "--broker", "mqtt://pit:hidden@x"], 2, "settings of their own"),
            (vec!["events", "--broker", "http://x"], 2, "mqtt://"),
        ] {
            let mut whole = args.clone();
            if args[0] != "events" {
                whole.extend(["--data-dir", data]);
            }
            let output = output(&whole).await;
            let error = text(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
            assert!(error.contains(words) && !error.contains("hidden"), "{args:?}: {error}");
        }
    });
}

#[test]
fn one_manager_keeps_a_folder_and_it_lives_without_a_broker() {
    run(60, async {
        let dir = tempfile::tempdir().unwrap();
        // Nobody listens there.
        let recorder = manager(dir.path(), "mqtt://127.0.0.1:9", &[]).await;
        let answer = client().get(format!("{}/healthz", recorder.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let answer = client().get(format!("{}/readyz", recorder.url)).send().await.unwrap();
        assert_eq!(answer.status(), 503);
        let words = answer.text().await.unwrap();
        assert!(words.contains("no subscription at the broker"), "{words}");
        let second = output(&[
            "manager",
            "--broker",
            "mqtt://127.0.0.1:9",
            "--http-listen",
            "127.0.0.1:0",
            "--data-dir",
            dir.path().to_str().unwrap(),
        ])
        .await;
        let error = text(&second.stderr);
        assert_eq!(second.status.code(), Some(1), "{error}");
        assert!(error.contains("another manager") && error.contains("--data-dir"), "{error}");
        recorder.signal(libc::SIGTERM);
        let recorder = timeout(SOON, recorder.end()).await.unwrap();
        assert_eq!(recorder.0, Some(0), "{}", recorder.2);
    });
}
