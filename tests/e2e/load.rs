//! The load generator as a process: real players over a bad network on a host of its own and on one that runs already, and the inputs of both sides' counters that
//! must agree. How quick anything is, is nothing for a test on a machine that does other things, too.

use serde_json::Value;

use crate::command::{Served, output, text};
use crate::harness::{SOON, data_dir, eventually, run};
use crate::modules_made::SHORT;

/// The JSON of a run that went well.
async fn load(args: &[&str]) -> Value {
    let output = output(&[&["load", "--json"], args].concat()).await;
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {} {}", text(&output.stdout), text(&output.stderr)));
    // How quick this machine is, is nothing for a test: a run that is not to be believed is good enough, as long as nothing is wrong.
    let (outcome, code) = match said["verdict"]["doubts"].as_array().map(Vec::is_empty) {
        Some(true) => ("held", 0),
        _ => ("not_shown", 3),
    };
    assert_eq!((said["verdict"]["outcome"].as_str(), output.status.code()), (Some(outcome), Some(code)), "{said:#}");
    assert_eq!(said["verdict"]["faults"], Value::Array(Vec::new()));
    said
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer} in {value:#}"))
}

/// What must hold of the account of inputs, whatever happened.
fn adds_up(said: &Value) {
    let of = |name: &str| number(said, &format!("/report/inputs/{name}"));
    assert_eq!((of("unexplained"), of("surplus"), said["verdict"]["agrees"].as_bool()), (0, 0, Some(true)), "{said:#}");
    assert_eq!(of("frames"), of("not_sent") + of("sent"), "{said:#}");
    assert_eq!(of("sent"), of("lost") + of("in_time") + of("late") + of("after_end"), "{said:#}");
    assert_eq!((of("never_received"), of("out_of_track")), (0, 0), "{said:#}");
    if cfg!(target_os = "linux") {
        assert_eq!((number(said, "/report/dropped/host"), number(said, "/report/dropped/players")), (0, 0), "{said:#}");
    }
}

/// Whether every tag of a page that must be closed is, in order.
fn is_well_formed(html: &str) -> Result<(), String> {
    const VOID: [&str; 2] = ["meta", "!DOCTYPE"];
    // Between the two is CSS, which has no tags.
    let (before, rest) = html.split_once("<style>").ok_or("no style")?;
    let (_, after) = rest.split_once("</style>").ok_or("the style has no end")?;
    let mut open: Vec<&str> = Vec::new();
    for tag in before.split('<').chain(after.split('<')).filter(|tag| tag.contains('>')) {
        let (tag, _) = tag.split_once('>').unwrap_or_default();
        let name = tag.split([' ', '\n']).next().unwrap_or_default();
        match name.strip_prefix('/') {
            Some(name) if open.pop() == Some(name) => {}
            Some(name) => return Err(format!("</{name}> closes something else")),
            None if tag.ends_with('/') || VOID.contains(&name) => {}
            None => open.push(name),
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("not closed: {open:?}")) }
}

#[test]
fn a_bad_network_costs_no_input_that_a_copy_saves() {
    run(90, async {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("load.html");
        let html = file.to_str().unwrap();
        let network = ["--loss", "5", "--delay-ms", "20", "--jitter-ms", "5", "--duplicate", "2", "--reorder", "1"];
        let rooms = ["--rooms", "4", "--ramp", "20", "--seconds", "3", "--seed", "7", "--threads", "2", "--html", html];
        let said = load(&[&rooms[..], &network].concat()).await;
        adds_up(&said);
        assert_eq!((number(&said, "/report/inputs/games"), number(&said, "/report/inputs/not_compared")), (8, 0));
        assert!(number(&said, "/report/inputs/in_time") > 0, "{said:#}");
        let players = &said["report"]["players"];
        let (came, lost) = (number(players, "/snapshots"), number(players, "/lost_down"));
        assert!(came > 0 && lost > 0 && number(players, "/lost_up") > 0 && lost < came / 4, "{players}");
        assert_eq!((number(players, "/no_place"), number(players, "/sessions_lost")), (0, 0));
        // Both ways take 15 ms at least.
        assert!(number(&said, "/report/input_delay_us/p50") >= 30_000, "{said:#}");
        assert!(number(&said, "/report/snapshot_gap_us/count") > 0);
        assert!(!said["report"]["samples"].as_array().unwrap().is_empty());
        assert!(said["report"]["host_frame"]["rooms"].as_f64().unwrap() > 0.0, "{said:#}");

        let page = std::fs::read_to_string(&file).unwrap();
        assert_eq!(is_well_formed(&page), Ok(()));
        for outside in ["<script", "http:", "https:", "src=", "url(", "@import", "<link"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("5 % lost, 20 ms ± 5 ms, 2 % twice, 1 % overtaken") && page.contains("Both sides agree"));
    });
}

#[test]
fn games_that_end_are_opened_anew_and_a_journal_is_played_again() {
    run(120, async {
        let dir = data_dir();
        let host = Served::start_with_games(dir.path(), &[]).await;
        let short = ["--host", &host.url, "--game", SHORT, "--players", "1", "--rooms", "3", "--seconds", "3"];
        let said = load(&[&short[..], &["--loss", "3"]].concat()).await;
        adds_up(&said);
        let opened = number(&said, "/report/whole/rooms_opened");
        assert!(opened > 3, "{said:#}");
        assert_eq!(number(&said, "/report/inputs/games") + number(&said, "/report/inputs/not_compared"), opened);

        let race = ["--host", &host.url, "--rooms", "1", "--seconds", "1", "--seed", "5", "--players-per-socket", "1"];
        adds_up(&load(&race).await);
        let rooms = host.request("/api/rooms?limit=100", None).await;
        let of_race = |room: &&Value| room.to_string().contains("drag-race");
        let room =
            rooms["recorded"].as_array().into_iter().flatten().find(of_race).unwrap_or_else(|| panic!("{rooms:#}"));
        let room = room["room"].as_str().unwrap();
        eventually("the journal is closed", SOON, async || {
            let facts = host.request(&format!("/api/rooms/{room}"), None).await["journal"].clone();
            if facts["writing"].is_null() && facts["bytes"].as_u64() > Some(0) {
                Ok(())
            } else {
                Err(facts.to_string())
            }
        })
        .await;
        let journal =
            reqwest::get(format!("{}/api/rooms/{room}/journal", host.url)).await.unwrap().bytes().await.unwrap();
        let file = dir.path().join("race.journal");
        std::fs::write(&file, journal).unwrap();
        let again = ["--host", &host.url, "--rooms", "2", "--seconds", "1", "--inputs", file.to_str().unwrap()];
        let said = load(&again).await;
        adds_up(&said);
        assert_eq!((said["report"]["recorded"].as_bool(), number(&said, "/report/players_per_room")), (Some(true), 2));
        assert!(number(&said, "/report/inputs/in_time") > 0, "{said:#}");
    });
}

#[test]
fn what_cannot_be_run_is_told_before_a_host_is_started() {
    run(60, async {
        let folder = tempfile::tempdir().unwrap();
        let none = folder.path().join("none/load.html");
        for (args, code, words) in [
            (&["--loss", "101"][..], 2, "a percentage from 0 to 100"),
            (&["--loss", "-1"], 2, "a percentage from 0 to 100"),
            (&["--duplicate", "x"], 2, "a percentage from 0 to 100"),
            (&["--rooms", "0"], 1, "0 rooms of 2 players; one generator plays 1 to 8000"),
            (&["--rooms", "4001"], 1, "one generator plays 1 to 8000"),
            (&["--threads", "17"], 1, "1 to 16 threads"),
            (&["--players-per-socket", "0"], 1, "1 to 1000 players can share a socket"),
            (&["--players-per-socket", "1001"], 1, "1 to 1000 players can share a socket"),
            (&["--seconds", "0"], 1, "--seconds is 0; accepted: 1 to 86400"),
            (&["--ramp", "0"], 1, "1 to 1000 rooms can be opened in a second"),
            (&["--delay-ms", "2001"], 1, "delay in ms is 2001; accepted: 0 to 2000"),
            (&["--jitter-ms", "1001"], 1, "jitter in ms is 1001; accepted: 0 to 1000"),
            (&["--module", "x.wasm"], 2, "--game"),
            (&["--inputs", "/nowhere/a.journal"], 1, "/nowhere/a.journal"),
            (&["--html", none.to_str().unwrap()], 1, "does not exist; make it first"),
            (&["--host", "http://127.0.0.1:9", "--rooms", "1"], 1, "cannot reach a host at http://127.0.0.1:9"),
            (&["--host", "http://127.0.0.1:9", "--shards", "2"], 2, "--shards"),
        ] {
            let output = output(&[&["load"], args].concat()).await;
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
            assert!(said.contains(words) && output.stdout.is_empty(), "{args:?}: {said}");
        }
    });
}
