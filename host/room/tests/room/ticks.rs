//! Schedule, overrun, inputs and actions of a room, tick by tick.

use crate::support::{Folder, Show, check, check_showing, config, quick_config};
use holeshot_abi::Item;
use holeshot_room::{Arrival, Beat, Departure, Room};

#[test]
fn inputs_may_come_from_the_cutscene_on_so_that_frame_0_is_fresh() {
    let script = "0 connect 0\n0 input 0 0 no\n1 ready 0\n2 input 0 0 yes\n3 input 0 0 yes\n3 input 0 0 oops\n4 input 0 1 later\n\
                  3500 input 0 9 far\n3600 input 0 2 two\n 4400 end";
    check_showing(
        Show::Snapshots,
        config(1),
        Folder::endless(),
        script,
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 phase readying
            1 public 2 player_ready {"player":0,"name":"ann"}
            1 phase cutscene
            1 public 3 cutscene {"duration_ms":2000}
            2001 phase countdown
            2001 public 4 countdown {"remaining":2}
            3001 public 5 countdown {"remaining":1}
            4001 phase running
            4001 public 6 started {"frame":0,"tick_hz":10,"players":[0]}
            4001 internal room.started
            4001 tick 0 yes joined:0
            4001 snapshot 0 of 0 margin Some(601000) last Some(2)
            4101 tick 1 yes~1
            4101 snapshot 0 of 1 margin Some(601000) last Some(2)
            4201 tick 2 two
            4201 snapshot 0 of 2 margin Some(601000) last Some(2)
            4301 tick 3 two~1
            4301 snapshot 0 of 3 margin Some(601000) last Some(2)
        "#,
    );
}

#[test]
fn a_start_is_put_off_to_the_rooms_beat() {
    let start_us = |config: holeshot_room::RoomConfig, beat: Option<Beat>| {
        let mut rules = Folder::endless().supervised(&config);
        let mut room = Room::open(config, 0).unwrap();
        beat.into_iter().for_each(|beat| room.set_beat(beat));
        room.handle(1_234, Arrival::Connected { player: 0 }).unwrap();
        room.handle(1_234, Arrival::Ready { player: 0 }).unwrap();
        let (mut ticks, mut started) = (Vec::new(), Vec::new());
        while ticks.len() < 3 {
            let due_us = room.next_due_us().unwrap();
            room.step(due_us, &mut rules, &mut |departure| match departure {
                Departure::Tick { .. } => ticks.push(due_us),
                Departure::PublicEvent(event) if event.name == "started" => started.push(due_us),
                _ => {}
            });
        }
        assert_eq!(started, ticks[..1], "the start is told with frame 0");
        assert_eq!(ticks, [0, 1, 2].map(|frame| room.tick_due_us(frame).unwrap()));
        assert!(ticks.windows(2).all(|pair| pair[1] - pair[0] == 100_000), "{ticks:?}");
        ticks[0]
    };
    let beat = |period_us, offset_us| Some(Beat { period_us, offset_us });
    assert_eq!(start_us(config(1), None), 4_001_234);
    assert_eq!(start_us(config(1), beat(100_000, 7_000)), 4_007_000);
    assert_eq!(start_us(config(1), beat(100_000, 1_000)), 4_101_000);
    assert_eq!(start_us(config(1), beat(0, 1_000)), 4_001_234);
    for (period_us, offset_us) in [(1, 0), (100_000, 1_234), (1_234, 0)] {
        assert_eq!(start_us(quick_config(1), beat(period_us, offset_us)), 1_234);
    }
    assert_eq!(start_us(quick_config(1), beat(100_000, 1_000)), 101_000);
    assert_eq!(Beat { period_us: 10, offset_us: 0 }.next_us(u64::MAX), u64::MAX, "no such moment: any");
}

#[test]
fn actions_before_frame_0_wait_for_it() {
    let script = "0 connect 0\n0 action 0 1 {\"car\":1}\n5 ready 0\n6 action 0 2 [2]\n7 action 0 2 [2]\n8 action 0 3 {\n\
                  50 disconnect 0\n60 connect 0\n70 action 0 2 [2]\n4250 action 0 2 [2]\n4260 action 0 4 4\n4350 end";
    check(
        config(1),
        Folder::endless(),
        script,
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 phase readying
            5 public 2 player_ready {"player":0,"name":"ann"}
            5 phase cutscene
            5 public 3 cutscene {"duration_ms":2000}
            8 result 0 #3 refused not_json
            2005 phase countdown
            2005 public 4 countdown {"remaining":2}
            3005 public 5 countdown {"remaining":1}
            4005 phase running
            4005 public 6 started {"frame":0,"tick_hz":10,"players":[0]}
            4005 internal room.started
            4005 tick 0 - joined:0 action:0:{"car":1} action:0:[2]
            4005 result 0 #1 applied in 0
            4005 result 0 #2 applied in 0
            4105 tick 1 -
            4205 tick 2 -
            4250 result 0 #2 applied in 0
            4305 tick 3 - action:0:4
            4305 result 0 #4 applied in 3
        "#,
    );
}

#[test]
fn a_stall_is_caught_up_to_a_limit_and_the_rest_is_lost() {
    let mut config = quick_config(1);
    config.limits.catch_up_ticks_max = 3;
    let script =
        "0 connect 0\n0 ready 0\n 50 stall 300\n 350 input 0 4 e\n 450 stall 1050\n 1060 input 0 8 i\n1300 end";
    check_showing(
        Show::Snapshots,
        config,
        Folder::endless(),
        script,
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 phase readying
            0 public 2 player_ready {"player":0,"name":"ann"}
            0 phase running
            0 public 3 started {"frame":0,"tick_hz":10,"players":[0]}
            0 internal room.started
            0 tick 0 - joined:0
            0 snapshot 0 of 0 margin None last None
            300 tick 1 -
            300 snapshot 0 of 1 margin None last None
            300 tick 2 -
            300 snapshot 0 of 2 margin None last None
            300 tick 3 -
            300 snapshot 0 of 3 margin None last None
            400 tick 4 e
            400 snapshot 0 of 4 margin Some(50000) last Some(4)
            1050 tick 5 e~1
            1050 snapshot 0 of 5 margin Some(50000) last Some(4)
            1050 tick 6 e~2
            1050 snapshot 0 of 6 margin Some(50000) last Some(4)
            1050 tick 7 e~3
            1050 snapshot 0 of 7 margin Some(50000) last Some(4)
            1050 lost 3 before 8
            1100 tick 8 i
            1100 snapshot 0 of 8 margin Some(40000) last Some(8)
            1200 tick 9 i~1
            1200 snapshot 0 of 9 margin Some(40000) last Some(8)
            1300 tick 10 i~2
            1300 snapshot 0 of 10 margin Some(40000) last Some(8)
        "#,
    );
}

#[test]
fn a_stall_that_ends_exactly_on_a_due_time_loses_that_tick_too() {
    let mut config = quick_config(1);
    config.limits.catch_up_ticks_max = 1;
    check(
        config,
        Folder::endless(),
        "0 connect 0\n0 ready 0\n 50 stall 300\n500 end",
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 phase readying
            0 public 2 player_ready {"player":0,"name":"ann"}
            0 phase running
            0 public 3 started {"frame":0,"tick_hz":10,"players":[0]}
            0 internal room.started
            0 tick 0 - joined:0
            300 tick 1 -
            300 lost 2 before 2
            400 tick 2 -
            500 tick 3 -
        "#,
    );
}

#[test]
fn a_stall_over_the_countdown_tells_every_step_of_it() {
    let script = "0 connect 0\n0 ready 0\n10 stall 4150\n4250 end";
    check(
        config(1),
        Folder::endless(),
        script,
        r#"
            0 public 1 player_joined {"player":0,"name":"ann"}
            0 internal player.joined
            0 phase readying
            0 public 2 player_ready {"player":0,"name":"ann"}
            0 phase cutscene
            0 public 3 cutscene {"duration_ms":2000}
            4150 phase countdown
            4150 public 4 countdown {"remaining":2}
            4150 public 5 countdown {"remaining":1}
            4150 phase running
            4150 public 6 started {"frame":0,"tick_hz":10,"players":[0]}
            4150 internal room.started
            4150 tick 0 - joined:0
            4150 tick 1 -
            4200 tick 2 -
        "#,
    );
}

#[test]
fn a_flood_of_actions_is_refused_and_told_so() {
    let mut config = quick_config(2);
    config.limits.actions_queued_max = 2;
    let mut script = String::from("0 connect 0\n0 connect 1\n0 ready 0\n0 ready 1\n10 stall 100\n");
    for id in 1..=4 {
        script += &format!("20 action 0 {id} {id}\n");
    }
    script += "30 action 1 7 7\n30 action 0 2 2\n30 quit 1\n 150 action 0 5 5\n 250 end";
    check(
        config,
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
            100 public 6 player_left {"player":1,"name":"bob","reason":"quit"}
            100 internal player.left
            100 left 1 quit
            100 tick 1 - - left:1:Quit action:0:1 action:0:2
            100 result 0 #1 applied in 1
            100 result 0 #2 applied in 1
            100 result 0 #3 refused queue_full
            100 result 0 #4 refused queue_full
            100 result 1 #7 refused over
            200 tick 2 - - action:0:5
            200 result 0 #5 applied in 2
        "#,
    );
}

#[test]
fn the_schedule_does_not_drift() {
    for tick_hz in [1, 3, 7, 30, 60, 64, 127, 128] {
        let mut config = quick_config(1);
        config.setup.tick_hz = tick_hz;
        let start_us = 1_234_567;
        let mut rules = Folder::endless().supervised(&config);
        let mut room = Room::open(config, start_us).unwrap();
        room.handle(start_us, Arrival::Connected { player: 0 }).unwrap();
        room.handle(start_us, Arrival::Ready { player: 0 }).unwrap();
        let mut ticks = Vec::new();
        while ticks.len() < 1000 {
            let due_us = room.next_due_us().unwrap();
            room.step(due_us, &mut rules, &mut |departure| {
                if let Departure::Tick { frame, .. } = departure {
                    ticks.push((frame, due_us));
                }
            });
        }
        for (frame, due_us) in ticks {
            assert_eq!(due_us, start_us + u64::from(frame) * 1_000_000 / u64::from(tick_hz), "{tick_hz} Hz");
        }
        assert_eq!(room.counters().ticks_lost, 0);
    }
}

#[test]
fn time_that_runs_back_is_taken_as_standing_still() {
    let mut room = Room::open(quick_config(1), 5_000_000).unwrap();
    let mut rules = Folder::endless().supervised(&quick_config(1));
    room.handle(9_000_000, Arrival::Connected { player: 0 }).unwrap();
    room.handle(6_000_000, Arrival::Ready { player: 0 }).unwrap();
    room.step(1, &mut rules, &mut |_| ());
    assert_eq!(room.frame(), Some(0));
    assert_eq!(room.tick_due_us(0), Some(9_000_000));
    room.step(2, &mut rules, &mut |_| ());
    assert_eq!(room.frame(), Some(0));
}

#[test]
fn a_player_gets_its_own_snapshot_rather_than_the_shared_one() {
    let rules = Folder::new(|_, out| {
        out.push(Item::Snapshot { player: 1, bytes: b"own" });
        Ok(())
    });
    let mut rules = rules.supervised(&quick_config(2));
    let mut room = Room::open(quick_config(2), 0).unwrap();
    for player in 0..2 {
        room.handle(0, Arrival::Connected { player }).unwrap();
        room.handle(0, Arrival::Ready { player }).unwrap();
    }
    let mut seen = Vec::new();
    room.step(0, &mut rules, &mut |departure| {
        if let Departure::Snapshot { player, bytes, .. } = departure {
            seen.push((player, bytes.len()));
        }
    });
    assert_eq!(seen, [(0, 8), (1, 3)]);
}

#[test]
fn equal_records_give_equal_bytes() {
    // One room is played; its records alone make other rules produce the same snapshots.
    let mut room = Room::open(quick_config(2), 0).unwrap();
    let mut rules = Folder::until(40).supervised(&quick_config(2));
    let (mut records, mut snapshots) = (Vec::new(), Vec::new());
    for player in 0..2 {
        room.handle(0, Arrival::Connected { player }).unwrap();
        room.handle(0, Arrival::Ready { player }).unwrap();
    }
    while let Some(due_us) = room.next_due_us() {
        let next_frame = room.frame().map_or(0, |frame| frame + 1);
        if !next_frame.is_multiple_of(3) {
            let bytes = next_frame.to_le_bytes();
            room.handle(due_us - 1, Arrival::Input { player: 1, frame: next_frame, bytes: &bytes }).ok();
            room.handle(due_us - 1, Arrival::Action { player: 0, id: next_frame.into(), json: "[]" }).ok();
        }
        room.step(due_us, &mut rules, &mut |departure| match departure {
            Departure::Tick { record, .. } => records.push(record.to_vec()),
            Departure::Snapshot { player: 0, bytes, .. } => snapshots.push(bytes.to_vec()),
            _ => {}
        });
    }
    assert_eq!((records.len(), snapshots.len()), (41, 41));
    let mut other = Folder::until(40);
    for (record, snapshot) in records.iter().zip(&snapshots) {
        let output = holeshot_room::Rules::tick(&mut other, record).unwrap();
        let output = holeshot_abi::OutputReader::read(output, 2).unwrap();
        assert_eq!(output.items().next(), Some(Item::SharedSnapshot(snapshot)));
    }
    let distinct: std::collections::BTreeSet<_> = snapshots.iter().collect();
    assert_eq!(distinct.len(), 41, "the hash sees every record");
}
