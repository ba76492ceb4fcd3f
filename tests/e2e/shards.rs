//! Several shards: datagrams reach their sessions, steered by the system and handed over between shards; rooms go to the shard with the least to do; a shard that overruns
//! leaves snapshots out, and nothing else, and comes back.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holeshot::shard::ShardCounters;
use holeshot_wire::ClientMessage;
use serde_json::json;

use crate::harness::{Host, SOON, eventually, lines_with, run};
use crate::modules_made::Tally;
use crate::peer::{GAMES_MAX, Peer, UdpPeer, tally_of};

/// More than many machines have cores: more than a setting allows there, and as good for this.
const SHARDS: usize = 3;
/// Rooms until every shard has one, at most: they are spread.
const ROOMS_MAX: usize = 24;
/// Turns of a loop in a tick that burns: half of what the fuel of a whole tick allows, 8 to 16 ms.
const BURNT_TURNS: u32 = 8_000_000;
/// The first frame that burns: everybody is there by then.
const BURNS_FROM: u32 = 25;
/// What an action adds to a tally: who has as much burns no more.
const ACTION: u32 = 100;

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

/// A tally that uses up its time in every tick from [`BURNS_FROM`] on, until an action comes.
fn burning(name: &str, turns: u32) -> Tally {
    let mut game = Tally::new(name, 100_000);
    game.each_tick = format!(
        "(if (i32.and
            (i32.gt_u (global.get $frames) (i32.const {BURNS_FROM}))
            (i32.lt_u (i32.load (i32.const 4096)) (i32.const {ACTION})))
          (then
            (local.set $left (i32.const {turns}))
            (loop $burn
              (local.set $left (i32.sub (local.get $left) (i32.const 1)))
              (br_if $burn (local.get $left)))))"
    );
    game
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

#[test]
fn a_room_goes_to_the_shard_with_the_least_to_do() {
    run(60, async {
        let game = burning("tally-warm", BURNT_TURNS);
        let host = Host::start_resolved(&[game.wasm()], |config| {
            config.shards = 2;
            config.tick_share_percent = 100;
        })
        .await;
        let room = host.open(&game.name, &["Ada"]).await;
        let mut ada = Peer::enter(&host.join(&room, "Ada").await).await;
        ada.ready().await;
        ada.frame(BURNS_FROM).await;
        let busy = shard_of(&host, &room);
        let permille = |shard: usize| host.server().shards()[shard].counters.busy_permille.load(Ordering::Relaxed);
        // By number, every second one would go to the shard that is busy. Other programs may keep the idle one from resting: then nothing is said of where a room goes.
        let mut elsewhere = 0;
        eventually("six rooms beside the busy shard", SOON, async || {
            let is_clear = || permille(busy) > permille(1 - busy) + 200;
            let seen = || format!("busy {} of 1000, the other {}", permille(busy), permille(1 - busy));
            if !is_clear() {
                return Err(seen());
            }
            let waiting = host.open(&game.name, &["Ben"]).await;
            if is_clear() {
                assert_ne!(shard_of(&host, &waiting), busy, "{}", seen());
                elsewhere += 1;
            }
            if elsewhere == 6 { Ok(()) } else { Err(seen()) }
        })
        .await;
        host.stop().await;
    });
}

#[test]
fn a_shard_that_overruns_leaves_out_snapshots_and_no_inputs_and_comes_back() {
    run(120, async {
        let game = burning("tally-hot", BURNT_TURNS);
        let host = Host::start_resolved(&[game.wasm()], |config| config.tick_share_percent = 100).await;
        let mut players = Vec::new();
        // Three times as much as one shard can do, or more.
        for _ in 0..6 {
            let room = host.open(&game.name, &["Ada"]).await;
            let player = Peer::enter(&host.join(&room, "Ada").await).await;
            players.push((room, player));
        }
        let mut spectator = Peer::enter(&host.watch(&players[0].0).await).await;
        for (_, player) in &mut players {
            player.ready().await;
        }
        spectator.frame(1).await;

        // The order is the state machine's, which has its own test; here it only goes up.
        let counters = &host.server().shards()[0].counters;
        let level = || counters.shed_level.load(Ordering::Relaxed);
        let mut levels = Vec::new();
        eventually("the shard leaves out all that it may", Duration::from_secs(60), async || {
            levels.push(level());
            if level() == 5 { Ok(()) } else { Err(format!("level {}", level())) }
        })
        .await;
        assert!(levels.is_sorted(), "{levels:?}");
        assert!(!lines_with("the shard overruns").is_empty());

        // A player gets every fourth snapshot, and whoever watches none.
        let frame_now = |room: &str| host.server().rooms().live(room).and_then(|live| live.frame()).unwrap();
        let (room, ada) = &mut players[0];
        let mut counted = 0;
        for _ in 0..GAMES_MAX {
            // Far enough ahead to be in time, of which it has more than the frames say.
            let newest = frame_now(room);
            ada.input(newest + 20, &[3]).await;
            ada.frame(newest + 24).await;
            counted = tally_of(&ada.snapshot, 0).unwrap();
            if counted > 0 {
                break;
            }
        }
        assert_eq!(level(), 5);
        let frames: Vec<u32> = ada.snapshot_frames.iter().rev().take(5).copied().collect();
        assert!(frames.windows(2).all(|pair| pair[0] - pair[1] == 4), "{frames:?}");
        // Its inputs count all the same.
        assert_eq!(counted, 3);

        // Nothing burns any more.
        for (_, player) in &mut players {
            player.say(&ClientMessage::Action { id: 1, data: json!({}) }).await;
        }
        eventually("the shard leaves out nothing any more", Duration::from_secs(60), async || match level() {
            0 => Ok(()),
            level => Err(format!("level {level}")),
        })
        .await;
        let (room, ada) = &mut players[0];
        let newest = frame_now(room);
        for peer in [ada, &mut spectator] {
            peer.frame(newest + 20).await;
            let frames: Vec<u32> = peer.snapshot_frames.iter().rev().take(10).copied().collect();
            assert!(frames.windows(2).all(|pair| pair[0] - pair[1] == 1), "{frames:?}");
        }
        let shed = samples(&host, "holeshot_shard_snapshots_shed_total").await;
        assert!(shed.len() == 2 && shed.iter().all(|(_, count)| *count > 0.0), "{shed:?}");
        assert_eq!(samples(&host, "holeshot_shard_shed_level").await.len(), 1);
        host.stop().await;
    });
}
