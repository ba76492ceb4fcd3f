//! Threads that have the datagrams of many players on a few sockets each: a look every millisecond, as a shard does, an answer to every snapshot. A wake-up per
//! datagram would cost more than the host's whole work.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, bail};
use holeshot_wire::Header;
use holeshot_wire::datagram::DATAGRAM_BYTES_MAX;
use tokio::sync::oneshot;

use super::impairment::Waiting;
use super::ledger::Ledger;
use super::member::{Member, OnTheWay, Out, Travelling};
use super::{PLAYERS_MAX, Tally};
use crate::clock::{Clock, wake_promptly};
use crate::limits::drops::{dropped, inode};
use crate::limits::receive_buffer::{RECEIVE_BUFFER_BYTES, ask_receive_buffer};

/// How often a thread looks at its sockets, in microseconds.
const LOOK_EVERY_US: u64 = 1_000;
/// Datagrams that are taken off a socket in one look: more than its buffer holds.
const DATAGRAMS_PER_LOOK_MAX: usize = 16_384;
/// Datagrams that are looked at together before the first of them is worked on: a processor has some dozens of reads under way at a time.
const DATAGRAMS_PER_TURN: usize = 8;
/// Orders that wait for a thread: each player has one of each kind at most.
const ORDERS_QUEUED_MAX: usize = 4 * PLAYERS_MAX;

/// What a thread is told.
pub(super) enum Order {
    /// Play for this player.
    Add(Box<Member>),
    /// Send the last inputs of this session often enough, and say when the host has stepped them.
    Quiet(u32, oneshot::Sender<()>),
    /// The game of this session is over: send nothing more.
    Silence(u32),
    /// Forget this session, and give its account.
    Remove(u32, oneshot::Sender<Ledger>),
}

/// The way to the threads. They end when the last copy is gone.
#[derive(Clone)]
pub(super) struct Orders {
    threads: Arc<[SyncSender<Order>]>,
}

impl std::fmt::Debug for Orders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orders").field("threads", &self.threads.len()).finish()
    }
}

impl Orders {
    /// Tells the thread that has the player with this number.
    pub(super) fn give(&self, number: usize, order: Order) -> anyhow::Result<()> {
        let thread = self.threads.get(number % self.threads.len().max(1)).context("no threads")?;
        if thread.try_send(order).is_err() {
            bail!("a thread of players has ended, or does not keep up");
        }
        Ok(())
    }
}

/// The threads, and what they count.
#[derive(Debug)]
pub(super) struct Threads {
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
    tallies: Vec<Arc<Mutex<Tally>>>,
}

impl Threads {
    pub(super) fn start(count: usize, players_per_socket: usize) -> anyhow::Result<(Self, Orders)> {
        let mut all = Self { threads: Vec::new(), tallies: Vec::new() };
        let mut ways = Vec::new();
        for number in 0..count {
            let (orders, queue) = sync_channel(ORDERS_QUEUED_MAX);
            let tally = Arc::<Mutex<Tally>>::default();
            let own = Arc::clone(&tally);
            let thread = std::thread::Builder::new().name(format!("players-{number}"));
            all.threads.push(
                thread
                    .spawn(move || Thread::new(&own, players_per_socket).run(&queue))
                    .context("no thread for players")?,
            );
            all.tallies.push(tally);
            ways.push(orders);
        }
        Ok((all, Orders { threads: ways.into() }))
    }

    /// What all of them counted so far.
    pub(super) fn tally(&self) -> Tally {
        let mut all = Tally::default();
        for tally in &self.tallies {
            all.add(&locked(tally));
        }
        all
    }

    /// Datagrams that the system dropped before they read them; none where it does not say.
    pub(super) fn dropped(&self) -> Option<u64> {
        let sockets =
            self.tallies.iter().flat_map(|tally| locked(tally).sockets.clone()).collect::<Option<Vec<_>>>()?;
        Some(dropped(&sockets)?.into_iter().sum())
    }

    /// Waits for their end, after the last of their [`Orders`] is gone.
    pub(super) fn join(self) -> anyhow::Result<()> {
        for thread in self.threads {
            match thread.join() {
                Ok(ended) => ended?,
                Err(_) => bail!("a thread of players panicked"),
            }
        }
        Ok(())
    }
}

/// Reads what these members will need.
fn warm(members: &[Option<Member>], places: impl Iterator<Item = usize>) {
    let read = places.filter_map(|place| members.get(place)?.as_ref()).fold(0, |sum, member| sum ^ member.warm());
    // Nobody wants the sum, only that it was made.
    std::hint::black_box(read);
}

fn locked(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    // Nothing panics while it is held; if it did, counters would still be whole.
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a thread has.
struct Thread<'a> {
    clock: Clock,
    /// Nobody else asks for it but whoever reads the figures, a few times in a second.
    tally: &'a Mutex<Tally>,
    players_per_socket: usize,
    sockets: Vec<UdpSocket>,
    /// Players on each socket.
    on_socket: Vec<usize>,
    members: Vec<Option<Member>>,
    /// When each wants to be looked at: read a thousand times in a second, so they lie together.
    next_us: Vec<u64>,
    free: Vec<usize>,
    places: HashMap<u32, usize>,
    waiting: Waiting<OnTheWay>,
    payload: Vec<u8>,
    datagram: Vec<u8>,
    /// What the bad network lets through.
    through: Vec<u8>,
}

impl<'a> Thread<'a> {
    fn new(tally: &'a Mutex<Tally>, players_per_socket: usize) -> Self {
        Self {
            players_per_socket,
            clock: Clock::start(),
            tally,
            sockets: Vec::new(),
            on_socket: Vec::new(),
            members: Vec::new(),
            next_us: Vec::new(),
            free: Vec::new(),
            places: HashMap::new(),
            waiting: Waiting::new(),
            payload: Vec::new(),
            datagram: Vec::with_capacity(DATAGRAM_BYTES_MAX),
            through: Vec::with_capacity(DATAGRAM_BYTES_MAX),
        }
    }

    fn run(mut self, orders: &Receiver<Order>) -> anyhow::Result<()> {
        wake_promptly();
        let mut due_us = self.clock.now_us();
        loop {
            let begun_us = self.clock.now_us();
            loop {
                match orders.try_recv() {
                    Ok(order) => self.obey(order)?,
                    Err(TryRecvError::Empty) => break,
                    // Whoever plays with this thread is gone.
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            let tally = self.tally;
            let mut tally = locked(tally);
            tally.late_us_max = tally.late_us_max.max(begun_us.saturating_sub(due_us));
            self.receive(due_us, &mut tally);
            self.release(due_us, &mut tally);
            self.keep(due_us, &mut tally);
            drop(tally);
            // What was missed is not made up for: the next look takes what came.
            due_us = begun_us.max(due_us) + LOOK_EVERY_US;
            self.clock.sleep_until(due_us);
        }
    }

    fn obey(&mut self, order: Order) -> anyhow::Result<()> {
        match order {
            Order::Add(member) => self.add(*member)?,
            Order::Quiet(session, done) => {
                // Without the session `done` is dropped, which tells as much.
                self.tell(session, |member| member.quiet(done));
            }
            Order::Silence(session) => self.tell(session, Member::silence),
            Order::Remove(session, reply) => {
                let place = self.places.remove(&session);
                let member = place.and_then(|place| self.members.get_mut(place)?.take());
                if let (Some(place), Some(member)) = (place, member) {
                    self.free.push(place);
                    if let Some(on_socket) = self.on_socket.get_mut(member.socket) {
                        *on_socket = on_socket.saturating_sub(1);
                    }
                    let _nobody_asks = reply.send(member.into_ledger());
                }
            }
        }
        Ok(())
    }

    fn tell(&mut self, session: u32, what: impl FnOnce(&mut Member)) {
        let place = self.places.get(&session).copied();
        if let Some(place) = place
            && let Some(Some(member)) = self.members.get_mut(place)
        {
            what(member);
            if let Some(next_us) = self.next_us.get_mut(place) {
                *next_us = member.next_us();
            }
        }
    }

    fn add(&mut self, mut member: Member) -> anyhow::Result<()> {
        member.socket = self.socket_for(member.host())?;
        let place = self.free.pop().unwrap_or(self.members.len());
        if place == self.members.len() {
            self.members.push(None);
            self.next_us.push(0);
        }
        self.places.insert(member.session(), place);
        if let (Some(slot), Some(next_us)) = (self.members.get_mut(place), self.next_us.get_mut(place)) {
            (*slot, *next_us) = (Some(member), 0);
        }
        Ok(())
    }

    /// A socket with a place that leads to this address.
    fn socket_for(&mut self, host: SocketAddr) -> anyhow::Result<usize> {
        let mut sockets = self.sockets.iter().zip(&mut self.on_socket).enumerate();
        let found = sockets.find(|(_, (socket, players))| {
            **players < self.players_per_socket && socket.peer_addr().is_ok_and(|peer| peer == host)
        });
        if let Some((index, (_, players))) = found {
            *players += 1;
            return Ok(index);
        }
        let any: SocketAddr = match host {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).context("no socket for players")?;
        socket.set_nonblocking(true)?;
        // As the client library's is: the system then looks for the way once, and not for every datagram.
        socket.connect(host).with_context(|| format!("no way to {host}"))?;
        // What the system refuses shows as datagrams that it dropped.
        let _granted = ask_receive_buffer(&socket, RECEIVE_BUFFER_BYTES);
        locked(self.tally).sockets.push(inode(&socket));
        self.sockets.push(socket);
        self.on_socket.push(1);
        Ok(self.sockets.len() - 1)
    }

    /// Takes what came.
    fn receive(&mut self, due_us: u64, tally: &mut Tally) {
        let Self { clock, sockets, members, next_us, places, waiting, payload, datagram, .. } = self;
        let mut buffers = [[0; DATAGRAM_BYTES_MAX]; DATAGRAMS_PER_TURN];
        for socket in sockets.iter() {
            let mut is_empty = false;
            for _ in 0..DATAGRAMS_PER_LOOK_MAX / DATAGRAMS_PER_TURN {
                let mut turn = [(0, None); DATAGRAMS_PER_TURN];
                let mut taken = 0;
                for ((bytes, place), buffer) in turn.iter_mut().zip(&mut buffers) {
                    // Nothing there, or an answer of the system to what was sent; the next look shows.
                    let Ok(len) = socket.recv(buffer) else {
                        is_empty = true;
                        break;
                    };
                    taken += 1;
                    let came = buffer.get(..len).unwrap_or_default();
                    *place = Header::peek(came).ok().and_then(|header| places.get(&header.session).copied());
                    *bytes = len;
                }
                warm(members, turn.iter().take(taken).filter_map(|(_, place)| *place));
                for ((bytes, place), buffer) in turn.into_iter().zip(&mut buffers).take(taken) {
                    let came = buffer.get_mut(..bytes).unwrap_or_default();
                    let member = place.and_then(|place| Some((place, members.get_mut(place)?.as_mut()?)));
                    let Some((place, member)) = member else {
                        // Most often a player whose game is over.
                        tally.refused += 1;
                        continue;
                    };
                    let mut out = Out { clock: *clock, due_us, place, sockets, tally, waiting, payload, datagram };
                    if member.arrive(came, &mut out).is_none() {
                        tally.refused += 1;
                    }
                    if let Some(next_us) = next_us.get_mut(place) {
                        *next_us = member.next_us();
                    }
                }
                if is_empty {
                    break;
                }
            }
        }
    }

    /// Lets through what has waited long enough in the bad network.
    fn release(&mut self, due_us: u64, tally: &mut Tally) {
        let Self { clock, sockets, members, next_us, waiting, payload, datagram, through, .. } = self;
        let now_us = clock.now_us();
        let mut warmed = 0;
        while let Some((left_us, OnTheWay { place, session, what })) = waiting.pop_due(now_us, through) {
            if warmed == 0 {
                warm(members, waiting.upcoming().take(DATAGRAMS_PER_TURN).map(|on_the_way| on_the_way.place));
                warmed = DATAGRAMS_PER_TURN;
            }
            warmed -= 1;
            let member = members.get_mut(place).and_then(Option::as_mut);
            // Its place may be another's by now.
            let Some(member) = member.filter(|member| member.session() == session) else { continue };
            let mut out = Out { clock: *clock, due_us, place, sockets, tally, waiting, payload, datagram };
            match what {
                Travelling::Up { inputs } => member.hand_over(through, inputs, left_us, &mut out),
                Travelling::Down { sequence } => member.take(through, sequence, &mut out),
            }
            if let Some(next_us) = next_us.get_mut(place) {
                *next_us = member.next_us();
            }
        }
    }

    /// Lets those do something who want to.
    fn keep(&mut self, due_us: u64, tally: &mut Tally) {
        let Self { clock, sockets, members, next_us, waiting, payload, datagram, .. } = self;
        let now_us = clock.now_us();
        for (place, (next_us, member)) in next_us.iter_mut().zip(members.iter_mut()).enumerate() {
            if *next_us > now_us {
                continue;
            }
            *next_us = u64::MAX;
            let Some(member) = member else { continue };
            let mut out = Out { clock: *clock, due_us, place, sockets, tally, waiting, payload, datagram };
            member.keep(&mut out);
            *next_us = member.next_us();
        }
    }
}
