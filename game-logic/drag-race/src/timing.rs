//! The clocks along the strip: when the front tyre crosses each beam, found between two substeps, and the time slip
//! made from that. It knows distances and times, not lights, cars or results.

use serde::{Deserialize, Serialize};

/// One foot, in m.
pub const FOOT_M: f64 = 0.3048;

/// One mile per hour, in m/s.
pub const MPH_MPS: f64 = 0.44704;

/// The beams, as distances of the front tyre from the staged position, in m. The first is one foot down the strip:
/// a tyre that has just lit the stage beam blocks it for about that long (the rollout), and the clock starts when the
/// beam is free. The speed traps are the 66 ft before the eighth and the quarter mile.
pub const BEAMS_M: [f64; 8] = [
    FOOT_M,
    60.0 * FOOT_M,
    330.0 * FOOT_M,
    594.0 * FOOT_M,
    660.0 * FOOT_M,
    1000.0 * FOOT_M,
    1254.0 * FOOT_M,
    1320.0 * FOOT_M,
];

/// Index in [`BEAMS_M`] of the beam whose release starts the clock.
pub const BEAM_START: usize = 0;
/// Index in [`BEAMS_M`] of the 60 ft beam.
pub const BEAM_60_FT: usize = 1;
/// Index in [`BEAMS_M`] of the 330 ft beam.
pub const BEAM_330_FT: usize = 2;
/// Index in [`BEAMS_M`] of the entry of the first speed trap.
pub const BEAM_594_FT: usize = 3;
/// Index in [`BEAMS_M`] of the eighth mile.
pub const BEAM_660_FT: usize = 4;
/// Index in [`BEAMS_M`] of the 1000 ft beam.
pub const BEAM_1000_FT: usize = 5;
/// Index in [`BEAMS_M`] of the entry of the second speed trap.
pub const BEAM_1254_FT: usize = 6;
/// Index in [`BEAMS_M`] of the finish line.
pub const BEAM_1320_FT: usize = 7;

/// Length of the race, from the staged position to the finish line, in m.
pub const DISTANCE_M: f64 = 402.336;

/// Length of a speed trap, in m.
const TRAP_M: f64 = 66.0 * FOOT_M;

/// When one lane's beams were crossed, in seconds since frame 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Crossed")]
pub struct Timing {
    crossed_s: [f64; BEAMS_M.len()],
    crossed: u8,
    /// Where the next beam is, in m; infinitely far when all are crossed. It follows from `crossed`, and is asked for five times in a tick: the table of beams lies
    /// in a page of memory of which a race needs nothing else, and finding that page takes 100 ns where there are hundreds of rooms.
    #[serde(skip_serializing)]
    next_beam_m: f64,
}

/// What is saved of it.
#[derive(Deserialize)]
#[serde(rename = "Timing")]
struct Crossed {
    crossed_s: [f64; BEAMS_M.len()],
    crossed: u8,
}

impl From<Crossed> for Timing {
    fn from(Crossed { crossed_s, crossed }: Crossed) -> Self {
        Self { crossed_s, crossed, next_beam_m: beam_m(crossed) }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Crossed { crossed_s: Default::default(), crossed: 0 }.into()
    }
}

/// Where the beam after so many is, in m.
fn beam_m(crossed: u8) -> f64 {
    BEAMS_M.get(usize::from(crossed)).copied().unwrap_or(f64::INFINITY)
}

impl Timing {
    /// Notes that the tyre went from `from_m` to `to_m` in the `dt_s` seconds after `start_s`. Crossings within are
    /// placed in proportion to the distance. Returns how many beams it crossed.
    pub fn note(&mut self, from_m: f64, to_m: f64, start_s: f64, dt_s: f64) -> u8 {
        let before = self.crossed;
        while let Some(beam_m) = BEAMS_M.get(self.crossed as usize).filter(|beam_m| to_m >= **beam_m) {
            let moved_m = to_m - from_m;
            let share = if moved_m > 0.0 { (beam_m - from_m) / moved_m } else { 1.0 };
            if let Some(time) = self.crossed_s.get_mut(self.crossed as usize) {
                *time = start_s + dt_s * share;
            }
            self.crossed += 1;
        }
        self.next_beam_m = beam_m(self.crossed);
        self.crossed - before
    }

    /// Where the next beam is, in m; infinitely far when all are crossed.
    #[inline]
    pub(crate) const fn next_beam_m(&self) -> f64 {
        self.next_beam_m
    }

    /// Number of beams crossed.
    pub fn crossed(&self) -> usize {
        self.crossed as usize
    }

    /// When the beam was crossed, in seconds since frame 0.
    pub fn at_s(&self, beam: usize) -> Option<f64> {
        self.crossed_s.get(beam).copied().filter(|_| beam < self.crossed())
    }

    /// Whether the tyre is over the finish line.
    pub fn finished(&self) -> bool {
        self.crossed() == BEAMS_M.len()
    }

    /// Elapsed time from the start beam to `beam`, in s.
    pub fn elapsed_s(&self, beam: usize) -> Option<f64> {
        Some(self.at_s(beam)? - self.at_s(BEAM_START)?)
    }

    /// Mean speed over the 66 ft before `beam`, in m/s.
    fn trap_mps(&self, beam: usize) -> Option<f64> {
        Some(TRAP_M / (self.at_s(beam)? - self.at_s(beam - 1)?))
    }

    /// The lane's slip so far; `green_s` is when the green lamp came on, in seconds since frame 0.
    pub fn slip(&self, green_s: Option<f64>) -> TimeSlip {
        let eighth_mps = self.trap_mps(BEAM_660_FT);
        let quarter_mps = self.trap_mps(BEAM_1320_FT);
        let time = |beam| self.elapsed_s(beam).map(tenths_of_ms);
        TimeSlip {
            reaction_s: self.at_s(BEAM_START).zip(green_s).map(|(start_s, green_s)| tenths_of_ms(start_s - green_s)),
            sixty_foot_s: time(BEAM_60_FT),
            three_thirty_foot_s: time(BEAM_330_FT),
            eighth_mile_s: time(BEAM_660_FT),
            eighth_mile_mps: eighth_mps.map(hundredths),
            eighth_mile_mph: eighth_mps.map(|mps| hundredths(mps / MPH_MPS)),
            thousand_foot_s: time(BEAM_1000_FT),
            quarter_mile_s: time(BEAM_1320_FT),
            quarter_mile_mps: quarter_mps.map(hundredths),
            quarter_mile_mph: quarter_mps.map(|mps| hundredths(mps / MPH_MPS)),
        }
    }
}

/// What the timing tower prints for a lane. Times in s, rounded to 0.1 ms; speeds to 0.01. A beam not reached is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TimeSlip {
    /// From the green lamp to the free start beam; negative for a red light.
    pub reaction_s: Option<f64>,
    /// To 60 ft.
    pub sixty_foot_s: Option<f64>,
    /// To 330 ft.
    pub three_thirty_foot_s: Option<f64>,
    /// To the eighth mile (660 ft).
    pub eighth_mile_s: Option<f64>,
    /// Mean speed over the 66 ft before the eighth mile, in m/s.
    pub eighth_mile_mps: Option<f64>,
    /// The same in mph.
    pub eighth_mile_mph: Option<f64>,
    /// To 1000 ft.
    pub thousand_foot_s: Option<f64>,
    /// To the quarter mile (1320 ft): the elapsed time.
    pub quarter_mile_s: Option<f64>,
    /// Mean speed over the last 66 ft, in m/s.
    pub quarter_mile_mps: Option<f64>,
    /// The same in mph.
    pub quarter_mile_mph: Option<f64>,
}

/// Rounds a time to the 0.1 ms that strip timers resolve.
pub fn tenths_of_ms(seconds: f64) -> f64 {
    libm::round(seconds * 1e4) / 1e4
}

fn hundredths(value: f64) -> f64 {
    libm::round(value * 100.0) / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A car at a steady speed must get exact times whatever the substep.
    #[test]
    fn crossings_are_placed_between_substeps() {
        let (speed_mps, dt_s) = (50.0, 0.02);
        let mut timing = Timing::default();
        for step in 0..500 {
            let from_s = f64::from(step) * dt_s;
            timing.note(speed_mps * from_s, speed_mps * (from_s + dt_s), from_s, dt_s);
        }
        assert!(timing.finished());
        for (beam, beam_m) in BEAMS_M.iter().enumerate() {
            assert!((timing.at_s(beam).unwrap() - beam_m / speed_mps).abs() < 1e-9, "{beam}");
        }
        let slip = timing.slip(Some(-0.5));
        assert_eq!(slip.quarter_mile_mps, Some(50.0));
        assert_eq!(slip.quarter_mile_mph, Some(111.85));
        assert_eq!(slip.reaction_s, Some(0.5061));
        assert_eq!(slip.quarter_mile_s, Some(tenths_of_ms(1319.0 * FOOT_M / 50.0)));
    }

    #[test]
    fn the_race_is_a_quarter_mile() {
        assert!((DISTANCE_M - BEAMS_M[BEAM_1320_FT]).abs() < 1e-9);
    }

    #[test]
    fn one_leap_over_all_beams_keeps_their_order() {
        let mut timing = Timing::default();
        assert_eq!(timing.note(0.0, 1000.0, 3.0, 1.0), 8);
        for beam in 1..BEAMS_M.len() {
            assert!(timing.at_s(beam) > timing.at_s(beam - 1));
        }
        assert_eq!(timing.note(1000.0, 1001.0, 4.0, 1.0), 0);
    }

    #[test]
    fn a_beam_not_reached_has_no_time() {
        let mut timing = Timing::default();
        timing.note(0.0, 20.0, 0.0, 1.0);
        let slip = timing.slip(Some(0.0));
        assert!(slip.sixty_foot_s.is_some() && slip.three_thirty_foot_s.is_none() && slip.quarter_mile_mph.is_none());
    }
}
