//! The chart of what drivers make of the cars of a class: how far their elapsed times spread.

use plotters::element::{Rectangle, Text};
use plotters::style::text_anchor::{HPos, VPos};

use super::ladder::{Page, ROW_PX, TALL_ROW_PX, shortened};
use crate::page::chart::{
    Axis, COLUMN_WIDTH_PX, ChartError, Ink, PAGE_WIDTH_PX, Room, TEXT_PX, drawn, failed, line, plot, px,
};

/// The times of one car in the hands of many drivers, in s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread<'a> {
    pub(super) name: &'a str,
    /// The times that 5, 25, 50, 75 and 95 % of all runs are quicker than.
    pub(super) quantiles_s: [f64; 5],
}

/// Draws the spreads of some cars. `what` says which.
pub(super) fn spreads(what: &str, cars: &[Spread], page: Page, id: &str) -> Result<String, ChartError> {
    let (width_px, row_px, left_px) = match page {
        Page::Wide => (PAGE_WIDTH_PX, ROW_PX, 340),
        Page::Narrow => (COLUMN_WIDTH_PX, TALL_ROW_PX, 18),
    };
    let body_px = row_px * cars.len() as i32;
    let room = Room { left: left_px, right: 18, top: 6, bottom: 36 };
    let low = cars.iter().map(|car| car.quantiles_s[0]).reduce(f64::min).unwrap_or(0.0);
    let high = cars.iter().map(|car| car.quantiles_s[4]).reduce(f64::max).unwrap_or(1.0);
    let title = format!("Spread of elapsed times, {what}");
    let desc = format!(
        "{} cars; nine of ten runs of a car lie between the ends of its line, half of them in its box. From {low:.2} to {high:.2} s.",
        cars.len()
    );
    drawn((width_px, (body_px + room.top + room.bottom) as u32), (id, &title, &desc), |area| {
        let labels = if page == Page::Wide { 11 } else { 6 };
        let (from, to) = (((low - 0.05) * 10.0).floor() / 10.0, ((high + 0.05) * 10.0).ceil() / 10.0);
        // Steps of less than a tenth need another digit.
        let decimals = if (to - from) * 10.0 < labels as f64 { 2 } else { 1 };
        let tenths = |value: &f64| format!("{value:.decimals$}");
        let x = Axis { name: "s over the quarter mile", ink: Ink::Text, from, to, labels, format: &tenths };
        let y = Axis { name: "", ink: Ink::Text, from: 0.0, to: f64::from(body_px.max(1)), labels: 0, format: &tenths };
        let mut plot = plot(area, room, &x, &y)?;
        for (car, row) in cars.iter().zip(0i32..) {
            let top_px = row * row_px;
            let (middle_px, words_px) = match page {
                Page::Wide => (top_px + row_px / 2, top_px + row_px / 2),
                Page::Narrow => (top_px + row_px * 3 / 4, top_px + row_px / 4),
            };
            let name = Ink::Text.text(TEXT_PX, HPos::Left, VPos::Center);
            let name = Text::new(shortened(car.name), (px(20), px(room.top + words_px)), name);
            area.draw(&name).map_err(failed)?;
            let y = f64::from(body_px - middle_px);
            let [least, quarter, half, three, most] = car.quantiles_s;
            line(&mut plot, [(least, y), (most, y)], Ink::Blue.line(15))?;
            let zone = Rectangle::new([(quarter, y - 6.0), (three, y + 6.0)], Ink::Blue.area());
            plot.draw_series([zone]).map_err(failed)?;
            line(&mut plot, [(half, y - 8.0), (half, y + 8.0)], Ink::Orange.line(30))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::read::{lines, scale_across};

    #[test]
    fn lines_end_at_the_outer_quantiles_and_are_cut_at_the_middle() {
        let cars = [
            Spread { name: "a", quantiles_s: [12.0, 12.1, 12.2, 12.3, 12.5] },
            Spread { name: "b", quantiles_s: [12.4, 12.4, 12.4, 12.4, 12.4] },
        ];
        for page in [Page::Wide, Page::Narrow] {
            let svg = spreads("class x", &cars, page, "id").unwrap();
            let seconds = scale_across(&svg, if page == Page::Wide { ["12.00", "12.40"] } else { ["12.0", "12.4"] });
            let ends = |ink: &str| -> Vec<Vec<i64>> {
                let found = lines(&svg, ink);
                found
                    .iter()
                    .map(|line| line.iter().map(|(x, _)| (seconds(*x) * 100.0).round() as i64).collect())
                    .collect()
            };
            assert_eq!(ends("blue"), [[1200, 1250], [1240, 1240]], "{page:?}");
            assert_eq!(ends("orange"), [[1220, 1220], [1240, 1240]], "{page:?}");
        }
    }
}
