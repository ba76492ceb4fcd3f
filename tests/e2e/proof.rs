//! Journals as the judge: what a race would have been under one module from its first frame to its last, and whether the race was what its journal
//! says. No test is in here.

use std::sync::Arc;

use holeshot::rules::{Module, RoomProgram};
use holeshot_abi::{Item, OutputReader};
use holeshot_room::Program;
use holeshot_room::journal::{Journal, JournalOutcome, ReplayedAs, Replayer};
use serde_json::Value;

use crate::harness::announce_errors;

/// Name of the room in which a journal runs again, in the log.
const ROOM: &str = "a journal that runs again";

/// What left the rules of a race.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Proof {
    /// Frame and bytes of the snapshots for everybody.
    pub(crate) snapshots: Vec<(u32, Vec<u8>)>,
    /// Frame, player and bytes of the snapshots for one.
    pub(crate) own: Vec<(u32, u16, Vec<u8>)>,
    /// Frame, name and data of the public events.
    pub(crate) events: Vec<(u32, String, Value)>,
    pub(crate) results: Option<Value>,
}

fn program(journal: &Journal, module: &Arc<Module>) -> Arc<dyn Program> {
    // What it logs when it fails again is no error of a host.
    announce_errors(ROOM, "misrule was told");
    Arc::new(RoomProgram::new(Arc::clone(module), Arc::new(journal.setup().clone()), ROOM.into()))
}

/// The race of a journal under one module: the same inputs, no swap.
#[track_caller]
pub(crate) fn under(journal: &Journal, module: &Arc<Module>) -> Proof {
    let mut replayer = Replayer::under(journal, program(journal, module)).unwrap();
    let mut proof = Proof::default();
    while let Some(replayed) = replayer.step().unwrap_or_else(|error| panic!("{error}")) {
        let ReplayedAs::Stepped { output, .. } = replayed.ran else { continue };
        for item in OutputReader::read(output, journal.setup().players.len()).unwrap().items() {
            match item {
                Item::SharedSnapshot(bytes) => proof.snapshots.push((replayed.frame, bytes.to_vec())),
                Item::Snapshot { player, bytes } => proof.own.push((replayed.frame, player, bytes.to_vec())),
                Item::PublicEvent { name, json } => {
                    proof.events.push((replayed.frame, name.to_owned(), serde_json::from_str(json).unwrap()));
                }
                Item::Results(json) => proof.results = Some(serde_json::from_str(json).unwrap()),
                _ => {}
            }
        }
    }
    proof
}

/// Proves a journal under the modules that it names, which must be among these: every output and every state is compared.
#[track_caller]
pub(crate) fn prove(what: &str, journal: &Journal, modules: &[Arc<Module>]) {
    let mut find = |hash: &[u8; 32]| {
        let found = modules.iter().find(|module| module.hash().as_bytes() == hash)?;
        Some(program(journal, found))
    };
    let mut replayer = Replayer::new(journal, &mut find).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut frames = 0;
    while replayer.step().unwrap_or_else(|error| panic!("{what}: {error}")).is_some() {
        frames += 1;
    }
    assert_eq!(replayer.difference(), None, "{what}");
    assert!(replayer.states_compared() > 0, "{what}");
    assert_eq!(frames, journal.frames(), "{what}");
    assert!(journal.is_whole(), "{what}: cut at {:?}", journal.truncated_at());
}

/// The results that a journal has.
pub(crate) fn results(journal: &Journal) -> Option<Value> {
    match journal.outcome()? {
        JournalOutcome::Finished { results, .. } => Some(serde_json::from_str(results).unwrap()),
        JournalOutcome::Aborted { .. } => None,
    }
}
