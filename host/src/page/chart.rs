//! What all charts share: sizes, inks, axes, and the way from plotters' SVG to SVG that takes its colours and its font
//! from the page. No chart of its own lives here.
//!
//! plotters draws in colours that mean nothing but the number of an [`Ink`]; [`drawn`] puts the page's CSS variables in their
//! place, so the same lines are readable in light, in dark and on paper.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    Cartesian2d, ChartBuilder, ChartContext, Color, DrawingArea, IntoDrawingArea, IntoFont, PathElement, RGBColor,
    SVGBackend, ShapeStyle, Text, TextStyle,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Units of the drawing for one pixel: plotters rounds to whole units, and a line must not look like stairs.
const UNITS_PER_PX: u32 = 10;

/// Width of a chart that stands in a column, in pixels. So narrow because it must be readable on a phone, where the whole drawing shrinks
/// with its text to 330 pixels or so.
pub(crate) const COLUMN_WIDTH_PX: u32 = 440;

/// Width of a chart that takes the page's whole width, in pixels.
pub(crate) const PAGE_WIDTH_PX: u32 = 900;

/// Size of the text in charts, in pixels.
pub(crate) const TEXT_PX: u32 = 12;

/// plotters writes a font's size divided by this.
const PLOTTERS_FONT_FACTOR: f64 = 1.24;

/// Colours for gears; a car with more gears takes them from the beginning again.
pub(crate) const GEAR_INKS: u8 = 12;

/// First two bytes of the colours that stand for inks; the third is the ink's number.
const INK_RED: u8 = 0xFE;
const INK_GREEN: u8 = 0x01;

/// What is drawn with: a colour of the page, and for some lines dashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    /// Text and axes.
    Text,
    /// Text of less weight.
    Soft,
    /// The lines behind the curves.
    Grid,
    /// A zone behind the curves.
    Zone,
    /// A band across the page.
    Band,
    /// The page's own colour.
    Paper,
    /// First series.
    Blue,
    /// Second series.
    Orange,
    /// Third series.
    Purple,
    /// What resists, dashed.
    Resistance,
    /// What tyres bear, dashed.
    Bearable,
    /// A line that marks a moment, dashed.
    Moment,
    /// Second series where it lies upon the first: dashed.
    Dashed,
    /// Limited by grip.
    Grip,
    /// Limited by power.
    Power,
    /// Limited by gearing.
    Gearing,
    /// What is out of place.
    Bad,
    /// A gear, from 1.
    Gear(u8),
}

/// The inks before those of the gears: an ink's number is its place.
const INKS: [(Ink, &str, &str); 17] = [
    (Ink::Text, "ink", ""),
    (Ink::Soft, "soft", ""),
    (Ink::Grid, "grid", ""),
    (Ink::Zone, "zone", ""),
    (Ink::Band, "band", ""),
    (Ink::Paper, "paper", ""),
    (Ink::Blue, "blue", ""),
    (Ink::Orange, "orange", ""),
    (Ink::Purple, "purple", ""),
    (Ink::Resistance, "ink", "60 35"),
    (Ink::Bearable, "grip", "90 40 20 40"),
    (Ink::Moment, "soft", "20 30"),
    (Ink::Dashed, "orange", "70 40"),
    (Ink::Grip, "grip", ""),
    (Ink::Power, "power", ""),
    (Ink::Gearing, "gearing", ""),
    (Ink::Bad, "bad", ""),
];

impl Ink {
    /// The colour in which plotters draws it.
    fn mark(self) -> RGBColor {
        let number = match self {
            Self::Gear(gear) => INKS.len() as u8 + gear.saturating_sub(1) % GEAR_INKS,
            ink => INKS.iter().position(|(known, ..)| *known == ink).unwrap_or(0) as u8,
        };
        RGBColor(INK_RED, INK_GREEN, number)
    }

    /// The page's variable, and the dashes of its lines in units of the drawing (none if empty).
    fn of_number(number: u8) -> (String, &'static str) {
        match INKS.get(usize::from(number)) {
            Some((_, variable, dashes)) => ((*variable).to_owned(), dashes),
            None => (format!("g{}", usize::from(number) - INKS.len() + 1), ""),
        }
    }

    /// The CSS variable of its colour.
    pub(crate) fn variable(self) -> String {
        Self::of_number(self.mark().2).0
    }

    /// Dashes of its lines in pixels of the page; empty for a whole line.
    pub(crate) fn dashes_px(self) -> String {
        let units = Self::of_number(self.mark().2).1;
        let pixels = units.split(' ').filter_map(|length| length.parse::<u32>().ok());
        pixels.map(|length| (length / UNITS_PER_PX).to_string()).collect::<Vec<_>>().join(" ")
    }

    /// A line of this width, in tenths of a pixel.
    pub(crate) fn line(self, tenths_px: u32) -> ShapeStyle {
        self.mark().stroke_width(tenths_px * UNITS_PER_PX / 10)
    }

    /// An area.
    pub(crate) fn area(self) -> ShapeStyle {
        self.mark().filled()
    }

    /// Text of this size, in pixels, with its anchor.
    pub(crate) fn text(self, size_px: u32, across: HPos, down: VPos) -> TextStyle<'static> {
        let size = f64::from(size_px * UNITS_PER_PX) * PLOTTERS_FONT_FACTOR;
        let color = self.mark().to_backend_color();
        TextStyle { font: ("sans-serif", size).into_font(), color, pos: Pos::new(across, down) }
    }
}

/// A chart could not be drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("plotters does not draw this: {reason}")]
pub struct ChartError {
    /// What plotters says.
    pub reason: String,
}

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(crate) type Plot<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// For `map_err`.
pub(crate) fn failed(error: impl std::fmt::Display) -> ChartError {
    ChartError { reason: error.to_string() }
}

/// Pixels as units of the drawing.
pub(crate) fn px(pixels: i32) -> i32 {
    pixels * UNITS_PER_PX as i32
}

/// Draws on a sheet of this size, in pixels. The answer is a whole `svg` element whose title and description are `title` and `desc`, with ids
/// that begin with `id`; nothing in it loads anything.
pub(crate) fn drawn(
    (width_px, height_px): (u32, u32),
    (id, title, desc): (&str, &str, &str),
    draw: impl FnOnce(&Area) -> Result<(), ChartError>,
) -> Result<String, ChartError> {
    let size = (width_px * UNITS_PER_PX, height_px * UNITS_PER_PX);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&area)?;
        area.present().map_err(failed)?;
    }
    // plotters' own opening tag goes: a name space inside HTML is noise, and a fixed size would not fit a phone.
    let inside = svg.split_once(">\n").map_or("", |(_, inside)| inside);
    let escape = |text: &str| maud::html! { (text) }.into_string();
    Ok(format!(
        "<svg role=\"img\" viewBox=\"0 0 {} {}\" aria-labelledby=\"{id}-title {id}-desc\">\
         <title id=\"{id}-title\">{}</title><desc id=\"{id}-desc\">{}</desc>\n{}",
        size.0,
        size.1,
        escape(title),
        escape(desc),
        themed(inside)
    ))
}

/// Puts the page's colours in the place of the inks' marks and takes out what the page's style says. A mark cannot be meant by a text: in texts
/// plotters writes quotes as entities.
fn themed(svg: &str) -> String {
    let mark = format!("\"#{INK_RED:02X}{INK_GREEN:02X}");
    let mut pieces = svg.split(mark.as_str());
    let mut themed = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let number = piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let (variable, dashes) = Ink::of_number(number.unwrap_or(0));
        themed.push_str(&format!("\"var(--{variable})\""));
        if !dashes.is_empty() {
            themed.push_str(&format!(" stroke-dasharray=\"{dashes}\""));
        }
        themed.push_str(piece.get(3..).unwrap_or_default());
    }
    themed.replace(" opacity=\"1\"", "").replace(" font-family=\"sans-serif\"", "")
}

/// One axis: what it shows, from where to where, how many numbers stand at it at most, and how they are written.
pub(crate) struct Axis<'a> {
    pub(crate) name: &'a str,
    pub(crate) ink: Ink,
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) labels: usize,
    pub(crate) format: &'a dyn Fn(&f64) -> String,
}

impl Axis<'_> {
    /// The axis' range. plotters panics where a number is none and has no scale where both ends are the same: such an end
    /// is moved.
    fn range(&self) -> std::ops::Range<f64> {
        let from = if self.from.is_finite() { self.from } else { 0.0 };
        let to = if self.to.is_finite() && self.to - from > 1e-6 { self.to } else { from + 1.0 };
        from..to
    }
}

/// Numbers without decimals.
pub(crate) fn whole(value: &f64) -> String {
    format!("{value:.0}")
}

/// Where a panel leaves room for text, in pixels.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    pub(crate) left: i32,
    pub(crate) right: i32,
    pub(crate) top: i32,
    pub(crate) bottom: i32,
}

/// A bit more than the largest value, so that the curve does not touch the frame.
pub(crate) fn headroom(largest: f64) -> f64 {
    largest * 1.05
}

/// Where an axis from zero ends that has room for a largest value, and in how many steps of 1, 2 or 5 times a power of ten: those with the
/// least room to spare.
pub(crate) fn scale(largest: f64) -> (f64, usize) {
    let wanted = headroom(if largest.is_finite() { largest.max(1e-3) } else { 1.0 });
    let ends = (4usize..=7).flat_map(|steps| {
        let least = wanted / steps as f64;
        let magnitude = 10f64.powf(least.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * magnitude).find(|step| *step >= least);
        step.map(|step| (step * steps as f64, steps))
    });
    ends.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((wanted, 5))
}

/// A plot with its axes, grid and the axes' names: that of the upright axis stands above it, that of the other below its right end, so that
/// nobody has to turn the head. Without numbers for `x` (0 labels) the axis at the foot is left to a panel below.
pub(crate) fn plot<'a>(area: &Area<'a>, room: Room, x: &Axis, y: &Axis) -> Result<Plot<'a>, ChartError> {
    let mut plot = ChartBuilder::on(area)
        .margin_top(px(room.top))
        .margin_right(px(room.right))
        .set_left_and_bottom_label_area_size(0)
        .y_label_area_size(px(room.left))
        .x_label_area_size(px(room.bottom))
        .build_cartesian_2d(x.range(), y.range())
        .map_err(failed)?;
    plot.configure_mesh()
        .light_line_style(Ink::Grid.mark().mix(0.0))
        .bold_line_style(Ink::Grid.line(10))
        .axis_style(Ink::Soft.line(10))
        .set_all_tick_mark_size(px(3))
        .x_labels(x.labels)
        .y_labels(y.labels)
        .x_label_formatter(&x.format)
        .y_label_formatter(&y.format)
        .x_label_style(Ink::Text.text(TEXT_PX, HPos::Center, VPos::Top))
        .y_label_style(y.ink.text(TEXT_PX, HPos::Right, VPos::Center))
        .draw()
        .map_err(failed)?;
    let (width, height) = area.dim_in_pixel();
    let (width, height) = (width as i32, height as i32);
    let names =
        [(y, (px(2), px(2)), HPos::Left, VPos::Top), (x, (width - px(room.right), height), HPos::Right, VPos::Bottom)];
    for (axis, place, across, down) in names.into_iter().filter(|(axis, ..)| !axis.name.is_empty()) {
        let name = Text::new(axis.name.to_owned(), place, axis.ink.text(TEXT_PX, across, down));
        area.draw(&name).map_err(failed)?;
    }
    Ok(plot)
}

/// Where a point of a plot lies in the area that the plot is on.
pub(crate) fn placed(area: &Area, plot: &Plot, point: (f64, f64)) -> (i32, i32) {
    let (x, y) = plot.backend_coord(&point);
    let (left, top) = area.get_base_pixel();
    (x - left, y - top)
}

/// A line through points.
pub(crate) fn line(
    plot: &mut Plot,
    points: impl IntoIterator<Item = (f64, f64)>,
    style: ShapeStyle,
) -> Result<(), ChartError> {
    let points: Vec<(f64, f64)> = points.into_iter().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    plot.draw_series(std::iter::once(PathElement::new(points, style))).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::read;

    fn two_lines() -> String {
        drawn((200, 100), ("id", "a <title>", "what \"it\" shows"), |area| {
            let x = Axis { name: "x & y", ink: Ink::Text, from: 0.0, to: 10.0, labels: 5, format: &whole };
            let y = Axis { name: "<up>", ink: Ink::Blue, from: 0.0, to: 4.0, labels: 5, format: &whole };
            let mut plot = plot(area, Room { left: 30, right: 10, top: 20, bottom: 30 }, &x, &y)?;
            line(&mut plot, [(0.0, 0.0), (10.0, 4.0)], Ink::Blue.line(20))?;
            line(&mut plot, [(0.0, 4.0), (f64::NAN, 1.0), (10.0, 0.0)], Ink::Resistance.line(20))
        })
        .unwrap()
    }

    #[test]
    fn colours_come_from_the_page_and_texts_are_escaped() {
        let svg = two_lines();
        assert!(!svg.contains('#') && !svg.contains("font-family") && !svg.contains("http"), "{svg}");
        assert!(svg.contains("<title id=\"id-title\">a &lt;title&gt;</title>"), "{svg}");
        assert!(svg.contains("x &amp; y") && svg.contains("&lt;up&gt;"), "{svg}");
        assert_eq!(svg.matches("<svg").count(), 1);
        assert_eq!(svg.matches("</svg>").count(), 1);
        assert_eq!(read::lines(&svg, "blue").len(), 1);
        assert!(svg.contains("stroke=\"var(--ink)\" stroke-dasharray=\""), "{svg}");
    }

    #[test]
    fn a_text_cannot_become_a_colour() {
        let mark = format!("\"#{INK_RED:02X}{INK_GREEN:02X}00\"");
        let svg = drawn((100, 100), ("id", "t", "d"), |area| {
            area.draw(&Text::new(mark, (0, 0), Ink::Text.text(TEXT_PX, HPos::Left, VPos::Top))).map_err(failed)
        });
        assert!(svg.unwrap().contains("&quot;#FE0100&quot;"));
    }

    #[test]
    fn every_ink_has_a_variable_in_the_page() {
        let style = include_str!("style.css");
        let gears = (1..=GEAR_INKS).map(Ink::Gear);
        for ink in INKS.iter().map(|(ink, ..)| *ink).chain(gears) {
            let set = format!("--{}: #", ink.variable());
            assert_eq!(style.matches(&set).count(), 2, "{set}: once for light and once for dark");
        }
        assert_eq!(Ink::Gear(GEAR_INKS + 1).variable(), Ink::Gear(1).variable());
    }

    #[test]
    fn a_scale_ends_above_the_largest_value_on_a_round_number() {
        for (largest, end) in [(200.7, 250.0), (639.0, 700.0), (881.0, 1000.0), (14.3, 20.0), (5.0, 6.0)] {
            let (found, steps) = scale(largest);
            assert!((4..=7).contains(&steps) && (found - end).abs() < 1e-6, "{largest}: {found} in {steps}");
        }
        for strange in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let (found, _) = scale(strange);
            assert!(found.is_finite() && found > 0.0, "{strange}: {found}");
        }
    }
}
