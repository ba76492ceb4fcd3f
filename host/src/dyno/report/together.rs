//! What is told of the cars together: the class ladder, what drivers make of each class, and what would put cars in their places.

use maud::{Markup, html};

use super::ReportError;
use super::ladder::{Band, Page, Rung, ladder};
use super::spreads::{Spread, spreads};
use super::wins::wins;
use crate::dyno::balance::Candidate;
use crate::dyno::classes::{OUT_OF_PLACE_S, TOLERANCE_S};
use crate::dyno::drivers::{EVEN_SHARE_MAX, Quantiles, WinTable};
use crate::dyno::{Classes, Drivers, Findings, Method, Proposal};
use crate::page::chart::{ChartError, Ink};
use crate::page::parts::{anchor, area, diamond, dot, figure, heads, line, percent, signed, table};

/// A car's name by its id; the id where no sheet tells of it.
pub(super) fn name<'a>(findings: &'a Findings, car_id: &'a str) -> &'a str {
    let sheet = findings.sheets.iter().find(|sheet| sheet.car.id == car_id);
    sheet.map_or(car_id, |sheet| sheet.car.name.as_str())
}

fn broken(car: &str, chart: &'static str) -> impl FnOnce(ChartError) -> ReportError {
    let car = car.to_owned();
    move |source| ReportError::Chart { car, chart, source }
}

/// The classes: a ladder, and the same as a table.
pub(super) fn classes(findings: &Findings) -> Result<Markup, ReportError> {
    let classes = &findings.classes;
    let bands = bands(findings, classes);
    let wide = ladder(&bands, Page::Wide, "ladder-wide").map_err(broken("all cars", "class ladder"))?;
    let narrow = ladder(&bands, Page::Narrow, "ladder-narrow").map_err(broken("all cars", "class ladder"))?;
    let note = match classes.method {
        Method::Index => format!(
            "Index classes, each half second, by the published time rounded up; a car without one by its best time. Nobody may beat the index. \
             Out of place: beyond the class's half second by more than {TOLERANCE_S} s."
        ),
        Method::Natural => format!(
            "Natural classes, parted where the sum of squares within them is least; the target is the mean. Out of place: more than \
             {OUT_OF_PLACE_S} s off the target."
        ),
    };
    let legend = || {
        [
            dot(Ink::Blue, "a car's best time"),
            diamond(Ink::Bad, "out of place"),
            line(Ink::Moment, "the class's target"),
        ]
    };
    let body = html! {
        @for class in &classes.classes {
            @for (index, member) in class.members.iter().enumerate() {
                tr {
                    th scope="row" { a href={ "#" (anchor(&member.car_id)) } { (name(findings, &member.car_id)) } }
                    td { @if index == 0 { (class.name) } @else { span.soft { (class.name) } } }
                    td { (format!("{:.2}", class.target_s)) }
                    td { (format!("{:.3}", member.quarter_mile_s)) }
                    td { (signed(member.off_s, 3)) }
                    td.text { @if member.out_of_place { span.bad { "out of place" } } @else { "in its class" } }
                }
            }
        }
    };
    let head = html! {
        (heads(&["car", "class", "target, s", "1/4 mile, s", "off, s"]))
        th.text scope="col" { "place" }
    };
    Ok(html! {
        section id="classes" {
            h2 { "Class ladder" }
            (figure("wide", "Cars against their time", &note, &legend(), wide))
            (figure("narrow", "Cars against their time", &note, &legend(), narrow))
            details {
                summary { "The ladder in numbers" }
                (table("", "Cars by class", "", head, body))
            }
        }
    })
}

fn bands<'a>(findings: &'a Findings, classes: &'a Classes) -> Vec<Band<'a>> {
    let classes = classes.classes.iter().map(|class| Band {
        name: &class.name,
        target_s: class.target_s,
        rungs: class
            .members
            .iter()
            .map(|member| Rung {
                name: name(findings, &member.car_id),
                time_s: member.quarter_mile_s,
                off_s: member.off_s,
                out_of_place: member.out_of_place,
            })
            .collect(),
    });
    classes.collect()
}

/// What drivers make of the cars: each class with more than one car by itself, the cars that are alone together.
pub(super) fn drivers(findings: &Findings, drivers: &Drivers) -> Result<Markup, ReportError> {
    let tables = &drivers.win_tables;
    let classes = tables.iter().enumerate().filter(|(_, wins)| wins.car_ids.len() > 1);
    let classes = classes.map(|(index, wins)| class(findings, drivers, wins, index)).collect::<Result<Vec<_>, _>>()?;
    let alone = tables.iter().filter(|wins| wins.car_ids.len() == 1);
    let alone: Vec<_> = alone.flat_map(|wins| wins.car_ids.iter().map(|id| (id.as_str(), None))).collect();
    let alone = if alone.is_empty() {
        None
    } else {
        Some(times(findings, drivers, &alone, "cars alone in their class", "spread-alone")?)
    };
    Ok(html! {
        section id="drivers" {
            h2 { "In the hands of drivers" }
            p {
                (drivers.runs) " drivers of skill " (drivers.skill) " drove each car once. Their reactions and errors were drawn from the seed "
                (drivers.seed) ". They err in their reaction, the launch speed, the grip that they ask for and the speed at which they change up; where \
                 none but the reaction costs a car time, its times are alike for any skill."
            }
            @for class in &classes { (class) }
            @if let Some(alone) = &alone {
                h3 { "Alone in their class" }
                p { "They have nobody to race, so nobody wins: only their times are told." }
                (alone)
            }
        }
    })
}

fn class(findings: &Findings, drivers: &Drivers, wins_of: &WinTable, index: usize) -> Result<Markup, ReportError> {
    let shares = wins_of.win_shares.iter().copied().chain(std::iter::repeat(None));
    let cars: Vec<_> = wins_of.car_ids.iter().map(String::as_str).zip(shares).collect();
    let names: Vec<&str> = wins_of.car_ids.iter().map(|id| name(findings, id)).collect();
    let most = percent(EVEN_SHARE_MAX);
    Ok(html! {
        h3 { "Class " (wins_of.class) }
        p {
            @if wins_of.even == Some(true) {
                span.good { "Even" } ": no car wins over " (most) " % of its races."
            } @else {
                span.bad { "Not even" } ": a car wins over " (most) " % of its races."
            }
        }
        (times(findings, drivers, &cars, &format!("class {}", wins_of.class), &format!("spread-{index}"))?)
        (wins(&wins_of.class, &names, |row, column| wins_of.wins.get(row)?.get(column).copied().flatten()))
    })
}

/// How the times of some cars spread: a chart and a table. Each car has the share of its races that it wins.
fn times(
    findings: &Findings,
    drivers: &Drivers,
    cars: &[(&str, Option<f64>)],
    what: &str,
    id: &str,
) -> Result<Markup, ReportError> {
    let spread = |id: &str| drivers.spreads.iter().find(|spread| spread.car_id == id);
    let rows = cars.iter().filter_map(|(id, _)| {
        let elapsed = spread(id)?.elapsed.as_ref()?;
        Some(Spread { name: name(findings, id), quantiles_s: in_order(elapsed) })
    });
    let rows: Vec<Spread> = rows.collect();
    let chart = |page, at: &str| {
        spreads(what, &rows, page, &format!("{id}-{at}")).map_err(broken(what, "spread of elapsed times"))
    };
    let (wide, narrow) = (chart(Page::Wide, "wide")?, chart(Page::Narrow, "narrow")?);
    let legend = || {
        [
            line(Ink::Blue, "nine of ten runs"),
            area(Ink::Blue, "half of the runs"),
            line(Ink::Orange, "as many are quicker as slower"),
        ]
    };
    let quantiles = |quantiles: Option<&Quantiles>| {
        html! {
            @match quantiles.map(in_order) {
                Some(times) => { @for time_s in times { td { (format!("{time_s:.3}")) } } }
                None => { @for _ in 0..5 { td { "–" } } }
            }
        }
    };
    let body = html! {
        @for (id, share) in cars {
            @let spread = spread(id);
            tr {
                th scope="row" { (name(findings, id)) }
                (quantiles(spread.and_then(|spread| spread.elapsed.as_ref())))
                td { @match spread.and_then(|spread| spread.reaction.as_ref()) {
                    Some(reaction) => (format!("{:.3}", reaction.p50_s)),
                    None => "–",
                } }
                td { @match spread { Some(spread) => (percent(spread.red_light_share)), None => "–" } }
                td { @match share {
                    Some(share) if *share > EVEN_SHARE_MAX => span.bad { (percent(*share)) },
                    Some(share) => (percent(*share)),
                    None => "–",
                } }
            }
        }
    };
    let columns =
        ["car", "5 %, s", "25 %, s", "50 %, s", "75 %, s", "95 %, s", "reaction, s", "red lights, %", "wins, %"];
    let caption = format!("Drivers' times, {what}");
    Ok(html! {
        @if !rows.is_empty() {
            (figure("wide", "Elapsed times", "", &legend(), wide))
            (figure("narrow", "Elapsed times", "", &legend(), narrow))
        }
        (table(
            "all", &caption,
            "Elapsed times that so many of the runs are quicker than; the middle reaction; wins against all others of the class.",
            heads(&columns), body
        ))
    })
}

fn in_order(quantiles: &Quantiles) -> [f64; 5] {
    [quantiles.p5_s, quantiles.p25_s, quantiles.p50_s, quantiles.p75_s, quantiles.p95_s]
}

/// What would bring cars to their classes' targets.
pub(super) fn balance(findings: &Findings, proposals: &[Proposal]) -> Markup {
    let after = |candidate: &Candidate| match candidate.after_s {
        Some(after_s) => format!("{after_s:.3}"),
        None => "–".to_owned(),
    };
    let words = |candidate: &Candidate| match candidate.change {
        Some(change) => change.words().replace('-', "−"),
        None => format!("{}: nothing within the limits", candidate.figure.as_str()),
    };
    let body = html! {
        @for proposal in proposals {
            tr {
                th scope="row" { a href={ "#" (anchor(&proposal.car_id)) } { (name(findings, &proposal.car_id)) } }
                td { (proposal.class) }
                td { (format!("{:.2}", proposal.target_s)) }
                td { (format!("{:.3}", proposal.before_s)) }
                @match &proposal.chosen {
                    Some(chosen) => {
                        td.text { b { (words(chosen)) } }
                        td { (after(chosen)) }
                        td { @match chosen.after_s {
                            Some(after_s) => (signed(after_s - proposal.target_s, 3)), None => "–",
                        } }
                    }
                    None => { td.text { span.bad { "out of reach" } } td { "–" } td { "–" } }
                }
            }
        }
    };
    let head = html! {
        (heads(&["car", "class", "target, s", "now, s"]))
        th.text scope="col" { "smallest change" } th scope="col" { "then, s" } th scope="col" { "off, s" }
    };
    let tried = html! {
        @for proposal in proposals {
            @for candidate in &proposal.candidates {
                tr {
                    th scope="row" { (name(findings, &proposal.car_id)) }
                    td.text { (words(candidate)) }
                    td { @match candidate.size_percent { Some(size) => (format!("{size:.1}")), None => "–" } }
                    td { (after(candidate)) }
                    td.words {
                        @match (&candidate.problem, candidate.reaches) {
                            (Some(problem), _) => (problem),
                            (None, true) => span.good { "reaches the target" },
                            (None, false) => "does not reach the target",
                        }
                    }
                }
            }
        }
    };
    let tried_head = html! {
        th.text scope="col" { "car" } th.text scope="col" { "change" } th scope="col" { "size, %" } th scope="col" { "then, s" }
        th.text scope="col" { "verdict" }
    };
    html! {
        section id="balance" {
            h2 { "Balance" }
            @if proposals.is_empty() {
                p { "Every car is within " (TOLERANCE_S) " s of its class's target. Nothing is to be changed." }
            } @else {
                (table(
                    "all", "What would put cars in their places",
                    &format!("The smallest change that brings a car within {TOLERANCE_S} s of its class's target, each verified by another full search."),
                    head, body
                ))
                details {
                    summary { "All changes that were tried" }
                    (table("all", "Changes that were tried", "Size: of the car's own mass, power or ratios.", tried_head, tried))
                }
            }
        }
    }
}
