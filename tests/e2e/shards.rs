//! Two shards on one socket: a datagram that the wrong one received reaches its session.

use std::collections::BTreeSet;
use std::thread::available_parallelism;

use crate::harness::{Host, run, tell};
use crate::modules_made::Tally;
use crate::peer::UdpPeer;

/// Rooms of this test: two on each shard, since the shard with the fewest gets the next.
const ROOMS: usize = 4;

#[test]
fn rooms_on_two_shards_play_over_one_socket() {
    if available_parallelism().unwrap().get() < 2 {
        tell!("SKIPPED: a host has no more shards than cores, and this machine has one core");
        return;
    }
    run(60, async {
        let game = Tally::new("tally-sharded", 200);
        let host = Host::start_with_modules(&[game.wasm()], |settings| settings.shards = Some(2)).await;
        let mut players = Vec::new();
        for _ in 0..ROOMS {
            let room = host.open(&game.name, &["Ada"]).await;
            let mut player = UdpPeer::enter(&host.join(&room, "Ada").await).await;
            player.establish().await;
            players.push((room, player));
        }
        // The lowest byte of a session's number names its shard.
        let shards: BTreeSet<u32> = players.iter().map(|(_, player)| player.peer.welcome().session & 0xff).collect();
        assert_eq!(shards, BTreeSet::from([0, 1]));
        for (_, player) in &mut players {
            player.peer.ready().await;
        }
        // The tally sums up what came in time; the game leaves time for a second attempt.
        let counts = players.iter_mut().enumerate().map(|(number, (_, player))| player.counts(0, number as u8 + 1, 0));
        futures_util::future::join_all(counts).await;
        for (number, (_, player)) in players.iter_mut().enumerate() {
            let finished = player.peer.event("finished").await;
            assert_eq!(finished.data["results"][0]["data"], number as u64 + 1, "{}", finished.data);
        }
        host.stop().await;
    });
}
