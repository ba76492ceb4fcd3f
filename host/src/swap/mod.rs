//! Changing the rules of rooms that run: loads a module away from the shards, tries it on a copy of each room, has the shards swap what passed, and
//! says what became of each room. How a room swaps and what undoes it is the affair of `holeshot-room`; which module a name has is that of
//! [`crate::modules`].
//!
//! # What new rooms get
//!
//! A swap of all rooms sets the name for new rooms once the open ones have had their trials, unless the rules themselves failed in one of these: trapped, took
//! too long, put out what may not leave a room, saved a state that they do not restore. Rules that merely cannot take a running room over (another state
//! without a `migrate`, another tick rate) are still good for new rooms: a modder who changes the state has no other way. Where no room is open nothing was
//! tried, and new rooms get the module because it was loaded.
//!
//! Rules may pass every trial and fail on probation. If that happens in every room that they took over, and they passed in none, new rooms get the
//! former module again, over a restart too; the log says so. If some rooms keep the new rules, so do new rooms: `GET /api/modules` says in how
//! many open rooms they failed.
//!
//! # A host that stops
//!
//! It takes no change any more ([`SwapError::Stopping`]; of a watched file the log says so): rooms come to their end under the rules that they have. Changes under
//! way go on, and so do probations.
//!
//! # What is not tried again
//!
//! A module that failed in a room, in its trial or on probation, is on record there by its hash. Swaps of all rooms and watched files pass that
//! room over; a request that names the room tries again. Refusals that say nothing about the module (no instance free, room on
//! probation) are not on record.

mod follow;
mod in_force;
mod service;
mod watch;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use holeshot_room::{SwapRefusal, SwapRefusalKind};
use serde::Serialize;

use crate::events::EventSink;
use crate::events::payload::{ModuleLoaded, Payload};
use crate::modules::{ModulesError, Source};
use crate::rooms::ModuleName;
use crate::rules::Module;

pub use in_force::{FAILED_MAX, FailedModule, InForce};
pub use service::{ROOMS_AT_ONCE_MAX, SWAP_WAIT_MAX_MS, SWAPS_AT_ONCE_MAX, Swaps, TRIALS_AT_ONCE_MAX};
pub(crate) use watch::Watched;

/// Which rooms are to have a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every open room of its name, and new ones.
    All,
    /// New rooms alone.
    New,
    /// One open room.
    Room(String),
}

impl FromStr for Target {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "all" => Self::All,
            "new" => Self::New,
            room => Self::Room(room.to_owned()),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::New => "new",
            Self::Room(room) => room,
        })
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct SwapRequest {
    /// The bytes of the module's file.
    pub wasm: Vec<u8>,
    /// The name that the module must have, if one was given.
    pub name: Option<String>,
    /// Which rooms.
    pub target: Target,
    /// Who asks: it decides whether a name is remembered.
    pub source: Source,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SwapReport {
    /// The module.
    pub module: ModuleName,
    /// Size of its file in bytes.
    pub bytes: u64,
    /// How long it took to read, check and compile, in milliseconds.
    pub compile_ms: f64,
    /// Whether new rooms get it.
    pub new_rooms: NewRooms,
    /// Rooms that have its rules now.
    pub swapped: usize,
    /// Rooms that keep theirs because they refused it.
    pub refused: usize,
    /// Rooms that keep theirs because it had failed there before.
    pub skipped: usize,
    /// Each room that was asked, oldest first.
    pub rooms: Vec<RoomVerdict>,
}

/// Whether new rooms get a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NewRooms {
    /// They do from now on.
    Set,
    /// Nobody asked for it.
    NotAsked,
    /// They do not: the rules failed in the trial of an open room.
    KeptBack,
}

/// What became of one room.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoomVerdict {
    /// Its id.
    pub room: String,
    /// What became of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What became of a room that was to have a module.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// It has the new rules, on probation.
    Swapped {
        /// Their first frame.
        frame: u32,
        /// How long the trial took, in microseconds. The room ran on meanwhile.
        trial_us: u64,
        /// How long the room, and the others of its shard, waited for the swap itself, in microseconds.
        pause_us: u64,
    },
    /// It keeps the rules it has.
    Refused {
        /// Why, as a word: that of a [`SwapRefusalKind`].
        kind: &'static str,
        /// The frame in which the trial failed, if it was one.
        frame: Option<u32>,
        /// Why, for the person who wrote the module.
        message: String,
        /// The module's functions at that time, innermost first, one per line.
        backtrace: Option<String>,
        /// How long the trial took, in microseconds; none if there was none.
        trial_us: Option<u64>,
        /// Whether the rules themselves failed: then new rooms do not get them either.
        rules_failed: bool,
    },
    /// It keeps the rules it has: the module failed here before, and nobody named this room.
    Skipped {
        /// The frame in which it had failed, if it was one.
        frame: Option<u32>,
        /// How it had failed, as a word.
        kind: String,
        /// Whether the rules themselves had failed.
        rules_failed: bool,
    },
    /// It has these very rules.
    Unchanged,
    /// It was over before it was its turn.
    Ended,
}

impl Verdict {
    fn refused(refusal: SwapRefusal, trial_us: Option<u64>) -> Self {
        Self::Refused {
            kind: refusal.kind.as_str(),
            frame: refusal.frame,
            rules_failed: rules_failed(refusal.kind),
            message: refusal.message,
            backtrace: refusal.backtrace,
            trial_us,
        }
    }

    const fn shows_bad_rules(&self) -> bool {
        matches!(self, Self::Refused { rules_failed: true, .. } | Self::Skipped { rules_failed: true, .. })
    }
}

/// Whether a refusal says that the rules are bad, rather than that they cannot take this room over.
const fn rules_failed(kind: SwapRefusalKind) -> bool {
    matches!(kind, SwapRefusalKind::Fault(_) | SwapRefusalKind::Overrun | SwapRefusalKind::StateDiffers)
}

/// Whether a refusal is the module's doing, and would come again.
const fn is_on_record(kind: SwapRefusalKind) -> bool {
    !matches!(kind, SwapRefusalKind::NoInstance | SwapRefusalKind::RoomOver | SwapRefusalKind::OnProbation)
}

/// Why no room was even asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SwapError {
    /// Too many requests of this kind at once, or others for all rooms that took too long.
    #[error("the host is busy with other changes of rules; try again in a moment")]
    Busy,
    /// The host is stopping: what runs comes to its end under the rules that it has.
    #[error(
        "the host is stopping and changes no rules any more; ask again when it has started anew, and what was set stays for its next start"
    )]
    Stopping,
    /// The module cannot be had.
    #[error(transparent)]
    Module(#[from] ModulesError),
    /// It has another name than was said.
    #[error(
        "the module is named `{found}` in its manifest, not `{asked}`: PUT it to /api/modules/{found}, or change the manifest"
    )]
    WrongName {
        /// The name that was said.
        asked: String,
        /// The name in the manifest.
        found: String,
    },
    /// There is no such open room.
    #[error(
        "there is no open room {room:?}; GET /api/rooms lists the rooms, and `rooms` takes `all`, `new` or the id of one"
    )]
    UnknownRoom {
        /// The id.
        room: String,
    },
    /// The room plays another game.
    #[error(
        "room {room} plays `{has}`, the module is `{found}`: a room keeps its game. It would open rooms of its own with rooms=new"
    )]
    OtherGame {
        /// The room.
        room: String,
        /// The name of its rules.
        has: String,
        /// The module's name.
        found: String,
    },
    /// A fault of the host itself.
    #[error("the host failed: {0}")]
    Internal(String),
}

/// Tells the manager that a module was loaded.
pub(crate) fn tell_loaded(sink: &EventSink, module: &Arc<Module>) {
    let manifest = module.manifest();
    let loaded = ModuleLoaded {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        hash: module.hash().to_string(),
        abi: module.abi_version(),
        bytes: module.wasm_bytes() as u64,
        leaderboards: manifest.leaderboards.clone(),
    };
    if let Err(error) = sink.emit(loaded.event(Some(&manifest.name), None, SystemTime::now())) {
        tracing::error!(kind = ModuleLoaded::KIND, %error, "an event is lost");
    }
}
