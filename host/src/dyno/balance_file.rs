//! A car file with the proposed changes in it: the figures of the changed cars are replaced where they stand, and all else, comments too, stays.

use std::ops::Range;

use drag_race::car_file::{self, CarFileError, tidy};
use toml::de::{DeTable, DeValue};

use super::balance::{Change, Figure, Proposal};

/// Why there is no file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BalanceFileError {
    /// The file, before or after the changes, is refused.
    #[error(transparent)]
    File(#[from] CarFileError),
    /// The file has not a car of the proposals, or not a figure of it: it is another file than the one that was read.
    #[error("{path} has no figure `{field}` of the car {car_id:?} any more")]
    NoFigure {
        /// The file.
        path: String,
        /// The car.
        car_id: String,
        /// The figure.
        field: String,
    },
}

/// The text of a car file with the chosen change of each proposal made, and a comment above each changed car that says so. It is read once more, so
/// what comes back is accepted.
///
/// # Errors
/// See [`BalanceFileError`].
pub fn balanced(text: &str, path: &str, proposals: &[Proposal]) -> Result<String, BalanceFileError> {
    let file = car_file::read(text, path)?;
    // What was read is TOML.
    let root = DeTable::parse(text).map_err(|error| CarFileError::NotToml {
        path: path.to_owned(),
        line: 1,
        problem: error.message().to_owned(),
    })?;
    let tables = match root.get_ref().get("car").map(|cars| cars.get_ref()) {
        Some(DeValue::Array(tables)) => tables.iter(),
        _ => [].iter(),
    };
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    // The reader keeps the order of the tables.
    for (entry, table) in file.cars.iter().zip(tables) {
        let chosen = proposals.iter().filter(|proposal| proposal.car_id == entry.id);
        for (proposal, change, after_s) in chosen.filter_map(|proposal| {
            let chosen = proposal.chosen.as_ref()?;
            Some((proposal, chosen.change?, chosen.after_s?))
        }) {
            let figure = |field: &str| {
                let value = match table.get_ref() {
                    DeValue::Table(table) => table.get(field),
                    _ => None,
                };
                let missing = || BalanceFileError::NoFigure {
                    path: path.to_owned(),
                    car_id: entry.id.clone(),
                    field: field.to_owned(),
                };
                let span = value.ok_or_else(missing)?.span();
                let number = text.get(span.clone()).and_then(|text| text.replace('_', "").parse::<f64>().ok());
                Ok::<_, BalanceFileError>((span, number.ok_or_else(missing)))
            };
            for field in fields(change.figure) {
                let (span, number) = figure(field)?;
                edits.push((span, format!("{:?}", changed(change, number?))));
            }
            if change.figure == Figure::Power {
                let (span, _) = figure("torque_nm")?;
                let point = |[rpm, nm]: &[f64; 2]| format!("[{rpm}, {}]", changed(change, *nm));
                let points: Vec<String> = entry.torque_nm.iter().map(point).collect();
                edits.push((span, format!("[{}]", points.join(", "))));
            }
            let header = table.span().start;
            edits.push((
                header..header,
                format!(
                    "# holeshot dyno --balance: {}; {after_s:.3} s for the {:.3} s of class {}\n",
                    change.words(),
                    proposal.target_s,
                    proposal.class
                ),
            ));
        }
    }
    // From the end, so that the places before stay.
    edits.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
    let mut balanced = text.to_owned();
    for (span, edit) in edits {
        balanced.replace_range(span, &edit);
    }
    car_file::read(&balanced, path)?;
    Ok(balanced)
}

/// The single figures that a change goes into.
const fn fields(figure: Figure) -> &'static [&'static str] {
    match figure {
        Figure::Ballast => &["curb_mass_kg"],
        Figure::Power => &["peak_torque_nm", "peak_power_kw"],
        Figure::FinalDrive => &["final_drive"],
    }
}

fn changed(change: Change, value: f64) -> f64 {
    tidy(match change.figure {
        Figure::Ballast => value + f64::from(change.steps),
        Figure::Power | Figure::FinalDrive => value * (1.0 + f64::from(change.steps) / 1_000.0),
    })
}

#[cfg(test)]
mod tests {
    use drag_race::{CATALOGUE_TOML, Car};

    use super::*;
    use crate::dyno::balance::Candidate;

    fn proposal(car_id: &str, figure: Figure, steps: i32) -> Proposal {
        let chosen = Candidate {
            change: Some(Change { figure, steps }),
            figure,
            size_percent: Some(1.0),
            after_s: Some(12.5),
            reaches: true,
            problem: None,
        };
        Proposal {
            car_id: car_id.into(),
            class: "12.5".into(),
            target_s: 12.5,
            before_s: 12.3,
            candidates: vec![chosen.clone()],
            chosen: Some(chosen),
        }
    }

    fn same(a: f64, b: f64) -> bool {
        a == b || (a / b - 1.0).abs() < 1e-10
    }

    #[test]
    fn the_file_has_the_changed_cars_and_all_else_as_it_was() {
        let proposals = [
            proposal("hellcat", Figure::Power, -37),
            proposal("mx5", Figure::Ballast, -40),
            proposal("wrx", Figure::FinalDrive, 55),
            Proposal { chosen: None, ..proposal("gtr", Figure::Ballast, 400) },
        ];
        let text = balanced(CATALOGUE_TOML, "cars.toml", &proposals).unwrap();
        let before = car_file::read(CATALOGUE_TOML, "cars.toml").unwrap().cars();
        let after = car_file::read(&text, "cars.toml").unwrap().cars();
        for (before, after) in before.iter().zip(&after) {
            let change =
                proposals.iter().find(|proposal| proposal.car_id == before.id).and_then(|p| p.chosen.clone()?.change);
            let Some(change) = change else {
                assert_eq!(before, after);
                continue;
            };
            // The car that was run, but for the last digits of what the file gives in parts.
            let Car { mass_kg, peak_torque_nm, peak_power_kw, ratios, torque_nm, .. } = change.applied(before);
            assert!(same(mass_kg, after.mass_kg) && same(peak_power_kw, after.peak_power_kw), "{}", after.id);
            assert!(
                same(peak_torque_nm, after.peak_torque_nm)
                    && torque_nm.points().len() == after.torque_nm.points().len()
            );
            let points = torque_nm.points().as_flattened().iter().zip(after.torque_nm.points().as_flattened());
            let pairs = points.chain(ratios.iter().zip(after.ratios.iter()));
            assert!(pairs.into_iter().all(|(run, written)| same(*run, *written)), "{}", after.id);
        }
        let comments =
            |text: &str| text.lines().filter(|line| line.contains('#')).map(str::to_owned).collect::<Vec<_>>();
        let added: Vec<String> =
            comments(&text).into_iter().filter(|line| !comments(CATALOGUE_TOML).contains(line)).collect();
        assert_eq!(added.len(), 3 + usize::from(added.iter().any(|line| line.starts_with("final_drive"))), "{added:?}");
        assert!(
            text.contains(
                "# holeshot dyno --balance: -40 kg of mass; 12.500 s for the 12.500 s of class 12.5\n[[car]]"
            )
        );
        assert_eq!(balanced(CATALOGUE_TOML, "cars.toml", &[]).unwrap(), CATALOGUE_TOML);
    }

    #[test]
    fn a_change_that_the_file_does_not_take_is_told_with_its_line() {
        let error =
            balanced(CATALOGUE_TOML, "my.toml", &[proposal("mx5", Figure::Ballast, -900)]).unwrap_err().to_string();
        assert!(
            error.starts_with("my.toml:") && error.contains("curb_mass_kg") && error.contains("300 to 5000"),
            "{error}"
        );
    }
}
