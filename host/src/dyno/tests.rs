//! The dyno over the whole catalogue. The search is made once and looked at by all.

use std::sync::OnceLock;

use drag_race::{Driver, cars, find_car};
use holeshot_room::FaultKind;

use super::attempt::Shifts;
use super::sheet::SHIFT_OFFS_RPM;
use super::*;
use crate::rules::{DRAG_RACE_WASM, Engine, EngineSettings, ModuleStore};

fn load(wasm: &[u8]) -> Arc<Module> {
    let engine = Engine::new(EngineSettings { instances_max: 512, ..EngineSettings::default() }).unwrap();
    ModuleStore::new(engine, None).unwrap().load(wasm).unwrap()
}

fn module() -> &'static Arc<Module> {
    static MODULE: OnceLock<Arc<Module>> = OnceLock::new();
    MODULE.get_or_init(|| load(DRAG_RACE_WASM))
}

fn findings() -> &'static Findings {
    static FINDINGS: OnceLock<Findings> = OnceLock::new();
    FINDINGS.get_or_init(|| {
        let cars: Vec<Arc<Car>> = cars().iter().map(Arc::from).collect();
        run(module(), &cars, Method::Index, &Arc::default()).unwrap()
    })
}

fn strip(id: &str) -> Strip {
    Strip::open(module(), &Arc::from(find_car(id).unwrap().1), &Arc::default()).unwrap()
}

fn sheet(id: &str) -> &'static Sheet {
    findings().sheets.iter().find(|sheet| sheet.car.id == id).unwrap()
}

#[test]
fn every_car_is_within_3_percent_of_its_published_test() {
    println!("{}", text::summary(findings()));
    assert_eq!(findings().sheets.len(), cars().len());
    for sheet in &findings().sheets {
        let published = sheet.published.unwrap();
        assert!(published.time_off_percent.abs() < 3.0, "{}: {published:?}", sheet.car.id);
        assert!(published.speed_off_percent.abs() < 3.0, "{}: {published:?}", sheet.car.id);
    }
}

#[test]
fn index_classes_are_those_of_the_results() {
    for car in cars() {
        let class = findings().classes.of_car(&car.id).map(|class| class.name.as_str());
        assert_eq!(class, car.index_class(), "{}", car.id);
    }
}

#[test]
fn no_neighbour_of_a_best_run_is_quicker() {
    for sheet in &findings().sheets {
        let Best { run, optimum, .. } = &sheet.best;
        assert!(optimum.proven, "{}", sheet.car.id);
        for neighbour in &optimum.neighbours {
            assert!(neighbour.costs_ms.is_none_or(|ms| ms >= 0.0), "{}: {neighbour:?}", sheet.car.id);
        }
        // Twice for each shift; grip both ways; launch both ways unless it is at an end of its range, or the car cannot rev.
        let (shifts, neighbours) = (2 * run.plan.shift_ticks.len(), optimum.neighbours.len());
        assert!((shifts + 2..=shifts + 4).contains(&neighbours), "{}: {optimum:?}", sheet.car.id);
    }
    // The same runs made here, each as a whole.
    for id in ["mx5", "gtr"] {
        let (strip, best) = (strip(id), &sheet(id).best);
        for (at, tick) in best.run.plan.shift_ticks.iter().enumerate() {
            for (by, word) in [(-1, "earlier"), (1, "later")] {
                let mut plan = best.run.plan.clone();
                plan.shift_ticks[at] = tick.checked_add_signed(by).unwrap();
                let costs_ms = 1e3 * (strip.run(&plan).unwrap().elapsed_s - best.run.elapsed_s);
                let name = format!("shift {}-{} a tick {word}", at + 1, at + 2);
                let said = best.optimum.neighbours.iter().find(|neighbour| neighbour.change == name).unwrap();
                assert_eq!(said.costs_ms, Some(costs_ms), "{id}: {name}");
            }
        }
    }
}

#[test]
fn a_grid_of_all_plans_has_nothing_quicker() {
    let (strip, best) = (strip("mx5"), &sheet("mx5").best);
    let proof = prove::prove(&strip, best, 1_000).unwrap();
    println!("{}", text::proof(&proof));
    assert!(proof.holds && proof.runs > 300, "{proof:?}");
    // Where its best lies: every change within a step of the grid of where the search has it.
    let step_rpm = proof.shifts_rpm[0] - proof.shifts_rpm[1];
    for (grid_rpm, row) in proof.grid.shifts_rpm.iter().zip(&sheet("mx5").shift_table) {
        assert!((grid_rpm - row.rpm).abs() < step_rpm, "{grid_rpm} {row:?}");
    }
    // A search that had missed it would be found out.
    let mut worse = best.clone();
    worse.run.elapsed_s += 1.0;
    assert!(!prove::prove(&strip, &worse, 1_000).unwrap().holds);
}

#[test]
fn a_run_that_goes_on_from_a_state_is_the_run() {
    for id in ["wrx", "camaro_ss"] {
        let (strip, run) = (strip(id), &sheet(id).best.run);
        let start = strip.launch(run.plan.launch_rpm, run.plan.grip_use).unwrap();
        let shifts = Shifts::AtTick(&run.plan.shift_ticks);
        let whole = strip.attempt(&start, shifts, None, true).unwrap();
        assert_eq!(whole.end.elapsed_s(), Some(run.elapsed_s));
        assert_eq!(whole.trace, run.trace);
        assert!(whole.points.len() > 50);
        for point in whole.points.iter().step_by(9) {
            let rest = strip.attempt(point, shifts, None, true).unwrap();
            assert_eq!(rest.end, whole.end, "{id} from tick {}", point.tick);
            assert_eq!(rest.trace, whole.trace[point.tick as usize..]);
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let car: Arc<Car> = Arc::from(find_car("golf_gti").unwrap().1);
    let alone = pool.install(|| run(module(), &[car], Method::Index, &Arc::default())).unwrap();
    assert_eq!(serde_json::to_string(&alone.sheets).unwrap(), serde_json::to_string(&[sheet("golf_gti")]).unwrap());
}

#[test]
fn a_driver_by_the_lamps_comes_near_the_best() {
    for id in ["wrx", "gtr", "model_3p"] {
        let (strip, run) = (strip(id), &sheet(id).best.run);
        let driver = Driver::with_plan(Arc::clone(strip.car()), 0, run.plan.plan());
        let slip = strip.drive(driver).unwrap();
        // The foot comes up within a tick and not at its beginning.
        let off_s = slip.quarter_mile_s.unwrap() - run.elapsed_s;
        assert!(off_s.abs() < 0.05, "{id}: {off_s} s");
        assert!(slip.reaction_s.unwrap() > 0.0);
    }
}

#[test]
fn a_sheet_agrees_with_its_run() {
    for sheet in &findings().sheets {
        let (id, run, splits) = (&sheet.car.id, &sheet.best.run, &sheet.splits);
        assert!((run.elapsed_s - splits.quarter_mile_s).abs() < 1e-4, "{id}");
        // Rollout and samples tell the same times as the rules' clocks.
        let at = |feet: f64| {
            let place = run.trace.iter().position(|s| f64::from(s.distance_m) >= feet * 0.3048).unwrap();
            attempt::crossing_s(run.trace.get(place - 1), &run.trace[place], feet * 0.3048).unwrap() - run.rollout_s
        };
        for (feet, time_s) in
            [(60.0, splits.sixty_foot_s), (660.0, splits.eighth_mile_s), (1320.0, splits.quarter_mile_s)]
        {
            assert!((at(feet) - time_s).abs() < 2e-3, "{id} at {feet} ft: {} and {time_s}", at(feet));
        }
        let (kmh, mph) = (sheet.zero_to_100_kmh.unwrap(), sheet.zero_to_60_mph.unwrap());
        assert!(mph.from_rest_s < kmh.from_rest_s && mph.with_rollout_s < mph.from_rest_s, "{id}");
        assert_eq!(sheet.shift_table.len(), run.plan.shift_ticks.len(), "{id}");
        for row in &sheet.shift_table {
            assert!(row.rpm_after.is_some_and(|after| after < row.rpm), "{id}: {row:?}");
        }
        assert!(sheet.top_of_gear.windows(2).all(|two| two[0].rpm >= two[1].rpm), "{id}: {:?}", sheet.top_of_gear);
        assert!(sheet.top_of_gear[0].at_limiter, "{id}");

        // The limits leave no gap, and their shares are all of the time.
        let limits = &sheet.limits;
        let finish_s = run.rollout_s + run.elapsed_s;
        assert_eq!((limits.phases[0].from_s, limits.phases[0].from_m), (0.0, 0.0), "{id}");
        assert!((limits.phases.last().unwrap().to_s - finish_s).abs() < 1e-6, "{id}");
        assert!(limits.phases.windows(2).all(|two| two[0].to_s == two[1].from_s && two[0].by != two[1].by), "{id}");
        assert!((limits.grip_share + limits.power_share + limits.gearing_share - 1.0).abs() < 1e-9, "{id}");
    }
    // A strong car on street tyres, and an electric one on all four.
    assert!(sheet("hellcat").limits.grip_share > 0.25 && sheet("model_3p").limits.grip_share < 0.05);
}

#[test]
fn shifting_early_or_late_costs_time_or_meets_the_limiter() {
    for sheet in &findings().sheets {
        let offs: Vec<i32> = sheet.forgiving.iter().map(|forgiving| forgiving.shift_off_rpm).collect();
        if sheet.shift_table.is_empty() {
            assert!(offs.is_empty());
            continue;
        }
        assert_eq!(offs, SHIFT_OFFS_RPM);
        for forgiving in &sheet.forgiving {
            let id = &sheet.car.id;
            match (forgiving.penalty_ms, forgiving.limiter_in_gear) {
                // The changes that were found are no better than these by more than a tick's luck.
                (Some(penalty_ms), None) => assert!(penalty_ms > -0.5, "{id}: {forgiving:?}"),
                (None, Some(gear)) => assert!(forgiving.shift_off_rpm > 0 && gear >= 1, "{id}: {forgiving:?}"),
                _ => panic!("{id}: {forgiving:?}"),
            }
        }
        let early = |at: usize| sheet.forgiving[at].penalty_ms.unwrap();
        assert!(early(0) > early(2), "{}: {:?}", sheet.car.id, sheet.forgiving);
    }
}

#[test]
fn tables_have_a_row_per_car_and_a_cell_per_column() {
    let table = text::csv(findings()).unwrap();
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let header = reader.headers().unwrap().clone();
    let column = |name: &str| header.iter().position(|column| column == name).unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), cars().len());
    for (row, sheet) in rows.iter().zip(&findings().sheets) {
        assert_eq!(&row[column("car")], sheet.car.id);
        let time_s: f64 = row[column("quarter_mile_s")].parse().unwrap();
        assert!((time_s - sheet.splits.quarter_mile_s).abs() < 1e-4);
        assert_eq!(row[column("evaluations")], sheet.best.evaluations.to_string());
        let first_shift = sheet.shift_table.first().map_or(String::new(), |row| format!("{:.0}", row.rpm));
        assert_eq!(row[column("shift_1_2_rpm")], first_shift);
    }
    let text = text::text(findings());
    for sheet in &findings().sheets {
        assert!(text.contains(&format!("\n{}: {} ({})", sheet.car.id, sheet.car.name, sheet.car.year)));
    }
}

#[test]
fn other_games_are_told_apart() {
    let car: Arc<Car> = Arc::from(find_car("mx5").unwrap().1);
    let empty = load(include_bytes!("../bench/empty.wasm"));
    let error = run(&empty, &[Arc::clone(&car)], Method::Index, &Arc::default()).unwrap_err();
    assert!(matches!(error, StripError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("not of the drag race's family"), "{error}");

    let work = Arc::new(Work::default());
    work.break_off();
    assert_eq!(run(module(), &[car], Method::Index, &work).unwrap_err(), StripError::BrokenOff);
}

#[test]
fn launch_speeds_at_which_the_brake_does_not_hold_a_car_are_passed_over() {
    // All four tyres pull harder than the brake holds, so near its limiter this car leaves before the lamp is green. The advice is such a speed.
    let mut car = find_car("hellcat").unwrap().1.clone();
    car.id = "on_all_four".into();
    car.drive = drag_race::Drive::Awd;
    car.launch_rpm = car.limiter_rpm;
    let strip = Strip::open(module(), &Arc::new(car), &Arc::default()).unwrap();
    let start = strip.launch(strip.car().limiter_rpm, 1.0).unwrap();
    assert_eq!(strip.attempt(&start, Shifts::AtTick(&[]), None, false).unwrap().end, attempt::End::GivenUp);
    let best = search::search(&strip).unwrap();
    assert!(best.optimum.proven && best.run.plan.launch_rpm < strip.car().limiter_rpm, "{:?}", best.run.plan);
}

#[test]
fn a_car_that_gets_nowhere_is_told() {
    // A wheel as high as a house and an engine that hardly turns it, heavier than a lorry: more than a minute for the quarter mile.
    let mut car = find_car("mx5").unwrap().1.clone();
    car.id = "snail".into();
    car.mass_kg = 5_000.0;
    car.drag_area_m2 = 2.0;
    car.peak_torque_nm = 20.0;
    car.torque_nm = drag_race::Torque::new(car.torque_nm.points().iter().map(|[rpm, nm]| [*rpm, nm / 10.0]).collect());
    let error = match Strip::open(module(), &Arc::new(car), &Arc::default()) {
        Ok(strip) => search::search(&strip).unwrap_err(),
        // The rules have ranges of their own.
        Err(error) => error,
    };
    let text = error.to_string();
    assert!(text.contains("snail"), "{text}");
    assert!(!matches!(&error, StripError::Fault { fault, .. } if fault.kind == FaultKind::Trap), "{text}");
}
