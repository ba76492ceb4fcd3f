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
/// Wide enough for two values and an arrow.
const CHANGE_WIDTH: usize = 26;

/// A table with a column per player, in the order of the lanes; or why there are no results.
pub(super) fn table(record: &Value) -> String {
    let mut text = String::from("\n");
    let results: Vec<&Value> = record.get("results").and_then(Value::as_array).into_iter().flatten().collect();
    if results.is_empty() {
        let reason = record.get("reason").and_then(Value::as_str).unwrap_or("no reason on record");
        let _infallible = writeln!(text, "no results: the race was aborted ({reason})");
        return text;
    }
    for (title, cells) in rows(record, &results) {
        push_row(&mut text, &title, &cells, WIDTH);
    }
    text
}

/// Whether these results are time slips.
pub(super) fn are_slips(results: &Value) -> bool {
    results.as_array().is_some_and(|results| results.iter().any(|result| result.pointer("/data/car").is_some()))
}

/// The slips of one race under two sets of rules: what is not the same is written as `before -> after`.
pub(super) fn change_table(before: &Value, after: &Value) -> String {
    let mut text = String::from("\n");
    // By player: other rules may say them in another order.
    let by_player = |record: &Value| -> Vec<Value> {
        let mut results: Vec<Value> = record.get("results").and_then(Value::as_array).cloned().unwrap_or_default();
        results.sort_by_key(|result| result.get("player").and_then(Value::as_u64));
        results
    };
    let (old, new) = (by_player(before), by_player(after));
    let (old, new): (Vec<&Value>, Vec<&Value>) = (old.iter().collect(), new.iter().collect());
    for ((title, old), (_, new)) in rows(before, &old).into_iter().zip(rows(after, &new)) {
        let cells: Vec<String> = (0..old.len().max(new.len()))
            .map(|at| match (old.get(at), new.get(at)) {
                (Some(old), Some(new)) if old == new => old.clone(),
                (old, new) => {
                    let shown = |cell: Option<&String>| cell.map_or("-", String::as_str).to_owned();
                    format!("{} -> {}", shown(old), shown(new))
                }
            })
            .collect();
        push_row(&mut text, &title, &cells, CHANGE_WIDTH);
    }
    text
}

fn push_row(text: &mut String, title: &str, cells: &[String], width: usize) {
    let cells: String = cells.iter().map(|cell| format!("{:>width$}", cut(cell, width))).collect();
    let _infallible = writeln!(text, "{title:<16}{cells}");
}

/// The rows of a slip, each with a cell per result.
fn rows(record: &Value, results: &[&Value]) -> Vec<(String, Vec<String>)> {
    let row = |title: &str, cell: &dyn Fn(&Value) -> String| {
        (title.to_owned(), results.iter().map(|result| cell(result)).collect::<Vec<String>>())
    };
    let mut rows = vec![row("", &|result| player_name(record, result)), row("car", &|r| word(r.pointer("/data/car")))];
    for (title, field, decimals) in ROWS {
        rows.push(row(
            title,
            &|result| match result.get("data").and_then(|data| data.get(field)).and_then(Value::as_f64) {
                Some(value) => format!("{value:.decimals$}"),
                None => "-".into(),
            },
        ));
    }
    rows.push(row("", &|result| {
        let holeshot = result.pointer("/data/holeshot").and_then(Value::as_bool).unwrap_or(false);
        let outcome = word(result.get("outcome")).replace('_', " ");
        if holeshot { format!("{outcome}, holeshot") } else { outcome }
    }));
    rows
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

fn cut(text: &str, width: usize) -> String {
    text.chars().take(width - 1).collect()
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
    fn what_changed_is_shown_side_by_side() {
        let record = |quarter_mile_s: f64, outcome: &str| {
            json!({
                "players": [{ "player": 0, "name": "Ada" }, { "player": 1, "name": "Ben" }],
                "results": [
                    { "player": 1, "outcome": "lost", "data": { "car": "gtr", "quarter_mile_s": 12.0 } },
                    { "player": 0, "outcome": outcome, "data": { "car": "mx5", "quarter_mile_s": quarter_mile_s } },
                ],
            })
        };
        let text = change_table(&record(14.5, "won"), &record(14.25, "red_light"));
        let line = |start: &str| text.lines().find(|line| line.trim_start().starts_with(start)).unwrap().to_owned();
        let words = |line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(line("1/4 mile      s")), ["1/4", "mile", "s", "14.500", "->", "14.250", "12.000"]);
        assert_eq!(words(line("won")), ["won", "->", "red", "light", "lost"]);
        assert!(are_slips(&record(1.0, "won")["results"]) && !are_slips(&json!([{ "player": 0, "data": 3 }])));
        // One side has no results.
        let text = change_table(&record(14.5, "won"), &json!({ "results": [] }));
        assert!(text.contains("14.500 -> -"), "{text}");
    }

    #[test]
    fn a_race_without_results_says_why() {
        assert!(table(&json!({ "reason": "everyone_left" })).contains("aborted (everyone_left)"));
    }
}
