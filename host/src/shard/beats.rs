//! Where in the tick the rooms of a shard begin. A shard looks at multiples of [`POLL_US`], and rooms that tick then cost it no waking of their own: about 20 µs of
//! processor time each. Of these moments every room gets the one with the least to do, so that rooms wait little for each other.

use holeshot_room::Beat;

use super::POLL_US;

/// The table of moments has a whole number of ticks of any room that it has a place for: of 5, 10, 20, 25, 40, 50, 100 or 125 a second.
const TABLE_US: u64 = 200_000;
const MOMENTS: usize = (TABLE_US / POLL_US) as usize;

/// What a shard has to do at each of its moments.
#[derive(Debug)]
pub(super) struct Beats {
    loads: [u32; MOMENTS],
}

/// A room's place among the moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    first: usize,
    apart: usize,
    load: u32,
}

impl Place {
    pub(super) const fn beat(self) -> Beat {
        Beat { period_us: self.apart as u64 * POLL_US, offset_us: self.first as u64 * POLL_US }
    }
}

impl Default for Beats {
    fn default() -> Self {
        Self { loads: [0; MOMENTS] }
    }
}

impl Beats {
    /// A place for a room of so many players. None for ticks that are not as long as some of the moments: such a room begins when it likes.
    pub(super) fn take(&mut self, tick_hz: u32, players: usize) -> Option<Place> {
        let tick_us = 1_000_000_u64.checked_div(u64::from(tick_hz))?;
        if 1_000_000 % u64::from(tick_hz) != 0 || !tick_us.is_multiple_of(POLL_US) || !TABLE_US.is_multiple_of(tick_us)
        {
            return None;
        }
        let apart = usize::try_from(tick_us / POLL_US).ok()?;
        let load_at =
            |first: usize| self.loads.iter().skip(first).step_by(apart).map(|load| u64::from(*load)).sum::<u64>();
        let first = (0..apart).min_by_key(|first| load_at(*first))?;
        // The rules and what goes to a player weigh about the same.
        let place = Place { first, apart, load: u32::try_from(players).unwrap_or(u32::MAX).saturating_add(1) };
        self.add(place, u32::saturating_add);
        Some(place)
    }

    /// The room of this place is gone.
    pub(super) fn leave(&mut self, place: Place) {
        self.add(place, u32::saturating_sub);
    }

    fn add(&mut self, place: Place, sum: fn(u32, u32) -> u32) {
        for load in self.loads.iter_mut().skip(place.first).step_by(place.apart.max(1)) {
            *load = sum(*load, place.load);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_spread_evenly_and_leave_nothing_behind() {
        let mut beats = Beats::default();
        let places: Vec<Place> = (0..1_000).map(|_| beats.take(50, 2).unwrap()).collect();
        assert!(beats.loads.iter().all(|load| *load == 150), "{beats:?}");
        let first: Vec<u64> = places.iter().take(20).map(|place| place.beat().offset_us).collect();
        assert_eq!(first, (0..20).map(|ms| ms * 1_000).collect::<Vec<_>>());
        assert!(places.iter().all(|place| place.beat().period_us == 20_000));
        // Of other rates and sizes: they go where there is the least.
        let big = beats.take(50, 64).unwrap();
        for _ in 0..40 {
            let place = beats.take(25, 1).unwrap();
            assert!(place.first % 20 != big.first && place.apart == 40, "{place:?}");
            beats.leave(place);
        }
        beats.leave(big);
        places.into_iter().for_each(|place| beats.leave(place));
        assert_eq!(beats.loads, [0; MOMENTS]);
    }

    #[test]
    fn ticks_that_do_not_fit_have_no_place() {
        let mut beats = Beats::default();
        let with: Vec<u32> = (0..=128).filter(|tick_hz| beats.take(*tick_hz, 1).is_some()).collect();
        assert_eq!(with, [5, 10, 20, 25, 40, 50, 100, 125]);
    }
}
