//! Internal events: from any thread of the host into a durable outbox, from there over MQTT to the manager and to
//! whoever else subscribes. Only this module names an MQTT crate. What becomes of the events is the business of
//! [`crate::manager`].
//!
//! # What is promised
//!
//! - `emit` takes an event into memory and returns. A moment later, at its commit, it is in the outbox's file: from then on the death of this process,
//!   of the broker or of the manager, in whatever order and as often as they like, does not lose it, and the records have it once. How long that moment
//!   is `holeshot bench events` says; [`EventSink::is_durable`] says when it is over.
//! - A room's players are told `bye` with `room_finished` or `room_aborted` after that moment for the room's last event. If the disk does not take
//!   it for 15 s they are told `internal` instead. The public event `finished` comes before: it is news, not a receipt.
//! - Not promised: what the disk lost in a power cut (the last commits: `synchronous = NORMAL`); events that a bound refused, which are counted and
//!   logged; that `room.journal_closed` is told only once: a host that died in between tells it again, as another event.
//! - Events of one start are stored in the order in which they were accepted. Their times are the wall clock's and may go back.
//!
//! `tests/e2e/faults` does all this to real processes and counts.
//!
//! # Topics
//!
//! All names are lowercase ASCII; `{host}` is the host id, fixed by the operator. Rooms and players are never part of a
//! topic (brokers keep every topic that they saw): they are in the payload.
//!
//! | topic | from | QoS, retained | payload |
//! | --- | --- | --- | --- |
//! | `holeshot/v1/{host}/status` | host; its last will | 1, retained | [`Status`]: `{"state":"online","boot":"…","since":"2026-11-21T12:00:00.000000Z","version":"0.1.0"}` or `{"state":"offline","boot":"…"}` |
//! | `holeshot/v1/{host}/events/host/{kind}` | host | 1 | [`CloudEvent`]: an event of the host itself |
//! | `holeshot/v1/{host}/events/{module}/{kind}` | host | 1 | [`CloudEvent`]: an event that concerns that rules module |
//! | `holeshot/v1/{host}/outbox` | host | 1 | `{"origins":[{"origin":"…","floor":41}]}`: of that origin, nothing up to sequence 41 will be sent again |
//! | `holeshot/v1/{host}/stored` | manager | 0 | `{"origin":"…","stored":57,"gap":false}`: everything of that origin up to 57 is committed; `gap`: later events came, the next did not |
//! | `holeshot/v1/all/stored` | manager | 0 | `{"ready":true}`: the manager is new to this broker; send again what has no receipt |
//!
//! # Events
//!
//! A payload is a CloudEvents 1.0 object (`application/cloudevents+json`), one per message:
//!
//! ```json
//! {"specversion":"1.0","id":"pit.0193…/42","source":"/holeshot/pit","type":"holeshot.room.finished",
//!  "subject":"r-1","time":"2026-11-21T12:00:00.123456Z","datacontenttype":"application/json",
//!  "dataschema":"holeshot:/asyncapi.json#/components/schemas/room.finished",
//!  "origin":"pit.0193…","sequence":"0000000000000042","room":"r-1","module":"drag-race","data":{}}
//! ```
//!
//! `origin` is one start of one host; `sequence` counts from 1 within it, without holes. (origin, sequence) is the
//! identity: an event may be delivered twice, and a subscriber drops what it has. `subject` and `room` are the same and
//! absent where no room is concerned. `dataschema` names the schema of `data` in the host's AsyncAPI document ([`asyncapi`], served at
//! `/asyncapi.json`); events of hosts before 0.2 have none. In MQTT 5 an event has the content type
//! `application/cloudevents+json; charset=utf-8`, every other message `application/json`, and the payload format indicator is 1.
//! `data` by kind, in the types of [`payload`]:
//!
//! | kind | data |
//! | --- | --- |
//! | `host.started` | [`payload::HostStarted`] |
//! | `host.stopping` | [`payload::HostStopping`] |
//! | `module.loaded` | [`payload::ModuleLoaded`] |
//! | `module.swap_refused` | [`payload::SwapRefused`] |
//! | `room.opened` | [`payload::RoomOpened`] |
//! | `player.joined` | [`payload::PlayerJoined`] |
//! | `player.left` | [`payload::PlayerLeft`] |
//! | `player.data_changed` | [`payload::PlayerDataChanged`] |
//! | `room.started` | [`payload::RoomStarted`] |
//! | `room.rules_swapped` | [`payload::RulesSwapped`] |
//! | `room.rules_kept` | [`payload::RulesKept`] |
//! | `room.rules_rolled_back` | [`payload::RulesRolledBack`] |
//! | `room.rules_retried` | [`payload::RulesRetried`] |
//! | `room.finished` | [`payload::RoomFinished`] |
//! | `room.aborted` | [`payload::RoomAborted`] |
//! | `room.closed` | [`payload::RoomClosed`] |
//! | `room.journal_closed` | [`payload::JournalClosed`] |
//! | `rules.{name}` | whatever the rules module says |
//!
//! # When the broker or the manager is away
//!
//! Nothing waits and no room notices. Every event is written to the outbox first (a file in the data folder) and stays there until a
//! manager's receipt; a broker's acknowledgement removes nothing.
//!
//! - *A second*: the connection is made anew after 50 ms, then after twice that, up to 5 s. What has no receipt is sent again from the oldest
//!   on, in order, a window at a time; the manager drops what it has.
//! - *An hour*: events gather in the outbox up to its bounds, `outbox_events_max` (200,000) and `outbox_bytes_max` (256 MiB). A race of two
//!   has 7 events: the default holds 28,000 races, so 100 races a minute for four hours and a half. When the broker is back, all of it is sent,
//!   while new events come in behind. The log says so once it happens, and then ever more rarely; `holeshot_events_connected`,
//!   `holeshot_events_queued` and `holeshot_events_oldest_age_seconds` say so all the time.
//! - *A day*, or until a bound is reached: nothing that was accepted is dropped to make room. New events are refused: those of the rules (`rules.*`) from half
//!   of a bound on, those of the host (rooms, players, results) at the bound. A refused event is nowhere; refusals are counted by class
//!   (`holeshot_events_refused`) and logged every ten seconds at most. Rooms play on, and players see their results, which are in the journals as well. Whoever wants a
//!   longer day sets the bounds higher: the disk is the only price (an event has some 900 bytes on it).
//! - *A stop of the host meanwhile*: it waits ten seconds for receipts, says how many events are left, and sends them at its next start. A
//!   kill, or a power cut, is the same without the words; a power cut may cost the last commits of SQLite (`synchronous = NORMAL`).
//! - *A broker that takes events while nobody records them* looks like a broker that is away: no receipts. The host then repeats a window's worth
//!   after 1 s, 2 s, up to 30 s, and the log asks whether a manager runs and may subscribe. In MQTT 5 a broker that refuses an event says why; it is
//!   counted (`holeshot_events_refused_by_broker`), told in the log with what to do, and tried again in the same rhythm.
//! - *The embedded broker* dies only with its host; then the same holds for a manager that is busy or was stopped.
//!
//! # A broker elsewhere
//!
//! Any broker of MQTT 3.1.1 or 5 with QoS 1, wildcards and retained messages will do; it needs to keep nothing over a restart. A host's clients
//! are called `holeshot-{host}-control` and `holeshot-{host}-outbox`, a manager's `holeshot-manager-{16 hexadecimal digits}`. These rights
//! are enough (the file `acl_file` of mosquitto; `pit` is a host's id, in `identity.json` of its data folder):
//!
//! ```text
//! user pit
//! topic write holeshot/v1/pit/status
//! topic write holeshot/v1/pit/outbox
//! topic write holeshot/v1/pit/events/#
//! topic read holeshot/v1/pit/stored
//! topic read holeshot/v1/all/stored
//!
//! user keeper
//! topic read holeshot/v1/+/events/#
//! topic read holeshot/v1/+/outbox
//! topic write holeshot/v1/+/stored
//!
//! user guest
//! topic read holeshot/v1/#
//! ```
//!
//! A host with `manager` at its default is host and manager in one and needs the rights of both. Who may write below `events/` can make up results, and
//! who may write `stored` can make hosts forget events: give these rights to nobody else. The rest of a `mosquitto.conf` for it:
//!
//! ```text
//! listener 8883
//! certfile /etc/mosquitto/broker.pem
//! keyfile /etc/mosquitto/broker.key
//! allow_anonymous false
//! password_file /etc/mosquitto/holeshot.users
//! acl_file /etc/mosquitto/holeshot.rights
//! max_inflight_messages 500
//! max_queued_messages 100000
//! ```
//!
//! The last two are for speed: with mosquitto's defaults (20 and 1,000) a burst overruns the queue of a manager that commits, the broker drops
//! the rest in silence, and the hosts send it again. Users are made with `mosquitto_passwd -c /etc/mosquitto/holeshot.users pit`. For client certificates
//! add `cafile` and `require_certificate true`. Packets have 256 KiB at most: do not set `max_packet_size` below that.

pub mod access;
pub mod asyncapi;
pub mod broker;
pub mod cloudevent;
pub(crate) mod damaged;
pub mod follow;
pub(crate) mod link;
mod mqtt;
pub mod outbox;
pub mod payload;
pub mod publisher;
mod reason;
pub mod tls;
pub mod topics;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;

use broker::{Broker, BrokerError};
use outbox::{EventClass, Outbox, OutboxError, OutboxSink, Wake};
use publisher::{Publisher, PublisherCounters};

pub use access::BrokerAccess;
pub use cloudevent::CloudEvent;
pub use outbox::Limits;
pub use publisher::Status;

/// Something that happened, as the code that saw it tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct InternalEvent {
    /// What happened: words of `a-z 0-9 - _` joined by dots, 80 bytes at most.
    pub kind: String,
    /// Name of the rules module that it concerns; none for an event of the host itself.
    pub module: Option<String>,
    /// The room that it concerns.
    pub room: Option<String>,
    /// What the kind says about it; [`outbox::DATA_MAX_BYTES`] of JSON at most.
    pub data: Value,
    /// When it happened.
    pub time: SystemTime,
}

/// Which broker the events go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerConfig {
    /// One in this process. Any client may subscribe there, none may publish.
    Embedded {
        /// Where it listens; port 0 lets the system pick one.
        listen: SocketAddr,
    },
    /// One that runs elsewhere.
    External(BrokerAccess),
}

/// What [`Events::start`] needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsConfig {
    /// Name of this host, unlike that of every other host on the broker: 1 to 64 of `a-z 0-9 - _`, not `all`.
    pub host_id: String,
    /// Where the outbox is kept. One host at a time.
    pub data_dir: PathBuf,
    /// The broker.
    pub broker: BrokerConfig,
    /// The bounds of the outbox.
    pub outbox: Limits,
}

/// Why the events did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventsError {
    /// The host id would not be safe in a topic.
    #[error(
        "{0:?} cannot be a host id: use 1 to {max} of a-z, 0-9, - and _ (and not `all`)",
        max = topics::NAME_MAX_BYTES
    )]
    HostId(String),
    /// The embedded broker did not start.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The outbox cannot be used.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// No thread.
    #[error("the system refused: {0}")]
    System(String),
}

/// Why an event was not accepted. It is not kept anywhere then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// The kind would not be safe in a topic.
    #[error("{0:?} cannot be the kind of an event: use words of a-z, 0-9, - and _ joined by dots, {max} bytes at most", max = topics::KIND_MAX_BYTES)]
    Kind(String),
    /// The module's name would not be safe in a topic.
    #[error("{0:?} cannot be a module's name in an event: use 1 to {max} of a-z, 0-9, - and _", max = topics::NAME_MAX_BYTES)]
    Module(String),
    /// The room's id is none.
    #[error("{0:?} cannot be a room's id in an event: use 1 to {max} letters, digits, - _ . and :", max = topics::ROOM_MAX_BYTES)]
    Room(String),
    /// The data is too large.
    #[error("the event's data has more than {max} bytes of JSON", max = outbox::DATA_MAX_BYTES)]
    TooLarge,
    /// Events come faster than the disk takes them.
    #[error("the disk is slower than the events: an event of class {class:?} was refused")]
    QueueFull {
        /// Class of the event.
        class: EventClass,
    },
    /// The outbox has reached its bound for this class.
    #[error("the outbox is full, because no manager records: an event of class {class:?} was refused")]
    OutboxFull {
        /// Class of the event.
        class: EventClass,
    },
    /// The events are being shut down.
    #[error("the events are shut down")]
    Closed,
}

/// Takes events from any thread. Cheap to clone; never waits.
#[derive(Clone)]
pub struct EventSink {
    outbox: OutboxSink,
}

impl fmt::Debug for EventSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventSink")
    }
}

impl EventSink {
    /// Accepts an event. It gets its origin and sequence when it is written, a moment later.
    ///
    /// # Errors
    /// [`EmitError`]: what is wrong with the event, or which bound is reached. Refusals by a bound are counted in
    /// [`EventsStats::refused`].
    pub fn emit(&self, event: InternalEvent) -> Result<(), EmitError> {
        if !topics::is_kind(&event.kind) {
            return Err(EmitError::Kind(event.kind));
        }
        if let Some(module) = event.module.as_deref().filter(|name| !topics::is_module(name)) {
            return Err(EmitError::Module(module.to_owned()));
        }
        if let Some(room) = event.room.as_deref().filter(|room| !topics::is_room(room)) {
            return Err(EmitError::Room(room.to_owned()));
        }
        let mut measure = Measure { bytes: 0 };
        serde_json::to_writer(&mut measure, &event.data).map_err(|_| EmitError::TooLarge)?;
        self.outbox.push(event, measure.bytes as u64)
    }

    /// A mark behind everything that was accepted so far.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(self.outbox.accepted())
    }

    /// Whether everything before the mark is in the outbox's file: the death of this process does not lose it any more.
    #[must_use]
    pub fn is_durable(&self, mark: Mark) -> bool {
        self.outbox.written() >= mark.0
    }
}

/// A place in the order in which a host's events were accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// Counts what is written to it and refuses more than an event's data may have.
struct Measure {
    bytes: usize,
}

impl io::Write for Measure {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.bytes = self.bytes.saturating_add(piece.len());
        if self.bytes > outbox::DATA_MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct EventsStats {
    /// Accepted and without a receipt yet (some perhaps of an earlier start).
    pub queued: u64,
    /// Most that the outbox takes of them; of the rules' events half.
    pub queued_max: u64,
    /// Topics and payloads of those that are written, in bytes.
    pub outbox_bytes: u64,
    /// Most that the outbox takes of these, in bytes; of the rules' events half.
    pub outbox_bytes_max: u64,
    /// When the oldest of them happened, in microseconds since 1970.
    pub oldest_unix_us: Option<u64>,
    /// Acknowledgements by the broker; an event that was sent twice counts twice.
    pub published: u64,
    /// Events that the broker acknowledged with a refusal (MQTT 5); they stay in the outbox.
    pub refused_by_broker: u64,
    /// Receipts by the manager.
    pub stored: u64,
    /// Refused because of a bound: events of the rules.
    pub refused_rules: u64,
    /// Refused because of a bound: events of the host.
    pub refused_host: u64,
    /// Accepted, but the disk failed until the end.
    pub lost: u64,
    /// Damaged events in the outbox's table `set_aside`, also of earlier starts: they are not recorded, and kept there.
    pub set_aside: u64,
    /// Connections to the broker after the first.
    pub reconnects: u64,
    /// Whether there is a connection now.
    pub connected: bool,
}

impl EventsStats {
    /// Events that were not kept, for whatever reason.
    pub fn dropped(&self) -> u64 {
        self.refused_rules + self.refused_host + self.lost
    }

    /// Events refused because of a bound.
    pub fn refused(&self) -> u64 {
        self.refused_rules + self.refused_host
    }
}

/// How a shutdown ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Flush {
    /// Events with a receipt since the start.
    pub stored: u64,
    /// Events without one. They are in the outbox and will be sent at the next start.
    pub left: u64,
}

/// The events of a host: outbox, publisher and, if wanted, the broker. Dropping it cuts the connections without a
/// farewell, as a crash would; what was accepted is in the outbox.
#[derive(Debug)]
pub struct Events {
    inner: Mutex<Inner>,
    outbox: OutboxHolder,
    access: BrokerAccess,
    address: String,
    boot: String,
}

struct Inner {
    publisher: Option<Publisher>,
    /// Counters of a publisher that is closed.
    last: PublisherCounters,
    broker: Option<Broker>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

struct OutboxHolder(Outbox);

impl fmt::Debug for OutboxHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outbox").field(&self.0.origin()).finish()
    }
}

impl Events {
    /// Opens the outbox, starts the broker if it is to be embedded, and begins to connect. An external broker need not
    /// be there yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`EventsError`].
    pub async fn start(config: EventsConfig) -> Result<Self, EventsError> {
        if !topics::is_host_id(&config.host_id) {
            return Err(EventsError::HostId(config.host_id));
        }
        let (broker, access, address) = match config.broker {
            BrokerConfig::Embedded { listen } => {
                let broker = blocking(move || Broker::start(listen)).await??;
                let access = broker.access().clone();
                let address = broker.address().to_string();
                (Some(broker), access, address)
            }
            BrokerConfig::External(access) => {
                let address = format!("{}:{}", access.host, access.port);
                (None, access, address)
            }
        };
        let wake = Arc::new(Wake::default());
        let (directory, host, limits) = (config.data_dir, config.host_id.clone(), config.outbox);
        let for_outbox = Arc::clone(&wake);
        let outbox = blocking(move || Outbox::open(&directory, &host, limits, for_outbox)).await??;
        let boot = uuid::Uuid::now_v7().to_string();
        let publisher =
            Publisher::start(&config.host_id, boot.clone(), &access, outbox.reader()?, outbox.sink(), wake)?;
        Ok(Self {
            inner: Mutex::new(Inner { publisher: Some(publisher), last: PublisherCounters::default(), broker }),
            outbox: OutboxHolder(outbox),
            access,
            address,
            boot,
        })
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle that takes events.
    pub fn sink(&self) -> EventSink {
        EventSink { outbox: self.outbox.0.sink() }
    }

    /// Where the broker is: `address:port`, to show.
    pub fn broker_address(&self) -> &str {
        &self.address
    }

    /// How our own clients (the manager) reach the broker.
    pub fn broker_access(&self) -> &BrokerAccess {
        &self.access
    }

    /// The origin of this start's events.
    pub fn origin(&self) -> &str {
        self.outbox.0.origin()
    }

    /// The `boot` of this start's presence.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// Counters.
    pub fn stats(&self) -> EventsStats {
        let outbox = &self.outbox.0;
        let counters = outbox.counters();
        let inner = self.inner();
        let publisher = inner.publisher.as_ref().map_or(inner.last, Publisher::counters);
        let (limits, level) = (outbox.limits(), *outbox.level().borrow());
        EventsStats {
            queued: outbox.pending() + level.events,
            queued_max: limits.events_max,
            outbox_bytes: level.bytes,
            outbox_bytes_max: limits.bytes_max,
            oldest_unix_us: outbox.oldest_unix_us(),
            published: publisher.published,
            refused_by_broker: publisher.refused,
            stored: counters.stored,
            refused_rules: counters.refused_rules,
            refused_host: counters.refused_host,
            lost: counters.lost,
            set_aside: counters.set_aside,
            reconnects: publisher.reconnects,
            connected: publisher.connected,
        }
    }

    /// Takes no more events, waits until the manager has a receipt for each (at most `deadline`), says "offline" and
    /// disconnects. The embedded broker goes on: stop the manager next, then call [`Events::stop_broker`].
    pub async fn shutdown(&self, deadline: Duration) -> Flush {
        let outbox = &self.outbox.0;
        outbox.refuse_more();
        let mut level = outbox.level();
        let done = async {
            while outbox.pending() > 0 || level.borrow_and_update().events > 0 {
                if level.changed().await.is_err() {
                    break;
                }
            }
        };
        let in_time = tokio::time::timeout(deadline, done).await.is_ok();
        let publisher = self.inner().publisher.take();
        if let Some(publisher) = publisher {
            let mut last = publisher.counters();
            publisher.close().await;
            last.connected = false;
            self.inner().last = last;
        }
        let flush = Flush { stored: outbox.counters().stored, left: outbox.pending() + outbox.level().borrow().events };
        if !in_time {
            tracing::warn!(left = flush.left, "events without a receipt stay in the outbox");
        }
        flush
    }

    /// Stops the embedded broker, if there is one. Blocks its caller's thread for half a second at most, so it hands
    /// the work to another.
    pub async fn stop_broker(&self) {
        let broker = self.inner().broker.take();
        if let Some(broker) = broker
            && let Err(error) = blocking(move || broker.stop()).await
        {
            tracing::error!(%error, "the broker did not stop in order");
        }
    }
}

/// Runs something that waits for the disk or a thread, without holding up the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, EventsError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| EventsError::System(error.to_string()))
}
