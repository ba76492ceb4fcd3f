//! Leaderboards: what there is, the best of each player on one, and what one player has on all. They are read from the table `bests`, which has one
//! row per player, module, board and group; how it is kept is the business of `scores`.

use std::collections::BTreeMap;

use holeshot_abi::{Best, Leaderboard};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::results::Page;
use super::{Records, RecordsError, limit};
use crate::manager::scores::{group_key, score_of};

/// Groups of one board that a list of boards tells: a person chooses among them.
pub const GROUPS_MAX: usize = 100;

/// A leaderboard of one module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BoardRow {
    /// Name of the module.
    pub module: String,
    /// Its version.
    pub version: String,
    /// BLAKE3 of it, in hexadecimal.
    pub hash: String,
    /// Whether it is the newest of its name: the one that was last loaded.
    pub newest: bool,
    /// Name of the board.
    pub board: String,
    /// The field with the score.
    pub score: String,
    /// Which score is the best.
    pub best: Best,
    /// The fields by which it is divided.
    pub group_by: Vec<String>,
    /// The groups that have scores, in the order of their texts; the first [`GROUPS_MAX`].
    pub groups: Vec<Value>,
    /// Whether there are more groups than these.
    pub more_groups: bool,
}

/// Where a page of boards ended: module's name, hash, and the board's position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardsCursor(String, String, usize);

/// Which leaderboard.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BoardQuery {
    /// Name of the module.
    pub module: String,
    /// Name of the board.
    pub board: String,
    /// Hash of the module; none for the newest of that name.
    pub hash: Option<String>,
    /// The group: a value for each field by which the board is divided. Digits are a text where there is a group with that text, else the number;
    /// in quotation marks they are a text.
    pub group: Vec<(String, String)>,
    /// Those after this one.
    pub after: Option<EntryCursor>,
    /// How many, 1 to [`PAGE_MAX`](super::PAGE_MAX); others are brought within.
    pub limit: usize,
}

/// Where a page of a leaderboard ended: the rank's bits, the time and the player.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryCursor(u64, String, String);

/// A leaderboard, or a piece of it.
#[derive(Debug, Clone, PartialEq)]
pub struct BoardPage {
    /// Name of the module.
    pub module: String,
    /// Its version.
    pub version: String,
    /// BLAKE3 of it, in hexadecimal.
    pub hash: String,
    /// The board.
    pub board: Leaderboard,
    /// The group.
    pub group: Value,
    /// The players, the best first; equal scores by time.
    pub page: Page<EntryRow, EntryCursor>,
}

/// A player on a leaderboard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EntryRow {
    /// Place, from 1; the same for equal scores.
    pub place: i64,
    /// The player's name.
    pub name: String,
    /// The best score.
    pub score: f64,
    /// The room of it.
    pub room: String,
    /// Slot in that room, from 0.
    pub player: i64,
    /// When that room ended.
    pub ended_at: String,
    /// BLAKE3 of the module, in hexadecimal.
    pub hash: String,
    /// Its version.
    pub version: String,
}

/// Why there is no such leaderboard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoardError {
    /// No such module is on record.
    #[error("no module {0} is on record; GET /api/leaderboards lists what there is")]
    UnknownModule(String),
    /// The module has no such board.
    #[error("module {module} has no leaderboard {board:?}; it has: {known}")]
    UnknownBoard {
        /// Name, version and hash of the module.
        module: String,
        /// What was asked for.
        board: String,
        /// What there is.
        known: String,
    },
    /// The group does not have the fields of the board.
    #[error(
        "leaderboard {board:?} has a list for each value of {fields}: ask for {example}; GET /api/leaderboards lists the values that there are"
    )]
    Group {
        /// The board.
        board: String,
        /// Its fields.
        fields: String,
        /// How to name them.
        example: String,
    },
}

/// A player's best on one leaderboard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BestRow {
    /// Name of the module.
    pub module: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// BLAKE3 of it, in hexadecimal.
    pub hash: String,
    /// The board.
    pub board: String,
    /// The group.
    pub group: Value,
    /// The best score.
    pub score: f64,
    /// The room of it.
    pub room: String,
    /// Slot in that room, from 0.
    pub player: i64,
    /// When that room ended.
    pub ended_at: String,
}

/// Where a page of bests ended: hash, board, group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BestsCursor(String, String, String);

impl Records {
    /// The leaderboards of all modules, or of those with this name, by name and hash.
    ///
    /// # Errors
    /// [`RecordsError::Sqlite`].
    pub fn leaderboards(
        &self,
        module: Option<&str>,
        after: Option<&BoardsCursor>,
        limit_max: usize,
    ) -> Result<Page<BoardRow, BoardsCursor>, RecordsError> {
        let rows_max = usize::try_from(limit(Some(limit_max))).unwrap_or(1);
        self.read(|connection| {
            let (name, hash, next) = match after {
                Some(BoardsCursor(name, hash, at)) => (name.as_str(), hash.as_str(), at.saturating_add(1)),
                None => ("", "", 0),
            };
            let mut select = connection.prepare_cached(
                "SELECT m.name, m.version, m.hash, m.boards,
                    m.hash = (SELECT n.hash FROM modules AS n WHERE n.name = m.name
                        ORDER BY n.last_loaded_at DESC, n.hash LIMIT 1) AS newest
                 FROM modules AS m WHERE m.boards IS NOT NULL AND (?1 IS NULL OR m.name = ?1) AND (m.name, m.hash) >= (?2, ?3)
                 ORDER BY m.name, m.hash",
            )?;
            let mut found = select.query(params![module, name, hash])?;
            let mut page = Page { rows: Vec::new(), next: None };
            let mut last = None;
            while let Some(row) = found.next()? {
                let of: (String, String, String, bool) =
                    (row.get("name")?, row.get("version")?, row.get("hash")?, row.get("newest")?);
                let boards = parse_boards(row.get("boards")?);
                let skip = if of.2 == hash { next } else { 0 };
                for (at, board) in boards.into_iter().enumerate().skip(skip) {
                    if page.rows.len() >= rows_max {
                        page.next = last;
                        return Ok(page);
                    }
                    last = Some(BoardsCursor(of.0.clone(), of.2.clone(), at));
                    let (groups, more_groups) = groups(connection, &of.2, &board.name)?;
                    let (module, version, hash, newest) = of.clone();
                    let Leaderboard { name: board, score, best, group_by } = board;
                    page.rows.push(BoardRow {
                        module, version, hash, newest, board, score, best, group_by, groups, more_groups,
                    });
                }
            }
            Ok(page)
        })
    }

    /// One leaderboard.
    ///
    /// # Errors
    /// [`RecordsError::Sqlite`]; within, why there is no such leaderboard.
    pub fn leaderboard(&self, query: &BoardQuery) -> Result<Result<BoardPage, BoardError>, RecordsError> {
        self.read(|connection| {
            // One transaction: places and rows of the same moment.
            let connection = connection.unchecked_transaction()?;
            leaderboard(&connection, query)
        })
    }

    /// What a player has on all leaderboards, by hash, board and group.
    ///
    /// # Errors
    /// [`RecordsError::Sqlite`].
    pub fn bests(
        &self,
        name: &str,
        after: Option<&BestsCursor>,
        limit_max: usize,
    ) -> Result<Page<BestRow, BestsCursor>, RecordsError> {
        let start = BestsCursor::default();
        let BestsCursor(hash, board, group) = after.unwrap_or(&start);
        let rows_max = limit(Some(limit_max));
        self.read(|connection| {
            let mut known = Boards::new(connection);
            let mut select = connection.prepare_cached(
                "SELECT module_hash, board, group_key, rank, ended_at, room, player FROM bests
                 WHERE name = ?1 AND (module_hash, board, group_key) > (?2, ?3, ?4)
                 ORDER BY module_hash, board, group_key LIMIT ?5",
            )?;
            let mut rows = select.query(params![name, hash, board, group, rows_max + 1])?;
            let mut page = Page { rows: Vec::new(), next: None };
            let mut last = None;
            while let Some(row) = rows.next()? {
                if page.rows.len() as i64 >= rows_max {
                    page.next = last;
                    break;
                }
                let (hash, board, group): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let module = known.module(&hash)?;
                page.rows.push(BestRow {
                    module: module.name.clone(),
                    version: module.version.clone(),
                    score: module.score(&board, row.get(3)?),
                    group: serde_json::from_str(&group).unwrap_or_default(),
                    ended_at: row.get(4)?,
                    room: row.get(5)?,
                    player: row.get(6)?,
                    hash: hash.clone(),
                    board: board.clone(),
                });
                last = Some(BestsCursor(hash, board, group));
            }
            Ok(page)
        })
    }
}

fn leaderboard(connection: &Connection, query: &BoardQuery) -> rusqlite::Result<Result<BoardPage, BoardError>> {
    let found: Option<(String, String, Option<String>)> = connection
        .prepare_cached(
            "SELECT hash, version, boards FROM modules WHERE name = ?1 AND (?2 IS NULL OR hash = ?2)
             ORDER BY last_loaded_at DESC, hash LIMIT 1",
        )?
        .query_row(params![query.module, query.hash], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((hash, version, boards)) = found else {
        let of_hash = query.hash.as_ref().map(|hash| format!(" with hash {hash}")).unwrap_or_default();
        return Ok(Err(BoardError::UnknownModule(format!("{:?}{of_hash}", query.module))));
    };
    let boards = parse_boards(boards);
    let names: Vec<&str> = boards.iter().map(|board| board.name.as_str()).collect();
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let Some(board) = boards.iter().find(|board| board.name == query.board).cloned() else {
        let module = format!("{} {version} ({hash})", query.module);
        return Ok(Err(BoardError::UnknownBoard { module, board: query.board.clone(), known }));
    };
    let Some(keys) = possible_groups(&board, &query.group) else {
        let fields = if board.group_by.is_empty() { "nothing".to_owned() } else { board.group_by.join(" and ") };
        let example: Vec<String> = board.group_by.iter().map(|field| format!("group.{field}=…")).collect();
        let example = if example.is_empty() { "no group".to_owned() } else { example.join("&") };
        return Ok(Err(BoardError::Group { board: board.name, fields, example }));
    };
    let mut group = keys.first().cloned().unwrap_or_default();
    for key in keys {
        let is_there: bool = connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM bests WHERE module_hash = ?1 AND board = ?2 AND group_key = ?3)",
            )?
            .query_row([&hash, &board.name, &key], |row| row.get(0))?;
        if is_there {
            group = key;
            break;
        }
    }

    let (rank, time, name) = match &query.after {
        Some(EntryCursor(bits, time, name)) => (f64::from_bits(*bits), time.as_str(), name.as_str()),
        None => (f64::NEG_INFINITY, "", ""),
    };
    let rows_max = limit(Some(query.limit));
    let mut select = connection.prepare_cached(
        "SELECT name, rank, ended_at, room, player FROM bests INDEXED BY bests_by_rank
         WHERE module_hash = ?1 AND board = ?2 AND group_key = ?3 AND (rank, ended_at, name) > (?4, ?5, ?6)
         ORDER BY rank, ended_at, name LIMIT ?7",
    )?;
    let mut rows = select.query(params![hash, board.name, group, rank, time, name, rows_max + 1])?;
    let mut page: Page<EntryRow, EntryCursor> = Page { rows: Vec::new(), next: None };
    // Position and place of the row, and the rank of the one before.
    let mut position = 0_i64;
    let mut before: Option<(f64, i64)> = None;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let (name, rank, ended_at): (String, f64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if page.rows.len() as i64 >= rows_max {
            page.next = last;
            break;
        }
        let place = match before {
            Some((same, place)) if same == rank => place,
            Some(_) => position + 1,
            None => {
                let (ahead, better): (i64, i64) = connection
                    .prepare_cached(
                        "SELECT COUNT(*), COALESCE(SUM(rank < ?4), 0) FROM bests INDEXED BY bests_by_rank
                         WHERE module_hash = ?1 AND board = ?2 AND group_key = ?3 AND (rank, ended_at, name) < (?4, ?5, ?6)",
                    )?
                    .query_row(params![hash, board.name, group, rank, ended_at, name], |row| {
                        Ok((row.get(0)?, row.get(1)?))
                    })?;
                position = ahead;
                better + 1
            }
        };
        position += 1;
        before = Some((rank, place));
        last = Some(EntryCursor(rank.to_bits(), ended_at.clone(), name.clone()));
        page.rows.push(EntryRow {
            place,
            name,
            score: score_of(board.best, rank),
            room: row.get(3)?,
            player: row.get(4)?,
            ended_at,
            hash: hash.clone(),
            version: version.clone(),
        });
    }
    let group = serde_json::from_str(&group).unwrap_or_default();
    Ok(Ok(BoardPage { module: query.module.clone(), version, hash, board, group, page }))
}

/// The texts that the group of a question may have, in the order in which they are tried; none if it does not have the board's fields.
fn possible_groups(board: &Leaderboard, asked: &[(String, String)]) -> Option<Vec<String>> {
    if asked.len() != board.group_by.len() {
        return None;
    }
    let mut groups: Vec<BTreeMap<&str, Value>> = vec![BTreeMap::new()];
    for field in &board.group_by {
        let (_, asked) = asked.iter().find(|(name, _)| name == field)?;
        let quoted = asked.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let mut values = vec![Value::from(quoted.unwrap_or(asked))];
        if quoted.is_none() {
            values.extend(asked.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number));
        }
        groups = groups
            .into_iter()
            .flat_map(|group| {
                values.iter().map(move |value| {
                    let mut group = group.clone();
                    group.insert(field.as_str(), value.clone());
                    group
                })
            })
            .collect();
    }
    Some(
        groups.iter().filter_map(|group| group_key(group.iter().map(|(field, value)| Some((*field, value))))).collect(),
    )
}

/// The groups of a board that have scores: one look into the index for each.
fn groups(connection: &Connection, hash: &str, board: &str) -> rusqlite::Result<(Vec<Value>, bool)> {
    let mut next = connection.prepare_cached(
        "SELECT group_key FROM bests INDEXED BY bests_by_rank
         WHERE module_hash = ?1 AND board = ?2 AND group_key > ?3 ORDER BY group_key LIMIT 1",
    )?;
    let mut groups = Vec::new();
    let mut last = String::new();
    while let Some(key) = next.query_row([hash, board, &last], |row| row.get::<_, String>(0)).optional()? {
        if groups.len() >= GROUPS_MAX {
            return Ok((groups, true));
        }
        groups.push(serde_json::from_str(&key).unwrap_or_default());
        last = key;
    }
    Ok((groups, false))
}

/// What was checked before it was written; of a damaged text nothing.
fn parse_boards(text: Option<String>) -> Vec<Leaderboard> {
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// What is known of a module.
#[derive(Debug, Default)]
pub(super) struct Module {
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    boards: Vec<Leaderboard>,
}

impl Module {
    /// The score of a rank on one of its boards.
    pub(super) fn score(&self, board: &str, rank: f64) -> f64 {
        let best = self.boards.iter().find(|known| known.name == board).map_or(Best::Lowest, |board| board.best);
        score_of(best, rank)
    }

    fn from_row(found: Option<(String, String, Option<String>)>) -> Self {
        let Some((name, version, boards)) = found else { return Self::default() };
        Self { name: Some(name), version: Some(version), boards: parse_boards(boards) }
    }
}

/// Modules by hash, each read once per question.
pub(super) struct Boards<'a> {
    connection: &'a Connection,
    known: BTreeMap<String, Module>,
}

impl<'a> Boards<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self { connection, known: BTreeMap::new() }
    }

    pub(super) fn module(&mut self, hash: &str) -> rusqlite::Result<&Module> {
        if !self.known.contains_key(hash) {
            let found = self
                .connection
                .prepare_cached("SELECT name, version, boards FROM modules WHERE hash = ?1")?
                .query_row([hash], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?;
            self.known.insert(hash.to_owned(), Module::from_row(found));
        }
        Ok(self.known.entry(hash.to_owned()).or_default())
    }
}
