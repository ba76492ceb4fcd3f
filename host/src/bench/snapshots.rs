//! `holeshot bench snapshots`: what snapshots are on the wire, whole and as deltas, and what either costs. Bots play each game that ships once, in a room as a
//! host has it and on a clock that is only counted; what left the room then goes through the code that a shard and a client use.
//!
//! How old the base of a delta is depends on the round trip: each delay is a row. An acknowledgement is never lost here; what is lost makes the next base
//! older. Whole and delta take turns by frames, so that whatever else the machine does meets both, and every snapshot that comes back is held against
//! the one that was sent.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Instant;

use arena::Arena;
use drag_race::DragRace;
use holeshot_abi::{PlayerSetup, Setup};
use holeshot_room::{Arrival, Departure, Limits, Program, Room, RoomConfig, Supervision, Supervisor};
use holeshot_seal::RingCipher;
use holeshot_wire::datagram::{DATAGRAM_BYTES_MAX, HEADER_BYTES, TAG_BYTES};
use holeshot_wire::delta::DELTA_AGE_FRAMES_MAX;
use holeshot_wire::payload::Encode;
use holeshot_wire::{
    ClientHandshake, HostKeypair, Joined, Reassembler, Sealer, Sent, SentToAll, Snapshot, ToClient, accept,
    snapshot_parts,
};
use serde::Serialize;

use super::{Cost, cost, head};
use crate::bots::{GameName, crowd};
use crate::limits::receive_buffer::RECEIVE_BUFFER_BYTES;
use crate::rules::{ModuleHash, NativeProgram};

/// Frames of a game that are looked at, at most: staging, tree and quarter mile; half a minute of a match.
const FRAMES_MAX: usize = 1_500;
/// Steps of a room until its game is over or long enough, at most.
const STEPS_MAX: u32 = 20_000;
/// What the system puts around a datagram: the headers of IPv4 and UDP, in bytes.
const NETWORK_HEADERS_BYTES: usize = 28;
/// The player's input is for this many frames after the snapshot that it answers, in milliseconds.
const ANSWER_AFTER_MS: u32 = 20;
/// Most rounds: minutes' worth.
const ROUNDS_MAX: usize = 1_000;

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The games.
    pub games: Vec<GameName>,
    /// Numbers of players, each 1 to 64.
    pub players: Vec<usize>,
    /// After how many frames the host has the acknowledgement of a snapshot, each 1 to 32.
    pub delays: Vec<u32>,
    /// Times that all snapshots are sent.
    pub rounds: usize,
}

impl Default for Options {
    /// A player in the same house, on the same continent, and far away.
    fn default() -> Self {
        Self {
            games: vec![GameName::DragRace, GameName::Arena],
            players: vec![2, 8, 64],
            delays: vec![1, 3, 6],
            rounds: 5,
        }
    }
}

/// Who sees a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Viewer {
    /// The players.
    Player,
    /// A spectator, where it sees something else than the players.
    Spectator,
}

/// What one way of sending takes, per snapshot of one player.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Way {
    /// Bytes of the snapshot, or of its delta where one was sent.
    pub bytes: f64,
    /// Bytes of its datagrams with the headers of IPv4 and UDP.
    pub network_bytes: f64,
    /// Datagrams.
    pub datagrams: f64,
    /// Making the delta if one is sent, encoding, sealing and sending over loopback.
    pub host: Cost,
    /// Joining the parts, and making the snapshot from the delta.
    pub client: Cost,
}

/// Figures for one game, number of players and delay.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The game.
    pub game: GameName,
    /// Players in the room.
    pub players: usize,
    /// Who sees the snapshots.
    pub viewer: Viewer,
    /// Frames that were played.
    pub frames: usize,
    /// After how many frames the host had acknowledgements.
    pub delay_frames: u32,
    /// Whether the snapshots are the same for all players.
    pub for_all: bool,
    /// Snapshots that went as deltas, of 1.
    pub deltas: f64,
    /// Everything whole.
    pub whole: Way,
    /// Deltas where a shard would send them.
    pub delta: Way,
    /// Bytes of `delta` by those of `whole`.
    pub bytes_ratio: f64,
    /// Bytes on the network, likewise.
    pub network_ratio: f64,
    /// Of the host's part, what making deltas and keeping bases took.
    pub making: Cost,
    /// Memory that the room's bases took at the end, in bytes.
    pub memory_bytes: usize,
}

/// All figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether this program was built with optimisation. Without it the figures of time mean little.
    pub optimised: bool,
    /// Rounds.
    pub rounds: usize,
    /// One row per game, number of players and delay.
    pub rows: Vec<Row>,
}

/// Why there are no figures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BenchError {
    /// An option is out of its range.
    #[error("{0}")]
    Option(String),
    /// A game was not played.
    #[error("{game} with {players} players was not played: {problem}")]
    Game {
        /// The game.
        game: GameName,
        /// Players.
        players: usize,
        /// What happened.
        problem: String,
    },
    /// The system gave no sockets, or did not take a datagram.
    #[error("{what}: {problem}")]
    Socket {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        problem: String,
    },
    /// A client did not get what was sent: the figures would be of something else.
    #[error("{game} with {players} players: the snapshot of frame {frame} for player {player} did not come back")]
    Differs {
        /// The game.
        game: GameName,
        /// Players.
        players: usize,
        /// The player.
        player: usize,
        /// The frame.
        frame: u32,
    },
    /// No session came about.
    #[error("no keys for the sessions: {0}")]
    Keys(#[from] holeshot_wire::HandshakeError),
}

/// Measures. Takes some seconds per row.
///
/// # Errors
/// An option out of range, a game that is not played, or a snapshot that does not come back.
pub fn run(options: &Options) -> Result<Report, BenchError> {
    let Options { games, players, delays, rounds } = options;
    if let Some(players) = players.iter().find(|players| !(1..=64).contains(*players)) {
        return Err(BenchError::Option(format!("a room has 1 to 64 players, not {players}")));
    }
    let oldest = u32::from(DELTA_AGE_FRAMES_MAX);
    if let Some(delay) = delays.iter().find(|delay| !(1..=oldest).contains(*delay)) {
        return Err(BenchError::Option(format!("acknowledgements come after 1 to {oldest} frames, not {delay}")));
    }
    if !(1..=ROUNDS_MAX).contains(rounds) {
        return Err(BenchError::Option(format!("1 to {ROUNDS_MAX} rounds can be measured, not {rounds}")));
    }
    let mut rows = Vec::new();
    for &game in games {
        for &players in players {
            let frames = play(game, players).map_err(|problem| BenchError::Game { game, players, problem })?;
            for &delay in delays {
                for (viewer, frames) in &frames {
                    rows.push(row((game, players, *viewer), frames, delay, *rounds)?);
                }
            }
        }
    }
    Ok(Report { optimised: !cfg!(debug_assertions), rounds: *rounds, rows })
}

/// The snapshots of one frame: that of each viewer, and whether it is the one for all.
struct Frame {
    number: u32,
    snapshots: Vec<(usize, Vec<u8>, bool)>,
}

/// Lets bots play a game, in a room whose rules are linked natively: their bytes are those of the wasm, as `bench tick` shows.
fn play(name: GameName, players: usize) -> Result<Vec<(Viewer, Vec<Frame>)>, String> {
    let game = crowd::game(Some(&name.to_string()), 7);
    let player = |slot| PlayerSetup { name: format!("player {slot}"), data: game.data(slot).to_string() };
    let options = game.options().to_string();
    let setup =
        Setup { seed: 30_000 + players as u64, tick_hz: 50, options, players: (0..players).map(player).collect() };
    let hash = ModuleHash::of(b"bench");
    let program: Arc<dyn Program> = match name {
        GameName::DragRace => Arc::new(NativeProgram::<DragRace>::new(setup.clone(), hash)),
        GameName::Arena => Arc::new(NativeProgram::<Arena>::new(setup.clone(), hash)),
    };
    let manifest = program.manifest().clone();
    let mut rules = Supervisor::begin(program, Supervision::default()).map_err(|error| error.to_string())?;
    let config = RoomConfig { id: "bench".into(), manifest, setup, limits: Limits::default() };
    let mut room = Room::open(config, 0).map_err(|error| error.to_string())?;
    let mut bots: Vec<crowd::Player> = (0..players).map(|slot| game.player(slot)).collect();
    for (player, bot) in (0u16..).zip(&bots) {
        // Before the game all of this has an effect.
        let _taken = room.handle(0, Arrival::Connected { player });
        let _taken = room.handle(0, Arrival::Ready { player });
        if let Some(action) = &bot.first_action {
            let _taken = room.handle(0, Arrival::Action { player, id: 1, json: &action.to_string() });
        }
    }
    let (mut frames, mut over): (Vec<Frame>, bool) = (Vec::new(), false);
    let mut for_all: Vec<Frame> = Vec::new();
    for _ in 0..STEPS_MAX {
        let Some(now_us) = room.next_due_us().filter(|_| !over && frames.len() < FRAMES_MAX) else { break };
        let before = frames.len();
        room.step(now_us, &mut rules, &mut |departure| match departure {
            Departure::Snapshot { player, frame, bytes, is_shared, .. } => {
                if frames.last().is_none_or(|last| last.number != frame) {
                    frames.push(Frame { number: frame, snapshots: Vec::new() });
                }
                if let Some(frame) = frames.last_mut() {
                    frame.snapshots.push((usize::from(player), bytes.to_vec(), is_shared));
                }
            }
            Departure::SharedSnapshot { frame, bytes } => {
                for_all.push(Frame { number: frame, snapshots: vec![(0, bytes.to_vec(), true)] });
            }
            Departure::Ended { .. } => over = true,
            _ => {}
        });
        for frame in frames.iter().skip(before) {
            for (player, seen, _) in &frame.snapshots {
                let Some(bot) = bots.get_mut(*player) else { continue };
                if let (Some(input), Ok(player)) = ((bot.answer)(seen, ANSWER_AFTER_MS), u16::try_from(*player)) {
                    let arrival = Arrival::Input { player, frame: frame.number + 1, bytes: &input };
                    let _counted = room.handle(now_us, arrival);
                }
            }
        }
    }
    let sent = frames.iter().filter(|frame| frame.snapshots.len() == players).count();
    if sent < 100 {
        return Err(format!("only {sent} frames have a snapshot for each player"));
    }
    let is_seen_by_players = frames.iter().flat_map(|frame| &frame.snapshots).any(|(.., is_shared)| *is_shared);
    let mut seen = vec![(Viewer::Player, frames)];
    if !is_seen_by_players && !for_all.is_empty() {
        seen.push((Viewer::Spectator, for_all));
    }
    Ok(seen)
}

/// What was counted over all rounds.
#[derive(Default)]
struct Sum {
    snapshots: u64,
    bytes: usize,
    datagrams: usize,
    datagram_bytes: usize,
    deltas: u64,
}

impl Sum {
    fn way(&self, host: Cost, client: Cost) -> Way {
        let per = |sum: usize| sum as f64 / self.snapshots.max(1) as f64;
        Way {
            bytes: per(self.bytes),
            network_bytes: per(self.datagram_bytes + self.datagrams * NETWORK_HEADERS_BYTES),
            datagrams: per(self.datagrams),
            host,
            client,
        }
    }
}

/// Nanoseconds of one round, by what they were for: sending whole, sending with deltas, making these, joining whole, joining with deltas.
type Spent = [u64; 5];

fn row(
    (game, players, viewer): (GameName, usize, Viewer),
    frames: &[Frame],
    delay: u32,
    rounds: usize,
) -> Result<Row, BenchError> {
    let differs = |player, frame| BenchError::Differs { game, players, player, frame };
    let mut sender = Sender::open()?;
    let (mut whole, mut delta) = (Sum::default(), Sum::default());
    let mut samples: [Vec<f64>; 5] = Default::default();
    let mut memory_bytes = 0;
    for _ in 0..rounds {
        let mut sides: Vec<Sides> = (0..players).map(|_| Sides::new()).collect();
        let mut to_all = None;
        let mut spent = Spent::default();
        (whole, delta) = (Sum::default(), Sum::default());
        for frame in frames {
            let [send_whole, send_delta, make, join_whole, join_delta] = &mut spent;
            for side in &mut sides {
                side.payloads.clear();
                if let (Some(sent), Some(has)) = (&mut side.sent, frame.number.checked_sub(delay)) {
                    sent.acknowledge(has);
                }
            }
            *send_whole += sender.frame(frame, &mut sides, None, &mut whole)?;
            *join_whole += join(frame, &mut sides, false, differs)?;
            *send_delta += sender.frame(frame, &mut sides, Some((&mut to_all, make)), &mut delta)?;
            *join_delta += join(frame, &mut sides, true, differs)?;
        }
        for (samples, spent) in samples.iter_mut().zip(spent) {
            samples.push(spent as f64 / whole.snapshots.max(1) as f64);
        }
        let own: usize = sides.iter().filter_map(|side| side.sent.as_ref()).map(Sent::memory_bytes).sum();
        memory_bytes = own + to_all.as_deref().map_or(0, SentToAll::memory_bytes);
    }
    let [send_whole, send_delta, make, join_whole, join_delta] = samples.map(|samples| cost(&samples));
    let (all_whole, all_delta) = (whole.way(send_whole, join_whole), delta.way(send_delta, join_delta));
    Ok(Row {
        game,
        players,
        viewer,
        frames: frames.len(),
        delay_frames: delay,
        for_all: frames.iter().flat_map(|frame| &frame.snapshots).all(|(.., for_all)| *for_all),
        deltas: delta.deltas as f64 / delta.snapshots.max(1) as f64,
        whole: all_whole,
        delta: all_delta,
        bytes_ratio: all_delta.bytes / all_whole.bytes,
        network_ratio: all_delta.network_bytes / all_whole.network_bytes,
        making: make,
        memory_bytes,
    })
}

/// Both sides of one player's session, without the network between.
struct Sides {
    sent: Option<Sent>,
    whole_joiner: Reassembler,
    delta_joiner: Reassembler,
    /// What was sent of the frame, unsealed.
    payloads: Vec<Vec<u8>>,
    /// What came of it.
    whole: Vec<u8>,
}

impl Sides {
    fn new() -> Self {
        Self {
            sent: Some(Sent::default()),
            whole_joiner: Reassembler::new(),
            delta_joiner: Reassembler::with_deltas(),
            payloads: Vec::new(),
            whole: Vec::new(),
        }
    }

    /// Joins what was sent last. Gives the nanoseconds.
    fn join(&mut self, with_deltas: bool) -> u64 {
        self.whole.clear();
        let joiner = if with_deltas { &mut self.delta_joiner } else { &mut self.whole_joiner };
        let begun = Instant::now();
        let mut spent = 0;
        for payload in &self.payloads {
            let joined = match ToClient::decode(payload) {
                Ok(ToClient::Snapshot(part)) => joiner.push(&part),
                Ok(ToClient::Delta(part)) => joiner.push_delta(&part),
                _ => continue,
            };
            if let Joined::Whole(whole) = joined {
                spent = nanoseconds_since(begun);
                self.whole.extend_from_slice(whole.bytes);
            }
        }
        self.payloads.clear();
        spent
    }
}

/// Seals and sends as a shard does, to a socket that takes everything and looks at nothing.
struct Sender {
    sealer: Sealer<RingCipher>,
    socket: UdpSocket,
    sink: UdpSocket,
    datagram: Vec<u8>,
    delta: Vec<u8>,
    payload: Vec<u8>,
}

impl Sender {
    fn open() -> Result<Self, BenchError> {
        let keypair = HostKeypair::from_private([1; 32])?;
        let (_, message_1) = ClientHandshake::start(&keypair.public(), "bench", [2; 32])?;
        let (keys, _) = accept(&keypair, "bench", &message_1, [3; 32])?;
        let failed = |error: std::io::Error| BenchError::Socket { what: "no sockets", problem: error.to_string() };
        let (socket, sink) =
            (UdpSocket::bind("127.0.0.1:0").map_err(failed)?, UdpSocket::bind("127.0.0.1:0").map_err(failed)?);
        sink.set_nonblocking(true).map_err(failed)?;
        // A smaller one loses some, which costs as much to send.
        let _refused = socket2::SockRef::from(&sink).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        Ok(Self {
            sealer: keys.into_host_with(1).0,
            socket,
            sink,
            datagram: Vec::with_capacity(DATAGRAM_BYTES_MAX),
            delta: Vec::new(),
            payload: Vec::new(),
        })
    }

    /// Sends the snapshots of a frame to everybody. Gives the nanoseconds; those of deltas are counted there, too.
    fn frame(
        &mut self,
        frame: &Frame,
        sides: &mut [Sides],
        mut deltas: Option<(&mut Option<Box<SentToAll>>, &mut u64)>,
        sum: &mut Sum,
    ) -> Result<u64, BenchError> {
        let to = self.sink.local_addr().map_err(|error| not_sent(&error))?;
        let Self { sealer, socket, datagram, delta: buffer, payload: encoded, .. } = self;
        let mut spent = 0;
        for (player, bytes, for_all) in &frame.snapshots {
            let Some(side) = sides.get_mut(*player) else { continue };
            let begun = Instant::now();
            let mut delta = None;
            if let (Some((to_all, make)), Some(sent)) = (&mut deltas, &mut side.sent) {
                delta = sent.delta(frame.number, bytes, for_all.then_some(&mut **to_all), buffer);
                **make += nanoseconds_since(begun);
            }
            let body = delta.unwrap_or(bytes);
            sum.snapshots += 1;
            sum.deltas += u64::from(delta.is_some());
            sum.bytes += body.len();
            let Ok(parts) = snapshot_parts(body) else { continue };
            for (part, parts, bytes) in parts {
                let payload = payload(frame.number, (part, parts, bytes), delta.is_some());
                if sealer.seal(&payload, datagram).is_ok() {
                    socket.send_to(datagram, to).map_err(|error| not_sent(&error))?;
                }
                sum.datagrams += 1;
                sum.datagram_bytes += datagram.len();
            }
            spent += nanoseconds_since(begun);
            // For the client, whose part is timed later.
            let Ok(parts) = snapshot_parts(body) else { continue };
            for (part, parts, bytes) in parts {
                let payload = payload(frame.number, (part, parts, bytes), delta.is_some());
                encoded.clear();
                if payload.encode(encoded).is_ok() {
                    side.payloads.push(encoded.clone());
                }
            }
        }
        self.drain()?;
        Ok(spent)
    }

    fn drain(&mut self) -> Result<(), BenchError> {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        loop {
            match self.sink.recv(&mut buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    return Err(BenchError::Socket { what: "a datagram did not arrive", problem: error.to_string() });
                }
            }
        }
    }
}

fn not_sent(error: &std::io::Error) -> BenchError {
    BenchError::Socket { what: "a datagram was not sent", problem: error.to_string() }
}

fn nanoseconds_since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl Report {
    /// The figures as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = head(self.optimised);
        let around = HEADER_BYTES + TAG_BYTES + NETWORK_HEADERS_BYTES;
        let _infallible = writeln!(
            text,
            "per snapshot of one player, whole > with deltas; {} rounds. On the network {around} bytes and the payload's 13 are around each datagram.\n\
             host: making the delta, sealing, sending over loopback; client: joining, undoing the delta; ns, median\n",
            self.rounds
        );
        text.push_str(
            "game       players  seen by     ack after   deltas        bytes  ratio   on the network  ratio     datagrams            host  making        client   room KiB\n",
        );
        for row in &self.rows {
            let Row { whole, delta, .. } = row;
            let pair = |whole: f64, delta: f64| format!("{whole:.0} > {delta:.0}");
            let _infallible = writeln!(
                text,
                "{:<10} {:>7}  {:<9}  {:>9}  {:>5.1} %  {:>11}  {:>5.2}  {:>15}  {:>5.2}  {:>12}  {:>14}  {:>6.0}  {:>12}  {:>9.1}",
                row.game,
                row.players,
                if row.viewer == Viewer::Player { "player" } else { "spectator" },
                row.delay_frames,
                row.deltas * 100.0,
                pair(whole.bytes, delta.bytes),
                row.bytes_ratio,
                pair(whole.network_bytes, delta.network_bytes),
                row.network_ratio,
                format!("{:.2} > {:.2}", whole.datagrams, delta.datagrams),
                pair(whole.host.median_ns, delta.host.median_ns),
                row.making.median_ns,
                pair(whole.client.median_ns, delta.client.median_ns),
                row.memory_bytes as f64 / 1_024.0
            );
        }
        text
    }
}

/// Lets the players take what was sent of a frame, and holds it against what it should be. Gives the nanoseconds that it took.
fn join(
    frame: &Frame,
    sides: &mut [Sides],
    is_delta: bool,
    differs: impl Fn(usize, u32) -> BenchError,
) -> Result<u64, BenchError> {
    let mut spent_ns = 0;
    for (player, bytes, _) in &frame.snapshots {
        let Some(side) = sides.get_mut(*player) else { continue };
        spent_ns += side.join(is_delta);
        if side.whole != *bytes {
            return Err(differs(*player, frame.number));
        }
    }
    Ok(spent_ns)
}

/// A part of a snapshot as it travels.
fn payload(frame: u32, (part, parts, bytes): (u8, u8, &[u8]), is_delta: bool) -> ToClient<'_> {
    let part = Snapshot { frame, part, parts, margin_ms: Some(20), newest_input_frame: Some(frame), bytes };
    if is_delta { ToClient::Delta(part) } else { ToClient::Snapshot(part) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_games_come_back_and_deltas_are_smaller() {
        let options = Options { players: vec![2, 8], delays: vec![1, 6], rounds: 1, ..Options::default() };
        let report = run(&options).unwrap();
        let rows: Vec<_> = report.rows.iter().map(|row| (row.game, row.players, row.for_all)).collect();
        let (race, arena) = (GameName::DragRace, GameName::Arena);
        let of_race = [(race, 2, true), (race, 2, true), (race, 8, true), (race, 8, true)];
        let of_arena = [2, 8].map(|players| [(arena, players, false), (arena, players, true)].repeat(2)).concat();
        assert_eq!(rows, [&of_race[..], &of_arena].concat());
        for row in &report.rows {
            assert!(row.bytes_ratio <= 1.0 && row.network_ratio <= 1.0, "{row:?}");
            assert!(row.delta.datagrams <= row.whole.datagrams && row.whole.datagrams >= 1.0, "{row:?}");
            // Small rooms pay nothing for it.
            assert!(row.memory_bytes <= if row.whole.bytes < 80.0 { 0 } else { 20 << 10 }, "{row:?}");
            if (row.game, row.players) == (race, 8) {
                assert!(row.deltas > 0.9 && row.bytes_ratio < 0.6, "{row:?}");
            }
        }
        assert_eq!(report.table().matches("arena").count(), 8, "{}", report.table());
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let options = Options::default();
        for bad in [
            Options { players: vec![0], ..options.clone() },
            Options { players: vec![65], ..options.clone() },
            Options { delays: vec![0], ..options.clone() },
            Options { delays: vec![33], ..options.clone() },
            Options { rounds: 0, ..options },
        ] {
            assert!(matches!(run(&bad), Err(BenchError::Option(_))), "{bad:?}");
        }
    }
}
