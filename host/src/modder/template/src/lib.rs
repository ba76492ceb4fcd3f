//! Drag race rules in which a red light costs time in place of the race.
//!
//! The race itself is the one that ships with the host (`vendor/drag-race`). What is different is here: who leaves before green owes a penalty, which is
//! added at the finish line before the lanes are compared.

use drag_race::{DragRace, Happened, Input, Judging, Snapshot};
use holeshot_guest::{Manifest, Output, Rules, Setup, Tick, export, read_state};
use serde::{Deserialize, Serialize};

/// What a red light costs, in seconds. Change it and build: the race that is running goes on with the new price.
pub const RED_LIGHT_S: f64 = 1.0;

/// The state of one race: all of it is saved, restored and carried over when rules are swapped.
#[derive(Debug, Serialize, Deserialize)]
pub struct MyRules {
    /// The race by the rules that ship with the host.
    base: DragRace,
    /// What each lane owes, in seconds. New in state version 2.
    penalties_s: Vec<f64>,
}

/// Data of the public event `penalty`.
#[derive(Serialize)]
struct Penalty {
    lane: u16,
    seconds: f64,
}

impl MyRules {
    fn charge(&mut self, lane: u16) {
        if let Some(penalty_s) = self.penalties_s.get_mut(usize::from(lane)) {
            *penalty_s += RED_LIGHT_S;
        }
    }
}

impl Rules for MyRules {
    type Input = Input;
    type Snapshot = Snapshot;

    fn manifest() -> Manifest {
        Manifest {
            // The name stays `drag-race`: these rules can take over its rooms. The version says whose they are.
            version: concat!(env!("CARGO_PKG_VERSION"), "+", env!("CARGO_PKG_NAME")).into(),
            // Counts up when a field of the state is added, removed or moved; see `migrate`.
            state_version: 2,
            ..DragRace::manifest()
        }
    }

    fn new(setup: &Setup) -> Result<Self, String> {
        Ok(Self {
            base: DragRace::new(setup)?,
            penalties_s: vec![0.0; setup.players.len()],
        })
    }

    fn tick(&mut self, tick: &Tick<'_, Input>, out: &mut Output<'_, Self>) {
        let happened = self.base.step(tick);
        for (lane, what) in &happened {
            if *what == Happened::RedLight {
                self.charge(*lane);
                out.public_event(
                    "penalty",
                    &Penalty {
                        lane: *lane,
                        seconds: RED_LIGHT_S,
                    },
                );
            }
        }
        let judging = Judging {
            red_light_loses: false,
            penalties_s: &self.penalties_s,
        };
        self.base.tell(&happened, judging, out);
        out.snapshot(&self.base.race().snapshot());
        if self.base.race().over() {
            out.finish(self.base.results(judging));
        }
    }

    /// Takes over a race that began under the rules that ship: their state, version 1, has no penalties. Who had its red light under them pays
    /// for it under these.
    fn migrate(&mut self, state_version: u32, state: &[u8]) -> Result<(), String> {
        if state_version != 1 {
            return Err(format!(
                "these rules know state versions 1 and 2, not {state_version}"
            ));
        }
        self.base = read_state(state)?;
        let lanes = self.base.race().lanes();
        self.penalties_s = lanes
            .iter()
            .map(|lane| if lane.red_light() { RED_LIGHT_S } else { 0.0 })
            .collect();
        Ok(())
    }
}

export!(MyRules);
