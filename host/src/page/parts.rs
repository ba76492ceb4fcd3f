//! Pieces that sections share: figures with legends, tables with captions, numbers as they are written.

use maud::{Markup, PreEscaped, html};

use super::chart::Ink;

/// How an entry of a legend looks in its chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Line,
    Dot,
    Diamond,
    Area,
}

/// One entry of a legend.
pub(crate) struct Entry {
    pub(crate) ink: Ink,
    pub(crate) mark: Mark,
    pub(crate) text: String,
}

/// An entry for a line.
pub(crate) fn line(ink: Ink, text: impl Into<String>) -> Entry {
    Entry { ink, mark: Mark::Line, text: text.into() }
}

/// An entry for a dot.
pub(crate) fn dot(ink: Ink, text: impl Into<String>) -> Entry {
    Entry { ink, mark: Mark::Dot, text: text.into() }
}

/// An entry for a diamond.
pub(crate) fn diamond(ink: Ink, text: impl Into<String>) -> Entry {
    Entry { ink, mark: Mark::Diamond, text: text.into() }
}

/// An entry for an area.
pub(crate) fn area(ink: Ink, text: impl Into<String>) -> Entry {
    Entry { ink, mark: Mark::Area, text: text.into() }
}

/// A chart with what it shows above it. `class` may be empty.
pub(crate) fn figure(class: &str, title: &str, note: &str, legend: &[Entry], svg: String) -> Markup {
    html! {
        figure class=[(!class.is_empty()).then_some(class)] {
            figcaption {
                h3 { (title) }
                (note)
                @if !legend.is_empty() {
                    ul.legend { @for entry in legend { li { (swatch(entry)) (entry.text) } } }
                }
            }
            (PreEscaped(svg))
        }
    }
}

fn swatch(entry: &Entry) -> Markup {
    let colour = format!("var(--{})", entry.ink.variable());
    let dashes = entry.ink.dashes_px();
    html! {
        svg viewBox="0 0 28 10" aria-hidden="true" {
            @match entry.mark {
                Mark::Line => line x1="0" y1="5" x2="28" y2="5" stroke=(colour) stroke-width="2.5"
                    stroke-dasharray=[(!dashes.is_empty()).then_some(dashes)] {},
                Mark::Dot => circle cx="14" cy="5" r="4" fill=(colour) {},
                Mark::Diamond => path d="M14 0l5 5-5 5-5-5z" fill=(colour) {},
                Mark::Area => rect x="0" y="0" width="28" height="10" fill=(colour) {},
            }
        }
    }
}

/// A table that scrolls in itself where the page is narrow. `class` may be empty.
pub(crate) fn table(class: &str, caption: &str, note: &str, head: Markup, body: Markup) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(caption) {
            table class=[(!class.is_empty()).then_some(class)] {
                caption { (caption) @if !note.is_empty() { small { (note) } } }
                thead { tr { (head) } }
                tbody { (body) }
            }
        }
    }
}

/// The head of a table whose first column are texts.
pub(crate) fn heads(names: &[&str]) -> Markup {
    html! {
        @for (index, name) in names.iter().enumerate() {
            @if index == 0 { th.text scope="col" { (name) } } @else { th scope="col" { (name) } }
        }
    }
}

/// A number with its sign, with the minus of print.
pub(crate) fn signed(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let zero = text.chars().all(|digit| matches!(digit, '0' | '.'));
    match (zero, value < 0.0) {
        (true, _) => text,
        (_, true) => format!("−{text}"),
        (_, false) => format!("+{text}"),
    }
}

/// A number with a comma between its thousands and without decimals.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 && digits != "0" { format!("−{text}") } else { text }
}

/// A share from 0 to 1 in percent, without decimals. An empty sum is -0, which nobody wants to read.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.0}", 100.0 * share + 0.0)
}

/// The anchor of a car's section. Ids of car files are made of letters, digits, `-` and `_`; another sign becomes a number, so that no two cars share
/// an anchor.
pub(crate) fn anchor(car_id: &str) -> String {
    let mut anchor = "car-".to_owned();
    for sign in car_id.chars() {
        if sign.is_ascii_alphanumeric() || matches!(sign, '-' | '_') {
            anchor.push(sign);
        } else {
            anchor.push_str(&format!(".{:x}.", u32::from(sign)));
        }
    }
    anchor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(signed(-0.214, 2), "−0.21");
        assert_eq!(signed(1.5, 1), "+1.5");
        assert_eq!(signed(-0.001, 2), "0.00");
        assert_eq!((percent(-0.0), percent(0.126)), ("0".into(), "13".into()));
        assert_eq!(
            (grouped(6850.4), grouped(-1234567.0), grouped(-0.2)),
            ("6,850".into(), "−1,234,567".into(), "0".into())
        );
    }

    #[test]
    fn an_anchor_is_one_car_and_no_markup() {
        assert_eq!(anchor("corvette_c8"), "car-corvette_c8");
        assert_eq!(anchor("<\"x y>"), "car-.3c..22.x.20.y.3e.");
        assert_ne!(anchor("a b"), anchor("a.20.b"));
    }
}
