//! Which shard a new room goes to: the one with the least to do. Pure; what the shards have to do is told by [`super::Rooms`].
//!
//! What a shard has to do is what it was seen to do (its busy time of the last second) and what is coming: rooms whose game has not begun cost nothing yet, and a thousand
//! rooms opened within a second would all go to the shard that was least busy before the first of them. What they will cost is guessed from what the running rooms cost, by weight: the
//! ticks in a second times the players and one more, since the rules and what goes to one player cost about the same. A room that has finished its game weighs nothing
//! here: it waits to be closed.
//!
//! A measure is never the same twice, and a few rooms more or less are no reason to prefer a shard. So among those that have about the same to do
//! ([`ALIKE_US`]) the one with the least weight gets the room, and among those the one with the fewest rooms.

/// Shards whose loads differ by less are alike, in microseconds of work per second: 5 % of a core, which is more than the same load shows as in two seconds one after the other, and
/// little beside what makes ticks late.
const ALIKE_US: u64 = 50_000;
/// What looking takes a shard that has any room, in microseconds per second: a thousand looks of 20 µs each. Not a cost of its rooms.
const LOOKING_US: u64 = 20_000;
/// What a unit of weight costs where nothing runs that it could be measured by, in microseconds per second: 12 µs for a tick with two players, which weighs 3. It is the least
/// that is ever taken, too: clocks count in whole microseconds.
const UNIT_US_LEAST: u64 = 4;
/// The most that is taken, in microseconds per second: 300 µs for a tick with two players. Above that a few rooms that run say nothing about those that are coming, whose own cost is
/// seen as soon as they begin.
const UNIT_US_MOST: u64 = 100;
/// A whole core, in microseconds per second.
const CORE_US: u64 = 1_000_000;

/// What a room weighs: roughly what it will cost, in no unit.
pub(super) fn weight(tick_hz: u32, players: usize) -> u64 {
    u64::from(tick_hz).saturating_mul((players as u64).saturating_add(1))
}

/// A shard, as far as a new room is concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ShardLoad {
    /// Time without rest, in microseconds per second.
    pub(super) busy_us: u64,
    /// It leaves snapshots out: whatever else is said here, it has too much to do.
    pub(super) is_shedding: bool,
    /// Its open rooms, those on their way to it included.
    pub(super) rooms: u32,
    /// What they weigh.
    pub(super) weight: u64,
    /// Of that, rooms whose game has begun, or is over.
    pub(super) weight_begun: u64,
    /// Of that, rooms whose game runs.
    pub(super) weight_running: u64,
}

impl ShardLoad {
    /// What it will have to do when the rooms that it has have begun, in microseconds per second.
    fn expected_us(&self, unit_us: u64) -> u64 {
        let seen_us = if self.is_shedding { self.busy_us.max(CORE_US) } else { self.busy_us };
        let coming = self.weight.saturating_sub(self.weight_begun);
        seen_us.saturating_add(coming.saturating_mul(unit_us))
    }
}

/// The shard for a new room. 0 if there is none.
pub(super) fn least_loaded(shards: &[ShardLoad]) -> usize {
    let unit_us = unit_us(shards);
    let least_us = shards.iter().map(|shard| shard.expected_us(unit_us)).min().unwrap_or_default();
    let alike =
        shards.iter().enumerate().filter(|(_, shard)| shard.expected_us(unit_us) <= least_us.saturating_add(ALIKE_US));
    let least = alike.min_by_key(|(_, shard)| (shard.weight.saturating_sub(shard.over()), shard.rooms));
    least.map_or(0, |(shard, _)| shard)
}

impl ShardLoad {
    /// What its rooms weigh whose game is over.
    fn over(&self) -> u64 {
        self.weight_begun.saturating_sub(self.weight_running)
    }
}

/// What a unit of weight costs, from the rooms that run.
fn unit_us(shards: &[ShardLoad]) -> u64 {
    let sum = |figures: &mut dyn Iterator<Item = u64>| figures.fold(0, u64::saturating_add);
    let running = sum(&mut shards.iter().map(|shard| shard.weight_running));
    let with_rooms = shards.iter().filter(|shard| shard.weight_running > 0);
    let busy_us = sum(&mut with_rooms.map(|shard| shard.busy_us.saturating_sub(LOOKING_US)));
    busy_us.checked_div(running).unwrap_or_default().clamp(UNIT_US_LEAST, UNIT_US_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host whose rooms cost what they cost, whatever they weigh.
    #[derive(Debug)]
    struct World {
        shards: Vec<ShardLoad>,
        /// Shard, weight, what it costs once it runs, and whether it does.
        rooms: Vec<(usize, u64, u64, bool)>,
        /// What is measured is off by up to so much.
        noise_us: u64,
        seed: u64,
        place: fn(&[ShardLoad]) -> usize,
    }

    impl World {
        fn new(shards: usize, noise_us: u64) -> Self {
            Self {
                shards: vec![ShardLoad::default(); shards],
                rooms: Vec::new(),
                noise_us,
                seed: 7,
                place: least_loaded,
            }
        }

        fn random(&mut self) -> u64 {
            // Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014), its mixer.
            self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.seed ^ self.seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ mixed >> 31
        }

        fn open(&mut self, players: usize, cost_us: u64) -> usize {
            let shard = (self.place)(&self.shards);
            let weight = weight(50, players);
            self.shards[shard].rooms += 1;
            self.shards[shard].weight += weight;
            self.rooms.push((shard, weight, cost_us, false));
            shard
        }

        /// All rooms begin, and some time passes.
        fn run(&mut self) {
            for room in self.rooms.iter_mut().filter(|room| !room.3) {
                room.3 = true;
                self.shards[room.0].weight_begun += room.1;
                self.shards[room.0].weight_running += room.1;
            }
            for shard in 0..self.shards.len() {
                let noise_us = self.random() % (self.noise_us + 1);
                self.shards[shard].busy_us = self.cost_us(shard) + noise_us + LOOKING_US;
            }
        }

        fn close(&mut self, room: usize) {
            let (shard, weight, _, has_begun) = self.rooms.swap_remove(room);
            let load = &mut self.shards[shard];
            load.rooms -= 1;
            load.weight -= weight;
            if has_begun {
                load.weight_begun -= weight;
                load.weight_running -= weight;
            }
        }

        fn cost_us(&self, shard: usize) -> u64 {
            self.rooms.iter().filter(|room| room.0 == shard).map(|room| room.2).sum()
        }

        fn rooms(&self) -> Vec<u32> {
            self.shards.iter().map(|shard| shard.rooms).collect()
        }
    }

    #[test]
    fn alike_rooms_are_spread_evenly_however_fast_they_come() {
        for shards in 1..5 {
            let mut world = World::new(shards, 10_000);
            // Nothing is measured meanwhile.
            (0..shards * 250).for_each(|_| _ = world.open(2, 600));
            assert_eq!(world.rooms(), vec![250; shards]);
            world.run();
            (0..shards * 250).for_each(|_| _ = world.open(2, 600));
            assert_eq!(world.rooms(), vec![500; shards]);
        }
        assert_eq!(least_loaded(&[]), 0);
    }

    #[test]
    fn what_rooms_cost_counts_and_not_how_many_there_are() {
        let mut world = World::new(2, 1_000);
        // By number, every heavy one would go to shard 0.
        for _ in 0..60 {
            world.open(2, 12_000);
            world.run();
            world.open(2, 500);
            world.run();
        }
        let costs = [world.cost_us(0), world.cost_us(1)];
        assert!(costs[0].abs_diff(costs[1]) <= ALIKE_US + 12_000, "{costs:?}, {:?}", world.rooms());
        assert!(world.rooms().iter().all(|rooms| *rooms >= 40), "{:?}", world.rooms());
        // One room that is as much work as all the others, and what weighs nothing any more.
        let mut world = World::new(2, 1_000);
        assert_eq!(world.open(64, 400_000), 0);
        world.run();
        (0..100).for_each(|_| {
            assert_eq!(
                {
                    world.run();
                    world.open(2, 3_000)
                },
                1
            )
        });
        world.run();
        let ended = ShardLoad { rooms: 500, weight: 75_000, weight_begun: 75_000, ..ShardLoad::default() };
        let waiting = ShardLoad { rooms: 1, weight: 150, ..ShardLoad::default() };
        assert_eq!(least_loaded(&[waiting, ended]), 1);
    }

    #[test]
    fn rooms_that_wait_to_begin_count_as_those_that_run() {
        let running = ShardLoad {
            busy_us: 620_000,
            rooms: 500,
            weight: 75_000,
            weight_begun: 75_000,
            weight_running: 75_000,
            ..ShardLoad::default()
        };
        // Nothing to do yet, and as many rooms: they will cost the same.
        let waiting = ShardLoad { rooms: 600, weight: 90_000, ..ShardLoad::default() };
        assert_eq!(least_loaded(&[waiting, running]), 1);
        assert_eq!(least_loaded(&[ShardLoad { weight: 45_000, rooms: 300, ..waiting }, running]), 0);
    }

    #[test]
    fn a_shard_that_sheds_gets_none_while_another_does_not() {
        let full = ShardLoad { busy_us: 900_000, rooms: 9, weight: 900, ..ShardLoad::default() };
        let sheds = ShardLoad { busy_us: 300_000, is_shedding: true, rooms: 1, weight: 100, ..ShardLoad::default() };
        assert_eq!(least_loaded(&[sheds, full]), 1);
        assert_eq!(least_loaded(&[sheds, ShardLoad { is_shedding: true, ..full }]), 0);
        // Figures beyond all sense.
        let most = ShardLoad { busy_us: u64::MAX - ALIKE_US, weight: u64::MAX, ..ShardLoad::default() };
        assert_eq!(least_loaded(&[most, ShardLoad { weight_running: u64::MAX / 2, ..most }, full]), 2);
        assert_eq!(weight(u32::MAX, usize::MAX), u64::MAX);
    }

    /// How far shards are apart at worst, in microseconds per second, while rooms of all kinds come and go.
    fn apart_us(place: fn(&[ShardLoad]) -> usize) -> u64 {
        let mut world = World { place, ..World::new(3, 20_000) };
        let mut worst = 0;
        for turn in 0..3_000 {
            let (players, cost_us) =
                [(2, 600), (2, 600), (2, 5_000), (8, 2_000), (64, 25_000)][world.random() as usize % 5];
            world.open(players, cost_us);
            if world.rooms.len() > 150 {
                let room = world.random() as usize % world.rooms.len();
                world.close(room);
            }
            // Figures are a few rooms old.
            if turn % 4 == 0 {
                world.run();
            }
            if turn > 300 {
                let costs: Vec<u64> = (0..3).map(|shard| world.cost_us(shard)).collect();
                worst = worst.max(costs.iter().max().unwrap() - costs.iter().min().unwrap());
            }
        }
        worst
    }

    #[test]
    fn rooms_of_all_kinds_that_come_and_go_stay_level() {
        let fewest = |shards: &[ShardLoad]| (0..shards.len()).min_by_key(|shard| shards[*shard].rooms).unwrap();
        let (by_load, by_number) = (apart_us(least_loaded), apart_us(fewest));
        println!("seed 7: {by_load} us per second apart at worst, by number {by_number}");
        // What is alike, what is measured wrongly, and a few of the largest rooms.
        assert!(by_load <= ALIKE_US + 20_000 + 4 * 25_000 && by_load * 2 < by_number, "{by_load}, {by_number}");
    }
}
