//! The operations of a room-tick, one at a time and with warm caches: to see which of them a commit has changed. What they cost together, with caches gone cold
//! and a socket, `holeshot bench rooms` measures.
//!
//! `cargo bench -p holeshot --bench micro` runs them all; a name after `--` runs one, `--save-baseline` and `--baseline` compare two commits. A race between the
//! drivers of the drag race goes on while they are measured, so that rooms, inputs and snapshots are real ones.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use drag_race::{DragRace, Driver, Snapshot as Seen, cars};
use holeshot::rules::{DRAG_RACE_WASM, Engine, EngineSettings, ModuleStore, NativeProgram, RoomProgram};
use holeshot_abi::{PlayerSetup, Setup};
use holeshot_room::journal::{JournalHeader, JournalWriter};
use holeshot_room::{Arrival, Departure, Limits, Program, Room, RoomConfig, Supervision, Supervisor};
use holeshot_seal::RingCipher;
use holeshot_wire::datagram::DATAGRAM_BYTES_MAX;
use holeshot_wire::payload::Encode;
use holeshot_wire::{ClientHandshake, HostKeypair, Inputs, Opener, Sealer, Snapshot, ToClient, ToHost, accept};

/// Players of the room.
const PLAYERS: usize = 2;
/// Frames after which everybody is under way.
const UNDER_WAY: u32 = 300;
/// Inputs in each datagram, as clients send them.
const INPUTS_REPEATED: usize = 8;
/// Instances at a time: one that plays, one that takes its turn, and what loading takes.
const INSTANCES_MAX: u32 = 8;

/// A race that goes on.
struct Race {
    program: Arc<dyn Program>,
    room: Room,
    rules: Supervisor,
    drivers: Vec<Driver>,
    writer: JournalWriter,
    next_frame: u32,
    over: bool,
    /// The newest snapshot.
    snapshot: Vec<u8>,
    /// What each driver says to it.
    inputs: Vec<Vec<u8>>,
}

/// What of a step is timed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Caching the input of one player.
    Cache,
    /// All of the step, with what leaves the room thrown away.
    Step,
    /// Writing to the journal what leaves it.
    Journal,
}

impl Race {
    /// Everybody is under way.
    fn begin(program: &Arc<dyn Program>) -> Self {
        let setup = program.setup().clone();
        let driver = |slot: usize| Driver::new(car(slot), slot, 0.8, slot as u64).expect("a car of the catalogue");
        let mut record = Vec::new();
        setup.write(&mut record).expect("a setup");
        let header = JournalHeader {
            room: "bench".into(),
            opened_unix_ms: 0,
            setup: record,
            manifest: serde_json::to_string(program.manifest()).expect("a manifest"),
            module: program.hash(),
        };
        let config = RoomConfig {
            id: header.room.clone(),
            manifest: program.manifest().clone(),
            setup,
            limits: Limits::default(),
        };
        let mut race = Self {
            program: Arc::clone(program),
            room: Room::open(config, 0).expect("a room"),
            rules: Supervisor::begin(Arc::clone(program), Supervision::default()).expect("rules"),
            drivers: (0..PLAYERS).map(driver).collect(),
            writer: JournalWriter::begin(&header),
            next_frame: 0,
            over: false,
            snapshot: Vec::new(),
            inputs: vec![Vec::new(); PLAYERS],
        };
        for player in 0..PLAYERS as u16 {
            race.room.handle(0, Arrival::Connected { player }).expect("a place");
            race.room.handle(0, Arrival::Ready { player }).expect("a player");
        }
        while race.next_frame < UNDER_WAY {
            race.step(Part::Step);
            assert!(!race.over, "the race was over at once");
        }
        race
    }

    /// One step, with the inputs of the drivers before it. Gives what the part took.
    fn step(&mut self, part: Part) -> Duration {
        let Self { room, rules, writer, next_frame, over, snapshot, inputs, .. } = self;
        let now_us = room.next_due_us().expect("a race that goes on");
        let mut took = Duration::ZERO;
        for (player, bytes) in (0..).zip(inputs.iter()).filter(|(_, bytes)| !bytes.is_empty()) {
            let begun = Instant::now();
            let taken = room.handle(now_us, Arrival::Input { player, frame: *next_frame, bytes });
            if part == Part::Cache && player == 0 {
                took = begun.elapsed();
            }
            let _counted = black_box(taken);
        }
        let begun = Instant::now();
        let mut journal = Duration::ZERO;
        room.step(now_us, rules, &mut |departure| {
            if part == Part::Journal {
                let begun = Instant::now();
                writer.note(&departure);
                journal += begun.elapsed();
            }
            match &departure {
                Departure::Tick { frame, .. } => *next_frame = frame + 1,
                Departure::Snapshot { player: 0, bytes, .. } => {
                    snapshot.clear();
                    snapshot.extend_from_slice(bytes);
                }
                Departure::Ended { .. } => *over = true,
                other => _ = black_box(other),
            }
        });
        match part {
            Part::Cache => {}
            Part::Step => took = begun.elapsed(),
            Part::Journal => {
                took = journal;
                drop(writer.take());
            }
        }
        self.drive();
        took
    }

    /// Lets the drivers answer the newest snapshot.
    fn drive(&mut self) {
        let Ok(seen) = postcard::from_bytes::<Seen>(&self.snapshot) else { return };
        for (driver, input) in self.drivers.iter_mut().zip(&mut self.inputs) {
            *input = postcard::to_allocvec(&driver.drive(&seen)).expect("an input");
        }
    }

    /// Steps so often, in race after race; all that the part took.
    fn steps(&mut self, part: Part, times: u64) -> Duration {
        let mut took = Duration::ZERO;
        for _ in 0..times {
            if self.over {
                *self = Self::begin(&self.program);
            }
            took += self.step(part);
        }
        took
    }
}

fn car(slot: usize) -> &'static str {
    let garage = cars();
    garage.get(slot % garage.len()).map_or("", |car| &*car.id)
}

/// The drag race with two drivers, natively and as WebAssembly.
fn programs() -> [(&'static str, Arc<dyn Program>); 2] {
    let player = |slot| PlayerSetup { name: format!("driver {slot}"), data: format!("{{\"car\":\"{}\"}}", car(slot)) };
    let setup = Setup { seed: 1, tick_hz: 50, options: String::new(), players: (0..PLAYERS).map(player).collect() };
    let engine = Engine::new(EngineSettings { instances_max: INSTANCES_MAX, ..EngineSettings::default() });
    let store = ModuleStore::new(engine.expect("an engine"), None).expect("a store");
    let module = store.load(DRAG_RACE_WASM).expect("the drag race");
    let native = NativeProgram::<DragRace>::new(setup.clone(), module.hash());
    [("wasm", Arc::new(RoomProgram::new(module, Arc::new(setup), "bench".into()))), ("native", Arc::new(native))]
}

/// Both ends of a session: the client's, and the host's.
type Ends = ((Sealer<RingCipher>, Opener<RingCipher>), (Sealer<RingCipher>, Opener<RingCipher>));

fn session() -> Ends {
    let host = HostKeypair::from_private([1; 32]).expect("a key");
    let (handshake, asked) = ClientHandshake::start(&host.public(), "ticket", [2; 32]).expect("a handshake");
    let (keys, answered) = accept(&host, "ticket", &asked, [3; 32]).expect("a handshake");
    let client = handshake.finish(&answered).expect("a handshake").into_client_with(7);
    (client, keys.into_host_with(7))
}

fn rooms(c: &mut Criterion) {
    for (kind, program) in programs() {
        let mut race = Race::begin(&program);
        c.bench_function(&format!("step a room of 2, {kind}"), |bencher| {
            bencher.iter_custom(|times| race.steps(Part::Step, times));
        });
        if kind == "wasm" {
            c.bench_function("cache an input", |bencher| bencher.iter_custom(|times| race.steps(Part::Cache, times)));
            let name = "write the journal of a step";
            c.bench_function(name, |bencher| bencher.iter_custom(|times| race.steps(Part::Journal, times)));
        }
    }
}

fn datagrams(c: &mut Criterion) {
    let [(_, program), _] = programs();
    let mut race = Race::begin(&program);
    race.step(Part::Cache);
    let ((mut client, _), (mut host, mut opener)) = session();

    let mut payload = Vec::new();
    let input = race.inputs.first().cloned().unwrap_or_default();
    let inputs = std::iter::repeat_n(input.as_slice(), INPUTS_REPEATED);
    Inputs::write(race.next_frame, Some(race.next_frame), inputs, &mut payload).expect("inputs");
    let mut sealed = || {
        let mut datagram = Vec::with_capacity(DATAGRAM_BYTES_MAX);
        client.seal_bytes(&payload, &mut datagram).expect("a payload");
        datagram
    };
    let mut open = |datagram: &mut Vec<u8>| {
        let opened = opener.open(datagram).expect("a datagram of this session");
        let ToHost::Inputs(inputs) = ToHost::decode(opened.payload).expect("a payload") else { return 0 };
        inputs.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
    };
    c.bench_function("open a datagram and read its inputs", |bencher| {
        bencher.iter_batched_ref(&mut sealed, &mut open, BatchSize::SmallInput);
    });

    let snapshot = ToClient::Snapshot(Snapshot {
        frame: race.next_frame,
        part: 0,
        parts: 1,
        margin_ms: Some(12),
        newest_input_frame: Some(race.next_frame),
        bytes: &race.snapshot,
    });
    let mut out = Vec::with_capacity(DATAGRAM_BYTES_MAX);
    c.bench_function("encode a snapshot", |bencher| {
        bencher.iter(|| {
            out.clear();
            black_box(&snapshot).encode(&mut out).expect("a snapshot");
            out.len()
        });
    });
    c.bench_function("encode and seal a snapshot", |bencher| {
        bencher.iter(|| host.seal(black_box(&snapshot), &mut out).expect("a snapshot"));
    });
}

criterion_group!(micro, rooms, datagrams);
criterion_main!(micro);
