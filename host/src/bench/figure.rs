//! The common shape of what benches measure: figures with a name, a unit, a limit of the same run where there is one, and what repeating showed of them. So
//! that reports of two commits can be compared.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Cost;

/// What a bench found out.
pub trait Told: Send {
    /// All of it.
    ///
    /// # Errors
    /// A value that JSON has no text for, which no figure is.
    fn json(&self) -> serde_json::Result<Value>;
    /// The figures as a table, for people.
    fn table(&self) -> String;
    /// Those figures that two commits are compared by.
    fn figures(&self) -> Vec<Figure>;
}

/// Which way a figure gets better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Less is better: time, memory.
    Less,
    /// More is better: events a second.
    More,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is of, the same in every report: parts separated by slashes.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// The value; the one in the middle, if it was measured more than once.
    pub value: f64,
    /// The least and the greatest value that repeating it in a run gave; twice the value if it was not repeated.
    pub range: (f64, f64),
    /// The same of the limit that was measured beside it, in the same unit; none if there is no such thing.
    #[serde(default)]
    pub limit: Option<f64>,
    /// Which way it gets better.
    pub better: Better,
}

impl Figure {
    /// A figure of which less is better, not repeated and without a limit.
    #[must_use]
    pub fn less(name: impl Into<String>, unit: &str, value: f64) -> Self {
        Self { name: name.into(), unit: unit.into(), value, range: (value, value), limit: None, better: Better::Less }
    }

    /// A figure of which more is better, not repeated and without a limit.
    #[must_use]
    pub fn more(name: impl Into<String>, unit: &str, value: f64) -> Self {
        Self { better: Better::More, ..Self::less(name, unit, value) }
    }

    /// What one of many takes: the value is the median. The best of them is how far the machine could do better in this run.
    #[must_use]
    pub fn cost(name: impl Into<String>, cost: Cost) -> Self {
        let Cost { min_ns, median_ns } = cost;
        // As far above as below: what is above is other programs, and has no end.
        let above = median_ns + (median_ns - min_ns).max(0.0);
        Self { range: (min_ns, above), ..Self::less(name, "ns", median_ns) }
    }

    /// With its limit from the same run.
    #[must_use]
    pub fn of_limit(self, limit: f64) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// With the least and the greatest of several measurements.
    #[must_use]
    pub fn within(self, range: (f64, f64)) -> Self {
        Self { range, ..self }
    }

    /// The figure over its limit.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        self.limit.filter(|limit| *limit > 0.0).map(|limit| self.value / limit)
    }

    /// What two commits are compared by: the ratio to the limit of the same run, which a machine that is busier or slower changes less than the value; else the
    /// value.
    #[must_use]
    pub fn compared(&self) -> f64 {
        self.ratio().unwrap_or(self.value)
    }

    /// Half of the range, as a part of the value: how far it is known.
    #[must_use]
    pub fn noise(&self) -> f64 {
        let (least, most) = self.range;
        if self.value == 0.0 { 0.0 } else { ((most - least) / 2.0 / self.value).abs() }
    }

    /// The same figure of several runs in one: the value in the middle, and a range that has all of theirs. None of none.
    #[must_use]
    pub fn merged(runs: &[&Self]) -> Option<Self> {
        let mut sorted: Vec<&Self> = runs.to_vec();
        sorted.sort_by(|a, b| a.compared().total_cmp(&b.compared()));
        let middle = *sorted.get(sorted.len() / 2)?;
        // As parts of the middle of what is compared, so that a machine that was slower in one run does not count as noise of the figure.
        let scale = |figure: &Self, value: f64| {
            if figure.compared() == 0.0 || figure.value == 0.0 {
                return value;
            }
            value / figure.value * figure.compared() / middle.compared().max(f64::MIN_POSITIVE) * middle.value
        };
        let least = sorted.iter().map(|figure| scale(figure, figure.range.0)).fold(f64::INFINITY, f64::min);
        let most = sorted.iter().map(|figure| scale(figure, figure.range.1)).fold(f64::NEG_INFINITY, f64::max);
        // Within a run the best and the middle; over runs their middles too.
        Some(Self { range: (least.min(middle.value), most.max(middle.value)), ..middle.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_compared_by_its_limit_if_there_is_one() {
        let plain = Figure::less("a/b", "ns", 120.0);
        assert_eq!((plain.ratio(), plain.compared(), plain.noise()), (None, 120.0, 0.0));
        let with = plain.clone().of_limit(100.0).within((114.0, 126.0));
        assert_eq!((with.ratio(), with.compared()), (Some(1.2), 1.2));
        assert!((with.noise() - 0.05).abs() < 1e-9);
        assert_eq!(plain.of_limit(0.0).ratio(), None);
        assert_eq!(Figure::less("zero", "", 0.0).within((0.0, 1.0)).noise(), 0.0);
        let cost = Figure::cost("c", Cost { min_ns: 90.0, median_ns: 100.0 });
        assert_eq!((cost.value, cost.range), (100.0, (90.0, 110.0)));
    }

    #[test]
    fn runs_on_a_machine_of_another_speed_are_as_good_as_their_ratios() {
        let run = |value, limit| Figure::less("x", "ns", value).of_limit(limit).within((value * 0.98, value * 1.02));
        let (slow, fast, other) = (run(200.0, 100.0), run(100.0, 50.0), run(110.0, 50.0));
        let merged = Figure::merged(&[&slow, &fast, &other]).unwrap();
        assert_eq!(merged.compared(), 2.0);
        // 2.0 and 2.2, each known to 2 %.
        assert!((merged.noise() - (2.2 * 1.02 - 2.0 * 0.98) / 2.0 / 2.0).abs() < 1e-9, "{merged:?}");
        assert_eq!(Figure::merged(&[]), None);
        let alone = Figure::less("y", "KiB", 7.0);
        assert_eq!(Figure::merged(&[&alone]), Some(alone));
    }
}
