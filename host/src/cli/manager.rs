//! `holeshot manager`: the records of every host on a broker, in a process of its own, until somebody stops it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::output::{note, say};
use super::serve::stop_signal;
use crate::config::{ConfigError, MANAGER_PORT, check_records};
use crate::doors::records::STREAMS_MAX_DEFAULT;
use crate::events::access::{AccessError, BrokerSettings};
use crate::manager::alone::{ManagerServer, ManagerServerConfig};
use crate::manager::chores::Retention;

#[derive(Debug, Clone, Args)]
pub(super) struct ManagerArgs {
    #[command(flatten)]
    broker: BrokerSettings,
    /// Folder for the records
    #[arg(long, env = "HOLESHOT_DATA_DIR", value_name = "FOLDER", default_value = "holeshot-data")]
    data_dir: PathBuf,
    /// Address for HTTP [default: 127.0.0.1:7701]; port 0 lets the system pick one
    #[arg(long, env = "HOLESHOT_HTTP_LISTEN", value_name = "ADDRESS")]
    http_listen: Option<SocketAddr>,
    /// How long events are kept, in days; 0 for ever
    #[arg(long, env = "HOLESHOT_EVENTS_DAYS", value_name = "DAYS", default_value_t = Retention::EVENTS_DAYS)]
    events_days: u32,
    /// How long rooms and their results are kept, in days; 0 for ever
    #[arg(long, env = "HOLESHOT_RECORDS_DAYS", value_name = "DAYS", default_value_t = Retention::RECORDS_DAYS)]
    records_days: u32,
    /// Streams of recorded events at a time (`/api/events/stream`), 0 to 1000
    #[arg(long, env = "HOLESHOT_STREAMS_MAX", value_name = "N", default_value_t = STREAMS_MAX_DEFAULT)]
    streams_max: u32,
}

pub(super) async fn manager(args: ManagerArgs, json: bool) -> anyhow::Result<()> {
    let Some(broker) = args.broker.resolve().map_err(ConfigError::Broker)? else {
        return Err(ConfigError::Broker(AccessError::Missing).into());
    };
    let retention = Retention { events_days: args.events_days, records_days: args.records_days };
    check_records(retention, args.streams_max)?;
    let config = ManagerServerConfig {
        broker,
        data_dir: args.data_dir,
        http_listen: args.http_listen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, MANAGER_PORT))),
        retention,
        streams_max: args.streams_max,
    };
    // Listened for from the start: a signal that comes while the manager starts must stop it too.
    let mut stop = std::pin::pin!(stop_signal()?);
    let server = tokio::select! {
        server = ManagerServer::start(config) => server?,
        signal = &mut stop => {
            if !json {
                note(format_args!("{signal}: the manager was not started"));
            }
            return Ok(());
        }
    };
    announce(&server, json);
    let signal = stop.await;
    if !json {
        note(format_args!("{signal}: storing what has arrived. Once more to stop at once."));
    }
    let again = stop_signal()?;
    let stats = tokio::select! {
        stats = server.stop() => stats,
        signal = again => anyhow::bail!("{signal} came a second time; what was not stored yet comes again from its host"),
    };
    if json {
        say(json!({ "stopped": true, "events_stored": stats.stored, "events_known": stats.duplicates }));
    } else {
        note(format_args!("stopped; {} events were stored since the start", stats.stored));
    }
    Ok(())
}

fn announce(server: &ManagerServer, json: bool) {
    let addresses = server.addresses();
    if json {
        let ready = server.figures().stats().subscribed;
        say(json!({ "url": format!("http://{}", addresses.http), "listen": addresses, "ready": ready }));
        return;
    }
    say(format_args!("Holeshot {} keeps records", env!("CARGO_PKG_VERSION")));
    say(format_args!("  HTTP                {}", addresses.http));
    say(format_args!("  events (MQTT)       {}", addresses.mqtt));
    say(format_args!("  records (SQLite)    {}", addresses.records.display()));
    say(format_args!("Ready when http://{}/readyz says so. Stop with ctrl-C.", addresses.http));
}
