//! Car files: what is read is accepted by the module and comes back from a room's options the same; what is not names a line of the file.

use drag_race::car_file::{self, CAR_FILE_BYTES_MAX, CarFileError};
use drag_race::{Car, Shared, to_options_json};

pub(crate) fn target(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match car_file::read(text, "cars.toml") {
        Ok(file) => {
            let (cars, shared) = (file.cars(), file.shared());
            assert!(!cars.is_empty() && shared.check().is_ok());
            for car in &cars {
                assert_eq!(car.check(), Ok(()));
            }
            let options = to_options_json(&cars, &shared).to_string();
            let mut options: serde_json::Value = serde_json::from_str(&options).unwrap();
            assert_eq!(serde_json::from_value::<Shared>(options["shared"].take()).unwrap(), shared);
            let back: Vec<Car> = serde_json::from_value(options["car"].take()).unwrap();
            assert_eq!(back.len(), cars.len());
            for (back, car) in back.into_iter().zip(cars) {
                assert_eq!(Car { shared, sources: car.sources.clone(), ..back }, car);
            }
        }
        Err(CarFileError::Field(wrong)) => {
            assert!((1..=text.lines().count().max(1)).contains(&wrong.line), "{wrong:?}");
            assert!(!wrong.accepted.is_empty() && !wrong.field.contains('\n') && !wrong.value.contains('\n'));
        }
        Err(CarFileError::NotToml { line, problem, .. }) => {
            assert!((1..=text.lines().count() + 1).contains(&line) && !problem.is_empty(), "{line}: {problem}");
        }
        Err(CarFileError::TooLong { bytes, .. }) => assert!(bytes > CAR_FILE_BYTES_MAX),
    }
}
