//! Snapshots that come as deltas: a game seen by players and spectators near and far, over a network that loses and delays, over the WebSocket, and without
//! deltas. Each snapshot that came is held against the journal's. What a delta is made of is tested in `sdk/wire`.

use std::collections::BTreeMap;

use holeshot::rules::{Engine, EngineSettings, ModuleStore};
use holeshot_client::{Client, ConnectOptions, Incoming, NetStats};
use holeshot_room::journal::Journal;

use crate::harness::{Host, compiled, run};
use crate::lossy::Lossy;
use crate::modules_made::Tally;
use crate::proof;

const SEED: u64 = 20_261_122;
/// Addresses of this test's networks in 127.0.0.0/8; `takeover.rs` has others.
const NETWORKS: [u8; 2] = [61, 62];
/// Frames of the game: four seconds.
const FRAMES: u32 = 200;

/// What one client saw: bytes by frame.
type Seen = BTreeMap<u32, Vec<u8>>;

/// Sees a game to its end; a player answers every snapshot.
async fn see(options: ConnectOptions, plays: bool) -> (Seen, NetStats) {
    let mut client = Client::connect(options).await.unwrap();
    if plays {
        client.ready().await.unwrap();
    }
    let mut seen = Seen::new();
    loop {
        match client.next().await.expect("the game ends before the connection") {
            Incoming::Snapshot(snapshot) => {
                if plays {
                    client.send_input(&[snapshot.frame as u8]).unwrap();
                }
                assert_eq!(seen.insert(snapshot.frame, snapshot.bytes), None);
            }
            Incoming::Event(event) if event.name == "finished" => return (seen, client.stats()),
            Incoming::Bye { code, reason } => panic!("{code}: {reason}"),
            _ => {}
        }
    }
}

#[test]
fn deltas_over_a_bad_network_are_the_snapshots_of_the_journal() {
    println!("seed {SEED}");
    run(60, async {
        let game = Tally::new("tally-views", FRAMES).with_players_min(2).with_views();
        let host = Host::start_with_modules(&[game.wasm()], |settings| settings.linger_s = Some(1)).await;
        let room = host.open(&game.name, &["Ada", "Ben"]).await;
        let addresses = host.server().addresses().clone();
        let mut networks = Vec::new();
        for last in NETWORKS {
            networks.push(Lossy::start(last, addresses.http, addresses.udp, SEED).await);
        }
        // Ada sees what nobody else does. Ben sees what all see, from far away.
        let ada = host.join(&room, "Ada").await;
        let ada = ConnectOptions::udp(&ada.ws_url, &ada.ticket, ada.key());
        let ben = host.join(&room, "Ben").await;
        let ben = ConnectOptions::udp(networks[0].ws_url(), &ben.ticket, ben.key());
        let grants = [host.watch(&room).await, host.watch(&room).await, host.watch(&room).await];
        let [far, whole, by_websocket] = &grants;
        let far = ConnectOptions::udp(networks[1].ws_url(), &far.ticket, far.key());
        let whole = ConnectOptions { deltas: false, ..ConnectOptions::udp(&whole.ws_url, &whole.ticket, whole.key()) };
        let by_websocket = ConnectOptions::websocket(&by_websocket.ws_url, &by_websocket.ticket);
        let (ada, ben, far, whole, by_websocket) =
            tokio::join!(see(ada, true), see(ben, true), see(far, false), see(whole, false), see(by_websocket, false));
        for network in &networks {
            println!("{}", network.told());
        }

        // What the host's own counters say of it.
        let page = host.http().get(host.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let figure = |name: &str| -> f64 {
            let name = format!("holeshot_shard_snapshots_{name}_total{{");
            let line = page.lines().find(|line| line.starts_with(&name)).unwrap_or_else(|| panic!("no {name}"));
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        let [count, sent, saved, of_whole] =
            [figure("delta"), figure("delta_bytes"), figure("saved_bytes"), figure("whole_bytes")];
        println!("{count} deltas of {sent} bytes, {saved} less than whole; {of_whole} bytes went whole");
        assert!(count > 0.0 && saved > 10.0 * sent && of_whole > 0.0);

        crate::journal::closed_journal(&host, &room).await;
        let journal = Journal::read(&crate::journal::download(&host, &room).await).unwrap();
        host.stop().await;
        let engine = Engine::new(EngineSettings { instances_max: 8, ..EngineSettings::default() }).unwrap();
        let store = ModuleStore::new(engine, Some(compiled().to_owned())).unwrap();
        let truth = proof::under(&journal, &store.load(&game.wasm()).unwrap());
        let for_all: Seen = truth.snapshots.into_iter().collect();
        assert!(truth.own.iter().all(|(_, player, _)| *player == 0));
        let own: Seen = truth.own.into_iter().map(|(frame, _, bytes)| (frame, bytes)).collect();
        for (who, takes_deltas, (seen, stats), truth) in [
            ("Ada", true, &ada, &own),
            ("Ben, far away", true, &ben, &for_all),
            ("a spectator far away", true, &far, &for_all),
            ("a spectator without deltas", false, &whole, &for_all),
            ("a spectator without datagrams", true, &by_websocket, &for_all),
        ] {
            println!("{who}: {} of {} frames; {stats:?}", seen.len(), truth.len());
            assert!(!seen.is_empty(), "{who}");
            for (frame, bytes) in seen {
                assert_eq!(Some(bytes), truth.get(frame), "{who}, frame {frame}");
            }
            assert_eq!((stats.deltas_lost, stats.refused), (0, 0), "{who}");
            assert_eq!(stats.snapshots_from_deltas > 0, takes_deltas, "{who}: {stats:?}");
        }
        assert_ne!(own, for_all);
    });
}
