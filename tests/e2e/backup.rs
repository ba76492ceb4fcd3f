//! Backups as people make them: of a host process in the middle of races, restored elsewhere and started; ended in the middle; without space; touched.
//! What is in a backup and what is refused in it is tested file by file in `host/src/backup/tests.rs`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::command::{LONG, Served, holeshot, output, text};
use crate::harness::{SOON, client, data_dir, eventually, kinds, open_records, run, tell, unheard};
use crate::modules_made::SHORT;
use crate::mosquitto::Mosquitto;

/// Players who race one game after the other while a backup is made.
const RACERS: usize = 4;

/// Runs a command that prints JSON; gives its exit code, that, and what it said on standard error.
async fn asks(args: &[&str]) -> (i32, Value, String) {
    let output = output(args).await;
    let (said, error) = (text(&output.stdout), text(&output.stderr));
    (output.status.code().unwrap(), serde_json::from_str(&said).unwrap_or_default(), error)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn names(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

async fn back_up(data_dir: &Path, dest: &Path) -> Value {
    let (code, report, error) = asks(&["backup", path(dest), "--data-dir", path(data_dir), "--json"]).await;
    assert_eq!(code, 0, "{report} {error}");
    report
}

async fn restore(backup: &Path, data_dir: &Path) -> Value {
    let (code, report, error) = asks(&["restore", path(backup), "--data-dir", path(data_dir), "--json"]).await;
    assert_eq!(code, 0, "{report} {error}");
    report
}

/// Waits until the host has recorded the end of a room, of whatever kind.
async fn ended(served: &Served, room: &str) -> Value {
    eventually("the room has an end on record", SOON, async || {
        let answer = client().get(format!("{}/api/rooms/{room}", served.url)).send().await.unwrap();
        let body: Value = answer.json().await.unwrap();
        if body["recorded"]["ended_at"].is_null() { Err(body.to_string()) } else { Ok(body["recorded"].clone()) }
    })
    .await
}

async fn stop(served: Served) {
    served.signal(libc::SIGTERM);
    let (code, _, error) = served.end().await;
    assert_eq!(code, Some(0), "{error}");
}

/// What a room that ran to its end says.
const WHOLE_RACE: [&str; 5] = ["room.opened", "player.joined", "room.started", "room.finished", "room.closed"];

#[test]
fn a_backup_in_the_middle_of_races_has_every_finished_one_and_starts_elsewhere() {
    run(150, async {
        let (dir, elsewhere) = (data_dir(), tempfile::tempdir().unwrap());
        let served = Served::start_with_games(dir.path(), &["--linger-s", "0", "--drain-wait-s", "0"]).await;
        let (open_room, mut eve) = served.playing(LONG).await;
        eve.frame(60).await;
        // Races without a pause; those whose players have been said goodbye to are on the host's disk.
        let (finished, over) = (std::sync::Mutex::new(Vec::new()), AtomicBool::new(false));
        let racer = async || {
            while !over.load(Ordering::Acquire) {
                let (room, mut ada) = served.playing(SHORT).await;
                ada.event("finished").await;
                ada.bye().await;
                finished.lock().unwrap().push(room);
            }
        };
        let backups = async {
            let mut made = Vec::new();
            for number in 0..3 {
                let more = finished.lock().unwrap().len() + 2 * RACERS;
                eventually("more races", SOON, async || {
                    let now = finished.lock().unwrap().len();
                    if now >= more { Ok(()) } else { Err(format!("{now} of {more}")) }
                })
                .await;
                let before = finished.lock().unwrap().clone();
                // Events are on the disk before the goodbye; the journal's thread may close the file a moment later.
                let closed = dir.path().join("journals/closed");
                let is_closed = |room: &&String| closed.join(format!("{room}.journal")).exists();
                let newest = before.iter().rfind(is_closed).cloned();
                let dest = elsewhere.path().join(format!("b{number}"));
                let begun = Instant::now();
                let report = back_up(dir.path(), &dest).await;
                println!("{} races before, backup in {:?}: {}", before.len(), begun.elapsed(), report["bytes"]);
                made.push((dest, before, newest));
            }
            over.store(true, Ordering::Release);
            made
        };
        let (made, ..) = tokio::join!(backups, racer(), racer(), racer(), racer());
        let all = finished.lock().unwrap().len();
        // It noticed nothing: its own records have everything.
        served.signal(libc::SIGTERM);
        let (code, _, error) = served.end().await;
        assert_eq!((code, error.contains("ERROR")), (Some(0), false), "{error}");
        assert_eq!(unheard(&dir.path().join("records.sqlite3")), "");

        for (number, (backup, before, newest)) in made.into_iter().enumerate() {
            let data = elsewhere.path().join(format!("data{number}"));
            restore(&backup, &data).await;
            let started = Served::start_with_games(&data, &["--linger-s", "0"]).await;
            let record = ended(&started, &open_room).await;
            assert_eq!((&record["state"], &record["reason"]), (&json!("aborted"), &json!("host_lost")), "{record}");
            let records = data.join("records.sqlite3");
            let (mut lost, mut doubled) = (0, 0);
            for room in &before {
                ended(&started, room).await;
                let mut expected: Vec<&str> = WHOLE_RACE.to_vec();
                for kind in kinds(&records, room) {
                    match expected.iter().position(|expected| *expected == kind) {
                        Some(at) => drop(expected.remove(at)),
                        None => doubled += 1,
                    }
                }
                lost += expected.len();
            }
            tell!("of {all} races {} were over before backup {number}: lost {lost}, doubled {doubled}", before.len());
            assert_eq!((lost, doubled), (0, 0));
            // Journals replay, by the modules of the backup: of races that were over, and of the one that was not.
            for (room, state) in
                [(before.first(), "whole"), (newest.as_ref(), "whole"), (Some(&open_room), "cut_short")]
            {
                let (code, report, error) = asks(&["replay", "--json", room.unwrap(), "--data-dir", path(&data)]).await;
                assert_eq!((code, &report["verdict"]), (0, &json!("proven")), "{report} {error}");
                assert_eq!(report["journal"]["state"], state, "{report}");
            }
            // It goes on from there, under its old name.
            let (room, mut ada) = started.playing(SHORT).await;
            ada.event("finished").await;
            ada.bye().await;
            stop(started).await;
            assert_eq!(kinds(&records, &room), WHOLE_RACE);
            assert_eq!(unheard(&records), "");
            let hosts: i64 =
                open_records(&records).query_row("SELECT COUNT(*) FROM hosts", [], |row| row.get(0)).unwrap();
            assert_eq!(hosts, 1);
        }
    });
}

#[test]
fn events_that_were_on_their_way_are_sent_once_after_a_restore() {
    run(120, async {
        let Some(broker) = Mosquitto::start("").await else { return };
        let (dir, elsewhere) = (data_dir(), tempfile::tempdir().unwrap());
        let recorder_dir = elsewhere.path().join("manager");
        let args = ["manager", "--json", "--broker", &broker.url(), "--data-dir", path(&recorder_dir)];
        let recorder = Served::started(holeshot(&[&args[..], &["--http-listen", "127.0.0.1:0"]].concat())).await;
        let broker_url = broker.url();
        let away = ["--broker", &broker_url, "--manager", "no", "--linger-s", "0"];
        let mut served = Served::start_with_games(dir.path(), &away).await;
        let race = async |served: &Served| {
            let (room, mut ada) = served.playing(SHORT).await;
            ada.event("finished").await;
            ada.bye().await;
            room
        };
        let recorded = race(&served).await;
        ended(&recorder, &recorded).await;
        // The manager stands still: what happens now waits in the outbox.
        recorder.signal(libc::SIGSTOP);
        let waiting = race(&served).await;
        let backup = elsewhere.path().join("b");
        let report = back_up(dir.path(), &backup).await;
        assert!(report["records"].is_null(), "{report}");
        assert!(report["outbox"]["rows"]["outbox"].as_u64().unwrap() >= WHOLE_RACE.len() as u64, "{report}");
        // It goes on, and so does the host, which is then lost with its disk.
        recorder.signal(libc::SIGCONT);
        ended(&recorder, &waiting).await;
        let later = race(&served).await;
        ended(&recorder, &later).await;
        served.child.kill().await.unwrap();

        // With the same manager, which is ahead of the backup: nothing is doubled, nothing new is lost.
        let data = elsewhere.path().join("data");
        restore(&backup, &data).await;
        let started = Served::start_with_games(&data, &away).await;
        let anew = race(&started).await;
        ended(&recorder, &anew).await;
        stop(started).await;
        stop(recorder).await;
        let records = recorder_dir.join("records.sqlite3");
        for room in [&recorded, &waiting, &later, &anew] {
            assert_eq!(kinds(&records, room), WHOLE_RACE, "{room}");
        }
        assert_eq!(unheard(&records), "");
        // The records of the manager's folder are backed up like a host's, and what waited in the host's backup is recorded by a manager of its own.
        let report = back_up(&recorder_dir, &elsewhere.path().join("m")).await;
        assert_eq!((&report["host"], &report["outbox"]), (&Value::Null, &Value::Null), "{report}");
        let alone = elsewhere.path().join("alone");
        restore(&backup, &alone).await;
        let started = Served::start_with_games(&alone, &[]).await;
        ended(&started, &waiting).await;
        stop(started).await;
        assert_eq!(kinds(&alone.join("records.sqlite3"), &waiting), WHOLE_RACE);
    });
}

/// A data folder whose backup takes a moment: a host made it, and its records were fattened.
async fn fat(mib: u32) -> tempfile::TempDir {
    let dir = data_dir();
    let served = Served::start(dir.path(), &[]).await;
    stop(served).await;
    let records = rusqlite::Connection::open(dir.path().join("records.sqlite3")).unwrap();
    let sql = "INSERT INTO rejected (received_at, topic, reason, payload) VALUES ('', '', '', zeroblob(1048576))";
    for _ in 0..mib {
        records.execute(sql, []).unwrap();
    }
    records.close().unwrap();
    dir
}

#[test]
fn a_backup_that_is_killed_leaves_nothing_that_is_taken_for_one() {
    run(120, async {
        let dir = fat(150).await;
        let elsewhere = tempfile::tempdir().unwrap();
        let data = elsewhere.path().join("data");
        let mut killed = 0;
        for attempt in 0.. {
            // Killed later and later, until one is whole.
            let (dest, part) = (elsewhere.path().join(format!("b{attempt}")), format!("b{attempt}.part"));
            let part = elsewhere.path().join(part);
            let mut child = holeshot(&["backup", path(&dest), "--data-dir", path(dir.path())]).spawn().unwrap();
            let begun = Instant::now();
            while !part.exists() && !dest.exists() && begun.elapsed() < SOON {
                sleep(Duration::from_millis(1)).await;
            }
            sleep(Duration::from_millis(attempt * 120)).await;
            child.kill().await.unwrap();
            if dest.exists() {
                restore(&dest, &data).await;
                break;
            }
            killed += 1;
            for wrong in [&dest, &part] {
                let (code, _, error) = asks(&["restore", path(wrong), "--data-dir", path(&data)]).await;
                assert_eq!(code, 1, "{error}");
                assert!(error.contains("is not a backup") && error.contains("Nothing was changed"), "{error}");
            }
            assert!(!data.exists() && part.join("identity.json").exists() || attempt == 0);
            let (code, _, error) = asks(&["backup", path(&dest), "--data-dir", path(dir.path())]).await;
            assert_eq!(code, 1, "{error}");
            assert!(error.contains(path(&part)) && error.contains("delete it"), "{error}");
        }
        println!("{killed} backups were killed before one was whole");
        assert!(killed >= 2, "{killed}");
        // Asked to end, it deletes what it has.
        let dest = elsewhere.path().join("asked");
        let child = holeshot(&["backup", path(&dest), "--data-dir", path(dir.path())]).spawn().unwrap();
        let part = elsewhere.path().join("asked.part");
        eventually("it has begun", SOON, async || if part.exists() { Ok(()) } else { Err(String::new()) }).await;
        let pid = libc::pid_t::try_from(child.id().unwrap()).unwrap();
        // SAFETY: kill takes two numbers and touches no memory. The process is a child that was not waited for, so the number is still its own.
        #[allow(unsafe_code)]
        unsafe {
            libc::kill(pid, libc::SIGTERM);
        }
        let ended = timeout(SOON, child.wait_with_output()).await.expect("it ends").unwrap();
        assert_eq!(ended.status.code(), Some(1));
        assert!(text(&ended.stderr).contains("stopped; what was copied is deleted"), "{}", text(&ended.stderr));
        assert!(!part.exists() && !dest.exists());
    });
}

#[test]
fn a_restore_takes_no_place_that_is_taken_and_no_backup_that_was_touched() {
    run(120, async {
        let (dir, elsewhere) = (data_dir(), tempfile::tempdir().unwrap());
        let served = Served::start(dir.path(), &[]).await;
        let backup = elsewhere.path().join("b");
        back_up(dir.path(), &backup).await;
        // What people read.
        let other = elsewhere.path().join("c");
        let said = output(&["backup", path(&other), "--data-dir", path(dir.path()), "--no-journals"]).await;
        let said = text(&said.stdout);
        for words in ["read back and whole", "The host's keys", &format!("holeshot restore {}", other.display())] {
            assert!(said.contains(words), "{said}");
        }
        let refused = async |source: &Path, data: &Path, more: &[&str], words: &str| {
            let args = ["restore", path(source), "--data-dir", path(data)];
            let (code, _, error) = asks(&[&args[..], more].concat()).await;
            assert_eq!(code, 1, "{error}");
            assert!(error.contains(words), "no {words:?} in {error}");
        };
        // The folder of a host that runs: not even with --replace.
        refused(&backup, dir.path(), &[], "a host runs on the data folder").await;
        refused(&backup, dir.path(), &["--replace"], "a host runs on the data folder").await;
        assert_eq!(client().get(format!("{}/readyz", served.url)).send().await.unwrap().status(), 200);
        stop(served).await;
        refused(&backup, dir.path(), &[], "is not empty").await;
        let replaced = output(&["restore", path(&backup), "--data-dir", path(dir.path()), "--replace"]).await;
        assert_eq!(replaced.status.code(), Some(0), "{}", text(&replaced.stderr));
        let said = text(&replaced.stdout);
        let before = said.lines().find_map(|line| line.strip_prefix("What was there is at ")).unwrap();
        let before = Path::new(before.trim_end_matches('.'));
        assert!(before.join("records.sqlite3").exists() && path(before).contains(".before-"), "{said}");
        std::fs::remove_dir_all(before).unwrap();

        let data = elsewhere.path().join("data");
        let manifest = backup.join("backup.json");
        let whole = std::fs::read_to_string(&manifest).unwrap();
        let records = backup.join("records.sqlite3");
        let bytes = std::fs::read(&records).unwrap();
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 0x10;
        std::fs::write(&records, &flipped).unwrap();
        refused(&backup, &data, &[], "records.sqlite3 in it has been changed").await;
        std::fs::remove_file(&records).unwrap();
        refused(&backup, &data, &[], "records.sqlite3 is missing").await;
        std::os::unix::fs::symlink("/etc/hostname", &records).unwrap();
        refused(&backup, &data, &[], "no file but a link").await;
        std::fs::remove_file(&records).unwrap();
        std::fs::write(&records, &bytes).unwrap();
        std::fs::write(backup.join("cron"), "").unwrap();
        refused(&backup, &data, &[], "somebody put it there").await;
        std::fs::remove_file(backup.join("cron")).unwrap();
        for (from, to, words) in [
            ("\"admin-token\"", "\"../admin-token\"", "a data folder has no such file"),
            ("\"admin-token\"", "\"/etc/cron.d/holeshot\"", "a data folder has no such file"),
            ("\"format\": 1", "\"format\": 2", "use the newer program"),
            ("\"layout\": ", "\"layout\": 9", "its layout"),
            ("{", "", "is not what a backup has"),
        ] {
            std::fs::write(&manifest, whole.replacen(from, to, 1)).unwrap();
            refused(&backup, &data, &[], words).await;
        }
        std::fs::write(&manifest, &whole).unwrap();
        assert_eq!(names(elsewhere.path()), ["b", "c"].map(str::to_owned).into(), "nothing half made is left");
        restore(&backup, &data).await;
    });
}

/// A shell with a small disk of its own at `$1`, which is the rest of the machine's as it ends. None where the system does not let tests have that.
fn with_small_disk(script: &str, at: &Path, kib: u32) -> Option<Command> {
    let small = format!("mount -t tmpfs -o size={kib}k none \"$1\"");
    let allowed = std::process::Command::new("unshare")
        .args(["-rm", "sh", "-c", &small, "sh", path(at)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !allowed.is_ok_and(|status| status.success()) {
        let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!is_ci, "a file system of its own (unshare -rm, mount) is not to be had");
        tell!("SKIPPED: this system gives no file system of its own (unshare -rm, mount -t tmpfs)");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &format!("{small} && {script}"), "sh", path(at)]);
    command.arg(env!("CARGO_BIN_EXE_holeshot-under-test")).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command)
}

#[test]
fn a_full_disk_is_told_before_and_in_the_middle_and_nothing_is_left() {
    run(90, async {
        let dir = fat(3).await;
        let disk = tempfile::tempdir().unwrap();
        // What df says is enough to refuse; without df the disk itself says it, in the middle.
        let script = "\"$2\" backup \"$1/b\" --data-dir \"$3\"; echo \"code $?\"; \
                      PATH= \"$2\" backup \"$1/b\" --data-dir \"$3\"; echo \"code $?\"; ls -A \"$1\"; \
                      \"$2\" doctor --json --data-dir \"$1\" >\"$4\"; echo \"code $?\"";
        let Some(mut command) = with_small_disk(script, disk.path(), 2_048) else { return };
        let report = dir.path().join("report.json");
        let output = timeout(SOON * 2, command.args([dir.path(), &report]).output()).await.unwrap().unwrap();
        let (said, error) = (text(&output.stdout), text(&output.stderr));
        let errors: Vec<&str> = error.lines().filter(|line| line.starts_with("error")).collect();
        assert_eq!(errors.len(), 2, "{said} {error}");
        assert!(errors[0].contains("the backup needs") && errors[0].contains("--no-journals"), "{error}");
        assert!(errors[1].contains("full"), "{error}");
        assert_eq!(said, "code 1\ncode 1\ncode 1\n", "{error}");
        let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
        let disk = report["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == "disk").unwrap();
        assert_eq!(disk["verdict"], "problem", "{disk}");

        // No right to write there.
        let dest = Path::new("/proc/b");
        let (code, _, error) = asks(&["backup", path(dest), "--data-dir", path(dir.path())]).await;
        assert_eq!(code, 1);
        assert!(error.contains("cannot make /proc/b.part"), "{error}");
        // On another file system than the data folder.
        if Path::new("/dev/shm").is_dir() {
            let shm = tempfile::tempdir_in("/dev/shm").unwrap();
            back_up(dir.path(), &shm.path().join("b")).await;
            restore(&shm.path().join("b"), &dir.path().join("restored")).await;
        }
    });
}
