//! Draws from ranges, from a seed: the spread of a frame's time when times and probabilities are ranges.
//!
//! A range of least, likely and greatest value is taken for a PERT distribution: the beta distribution of Malcolm, Roseboom, Clark and Fazar,
//! "Application of a Technique for Research and Development Program Evaluation" (Operations Research 7, 1959), with the mean (min + 4 likely + max) / 6
//! and, as is usual, the shapes 1 + 4 (likely - min) / (max - min) and 1 + 4 (max - likely) / (max - min). A beta variate is the share of one gamma variate in
//! the sum of two; gamma variates are drawn as in Marsaglia and Tsang, "A Simple Method for Generating Gamma Variables" (ACM TOMS 26, 2000).

use serde::Serialize;

use super::model::{Model, Range};
use crate::random::Random;

/// Frames that are drawn: the quantiles of interest then have an error of less than one percent of the spread.
pub const DRAWS: usize = 10_000;
/// The seed where none is given. It is printed, too.
pub const SEED: u64 = 64;

impl Random {
    /// A normal variate (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// A gamma variate of a shape of at least 1.
    fn gamma(&mut self, shape: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            // More than 95 of 100 are taken at the first try.
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.unit().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// A value of a range.
    pub(super) fn pert(&mut self, range: Range) -> f64 {
        let width = range.max - range.min;
        if width <= 0.0 {
            return range.likely;
        }
        let a = self.gamma(1.0 + 4.0 * ((range.likely - range.min) / width));
        let b = self.gamma(1.0 + 4.0 * ((range.max - range.likely) / width));
        range.min + width * (a / (a + b))
    }
}

/// How the time of a frame spreads.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The seed of the draws.
    pub seed: u64,
    /// Frames drawn.
    pub draws: usize,
    /// Their mean, in milliseconds.
    pub mean_ms: f64,
    /// One frame in twenty takes less, in milliseconds.
    pub p5_ms: f64,
    /// Half of the frames take less, in milliseconds.
    pub p50_ms: f64,
    /// One frame in twenty takes more, in milliseconds.
    pub p95_ms: f64,
    /// One frame in a hundred takes more, in milliseconds.
    pub p99_ms: f64,
}

/// Draws frames: each operation's T and P on their own.
#[must_use]
pub fn draw(model: &Model, seed: u64) -> Spread {
    let mut random = Random::new(seed);
    let mut frames: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let w = |operation: &super::model::Operation| {
                let work = &operation.work;
                work.factor() * random.pert(work.t) * random.pert(work.p) / work.unit.per_ms()
            };
            model.operations.iter().map(w).sum()
        })
        .collect();
    frames.sort_unstable_by(f64::total_cmp);
    Spread {
        seed,
        draws: DRAWS,
        mean_ms: frames.iter().sum::<f64>() / DRAWS as f64,
        p5_ms: quantile(&frames, 0.05),
        p50_ms: quantile(&frames, 0.5),
        p95_ms: quantile(&frames, 0.95),
        p99_ms: quantile(&frames, 0.99),
    }
}

/// The value that this share of sorted values does not exceed (nearest rank); 0 of none.
#[must_use]
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_mean_and_the_variance_of_the_distribution_and_stay_in_it() {
        for range in [
            Range { min: 1.0, likely: 2.0, max: 9.0 },
            Range { min: 0.0, likely: 0.0, max: 1.0 },
            Range { min: 0.0, likely: 1.0, max: 1.0 },
        ] {
            let mut random = Random::new(7);
            let drawn: Vec<f64> = (0..100_000).map(|_| random.pert(range)).collect();
            assert!(drawn.iter().all(|value| (range.min..=range.max).contains(value)));
            let mean = drawn.iter().sum::<f64>() / 1e5;
            let width = range.max - range.min;
            assert!((mean - range.mean()).abs() < 0.005 * width, "{mean} {range:?}");
            let variance = drawn.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 1e5;
            let expected = (range.mean() - range.min) * (range.max - range.mean()) / 7.0;
            assert!((variance / expected - 1.0).abs() < 0.03, "{variance} {expected} {range:?}");
        }
        assert_eq!(Random::new(1).pert(Range::exact(3.0)), 3.0);
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([0.0, 0.05, 0.5, 0.99, 1.0].map(|share| quantile(&values, share)), [1.0, 5.0, 50.0, 99.0, 100.0]);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
