//! What a shard leaves out while it has more to do than fits into its time, in a written order, and how it comes back. Pure: time comes in as microseconds of the
//! shard's clock. Who counts and who tells is the shard.
//!
//! # When
//!
//! A shard looks back at windows of [`WINDOW_US`]. It *overruns* in one in which it had hardly any rest (less than [`REST_LEAST_PERCENT`]) and its steps came late
//! ([`LATE_US`], [`LATE_STEPS_PERCENT`] of them). Both, because either alone says something else: a flood of datagrams takes all rest and makes no tick late, and a machine whose
//! other work keeps a shard from waking makes ticks late of a shard that rests: snapshots left out would help neither. After [`OVERRUN_WINDOWS`] such windows in a row it
//! sheds one level more.
//!
//! It is *calm* in a window with a rest of [`REST_CALM_PERCENT`]. After [`CALM_WINDOWS`] of these in a row it sheds one level less. If that was too early, because what it sends again
//! is too much, it sheds more at once and waits twice as long before it tries again, up to [`CALM_WINDOWS_MAX`]; once it has held for [`HELD_WINDOWS`], it is as patient as at
//! first. So a load that stays at the edge changes the level every half a minute and not every second.
//!
//! # What
//!
//! In the order of [`Level`], and back in the reverse one. A level that would leave out nothing, because nobody watches, is passed over. What is never left out: datagrams
//! of players and their inputs, ticks, events, answers. (A tick that comes too late for all that is lost, as [`holeshot_room::Limits::catch_up_ticks_max`] says, whatever is shed.)
//!
//! A snapshot that is left out looks to a client like one that the network lost: frames skip. Of one frame not all recipients are left out, but each has its own frames, by
//! its session: so every tick becomes cheaper, not every second one.

use super::session::SessionId;

/// How long a shard looks back, in microseconds: ten frames at 50 Hz, so that one frame with a pile of work is no overrun.
pub(super) const WINDOW_US: u64 = 200_000;
/// A step that comes later is late, in microseconds: a quarter of a frame at 50 Hz, which a player feels; and far more than the rooms of one look wait for each other.
pub(super) const LATE_US: u64 = 5_000;
/// The part of a window's steps that is late in an overrun, in percent: where the last tenth is late, the queue is not getting empty.
const LATE_STEPS_PERCENT: u64 = 10;
/// The rest below which a window may be an overrun, in percent of its time.
const REST_LEAST_PERCENT: u64 = 10;
/// The rest of a calm window, in percent: enough for a bit more than what the level before would add, and not so much that a shard that is well used never comes back.
const REST_CALM_PERCENT: u64 = 25;
/// Windows of overrun after which a shard sheds more: 0.4 s, all levels within two seconds.
const OVERRUN_WINDOWS: u32 = 2;
/// Calm windows after which it sheds less: a second.
const CALM_WINDOWS: u32 = 5;
/// The most that these become after relapses: half a minute.
const CALM_WINDOWS_MAX: u32 = 160;
/// Windows after which less shedding has proven itself: two seconds, a few times what an overrun needs to show.
const HELD_WINDOWS: u32 = 10;

/// What is left out: each level has all of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Level {
    /// Nothing.
    Nothing,
    /// Spectators get every second snapshot.
    SpectatorsHalf,
    /// Every fourth.
    SpectatorsQuarter,
    /// None. They keep their sessions and their events.
    SpectatorsNone,
    /// Players get every second snapshot.
    PlayersHalf,
    /// Every fourth.
    PlayersQuarter,
}

impl Level {
    const ALL: [Self; 6] = [
        Self::Nothing,
        Self::SpectatorsHalf,
        Self::SpectatorsQuarter,
        Self::SpectatorsNone,
        Self::PlayersHalf,
        Self::PlayersQuarter,
    ];

    /// In a log.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing is left out",
            Self::SpectatorsHalf => "spectators get every 2nd snapshot",
            Self::SpectatorsQuarter => "spectators get every 4th snapshot",
            Self::SpectatorsNone => "spectators get no snapshots",
            Self::PlayersHalf => "players get every 2nd snapshot, spectators none",
            Self::PlayersQuarter => "players get every 4th snapshot, spectators none",
        }
    }

    /// The nearest level, more or less of it, that leaves out something else than this one.
    fn next(self, is_more: bool, is_watched: bool) -> Option<Self> {
        let counts = |level: &&Self| is_watched || !level.is_for_spectators();
        let mut others = Self::ALL.iter().filter(counts).copied();
        if is_more { others.find(|level| *level > self) } else { others.rev().find(|level| *level < self) }
    }

    const fn is_for_spectators(self) -> bool {
        matches!(self, Self::SpectatorsHalf | Self::SpectatorsQuarter | Self::SpectatorsNone)
    }

    const fn leaves_out_for_player(self, turn: u32) -> bool {
        match self {
            Self::PlayersHalf => !turn.is_multiple_of(2),
            Self::PlayersQuarter => !turn.is_multiple_of(4),
            _ => false,
        }
    }

    const fn leaves_out_for_spectator(self, turn: u32) -> bool {
        match self {
            Self::Nothing => false,
            Self::SpectatorsHalf => !turn.is_multiple_of(2),
            Self::SpectatorsQuarter => !turn.is_multiple_of(4),
            Self::SpectatorsNone | Self::PlayersHalf | Self::PlayersQuarter => true,
        }
    }
}

/// What a window has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looked {
    /// Time without rest, in microseconds.
    pub(super) busy_us: u64,
    /// The same of the last second or so, in thousandths of the time.
    pub(super) busy_permille: u64,
    /// The level before, if it changed.
    pub(super) changed_from: Option<Level>,
}

/// The state of one shard.
///
/// # Contract
///
/// Tell it [`rested`](Self::rested) after each sleep and [`stepped`](Self::stepped) after each step with a frame; ask [`leaves_out_player`](Self::leaves_out_player) or
/// [`leaves_out_spectator`](Self::leaves_out_spectator) before each snapshot, and [`look`](Self::look) in every pass. Time never runs back.
#[derive(Debug)]
pub(super) struct Shed {
    level: Level,
    began_us: u64,
    rested_us: u64,
    steps: u64,
    late: u64,
    /// Whether anybody was sent what spectators see, or would have been.
    is_watched: bool,
    overruns: u32,
    calms: u32,
    /// Calm windows after which the level falls.
    patience: u32,
    /// Windows since the level fell.
    since_fall: u32,
    busy_permille: u64,
}

impl Shed {
    /// A shard that begins to run.
    pub(super) const fn new(now_us: u64) -> Self {
        Self {
            level: Level::Nothing,
            began_us: now_us,
            rested_us: 0,
            steps: 0,
            late: 0,
            is_watched: false,
            overruns: 0,
            calms: 0,
            patience: CALM_WINDOWS,
            since_fall: HELD_WINDOWS,
            busy_permille: 0,
        }
    }

    /// What is left out now.
    pub(super) const fn level(&self) -> Level {
        self.level
    }

    /// The shard slept for so long.
    pub(super) const fn rested(&mut self, us: u64) {
        self.rested_us = self.rested_us.saturating_add(us);
    }

    /// A step with a frame came so late.
    pub(super) const fn stepped(&mut self, late_us: u64) {
        self.steps += 1;
        self.late += (late_us > LATE_US) as u64;
    }

    /// Whether a player's snapshot is left out.
    pub(super) fn leaves_out_player(&self, to: SessionId, frame: u32) -> bool {
        self.level >= Level::PlayersHalf && self.level.leaves_out_for_player(turn(to, frame))
    }

    /// Whether a spectator's snapshot is left out.
    pub(super) fn leaves_out_spectator(&mut self, to: SessionId, frame: u32) -> bool {
        self.is_watched = true;
        self.level > Level::Nothing && self.level.leaves_out_for_spectator(turn(to, frame))
    }

    /// What the window has shown, if it is over.
    pub(super) fn look(&mut self, now_us: u64) -> Option<Looked> {
        let took_us = now_us.saturating_sub(self.began_us);
        if took_us < WINDOW_US {
            return None;
        }
        let rested_us = self.rested_us.min(took_us);
        let busy_us = took_us - rested_us;
        let permille = busy_us.saturating_mul(1_000) / took_us.max(1);
        // A quarter of each window: within a second most of the old is gone.
        self.busy_permille = (self.busy_permille * 3 + permille) / 4;
        let rest = |percent: u64| rested_us.saturating_mul(100) >= took_us.saturating_mul(percent);
        let is_late = self.steps > 0 && self.late * 100 >= self.steps * LATE_STEPS_PERCENT;
        let (is_overrun, is_calm) = (is_late && !rest(REST_LEAST_PERCENT), rest(REST_CALM_PERCENT));
        let before = self.level;
        self.judge(is_overrun, is_calm);
        (self.began_us, self.rested_us, self.steps, self.late, self.is_watched) = (now_us, 0, 0, 0, false);
        let changed_from = (self.level != before).then_some(before);
        Some(Looked { busy_us, busy_permille: self.busy_permille, changed_from })
    }

    fn judge(&mut self, is_overrun: bool, is_calm: bool) {
        self.overruns = if is_overrun { self.overruns + 1 } else { 0 };
        self.calms = if is_calm { self.calms.saturating_add(1) } else { 0 };
        self.since_fall = self.since_fall.saturating_add(1);
        if self.since_fall == HELD_WINDOWS {
            self.patience = CALM_WINDOWS;
        }
        if self.overruns >= OVERRUN_WINDOWS {
            self.overruns = 0;
            if self.since_fall < HELD_WINDOWS {
                self.patience = (self.patience * 2).min(CALM_WINDOWS_MAX);
                // One relapse, however many levels it takes.
                self.since_fall = HELD_WINDOWS;
            }
            self.level = self.level.next(true, self.is_watched).unwrap_or(self.level);
        } else if self.calms >= self.patience
            && let Some(level) = self.level.next(false, self.is_watched)
        {
            (self.level, self.calms, self.since_fall) = (level, 0, 0);
        }
    }
}

/// Whose turn it is in a frame: neighbours have different ones.
fn turn(to: SessionId, frame: u32) -> u32 {
    frame.wrapping_add(u32::try_from(to.place()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shard whose snapshots cost what is left of them: a load in percent of its time, of which a part is for snapshots.
    #[derive(Debug, Clone, Copy)]
    struct Load {
        rules: f64,
        players: f64,
        spectators: f64,
    }

    const HEAVY: Load = Load { rules: 30.0, players: 100.0, spectators: 0.0 };
    const LIGHT: Load = Load { rules: 5.0, players: 15.0, spectators: 0.0 };

    struct World {
        shed: Shed,
        now_us: u64,
        /// The levels that it had, each once in a row, and when each began.
        levels: Vec<(u64, Level)>,
    }

    impl World {
        fn new() -> Self {
            Self { shed: Shed::new(0), now_us: 0, levels: vec![(0, Level::Nothing)] }
        }

        fn demand(&self, load: Load) -> f64 {
            let share =
                |leaves_out: &dyn Fn(u32) -> bool| (0..4).filter(|turn| !leaves_out(*turn)).count() as f64 / 4.0;
            let level = self.shed.level();
            load.rules
                + load.players * share(&|turn| level.leaves_out_for_player(turn))
                + load.spectators * share(&|turn| level.leaves_out_for_spectator(turn))
        }

        /// Lets so many windows pass. In one that asks for more than there is the steps are late.
        fn windows(&mut self, count: usize, load: Load) -> Level {
            for _ in 0..count {
                let demand = self.demand(load);
                for step in 0..100_u64 {
                    self.shed.stepped(if demand > 100.0 { 4_000 + step * 100 } else { 300 });
                }
                if load.spectators > 0.0 {
                    self.shed.leaves_out_spectator(SessionId::from_bits(0), 0);
                }
                self.window((100.0 - demand).max(0.0));
            }
            self.shed.level()
        }

        /// A window with so much rest, in percent.
        fn window(&mut self, rest: f64) {
            self.now_us += WINDOW_US;
            assert_eq!(self.shed.look(self.now_us - 1), None, "too early");
            self.shed.rested((WINDOW_US as f64 * rest / 100.0) as u64);
            let looked = self.shed.look(self.now_us).expect("the window is over");
            assert_eq!(looked.busy_us, WINDOW_US - (WINDOW_US as f64 * rest / 100.0) as u64);
            if let Some(before) = looked.changed_from {
                assert_eq!(self.levels.last().unwrap().1, before);
                self.levels.push((self.now_us, self.shed.level()));
            }
        }

        fn seen(&self) -> Vec<Level> {
            self.levels.iter().map(|(_, level)| *level).collect()
        }
    }

    use Level::*;

    #[test]
    fn an_overload_sheds_in_the_written_order_and_comes_back_in_reverse() {
        let mut world = World::new();
        let heavy = Load { spectators: 300.0, ..HEAVY };
        let light = Load { spectators: 20.0, ..LIGHT };
        assert_eq!(world.windows(5, light), Nothing);
        assert_eq!(world.windows(OVERRUN_WINDOWS as usize - 1, heavy), Nothing, "one bad window is none");
        assert_eq!(world.windows(20, heavy), PlayersHalf, "80 % fit");
        // Rules alone that are too much: all that may be left out is, and no more.
        assert_eq!(world.windows(500, Load { rules: 200.0, ..heavy }), PlayersQuarter);
        assert_eq!(world.windows(500, light), Nothing);
        let up = [Nothing, SpectatorsHalf, SpectatorsQuarter, SpectatorsNone, PlayersHalf, PlayersQuarter];
        let down = up.iter().rev().skip(1).copied();
        assert_eq!(world.seen(), up.into_iter().chain(down).collect::<Vec<_>>());
        // A window with less than its part of late steps, or with nothing but late ones and rest, is no overrun.
        for _ in 0..100 {
            (0..91).for_each(|_| world.shed.stepped(LATE_US));
            (0..9).for_each(|_| world.shed.stepped(LATE_US + 1));
            world.window(0.0);
            (0..50).for_each(|_| world.shed.stepped(50_000));
            world.window(10.0);
        }
        assert_eq!(world.shed.level(), Nothing);
    }

    #[test]
    fn where_nobody_watches_players_are_next() {
        let mut world = World::new();
        assert_eq!(world.windows(OVERRUN_WINDOWS as usize, HEAVY), PlayersHalf);
        assert_eq!(world.windows(3 * OVERRUN_WINDOWS as usize, Load { rules: 200.0, ..HEAVY }), PlayersQuarter);
        assert_eq!(world.windows(100, LIGHT), Nothing);
        assert_eq!(world.seen(), [Nothing, PlayersHalf, PlayersQuarter, PlayersHalf, Nothing]);
        // Spectators who come meanwhile get back what they are due in their turn.
        let mut world = World::new();
        world.windows(20, Load { rules: 200.0, ..HEAVY });
        world.windows(100, Load { spectators: 1.0, ..LIGHT });
        let back = [PlayersQuarter, PlayersHalf, SpectatorsNone, SpectatorsQuarter, SpectatorsHalf, Nothing];
        assert_eq!(world.seen()[2..], back);
    }

    #[test]
    fn a_load_at_the_edge_is_tried_ever_more_rarely() {
        // Fits with every second snapshot, with rest to spare, and does not with all of them.
        let edge = Load { rules: 10.0, players: 110.0, spectators: 0.0 };
        let mut world = World::new();
        let windows_per_minute = (60_000_000 / WINDOW_US) as usize;
        world.windows(10 * windows_per_minute, edge);
        let mut changes = [0; 10];
        world.levels.iter().for_each(|(at_us, _)| changes[(at_us / 60_000_001) as usize] += 1);
        assert!(changes[0] <= 14 && changes[5..].iter().all(|changes| *changes <= 4), "{changes:?}");
        assert!(changes.iter().all(|changes| *changes >= 1), "it goes on trying: {changes:?}");
        assert_eq!(world.shed.patience, CALM_WINDOWS_MAX);
        // Once it holds, it is as patient as at first.
        assert_eq!(world.windows(CALM_WINDOWS_MAX as usize + HELD_WINDOWS as usize, LIGHT), Nothing);
        assert_eq!(world.shed.patience, CALM_WINDOWS);
    }

    #[test]
    fn a_flood_and_a_machine_that_lets_the_shard_sleep_shed_nothing() {
        let mut world = World::new();
        for _ in 0..100 {
            // Datagrams all the time, and every step in time; nothing to step at all; no rest and no room.
            (0..100).for_each(|_| world.shed.stepped(60));
            world.window(0.0);
            world.window(0.0);
            // Woken 40 ms late for work of a few milliseconds.
            (0..10).for_each(|_| world.shed.stepped(40_000));
            world.window(85.0);
        }
        assert_eq!(world.seen(), [Nothing]);
    }

    #[test]
    fn everybody_gets_the_same_part_and_every_frame_becomes_cheaper() {
        let mut shed = Shed::new(0);
        let ids: Vec<SessionId> = (0..64).map(|place: u32| SessionId::from_bits(place << 8 | 3)).collect();
        for (level, players, spectators) in [
            (Nothing, 16, 16),
            (SpectatorsHalf, 16, 8),
            (SpectatorsQuarter, 16, 4),
            (SpectatorsNone, 16, 0),
            (PlayersHalf, 8, 0),
            (PlayersQuarter, 4, 0),
        ] {
            shed.level = level;
            for id in &ids {
                assert_eq!((0..16).filter(|frame| !shed.leaves_out_player(*id, *frame)).count(), players);
                assert_eq!((0..16).filter(|frame| !shed.leaves_out_spectator(*id, *frame)).count(), spectators);
            }
            for frame in u32::MAX - 4..=u32::MAX {
                let sent = ids.iter().filter(|id| !shed.leaves_out_player(**id, frame)).count();
                assert_eq!(sent, 4 * players, "{level:?}");
            }
        }
        assert!(Level::ALL.is_sorted() && Level::ALL.iter().all(|level| !level.as_str().is_empty()));
    }

    #[test]
    fn what_is_told_as_busy_follows_within_a_second() {
        let mut world = World::new();
        (0..5).for_each(|_| world.window(20.0));
        assert!((600..=800).contains(&world.shed.busy_permille), "{}", world.shed.busy_permille);
        (0..10).for_each(|_| world.window(100.0));
        assert!(world.shed.busy_permille < 50, "{}", world.shed.busy_permille);
        // More rest than time: a clock that was read a moment later.
        world.shed.rested(WINDOW_US * 2);
        assert_eq!(world.shed.look(world.now_us + WINDOW_US).map(|looked| looked.busy_us), Some(0));
    }
}
