//! Players for tests, speaking the protocol by hand: a WebSocket, and datagrams beside it if wished. They do only what they are told,
//! also what no honest client would do. Honest players over the client library are in `race.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use holeshot_client::Event;
use holeshot_wire::payload::Encode;
use holeshot_wire::{
    ByeCode, ClientHandshake, ClientMessage, HostMessage, Inputs, Opener, PROTOCOL_VERSION, Phase, RefusalCode,
    RulesInfo, Sealer, ToClient, ToHost,
};
use serde_json::Value;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::harness::{Grant, Host, SOON, eventually};

/// A WebSocket and what came over it.
#[derive(Debug)]
pub(crate) struct Peer {
    ws: WebSocketStream<TcpStream>,
    /// What `welcome` said.
    pub(crate) welcome: Option<Welcome>,
    /// Public events so far.
    pub(crate) events: Vec<Event>,
    /// Frames of the snapshots that came over the WebSocket.
    pub(crate) snapshot_frames: Vec<u32>,
    /// The last of them.
    pub(crate) snapshot: Vec<u8>,
    /// All of them, if that is asked for.
    pub(crate) snapshots: Option<Vec<(u32, Vec<u8>)>>,
}

/// What tests look at in a `welcome`.
#[derive(Debug, Clone)]
pub(crate) struct Welcome {
    pub(crate) session: u32,
    pub(crate) phase: Phase,
    pub(crate) resumed: bool,
    pub(crate) rules: RulesInfo,
    /// The ticket for coming back.
    pub(crate) resume: String,
}

/// What comes over a WebSocket.
// One at a time, on the stack of a test.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub(crate) enum Said {
    Message(HostMessage),
    Payload,
    Closed,
}

impl Peer {
    /// Opens a WebSocket and says nothing.
    pub(crate) async fn open(url: &str) -> Self {
        let address = url.strip_prefix("ws://").and_then(|rest| rest.strip_suffix("/ws")).unwrap();
        Self::over(TcpStream::connect(address).await.unwrap(), url).await
    }

    /// Opens a WebSocket over a connection that is open.
    pub(crate) async fn over(tcp: TcpStream, url: &str) -> Self {
        let (ws, _) = tokio_tungstenite::client_async(url, tcp).await.unwrap();
        Self {
            ws,
            welcome: None,
            events: Vec::new(),
            snapshot_frames: Vec::new(),
            snapshot: Vec::new(),
            snapshots: None,
        }
    }

    /// Opens a session without datagrams and with all events so far.
    pub(crate) async fn enter(grant: &Grant) -> Self {
        Self::enter_after(grant, Some(0)).await
    }

    /// Opens a session without datagrams and with the events after that one.
    pub(crate) async fn enter_after(grant: &Grant, after: Option<u64>) -> Self {
        match Self::try_enter(grant, after).await {
            Ok(peer) => peer,
            Err((code, reason)) => panic!("refused: {code}: {reason}"),
        }
    }

    /// Opens a session, or says why the host did not.
    pub(crate) async fn try_enter(grant: &Grant, after: Option<u64>) -> Result<Self, (RefusalCode, String)> {
        let mut peer = Self::open(&grant.ws_url).await;
        let (protocol, ticket) = (PROTOCOL_VERSION, grant.ticket.clone());
        let hello = ClientMessage::Hello { protocol, ticket, noise: None, after, deltas: false };
        peer.say(&hello).await;
        match peer.hear().await {
            Said::Message(HostMessage::Welcome { session, phase, resumed, udp_port, noise, rules, resume, .. }) => {
                assert_eq!((udp_port, noise), (None, None), "datagrams that nobody asked for");
                peer.welcome = Some(Welcome { session, phase, resumed, rules, resume: resume.unwrap() });
                Ok(peer)
            }
            Said::Message(HostMessage::Refused { code, reason }) => {
                peer.closed().await;
                Err((code, reason))
            }
            other => panic!("an answer to hello: {other:?}"),
        }
    }

    /// What `welcome` said.
    pub(crate) fn welcome(&self) -> &Welcome {
        self.welcome.as_ref().unwrap()
    }

    /// The ticket with which this session's client may come back; `grant` says where the host is.
    pub(crate) fn resume(&self, grant: &Grant) -> Grant {
        Grant { ticket: self.welcome().resume.clone(), ..grant.clone() }
    }

    /// Makes sure that the host knows that this client has its welcome: the ticket is used up then.
    pub(crate) async fn confirm(&mut self) {
        self.say(&ClientMessage::Ping { t: 4_711 }).await;
        while !matches!(self.hear().await, Said::Message(HostMessage::Pong { t: 4_711 })) {}
    }

    pub(crate) async fn say(&mut self, message: &ClientMessage) {
        self.say_text(message.encode().unwrap()).await;
    }

    pub(crate) async fn say_text(&mut self, text: impl Into<String>) {
        self.send(Message::text(text.into())).await.unwrap();
    }

    pub(crate) async fn say_payload(&mut self, payload: &ToHost<'_>) {
        let mut bytes = Vec::new();
        payload.encode(&mut bytes).unwrap();
        self.send(Message::binary(bytes)).await.unwrap();
    }

    /// Sends anything at all; the other side may have gone.
    pub(crate) async fn send(&mut self, message: Message) -> Result<(), tungstenite::Error> {
        timeout(SOON, self.ws.send(message)).await.expect("the host reads")
    }

    pub(crate) async fn ready(&mut self) {
        self.say(&ClientMessage::Ready).await;
    }

    /// Sends one input for one frame.
    pub(crate) async fn input(&mut self, frame: u32, bytes: &[u8]) {
        let payload = inputs_payload(frame, bytes);
        self.send(Message::binary(payload)).await.unwrap();
    }

    /// Sends inputs of this value to tally until one was in time, and reads until the tally of `player` has it. Gives how many it took.
    pub(crate) async fn counts(&mut self, player: usize, value: u8) -> u64 {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let frame = self.snapshot_frames.last().copied().unwrap_or(0) + AHEAD_FRAMES;
            let before = tally_of(&self.snapshot, player).unwrap_or(0);
            self.input(frame, &[value]).await;
            self.frame(frame).await;
            let after = tally_of(&self.snapshot, player).unwrap();
            if after != before {
                assert_eq!(after, before + u32::from(value));
                return attempts;
            }
        }
    }

    /// Takes what comes next.
    pub(crate) async fn hear(&mut self) -> Said {
        loop {
            let message = timeout(SOON, self.ws.next()).await;
            let message = message.unwrap_or_else(|_| panic!("nothing came; so far: {}", self.told()));
            return match message {
                Some(Ok(Message::Text(text))) => {
                    let message = HostMessage::decode(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
                    if let HostMessage::Event { seq, name, frame, time_ms, data } = &message {
                        let event = Event {
                            seq: *seq,
                            name: name.clone(),
                            frame: *frame,
                            time_ms: *time_ms,
                            data: data.clone(),
                        };
                        self.events.push(event);
                    }
                    Said::Message(message)
                }
                Some(Ok(Message::Binary(bytes))) => {
                    if let Ok(ToClient::Snapshot(snapshot)) = ToClient::decode(&bytes) {
                        self.snapshot_frames.push(snapshot.frame);
                        self.snapshot = snapshot.bytes.to_vec();
                        if let Some(snapshots) = &mut self.snapshots {
                            snapshots.push((snapshot.frame, self.snapshot.clone()));
                        }
                    }
                    Said::Payload
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(_)) | Err(_)) | None => Said::Closed,
            };
        }
    }

    /// Reads until an event of this name comes, and gives it.
    pub(crate) async fn event(&mut self, name: &str) -> Event {
        loop {
            match self.hear().await {
                Said::Message(HostMessage::Event { name: came, .. }) if came == name => {
                    return self.events.last().unwrap().clone();
                }
                Said::Message(HostMessage::Bye { code, reason }) => {
                    panic!("no `{name}` before the bye ({code}: {reason}); so far: {}", self.told())
                }
                Said::Closed => panic!("no `{name}` before the end; so far: {}", self.told()),
                _ => {}
            }
        }
    }

    /// Reads until a snapshot of that frame or a later one comes.
    pub(crate) async fn frame(&mut self, frame: u32) {
        while self.snapshot_frames.last().is_none_or(|last| *last < frame) {
            if let Said::Closed = self.hear().await {
                panic!("no frame {frame} before the end; so far: {}", self.told());
            }
        }
    }

    /// Reads until the host says goodbye and closes.
    pub(crate) async fn bye(&mut self) -> (ByeCode, String) {
        loop {
            match self.hear().await {
                Said::Message(HostMessage::Bye { code, reason }) => {
                    self.closed().await;
                    return (code, reason);
                }
                Said::Closed => panic!("closed without a bye; so far: {}", self.told()),
                _ => {}
            }
        }
    }

    /// Reads until the connection has ended; nothing but the end may come.
    pub(crate) async fn closed(&mut self) {
        match self.hear().await {
            Said::Closed => {}
            other => panic!("after the last word came {other:?}"),
        }
    }

    /// Names of the events so far.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.events.iter().map(|event| event.name.as_str()).collect()
    }

    /// The last event of that name.
    pub(crate) fn last(&self, name: &str) -> &Event {
        self.events.iter().rev().find(|event| event.name == name).unwrap()
    }

    fn told(&self) -> String {
        let events: Vec<_> = self.events.iter().map(|e| format!("{}:{} {}", e.seq, e.name, e.data)).collect();
        format!(
            "{} snapshots, last {:?}; {}",
            self.snapshot_frames.len(),
            self.snapshot_frames.last(),
            events.join(", ")
        )
    }
}

/// How far ahead of the last snapshot inputs are sent that must be in time: nearly as far as the default track reaches, so that
/// the way to the host may take a second.
const AHEAD_FRAMES: u32 = 50;

/// A player's tally in a snapshot of tally.
pub(crate) fn tally_of(snapshot: &[u8], player: usize) -> Option<u32> {
    let bytes = snapshot.get(player * 4..player * 4 + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().unwrap()))
}

/// An `Inputs` payload with one input.
pub(crate) fn inputs_payload(frame: u32, bytes: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    Inputs::write(frame, None, [bytes], &mut payload).unwrap();
    payload
}

/// A session with datagrams, by hand.
#[derive(Debug)]
pub(crate) struct UdpPeer {
    /// Its WebSocket.
    pub(crate) peer: Peer,
    /// Its socket.
    pub(crate) socket: UdpSocket,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    host: SocketAddr,
}

impl UdpPeer {
    /// Opens a session with keys; no datagram has been sent then.
    pub(crate) async fn enter(grant: &Grant) -> Self {
        let mut peer = Peer::open(&grant.ws_url).await;
        let mut random = [0; 32];
        getrandom::fill(&mut random).unwrap();
        let (handshake, message_1) = ClientHandshake::start(&grant.key(), &grant.ticket, random).unwrap();
        peer.say(&ClientMessage::Hello {
            protocol: PROTOCOL_VERSION,
            ticket: grant.ticket.clone(),
            noise: Some(message_1),
            after: Some(0),
            deltas: false,
        })
        .await;
        let Said::Message(HostMessage::Welcome { session, phase, resumed, rules, udp_port, noise, resume, .. }) =
            peer.hear().await
        else {
            panic!("no welcome")
        };
        assert_eq!(udp_port, Some(grant.udp_port));
        peer.welcome = Some(Welcome { session, phase, resumed, rules, resume: resume.unwrap() });
        let (sealer, opener) = handshake.finish(&noise.unwrap()).unwrap().into_client(session);
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        Self { peer, socket, sealer, opener, host: SocketAddr::new([127, 0, 0, 1].into(), grant.udp_port) }
    }

    /// Seals a payload.
    pub(crate) fn seal(&mut self, payload: &ToHost<'_>) -> Vec<u8> {
        let mut datagram = Vec::new();
        self.sealer.seal(payload, &mut datagram).unwrap();
        datagram
    }

    /// Sends bytes as they are, from this peer's address.
    pub(crate) async fn send_raw(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.host).await.unwrap();
    }

    pub(crate) async fn send(&mut self, payload: &ToHost<'_>) {
        let datagram = self.seal(payload);
        self.send_raw(&datagram).await;
    }

    /// Sends one input for one frame and gives the datagram.
    pub(crate) async fn input(&mut self, frame: u32, bytes: &[u8]) -> Vec<u8> {
        let payload = inputs_payload(frame, bytes);
        let mut datagram = Vec::new();
        self.sealer.seal_bytes(&payload, &mut datagram).unwrap();
        self.send_raw(&datagram).await;
        datagram
    }

    /// Sends inputs of this value to tally, for a frame not before `from`, until one was in time, and reads until the tally of `player` has
    /// it. Gives how many it took, the frame of the last snapshot, and the datagram that counted.
    pub(crate) async fn counts(&mut self, player: usize, value: u8, from: u32) -> (u64, u32, Vec<u8>) {
        let mut attempts = 0;
        let (mut newest, mut snapshot) = self.snapshot(from).await;
        loop {
            attempts += 1;
            let before = tally_of(&snapshot, player).unwrap();
            let datagram = self.input(newest + AHEAD_FRAMES, &[value]).await;
            (newest, snapshot) = self.snapshot(newest + AHEAD_FRAMES).await;
            let after = tally_of(&snapshot, player).unwrap();
            if after != before {
                assert_eq!(after, before + u32::from(value));
                return (attempts, newest, datagram);
            }
        }
    }

    /// The payload of the next datagram, if one comes within `wait`.
    pub(crate) async fn receive(&mut self, wait: Duration) -> Option<Vec<u8>> {
        let mut buffer = [0; 1500];
        let (len, from) = timeout(wait, self.socket.recv_from(&mut buffer)).await.ok()?.unwrap();
        assert_eq!(from, self.host);
        let opened = self.opener.open(&mut buffer[..len]).unwrap();
        Some(opened.payload.to_vec())
    }

    /// Shows the host this peer's address, until the host uses it.
    pub(crate) async fn establish(&mut self) {
        eventually("the path by datagrams", SOON, async || {
            self.send(&ToHost::Probe).await;
            while let Some(payload) = self.receive(Duration::from_millis(200)).await {
                match ToClient::decode(&payload).unwrap() {
                    ToClient::Challenge(bytes) => {
                        self.send(&ToHost::Response(bytes)).await;
                        self.send(&ToHost::Ping(77)).await;
                    }
                    ToClient::Pong(77) => return Ok(()),
                    _ => {}
                }
            }
            Err("no pong".into())
        })
        .await;
    }

    /// Reads datagrams until a snapshot of that frame or a later one comes; gives its frame and bytes.
    pub(crate) async fn snapshot(&mut self, frame: u32) -> (u32, Vec<u8>) {
        loop {
            let payload = self.receive(SOON).await.expect("a snapshot by datagram");
            if let Ok(ToClient::Snapshot(snapshot)) = ToClient::decode(&payload)
                && snapshot.frame >= frame
            {
                return (snapshot.frame, snapshot.bytes.to_vec());
            }
        }
    }
}

/// Games that are played again at most because an input came too late: a machine that stalls for a second does so seldom.
pub(crate) const GAMES_MAX: usize = 5;

/// Plays a short game of tally on a host that has it, by two players over the WebSocket, and checks its results: the host serves.
pub(crate) async fn serves_a_game(host: &Host) {
    for _ in 0..GAMES_MAX {
        let room = host.open(crate::modules_made::SHORT, &["Ada", "Ben"]).await;
        let mut ada = Peer::enter(&host.join(&room, "Ada").await).await;
        let mut ben = Peer::enter(&host.join(&room, "Ben").await).await;
        ada.ready().await;
        ben.ready().await;
        ada.event("started").await;
        // One input each, for a frame nearly a second ahead.
        ada.input(45, &[7]).await;
        ben.input(46, &[8]).await;
        let finished = ada.event("finished").await;
        assert_eq!(ben.event("finished").await.data, finished.data);
        if inputs_taken(host, &room).await == [1, 1] {
            let tallies: Vec<&Value> =
                finished.data["results"].as_array().unwrap().iter().map(|result| &result["data"]).collect();
            assert_eq!(tallies, [&Value::from(7), &Value::from(8)], "{}", finished.data);
            return;
        }
    }
    panic!("in {GAMES_MAX} games an input was a second too late");
}

/// How many inputs of each player came in time, in a room that finished. By this a test tells a busy machine from a wrong result.
pub(crate) async fn inputs_taken(host: &Host, room: &str) -> Vec<u64> {
    let record = host.ended(room).await;
    let finished = record["events"].as_array().unwrap().iter().find(|event| event["kind"] == "room.finished").unwrap();
    let players = finished["event"]["data"]["players"].as_array().unwrap();
    players.iter().map(|player| player["inputs"]["taken"].as_u64().unwrap()).collect()
}

/// Passes TCP on to a host, until it is cut.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    cut: tokio::sync::watch::Sender<u64>,
}

impl Proxy {
    /// Starts a proxy for a host's address.
    pub(crate) async fn start(host: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, cuts) = tokio::sync::watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(host).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { address, cut }
    }

    /// The host's WebSocket through the proxy.
    pub(crate) fn ws_url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// Ends every connection without a goodbye. New ones are passed on again.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }
}
