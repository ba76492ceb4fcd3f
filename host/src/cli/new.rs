//! `holeshot new`: a crate of rules to begin with.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::output::say;
use crate::modder::kit;

#[derive(Debug, Clone, Args)]
pub(super) struct NewArgs {
    /// Its name: a-z, 0-9 and dashes, 20 characters at most
    #[arg(value_name = "NAME")]
    name: String,
    /// The folder to make [default: ./NAME]
    #[arg(long, value_name = "PATH")]
    dir: Option<PathBuf>,
}

pub(super) fn new(args: &NewArgs, as_json: bool) -> anyhow::Result<()> {
    let folder = args.dir.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let made = kit::write(&args.name, &folder)?;
    if as_json {
        say(json!({ "name": args.name, "folder": made.folder, "files": made.files, "module": made.module }));
        return Ok(());
    }
    let (folder, module) = (made.folder.display(), &made.module);
    say(format_args!(
        "{folder}: {} files. The rules are in src/lib.rs; README.md says what is where.

  cd {folder}
  cargo test                                # the rules, tick by tick
  cargo wasm                                # the module: {module}
  holeshot check {module}
  holeshot test {module} scenarios
  holeshot serve --watch {module}

The target for WebAssembly comes with rustup; where it is missing: rustup target add wasm32-unknown-unknown",
        made.files
    ));
    Ok(())
}
