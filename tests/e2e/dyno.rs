//! The dyno as a process: cars of the catalogue and of a file, what it prints, what it says of files that are no car files and of modules that are not
//! of the drag race's family.

use std::time::Duration;

use misrule::{Misdeed, When};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::command::{holeshot, output, text};
use crate::harness::{eventually, run};
use crate::modules_made::{Tally, misrule, orders, tally};

/// What a machine with other work takes until the rules' threads run, and until they have ended.
const BUSY: Duration = Duration::from_secs(60);

/// Runs a command that fails: what it says.
async fn fails(args: &[&str]) -> String {
    let output = output(args).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty(), "a failure is no output: {}", text(&output.stdout));
    said
}

/// Runs a command that prints JSON.
async fn json(args: &[&str]) -> Value {
    let output = output(args).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn cars_are_measured_as_table_sheet_and_json() {
    run(300, async {
        let shown = output(&["dyno", "--car", "model_3p", "--car", "wrx", "--prove"]).await;
        let table = text(&shown.stdout);
        assert!(shown.status.success(), "{table} {}", text(&shown.stderr));
        assert!(shown.stderr.is_empty(), "progress is for terminals: {}", text(&shown.stderr));
        for words in [
            "the best of each car under drag-race",
            "wrx: Subaru WRX",
            "model_3p: Tesla",
            "shift  at rpm",
            "limited by",
            "its 10 neighbours: none is quicker",
            "proof for model_3p: nothing in the grid is quicker",
        ] {
            assert!(table.contains(words), "{words}: {table}");
        }

        let csv = text(&output(&["dyno", "--car", "model_3p", "--csv"]).await.stdout);
        assert!(csv.starts_with("car,name,year") && csv.lines().count() == 2, "{csv}");

        // From a file as from the catalogue.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cars.toml");
        let file = path.to_str().unwrap();
        std::fs::write(&path, output(&["dyno", "--example"]).await.stdout).unwrap();
        let of_catalogue = json(&["dyno", "--car", "model_3p", "--runs", "20", "--json"]).await;
        assert_eq!(json(&["dyno", file, "--car", "model_3p", "--runs", "20", "--json"]).await, of_catalogue);
        let elapsed_s = |findings: &Value| findings["sheets"][0]["best"]["run"]["elapsed_s"].as_f64().unwrap();
        assert_eq!(of_catalogue["sheets"][0]["best"]["optimum"]["proven"], true);

        // Another car with the same id: 200 kg more take a third of a second or so.
        let cars = std::fs::read_to_string(&path).unwrap();
        let (before, of_car) = cars.split_once("id = \"model_3p\"").unwrap();
        let (_, after) = of_car.split_once("curb_mass_kg = ").unwrap();
        let (mass, _) = after.split_once('\n').unwrap();
        let heavier: f64 = mass.split_whitespace().next().unwrap().parse::<f64>().unwrap() + 200.0;
        let of_car = of_car.replacen(&format!("curb_mass_kg = {mass}"), &format!("curb_mass_kg = {heavier:.1}"), 1);
        std::fs::write(&path, format!("{before}id = \"model_3p\"{of_car}")).unwrap();
        let of_heavier = json(&["dyno", file, "--car", "model_3p", "--runs", "0", "--json"]).await;
        let slower_s = elapsed_s(&of_heavier) - elapsed_s(&of_catalogue);
        assert!((0.1..0.8).contains(&slower_s), "{slower_s}");
    });
}

/// Balances a car into a new file. It has one gear, so its searches are quick.
fn balance(file: &str) -> [&str; 9] {
    ["dyno", "--car", "model_3p", "--runs", "0", "--json", "--balance", "--write", file]
}

#[test]
fn a_balanced_car_is_at_its_target_when_its_file_is_run() {
    run(300, async {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let file = path("balanced.toml");
        let off_s = |findings: &Value| findings["classes"]["classes"][0]["members"][0]["off_s"].as_f64().unwrap().abs();
        let before = json(&balance(&file)).await;
        assert!(off_s(&before) > 0.05 && before["balance"][0]["chosen"]["reaches"] == true, "{}", before["balance"]);
        let after = json(&["dyno", &file, "--car", "model_3p", "--runs", "0", "--json"]).await;
        assert!(off_s(&after) <= 0.05, "{}", after["classes"]);

        // And a room can bring it.
        let options = json(&["dyno", &file, "--car", "model_3p", "--options"]).await;
        let cars = options["cars"]["car"].as_array().unwrap();
        assert!(cars.len() == 1 && cars[0]["id"] == "model_3p", "{options}");

        // What cannot be written is told before the search.
        let said = fails(&balance(&file)).await;
        assert!(said.contains("exists already") && said.contains("balanced.toml"), "{said}");
        let said = fails(&balance(&path("absent/balanced.toml"))).await;
        assert!(said.contains("--write") && said.contains("does not exist"), "{said}");
    });
}

#[test]
fn what_is_no_car_file_is_told_with_its_line() {
    run(300, async {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let example = text(&output(&["dyno", "--example"]).await.stdout);
        std::fs::write(at("empty.toml"), "").unwrap();
        std::fs::write(at("bytes.toml"), b"[shared]\n\xff\xfe").unwrap();
        std::fs::write(at("wrong.toml"), "[shared\n").unwrap();
        std::fs::write(at("negative.toml"), example.replacen("wheelbase_m = 2.310", "wheelbase_m = -2.310", 1))
            .unwrap();
        std::fs::write(at("misspelt.toml"), example.replacen("limiter_rpm", "limitter_rpm", 1)).unwrap();
        std::fs::File::create(at("huge.toml")).unwrap().set_len(1 << 32).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        let made = Command::new("mkfifo").arg(at("pipe")).status().await.unwrap();
        assert!(made.success());
        for (name, words) in [
            ("absent.toml", &["No such file"][..]),
            ("empty.toml", &["empty.toml:", "--example"]),
            ("bytes.toml", &["not UTF-8", "byte 9"]),
            ("wrong.toml", &["wrong.toml:1", "not TOML"]),
            ("negative.toml", &["negative.toml:", "mx5", "wheelbase_m", "-2.31", "accepted"]),
            ("misspelt.toml", &["misspelt.toml:", "mx5", "limitter_rpm"]),
            ("huge.toml", &["more than 1048576 bytes"]),
            ("folder", &["not a regular file"]),
            ("pipe", &["not a regular file"]),
        ] {
            let said = fails(&["dyno", at(name).to_str().unwrap()]).await;
            for words in words {
                assert!(said.contains(words), "{name}: {words:?} is not in {said}");
            }
            assert!(said.contains(name), "{said}");
        }
        let said = fails(&["dyno", "--car", "horse"]).await;
        assert!(said.contains("\"horse\"") && said.contains("mx5, civic_type_r"), "{said}");
    });
}

#[test]
fn a_module_that_is_not_of_the_family_says_so() {
    run(300, async {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| -> String {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let with = |module: String| async move { fails(&["dyno", "--car", "model_3p", "--module", &module]).await };
        let cases: [(&str, Vec<u8>, &[&str]); 6] = [
            ("text.wasm", b"[package]".to_vec(), &["text.wasm", "not a WebAssembly module"]),
            ("tally.wasm", tally(), &["tally", "not of the drag race's family", "holeshot new"]),
            (
                "crowd.wasm",
                Tally::new("crowd", 100).with_players_min(2).wasm(),
                &["not of the drag race's family", "2 players"],
            ),
            (
                "traps.wasm",
                misrule(orders(Misdeed::Traps, When::FromFrame, 300)),
                &["failed in frame 300", "told to trap", "holeshot check"],
            ),
            ("spins.wasm", misrule(orders(Misdeed::Spins, When::FromFrame, 0)), &["failed in frame 0", "endless loop"]),
            (
                "own.wasm",
                misrule(orders(Misdeed::RefusesOwnState, When::FromFrame, 0)),
                &["does not take back a state"],
            ),
        ];
        for (name, bytes, words) in cases {
            let said = with(write(name, &bytes)).await;
            for words in words {
                assert!(said.contains(words), "{name}: {words:?} is not in {said}");
            }
        }
        let said = with(folder.path().to_str().unwrap().to_owned()).await;
        assert!(said.contains("not a regular file"), "{said}");
    });
}

#[test]
fn an_interrupt_ends_it_at_once() {
    run(180, async {
        let child = holeshot(&["dyno"]).spawn().unwrap();
        let pid = child.id().unwrap().to_string();
        // Once rules run there is a thread that watches over them.
        eventually("the dyno works", BUSY, async || {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let names: Vec<String> =
                tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).collect();
            if names.iter().any(|name| name.trim() == "rules-watchdog") { Ok(()) } else { Err(names.concat()) }
        })
        .await;
        assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
        let ended = timeout(BUSY, child.wait_with_output()).await.expect("it ends").unwrap();
        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.stdout.is_empty() && text(&ended.stderr).contains("broken off"), "{}", text(&ended.stderr));
    });
}
