//! Rules on probation: what they told, and what is made of it when the former rules are put back. When that happens is the
//! supervisor's affair, how players hear of it the room's.

use std::sync::Arc;

use holeshot_abi::Item;

use crate::output;
use crate::rules::{Fault, Program};

/// Events of rules on probation that are kept to be compared with those of the former rules. When there may be more the probation ends early.
/// A race of eight tells some thirty in its three busiest seconds; and a list of all of them still fits into the one event that calls them void.
pub const PROBATION_EVENTS_MAX: usize = 256;

/// Public events that are told anew after a rollback. They all come in one step, to every player: a host that keeps a queue of messages for each must
/// have places for so many, and for what the frame itself tells. What is beyond is counted and not told.
pub const RERUN_PUBLIC_EVENTS_MAX: usize = 128;

/// Bytes of events that are told anew after a rollback, internal ones included, with the same outcome: what every player's connection has to carry
/// at once.
pub const RERUN_EVENTS_BYTES_MAX: usize = 1 << 20;

/// An event that rules on probation told.
#[derive(Debug, Clone)]
struct Told {
    /// The number of a public event.
    seq: Option<u64>,
    frame: u32,
    name: Box<str>,
    /// BLAKE3 of its data.
    hash: [u8; 32],
}

/// Rules on probation.
#[derive(Debug)]
pub(crate) struct Probationary {
    /// The rules before them.
    pub(crate) former: Arc<dyn Program>,
    /// Their first frame.
    pub(crate) since_frame: u32,
    /// The probation is over when this is the next frame.
    pub(crate) ends_frame: u32,
    /// What a frame of the former rules costs, as far as is known: it is they who would be run again. 0 before frame 0.
    pub(crate) former_tick_fuel: u64,
    told: Vec<Told>,
}

/// An event of the former rules' run that has to be told now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Untold {
    pub(crate) frame: u32,
    pub(crate) public: bool,
    pub(crate) name: String,
    pub(crate) json: String,
}

/// How the former rules' run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rerun {
    /// It is where the room is.
    Whole,
    /// They finished the game on the way.
    Finished { frame: u32, results: String },
    /// They failed, too.
    Failed(Fault),
}

/// The former rules were put back.
#[derive(Debug)]
pub(crate) struct Rollback {
    pub(crate) since_frame: u32,
    /// In which the new rules failed.
    pub(crate) frame: u32,
    pub(crate) failed: Arc<dyn Program>,
    pub(crate) fault: Fault,
    pub(crate) output_crcs: Vec<u32>,
    pub(crate) untold: Vec<Untold>,
    /// How many more there would be.
    pub(crate) untold_dropped: u64,
    /// Public events that only the failed rules told.
    pub(crate) void: Vec<u64>,
    /// Internal ones: frame and name.
    pub(crate) void_internal: Vec<(u32, Box<str>)>,
    pub(crate) rerun: Rerun,
}

impl Probationary {
    pub(crate) fn new(former: Arc<dyn Program>, former_tick_fuel: u64, since_frame: u32, frames: u32) -> Self {
        let ends_frame = since_frame.saturating_add(frames);
        Self { former, since_frame, ends_frame, former_tick_fuel, told: Vec::new() }
    }

    /// Takes note of an event that the rules on probation told.
    pub(crate) fn note(&mut self, seq: Option<u64>, frame: u32, name: &str, json: &str) {
        self.told.push(Told { seq, frame, name: name.into(), hash: *blake3::hash(json.as_bytes()).as_bytes() });
    }

    /// The events of one more frame may not find a place.
    pub(crate) fn is_full(&self) -> bool {
        self.told.len() + holeshot_abi::EVENTS_PER_TICK_MAX > PROBATION_EVENTS_MAX
    }
}

/// Compares what the former rules put out, frame by frame, with what was told.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    told: Vec<Told>,
    untold: Vec<Untold>,
    untold_public: usize,
    untold_bytes: usize,
    untold_dropped: u64,
    output_crcs: Vec<u32>,
}

impl Comparison {
    pub(crate) fn of(probation: &Probationary) -> Self {
        Self { told: probation.told.clone(), ..Self::default() }
    }

    /// The former rules ran a frame. `output` was checked.
    pub(crate) fn see(&mut self, frame: u32, output: &[u8]) {
        self.output_crcs.push(crc32fast::hash(output));
        for item in output::items(output) {
            let (public, name, json) = match item {
                Item::PublicEvent { name, json } => (true, name, json),
                Item::InternalEvent { name, json } => (false, name, json),
                Item::SharedSnapshot(_) | Item::Snapshot { .. } | Item::Results(_) => continue,
            };
            let hash = *blake3::hash(json.as_bytes()).as_bytes();
            let told = self.told.iter().position(|told| {
                told.frame == frame && told.seq.is_some() == public && *told.name == *name && told.hash == hash
            });
            if let Some(at) = told {
                self.told.remove(at);
            } else if self.untold_bytes + name.len() + json.len() > RERUN_EVENTS_BYTES_MAX
                || (public && self.untold_public >= RERUN_PUBLIC_EVENTS_MAX)
            {
                self.untold_dropped += 1;
            } else {
                self.untold_bytes += name.len() + json.len();
                self.untold_public += usize::from(public);
                self.untold.push(Untold { frame, public, name: name.into(), json: json.into() });
            }
        }
    }

    /// What is left: events that only the failed rules told. If the former rules failed in a frame, nobody knows what they would
    /// have told from there on, and nothing of it is void.
    pub(crate) fn finish(
        self,
        since_frame: u32,
        frame: u32,
        failed: Arc<dyn Program>,
        fault: Fault,
        rerun: Rerun,
        failed_in: Option<u32>,
    ) -> Rollback {
        let void = self.told.into_iter().filter(|told| failed_in.is_none_or(|failed_in| told.frame < failed_in));
        let (public, internal): (Vec<_>, Vec<_>) = void.partition(|told| told.seq.is_some());
        Rollback {
            since_frame,
            frame,
            failed,
            fault,
            output_crcs: self.output_crcs,
            untold: self.untold,
            untold_dropped: self.untold_dropped,
            void: public.into_iter().filter_map(|told| told.seq).collect(),
            void_internal: internal.into_iter().map(|told| (told.frame, told.name)).collect(),
            rerun,
        }
    }
}
