//! `holeshot replay`: runs a journal again, at full speed, and proves it; or shows a state of it; or shows what other rules would have made of it; or
//! shows the match to spectators as if it were live.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Args;
use holeshot_room::FaultKind;
use holeshot_room::journal::{Journal, JournalOutcome};
use serde_json::{Value, json};

use super::output::say;
use super::serve::stop_signal;
use super::slips;
use super::watch::spectate;
use crate::api::Api;
use crate::config::{OpenDoors, Settings};
use crate::events::cloudevent::rfc3339;
use crate::journal::feed::JournalFeed;
use crate::journal::replay::{self, Comparison, ModuleShelf, Proof, Replay, Told};
use crate::journal::{JournalFile, compare::FIELDS_MAX, find, read};
use crate::rules::{EngineSettings, ModuleHash};
use crate::server::Server;

#[derive(Debug, Clone, Args)]
pub(super) struct ReplayArgs {
    /// A room's id, the beginning of one, or a journal's file
    #[arg(value_name = "ROOM|FILE")]
    journal: String,
    /// Run the same inputs under this module too, from the first frame on, and show what changes
    #[arg(long, value_name = "FILE", conflicts_with = "at")]
    module: Option<PathBuf>,
    /// Print the state after this frame, as JSON
    #[arg(long, value_name = "FRAME")]
    at: Option<u32>,
    /// Show the match to spectators as if it were live, at this speed: 1 is that of the match, 0.5 half of it; up to what 128 ticks a second allow
    #[arg(long, value_name = "TIMES", conflicts_with_all = ["at", "module"])]
    speed: Option<f64>,
    /// With --speed: the address for the spectators' HTTP and WebSocket; port 0 lets the system pick one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", requires = "speed")]
    http_listen: SocketAddr,
    /// Folder with wasm files of modules that the room ran under; they are found by their hash
    #[arg(long, value_name = "FOLDER")]
    modules: Vec<PathBuf>,
    /// The part of a tick's time that the rules could use on the host, in percent: where fuel ran out it has to be the same
    #[arg(long, env = "HOLESHOT_TICK_SHARE_PERCENT", value_name = "PERCENT", default_value_t = EngineSettings::TICK_SHARE_PERCENT,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    tick_share_percent: u32,
    /// The host's data folder
    #[arg(long, env = "HOLESHOT_DATA_DIR", value_name = "FOLDER", default_value = "holeshot-data")]
    data_dir: PathBuf,
}

/// A journal, and where it came from.
struct Source {
    journal: Journal,
    path: PathBuf,
    bytes: u64,
    is_damaged: bool,
}

pub(super) async fn replay(args: ReplayArgs, as_json: bool) -> anyhow::Result<()> {
    if let Some(speed) = args.speed {
        return perform(args, speed, as_json).await;
    }
    // Files, a compiler and full speed: nothing for the threads that wait for sockets.
    tokio::task::spawn_blocking(move || run(&args, as_json)).await?
}

/// Ticks a second that a room may have at most, as the boundary allows.
const TICK_HZ_MAX: f64 = 128.0;

/// A host of its own, with one room, in which the journal plays the players; and a spectator in this terminal.
async fn perform(args: ReplayArgs, speed: f64, as_json: bool) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    let http_listen = args.http_listen;
    let loaded = tokio::task::spawn_blocking(move || {
        let path = find(&args.journal, &args.data_dir)?;
        let JournalFile { journal, .. } = read(&path)?;
        let mut shelf = ModuleShelf::new(&args.data_dir, &args.modules, Some(&path), args.tick_share_percent)?;
        let module = shelf.find(ModuleHash::from(journal.header().module))?;
        let feed = JournalFeed::new(&journal, &mut shelf)?;
        anyhow::Ok((journal, module, feed))
    });
    let (journal, module, feed) = loaded.await??;
    let tick_hz = f64::from(journal.setup().tick_hz);
    let (slowest, fastest) = (1.0 / tick_hz, TICK_HZ_MAX / tick_hz);
    if !(slowest..=fastest).contains(&speed) {
        bail!(
            "--speed {speed}; accepted for this match: {slowest:.2} to {fastest:.2}. Without --speed it is replayed as fast as possible"
        );
    }
    // In range, so that neither sign nor size is lost.
    let tick_hz = (tick_hz * speed).round() as u32;
    // What its host records is of no use afterwards.
    let data_dir =
        tempfile::Builder::new().prefix("holeshot-replay-").tempdir().context("no folder for the replay's host")?;
    let any_port = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let settings = Settings {
        http_listen: Some(http_listen),
        udp_listen: Some(SocketAddr::new(http_listen.ip(), 0)),
        mqtt_listen: any_port,
        data_dir: Some(data_dir.path().to_path_buf()),
        linger_s: Some(1),
        // Whoever gave it an address for others wants them to watch. There is room for this match and for none of theirs.
        open_doors: Some(OpenDoors::Yes),
        rooms_max: Some(1),
        ..Settings::default()
    };
    let server = Server::start(settings.resolve()?).await?;
    let shown = async {
        let live = server.rooms().open_replay(&journal, &module, tick_hz, feed).await?;
        if !as_json {
            let url = server.url();
            say(format_args!("room {} once more, at {tick_hz} ticks a second", live.id));
            say(format_args!("more spectators: holeshot watch {} --url {url}", live.id));
        }
        spectate(&Api::new(&server.url())?, &live.id, as_json).await
    };
    let shown = tokio::select! {
        shown = shown => shown,
        _ = stop => Ok(()),
    };
    server.stop().await?;
    shown
}

fn run(args: &ReplayArgs, as_json: bool) -> anyhow::Result<()> {
    let path = find(&args.journal, &args.data_dir)?;
    let JournalFile { journal, bytes, is_damaged } = read(&path)?;
    let source = Source { journal, path, bytes, is_damaged };
    let mut shelf = ModuleShelf::new(&args.data_dir, &args.modules, Some(&source.path), args.tick_share_percent)?;
    match (&args.module, args.at) {
        (Some(module), _) => compare(&source, &mut shelf, module, as_json),
        (None, Some(frame)) => state(&source, &mut shelf, frame),
        (None, None) => prove(&source, &mut shelf, as_json),
    }
}

impl Source {
    /// `whole`, `cut_short`, or `damaged`: a block is all there and is not what was written.
    fn state(&self) -> &'static str {
        if self.journal.is_whole() && self.journal.truncated_at().is_none() {
            "whole"
        } else if self.is_damaged {
            "damaged"
        } else {
            "cut_short"
        }
    }

    fn opened_at(&self) -> String {
        let opened = UNIX_EPOCH.checked_add(Duration::from_millis(self.journal.header().opened_unix_ms));
        opened.map_or_else(|| "an impossible time".to_owned(), |opened: SystemTime| rfc3339(opened))
    }

    /// The modules that count, with their first frames.
    fn modules(&self) -> Vec<Value> {
        let (header, manifest) = (self.journal.header(), self.journal.manifest());
        let module = |from_frame: u32, hash: [u8; 32], version: &str| {
            let hash = ModuleHash::from(hash).to_string();
            json!({ "name": manifest.name, "version": version, "hash": hash, "from_frame": from_frame })
        };
        let swaps = self.journal.swaps().iter().filter(|swap| !swap.rolled_back);
        std::iter::once(module(0, header.module, &manifest.version))
            .chain(swaps.map(|swap| module(swap.next_frame, swap.to, &swap.version)))
            .collect()
    }

    fn game_s(&self, frames: u64) -> f64 {
        frames as f64 / f64::from(self.journal.setup().tick_hz.max(1))
    }

    /// What every report begins with.
    fn head(&self) -> Value {
        let journal = &self.journal;
        let outcome = match journal.outcome() {
            Some(JournalOutcome::Finished { .. }) => json!("finished"),
            Some(JournalOutcome::Aborted { reason, .. }) => json!(reason.as_str()),
            None => Value::Null,
        };
        let rollbacks: Vec<Value> = journal
            .rollbacks()
            .iter()
            .map(|rollback| {
                json!({
                    "since_frame": rollback.since_frame, "frame": rollback.frame, "fault": rollback.fault.as_str(),
                    "failed": ModuleHash::from(rollback.failed).to_string(), "message": rollback.message,
                })
            })
            .collect();
        json!({
            "journal": {
                "path": self.path, "bytes": self.bytes, "state": self.state(), "frames": journal.frames(),
                "read_bytes": journal.truncated_at().map_or(self.bytes, |offset| offset as u64),
            },
            "room": journal.header().room, "opened_at": self.opened_at(), "outcome": outcome,
            "players": self.players(), "modules": self.modules(), "swaps": journal.swaps().len(), "rollbacks": rollbacks,
        })
    }

    fn players(&self) -> Value {
        let players = self.journal.setup().players.iter().enumerate();
        players.map(|(player, setup)| json!({ "player": player, "name": setup.name })).collect()
    }

    /// Results as the tables want them.
    fn record(&self, results: Option<&Value>) -> Value {
        json!({ "players": self.players(), "results": results.unwrap_or(&Value::Null) })
    }

    fn head_text(&self) -> String {
        let journal = &self.journal;
        let mut text = String::new();
        let mut line = |title: &str, value: &str| {
            let _infallible = writeln!(text, "{title:<9} {value}");
        };
        line("journal", &format!("{}, {} bytes, {}", self.path.display(), self.bytes, self.state().replace('_', " ")));
        line("room", &format!("{}, opened {}", journal.header().room, self.opened_at()));
        let names: Vec<&str> = journal.setup().players.iter().map(|player| player.name.as_str()).collect();
        line("players", &names.join(", "));
        for module in self.modules() {
            let word = |field: &str| module.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
            let from_frame = module.get("from_frame").and_then(Value::as_u64).unwrap_or_default();
            line("rules", &format!("{} {} ({}), from frame {from_frame}", word("name"), word("version"), word("hash")));
        }
        for rollback in journal.rollbacks() {
            let failed = ModuleHash::from(rollback.failed);
            let (since, frame, fault) = (rollback.since_frame, rollback.frame, rollback.fault);
            line("", &format!("{failed} was tried from frame {since} and undone: {fault} in frame {frame}"));
        }
        text
    }
}

fn prove(source: &Source, shelf: &mut ModuleShelf, as_json: bool) -> anyhow::Result<()> {
    let proof = Replay::begin(&source.journal, shelf)?.prove(shelf);
    let game_s = source.game_s(proof.frames);
    let times = game_s / (proof.took_us.max(1) as f64 / 1e6);
    let is_proven = proof.difference.is_none() && proof.broke_off.is_none();
    if as_json {
        let mut report = source.head();
        merge(
            &mut report,
            json!({
                "frames": proof.frames, "skipped": proof.skipped, "game_s": game_s, "took_ms": proof.took_us as f64 / 1e3,
                "times_real_time": times, "outputs_checked": proof.outputs_compared, "states_checked": proof.states_compared,
                "verdict": if is_proven { "proven" } else { "differs" },
                "difference": proof.difference, "broke_off": proof.broke_off, "results": proof.results,
            }),
        );
        say(report);
    } else {
        say(source.head_text().trim_end());
        say(format_args!(
            "frames    {}, which is {game_s:.1} s of game, in {:.1} ms: {times:.0} times real time",
            proof.frames,
            proof.took_us as f64 / 1e3
        ));
        let results = source.record(proof.results.as_ref());
        if slips::are_slips(proof.results.as_ref().unwrap_or(&Value::Null)) {
            say(slips::table(&results).trim_end());
        } else if let Some(results) = &proof.results {
            say(format_args!("results   {results}"));
        }
        if is_proven {
            say(format_args!(
                "\nproven: {} outputs and {} states are those on record, bit for bit",
                proof.outputs_compared, proof.states_compared
            ));
        }
    }
    verdict(source, &proof)
}

/// What a failed proof ends with.
fn verdict(source: &Source, proof: &Proof) -> anyhow::Result<()> {
    if let Some(told) = &proof.difference {
        bail!("{}", difference(told, ["on record", "replayed"]));
    }
    if let Some(problem) = &proof.broke_off {
        let hint = if problem.contains(FaultKind::FuelExhausted.as_str()) {
            "; if the host gave rules more of a tick, name it with --tick-share-percent"
        } else {
            ""
        };
        bail!("the replay cannot go on: {problem}; what came before is as on record{hint}");
    }
    if source.state() == "damaged" {
        bail!(
            "the journal is damaged at byte {}: the {} frames before it are proven, what follows was not read",
            source.journal.truncated_at().unwrap_or_default(),
            proof.frames
        );
    }
    Ok(())
}

/// A difference in words, with a line per field.
fn difference(told: &Told, sides: [&str; 2]) -> String {
    let frame = told.frame;
    let mut text = match told.what {
        "output" => format!("frame {frame} is the first whose output differs"),
        "state" => format!("the state after frame {frame} differs"),
        "no_fault" => format!("the rules failed in frame {frame} and do not fail now: it differs there"),
        _ => format!("the game ends in frame {frame} on one side only: it differs there"),
    };
    let [left, right] = sides;
    if let Some(after) = told.state_after_frame {
        if told.fields_count > 0 {
            let _infallible = write!(text, "; the state after frame {after}, {left} -> {right}:");
        }
        for field in &told.fields {
            let shown = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string);
            let _infallible = write!(text, "\n  {:<32} {} -> {}", field.path, shown(&field.left), shown(&field.right));
        }
        if told.fields_count > FIELDS_MAX {
            let _infallible = write!(text, "\n  and {} more", told.fields_count - FIELDS_MAX);
        }
        if let Some(bytes) = &told.bytes {
            let (offset, (left_len, right_len)) = (bytes.offset, bytes.lengths);
            let _infallible = write!(
                text,
                "; the state after frame {after} differs from byte {offset} on: {left} {} … ({left_len} bytes), {right} {} … ({right_len} bytes)",
                bytes.left, bytes.right
            );
        }
    } else if matches!(told.what, "output" | "state") {
        text.push_str("; the journal has no state to compare after it");
    }
    text
}

fn state(source: &Source, shelf: &mut ModuleShelf, frame: u32) -> anyhow::Result<()> {
    let state = replay::state_at(&source.journal, shelf, frame)?;
    let hex: String = state.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let report = json!({
        "room": source.journal.header().room, "frame": frame, "module": state.module.to_string(),
        "state_version": state.version, "state": state.described,
        // A module that does not describe its state shows its bytes.
        "state_hex": state.described.is_none().then_some(hex),
    });
    say(serde_json::to_string_pretty(&report)?);
    Ok(())
}

fn compare(source: &Source, shelf: &mut ModuleShelf, path: &Path, as_json: bool) -> anyhow::Result<()> {
    let module = shelf.load(path)?;
    let comparison = replay::compare(&source.journal, shelf, &module)?;
    let manifest = module.manifest();
    let other = json!({ "name": manifest.name, "version": manifest.version, "hash": module.hash().to_string() });
    if as_json {
        let mut report = source.head();
        let mut ran = json!(comparison);
        if let Some(run) = ran.get_mut("other").and_then(Value::as_object_mut) {
            run.insert("module".into(), other);
        }
        merge(&mut report, ran);
        say(report);
    } else {
        say(source.head_text().trim_end());
        say(format_args!(
            "other     {} {} ({}), from {}",
            manifest.name,
            manifest.version,
            module.hash(),
            path.display()
        ));
        say(format_args!("frames    {} and {}", comparison.recorded.frames, comparison.other.frames));
        say(changes(source, &comparison).trim_end());
    }
    match &comparison.first_difference {
        None => {
            if !as_json {
                say("\nnothing changes: every output is the same, bit for bit");
            }
            Ok(())
        }
        Some(told) => bail!("{}", difference(told, ["under the room's rules", "under the other ones"])),
    }
}

/// What other rules make of the results.
fn changes(source: &Source, comparison: &Comparison) -> String {
    let (recorded, other) = (&comparison.recorded, &comparison.other);
    let mut text = String::new();
    for (whose, run) in [("the room's rules", recorded), ("the other rules", other)] {
        if let Some(problem) = &run.broke_off {
            let _infallible = writeln!(text, "{whose} broke off: {problem}");
        } else if run.results.is_none() {
            let _infallible = writeln!(text, "{whose} had not finished the game when the inputs ended");
        }
    }
    let results = |run: &replay::Run| run.results.clone().unwrap_or(Value::Null);
    if slips::are_slips(&results(recorded)) || slips::are_slips(&results(other)) {
        let (before, after) = (source.record(recorded.results.as_ref()), source.record(other.results.as_ref()));
        text.push_str(&slips::change_table(&before, &after));
    } else {
        for field in &comparison.results_changed {
            let shown = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string);
            let _infallible = writeln!(text, "{:<32} {} -> {}", field.path, shown(&field.left), shown(&field.right));
        }
    }
    text
}

/// Puts the fields of one object into another.
fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}
