//! One room of a load: it is opened, its players play until the game is over, the host's count of their inputs is compared with theirs, and it is opened anew.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ledger::{Account, HostCounts, Ledger};
use super::member::{Member, Plays};
use super::recording::Recording;
use super::session::{self, Opened};
use super::thread::{Order, Orders};
use super::{Counters, Options};
use crate::api::Api;
use crate::bots::{self, crowd};

/// Rooms that are opened at a time: more only wait for each other at the host's doors.
const OPENING_MAX: usize = 8;
/// Rooms whose record is asked for at a time: twice as many as a host answers at a time.
const ASKING_MAX: usize = 8;
/// How often the record of a room is asked for until it is there, in milliseconds.
const ASK_EVERY_MS: u64 = 200;
/// How long the record of a room may be on its way through the broker, in seconds; and how long after one was not there in that time.
const RECORD_WAIT_MAX_S: (u64, u64) = (30, 1);
/// How long it takes until a room that could not be opened anew is tried again, in milliseconds.
const OPEN_AGAIN_MS: u64 = 1_000;
/// How long players who are to leave wait until the host has stepped their last inputs, at most, in seconds: their own wait, three seconds' delay each way, and some.
const QUIET_WAIT_MAX_S: u64 = 10;

/// What all rooms of a load share.
#[derive(Debug)]
pub(super) struct Club {
    api: Api,
    options: Options,
    orders: Orders,
    pub(super) counters: Counters,
    pub(super) account: Mutex<Account>,
    /// Why the first room that could not be opened was not, or why the host's count is not known.
    pub(super) trouble: Mutex<Option<String>>,
    opening: Semaphore,
    asking: Semaphore,
    is_impatient: AtomicBool,
}

/// A room whose players are in it.
struct Open {
    id: String,
    players: Vec<(Opened, u32)>,
}

impl Club {
    pub(super) fn new(api: Api, options: Options, orders: Orders) -> Self {
        Self {
            api,
            options,
            orders,
            counters: Counters::default(),
            account: Mutex::default(),
            trouble: Mutex::default(),
            opening: Semaphore::new(OPENING_MAX),
            asking: Semaphore::new(ASKING_MAX),
            is_impatient: AtomicBool::new(false),
        }
    }

    fn in_trouble(&self, why: String) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.get_or_insert(why);
    }

    /// Lets a room be played until everybody is to leave. The `number` counts rooms from 0; it is opened at `at`.
    pub(super) async fn play(self: Arc<Self>, number: usize, at: Instant, mut leave: watch::Receiver<bool>) {
        let mut settling: Option<JoinHandle<()>> = None;
        tokio::select! {
            () = sleep_until(at) => {}
            () = all_leave(&mut leave) => return,
        }
        for game in 0usize.. {
            let opened = tokio::select! {
                opened = self.open(number, game) => opened,
                () = all_leave(&mut leave) => break,
            };
            let room = match opened {
                Ok(room) => room,
                Err(error) => {
                    self.in_trouble(format!("{error:#}"));
                    self.counters.rooms_not_opened.fetch_add(1, Ordering::Relaxed);
                    if game == 0 {
                        break;
                    }
                    tokio::select! {
                        () = sleep(Duration::from_millis(OPEN_AGAIN_MS)) => continue,
                        () = all_leave(&mut leave) => break,
                    }
                }
            };
            self.counters.rooms_opened.fetch_add(1, Ordering::Relaxed);
            let (id, ledgers) = self.play_game(number, room, leave.clone()).await;
            if self.options.compare {
                if let Some(before) = settling.take() {
                    let _panicked = before.await;
                }
                settling = Some(tokio::spawn(Arc::clone(&self).settle(id, ledgers)));
            }
            if *leave.borrow() || !self.options.open_anew {
                break;
            }
        }
        if let Some(last) = settling {
            let _panicked = last.await;
        }
    }

    /// Opens a room and its players' sessions, and gives their datagrams to the threads.
    async fn open(&self, number: usize, game: usize) -> anyhow::Result<Open> {
        let _place = self.opening.acquire().await;
        let Options { rooms, players, seed, module, recording, impairment, .. } = &self.options;
        // No two players of a run have the same seed.
        let seed = seed.wrapping_add((game * rooms + number).wrapping_mul(*players) as u64);
        let cast = Cast::of(module.as_deref(), recording.clone(), *players, seed);
        let room = self
            .api
            .create_room_of(cast.module(), &cast.players(), &cast.options(), Some(cast.room_seed()))
            .await
            .context("no room")?;
        let mut opened = Vec::new();
        for slot in 0..*players {
            let name = cast.name(slot);
            let grant = self.api.join(&room, &name).await.with_context(|| format!("no ticket for {name}"))?;
            let (plays, actions) = cast.plays(slot);
            let (websocket, line) = session::open(&grant.connect_options(true)?, actions).await?;
            let session = line.session;
            let member = Member::new(line, plays, *impairment, seed.wrapping_add(slot as u64));
            self.orders.give(number * players + slot, Order::Add(Box::new(member)))?;
            opened.push((websocket, session));
        }
        Ok(Open { id: room, players: opened })
    }

    /// Lets a game be played to its end, or until everybody is to leave. Gives the players' accounts by their slots.
    async fn play_game(
        &self,
        number: usize,
        room: Open,
        mut leave: watch::Receiver<bool>,
    ) -> (String, Vec<Option<Ledger>>) {
        let first = number * self.options.players;
        let sessions: Vec<u32> = room.players.iter().map(|(_, session)| *session).collect();
        let (go, gone) = watch::channel(false);
        let kept = room.players.into_iter().enumerate().map(|(slot, (opened, session))| {
            let over = move || {
                // A thread that has ended says so itself.
                let _ended = self.orders.give(first + slot, Order::Silence(session));
            };
            opened.keep(&self.counters, over, gone.clone())
        });
        let mut kept = std::pin::pin!(join_all(kept));
        tokio::select! {
            _ = &mut kept => {}
            () = all_leave(&mut leave) => {
                // The WebSockets are kept meanwhile.
                tokio::select! {
                    _ = &mut kept => {}
                    () = self.quiet(first, &sessions) => {
                        let _nobody_there = go.send(true);
                        kept.await;
                    }
                }
            }
        }
        let mut ledgers = Vec::new();
        for (slot, session) in sessions.into_iter().enumerate() {
            let (reply, ledger) = oneshot::channel();
            let told = self.orders.give(first + slot, Order::Remove(session, reply));
            ledgers.push(if told.is_ok() { ledger.await.ok() } else { None });
        }
        (room.id, ledgers)
    }

    /// Lets players stop, so that the host has stepped all that they sent.
    async fn quiet(&self, first: usize, sessions: &[u32]) {
        let quiet = sessions.iter().enumerate().map(|(slot, session)| async move {
            let (done, is_done) = oneshot::channel();
            if self.orders.give(first + slot, Order::Quiet(*session, done)).is_ok() {
                let _no_such_session = is_done.await;
            }
        });
        // What comes of those who take longer is not compared.
        let _too_long = timeout(Duration::from_secs(QUIET_WAIT_MAX_S), join_all(quiet)).await;
    }

    /// Compares what the host counted of a room's players with their own accounts.
    async fn settle(self: Arc<Self>, room: String, ledgers: Vec<Option<Ledger>>) {
        let recorded = self.recorded(&room).await;
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        for (slot, ledger) in ledgers.iter().enumerate() {
            let host = recorded.iter().find(|player| player.get("player").and_then(Value::as_u64) == Some(slot as u64));
            let host = host.and_then(|player| player.get("inputs")).cloned();
            match (ledger, host.and_then(|inputs| serde_json::from_value::<HostCounts>(inputs).ok())) {
                (Some(ledger), Some(host)) => account.add(ledger, &host),
                _ => account.not_compared += 1,
            }
        }
    }

    /// What the host recorded of a room's players; nothing if it does not come.
    async fn recorded(&self, room: &str) -> Vec<Value> {
        let _place = self.asking.acquire().await;
        let (first_s, later_s) = RECORD_WAIT_MAX_S;
        let wait_s = if self.is_impatient.load(Ordering::Relaxed) { later_s } else { first_s };
        let until = Instant::now() + Duration::from_secs(wait_s);
        loop {
            let why = match self.api.get(&format!("/api/rooms/{room}")).await {
                Ok(body) => match body.pointer("/recorded/counters/players").and_then(Value::as_array) {
                    Some(players) => return players.clone(),
                    None => format!("room {room} has ended and is not on record after {wait_s} s"),
                },
                Err(error) => format!("what the host counted in room {room} is not known: {error:#}"),
            };
            if Instant::now() >= until {
                self.is_impatient.store(true, Ordering::Relaxed);
                self.in_trouble(why);
                return Vec::new();
            }
            sleep(Duration::from_millis(ASK_EVERY_MS)).await;
        }
    }
}

/// Waits until everybody is to leave, or whoever says so is gone.
pub(super) async fn all_leave(leave: &mut watch::Receiver<bool>) {
    let _gone = leave.wait_for(|leave| *leave).await;
}

/// Who plays in a room: programs that know the game, or the players of a journal.
enum Cast {
    Programs { game: crowd::Game, module: Option<String>, players: usize, seed: u64 },
    Recorded(Arc<Recording>),
}

impl Cast {
    fn of(module: Option<&str>, recording: Option<Arc<Recording>>, players: usize, seed: u64) -> Self {
        match recording {
            Some(recording) => Self::Recorded(recording),
            None => {
                Self::Programs { game: crowd::game(module, seed), module: module.map(str::to_owned), players, seed }
            }
        }
    }

    fn module(&self) -> Option<&str> {
        match self {
            Self::Programs { module, .. } => module.as_deref(),
            Self::Recorded(recording) => Some(recording.module()),
        }
    }

    fn players(&self) -> Vec<Value> {
        match self {
            Self::Programs { game, players, .. } => {
                (0..*players).map(|slot| json!({ "name": bots::name(slot), "data": game.data(slot) })).collect()
            }
            Self::Recorded(recording) => (0..recording.players()).map(|slot| recording.player(slot)).collect(),
        }
    }

    fn options(&self) -> Value {
        match self {
            Self::Programs { game, .. } => game.options(),
            Self::Recorded(recording) => recording.options().clone(),
        }
    }

    /// The room's own seed: a recorded game is the same only under its own.
    fn room_seed(&self) -> u64 {
        match self {
            Self::Programs { seed, .. } => *seed,
            Self::Recorded(recording) => recording.seed(),
        }
    }

    fn name(&self, slot: usize) -> String {
        match self {
            Self::Programs { .. } => bots::name(slot),
            Self::Recorded(recording) => recording.name(slot).to_owned(),
        }
    }

    /// What decides a player's inputs, and its actions with their milliseconds after the start.
    fn plays(&self, slot: usize) -> (Plays, Vec<(u64, Value)>) {
        match self {
            Self::Programs { game, .. } => {
                let crowd::Player { first_action, answer } = game.player(slot);
                (Plays::Program(answer), first_action.into_iter().map(|action| (0, action)).collect())
            }
            Self::Recorded(recording) => (Plays::Recorded(Arc::clone(recording), slot), recording.actions(slot)),
        }
    }
}
