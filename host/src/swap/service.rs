//! The service itself: one request after the other through loading, trial and swap, with a bound on everything that is under way.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use holeshot_room::{Phase, SwapRefusal, SwapRefusalKind};
use tokio::sync::{Mutex, MutexGuard, Semaphore, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout_at};

use super::follow::follow;
use super::{
    FailedModule, NewRooms, RoomVerdict, SwapError, SwapReport, SwapRequest, Target, Verdict, is_on_record,
    rules_failed, tell_loaded,
};
use crate::clock::give_way;
use crate::events::EventSink;
use crate::events::payload::{ModuleRef, Payload, SwapRefused};
use crate::modules::{Former, Loaded, Modules, Source};
use crate::rooms::{LiveRoom, ModuleName, Rooms};
use crate::rules::{Module, RoomProgram};
use crate::shard::{Command, SwapCommand};

/// Requests under way at a time. Each holds a file of up to [`MODULE_BYTES_MAX`](crate::rules::MODULE_BYTES_MAX); more are answered that the host is busy.
pub const SWAPS_AT_ONCE_MAX: usize = 16;
/// Rooms between the copy for the trial and the swap at a time, over all requests. Each holds a copy and an instance beyond those of the rooms, and each
/// swap is a pause for a shard: so few that a shard never has more than these in one pass. Others wait their turn.
pub const ROOMS_AT_ONCE_MAX: usize = 4;
/// Trials run at a time: what a trial takes is taken from the cores of the shards. Fewer than the rooms, which wait for their shards most of the time.
pub const TRIALS_AT_ONCE_MAX: usize = 2;
/// How long a request waits for rooms that are on probation or in another swap, in milliseconds, from when its module is loaded: several probations, and
/// below the half minute that any request has. Rooms that are not free by then refuse.
pub const SWAP_WAIT_MAX_MS: u64 = 20_000;
/// How often a room that is on probation is looked at, in milliseconds: about a tick.
const LOOK_EVERY_MS: u64 = 20;
/// Times that rooms are listed: all at first, then those that were opened meanwhile. New rooms have the module by then.
const PASSES: usize = 2;

/// Changes the rules of rooms.
#[derive(Debug)]
pub struct Swaps {
    modules: Arc<Modules>,
    rooms: Arc<Rooms>,
    sink: EventSink,
    requests: Arc<Semaphore>,
    at_once: Semaphore,
    trials: Semaphore,
    /// Whose turn it is to change what new rooms get. Of two swaps of all rooms at once, some would end with the one's rules and some with the other's.
    turn: Mutex<()>,
}

impl Swaps {
    /// The service of a host.
    #[must_use]
    pub fn new(rooms: Arc<Rooms>, sink: EventSink) -> Self {
        Self {
            modules: Arc::clone(rooms.modules()),
            rooms,
            sink,
            requests: Arc::new(Semaphore::new(SWAPS_AT_ONCE_MAX)),
            at_once: Semaphore::new(ROOMS_AT_ONCE_MAX),
            trials: Semaphore::new(TRIALS_AT_ONCE_MAX),
            turn: Mutex::new(()),
        }
    }

    /// Loads a module and gives it to the rooms asked for. It goes on if the caller does not wait for the end: half a swap is no state to leave rooms in.
    ///
    /// # Errors
    /// No room was asked, see [`SwapError`]. Rooms that refuse are in the report.
    pub async fn swap(self: &Arc<Self>, request: SwapRequest) -> Result<SwapReport, SwapError> {
        if self.rooms.is_stopping() {
            return Err(SwapError::Stopping);
        }
        let place = Arc::clone(&self.requests).try_acquire_owned().map_err(|_| SwapError::Busy)?;
        let swaps = Arc::clone(self);
        let work = tokio::spawn(async move {
            let report = swaps.run(request).await;
            drop(place);
            report
        });
        work.await.unwrap_or_else(|error| Err(SwapError::Internal(error.to_string())))
    }

    async fn run(self: &Arc<Self>, request: SwapRequest) -> Result<SwapReport, SwapError> {
        let SwapRequest { wasm, name, target, source } = request;
        let Loaded { module, load_us } = self.load(wasm).await?;
        let found = &module.manifest().name;
        if let Some(asked) = name.filter(|asked| asked != found) {
            return Err(SwapError::WrongName { asked, found: found.clone() });
        }
        let deadline = tokio::time::Instant::now() + Duration::from_millis(SWAP_WAIT_MAX_MS);
        let (rooms, new_rooms) = match &target {
            Target::Room(room) => (vec![self.one(room, &module, deadline).await?], NewRooms::NotAsked),
            Target::New => {
                let _turn = self.turn(deadline).await?;
                self.set(&module, source).await?;
                (Vec::new(), NewRooms::Set)
            }
            Target::All => self.all(&module, source, deadline).await?,
        };
        tell_loaded(&self.sink, &module);
        let count = |wanted: fn(&Verdict) -> bool| rooms.iter().filter(|room| wanted(&room.verdict)).count();
        let report = SwapReport {
            module: ModuleName::of(&module),
            bytes: module.wasm_bytes() as u64,
            compile_ms: load_us as f64 / 1_000.0,
            new_rooms,
            swapped: count(|verdict| matches!(verdict, Verdict::Swapped { .. })),
            refused: count(|verdict| matches!(verdict, Verdict::Refused { .. })),
            skipped: count(|verdict| matches!(verdict, Verdict::Skipped { .. })),
            rooms,
        };
        let SwapReport { swapped, refused, skipped, .. } = report;
        let ModuleName { name, version, hash } = &report.module;
        let said = if swapped == 0 && new_rooms != NewRooms::Set { "no rules changed" } else { "rules changed" };
        tracing::info!(module = name, version, hash, rooms = %target, swapped, refused, skipped, ?new_rooms, "{said}");
        Ok(report)
    }

    async fn load(&self, wasm: Vec<u8>) -> Result<Loaded, SwapError> {
        let modules = Arc::clone(&self.modules);
        let loaded = apart(move || modules.load(&wasm)).await;
        Ok(loaded.map_err(SwapError::Internal)??)
    }

    async fn turn(&self, deadline: tokio::time::Instant) -> Result<MutexGuard<'_, ()>, SwapError> {
        timeout_at(deadline, self.turn.lock()).await.map_err(|_| SwapError::Busy)
    }

    async fn set(&self, module: &Arc<Module>, source: Source) -> Result<Former, SwapError> {
        let (modules, module) = (Arc::clone(&self.modules), Arc::clone(module));
        let set = spawn_blocking(move || modules.set(&module, source)).await;
        Ok(set.map_err(|error| SwapError::Internal(error.to_string()))??)
    }

    /// A room that was named.
    async fn one(
        self: &Arc<Self>,
        room: &str,
        module: &Arc<Module>,
        deadline: tokio::time::Instant,
    ) -> Result<RoomVerdict, SwapError> {
        let live = self.rooms.live(room).ok_or_else(|| SwapError::UnknownRoom { room: room.to_owned() })?;
        let found = &module.manifest().name;
        if live.module != *found {
            let (room, has) = (room.to_owned(), live.module.clone());
            return Err(SwapError::OtherGame { room, has, found: found.clone() });
        }
        let verdict = self.swap_room(&live, module, true, deadline).await;
        Ok(RoomVerdict { room: live.id.clone(), verdict })
    }

    /// Every open room of the name, and new ones.
    async fn all(
        self: &Arc<Self>,
        module: &Arc<Module>,
        source: Source,
        deadline: tokio::time::Instant,
    ) -> Result<(Vec<RoomVerdict>, NewRooms), SwapError> {
        let _turn = self.turn(deadline).await?;
        let mut verdicts: Vec<RoomVerdict> = Vec::new();
        let mut swapped: Vec<Arc<LiveRoom>> = Vec::new();
        let mut former = None;
        for pass in 0..PASSES {
            let mut open = self.rooms.of_module(&module.manifest().name);
            open.retain(|live| !verdicts.iter().any(|verdict| verdict.room == live.id));
            let mut swapping = JoinSet::new();
            for live in open {
                let (swaps, module) = (Arc::clone(self), Arc::clone(module));
                swapping.spawn(async move {
                    let verdict = swaps.swap_room(&live, &module, false, deadline).await;
                    (live, verdict)
                });
            }
            while let Some(done) = swapping.join_next().await {
                let (live, verdict) = done.map_err(|error| SwapError::Internal(error.to_string()))?;
                verdicts.push(RoomVerdict { room: live.id.clone(), verdict });
                if matches!(verdicts.last(), Some(RoomVerdict { verdict: Verdict::Swapped { .. }, .. })) {
                    swapped.push(live);
                }
            }
            if pass == 0 {
                if verdicts.iter().any(|verdict| verdict.verdict.shows_bad_rules()) {
                    break;
                }
                former = Some(self.set(module, source).await?);
            }
        }
        // Ids begin with the time of opening.
        verdicts.sort_by(|a, b| a.room.cmp(&b.room));
        let Some(former) = former else { return Ok((verdicts, NewRooms::KeptBack)) };
        tokio::spawn(follow(Arc::clone(&self.rooms), Arc::clone(module), former, swapped));
        Ok((verdicts, NewRooms::Set))
    }

    /// One room, from its turn to its verdict.
    async fn swap_room(
        &self,
        live: &Arc<LiveRoom>,
        module: &Arc<Module>,
        was_named: bool,
        deadline: tokio::time::Instant,
    ) -> Verdict {
        let hash = module.hash().to_string();
        let Ok(_turn) = timeout_at(deadline, live.rules.turn()).await else {
            return waited_too_long("other changes of its rules are under way");
        };
        let from = live.rules.module();
        if from.hash == hash {
            return Verdict::Unchanged;
        }
        if let Some(FailedModule { frame, reason, rules_failed, .. }) = live.rules.failed(&hash).filter(|_| !was_named)
        {
            return Verdict::Skipped { frame, kind: reason, rules_failed };
        }
        let mut trial_us = None;
        let refusal = loop {
            // A room that waits at its start has a probation that no frame ends; whether it may swap again it knows itself.
            while live.rules.on_probation() && live.frame().is_some() && !is_over(&self.rooms, live) {
                if tokio::time::Instant::now() >= deadline {
                    return waited_too_long("the rules that it has are on probation themselves");
                }
                sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
            }
            if is_over(&self.rooms, live) {
                return Verdict::Ended;
            }
            match self.attempt(live, module, &mut trial_us).await {
                Ok(Some(verdict)) => return verdict,
                Err(refusal) if refusal.kind == SwapRefusalKind::RoomOver => return Verdict::Ended,
                Err(refusal) if refusal.kind != SwapRefusalKind::OnProbation => break refusal,
                // The shard has not taken the room yet, or a probation began a moment ago.
                Ok(None) | Err(_) => {
                    if tokio::time::Instant::now() >= deadline {
                        return waited_too_long("it has not begun, or its rules are on probation");
                    }
                    sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
                }
            }
        };
        self.refused(live, module, &from, &refusal);
        Verdict::refused(refusal, trial_us)
    }

    /// Tries and swaps once. None if the shard does not have the room.
    async fn attempt(
        &self,
        live: &Arc<LiveRoom>,
        module: &Arc<Module>,
        trial_us: &mut Option<u64>,
    ) -> Result<Option<Verdict>, SwapRefusal> {
        // Never closed, so there is a permit in the end. Kept until the swap is done: a candidate that waits for its shard has an instance.
        let _place = self.at_once.acquire().await;
        let Some(trial) = self.ask(live, |reply| SwapCommand::Trial { room: live.id.clone(), reply }).await else {
            return Ok(None);
        };
        let candidate = {
            let _permit = self.trials.acquire().await;
            let program = RoomProgram::new(Arc::clone(module), live.setup(), live.id.as_str().into());
            let begun = Instant::now();
            let tried = apart(move || trial.run(Arc::new(program))).await;
            *trial_us = Some(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
            tried.map_err(|error| SwapRefusal {
                kind: SwapRefusalKind::NoInstance,
                frame: None,
                message: format!("the host failed: {error}"),
                backtrace: None,
            })??
        };
        let swapped = self
            .ask(live, |reply| SwapCommand::Swap { room: live.id.clone(), candidate: Box::new(candidate), reply })
            .await;
        let Some(swapped) = swapped else { return Ok(None) };
        let done = swapped?;
        Ok(Some(Verdict::Swapped {
            frame: done.next_frame,
            trial_us: trial_us.unwrap_or_default(),
            pause_us: done.pause_us,
        }))
    }

    /// Asks the shard of a room. None if it does not have the room, or has ended.
    async fn ask<T>(
        &self,
        live: &LiveRoom,
        command: impl FnOnce(oneshot::Sender<Option<T>>) -> SwapCommand,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let shard = self.rooms.shard_of(live)?;
        if !shard.send(Command::Swap(command(reply))).await {
            return None;
        }
        answer.await.ok().flatten()
    }

    /// Takes note of a refusal, for the next swap and for the records.
    fn refused(&self, live: &LiveRoom, module: &Module, from: &ModuleName, refusal: &SwapRefusal) {
        let manifest = module.manifest();
        let hash = module.hash().to_string();
        tracing::warn!(
            room = live.id,
            module = manifest.name,
            version = manifest.version,
            hash,
            frame = refusal.frame,
            backtrace = refusal.backtrace.as_deref().unwrap_or_default(),
            "the room keeps the rules it has, because the new ones failed their trial: {refusal}"
        );
        if !is_on_record(refusal.kind) {
            return;
        }
        live.rules.note_failed(FailedModule {
            hash: hash.clone(),
            frame: refusal.frame,
            reason: refusal.kind.as_str().to_owned(),
            rules_failed: rules_failed(refusal.kind),
        });
        let reference = |module: &ModuleName| ModuleRef {
            hash: module.hash.clone(),
            name: module.name.clone(),
            version: module.version.clone(),
        };
        let event = SwapRefused {
            frame: refusal.frame.map(u64::from),
            module: reference(&ModuleName::of(module)),
            from: reference(from),
            reason: refusal.kind.as_str().to_owned(),
            message: refusal.message.clone(),
            backtrace: refusal.backtrace.clone(),
        };
        // Nothing is told of a room after it is closed.
        if self.rooms.live(&live.id).is_some()
            && let Err(error) = self.sink.emit(event.event(Some(&manifest.name), Some(&live.id), SystemTime::now()))
        {
            tracing::error!(room = live.id, %error, "an event is lost");
        }
    }
}

/// Whether nothing of a room can change any more.
pub(super) fn is_over(rooms: &Rooms, live: &LiveRoom) -> bool {
    matches!(live.phase(), Phase::Finished | Phase::Aborted | Phase::Closed) || rooms.live(&live.id).is_none()
}

/// Runs what takes long on a thread of its own that lets the shards go first. The error says why there is no result.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (done, result) = oneshot::channel();
    let run = move || {
        give_way();
        let _asker_gone = done.send(work());
    };
    std::thread::Builder::new()
        .name("swap".into())
        .spawn(run)
        .map_err(|error| format!("the system gives no thread: {error}"))?;
    result.await.map_err(|_| "the thread that did it panicked; the log says where".into())
}

fn waited_too_long(why: &str) -> Verdict {
    let message = format!("the room was not free within {} s: {why}; try again", SWAP_WAIT_MAX_MS / 1_000);
    let kind = SwapRefusalKind::OnProbation;
    Verdict::refused(SwapRefusal { kind, frame: None, message, backtrace: None }, None)
}
