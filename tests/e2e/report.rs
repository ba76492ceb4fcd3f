//! The dyno's report in a real browser: what people see of it, in light and in dark, on a desk and on a phone; and what must not be in it.

use std::path::Path;

use serde_json::Value;

use crate::chromium::{Chromium, Picture, Scheme};
use crate::command::{holeshot, text};
use crate::harness::run;

/// A name that would run in a page that does not escape it.
const HOSTILE: &str = "<script>alert(1)</script>&'";

/// Three cars: two of the catalogue, one with gears and one without, and one in the class of the first, which has a hostile name.
fn car_file() -> String {
    let catalogue = drag_race::CATALOGUE_TOML;
    let shared = catalogue.split("[[car]]").next().unwrap();
    let car = |id: &str| catalogue.split("[[car]]").find(|part| part.contains(&format!("\nid = \"{id}\"\n"))).unwrap();
    let name = car("mx5").lines().find(|line| line.starts_with("name = ")).unwrap();
    let hostile = car("mx5").replace(name, &format!("name = \"\"\"{HOSTILE}\"\"\"")).replace("\"mx5\"", "\"hostile\"");
    format!("{shared}[[car]]{}[[car]]{}[[car]]{hostile}", car("mx5"), car("model_3p"))
}

/// The report of the real command on those cars.
async fn report(dir: &Path) -> String {
    let (cars, file) = (dir.join("cars.toml"), dir.join("report.html"));
    std::fs::write(&cars, car_file()).unwrap();
    let args = ["dyno", cars.to_str().unwrap(), "--html", file.to_str().unwrap()];
    let output = holeshot(&args).output().await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    std::fs::read_to_string(file).unwrap()
}

/// The value of one of the page's colours.
fn colour(html: &str, variable: &str, scheme: Scheme) -> [u8; 3] {
    let set = format!("--{variable}: #");
    let mut values = html.split(&set).skip(1).map(|rest| &rest[..6]);
    let value = match scheme {
        Scheme::Light => values.next(),
        Scheme::Dark => values.nth(1),
    };
    let value = u32::from_str_radix(value.unwrap_or_else(|| panic!("no colour {variable}")), 16).unwrap();
    let [_, red, green, blue] = value.to_be_bytes();
    [red, green, blue]
}

/// The chart whose title has this id, as a page of its own that it fills: 4400 units of its drawing are 880 pixels.
fn alone(html: &str, chart: &str) -> (String, f64) {
    let begin = html.find(&format!("aria-labelledby=\"{chart}-title")).unwrap_or_else(|| panic!("no chart {chart}"));
    let begin = html[..begin].rfind("<svg").unwrap();
    let svg = &html[begin..begin + html[begin..].find("</svg>").unwrap() + "</svg>".len()];
    let style = html.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
    let size: Vec<f64> = svg
        .split("viewBox=\"0 0 ")
        .nth(1)
        .unwrap()
        .split(['"', ' '])
        .take(2)
        .map(|size| size.parse().unwrap())
        .collect();
    let height = size[1] / 5.0;
    let own = format!(
        "html, body {{ margin: 0; display: block }} svg {{ display: block; width: {}px; height: {height}px }}",
        size[0] / 5.0
    );
    (format!("<!DOCTYPE html><meta charset=\"utf-8\"><style>{style}\n{own}</style>{svg}"), height)
}

/// The points of a chart's lines in this colour, in pixels of [`alone`].
fn points(svg: &str, variable: &str) -> Vec<(f64, f64)> {
    let ink = format!("stroke=\"var(--{variable})\"");
    let lines =
        svg.split("<polyline").skip(1).filter_map(|tag| tag.split("/>").next()).filter(|tag| tag.contains(&ink));
    let points =
        lines.flat_map(|tag| tag.split("points=\"").nth(1).unwrap().split('"').next().unwrap().split_whitespace());
    let pixels = points.map(|point| {
        let (x, y) = point.split_once(',').unwrap();
        (x.parse::<f64>().unwrap() / 5.0, y.parse::<f64>().unwrap() / 5.0)
    });
    pixels.collect()
}

/// Widths in which the page is measured, in pixels: a desk, a tablet, a phone. In frames: a window has no fewer than 500.
const WIDTHS: [usize; 3] = [1300, 700, 360];

/// Reads the measures of the page in each frame. The report has no script: this one is in the page around it.
const MEASURE: &str = r#"<script>
const measure = (page) => {
  const found = { width: page.defaultView.innerWidth, page: page.documentElement.scrollWidth, charts: [] };
  for (const svg of page.querySelectorAll("figure svg[role=img]")) {
    const frame = svg.getBoundingClientRect();
    if (frame.width === 0) continue;
    const texts = [...svg.querySelectorAll("text")].filter((text) => text.textContent.trim());
    const chart = { name: svg.querySelector("title").textContent, texts: texts.length, cut: [], over: [], least: 1e9 };
    const boxes = texts.map((text) => [text.textContent.trim(), text.getBoundingClientRect()]);
    for (const [at, [name, box]] of boxes.entries()) {
      const size = parseFloat(page.defaultView.getComputedStyle(texts[at]).fontSize);
      chart.least = Math.min(chart.least, size * frame.width / svg.viewBox.baseVal.width);
      const beside = box.left < frame.left - 1 || box.right > frame.right + 1;
      if (beside || box.top < frame.top - 1 || box.bottom > frame.bottom + 1) chart.cut.push(name);
      for (const [other, its] of boxes.slice(at + 1)) {
        const wide = Math.min(box.right, its.right) - Math.max(box.left, its.left);
        const high = Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top);
        if (wide > 1 && high > box.height / 3) chart.over.push(name + " | " + other);
      }
    }
    found.charts.push(chart);
  }
  return found;
};
onload = () => {
  const all = [...document.querySelectorAll("iframe")].map((frame) => measure(frame.contentDocument));
  document.body.textContent = "MEASURED" + JSON.stringify(all) + "MEASURED";
};
</script>"#;

/// The measures of the page in each of [`WIDTHS`].
async fn measured(chromium: &Chromium, html: &str) -> Vec<Value> {
    let inside = html.replace('&', "&amp;").replace('"', "&quot;");
    let frames =
        WIDTHS.map(|width| format!("<iframe style=\"width:{width}px;height:900px\" srcdoc=\"{inside}\"></iframe>"));
    let style = "<style>iframe { border: 0 }</style>";
    let around = format!("<!DOCTYPE html><meta charset=\"utf-8\">{style}{MEASURE}<body>{}</body>", frames.concat());
    let document = chromium.document(&chromium.page("measured.html", &around), 1400).await;
    let json = document.split("MEASURED").nth(3).unwrap_or_else(|| panic!("nothing measured: {:.2000}", document));
    serde_json::from_str(&json.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")).unwrap()
}

/// What is wrong with a report without a browser having seen it.
fn check_source(html: &str) {
    assert!(html.starts_with("<!DOCTYPE html><html lang=\"en\">") && html.ends_with("</html>"));
    let lower = html.to_lowercase();
    for word in [
        "<script",
        "javascript:",
        "<link",
        "<img",
        "<iframe",
        "<object",
        "@import",
        "url(",
        " src=",
        " srcset=",
        " onload",
        " xmlns",
    ] {
        assert!(!lower.contains(word), "{word} in the report");
    }
    for (at, _) in html.match_indices("://") {
        let before = &html[..at];
        let link = before.ends_with("<a href=\"https") || before.ends_with("<a href=\"http");
        assert!(link, "an address that is no link: …{}", &before[before.len().saturating_sub(60)..]);
    }
    let mut ids: Vec<&str> = html.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let named = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), named, "an id is there twice");
    for rest in html.split("href=\"#").skip(1) {
        let anchor = rest.split('"').next().unwrap();
        assert!(ids.binary_search(&anchor).is_ok(), "a link to #{anchor}, which is not there");
    }
    for rest in html.split("<svg role=\"img\"").skip(1) {
        let svg = rest.split("</svg>").next().unwrap();
        assert!(svg.contains("<title id=") && svg.contains("<desc id="), "a chart without title or description");
        assert!(!svg.contains("NaN"), "a chart with a number that is none");
    }
    for rest in html.split("<table").skip(1) {
        let table = rest.split("</table>").next().unwrap();
        assert!(table.contains("<caption>") && table.contains("<th"), "a table without caption or head");
    }
}

/// That a picture of a report shows something: the page's colours and more than paper.
fn check_picture(picture: &Picture, html: &str, scheme: Scheme) {
    let paper = colour(html, "paper", scheme);
    assert_eq!(picture.at(0, picture.height - 1), paper, "{scheme:?}: the page's own colour");
    let all = picture.width * picture.height;
    let blank = picture.count(paper);
    assert!(blank > all / 4 && blank < all * 99 / 100, "{scheme:?}: {blank} of {all} pixels are paper");
    for variable in ["ink", "blue", "orange", "purple", "grip", "power", "g1", "g2", "g3"] {
        let pixels = picture.count(colour(html, variable, scheme));
        assert!(pixels > 100, "{scheme:?}: {pixels} pixels in the colour {variable}");
    }
}

#[test]
fn a_report_is_seen_in_light_and_dark_on_a_desk_and_a_phone() {
    run(600, async {
        let dir = tempfile::tempdir().unwrap();
        let html = report(dir.path()).await;
        check_source(&html);
        assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;&amp;"), "the hostile name is there, escaped");

        let Some(chromium) = Chromium::find() else { return };
        let page = chromium.page("report.html", &html);
        let document = chromium.document(&page, 1200).await;
        for car in ["mx5", "model_3p", "hostile"] {
            assert!(document.contains(&format!("<section class=\"car\" id=\"car-{car}\"")), "a section for {car}");
            for chart in ["power", "force", "run"] {
                assert!(document.contains(&format!("<title id=\"car-{car}-{chart}-title\">")), "{car}: {chart}");
            }
        }
        for section in ["classes", "summary", "drivers", "method"] {
            assert!(document.contains(&format!("<section id=\"{section}\"")), "{section}");
        }
        assert!(document.contains("who beats whom"), "two cars of a class race");
        assert!(!document.contains("<script"), "a name became a script");

        for scheme in [Scheme::Light, Scheme::Dark] {
            check_picture(&chromium.picture(&page, (1300, 4000), scheme).await, &html, scheme);
            for (chart, variables) in [
                ("car-mx5-power", &["blue", "orange"][..]),
                ("car-mx5-force", &["g1", "g6"]),
                ("car-mx5-run", &["purple"]),
            ] {
                let (svg, height) = alone(&html, chart);
                let size = (880, height as usize);
                let picture = chromium.picture(&chromium.page("chart.html", &svg), size, scheme).await;
                for variable in variables {
                    let points = points(&svg, variable);
                    let wanted = colour(&html, variable, scheme);
                    let seen = points.iter().filter(|point| picture.has_near(**point, wanted)).count();
                    // Dots, other lines and the gears' numbers cover some of it.
                    assert!(
                        points.len() > 100 && seen * 4 >= points.len() * 3,
                        "{scheme:?}, {chart}: {seen} of {} points are {variable}",
                        points.len()
                    );
                }
            }
        }

        for (measured, width) in measured(&chromium, &html).await.iter().zip(WIDTHS) {
            assert_eq!(measured["width"], width, "{measured}");
            assert!(measured["page"].as_u64().unwrap() <= width as u64, "wider than its window: {measured}");
            let charts = measured["charts"].as_array().unwrap();
            assert!(charts.len() >= 6, "{measured}");
            for chart in charts {
                assert!(chart["texts"].as_u64().unwrap() > 5, "{width}: {chart}");
                assert_eq!(chart["cut"].as_array().unwrap().len(), 0, "{width}: text beyond the chart's edge: {chart}");
                assert_eq!(chart["over"].as_array().unwrap().len(), 0, "{width}: text upon text: {chart}");
                assert!(chart["least"].as_f64().unwrap() >= 8.5, "{width}: text too small to read: {chart}");
            }
        }
    });
}
