//! Asks every part of the host for its figures and puts them together: for a page of `/metrics`, for one room, for all modules.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use holeshot_abi::MEMORY_BYTES_MAX;
use serde::Serialize;
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

use super::ShardFigures;
use super::budget::{Costs, Counts, ModuleFigures, RoomFigures};
use super::distribution::{Distribution, Quantiles};
use super::page::{Labels, Page};
use super::process::Process;
use crate::clock::{Clock, unix_ms};
use crate::doors::gate::{Gate, Limit};
use crate::doors::records::StreamFigures;
use crate::events::Events;
use crate::limits::drops::dropped;
use crate::manager::{ManagerFigures, ManagerStats};
use crate::rooms::{LiveRoom, Rooms};
use crate::rules::{Engine, ModuleHash};
use crate::shard::Command;

/// Rooms with figures of their own on a page, those that have been open longest: 16 samples each. Every room that ever was there is a
/// time series that a Prometheus keeps for weeks, so a host with thousands shows some and counts the rest; the API tells of any.
pub const ROOMS_ON_PAGE_MAX: usize = 100;
/// How long a page counts, in microseconds: whoever asks more often gets the same page, so that nobody loads a shard by asking.
pub const PAGE_EVERY_US: u64 = 500_000;
/// How long a shard may take to answer, in milliseconds. It looks every 10 ms at the latest; one that is stuck must not hold a request up.
const SHARD_WAIT_MAX_MS: u64 = 2_000;
/// Hexadecimal digits of a module's hash in a label: enough to tell modules apart, short enough to read.
const HASH_DIGITS: usize = 12;

const NS_PER_S: f64 = 1e9;
const US_PER_S: f64 = 1e6;

/// Figures of a host.
#[derive(Debug)]
pub struct Metrics {
    rooms: Arc<Rooms>,
    engine: Engine,
    /// Weak: who asks for figures must not keep the events from ending.
    events: Weak<Events>,
    /// None where another process keeps the records: it has these figures.
    manager: Option<ManagerFigures>,
    /// The sockets for datagrams, in the system's tables.
    udp_inodes: Vec<u64>,
    clock: Clock,
    started_unix_ms: u64,
    last: Mutex<Option<(u64, Arc<str>)>>,
}

/// What the doors know of connections.
#[derive(Debug, Clone)]
pub struct Sockets {
    /// WebSockets open now.
    pub open: usize,
    /// WebSockets that may be open.
    pub max: u32,
    /// Who decides who comes in.
    pub gate: Arc<Gate>,
    /// Until when the certificate is valid, in seconds since 1970; none without TLS.
    pub certificate_until_s: Option<u64>,
    /// Streams of recorded events.
    pub streams: StreamFigures,
}

/// What the rules of a room or module cost, for people.
#[derive(Debug, Clone, Serialize)]
pub struct Budget {
    /// What happened since the room was opened or the module was first used.
    #[serde(flatten)]
    counts: Counts,
    /// Fuel of a tick.
    fuel: Quantiles,
    /// Fuel that a tick may use; at more it is an overrun.
    fuel_max: u64,
    /// Time of a tick, in microseconds.
    time_us: MicrosQuantiles,
    /// Memory of the rules, in bytes; of a module: in all its rooms.
    memory_bytes: u64,
    /// Memory that the rules of one room may have, in bytes.
    memory_bytes_max: u64,
}

/// [`Quantiles`] of nanoseconds, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
struct MicrosQuantiles {
    p50: f64,
    p99: f64,
    max: f64,
}

/// A module's hash, its budget, and the rooms that it runs.
#[derive(Debug, Clone, Serialize)]
pub struct ModuleBudget {
    /// The module's hash, hex.
    #[serde(skip)]
    pub hash: String,
    /// Rooms that run it now.
    rooms: u64,
    #[serde(flatten)]
    budget: Budget,
}

impl Budget {
    fn new(costs: &Costs, memory_bytes: u64, fuel_max: u64) -> Self {
        let Quantiles { p50, p99, max } = costs.time_ns.quantiles();
        let us = |ns: u64| ns as f64 / 1_000.0;
        Self {
            counts: costs.counts,
            fuel: costs.fuel.quantiles(),
            fuel_max,
            time_us: MicrosQuantiles { p50: us(p50), p99: us(p99), max: us(max) },
            memory_bytes,
            memory_bytes_max: MEMORY_BYTES_MAX as u64,
        }
    }
}

/// What a shard counted since it began, with its times in steps of 6 %: the difference of two is what came in between, to every quantile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShardTimes {
    shard: usize,
    rooms: usize,
    sessions: usize,
    /// Processor time of its thread, in nanoseconds; none where the system does not say.
    cpu_ns: Option<u64>,
    /// Frames of all rooms.
    ticks: u64,
    ticks_lost: u64,
    /// Players of frames whose input was there; was lost or late; never came.
    inputs_fresh: u64,
    inputs_repeated: u64,
    inputs_absent: u64,
    datagrams_received: u64,
    received_bytes: u64,
    datagrams_sent: u64,
    sent_bytes: u64,
    /// How late steps with frames came: the greatest microseconds of a step of the scale, and how many.
    lateness_us: Vec<(u64, u64)>,
    /// How long they took.
    step_us: Vec<(u64, u64)>,
}

/// A page that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the figures cannot be written as text: {reason}")]
pub struct PageError {
    /// How.
    reason: String,
}

impl Metrics {
    /// The figures of a host with these parts.
    #[must_use]
    pub fn new(
        rooms: Arc<Rooms>,
        engine: Engine,
        events: Weak<Events>,
        manager: Option<ManagerFigures>,
        udp_inodes: Vec<u64>,
        clock: Clock,
    ) -> Self {
        Self { rooms, engine, events, manager, udp_inodes, clock, started_unix_ms: unix_ms(), last: Mutex::default() }
    }

    /// The budget of an open room; none if it has closed.
    pub async fn room(&self, live: &LiveRoom) -> Option<Budget> {
        let figures = self.ask(live.shard, vec![live.id.clone()]).await?;
        let (_, RoomFigures { costs, memory_bytes, tick_hz }) = figures.of_rooms.into_iter().next()?;
        Some(Budget::new(&costs, memory_bytes, self.engine.settings().tick_fuel(tick_hz)))
    }

    /// The budget of every module that rooms have or had.
    pub async fn modules(&self) -> Vec<ModuleBudget> {
        let mut shards = Vec::new();
        for shard in 0..self.rooms.shards().len() {
            shards.extend(self.ask(shard, Vec::new()).await);
        }
        let merged = merged(&shards);
        let budget = |module: ModuleFigures| ModuleBudget {
            hash: ModuleHash::from(module.hash).to_string(),
            rooms: module.rooms,
            budget: Budget::new(&module.costs, module.memory_bytes, self.engine.settings().tick_fuel(module.tick_hz)),
        };
        merged.into_iter().map(budget).collect()
    }

    /// What each shard that answers spends its time on.
    pub async fn shards(&self) -> Vec<ShardTimes> {
        let mut shards = Vec::new();
        for (at, handle) in self.rooms.shards().iter().enumerate() {
            let Some(figures) = self.ask(at, Vec::new()).await else { continue };
            let counters = &handle.counters;
            shards.push(ShardTimes {
                shard: at,
                rooms: figures.rooms,
                sessions: figures.sessions,
                cpu_ns: figures.cpu_ns,
                ticks: read(&counters.ticks),
                ticks_lost: read(&counters.ticks_lost),
                inputs_fresh: read(&counters.inputs_fresh),
                inputs_repeated: read(&counters.inputs_repeated),
                inputs_absent: read(&counters.inputs_absent),
                datagrams_received: read(&counters.datagrams_received),
                received_bytes: read(&counters.bytes_received),
                datagrams_sent: read(&counters.datagrams_sent),
                sent_bytes: read(&counters.bytes_sent),
                lateness_us: figures.lateness_us.steps(),
                step_us: figures.step_us.steps(),
            });
        }
        shards
    }

    async fn ask(&self, shard: usize, rooms: Vec<String>) -> Option<ShardFigures> {
        let handle = self.rooms.shards().get(shard)?;
        let (reply, answer) = oneshot::channel();
        let asked = async {
            if !handle.send(Command::Figures(rooms, reply)).await {
                return None;
            }
            answer.await.ok()
        };
        timeout(Duration::from_millis(SHARD_WAIT_MAX_MS), asked).await.ok()?
    }

    /// The page for Prometheus; up to [`PAGE_EVERY_US`] old.
    ///
    /// # Errors
    /// [`PageError`], which no figure of a host leads to.
    pub async fn page(&self, sockets: Sockets) -> Result<Arc<str>, PageError> {
        // Whoever asks meanwhile waits here and gets the page that is being made.
        let mut last = self.last.lock().await;
        if let Some((made_us, page)) = &*last
            && self.clock.now_us().saturating_sub(*made_us) < PAGE_EVERY_US
        {
            return Ok(Arc::clone(page));
        }
        let text = self.make(sockets).await?;
        let page: Arc<str> = text.into();
        *last = Some((self.clock.now_us(), Arc::clone(&page)));
        Ok(page)
    }

    async fn make(&self, sockets: Sockets) -> Result<String, PageError> {
        let census = self.rooms.census(ROOMS_ON_PAGE_MAX);
        let mut shards = Vec::new();
        for shard in 0..self.rooms.shards().len() {
            let rooms = census.oldest.iter().filter(|live| live.shard == shard).map(|live| live.id.clone()).collect();
            shards.push(self.ask(shard, rooms).await);
        }
        let rooms = Arc::clone(&self.rooms);
        // Files of the system, which take milliseconds on a full host.
        let udp_inodes = self.udp_inodes.clone();
        let read = move || (Process::read(), rooms.memory().available(), dropped(&udp_inodes));
        let (process, available, dropped) = tokio::task::spawn_blocking(read).await.unwrap_or_default();

        let mut page = Page::default();
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        page.info("holeshot_build", "The version of the host.", version);
        self.host_figures(&mut page, &census, sockets, available.map(|seen| seen.bytes));
        self.shard_figures(&mut page, &shards);
        let dropped = (0..).zip(dropped.unwrap_or_default());
        page.counter(
            "holeshot_udp_datagrams_dropped",
            "Datagrams that the system dropped because the host did not read them in time.",
            dropped.map(|(socket, datagrams): (usize, u64)| (label("socket", &socket.to_string()), datagrams)),
        );
        let answered: Vec<_> = shards.into_iter().flatten().collect();
        module_figures(&mut page, &merged(&answered), |tick_hz| self.engine.settings().tick_fuel(tick_hz));
        room_figures(&mut page, &census.oldest, answered);
        self.event_figures(&mut page);
        process_figures(&mut page, process.unwrap_or_default(), self.started_unix_ms);
        page.text().map_err(|error| PageError { reason: error.to_string() })
    }

    fn host_figures(
        &self,
        page: &mut Page,
        census: &crate::rooms::Census,
        sockets: Sockets,
        memory_available: Option<u64>,
    ) {
        let phases = census.phases.iter().map(|(phase, rooms)| (label("phase", phase.as_str()), *rooms));
        page.gauge("holeshot_rooms", "Open rooms by phase.", phases);
        page.gauge(
            "holeshot_rooms_limit",
            "Most open rooms, by the setting rooms_max.",
            one(self.rooms.rooms_max().into()),
        );
        let open: u64 = census.phases.iter().map(|(_, rooms)| rooms).sum();
        let left_out = open.saturating_sub(census.oldest.len() as u64);
        page.gauge("holeshot_rooms_left_out", "Open rooms without samples of their own on this page.", one(left_out));
        let counters = self.rooms.counters();
        page.counter("holeshot_rooms_opened", "Rooms opened.", one(read(&counters.opened)));
        let refused = [("full", &counters.refused_full), ("memory", &counters.refused_memory)];
        let refused = refused.map(|(reason, counter)| (label("reason", reason), read(counter)));
        page.counter("holeshot_rooms_refused", "Rooms not opened because of a limit of the host.", refused);
        page.gauge("holeshot_instances", "Instances of rules in the pool.", one(self.engine.instances()));
        let instances_max = self.engine.settings().instances().into();
        page.gauge("holeshot_instances_limit", "Places in the pool: rooms and spare ones.", one(instances_max));
        page.gauge("holeshot_websockets", "WebSockets open.", one(sockets.open as u64));
        page.gauge("holeshot_websockets_limit", "Most WebSockets open.", one(sockets.max.into()));
        door_figures(page, &sockets);
        let streams = sockets.streams;
        page.gauge("holeshot_streams", "Streams of recorded events open.", one(streams.open));
        page.gauge("holeshot_streams_limit", "Most streams, by the setting streams_max.", one(streams.max));
        page.counter("holeshot_streams_opened", "Streams of recorded events opened.", one(streams.opened));
        page.counter("holeshot_streams_refused", "Streams refused: as many were open as may be.", one(streams.refused));
        page.counter("holeshot_streams_slow", "Streams ended: their clients did not read.", one(streams.slow));
        let available = memory_available.map(|bytes| (Labels::new(), bytes));
        page.bytes("holeshot_memory_available", "Memory left to the host by the strictest bound.", available);
        let reserve = self.rooms.memory().reserve_bytes();
        page.bytes("holeshot_memory_reserve", "Memory below which no room opens.", one(reserve));
    }

    fn shard_figures(&self, page: &mut Page, shards: &[Option<ShardFigures>]) {
        let of_each = |figure: &dyn Fn(&ShardFigures) -> u64| -> Vec<_> {
            let answered = shards.iter().enumerate().filter_map(|(at, shard)| Some((at, shard.as_ref()?)));
            answered.map(|(at, shard)| (shard_label(at), figure(shard))).collect()
        };
        let up = shards.iter().enumerate().map(|(at, shard)| (shard_label(at), u64::from(shard.is_some())));
        page.gauge("holeshot_shard_up", "Whether the shard answers.", up);
        page.gauge("holeshot_shard_rooms", "Open rooms.", of_each(&|shard| shard.rooms as u64));
        page.gauge(
            "holeshot_shard_sessions",
            "Sessions of players and spectators.",
            of_each(&|shard| shard.sessions as u64),
        );
        let left_out = of_each(&|shard| shard.modules_left_out);
        page.counter("holeshot_shard_modules_left_out", "Times a room had a module without figures.", left_out);
        let cpu = shards.iter().enumerate().filter_map(|(at, shard)| Some((shard_label(at), shard.as_ref()?.cpu_ns?)));
        let cpu = cpu.map(|(label, ns)| (label, ns as f64 / NS_PER_S));
        page.seconds_counter("holeshot_shard_cpu", "Processor time of the shard's thread.", cpu);
        let handles = self.rooms.shards();
        let mut counter = |name, help, figure: fn(&crate::shard::ShardCounters) -> &AtomicU64| {
            let samples =
                handles.iter().enumerate().map(|(at, shard)| (shard_label(at), read(figure(&shard.counters))));
            page.counter(name, help, samples);
        };
        counter("holeshot_shard_passes", "Times the shard looked at its queues and its socket.", |c| &c.passes);
        counter("holeshot_shard_sleeps", "Times the shard slept after that.", |c| &c.sleeps);
        counter("holeshot_shard_commands", "Commands obeyed.", |c| &c.commands);
        counter("holeshot_shard_sessions_opened", "Sessions opened.", |c| &c.sessions_opened);
        counter("holeshot_shard_inputs", "Inputs handed to rooms, with the copies.", |c| &c.inputs);
        counter("holeshot_shard_snapshots", "Snapshots sent to players and spectators.", |c| &c.snapshots);
        counter("holeshot_shard_snapshots_delta", "Of the snapshots, those sent as deltas.", |c| &c.snapshots_delta);
        counter("holeshot_shard_datagrams_handed_over", "Datagrams for other shards.", |c| &c.datagrams_handed_over);
        counter("holeshot_shard_public_events", "Public events that rooms told.", |c| &c.public_events);
        counter("holeshot_shard_internal_events", "Events put into the outbox.", |c| &c.internal_events);
        counter("holeshot_shard_datagrams_received", "Datagrams received.", |c| &c.datagrams_received);
        counter("holeshot_shard_datagrams_refused", "Datagrams of no session, or that did not open.", |c| {
            &c.datagrams_refused
        });
        counter("holeshot_shard_datagrams_sent", "Datagrams sent.", |c| &c.datagrams_sent);
        counter("holeshot_shard_datagrams_unsent", "Datagrams that the system did not take.", |c| &c.datagrams_unsent);
        counter("holeshot_shard_messages_unsent", "Messages a slow WebSocket had no place for.", |c| {
            &c.messages_unsent
        });
        counter("holeshot_shard_ticks", "Frames of all rooms.", |c| &c.ticks);
        counter("holeshot_shard_inputs_fresh", "Players of frames whose input was there.", |c| &c.inputs_fresh);
        counter("holeshot_shard_inputs_repeated", "Players of frames whose last input was repeated.", |c| {
            &c.inputs_repeated
        });
        counter("holeshot_shard_inputs_absent", "Players of frames of whom no input ever came.", |c| &c.inputs_absent);
        counter("holeshot_shard_ticks_lost", "Frames never made up for: the shard came too late.", |c| &c.ticks_lost);
        counter("holeshot_shard_rules_faults", "Rooms that ended because their rules failed.", |c| &c.rules_faults);
        let bytes = |figure: fn(&crate::shard::ShardCounters) -> &AtomicU64| {
            handles.iter().enumerate().map(move |(at, shard)| (shard_label(at), read(figure(&shard.counters))))
        };
        let busy = bytes(|c| &c.busy_us).map(|(label, us)| (label, us as f64 / US_PER_S));
        page.seconds_counter("holeshot_shard_busy", "Time in which the shard did not sleep.", busy);
        page.gauge("holeshot_shard_shed_level", "How much the shard leaves out, 0 to 5.", bytes(|c| &c.shed_level));
        let shed = handles.iter().enumerate().flat_map(|(at, shard)| {
            let counters = &shard.counters;
            let of =
                [("spectators", &counters.snapshots_shed_spectators), ("players", &counters.snapshots_shed_players)];
            of.map(|(of, counter)| ([shard_label(at), label("of", of)].concat(), read(counter)))
        });
        page.counter("holeshot_shard_snapshots_shed", "Snapshots left out because the shard overran.", shed);
        page.bytes_counter("holeshot_shard_received", "Bytes of datagrams received.", bytes(|c| &c.bytes_received));
        page.bytes_counter("holeshot_shard_sent", "Bytes of datagrams sent.", bytes(|c| &c.bytes_sent));
        page.bytes_counter(
            "holeshot_shard_snapshots_whole",
            "Bytes of snapshots sent whole, headers and seals aside.",
            bytes(|c| &c.snapshot_bytes_whole),
        );
        page.bytes_counter(
            "holeshot_shard_snapshots_delta",
            "Bytes of deltas, headers and seals aside.",
            bytes(|c| &c.snapshot_bytes_delta),
        );
        page.bytes_counter(
            "holeshot_shard_snapshots_saved",
            "Bytes that the snapshots sent as deltas have more than these.",
            bytes(|c| &c.snapshot_bytes_saved),
        );
        let answered = || shards.iter().enumerate().filter_map(|(at, shard)| Some((at, shard.as_ref()?)));
        page.times(
            "holeshot_shard_lateness",
            "How late steps with frames came.",
            US_PER_S,
            answered().map(|(at, shard)| (shard_label(at), &shard.lateness_us)),
        );
        let quantiles =
            answered().flat_map(|(at, shard)| seconds_quantiles(&shard_label(at), &shard.lateness_us, US_PER_S));
        page.seconds("holeshot_shard_lateness_quantile", "How late steps with frames came.", quantiles);
        page.times(
            "holeshot_shard_step",
            "How long steps with frames took, with all that left their rooms.",
            US_PER_S,
            answered().map(|(at, shard)| (shard_label(at), &shard.step_us)),
        );
        let quantiles =
            answered().flat_map(|(at, shard)| seconds_quantiles(&shard_label(at), &shard.step_us, US_PER_S));
        page.seconds("holeshot_shard_step_quantile", "How long steps with frames took.", quantiles);
    }

    fn event_figures(&self, page: &mut Page) {
        // None while the host ends.
        let events = self.events.upgrade().map(|events| events.stats()).unwrap_or_default();
        page.gauge("holeshot_events_queued", "Events without a receipt of the manager.", one(events.queued));
        page.gauge(
            "holeshot_events_queued_limit",
            "The setting outbox_events_max; events of the rules have half of it.",
            one(events.queued_max),
        );
        page.bytes("holeshot_events_outbox", "Topics and payloads in the outbox.", one(events.outbox_bytes));
        page.bytes(
            "holeshot_events_outbox_limit",
            "The setting outbox_bytes_max; events of the rules have half of it.",
            one(events.outbox_bytes_max),
        );
        let now_us = unix_ms().saturating_mul(1_000);
        let age_s = events.oldest_unix_us.map_or(0.0, |at| now_us.saturating_sub(at) as f64 / US_PER_S);
        page.seconds(
            "holeshot_events_oldest_age",
            "How long ago the oldest event without a receipt happened.",
            [(Labels::new(), age_s)],
        );
        page.counter("holeshot_events_published", "Acknowledgements by the broker.", one(events.published));
        page.counter(
            "holeshot_events_refused_by_broker",
            "Events that the broker acknowledged with a refusal; they are sent again.",
            one(events.refused_by_broker),
        );
        page.counter("holeshot_events_stored", "Receipts by the manager.", one(events.stored));
        let refused = [("rules", events.refused_rules), ("host", events.refused_host)];
        let refused = refused.map(|(class, events)| (label("class", class), events));
        page.counter("holeshot_events_refused", "Events refused because of a bound.", refused);
        page.counter("holeshot_events_lost", "Events that the disk did not take.", one(events.lost));
        page.gauge(
            "holeshot_events_set_aside",
            "Damaged events that are kept in the outbox's table set_aside and not recorded.",
            one(events.set_aside),
        );
        page.counter(
            "holeshot_events_reconnects",
            "Connections to the broker after the first.",
            one(events.reconnects),
        );
        page.gauge(
            "holeshot_events_connected",
            "Whether there is a connection to the broker.",
            one(events.connected.into()),
        );
        if let Some(manager) = &self.manager {
            manager_figures(page, manager.stats());
        }
    }
}

/// The page of a manager in a process of its own.
///
/// # Errors
/// [`PageError`], which no figure of a manager leads to.
pub async fn manager_page(manager: &ManagerFigures, started_unix_ms: u64) -> Result<String, PageError> {
    let process = tokio::task::spawn_blocking(Process::read).await.ok().flatten();
    let mut page = Page::default();
    page.info("holeshot_build", "The version of the host.", vec![("version", env!("CARGO_PKG_VERSION").to_owned())]);
    manager_figures(&mut page, manager.stats());
    process_figures(&mut page, process.unwrap_or_default(), started_unix_ms);
    page.text().map_err(|error| PageError { reason: error.to_string() })
}

/// What a manager counts, in whichever process it is.
fn manager_figures(page: &mut Page, manager: ManagerStats) {
    page.counter("holeshot_manager_received", "Messages that arrived at the manager.", one(manager.received));
    page.counter("holeshot_manager_stored", "New events committed.", one(manager.stored));
    page.counter("holeshot_manager_duplicates", "Events that were known.", one(manager.duplicates));
    page.counter("holeshot_manager_rejected", "Messages that could not be used.", one(manager.rejected));
    page.counter("holeshot_manager_overflowed", "Messages that were one too many.", one(manager.overflowed));
    page.counter("holeshot_manager_batches", "Transactions.", one(manager.batches));
    let deleted = [("events", manager.deleted_events), ("rooms", manager.deleted_rooms)];
    let deleted = deleted.map(|(what, count)| (label("what", what), count));
    page.counter("holeshot_manager_deleted", "Events and rooms deleted because of their age.", deleted);
    page.seconds(
        "holeshot_manager_chore_longest",
        "The longest that recording waited for a step of deleting.",
        [(Labels::new(), manager.chore_longest_us as f64 / US_PER_S)],
    );
    page.gauge("holeshot_manager_subscribed", "Whether the manager hears the broker.", one(manager.subscribed.into()));
}

fn door_figures(page: &mut Page, sockets: &Sockets) {
    let gate = &sockets.gate;
    page.gauge("holeshot_websockets_half_open", "WebSockets without a valid hello.", one(gate.half_open()));
    page.gauge("holeshot_addresses", "Addresses that are known.", one(gate.addresses() as u64));
    page.counter("holeshot_addresses_left_out", "Times an address found no place among them.", one(gate.unknown()));
    let refused = Limit::ALL.iter().map(|limit| (label("limit", limit.name()), gate.refused().get(*limit)));
    page.counter("holeshot_limit_refused", "Times a limit of the doors held.", refused);
    let limits = Limit::ALL.iter().map(|limit| (label("limit", limit.name()), gate.limits().get(*limit)));
    page.gauge("holeshot_limit", "The limits of the doors as they are set.", limits);
    let handshakes = gate.tls_handshakes();
    let handshakes = [("done", &handshakes.done), ("failed", &handshakes.failed)];
    let handshakes = handshakes.map(|(outcome, counter)| (label("outcome", outcome), read(counter)));
    page.counter("holeshot_tls_handshakes", "TLS handshakes of clients.", handshakes);
    let until = [(Labels::new(), sockets.certificate_until_s.unwrap_or_default() as f64)];
    page.seconds("holeshot_tls_certificate_end", "When the certificate expires, since 1970.", until);
}

fn module_figures(page: &mut Page, modules: &[ModuleFigures], fuel_max: impl Fn(u32) -> u64) {
    let named = |module: &ModuleFigures| {
        let hash = ModuleHash::from(module.hash).to_string();
        let short = hash.get(..HASH_DIGITS).unwrap_or_default().to_owned();
        vec![("module", module.name.to_string()), ("hash", short)]
    };
    let of_each = |figure: &dyn Fn(&ModuleFigures) -> u64| -> Vec<_> {
        modules.iter().map(|module| (named(module), figure(module))).collect()
    };
    page.gauge("holeshot_module_rooms", "Rooms that run the module.", of_each(&|module| module.rooms));
    let memory = of_each(&|module| module.memory_bytes);
    page.bytes("holeshot_module_memory", "Memory of the module in its rooms.", memory);
    let memory_max = of_each(&|module| module.memory_bytes_max);
    page.bytes("holeshot_module_memory_max", "Most memory that one of its rooms ever had.", memory_max);
    page.counter(
        "holeshot_module_ticks",
        "Frames that the module stepped.",
        of_each(&|module| module.costs.counts.ticks),
    );
    page.counter("holeshot_module_fuel", "Fuel that its ticks used.", of_each(&|module| module.costs.fuel.sum()));
    let fuel_max = of_each(&|module| fuel_max(module.tick_hz));
    page.gauge("holeshot_module_tick_fuel_limit", "Fuel that a tick may use.", fuel_max);
    let fuel = modules.iter().flat_map(|module| fuel_quantiles(&named(module), &module.costs.fuel));
    page.gauge("holeshot_module_tick_fuel", "Fuel of a tick since the module was first used.", fuel);
    let times = modules.iter().map(|module| (named(module), &module.costs.time_ns));
    page.times("holeshot_module_tick", "Time of a tick.", NS_PER_S, times);
    let times = modules.iter().flat_map(|module| seconds_quantiles(&named(module), &module.costs.time_ns, NS_PER_S));
    page.seconds("holeshot_module_tick_quantile", "Time of a tick since the module was first used.", times);
    page.counter(
        "holeshot_module_overruns",
        "Frames skipped: the rules took too long.",
        of_each(&|m| m.costs.counts.overruns),
    );
    page.counter("holeshot_module_faults", "Times the module failed.", of_each(&|m| m.costs.counts.faults));
    page.counter("holeshot_module_retries", "Faults that did not come again.", of_each(&|m| m.costs.counts.retries));
    page.counter(
        "holeshot_module_rollbacks",
        "Times the module failed on probation.",
        of_each(&|m| m.costs.counts.rollbacks),
    );
    page.counter("holeshot_module_swaps", "Times the module took over in a room.", of_each(&|m| m.costs.counts.swaps));
}

fn room_figures(page: &mut Page, oldest: &[Arc<LiveRoom>], shards: Vec<ShardFigures>) {
    let mut rooms: Vec<_> = shards.into_iter().flat_map(|shard| shard.of_rooms).collect();
    // As they were opened, whatever their shards: a page is read by people too.
    rooms.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let module = |id: &str| oldest.iter().find(|live| live.id == id).map(|live| live.module.clone());
    let named: Vec<(Labels, RoomFigures)> = rooms
        .into_iter()
        .map(|(id, figures)| {
            let module = module(&id).unwrap_or_default();
            (vec![("room", id), ("module", module)], figures)
        })
        .collect();
    let of_each = |figure: &dyn Fn(&RoomFigures) -> u64| -> Vec<_> {
        named.iter().map(|(labels, room)| (labels.clone(), figure(room))).collect()
    };
    page.bytes("holeshot_room_memory", "Memory of the room's rules.", of_each(&|room| room.memory_bytes));
    page.counter("holeshot_room_ticks", "Frames that the rules stepped.", of_each(&|room| room.costs.counts.ticks));
    page.counter("holeshot_room_fuel", "Fuel that the room's ticks used.", of_each(&|room| room.costs.fuel.sum()));
    let times =
        of_each(&|room| room.costs.time_ns.sum()).into_iter().map(|(labels, ns)| (labels, ns as f64 / NS_PER_S));
    page.seconds_counter("holeshot_room_tick", "Time that the room's ticks took.", times);
    let fuel = named.iter().flat_map(|(labels, room)| fuel_quantiles(labels, &room.costs.fuel));
    page.gauge("holeshot_room_tick_fuel", "Fuel of a tick since the room was opened.", fuel);
    let times = named.iter().flat_map(|(labels, room)| seconds_quantiles(labels, &room.costs.time_ns, NS_PER_S));
    page.seconds("holeshot_room_tick_quantile", "Time of a tick since the room was opened.", times);
    page.counter(
        "holeshot_room_overruns",
        "Frames skipped: the rules took too long.",
        of_each(&|r| r.costs.counts.overruns),
    );
    page.counter("holeshot_room_faults", "Times the room's rules failed.", of_each(&|r| r.costs.counts.faults));
    page.counter("holeshot_room_retries", "Faults that did not come again.", of_each(&|r| r.costs.counts.retries));
    page.counter(
        "holeshot_room_rollbacks",
        "Times new rules failed on probation.",
        of_each(&|r| r.costs.counts.rollbacks),
    );
    page.counter("holeshot_room_swaps", "Times the room's rules were replaced.", of_each(&|r| r.costs.counts.swaps));
}

fn process_figures(page: &mut Page, process: Process, started_unix_ms: u64) {
    page.bytes("process_resident_memory", "Memory of the process that is in RAM.", one(process.resident_bytes));
    page.bytes("process_virtual_memory", "Addresses that the process has.", one(process.virtual_bytes));
    page.gauge("process_threads", "Threads.", one(process.threads));
    page.gauge("process_open_fds", "Open files, sockets included.", one(process.open_files));
    let files_max = process.open_files_max.map(|files| (Labels::new(), files));
    page.gauge("process_max_fds", "Most open files.", files_max);
    page.seconds_counter("process_cpu", "Processor time.", [(Labels::new(), process.cpu_s())]);
    let started_s = started_unix_ms as f64 / 1_000.0;
    page.seconds("process_start_time", "When the host started, since 1970.", [(Labels::new(), started_s)]);
}

/// The same module's figures of all shards in one, by name and hash.
fn merged(shards: &[ShardFigures]) -> Vec<ModuleFigures> {
    let mut merged: Vec<ModuleFigures> = Vec::new();
    for module in shards.iter().flat_map(|shard| &shard.modules) {
        match merged.iter_mut().find(|known| known.hash == module.hash) {
            Some(known) => known.add(module),
            None => merged.push(module.clone()),
        }
    }
    merged.sort_unstable_by(|a, b| (&a.name, a.hash).cmp(&(&b.name, b.hash)));
    merged
}

/// The quantiles of a distribution as samples: 0.5, 0.99, and 1, which is the greatest value.
fn fuel_quantiles(labels: &Labels, distribution: &Distribution) -> [(Labels, u64); 3] {
    let Quantiles { p50, p99, max } = distribution.quantiles();
    [("0.5", p50), ("0.99", p99), ("1", max)].map(|(quantile, value)| {
        let mut labels = labels.clone();
        labels.push(("quantile", quantile.to_owned()));
        (labels, value)
    })
}

fn seconds_quantiles(labels: &Labels, distribution: &Distribution, per_second: f64) -> [(Labels, f64); 3] {
    fuel_quantiles(labels, distribution).map(|(labels, value)| (labels, value as f64 / per_second))
}

fn label(name: &'static str, value: &str) -> Labels {
    vec![(name, value.to_owned())]
}

fn shard_label(shard: usize) -> Labels {
    vec![("shard", shard.to_string())]
}

fn one(value: u64) -> [(Labels, u64); 1] {
    [(Labels::new(), value)]
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
