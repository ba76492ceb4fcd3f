//! The page: its head, what was run, the contents, the summary, and the sections in their order.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::car;
use super::together::{balance, classes, drivers};
use super::{Report, ReportError};
use crate::dyno::Sheet;
use crate::dyno::limits::{GRIP_SLIP_SHARE, POWER_SHARE};
use crate::page::STYLE;
use crate::page::parts::{anchor, grouped, percent, signed, table};

/// The whole report as one HTML file.
///
/// # Errors
/// If a sheet's car is not among the cars, or a chart cannot be drawn.
pub fn html(report: &Report) -> Result<String, ReportError> {
    let mut cars = Vec::new();
    for sheet in &report.findings.sheets {
        let id = &sheet.car.id;
        let car = report.cars.iter().find(|car| car.id == *id);
        let car = car.ok_or_else(|| ReportError::NoCar { id: id.clone(), cars: report.cars.len() })?;
        let class = report.findings.classes.of_car(id).map(|class| class.name.as_str());
        cars.push(car::section(sheet, car, class)?);
    }
    let findings = report.findings;
    let classes = classes(findings)?;
    let drivers = findings.drivers.as_ref().map(|found| drivers(findings, found)).transpose()?;
    let balance = findings.balance.as_ref().map(|proposals| balance(findings, proposals));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content=(format!("holeshot {}", report.version));
                title { "Dyno report: " (report.car_file) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (heading(report))
                (contents(report))
                main {
                    (classes)
                    (summary(report))
                    @if let Some(drivers) = &drivers { (drivers) }
                    @if let Some(balance) = &balance { (balance) }
                    @for car in &cars { (car) }
                    (method())
                }
                footer {
                    p { "Made by " code { "holeshot dyno" } " " (report.version) " on " (report.date) "." }
                }
            }
        }
    };
    Ok(page.into_string())
}

/// What was run.
fn heading(report: &Report) -> Markup {
    let module = &report.findings.module;
    html! {
        header {
            h1 { "Dyno report" }
            p.lead {
                "The quickest quarter mile of "
                @match report.findings.sheets.len() { 1 => "one car", cars => { (cars) " cars" } }
                ", found by running the rules module that will referee the race."
            }
            dl.facts {
                dt { "Cars" } dd { (report.car_file) }
                dt { "Rules" } dd { (module.name) " " (module.version) ", " (module.tick_hz) " ticks per second" }
                dt { "Module" } dd { code { (module.hash) } }
                @if let Some(drivers) = &report.findings.drivers {
                    dt { "Seed" } dd { (drivers.seed) ", for " (drivers.runs) " drivers of skill " (drivers.skill) " in each car" }
                }
                dt { "Made" } dd { (report.date) ", holeshot " (report.version) }
            }
        }
    }
}

fn contents(report: &Report) -> Markup {
    html! {
        nav id="contents" aria-label="Contents" {
            ol {
                li { a href="#classes" { "Class ladder" } }
                li { a href="#summary" { "All cars" } }
                @if report.findings.drivers.is_some() { li { a href="#drivers" { "In the hands of drivers" } } }
                @if report.findings.balance.is_some() { li { a href="#balance" { "Balance" } } }
                li {
                    "Car by car"
                    ol { @for sheet in &report.findings.sheets { li { a href={ "#" (anchor(&sheet.car.id)) } { (sheet.car.name) } } } }
                }
                li { a href="#method" { "How it was found" } }
            }
        }
    }
}

/// The cars, quickest first.
fn summary(report: &Report) -> Markup {
    let mut sheets: Vec<&Sheet> = report.findings.sheets.iter().collect();
    sheets.sort_by(|a, b| a.splits.quarter_mile_s.total_cmp(&b.splits.quarter_mile_s));
    let names = [
        "1/4 mile, s",
        "trap, mph",
        "trap, km/h",
        "60 ft, s",
        "0–100 km/h, s",
        "0–60 mph, s",
        "launch, rpm",
        "grip, %",
        "power, %",
        "gearing, %",
        "published, s",
        "off, %",
    ];
    let head = html! {
        th.text scope="col" { "car" }
        @for name in names { th scope="col" { (name) } }
    };
    let body = html! {
        @for sheet in sheets {
            @let splits = &sheet.splits;
            tr {
                th scope="row" { a href={ "#" (anchor(&sheet.car.id)) } { (sheet.car.name) } small { (sheet.car.layout) } }
                td { (format!("{:.3}", splits.quarter_mile_s)) }
                td { (format!("{:.1}", splits.quarter_mile_mph)) }
                td { (format!("{:.1}", splits.quarter_mile_kmh)) }
                td { (format!("{:.3}", splits.sixty_foot_s)) }
                @for zero in [sheet.zero_to_100_kmh, sheet.zero_to_60_mph] {
                    td { @match zero { Some(zero) => (format!("{:.2}", zero.with_rollout_s)), None => "–" } }
                }
                td { @match sheet.launch_rpm { Some(rpm) => (grouped(rpm)), None => "–" } }
                @for share in [sheet.limits.grip_share, sheet.limits.power_share, sheet.limits.gearing_share] {
                    td { (percent(share)) }
                }
                @match &sheet.published {
                    Some(published) => {
                        td { (format!("{:.2}", published.quarter_mile_s)) } td { (signed(published.time_off_percent, 1)) }
                    },
                    None => { td { "–" } td { "–" } },
                }
            }
        }
    };
    html! {
        section id="summary" {
            h2 { "All cars" }
            (table(
                "all",
                "Best runs, quickest first",
                "0–100 km/h and 0–60 mph after 1 ft of rollout, as magazines measure. Grip, power, gearing: the share of the time in which \
                 each limits.",
                head,
                body
            ))
        }
    }
}

/// What the words mean.
fn method() -> Markup {
    let slip = percent(GRIP_SLIP_SHARE);
    let power = percent(POWER_SHARE);
    html! {
        section id="method" {
            h2 { "How it was found" }
            p {
                "Each car ran alone in the rules module, tick by tick as in a race. A search changed the engine speed at the launch, the grip that the driver \
                 asks for and the tick of each change of gear until no change by one step was quicker."
            }
            p {
                "Clocks start as on a strip: when the front tyre leaves the start beam, one foot after the launch. What says “from rest” counts from the launch."
            }
            dl.facts {
                dt { "Grip" } dd { "limits while the driver holds the throttle back, or the tyres slip by " (slip) " % or more of the slip at which they pull hardest." }
                dt { "Gearing" } dd { "limits while a gear is changed, the engine is at its limiter, or it gives less than " (power) " % of its peak power." }
                dt { "Power" } dd { "limits at all other times." }
            }
        }
    }
}
