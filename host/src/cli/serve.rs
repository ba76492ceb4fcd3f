//! `holeshot serve`: a host until somebody stops it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::output::{note, say};
use crate::config::{Config, ConfigError, Settings};
use crate::limits::allocator;
use crate::server::{FLUSH_WAIT_S, Server};

/// How often a host that drains says that it still waits, in seconds, if nothing else changes.
const TELL_EVERY_S: u64 = 10;
/// How often it looks how many rooms are left.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Args)]
pub(super) struct ServeArgs {
    /// Settings file (TOML); its keys are the flags' names with `_`. Flags and environment are stronger
    #[arg(long, env = "HOLESHOT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl ServeArgs {
    /// The settings of all sources, checked.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub(super) fn config(self) -> Result<Config, ConfigError> {
        let file = self.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
        self.settings.over(file).resolve()
    }
}

pub(super) async fn serve(args: ServeArgs, json: bool) -> anyhow::Result<()> {
    let config = args.config()?;
    let drain_wait = Duration::from_secs(config.drain_wait_s.into());
    // Listened for from the start: a signal that comes while the host starts must stop it too.
    let mut signals = Signals::listen()?;
    let server = tokio::select! {
        server = Server::start(config) => server?,
        signal = signals.next() => {
            if !json {
                note(format_args!("{signal}: the host was not started"));
            }
            return Ok(());
        }
    };
    // Modules were compiled, which takes ten times what an empty host keeps.
    allocator::give_back_unused();
    announce(&server, json);
    let mut signal = signals.next().await;
    // Before a word is said: from here on nobody is to be sent to this host.
    server.drain().await;
    if let Some(sooner) = drain(&server, drain_wait, signal, &mut signals, json).await {
        signal = sooner;
    }
    if !json {
        note(format_args!(
            "{signal}: ending the rooms and recording what happened, up to {FLUSH_WAIT_S} s. Once more to stop at once."
        ));
    }
    let flush = tokio::select! {
        flush = server.stop() => flush?,
        signal = signals.next() => anyhow::bail!("{signal} came once more; events that are not recorded yet will be at the next start"),
    };
    if json {
        say(json!({ "stopped": true, "events_stored": flush.stored, "events_left": flush.left }));
    } else if flush.left > 0 {
        note(format_args!("stopped; {} events are not recorded yet and will be at the next start", flush.left));
    } else {
        note(format_args!("stopped; all {} events are recorded", flush.stored));
    }
    Ok(())
}

/// Waits until a host that drains has no room left, for `wait` at most or until a signal comes: that signal.
async fn drain(
    server: &Server,
    wait: Duration,
    signal: &'static str,
    signals: &mut Signals,
    json: bool,
) -> Option<&'static str> {
    let deadline = tokio::time::Instant::now() + wait;
    let mut drained = std::pin::pin!(server.drained());
    let mut told = None;
    loop {
        let rooms = server.rooms().open_count();
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        if left.is_zero() {
            if rooms > 0 && !wait.is_zero() && !json {
                note(format_args!("{rooms} rooms still run after {} s (drain_wait_s)", wait.as_secs()));
            }
            return None;
        }
        let seconds_left = left.as_secs_f64().ceil() as u64;
        // When it is new how many, and now and then that it still waits.
        let is_news = told.is_none_or(|(count, at_s)| count != rooms || at_s >= seconds_left + TELL_EVERY_S);
        if rooms > 0 && is_news {
            if json {
                say(json!({ "draining": true, "rooms": rooms, "seconds_left": seconds_left }));
            } else if told.is_none() {
                note(format_args!(
                    "{signal}: no new rooms; waiting for {rooms} that run, up to {seconds_left} s. Once more to end them now."
                ));
            } else {
                note(format_args!("waiting for {rooms} rooms, {seconds_left} s left"));
            }
            told = Some((rooms, seconds_left));
        }
        tokio::select! {
            () = &mut drained => return None,
            () = tokio::time::sleep(left.min(LOOK_EVERY)) => {}
            signal = signals.next() => return Some(signal),
        }
    }
}

fn announce(server: &Server, json: bool) {
    let addresses = server.addresses();
    if json {
        let (rooms_max, bound) = server.rooms_ceiling().binding();
        let limits = json!({
            "rooms_max": rooms_max,
            "rooms_bound_by": bound,
            "rooms_by": server.rooms_ceiling(),
            "websockets_max": server.websockets_max(),
        });
        say(
            json!({ "host": server.host_id(), "url": server.url(), "listen": addresses, "limits": limits, "doors": server.openness() }),
        );
        return;
    }
    say(format_args!("Holeshot {} runs as {}", env!("CARGO_PKG_VERSION"), server.host_id()));
    say(format_args!("  HTTP and WebSocket  {}  (API: {}/openapi.json)", addresses.http, server.url()));
    say(format_args!("  datagrams (UDP)     {}", addresses.udp));
    say(format_args!("  events (MQTT)       {}  (topics: holeshot/v1/#)", addresses.mqtt));
    match &addresses.records {
        Some(path) => say(format_args!("  records (SQLite)    {}", path.display())),
        None => say(format_args!("  records             kept by `holeshot manager` on the same broker")),
    };
    say(format_args!("  doors               {}", server.openness()));
    say(format_args!("  rooms               up to {}", server.rooms_ceiling()));
    say(format_args!("  WebSockets          up to {}, as open files allow", server.websockets_max()));
    say(format_args!("Two drivers for a first race: holeshot bots --url {}", server.url()));
    say(format_args!("Stop with ctrl-C."));
}

/// The signals that stop a process: ctrl-C, and SIGTERM where there is such a thing. None that comes after [`listen`](Self::listen) is missed, unless another of
/// its kind is still to be taken: the system merges those.
pub(super) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn listen() -> anyhow::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self {
                terminate: signal(SignalKind::terminate()).context("cannot listen for the signal that stops a host")?,
                interrupt: signal(SignalKind::interrupt()).context("cannot listen for ctrl-C")?,
            })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// The name of the next one.
    pub(super) async fn next(&mut self) -> &'static str {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => "ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
        }
        #[cfg(not(unix))]
        match tokio::signal::ctrl_c().await {
            Ok(()) => "ctrl-C",
            // Nobody can stop this host in order; it then runs until it is killed.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Waits for one signal that stops a process. Gives its name.
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = &'static str>> {
    let mut signals = Signals::listen()?;
    Ok(async move { signals.next().await })
}
