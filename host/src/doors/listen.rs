//! Takes HTTP connections, gives each to the router and ends those that hold a place without using it. What requests mean is
//! the business of [`super::http`].

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::http::ApiError;

/// HTTP connections at a time, WebSockets not counted (an upgrade frees the place), where the system lets a process have as many files:
/// beyond this, clients wait in the system's queue. Each may hold a body of a megabyte.
pub const CONNECTIONS_MAX: u32 = 1_000;

/// How long the parts of a connection may take. Without any of these limits a thousand idle clients would close the door for good.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// For the next request's head, from the end of the answer before.
    pub head: Duration,
    /// For a request's body and its answer together.
    pub request: Duration,
    /// Until a connection takes no further request, and then again `request` until it is cut.
    pub connection: Duration,
}

impl Default for Waits {
    /// Half a minute for people and libraries that keep a connection, half a minute for a request (compiling a module takes
    /// seconds), five minutes for a connection that reads its answers as slowly as it can.
    fn default() -> Self {
        Self { head: Duration::from_secs(30), request: Duration::from_secs(30), connection: Duration::from_secs(300) }
    }
}

/// Pause after the system refused a connection, which is when files run out: others must end first.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);
/// Refusals between two lines of log: one a minute at that pause.
const REFUSALS_PER_LOG: u64 = 300;

/// Serves up to `connections_max` clients at a time until `stop` is true, then ends every connection after the request that it is at.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    waits: Waits,
    connections_max: u32,
    mut stop: watch::Receiver<bool>,
) {
    let router = router.layer(from_fn_with_state(waits.request, in_time));
    let places = Arc::new(Semaphore::new(connections_max as usize));
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
            Ok((stream, _)) => {
                let (router, stop) = (router.clone(), stop.clone());
                tokio::spawn(async move {
                    connection(stream, router, waits, stop).await;
                    drop(place);
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

async fn connection(stream: TcpStream, router: Router, waits: Waits, mut stop: watch::Receiver<bool>) {
    // An answer is one write; waiting to fill a packet would only delay it.
    let _slower = stream.set_nodelay(true);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(waits.head)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    tokio::pin!(served);
    tokio::select! {
        // A client that breaks the rules has had its answer from hyper.
        _broken = served.as_mut() => return,
        _sender_gone = stop.wait_for(|stop| *stop) => {}
        () = sleep(waits.connection) => {}
    }
    served.as_mut().graceful_shutdown();
    let _cut = timeout(waits.request, served).await;
}

async fn in_time(State(wait): State<Duration>, request: Request, next: Next) -> Response {
    timeout(wait, next.run(request)).await.unwrap_or_else(|_| {
        let message = format!("the request was not complete and answered within {} s; send it again", wait.as_secs());
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message).into_response()
    })
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
        let router = Router::new().route("/", get(async || "here")).route("/", post(async |body: String| body));
        let (stop, stopped) = watch::channel(false);
        (address, stop, tokio::spawn(serve(listener, router, waits, CONNECTIONS_MAX, stopped)))
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
