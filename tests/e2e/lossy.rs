//! A bad network between a player and a host, for tests: datagrams are lost and late, TCP is late, and later where a segment was lost. It stands on an
//! address of its own of this machine's loopback network (Linux has all of 127/8), with the host's own UDP port, so that a client finds both there
//! without knowing of it. No test is in here.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Datagrams of which one is lost.
const LOST_ONE_IN: u64 = 10;
/// How long everything takes, each way.
pub(crate) const DELAY: Duration = Duration::from_millis(80);
/// How much later a piece of a TCP stream comes that was lost, and all behind it: the shortest time after which Linux sends it again.
const SENT_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Pieces on the way, in each direction.
const ON_THE_WAY_MAX: usize = 1_024;

/// What became of the pieces.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) datagrams: AtomicU64,
    pub(crate) datagrams_lost: AtomicU64,
    pub(crate) pieces: AtomicU64,
    pub(crate) pieces_lost: AtomicU64,
}

/// Decides what is lost: SplitMix64 (Steele, Lea, Flood 2014), from a seed.
#[derive(Debug)]
struct Lots(u64);

impl Lots {
    fn is_lost(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31).is_multiple_of(LOST_ONE_IN)
    }
}

/// The network of one player.
#[derive(Debug)]
pub(crate) struct Lossy {
    address: SocketAddr,
    cut: watch::Sender<u64>,
    pub(crate) counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

impl Lossy {
    /// Lays the network between 127.0.0.`last` and a host.
    pub(crate) async fn start(last: u8, http: SocketAddr, udp: SocketAddr, seed: u64) -> Self {
        let ip = Ipv4Addr::new(127, 0, 0, last);
        let (tcp_door, udp_door) = (
            TcpListener::bind((ip, 0)).await.unwrap(),
            UdpSocket::bind((ip, udp.port())).await.unwrap_or_else(|error| panic!("{ip}:{}: {error}", udp.port())),
        );
        let address = tcp_door.local_addr().unwrap();
        let (cut, cuts) = watch::channel(0);
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(streams(tcp_door, http, cuts.clone(), Arc::clone(&counts), seed));
        tasks.spawn(datagrams(Arc::new(udp_door), udp, cuts, Arc::clone(&counts), seed ^ 0x5555));
        Self { address, cut, counts, _tasks: tasks }
    }

    /// The host's WebSocket through this network.
    pub(crate) fn ws_url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// Cuts everything that is open: streams end without a goodbye, and sockets that sent datagrams so far are heard no more. What is opened later works.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    /// What was lost so far, for people.
    pub(crate) fn told(&self) -> String {
        let n = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { datagrams, datagrams_lost, pieces, pieces_lost } = &*self.counts;
        format!(
            "{} of {} datagrams lost, {} of {} pieces of streams late",
            n(datagrams_lost),
            n(datagrams),
            n(pieces_lost),
            n(pieces)
        )
    }
}

type Way = mpsc::Sender<(Instant, Vec<u8>)>;

async fn datagrams(
    door: Arc<UdpSocket>,
    host: SocketAddr,
    mut cuts: watch::Receiver<u64>,
    counts: Arc<Counts>,
    seed: u64,
) {
    let mut ways: HashMap<SocketAddr, (Way, JoinSet<()>)> = HashMap::new();
    let mut cut_off: HashSet<SocketAddr> = HashSet::new();
    let mut lots = Lots(seed);
    let mut buffer = [0; 2_048];
    loop {
        let (len, from) = tokio::select! {
            received = door.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // Somebody's socket is gone; the next one is not.
                Err(_) => continue,
            },
            changed = cuts.changed() => {
                if changed.is_err() {
                    return;
                }
                cut_off.extend(ways.drain().map(|(from, _)| from));
                continue;
            }
        };
        if cut_off.contains(&from) {
            continue;
        }
        let (way, _tasks) = match ways.entry(from) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(way_of(from, &door, host, &counts, seed ^ u64::from(from.port())).await),
        };
        counts.datagrams.fetch_add(1, Ordering::Relaxed);
        if lots.is_lost() {
            counts.datagrams_lost.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let _full = way.try_send((Instant::now() + DELAY, buffer[..len].to_vec()));
    }
}

/// The way of one socket of a client: there through a queue, back by a task.
async fn way_of(
    client: SocketAddr,
    door: &Arc<UdpSocket>,
    host: SocketAddr,
    counts: &Arc<Counts>,
    seed: u64,
) -> (Way, JoinSet<()>) {
    let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    near.connect(host).await.unwrap();
    let (there, mut queue) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY_MAX);
    let (back, mut returning) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY_MAX);
    let mut tasks = JoinSet::new();
    let sending = Arc::clone(&near);
    tasks.spawn(async move {
        while let Some((due, bytes)) = queue.recv().await {
            sleep_until(due).await;
            let _refused = sending.send(&bytes).await;
        }
    });
    let counts = Arc::clone(counts);
    tasks.spawn(async move {
        let mut lots = Lots(seed);
        let mut buffer = [0; 2_048];
        loop {
            let Ok(len) = near.recv(&mut buffer).await else { continue };
            counts.datagrams.fetch_add(1, Ordering::Relaxed);
            if lots.is_lost() {
                counts.datagrams_lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let _full = back.try_send((Instant::now() + DELAY, buffer[..len].to_vec()));
        }
    });
    let door = Arc::clone(door);
    tasks.spawn(async move {
        while let Some((due, bytes)) = returning.recv().await {
            sleep_until(due).await;
            let _gone = door.send_to(&bytes, client).await;
        }
    });
    (there, tasks)
}

async fn streams(door: TcpListener, host: SocketAddr, cuts: watch::Receiver<u64>, counts: Arc<Counts>, seed: u64) {
    let mut number = 0;
    let mut open = JoinSet::new();
    while let Ok((near, _)) = door.accept().await {
        number += 1;
        let (mut cuts, counts) = (cuts.clone(), Arc::clone(&counts));
        cuts.mark_unchanged();
        open.spawn(async move {
            let Ok(far) = TcpStream::connect(host).await else { return };
            let (near_in, near_out) = near.into_split();
            let (far_in, far_out) = far.into_split();
            let there = late(near_in, far_out, Lots(seed.wrapping_add(number)), &counts);
            let back = late(far_in, near_out, Lots(seed.wrapping_add(number << 32)), &counts);
            tokio::select! {
                ((), ()) = async { tokio::join!(there, back) } => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

/// One direction of a stream.
async fn late(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut lots: Lots,
    counts: &Counts,
) {
    let (pieces, mut queue) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY_MAX);
    let reading = async move {
        let mut buffer = [0; 1_400];
        let mut last_due = Instant::now();
        while let Ok(len @ 1..) = from.read(&mut buffer).await {
            counts.pieces.fetch_add(1, Ordering::Relaxed);
            let mut due = Instant::now() + DELAY;
            if lots.is_lost() {
                counts.pieces_lost.fetch_add(1, Ordering::Relaxed);
                due += SENT_AGAIN_AFTER;
            }
            // A stream keeps its order.
            last_due = last_due.max(due);
            if pieces.send((last_due, buffer[..len].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = queue.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _gone = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}
