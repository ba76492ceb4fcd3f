//! Another engine: the wasm of the default game gives the same outputs and states in V8, over the whole journal of a race that real clients drove.
//! Needs `node`; where it is not installed the test says so and is skipped, unless this is continuous integration.

use std::process::Command;

use holeshot::rules::DRAG_RACE_WASM;
use holeshot_room::journal::{Entry, Journal, Recorded};

use crate::harness::{Host, run, tell};
use crate::journal::{closed_journal, crc32, download, race};

const INIT: u8 = 1;
const TICK: u8 = 2;
const SAVE: u8 = 3;

/// What the module must answer to a call.
#[derive(Debug)]
enum Answer {
    /// Nothing: the setup is accepted.
    Empty,
    /// The output of this frame has this CRC-32.
    Output(u32, u32),
    /// The state before this frame has this BLAKE3 hash.
    State(u32, [u8; 32]),
}

/// The calls that a host makes for a room, and what the module answered it.
fn calls(journal: &Journal) -> (Vec<u8>, Vec<Answer>) {
    let (mut calls, mut answers) = (Vec::new(), Vec::new());
    let mut call = |number: u8, record: &[u8], answer: Answer| {
        calls.push(number);
        calls.extend_from_slice(&u32::try_from(record.len()).unwrap().to_le_bytes());
        calls.extend_from_slice(record);
        answers.push(answer);
    };
    call(INIT, &journal.header().setup, Answer::Empty);
    let mut entries = journal.entries();
    while let Some(entry) = entries.next() {
        match entry {
            Entry::Frame { frame, record, ran: Recorded::Stepped(crc) } => {
                call(TICK, record, Answer::Output(frame, crc))
            }
            Entry::Frame { ran, .. } => panic!("a frame that was not stepped: {ran:?}"),
            Entry::Checkpoint { next_frame, hash, .. } => call(SAVE, &[], Answer::State(next_frame, hash)),
            _ => {}
        }
    }
    (calls, answers)
}

#[test]
fn v8_gives_the_states_and_outputs_of_a_race() {
    run(150, async {
        match Command::new("node").arg("--version").output() {
            Ok(version) if version.status.success() => {
                println!("node {}", String::from_utf8_lossy(&version.stdout).trim());
            }
            other if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("node: {other:?}"),
            other => return tell!("SKIPPED: node: {other:?}; install nodejs to run this test"),
        }
        let host = Host::start_with(|settings| settings.linger_s = Some(1)).await;
        let room = race(&host, 34, async |_: &str| {}).await;
        closed_journal(&host, &room).await;
        let journal = Journal::read(&download(&host, &room).await).unwrap();
        host.stop().await;
        assert!(journal.is_whole() && journal.swaps().is_empty());

        let (calls, expected) = calls(&journal);
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("game.wasm"), DRAG_RACE_WASM).unwrap();
        std::fs::write(path("calls"), &calls).unwrap();
        let node = Command::new("node")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/node/boundary.mjs"))
            .args([path("game.wasm"), path("calls"), path("answers")])
            .output()
            .unwrap();
        assert!(node.status.success(), "{}", String::from_utf8_lossy(&node.stderr));

        let answers = std::fs::read(path("answers")).unwrap();
        let mut rest = answers.as_slice();
        let (mut outputs, mut states) = (0, 0);
        for expected in &expected {
            let (len, after) = rest.split_at(4);
            let (answer, after) = after.split_at(u32::from_le_bytes(len.try_into().unwrap()) as usize);
            rest = after;
            match expected {
                Answer::Empty => assert!(answer.is_empty(), "{}", String::from_utf8_lossy(answer)),
                Answer::Output(frame, crc) => {
                    assert_eq!(crc32(answer), *crc, "the output of frame {frame} is another one in V8");
                    outputs += 1;
                }
                Answer::State(next_frame, hash) => {
                    let found = holeshot::rules::ModuleHash::of(answer);
                    assert_eq!(found.as_bytes(), hash, "the state before frame {next_frame} is another one in V8");
                    states += 1;
                }
            }
        }
        assert!(rest.is_empty());
        println!("{outputs} outputs and {states} states are the same in V8");
        assert!(outputs == journal.frames() && outputs > 400 && states > 8, "{outputs} outputs, {states} states");
    });
}
