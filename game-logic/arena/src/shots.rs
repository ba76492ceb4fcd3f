//! Shots: how they fly, what they hit, when they end. What a hit does to a fighter is the match's affair.

use serde::{Deserialize, Serialize};

use crate::grid::Grid;
use crate::map::{Map, Point};
use crate::weapon::Weapon;

/// Shots in the air. Four for each of 64 fighters with rifles, and a quarter more for the few who fire twice as fast; where it is not enough a
/// weapon does not fire, and is as ready as before.
pub const SHOTS_MAX: usize = 320;

/// A shot within this distance of a fighter's middle hits, in mm.
pub const HIT_RADIUS_MM: i32 = 450;

/// Longest piece of a shot's way that is looked at in one go, in mm: half a tile, so that none passes through a wall at any tick rate. At 50 ticks a
/// second a way in one tick is one piece.
const FLIGHT_STEP_MAX_MM: i32 = 1_000;

/// A shot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shot {
    /// Counts up from shot to shot, and begins anew after 65,535: what a client tells them apart by.
    pub number: u16,
    /// The slot of who fired.
    pub owner: u8,
    /// What it came from.
    pub weapon: Weapon,
    /// Where it is.
    pub at: Point,
    /// Its way in one tick.
    pub way: Point,
    /// Its direction, in 65,536ths of a turn.
    pub aim: u16,
    /// The tick in which it ends, at the latest.
    pub end_frame: u32,
}

/// What a tick brought a shot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flight {
    /// It flies on.
    On,
    /// It came to a wall.
    Wall,
    /// It hit this fighter.
    Hit(u16),
}

impl Shot {
    /// Flies for one tick. `target` gives where a fighter is, if it can be hit by this shot; `near` gives those who may be near a piece of the way, and
    /// any others.
    pub(crate) fn fly<I: Iterator<Item = u16>>(
        &mut self,
        map: &Map,
        near: impl Fn(Point, Point) -> I,
        target: impl Fn(u16) -> Option<Point>,
    ) -> Flight {
        let steps = self.way.x_mm.abs().max(self.way.y_mm.abs()) / FLIGHT_STEP_MAX_MM + 1;
        let begun = self.at;
        for step in 1..=steps {
            let part = |whole: i32, from_mm: i32| from_mm + whole * step / steps;
            let to = Point { x_mm: part(self.way.x_mm, begun.x_mm), y_mm: part(self.way.y_mm, begun.y_mm) };
            let middle = Point { x_mm: (self.at.x_mm + to.x_mm) / 2, y_mm: (self.at.y_mm + to.y_mm) / 2 };
            // Up to the wall it can still hit.
            let (free, wall) = match (map.is_wall(middle), map.is_wall(to)) {
                (true, _) => (self.at, true),
                (false, true) => (middle, true),
                (false, false) => (to, false),
            };
            let hit = first_hit(self.at, free, near(self.at, free), &target);
            self.at = free;
            match hit {
                Some(fighter) => return Flight::Hit(fighter),
                None if wall => return Flight::Wall,
                None => {}
            }
        }
        Flight::On
    }
}

/// Of the fighters who may be hit on a straight way, the one who is first along it; of two at the same place the lower slot.
fn first_hit(
    from: Point,
    to: Point,
    candidates: impl Iterator<Item = u16>,
    target: impl Fn(u16) -> Option<Point>,
) -> Option<u16> {
    candidates
        .filter_map(|fighter| Some((touch(from, to, target(fighter)?)?, fighter)))
        .min()
        .map(|(_, fighter)| fighter)
}

/// Where along a way (its projection on the way, in mm²; the same scale for all of one way) a body is that the way touches.
fn touch(from: Point, to: Point, body: Point) -> Option<i64> {
    let radius_squared = i64::from(HIT_RADIUS_MM) * i64::from(HIT_RADIUS_MM);
    let (way_x, way_y) = (i64::from(to.x_mm - from.x_mm), i64::from(to.y_mm - from.y_mm));
    let (body_x, body_y) = (i64::from(body.x_mm - from.x_mm), i64::from(body.y_mm - from.y_mm));
    let length_squared = way_x * way_x + way_y * way_y;
    let along = way_x * body_x + way_y * body_y;
    let touches = if along <= 0 {
        from.distance_squared(body) <= radius_squared
    } else if along >= length_squared {
        to.distance_squared(body) <= radius_squared
    } else {
        // Twice the triangle's area over its base is the height: compared without a division.
        let area = way_x * body_y - way_y * body_x;
        area * area <= radius_squared * length_squared
    };
    touches.then_some(along.clamp(0, length_squared))
}

/// The fighters near a piece of way, by the grid.
pub(crate) fn near(grid: &Grid, from: Point, to: Point) -> impl Iterator<Item = u16> + '_ {
    grid.near(from, to, HIT_RADIUS_MM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::Cell;
    use crate::map::{MapName, SIDE_MM, TILE_MM};
    use crate::weapon::toward;
    use proptest::prelude::*;

    fn point(x_mm: i32, y_mm: i32) -> Point {
        Point { x_mm, y_mm }
    }

    fn shot(at: Point, way: Point) -> Shot {
        Shot { number: 0, owner: 0, weapon: Weapon::Rifle, at, way, aim: 0, end_frame: 50 }
    }

    /// Flies for a tick among these bodies, looked for by the grid and one by one.
    fn both(map: &Map, mut flown: Shot, bodies: &[Point]) -> (Flight, Flight) {
        let mut grid = Grid::default();
        grid.fill((0..).zip(bodies.iter().map(|at| Cell::of(*at))));
        let target = |fighter: u16| bodies.get(usize::from(fighter)).copied();
        let mut brute = flown;
        let by_grid = flown.fly(map, |from, to| near(&grid, from, to), target);
        let by_force = brute.fly(map, |_, _| 0..bodies.len() as u16, target);
        assert_eq!(flown, brute);
        (by_grid, by_force)
    }

    #[test]
    fn the_first_on_the_way_is_hit() {
        let map = Map::new(MapName::Open, 0);
        let from = point(10_000, 10_000);
        let way = point(800, 0);
        let cases: [(&[Point], Flight); 7] = [
            (&[], Flight::On),
            (&[point(10_900, 10_000), point(10_700, 10_100)], Flight::Hit(1)),
            (&[point(10_500, 10_449), point(10_500, 10_450)], Flight::Hit(0)),
            (&[point(10_500, 10_451)], Flight::On),
            (&[point(9_550, 10_000)], Flight::Hit(0)),
            (&[point(9_549, 10_000), point(11_251, 10_000)], Flight::On),
            (&[point(11_250, 10_000)], Flight::Hit(0)),
        ];
        for (bodies, expected) in cases {
            assert_eq!(both(&map, shot(from, way), bodies), (expected, expected), "{bodies:?}");
        }
    }

    #[test]
    fn a_wall_ends_a_shot_and_shelters_who_is_behind() {
        let map = Map::new(MapName::Yard, 0);
        // The block in columns 6 and 7 of the rows 7 and 8.
        let from = point(6 * TILE_MM - 100, 15_000);
        let behind = point(6 * TILE_MM + 600, 15_000);
        assert_eq!(both(&map, shot(from, point(800, 0)), &[behind]).0, Flight::Wall);
        // Also for a shot whose way in one tick is longer than the wall is thick, as at a tick rate of 2 Hz.
        assert_eq!(both(&map, shot(from, point(20_000, 0)), &[point(26_000, 15_000)]).0, Flight::Wall);
        assert_eq!(both(&map, shot(from, point(-8_000, 0)), &[point(5_000, 15_000)]).0, Flight::Hit(0));
    }

    proptest! {
        #[test]
        fn the_grid_finds_whom_looking_at_everybody_finds(
            seed: u64,
            bodies in prop::collection::vec((2_400..SIDE_MM - 2_400, 2_400..SIDE_MM - 2_400), 0..64),
            shots in prop::collection::vec((2_000..SIDE_MM - 2_000, 2_000..SIDE_MM - 2_000, any::<u16>(), 1..3_000i32), 1..30),
        ) {
            let map = Map::new(MapName::Ruins, seed);
            let bodies: Vec<Point> = bodies.into_iter().map(|(x_mm, y_mm)| Point { x_mm, y_mm }).collect();
            for (x_mm, y_mm, aim, length_mm) in shots {
                let (by_grid, by_force) = both(&map, shot(point(x_mm, y_mm), toward(aim, length_mm)), &bodies);
                prop_assert_eq!(by_grid, by_force);
            }
            // And next to somebody, where it matters.
            for body in &bodies {
                let (by_grid, by_force) = both(&map, shot(point(body.x_mm - 900, body.y_mm + 300), point(800, -100)), &bodies);
                prop_assert_eq!(by_grid, by_force);
            }
        }
    }
}
