//! A whole host: starts every part in the order of their needs, and stops them in the reverse one.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use holeshot_room::{INSTANCES_PER_CANDIDATE_MAX, Limits, Supervision};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

use crate::admin::AdminToken;
use crate::clock::{Clock, unix_ms};
use crate::config::Config;
use crate::doors::gate::{Gate, Limit};
use crate::doors::http::{Doors, router};
use crate::doors::listen;
use crate::doors::records::RecordsDoor;
use crate::doors::roles::Openness;
use crate::doors::tickets::keys::{self, KeySet};
use crate::doors::tickets::{Bounds, Tickets};
use crate::doors::websocket::SocketCount;
use crate::events::{BrokerConfig, EventSink, Events, EventsConfig, EventsError, Flush, InternalEvent};
use crate::files::{self, LockError};
use crate::identity::Identity;
use crate::journal::{JournalThreads, Journals, Retention};
use crate::limits::mappings::Mappings;
use crate::limits::memory::MemoryGate;
use crate::limits::receive_buffer::{self, RECEIVE_BUFFER_BYTES};
use crate::limits::{self, RoomsCeiling};
use crate::manager::{Manager, ManagerConfig, Records};
use crate::metrics::gather::Metrics;
use crate::modules::{MODULES_FOLDER, Modules};
use crate::rooms::{Rooms, SETUPS_AT_ONCE_MAX};
use crate::rules::{Engine, EngineSettings, MODULES_LOADING_MAX, ModuleHash, ModuleStore};
use crate::shard::{Command, SessionLimits, ShardHandle, ShardLayout, Sockets};
use crate::swap::{ROOMS_AT_ONCE_MAX, Swaps, Watched};
use crate::tls::InForce;

/// Name of the file in the data folder that a running host holds.
pub(crate) const LOCK_FILE: &str = "holeshot.lock";
/// The files in a data folder that are held by whoever uses it.
pub(crate) const LOCK_FILES: [&str; 3] = [LOCK_FILE, crate::events::outbox::LOCK_FILE, crate::manager::LOCK_FILE];
/// Instances beyond one for each room: for the module that is asked for its manifest, and for each room between its trial and its swap. Nothing
/// else has one, so no trial can take the place of a room that opens, or is put back after its rules failed.
/// Likewise for rooms that are set up anew: two for each that is begun at a time, since the one before it may still wait for its shard.
pub(crate) const INSTANCES_SPARE: u32 =
    MODULES_LOADING_MAX + ROOMS_AT_ONCE_MAX as u32 * INSTANCES_PER_CANDIDATE_MAX + 2 * SETUPS_AT_ONCE_MAX;
/// How long a stop waits for events to be recorded, in seconds. What is left is sent at the next start.
pub const FLUSH_WAIT_S: u64 = 10;
/// How long a stop waits for requests and WebSockets that are under way, in seconds.
const CONNECTIONS_WAIT_S: u64 = 5;
/// How often a drain looks whether rooms are left, in milliseconds: nothing else waits for it.
const DRAIN_LOOK_MS: u64 = 50;

/// Where a host listens and keeps its things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// HTTP and WebSocket.
    pub http: SocketAddr,
    /// Datagrams.
    pub udp: SocketAddr,
    /// The MQTT broker, host and port.
    pub mqtt: String,
    /// The database of records, if this process keeps them.
    pub records: Option<PathBuf>,
}

/// A running host.
#[derive(Debug)]
pub struct Server {
    addresses: Addresses,
    host_id: String,
    doors: Arc<Doors>,
    rooms: Arc<Rooms>,
    shards: Vec<ShardHandle>,
    threads: Vec<JoinHandle<()>>,
    ceiling: RoomsCeiling,
    events: Arc<Events>,
    manager: Option<Manager>,
    journals: JournalThreads,
    http: tokio::task::JoinHandle<()>,
    watching: Vec<tokio::task::JoinHandle<()>>,
    stop_http: watch::Sender<bool>,
    is_tls: bool,
    // Held as long as the host runs.
    _lock: File,
}

impl Server {
    /// Starts a host and returns once it takes players.
    ///
    /// # Errors
    /// What could not be started, why, and what to do about it.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        crate::tls::install_provider();
        holeshot_seal::self_test().context("this host cannot seal datagrams")?;
        // Before anything that takes long or that others see.
        let tls = match config.tls.clone() {
            Some(pair) => {
                let certificate = pair.load(unix_ms() / 1_000).context("the host cannot speak TLS")?;
                Some((pair, certificate))
            }
            None => None,
        };
        let data_dir = config.data_dir.clone();
        std::fs::create_dir_all(&data_dir).with_context(|| {
            format!("cannot make the data folder {}; choose another with --data-dir", data_dir.display())
        })?;
        let lock = lock(&data_dir)?;
        let identity = Identity::load_or_create(&data_dir)?;
        let admin = AdminToken::load_or_create(&data_dir)?;
        let bounds = Bounds { lifetime_max_s: config.ticket_lifetime_max_s, leeway_s: config.ticket_leeway_s };
        let tickets =
            Arc::new(Tickets::new(&identity.host_id, &identity.ticket_key, KeySet::read(&config.ticket_keys)?, bounds));
        let clock = Clock::start();
        let files_max = limits::files::raise_limit();
        let most = |limit| u32::try_from(config.gate.limits.get(limit)).unwrap_or(u32::MAX);
        let files = limits::files::divide(files_max, most(Limit::Connections), most(Limit::Websockets));

        let modules = {
            let config = config.clone();
            Arc::new(tokio::task::spawn_blocking(move || load_modules(&config)).await??)
        };

        let http_listener = tokio::net::TcpListener::bind(config.http_listen)
            .await
            .with_context(|| in_use("HTTP", config.http_listen, "--http-listen"))?;
        let sockets = bind_udp(&config).with_context(|| in_use("datagrams", config.udp_listen, "--udp-listen"))?;
        let events = Events::start(EventsConfig {
            host_id: identity.host_id.clone(),
            data_dir: data_dir.clone(),
            broker: match config.broker.clone() {
                Some(access) => BrokerConfig::External(access),
                None => BrokerConfig::Embedded { listen: config.mqtt_listen },
            },
            outbox: config.outbox,
        })
        .await
        .map_err(|error| match error {
            // Only this is cured by another address; an outbox that cannot be used says itself what to do.
            EventsError::Broker(error) => {
                anyhow::Error::new(error).context(in_use("the MQTT broker", config.mqtt_listen, "--mqtt-listen"))
            }
            error => anyhow::Error::new(error).context("cannot start the events"),
        })?;
        let events = Arc::new(events);
        let sink = events.sink();
        let manager = if config.manager {
            let config = ManagerConfig {
                broker: events.broker_access().clone(),
                data_dir: data_dir.clone(),
                retention: config.retention,
            };
            Some(Manager::start(config).await.context("cannot start the manager, which keeps the records")?)
        } else {
            None
        };
        let addresses = Addresses {
            http: http_listener.local_addr()?,
            udp: sockets.address(),
            mqtt: events.broker_address().to_string(),
            records: manager.as_ref().map(|manager| manager.records().path().to_path_buf()),
        };

        emit(&sink, "host.started", None, json!({ "version": env!("CARGO_PKG_VERSION"), "listen": addresses }));
        for module in modules.all() {
            crate::swap::tell_loaded(&sink, &module);
        }

        let (journals, journal_threads) = {
            let retention = Retention { days: config.journal_days, bytes_max: config.journal_bytes_max };
            let (data_dir, sink, modules) = (data_dir.clone(), sink.clone(), Arc::clone(&modules));
            let in_use = Box::new(move |hash: &ModuleHash| modules.is_in_use(hash));
            tokio::task::spawn_blocking(move || Journals::start(&data_dir, retention, in_use, sink)).await??
        };

        let layout = ShardLayout::new(config.shards);
        let shards = layout.handles.clone();
        let engine = modules.store().engine().clone();
        let memory = MemoryGate::new(config.memory_reserve_mib, clock);
        let ceiling = RoomsCeiling {
            setting: config.rooms_max.into(),
            // The engine has taken the setting; what was mapped since then comes out of the reserve.
            mappings: Mappings::of_this_process().map(|mappings| {
                mappings.instances_possible().saturating_sub(INSTANCES_SPARE.into()).max(config.rooms_max.into())
            }),
            memory: memory.rooms_possible().map(|(rooms, _)| rooms),
        };
        let rooms = Rooms::new(
            Arc::clone(&modules),
            shards.clone(),
            limits(&config),
            supervision(&config),
            config.rooms_max,
            memory,
            clock,
        );
        let rooms = Arc::new(rooms.with_journals(journals.clone()));
        let udp_inodes = sockets.inodes();
        let threads =
            layout.start(sockets, clock, &rooms, &sink).context("cannot start the threads that step rooms")?;

        let swaps = Arc::new(Swaps::new(Arc::clone(&rooms), sink.clone()));
        let mut watching = Vec::new();
        for path in config.watch.clone() {
            watching.extend(Watched::new(path).start(Arc::clone(&swaps)).await);
        }
        watching.extend(keys::watch(config.ticket_keys.clone(), Arc::clone(&tickets)));
        let tls = tls.map(|(pair, certificate)| {
            let in_force = Arc::new(InForce::new(certificate));
            watching.push(Arc::clone(&in_force).follow(pair));
            in_force
        });
        let is_tls = tls.is_some();
        let gate = Gate::new(config.gate.clone(), clock);
        let doors = Arc::new(Doors {
            metrics: Metrics::new(
                Arc::clone(&rooms),
                engine,
                Arc::downgrade(&events),
                manager.as_ref().map(Manager::figures),
                udp_inodes,
                clock,
            ),
            rooms: Arc::clone(&rooms),
            swaps: Arc::clone(&swaps),
            admin,
            records: RecordsDoor::new(manager.as_ref().map(Manager::records), config.streams_max),
            journals,
            tickets: Arc::clone(&tickets),
            openness: Openness::of(config.open_doors, addresses.http, !config.gate.trusted.is_empty()),
            ticket_lifetime_s: config.ticket_lifetime_s,
            host_key: identity.keypair.public(),
            keypair: identity.keypair,
            udp_address: addresses.udp,
            ready: AtomicBool::new(true),
            sockets: SocketCount::new(files.websockets_max),
            gate: Arc::clone(&gate),
            tls: tls.clone(),
            session_limits: SessionLimits::new(gate.limits(), Arc::clone(gate.refused())),
        });
        let (stop_http, stopped) = watch::channel(false);
        let http = tokio::spawn(listen::serve(
            http_listener,
            router(Arc::clone(&doors)),
            tls,
            gate,
            listen::Waits::default(),
            files.http_max,
            stopped,
        ));
        tracing::info!(host = identity.host_id, http = %addresses.http, udp = %addresses.udp, mqtt = %addresses.mqtt, "host runs");
        Ok(Self {
            addresses,
            host_id: identity.host_id,
            doors,
            rooms,
            shards,
            threads,
            ceiling,
            events,
            manager,
            journals: journal_threads,
            http,
            watching,
            stop_http,
            is_tls,
            _lock: lock,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// How many rooms it can have, and why not more.
    #[must_use]
    pub const fn rooms_ceiling(&self) -> &RoomsCeiling {
        &self.ceiling
    }

    /// How many players' WebSockets it takes at a time: as many as open files allow.
    #[must_use]
    pub fn websockets_max(&self) -> u32 {
        self.doors.sockets.max()
    }

    /// Whether anybody may open rooms and get tickets.
    #[must_use]
    pub fn openness(&self) -> Openness {
        self.doors.openness
    }

    /// The token of its admin.
    #[must_use]
    pub fn admin(&self) -> &AdminToken {
        &self.doors.admin
    }

    /// How often a limit of the doors has held.
    #[must_use]
    pub fn refused(&self, limit: Limit) -> u64 {
        self.doors.gate.refused().get(limit)
    }

    /// Its id in topics and records.
    #[must_use]
    pub fn host_id(&self) -> &str {
        &self.host_id
    }

    /// The address for requests, `http://…`, or `https://…` if the host has a certificate. A host that listens on every address is reached on this machine's own.
    #[must_use]
    pub fn url(&self) -> String {
        let mut address = self.addresses.http;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                std::net::Ipv4Addr::LOCALHOST.into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            });
        }
        format!("{}://{address}", if self.is_tls { "https" } else { "http" })
    }

    /// The records, if this process keeps them.
    #[must_use]
    pub fn records(&self) -> Option<Records> {
        self.manager.as_ref().map(Manager::records)
    }

    /// The rooms.
    #[must_use]
    pub const fn rooms(&self) -> &Arc<Rooms> {
        &self.rooms
    }

    /// What changes rules.
    #[must_use]
    pub fn swaps(&self) -> &Arc<Swaps> {
        &self.doors.swaps
    }

    /// The ways to the shards.
    #[must_use]
    pub fn shards(&self) -> &[ShardHandle] {
        &self.shards
    }

    /// The events.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Begins to drain: the host says so (`/readyz`), opens no more rooms and changes no rules any more; rooms whose game has not begun end, games that
    /// run go on. Players of these keep their sessions, and may come back when they lose one. To be followed by [`stop`](Self::stop), at the latest
    /// when [`drained`](Self::drained) returns.
    pub async fn drain(&self) {
        // First, and for whoever asks at the same moment: nobody is sent here any more.
        self.doors.ready.store(false, Ordering::Release);
        self.rooms.stop_opening();
        for shard in &self.shards {
            shard.send(Command::Drain).await;
        }
    }

    /// Returns when no room is open. For a host that drains: of another one, rooms may open again.
    pub async fn drained(&self) {
        while self.rooms.open_count() > 0 {
            tokio::time::sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
        }
    }

    /// Ends every room, lets its players know, waits until every event is recorded, then stops every part.
    ///
    /// # Errors
    /// Only if a thread of the host had panicked before. Events that could not be recorded in time are in the result, not an error:
    /// they are sent at the next start.
    pub async fn stop(self) -> anyhow::Result<Flush> {
        self.doors.ready.store(false, Ordering::Release);
        for watched in self.watching {
            watched.abort();
        }
        self.rooms.stop_opening();
        for shard in &self.shards {
            shard.send(Command::Stop).await;
        }
        let threads = self.threads;
        let panicked = tokio::task::spawn_blocking(move || {
            threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count()
        })
        .await?;
        // The rooms are gone; what becomes of their journals is told before the events end.
        let journals = self.journals;
        tokio::task::spawn_blocking(move || journals.stop()).await?;
        let _http_gone = self.stop_http.send(true);
        self.doors.records.close();
        let drained = async {
            self.doors.sockets.none_left().await;
            self.http.await
        };
        if tokio::time::timeout(Duration::from_secs(CONNECTIONS_WAIT_S), drained).await.is_err() {
            tracing::warn!("connections still open after {CONNECTIONS_WAIT_S} s are cut off");
        }
        emit(&self.events.sink(), "host.stopping", None, json!({}));
        let flush = self.events.shutdown(Duration::from_secs(FLUSH_WAIT_S)).await;
        if let Some(manager) = self.manager {
            manager.shutdown().await;
        }
        self.events.stop_broker().await;
        if panicked > 0 {
            bail!("{panicked} of the threads that step rooms had panicked; the log says where");
        }
        Ok(flush)
    }
}

fn emit(sink: &EventSink, kind: &str, module: Option<&str>, data: serde_json::Value) {
    let event =
        InternalEvent { kind: kind.into(), module: module.map(Into::into), room: None, data, time: SystemTime::now() };
    if let Err(error) = sink.emit(event) {
        tracing::error!(kind, %error, "an event is lost");
    }
}

fn lock(data_dir: &Path) -> anyhow::Result<File> {
    files::hold(data_dir.join(LOCK_FILE)).map_err(|error| match error {
        LockError::Held { .. } => anyhow::anyhow!(
            "another host runs on the data folder {}; stop it, or choose another folder with --data-dir",
            data_dir.display()
        ),
        error @ LockError::Unusable { .. } => error.into(),
    })
}

fn load_modules(config: &Config) -> anyhow::Result<Modules> {
    let settings = EngineSettings {
        instances_max: config.rooms_max,
        instances_spare: INSTANCES_SPARE,
        tick_share_percent: config.tick_share_percent,
        tick_fuel: None,
    };
    let store = ModuleStore::new(Engine::new(settings)?, Some(config.data_dir.join(MODULES_FOLDER)))?;
    let modules = Modules::open(store, &config.data_dir);
    modules.start(&config.modules)?;
    Ok(modules)
}

fn limits(config: &Config) -> Limits {
    let us = |s: u32| u64::from(s) * 1_000_000;
    Limits {
        gather_wait_us: us(config.gather_wait_s),
        ready_wait_us: us(config.ready_wait_s),
        reconnect_grace_us: us(config.reconnect_grace_s),
        linger_us: us(config.linger_s),
        ..Limits::default()
    }
}

fn supervision(config: &Config) -> Supervision {
    Supervision {
        checkpoint_frames: config.checkpoint_frames,
        probation_frames: config.probation_frames,
        overruns_max: config.overruns_max,
        ..Supervision::default()
    }
}

fn bind_udp(config: &Config) -> std::io::Result<Sockets> {
    let sockets = Sockets::bind(config.udp_listen, config.shards, config.steer_datagrams)?;
    let granted_bytes = sockets.granted_bytes();
    if granted_bytes < RECEIVE_BUFFER_BYTES {
        tracing::warn!(
            granted_bytes,
            asked_bytes = RECEIVE_BUFFER_BYTES,
            "the system gives a small receive buffer for datagrams: a burst of a few hundred players' inputs overflows it; {}",
            receive_buffer::advice()
        );
    }
    Ok(sockets)
}

fn in_use(what: &str, address: SocketAddr, flag: &str) -> String {
    format!("cannot listen on {address} for {what}; choose another address with {flag}, or port 0 for a free one")
}
