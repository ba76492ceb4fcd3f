//! The command as people and service managers run it: a process with arguments, signals, output and an exit code.

use std::path::Path;
use std::process::{Output, Stdio};

use holeshot_wire::{ByeCode, ClientMessage};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::harness::{
    Grant, JOURNAL_CLOSED, SOON, client, data_dir, eventually, kinds, open_records, run, tell, unheard,
};
use crate::modules_made::{SHORT, Tally, short};
use crate::peer::Peer;

/// A game that is longer than any test.
pub(crate) const LONG: &str = "tally-long";
pub(crate) const FREE_PORTS: [&str; 6] =
    ["--http-listen", "127.0.0.1:0", "--udp-listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0"];

pub(crate) fn holeshot(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holeshot-under-test"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    for (name, _) in std::env::vars() {
        if name.starts_with("HOLESHOT_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end.
pub(crate) async fn output(args: &[&str]) -> Output {
    timeout(SOON * 4, holeshot(args).output()).await.expect("the command ends").unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that fails and gives its exit code and what it says about it.
async fn fails(args: &[&str]) -> (i32, String) {
    let output = output(args).await;
    assert!(output.stdout.is_empty(), "a failure is no output: {}", text(&output.stdout));
    (output.status.code().unwrap(), text(&output.stderr))
}

/// A host in another process.
pub(crate) struct Served {
    pub(crate) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pub(crate) url: String,
    pub(crate) listen: Value,
}

impl Served {
    pub(crate) async fn start(dir: &Path, more: &[&str]) -> Self {
        let mut args = vec!["serve", "--json", "--data-dir", dir.to_str().unwrap(), "--rooms-max", "16"];
        args.extend(FREE_PORTS);
        args.extend(more);
        Self::started(holeshot(&args)).await
    }

    /// A host that a command starts which prints JSON.
    pub(crate) async fn started(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let Ok(Ok(Some(line))) = timeout(SOON * 2, lines.next_line()).await else {
            let mut error = String::new();
            let _ = child.start_kill();
            let _ = child.stderr.take().unwrap().read_to_string(&mut error).await;
            panic!("the host does not start: {error}");
        };
        let line: Value = serde_json::from_str(&line).unwrap();
        let url = line["url"].as_str().unwrap().to_owned();
        Self { child, lines, url, listen: line["listen"].clone() }
    }

    /// With a short game and a long one.
    pub(crate) async fn start_with_games(dir: &Path, more: &[&str]) -> Self {
        let (one, two) = (dir.join("short.wasm"), dir.join("long.wasm"));
        std::fs::write(&one, short()).unwrap();
        std::fs::write(&two, Tally::new(LONG, 100_000).wasm()).unwrap();
        let mut args = vec!["--module", one.to_str().unwrap(), "--module", two.to_str().unwrap()];
        args.extend(more);
        Self::start(dir, &args).await
    }

    pub(crate) async fn request(&self, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}{path}", self.url);
        let request = match body {
            Some(body) => client().post(url).json(&body),
            None => client().get(url),
        };
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {response:?}");
        response.json().await.unwrap()
    }

    /// What a path answers, as text.
    pub(crate) async fn text(&self, path: &str) -> String {
        client().get(format!("{}{path}", self.url)).send().await.unwrap().text().await.unwrap()
    }

    /// A room whose game runs, with its one player.
    pub(crate) async fn playing(&self, module: &str) -> (String, Peer) {
        let created =
            self.request("/api/rooms", Some(json!({ "module": module, "players": [{ "name": "Ada" }] }))).await;
        let room = created["room"].as_str().unwrap().to_owned();
        let grant = self.request(&format!("/api/rooms/{room}/join"), Some(json!({ "player": "Ada" }))).await;
        let grant: Grant = serde_json::from_value(grant).unwrap();
        let mut ada = Peer::enter(&grant).await;
        ada.say(&ClientMessage::Ready).await;
        ada.event("started").await;
        (room, ada)
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id().unwrap()).unwrap();
        // SAFETY: kill takes two numbers and touches no memory. The process is a child that was not waited for, so the number is still its own.
        #[allow(unsafe_code)]
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0);
    }

    /// Waits for the end: the exit code, the rest of the output, and what it said on standard error.
    pub(crate) async fn end(mut self) -> (Option<i32>, Vec<String>, String) {
        let mut error = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        let mut rest = Vec::new();
        let all = async {
            let lines = async {
                while let Ok(Some(line)) = self.lines.next_line().await {
                    rest.push(line);
                }
            };
            let (_, _) = tokio::join!(lines, stderr.read_to_string(&mut error));
            self.child.wait().await.unwrap()
        };
        let status = timeout(SOON, all).await.expect("the host ends");
        (status.code(), rest, error)
    }
}

fn records(dir: &Path) -> std::path::PathBuf {
    dir.join("records.sqlite3")
}

/// Whether an event of a room would outlive a kill: it is recorded, or in the outbox.
fn is_on_disk(dir: &Path, room: &str, kind: &str) -> bool {
    // In this order: an event leaves the outbox after it is recorded.
    let outbox = open_records(&dir.join("outbox.sqlite3"));
    let mut select = outbox.prepare("SELECT payload FROM outbox").unwrap();
    let payloads = select.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap().map(Result::unwrap);
    let is_waiting = payloads
        .map(|payload| serde_json::from_slice(&payload).unwrap())
        .any(|event: Value| event["room"] == json!(room) && event["type"] == json!(format!("holeshot.{kind}")));
    is_waiting || kinds(&records(dir), room).iter().any(|recorded| recorded == kind)
}

fn count(dir: &Path, kind: &str) -> i64 {
    let sql = "SELECT COUNT(*) FROM events WHERE kind = ?1";
    open_records(&records(dir)).query_row(sql, [kind], |row| row.get(0)).unwrap()
}

#[test]
fn serve_says_where_it_listens_and_ctrl_c_ends_it_in_order() {
    run(60, async {
        let dir = data_dir();
        let mut args = vec!["--data-dir", dir.path().to_str().unwrap()];
        args.extend(FREE_PORTS);
        // Without a command, `serve` runs.
        let mut child = holeshot(&args).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        while !said.iter().any(|line: &String| line.contains("ctrl-C")) {
            said.push(timeout(SOON * 2, lines.next_line()).await.expect("a line").unwrap().expect("more output"));
        }
        let said = said.join("\n");
        for words in
            ["HTTP and WebSocket  127.0.0.1:", "datagrams (UDP)     127.0.0.1:", "events (MQTT)       127.0.0.1:"]
        {
            assert!(said.contains(words), "{said}");
        }
        assert!(said.contains(&format!("records (SQLite)    {}", records(dir.path()).display())), "{said}");
        let url = said.split("(API: ").nth(1).and_then(|rest| rest.split("/openapi.json").next()).unwrap();
        let ready = client().get(format!("{url}/readyz")).send().await.unwrap();
        assert_eq!(ready.status(), 200);
        let served = Served { child, lines, url: url.to_owned(), listen: Value::Null };
        served.signal(libc::SIGINT);
        let (code, _, error) = served.end().await;
        assert_eq!(code, Some(0), "{error}");
        assert!(error.contains("ctrl-C: ending the rooms") && error.contains("stopped; all "), "{error}");
        assert!(!error.contains("ERROR") && !error.contains("WARN"), "{error}");
        assert_eq!((count(dir.path(), "host.started"), count(dir.path(), "host.stopping")), (1, 1));
        assert_eq!(unheard(&records(dir.path())), "");
    });
}

#[test]
fn a_signal_in_the_middle_of_a_game_ends_it_with_every_event_recorded() {
    run(60, async {
        for signal in [libc::SIGTERM, libc::SIGINT] {
            let dir = data_dir();
            // Without a wait for games that run: that one is tested in `drain.rs`.
            let served = Served::start_with_games(dir.path(), &["--drain-wait-s", "0"]).await;
            let (room, mut ada) = served.playing(LONG).await;
            ada.frame(10).await;
            served.signal(signal);
            assert_eq!(ada.event("aborted").await.data["reason"], "host_stopping");
            assert_eq!(ada.bye().await.0, ByeCode::HostClosing);
            let (code, rest, error) = served.end().await;
            assert_eq!(code, Some(0), "{error}");
            let last: Value = serde_json::from_str(rest.last().unwrap()).unwrap();
            assert_eq!((&last["stopped"], &last["events_left"]), (&json!(true), &json!(0)), "{last}");
            let expected = ["room.opened", "player.joined", "room.started", "room.aborted", "room.closed"];
            assert_eq!(kinds(&records(dir.path()), &room), expected);
            assert_eq!(unheard(&records(dir.path())), "");
        }
    });
}

#[test]
fn a_killed_host_starts_again_with_what_it_had() {
    run(90, async {
        let dir = data_dir();
        let mut served = Served::start_with_games(dir.path(), &[]).await;
        let (room, mut ada) = served.playing(LONG).await;
        ada.frame(10).await;
        // A kill may lose what is still on its way to the disk, so wait for that; whether it was published or recorded by then is luck.
        eventually("the last event is on disk", SOON, async || {
            if is_on_disk(dir.path(), &room, "room.started") { Ok(()) } else { Err("it is not") }.map_err(str::to_owned)
        })
        .await;
        served.child.kill().await.unwrap();
        drop(served);

        let served = Served::start_with_games(dir.path(), &[]).await;
        let path = format!("/api/rooms/{room}");
        // Until the first of its events is recorded, the room is unknown.
        let record = eventually("the room of the killed host has an end", SOON, async || {
            let body: Value = client().get(format!("{}{path}", served.url)).send().await.unwrap().json().await.unwrap();
            if body["recorded"]["ended_at"].is_null() { Err(body.to_string()) } else { Ok(body["recorded"].clone()) }
        })
        .await;
        assert_eq!((&record["state"], &record["reason"]), (&json!("aborted"), &json!("host_lost")), "{record}");
        // What had happened before the kill is there, whichever part of its way it had come.
        let told = record["events"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap());
        let before: Vec<_> = told.filter(|kind| *kind != JOURNAL_CLOSED).collect();
        assert_eq!(before, ["room.opened", "player.joined", "room.started"]);
        assert_eq!(count(dir.path(), "host.started"), 2);
        // It serves, under its old name and key: the old ticket is known, and its room is gone.
        let (_, mut ada) = served.playing(SHORT).await;
        ada.event("finished").await;
        served.signal(libc::SIGTERM);
        let (code, _, error) = served.end().await;
        assert_eq!(code, Some(0), "{error}");
        let connection = open_records(&records(dir.path()));
        let hosts: i64 = connection.query_row("SELECT COUNT(*) FROM hosts", [], |row| row.get(0)).unwrap();
        assert_eq!(hosts, 1);
        assert_eq!(unheard(&records(dir.path())), "");
    });
}

#[test]
fn what_stops_a_host_from_starting_is_said_with_the_next_step() {
    run(90, async {
        let dir = data_dir();
        let served = Served::start(dir.path(), &[]).await;
        let data_dir_arg = dir.path().to_str().unwrap().to_owned();
        let mut args = vec!["serve", "--data-dir", &data_dir_arg];
        args.extend(FREE_PORTS);
        let (code, error) = fails(&args).await;
        assert_eq!(code, 1, "{error}");
        assert!(error.contains("another host runs on the data folder") && error.contains("--data-dir"), "{error}");
        assert!(error.contains(&data_dir_arg), "{error}");

        let other = data_dir();
        let other_arg = other.path().to_str().unwrap();
        for (door, flag) in [("http", "--http-listen"), ("udp", "--udp-listen"), ("mqtt", "--mqtt-listen")] {
            let taken = served.listen[door].as_str().unwrap();
            let mut args = vec!["serve", "--data-dir", other_arg];
            for pair in FREE_PORTS.chunks(2) {
                args.extend([pair[0], if pair[0] == flag { taken } else { pair[1] }]);
            }
            let (code, error) = fails(&args).await;
            assert_eq!(code, 1, "{error}");
            assert!(error.contains(taken) && error.contains(flag), "{error}");
        }

        // A folder that cannot be made: there is a file in its way.
        let file = other.path().join("file");
        std::fs::write(&file, "").unwrap();
        let below = file.join("data");
        let mut args = vec!["serve", "--data-dir", below.to_str().unwrap()];
        args.extend(FREE_PORTS);
        let (code, error) = fails(&args).await;
        assert_eq!(code, 1, "{error}");
        assert!(error.contains(below.to_str().unwrap()) && error.contains("--data-dir"), "{error}");

        served.signal(libc::SIGTERM);
        assert_eq!(served.end().await.0, Some(0));
    });
}

#[test]
fn wrong_settings_are_refused_with_their_place() {
    run(60, async {
        let dir = data_dir();
        let file = dir.path().join("holeshot.toml");
        let path = file.to_str().unwrap();
        for (settings, words) in [
            ("rooms_max = 5\nlinger_s = \"long\"\n", &["line 2", "linger_s"][..]),
            ("\n\nroomz = 7\n", &["line 3", "roomz"]),
            ("rooms_max = \n", &["line 1"]),
            ("rooms_max = 0\n", &["rooms_max", "1 to 30000"]),
        ] {
            std::fs::write(&file, settings).unwrap();
            let (code, error) = fails(&["serve", "--config", path]).await;
            assert_eq!(code, 2, "{settings}: {error}");
            for word in words {
                assert!(error.contains(word), "{settings}: {error}");
            }
        }
        for (args, words) in [
            (vec!["serve", "--config", "/nowhere/holeshot.toml"], "/nowhere/holeshot.toml"),
            (vec!["serve", "--rooms-max", "many"], "--rooms-max"),
            (vec!["serve", "--shards", "0"], "shards"),
            (vec!["serve", "--http-listen", "here"], "--http-listen"),
            (vec!["serve", "--colour"], "--colour"),
            (vec!["sprint"], "sprint"),
            (vec!["serve", "--log", "loud=very"], "--log"),
        ] {
            let (code, error) = fails(&args).await;
            assert_eq!(code, 2, "{args:?}: {error}");
            assert!(error.contains(words), "{args:?}: {error}");
        }
        // The weaker source gives way: a flag over the file, the environment over it too.
        std::fs::write(&file, "rooms_max = 0\n").unwrap();
        let served = Served::start(dir.path(), &["--config", path]).await;
        served.signal(libc::SIGTERM);
        assert_eq!(served.end().await.0, Some(0));
    });
}

#[test]
fn race_shows_a_race_its_time_slips_and_where_the_records_are() {
    run(150, async {
        let (one, two) = (data_dir(), data_dir());
        let args = |dir: &Path| {
            vec!["race".to_owned(), "--seed".into(), "11".into(), "--data-dir".into(), dir.to_str().unwrap().into()]
        };
        let (for_people, mut for_programs) = (args(one.path()), args(two.path()));
        for_programs.push("--json".into());
        let strs = |args: &[String]| args.iter().map(|arg| arg.as_str().to_owned()).collect::<Vec<_>>();
        let (for_people, for_programs) = (strs(&for_people), strs(&for_programs));
        let (people_args, program_args): (Vec<&str>, Vec<&str>) =
            (for_people.iter().map(String::as_str).collect(), for_programs.iter().map(String::as_str).collect());
        let (people, programs) = tokio::join!(output(&people_args), output(&program_args));

        let (said, error) = (text(&people.stdout), text(&people.stderr));
        assert_eq!(people.status.code(), Some(0), "{said}\n{error}");
        let path = records(one.path());
        for words in ["1/4 mile", "60 ft", "reaction", "seed 11", &format!("records: {}", path.display())] {
            assert!(said.contains(words), "no {words:?} in {said}");
        }
        assert!(!said.contains('\u{1b}'), "escape sequences where there is no terminal: {said:?}");
        assert!(!error.contains("ERROR") && !error.contains("panicked"), "{error}");

        // The command that the output names shows the events, to a program that nobody here wrote.
        let line = said.lines().find(|line| line.trim_start().starts_with("sqlite3 ")).unwrap();
        let room = line.split("room = '").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
        match Command::new("sh").args(["-c", line]).output().await {
            Ok(shown) if shown.status.success() => {
                let shown = text(&shown.stdout);
                for kind in ["room.opened|", "room.started|", "room.finished|", "room.closed|"] {
                    assert!(shown.contains(kind), "{shown}");
                }
            }
            other if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("{line}: {other:?}"),
            other => tell!("SKIPPED: {line}: {other:?}; install sqlite3 to run this part"),
        }
        assert!(kinds(&path, room).contains(&"room.finished".to_owned()));
        assert_eq!(unheard(&path), "");

        let (said, error) = (text(&programs.stdout), text(&programs.stderr));
        assert_eq!(programs.status.code(), Some(0), "{said}\n{error}");
        let report: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        let results = report["record"]["results"].as_array().unwrap();
        assert_eq!(results.len(), 2, "{report}");
        assert!(results.iter().all(|result| result["data"]["quarter_mile_s"].is_f64()), "{report}");
        assert_eq!((&report["seed"], report["players"].as_array().unwrap().len()), (&json!(11), 2));
        assert_eq!(report["records"], json!(records(two.path())));
    });
}

#[test]
fn bots_race_on_a_running_host_and_events_follows_them() {
    run(150, async {
        let dir = data_dir();
        let served = Served::start(dir.path(), &["--linger-s", "1"]).await;
        let broker = format!("mqtt://{}", served.listen["mqtt"].as_str().unwrap());
        let mut follower = holeshot(&["events", "--json", "--broker", &broker, "--kind", "room."]).spawn().unwrap();
        let mut said = BufReader::new(follower.stderr.take().unwrap()).lines();
        let line = timeout(SOON, said.next_line()).await.expect("a word of the follower").unwrap().unwrap();
        assert!(line.contains("following"), "{line}");

        let bots =
            output(&["bots", "--url", &served.url, "--json", "--races", "1", "--players", "3", "--seed", "4"]).await;
        let (out, error) = (text(&bots.stdout), text(&bots.stderr));
        assert_eq!(bots.status.code(), Some(0), "{out}\n{error}");
        let report: Value = serde_json::from_str(out.trim()).unwrap();
        let players = report["players"].as_array().unwrap();
        assert_eq!(players.len(), 3);
        assert!(players.iter().all(|player| player["ending"] == "finished" && player["carrier"] == "udp"), "{report}");

        let mut events = BufReader::new(follower.stdout.take().unwrap()).lines();
        for kind in ["room.opened", "room.started", "room.finished", "room.closed"] {
            let (line, event) = loop {
                let line = timeout(SOON, events.next_line()).await.expect("an event").unwrap().unwrap();
                let event: Value = serde_json::from_str(&line).unwrap();
                // It comes when the disk is done with the journal.
                if event["type"] != json!(format!("holeshot.{JOURNAL_CLOSED}")) {
                    break (line, event);
                }
            };
            assert_eq!(
                (&event["type"], &event["room"]),
                (&json!(format!("holeshot.{kind}")), &report["room"]),
                "{line}"
            );
        }
        follower.kill().await.unwrap();

        // Nobody there: said at once, with what to do.
        served.signal(libc::SIGTERM);
        let url = served.url.clone();
        assert_eq!(served.end().await.0, Some(0));
        let mut follower = holeshot(&["events", "--broker", &broker]).spawn().unwrap();
        let mut said = BufReader::new(follower.stderr.take().unwrap()).lines();
        let line = timeout(SOON, said.next_line()).await.expect("a word of the follower").unwrap().unwrap();
        assert!(line.contains(&broker) && line.contains("trying again"), "{line}");
        follower.kill().await.unwrap();
        let bots = output(&["bots", "--url", &url]).await;
        assert_eq!(bots.status.code(), Some(1));
        assert!(text(&bots.stderr).contains(&url) && text(&bots.stderr).contains("holeshot serve"), "{bots:?}");
    });
}

#[test]
fn every_command_explains_its_options() {
    run(60, async {
        let help = async |args: &[&str]| {
            let output = output(args).await;
            assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
            text(&output.stdout)
        };
        let known: &[(&str, &[&str])] = &[
            (
                "serve",
                &[
                    "--config",
                    "--http-listen",
                    "--udp-listen",
                    "--mqtt-listen",
                    "--data-dir",
                    "--module",
                    "--watch",
                    "--shards",
                    "--rooms-max",
                    "--memory-reserve-mib",
                    "--tick-share-percent",
                    "--overruns-max",
                    "--checkpoint-frames",
                    "--probation-frames",
                    "--gather-wait-s",
                    "--ready-wait-s",
                    "--reconnect-grace-s",
                    "--linger-s",
                    "--ticket-lifetime-s",
                    "--journal-days",
                    "--journal-bytes-max",
                    "--broker",
                    "--broker-username",
                    "--broker-password",
                    "--broker-password-file",
                    "--broker-ca",
                    "--broker-certificate",
                    "--broker-key",
                    "--broker-protocol",
                    "--outbox-events-max",
                    "--outbox-bytes-max",
                    "--manager",
                    "--events-days",
                    "--records-days",
                    "--streams-max",
                    "--tls-certificate",
                    "--tls-key",
                    "--ticket-keys",
                    "--ticket-lifetime-max-s",
                    "--ticket-leeway-s",
                    "--open-doors",
                    "--trusted-proxies",
                    "--proxy-header",
                    "--limits-exempt",
                    "--limit",
                    "--steer-datagrams",
                ],
            ),
            (
                "manager",
                &[
                    "--broker",
                    "--broker-password-file",
                    "--broker-ca",
                    "--broker-protocol",
                    "--data-dir",
                    "--http-listen",
                ],
            ),
            ("race", &["--cars", "--skill", "--tree", "--seed", "--no-udp", "--data-dir"]),
            ("swap", &["--rooms", "--name", "--url", "--data-dir", "--token"]),
            ("bots", &["--url", "--game", "--races", "--players", "--options", "--skill", "--seed", "--no-udp"]),
            ("watch", &["--url"]),
            ("records", &[]),
            (
                "events",
                &["--broker", "--broker-username", "--broker-ca", "--broker-protocol", "--room", "--kind", "--count"],
            ),
            ("new", &["--dir"]),
            ("check", &["--against", "--frames", "--seed", "--options", "--player-data"]),
            ("test", &[]),
            (
                "replay",
                &["--module", "--at", "--speed", "--http-listen", "--modules", "--tick-share-percent", "--data-dir"],
            ),
            ("backup", &["--data-dir", "--no-journals"]),
            ("restore", &["--data-dir", "--replace"]),
            ("doctor", &["--config", "--http-listen", "--data-dir", "--tls-certificate", "--broker"]),
            ("ticket", &["--room", "--player", "--spectator", "--data", "--lifetime-s", "--url", "--ca", "--token"]),
            ("ticket-key", &["--private", "--public", "--kid"]),
            (
                "budget",
                &["--example", "--measure", "--check", "--against", "--write", "--lateness-ms", "--game", "--seed"],
            ),
            (
                "load",
                &[
                    "--url",
                    "--ca",
                    "--data-dir",
                    "--token",
                    "--rooms",
                    "--players",
                    "--seconds",
                    "--ramp",
                    "--threads",
                    "--players-per-socket",
                    "--game",
                    "--module",
                    "--shards",
                    "--inputs",
                    "--loss",
                    "--delay-ms",
                    "--jitter-ms",
                    "--duplicate",
                    "--reorder",
                    "--seed",
                    "--html",
                ],
            ),
            (
                "dyno",
                &["--module", "--car", "--csv", "--html", "--prove", "--classes", "--balance", "--write", "--seed"],
            ),
            ("bench", &[]),
        ];
        let overview = help(&["--help"]).await;
        let commands: Vec<&str> = overview
            .lines()
            .skip_while(|line| !line.starts_with("Commands:"))
            .skip(1)
            .take_while(|line| line.starts_with("  "))
            .filter_map(|line| line.split_whitespace().next())
            .filter(|word| *word != "help")
            .collect();
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        assert_eq!(commands, names, "a command that this test does not know: {overview}");
        for (command, options) in known {
            let said = help(&[command, "--help"]).await;
            for option in options.iter().chain(&["--json", "--log"]) {
                let line = said.lines().position(|line| line.trim_start().starts_with(option));
                let line = line.unwrap_or_else(|| panic!("{command} --help says nothing of {option}: {said}"));
                // Something is said about it, on its line or on the next.
                let words: usize = said.lines().skip(line).take(2).map(|line| line.split_whitespace().count()).sum();
                assert!(words > 4, "{command} --help has no words for {option}: {said}");
            }
        }
        let version = help(&["--version"]).await;
        assert_eq!(version.trim(), concat!("holeshot ", env!("CARGO_PKG_VERSION")));
    });
}
