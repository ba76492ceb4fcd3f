//! Charts of a car at full throttle, from its figures alone: torque and power of the engine, and the force at the wheels in each
//! gear against what resists. No run is in them but its shift points.

use drag_race::Car;
use drag_race::physics::{GRAVITY_MPS2, RAD_S_PER_RPM, driven_load_share, road_load_n, torque_at};
use plotters::element::{Circle, Rectangle, Text};
use plotters::style::text_anchor::{HPos, VPos};

use crate::dyno::sheet::{KMH_PER_MPS, TopOfGear};
use crate::page::chart::{
    Axis, COLUMN_WIDTH_PX, ChartError, Ink, Room, TEXT_PX, drawn, failed, headroom, line, placed, plot, px, scale,
    whole,
};

/// Height of both charts, in pixels.
const HEIGHT_PX: u32 = 310;

/// Engine speeds between two points of a curve: half a step of the table of torques.
const STEP_RPM: f64 = 50.0;

/// Speeds between two points of a curve of forces that resist, in km/h.
const STEP_KMH: f64 = 2.0;

/// Rounds of the fixed point between acceleration and load; after six the rest is below 1 %, after twenty below a newton.
const LOAD_ROUNDS: u32 = 20;

/// One mechanical horsepower, 550 ft lbf/s, in kW.
pub(super) const KW_PER_HP: f64 = 0.745_699_9;

/// The highest point of a curve: engine speed and value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Peak {
    pub(super) rpm: f64,
    pub(super) value: f64,
}

/// Engine speeds of the curves, from rest or idle to the limiter.
fn speeds_rpm(car: &Car) -> impl Iterator<Item = f64> {
    let steps = ((car.limiter_rpm - car.idle_rpm) / STEP_RPM).clamp(0.0, 2_000.0) as u32;
    let (from, to) = (car.idle_rpm, car.limiter_rpm);
    (0..=steps).map(move |step| from + f64::from(step) * STEP_RPM).chain(std::iter::once(to))
}

/// Power at full throttle, in kW.
fn power_kw(car: &Car, rpm: f64) -> f64 {
    torque_at(car, rpm) * rpm * RAD_S_PER_RPM / 1000.0
}

fn peak(car: &Car, value: impl Fn(f64) -> f64) -> Peak {
    speeds_rpm(car)
        .map(|rpm| Peak { rpm, value: value(rpm) })
        .fold(Peak { rpm: 0.0, value: 0.0 }, |best, next| if next.value > best.value { next } else { best })
}

/// The peaks of torque, in Nm, and power, in kW.
pub(super) fn peaks(car: &Car) -> (Peak, Peak) {
    (peak(car, |rpm| torque_at(car, rpm)), peak(car, |rpm| power_kw(car, rpm)))
}

/// Torque and power over engine speed. `used_rpm` is where the engine works between the first shift and the finish, if the car shifts.
pub(super) fn torque_and_power(car: &Car, id: &str, used_rpm: Option<(f64, f64)>) -> Result<String, ChartError> {
    let (most_nm, most_kw) = peaks(car);
    let desc = format!(
        "Torque rises to {:.0} newton metres at {:.0} rpm, power to {:.0} kilowatts at {:.0} rpm; the limiter is at {:.0} rpm.",
        most_nm.value, most_nm.rpm, most_kw.value, most_kw.rpm, car.limiter_rpm
    );
    let title = format!("Torque and power of {}", car.name);
    drawn((COLUMN_WIDTH_PX, HEIGHT_PX), (id, &title, &desc), |area| {
        let (top_nm, steps) = scale(most_nm.value);
        let step_kw = right_step(most_kw.value, steps);
        let top_kw = step_kw * steps as f64;
        let x =
            Axis { name: "rpm", ink: Ink::Text, from: 0.0, to: headroom(car.limiter_rpm), labels: 8, format: &whole };
        let y = Axis { name: "Torque, Nm", ink: Ink::Blue, from: 0.0, to: top_nm, labels: steps + 1, format: &whole };
        let room = Room { left: 40, right: 40, top: 26, bottom: 36 };
        let mut plot = plot(area, room, &x, &y)?;
        if let Some((low, high)) = used_rpm {
            let zone = Rectangle::new([(low, 0.0), (high, top_nm)], Ink::Zone.area());
            plot.draw_series([zone]).map_err(failed)?;
        }
        // The right axis shares the lines of the left one.
        let per_kw = top_nm / top_kw;
        let (width, _) = area.dim_in_pixel();
        let right = width as i32 - px(room.right);
        let style = Ink::Orange.text(TEXT_PX, HPos::Left, VPos::Center);
        for step in 0..=steps {
            let (_, y) = placed(area, &plot, (0.0, top_nm * step as f64 / steps as f64));
            let text = number(step_kw * step as f64);
            area.draw(&Text::new(text, (right + px(5), y), style.clone())).map_err(failed)?;
        }
        let name = Ink::Orange.text(TEXT_PX, HPos::Right, VPos::Top);
        area.draw(&Text::new("Power, kW", (width as i32 - px(2), px(2)), name)).map_err(failed)?;
        line(&mut plot, speeds_rpm(car).map(|rpm| (rpm, torque_at(car, rpm))), Ink::Blue.line(25))?;
        line(&mut plot, speeds_rpm(car).map(|rpm| (rpm, power_kw(car, rpm) * per_kw)), Ink::Orange.line(25))?;
        let dots = [(most_nm.rpm, most_nm.value, Ink::Blue), (most_kw.rpm, most_kw.value * per_kw, Ink::Orange)];
        plot.draw_series(dots.map(|(x, y, ink)| Circle::new((x, y), px(4), ink.area()))).map_err(failed)?;
        Ok(())
    })
}

/// Force at the driven wheels in newtons at this speed in a gear, without what turning parts take. None where the engine does not turn so
/// fast or so slowly.
fn force_n(car: &Car, ratio: f64, speed_mps: f64) -> Option<f64> {
    let rpm = speed_mps / car.tyre_radius_m * ratio / RAD_S_PER_RPM;
    let turns = rpm >= car.idle_rpm && rpm <= car.limiter_rpm;
    turns.then(|| torque_at(car, rpm) * ratio * car.driveline_efficiency / car.tyre_radius_m)
}

/// The most that the driven tyres can pull with at this speed, in newtons: with the load on them that the acceleration brings which they
/// give.
fn bearable_n(car: &Car, speed_mps: f64) -> f64 {
    let mut force_n = 0.0;
    for _ in 0..LOAD_ROUNDS {
        let accel_mps2 = (force_n - road_load_n(car, speed_mps)) / car.mass_kg;
        force_n = car.tyre_grip * car.mass_kg * GRAVITY_MPS2 * driven_load_share(car, accel_mps2);
    }
    force_n
}

/// Force at the wheels over speed for each gear, with what tyres bear and what air and tyres resist with. `shifts_kmh` are the speeds at which
/// the best run shifts up, from first gear on.
pub(super) fn tractive_force(car: &Car, id: &str, shifts_kmh: &[f64]) -> Result<String, ChartError> {
    let TopOfGear { kmh: top_kmh, at_limiter, .. } = TopOfGear::of_car(car);
    let end_kmh = headroom(top_kmh).max(100.0);
    let title = format!("Force at the wheels of {}", car.name);
    let desc = format!(
        "One curve for each of {} gears over speed, with the force that the driven tyres bear and the resistance of air and tyres. \
         The car accelerates up to {top_kmh:.0} km/h{}.",
        car.ratios.len(),
        if at_limiter { ", where the engine is at its limiter" } else { "" }
    );
    let curves: Vec<Vec<(f64, f64)>> = car
        .ratios
        .iter()
        .map(|ratio| {
            let kmh = |rpm: f64| rpm * RAD_S_PER_RPM / ratio * car.tyre_radius_m * KMH_PER_MPS;
            let kn = |rpm: f64| torque_at(car, rpm) * ratio * car.driveline_efficiency / car.tyre_radius_m / 1000.0;
            speeds_rpm(car).map(|rpm| (kmh(rpm), kn(rpm))).take_while(|(kmh, _)| *kmh <= end_kmh).collect()
        })
        .collect();
    let most_kn = curves.iter().flatten().map(|(_, kn)| *kn).fold(bearable_n(car, 0.0) / 1000.0, f64::max);
    drawn((COLUMN_WIDTH_PX, HEIGHT_PX), (id, &title, &desc), |area| {
        let (top_kn, steps) = scale(most_kn);
        let format = |kn: &f64| number(*kn);
        let x = Axis { name: "km/h", ink: Ink::Text, from: 0.0, to: end_kmh, labels: 9, format: &whole };
        let y = Axis { name: "Force, kN", ink: Ink::Text, from: 0.0, to: top_kn, labels: steps + 1, format: &format };
        let mut plot = plot(area, Room { left: 34, right: 14, top: 26, bottom: 36 }, &x, &y)?;
        let speeds = || (0..=(end_kmh / STEP_KMH) as u32).map(|step| f64::from(step) * STEP_KMH);
        let loads = speeds().map(|kmh| (kmh, road_load_n(car, kmh / KMH_PER_MPS) / 1000.0));
        line(&mut plot, loads.take_while(|(_, kn)| *kn <= top_kn), Ink::Resistance.line(20))?;
        let bears = speeds().map(|kmh| (kmh, bearable_n(car, kmh / KMH_PER_MPS) / 1000.0));
        line(&mut plot, bears, Ink::Bearable.line(20))?;
        for (gear, curve) in (1u8..).zip(&curves) {
            line(&mut plot, curve.iter().copied(), Ink::Gear(gear).line(25))?;
        }
        let text = |ink: Ink| ink.text(TEXT_PX, HPos::Center, VPos::Center);
        for (gear, curve) in (1u8..).zip(&curves) {
            // On the curve where it is highest, but never at its very beginning.
            let Some(most) = curve.iter().skip(curve.len() / 4).max_by(|a, b| a.1.total_cmp(&b.1)) else { continue };
            plot.draw_series([Circle::new(*most, px(8), Ink::Paper.area())]).map_err(failed)?;
            plot.draw_series([Circle::new(*most, px(8), Ink::Gear(gear).line(15))]).map_err(failed)?;
            plot.draw_series([Text::new(gear.to_string(), *most, text(Ink::Text))]).map_err(failed)?;
        }
        // Upon the numbers, which may stand in the same place.
        for (ratio, kmh) in car.ratios.iter().zip(shifts_kmh) {
            if let Some(force_n) = force_n(car, *ratio, kmh / KMH_PER_MPS) {
                let dot = Circle::new((*kmh, force_n / 1000.0), px(4), Ink::Text.area());
                plot.draw_series([dot]).map_err(failed)?;
            }
        }
        Ok(())
    })
}

/// The step of a right axis that has as many steps as the left one.
fn right_step(largest: f64, steps: usize) -> f64 {
    let least = headroom(largest) / steps as f64;
    let magnitude = 10f64.powf(least.max(1e-6).log10().floor());
    let nice = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0].into_iter().map(|step| step * magnitude);
    nice.into_iter().find(|step| *step >= least).unwrap_or(10.0 * magnitude)
}

/// A number with a decimal only where it has one.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use drag_race::{cars, find_car};

    use super::*;
    use crate::page::read::{lines, scale_across, scale_up, texts};

    #[test]
    fn the_curves_lie_where_the_axes_say() {
        let (_, car) = find_car("mx5").unwrap();
        let svg = torque_and_power(car, "id", Some((5000.0, 6850.0))).unwrap();
        let rpm = scale_across(&svg, ["2000", "6000"]);
        let nm = scale_up(&svg, "blue", ["50", "200"]);
        let kw = scale_up(&svg, "orange", ["25", "100"]);
        let torque = lines(&svg, "blue").remove(0);
        assert!(torque.len() > 100);
        for (x, y) in torque {
            let (wanted, found) = (torque_at(car, rpm(x)), nm(y));
            assert!((wanted - found).abs() < 1.0, "{} rpm: {wanted} Nm, drawn at {found}", rpm(x));
        }
        for (x, y) in lines(&svg, "orange").remove(0) {
            let (wanted, found) = (power_kw(car, rpm(x)), kw(y));
            assert!((wanted - found).abs() < 1.0, "{} rpm: {wanted} kW, drawn at {found}", rpm(x));
        }
    }

    #[test]
    fn forces_are_those_of_the_gears_and_the_road() {
        let (_, car) = find_car("mx5").unwrap();
        let svg = tractive_force(car, "id", &[52.0]).unwrap();
        let kmh = scale_across(&svg, ["50", "200"]);
        let kn = scale_up(&svg, "ink", ["2", "8"]);
        // First gear at the peak of torque: 200.7 Nm · 5.087 · 2.866 · 0.90 over the tyre's radius.
        let first = lines(&svg, "g1").into_iter().max_by_key(Vec::len).unwrap();
        let most = first.iter().map(|(_, y)| kn(*y)).fold(0.0, f64::max);
        let expected = 200.7 * 5.087 * 2.866 * 0.90 / car.tyre_radius_m / 1000.0;
        assert!((most - expected).abs() < 0.05, "{most} kN, by hand {expected}");
        // At 100 km/h: air 0.5 · 1.20 · 0.60 · v², rolling 0.01 (1 + 100/160.9) m g, and 4 Nm of bearings.
        let road = lines(&svg, "ink").into_iter().max_by_key(Vec::len).unwrap();
        let (_, at_100) =
            *road.iter().min_by(|a, b| (kmh(a.0) - 100.0).abs().total_cmp(&(kmh(b.0) - 100.0).abs())).unwrap();
        let by_hand = 0.5 * 1.20 * 0.60 * 27.78f64.powi(2) + 0.01 * 1.6214 * 1131.0 * 9.80665 + 4.0 / car.tyre_radius_m;
        assert!((kn(at_100) * 1000.0 - by_hand).abs() < 15.0, "{} kN, by hand {by_hand} N", kn(at_100));
    }

    #[test]
    fn every_car_of_the_catalogue_has_its_charts() {
        for car in cars() {
            let power = torque_and_power(car, "id", None).unwrap();
            let force = tractive_force(car, "id", &[]).unwrap();
            assert!(!power.contains("NaN") && !force.contains("NaN"), "{}", car.id);
            for gear in 1..=car.ratios.len() {
                let curves = lines(&force, &format!("g{gear}"));
                assert!(curves.iter().any(|points| points.len() > 10), "{}: gear {gear}", car.id);
                assert!(texts(&force).iter().any(|text| text.text == gear.to_string()), "{}: gear {gear}", car.id);
            }
            let top_kmh = TopOfGear::of_car(car).kmh;
            assert!((180.0..400.0).contains(&top_kmh), "{}: {top_kmh} km/h", car.id);
        }
    }

    #[test]
    fn an_axis_of_power_has_as_many_steps_as_that_of_torque() {
        for (largest, steps) in [(115.6, 5), (527.0, 5), (92.0, 7), (0.0, 4)] {
            let step = right_step(largest, steps);
            assert!(
                step * steps as f64 >= largest && step * steps as f64 <= (2.0 * largest).max(1e-3),
                "{largest}: {step}"
            );
        }
    }
}
