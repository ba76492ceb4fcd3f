//! Whatever arrives, whenever it arrives and however the host steps: what must hold of a room at all times.

use std::collections::BTreeMap;

use holeshot_abi::{ChangeKind, InputStatus, Item, Manifest, PlayerSetup, Setup, TickReader};
use holeshot_room::{
    AbortReason, ActionOutcome, Arrival, Departure, Fault, FaultKind, Limits, Outcome, Phase, Room, RoomConfig,
    Supervisor,
};
use proptest::prelude::*;

use crate::support::Folder;

#[derive(Debug, Clone)]
enum Op {
    Connected(u16),
    Disconnected(u16),
    Ready(u16),
    Quit(u16),
    Remove(u16),
    /// The id is relative to the player's last one.
    Action(u16, i64, u8),
    Input(u16, i64, Vec<u8>),
    Abort,
    Step,
}

fn ops() -> impl Strategy<Value = Op> {
    let player = || 0u16..5;
    prop_oneof![
        20 => player().prop_map(Op::Connected),
        6 => player().prop_map(Op::Disconnected),
        10 => player().prop_map(Op::Ready),
        1 => player().prop_map(Op::Quit),
        1 => player().prop_map(Op::Remove),
        20 => (player(), -3i64..4, 0u8..8).prop_map(|(player, step, kind)| Op::Action(player, step, kind)),
        80 => (player(), -20i64..20, proptest::collection::vec(any::<u8>(), 0..6))
            .prop_map(|(player, offset, bytes)| Op::Input(player, offset, bytes)),
        1 => (player(), any::<i64>()).prop_map(|(player, offset)| Op::Input(player, offset, vec![])),
        1 => (0u8..20).prop_map(|dice| if dice == 0 { Op::Abort } else { Op::Step }),
        40 => Just(Op::Step),
    ]
}

/// Time between two operations: mostly less than a tick, sometimes a stall, rarely backwards.
fn gaps_us() -> impl Strategy<Value = i64> {
    prop_oneof![20 => 0i64..5_000, 5 => 0i64..60_000, 1 => 0i64..3_000_000, 1 => -50_000i64..0]
}

#[derive(Debug, Clone)]
struct Game {
    slots: u16,
    players_min: u16,
    tick_hz: u32,
    track_frames: u16,
    cutscene_ms: u32,
    countdown_steps: u32,
    frames_max: u32,
    finish_at: u32,
    fault_at: u32,
    catch_up_ticks_max: u32,
    wait_us: u64,
    /// All players connect and are ready before the script begins: without it few games get as far as frame 0.
    begun: bool,
}

fn games() -> impl Strategy<Value = Game> {
    let people = (1u16..5).prop_flat_map(|slots| (Just(slots), 1..=slots));
    let pace = (1u32..=128, 1u16..20, 0u32..30, 0u32..4);
    let ends = (1u32..300, 0u32..600, 0u32..900);
    let wait_us = prop_oneof![1 => Just(0u64), 5 => 0u64..2_000_000];
    (people, pace, ends, 0u32..8, wait_us, prop::bool::weighted(0.8)).prop_map(
        |(
            (slots, players_min),
            (tick_hz, track_frames, cutscene_ms, countdown_steps),
            ends,
            catch_up,
            wait_us,
            begun,
        )| Game {
            slots,
            players_min,
            tick_hz,
            track_frames,
            cutscene_ms,
            countdown_steps,
            frames_max: ends.0,
            finish_at: ends.1,
            fault_at: ends.2,
            catch_up_ticks_max: catch_up,
            wait_us,
            begun,
        },
    )
}

impl Game {
    fn config(&self) -> RoomConfig {
        let mut manifest = Manifest::new("fold", "1", self.players_min..=8, 4);
        manifest.input_track_frames = self.track_frames;
        manifest.cutscene_ms = self.cutscene_ms;
        manifest.countdown_steps = self.countdown_steps;
        manifest.countdown_step_ms = 10;
        manifest.frames_max = self.frames_max;
        let players = (0..self.slots).map(|slot| PlayerSetup { name: format!("p{slot}"), data: String::new() });
        RoomConfig {
            id: "room".into(),
            manifest,
            setup: Setup { seed: 0, tick_hz: self.tick_hz, options: String::new(), players: players.collect() },
            limits: Limits {
                gather_wait_us: self.wait_us,
                ready_wait_us: self.wait_us,
                reconnect_grace_us: self.wait_us / 2,
                linger_us: self.wait_us,
                catch_up_ticks_max: self.catch_up_ticks_max,
                actions_queued_max: 3,
                events_kept_max: 7,
                events_kept_bytes_max: 400,
            },
        }
    }

    fn rules(&self) -> Supervisor {
        let (finish_at, fault_at) = (self.finish_at, self.fault_at);
        Folder::new(move |tick, out| {
            if tick.frame % 7 == 3 {
                out.push(Item::PublicEvent { name: "seventh", json: "7" });
            }
            if tick.frame == finish_at {
                out.push(Item::Results("[]"));
            }
            if tick.frame == fault_at { Err(Fault::new(FaultKind::Trap, "as asked")) } else { Ok(()) }
        })
        .supervised(&self.config())
    }
}

/// Watches what leaves a room, and panics when it breaks a rule.
#[derive(Default)]
struct Watcher {
    phase: Option<Phase>,
    last_seq: u64,
    public: Vec<(u64, String, String)>,
    ticks: u32,
    ended: u32,
    in_game: BTreeMap<u16, bool>,
    applied: BTreeMap<(u16, u64), u32>,
    results: BTreeMap<(u16, u64), ActionOutcome>,
    sums: BTreeMap<u16, [u64; 3]>,
    /// All of it as text, to compare two runs.
    log: String,
}

impl Watcher {
    fn see(&mut self, departure: Departure<'_>) {
        self.log.push_str(&format!("{departure:?}\n"));
        match departure {
            Departure::PhaseChanged { phase } => {
                let before = self.phase.unwrap_or(Phase::Gathering);
                assert!(phase > before, "{before} -> {phase}");
                assert!(!before.is_over() || phase == Phase::Closed, "{before} -> {phase}");
                self.phase = Some(phase);
            }
            Departure::PublicEvent(event) => {
                self.last_seq += 1;
                assert_eq!(event.seq, self.last_seq);
                assert!(self.ended == 0, "nothing public follows the end");
                self.public.push((event.seq, event.name.into(), event.json.into()));
            }
            Departure::InternalEvent { kind, .. } => {
                assert!(self.ended == 0 || kind == "room.closed");
            }
            Departure::Tick { frame, record, .. } => {
                assert_eq!(self.phase, Some(Phase::Running));
                assert_eq!(frame, self.ticks);
                self.ticks += 1;
                self.see_record(frame, record);
            }
            Departure::ActionResult { player, id, outcome } => {
                let misnumbered = outcome == ActionOutcome::Refused(holeshot_room::ActionRefusal::IdNotIncreasing);
                if !misnumbered {
                    let first = *self.results.entry((player, id)).or_insert(outcome);
                    assert_eq!(first, outcome, "an action has one result");
                }
                if let ActionOutcome::Applied { frame } = outcome {
                    assert_eq!(self.applied.get(&(player, id)), Some(&frame));
                }
            }
            Departure::Ended { outcome } => {
                self.ended += 1;
                assert_eq!(self.ended, 1);
                let (phase, frames) = match outcome {
                    Outcome::Finished { frames, .. } => (Phase::Finished, frames),
                    Outcome::Aborted { frames, .. } => (Phase::Aborted, frames),
                };
                assert_eq!((self.phase, frames), (Some(phase), self.ticks));
            }
            Departure::SharedSnapshot { .. }
            | Departure::Snapshot { .. }
            | Departure::PlayerLeft { .. }
            | Departure::TicksLost { .. }
            | Departure::Checkpoint { .. }
            | Departure::RulesFault { .. } => {}
            Departure::RulesSwapped { .. }
            | Departure::RulesKept { .. }
            | Departure::RulesRolledBack { .. }
            | Departure::RulesRetried { .. } => panic!("nobody replaced the rules, and their faults always come again"),
        }
    }

    fn see_record(&mut self, frame: u32, record: &[u8]) {
        let tick = TickReader::read(record).expect("a record as specified");
        for change in tick.changes() {
            let in_game = self.in_game.get(&change.player).copied();
            match change.kind {
                ChangeKind::Joined => assert_eq!((in_game, frame), (None, 0)),
                ChangeKind::Left(_) => assert_eq!(in_game, Some(true)),
            }
            self.in_game.insert(change.player, change.kind == ChangeKind::Joined);
        }
        for action in tick.actions() {
            assert_eq!(self.in_game.get(&action.player), Some(&true), "who is not in the game has no actions");
            let id = action.json.parse().expect("the tests' actions are their ids");
            let last = self.applied.range((action.player, 0)..=(action.player, u64::MAX)).next_back();
            assert!(last.is_none_or(|((_, last), _)| id > *last), "once, and in order");
            self.applied.insert((action.player, id), frame);
        }
        for (player, input) in (0u16..).zip(tick.inputs()) {
            let sums = self.sums.entry(player).or_default();
            sums[input.status as usize] += 1;
            if self.in_game.get(&player) != Some(&true) {
                assert_eq!(input.status, InputStatus::Absent);
            }
            if input.status == InputStatus::Repeated {
                assert!(input.age_frames > 0);
            }
        }
    }
}

fn check_counters(room: &Room, watcher: &Watcher) {
    assert_eq!(room.counters().ticks, u64::from(watcher.ticks));
    assert_eq!(room.frame(), watcher.ticks.checked_sub(1));
    for (slot, player) in (0u16..).zip(room.players()) {
        let c = player.counters;
        let came = c.taken + c.late + c.behind + c.ahead + c.duplicate + c.conflicting + c.too_long + c.out_of_game;
        assert_eq!(c.received, came);
        assert_eq!(u64::from(watcher.ticks), c.fresh + c.repeated + c.absent);
        assert_eq!(watcher.sums.get(&slot).copied().unwrap_or_default(), [c.absent, c.fresh, c.repeated]);
        assert!(c.fresh <= c.taken);
        assert!(!(player.connected && player.left.is_some()) || room.phase().is_over());
    }
}

/// Plays a game; afterwards the host steps the room whenever it is due, until it is closed.
fn play(game: &Game, script: &[(i64, Op)]) -> String {
    let start_us = 1_000_000;
    let mut room = Room::open(game.config(), start_us).expect("the config is valid");
    let mut rules = game.rules();
    let mut watcher = Watcher::default();
    let mut now_us = start_us;
    let mut newest_us = start_us;
    let everyone = 0..if game.begun { game.slots } else { 0 };
    let beginning = everyone.flat_map(|player| [(0, Op::Connected(player)), (0, Op::Ready(player))]);
    for (gap_us, op) in beginning.collect::<Vec<_>>().iter().chain(script) {
        now_us = now_us.saturating_add_signed(*gap_us);
        newest_us = newest_us.max(now_us);
        let next_frame = room.frame().map_or(0, |frame| i64::from(frame) + 1);
        let id_text;
        let arrival = match *op {
            Op::Connected(player) => Arrival::Connected { player },
            Op::Disconnected(player) => Arrival::Disconnected { player },
            Op::Ready(player) => Arrival::Ready { player },
            Op::Quit(player) => Arrival::Quit { player },
            Op::Remove(player) => Arrival::Remove { player },
            Op::Action(player, step, kind) => {
                let last_id = room.player(player).and_then(|player| player.last_action_id).unwrap_or(10);
                let id = last_id.saturating_add_signed(step);
                id_text = if kind == 0 { "nope".into() } else { id.to_string() };
                Arrival::Action { player, id, json: &id_text }
            }
            Op::Input(player, offset, ref bytes) => {
                Arrival::Input { player, frame: next_frame.wrapping_add(offset) as u32, bytes }
            }
            Op::Abort => Arrival::Abort { reason: AbortReason::HostStopping },
            Op::Step => {
                room.step(now_us, &mut rules, &mut |departure| watcher.see(departure));
                assert!(room.next_due_us().is_none_or(|due_us| due_us > newest_us));
                check_counters(&room, &watcher);
                continue;
            }
        };
        let phase = room.phase();
        let _ = room.handle(now_us, arrival);
        assert_eq!(room.phase(), phase, "an arrival only takes notes");
    }
    for _ in 0..2_000 {
        let Some(due_us) = room.next_due_us() else { break };
        newest_us = newest_us.max(due_us);
        room.step(newest_us, &mut rules, &mut |departure| watcher.see(departure));
        check_counters(&room, &watcher);
    }
    assert_eq!(room.phase(), Phase::Closed, "every room closes in the end");
    assert_eq!(watcher.ended, 1);
    let kept: Vec<_> = room.events_after(0).map(|event| (event.seq, event.name.into(), event.json.into())).collect();
    assert_eq!(kept.len() as u64 + room.events_after(0).missed(), watcher.last_seq);
    assert!(watcher.public.ends_with(&kept));
    watcher.log
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_arrives_breaks_a_room(
        game in games(),
        script in proptest::collection::vec((gaps_us(), ops()), 0..400),
    ) {
        let log = play(&game, &script);
        prop_assert_eq!(log, play(&game, &script), "the same arrivals give the same departures");
    }
}

#[test]
fn the_end_of_time_is_no_trouble() {
    let game = Game {
        slots: 1,
        players_min: 1,
        tick_hz: 128,
        track_frames: 1,
        cutscene_ms: 0,
        countdown_steps: 0,
        frames_max: 3,
        finish_at: 9,
        fault_at: 9,
        catch_up_ticks_max: 1,
        wait_us: u64::MAX,
        begun: false,
    };
    let mut room = Room::open(game.config(), 7).unwrap();
    let mut rules = game.rules();
    room.handle(7, Arrival::Connected { player: 0 }).unwrap();
    room.handle(7, Arrival::Ready { player: 0 }).unwrap();
    room.step(7, &mut rules, &mut |_| ());
    for _ in 0..10 {
        room.step(u64::MAX - 1, &mut rules, &mut |_| ());
        let _ = room.handle(u64::MAX, Arrival::Input { player: 0, frame: u32::MAX, bytes: b"" });
        room.step(u64::MAX, &mut rules, &mut |_| ());
    }
    assert_eq!(room.phase(), Phase::Closed);
}
