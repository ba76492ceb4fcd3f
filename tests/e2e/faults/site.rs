//! A host, a broker and a manager in processes of their own, under a burst of games; what can be done to them; and the verdict.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::burst::{self, Burst, Rooms, Seen};
use super::process::Process;
use crate::harness::{client, data_dir, eventually, open_records, tell};
use crate::mosquitto::Mosquitto;

/// How long it may take until everything is recorded, once everything runs again: a pause of 5 s before a new attempt, a broker that is given up
/// after 15 s, and a busy machine.
const RECORDED_WAIT: Duration = Duration::from_secs(60);

/// Games at once.
const PLAYERS: usize = 6;
/// With so many events in the outbox no game begins: how fast a busy machine records is no part of these tests.
const WAITING_MAX: i64 = 30_000;
/// Numbered events in each tick of each of them: with 50 ticks a second, 4,800 a second in all.
pub(crate) const PER_TICK: u32 = 16;

const OUTBOX: &str = "outbox.sqlite3";
const RECORDS: &str = "records.sqlite3";

/// What can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Host,
    Manager,
    Broker,
}

impl Part {
    pub(crate) const ALL: [Self; 3] = [Self::Host, Self::Manager, Self::Broker];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Manager => "manager",
            Self::Broker => "broker",
        }
    }
}

/// Where things are.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The host's data folder.
    pub(crate) host: PathBuf,
    /// The manager's.
    pub(crate) manager: PathBuf,
    /// Logs and modules.
    pub(crate) other: PathBuf,
    /// Where this process sees the host's folder and the manager's, if that is elsewhere: SQLite does not find its way there, so their files
    /// are copied to be looked at.
    pub(crate) seen: Option<(PathBuf, PathBuf)>,
}

/// The three processes. With the embedded broker there is one, and `manager` and `broker` are none.
pub(crate) struct Site {
    pub(crate) places: Places,
    pub(crate) host: Process,
    pub(crate) manager: Option<Process>,
    pub(crate) broker: Option<Mosquitto>,
    pub(crate) burst: Option<Burst>,
    /// Rooms that were counted already.
    counted: Rooms,
    _dirs: Vec<TempDir>,
}

/// How a site differs from the usual one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    /// Folders that are not the usual ones.
    pub(crate) places: Option<Places>,
    /// The port where host and manager find the broker, if it is not the broker's own.
    pub(crate) broker_port: Option<u16>,
    /// The environment of host and manager.
    pub(crate) environment: Vec<(String, String)>,
    /// What starts the host, and the manager.
    pub(crate) host_starter: Vec<String>,
    pub(crate) manager_starter: Vec<String>,
    /// More arguments of the host, and of the manager.
    pub(crate) host_args: Vec<String>,
    pub(crate) manager_args: Vec<String>,
}

impl Site {
    /// Host and manager with a broker that runs, and games.
    pub(crate) async fn start(broker: Mosquitto, plan: &Plan) -> Self {
        Self::start_with(Some(broker), plan).await
    }

    /// A host that is broker and manager, too.
    pub(crate) async fn start_embedded(plan: &Plan) -> Self {
        Self::start_with(None, plan).await
    }

    async fn start_with(broker: Option<Mosquitto>, plan: &Plan) -> Self {
        let (dirs, places) = match plan.places.clone() {
            Some(places) => (Vec::new(), places),
            None => {
                let (host, other) = (data_dir(), tempfile::tempdir().unwrap());
                let manager = if broker.is_some() { other.path().join("manager") } else { host.path().to_owned() };
                let places =
                    Places { host: host.path().to_owned(), manager, other: other.path().to_owned(), seen: None };
                (vec![host, other], places)
            }
        };
        let module = places.other.join("numbered.wasm");
        std::fs::write(&module, burst::rules(PER_TICK)).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let environment: Vec<(&str, &str)> =
            plan.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let port = plan.broker_port.or(broker.as_ref().map(|broker| broker.port)).unwrap_or_default();
        let url = format!("mqtt://127.0.0.1:{port}");

        let mut manager = None;
        if broker.is_some() {
            let folder = text(&places.manager);
            let mut args =
                vec!["manager", "--json", "--broker", &url, "--data-dir", &folder, "--http-listen", "127.0.0.1:0"];
            args.extend(plan.manager_args.iter().map(String::as_str));
            manager = Some(
                Process::start(&plan.manager_starter, &args, &places.other.join("manager.log"), &environment).await,
            );
        }
        let (folder, module) = (text(&places.host), text(&module));
        let mut args = vec!["serve", "--json", "--data-dir", &folder, "--module", &module, "--rooms-max", "64"];
        args.extend(["--linger-s", "0", "--http-listen", "127.0.0.1:0", "--udp-listen", "127.0.0.1:0"]);
        if broker.is_some() {
            args.extend(["--broker", &url, "--manager", "no"]);
        } else {
            args.extend(["--mqtt-listen", "127.0.0.1:0"]);
        }
        args.extend(plan.host_args.iter().map(String::as_str));
        let host = Process::start(&plan.host_starter, &args, &places.other.join("host.log"), &environment).await;
        let burst = Some(Burst::start(PLAYERS, &host.url(), &places.host.join(OUTBOX), WAITING_MAX));
        Self { places, host, manager, broker, burst, counted: Rooms::new(), _dirs: dirs }
    }

    /// The records, or a copy of them.
    pub(crate) fn records(&self) -> PathBuf {
        let Places { manager, other, seen, .. } = &self.places;
        seen.as_ref().map_or_else(|| manager.join(RECORDS), |(_, seen)| copy(seen, RECORDS, other))
    }

    /// The outbox, or a copy of it.
    pub(crate) fn outbox(&self) -> PathBuf {
        let Places { host, other, seen, .. } = &self.places;
        seen.as_ref().map_or_else(|| host.join(OUTBOX), |(seen, _)| copy(seen, OUTBOX, other))
    }

    pub(crate) fn burst(&self) -> &Burst {
        self.burst.as_ref().expect("games run")
    }

    pub(crate) fn manager(&self) -> &Process {
        self.manager.as_ref().expect("it is a process of its own")
    }

    pub(crate) fn broker(&self) -> &Mosquitto {
        self.broker.as_ref().expect("it is a process of its own")
    }

    /// Rooms that have had their verdict.
    pub(crate) fn counted(&self) -> &Rooms {
        &self.counted
    }

    /// Waits until the host or the manager logs these words.
    pub(crate) async fn says_soon(&self, who: &str, words: &str) {
        let process = if who == "host" { &self.host } else { self.manager() };
        eventually(&format!("the {who} says {words:?}"), RECORDED_WAIT, async || {
            let log = process.log();
            if log.contains(words) { Ok(()) } else { Err(log) }
        })
        .await;
    }

    pub(crate) async fn kill(&mut self, part: Part) {
        match part {
            Part::Host => {
                self.burst().host(None);
                self.host.kill().await;
            }
            Part::Manager => self.manager.as_mut().expect("it is a process of its own").kill().await,
            Part::Broker => self.broker.as_mut().expect("it is a process of its own").kill().await,
        }
    }

    pub(crate) async fn restart(&mut self, part: Part) {
        match part {
            Part::Host => {
                self.host.restart().await;
                self.burst().host(Some(self.host.url()));
            }
            Part::Manager => self.manager.as_mut().expect("it is a process of its own").restart().await,
            Part::Broker => self.broker.as_mut().expect("it is a process of its own").up().await,
        }
    }

    /// Lets the games end, waits until everything is recorded, compares, and prints the count of what was not counted before. New games begin
    /// if there is more to come.
    pub(crate) async fn verdict(&mut self, scenario: &str, more: bool) {
        let mut rooms = self.burst.take().expect("games run").stop().await;
        rooms.retain(|room, _| !self.counted.contains_key(room));
        self.judge(scenario, &rooms).await;
        self.counted.extend(rooms);
        if more {
            self.burst = Some(Burst::start(PLAYERS, &self.host.url(), &self.outbox(), WAITING_MAX));
        } else {
            self.is_drained().await;
            self.end(scenario).await;
        }
    }

    /// Waits until these rooms are recorded, and compares.
    pub(crate) async fn judge(&self, scenario: &str, rooms: &Rooms) {
        let whole = rooms.values().filter(|seen| matches!(seen, Seen::Whole(_))).count();
        assert!(whole > 0, "{scenario}: no room was seen to end, so nothing was tested: {rooms:?}");
        let found = eventually(&format!("{scenario}: every event is recorded"), RECORDED_WAIT, async || {
            // A copy of what is being written can be torn.
            let found = burst::count(&self.records(), rooms).map_err(|error| error.to_string())?;
            if found.lost == 0 { Ok(found) } else { Err(self.excuse(&found)) }
        })
        .await;
        tell!(
            "{scenario}: sent {}, recorded {}, lost {}, doubled {} (rooms: {} ended, {} cut off with {} events)",
            found.sent,
            found.recorded,
            found.lost,
            found.doubled,
            found.whole,
            found.cut,
            found.of_cut
        );
        assert!(found.wrong.is_empty() && found.doubled == 0, "{scenario}: {}", self.excuse(&found));
    }

    fn excuse(&self, found: &burst::Count) -> String {
        let tail = |log: String| {
            log.lines()
                .rev()
                .filter(|line| !line.contains(" INFO "))
                .take(12)
                .fold(String::new(), |text, line| format!("{line}\n{text}"))
        };
        let manager = self.manager.as_ref().map(|manager| tail(manager.log())).unwrap_or_default();
        let first: Vec<_> = found.wrong.iter().take(5).collect();
        format!(
            "lost {}, doubled {}: {first:#?}\nhost:\n{}\nmanager:\n{manager}",
            found.lost,
            found.doubled,
            tail(self.host.log())
        )
    }

    /// Waits until the host has nothing left to send.
    async fn is_drained(&self) {
        eventually("the outbox is empty", RECORDED_WAIT, async || match burst::outbox_rows(&self.outbox()) {
            Ok(0) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// Stops what runs, in order, and looks for panics.
    async fn end(&mut self, scenario: &str) {
        self.host.stop().await;
        if let Some(manager) = &mut self.manager {
            manager.stop().await;
        }
        assert_eq!(burst::outbox_rows(&self.outbox()), Ok(0), "{scenario}: what is left in the outbox");
        // The rooms that were cut off have an end, too: a host that starts again says so of those that it lost.
        let without_an_end = "SELECT COUNT(*) FROM rooms WHERE outcome IS NULL";
        let without_an_end: i64 =
            open_records(&self.records()).query_row(without_an_end, [], |row| row.get(0)).unwrap();
        assert_eq!(without_an_end, 0, "{scenario}: rooms without an end");
        for log in [Some(self.host.log()), self.manager.as_ref().map(Process::log)].into_iter().flatten() {
            assert!(!log.contains("panicked"), "{scenario}: {log}");
        }
    }

    /// Whether the manager says that it records.
    pub(crate) async fn is_subscribed(&self) {
        let Some(manager) = &self.manager else { return };
        let url = format!("{}/readyz", manager.url());
        eventually("the manager has subscribed", RECORDED_WAIT, async || match client().get(&url).send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }
}

/// Copies a database with its journal to a folder.
fn copy(from: &Path, name: &str, to: &Path) -> PathBuf {
    let copied = to.join(name);
    for ending in ["", "-wal"] {
        let [from, to] = [from, to].map(|folder| folder.join(format!("{name}{ending}")));
        if std::fs::copy(from, &to).is_err() {
            let _none_before = std::fs::remove_file(to);
        }
    }
    let _of_the_copy_before = std::fs::remove_file(to.join(format!("{name}-shm")));
    copied
}
