//! The report of a load as one HTML file: figures, the account of inputs, and charts as SVG. It has no script and loads nothing. Pure: the same report and date give
//! the same bytes.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::Counts;
use super::observed::Quantiles;
use super::report::{Report, Sample};
use crate::budget::counts::PerFrame;
use crate::page::STYLE;
use crate::page::chart::{Axis, COLUMN_WIDTH_PX, ChartError, Ink, Room, drawn, line, plot, scale, whole};
use crate::page::parts::{Entry, figure, grouped, heads, line as entry, table};

/// Height of a chart, in pixels.
const HEIGHT_PX: u32 = 240;
/// Where a chart leaves room for text, in pixels.
const ROOM: Room = Room { left: 44, right: 14, top: 24, bottom: 38 };
/// Nines at which the chart of percentiles ends: 99.999 %.
const NINES_MAX: f64 = 5.0;

/// The whole report. `date` is the day on which it is made, as it shall be printed.
///
/// # Errors
/// If a chart cannot be drawn.
pub fn html(report: &Report, date: &str) -> Result<String, ChartError> {
    let charts = [percentiles(report)?, delays(report)?, lateness(report)?, players(report)?];
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content=(format!("holeshot {}", report.version));
                title { "Load report: " (report.rooms) " rooms of " (report.game) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (heading(report, date))
                nav id="contents" aria-label="Contents" {
                    ol {
                        li { a href="#verdict" { "Verdict" } }
                        li { a href="#seen" { "What players saw" } }
                        li { a href="#inputs" { "Inputs" } }
                        li { a href="#charts" { "Charts" } }
                        li { a href="#method" { "How it was measured" } }
                    }
                }
                main {
                    (verdict(report))
                    (seen(report))
                    (inputs(report))
                    section id="charts" {
                        h2 { "Charts" }
                        div.pair { @for chart in charts { (chart) } }
                    }
                    (method())
                }
                footer { p { "Made by " code { "holeshot load" } " " (report.version) " on " (date) "." } }
            }
        }
    };
    Ok(page.into_string())
}

fn heading(report: &Report, date: &str) -> Markup {
    html! {
        header {
            h1 { "Load report" }
            p.lead {
                (grouped(report.rooms as f64)) " rooms of " (report.players_per_room) " players of " (report.game) ", for "
                (grouped(report.seconds)) " s."
            }
            dl.facts {
                dt { "Host" } dd { (report.host) }
                dt { "Network" } dd { (report.network()) }
                dt { "Inputs" } dd { @if report.recorded { "those of a journal" } @else { "of programs that play" } }
                dt { "Opened" } dd {
                    @match report.ramp_rooms_per_s { Some(rooms) => { (rooms) " rooms in a second" }, None => "as fast as the host opened them" }
                }
                dt { "Seed" } dd { (report.seed) }
                dt { "Threads" } dd { (report.threads) " for datagrams" }
                dt { "Made" } dd { (date) ", holeshot " (report.version) @if !report.optimised { ", built without optimisation" } }
            }
        }
    }
}

fn verdict(report: &Report) -> Markup {
    html! {
        section id="verdict" {
            h2 { "Verdict" }
            @for words in report.verdict().lines() {
                @let is_bad = words.starts_with("NOT") || words.starts_with("WRONG");
                p class=(if is_bad { "bad" } else { "good" }) { (words) }
            }
        }
    }
}

fn seen(report: &Report) -> Markup {
    let Counts { snapshots, snapshots_missed, snapshots_late, games_started, games_over, .. } = report.players;
    let figures = [
        ("snapshots expected", snapshots.saturating_add(snapshots_missed)),
        ("received", snapshots),
        ("more than a tick late", snapshots_late),
        ("missed", snapshots_missed),
        ("games begun", games_started),
        ("games over", games_over),
        ("lost to the host", report.players.lost_up),
        ("lost from the host", report.players.lost_down),
    ];
    let rows = [
        ("between snapshots", &report.snapshot_gap_us),
        ("input to snapshot", &report.input_delay_us),
        ("the generator's own lateness", &report.send_late_us),
    ];
    let body = html! {
        @for (what, quantiles) in rows {
            @let Quantiles { count, p50, p90, p99, p999, max } = *quantiles;
            tr {
                th scope="row" { (what) }
                @for us in [p50, p90, p99, p999, max] { td { (format!("{:.2}", ms(us))) } }
                td { (grouped(count as f64)) }
            }
        }
    };
    html! {
        section id="seen" {
            h2 { "What players saw" }
            ul.figures { @for (what, count) in figures { li { span { (what) } b { (grouped(count as f64)) } } } }
            (table(
                "",
                "Times, ms",
                "An input counts from the moment at which it was due. A gap also counts for the snapshots that should have come in it.",
                heads(&["", "p50", "p90", "p99", "p99.9", "max", "values"]),
                body
            ))
            @if let Some(PerFrame { rooms, cpu_us: Some(cpu_us), lateness_p99_ms, .. }) = report.host_frame && rooms > 0.0 {
                p {
                    "The host took " (format!("{:.1}", cpu_us / rooms)) " µs of its shards' processor time for each tick of a room, and 99 of 100 of its steps came at most "
                    (format!("{lateness_p99_ms:.2}")) " ms late."
                }
            }
        }
    }
}

fn inputs(report: &Report) -> Markup {
    let body = html! {
        @for (what, count, why) in report.account_rows() {
            tr { th scope="row" { (what.trim()) } td { (grouped(count as f64)) } td.words { (why) } }
        }
    };
    let head = html! { th.text scope="col" { "inputs" } th scope="col" { "count" } th.text scope="col" { "known" } };
    let note = format!(
        "{} player-games were compared, {} not: their last snapshot was not seen, or their record did not come. Datagrams that the system dropped at full buffers: {} before \
         the host read them, {} before the players did.",
        grouped(report.inputs.games as f64),
        grouped(report.inputs.not_compared as f64),
        dropped(report.dropped.host),
        dropped(report.dropped.players)
    );
    fn dropped(datagrams: Option<u64>) -> String {
        datagrams.map_or_else(|| "an unknown number".to_owned(), |datagrams| grouped(datagrams as f64))
    }
    html! {
        section id="inputs" {
            h2 { "Inputs, by the counters of both sides" }
            (table("", "What became of them", &note, head, body))
        }
    }
}

fn method() -> Markup {
    html! {
        section id="method" {
            h2 { "How it was measured" }
            p {
                "Every player has a ticket, a WebSocket with the handshake, and sealed datagrams with its last eight inputs. An input is due in every tick of the player's own "
                "clock, and is sent then, whether a snapshot came or not."
            }
            p {
                "A generator that waits for its host measures only the moments in which the host is well (coordinated omission, Gil Tene). So the delay of an input counts from when it was "
                "due, each input counts once, and a gap of several ticks between snapshots is recorded for each snapshot that is missing in it."
            }
            p {
                "The bad network is in the generator, in both directions, from the seed. So it knows of each input whether any copy of it was handed to the system. The host's count "
                "of each player is in the room's record."
            }
        }
    }
}

const fn ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}

/// One line of a chart.
struct Series {
    name: &'static str,
    ink: Ink,
    points: Vec<(f64, f64)>,
}

/// A chart of some lines from 0 upwards.
fn chart(id: &str, title: &str, note: &str, x: &Axis<'_>, unit: &str, series: &[Series]) -> Result<Markup, ChartError> {
    let values = series.iter().flat_map(|series| series.points.iter().map(|(_, y)| *y));
    let (end, steps) = scale(values.fold(0.0, f64::max));
    let decimals = if end < 5.0 { 1 } else { 0 };
    let written = move |value: &f64| format!("{value:.decimals$}");
    let y = Axis { name: unit, ink: Ink::Text, from: 0.0, to: end, labels: steps + 1, format: &written };
    let names: Vec<&str> = series.iter().map(|series| series.name).collect();
    let desc = format!("{}: {}. The scale ends at {end} {unit}.", title, names.join(", "));
    let svg = drawn((COLUMN_WIDTH_PX, HEIGHT_PX), (id, title, &desc), |area| {
        let mut plot = plot(area, ROOM, x, &y)?;
        for series in series {
            line(&mut plot, series.points.iter().copied(), series.ink.line(20))?;
        }
        Ok(())
    })?;
    let legend: Vec<Entry> = series.iter().map(|series| entry(series.ink, series.name)).collect();
    Ok(figure("", title, note, &legend, svg))
}

/// Gaps and delays by percentile.
fn percentiles(report: &Report) -> Result<Markup, ChartError> {
    let nines = |part: f64| -(1.0 - part).log10();
    let points = |index: usize| {
        let curve = report.curves.get(index).map(|curve| curve.0.as_slice()).unwrap_or_default();
        curve.iter().map(|(part, us)| (nines(*part).min(NINES_MAX), ms(*us))).collect()
    };
    let percent = |value: &f64| match value.round() as i64 {
        0 => "0".to_owned(),
        1 => "90".to_owned(),
        2 => "99".to_owned(),
        nines => format!("99.{}", "9".repeat(usize::try_from(nines - 2).unwrap_or(0))),
    };
    let x = Axis { name: "percent of all", ink: Ink::Text, from: 0.0, to: NINES_MAX, labels: 6, format: &percent };
    let series = [
        Series { name: "between snapshots", ink: Ink::Blue, points: points(0) },
        Series { name: "input to snapshot", ink: Ink::Orange, points: points(1) },
        Series { name: "own lateness", ink: Ink::Purple, points: points(2) },
    ];
    chart("percentiles", "How many took how long", "So many percent of all took at most so long.", &x, "ms", &series)
}

/// What a line over the time is drawn of.
type OfSample<'a> = &'a dyn Fn(&Sample) -> f64;

/// A chart over the time.
fn over_time(
    report: &Report,
    id: &str,
    words: [&str; 2],
    unit: &str,
    series: &[(&'static str, Ink, OfSample<'_>)],
) -> Result<Markup, ChartError> {
    let x = Axis { name: "s", ink: Ink::Text, from: 0.0, to: report.seconds, labels: 6, format: &whole };
    let series: Vec<Series> = series
        .iter()
        .map(|(name, ink, value)| Series {
            name,
            ink: *ink,
            points: report.samples.iter().map(|sample| (sample.at_s, value(sample))).collect(),
        })
        .collect();
    let [title, note] = words;
    chart(id, title, note, &x, unit, &series)
}

fn delays(report: &Report) -> Result<Markup, ChartError> {
    over_time(
        report,
        "delays",
        ["Delays over the time", "Each point is what came since the one before."],
        "ms",
        &[
            ("input to snapshot, p50", Ink::Orange, &|sample| ms(sample.input_delay_us.p50)),
            ("p99", Ink::Bad, &|sample| ms(sample.input_delay_us.p99)),
            ("between snapshots, p99", Ink::Blue, &|sample| ms(sample.snapshot_gap_us.p99)),
        ],
    )
}

fn lateness(report: &Report) -> Result<Markup, ChartError> {
    over_time(
        report,
        "lateness",
        ["The generator's own lateness", "Where this is high, the other charts are the generator's fault."],
        "ms",
        &[
            ("p99", Ink::Purple, &|sample| ms(sample.send_late_us.p99)),
            ("p50", Ink::Blue, &|sample| ms(sample.send_late_us.p50)),
        ],
    )
}

fn players(report: &Report) -> Result<Markup, ChartError> {
    over_time(
        report,
        "players",
        ["Players, and what came to them", "Players in a game, and snapshots in a second, in hundreds."],
        "players, hundreds of snapshots/s",
        &[
            ("players", Ink::Power, &|sample| sample.players as f64),
            ("snapshots", Ink::Blue, &|sample| sample.snapshots_per_s / 100.0),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::good;
    use super::*;
    use crate::page::read;

    #[test]
    fn the_page_is_one_file_that_says_what_the_text_says() {
        let report = Report { game: "<script>alert(1)</script>".into(), ..good() };
        let page = html(&report, "2026-11-22").unwrap();
        assert!(!page.contains("<script") && !page.contains("http") && !page.contains("src="), "{page}");
        for words in ["Both sides agree", "&lt;script&gt;", "5 % lost, 40 ms ± 10 ms", "50.12", "2026-11-22"] {
            assert!(page.contains(words), "{words}");
        }
        assert_eq!(page.matches("<svg role=\"img\"").count(), 4);
        assert_eq!(page, html(&report, "2026-11-22").unwrap());
    }

    #[test]
    fn what_is_wrong_is_marked() {
        let mut report = good();
        report.inputs.unexplained = 1;
        let page = html(&report, "").unwrap();
        assert!(page.contains("<p class=\"bad\">WRONG: 1 inputs came"), "{page}");
        assert!(!html(&good(), "").unwrap().contains("<p class=\"bad\">"));
    }

    #[test]
    fn lines_are_where_the_values_are() {
        let mut report = good();
        for (at, sample) in report.samples.iter_mut().enumerate() {
            sample.send_late_us.p99 = at as u64 * 1_000;
        }
        let svg = lateness(&report).unwrap().into_string();
        let up = read::scale_up(&svg, "ink", ["2", "8"]);
        let found: Vec<i64> = read::lines(&svg, "purple").concat().iter().map(|(_, y)| up(*y).round() as i64).collect();
        assert_eq!(found, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_that_came_is_drawn_too() {
        let report = Report { samples: Vec::new(), seconds: 0.0, ..good() };
        assert!(html(&report, "").is_ok());
    }
}
