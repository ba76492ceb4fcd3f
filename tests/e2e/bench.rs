//! Benches that start processes of their own: that they measure what they say, by what they counted. How fast anything is is nothing for a test on a machine that
//! does other things, too.

use serde_json::Value;

use crate::command::{LONG, output, text};
use crate::harness::run;
use crate::modules_made::{SHORT, Tally, short};

#[test]
fn rooms_are_counted_beside_a_bare_loop_with_the_same_datagrams() {
    run(120, async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.wasm");
        std::fs::write(&path, Tally::new(LONG, 100_000).wasm()).unwrap();
        let module = path.to_str().unwrap();
        let args = ["bench", "rooms", "--rooms", "3", "--seconds", "2", "--game", LONG, "--module", module, "--json"];
        let said = output(&args).await;
        assert!(said.status.success(), "{}", text(&said.stderr));
        let report: Value = serde_json::from_slice(&said.stdout).unwrap();
        let row = &report["rows"][0];
        let number = |pointer: &str| {
            row.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {row:#}"))
        };
        // Three rooms at 50 Hz for two seconds and some, on a machine that may be busy; two inputs and two snapshots in each room-tick.
        let (ticks, seconds) = (number("/ticks"), number("/seconds"));
        assert!(seconds >= 2.0 && (0.5..1.5).contains(&(ticks / (seconds * 150.0))), "{row:#}");
        let inputs = number("/inputs") + number("/inputs_missing");
        assert!((inputs / ticks - 2.0).abs() < 0.2, "{row:#}");
        assert!((number("/sent_per_tick") - 2.0).abs() < 1.0 && number("/received_per_tick") > 0.5, "{row:#}");
        assert!(number("/players/snapshots") > ticks, "{row:#}");
        // Parts add up, and what is measured is something.
        let parts = number("/cpu/user_us") + number("/cpu/system_us");
        assert!((number("/cpu/us") - parts).abs() < 1e-6 && parts > 0.0 && number("/shard_us") > 0.0, "{row:#}");
        let lateness = ["p50_us", "p99_us", "p999_us", "max_us"].map(|name| number(&format!("/lateness/{name}")));
        assert!(lateness.is_sorted() && lateness[3] > 0.0, "{lateness:?}");
        // The bare loop heard and said something like as much; on a busy machine less.
        for part in ["/limit/received", "/limit/sent"] {
            assert!((0.2..1.2).contains(&number(part)), "{part}: {row:#}");
        }
        let verdict = if row["broke"].is_null() { "holds" } else { "breaks" };
        assert_eq!(report[verdict], 3, "{report:#}");
    });
}

#[test]
fn a_soak_finds_nothing_left_behind_and_says_what_it_looked_at() {
    run(120, async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("short.wasm");
        std::fs::write(&path, short()).unwrap();
        let module = path.to_str().unwrap();
        let args =
            ["bench", "soak", "--minutes", "0.05", "--rooms", "4", "--game", SHORT, "--module", module, "--json"];
        let said = output(&args).await;
        let report: Value = serde_json::from_slice(&said.stdout)
            .unwrap_or_else(|error| panic!("{error}: {} {}", text(&said.stdout), text(&said.stderr)));
        // The exit code is the verdict.
        assert_eq!((said.status.code(), &report["holds"]), (Some(0), &Value::Bool(true)), "{:#}", report["checks"]);
        let checks = report["checks"].as_array().unwrap();
        for what in
            ["descriptors", "mappings", "instances of rules", "rows of the outbox", "rooms without a whole journal"]
        {
            assert!(checks.iter().any(|check| check["what"] == what), "{what}: {checks:#?}");
        }
        // The first turn and more than one after it.
        assert!(report["rooms_played"].as_u64().unwrap() >= 8, "{report:#}");
        let samples = report["samples"].as_array().unwrap();
        assert!(samples.iter().any(|sample| sample["sessions"].as_u64() > Some(0)), "{samples:#?}");
    });
}

#[test]
fn all_writes_a_report_that_another_is_compared_with() {
    run(120, async {
        let folder = tempfile::tempdir().unwrap();
        let stem = folder.path().join("one.report");
        let (stem, json) = (stem.to_str().unwrap(), folder.path().join("one.report.json"));
        let said = output(&["bench", "all", "--only", "seal", "--quick", "--times", "2", "--write", stem]).await;
        assert!(said.status.success(), "{}", text(&said.stderr));
        let markdown = std::fs::read_to_string(folder.path().join("one.report.md")).unwrap();
        assert!(markdown.contains("## bench seal") && markdown.contains("seal/open 64 bytes"), "{markdown}");
        // What somebody measured for an hour is not written over.
        let again = output(&["bench", "all", "--only", "seal", "--quick", "--write", stem]).await;
        assert!(!again.status.success() && text(&again.stderr).contains("one.report.md is there already"));

        let json = json.to_str().unwrap();
        let same = output(&["bench", "all", "--from", json, "--compare", json]).await;
        assert!(text(&same.stdout).contains("Nothing moved by more than its noise"), "{}", text(&same.stdout));
        let slower = folder.path().join("slower.json");
        let mut report: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
        let figure = &mut report["benches"][0]["figures"][0];
        figure["value"] = (figure["value"].as_f64().unwrap() * 100.0).into();
        std::fs::write(&slower, report.to_string()).unwrap();
        let args = ["bench", "all", "--from", slower.to_str().unwrap(), "--compare", json, "--fail-if-worse"];
        let moved = output(&args).await;
        assert_eq!(moved.status.code(), Some(1), "{}", text(&moved.stderr));
        let table = text(&moved.stdout);
        assert!(table.contains("WORSE") && table.contains("1 figures moved, 5 did not"), "{table}");
        std::fs::write(&slower, "{\"format\":9}").unwrap();
        let refused = output(&["bench", "all", "--from", slower.to_str().unwrap(), "--compare", json]).await;
        assert!(!refused.status.success() && text(&refused.stderr).contains("its format is 9"));
    });
}
