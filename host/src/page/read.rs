//! Reads a chart back: what stands where. For tests, which must not trust the code that drew it.

/// A text and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Written {
    pub(crate) text: String,
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) ink: String,
}

fn attribute<'a>(tag: &'a str, name: &str) -> &'a str {
    let (_, rest) = tag.split_once(&format!(" {name}=\"")).unwrap_or_else(|| panic!("no {name} in {tag}"));
    rest.split('"').next().unwrap()
}

/// All texts.
pub(crate) fn texts(svg: &str) -> Vec<Written> {
    let tags = svg.split("<text").skip(1);
    let written = tags.map(|tag| {
        let (head, rest) = tag.split_once('>').unwrap();
        let text = rest.split("</text>").next().unwrap().trim().to_owned();
        let number = |name| attribute(head, name).parse().unwrap();
        Written { text, x: number("x"), y: number("y"), ink: attribute(head, "fill").to_owned() }
    });
    written.collect()
}

/// The points of all lines in this colour.
pub(crate) fn lines(svg: &str, variable: &str) -> Vec<Vec<(f64, f64)>> {
    let ink = format!("stroke=\"var(--{variable})\"");
    let tags = svg.split("<polyline").skip(1).filter_map(|tag| tag.split('>').next());
    let points = tags.filter(|tag| tag.contains(&ink)).map(|tag| {
        let points = attribute(tag, "points").split_whitespace();
        let pair = |point: &str| {
            let (x, y) = point.split_once(',').unwrap();
            (x.parse().unwrap(), y.parse().unwrap())
        };
        points.map(pair).collect()
    });
    points.collect()
}

/// The scale of an axis by two of its numbers: what turns a place into a value.
pub(crate) fn scale(at: [(f64, f64); 2]) -> impl Fn(f64) -> f64 {
    let [(place_a, value_a), (place_b, value_b)] = at;
    move |place| value_a + (place - place_a) * (value_b - value_a) / (place_b - place_a)
}

/// The scale of the axis at the foot, by two numbers that stand at the same height below the plot.
pub(crate) fn scale_across(svg: &str, two: [&str; 2]) -> impl Fn(f64) -> f64 {
    let texts = texts(svg);
    let lowest = texts.iter().filter(|text| text.text == two[0]).map(|text| text.y).fold(0.0, f64::max);
    scale(two.map(|number| {
        let found = texts.iter().find(|text| text.text == number && text.y == lowest);
        (found.unwrap_or_else(|| panic!("no {number} in {texts:?}")).x, number.parse().unwrap())
    }))
}

/// The scale of an upright axis, by two numbers in this colour.
pub(crate) fn scale_up(svg: &str, variable: &str, two: [&str; 2]) -> impl Fn(f64) -> f64 {
    let texts = texts(svg);
    let ink = format!("var(--{variable})");
    scale(two.map(|number| {
        let found = texts.iter().find(|text| text.text == number && text.ink == ink);
        (found.unwrap_or_else(|| panic!("no {number} in {texts:?}")).y, number.parse().unwrap())
    }))
}
