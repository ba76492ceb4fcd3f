//! A manager in a process of its own: the recorder at a broker elsewhere, and an HTTP door to the records.
//! Rooms, players and rules are not here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use serde::Serialize;
use tokio::sync::watch;

use super::chores::Retention;
use super::{Manager, ManagerConfig, ManagerFigures, ManagerStats};
use crate::clock::Clock;
use crate::doors::gate::{Gate, Limit, Rules};
use crate::doors::records::RecordsDoor;
use crate::doors::{listen, manager};
use crate::events::BrokerAccess;
use crate::limits::files;

/// How long a stop waits for requests that are under way, in seconds.
const DRAIN_WAIT_S: u64 = 5;

/// What [`ManagerServer::start`] needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerServerConfig {
    /// The broker; it need not be there yet.
    pub broker: BrokerAccess,
    /// Where the records are kept.
    pub data_dir: PathBuf,
    /// Address for HTTP; port 0 lets the system pick one.
    pub http_listen: SocketAddr,
    /// How long records are kept.
    pub retention: Retention,
    /// Streams of events at a time.
    pub streams_max: u32,
}

/// Where a manager listens and keeps its things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ManagerAddresses {
    /// HTTP.
    pub http: SocketAddr,
    /// The MQTT broker, host and port.
    pub mqtt: String,
    /// The database of records.
    pub records: PathBuf,
}

/// A running manager with its HTTP door.
#[derive(Debug)]
pub struct ManagerServer {
    addresses: ManagerAddresses,
    manager: Manager,
    door: Arc<RecordsDoor>,
    http: tokio::task::JoinHandle<()>,
    stop_http: watch::Sender<bool>,
}

impl ManagerServer {
    /// Opens the records, begins to connect and listens for requests.
    ///
    /// # Errors
    /// What could not be started, why, and what to do about it.
    pub async fn start(config: ManagerServerConfig) -> anyhow::Result<Self> {
        crate::tls::install_provider();
        std::fs::create_dir_all(&config.data_dir).with_context(|| {
            format!("cannot make the data folder {}; choose another with --data-dir", config.data_dir.display())
        })?;
        let listener = tokio::net::TcpListener::bind(config.http_listen).await.with_context(|| {
            format!(
                "cannot listen on {} for HTTP; choose another address with --http-listen, or port 0 for a free one",
                config.http_listen
            )
        })?;
        let mqtt = format!("{}:{}", config.broker.host, config.broker.port);
        let ManagerServerConfig { broker, data_dir, retention, streams_max, .. } = config;
        let manager = Manager::start(ManagerConfig { broker, data_dir, retention }).await?;
        let door = RecordsDoor::new(Some(manager.records()), streams_max);
        let addresses =
            ManagerAddresses { http: listener.local_addr()?, mqtt, records: manager.records().path().to_path_buf() };
        let (stop_http, stopped) = watch::channel(false);
        let gate = Gate::new(Rules::default(), Clock::start());
        let connections_max = u32::try_from(gate.limits().get(Limit::Connections)).unwrap_or(u32::MAX);
        let connections_max = files::divide(files::raise_limit(), connections_max, 0).http_max;
        let router: Router = manager::router(manager.figures(), Arc::clone(&door));
        let http = tokio::spawn(listen::serve(
            listener,
            router,
            None,
            gate,
            listen::Waits::default(),
            connections_max,
            stopped,
        ));
        tracing::info!(http = %addresses.http, mqtt = %addresses.mqtt, records = %addresses.records.display(), "manager runs");
        Ok(Self { addresses, manager, door, http, stop_http })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addresses(&self) -> &ManagerAddresses {
        &self.addresses
    }

    /// The counters.
    #[must_use]
    pub fn figures(&self) -> ManagerFigures {
        self.manager.figures()
    }

    /// Ends the requests, stores what has arrived, and disconnects. Gives the counters at the end.
    pub async fn stop(self) -> ManagerStats {
        let _http_gone = self.stop_http.send(true);
        self.door.close();
        if tokio::time::timeout(Duration::from_secs(DRAIN_WAIT_S), self.http).await.is_err() {
            tracing::warn!("connections still open after {DRAIN_WAIT_S} s are cut off");
        }
        let figures = self.manager.figures();
        self.manager.shutdown().await;
        figures.stats()
    }
}
