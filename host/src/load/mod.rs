//! The load generator: rooms full of players from few threads, so that it costs much less than the host that they play on.
//!
//! Each player is a real one for the host: a ticket, a WebSocket with the handshake, sealed datagrams with the last inputs repeated, answers to snapshots
//! by a player's program of [`crate::bots`]. What a client library does for a person is left out: no reconnecting, no falling back to the WebSocket.
//! [`session`] opens sessions and keeps their WebSockets, on the runtime; [`thread`] has the datagrams of many players on one socket.

pub mod session;
pub mod thread;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::api::Api;
use crate::bots::{self, crowd};
use thread::Threads;

/// Rooms that are opened at a time: more only wait for each other at the host's doors.
const OPENING_MAX: usize = 8;
/// Players of one generator: their WebSockets stay below the usual limit of 1,024 open files.
pub const PLAYERS_MAX: usize = 900;
/// Threads for datagrams.
pub const THREADS_MAX: usize = 16;
/// How long all games may take to begin, beyond what the game itself waits, in seconds.
const BEGIN_WAIT_MAX_S: u64 = 60;
/// How long players may take to leave, in seconds.
const LEAVE_WAIT_MAX_S: u64 = 10;
/// How often it is looked whether something has happened, in milliseconds.
const LOOK_MS: u64 = 10;

/// What is played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The name of the rules module; none for the host's default.
    pub module: Option<String>,
    /// Rooms.
    pub rooms: usize,
    /// Players of each.
    pub players: usize,
    /// Threads for their datagrams.
    pub threads: usize,
    /// Decides what the players do, and the rooms' own seeds.
    pub seed: u64,
}

/// What the players count, all together.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) games_started: AtomicU64,
    pub(crate) games_over: AtomicU64,
    pub(crate) sessions_lost: AtomicU64,
    pub(crate) snapshots: AtomicU64,
    pub(crate) snapshots_missed: AtomicU64,
    pub(crate) inputs: AtomicU64,
    pub(crate) datagrams_unsent: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) late_us_max: AtomicU64,
}

/// A moment's counts, all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Whole snapshots that came.
    pub snapshots: u64,
    /// Frames between them of which none came.
    pub snapshots_missed: u64,
    /// Frames for which an input was sent.
    pub inputs: u64,
    /// Datagrams that the system did not take.
    pub datagrams_unsent: u64,
    /// Datagrams that were not the host's.
    pub refused: u64,
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
            inputs: self.inputs.saturating_sub(earlier.inputs),
            datagrams_unsent: self.datagrams_unsent.saturating_sub(earlier.datagrams_unsent),
            refused: self.refused.saturating_sub(earlier.refused),
            games_over: self.games_over.saturating_sub(earlier.games_over),
            sessions_lost: self.sessions_lost.saturating_sub(earlier.sessions_lost),
            late_us_max: self.late_us_max,
        }
    }
}

/// Players who play.
#[derive(Debug)]
pub struct Load {
    counters: Arc<Counters>,
    players: usize,
    threads: Threads,
    sessions: JoinSet<()>,
    leave: watch::Sender<bool>,
}

impl Load {
    /// Opens the rooms and lets the players in; their games begin soon after.
    ///
    /// # Errors
    /// Options out of range, or a host that does not do what it should.
    pub async fn start(api: &Api, options: &Options) -> anyhow::Result<Self> {
        let Options { rooms, players, threads, seed, .. } = *options;
        let all = rooms.saturating_mul(players);
        if all == 0 || all > PLAYERS_MAX {
            bail!("{rooms} rooms of {players} players; one generator plays 1 to {PLAYERS_MAX} players");
        }
        if !(1..=THREADS_MAX).contains(&threads) {
            bail!("1 to {THREADS_MAX} threads, not {threads}");
        }
        let counters = Arc::<Counters>::default();
        let (leave, left) = watch::channel(false);
        let mut load = Self {
            threads: Threads::start(threads, &counters)?,
            counters,
            players: all,
            sessions: JoinSet::new(),
            leave,
        };
        let places = Arc::new(Semaphore::new(OPENING_MAX));
        let mut opening = JoinSet::new();
        for room in 0..rooms {
            let (api, options, places) = (api.clone(), options.clone(), Arc::clone(&places));
            let seed = seed.wrapping_add((room * players) as u64);
            opening.spawn(async move {
                let _place = places.acquire().await;
                open(&api, &options, seed).await
            });
        }
        let mut next = 0;
        while let Some(opened) = opening.join_next().await {
            for (opened, member) in opened?? {
                load.threads.add(next, member)?;
                next += 1;
                load.sessions.spawn(session::keep(opened, Arc::clone(&load.counters), left.clone()));
            }
        }
        Ok(load)
    }

    /// Waits until the game of every player has begun.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn begun(&self) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_secs(BEGIN_WAIT_MAX_S);
        loop {
            let started = self.counters.games_started.load(Ordering::Relaxed);
            if started >= self.players as u64 {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("the games of {started} of {} players began within {BEGIN_WAIT_MAX_S} s", self.players);
            }
            sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }

    /// What the players counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Counts {
            snapshots: read(&counters.snapshots),
            snapshots_missed: read(&counters.snapshots_missed),
            inputs: read(&counters.inputs),
            datagrams_unsent: read(&counters.datagrams_unsent),
            refused: read(&counters.refused),
            games_over: read(&counters.games_over),
            sessions_lost: read(&counters.sessions_lost),
            late_us_max: read(&counters.late_us_max),
        }
    }

    /// Lets everybody leave.
    ///
    /// # Errors
    /// If a thread ended before it should.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let _nobody_there = self.leave.send(true);
        let all_left = async { while self.sessions.join_next().await.is_some() {} };
        let in_time = tokio::time::timeout(Duration::from_secs(LEAVE_WAIT_MAX_S), all_left).await.is_ok();
        let threads = self.threads;
        tokio::task::spawn_blocking(move || threads.join()).await??;
        if !in_time {
            bail!("the host did not let all players go within {LEAVE_WAIT_MAX_S} s");
        }
        Ok(())
    }
}

/// Opens a room and its players' sessions.
async fn open(api: &Api, options: &Options, seed: u64) -> anyhow::Result<Vec<(session::Opened, thread::Member)>> {
    let module = options.module.as_deref();
    let game = crowd::game(module, seed);
    let names: Vec<String> = (0..options.players).map(bots::name).collect();
    let players: Vec<Value> =
        names.iter().enumerate().map(|(slot, name)| json!({ "name": name, "data": game.data(slot) })).collect();
    let room = api.create_room_of(module, &players, &game.options(), Some(seed)).await.context("no room")?;
    let mut opened = Vec::new();
    for (slot, name) in names.iter().enumerate() {
        let grant = api.join(&room, name).await.with_context(|| format!("no ticket for {name}"))?;
        opened.push(session::open(&grant.connect_options(true)?, game.player(slot)).await?);
    }
    Ok(opened)
}
