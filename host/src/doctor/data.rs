//! What is in the data folder: databases, what waits in the outbox, journals, keys, space, and whether the clock agrees with it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::OptionalExtension;
use serde::Deserialize;

use super::{Finding, age, size};
use crate::admin::{ADMIN_TOKEN_FILE, AdminToken};
use crate::backup::{DatabaseError, Kind, Reader};
use crate::config::Config;
use crate::events::damaged::read;
use crate::events::outbox::Limits;
use crate::files::is_held;
use crate::identity::{IDENTITY_FILE, Identity};
use crate::journal::Folder;
use crate::limits::disk::{self, DiskSpace};
use crate::server::LOCK_FILE;

/// A WAL beyond this is held by a reader that does not end, in bytes: four times what a checkpoint leaves.
const WAL_BYTES_MAX: u64 = 256 << 20;
/// Free pages that are worth a word: half of a file of at least this many bytes.
const FREE_BYTES_MAX: u64 = 64 << 20;
/// Receipts come within milliseconds; an event of a running host that waits for longer, in seconds, waits for a manager that is not there.
const WAIT_S_MAX: u64 = 60;
/// Space below which the next races may not be kept, and below which somebody should look, in bytes.
const SPACE_BYTES_LEAST: u64 = 100 << 20;
const SPACE_BYTES_LITTLE: u64 = 1 << 30;
/// The same for files: each race is one.
const FILES_LEAST: u64 = 1_000;
const FILES_LITTLE: u64 = 20_000;
/// What a clock may be behind what is on the disk, in seconds: file systems round, and machines are set by a fraction of a second.
const BEHIND_S_MAX: u64 = 2;
/// From this on, in seconds, tickets expire at other times than they should.
const BEHIND_S_BAD: u64 = 60;

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let dir = &config.data_dir;
    match std::fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            let advice = "name a folder with --data-dir";
            return vec![Finding::problem("data folder", format!("{} is no folder", dir.display()), advice)];
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let found = format!("{} is not there; the first start makes it", dir.display());
            let advice = "if there was a host already, name its folder with --data-dir or in the settings file";
            return vec![Finding::warning("data folder", found, advice)];
        }
        Err(error) => {
            let found = format!("{} cannot be read: {error}", dir.display());
            return vec![Finding::problem("data folder", found, "run this as the user of the host")];
        }
    }
    let is_running = is_held(&dir.join(LOCK_FILE)) == Some(true);
    let mut findings = vec![folder(dir, is_running)];
    for kind in Kind::ALL {
        findings.extend(database(kind, dir, is_running, config));
    }
    findings.push(journals(config));
    for name in [IDENTITY_FILE, ADMIN_TOKEN_FILE] {
        findings.extend(secret(&dir.join(name)));
    }
    findings.extend(keys(dir));
    findings.extend(owner(dir));
    findings.push(match disk::space(dir) {
        Some(space) => judge_space(space),
        None => Finding::ok("disk", "nothing here says how much space is left (no df)"),
    });
    findings.push(clock_against_files(dir));
    findings
}

fn folder(dir: &Path, is_running: bool) -> Finding {
    let state = if is_running { "a host runs on it" } else { "no host runs on it" };
    Finding::ok("data folder", format!("{}: {state}", dir.display()))
}

fn check_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Records => "records",
        Kind::Outbox => "outbox",
    }
}

/// Opens a database so that nothing is left beside it, if nobody has it open.
fn open(kind: Kind, path: &Path) -> Result<Reader, DatabaseError> {
    let has_wal = || wal_of(path).exists();
    if has_wal() {
        return Reader::open(kind, path);
    }
    let reader = Reader::open_untouched(kind, path)?;
    // A host that started meanwhile writes to it.
    if has_wal() { Reader::open(kind, path) } else { Ok(reader) }
}

fn wal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push("-wal");
    name.into()
}

fn database(kind: Kind, dir: &Path, is_running: bool, config: &Config) -> Vec<Finding> {
    let (check, path) = (check_of(kind), dir.join(kind.file()));
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let found = if kind == Kind::Records && !config.manager {
                "none here: a manager elsewhere keeps them (manager = false)".to_owned()
            } else {
                format!("{} is not there; the next start makes it", path.display())
            };
            return vec![Finding::ok(check, found)];
        }
        _ => {}
    }
    let look = || -> Result<Vec<Finding>, DatabaseError> {
        let mut reader = open(kind, &path)?;
        if let Err(error) = reader.check(false) {
            // Damage, or a host that has begun to write to what nobody had open.
            if !wal_of(&path).exists() {
                return Err(error);
            }
            reader = Reader::open(kind, &path)?;
            reader.check(false)?;
        }
        let number = |sql: &str| reader.number(sql).map(|value| u64::try_from(value).unwrap_or_default());
        let page = number("PRAGMA page_size")?;
        let shape = Shape {
            layout: reader.number("PRAGMA user_version")?,
            known: kind.layout(),
            bytes: number("PRAGMA page_count")?.saturating_mul(page),
            free_bytes: number("PRAGMA freelist_count")?.saturating_mul(page),
            wal_bytes: std::fs::metadata(wal_of(&path)).map_or(0, |metadata| metadata.len()),
        };
        let mut findings = vec![judge_shape(check, &shape)];
        match kind {
            Kind::Outbox => {
                let waiting = number("SELECT COUNT(*) FROM outbox")?;
                let bytes = number("SELECT COALESCE(SUM(LENGTH(topic) + LENGTH(payload)), 0) FROM outbox")?;
                findings.push(judge_waiting(waiting, bytes, config.outbox, oldest_s(&reader), is_running));
                findings.extend(damaged(&reader, &path));
            }
            Kind::Records => {
                findings.extend(last_event(&reader, SystemTime::now()));
                let rejected = number("SELECT COUNT(*) FROM rejected")?;
                if rejected > 0 {
                    let found = format!("{rejected} messages could not be used");
                    let advice = "see the table `rejected` of the records for what they were";
                    findings.push(Finding::warning("rejected", found, advice));
                }
            }
        }
        Ok(findings)
    };
    look().unwrap_or_else(|error| vec![judge_error(check, &error)])
}

fn judge_error(check: &'static str, error: &DatabaseError) -> Finding {
    let advice = match error {
        DatabaseError::Damaged { .. } | DatabaseError::Foreign { .. } => {
            "stop the host, keep the file, and restore the last backup with `holeshot restore`. Without one, `sqlite3 FILE .recover` saves what can be read"
        }
        DatabaseError::Newer { .. } => "use the program that wrote it, or a newer one",
        DatabaseError::Sqlite { .. } | DatabaseError::Stopped => {
            "run this as the user of the host; if the disk is full or read-only, change that"
        }
    };
    let found = match error {
        // Its own advice is to call the doctor.
        DatabaseError::Sqlite { path, reason } => format!("{} cannot be read: {reason}", path.display()),
        error => error.to_string(),
    };
    Finding::problem(check, found, advice)
}

struct Shape {
    layout: i64,
    known: i64,
    bytes: u64,
    free_bytes: u64,
    wal_bytes: u64,
}

fn judge_shape(check: &'static str, shape: &Shape) -> Finding {
    let Shape { layout, known, bytes, free_bytes, wal_bytes } = *shape;
    let mut found = format!(
        "whole, layout {layout}, {} of which {} are free, WAL {}",
        size(bytes),
        size(free_bytes),
        size(wal_bytes)
    );
    if layout < known {
        found = format!("{found}; the next start brings it to layout {known}");
    }
    if wal_bytes > WAL_BYTES_MAX {
        let advice = "some program has been reading for long and keeps the WAL from being cut back: a backup under way, or a forgotten `sqlite3`";
        return Finding::warning(check, found, advice);
    }
    if free_bytes > FREE_BYTES_MAX && free_bytes > bytes / 2 {
        return Finding::warning(check, found, "to give the space back, stop the host and run `sqlite3 FILE VACUUM`");
    }
    Finding::ok(check, found)
}

/// Seconds since the oldest event that waits happened.
fn oldest_s(reader: &Reader) -> Option<u64> {
    #[derive(Deserialize)]
    struct Timed {
        time: String,
    }
    let sql = "SELECT payload FROM outbox ORDER BY position LIMIT 1";
    let payload: Vec<u8> = reader.connection.query_row(sql, [], |row| row.get(0)).optional().ok()??;
    let Timed { time } = serde_json::from_slice(&payload).ok()?;
    let time = humantime::parse_rfc3339(&time).ok()?;
    Some(SystemTime::now().duration_since(time).map_or(0, |age| age.as_secs()))
}

fn judge_waiting(waiting: u64, bytes: u64, bounds: Limits, oldest_s: Option<u64>, is_running: bool) -> Finding {
    const CHECK: &str = "waiting";
    if waiting == 0 {
        return Finding::ok(CHECK, "no event waits to be recorded");
    }
    let mut found = format!("{waiting} events with {} wait to be recorded", size(bytes));
    if let Some(s) = oldest_s {
        found = format!("{found}, the oldest for {}", age(s));
    }
    let advice = "see whether the broker is reached and a manager runs; the log of the host says why";
    let Limits { events_max, bytes_max } = bounds;
    if waiting >= events_max / 2 || bytes >= bytes_max / 2 {
        let found = format!(
            "{found}; at {events_max} or {} new ones are refused, those of rules at half of it",
            size(bytes_max)
        );
        return Finding::problem(CHECK, found, advice);
    }
    if is_running && oldest_s.is_some_and(|s| s > WAIT_S_MAX) {
        return Finding::warning(CHECK, found, advice);
    }
    let found = if is_running { found } else { format!("{found}; the next start sends them") };
    Finding::ok(CHECK, found)
}

/// Events that were set aside, and those that will be.
fn damaged(reader: &Reader, path: &Path) -> Vec<Finding> {
    const CHECK: &str = "damaged events";
    let path = path.display();
    let mut findings = Vec::new();
    // A file of an earlier version has no such table, and one without such events no first. Bare columns are those of the least `id` (SQLite).
    let oldest = "SELECT COUNT(*), position, origin, sequence, reason, MIN(id) FROM set_aside";
    let oldest = reader.connection.query_row(oldest, [], |row| {
        let (count, position, sequence): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(3)?);
        let (origin, reason): (String, String) = (row.get(2)?, row.get(4)?);
        Ok(format!(
            "{count} events are in the table `set_aside` of {path} and not recorded; the first, at position {position}, should be event {sequence} of {origin}: {reason}"
        ))
    });
    if let Ok(found) = oldest {
        let advice = "look at them with sqlite3; the room's journal may say what is missing. Delete the rows when they are of no more use";
        findings.push(Finding::warning(CHECK, found, advice));
    }
    let next = "SELECT position, topic, payload FROM outbox WHERE typeof(topic) != 'text' OR typeof(payload) != 'blob' ORDER BY position LIMIT 1";
    let next = reader.connection.query_row(next, [], |row| Ok(read(row).err()));
    if let Ok(Some(damage)) = next {
        let found = format!("in {path} {damage}");
        let advice = "a running host moves it to the table `set_aside`, so that those behind it are recorded";
        findings.push(Finding::warning(CHECK, found, advice));
    }
    findings
}

fn last_event(reader: &Reader, now: SystemTime) -> Option<Finding> {
    let sql = "SELECT time FROM events ORDER BY id DESC LIMIT 1";
    let time: String = reader.connection.query_row(sql, [], |row| row.get(0)).optional().ok()??;
    let time = humantime::parse_rfc3339(&time).ok()?;
    let ahead = time.duration_since(now).unwrap_or_default();
    let what = "the last event that is recorded";
    Some(judge_ahead("clock and records", what, now.duration_since(time).unwrap_or_default(), ahead))
}

fn judge_ahead(check: &'static str, what: &str, since: Duration, ahead: Duration) -> Finding {
    let ahead_s = ahead.as_secs();
    let advice = "the clock was set back, or the data comes from a machine whose clock was ahead: compare `date -u` with a clock that is right. Until then \
                  times in the records run backwards and tickets expire late";
    match ahead_s {
        0..=BEHIND_S_MAX => Finding::ok(check, format!("{what} is {} old", age(since.as_secs()))),
        _ => {
            let found = format!("{what} is of {} in the future", age(ahead_s));
            let make = if ahead_s > BEHIND_S_BAD { Finding::problem } else { Finding::warning };
            make(check, found, advice)
        }
    }
}

/// The newest file that a host writes, against the clock.
fn clock_against_files(dir: &Path) -> Finding {
    let now = SystemTime::now();
    let mut paths: Vec<PathBuf> = Kind::ALL.iter().map(|kind| dir.join(kind.file())).collect();
    paths.extend(Kind::ALL.iter().map(|kind| wal_of(&dir.join(kind.file()))));
    paths.push(Folder::of(dir).path().to_owned());
    let newest = paths.iter().filter_map(|path| std::fs::metadata(path).ok()?.modified().ok()).max();
    match newest {
        Some(newest) => judge_ahead(
            "clock and files",
            "the newest file of the data folder",
            now.duration_since(newest).unwrap_or_default(),
            newest.duration_since(now).unwrap_or_default(),
        ),
        None => Finding::ok("clock and files", "no file to compare the clock with"),
    }
}

fn journals(config: &Config) -> Finding {
    const CHECK: &str = "journals";
    let folder = Folder::of(&config.data_dir);
    let lists = [folder.list_running(), folder.list_closed()];
    let mut sum = (0u64, 0u64);
    for list in lists {
        match list {
            Ok(entries) => {
                sum = entries.iter().fold(sum, |(count, bytes), entry| (count + 1, bytes.saturating_add(entry.bytes)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let found = format!("{} cannot be listed: {error}", folder.path().display());
                return Finding::problem(CHECK, found, "run this as the user of the host");
            }
        }
    }
    let (count, bytes) = sum;
    let free_bytes = disk::space(&config.data_dir).map(|space| space.free_bytes);
    judge_journals(count, bytes, config.journal_bytes_max, free_bytes.filter(|_| config.journal_days > 0))
}

fn judge_journals(count: u64, bytes: u64, bytes_max: u64, free_bytes: Option<u64>) -> Finding {
    const CHECK: &str = "journals";
    let found = format!("{count} with {}, of {} that they may have", size(bytes), size(bytes_max));
    match free_bytes {
        Some(free) if bytes_max.saturating_sub(bytes) > free => {
            let found = format!("{found}, but the disk has only {} left", size(free));
            Finding::warning(CHECK, found, "lower journal_bytes_max, so that journals do not take the last of the disk")
        }
        _ => Finding::ok(CHECK, found),
    }
}

fn secret(path: &Path) -> Option<Finding> {
    let metadata = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        Some(judge_mode(path, mode))
    }
    #[cfg(not(unix))]
    {
        let _no_modes = metadata;
        None
    }
}

/// What a host refuses to start with: an identity or an admin token that cannot be read. One that is not there is made at the start.
fn keys(dir: &Path) -> Vec<Finding> {
    let advice = "a host does not start with it: restore the last backup, or stop what uses it and delete it: the next start makes a new one";
    let mut findings = Vec::new();
    let mut judge = |name: &str, read: &dyn Fn() -> Result<(), String>| {
        let path = dir.join(name);
        let problem = match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => Some(format!("{} cannot be read: {error}", path.display())),
            // Nothing else has an end that is sure to come.
            Ok(metadata) if !metadata.is_file() => Some(format!("{} is no file", path.display())),
            Ok(_) => read().err(),
        };
        findings.extend(problem.map(|problem| Finding::problem("keys", problem, advice)));
    };
    judge(IDENTITY_FILE, &|| Identity::load_or_create(dir).map(drop).map_err(|error| error.to_string()));
    judge(ADMIN_TOKEN_FILE, &|| AdminToken::load(dir).map(drop).map_err(|error| error.to_string()));
    findings
}

fn judge_mode(path: &Path, mode: u32) -> Finding {
    const CHECK: &str = "secrets";
    let found = format!("{} has mode {:o}", path.display(), mode & 0o777);
    if mode & 0o077 == 0 {
        return Finding::ok(CHECK, found);
    }
    let who = if mode & 0o007 != 0 { "every user of this machine" } else { "its group" };
    let found = format!("{found}: {who} gets at it");
    Finding::problem(
        CHECK,
        found,
        format!(
            "chmod 600 {}; if others may have read it, stop the host and delete it: the next start makes a new one",
            path.display()
        ),
    )
}

/// Whether the files belong to whom the folder belongs to: an administrator who starts a host or restores a backup leaves files that its own user cannot
/// write.
fn owner(dir: &Path) -> Option<Finding> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let folder = std::fs::metadata(dir).ok()?.uid();
        let names = [IDENTITY_FILE, ADMIN_TOKEN_FILE, Kind::Records.file(), Kind::Outbox.file()];
        let other = names.into_iter().map(|name| dir.join(name)).find_map(|path| {
            let uid = std::fs::metadata(&path).ok()?.uid();
            (uid != folder).then_some((path, uid))
        });
        let (path, uid) = other?;
        let found = format!("{} belongs to user {uid}, its folder to user {folder}", path.display());
        let advice = format!("chown -R {folder} {} while no host runs", dir.display());
        Some(Finding::problem("owner", found, advice))
    }
    #[cfg(not(unix))]
    {
        let _no_owners = dir;
        None
    }
}

fn judge_space(space: DiskSpace) -> Finding {
    const CHECK: &str = "disk";
    let DiskSpace { total_bytes, free_bytes, files } = space;
    let mut found = format!("{} of {} are free", size(free_bytes), size(total_bytes));
    if let Some((total, free)) = files {
        found = format!("{found}, and {free} of {total} files");
    }
    let free_files = files.map_or(u64::MAX, |(_, free)| free);
    let advice = "free some space, or lower journal_days and journal_bytes_max. With a full disk races go on, but neither their journals nor their results are kept";
    if free_bytes < SPACE_BYTES_LEAST || free_files < FILES_LEAST {
        Finding::problem(CHECK, found, advice)
    } else if free_bytes < SPACE_BYTES_LITTLE || free_files < FILES_LITTLE {
        Finding::warning(CHECK, found, advice)
    } else {
        Finding::ok(CHECK, found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::tests::says;
    use super::*;

    #[test]
    fn a_database_is_judged_by_its_shape() {
        let shape = Shape { layout: 3, known: 3, bytes: 1 << 30, free_bytes: 0, wal_bytes: 0 };
        says(&judge_shape("records", &shape), Verdict::Ok, &["whole, layout 3, 1.0 GiB"]);
        says(&judge_shape("records", &Shape { known: 4, ..shape }), Verdict::Ok, &["to layout 4"]);
        let wal = Shape { wal_bytes: WAL_BYTES_MAX + 1, ..shape };
        says(&judge_shape("records", &wal), Verdict::Warning, &["256.0 MiB", "sqlite3"]);
        let free = Shape { free_bytes: 600 << 20, ..shape };
        says(&judge_shape("records", &free), Verdict::Warning, &["600.0 MiB are free", "VACUUM"]);
        says(&judge_shape("records", &Shape { free_bytes: 400 << 20, ..shape }), Verdict::Ok, &[]);
        let path = PathBuf::from("/d/records.sqlite3");
        let damaged = DatabaseError::Damaged { path: path.clone(), problem: "page 7".into() };
        says(&judge_error("records", &damaged), Verdict::Problem, &["page 7", "holeshot restore"]);
        let locked = DatabaseError::Sqlite { path: path.clone(), reason: "denied".into() };
        says(&judge_error("records", &locked), Verdict::Problem, &["/d/records.sqlite3", "denied", "as the user"]);
        let newer = DatabaseError::Newer { path, found: 9, known: 3 };
        says(&judge_error("records", &newer), Verdict::Problem, &["layout 9", "newer one"]);
    }

    #[test]
    fn keys_that_keep_a_host_from_starting_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        // Those that are not there are made at the start, and not by the doctor.
        assert!(keys(dir.path()).is_empty());
        assert!(!file(IDENTITY_FILE).exists());
        Identity::load_or_create(dir.path()).unwrap();
        AdminToken::load_or_create(dir.path()).unwrap();
        assert!(keys(dir.path()).is_empty());
        std::fs::write(file(IDENTITY_FILE), "{").unwrap();
        std::fs::write(file(ADMIN_TOKEN_FILE), "short").unwrap();
        let found = keys(dir.path());
        assert_eq!(found.len(), 2);
        says(&found[0], Verdict::Problem, &["identity.json is damaged", "does not start"]);
        says(&found[1], Verdict::Problem, &["admin-token has no token", "does not start"]);
        std::fs::remove_file(file(IDENTITY_FILE)).unwrap();
        std::fs::create_dir(file(IDENTITY_FILE)).unwrap();
        says(&keys(dir.path())[0], Verdict::Problem, &["identity.json is no file"]);
    }

    #[test]
    fn damaged_events_are_told_before_and_after_they_are_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(Kind::Outbox.file());
        let database = rusqlite::Connection::open(&path).unwrap();
        let run = |sql: &str| database.execute_batch(sql).unwrap();
        run("CREATE TABLE origins (start INTEGER PRIMARY KEY, origin TEXT);
             CREATE TABLE outbox (position INTEGER PRIMARY KEY, topic TEXT, payload BLOB);
             INSERT INTO outbox VALUES (1, 'holeshot/v1/pit/events/host/a', x'00');
             PRAGMA user_version = 1");
        let found = || damaged(&Reader::open(Kind::Outbox, &path).unwrap(), &path);
        // A file of a version that set nothing aside.
        assert_eq!(found(), []);
        run("UPDATE outbox SET payload = 'x'");
        says(&found()[0], Verdict::Warning, &["position 1 ", "of type text and not blob", "set_aside"]);
        run(crate::events::damaged::SCHEMA);
        assert_eq!(found().len(), 1);
        run("DELETE FROM outbox;
             INSERT INTO set_aside (at, reason, origin, sequence, position) VALUES ('t', 'why', 'pit.1', 7, 9), ('t', 'x', 'o', 8, 10)");
        assert_eq!(found().len(), 1);
        says(&found()[0], Verdict::Warning, &["2 events", "position 9", "event 7 of pit.1: why"]);
    }

    #[test]
    fn what_waits_is_judged_by_how_long_and_how_much() {
        let judge = |waiting, oldest_s, is_running| {
            judge_waiting(waiting, waiting * 1_024, Limits::default(), oldest_s, is_running)
        };
        says(&judge(0, None, true), Verdict::Ok, &["no event waits"]);
        says(&judge(7, Some(3), true), Verdict::Ok, &["7 events with 7.0 KiB", "for 3 s"]);
        says(&judge(7, Some(3_600), true), Verdict::Warning, &["for 60 minutes", "manager"]);
        says(&judge(7, Some(3_600), false), Verdict::Ok, &["the next start sends them"]);
        let Limits { events_max, bytes_max } = Limits::default();
        let many = judge_waiting(events_max / 2, 0, Limits::default(), None, false);
        says(&many, Verdict::Problem, &["200000", "refused"]);
        says(&judge_waiting(1, bytes_max / 2, Limits::default(), None, true), Verdict::Problem, &["256.0 MiB"]);
    }

    #[test]
    fn a_clock_that_was_set_back_is_told() {
        let s = Duration::from_secs;
        says(&judge_ahead("c", "the file", s(90), s(0)), Verdict::Ok, &["the file is 90 s old"]);
        says(&judge_ahead("c", "the file", s(0), s(2)), Verdict::Ok, &[]);
        says(&judge_ahead("c", "the file", s(0), s(30)), Verdict::Warning, &["30 s in the future", "set back"]);
        says(&judge_ahead("c", "the file", s(0), s(7_200)), Verdict::Problem, &["2 hours in the future"]);
    }

    #[test]
    fn secrets_space_and_journals_are_judged() {
        let path = Path::new("/d/admin-token");
        says(&judge_mode(path, 0o100_600), Verdict::Ok, &["mode 600"]);
        says(&judge_mode(path, 0o100_644), Verdict::Problem, &["every user", "chmod 600 /d/admin-token"]);
        says(&judge_mode(path, 0o100_640), Verdict::Problem, &["its group"]);
        let space = DiskSpace { total_bytes: 50 << 30, free_bytes: 20 << 30, files: Some((1_000_000, 900_000)) };
        says(&judge_space(space), Verdict::Ok, &["20.0 GiB of 50.0 GiB", "900000 of 1000000 files"]);
        says(&judge_space(DiskSpace { free_bytes: 500 << 20, ..space }), Verdict::Warning, &["500.0 MiB"]);
        says(&judge_space(DiskSpace { free_bytes: 0, ..space }), Verdict::Problem, &["0 bytes", "journal_days"]);
        says(&judge_space(DiskSpace { files: Some((1_000_000, 10)), ..space }), Verdict::Problem, &["10 of 1000000"]);
        says(&judge_space(DiskSpace { files: None, ..space }), Verdict::Ok, &[]);
        says(&judge_journals(3, 1 << 20, 4 << 30, Some(20 << 30)), Verdict::Ok, &["3 with 1.0 MiB, of 4.0 GiB"]);
        says(&judge_journals(3, 1 << 20, 4 << 30, Some(2 << 30)), Verdict::Warning, &["2.0 GiB left", "lower"]);
        says(&judge_journals(3, 1 << 20, 4 << 30, None), Verdict::Ok, &[]);
    }
}
