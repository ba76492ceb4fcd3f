//! A player's WebSocket: the handshake at the beginning, the events that tell of the game, a ping now and then, and the goodbye.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use holeshot_client::{ConnectOptions, tls_problem};
use holeshot_wire::message::HOST_MESSAGE_BYTES_MAX;
use holeshot_wire::{ClientHandshake, ClientMessage, HostMessage, PROTOCOL_VERSION};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use super::Counters;
use super::member::Line;
use super::room::all_leave;

/// How long a host may take to answer, in seconds.
const ANSWER_WAIT_MAX_S: u64 = 20;
/// How often the WebSocket says that it is there, in seconds: a quarter of what a host waits for.
const PING_EVERY_S: u64 = 5;
/// How long the host may take to take a goodbye, in seconds.
const GOODBYE_WAIT_MAX_S: u64 = 10;
/// What a WebSocket reads at once, in bytes. It is allocated for each, and the default (128 KiB) would be a gigabyte for thousands of players.
const READ_BUFFER_BYTES: usize = 4 << 10;

/// A session's WebSocket.
#[derive(Debug)]
pub(super) struct Opened {
    websocket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The number of the last action.
    action_id: u64,
    /// Actions of the game, with the time after its start, in milliseconds.
    actions: VecDeque<(u64, Value)>,
}

/// Opens a session that says it is ready and does these actions, each so many milliseconds after the start. Gives its WebSocket, and what its datagrams need.
pub(super) async fn open(options: &ConnectOptions, actions: Vec<(u64, Value)>) -> anyhow::Result<(Opened, Line)> {
    let opened = open_unbounded(options, actions);
    timeout(Duration::from_secs(ANSWER_WAIT_MAX_S), opened).await.context("the host does not answer in time")?
}

async fn open_unbounded(options: &ConnectOptions, actions: Vec<(u64, Value)>) -> anyhow::Result<(Opened, Line)> {
    let key = options.host_key.context("datagrams need the host's key")?;
    let mut random = [0; 32];
    getrandom::fill(&mut random).context("the system gives no random bytes")?;
    let (handshake, noise) = ClientHandshake::start(&key, &options.ticket, random)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(HOST_MESSAGE_BYTES_MAX));
    // Without one, `wss://` is refused: whoever gave the address gave the trust, too.
    let connector = options.trust.as_ref().map_or(Connector::Plain, |trust| Connector::Rustls(trust.config()));
    let connected = connect_async_tls_with_config(options.ws_url.as_str(), Some(config), true, Some(connector)).await;
    let (mut websocket, _) = connected.map_err(|error| match tls_problem(&error) {
        Some(problem) => anyhow::anyhow!("TLS with {}: {problem}", options.ws_url),
        None => anyhow::Error::new(error).context("cannot reach the host"),
    })?;
    let peer = match websocket.get_ref() {
        MaybeTlsStream::Plain(tcp) => tcp.peer_addr()?,
        MaybeTlsStream::Rustls(tls) => tls.get_ref().0.peer_addr()?,
        _ => bail!("the way to {} is neither plain nor TLS", options.ws_url),
    };
    let hello = ClientMessage::Hello {
        protocol: PROTOCOL_VERSION,
        ticket: options.ticket.clone(),
        noise: Some(noise),
        after: None,
        deltas: true,
    };
    websocket.send(Message::text(hello.encode()?)).await?;
    let (session, port, noise, tick_hz) = loop {
        let Some(message) = websocket.next().await else { bail!("the host closed the connection before `welcome`") };
        let Message::Text(text) = message? else { continue };
        match HostMessage::decode(&text)? {
            HostMessage::Welcome { session, udp_port: Some(port), noise: Some(noise), tick_hz, .. } => {
                break (session, port, noise, tick_hz);
            }
            HostMessage::Refused { code, reason } => bail!("the host refused: {code}: {reason}"),
            _ => bail!("the host's first message is no `welcome` with datagrams"),
        }
    };
    let (sealer, opener) = handshake.finish(&noise)?.into_client_with(session);
    let mut opened = Opened { websocket, action_id: 0, actions: actions.into() };
    opened.say(&ClientMessage::Ready).await?;
    // What takes effect with the start is said before it.
    while let Some((0, action)) = opened.actions.front().cloned() {
        opened.actions.pop_front();
        opened.act(action).await?;
    }
    let host = SocketAddr::new(peer.ip(), port);
    Ok((opened, Line { session, host, sealer, opener, tick_hz }))
}

impl Opened {
    async fn say(&mut self, message: &ClientMessage) -> anyhow::Result<()> {
        self.websocket.send(Message::text(message.encode()?)).await?;
        Ok(())
    }

    async fn act(&mut self, data: Value) -> anyhow::Result<()> {
        self.action_id += 1;
        self.say(&ClientMessage::Action { id: self.action_id, data }).await
    }

    /// Keeps the WebSocket until the session ends: the game is over, which `over` hears at once, or everybody is to leave.
    pub(super) async fn keep(mut self, counters: &Counters, over: impl FnOnce(), mut leave: watch::Receiver<bool>) {
        let mut pings = interval(Duration::from_secs(PING_EVERY_S));
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut started: Option<Instant> = None;
        loop {
            let next_action = match (started, self.actions.front()) {
                (Some(started), Some((at_ms, _))) => Some(started + Duration::from_millis(*at_ms)),
                _ => None,
            };
            let said = tokio::select! {
                message = self.websocket.next() => match message {
                    Some(Ok(Message::Text(text))) => match HostMessage::decode(&text) {
                        Ok(HostMessage::Event { name, .. }) if name == "started" => {
                            started = Some(Instant::now());
                            counters.games_started.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        Ok(HostMessage::Event { name, .. }) if matches!(name.as_str(), "finished" | "aborted") => {
                            counters.games_over.fetch_add(1, Ordering::Relaxed);
                            over();
                            break;
                        }
                        _ => continue,
                    },
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => {
                        counters.sessions_lost.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                },
                _ = pings.tick() => ClientMessage::Ping { t: 1 },
                () = all_leave(&mut leave) => break,
                () = sleep_until(next_action.unwrap_or_else(Instant::now)), if next_action.is_some() => {
                    let Some((_, data)) = self.actions.pop_front() else { continue };
                    self.action_id += 1;
                    ClientMessage::Action { id: self.action_id, data }
                }
            };
            if self.say(&said).await.is_err() {
                counters.sessions_lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        // The host hears it before it hears that the connection ends; one that hangs is not waited for.
        let goodbye = async {
            self.say(&ClientMessage::Leave).await?;
            anyhow::Ok(self.websocket.close(None).await?)
        };
        let _gone = timeout(Duration::from_secs(GOODBYE_WAIT_MAX_S), goodbye).await;
    }
}
