//! `holeshot budget --check`: predicts what loads cost a shard, and lets a real host carry them, in a process of its own, with players in this one.
//!
//! A shared machine is not as fast in one minute as in the next. So the operations are measured before and after each load, with other numbers of rooms, and
//! the prediction is the mean of both. A load during which the two moved apart says more about the machine than about the prediction, and is run again.

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
use super::measure::{self, Calibration, Prediction, SECONDS_MAX, SETTLE_MS};
use crate::api::Api;
use crate::load::{Counts, Load, Options as LoadOptions};

/// How far a prediction may be off, as a part of what was measured.
pub const OFF_MAX: f64 = 0.2;
/// A load is measured in windows of this length, and the one in the middle counts: what a neighbour takes of a shared machine comes in bursts.
const WINDOW: Duration = Duration::from_secs(1);
/// How far the predictions from before and after a load may be apart, as a part of their mean: the machine was steady then.
pub const DRIFT_MAX: f64 = 0.1;
/// How often a load is run, if the machine is not steady. Of so many runs the steadiest counts.
pub const RUNS_MAX: usize = 3;
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
    /// How long each is measured, in seconds; the operations as long.
    pub seconds: u64,
    /// With how many rooms the operations are measured: few and many.
    pub measured_rooms: [usize; 2],
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
    /// How far apart the predictions from before and after the load were, as a part of their mean.
    pub drift: f64,
}

/// Runs the loads, one after the other, on one host.
///
/// # Errors
/// Options out of range, or a host or players that do not do what they should.
pub async fn run(options: &Options, mut progress: impl FnMut(&str)) -> anyhow::Result<Vec<Row>> {
    if options.loads.is_empty() || options.loads.len() > LOADS_MAX || !(1..=SECONDS_MAX).contains(&options.seconds) {
        bail!("1 to {LOADS_MAX} loads of 1 to {SECONDS_MAX} seconds can be checked");
    }
    let measured =
        measure::Options { modules: options.modules.clone(), load: options.load.clone(), seconds: options.seconds };
    progress("measuring the operations");
    let mut before = Calibration::run(&measured, options.measured_rooms, |_| {}).await?;
    progress("starting a host in a process of its own");
    let most = options.loads.iter().max().copied().unwrap_or_default();
    let host = Host::start(options, most).await?;
    let mut rows = Vec::new();
    for &rooms in &options.loads {
        let mut steadiest: Option<Row> = None;
        for run in 1..=RUNS_MAX {
            progress(&format!("{rooms} rooms of {} players", options.load.players));
            let (counted, players) = carry(&host, options, rooms).await?;
            progress("measuring the operations");
            let after = Calibration::run(&measured, options.measured_rooms, |_| {}).await?;
            let row = Row::of([&before, &after].map(|at| at.predict(rooms, options.load.seed)), counted, players)?;
            before = after;
            if steadiest.is_none_or(|steadiest| row.drift < steadiest.drift) {
                steadiest = Some(row);
            }
            if row.drift <= DRIFT_MAX {
                break;
            }
            if run < RUNS_MAX {
                progress(&format!("the machine's speed changed by {:.0} % meanwhile: once more", row.drift * 100.0));
            }
        }
        rows.extend(steadiest);
    }
    Ok(rows)
}

impl Row {
    fn of(predicted: [Prediction; 2], measured: PerFrame, players: Counts) -> anyhow::Result<Self> {
        let cpu_us = measured.cpu_us.context("the host's system does not tell the processor time of a thread")?;
        let [before, after] = predicted;
        let predicted = before.between(&after, 0.5);
        let drift = (after.cpu_us - before.cpu_us).abs() / predicted.cpu_us.max(f64::MIN_POSITIVE);
        Ok(Self { predicted, measured, players, off: predicted.cpu_us / cpu_us - 1.0, drift })
    }
}

/// Lets the host carry so many rooms, and counts.
async fn carry(host: &Host, options: &Options, rooms: usize) -> anyhow::Result<(PerFrame, Counts)> {
    let load = Load::start(&host.api, &LoadOptions { rooms, ..options.load.clone() }).await?;
    load.begun().await?;
    sleep(Duration::from_millis(SETTLE_MS)).await;
    let before = load.counts();
    let mut windows = Vec::new();
    for _ in 0..options.seconds {
        let mut counted = counts::between(&host.api, WINDOW).await?;
        // Ticks tell how many frames there were better than the moments at which the pages came, which a busy machine delays.
        let by_ticks = |cpu_us: f64| cpu_us * rooms as f64 / counted.rooms.max(f64::MIN_POSITIVE);
        counted.cpu_us = counted.cpu_us.map(by_ticks);
        windows.push(counted);
    }
    let players = load.counts().since(before);
    load.stop().await?;
    host.emptied().await?;
    if players.games_over > 0 {
        bail!("games ended while they were measured: check for fewer seconds");
    }
    let cpu_us = |counted: &PerFrame| counted.cpu_us.unwrap_or_default();
    windows.sort_by(|a, b| cpu_us(a).total_cmp(&cpu_us(b)));
    let middle = windows.get(windows.len() / 2).context("nothing was counted")?;
    Ok((*middle, players))
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
