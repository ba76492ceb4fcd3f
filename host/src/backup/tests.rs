//! Copies of databases that are written to, folders that are no backups, and events that are in one file or the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::database::{self, Kind, Reader};
use super::make::make_in;
use super::{BackupError, MANIFEST_FILE, Made, Manifest, Options, Progress, RestoreError, Restored, Stage, Watch};
use crate::admin::AdminToken;
use crate::events::InternalEvent;
use crate::events::outbox::{Limits, Outbox, Wake};
use crate::identity::Identity;
use crate::limits::disk::DiskSpace;

/// A data folder with an identity and both databases.
fn data_folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::load_or_create(dir.path()).unwrap();
    AdminToken::load_or_create(dir.path()).unwrap();
    crate::manager::records::open(dir.path()).unwrap();
    drop(outbox(dir.path(), &identity.host_id));
    dir
}

fn outbox(dir: &Path, host: &str) -> Outbox {
    Outbox::open(dir, host, Limits::default(), Arc::new(Wake::default())).unwrap()
}

fn event(number: u64) -> InternalEvent {
    let data = json!({ "number": number });
    InternalEvent { kind: "rules.counted".into(), module: Some("m".into()), room: None, data, time: SystemTime::now() }
}

fn options(data_dir: &Path, dest: &Path) -> Options {
    Options { data_dir: data_dir.to_owned(), dest: dest.to_owned(), journals: true }
}

fn make(data_dir: &Path, dest: &Path) -> Result<Made, BackupError> {
    // Starting `df` would hold the lock files of other tests for a moment, until it is another program.
    make_in(&options(data_dir, dest), &mut Watch::new(&mut |_| {}, &AtomicBool::new(false)), |_| None)
}

fn restore(backup: &Path, data_dir: &Path, replace: bool) -> Result<Restored, RestoreError> {
    super::restore(backup, data_dir, replace, &mut Watch::new(&mut |_| {}, &AtomicBool::new(false)))
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_database_is_copied_as_of_one_moment_while_it_is_written() {
    let dir = data_folder();
    let path = dir.path().join(Kind::Records.file());
    let writer = Connection::open(&path).unwrap();
    writer.execute_batch("INSERT INTO origins (origin, host) VALUES ('h.1', 'h')").unwrap();
    // Some MiB, so that the copy takes several steps.
    let insert = |from: u64, to: u64| {
        let transaction = writer.unchecked_transaction().unwrap();
        for sequence in from..to {
            let sql = "INSERT INTO events (origin, sequence, time, kind, json) VALUES (1, ?1, '', 'x', ?2)";
            writer.execute(sql, rusqlite::params![sequence as i64, "y".repeat(4_000)]).unwrap();
        }
        transaction.commit().unwrap();
    };
    insert(1, 3_001);
    let (mut next, mut steps) = (3_001, 0);
    let mut tell = |progress: Progress| {
        // Written in the middle of the copy, which must neither see it nor begin again.
        if progress.done_bytes > 0 && next < 4_000 {
            insert(next, next + 10);
            next += 10;
            steps += 1;
        }
    };
    let copy = dir.path().join("copy");
    let stop = AtomicBool::new(false);
    let mut watch = Watch::new(&mut tell, &stop);
    watch.begin(Stage::Copying, 0);
    let facts = database::copy(Kind::Records, &path, &copy, &mut watch).unwrap();
    assert_eq!((facts.rows["events"], facts.origins["h.1"]), (3_000, 3_000));
    database::verify(Kind::Records, &copy, &facts).unwrap();
    assert!(steps >= 2, "the copy took {steps} steps");
    let now = Reader::open(Kind::Records, &path).unwrap().facts().unwrap();
    assert_eq!(now.rows["events"], 3_000 + 10 * steps);
    // Nothing beside it, not even when it is read.
    assert_eq!(names(dir.path()).iter().filter(|name| name.starts_with("copy")).count(), 1);
    // A row less is found, and so is a flipped bit.
    let changed = Connection::open(&copy).unwrap();
    changed.execute_batch("DELETE FROM events WHERE sequence = 7").unwrap();
    drop(changed);
    let problem = database::verify(Kind::Records, &copy, &facts).unwrap_err().to_string();
    assert!(problem.contains("the table events has 2999 rows instead of 3000"), "{problem}");
    let mut bytes = std::fs::read(&copy).unwrap();
    bytes[4_096..4_196].fill(0xff);
    std::fs::write(&copy, bytes).unwrap();
    let problem = database::verify(Kind::Records, &copy, &facts).unwrap_err().to_string();
    assert!(problem.contains("is damaged"), "{problem}");
}

/// The outbox is copied first. Between the two copies events leave it, as the manager records them: each must be in one of the copies.
#[test]
fn an_event_that_moves_on_between_the_copies_is_in_one_of_them() {
    let dir = data_folder();
    let host = Identity::load_or_create(dir.path()).unwrap().host_id;
    let outbox = outbox(dir.path(), &host);
    let origin = outbox.origin().to_owned();
    for number in 1..=50 {
        outbox.sink().push(event(number), 10).unwrap();
    }
    let mut level = outbox.level();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut until = |events: u64| runtime.block_on(level.wait_for(|level| level.events == events)).unwrap().events;
    until(50);
    let (records, path) = crate::manager::records::open(dir.path()).unwrap();
    let record = |sequences: std::ops::RangeInclusive<i64>| {
        for sequence in sequences {
            records
                .execute_batch("INSERT INTO origins (origin, host) VALUES ('o', 'h') ON CONFLICT DO NOTHING")
                .and_then(|()| {
                    let sql = "INSERT INTO events (origin, sequence, time, kind, json) VALUES (1, ?1, '', 'x', '')";
                    records.execute(sql, [sequence])
                })
                .unwrap();
        }
    };
    // Some had left before the backup began.
    record(1..=10);
    outbox.sink().receipt(&origin, 10);
    until(40);
    let stop = AtomicBool::new(false);
    let (mut tell, copies) = (|_| {}, tempfile::tempdir().unwrap());
    let mut watch = Watch::new(&mut tell, &stop);
    let at = |kind: Kind| copies.path().join(kind.file());
    for (kind, from) in [(Kind::Outbox, dir.path().join(Kind::Outbox.file())), (Kind::Records, path)] {
        let facts = database::copy(kind, &from, &at(kind), &mut watch).unwrap();
        if kind == Kind::Outbox {
            assert_eq!((facts.rows["outbox"], facts.origins[&origin]), (40, 50));
            // Between the two: more are recorded, and leave.
            record(11..=30);
            outbox.sink().receipt(&origin, 30);
            until(20);
        }
    }
    assert_eq!(Kind::ALL, [Kind::Outbox, Kind::Records], "the order in which a backup copies them");
    let numbers = |kind: Kind, sql: &str| -> Vec<i64> {
        let reader = Reader::open(kind, &at(kind)).unwrap();
        let mut select = reader.connection.prepare(sql).unwrap();
        select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let mut all = numbers(Kind::Outbox, "SELECT position - (SELECT MAX(start) FROM origins) FROM outbox");
    all.extend(numbers(Kind::Records, "SELECT sequence FROM events"));
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, (1..=50).collect::<Vec<_>>());
}

/// A manager elsewhere has recorded what came after the backup: its receipts go beyond what the restored outbox has.
#[test]
fn a_manager_that_is_ahead_takes_nothing_of_a_restored_host_with_it() {
    let dir = data_folder();
    let host = Identity::load_or_create(dir.path()).unwrap().host_id;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let first = outbox(dir.path(), &host);
    let origin = first.origin().to_owned();
    let wait = |outbox: &Outbox, events: u64| {
        runtime.block_on(outbox.level().wait_for(|level| level.events == events)).unwrap();
    };
    for number in 1..=5 {
        first.sink().push(event(number), 10).unwrap();
    }
    wait(&first, 5);
    let backup = dir.path().with_extension("backup");
    make(dir.path(), &backup).unwrap();
    // Life goes on there, and all of it is recorded elsewhere.
    for number in 6..=40 {
        first.sink().push(event(number), 10).unwrap();
    }
    wait(&first, 40);
    drop(first);

    let elsewhere = tempfile::tempdir().unwrap();
    let restored = restore(&backup, &elsewhere.path().join("data"), false).unwrap();
    std::fs::remove_dir_all(&backup).unwrap();
    let second = outbox(&restored.data_dir, &host);
    assert_ne!(second.origin(), origin, "a start is an origin of its own");
    for number in 100..=120 {
        second.sink().push(event(number), 10).unwrap();
    }
    wait(&second, 5 + 21);
    // Everything of the old origin is there, and more than this outbox ever had.
    second.sink().receipt(&origin, 40);
    wait(&second, 21);
    let rows = second.reader().unwrap().after(0, 100).unwrap();
    let numbers =
        rows.iter().map(|row| serde_json::from_slice::<Value>(&row.payload).unwrap()["data"]["number"].clone());
    assert_eq!(numbers.collect::<Vec<_>>(), (100..=120).map(Value::from).collect::<Vec<_>>());
}

#[test]
fn a_backup_is_made_of_a_data_folder_and_nothing_else() {
    let dir = data_folder();
    let elsewhere = tempfile::tempdir().unwrap();
    let dest = elsewhere.path().join("b");
    let fails = |data_dir: &Path, dest: &Path| make(data_dir, dest).unwrap_err();
    // What is no data folder.
    for none in [elsewhere.path().join("none"), elsewhere.path().to_owned()] {
        assert!(matches!(fails(&none, &dest), BackupError::NoData { .. }));
    }
    let without = data_folder();
    std::fs::remove_file(without.path().join("identity.json")).unwrap();
    assert!(fails(without.path(), &dest).to_string().contains("an outbox and no identity.json"));
    std::fs::write(without.path().join("identity.json"), "{").unwrap();
    assert!(fails(without.path(), &dest).to_string().contains("identity.json"));
    // Places that cannot be.
    for (place, words) in [
        (dir.path().join("b"), "inside the data folder"),
        (dir.path().join("journals/../b"), "cannot use"),
        (elsewhere.path().join("none/b"), "cannot use"),
        (elsewhere.path().join("b/.."), "cannot be the name"),
        (PathBuf::from("/"), "cannot be the name"),
        (elsewhere.path().to_owned(), "is there already"),
    ] {
        let error = fails(dir.path(), &place).to_string();
        assert!(error.contains(words), "{}: {error}", place.display());
    }
    std::os::unix::fs::symlink(dir.path(), elsewhere.path().join("link")).unwrap();
    assert!(matches!(fails(dir.path(), &elsewhere.path().join("link/b")), BackupError::Inside { .. }));
    std::fs::create_dir(elsewhere.path().join("b.part")).unwrap();
    assert!(matches!(fails(dir.path(), &dest), BackupError::Unfinished { .. }));
    std::fs::remove_dir(elsewhere.path().join("b.part")).unwrap();
    // A file that is no database of ours, a newer one, a damaged one.
    let path = dir.path().join(Kind::Records.file());
    let whole = std::fs::read(&path).unwrap();
    let newer = Connection::open(&path).unwrap();
    newer.execute_batch("PRAGMA user_version = 99").unwrap();
    newer.close().unwrap();
    assert!(fails(dir.path(), &dest).to_string().contains("has layout 99"), "{}", fails(dir.path(), &dest));
    std::fs::write(
        &path,
        "no database at all, but long enough to be looked at by somebody who reads headers of a hundred bytes",
    )
    .unwrap();
    assert!(fails(dir.path(), &dest).to_string().contains("is no database of a host"));
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(fails(dir.path(), &dest).to_string().contains("damaged"), "{}", fails(dir.path(), &dest));
    std::fs::write(&path, &whole).unwrap();
    let full = |free_bytes| move |_: &Path| Some(DiskSpace { total_bytes: 1 << 40, free_bytes, files: None });
    let stop = AtomicBool::new(false);
    let error = make_in(&options(dir.path(), &dest), &mut Watch::new(&mut |_| {}, &stop), full(64 << 20)).unwrap_err();
    assert!(error.to_string().contains("has 64 MiB left, of which 64 MiB stay free"), "{error}");
    // None of it left anything behind.
    assert_eq!(names(elsewhere.path()), ["link"]);
    make_in(&options(dir.path(), &dest), &mut Watch::new(&mut |_| {}, &stop), full(65 << 20)).unwrap();
    std::fs::remove_dir_all(&dest).unwrap();
    let made = make(dir.path(), &dest).unwrap();
    assert_eq!(made.notes, Vec::<String>::new());
    std::fs::write(dir.path().join("notes.txt"), "").unwrap();
    let made = make(dir.path(), &elsewhere.path().join("c")).unwrap();
    assert!(made.notes[0].contains("notes.txt"), "{:?}", made.notes);
}

#[test]
fn a_stop_leaves_nothing() {
    let dir = data_folder();
    let elsewhere = tempfile::tempdir().unwrap();
    let dest = elsewhere.path().join("b");
    make(dir.path(), &dest).unwrap();
    let data = elsewhere.path().join("data");
    // Told to stop at every point where it asks.
    for after in 0.. {
        let stop = AtomicBool::new(false);
        let mut asked = 0;
        let mut tell = |_: Progress| {
            asked += 1;
            stop.store(asked > after, Ordering::Release);
        };
        let again = elsewhere.path().join("again");
        let made = make_in(&options(dir.path(), &again), &mut Watch::new(&mut tell, &stop), |_| None);
        if made.is_ok() {
            assert!(after > 5, "it asked {after} times only");
            std::fs::remove_dir_all(&again).unwrap();
            break;
        }
        assert_eq!(made, Err(BackupError::Stopped));
        assert_eq!(names(elsewhere.path()), ["b"], "after {after}");
    }
    for after in 0.. {
        let stop = AtomicBool::new(false);
        let mut asked = 0;
        let mut tell = |_: Progress| {
            asked += 1;
            stop.store(asked > after, Ordering::Release);
        };
        match super::restore(&dest, &data, false, &mut Watch::new(&mut tell, &stop)) {
            Ok(_) => break,
            Err(error) => assert_eq!(error, RestoreError::Stopped),
        }
        assert_eq!(names(elsewhere.path()), ["b"], "after {after}");
    }
}

#[test]
fn what_is_restored_is_what_was_there_with_its_modes() {
    use std::os::unix::fs::PermissionsExt;
    let dir = data_folder();
    let elsewhere = tempfile::tempdir().unwrap();
    let hash = blake3::hash(b"module").to_hex().to_string();
    for folder in ["modules", "journals", "journals/closed"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    std::fs::write(dir.path().join(format!("modules/{hash}.wasm")), "module").unwrap();
    std::fs::write(dir.path().join(format!("modules/{hash}-x.cwasm")), "compiled").unwrap();
    std::fs::write(dir.path().join("modules.json"), "{}").unwrap();
    // Journals that are none: copied when they are closed, for somebody who may read them, and told.
    std::fs::write(dir.path().join("journals/closed/r-1.journal"), "torn").unwrap();
    std::fs::write(dir.path().join("journals/r-2.journal"), "").unwrap();
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let chmod = |path: PathBuf, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    chmod(dir.path().join("records.sqlite3"), 0o640);
    chmod(dir.path().join("admin-token"), 0o644);
    chmod(dir.path().to_owned(), 0o750);
    let backup = elsewhere.path().join("b");
    let made = make(dir.path(), &backup).unwrap();
    assert!(made.notes[0].starts_with("1 journals are damaged") && made.notes.len() == 1, "{:?}", made.notes);
    assert_eq!(mode(backup.clone()), 0o700);
    assert_eq!(mode(backup.join("admin-token")), 0o600, "however the original was");
    assert_eq!(mode(backup.join(MANIFEST_FILE)), 0o600);
    let data = elsewhere.path().join("data");
    let restored = restore(&backup, &data, false).unwrap();
    assert_eq!(restored.before, None);
    let expected =
        ["admin-token", "identity.json", "journals", "modules", "modules.json", "outbox.sqlite3", "records.sqlite3"];
    assert_eq!(names(&data), expected);
    assert_eq!(names(&data.join("modules")), [format!("{hash}.wasm")]);
    for file in ["identity.json", "admin-token", "modules.json", "journals/closed/r-1.journal"] {
        assert_eq!(std::fs::read(data.join(file)).unwrap(), std::fs::read(dir.path().join(file)).unwrap(), "{file}");
    }
    assert_eq!((mode(data.clone()), mode(data.join("records.sqlite3"))), (0o750, 0o640));
    assert_eq!((mode(data.join("admin-token")), mode(data.join("identity.json"))), (0o600, 0o600));
    // Into what is there: refused, or moved aside.
    assert!(matches!(restore(&backup, &data, false), Err(RestoreError::NotEmpty { .. })));
    std::fs::write(data.join("mine"), "x").unwrap();
    let restored = restore(&backup, &data, true).unwrap();
    let before = restored.before.unwrap();
    assert!(before.join("mine").exists() && !data.join("mine").exists());
    // An empty folder is as good as none; a link leads to where it is.
    let (empty, link) = (elsewhere.path().join("empty"), elsewhere.path().join("link"));
    std::fs::create_dir(&empty).unwrap();
    std::os::unix::fs::symlink(&empty, &link).unwrap();
    restore(&backup, &link, false).unwrap();
    assert!(link.is_symlink() && empty.join("identity.json").exists());
    // An administrator restores for the user of the host.
    use std::os::unix::fs::{MetadataExt, chown};
    const SOMEBODY: u32 = 12_345;
    if chown(&empty, Some(SOMEBODY), None).is_ok() {
        let restored = restore(&backup, &empty, true).unwrap();
        for path in ["", "identity.json", "records.sqlite3", "journals/closed", "journals/closed/r-1.journal"] {
            assert_eq!(std::fs::metadata(restored.data_dir.join(path)).unwrap().uid(), SOMEBODY, "{path:?}");
        }
    }
    // Places that cannot be.
    for (place, words) in [
        (backup.join("data"), "inside"),
        (elsewhere.path().to_owned(), "inside"),
        (elsewhere.path().join("none/data"), "none"),
        (dir.path().join("records.sqlite3"), "cannot restore"),
    ] {
        let error = restore(&backup, &place, true).unwrap_err().to_string();
        assert!(error.contains(words), "{}: {error}", place.display());
    }
}

#[test]
fn a_backup_that_was_touched_is_refused() {
    let dir = data_folder();
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = elsewhere.path().join("b");
    let data = elsewhere.path().join("data");
    let check = |what: &str, change: &dyn Fn(&Path), words: &str| {
        make(dir.path(), &backup).unwrap();
        change(&backup);
        let error = restore(&backup, &data, false).unwrap_err().to_string();
        assert!(error.contains(words), "{what}: {error}");
        assert!(error.contains("Nothing was changed"), "{what}: {error}");
        assert_eq!(names(elsewhere.path()), ["b"], "{what}");
        std::fs::remove_dir_all(&backup).unwrap();
    };
    let flip = |name: &'static str, at: fn(usize) -> usize| {
        move |backup: &Path| {
            let path = backup.join(name);
            let mut bytes = std::fs::read(&path).unwrap();
            let at = at(bytes.len());
            bytes[at] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }
    };
    check("a byte of the records", &flip("records.sqlite3", |len| len / 2), "records.sqlite3 in it has been changed");
    check("the last byte", &flip("outbox.sqlite3", |len| len - 1), "outbox.sqlite3 in it has been changed");
    check("a byte of the keys", &flip("identity.json", |_| 30), "identity.json in it has been changed");
    check("a longer file", &|b| std::fs::write(b.join("admin-token"), "longer\n").unwrap(), "bytes instead of");
    check("no file", &|b| std::fs::remove_file(b.join("outbox.sqlite3")).unwrap(), "outbox.sqlite3 is missing");
    check("no manifest", &|b| std::fs::remove_file(b.join(MANIFEST_FILE)).unwrap(), "has no backup.json");
    check("one more file", &|b| std::fs::write(b.join("more"), "").unwrap(), "\"more\" is in it and not");
    check("a WAL", &|b| std::fs::write(b.join("records.sqlite3-wal"), "x").unwrap(), "records.sqlite3-wal");
    check("one more folder", &|b| std::fs::create_dir(b.join("etc")).unwrap(), "\"etc\" is in it and not");
    let link = |b: &Path| {
        std::fs::remove_file(b.join("admin-token")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", b.join("admin-token")).unwrap();
    };
    check("a link", &link, "admin-token in it is no file but a link");
    let folder = |b: &Path| std::os::unix::fs::symlink("/etc", b.join("modules")).unwrap();
    check("a folder that is a link", &folder, "modules in it is no folder");
    let edit = |change: fn(&mut Value)| {
        move |backup: &Path| {
            let path = backup.join(MANIFEST_FILE);
            let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            change(&mut manifest);
            std::fs::write(path, manifest.to_string()).unwrap();
        }
    };
    let out = edit(|manifest| {
        let entry = manifest["files"]["admin-token"].clone();
        manifest["files"]["../../outside"] = entry;
    });
    check("a path that leads out", &out, "a data folder has no such file");
    check("a newer format", &edit(|manifest| manifest["format"] = json!(2)), "use the newer program");
    check("another host", &edit(|manifest| manifest["host"] = json!("host-of-somebody-else")), "of another host");
    let rows = edit(|manifest| manifest["records"]["rows"]["events"] = json!(7));
    check("another number of rows", &rows, "the table events has 0 rows instead of 7");
    // What is left is none.
    assert!(restore(&elsewhere.path().join("none"), &data, false).unwrap_err().to_string().contains("none"));
    assert!(Manifest::read(dir.path()).unwrap_err().contains("backup.json"));
}
