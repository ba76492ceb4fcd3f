//! The arena as a rules module: setup and manifest, inputs and actions in, snapshots, events and results out. What happens in the match is decided in
//! `world.rs`.

use holeshot_guest::{ChangeKind, InputStatus, Leaderboard, Manifest, Output, PlayerResult, Rules, Setup, Tick};
use serde::{Deserialize, Serialize};

use crate::fighter::Fighter;
use crate::grid::Grid;
use crate::map::{MapName, TILE_MM};
use crate::snapshot::{Input, Snapshot};
use crate::view::Views;
use crate::weapon::Weapon;
use crate::world::{Frag, World};

/// Length of a match where the options name none, in s.
pub const DURATION_DEFAULT_S: u32 = 120;
/// Shortest match, in s: long enough for one to be brought down and come back.
pub const DURATION_MIN_S: u32 = 5;
/// Longest match, in s: ten minutes.
pub const DURATION_MAX_S: u32 = 600;

/// Without input for this long a player stands still and does not fire, in ms: longer than a usual burst of lost datagrams.
const HANDS_OFF_AFTER_MS: u32 = 500;

/// The rules of the arena; its serialised form is the whole state of a room.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Arena {
    world: World,
    #[serde(skip)]
    scratch: Scratch,
}

/// What each tick begins anew. Kept for its memory alone, and so a part of no state.
#[derive(Clone, Debug, Default)]
struct Scratch {
    grid: Grid,
    frags: Vec<Frag>,
    views: Views,
}

/// A room's options.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    map: MapName,
    duration_s: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { map: MapName::default(), duration_s: DURATION_DEFAULT_S }
    }
}

/// What a player brings, and what an action says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    weapon: Option<Weapon>,
}

/// The event of the first tick: what a player needs to know of the place.
#[derive(Debug, Serialize)]
struct Ground {
    map: MapName,
    duration_s: u32,
    tile_mm: i32,
    /// From above, `#` for wall.
    rows: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Frags<'a> {
    frags: &'a [Frag],
}

/// What a player's result says beyond place and outcome.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResultData {
    /// The map's name.
    pub map: &'static str,
    /// Length of the match, in s.
    pub duration_s: u32,
    /// Player slots of the match.
    pub players: u16,
    /// What the leaderboard compares: the frags of a player who was there at the end. Left out otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<u16>,
    /// Others whom it brought down.
    pub frags: u16,
    /// Times that it went down.
    pub deaths: u16,
    /// The most frags between two deaths.
    pub best_streak: u16,
    /// Shots fired.
    pub shots: u32,
    /// Shots that hit somebody.
    pub hits: u32,
    /// Health that it took from others.
    pub damage: u32,
}

impl Arena {
    /// The match itself.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The results as a host takes them, by slot.
    pub fn results(&self) -> impl Iterator<Item = PlayerResult<ResultData>> + '_ {
        let fighters = self.world.fighters();
        let ranked = |fighter: &Fighter| (fighter.frags, core::cmp::Reverse(fighter.deaths));
        let there = move || fighters.iter().filter(|fighter| fighter.present);
        let first = there().map(ranked).max();
        let firsts = there().filter(|fighter| Some(ranked(fighter)) == first).count();
        (0..).zip(fighters).map(move |(player, fighter)| {
            let own = ranked(fighter);
            let outcome = match (fighter.present, Some(own) == first, firsts) {
                (false, _, _) => "left",
                (true, true, 1) => "won",
                (true, true, _) => "drawn",
                (true, false, _) => "lost",
            };
            let ahead = there().filter(|other| ranked(other) > own).count() as u16;
            PlayerResult {
                player,
                place: fighter.present.then_some(1 + ahead),
                outcome: outcome.to_string(),
                data: ResultData {
                    map: self.world.map_name().text(),
                    duration_s: self.world.duration_s(),
                    players: fighters.len() as u16,
                    score: fighter.present.then_some(fighter.frags),
                    frags: fighter.frags,
                    deaths: fighter.deaths,
                    best_streak: fighter.best_streak,
                    shots: fighter.shots,
                    hits: fighter.hits,
                    damage: fighter.damage,
                },
            }
        })
    }
}

impl Rules for Arena {
    type Input = Input;
    type Snapshot = Snapshot;

    fn manifest() -> Manifest {
        // Two bytes for the stick, up to three for the aim, one for the trigger.
        let mut manifest = Manifest::new("arena", env!("CARGO_PKG_VERSION"), 1..=64, 6);
        manifest.tick_hz = 50;
        manifest.countdown_steps = 3;
        manifest.countdown_step_ms = 1_000;
        // The match ends itself; this is for one that would not.
        manifest.frames_max = (DURATION_MAX_S + 5) * 50;
        manifest.leaderboards = vec![Leaderboard::highest("frags", "score").group_by(["map", "duration_s"])];
        manifest
    }

    fn new(setup: &Setup) -> Result<Self, String> {
        let options: Options = parse(&setup.options).map_err(|error| {
            format!(
                "the arena's options are not like {{\"map\": \"yard\", \"duration_s\": {DURATION_DEFAULT_S}}}: {error}"
            )
        })?;
        if !(DURATION_MIN_S..=DURATION_MAX_S).contains(&options.duration_s) {
            return Err(format!(
                "the arena's options: duration_s is {DURATION_MIN_S} to {DURATION_MAX_S}, not {}",
                options.duration_s
            ));
        }
        let mut weapons = Vec::with_capacity(setup.players.len());
        for (slot, player) in setup.players.iter().enumerate() {
            let choice: Choice = parse(&player.data)
                .map_err(|error| format!("player {slot}: the data is not like {{\"weapon\": \"rifle\"}}: {error}"))?;
            weapons.push(choice.weapon.unwrap_or_default());
        }
        let world = World::new(setup.seed, setup.tick_hz, options.map, options.duration_s, &weapons);
        Ok(Self { world, scratch: Scratch::default() })
    }

    fn tick(&mut self, tick: &Tick<'_, Input>, out: &mut Output<'_, Self>) {
        let Self { world, scratch: Scratch { grid, frags, views } } = self;
        if world.frames() == 0 {
            out.public_event(
                "arena",
                &Ground {
                    map: world.map_name(),
                    duration_s: world.duration_s(),
                    tile_mm: TILE_MM,
                    rows: world.map().text(),
                },
            );
        }
        for change in tick.changes {
            match change.kind {
                ChangeKind::Joined => world.join(change.player),
                ChangeKind::Left(_) => world.leave(change.player),
            }
        }
        for action in tick.actions {
            // What is no choice of a weapon means nothing here.
            if let Some(weapon) = parse::<Choice>(action.json).ok().and_then(|choice| choice.weapon) {
                world.take(action.player, weapon);
            }
        }
        let hands_off_frames = world.frames_in(HANDS_OFF_AFTER_MS);
        world.tick(
            |player| {
                let hands = tick.players.get(player)?;
                let held = hands.status != InputStatus::Absent && u32::from(hands.age_frames) <= hands_off_frames;
                held.then_some(hands.input)
            },
            grid,
            frags,
        );
        if !frags.is_empty() {
            out.public_event("frags", &Frags { frags });
        }
        views.begin(world);
        out.snapshot(views.of_all(world));
        for (player, fighter) in (0..).zip(world.fighters()) {
            if fighter.present
                && let Some(snapshot) = views.of_player(world, player)
            {
                out.snapshot_for(player, snapshot);
            }
        }
        if self.world.over() {
            out.finish(self.results());
        }
    }
}

/// A JSON object, or the default where there is no text.
fn parse<T: Default + for<'a> Deserialize<'a>>(text: &str) -> Result<T, String> {
    let text = text.trim();
    if text.is_empty() || text == "null" {
        return Ok(T::default());
    }
    // serde would take a list of the fields for the struct.
    if !text.starts_with('{') {
        return Err("it is not a JSON object".to_string());
    }
    serde_json::from_str(text).map_err(|error| error.to_string())
}
