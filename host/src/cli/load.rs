//! `holeshot load`: rooms full of players on a host, over a network as bad as asked for, what they saw of it, and whether the host lost any input: the exit code says so.

use std::io::{IsTerminal, Write as _, stderr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::dyno::check_place;
use super::host::HostArgs;
use super::output::{note, say};
use super::serve::stop_signal;
use super::{Failed, Undecided};
use crate::child;
use crate::files::{Readers, write_whole};
use crate::load::impairment::Impairment;
use crate::load::recording::Recording;
use crate::load::report::Outcome;
use crate::load::run::{self, Options};
use crate::load::{self, PLAYERS_MAX, PLAYERS_PER_SOCKET, page};

/// Rooms that the host of this command has beyond those that are played: games that end are opened anew before the old room is gone.
const ROOMS_BESIDE: usize = 64;
/// Characters of a date in RFC 3339.
const DAY_CHARS: usize = 10;
/// Width of a line of progress: what was there before is written over.
const PROGRESS_CHARS: usize = 72;

#[derive(Debug, Clone, Args)]
pub(super) struct LoadArgs {
    /// The host to play on, `http://…` or `https://…` [default: one that this command starts in a process of its own]
    #[arg(long, visible_alias = "host", env = "HOLESHOT_URL", value_name = "URL")]
    url: Option<String>,
    /// Whom to trust for https://: certificates (PEM) of authorities, or the host's own if it signed itself [default: whom this machine trusts]
    #[arg(long, env = "HOLESHOT_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The data folder of that host, where its admin token is read
    #[arg(long, env = "HOLESHOT_DATA_DIR", value_name = "FOLDER", default_value = "holeshot-data")]
    data_dir: PathBuf,
    /// The admin token itself, of a host on another machine
    #[arg(long, env = "HOLESHOT_TOKEN", hide_env_values = true, allow_hyphen_values = true)]
    token: Option<String>,
    /// Rooms at a time
    #[arg(long, value_name = "N", default_value_t = 100)]
    rooms: usize,
    /// Players in each [default: 2, or those of the journal]
    #[arg(long, value_name = "N")]
    players: Option<usize>,
    /// For how many seconds, from the moment at which all rooms are open and all games have begun. Games that end are opened anew
    #[arg(long, visible_alias = "duration", value_name = "SECONDS", default_value_t = 30)]
    seconds: u64,
    /// Rooms opened in a second
    #[arg(long, value_name = "ROOMS", default_value_t = 50)]
    ramp: u32,
    /// Threads for the players' datagrams
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Players who share a UDP socket. The host tells sessions apart by their number and not by their address; with 1 each has an address of its own, and this program looks
    /// at as many sockets in every millisecond (0.3 us each)
    #[arg(long, value_name = "N", default_value_t = PLAYERS_PER_SOCKET)]
    players_per_socket: usize,
    /// The game to play: the name of a rules module [default: the host's default]
    #[arg(long, value_name = "NAME")]
    game: Option<String>,
    /// A rules module to load besides those that ship, by the host that this command starts; `--game` names it
    #[arg(long = "module", value_name = "FILE", requires = "game", conflicts_with = "url")]
    modules: Vec<PathBuf>,
    /// Threads that step rooms in the host that this command starts [default: as `serve`]
    #[arg(long, value_name = "N", conflicts_with = "url")]
    shards: Option<usize>,
    /// Send the inputs of this journal (a file, as `GET /api/rooms/{room}/journal` gives it) instead of letting programs play
    #[arg(long, value_name = "JOURNAL")]
    inputs: Option<PathBuf>,
    /// Datagrams that are lost, each way, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = parse_percent, allow_negative_numbers = true)]
    loss: f64,
    /// How long each takes, each way, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay_ms: u32,
    /// How much less or more than that it may be, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    jitter_ms: u32,
    /// Datagrams that come twice, each way, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = parse_percent, allow_negative_numbers = true)]
    duplicate: f64,
    /// Datagrams that are overtaken by later ones, each way, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = parse_percent, allow_negative_numbers = true)]
    reorder: f64,
    /// Decides what players do and what the network does [default: random, printed]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write the report as one HTML file, too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("a percentage from 0 to 100 is wanted".into()),
    }
}

impl LoadArgs {
    fn impairment(&self) -> Impairment {
        // A percent is ten thousand of a million.
        let ppm = |percent: f64| (percent * 10_000.0).round() as u32;
        Impairment {
            loss_ppm: ppm(self.loss),
            delay_ms: self.delay_ms,
            jitter_ms: self.jitter_ms,
            duplicate_ppm: ppm(self.duplicate),
            reorder_ppm: ppm(self.reorder),
        }
    }
}

pub(super) async fn load(args: LoadArgs, as_json: bool) -> anyhow::Result<()> {
    if let Some(path) = &args.html {
        // Told now and not after the run.
        check_place("--html", path)?;
    }
    let recording = match args.inputs.clone() {
        Some(path) => Some(Arc::new(tokio::task::spawn_blocking(move || Recording::read(&path)).await??)),
        None => None,
    };
    let seed = match args.seed {
        Some(seed) => seed,
        None => u64::from(u32::from_le_bytes(crate::identity::random()?)),
    };
    let players = args.players.or(recording.as_ref().map(|recording| recording.players())).unwrap_or(2);
    let options = load::Options {
        module: args.game.clone(),
        rooms: args.rooms,
        players,
        threads: args.threads,
        players_per_socket: args.players_per_socket,
        seed,
        ramp_rooms_per_s: Some(args.ramp),
        impairment: args.impairment(),
        recording,
        open_anew: true,
        compare: true,
    };
    // Before a host is started for it.
    options.check()?;
    if args.seconds == 0 || args.seconds > run::SECONDS_MAX {
        bail!("--seconds is {}; accepted: 1 to {}", args.seconds, run::SECONDS_MAX);
    }
    let stop = stop_signal()?;
    let (api, own, host) = match &args.url {
        Some(url) => {
            let host = HostArgs::of(url.clone(), args.ca.clone(), args.data_dir.clone(), args.token.clone());
            (host.api()?, None, url.clone())
        }
        None => {
            progress("starting a host in a process of its own");
            let rooms_max = u32::try_from(args.rooms.min(PLAYERS_MAX) + ROOMS_BESIDE)?;
            let options = child::Options {
                shards: args.shards,
                rooms_max: Some(rooms_max),
                modules: args.modules.clone(),
                ..child::Options::default()
            };
            let own = child::Host::start(&options).await?;
            (own.api.clone(), Some(own), "a host in a process of its own".to_owned())
        }
    };
    let options = Options { load: options, seconds: args.seconds, host };
    let stop = async {
        let signal = stop.await;
        note(format_args!("{signal}: letting everybody leave"));
    };
    let report = run::run(&api, &options, stop, progress).await;
    clear_progress();
    let report = report?;
    drop(own);
    if as_json {
        let verdict = json!({
            "outcome": report.outcome(),
            "doubts": report.doubts(),
            "faults": report.faults(),
            "agrees": report.inputs.agrees(),
        });
        say(json!({ "report": report, "verdict": verdict }));
    } else {
        say(report.text().trim_end());
    }
    if let Some(path) = &args.html {
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let html = page::html(&report, now.get(..DAY_CHARS).unwrap_or_default())?;
        write_whole(path, html.as_bytes(), Readers::Usual).with_context(|| format!("the report {}", path.display()))?;
        note(format_args!("the report is in {}", path.display()));
    }
    match report.outcome() {
        Outcome::Held => Ok(()),
        Outcome::NotShown => Err(Undecided.into()),
        Outcome::NotHeld => Err(Failed.into()),
    }
}

/// Says what is being done, to a person who waits.
fn progress(what: &str) {
    if stderr().is_terminal() {
        let _nobody_reads = write!(stderr().lock(), "\r{what:<PROGRESS_CHARS$}");
    }
}

fn clear_progress() {
    if stderr().is_terminal() {
        let _nobody_reads = write!(stderr().lock(), "\r{:<PROGRESS_CHARS$}\r", "");
    }
}
