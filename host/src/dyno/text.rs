//! The dyno's findings as text for people and as a table for programs. Nothing is worked out here.

use std::fmt::Write as _;

use super::Findings;
use super::limits::{Limit, LimitPhase};
use super::prove::Proof;
use super::sheet::{Forgiving, Sheet, ZeroTo};
use super::text_classes;

/// All of it: a table of the cars, then the sheet of each.
#[must_use]
pub fn text(findings: &Findings) -> String {
    let mut text = summary(findings);
    for sheet in &findings.sheets {
        text.push('\n');
        text.push_str(&self::sheet(sheet));
    }
    text.push('\n');
    text.push_str(&text_classes::classes(&findings.classes));
    if let Some(proposals) = &findings.balance {
        text.push('\n');
        text.push_str(&text_classes::balance(proposals));
    }
    if let Some(drivers) = &findings.drivers {
        text.push('\n');
        text.push_str(&text_classes::drivers(drivers, &findings.classes));
    }
    if let Some(proof) = &findings.proof {
        text.push('\n');
        text.push_str(&self::proof(proof));
    }
    text
}

/// One line per car.
#[must_use]
pub fn summary(findings: &Findings) -> String {
    let module = &findings.module;
    let mut text = format!("the best of each car under {} {} ({:.12}…)\n\n", module.name, module.version, module.hash);
    let header = [
        "car",
        "60 ft s",
        "330 ft s",
        "1/8 mile s",
        "mph",
        "1000 ft s",
        "1/4 mile s",
        "mph",
        "published s",
        "off %",
        "0-100 km/h s",
        "0-60 mph s",
    ];
    let zero_to =
        |zero_to: Option<ZeroTo>| zero_to.map_or("-".into(), |zero_to| format!("{:.2}", zero_to.with_rollout_s));
    let rows = findings.sheets.iter().map(|sheet| {
        let splits = &sheet.splits;
        vec![
            sheet.car.id.clone(),
            format!("{:.3}", splits.sixty_foot_s),
            format!("{:.3}", splits.three_thirty_foot_s),
            format!("{:.3}", splits.eighth_mile_s),
            format!("{:.1}", splits.eighth_mile_mph),
            format!("{:.3}", splits.thousand_foot_s),
            format!("{:.3}", splits.quarter_mile_s),
            format!("{:.1}", splits.quarter_mile_mph),
            sheet.published.map_or("-".into(), |published| format!("{:.2}", published.quarter_mile_s)),
            sheet.published.map_or("-".into(), |published| format!("{:+.1}", published.time_off_percent)),
            zero_to(sheet.zero_to_100_kmh),
            zero_to(sheet.zero_to_60_mph),
        ]
    });
    let rows: Vec<Vec<String>> = std::iter::once(header.map(str::to_owned).to_vec()).chain(rows).collect();
    push_table(&mut text, &rows, "");
    text.push_str("0-100 km/h and 0-60 mph with the magazines' rollout of one foot\n");
    text
}

/// The sheet of one car.
#[must_use]
pub fn sheet(sheet: &Sheet) -> String {
    let (car, splits, best) = (&sheet.car, &sheet.splits, &sheet.best);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |what: &str, value: String| {
        let _ = writeln!(text, "  {what:<11} {value}");
    };
    let mut speeds = vec![format!(
        "60 ft {:.3} s, 330 ft {:.3} s, 1/8 mile {:.3} s @ {:.1} mph, 1000 ft {:.3} s",
        splits.sixty_foot_s,
        splits.three_thirty_foot_s,
        splits.eighth_mile_s,
        splits.eighth_mile_mph,
        splits.thousand_foot_s
    )];
    if let Some(published) = sheet.published {
        speeds.push(format!(
            "published {:.2} s @ {:.1} mph: {:+.1} % in time, {:+.1} % in speed",
            published.quarter_mile_s, published.trap_mph, published.time_off_percent, published.speed_off_percent
        ));
    }
    line(
        "1/4 mile",
        format!(
            "{:.3} s @ {:.1} mph ({:.1} km/h)",
            splits.quarter_mile_s, splits.quarter_mile_mph, splits.quarter_mile_kmh
        ),
    );
    for speeds in speeds {
        line("", speeds);
    }
    for (what, zero_to) in [("0-100 km/h", sheet.zero_to_100_kmh), ("0-60 mph", sheet.zero_to_60_mph)] {
        let value = zero_to.map_or("not within the quarter mile".into(), |zero_to| {
            format!(
                "{:.2} s after a rollout of one foot, {:.2} s from rest",
                zero_to.with_rollout_s, zero_to.from_rest_s
            )
        });
        line(what, value);
    }
    let plan = &best.run.plan;
    let launch = sheet.launch_rpm.map_or("without an engine that could rev".into(), |rpm| {
        format!("at {rpm:.0} rpm on the tachometer (the driver aims at {:.0})", plan.launch_rpm)
    });
    line("launch", format!("{launch}, grip asked for {:.0} %", 100.0 * plan.grip_use));
    let gears: Vec<String> = sheet
        .top_of_gear
        .iter()
        .map(|top| {
            let note = if top.at_limiter { String::new() } else { format!(" at {:.0} rpm", top.rpm) };
            format!("{}: {:.0} km/h{note}", top.gear, top.kmh)
        })
        .collect();
    line("top of gear", gears.join(", "));
    if !sheet.forgiving.is_empty() {
        line("shifts off", forgiving(&sheet.forgiving));
    }
    let phases: Vec<String> = sheet.limits.phases.iter().map(phase).collect();
    line("limited by", phases.join(", "));
    let share = |share: f64| format!("{:.0} %", 100.0 * share);
    line(
        "",
        format!(
            "in all grip {}, power {}, gearing {}",
            share(sheet.limits.grip_share),
            share(sheet.limits.power_share),
            share(sheet.limits.gearing_share)
        ),
    );
    let optimum = &best.optimum;
    let verdict = if optimum.proven { "none is quicker" } else { "NOT PROVEN: the search came to its bound" };
    line("search", format!("{} runs; its {} neighbours: {verdict}", best.evaluations, optimum.neighbours.len()));
    let around: Vec<String> = optimum
        .neighbours
        .iter()
        .filter(|neighbour| !neighbour.change.starts_with("shift"))
        .map(|neighbour| match neighbour.costs_ms {
            Some(costs_ms) => format!("{} {costs_ms:+.1} ms", neighbour.change),
            None => format!("{} no time", neighbour.change),
        })
        .collect();
    line("", around.join(", "));

    let shifts = if sheet.shift_table.is_empty() { String::from("  no changes of gear\n") } else { shift_table(sheet) };
    format!(
        "{}: {} ({}), {}, {:.0} kg, {:.0} kW, {:.0} Nm\n{text}{shifts}",
        car.id, car.name, car.year, car.layout, car.mass_kg, car.peak_power_kw, car.peak_torque_nm
    )
}

/// What a grid says of a search.
#[must_use]
pub fn proof(proof: &Proof) -> String {
    let rpms = |rpms: &[f64]| rpms.iter().map(|rpm| format!("{rpm:.0}")).collect::<Vec<_>>().join(", ");
    let percents = |shares: &[f64]| shares.iter().map(|share| format!("{:.0}", 100.0 * share)).collect::<Vec<_>>();
    let grid = &proof.grid;
    let shifts = if proof.shifts == 0 { String::from("no changes") } else { rpms(&grid.shifts_rpm) };
    let verdict =
        if proof.holds { "nothing in the grid is quicker" } else { "THE SEARCH MISSED IT: the grid has a quicker one" };
    format!(
        "proof for {}: {verdict}\n\
         \x20 grid        {} runs: launch at {} rpm, grip {} %, {} changes of gear, each at {} rpm\n\
         \x20 its best    {:.4} s with launch at {:.0} rpm, grip {:.0} %, changes at {shifts} rpm\n\
         \x20 the search  {:.4} s, {:+.1} ms ahead\n",
        proof.car,
        proof.runs,
        rpms(&proof.launches_rpm),
        percents(&proof.grips).join(", "),
        proof.shifts,
        rpms(&proof.shifts_rpm),
        grid.elapsed_s,
        grid.launch_rpm,
        100.0 * grid.grip_use,
        proof.search_elapsed_s,
        proof.search_is_ahead_ms,
    )
}

/// What each offset costs; those that the limiter stops in the same gear together.
fn forgiving(offsets: &[Forgiving]) -> String {
    let run = offsets.iter().filter(|offset| offset.limiter_in_gear.is_none());
    let costs = run.map(|offset| match offset.penalty_ms {
        Some(penalty_ms) => format!("{:+} rpm {penalty_ms:+.0} ms", offset.shift_off_rpm),
        None => format!("{:+} rpm no time", offset.shift_off_rpm),
    });
    let mut parts: Vec<String> = costs.collect();
    for gear in 1..=u8::MAX {
        let stopped = offsets.iter().filter(|offset| offset.limiter_in_gear == Some(gear));
        let stopped: Vec<String> = stopped.map(|offset| format!("{:+}", offset.shift_off_rpm)).collect();
        if !stopped.is_empty() {
            parts.push(format!("{} rpm: the limiter stops it in gear {gear}", stopped.join(", ")));
        }
    }
    parts.join(", ")
}

fn phase(phase: &LimitPhase) -> String {
    format!("{} {:.1}-{:.1} s", phase.by.as_str(), phase.from_s, phase.to_s)
}

impl Limit {
    /// The limit as a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grip => "grip",
            Self::Power => "power",
            Self::Gearing => "gearing",
        }
    }
}

fn shift_table(sheet: &Sheet) -> String {
    let header = ["shift", "at rpm", "km/h", "after s", "tick", "then rpm"];
    let rows = sheet.shift_table.iter().map(|row| {
        vec![
            format!("{}-{}", row.from_gear, row.to_gear),
            format!("{:.0}", row.rpm),
            format!("{:.1}", row.kmh),
            format!("{:.2}", row.time_s),
            row.tick.to_string(),
            row.rpm_after.map_or("-".into(), |rpm| format!("{rpm:.0}")),
        ]
    });
    let rows: Vec<Vec<String>> = std::iter::once(header.map(str::to_owned).to_vec()).chain(rows).collect();
    let mut text = String::new();
    push_table(&mut text, &rows, "  ");
    text
}

/// Columns as wide as they need to be, the first to the left, the others to the right.
pub(super) fn push_table(text: &mut String, rows: &[Vec<String>], indent: &str) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let mut line = String::from(indent);
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if at == 0 { write!(line, "{cell:<width$}") } else { write!(line, "  {cell:>width$}") };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// One row per car, with a header.
///
/// # Errors
/// None that the findings could bring about: what the CSV writer says.
pub fn csv(findings: &Findings) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut header: Vec<String> = CSV_COLUMNS.map(str::to_owned).to_vec();
    header.extend((1..=SHIFTS_IN_CSV).map(|at| format!("shift_{at}_{}_rpm", at + 1)));
    writer.write_record(&header)?;
    for sheet in &findings.sheets {
        writer.write_record(csv_row(sheet))?;
    }
    let bytes = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

const CSV_COLUMNS: [&str; 33] = [
    "car",
    "name",
    "year",
    "layout",
    "mass_kg",
    "peak_power_kw",
    "peak_torque_nm",
    "sixty_foot_s",
    "three_thirty_foot_s",
    "eighth_mile_s",
    "eighth_mile_mph",
    "thousand_foot_s",
    "quarter_mile_s",
    "quarter_mile_mph",
    "zero_to_100_kmh_s",
    "zero_to_100_kmh_from_rest_s",
    "zero_to_60_mph_s",
    "zero_to_60_mph_from_rest_s",
    "launch_rpm",
    "grip_share",
    "power_share",
    "gearing_share",
    "shift_off_-500_ms",
    "shift_off_-300_ms",
    "shift_off_-100_ms",
    "shift_off_100_ms",
    "shift_off_300_ms",
    "shift_off_500_ms",
    "published_quarter_mile_s",
    "published_quarter_mile_mph",
    "time_off_percent",
    "speed_off_percent",
    "evaluations",
];
/// Changes of gear that have a column: those of a box with ten gears, the most of a production car.
const SHIFTS_IN_CSV: u8 = 9;

fn csv_row(sheet: &Sheet) -> Vec<String> {
    let (car, splits, limits) = (&sheet.car, &sheet.splits, &sheet.limits);
    let some = |value: Option<f64>, decimals: usize| value.map_or(String::new(), |value| format!("{value:.decimals$}"));
    let (kmh, mph) = (sheet.zero_to_100_kmh, sheet.zero_to_60_mph);
    let mut row = vec![car.id.clone(), car.name.clone(), car.year.to_string(), car.layout.clone()];
    let mut add = |value: Option<f64>, decimals: usize| row.push(some(value, decimals));
    for value in [car.mass_kg, car.peak_power_kw, car.peak_torque_nm] {
        add(Some(value), 1);
    }
    add(Some(splits.sixty_foot_s), 4);
    add(Some(splits.three_thirty_foot_s), 4);
    add(Some(splits.eighth_mile_s), 4);
    add(Some(splits.eighth_mile_mph), 2);
    add(Some(splits.thousand_foot_s), 4);
    add(Some(splits.quarter_mile_s), 4);
    add(Some(splits.quarter_mile_mph), 2);
    for zero_to in [kmh, mph] {
        add(zero_to.map(|zero_to| zero_to.with_rollout_s), 3);
        add(zero_to.map(|zero_to| zero_to.from_rest_s), 3);
    }
    add(sheet.launch_rpm, 0);
    for share in [limits.grip_share, limits.power_share, limits.gearing_share] {
        add(Some(share), 3);
    }
    for off in super::sheet::SHIFT_OFFS_RPM {
        let found = sheet.forgiving.iter().find(|forgiving| forgiving.shift_off_rpm == off);
        add(found.and_then(|forgiving| forgiving.penalty_ms), 2);
    }
    let published = sheet.published;
    add(published.map(|published| published.quarter_mile_s), 3);
    add(published.map(|published| published.trap_mph), 2);
    add(published.map(|published| published.time_off_percent), 2);
    add(published.map(|published| published.speed_off_percent), 2);
    row.push(sheet.best.evaluations.to_string());
    for gear in 1..=SHIFTS_IN_CSV {
        let shift = sheet.shift_table.iter().find(|shift| shift.from_gear == gear);
        row.push(some(shift.map(|shift| shift.rpm), 0));
    }
    row
}
