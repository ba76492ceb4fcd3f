//! What `holeshot budget` prints: the table of a model, its frame time and frames per second, and the same over cores.

use std::fmt::Write as _;

use serde::Serialize;

use super::model::{Complexity, Model, Range, Size, Work};
use super::spread::{self, Spread};

/// A model worked out.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The model's name.
    pub model: String,
    /// Frames per second that are wanted.
    pub frames_per_second_wanted: f64,
    /// Cores of the machine.
    pub cores: u32,
    /// What its author says about it.
    pub comment: Option<String>,
    /// Its operations in its order.
    pub operations: Vec<Row>,
    /// The time of a frame on one core, in milliseconds.
    pub frame_ms: Range,
    /// Frames per second on one core; none if a frame takes no time. `min` is that of the slowest frame.
    pub frames_per_second: Option<Range>,
    /// How the time spreads; none if every figure is exact.
    pub spread: Option<Spread>,
    /// The same over cores.
    pub over_cores: Vec<OverCores>,
    /// The time of a frame with the alternatives, in milliseconds.
    pub alternative_frame_ms: Option<Range>,
}

/// One operation worked out.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// N.
    pub n: f64,
    /// The numbers whose product N is, if it is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub n_is: Vec<(String, f64)>,
    /// How the time grows with N.
    pub complexity: Complexity,
    /// f(N).
    pub factor: f64,
    /// T in milliseconds.
    pub t_ms: Range,
    /// P.
    pub p: Range,
    /// W in milliseconds.
    pub w_ms: Range,
    /// Its share of the frame, 0 to 1, by the likely values.
    pub share: f64,
    /// What its author says.
    pub comment: Option<String>,
    /// W with other figures, and why.
    pub alternative: Option<Alternative>,
}

/// An operation with other figures.
#[derive(Debug, Clone, Serialize)]
pub struct Alternative {
    /// P with them.
    pub p: Range,
    /// W with them, in milliseconds.
    pub w_ms: Range,
    /// Why they are there.
    pub comment: Option<String>,
}

/// A frame on several cores, if its work could be shared out evenly.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct OverCores {
    /// Cores.
    pub cores: u32,
    /// The time of a frame in milliseconds.
    pub frame_ms: Range,
    /// Frames per second; none if a frame takes no time.
    pub frames_per_second: Option<Range>,
    /// Whether the frames per second that are wanted are reached, by the likely value.
    pub enough: bool,
}

impl Report {
    /// Works a model out. The seed decides the draws, if there are ranges.
    #[must_use]
    pub fn of(model: &Model, seed: u64) -> Self {
        let frame_ms = model.frame_ms();
        let row = |operation: &super::model::Operation| {
            let work = &operation.work;
            let w_ms = work.w_ms();
            let n_is = match &work.n {
                Size::Number(_) => Vec::new(),
                Size::Product(terms) => terms.clone(),
            };
            Row {
                name: operation.name.clone(),
                n: work.n.value(),
                n_is,
                complexity: work.complexity,
                factor: work.factor(),
                t_ms: work.t.map(|t| t / work.unit.per_ms()),
                p: work.p,
                w_ms,
                share: if frame_ms.likely > 0.0 { w_ms.likely / frame_ms.likely } else { 0.0 },
                comment: operation.comment.clone(),
                alternative: operation.alternative.as_ref().map(|(work, comment): &(Work, _)| Alternative {
                    p: work.p,
                    w_ms: work.w_ms(),
                    comment: comment.clone(),
                }),
            }
        };
        let over = |cores: u32| {
            let frame_ms = frame_ms.map(|ms| ms / f64::from(cores));
            OverCores {
                cores,
                frame_ms,
                frames_per_second: per_second(frame_ms),
                enough: frame_ms.likely * model.frames_per_second <= 1_000.0,
            }
        };
        Self {
            model: model.name.clone(),
            frames_per_second_wanted: model.frames_per_second,
            cores: model.cores,
            comment: model.comment.clone(),
            operations: model.operations.iter().map(row).collect(),
            frame_ms,
            frames_per_second: per_second(frame_ms),
            spread: (!model.is_exact()).then(|| spread::draw(model, seed)),
            over_cores: core_counts(model.cores).into_iter().map(over).collect(),
            alternative_frame_ms: model.alternative_frame_ms(),
        }
    }

    /// As a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Milliseconds with two decimals, as in the source; a host's operations are a thousand times smaller.
        let unit = if self.frame_ms.likely < 1.0 { (1e3, "us") } else { (1.0, "ms") };
        let ranged = self.spread.is_some();
        let header = ["operation", "N", "grows with", "f(N)", "T", "P", "W", "share"];
        let mut rows = vec![header.map(str::to_owned)];
        let w_head = format!("W {}", unit.1);
        if let Some([.., w, _]) = rows.first_mut() {
            *w = w_head;
        }
        for row in &self.operations {
            rows.push([
                row.name.clone(),
                plain(row.n),
                row.complexity.as_str().to_owned(),
                format!("{:.2}", row.factor),
                time(row.t_ms),
                percent(row.p),
                figures(row.w_ms, unit.0),
                format!("{:.1} %", row.share * 100.0),
            ]);
        }
        let sum = ["the frame", "", "", "", "", "", &figures(self.frame_ms, unit.0), "100.0 %"].map(str::to_owned);
        rows.push(sum);
        let _ = writeln!(text, "{}", self.model);
        columns(&mut text, &rows);
        if ranged {
            let _ = writeln!(text, "\nT, P and W: least .. likely .. greatest; the sums of each are exact.");
        }
        if let Some(Spread { seed, draws, mean_ms, p5_ms, p50_ms, p95_ms, p99_ms }) = self.spread {
            let [mean, p5, p50, p95, p99] =
                [mean_ms, p5_ms, p50_ms, p95_ms, p99_ms].map(|ms| format!("{:.2}", ms * unit.0));
            let _ = writeln!(
                text,
                "{draws} frames drawn from PERT distributions (seed {seed}), in {}: mean {mean}, p5 {p5}, p50 {p50}, p95 {p95}, p99 {p99}",
                unit.1
            );
        }
        let mut rows = vec![["cores".to_owned(), format!("frame {}", unit.1), "frames/s".to_owned(), String::new()]];
        for over in &self.over_cores {
            let wanted = if over.enough { "enough for" } else { "too few for" };
            rows.push([
                over.cores.to_string(),
                figures(over.frame_ms, unit.0),
                over.frames_per_second.map_or_else(|| "any".to_owned(), |fps| figures(fps, 1.0)),
                format!("{wanted} {}", plain(self.frames_per_second_wanted)),
            ]);
        }
        let _ = writeln!(text);
        columns(&mut text, &rows);
        let _ = writeln!(text, "\nMore cores: as in the source, the frame divided by their number.");
        self.alternatives(&mut text, unit);
        if let Some(comment) = &self.comment {
            let _ = writeln!(text, "\n{comment}");
        }
        text
    }

    fn alternatives(&self, text: &mut String, (per_ms, unit): (f64, &str)) {
        let Some(frame_ms) = self.alternative_frame_ms else { return };
        let _ = writeln!(text);
        for row in &self.operations {
            let Some(Alternative { p, w_ms, comment }) = &row.alternative else { continue };
            let why = comment.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            let _ = writeln!(
                text,
                "Otherwise{why}: \"{}\" with P {} takes {} {unit} and not {}.",
                row.name,
                percent(*p),
                figures(*w_ms, per_ms),
                figures(row.w_ms, per_ms)
            );
        }
        let fps = per_second(frame_ms).map(|fps| format!(", {} frames/s", figures(fps, 1.0))).unwrap_or_default();
        let _ = writeln!(text, "The frame is {} {unit} then{fps}.", figures(frame_ms, per_ms));
    }
}

/// The frames per second of a frame time: the shortest frame gives the most.
fn per_second(frame_ms: Range) -> Option<Range> {
    (frame_ms.min > 0.0).then(|| Range {
        min: 1_000.0 / frame_ms.max,
        likely: 1_000.0 / frame_ms.likely,
        max: 1_000.0 / frame_ms.min,
    })
}

/// 1, 2, 4, 8 and so on to the machine's own number, and that.
fn core_counts(cores: u32) -> Vec<u32> {
    let most = cores.max(8);
    let mut counts: Vec<u32> = (0..u32::BITS).map(|bit| 1 << bit).take_while(|count| *count <= most).collect();
    counts.push(cores);
    counts.sort_unstable();
    counts.dedup();
    counts
}

/// Rows in columns: the first to the left, the others to the right.
pub(crate) fn columns<const N: usize>(text: &mut String, rows: &[[String; N]]) {
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    });
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let _ = if column == 0 { write!(line, "{cell:<width$}") } else { write!(line, "  {cell:>width$}") };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

fn figures(range: Range, factor: f64) -> String {
    let Range { min, likely, max } = range.map(|value| value * factor);
    if range.is_exact() { format!("{likely:.2}") } else { format!("{min:.2} .. {likely:.2} .. {max:.2}") }
}

/// A number with at most four decimals.
fn plain(number: f64) -> String {
    let text = format!("{number:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn percent(p: Range) -> String {
    let part = |p: f64| plain(p * 100.0);
    let Range { min, likely, max } = p;
    if p.is_exact() {
        format!("{} %", part(likely))
    } else {
        format!("{} .. {} .. {} %", part(min), part(likely), part(max))
    }
}

/// A time in the unit that suits its likely value.
fn time(t_ms: Range) -> String {
    let (factor, unit) = match t_ms.likely {
        ms if ms >= 0.1 => (1.0, "ms"),
        ms if ms >= 0.001 => (1e3, "us"),
        _ => (1e6, "ns"),
    };
    let part = |ms: f64| {
        let value = ms * factor;
        if value >= 100.0 { format!("{value:.0}") } else { plain((value * 100.0).round() / 100.0) }
    };
    let Range { min, likely, max } = t_ms;
    if t_ms.is_exact() {
        format!("{} {unit}", part(likely))
    } else {
        format!("{} .. {} .. {} {unit}", part(min), part(likely), part(max))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{example, file, spread};
    use super::*;

    #[test]
    fn the_shooters_table_has_both_results() {
        let report = Report::of(&example::shooter().unwrap(), spread::SEED);
        let table = report.table();
        for words in [
            "266.29",
            "66.57",
            "33.29",
            "6.39",
            "13.39",
            "takes 0.84 ms and not 42.00",
            "225.13 ms then, 4.44 frames/s",
            "enough for 30",
        ] {
            assert!(table.contains(words), "{words}\n{table}");
        }
        assert!(report.spread.is_none() && !table.contains("seed"), "nothing is drawn where nothing is a guess");
        let cores: Vec<_> = report.over_cores.iter().map(|over| (over.cores, over.enough)).collect();
        assert_eq!(cores, [(1, false), (2, false), (4, false), (8, true)]);
        let shares: f64 = report.operations.iter().map(|row| row.share).sum();
        assert!((shares - 1.0).abs() < 1e-9);
    }

    #[test]
    fn ranges_give_a_range_and_a_seed_the_same_bytes() {
        let text = example::SHOOTER_TOML.replacen("t_ms = 10", "t_ms = { min = 5, likely = 10, max = 30 }", 1);
        let model = file::parse("m", &text).unwrap();
        let report = Report::of(&model, 1);
        let Range { min, likely, max } = report.frame_ms;
        assert_eq!([min, likely, max].map(|ms| format!("{ms:.2}")), ["263.09", "266.29", "279.09"]);
        let spread = report.spread.unwrap();
        assert!(min < spread.p5_ms && spread.p5_ms < spread.p50_ms && spread.p50_ms < spread.p95_ms);
        assert!(spread.p95_ms < spread.p99_ms && spread.p99_ms < max);
        let mean = (min + 4.0 * likely + max) / 6.0;
        assert!((spread.mean_ms - mean).abs() < 0.1, "{spread:?} {mean}");
        assert_eq!(Report::of(&model, 1).table(), report.table());
        assert_ne!(Report::of(&model, 2).table(), report.table());
        let fps = report.frames_per_second.unwrap();
        assert!(fps.min < fps.likely && fps.likely < fps.max);
    }

    #[test]
    fn a_frame_that_takes_no_time_has_no_rate() {
        let text = "[model]\nname = \"m\"\ncores = 6\n[[operation]]\nname = \"o\"\nn = 0\nt_ms = 1\np = 1\n";
        let report = Report::of(&file::parse("m", text).unwrap(), 1);
        assert!(report.frames_per_second.is_none() && report.table().contains("any"));
        let cores: Vec<_> = report.over_cores.iter().map(|over| over.cores).collect();
        assert_eq!(cores, [1, 2, 4, 6, 8]);
    }
}
