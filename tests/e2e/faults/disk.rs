//! A disk that is full and then has space again, and a database that another program holds.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::burst::Seen;
use super::process::skipped;
use super::site::{Part, Places, Plan, Site};
use crate::harness::{compiled, run};
use crate::mosquitto::Mosquitto;

/// Events of rooms that end before a fault.
const BEFORE: u64 = 2_000;

/// A small disk of its own: a tmpfs in a mount namespace that lives as long as a process that sleeps in it.
struct Disk {
    _holder: Child,
    dir: TempDir,
    /// Where this process sees it.
    seen: PathBuf,
    /// What lets a program run where the disk is mounted.
    starter: Vec<String>,
}

impl Disk {
    /// None if the system lets nobody mount.
    async fn new(mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().to_str().unwrap();
        // As root, and as anybody else in a user namespace of his own.
        for options in ["-m", "-Urm"] {
            let script = format!("mount -t tmpfs -o size={mib}m tmpfs {place} && echo mounted && exec sleep 1000");
            let child = Command::new("unshare")
                .args([options, "sh", "-c", &script])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn();
            let Ok(mut holder) = child else { continue };
            let mut said = [0; 8];
            let is_mounted = holder.stdout.take().unwrap().read_exact(&mut said).await.is_ok() && &said == b"mounted\n";
            let process = holder.id().unwrap_or_default();
            let seen = PathBuf::from(format!("/proc/{process}/root{place}"));
            if is_mounted && seen.read_dir().is_ok() {
                let mut starter = vec!["nsenter".into(), format!("--mount=/proc/{process}/ns/mnt")];
                if options != "-m" {
                    starter.extend(["--preserve-credentials".into(), format!("--user=/proc/{process}/ns/user")]);
                }
                return Some(Self { _holder: holder, dir, seen, starter });
            }
        }
        skipped("no file system can be mounted (neither `unshare -m` nor `unshare -Urm` may)", "util-linux");
        None
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.seen.join("filler")).unwrap();
        for piece in [1 << 16, 1 << 12, 1 << 8, 1] {
            while file.write_all(&vec![7; piece]).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.seen.join("filler")).unwrap();
    }
}

#[test]
fn disks_that_are_full_for_a_while() {
    run(240, async {
        let Some(broker) = Mosquitto::start("").await else { return };
        let (Some(of_host), Some(of_manager)) = (Disk::new(256).await, Disk::new(256).await) else { return };
        // 256 MiB: what a fast machine records in all of these bursts takes a third of it. Compiled modules are shared, and elsewhere.
        std::os::unix::fs::symlink(compiled(), of_host.seen.join("modules")).unwrap();
        let other = tempfile::tempdir().unwrap();
        let places = Places {
            host: of_host.dir.path().to_owned(),
            manager: of_manager.dir.path().to_owned(),
            other: other.path().to_owned(),
            seen: Some((of_host.seen.clone(), of_manager.seen.clone())),
        };
        let plan = Plan {
            places: Some(places),
            host_starter: of_host.starter.clone(),
            manager_starter: of_manager.starter.clone(),
            ..Plan::default()
        };
        let mut site = Site::start(broker, &plan).await;

        site.burst().goes_on(BEFORE).await;
        of_manager.fill();
        site.burst().goes_on(BEFORE).await;
        site.says_soon("manager", "disk is full").await;
        of_manager.empty();
        site.burst().goes_on(BEFORE).await;
        site.verdict("the manager's disk is full, then has space again", true).await;

        site.burst().goes_on(BEFORE).await;
        of_host.fill();
        site.says_soon("host", "disk is full").await;
        sleep(Duration::from_secs(2)).await;
        of_host.empty();
        site.burst().goes_on(BEFORE).await;
        site.verdict("the host's disk is full, then has space again", true).await;

        // Who was told that a room is over while the disk was full was not told too much.
        site.burst().goes_on(BEFORE).await;
        of_host.fill();
        sleep(Duration::from_millis(700)).await;
        site.kill(Part::Host).await;
        of_host.empty();
        site.restart(Part::Host).await;
        site.burst().goes_on(BEFORE).await;
        site.verdict("the host's disk is full and the host is killed", false).await;
    });
}

fn whole(site: &Site) -> usize {
    site.burst().rooms().values().filter(|seen| matches!(seen, Seen::Whole(_))).count()
}

/// Sees to it that games reach their end in this time, and that nobody is told goodbye.
async fn nobody_is_told(site: &Site, time: Duration) {
    let before = whole(site);
    sleep(time).await;
    assert_eq!(whole(site), before, "goodbyes while the events were not on the disk");
    let finished = site.burst().rooms().values().filter(|seen| matches!(seen, Seen::Finished(_))).count();
    assert_eq!(finished, 0, "rooms that were given up");
}

/// Holds a database as another program would: nobody else writes.
struct Held(rusqlite::Connection);

impl Held {
    fn new(path: &Path) -> Self {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.busy_timeout(Duration::from_secs(20)).unwrap();
        connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
        Self(connection)
    }

    fn release(self) {
        self.0.execute_batch("ROLLBACK").unwrap();
    }
}

/// How long a database is held: longer than host and manager wait for it, which is 5 s.
const HELD: Duration = Duration::from_millis(6_500);

#[test]
fn databases_that_another_program_holds() {
    run(240, async {
        let Some(broker) = Mosquitto::start("").await else { return };
        let mut site = Site::start(broker, &Plan::default()).await;
        site.burst().goes_on(BEFORE).await;
        let held = Held::new(&site.outbox());
        // What was told a moment ago was on the disk before.
        sleep(Duration::from_millis(500)).await;
        nobody_is_told(&site, HELD).await;
        held.release();
        site.says_soon("host", "cannot write to the outbox").await;
        site.burst().goes_on(BEFORE).await;
        site.verdict("another program holds the outbox for 7 s", true).await;

        site.burst().goes_on(BEFORE).await;
        let held = Held::new(&site.records());
        sleep(HELD).await;
        held.release();
        site.says_soon("manager", "cannot write the records").await;
        site.burst().goes_on(BEFORE).await;
        site.verdict("another program holds the records for 6.5 s", false).await;
    });
}
