//! What is shot with: the weapons and their figures, and directions.

use serde::{Deserialize, Serialize};

use crate::map::Point;

/// A weapon. Everybody has both; an action takes the other one into the hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weapon {
    /// One fast shot at a time, far.
    #[default]
    Rifle,
    /// Five slow ones in a fan, near.
    Scatter,
}

/// The figures of a weapon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Between two uses, in ms.
    pub reload_ms: u32,
    /// Health that one shot takes.
    pub damage: u8,
    /// Speed of a shot, in mm/s.
    pub speed_mm_s: i32,
    /// How long a shot flies at most, in ms.
    pub life_ms: u32,
    /// Shots per use.
    pub shots: u16,
    /// Angle between two of them, in 65,536ths of a turn.
    pub spread: u16,
}

impl Weapon {
    /// Its figures. A fighter has at most four shots of a rifle in the air, or five of a scatter gun: see [`crate::shots::SHOTS_MAX`].
    #[must_use]
    pub const fn figures(self) -> Figures {
        match self {
            Weapon::Rifle => {
                Figures { reload_ms: 250, damage: 25, speed_mm_s: 40_000, life_ms: 1_000, shots: 1, spread: 0 }
            }
            Weapon::Scatter => {
                Figures { reload_ms: 900, damage: 16, speed_mm_s: 30_000, life_ms: 400, shots: 5, spread: 728 }
            }
        }
    }

    /// The name as actions and events have it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Weapon::Rifle => "rifle",
            Weapon::Scatter => "scatter",
        }
    }
}

/// The point this far away in a direction: 0 is to the right, a quarter turn (16,384) downwards.
#[must_use]
pub fn toward(aim: u16, length_mm: i32) -> Point {
    let (sin, cos) = libm::sincos(f64::from(aim) * (core::f64::consts::TAU / 65_536.0));
    let length_mm = f64::from(length_mm);
    Point { x_mm: libm::round(cos * length_mm) as i32, y_mm: libm::round(sin * length_mm) as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_go_round() {
        let ways = [0, 16_384, 32_768, 49_152].map(|aim| toward(aim, 1_000));
        let expected = [(1_000, 0), (0, 1_000), (-1_000, 0), (0, -1_000)];
        assert_eq!(ways, expected.map(|(x_mm, y_mm)| Point { x_mm, y_mm }));
    }

    #[test]
    fn names_are_those_of_actions() {
        for weapon in [Weapon::Rifle, Weapon::Scatter] {
            assert_eq!(serde_json::to_value(weapon).unwrap(), weapon.text());
        }
    }
}
