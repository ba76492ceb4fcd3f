//! The spatial grid: things sorted by the square cell that they are in, so that those near a place are found without looking at all. What is in a
//! row of cells lies in one piece, which is what makes a snapshot a few copies. Built anew in every tick; a part of no state.

use std::ops::{Range, RangeInclusive};

use crate::map::{Point, SIDE_MM};

/// Side of a cell, in mm. A shot's way in a tick and the body that it may hit are within one to four cells.
pub const CELL_MM: i32 = 4_000;
/// Cells along each side of the arena.
pub const SIDE_CELLS: i32 = SIDE_MM / CELL_MM;
const CELLS: usize = (SIDE_CELLS * SIDE_CELLS) as usize;

/// A cell, by column and row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// From the left.
    pub x: i32,
    /// From above.
    pub y: i32,
}

impl Cell {
    /// The cell that a point is in; for one outside the arena the nearest.
    #[must_use]
    pub fn of(at: Point) -> Self {
        let along = |mm: i32| (mm / CELL_MM).clamp(0, SIDE_CELLS - 1);
        Self { x: along(at.x_mm), y: along(at.y_mm) }
    }

    fn number(self) -> usize {
        (self.y * SIDE_CELLS + self.x) as usize
    }
}

/// Numbers of things, sorted by cell and within a cell by number.
#[derive(Clone, Debug)]
pub struct Grid {
    /// Where in `things` each cell begins, and the end of the last.
    starts: [u16; CELLS + 1],
    things: Vec<u16>,
}

impl Default for Grid {
    fn default() -> Self {
        Self { starts: [0; CELLS + 1], things: Vec::new() }
    }
}

impl Grid {
    /// Sorts things anew, each given by its number and its cell; the numbers rise. A counting sort: two passes over the things and one over the cells.
    pub fn fill(&mut self, things: impl Iterator<Item = (u16, Cell)> + Clone) {
        let starts = &mut self.starts;
        starts.fill(0);
        for (_, cell) in things.clone() {
            starts[cell.number() + 1] += 1;
        }
        let mut total = 0;
        for start in starts.iter_mut() {
            total += *start;
            *start = total;
        }
        self.things.clear();
        self.things.resize(usize::from(total), 0);
        // Each start moves on to the end of its cell, which is where the next begins ...
        for (thing, cell) in things {
            let next = &mut starts[cell.number()];
            self.things[usize::from(*next)] = thing;
            *next += 1;
        }
        // ... so that all are one cell further than they should be.
        starts.copy_within(0..CELLS, 1);
        starts[0] = 0;
    }

    /// All things, in their order.
    #[must_use]
    pub fn things(&self) -> &[u16] {
        &self.things
    }

    /// The part of [`things`](Self::things) that is in these columns of a row.
    #[must_use]
    pub fn row(&self, y: i32, columns: &RangeInclusive<i32>) -> Range<usize> {
        let first = Cell { x: *columns.start(), y }.number();
        let last = Cell { x: *columns.end(), y }.number();
        usize::from(self.starts[first])..usize::from(self.starts[last + 1])
    }

    /// The things in all cells that the rectangle between two points touches, widened by `margin_mm` on each side.
    pub fn near(&self, a: Point, b: Point, margin_mm: i32) -> impl Iterator<Item = u16> + '_ {
        let low = Cell::of(Point { x_mm: a.x_mm.min(b.x_mm) - margin_mm, y_mm: a.y_mm.min(b.y_mm) - margin_mm });
        let high = Cell::of(Point { x_mm: a.x_mm.max(b.x_mm) + margin_mm, y_mm: a.y_mm.max(b.y_mm) + margin_mm });
        (low.y..=high.y).flat_map(move |y| self.things[self.row(y, &(low.x..=high.x))].iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points() -> impl Strategy<Value = Vec<Point>> {
        let along = || 0..SIDE_MM;
        prop::collection::vec((along(), along()).prop_map(|(x_mm, y_mm)| Point { x_mm, y_mm }), 0..300)
    }

    proptest! {
        #[test]
        fn everything_is_in_its_cell_once(places in points()) {
            let mut grid = Grid::default();
            // A second filling must not remember the first.
            grid.fill((0..5).map(|number| (number, Cell { x: 3, y: 3 })));
            grid.fill((0..).zip(places.iter().map(|at| Cell::of(*at))));
            let mut all = grid.things().to_vec();
            all.sort_unstable();
            prop_assert_eq!(all, (0..places.len() as u16).collect::<Vec<_>>());
            for y in 0..SIDE_CELLS {
                for x in 0..SIDE_CELLS {
                    let here = &grid.things()[grid.row(y, &(x..=x))];
                    let expected: Vec<u16> =
                        (0..).zip(&places).filter(|(_, at)| Cell::of(**at) == Cell { x, y }).map(|(n, _)| n).collect();
                    prop_assert_eq!(here, &expected[..]);
                }
            }
        }

        #[test]
        fn whatever_is_near_is_found(places in points(), ends in points(), margin_mm in 0..2_000) {
            let mut grid = Grid::default();
            grid.fill((0..).zip(places.iter().map(|at| Cell::of(*at))));
            for pair in ends.windows(2) {
                let (a, b) = (pair[0], pair[1]);
                let found: Vec<u16> = grid.near(a, b, margin_mm).collect();
                let within = |mm: i32, a: i32, b: i32| (a.min(b) - margin_mm..=a.max(b) + margin_mm).contains(&mm);
                for (number, at) in (0..).zip(&places) {
                    if within(at.x_mm, a.x_mm, b.x_mm) && within(at.y_mm, a.y_mm, b.y_mm) {
                        prop_assert!(found.contains(&number));
                    }
                }
            }
        }
    }
}
