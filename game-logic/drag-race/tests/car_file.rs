//! What the build says of a wrong car file: car, field, value and what is accepted.

use drag_race::CATALOGUE_TOML as GOOD;
use drag_race::car_file::{self, CAR_FILE_BYTES_MAX, CarFileError};

/// The message for the good file with the first `from` after the car's id replaced.
fn message(car: &str, from: &str, to: &str) -> String {
    let start = GOOD.find(&format!("id = \"{car}\"")).expect("a car of the file");
    let at = start + GOOD[start..].find(from).expect("text of that car");
    let text = format!("{}{to}{}", &GOOD[..at], &GOOD[at + from.len()..]);
    car_file::read(&text, "my/cars.toml").expect_err("a wrong file").to_string()
}

fn check(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn the_file_in_the_tree_is_good() {
    assert!(car_file::read(GOOD, "cars.toml").unwrap().cars.len() >= 10);
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
    check(
        &message("camaro_ss", "converter =", "torque_converter ="),
        &["torque_converter", "no such field", " converter, "],
    );
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
    check(&car_file::read("\n[[car]\n", "x.toml").unwrap_err().to_string(), &["x.toml:2: not TOML"]);
    check(&car_file::read("", "x.toml").unwrap_err().to_string(), &["x.toml:1: the file: field `shared` is missing"]);
}

/// The line of the first place after the car's id where the file has `text`.
fn line(text: &str, car: &str, part: &str) -> usize {
    let start = text.find(&format!("id = \"{car}\"")).unwrap();
    1 + text[..start + text[start..].find(part).unwrap()].matches('\n').count()
}

#[test]
fn every_error_has_the_line_of_the_value_and_a_missing_field_that_of_the_table() {
    let at = |car: &str, from: &str, to: &str, line: usize| {
        let message = message(car, from, to);
        assert!(message.starts_with(&format!("my/cars.toml:{line}: car \"{car}\": ")), "{line}: {message}");
    };
    at("wrx", "drag_area_m2 = 0.74", "drag_area_m2 = -0.74", line(GOOD, "wrx", "drag_area_m2"));
    at("wrx", "trap_mph = 99.8", "trap_mph = 9.8", line(GOOD, "wrx", "trap_mph"));
    at("wrx", "trap_mph", "trap", line(GOOD, "wrx", "trap_mph"));
    at("wrx", "[2000,", "[2001,", line(GOOD, "wrx", "[2000,"));
    at("wrx", "curb_mass_kg = 1490.0\n", "", line(GOOD, "wrx", "id =") - 1);
    at("wrx", "wheelbase_m = 2.650", "wheelbse_m = 2.650", line(GOOD, "wrx", "wheelbase_m"));
    let twice = message("gtr", "id = \"gtr\"", "id = \"mx5\"");
    check(&twice, &[&format!("my/cars.toml:{}: car \"mx5\"", line(GOOD, "gtr", "id =")), "no other car has"]);
}

#[test]
fn what_is_shared_is_checked_and_a_car_may_have_no_published_time_and_no_sources() {
    let shared = |from: &str, to: &str| car_file::read(&GOOD.replacen(from, to, 1), "x.toml").unwrap_err().to_string();
    check(
        &shared("peak_slip = 0.11", "peak_slip = 11"),
        &["x.toml:", "shared: field `peak_slip` is 11", "0.03 to 0.4"],
    );
    check(&shared("time_s = 0.08", "time_ms = 80"), &["shared: field `shift.dct.time_ms`", "did you mean `time_s`?"]);
    check(&shared("electric = 0.93", ""), &["`driveline_efficiency.electric` is missing", "0.6 to 1"]);

    let start = GOOD.find("id = \"mx5\"").unwrap();
    let end = start + GOOD[start..].find("\npublished").unwrap();
    let file = car_file::read(&GOOD[..=end], "x.toml").unwrap();
    let [car] = file.cars().try_into().unwrap();
    assert_eq!((&*car.id, car.published, car.index_class(), car.sources.len()), ("mx5", None, None, 0));
}

#[test]
fn files_and_curves_have_bounds() {
    let long = format!("{GOOD}{}", "\n".repeat(CAR_FILE_BYTES_MAX));
    let error = car_file::read(&long, "x.toml").unwrap_err();
    assert_eq!(error, CarFileError::TooLong { path: "x.toml".into(), bytes: long.len() });
    check(&message("mx5", "[6900, 155]", "[9007199254740992, 155]"), &["9007199254740992", "to 25000"]);
    check(&message("mx5", "name = \"Mazda", "name = \"\\u001b[2J"), &["`name`", "on one line"]);
    let many = "gears = [".to_string() + &"1.0, ".repeat(500) + "]";
    let text = message("mx5", "gears = [", &format!("{many}\n#"));
    assert!(text.contains("2 to 10") && text.len() < 250, "{text}");
}
