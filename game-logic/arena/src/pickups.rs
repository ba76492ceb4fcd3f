//! What lies about: medkits and overdrives, at places that the seed chooses. Taken by walking over them, they come back after a while.

use serde::{Deserialize, Serialize};

use crate::fighter::{Fighter, HEALTH_MAX};
use crate::map::{Map, Point};
use crate::prng::Prng;
use crate::snapshot::PickupKind;
use crate::world::frames_in;

/// Places where something lies. One for about five players of a full room; a snapshot shows those near.
pub const PICKUPS_MAX: usize = 12;

/// Nearer than this a fighter takes it, in mm.
const REACH_MM: i64 = 900;
/// Until something lies there again, in ms.
const BACK_AFTER_MS: u32 = 12_000;
/// Health that a medkit gives.
const MEDKIT_HEALTH: u8 = 50;
/// How long an overdrive lasts, in ms.
const OVERDRIVE_MS: u32 = 6_000;
/// Tiles drawn for each place: the one farthest from the other places is taken.
const PLACES_DRAWN: u32 = 8;

/// A place and what lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pickup {
    /// What.
    pub kind: PickupKind,
    /// Where.
    pub at: Point,
    /// From this tick on it is there.
    pub back_frame: u32,
}

/// All places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pickups {
    places: Vec<Pickup>,
}

impl Pickups {
    pub(crate) fn new(map: &Map, prng: &mut Prng) -> Self {
        let mut places: Vec<Pickup> = Vec::with_capacity(PICKUPS_MAX);
        for number in 0..PICKUPS_MAX {
            let mut best = (-1, Point::default());
            for _ in 0..PLACES_DRAWN {
                let Some(at) = map.free_tile(prng.below(map.free_tiles())) else { continue };
                let nearest = places.iter().map(|place| place.at.distance_squared(at)).min().unwrap_or(i64::MAX);
                if nearest > best.0 {
                    best = (nearest, at);
                }
            }
            // Two medkits for an overdrive.
            let kind = if number % 3 == 2 { PickupKind::Overdrive } else { PickupKind::Medkit };
            places.push(Pickup { kind, at: best.1, back_frame: 0 });
        }
        Self { places }
    }

    /// Those that can be taken in a tick.
    pub fn there(&self, frame: u32) -> impl Iterator<Item = &Pickup> {
        self.places.iter().filter(move |place| place.back_frame <= frame)
    }

    /// Gives what lies there to who walks over it; of two in one tick the lower slot has it. A medkit stays for who is well.
    pub(crate) fn tick(&mut self, now: u32, tick_hz: u32, fighters: &mut [Fighter]) {
        let hz = tick_hz.clamp(1, 128);
        for place in self.places.iter_mut().filter(|place| place.back_frame <= now) {
            let reaches = |fighter: &&mut Fighter| {
                let wants = fighter.health > 0 && (place.kind != PickupKind::Medkit || fighter.health < HEALTH_MAX);
                wants && fighter.at.distance_squared(place.at) < REACH_MM * REACH_MM
            };
            let Some(fighter) = fighters.iter_mut().find(reaches) else { continue };
            match place.kind {
                PickupKind::Medkit => fighter.health = fighter.health.saturating_add(MEDKIT_HEALTH).min(HEALTH_MAX),
                PickupKind::Overdrive => fighter.overdrive_frame = now + frames_in(OVERDRIVE_MS, hz),
            }
            place.back_frame = now + frames_in(BACK_AFTER_MS, hz);
        }
    }
}
