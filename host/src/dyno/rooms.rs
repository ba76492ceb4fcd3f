//! Rooms of a rules module with one car, without a host: records in, snapshots out. What is driven is `strip.rs`' affair.

use std::sync::{Arc, Mutex, PoisonError};

use drag_race::timing::TimeSlip;
use drag_race::{Car, Input, LaneView, Snapshot, to_options_json};
use holeshot_abi::{
    Change, ChangeKind, InputStatus, Item, OutputReader, PlayerInput, PlayerResult, PlayerSetup, Setup, TickRecord,
};
use holeshot_room::{Fault, RestoreError, Rules as _};
use serde_json::json;

use super::error::{StripError, Work};
use crate::rules::{InstantiateError, Module, WasmRules};

/// The seed of the dyno's rooms. It decides how long the tree waits and nothing else of a car alone.
const SEED: u64 = 20_007;
/// Largest input of the drag race, in bytes: three positions.
const INPUT_BYTES: u16 = 3;

/// What rooms of one car are made of.
#[derive(Debug)]
pub(super) struct Rooms {
    module: Arc<Module>,
    car: Arc<Car>,
    setup: Setup,
    work: Arc<Work>,
    /// Rooms that nobody uses now, no more than threads.
    idle: Mutex<Vec<Room>>,
}

/// An instance of the module.
#[derive(Debug)]
pub(super) struct Room {
    rules: WasmRules,
    record: TickRecord,
}

/// What comes of a tick.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) snapshot: Snapshot,
    /// The time slip, once the race is over.
    pub(super) slip: Option<TimeSlip>,
}

impl Rooms {
    /// Rooms for a car, once one was begun.
    pub(super) fn open(module: &Arc<Module>, car: &Arc<Car>, work: &Arc<Work>) -> Result<Self, StripError> {
        let rooms = Self {
            module: Arc::clone(module),
            car: Arc::clone(car),
            setup: setup(module, car),
            work: Arc::clone(work),
            idle: Mutex::default(),
        };
        let manifest = module.manifest();
        if manifest.players_min > 1 {
            let problem =
                format!("its rooms have {} players or more, and a dyno runs one car alone", manifest.players_min);
            return Err(rooms.foreign(problem));
        }
        if manifest.input_bytes_max < INPUT_BYTES {
            let problem = format!(
                "its inputs have at most {} bytes, and the drag race's have {INPUT_BYTES}",
                manifest.input_bytes_max
            );
            return Err(rooms.foreign(problem));
        }
        rooms.give_back(rooms.begin()?);
        Ok(rooms)
    }

    pub(super) const fn car(&self) -> &Arc<Car> {
        &self.car
    }

    pub(super) fn work(&self) -> &Work {
        &self.work
    }

    /// Length of a tick, in s.
    pub(super) fn tick_s(&self) -> f64 {
        1.0 / f64::from(self.module.manifest().tick_hz.max(1))
    }

    /// Ticks in a time.
    pub(super) fn ticks(&self, seconds: f64) -> u32 {
        (seconds / self.tick_s()).ceil() as u32
    }

    /// A room before frame 0. It is dropped by who asked, or given back.
    pub(super) fn begin(&self) -> Result<Room, StripError> {
        let rules = self.module.instantiate(&self.setup, "dyno").map_err(|error| match error {
            InstantiateError::HostFull { .. } => StripError::Machine(error),
            InstantiateError::Faulted(fault) => self.fault(0, fault),
            InstantiateError::Refused { .. } | InstantiateError::Setup(_) => StripError::Setup {
                module: self.module_name(),
                car: self.car.id.to_string(),
                problem: error.to_string(),
            },
        })?;
        Ok(Room { rules, record: TickRecord::default() })
    }

    /// A room in a state that one of these rooms saved before `next_frame`.
    pub(super) fn restored(&self, state: &[u8], next_frame: u32) -> Result<Room, StripError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut room = idle.map_or_else(|| self.begin(), Ok)?;
        let restored = room.rules.restore(self.module.manifest().state_version, state);
        restored.map_err(|error| match error {
            RestoreError::Refused(text) => self.foreign(format!("it does not take back a state that it saved: {text}")),
            RestoreError::Fault(fault) => self.fault(next_frame, fault),
        })?;
        Ok(room)
    }

    /// The state of a room before a frame.
    pub(super) fn save(&self, room: &mut Room, next_frame: u32) -> Result<Vec<u8>, StripError> {
        room.rules.save().map_err(|fault| self.fault(next_frame, fault))
    }

    /// Keeps an instance for the next run. One that failed is not given back.
    pub(super) fn give_back(&self, room: Room) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(room);
    }

    /// Runs a frame. The input is none before the driver has seen anything.
    pub(super) fn tick(&self, room: &mut Room, frame: u32, input: Option<Input>) -> Result<Told, StripError> {
        if self.work.is_broken_off() {
            return Err(StripError::BrokenOff);
        }
        self.work.note_tick();
        room.record.begin(frame, 1, self.module.manifest().input_stride_bytes());
        if frame == 0 {
            room.record.push_change(Change { player: 0, kind: ChangeKind::Joined });
        }
        if let Some(input) = input {
            // Three bytes in postcard, too: `drag_race::Input` says so and a test holds it there.
            let bytes = [input.throttle, input.clutch, input.gear];
            room.record.set_input(0, PlayerInput { status: InputStatus::Fresh, age_frames: 0, bytes: &bytes });
        }
        let output = room.rules.tick(room.record.bytes()).map_err(|fault| self.fault(frame, fault))?;
        let output = OutputReader::read(output, 1).map_err(|malformed| {
            self.foreign(format!("what it gives in frame {frame} is no output record: {malformed}"))
        })?;
        let (mut snapshot, mut slip) = (None, None);
        for item in output.items() {
            match item {
                Item::SharedSnapshot(bytes) | Item::Snapshot { bytes, .. } => snapshot = Some(bytes),
                Item::Results(json) => slip = Some(self.slip(json)?),
                _ => {}
            }
        }
        let snapshot = match snapshot {
            Some(bytes) => self.snapshot(bytes, frame)?,
            None => return Err(self.foreign(format!("it gives its player no snapshot in frame {frame}"))),
        };
        Ok(Told { snapshot, slip })
    }

    fn snapshot(&self, bytes: &[u8], frame: u32) -> Result<Snapshot, StripError> {
        // Rules of the family may tell more after what the drag race tells.
        let snapshot: Snapshot = Snapshot::read(bytes)
            .or_else(|_| postcard::from_bytes(bytes))
            .map_err(|error| self.foreign(format!("its snapshot of frame {frame} is not the drag race's: {error}")))?;
        // Bytes of another game may happen to be read.
        if snapshot.frame != frame || snapshot.lanes.len() != 1 {
            let problem = format!(
                "read as the drag race's, its snapshot of frame {frame} is of frame {} and has {} lanes, not 1",
                snapshot.frame,
                snapshot.lanes.len()
            );
            return Err(self.foreign(problem));
        }
        Ok(snapshot)
    }

    fn slip(&self, json: &str) -> Result<TimeSlip, StripError> {
        let bad = |problem: String| self.foreign(format!("its results have no time slip: {problem}"));
        let results: Vec<PlayerResult<TimeSlip>> =
            serde_json::from_str(json).map_err(|error| bad(error.to_string()))?;
        results.into_iter().next().map(|result| result.data).ok_or_else(|| bad("there is no result".into()))
    }

    pub(super) fn view<'a>(&self, snapshot: &'a Snapshot) -> Result<&'a LaneView, StripError> {
        snapshot.lanes.first().ok_or_else(|| self.foreign("its snapshot has no lane".into()))
    }

    fn module_name(&self) -> String {
        self.module.manifest().name.clone()
    }

    #[cold]
    pub(super) fn foreign(&self, problem: String) -> StripError {
        StripError::Foreign { module: self.module_name(), problem }
    }

    #[cold]
    fn fault(&self, frame: u32, fault: Fault) -> StripError {
        StripError::Fault { module: self.module_name(), car: self.car.id.to_string(), frame, fault }
    }

    #[cold]
    pub(super) fn no_time(&self, problem: String) -> StripError {
        StripError::NoTime { module: self.module_name(), car: self.car.id.to_string(), problem }
    }
}

/// The room of a car alone.
fn setup(module: &Module, car: &Car) -> Setup {
    Setup {
        seed: SEED,
        tick_hz: module.manifest().tick_hz,
        // Whatever the module's own catalogue says of a car with this id: the driver knows this one.
        options: json!({ "tree": "pro", "cars": to_options_json(std::slice::from_ref(car), &car.shared) }).to_string(),
        players: vec![PlayerSetup { name: "dyno".into(), data: json!({ "car": car.id }).to_string() }],
    }
}
