//! Takes connections, speaks TLS on them if the host has a certificate, gives each to the router and ends those that hold a place without using
//! it. What requests mean is the business of [`super::http`].

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::gate::{self, Gate, Refusal};
use super::http::ApiError;
use super::linger::Linger;
use super::stall::Stall;
use crate::tls::InForce;

/// What a request's head and what is read ahead of it may take in memory, in bytes: a ticket in a header has 2 KiB.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// What the system may keep of answers that a client has not taken, in bytes: 1.3 MB/s at a round trip of 100 ms.
const SEND_BUFFER_BYTES: usize = 128 << 10;
/// What the system may keep of requests that the host has not read, in bytes.
const RECEIVE_BUFFER_BYTES: usize = 128 << 10;
/// The first byte of a TLS connection: a record of the type handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;
/// Connections that were refused and may still read that, at a time. They hold a file each and no other place; those beyond are closed at once.
const REFUSED_LINGERING_MAX: usize = 32;

/// How long the parts of a connection may take. Without any of these limits a thousand idle clients would close the door for good.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the next request's head, from the end of the answer before.
    pub head: Duration,
    /// For a request's body and the beginning of its answer together.
    pub request: Duration,
    /// Until a connection takes no further request, and then again `request` until it is cut; but see [`LongLived`].
    pub connection: Duration,
    /// For the client to take any part of an answer.
    pub stall: Duration,
}

impl Default for Waits {
    /// Five seconds for a handshake, which is two round trips, half a minute for people and libraries that keep a connection, half a minute for a request
    /// (compiling a module takes seconds), five minutes for a connection that reads its answers as slowly as it can, half a minute for one that does
    /// not read at all.
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(30),
            request: Duration::from_secs(30),
            connection: Duration::from_secs(300),
            stall: Duration::from_secs(30),
        }
    }
}

/// An extension of a response whose body goes on for as long as the client takes it, like a stream of events: its connection does not get too old.
/// `Waits::stall` still ends it when the client has stopped reading.
#[derive(Debug, Clone, Copy)]
pub struct LongLived;

/// An extension of every request: the connection that it came on.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The other end of the TCP connection.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub is_tls: bool,
    is_long_lived: Arc<AtomicBool>,
}

impl Peer {
    pub(super) fn new(address: SocketAddr, is_tls: bool) -> Self {
        Self { address, is_tls, is_long_lived: Arc::default() }
    }
}

/// Pause after the system refused a connection, which is when files run out: others must end first.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);
/// Refusals between two lines of log: one a minute at that pause.
const REFUSALS_PER_LOG: u64 = 300;

/// What every connection is given.
#[derive(Clone)]
struct Door {
    router: Router,
    tls: Option<Arc<InForce>>,
    gate: Arc<Gate>,
    waits: Waits,
    stop: watch::Receiver<bool>,
}

/// Serves up to `connections_max` clients at a time until `stop` is true, then ends every connection after the request that it is at. With `tls` it
/// speaks TLS alone. The `gate` decides whom it serves, and adds who asks to each request.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<InForce>>,
    gate: Arc<Gate>,
    waits: Waits,
    connections_max: u32,
    mut stop: watch::Receiver<bool>,
) {
    let router = router
        .layer(from_fn_with_state(Arc::clone(&gate), gate::admit))
        .layer(from_fn_with_state(waits.request, in_time));
    bound_buffers(&listener);
    let door = Door { router, tls, gate, waits, stop: stop.clone() };
    let places = Arc::new(Semaphore::new(connections_max as usize));
    let refused_places = Arc::new(Semaphore::new(REFUSED_LINGERING_MAX));
    let mut refusals = 0_u64;
    loop {
        let accepted = async {
            // It fails only when it is closed, and nobody closes it.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            _sender_gone = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, address)) => {
                let held = match door.gate.connection(address.ip()) {
                    Ok(held) => held,
                    Err(refusal) => {
                        if door.tls.is_none() {
                            // As much as the system takes now: nobody waits for a client who is refused.
                            let told = stream.try_write(plain_refusal(&refusal).as_bytes());
                            if let (Ok(_), Ok(place)) = (told, Arc::clone(&refused_places).try_acquire_owned()) {
                                tokio::spawn(async move {
                                    let _cut = Linger::new(stream).shutdown().await;
                                    drop(place);
                                });
                            }
                        }
                        continue;
                    }
                };
                let door = door.clone();
                tokio::spawn(async move {
                    connection(stream, address, door).await;
                    drop((held, place));
                });
            }
            // The client was gone before it was its turn.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                if refusals.is_multiple_of(REFUSALS_PER_LOG) {
                    tracing::error!(%error, "no connection can be taken; if files run out, raise the limit (ulimit -n)");
                }
                refusals += 1;
                sleep(REFUSED_PAUSE).await;
            }
        }
    }
    drop(listener);
    let _all_ended = places.acquire_many(connections_max).await;
}

/// Bounds what the system keeps for a connection whose client does not read, or whose bytes the host does not read: connections take these sizes over
/// from the listener. Without it Linux lets each grow to 4 MiB and more.
fn bound_buffers(listener: &TcpListener) {
    let socket = socket2::SockRef::from(listener);
    for refused in [socket.set_send_buffer_size(SEND_BUFFER_BYTES), socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)] {
        if let Err(error) = refused {
            tracing::debug!(%error, "the system keeps its own sizes of buffers");
        }
    }
}

/// An answer for who is refused before a request of theirs is read.
fn plain_refusal(refusal: &Refusal) -> String {
    let body = json!({ "error": { "code": "too_many_requests", "message": refusal.to_string() } }).to_string();
    format!(
        "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nRetry-After: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        refusal.retry_after_s,
        body.len()
    )
}

async fn connection(stream: TcpStream, address: SocketAddr, mut door: Door) {
    // An answer is one write; waiting to fill a packet would only delay it.
    let _slower = stream.set_nodelay(true);
    let Some(tls) = &door.tls else { return http(Linger::new(stream), address, false, door).await };
    if door.gate.tls_handshake(address.ip()).is_err() {
        // Counted; before the handshake there is no way to say it.
        return;
    }
    let acceptor = TlsAcceptor::from(tls.config());
    let shaken = tokio::select! {
        shaken = timeout(door.waits.handshake, handshake(stream, acceptor)) => shaken,
        _sender_gone = door.stop.wait_for(|stop| *stop) => return,
    };
    let handshakes = door.gate.tls_handshakes();
    let counter = if matches!(shaken, Ok(Ok(_))) { &handshakes.done } else { &handshakes.failed };
    counter.fetch_add(1, Ordering::Relaxed);
    match shaken {
        Ok(Ok(stream)) => http(stream, address, true, door).await,
        // Its client knows better than the host what it did not like, and strangers who knock at a port are no news.
        Ok(Err(error)) => tracing::debug!(%address, %error, "no TLS handshake"),
        Err(_) => tracing::debug!(%address, "the TLS handshake took too long"),
    }
}

async fn handshake(
    stream: TcpStream,
    acceptor: TlsAcceptor,
) -> std::io::Result<tokio_rustls::server::TlsStream<Linger<TcpStream>>> {
    let mut first = [0];
    let is_tls = stream.peek(&mut first).await? == 0 || first == [TLS_HANDSHAKE];
    let mut stream = Linger::new(stream);
    if is_tls {
        let (error, mut stream) = match acceptor.accept(stream).into_fallible().await {
            Ok(shaken) => return Ok(shaken),
            Err(failed) => failed,
        };
        // The client reads the alert that says why.
        stream.shutdown().await?;
        return Err(error);
    }
    let message = "this port speaks TLS; use https:// and wss:// instead of http:// and ws://";
    let body = json!({ "error": { "code": "tls_required", "message": message } }).to_string();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    Err(std::io::Error::new(ErrorKind::InvalidData, "what came is not TLS"))
}

async fn http<S>(stream: S, address: SocketAddr, is_tls: bool, door: Door)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Door { router, waits, mut stop, .. } = door;
    let peer = Peer::new(address, is_tls);
    let is_long_lived = Arc::clone(&peer.is_long_lived);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(waits.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(
            TokioIo::new(Stall::new(stream, waits.stall)),
            OfPeer { router: TowerToHyperService::new(router), peer },
        )
        .with_upgrades();
    tokio::pin!(served);
    let mut stopping = false;
    while !stopping {
        tokio::select! {
            // A client that breaks the rules has had its answer from hyper.
            _broken = served.as_mut() => return,
            _sender_gone = stop.wait_for(|stop| *stop) => stopping = true,
            () = sleep(waits.connection) => stopping = !is_long_lived.load(Ordering::Relaxed),
        }
    }
    served.as_mut().graceful_shutdown();
    let _cut = timeout(waits.request, served).await;
}

/// The router, for requests of one connection.
struct OfPeer {
    router: TowerToHyperService<Router>,
    peer: Peer,
}

impl Service<Request<Incoming>> for OfPeer {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        self.router.call(request)
    }
}

async fn in_time(State(wait): State<Duration>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    let response = timeout(wait, next.run(request)).await.unwrap_or_else(|_| {
        let message = format!("the request was not complete and answered within {} s; send it again", wait.as_secs());
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message).into_response()
    });
    if let Some(peer) = peer {
        peer.is_long_lived.store(response.extensions().get::<LongLived>().is_some(), Ordering::Relaxed);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::{get, post};
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const DEADLINE: Duration = Duration::from_secs(30);

    async fn start(waits: Waits) -> (SocketAddr, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = async || {
            let body = axum::body::Body::from_stream(futures_util::stream::unfold(0_u8, |number| async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let piece = if number == 20 { None } else { Some(Ok::<_, std::io::Error>(vec![b'a' + number])) };
                piece.map(|piece| (piece, number + 1))
            }));
            (axum::Extension(LongLived), body)
        };
        let router = Router::new()
            .route("/", get(async || "here"))
            .route("/", post(async |body: String| body))
            .route("/stream", get(stream));
        let (stop, stopped) = watch::channel(false);
        let gate = Gate::new(gate::Rules::default(), crate::clock::Clock::start());
        (address, stop, tokio::spawn(serve(listener, router, None, gate, waits, 1_000, stopped)))
    }

    /// What comes until the host closes the connection.
    async fn until_closed(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        let closed = timeout(DEADLINE, stream.read_to_end(&mut bytes)).await;
        // A reset is closed, too.
        let _reset = closed.expect("the connection stays open");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn short() -> Waits {
        Waits { head: Duration::from_millis(50), request: Duration::from_millis(50), ..Waits::default() }
    }

    #[tokio::test]
    async fn a_connection_without_a_whole_request_is_closed() {
        let (address, _stop, _serving) = start(short()).await;
        for head in ["", "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            until_closed(&mut stream).await;
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc").await.unwrap();
        let answer = until_closed(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
    }

    #[tokio::test]
    async fn a_connection_gets_old() {
        let (address, _stop, _serving) =
            start(Waits { connection: Duration::from_millis(50), ..Waits::default() }).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let answer = until_closed(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("here"), "{answer}");
    }

    #[tokio::test]
    async fn a_stream_does_not_get_too_old_but_stops_with_the_host() {
        let (address, stop, serving) = start(Waits { connection: Duration::from_millis(50), ..short() }).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let answer = until_closed(&mut stream).await;
        assert!(answer.contains("a\r\n") && answer.contains("t\r\n") && answer.ends_with("0\r\n\r\n"), "{answer}");
        let mut cut = TcpStream::connect(address).await.unwrap();
        cut.write_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        cut.read_exact(&mut [0; 12]).await.unwrap();
        stop.send(true).unwrap();
        until_closed(&mut cut).await;
        timeout(DEADLINE, serving).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_stop_ends_idle_connections_and_then_the_service() {
        let (address, stop, serving) = start(Waits::default()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        stop.send(true).unwrap();
        until_closed(&mut stream).await;
        timeout(DEADLINE, serving).await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
