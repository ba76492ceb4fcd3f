//! The other end of a session, for the tests of this crate: the host's side of the protocol over real sockets, one step at a
//! time, as a test asks for it. It has no rooms and no rules; whole sessions against the real host are in `/tests`.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use holeshot_client::ConnectOptions;
use holeshot_wire::payload::Encode;
use holeshot_wire::{
    ClientMessage, Heard, HostKeypair, HostMessage, Opener, Path, Phase, PlayerName, Route, RulesInfo, Sealer,
    Snapshot, ToClient, ToHost, accept, snapshot_parts, write_delta,
};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

/// How long a test waits for anything: far longer than it takes, so that reaching it means that it never comes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const TICKET: &str = "a.test.ticket";

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} never came"))
}

/// A host's doors.
pub(crate) struct Peer {
    tcp: TcpListener,
    udp: UdpSocket,
    keypair: HostKeypair,
    sessions: u32,
    /// Whether it says that it sends deltas.
    pub(crate) sends_deltas: bool,
    /// The tickets that were shown, in order.
    pub(crate) tickets: Vec<String>,
}

impl Peer {
    pub(crate) async fn open() -> Self {
        Self {
            tcp: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            udp: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            keypair: HostKeypair::from_private([3; 32]).unwrap(),
            sessions: 0,
            sends_deltas: false,
            tickets: Vec::new(),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/play", self.tcp.local_addr().unwrap())
    }

    pub(crate) fn udp_options(&self) -> ConnectOptions {
        ConnectOptions::udp(self.url(), TICKET, self.keypair.public())
    }

    pub(crate) fn websocket_options(&self) -> ConnectOptions {
        ConnectOptions::websocket(self.url(), TICKET)
    }

    /// Takes the next connection and its `hello`.
    pub(crate) async fn hello(&self) -> (WebSocketStream<TcpStream>, ClientMessage) {
        let (tcp, _) = soon("a connection", self.tcp.accept()).await.unwrap();
        let mut websocket = soon("an upgrade", accept_async(tcp)).await.unwrap();
        let hello = match soon("hello", websocket.next()).await {
            Some(Ok(Message::Text(text))) => ClientMessage::decode(&text).unwrap(),
            other => panic!("{other:?} instead of hello"),
        };
        (websocket, hello)
    }

    /// Takes the next connection and welcomes it. Gives the session and the `after` of its hello.
    pub(crate) async fn welcome(&mut self, phase: Phase) -> (Session<'_>, Option<u64>) {
        let keypair = self.keypair.clone();
        self.welcome_as(&keypair, phase).await
    }

    /// Likewise, with any key pair.
    pub(crate) async fn welcome_as(&mut self, keypair: &HostKeypair, phase: Phase) -> (Session<'_>, Option<u64>) {
        let (mut websocket, hello) = self.hello().await;
        let ClientMessage::Hello { protocol: 1, ticket, noise, after, deltas } = hello else { panic!("{hello:?}") };
        self.tickets.push(ticket.clone());
        self.sessions += 1;
        let session = self.sessions;
        let keys = noise.map(|message_1| accept(keypair, &ticket, &message_1, [session as u8; 32]).unwrap());
        let (keys, message_2) = keys.unzip();
        let welcome = HostMessage::Welcome {
            session,
            room: "room-1".into(),
            player: Some(1),
            players: vec![PlayerName { player: 1, name: "Ada".into() }],
            udp_port: message_2.map(|_| self.udp.local_addr().unwrap().port()),
            noise: message_2,
            tick_hz: 50,
            rules: RulesInfo { name: "test".into(), version: "1".into(), hash: "0".repeat(64) },
            phase,
            resumed: session > 1,
            resume: Some(format!("resume.{session}")),
            deltas: deltas && self.sends_deltas,
        };
        websocket.send(Message::text(welcome.encode().unwrap())).await.unwrap();
        let (path, seal) = match keys {
            Some(keys) => (Path::udp(), Some(keys.into_host(session))),
            None => (Path::websocket(), None),
        };
        (Session { udp: &self.udp, websocket, path, seal, hears_udp: true }, after)
    }
}

/// What a session hears.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    Message(ClientMessage),
    /// A payload with inputs: frames and bytes, newest first; and whether it came over UDP.
    Inputs {
        inputs: Vec<(u32, Vec<u8>)>,
        snapshot_frame: Option<u32>,
        over_udp: bool,
    },
    /// An acknowledgement beside inputs.
    Acknowledged(u32),
    /// The WebSocket is closed.
    Closed,
}

/// The host's side of a session. Pings, probes and challenges are answered while it waits for something else.
pub(crate) struct Session<'a> {
    udp: &'a UdpSocket,
    pub(crate) websocket: WebSocketStream<TcpStream>,
    pub(crate) path: Path<SocketAddr>,
    pub(crate) seal: Option<(Sealer, Opener)>,
    /// Whether datagrams from the client are taken; if not, UDP is a closed door.
    pub(crate) hears_udp: bool,
}

impl Session<'_> {
    pub(crate) async fn say(&mut self, message: HostMessage) {
        let text = message.encode().unwrap();
        soon("room for a message", self.websocket.send(Message::text(text))).await.unwrap();
    }

    pub(crate) async fn event(&mut self, seq: u64, name: &str) {
        let data = serde_json::json!({ "number": seq });
        self.say(HostMessage::Event { seq, name: name.into(), frame: None, time_ms: None, data }).await;
    }

    /// Sends a snapshot the way payloads go.
    pub(crate) async fn snapshot(&mut self, frame: u32, bytes: &[u8]) {
        let part = |part, parts, bytes| {
            ToClient::Snapshot(Snapshot { frame, part, parts, margin_ms: Some(10), newest_input_frame: None, bytes })
        };
        if self.path.route() == Route::WebSocket {
            self.payload(part(0, 1, bytes)).await;
        } else {
            for (number, parts, bytes) in snapshot_parts(bytes).unwrap() {
                self.payload(part(number, parts, bytes)).await;
            }
        }
    }

    /// Sends the snapshot of a frame as a delta to an older one, the way payloads go.
    pub(crate) async fn delta(&mut self, frame: u32, age: u8, base: &[u8], bytes: &[u8]) {
        let mut delta = Vec::new();
        assert!(write_delta(age, base, bytes, usize::MAX, &mut delta));
        let bytes = &delta[..];
        let part = Snapshot { frame, part: 0, parts: 1, margin_ms: Some(10), newest_input_frame: None, bytes };
        self.payload(ToClient::Delta(part)).await;
    }

    /// Sends a payload the way payloads go.
    pub(crate) async fn payload(&mut self, payload: ToClient<'_>) {
        match self.path.route() {
            Route::Udp(address) => {
                let datagram = self.sealed(payload);
                self.udp.send_to(&datagram, address).await.unwrap();
            }
            Route::WebSocket => {
                let mut bytes = Vec::new();
                payload.encode(&mut bytes).unwrap();
                self.websocket.send(Message::binary(bytes)).await.unwrap();
            }
            Route::Nowhere => panic!("nowhere to send to"),
        }
    }

    pub(crate) fn sealed(&mut self, payload: ToClient<'_>) -> Vec<u8> {
        let mut datagram = Vec::new();
        self.seal.as_mut().unwrap().0.seal(&payload, &mut datagram).unwrap();
        datagram
    }

    pub(crate) async fn datagram(&mut self, datagram: &[u8]) {
        let Route::Udp(address) = self.path.route() else { panic!("no address") };
        self.udp.send_to(datagram, address).await.unwrap();
    }

    /// Waits for something that the player program caused, and answers what the client does by itself.
    pub(crate) async fn hear(&mut self) -> Said {
        soon("something to hear", self.hear_unbounded()).await
    }

    /// Waits for a message, past any inputs.
    pub(crate) async fn hear_message(&mut self) -> ClientMessage {
        loop {
            match self.hear().await {
                Said::Message(message) => return message,
                Said::Inputs { .. } | Said::Acknowledged(_) => {}
                Said::Closed => panic!("closed"),
            }
        }
    }

    async fn hear_unbounded(&mut self) -> Said {
        let mut buffer = [0; 2_048];
        loop {
            tokio::select! {
                message = self.websocket.next() => match message {
                    Some(Ok(Message::Text(text))) => match ClientMessage::decode(&text).unwrap() {
                        ClientMessage::Ping { t } => self.say(HostMessage::Pong { t }).await,
                        message => return Said::Message(message),
                    },
                    Some(Ok(Message::Binary(payload))) => {
                        self.path.on_binary_message();
                        if let Some(said) = self.on_payload(&payload, false).await {
                            return said;
                        }
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Said::Closed,
                    Some(Ok(_)) => {}
                },
                received = self.udp.recv_from(&mut buffer) => {
                    let Ok((bytes, from)) = received else { continue };
                    if !self.hears_udp {
                        continue;
                    }
                    let Some((_, opener)) = &mut self.seal else { panic!("a datagram without keys") };
                    // What is left from an earlier session does not open.
                    let Ok(opened) = opener.open(&mut buffer[..bytes]) else { continue };
                    let payload = ToHost::decode(opened.payload).unwrap();
                    let heard = Heard { from, bytes, newest: opened.newest, asks: (&payload).into() };
                    let payload = opened.payload.to_vec();
                    if let Some(challenge) = self.path.on_datagram(heard, || [9; 8]) {
                        let datagram = self.sealed(ToClient::Challenge(challenge.bytes));
                        self.udp.send_to(&datagram, challenge.to).await.unwrap();
                    }
                    if let Some(said) = self.on_payload(&payload, true).await {
                        return said;
                    }
                }
            }
        }
    }

    async fn on_payload(&mut self, payload: &[u8], over_udp: bool) -> Option<Said> {
        match ToHost::decode(payload).unwrap() {
            ToHost::Inputs(inputs) => Some(Said::Inputs {
                inputs: inputs.iter().map(|(frame, bytes)| (frame, bytes.to_vec())).collect(),
                snapshot_frame: inputs.snapshot_frame(),
                over_udp,
            }),
            ToHost::Ping(token) => {
                if self.path.route() != Route::Nowhere {
                    self.payload(ToClient::Pong(token)).await;
                }
                None
            }
            ToHost::Ack(frame) => Some(Said::Acknowledged(frame)),
            ToHost::Probe | ToHost::Response(_) => None,
        }
    }
}
