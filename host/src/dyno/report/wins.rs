//! The table of who beats whom: a class at a glance, its numbers tinted by how far they are from a fair half.

use maud::{Markup, html};

use crate::page::parts::{percent, table};

/// The deepest tint of a cell, as a share of its colour: numbers must stay readable on it.
const TINT_SHARE_MAX: f64 = 0.45;

/// Draws the table of a class. `share` tells in which share of their races the car of a row beats that of a column; none where they do not meet.
pub(super) fn wins(class: &str, names: &[&str], share: impl Fn(usize, usize) -> Option<f64>) -> Markup {
    let head = html! {
        th.text scope="col" { "row beats column, %" }
        @for name in names { th scope="col" { (name) } }
    };
    let body = html! {
        @for (row, name) in names.iter().enumerate() {
            tr {
                th scope="row" { (name) }
                @for column in 0..names.len() {
                    @match share(row, column).filter(|_| row != column) {
                        Some(share) => td style=(tint(share)) { (percent(share)) },
                        None => td { "–" },
                    }
                }
            }
        }
    };
    table(
        "wins",
        &format!("Class {class}: who beats whom"),
        "Reaction and elapsed time, as on the strip; a red light loses.",
        head,
        body,
    )
}

/// The background of a cell: blue for who wins, orange for who loses, none for a fair half.
fn tint(share: f64) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.5 };
    let (colour, far) = if share >= 0.5 { ("blue", share - 0.5) } else { ("orange", 0.5 - share) };
    let percent = 100.0 * TINT_SHARE_MAX * far / 0.5;
    format!("background:color-mix(in srgb,var(--{colour}) {percent:.0}%,transparent)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_each_pair_once_each_way_and_tints_who_wins() {
        let shares = [[None, Some(0.63)], [Some(0.37), None]];
        let table = wins("12.0", &["<a>", "b"], |row, column| shares[row][column]).into_string();
        assert!(table.contains("&lt;a&gt;") && !table.contains("<a>"), "{table}");
        assert_eq!(table.matches("<td>–</td>").count(), 2, "{table}");
        assert!(table.contains("var(--blue) 12%,transparent)\">63</td>"), "{table}");
        assert!(table.contains("var(--orange) 12%,transparent)\">37</td>"), "{table}");
        assert!(tint(f64::NAN).contains(" 0%"));
    }
}
