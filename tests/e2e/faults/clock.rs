//! A wall clock that is set back, in running processes and between their starts. Times of events go back with it; order and counts do not.

use std::path::{Path, PathBuf};

use super::process::skipped;
use super::site::{Part, Plan, Site};
use crate::harness::{open_records, run};
use crate::mosquitto::Mosquitto;

/// Events of rooms that end between two changes.
const BETWEEN: u64 = 2_000;

/// The library of Debian's package `faketime`.
fn library() -> Option<PathBuf> {
    let folders = Path::new("/usr/lib").read_dir().ok()?.flatten().map(|entry| entry.path());
    let places = folders.chain([PathBuf::from("/usr/lib")]).map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    places.into_iter().find(|path| path.exists())
}

#[test]
fn a_clock_that_is_set_back_by_an_hour() {
    run(240, async {
        let Some(library) = library() else { return skipped("there is no libfaketimeMT.so.1", "faketime") };
        let Some(broker) = Mosquitto::start("").await else { return };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("offset");
        // In one step: a process that reads in between must not find it empty.
        let set = |offset: &str| {
            let new = folder.path().join("new");
            std::fs::write(&new, offset).unwrap();
            std::fs::rename(&new, &file).unwrap();
        };
        set("+0");
        let environment = [
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let mut site = Site::start(broker, &Plan { environment, ..Plan::default() }).await;

        site.burst().goes_on(BETWEEN).await;
        set("-3600");
        site.burst().goes_on(BETWEEN).await;
        site.verdict("the clock of the running host and manager is set back by an hour", true).await;
        site.burst().goes_on(BETWEEN).await;
        for (part, offset) in [(Part::Host, "-86400"), (Part::Manager, "-172800"), (Part::Host, "+60")] {
            site.kill(part).await;
            set(offset);
            site.restart(part).await;
            site.burst().goes_on(BETWEEN).await;
        }
        let records = site.records();
        site.verdict(
            "the clock is set back between kill -9 and start, by a day and by another, and forward again",
            false,
        )
        .await;

        // It was so.
        let sql = "SELECT COUNT(*) FROM (SELECT time < LAG(time) OVER (ORDER BY id) AS back FROM events) WHERE back";
        let back: i64 = open_records(&records).query_row(sql, [], |row| row.get(0)).unwrap();
        assert!(back >= 3, "times went back {back} times");
    });
}
