//! A player's WebSocket: the handshake at the beginning, the events that tell of the game, a ping now and then, and the goodbye.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use holeshot_client::ConnectOptions;
use holeshot_wire::{ClientHandshake, ClientMessage, HostMessage, PROTOCOL_VERSION};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::Counters;
use super::thread::Member;
use crate::bots::crowd::Player;

/// How long a host may take to answer, in seconds.
const ANSWER_WAIT_MAX_S: u64 = 20;
/// How often the WebSocket says that it is there, in seconds: a quarter of what a host waits for.
const PING_EVERY_S: u64 = 5;

/// A session's WebSocket.
#[derive(Debug)]
pub struct Opened {
    websocket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// Opens a session. Gives its WebSocket, and what plays over datagrams.
pub(super) async fn open(options: &ConnectOptions, player: Player) -> anyhow::Result<(Opened, Member)> {
    let opened = open_unbounded(options, player);
    timeout(Duration::from_secs(ANSWER_WAIT_MAX_S), opened).await.context("the host does not answer in time")?
}

async fn open_unbounded(options: &ConnectOptions, player: Player) -> anyhow::Result<(Opened, Member)> {
    let key = options.host_key.context("datagrams need the host's key")?;
    let mut random = [0; 32];
    getrandom::fill(&mut random).context("the system gives no random bytes")?;
    let (handshake, noise) = ClientHandshake::start(&key, &options.ticket, random)?;
    let (mut websocket, _) = connect_async(options.ws_url.as_str()).await.context("cannot reach the host")?;
    let peer = match websocket.get_ref() {
        MaybeTlsStream::Plain(tcp) => tcp.peer_addr()?,
        _ => bail!("the load generator plays over ws:// only, not over {}", options.ws_url),
    };
    let hello = ClientMessage::Hello {
        protocol: PROTOCOL_VERSION,
        ticket: options.ticket.clone(),
        noise: Some(noise),
        after: None,
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
    let Player { first_action, answer } = player;
    websocket.send(Message::text(ClientMessage::Ready.encode()?)).await?;
    if let Some(data) = first_action {
        websocket.send(Message::text(ClientMessage::Action { id: 1, data }.encode()?)).await?;
    }
    let host = SocketAddr::new(peer.ip(), port);
    Ok((Opened { websocket }, Member::new(session, host, sealer, opener, tick_hz, answer)))
}

/// Keeps a session's WebSocket until it ends or everybody is to leave.
pub(super) async fn keep(opened: Opened, counters: Arc<Counters>, mut leave: watch::Receiver<bool>) {
    let Opened { mut websocket } = opened;
    let mut pings = interval(Duration::from_secs(PING_EVERY_S));
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut leaves = false;
    loop {
        let said = tokio::select! {
            message = websocket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    if let Ok(HostMessage::Event { name, .. }) = HostMessage::decode(&text) {
                        match name.as_str() {
                            "started" => _ = counters.games_started.fetch_add(1, Ordering::Relaxed),
                            "finished" | "aborted" => _ = counters.games_over.fetch_add(1, Ordering::Relaxed),
                            _ => {}
                        }
                    }
                    continue;
                }
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => {
                    if !leaves {
                        counters.sessions_lost.fetch_add(1, Ordering::Relaxed);
                    }
                    return;
                }
            },
            _ = pings.tick() => ClientMessage::Ping { t: 1 },
            changed = leave.changed(), if !leaves => {
                leaves = true;
                if changed.is_err() {
                    return;
                }
                ClientMessage::Leave
            }
        };
        let Ok(text) = said.encode() else { return };
        if websocket.send(Message::text(text)).await.is_err() {
            return;
        }
    }
}
