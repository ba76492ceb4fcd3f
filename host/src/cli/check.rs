//! `holeshot check`: what a host would say about a module.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::Failed;
use super::output::{grouped, say};
use crate::modder::check::{self, About, FRAMES, FRAMES_MAX, Options, Report, Spread, players};
use crate::modules::read_module_file;

#[derive(Debug, Clone, Args)]
#[command(after_help = "What the rules log is shown with `--log holeshot::rules::guest=trace`.")]
pub(super) struct CheckArgs {
    /// The module
    #[arg(value_name = "RULES.WASM")]
    module: PathBuf,
    /// Another module: could this one take over its rooms while they run?
    #[arg(long, value_name = "OTHER.WASM")]
    against: Option<PathBuf>,
    /// Frames to play in each run
    #[arg(long, value_name = "N", default_value_t = FRAMES, value_parser = clap::value_parser!(u32).range(1..=i64::from(FRAMES_MAX)))]
    frames: u32,
    /// Decides the random inputs and the rooms
    #[arg(long, default_value_t = Options::default().seed)]
    seed: u64,
    /// Options of the rooms that are played, if the module needs some
    #[arg(long, value_name = "JSON", default_value = "", hide_default_value = true)]
    options: String,
    /// What each player brings, if the module needs something
    #[arg(long, value_name = "JSON", default_value = "", hide_default_value = true)]
    player_data: String,
}

pub(super) async fn check(args: CheckArgs, as_json: bool) -> anyhow::Result<()> {
    let path = args.module.clone();
    let (report, optimised) = tokio::task::spawn_blocking(move || {
        let bytes = read_module_file(&args.module)?;
        let against = args.against.as_deref().map(read_module_file).transpose().context("--against")?;
        let options =
            Options { frames: args.frames, seed: args.seed, room_options: args.options, player_data: args.player_data };
        anyhow::Ok((check::check(&bytes, against.as_deref(), &options)?, !cfg!(debug_assertions)))
    })
    .await??;
    if as_json {
        let mut value = serde_json::to_value(&report)?;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("file".into(), json!(path));
            fields.insert("taken".into(), json!(report.is_fine()));
            fields.insert("optimised".into(), json!(optimised));
        }
        say(value);
    } else {
        say(text(&path.display().to_string(), &report, optimised).trim_end());
    }
    if report.is_fine() { Ok(()) } else { Err(Failed.into()) }
}

fn text(file: &str, report: &Report, optimised: bool) -> String {
    let mut text = String::new();
    let verdict = if !report.problems.is_empty() {
        if report.module.is_none() { "a host refuses it" } else { "a host would stop it" }
    } else if report.is_fine() {
        "a host takes it"
    } else {
        "a host takes it, but not in place of the other"
    };
    let _ = writeln!(text, "{file}: {verdict}");
    for problem in &report.problems {
        let _ = writeln!(text, "\n  {}: {}", problem.places.join("; "), problem.message);
        for line in problem.backtrace.iter().flat_map(|backtrace| backtrace.lines()) {
            let _ = writeln!(text, "      {line}");
        }
    }
    let _ = writeln!(text);
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<12} {value}");
    };
    match &report.module {
        Some(about) => about_rows(report, about, &mut row),
        None => {
            row("hash", report.hash.clone());
            row("size", format!("{} bytes", grouped(report.bytes as u64)));
        }
    }
    for note in &report.notes {
        row("note", note.clone());
    }
    if let Some(about) = &report.module {
        runs_table(report, about, optimised, &mut text);
    }
    if let Some(against) = &report.against {
        let _ = writeln!(text, "\n  in place of {} {} ({:.12}…)", against.name, against.version, against.hash);
        for swap in &against.swaps {
            let answer = swap.refusal.as_deref().unwrap_or("takes over");
            let players = players(swap.players);
            let _ = writeln!(text, "    {players:>10}, before frame {:>3}: {answer}", swap.before_frame);
        }
    }
    text
}

fn about_rows(report: &Report, about: &About, row: &mut impl FnMut(&str, String)) {
    let (manifest, facts) = (&about.manifest, &about.facts);
    let kib = |bytes: u64| grouped(bytes.div_ceil(1024));
    let [[major, minor], [host_major, host_minor]] = [about.abi, about.abi_of_host];
    row(
        "module",
        format!(
            "{} {}, state version {}, boundary {major}.{minor} (this host: {host_major}.{host_minor})",
            manifest.name, manifest.version, manifest.state_version
        ),
    );
    row("hash", report.hash.clone());
    row(
        "size",
        format!(
            "{} bytes: code {} in {} functions, data {}, debug information {}",
            grouped(report.bytes as u64),
            grouped(facts.code_bytes as u64),
            grouped(facts.functions.into()),
            grouped(facts.data_bytes as u64),
            grouped(facts.debug_bytes as u64)
        ),
    );
    row("compiled in", format!("{:.0} ms", about.compile_ms));
    let wait_s = f64::from(manifest.cutscene_ms) / 1e3
        + f64::from(manifest.countdown_steps) * f64::from(manifest.countdown_step_ms) / 1e3;
    row(
        "game",
        format!(
            "{} to {} players, {} ticks a second, {wait_s} s before frame 0, at most {} frames",
            manifest.players_min,
            manifest.players_max,
            manifest.tick_hz,
            grouped(manifest.frames_max.into())
        ),
    );
    row(
        "inputs",
        format!(
            "at most {} bytes, {} frames are kept for each player",
            manifest.input_bytes_max, manifest.input_track_frames
        ),
    );
    let own_max =
        facts.memory_bytes_max.map_or_else(String::new, |bytes| format!(", its own limit {} KiB", kib(bytes)));
    row("memory", format!("{} KiB at the start{own_max}", kib(facts.memory_bytes)));
    row("imports", if facts.imports.is_empty() { "none".into() } else { facts.imports.join(", ") });
    row("exports", facts.exports.join(", "));
    if facts.debug_bytes == 0 {
        let what = if facts.names { "functions, no lines" } else { "neither functions nor lines" };
        row(
            "note",
            format!("backtraces of faults name {what}; with cargo: `debug = \"line-tables-only\"` in the profile"),
        );
    }
}

fn runs_table(report: &Report, about: &About, optimised: bool, text: &mut String) {
    let spread = |spread: Spread, divisor: f64, digits: usize| {
        let [p50, p99, max] = [spread.p50, spread.p99, spread.max].map(|value| value as f64 / divisor);
        format!("{p50:.digits$} / {p99:.digits$} / {max:.digits$}")
    };
    if report.runs.is_empty() {
        return;
    }
    let header = [
        "players",
        "inputs",
        "frames",
        "kfuel p50 / p99 / max",
        "us p50 / p99 / max",
        "budget",
        "memory",
        "state",
        "shown",
    ];
    let rows = report.runs.iter().map(|run| {
        let shown = run.description_bytes.map_or_else(|| "–".into(), |bytes| format!("{} B", grouped(bytes as u64)));
        [
            run.players.to_string(),
            run.inputs.as_str().into(),
            format!("{}{}", run.frames, if run.finished { " (over)" } else { "" }),
            spread(run.fuel, 1e3, 1),
            spread(run.time_ns, 1e3, 1),
            format!("{:.1} %", run.budget_percent),
            format!("{} KiB", grouped((run.memory_bytes as u64).div_ceil(1024))),
            format!("{} B", grouped(run.state_bytes as u64)),
            shown,
        ]
    });
    let rows: Vec<[String; 9]> = std::iter::once(header.map(str::to_owned)).chain(rows).collect();
    let _ = writeln!(text);
    for row in &rows {
        let _ = write!(text, " ");
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
            let _ = write!(text, " {cell:>width$}", width = width.unwrap_or_default() + usize::from(column > 0));
        }
        let _ = writeln!(text);
    }
    let _ = writeln!(
        text,
        "\n  A tick may use {} kfuel, which is {} us. State: at the last checkpoint{}.\n  Shown: the state as JSON (holeshot_describe).{}",
        grouped(about.tick_fuel / 1_000),
        grouped(about.tick_us),
        if report.problems.is_empty() { "; taken over by a fresh instance and saved again it is the same" } else { "" },
        if optimised { "" } else { " This program was built without optimisation: the times are too long." }
    );
}
