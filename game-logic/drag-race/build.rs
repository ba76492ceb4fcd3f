//! Turns `cars.toml` into Rust constants, so that the module carries figures and no parser. A wrong field stops the
//! build with its car, name, value and what is accepted.

#[path = "src/car_file/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "a part of the library, of which only the reader is used here")]
mod car_file;
#[path = "src/curve.rs"]
#[allow(dead_code, unreachable_pub, reason = "as above")]
mod curve;
#[path = "src/ranges.rs"]
#[allow(dead_code, unreachable_pub, reason = "as above")]
mod ranges;

use std::fmt::Write as _;
use std::path::Path;
use std::process::exit;

use car_file::{CarEntry, CarFile, ShiftEntry};

fn main() {
    println!("cargo::rerun-if-changed=cars.toml");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/car_file");
    println!("cargo::rerun-if-changed=src/curve.rs");
    println!("cargo::rerun-if-changed=src/ranges.rs");
    let text = std::fs::read_to_string("cars.toml").unwrap_or_else(|error| stop(&format!("cars.toml: {error}")));
    let file = car_file::read(&text, "cars.toml").unwrap_or_else(|error| stop(&error.to_string()));
    let out_dir = std::env::var("OUT_DIR").unwrap_or_else(|error| stop(&format!("OUT_DIR: {error}")));
    let path = Path::new(&out_dir).join("catalogue.rs");
    if let Err(error) = std::fs::write(&path, source(&file)) {
        stop(&format!("{}: {error}", path.display()));
    }
}

fn stop(message: &str) -> ! {
    println!("cargo::error={message}");
    exit(1)
}

fn source(file: &CarFile) -> String {
    let shared = &file.shared;
    let mut text = String::new();
    let shift = |ShiftEntry { time_s, torque_share }: ShiftEntry| {
        format!("Shift {{ time_s: {time_s:?}, torque_share: {torque_share:?} }}")
    };
    let _ = writeln!(
        text,
        "/// What the catalogue assumes of every car.\n\
         const SHARED: Shared = Shared {{ air_density_kgm3: {:?}, peak_slip: {:?}, sliding_grip_share: {:?}, suspension_lag_s: {:?}, \
         clutch_capacity_factor: {:?}, undriven_wheel_drag_nm: {:?}, shift_manual: {}, shift_dct: {}, shift_automatic: {} }};",
        shared.air_density_kgm3,
        shared.peak_slip,
        shared.sliding_grip_share,
        shared.suspension_lag_s,
        shared.clutch_capacity_factor,
        shared.undriven_wheel_drag_nm,
        shift(shared.shift_manual),
        shift(shared.shift_dct),
        shift(shared.shift_automatic),
    );
    let classes: Vec<String> = (0..=2 * *ranges::PUBLISHED_QUARTER_MILE_S.end() as u32)
        .map(|halves| format!("{}.{}", halves / 2, halves % 2 * 5))
        .collect();
    let _ = writeln!(
        text,
        "/// The names of the index classes, by half seconds.\nstatic INDEX_CLASSES: [&str; {}] = {classes:?};",
        classes.len()
    );
    let _ = writeln!(text, "static CARS: [Car; {}] = [", file.cars.len());
    for car in &file.cars {
        write_car(&mut text, car);
    }
    text.push_str("];\n");
    text
}

fn write_car(text: &mut String, car: &CarEntry) {
    let transmission = match car.transmission {
        "manual" => "Transmission::Manual".to_string(),
        "dct" => "Transmission::Dct".to_string(),
        "single_speed" => "Transmission::SingleSpeed".to_string(),
        _ => format!(
            "Transmission::Automatic {{ stall_rpm: {:?}, torque_ratio: {:?} }}",
            car.stall_rpm, car.converter_torque_ratio
        ),
    };
    let torque = format!("Torque::fixed(&{:?})", car.torque_nm);
    let published = match car.published {
        Some((quarter_mile_s, trap_mph)) => {
            format!("Some(Published {{ quarter_mile_s: {quarter_mile_s:?}, trap_mph: {trap_mph:?} }})")
        }
        None => "None".to_string(),
    };
    let _ = writeln!(
        text,
        "Car {{ id: Cow::Borrowed({:?}), name: Cow::Borrowed({:?}), year: {}, drive: Drive::{}, engine_at: EngineAt::{}, aspiration: Aspiration::{}, \
         transmission: {transmission}, mass_kg: {:?}, front_weight_share: {:?}, wheelbase_m: {:?}, cg_height_m: {:?}, \
         drag_area_m2: {:?}, tyre_class: Cow::Borrowed({:?}), tyre_grip: {:?}, tyre_radius_m: {:?}, driveline_efficiency: {:?}, \
         ratios: Cow::Borrowed(&{:?}), engine_inertia_kgm2: {:?}, wheel_inertia_kgm2: {:?}, idle_rpm: {:?}, limiter_rpm: {:?}, \
         peak_torque_nm: {:?}, peak_power_kw: {:?}, torque_nm: {}, launch_rpm: {:?}, shift_rpm: {:?}, \
         published: {}, shared: SHARED, sources: Cow::Borrowed(&[",
        car.id,
        car.name,
        car.year,
        title(car.drive),
        title(car.engine_at),
        title(car.aspiration),
        car.mass_kg,
        car.front_weight_share,
        car.wheelbase_m,
        car.cg_height_m,
        car.drag_area_m2,
        car.tyre_class,
        car.tyre_grip,
        car.tyre_radius_m,
        car.driveline_efficiency,
        car.ratios,
        car.engine_inertia_kgm2,
        car.wheel_inertia_kgm2,
        car.idle_rpm,
        car.limiter_rpm,
        car.peak_torque_nm,
        car.peak_power_kw,
        torque,
        car.launch_rpm,
        car.shift_rpm,
        published,
    );
    for source in &car.sources {
        let _ = writeln!(
            text,
            "Source {{ fact: Cow::Borrowed({:?}), name: Cow::Borrowed({:?}), url: Cow::Borrowed({:?}), from_memory: {} }},",
            source.fact, source.name, source.url, source.from_memory
        );
    }
    text.push_str("]) },\n");
}

fn title(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().collect::<String>() + letters.as_str()).unwrap_or_default()
}
