//! The Christmas tree: its two programmes, when each lamp is lit, and the delay before it starts. It knows no cars.

use serde::{Deserialize, Serialize};

use crate::prng::Prng;

/// The tree's programme.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TreeKind {
    /// All three ambers at once, green 0.400 s later.
    Pro,
    /// The ambers one after the other, 0.500 s apart, green 0.500 s after the last.
    #[default]
    Sportsman,
}

/// Shortest time from the last car's staging to the first amber, in s. Strips set 0.6 to 1.1 s; with the variation
/// below nobody can start by counting.
const DELAY_MIN_S: f64 = 0.6;
/// What the seed may add to it, in s.
const DELAY_VARIATION_S: f64 = 0.8;

/// Time between the ambers, and from the last to green, on the sportsman tree, in s.
const SPORTSMAN_STEP_S: f64 = 0.5;
/// Time from the ambers to green on the pro tree, in s.
const PRO_STEP_S: f64 = 0.4;

/// The lamps that both lanes share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lamps {
    /// The three ambers from the top: bit 0, 1 and 2.
    pub ambers: u8,
    /// The green lamp.
    pub green: bool,
}

impl TreeKind {
    /// From the first amber to green, in s.
    pub fn green_after_s(self) -> f64 {
        match self {
            TreeKind::Pro => PRO_STEP_S,
            TreeKind::Sportsman => 3.0 * SPORTSMAN_STEP_S,
        }
    }

    /// The lamps `since_s` seconds after the first amber (negative before it). A lamp that is due within a nanosecond
    /// is lit: tick times are sums of fractions.
    pub fn lamps(self, since_s: f64) -> Lamps {
        let since_s = since_s + 1e-9;
        if since_s < 0.0 {
            return Lamps::default();
        }
        if since_s >= self.green_after_s() {
            return Lamps { ambers: 0, green: true };
        }
        let ambers = match self {
            TreeKind::Pro => 0b111,
            TreeKind::Sportsman if since_s < SPORTSMAN_STEP_S => 0b001,
            TreeKind::Sportsman if since_s < 2.0 * SPORTSMAN_STEP_S => 0b010,
            TreeKind::Sportsman => 0b100,
        };
        Lamps { ambers, green: false }
    }
}

/// The delay from the last car's staging to the first amber that `seed` gives, in s.
pub fn delay_s(seed: u64) -> f64 {
    // The seed goes through a generator of its own stream, so that a driver with the same seed learns nothing.
    DELAY_MIN_S + DELAY_VARIATION_S * Prng::new(seed ^ 0x7472_6565_6465_6c61).unit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sportsman_tree_counts_down() {
        let at = |ms: u32| TreeKind::Sportsman.lamps(f64::from(ms) / 1000.0);
        assert_eq!(TreeKind::Sportsman.lamps(-0.02), Lamps::default());
        let steps: Vec<(u8, bool)> =
            [0, 499, 500, 999, 1000, 1499, 1500].iter().map(|ms| (at(*ms).ambers, at(*ms).green)).collect();
        assert_eq!(steps, [(1, false), (1, false), (2, false), (2, false), (4, false), (4, false), (0, true)]);
    }

    #[test]
    fn the_pro_tree_flashes_once() {
        let at = |ms: u32| TreeKind::Pro.lamps(f64::from(ms) / 1000.0);
        assert_eq!((at(0).ambers, at(399).ambers, at(399).green, at(400).green), (7, 7, false, true));
    }

    #[test]
    fn the_delay_is_within_its_bounds_and_spread() {
        let delays: Vec<f64> = (0..200).map(delay_s).collect();
        assert!(delays.iter().all(|delay| (0.6..1.4).contains(delay)));
        assert!(delays.iter().any(|delay| *delay < 0.75) && delays.iter().any(|delay| *delay > 1.25));
    }
}
