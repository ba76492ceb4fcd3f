//! Journals: what a reader makes of bytes that were cut off, damaged or made up, and what a replay finds. That journals of rooms replay to
//! the same bytes is tested wherever a `World` is proved.

use std::sync::OnceLock;

use holeshot_abi::{STATE_BYTES_MAX, TickReader};
use holeshot_room::journal::{
    BLOCK_BYTES_MAX, BLOCK_FRAMES_MAX, Difference, Entry, Journal, JournalError, JournalHeader, JournalOutcome,
    JournalWriter, MAGIC, MESSAGE_BYTES_MAX, Recorded, ReplayError, Replayer, STATE_BYTES_SMALL, STATE_EVERY_FRAMES,
};
use holeshot_room::{Arrival, Departure, Fault, FaultKind, Supervision};
use proptest::prelude::*;

use crate::faulty::{Ill, Spec, World, manifest, setup};

fn settings() -> Supervision {
    Supervision { checkpoint_frames: 10, probation_frames: 30, overruns_max: 3, replay_fuel_max: 1_000_000 }
}

/// A race in which everything happens that a journal can hold.
fn eventful() -> World {
    let spec = Spec::build(1).finishing(100).ill(Ill::Overruns(17)).ill(Ill::MachineTraps(21));
    let mut world = World::ready(&spec, settings());
    for frame in 0..100u32 {
        if frame % 3 != 0 {
            let bytes = (frame / 7).to_le_bytes();
            world.arrive(Arrival::Input { player: 1, frame, bytes: &bytes[..frame as usize % 5] });
        }
        if frame % 13 == 4 {
            world.arrive(Arrival::Action { player: 0, id: frame.into(), json: "{\"a\": 1}" });
        }
        match frame {
            26 => drop(world.swap(&Spec::build(2).finishing(100).flavoured(1).ill(Ill::TrapsFrom(55))).unwrap()),
            60 => drop(world.swap(&Spec { state_version: 2, ..Spec::build(3).finishing(100) }).unwrap()),
            80 => world.arrive(Arrival::Quit { player: 1 }),
            _ => {}
        }
        if frame == 40 {
            // The host sleeps: ticks are lost.
            let due_us = world.room.next_due_us().unwrap();
            world.step(due_us + 300_000);
        }
        world.run_to(frame);
    }
    world
}

/// The journal of [`eventful`], which takes a moment.
fn bytes() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut world = eventful();
        world.close();
        world.bytes
    })
}

/// Where blocks begin: after the magic, and after each whole block.
fn boundaries(bytes: &[u8]) -> Vec<usize> {
    let mut at = MAGIC.len();
    let mut boundaries = vec![at];
    while at < bytes.len() {
        at += 8 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        boundaries.push(at);
    }
    assert_eq!(at, bytes.len());
    boundaries
}

/// All entries, in words.
fn words(journal: &Journal) -> Vec<String> {
    let mut entries = journal.entries();
    let mut words = Vec::new();
    while let Some(entry) = entries.next() {
        words.push(format!("{entry:?}"));
    }
    words
}

#[test]
fn everything_that_happened_is_in_it() {
    let mut world = eventful();
    world.prove();
    let journal = Journal::read(&world.bytes).unwrap();
    assert_eq!(journal.header().room, "w");
    assert_eq!((journal.setup(), journal.manifest().name.as_str()), (&setup(2), "faulty"));
    assert_eq!(journal.frames(), 101);
    let swaps: Vec<_> =
        journal.swaps().iter().map(|swap| (swap.next_frame, swap.version.as_str(), swap.rolled_back)).collect();
    assert_eq!(swaps, [(26, "2", true), (60, "3", false)]);
    let [rollback] = journal.rollbacks() else { panic!("one rollback") };
    assert_eq!((rollback.since_frame, rollback.frame, rollback.fault), (26, 55, FaultKind::Trap));
    assert_eq!(rollback.message, "a trap of build 2");
    assert!(
        matches!(journal.outcome(), Some(JournalOutcome::Finished { frames: 101, results }) if results.contains("won"))
    );
    let words = words(&journal).join("\n");
    for kind in ["Stepped(", "Skipped(FuelExhausted)", "Retried", "TicksLost", "Kept", "state: Some", "End"] {
        assert!(words.contains(kind), "no {kind} in it");
    }
    // The rooms' records themselves.
    let mut entries = journal.entries();
    let (mut actions, mut leaves) = (0, 0);
    while let Some(entry) = entries.next() {
        if let Entry::Frame { record, ran: Recorded::Stepped(_), .. } = entry {
            let record = TickReader::read(record).unwrap();
            actions += record.actions().count();
            leaves += record.changes().filter(|change| change.kind != holeshot_abi::ChangeKind::Joined).count();
        }
    }
    assert_eq!((actions, leaves), (8, 1));
}

#[test]
fn a_journal_cut_at_any_byte_reads_up_to_its_last_whole_block() {
    let bytes = bytes();
    let boundaries = boundaries(bytes);
    assert!(boundaries.len() > 15, "there are blocks: {boundaries:?}");
    let whole = words(&Journal::read(bytes).unwrap());
    let mut per_block = Vec::new();
    for cut in 0..bytes.len() {
        match Journal::read(&bytes[..cut]) {
            Err(JournalError::NotAJournal) => assert!(cut < MAGIC.len()),
            Err(JournalError::NoHeader { offset }) => {
                assert_eq!(offset, MAGIC.len());
                assert!(cut < boundaries[1]);
            }
            Err(other) => panic!("cut at {cut}: {other}"),
            Ok(journal) => {
                let last = *boundaries.iter().rev().find(|at| **at <= cut).unwrap();
                assert_eq!(journal.truncated_at(), (last < cut).then_some(last), "cut at {cut}");
                assert!(!journal.is_whole());
                let found = words(&journal);
                assert!(whole.starts_with(&found), "cut at {cut}");
                if last == cut {
                    per_block.push(found.len());
                }
            }
        }
    }
    assert_eq!(per_block.len(), boundaries.len() - 2, "every block is one more to read");
    assert!(per_block.is_sorted_by(|a, b| a < b));
}

#[test]
fn zeros_after_the_last_whole_block_are_not_blocks() {
    let bytes = bytes();
    let boundaries = boundaries(bytes);
    let cut = boundaries[boundaries.len() / 2];
    for zeros in [1, 7, 8, 16, 4_096] {
        let mut cut_off = bytes[..cut].to_vec();
        cut_off.resize(cut + zeros, 0);
        let journal = Journal::read(&cut_off).unwrap();
        assert_eq!((journal.truncated_at(), journal.is_whole()), (Some(cut), false), "{zeros} zeros");
        let mut whole = bytes.to_vec();
        whole.resize(bytes.len() + zeros, 0);
        let journal = Journal::read(&whole).unwrap();
        assert_eq!((journal.truncated_at(), journal.is_whole()), (Some(bytes.len()), true), "{zeros} zeros");
    }
    let mut none = MAGIC.to_vec();
    none.resize(MAGIC.len() + 64, 0);
    assert_eq!(Journal::read(&none).unwrap_err(), JournalError::NoHeader { offset: MAGIC.len() });
}

#[test]
fn a_journal_that_was_cut_off_can_be_replayed_as_far_as_it_goes() {
    let mut world = eventful();
    world.close();
    let mut most = 0;
    for cut in boundaries(&world.bytes).into_iter().skip(1) {
        let journal = Journal::read(&world.bytes[..cut]).unwrap();
        let outputs = world.replay(&journal);
        assert_eq!(outputs.len(), journal.frames() as usize, "cut at {cut}");
        most = most.max(outputs.len());
    }
    assert_eq!(most, 101);
}

#[test]
fn a_frame_in_which_all_is_as_expected_costs_five_bytes() {
    let size = |frames: u32, change_every: u32| {
        let settings = Supervision { checkpoint_frames: 1_000, ..settings() };
        let mut world = World::ready(&Spec::build(1), settings);
        for frame in 0..frames {
            for player in 0..2 {
                let bytes = (frame / change_every).to_le_bytes();
                world.arrive(Arrival::Input { player, frame, bytes: &bytes });
            }
            world.run_to(frame);
        }
        world.bytes.len()
    };
    // A block of 50 frames has a header of 8 bytes.
    assert_eq!(size(500, 1_000) - size(250, 1_000), 250 * 5 + 5 * 8);
    // With both inputs new in every frame: the bits, and for each a length and 4 bytes.
    assert_eq!(size(500, 1) - size(250, 1), 250 * (5 + 1 + 2 * 5) + 5 * 8);
}

#[test]
fn the_first_frame_that_differs_is_named() {
    let mut world = World::ready(&Spec::build(1).finishing(60), settings());
    world.run_to(24);
    world.close();
    let journal = Journal::read(&world.bytes).unwrap();
    let difference = |spec: Spec| {
        // Another module behind the name of the one that ran.
        let program = Spec { build: 1, ..spec }.program(&setup(2));
        let mut replayer = Replayer::new(&journal, &mut |_| Some(program.clone())).unwrap();
        let result = loop {
            match replayer.step() {
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        (result, replayer.difference().cloned())
    };
    assert_eq!(difference(Spec::build(1).finishing(60)), (Ok(()), None));
    let (result, found) = difference(Spec::build(1).finishing(60).flavoured(1));
    assert_eq!((result, found), (Ok(()), Some(Difference::Output { frame: 0 })));
    let (_, found) = difference(Spec::build(1).finishing(70));
    assert_eq!(found, Some(Difference::Output { frame: 60 }));
    let (_, found) = difference(Spec::build(1).finishing(50));
    assert_eq!(found, Some(Difference::Output { frame: 50 }));
    let (_, found) = difference(Spec { state_version: 2, ..Spec::build(1).finishing(60) });
    let Some(Difference::State { next_frame: 10, recorded: Some((1, recorded)), found }) = found else {
        panic!("{found:?}")
    };
    assert_eq!((recorded.len(), found.len()), (22, 26));
    assert!(matches!(
        difference(Spec::build(1).finishing(60).ill(Ill::TrapsFrom(33))),
        (Err(ReplayError::Fault { frame: 33, fault }), None) if fault.kind == FaultKind::Trap
    ));
    let program = Spec::build(1).ill(Ill::RefusesSetup).program(&setup(2));
    assert!(matches!(Replayer::new(&journal, &mut |_| Some(program.clone())), Err(ReplayError::Begin(_))));
}

#[test]
fn a_replay_takes_fresh_instances_where_the_room_did() {
    let spec = Spec::build(1).finishing(100).ill(Ill::Wobbles);
    // A frame that is skipped, and a fault that does not come again.
    let mut world = World::ready(&spec.clone().ill(Ill::Overruns(17)).ill(Ill::MachineTraps(34)), settings());
    world.run_to(100);
    assert_eq!((world.seen.retried.as_slice(), world.seen.frames[17]), (&[34][..], "skipped"));
    world.prove();
    // Memory that runs out again and again.
    let mut world = World::ready(&spec.clone().ill(Ill::Leaks(33)), settings());
    world.run_to(100);
    assert_eq!(world.seen.retried, [33, 63, 87]);
    world.prove();
    // The rules before a swap that is undone.
    let mut world = World::ready(&spec, settings());
    world.run_to(25);
    world.swap(&Spec::build(2).finishing(100).ill(Ill::TrapsFrom(54))).unwrap();
    world.run_to(100);
    assert_eq!((world.seen.rollbacks[0].0, world.seen.rollbacks[0].1), (26, 54));
    world.prove();
}

#[test]
fn a_fault_that_was_recorded_must_come_again() {
    let mut world = World::ready(&Spec::build(1).ill(Ill::TrapsFrom(33)), settings());
    world.close();
    let journal = Journal::read(&world.bytes).unwrap();
    let program = Spec::build(1).program(&setup(2));
    let mut replayer = Replayer::new(&journal, &mut |_| Some(program.clone())).unwrap();
    while replayer.step().unwrap().is_some() {}
    assert_eq!(replayer.difference(), Some(&Difference::NoFault { frame: 33 }));
    assert!(matches!(Replayer::new(&journal, &mut |_| None), Err(ReplayError::NoModule { .. })));
}

#[test]
fn other_rules_can_be_run_on_the_same_inputs() {
    let mut world = eventful();
    world.close();
    let journal = Journal::read(&world.bytes).unwrap();
    let frames = |spec: &Spec| {
        let mut replayer = Replayer::under(&journal, spec.program(&setup(2))).unwrap();
        let mut frames = 0;
        while replayer.step().unwrap().is_some() {
            frames += 1;
        }
        assert_eq!(replayer.difference(), None);
        (frames, replayer.save().unwrap().0)
    };
    assert_eq!(frames(&Spec::build(8).finishing(50)), (51, 1));
    let later = Spec { state_version: 2, ..Spec::build(8).finishing(5_000) };
    assert_eq!(frames(&later), (101, 2), "the inputs end before");
    let mut replayer = Replayer::under(&journal, Spec::build(8).ill(Ill::TrapsFrom(3)).program(&setup(2))).unwrap();
    let error = loop {
        if let Err(error) = replayer.step() {
            break error;
        }
    };
    assert!(matches!(error, ReplayError::Fault { frame: 3, .. }));
    assert!(replayer.step().unwrap().is_none(), "there is no next frame");
}

fn header() -> JournalHeader {
    let mut record = Vec::new();
    setup(2).write(&mut record).unwrap();
    JournalHeader {
        room: "r".into(),
        opened_unix_ms: u64::MAX,
        setup: record,
        manifest: serde_json::to_string(&manifest()).unwrap(),
        module: [1; 32],
    }
}

#[test]
fn large_states_are_kept_now_and_then() {
    let mut writer = JournalWriter::begin(&header());
    let mut kept = |next_frame: u32, len: usize| {
        let before = writer.ready_bytes();
        writer.note(&Departure::Checkpoint { next_frame, state_version: 1, state: &vec![3; len] });
        writer.ready_bytes() - before >= len
    };
    assert!(kept(0, STATE_BYTES_SMALL + 1), "the first one");
    assert!(!kept(50, STATE_BYTES_SMALL + 1));
    assert!(!kept(STATE_EVERY_FRAMES - 1, STATE_BYTES_MAX));
    assert!(kept(STATE_EVERY_FRAMES, STATE_BYTES_MAX));
    assert!(kept(STATE_EVERY_FRAMES + 1, STATE_BYTES_SMALL));
    let fault = Fault::new(FaultKind::Trap, "ä".repeat(MESSAGE_BYTES_MAX));
    writer.note(&Departure::RulesFault { frame: 7, fault: &fault });
    writer.finish();
    writer.finish();
    writer.note(&Departure::RulesKept { next_frame: 1 });
    let journal = Journal::read(&writer.take()).unwrap();
    assert!(journal.is_whole() && writer.take().is_empty());
    let words = words(&journal);
    assert_eq!(words.len(), 7);
    assert!(words[5].contains("ä") && words[5].len() < MESSAGE_BYTES_MAX + 100);
}

#[test]
fn a_header_that_cannot_be_used_is_refused() {
    let refusal = |header: &JournalHeader| Journal::read(&JournalWriter::begin(header).take()).unwrap_err().to_string();
    let header = header();
    assert!(Journal::read(&JournalWriter::begin(&header).take()).is_ok());
    assert!(refusal(&JournalHeader { setup: vec![1, 2], ..header.clone() }).contains("`setup` is none: setup record"));
    assert!(
        refusal(&JournalHeader { manifest: "{}".into(), ..header.clone() }).contains("`manifest` is none: missing")
    );
    let mut wild = manifest();
    wild.input_bytes_max = u16::MAX;
    let wild = serde_json::to_string(&wild).unwrap();
    assert!(refusal(&JournalHeader { manifest: wild, ..header }).contains("`manifest` is out of range"));
    assert_eq!(Journal::read(b"").unwrap_err(), JournalError::NotAJournal);
    assert_eq!(Journal::read(b"SQLite format 3\0").unwrap_err(), JournalError::NotAJournal);
    let mut long = MAGIC.to_vec();
    long.extend((BLOCK_BYTES_MAX as u32 + 1).to_le_bytes());
    long.resize(long.len() + 4 + BLOCK_BYTES_MAX + 1, 0);
    assert_eq!(Journal::read(&long).unwrap_err(), JournalError::NoHeader { offset: 8 });
}

/// A journal of one block after the header, with this body.
fn with_block(body: &[u8]) -> Vec<u8> {
    let mut bytes = JournalWriter::begin(&header()).take();
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(crc32fast::hash(body).to_le_bytes());
    bytes.extend(body);
    bytes
}

#[test]
fn blocks_that_break_the_format_are_refused_by_name() {
    let cases: [(&[u8], &str); 9] = [
        (&[0x00], "`kind` is unknown"),
        (&[0x0b], "`kind` is unknown"),
        (&[0x01], "`kind` is unknown"),
        (&[0x18], "`kind` is unknown"),
        (&[0x0a, 0x0a], "`kind` follows the end"),
        (&[0x10, 1, 2, 3], "`crc` is cut off"),
        (&[0x11, 0b01, 244], "`inputs` has an unknown form"),
        (&[0x11, 0b10, 5, 1, 2, 3, 4, 5, 0, 0, 0, 0], "`inputs` has one that is longer than the stride"),
        (&[0x12, 0xff, 0xff, 0xff, 0xff, 0x0f], "`changes` is more than there are bytes"),
    ];
    for (body, text) in cases {
        let message = Journal::read(&with_block(body)).unwrap_err().to_string();
        assert!(message.contains(text), "{message:?} does not say {text:?}");
    }
    let mut rolled_back = vec![0x05];
    rolled_back.extend([0; 4 + 4 + 32 + 32]);
    rolled_back.extend([1, 0, 0, 0]);
    let message = Journal::read(&with_block(&rolled_back)).unwrap_err().to_string();
    assert!(message.contains("`since_frame` is not the frame of a swap"), "{message}");
    // Many frames in few bytes: they are read without being held.
    let mut frames = vec![0u8; 5 * 200_000];
    frames.chunks_exact_mut(5).for_each(|frame| frame[0] = 0x10);
    let journal = Journal::read(&with_block(&frames)).unwrap();
    assert_eq!(journal.frames(), 200_000);
}

#[test]
fn a_block_is_closed_after_so_many_frames() {
    let settings = Supervision { checkpoint_frames: 1_000, ..settings() };
    let mut world = World::ready(&Spec::build(1), settings);
    world.run_to(3 * BLOCK_FRAMES_MAX + 20);
    let journal = Journal::read(&world.bytes).unwrap();
    assert_eq!((journal.frames(), journal.truncated_at()), (3 * BLOCK_FRAMES_MAX, None));
}

/// Walks and replays whatever was read.
fn exercise(bytes: &[u8]) {
    let Ok(journal) = Journal::read(bytes) else { return };
    words(&journal);
    let program = Spec::build(1).program(journal.setup());
    if journal.setup().players.len() <= 8 && journal.frames() < 10_000 {
        // The rules of these tests trust their records to be a room's; so this one only follows the journal.
        let _ = Replayer::new(&journal, &mut |_| Some(program.clone()));
    }
}

proptest! {
    #[test]
    fn flips_are_found(at in 0usize..1 << 20, bit in 0u8..8) {
        let mut bytes = bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(journal) = Journal::read(&bytes) {
            // A CRC finds every flip of one bit: what is read is what comes before.
            let boundaries = boundaries(self::bytes());
            let block = *boundaries.iter().rev().find(|start| **start <= at).unwrap();
            prop_assert_eq!(journal.truncated_at(), Some(block));
            prop_assert!(words(&Journal::read(self::bytes()).unwrap()).starts_with(&words(&journal)));
        } else {
            prop_assert!(at < boundaries(self::bytes())[1]);
        }
    }

    #[test]
    fn flips_that_a_crc_hides_break_nothing(
        flips in proptest::collection::vec((0usize..1 << 20, any::<u8>()), 1..4),
    ) {
        let mut bytes = bytes().to_vec();
        let boundaries = boundaries(self::bytes());
        for (at, value) in flips {
            let block = at % (boundaries.len() - 1);
            let body = boundaries[block] + 8..boundaries[block + 1];
            let len = body.len();
            bytes[body.start + at % len] = value;
            let crc = crc32fast::hash(&bytes[body.clone()]);
            bytes[body.start - 4..body.start].copy_from_slice(&crc.to_le_bytes());
        }
        exercise(&bytes);
    }

    #[test]
    fn anything_in_a_block_is_read_or_refused(body in proptest::collection::vec(prop_oneof![any::<u8>(), 0u8..0x40], 0..200)) {
        exercise(&with_block(&body));
    }

    #[test]
    fn anything_at_all_is_read_or_refused(mut tail: Vec<u8>) {
        exercise(&tail);
        tail.splice(0..0, MAGIC);
        exercise(&tail);
    }
}
