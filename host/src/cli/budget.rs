//! `holeshot budget`: what the operations of a server's frame cost together.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{ArgGroup, Args};

use super::output::{note, say};
use crate::budget::{example, file, report::Report, spread};

#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["model", "example"]))]
pub(super) struct BudgetArgs {
    /// A model file: operations with N, T, P and how they grow. `--example --write FILE` writes one that explains itself
    #[arg(value_name = "MODEL.toml")]
    model: Option<PathBuf>,
    /// The shooter with 64 players from which the model comes
    #[arg(long)]
    example: bool,
    /// Write the model to this file, which must not be there yet
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    write: Option<PathBuf>,
    /// What the draws from ranges begin with
    #[arg(long, value_name = "N", default_value_t = spread::SEED)]
    seed: u64,
}

pub(super) fn budget(args: &BudgetArgs, as_json: bool) -> anyhow::Result<()> {
    let model = match &args.model {
        Some(path) => file::read(path)?,
        None => {
            if let Some(path) = &args.write {
                write_new(path, example::SHOOTER_TOML)?;
            }
            example::shooter()?
        }
    };
    let report = Report::of(&model, args.seed);
    if as_json {
        say(serde_json::to_string(&report)?);
    } else {
        say(report.table().trim_end());
    }
    Ok(())
}

/// Writes a file that is not there yet: nothing that somebody wrote is lost.
fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let file = std::fs::File::options().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("{} cannot be written; name a file that is not there yet", path.display()))?;
    note(format_args!("{} is written; `holeshot budget {}` reads it", path.display(), path.display()));
    Ok(())
}
