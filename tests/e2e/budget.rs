//! The frame budget as a process: the example has its published figures, a model that was written is read, and what is no model is told by its line. A
//! host is measured and predicted; how well is nothing for a test on a machine that does other things, too.

use std::path::Path;

use serde_json::Value;

use crate::command::{LONG, Served, output, text};
use crate::harness::run;
use crate::modules_made::Tally;

#[test]
fn the_example_is_printed_and_written_and_read_again() {
    run(60, async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let file = path.to_str().unwrap();
        let example = output(&["budget", "--example", "--write", file]).await;
        let table = text(&example.stdout);
        assert!(example.status.success(), "{table} {}", text(&example.stderr));
        for figure in ["266.29", "66.57", "33.29", "0.84", "225.13", "270"] {
            assert!(table.contains(figure), "{figure}: {table}");
        }
        assert_eq!(text(&output(&["budget", file]).await.stdout), table, "what was written says the same");
        // It is somebody's own now.
        let again = output(&["budget", "--example", "--write", file]).await;
        assert_eq!(again.status.code(), Some(1), "{}", text(&again.stderr));
        assert!(again.stdout.is_empty() && text(&again.stderr).contains("not there yet"));

        let json = output(&["budget", file, "--json"]).await;
        let report: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(format!("{:.2}", report["frame_ms"]["likely"].as_f64().unwrap()), "266.29");
        assert_eq!(report["operations"].as_array().unwrap().len(), 9);

        let model = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, model.replacen("t_ms = 0.1", "t_ms = { min = 0.1, likely = 0.2, max = 0.9 }", 1))
            .unwrap();
        let ranged = text(&output(&["budget", file, "--seed", "5"]).await.stdout);
        assert!(ranged.contains("(seed 5)") && ranged.contains("3.20 .. 6.40 .. 28.80"), "{ranged}");
        assert_eq!(text(&output(&["budget", file, "--seed", "5"]).await.stdout), ranged);

        std::fs::write(&path, model.replacen("p = 0.8", "p = 8", 1)).unwrap();
        let wrong = output(&["budget", file]).await;
        let said = text(&wrong.stderr);
        assert_eq!(wrong.status.code(), Some(1), "{said}");
        assert!(said.contains("mine.toml:") && said.contains("`p` is 8; accepted: a number from 0 to 1"), "{said}");
    });
}

/// A game that begins at once and is longer than any test.
fn long_game(folder: &Path) -> String {
    let path = folder.join("long.wasm");
    std::fs::write(&path, Tally::new(LONG, 100_000).wasm()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_is_measured_is_a_model_that_is_read_again() {
    run(120, async {
        let folder = tempfile::tempdir().unwrap();
        let (module, path) = (long_game(folder.path()), folder.path().join("frame.toml"));
        let file = path.to_str().unwrap();
        let host = Served::start_with_games(folder.path(), &[]).await;
        let (_room, ada) = host.playing(LONG).await;
        let game = ["--game", LONG, "--module", &module, "--players", "1", "--rooms", "1,2", "--seconds", "1"];
        let game = [&game[..], &["--lateness-ms", "1000"]].concat();
        let args = [&["budget", "--measure", "--write", file, "--against", &host.url, "--json"][..], &game].concat();
        let measured = output(&args).await;
        assert!(measured.status.success(), "{}", text(&measured.stderr));
        let said: Value = serde_json::from_slice(&measured.stdout).unwrap();
        // The one room of the host that was asked, not those that were measured.
        let rooms = said["counts"]["rooms"].as_f64().unwrap();
        assert!((0.5..1.5).contains(&rooms), "{said:#}");
        // On a machine that is busy enough not even one room is in time.
        assert!(said["most"].is_null() || said["most"]["rooms"].as_u64().unwrap() >= 1, "{said:#}");
        let model = std::fs::read_to_string(&path).unwrap();
        assert!(model.contains(&host.url) && model.contains("[[operation]]"), "{model}");
        let read = output(&["budget", file, "--json"]).await;
        let report: Value = serde_json::from_slice(&read.stdout).unwrap();
        assert_eq!(report, said["report"], "{}", text(&read.stderr));
        let rows = report["operations"].as_array().unwrap();
        // Those that are known by difference may be nothing on a machine that does other things, too.
        for name in ["receive a datagram", "run the rules", "let a player in"] {
            let row = rows.iter().find(|row| row["name"] == name).unwrap();
            assert!(row["t_ms"]["likely"].as_f64().unwrap() > 0.0, "{row}");
        }
        drop(ada);
    });
}

#[test]
fn a_check_runs_its_loads_and_prints_both_numbers() {
    run(120, async {
        let folder = tempfile::tempdir().unwrap();
        let module = long_game(folder.path());
        let game = ["--game", LONG, "--module", &module, "--players", "1", "--rooms", "1,2", "--seconds", "1"];
        let checked =
            output(&[&["budget", "--check", "--loads", "1,3", "--runs", "1", "--json"][..], &game].concat()).await;
        // Whether it fits is told by the exit code, too; here it may be either.
        let said: Value = serde_json::from_slice(&checked.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&checked.stderr)));
        let rows = said["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 2);
        let (mut fits, mut off) = (true, false);
        for (row, rooms) in rows.iter().zip([1, 3]) {
            assert_eq!(row["predicted"]["rooms"], rooms);
            let number = |pointer: &str| row.pointer(pointer).and_then(Value::as_f64).unwrap();
            let (predicted, measured) = (number("/predicted/cpu_us"), number("/measured/cpu_us"));
            assert!(predicted > 0.0 && measured > 0.0, "{row}");
            assert!((number("/off") - (predicted / measured - 1.0)).abs() < 1e-9, "{row}");
            let (is_off, drift) = (number("/off").abs() > 0.2, number("/drift"));
            fits &= !is_off;
            off |= is_off && drift <= 0.2;
            assert!(drift >= 0.0, "{row}");
            assert!(number("/players/snapshots") > 0.0 && number("/players/inputs") > 0.0, "{row}");
        }
        let outcome = if fits {
            ("fits", 0)
        } else if off {
            ("off", 1)
        } else {
            ("not_shown", 3)
        };
        assert_eq!((said["outcome"].as_str(), checked.status.code()), (Some(outcome.0), Some(outcome.1)));
    });
}
