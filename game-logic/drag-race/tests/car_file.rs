//! What the build says of a wrong car file: car, field, value and what is accepted.

#[path = "../build/car_file.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)]
mod car_file;

const GOOD: &str = include_str!("../cars.toml");

/// The message for the good file with the first `from` after the car's id replaced.
fn message(car: &str, from: &str, to: &str) -> String {
    let start = GOOD.find(&format!("id = \"{car}\"")).expect("a car of the file");
    let at = start + GOOD[start..].find(from).expect("text of that car");
    let text = format!("{}{to}{}", &GOOD[..at], &GOOD[at + from.len()..]);
    car_file::read(&text).expect_err("a wrong file").to_string()
}

fn check(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn the_file_in_the_tree_is_good() {
    assert!(car_file::read(GOOD).unwrap().cars.len() >= 10);
}

#[test]
fn a_misspelt_field_is_named_with_the_nearest_one() {
    let text = message("mx5", "wheelbase_m", "wheelbse_m");
    check(&text, &["car \"mx5\"", "`wheelbse_m`", "2.31", "did you mean `wheelbase_m`?"]);
}

#[test]
fn a_missing_field_is_named_with_its_range() {
    let text = message("hellcat", "curb_mass_kg = 2036.0\n", "");
    check(&text, &["car \"hellcat\"", "`curb_mass_kg` is missing", "a number from 300 to 5000"]);
}

#[test]
fn a_negative_or_absurd_figure_is_refused_with_its_range() {
    check(&message("wrx", "drag_area_m2 = 0.74", "drag_area_m2 = -0.74"), &["-0.74", "from 0.2 to 2"]);
    check(&message("wrx", "curb_mass_kg = 1490.0", "curb_mass_kg = 149000.0"), &["149000.0", "from 300 to 5000"]);
    check(&message("wrx", "curb_mass_kg = 1490.0", "curb_mass_kg = nan"), &["nan", "from 300 to 5000"]);
    check(&message("wrx", "trap_mph = 99.8", "trap_mph = \"fast\""), &["`published.trap_mph` is \"fast\""]);
}

#[test]
fn words_gears_tyres_and_curves_are_checked() {
    check(&message("gtr", "drive = \"awd\"", "drive = \"4wd\""), &["\"4wd\"", "one of fwd, rwd, awd"]);
    check(&message("gtr", "4.056, 2.301", "2.301, 4.056"), &["`gears`", "fall from first gear"]);
    check(&message("gtr", "285/35R20", "285-35-20"), &["`driven_tyre`", "205/45R17"]);
    check(&message("gtr", "[2500, 500]", "[2550, 500]"), &["`torque_nm`", "2550", "multiple of 100"]);
    check(&message("gtr", "limiter_rpm = 7000.0", "limiter_rpm = 9000.0"), &["`torque_nm`", "at limiter_rpm"]);
    check(&message("gtr", "id = \"gtr\"", "id = \"mx5\""), &["`id`", "no other car has"]);
    check(&message("camaro_ss", "converter =", "torque_converter ="), &["torque_converter", "`converter`"]);
    check(
        &message("mx5", "year = 2016", "year = 2016\nconverter = { stall_rpm = 2000, torque_ratio = 2 }"),
        &["`converter`", "only an automatic"],
    );
}

#[test]
fn a_source_must_say_where_it_was_read() {
    check(&message("mx5", "from_memory = false", "from_memory = \"no\""), &["`sources.from_memory`", "true or false"]);
    check(
        &message("model_3p", ", url = \"https://insideevs.com/motor-trend-test-tesla-model-3-performance/\"", ""),
        &["`sources.url` is missing"],
    );
}

#[test]
fn what_is_no_toml_is_said() {
    check(&car_file::read("[[car]\n").unwrap_err().to_string(), &["not TOML"]);
    check(&car_file::read("").unwrap_err().to_string(), &["`shared` is missing"]);
}
