//! What the tests share: rules that fold all they see into a hash, and `check`, which plays a script against a room and
//! compares what leaves it with a transcript.

use std::fmt::Write as _;
use std::sync::Arc;

use holeshot_abi::{ChangeKind, InputStatus, Item, Manifest, OutputWriter, PlayerSetup, Setup, TickReader};
use holeshot_room::{
    AbortReason, ActionOutcome, Arrival, BeginError, Departure, EventSource, Fault, Limits, Outcome, Program, Ran,
    RestoreError, Room, RoomConfig, Rules, Supervision, Supervisor,
};

pub(crate) type Script = dyn Fn(&TickReader<'_>, &mut OutputWriter) -> Result<(), Fault> + Send + Sync;

/// Rules that fold every record into a hash, which is their snapshot; a script adds what a test needs.
pub(crate) struct Folder {
    hash: u64,
    next_frame: u32,
    faulted: bool,
    writer: OutputWriter,
    script: Arc<Script>,
}

impl Folder {
    pub(crate) fn new(
        script: impl Fn(&TickReader<'_>, &mut OutputWriter) -> Result<(), Fault> + Send + Sync + 'static,
    ) -> Self {
        let script = Arc::new(script);
        Self { hash: 0xcbf2_9ce4_8422_2325, next_frame: 0, faulted: false, writer: OutputWriter::default(), script }
    }

    /// These rules, begun for a room of this config.
    pub(crate) fn supervised(&self, config: &RoomConfig) -> Supervisor {
        let program = Folding {
            manifest: config.manifest.clone(),
            setup: config.setup.clone(),
            script: Arc::clone(&self.script),
        };
        Supervisor::begin(Arc::new(program), Supervision::default()).expect("they begin with anything")
    }

    /// Rules that never end.
    pub(crate) fn endless() -> Self {
        Self::new(|_, _| Ok(()))
    }

    /// Rules that finish in `frame`, with no results.
    pub(crate) fn until(frame: u32) -> Self {
        Self::new(move |tick, out| {
            if tick.frame == frame {
                out.push(Item::Results("[]"));
            }
            Ok(())
        })
    }
}

impl Rules for Folder {
    fn tick(&mut self, record: &[u8]) -> Result<&[u8], Fault> {
        assert!(!self.faulted, "rules that faulted were called again");
        let tick = TickReader::read(record).expect("the room writes records as specified");
        assert!(tick.frame >= self.next_frame, "frames only rise");
        self.next_frame = tick.frame + 1;
        for byte in record {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.writer.begin();
        self.writer.push(Item::SharedSnapshot(&self.hash.to_le_bytes()));
        (self.script)(&tick, &mut self.writer).inspect_err(|_| self.faulted = true)?;
        Ok(self.writer.finish())
    }

    fn save(&mut self) -> Result<Vec<u8>, Fault> {
        Ok([&self.hash.to_le_bytes()[..], &self.next_frame.to_le_bytes()].concat())
    }

    fn restore(&mut self, _: u32, state: &[u8]) -> Result<(), RestoreError> {
        let refused = || RestoreError::Refused("a state has 12 bytes".into());
        let (hash, next_frame) = state.split_first_chunk().ok_or_else(refused)?;
        self.hash = u64::from_le_bytes(*hash);
        self.next_frame = u32::from_le_bytes(next_frame.try_into().map_err(|_| refused())?);
        Ok(())
    }
}

/// Begins [`Folder`]s.
struct Folding {
    manifest: Manifest,
    setup: Setup,
    script: Arc<Script>,
}

impl std::fmt::Debug for Folding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Folding").finish_non_exhaustive()
    }
}

impl Program for Folding {
    fn hash(&self) -> [u8; 32] {
        [0xf0; 32]
    }

    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn setup(&self) -> &Setup {
        &self.setup
    }

    fn begin(&self) -> Result<Box<dyn Rules + Send>, BeginError> {
        let script = Arc::clone(&self.script);
        Ok(Box::new(Folder { script, ..Folder::endless() }))
    }
}

/// A room for `players`, of whom two (or the only one) are needed: 10 ticks a second, 2 s of cutscene, 2 countdown steps of 1 s;
/// it waits 10 s for players, 5 s for their ready, 3 s for a reconnect, and lingers 4 s.
pub(crate) fn config(players: usize) -> RoomConfig {
    let names = ["ann", "bob", "cid", "dan", "eve", "fay", "gus", "hal"];
    let mut manifest = Manifest::new("fold", "1.0.0", players.min(2) as u16..=8, 4);
    manifest.tick_hz = 10;
    manifest.cutscene_ms = 2_000;
    manifest.countdown_steps = 2;
    manifest.countdown_step_ms = 1_000;
    manifest.input_track_frames = 8;
    let players = names.iter().take(players).map(|name| PlayerSetup { name: (*name).into(), data: String::new() });
    RoomConfig {
        id: "r1".into(),
        manifest,
        setup: Setup { seed: 1, tick_hz: 10, options: String::new(), players: players.collect() },
        limits: Limits {
            gather_wait_us: 10_000_000,
            ready_wait_us: 5_000_000,
            reconnect_grace_us: 3_000_000,
            linger_us: 4_000_000,
            ..Limits::default()
        },
    }
}

/// The same without cutscene and countdown: frame 0 is due as soon as all are ready.
pub(crate) fn quick_config(players: usize) -> RoomConfig {
    let mut config = config(players);
    config.manifest.cutscene_ms = 0;
    config.manifest.countdown_steps = 0;
    config
}

/// How much of what leaves a room a transcript shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// All but snapshots, and of internal events only their kind.
    Brief,
    /// Internal events with their data.
    Internal,
    /// Snapshots, too, without their bytes.
    Snapshots,
}

/// Plays a script against a room and compares what leaves it with a transcript.
///
/// A line of the script is `ms command …`: `connect`, `disconnect`, `ready`, `quit`, `remove` with a player; `abort`; `input player
/// frame text`; `action player id json`; `events seq` (shows `events_after`); `stall ms` (no step before that time). The room
/// is opened at 0 and stepped whenever it is due. The script ends with `end`, or when the room is closed.
#[track_caller]
pub(crate) fn check(config: RoomConfig, rules: Folder, script: &str, expected: &str) {
    check_showing(Show::Brief, config, rules, script, expected);
}

#[track_caller]
pub(crate) fn check_showing(show: Show, config: RoomConfig, rules: Folder, script: &str, expected: &str) {
    let mut rules = rules.supervised(&config);
    let room = Room::open(config, 0).expect("the config of a test is valid");
    let actual = play(room, &mut rules, script, show);
    let lines =
        |text: &str| text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect::<Vec<_>>();
    let (actual, expected) = (lines(&actual), lines(expected));
    if actual != expected {
        let differs = actual.iter().zip(&expected).take_while(|(a, e)| a == e).count();
        let place = std::panic::Location::caller();
        panic!(
            "the transcript differs from line {} on: expected {:?}, got {:?}\n<<<{}\n{}\n>>>",
            differs + 1,
            expected.get(differs),
            actual.get(differs),
            place.line(),
            actual.join("\n")
        );
    }
}

fn play(mut room: Room, rules: &mut Supervisor, script: &str, show: Show) -> String {
    let mut text = String::new();
    let mut stalled_until_us = 0;
    let mut lines = script.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
    // No scenario needs more turns; one that does goes round in circles.
    for _ in 0..10_000 {
        let next = lines.peek().map(|line| {
            let (ms, command) = line.split_once(' ').expect("a line is: ms command");
            (ms.parse::<u64>().expect("a time in ms") * 1000, command)
        });
        let due_us = room.next_due_us().map(|due_us| due_us.max(stalled_until_us));
        match (next, due_us) {
            (Some((at_us, command)), due_us) if due_us.is_none_or(|due_us| due_us > at_us) => {
                lines.next();
                let words: Vec<&str> = command.splitn(4, ' ').collect();
                let number = |at: usize| words[at].parse::<u64>().expect("a number");
                let player = || number(1) as u16;
                let arrival = match words[0] {
                    "connect" => Arrival::Connected { player: player() },
                    "disconnect" => Arrival::Disconnected { player: player() },
                    "ready" => Arrival::Ready { player: player() },
                    "quit" => Arrival::Quit { player: player() },
                    "remove" => Arrival::Remove { player: player() },
                    "abort" => Arrival::Abort { reason: AbortReason::HostStopping },
                    "input" => Arrival::Input { player: player(), frame: number(2) as u32, bytes: words[3].as_bytes() },
                    "action" => Arrival::Action { player: player(), id: number(2), json: words[3] },
                    "stall" => {
                        stalled_until_us = number(1) * 1000;
                        continue;
                    }
                    "events" => {
                        let events = room.events_after(number(1));
                        let missed = events.missed();
                        let events: Vec<_> = events.map(|event| format!("{} {}", event.seq, event.name)).collect();
                        let _ = writeln!(text, "{} events: {missed} missed, {}", ms(at_us), events.join(", "));
                        continue;
                    }
                    "end" => return text,
                    other => panic!("no such command: {other}"),
                };
                if let Err(why) = room.handle(at_us, arrival) {
                    let _ = writeln!(text, "{} {command}: {why}", ms(at_us));
                }
            }
            (_, Some(due_us)) => {
                room.step(due_us, rules, &mut |departure| show_departure(&mut text, due_us, show, departure));
                let next_us = room.next_due_us();
                assert!(next_us.is_none_or(|next_us| next_us > due_us), "still due at {due_us} after the step");
            }
            (None, None) => return text,
            (Some(_), None) => unreachable!("a room that is closed lets the script go on"),
        }
    }
    panic!("the scenario goes round in circles:\n{text}");
}

fn ms(at_us: u64) -> String {
    if at_us.is_multiple_of(1000) {
        format!("{}", at_us / 1000)
    } else {
        format!("{}.{:03}", at_us / 1000, at_us % 1000)
    }
}

fn show_departure(text: &mut String, at_us: u64, show: Show, departure: Departure<'_>) {
    let line = match departure {
        Departure::PhaseChanged { phase } => format!("phase {phase}"),
        Departure::PublicEvent(event) => {
            let frame = event.frame.map(|frame| format!(" in {frame}")).unwrap_or_default();
            format!("public {} {}{frame} {}", event.seq, event.name, event.json)
        }
        Departure::InternalEvent { source, kind, frame, json } => {
            assert_eq!(source == EventSource::Module, frame.is_some());
            let json = if show == Show::Internal || source == EventSource::Module { json } else { "" };
            format!("internal {kind} {json}")
        }
        Departure::PlayerLeft { player, reason } => format!("left {player} {reason}"),
        Departure::SharedSnapshot { .. } => return,
        Departure::Tick { frame, record, ran } => {
            let ran = match ran {
                Ran::Stepped { .. } => "",
                Ran::Skipped { .. } => "skipped ",
                Ran::Faulted { .. } => "faulted ",
            };
            format!("tick {frame} {ran}{}", show_record(record))
        }
        Departure::Checkpoint { .. } if show != Show::Snapshots => return,
        Departure::Checkpoint { next_frame, state_version, state } => {
            format!("checkpoint before {next_frame}, version {state_version}, {} bytes", state.len())
        }
        Departure::RulesSwapped { next_frame, .. } => format!("swapped before {next_frame}"),
        Departure::RulesKept { next_frame } => format!("kept before {next_frame}"),
        Departure::RulesRolledBack { since_frame, frame, fault, void, output_crcs, .. } => {
            format!("rolled back {since_frame}..{frame} void {void:?}, {} run again: {fault}", output_crcs.len())
        }
        Departure::RulesRetried { frame, fault } => format!("retried {frame}: {fault}"),
        Departure::Snapshot { .. } if show != Show::Snapshots => return,
        Departure::Snapshot { player, frame, bytes, margin_us, last_input_frame, .. } => {
            assert_eq!(bytes.len(), 8);
            format!("snapshot {player} of {frame} margin {margin_us:?} last {last_input_frame:?}")
        }
        Departure::ActionResult { player, id, outcome: ActionOutcome::Applied { frame } } => {
            format!("result {player} #{id} applied in {frame}")
        }
        Departure::ActionResult { player, id, outcome: ActionOutcome::Refused(why) } => {
            format!("result {player} #{id} refused {why}")
        }
        Departure::TicksLost { count, next_frame } => format!("lost {count} before {next_frame}"),
        Departure::RulesFault { frame, fault } => format!("fault in {frame} {fault}"),
        Departure::Ended { outcome: Outcome::Finished { frames, results } } => {
            format!("ended finished {frames} {results}")
        }
        Departure::Ended { outcome: Outcome::Aborted { frames, reason } } => format!("ended aborted {frames} {reason}"),
    };
    let _ = writeln!(text, "{} {}", ms(at_us), line.trim_end());
}

fn show_record(record: &[u8]) -> String {
    let tick = TickReader::read(record).expect("the room writes records as specified");
    let mut words = Vec::new();
    for input in tick.inputs() {
        let bytes = String::from_utf8_lossy(input.bytes);
        words.push(match input.status {
            InputStatus::Absent => "-".to_owned(),
            InputStatus::Fresh => format!("{bytes}"),
            InputStatus::Repeated => format!("{bytes}~{}", input.age_frames),
        });
    }
    for change in tick.changes() {
        words.push(match change.kind {
            ChangeKind::Joined => format!("joined:{}", change.player),
            ChangeKind::Left(reason) => format!("left:{}:{reason:?}", change.player),
        });
    }
    words.extend(tick.actions().map(|action| format!("action:{}:{}", action.player, action.json)));
    words.join(" ")
}
