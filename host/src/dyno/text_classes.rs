//! Classes, balance and drivers as text for people. Nothing is worked out here.

use std::fmt::Write as _;

use super::balance::{Candidate, Proposal};
use super::classes::{Class, Classes, Method, TOLERANCE_S};
use super::drivers::{Drivers, EVEN_SHARE_MAX, Quantiles, WinTable};
use super::text::push_table;

/// The classes with their cars.
pub(super) fn classes(classes: &Classes) -> String {
    let method = match classes.method {
        Method::Index => {
            "index classes: published times (best times where there is none) rounded up to the half second"
        }
        Method::Natural => "natural classes: where the best times part by themselves",
    };
    let mut text = format!("{method}\n");
    let header = ["class", "target s", "car", "best s", "off s", ""];
    let rows = classes.classes.iter().flat_map(|class| {
        class.members.iter().enumerate().map(|(at, member)| {
            let first = |text: String| if at == 0 { text } else { String::new() };
            vec![
                first(class.name.clone()),
                first(format!("{:.3}", class.target_s)),
                member.car_id.clone(),
                format!("{:.3}", member.quarter_mile_s),
                format!("{:+.3}", member.off_s),
                if member.out_of_place { "out of place".into() } else { String::new() },
            ]
        })
    });
    let rows: Vec<Vec<String>> = std::iter::once(header.map(str::to_owned).to_vec()).chain(rows).collect();
    push_table(&mut text, &rows, "  ");
    text
}

/// What is proposed for each car that is off its target.
pub(super) fn balance(proposals: &[Proposal]) -> String {
    let mut text =
        String::from("balance: the smallest change in percent of its figure that brings a car to its class's target\n");
    if proposals.is_empty() {
        let _ = writeln!(text, "  every car is within {TOLERANCE_S} s of its target");
    }
    for proposal in proposals {
        let Proposal { car_id, class, target_s, before_s, candidates, chosen } = proposal;
        let _ = write!(text, "  {car_id}: {before_s:.3} s, class {class} wants {target_s:.3} s: ");
        let words = chosen.as_ref().map_or_else(|| "no change within the limits does it".to_owned(), candidate);
        let _ = writeln!(text, "{words}");
        for other in candidates.iter().filter(|other| chosen.as_ref() != Some(other)) {
            let _ = writeln!(text, "    or {}", candidate(other));
        }
    }
    text
}

fn candidate(candidate: &Candidate) -> String {
    let mut text = candidate.change.map_or_else(|| candidate.figure.as_str().to_owned(), |change| change.words());
    if let (Some(size), Some(after_s)) = (candidate.size_percent, candidate.after_s) {
        let _ = write!(text, " ({size:.1} %), then {after_s:.3} s");
    }
    if let Some(problem) = &candidate.problem {
        let _ = write!(text, ": {problem}");
    }
    text
}

/// The spread of each car and who wins in each class.
pub(super) fn drivers(drivers: &Drivers, classes: &Classes) -> String {
    let Drivers { skill, runs, seed, .. } = drivers;
    let mut text = format!("{runs} drivers of skill {skill} in each car, seed {seed}; s\n");
    let header =
        ["car", "ET 5 %", "25 %", "half", "75 %", "95 %", "reaction 5 %", "half", "95 %", "red %", "finished %"];
    let of = |quantiles: Option<Quantiles>, at: fn(&Quantiles) -> f64| {
        quantiles.map_or("-".into(), |quantiles| format!("{:.3}", at(&quantiles)))
    };
    let rows = drivers.spreads.iter().map(|spread| {
        vec![
            spread.car_id.clone(),
            of(spread.elapsed, |elapsed| elapsed.p5_s),
            of(spread.elapsed, |elapsed| elapsed.p25_s),
            of(spread.elapsed, |elapsed| elapsed.p50_s),
            of(spread.elapsed, |elapsed| elapsed.p75_s),
            of(spread.elapsed, |elapsed| elapsed.p95_s),
            of(spread.reaction, |reaction| reaction.p5_s),
            of(spread.reaction, |reaction| reaction.p50_s),
            of(spread.reaction, |reaction| reaction.p95_s),
            format!("{:.1}", 100.0 * spread.red_light_share),
            format!("{:.1}", 100.0 * spread.finished_share),
        ]
    });
    let rows: Vec<Vec<String>> = std::iter::once(header.map(str::to_owned).to_vec()).chain(rows).collect();
    push_table(&mut text, &rows, "  ");
    text.push_str(
        "drivers err in their reaction, the launch speed, the grip they ask for and the speed they change up at; where none but the reaction \
         costs a car time, its times are alike for any skill\n",
    );
    for table in &drivers.win_tables {
        let class = classes.classes.iter().find(|class| class.name == table.class);
        text.push_str(&wins(table, class));
    }
    text
}

fn wins(table: &WinTable, class: Option<&Class>) -> String {
    let target = class.map_or_else(String::new, |class| format!(" ({:.3} s)", class.target_s));
    if let [alone] = table.car_ids.as_slice() {
        return format!("\nclass {}{target}: {alone} is alone and has nobody to race\n", table.class);
    }
    let share = |share: &Option<f64>| share.map_or("-".into(), |share| format!("{:.0}", 100.0 * share));
    let most = table.win_shares.iter().flatten().copied().fold(0.0, f64::max);
    let verdict = if table.even == Some(true) { "even" } else { "not even" };
    let mut text = format!(
        "\nclass {}{target}: {verdict}, the strongest car wins {:.0} % of its races (even is up to {:.0} %); the row beats the column, %\n",
        table.class,
        100.0 * most,
        100.0 * EVEN_SHARE_MAX
    );
    let header = std::iter::once(String::new()).chain(table.car_ids.iter().cloned()).chain(["all".to_owned()]);
    let mut rows: Vec<Vec<String>> = vec![header.collect()];
    for ((car_id, wins), all) in table.car_ids.iter().zip(&table.wins).zip(&table.win_shares) {
        let cells = wins.iter().chain([all]).map(share);
        rows.push(std::iter::once(car_id.clone()).chain(cells).collect());
    }
    push_table(&mut text, &rows, "  ");
    text
}
