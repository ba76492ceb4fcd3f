//! Rules that put out what a target says, and the program that begins them.

use std::sync::Arc;

use holeshot_abi::{Manifest, PlayerSetup, Setup};
use holeshot_room::{BeginError, Fault, Program, RestoreError, Rules};

/// Begins [`Given`]. It answers to any hash that it is asked to have.
#[derive(Debug, Clone)]
pub(crate) struct GivenProgram {
    pub(crate) hash: [u8; 32],
    pub(crate) manifest: Manifest,
    pub(crate) setup: Setup,
    pub(crate) output: Arc<[u8]>,
}

/// Rules whose output is the same in every frame, and whose state is how many frames they saw.
struct Given {
    output: Arc<[u8]>,
    frames: u32,
}

impl Program for GivenProgram {
    fn hash(&self) -> [u8; 32] {
        self.hash
    }

    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn setup(&self) -> &Setup {
        &self.setup
    }

    fn begin(&self) -> Result<Box<dyn Rules + Send>, BeginError> {
        Ok(Box::new(Given { output: Arc::clone(&self.output), frames: 0 }))
    }
}

impl Rules for Given {
    fn tick(&mut self, _: &[u8]) -> Result<&[u8], Fault> {
        self.frames += 1;
        Ok(&self.output)
    }

    fn save(&mut self) -> Result<Vec<u8>, Fault> {
        Ok(self.frames.to_le_bytes().to_vec())
    }

    fn restore(&mut self, _: u32, state: &[u8]) -> Result<(), RestoreError> {
        let state = state.try_into().map_err(|_| RestoreError::Refused("a state has 4 bytes".into()))?;
        self.frames = u32::from_le_bytes(state);
        Ok(())
    }
}

/// The setup of a room with so many players.
pub(crate) fn setup(players: usize, tick_hz: u32) -> Setup {
    let player = |slot| PlayerSetup { name: format!("player {slot}"), data: String::new() };
    Setup { seed: 1, tick_hz, options: String::new(), players: (0..players).map(player).collect() }
}
