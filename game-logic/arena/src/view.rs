//! Who sees what: the snapshot of each player, from what is within the cells around it and, for fighters, not behind a wall. Everything is packed
//! once per tick, in the grid's order, so that a player's view is a few rows of cells copied.

use std::ops::RangeInclusive;

use crate::fighter::Fighter;
use crate::grid::{Cell, Grid, SIDE_CELLS};
use crate::map::Point;
use crate::shots::Shot;
use crate::snapshot::{FighterView, Own, PickupView, Records, ShotView, Snapshot};
use crate::world::World;

/// Columns of cells in sight on each side of one's own: 20 to 24 m.
const COLUMNS: i32 = 5;
/// Rows of cells in sight above and below one's own: 12 to 16 m, as a screen is wider than high.
const ROWS: i32 = 3;

/// What is made in one tick and needed in no other. Kept so that its memory is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Views {
    /// Fighters who are up, as of now.
    fighters: Grid,
    shots: Grid,
    packed_fighters: Records<FighterView>,
    packed_shots: Records<ShotView>,
    snapshot: Snapshot,
    /// By slot, a bit for each slot that it sees.
    seen: Vec<u64>,
}

impl Views {
    /// Looks at the match as it is now: before any snapshot of a tick.
    pub(crate) fn begin(&mut self, world: &World) {
        let up = (0..).zip(world.fighters()).filter(|(_, fighter)| fighter.health > 0);
        self.fighters.fill(up.map(|(player, fighter)| (player, Cell::of(fighter.at))));
        self.packed_fighters.clear();
        for (player, fighter) in
            self.fighters.things().iter().filter_map(|player| Some((*player, fighter(world, *player)?)))
        {
            self.packed_fighters.push(packed_fighter(player, fighter, world.frames()));
        }
        self.shots.fill((0..).zip(world.shots().iter().map(|shot| Cell::of(shot.at))));
        self.packed_shots.clear();
        for shot in self.shots.things().iter().filter_map(|shot| world.shots().get(usize::from(*shot))) {
            self.packed_shots.push(packed_shot(shot));
        }
        self.seen.clear();
        self.seen.resize(world.fighters().len(), 0);
        let snapshot = &mut self.snapshot;
        // The tick that was just made, and the time at its end.
        snapshot.frame = world.frames().saturating_sub(1);
        snapshot.time_ms = world.ms(world.frames());
        snapshot.left_ms = world.left_ms();
        snapshot.leader = world.leader();
    }

    /// Everything, for who watches.
    pub(crate) fn of_all(&mut self, world: &World) -> &Snapshot {
        let snapshot = &mut self.snapshot;
        snapshot.you = None;
        snapshot.fighters.clone_from(&self.packed_fighters);
        snapshot.shots.clone_from(&self.packed_shots);
        snapshot.pickups.clear();
        for pickup in world.pickups().there(world.frames()) {
            snapshot.pickups.push(PickupView { kind: pickup.kind, at: pickup.at });
        }
        &self.snapshot
    }

    /// What one player sees from where it is, or was when it went down. Players are asked for by rising slot.
    pub(crate) fn of_player(&mut self, world: &World, player: u16) -> Option<&Snapshot> {
        let own = fighter(world, player)?;
        let cell = Cell::of(own.at);
        let columns = around(cell.x, COLUMNS);
        let rows = around(cell.y, ROWS);
        let snapshot = &mut self.snapshot;
        snapshot.you = Some(packed_own(world, player, own));
        snapshot.fighters.clear();
        snapshot.shots.clear();
        snapshot.pickups.clear();
        let mut seen = self.seen.get(usize::from(player)).copied().unwrap_or(0);
        for row in rows.clone() {
            snapshot.shots.extend(&self.packed_shots, self.shots.row(row, &columns));
            let range = self.fighters.row(row, &columns);
            for (number, other) in range.clone().zip(self.fighters.things().get(range).into_iter().flatten()) {
                if *other == player {
                    continue;
                }
                // Sight goes both ways: of two who are up the first to be asked for has looked for both.
                let looked = *other < player && own.health > 0;
                if !looked && fighter(world, *other).is_some_and(|it| world.map().sees(own.at, it.at)) {
                    seen |= 1 << other;
                    if let Some(mirrored) = self.seen.get_mut(usize::from(*other)) {
                        *mirrored |= 1 << player;
                    }
                }
                if seen >> other & 1 == 1 {
                    snapshot.fighters.extend(&self.packed_fighters, number..number + 1);
                }
            }
        }
        for pickup in world.pickups().there(world.frames()) {
            if is_within(Cell::of(pickup.at), &columns, &rows) {
                snapshot.pickups.push(PickupView { kind: pickup.kind, at: pickup.at });
            }
        }
        Some(&self.snapshot)
    }
}

/// Whether what is at the one point is near enough to the other to be seen, walls aside.
#[must_use]
pub fn is_near(from: Point, at: Point) -> bool {
    let cell = Cell::of(from);
    is_within(Cell::of(at), &around(cell.x, COLUMNS), &around(cell.y, ROWS))
}

fn is_within(cell: Cell, columns: &RangeInclusive<i32>, rows: &RangeInclusive<i32>) -> bool {
    columns.contains(&cell.x) && rows.contains(&cell.y)
}

fn around(middle: i32, reach: i32) -> RangeInclusive<i32> {
    (middle - reach).max(0)..=(middle + reach).min(SIDE_CELLS - 1)
}

fn fighter(world: &World, player: u16) -> Option<&Fighter> {
    world.fighters().get(usize::from(player))
}

fn packed_fighter(player: u16, fighter: &Fighter, now: u32) -> FighterView {
    FighterView {
        player: player as u8,
        health: fighter.health,
        protected: fighter.protected_frame > now,
        overdrive: fighter.overdrive_frame > now,
        weapon: fighter.weapon,
        at: fighter.at,
        aim: fighter.aim,
    }
}

fn packed_shot(shot: &Shot) -> ShotView {
    ShotView { number: shot.number, owner: shot.owner, at: shot.at, aim: shot.aim }
}

fn packed_own(world: &World, player: u16, own: &Fighter) -> Own {
    Own {
        player: player as u8,
        at: own.at,
        health: own.health,
        weapon: own.weapon,
        reload_ms: world.until_ms(own.ready_frame),
        respawn_ms: if own.health == 0 { world.until_ms(own.respawn_frame) } else { 0 },
        protected_ms: world.until_ms(own.protected_frame),
        overdrive_ms: world.until_ms(own.overdrive_frame),
        frags: own.frags,
        deaths: own.deaths,
    }
}
