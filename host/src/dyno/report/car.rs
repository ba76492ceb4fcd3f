//! A car's section of the report: the figures that a driver should know, the charts, the tables.

use drag_race::Car;
use maud::{Markup, html};

use super::ReportError;
use super::curves::{KW_PER_HP, peaks, torque_and_power, tractive_force};
use super::run::{run_over_time, used_rpm};
use crate::dyno::Sheet;
use crate::dyno::sheet::{Forgiving, KMH_PER_MPS, Limit, TopOfGear, ZeroTo};
use crate::page::chart::{ChartError, Ink};
use crate::page::parts::{anchor, area, dot, figure, grouped, heads, line, percent, signed, table};

/// Time between two rows of the table of a run, in ticks: at 50 Hz a row each 0.1 s.
const TRACE_STEP_TICKS: usize = 5;

/// The section. `class` is the name of the car's class.
pub(super) fn section(sheet: &Sheet, car: &Car, class: Option<&str>) -> Result<Markup, ReportError> {
    let id = anchor(&sheet.car.id);
    let broken = |chart| move |source: ChartError| ReportError::Chart { car: sheet.car.id.clone(), chart, source };
    let shifts_kmh: Vec<f64> = sheet.shift_table.iter().map(|shift| shift.kmh).collect();
    let power = torque_and_power(car, &format!("{id}-power"), used_rpm(sheet)).map_err(broken("torque and power"))?;
    let forces = tractive_force(car, &format!("{id}-force"), &shifts_kmh).map_err(broken("force at the wheels"))?;
    let run = run_over_time(sheet, &format!("{id}-run")).map_err(broken("best run"))?;
    Ok(html! {
        section.car id=(id) aria-labelledby={ (id) "-name" } {
            h2 id={ (id) "-name" } { (sheet.car.name) }
            p.layout {
                (sheet.car.year) ", " (sheet.car.layout) ". " (grouped(sheet.car.mass_kg)) " kg with driver, "
                (grouped(sheet.car.peak_power_kw)) " kW (" (grouped(sheet.car.peak_power_kw / KW_PER_HP)) " hp), "
                (grouped(sheet.car.peak_torque_nm)) " Nm. Id: " code { (sheet.car.id) } "."
            }
            (figures(sheet, class))
            (shares(sheet))
            div.pair {
                (power_figure(sheet, car, power))
                (force_figure(car, !shifts_kmh.is_empty(), forces))
            }
            div.pair {
                div { (run_figure(sheet, run)) (forgiving(sheet)) }
                div { (splits(sheet)) (shift_table(sheet)) (top_of_gear(sheet)) }
            }
            (proof(sheet))
            (trace(sheet))
            (sources(car))
            p.back { a href="#contents" { "Back to the contents" } }
        }
    })
}

/// The figures that stand out.
fn figures(sheet: &Sheet, class: Option<&str>) -> Markup {
    let zero =
        |zero: Option<ZeroTo>| zero.map_or("not reached".to_owned(), |zero| format!("{:.2} s", zero.with_rollout_s));
    let splits = &sheet.splits;
    html! {
        ul.figures {
            li { span { "Quarter mile" } b { (format!("{:.3} s", splits.quarter_mile_s)) } }
            li { span { "Trap speed" } b { (format!("{:.1} mph", splits.quarter_mile_mph)) } span { (format!("{:.1} km/h", splits.quarter_mile_kmh)) } }
            li { span { "60 ft" } b { (format!("{:.3} s", splits.sixty_foot_s)) } }
            li { span { "0 to 100 km/h" } b { (zero(sheet.zero_to_100_kmh)) } span { "after 1 ft" } }
            li { span { "0 to 60 mph" } b { (zero(sheet.zero_to_60_mph)) } span { "after 1 ft" } }
            li {
                span { "Launch at" }
                b { @match sheet.launch_rpm { Some(rpm) => { (grouped(rpm)) " rpm" } None => "no revs" } }
            }
            @if let Some(class) = class { li { span { "Class" } b { (class) } } }
            @if let Some(published) = &sheet.published {
                li {
                    span { "Published" }
                    b { (format!("{:.2} s", published.quarter_mile_s)) }
                    span { "dyno: " (signed(published.time_off_percent, 1)) " %" }
                }
            }
        }
    }
}

/// What limits for how long, as a bar with words.
fn shares(sheet: &Sheet) -> Markup {
    let limits = &sheet.limits;
    let parts = [
        ("grip", Ink::Grip, limits.grip_share),
        ("power", Ink::Power, limits.power_share),
        ("gearing", Ink::Gearing, limits.gearing_share),
    ];
    html! {
        div {
            div.shares aria-hidden="true" {
                @for (_, ink, share) in &parts {
                    i style=(format!("background:var(--{});flex:{:.4}", ink.variable(), share)) {}
                }
            }
            p.note {
                "Limited by "
                @for (index, (name, _, share)) in parts.iter().enumerate() {
                    @if index > 0 { ", " } (name) " " (percent(*share)) " %"
                }
                " of the time."
            }
        }
    }
}

fn power_figure(sheet: &Sheet, car: &Car, svg: String) -> Markup {
    let (torque, power) = peaks(car);
    let mut legend = vec![
        line(Ink::Blue, format!("torque: {} Nm at {} rpm", grouped(torque.value), grouped(torque.rpm))),
        line(Ink::Orange, format!("power: {} kW at {} rpm", grouped(power.value), grouped(power.rpm))),
    ];
    if let Some((low, high)) = used_rpm(sheet) {
        legend.push(area(Ink::Zone, format!("used after the first shift: {} to {} rpm", grouped(low), grouped(high))));
    }
    figure("", "Torque and power", "Full throttle, at the crankshaft.", &legend, svg)
}

fn force_figure(car: &Car, shifts: bool, svg: String) -> Markup {
    let TopOfGear { kmh: top_kmh, at_limiter, .. } = TopOfGear::of_car(car);
    let end = if at_limiter { "the limiter ends it" } else { "the force equals the resistance" };
    let note = format!("Full throttle, after the driveline's losses. It pulls up to {top_kmh:.0} km/h: {end}.");
    let mut legend: Vec<_> = vec![
        line(Ink::Gear(1), "each gear, by its number"),
        line(Ink::Bearable, "what the driven tyres bear"),
        line(Ink::Resistance, "road load: air and rolling"),
    ];
    if shifts {
        legend.push(dot(Ink::Text, "the best run shifts here"));
    }
    figure("", "Force at the wheels", &note, &legend, svg)
}

fn run_figure(sheet: &Sheet, svg: String) -> Markup {
    let note = format!(
        "From the launch; the clock starts {:.3} s later, one foot down the strip. Upright lines: changes of gear. Numbers in rings: the gear.",
        sheet.best.run.rollout_s
    );
    let legend = [
        line(Ink::Blue, "speed"),
        line(Ink::Dashed, "speed of the driven tyres' tread"),
        line(Ink::Purple, "engine speed"),
        dot(Ink::Purple, "shift points"),
    ];
    figure("run", "The best run", &note, &legend, svg)
}

fn splits(sheet: &Sheet) -> Markup {
    let splits = &sheet.splits;
    let row = |name: &str, time_s: f64, speed: Option<(f64, f64)>| {
        html! {
            tr {
                th scope="row" { (name) }
                td { (format!("{time_s:.3}")) }
                @match speed {
                    Some((mph, kmh)) => { td { (format!("{mph:.1}")) } td { (format!("{kmh:.1}")) } },
                    None => { td {} td {} },
                }
            }
        }
    };
    let zero = |name: &str, zero: Option<ZeroTo>| {
        html! {
            @if let Some(zero) = zero {
                tr { th scope="row" { (name) ", after 1 ft" } td { (format!("{:.2}", zero.with_rollout_s)) } td {} td {} }
                tr { th scope="row" { (name) ", from rest" } td { (format!("{:.2}", zero.from_rest_s)) } td {} td {} }
            }
        }
    };
    let body = html! {
        (row("60 ft", splits.sixty_foot_s, None))
        (row("330 ft", splits.three_thirty_foot_s, None))
        (row("1/8 mile", splits.eighth_mile_s, Some((splits.eighth_mile_mph, splits.eighth_mile_kmh))))
        (row("1000 ft", splits.thousand_foot_s, None))
        (row("1/4 mile", splits.quarter_mile_s, Some((splits.quarter_mile_mph, splits.quarter_mile_kmh))))
        (zero("0–100 km/h", sheet.zero_to_100_kmh))
        (zero("0–60 mph", sheet.zero_to_60_mph))
    };
    table("", "Along the strip", "Trap speeds are means over the last 66 ft.", heads(&["", "s", "mph", "km/h"]), body)
}

fn shift_table(sheet: &Sheet) -> Markup {
    if sheet.shift_table.is_empty() {
        return html! { p { "This car does not change gear over the quarter mile." } };
    }
    let body = html! {
        @for shift in &sheet.shift_table {
            tr {
                th scope="row" { (shift.from_gear) " → " (shift.to_gear) }
                td { (grouped(shift.rpm)) }
                td { (format!("{:.0}", shift.kmh)) }
                td { (format!("{:.2}", shift.time_s)) }
                td { (shift.tick) }
                td { @match shift.rpm_after { Some(rpm) => (grouped(rpm)), None => "–" } }
            }
        }
    };
    table(
        "",
        "When to shift",
        "Time from the launch.",
        heads(&["gears", "rpm", "km/h", "s", "tick", "rpm after"]),
        body,
    )
}

fn forgiving(sheet: &Sheet) -> Markup {
    let most_ms = sheet.forgiving.iter().filter_map(|row| row.penalty_ms).fold(1.0, f64::max);
    let cost = |row: &Forgiving| match (row.penalty_ms, row.limiter_in_gear) {
        (Some(ms), _) => html! {
            td { (format!("{ms:.1}")) }
            td.text { span.track { span.bar style=(format!("width:{:.1}%", 100.0 * (ms / most_ms).clamp(0.0, 1.0))) {} } }
        },
        (None, Some(gear)) => html! { td { "–" } td.text { "limiter in gear " (gear) } },
        (None, None) => html! { td { "–" } td.text { "no time" } },
    };
    let body = html! {
        @for row in &sheet.forgiving {
            @let way = if row.shift_off_rpm < 0 { "early" } else { "late" };
            tr { th scope="row" { (row.shift_off_rpm.unsigned_abs()) " rpm " (way) } (cost(row)) }
        }
    };
    table("", "What a bad shift costs", "All changes of gear moved by so much.", heads(&["shifts", "ms", ""]), body)
}

fn top_of_gear(sheet: &Sheet) -> Markup {
    let body = html! {
        @for top in &sheet.top_of_gear {
            tr {
                th scope="row" { (top.gear) }
                td { (format!("{:.0}", top.kmh)) }
                td { (format!("{:.0}", top.mph)) }
                td { (grouped(top.rpm)) }
                td.text { (if top.at_limiter { "limiter" } else { "resistance" }) }
                td.text { (if top.used { "yes" } else { "no" }) }
            }
        }
    };
    let head = html! {
        th.text scope="col" { "gear" } th scope="col" { "km/h" } th scope="col" { "mph" } th scope="col" { "rpm" }
        th.text scope="col" { "ended by" } th.text scope="col" { "used" }
    };
    table("", "Top of each gear", "", head, body)
}

/// What the neighbours of the best plan give.
fn proof(sheet: &Sheet) -> Markup {
    let optimum = &sheet.best.optimum;
    let body = html! {
        @for neighbour in &optimum.neighbours {
            tr {
                th scope="row" { (neighbour.change) }
                td { @match neighbour.costs_ms { Some(ms) => (signed(ms, 1)), None => "no time" } }
            }
        }
    };
    html! {
        details {
            summary {
                @if optimum.proven { "No small change of this plan helps" } @else { "The search ended before its proof" }
                " (" (optimum.neighbours.len()) " neighbours, " (grouped(sheet.best.evaluations as f64)) " runs)"
            }
            (table("", "Neighbours of the best plan", "What each change of one step costs.", heads(&["change", "ms"]), body))
        }
    }
}

/// The run as numbers: what a person who does not see the chart reads instead.
fn trace(sheet: &Sheet) -> Markup {
    let limit = |time_s: f64| {
        let phase = sheet.limits.phases.iter().find(|phase| time_s <= phase.to_s);
        match phase.or(sheet.limits.phases.last()).map(|phase| phase.by) {
            Some(Limit::Grip) => "grip",
            Some(Limit::Power) => "power",
            Some(Limit::Gearing) => "gearing",
            None => "–",
        }
    };
    let trace = &sheet.best.run.trace;
    let rows = trace.iter().skip(TRACE_STEP_TICKS - 1).step_by(TRACE_STEP_TICKS);
    let last = trace.last().filter(|_| !trace.len().is_multiple_of(TRACE_STEP_TICKS));
    let body = html! {
        @for sample in rows.chain(last) {
            tr {
                td { (format!("{:.2}", sample.time_s)) }
                td { (format!("{:.1}", sample.distance_m)) }
                td { (format!("{:.1}", f64::from(sample.speed_mps) * KMH_PER_MPS)) }
                td { (format!("{:.1}", f64::from(sample.tread_mps) * KMH_PER_MPS)) }
                td { (grouped(f64::from(sample.rpm))) }
                td { (sample.gear) @if sample.shifting { ", shifting" } }
                td { (format!("{:.0}", 100.0 * sample.throttle)) }
                td.text { (limit(sample.time_s)) }
            }
        }
    };
    let names = ["s", "m", "km/h", "tread, km/h", "rpm", "gear", "throttle, %"];
    let head = html! { @for name in names { th scope="col" { (name) } } th.text scope="col" { "limited by" } };
    html! {
        details {
            summary { "The best run in numbers" }
            (table("", &format!("The best run of {}", sheet.car.name), "From the launch.", head, body))
        }
    }
}

/// Where the car's figures come from.
fn sources(car: &Car) -> Markup {
    html! {
        @if !car.sources.is_empty() {
            details {
                summary { "Where its figures come from" }
                ul.sources {
                    @for source in car.sources.iter() {
                        li {
                            (source.fact) ": "
                            // Nothing else is made a link: a car file may hold any text.
                            @if ["https://", "http://"].iter().any(|scheme| source.url.starts_with(scheme)) {
                                a href=(source.url) { (source.name) }
                            } @else {
                                (source.name)
                            }
                            @if source.from_memory { " (from memory)" }
                        }
                    }
                }
            }
        }
    }
}
