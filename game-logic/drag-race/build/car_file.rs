//! Reads and checks the car file. Used by the build script, which stops the build on the first wrong field, and by
//! the tests of the messages. It turns text into checked figures; it knows nothing of physics or of Rust source.

use std::fmt;

use toml::{Table, Value};

/// Torque tables are stored for every 100 rpm, so points between those cannot be kept exactly.
pub const TORQUE_STEP_RPM: f64 = 100.0;

/// Why the car file was refused. It names the car, the field, the value found and what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarFileError {
    /// The car's id, `car number N` where it has none, or `shared`.
    pub car: String,
    /// The field, with its table in front: `published.trap_mph`.
    pub field: String,
    /// The value as the file has it, or `nothing`.
    pub value: String,
    /// What is accepted there.
    pub accepted: String,
}

impl fmt::Display for CarFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cars.toml: {}: field `{}` is {}; accepted: {}", self.car, self.field, self.value, self.accepted)
    }
}

/// How one kind of gearbox changes gear.
#[derive(Clone, Copy, Debug)]
pub struct Shift {
    pub time_s: f64,
    pub torque_share: f64,
}

/// What is assumed of every car alike.
#[derive(Clone, Debug)]
pub struct Shared {
    pub air_density_kgm3: f64,
    pub peak_slip: f64,
    pub sliding_grip_share: f64,
    pub suspension_lag_s: f64,
    pub clutch_capacity_factor: f64,
    pub undriven_wheel_drag_nm: f64,
    pub shift_manual: Shift,
    pub shift_dct: Shift,
    pub shift_automatic: Shift,
}

/// A named source of a figure.
#[derive(Clone, Debug)]
pub struct Source {
    pub fact: String,
    pub name: String,
    pub url: String,
    pub from_memory: bool,
}

/// One checked car.
#[derive(Clone, Debug)]
pub struct CarEntry {
    pub id: String,
    pub name: String,
    pub year: i64,
    pub drive: String,
    pub engine_at: String,
    pub aspiration: String,
    pub transmission: String,
    pub mass_kg: f64,
    pub front_weight_share: f64,
    pub wheelbase_m: f64,
    pub cg_height_m: f64,
    pub drag_area_m2: f64,
    pub tyre_class: String,
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
    /// Torque at 0, 100, 200 … rpm up to the first multiple above the limiter.
    pub torque_nm: Vec<f64>,
    pub stall_rpm: f64,
    pub converter_torque_ratio: f64,
    pub launch_rpm: f64,
    pub shift_rpm: f64,
    pub quarter_mile_s: f64,
    pub trap_mph: f64,
    pub sources: Vec<Source>,
}

/// Everything the car file says.
#[derive(Clone, Debug)]
pub struct CarFile {
    pub shared: Shared,
    pub cars: Vec<CarEntry>,
}

const DRIVES: &[&str] = &["fwd", "rwd", "awd"];
const ENGINE_PLACES: &[&str] = &["front", "mid", "rear"];
const ASPIRATIONS: &[&str] = &["natural", "turbo", "supercharged", "electric"];
const TRANSMISSIONS: &[&str] = &["manual", "dct", "automatic", "single_speed"];
const TYRE_CLASSES: &[&str] = &["summer", "max_performance", "track"];

const CAR_FIELDS: &[&str] = &[
    "id",
    "name",
    "year",
    "drive",
    "engine_at",
    "aspiration",
    "transmission",
    "curb_mass_kg",
    "front_weight_share",
    "wheelbase_m",
    "cg_height_m",
    "drag_area_m2",
    "tyre_class",
    "driven_tyre",
    "gears",
    "final_drive",
    "engine_inertia_kgm2",
    "wheel_inertia_kgm2",
    "idle_rpm",
    "limiter_rpm",
    "peak_torque_nm",
    "peak_power_kw",
    "torque_nm",
    "converter",
    "launch_rpm",
    "shift_rpm",
    "published",
    "sources",
];

const SHARED_FIELDS: &[&str] = &[
    "driver_mass_kg",
    "air_density_kgm3",
    "rolling_radius_share",
    "peak_slip",
    "sliding_grip_share",
    "suspension_lag_s",
    "clutch_capacity_factor",
    "undriven_wheel_drag_nm",
    "tyre_grip",
    "driveline_efficiency",
    "shift",
];

/// Checks the text of a car file.
pub fn read(text: &str) -> Result<CarFile, CarFileError> {
    let root: Table = text.parse().map_err(|error| CarFileError {
        car: "the file".into(),
        field: "(all)".into(),
        value: format!("not TOML: {error}"),
        accepted: "TOML 1.0".into(),
    })?;
    let top = Place { car: "the file", prefix: "", table: &root };
    top.only(&["shared", "car"])?;
    let shared_table = top.table("shared")?;
    let shared = Place { car: "shared", prefix: "", table: shared_table };
    let shared_values = read_shared(&shared)?;
    let list = match root.get("car") {
        Some(Value::Array(list)) if !list.is_empty() => list,
        other => return Err(top.wrong("car", other, "at least one [[car]]")),
    };
    let mut cars: Vec<CarEntry> = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let Value::Table(table) = value else {
            return Err(top.wrong("car", Some(value), "[[car]] tables"));
        };
        let label = match table.get("id") {
            Some(Value::String(id)) => id.clone(),
            _ => format!("car number {}", index + 1),
        };
        let car = read_car(&Place { car: &label, prefix: "", table }, &shared)?;
        if cars.iter().any(|other| other.id == car.id) {
            return Err(CarFileError {
                car: label,
                field: "id".into(),
                value: format!("\"{}\" a second time", car.id),
                accepted: "an id that no other car has".into(),
            });
        }
        cars.push(car);
    }
    Ok(CarFile { shared: shared_values, cars })
}

fn read_shared(shared: &Place<'_>) -> Result<Shared, CarFileError> {
    shared.only(SHARED_FIELDS)?;
    let shift = shared.place("shift", "shift.")?;
    shift.only(&["manual", "dct", "automatic"])?;
    let one = |name: &str, prefix: &'static str| -> Result<Shift, CarFileError> {
        let place = Place { car: shared.car, prefix, table: shift.table(name)? };
        place.only(&["time_s", "torque_share"])?;
        Ok(Shift { time_s: place.number("time_s", 0.005, 1.5)?, torque_share: place.number("torque_share", 0.0, 1.0)? })
    };
    Ok(Shared {
        air_density_kgm3: shared.number("air_density_kgm3", 0.7, 1.5)?,
        peak_slip: shared.number("peak_slip", 0.03, 0.4)?,
        sliding_grip_share: shared.number("sliding_grip_share", 0.3, 1.0)?,
        suspension_lag_s: shared.number("suspension_lag_s", 0.01, 0.5)?,
        clutch_capacity_factor: shared.number("clutch_capacity_factor", 1.05, 4.0)?,
        undriven_wheel_drag_nm: shared.number("undriven_wheel_drag_nm", 0.0, 50.0)?,
        shift_manual: one("manual", "shift.manual.")?,
        shift_dct: one("dct", "shift.dct.")?,
        shift_automatic: one("automatic", "shift.automatic.")?,
    })
}

fn read_car(car: &Place<'_>, shared: &Place<'_>) -> Result<CarEntry, CarFileError> {
    car.only(CAR_FIELDS)?;
    let id = car.text("id", 1, 32)?;
    if !id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        return Err(car.wrong("id", car.table.get("id"), "lower-case letters, digits and underscores"));
    }
    let name = car.text("name", 1, 80)?;
    let year = car.number("year", 1900.0, 2100.0)? as i64;
    let drive = car.choice("drive", DRIVES)?;
    let transmission = car.choice("transmission", TRANSMISSIONS)?;
    let aspiration = car.choice("aspiration", ASPIRATIONS)?;
    let tyre_class = car.choice("tyre_class", TYRE_CLASSES)?;
    let grips = shared.place("tyre_grip", "tyre_grip.")?;
    grips.only(TYRE_CLASSES)?;
    let efficiencies = shared.place("driveline_efficiency", "driveline_efficiency.")?;
    efficiencies.only(&["fwd", "rwd", "awd", "electric"])?;
    let driveline = if transmission == "single_speed" { "electric" } else { drive.as_str() };

    let final_drive = car.number("final_drive", 1.0, 20.0)?;
    let gears = car.numbers("gears", 0.2, 20.0)?;
    if gears.is_empty() || gears.len() > 10 || (transmission == "single_speed") != (gears.len() == 1) {
        return Err(car.wrong(
            "gears",
            car.table.get("gears"),
            "2 to 10 ratios, or exactly one for transmission = \"single_speed\"",
        ));
    }
    if gears.windows(2).any(|pair| pair[1] >= pair[0]) {
        return Err(car.wrong("gears", car.table.get("gears"), "ratios that fall from first gear to the last"));
    }

    let limiter_rpm = car.number("limiter_rpm", 2000.0, 25_000.0)?;
    let idle_rpm = if transmission == "single_speed" {
        car.number("idle_rpm", 0.0, 0.0)?
    } else {
        car.number("idle_rpm", 400.0, 1500.0)?
    };
    let (stall_rpm, converter_torque_ratio) = match (car.table.get("converter"), transmission.as_str()) {
        (Some(_), "automatic") => {
            let converter = car.place("converter", "converter.")?;
            converter.only(&["stall_rpm", "torque_ratio"])?;
            (converter.number("stall_rpm", 1200.0, 6000.0)?, converter.number("torque_ratio", 1.2, 3.5)?)
        }
        (None, "automatic") => {
            return Err(car.wrong("converter", None, "{ stall_rpm, torque_ratio } for an automatic"));
        }
        (None, _) => (0.0, 1.0),
        (found, _) => return Err(car.wrong("converter", found, "nothing: only an automatic has a converter")),
    };
    let published = car.place("published", "published.")?;
    published.only(&["quarter_mile_s", "trap_mph"])?;

    Ok(CarEntry {
        id,
        name,
        year,
        engine_at: car.choice("engine_at", ENGINE_PLACES)?,
        aspiration,
        mass_kg: car.number("curb_mass_kg", 300.0, 5000.0)? + shared.number("driver_mass_kg", 40.0, 200.0)?,
        front_weight_share: car.number("front_weight_share", 0.2, 0.8)?,
        wheelbase_m: car.number("wheelbase_m", 1.5, 4.5)?,
        cg_height_m: car.number("cg_height_m", 0.2, 1.2)?,
        drag_area_m2: car.number("drag_area_m2", 0.2, 2.0)?,
        tyre_grip: grips.number(&tyre_class, 0.4, 3.0)?,
        tyre_class,
        tyre_radius_m: tyre_radius_m(car)? * shared.number("rolling_radius_share", 0.9, 1.0)?,
        driveline_efficiency: efficiencies.number(driveline, 0.6, 1.0)?,
        drive,
        transmission,
        ratios: gears.iter().map(|gear| gear * final_drive).collect(),
        engine_inertia_kgm2: car.number("engine_inertia_kgm2", 0.01, 2.0)?,
        wheel_inertia_kgm2: car.number("wheel_inertia_kgm2", 0.2, 6.0)?,
        idle_rpm,
        limiter_rpm,
        peak_torque_nm: car.number("peak_torque_nm", 30.0, 3000.0)?,
        peak_power_kw: car.number("peak_power_kw", 15.0, 2000.0)?,
        torque_nm: torque_table(car, limiter_rpm)?,
        stall_rpm,
        converter_torque_ratio,
        launch_rpm: car.number("launch_rpm", 0.0, limiter_rpm)?,
        shift_rpm: car.number("shift_rpm", limiter_rpm * 0.5, limiter_rpm)?,
        quarter_mile_s: published.number("quarter_mile_s", 5.0, 40.0)?,
        trap_mph: published.number("trap_mph", 30.0, 350.0)?,
        sources: sources(car)?,
    })
}

/// Free radius of a tyre from its size: `205/45R17` is 205 mm wide, its side wall 45 % of that, its rim 17 in.
fn tyre_radius_m(car: &Place<'_>) -> Result<f64, CarFileError> {
    let accepted = "a size like \"205/45R17\": width 125 to 405 mm, side wall 20 to 85 %, rim 12 to 24 in";
    let wrong = || car.wrong("driven_tyre", car.table.get("driven_tyre"), accepted);
    let size = car.text("driven_tyre", 1, 16)?;
    let (width, rest) = size.split_once('/').ok_or_else(wrong)?;
    let (aspect, rim) = rest.split_once('R').ok_or_else(wrong)?;
    let number = |text: &str, low: f64, high: f64| match text.parse::<f64>() {
        Ok(value) if value >= low && value <= high => Ok(value),
        _ => Err(wrong()),
    };
    let width_m = number(width, 125.0, 405.0)? / 1000.0;
    Ok(number(rim, 12.0, 24.0)? * 0.0254 / 2.0 + width_m * number(aspect, 20.0, 85.0)? / 100.0)
}

/// The torque curve at every [`TORQUE_STEP_RPM`], drawn straight between the file's points.
fn torque_table(car: &Place<'_>, limiter_rpm: f64) -> Result<Vec<f64>, CarFileError> {
    let field = "torque_nm";
    let Some(Value::Array(list)) = car.table.get(field) else {
        return Err(car.wrong(field, car.table.get(field), "pairs [rpm, Nm]"));
    };
    let mut points: Vec<(f64, f64)> = Vec::new();
    for value in list {
        let accepted = "pairs [rpm, Nm]: rpm a rising multiple of 100 from 0, Nm from 1 to 3000";
        let pair: Option<(f64, f64)> = match value {
            Value::Array(pair) if pair.len() == 2 => as_number(&pair[0]).zip(as_number(&pair[1])),
            _ => None,
        };
        match pair {
            Some((rpm, nm))
                if (1.0..=3000.0).contains(&nm)
                    && rpm % TORQUE_STEP_RPM == 0.0
                    && points.last().map_or(rpm == 0.0, |last| rpm > last.0) =>
            {
                points.push((rpm, nm));
            }
            _ => return Err(car.wrong(field, Some(value), accepted)),
        }
    }
    if points.len() < 3 || points[points.len() - 1].0 < limiter_rpm {
        return Err(car.wrong(field, car.table.get(field), "3 points or more, the last at limiter_rpm or above"));
    }
    let last_rpm = points[points.len() - 1].0;
    let steps = (last_rpm / TORQUE_STEP_RPM) as usize;
    let mut table = Vec::new();
    let mut segment = 0;
    for step in 0..=steps {
        let rpm = step as f64 * TORQUE_STEP_RPM;
        while segment + 2 < points.len() && rpm > points[segment + 1].0 {
            segment += 1;
        }
        let (rpm_a, nm_a) = points[segment];
        let (rpm_b, nm_b) = points[segment + 1];
        table.push(nm_a + (nm_b - nm_a) * (rpm - rpm_a) / (rpm_b - rpm_a));
    }
    Ok(table)
}

fn sources(car: &Place<'_>) -> Result<Vec<Source>, CarFileError> {
    let list = match car.table.get("sources") {
        Some(Value::Array(list)) if !list.is_empty() => list,
        other => return Err(car.wrong("sources", other, "one source or more")),
    };
    let mut sources = Vec::new();
    for value in list {
        let Value::Table(table) = value else {
            return Err(car.wrong("sources", Some(value), "{ fact, name, url, from_memory }"));
        };
        let place = Place { car: car.car, prefix: "sources.", table };
        place.only(&["fact", "name", "url", "from_memory"])?;
        let from_memory = match table.get("from_memory") {
            Some(Value::Boolean(flag)) => *flag,
            other => return Err(place.wrong("from_memory", other, "true or false")),
        };
        let url = if from_memory { String::new() } else { place.text("url", 8, 300)? };
        sources.push(Source { fact: place.text("fact", 1, 200)?, name: place.text("name", 1, 200)?, url, from_memory });
    }
    Ok(sources)
}

/// A table of the file together with the words that say where it is.
struct Place<'a> {
    car: &'a str,
    prefix: &'a str,
    table: &'a Table,
}

impl<'a> Place<'a> {
    fn wrong(&self, field: &str, found: Option<&Value>, accepted: &str) -> CarFileError {
        CarFileError {
            car: if self.car == "the file" || self.car == "shared" || self.car.starts_with("car number") {
                self.car.to_string()
            } else {
                format!("car \"{}\"", self.car)
            },
            field: format!("{}{field}", self.prefix),
            value: found.map_or_else(|| "missing".to_string(), |value| value.to_string()),
            accepted: accepted.to_string(),
        }
    }

    fn only(&self, known: &[&str]) -> Result<(), CarFileError> {
        match self.table.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some((key, value)) => {
                let near = known.iter().min_by_key(|name| distance(name, key)).unwrap_or(&"");
                Err(self.wrong(
                    key,
                    Some(value),
                    &format!("no such field (did you mean `{near}`?); fields here: {}", known.join(", ")),
                ))
            }
        }
    }

    fn number(&self, field: &str, low: f64, high: f64) -> Result<f64, CarFileError> {
        match self.table.get(field).and_then(as_number) {
            Some(value) if value >= low && value <= high => Ok(value),
            _ => Err(self.wrong(field, self.table.get(field), &format!("a number from {low} to {high}"))),
        }
    }

    fn numbers(&self, field: &str, low: f64, high: f64) -> Result<Vec<f64>, CarFileError> {
        let accepted = format!("a list of numbers from {low} to {high}");
        let Some(Value::Array(list)) = self.table.get(field) else {
            return Err(self.wrong(field, self.table.get(field), &accepted));
        };
        list.iter()
            .map(|value| match as_number(value) {
                Some(number) if number >= low && number <= high => Ok(number),
                _ => Err(self.wrong(field, Some(value), &accepted)),
            })
            .collect()
    }

    fn text(&self, field: &str, shortest: usize, longest: usize) -> Result<String, CarFileError> {
        match self.table.get(field) {
            Some(Value::String(text)) if (shortest..=longest).contains(&text.len()) => Ok(text.clone()),
            other => Err(self.wrong(field, other, &format!("text of {shortest} to {longest} bytes"))),
        }
    }

    fn choice(&self, field: &str, known: &[&str]) -> Result<String, CarFileError> {
        match self.table.get(field) {
            Some(Value::String(text)) if known.contains(&text.as_str()) => Ok(text.clone()),
            other => Err(self.wrong(field, other, &format!("one of {}", known.join(", ")))),
        }
    }

    fn table(&self, field: &str) -> Result<&'a Table, CarFileError> {
        match self.table.get(field) {
            Some(Value::Table(table)) => Ok(table),
            other => Err(self.wrong(field, other, "a table")),
        }
    }

    fn place(&self, field: &str, prefix: &'a str) -> Result<Place<'a>, CarFileError> {
        Ok(Place { car: self.car, prefix, table: self.table(field)? })
    }
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(number) if number.is_finite() => Some(*number),
        Value::Integer(number) => Some(*number as f64),
        _ => None,
    }
}

/// Number of single-letter edits between two names (Levenshtein), for the "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let above = row[j + 1];
            let change = diagonal + usize::from(letter != *other);
            row[j + 1] = change.min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}
