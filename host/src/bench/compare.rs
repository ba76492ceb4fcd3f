//! What moved between two reports of [`bench all`](super::all), by more than its noise.
//!
//! A figure with a limit is compared by its ratio to the limit, which was measured beside it: a machine that is slower today makes both slower. The noise of a
//! figure is half the range that repeating it gave, as a part of its value; a change counts if it is more than the noise of both reports together, and more
//! than [`NOISE_MIN`].

use std::fmt::Write as _;

use serde::Serialize;

use super::all::{Report, number};
use super::figure::{Better, Figure};
use super::percent;
use crate::budget::report::columns;

/// Changes below this are not told, however little a figure moved when it was repeated: where code and data lie in memory is worth as much.
pub const NOISE_MIN: f64 = 0.03;

/// A figure that moved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Moved {
    /// Its name.
    pub name: String,
    /// Its unit; of what is compared by ratio, `times its limit`.
    pub unit: String,
    /// In the old report.
    pub old: f64,
    /// In the new one.
    pub new: f64,
    /// The change as a part of the old one.
    pub change: f64,
    /// How much of a change would have been noise.
    pub noise: f64,
    /// Whether it got better.
    pub is_better: bool,
}

/// What moved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// Figures that got worse, the worst first, and then those that got better.
    pub moved: Vec<Moved>,
    /// How many moved by no more than their noise.
    pub steady: usize,
    /// Figures that only the old report has.
    pub gone: Vec<String>,
    /// Figures that only the new report has.
    pub new: Vec<String>,
    /// Why the two are hardly comparable; empty if nothing speaks against it.
    pub but: Vec<String>,
}

/// Compares two reports.
#[must_use]
pub fn compare(old: &Report, new: &Report) -> Compared {
    let figures = |report: &'_ Report| -> Vec<Figure> {
        report.benches.iter().flat_map(|bench| bench.figures.iter().cloned()).collect()
    };
    let (olds, news) = (figures(old), figures(new));
    let missing = |from: &[Figure], of: &[Figure]| -> Vec<String> {
        let is_missing = |figure: &&Figure| !of.iter().any(|other| other.name == figure.name);
        from.iter().filter(is_missing).map(|figure| figure.name.clone()).collect()
    };
    let (mut moved, mut steady) = (Vec::new(), 0);
    for new in &news {
        let Some(old) = olds.iter().find(|old| old.name == new.name && old.unit == new.unit) else { continue };
        match difference(old, new) {
            Some(difference) => moved.push(difference),
            None => steady += 1,
        }
    }
    moved.sort_by(|a: &Moved, b: &Moved| a.is_better.cmp(&b.is_better).then(b.change.abs().total_cmp(&a.change.abs())));
    Compared { moved, steady, gone: missing(&olds, &news), new: missing(&news, &olds), but: but(old, new) }
}

fn difference(old: &Figure, new: &Figure) -> Option<Moved> {
    // By ratio only if both have one.
    let by_ratio = old.ratio().zip(new.ratio());
    let (before, after) = by_ratio.unwrap_or((old.value, new.value));
    let change = if before == 0.0 { if after == 0.0 { 0.0 } else { 1.0 } } else { after / before - 1.0 };
    let noise = (old.noise() + new.noise()).max(NOISE_MIN);
    (change.abs() > noise).then(|| Moved {
        name: new.name.clone(),
        unit: if by_ratio.is_some() { "times its limit".into() } else { new.unit.clone() },
        old: before,
        new: after,
        change,
        noise,
        is_better: (change < 0.0) == (new.better == Better::Less),
    })
}

fn but(old: &Report, new: &Report) -> Vec<String> {
    let mut but = Vec::new();
    for (what, before, after) in [
        ("processor", &old.machine.processor, &new.machine.processor),
        ("system", &old.machine.system, &new.machine.system),
        ("build", &old.machine.build, &new.machine.build),
    ] {
        if before != after {
            but.push(format!("the {what} differs: {before:?} and {after:?}"));
        }
    }
    if old.machine.cores != new.machine.cores {
        but.push(format!("the number of cores differs: {} and {}", old.machine.cores, new.machine.cores));
    }
    if old.quick || new.quick {
        but.push("one of them was run with --quick: its figures say nothing".to_owned());
    }
    if old.times == 1 || new.times == 1 {
        but.push(
            "one of them ran each bench once: the noise of what has no repetition of its own is not known".to_owned(),
        );
    }
    but
}

impl Compared {
    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for reason in &self.but {
            let _infallible = writeln!(text, "Mind: {reason}.");
        }
        if !self.but.is_empty() {
            text.push('\n');
        }
        if self.moved.is_empty() {
            text.push_str("Nothing moved by more than its noise.\n");
        } else {
            let mut rows = vec![["", "figure", "old", "new", "unit", "change", "noise"].map(str::to_owned)];
            for moved in &self.moved {
                rows.push([
                    if moved.is_better { "better" } else { "WORSE" }.to_owned(),
                    moved.name.clone(),
                    number(moved.old),
                    number(moved.new),
                    moved.unit.clone(),
                    format!("{:+.1} %", moved.change * 100.0),
                    format!("+-{}", percent(moved.noise)),
                ]);
            }
            columns(&mut text, &rows);
        }
        let _ = writeln!(text, "\n{} figures moved, {} did not.", self.moved.len(), self.steady);
        for (what, names) in [("Only in the old report", &self.gone), ("Only in the new report", &self.new)] {
            if !names.is_empty() {
                let _ = writeln!(text, "{what}: {}.", names.join(", "));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::all::{FORMAT, Of};
    use crate::bench::machine::Machine;

    fn report(figures: Vec<Figure>) -> Report {
        let bench = Of { name: "x".into(), took_s: 1.0, figures, table: String::new(), last: serde_json::Value::Null };
        let machine = Machine::this();
        Report { format: FORMAT, begun: String::new(), machine, times: 3, quick: false, benches: vec![bench] }
    }

    #[test]
    fn only_what_moved_by_more_than_its_noise_is_told_and_the_worst_first() {
        let less = |name: &str, value: f64| Figure::less(name, "ns", value).within((value * 0.95, value * 1.05));
        let old = report(vec![
            less("steady", 100.0),
            less("worse", 100.0),
            less("much worse", 100.0),
            less("slower machine", 100.0).of_limit(50.0),
            Figure::more("rate", "1/s", 100.0),
            less("gone", 1.0),
        ]);
        let mut new = report(vec![
            less("steady", 109.0),
            less("worse", 112.0),
            less("much worse", 150.0),
            less("slower machine", 200.0).of_limit(100.0),
            Figure::more("rate", "1/s", 110.0),
            less("new", 1.0),
        ]);
        let compared = compare(&old, &new);
        let moved: Vec<_> = compared.moved.iter().map(|moved| (moved.name.as_str(), moved.is_better)).collect();
        assert_eq!(moved, [("much worse", false), ("worse", false), ("rate", true)]);
        assert_eq!(
            (compared.steady, &*compared.gone, &*compared.new),
            (2, &["gone".to_owned()][..], &["new".to_owned()][..])
        );
        assert!(compared.but.is_empty());
        let table = compared.table();
        for words in ["WORSE", "+50.0 %", "+-10.00 %", "3 figures moved, 2 did not", "Only in the old report: gone"] {
            assert!(table.contains(words), "{words}: {table}");
        }
        new.machine.processor = "other".into();
        new.quick = true;
        let but = compare(&old, &new).but;
        assert!(but.len() == 2 && but[0].contains("processor"), "{but:?}");
        let same = compare(&old, &old);
        assert!(same.moved.is_empty() && same.table().contains("Nothing moved"), "{}", same.table());
    }

    #[test]
    fn what_was_nothing_and_is_something_has_moved() {
        let zero = |value| Figure::less("inputs missing", "%", value);
        assert_eq!(difference(&zero(0.0), &zero(0.0)), None);
        let moved = difference(&zero(0.0), &zero(0.5)).unwrap();
        assert!(!moved.is_better && moved.change == 1.0);
    }
}
