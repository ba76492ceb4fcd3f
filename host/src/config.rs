//! Settings: from flags, environment variables and a TOML file, in that order of strength, over defaults. Parsed and checked
//! here; everything behind takes the result as it is.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use holeshot_room::Supervision;
use ipnet::IpNet;
use serde::Deserialize;

use crate::doors::gate::{self, LimitSetting, Limits, ProxyHeader, limits};
use crate::doors::records::STREAMS_MAX_DEFAULT;
use crate::events::Limits as OutboxLimits;
use crate::events::access::{AccessError, BrokerAccess, BrokerSettings, Protocol, Secret};
use crate::events::outbox::{DATA_MAX_BYTES, OUTBOX_MAX_BYTES, OUTBOX_MAX_EVENTS};
use crate::manager::chores::Retention;
use crate::rules::EngineSettings;
use crate::shard::SHARDS_MAX;

/// What a person may set. Flag `--http-listen`, variable `HOLESHOT_HTTP_LISTEN` and key `http_listen` of the file are the same setting.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address for HTTP and WebSocket [default: 127.0.0.1:7700]; port 0 lets the system pick one
    #[arg(long, env = "HOLESHOT_HTTP_LISTEN", value_name = "ADDRESS")]
    pub http_listen: Option<SocketAddr>,
    /// Address for the players' datagrams (UDP) [default: the HTTP address, port 7700]
    #[arg(long, env = "HOLESHOT_UDP_LISTEN", value_name = "ADDRESS")]
    pub udp_listen: Option<SocketAddr>,
    /// Address of the embedded MQTT broker [default: 127.0.0.1:1883]
    #[arg(long, env = "HOLESHOT_MQTT_LISTEN", value_name = "ADDRESS")]
    pub mqtt_listen: Option<SocketAddr>,
    /// The MQTT broker that the events go to, mqtt://host or mqtt://host:port, with TLS mqtts:// [default: the embedded one]
    #[arg(long, env = "HOLESHOT_BROKER", value_name = "URL")]
    pub broker: Option<String>,
    /// User name, if the broker wants one
    #[arg(long, env = "HOLESHOT_BROKER_USERNAME", value_name = "NAME")]
    pub broker_username: Option<String>,
    /// Password of that user. Other users of this machine see a command line: prefer the file
    #[arg(long, env = "HOLESHOT_BROKER_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    pub broker_password: Option<Secret>,
    /// File whose first line is that password
    #[arg(long, env = "HOLESHOT_BROKER_PASSWORD_FILE", value_name = "FILE")]
    pub broker_password_file: Option<PathBuf>,
    /// File (PEM) of the authorities that may vouch for the broker's certificate [default: those of the system]
    #[arg(long, env = "HOLESHOT_BROKER_CA", value_name = "FILE")]
    pub broker_ca: Option<PathBuf>,
    /// File (PEM) of a certificate to show to the broker, with those between it and its authority
    #[arg(long, env = "HOLESHOT_BROKER_CERTIFICATE", value_name = "FILE")]
    pub broker_certificate: Option<PathBuf>,
    /// File (PEM) of the private key of that certificate
    #[arg(long, env = "HOLESHOT_BROKER_KEY", value_name = "FILE")]
    pub broker_key: Option<PathBuf>,
    /// Which MQTT to speak with that broker; auto: 5 where it does [default: auto]
    #[arg(long, env = "HOLESHOT_BROKER_PROTOCOL", value_name = "VERSION")]
    pub broker_protocol: Option<Protocol>,
    /// Most events that wait for the manager, 1000 to 100000000; of those of the rules half [default: 200000]
    #[arg(long, env = "HOLESHOT_OUTBOX_EVENTS_MAX", value_name = "N")]
    pub outbox_events_max: Option<u64>,
    /// Most bytes of events that wait for the manager; of those of the rules half [default: 268435456, 256 MiB]
    #[arg(long, env = "HOLESHOT_OUTBOX_BYTES_MAX", value_name = "BYTES")]
    pub outbox_bytes_max: Option<u64>,
    /// Whether this process keeps the records, too; with no, `holeshot manager` does elsewhere, over `broker` [default: yes]
    #[arg(long, env = "HOLESHOT_MANAGER", value_name = "yes|no", value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub manager: Option<bool>,
    /// Folder for the records, the journals, the outbox, the identity and the modules [default: holeshot-data]
    #[arg(long, env = "HOLESHOT_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Rules modules to load besides the drag race and the arena, which one of the same name replaces; a room names one by its manifest's name
    #[arg(long = "module", env = "HOLESHOT_MODULES", value_name = "FILE", value_delimiter = ',')]
    #[serde(default)]
    pub modules: Vec<PathBuf>,
    /// A rules module to watch: whenever the file changes, its rules take over in open rooms and in new ones. It need not be there yet
    #[arg(long, env = "HOLESHOT_WATCH", value_name = "FILE", value_delimiter = ',')]
    #[serde(default)]
    pub watch: Vec<PathBuf>,
    /// Threads that step rooms, 1 to the number of cores, 256 at most [default: 1]
    #[arg(long, env = "HOLESHOT_SHARDS", value_name = "N")]
    pub shards: Option<usize>,
    /// Whether the system gives each datagram to its shard, where there are several and it can; with no, they hand them to each other [default: yes]
    #[arg(long, env = "HOLESHOT_STEER_DATAGRAMS", value_name = "yes|no", value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub steer_datagrams: Option<bool>,
    /// Most rooms at a time, 1 to 30000 [default: 4000]
    #[arg(long, env = "HOLESHOT_ROOMS_MAX", value_name = "N")]
    pub rooms_max: Option<u32>,
    /// Memory that stays free for the rest of the machine, in MiB; no room opens below it [default: 256]
    #[arg(long, env = "HOLESHOT_MEMORY_RESERVE_MIB", value_name = "MIB")]
    pub memory_reserve_mib: Option<u32>,
    /// The part of a tick's time that the rules of one room may use, in percent, 1 to 100 [default: 25]
    #[arg(long, env = "HOLESHOT_TICK_SHARE_PERCENT", value_name = "PERCENT")]
    pub tick_share_percent: Option<u32>,
    /// Ticks in a row that rules may overrun, each of which is skipped; the last one ends the room, 1 to 1000 [default: 5]
    #[arg(long, env = "HOLESHOT_OVERRUNS_MAX", value_name = "N")]
    pub overruns_max: Option<u32>,
    /// Frames from one checkpoint of a room to the next, 1 to 1000 [default: 50]
    #[arg(long, env = "HOLESHOT_CHECKPOINT_FRAMES", value_name = "FRAMES")]
    pub checkpoint_frames: Option<u32>,
    /// Frames after a swap of rules in which a fault brings the old ones back, 0 to 3000 [default: 150]
    #[arg(long, env = "HOLESHOT_PROBATION_FRAMES", value_name = "FRAMES")]
    pub probation_frames: Option<u32>,
    /// How long players have to connect, in seconds [default: 60]
    #[arg(long, env = "HOLESHOT_GATHER_WAIT_S", value_name = "SECONDS")]
    pub gather_wait_s: Option<u32>,
    /// How long players have to say that they are ready, in seconds [default: 60]
    #[arg(long, env = "HOLESHOT_READY_WAIT_S", value_name = "SECONDS")]
    pub ready_wait_s: Option<u32>,
    /// How long a player who lost the connection keeps its place, in seconds [default: 10]
    #[arg(long, env = "HOLESHOT_RECONNECT_GRACE_S", value_name = "SECONDS")]
    pub reconnect_grace_s: Option<u32>,
    /// How long a room stays after its end, for players to read the outcome, in seconds [default: 10]
    #[arg(long, env = "HOLESHOT_LINGER_S", value_name = "SECONDS")]
    pub linger_s: Option<u32>,
    /// How long a host that is told to stop waits for the games that run, in seconds; 0 ends them at once [default: 120]
    #[arg(long, env = "HOLESHOT_DRAIN_WAIT_S", value_name = "SECONDS")]
    pub drain_wait_s: Option<u32>,
    /// How long a ticket opens sessions, in seconds [default: 3600]
    #[arg(long, env = "HOLESHOT_TICKET_LIFETIME_S", value_name = "SECONDS")]
    pub ticket_lifetime_s: Option<u32>,
    /// How long journals of rooms are kept, in days; 0 keeps none [default: 30]
    #[arg(long, env = "HOLESHOT_JOURNAL_DAYS", value_name = "DAYS")]
    pub journal_days: Option<u32>,
    /// Most bytes of all journals together; the oldest are deleted first [default: 4294967296, 4 GiB]
    #[arg(long, env = "HOLESHOT_JOURNAL_BYTES_MAX", value_name = "BYTES")]
    pub journal_bytes_max: Option<u64>,

    /// How long events are kept in the records, in days; 0 for ever [default: 90]
    #[arg(long, env = "HOLESHOT_EVENTS_DAYS", value_name = "DAYS")]
    pub events_days: Option<u32>,
    /// How long rooms and their results are kept in the records, in days; 0 for ever [default: 0]
    #[arg(long, env = "HOLESHOT_RECORDS_DAYS", value_name = "DAYS")]
    pub records_days: Option<u32>,
    /// Streams of recorded events at a time (`/api/events/stream`), 0 to 1000 [default: 100]
    #[arg(long, env = "HOLESHOT_STREAMS_MAX", value_name = "N")]
    pub streams_max: Option<u32>,

    /// The host's certificate (PEM, the whole chain), for TLS on the HTTP address: https:// and wss:// alone. Taken again when the file changes
    #[arg(long, env = "HOLESHOT_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// The certificate's private key (PEM: PKCS#8, PKCS#1 or SEC1, not encrypted)
    #[arg(long, env = "HOLESHOT_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Keys with which a matchmaker signs tickets: a JWK Set, or a public key of Ed25519 in PEM; read again when the file changes
    #[arg(long, env = "HOLESHOT_TICKET_KEYS", value_name = "FILE", value_delimiter = ',')]
    #[serde(default)]
    pub ticket_keys: Vec<PathBuf>,
    /// Longest lifetime of a matchmaker's ticket, in seconds, 1 to 2592000 [default: 86400]
    #[arg(long, env = "HOLESHOT_TICKET_LIFETIME_MAX_S", value_name = "SECONDS")]
    pub ticket_lifetime_max_s: Option<u32>,
    /// How far a matchmaker's clock may be off, in seconds, 0 to 300 [default: 5]
    #[arg(long, env = "HOLESHOT_TICKET_LEEWAY_S", value_name = "SECONDS")]
    pub ticket_leeway_s: Option<u32>,
    /// Whether anybody may open rooms and get tickets, without the admin token; `auto`: only while HTTP is for this machine alone and no proxy is trusted [default: auto]
    #[arg(long, env = "HOLESHOT_OPEN_DOORS", value_name = "auto|yes|no")]
    pub open_doors: Option<OpenDoors>,

    /// Addresses and ranges of proxies in front of this host, whose headers say who asks [default: none]
    #[arg(long, env = "HOLESHOT_TRUSTED_PROXIES", value_name = "ADDRESS", value_delimiter = ',', value_parser = range)]
    #[serde(default, deserialize_with = "ranges")]
    pub trusted_proxies: Vec<IpNet>,
    /// The header that these proxies write; no other one is read [default: x-forwarded-for, with x-forwarded-proto]
    #[arg(long, env = "HOLESHOT_PROXY_HEADER", value_name = "HEADER")]
    pub proxy_header: Option<ProxyHeader>,
    /// Addresses and ranges for which limits per address do not hold; `none` for nobody [default: 127.0.0.0/8,::1]
    #[arg(long, env = "HOLESHOT_LIMITS_EXEMPT", value_name = "ADDRESS", value_delimiter = ',')]
    #[serde(default)]
    pub limits_exempt: Vec<String>,
    /// A limit of the doors, as in `address_requests_per_s=100`; host/LIMITS.md has them all. In the file: the table `limits`
    #[arg(long = "limit", env = "HOLESHOT_LIMITS", value_name = "NAME=N", value_delimiter = ',')]
    #[serde(default, deserialize_with = "limits::from_table")]
    pub limits: Vec<LimitSetting>,
}

/// Who may open rooms and get tickets without the admin token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenDoors {
    /// Anybody, while HTTP listens on a loopback address and no proxy is trusted; nobody else.
    #[default]
    Auto,
    /// Anybody who reaches the host.
    Yes,
    /// Nobody.
    No,
}

/// Settings with every default filled in and every range checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Address for HTTP and WebSocket.
    pub http_listen: SocketAddr,
    /// Address for datagrams.
    pub udp_listen: SocketAddr,
    /// Address of the embedded broker.
    pub mqtt_listen: SocketAddr,
    /// The broker elsewhere; without one, the embedded one runs.
    pub broker: Option<BrokerAccess>,
    /// Whether this process keeps the records.
    pub manager: bool,
    /// Bounds of what waits for the manager.
    pub outbox: OutboxLimits,
    /// Folder for all that stays.
    pub data_dir: PathBuf,
    /// Modules besides the default one.
    pub modules: Vec<PathBuf>,
    /// Files of modules that take over whenever they change.
    pub watch: Vec<PathBuf>,
    /// Threads that step rooms.
    pub shards: usize,
    /// Whether the system gives each datagram to its shard, where there are several and it can.
    pub steer_datagrams: bool,
    /// Most rooms at a time.
    pub rooms_max: u32,
    /// Memory below which no room opens, in MiB.
    pub memory_reserve_mib: u32,
    /// The part of a tick's time that one room's rules may use, in percent.
    pub tick_share_percent: u32,
    /// Overrun ticks in a row that end a room.
    pub overruns_max: u32,
    /// Frames between two checkpoints of a room.
    pub checkpoint_frames: u32,
    /// Frames after a swap in which a fault brings the old rules back.
    pub probation_frames: u32,
    /// Limit of the wait for players to connect, in seconds.
    pub gather_wait_s: u32,
    /// Limit of the wait for players to be ready, in seconds.
    pub ready_wait_s: u32,
    /// How long a lost player keeps its place, in seconds.
    pub reconnect_grace_s: u32,
    /// How long an ended room stays, in seconds.
    pub linger_s: u32,
    /// How long a host that is told to stop waits for the games that run, in seconds.
    pub drain_wait_s: u32,
    /// How long a ticket opens sessions, in seconds.
    pub ticket_lifetime_s: u32,
    /// How long journals are kept, in days; 0 keeps none.
    pub journal_days: u32,
    /// Most bytes of all journals together.
    pub journal_bytes_max: u64,

    /// Certificate and key for TLS; none for plain HTTP.
    pub tls: Option<crate::tls::Pair>,
    /// Files of keys of matchmakers.
    pub ticket_keys: Vec<PathBuf>,
    /// Longest lifetime of a matchmaker's ticket, in seconds.
    pub ticket_lifetime_max_s: u32,
    /// How far a matchmaker's clock may be off, in seconds.
    pub ticket_leeway_s: u32,
    /// Who may open rooms and get tickets without the admin token.
    pub open_doors: OpenDoors,
    /// How long records are kept.
    pub retention: Retention,
    /// Streams of recorded events at a time.
    pub streams_max: u32,
    /// Who may come in how often, and who stands in between.
    pub gate: gate::Rules,
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings file {path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// The file is not TOML with known keys.
    #[error("the settings file {path} is not valid:\n{reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, column, and what is wrong there.
        reason: String,
    },
    /// The settings of the broker cannot be used.
    #[error(transparent)]
    Broker(#[from] AccessError),
    /// Records that nobody would keep.
    #[error(
        "`manager` is no, but nobody else can record from the embedded broker: name one for both with `broker`, and run `holeshot manager` with it"
    )]
    NobodyRecords,
    /// A value is out of its range.
    #[error("setting `{setting}` is {value}; accepted: {accepted}")]
    OutOfRange {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: u64,
        /// What is accepted.
        accepted: String,
    },
    /// A value that is none.
    #[error("setting `{setting}` cannot be used: {reason}")]
    Unusable {
        /// The setting.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting that needs another one.
    #[error("setting `{setting}` is given without `{missing}`; give both or none")]
    Incomplete {
        /// The setting.
        setting: &'static str,
        /// The other one.
        missing: &'static str,
    },
}

/// Default port for HTTP and WebSocket, and for datagrams: TCP and UDP ports do not collide.
pub const PORT: u16 = 7700;
/// Default port of a manager in a process of its own.
pub const MANAGER_PORT: u16 = 7701;
/// Default port of the embedded broker: MQTT's own.
pub const MQTT_PORT: u16 = 1883;
/// The rooms that any setting may ask for. Each takes four memory mappings, and Linux grants a process 65,530 by default: above about
/// 14,000 rooms the start is refused with the sysctl to raise.
pub const ROOMS_MAX: u32 = 30_000;
/// Files that are watched: each is looked at four times a second.
const WATCHED_MAX: u64 = 16;
/// Memory that stays free unless the setting says otherwise, in MiB: what the compiler takes for a large module, the database and the broker under
/// load, and enough for the system to stay responsive.
pub const MEMORY_RESERVE_MIB: u32 = 256;
/// A terabyte: a larger reserve is a mistake in the units.
const MEMORY_RESERVE_MIB_MAX: u32 = 1 << 20;
/// Twenty seconds at 50 Hz: players of a game that stands still for longer are gone.
const OVERRUNS_MAX: u32 = 1_000;
/// Twenty seconds at 50 Hz: the inputs since a checkpoint are kept, and run again within one tick after a fault.
const CHECKPOINT_FRAMES_MAX: u32 = 1_000;
/// A minute at 50 Hz: inputs are kept as long as the probation lasts, and run again within one tick when it fails.
const PROBATION_FRAMES_MAX: u32 = 3_000;
/// How long a host that is told to stop waits for the games that run, in seconds: two minutes are several drag races, and more than whoever wants
/// the host to stop would like to wait.
const DRAIN_WAIT_S: u32 = 120;
/// A day: a longer wait is a mistake in the units.
const WAIT_S_MAX: u32 = 86_400;
/// Fifty races: below it a manager that restarts would cost events.
const OUTBOX_EVENTS_MAX_LEAST: u64 = 1_000;
/// Five million races: what SQLite counts in a second or so at the start.
const OUTBOX_EVENTS_MAX_MOST: u64 = 100_000_000;
/// Sixteen of the largest events, half of them the rules', in bytes.
const OUTBOX_BYTES_MAX_LEAST: u64 = 16 * DATA_MAX_BYTES as u64;
/// A tebibyte: more is a mistake in the units.
const OUTBOX_BYTES_MAX_MOST: u64 = 1 << 40;
/// Ten years of journals: more is a mistake in the units.
const JOURNAL_DAYS_MAX: u32 = 3_660;
/// What a journal of a minute needs with room to spare, in bytes: below it not one race would be kept.
const JOURNAL_BYTES_MAX_LEAST: u64 = 1 << 20;
/// 64 TiB, in bytes.
const JOURNAL_BYTES_MAX_MOST: u64 = 64 << 40;
/// Files of ticket keys: as many as keys.
const TICKET_KEY_FILES_MAX: u64 = crate::doors::tickets::keys::KEYS_MAX as u64;
/// Thirty days: a ticket that is good for longer is a password.
const TICKET_LIFETIME_MAX_S_MAX: u32 = 2_592_000;
/// Five minutes: a clock that is further off is broken.
const TICKET_LEEWAY_S_MAX: u32 = 300;

impl Settings {
    /// Reads a settings file.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] or [`ConfigError::Invalid`] with line and key.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.into(), reason: error.to_string() })?;
        Self::parse(path, &text)
    }

    /// As [`read`](Self::read), of the text of a file; `path` names it in errors.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with line and key.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::Invalid { path: path.into(), reason: error.to_string() })
    }

    /// These settings, with `weaker` where they say nothing.
    #[must_use]
    pub fn over(self, weaker: Self) -> Self {
        // One setting in two forms: the stronger source has it in one of them, or not at all.
        let has_password = self.broker_password.is_some() || self.broker_password_file.is_some();
        let (broker_password, broker_password_file) = if has_password {
            (self.broker_password, self.broker_password_file)
        } else {
            (weaker.broker_password, weaker.broker_password_file)
        };
        Self {
            http_listen: self.http_listen.or(weaker.http_listen),
            udp_listen: self.udp_listen.or(weaker.udp_listen),
            mqtt_listen: self.mqtt_listen.or(weaker.mqtt_listen),
            broker: self.broker.or(weaker.broker),
            broker_username: self.broker_username.or(weaker.broker_username),
            broker_password,
            broker_password_file,
            broker_ca: self.broker_ca.or(weaker.broker_ca),
            broker_certificate: self.broker_certificate.or(weaker.broker_certificate),
            broker_key: self.broker_key.or(weaker.broker_key),
            broker_protocol: self.broker_protocol.or(weaker.broker_protocol),
            manager: self.manager.or(weaker.manager),
            outbox_events_max: self.outbox_events_max.or(weaker.outbox_events_max),
            outbox_bytes_max: self.outbox_bytes_max.or(weaker.outbox_bytes_max),
            data_dir: self.data_dir.or(weaker.data_dir),
            modules: if self.modules.is_empty() { weaker.modules } else { self.modules },
            watch: if self.watch.is_empty() { weaker.watch } else { self.watch },
            shards: self.shards.or(weaker.shards),
            steer_datagrams: self.steer_datagrams.or(weaker.steer_datagrams),
            rooms_max: self.rooms_max.or(weaker.rooms_max),
            memory_reserve_mib: self.memory_reserve_mib.or(weaker.memory_reserve_mib),
            tick_share_percent: self.tick_share_percent.or(weaker.tick_share_percent),
            overruns_max: self.overruns_max.or(weaker.overruns_max),
            checkpoint_frames: self.checkpoint_frames.or(weaker.checkpoint_frames),
            gather_wait_s: self.gather_wait_s.or(weaker.gather_wait_s),
            ready_wait_s: self.ready_wait_s.or(weaker.ready_wait_s),
            reconnect_grace_s: self.reconnect_grace_s.or(weaker.reconnect_grace_s),
            linger_s: self.linger_s.or(weaker.linger_s),
            drain_wait_s: self.drain_wait_s.or(weaker.drain_wait_s),
            probation_frames: self.probation_frames.or(weaker.probation_frames),
            ticket_lifetime_s: self.ticket_lifetime_s.or(weaker.ticket_lifetime_s),
            journal_days: self.journal_days.or(weaker.journal_days),
            journal_bytes_max: self.journal_bytes_max.or(weaker.journal_bytes_max),
            events_days: self.events_days.or(weaker.events_days),
            records_days: self.records_days.or(weaker.records_days),
            streams_max: self.streams_max.or(weaker.streams_max),

            tls_certificate: self.tls_certificate.or(weaker.tls_certificate),
            tls_key: self.tls_key.or(weaker.tls_key),
            ticket_keys: if self.ticket_keys.is_empty() { weaker.ticket_keys } else { self.ticket_keys },
            ticket_lifetime_max_s: self.ticket_lifetime_max_s.or(weaker.ticket_lifetime_max_s),
            ticket_leeway_s: self.ticket_leeway_s.or(weaker.ticket_leeway_s),
            open_doors: self.open_doors.or(weaker.open_doors),
            trusted_proxies: stronger(self.trusted_proxies, weaker.trusted_proxies),
            proxy_header: self.proxy_header.or(weaker.proxy_header),
            limits_exempt: stronger(self.limits_exempt, weaker.limits_exempt),
            // Of two settings of one limit the last counts.
            limits: [weaker.limits, self.limits].concat(),
        }
    }

    fn broker_settings(&self) -> BrokerSettings {
        BrokerSettings {
            broker: self.broker.clone(),
            broker_username: self.broker_username.clone(),
            broker_password: self.broker_password.clone(),
            broker_password_file: self.broker_password_file.clone(),
            broker_ca: self.broker_ca.clone(),
            broker_certificate: self.broker_certificate.clone(),
            broker_key: self.broker_key.clone(),
            broker_protocol: self.broker_protocol,
        }
    }

    /// Fills in the defaults and checks every range.
    ///
    /// # Errors
    /// The first setting out of its range.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let broker = self.broker_settings().resolve()?;
        let manager = self.manager.unwrap_or(true);
        if !manager && broker.is_none() {
            return Err(ConfigError::NobodyRecords);
        }
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let http_listen = self.http_listen.unwrap_or_else(|| loopback(PORT));
        let udp_port = if http_listen.port() == 0 { 0 } else { PORT };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let config = Config {
            http_listen,
            udp_listen: self.udp_listen.unwrap_or_else(|| SocketAddr::new(http_listen.ip(), udp_port)),
            mqtt_listen: self.mqtt_listen.unwrap_or_else(|| loopback(MQTT_PORT)),
            broker,
            manager,
            outbox: OutboxLimits {
                events_max: self.outbox_events_max.unwrap_or(OUTBOX_MAX_EVENTS),
                bytes_max: self.outbox_bytes_max.unwrap_or(OUTBOX_MAX_BYTES),
            },
            data_dir: self.data_dir.unwrap_or_else(|| "holeshot-data".into()),
            modules: self.modules,
            watch: self.watch,
            shards: self.shards.unwrap_or(1),
            steer_datagrams: self.steer_datagrams.unwrap_or(true),
            rooms_max: self.rooms_max.unwrap_or(4_000),
            memory_reserve_mib: self.memory_reserve_mib.unwrap_or(MEMORY_RESERVE_MIB),
            tick_share_percent: self.tick_share_percent.unwrap_or(EngineSettings::TICK_SHARE_PERCENT),
            overruns_max: self.overruns_max.unwrap_or(Supervision::OVERRUNS_MAX),
            checkpoint_frames: self.checkpoint_frames.unwrap_or(Supervision::CHECKPOINT_FRAMES),
            gather_wait_s: self.gather_wait_s.unwrap_or(60),
            ready_wait_s: self.ready_wait_s.unwrap_or(60),
            reconnect_grace_s: self.reconnect_grace_s.unwrap_or(10),
            linger_s: self.linger_s.unwrap_or(10),
            drain_wait_s: self.drain_wait_s.unwrap_or(DRAIN_WAIT_S),
            probation_frames: self.probation_frames.unwrap_or(Supervision::PROBATION_FRAMES),
            ticket_lifetime_s: self.ticket_lifetime_s.unwrap_or(3_600),
            journal_days: self.journal_days.unwrap_or(30),
            journal_bytes_max: self.journal_bytes_max.unwrap_or(4 << 30),
            retention: Retention {
                events_days: self.events_days.unwrap_or(Retention::EVENTS_DAYS),
                records_days: self.records_days.unwrap_or(Retention::RECORDS_DAYS),
            },
            streams_max: self.streams_max.unwrap_or(STREAMS_MAX_DEFAULT),

            tls: pair(self.tls_certificate, self.tls_key)?,
            ticket_keys: self.ticket_keys,
            ticket_lifetime_max_s: self.ticket_lifetime_max_s.unwrap_or(86_400),
            ticket_leeway_s: self.ticket_leeway_s.unwrap_or(5),
            open_doors: self.open_doors.unwrap_or_default(),
            gate: gate::Rules {
                limits: Limits::new(&self.limits)?,
                exempt: exempt(&self.limits_exempt)?,
                trusted: self.trusted_proxies,
                proxy_header: self.proxy_header.unwrap_or_default(),
            },
        };
        check("shards", config.shards as u64, 1, cores.min(SHARDS_MAX) as u64)?;
        check("watch (files)", config.watch.len() as u64, 0, WATCHED_MAX)?;
        check("rooms_max", config.rooms_max.into(), 1, ROOMS_MAX.into())?;
        for (setting, value, least, most) in [
            ("memory_reserve_mib", config.memory_reserve_mib, 0, MEMORY_RESERVE_MIB_MAX),
            ("tick_share_percent", config.tick_share_percent, 1, 100),
            ("overruns_max", config.overruns_max, 1, OVERRUNS_MAX),
            ("checkpoint_frames", config.checkpoint_frames, 1, CHECKPOINT_FRAMES_MAX),
            ("probation_frames", config.probation_frames, 0, PROBATION_FRAMES_MAX),
        ] {
            check(setting, value.into(), least, most.into())?;
        }
        for (setting, value, least) in [
            ("gather_wait_s", config.gather_wait_s, 1),
            ("ready_wait_s", config.ready_wait_s, 1),
            ("reconnect_grace_s", config.reconnect_grace_s, 0),
            ("linger_s", config.linger_s, 0),
            ("drain_wait_s", config.drain_wait_s, 0),
            ("ticket_lifetime_s", config.ticket_lifetime_s, 1),
        ] {
            check(setting, value.into(), least, WAIT_S_MAX.into())?;
        }
        check("outbox_events_max", config.outbox.events_max, OUTBOX_EVENTS_MAX_LEAST, OUTBOX_EVENTS_MAX_MOST)?;
        check("outbox_bytes_max", config.outbox.bytes_max, OUTBOX_BYTES_MAX_LEAST, OUTBOX_BYTES_MAX_MOST)?;
        check("journal_days", config.journal_days.into(), 0, JOURNAL_DAYS_MAX.into())?;
        check_records(config.retention, config.streams_max)?;
        check("journal_bytes_max", config.journal_bytes_max, JOURNAL_BYTES_MAX_LEAST, JOURNAL_BYTES_MAX_MOST)?;
        check("ticket_keys (files)", config.ticket_keys.len() as u64, 0, TICKET_KEY_FILES_MAX)?;
        check("ticket_lifetime_max_s", config.ticket_lifetime_max_s.into(), 1, TICKET_LIFETIME_MAX_S_MAX.into())?;
        check("ticket_leeway_s", config.ticket_leeway_s.into(), 0, TICKET_LEEWAY_S_MAX.into())?;
        Ok(config)
    }
}

fn stronger<T>(these: Vec<T>, weaker: Vec<T>) -> Vec<T> {
    if these.is_empty() { weaker } else { these }
}

/// Reads a range of addresses, or one address.
fn range(text: &str) -> Result<IpNet, String> {
    let one = || text.trim().parse::<std::net::IpAddr>().ok().map(|address| IpNet::from(address.to_canonical()));
    let range = text.trim().parse::<IpNet>().ok().or_else(one);
    range.ok_or_else(|| format!("{text:?} is neither an address nor a range like 10.0.0.0/8"))
}

fn ranges<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| range(text).map_err(serde::de::Error::custom)).collect()
}

fn exempt(texts: &[String]) -> Result<Vec<IpNet>, ConfigError> {
    match texts {
        [] => Ok(gate::loopback()),
        [one] if one == "none" => Ok(Vec::new()),
        texts => texts
            .iter()
            .map(|text| range(text).map_err(|reason| ConfigError::Unusable { setting: "limits_exempt", reason }))
            .collect(),
    }
}

fn pair(certificate: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<crate::tls::Pair>, ConfigError> {
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(crate::tls::Pair { certificate, key })),
        (Some(_), None) => Err(ConfigError::Incomplete { setting: "tls_certificate", missing: "tls_key" }),
        (None, Some(_)) => Err(ConfigError::Incomplete { setting: "tls_key", missing: "tls_certificate" }),
    }
}

/// Streams of events at a time, each of which holds an HTTP connection: as many as there are of those unless that is set, too.
const STREAMS_MAX_MOST: u64 = 1_000;

/// Checks what a host and a manager on its own have in common.
///
/// # Errors
/// The first setting out of its range.
pub fn check_records(retention: Retention, streams_max: u32) -> Result<(), ConfigError> {
    check("events_days", retention.events_days.into(), 0, Retention::DAYS_MAX.into())?;
    check("records_days", retention.records_days.into(), 0, Retention::DAYS_MAX.into())?;
    check("streams_max", streams_max.into(), 0, STREAMS_MAX_MOST)
}

fn check(setting: &'static str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::OutOfRange { setting, value, accepted: format!("{least} to {most}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stronger_source_wins_and_defaults_fill_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("holeshot.toml");
        std::fs::write(&path, "rooms_max = 7\nlinger_s = 3\nhttp_listen = \"0.0.0.0:80\"").unwrap();
        let flags = Settings { rooms_max: Some(9), ..Settings::default() };
        let config = flags.over(Settings::read(&path).unwrap()).resolve().unwrap();
        assert_eq!((config.rooms_max, config.linger_s, config.ready_wait_s), (9, 3, 60));
        assert_eq!(config.udp_listen, "0.0.0.0:7700".parse().unwrap());
        let free = Settings { http_listen: Some("127.0.0.1:0".parse().unwrap()), ..Settings::default() };
        assert_eq!(free.resolve().unwrap().udp_listen.port(), 0);
    }

    #[test]
    fn a_host_without_records_needs_a_broker_elsewhere() {
        let alone = Settings { manager: Some(false), ..Settings::default() };
        assert_eq!(alone.clone().resolve(), Err(ConfigError::NobodyRecords));
        let config = Settings { broker: Some("mqtt://10.0.0.1".into()), ..alone }.resolve().unwrap();
        assert!(!config.manager && config.broker.is_some_and(|broker| broker.port == 1883));
        let config = Settings::default().resolve().unwrap();
        assert!(config.manager && config.broker.is_none());
        // A password of the stronger source is not joined by one of the weaker.
        let weaker = Settings { broker_password_file: Some("/nowhere".into()), ..Settings::default() };
        let flags = Settings {
            broker: Some("mqtt://x".into()),
            broker_username: Some("pit".into()),
            broker_password: Some("hidden".parse().unwrap()),
            ..Settings::default()
        };
        assert_eq!(flags.over(weaker).resolve().unwrap().broker.unwrap().password.as_deref(), Some("hidden"));
    }

    #[test]
    fn a_bad_file_is_refused_with_key_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("holeshot.toml");
        for (text, words) in [
            ("rooms = 7", ["rooms", "unknown field"]),
            ("\nrooms_max = \"many\"", ["line 2", "u32"]),
            ("http_listen = \"here\"", ["http_listen", "socket address"]),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = Settings::read(&path).unwrap_err().to_string();
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        }
        assert!(Settings::read(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn a_value_out_of_range_is_named() {
        let out = |settings: Settings| settings.resolve().unwrap_err().to_string();
        assert!(
            out(Settings { shards: Some(0), ..Settings::default() })
                .starts_with("setting `shards` is 0; accepted: 1 to")
        );
        assert!(out(Settings { rooms_max: Some(30_001), ..Settings::default() }).contains("1 to 30000"));
        assert!(
            out(Settings { tick_share_percent: Some(0), ..Settings::default() }).contains("is 0; accepted: 1 to 100")
        );
        assert!(out(Settings { overruns_max: Some(0), ..Settings::default() }).contains("overruns_max"));
        assert!(out(Settings { memory_reserve_mib: Some(u32::MAX), ..Settings::default() }).contains("0 to 1048576"));
        assert!(out(Settings { linger_s: Some(86_401), ..Settings::default() }).contains("linger_s"));
        let few = Settings { outbox_events_max: Some(999), ..Settings::default() };
        assert!(out(few).starts_with("setting `outbox_events_max` is 999; accepted: 1000 to"));
        let small = Settings { outbox_bytes_max: Some(1 << 20), ..Settings::default() };
        assert!(out(small).starts_with("setting `outbox_bytes_max` is 1048576; accepted: 2097152 to"));
        assert!(out(Settings { drain_wait_s: Some(86_401), ..Settings::default() }).contains("drain_wait_s"));
        assert!(out(Settings { journal_days: Some(3_661), ..Settings::default() }).contains("0 to 3660"));
        let few = Settings { journal_bytes_max: Some(1_000), ..Settings::default() };
        assert!(out(few).starts_with("setting `journal_bytes_max` is 1000; accepted: 1048576 to"));
    }
}
