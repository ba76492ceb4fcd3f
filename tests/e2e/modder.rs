//! A modder's first minutes, with the command and cargo as a modder has them: `new`, `cargo test`, `cargo wasm`, `check`, `test`, and the rules under a race that
//! runs. Without a network: what the new crate needs was fetched for this workspace. Everything is in one test, since each step needs the one before.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use holeshot::api::Api;
use holeshot::bots::{self, Bot};
use holeshot::rules::{DRAG_RACE_WASM, ModuleHash};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::command::holeshot;
use crate::harness::{Host, SOON, announce_errors, data_dir, eventually, lines_with, run};

/// Longest time for a build from nothing, on a machine that is busy with other tests.
const BUILD_MAX: Duration = Duration::from_secs(400);

/// Where the builds go: within the folder of the workspace's own, so that the dependencies are built once.
fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("modder")
}

/// Runs a command to its end, and gives its exit code and what it printed, both streams.
async fn ran(mut command: Command) -> (i32, String) {
    let output: Output = timeout(BUILD_MAX, command.output()).await.expect("the command ends").unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text)
}

async fn cargo(folder: &Path, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).args(["--offline", "--target-dir"]).arg(target_dir()).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // Of the outer cargo, for this test's own build.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR", "CARGO_INCREMENTAL"]
    {
        command.env_remove(name);
    }
    ran(command).await
}

#[track_caller]
fn succeeds((code, text): (i32, String)) -> String {
    assert_eq!(code, 0, "{text}");
    text
}

#[track_caller]
fn fails((code, text): (i32, String), part: &str) {
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(part), "{part:?} is not in {text}");
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from:?} is not in {}", path.display());
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_modders_first_minutes() {
    run(3 * BUILD_MAX.as_secs(), async {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("ice-race");
        let path = folder.to_str().unwrap();
        let text = succeeds(ran(holeshot(&["new", "ice-race", "--dir", path])).await);
        assert!(text.contains("cargo wasm") && text.contains("holeshot serve --watch"), "{text}");
        fails(ran(holeshot(&["new", "ice-race", "--dir", path])).await, "exists already");
        fails(ran(holeshot(&["new", "Ice", "--dir", path])).await, "a-z");

        // As it was written: its tests pass, it is a module that a host takes, and its scenarios come true.
        let text = succeeds(cargo(&folder, &["test"]).await);
        assert!(text.contains("test result: ok. 2 passed"), "{text}");
        succeeds(cargo(&folder, &["wasm"]).await);
        let built = target_dir().join("wasm32-unknown-unknown/release/ice_race.wasm");
        let first = dir.path().join("first.wasm");
        std::fs::copy(&built, &first).unwrap();
        let shipped = dir.path().join("shipped.wasm");
        std::fs::write(&shipped, DRAG_RACE_WASM).unwrap();
        let [first, shipped] = [&first, &shipped].map(|path| path.to_str().unwrap());
        let text = succeeds(ran(holeshot(&["check", first, "--against", shipped, "--frames", "450", "--json"])).await);
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["taken"], true, "{text}");
        assert_eq!(report["module"]["manifest"]["name"], "drag-race");
        assert_eq!(report["module"]["manifest"]["version"], "0.1.0+ice-race");
        assert_eq!(report["module"]["manifest"]["state_version"], 2);
        assert!(report["module"]["facts"]["debug_bytes"].as_u64().unwrap() > 0);
        let swaps = report["against"]["swaps"].as_array().unwrap();
        assert!(swaps.len() == 6 && swaps.iter().all(|swap| swap["refusal"].is_null()), "{swaps:?}");
        // The other way back there is no migration, and the rules that ship say so.
        fails(ran(holeshot(&["check", shipped, "--against", first, "--frames", "10"])).await, "cannot read version 2");
        let scenarios = folder.join("scenarios");
        let scenarios = scenarios.to_str().unwrap();
        let text = succeeds(ran(holeshot(&["test", first, scenarios])).await);
        assert!(text.contains("scenarios: ok. 2 passed, 0 failed"), "{text}");

        // An expectation that is wrong fails, and says what was found.
        let scenario = folder.join("scenarios/red-light.toml");
        replace(&scenario, "data = { lane = 1, seconds = 1.0 }", "data = { lane = 1, seconds = 2.0 }");
        let tested = ran(holeshot(&["test", first, scenarios])).await;
        assert!(tested.1.contains("`seconds`: expected 2.0, found 1.0"), "{}", tested.1);
        fails(tested, "scenarios: FAILED. 1 passed, 1 failed");
        // The rules that ship have no penalty.
        fails(ran(holeshot(&["test", shipped, scenarios])).await, "there was no event `penalty`");
        replace(&scenario, "fields = [", "felder = [");
        fails(ran(holeshot(&["test", first, scenario.to_str().unwrap()])).await, "red-light.toml:");
        replace(&scenario, "felder = [", "fields = [");

        // Other rules: the expectation that was wrong comes true.
        replace(&folder.join("src/lib.rs"), "RED_LIGHT_S: f64 = 1.0", "RED_LIGHT_S: f64 = 2.0");
        replace(&scenario, "penalties_s = [0.0, 1.0]", "penalties_s = [0.0, 2.0]");
        replace(&scenario, "penalty_s = 1.0", "penalty_s = 2.0");
        succeeds(cargo(&folder, &["wasm"]).await);
        let second = built.to_str().unwrap();
        let text = succeeds(ran(holeshot(&["test", second, scenarios])).await);
        assert!(text.contains("scenarios: ok. 2 passed, 0 failed"), "{text}");
        succeeds(ran(holeshot(&["check", second, "--against", first, "--frames", "10"])).await);

        let good = std::fs::read(second).unwrap();

        // A mistake in the rules is told with its line.
        replace(
            &folder.join("src/lib.rs"),
            "let happened = self.base.step(tick);",
            "assert!(tick.frame < 30, \"ice\");\n        let happened = self.base.step(tick);",
        );
        succeeds(cargo(&folder, &["wasm"]).await);
        let (code, text) = ran(holeshot(&["check", second])).await;
        assert_eq!(code, 1, "{text}");
        assert!(
            text.contains("frame 30: trap") && text.contains("panicked at src/lib.rs:") && text.contains("ice;"),
            "{text}"
        );
        assert!(text.contains("IceRace") && text.contains("/src/lib.rs:"), "{text}");
        under_a_race(&good, &std::fs::read(second).unwrap()).await;
    });
}

/// A race that begins under the rules that ship goes on under the good ones, when their file is written, and keeps them when the bad ones are.
async fn under_a_race(good: &[u8], bad: &[u8]) {
    let dir = data_dir();
    let watched = dir.path().join("rules.wasm");
    let host = Host::start_in(dir, |settings| settings.watch = vec![watched.clone()]).await;
    let api = Api::new(&host.url("")).unwrap();
    let bot = |name: &str, seed| Bot { name: name.into(), car: "gtr".into(), skill: 0.8, seed, with_udp: true };
    let (ada, ben) = (bot("Ada", 1), bot("Ben", 2));
    let players = [&ada, &ben].map(|bot| json!({ "name": bot.name, "data": { "car": bot.car } }));
    let race = host.open_room(&json!({ "players": players, "seed": 5 })).await;
    announce_errors(&race, "ice");
    let rules_of_race = async || host.get(&format!("/api/rooms/{race}")).await.1["open"]["module"].clone();
    let (of_ada, of_ben, ()) =
        tokio::join!(bots::play(&api, &race, &ada, None), bots::play(&api, &race, &ben, None), async {
            host.wait_phase(&race, "running").await;
            eventually("the race has left the frames in which the bad rules do not fail", SOON, async || {
                let open = host.get(&format!("/api/rooms/{race}")).await.1["open"].clone();
                if open["frame"].as_u64() > Some(60) { Ok(()) } else { Err(open.to_string()) }
            })
            .await;
            std::fs::write(&watched, good).unwrap();
            eventually("the race has the good rules", SOON, async || {
                let rules = rules_of_race().await;
                if rules["hash"] == ModuleHash::of(good).to_string() { Ok(()) } else { Err(rules.to_string()) }
            })
            .await;
            std::fs::write(&watched, bad).unwrap();
            eventually("the log says why the bad ones are refused", SOON, async || {
                let said = lines_with("src/lib.rs:");
                if said.is_empty() { Err("nothing yet".into()) } else { Ok(()) }
            })
            .await;
            assert_eq!(rules_of_race().await["hash"], ModuleHash::of(good).to_string());
        });
    for report in [of_ada.unwrap(), of_ben.unwrap()] {
        assert_eq!(report.ending, "finished", "{report:?}");
        let results = report.outcome["results"].as_array().unwrap();
        assert!(results.iter().all(|result| result["data"]["quarter_mile_s"].is_f64()), "{results:?}");
    }
    host.stop().await;
}
