//! Classes: cars that may race each other, by the best times that the dyno found. It needs names and times and knows nothing of runs.
//!
//! Two methods. *Index* classes are those that strips hold: every half second, named by the time that nobody may beat in them. A car is in the class of its
//! published time rounded up, as in the results of the drag race; without one in that of its best time, of which [`TOLERANCE_S`] is let pass: a car
//! that was balanced to its class stays in it. *Natural* classes follow the cars: the
//! times are parted where the sum of squares within the classes is least (Fisher, "On Grouping for Maximum Homogeneity", Journal of the American
//! Statistical Association 53, 1958; known from maps as Jenks' natural breaks), into as few classes as keep every car within
//! [`NATURAL_SPAN_S`] of its class's mean.

use serde::{Deserialize, Serialize};

/// Width of an index class, in s.
pub const INDEX_STEP_S: f64 = 0.5;
/// How far from the mean of its natural class a car may be, in s: half the width of an index class.
pub const NATURAL_SPAN_S: f64 = INDEX_STEP_S / 2.0;
/// A car this far from the target of its natural class is out of place, in s: a driver with a good reaction gains about as much on one
/// with an ordinary reaction, so what lies beyond is the car's doing.
pub const OUT_OF_PLACE_S: f64 = 0.1;
/// A car this near to its class's target is at it, in s.
pub const TOLERANCE_S: f64 = 0.05;

/// How cars are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// By half seconds.
    Index,
    /// Where the times part by themselves.
    Natural,
}

/// A car to be grouped.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed {
    /// Its id in the car file.
    pub car_id: String,
    /// Its best elapsed time over the quarter mile, in s.
    pub quarter_mile_s: f64,
    /// The published one, in s.
    pub published_s: Option<f64>,
}

/// All cars in their classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Classes {
    /// How they were grouped.
    pub method: Method,
    /// The classes, the quickest first.
    pub classes: Vec<Class>,
}

/// One class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// Its name: the index, `12.5`, or a letter.
    pub name: String,
    /// The best time that its cars should have, in s: the index, or the mean of a natural class.
    pub target_s: f64,
    /// Its cars, the quickest first; one at least.
    pub members: Vec<Member>,
}

/// A car of a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its id in the car file.
    pub car_id: String,
    /// Its best elapsed time over the quarter mile, in s.
    pub quarter_mile_s: f64,
    /// That less the class's target, in s: negative for a car that is too quick.
    pub off_s: f64,
    /// Its best time is no time of this class. In an index class: it is beyond the half second up to the index by more than [`TOLERANCE_S`]. In a
    /// natural one: it is off the target by more than [`OUT_OF_PLACE_S`].
    pub out_of_place: bool,
}

impl Classes {
    /// Groups cars. Of equal times the first in the list comes first.
    #[must_use]
    pub fn of(method: Method, cars: &[Timed]) -> Self {
        let mut cars: Vec<&Timed> = cars.iter().collect();
        cars.sort_by(|a, b| a.quarter_mile_s.total_cmp(&b.quarter_mile_s));
        let classes = match method {
            Method::Index => index_classes(&cars),
            Method::Natural => natural_classes(&cars),
        };
        Self { method, classes }
    }

    /// The class of a car.
    #[must_use]
    pub fn of_car(&self, car_id: &str) -> Option<&Class> {
        self.classes.iter().find(|class| class.members.iter().any(|member| member.car_id == car_id))
    }
}

fn index_classes(cars: &[&Timed]) -> Vec<Class> {
    let halves = |car: &Timed| (car.published_s.unwrap_or(car.quarter_mile_s - TOLERANCE_S) / INDEX_STEP_S).ceil();
    let mut steps: Vec<f64> = cars.iter().map(|car| halves(car)).collect();
    steps.sort_by(f64::total_cmp);
    steps.dedup();
    let class = |step: f64| {
        let target_s = step * INDEX_STEP_S;
        let span = target_s - INDEX_STEP_S - TOLERANCE_S..=target_s + TOLERANCE_S;
        let members = cars.iter().filter(|car| halves(car) == step);
        Class {
            name: format!("{target_s:.1}"),
            target_s,
            members: members.map(|car| member(car, target_s, !span.contains(&car.quarter_mile_s))).collect(),
        }
    };
    steps.into_iter().map(class).collect()
}

fn natural_classes(cars: &[&Timed]) -> Vec<Class> {
    let times_s: Vec<f64> = cars.iter().map(|car| car.quarter_mile_s).collect();
    let mut rest = cars;
    let mut classes = Vec::new();
    for size in natural_breaks(&times_s, NATURAL_SPAN_S) {
        let (cars, after) = rest.split_at_checked(size).unwrap_or((rest, &[]));
        rest = after;
        let target_s = mean(cars.iter().map(|car| car.quarter_mile_s));
        let out = |car: &Timed| (car.quarter_mile_s - target_s).abs() > OUT_OF_PLACE_S;
        classes.push(Class {
            name: letters(classes.len()),
            target_s,
            members: cars.iter().map(|car| member(car, target_s, out(car))).collect(),
        });
    }
    classes
}

fn member(car: &Timed, target_s: f64, out_of_place: bool) -> Member {
    let Timed { car_id, quarter_mile_s, .. } = car;
    Member { car_id: car_id.clone(), quarter_mile_s: *quarter_mile_s, off_s: quarter_mile_s - target_s, out_of_place }
}

/// Sizes of the groups of rising times: of all ways to part them into `k` groups the one with the least sum of squares about the groups'
/// means, for the smallest `k` that leaves no time further than `span_s` from its group's mean.
///
/// The best parting of the first `n` times into `k` groups is the best of the first `m` into `k - 1` with one group of the rest, so each is found
/// from the ones before: Fisher's own argument, and O(k n²).
fn natural_breaks(times_s: &[f64], span_s: f64) -> Vec<usize> {
    let count = times_s.len();
    let sums = Sums::of(times_s);
    // For the present number of groups: the least sum for the first `n` times, and for every number of groups where its last one begins.
    let mut least: Vec<f64> = (0..=count).map(|end| sums.squares(0, end)).collect();
    let mut begins: Vec<Vec<usize>> = vec![vec![0; count + 1]];
    loop {
        let groups = groups(&begins, count);
        let near = |group: &&[usize; 2]| {
            let times = times_s.get(group[0]..group[1]).unwrap_or_default();
            let mean = mean(times.iter().copied());
            times.iter().all(|time_s| (time_s - mean).abs() <= span_s)
        };
        // As many groups as times: every time is its group's mean.
        if begins.len() >= count || groups.iter().all(|group| near(&group)) {
            return groups.iter().map(|[begin, end]| end - begin).filter(|size| *size > 0).collect();
        }
        let mut next = vec![f64::INFINITY; count + 1];
        let mut begin = vec![0; count + 1];
        for (end, (next, begin)) in next.iter_mut().zip(&mut begin).enumerate() {
            for (middle, least) in least.iter().enumerate().take(end).skip(begins.len()) {
                let sum = least + sums.squares(middle, end);
                if sum < *next {
                    (*next, *begin) = (sum, middle);
                }
            }
        }
        least = next;
        begins.push(begin);
    }
}

/// Beginning and end of each group, from where the last groups begin.
fn groups(begins: &[Vec<usize>], count: usize) -> Vec<[usize; 2]> {
    let mut end = count;
    let mut groups = Vec::new();
    for begins in begins.iter().rev() {
        let begin = begins.get(end).copied().unwrap_or(0);
        groups.push([begin, end]);
        end = begin;
    }
    groups.reverse();
    groups
}

/// Sums of the first times and of their squares, from which any group's sum of squares about its mean follows.
struct Sums {
    sums: Vec<(f64, f64)>,
}

impl Sums {
    fn of(times_s: &[f64]) -> Self {
        // About the mean of all, so that squares of like size are not taken from each other.
        let mean = mean(times_s.iter().copied());
        let mut sums = vec![(0.0, 0.0)];
        let (mut sum, mut square) = (0.0, 0.0);
        for time_s in times_s {
            let off = time_s - mean;
            sum += off;
            square += off * off;
            sums.push((sum, square));
        }
        Self { sums }
    }

    fn squares(&self, begin: usize, end: usize) -> f64 {
        match (self.sums.get(begin), self.sums.get(end)) {
            (Some((sum_a, square_a)), Some((sum_b, square_b))) if end > begin => {
                let sum = sum_b - sum_a;
                (square_b - square_a - sum * sum / (end - begin) as f64).max(0.0)
            }
            _ => 0.0,
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0_f64);
    for value in values {
        sum += value;
        count += 1.0;
    }
    sum / count.max(1.0)
}

/// A, B … Z, AA, AB …
fn letters(number: usize) -> String {
    let letter = char::from(b'A' + (number % 26) as u8);
    match (number / 26).checked_sub(1) {
        Some(before) => letters(before) + &letter.to_string(),
        None => letter.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn timed(car_id: &str, quarter_mile_s: f64, published_s: Option<f64>) -> Timed {
        Timed { car_id: car_id.into(), quarter_mile_s, published_s }
    }

    fn ids(class: &Class) -> Vec<&str> {
        class.members.iter().map(|member| member.car_id.as_str()).collect()
    }

    fn squares(group: &[f64]) -> f64 {
        let mean = mean(group.iter().copied());
        group.iter().map(|time_s| (time_s - mean) * (time_s - mean)).sum()
    }

    /// Every way to put `times` into groups, contiguous or not.
    fn partitions(times: &[f64]) -> Vec<Vec<Vec<f64>>> {
        let Some((last, before)) = times.split_last() else { return vec![vec![]] };
        let mut all = Vec::new();
        for partition in partitions(before) {
            for group in 0..partition.len() {
                let mut with = partition.clone();
                with[group].push(*last);
                all.push(with);
            }
            all.push([partition, vec![vec![*last]]].concat());
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn no_other_partition_into_so_many_groups_is_better_and_none_into_fewer_is_near_enough(
            mut times in proptest::collection::vec((900..1600_u32).prop_map(|hundredths| f64::from(hundredths) / 100.0), 1..8),
            span_s in 0.02..2.0,
        ) {
            times.sort_by(f64::total_cmp);
            let sizes = natural_breaks(&times, span_s);
            prop_assert_eq!(sizes.iter().sum::<usize>(), times.len());
            let mut rest = times.as_slice();
            let mut sum = 0.0;
            for size in &sizes {
                let (group, after) = rest.split_at(*size);
                sum += squares(group);
                let mean = mean(group.iter().copied());
                prop_assert!(group.iter().all(|time_s| (time_s - mean).abs() <= span_s + 1e-9));
                rest = after;
            }
            let total = |partition: &Vec<Vec<f64>>| partition.iter().map(|group| squares(group)).sum::<f64>();
            let all = partitions(&times);
            let least = |groups: usize| all.iter().filter(|p| p.len() == groups).min_by(|a, b| total(a).total_cmp(&total(b)));
            prop_assert!((sum - total(least(sizes.len()).unwrap())).abs() < 1e-9);
            // With one group fewer the best parting leaves some time too far out; equal sums aside.
            if let Some(fewer) = least(sizes.len() - 1) {
                let far = fewer.iter().any(|group| {
                    let mean = mean(group.iter().copied());
                    group.iter().any(|time_s| (time_s - mean).abs() > span_s - 1e-9)
                });
                let ties = all.iter().filter(|p| p.len() == fewer.len() && (total(p) - total(fewer)).abs() < 1e-9).count();
                prop_assert!(far || ties > 1);
            }
        }
    }

    #[test]
    fn index_classes_are_the_published_times_rounded_up_to_half_seconds() {
        let cars = [
            timed("late", 12.61, Some(12.4)),
            timed("fair", 12.3, Some(12.5)),
            timed("near", 12.52, Some(12.45)),
            timed("quick", 11.9, Some(12.2)),
            timed("new", 14.06, None),
            timed("balanced", 14.52, None),
        ];
        let classes = Classes::of(Method::Index, &cars);
        let names: Vec<(&str, f64)> =
            classes.classes.iter().map(|class| (class.name.as_str(), class.target_s)).collect();
        assert_eq!(names, [("12.5", 12.5), ("14.5", 14.5)]);
        assert_eq!(ids(&classes.classes[0]), ["quick", "fair", "near", "late"]);
        assert_eq!(ids(&classes.classes[1]), ["new", "balanced"]);
        let out: Vec<bool> = classes.classes[0].members.iter().map(|member| member.out_of_place).collect();
        assert_eq!(out, [true, false, false, true]);
        assert!((classes.classes[0].members[3].off_s - 0.11).abs() < 1e-9);
        assert_eq!(classes.of_car("new").unwrap().name, "14.5");
        assert!(classes.of_car("old").is_none());
    }

    #[test]
    fn natural_classes_part_where_the_times_part() {
        let times = [11.3, 11.4, 11.45, 12.0, 12.1, 14.5, 14.8];
        let cars: Vec<Timed> = times.iter().map(|time_s| timed(&time_s.to_string(), *time_s, None)).collect();
        let classes = Classes::of(Method::Natural, &cars);
        let groups: Vec<Vec<&str>> = classes.classes.iter().map(ids).collect();
        assert_eq!(groups, [vec!["11.3", "11.4", "11.45"], vec!["12", "12.1"], vec!["14.5", "14.8"]]);
        assert!((classes.classes[2].target_s - 14.65).abs() < 1e-9 && classes.classes[2].name == "C");
        assert!(classes.classes[2].members.iter().all(|member| member.out_of_place));
        assert!(classes.classes[1].members.iter().all(|member| !member.out_of_place));
    }

    #[test]
    fn no_car_one_car_and_equal_cars_are_classes_too() {
        for method in [Method::Index, Method::Natural] {
            assert!(Classes::of(method, &[]).classes.is_empty());
            let one = Classes::of(method, &[timed("one", 12.0, None)]);
            assert_eq!((one.classes.len(), one.classes[0].members[0].off_s), (1, 0.0));
            let equal: Vec<Timed> = (0..256).map(|number| timed(&number.to_string(), 13.0, None)).collect();
            assert_eq!(Classes::of(method, &equal).classes.len(), 1);
        }
        assert_eq!([letters(0), letters(25), letters(26), letters(27 * 26)], ["A", "Z", "AA", "AAA"]);
    }
}
