//! `holeshot serve`: a host until somebody stops it.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::output::{note, say};
use crate::config::{Config, ConfigError, Settings};
use crate::server::{FLUSH_WAIT_S, Server};

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
    // Listened for from the start: a signal that comes while the host starts must stop it too.
    let mut stop = std::pin::pin!(stop_signal()?);
    let server = tokio::select! {
        server = Server::start(config) => server?,
        signal = &mut stop => {
            if !json {
                note(format_args!("{signal}: the host was not started"));
            }
            return Ok(());
        }
    };
    announce(&server, json);
    let signal = stop.await;
    if !json {
        note(format_args!(
            "{signal}: ending the rooms and recording what happened, up to {FLUSH_WAIT_S} s. Once more to stop at once."
        ));
    }
    let again = stop_signal()?;
    let flush = tokio::select! {
        flush = server.stop() => flush?,
        signal = again => anyhow::bail!("{signal} came a second time; events that are not recorded yet will be at the next start"),
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

/// Waits for the signal that stops a process: ctrl-C, or SIGTERM where there is such a thing. Gives its name.
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = &'static str>> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .context("cannot listen for the signal that stops a host")?;
    #[cfg(unix)]
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
        .context("cannot listen for ctrl-C")?;
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = interrupt.recv() => "ctrl-C",
            _ = terminate.recv() => "SIGTERM",
        }
        #[cfg(not(unix))]
        match tokio::signal::ctrl_c().await {
            Ok(()) => "ctrl-C",
            // Nobody can stop this host in order; it then runs until it is killed.
            Err(_) => std::future::pending().await,
        }
    })
}
