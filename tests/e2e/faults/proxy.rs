//! A network between a host and its broker that fails by order: refuses, hangs, resets, is slow, cuts a connection in the middle of a packet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// Bytes that are forwarded at a time.
const PIECE_BYTES: usize = 4_096;

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// As it should be.
    Fair,
    /// Nobody listens, and what was connected is reset.
    Refuses,
    /// Connections are taken and kept, and not one byte gets through.
    Hangs,
    /// Each piece of some kilobytes takes this many milliseconds.
    Slow(u64),
    /// Each connection gets this many bytes through, both ways together, and is reset then.
    CutsAfter(u64),
}

/// The way to a port.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    weather: watch::Sender<Weather>,
    resets: watch::Sender<u64>,
    connections: Arc<AtomicU64>,
}

impl Proxy {
    /// Forwards to that port of this machine.
    pub(crate) async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let weather = watch::Sender::new(Weather::Fair);
        let resets = watch::Sender::new(0);
        let connections = Arc::new(AtomicU64::new(0));
        let proxy =
            Self { port, weather: weather.clone(), resets: resets.clone(), connections: Arc::clone(&connections) };
        tokio::spawn(async move {
            let mut weather_now = weather.subscribe();
            let mut listener = Some(listener);
            loop {
                if *weather_now.borrow_and_update() == Weather::Refuses {
                    listener = None;
                    if weather_now.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                let listening = match listener.take() {
                    Some(listening) => listening,
                    None => TcpListener::bind(("127.0.0.1", port)).await.expect("its port is still its own"),
                };
                tokio::select! {
                    taken = listening.accept() => {
                        if let Ok((client, _)) = taken {
                            connections.fetch_add(1, Ordering::Relaxed);
                            tokio::spawn(forward(client, target, weather.subscribe(), resets.subscribe()));
                        }
                    }
                    changed = weather_now.changed() => if changed.is_err() { return },
                }
                listener = Some(listening);
            }
        });
        proxy
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Resets every connection.
    pub(crate) fn reset(&self) {
        self.resets.send_modify(|resets| *resets += 1);
    }

    /// Connections that were taken so far.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn forward(client: TcpStream, target: u16, weather: watch::Receiver<Weather>, mut resets: watch::Receiver<u64>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    for stream in [&client, &server] {
        // Dropped means reset: what is on its way is lost.
        let _ = stream.set_zero_linger();
        let _ = stream.set_nodelay(true);
    }
    let through = AtomicU64::new(0);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    resets.borrow_and_update();
    tokio::select! {
        () = pump(from_client, to_server, weather.clone(), &through) => {}
        () = pump(from_server, to_client, weather, &through) => {}
        _ = resets.changed() => {}
    }
}

/// Forwards one way until the connection ends or the weather ends it.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    through: &AtomicU64,
) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = tokio::select! {
            read = from.read(&mut piece) => read,
            refused = weather.wait_for(|now| *now == Weather::Refuses) => { drop(refused); return }
        };
        let Ok(len @ 1..) = read else { return };
        let mut len = len;
        let now = *weather.borrow_and_update();
        match now {
            Weather::Fair => {}
            Weather::Refuses => return,
            Weather::Hangs => {
                // What was read comes through when the weather changes, unless the connection is given up before.
                if weather.changed().await.is_err() {
                    return;
                }
            }
            Weather::Slow(ms) => sleep(Duration::from_millis(ms)).await,
            Weather::CutsAfter(bytes) => {
                let before = through.fetch_add(len as u64, Ordering::Relaxed);
                let left = bytes.saturating_sub(before);
                if left <= len as u64 {
                    len = usize::try_from(left).unwrap();
                    let _cut_anyway = to.write_all(&piece[..len]).await;
                    return;
                }
            }
        }
        if to.write_all(&piece[..len]).await.is_err() {
            return;
        }
    }
}
