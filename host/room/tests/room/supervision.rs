//! Each row of the policy in the documentation of `Supervisor`, each refusal of a trial and of a swap. Every room's journal is proved at
//! the end.

use holeshot_abi::{EVENTS_PER_TICK_MAX, Manifest};
use holeshot_room::{
    AbortReason, Arrival, BeginError, FaultKind, Limits, PROBATION_EVENTS_MAX, Phase, RECORDS_BYTES_MAX,
    RERUN_EVENTS_BYTES_MAX, RERUN_PUBLIC_EVENTS_MAX, RETRIES_MAX, Supervision, Supervisor, SwapRefusalKind,
};

use crate::faulty::{Ill, Spec, World, setup};

fn settings() -> Supervision {
    Supervision { checkpoint_frames: 10, probation_frames: 20, overruns_max: 3, replay_fuel_max: 1_000_000 }
}

/// The race of these rules in which nobody changed or broke anything.
fn undisturbed(spec: &Spec) -> World {
    let mut world = World::ready(spec, settings());
    world.prove();
    world
}

/// A room that is before frame `frame`.
fn before(frame: u32, spec: &Spec) -> World {
    let mut world = World::ready(spec, settings());
    if frame > 0 {
        world.run_to(frame - 1);
    }
    world
}

/// The same race, whatever happened on the way.
#[track_caller]
fn assert_same_race(world: &mut World, reference: &World) {
    let outputs = world.prove();
    let mut again = World::ready(&Spec::build(1).finishing(60), settings());
    assert_eq!(world.seen.outcome, reference.seen.outcome);
    assert_eq!(world.seen.valid_public(), reference.seen.valid_public());
    assert_eq!(world.seen.valid_internal(), reference.seen.valid_internal());
    assert_eq!(world.seen.frames, reference.seen.frames);
    assert_eq!(outputs, again.prove());
}

#[test]
fn a_checkpoint_is_taken_every_so_many_frames() {
    let mut world = World::ready(&Spec::build(1).finishing(35), settings());
    world.prove();
    assert_eq!(world.seen.checkpoints, [10, 20, 30]);
}

#[test]
fn checkpoints_come_sooner_where_ticks_are_dear() {
    let spec = Spec { fuel_per_tick: 300_000, ..Spec::build(1).finishing(10) };
    let mut world = World::ready(&spec, settings());
    world.prove();
    // Three ticks cost 900,000, a fourth would be above a million.
    assert_eq!(world.seen.checkpoints, [3, 6, 9]);
}

#[test]
fn a_fault_that_does_not_come_again_is_not_noticed() {
    for frame in [0, 9, 10, 13] {
        let mut world = World::ready(&Spec::build(1).finishing(60).ill(Ill::MachineTraps(frame)), settings());
        world.run_to(60);
        assert_eq!(world.seen.retried, [frame]);
        assert_eq!(world.room.counters().retries, 1);
        // What comes after a retry is cheap to undo.
        assert!(world.seen.checkpoints.contains(&(frame + 1)), "{:?}", world.seen.checkpoints);
        assert_same_race(&mut world, &undisturbed(&Spec::build(1).finishing(60)));
    }
}

#[test]
fn a_fault_that_comes_again_ends_the_room() {
    for ill in [Ill::TrapsFrom(17), Ill::BadOutputFrom(17)] {
        let mut world = World::ready(&Spec::build(1).ill(ill), settings());
        let outputs = world.prove();
        assert_eq!(world.seen.outcome, Some((18, "rules_fault".into())));
        assert_eq!(world.seen.frames.last(), Some(&"faulted"));
        assert_eq!(outputs.last(), Some(&None), "the replay fails in the same frame");
        assert!(world.seen.retried.is_empty());
    }
}

#[test]
fn a_machine_that_fails_again_and_again_is_given_up() {
    let mut spec = Spec::build(1).finishing(100);
    for nth in 0..=RETRIES_MAX {
        spec = spec.ill(Ill::MachineTraps(5 * nth + 3));
    }
    let mut world = World::ready(&spec, settings());
    world.close();
    assert_eq!(world.seen.retried.len(), RETRIES_MAX as usize);
    assert_eq!(world.seen.outcome, Some((5 * RETRIES_MAX + 4, "rules_fault".into())));
}

#[test]
fn a_frame_that_takes_too_long_is_skipped() {
    let mut world = before(12, &Spec::build(1).finishing(40).ill(Ill::Overruns(12)).ill(Ill::Overruns(13)));
    world.arrive(Arrival::Action { player: 0, id: 1, json: "1" });
    world.arrive(Arrival::Quit { player: 1 });
    world.run_to(12);
    world.arrive(Arrival::Action { player: 0, id: 2, json: "2" });
    world.run_to(20);
    let seen = &world.seen;
    assert_eq!(seen.frames[11..16], ["stepped", "skipped", "skipped", "stepped", "stepped"]);
    assert_eq!(world.room.counters().ticks_skipped, 2);
    // The rules hear of the leave and of both actions in the first frame that they see.
    let applied = |id| (0, id, "Applied { frame: 14 }".to_owned());
    assert_eq!(seen.results, [applied(1), applied(2)]);
    let of_ann: Vec<_> = seen.snapshots.iter().filter(|(_, player, _)| *player == 0).collect();
    assert_eq!(of_ann.len(), 21, "every frame has its snapshot");
    assert_eq!((&of_ann[11].2, &of_ann[11].2), (&of_ann[12].2, &of_ann[13].2), "the last one again");
    assert_ne!(of_ann[13].2, of_ann[14].2);
    assert!(seen.checkpoints.contains(&15), "{:?}", seen.checkpoints);
    world.prove();
}

#[test]
fn too_many_overruns_in_a_row_end_the_room() {
    let mut world = World::ready(&Spec::build(1).ill(Ill::OverrunsFrom(7)), settings());
    world.prove();
    assert_eq!(world.seen.frames[6..], ["stepped", "skipped", "skipped", "faulted"]);
    assert_eq!(world.seen.outcome, Some((10, "rules_fault".into())));
    let spec = Spec::build(1).finishing(30).ill(Ill::Overruns(7)).ill(Ill::Overruns(8)).ill(Ill::Overruns(10));
    let mut world = World::ready(&spec, settings());
    world.prove();
    assert_eq!(world.seen.outcome.as_ref().map(|(frames, _)| *frames), Some(31), "not in a row");
}

#[test]
fn skipped_frames_in_a_row_are_counted_over_a_swap_that_came_to_nothing() {
    // Three in a row end the room: 7 and 8 are skipped, then other rules come, fail in 9, and the former ones take too long in it, too.
    let mut world = before(9, &Spec::build(1).ill(Ill::OverrunsFrom(7)));
    let candidate = Spec::build(2).ill(Ill::Overruns(9));
    let program = candidate.program(&setup(2));
    // Its trial would find out, so it is of a room that is further on.
    let trial = before(12, &Spec::build(1)).rules.trial();
    world.commit(trial.run(program).unwrap()).unwrap();
    world.close();
    assert_eq!(world.seen.rollbacks, [(9, 9, vec![], 0)]);
    assert_eq!(world.seen.frames[6..], ["stepped", "skipped", "skipped", "faulted"]);
}

#[test]
fn a_retry_that_takes_too_long_is_skipped() {
    let mut world = before(12, &Spec::build(1).finishing(30).ill(Ill::MachineTraps(12)).ill(Ill::Overruns(12)));
    world.prove();
    assert_eq!(world.seen.frames[11..14], ["stepped", "skipped", "stepped"]);
    assert_eq!((world.seen.retried.as_slice(), world.seen.frames.len()), (&[12][..], 31));
}

#[test]
fn frame_0_may_be_skipped() {
    let mut world = World::ready(&Spec::build(1).finishing(20).ill(Ill::Overruns(0)), settings());
    world.run_to(3);
    assert_eq!(world.seen.frames, ["skipped", "stepped", "stepped", "stepped"]);
    assert_eq!(world.seen.snapshots.first().map(|(frame, ..)| *frame), Some(1), "there is no older one");
    world.prove();
}

#[test]
fn everyone_left_waits_for_a_frame_that_is_stepped() {
    let mut world = before(5, &Spec::build(1).ill(Ill::Overruns(5)));
    world.arrive(Arrival::Quit { player: 0 });
    world.arrive(Arrival::Quit { player: 1 });
    world.prove();
    assert_eq!(world.seen.frames[4..], ["stepped", "skipped", "stepped"]);
    assert_eq!(world.seen.outcome, Some((7, "everyone_left".into())));
}

#[test]
fn rules_that_cannot_save_end_the_room() {
    for ill in [Ill::SaveTrapsFrom(12), Ill::GrowsFrom(12)] {
        let mut world = World::ready(&Spec::build(1).ill(ill), settings());
        world.prove();
        assert_eq!(world.seen.checkpoints, [10]);
        assert_eq!(world.seen.outcome, Some((20, "rules_fault".into())));
        assert!(world.seen.frames.iter().all(|ran| *ran == "stepped"));
    }
}

#[test]
fn rules_that_refuse_their_own_state_cannot_be_helped() {
    let mut world = World::ready(&Spec::build(1).ill(Ill::RefusesOwn).ill(Ill::MachineTraps(12)), settings());
    world.close();
    assert_eq!(world.seen.outcome, Some((13, "rules_fault".into())));
    let aborted = world.seen.internal.iter().find(|(name, ..)| name == "room.aborted").expect("it was aborted");
    assert!(aborted.2.contains("a cosmic ray of build 1; and when it was tried again: state_refused"), "{}", aborted.2);
}

#[test]
fn rules_that_do_not_begin_are_refused() {
    let begin = |ill| Supervisor::begin(Spec::build(1).ill(ill).program(&setup(1)), settings()).map(|_| ());
    assert_eq!(begin(Ill::RefusesSetup), Err(BeginError::Refused("no such car".into())));
    assert!(matches!(begin(Ill::TrapsAtBegin), Err(BeginError::Fault(fault)) if fault.kind == FaultKind::Trap));
    assert!(matches!(begin(Ill::NoInstance), Err(BeginError::NoInstance(_))));
    // The first checkpoint is taken before frame 0; `next_frame` is above no frame then.
    assert!(begin(Ill::RefusesOwn).is_ok());
}

#[test]
fn another_build_of_the_same_rules_changes_nothing() {
    for frame in [0, 1, 10, 15, 59] {
        let mut world = before(frame, &Spec::build(1).finishing(60));
        let swapped = world.swap(&Spec::build(2).finishing(60)).expect("it is as good");
        assert_eq!(swapped.next_frame, frame);
        let probation = world.rules.probation().expect("it is on probation");
        assert_eq!((probation.former, probation.since_frame, probation.ends_frame), (swapped.from, frame, frame + 20));
        world.run_to(60);
        assert_eq!(world.build(), "2");
        let (_, told, name, json) = world.seen.public.iter().find(|event| event.2.starts_with("rules")).unwrap();
        assert_eq!((told, name.as_str()), (&None, "rules_swapped"));
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!((&json["frame"], &json["module"]["version"]), (&frame.into(), &"2".into()));
        assert_eq!((&json["from"]["version"], &json["from"]["name"]), (&"1".into(), &"faulty".into()));
        assert_eq!(json["module"]["hash"].as_str().map(str::len), Some(64));
        if frame < 40 {
            assert_eq!(world.seen.kept, [frame + 20]);
        } else {
            assert!(world.seen.kept.is_empty(), "the room ended before");
        }
        assert_eq!(world.room.counters().swaps, 1);
        assert_same_race(&mut world, &undisturbed(&Spec::build(1).finishing(60)));
    }
}

#[test]
fn a_hundred_swaps_in_a_row_change_nothing() {
    let frames = 250;
    let settings = Supervision { probation_frames: 1, ..settings() };
    let mut world = World::ready(&Spec::build(0).finishing(frames), settings);
    for build in 1..=100 {
        world.swap(&Spec::build(build).finishing(frames)).expect("it is as good");
        world.run_to(2 * build as u32);
    }
    let outputs = world.prove();
    let mut reference = World::ready(&Spec::build(0).finishing(frames), settings);
    assert_eq!(outputs, reference.prove());
    assert_eq!(world.seen.outcome, reference.seen.outcome);
    assert_eq!(world.seen.snapshots, reference.seen.snapshots);
    assert_eq!(world.seen.valid_public(), reference.seen.valid_public());
    assert_eq!((world.room.counters().swaps, world.room.counters().rollbacks), (100, 0));
}

#[test]
fn a_state_is_migrated_to_a_new_version() {
    let mut world = before(25, &Spec::build(1).finishing(60));
    world.swap(&Spec { state_version: 2, ..Spec::build(2).finishing(60) }).expect("it understands version 1");
    world.run_to(60);
    assert_eq!(world.seen.kept, [45]);
    assert_same_race(&mut world, &undisturbed(&Spec::build(1).finishing(60)));
    // Not back: nobody wrote that down.
    let mut world = before(25, &Spec { state_version: 2, ..Spec::build(1) });
    let refusal = world.swap(&Spec::build(2)).unwrap_err();
    assert_eq!(refusal.kind, SwapRefusalKind::StateRefused);
}

#[test]
fn whatever_is_wrong_with_new_rules_in_probation_the_former_ones_go_on() {
    // Frames 25 to 44 are on probation; the trial looks at 20 to 49 of a room that is before frame 25: the ills begin after it was made.
    for ill in
        [Ill::TrapsFrom(50), Ill::OverrunsFrom(50), Ill::BadOutputFrom(50), Ill::SaveTrapsFrom(50), Ill::GrowsFrom(50)]
    {
        let settings = Supervision { probation_frames: 30, ..settings() };
        let mut world = World::ready(&Spec::build(1).finishing(60), settings);
        world.run_to(24);
        let bad = Spec::build(2).finishing(60).flavoured(77).ill(ill);
        world.swap(&bad).expect("the trial cannot know");
        world.run_to(60);
        let seen = &world.seen;
        assert_eq!(world.build(), "1", "{ill:?}");
        let frame = if matches!(ill, Ill::SaveTrapsFrom(_) | Ill::GrowsFrom(_)) { 54 } else { 50 };
        let [(since_frame, failed_frame, void, run_again)] = seen.rollbacks.as_slice() else {
            panic!("{ill:?}: {:?}", seen.rollbacks)
        };
        assert_eq!((*since_frame, *failed_frame), (25, frame), "{ill:?}");
        assert_eq!(*run_again, if frame == 54 { 30 } else { 25 });
        assert!(!void.is_empty(), "another flavour tells other events");
        let (_, _, _, json) =
            seen.public.iter().find(|event| event.2 == "rules_rolled_back").expect("players hear of it");
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!((&json["frame"], &json["since_frame"]), (&frame.into(), &25.into()));
        assert_eq!((&json["module"]["version"], &json["failed"]["version"]), (&"1".into(), &"2".into()));
        assert_eq!(json["void"].as_array().map(Vec::len), Some(void.len()));
        assert!(json["reason"].is_string() && json.get("message").is_none(), "players are not told the rest: {json}");
        let (.., json) =
            seen.internal.iter().find(|event| event.0 == "room.rules_rolled_back").expect("so does the broker");
        assert!(json.contains("\"message\":\"") && json.contains("\"void_internal\":["), "{json}");
        assert_eq!((world.room.counters().swaps, world.room.counters().rollbacks), (1, 1));
        assert_eq!(world.rules.probation(), None);
        // Every player got every frame's snapshot; from the rollback on they are those of the race without the bad rules.
        let reference = undisturbed(&Spec::build(1).finishing(60));
        let keys = |world: &World| world.seen.snapshots.iter().map(|(f, p, _)| (*f, *p)).collect::<Vec<_>>();
        assert_eq!(keys(&world), keys(&reference), "{ill:?}");
        let is_after = |snapshot: &&(u32, u16, Vec<u8>)| snapshot.0 > frame || (snapshot.0 == frame && frame == 50);
        let after = |world: &World| world.seen.snapshots.iter().filter(is_after).cloned().collect::<Vec<_>>();
        assert_eq!(after(&world), after(&reference), "{ill:?}");
        assert_same_race(&mut world, &reference);
    }
}

#[test]
fn rules_that_fail_in_their_first_frame_leave_no_trace_but_the_word() {
    // Between trial and swap the room goes on: the frame that fails was not tried.
    let mut world = before(25, &Spec::build(1).finishing(60));
    let candidate = world.try_candidate(&Spec::build(2).ill(Ill::TrapsFrom(50))).expect("it is well up to frame 49");
    world.run_to(49);
    world.commit(candidate).expect("it takes the state");
    world.run_to(60);
    assert_eq!(world.seen.rollbacks, [(50, 50, vec![], 0)]);
    assert_same_race(&mut world, &undisturbed(&Spec::build(1).finishing(60)));
}

#[test]
fn probation_ends_early_where_it_would_cost_too_much_to_undo() {
    let settings = Supervision { replay_fuel_max: 10_000, ..settings() };
    let mut world = World::ready(&Spec::build(1).finishing(60), settings);
    world.run_to(24);
    world.swap(&Spec::build(2).finishing(60)).unwrap();
    world.run_to(60);
    assert_eq!(world.seen.kept, [35]);
    let (.., json) = world.seen.internal.iter().find(|event| event.0 == "room.rules_kept").unwrap();
    assert!(json.contains("\"early\":true"), "{json}");
    world.prove();
}

#[test]
fn probation_ends_early_where_the_former_rules_are_the_dear_ones() {
    // They are the ones that would be run again, however cheap the new ones are.
    let settings = Supervision { replay_fuel_max: 10_000, ..settings() };
    let mut world = World::ready(&Spec::build(1).finishing(60), settings);
    world.run_to(24);
    world.swap(&Spec { fuel_per_tick: 1, ..Spec::build(2).finishing(60) }).unwrap();
    // Nothing has run: what the rules before both cost is still what counts.
    world.swap(&Spec { fuel_per_tick: 1, ..Spec::build(3).finishing(60) }).unwrap();
    world.run_to(60);
    assert_eq!(world.seen.kept, [35]);
    let (.., json) = world.seen.internal.iter().find(|event| event.0 == "room.rules_kept").unwrap();
    assert!(json.contains("\"early\":true"), "{json}");
    world.prove();
}

#[test]
fn probation_ends_early_where_there_are_too_many_events_to_compare() {
    let settings = Supervision { probation_frames: 150, ..settings() };
    let mut world = World::ready(&Spec::build(1).finishing(60), settings);
    world.run_to(24);
    let events = 20;
    world.swap(&Spec::build(2).finishing(60).ill(Ill::Talks(events, 9))).unwrap();
    world.run_to(60);
    let kept = world.seen.kept[0];
    let told =
        world.seen.public.iter().filter(|(_, frame, ..)| frame.is_some_and(|at| (25..kept).contains(&at))).count();
    assert!((PROBATION_EVENTS_MAX - EVENTS_PER_TICK_MAX..=PROBATION_EVENTS_MAX).contains(&told), "{told} by {kept}");
    world.prove();
}

#[test]
fn probation_ends_early_where_there_are_too_many_records() {
    let settings = Supervision { probation_frames: 1_000, checkpoint_frames: 1_000, ..settings() };
    let mut world = World::ready(&Spec::build(1), settings);
    let json = format!("\"{}\"", "x".repeat(998));
    let mut id = 0;
    // Eight kilobytes of actions and some bytes more in each frame.
    let mut run = |world: &mut World, to: u32| {
        for frame in world.room.frame().map_or(0, |at| at + 1)..=to {
            for _ in 0..8 {
                id += 1;
                world.arrive(Arrival::Action { player: 0, id, json: &json });
            }
            world.run_to(frame);
        }
    };
    run(&mut world, 9);
    world.swap(&Spec::build(2)).unwrap();
    // Each action has 4 bytes and its text, each record 32 bytes besides.
    let frames = (RECORDS_BYTES_MAX / (32 + 8 * 1_004)) as u32;
    run(&mut world, 9 + frames);
    assert!(world.seen.kept.is_empty() && world.seen.checkpoints.len() == 1);
    run(&mut world, 10 + frames);
    assert_eq!(world.seen.kept, [11 + frames]);
    run(&mut world, 11 + 2 * frames);
    assert_eq!(world.seen.checkpoints, [10, 11 + frames, 12 + 2 * frames], "so it is without probation");
    world.arrive(Arrival::Abort { reason: AbortReason::Requested });
    world.prove();
}

#[test]
fn what_the_former_rules_would_have_told_is_told_up_to_a_bound() {
    let settings = Supervision { probation_frames: 60, ..settings() };
    // Long events come to the bound on bytes, short ones to that on their number.
    for (bytes, told) in [(16_000, RERUN_EVENTS_BYTES_MAX / 16_004), (9, RERUN_PUBLIC_EVENTS_MAX)] {
        let mut world = World::ready(&Spec::build(1).finishing(60).ill(Ill::Talks(10, bytes)), settings);
        world.run_to(24);
        world.swap(&Spec::build(2).finishing(60).ill(Ill::TrapsFrom(50))).unwrap();
        world.run_to(50);
        let at = world.seen.public.iter().position(|event| event.2 == "rules_rolled_back").expect("it was");
        let again: Vec<_> =
            world.seen.public[..at].iter().filter(|event| event.1 >= Some(25) && event.2 == "talk").collect();
        assert_eq!(again.len(), told);
        let json: serde_json::Value = serde_json::from_str(&world.seen.public[at].3).unwrap();
        assert_eq!(json["untold"], 250 - again.len());
        world.prove();
    }
}

#[test]
fn a_swap_on_probation_waits_unless_nothing_has_run_yet() {
    let mut world = before(25, &Spec::build(1).finishing(60));
    world.swap(&Spec::build(2).finishing(60)).unwrap();
    // Nothing has run under build 2; build 1 stays the one to go back to.
    world.swap(&Spec::build(3).finishing(60).flavoured(5).ill(Ill::TrapsFrom(40))).unwrap_err();
    let candidate = world.try_candidate(&Spec::build(4).finishing(60)).unwrap();
    world.commit(candidate).unwrap();
    world.run_to(25);
    let refusal = world.swap(&Spec::build(5).finishing(60)).unwrap_err();
    assert_eq!(refusal.kind, SwapRefusalKind::OnProbation);
    world.run_to(44);
    assert_eq!(world.seen.kept, [45]);
    world.swap(&Spec::build(6).finishing(60)).expect("it is over");
    assert_same_race(&mut world, &undisturbed(&Spec::build(1).finishing(60)));

    // Two swaps before frame 0.
    let mut world = before(0, &Spec::build(1).finishing(60));
    world.swap(&Spec::build(2).finishing(60)).unwrap();
    world
        .swap(&Spec::build(3).finishing(60).flavoured(5).ill(Ill::OverrunsFrom(19)).ill(Ill::SaveTrapsFrom(10)))
        .unwrap_err();
    let candidate = world.try_candidate(&Spec::build(4).finishing(60).flavoured(5)).unwrap();
    world.commit(candidate).unwrap();
    world.run_to(10);
    assert_eq!(world.rules.probation().map(|probation| probation.since_frame), Some(0));
    world.prove();
    assert_eq!(world.build(), "4");
}

#[test]
fn both_of_two_swaps_in_one_gap_are_undone() {
    let settings = Supervision { probation_frames: 40, ..settings() };
    for frame in [0, 7] {
        let mut world = World::ready(&Spec::build(1).finishing(60), settings);
        if frame > 0 {
            world.run_to(frame - 1);
        }
        world.swap(&Spec::build(2).finishing(60).flavoured(3)).unwrap();
        world.swap(&Spec::build(3).finishing(60).flavoured(5).ill(Ill::TrapsFrom(frame + 30))).unwrap();
        world.run_to(60);
        assert_eq!(world.build(), "1");
        assert_eq!(world.seen.rollbacks.len(), 1);
        assert_eq!((world.seen.rollbacks[0].0, world.seen.rollbacks[0].1), (frame, frame + 30));
        assert_same_race(&mut world, &undisturbed(&Spec::build(1).finishing(60)));
    }
}

#[test]
fn the_former_rules_may_have_finished_the_game_already() {
    let settings = Supervision { probation_frames: 60, ..settings() };
    let mut world = World::ready(&Spec::build(1).finishing(40), settings);
    world.run_to(24);
    world.swap(&Spec::build(2).finishing(90).ill(Ill::TrapsFrom(52))).unwrap();
    world.prove();
    let mut reference = World::ready(&Spec::build(1).finishing(40), settings);
    reference.prove();
    assert_eq!(world.seen.outcome, reference.seen.outcome);
    assert_eq!(world.seen.valid_public(), reference.seen.valid_public());
    assert_eq!(world.seen.valid_internal(), reference.seen.valid_internal());
    assert_eq!((world.seen.frames.len(), reference.seen.frames.len()), (52, 41), "frame 52 has no record: it was over");
    let (_, frame, name, _) = world.seen.public.last().unwrap();
    assert_eq!((*frame, name.as_str()), (Some(40), "finished"));
}

#[test]
fn the_former_rules_may_fail_on_the_way_or_in_the_same_frame() {
    let settings = Supervision { probation_frames: 60, ..settings() };
    // In an earlier frame than the new ones: the race that nobody changed would have ended there, too.
    let mut world = World::ready(&Spec::build(1).ill(Ill::TrapsFrom(40)), settings);
    world.run_to(24);
    world.swap(&Spec::build(2).ill(Ill::TrapsFrom(52))).unwrap();
    world.prove();
    assert_eq!(world.seen.outcome.as_ref().map(|(_, reason)| reason.as_str()), Some("rules_fault"));
    assert_eq!(world.seen.rollbacks.len(), 1);
    assert_eq!(world.seen.rollbacks[0].3, 15, "frames 25 to 39 were run again");
    let aborted = world.seen.internal.iter().find(|(name, ..)| name == "room.aborted").unwrap();
    assert!(
        aborted.2.contains("a trap of build 1; before, the new rules had failed: a trap of build 2"),
        "{}",
        aborted.2
    );
    // The machine failed on the way: it is tried twice.
    let mut world = World::ready(&Spec::build(1).finishing(60).ill(Ill::MachineTraps(40)), settings);
    world.run_to(24);
    world.swap(&Spec::build(2).finishing(60).ill(Ill::TrapsFrom(52))).unwrap();
    world.run_to(60);
    assert_same_race(&mut world, &undisturbed(&Spec::build(1).finishing(60)));
    // In the same frame: as without the new ones.
    for ill in [Ill::TrapsFrom(52), Ill::Overruns(52), Ill::MachineTraps(52)] {
        let mut world = World::ready(&Spec::build(1).finishing(60).ill(ill), settings);
        world.run_to(24);
        world.swap(&Spec::build(2).finishing(60).ill(Ill::TrapsFrom(52))).unwrap();
        world.prove();
        let mut reference = World::ready(&Spec::build(1).finishing(60).ill(ill), settings);
        reference.prove();
        assert_eq!(world.seen.outcome, reference.seen.outcome, "{ill:?}");
        assert_eq!(world.seen.frames, reference.seen.frames, "{ill:?}");
        assert_eq!(world.seen.retried, reference.seen.retried, "{ill:?}");
    }
}

#[test]
fn actions_and_leaves_in_the_frame_of_a_rollback_count_once() {
    let settings = Supervision { probation_frames: 60, ..settings() };
    let play = |swap: bool| {
        let mut world = World::ready(&Spec::build(1).finishing(60), settings);
        world.run_to(24);
        if swap {
            world.swap(&Spec::build(2).finishing(60).flavoured(1).ill(Ill::TrapsFrom(52))).unwrap();
        }
        world.run_to(40);
        world.arrive(Arrival::Action { player: 1, id: 1, json: "[1]" });
        world.run_to(51);
        world.arrive(Arrival::Action { player: 0, id: 1, json: "{}" });
        world.arrive(Arrival::Action { player: 1, id: 2, json: "{}" });
        world.run_to(60);
        let outputs = world.prove();
        (world, outputs)
    };
    let ((with, outputs), (without, expected)) = (play(true), play(false));
    assert_eq!(outputs, expected);
    assert_eq!(with.seen.results, without.seen.results);
    assert_eq!(with.seen.rollbacks.len(), 1);
    let leave = |swap: bool| {
        let mut world = World::ready(&Spec::build(1).finishing(60), settings);
        world.run_to(24);
        if swap {
            world.swap(&Spec::build(2).finishing(60).flavoured(1).ill(Ill::TrapsFrom(52))).unwrap();
        }
        world.run_to(51);
        world.arrive(Arrival::Quit { player: 0 });
        world.arrive(Arrival::Quit { player: 1 });
        let outputs = world.prove();
        (world, outputs)
    };
    let ((with, outputs), (without, expected)) = (leave(true), leave(false));
    assert_eq!((with.seen.outcome, outputs), (without.seen.outcome, expected));
    assert_eq!((with.seen.rollbacks.len(), with.seen.frames.len()), (1, 53));
}

#[test]
fn the_room_may_end_on_probation() {
    let mut world = before(25, &Spec::build(1).finishing(60));
    world.swap(&Spec::build(2).finishing(30).flavoured(4)).unwrap();
    world.prove();
    assert_eq!(world.seen.outcome.as_ref().map(|(frames, _)| *frames), Some(31));
    assert_eq!((world.seen.kept.len(), world.seen.rollbacks.len()), (0, 0));
    let refusal = world.swap(&Spec::build(3)).unwrap_err();
    assert_eq!(refusal.kind, SwapRefusalKind::RoomOver);

    let mut world = before(25, &Spec::build(1));
    world.swap(&Spec::build(2)).unwrap();
    world.run_to(30);
    world.arrive(Arrival::Abort { reason: AbortReason::Requested });
    world.prove();
    assert_eq!(world.seen.outcome, Some((31, "requested".into())));
}

#[test]
fn without_probation_new_rules_are_on_their_own() {
    let settings = Supervision { probation_frames: 0, ..settings() };
    let mut world = World::ready(&Spec::build(1), settings);
    world.run_to(24);
    world.swap(&Spec::build(2).ill(Ill::TrapsFrom(52))).unwrap();
    assert_eq!(world.rules.probation(), None);
    world.prove();
    assert_eq!(world.seen.outcome, Some((53, "rules_fault".into())));
    assert_eq!(world.seen.rollbacks, []);
}

#[test]
fn a_trial_names_what_is_wrong() {
    use SwapRefusalKind as Kind;
    // Build 1 took its last checkpoint before frame 20 and is before frame 25: the trial runs 20 to 49.
    let cases = [
        (Ill::TrapsFrom(0), Kind::Fault(FaultKind::Trap), Some(20)),
        (Ill::TrapsFrom(24), Kind::Fault(FaultKind::Trap), Some(24)),
        (Ill::TrapsFrom(49), Kind::Fault(FaultKind::Trap), Some(49)),
        (Ill::OverrunsFrom(22), Kind::Overrun, Some(22)),
        (Ill::BadOutputFrom(30), Kind::Fault(FaultKind::BadOutput), Some(30)),
        (Ill::RefusesSetup, Kind::SetupRefused, None),
        (Ill::TrapsAtBegin, Kind::Fault(FaultKind::Trap), None),
        (Ill::NoInstance, Kind::NoInstance, None),
        (Ill::RefusesOthers, Kind::StateRefused, None),
        (Ill::RefusesOwn, Kind::StateRefused, None),
        (Ill::SaveTrapsFrom(24), Kind::Fault(FaultKind::Trap), None),
        (Ill::GrowsFrom(24), Kind::Fault(FaultKind::BadOutput), None),
        (Ill::Forgets, Kind::StateDiffers, None),
        (Ill::RemembersFrames(10), Kind::StateDiffers, Some(30)),
    ];
    let mut world = before(25, &Spec::build(1).finishing(60));
    for (build, (ill, kind, frame)) in (2..).zip(cases) {
        let refusal = world.swap(&Spec::build(build).ill(ill)).unwrap_err();
        assert_eq!((refusal.kind, refusal.frame), (kind, frame), "{ill:?}: {refusal}");
        assert!(!refusal.message.is_empty() && refusal.to_string().starts_with(kind.as_str()), "{refusal}");
        assert_eq!(
            refusal.backtrace.is_some(),
            matches!(ill, Ill::TrapsFrom(_) | Ill::OverrunsFrom(_) | Ill::SaveTrapsFrom(_)),
            "{ill:?}"
        );
    }
    // The room never noticed.
    assert_eq!(world.room.counters().swaps, 0);
    assert_same_race(&mut world, &undisturbed(&Spec::build(1).finishing(60)));
    // Rules that finish within the trial are done; so are those that are tried where nothing has run yet.
    for frame in [0, 20, 25] {
        before(frame, &Spec::build(1).finishing(60)).swap(&Spec::build(2).finishing(frame + 10)).expect("it is well");
        let refusal = before(frame, &Spec::build(1)).swap(&Spec::build(2).ill(Ill::TrapsFrom(frame))).unwrap_err();
        assert_eq!((refusal.kind, refusal.frame), (Kind::Fault(FaultKind::Trap), Some(frame)));
    }
}

#[test]
fn what_a_running_room_cannot_change_must_be_the_same() {
    type Change = fn(&mut Manifest);
    let setup = setup(2);
    let refusal = |change: Change| {
        let mut world = before(25, &Spec::build(1).finishing(60));
        let program = Spec::build(2).program_with(&setup, change);
        let refusal = world.rules.trial().run(program).map(|candidate| world.commit(candidate));
        match refusal {
            Ok(Ok(_)) => None,
            Ok(Err(refusal)) | Err(refusal) => {
                assert_eq!(refusal.kind, SwapRefusalKind::Incompatible, "{refusal}");
                Some(refusal.message)
            }
        }
    };
    let changes: [(Change, &str); 7] = [
        (|m| m.name = "other".into(), "`other`"),
        (|m| m.tick_hz = 60, "`tick_hz` is 50 in the room and 60"),
        (|m| m.input_bytes_max = 5, "`input_bytes_max`"),
        (|m| m.input_track_frames = 9, "`input_track_frames`"),
        (|m| m.players_min = 3, "2 player slots, the module takes 3 to 8"),
        (|m| m.players_max = 1, "the module takes 1 to 1"),
        (|m| m.frames_max = 45, "`frames_max` of the module is 45, and the room is before frame 25"),
    ];
    for (change, text) in changes {
        let message = refusal(change).expect(text);
        assert!(message.contains(text), "{message:?} does not say {text:?}");
    }
    assert_eq!(refusal(|m| m.frames_max = 46), None);
    assert_eq!(refusal(|m| m.version = "another".into()), None);
}

#[test]
fn frames_max_of_the_new_rules_counts_and_comes_back_with_the_old_ones() {
    let mut world = before(25, &Spec::build(1));
    let program = Spec::build(2).program_with(&setup(2), |m| m.frames_max = 80);
    let candidate = world.rules.trial().run(program).unwrap();
    world.commit(candidate).unwrap();
    world.close();
    assert_eq!(world.seen.outcome, Some((80, "too_long".into())));
    let world = before(25, &Spec::build(1).finishing(100));
    let program = Spec::build(2).ill(Ill::SaveTrapsFrom(40)).program_with(&setup(2), |m| m.frames_max = 80);
    let refusal = world.rules.trial().run(program).unwrap_err();
    assert_eq!(refusal.kind, SwapRefusalKind::Fault(FaultKind::Trap));
    let settings = Supervision { probation_frames: 30, ..settings() };
    let mut world = World::ready(&Spec::build(1).finishing(100), settings);
    world.run_to(24);
    let program = Spec::build(2).ill(Ill::TrapsFrom(51)).program_with(&setup(2), |m| m.frames_max = 80);
    let candidate = world.rules.trial().run(program).unwrap();
    world.commit(candidate).unwrap();
    world.close();
    assert_eq!(world.seen.outcome.as_ref().map(|(frames, _)| *frames), Some(101));
}

#[test]
fn a_swap_in_the_lobby_brings_its_countdown_a_later_one_does_not() {
    let manifest = |m: &mut Manifest| (m.cutscene_ms, m.countdown_steps, m.countdown_step_ms) = (100, 3, 50);
    let start_us = |in_lobby: bool| {
        let mut world = World::open(&Spec::build(1).finishing(5), setup(1), settings(), Limits::default());
        world.arrive(Arrival::Connected { player: 0 });
        if !in_lobby {
            world.arrive(Arrival::Ready { player: 0 });
        }
        world.step(0);
        let program = Spec::build(2).finishing(5).program_with(&setup(1), manifest);
        let candidate = world.rules.trial().run(program).unwrap();
        world.commit(candidate).unwrap();
        if in_lobby {
            world.arrive(Arrival::Ready { player: 0 });
            world.step(1);
        }
        world.close();
        (world.room.tick_due_us(0).unwrap(), world.seen.public_names().join(" "))
    };
    let (at_us, names) = start_us(true);
    assert!((250_000..260_000).contains(&at_us), "{at_us}");
    assert!(names.contains("rules_swapped player_ready cutscene countdown countdown countdown started"), "{names}");
    let (at_us, names) = start_us(false);
    assert_eq!(at_us, 0);
    assert!(!names.contains("countdown"), "{names}");
}

#[test]
fn a_swap_in_the_lobby_does_not_end_a_room_that_some_have_left() {
    let mut world = World::open(&Spec::build(1).finishing(5), setup(3), settings(), Limits::default());
    for player in 0..3 {
        world.arrive(Arrival::Connected { player });
    }
    world.arrive(Arrival::Quit { player: 2 });
    world.step(0);
    for (players_min, taken) in [(3, false), (2, true)] {
        let program =
            Spec::build(2).finishing(5).program_with(&setup(3), |manifest| manifest.players_min = players_min);
        let candidate = world.rules.trial().run(program).unwrap();
        let swapped = world.commit(candidate);
        assert_eq!(swapped.is_ok(), taken, "{players_min} players: {swapped:?}");
        if let Err(refusal) = swapped {
            assert_eq!(refusal.kind, SwapRefusalKind::Incompatible, "{refusal}");
            assert!(refusal.message.contains("2 players are left"), "{refusal}");
        }
    }
    world.step(1);
    assert_eq!(world.room.phase(), Phase::Readying);
}

#[test]
fn old_rules_that_cannot_save_for_a_swap_go_back_and_on() {
    // The machine of these rules fails when they save for the swap: `SaveTrapsFrom` always does, so the room ends at the next checkpoint.
    let mut world = before(5, &Spec::build(1).ill(Ill::SaveTrapsFrom(3)));
    let candidate = world.try_candidate(&Spec::build(2)).expect("the checkpoint before frame 0 is fine");
    let refusal = world.commit(candidate).unwrap_err();
    assert!(refusal.message.contains("the rules of the room, not the new ones"), "{refusal}");
    world.run_to(8);
    assert_eq!((world.seen.retried.as_slice(), world.build().as_str()), (&[5][..], "1"));
    assert_eq!(world.room.counters().swaps, 0);
    world.close();
}
