//! The load generator: rooms full of players from few threads, so that it costs much less than the host that they play on.
//!
//! Each player is a real one for the host: a ticket, a WebSocket with the handshake, sealed datagrams with the last inputs repeated, answers to snapshots
//! by a player's program of [`crate::bots`], or inputs that a journal has. What a client library does for a person is left out: no reconnecting, no falling back to
//! the WebSocket. Between the players and the host there may be a bad network.
//!
//! - [`impairment`]: the bad network, as dice and a queue; pure. [`ledger`]: the account of inputs by the counters of both sides; pure.
//!   [`observed`]: what players saw, as histograms.
//! - `thread.rs` has the datagrams of many players on few sockets, `member.rs` is one of them, [`recording`] what a journal's players sent.
//! - `session.rs` opens sessions and keeps their WebSockets, on the runtime; `room.rs` plays one room after the other.
//! - [`run`] is `holeshot load`: a load for a while, and what came of it; [`report`] tells it as text and JSON, [`page`] as HTML.

pub mod impairment;
pub mod ledger;
mod member;
pub mod observed;
pub mod page;
mod recent;
pub mod recording;
pub mod report;
mod room;
pub mod run;
mod session;
mod thread;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::api::Api;
use crate::limits::files::{FILES_RESERVED, raise_limit};
use impairment::Impairment;
use ledger::Account;
use observed::Observed;
use recording::Recording;
use room::Club;
use thread::Threads;

/// Players of one generator: 4,000 rooms of two, twice what a host of two cores carries. Each has a WebSocket, so as many files are open.
pub const PLAYERS_MAX: usize = 8_000;
/// Threads for datagrams.
pub const THREADS_MAX: usize = 16;
/// Players on one socket, unless asked otherwise: where the system gives its usual 208 KiB for a socket and no 4 MiB, its buffer holds what comes for them in 170 ms,
/// and a look at a socket that has nothing (0.3 µs) is shared by all of them.
pub const PLAYERS_PER_SOCKET: usize = 64;
/// Most players on one socket: their snapshots of 36 ms fit into 4 MiB, whatever their size.
pub const PLAYERS_PER_SOCKET_MAX: usize = 1_000;
/// Rooms opened in a second, at most: more than a host lets in from one address.
pub const RAMP_ROOMS_PER_S_MAX: u32 = 1_000;
/// How long all games may take to begin, beyond what the game itself waits, in seconds.
const BEGIN_WAIT_MAX_S: u64 = 60;
/// How long players may take to leave, and the host's records to come, in seconds: those of all rooms come at the same time, some hundreds in a second.
const LEAVE_WAIT_MAX_S: u64 = 120;
/// How often it is looked whether something has happened, in milliseconds.
const LOOK_MS: u64 = 10;

/// What is played.
#[derive(Debug, Clone)]
pub struct Options {
    /// The name of the rules module; none for the host's default.
    pub module: Option<String>,
    /// Rooms.
    pub rooms: usize,
    /// Players of each.
    pub players: usize,
    /// Threads for their datagrams.
    pub threads: usize,
    /// Players who share a socket: 1 to [`PLAYERS_PER_SOCKET_MAX`].
    pub players_per_socket: usize,
    /// Decides what the players do, the rooms' own seeds, and the dice of the network.
    pub seed: u64,
    /// Rooms opened in a second; none: as fast as the host opens them.
    pub ramp_rooms_per_s: Option<u32>,
    /// The network between the players and the host.
    pub impairment: Impairment,
    /// Inputs that are sent instead of a program's. It decides the module and the number of players, too.
    pub recording: Option<Arc<Recording>>,
    /// Whether rooms whose game is over are opened anew, so that the load stays.
    pub open_anew: bool,
    /// Whether the host's count of inputs is compared with the players' own: asks for the record of each room that ended.
    pub compare: bool,
}

impl Default for Options {
    /// One room of two players on one thread, over the network as it is, once.
    fn default() -> Self {
        Self {
            module: None,
            rooms: 1,
            players: 2,
            threads: 1,
            players_per_socket: PLAYERS_PER_SOCKET,
            seed: 0,
            ramp_rooms_per_s: None,
            impairment: Impairment::default(),
            recording: None,
            open_anew: false,
            compare: false,
        }
    }
}

impl PartialEq for Options {
    /// Two recordings are the same if they are one.
    fn eq(&self, other: &Self) -> bool {
        let facts = |options: &Self| {
            let Self { rooms, players, threads, players_per_socket, seed, .. } = *options;
            let Self { ramp_rooms_per_s, impairment, open_anew, compare, .. } = *options;
            (rooms, players, threads, players_per_socket, seed, ramp_rooms_per_s, impairment, open_anew, compare)
        };
        let recording = |options: &Self| options.recording.as_ref().map(Arc::as_ptr);
        facts(self) == facts(other) && self.module == other.module && recording(self) == recording(other)
    }
}

impl Eq for Options {}

impl Options {
    /// Looks at the ranges.
    ///
    /// # Errors
    /// Which option is out of its range, and what is accepted.
    pub fn check(&self) -> anyhow::Result<()> {
        let Self { rooms, players, threads, players_per_socket, .. } = *self;
        let all = rooms.saturating_mul(players);
        if all == 0 || all > PLAYERS_MAX {
            bail!("{rooms} rooms of {players} players; one generator plays 1 to {PLAYERS_MAX} players");
        }
        if !(1..=THREADS_MAX).contains(&threads) {
            bail!("1 to {THREADS_MAX} threads, not {threads}");
        }
        if !(1..=PLAYERS_PER_SOCKET_MAX).contains(&players_per_socket) {
            bail!("1 to {PLAYERS_PER_SOCKET_MAX} players can share a socket, not {players_per_socket}");
        }
        if let Some(per_s) = self.ramp_rooms_per_s.filter(|per_s| !(1..=RAMP_ROOMS_PER_S_MAX).contains(per_s)) {
            bail!("1 to {RAMP_ROOMS_PER_S_MAX} rooms can be opened in a second, not {per_s}");
        }
        self.impairment.check()?;
        if let Some(recording) = &self.recording {
            if recording.players() != players {
                bail!("the journal has {} players and each room {players}", recording.players());
            }
            if self.module.as_deref().is_some_and(|module| module != recording.module()) {
                bail!("the journal is of the game {:?} and no other can be played with it", recording.module());
            }
        }
        Ok(())
    }
}

/// What happens to sessions and rooms, all together.
#[derive(Debug, Default)]
struct Counters {
    rooms_opened: AtomicU64,
    rooms_not_opened: AtomicU64,
    games_started: AtomicU64,
    games_over: AtomicU64,
    sessions_lost: AtomicU64,
}

/// What the players of one thread count.
#[derive(Debug, Clone, Default)]
struct Tally {
    snapshots: u64,
    snapshots_missed: u64,
    snapshots_late: u64,
    inputs: u64,
    datagrams_unsent: u64,
    refused: u64,
    lost_up: u64,
    lost_down: u64,
    no_place: u64,
    late_us_max: u64,
    observed: Observed,
    /// Which sockets the players have, in the system's tables.
    sockets: Vec<Option<u64>>,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.snapshots += other.snapshots;
        self.snapshots_missed += other.snapshots_missed;
        self.snapshots_late += other.snapshots_late;
        self.inputs += other.inputs;
        self.datagrams_unsent += other.datagrams_unsent;
        self.refused += other.refused;
        self.lost_up += other.lost_up;
        self.lost_down += other.lost_down;
        self.no_place += other.no_place;
        self.late_us_max = self.late_us_max.max(other.late_us_max);
        self.observed.add(&other.observed);
    }
}

/// A moment's counts, all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Whole snapshots that came.
    pub snapshots: u64,
    /// Frames between them of which none came.
    pub snapshots_missed: u64,
    /// Of those that came, those more than a tick later than the quickest of the last second.
    pub snapshots_late: u64,
    /// Frames for which an input was sent.
    pub inputs: u64,
    /// Datagrams that the system did not take.
    pub datagrams_unsent: u64,
    /// Datagrams that were not the host's, or came after a game was over.
    pub refused: u64,
    /// Datagrams to the host that the bad network lost.
    pub lost_up: u64,
    /// Datagrams from the host that the bad network lost.
    pub lost_down: u64,
    /// Datagrams that found no place in the bad network's queue: this generator is too small for what is asked of it.
    pub no_place: u64,
    /// Rooms opened.
    pub rooms_opened: u64,
    /// Times that a room was not opened.
    pub rooms_not_opened: u64,
    /// Players whose game began.
    pub games_started: u64,
    /// Players whose game is over.
    pub games_over: u64,
    /// Players whose WebSocket ended.
    pub sessions_lost: u64,
    /// How much later than it wanted a thread looked at its socket, at worst, in microseconds.
    pub late_us_max: u64,
}

impl Counts {
    /// What came since an earlier moment; the worst lateness is that of the whole time.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            snapshots: self.snapshots.saturating_sub(earlier.snapshots),
            snapshots_missed: self.snapshots_missed.saturating_sub(earlier.snapshots_missed),
            snapshots_late: self.snapshots_late.saturating_sub(earlier.snapshots_late),
            inputs: self.inputs.saturating_sub(earlier.inputs),
            datagrams_unsent: self.datagrams_unsent.saturating_sub(earlier.datagrams_unsent),
            refused: self.refused.saturating_sub(earlier.refused),
            lost_up: self.lost_up.saturating_sub(earlier.lost_up),
            lost_down: self.lost_down.saturating_sub(earlier.lost_down),
            no_place: self.no_place.saturating_sub(earlier.no_place),
            rooms_opened: self.rooms_opened.saturating_sub(earlier.rooms_opened),
            rooms_not_opened: self.rooms_not_opened.saturating_sub(earlier.rooms_not_opened),
            games_started: self.games_started.saturating_sub(earlier.games_started),
            games_over: self.games_over.saturating_sub(earlier.games_over),
            sessions_lost: self.sessions_lost.saturating_sub(earlier.sessions_lost),
            late_us_max: self.late_us_max,
        }
    }
}

/// Players who play.
#[derive(Debug)]
pub struct Load {
    club: Arc<Club>,
    options: Options,
    threads: Threads,
    rooms: JoinSet<()>,
    leave: watch::Sender<bool>,
}

/// What is left of a load that was stopped.
#[derive(Debug, Clone, PartialEq)]
pub struct Stopped {
    /// What the players counted, to the end.
    pub counts: Counts,
    /// The inputs by the counters of both sides, if [`Options::compare`] asked for it.
    pub account: Account,
    /// Datagrams that this machine dropped before the players read them; none where the system does not say.
    pub dropped: Option<u64>,
    /// Why the first room that could not be opened was not, or why the host's count is not known.
    pub trouble: Option<String>,
}

impl Load {
    /// Opens the rooms and lets the players in; their games begin soon after.
    ///
    /// # Errors
    /// Options out of range, or a host that does not do what it should.
    pub async fn start(api: &Api, options: &Options) -> anyhow::Result<Self> {
        let load = Self::begin(api, options)?;
        while load.opening()? > 0 {
            sleep(Duration::from_millis(LOOK_MS)).await;
        }
        Ok(load)
    }

    /// Begins to open the rooms and does not wait for it: [`opening`](Self::opening) tells how far it is.
    ///
    /// # Errors
    /// Options out of range, or fewer open files than players.
    pub fn begin(api: &Api, options: &Options) -> anyhow::Result<Self> {
        options.check()?;
        let all = options.rooms.saturating_mul(options.players);
        // Each WebSocket is a file, and a room that is opened has a connection of its own.
        if let Some(files) = raise_limit().filter(|files| *files < all as u64 + FILES_RESERVED) {
            bail!(
                "{all} players need {} open files, and the system lets this process have {files}; raise it (ulimit -n) or play with fewer",
                all as u64 + FILES_RESERVED
            );
        }
        let (threads, orders) = Threads::start(options.threads, options.players_per_socket)?;
        let (leave, left) = watch::channel(false);
        let club = Arc::new(Club::new(api.clone(), options.clone(), orders));
        let mut rooms = JoinSet::new();
        let begun = tokio::time::Instant::now();
        for number in 0..options.rooms {
            let wait = options.ramp_rooms_per_s.map_or(0.0, |per_s| number as f64 / f64::from(per_s.max(1)));
            rooms.spawn(Arc::clone(&club).play(number, begun + Duration::from_secs_f64(wait), left.clone()));
        }
        Ok(Self { club, options: options.clone(), threads, rooms, leave })
    }

    /// How many rooms are still to be opened.
    ///
    /// # Errors
    /// One could not be opened, in the host's words.
    pub fn opening(&self) -> anyhow::Result<usize> {
        let read = |counter: &AtomicU64| usize::try_from(counter.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let counters = &self.club.counters;
        let left = self.options.rooms.saturating_sub(read(&counters.rooms_opened));
        if left > 0 && read(&counters.rooms_not_opened) > 0 {
            bail!("{}", self.trouble().unwrap_or_else(|| "a room was not opened".to_owned()));
        }
        Ok(left)
    }

    /// Why the first room that could not be opened was not, or why the host's count is not known.
    fn trouble(&self) -> Option<String> {
        self.club.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the game of every player has begun.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn begun(&self) -> anyhow::Result<()> {
        let players = self.options.rooms * self.options.players;
        let until = Instant::now() + Duration::from_secs(BEGIN_WAIT_MAX_S);
        loop {
            let started = self.club.counters.games_started.load(Ordering::Relaxed);
            if started >= players as u64 {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("the games of {started} of {players} players began within {BEGIN_WAIT_MAX_S} s");
            }
            sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }

    /// What the players counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts_of(&self.threads.tally())
    }

    /// What the players saw so far: copies of the threads' histograms, added up.
    #[must_use]
    pub fn observed(&self) -> Observed {
        self.threads.tally().observed
    }

    fn counts_of(&self, tally: &Tally) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.club.counters;
        Counts {
            snapshots: tally.snapshots,
            snapshots_missed: tally.snapshots_missed,
            snapshots_late: tally.snapshots_late,
            inputs: tally.inputs,
            datagrams_unsent: tally.datagrams_unsent,
            refused: tally.refused,
            lost_up: tally.lost_up,
            lost_down: tally.lost_down,
            no_place: tally.no_place,
            rooms_opened: read(&counters.rooms_opened),
            rooms_not_opened: read(&counters.rooms_not_opened),
            games_started: read(&counters.games_started),
            games_over: read(&counters.games_over),
            sessions_lost: read(&counters.sessions_lost),
            late_us_max: tally.late_us_max,
        }
    }

    /// Lets everybody leave.
    ///
    /// # Errors
    /// If a thread ended before it should.
    pub async fn stop(mut self) -> anyhow::Result<Stopped> {
        let _nobody_there = self.leave.send(true);
        let all_left = async { while self.rooms.join_next().await.is_some() {} };
        let in_time = tokio::time::timeout(Duration::from_secs(LEAVE_WAIT_MAX_S), all_left).await.is_ok();
        let stopped = Stopped {
            counts: self.counts(),
            account: *self.club.account.lock().unwrap_or_else(PoisonError::into_inner),
            dropped: self.threads.dropped(),
            trouble: self.trouble(),
        };
        let Self { club, threads, rooms, .. } = self;
        // With the last of them the orders are gone, and the threads end.
        drop((rooms, club));
        let ended = tokio::task::spawn_blocking(move || threads.join());
        let ended = tokio::time::timeout(Duration::from_secs(LEAVE_WAIT_MAX_S), ended).await;
        ended.context("the threads of players do not end")???;
        if !in_time {
            bail!("the host did not let all players go within {LEAVE_WAIT_MAX_S} s");
        }
        Ok(stopped)
    }
}
