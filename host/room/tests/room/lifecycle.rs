//! Every edge of a room's life and every wait in the table of `Room`'s documentation.

use crate::support::{Folder, Show, check, check_showing, config, quick_config};
use holeshot_abi::{ChangeKind, Item};
use holeshot_room::{Fault, FaultKind, OpenError, Room, RoomConfig};

const BOTH_IN: &str = "0 connect 0\n0 connect 1\n";
const BOTH_READY: &str = "0 connect 0\n0 connect 1\n0 ready 0\n0 ready 1\n";
const THREE_READY: &str = "0 connect 0\n0 connect 1\n0 connect 2\n0 ready 0\n0 ready 1\n0 ready 2\n";

#[test]
fn a_whole_match() {
    let rules = Folder::new(|tick, out| {
        if tick.frame == 1 {
            out.push(Item::PublicEvent { name: "green", json: r#"{"lane": 1}"# });
            out.push(Item::InternalEvent { name: "race.green", json: "[1]" });
        }
        if tick.frame == 2 {
            out.push(Item::Results(r#"[{"player":1,"place":1,"outcome":"won","data":{"et":9.5}}]"#));
        }
        Ok(())
    });
    let script = "
        100 connect 0
        250 connect 1
        900 ready 1
        1000 ready 0
        4999 input 0 0 a0
        5000 input 1 0 b0
        5150 input 0 2 a2
    ";
    check_showing(
        Show::Internal,
        config(2),
        rules,
        script,
        r#"
            100 public 1 player_joined {"player":0,"name":"ann"}
            100 internal player.joined {"room":"r1","player":0,"name":"ann"}
            250 public 2 player_joined {"player":1,"name":"bob"}
            250 internal player.joined {"room":"r1","player":1,"name":"bob"}
            250 phase readying
            900 public 3 player_ready {"player":1,"name":"bob"}
            1000 public 4 player_ready {"player":0,"name":"ann"}
            1000 phase cutscene
            1000 public 5 cutscene {"duration_ms":2000}
            3000 phase countdown
            3000 public 6 countdown {"remaining":2}
            4000 public 7 countdown {"remaining":1}
            5000 phase running
            5000 public 8 started {"frame":0,"tick_hz":10,"players":[0,1]}
            5000 internal room.started {"room":"r1","frame":0,"tick_hz":10,"players":[0,1]}
            5000 tick 0 a0 - joined:0 joined:1
            5100 tick 1 a0~1 -
            5100 public 9 green in 1 {"lane": 1}
            5100 internal race.green [1]
            5200 tick 2 a2 -
            5200 phase finished
            5200 public 10 finished in 2 {"frames":3,"results":[{"player":1,"place":1,"outcome":"won","data":{"et":9.5}}]}
            5200 internal room.finished {"room":"r1","frames":3,"results":[{"player":1,"place":1,"outcome":"won","data":{"et":9.5}}],"players":[{"player":0,"name":"ann","left":null,"inputs":{"received":2,"taken":2,"late":0,"behind":0,"ahead":0,"duplicate":0,"conflicting":0,"too_long":0,"out_of_game":0,"fresh":2,"repeated":1,"absent":0,"actions_applied":0,"actions_refused":0,"reconnects":0}},{"player":1,"name":"bob","left":null,"inputs":{"received":1,"taken":0,"late":1,"behind":0,"ahead":0,"duplicate":0,"conflicting":0,"too_long":0,"out_of_game":0,"fresh":0,"repeated":0,"absent":3,"actions_applied":0,"actions_refused":0,"reconnects":0}}],"counters":{"ticks":3,"ticks_skipped":0,"ticks_lost":0,"catch_ups":0,"public_events":10,"public_events_dropped":0,"swaps":0,"rollbacks":0,"retries":0}}
            5200 ended finished 3 [{"player":1,"place":1,"outcome":"won","data":{"et":9.5}}]
            9200 phase closed
            9200 internal room.closed {"room":"r1","outcome":"finished"}
        "#,
    );
}

#[test]
fn ready_may_come_early_and_twice() {
    check(
        quick_config(2),
        Folder::until(0),
        "0 connect 1\n10 ready 1\n20 ready 1\n30 connect 0\n40 ready 0\n50 end",
        r#"
            0 public 1 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            10 public 2 player_ready {"player":1,"name":"bob"}
            30 public 3 player_joined {"player":0,"name":"ann"}
            30 internal player.joined
            30 phase readying
            40 public 4 player_ready {"player":0,"name":"ann"}
            40 phase running
            40 public 5 started {"frame":0,"tick_hz":10,"players":[0,1]}
            40 internal room.started
            40 tick 0 - - joined:0 joined:1
            40 phase finished
            40 public 6 finished in 0 {"frames":1,"results":[]}
            40 internal room.finished
            40 ended finished 1 []
        "#,
    );
}

#[test]
fn a_player_who_never_comes_is_left_out_if_enough_are_there() {
    check(
        quick_config(3),
        Folder::until(1),
        "0 connect 0\n0 connect 2\n0 ready 0\n0 ready 2\n10500 connect 1",
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":2,"name":"cid"}
            0 internal player.joined
            0 public 3 player_ready {"player":0,"name":"ann"}
            0 public 4 player_ready {"player":2,"name":"cid"}
            10000 public 5 player_left {"player":1,"name":"bob","reason":"never_came"}
            10000 internal player.left
            10000 left 1 never_came
            10000 phase readying
            10000 phase running
            10000 public 6 started {"frame":0,"tick_hz":10,"players":[0,2]}
            10000 internal room.started
            10000 tick 0 - - - joined:0 joined:2
            10100 tick 1 - - -
            10100 phase finished
            10100 public 7 finished in 1 {"frames":2,"results":[]}
            10100 internal room.finished
            10100 ended finished 2 []
            14100 phase closed
            14100 internal room.closed
        "#,
    );
}

#[test]
fn too_few_come() {
    check(
        config(2),
        Folder::endless(),
        "0 connect 0\n0 ready 0",
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_ready {"player":0,"name":"ann"}
            10000 public 3 player_left {"player":1,"name":"bob","reason":"never_came"}
            10000 internal player.left
            10000 left 1 never_came
            10000 phase aborted
            10000 public 4 aborted {"frames":0,"reason":"not_enough_players"}
            10000 internal room.aborted
            10000 ended aborted 0 not_enough_players
            14000 phase closed
            14000 internal room.closed
        "#,
    );
}

#[test]
fn nobody_comes() {
    check(
        config(1),
        Folder::endless(),
        "",
        r#"
            10000 public 1 player_left {"player":0,"name":"ann","reason":"never_came"}
            10000 internal player.left
            10000 left 0 never_came
            10000 phase aborted
            10000 public 2 aborted {"frames":0,"reason":"not_enough_players"}
            10000 internal room.aborted
            10000 ended aborted 0 not_enough_players
            14000 phase closed
            14000 internal room.closed
        "#,
    );
}

#[test]
fn a_player_who_is_never_ready_is_left_out_if_enough_are() {
    check(
        quick_config(3),
        Folder::until(0),
        "0 connect 0\n0 connect 1\n0 connect 2\n1000 ready 0\n2000 ready 2\n6000 end",
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 public 3 player_joined {"player":2,"name":"cid"}
            0 internal player.joined
            0 phase readying
            1000 public 4 player_ready {"player":0,"name":"ann"}
            2000 public 5 player_ready {"player":2,"name":"cid"}
            5000 public 6 player_left {"player":1,"name":"bob","reason":"not_ready"}
            5000 internal player.left
            5000 left 1 not_ready
            5000 phase running
            5000 public 7 started {"frame":0,"tick_hz":10,"players":[0,2]}
            5000 internal room.started
            5000 tick 0 - - - joined:0 joined:2
            5000 phase finished
            5000 public 8 finished in 0 {"frames":1,"results":[]}
            5000 internal room.finished
            5000 ended finished 1 []
        "#,
    );
}

#[test]
fn too_few_are_ready() {
    check(
        config(2),
        Folder::endless(),
        &format!("{BOTH_IN} 1000 ready 1\n 6000 end"),
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 phase readying
            1000 public 3 player_ready {"player":1,"name":"bob"}
            5000 public 4 player_left {"player":0,"name":"ann","reason":"not_ready"}
            5000 internal player.left
            5000 left 0 not_ready
            5000 phase aborted
            5000 public 5 aborted {"frames":0,"reason":"not_enough_players"}
            5000 internal room.aborted
            5000 ended aborted 0 not_enough_players
        "#,
    );
}

#[test]
fn a_quit_while_gathering_ends_the_match_only_if_too_few_remain() {
    check(
        config(3),
        Folder::endless(),
        "0 connect 0\n100 quit 0\n200 connect 0\n300 quit 2\n400 end",
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            100 public 2 player_left {"player":0,"name":"ann","reason":"quit"}
            100 internal player.left
            100 left 0 quit
            200 connect 0: player 0 is out of this room: quit
            300 public 3 player_left {"player":2,"name":"cid","reason":"quit"}
            300 internal player.left
            300 left 2 quit
            300 phase aborted
            300 public 4 aborted {"frames":0,"reason":"not_enough_players"}
            300 internal room.aborted
            300 ended aborted 0 not_enough_players
        "#,
    );
}

#[test]
fn a_quit_while_readying_may_complete_it() {
    check(
        config(3),
        Folder::endless(),
        "0 connect 0\n0 connect 1\n0 connect 2\n0 ready 0\n0 ready 1\n700 quit 2\n 800 end",
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 public 3 player_joined {"player":2,"name":"cid"}
            0 internal player.joined
            0 phase readying
            0 public 4 player_ready {"player":0,"name":"ann"}
            0 public 5 player_ready {"player":1,"name":"bob"}
            700 public 6 player_left {"player":2,"name":"cid","reason":"quit"}
            700 internal player.left
            700 left 2 quit
            700 phase cutscene
            700 public 7 cutscene {"duration_ms":2000}
        "#,
    );
}

#[test]
fn a_quit_in_the_cutscene_does_not_move_the_start() {
    check(
        config(3),
        Folder::until(0),
        &format!("{THREE_READY} 700 quit 1\n 4500 end"),
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 public 3 player_joined {"player":2,"name":"cid"}
            0 internal player.joined
            0 phase readying
            0 public 4 player_ready {"player":0,"name":"ann"}
            0 public 5 player_ready {"player":1,"name":"bob"}
            0 public 6 player_ready {"player":2,"name":"cid"}
            0 phase cutscene
            0 public 7 cutscene {"duration_ms":2000}
            700 public 8 player_left {"player":1,"name":"bob","reason":"quit"}
            700 internal player.left
            700 left 1 quit
            2000 phase countdown
            2000 public 9 countdown {"remaining":2}
            3000 public 10 countdown {"remaining":1}
            4000 phase running
            4000 public 11 started {"frame":0,"tick_hz":10,"players":[0,2]}
            4000 internal room.started
            4000 tick 0 - - - joined:0 joined:2
            4000 phase finished
            4000 public 12 finished in 0 {"frames":1,"results":[]}
            4000 internal room.finished
            4000 ended finished 1 []
        "#,
    );
}

#[test]
fn a_quit_in_the_cutscene_that_leaves_too_few() {
    check(
        config(2),
        Folder::endless(),
        &format!("{BOTH_READY} 700 quit 1\n 800 end"),
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 phase readying
            0 public 3 player_ready {"player":0,"name":"ann"}
            0 public 4 player_ready {"player":1,"name":"bob"}
            0 phase cutscene
            0 public 5 cutscene {"duration_ms":2000}
            700 public 6 player_left {"player":1,"name":"bob","reason":"quit"}
            700 internal player.left
            700 left 1 quit
            700 phase aborted
            700 public 7 aborted {"frames":0,"reason":"not_enough_players"}
            700 internal room.aborted
            700 ended aborted 0 not_enough_players
        "#,
    );
}

#[test]
fn a_removal_in_the_countdown_that_leaves_too_few() {
    check(
        config(2),
        Folder::endless(),
        &format!("{BOTH_READY} 2500 remove 0\n 2600 end"),
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 phase readying
            0 public 3 player_ready {"player":0,"name":"ann"}
            0 public 4 player_ready {"player":1,"name":"bob"}
            0 phase cutscene
            0 public 5 cutscene {"duration_ms":2000}
            2000 phase countdown
            2000 public 6 countdown {"remaining":2}
            2500 public 7 player_left {"player":0,"name":"ann","reason":"removed"}
            2500 internal player.left
            2500 left 0 removed
            2500 phase aborted
            2500 public 8 aborted {"frames":0,"reason":"not_enough_players"}
            2500 internal room.aborted
            2500 ended aborted 0 not_enough_players
        "#,
    );
}

#[test]
fn a_leave_while_running_is_for_the_rules_to_judge() {
    let script = format!("{THREE_READY} 10 input 1 1 b\n 150 quit 1\n 150 input 1 2 c\n 250 remove 2\n 350 end");
    check(
        quick_config(3),
        Folder::until(3),
        &script,
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 public 3 player_joined {"player":2,"name":"cid"}
            0 internal player.joined
            0 phase readying
            0 public 4 player_ready {"player":0,"name":"ann"}
            0 public 5 player_ready {"player":1,"name":"bob"}
            0 public 6 player_ready {"player":2,"name":"cid"}
            0 phase running
            0 public 7 started {"frame":0,"tick_hz":10,"players":[0,1,2]}
            0 internal room.started
            0 tick 0 - - - joined:0 joined:1 joined:2
            100 tick 1 - b -
            150 public 8 player_left {"player":1,"name":"bob","reason":"quit"}
            150 internal player.left
            150 left 1 quit
            200 tick 2 - - - left:1:Quit
            250 public 9 player_left {"player":2,"name":"cid","reason":"removed"}
            250 internal player.left
            250 left 2 removed
            300 tick 3 - - - left:2:Removed
            300 phase finished
            300 public 10 finished in 3 {"frames":4,"results":[]}
            300 internal room.finished
            300 ended finished 4 []
        "#,
    );
}

#[test]
fn everyone_leaves_and_the_rules_go_on() {
    check(
        quick_config(2),
        Folder::endless(),
        &format!("{BOTH_READY} 50 quit 0\n 120 quit 1\n 300 end"),
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 phase readying
            0 public 3 player_ready {"player":0,"name":"ann"}
            0 public 4 player_ready {"player":1,"name":"bob"}
            0 phase running
            0 public 5 started {"frame":0,"tick_hz":10,"players":[0,1]}
            0 internal room.started
            0 tick 0 - - joined:0 joined:1
            50 public 6 player_left {"player":0,"name":"ann","reason":"quit"}
            50 internal player.left
            50 left 0 quit
            100 tick 1 - - left:0:Quit
            120 public 7 player_left {"player":1,"name":"bob","reason":"quit"}
            120 internal player.left
            120 left 1 quit
            200 tick 2 - - left:1:Quit
            200 phase aborted
            200 public 8 aborted in 2 {"frames":3,"reason":"everyone_left"}
            200 internal room.aborted
            200 ended aborted 3 everyone_left
        "#,
    );
}

#[test]
fn everyone_leaves_and_the_rules_finish_when_told() {
    let rules = Folder::new(|tick, out| {
        if tick.changes().any(|change| matches!(change.kind, ChangeKind::Left(_))) {
            out.push(Item::Results(r#"[{"player":0,"outcome":"forfeit","data":null}]"#));
        }
        Ok(())
    });
    check(
        quick_config(2),
        rules,
        &format!("{BOTH_READY} 150 quit 0\n 150 quit 1\n 300 end"),
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 phase readying
            0 public 3 player_ready {"player":0,"name":"ann"}
            0 public 4 player_ready {"player":1,"name":"bob"}
            0 phase running
            0 public 5 started {"frame":0,"tick_hz":10,"players":[0,1]}
            0 internal room.started
            0 tick 0 - - joined:0 joined:1
            100 tick 1 - -
            150 public 6 player_left {"player":0,"name":"ann","reason":"quit"}
            150 internal player.left
            150 left 0 quit
            150 public 7 player_left {"player":1,"name":"bob","reason":"quit"}
            150 internal player.left
            150 left 1 quit
            200 tick 2 - - left:0:Quit left:1:Quit
            200 phase finished
            200 public 8 finished in 2 {"frames":3,"results":[{"player":0,"outcome":"forfeit","data":null}]}
            200 internal room.finished
            200 ended finished 3 [{"player":0,"outcome":"forfeit","data":null}]
        "#,
    );
}

#[test]
fn a_broken_connection_that_comes_back_in_time_changes_nothing_for_the_rules() {
    let script = format!(
        "{BOTH_READY} 10 input 1 1 b\n 150 disconnect 1\n 160 disconnect 1\n 160 ready 1\n 160 action 1 1 1\n \
         160 input 1 3 c\n 450 connect 1\n 450 events 5\n 550 end"
    );
    check_showing(
        Show::Snapshots,
        quick_config(2),
        Folder::endless(),
        &script,
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 phase readying
            0 public 3 player_ready {"player":0,"name":"ann"}
            0 public 4 player_ready {"player":1,"name":"bob"}
            0 phase running
            0 public 5 started {"frame":0,"tick_hz":10,"players":[0,1]}
            0 internal room.started
            0 tick 0 - - joined:0 joined:1
            0 snapshot 0 of 0 margin None last None
            0 snapshot 1 of 0 margin None last None
            100 tick 1 - b
            100 snapshot 0 of 1 margin None last None
            100 snapshot 1 of 1 margin Some(90000) last Some(1)
            160 disconnect 1: player 1 is not connected
            160 ready 1: player 1 is not connected
            160 action 1 1 1: player 1 is not connected
            200 tick 2 - b~1
            200 snapshot 0 of 2 margin None last None
            300 tick 3 - c
            300 snapshot 0 of 3 margin None last None
            400 tick 4 - c~1
            400 snapshot 0 of 4 margin None last None
            450 events: 0 missed,
            500 tick 5 - c~2
            500 snapshot 0 of 5 margin None last None
            500 snapshot 1 of 5 margin Some(90000) last Some(3)
        "#,
    );
}

#[test]
fn a_broken_connection_that_stays_away_is_a_leave() {
    let mut config = quick_config(2);
    config.limits.reconnect_grace_us = 250_000;
    check(
        config,
        Folder::until(6),
        &format!("{BOTH_READY} 150 disconnect 1\n 500 connect 1\n 650 end"),
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 phase readying
            0 public 3 player_ready {"player":0,"name":"ann"}
            0 public 4 player_ready {"player":1,"name":"bob"}
            0 phase running
            0 public 5 started {"frame":0,"tick_hz":10,"players":[0,1]}
            0 internal room.started
            0 tick 0 - - joined:0 joined:1
            100 tick 1 - -
            200 tick 2 - -
            300 tick 3 - -
            400 public 6 player_left {"player":1,"name":"bob","reason":"connection_lost"}
            400 internal player.left
            400 left 1 connection_lost
            400 tick 4 - - left:1:ConnectionLost
            500 tick 5 - -
            500 connect 1: player 1 is out of this room: connection_lost
            600 tick 6 - -
            600 phase finished
            600 public 7 finished in 6 {"frames":7,"results":[]}
            600 internal room.finished
            600 ended finished 7 []
        "#,
    );
}

#[test]
fn a_broken_connection_while_gathering() {
    // Ann is away when Bob comes: the room waits for her. She stays away: her slot is given up, and Bob alone is too few.
    check(
        config(2),
        Folder::endless(),
        "0 connect 0\n100 disconnect 0\n200 connect 1\n3200 end",
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            200 public 2 player_joined {"player":1,"name":"bob"}
            200 internal player.joined
            3100 public 3 player_left {"player":0,"name":"ann","reason":"connection_lost"}
            3100 internal player.left
            3100 left 0 connection_lost
            3100 phase aborted
            3100 public 4 aborted {"frames":0,"reason":"not_enough_players"}
            3100 internal room.aborted
            3100 ended aborted 0 not_enough_players
        "#,
    );
    // She comes back: that completes the gathering.
    let script = "0 connect 0\n100 disconnect 0\n200 connect 1\n300 connect 0\n310 events 1\n400 end";
    check(
        config(2),
        Folder::endless(),
        script,
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            200 public 2 player_joined {"player":1,"name":"bob"}
            200 internal player.joined
            300 phase readying
            310 events: 0 missed, 2 player_joined
        "#,
    );
    // She is away when the gathering ends: she is not missing, for her grace still runs.
    let mut three = quick_config(3);
    three.limits.gather_wait_us = 1_000_000;
    let script = "0 connect 0\n0 connect 1\n0 ready 0\n0 ready 1\n900 disconnect 0\n1050 connect 0\n1100 end";
    check(
        three,
        Folder::endless(),
        script,
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 public 3 player_ready {"player":0,"name":"ann"}
            0 public 4 player_ready {"player":1,"name":"bob"}
            1000 public 5 player_left {"player":2,"name":"cid","reason":"never_came"}
            1000 internal player.left
            1000 left 2 never_came
            1000 phase readying
            1000 phase running
            1000 public 6 started {"frame":0,"tick_hz":10,"players":[0,1]}
            1000 internal room.started
            1000 tick 0 - - - joined:0 joined:1
            1100 tick 1 - - -
        "#,
    );
}

#[test]
fn a_broken_connection_in_the_countdown() {
    let script = format!("{THREE_READY} 500 disconnect 0\n 3600 end");
    check(
        config(3),
        Folder::endless(),
        &script,
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 public 3 player_joined {"player":2,"name":"cid"}
            0 internal player.joined
            0 phase readying
            0 public 4 player_ready {"player":0,"name":"ann"}
            0 public 5 player_ready {"player":1,"name":"bob"}
            0 public 6 player_ready {"player":2,"name":"cid"}
            0 phase cutscene
            0 public 7 cutscene {"duration_ms":2000}
            2000 phase countdown
            2000 public 8 countdown {"remaining":2}
            3000 public 9 countdown {"remaining":1}
            3500 public 10 player_left {"player":0,"name":"ann","reason":"connection_lost"}
            3500 internal player.left
            3500 left 0 connection_lost
        "#,
    );
}

#[test]
fn a_game_without_end_is_aborted() {
    let mut config = quick_config(2);
    config.manifest.frames_max = 3;
    check(
        config,
        Folder::endless(),
        &format!("{BOTH_READY} 300 end"),
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 phase readying
            0 public 3 player_ready {"player":0,"name":"ann"}
            0 public 4 player_ready {"player":1,"name":"bob"}
            0 phase running
            0 public 5 started {"frame":0,"tick_hz":10,"players":[0,1]}
            0 internal room.started
            0 tick 0 - - joined:0 joined:1
            100 tick 1 - -
            200 tick 2 - -
            200 phase aborted
            200 public 6 aborted in 2 {"frames":3,"reason":"too_long"}
            200 internal room.aborted
            200 ended aborted 3 too_long
        "#,
    );
}

#[test]
fn a_fault_of_the_rules_ends_the_match() {
    let rules = Folder::new(|tick, out| {
        out.push(Item::PublicEvent { name: "never_seen_in_1", json: "1" });
        if tick.frame < 1 { Ok(()) } else { Err(Fault::new(FaultKind::Trap, "integer overflow at src/lib.rs:7")) }
    });
    let script = format!("{BOTH_READY} 50 action 0 1 {{}}\n 50 action 0 2 {{}}\n 200 end");
    check_showing(
        Show::Internal,
        quick_config(2),
        rules,
        &script,
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined {"room":"r1","player":0,"name":"ann"}
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined {"room":"r1","player":1,"name":"bob"}
            0 phase readying
            0 public 3 player_ready {"player":0,"name":"ann"}
            0 public 4 player_ready {"player":1,"name":"bob"}
            0 phase running
            0 public 5 started {"frame":0,"tick_hz":10,"players":[0,1]}
            0 internal room.started {"room":"r1","frame":0,"tick_hz":10,"players":[0,1]}
            0 tick 0 - - joined:0 joined:1
            0 public 6 never_seen_in_1 in 0 1
            100 tick 1 faulted - - action:0:{} action:0:{}
            100 fault in 1 trap: integer overflow at src/lib.rs:7
            100 phase aborted
            100 public 7 aborted in 1 {"frames":2,"reason":"rules_fault","fault":"trap"}
            100 internal room.aborted {"room":"r1","frames":2,"reason":"rules_fault","fault":{"kind":"trap","message":"integer overflow at src/lib.rs:7","frame":1},"players":[{"player":0,"name":"ann","left":null,"inputs":{"received":0,"taken":0,"late":0,"behind":0,"ahead":0,"duplicate":0,"conflicting":0,"too_long":0,"out_of_game":0,"fresh":0,"repeated":0,"absent":2,"actions_applied":0,"actions_refused":2,"reconnects":0}},{"player":1,"name":"bob","left":null,"inputs":{"received":0,"taken":0,"late":0,"behind":0,"ahead":0,"duplicate":0,"conflicting":0,"too_long":0,"out_of_game":0,"fresh":0,"repeated":0,"absent":2,"actions_applied":0,"actions_refused":0,"reconnects":0}}],"counters":{"ticks":2,"ticks_skipped":0,"ticks_lost":0,"catch_ups":0,"public_events":7,"public_events_dropped":0,"swaps":0,"rollbacks":0,"retries":0}}
            100 ended aborted 2 rules_fault
            100 result 0 #1 refused over
            100 result 0 #2 refused over
        "#,
    );
}

#[test]
fn an_output_that_cannot_be_used_is_a_fault_and_nothing_of_it_leaves() {
    let rules = Folder::new(|_, out| {
        out.push(Item::PublicEvent { name: "fine", json: "1" });
        out.push(Item::PublicEvent { name: "broken", json: "{" });
        Ok(())
    });
    check(
        quick_config(2),
        rules,
        &format!("{BOTH_READY} 50 end"),
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 phase readying
            0 public 3 player_ready {"player":0,"name":"ann"}
            0 public 4 player_ready {"player":1,"name":"bob"}
            0 phase running
            0 public 5 started {"frame":0,"tick_hz":10,"players":[0,1]}
            0 internal room.started
            0 tick 0 faulted - - joined:0 joined:1
            0 fault in 0 bad_output: the output of frame 0 cannot be used: item 2: the data of the public event `broken` are not JSON that everybody can read: EOF while parsing an object at line 1 column 1
            0 phase aborted
            0 public 6 aborted in 0 {"frames":1,"reason":"rules_fault","fault":"bad_output"}
            0 internal room.aborted
            0 ended aborted 1 rules_fault
        "#,
    );
}

#[test]
fn a_module_cannot_send_the_rooms_own_events() {
    let rules = Folder::new(|_, out| {
        out.push(Item::PublicEvent { name: "finished", json: "{}" });
        Ok(())
    });
    check(
        quick_config(2),
        rules,
        &format!("{BOTH_READY} 50 end"),
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 phase readying
            0 public 3 player_ready {"player":0,"name":"ann"}
            0 public 4 player_ready {"player":1,"name":"bob"}
            0 phase running
            0 public 5 started {"frame":0,"tick_hz":10,"players":[0,1]}
            0 internal room.started
            0 tick 0 faulted - - joined:0 joined:1
            0 fault in 0 bad_output: the output of frame 0 cannot be used: item 1: the name of the public event `finished` is reserved for the host; use another
            0 phase aborted
            0 public 6 aborted in 0 {"frames":1,"reason":"rules_fault","fault":"bad_output"}
            0 internal room.aborted
            0 ended aborted 1 rules_fault
        "#,
    );
}

#[test]
fn the_host_stops_in_every_phase() {
    check(
        config(2),
        Folder::endless(),
        "100 abort\n200 end",
        r#"
            100 phase aborted
            100 public 1 aborted {"frames":0,"reason":"host_stopping"}
            100 internal room.aborted
            100 ended aborted 0 host_stopping
        "#,
    );
    check(
        config(2),
        Folder::endless(),
        &format!("{BOTH_READY} 2100 abort\n 2200 end"),
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 phase readying
            0 public 3 player_ready {"player":0,"name":"ann"}
            0 public 4 player_ready {"player":1,"name":"bob"}
            0 phase cutscene
            0 public 5 cutscene {"duration_ms":2000}
            2000 phase countdown
            2000 public 6 countdown {"remaining":2}
            2100 phase aborted
            2100 public 7 aborted {"frames":0,"reason":"host_stopping"}
            2100 internal room.aborted
            2100 ended aborted 0 host_stopping
        "#,
    );
    check(
        quick_config(2),
        Folder::endless(),
        &format!("{BOTH_READY} 50 action 1 9 0\n 60 abort\n 70 abort\n 80 ready 0"),
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 phase readying
            0 public 3 player_ready {"player":0,"name":"ann"}
            0 public 4 player_ready {"player":1,"name":"bob"}
            0 phase running
            0 public 5 started {"frame":0,"tick_hz":10,"players":[0,1]}
            0 internal room.started
            0 tick 0 - - joined:0 joined:1
            60 phase aborted
            60 public 6 aborted {"frames":1,"reason":"host_stopping"}
            60 internal room.aborted
            60 ended aborted 1 host_stopping
            60 result 1 #9 refused over
            70 phase closed
            70 internal room.closed
            80 ready 0: the room is closed
        "#,
    );
}

#[test]
fn after_the_end_the_outcome_can_still_be_had() {
    let script = format!(
        "{THREE_READY} 10 quit 2\n 150 connect 2\n 160 quit 0\n 170 disconnect 1\n 180 connect 1\n 180 events 8\n \
         190 ready 1\n 190 action 1 1 0\n 190 input 1 3 x\n 4200 connect 1\n 4200 input 1 3 x"
    );
    check(
        quick_config(3),
        Folder::until(1),
        &script,
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 public 3 player_joined {"player":2,"name":"cid"}
            0 internal player.joined
            0 phase readying
            0 public 4 player_ready {"player":0,"name":"ann"}
            0 public 5 player_ready {"player":1,"name":"bob"}
            0 public 6 player_ready {"player":2,"name":"cid"}
            0 phase running
            0 public 7 started {"frame":0,"tick_hz":10,"players":[0,1,2]}
            0 internal room.started
            0 tick 0 - - - joined:0 joined:1 joined:2
            10 public 8 player_left {"player":2,"name":"cid","reason":"quit"}
            10 internal player.left
            10 left 2 quit
            100 tick 1 - - - left:2:Quit
            100 phase finished
            100 public 9 finished in 1 {"frames":2,"results":[]}
            100 internal room.finished
            100 ended finished 2 []
            180 events: 0 missed, 9 finished
            190 ready 1: the match has ended
            190 action 1 1 0: the match has ended
            4100 phase closed
            4100 internal room.closed
            4200 connect 1: the room is closed
            4200 input 1 3 x: the room is closed
        "#,
    );
}

#[test]
fn the_countdown_may_come_without_a_cutscene_and_the_cutscene_without_a_countdown() {
    let mut no_cutscene = config(1);
    no_cutscene.manifest.cutscene_ms = 0;
    check(
        no_cutscene,
        Folder::until(0),
        "0 connect 0\n500 ready 0\n2600 end",
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 phase readying
            500 public 2 player_ready {"player":0,"name":"ann"}
            500 phase countdown
            500 public 3 countdown {"remaining":2}
            1500 public 4 countdown {"remaining":1}
            2500 phase running
            2500 public 5 started {"frame":0,"tick_hz":10,"players":[0]}
            2500 internal room.started
            2500 tick 0 - joined:0
            2500 phase finished
            2500 public 6 finished in 0 {"frames":1,"results":[]}
            2500 internal room.finished
            2500 ended finished 1 []
        "#,
    );
    let mut no_countdown = config(1);
    no_countdown.manifest.countdown_steps = 0;
    check(
        no_countdown,
        Folder::until(0),
        "0 connect 0\n500 ready 0\n2600 end",
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 phase readying
            500 public 2 player_ready {"player":0,"name":"ann"}
            500 phase cutscene
            500 public 3 cutscene {"duration_ms":2000}
            2500 phase running
            2500 public 4 started {"frame":0,"tick_hz":10,"players":[0]}
            2500 internal room.started
            2500 tick 0 - joined:0
            2500 phase finished
            2500 public 5 finished in 0 {"frames":1,"results":[]}
            2500 internal room.finished
            2500 ended finished 1 []
        "#,
    );
}

#[test]
fn who_is_unknown_or_not_there_is_told_so() {
    let script =
        "0 connect 2\n0 ready 9\n0 input 2 0 x\n0 ready 0\n0 disconnect 0\n0 action 0 1 0\n0 quit 65535\n1 end";
    check(
        config(2),
        Folder::endless(),
        script,
        r#"
            0 connect 2: the room has no player slot 2
            0 ready 9: the room has no player slot 9
            0 input 2 0 x: the room has no player slot 2
            0 ready 0: player 0 is not connected
            0 disconnect 0: player 0 is not connected
            0 action 0 1 0: player 0 is not connected
            0 quit 65535: the room has no player slot 65535
        "#,
    );
}

#[test]
fn events_that_are_no_longer_kept_are_missed_and_that_is_said() {
    let mut config = quick_config(2);
    config.limits.events_kept_max = 3;
    let rules = Folder::new(|_, out| {
        out.push(Item::PublicEvent { name: "step", json: "0" });
        Ok(())
    });
    check(
        config,
        rules,
        &format!("{BOTH_READY} 250 events 0\n 250 events 7\n 260 end"),
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 public 2 player_joined {"player":1,"name":"bob"}
            0 internal player.joined
            0 phase readying
            0 public 3 player_ready {"player":0,"name":"ann"}
            0 public 4 player_ready {"player":1,"name":"bob"}
            0 phase running
            0 public 5 started {"frame":0,"tick_hz":10,"players":[0,1]}
            0 internal room.started
            0 tick 0 - - joined:0 joined:1
            0 public 6 step in 0 0
            100 tick 1 - -
            100 public 7 step in 1 0
            200 tick 2 - -
            200 public 8 step in 2 0
            250 events: 5 missed, 6 step, 7 step, 8 step
            250 events: 0 missed, 8 step
        "#,
    );
}

#[test]
fn what_cannot_be_opened_is_refused() {
    fn refusal(spoil: impl FnOnce(&mut RoomConfig)) -> OpenError {
        let mut config = config(2);
        spoil(&mut config);
        Room::open(config, 0).expect_err("it cannot be opened")
    }
    assert_eq!(refusal(|c| c.id.clear()), OpenError::Id { len_bytes: 0 });
    assert_eq!(refusal(|c| c.id = "r".repeat(65)), OpenError::Id { len_bytes: 65 });
    assert!(matches!(refusal(|c| c.manifest.tick_hz = 0), OpenError::Manifest(e) if e.field == "tick_hz"));
    assert!(matches!(refusal(|c| c.setup.tick_hz = 129), OpenError::Setup(e) if e.field == "tick_hz"));
    assert!(matches!(refusal(|c| c.setup.players[1].name = "x".repeat(65)), OpenError::Setup(_)));
    assert_eq!(refusal(|c| drop(c.setup.players.pop())), OpenError::Players { players: 1, min: 2, max: 8 });
    assert_eq!(refusal(|c| c.setup.options = "{".into()), OpenError::OptionsNotJson);
    assert_eq!(refusal(|c| c.setup.players[1].data = "car".into()), OpenError::PlayerDataNotJson { player: 1 });
}
