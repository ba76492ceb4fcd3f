//! One connection to the host, from the URL to `welcome`: TCP, WebSocket, handshake, and the UDP socket beside it. What
//! happens on it afterwards is the driver's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use holeshot_seal::RingCipher;
use holeshot_wire::message::HOST_MESSAGE_BYTES_MAX;
use holeshot_wire::{ClientHandshake, ClientMessage, HandshakeMessage, HostMessage, Opener, PROTOCOL_VERSION, Sealer};
use tokio::net::{TcpStream, UdpSocket};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use crate::incoming::Welcome;
use crate::options::{ConnectError, ConnectOptions, Transport};
use crate::tls::{Trust, TrustError, tls_problem};

/// How long opening a connection may take, from the first packet to `welcome`, in milliseconds.
const CONNECT_MS_MAX: u64 = 5_000;

pub(crate) type WebSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// An open session.
pub(crate) struct Link {
    pub(crate) websocket: WebSocket,
    pub(crate) udp: Option<UdpLink>,
    pub(crate) welcome: Welcome,
    /// The ticket for the next connection.
    pub(crate) resume: Option<String>,
    /// Snapshots may come as deltas.
    pub(crate) deltas: bool,
}

/// The UDP side of a session.
pub(crate) struct UdpLink {
    pub(crate) socket: UdpSocket,
    pub(crate) sealer: Sealer<RingCipher>,
    pub(crate) opener: Opener<RingCipher>,
}

/// Opens a session. `after` is the last event seen.
pub(crate) async fn open(options: &ConnectOptions, ticket: &str, after: Option<u64>) -> Result<Link, ConnectError> {
    let limit = Duration::from_millis(CONNECT_MS_MAX);
    tokio::time::timeout(limit, open_unbounded(options, ticket, after))
        .await
        .unwrap_or(Err(ConnectError::Timeout { waited_ms: CONNECT_MS_MAX }))
}

async fn open_unbounded(options: &ConnectOptions, ticket: &str, after: Option<u64>) -> Result<Link, ConnectError> {
    // Before anything is sent: what cannot work is said at once.
    let handshake = match (options.transport, options.host_key) {
        (Transport::WebSocketOnly, _) => None,
        (Transport::Udp, None) => return Err(ConnectError::HostKeyMissing),
        (Transport::Udp, Some(host_key)) => Some(ClientHandshake::start(&host_key, ticket, random()?)?),
    };
    let (handshake, message_1) = handshake.unzip();
    let hello = ClientMessage::Hello {
        protocol: PROTOCOL_VERSION,
        ticket: ticket.to_owned(),
        noise: message_1,
        after,
        deltas: options.deltas,
    };
    let hello = hello.encode().map_err(ConnectError::Ticket)?;

    let (mut websocket, peer) = open_websocket(&options.ws_url, options.trust.as_ref()).await?;
    websocket.send(Message::text(hello)).await.map_err(|error| io(&options.ws_url, error))?;
    let Answer { welcome, resume, udp_port, noise: message_2, deltas } =
        first_answer(&mut websocket, &options.ws_url).await?;
    let udp = match (handshake, udp_port, message_2) {
        (Some(handshake), Some(port), Some(message_2)) => {
            let (sealer, opener) = handshake.finish(&message_2)?.into_client_with(welcome.session);
            let socket = open_udp(SocketAddr::new(peer.ip(), port)).await?;
            Some(UdpLink { socket, sealer, opener })
        }
        // The host has no UDP: the session goes on over the WebSocket.
        _ => None,
    };
    Ok(Link { websocket, udp, welcome, resume, deltas })
}

/// What `welcome` says: for the player program, and for this crate.
struct Answer {
    welcome: Welcome,
    resume: Option<String>,
    udp_port: Option<u16>,
    noise: Option<HandshakeMessage>,
    deltas: bool,
}

async fn open_websocket(url: &str, trust: Option<&Trust>) -> Result<(WebSocket, SocketAddr), ConnectError> {
    let wrong = |reason: &str| ConnectError::Url { url: url.to_owned(), reason: reason.to_owned() };
    let request = url.into_client_request().map_err(|error| wrong(&error.to_string()))?;
    let uri = request.uri();
    let (connector, usual_port) = match uri.scheme_str() {
        Some("ws") => (Connector::Plain, 80),
        Some("wss") => {
            let trust = match trust {
                Some(trust) => trust.clone(),
                // Files of the system, which are read once for each connection.
                None => tokio::task::spawn_blocking(Trust::system)
                    .await
                    .unwrap_or_else(|error| Err(TrustError::Setup { reason: error.to_string() }))?,
            };
            (Connector::Rustls(trust.config()), 443)
        }
        _ => return Err(wrong("the scheme is neither ws nor wss")),
    };
    let host = uri.host().ok_or_else(|| wrong("no host"))?;
    // In a URL, IPv6 addresses stand in brackets.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let tcp = TcpStream::connect((host, uri.port_u16().unwrap_or(usual_port))).await.map_err(|error| io(url, error))?;
    // Actions and events are small and urgent.
    tcp.set_nodelay(true).map_err(|error| io(url, error))?;
    let peer = tcp.peer_addr().map_err(|error| io(url, error))?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(HOST_MESSAGE_BYTES_MAX))
        .max_frame_size(Some(HOST_MESSAGE_BYTES_MAX))
        .read_buffer_size(16 << 10)
        .write_buffer_size(0);
    let opened = client_async_tls_with_config(request, tcp, Some(config), Some(connector)).await;
    let (websocket, _) = opened.map_err(|error| match error {
        error if tls_problem(&error).is_some() => {
            ConnectError::Tls { url: url.to_owned(), reason: tls_problem(&error).unwrap_or_default() }
        }
        tungstenite::Error::Io(error) => io(url, error),
        tungstenite::Error::Http(answer) if matches!(answer.status().as_u16(), 429 | 503) => {
            let after = answer.headers().get("retry-after").and_then(|after| after.to_str().ok()?.parse().ok());
            ConnectError::Busy { status: answer.status().as_u16(), retry_after_s: after.unwrap_or(1) }
        }
        error => ConnectError::WebSocket { reason: error.to_string() },
    })?;
    Ok((websocket, peer))
}

async fn first_answer(websocket: &mut WebSocket, url: &str) -> Result<Answer, ConnectError> {
    let protocol = |reason: String| ConnectError::Protocol { reason };
    loop {
        let text = match websocket.next().await {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Ok(Message::Binary(_))) => {
                return Err(protocol("a payload before welcome".into()));
            }
            Some(Ok(Message::Close(_))) | None => {
                return Err(io(url, "the host closed the connection before welcome"));
            }
            Some(Err(error)) => return Err(io(url, error)),
        };
        return match HostMessage::decode(&text) {
            Ok(HostMessage::Welcome {
                session,
                room,
                player,
                players,
                udp_port,
                noise,
                tick_hz,
                rules,
                phase,
                resumed,
                resume,
                deltas,
            }) => {
                let welcome = Welcome { session, room, player, players, tick_hz, rules, phase, resumed };
                Ok(Answer { welcome, resume, udp_port, noise, deltas })
            }
            Ok(HostMessage::Refused { code, reason }) => Err(ConnectError::Refused { code, reason }),
            Ok(_) => Err(protocol("the first message is neither welcome nor refused".into())),
            Err(error) => Err(protocol(error.to_string())),
        };
    }
}

async fn open_udp(host: SocketAddr) -> Result<UdpSocket, ConnectError> {
    let any = match host {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let failed = |error| io(&format!("UDP {host}"), error);
    let socket = UdpSocket::bind((any, 0)).await.map_err(failed)?;
    // Connected: the system drops what comes from elsewhere.
    socket.connect(host).await.map_err(failed)?;
    Ok(socket)
}

fn random() -> Result<[u8; 32], ConnectError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| ConnectError::Random { reason: error.to_string() })?;
    Ok(bytes)
}

fn io(what: &str, reason: impl ToString) -> ConnectError {
    ConnectError::Io { what: what.to_owned(), reason: reason.to_string() }
}
