//! Operations and the arithmetic of a frame: W = f(N) · T · P. Values are trusted here: [`super::file`] has checked them.

use serde::Serialize;

/// How an operation's time grows with the size of its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Complexity {
    /// Once, whatever the size.
    #[serde(rename = "constant")]
    Constant,
    /// A search in something sorted or in a tree.
    #[serde(rename = "log n")]
    Log,
    /// Once for each item.
    #[serde(rename = "n")]
    Linear,
    /// Sorting.
    #[serde(rename = "n log n")]
    LinearLog,
    /// Each item with each other.
    #[serde(rename = "n^2")]
    Square,
}

impl Complexity {
    /// Every one, in the order of their growth.
    pub const ALL: [Self; 5] = [Self::Constant, Self::Log, Self::Linear, Self::LinearLog, Self::Square];

    /// Its name in a model file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Log => "log n",
            Self::Linear => "n",
            Self::LinearLog => "n log n",
            Self::Square => "n^2",
        }
    }

    /// f(N): what stands in N's place. Logarithms are to the base 2, as in the source (log₂ 84 = 6.39), and 0 for one item or less.
    #[must_use]
    pub fn factor(self, n: f64) -> f64 {
        let log = if n > 1.0 { n.log2() } else { 0.0 };
        match self {
            Self::Constant => 1.0,
            Self::Log => log,
            Self::Linear => n,
            Self::LinearLog => n * log,
            Self::Square => n * n,
        }
    }
}

/// A figure that is not known exactly: the smallest, the most likely and the greatest value. All three are the same where it is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Range {
    /// The smallest value.
    pub min: f64,
    /// The most likely value.
    pub likely: f64,
    /// The greatest value.
    pub max: f64,
}

impl Range {
    /// A figure that is known.
    #[must_use]
    pub const fn exact(value: f64) -> Self {
        Self { min: value, likely: value, max: value }
    }

    /// Whether it is known.
    #[must_use]
    pub fn is_exact(self) -> bool {
        self.min >= self.max
    }

    /// Its mean, if it has the PERT distribution: (min + 4 likely + max) / 6 (see [`super::spread`]).
    #[must_use]
    pub fn mean(self) -> f64 {
        (self.min + 4.0 * self.likely + self.max) / 6.0
    }

    /// Each of its three values, changed in the same way.
    #[must_use]
    pub fn map(self, change: impl Fn(f64) -> f64) -> Self {
        Self { min: change(self.min), likely: change(self.likely), max: change(self.max) }
    }

    /// The product of two figures that are not below 0.
    #[must_use]
    pub fn times(self, other: Self) -> Self {
        Self { min: self.min * other.min, likely: self.likely * other.likely, max: self.max * other.max }
    }

    /// The sum of two figures.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { min: self.min + other.min, likely: self.likely + other.likely, max: self.max + other.max }
    }
}

/// A unit of time in a model file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
}

impl Unit {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Seconds, Self::Milliseconds, Self::Microseconds, Self::Nanoseconds];

    /// The field of a model file that has a time in this unit.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::Seconds => "t_s",
            Self::Milliseconds => "t_ms",
            Self::Microseconds => "t_us",
            Self::Nanoseconds => "t_ns",
        }
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
            Self::Nanoseconds => "ns",
        }
    }

    /// How many of it are a millisecond.
    #[must_use]
    pub const fn per_ms(self) -> f64 {
        match self {
            Self::Seconds => 1e-3,
            Self::Milliseconds => 1.0,
            Self::Microseconds => 1e3,
            Self::Nanoseconds => 1e6,
        }
    }
}

/// N: one number, or several whose product it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Size {
    /// One number.
    Number(f64),
    /// Named numbers, such as 64 players with 168 things each.
    Product(Vec<(String, f64)>),
}

impl Size {
    /// N.
    #[must_use]
    pub fn value(&self) -> f64 {
        match self {
            Self::Number(n) => *n,
            Self::Product(terms) => terms.iter().map(|(_, n)| n).product(),
        }
    }
}

/// What decides the time of an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// N, the size of its data.
    pub n: Size,
    /// T, the time for one item, in `unit`; not below 0.
    pub t: Range,
    /// The unit of T.
    pub unit: Unit,
    /// P, the probability that it happens in a frame, 0 to 1.
    pub p: Range,
    /// How the time grows with N.
    pub complexity: Complexity,
}

impl Work {
    /// W: its part of a frame, in milliseconds.
    #[must_use]
    pub fn w_ms(&self) -> Range {
        let factor = self.factor();
        self.t.times(self.p).map(|tp| factor * tp / self.unit.per_ms())
    }

    /// f(N).
    #[must_use]
    pub fn factor(&self) -> f64 {
        self.complexity.factor(self.n.value())
    }
}

/// One operation of the frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// What it is; no two of a model have the same name.
    pub name: String,
    /// Its figures.
    pub work: Work,
    /// What its author says about it.
    pub comment: Option<String>,
    /// Other figures for it, and why: the result is told with them, too.
    pub alternative: Option<(Work, Option<String>)>,
}

/// A frame, as the sum of operations.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// What it is a model of.
    pub name: String,
    /// Frames per second that are wanted.
    pub frames_per_second: f64,
    /// Cores of the machine.
    pub cores: u32,
    /// What its author says about it.
    pub comment: Option<String>,
    /// The operations.
    pub operations: Vec<Operation>,
}

impl Model {
    /// The time of a frame on one core, in milliseconds: the exact sums of the least, the likely and the greatest W.
    #[must_use]
    pub fn frame_ms(&self) -> Range {
        self.operations.iter().fold(Range::exact(0.0), |sum, operation| sum.plus(operation.work.w_ms()))
    }

    /// The same with the alternatives of all operations that have one; none if none has.
    #[must_use]
    pub fn alternative_frame_ms(&self) -> Option<Range> {
        self.operations.iter().any(|operation| operation.alternative.is_some()).then(|| {
            self.operations.iter().fold(Range::exact(0.0), |sum, operation| {
                let work = operation.alternative.as_ref().map_or(&operation.work, |(work, _)| work);
                sum.plus(work.w_ms())
            })
        })
    }

    /// Whether all of its figures are known exactly.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.operations.iter().all(|operation| operation.work.t.is_exact() && operation.work.p.is_exact())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(n: f64, complexity: Complexity, t: Range, unit: Unit, p: Range) -> Work {
        Work { n: Size::Number(n), t, unit, p, complexity }
    }

    #[test]
    fn what_is_not_linear_takes_the_place_of_n() {
        let factors = |n| Complexity::ALL.map(|complexity| complexity.factor(n));
        assert_eq!(factors(8.0), [1.0, 3.0, 8.0, 24.0, 64.0]);
        assert_eq!(factors(1.0), [1.0, 0.0, 1.0, 0.0, 1.0]);
        assert_eq!(factors(0.0), [1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(Complexity::Log.factor(0.5), 0.0, "never below nothing");
    }

    #[test]
    fn a_unit_changes_nothing_but_the_number() {
        let in_ms = |unit: Unit, t| work(4.0, Complexity::Linear, Range::exact(t), unit, Range::exact(0.5)).w_ms();
        for (unit, t) in Unit::ALL.into_iter().zip([0.002, 2.0, 2_000.0, 2_000_000.0]) {
            assert!((in_ms(unit, t).likely - 4.0).abs() < 1e-12, "{unit:?}");
        }
    }

    #[test]
    fn least_likely_and_greatest_are_summed_apart() {
        let t = Range { min: 1.0, likely: 2.0, max: 4.0 };
        let p = Range { min: 0.25, likely: 0.5, max: 1.0 };
        let product = Size::Product(vec![("a".into(), 2.0), ("b".into(), 3.0)]);
        let operation =
            |name: &str, work, alternative| Operation { name: name.into(), work, comment: None, alternative };
        let first = Work { n: product, ..work(0.0, Complexity::Linear, t, Unit::Milliseconds, p) };
        let second = work(9.0, Complexity::Constant, Range::exact(0.5), Unit::Milliseconds, Range::exact(1.0));
        let other = Work { p: Range::exact(0.0), ..first.clone() };
        let model = Model {
            name: "m".into(),
            frames_per_second: 50.0,
            cores: 1,
            comment: None,
            operations: vec![operation("1", first, Some((other, None))), operation("2", second, None)],
        };
        assert_eq!(model.frame_ms(), Range { min: 2.0, likely: 6.5, max: 24.5 });
        assert_eq!(model.alternative_frame_ms(), Some(Range::exact(0.5)));
        assert!(!model.is_exact());
    }
}
