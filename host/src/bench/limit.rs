//! The limit that `holeshot bench rooms` is measured against: the same datagrams as rooms and players send each other, of the same sizes and at the same rates,
//! received, opened, sealed and sent by a bare loop on one thread, in a process of its own. No rooms, no rules, no journal, no events: what is left is what the
//! system and the seal take, and no host can do with less.
//!
//! Host and players are the same loop here ([`End`]): a look every millisecond, as a shard's, takes what came and sends what is due. The keys come from
//! handshakes that both sides make from the same numbers: nothing here is secret.

use std::io::{BufRead, BufReader, Write, stdin};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use holeshot_seal::RingCipher;
use holeshot_wire::datagram::{DATAGRAM_BYTES_MAX, HEADER_BYTES, PAYLOAD_BYTES_MAX, TAG_BYTES};
use holeshot_wire::{ClientHandshake, HandshakeError, Header, HostKeypair, Opener, Sealer, accept};
use serde::{Deserialize, Serialize};

use crate::child::this_program;
use crate::clock::{Clock, wake_promptly};
use crate::limits::receive_buffer::RECEIVE_BUFFER_BYTES;
use crate::load::PLAYERS_MAX;
use crate::metrics::process::Process;

/// How often the loop looks, in microseconds: as a shard does.
const LOOK_EVERY_US: u64 = 1_000;
/// Datagrams taken in one look: as in one pass of a shard.
const DATAGRAMS_PER_LOOK_MAX: usize = 4_096;
/// What may be owed is cut at so many seconds' worth: a loop that was kept from its core for longer sends no burst.
const OWED_S_MAX: f64 = 0.1;
/// How long it may take until every player has been heard, in seconds: the keys of thousands are made first.
const START_WAIT_MAX_S: u64 = 120;
/// How long both sides run before they are measured, in milliseconds.
const SETTLE_MS: u64 = 300;
/// How often is looked whether every player has been heard, in milliseconds.
const LOOK_MS: u64 = 20;
/// Datagrams a second of one player: more than any client sends.
const PER_PLAYER_MAX: f64 = 10_000.0;

/// What goes back and forth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flow {
    /// Players.
    pub sessions: u32,
    /// Datagrams a second that all of them together send to the host.
    pub received_per_s: f64,
    /// Bytes of each, header and tag included.
    pub received_bytes: usize,
    /// Datagrams a second that the host sends to all of them together.
    pub sent_per_s: f64,
    /// Bytes of each, header and tag included.
    pub sent_bytes: usize,
}

/// What the bare loop took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measured {
    /// User time of its process, in seconds.
    pub user_s: f64,
    /// System time.
    pub system_s: f64,
    /// How long it was measured, in seconds.
    pub seconds: f64,
    /// Datagrams that it opened in that time.
    pub received: u64,
    /// Datagrams that it sent.
    pub sent: u64,
    /// Datagrams that did not open; there should be none.
    pub refused: u64,
    /// How much later than it wanted it looked, at worst, in microseconds.
    pub late_us_max: u64,
}

/// What a loop counts.
#[derive(Debug, Default)]
struct Counters {
    received: AtomicU64,
    refused: AtomicU64,
    sent: AtomicU64,
    known: AtomicU64,
    late_us_max: AtomicU64,
}

/// What the program says when it is asked.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Said {
    port: u16,
    received: u64,
    refused: u64,
    sent: u64,
    known: u64,
    late_us_max: u64,
}

/// Measures the bare loop with these datagrams for so long. Blocks.
///
/// # Errors
/// A flow out of range, or a program that does not do what it should.
pub fn measure(flow: &Flow, seconds: Duration) -> anyhow::Result<Measured> {
    check(flow)?;
    let mut program = Program::start(flow)?;
    let host = SocketAddr::from((Ipv4Addr::LOCALHOST, program.ask()?.port));
    let players = Players::start(flow, host)?;
    let give_up = Instant::now() + Duration::from_secs(START_WAIT_MAX_S);
    while program.ask()?.known < u64::from(flow.sessions) {
        if Instant::now() > give_up {
            bail!("not every player of the limit program was heard within {START_WAIT_MAX_S} s");
        }
        std::thread::sleep(Duration::from_millis(LOOK_MS));
    }
    std::thread::sleep(Duration::from_millis(SETTLE_MS));
    let process = || Process::of(program.child.id()).context("the system does not tell the time of a process");
    let (before, begun) = (process()?, Instant::now());
    let said_before = program.ask()?;
    std::thread::sleep(seconds);
    let said = program.ask()?;
    let (after, took) = (Process::of(program.child.id()).context("the limit program is gone")?, begun.elapsed());
    players.stop()?;
    Ok(Measured {
        user_s: after.user_s - before.user_s,
        system_s: after.system_s - before.system_s,
        seconds: took.as_secs_f64(),
        received: said.received.saturating_sub(said_before.received),
        sent: said.sent.saturating_sub(said_before.sent),
        refused: said.refused.saturating_sub(said_before.refused),
        late_us_max: said.late_us_max,
    })
}

/// The limit program itself: `holeshot bench limit`, which nobody calls by hand. Runs until its standard input ends, and says what it counted whenever a line
/// comes.
///
/// # Errors
/// A flow out of range, or no socket.
pub fn run(flow: &Flow) -> anyhow::Result<()> {
    check(flow)?;
    let socket = socket()?;
    let port = socket.local_addr()?.port();
    let counters = Arc::<Counters>::default();
    let peers = peers(flow.sessions, Side::Host)?;
    let end = End::new(socket, peers, payload_bytes(flow.sent_bytes), flow.sent_per_s, Arc::clone(&counters));
    let stop = Arc::<AtomicBool>::default();
    let (thread, _stop) = spawn(end, &stop)?;
    for line in stdin().lock().lines() {
        if line.is_err() || thread.is_finished() {
            break;
        }
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let said = Said {
            port,
            received: read(&counters.received),
            refused: read(&counters.refused),
            sent: read(&counters.sent),
            known: read(&counters.known),
            late_us_max: read(&counters.late_us_max),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&said)?)?;
        out.flush()?;
    }
    stop.store(true, Ordering::Relaxed);
    thread.join().map_err(|_| anyhow::anyhow!("the loop ended by a fault"))
}

fn check(flow: &Flow) -> anyhow::Result<()> {
    let Flow { sessions, received_per_s, received_bytes, sent_per_s, sent_bytes } = *flow;
    let most = f64::from(sessions) * PER_PLAYER_MAX;
    let sizes = HEADER_BYTES + TAG_BYTES + 1..=DATAGRAM_BYTES_MAX;
    if sessions == 0 || sessions as usize > PLAYERS_MAX {
        bail!("1 to {PLAYERS_MAX} players can be played, not {sessions}");
    }
    if ![received_per_s, sent_per_s].iter().all(|per_s| (0.0..=most).contains(per_s)) {
        bail!("0 to {most} datagrams a second can be sent, not {received_per_s} and {sent_per_s}");
    }
    if !sizes.contains(&received_bytes) || !sizes.contains(&sent_bytes) {
        bail!("a datagram has {} to {} bytes, not {received_bytes} or {sent_bytes}", sizes.start(), sizes.end());
    }
    Ok(())
}

const fn payload_bytes(datagram_bytes: usize) -> usize {
    datagram_bytes.saturating_sub(HEADER_BYTES + TAG_BYTES)
}

/// The limit program in a process of its own, which ends with this value.
struct Program {
    child: Child,
    ask: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Program {
    fn start(flow: &Flow) -> anyhow::Result<Self> {
        let mut command = this_program()?;
        command.args(["bench", "limit", "--log", "error"]);
        for (flag, value) in [
            ("--sessions", flow.sessions.to_string()),
            ("--received-per-s", flow.received_per_s.to_string()),
            ("--received-bytes", flow.received_bytes.to_string()),
            ("--sent-per-s", flow.sent_per_s.to_string()),
            ("--sent-bytes", flow.sent_bytes.to_string()),
        ] {
            command.args([flag, &value]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().context("the limit program does not start")?;
        let (ask, said) = (child.stdin.take(), child.stdout.take());
        let Some((ask, said)) = ask.zip(said) else { bail!("the limit program has no pipes") };
        Ok(Self { child, ask, said: BufReader::new(said) })
    }

    fn ask(&mut self) -> anyhow::Result<Said> {
        let ended = "the limit program has ended; what it says about that is above";
        self.ask.write_all(b"\n").context(ended)?;
        self.ask.flush().context(ended)?;
        let mut line = String::new();
        self.said.read_line(&mut line).context(ended)?;
        serde_json::from_str(&line).context(ended)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The players of the limit program, in this process.
struct Players {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl Players {
    fn start(flow: &Flow, host: SocketAddr) -> anyhow::Result<Self> {
        let mut peers = peers(flow.sessions, Side::Player)?;
        peers.iter_mut().for_each(|peer| peer.to = Some(host));
        let bytes = payload_bytes(flow.received_bytes);
        let end = End::new(socket()?, peers, bytes, flow.received_per_s, Arc::default());
        let (thread, stop) = spawn(end, &Arc::default())?;
        Ok(Self { thread, stop })
    }

    fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the players of the limit program ended by a fault"))
    }
}

fn spawn(mut end: End, stop: &Arc<AtomicBool>) -> anyhow::Result<(JoinHandle<()>, Arc<AtomicBool>)> {
    let until = Arc::clone(stop);
    let thread = std::thread::Builder::new().name("limit".into());
    let thread = thread.spawn(move || end.run(&until)).context("no thread for the limit program")?;
    Ok((thread, Arc::clone(stop)))
}

fn socket() -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("no socket for the limit program")?;
    socket.set_nonblocking(true)?;
    // What the system refuses shows as datagrams that did not come.
    let _refused = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    Ok(socket)
}

/// Whose end it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Host,
    Player,
}

/// One session, seen from one end.
struct Peer {
    sealer: Sealer<RingCipher>,
    opener: Opener<RingCipher>,
    /// Where the other end is; a host learns it from the first datagram that opens.
    to: Option<SocketAddr>,
}

fn peers(sessions: u32, side: Side) -> Result<Vec<Peer>, HandshakeError> {
    let keypair = HostKeypair::from_private([3; 32])?;
    let numbers = |number: u32| {
        let mut bytes = [5; 32];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        bytes
    };
    let peer = |session: u32| {
        let (handshake, asked) = ClientHandshake::start(&keypair.public(), "limit", numbers(session))?;
        let (keys, answered) = accept(&keypair, "limit", &asked, numbers(!session))?;
        let (sealer, opener) = match side {
            Side::Host => keys.into_host_with(session),
            Side::Player => handshake.finish(&answered)?.into_client_with(session),
        };
        Ok(Peer { sealer, opener, to: None })
    };
    (0..sessions).map(peer).collect()
}

/// One end: a socket, and all sessions on it.
struct End {
    clock: Clock,
    socket: UdpSocket,
    peers: Vec<Peer>,
    payload: Vec<u8>,
    per_s: f64,
    /// Whose turn it is to be sent something.
    next: usize,
    datagram: Vec<u8>,
    counters: Arc<Counters>,
}

impl End {
    fn new(socket: UdpSocket, peers: Vec<Peer>, bytes: usize, per_s: f64, counters: Arc<Counters>) -> Self {
        // Something that no compression and no shortcut makes smaller: numbers in turn.
        let payload = (0..bytes.clamp(1, PAYLOAD_BYTES_MAX)).map(|at| at as u8).collect();
        let datagram = Vec::with_capacity(DATAGRAM_BYTES_MAX);
        Self { clock: Clock::start(), socket, peers, payload, per_s, next: 0, datagram, counters }
    }

    fn run(&mut self, stop: &AtomicBool) {
        wake_promptly();
        let (mut owed, mut sent_us) = (0.0, self.clock.now_us());
        while !stop.load(Ordering::Relaxed) {
            let due_us = (self.clock.now_us() / LOOK_EVERY_US).saturating_add(1).saturating_mul(LOOK_EVERY_US);
            self.clock.sleep_until(due_us);
            let now_us = self.clock.now_us();
            self.counters.late_us_max.fetch_max(now_us.saturating_sub(due_us), Ordering::Relaxed);
            self.receive();
            owed += self.per_s * now_us.saturating_sub(sent_us) as f64 / 1e6;
            owed = owed.min(self.per_s * OWED_S_MAX);
            sent_us = now_us;
            while owed >= 1.0 {
                owed -= 1.0;
                self.send();
            }
        }
    }

    fn receive(&mut self) {
        let Self { socket, peers, counters, .. } = self;
        let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
        for _ in 0..DATAGRAMS_PER_LOOK_MAX {
            let Ok((len, from)) = socket.recv_from(&mut buffer) else { return };
            let came = buffer.get_mut(..len).unwrap_or_default();
            let session = Header::peek(came).ok().and_then(|header| usize::try_from(header.session).ok());
            let peer = session.and_then(|session| peers.get_mut(session));
            let opened = peer.and_then(|peer| peer.opener.open(came).is_ok().then_some(peer));
            let counter = match opened {
                Some(peer) => {
                    if peer.to.is_none() {
                        peer.to = Some(from);
                        count(&counters.known);
                    }
                    &counters.received
                }
                None => &counters.refused,
            };
            count(counter);
        }
    }

    /// Sends to whose turn it is; to nobody if it is not known where that one is.
    fn send(&mut self) {
        let Self { socket, peers, payload, next, datagram, counters, .. } = self;
        let at = *next;
        *next = (at + 1) % peers.len().max(1);
        let Some(Peer { sealer, to: Some(to), .. }) = peers.get_mut(at) else { return };
        if sealer.seal_bytes(payload, datagram).is_ok() && socket.send_to(datagram, *to).is_ok() {
            count(&counters.sent);
        }
    }
}

/// Counts one more. The loop alone writes, so it needs no operation that keeps other threads away.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: Flow =
        Flow { sessions: 3, received_per_s: 300.0, received_bytes: 90, sent_per_s: 200.0, sent_bytes: 130 };

    #[test]
    fn both_ends_hear_each_other_at_the_rates_and_sizes_that_were_asked_for() {
        let (host, players) = (socket().unwrap(), socket().unwrap());
        let address = host.local_addr().unwrap();
        let (of_host, of_players) = (Arc::<Counters>::default(), Arc::<Counters>::default());
        let bytes = |side, bytes| (peers(FLOW.sessions, side).unwrap(), payload_bytes(bytes));
        let ((host_peers, sent), (mut player_peers, received)) =
            (bytes(Side::Host, FLOW.sent_bytes), bytes(Side::Player, FLOW.received_bytes));
        player_peers.iter_mut().for_each(|peer| peer.to = Some(address));
        let stop = Arc::<AtomicBool>::default();
        let host_end = End::new(host, host_peers, sent, FLOW.sent_per_s, Arc::clone(&of_host));
        let player_end = End::new(players, player_peers, received, FLOW.received_per_s, Arc::clone(&of_players));
        let threads = [spawn(host_end, &stop).unwrap().0, spawn(player_end, &stop).unwrap().0];
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let give_up = Instant::now() + Duration::from_secs(60);
        while read(&of_host.received) < 60 || read(&of_players.received) < 40 {
            assert!(Instant::now() < give_up, "{of_host:?} {of_players:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!((read(&of_host.known), read(&of_host.refused), read(&of_players.refused)), (3, 0, 0));
        assert!(read(&of_host.received) <= read(&of_players.sent) && read(&of_players.received) <= read(&of_host.sent));
    }

    #[test]
    fn a_flow_out_of_range_is_refused() {
        assert!(check(&FLOW).is_ok());
        for flow in [
            Flow { sessions: 0, ..FLOW },
            Flow { sessions: u32::MAX, ..FLOW },
            Flow { received_per_s: f64::NAN, ..FLOW },
            Flow { sent_per_s: 1e9, ..FLOW },
            Flow { sent_bytes: 29, ..FLOW },
            Flow { received_bytes: 1_201, ..FLOW },
        ] {
            assert!(check(&flow).is_err(), "{flow:?}");
        }
    }
}
