use drag_race::race::{Feet, Race};
use drag_race::*;
fn main() {
    let id = std::env::args().nth(1).unwrap();
    let grip: f64 = std::env::args().nth(2).map_or(0.97, |s| s.parse().unwrap());
    let (index, car) = find_car(&id).unwrap();
    let mut driver = Driver::with_plan(car, 0, Plan { grip_use: grip, ..Plan::of(car) });
    let mut race = Race::new(1, 50, TreeKind::Sportsman, &[index]);
    race.set_present(0, true);
    let mut happened = Vec::new();
    let mut feet = [Feet::default()];
    let mut n = 0;
    let mut last = 0.0;
    while !race.over() {
        race.tick(&feet, &mut happened);
        let s = race.snapshot();
        let v = s.lanes[0];
        feet[0] = Feet { input: driver.drive(&s), age_frames: Some(0) };
        if v.speed_mps > 0.0 {
            n += 1;
            if n < 80 || n % 20 == 0 {
                let a = (v.speed_mps - last) * 50.0;
                println!("{:5} x {:6.2} v {:5.2} a {:5.2} tread {:5.2} slip {:.3} rpm {:5.0} g{} thr {:3} cl {:3} {:?}", s.time_ms, v.distance_m, v.speed_mps, a, v.tread_mps, (v.tread_mps - v.speed_mps) / v.tread_mps, v.rpm, v.gear, feet[0].input.throttle, feet[0].input.clutch, race.lanes()[0].state().coupled);
            }
        }
        last = v.speed_mps;
    }
}
