//! A room of the Holeshot game host as a pure state machine: who is there, what phase the match is in, which input
//! counts for which frame, when the next tick is due and what leaves the room.
//!
//! Nothing in here reads a clock, a socket, a file or a random source: time comes in as microseconds of any monotonic
//! clock, what players send comes in as [`Arrival`]s, and everything that leaves is a [`Departure`]. The rules of the
//! game are behind [`Rules`]: a wasm instance in the host, native code in tests. A [`Supervisor`] runs them so that their failures can be
//! undone. Start reading at [`Room`].
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod actions;
mod config;
mod counters;
mod history;
mod inputs;
pub mod journal;
mod json;
mod messages;
mod output;
mod payloads;
mod records;
mod rollback;
mod room;
mod rules;
mod supervisor;
mod trial;
mod warm;

pub use actions::{ACTION_RESULTS_KEPT_MAX, ActionOutcome, ActionRefusal};
pub use config::{Limits, OpenError, RoomConfig};
pub use counters::{PlayerCounters, RoomCounters};
pub use history::EventsAfter;
pub use inputs::MARGIN_WINDOW_INPUTS;
pub use messages::{
    AbortReason, Arrival, Departure, EventSource, LeftReason, NotTaken, Outcome, Phase, PublicEvent, Ran,
};
pub use output::{INTERNAL_PREFIXES_RESERVED, PUBLIC_NAMES_RESERVED};
pub use rollback::{PROBATION_EVENTS_MAX, RERUN_EVENTS_BYTES_MAX, RERUN_PUBLIC_EVENTS_MAX};
pub use room::{Beat, PlayerView, Room, Swapped};
pub use rules::{BeginError, Fault, FaultKind, Program, RestoreError, Rules, Usage};
pub use supervisor::{Probation, RECORDS_BYTES_MAX, RETRIES_MAX, Supervision, Supervisor};
pub use trial::{Candidate, INSTANCES_PER_CANDIDATE_MAX, SwapRefusal, SwapRefusalKind, TRIAL_FRAMES_BEYOND, Trial};
pub use warm::{Ask, AskMany, LINE_BYTES, ask_for};
