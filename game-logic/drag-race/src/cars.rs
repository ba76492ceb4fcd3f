//! What is known of a car, and the catalogue: constants made from `cars.toml` by the build script. No behaviour
//! lives here but looking a car up; what the figures do is in `physics.rs`, which are accepted in `check.rs`.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Which wheels drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drive {
    /// Front wheels.
    Fwd,
    /// Rear wheels.
    Rwd,
    /// All wheels.
    Awd,
}

/// Where the engine sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineAt {
    /// Ahead of the driver.
    Front,
    /// Between the driver and the rear axle.
    Mid,
    /// Behind the rear axle.
    Rear,
}

/// How the engine breathes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspiration {
    /// Naturally aspirated.
    Natural,
    /// Turbocharged.
    Turbo,
    /// Supercharged.
    Supercharged,
    /// An electric motor.
    Electric,
}

/// The gearbox and what the car starts with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Transmission {
    /// A clutch pedal and a lever: no torque while shifting.
    Manual,
    /// Two clutches: one takes over from the other.
    Dct,
    /// Planetary gears behind a torque converter.
    Automatic {
        /// Engine speed that the converter holds with the car braked and the throttle open, in rpm.
        stall_rpm: f64,
        /// Torque multiplication at stall.
        torque_ratio: f64,
    },
    /// One ratio and no clutch: an electric car.
    SingleSpeed,
}

/// How a kind of gearbox changes gear.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shift {
    /// Duration of the change, in s.
    pub time_s: f64,
    /// Share of the engine's torque that reaches the wheels meanwhile.
    pub torque_share: f64,
}

/// What a magazine or the maker measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Elapsed time over the quarter mile, after a rollout of one foot, in s.
    pub quarter_mile_s: f64,
    /// Speed at its end, in mph.
    pub trap_mph: f64,
}

/// What is assumed of all cars of a file or a room alike, and is no part of their figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shared {
    /// Density of the air, in kg/m³.
    pub air_density_kgm3: f64,
    /// Slip at which the tyre pulls hardest.
    pub peak_slip: f64,
    /// Grip of a spinning tyre over its peak.
    pub sliding_grip_share: f64,
    /// Time in which load follows acceleration, in s.
    pub suspension_lag_s: f64,
    /// Clutch torque over peak engine torque.
    pub clutch_capacity_factor: f64,
    /// Drag of an axle that is not driven, in Nm.
    pub undriven_wheel_drag_nm: f64,
    /// How a lever and a clutch pedal change gear.
    pub shift_manual: Shift,
    /// How two clutches change gear.
    pub shift_dct: Shift,
    /// How planetary gears change.
    pub shift_automatic: Shift,
}

impl Default for Shared {
    /// What the catalogue assumes.
    fn default() -> Self {
        SHARED
    }
}

/// Full-throttle torque by engine speed, drawn straight between points `[rpm, Nm]`, which it is as text and in states. Beyond the last point it stays what it
/// is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Torque {
    points: Cow<'static, [[f64; 2]]>,
}

/// A part of a [`Torque`] curve that is straight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TorqueLine {
    from_rpm: f64,
    to_rpm: f64,
    from_nm: f64,
    nm_per_rpm: f64,
}

impl Default for TorqueLine {
    /// One that holds nowhere.
    fn default() -> Self {
        Self { from_rpm: f64::INFINITY, to_rpm: 0.0, from_nm: 0.0, nm_per_rpm: 0.0 }
    }
}

impl TorqueLine {
    /// Whether the curve is this line at an engine speed.
    #[inline(always)]
    pub(crate) fn holds(&self, rpm: f64) -> bool {
        rpm >= self.from_rpm && rpm < self.to_rpm
    }

    /// Torque at an engine speed on it, in Nm.
    #[inline(always)]
    pub(crate) fn nm(&self, rpm: f64) -> f64 {
        self.from_nm + (rpm - self.from_rpm) * self.nm_per_rpm
    }
}

impl Torque {
    const fn fixed(points: &'static [[f64; 2]]) -> Self {
        Self { points: Cow::Borrowed(points) }
    }

    /// The curve drawn straight between points [rpm, Nm]. Which points are accepted is for [`Car::check`] to say.
    pub fn new(points: Vec<[f64; 2]>) -> Self {
        Self { points: points.into() }
    }

    /// Its points [rpm, Nm].
    pub fn points(&self) -> &[[f64; 2]] {
        &self.points
    }

    /// The line that it is at an engine speed.
    pub(crate) fn line_at(&self, rpm: f64) -> TorqueLine {
        let mut from = self.points.first().copied().unwrap_or_default();
        for &[to_rpm, to_nm] in self.points.iter().skip(1) {
            let [from_rpm, from_nm] = from;
            if rpm < to_rpm {
                return TorqueLine { from_rpm, to_rpm, from_nm, nm_per_rpm: (to_nm - from_nm) / (to_rpm - from_rpm) };
            }
            from = [to_rpm, to_nm];
        }
        let [from_rpm, from_nm] = from;
        TorqueLine { from_rpm, to_rpm: f64::INFINITY, from_nm, nm_per_rpm: 0.0 }
    }
}

impl Serialize for Torque {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.points.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Torque {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::new)
    }
}

/// Where a figure comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Which figures.
    pub fact: Cow<'static, str>,
    /// Publication and article.
    pub name: Cow<'static, str>,
    /// Address of the page read; empty if `from_memory`.
    pub url: Cow<'static, str>,
    /// Written down from knowledge of the publication, not read while the file was made.
    pub from_memory: bool,
}

/// One car. Units are in the names; masses include the driver. [`Car::check`] says which figures are accepted.
///
/// As JSON, in a room's options, it has these fields but [`shared`](Self::shared), which is given once for all, and [`sources`](Self::sources).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Car {
    /// The name used in a race's setup.
    pub id: Cow<'static, str>,
    /// The name shown to players.
    pub name: Cow<'static, str>,
    /// Model year.
    pub year: u16,
    /// Which wheels drive.
    pub drive: Drive,
    /// Where the engine sits.
    pub engine_at: EngineAt,
    /// How the engine breathes.
    pub aspiration: Aspiration,
    /// The gearbox.
    pub transmission: Transmission,
    /// Mass with driver, in kg.
    pub mass_kg: f64,
    /// Share of the weight on the front axle at rest.
    pub front_weight_share: f64,
    /// Distance of the axles, in m.
    pub wheelbase_m: f64,
    /// Height of the centre of gravity, in m.
    pub cg_height_m: f64,
    /// Drag coefficient times frontal area, in m².
    pub drag_area_m2: f64,
    /// Name of the tyre's class.
    pub tyre_class: Cow<'static, str>,
    /// Peak friction of the tyre.
    pub tyre_grip: f64,
    /// Rolling radius of the driven wheels, in m.
    pub tyre_radius_m: f64,
    /// Torque at the wheels over torque of the engine times the ratio.
    pub driveline_efficiency: f64,
    /// Engine turns per wheel turn in each gear, first gear first.
    pub ratios: Cow<'static, [f64]>,
    /// Inertia of engine, flywheel and clutch cover (or of the rotors), in kg m².
    pub engine_inertia_kgm2: f64,
    /// Inertia of one wheel with tyre and brake disc, in kg m².
    pub wheel_inertia_kgm2: f64,
    /// Idle speed, in rpm; 0 for an electric car.
    pub idle_rpm: f64,
    /// Engine speed at which fuel is cut, in rpm.
    pub limiter_rpm: f64,
    /// Rated torque, in Nm.
    pub peak_torque_nm: f64,
    /// Rated power, in kW.
    pub peak_power_kw: f64,
    /// Full-throttle torque by engine speed, in Nm.
    pub torque_nm: Torque,
    /// A good engine speed to leave the line with, in rpm: advice for drivers, not part of the physics.
    pub launch_rpm: f64,
    /// A good engine speed to change up at, in rpm: advice for drivers, not part of the physics.
    pub shift_rpm: f64,
    /// What was measured of the real car; none of a car that nobody has tested.
    pub published: Option<Published>,
    /// What is assumed of it and of the cars beside it.
    #[serde(skip)]
    pub shared: Shared,
    /// Where the figures come from; empty where nobody says.
    #[serde(skip)]
    pub sources: Cow<'static, [Source]>,
}

/// The file that the catalogue is made from: the example of a car file.
pub const CATALOGUE_TOML: &str = include_str!("../cars.toml");

include!(concat!(env!("OUT_DIR"), "/catalogue.rs"));

/// All cars, in the file's order.
pub fn cars() -> &'static [Car] {
    &CARS
}

/// The car with this id and its index in [`cars`]; an error that names the id and lists the known ones.
pub fn find_car(id: &str) -> Result<(u16, &'static Car), UnknownCar> {
    match CARS.iter().enumerate().find(|(_, car)| car.id == id) {
        Some((index, car)) => Ok((index as u16, car)),
        None => Err(UnknownCar { id: id.chars().take(UnknownCar::SHOWN_CHARS_MAX).collect() }),
    }
}

/// Someone asked for a car that is not in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownCar {
    /// The id asked for, cut to [`Self::SHOWN_CHARS_MAX`] characters.
    pub id: String,
}

impl UnknownCar {
    /// Characters of a wrong id that are repeated in the message: an id comes from a player and may be any length.
    pub const SHOWN_CHARS_MAX: usize = 40;
}

impl core::fmt::Display for UnknownCar {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "no car has the id {:?}; known cars:", self.id)?;
        for (index, car) in CARS.iter().enumerate() {
            write!(f, "{} {}", if index == 0 { "" } else { "," }, car.id)?;
        }
        Ok(())
    }
}

impl core::error::Error for UnknownCar {}

impl From<&Car> for Arc<Car> {
    fn from(car: &Car) -> Self {
        Arc::new(car.clone())
    }
}

impl Car {
    /// How this car changes gear.
    pub fn shift(&self) -> Shift {
        match self.transmission {
            Transmission::Manual => self.shared.shift_manual,
            Transmission::Dct => self.shared.shift_dct,
            Transmission::Automatic { .. } | Transmission::SingleSpeed => self.shared.shift_automatic,
        }
    }

    /// Whether the left pedal is a clutch (manual, dual clutch) or, with a converter or a motor, the brake.
    pub fn has_clutch(&self) -> bool {
        matches!(self.transmission, Transmission::Manual | Transmission::Dct)
    }

    /// Highest gear.
    pub fn top_gear(&self) -> u8 {
        self.ratios.len() as u8
    }

    /// The index class in which its times are compared: the published elapsed time rounded up to the half second, in s with one decimal: `12.5`.
    /// As in index racing nobody is quicker than the class says. A car without a published time is in no class.
    pub fn index_class(&self) -> Option<&'static str> {
        let halves = libm::ceil(self.published?.quarter_mile_s * 2.0) as usize;
        INDEX_CLASSES.get(halves).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::physics::torque_at;

    #[test]
    fn torque_curves_peak_where_the_maker_says() {
        for car in cars() {
            let rpms =
                || (0..=250).map(|hundreds| f64::from(hundreds) * 100.0).take_while(|rpm| *rpm <= car.limiter_rpm);
            let torque_nm = rpms().map(|rpm| torque_at(car, rpm)).fold(0.0, f64::max);
            let power_kw =
                rpms().map(|rpm| torque_at(car, rpm) * rpm * core::f64::consts::PI / 30.0 / 1000.0).fold(0.0, f64::max);
            assert!((torque_nm / car.peak_torque_nm - 1.0).abs() < 0.005, "{}: {torque_nm} Nm", car.id);
            assert!((power_kw / car.peak_power_kw - 1.0).abs() < 0.005, "{}: {power_kw} kW", car.id);
        }
    }

    #[test]
    fn a_curve_goes_straight_from_point_to_point_and_stays_beyond_the_last() {
        let torque = Torque::new(vec![[0.0, 100.0], [1000.0, 200.0], [3000.0, 50.0]]);
        for (rpm, nm) in [(0.0, 100.0), (250.0, 125.0), (1000.0, 200.0), (2000.0, 125.0), (3000.0, 50.0), (9e9, 50.0)] {
            let line = torque.line_at(rpm);
            assert!(line.holds(rpm) && line.nm(rpm) == nm, "{rpm} rpm: {line:?}");
        }
        let line = torque.line_at(999.0);
        assert!(line.holds(0.0) && !line.holds(1000.0) && !line.holds(f64::NAN) && !TorqueLine::default().holds(0.0));
        // No curve is without points and no engine turns backwards, but a number is a number.
        assert_eq!(Torque::new(Vec::new()).line_at(5.0).nm(5.0), 0.0);
        assert!(torque.line_at(f64::NAN).nm(2.0).is_finite() && torque.line_at(-1.0).nm(-1.0).is_finite());
    }

    #[test]
    fn a_class_is_the_published_time_rounded_up_to_the_half_second() {
        for car in cars() {
            let class = car.index_class().unwrap();
            let class_s: f64 = class.parse().unwrap();
            let over_s = class_s - car.published.unwrap().quarter_mile_s;
            assert!((0.0..0.5).contains(&over_s) && class_s * 2.0 % 1.0 == 0.0, "{}: {class}", car.id);
        }
        let class = |id| find_car(id).unwrap().1.index_class().unwrap();
        assert_eq!([class("mx5"), class("corvette_c8"), class("golf_gti")], ["15.0", "11.5", "14.5"]);
        assert_eq!(Car { published: None, ..cars()[0].clone() }.index_class(), None);
    }

    #[test]
    fn the_catalogue_has_every_layout() {
        assert!(cars().len() >= 8);
        let has = |test: fn(&Car) -> bool| assert!(cars().iter().any(test));
        has(|car| car.drive == Drive::Fwd);
        has(|car| car.drive == Drive::Rwd && car.engine_at == EngineAt::Front);
        has(|car| car.drive == Drive::Rwd && car.engine_at == EngineAt::Mid);
        has(|car| car.drive == Drive::Rwd && car.engine_at == EngineAt::Rear);
        has(|car| car.drive == Drive::Awd);
        has(|car| car.transmission == Transmission::Manual);
        has(|car| car.transmission == Transmission::Dct);
        has(|car| matches!(car.transmission, Transmission::Automatic { .. }));
        has(|car| car.transmission == Transmission::SingleSpeed);
    }

    #[test]
    fn every_car_is_accepted_and_has_a_time_with_a_source_that_was_read() {
        for car in cars() {
            assert_eq!((car.check(), car.shared.check()), (Ok(()), Ok(())));
            assert!(car.published.is_some(), "{}", car.id);
            assert!(
                car.sources.iter().any(|source| source.fact.contains("quarter mile") && !source.from_memory),
                "{}",
                car.id
            );
        }
    }

    #[test]
    fn an_unknown_car_is_named_and_the_known_ones_listed() {
        let message = find_car("dragster").unwrap_err().to_string();
        assert!(message.contains("\"dragster\"") && message.contains("mx5, civic_type_r"), "{message}");
    }
}
