//! Which results count for which leaderboard, and each player's best. Runs within the transaction that stores the event. What a room's results are
//! worth follows from its rows alone, so it is worked out anew whenever one of them changes, in whatever order the events come.

use std::collections::{BTreeMap, BTreeSet};

use holeshot_abi::{Best, LEADERBOARD_GROUP_TEXT_BYTES_MAX, Leaderboard};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Number, Value};

/// One list of one player: name, module's hash, board, group.
type Entry = (String, String, String, String);

/// Hash and name of the module at the finish, whether the room is mixed, and when it ended.
type Finish = (Option<String>, Option<String>, bool, Option<String>);

/// Takes the leaderboards of a module down. Where results of it are recorded already, they are looked through later, some at a time: see
/// [`score_some`].
pub(super) fn set_boards(connection: &Connection, hash: &str, boards: &[Leaderboard]) -> rusqlite::Result<()> {
    // A host that knows no leaderboards says none, of the same bytes.
    if boards.is_empty() {
        return Ok(());
    }
    let text = serde_json::to_string(boards).unwrap_or_default();
    connection
        .prepare_cached(
            "UPDATE modules SET boards = ?2, unscored_after =
             CASE WHEN EXISTS (SELECT 1 FROM results WHERE module_hash = ?1) THEN 0 END
             WHERE hash = ?1 AND boards IS NOT ?2",
        )?
        .execute(params![hash, text])?;
    Ok(())
}

/// Works out anew what the results of a room count for; nothing if it has none.
pub(super) fn score_room(connection: &Connection, room: &str) -> rusqlite::Result<()> {
    // The last rules that came and were not taken back again. A swap between the last frame and the end of the room decided nothing.
    let found: Option<Finish> = connection
        .prepare_cached(
            "SELECT COALESCE(
                (SELECT s.to_hash FROM swaps AS s WHERE s.room = r.room AND s.outcome IN ('swapped', 'kept')
                 AND s.frame < r.frames ORDER BY s.frame DESC, s.id DESC LIMIT 1), r.module_hash),
                COALESCE(r.module_name, (SELECT m.name FROM modules AS m WHERE m.hash = r.module_hash)),
                EXISTS (SELECT 1 FROM swaps AS s WHERE s.room = r.room AND s.outcome IN ('swapped', 'kept')
                    AND s.frame > 0 AND s.frame < r.frames),
                r.ended_at
             FROM rooms AS r WHERE r.room = ?1 AND r.outcome = 'finished'",
        )?
        .query_row([room], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    let touched = forget_scores(connection, room)?;
    let Some((hash, module_name, mixed, ended_at)) = found else {
        return touched.iter().try_for_each(|entry| find_best(connection, entry));
    };
    connection
        .prepare_cached(
            "UPDATE rooms SET finish_hash = ?2, mixed = ?3 WHERE room = ?1 AND (finish_hash IS NOT ?2 OR mixed <> ?3)",
        )?
        .execute(params![room, hash, mixed])?;
    connection
        .prepare_cached(
            "UPDATE results SET module_hash = ?2, module_name = ?3, mixed = ?4, ended_at = COALESCE(?5, ended_at),
             name = (SELECT p.name FROM players AS p WHERE p.room = results.room AND p.player = results.player)
             WHERE room = ?1 AND (module_hash IS NOT ?2 OR module_name IS NOT ?3 OR mixed IS NOT ?4
                OR ended_at IS NOT COALESCE(?5, ended_at)
                OR name IS NOT (SELECT p.name FROM players AS p WHERE p.room = results.room AND p.player = results.player))",
        )?
        .execute(params![room, hash, module_name, mixed, ended_at])?;

    if let Some(hash) = hash.filter(|_| !mixed) {
        let boards: Option<String> = connection
            .prepare_cached("SELECT boards FROM modules WHERE hash = ?1")?
            .query_row([&hash], |row| row.get(0))
            .optional()?
            .flatten();
        // What is there was checked before it was written.
        let boards: Vec<Leaderboard> = boards.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        if !boards.is_empty() {
            write_scores(connection, room, &hash, &boards)?;
        }
    }
    touched.iter().try_for_each(|entry| find_best(connection, entry))
}

/// Deletes the scores of a room and says whose best they may have been; see [`find_best`].
pub(super) fn forget_scores(connection: &Connection, room: &str) -> rusqlite::Result<BTreeSet<Entry>> {
    let mut select =
        connection.prepare_cached("SELECT name, module_hash, board, group_key FROM scores WHERE room = ?1")?;
    let entries: BTreeSet<Entry> = select
        .query_map([room], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<_>>()?;
    if !entries.is_empty() {
        connection.prepare_cached("DELETE FROM scores WHERE room = ?1")?.execute([room])?;
    }
    Ok(entries)
}

/// Finds a player's best of a list among all of its scores: needed where one was taken away.
pub(super) fn find_best(connection: &Connection, entry: &Entry) -> rusqlite::Result<()> {
    let (name, hash, board, group) = entry;
    connection
        .prepare_cached("DELETE FROM bests WHERE name = ?1 AND module_hash = ?2 AND board = ?3 AND group_key = ?4")?
        .execute([name, hash, board, group])?;
    connection
        .prepare_cached(
            "INSERT INTO bests (name, module_hash, board, group_key, rank, ended_at, room, player)
             SELECT name, module_hash, board, group_key, rank, ended_at, room, player FROM scores
             WHERE name = ?1 AND module_hash = ?2 AND board = ?3 AND group_key = ?4
             ORDER BY rank, ended_at, room, player LIMIT 1",
        )?
        .execute([name, hash, board, group])?;
    Ok(())
}

fn write_scores(connection: &Connection, room: &str, hash: &str, boards: &[Leaderboard]) -> rusqlite::Result<()> {
    let mut select = connection
        .prepare_cached("SELECT player, name, data, ended_at FROM results WHERE room = ?1 AND data IS NOT NULL")?;
    let mut rows = select.query([room])?;
    while let Some(row) = rows.next()? {
        let (player, name, data, ended_at): (i64, Option<String>, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let (Some(name), Ok(data)) = (name, serde_json::from_str::<Value>(&data)) else { continue };
        for board in boards {
            let Some((rank, group)) = score(board, &data) else { continue };
            connection
                .prepare_cached(
                    "INSERT INTO scores (room, player, board, name, module_hash, group_key, rank, ended_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )?
                .execute(params![room, player, board.name, name, hash, group, rank, ended_at])?;
            connection
                .prepare_cached(
                    "INSERT INTO bests (name, module_hash, board, group_key, rank, ended_at, room, player)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                     ON CONFLICT (name, module_hash, board, group_key) DO UPDATE SET rank = excluded.rank,
                     ended_at = excluded.ended_at, room = excluded.room, player = excluded.player
                     WHERE (excluded.rank, excluded.ended_at, excluded.room, excluded.player)
                         < (bests.rank, bests.ended_at, bests.room, bests.player)",
                )?
                .execute(params![name, hash, board.name, group, rank, ended_at, room, player])?;
        }
    }
    Ok(())
}

/// What a result's data is worth on a leaderboard: its rank (lower is better) and its group; none if it does not count.
fn score(board: &Leaderboard, data: &Value) -> Option<(f64, String)> {
    let score = data.get(&board.score)?.as_f64().filter(|score| score.is_finite())?;
    // No negative zero: it would be a rank of its own for those who look at bits.
    let rank = rank_of(board.best, score);
    Some((rank, group_key(board.group_by.iter().map(|field| Some((field.as_str(), data.get(field)?))))?))
}

/// The rank of a score: lower is better.
pub(super) fn rank_of(best: Best, score: f64) -> f64 {
    match best {
        Best::Lowest => score + 0.0,
        Best::Highest => 0.0 - score,
    }
}

/// The score of a rank.
pub(super) fn score_of(best: Best, rank: f64) -> f64 {
    rank_of(best, rank)
}

/// The canonical text of a group: a JSON object without spaces, its keys in order, numbers that are integers without a point. None if a field is
/// missing, or is neither a short text nor a number.
pub(super) fn group_key<'a>(fields: impl Iterator<Item = Option<(&'a str, &'a Value)>>) -> Option<String> {
    let mut group = BTreeMap::new();
    for field in fields {
        let (name, value) = field?;
        group.insert(name, group_value(value)?);
    }
    serde_json::to_string(&group).ok()
}

/// A value as it stands in a group.
fn group_value(value: &Value) -> Option<Value> {
    /// Beyond it not every integer is an `f64`, and the same number could have two texts.
    const INTEGERS_MAX: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::String(text) if text.len() <= LEADERBOARD_GROUP_TEXT_BYTES_MAX => Some(value.clone()),
        Value::Number(number) => {
            let number = number.as_f64()?;
            if number.fract() == 0.0 && number.abs() < INTEGERS_MAX {
                Some(Value::from(number as i64))
            } else {
                Number::from_f64(number).map(Value::Number)
            }
        }
        _ => None,
    }
}

/// Looks through at most `rows_max` results of modules whose leaderboards became known after them. Says whether there may be more.
pub(super) fn score_some(connection: &Connection, rows_max: usize) -> rusqlite::Result<bool> {
    let next: Option<(String, i64)> = connection
        .prepare_cached("SELECT hash, unscored_after FROM modules WHERE unscored_after IS NOT NULL LIMIT 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((hash, after)) = next else { return Ok(false) };
    let mut select =
        connection.prepare_cached("SELECT id, room, module_hash FROM results WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
    let rows: Vec<(i64, String, Option<String>)> = select
        .query_map(params![after, limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let rooms: BTreeSet<&String> =
        rows.iter().filter(|(_, _, of)| of.as_ref() == Some(&hash)).map(|(_, room, _)| room).collect();
    for room in rooms {
        score_room(connection, room)?;
    }
    let last = rows.last().map(|(id, _, _)| *id);
    connection
        .prepare_cached("UPDATE modules SET unscored_after = ?2 WHERE hash = ?1")?
        .execute(params![hash, last])?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn groups_have_one_text_each() {
        let key = |data: Value| {
            let fields = ["b", "a"];
            group_key(fields.iter().map(|field| Some((*field, data.get(field)?))))
        };
        assert_eq!(key(json!({ "a": "x", "b": 402.336, "c": [] })).unwrap(), r#"{"a":"x","b":402.336}"#);
        assert_eq!(key(json!({ "a": 1.0, "b": -0.0 })), key(json!({ "b": 0, "a": 1 })));
        assert_ne!(key(json!({ "a": "1", "b": 1 })), key(json!({ "a": 1, "b": "1" })));
        for bad in
            [json!({ "a": 1 }), json!({ "a": 1, "b": null }), json!({ "a": 1, "b": [] }), json!([1]), json!(null)]
        {
            assert_eq!(key(bad), None);
        }
        assert_eq!(key(json!({ "a": "x".repeat(65), "b": 1 })), None);
        assert_eq!(group_key([].into_iter()).unwrap(), "{}");
    }

    #[test]
    fn a_score_is_a_number_and_nothing_else() {
        let board = Leaderboard::highest("points", "points");
        assert_eq!(score(&board, &json!({ "points": 3 })), Some((-3.0, "{}".to_owned())));
        for bad in [json!({}), json!({ "points": "3" }), json!({ "points": null }), json!(3), json!(null)] {
            assert_eq!(score(&board, &bad), None);
        }
        assert_eq!(score_of(Best::Highest, -3.0), 3.0);
        assert!(rank_of(Best::Highest, 0.0).is_sign_positive() && rank_of(Best::Lowest, -0.0).is_sign_positive());
    }
}
