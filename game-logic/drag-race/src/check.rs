//! Whether a car's figures are accepted: the same ranges as in a car file, for cars that come as JSON from whoever opens a room, and once more when
//! a saved state brings them back. What the figures do is in `physics.rs`.

use core::fmt;
use core::ops::RangeInclusive;

use crate::cars::{Car, Shared, Shift, Transmission};
use crate::{curve, ranges};

/// Characters of a wrong text that are repeated in the message.
const SHOWN_CHARS_MAX: usize = 40;

/// A figure of a car that is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarError {
    /// `car "mx5"`, or `shared`.
    pub car: String,
    /// The field, as in [`Car`] or [`Shared`].
    pub field: &'static str,
    /// The value.
    pub value: String,
    /// What is accepted there.
    pub accepted: String,
}

impl fmt::Display for CarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: field `{}` is {}; accepted: {}", self.car, self.field, self.value, self.accepted)
    }
}

impl core::error::Error for CarError {}

impl Car {
    /// Checks every field but [`shared`](Self::shared) against the ranges of `ranges.rs`.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), CarError> {
        let label = format!("car {:?}", shown(&self.id));
        let wrong = |field, value: String, accepted: &str| {
            Err(CarError { car: label.clone(), field, value, accepted: accepted.to_string() })
        };
        if !ranges::is_id(&self.id) {
            let accepted = "1 to 32 lower-case letters, digits and underscores";
            return wrong("id", format!("{:?}", shown(&self.id)), accepted);
        }
        if !ranges::is_name(&self.name) {
            return wrong("name", format!("{:?}", shown(&self.name)), "text of 1 to 80 bytes, on one line");
        }
        if !ranges::NAME_BYTES.contains(&self.tyre_class.len()) {
            return wrong("tyre_class", format!("{:?}", shown(&self.tyre_class)), "text of 1 to 80 bytes");
        }
        let gears = self.ratios.len();
        let single_speed = self.transmission == Transmission::SingleSpeed;
        if !(if single_speed { gears == 1 } else { ranges::GEARS.contains(&gears) }) {
            let accepted = "2 to 10 ratios, or exactly one for transmission = \"single_speed\"";
            return wrong("ratios", format!("a list of {gears}"), accepted);
        }
        if !self.ratios.is_sorted_by(|low, high| low > high) {
            return wrong("ratios", format!("{:?}", self.ratios), "ratios that fall from first gear to the last");
        }
        let idle = if single_speed { &ranges::IDLE_ELECTRIC_RPM } else { &ranges::IDLE_RPM };
        let mut figures = vec![
            ("year", f64::from(self.year), &ranges::YEAR),
            ("mass_kg", self.mass_kg, &ranges::MASS_KG),
            ("front_weight_share", self.front_weight_share, &ranges::FRONT_WEIGHT_SHARE),
            ("wheelbase_m", self.wheelbase_m, &ranges::WHEELBASE_M),
            ("cg_height_m", self.cg_height_m, &ranges::CG_HEIGHT_M),
            ("drag_area_m2", self.drag_area_m2, &ranges::DRAG_AREA_M2),
            ("tyre_grip", self.tyre_grip, &ranges::TYRE_GRIP),
            ("tyre_radius_m", self.tyre_radius_m, &ranges::TYRE_RADIUS_M),
            ("driveline_efficiency", self.driveline_efficiency, &ranges::DRIVELINE_EFFICIENCY),
            ("engine_inertia_kgm2", self.engine_inertia_kgm2, &ranges::ENGINE_INERTIA_KGM2),
            ("wheel_inertia_kgm2", self.wheel_inertia_kgm2, &ranges::WHEEL_INERTIA_KGM2),
            ("idle_rpm", self.idle_rpm, idle),
            ("limiter_rpm", self.limiter_rpm, &ranges::LIMITER_RPM),
            ("peak_torque_nm", self.peak_torque_nm, &ranges::PEAK_TORQUE_NM),
            ("peak_power_kw", self.peak_power_kw, &ranges::PEAK_POWER_KW),
        ];
        figures.extend(self.ratios.iter().map(|ratio| ("ratios", *ratio, &ranges::RATIO)));
        if let Transmission::Automatic { stall_rpm, torque_ratio } = self.transmission {
            figures.push(("transmission.automatic.stall_rpm", stall_rpm, &ranges::STALL_RPM));
            figures.push(("transmission.automatic.torque_ratio", torque_ratio, &ranges::CONVERTER_TORQUE_RATIO));
        }
        if let Some(published) = self.published {
            figures.push(("published.quarter_mile_s", published.quarter_mile_s, &ranges::PUBLISHED_QUARTER_MILE_S));
            figures.push(("published.trap_mph", published.trap_mph, &ranges::PUBLISHED_TRAP_MPH));
        }
        check(&label, &figures)?;
        let advice = [
            ("launch_rpm", self.launch_rpm, &(0.0..=self.limiter_rpm)),
            ("shift_rpm", self.shift_rpm, &(ranges::SHIFT_OVER_LIMITER_MIN * self.limiter_rpm..=self.limiter_rpm)),
        ];
        check(&label, &advice)?;

        let points = self.torque_nm.points();
        let before = std::iter::once(None).chain(points.iter().map(Some));
        if let Some((_, point)) = before.zip(points).find(|(last, point)| !curve::follows(*last, point)) {
            return wrong("torque_nm", format!("{point:?}"), curve::POINT_ACCEPTED);
        }
        if !curve::is_whole(points, self.limiter_rpm) {
            let last =
                points.last().map_or_else(|| "empty".to_string(), |last| format!("a list that ends with {last:?}"));
            return wrong("torque_nm", last, curve::POINTS_ACCEPTED);
        }
        Ok(())
    }
}

impl Shared {
    /// Checks every field against the ranges of `ranges.rs`.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), CarError> {
        let shift = |time, share, shift: Shift| {
            [(time, shift.time_s, &ranges::SHIFT_TIME_S), (share, shift.torque_share, &ranges::SHIFT_TORQUE_SHARE)]
        };
        check(
            "shared",
            &[
                ("air_density_kgm3", self.air_density_kgm3, &ranges::AIR_DENSITY_KGM3),
                ("peak_slip", self.peak_slip, &ranges::PEAK_SLIP),
                ("sliding_grip_share", self.sliding_grip_share, &ranges::SLIDING_GRIP_SHARE),
                ("suspension_lag_s", self.suspension_lag_s, &ranges::SUSPENSION_LAG_S),
                ("clutch_capacity_factor", self.clutch_capacity_factor, &ranges::CLUTCH_CAPACITY_FACTOR),
                ("undriven_wheel_drag_nm", self.undriven_wheel_drag_nm, &ranges::UNDRIVEN_WHEEL_DRAG_NM),
            ],
        )?;
        check("shared", &shift("shift_manual.time_s", "shift_manual.torque_share", self.shift_manual))?;
        check("shared", &shift("shift_dct.time_s", "shift_dct.torque_share", self.shift_dct))?;
        check("shared", &shift("shift_automatic.time_s", "shift_automatic.torque_share", self.shift_automatic))
    }
}

fn check(car: &str, figures: &[(&'static str, f64, &RangeInclusive<f64>)]) -> Result<(), CarError> {
    match figures.iter().find(|(_, value, range)| !range.contains(value)) {
        None => Ok(()),
        Some((field, value, range)) => {
            Err(CarError { car: car.to_string(), field, value: value.to_string(), accepted: ranges::accepted(range) })
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}
