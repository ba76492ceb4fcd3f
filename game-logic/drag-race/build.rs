//! Turns `cars.toml` into Rust constants, so that the module carries figures and no parser. A wrong field stops the
//! build with its car, name, value and what is accepted.

#[path = "build/car_file.rs"]
#[allow(unreachable_pub)]
mod car_file;

use std::fmt::Write as _;
use std::path::Path;
use std::process::exit;

use car_file::{CarEntry, CarFile, Shift};

fn main() {
    println!("cargo::rerun-if-changed=cars.toml");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build/car_file.rs");
    let text = std::fs::read_to_string("cars.toml").unwrap_or_else(|error| stop(&format!("cars.toml: {error}")));
    let file = car_file::read(&text).unwrap_or_else(|error| stop(&error.to_string()));
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
    let constants = [
        ("AIR_DENSITY_KGM3", "Density of the air, in kg/m³.", shared.air_density_kgm3),
        ("PEAK_SLIP", "Slip at which the tyre pulls hardest.", shared.peak_slip),
        ("SLIDING_GRIP_SHARE", "Grip of a spinning tyre over its peak.", shared.sliding_grip_share),
        ("SUSPENSION_LAG_S", "Time in which load follows acceleration, in s.", shared.suspension_lag_s),
        ("CLUTCH_CAPACITY_FACTOR", "Clutch torque over peak engine torque.", shared.clutch_capacity_factor),
        ("UNDRIVEN_WHEEL_DRAG_NM", "Drag of an axle that is not driven, in Nm.", shared.undriven_wheel_drag_nm),
    ];
    for (name, doc, value) in constants {
        let _ = writeln!(text, "/// {doc}\npub(crate) const {name}: f64 = {value:?};");
    }
    let shifts = [("MANUAL", shared.shift_manual), ("DCT", shared.shift_dct), ("AUTOMATIC", shared.shift_automatic)];
    for (name, Shift { time_s, torque_share }) in shifts {
        let _ = writeln!(
            text,
            "/// How this kind of gearbox changes gear.\n\
             pub(crate) const SHIFT_{name}: Shift = Shift {{ time_s: {time_s:?}, torque_share: {torque_share:?} }};"
        );
    }
    let _ = writeln!(text, "static CARS: [Car; {}] = [", file.cars.len());
    for car in &file.cars {
        write_car(&mut text, car);
    }
    text.push_str("];\n");
    text
}

fn write_car(text: &mut String, car: &CarEntry) {
    let transmission = match car.transmission.as_str() {
        "manual" => "Transmission::Manual".to_string(),
        "dct" => "Transmission::Dct".to_string(),
        "single_speed" => "Transmission::SingleSpeed".to_string(),
        _ => format!(
            "Transmission::Automatic {{ stall_rpm: {:?}, torque_ratio: {:?} }}",
            car.stall_rpm, car.converter_torque_ratio
        ),
    };
    let _ = writeln!(
        text,
        "Car {{ id: {:?}, name: {:?}, year: {}, drive: Drive::{}, engine_at: EngineAt::{}, aspiration: Aspiration::{}, \
         transmission: {transmission}, mass_kg: {:?}, front_weight_share: {:?}, wheelbase_m: {:?}, cg_height_m: {:?}, \
         drag_area_m2: {:?}, tyre_class: {:?}, tyre_grip: {:?}, tyre_radius_m: {:?}, driveline_efficiency: {:?}, \
         ratios: &{:?}, engine_inertia_kgm2: {:?}, wheel_inertia_kgm2: {:?}, idle_rpm: {:?}, limiter_rpm: {:?}, \
         peak_torque_nm: {:?}, peak_power_kw: {:?}, torque_nm: &{:?}, launch_rpm: {:?}, shift_rpm: {:?}, \
         published: Published {{ quarter_mile_s: {:?}, trap_mph: {:?} }}, index_class: {:?}, sources: &[",
        car.id,
        car.name,
        car.year,
        title(&car.drive),
        title(&car.engine_at),
        title(&car.aspiration),
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
        car.torque_nm,
        car.launch_rpm,
        car.shift_rpm,
        car.quarter_mile_s,
        car.trap_mph,
        index_class(car.quarter_mile_s),
    );
    for source in &car.sources {
        let _ = writeln!(
            text,
            "Source {{ fact: {:?}, name: {:?}, url: {:?}, from_memory: {} }},",
            source.fact, source.name, source.url, source.from_memory
        );
    }
    text.push_str("] },\n");
}

/// The index class: the published time rounded up to the half second, as in index racing, where nobody may be quicker than the class says.
fn index_class(quarter_mile_s: f64) -> String {
    format!("{:.1}", (quarter_mile_s * 2.0).ceil() / 2.0)
}

fn title(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().collect::<String>() + letters.as_str()).unwrap_or_default()
}
