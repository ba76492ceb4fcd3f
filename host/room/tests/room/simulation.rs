//! Rooms over which swaps, faults, overruns, losses, leaves, actions and stalls are drawn from a seed. Each room is replayed from its journal to
//! the same bytes; each in which no new rules are in effect at the end, or only another build of the same ones, is played once more without any
//! swap, and must be the same race.
//!
//! The seeds are printed; `HOLESHOT_SEED=n cargo test -p holeshot-room simulation` plays that one alone and says what it drew, `HOLESHOT_ROOMS=n` plays so many
//! rooms. Rules are native here: the simulation covers neither wasm nor the host's threads, nor faults of the journal's disk.

use std::collections::BTreeMap;

use holeshot_room::journal::Journal;
use holeshot_room::{Arrival, Candidate, Limits, Supervision, SwapRefusalKind};

use crate::faulty::{Ill, Spec, World, setup};
use crate::network::{Dice, seed_asked_for};

/// Rooms that are simulated, if nobody asks for another number.
const ROOMS: u64 = 10_000;
/// Frames after which every game is over.
const FRAMES_MAX: u32 = 150;

/// What a room is like, apart from swaps.
#[derive(Debug)]
struct Plan {
    seed: u64,
    players: usize,
    settings: Supervision,
    base: Spec,
    loss_percent: u64,
    action_percent: u64,
    leave_percent: u64,
    break_percent: u64,
    stall_percent: u64,
    swap_percent: u64,
    bad_percent: u64,
    /// The room's own rules have an ill that strikes at a checkpoint, and checkpoints are not at the same frames without swaps.
    ends_by_checkpoint: bool,
}

impl Plan {
    fn drawn(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x706c_616e);
        let frame = |dice: &mut Dice| dice.below(u64::from(FRAMES_MAX)) as u32;
        let mut base = Spec::build(0).finishing(30 + dice.below(110) as u32);
        base.finishes_when_empty = dice.percent(50);
        base.fuel_per_tick = 1_000;
        if dice.percent(30) {
            base = base.ill(Ill::MachineTraps(frame(&mut dice)));
        }
        for _ in 0..dice.below(4) {
            if dice.percent(40) {
                let from = frame(&mut dice);
                for at in from..from + 1 + dice.below(3) as u32 {
                    base = base.ill(Ill::Overruns(at));
                }
            }
        }
        match dice.below(20) {
            0 => base = base.ill(Ill::TrapsFrom(frame(&mut dice))),
            1 => base = base.ill(Ill::OverrunsFrom(frame(&mut dice))),
            2 => base = base.ill(Ill::BadOutputFrom(frame(&mut dice))),
            _ => {}
        }
        let ends_by_checkpoint = dice.percent(4);
        if ends_by_checkpoint {
            let from = frame(&mut dice);
            base = base.ill([Ill::SaveTrapsFrom(from), Ill::GrowsFrom(from), Ill::RefusesOwn][dice.below(3) as usize]);
            // A machine's fault that these rules cannot undo ends the room, and does not come again in a replay.
            base.ills.retain(|ill| !matches!(ill, Ill::MachineTraps(_)));
        }
        Self {
            seed,
            players: 1 + dice.below(4) as usize,
            settings: Supervision {
                checkpoint_frames: [0, 1, 7, 20, 50][dice.below(5) as usize],
                probation_frames: [0, 1, 10, 40, 60, 150, 150][dice.below(7) as usize],
                overruns_max: [0, 2, 5][dice.below(3) as usize],
                replay_fuel_max: [0, 5_500, 30_000, 1_000_000, 1_000_000, 1_000_000][dice.below(6) as usize],
            },
            base,
            loss_percent: [0, 5, 50, 100][dice.below(4) as usize],
            action_percent: [0, 5, 50][dice.below(3) as usize],
            leave_percent: [0, 0, 0, 1][dice.below(4) as usize],
            break_percent: [0, 0, 3][dice.below(3) as usize],
            stall_percent: [0, 2, 10][dice.below(3) as usize],
            swap_percent: [2, 5, 20][dice.below(3) as usize],
            bad_percent: [20, 50, 90][dice.below(3) as usize],
            ends_by_checkpoint,
        }
    }

    /// A module that somebody saves in the middle of the race. True if it plays the same game without an ill of its own.
    fn candidate(&self, dice: &mut Dice, build: u64, state_version: u32, next_frame: u32) -> (Spec, bool) {
        let mut spec = Spec { build, ..self.base.clone() };
        // The ills of the room's own rules are in the game; those of its machine are not in the module.
        spec.ills.retain(|ill| !matches!(ill, Ill::MachineTraps(_)));
        spec.state_version = if dice.percent(10) { 1 + dice.below(2) as u32 } else { state_version };
        if !dice.percent(self.bad_percent) {
            return (spec, true);
        }
        if dice.percent(70) {
            spec.flavour = 1 + dice.below(9);
        }
        match dice.below(10) {
            0 | 1 => spec.finish_at = dice.below(u64::from(FRAMES_MAX)) as u32,
            2..=6 => spec.finish_at = 2 * FRAMES_MAX,
            _ => {}
        }
        // Mostly after what a trial looks at.
        let soon = next_frame + if dice.percent(70) { 25 + dice.below(50) } else { dice.below(40) } as u32;
        let ill = match dice.below(16) {
            0..=2 => Ill::TrapsFrom(soon),
            3 => Ill::MachineTraps(soon),
            4 => Ill::Overruns(soon),
            5 | 6 => Ill::OverrunsFrom(soon),
            7 | 8 => Ill::BadOutputFrom(soon),
            9 => Ill::SaveTrapsFrom(soon),
            10 => Ill::GrowsFrom(soon),
            11 => Ill::RefusesOwn,
            12 => Ill::RefusesOthers,
            13 => Ill::Forgets,
            14 => [Ill::RefusesSetup, Ill::TrapsAtBegin, Ill::NoInstance][dice.below(3) as usize],
            // Only another game.
            _ => return (spec, false),
        };
        (spec.ill(ill), false)
    }
}

/// What came of a room.
struct Played {
    world: World,
    outputs: Vec<Option<Vec<u8>>>,
    /// Every module that took over, and whether it is as good as the room's own.
    swapped: BTreeMap<String, bool>,
    refused: BTreeMap<&'static str, u64>,
}

/// Plays a room to its closing. Arrivals, times and inputs are drawn apart from swaps, so that they are the same with and without.
fn play(plan: &Plan, swaps: bool) -> Played {
    let mut dice = Dice::new(plan.seed ^ 0x706c_6179);
    let mut swap_dice = Dice::new(plan.seed ^ 0x7377_6170);
    let limits = Limits { reconnect_grace_us: 200_000, linger_us: 1_000, ..Limits::default() };
    let mut world = World::open(&plan.base, setup(plan.players), plan.settings, limits);
    let mut played = (BTreeMap::new(), BTreeMap::new());
    let mut candidate: Option<(Candidate, bool)> = None;
    let mut builds = 0;
    let mut now_us = 0u64;
    let players = 0..plan.players as u16;
    let mut next_id = 1;
    for player in players.clone() {
        let _ = world.room.handle(now_us, Arrival::Connected { player });
    }
    world.step(now_us);
    // Turns: more than any game here has frames.
    for turn in 0..2 * FRAMES_MAX {
        let next_frame = world.room.frame().map_or(0, |frame| frame + 1);
        let is_over = world.room.phase().is_over();
        for player in players.clone() {
            if turn == 3 {
                let _ = world.room.handle(now_us, Arrival::Ready { player });
            }
            if dice.percent(100 - plan.loss_percent) {
                let bytes = (u64::from(turn / 5) + dice.below(2)).to_le_bytes();
                let frame = next_frame + dice.below(2) as u32;
                let _ = world.room.handle(now_us, Arrival::Input { player, frame, bytes: &bytes[..3] });
            }
            if dice.percent(plan.action_percent) {
                let json = next_id.to_string();
                let _ = world.room.handle(now_us, Arrival::Action { player, id: next_id, json: &json });
                next_id += 1;
            }
            if turn > 3 && dice.percent(plan.leave_percent) {
                let _ = world.room.handle(now_us, Arrival::Quit { player });
            }
            if dice.percent(plan.break_percent) {
                let _ = world.room.handle(now_us, Arrival::Disconnected { player });
            }
            if dice.percent(plan.break_percent * 5) {
                let _ = world.room.handle(now_us, Arrival::Connected { player });
            }
        }
        if swaps && swap_dice.percent(plan.swap_percent) && candidate.is_none() && !(is_over && builds > 0) {
            builds += 1;
            let state_version = world.rules.program().manifest().state_version;
            let (spec, is_same) = plan.candidate(&mut swap_dice, builds, state_version, next_frame);
            match world.try_candidate(&spec) {
                Ok(passed) => candidate = Some((passed, is_same)),
                Err(refusal) => *played.1.entry(refusal.kind.as_str()).or_insert(0u64) += 1,
            }
        }
        // A trial takes its time; the room does not wait.
        if let Some((passed, is_same)) = candidate.take_if(|_| swap_dice.percent(50)) {
            let version = passed.program().manifest().version.clone();
            match world.commit(passed) {
                Ok(_) => drop(played.0.insert(version, is_same)),
                Err(refusal) => {
                    assert_ne!(refusal.kind, SwapRefusalKind::Incompatible);
                    *played.1.entry(refusal.kind.as_str()).or_insert(0) += 1;
                }
            }
        }
        now_us += if dice.percent(plan.stall_percent) { dice.below(300_000) } else { 10_000 + dice.below(20_000) };
        world.step(now_us);
    }
    let mut world = world;
    let outputs = world.prove();
    Played { world, outputs, swapped: played.0, refused: played.1 }
}

/// What all rooms came to.
#[derive(Debug, Default)]
struct Tally {
    rooms: u64,
    frames: u64,
    journal_bytes: u64,
    swaps: u64,
    rollbacks: u64,
    retries: u64,
    skipped: u64,
    void: u64,
    kept: u64,
    finished_by_rerun: u64,
    compared: u64,
    compared_with_rollback: u64,
    compared_with_swap: u64,
    refused: BTreeMap<&'static str, u64>,
    outcomes: BTreeMap<String, u64>,
}

fn simulate(seed: u64, tally: &mut Tally) {
    let plan = Plan::drawn(seed);
    let mut played = play(&plan, true);
    check_snapshots(&played);
    let journal = Journal::read(&played.world.bytes).expect("a journal");
    let in_effect = journal.swaps().iter().filter(|swap| !swap.rolled_back);
    let is_same_game = in_effect.clone().all(|swap| played.swapped.get(&swap.version) == Some(&true));
    let seen = &played.world.seen;
    assert_eq!(journal.swaps().len() as u64, played.world.room.counters().swaps);
    assert_eq!(journal.rollbacks().len() as u64, played.world.room.counters().rollbacks);

    tally.rooms += 1;
    tally.frames += seen.frames.len() as u64;
    tally.journal_bytes += played.world.bytes.len() as u64;
    tally.swaps += journal.swaps().len() as u64;
    tally.rollbacks += journal.rollbacks().len() as u64;
    tally.retries += seen.retried.len() as u64;
    tally.skipped += played.world.room.counters().ticks_skipped;
    tally.kept += seen.kept.len() as u64;
    tally.void += seen.rollbacks.iter().map(|rollback| rollback.2.len() as u64).sum::<u64>();
    let (frames, outcome) = seen.outcome.clone().expect("every match ends");
    tally.finished_by_rerun += u64::from(u64::from(frames) < played.world.room.counters().ticks);
    let outcome = if outcome.starts_with('[') { "finished".into() } else { outcome };
    *tally.outcomes.entry(outcome).or_default() += 1;
    for (kind, count) in std::mem::take(&mut played.refused) {
        *tally.refused.entry(kind).or_default() += count;
    }

    if is_same_game && !plan.ends_by_checkpoint && !journal.swaps().is_empty() {
        let reference = play(&plan, false);
        compare(&plan, &played, &reference);
        tally.compared += 1;
        tally.compared_with_rollback += u64::from(!journal.rollbacks().is_empty());
        tally.compared_with_swap += u64::from(in_effect.count() > 0);
    }
}

/// No player ever misses a snapshot while it is there, whatever becomes of the rules.
fn check_snapshots(played: &Played) {
    let seen = &played.world.seen;
    let mut last: BTreeMap<u16, u32> = BTreeMap::new();
    for (frame, player, _) in &seen.snapshots {
        let before = last.insert(*player, *frame);
        assert!(before.is_none_or(|before| before < *frame), "one snapshot per frame, in order");
    }
}

/// A race in which all swaps came to nothing, or to the same rules, is the race without them.
fn compare(plan: &Plan, played: &Played, reference: &Played) {
    let (with, without) = (&played.world.seen, &reference.world.seen);
    assert_eq!(with.outcome, without.outcome, "{plan:?}");
    assert_eq!(played.outputs, reference.outputs, "{plan:?}");
    let frames = without.frames.len();
    assert_eq!(with.frames.get(..frames), Some(without.frames.as_slice()), "{plan:?}");
    assert_eq!(with.valid_public(), without.valid_public(), "{plan:?}");
    assert_eq!(with.valid_internal(), without.valid_internal(), "{plan:?}");
    if played.world.room.counters().ticks == reference.world.room.counters().ticks {
        // Not where the game turned out to have ended earlier: until then the room took actions.
        assert_eq!(with.results, without.results, "{plan:?}");
    }
    // Snapshots: the same players at the same frames; the same bytes outside of what was undone.
    let mut others = with.snapshots.iter();
    for (frame, player, bytes) in &without.snapshots {
        let other = others.next().expect("as many snapshots");
        assert_eq!((other.0, other.1), (*frame, *player), "{plan:?}");
        let is_undone = with.rollbacks.iter().any(|(since, failed, _, again)| {
            let is_after_tick = *again as u32 > failed - since;
            (*since..*failed).contains(frame) || (is_after_tick && frame == failed)
        });
        assert!(is_undone || other.2 == *bytes, "snapshot of frame {frame}: {plan:?}");
    }
}

#[test]
fn rooms_survive_whatever_is_done_to_their_rules() {
    let asked = seed_asked_for();
    let seeds = asked.map_or(0..rooms_asked_for(), |seed| seed..seed + 1);
    println!("seeds {seeds:?}");
    let mut tally = Tally::default();
    for seed in seeds {
        if asked.is_some() {
            println!("{:#?}", Plan::drawn(seed));
        }
        // Named before it can panic.
        let guard = NameOnPanic(seed);
        simulate(seed, &mut tally);
        drop(guard);
    }
    println!("{tally:#?}");
    if tally.rooms < ROOMS {
        return;
    }
    let rare = [
        tally.rollbacks,
        tally.retries,
        tally.skipped,
        tally.void,
        tally.kept,
        tally.finished_by_rerun,
        tally.compared_with_rollback,
        tally.compared_with_swap,
    ];
    assert!(rare.iter().all(|count| *count >= 40), "the seeds no longer bring about everything: {tally:?}");
    assert!(tally.refused.len() >= 9 && tally.outcomes.len() >= 4, "{tally:?}");
}

fn rooms_asked_for() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the way to let this test run for hours")]
    let rooms = std::env::var("HOLESHOT_ROOMS");
    rooms.map_or(ROOMS, |rooms| rooms.parse().expect("HOLESHOT_ROOMS is a number"))
}

/// Says which seed it was.
struct NameOnPanic(u64);

impl Drop for NameOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("HOLESHOT_SEED={} plays this room alone", self.0);
        }
    }
}
