//! The match as a state machine: who is there, moving, firing, hits, coming back, the clock. It moves on by one tick at a time and hands back who
//! brought whom down; how that reaches players is `rules.rs`, and who sees what is `view.rs`.

use serde::{Deserialize, Serialize};

use crate::fighter::{Fighter, HALF_MM, HEALTH_MAX, PROTECTED_MS, RESPAWN_MS};
use crate::grid::{Cell, Grid};
use crate::map::{Map, MapName, Point};
use crate::pickups::Pickups;
use crate::prng::Prng;
use crate::shots::{Flight, SHOTS_MAX, Shot, near};
use crate::snapshot::{Input, Leader};
use crate::weapon::{Weapon, toward};

/// Running, in mm/s.
pub const RUN_SPEED_MM_S: i32 = 6_000;

/// Where a shot begins, before the fighter's middle, in mm: within its body, so that no shot begins in a wall or behind who stands close.
const MUZZLE_MM: i32 = 300;

/// Places that are compared when somebody comes back: of so many drawn the one farthest from all others is taken.
const PLACES_DRAWN: u32 = 8;

/// Somebody brought somebody down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Frag {
    /// The slot of who fired.
    pub by: u8,
    /// The slot of who went down.
    pub of: u8,
    /// What with.
    pub weapon: Weapon,
}

/// A match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    tick_hz: u32,
    /// Ticks so far.
    frames: u32,
    /// Ticks of the whole match.
    frames_end: u32,
    map_name: MapName,
    map: Map,
    prng: Prng,
    fighters: Vec<Fighter>,
    shots: Vec<Shot>,
    /// The number of the next shot.
    shot_number: u16,
    pickups: Pickups,
}

impl World {
    /// A match of so many players, before frame 0. Nobody is there yet.
    #[must_use]
    pub fn new(seed: u64, tick_hz: u32, map_name: MapName, duration_s: u32, weapons: &[Weapon]) -> Self {
        let mut prng = Prng::new(seed);
        let map = Map::new(map_name, seed);
        let pickups = Pickups::new(&map, &mut prng);
        Self {
            tick_hz,
            frames: 0,
            frames_end: duration_s.saturating_mul(tick_hz),
            map_name,
            map,
            prng,
            fighters: weapons.iter().map(|weapon| Fighter::new(*weapon)).collect(),
            shots: Vec::new(),
            shot_number: 0,
            pickups,
        }
    }

    /// The map's name.
    #[must_use]
    pub fn map_name(&self) -> MapName {
        self.map_name
    }

    /// The map.
    #[must_use]
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// The fighters, by slot.
    #[must_use]
    pub fn fighters(&self) -> &[Fighter] {
        &self.fighters
    }

    /// The shots in the air, the oldest first.
    #[must_use]
    pub fn shots(&self) -> &[Shot] {
        &self.shots
    }

    /// What lies about.
    #[must_use]
    pub fn pickups(&self) -> &Pickups {
        &self.pickups
    }

    /// Ticks so far.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Whether the time is up.
    #[must_use]
    pub fn over(&self) -> bool {
        self.frames >= self.frames_end
    }

    /// Length of the whole match, in s.
    #[must_use]
    pub fn duration_s(&self) -> u32 {
        self.frames_end / self.hz()
    }

    /// Time in so many ticks, in ms.
    #[must_use]
    pub fn ms(&self, frames: u32) -> u32 {
        // At most 600 s at 128 Hz: far within 64 bits, and the result within 32.
        (u64::from(frames) * 1_000 / u64::from(self.hz())) as u32
    }

    /// Time until the end, in ms.
    #[must_use]
    pub fn left_ms(&self) -> u32 {
        self.ms(self.frames_end.saturating_sub(self.frames))
    }

    /// Time from now to a tick, in ms; 0 for one that is past.
    pub(crate) fn until_ms(&self, frame: u32) -> u16 {
        u16::try_from(self.ms(frame.saturating_sub(self.frames))).unwrap_or(u16::MAX)
    }

    /// Who is ahead: of several with as many frags the lowest slot; nobody while there are none.
    #[must_use]
    pub fn leader(&self) -> Option<Leader> {
        let mut leader = None;
        let mut most = 0;
        for (player, fighter) in (0..).zip(&self.fighters) {
            if fighter.frags > most {
                most = fighter.frags;
                leader = Some(Leader { player, frags: most });
            }
        }
        leader
    }

    /// Lets a player in, or back in with what it had scored. Nothing happens to one who is there.
    pub fn join(&mut self, player: u16) {
        if self.fighters.get(usize::from(player)).is_some_and(|fighter| !fighter.present) {
            self.come(usize::from(player));
        }
    }

    /// Takes a player out of the match; what it has scored stays, and so do its shots.
    pub fn leave(&mut self, player: u16) {
        if let Some(fighter) = self.fighters.get_mut(usize::from(player)) {
            fighter.present = false;
            fighter.health = 0;
            fighter.streak = 0;
        }
    }

    /// Takes a weapon into a player's hand.
    pub fn take(&mut self, player: u16, weapon: Weapon) {
        let now = self.frames;
        let takes = self.frames_in(Fighter::TAKE_MS);
        if let Some(fighter) = self.fighters.get_mut(usize::from(player))
            && fighter.weapon != weapon
        {
            fighter.weapon = weapon;
            fighter.ready_frame = fighter.ready_frame.max(now + takes);
        }
    }

    /// Moves on by one tick. `hands` gives a player's input, or nothing for one who gives none. `grid` and `frags` are filled: with the fighters who
    /// were up after they moved, and with who brought whom down, in order.
    pub(crate) fn tick(&mut self, hands: impl Fn(usize) -> Option<Input>, grid: &mut Grid, frags: &mut Vec<Frag>) {
        frags.clear();
        for player in 0..self.fighters.len() {
            let Some(fighter) = self.fighters.get(player).filter(|fighter| fighter.present) else { continue };
            if fighter.health == 0 {
                if fighter.respawn_frame <= self.frames {
                    self.come(player);
                }
            } else if let Some(input) = hands(player) {
                self.walk(player, input);
                if input.fire {
                    self.fire(player);
                }
            }
        }
        self.pickups.tick(self.frames, self.tick_hz, &mut self.fighters);
        grid.fill((0..).zip(&self.fighters).filter(|(_, it)| it.health > 0).map(|(slot, it)| (slot, Cell::of(it.at))));
        self.fly(grid, frags);
        self.frames = self.frames.saturating_add(1);
    }

    fn walk(&mut self, player: usize, input: Input) {
        let Some(fighter) = self.fighters.get_mut(player) else { return };
        let (x, y) = (i32::from(input.move_x), i32::from(input.move_y));
        let length = (x * x + y * y).unsigned_abs().isqrt() as i32;
        // Within the circle the stick says how fast; beyond it only where to.
        let full = length.max(127);
        let step_mm = RUN_SPEED_MM_S / self.tick_hz.clamp(1, 128) as i32;
        let way = Point { x_mm: x * step_mm / full, y_mm: y * step_mm / full };
        fighter.aim = input.aim;
        fighter.at = self.map.moved(fighter.at, way, HALF_MM);
    }

    fn fire(&mut self, player: usize) {
        let (now, hz) = (self.frames, self.hz());
        let Some(fighter) = self.fighters.get_mut(player) else { return };
        let figures = fighter.weapon.figures();
        if fighter.ready_frame > now || self.shots.len() + usize::from(figures.shots) > SHOTS_MAX {
            return;
        }
        let overdriven = fighter.overdrive_frame > now;
        let reload_ms = if overdriven { figures.reload_ms / 2 } else { figures.reload_ms };
        fighter.ready_frame = now + frames_in(reload_ms, hz);
        // Who fires wants no protection.
        fighter.protected_frame = now;
        fighter.shots += u32::from(figures.shots);
        let first_aim = fighter.aim.wrapping_sub(figures.spread * (figures.shots - 1) / 2);
        for shot in 0..figures.shots {
            let aim = first_aim.wrapping_add(figures.spread * shot);
            let muzzle = toward(aim, MUZZLE_MM);
            self.shots.push(Shot {
                number: self.shot_number,
                owner: player as u8,
                weapon: fighter.weapon,
                at: Point { x_mm: fighter.at.x_mm + muzzle.x_mm, y_mm: fighter.at.y_mm + muzzle.y_mm },
                way: toward(aim, figures.speed_mm_s / hz as i32),
                aim,
                end_frame: now + frames_in(figures.life_ms, hz),
            });
            self.shot_number = self.shot_number.wrapping_add(1);
        }
    }

    fn fly(&mut self, grid: &Grid, frags: &mut Vec<Frag>) {
        let (map, fighters, now) = (&self.map, &mut self.fighters, self.frames);
        let respawn_frames = frames_in(RESPAWN_MS, self.tick_hz.clamp(1, 128));
        self.shots.retain_mut(|shot| {
            let (owner, weapon) = (shot.owner, shot.weapon);
            let target = |player: u16| {
                let fighter = fighters.get(usize::from(player))?;
                // The grid is of before: who went down in this tick is not hit again.
                (fighter.health > 0 && player != u16::from(owner)).then_some(fighter.at)
            };
            match shot.fly(map, |from, to| near(grid, from, to), target) {
                Flight::On => shot.end_frame > now + 1,
                Flight::Wall => false,
                Flight::Hit(of) => {
                    hit(fighters, owner, of, weapon, now, respawn_frames, frags);
                    false
                }
            }
        });
    }

    /// Puts a fighter onto the map.
    fn come(&mut self, player: usize) {
        let now = self.frames;
        let protected_frames = self.frames_in(PROTECTED_MS);
        let at = self.place();
        let Some(fighter) = self.fighters.get_mut(player) else { return };
        fighter.present = true;
        fighter.health = HEALTH_MAX;
        fighter.at = at;
        fighter.protected_frame = now + protected_frames;
        fighter.ready_frame = now;
        fighter.overdrive_frame = now;
    }

    /// Of some free tiles drawn the one farthest from everybody.
    fn place(&mut self) -> Point {
        let free = self.map.free_tiles();
        let mut best = (-1, Point::default());
        for _ in 0..PLACES_DRAWN {
            let Some(at) = self.map.free_tile(self.prng.below(free)) else { continue };
            let up = self.fighters.iter().filter(|fighter| fighter.health > 0);
            let nearest = up.map(|fighter| fighter.at.distance_squared(at)).min().unwrap_or(i64::MAX);
            if nearest > best.0 {
                best = (nearest, at);
            }
        }
        best.1
    }

    /// Ticks per second, within what the boundary allows even if a damaged state says otherwise.
    fn hz(&self) -> u32 {
        self.tick_hz.clamp(1, 128)
    }

    /// Ticks in a time, rounded up.
    pub(crate) fn frames_in(&self, ms: u32) -> u32 {
        frames_in(ms, self.hz())
    }
}

/// Ticks in a time, rounded up.
pub(crate) fn frames_in(ms: u32, hz: u32) -> u32 {
    (ms * hz).div_ceil(1_000)
}

/// What a hit does.
fn hit(
    fighters: &mut [Fighter],
    owner: u8,
    of: u16,
    weapon: Weapon,
    now: u32,
    respawn_frames: u32,
    frags: &mut Vec<Frag>,
) {
    let Some(body) = fighters.get_mut(usize::from(of)) else { return };
    let damage = if body.protected_frame > now { 0 } else { weapon.figures().damage.min(body.health) };
    body.health -= damage;
    let down = body.health == 0;
    if down {
        body.deaths = body.deaths.saturating_add(1);
        body.streak = 0;
        body.respawn_frame = now + respawn_frames;
        frags.push(Frag { by: owner, of: of as u8, weapon });
    }
    let Some(shooter) = fighters.get_mut(usize::from(owner)) else { return };
    shooter.hits += 1;
    shooter.damage += u32::from(damage);
    if down {
        shooter.frags = shooter.frags.saturating_add(1);
        // Who has gone down or left meanwhile has no streak to go on with.
        if shooter.health > 0 {
            shooter.streak = shooter.streak.saturating_add(1);
            shooter.best_streak = shooter.best_streak.max(shooter.streak);
        }
    }
}
