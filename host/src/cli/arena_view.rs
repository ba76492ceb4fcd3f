//! A match of the arena on a terminal as it happens: a line a second, and one for each who goes down.

use arena::Snapshot;
use holeshot_client::Event;
use serde_json::Value;

use super::output::say;

/// Frames between two lines of what is seen: a second at 50 Hz.
const FRAMES_PER_LINE: u32 = 50;

/// Shows one match.
pub(super) struct ArenaView {
    names: Vec<String>,
    last_frame: Option<u32>,
}

impl ArenaView {
    /// A view of a match of these players, by slot.
    pub(super) fn new(names: Vec<String>) -> Self {
        Self { names, last_frame: None }
    }

    /// Says a public event.
    pub(super) fn event(&self, event: &Event) {
        let frame = event.frame.map(|frame| format!("{frame:>5}")).unwrap_or_else(|| "     ".into());
        for line in self.lines_of(event) {
            say(format_args!("{frame}  {line}"));
        }
    }

    /// Says what there is to see, once a second.
    pub(super) fn snapshot(&mut self, snapshot: &Snapshot) {
        if self.last_frame.is_some_and(|last| snapshot.frame < last.saturating_add(FRAMES_PER_LINE)) {
            return;
        }
        self.last_frame = Some(snapshot.frame);
        say(format_args!("{:>5}  {}", snapshot.frame, self.line_of(snapshot)));
    }

    fn line_of(&self, snapshot: &Snapshot) -> String {
        let leader = match snapshot.leader {
            Some(leader) => format!("{} leads with {}", self.name(leader.player.into()), leader.frags),
            None => "nobody leads".into(),
        };
        format!(
            "{:.1} s left, {} fighters up, {} shots in the air, {leader}",
            f64::from(snapshot.left_ms) / 1_000.0,
            snapshot.fighters.len(),
            snapshot.shots.len(),
        )
    }

    fn lines_of(&self, event: &Event) -> Vec<String> {
        let data = &event.data;
        match event.name.as_str() {
            "countdown" => vec![format!("countdown {}", data.get("remaining").unwrap_or(data))],
            "aborted" => vec![format!("aborted: {}", data.get("reason").and_then(Value::as_str).unwrap_or("?"))],
            "arena" => {
                let text = |field| data.get(field).map(ToString::to_string).unwrap_or_default();
                let mut lines = vec![format!("the map is {}, the match lasts {} s", text("map"), text("duration_s"))];
                let rows = data.get("rows").and_then(Value::as_array).into_iter().flatten();
                lines.extend(rows.filter_map(Value::as_str).map(str::to_owned));
                lines
            }
            "frags" => {
                let frags = data.get("frags").and_then(Value::as_array).into_iter().flatten();
                let name = |frag: &Value, who| frag.get(who).and_then(Value::as_u64).map(|slot| self.name(slot));
                let line = |frag: &Value| {
                    let weapon = frag.get("weapon").and_then(Value::as_str).unwrap_or("?");
                    Some(format!("{} brought {} down ({weapon})", name(frag, "by")?, name(frag, "of")?))
                };
                frags.filter_map(line).collect()
            }
            name => vec![name.replace('_', " ")],
        }
    }

    fn name(&self, slot: u64) -> String {
        let name = usize::try_from(slot).ok().and_then(|slot| self.names.get(slot));
        name.cloned().unwrap_or_else(|| format!("player {slot}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arena::Leader;
    use serde_json::json;

    #[test]
    fn who_brings_whom_down_is_said_by_name() {
        let view = ArenaView::new(vec!["Ada".into(), "Ben".into()]);
        let event =
            |name: &str, data: Value| Event { seq: 1, name: name.into(), frame: Some(7), time_ms: Some(0), data };
        let frags = json!({ "frags": [{ "by": 0, "of": 1, "weapon": "rifle" }, { "by": 5, "of": 0, "weapon": "scatter" }, {}] });
        let expected = ["Ada brought Ben down (rifle)", "player 5 brought Ada down (scatter)"];
        assert_eq!(view.lines_of(&event("frags", frags)), expected);
        assert_eq!(view.lines_of(&event("arena", json!({ "map": "open", "rows": ["##"] }))).last().unwrap(), "##");
        assert_eq!(view.lines_of(&event("player_joined", json!({}))), ["player joined"]);
        let snapshot = Snapshot { left_ms: 2_500, leader: Some(Leader { player: 1, frags: 3 }), ..Snapshot::default() };
        assert_eq!(view.line_of(&snapshot), "2.5 s left, 0 fighters up, 0 shots in the air, Ben leads with 3");
    }
}
