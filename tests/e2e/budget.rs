//! The frame budget as a process: the example has its published figures, a model that was written is read, and what is no model is told by its line.

use serde_json::Value;

use crate::command::{output, text};
use crate::harness::run;

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
