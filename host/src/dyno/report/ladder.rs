//! The class ladder: cars against their time over the quarter mile, class by class, those out of place marked.

use plotters::element::{Circle, Polygon, Rectangle, Text};
use plotters::style::text_anchor::{HPos, VPos};

use crate::page::chart::{
    Area, Axis, COLUMN_WIDTH_PX, ChartError, Ink, PAGE_WIDTH_PX, Room, TEXT_PX, drawn, failed, line, placed, plot, px,
};
use crate::page::parts::signed;

/// Height of a class' name, of a car's row where the name stands beside it, and of one where it stands above, in pixels.
const CLASS_PX: i32 = 26;
pub(super) const ROW_PX: i32 = 24;
pub(super) const TALL_ROW_PX: i32 = 40;

/// Characters of a car's name that have room in its row.
const NAME_CHARS_MAX: usize = 40;

/// One car of a class.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rung<'a> {
    pub(super) name: &'a str,
    pub(super) time_s: f64,
    /// Time less the class's target, in s.
    pub(super) off_s: f64,
    pub(super) out_of_place: bool,
}

/// One class, its cars in the order in which the ladder shows them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Band<'a> {
    pub(super) name: &'a str,
    pub(super) target_s: f64,
    pub(super) rungs: Vec<Rung<'a>>,
}

/// For which page a ladder is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// Names stand beside the rows.
    Wide,
    /// Names stand above the rows.
    Narrow,
}

/// Draws the ladder.
pub(super) fn ladder(bands: &[Band], page: Page, id: &str) -> Result<String, ChartError> {
    let (width_px, row_px, left_px) = match page {
        Page::Wide => (PAGE_WIDTH_PX, ROW_PX, 470),
        Page::Narrow => (COLUMN_WIDTH_PX, TALL_ROW_PX, 18),
    };
    let cars = bands.iter().map(|band| band.rungs.len()).sum::<usize>() as i32;
    let body_px = CLASS_PX * bands.len() as i32 + row_px * cars;
    let room = Room { left: left_px, right: 16, top: 6, bottom: 36 };
    let height_px = (body_px + room.top + room.bottom) as u32;
    let (from, to) = span(bands);
    let out = bands.iter().flat_map(|band| &band.rungs).filter(|rung| rung.out_of_place).count();
    let title = "Class ladder: cars against their time over the quarter mile";
    let desc = format!(
        "{cars} cars in {} classes, from {from:.1} to {to:.1} s; {out} out of place. The table below says the same in numbers.",
        bands.len()
    );
    drawn((width_px, height_px), (id, title, &desc), |area| {
        let tenths = |value: &f64| format!("{value:.1}");
        let labels = if page == Page::Wide { 14 } else { 6 };
        let x = Axis { name: "s over the quarter mile", ink: Ink::Text, from, to, labels, format: &tenths };
        let y = Axis { name: "", ink: Ink::Text, from: 0.0, to: f64::from(body_px), labels: 0, format: &tenths };
        // Zones first: the grid lies upon them.
        let mut top_px = room.top;
        for (band, shaded) in bands.iter().zip([true, false].into_iter().cycle()) {
            let below_px = top_px + CLASS_PX + row_px * band.rungs.len() as i32;
            if shaded {
                let zone = [(0, px(top_px)), (px(width_px as i32), px(below_px))];
                area.draw(&Rectangle::new(zone, Ink::Band.area())).map_err(failed)?;
            }
            top_px = below_px;
        }
        let mut plot = plot(area, room, &x, &y)?;
        let mut below_px = 0;
        for band in bands {
            let top_px = below_px;
            below_px += CLASS_PX + row_px * band.rungs.len() as i32;
            let high = f64::from(body_px - top_px);
            let low = f64::from(body_px - below_px);
            if page == Page::Wide {
                line(&mut plot, [(band.target_s, low), (band.target_s, high)], Ink::Moment.line(15))?;
            }
            let style = Ink::Text.text(TEXT_PX + 1, HPos::Left, VPos::Center);
            let text = format!("Class {}, target {:.2} s", band.name, band.target_s);
            area.draw(&Text::new(text, (px(8), px(room.top + top_px + CLASS_PX / 2)), style)).map_err(failed)?;
            for (rung, row) in band.rungs.iter().zip(0i32..) {
                let row_top_px = top_px + CLASS_PX + row * row_px;
                // Below a name the rung is in the lower half of its row.
                let middle_px = row_top_px + if page == Page::Wide { row_px / 2 } else { row_px * 3 / 4 };
                let y = f64::from(body_px - middle_px);
                words(area, rung, page, room.top + row_top_px)?;
                if page == Page::Narrow {
                    // Not through the names.
                    let arm = f64::from(row_px) / 4.0;
                    line(&mut plot, [(band.target_s, y - arm), (band.target_s, y + arm)], Ink::Moment.line(15))?;
                }
                let ink = if rung.out_of_place { Ink::Bad } else { Ink::Blue };
                line(&mut plot, [(band.target_s, y), (rung.time_s, y)], ink.line(20))?;
                let (x, y) = placed(area, &plot, (rung.time_s, y));
                if rung.out_of_place {
                    let arm = px(7);
                    let diamond = vec![(x - arm, y), (x, y - arm), (x + arm, y), (x, y + arm)];
                    area.draw(&Polygon::new(diamond, ink.area())).map_err(failed)?;
                } else {
                    area.draw(&Circle::new((x, y), px(5), ink.area())).map_err(failed)?;
                }
            }
        }
        Ok(())
    })
}

/// A car's name, time and distance from the target: in columns beside its rung, or in one line above it.
fn words(area: &Area, rung: &Rung, page: Page, top_px: i32) -> Result<(), ChartError> {
    let ink = if rung.out_of_place { Ink::Bad } else { Ink::Text };
    let write = |text: String, x_px: i32, y_px: i32, across: HPos, ink: Ink| {
        area.draw(&Text::new(text, (px(x_px), px(top_px + y_px)), ink.text(TEXT_PX, across, VPos::Center)))
            .map_err(failed)
    };
    let time = format!("{:.2}", rung.time_s);
    let off = signed(rung.off_s, 2);
    match page {
        Page::Wide => {
            let off = if rung.out_of_place { format!("{off} out of place") } else { off };
            write(shortened(rung.name), 20, ROW_PX / 2, HPos::Left, Ink::Text)?;
            write(time, 335, ROW_PX / 2, HPos::Right, Ink::Text)?;
            write(off, 345, ROW_PX / 2, HPos::Left, ink)
        }
        Page::Narrow => {
            let off = if rung.out_of_place { format!("{time}, {off} out") } else { format!("{time}, {off}") };
            write(shortened(rung.name), 20, TALL_ROW_PX / 4, HPos::Left, Ink::Text)?;
            write(off, COLUMN_WIDTH_PX as i32 - 16, TALL_ROW_PX / 4, HPos::Right, ink)
        }
    }
}

/// The times that the axis shows: all cars and targets, with room for text, in half seconds.
fn span(bands: &[Band]) -> (f64, f64) {
    let times = || {
        let targets = bands.iter().map(|band| band.target_s);
        targets.chain(bands.iter().flat_map(|band| band.rungs.iter().map(|rung| rung.time_s)))
    };
    let low = times().reduce(f64::min).unwrap_or(10.0);
    let high = times().reduce(f64::max).unwrap_or(15.0);
    (((low - 0.25) * 2.0).floor() / 2.0, ((high + 0.25) * 2.0).ceil() / 2.0)
}

/// A name that has room in its row.
pub(super) fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME_CHARS_MAX {
        return name.to_owned();
    }
    let mut short: String = name.chars().take(NAME_CHARS_MAX - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::read::{lines, scale_across, texts};

    fn bands() -> Vec<Band<'static>> {
        let rung = |name, time_s: f64, target_s: f64, out_of_place| Rung {
            name,
            time_s,
            off_s: time_s - target_s,
            out_of_place,
        };
        vec![
            Band { name: "11.5", target_s: 11.5, rungs: vec![rung("quick", 11.24, 11.5, false)] },
            Band {
                name: "12.0",
                target_s: 12.0,
                rungs: vec![
                    rung("too quick", 11.4, 12.0, true),
                    rung("a <b> & a name that is longer than its row", 11.97, 12.0, false),
                ],
            },
        ]
    }

    #[test]
    fn every_car_stands_at_its_time_and_out_of_place_is_said_in_words() {
        for page in [Page::Wide, Page::Narrow] {
            let svg = ladder(&bands(), page, "id").unwrap();
            let seconds = scale_across(&svg, ["11.0", "12.0"]);
            // From the target to the car: each rung begins or ends at its time.
            let rungs: Vec<(f64, f64)> = ["blue", "bad"].iter().flat_map(|ink| lines(&svg, ink)).flatten().collect();
            for time_s in [11.24, 11.4, 11.97, 11.5, 12.0] {
                assert!(
                    rungs.iter().any(|(x, _)| (seconds(*x) - time_s).abs() < 0.01),
                    "{page:?}: {time_s} in {rungs:?}"
                );
            }
            assert_eq!(lines(&svg, "bad").len(), 1, "{page:?}");
            let words = texts(&svg);
            let out: Vec<_> = words.iter().filter(|text| text.ink == "var(--bad)").collect();
            assert!(out.len() == 1 && out[0].text.contains("−0.60 out"), "{page:?}: {out:?}");
            assert!(
                words.iter().any(|text| text.text.starts_with("a &lt;b&gt; &amp;") && text.text.ends_with('…')),
                "{words:?}"
            );
            assert!(words.iter().any(|text| text.text == "Class 12.0, target 12.00 s"));
        }
    }

    #[test]
    fn a_ladder_without_cars_is_drawn() {
        assert!(ladder(&[], Page::Wide, "id").is_ok());
    }
}
