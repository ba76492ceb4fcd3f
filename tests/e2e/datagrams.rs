//! Datagrams of nobody: a million of them leave nothing behind and get no answer; and an address that has not answered a challenge is sent no more bytes than
//! came from it, counted on the wire in every order of what a client can send.

use std::time::Duration;

use holeshot_wire::{ToClient, ToHost};
use serde_json::json;
use tokio::net::UdpSocket;

use crate::command::{LONG, Served};
use crate::harness::{Grant, Host, SOON, data_dir, eventually, run};
use crate::modules_made::Tally;
use crate::peer::{Peer, UdpPeer};

/// Garbage datagrams.
const MILLION: usize = 1_000_000;

async fn figure(host: &Served, name: &str) -> u64 {
    let text =
        crate::harness::client().get(format!("{}/metrics", host.url)).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
    line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
}

#[test]
fn a_million_datagrams_of_nobody_leave_nothing_behind() {
    run(120, async {
        let dir = data_dir();
        let host = Served::start_with_games(dir.path(), &["--drain-wait-s", "0"]).await;
        let (room, mut ada) = host.playing(LONG).await;
        // A session with keys, whose number the garbage can name.
        let grant = host.request("/api/rooms", Some(json!({ "module": LONG, "players": [{ "name": "Eve" }] }))).await;
        let other = grant["room"].as_str().unwrap().to_owned();
        let grant = host.request(&format!("/api/rooms/{other}/join"), Some(json!({ "player": "Eve" }))).await;
        let grant: Grant = serde_json::from_value(grant).unwrap();
        let mut eve = UdpPeer::enter(&grant).await;
        eve.establish().await;
        let genuine = eve.seal(&ToHost::Ping(1));
        let udp = host.listen["udp"].as_str().unwrap().to_owned();
        let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        stranger.connect(&udp).unwrap();
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        println!("seed {seed}");
        let mut flood = |count: usize| {
            let mut datagram = [0u8; 200];
            for _ in 0..count {
                // Marsaglia's xorshift64.
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                let len = 14 + (seed % 180) as usize;
                for (at, byte) in datagram.iter_mut().enumerate() {
                    *byte = (seed >> (at % 8 * 8)) as u8;
                }
                // Half of them look like Eve's.
                if seed & 1 == 0 {
                    datagram[..5].copy_from_slice(&genuine[..5]);
                }
                let _full = stranger.send(&datagram[..len]);
            }
        };
        // As many as the buffer takes, then a wait until the host has seen them, so that it is the host which drops them and not the system.
        let received = "holeshot_shard_datagrams_received_total{shard=\"0\"}";
        let refused = "holeshot_shard_datagrams_refused_total{shard=\"0\"}";
        flood(20_000);
        tokio::time::sleep(Duration::from_millis(600)).await;
        let (rss_before, refused_before) =
            (figure(&host, "process_resident_memory_bytes").await, figure(&host, refused).await);
        let (threads, files) = (figure(&host, "process_threads").await, figure(&host, "process_open_fds").await);
        for _ in 0..MILLION / 250 {
            flood(250);
            tokio::task::yield_now().await;
        }
        let mut last = 0;
        eventually("the host has looked at what arrived", SOON * 2, async || {
            tokio::time::sleep(Duration::from_millis(600)).await;
            let now = figure(&host, received).await;
            if std::mem::replace(&mut last, now) == now { Ok(()) } else { Err(now.to_string()) }
        })
        .await;
        let seen = figure(&host, refused).await - refused_before;
        let rss_after = figure(&host, "process_resident_memory_bytes").await;
        println!("of {MILLION} datagrams {seen} reached the host; memory {rss_before} before, {rss_after} after");
        assert!(seen > MILLION as u64 / 10, "{seen} of them reached the host");
        assert!(rss_after < rss_before + (4 << 20), "{rss_before} before, {rss_after} after");
        assert!(figure(&host, "process_open_fds").await <= files + 2);
        assert!(figure(&host, "process_threads").await <= threads + 4);
        stranger.set_nonblocking(true).unwrap();
        assert_eq!(stranger.recv(&mut [0; 1_500]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "an answer");
        // Both sessions are where they were.
        eve.send(&ToHost::Ping(77)).await;
        loop {
            let payload = eve.receive(SOON).await.expect("a pong");
            if ToClient::decode(&payload).unwrap() == ToClient::Pong(77) {
                break;
            }
        }
        let frame = ada.snapshot_frames.last().copied().unwrap_or(0);
        ada.frame(frame + 10).await;
        assert!(!room.is_empty());
        host.signal(libc::SIGTERM);
        assert_eq!(host.end().await.0, Some(0));
    });
}

/// What a client sends from an address that has not answered.
#[derive(Debug, Clone, Copy)]
enum Sends {
    Probe,
    Ping,
    Input,
    WrongResponse,
    /// The probe is sent and what comes back is lost.
    LostAnswer,
    /// The last datagram once more, as one on the way could.
    Replay,
}

#[test]
fn an_address_that_has_not_answered_is_sent_no_more_than_came_from_it() {
    run(90, async {
        let host = Host::start_with_modules(&[Tally::new(LONG, 100_000).wasm()], |_| {}).await;
        let room = host.open(LONG, &["Ada", "Ben"]).await;
        let mut ada = UdpPeer::enter(&host.join(&room, "Ada").await).await;
        let mut ben = Peer::enter(&host.join(&room, "Ben").await).await;
        ada.peer.ready().await;
        ben.ready().await;
        ben.event("started").await;
        let all = [Sends::Probe, Sends::Ping, Sends::Input, Sends::WrongResponse, Sends::LostAnswer, Sends::Replay];
        let (mut orders, mut sent_bytes, mut received_bytes) = (0, 0, 0);
        let mut check = async |ada: &mut UdpPeer, order: [Sends; 3]| {
            // A new address each time: what an earlier one has paid for is not this one's.
            ada.socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let (mut sent, mut received, mut last) = (0, 0, Vec::new());
            for what in order {
                let datagram = match what {
                    Sends::Probe | Sends::LostAnswer => ada.seal(&ToHost::Probe),
                    Sends::Ping => ada.seal(&ToHost::Ping(5)),
                    Sends::WrongResponse => ada.seal(&ToHost::Response([9; 8])),
                    Sends::Input => {
                        let mut datagram = Vec::new();
                        let payload = crate::peer::inputs_payload(0, &[1]);
                        ada.sealer.seal_bytes(&payload, &mut datagram).unwrap();
                        datagram
                    }
                    Sends::Replay if last.is_empty() => continue,
                    Sends::Replay => std::mem::take(&mut last),
                };
                sent += datagram.len();
                ada.send_raw(&datagram).await;
                last = datagram;
            }
            // The room sends a snapshot every 20 ms; were they sent here, some would come within this time. Each round asks the host something by the WebSocket, which
            // it answers behind all that it did before.
            ada.peer.say_text(r#"{"type":"ping","t":1}"#).await;
            let mut buffer = [0; 1_500];
            while let Ok(Ok(len)) = tokio::time::timeout(Duration::from_millis(30), ada.socket.recv(&mut buffer)).await
            {
                received += len;
                assert!(received <= sent, "{order:?}: {received} bytes came for {sent}");
            }
            orders += 1;
            sent_bytes += sent;
            received_bytes += received;
        };
        for first in all {
            for second in all {
                for third in all {
                    check(&mut ada, [first, second, third]).await;
                }
            }
        }
        // With an address in use the same holds for every other one.
        ada.socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        ada.establish().await;
        for first in all {
            for second in all {
                check(&mut ada, [first, second, Sends::Probe]).await;
            }
        }
        println!("{orders} orders: {sent_bytes} bytes sent, {received_bytes} received");
        assert!(received_bytes > 0, "nothing was ever challenged");
        host.stop().await;
    });
}
