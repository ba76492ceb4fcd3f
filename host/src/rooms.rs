//! The rooms of this host as the doors see them: opening one, finding the shard that owns it, and what can be said of an
//! open room without asking its shard. Which shard gets a new one is decided in [`placement`].

mod placement;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use holeshot_abi::{OPTIONS_BYTES_MAX, PLAYER_DATA_BYTES_MAX, PLAYER_NAME_BYTES_MAX, PlayerSetup, Setup};
use holeshot_room::journal::Journal;
use holeshot_room::{BeginError, Limits, Phase, Program, Room, RoomConfig, Supervision, Supervisor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::{Clock, unix_ms};
use crate::events::InternalEvent;
use crate::events::outbox::DATA_MAX_BYTES;
use crate::identity::random;
use crate::journal::Journals;
use crate::journal::feed::JournalFeed;
use crate::limits::memory::{MemoryGate, NoMemory};
use crate::modules::Modules;
use crate::rules::{Module, ModuleHash, RoomProgram};
use crate::shard::{Command, OpenRoom, ShardHandle};
use crate::swap::{FailedModule, InForce};
use placement::{ShardLoad, least_loaded};

/// Rooms whose rules are begun anew at a time: each has an instance more than it is counted for, and an `init` may take as long as a tick or several.
pub const SETUPS_AT_ONCE_MAX: u32 = 4;
/// The module of a room whose maker names none.
pub const DEFAULT_MODULE: &str = "drag-race";

/// A request for a room.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRoom {
    /// Name of a loaded module; the drag race if left out.
    pub module: Option<String>,
    /// The player slots.
    pub players: Vec<NewPlayer>,
    /// JSON for the rules.
    pub options: Option<Value>,
    /// The room's only randomness; random if left out.
    pub seed: Option<u64>,
}

/// A player slot in a request for a room.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPlayer {
    /// The player's name.
    pub name: String,
    /// JSON for the rules.
    pub data: Option<Value>,
}

/// A room that was opened.
#[derive(Debug, Clone, Serialize)]
pub struct CreatedRoom {
    /// Its id.
    pub room: String,
    /// Its rules.
    pub module: ModuleName,
    /// Its seed.
    pub seed: u64,
    /// Its players.
    pub players: Vec<RoomPlayer>,
}

/// A rules module by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModuleName {
    /// The manifest's name.
    pub name: String,
    /// The manifest's version.
    pub version: String,
    /// BLAKE3 of the wasm file, hex.
    pub hash: String,
}

impl ModuleName {
    /// That of a module.
    #[must_use]
    pub fn of(module: &Module) -> Self {
        let manifest = module.manifest();
        Self { name: manifest.name.clone(), version: manifest.version.clone(), hash: module.hash().to_string() }
    }
}

impl ModuleName {
    /// That of a module for one room.
    #[must_use]
    pub fn of_program(program: &dyn Program) -> Self {
        let manifest = program.manifest();
        let hash = ModuleHash::from(program.hash()).to_string();
        Self { name: manifest.name.clone(), version: manifest.version.clone(), hash }
    }
}

/// A player slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoomPlayer {
    /// The slot, from 0.
    pub player: u16,
    /// The player's name.
    pub name: String,
}

/// An open room.
#[derive(Debug)]
pub struct LiveRoom {
    /// Its id.
    pub id: String,
    /// The shard that owns it.
    pub shard: usize,
    /// Roughly what it costs its shard: ticks in a second, times its players and one more.
    pub weight: u64,
    /// Name of its rules, the same under every module that it ever has.
    pub module: String,
    /// The rules that it has now.
    pub rules: InForce,
    setup: Mutex<Arc<Setup>>,
    /// Held by who begins the rules anew with another setup: one at a time.
    pub setting_up: tokio::sync::Mutex<()>,
    /// Its players, by slot.
    pub players: Vec<RoomPlayer>,
    /// When it was opened, in milliseconds since 1970.
    pub opened_ms: u64,
    phase: AtomicU8,
    // u32::MAX before frame 0.
    frame: AtomicU32,
}

/// What the HTTP interface says of an open room.
#[derive(Debug, Clone, Serialize)]
pub struct RoomSummary {
    room: String,
    module: ModuleName,
    on_probation: bool,
    failed_modules: Vec<FailedModule>,
    players: Vec<RoomPlayer>,
    phase: &'static str,
    frame: Option<u32>,
    opened_ms: u64,
}

/// In the order of their numbers.
const PHASES: [Phase; 8] = [
    Phase::Gathering,
    Phase::Readying,
    Phase::Cutscene,
    Phase::Countdown,
    Phase::Running,
    Phase::Finished,
    Phase::Aborted,
    Phase::Closed,
];

impl LiveRoom {
    /// What every module of it is begun with.
    #[must_use]
    pub fn setup(&self) -> Arc<Setup> {
        // Replaced whole, so a thread that panicked while it held the lock spoilt nothing.
        Arc::clone(&self.setup.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes note of another setup, with which its rules were begun anew.
    pub fn set_setup(&self, setup: Arc<Setup>) {
        *self.setup.lock().unwrap_or_else(PoisonError::into_inner) = setup;
    }

    /// Takes note of the room's phase.
    pub fn set_phase(&self, phase: Phase) {
        let number = PHASES.iter().position(|p| *p == phase).unwrap_or_default();
        self.phase.store(u8::try_from(number).unwrap_or_default(), Ordering::Relaxed);
    }

    /// Takes note of the frame that was stepped last.
    pub fn set_frame(&self, frame: u32) {
        self.frame.store(frame, Ordering::Relaxed);
    }

    /// The frame that was stepped last, if one was.
    #[must_use]
    pub fn frame(&self) -> Option<u32> {
        Some(self.frame.load(Ordering::Relaxed)).filter(|frame| *frame != u32::MAX)
    }

    /// The room's phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        PHASES.get(usize::from(self.phase.load(Ordering::Relaxed))).copied().unwrap_or(Phase::Closed)
    }

    /// What can be said of it.
    #[must_use]
    pub fn summary(&self) -> RoomSummary {
        RoomSummary {
            room: self.id.clone(),
            module: self.rules.module().as_ref().clone(),
            on_probation: self.rules.on_probation(),
            failed_modules: self.rules.all_failed(),
            players: self.players.clone(),
            phase: self.phase().as_str(),
            frame: self.frame(),
            opened_ms: self.opened_ms,
        }
    }
}

/// Why a room was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// No such module.
    #[error("there is no module {name:?}; loaded: {loaded}")]
    UnknownModule {
        /// The name asked for.
        name: String,
        /// The names there are.
        loaded: String,
    },
    /// A value that no rules could take.
    #[error("`{field}` {problem}")]
    BadRequest {
        /// The field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The rules refuse the setup.
    #[error("the rules of {module} refuse this setup: {reason}")]
    Refused {
        /// The module.
        module: String,
        /// In the rules' words.
        reason: String,
    },
    /// The module failed while it began the room.
    #[error("the module {module} failed while it began the room: {reason}")]
    ModuleFault {
        /// The module.
        module: String,
        /// How.
        reason: String,
    },
    /// No room is left.
    #[error("the host has its {rooms_max} rooms; wait until one ends, or raise `rooms_max`")]
    Full {
        /// The limit.
        rooms_max: u32,
    },
    /// Too little memory for another room.
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
    /// The host is stopping.
    #[error("the host is stopping and opens no more rooms")]
    Stopping,
    /// A fault of the host itself.
    #[error("the host failed: {reason}")]
    Internal {
        /// How.
        reason: String,
    },
}

/// Rules that were begun anew for a room that gathers its players, with other data of one of them.
#[derive(Debug)]
pub struct NewSetup {
    /// What the room had when they were begun. If it has something else by now, they are of no use.
    pub base: Arc<dyn Program>,
    /// The rules.
    pub rules: Supervisor,
    /// Whose data it is.
    pub player: u16,
}

/// Why a room's rules were not begun anew. The room is as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetUpError {
    /// The rules refuse the data; the words are theirs.
    #[error("{0}")]
    Refused(String),
    /// No event could carry the setup.
    #[error("{0}")]
    TooLong(String),
    /// A fault of the rules or of the host, or no instance is left.
    #[error("the rules could not be set up anew: {reason}")]
    Internal {
        /// How.
        reason: String,
    },
}

impl From<CreateError> for SetUpError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Refused { reason, .. } => Self::Refused(reason),
            error => Self::Internal { reason: error.to_string() },
        }
    }
}

/// The open rooms at one moment.
#[derive(Debug)]
pub struct Census {
    /// Every phase, and how many rooms are in it.
    pub phases: [(Phase, u64); 8],
    /// The rooms that have been open longest.
    pub oldest: Vec<Arc<LiveRoom>>,
}

/// What the rooms of a host count since its start.
#[derive(Debug, Default)]
pub struct RoomsCounters {
    /// Rooms opened.
    pub opened: AtomicU64,
    /// Rooms not opened because the host had as many as it may, or no instance of rules was left.
    pub refused_full: AtomicU64,
    /// Rooms not opened because there was too little memory.
    pub refused_memory: AtomicU64,
}

/// The open rooms, by id, and what each shard has of them.
#[derive(Debug)]
struct Live {
    rooms: BTreeMap<String, Arc<LiveRoom>>,
    // Kept with each opening and closing: counting thousands of rooms for each opening would hold the lock for as long.
    per_shard: Vec<Share>,
}

/// What a shard has of the open rooms, those on their way to it included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Share {
    rooms: u32,
    weight: u64,
}

impl Live {
    fn new(shards: usize) -> Self {
        Self { rooms: BTreeMap::new(), per_shard: vec![Share::default(); shards] }
    }

    fn page(&self, after: Option<&str>, limit: usize) -> Vec<Arc<LiveRoom>> {
        let before = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.rooms
            .range::<str, _>((Bound::Unbounded, before))
            .rev()
            .take(limit)
            .map(|(_, room)| Arc::clone(room))
            .collect()
    }

    fn insert(&mut self, room: Arc<LiveRoom>) {
        if let Some(share) = self.per_shard.get_mut(room.shard) {
            share.rooms += 1;
            share.weight = share.weight.saturating_add(room.weight);
        }
        self.rooms.insert(room.id.clone(), room);
    }

    fn remove(&mut self, room: &str) {
        // Forgotten twice (refused and closed), a room counts once.
        let Some(room) = self.rooms.remove(room) else { return };
        if let Some(share) = self.per_shard.get_mut(room.shard) {
            share.rooms = share.rooms.saturating_sub(1);
            share.weight = share.weight.saturating_sub(room.weight);
        }
    }
}

/// The rooms of a host.
#[derive(Debug)]
pub struct Rooms {
    modules: Arc<Modules>,
    shards: Vec<ShardHandle>,
    live: Mutex<Live>,
    limits: Limits,
    supervision: Supervision,
    rooms_max: u32,
    memory: MemoryGate,
    counters: RoomsCounters,
    clock: Clock,
    journals: Option<Journals>,
    setups: tokio::sync::Semaphore,
    stopping: AtomicBool,
}

impl Rooms {
    /// The rooms of a host with these modules and shards: at most `rooms_max`, and no more than `memory` lets in.
    #[must_use]
    pub fn new(
        modules: Arc<Modules>,
        shards: Vec<ShardHandle>,
        limits: Limits,
        supervision: Supervision,
        rooms_max: u32,
        memory: MemoryGate,
        clock: Clock,
    ) -> Self {
        let live = Mutex::new(Live::new(shards.len()));
        Self {
            modules,
            shards,
            live,
            limits,
            supervision,
            rooms_max,
            memory,
            counters: RoomsCounters::default(),
            clock,
            journals: None,
            setups: tokio::sync::Semaphore::new(SETUPS_AT_ONCE_MAX as usize),
            stopping: AtomicBool::new(false),
        }
    }

    /// These rooms, with journals.
    #[must_use]
    pub fn with_journals(self, journals: Journals) -> Self {
        Self { journals: Some(journals), ..self }
    }

    /// Opens a room. Returns once its shard has been told; the shard takes it before anything that is sent to it later.
    ///
    /// # Errors
    /// See [`CreateError`].
    pub async fn create(self: &Arc<Self>, request: CreateRoom) -> Result<CreatedRoom, CreateError> {
        let rooms = Arc::clone(self);
        // On a task of its own: a client that hangs up ends the task of its request wherever that waits, and a place that was
        // reserved by then would be taken for ever.
        let opening = tokio::spawn(async move { rooms.open(request).await });
        let opened = opening.await.unwrap_or_else(|error| Err(CreateError::Internal { reason: error.to_string() }));
        match &opened {
            Ok(_) => _ = self.counters.opened.fetch_add(1, Ordering::Relaxed),
            Err(CreateError::Full { .. }) => _ = self.counters.refused_full.fetch_add(1, Ordering::Relaxed),
            Err(CreateError::NoMemory(_)) => _ = self.counters.refused_memory.fetch_add(1, Ordering::Relaxed),
            Err(_) => {}
        }
        opened
    }

    async fn open(&self, request: CreateRoom) -> Result<CreatedRoom, CreateError> {
        let name = request.module.as_deref().unwrap_or(DEFAULT_MODULE);
        let module = self.modules.get(name).ok_or_else(|| CreateError::UnknownModule {
            name: name.to_owned(),
            loaded: self.modules.names().join(", "),
        })?;
        let manifest = module.manifest();
        let seed = match request.seed {
            Some(seed) => seed,
            None => u64::from_le_bytes(random().map_err(|error| CreateError::Internal { reason: error.to_string() })?),
        };
        let setup = Setup {
            seed,
            tick_hz: manifest.tick_hz,
            options: json_text("options", request.options.as_ref(), OPTIONS_BYTES_MAX)?,
            players: players(&request.players)?,
        };
        let id = uuid::Uuid::now_v7().simple().to_string();
        let config = RoomConfig {
            id: id.clone(),
            manifest: manifest.clone(),
            setup: setup.clone(),
            limits: self.limits.clone(),
        };
        // Checked before the module is bothered; the clock of the real opening comes later.
        Room::open(config.clone(), 0).map_err(bad_setup)?;

        check_recordable(&setup)?;

        let live = self.reserve(&id, &module, &setup)?;
        // The name got another module meanwhile: who lists the rooms to swap may not have seen this one. As often as that happens within
        // these microseconds, which is as often as modules are compiled.
        if self.modules.get(name).is_some_and(|now| now.hash() != module.hash()) {
            self.forget(&id);
            return Box::pin(self.open(request)).await;
        }
        // After the place was found: a host that is full says so, and a room that is refused has no part in the count of memory. Reads a few files of
        // the system now and then, which takes less than a request's own work.
        self.memory.admit().inspect_err(|_| self.forget(&id))?;
        self.launch(&live, config, &module, None).await?;
        Ok(CreatedRoom { room: id, module: ModuleName::of(&module), seed, players: live.players.clone() })
    }

    /// Opens the room of a journal once more, under the id that it had, with the journal in place of its players. `tick_hz` is how fast it goes; the
    /// rules see the rate that the room had.
    ///
    /// # Errors
    /// See [`CreateError`].
    pub async fn open_replay(
        &self,
        journal: &Journal,
        module: &Arc<Module>,
        tick_hz: u32,
        feed: JournalFeed,
    ) -> Result<Arc<LiveRoom>, CreateError> {
        let (id, setup) = (journal.header().room.as_str(), journal.setup());
        let live = self.reserve(id, module, setup)?;
        let config = RoomConfig {
            id: id.to_owned(),
            manifest: module.manifest().clone(),
            setup: Setup { tick_hz, ..setup.clone() },
            limits: JournalFeed::limits(),
        };
        self.launch(&live, config, module, Some(Box::new(feed))).await?;
        Ok(live)
    }

    /// Begins the rules of a room whose place is taken, and hands the room to its shard. The place is free again if that fails.
    async fn launch(
        &self,
        live: &Arc<LiveRoom>,
        config: RoomConfig,
        module: &Arc<Module>,
        feed: Option<Box<JournalFeed>>,
    ) -> Result<(), CreateError> {
        let begun = {
            let program = RoomProgram::new(Arc::clone(module), live.setup(), live.id.as_str().into());
            let supervision = self.supervision;
            tokio::task::spawn_blocking(move || Supervisor::begin(Arc::new(program), supervision)).await
        };
        let rules = match begun {
            Ok(Ok(rules)) => Ok(rules),
            Ok(Err(error)) => Err(create_error(&live.module, error, self.rooms_max)),
            Err(error) => Err(CreateError::Internal { reason: error.to_string() }),
        };
        let rules = rules.inspect_err(|_| self.forget(&live.id))?;
        let room = Room::open(config, self.clock.now_us()).map_err(bad_setup).inspect_err(|_| self.forget(&live.id))?;
        let setup = live.setup();
        let begin = |journals: &Journals| journals.begin(live, &setup, &**rules.program());
        let journal = self.journals.as_ref().map(begin).unwrap_or_default();
        let opened = opened_event(live, &setup);
        let open = OpenRoom { room, rules, live: Arc::clone(live), opened, journal, feed };
        let command = Command::Open(Box::new(open));
        let sent = match self.shards.get(live.shard) {
            Some(shard) => shard.send(command).await,
            None => false,
        };
        if !sent {
            self.forget(&live.id);
            return Err(CreateError::Stopping);
        }
        Ok(())
    }

    /// Begins a room's rules anew with other data of one player, beside the room: it goes on as it is until the shard lets them take its place.
    /// `program` is what the room has.
    ///
    /// # Errors
    /// See [`SetUpError`].
    pub async fn set_up(
        &self,
        live: &LiveRoom,
        program: &Arc<dyn Program>,
        player: u16,
        data: &str,
    ) -> Result<NewSetup, SetUpError> {
        let internal = |reason: String| SetUpError::Internal { reason };
        let mut setup = program.setup().clone();
        let slot =
            setup.players.get_mut(usize::from(player)).ok_or_else(|| internal("there is no such slot".into()))?;
        slot.data = data.to_owned();
        check_recordable(&setup).map_err(|error| SetUpError::TooLong(error.to_string()))?;
        let anew = program.with_setup(Arc::new(setup)).ok_or_else(|| internal("the rules keep their setup".into()))?;
        let supervision = self.supervision;
        // Never closed, so there is a permit in the end.
        let _place = self.setups.acquire().await;
        let begun = tokio::task::spawn_blocking(move || Supervisor::begin(anew, supervision)).await;
        let rules = match begun {
            Ok(Ok(rules)) => rules,
            Ok(Err(error)) => return Err(create_error(&live.module, error, self.rooms_max).into()),
            Err(error) => return Err(internal(error.to_string())),
        };
        Ok(NewSetup { base: Arc::clone(program), rules, player })
    }

    /// How many open rooms are in which phase, and the `limit` oldest of them.
    #[must_use]
    pub fn census(&self, limit: usize) -> Census {
        let live = self.lock();
        let mut census = Census { phases: PHASES.map(|phase| (phase, 0)), oldest: Vec::new() };
        for room in live.rooms.values() {
            if let Some((_, rooms)) = census.phases.get_mut(usize::from(room.phase.load(Ordering::Relaxed))) {
                *rooms += 1;
            }
            if census.oldest.len() < limit {
                census.oldest.push(Arc::clone(room));
            }
        }
        census
    }

    /// What it counted since the start.
    #[must_use]
    pub const fn counters(&self) -> &RoomsCounters {
        &self.counters
    }

    /// Most rooms at a time, by the setting.
    #[must_use]
    pub const fn rooms_max(&self) -> u32 {
        self.rooms_max
    }

    /// The gate that opens no room without memory for it.
    #[must_use]
    pub const fn memory(&self) -> &MemoryGate {
        &self.memory
    }

    /// The shards.
    #[must_use]
    pub fn shards(&self) -> &[ShardHandle] {
        &self.shards
    }

    /// An open room.
    #[must_use]
    pub fn live(&self, room: &str) -> Option<Arc<LiveRoom>> {
        self.lock().rooms.get(room).cloned()
    }

    /// A page of the open rooms, newest first: up to `limit` of those that were opened before the room `after`, or of all. `after` may be closed by
    /// now: ids sort by time.
    #[must_use]
    pub fn page(&self, after: Option<&str>, limit: usize) -> Vec<Arc<LiveRoom>> {
        self.lock().page(after, limit)
    }

    /// The open rooms of a module's name, oldest first.
    #[must_use]
    pub fn of_module(&self, name: &str) -> Vec<Arc<LiveRoom>> {
        self.lock().rooms.values().filter(|room| room.module == name).cloned().collect()
    }

    /// The shard of an open room.
    #[must_use]
    pub fn shard_of(&self, live: &LiveRoom) -> Option<&ShardHandle> {
        self.shards.get(live.shard)
    }

    /// Takes note that a room is closed.
    pub fn forget(&self, room: &str) {
        self.lock().remove(room);
    }

    /// The modules that rooms can have.
    #[must_use]
    pub fn modules(&self) -> &Arc<Modules> {
        &self.modules
    }

    /// How many rooms are open, those included that are being opened.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.lock().rooms.len()
    }

    /// Whether no room opens any more.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Opens no room from now on.
    pub fn stop_opening(&self) {
        // Under the lock, so that a room that is being opened is either in the list by now or refused.
        let _live = self.lock();
        self.stopping.store(true, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        // It is never left half changed, so a thread that panicked while it held the lock spoilt nothing.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shard for a new room.
    fn shard_for_new(&self, live: &Live) -> usize {
        let load = |(share, shard): (&Share, &ShardHandle)| {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            ShardLoad {
                // Thousandths of the time are milliseconds per second.
                busy_us: read(&shard.counters.busy_permille) * 1_000,
                is_shedding: read(&shard.counters.shed_level) > 0,
                rooms: share.rooms,
                weight: share.weight,
                weight_begun: read(&shard.counters.weight_begun),
                weight_running: read(&shard.counters.weight_running),
            }
        };
        let loads: Vec<ShardLoad> = live.per_shard.iter().zip(&self.shards).map(load).collect();
        least_loaded(&loads)
    }

    /// Takes a place for a room on the shard with the least to do.
    fn reserve(&self, id: &str, module: &Module, setup: &Setup) -> Result<Arc<LiveRoom>, CreateError> {
        let mut live = self.lock();
        if self.stopping.load(Ordering::Acquire) {
            return Err(CreateError::Stopping);
        }
        if live.rooms.len() >= self.rooms_max as usize {
            return Err(CreateError::Full { rooms_max: self.rooms_max });
        }
        let room = Arc::new(LiveRoom {
            id: id.to_owned(),
            shard: self.shard_for_new(&live),
            weight: placement::weight(setup.tick_hz, setup.players.len()),
            module: module.manifest().name.clone(),
            rules: InForce::new(ModuleName::of(module)),
            setup: Mutex::new(Arc::new(setup.clone())),
            setting_up: tokio::sync::Mutex::default(),
            players: (0..).zip(&setup.players).map(|(player, p)| RoomPlayer { player, name: p.name.clone() }).collect(),
            opened_ms: unix_ms(),
            phase: AtomicU8::new(0),
            frame: AtomicU32::new(u32::MAX),
        });
        live.insert(Arc::clone(&room));
        Ok(room)
    }
}

fn bad_setup(error: holeshot_room::OpenError) -> CreateError {
    CreateError::BadRequest { field: "players".into(), problem: error.to_string() }
}

fn opened_event(live: &LiveRoom, setup: &Setup) -> InternalEvent {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
    let players: Vec<_> = (0u16..)
        .zip(&setup.players)
        .map(|(player, p)| json!({ "player": player, "name": p.name, "data": parsed(&p.data) }))
        .collect();
    let data = json!({
        "room": live.id,
        "module": *live.rules.module(),
        "seed": setup.seed,
        "options": parsed(&setup.options),
        "players": players,
    });
    InternalEvent {
        kind: "room.opened".into(),
        module: Some(live.module.clone()),
        room: Some(live.id.clone()),
        data,
        time: SystemTime::now(),
    }
}

fn create_error(module: &str, error: BeginError, rooms_max: u32) -> CreateError {
    match error {
        BeginError::Refused(text) => CreateError::Refused { module: module.into(), reason: text },
        BeginError::NoInstance(_) => CreateError::Full { rooms_max },
        other => CreateError::ModuleFault { module: module.into(), reason: other.to_string() },
    }
}

/// Bytes that `room.opened` has besides the setup: ids, names of fields, the module; and those of each player.
const OPENED_BYTES: usize = 1 << 10;
const OPENED_BYTES_PER_PLAYER: usize = 64;

/// Refuses a setup that no event could carry: the record of the room would begin with a hole.
fn check_recordable(setup: &Setup) -> Result<(), CreateError> {
    // Names may need an escape for each character; the rest is JSON already.
    let players: usize = setup.players.iter().map(|p| OPENED_BYTES_PER_PLAYER + 2 * p.name.len() + p.data.len()).sum();
    let bytes = OPENED_BYTES + setup.options.len() + players;
    if bytes <= DATA_MAX_BYTES {
        return Ok(());
    }
    let problem = format!(
        "and `options` have {bytes} bytes of JSON together; accepted: up to {DATA_MAX_BYTES}, what one event carries"
    );
    Err(CreateError::BadRequest { field: "players".into(), problem })
}

fn json_text(field: &str, value: Option<&Value>, bytes_max: usize) -> Result<String, CreateError> {
    let text = match value {
        None | Some(Value::Null) => String::new(),
        Some(value) => value.to_string(),
    };
    if text.len() > bytes_max {
        let problem = format!("has {} bytes of JSON; accepted: up to {bytes_max}", text.len());
        return Err(CreateError::BadRequest { field: field.into(), problem });
    }
    Ok(text)
}

fn players(asked: &[NewPlayer]) -> Result<Vec<PlayerSetup>, CreateError> {
    let bad = |at: usize, problem: String| CreateError::BadRequest { field: format!("players[{at}].name"), problem };
    let mut players: Vec<PlayerSetup> = Vec::with_capacity(asked.len().min(holeshot_abi::PLAYERS_MAX));
    for (at, player) in asked.iter().enumerate() {
        let name = player.name.as_str();
        if name.trim().is_empty() || name.len() > PLAYER_NAME_BYTES_MAX {
            return Err(bad(
                at,
                format!("has {} bytes; accepted: 1 to {PLAYER_NAME_BYTES_MAX}, not only spaces", name.len()),
            ));
        }
        if name.chars().any(char::is_control) {
            return Err(bad(at, format!("is {name:?}; control characters are not accepted")));
        }
        if players.iter().any(|other| other.name == name) {
            return Err(bad(at, format!("is {name:?}, as another player's; each name may be there once")));
        }
        let data = json_text(&format!("players[{at}].data"), player.data.as_ref(), PLAYER_DATA_BYTES_MAX)?;
        players.push(PlayerSetup { name: name.into(), data });
    }
    Ok(players)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Result<Vec<PlayerSetup>, CreateError> {
        let asked: Vec<_> = names.iter().map(|name| NewPlayer { name: (*name).into(), data: None }).collect();
        players(&asked)
    }

    #[test]
    fn a_bad_name_is_refused_with_its_place() {
        for (names, place) in [
            (vec!["Ada", ""], "players[1].name"),
            (vec!["  "], "players[0].name"),
            (vec!["Ada", "Ada"], "players[1].name"),
            (vec!["a\nb"], "players[0].name"),
        ] {
            let message = named(&names).unwrap_err().to_string();
            assert!(message.contains(place), "{message}");
        }
        assert!(named(&[&"x".repeat(65)]).is_err());
        assert_eq!(named(&["Ada", "Ben"]).unwrap().len(), 2);
    }

    fn live_room(id: &str, shard: usize) -> Arc<LiveRoom> {
        Arc::new(LiveRoom {
            id: id.into(),
            shard,
            weight: 100,
            module: "n".into(),
            rules: InForce::new(ModuleName { name: "n".into(), version: "1".into(), hash: "f".into() }),
            setup: Mutex::new(Arc::new(Setup { seed: 0, tick_hz: 50, options: String::new(), players: Vec::new() })),
            setting_up: tokio::sync::Mutex::default(),
            players: Vec::new(),
            opened_ms: 0,
            phase: AtomicU8::new(0),
            frame: AtomicU32::new(0),
        })
    }

    #[test]
    fn a_room_counts_for_its_shard_as_long_as_it_is_open() {
        let mut live = Live::new(3);
        for id in 0..9 {
            live.insert(live_room(&id.to_string(), id % 3));
        }
        let share = |rooms: u32| Share { rooms, weight: u64::from(rooms) * 100 };
        assert_eq!(live.per_shard, [share(3), share(3), share(3)]);
        live.remove("4");
        live.remove("4");
        live.remove("none");
        assert_eq!(live.per_shard, [share(3), share(2), share(3)]);
    }

    #[test]
    fn pages_of_open_rooms_are_newest_first_and_leave_none_out() {
        let mut live = Live::new(1);
        for id in ["a", "b", "c", "d", "e"] {
            live.insert(live_room(id, 0));
        }
        let page =
            |live: &Live, after, limit| live.page(after, limit).iter().map(|room| room.id.clone()).collect::<Vec<_>>();
        assert_eq!(page(&live, None, 2), ["e", "d"]);
        assert_eq!(page(&live, Some("d"), 2), ["c", "b"]);
        // The last of the page before has closed since.
        live.remove("b");
        assert_eq!(page(&live, Some("b"), 2), ["a"]);
        assert!(page(&live, Some("a"), 2).is_empty());
        assert_eq!(page(&live, Some("x"), 9).len(), 4);
    }

    #[test]
    fn a_setup_is_refused_exactly_if_its_event_might_be_too_large() {
        let setup = |bytes: usize| Setup {
            seed: u64::MAX,
            tick_hz: 50,
            options: format!("\"{}\"", "o".repeat(bytes)),
            // The longest name in JSON.
            players: vec![PlayerSetup { name: "\"".repeat(PLAYER_NAME_BYTES_MAX), data: "[]".into() }; 64],
        };
        let module = ModuleName { name: "n".repeat(64), version: "1".repeat(64), hash: "f".repeat(64) };
        let live = |setup: &Setup| LiveRoom {
            id: "0".repeat(32),
            shard: 0,
            weight: 0,
            module: module.name.clone(),
            rules: InForce::new(module.clone()),
            setup: Mutex::new(Arc::new(setup.clone())),
            setting_up: tokio::sync::Mutex::default(),
            players: (0..).zip(&setup.players).map(|(player, p)| RoomPlayer { player, name: p.name.clone() }).collect(),
            opened_ms: 0,
            phase: AtomicU8::new(0),
            frame: AtomicU32::new(0),
        };
        let mut accepted = 0;
        for bytes in (0..DATA_MAX_BYTES).step_by(997) {
            let setup = setup(bytes);
            match check_recordable(&setup) {
                Ok(()) => {
                    accepted += 1;
                    let data = opened_event(&live(&setup), &setup).data.to_string();
                    assert!(data.len() <= DATA_MAX_BYTES, "{} bytes of options make {} bytes", bytes, data.len());
                }
                Err(error) => assert!(error.to_string().contains("`players` and `options` have"), "{error}"),
            }
        }
        assert!((1..=DATA_MAX_BYTES / 997).contains(&accepted), "{accepted}");
    }

    #[test]
    fn too_much_json_is_refused() {
        let long = Value::String("x".repeat(PLAYER_DATA_BYTES_MAX));
        let asked = [NewPlayer { name: "Ada".into(), data: Some(long) }];
        assert!(players(&asked).unwrap_err().to_string().contains("players[0].data"));
        assert_eq!(json_text("options", Some(&Value::Null), 9).unwrap(), "");
    }
}
