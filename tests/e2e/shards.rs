//! Several shards: datagrams reach their sessions, steered by the system and handed over between shards.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use holeshot::shard::ShardCounters;

use crate::harness::{Host, run};
use crate::modules_made::Tally;
use crate::peer::UdpPeer;

/// More than many machines have cores: more than a setting allows there, and as good for this.
const SHARDS: usize = 3;
/// Rooms until every shard has one, at most: they are spread.
const ROOMS_MAX: usize = 24;

fn sum(host: &Host, counter: impl Fn(&ShardCounters) -> &AtomicU64) -> u64 {
    host.server().shards().iter().map(|shard| counter(&shard.counters).load(Ordering::Relaxed)).sum()
}

fn shard_of(host: &Host, room: &str) -> usize {
    host.server().rooms().live(room).expect("the room is open").shard
}

/// The samples of a name on a new page, with their labels.
async fn samples(host: &Host, name: &str) -> Vec<(String, f64)> {
    let page = host.http().get(host.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let of_name =
        |line: &str| Some(line.strip_prefix(name)?.rsplit_once(' ')?).map(|(l, v)| (l.to_owned(), v.to_owned()));
    page.lines().filter_map(of_name).map(|(labels, value)| (labels, value.parse().unwrap())).collect()
}

/// Games over datagrams on every shard. Gives how many datagrams came, and how many of them were handed over.
async fn play(steer: bool) -> (u64, u64) {
    let game = Tally::new("tally-sharded", 200);
    let host = Host::start_resolved(&[game.wasm()], |config| {
        config.shards = SHARDS;
        config.steer_datagrams = steer;
    })
    .await;
    let (mut players, mut shards) = (Vec::new(), BTreeSet::new());
    while shards.len() < SHARDS {
        assert!(players.len() < ROOMS_MAX, "all rooms went to shards {shards:?}");
        let room = host.open(&game.name, &["Ada"]).await;
        let mut player = UdpPeer::enter(&host.join(&room, "Ada").await).await;
        player.establish().await;
        // The lowest byte of a session's number names its shard.
        let shard = (player.peer.welcome().session & 0xff) as usize;
        assert_eq!(shard, shard_of(&host, &room));
        shards.insert(shard);
        players.push(player);
    }
    for player in &mut players {
        player.peer.ready().await;
    }
    // The tally sums up what came in time; the game leaves time for a second attempt.
    let counts = players.iter_mut().enumerate().map(|(number, player)| player.counts(0, number as u8 + 1, 0));
    futures_util::future::join_all(counts).await;
    for (number, player) in players.iter_mut().enumerate() {
        let finished = player.peer.event("finished").await;
        assert_eq!(finished.data["results"][0]["data"], number as u64 + 1, "{}", finished.data);
    }
    let handed_over = samples(&host, "holeshot_shard_datagrams_handed_over_total").await;
    assert_eq!(handed_over.len(), SHARDS);
    let seen = (sum(&host, |c| &c.datagrams_received), sum(&host, |c| &c.datagrams_handed_over));
    assert!(handed_over.iter().map(|(_, count)| *count as u64).sum::<u64>() <= seen.1, "{handed_over:?}");
    host.stop().await;
    seen
}

#[test]
#[cfg(target_os = "linux")]
fn steered_datagrams_come_to_their_shard_and_none_is_handed_over() {
    run(60, async {
        let (received, handed_over) = play(true).await;
        assert!(received >= 3 * SHARDS as u64 && handed_over == 0, "{handed_over} of {received} were handed over");
    });
}

#[test]
fn datagrams_that_are_not_steered_are_handed_over() {
    run(60, async {
        let (received, handed_over) = play(false).await;
        // Each is taken by whichever shard looks first.
        assert!(handed_over > 0, "{handed_over} of {received} were handed over");
    });
}
