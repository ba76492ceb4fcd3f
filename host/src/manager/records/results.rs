//! Results of all rooms, newest first, by whom and what they are about.
//!
//! A page walks one index: that of the room, the player, the module's hash, the module's name or else the time, whichever of these is asked for first in this
//! order. Everything else that is asked for is compared row by row, the fields of `data` by reading their JSON, over [`SCAN_ROWS_MAX`] rows at
//! most. A page whose walk came to that bound is short, and its cursor goes on from there: what is rare takes more pages, not a longer answer.

use rusqlite::{Connection, Row, params_from_iter, types::Value as Sql};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Records, RecordsError, json, limit};

/// Rows that one page walks at most: half a second where each row's data is looked at, on a machine that is busy.
pub const SCAN_ROWS_MAX: usize = 20_000;

/// Fields of `data` that one question compares at most.
pub const DATA_FIELDS_MAX: usize = 4;

/// After every time that RFC 3339 can write.
const END_OF_TIME: &str = "~";

/// Which results.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResultsQuery {
    /// Of the player with this name.
    pub player: Option<String>,
    /// Of rooms under a module with this name.
    pub module: Option<String>,
    /// Of rooms that finished under the module with this hash.
    pub hash: Option<String>,
    /// Of this room.
    pub room: Option<String>,
    /// Of rooms that ended at this time or later, RFC 3339 in UTC with six decimals of the second.
    pub from: Option<String>,
    /// Of rooms that ended before this time.
    pub to: Option<String>,
    /// With this outcome.
    pub outcome: Option<String>,
    /// With these values in these fields of the result's data, or of the player's data at the opening. A text equals itself, a number every way to
    /// write it, `true` and `false` the truth values.
    pub data: Vec<(String, String)>,
    /// Those after this one.
    pub after: Option<ResultCursor>,
    /// How many, 1 to [`PAGE_MAX`](super::PAGE_MAX); others are brought within.
    pub limit: usize,
}

/// Where a page of results ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultCursor(pub(super) String, pub(super) i64);

/// A piece of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T, C> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where the next piece begins; none at the end.
    pub next: Option<C>,
}

/// One player's result in one room.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResultRow {
    /// The room.
    pub room: String,
    /// When it ended.
    pub ended_at: String,
    /// Slot, from 0.
    pub player: i64,
    /// The player's name.
    pub name: Option<String>,
    /// Name of the rules module.
    pub module: Option<String>,
    /// Version of the module in force at the finish.
    pub version: Option<String>,
    /// BLAKE3 of that module, in hexadecimal.
    pub hash: Option<String>,
    /// The rules were replaced in the match, and not taken back: it counts for no leaderboard.
    pub mixed: bool,
    /// Place, from 1.
    pub place: Option<i64>,
    /// The rules' word for it.
    pub outcome: String,
    /// What the rules say about it.
    pub data: Value,
}

impl Records {
    /// A page of results, newest first.
    ///
    /// # Errors
    /// [`RecordsError::Sqlite`].
    pub fn results(&self, query: &ResultsQuery) -> Result<Page<ResultRow, ResultCursor>, RecordsError> {
        self.read(|connection| page(connection, query))
    }
}

fn page(connection: &Connection, query: &ResultsQuery) -> rusqlite::Result<Page<ResultRow, ResultCursor>> {
    let keys = [
        ("", "r.room = ?", &query.room),
        ("INDEXED BY results_by_name", "r.name = ?", &query.player),
        ("INDEXED BY results_by_hash", "r.module_hash = ?", &query.hash),
        ("INDEXED BY results_by_module", "r.module_name = ?", &query.module),
    ];
    let (index, condition, key) = keys
        .into_iter()
        .find_map(|(index, condition, key)| Some((index, condition, Some(key.as_ref()?))))
        .unwrap_or(("INDEXED BY results_by_time", "1", None));
    // The cursor and `to` are one bound: the earlier of them.
    let to = query.to.as_deref().unwrap_or(END_OF_TIME);
    let (before, before_id) = match &query.after {
        Some(ResultCursor(time, id)) if time.as_str() < to => (time.as_str(), *id),
        _ => (to, i64::MIN),
    };
    // Only where data is compared is the players' half of it looked up.
    let (players, player_data) = if query.data.is_empty() {
        ("", "NULL")
    } else {
        ("LEFT JOIN players AS p ON p.room = r.room AND p.player = r.player", "p.data")
    };
    let sql = format!(
        "SELECT r.*, {player_data} AS player_data, (SELECT m.version FROM modules AS m WHERE m.hash = r.module_hash) AS version
         FROM results AS r {index} {players}
         WHERE {condition} AND r.ended_at >= ? AND (r.ended_at, r.id) < (?, ?)
         ORDER BY r.ended_at DESC, r.id DESC"
    );
    let mut values: Vec<Sql> = Vec::new();
    values.extend(key.map(|key| Sql::from(key.clone())));
    values.push(query.from.clone().unwrap_or_default().into());
    values.push(before.to_owned().into());
    values.push(before_id.into());

    let limit = usize::try_from(limit(Some(query.limit))).unwrap_or(1);
    let wanted: Vec<Wanted<'_>> = query.data.iter().map(|(field, value)| Wanted::new(field, value)).collect();
    let mut page = Page { rows: Vec::new(), next: None };
    let mut last: Option<ResultCursor> = None;
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut walked = 0_usize;
    while let Some(row) = rows.next()? {
        if page.rows.len() >= limit || walked >= SCAN_ROWS_MAX {
            page.next = last;
            break;
        }
        walked += 1;
        last = Some(ResultCursor(row.get("ended_at")?, row.get("id")?));
        if is_asked_for(row, query, &wanted)? {
            page.rows.push(result(row)?);
        }
    }
    Ok(page)
}

fn is_asked_for(row: &Row<'_>, query: &ResultsQuery, wanted: &[Wanted<'_>]) -> rusqlite::Result<bool> {
    let columns = [
        ("room", &query.room),
        ("name", &query.player),
        ("module_hash", &query.hash),
        ("module_name", &query.module),
        ("outcome", &query.outcome),
    ];
    for (column, asked) in columns {
        if let Some(asked) = asked
            && row.get_ref(column)?.as_str_or_null()? != Some(asked)
        {
            return Ok(false);
        }
    }
    if wanted.is_empty() {
        return Ok(true);
    }
    let texts = [row.get_ref("data")?.as_str_or_null()?, row.get_ref("player_data")?.as_str_or_null()?];
    let mut read: [Option<Value>; 2] = [None, None];
    for wanted in wanted {
        let mut found = false;
        for (text, read) in texts.iter().zip(&mut read) {
            let Some(text) = text.filter(|text| wanted.may_be_in(text)) else { continue };
            let data = read.get_or_insert_with(|| serde_json::from_str(text).unwrap_or_default());
            found |= data.get(wanted.field).is_some_and(|value| wanted.is(value));
        }
        if !found {
            return Ok(false);
        }
    }
    Ok(true)
}

fn result(row: &Row<'_>) -> rusqlite::Result<ResultRow> {
    Ok(ResultRow {
        room: row.get("room")?,
        ended_at: row.get("ended_at")?,
        player: row.get("player")?,
        name: row.get("name")?,
        module: row.get("module_name")?,
        version: row.get("version")?,
        hash: row.get("module_hash")?,
        mixed: row.get("mixed")?,
        place: row.get("place")?,
        outcome: row.get("outcome")?,
        data: json(row, "data")?,
    })
}

/// A value that a field of some data has to have.
struct Wanted<'a> {
    field: &'a str,
    text: &'a str,
    number: Option<f64>,
    /// Its text stands in the JSON as it is, so that JSON without it need not be read.
    is_plain: bool,
}

impl<'a> Wanted<'a> {
    fn new(field: &'a str, text: &'a str) -> Self {
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        // Numbers have many texts; a quote, a backslash and a control character stand escaped.
        let is_plain = number.is_none() && !text.chars().any(|c| c == '"' || c == '\\' || c.is_control());
        Self { field, text, number, is_plain }
    }

    fn may_be_in(&self, json: &str) -> bool {
        !self.is_plain || json.contains(self.text)
    }

    fn is(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => text == self.text,
            Value::Number(number) => self.number.is_some() && number.as_f64() == self.number,
            Value::Bool(truth) => self.text == if *truth { "true" } else { "false" },
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_wanted_value_is_a_text_a_number_or_a_truth_value() {
        for (text, value, expected) in [
            ("mx5", json!("mx5"), true),
            ("mx", json!("mx5"), false),
            ("13.50", json!(13.5), true),
            ("13.5", json!("13.5"), true),
            ("1e0", json!(1), true),
            ("true", json!(true), true),
            ("false", json!(true), false),
            ("null", json!(null), false),
            ("inf", json!("inf"), true),
            ("", json!(""), true),
            ("a\"b\\", json!("a\"b\\"), true),
            ("ü\n", json!("ü\n"), true),
            ("ünï", json!("ünï"), true),
        ] {
            let wanted = Wanted::new("f", text);
            assert_eq!(wanted.is(&value), expected, "{text} {value}");
            assert!(!expected || wanted.may_be_in(&json!({ "f": value }).to_string()), "{text} {value}");
        }
    }
}
