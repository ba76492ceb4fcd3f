//! A shard as a queue: how late steps come, and how often it sleeps, with so many rooms.
//!
//! One server (the shard's thread), which has a core to itself. It looks at every whole millisecond, and the rooms, which are due once a tick, are spread evenly
//! over these moments. Every player's datagram comes once a tick, at a moment of its own. The server does what [`crate::shard`] does: it takes datagrams, looks
//! after every 64 whether a room is due, steps the rooms that are, and sleeps until the next millisecond. Times of steps are drawn from those measured, and
//! so is how late the system wakes the thread; a datagram and a sleep take their mean. Other programs are in the model as far as they made steps longer and
//! sleeps end later while that was measured.

use serde::Serialize;

use super::spread::quantile;
use crate::random::Random;
use crate::shard::meter::Timed;
use crate::shard::{DATAGRAMS_PER_LOOK, POLL_US};

/// Ticks of each room that are played.
const TICKS: usize = 60;
/// Of these, those that count: the first ones begin with an empty queue.
const TICKS_COUNTED: usize = 50;
/// Quantiles of the measured times that are drawn from.
const DRAWN_FROM: usize = 2_048;
/// How long datagrams may wait in the end, in ticks. One in a hundred too many would be more by then, and what is due between two looks is much less.
const UNREAD_TICKS_MAX: f64 = 0.5;
/// Most rooms that are tried when the most are looked for: what a host may have.
pub const ROOMS_MAX: usize = 30_000;

/// What is served.
#[derive(Debug, Clone)]
pub struct Service {
    /// Length of a tick, in microseconds.
    pub tick_us: f64,
    /// Times of steps, with all that leaves the room, as they were measured.
    pub steps: Timed,
    /// What the clock took within each of these, in microseconds.
    pub step_clock_us: f64,
    /// How much later than it should the thread woke up, as it was measured.
    pub wakes: Timed,
    /// A datagram: received, opened, its inputs cached; in microseconds.
    pub datagram_us: f64,
    /// Datagrams of one room in a tick.
    pub datagrams_per_room: f64,
    /// Falling asleep, waking up and looking, in microseconds.
    pub sleep_us: f64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Outcome {
    /// Rooms.
    pub rooms: usize,
    /// How late half of the steps come at most, in milliseconds.
    pub lateness_p50_ms: f64,
    /// How late 99 of 100 steps come at most, in milliseconds.
    pub lateness_p99_ms: f64,
    /// Ticks by which the datagrams wait for each other in the end: those that had come and were not taken yet, over those of a tick.
    pub unread_ticks: f64,
    /// Sleeps in a tick.
    pub sleeps: f64,
    /// The part of the time that the server works, 0 to 1.
    pub busy: f64,
}

/// Plays some ticks with so many rooms.
#[must_use]
pub fn play(service: &Service, rooms: usize, seed: u64) -> Outcome {
    let mut random = Random::new(seed);
    let tick = service.tick_us;
    let look = POLL_US as f64;
    let looks = (tick / look).floor().max(1.0) as usize;
    // As many at each moment, but for one.
    let due: Vec<f64> = (0..rooms).map(|room| (room * looks / rooms) as f64 * look).collect();
    let datagrams = (rooms as f64 * service.datagrams_per_room).round() as usize;
    let mut datagrams: Vec<f64> = (0..datagrams).map(|_| random.unit() * tick).collect();
    datagrams.sort_unstable_by(f64::total_cmp);
    // The moment of the nth of a list that repeats with every tick.
    let at = |list: &[f64], n: usize| {
        let within = list.get(n % list.len().max(1)).copied();
        within.map_or(f64::INFINITY, |within| within + (n / list.len().max(1)) as f64 * tick)
    };
    let drawn_from = |timed: &Timed, less_us: f64| -> Vec<f64> {
        let us = |part: usize| timed.quantile_ns((part as f64 + 0.5) / DRAWN_FROM as f64) / 1e3;
        (0..DRAWN_FROM).map(|part| (us(part) - less_us).max(0.0)).collect()
    };
    let steps = drawn_from(&service.steps, service.step_clock_us);
    let wakes = drawn_from(&service.wakes, 0.0);
    let all = rooms * TICKS;
    let counted_from = (TICKS - TICKS_COUNTED) as f64 * tick;
    let (mut now, mut stepped, mut taken) = (0.0, 0, 0);
    let (mut slept, mut sleeps) = (0.0, 0usize);
    let mut late: Vec<f64> = Vec::with_capacity(rooms * TICKS_COUNTED);
    while stepped < all {
        let mut in_row = 0;
        while at(&datagrams, taken) <= now {
            taken += 1;
            in_row += 1;
            now += service.datagram_us;
            if in_row % DATAGRAMS_PER_LOOK == 0 && at(&due, stepped) <= now {
                break;
            }
        }
        let seen = now;
        while stepped < all && at(&due, stepped) <= seen {
            let due_us = at(&due, stepped);
            if due_us >= counted_from {
                late.push(now - due_us);
            }
            stepped += 1;
            now += drawn(&mut random, &steps);
        }
        if at(&datagrams, taken) <= now && in_row % DATAGRAMS_PER_LOOK == 0 && in_row > 0 {
            continue;
        }
        let wake = ((now / look).floor() + 1.0) * look;
        let wake = wake.min(at(&due, stepped));
        if wake > now {
            // Part of what a sleep costs comes before it and part after; all of it counts after.
            let woken = wake + drawn(&mut random, &wakes);
            let asleep = now.max(counted_from);
            if woken > asleep {
                sleeps += 1;
                slept += woken - asleep;
            }
            now = woken + service.sleep_us;
        }
    }
    late.sort_unstable_by(f64::total_cmp);
    let lasted = (now - counted_from).max(1.0);
    let mut unread = 0usize;
    while at(&datagrams, taken + unread) <= now {
        unread += 1;
    }
    Outcome {
        rooms,
        lateness_p50_ms: quantile(&late, 0.5) / 1e3,
        lateness_p99_ms: quantile(&late, 0.99) / 1e3,
        unread_ticks: unread as f64 / datagrams.len().max(1) as f64,
        sleeps: sleeps as f64 * tick / lasted,
        busy: 1.0 - slept / lasted,
    }
}

fn drawn(random: &mut Random, from: &[f64]) -> f64 {
    from.get(random.next() as usize % DRAWN_FROM).copied().unwrap_or_default()
}

/// The most rooms of which 99 of 100 steps come no later than so many milliseconds, and whose datagrams are read: steps come first, so that a shard with
/// too much to do leaves datagrams unread before it is late. None if one room is too many.
#[must_use]
pub fn most_rooms(service: &Service, lateness_ms: f64, seed: u64) -> Option<Outcome> {
    let fits = |rooms: usize| {
        let outcome = play(service, rooms, seed);
        (outcome.lateness_p99_ms <= lateness_ms && outcome.unread_ticks <= UNREAD_TICKS_MAX).then_some(outcome)
    };
    let mut best = fits(1)?;
    while best.rooms < ROOMS_MAX {
        match fits((best.rooms * 2).min(ROOMS_MAX)) {
            Some(outcome) => best = outcome,
            None => break,
        }
    }
    // To one in a hundred: the measured times are not known better.
    let mut over = best.rooms * 2;
    while over - best.rooms > (best.rooms / 100).max(1) && best.rooms < ROOMS_MAX {
        let rooms = best.rooms.midpoint(over);
        match fits(rooms) {
            Some(outcome) => best = outcome,
            None => over = rooms,
        }
    }
    Some(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::meter::{Meter, Operation};

    fn service(step_us: u64, datagram_us: f64, sleep_us: f64) -> Service {
        let steps = Meter::timing(Operation::Step, step_us * 1_000);
        Service {
            tick_us: 20_000.0,
            steps,
            step_clock_us: 0.0,
            wakes: Timed::default(),
            datagram_us,
            datagrams_per_room: 2.0,
            sleep_us,
        }
    }

    #[test]
    fn a_shard_with_little_to_do_is_never_late_and_looks_every_millisecond() {
        let outcome = play(&service(10, 2.0, 0.0), 1, 1);
        assert!(outcome.lateness_p99_ms < 0.02, "{outcome:?}");
        assert!((19.5..=20.5).contains(&outcome.sleeps), "{outcome:?}");
        assert!((outcome.busy - 14.0 / 20_000.0).abs() < 0.000_3, "{outcome:?}");
    }

    #[test]
    fn many_rooms_wake_it_no_more_often_and_wait_for_each_other() {
        let outcome = play(&service(10, 0.0, 0.0), 100, 2);
        assert!((19.5..=20.5).contains(&outcome.sleeps), "{outcome:?}");
        // Five at a time, of which the last waits for four steps of 10 us (drawn from ranges of times that are a sixteenth wide).
        assert!((0.038..0.043).contains(&outcome.lateness_p99_ms), "{outcome:?}");
        assert!((0.018..0.022).contains(&outcome.lateness_p50_ms), "{outcome:?}");
    }

    #[test]
    fn lateness_grows_with_the_rooms_and_the_most_are_found() {
        let service = service(100, 10.0, 5.0);
        let (few, many) = (play(&service, 20, 3), play(&service, 150, 3));
        assert!(few.lateness_p99_ms < many.lateness_p99_ms && many.busy > 0.85, "{few:?} {many:?}");
        let over = play(&service, 200, 3);
        // Steps alone fill the tick. Datagrams are taken 64 at a time between them, so that lateness grows with the square root of the time.
        assert!(over.lateness_p99_ms > 20.0 && over.busy > 0.999, "more than it can do: {over:?}");
        // 18 ms for the steps and 3.6 for the datagrams of 180: the steps are in time.
        let unread = play(&service, 180, 3);
        assert!(unread.unread_ticks > 1.0 && few.unread_ticks < 0.2, "{unread:?} {few:?}");
        let most = most_rooms(&service, 5.0, 3).unwrap();
        // 120 us for each room of 20 ms: 166 at the very most.
        assert!((120..=167).contains(&most.rooms) && most.lateness_p99_ms <= 5.0, "{most:?}");
        assert_eq!(most_rooms(&service, 5.0, 3), Some(most), "the same seed");
        // A system that wakes it late makes every step late, and lets it sleep less often.
        let wakes = Meter::timing(Operation::Wake, 2_000_000);
        let dull = Service { wakes, ..service.clone() };
        let outcome = play(&dull, 20, 3);
        assert!(outcome.lateness_p50_ms > 0.9 && outcome.sleeps < few.sleeps / 2.0, "{outcome:?} {few:?}");
        let one = Service { sleep_us: 8_500.0, ..service };
        assert!(most_rooms(&one, 1.0, 3).is_none());
    }
}
