//! Shards: threads that own rooms, drain the socket, step the rooms that are due and send what leaves them.
//!
//! A shard never waits for anything but the time: commands come through a bounded queue that it empties, datagrams from a socket that does
//! not block. It looks every [`POLL_US`] while it has rooms, so that no datagram needs a wake-up of its own
//! (measured: a wake-up costs 4 to 20 times what the datagram does). Rooms tick when it looks ([`beats`]), so that they need none either.
//!
//! Which datagrams come to which shard is in [`sockets`], what it leaves out while there is too much to do in [`shed`].

mod beats;
mod drain;
mod due;
mod farewell;
pub mod meter;
mod options;
mod outbound;
mod outgoing;
mod seats;
mod session;
mod setup;
mod shed;
mod sockets;
mod steer;
mod swap;
mod translate;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::mem::offset_of;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holeshot_room::{AbortReason, Arrival, Departure, Phase, Program, Room, Supervisor, ask_for};
use holeshot_wire::{ByeCode, HandshakeMessage, Header, RefusalCode, SentToAll, SessionKeys, ToHost};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Bytes;

use crate::clock::{Clock, thread_cpu_ns, wake_promptly};
use crate::events::{EventSink, InternalEvent};
use crate::journal::RoomJournal;
use crate::journal::feed::JournalFeed;
use crate::metrics::ShardFigures;
use crate::metrics::budget::{ModuleBudgets, RoomBudget};
use crate::metrics::distribution::{Distribution, LATENESS_US, STEP_US};
use crate::prefetch;
use crate::rooms::{LiveRoom, NewSetup, Rooms};
use beats::Beats;
use due::Due;
use farewell::Farewells;
use meter::{Meter, Operation};
pub use outbound::{OUTBOUND_QUEUED_MAX, Outbound, OutboundReceiver, OutboundSender, SessionLimits, outbound};
use outgoing::{OUTGOING_WAIT_US, Outgoing};
use seats::{Gallery, Place, Seat};
pub use seats::{Pass, REOPEN_WITHIN_US, SPECTATOR_TICKETS_MAX, TICKETS_PER_SECOND_MAX, TicketId};
pub use session::{SESSIONS_MAX, SessionId};
use session::{Session, Sessions};
use shed::Shed;
pub use sockets::Sockets;
pub use swap::{SwapCommand, SwapDone};

/// How often a shard with rooms looks at its socket and queues, in microseconds. At 1 ms an input waits half a millisecond on
/// average and receiving costs a fifth of what a wake-up per datagram would.
pub const POLL_US: u64 = 1_000;
/// How often a shard without rooms looks, in microseconds: a new room may wait this long, an idle host costs next to nothing.
pub const IDLE_POLL_US: u64 = 10_000;
/// Datagrams taken in one pass before due rooms are looked at again: 2 ms of work.
pub const DATAGRAMS_PER_PASS_MAX: usize = 4_096;
/// Datagrams after which a shard looks whether a room is due meanwhile, and steps it before it takes more: a flood makes a tick 50 µs late, and not the
/// whole of a pass. So many are taken even when rooms are due all the time.
pub const DATAGRAMS_PER_LOOK: usize = 64;
/// Shards of a host: what the byte for them in a session's number can name.
pub const SHARDS_MAX: usize = 1 << 8;
/// Due rooms that are warmed together: a processor has some dozens of reads under way at a time, and what was read must still be there when the last is stepped.
const ROOMS_PER_TURN: usize = 8;
/// Datagrams that are received before the first of them is opened: meanwhile the memory of their sessions and rooms is fetched, for all of them at once.
const DATAGRAMS_PER_TURN: usize = 16;
/// Commands taken in one pass, for the same reason.
pub const COMMANDS_PER_PASS_MAX: usize = 1_024;
/// Commands that may wait for a shard. Senders wait when it is full: a WebSocket is then read more slowly.
pub const COMMANDS_QUEUED_MAX: usize = 8_192;
/// Datagrams for a shard that another one received. More are dropped, as a full socket would.
pub const HANDED_OVER_QUEUED_MAX: usize = 8_192;
/// Spectators of one room: each gets what a player gets, so they count like players for the network, and this is four full rooms.
pub const SPECTATORS_MAX: usize = 256;
/// Entries in the queue of due rooms, for each room. Each message of a player that cannot wait for the next deadline leaves an
/// entry for that deadline behind, up to a thousand in a second; when there are too many the queue is made anew. At
/// 16 that costs less than the steps that made the entries.
const DUE_ENTRIES_PER_ROOM_MAX: usize = 16;
/// Largest datagram that is looked at, in bytes; one byte more than the protocol's, so that a longer one is seen to be too long.
const RECEIVE_BYTES: usize = holeshot_wire::datagram::DATAGRAM_BYTES_MAX + 1;

/// What a shard is told.
#[derive(Debug)]
pub enum Command {
    /// Own this room.
    Open(Box<OpenRoom>),
    /// A player's ticket brings data for the rules: say what they would have to be begun anew from.
    Admit(Box<Admit>),
    /// A player's WebSocket has shown a valid ticket.
    Attach(Box<Attach>),
    /// A player is ready.
    Ready(SessionId),
    /// A player's reliable message, JSON text.
    Action(SessionId, u64, String),
    /// A player leaves.
    Leave(SessionId),
    /// A payload that came as a binary message.
    Payload(SessionId, Bytes),
    /// A client has its welcome: something came from it that is nobody else's business.
    Heard(SessionId),
    /// A WebSocket is gone.
    Detach(SessionId),
    /// Something about the rules of a room.
    Swap(SwapCommand),
    /// Tell what rooms cost, with these rooms' own figures.
    Figures(Vec<String>, oneshot::Sender<ShardFigures>),
    /// End the rooms whose game has not begun, and let the others come to their end.
    Drain,
    /// End every room and then this thread.
    Stop,
}

/// A room to own.
pub struct OpenRoom {
    /// The room.
    pub room: Room,
    /// Its rules, begun with its setup.
    pub rules: Supervisor,
    /// What the doors see of it.
    pub live: Arc<LiveRoom>,
    /// The event `room.opened`. The shard emits it, as it does all later ones of the room: so it comes first, and never
    /// for a room that no shard took.
    pub opened: InternalEvent,
    /// Its journal.
    pub journal: RoomJournal,
    /// What takes the place of its players, if it is a replay.
    pub feed: Option<Box<JournalFeed>>,
}

impl std::fmt::Debug for OpenRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenRoom").field("live", &self.live).finish_non_exhaustive()
    }
}

/// A question about a ticket with data: may it open a session, and what would the rules have to be begun anew from? Nothing changes by it.
#[derive(Debug)]
pub struct Admit {
    /// The room.
    pub room: String,
    /// The player's slot.
    pub player: u16,
    /// The ticket.
    pub pass: Pass,
    /// Its data, JSON text.
    pub data: String,
    /// Gets what the room has; none if it does not gather its players any more, or has this data already. Or why the ticket opens nothing.
    pub reply: oneshot::Sender<Admission>,
}

/// What an [`Admit`] is answered.
pub type Admission = Result<Option<Arc<dyn Program>>, (RefusalCode, String)>;

/// A player or spectator who shows up.
#[derive(Debug)]
pub struct Attach {
    /// The room.
    pub room: String,
    /// The player's slot; none for a spectator.
    pub player: Option<u16>,
    /// The ticket that was shown.
    pub pass: Pass,
    /// Rules that were begun anew with the ticket's data. They take the place of the room's, if it still gathers its players.
    pub setup: Option<Box<NewSetup>>,
    /// The keys and the answer of the handshake, if the client wants UDP.
    pub keys: Option<(SessionKeys, HandshakeMessage)>,
    /// The last public event that the player has.
    pub after: Option<u64>,
    /// Whether its client takes deltas.
    pub deltas: bool,
    /// Where messages to the player go.
    pub outbound: OutboundSender,
    /// Gets the session, or why there is none.
    pub reply: oneshot::Sender<Result<SessionId, (RefusalCode, String)>>,
}

/// What a shard counts. Written by the shard alone, read by anyone.
#[derive(Debug, Default)]
pub struct ShardCounters {
    /// Times that the shard looked at its queues and its socket.
    pub passes: AtomicU64,
    /// Times that it slept after that.
    pub sleeps: AtomicU64,
    /// Commands obeyed.
    pub commands: AtomicU64,
    /// Sessions of players and spectators opened.
    pub sessions_opened: AtomicU64,
    /// Datagrams received.
    pub datagrams_received: AtomicU64,
    /// Their bytes.
    pub bytes_received: AtomicU64,
    /// Datagrams among them that it handed to other shards.
    pub datagrams_handed_over: AtomicU64,
    /// Inputs handed to rooms: a player's for one frame, copies in redundant datagrams included.
    pub inputs: AtomicU64,
    /// Snapshots sent: one player's or spectator's of one frame, over either channel.
    pub snapshots: AtomicU64,
    /// Of them, those that went as deltas.
    pub snapshots_delta: AtomicU64,
    /// Bytes of snapshots that went whole, without what is around them.
    pub snapshot_bytes_whole: AtomicU64,
    /// Bytes of deltas, likewise.
    pub snapshot_bytes_delta: AtomicU64,
    /// Bytes that the snapshots of these deltas have more than they.
    pub snapshot_bytes_saved: AtomicU64,
    /// Snapshots of players left out because the shard overran.
    pub snapshots_shed_players: AtomicU64,
    /// Snapshots of spectators left out because of that.
    pub snapshots_shed_spectators: AtomicU64,
    /// How much it leaves out now: 0 nothing, 5 the most (`shed.rs`).
    pub shed_level: AtomicU64,
    /// Time in which it did not sleep, in microseconds.
    pub busy_us: AtomicU64,
    /// The same of the last second or so, in thousandths of the time.
    pub busy_permille: AtomicU64,
    /// What its rooms weigh whose game has begun ([`LiveRoom::weight`]).
    pub weight_begun: AtomicU64,
    /// Of these, those whose game runs.
    pub weight_running: AtomicU64,
    /// Public events that rooms told.
    pub public_events: AtomicU64,
    /// Events put into the outbox.
    pub internal_events: AtomicU64,
    /// Datagrams that belong to no session or did not open.
    pub datagrams_refused: AtomicU64,
    /// Datagrams sent.
    pub datagrams_sent: AtomicU64,
    /// Their bytes.
    pub bytes_sent: AtomicU64,
    /// Datagrams that the system did not take.
    pub datagrams_unsent: AtomicU64,
    /// Payloads and messages that a slow WebSocket had no place for.
    pub messages_unsent: AtomicU64,
    /// Ticks stepped.
    pub ticks: AtomicU64,
    /// Players of ticks who had sent an input for it in time.
    pub inputs_fresh: AtomicU64,
    /// Players of ticks for whom an older input was repeated.
    pub inputs_repeated: AtomicU64,
    /// Players of ticks of whom no input ever came, those who have left included.
    pub inputs_absent: AtomicU64,
    /// Ticks lost because the shard came too late.
    pub ticks_lost: AtomicU64,
    /// Rooms that ended because their rules failed.
    pub rules_faults: AtomicU64,
    /// Frames that rules never saw because they took too long.
    pub ticks_skipped: AtomicU64,
    /// Times the rules of a room were replaced.
    pub rules_swapped: AtomicU64,
    /// Times the former rules were put back because new ones failed on probation.
    pub rules_rolled_back: AtomicU64,
    /// Faults that did not come again when the frame was run once more.
    pub rules_retried: AtomicU64,
    /// Times of operations, while somebody asks for them.
    pub meter: Meter,
}

impl ShardCounters {
    /// A room of such a weight went from one phase to another, or closed in it: whoever places rooms sees what has begun, and what of that costs something.
    fn note_phase(&self, weight: u64, before: Phase, after: Option<Phase>) {
        let change = |counter: &AtomicU64, was: bool, is: bool| {
            if was != is {
                let sum = counter.load(Ordering::Relaxed);
                let sum = if is { sum.saturating_add(weight) } else { sum.saturating_sub(weight) };
                counter.store(sum, Ordering::Relaxed);
            }
        };
        let (has_begun, runs) = (|phase| phase >= Phase::Running, |phase| phase == Phase::Running);
        change(&self.weight_begun, has_begun(before), after.is_some_and(has_begun));
        change(&self.weight_running, runs(before), after.is_some_and(runs));
    }
}

/// Counts on a counter that only this thread writes: so it needs no operation that keeps other threads away, each of which costs a tick 5 ns.
fn count(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// Puts an event of a room into the outbox. One that finds no place there is lost.
fn emit(sink: &EventSink, counters: &ShardCounters, room: &str, event: InternalEvent) {
    match sink.emit(event) {
        Ok(()) => count(&counters.internal_events, 1),
        Err(error) => tracing::error!(room, %error, "an event is lost"),
    }
}

/// The way to a running shard.
#[derive(Debug, Clone)]
pub struct ShardHandle {
    commands: mpsc::Sender<Command>,
    /// What it counts.
    pub counters: Arc<ShardCounters>,
}

impl ShardHandle {
    /// Sends a command, waiting while the queue is full. False if the shard has ended.
    pub async fn send(&self, command: Command) -> bool {
        match self.commands.try_send(command) {
            Ok(()) => true,
            // Rare, and larger than all else that a session's task has to keep.
            Err(mpsc::error::TrySendError::Full(command)) => Box::pin(self.commands.send(command)).await.is_ok(),
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

#[derive(Debug)]
struct HandedOver {
    from: SocketAddr,
    bytes: Vec<u8>,
}

/// Shards that are laid out and not yet started: rooms need their handles before the threads need the rooms.
#[derive(Debug)]
pub struct ShardLayout {
    /// The ways to the shards, in order.
    pub handles: Vec<ShardHandle>,
    parts: Vec<(mpsc::Receiver<Command>, std::sync::mpsc::Receiver<HandedOver>)>,
    peers: Vec<std::sync::mpsc::SyncSender<HandedOver>>,
}

impl ShardLayout {
    /// Lays out `count` shards.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let mut layout = Self { handles: Vec::new(), parts: Vec::new(), peers: Vec::new() };
        for _ in 0..count {
            let (commands, inbox) = mpsc::channel(COMMANDS_QUEUED_MAX);
            let (peer, handed_over) = std::sync::mpsc::sync_channel(HANDED_OVER_QUEUED_MAX);
            layout.handles.push(ShardHandle { commands, counters: Arc::default() });
            layout.parts.push((inbox, handed_over));
            layout.peers.push(peer);
        }
        layout
    }

    /// Starts the threads. Each ends after [`Command::Stop`].
    ///
    /// # Errors
    /// If the system gives no thread or no second handle of a socket.
    pub fn start(
        self,
        sockets: Sockets,
        clock: Clock,
        rooms: &Arc<Rooms>,
        sink: &EventSink,
    ) -> std::io::Result<Vec<JoinHandle<()>>> {
        let sockets = Arc::new(sockets);
        let mut threads = Vec::new();
        for (index, ((inbox, handed_over), handle)) in self.parts.into_iter().zip(self.handles).enumerate() {
            let shard = Shard {
                index,
                udp_port: sockets.address().port(),
                outgoing: Outgoing::new(sockets.of(index)?),
                clock,
                inbox,
                handed_over,
                peers: self.peers.clone(),
                rooms: Vec::new(),
                free_rooms: Vec::new(),
                places: HashMap::new(),
                due: Due::default(),
                beats: Beats::default(),
                sessions: Sessions::new(u8::try_from(index).unwrap_or(u8::MAX)),
                registry: Arc::clone(rooms),
                sink: sink.clone(),
                counters: handle.counters,
                asked: Duration::ZERO,
                received: std::iter::repeat_with(Received::default).take(DATAGRAMS_PER_TURN).collect(),
                modules: ModuleBudgets::default(),
                lateness_us: Distribution::new(LATENESS_US),
                step_us: Distribution::new(STEP_US),
                stepped: Vec::with_capacity(ROOMS_PER_TURN),
                farewells: Farewells::default(),
                bell: Arc::default(),
                shed: Shed::new(clock.now_us()),
                draining: false,
                stopping: false,
            };
            // All sockets stay open until the last shard ends: one that closed would give its place among them to another.
            let sockets = Arc::clone(&sockets);
            let run = move || {
                shard.run();
                drop(sockets);
            };
            threads.push(std::thread::Builder::new().name(format!("shard-{index}")).spawn(run)?);
        }
        Ok(threads)
    }
}

/// A datagram that was received, with the session that it says it belongs to.
struct Received {
    from: SocketAddr,
    len: usize,
    id: SessionId,
    bytes: [u8; RECEIVE_BYTES],
}

impl Default for Received {
    fn default() -> Self {
        let from = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { from, len: 0, id: SessionId::from_bits(0), bytes: [0; RECEIVE_BYTES] }
    }
}

/// What a step took by itself.
struct Stepped {
    /// While operations are timed.
    took: Option<Duration>,
    took_us: u64,
}

/// A room in its shard.
struct RoomSlot {
    room: Room,
    rules: Supervisor,
    live: Arc<LiveRoom>,
    journal: RoomJournal,
    feed: Option<Box<JournalFeed>>,
    /// The session of each player slot.
    sessions: Vec<Option<SessionId>>,
    /// Which tickets each player slot has seen.
    seats: Vec<Seat>,
    /// Those who watch, at most [`SPECTATORS_MAX`].
    gallery: Gallery,
    /// Whether a player was in the room before.
    known: Vec<bool>,
    /// The time in the queue of due rooms that counts; other entries are left-overs.
    scheduled_us: u64,
    /// What its players are told when it closes.
    farewell: ByeCode,
    /// What its rules cost.
    budget: RoomBudget,
    /// When it ticks.
    beat: Option<beats::Place>,
    /// What its snapshots for everybody were, if somebody gets deltas of them.
    sent_to_all: Option<Box<SentToAll>>,
}

struct Shard {
    index: usize,
    udp_port: u16,
    outgoing: Outgoing,
    clock: Clock,
    inbox: mpsc::Receiver<Command>,
    handed_over: std::sync::mpsc::Receiver<HandedOver>,
    peers: Vec<std::sync::mpsc::SyncSender<HandedOver>>,
    rooms: Vec<Option<RoomSlot>>,
    free_rooms: Vec<usize>,
    /// Where the open rooms are in `rooms`.
    places: HashMap<String, usize>,
    due: Due,
    /// When its rooms tick.
    beats: Beats,
    sessions: Sessions,
    registry: Arc<Rooms>,
    sink: EventSink,
    counters: Arc<ShardCounters>,
    /// Places for datagrams that are taken together.
    received: Vec<Received>,
    /// What asking for memory took for each of the datagrams or rooms that follow, while operations are timed: a part of theirs.
    asked: Duration,
    /// What the modules of its rooms cost.
    modules: ModuleBudgets,
    /// How late steps with ticks come.
    lateness_us: Distribution,
    /// How long steps with ticks take, with everything that leaves the room.
    step_us: Distribution,
    /// The steps with ticks whose datagrams have not left.
    stepped: Vec<Stepped>,
    /// The sessions of closed rooms that are still to be told so.
    farewells: Farewells,
    /// Wakes the tasks of its WebSockets.
    bell: Arc<outbound::Bell>,
    /// What is left out while there is too much to do.
    shed: Shed,
    /// No game begins any more.
    draining: bool,
    stopping: bool,
}

impl Shard {
    fn run(mut self) {
        wake_promptly();
        tracing::debug!(shard = self.index, "shard runs");
        while !(self.stopping && self.places.is_empty() && self.farewells.is_empty()) {
            count(&self.counters.passes, 1);
            self.take_commands();
            let all_received = self.take_datagrams();
            let all_taken_over = self.take_handed_over();
            self.step_due();
            if !self.farewells.is_empty() {
                self.farewells.look(self.clock.now_us(), &self.sink);
            }
            let now_us = self.clock.now_us();
            self.look_back(now_us);
            self.bell.ring(now_us);
            let now_us = self.send(now_us);
            if !(all_received && all_taken_over) {
                // What is left would wait while the system throws newer datagrams away.
                continue;
            }
            let poll_us = if self.places.is_empty() && self.farewells.is_empty() { IDLE_POLL_US } else { POLL_US };
            // At multiples of the poll: at these moments rooms are due.
            let look_us = (now_us / poll_us).saturating_add(1).saturating_mul(poll_us);
            let wake_us = self.due.next_between_looks_us().map_or(look_us, |due_us| look_us.min(due_us));
            if wake_us > now_us {
                count(&self.counters.sleeps, 1);
                self.clock.sleep_until(wake_us);
                let woke_us = self.clock.now_us();
                self.shed.rested(woke_us.saturating_sub(now_us));
                self.counters.meter.took(Operation::Wake, woke_us.saturating_sub(wake_us).saturating_mul(1_000));
            }
        }
        // What was sent while the last room ended: whoever sent it was told that it arrived. A room among it is opened and
        // ended in order; a player among it gets the answer that the host is stopping.
        self.inbox.close();
        while let Some(command) = self.inbox.blocking_recv() {
            self.obey(command);
        }
        tracing::debug!(shard = self.index, "shard ends");
    }

    /// Sheds more or less, now and then.
    fn look_back(&mut self, now_us: u64) {
        let Some(looked) = self.shed.look(now_us) else { return };
        count(&self.counters.busy_us, looked.busy_us);
        self.counters.busy_permille.store(looked.busy_permille, Ordering::Relaxed);
        let Some(before) = looked.changed_from else { return };
        let level = self.shed.level();
        self.counters.shed_level.store(level as u64, Ordering::Relaxed);
        let (shard, busy_permille) = (self.index, looked.busy_permille);
        if level > before {
            tracing::warn!(shard, busy_permille, "the shard overruns: {}", level.as_str());
        } else {
            tracing::info!(shard, busy_permille, "the shard has rest again: {}", level.as_str());
        }
    }

    fn take_commands(&mut self) {
        for _ in 0..COMMANDS_PER_PASS_MAX {
            match self.inbox.try_recv() {
                Ok(command) => self.obey(command),
                Err(mpsc::error::TryRecvError::Empty) => return,
                // Every handle is gone: nobody can ask for anything any more.
                Err(mpsc::error::TryRecvError::Disconnected) => return self.stop(),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        count(&self.counters.commands, 1);
        match command {
            Command::Open(open) => self.open(*open),
            Command::Admit(admit) => {
                let Admit { room, player, pass, data, reply } = *admit;
                let _gone = reply.send(self.program_for(&room, player, &pass, &data));
            }
            Command::Attach(attach) => {
                let begun = self.counters.meter.begin();
                self.attach(*attach);
                self.counters.meter.end(Operation::Attach, begun);
            }
            Command::Ready(id) => self.arrive(id, |player| Arrival::Ready { player }),
            Command::Action(id, number, json) => {
                self.arrive(id, |player| Arrival::Action { player, id: number, json: &json });
            }
            Command::Leave(id) => {
                let begun = self.counters.meter.begin();
                self.arrive(id, |player| Arrival::Quit { player });
                self.counters.meter.end(Operation::Detach, begun);
            }
            Command::Payload(id, bytes) => self.binary_payload(id, &bytes),
            Command::Heard(id) => {
                if let Some(session) = self.sessions.get_mut(id) {
                    session.is_confirmed = true;
                }
            }
            Command::Detach(id) => {
                let begun = self.counters.meter.begin();
                self.detach(id);
                self.counters.meter.end(Operation::Detach, begun);
            }
            Command::Swap(command) => self.obey_swap(command),
            Command::Figures(rooms, reply) => {
                let _gone = reply.send(self.figures(rooms));
            }
            Command::Drain => self.drain(),
            Command::Stop => self.stop(),
        }
    }

    /// Copies of all figures: a few kilobytes for each module and room asked for.
    fn figures(&mut self, rooms: Vec<String>) -> ShardFigures {
        for slot in self.rooms.iter_mut().flatten() {
            slot.budget.settle(&mut self.modules);
        }
        let of_room = |id: String| {
            let slot = self.rooms.get(*self.places.get(&id)?)?.as_ref()?;
            Some((id, slot.budget.figures(slot.room.manifest().tick_hz)))
        };
        ShardFigures {
            cpu_ns: thread_cpu_ns(),
            lateness_us: self.lateness_us.clone(),
            step_us: self.step_us.clone(),
            sessions: self.sessions.len(),
            rooms: self.places.len(),
            modules: self.modules.figures(),
            modules_left_out: self.modules.left_out(),
            of_rooms: rooms.into_iter().filter_map(of_room).collect(),
        }
    }

    fn open(&mut self, open: OpenRoom) {
        let OpenRoom { mut room, rules, live, opened, journal, feed } = open;
        emit(&self.sink, &self.counters, &live.id, opened);
        let (players, has_feed) = (live.players.len(), feed.is_some());
        let budget = RoomBudget::open(&mut self.modules, &**rules.program());
        let beat = self.beats.take(rules.program().setup().tick_hz, players);
        if let Some(beat) = beat {
            room.set_beat(beat.beat());
        }
        let slot = RoomSlot {
            room,
            rules,
            live,
            journal,
            feed,
            sessions: vec![None; players],
            seats: std::iter::repeat_with(Seat::default).take(players).collect(),
            gallery: Gallery::default(),
            known: vec![false; players],
            scheduled_us: u64::MAX,
            farewell: ByeCode::RoomAborted,
            budget,
            beat,
            sent_to_all: None,
        };
        let index = match self.free_rooms.pop() {
            Some(index) => index,
            None => {
                self.rooms.push(None);
                self.rooms.len() - 1
            }
        };
        if let Some(place) = self.rooms.get_mut(index) {
            self.places.insert(slot.live.id.clone(), index);
            *place = Some(slot);
        }
        if has_feed {
            // Nobody else will wake it.
            self.step(index, self.clock.now_us());
        }
        self.schedule(index);
        if self.stopping {
            self.abort(index);
        } else {
            self.drain_room(index);
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        for index in 0..self.rooms.len() {
            self.abort(index);
        }
        self.farewells.hurry(self.clock.now_us());
    }

    /// Ends a room: its players get the event that says so, then their sessions end and the room closes.
    fn abort(&mut self, index: usize) {
        // The first abort ends the match, the second one ends the wait after it.
        for _ in 0..2 {
            if let Some(slot) = self.rooms.get_mut(index).and_then(Option::as_mut) {
                let now_us = self.clock.now_us();
                let _ended = slot.room.handle(now_us, Arrival::Abort { reason: AbortReason::HostStopping });
                self.step(index, now_us);
            }
        }
    }

    fn attach(&mut self, attach: Attach) {
        let Attach { room, player, pass, setup, keys, after, deltas, mut outbound, reply } = attach;
        outbound.hang(&self.bell);
        let now_us = self.clock.now_us();
        let taken = self.index_of(&room).and_then(|index| {
            let replaces = self.check_pass(index, player, &pass, now_us)?;
            let setup = setup.map(|setup| self.check_setup(index, setup)).transpose()?.flatten();
            self.connect(index, player, now_us)?;
            // Between two steps, and before the room can find that everybody is there.
            if let Some(setup) = setup {
                self.set_up(index, *setup);
            }
            Ok((index, replaces))
        });
        let (index, replaces) = match taken {
            Ok(taken) => taken,
            Err(refusal) => {
                let _gone = reply.send(Err(refusal));
                return;
            }
        };
        let (keys, answer) = keys.map_or((None, None), |(keys, answer)| (Some(keys), Some(answer)));
        // There is a place: it was asked for when the ticket was looked at.
        let session = |id| Session::new(id, index, player, keys, deltas, outbound);
        let Some(id) = self.sessions.insert(session) else { return };
        let Some(slot) = self.rooms.get_mut(index).and_then(Option::as_mut) else { return };
        count(&self.counters.sessions_opened, 1);
        let mut resumed = false;
        if let Some(player) = player.map(usize::from) {
            if let Some(place) = slot.sessions.get_mut(player) {
                *place = Some(id);
            }
            if let Some(seat) = slot.seats.get_mut(player) {
                seat.take(&pass, now_us);
            }
            resumed = slot.known.get_mut(player).is_some_and(|known| std::mem::replace(known, true));
        } else {
            if let Some(before) = replaces {
                slot.gallery.leave(before, true, false);
            }
            slot.gallery.take(&pass, id, now_us);
        }
        if let Some(before) = replaces {
            self.sessions.end(before, ByeCode::Replaced, "another session of this player took over");
        }
        let welcome = translate::welcome(id, player, slot, answer, self.udp_port, resumed, pass.resume, deltas);
        let mut greeted = self.sessions.send_text(id, welcome, &self.counters);
        if let Some(after) = after {
            let events: Vec<_> =
                slot.room.events_after(after).map(|event| translate::event(&event, self.clock)).collect();
            for text in events {
                greeted &= self.sessions.send_text(id, text, &self.counters);
            }
        }
        if reply.send(Ok(id)).is_err() || !greeted {
            self.detach(id);
        }
        self.schedule(index);
        self.drain_room(index);
    }

    fn index_of(&self, room: &str) -> Result<usize, (RefusalCode, String)> {
        let index = self.places.get(room).copied();
        index.ok_or_else(|| (RefusalCode::RoomClosed, format!("room {room} is closed")))
    }

    /// Whether a ticket opens a session in a room, and in place of which. Nothing changes.
    fn check_pass(
        &mut self,
        index: usize,
        player: Option<u16>,
        pass: &Pass,
        now_us: u64,
    ) -> Result<Option<SessionId>, (RefusalCode, String)> {
        let closed = || (RefusalCode::RoomClosed, "the room is closed".to_owned());
        let slot = self.rooms.get_mut(index).and_then(Option::as_mut).ok_or_else(closed)?;
        if self.sessions.is_full() {
            return Err((RefusalCode::TooManySessions, "the host has no place for another session".into()));
        }
        let sessions = &mut self.sessions;
        let mut is_confirmed = |id| sessions.get_mut(id).is_some_and(|session| session.is_confirmed);
        let Some(player) = player else {
            return Ok(match slot.gallery.check(pass, is_confirmed, now_us)? {
                Place::New => None,
                Place::Of(session) => Some(session),
            });
        };
        let before = slot.sessions.get(usize::from(player)).copied().flatten();
        if let Some(seat) = slot.seats.get(usize::from(player)) {
            seat.check(pass, before.is_some_and(&mut is_confirmed), now_us)?;
        }
        Ok(before)
    }

    /// Tells the room that a player is there.
    fn connect(&mut self, index: usize, player: Option<u16>, now_us: u64) -> Result<(), (RefusalCode, String)> {
        let (Some(slot), Some(player)) = (self.rooms.get_mut(index).and_then(Option::as_mut), player) else {
            return Ok(());
        };
        let connected = slot.room.handle(now_us, Arrival::Connected { player });
        connected.map_err(|not_taken| (RefusalCode::RoomClosed, not_taken.to_string()))
    }

    fn detach(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(id) else { return };
        let Some(slot) = self.rooms.get_mut(session.room).and_then(Option::as_mut) else { return };
        let Some(player) = session.player else {
            return slot.gallery.leave(id, session.is_confirmed, true);
        };
        // Only the current session of the player may say that it is gone.
        if let Some(place) = slot.sessions.get_mut(usize::from(player)).filter(|place| **place == Some(id)) {
            *place = None;
            if let Some(seat) = slot.seats.get_mut(usize::from(player)) {
                seat.leave(session.is_confirmed);
            }
            let _late = slot.room.handle(self.clock.now_us(), Arrival::Disconnected { player });
            self.schedule(session.room);
        }
    }

    /// Hands what a session says to its room.
    fn arrive<'a>(&mut self, id: SessionId, arrival: impl FnOnce(u16) -> Arrival<'a>) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.is_confirmed = true;
        let room = session.room;
        let Some(player) = session.player else {
            // It leaves, or says what only a player may say: either way there is nothing left to watch for.
            let (code, reason) = match arrival(0) {
                Arrival::Quit { .. } => (ByeCode::Left, "you left"),
                _ => (ByeCode::BadMessage, "a spectator has no say in the room; only `ping` and `leave` are for it"),
            };
            session.bye(code, reason);
            return self.detach(id);
        };
        let Some(slot) = self.rooms.get_mut(room).and_then(Option::as_mut) else { return };
        if let Err(not_taken) = slot.room.handle(self.clock.now_us(), arrival(player)) {
            tracing::debug!(room = slot.live.id, player, %not_taken, "message without effect");
        }
        self.schedule(room);
    }

    /// Whether a room is due; looked at now and then.
    fn is_due(&mut self, taken: usize) -> bool {
        taken % DATAGRAMS_PER_LOOK == DATAGRAMS_PER_LOOK - DATAGRAMS_PER_TURN && self.due.is_due(self.clock.now_us())
    }

    /// Takes what has arrived. False if something may be left.
    fn take_datagrams(&mut self) -> bool {
        let mut received = std::mem::take(&mut self.received);
        let mut taken = 0;
        let all = loop {
            if taken >= DATAGRAMS_PER_PASS_MAX || self.is_due(taken) {
                break false;
            }
            let (count, nothing_left) = self.receive(&mut received);
            let begun = self.counters.meter.begin();
            self.warm_sessions(received.get(..count).unwrap_or_default());
            self.asked = share(begun, count);
            let now_us = self.clock.now_us();
            for Received { from, len, id, bytes } in received.iter_mut().take(count) {
                let Some(datagram) = bytes.get_mut(..*len) else { continue };
                if id.shard() == self.index {
                    self.datagram(now_us, *id, *from, datagram);
                } else {
                    self.hand_over(*id, *from, datagram);
                }
            }
            taken += DATAGRAMS_PER_TURN;
            if nothing_left {
                break true;
            }
        };
        (self.received, self.asked) = (received, Duration::ZERO);
        all
    }

    /// Receives some datagrams: how many, and whether there are no more.
    fn receive(&self, received: &mut [Received]) -> (usize, bool) {
        let mut taken = 0;
        for _ in 0..received.len() {
            let Some(place) = received.get_mut(taken) else { break };
            let begun = self.counters.meter.begin();
            match self.outgoing.socket().recv_from(&mut place.bytes) {
                Ok((len, from)) => {
                    count(&self.counters.datagrams_received, 1);
                    count(&self.counters.bytes_received, len as u64);
                    let header = place.bytes.get(..len).and_then(|datagram| Header::peek(datagram).ok());
                    let Some(header) = header else {
                        count(&self.counters.datagrams_refused, 1);
                        continue;
                    };
                    (place.from, place.len, place.id) = (from, len, SessionId::from_bits(header.session));
                    self.sessions.warm(place.id);
                    self.counters.meter.end(Operation::Receive, begun);
                    taken += 1;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return (taken, true),
                // On some systems an answer "port unreachable" to what was sent shows up here; it concerns one address only.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused | ErrorKind::Interrupted
                    ) => {}
                // A datagram that the system cannot hand over (one that is too long, on Windows) is one that is refused.
                Err(error) => {
                    let before = self.counters.datagrams_refused.fetch_add(1, Ordering::Relaxed);
                    if before.is_power_of_two() {
                        tracing::warn!(shard = self.index, %error, "a datagram cannot be read");
                    }
                }
            }
        }
        (taken, false)
    }

    /// Asks for the memory that these datagrams come to behind their sessions, which were asked for as they came.
    fn warm_sessions(&mut self, received: &[Received]) {
        if received.len() < 2 {
            return;
        }
        for Received { id, .. } in received {
            if let Some(session) = self.sessions.get_mut(*id)
                && let (Some(place), Some(_)) = (self.rooms.get(session.room), session.player)
            {
                // Nothing of the place is read: whether a room is there would have to be waited for.
                let room = std::ptr::from_ref(place).cast::<u8>().wrapping_add(offset_of!(RoomSlot, room));
                Room::INPUT_PARTS.iter().for_each(|part| prefetch::ask(room.wrapping_add(*part)));
            }
        }
        for Received { id, .. } in received {
            if let Some(session) = self.sessions.get_mut(*id)
                && let (Some(Some(slot)), Some(player)) = (self.rooms.get(session.room), session.player)
            {
                slot.room.warm_inputs(player, prefetch::ask);
            }
        }
    }

    fn hand_over(&self, id: SessionId, from: SocketAddr, datagram: &[u8]) {
        let sent = self
            .peers
            .get(id.shard())
            .is_some_and(|peer| peer.try_send(HandedOver { from, bytes: datagram.to_vec() }).is_ok());
        count(if sent { &self.counters.datagrams_handed_over } else { &self.counters.datagrams_refused }, 1);
    }

    /// Takes what other shards received for this one. False if something may be left.
    fn take_handed_over(&mut self) -> bool {
        for taken in 0..DATAGRAMS_PER_PASS_MAX {
            if self.is_due(taken) {
                return false;
            }
            let Ok(HandedOver { from, mut bytes }) = self.handed_over.try_recv() else { return true };
            let Ok(header) = Header::peek(&bytes) else { continue };
            self.datagram(self.clock.now_us(), SessionId::from_bits(header.session), from, &mut bytes);
        }
        false
    }

    fn datagram(&mut self, now_us: u64, id: SessionId, from: SocketAddr, datagram: &mut [u8]) {
        let begun = self.counters.meter.begin().and_then(|begun| begun.checked_sub(self.asked));
        let bytes = datagram.len();
        let opened = self.sessions.get_mut(id).and_then(|session| session.open(datagram));
        let Some((sequence_is_newest, payload)) = opened else {
            count(&self.counters.datagrams_refused, 1);
            return;
        };
        let Ok(payload) = ToHost::decode(payload) else {
            count(&self.counters.datagrams_refused, 1);
            return;
        };
        if let Some(session) = self.sessions.get_mut(id) {
            if session.is_too_much(bytes, now_us) {
                return;
            }
            session.heard(from, bytes, sequence_is_newest, &payload, &mut self.outgoing, &self.counters);
        }
        self.counters.meter.end(Operation::Open, begun);
        self.payload(now_us, id, payload);
    }

    fn binary_payload(&mut self, id: SessionId, bytes: &[u8]) {
        let Ok(payload) = ToHost::decode(bytes) else {
            if let Some(session) = self.sessions.get_mut(id) {
                session.bye(ByeCode::BadMessage, "a binary message that is no payload of this protocol");
            }
            return self.detach(id);
        };
        if let Some(session) = self.sessions.get_mut(id) {
            session.is_confirmed = true;
            session.path.on_binary_message();
        }
        self.payload(self.clock.now_us(), id, payload);
    }

    fn payload(&mut self, now_us: u64, id: SessionId, payload: ToHost<'_>) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        match payload {
            ToHost::Inputs(inputs) => {
                if let Some(frame) = inputs.snapshot_frame() {
                    session.acknowledged(frame);
                }
                // A spectator's are nobody's; they are lost like any that come out of the game.
                let (room, Some(player)) = (session.room, session.player) else { return };
                let Some(slot) = self.rooms.get_mut(room).and_then(Option::as_mut) else { return };
                let begun = self.counters.meter.begin();
                count(&self.counters.inputs, inputs.count() as u64);
                // Inputs that come to nothing are counted by the room.
                let _counted = slot.room.handle_inputs(now_us, player, inputs.iter());
                self.counters.meter.end_many(Operation::Input, begun, inputs.count() as u64);
            }
            ToHost::Ping(value) => session.pong(value, &mut self.outgoing, &self.counters),
            ToHost::Ack(frame) => session.acknowledged(frame),
            ToHost::Probe | ToHost::Response(_) => {}
        }
    }

    fn step_due(&mut self) {
        let looked_us = self.clock.now_us();
        // Where one step ends the next begins, so that the clock is read once for each.
        let mut now_us = looked_us;
        let mut turn = [(0, 0); ROOMS_PER_TURN];
        loop {
            let mut rooms = 0;
            for place in &mut turn {
                let Some(next) = self.due.pop(looked_us) else { break };
                *place = next;
                rooms += 1;
            }
            if rooms == 0 {
                return;
            }
            let turn = turn.get(..rooms).unwrap_or_default();
            let begun = self.counters.meter.begin();
            self.warm(turn);
            self.asked = share(begun, turn.len());
            let mut sent_us = now_us;
            for &(due_us, index) in turn {
                let current =
                    self.rooms.get(index).and_then(Option::as_ref).is_some_and(|slot| slot.scheduled_us == due_us);
                if current {
                    now_us = self.step(index, now_us);
                    self.drain_room(index);
                }
                if now_us.saturating_sub(sent_us) > OUTGOING_WAIT_US {
                    now_us = self.send(now_us);
                    sent_us = now_us;
                }
            }
            self.asked = Duration::ZERO;
            now_us = self.send(now_us);
        }
    }

    /// Sends what the last steps have for players. Gives the time at which that is done. Each of those steps took its part of that, too.
    fn send(&mut self, now_us: u64) -> u64 {
        let begun = self.counters.meter.begin();
        self.outgoing.send(&self.counters);
        let done_us = self.clock.now_us();
        let sent = share(begun, self.stepped.len());
        let sent_us = done_us.saturating_sub(now_us) / (self.stepped.len() as u64).max(1);
        for Stepped { took, took_us } in self.stepped.drain(..) {
            if let Some(took) = took {
                let ns = took.saturating_add(sent).as_nanos();
                self.counters.meter.took(Operation::Step, u64::try_from(ns).unwrap_or(u64::MAX));
            }
            // In whole microseconds, whose remainders cancel out over many steps.
            self.step_us.record(took_us.saturating_add(sent_us));
        }
        done_us
    }

    /// Asks for the memory that the steps of these rooms come to, in rounds: in each for what is behind the pointers that the one before asked for.
    fn warm(&self, turn: &[(u64, usize)]) {
        // One alone would wait for the same in its step.
        let turn = if turn.len() > 1 { turn } else { &[] };
        for place in turn.iter().filter_map(|(_, index)| self.rooms.get(*index)) {
            ask_for(place, prefetch::ask);
        }
        let slots = || turn.iter().filter_map(|(_, index)| self.rooms.get(*index)?.as_ref());
        for slot in slots() {
            slot.room.warm(&slot.rules, prefetch::ask);
            slot.journal.warm(prefetch::ask);
            ask_for(slot.sessions.as_slice(), prefetch::ask);
        }
        slots().for_each(|slot| slot.rules.warm_pages_of_rules(prefetch::ask_many));
        for slot in slots() {
            slot.rules.warm_rules(prefetch::ask_many);
            for id in slot.sessions.iter().flatten() {
                self.sessions.warm(*id);
            }
        }
        for slot in slots() {
            slot.rules.touch_rules();
        }
    }

    /// Steps a room. Gives the time at which that is done.
    fn step(&mut self, index: usize, now_us: u64) -> u64 {
        let stepped = self.with_room(index, now_us, |room, rules, out| room.step(now_us, rules, out));
        stepped.map_or(now_us, |(_, done_us)| done_us)
    }

    /// Lets a room do something from which departures follow, and does what follows from that. Gives also the time at which that is done. None if
    /// there is no such room.
    fn with_room<T>(
        &mut self,
        index: usize,
        now_us: u64,
        act: impl FnOnce(&mut Room, &mut Supervisor, &mut dyn FnMut(Departure<'_>)) -> T,
    ) -> Option<(T, u64)> {
        let begun = self.counters.meter.begin().and_then(|begun| begun.checked_sub(self.asked));
        let slot = self.rooms.get_mut(index).and_then(Option::as_mut)?;
        let late_us = now_us.saturating_sub(slot.scheduled_us);
        let RoomSlot { room, rules, live, journal, feed, sessions, gallery, farewell, budget, sent_to_all, .. } = slot;
        let mut departures = translate::Departures {
            live,
            journal,
            players: sessions,
            spectators: gallery.watching(),
            farewell,
            sessions: &mut self.sessions,
            sent_to_all,
            outgoing: &mut self.outgoing,
            sink: &self.sink,
            counters: &self.counters,
            clock: self.clock,
            budget,
            modules: &mut self.modules,
            shed: &mut self.shed,
            ticked: false,
            journal_ns: 0,
            lost: Vec::new(),
        };
        let mut out = |departure: Departure<'_>| departures.send(departure);
        if let Some(feed) = feed {
            feed.before_step(now_us, room, rules, &mut out);
        }
        let result = act(room, rules, &mut out);
        departures.hand_over();
        let (ticked, lost) = (departures.ticked, departures.lost);
        let took = begun.map(|begun| begun.elapsed());
        if ticked {
            self.lateness_us.record(late_us);
            self.shed.stepped(late_us);
        }
        slot.scheduled_us = u64::MAX;
        if slot.room.next_due_us().is_none() {
            self.close(index);
        } else {
            self.schedule(index);
        }
        // Sessions that could not take a message that must not be lost.
        for id in lost {
            self.detach(id);
        }
        let done_us = self.clock.now_us();
        if ticked {
            self.stepped.push(Stepped { took, took_us: done_us.saturating_sub(now_us) });
        }
        Some((result, done_us))
    }

    fn close(&mut self, index: usize) {
        let Some(mut slot) = self.rooms.get_mut(index).and_then(Option::take) else { return };
        self.places.remove(&slot.live.id);
        self.free_rooms.push(index);
        slot.journal.finish();
        // From here on these sessions have no say: the place of their room may be another's.
        let spectators = slot.gallery.watching().iter().map(|spectator| spectator.session);
        let ids = slot.sessions.into_iter().flatten().chain(spectators);
        let sessions = ids.filter_map(|id| self.sessions.remove(id)).collect();
        self.farewells.say(self.clock.now_us(), &self.sink, slot.farewell, sessions);
        slot.budget.close(&mut self.modules);
        if let Some(beat) = slot.beat {
            self.beats.leave(beat);
        }
        self.counters.note_phase(slot.live.weight, slot.live.phase(), None);
        // Its instance is gone before its place is free: whoever takes the place finds one.
        drop(slot.rules);
        self.registry.forget(&slot.live.id);
    }

    /// Puts a room into the queue of due rooms, if its next due time changed.
    fn schedule(&mut self, index: usize) {
        let Some(slot) = self.rooms.get_mut(index).and_then(Option::as_mut) else { return };
        let Some(due_us) = slot.room.next_due_us() else { return };
        if slot.scheduled_us != due_us {
            slot.scheduled_us = due_us;
            self.due.push(due_us, index);
            if self.due.len() > DUE_ENTRIES_PER_ROOM_MAX * self.rooms.len() {
                self.due = scheduled(&self.rooms);
            }
        }
    }
}

/// The part of each of so many in the time since then; nothing while operations are not timed.
fn share(begun: Option<Instant>, of: usize) -> Duration {
    begun.map_or(Duration::ZERO, |begun| begun.elapsed() / u32::try_from(of).unwrap_or(u32::MAX).max(1))
}

/// The queue of due rooms without left-overs.
fn scheduled(rooms: &[Option<RoomSlot>]) -> Due {
    let mut due = Due::default();
    let open = rooms.iter().enumerate().filter_map(|(index, slot)| Some((slot.as_ref()?.scheduled_us, index)));
    open.filter(|(due_us, _)| *due_us != u64::MAX).for_each(|(due_us, index)| due.push(due_us, index));
    due
}
