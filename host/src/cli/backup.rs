//! `holeshot backup` and `holeshot restore`: a data folder copied while its host runs, and put back.

use std::io::{IsTerminal, Write, stderr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::output::{grouped, note, say};
use super::serve::stop_signal;
use crate::backup::{self, Manifest, Options, Progress, Stage, Watch};

/// How often people are told how far it is: on a terminal a line that is written over, elsewhere lines of a log.
const TELL_EVERY: Duration = Duration::from_millis(500);
const TELL_LOG_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Args)]
pub(super) struct BackupArgs {
    /// The folder to make; it must not be there yet. For its owner alone: the host's keys are in it
    #[arg(value_name = "DEST")]
    dest: PathBuf,
    /// The host's data folder; the host may run
    #[arg(long, env = "HOLESHOT_DATA_DIR", value_name = "FOLDER", default_value = "holeshot-data")]
    data_dir: PathBuf,
    /// Leave the journals out: races are on record then, and cannot be replayed
    #[arg(long)]
    no_journals: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// The data folder to make. One that a host uses is refused
    #[arg(long, env = "HOLESHOT_DATA_DIR", value_name = "FOLDER")]
    data_dir: PathBuf,
    /// If it is there and not empty, move it aside to FOLDER.before-TIME
    #[arg(long)]
    replace: bool,
}

pub(super) async fn backup(args: BackupArgs, as_json: bool) -> anyhow::Result<()> {
    let BackupArgs { dest, data_dir, no_journals } = args;
    let options = Options { data_dir, dest, journals: !no_journals };
    let made = work(as_json, move |watch| backup::make(&options, watch)).await?;
    if as_json {
        say(json!({
            "backup": made.folder,
            "bytes": made.manifest.bytes(),
            "files": made.manifest.files.len(),
            "made_at": made.manifest.made_at,
            "host": made.manifest.host,
            "records": made.manifest.records,
            "outbox": made.manifest.outbox,
            "notes": made.notes,
        }));
        return Ok(());
    }
    say(format_args!("{}: {}, read back and whole", made.folder.display(), what_is_in(&made.manifest)));
    for note in &made.notes {
        say(format_args!("  {note}"));
    }
    say("The host's keys and its admin token are in it: keep it where nobody else reads.");
    say(format_args!("Restore it with: holeshot restore {} --data-dir FOLDER", made.folder.display()));
    Ok(())
}

pub(super) async fn restore(args: RestoreArgs, as_json: bool) -> anyhow::Result<()> {
    let RestoreArgs { source, data_dir, replace } = args;
    let from = source.clone();
    let restored = work(as_json, move |watch| backup::restore(&from, &data_dir, replace, watch)).await?;
    if as_json {
        say(json!({
            "restored": restored.data_dir,
            "before": restored.before,
            "made_at": restored.manifest.made_at,
            "host": restored.manifest.host,
            "records": restored.manifest.records,
            "outbox": restored.manifest.outbox,
        }));
        return Ok(());
    }
    say(format_args!(
        "{}: {}, of {}",
        restored.data_dir.display(),
        what_is_in(&restored.manifest),
        restored.manifest.made_at
    ));
    if let Some(before) = &restored.before {
        say(format_args!("What was there is at {}.", before.display()));
    }
    if restored.manifest.host.is_some() {
        say("It has the name and the keys of the host that it was made of: do not run both.");
        say(format_args!("Start it with: holeshot serve --data-dir {}", restored.data_dir.display()));
    }
    Ok(())
}

fn what_is_in(manifest: &Manifest) -> String {
    let rows = |facts: &Option<backup::Facts>, table: &str| {
        grouped(facts.as_ref().and_then(|facts| facts.rows.get(table)).copied().unwrap_or_default())
    };
    let (journals, modules) = manifest.counts();
    format!(
        "{} with {} events of {} rooms, {} events on their way, {} journals, {} modules, {}",
        manifest.host.as_deref().unwrap_or("a manager"),
        rows(&manifest.records, "events"),
        rows(&manifest.records, "rooms"),
        rows(&manifest.outbox, "outbox"),
        grouped(journals as u64),
        grouped(modules as u64),
        mib(manifest.bytes()),
    )
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Runs something that waits for the disk, tells how far it is, and lets the first signal end it in order.
async fn work<T, E>(
    as_json: bool,
    run: impl FnOnce(&mut Watch<'_>) -> Result<T, E> + Send + 'static,
) -> anyhow::Result<T>
where
    T: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let mut signal = std::pin::pin!(stop_signal()?);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let mut running = tokio::task::spawn_blocking(move || {
        // A host may run beside it, whose ticks come first.
        crate::clock::give_way();
        let mut teller = Teller::new(as_json);
        let result = run(&mut Watch::new(&mut |progress| teller.tell(progress), &stopped));
        teller.end();
        result
    });
    let result = tokio::select! {
        result = &mut running => result,
        _ = &mut signal => {
            stop.store(true, Ordering::Release);
            running.await
        }
    };
    Ok(result.context("the thread that did it panicked")??)
}

/// Tells people how far it is, if it takes long.
struct Teller {
    is_silent: bool,
    is_terminal: bool,
    told: Instant,
    has_told: bool,
}

impl Teller {
    fn new(is_silent: bool) -> Self {
        Self { is_silent, is_terminal: stderr().is_terminal(), told: Instant::now(), has_told: false }
    }

    fn tell(&mut self, progress: Progress) {
        let every = if self.is_terminal { TELL_EVERY } else { TELL_LOG_EVERY };
        if self.is_silent || self.told.elapsed() < every {
            return;
        }
        self.told = Instant::now();
        self.has_told = true;
        if self.is_terminal {
            let _nobody_reads = write!(stderr(), "\r{}   ", words(progress));
        } else {
            note(words(progress));
        }
    }

    fn end(&self) {
        if self.has_told && self.is_terminal {
            note("");
        }
    }
}

fn words(progress: Progress) -> String {
    let done = match progress.stage {
        Stage::Copying => "copied",
        Stage::Verifying => "read back",
    };
    format!("{done} {} of {}", mib(progress.done_bytes), mib(progress.total_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_words() {
        let progress = Progress { stage: Stage::Copying, done_bytes: 3 << 19, total_bytes: 5 << 20 };
        assert_eq!(words(progress), "copied 1.5 MiB of 5.0 MiB");
        assert_eq!(words(Progress { stage: Stage::Verifying, ..progress }), "read back 1.5 MiB of 5.0 MiB");
    }
}
