//! Journals: reading, walking, replaying, and writing again what was read.
//!
//! An input is a journal as it lies in a file, or (first byte 1) the bodies of its blocks, each behind its length of two bytes: the check sums are
//! made here then, because no mutation would ever hit one.

use std::sync::Arc;

use holeshot_abi::{Manifest, TickReader};
use holeshot_room::journal::{
    BLOCK_BYTES_MAX, Entry, Journal, JournalOutcome, JournalWriter, MAGIC, MESSAGE_BYTES_MAX, Recorded, ReplayedAs,
    Replayer, STATE_BYTES_SMALL,
};
use holeshot_room::{Departure, Fault, FaultKind, Outcome, Program, Ran, Usage};

use crate::rules::GivenProgram;
use crate::take::Take;

/// An input of this target from a journal.
#[must_use]
pub fn framed(journal: &[u8]) -> Option<Vec<u8>> {
    let mut rest = journal.strip_prefix(&MAGIC)?;
    let mut input = vec![1];
    while !rest.is_empty() {
        let (len, after) = rest.split_first_chunk::<4>()?;
        let len = u32::from_le_bytes(*len) as usize;
        let body = after.get(4..4 + len)?;
        input.extend_from_slice(&u16::try_from(len).ok()?.to_le_bytes());
        input.extend_from_slice(body);
        rest = &after[4 + len..];
    }
    Some(input)
}

/// The journal that an input of this target means.
#[must_use]
pub fn unframed(input: &[u8]) -> Vec<u8> {
    let mut input = Take(input);
    if input.u8() != 1 {
        return input.rest().to_vec();
    }
    let mut journal = MAGIC.to_vec();
    while !input.is_empty() {
        let body = input.piece();
        journal.extend_from_slice(&(body.len() as u32).to_le_bytes());
        journal.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
        journal.extend_from_slice(body);
    }
    journal
}

pub(crate) fn target(input: &[u8]) {
    let bytes = unframed(input);
    let journal = match Journal::read(&bytes) {
        Ok(journal) => journal,
        Err(error) => return assert!(error.to_string().len() <= 1_024, "{error}"),
    };
    let words = walk(&journal);
    let cut = journal.truncated_at().unwrap_or(bytes.len());
    assert!(cut <= bytes.len() && (cut < bytes.len() || journal.truncated_at().is_none()));
    assert!(!journal.is_whole() || words.last().is_some_and(|word| word == "end"));
    // What comes after the last whole block says nothing.
    let again = Journal::read(&bytes[..cut]).expect("whole blocks can be read");
    assert_eq!((again.truncated_at(), walk(&again)), (None, words.clone()));
    write_again(&journal, &words);
    replay(&journal);
}

/// Every entry in words, without what a writer makes anew: check sums of outputs, and states that are not there.
fn walk(journal: &Journal) -> Vec<String> {
    let players = journal.setup().players.len();
    let mut words = Vec::new();
    let mut frames = 0;
    let mut entries = journal.entries();
    while let Some(entry) = entries.next() {
        words.push(match entry {
            Entry::Frame { frame, record, ran } => {
                assert_eq!(frame, frames, "frames are numbered without a gap");
                frames += 1;
                let read = TickReader::read(record).expect("a record of a journal can be read");
                assert_eq!((read.frame, read.players()), (frame, players));
                match ran {
                    Recorded::Stepped(_) => format!("stepped {record:?}"),
                    Recorded::Skipped(fault) => format!("skipped {fault} {record:?}"),
                    Recorded::Faulted(fault) => format!("faulted {fault} {record:?}"),
                }
            }
            Entry::Checkpoint { next_frame, state_version, state, .. } => {
                let state = state.filter(|state| state.len() <= STATE_BYTES_SMALL);
                format!("checkpoint {next_frame} {state_version} {state:?}")
            }
            Entry::Swapped { next_frame, from, to, manifest } => {
                let manifest: Manifest = serde_json::from_str(manifest).expect("it was read when the journal was");
                format!("swapped {next_frame} {from:?} {to:?} {manifest:?}")
            }
            Entry::Kept { next_frame } => format!("kept {next_frame}"),
            Entry::RolledBack { since_frame, frame, failed, to, fault, message } => {
                format!("rolled back {since_frame} {frame} {failed:?} {to:?} {fault} {}", cut(message))
            }
            Entry::Retried { frame, fault, message } => format!("retried {frame} {fault} {}", cut(message)),
            Entry::TicksLost { count, next_frame } => format!("lost {count} {next_frame}"),
            Entry::Fault { frame, fault, message } => format!("fault {frame} {fault} {}", cut(message)),
            Entry::Ended { frames, reason: Some(reason), .. } => format!("ended {frames} {reason}"),
            Entry::Ended { frames, reason: None, results } => format!("ended {frames} {results}"),
            Entry::End => "end".to_owned(),
        });
    }
    assert_eq!(frames, journal.frames());
    words
}

fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)]
}

fn program(journal: &Journal, hash: [u8; 32], manifest: Manifest) -> GivenProgram {
    GivenProgram { hash, manifest, setup: journal.setup().clone(), output: Arc::new([]) }
}

/// A writer that is told what was read writes what reads the same.
fn write_again(journal: &Journal, words: &[String]) {
    let mut writer = JournalWriter::begin(journal.header());
    let mut entries = journal.entries();
    let fault = |kind: FaultKind, message: &str| Fault::new(kind, message);
    while let Some(entry) = entries.next() {
        let named = |hash: [u8; 32]| program(journal, hash, journal.manifest().clone());
        match entry {
            Entry::Frame { frame, record, ran } => {
                let failed = |kind| fault(kind, "");
                match ran {
                    Recorded::Stepped(_) => {
                        let ran = Ran::Stepped { output: &[], usage: Usage::default() };
                        writer.note(&Departure::Tick { frame, record, ran });
                    }
                    Recorded::Skipped(kind) => {
                        let ran = Ran::Skipped { fault: &failed(kind) };
                        writer.note(&Departure::Tick { frame, record, ran });
                    }
                    Recorded::Faulted(kind) => {
                        let ran = Ran::Faulted { fault: &failed(kind) };
                        writer.note(&Departure::Tick { frame, record, ran });
                    }
                }
            }
            Entry::Checkpoint { next_frame, state_version, state, .. } => {
                // A state that is not there is one that a writer leaves out: a large one soon after another.
                let large = vec![0; STATE_BYTES_SMALL + 1];
                let state = state.unwrap_or(&large);
                writer.note(&Departure::Checkpoint { next_frame, state_version, state });
            }
            Entry::Swapped { next_frame, from, to, manifest } => {
                let manifest = serde_json::from_str(manifest).expect("it was read when the journal was");
                let to = program(journal, to, manifest);
                let departure = Departure::RulesSwapped { next_frame, from: &named(from), to: &to };
                writer.note(&departure);
            }
            Entry::Kept { next_frame } => writer.note(&Departure::RulesKept { next_frame }),
            Entry::RolledBack { since_frame, frame, failed, to, fault: kind, message } => {
                let (fault, failed, to) = (fault(kind, message), named(failed), named(to));
                writer.note(&Departure::RulesRolledBack {
                    since_frame,
                    frame,
                    failed: &failed,
                    to: &to,
                    fault: &fault,
                    void: &[],
                    output_crcs: &[],
                });
            }
            Entry::Retried { frame, fault: kind, message } => {
                writer.note(&Departure::RulesRetried { frame, fault: &fault(kind, message) });
            }
            Entry::TicksLost { count, next_frame } => writer.note(&Departure::TicksLost { count, next_frame }),
            Entry::Fault { frame, fault: kind, message } => {
                writer.note(&Departure::RulesFault { frame, fault: &fault(kind, message) });
            }
            Entry::Ended { frames, reason, results } => writer.note(&Departure::Ended {
                outcome: match reason {
                    None => Outcome::Finished { frames, results },
                    Some(reason) => Outcome::Aborted { frames, reason },
                },
            }),
            Entry::End => writer.finish(),
        }
    }
    if !journal.is_whole() {
        writer.finish();
    }
    let written = writer.take();
    let again = Journal::read(&written).expect("what a writer wrote can be read");
    assert!(again.is_whole() && again.truncated_at().is_none());
    assert_eq!((again.header(), again.frames()), (journal.header(), journal.frames()));
    let mut found = walk(&again);
    if !journal.is_whole() {
        found.pop();
    }
    assert_eq!(found, words);
    assert_eq!(again.swaps(), journal.swaps());
    assert_eq!(again.rollbacks().len(), journal.rollbacks().len());
    match (again.outcome(), journal.outcome()) {
        (
            Some(JournalOutcome::Finished { frames: a, results: b }),
            Some(JournalOutcome::Finished { frames, results }),
        ) => {
            assert_eq!((a, b), (frames, results));
        }
        (a, b) => assert_eq!(a, b),
    }
    assert!(written.len() <= BLOCK_BYTES_MAX * 8, "it grew to {} bytes", written.len());
}

/// A replay comes to an end, whatever the journal says, and runs no frame twice.
fn replay(journal: &Journal) {
    let named = |hash: &[u8; 32]| Arc::new(program(journal, *hash, journal.manifest().clone())) as Arc<dyn Program>;
    let mut find = |hash: &[u8; 32]| Some(named(hash));
    let proves = Replayer::new(journal, &mut find).expect("every module is at hand");
    let under = Replayer::under(journal, named(&[9; 32])).expect("the rules begin with anything");
    for mut replayer in [proves, under] {
        let mut next_frame = 0;
        let mut compared = 0;
        while let Ok(Some(replayed)) = replayer.step() {
            assert!(replayed.frame >= next_frame, "frames only rise");
            next_frame = replayed.frame + 1;
            if let ReplayedAs::Stepped { output, .. } = replayed.ran {
                assert!(output.is_empty());
            }
            compared = compared.max(replayer.states_compared());
        }
        assert!(next_frame <= journal.frames() && compared <= walk_len(journal));
        assert!(matches!(replayer.step(), Ok(None)), "an end is an end");
    }
}

fn walk_len(journal: &Journal) -> u64 {
    let mut entries = journal.entries();
    let mut count = 0;
    while entries.next().is_some() {
        count += 1;
    }
    count
}
