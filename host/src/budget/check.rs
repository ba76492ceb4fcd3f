//! `holeshot budget --check`: predicts what loads cost a shard, and then lets a real host carry them, in a process of its own, with players in this one.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::counts::{self, PerFrame};
use super::measure::{Calibration, Prediction, SECONDS_MAX, SETTLE_MS};
use crate::api::Api;
use crate::load::{Counts, Load, Options as LoadOptions};

/// How far a prediction may be off, as a part of what was measured.
pub const OFF_MAX: f64 = 0.2;
/// A load is measured in windows of this length, and the one in the middle counts: what a neighbour takes of a shared machine comes in bursts.
const WINDOW: Duration = Duration::from_secs(1);
/// Most loads of one check.
const LOADS_MAX: usize = 16;
/// How long a host may take to start, in seconds: it compiles its modules.
const START_WAIT_MAX_S: u64 = 120;
/// How long rooms may take to close once everybody has left, in seconds.
const CLOSE_WAIT_MAX_S: u64 = 20;

/// What is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// A rules module to load besides those that ship.
    pub modules: Vec<PathBuf>,
    /// What is played; its number of rooms is that of each load in turn.
    pub load: LoadOptions,
    /// Rooms of each load.
    pub loads: Vec<usize>,
    /// How long each is measured, in seconds.
    pub seconds: u64,
}

/// One load, predicted and measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Row {
    /// What was predicted.
    pub predicted: Prediction,
    /// What was counted.
    pub measured: PerFrame,
    /// What the players counted.
    pub players: Counts,
    /// The prediction's difference, as a part of what was measured.
    pub off: f64,
}

/// Runs the loads, one after the other, on one host.
///
/// # Errors
/// Options out of range, or a host or players that do not do what they should.
pub async fn run(
    options: &Options,
    calibration: &Calibration,
    mut progress: impl FnMut(&str),
) -> anyhow::Result<Vec<Row>> {
    if options.loads.is_empty() || options.loads.len() > LOADS_MAX || !(1..=SECONDS_MAX).contains(&options.seconds) {
        bail!("1 to {LOADS_MAX} loads of 1 to {SECONDS_MAX} seconds can be checked");
    }
    progress("starting a host in a process of its own");
    let most = options.loads.iter().max().copied().unwrap_or_default();
    let host = Host::start(options, most).await?;
    let mut rows = Vec::new();
    for &rooms in &options.loads {
        progress(&format!("{rooms} rooms of {} players", options.load.players));
        let predicted = calibration.predict(rooms, options.load.seed);
        let load = Load::start(&host.api, &LoadOptions { rooms, ..options.load.clone() }).await?;
        load.begun().await?;
        sleep(Duration::from_millis(SETTLE_MS)).await;
        let before = load.counts();
        let mut windows = Vec::new();
        for _ in 0..options.seconds {
            let mut counted = counts::between(&host.api, WINDOW).await?;
            let cpu_us = counted.cpu_us.context("the host's system does not tell the processor time of a thread")?;
            // Ticks tell how many frames there were better than the moments at which the pages came, which a busy machine delays.
            let cpu_us = cpu_us * rooms as f64 / counted.rooms.max(f64::MIN_POSITIVE);
            counted.cpu_us = Some(cpu_us);
            windows.push((cpu_us, counted));
        }
        let players = load.counts().since(before);
        load.stop().await?;
        if players.games_over > 0 {
            bail!("games ended while they were measured: check for fewer seconds");
        }
        windows.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let (cpu_us, counted) = *windows.get(windows.len() / 2).context("nothing was counted")?;
        rows.push(Row { predicted, measured: counted, players, off: predicted.cpu_us / cpu_us - 1.0 });
        host.emptied().await?;
    }
    Ok(rows)
}

/// A host in a process of its own, which ends with this value.
struct Host {
    child: Child,
    api: Api,
    _folder: tempfile::TempDir,
}

impl Host {
    async fn start(options: &Options, rooms: usize) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("holeshot-budget-").tempdir().context("no folder for a host")?;
        let mut command = Command::new(std::env::current_exe().context("this program does not know where it is")?);
        command.args(["serve", "--json", "--log", "error", "--shards", "1", "--linger-s", "0", "--drain-wait-s", "0"]);
        for listen in ["--http-listen", "--udp-listen", "--mqtt-listen"] {
            command.args([listen, "127.0.0.1:0"]);
        }
        command.arg("--rooms-max").arg((rooms + 8).to_string()).arg("--data-dir").arg(folder.path());
        for module in &options.modules {
            command.arg("--module").arg(module);
        }
        // Settings of whoever measures are not those of this host.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOLESHOT_")) {
            command.env_remove(name);
        }
        // What goes wrong in it is told where this program tells it.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().context("the host does not start")?;
        let stdout = child.stdout.take();
        let mut host = Self { child, api: Api::new("http://127.0.0.1:0")?, _folder: folder };
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

    /// Waits until no room is left of the last load.
    async fn emptied(&self) -> anyhow::Result<()> {
        let emptied = async {
            loop {
                let page = counts::page(&self.api).await?;
                if page.rooms() == 0.0 {
                    return anyhow::Ok(());
                }
                sleep(Duration::from_millis(counts::PAGES_APART_MS)).await;
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
