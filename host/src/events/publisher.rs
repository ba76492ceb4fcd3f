//! Sends the outbox to the broker and takes the manager's receipts: go-back-N with a window. The broker's
//! acknowledgement (PUBACK) only opens the window; an event leaves the outbox when the manager says that it is
//! committed there, because a broker that restarts, or whose queue for a slow subscriber is full, loses messages
//! that it acknowledged.
//!
//! Sending starts again at the oldest event without a receipt ("rewind")
//! - on every new connection,
//! - when the manager is new to the broker (what was sent before reached nobody) or sees a gap, the latter at most twice
//!   a second,
//! - when everything that may be sent is acknowledged and no receipt came for a while: 1 s, then twice that, up to 30 s, and then only a
//!   window's worth, so that a host without a manager does not repeat itself to other subscribers for ever.
//!
//! Only so many events are sent beyond the last receipt ([`UNRECORDED_MAX`]) that a broker can keep them for a manager that is slower
//! than its hosts: a host's own outbox is the queue that loses nothing.
//!
//! With every rewind the host says which sequences it no longer has, so that a manager with a new file does not wait
//! for them. Two connections: one for the outbox alone, since its acknowledgements are counted; one for presence,
//! receipts and these notes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::damaged::{Damage, ReadError};
use super::link::{Content, Link, LinkConfig, LinkEvent, LinkHandle, Refused, Will};
use super::outbox::{OutboxReader, OutboxRow, OutboxSink, Wake};
use super::{BrokerAccess, EventsError, cloudevent, topics};

/// QoS 1 messages that may be unacknowledged. rumqttc numbers its packets up to this.
const WINDOW: u16 = 100;

/// Events that may be sent beyond the last receipt. A mosquitto with its default settings keeps 1,000 for a manager that is slower than
/// the host, and drops what is more although it has acknowledged it: then everything is sent again, and the slow manager has yet more to read.
const UNRECORDED_MAX: i64 = 1_000;

/// Events read from the outbox at a time: some windows, so that a full window is not a read of one row.
const READ_MAX_EVENTS: usize = 500;

/// Least time between two rewinds because of a gap.
const GAP_REWIND_EVERY: Duration = Duration::from_millis(500);

/// Least time without a receipt before everything is sent again.
const STALL_MIN: Duration = Duration::from_secs(1);

/// Longest time without a receipt before a window's worth is sent again.
const STALL_MAX: Duration = Duration::from_secs(30);

/// Stalls in a row after which the log says so, and again whenever they have doubled: the fourth comes after 15 s.
const STALLS_TOLD: u32 = 4;

/// A broker that acknowledges nothing for so long gets a new connection.
const ACK_MAX: Duration = Duration::from_secs(15);

/// Longest sleep of the sending thread; it is woken for everything but the passing of time.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// How long the farewell (status "offline", DISCONNECT) may take.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// Presence of a host, retained on `holeshot/v1/{host}/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `online` or `offline`.
    pub state: String,
    /// One start of the program. A last will of an earlier start has another.
    pub boot: String,
    /// Since when it is online, RFC 3339; absent when offline.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since: Option<String>,
    /// Version of the program; absent when offline.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
}

/// What the manager says on `holeshot/v1/{host}/stored`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Receipt {
    /// Everything of `origin` up to and with `stored` is committed. `gap`: later events arrived, but not the next.
    Stored { origin: String, stored: u64, gap: bool },
    /// The manager has a new session at the broker: what was published before did not reach it.
    Ready { ready: bool },
}

/// What a host says on `holeshot/v1/{host}/outbox`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Floors {
    pub(crate) origins: Vec<Floor>,
}

/// Of `origin` nothing up to and with `floor` will be sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Floor {
    pub(crate) origin: String,
    pub(crate) floor: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rewind {
    No,
    /// When the last one is long enough ago.
    Gap,
    Now,
}

/// Where the sending stands. Changed by the links' tasks and the sending thread.
#[derive(Debug)]
struct Flow {
    epoch: Option<u64>,
    in_flight: u16,
    cursor: i64,
    /// Everything up to here has its receipt.
    base: i64,
    /// After a stall: how many more may be sent before a receipt comes.
    probe: Option<u16>,
    rewind: Rewind,
    rewound: Option<Instant>,
    /// Last acknowledgement, receipt or rewind, or the first event sent while none was unacknowledged.
    active: Instant,
    stall: Duration,
    /// Rewinds in a row for want of receipts.
    stalls: u32,
    published: u64,
    refused: u64,
    reconnects: u64,
    stop: bool,
}

/// What the sending thread does next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Stop,
    Rewind,
    Send { epoch: u64, room: u16, cursor: i64 },
    Kick,
    Wait(Duration),
}

impl Flow {
    fn new(now: Instant) -> Self {
        Self {
            epoch: None,
            in_flight: 0,
            cursor: 0,
            base: 0,
            probe: None,
            rewind: Rewind::No,
            rewound: None,
            active: now,
            stall: STALL_MIN,
            stalls: 0,
            published: 0,
            refused: 0,
            reconnects: 0,
            stop: false,
        }
    }

    fn connected(&mut self, epoch: u64, now: Instant) {
        self.epoch = Some(epoch);
        self.reconnects = epoch.saturating_sub(1);
        self.in_flight = 0;
        self.rewind = Rewind::Now;
        self.active = now;
    }

    fn disconnected(&mut self) {
        self.epoch = None;
        self.in_flight = 0;
    }

    fn acknowledged(&mut self, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.published += 1;
        self.active = now;
    }

    /// The broker took a message only to say that it goes nowhere. More of them would go there, too: there is a pause as after a stall.
    fn refused(&mut self, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.refused += 1;
        self.active = now;
        self.pause();
    }

    /// Nothing is sent until a receipt comes or the time of a stall has passed.
    fn pause(&mut self) {
        self.probe = Some(0);
    }

    /// A receipt came, which says that everything up to `base` is recorded; 0 if it is for an origin that is not in the outbox.
    fn progressed(&mut self, base: i64, now: Instant) {
        self.base = self.base.max(base);
        self.active = now;
        self.stall = STALL_MIN;
        self.stalls = 0;
        self.probe = None;
    }

    fn want(&mut self, rewind: Rewind) {
        if self.rewind != Rewind::Now {
            self.rewind = rewind;
        }
    }

    fn rewind(&mut self, now: Instant) -> Step {
        self.rewind = Rewind::No;
        self.rewound = Some(now);
        self.cursor = 0;
        self.active = now;
        Step::Rewind
    }

    /// Decides. `last` is the position of the last event in the outbox, `left` the number of events in it.
    fn step(&mut self, now: Instant, last: i64, left: u64) -> Step {
        if self.stop {
            return Step::Stop;
        }
        let Some(epoch) = self.epoch else {
            return Step::Wait(IDLE_MAX);
        };
        let since_rewind = self.rewound.map(|then| now.duration_since(then));
        match self.rewind {
            Rewind::Now => return self.rewind(now),
            Rewind::Gap => {
                let rest = since_rewind.map_or(Duration::ZERO, |since| GAP_REWIND_EVERY.saturating_sub(since));
                if rest.is_zero() {
                    return self.rewind(now);
                }
            }
            Rewind::No => {}
        }
        let quiet = now.duration_since(self.active);
        // From the beginning, the next to be sent says where the receipts end.
        let unrecorded = if self.cursor == 0 { 0 } else { self.cursor.saturating_sub(self.base) };
        let may_send = self.cursor < last && self.probe != Some(0) && unrecorded < UNRECORDED_MAX;
        if self.in_flight > 0 && quiet >= ACK_MAX {
            self.active = now;
            return Step::Kick;
        }
        if may_send && self.in_flight < WINDOW {
            let room = (WINDOW - self.in_flight).min(self.probe.unwrap_or(WINDOW));
            let room = room.min(u16::try_from(UNRECORDED_MAX - unrecorded).unwrap_or(WINDOW));
            return Step::Send { epoch, room, cursor: self.cursor };
        }
        if !may_send && self.in_flight == 0 && left > 0 {
            if quiet >= self.stall {
                self.stall = (self.stall * 2).min(STALL_MAX);
                self.probe = Some(WINDOW);
                self.stalls = self.stalls.saturating_add(1);
                if self.stalls >= STALLS_TOLD && self.stalls.is_power_of_two() {
                    tracing::warn!(
                        waiting = left,
                        refused_by_broker = self.refused,
                        "no manager confirms the events: is one running on this broker, and do the broker's rules let this user publish \
                         and the manager subscribe? They stay in the outbox and are sent again"
                    );
                }
                return self.rewind(now);
            }
            return Step::Wait((self.stall - quiet).min(IDLE_MAX));
        }
        Step::Wait(match self.rewind {
            Rewind::Gap => GAP_REWIND_EVERY,
            _ => IDLE_MAX,
        })
    }

    fn sent(&mut self, position: i64, now: Instant) {
        // The wait for an acknowledgement begins here, however long nothing was sent before.
        if self.in_flight == 0 {
            self.active = now;
        }
        self.in_flight += 1;
        self.cursor = position;
        if let Some(probe) = &mut self.probe {
            *probe = probe.saturating_sub(1);
        }
    }
}

/// Counters of the publisher.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PublisherCounters {
    pub(crate) published: u64,
    pub(crate) refused: u64,
    pub(crate) reconnects: u64,
    pub(crate) connected: bool,
}

/// The sending side of the events. Dropping it cuts both connections without a farewell.
pub(crate) struct Publisher {
    flow: Arc<Mutex<Flow>>,
    wake: Arc<Wake>,
    thread: Option<JoinHandle<()>>,
    outbox_link: Option<Link>,
    control: Option<Link>,
    /// QoS 1 messages of the control link that wait for their acknowledgement.
    control_unacked: watch::Sender<usize>,
    host: String,
    boot: String,
}

fn lock(flow: &Mutex<Flow>) -> MutexGuard<'_, Flow> {
    flow.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Publisher {
    /// Starts both connections and the sending thread. Must be called within a tokio runtime.
    pub(crate) fn start(
        host: &str,
        boot: String,
        access: &BrokerAccess,
        reader: OutboxReader,
        sink: OutboxSink,
        wake: Arc<Wake>,
    ) -> Result<Self, EventsError> {
        let flow = Arc::new(Mutex::new(Flow::new(Instant::now())));
        let control_unacked = watch::Sender::new(0);
        let control = Link::start(
            LinkConfig {
                client_id: format!("holeshot-{host}-control"),
                access: access.clone(),
                keep_session: false,
                manual_acks: false,
                window: WINDOW,
                will: Some(Will { topic: topics::status(host), payload: status(&boot, None) }),
            },
            |handle| {
                Control {
                    handle,
                    host: host.to_owned(),
                    boot: boot.clone(),
                    since: SystemTime::now(),
                    flow: Arc::clone(&flow),
                    wake: Arc::clone(&wake),
                    sink,
                    unacked: control_unacked.clone(),
                }
                .reaction()
            },
        );
        let outbox_link = Link::start(
            LinkConfig {
                client_id: format!("holeshot-{host}-outbox"),
                access: access.clone(),
                keep_session: false,
                manual_acks: false,
                window: WINDOW,
                will: None,
            },
            |_| {
                let (flow, wake) = (Arc::clone(&flow), Arc::clone(&wake));
                move |event| {
                    let now = Instant::now();
                    match event {
                        LinkEvent::Connected { epoch, .. } => lock(&flow).connected(epoch, now),
                        LinkEvent::Disconnected => lock(&flow).disconnected(),
                        LinkEvent::Published { accepted: true } => lock(&flow).acknowledged(now),
                        LinkEvent::Published { accepted: false } => lock(&flow).refused(now),
                        LinkEvent::Unreachable { .. } | LinkEvent::Subscribed { .. } | LinkEvent::Message(_) => return,
                    }
                    wake.notify();
                }
            },
        );
        let sender = Sender {
            host: host.to_owned(),
            reader,
            flow: Arc::clone(&flow),
            wake: Arc::clone(&wake),
            link: outbox_link.handle().clone(),
            control: control.handle().clone(),
            control_unacked: control_unacked.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("publisher".to_owned())
            .spawn(move || sender.run())
            .map_err(|error| EventsError::System(format!("no thread: {error}")))?;
        Ok(Self {
            flow,
            wake,
            thread: Some(thread),
            outbox_link: Some(outbox_link),
            control: Some(control),
            control_unacked,
            host: host.to_owned(),
            boot,
        })
    }

    pub(crate) fn counters(&self) -> PublisherCounters {
        let flow = lock(&self.flow);
        PublisherCounters {
            published: flow.published,
            refused: flow.refused,
            reconnects: flow.reconnects,
            connected: flow.epoch.is_some(),
        }
    }

    fn halt(&mut self) {
        lock(&self.flow).stop = true;
        self.wake.notify();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the publisher's thread panicked");
        }
    }

    /// Stops sending, says "offline" and closes both connections in order.
    pub(crate) async fn close(mut self) {
        self.halt();
        if let Some(link) = self.outbox_link.take() {
            link.close(FAREWELL_MAX).await;
        }
        if let Some(link) = self.control.take() {
            let handle = link.handle();
            if publish_status(handle, &self.control_unacked, &self.host, &self.boot, None).is_ok() {
                let mut unacked = self.control_unacked.subscribe();
                // A DISCONNECT before the broker has the message could overtake nothing here, but a broker that died
                // would then never be noticed.
                let acknowledged = tokio::time::timeout(FAREWELL_MAX, unacked.wait_for(|&count| count == 0)).await;
                if acknowledged.is_err() {
                    tracing::warn!("the broker did not acknowledge the status \"offline\"");
                }
            }
            link.close(FAREWELL_MAX).await;
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.halt();
    }
}

fn status(boot: &str, since: Option<SystemTime>) -> Vec<u8> {
    let status = Status {
        state: if since.is_some() { "online" } else { "offline" }.to_owned(),
        boot: boot.to_owned(),
        since: since.map(cloudevent::rfc3339),
        version: since.map(|_| env!("CARGO_PKG_VERSION").to_owned()),
    };
    // Strings only: it cannot fail.
    serde_json::to_vec(&status).unwrap_or_default()
}

fn publish_status(
    handle: &LinkHandle,
    unacked: &watch::Sender<usize>,
    host: &str,
    boot: &str,
    since: Option<SystemTime>,
) -> Result<(), Refused> {
    publish_acknowledged(handle, unacked, &topics::status(host), status(boot, since), true)
}

fn publish_acknowledged(
    handle: &LinkHandle,
    unacked: &watch::Sender<usize>,
    topic: &str,
    payload: Vec<u8>,
    retain: bool,
) -> Result<(), Refused> {
    // Counted first: the acknowledgement may come before this returns.
    unacked.send_modify(|count| *count += 1);
    let asked = handle.publish(None, topic, payload, true, retain, Content::Json);
    if asked.is_err() {
        unacked.send_modify(|count| *count = count.saturating_sub(1));
    }
    asked
}

/// The control connection: presence and receipts.
struct Control {
    handle: LinkHandle,
    host: String,
    boot: String,
    since: SystemTime,
    flow: Arc<Mutex<Flow>>,
    wake: Arc<Wake>,
    sink: OutboxSink,
    unacked: watch::Sender<usize>,
}

impl Control {
    fn reaction(self) -> impl FnMut(LinkEvent) + Send + 'static {
        move |event| match event {
            LinkEvent::Connected { .. } => self.connected(),
            LinkEvent::Disconnected => {
                self.unacked.send_replace(0);
            }
            LinkEvent::Published { .. } => self.unacked.send_modify(|count| *count = count.saturating_sub(1)),
            // Receipts that were missed until now come again with what a stall sends again.
            LinkEvent::Unreachable { .. } | LinkEvent::Subscribed { .. } => {}
            LinkEvent::Message(message) => self.receipt(&message.payload),
        }
    }

    fn connected(&self) {
        self.unacked.send_replace(0);
        let asked = self
            .handle
            .subscribe(&topics::stored(&self.host))
            .and_then(|()| self.handle.subscribe(&topics::stored(topics::ALL_HOSTS)))
            .and_then(|()| publish_status(&self.handle, &self.unacked, &self.host, &self.boot, Some(self.since)));
        if let Err(refused) = asked {
            // A new connection begins with an empty queue, so this is a connection that is lost already.
            tracing::debug!(?refused, "could not announce the host");
        }
    }

    fn receipt(&self, payload: &[u8]) {
        let now = Instant::now();
        match serde_json::from_slice(payload) {
            Ok(Receipt::Stored { origin, stored, gap }) => {
                let position = if stored > 0 { self.sink.receipt(&origin, stored) } else { None };
                let mut flow = lock(&self.flow);
                flow.progressed(position.unwrap_or(0), now);
                if gap {
                    flow.want(Rewind::Gap);
                }
            }
            Ok(Receipt::Ready { ready }) => {
                if ready {
                    lock(&self.flow).want(Rewind::Now);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a receipt that is not one was passed over");
                return;
            }
        }
        self.wake.notify();
    }
}

/// The sending thread.
struct Sender {
    host: String,
    reader: OutboxReader,
    flow: Arc<Mutex<Flow>>,
    wake: Arc<Wake>,
    link: LinkHandle,
    control: LinkHandle,
    control_unacked: watch::Sender<usize>,
}

impl Sender {
    fn run(self) {
        let mut buffer: VecDeque<OutboxRow> = VecDeque::new();
        loop {
            let seen = self.wake.seen();
            let last = self.reader.last_position();
            let step = lock(&self.flow).step(Instant::now(), last, self.reader.events());
            match step {
                Step::Stop => return,
                Step::Rewind => {
                    buffer.clear();
                    self.look_at_the_front();
                    self.say_floors();
                }
                Step::Send { epoch, room, cursor } => {
                    if buffer.is_empty() {
                        match self.reader.after(cursor, READ_MAX_EVENTS) {
                            Ok(rows) if rows.is_empty() => {
                                // All up to `last` have their receipt already.
                                let mut flow = lock(&self.flow);
                                if flow.rewind == Rewind::No && flow.cursor == cursor {
                                    flow.cursor = last;
                                }
                                continue;
                            }
                            Ok(rows) => {
                                let first = rows.front().map_or(0, |row| row.position);
                                let mut flow = lock(&self.flow);
                                if cursor == 0 && flow.cursor == 0 {
                                    flow.base = flow.base.max(first.saturating_sub(1));
                                }
                                buffer = rows;
                            }
                            // The manager misses it, and says so; then it is told how far there is nothing left to come.
                            Err(ReadError::Damaged(damage)) => {
                                if !self.set_aside(&damage) {
                                    self.wake.wait_past(seen, IDLE_MAX);
                                }
                                continue;
                            }
                            Err(ReadError::Sqlite(error)) => {
                                self.unreadable(&error);
                                self.wake.wait_past(seen, IDLE_MAX);
                                continue;
                            }
                        }
                    }
                    self.send(epoch, room, &mut buffer);
                }
                Step::Kick => {
                    tracing::warn!("the broker acknowledges nothing; connecting anew");
                    self.link.reconnect();
                }
                Step::Wait(wait) => self.wake.wait_past(seen, wait),
            }
        }
    }

    fn send(&self, epoch: u64, room: u16, buffer: &mut VecDeque<OutboxRow>) {
        for _ in 0..room {
            // The lock is held over the request, so that what is counted is what was asked for, on this connection.
            let mut flow = lock(&self.flow);
            if flow.epoch != Some(epoch) || flow.rewind == Rewind::Now || flow.stop {
                return;
            }
            let Some(row) = buffer.pop_front() else {
                return;
            };
            match self.link.publish(Some(epoch), &row.topic, row.payload, true, false, Content::Event) {
                Ok(()) => flow.sent(row.position, Instant::now()),
                Err(Refused::TooLarge) => {
                    flow.pause();
                    drop(flow);
                    // Read again from here on after the pause.
                    buffer.clear();
                    self.too_large(row.position, &row.topic);
                    return;
                }
                Err(refused) => {
                    // The link's task is about to say that the connection is lost; everything is sent again then.
                    tracing::debug!(?refused, "an event was not taken for sending");
                    flow.epoch = None;
                    if refused == Refused::Full {
                        self.link.reconnect();
                    }
                    return;
                }
            }
        }
    }

    /// Says so every half minute at most, as the pause has it by then.
    fn too_large(&self, position: i64, topic: &str) {
        tracing::error!(
            position,
            topic,
            "the broker takes no packet as large as this event, and none after it can be sent before it: raise the limit there (mosquitto: \
             max_packet_size) to 262144 bytes"
        );
    }

    fn unreadable(&self, error: &str) {
        tracing::error!(
            error,
            path = %self.reader.path().display(),
            "cannot read the outbox, and no event is sent before it can be; trying again. `holeshot doctor` says whether the file is damaged"
        );
    }

    /// Moves events out of the way that hold up all others and that nobody will ever take. Every connection and every stall comes here.
    fn look_at_the_front(&self) {
        for _ in 0..WINDOW {
            match self.reader.damage_at_the_front() {
                Ok(None) => return,
                Ok(Some(damage)) if self.set_aside(&damage) => {}
                Ok(Some(_)) => return,
                Err(error) => return self.unreadable(&error),
            }
        }
    }

    /// False if it stays where it is.
    fn set_aside(&self, damage: &Damage) -> bool {
        let path = self.reader.path().display();
        match self.reader.set_aside(damage) {
            Ok(()) => {
                tracing::error!(
                    %path,
                    position = damage.position,
                    reason = damage.reason,
                    "an event in the outbox is damaged: it is not sent and will not be recorded. It is kept in the table `set_aside` of that file; those behind it go on. Look at it there (sqlite3), and delete it when it is of no more use"
                );
                true
            }
            Err(error) => {
                tracing::error!(
                    %path,
                    position = damage.position,
                    reason = damage.reason,
                    error,
                    "an event in the outbox is damaged and cannot be set aside: no event behind it is sent. Stop the host, see what became of that row of the table `outbox` (sqlite3), and what is in the table `set_aside`; rows that are of no more use may be deleted there"
                );
                false
            }
        }
    }

    fn say_floors(&self) {
        let floors = match self.reader.floors() {
            Ok(floors) => floors,
            Err(error) => return self.unreadable(&error),
        };
        let note = Floors { origins: floors.into_iter().map(|(origin, floor)| Floor { origin, floor }).collect() };
        let payload = serde_json::to_vec(&note).unwrap_or_default();
        // Without a connection it is said again with the next rewind, which every connection brings.
        let _ = publish_acknowledged(&self.control, &self.control_unacked, &topics::outbox(&self.host), payload, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(base: Instant, ms: u64) -> Instant {
        base + Duration::from_millis(ms)
    }

    #[test]
    fn the_window_holds_until_acknowledgements_come() {
        let t = Instant::now();
        let mut flow = Flow::new(t);
        assert_eq!(flow.step(t, 500, 500), Step::Wait(IDLE_MAX));
        flow.connected(1, t);
        assert_eq!(flow.step(t, 500, 500), Step::Rewind);
        let Step::Send { epoch: 1, room, cursor: 0 } = flow.step(t, 500, 500) else { panic!() };
        assert_eq!(room, WINDOW);
        for position in 1..=i64::from(WINDOW) {
            flow.sent(position, t);
        }
        assert!(matches!(flow.step(t, 500, 500), Step::Wait(_)));
        flow.acknowledged(t);
        assert_eq!(flow.step(t, 500, 500), Step::Send { epoch: 1, room: 1, cursor: 100 });
        flow.disconnected();
        flow.connected(2, t);
        assert_eq!(flow.step(t, 500, 500), Step::Rewind);
        assert_eq!(flow.step(t, 500, 500), Step::Send { epoch: 2, room: 100, cursor: 0 });
        assert_eq!(flow.reconnects, 1);
    }

    #[test]
    fn without_receipts_a_window_is_repeated_ever_more_rarely() {
        let t = Instant::now();
        let mut flow = Flow::new(t);
        flow.connected(1, t);
        assert_eq!(flow.step(t, 300, 300), Step::Rewind);
        flow.cursor = 300;
        assert!(matches!(flow.step(at(t, 999), 300, 300), Step::Wait(_)));
        assert_eq!(flow.step(at(t, 1000), 300, 300), Step::Rewind);
        for position in 1..=100 {
            flow.sent(position, at(t, 1000));
        }
        for _ in 0..100 {
            flow.acknowledged(at(t, 1000));
        }
        // No more than the window, though there is more; and after twice the time.
        assert!(matches!(flow.step(at(t, 2999), 300, 300), Step::Wait(_)));
        assert_eq!(flow.step(at(t, 3000), 300, 300), Step::Rewind);
        flow.progressed(100, at(t, 3001));
        assert!(matches!(flow.step(at(t, 3001), 300, 300), Step::Send { .. }));
        assert_eq!((flow.stall, flow.stalls), (STALL_MIN, 0));
    }

    #[test]
    fn no_more_is_sent_than_a_broker_keeps_for_a_slow_manager() {
        let t = Instant::now();
        let mut flow = Flow::new(t);
        flow.connected(1, t);
        flow.step(t, 5000, 5000);
        // The outbox begins at 2001: the reader found that before it sent the first.
        flow.base = 2000;
        for position in 2001..=3000 {
            assert!(matches!(flow.step(t, 5000, 3000), Step::Send { .. }), "{position}");
            flow.sent(position, t);
            flow.acknowledged(t);
        }
        assert!(matches!(flow.step(t, 5000, 3000), Step::Wait(_)));
        flow.progressed(2007, t);
        assert_eq!(flow.step(t, 5000, 2993), Step::Send { epoch: 1, room: 7, cursor: 3000 });
        // A receipt of an origin that is not in the outbox changes nothing.
        flow.progressed(0, t);
        assert_eq!(flow.base, 2007);
    }

    #[test]
    fn what_the_broker_refuses_opens_no_window() {
        let t = Instant::now();
        let mut flow = Flow::new(t);
        flow.connected(1, t);
        assert_eq!(flow.step(t, 300, 300), Step::Rewind);
        for position in 1..=100 {
            flow.sent(position, t);
        }
        flow.refused(t);
        for _ in 0..99 {
            assert!(matches!(flow.step(at(t, 10), 300, 300), Step::Wait(_)));
            flow.refused(at(t, 10));
        }
        assert_eq!((flow.published, flow.refused, flow.in_flight), (0, 100, 0));
        // A pause, and the same again.
        assert!(matches!(flow.step(at(t, 1009), 300, 300), Step::Wait(_)));
        assert_eq!(flow.step(at(t, 1010), 300, 300), Step::Rewind);
        assert_eq!(flow.step(at(t, 1010), 300, 300), Step::Send { epoch: 1, room: WINDOW, cursor: 0 });
    }

    #[test]
    fn gaps_rewind_at_most_twice_a_second() {
        let t = Instant::now();
        let mut flow = Flow::new(t);
        flow.connected(1, t);
        assert_eq!(flow.step(t, 10, 10), Step::Rewind);
        flow.cursor = 10;
        flow.want(Rewind::Gap);
        assert!(matches!(flow.step(at(t, 499), 10, 10), Step::Wait(_)));
        assert_eq!(flow.step(at(t, 500), 10, 10), Step::Rewind);
        flow.want(Rewind::Now);
        assert_eq!(flow.step(at(t, 501), 10, 10), Step::Rewind);
    }

    #[test]
    fn a_broker_that_acknowledges_nothing_gets_a_new_connection() {
        let t = Instant::now();
        let mut flow = Flow::new(t);
        flow.connected(1, t);
        flow.step(t, 1, 1);
        flow.sent(1, t);
        assert!(matches!(flow.step(at(t, 14_999), 1, 1), Step::Wait(_)));
        assert_eq!(flow.step(at(t, 15_000), 1, 1), Step::Kick);
    }
    #[test]
    fn silence_before_an_event_is_no_fault_of_the_broker() {
        let t = Instant::now();
        let mut flow = Flow::new(t);
        flow.connected(1, t);
        flow.step(t, 0, 0);
        assert!(matches!(flow.step(at(t, 60_000), 1, 1), Step::Send { .. }));
        flow.sent(1, at(t, 60_000));
        assert!(matches!(flow.step(at(t, 60_001), 1, 1), Step::Wait(_)));
        assert_eq!(flow.step(at(t, 75_000), 1, 1), Step::Kick);
    }
}
