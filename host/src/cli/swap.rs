//! `holeshot swap`: new rules for the rooms of a running host.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use super::host::HostArgs;
use super::output::{note, say};
use crate::api::SwapAnswer;
use crate::modules::read_module_file;
use crate::rules::{Engine, EngineSettings, ModuleStore};

#[derive(Debug, Clone, Args)]
pub(super) struct SwapArgs {
    /// The rules module (wasm)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Which rooms: `all` (every open room of that name, and new ones), `new` (new ones alone, without a trial), or the id of one
    #[arg(long, value_name = "all|new|ID", default_value = "all")]
    rooms: String,
    /// The name that the module must have [default: the one in its manifest]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    host: HostArgs,
}

pub(super) async fn swap(args: SwapArgs, as_json: bool) -> anyhow::Result<()> {
    let SwapArgs { file, rooms, name, host } = args;
    let (token, api) = (host.token()?, host.api()?);
    let wasm = read_module_file(&file)?;
    let name = match name {
        Some(name) => name,
        None => {
            let wasm = wasm.clone();
            tokio::task::spawn_blocking(move || name_of(&wasm)).await?.with_context(|| {
                format!("{} cannot be used; nothing was sent, and every room keeps its rules", file.display())
            })?
        }
    };
    if !as_json {
        note(format_args!("sending {} ({} bytes, {name}) to {}", file.display(), wasm.len(), host.url));
    }
    let SwapAnswer { report, refusal } = api.swap(&name, &rooms, &token, wasm).await?;
    if as_json {
        say(&report);
    } else {
        tell(&report);
    }
    if let Some(refusal) = refusal {
        // The backtrace is in the report, which is printed already.
        bail!("{}", refusal.lines().next().unwrap_or_default());
    }
    let count = |field: &str| report.get(field).and_then(Value::as_u64).unwrap_or(0);
    match (count("refused"), report.get("rooms").and_then(Value::as_array).map_or(0, Vec::len)) {
        (0, _) => Ok(()),
        (refused, asked) => bail!("{refused} of {asked} rooms refused the new rules and keep those they have"),
    }
}

/// The name in the manifest, which the module itself has to be asked for.
fn name_of(wasm: &[u8]) -> anyhow::Result<String> {
    let engine = Engine::new(EngineSettings { instances_max: 1, ..EngineSettings::default() })?;
    let module = ModuleStore::new(engine, None)?.load(wasm)?;
    Ok(module.manifest().name.clone())
}

fn tell(report: &Value) {
    let text = |at: &str| report.pointer(at).and_then(Value::as_str).unwrap_or("?");
    let ms = report.get("compile_ms").and_then(Value::as_f64).unwrap_or_default();
    let (name, version) = (text("/module/name"), text("/module/version"));
    say(format_args!("{name} {version}, hash {}: compiled in {ms:.0} ms", text("/module/hash")));
    for room in report.get("rooms").and_then(Value::as_array).into_iter().flatten() {
        say(verdict(room));
    }
    say(match text("/new_rooms") {
        "set" => "new rooms: have it from now on",
        "kept_back" => "new rooms: keep what they had, because the rules failed in the trial of an open room",
        _ => "new rooms: not asked",
    });
}

/// What became of a room, in a line; and the backtrace below it, if the rules failed.
fn verdict(room: &Value) -> String {
    let text = |field: &str| room.get(field).and_then(Value::as_str).unwrap_or_default();
    let ms = |field: &str| room.get(field).and_then(Value::as_f64).unwrap_or_default() / 1_000.0;
    let frame = room.get("frame").and_then(Value::as_u64);
    let in_frame = frame.map(|frame| format!(" in frame {frame}")).unwrap_or_default();
    let id = text("room");
    match text("verdict") {
        "swapped" => format!(
            "room {id}: has the new rules from frame {} on (trial {:.1} ms, pause {:.2} ms)",
            frame.unwrap_or_default(),
            ms("trial_us"),
            ms("pause_us")
        ),
        "refused" => {
            let backtrace: String = text("backtrace").lines().map(|line| format!("\n    {line}")).collect();
            format!("room {id}: REFUSED, keeps its rules: {}{in_frame}: {}{backtrace}", text("kind"), text("message"))
        }
        "skipped" => format!(
            "room {id}: skipped, because this module failed there before: {}{in_frame}. To try again: --rooms {id}",
            text("kind")
        ),
        "unchanged" => format!("room {id}: has these rules already"),
        "ended" => format!("room {id}: was over before it was its turn"),
        other => format!("room {id}: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_verdict_is_a_line_and_a_refusal_has_its_backtrace() {
        let swapped = json!({ "room": "r1", "verdict": "swapped", "frame": 812, "trial_us": 1_234, "pause_us": 210 });
        assert_eq!(verdict(&swapped), "room r1: has the new rules from frame 812 on (trial 1.2 ms, pause 0.21 ms)");
        let refused = json!({
            "room": "r1", "verdict": "refused", "kind": "trap", "frame": 7, "message": "tick: unreachable",
            "backtrace": "boom (0x12)\ntick (0x34)", "trial_us": 9, "rules_failed": true,
        });
        assert_eq!(
            verdict(&refused),
            "room r1: REFUSED, keeps its rules: trap in frame 7: tick: unreachable\n    boom (0x12)\n    tick (0x34)"
        );
        assert!(
            verdict(&json!({ "room": "r1", "verdict": "skipped", "kind": "trap", "frame": 7 })).contains("--rooms r1")
        );
        assert_eq!(verdict(&json!({ "room": "r1", "verdict": "ended" })), "room r1: was over before it was its turn");
    }
}
