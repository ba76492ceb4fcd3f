//! Cars that come with a room: the same figures give the same race whichever way they come, they are part of the state, and wrong ones are refused
//! with car, field, value and what is accepted.

use drag_race::car_file::{self, CarFile};
use drag_race::{CATALOGUE_TOML, Car, DragRace, Driver, Input, Plan, Shared, Snapshot, Torque, cars, to_options_json};
use holeshot_guest::bench::Bench;
use holeshot_guest::{PlayerResult, PlayerSetup, Rules as _, Setup};
use serde_json::{Value, json};

/// Longest race in frames: the manifest's bound.
const LIMIT: u32 = 170 * 50;

const WAITING: Input = Input { throttle: 0, clutch: 255, gear: 1 };

fn catalogue() -> CarFile {
    car_file::read(CATALOGUE_TOML, "cars.toml").unwrap()
}

fn car(id: &str) -> Car {
    cars().iter().find(|car| car.id == id).unwrap().clone()
}

/// Options with these cars, as text.
fn options(cars: &[Car], shared: &Shared) -> String {
    json!({ "tree": "pro", "cars": to_options_json(cars, shared) }).to_string()
}

/// A race of these cars, its driver in each: all snapshots' bytes and the results.
fn race(options: &str, garage: &[&Car]) -> (Vec<Vec<u8>>, Vec<PlayerResult<Value>>) {
    let mut bench = begin(options, garage);
    let results = bench.run_to_results(LIMIT).unwrap().to_vec();
    (bench.snapshots().iter().map(|snapshot| snapshot.bytes.clone()).collect(), results)
}

/// The bench saves and restores the state in every frame.
fn begin(options: &str, garage: &[&Car]) -> Bench<DragRace> {
    let data: Vec<String> = garage.iter().map(|car| json!({ "car": car.id }).to_string()).collect();
    let players: Vec<(&str, &str)> = data.iter().map(|data| ("Ada", data.as_str())).collect();
    let mut bench = Bench::new(7, options, &players).unwrap();
    bench.join_all();
    for (lane, car) in garage.iter().enumerate() {
        let mut driver = Driver::with_plan(*car, lane, Plan::of(car));
        bench.control(lane as u16, move |_, seen| {
            Some(seen.map_or(WAITING, |bytes| driver.drive(&postcard::from_bytes::<Snapshot>(bytes).unwrap())))
        });
    }
    bench
}

#[test]
fn the_file_the_options_and_the_built_in_catalogue_are_the_same_cars() {
    let file = catalogue();
    assert_eq!(file.shared(), Shared::default());
    assert_eq!(file.cars(), cars());
    let text = serde_json::to_string(cars()).unwrap();
    let read: Vec<Car> = serde_json::from_str(&text).unwrap();
    for (read, car) in read.iter().zip(cars()) {
        assert_eq!(*read, Car { sources: Vec::new().into(), ..car.clone() });
        // Digits that survive any reader of JSON: equal to the bit.
        assert!(read.torque_nm == car.torque_nm);
    }
}

#[test]
fn the_catalogue_through_options_gives_the_same_bytes() {
    for pair in cars().chunks(2) {
        let garage: Vec<&Car> = pair.iter().collect();
        let (snapshots, results) = race("{\"tree\":\"pro\"}", &garage);
        assert!(snapshots.len() > 500 && results.iter().all(|result| result.data["elapsed_s"].is_number()));
        let (others, other_results) = race(&options(pair, &Shared::default()), &garage);
        assert!(snapshots == others, "{:?}", pair[0].id);
        assert_eq!(results, other_results);
    }
}

#[test]
fn a_car_of_the_room_takes_the_place_of_the_catalogues_and_others_are_added() {
    let mut lighter = car("mx5");
    lighter.mass_kg -= 200.0;
    let kart = Car { id: "kart".into(), name: "Kart".into(), published: None, ..lighter.clone() };
    let text = options(&[lighter.clone(), kart.clone()], &Shared::default());
    let (_, results) = race(&text, &[&lighter, &kart, &car("wrx")]);
    let (_, usual) = race("{\"tree\":\"pro\"}", &[&car("mx5"), &car("mx5"), &car("wrx")]);
    let elapsed_s =
        |results: &[PlayerResult<Value>], lane: usize| results[lane].data["quarter_mile_s"].as_f64().unwrap();
    assert!(elapsed_s(&results, 0) < elapsed_s(&usual, 0) - 0.5, "{results:?}");
    assert_eq!(elapsed_s(&results, 0), elapsed_s(&results, 1));
    assert_eq!(elapsed_s(&results, 2), elapsed_s(&usual, 2));
    assert_eq!((&results[0].data["car"], &results[0].data["class"]), (&json!("mx5"), &json!("15.0")));
    // No published time, no class: no leaderboard takes it.
    assert_eq!((&results[1].data["car"], results[1].data.get("class")), (&json!("kart"), None));
}

#[test]
fn what_the_room_assumes_holds_for_the_catalogues_cars_too() {
    let thin = Shared { air_density_kgm3: 0.9, ..Shared::default() };
    let (_, results) = race(&options(&[], &thin), &[&car("hellcat")]);
    let (_, usual) = race("{\"tree\":\"pro\"}", &[&car("hellcat")]);
    let mph = |results: &[PlayerResult<Value>]| results[0].data["quarter_mile_mph"].as_f64().unwrap();
    assert!(mph(&results) > mph(&usual) + 1.0, "{} {}", mph(&results), mph(&usual));
}

#[test]
fn a_state_holds_the_cars_that_are_driven_once_and_nothing_of_the_catalogue() {
    let state = |options: &str, garage: &[&Car]| {
        let setup = Setup {
            seed: 7,
            tick_hz: 50,
            options: options.into(),
            players: garage
                .iter()
                .map(|car| PlayerSetup { name: "Ada".into(), data: json!({ "car": car.id }).to_string() })
                .collect(),
        };
        postcard::to_allocvec(&DragRace::new(&setup).unwrap()).unwrap()
    };
    let (mx5, wrx) = (car("mx5"), car("wrx"));
    let plain = state("", &[&mx5, &wrx]);
    assert_eq!(plain, state(&json!({ "cars": { "car": [car("gtr")] } }).to_string(), &[&mx5, &wrx]));
    let one = state(&options(&[mx5.clone(), wrx.clone()], &Shared::default()), &[&mx5, &mx5]);
    let two = state(&options(&[mx5.clone(), wrx.clone()], &Shared::default()), &[&mx5, &wrx]);
    assert!(one.len() > plain.len() + 300 && two.len() > one.len() + 300, "{} {}", one.len(), two.len());

    // What is damaged is refused.
    let restored: DragRace = postcard::from_bytes(&two).unwrap();
    assert_eq!(postcard::to_allocvec(&restored).unwrap(), two);
    for len in 0..two.len() {
        assert!(postcard::from_bytes::<DragRace>(&two[..len]).is_err(), "{len}");
    }
    let mass = two.windows(8).rposition(|bytes| bytes == wrx.mass_kg.to_le_bytes()).unwrap();
    let mut damaged = two.clone();
    damaged[mass..mass + 8].copy_from_slice(&f64::NAN.to_le_bytes());
    assert!(postcard::from_bytes::<DragRace>(&damaged).is_err());
}

#[test]
fn wrong_cars_are_refused_with_car_field_value_and_range() {
    let mx5 = || json!(car("mx5"));
    let with = |change: &dyn Fn(&mut Value)| {
        let mut cars = json!({ "car": [mx5()] });
        change(&mut cars["car"][0]);
        json!({ "cars": cars })
    };
    let check = |options: Value, parts: &[&str]| {
        let player = PlayerSetup { name: "Ada".into(), data: "{\"car\":\"mx5\"}".into() };
        let setup = Setup { seed: 1, tick_hz: 50, options: options.to_string(), players: vec![player] };
        let error = DragRace::new(&setup).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    };
    check(with(&|car| car["mass_kg"] = json!(-5)), &["car \"mx5\"", "`mass_kg` is -5", "from 340 to 5200"]);
    check(with(&|car| car["mass_kg"] = json!("heavy")), &["car number 1 (\"mx5\")", "\"heavy\""]);
    check(
        with(&|car| car["wheels"] = json!(3)),
        &["car number 1 (\"mx5\")", "unknown field `wheels`", "`wheelbase_m`"],
    );
    check(
        with(&|car| drop(car.as_object_mut().unwrap().remove("tyre_grip"))),
        &["\"mx5\"", "missing field `tyre_grip`"],
    );
    check(with(&|car| car["id"] = json!("MX 5")), &["`id` is \"MX 5\"", "lower-case"]);
    check(with(&|car| car["name"] = json!("a\u{1b}[2J")), &["`name`", "on one line"]);
    check(with(&|car| car["ratios"] = json!([2.0, 3.0])), &["`ratios`", "fall from first gear"]);
    check(with(&|car| car["ratios"] = json!([2.0])), &["`ratios` is a list of 1", "2 to 10"]);
    check(
        with(&|car| car["torque_nm"] = json!([[0, 60], [150, 70], [7000, 80]])),
        &["`torque_nm` is [150.0, 70.0]", "multiple of 100"],
    );
    check(with(&|car| car["torque_nm"] = json!([[0, 60], [100, 70], [200, 80]])), &["`torque_nm`", "at limiter_rpm"]);
    check(with(&|car| car["torque_nm"] = json!([[0, 60], [100, 70], [1e9, 80]])), &["`torque_nm`", "25000"]);
    check(
        with(&|car| car["transmission"] = json!({ "automatic": { "stall_rpm": 9, "torque_ratio": 2 } })),
        &["stall_rpm", "is 9"],
    );
    check(with(&|car| car["transmission"] = json!("cvt")), &["unknown variant `cvt`", "`dct`"]);
    check(with(&|car| car["published"]["trap_mph"] = json!(1000)), &["published.trap_mph", "1000", "from 30 to 350"]);
    check(with(&|car| car["shift_rpm"] = json!(9000)), &["`shift_rpm` is 9000", "from 3450 to 6900"]);
    check(json!({ "cars": { "car": [mx5(), mx5()] } }), &["car number 2", "`id`", "second time"]);
    check(json!({ "cars": { "shared": { "peak_slip": 0.1 } } }), &["missing field"]);
    let mut shared = json!(Shared::default());
    shared["shift_dct"]["time_s"] = json!(2);
    check(json!({ "cars": { "shared": shared } }), &["shared", "`shift_dct.time_s` is 2", "from 0.005 to 1.5"]);
    check(json!({ "cars": { "card": [] } }), &["unknown field `card`"]);
    check(json!({ "cars": { "car": vec![json!({}); 300] } }), &["a list of 300", "up to 256"]);
    let kart =
        Car { id: "kart".into(), torque_nm: Torque::new(vec![[0.0, 9.0], [100.0, 9.0], [9000.0, 9.0]]), ..car("mx5") };
    let player = PlayerSetup { name: "Ada".into(), data: "{\"car\":\"cart\"}".into() };
    let setup = Setup { seed: 1, tick_hz: 50, options: options(&[kart], &Shared::default()), players: vec![player] };
    let error = DragRace::new(&setup).unwrap_err();
    assert!(error.contains("\"cart\"") && error.contains("mx5") && error.ends_with("of this room: kart"), "{error}");
}
