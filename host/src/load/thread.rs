//! Threads that have the datagrams of many players on one socket each: a look every millisecond, as a shard does, an answer to every snapshot. A wake-up per
//! datagram would cost more than the host's whole work.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use anyhow::{Context, bail};
use holeshot_client::pacer::{Advice, Pacer};
use holeshot_seal::RingCipher;
use holeshot_wire::datagram::DATAGRAM_BYTES_MAX;
use holeshot_wire::payload::Encode;
use holeshot_wire::{Header, Inputs, Joined, Opener, Reassembler, Sealer, ToClient, ToHost};

use super::{Counters, PLAYERS_MAX};
use crate::bots::crowd::Answer;
use crate::clock::{Clock, wake_promptly};
use crate::limits::receive_buffer::RECEIVE_BUFFER_BYTES;

/// How often a thread looks at its socket, in microseconds.
const LOOK_EVERY_US: u64 = 1_000;
/// Datagrams that are taken in one look.
const DATAGRAMS_PER_LOOK_MAX: usize = 8_192;
/// How often the address is probed until the host has confirmed it, in microseconds: as the client library does.
const PROBE_EVERY_US: u64 = 100_000;
/// How often a payload measures the round trip, in microseconds: as the client library does.
const PING_EVERY_US: u64 = 500_000;
/// Inputs in each datagram, the newest included: as in the client library.
const INPUTS_REPEATED: usize = 8;

/// A player's side of the datagrams.
pub struct Member {
    session: u32,
    host: SocketAddr,
    sealer: Sealer<RingCipher>,
    opener: Opener<RingCipher>,
    joiner: Reassembler,
    pacer: Pacer,
    answer: Answer,
    tick_ms: u32,
    /// The last inputs, newest first.
    inputs: VecDeque<Vec<u8>>,
    is_confirmed: bool,
    newest_snapshot: Option<u32>,
    newest_input: Option<u32>,
    next_probe_us: u64,
    next_ping_us: u64,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("session", &self.session).field("host", &self.host).finish_non_exhaustive()
    }
}

impl Member {
    pub(super) fn new(
        session: u32,
        host: SocketAddr,
        sealer: Sealer<RingCipher>,
        opener: Opener<RingCipher>,
        tick_hz: u16,
        answer: Answer,
    ) -> Self {
        Self {
            session,
            host,
            sealer,
            opener,
            joiner: Reassembler::new(),
            pacer: Pacer::new(tick_hz),
            answer,
            tick_ms: 1_000 / u32::from(tick_hz.max(1)),
            inputs: VecDeque::with_capacity(INPUTS_REPEATED),
            is_confirmed: false,
            newest_snapshot: None,
            newest_input: None,
            next_probe_us: 0,
            next_ping_us: 0,
        }
    }
}

/// The threads. They end when this is gone.
#[derive(Debug)]
pub(super) struct Threads {
    members: Vec<SyncSender<Box<Member>>>,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Threads {
    pub(super) fn start(count: usize, counters: &Arc<Counters>) -> anyhow::Result<Self> {
        let mut all = Self { members: Vec::new(), threads: Vec::new() };
        for number in 0..count {
            let (members, new) = sync_channel(PLAYERS_MAX);
            let counters = Arc::clone(counters);
            let thread = std::thread::Builder::new().name(format!("players-{number}"));
            all.threads.push(thread.spawn(move || Thread::run(&new, &counters)).context("no thread for players")?);
            all.members.push(members);
        }
        Ok(all)
    }

    /// Gives a member to the thread whose turn it is.
    pub(super) fn add(&self, number: usize, member: Member) -> anyhow::Result<()> {
        let thread = self.members.get(number % self.members.len().max(1)).context("no threads")?;
        if thread.try_send(Box::new(member)).is_err() {
            bail!("a thread of players has ended, or does not keep up");
        }
        Ok(())
    }

    pub(super) fn join(self) -> anyhow::Result<()> {
        drop(self.members);
        for thread in self.threads {
            match thread.join() {
                Ok(ended) => ended?,
                Err(_) => bail!("a thread of players panicked"),
            }
        }
        Ok(())
    }
}

/// What a thread has.
struct Thread<'a> {
    clock: Clock,
    counters: &'a Counters,
    /// Made for the first member, whose host says which kind of address.
    socket: Option<UdpSocket>,
    members: Vec<Member>,
    by_session: HashMap<u32, usize>,
    payload: Vec<u8>,
    datagram: Vec<u8>,
}

impl Thread<'_> {
    fn run(new: &Receiver<Box<Member>>, counters: &Counters) -> anyhow::Result<()> {
        wake_promptly();
        let mut thread = Thread {
            clock: Clock::start(),
            counters,
            socket: None,
            members: Vec::new(),
            by_session: HashMap::new(),
            payload: Vec::new(),
            datagram: Vec::with_capacity(DATAGRAM_BYTES_MAX),
        };
        loop {
            let due_us = thread.clock.now_us() + LOOK_EVERY_US;
            loop {
                match new.try_recv() {
                    Ok(member) => thread.add(member)?,
                    Err(TryRecvError::Empty) => break,
                    // Whoever plays with this thread is gone.
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            thread.take();
            thread.keep();
            thread.clock.sleep_until(due_us);
            counters.late_us_max.fetch_max(thread.clock.now_us().saturating_sub(due_us), Ordering::Relaxed);
        }
    }

    fn add(&mut self, member: Box<Member>) -> anyhow::Result<()> {
        if self.socket.is_none() {
            let any: SocketAddr = match member.host {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any).context("no socket for players")?;
            socket.set_nonblocking(true)?;
            // What the system refuses shows as snapshots that were missed.
            let _refused = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
            self.socket = Some(socket);
        }
        self.by_session.insert(member.session, self.members.len());
        self.members.push(*member);
        Ok(())
    }

    /// Takes what came.
    fn take(&mut self) {
        let Self { clock, counters, socket, members, by_session, payload, datagram } = self;
        let Some(socket) = socket else { return };
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        for _ in 0..DATAGRAMS_PER_LOOK_MAX {
            // Nothing there, or an answer of the system to what was sent; the next look shows.
            let Ok((len, _)) = socket.recv_from(&mut buffer) else { return };
            let came = buffer.get_mut(..len).unwrap_or_default();
            let member = Header::peek(came).ok().and_then(|header| by_session.get(&header.session));
            let Some(member) = member.and_then(|at| members.get_mut(*at)) else {
                counters.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let mut out = Out { socket, counters, payload, datagram };
            if member.take(came, clock.now_us(), &mut out).is_none() {
                counters.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Probes addresses that are not confirmed, and measures round trips.
    fn keep(&mut self) {
        let Self { clock, counters, socket, members, payload, datagram, .. } = self;
        let Some(socket) = socket else { return };
        let now_us = clock.now_us();
        for member in members {
            let mut out = Out { socket, counters, payload, datagram };
            if !member.is_confirmed && now_us >= member.next_probe_us {
                member.next_probe_us = now_us + PROBE_EVERY_US;
                out.send(&mut member.sealer, member.host, &ToHost::Probe);
            } else if member.is_confirmed && now_us >= member.next_ping_us {
                member.next_ping_us = now_us + PING_EVERY_US;
                out.send(&mut member.sealer, member.host, &ToHost::Ping(now_us));
            }
        }
    }
}

/// Where datagrams go, with the buffers to make them in.
struct Out<'a> {
    socket: &'a UdpSocket,
    counters: &'a Counters,
    payload: &'a mut Vec<u8>,
    datagram: &'a mut Vec<u8>,
}

impl Out<'_> {
    fn send(&mut self, sealer: &mut Sealer<RingCipher>, to: SocketAddr, payload: &impl Encode) {
        if sealer.seal(payload, self.datagram).is_ok() {
            self.send_sealed(to);
        }
    }

    fn send_sealed(&mut self, to: SocketAddr) {
        if self.socket.send_to(self.datagram, to).is_err() {
            self.counters.datagrams_unsent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Member {
    /// Takes a datagram; none if it is not the host's.
    fn take(&mut self, datagram: &mut [u8], now_us: u64, out: &mut Out<'_>) -> Option<()> {
        let Self { opener, joiner, .. } = self;
        let opened = opener.open(datagram).ok()?;
        match ToClient::decode(opened.payload).ok()? {
            ToClient::Challenge(bytes) => {
                self.is_confirmed = true;
                out.send(&mut self.sealer, self.host, &ToHost::Response(bytes));
            }
            ToClient::Pong(sent_us) => self.pacer.on_rtt(now_us.saturating_sub(sent_us)),
            ToClient::Snapshot(part) => {
                let Joined::Whole(whole) = joiner.push(&part) else { return Some(()) };
                let frame = whole.frame;
                let missed = self.newest_snapshot.map_or(0, |newest| frame.saturating_sub(newest.saturating_add(1)));
                self.newest_snapshot = Some(frame);
                out.counters.snapshots.fetch_add(1, Ordering::Relaxed);
                out.counters.snapshots_missed.fetch_add(u64::from(missed), Ordering::Relaxed);
                let advice = Advice { margin_ms: whole.margin_ms, newest_input_frame: whole.newest_input_frame };
                self.pacer.on_snapshot(frame, advice, now_us);
                let delay_ms = self.pacer.lead_frames().saturating_mul(self.tick_ms);
                let input = (self.answer)(whole.bytes, delay_ms);
                if let (Some(input), Some(frame)) = (input, self.pacer.take_frame(now_us)) {
                    self.say(frame, input, out);
                }
            }
        }
        Some(())
    }

    /// Sends an input for a frame. Frames that were skipped get the same.
    fn say(&mut self, frame: u32, input: Vec<u8>, out: &mut Out<'_>) {
        let new = self.newest_input.map_or(1, |newest| frame.saturating_sub(newest).max(1));
        for _ in 0..new.min(INPUTS_REPEATED as u32) {
            self.inputs.push_front(input.clone());
        }
        self.inputs.truncate(INPUTS_REPEATED);
        self.newest_input = Some(frame);
        let inputs = self.inputs.iter().map(Vec::as_slice);
        if Inputs::write(frame, self.newest_snapshot, inputs, out.payload).is_ok()
            && self.sealer.seal_bytes(out.payload, out.datagram).is_ok()
        {
            out.send_sealed(self.host);
            out.counters.inputs.fetch_add(u64::from(new), Ordering::Relaxed);
        }
    }
}
