//! The accepted ranges of a car's figures, in one place for the reader of car files, which is also part of the build script, and for the module,
//! which takes cars from whoever opens a room. Wide enough for any road car and many that are not; what lies beyond is a slip of the pen. Only
//! constants live here.

use core::ops::RangeInclusive;

/// Cars of a file or a room. The classes of a season fit; a room has 64 lanes.
pub const CARS_MAX: usize = 256;
/// Bytes of a car's id.
pub const ID_BYTES: RangeInclusive<usize> = 1..=32;
/// Bytes of a car's name.
pub const NAME_BYTES: RangeInclusive<usize> = 1..=80;
/// Model year.
pub const YEAR: RangeInclusive<f64> = 1900.0..=2100.0;
/// Mass without driver, in kg.
pub const CURB_MASS_KG: RangeInclusive<f64> = 300.0..=5000.0;
/// Mass of driver, helmet and timing gear, in kg.
pub const DRIVER_MASS_KG: RangeInclusive<f64> = 40.0..=200.0;
/// Both together.
pub const MASS_KG: RangeInclusive<f64> = 340.0..=5200.0;
/// Share of the weight on the front axle.
pub const FRONT_WEIGHT_SHARE: RangeInclusive<f64> = 0.2..=0.8;
/// Distance of the axles, in m.
pub const WHEELBASE_M: RangeInclusive<f64> = 1.5..=4.5;
/// Height of the centre of gravity, in m.
pub const CG_HEIGHT_M: RangeInclusive<f64> = 0.2..=1.2;
/// Drag coefficient times frontal area, in m².
pub const DRAG_AREA_M2: RangeInclusive<f64> = 0.2..=2.0;
/// Peak friction of a tyre.
pub const TYRE_GRIP: RangeInclusive<f64> = 0.4..=3.0;
/// Width of a tyre, in mm.
pub const TYRE_WIDTH_MM: RangeInclusive<f64> = 125.0..=405.0;
/// Side wall of a tyre, in percent of its width.
pub const TYRE_ASPECT_PERCENT: RangeInclusive<f64> = 20.0..=85.0;
/// Rim of a tyre, in inches.
pub const TYRE_RIM_IN: RangeInclusive<f64> = 12.0..=24.0;
/// Rolling over free radius.
pub const ROLLING_RADIUS_SHARE: RangeInclusive<f64> = 0.9..=1.0;
/// Rolling radius, in m: what the four before this one give.
pub const TYRE_RADIUS_M: RangeInclusive<f64> = 0.15..=0.65;
/// Torque at the wheels over torque of the engine times the ratio.
pub const DRIVELINE_EFFICIENCY: RangeInclusive<f64> = 0.6..=1.0;
/// Gears of a gearbox; one with a single gear has a type of its own.
pub const GEARS: RangeInclusive<usize> = 2..=10;
/// Ratio of a gear.
pub const GEAR: RangeInclusive<f64> = 0.2..=20.0;
/// Ratio of the final drive.
pub const FINAL_DRIVE: RangeInclusive<f64> = 1.0..=20.0;
/// Both multiplied.
pub const RATIO: RangeInclusive<f64> = 0.2..=400.0;
/// Inertia of the engine, in kg m².
pub const ENGINE_INERTIA_KGM2: RangeInclusive<f64> = 0.01..=2.0;
/// Inertia of a wheel, in kg m².
pub const WHEEL_INERTIA_KGM2: RangeInclusive<f64> = 0.2..=6.0;
/// Idle speed of a combustion engine, in rpm.
pub const IDLE_RPM: RangeInclusive<f64> = 400.0..=1500.0;
/// Idle speed of an electric motor, in rpm.
pub const IDLE_ELECTRIC_RPM: RangeInclusive<f64> = 0.0..=0.0;
/// Speed at which fuel is cut, in rpm.
pub const LIMITER_RPM: RangeInclusive<f64> = 2000.0..=25_000.0;
/// Rated torque, in Nm.
pub const PEAK_TORQUE_NM: RangeInclusive<f64> = 30.0..=3000.0;
/// Rated power, in kW.
pub const PEAK_POWER_KW: RangeInclusive<f64> = 15.0..=2000.0;
/// Engine speed that a converter holds, in rpm.
pub const STALL_RPM: RangeInclusive<f64> = 1200.0..=6000.0;
/// Torque multiplication of a converter at stall.
pub const CONVERTER_TORQUE_RATIO: RangeInclusive<f64> = 1.2..=3.5;
/// The lowest speed to change up at, over the limiter's.
pub const SHIFT_OVER_LIMITER_MIN: f64 = 0.5;
/// A published elapsed time over the quarter mile, in s.
pub const PUBLISHED_QUARTER_MILE_S: RangeInclusive<f64> = 5.0..=40.0;
/// A published speed at its end, in mph.
pub const PUBLISHED_TRAP_MPH: RangeInclusive<f64> = 30.0..=350.0;

/// Density of the air, in kg/m³.
pub const AIR_DENSITY_KGM3: RangeInclusive<f64> = 0.7..=1.5;
/// Slip at which a tyre pulls hardest.
pub const PEAK_SLIP: RangeInclusive<f64> = 0.03..=0.4;
/// Grip of a spinning tyre over its peak.
pub const SLIDING_GRIP_SHARE: RangeInclusive<f64> = 0.3..=1.0;
/// Time in which load follows acceleration, in s.
pub const SUSPENSION_LAG_S: RangeInclusive<f64> = 0.01..=0.5;
/// Clutch torque over peak engine torque.
pub const CLUTCH_CAPACITY_FACTOR: RangeInclusive<f64> = 1.05..=4.0;
/// Drag of an axle that is not driven, in Nm.
pub const UNDRIVEN_WHEEL_DRAG_NM: RangeInclusive<f64> = 0.0..=50.0;
/// Duration of a gear change, in s.
pub const SHIFT_TIME_S: RangeInclusive<f64> = 0.005..=1.5;
/// Share of the torque that reaches the wheels meanwhile.
pub const SHIFT_TORQUE_SHARE: RangeInclusive<f64> = 0.0..=1.0;

/// What is said of a number outside its range.
pub fn accepted(range: &RangeInclusive<f64>) -> String {
    format!("a number from {} to {}", range.start(), range.end())
}

/// Whether a text can be a car's id.
pub fn is_id(text: &str) -> bool {
    ID_BYTES.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Whether a text can be a car's name: it is shown on terminals and pages.
pub fn is_name(text: &str) -> bool {
    NAME_BYTES.contains(&text.len()) && !text.chars().any(char::is_control)
}
