//! The chart of a best run: speed and engine speed over time with the changes of gear, and below the time axis what limits the car when.

use plotters::element::{Circle, Rectangle, Text};
use plotters::style::text_anchor::{HPos, VPos};

use crate::dyno::sheet::{KMH_PER_MPS, Limit, LimitPhase};
use crate::dyno::{Sample, Sheet};
use crate::page::chart::{
    Area, Axis, COLUMN_WIDTH_PX, ChartError, Ink, Room, TEXT_PX, drawn, failed, line, placed, plot, px, scale, whole,
};
use crate::page::parts::percent;

/// Heights of the panels, from above, in pixels.
const SPEED_HEIGHT_PX: u32 = 230;
const RPM_HEIGHT_PX: u32 = 180;
const LIMITS_HEIGHT_PX: u32 = 110;

/// Room for text around a panel: the same at the sides, so that the time axes stand below each other.
const SIDES: Room = Room { left: 56, right: 12, top: 26, bottom: 8 };

/// What limits, in the order of the rows from above.
const ROWS: [(Limit, &str, Ink); 3] =
    [(Limit::Grip, "grip", Ink::Grip), (Limit::Power, "power", Ink::Power), (Limit::Gearing, "gearing", Ink::Gearing)];

/// Draws the chart.
pub(super) fn run_over_time(sheet: &Sheet, id: &str) -> Result<String, ChartError> {
    let title = format!("Speed, engine speed and limits of {}'s best run over time", sheet.car.name);
    let desc = format!(
        "{:.3} s over the quarter mile, {:.1} km/h in the trap. {} Grip limits for {} % of the time, power for {} %, gearing for {} %.",
        sheet.splits.quarter_mile_s,
        sheet.splits.quarter_mile_kmh,
        shifts_in_words(sheet),
        percent(sheet.limits.grip_share),
        percent(sheet.limits.power_share),
        percent(sheet.limits.gearing_share)
    );
    let height_px = SPEED_HEIGHT_PX + RPM_HEIGHT_PX + LIMITS_HEIGHT_PX;
    drawn((COLUMN_WIDTH_PX, height_px), (id, &title, &desc), |area| {
        let (above, rest) = area.split_vertically(px(SPEED_HEIGHT_PX as i32));
        let (middle, below) = rest.split_vertically(px(RPM_HEIGHT_PX as i32));
        speed(&above, sheet)?;
        engine_speed(&middle, sheet)?;
        limits(&below, sheet)
    })
}

/// The changes of gear as a sentence.
fn shifts_in_words(sheet: &Sheet) -> String {
    let shifts = sheet.shift_table.iter();
    let shifts: Vec<String> = shifts
        .map(|shift| format!("to {} after {:.2} s at {:.0} rpm", shift.to_gear, shift.time_s, shift.rpm))
        .collect();
    if shifts.is_empty() { "No change of gear.".to_owned() } else { format!("Changes of gear: {}.", shifts.join(", ")) }
}

/// When the car is over the line, in s after the launch.
fn end_s(sheet: &Sheet) -> f64 {
    sheet.best.run.trace.last().map_or(1.0, |sample| sample.time_s)
}

/// The axis of time. Only the lowest panel has a name and numbers.
fn time_axis(sheet: &Sheet, name: &'static str) -> Axis<'static> {
    let format: &dyn Fn(&f64) -> String = if name.is_empty() { &|_| String::new() } else { &whole };
    Axis { name, ink: Ink::Text, from: 0.0, to: end_s(sheet) * 1.01, labels: 10, format }
}

/// A line at each change of gear, from the foot of the panel to its top.
fn moments(panel: &mut crate::page::chart::Plot, sheet: &Sheet, top: f64) -> Result<(), ChartError> {
    for shift in &sheet.shift_table {
        line(panel, [(shift.time_s, 0.0), (shift.time_s, top)], Ink::Moment.line(10))?;
    }
    Ok(())
}

fn speed(area: &Area, sheet: &Sheet) -> Result<(), ChartError> {
    let trace = &sheet.best.run.trace;
    let kmh = |mps: f32| f64::from(mps) * KMH_PER_MPS;
    let fastest = trace.iter().map(|sample| kmh(sample.speed_mps.max(sample.tread_mps))).fold(0.0, f64::max);
    let (top, steps) = scale(fastest);
    let y = Axis { name: "Speed, km/h", ink: Ink::Blue, from: 0.0, to: top, labels: steps + 1, format: &whole };
    let mut panel = plot(area, SIDES, &time_axis(sheet, ""), &y)?;
    moments(&mut panel, sheet, top)?;
    let start = std::iter::once((0.0, 0.0));
    line(&mut panel, trace.iter().map(|sample| (sample.time_s, kmh(sample.tread_mps))), Ink::Dashed.line(20))?;
    let speeds = trace.iter().map(|sample| (sample.time_s, kmh(sample.speed_mps)));
    line(&mut panel, start.chain(speeds), Ink::Blue.line(25))?;
    let splits = &sheet.splits;
    let marks = [
        ("60 ft", splits.sixty_foot_s),
        ("330 ft", splits.three_thirty_foot_s),
        ("1/8 mile", splits.eighth_mile_s),
        ("1000 ft", splits.thousand_foot_s),
        ("1/4 mile", splits.quarter_mile_s),
    ];
    for (name, split_s) in marks {
        let time_s = split_s + sheet.best.run.rollout_s;
        let Some(mps) = speed_at(trace, time_s) else { continue };
        let place = (time_s, mps * KMH_PER_MPS);
        panel.draw_series([Circle::new(place, px(4), Ink::Blue.area())]).map_err(failed)?;
        // Below the curve, where it never comes back to; at the end of the axis above it.
        let (x, y) = placed(area, &panel, place);
        let last = time_s > 0.93 * end_s(sheet);
        let (x, y) = if last { (x + px(4), y - px(7)) } else { (x + px(5), y + px(5)) };
        let (across, down) = if last { (HPos::Right, VPos::Bottom) } else { (HPos::Left, VPos::Top) };
        area.draw(&Text::new(name, (x, y), Ink::Text.text(TEXT_PX, across, down))).map_err(failed)?;
    }
    Ok(())
}

/// Speed at a moment between two samples, in m/s.
fn speed_at(trace: &[Sample], time_s: f64) -> Option<f64> {
    let after = trace.iter().position(|sample| sample.time_s >= time_s)?;
    let (next, before) = (trace.get(after)?, trace.get(after.saturating_sub(1))?);
    let span_s = next.time_s - before.time_s;
    let share = if span_s > 0.0 { (time_s - before.time_s) / span_s } else { 0.0 };
    Some(f64::from(before.speed_mps) + share * f64::from(next.speed_mps - before.speed_mps))
}

fn engine_speed(area: &Area, sheet: &Sheet) -> Result<(), ChartError> {
    let trace = &sheet.best.run.trace;
    let fastest = trace.iter().map(|sample| f64::from(sample.rpm)).fold(0.0, f64::max);
    // Room for the gears' numbers above the curve.
    let top = fastest * 1.25;
    let y = Axis { name: "Engine, rpm", ink: Ink::Purple, from: 0.0, to: top, labels: 6, format: &whole };
    let mut panel = plot(area, SIDES, &time_axis(sheet, ""), &y)?;
    moments(&mut panel, sheet, top)?;
    let start = std::iter::once((0.0, f64::from(sheet.best.run.launch_rpm)));
    let speeds = trace.iter().map(|sample| (sample.time_s, f64::from(sample.rpm)));
    line(&mut panel, start.chain(speeds), Ink::Purple.line(20))?;
    let dots = sheet.shift_table.iter().map(|shift| Circle::new((shift.time_s, shift.rpm), px(4), Ink::Purple.area()));
    panel.draw_series(dots).map_err(failed)?;
    let starts = std::iter::once((0.0, 1)).chain(sheet.shift_table.iter().map(|shift| (shift.time_s, shift.to_gear)));
    let ends = sheet.shift_table.iter().map(|shift| shift.time_s).chain(std::iter::once(end_s(sheet)));
    for ((from_s, gear), to_s) in starts.zip(ends) {
        let (left, y) = placed(area, &panel, (from_s, top));
        let (right, _) = placed(area, &panel, (to_s, top));
        if right - left < px(12) {
            continue;
        }
        let style = Ink::Text.text(TEXT_PX, HPos::Center, VPos::Center);
        let place = ((left + right) / 2, y + px(11));
        area.draw(&Circle::new(place, px(8), Ink::Gear(gear).line(15))).map_err(failed)?;
        area.draw(&Text::new(gear.to_string(), place, style)).map_err(failed)?;
    }
    Ok(())
}

fn limits(area: &Area, sheet: &Sheet) -> Result<(), ChartError> {
    let rows = ROWS.len() as f64;
    let y = Axis { name: "", ink: Ink::Text, from: 0.0, to: rows, labels: 0, format: &whole };
    let room = Room { top: 8, bottom: 38, ..SIDES };
    let mut panel = plot(area, room, &time_axis(sheet, "s after the launch"), &y)?;
    for ((limit, name, ink), row) in ROWS.into_iter().zip(0i32..) {
        let top = rows - f64::from(row);
        let (left, y) = placed(area, &panel, (0.0, top - 0.5));
        let style = ink.text(TEXT_PX, HPos::Right, VPos::Center);
        area.draw(&Text::new(name, (left - px(6), y), style)).map_err(failed)?;
        let phases = sheet.limits.phases.iter().filter(|phase| phase.by == limit);
        let bar =
            |phase: &LimitPhase| Rectangle::new([(phase.from_s, top - 0.12), (phase.to_s, top - 0.88)], ink.area());
        panel.draw_series(phases.map(bar)).map_err(failed)?;
    }
    Ok(())
}

/// Where the engine works between the first change of gear and the finish, in rpm; none for a car that does not shift.
pub(super) fn used_rpm(sheet: &Sheet) -> Option<(f64, f64)> {
    let low = sheet.shift_table.iter().filter_map(|shift| shift.rpm_after).reduce(f64::min)?;
    let high = sheet.shift_table.iter().map(|shift| shift.rpm).reduce(f64::max)?;
    Some((low, high))
}
