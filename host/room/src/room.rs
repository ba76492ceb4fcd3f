//! The room itself: lifecycle, schedule and the step. Its ticks are in `room/ticks.rs`; inputs, actions, event history and the
//! supervision of the rules have their own files.

mod ticks;

pub use ticks::Swapped;

use std::mem::offset_of;

use holeshot_abi::{Change, ChangeKind, Manifest, TickRecord};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::actions::{ActionOutcome, Actions, Offer};
use crate::config::{Limits, OpenError, RoomConfig};
use crate::counters::{PlayerCounters, RoomCounters};
use crate::history::{EventsAfter, History};
use crate::inputs::{InputCache, Margin, Verdict};
use crate::messages::{
    AbortReason, Arrival, Departure, EventSource, LeftReason, NotTaken, Outcome, Phase, PublicEvent,
};
use crate::payloads;
use crate::rules::Fault;
use crate::supervisor::Supervisor;
use crate::warm::{Ask, ask_for};

/// A running match.
///
/// # Contract
///
/// In go [`handle`](Room::handle), as soon as something arrives, and [`step`](Room::step), when [`next_due_us`](Room::next_due_us) says so or later.
/// Out come the [`Departure`]s that `step` hands to its callback, in order, and nothing else.
///
/// - Time is microseconds of one monotonic clock of the caller's choice. It never runs back: an earlier time than one the room has
///   seen counts as that one.
/// - `handle` only takes notes. It never calls the rules and nothing leaves the room. What it noted takes effect in the next `step`; when
///   that is needed before the next deadline, `next_due_us` says so. Call `next_due_us` again after each `handle` and each `step`.
/// - `step` does everything that is due: it tells who came and went, expires waits, changes phase, runs ticks. It is never
///   wrong to call it early or twice; nothing happens then. After it, `next_due_us` is in the future, or none when the room is closed.
/// - Departures are borrowed and in the order in which they have to reach each player. Public events are for all connected
///   players. A player that has just connected gets what [`events_after`](Room::events_after) its last number (0 if it has none) gives at that
///   moment; the events of later steps continue without a gap or a copy.
/// - The rules are handed in at each step, always the same [`Supervisor`], begun with the `setup` of the [`RoomConfig`]. Between two steps
///   [`swap`](Room::swap) replaces the module in it. What is done when rules fail is in the table of [`Supervisor`].
/// - What the rules see (the tick records, handed out as [`Departure::Tick`]) is decided by the setup and by the order of arrivals and
///   steps. Rules that get the same records give the same game; a journal of the departures replays a room.
///
/// # Life
///
/// ```text
/// gathering ──> readying ──> cutscene ──> countdown ──> running ──> finished ──> closed
///      └────────────┴────────────┴────────────┴────────────┴──────> aborted ───────┘
/// ```
///
/// *Gathering* ends when every slot is connected, *readying* when everyone said *ready* (which may come earlier, already while
/// gathering). Then the start is scheduled: frame 0 is due exactly `cutscene_ms + countdown_steps × countdown_step_ms` later. A
/// cutscene of 0 ms and a countdown of 0 steps are skipped, with their events.
///
/// Everyone who is in the room when the game starts joins in frame 0. A slot that was given up stays empty.
///
/// # Every wait, and what comes of it
///
/// "Too few" below: fewer players than the manifest's `players_min` are left in the room.
///
/// | what happens | when | outcome |
/// | --- | --- | --- |
/// | a player never comes | `gather_wait_us` after the opening | it is out (`never_came`); too few: aborted `not_enough_players`; else the room goes on |
/// | a player is never ready | `ready_wait_us` after the gathering | it is out (`not_ready`); likewise |
/// | a player quits or is removed | before frame 0 | it is out (`quit`, `removed`) at once; too few: aborted `not_enough_players`; else the room goes on, in its schedule |
/// | a player quits or is removed | while running | it is out; the rules see a leave in the next tick and decide what it means |
/// | a connection breaks | before the end | the slot is kept for `reconnect_grace_us`; the player's last input is repeated, its *ready* stays good |
/// | … and comes back in time | | nothing happened; it gets the events it missed by number; actions it repeats are applied once |
/// | … and does not | grace over | it is out (`connection_lost`), as if it had quit then |
/// | it is disconnected when the gathering ends | `gather_wait_us` | it is not missing: the room goes on, its grace runs |
/// | all players are out | while running | the rules get one tick that says so; if they do not finish the game in it: aborted `everyone_left` |
/// | the game does not end | after `frames_max` frames | aborted `too_long` |
/// | the rules fail | in a tick | nothing of that tick leaves; the [`Supervisor`] goes back to a checkpoint and on. If that does not help: aborted `rules_fault` |
/// | the rules take too long | in a tick | the frame is skipped: joins, leaves and actions wait for the next one, inputs are lost, the last snapshots are sent again; too often in a row: aborted `rules_fault` |
/// | the rules are replaced | between two steps | the lifecycle goes on; cutscene and countdown of the new manifest count if the start is not scheduled yet |
/// | the host aborts | before the end | aborted with the reason given |
/// | the host aborts | after the end | closed at once |
/// | players come, go, quit | after the end | noted, without an event; anyone may connect and get the outcome |
/// | the match has ended | `linger_us` later | closed |
/// | anything | after closing | refused: [`NotTaken::Closed`] |
/// | a player was away for longer than events are kept | it reconnects | it gets those that are kept; [`EventsAfter::missed`] says how many it lacks |
///
/// # Events
///
/// | public event | data | when |
/// | --- | --- | --- |
/// | `player_joined` | `player`, `name` | its first connection |
/// | `player_ready` | `player`, `name` | its first *ready* |
/// | `player_left` | `player`, `name`, `reason`: a [`LeftReason`] | it is out |
/// | `cutscene` | `duration_ms` | the cutscene begins |
/// | `countdown` | `remaining`: n, n − 1 … 1 | each step of the countdown begins |
/// | `started` | `frame`: 0, `tick_hz`, `players`: slots | frame 0 is due |
/// | `finished` | `frames`, `results`: as the rules gave them | the rules finished the game |
/// | `aborted` | `frames`, `reason`: an [`AbortReason`], `fault`: a [`FaultKind`](crate::FaultKind) if the rules failed | it was broken off |
/// | `rules_swapped` | `frame`: the first of the new rules, `module` and `from`: `name`, `version`, `hash` | the rules were replaced |
/// | `rules_rolled_back` | `frame`: the one in which they failed, `since_frame`: their first, `module`: the rules from now on, `failed`, `reason`: a [`FaultKind`](crate::FaultKind), `void`: numbers of the events that only the failed rules told; `untold`: how many events are missing because there were too many, if any | new rules failed on probation |
///
/// These names are the room's; a module that sends one of them has a fault, and so has one whose internal event has
/// a name that begins like the host's (see [`PUBLIC_NAMES_RESERVED`](crate::PUBLIC_NAMES_RESERVED), [`INTERNAL_PREFIXES_RESERVED`](crate::INTERNAL_PREFIXES_RESERVED)).
/// Internal events of the room, each with `room`: `player.joined` (`player`, `name`), `player.left` (and `reason`),
/// `room.started` (as `started`), `room.finished` and `room.aborted` (`frames`, `reason`, `fault` with kind, message and frame,
/// `results`, `players` with name, why it left and the counters of its inputs, `counters`), `room.closed` (`outcome`), `room.rules_swapped`
/// (as `rules_swapped`), `room.rules_rolled_back` (as `rules_rolled_back`, and `message`, `backtrace`, `void_internal`: frame and name of
/// internal events), `room.rules_kept` (`frame`, `since_frame`, `module`, `early`: whether the probation ended before its time),
/// `room.rules_retried` (`frame`, `module`, `fault`, `message`).
///
/// # Ticks
///
/// Frame `n` is due at `start + (n + lost) × 1,000,000 / tick_hz` microseconds, computed from the start each time, so that nothing
/// drifts. The start is the countdown's end, or the next moment of the room's [`Beat`] after it, if it was given one. A `step` that comes late makes up for at most `catch_up_ticks_max` ticks. If more are due then, the rest is lost: they are
/// counted, told as [`Departure::TicksLost`], and the schedule is shifted by as many whole ticks. Frame numbers never
/// skip: to the rules nothing happened, to the players the game stood still for that time.
///
/// # Inputs
///
/// The first input for a frame counts if it comes before the step that runs its frame and is at most `input_track_frames` ahead;
/// from the beginning of the cutscene on, so that frame 0 can have one. If none came, the player's last one is repeated. What became of
/// each is counted, see [`PlayerCounters`]. A player that is out has no input any more.
#[derive(Debug)]
pub struct Room {
    id: String,
    manifest: Manifest,
    limits: Limits,
    tick_hz: u32,
    players: Vec<Player>,
    phase: Phase,
    now_us: u64,
    /// When something was noted that the next step has to act on, no matter how far the next deadline is.
    attention_us: Option<u64>,
    /// When the wait of the current phase is over; while running it is the next tick that counts.
    phase_due_us: u64,
    /// When frame 0 is due, once that is known.
    start_us: Option<u64>,
    /// The moments that the start is put off to.
    beat: Option<Beat>,
    countdown_remaining: u32,
    /// Of the manifest by which the start was scheduled.
    countdown_step_us: u64,
    next_frame: u32,
    /// What the next step has to tell, in order of arrival. Each player comes, is ready and leaves at most once.
    news: Vec<News>,
    /// What the next tick has to tell the rules.
    changes: Vec<Change>,
    abort: Option<AbortReason>,
    ended_as: &'static str,
    inputs: InputCache,
    actions: Actions,
    history: History,
    record: TickRecord,
    counters: RoomCounters,
}

#[derive(Debug)]
struct Player {
    name: String,
    joined: bool,
    connected: bool,
    ready: bool,
    left: Option<LeftReason>,
    disconnected_at_us: u64,
    margin: Margin,
    counters: PlayerCounters,
}

impl Player {
    /// It was there and is not out.
    const fn is_in(&self) -> bool {
        self.joined && self.left.is_none()
    }

    const fn grace_due_us(&self, grace_us: u64) -> Option<u64> {
        if self.is_in() && !self.connected { Some(self.disconnected_at_us.saturating_add(grace_us)) } else { None }
    }
}

/// When frames are due, once the start is scheduled.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    start_us: u64,
    tick_hz: u32,
    ticks_lost: u64,
}

impl Schedule {
    /// `start + (frame + lost) × 1,000,000 / tick_hz`, rounded down, in steps that stay within 64 bits: it is asked for several times a tick.
    const fn due_us(self, frame: u32) -> u64 {
        let tick_hz = if self.tick_hz == 0 { 1 } else { self.tick_hz as u64 };
        let ticks = self.ticks_lost.saturating_add(frame as u64);
        let (seconds, rest) = (ticks / tick_hz, ticks % tick_hz);
        let after_us = seconds.saturating_mul(1_000_000).saturating_add(rest * 1_000_000 / tick_hz);
        self.start_us.saturating_add(after_us)
    }
}

#[derive(Debug, Clone, Copy)]
enum News {
    Joined(u16),
    Ready(u16),
    Left(u16, LeftReason),
}

/// Moments at which a room may start: every `period_us` microseconds, the first at `offset_us`. Whoever has many rooms spreads their ticks so, and lets them
/// fall on moments at which it is awake anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// From one moment to the next, in microseconds: as long as a tick. 0 allows any moment.
    pub period_us: u64,
    /// The first moment, in microseconds.
    pub offset_us: u64,
}

impl Beat {
    /// The first of its moments that is not before `at_us`; `at_us` itself where there is none.
    #[must_use]
    pub fn next_us(&self, at_us: u64) -> u64 {
        let since_us = at_us.saturating_sub(self.offset_us);
        let periods = since_us.checked_next_multiple_of(self.period_us);
        periods.and_then(|us| us.checked_add(self.offset_us)).unwrap_or(at_us)
    }
}

/// What is known of a player slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlayerView<'a> {
    /// The player's name.
    pub name: &'a str,
    /// Whether it was ever connected.
    pub joined: bool,
    /// Whether it is connected.
    pub connected: bool,
    /// Whether it said *ready*.
    pub ready: bool,
    /// Why it is out, if it is.
    pub left: Option<LeftReason>,
    /// The highest id of an action that came from it: a client that starts anew has to go on above it.
    pub last_action_id: Option<u64>,
    /// The worst margin of its recent inputs, as in [`Departure::Snapshot`].
    pub margin_us: Option<i32>,
    /// What became of its inputs and actions.
    pub counters: PlayerCounters,
}

impl Room {
    /// Opens a room. Everything it needs tick by tick is allocated here.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(config: RoomConfig, now_us: u64) -> Result<Self, OpenError> {
        config.validate()?;
        let RoomConfig { id, manifest, setup, limits } = config;
        let slots = setup.players.len();
        let players = setup.players.into_iter().map(|player| Player {
            name: player.name,
            joined: false,
            connected: false,
            ready: false,
            left: None,
            disconnected_at_us: now_us,
            margin: Margin::default(),
            counters: PlayerCounters::default(),
        });
        Ok(Self {
            id,
            tick_hz: setup.tick_hz,
            players: players.collect(),
            phase: Phase::Gathering,
            now_us,
            attention_us: None,
            phase_due_us: now_us.saturating_add(limits.gather_wait_us),
            start_us: None,
            beat: None,
            countdown_remaining: manifest.countdown_steps,
            countdown_step_us: 0,
            next_frame: 0,
            news: Vec::with_capacity(slots * 3),
            changes: Vec::with_capacity(slots * 2),
            abort: None,
            ended_as: Phase::Closed.as_str(),
            inputs: InputCache::new(slots, manifest.input_track_frames, manifest.input_bytes_max),
            actions: Actions::new(slots, limits.actions_queued_max),
            history: History::new(limits.events_kept_max, limits.events_kept_bytes_max),
            record: TickRecord::default(),
            counters: RoomCounters::default(),
            manifest,
            limits,
        })
    }

    /// Takes note of something that arrived.
    ///
    /// # Errors
    /// Why it has no effect. The room is as before then.
    pub fn handle(&mut self, now_us: u64, arrival: Arrival<'_>) -> Result<(), NotTaken> {
        self.now_us = self.now_us.max(now_us);
        if self.phase == Phase::Closed {
            return Err(NotTaken::Closed);
        }
        match arrival {
            Arrival::Input { player, frame, bytes } => {
                self.handle_inputs(now_us, player, std::iter::once((frame, bytes)))
            }
            Arrival::Action { player, id, json } => self.handle_action(player, id, json),
            Arrival::Connected { player } => self.handle_connected(player),
            Arrival::Disconnected { player } => {
                let now_us = self.now_us;
                let found = self.player_mut(player)?;
                if !found.connected {
                    return Err(NotTaken::NotConnected { player });
                }
                found.connected = false;
                found.disconnected_at_us = now_us;
                Ok(())
            }
            Arrival::Ready { player } => {
                if self.phase.is_over() {
                    return Err(NotTaken::Over);
                }
                let found = self.player_in_mut(player)?;
                if !found.connected {
                    return Err(NotTaken::NotConnected { player });
                }
                if !found.ready {
                    found.ready = true;
                    self.news.push(News::Ready(player));
                    self.want_attention();
                }
                Ok(())
            }
            Arrival::Quit { player } => self.handle_leave(player, LeftReason::Quit),
            Arrival::Remove { player } => self.handle_leave(player, LeftReason::Removed),
            Arrival::Abort { reason } => {
                self.abort.get_or_insert(reason);
                self.want_attention();
                Ok(())
            }
        }
    }

    fn handle_connected(&mut self, player: u16) -> Result<(), NotTaken> {
        let over = self.phase.is_over();
        let found = self.player_mut(player)?;
        if over {
            found.connected = true;
            return Ok(());
        }
        if let Some(reason) = found.left {
            return Err(NotTaken::PlayerLeft { player, reason });
        }
        let returned = found.joined && !found.connected;
        let first = !found.joined;
        found.connected = true;
        found.joined = true;
        if returned {
            found.counters.reconnects += 1;
        }
        if first {
            self.news.push(News::Joined(player));
        }
        // A return may complete the gathering, too.
        self.want_attention();
        Ok(())
    }

    fn handle_leave(&mut self, player: u16, reason: LeftReason) -> Result<(), NotTaken> {
        if self.phase.is_over() {
            self.player_mut(player)?.connected = false;
            return Ok(());
        }
        self.player_in_mut(player)?;
        self.put_out(player, reason);
        self.want_attention();
        Ok(())
    }

    fn handle_action(&mut self, player: u16, id: u64, json: &str) -> Result<(), NotTaken> {
        if self.phase.is_over() {
            return Err(NotTaken::Over);
        }
        let found = self.player_in_mut(player)?;
        if !found.connected {
            return Err(NotTaken::NotConnected { player });
        }
        match self.actions.offer(player, id, json) {
            Offer::Queued => {}
            Offer::Repeat => self.want_attention(),
            Offer::Refused => {
                if let Some(found) = self.players.get_mut(usize::from(player)) {
                    found.counters.actions_refused += 1;
                }
                self.want_attention();
            }
            Offer::TooMany => return Err(NotTaken::TooManyActions { player }),
        }
        Ok(())
    }

    /// Takes note of inputs that came together, each with its frame: as [`handle`](Room::handle) does of one.
    ///
    /// # Errors
    /// Why none of them has an effect.
    pub fn handle_inputs<'a>(
        &mut self,
        now_us: u64,
        player: u16,
        inputs: impl Iterator<Item = (u32, &'a [u8])>,
    ) -> Result<(), NotTaken> {
        self.now_us = self.now_us.max(now_us);
        if self.phase == Phase::Closed {
            return Err(NotTaken::Closed);
        }
        let (next_frame, now_us, schedule) = (self.next_frame, self.now_us, self.schedule());
        let in_game = matches!(self.phase, Phase::Cutscene | Phase::Countdown | Phase::Running);
        let slot = usize::from(player);
        let Some(found) = self.players.get_mut(slot) else { return Err(NotTaken::UnknownPlayer { player }) };
        let (Some(schedule), true, true) = (schedule, in_game, found.is_in()) else {
            // Datagrams in flight when the phase changes are the usual case.
            let received = inputs.count() as u64;
            found.counters.received += received;
            found.counters.out_of_game += received;
            return Ok(());
        };
        for (frame, bytes) in inputs {
            let verdict = self.inputs.offer(slot, next_frame, frame, bytes);
            let counters = &mut found.counters;
            counters.received += 1;
            *match verdict {
                Verdict::Taken => &mut counters.taken,
                Verdict::Late => &mut counters.late,
                Verdict::Behind => &mut counters.behind,
                Verdict::Ahead => &mut counters.ahead,
                Verdict::Duplicate => &mut counters.duplicate,
                Verdict::Conflicting => &mut counters.conflicting,
                Verdict::TooLong => &mut counters.too_long,
            } += 1;
            // Of the copies of one input in many datagrams only the first says something: when its frame is due is worked out for that one alone.
            found.margin.note(frame, verdict, || {
                // Half an hour either way is as good as forever.
                let margin_us = i128::from(schedule.due_us(frame)) - i128::from(now_us);
                margin_us.clamp(i128::from(i32::MIN), i128::from(i32::MAX)) as i32
            });
        }
        Ok(())
    }

    /// Puts the start off to a moment of this beat. A start that is scheduled already stays.
    pub const fn set_beat(&mut self, beat: Beat) {
        self.beat = Some(beat);
    }

    /// When [`step`](Room::step) has something to do next, in microseconds; none once the room is closed.
    #[must_use]
    pub fn next_due_us(&self) -> Option<u64> {
        let deadline = match self.phase {
            Phase::Closed => return None,
            Phase::Running => self.tick_due_us(self.next_frame).unwrap_or(self.now_us),
            _ => self.phase_due_us,
        };
        let mut due = deadline.min(self.attention_us.unwrap_or(u64::MAX));
        if !self.phase.is_over() {
            for player in &self.players {
                due = due.min(player.grace_due_us(self.limits.reconnect_grace_us).unwrap_or(u64::MAX));
            }
        }
        Some(due)
    }

    /// Does everything that is due at `now_us`, with at most `catch_up_ticks_max` ticks, and hands what leaves the room to `out`.
    pub fn step(&mut self, now_us: u64, rules: &mut Supervisor, out: &mut dyn FnMut(Departure<'_>)) {
        self.now_us = self.now_us.max(now_us);
        self.attention_us = None;
        if self.phase == Phase::Closed {
            return;
        }
        if !self.phase.is_over() {
            self.expire_connections();
            self.tell_news(out);
        }
        if let Some(reason) = self.abort.take() {
            if self.phase.is_over() {
                self.close(out);
                return;
            }
            self.abort(reason, None, out);
        }
        let mut ticks = 0;
        // Each turn moves the phase on, takes a step of the countdown or runs a tick; all three are bounded.
        while self.advance(&mut ticks, rules, out) {}
        if ticks > 1 {
            self.counters.catch_ups += 1;
        }
        self.actions.tell(|player, id, outcome| out(Departure::ActionResult { player, id, outcome }));
    }

    /// Asks for the memory that the next step comes to, behind the room's own pointers and those of its rules. Rooms that are due together are warmed one after
    /// the other and then stepped: a processor fetches many lines at a time, and a step comes to its lines one by one.
    pub fn warm(&self, rules: &Supervisor, ask: impl Ask) {
        ask_for(self.players.as_slice(), ask);
        self.inputs.warm(self.next_frame, ask);
        ask_for(self.record.bytes(), ask);
        rules.warm(ask);
    }

    /// Where in a room the parts are that inputs come to, as distances in bytes: to be asked for before [`warm_inputs`](Room::warm_inputs).
    pub const INPUT_PARTS: [usize; 8] = [
        offset_of!(Self, phase),
        offset_of!(Self, now_us),
        offset_of!(Self, next_frame),
        offset_of!(Self, start_us),
        offset_of!(Self, counters) + offset_of!(RoomCounters, ticks_lost),
        offset_of!(Self, players),
        offset_of!(Self, inputs),
        offset_of!(Self, inputs) + size_of::<InputCache>() - 1,
    ];

    /// Asks for the memory that the next inputs of a player come to, behind the room's pointers.
    pub fn warm_inputs(&self, player: u16, ask: impl Ask) {
        let slot = usize::from(player);
        if let Some(player) = self.players.get(slot) {
            ask_for(player, ask);
            self.inputs.warm_of(slot, self.next_frame, ask);
        }
    }

    /// Where the room is in its life.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The frame that was stepped last; none before frame 0.
    #[must_use]
    pub const fn frame(&self) -> Option<u32> {
        self.next_frame.checked_sub(1)
    }

    /// When a frame is due, or was due after the last shift of the schedule, in microseconds; none before the start is scheduled.
    #[must_use]
    pub fn tick_due_us(&self, frame: u32) -> Option<u64> {
        self.schedule().map(|schedule| schedule.due_us(frame))
    }

    /// The room's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The manifest of the rules that the room has now.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The player slots, in order.
    pub fn players(&self) -> impl ExactSizeIterator<Item = PlayerView<'_>> {
        self.players.iter().enumerate().map(|(slot, player)| PlayerView {
            name: &player.name,
            joined: player.joined,
            connected: player.connected,
            ready: player.ready,
            left: player.left,
            last_action_id: self.actions.last_id(slot),
            margin_us: player.margin.worst_us(),
            counters: player.counters,
        })
    }

    /// One player slot.
    #[must_use]
    pub fn player(&self, player: u16) -> Option<PlayerView<'_>> {
        self.players().nth(usize::from(player))
    }

    /// What the room did so far.
    #[must_use]
    pub const fn counters(&self) -> RoomCounters {
        self.counters
    }

    /// The public events after number `seq` (0: all), as far as they are kept.
    #[must_use]
    pub fn events_after(&self, seq: u64) -> EventsAfter<'_> {
        self.history.after(seq)
    }

    // Bookkeeping.

    fn schedule(&self) -> Option<Schedule> {
        let start_us = self.start_us?;
        Some(Schedule { start_us, tick_hz: self.tick_hz, ticks_lost: self.counters.ticks_lost })
    }

    fn want_attention(&mut self) {
        self.attention_us.get_or_insert(self.now_us);
    }

    fn player_mut(&mut self, player: u16) -> Result<&mut Player, NotTaken> {
        self.players.get_mut(usize::from(player)).ok_or(NotTaken::UnknownPlayer { player })
    }

    /// A player that is not out.
    fn player_in_mut(&mut self, player: u16) -> Result<&mut Player, NotTaken> {
        let found = self.player_mut(player)?;
        match found.left {
            Some(reason) => Err(NotTaken::PlayerLeft { player, reason }),
            None => Ok(found),
        }
    }

    /// Number of slots that were not given up.
    fn left_in_room(&self) -> usize {
        self.players.iter().filter(|player| player.left.is_none()).count()
    }

    fn has_too_few(&self) -> bool {
        self.left_in_room() < usize::from(self.manifest.players_min)
    }

    fn slots_in(&self) -> Vec<u16> {
        (0u16..).zip(&self.players).filter(|(_, player)| player.is_in()).map(|(slot, _)| slot).collect()
    }

    /// Puts a player out of the room. Telling it comes with the next news.
    fn put_out(&mut self, player: u16, reason: LeftReason) {
        let slot = usize::from(player);
        let Some(found) = self.players.get_mut(slot) else { return };
        if found.left.is_some() {
            return;
        }
        let was_in = found.joined;
        found.left = Some(reason);
        found.connected = false;
        let counters = &mut found.counters;
        self.actions.refuse_waiting(Some(player), |_| counters.actions_refused += 1);
        self.inputs.forget(slot);
        self.news.push(News::Left(player, reason));
        if was_in && self.phase == Phase::Running {
            self.changes.push(Change { player, kind: ChangeKind::Left(reason.for_rules()) });
        }
    }

    /// Puts every player out to whom `reason_of` gives a reason.
    fn put_out_where(&mut self, reason: LeftReason, is_out: impl Fn(&Player) -> bool) {
        for slot in 0u16..self.players.len() as u16 {
            if self.players.get(usize::from(slot)).is_some_and(|player| player.left.is_none() && is_out(player)) {
                self.put_out(slot, reason);
            }
        }
    }

    fn expire_connections(&mut self) {
        let (now_us, grace_us) = (self.now_us, self.limits.reconnect_grace_us);
        self.put_out_where(LeftReason::ConnectionLost, |player| {
            player.grace_due_us(grace_us).is_some_and(|due_us| due_us <= now_us)
        });
    }

    // Telling.

    fn tell_public(&mut self, name: &str, frame: Option<u32>, json: &str, out: &mut dyn FnMut(Departure<'_>)) -> u64 {
        let seq = self.history.push(name, frame, self.now_us, json);
        self.counters.public_events = self.history.last_seq();
        self.counters.public_events_dropped = self.history.dropped();
        out(Departure::PublicEvent(PublicEvent { seq, name, frame, at_us: self.now_us, json }));
        seq
    }

    fn tell_internal(&self, kind: &str, data: impl Serialize, out: &mut dyn FnMut(Departure<'_>)) {
        let json = payloads::text(&payloads::OfRoom { room: &self.id, data });
        out(Departure::InternalEvent { source: EventSource::Room, kind, frame: None, json: &json });
    }

    fn tell_news(&mut self, out: &mut dyn FnMut(Departure<'_>)) {
        // Taken out and put back, to keep what was allocated.
        let mut news = std::mem::take(&mut self.news);
        for piece in news.drain(..) {
            let (News::Joined(player) | News::Ready(player) | News::Left(player, _)) = piece;
            let name = self.players.get(usize::from(player)).map(|found| found.name.clone()).unwrap_or_default();
            let named = payloads::PlayerNamed { player, name: &name };
            match piece {
                News::Joined(_) => {
                    self.tell_public("player_joined", None, &payloads::text(&named), out);
                    self.tell_internal("player.joined", named, out);
                }
                News::Ready(_) => {
                    self.tell_public("player_ready", None, &payloads::text(&named), out);
                }
                News::Left(_, reason) => {
                    let left = payloads::PlayerLeft { player, name: &name, reason: reason.as_str() };
                    self.tell_public("player_left", None, &payloads::text(&left), out);
                    self.tell_internal("player.left", left, out);
                    out(Departure::PlayerLeft { player, reason });
                }
            }
        }
        self.news = news;
    }

    // Life.

    fn enter(&mut self, phase: Phase, out: &mut dyn FnMut(Departure<'_>)) {
        self.phase = phase;
        out(Departure::PhaseChanged { phase });
    }

    /// Does the next thing that is due. False if nothing is.
    fn advance(&mut self, ticks: &mut u32, rules: &mut Supervisor, out: &mut dyn FnMut(Departure<'_>)) -> bool {
        if self.phase < Phase::Running && self.has_too_few() {
            self.abort(AbortReason::NotEnoughPlayers, None, out);
            return true;
        }
        let is_due = self.phase_due_us <= self.now_us;
        match self.phase {
            Phase::Gathering => {
                if !is_due && self.players.iter().any(|player| player.left.is_none() && !player.connected) {
                    return false;
                }
                self.put_out_where(LeftReason::NeverCame, |player| !player.joined);
                self.tell_news(out);
                if !self.has_too_few() {
                    self.phase_due_us = self.now_us.saturating_add(self.limits.ready_wait_us);
                    self.enter(Phase::Readying, out);
                }
                true
            }
            Phase::Readying => {
                if !is_due && self.players.iter().any(|player| player.left.is_none() && !player.ready) {
                    return false;
                }
                self.put_out_where(LeftReason::NotReady, |player| !player.ready);
                self.tell_news(out);
                if !self.has_too_few() {
                    self.schedule_start(out);
                }
                true
            }
            Phase::Cutscene | Phase::Countdown => {
                if is_due {
                    self.count_down(out);
                }
                is_due
            }
            Phase::Running => self.advance_running(ticks, rules, out),
            Phase::Finished | Phase::Aborted => {
                if is_due {
                    self.close(out);
                }
                is_due
            }
            Phase::Closed => false,
        }
    }

    fn schedule_start(&mut self, out: &mut dyn FnMut(Departure<'_>)) {
        let duration_ms = self.manifest.cutscene_ms;
        self.countdown_remaining = self.manifest.countdown_steps;
        self.countdown_step_us = u64::from(self.manifest.countdown_step_ms) * 1000;
        let countdown_us = self.countdown_step_us * u64::from(self.countdown_remaining);
        let cutscene_us = u64::from(duration_ms) * 1000;
        let ready_us = self.now_us.saturating_add(cutscene_us).saturating_add(countdown_us);
        let start_us = self.beat.map_or(ready_us, |beat| beat.next_us(ready_us));
        // What is put off is the countdown, so that its steps keep their length.
        self.phase_due_us = start_us.saturating_sub(countdown_us);
        self.start_us = Some(start_us);
        if duration_ms > 0 {
            self.enter(Phase::Cutscene, out);
            self.tell_public("cutscene", None, &payloads::text(&payloads::Cutscene { duration_ms }), out);
        } else if self.phase_due_us > self.now_us {
            // It waits for its beat, and tells nothing before.
            self.enter(Phase::Countdown, out);
        } else {
            self.count_down(out);
        }
    }

    /// The next step of the countdown, or the start of the game.
    fn count_down(&mut self, out: &mut dyn FnMut(Departure<'_>)) {
        let remaining = self.countdown_remaining;
        if remaining > 0 {
            if self.phase != Phase::Countdown {
                self.enter(Phase::Countdown, out);
            }
            self.countdown_remaining -= 1;
            self.phase_due_us = self.phase_due_us.saturating_add(self.countdown_step_us);
            self.tell_public("countdown", None, &payloads::text(&payloads::Countdown { remaining }), out);
            return;
        }
        self.enter(Phase::Running, out);
        let players = self.slots_in();
        self.changes.extend(players.iter().map(|player| Change { player: *player, kind: ChangeKind::Joined }));
        let started = payloads::Started { frame: 0, tick_hz: self.tick_hz, players: &players };
        self.tell_public("started", None, &payloads::text(&started), out);
        self.tell_internal("room.started", started, out);
    }

    fn advance_running(&mut self, ticks: &mut u32, rules: &mut Supervisor, out: &mut dyn FnMut(Departure<'_>)) -> bool {
        let (Some(start_us), Some(due_us)) = (self.start_us, self.tick_due_us(self.next_frame)) else { return false };
        if due_us > self.now_us {
            return false;
        }
        if *ticks >= self.limits.catch_up_ticks_max.max(1) {
            // The first tick that is due after now: ticks × 1,000,000 / tick_hz, rounded down, above the time since the start.
            let since_us = u128::from(self.now_us.saturating_sub(start_us));
            let first = ((since_us + 1) * u128::from(self.tick_hz)).div_ceil(1_000_000);
            let planned = u128::from(self.next_frame) + u128::from(self.counters.ticks_lost);
            let count = u64::try_from(first.saturating_sub(planned)).unwrap_or(u64::MAX);
            self.counters.ticks_lost = self.counters.ticks_lost.saturating_add(count);
            out(Departure::TicksLost { count, next_frame: self.next_frame });
            return false;
        }
        *ticks += 1;
        self.tick(rules, out);
        true
    }

    /// The rules finished the game in `frame`.
    fn finish(&mut self, frame: u32, results: &str, out: &mut dyn FnMut(Departure<'_>)) {
        let frames = frame.saturating_add(1);
        self.end(Phase::Finished, out);
        // Checked before; a text that were not JSON would have been a fault.
        let raw: &RawValue = serde_json::from_str(results).unwrap_or(RawValue::NULL);
        let json = payloads::text(&payloads::Finished { frames, results: raw });
        self.tell_public("finished", Some(frame), &json, out);
        self.tell_internal("room.finished", self.ended_record(frames, None, None, Some(raw)), out);
        out(Departure::Ended { outcome: Outcome::Finished { frames, results } });
    }

    fn abort(&mut self, reason: AbortReason, fault: Option<&Fault>, out: &mut dyn FnMut(Departure<'_>)) {
        let frames = self.next_frame;
        let frame = self.frame().unwrap_or(0);
        if let Some(fault) = fault {
            out(Departure::RulesFault { frame, fault });
        }
        self.end(Phase::Aborted, out);
        let kind = fault.map(|fault| fault.kind.as_str());
        let json = payloads::text(&payloads::Aborted { frames, reason: reason.as_str(), fault: kind });
        let brought_about_by = match reason {
            AbortReason::EveryoneLeft | AbortReason::TooLong | AbortReason::RulesFault => self.frame(),
            AbortReason::NotEnoughPlayers | AbortReason::HostStopping | AbortReason::Requested => None,
        };
        self.tell_public("aborted", brought_about_by, &json, out);
        let fault =
            fault.map(|fault| payloads::FaultRecord { kind: fault.kind.as_str(), message: &fault.message, frame });
        self.tell_internal("room.aborted", self.ended_record(frames, Some(reason.as_str()), fault, None), out);
        out(Departure::Ended { outcome: Outcome::Aborted { frames, reason } });
    }

    fn end(&mut self, phase: Phase, out: &mut dyn FnMut(Departure<'_>)) {
        let players = &mut self.players;
        self.actions.refuse_waiting(None, |player| {
            if let Some(player) = players.get_mut(usize::from(player)) {
                player.counters.actions_refused += 1;
            }
        });
        self.changes.clear();
        self.ended_as = phase.as_str();
        self.phase_due_us = self.now_us.saturating_add(self.limits.linger_us);
        self.enter(phase, out);
    }

    fn ended_record<'a>(
        &'a self,
        frames: u32,
        reason: Option<&'a str>,
        fault: Option<payloads::FaultRecord<'a>>,
        results: Option<&'a RawValue>,
    ) -> payloads::RoomEnded<'a> {
        let players = (0u16..).zip(&self.players).map(|(player, found)| payloads::PlayerRecord {
            player,
            name: &found.name,
            left: found.left.map(LeftReason::as_str),
            inputs: found.counters,
        });
        let players = players.collect();
        payloads::RoomEnded { frames, reason, fault, results, players, counters: self.counters }
    }

    fn close(&mut self, out: &mut dyn FnMut(Departure<'_>)) {
        self.actions.tell(|player, id, outcome: ActionOutcome| out(Departure::ActionResult { player, id, outcome }));
        self.enter(Phase::Closed, out);
        self.tell_internal("room.closed", payloads::RoomClosed { outcome: self.ended_as }, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The words of the formula in numbers that cannot overflow.
        #[test]
        fn a_frame_is_due_when_the_formula_says(
            start_us: u64,
            tick_hz in 1u32..=128,
            ticks_lost in prop_oneof![0u64..1_000, any::<u64>()],
            frame: u32,
        ) {
            let ticks = (u128::from(frame) + u128::from(ticks_lost)).min(u64::MAX.into());
            let due_us = u128::from(start_us) + ticks * 1_000_000 / u128::from(tick_hz);
            let expected = u64::try_from(due_us).unwrap_or(u64::MAX);
            prop_assert_eq!(Schedule { start_us, tick_hz, ticks_lost }.due_us(frame), expected);
        }
    }
}
