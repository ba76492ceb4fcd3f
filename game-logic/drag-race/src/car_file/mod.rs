//! Reads and checks the car file, also as a part of the build script, which stops the build on the first wrong field. It turns text into checked
//! figures; it knows nothing of physics or of Rust source.

mod place;

use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::{curve, ranges};
pub use place::tidy;
use place::{Place, Text, figure};

/// Longest car file, in bytes. The catalogue takes 1.5 KiB a car with all its sources; [`ranges::CARS_MAX`] of those have room.
pub const CAR_FILE_BYTES_MAX: usize = 1 << 20;

/// Why a car file was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CarFileError {
    /// The file is longer than [`CAR_FILE_BYTES_MAX`].
    TooLong {
        /// The file.
        path: String,
        /// Its length in bytes.
        bytes: usize,
    },
    /// The text is not TOML.
    NotToml {
        /// The file.
        path: String,
        /// Where in it, from 1.
        line: usize,
        /// What the parser says.
        problem: String,
    },
    /// A field is missing, unknown or out of its range.
    Field(Box<WrongField>),
}

/// A field that was refused, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongField {
    /// The file.
    pub path: String,
    /// Line of the value, from 1; of the table's header for a field that is missing.
    pub line: usize,
    /// `car "mx5"`, `car number 3` where it has no id, `shared`, or `the file`.
    pub car: String,
    /// The field, with its table in front: `published.trap_mph`.
    pub field: String,
    /// The value as the file has it, cut where it is long, or `missing`.
    pub value: String,
    /// What is accepted there.
    pub accepted: String,
}

impl fmt::Display for CarFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { path, bytes } => {
                write!(f, "{path} has {bytes} bytes; accepted: a car file of up to {CAR_FILE_BYTES_MAX}")
            }
            Self::NotToml { path, line, problem } => write!(f, "{path}:{line}: not TOML: {problem}"),
            Self::Field(wrong) => {
                let WrongField { path, line, car, field, value, accepted } = &**wrong;
                write!(f, "{path}:{line}: {car}: field `{field}` is {value}; accepted: {accepted}")
            }
        }
    }
}

impl std::error::Error for CarFileError {}

/// How one kind of gearbox changes gear.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShiftEntry {
    /// Duration of the change, in s.
    pub time_s: f64,
    /// Share of the engine's torque that reaches the wheels meanwhile.
    pub torque_share: f64,
}

/// What is assumed of every car of the file alike and is not a part of its figures.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of the file, which explains them")]
pub struct SharedEntry {
    pub air_density_kgm3: f64,
    pub peak_slip: f64,
    pub sliding_grip_share: f64,
    pub suspension_lag_s: f64,
    pub clutch_capacity_factor: f64,
    pub undriven_wheel_drag_nm: f64,
    pub shift_manual: ShiftEntry,
    pub shift_dct: ShiftEntry,
    pub shift_automatic: ShiftEntry,
}

/// A named source of a figure.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the file, which explains them")]
pub struct SourceEntry {
    pub fact: String,
    pub name: String,
    pub url: String,
    pub from_memory: bool,
}

/// One checked car. Figures that the file gives in parts are put together: mass with driver, ratios with the final drive, the tyre's radius.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of the file, which explains them")]
pub struct CarEntry {
    pub id: String,
    pub name: String,
    pub year: u16,
    pub drive: &'static str,
    pub engine_at: &'static str,
    pub aspiration: &'static str,
    pub transmission: &'static str,
    pub mass_kg: f64,
    pub front_weight_share: f64,
    pub wheelbase_m: f64,
    pub cg_height_m: f64,
    pub drag_area_m2: f64,
    pub tyre_class: &'static str,
    pub tyre_grip: f64,
    pub tyre_radius_m: f64,
    pub driveline_efficiency: f64,
    pub ratios: Vec<f64>,
    pub engine_inertia_kgm2: f64,
    pub wheel_inertia_kgm2: f64,
    pub idle_rpm: f64,
    pub limiter_rpm: f64,
    pub peak_torque_nm: f64,
    pub peak_power_kw: f64,
    /// Points [rpm, Nm].
    pub torque_nm: Vec<[f64; 2]>,
    pub stall_rpm: f64,
    pub converter_torque_ratio: f64,
    pub launch_rpm: f64,
    pub shift_rpm: f64,
    /// Elapsed time over the quarter mile in s and speed at its end in mph, where there is a published test.
    pub published: Option<(f64, f64)>,
    pub sources: Vec<SourceEntry>,
    /// Line of its header, from 1.
    pub line: usize,
}

/// Everything a car file says.
#[derive(Clone, Debug, PartialEq)]
pub struct CarFile {
    /// What is assumed of every car.
    pub shared: SharedEntry,
    /// The cars, in the file's order; one at least.
    pub cars: Vec<CarEntry>,
}

const DRIVES: &[&str] = &["fwd", "rwd", "awd"];
const ENGINE_PLACES: &[&str] = &["front", "mid", "rear"];
const ASPIRATIONS: &[&str] = &["natural", "turbo", "supercharged", "electric"];
const TRANSMISSIONS: &[&str] = &["manual", "dct", "automatic", "single_speed"];
const TYRE_CLASSES: &[&str] = &["summer", "max_performance", "track"];

#[rustfmt::skip]
const CAR_FIELDS: &[&str] = &[
    "id", "name", "year", "drive", "engine_at", "aspiration", "transmission", "curb_mass_kg", "front_weight_share", "wheelbase_m", "cg_height_m",
    "drag_area_m2", "tyre_class", "driven_tyre", "gears", "final_drive", "engine_inertia_kgm2", "wheel_inertia_kgm2", "idle_rpm", "limiter_rpm",
    "peak_torque_nm", "peak_power_kw", "torque_nm", "converter", "launch_rpm", "shift_rpm", "published", "sources",
];

#[rustfmt::skip]
const SHARED_FIELDS: &[&str] = &[
    "driver_mass_kg", "air_density_kgm3", "rolling_radius_share", "peak_slip", "sliding_grip_share", "suspension_lag_s", "clutch_capacity_factor",
    "undriven_wheel_drag_nm", "tyre_grip", "driveline_efficiency", "shift",
];

/// Checks the text of a car file; `path` is only for errors.
///
/// # Errors
/// The first thing that is wrong.
pub fn read(text: &str, path: &str) -> Result<CarFile, CarFileError> {
    if text.len() > CAR_FILE_BYTES_MAX {
        return Err(CarFileError::TooLong { path: path.to_string(), bytes: text.len() });
    }
    let file = Text { path, text };
    let root = DeTable::parse(text).map_err(|error| CarFileError::NotToml {
        path: path.to_string(),
        line: file.line(error.span().map_or(0, |span| span.start)),
        problem: error.message().to_string(),
    })?;
    let top = Place { file: &file, car: "the file", prefix: String::new(), table: root.get_ref(), header: 0..0 };
    top.only(&["shared", "car"])?;
    let shared = Place { car: "shared", prefix: String::new(), ..top.below("shared")? };
    let values = read_shared(&shared)?;
    let list = match top.list("car") {
        Some(list) if (1..=ranges::CARS_MAX).contains(&list.len()) => list,
        _ => return Err(top.wrong("car", format!("1 to {} tables [[car]]", ranges::CARS_MAX))),
    };
    let mut cars: Vec<CarEntry> = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let label = match value.get_ref() {
            DeValue::Table(table) => label(table, index),
            _ => return Err(top.wrong_at("car", Some(value.span()), "[[car]] tables")),
        };
        let Some(place) = top.inside("car", value) else { continue };
        let place = Place { car: &label, prefix: String::new(), ..place };
        let car = read_car(&place, &shared)?;
        if let Some(other) = cars.iter().find(|other| other.id == car.id) {
            return Err(place.wrong("id", format!("an id that no other car has; that of line {} has it", other.line)));
        }
        cars.push(car);
    }
    Ok(CarFile { shared: values, cars })
}

fn label(table: &DeTable<'_>, index: usize) -> String {
    match table.get("id").map(Spanned::get_ref) {
        Some(DeValue::String(id)) if ranges::is_id(id) => format!("car \"{id}\""),
        _ => format!("car number {}", index + 1),
    }
}

fn read_shared(shared: &Place<'_>) -> Result<SharedEntry, CarFileError> {
    shared.only(SHARED_FIELDS)?;
    let shift = shared.below("shift")?;
    shift.only(&["manual", "dct", "automatic"])?;
    let one = |name: &str| -> Result<ShiftEntry, CarFileError> {
        let place = shift.below(name)?;
        place.only(&["time_s", "torque_share"])?;
        Ok(ShiftEntry {
            time_s: place.number("time_s", &ranges::SHIFT_TIME_S)?,
            torque_share: place.number("torque_share", &ranges::SHIFT_TORQUE_SHARE)?,
        })
    };
    Ok(SharedEntry {
        air_density_kgm3: shared.number("air_density_kgm3", &ranges::AIR_DENSITY_KGM3)?,
        peak_slip: shared.number("peak_slip", &ranges::PEAK_SLIP)?,
        sliding_grip_share: shared.number("sliding_grip_share", &ranges::SLIDING_GRIP_SHARE)?,
        suspension_lag_s: shared.number("suspension_lag_s", &ranges::SUSPENSION_LAG_S)?,
        clutch_capacity_factor: shared.number("clutch_capacity_factor", &ranges::CLUTCH_CAPACITY_FACTOR)?,
        undriven_wheel_drag_nm: shared.number("undriven_wheel_drag_nm", &ranges::UNDRIVEN_WHEEL_DRAG_NM)?,
        shift_manual: one("manual")?,
        shift_dct: one("dct")?,
        shift_automatic: one("automatic")?,
    })
}

fn read_car(car: &Place<'_>, shared: &Place<'_>) -> Result<CarEntry, CarFileError> {
    car.only(CAR_FIELDS)?;
    let id = car.text("id", &ranges::ID_BYTES)?;
    if !ranges::is_id(id) {
        return Err(car.wrong("id", "lower-case letters, digits and underscores"));
    }
    let drive = car.choice("drive", DRIVES)?;
    let transmission = car.choice("transmission", TRANSMISSIONS)?;
    let single_speed = transmission == "single_speed";
    let tyre_class = car.choice("tyre_class", TYRE_CLASSES)?;
    let grips = shared.below("tyre_grip")?;
    grips.only(TYRE_CLASSES)?;
    let efficiencies = shared.below("driveline_efficiency")?;
    efficiencies.only(&["fwd", "rwd", "awd", "electric"])?;
    let driveline = if single_speed { "electric" } else { drive };
    let limiter_rpm = car.number("limiter_rpm", &ranges::LIMITER_RPM)?;
    let idle = if single_speed { &ranges::IDLE_ELECTRIC_RPM } else { &ranges::IDLE_RPM };
    let (stall_rpm, converter_torque_ratio) = converter(car, transmission)?;
    let curb_mass_kg = car.number("curb_mass_kg", &ranges::CURB_MASS_KG)?;
    let rolling_radius_share = shared.number("rolling_radius_share", &ranges::ROLLING_RADIUS_SHARE)?;

    Ok(CarEntry {
        id: id.to_string(),
        name: car.text("name", &ranges::NAME_BYTES)?.to_string(),
        year: car.number("year", &ranges::YEAR)? as u16,
        drive,
        engine_at: car.choice("engine_at", ENGINE_PLACES)?,
        aspiration: car.choice("aspiration", ASPIRATIONS)?,
        transmission,
        mass_kg: tidy(curb_mass_kg + shared.number("driver_mass_kg", &ranges::DRIVER_MASS_KG)?),
        front_weight_share: car.number("front_weight_share", &ranges::FRONT_WEIGHT_SHARE)?,
        wheelbase_m: car.number("wheelbase_m", &ranges::WHEELBASE_M)?,
        cg_height_m: car.number("cg_height_m", &ranges::CG_HEIGHT_M)?,
        drag_area_m2: car.number("drag_area_m2", &ranges::DRAG_AREA_M2)?,
        tyre_class,
        tyre_grip: grips.number(tyre_class, &ranges::TYRE_GRIP)?,
        tyre_radius_m: tidy(tyre_radius_m(car)? * rolling_radius_share),
        driveline_efficiency: efficiencies.number(driveline, &ranges::DRIVELINE_EFFICIENCY)?,
        ratios: ratios(car, single_speed)?,
        engine_inertia_kgm2: car.number("engine_inertia_kgm2", &ranges::ENGINE_INERTIA_KGM2)?,
        wheel_inertia_kgm2: car.number("wheel_inertia_kgm2", &ranges::WHEEL_INERTIA_KGM2)?,
        idle_rpm: car.number("idle_rpm", idle)?,
        limiter_rpm,
        peak_torque_nm: car.number("peak_torque_nm", &ranges::PEAK_TORQUE_NM)?,
        peak_power_kw: car.number("peak_power_kw", &ranges::PEAK_POWER_KW)?,
        torque_nm: torque_points(car, limiter_rpm)?,
        stall_rpm,
        converter_torque_ratio,
        launch_rpm: car.number("launch_rpm", &(0.0..=limiter_rpm))?,
        shift_rpm: car.number("shift_rpm", &(ranges::SHIFT_OVER_LIMITER_MIN * limiter_rpm..=limiter_rpm))?,
        published: published(car)?,
        sources: sources(car)?,
        line: car.file.line(car.header.start),
    })
}

/// Engine turns per wheel turn in each gear.
fn ratios(car: &Place<'_>, single_speed: bool) -> Result<Vec<f64>, CarFileError> {
    let final_drive = car.number("final_drive", &ranges::FINAL_DRIVE)?;
    let gears = car.numbers("gears", &ranges::GEAR)?;
    let right = if single_speed { gears.len() == 1 } else { ranges::GEARS.contains(&gears.len()) };
    if !right {
        let accepted = "2 to 10 ratios, or exactly one for transmission = \"single_speed\"";
        return Err(car.wrong("gears", accepted));
    }
    if !gears.is_sorted_by(|low, high| low > high) {
        return Err(car.wrong("gears", "ratios that fall from first gear to the last"));
    }
    Ok(gears.iter().map(|gear| tidy(gear * final_drive)).collect())
}

/// Stall speed and torque ratio.
fn converter(car: &Place<'_>, transmission: &str) -> Result<(f64, f64), CarFileError> {
    match (car.has("converter"), transmission == "automatic") {
        (true, true) => {
            let converter = car.below("converter")?;
            converter.only(&["stall_rpm", "torque_ratio"])?;
            let stall_rpm = converter.number("stall_rpm", &ranges::STALL_RPM)?;
            Ok((stall_rpm, converter.number("torque_ratio", &ranges::CONVERTER_TORQUE_RATIO)?))
        }
        (false, true) => Err(car.wrong("converter", "{ stall_rpm, torque_ratio } for an automatic")),
        (false, false) => Ok((0.0, 1.0)),
        (true, false) => Err(car.wrong("converter", "nothing: only an automatic has a converter")),
    }
}

fn published(car: &Place<'_>) -> Result<Option<(f64, f64)>, CarFileError> {
    if !car.has("published") {
        return Ok(None);
    }
    let published = car.below("published")?;
    published.only(&["quarter_mile_s", "trap_mph"])?;
    let quarter_mile_s = published.number("quarter_mile_s", &ranges::PUBLISHED_QUARTER_MILE_S)?;
    Ok(Some((quarter_mile_s, published.number("trap_mph", &ranges::PUBLISHED_TRAP_MPH)?)))
}

/// Free radius of a tyre from its size: `205/45R17` is 205 mm wide, its side wall 45 % of that, its rim 17 in.
fn tyre_radius_m(car: &Place<'_>) -> Result<f64, CarFileError> {
    let accepted = "a size like \"205/45R17\": width 125 to 405 mm, side wall 20 to 85 %, rim 12 to 24 in";
    let wrong = || car.wrong("driven_tyre", accepted);
    let size = car.text("driven_tyre", &(1..=16))?;
    let (width, rest) = size.split_once('/').ok_or_else(wrong)?;
    let (aspect, rim) = rest.split_once('R').ok_or_else(wrong)?;
    let number = |text: &str, range: std::ops::RangeInclusive<f64>| match text.parse::<f64>() {
        Ok(value) if range.contains(&value) => Ok(value),
        _ => Err(wrong()),
    };
    let width_m = number(width, ranges::TYRE_WIDTH_MM)? / 1000.0;
    let aspect = number(aspect, ranges::TYRE_ASPECT_PERCENT)? / 100.0;
    Ok(number(rim, ranges::TYRE_RIM_IN)? * 0.0254 / 2.0 + width_m * aspect)
}

fn torque_points(car: &Place<'_>, limiter_rpm: f64) -> Result<Vec<[f64; 2]>, CarFileError> {
    let field = "torque_nm";
    let list = car.list(field).ok_or_else(|| car.wrong(field, curve::POINT_ACCEPTED))?;
    let mut points: Vec<[f64; 2]> = Vec::new();
    for value in list.iter() {
        let point = match value.get_ref() {
            DeValue::Array(pair) => match (pair.first(), pair.get(1), pair.len()) {
                (Some(rpm), Some(nm), 2) => figure(rpm.get_ref()).zip(figure(nm.get_ref())),
                _ => None,
            },
            _ => None,
        };
        match point.map(|(rpm, nm)| [rpm, nm]).filter(|point| curve::follows(points.last(), point)) {
            Some(point) => points.push(point),
            None => return Err(car.wrong_at(field, Some(value.span()), curve::POINT_ACCEPTED)),
        }
    }
    if curve::is_whole(&points, limiter_rpm) { Ok(points) } else { Err(car.wrong(field, curve::POINTS_ACCEPTED)) }
}

fn sources(car: &Place<'_>) -> Result<Vec<SourceEntry>, CarFileError> {
    if !car.has("sources") {
        return Ok(Vec::new());
    }
    let accepted = "a list of { fact, name, url, from_memory }";
    let list = car.list("sources").ok_or_else(|| car.wrong("sources", accepted))?;
    let mut sources = Vec::new();
    for value in list.iter() {
        let place =
            car.inside("sources", value).ok_or_else(|| car.wrong_at("sources", Some(value.span()), accepted))?;
        place.only(&["fact", "name", "url", "from_memory"])?;
        let from_memory = match place.table.get("from_memory").map(Spanned::get_ref) {
            Some(DeValue::Boolean(flag)) => *flag,
            _ => return Err(place.wrong("from_memory", "true or false")),
        };
        let url = if from_memory { "" } else { place.text("url", &(8..=300))? };
        sources.push(SourceEntry {
            fact: place.text("fact", &(1..=200))?.to_string(),
            name: place.text("name", &(1..=200))?.to_string(),
            url: url.to_string(),
            from_memory,
        });
    }
    Ok(sources)
}
