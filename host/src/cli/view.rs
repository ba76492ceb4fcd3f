//! A race on a terminal as it happens: tree, lanes, gears, speed. Where standard output is no terminal, a line per event.

use std::io::{Write, stdout};

use crossterm::style::Stylize;
use crossterm::{cursor, queue, terminal};
use drag_race::{LaneView, Phase, Snapshot};
use holeshot_client::Event;

/// The quarter mile, in m.
const QUARTER_MILE_M: f32 = 402.336;
/// Width of a lane on the screen, in characters.
const LANE_CHARS: usize = 44;
/// Frames between two pictures: 12.5 a second is smooth for text, and little for a slow terminal.
const FRAMES_PER_PICTURE: u32 = 4;

/// Shows one race.
pub(super) struct View {
    names: Vec<(String, String)>,
    live: bool,
    quiet: bool,
    headline: String,
    drawn_lines: u16,
    last_frame: Option<u32>,
}

impl View {
    /// A view of a race of these drivers, each a name and the id of a car: live on a terminal, silent for programs.
    pub(super) fn new<'a>(drivers: impl IntoIterator<Item = (&'a str, &'a str)>, terminal: bool, quiet: bool) -> Self {
        let names = drivers
            .into_iter()
            .map(|(name, car)| {
                let car = drag_race::find_car(car).map_or(car, |(_, car)| &*car.name);
                (name.to_owned(), car.to_owned())
            })
            .collect();
        Self { names, live: terminal && !quiet, quiet, headline: String::new(), drawn_lines: 0, last_frame: None }
    }

    /// Takes note of a public event.
    pub(super) fn event(&mut self, event: &Event) -> std::io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        let data = &event.data;
        let text = match event.name.as_str() {
            "countdown" => format!("countdown {}", data.get("remaining").unwrap_or(&event.data)),
            "aborted" => format!("aborted: {}", data.get("reason").and_then(|r| r.as_str()).unwrap_or("?")),
            name => name.replace('_', " "),
        };
        // Before the first picture (cutscene, countdown) a live view has nothing but these lines to show.
        if self.drawn_lines > 0 {
            self.headline = text;
            return Ok(());
        }
        let frame = event.frame.map(|frame| format!("{frame:>5}")).unwrap_or_else(|| "     ".into());
        writeln!(stdout(), "{frame}  {text}{}", self.lanes_of(event))
    }

    /// Shows a tick.
    pub(super) fn snapshot(&mut self, snapshot: &Snapshot) -> std::io::Result<()> {
        let due = self.last_frame.is_none_or(|last| snapshot.frame >= last.saturating_add(FRAMES_PER_PICTURE));
        if !self.live || !due {
            return Ok(());
        }
        self.last_frame = Some(snapshot.frame);
        self.draw(snapshot)
    }

    /// Leaves the last picture on the screen.
    pub(super) fn end(&mut self) -> std::io::Result<()> {
        stdout().flush()
    }

    /// Which lanes an event is about, and their times.
    fn lanes_of(&self, event: &Event) -> String {
        let lanes = event.data.get("lanes").and_then(|lanes| lanes.as_array()).into_iter().flatten();
        lanes
            .filter_map(|lane| {
                let number = usize::try_from(lane.get("lane")?.as_u64()?).ok()?;
                let (name, _) = self.names.get(number)?;
                let time = ["elapsed_s", "reaction_s"].iter().find_map(|field| lane.get(*field)?.as_f64());
                let mph = lane.get("mph").and_then(|mph| mph.as_f64());
                let time = time.map(|s| format!(" {s:.3} s")).unwrap_or_default();
                let mph = mph.map(|mph| format!(" at {mph:.2} mph")).unwrap_or_default();
                Some(format!("  {name}{time}{mph}"))
            })
            .collect()
    }

    fn draw(&mut self, snapshot: &Snapshot) -> std::io::Result<()> {
        let mut out = stdout().lock();
        if self.drawn_lines > 0 {
            queue!(out, cursor::MoveToPreviousLine(self.drawn_lines))?;
        }
        let mut lines = vec![tree(snapshot) + "   " + &self.headline, String::new()];
        for (lane, (name, car)) in snapshot.lanes.iter().zip(&self.names) {
            lines.push(format!("{:<8} {}", name.as_str().bold(), car));
            lines.push(lane_line(lane));
        }
        for line in &lines {
            queue!(out, terminal::Clear(terminal::ClearType::CurrentLine))?;
            writeln!(out, "{line}")?;
        }
        self.drawn_lines = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        out.flush()
    }
}

/// The lamps: three ambers, green, and whether somebody's red is lit.
fn tree(snapshot: &Snapshot) -> String {
    let staged = snapshot.lanes.iter().all(|lane| !matches!(lane.phase, Phase::Approaching | Phase::PreStaged));
    let stage = if staged { "o o".white().bold() } else { ". .".dark_grey() };
    let ambers: String = (0..3)
        .map(|bit| {
            if snapshot.lamps.ambers >> bit & 1 == 1 {
                "O".yellow().bold().to_string()
            } else {
                ".".dark_grey().to_string()
            }
        })
        .collect();
    let green = if snapshot.lamps.green { "O".green().bold() } else { ".".dark_grey() };
    let red = if snapshot.lanes.iter().any(|lane| lane.red_light) { "O".red().bold() } else { ".".dark_grey() };
    format!("stage {stage}  tree {ambers} {green} {red}  {:>6.2} s", f64::from(snapshot.time_ms) / 1_000.0)
}

fn lane_line(lane: &LaneView) -> String {
    let share = (lane.distance_m / QUARTER_MILE_M).clamp(0.0, 1.0);
    // A share of 0 to 1 of a small number; NaN becomes 0.
    let filled = (share * LANE_CHARS as f32) as usize;
    let road = "=".repeat(filled.min(LANE_CHARS)) + ">" + &" ".repeat(LANE_CHARS.saturating_sub(filled));
    let road = match (lane.red_light, lane.phase) {
        (true, _) => road.red(),
        (_, Phase::Finished) => road.green(),
        _ => road.stylize(),
    };
    let gear = if lane.shifting { "-".to_owned() } else { lane.gear.to_string() };
    let spin = if lane.wheel_spin { "spin" } else { "    " };
    let time = match (lane.elapsed_s, lane.reaction_s) {
        (Some(elapsed_s), _) => format!("{elapsed_s:7.3} s"),
        (None, Some(reaction_s)) => format!("rt {reaction_s:.3}"),
        _ => String::new(),
    };
    let kmh = lane.speed_mps * 3.6;
    format!("|{road}| gear {gear} {:>5.0} rpm {kmh:>4.0} km/h {spin} {time}", lane.rpm)
}
