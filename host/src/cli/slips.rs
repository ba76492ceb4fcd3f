//! Time slips as a table, from the record of a room.

use std::fmt::Write;

use serde_json::Value;

/// The rows of a time slip: what it says, the field of the result's data, decimals.
const ROWS: [(&str, &str, usize); 8] = [
    ("reaction      s", "reaction_s", 3),
    ("60 ft         s", "sixty_foot_s", 3),
    ("330 ft        s", "three_thirty_foot_s", 3),
    ("1/8 mile      s", "eighth_mile_s", 3),
    ("1/8 mile    mph", "eighth_mile_mph", 2),
    ("1000 ft       s", "thousand_foot_s", 3),
    ("1/4 mile      s", "quarter_mile_s", 3),
    ("1/4 mile    mph", "quarter_mile_mph", 2),
];

const WIDTH: usize = 18;

/// A table with a column per player, in the order of the lanes; or why there are no results.
pub(super) fn table(record: &Value) -> String {
    let mut text = String::from("\n");
    let results: Vec<&Value> = record.get("results").and_then(Value::as_array).into_iter().flatten().collect();
    if results.is_empty() {
        let reason = record.get("reason").and_then(Value::as_str).unwrap_or("no reason on record");
        let _infallible = writeln!(text, "no results: the race was aborted ({reason})");
        return text;
    }
    let mut row = |title: &str, cell: &dyn Fn(&Value) -> String| {
        let cells: String = results.iter().map(|result| format!("{:>WIDTH$}", cut(&cell(result)))).collect();
        let _infallible = writeln!(text, "{title:<16}{cells}");
    };
    row("", &|result| player_name(record, result));
    row("car", &|result| word(result.pointer("/data/car")));
    for (title, field, decimals) in ROWS {
        row(title, &|result| match result.get("data").and_then(|data| data.get(field)).and_then(Value::as_f64) {
            Some(value) => format!("{value:.decimals$}"),
            None => "-".into(),
        });
    }
    row("", &|result| {
        let holeshot = result.pointer("/data/holeshot").and_then(Value::as_bool).unwrap_or(false);
        let outcome = word(result.get("outcome")).replace('_', " ");
        if holeshot { format!("{outcome}, holeshot") } else { outcome }
    });
    text
}

fn player_name(record: &Value, result: &Value) -> String {
    let player = result.get("player").and_then(Value::as_u64);
    let players = record.get("players").and_then(Value::as_array).into_iter().flatten();
    let named =
        players.filter(|p| p.get("player").and_then(Value::as_u64) == player).find_map(|p| p.get("name")?.as_str());
    named.unwrap_or("?").to_owned()
}

fn word(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or("-").to_owned()
}

fn cut(text: &str) -> String {
    text.chars().take(WIDTH - 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_slip_has_a_column_per_player() {
        let record = json!({
            "players": [{ "player": 0, "name": "Ada" }, { "player": 1, "name": "Ben" }],
            "results": [
                { "player": 0, "outcome": "won", "data": { "car": "mx5", "reaction_s": 0.1234, "quarter_mile_s": 14.5, "holeshot": true } },
                { "player": 1, "outcome": "red_light", "data": {} },
            ],
        });
        let text = table(&record);
        let line = |start: &str| {
            text.lines().find(|line| line.starts_with(start)).unwrap().split_whitespace().collect::<Vec<_>>()
        };
        assert_eq!(line("reaction"), ["reaction", "s", "0.123", "-"]);
        assert_eq!(line("1/4 mile      s"), ["1/4", "mile", "s", "14.500", "-"]);
        assert!(text.contains("won, holeshot") && text.contains("red light") && text.contains("Ada"));
    }

    #[test]
    fn a_race_without_results_says_why() {
        assert!(table(&json!({ "reason": "everyone_left" })).contains("aborted (everyone_left)"));
    }
}
