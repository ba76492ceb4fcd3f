//! A host in a process of its own, for whoever measures one: what it costs is then its own and not that of the players, who are in this process.
//!
//! It is this very program, on ports that nobody has, with a data folder that goes with it, and as every host is by default: with journal, events and
//! records. It is killed when its [`Host`] is dropped.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::api::Api;
use crate::budget::counts::{self, PAGES_APART_MS};

/// How long a host may take to start, in seconds: it compiles its modules.
const START_WAIT_MAX_S: u64 = 120;
/// How long rooms may take to close once everybody has left, in seconds.
const CLOSE_WAIT_MAX_S: u64 = 20;
/// Limits of the doors that hold for all addresses together, as they are set here: what is measured is rooms, and thousands of players who come in one
/// moment are none that a door should keep out. Those of an address do not hold for this machine's own.
const LIMITS: [&str; 7] = [
    "requests_per_s=1000000",
    "rooms_per_minute=1000000",
    "handshakes_per_s=1000000",
    "half_open_max=1000000",
    "websockets_max=1000000",
    "messages_per_s=100000000",
    "bytes_per_s=1000000000",
];

/// How a host is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Threads that step rooms; none for the default of `serve`.
    pub shards: Option<usize>,
    /// Most rooms at a time; none for the default of `serve`.
    pub rooms_max: Option<u32>,
    /// Rules modules to load besides those that ship.
    pub modules: Vec<PathBuf>,
    /// How long a room stays after its end, in seconds.
    pub linger_s: u32,
    /// How long it waits for games that run when it is told to stop, in seconds.
    pub drain_wait_s: u32,
    /// More arguments of `serve`, which come last.
    pub more: Vec<OsString>,
}

impl Default for Options {
    /// As `serve` is by default, but that nobody waits for rooms that have ended.
    fn default() -> Self {
        Self { shards: None, rooms_max: None, modules: Vec::new(), linger_s: 0, drain_wait_s: 0, more: Vec::new() }
    }
}

/// A host in a process of its own, which ends with this value.
#[derive(Debug)]
pub struct Host {
    child: Child,
    /// Its HTTP interface.
    pub api: Api,
    /// The number of its process.
    pub pid: u32,
    folder: tempfile::TempDir,
}

impl Host {
    /// Starts one, and waits until it serves.
    ///
    /// # Errors
    /// If it does not start. What it says about that is on standard error.
    pub async fn start(options: &Options) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("holeshot-host-").tempdir().context("no folder for a host")?;
        let mut command = this_program()?;
        command.args(arguments(options, folder.path()));
        // What goes wrong in it is told where this program tells it.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().context("the host does not start")?;
        let (pid, stdout) = (child.id(), child.stdout.take());
        // From here on it ends with this value, whatever goes wrong.
        let mut host = Self { child, api: Api::new("http://127.0.0.1:0")?, pid, folder };
        let (said, first) = oneshot::channel();
        let reader = move || {
            let mut lines = BufReader::new(stdout?).lines();
            let _nobody_waits = said.send(lines.next()?.ok()?);
            // What it says later is nobody's; a full pipe must not stop it.
            lines.for_each(drop);
            Some(())
        };
        std::thread::Builder::new().name("host-output".into()).spawn(reader).context("no thread for a host")?;
        let line = timeout(Duration::from_secs(START_WAIT_MAX_S), first).await;
        let Ok(Ok(line)) = line else { bail!("the host does not start; what it says about that is above") };
        let said: Value = serde_json::from_str(&line).context("the host's first line is no JSON")?;
        let url = said.get("url").and_then(Value::as_str).context("the host does not say where it listens")?;
        host.api = Api::new(url)?;
        Ok(host)
    }

    /// The folder of its databases and journals.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until no room is open.
    ///
    /// # Errors
    /// If rooms stay open for longer than they should.
    pub async fn emptied(&self) -> anyhow::Result<()> {
        let emptied = async {
            loop {
                let page = counts::page(&self.api).await?;
                if page.rooms() == 0.0 {
                    return anyhow::Ok(());
                }
                sleep(Duration::from_millis(PAGES_APART_MS)).await;
            }
        };
        let waited = timeout(Duration::from_secs(CLOSE_WAIT_MAX_S), emptied).await;
        waited.context("rooms stay open although everybody has left")?
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It has nothing that anybody wants to keep.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// This program, to be started once more, without the settings of whoever started it.
///
/// # Errors
/// If the system does not say where it is.
pub fn this_program() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("this program does not know where it is")?);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOLESHOT_")) {
        command.env_remove(name);
    }
    Ok(command)
}

fn arguments(options: &Options, folder: &Path) -> Vec<OsString> {
    let mut all: Vec<OsString> = ["serve", "--json", "--log", "error"].map(OsString::from).into();
    let mut set = |flag: &str, value: OsString| all.extend([flag.into(), value]);
    for listen in ["--http-listen", "--udp-listen", "--mqtt-listen"] {
        set(listen, "127.0.0.1:0".into());
    }
    set("--data-dir", folder.into());
    set("--linger-s", options.linger_s.to_string().into());
    set("--drain-wait-s", options.drain_wait_s.to_string().into());
    options.shards.iter().for_each(|shards| set("--shards", shards.to_string().into()));
    options.rooms_max.iter().for_each(|rooms| set("--rooms-max", rooms.to_string().into()));
    options.modules.iter().for_each(|module| set("--module", module.into()));
    LIMITS.iter().for_each(|limit| set("--limit", limit.into()));
    all.extend(options.more.iter().cloned());
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    use crate::config::Settings;

    #[derive(Debug, Parser)]
    struct Serve {
        #[command(flatten)]
        settings: Settings,
        #[arg(long)]
        json: bool,
        #[arg(long)]
        log: String,
    }

    #[test]
    fn what_is_asked_for_is_what_a_host_is_set_to_and_the_rest_is_default() {
        let options = Options {
            shards: Some(1),
            rooms_max: Some(77),
            modules: vec!["one.wasm".into()],
            linger_s: 3,
            drain_wait_s: 4,
            more: vec!["--journal-days".into(), "2".into()],
        };
        let read = |options: &Options| {
            let read = Serve::try_parse_from(arguments(options, Path::new("data"))).expect("`serve` takes them");
            assert!(read.json && read.log == "error");
            read.settings.resolve().expect("the settings are good")
        };
        let config = read(&options);
        assert_eq!((config.shards, config.rooms_max, config.linger_s, config.drain_wait_s), (1, 77, 3, 4));
        assert_eq!((config.journal_days, config.modules), (2, vec![PathBuf::from("one.wasm")]));
        assert_eq!(config.data_dir, Path::new("data"));
        assert!(config.http_listen.port() == 0 && config.udp_listen.port() == 0 && config.mqtt_listen.port() == 0);

        let (config, default) = (read(&Options::default()), Settings::default().resolve().unwrap());
        assert_eq!((config.shards, config.rooms_max), (default.shards, default.rooms_max));
        assert_eq!((config.journal_days, config.manager, config.broker), (default.journal_days, true, None));
        let limits = &config.gate.limits;
        assert!(limits != &default.gate.limits, "{limits:?}");
    }
}
