//! Manifests: what passes its checks can open a room, with any number of players that it allows.

use std::sync::Arc;

use holeshot_abi::{INPUT_BYTES_MAX, MANIFEST_BYTES_MAX, Manifest};
use holeshot_room::{Arrival, Limits, Room, RoomConfig, Supervision, Supervisor};

use crate::rules::{GivenProgram, setup};

/// Steps that a room makes at most: cutscene, countdown, and some frames.
const STEPS_MAX: usize = 24;

pub(crate) fn target(input: &[u8]) {
    if input.len() > MANIFEST_BYTES_MAX {
        return;
    }
    let Ok(manifest) = serde_json::from_slice::<Manifest>(input) else { return };
    let written = serde_json::to_string(&manifest).expect("a manifest is plain JSON");
    assert_eq!(serde_json::from_str::<Manifest>(&written).as_ref().ok(), Some(&manifest));
    if let Err(error) = manifest.validate() {
        // It is an answer to a request, and repeats a name that may be anything.
        assert!(error.to_string().len() <= 10 * input.len() + 256);
        return;
    }
    let stride = manifest.input_stride_bytes();
    assert!(stride.is_multiple_of(4) && stride >= manifest.input_bytes_max.into() && stride <= INPUT_BYTES_MAX);
    for players in [manifest.players_min, manifest.players_max] {
        play(&manifest, players);
    }
}

/// Opens a room and takes it some frames on.
fn play(manifest: &Manifest, players: u16) {
    let setup = setup(players.into(), manifest.tick_hz);
    let program =
        GivenProgram { hash: [1; 32], manifest: manifest.clone(), setup: setup.clone(), output: Arc::new([]) };
    let mut rules = Supervisor::begin(Arc::new(program), Supervision::default()).expect("they begin with anything");
    let config = RoomConfig { id: "r".into(), manifest: manifest.clone(), setup, limits: Limits::default() };
    let mut room = Room::open(config, 0).expect("a manifest that passed its checks opens a room");
    for player in 0..players {
        room.handle(0, Arrival::Connected { player }).expect("everybody may come");
        room.handle(0, Arrival::Ready { player }).expect("everybody may be ready");
    }
    let input = [0; INPUT_BYTES_MAX];
    let mut now_us = 0;
    for frame in 0..STEPS_MAX as u32 {
        for bytes in [&input[..manifest.input_bytes_max.into()], &input] {
            let _too_long_or_too_late = room.handle(now_us, Arrival::Input { player: 0, frame, bytes });
        }
        room.step(now_us, &mut rules, &mut |_| {});
        let Some(due_us) = room.next_due_us() else { break };
        assert!(due_us > now_us, "still due after the step");
        now_us = due_us;
    }
}
