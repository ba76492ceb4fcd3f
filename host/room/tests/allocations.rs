//! A room that runs steadily allocates nothing: not for an input, not for a tick, not for a snapshot, and for a checkpoint only what
//! the rules save. Events and actions do allocate; they are rare.
#![allow(
    unsafe_code,
    reason = "a global allocator is an unsafe trait; this one only counts and hands on to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use holeshot_abi::{Item, Manifest, OutputWriter, PlayerSetup, Setup};
use holeshot_room::{
    Arrival, BeginError, Departure, Fault, Limits, Program, RestoreError, Room, RoomConfig, Rules, Supervision,
    Supervisor,
};

thread_local! {
    /// Per thread, because the test harness has threads of its own.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is handed on to the system's allocator unchanged; the counter is a plain cell without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, so from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Rules whose output is one snapshot for all players.
struct Steady(OutputWriter);

impl Rules for Steady {
    fn tick(&mut self, record: &[u8]) -> Result<&[u8], Fault> {
        self.0.begin();
        self.0.push(Item::SharedSnapshot(record.get(..16).unwrap_or_default()));
        Ok(self.0.finish())
    }

    fn save(&mut self) -> Result<Vec<u8>, Fault> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _: u32, _: &[u8]) -> Result<(), RestoreError> {
        Ok(())
    }
}

#[derive(Debug)]
struct Steadily(Manifest, Setup);

impl Program for Steadily {
    fn hash(&self) -> [u8; 32] {
        [0; 32]
    }

    fn manifest(&self) -> &Manifest {
        &self.0
    }

    fn setup(&self) -> &Setup {
        &self.1
    }

    fn begin(&self) -> Result<Box<dyn Rules + Send>, BeginError> {
        Ok(Box::new(Steady(OutputWriter::default())))
    }
}

#[test]
fn inputs_ticks_and_snapshots_allocate_nothing() {
    const PLAYERS: u16 = 8;
    let players = (0..PLAYERS).map(|slot| PlayerSetup { name: format!("p{slot}"), data: String::new() }).collect();
    let config = RoomConfig {
        id: "steady".into(),
        manifest: Manifest::new("steady", "1", 1..=64, 16),
        setup: Setup { seed: 0, tick_hz: 50, options: String::new(), players },
        limits: Limits::default(),
    };
    let program = Steadily(config.manifest.clone(), config.setup.clone());
    let mut rules = Supervisor::begin(Arc::new(program), Supervision::default()).unwrap();
    let mut room = Room::open(config, 0).unwrap();
    for player in 0..PLAYERS {
        room.handle(0, Arrival::Connected { player }).unwrap();
        room.handle(0, Arrival::Ready { player }).unwrap();
    }
    let mut snapshots = 0u64;
    let mut play = |ticks: u32| {
        for _ in 0..ticks {
            let due_us = room.next_due_us().unwrap();
            let next_frame = room.frame().map_or(0, |frame| frame + 1);
            for player in 0..PLAYERS {
                // Redundant, early, late, far ahead, too long: none of it may cost memory.
                for frame in next_frame.saturating_sub(2)..next_frame + 2 {
                    let _ = room.handle(
                        due_us.saturating_sub(1),
                        Arrival::Input { player, frame, bytes: &frame.to_le_bytes() },
                    );
                }
                let _ =
                    room.handle(due_us.saturating_sub(1), Arrival::Input { player, frame: u32::MAX, bytes: b"far" });
                let _ = room
                    .handle(due_us.saturating_sub(1), Arrival::Input { player, frame: next_frame, bytes: &[0; 99] });
            }
            room.step(due_us, &mut rules, &mut |departure| {
                snapshots += u64::from(matches!(departure, Departure::Snapshot { .. }));
            });
        }
    };
    // The first ticks, in which events are sent and buffers find their size: that of the records up to the first two checkpoints.
    play(2 * Supervision::CHECKPOINT_FRAMES + 1);
    let before = ALLOCATIONS.with(Cell::get);
    play(1_000);
    let allocated = ALLOCATIONS.with(Cell::get) - before;
    assert_eq!(allocated, 0);
    assert!(snapshots >= 8_000, "it did run: {snapshots}");
    assert!(before > 0, "the counter counts");
}
