//! Players by name: how much one has played, and how two did against each other. A player is a name: whoever joined under it.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use serde::Serialize;
use serde_json::Value;

use super::boards::Boards;
use super::results::{Page, ResultCursor};
use super::{Records, RecordsError, limit};

/// Results that one question about two players walks, of the one who has fewer: a hundred a day for most of a year, in about a second.
pub const VERSUS_ROWS_MAX: usize = 30_000;

/// How much a player has played.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlayerSummary {
    /// The name.
    pub name: String,
    /// Rooms that expected or had the player.
    pub rooms: i64,
    /// Of these: rooms that finished with a result of the player.
    pub finished: i64,
    /// Of these: the player had the first place, or shared it.
    pub wins: i64,
    /// First join; none if the player never came.
    pub first_seen_at: Option<String>,
    /// Last join or end of a room.
    pub last_seen_at: Option<String>,
}

/// How two players did against each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Versus {
    /// The two, in the order of the question.
    pub players: [VersusPlayer; 2],
    /// Rooms that finished with results of both.
    pub finished: i64,
    /// Of these: both had the same place, or neither had one.
    pub undecided: i64,
    /// Whether all their rooms were counted; if not, only those among the latest [`VERSUS_ROWS_MAX`] results of one of them.
    pub complete: bool,
    /// Their rooms, newest first.
    pub page: Page<VersusRow, ResultCursor>,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VersusPlayer {
    /// The name.
    pub name: String,
    /// Races in which this one was placed before the other, or was placed and the other was not.
    pub wins: i64,
    /// The best scores in these rooms, by module, board and group. Mixed ones have none.
    pub bests: Vec<VersusBest>,
}

/// The best score of one in the rooms of two.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VersusBest {
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
    /// The score.
    pub score: f64,
    /// The room of it.
    pub room: String,
    /// When that room ended.
    pub ended_at: String,
}

/// One room of two players. The arrays are in the order of the question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersusRow {
    /// The room.
    pub room: String,
    /// When it ended.
    pub ended_at: String,
    /// Name of the rules module.
    pub module: Option<String>,
    /// BLAKE3 of the module in force at the finish, in hexadecimal.
    pub hash: Option<String>,
    /// The rules were replaced in the match, and not taken back.
    pub mixed: bool,
    /// Their places.
    pub places: [Option<i64>; 2],
    /// The rules' words for what they achieved.
    pub outcomes: [String; 2],
    /// Name of the one who was placed before the other.
    pub winner: Option<String>,
}

impl Records {
    /// How much a player has played; none if no room ever knew the name.
    ///
    /// # Errors
    /// [`RecordsError::Sqlite`].
    pub fn player(&self, name: &str) -> Result<Option<PlayerSummary>, RecordsError> {
        self.read(|connection| {
            let connection = connection.unchecked_transaction()?;
            // Each of these is answered from one index alone.
            let mut select = connection.prepare_cached(
                "SELECT (SELECT COUNT(*) FROM players WHERE name = ?1),
                    (SELECT COUNT(*) FROM results WHERE name = ?1),
                    (SELECT COUNT(*) FROM results WHERE name = ?1 AND place = 1),
                    (SELECT joined_at FROM players WHERE name = ?1 AND joined_at IS NOT NULL ORDER BY joined_at LIMIT 1),
                    (SELECT joined_at FROM players WHERE name = ?1 ORDER BY joined_at DESC LIMIT 1),
                    (SELECT ended_at FROM results WHERE name = ?1 ORDER BY ended_at DESC LIMIT 1)",
            )?;
            let summary = select.query_row([name], |row| {
                let (joined, ended): (Option<String>, Option<String>) = (row.get(4)?, row.get(5)?);
                Ok(PlayerSummary {
                    name: name.to_owned(),
                    rooms: row.get(0)?,
                    finished: row.get(1)?,
                    wins: row.get(2)?,
                    first_seen_at: row.get(3)?,
                    last_seen_at: joined.max(ended),
                })
            })?;
            Ok((summary.rooms > 0 || summary.finished > 0).then_some(summary))
        })
    }

    /// How two players did against each other, and a page of their rooms.
    ///
    /// # Errors
    /// [`RecordsError::Sqlite`].
    pub fn versus(
        &self,
        players: [&str; 2],
        after: Option<&ResultCursor>,
        limit_max: usize,
    ) -> Result<Versus, RecordsError> {
        self.read(|connection| {
            let connection = connection.unchecked_transaction()?;
            versus(&connection, players, after, limit_max)
        })
    }
}

/// Rank, end, room of the best so far, by hash, board and group.
type Bests = BTreeMap<(String, String, String), (f64, String, String)>;

fn versus(
    connection: &Connection,
    players: [&str; 2],
    after: Option<&ResultCursor>,
    limit_max: usize,
) -> rusqlite::Result<Versus> {
    // The one with fewer results is walked, the other's are looked up.
    let count = |name: &str| -> rusqlite::Result<i64> {
        connection
            .prepare_cached("SELECT COUNT(*) FROM (SELECT 1 FROM results WHERE name = ?1 LIMIT ?2)")?
            .query_row(params![name, VERSUS_ROWS_MAX as i64 + 1], |row| row.get(0))
    };
    let [one, two] = players;
    let (of_one, of_two) = (count(one)?, count(two)?);
    let is_turned = of_two < of_one;
    let (walked, other) = if is_turned { (two, one) } else { (one, two) };
    let complete = of_one.min(of_two) <= VERSUS_ROWS_MAX as i64;
    let limit = usize::try_from(limit(Some(limit_max))).unwrap_or(1);

    let mut select = connection.prepare_cached(
        "SELECT a.id, a.room, a.ended_at, a.module_name, a.module_hash, a.mixed, a.player, a.place, a.outcome,
            b.player, b.place, b.outcome
         FROM (SELECT * FROM results INDEXED BY results_by_name WHERE name = ?1 ORDER BY ended_at DESC, id DESC LIMIT ?3) AS a
         CROSS JOIN results AS b ON b.room = a.room AND +b.name = ?2 AND b.id <> a.id
         ORDER BY a.ended_at DESC, a.id DESC",
    )?;
    let mut scores = connection
        .prepare_cached("SELECT board, module_hash, group_key, rank FROM scores WHERE room = ?1 AND player = ?2")?;
    let mut bests: [Bests; 2] = [Bests::new(), Bests::new()];
    let (mut finished, mut undecided, mut wins_of_one, mut wins_of_two) = (0_i64, 0_i64, 0_i64, 0_i64);
    let mut page = Page { rows: Vec::new(), next: None };
    let mut last = None;
    let mut rows = select.query(params![walked, other, VERSUS_ROWS_MAX as i64])?;
    while let Some(row) = rows.next()? {
        let (id, room, ended_at): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let mut slots: [i64; 2] = [row.get(6)?, row.get(9)?];
        let mut places: [Option<i64>; 2] = [row.get(7)?, row.get(10)?];
        let mut outcomes: [String; 2] = [row.get(8)?, row.get(11)?];
        if is_turned {
            slots.swap(0, 1);
            places.swap(0, 1);
            outcomes.swap(0, 1);
        }
        finished += 1;
        // No place is behind every place.
        let [of_one, of_two] = places.map(|place| place.unwrap_or(i64::MAX));
        let (winner, counter) = match of_one.cmp(&of_two) {
            Ordering::Less => (Some(one), &mut wins_of_one),
            Ordering::Greater => (Some(two), &mut wins_of_two),
            Ordering::Equal => (None, &mut undecided),
        };
        *counter += 1;
        for (slot, bests) in slots.iter().zip(&mut bests) {
            let mut found = scores.query(params![room, slot])?;
            while let Some(score) = found.next()? {
                let key = (score.get(1)?, score.get(0)?, score.get(2)?);
                let new = (score.get::<_, f64>(3)?, ended_at.clone(), room.clone());
                let is_better = bests.get(&key).is_none_or(|old| (new.0, &new.1, &new.2) < (old.0, &old.1, &old.2));
                if is_better {
                    bests.insert(key, new);
                }
            }
        }
        if after.is_some_and(|ResultCursor(time, at)| (ended_at.as_str(), id) >= (time.as_str(), *at)) {
            continue;
        }
        if page.rows.len() >= limit {
            page.next = page.next.or_else(|| last.take());
            continue;
        }
        last = Some(ResultCursor(ended_at.clone(), id));
        page.rows.push(VersusRow {
            room,
            ended_at,
            module: row.get(3)?,
            hash: row.get(4)?,
            mixed: row.get(5)?,
            places,
            outcomes,
            winner: winner.map(str::to_owned),
        });
    }

    let mut known = Boards::new(connection);
    let mut tell = |name: &str, wins: i64, bests: Bests| -> rusqlite::Result<VersusPlayer> {
        let bests = bests
            .into_iter()
            .map(|((hash, board, group), (rank, ended_at, room))| {
                let module = known.module(&hash)?;
                Ok(VersusBest {
                    module: module.name.clone(),
                    version: module.version.clone(),
                    score: module.score(&board, rank),
                    group: serde_json::from_str(&group).unwrap_or_default(),
                    hash,
                    board,
                    room,
                    ended_at,
                })
            })
            .collect::<rusqlite::Result<_>>()?;
        Ok(VersusPlayer { name: name.to_owned(), wins, bests })
    };
    let [first, second] = bests;
    let players = [tell(one, wins_of_one, first)?, tell(two, wins_of_two, second)?];
    Ok(Versus { players, finished, undecided, complete, page })
}
