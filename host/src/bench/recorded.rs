//! A race for benchmarks: driven once by the drivers of the drag race, through a room and its journal as a host has them, on a clock that is only counted.

use std::sync::Arc;

use drag_race::{Driver, Snapshot, cars};
use holeshot_abi::{PlayerSetup, Setup};
use holeshot_room::journal::{JournalHeader, JournalWriter};
use holeshot_room::{Arrival, Departure, Limits, Program, Room, RoomConfig, Supervision, Supervisor};

/// Steps of the room until its race is over, at most: a slow race has 2,000 frames, and a few steps before its start.
const STEPS_MAX: u32 = 20_000;

/// The setup of a race between the first cars of the catalogue.
pub(super) fn setup(players: usize, seed: u64) -> Setup {
    let garage = cars();
    let player = |slot: usize| {
        let car = garage.get(slot % garage.len().max(1)).map_or("", |car| &*car.id);
        PlayerSetup { name: format!("driver {slot}"), data: format!("{{\"car\":\"{car}\"}}") }
    };
    Setup { seed, tick_hz: 50, options: String::new(), players: (0..players).map(player).collect() }
}

/// Drives a race to its end under these rules and gives the bytes of its journal.
///
/// # Errors
/// What does not begin, in words.
pub(super) fn journal(program: Arc<dyn Program>) -> Result<Vec<u8>, String> {
    let setup = program.setup().clone();
    let mut drivers = Vec::new();
    for (slot, player) in setup.players.iter().enumerate() {
        let car = cars().iter().find(|car| player.data.contains(&format!("\"{}\"", car.id))).map_or("", |car| &*car.id);
        let skill = 1.0 - slot as f64 / (2 * setup.players.len()) as f64;
        drivers.push(Driver::new(car, slot, skill, slot as u64).map_err(|error| error.to_string())?);
    }
    let mut record = Vec::new();
    setup.write(&mut record).map_err(|error| error.to_string())?;
    let header = JournalHeader {
        room: "bench".into(),
        opened_unix_ms: 0,
        setup: record,
        manifest: serde_json::to_string(program.manifest()).map_err(|error| error.to_string())?,
        module: program.hash(),
    };
    let config =
        RoomConfig { id: header.room.clone(), manifest: program.manifest().clone(), setup, limits: Limits::default() };
    let mut rules = Supervisor::begin(program, Supervision::default()).map_err(|error| error.to_string())?;
    let mut room = Room::open(config, 0).map_err(|error| error.to_string())?;
    let mut writer = JournalWriter::begin(&header);
    for slot in 0..drivers.len() as u16 {
        // Before the game both always have an effect.
        let _taken = room.handle(0, Arrival::Connected { player: slot });
        let _taken = room.handle(0, Arrival::Ready { player: slot });
    }
    let mut seen: Vec<(u16, u32, Vec<u8>)> = Vec::new();
    let mut over = false;
    for _ in 0..STEPS_MAX {
        let Some(now_us) = room.next_due_us().filter(|_| !over) else { break };
        room.step(now_us, &mut rules, &mut |departure| {
            writer.note(&departure);
            match departure {
                Departure::Snapshot { player, frame, bytes, .. } => seen.push((player, frame, bytes.to_vec())),
                Departure::Ended { .. } => over = true,
                _ => {}
            }
        });
        for (player, frame, bytes) in seen.drain(..) {
            let Some(driver) = drivers.get_mut(usize::from(player)) else { continue };
            let snapshot: Snapshot = postcard::from_bytes(&bytes).map_err(|error| error.to_string())?;
            let input = postcard::to_allocvec(&driver.drive(&snapshot)).map_err(|error| error.to_string())?;
            let _counted = room.handle(now_us, Arrival::Input { player, frame: frame + 1, bytes: &input });
        }
    }
    writer.finish();
    if over { Ok(writer.take()) } else { Err(format!("the race was not over after {STEPS_MAX} steps")) }
}
