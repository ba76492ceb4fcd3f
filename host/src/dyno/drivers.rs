//! Drivers of a given skill in each car: the spread of their times, and who wins against whom. The same drivers, as many as asked for, run every
//! car alone under the module, from the lights to the line; lanes do not touch each other, so any two runs make a race.
//!
//! That every car has the same drivers, with the same reactions and errors, leaves the cars to make the difference: two equal cars win exactly as
//! often, and of unequal ones less is left to luck than with drivers drawn for each.

use std::cmp::Ordering;
use std::sync::Arc;

use drag_race::timing::tenths_of_ms;
use drag_race::{Car, Driver, Plan, Shifts};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::classes::Classes;
use super::error::{StripError, Work};
use super::sheet::{Sheet, shifts_rpm};
use super::strip::Strip;
use crate::rules::Module;

/// Drivers of each car if nobody says. With 200 the 5 % quantile is the tenth best time.
pub const RUNS_DEFAULT: u32 = 200;
/// Drivers of each car, at most: far more than a share of wins in whole percent needs.
pub const RUNS_MAX: u32 = 5_000;
/// A class is even if none of its cars wins a larger share of its races.
pub const EVEN_SHARE_MAX: f64 = 0.55;

/// What drivers of one skill make of the cars.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drivers {
    /// Their skill, 0 a beginner to 1 near the best that the car can do.
    pub skill: f64,
    /// How many drove each car.
    pub runs: u32,
    /// What decided their reactions and errors.
    pub seed: u64,
    /// The spread of each car, in the order of the car file.
    pub spreads: Vec<Spread>,
    /// Who wins, by class, in the order of the classes.
    pub win_tables: Vec<WinTable>,
}

/// The spread of one car's runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Its id in the car file.
    pub car_id: String,
    /// Elapsed times over the quarter mile; none if nobody reached the line.
    pub elapsed: Option<Quantiles>,
    /// Reactions, red lights among them as negative ones.
    pub reaction: Option<Quantiles>,
    /// Share of the runs that left before green.
    pub red_light_share: f64,
    /// Share of the runs that reached the finish line.
    pub finished_share: f64,
}

/// Times of which so many percent are shorter, in s.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// 5 %.
    pub p5_s: f64,
    /// 25 %.
    pub p25_s: f64,
    /// Half of them.
    pub p50_s: f64,
    /// 75 %.
    pub p75_s: f64,
    /// 95 %.
    pub p95_s: f64,
}

/// Who wins in a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WinTable {
    /// The class's name.
    pub class: String,
    /// Its cars, the quickest first.
    pub car_ids: Vec<String>,
    /// Share of the races that the row's car wins against the column's, a dead heat as half; none of a car against itself.
    pub wins: Vec<Vec<Option<f64>>>,
    /// Share of its races that each car wins, all others of the class met equally often; none for a car that is alone.
    pub win_shares: Vec<Option<f64>>,
    /// Whether no car wins more than [`EVEN_SHARE_MAX`]; none for a class of one car, which has nobody to race.
    pub even: Option<bool>,
}

/// How the drivers are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Their skill, 0 to 1.
    pub skill: f64,
    /// How many drive each car, 1 to [`RUNS_MAX`].
    pub runs: u32,
    /// Decides their reactions and errors.
    pub seed: u64,
}

/// What counts of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Passed {
    reaction_s: Option<f64>,
    elapsed_s: Option<f64>,
}

/// Lets drivers drive each car; `sheets` say how each is driven best, which is what they mean to do.
///
/// # Errors
/// That of the first run, in the order of the cars, that cannot be made: see [`StripError`].
pub fn drive(
    module: &Arc<Module>,
    cars: &[Arc<Car>],
    sheets: &[Sheet],
    classes: &Classes,
    draw: Draw,
    work: &Arc<Work>,
) -> Result<Drivers, StripError> {
    let mut runs: Vec<(String, Vec<Passed>)> = Vec::new();
    for (car, sheet) in cars.iter().zip(sheets) {
        let strip = Strip::open(module, car, work)?;
        let plan = plan(car, sheet);
        let one = |number: u32| {
            let driver =
                Driver::with_skill_at(Arc::clone(car), 0, plan.clone(), draw.skill, driver_seed(draw.seed, number));
            let slip = strip.drive(driver)?;
            Ok(Passed { reaction_s: slip.reaction_s, elapsed_s: slip.quarter_mile_s })
        };
        // All of them first: which of several errors is told must not depend on the threads.
        let passed: Vec<Result<Passed, StripError>> =
            (0..draw.runs.clamp(1, RUNS_MAX)).into_par_iter().map(one).collect();
        runs.push((car.id.to_string(), passed.into_iter().collect::<Result<_, _>>()?));
    }
    let of = |car_id: &str| runs.iter().find(|(id, _)| id == car_id).map_or(&[][..], |(_, runs)| runs);
    let tables = classes.classes.iter().map(|class| {
        let ids: Vec<String> = class.members.iter().map(|member| member.car_id.clone()).collect();
        let members: Vec<&[Passed]> = ids.iter().map(|id| of(id)).collect();
        win_table(class.name.clone(), ids, &members)
    });
    Ok(Drivers {
        skill: draw.skill,
        runs: draw.runs,
        seed: draw.seed,
        spreads: runs.iter().map(|(car_id, runs)| spread(car_id, runs)).collect(),
        win_tables: tables.collect(),
    })
}

/// What a driver of the car means to do: the best run, with its changes of gear by the tachometer.
fn plan(car: &Car, sheet: &Sheet) -> Plan {
    let best = &sheet.best.run.plan;
    // A gear that the best run leaves out is left as early as a driver does that; gears that it does not need are for one who hits the limiter.
    let speeds = shifts_rpm(&sheet.shift_table).into_iter().chain([car.limiter_rpm]).collect();
    Plan { launch_rpm: best.launch_rpm, shifts: Shifts::RpmOfGear(speeds), grip_use: best.grip_use }
}

/// The seed of a driver (the finalizer of SplitMix64: Steele, Lea and Flood 2014). It knows nothing of the car.
fn driver_seed(seed: u64, number: u32) -> u64 {
    let mut z = seed.wrapping_add(u64::from(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn spread(car_id: &str, runs: &[Passed]) -> Spread {
    let share = |count: usize| count as f64 / runs.len().max(1) as f64;
    let red = runs.iter().filter(|run| run.reaction_s.is_some_and(|reaction_s| reaction_s < 0.0)).count();
    Spread {
        car_id: car_id.to_owned(),
        elapsed: Quantiles::of(runs.iter().filter_map(|run| run.elapsed_s).collect()),
        reaction: Quantiles::of(runs.iter().filter_map(|run| run.reaction_s).collect()),
        red_light_share: share(red),
        finished_share: share(runs.iter().filter(|run| run.elapsed_s.is_some()).count()),
    }
}

impl Quantiles {
    /// Of the times, by the nearest rank.
    fn of(mut times_s: Vec<f64>) -> Option<Self> {
        times_s.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (share * times_s.len() as f64).ceil() as usize;
            times_s.get(rank.saturating_sub(1)).copied()
        };
        Some(Self { p5_s: at(0.05)?, p25_s: at(0.25)?, p50_s: at(0.5)?, p75_s: at(0.75)?, p95_s: at(0.95)? })
    }
}

/// Each run of each car against each of each other.
fn win_table(class: String, car_ids: Vec<String>, members: &[&[Passed]]) -> WinTable {
    let in_order = |runs: &&[Passed]| {
        let mut standings: Vec<Standing> = runs.iter().map(|run| Standing::of(*run)).collect();
        standings.sort_by(Standing::compare);
        standings
    };
    let members: Vec<Vec<Standing>> = members.iter().map(in_order).collect();
    let against = |row: usize, column: usize| {
        let (own, others) = (members.get(row)?, members.get(column)?);
        // A race that is won counts 2, a dead heat 1. Whom a run beats stands behind it in the others' order.
        let points = |own: &Standing| {
            let ahead = others.partition_point(|other| other.compare(own).is_lt());
            let not_behind = others.partition_point(|other| other.compare(own).is_le());
            2 * (others.len() - not_behind) + (not_behind - ahead)
        };
        let races = own.len() * others.len();
        (row != column && races > 0).then(|| own.iter().map(points).sum::<usize>() as f64 / (2 * races) as f64)
    };
    let wins: Vec<Vec<Option<f64>>> =
        (0..members.len()).map(|row| (0..members.len()).map(|column| against(row, column)).collect()).collect();
    let win_shares: Vec<Option<f64>> = wins
        .iter()
        .map(|row| {
            let shares: Vec<f64> = row.iter().flatten().copied().collect();
            (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
        })
        .collect();
    let most = win_shares.iter().flatten().copied().reduce(f64::max);
    let even = most.map(|most| most <= EVEN_SHARE_MAX);
    WinTable { class, car_ids, wins, win_shares, even }
}

/// What a run is worth in a race, by the rules of the strip: the whole way from green to the line counts, a fair start beats a red light, of two red
/// lights the earlier loses, and who broke on the way loses to who did not.
#[derive(Debug, Clone, Copy)]
enum Standing {
    /// Over the line, so long after green, in s.
    Arrived(f64),
    /// A fair start that never came to the line.
    Broke,
    /// Left so long before green, in s.
    RedLight(f64),
}

impl Standing {
    fn of(run: Passed) -> Self {
        match (run.reaction_s, run.elapsed_s) {
            (Some(reaction_s), _) if reaction_s < 0.0 => Self::RedLight(-reaction_s),
            (Some(reaction_s), Some(elapsed_s)) => Self::Arrived(tenths_of_ms(reaction_s + elapsed_s)),
            _ => Self::Broke,
        }
    }

    /// The better one is less; of equal ones neither wins.
    fn compare(&self, other: &Self) -> Ordering {
        let order = |standing: &Self| match *standing {
            Self::Arrived(total_s) => (0, total_s),
            Self::Broke => (1, 0.0),
            Self::RedLight(early_s) => (2, early_s),
        };
        let ((group, time_s), (other_group, other_s)) = (order(self), order(other));
        group.cmp(&other_group).then(time_s.total_cmp(&other_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(reaction_s: f64, elapsed_s: f64) -> Passed {
        Passed { reaction_s: Some(reaction_s), elapsed_s: Some(elapsed_s) }
    }

    #[test]
    fn the_whole_rule_of_the_strip_decides() {
        let slow_but_awake = passed(0.02, 12.6);
        let quick_but_asleep = passed(0.3, 12.4);
        let red = passed(-0.01, 11.0);
        let redder = passed(-0.2, 10.0);
        let broke = Passed { reaction_s: Some(0.1), elapsed_s: None };
        for (own, other, verdict) in [
            (slow_but_awake, quick_but_asleep, Ordering::Less),
            (slow_but_awake, slow_but_awake, Ordering::Equal),
            (passed(0.1, 12.5), passed(0.2, 12.4), Ordering::Equal),
            (slow_but_awake, red, Ordering::Less),
            (red, redder, Ordering::Less),
            (broke, red, Ordering::Less),
            (broke, slow_but_awake, Ordering::Greater),
            (broke, broke, Ordering::Equal),
        ] {
            let (standing, others) = (Standing::of(own), Standing::of(other));
            assert_eq!(standing.compare(&others), verdict, "{own:?} {other:?}");
            assert_eq!(others.compare(&standing), verdict.reverse(), "{own:?} {other:?}");
            let share = match verdict {
                Ordering::Less => 1.0,
                Ordering::Equal => 0.5,
                Ordering::Greater => 0.0,
            };
            let table = win_table("A".into(), vec!["own".into(), "other".into()], &[&[own], &[other]]);
            assert_eq!(table.wins, [[None, Some(share)], [Some(1.0 - share), None]], "{own:?} {other:?}");
        }
    }

    #[test]
    fn a_class_of_like_cars_is_even_and_one_with_a_quick_car_is_not() {
        let drivers: Vec<Passed> = (0..50).map(|number| passed(0.05 + f64::from(number) / 250.0, 12.5)).collect();
        let ids = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
        let even = win_table("A".into(), ids(3), &[&drivers, &drivers, &drivers]);
        assert_eq!((even.even, even.win_shares), (Some(true), vec![Some(0.5); 3]));
        assert_eq!((even.wins[0][0], even.wins[0][1]), (None, Some(0.5)));

        let quick: Vec<Passed> = drivers.iter().map(|run| Passed { elapsed_s: Some(12.4), ..*run }).collect();
        let table = win_table("A".into(), ids(3), &[&quick, &drivers, &drivers]);
        assert!(table.even == Some(false) && table.win_shares[0].unwrap() > 0.7 && table.win_shares[1].unwrap() < 0.45);
        assert!((table.wins[0][1].unwrap() + table.wins[1][0].unwrap() - 1.0).abs() < 1e-12);

        let alone = win_table("A".into(), ids(1), &[&drivers]);
        assert_eq!((alone.even, alone.win_shares), (None, vec![None]));
    }

    #[test]
    fn quantiles_are_by_rank() {
        let times: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let found = Quantiles::of(times).unwrap();
        assert_eq!([found.p5_s, found.p25_s, found.p50_s, found.p75_s, found.p95_s], [5.0, 25.0, 50.0, 75.0, 95.0]);
        assert_eq!(Quantiles::of(vec![3.0]).unwrap().p95_s, 3.0);
        assert_eq!(Quantiles::of(vec![]), None);
    }

    #[test]
    fn drivers_have_seeds_of_their_own() {
        let seeds: std::collections::BTreeSet<u64> = (0..1_000).map(|number| driver_seed(7, number)).collect();
        assert_eq!(seeds.len(), 1_000);
        assert_ne!(driver_seed(7, 0), driver_seed(8, 0));
    }
}
