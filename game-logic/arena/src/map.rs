//! The ground: a square of tiles, free or wall, enclosed by wall. Which maps there are, moving about in one without entering a wall, and who sees
//! whom. Lengths are whole millimetres; x grows to the right, y downwards.

use serde::{Deserialize, Serialize};

use crate::prng::Prng;

/// Side of a tile, in mm: twice the breadth of a player and a half, so that two pass each other in a gap of one tile.
pub const TILE_MM: i32 = 2_000;
/// Tiles along each side: a row is the bits of a `u32`.
pub const SIDE_TILES: i32 = 32;
/// Side of the arena, in mm. Every position fits into a `u16`.
pub const SIDE_MM: i32 = SIDE_TILES * TILE_MM;

/// Longest piece of a move that is looked at in one go, in mm: well below a tile, so that nothing passes through a wall at any tick rate.
const MOVE_STEP_MAX_MM: i32 = 500;
/// Distance of two looks along a line of sight, in mm: half a tile. A corner that covers less of the line is seen past.
const SIGHT_STEP_MM: i32 = 1_000;

/// A point or a way, in mm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// To the right.
    pub x_mm: i32,
    /// Downwards.
    pub y_mm: i32,
}

impl Point {
    /// The square of the distance to another point, in mm².
    #[must_use]
    pub fn distance_squared(self, other: Point) -> i64 {
        let (dx, dy) = (i64::from(other.x_mm - self.x_mm), i64::from(other.y_mm - self.y_mm));
        dx * dx + dy * dy
    }
}

/// The maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MapName {
    /// Always the same: four equal quarters with walls to hide behind.
    #[default]
    Yard,
    /// Remains of walls that the room's seed places.
    Ruins,
    /// Nothing but the wall around it.
    Open,
}

impl MapName {
    /// All of them.
    pub const ALL: [MapName; 3] = [MapName::Yard, MapName::Ruins, MapName::Open];

    /// The name as options and results have it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            MapName::Yard => "yard",
            MapName::Ruins => "ruins",
            MapName::Open => "open",
        }
    }
}

/// The upper left quarter of the yard; the others mirror it.
const YARD: [&[u8; 16]; 16] = [
    b"################",
    b"#...............",
    b"#...............",
    b"#..###....##....",
    b"#..#......##....",
    b"#..#............",
    b"#.........#.....",
    b"#.....##........",
    b"#.....##....###.",
    b"#...........#...",
    b"#..##.......#...",
    b"#..##..#........",
    b"#......#........",
    b"#......###......",
    b"#............##.",
    b"#............#..",
];

/// Remains of walls, each in a square of three by three tiles, a row in three bits. None encloses a tile, and each has a free tile all around it, so
/// that every free tile of the ruins can be reached.
const REMAINS: [u16; 10] = [
    0b000_010_000,
    0b110_110_000,
    0b111_000_000,
    0b000_000_111,
    0b100_100_100,
    0b001_001_001,
    0b111_100_100,
    0b001_001_111,
    0b111_101_101,
    0b000_000_000,
];
/// Side of the square that one of the remains stands in, with its free tiles.
const PLOT_TILES: u32 = 5;

/// Which tiles are wall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// From above; bit x of a row is the tile x from the left.
    rows: [u32; SIDE_TILES as usize],
}

impl Map {
    /// A map; only that of the ruins depends on the seed.
    #[must_use]
    pub fn new(name: MapName, seed: u64) -> Self {
        let mut rows = [1 | 1 << (SIDE_TILES - 1); SIDE_TILES as usize];
        rows[0] = u32::MAX;
        rows[SIDE_TILES as usize - 1] = u32::MAX;
        let mut map = Self { rows };
        match name {
            MapName::Open => {}
            MapName::Yard => {
                let last = SIDE_TILES as u32 - 1;
                for (y, row) in YARD.iter().enumerate() {
                    for (x, _) in row.iter().enumerate().filter(|(_, tile)| **tile == b'#') {
                        let (x, y) = (x as u32, y as u32);
                        [(x, y), (last - x, y), (x, last - y), (last - x, last - y)]
                            .into_iter()
                            .for_each(|(x, y)| map.build(x, y));
                    }
                }
            }
            MapName::Ruins => {
                let mut prng = Prng::new(seed ^ 0x0072_7569_6e73);
                let plots = (SIDE_TILES as u32 - 2) / PLOT_TILES;
                for plot in 0..plots * plots {
                    let remains = REMAINS[prng.below(REMAINS.len() as u32) as usize];
                    let (left, top) = (2 + plot % plots * PLOT_TILES, 2 + plot / plots * PLOT_TILES);
                    for tile in (0..9).filter(|tile| remains >> tile & 1 == 1) {
                        map.build(left + tile % 3, top + tile / 3);
                    }
                }
            }
        }
        map
    }

    fn build(&mut self, tile_x: u32, tile_y: u32) {
        if let Some(row) = self.rows.get_mut(tile_y as usize) {
            *row |= 1 << tile_x;
        }
    }

    /// Whether a tile is wall; there is nothing but wall beyond the sides.
    #[must_use]
    pub fn is_wall_tile(&self, tile_x: i32, tile_y: i32) -> bool {
        match self.rows.get(tile_y as usize) {
            Some(row) if (0..SIDE_TILES).contains(&tile_x) => row >> tile_x & 1 == 1,
            _ => true,
        }
    }

    /// Whether there is wall at a point.
    #[must_use]
    pub fn is_wall(&self, at: Point) -> bool {
        self.is_wall_tile(at.x_mm.div_euclid(TILE_MM), at.y_mm.div_euclid(TILE_MM))
    }

    /// Tiles that are not wall.
    #[must_use]
    pub fn free_tiles(&self) -> u32 {
        self.rows.iter().map(|row| row.count_zeros()).sum()
    }

    /// The middle of the free tile with this number, row by row; `None` beyond the last.
    #[must_use]
    pub fn free_tile(&self, number: u32) -> Option<Point> {
        let mut left = number;
        for (y, row) in (0..).zip(&self.rows) {
            if left < row.count_zeros() {
                let x = (0..SIDE_TILES).filter(|x| row >> x & 1 == 0).nth(left as usize)?;
                return Some(Point { x_mm: x * TILE_MM + TILE_MM / 2, y_mm: y * TILE_MM + TILE_MM / 2 });
            }
            left -= row.count_zeros();
        }
        None
    }

    /// Where a square body of half the breadth `half_mm` (below half a tile) comes to when it wants to go this way: along a wall where one is in the way.
    #[must_use]
    pub fn moved(&self, from: Point, way: Point, half_mm: i32) -> Point {
        let steps = way.x_mm.abs().max(way.y_mm.abs()) / MOVE_STEP_MAX_MM + 1;
        let mut at = from;
        for step in 1..=steps {
            let part = |whole: i32| whole * step / steps - whole * (step - 1) / steps;
            at.x_mm = self.moved_along(at.x_mm, part(way.x_mm), half_mm, |x, y| self.is_wall_tile(x, y), at.y_mm);
            at.y_mm = self.moved_along(at.y_mm, part(way.y_mm), half_mm, |y, x| self.is_wall_tile(x, y), at.x_mm);
        }
        at
    }

    /// One axis of [`moved`](Self::moved): `across_mm` is where the body is on the other one.
    fn moved_along(
        &self,
        from_mm: i32,
        way_mm: i32,
        half_mm: i32,
        is_wall: impl Fn(i32, i32) -> bool,
        across_mm: i32,
    ) -> i32 {
        if way_mm == 0 {
            return from_mm;
        }
        let to_mm = from_mm + way_mm;
        // The body covers its lower edge and not its upper one, so that it may touch a wall on both sides.
        let front_mm = if way_mm > 0 { to_mm + half_mm - 1 } else { to_mm - half_mm };
        let front = front_mm.div_euclid(TILE_MM);
        let sides = [across_mm - half_mm, across_mm + half_mm - 1].map(|side_mm| side_mm.div_euclid(TILE_MM));
        if !sides.into_iter().any(|side| is_wall(front, side)) {
            return to_mm;
        }
        if way_mm > 0 { front * TILE_MM - half_mm } else { (front + 1) * TILE_MM + half_mm }
    }

    /// Whether no wall stands between two points.
    #[must_use]
    pub fn sees(&self, from: Point, to: Point) -> bool {
        let (dx, dy) = (to.x_mm - from.x_mm, to.y_mm - from.y_mm);
        let looks = dx.abs().max(dy.abs()) / SIGHT_STEP_MM + 1;
        // In 256ths of a millimetre: one division for the line, none for a look.
        let step = Point { x_mm: (dx << 8) / looks, y_mm: (dy << 8) / looks };
        let mut at = Point { x_mm: from.x_mm << 8, y_mm: from.y_mm << 8 };
        (1..looks).all(|_| {
            at = Point { x_mm: at.x_mm + step.x_mm, y_mm: at.y_mm + step.y_mm };
            !self.is_wall(Point { x_mm: at.x_mm >> 8, y_mm: at.y_mm >> 8 })
        })
    }

    /// The rows from above, `#` for wall and `.` for free: what players are told.
    #[must_use]
    pub fn text(&self) -> Vec<String> {
        let tile = |row: u32, x: i32| if row >> x & 1 == 1 { '#' } else { '.' };
        self.rows.iter().map(|row| (0..SIDE_TILES).map(|x| tile(*row, x)).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HALF_MM: i32 = 400;

    fn point(x_mm: i32, y_mm: i32) -> Point {
        Point { x_mm, y_mm }
    }

    fn is_free(map: &Map, at: Point) -> bool {
        let edges = |mm: i32| [mm - HALF_MM, mm + HALF_MM - 1];
        edges(at.x_mm).into_iter().all(|x| edges(at.y_mm).into_iter().all(|y| !map.is_wall(point(x, y))))
    }

    #[test]
    fn every_free_tile_can_be_reached() {
        let seeds = 0..200;
        for map in [Map::new(MapName::Yard, 0), Map::new(MapName::Open, 0)]
            .into_iter()
            .chain(seeds.map(|seed| Map::new(MapName::Ruins, seed)))
        {
            let mut reached = std::collections::BTreeSet::new();
            let first = map.free_tile(0).unwrap();
            let mut next = vec![(first.x_mm / TILE_MM, first.y_mm / TILE_MM)];
            while let Some((x, y)) = next.pop() {
                if !map.is_wall_tile(x, y) && reached.insert((x, y)) {
                    next.extend([(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)]);
                }
            }
            assert_eq!(reached.len(), map.free_tiles() as usize, "{:#?}", map.text());
        }
    }

    #[test]
    fn maps_are_enclosed_and_the_seed_decides_the_ruins() {
        for name in MapName::ALL {
            let map = Map::new(name, 5);
            assert_eq!(map, Map::new(name, 5));
            for at in 0..SIDE_TILES {
                for (x, y) in [(at, 0), (at, SIDE_TILES - 1), (0, at), (SIDE_TILES - 1, at), (-1, at), (at, -1)] {
                    assert!(map.is_wall_tile(x, y), "{name:?} {x} {y}");
                }
            }
            assert_eq!(serde_json::to_value(name).unwrap(), name.text());
        }
        assert_ne!(Map::new(MapName::Ruins, 5), Map::new(MapName::Ruins, 6));
        assert_eq!(Map::new(MapName::Open, 5).free_tiles(), 30 * 30);
    }

    #[test]
    fn free_tiles_are_numbered_without_gaps() {
        let map = Map::new(MapName::Yard, 0);
        let all: Vec<Point> = (0..map.free_tiles()).map(|number| map.free_tile(number).unwrap()).collect();
        assert!(all.iter().all(|at| is_free(&map, *at)));
        assert!(all.windows(2).all(|pair| (pair[0].y_mm, pair[0].x_mm) < (pair[1].y_mm, pair[1].x_mm)));
        assert_eq!(map.free_tile(map.free_tiles()), None);
    }

    #[test]
    fn a_body_stops_at_a_wall_and_slides_along_it() {
        let map = Map::new(MapName::Open, 0);
        let at = map.moved(point(10_000, 10_000), point(-60_000, 700), HALF_MM);
        assert_eq!(at, point(TILE_MM + HALF_MM, 10_700));
        let at = map.moved(at, point(-500, -60_000), HALF_MM);
        assert_eq!(at, point(TILE_MM + HALF_MM, TILE_MM + HALF_MM));
        let at = map.moved(at, point(90_000, 90_000), HALF_MM);
        let far = SIDE_MM - TILE_MM - HALF_MM;
        assert_eq!(at, point(far, far));
    }

    #[test]
    fn walls_hide() {
        let map = Map::new(MapName::Yard, 0);
        // A block of the yard: columns 6 and 7 of the rows 7 and 8.
        assert!(map.is_wall_tile(6, 7) && !map.is_wall_tile(4, 7) && !map.is_wall_tile(9, 7));
        assert!(!map.sees(point(9_000, 15_000), point(19_000, 15_000)));
        assert!(map.sees(point(9_000, 3_000), point(40_000, 3_000)));
        assert!(map.sees(point(9_000, 3_000), point(9_000, 3_000)));
    }

    proptest! {
        #[test]
        fn nobody_ever_enters_a_wall(seed: u64, ways in prop::collection::vec((-3_000i32..3_000, -3_000i32..3_000), 1..60)) {
            for name in MapName::ALL {
                let map = Map::new(name, seed);
                let mut at = map.free_tile((seed % u64::from(map.free_tiles())) as u32).unwrap();
                for (x_mm, y_mm) in &ways {
                    let to = map.moved(at, point(*x_mm, *y_mm), HALF_MM);
                    prop_assert!(is_free(&map, to), "{at:?} to {to:?}");
                    prop_assert!((to.x_mm - at.x_mm).abs() <= x_mm.abs() && (to.y_mm - at.y_mm).abs() <= y_mm.abs());
                    at = to;
                }
            }
        }
    }
}
