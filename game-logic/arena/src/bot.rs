//! A bot: sees snapshots, gives inputs, has a skill. For load, for tests, for whoever has nobody to play with. It has no clock and no access to a
//! match's state, and does not know the map: it feels its way along walls.

use crate::map::Point;
use crate::prng::Prng;
use crate::snapshot::{FighterView, Input, Own, PickupKind, Snapshot};
use crate::weapon::toward;
use crate::world::RUN_SPEED_MM_S;

/// Calls without a newer snapshot during which the bot goes on as before; then it lets go. A quarter of a second at 50 Hz.
const STALE_CALLS_MAX: u32 = 12;
/// Between two looks at whether it still gets ahead, in ms.
const BUMP_LOOK_MS: u32 = 240;
/// Health below which a medkit in sight is worth a way.
const HURT: u8 = 60;
/// Until a foe is forgotten that is not seen any more, in ms: its speed is not what it was.
const FORGET_MS: u32 = 200;
/// Players of a room, at most: foes are kept by slot.
const PLAYERS_MAX: usize = 64;
/// A 65,536th of a turn, in rad.
const AIM_UNIT_RAD: f64 = core::f64::consts::TAU / 65_536.0;

/// What a bot remembers of somebody it sees.
#[derive(Clone, Copy, Debug)]
struct Foe {
    at: Point,
    seen_ms: u32,
    first_seen_ms: u32,
    /// In mm/s.
    speed: (f64, f64),
}

/// A player of one fighter.
#[derive(Clone, Debug)]
pub struct Bot {
    /// From 0 to 1.
    error: f64,
    prng: Prng,
    /// From a snapshot to the tick that the answering input moves, in s.
    delay_s: f64,
    foes: [Option<Foe>; PLAYERS_MAX],
    /// Where it wanders, in 65,536ths of a turn.
    heading: u16,
    /// Which way it steps aside: 1 or -1.
    side: i32,
    /// When it chooses anew where to go.
    turn_ms: u32,
    /// How far beside the foe it aims, in rad, until when.
    miss_rad: f64,
    miss_until_ms: u32,
    bump_ms: u32,
    bump_at: Point,
    last_time_ms: Option<u32>,
    stale_calls: u32,
    last: Input,
}

impl Bot {
    /// A bot with a skill from 0 (slow to see, misses often) to 1 (sees at once, aims ahead without error). The seed decides its ways and its errors.
    #[must_use]
    pub fn new(skill: f64, seed: u64) -> Self {
        let mut prng = Prng::new(seed ^ 0x0061_7265_6e61);
        let heading = prng.bits() as u16;
        Self {
            error: 1.0 - if skill > 0.0 { if skill < 1.0 { skill } else { 1.0 } } else { 0.0 },
            prng,
            delay_s: 0.0,
            foes: [None; PLAYERS_MAX],
            heading,
            side: 1,
            turn_ms: 0,
            miss_rad: 0.0,
            miss_until_ms: 0,
            bump_ms: 0,
            bump_at: Point::default(),
            last_time_ms: None,
            stale_calls: 0,
            last: Input::default(),
        }
    }

    /// Tells the bot that its inputs take effect this long after the snapshot that they answer, in ms: the lead at which a client sends. It aims that
    /// much further ahead.
    pub fn set_delay_ms(&mut self, delay_ms: u32) {
        self.delay_s = f64::from(delay_ms) / 1_000.0;
    }

    /// The input for the next frame, from the newest snapshot. Called once per tick, with the old snapshot again where no newer one came.
    pub fn play(&mut self, snapshot: &Snapshot) -> Input {
        let now_ms = snapshot.time_ms;
        if self.last_time_ms.is_some_and(|last_ms| now_ms <= last_ms) {
            self.stale_calls += 1;
            if self.stale_calls > STALE_CALLS_MAX {
                // Blind: stands still and holds its fire.
                self.last = Input { aim: self.last.aim, ..Input::default() };
            }
            return self.last;
        }
        self.stale_calls = 0;
        self.last_time_ms = Some(now_ms);
        self.watch(snapshot);
        self.last = match snapshot.you {
            Some(own) if own.health > 0 => self.act(&own, snapshot),
            _ => Input { aim: self.last.aim, ..Input::default() },
        };
        self.last
    }

    /// Learns from where foes were how fast they are.
    fn watch(&mut self, snapshot: &Snapshot) {
        let now_ms = snapshot.time_ms;
        for seen in snapshot.fighters.iter() {
            let Some(slot) = self.foes.get_mut(usize::from(seen.player)) else { continue };
            *slot = Some(match *slot {
                Some(foe) if now_ms.saturating_sub(foe.seen_ms) <= FORGET_MS && now_ms > foe.seen_ms => {
                    let since_s = f64::from(now_ms - foe.seen_ms) / 1_000.0;
                    let speed = |from: i32, to: i32, former: f64| {
                        // Half of what is new, as eyes do; a jump (it came back elsewhere) is no speed.
                        let now = f64::from(to - from) / since_s;
                        let limit = 1.5 * f64::from(RUN_SPEED_MM_S);
                        if now > limit || now < -limit { 0.0 } else { 0.5 * (former + now) }
                    };
                    let (x, y) = foe.speed;
                    let speed = (speed(foe.at.x_mm, seen.at.x_mm, x), speed(foe.at.y_mm, seen.at.y_mm, y));
                    Foe { at: seen.at, seen_ms: now_ms, first_seen_ms: foe.first_seen_ms, speed }
                }
                _ => Foe { at: seen.at, seen_ms: now_ms, first_seen_ms: now_ms, speed: (0.0, 0.0) },
            });
        }
    }

    fn act(&mut self, own: &Own, snapshot: &Snapshot) -> Input {
        let now_ms = snapshot.time_ms;
        let nearest = |fighter: &FighterView| own.at.distance_squared(fighter.at);
        let target = snapshot.fighters.iter().filter(|fighter| !fighter.protected).min_by_key(nearest);
        let kit = snapshot
            .pickups
            .iter()
            .filter(|pickup| pickup.kind == PickupKind::Overdrive || own.health < HURT)
            .min_by_key(|pickup| own.at.distance_squared(pickup.at));
        if now_ms >= self.turn_ms {
            self.turn_ms = now_ms.saturating_add(400 + self.prng.below(900));
            self.side = if self.prng.below(2) == 0 { 1 } else { -1 };
            // A wanderer bends its way by up to an eighth of a turn.
            self.heading = self.heading.wrapping_add(self.prng.below(16_384) as u16).wrapping_sub(8_192);
        }
        let aim = target.map(|target| self.aim_at(own, &target, now_ms));
        let way = match (target, kit) {
            (_, Some(kit)) if own.health < HURT => direction(own.at, kit.at),
            (Some(target), _) => self.dance(own, &target),
            (None, Some(kit)) => direction(own.at, kit.at),
            (None, None) => self.heading,
        };
        let way = self.around_walls(way, own.at, now_ms);
        let stick = toward(way, 127);
        let (aim, fire) = match (target, aim) {
            (Some(target), Some(wanted)) => {
                let aim = self.turned(wanted);
                (aim, self.fires(own, &target, aim, wanted, now_ms))
            }
            _ => (self.turned(way), false),
        };
        Input { move_x: stick.x_mm as i8, move_y: stick.y_mm as i8, aim, fire }
    }

    /// Where to aim for a foe that runs on: where it will be when the shot comes there.
    fn aim_at(&mut self, own: &Own, target: &FighterView, now_ms: u32) -> u16 {
        if now_ms >= self.miss_until_ms {
            self.miss_until_ms = now_ms.saturating_add(200 + self.prng.below(300));
            self.miss_rad = 0.16 * self.error * self.prng.bell();
        }
        let (speed_x, speed_y) = self.foe(target).map_or((0.0, 0.0), |foe| foe.speed);
        let (dx, dy) = way(own.at, target.at);
        let distance_mm = libm::sqrt(dx * dx + dy * dy);
        let flight_s = distance_mm / f64::from(own.weapon.figures().speed_mm_s);
        // A beginner aims at where the foe is.
        let ahead_s = (flight_s + self.delay_s) * (1.0 - self.error);
        let angle = libm::atan2(dy + speed_y * ahead_s, dx + speed_x * ahead_s) + self.miss_rad;
        turn(angle)
    }

    fn foe(&self, target: &FighterView) -> Option<&Foe> {
        self.foes.get(usize::from(target.player))?.as_ref()
    }

    /// The aim moves towards the wanted one as fast as a hand can.
    fn turned(&self, wanted: u16) -> u16 {
        // In a tick of 20 ms an eighth of a turn for a master, a twentieth for a beginner.
        let most = (8_192.0 - 4_900.0 * self.error) as i16;
        let missing = wanted.wrapping_sub(self.last.aim) as i16;
        self.last.aim.wrapping_add(missing.clamp(-most, most) as u16)
    }

    fn fires(&self, own: &Own, target: &FighterView, aim: u16, wanted: u16, now_ms: u32) -> bool {
        let figures = own.weapon.figures();
        let range_mm = i64::from(figures.speed_mm_s) * i64::from(figures.life_ms) / 1_000;
        let aimed = (aim.wrapping_sub(wanted) as i16).unsigned_abs() < 900;
        let reacts_ms = 120 + (350.0 * self.error) as u32;
        let noticed = self.foe(target).is_some_and(|foe| now_ms.saturating_sub(foe.first_seen_ms) >= reacts_ms);
        aimed && noticed && own.at.distance_squared(target.at) < range_mm * range_mm
    }

    /// Near a foe: aside, and to the distance that the weapon likes.
    fn dance(&self, own: &Own, target: &FighterView) -> u16 {
        let figures = own.weapon.figures();
        let likes_mm = i64::from(figures.speed_mm_s) * i64::from(figures.life_ms) / 4_000;
        let to = direction(own.at, target.at);
        // A quarter turn aside, a bit towards or away from it.
        let bend = if own.at.distance_squared(target.at) > likes_mm * likes_mm { 9_000 } else { 20_000 };
        if self.side > 0 { to.wrapping_add(bend) } else { to.wrapping_sub(bend) }
    }

    /// Turns away from what it cannot pass: it looks now and then whether it has come anywhere.
    fn around_walls(&mut self, way: u16, at: Point, now_ms: u32) -> u16 {
        if now_ms >= self.bump_ms {
            let expected_mm = i64::from(RUN_SPEED_MM_S) * i64::from(BUMP_LOOK_MS) / 1_000;
            // Less than a third of the way: a wall. More than that of it and a half: it came back elsewhere.
            let stuck = 9 * at.distance_squared(self.bump_at) < expected_mm * expected_mm;
            self.bump_ms = now_ms.saturating_add(BUMP_LOOK_MS);
            self.bump_at = at;
            if stuck {
                self.side = -self.side;
                self.heading = way.wrapping_add(16_384).wrapping_add(self.prng.below(32_768) as u16);
                // For a while it goes there, whatever it wants.
                self.turn_ms = now_ms.saturating_add(2 * BUMP_LOOK_MS);
                self.bump_ms = now_ms.saturating_add(2 * BUMP_LOOK_MS);
            }
        }
        if self.bump_ms > now_ms.saturating_add(BUMP_LOOK_MS) { self.heading } else { way }
    }
}

/// The direction from one point to another, in 65,536ths of a turn.
fn direction(from: Point, to: Point) -> u16 {
    let (dx, dy) = way(from, to);
    turn(libm::atan2(dy, dx))
}

/// From one point to another, in mm.
fn way(from: Point, to: Point) -> (f64, f64) {
    (f64::from(to.x_mm - from.x_mm), f64::from(to.y_mm - from.y_mm))
}

/// An angle in rad as 65,536ths of a turn.
fn turn(angle_rad: f64) -> u16 {
    libm::round(angle_rad / AIM_UNIT_RAD) as i32 as u16
}
