//! The questions against a plain computation over the same random rooms, whose events come in a random order; and a file of layout 3.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

use holeshot_abi::{Best, Leaderboard};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::boards::{BoardError, BoardQuery};
use super::results::{ResultRow, ResultsQuery, SCAN_ROWS_MAX};
use super::{FILE, MIGRATIONS, Records, open};
use crate::events::CloudEvent;
use crate::events::cloudevent::rfc3339;
use crate::manager::derive::derive;
use crate::manager::scores::{forget_scores, group_key, score_some};

// ---- random rooms ----

struct Random(u64);

impl Random {
    /// A number below `end` (xorshift64*).
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}

const NAMES: [&str; 9] =
    ["Ada", "Ben", "=SUM(A1)", "Zoë ☕", "'; DROP TABLE results;--", "a,b\"c", "100%", "A&B=C", "\u{202e}evil"];
/// The first two are versions of one game, the third has no leaderboards.
const HASHES: [&str; 3] = ["aaaa", "bbbb", "cccc"];

fn boards() -> Vec<Leaderboard> {
    vec![Leaderboard::lowest("lap", "lap_s").group_by(["track", "laps"]), Leaderboard::highest("points", "points")]
}

#[derive(Debug, Clone)]
struct Outcome {
    name: &'static str,
    slot: u32,
    place: Option<u32>,
    outcome: &'static str,
    data: Value,
    car: &'static str,
}

#[derive(Debug, Clone)]
struct Room {
    id: String,
    ended_s: u64,
    hash: &'static str,
    mixed: bool,
    results: Vec<Outcome>,
}

fn module_ref(hash: &str) -> Value {
    let name = if hash == "cccc" { "other" } else { "laps" };
    json!({ "hash": hash, "name": name, "version": format!("1.{hash}") })
}

fn event(kind: &str, room: Option<&str>, at_s: u64, data: Value) -> CloudEvent {
    CloudEvent {
        origin: "pit.1".into(),
        sequence: 1,
        host: "pit".into(),
        kind: kind.into(),
        room: room.map(Into::into),
        module: None,
        time: UNIX_EPOCH + Duration::from_secs(at_s),
        data,
    }
}

fn time(at_s: u64) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_secs(at_s))
}

fn loaded(hash: &str, at_s: u64, boards: &[Leaderboard]) -> CloudEvent {
    let module = module_ref(hash);
    let data = json!({
        "name": module["name"], "version": module["version"], "hash": hash, "abi": 0x1_0002, "bytes": 9, "leaderboards": boards,
    });
    event("module.loaded", None, at_s, data)
}

/// A room, and the events that tell of it.
fn random_room(random: &mut Random, number: usize) -> (Room, Vec<CloudEvent>) {
    let id = format!("r-{number:05}");
    let opened_s = 1_000_000 + random.below(40_000);
    let ended_s = opened_s + 60;
    let begin = HASHES[random.below(3) as usize];
    let mut names: Vec<&'static str> = NAMES.to_vec();
    random.shuffle(&mut names);
    names.truncate(1 + random.below(4) as usize);
    let results: Vec<Outcome> = names
        .iter()
        .enumerate()
        .map(|(slot, name)| {
            let track = ["oval", "12"][random.below(2) as usize];
            let laps = [json!(3), json!(3.0), json!(2.5), json!("3")][random.below(4) as usize].clone();
            let (lap_s, points) = (10.0 + random.below(12) as f64 / 2.0, random.below(6));
            let mut data = json!({ "lap_s": lap_s, "points": points, "track": track, "laps": laps, "car": "mx5" });
            if random.one_in(6) {
                let bad = [json!(null), json!("12.0"), json!([]), json!(true)][random.below(4) as usize].clone();
                data[["lap_s", "points", "track", "laps"][random.below(4) as usize]] = bad;
            }
            if random.one_in(12) {
                data.as_object_mut().unwrap().remove("lap_s");
            }
            Outcome {
                name,
                slot: slot as u32,
                place: (!random.one_in(5)).then(|| 1 + random.below(3) as u32),
                outcome: ["won", "lost", "left"][random.below(3) as usize],
                data: if random.one_in(15) { Value::Null } else { data },
                car: ["mx5", "gtr"][random.below(2) as usize],
            }
        })
        .collect();
    let players: Vec<Value> = results
        .iter()
        .map(|result| json!({ "player": result.slot, "name": result.name, "data": { "kart": result.car } }))
        .collect();
    let of_result = |result: &Outcome| json!({ "player": result.slot, "place": result.place, "outcome": result.outcome, "data": result.data });
    let mut events = vec![
        event(
            "room.opened",
            Some(&id),
            opened_s,
            json!({ "module": module_ref(begin), "seed": 7, "options": null, "players": players }),
        ),
        event(
            "room.finished",
            Some(&id),
            ended_s,
            json!({ "frames": 1000, "results": results.iter().map(of_result).collect::<Vec<_>>() }),
        ),
        event("room.closed", Some(&id), ended_s + 1, json!({})),
    ];
    for result in &results {
        let data = json!({ "player": result.slot, "name": result.name, "transport": "udp" });
        events.push(event("player.joined", Some(&id), opened_s + 1, data));
    }
    let (mut hash, mut mixed) = (begin, false);
    // Only versions of one game take over from each other.
    if begin != "cccc" && random.one_in(3) {
        let other = if begin == "aaaa" { "bbbb" } else { "aaaa" };
        let frame = [0, 300, 1000][random.below(3) as usize];
        let swapped = json!({ "frame": frame, "module": module_ref(other), "from": module_ref(begin) });
        events.push(event("room.rules_swapped", Some(&id), opened_s + 20, swapped));
        match random.below(3) {
            0 => {
                let back = json!({
                    "frame": frame + 5, "since_frame": frame, "module": module_ref(begin), "failed": module_ref(other),
                    "reason": "trap", "message": "m",
                });
                events.push(event("room.rules_rolled_back", Some(&id), opened_s + 22, back));
            }
            kept => {
                if kept == 1 {
                    let kept = json!({ "frame": frame + 150, "since_frame": frame, "module": module_ref(other) });
                    events.push(event("room.rules_kept", Some(&id), opened_s + 25, kept));
                }
                // A swap after the last frame decided nothing.
                if frame < 1000 {
                    hash = other;
                    mixed = frame > 0;
                }
            }
        }
    }
    random.shuffle(&mut events);
    (Room { id, ended_s, hash, mixed, results }, events)
}

// ---- the plain computation ----

#[derive(Debug, Clone, PartialEq)]
struct Score {
    name: &'static str,
    hash: &'static str,
    board: String,
    group: String,
    rank: f64,
    ended_at: String,
    room: String,
}

fn scores(rooms: &[Room]) -> Vec<Score> {
    let mut scores = Vec::new();
    for room in rooms.iter().filter(|room| !room.mixed && room.hash != "cccc") {
        for result in &room.results {
            for board in boards() {
                let fields = board.group_by.iter().map(|field| Some((field.as_str(), result.data.get(field)?)));
                let (Some(score), Some(group)) =
                    (result.data.get(&board.score).and_then(Value::as_f64), group_key(fields))
                else {
                    continue;
                };
                let rank = if board.best == Best::Lowest { score } else { -score };
                let (name, hash, ended_at) = (result.name, room.hash, time(room.ended_s));
                scores.push(Score { name, hash, board: board.name, group, rank, ended_at, room: room.id.clone() });
            }
        }
    }
    scores
}

fn bests<'a>(scores: impl Iterator<Item = &'a Score>) -> BTreeMap<(&'a str, &'a str, &'a str, &'a str), &'a Score> {
    let mut bests: BTreeMap<_, &Score> = BTreeMap::new();
    for score in scores {
        let best = bests.entry((score.name, score.hash, score.board.as_str(), score.group.as_str())).or_insert(score);
        if (score.rank, &score.ended_at, &score.room) < (best.rank, &best.ended_at, &best.room) {
            *best = score;
        }
    }
    bests
}

/// What a person sees of a rank.
fn shown(board: &str, rank: f64) -> f64 {
    if board == "points" { 0.0 - rank } else { rank }
}

// ---- all pages of a question ----

fn all_results(records: &Records, query: &ResultsQuery) -> Vec<ResultRow> {
    let mut query = query.clone();
    let mut rows = Vec::new();
    loop {
        let page = records.results(&query).unwrap();
        assert!(page.rows.len() <= query.limit);
        rows.extend(page.rows);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return rows,
        }
    }
}

fn check_results(records: &Records, rooms: &[Room], query: &ResultsQuery) {
    let found = all_results(records, query);
    assert!(found.windows(2).all(|pair| pair[0].ended_at >= pair[1].ended_at), "{query:?}");
    let found: BTreeSet<(String, i64)> = found
        .iter()
        .inspect(|row| {
            let room = rooms.iter().find(|room| room.id == row.room).unwrap();
            let result = &room.results[row.player as usize];
            assert_eq!((row.name.as_deref(), &row.data, row.mixed), (Some(result.name), &result.data, room.mixed));
            assert_eq!((row.hash.as_deref(), &row.ended_at), (Some(room.hash), &time(room.ended_s)));
        })
        .map(|row| (row.room.clone(), row.player))
        .collect();
    let is = |asked: &Option<String>, value: &str| asked.as_ref().is_none_or(|asked| asked == value);
    let mut expected = BTreeSet::new();
    for room in rooms {
        let at = time(room.ended_s);
        let in_time = query.from.as_ref().is_none_or(|from| at >= *from) && query.to.as_ref().is_none_or(|to| at < *to);
        let module = if room.hash == "cccc" { "other" } else { "laps" };
        if !in_time || !is(&query.room, &room.id) || !is(&query.hash, room.hash) || !is(&query.module, module) {
            continue;
        }
        for result in &room.results {
            let has = |(field, value): &(String, String)| match field.as_str() {
                "kart" => result.car == value,
                field => match result.data.get(field) {
                    Some(Value::String(text)) => text == value,
                    Some(Value::Number(number)) => value.parse::<f64>().ok() == number.as_f64(),
                    Some(Value::Bool(truth)) => truth.to_string() == *value,
                    _ => false,
                },
            };
            if is(&query.player, result.name) && is(&query.outcome, result.outcome) && query.data.iter().all(has) {
                expected.insert((room.id.clone(), i64::from(result.slot)));
            }
        }
    }
    assert_eq!(found, expected, "{query:?}");
}

fn check_all(records: &Records, rooms: &[Room]) {
    let scores = scores(rooms);
    let best_scores = bests(scores.iter());

    // Leaderboards, in pages of three.
    let lists: BTreeSet<(&str, &str, &str)> =
        best_scores.keys().map(|(_, hash, board, group)| (*hash, *board, *group)).collect();
    assert!(lists.len() > 8, "{lists:?}");
    for (hash, board, group) in &lists {
        let mut expected: Vec<&Score> = best_scores
            .values()
            .copied()
            .filter(|score| (score.hash, score.board.as_str(), score.group.as_str()) == (*hash, *board, *group))
            .collect();
        expected.sort_by(|a, b| (a.rank, &a.ended_at, a.name).partial_cmp(&(b.rank, &b.ended_at, b.name)).unwrap());
        let fields: BTreeMap<String, Value> = serde_json::from_str(group).unwrap();
        let asked = fields.iter().map(|(field, value)| match value {
            // In quotes, since there is a group with the number as well.
            Value::String(_) => (field.clone(), value.to_string()),
            value => (field.clone(), value.to_string()),
        });
        let mut query = BoardQuery {
            module: "laps".into(),
            board: (*board).into(),
            hash: Some((*hash).into()),
            group: asked.collect(),
            after: None,
            limit: 3,
        };
        let mut rows = Vec::new();
        loop {
            let found = records.leaderboard(&query).unwrap().unwrap();
            // A number without quotes is the text first, if there is such a group.
            if found.group != json!(fields) {
                assert!(group.contains("\"laps\":3"), "{group} {}", found.group);
                rows.clear();
                break;
            }
            rows.extend(found.page.rows);
            match found.page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        if rows.is_empty() {
            continue;
        }
        let found: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.score, row.room.as_str())).collect();
        let wished: Vec<_> =
            expected.iter().map(|score| (score.name, shown(board, score.rank), score.room.as_str())).collect();
        assert_eq!(found, wished, "{hash} {board} {group}");
        for (row, score) in rows.iter().zip(&expected) {
            let better = expected.iter().filter(|other| other.rank < score.rank).count();
            assert_eq!(row.place, 1 + better as i64, "{row:?}");
        }
    }

    // Personal bests.
    for name in NAMES {
        let expected: Vec<_> = best_scores
            .iter()
            .filter(|((of, ..), _)| *of == name)
            .map(|((_, hash, board, group), score)| {
                (hash.to_string(), board.to_string(), (*group).to_owned(), shown(board, score.rank), score.room.clone())
            })
            .collect();
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = records.bests(name, after.as_ref(), 2).unwrap();
            found.extend(page.rows);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let found: Vec<_> =
            found.into_iter().map(|row| (row.hash, row.board, row.group.to_string(), row.score, row.room)).collect();
        assert_eq!(found, expected, "{name}");
        let of: Vec<&Outcome> =
            rooms.iter().flat_map(|room| &room.results).filter(|result| result.name == name).collect();
        let wins = of.iter().filter(|result| result.place == Some(1)).count() as i64;
        let summary = records.player(name).unwrap();
        let counts = summary.as_ref().map(|summary| (summary.rooms, summary.finished, summary.wins));
        assert_eq!(counts.unwrap_or_default(), (of.len() as i64, of.len() as i64, wins), "{name}");
    }

    // Each against each.
    for (first, second) in NAMES.iter().flat_map(|first| NAMES.iter().map(move |second| (*first, *second))) {
        if first == second {
            continue;
        }
        let both: Vec<&Room> = rooms
            .iter()
            .filter(|room| [first, second].iter().all(|name| room.results.iter().any(|result| result.name == *name)))
            .collect();
        let place = |room: &Room, name: &str| {
            room.results.iter().find(|result| result.name == name).unwrap().place.unwrap_or(u32::MAX)
        };
        let wins = both.iter().filter(|room| place(room, first) < place(room, second)).count() as i64;
        let losses = both.iter().filter(|room| place(room, first) > place(room, second)).count() as i64;
        let (mut rows, mut after) = (Vec::new(), None);
        let versus = loop {
            let versus = records.versus([first, second], after.as_ref(), 4).unwrap();
            rows.extend(versus.page.rows.clone());
            after = versus.page.next.clone();
            if after.is_none() {
                break versus;
            }
        };
        let counted =
            (versus.finished, versus.players[0].wins, versus.players[1].wins, versus.undecided, versus.complete);
        assert_eq!(
            counted,
            (both.len() as i64, wins, losses, both.len() as i64 - wins - losses, true),
            "{first} {second}"
        );
        assert!(rows.windows(2).all(|pair| pair[0].ended_at >= pair[1].ended_at));
        let listed: BTreeSet<&str> = rows.iter().map(|row| row.room.as_str()).collect();
        assert_eq!((rows.len(), listed), (both.len(), both.iter().map(|room| room.id.as_str()).collect()));
        for row in &rows {
            let room = both.iter().find(|room| room.id == row.room).unwrap();
            let winner = match place(room, first).cmp(&place(room, second)) {
                std::cmp::Ordering::Less => Some(first),
                std::cmp::Ordering::Greater => Some(second),
                std::cmp::Ordering::Equal => None,
            };
            assert_eq!(row.winner.as_deref(), winner);
        }
        for player in &versus.players {
            let here = scores.iter().filter(|s| s.name == player.name && both.iter().any(|room| room.id == s.room));
            let expected: Vec<_> = bests(here)
                .values()
                .map(|s| (s.hash.to_owned(), s.board.clone(), s.group.clone(), shown(&s.board, s.rank), s.room.clone()))
                .collect();
            let found: Vec<_> = player
                .bests
                .iter()
                .map(|b| (b.hash.clone(), b.board.clone(), b.group.to_string(), b.score, b.room.clone()))
                .collect();
            assert_eq!(found, expected, "{first} {second}: {}", player.name);
        }
    }
}

#[test]
fn every_answer_is_that_of_a_plain_computation_in_whatever_order_the_events_come() {
    for seed in [1, 0xdead_beef, 20_261_121] {
        println!("seed {seed}");
        let mut random = Random(seed);
        let directory = tempfile::tempdir().unwrap();
        let (connection, path) = open(directory.path()).unwrap();
        let records = Records::new(path);
        let (mut rooms, mut events) = (Vec::new(), Vec::new());
        for number in 0..150 {
            let (room, of_room) = random_room(&mut random, number);
            rooms.push(room);
            events.extend(of_room);
        }
        // The leaderboards become known in the middle of it, and an old host says again that there are none.
        for (at, hash) in HASHES.iter().enumerate() {
            let boards = if *hash == "cccc" { Vec::new() } else { boards() };
            let place = random.below(events.len() as u64) as usize;
            events.insert(place, loaded(hash, 2_000_000 + at as u64, &boards));
            events.push(loaded(hash, 1_500_000, &[]));
        }
        let transaction = connection.unchecked_transaction().unwrap();
        for event in &events {
            derive(&connection, event).unwrap();
        }
        transaction.commit().unwrap();
        while score_some(&connection, 7).unwrap() {}
        check_all(&records, &rooms);

        // Derived again, in another order: the same.
        random.shuffle(&mut events);
        let transaction = connection.unchecked_transaction().unwrap();
        for event in events.iter().take(300) {
            derive(&connection, event).unwrap();
        }
        transaction.commit().unwrap();
        check_all(&records, &rooms);

        let base = ResultsQuery { limit: 7, ..ResultsQuery::default() };
        let text = |text: &str| Some(text.to_owned());
        let data = |pairs: &[(&str, &str)]| pairs.iter().map(|(f, v)| ((*f).to_owned(), (*v).to_owned())).collect();
        check_results(&records, &rooms, &ResultsQuery { limit: 200, ..base.clone() });
        for name in NAMES {
            check_results(&records, &rooms, &ResultsQuery { player: text(name), ..base.clone() });
        }
        for query in [
            ResultsQuery { module: text("laps"), ..base.clone() },
            ResultsQuery { hash: text("bbbb"), ..base.clone() },
            ResultsQuery { room: text("r-00003"), ..base.clone() },
            ResultsQuery { room: text("r-00003"), player: text("Ada"), ..base.clone() },
            ResultsQuery { outcome: text("won"), ..base.clone() },
            ResultsQuery { from: Some(time(1_010_000)), to: Some(time(1_030_000)), ..base.clone() },
            ResultsQuery { player: text("Ada"), module: text("laps"), outcome: text("lost"), ..base.clone() },
            ResultsQuery { data: data(&[("kart", "gtr")]), ..base.clone() },
            ResultsQuery { data: data(&[("kart", "gtr"), ("laps", "3.00"), ("car", "mx5")]), ..base.clone() },
            ResultsQuery { data: data(&[("lap_s", "true")]), ..base.clone() },
            ResultsQuery { data: data(&[("nothing", "here")]), hash: text("aaaa"), ..base.clone() },
            ResultsQuery { player: text("Nobody"), ..base.clone() },
        ] {
            check_results(&records, &rooms, &query);
        }

        // Half of the rooms go: what was the best there is the best no more.
        let (gone, left): (Vec<Room>, Vec<Room>) = rooms.into_iter().partition(|_| random.one_in(2));
        let transaction = connection.unchecked_transaction().unwrap();
        for room in &gone {
            let entries = forget_scores(&connection, &room.id).unwrap();
            for table in ["players", "results", "rooms"] {
                connection.execute(&format!("DELETE FROM {table} WHERE room = ?1"), [&room.id]).unwrap();
            }
            for entry in &entries {
                crate::manager::scores::find_best(&connection, entry).unwrap();
            }
        }
        transaction.commit().unwrap();
        check_all(&records, &left);
    }
}

#[test]
fn a_leaderboard_that_is_not_there_says_what_is() {
    let directory = tempfile::tempdir().unwrap();
    let (connection, path) = open(directory.path()).unwrap();
    let records = Records::new(path);
    derive(&connection, &loaded("aaaa", 10, &boards())).unwrap();
    derive(&connection, &loaded("bbbb", 20, &boards())).unwrap();
    let ask = |module: &str, board: &str, hash: Option<&str>, group: &[(&str, &str)]| {
        let group = group.iter().map(|(f, v)| ((*f).to_owned(), (*v).to_owned())).collect();
        let hash = hash.map(str::to_owned);
        let query = BoardQuery { module: module.into(), board: board.into(), hash, group, after: None, limit: 9 };
        records.leaderboard(&query).unwrap()
    };
    let group = &[("track", "oval"), ("laps", "3")][..];
    // Nobody is on it, and it is that of the newest module.
    let empty = ask("laps", "lap", None, group).unwrap();
    assert_eq!((empty.hash.as_str(), empty.version.as_str(), empty.page.rows.len()), ("bbbb", "1.bbbb", 0));
    assert_eq!(ask("laps", "lap", Some("aaaa"), group).unwrap().hash, "aaaa");
    assert!(matches!(ask("chess", "lap", None, group).unwrap_err(), BoardError::UnknownModule(_)));
    assert!(matches!(ask("laps", "lap", Some("dddd"), group).unwrap_err(), BoardError::UnknownModule(_)));
    let error = ask("laps", "laps", None, group).unwrap_err().to_string();
    assert!(error.contains("it has: lap, points"), "{error}");
    for group in
        [&[][..], &group[..1], &[("track", "oval"), ("lap", "3")], &[("track", "o"), ("laps", "3"), ("x", "y")]]
    {
        let error = ask("laps", "lap", None, group).unwrap_err().to_string();
        assert!(error.contains("ask for group.track=…&group.laps=…"), "{error}");
    }
    assert!(ask("laps", "points", None, group).unwrap_err().to_string().contains("ask for no group"));
    // Seen again, it is the newest.
    derive(&connection, &loaded("aaaa", 30, &boards())).unwrap();
    assert_eq!(ask("laps", "points", None, &[]).unwrap().hash, "aaaa");
    let (mut boards_listed, mut after) = (Vec::new(), None);
    loop {
        let page = records.leaderboards(None, after.as_ref(), 3).unwrap();
        boards_listed.extend(page.rows);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let listed: Vec<_> = boards_listed.iter().map(|b| (b.hash.as_str(), b.board.as_str(), b.newest)).collect();
    assert_eq!(
        listed,
        [("aaaa", "lap", true), ("aaaa", "points", true), ("bbbb", "lap", false), ("bbbb", "points", false)]
    );
    assert_eq!(records.leaderboards(Some("other"), None, 9).unwrap().rows, []);
}

#[test]
fn leaderboards_out_of_their_ranges_are_refused_and_the_module_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let (connection, path) = open(directory.path()).unwrap();
    let many: Vec<_> = (0..9).map(|n| Leaderboard::lowest(&format!("b{n}"), "s")).collect();
    assert!(derive(&connection, &loaded("aaaa", 10, &many)).is_err());
    let records = Records::new(path);
    assert_eq!((records.modules().unwrap().len(), records.leaderboards(None, None, 9).unwrap().rows.len()), (1, 0));
}

// ---- a file of layout 3 ----

#[test]
fn a_file_of_layout_3_keeps_its_results_and_they_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let old = Connection::open(directory.path().join(FILE)).unwrap();
    for migration in &MIGRATIONS[..3] {
        old.execute_batch(migration).unwrap();
    }
    let data = r#"{"car":"gtr","quarter_mile_s":11.9}"#;
    old.execute_batch(&format!(
        "INSERT INTO modules (hash, name, version, last_loaded_at) VALUES ('aaaa', 'laps', '1', '2026-01-01T00:00:00.000000Z'), ('bbbb', 'laps', '2', NULL);
         INSERT INTO rooms (room, host, module_hash, module_name, opened_at, ended_at, outcome, frames) VALUES
            ('plain', 'pit', 'aaaa', 'laps', '2026-01-01T10:00:00.000000Z', '2026-01-01T10:01:00.000000Z', 'finished', 900),
            ('mixed', 'pit', 'aaaa', 'laps', '2026-01-02T10:00:00.000000Z', '2026-01-02T10:01:00.000000Z', 'finished', 900),
            ('back', 'pit', 'aaaa', 'laps', '2026-01-03T10:00:00.000000Z', '2026-01-03T10:01:00.000000Z', 'finished', 900),
            ('running', 'pit', 'aaaa', 'laps', '2026-01-04T10:00:00.000000Z', NULL, NULL, NULL);
         INSERT INTO swaps (room, frame, outcome, from_hash, to_hash, at) VALUES
            ('mixed', 100, 'kept', 'aaaa', 'bbbb', 't'), ('back', 100, 'rolled_back', 'aaaa', 'bbbb', 't'),
            ('back', NULL, 'refused', 'aaaa', 'bbbb', 't');
         INSERT INTO players (room, player, name, joined_at) VALUES ('plain', 0, 'Ada', '2026-01-01T10:00:01.000000Z'), ('plain', 1, 'Ben', NULL),
            ('mixed', 0, 'Ada', '2026-01-02T10:00:01.000000Z'), ('back', 0, 'Ada', '2026-01-03T10:00:01.000000Z'), ('running', 0, 'Ada', NULL);
         INSERT INTO results (room, player, place, outcome, data) VALUES ('plain', 0, 1, 'won', '{data}'), ('plain', 1, 2, 'lost', NULL),
            ('mixed', 0, 1, 'won', '{data}'), ('back', 0, 1, 'won', '{data}');
         PRAGMA user_version = 3; PRAGMA application_id = 0x484F4C45;"
    ))
    .unwrap();
    drop(old);
    let (connection, path) = open(directory.path()).unwrap();
    let records = Records::new(path);
    let of = |query: ResultsQuery| {
        let rows = all_results(&records, &ResultsQuery { limit: 2, ..query });
        rows.into_iter().map(|row| (row.room, row.player, row.hash.unwrap(), row.mixed)).collect::<Vec<_>>()
    };
    let row = |room: &str, player, hash: &str, mixed| (room.to_owned(), player, hash.to_owned(), mixed);
    let (back, mixed) = (row("back", 0, "aaaa", false), row("mixed", 0, "bbbb", true));
    let plain = [row("plain", 0, "aaaa", false), row("plain", 1, "aaaa", false)];
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(of(ResultsQuery::default()), [back.clone(), mixed.clone(), plain[1].clone(), plain[0].clone()]);
    assert_eq!(of(ResultsQuery { player: text("Ben"), ..ResultsQuery::default() }), [plain[1].clone()]);
    assert_eq!(of(ResultsQuery { hash: text("bbbb"), ..ResultsQuery::default() }), [mixed]);
    let gtr =
        ResultsQuery { data: vec![("car".into(), "gtr".into())], to: text("2026-01-02"), ..ResultsQuery::default() };
    assert_eq!(of(gtr), [plain[0].clone()]);
    let ada = records.player("Ada").unwrap().unwrap();
    assert_eq!((ada.rooms, ada.finished, ada.wins), (4, 3, 3));
    assert_eq!(ada.first_seen_at.as_deref(), Some("2026-01-01T10:00:01.000000Z"));
    assert_eq!(ada.last_seen_at.as_deref(), Some("2026-01-03T10:01:00.000000Z"));
    assert_eq!(records.versus(["Ada", "Ben"], None, 9).unwrap().finished, 1);
    assert_eq!(records.room("plain").unwrap().unwrap().results.len(), 2);
    // And it goes on: its boards become known, and what was recorded counts for them.
    derive(&connection, &loaded("aaaa", 10, &[Leaderboard::lowest("quarter", "quarter_mile_s")])).unwrap();
    while score_some(&connection, 1).unwrap() {}
    let query = BoardQuery { module: "laps".into(), board: "quarter".into(), limit: 9, ..BoardQuery::default() };
    let board = records.leaderboard(&query).unwrap().unwrap();
    let entries: Vec<_> = board.page.rows.iter().map(|row| (row.name.as_str(), row.room.as_str(), row.score)).collect();
    assert_eq!(entries, [("Ada", "plain", 11.9)]);
}

// ---- how long they take ----

/// `cargo test -p holeshot --lib -- --ignored --nocapture a_million_results`; the figures are in CHANGELOG-like places only after a run.
#[test]
#[ignore = "a measurement: minutes, and a gigabyte in the folder for temporary files"]
fn a_million_results_and_how_long_each_question_takes() {
    const ROOMS: u64 = 500_000;
    const PLAYERS: u64 = 2_000;
    let directory = tempfile::tempdir().unwrap();
    let (connection, path) = open(directory.path()).unwrap();
    let boards = [Leaderboard::lowest("elapsed-time", "elapsed_s").group_by(["class", "distance_m"])];
    for (at, hash) in HASHES.iter().take(2).enumerate() {
        derive(&connection, &loaded(hash, at as u64, &boards)).unwrap();
    }
    let mut random = Random(7);
    let begun = std::time::Instant::now();
    let cars = ["mx5", "golf_gti", "gtr", "hellcat", "wrx", "model_3"];
    for batch in 0..ROOMS / 1_000 {
        let transaction = connection.unchecked_transaction().unwrap();
        for number in batch * 1_000..(batch + 1) * 1_000 {
            let id = format!("019a{number:012x}");
            let hash = HASHES[random.below(2) as usize];
            let first = random.below(PLAYERS);
            let second = (first + 1 + random.below(PLAYERS - 1)) % PLAYERS;
            let car = [random.below(6) as usize, random.below(6) as usize];
            let players: Vec<Value> = [first, second]
                .iter()
                .enumerate()
                .map(|(slot, player)| json!({ "player": slot, "name": format!("player-{player}"), "data": { "car": cars[car[slot]] } }))
                .collect();
            let opened = json!({ "module": module_ref(hash), "seed": number, "options": null, "players": players });
            let result = |slot: usize, random: &mut Random| {
                let elapsed_s = 10.0 + random.below(60_000) as f64 / 10_000.0;
                json!({ "player": slot, "place": slot + 1, "outcome": if slot == 0 { "won" } else { "lost" }, "data": {
                    "lane": slot, "car": cars[car[slot]], "class": format!("{}.5", 11 + car[slot] / 2), "distance_m": 402.336,
                    "elapsed_s": elapsed_s, "red_light": false, "holeshot": false, "margin_s": 0.1234, "reaction_s": 0.0712,
                    "sixty_foot_s": 2.1508, "three_thirty_foot_s": 5.8236, "eighth_mile_s": 8.7756, "eighth_mile_mps": 37.1,
                    "eighth_mile_mph": 82.98, "thousand_foot_s": 11.3051, "quarter_mile_s": elapsed_s, "quarter_mile_mph": 105.38,
                } })
            };
            let results = [result(0, &mut random), result(1, &mut random)];
            // A room every 20 s for four months.
            let at_s = 1_760_000_000 + number * 20;
            derive(&connection, &event("room.opened", Some(&id), at_s, opened)).unwrap();
            let finished = json!({ "frames": 900, "results": results });
            derive(&connection, &event("room.finished", Some(&id), at_s + 30, finished)).unwrap();
        }
        transaction.commit().unwrap();
    }
    let made = begun.elapsed();
    let bytes = std::fs::metadata(&path).unwrap().len();
    println!(
        "{} results of {PLAYERS} players in {made:?} ({:.0} rooms/s, opened and finished), {} MB",
        2 * ROOMS,
        ROOMS as f64 / made.as_secs_f64(),
        bytes / 1_000_000
    );
    let records = Records::new(path);
    let timed = |what: &str, question: &dyn Fn() -> usize| {
        let mut times: Vec<Duration> = Vec::new();
        let mut rows = 0;
        for _ in 0..11 {
            let begun = std::time::Instant::now();
            rows = question();
            times.push(begun.elapsed());
        }
        let first = times[0];
        times.sort();
        println!("{what:60} median {:>9.2?}  first {first:>9.2?}  ({rows} rows)", times[5]);
    };
    let base = ResultsQuery { limit: 50, ..ResultsQuery::default() };
    let text = |text: &str| Some(text.to_owned());
    let of = &records;
    let results = |query: ResultsQuery| move || of.results(&query).unwrap().rows.len();
    timed("results, newest", &results(base.clone()));
    timed("results of a player", &results(ResultsQuery { player: text("player-77"), ..base.clone() }));
    timed("results of a module", &results(ResultsQuery { module: text("laps"), ..base.clone() }));
    timed(
        "results of a day",
        &results(ResultsQuery { from: text("2025-12-01"), to: text("2025-12-02"), ..base.clone() }),
    );
    timed("results of a room", &results(ResultsQuery { room: text(&format!("019a{:012x}", 4_711)), ..base.clone() }));
    timed(
        "results with data.car, one in six",
        &results(ResultsQuery { data: vec![("car".into(), "gtr".into())], ..base.clone() }),
    );
    let rare = ResultsQuery { data: vec![("car".into(), "none".into())], ..base.clone() };
    timed(&format!("results with data.car that nobody has ({SCAN_ROWS_MAX} rows walked)"), &results(rare));
    let number = ResultsQuery { data: vec![("elapsed_s".into(), "9.5".into())], ..base.clone() };
    timed(&format!("results with a number that nobody has ({SCAN_ROWS_MAX} walked)"), &results(number));
    let deep = {
        let mut query = ResultsQuery { limit: 200, ..base.clone() };
        for _ in 0..500 {
            query.after = records.results(&query).unwrap().next;
        }
        query
    };
    timed("results, the 501st page of 200", &results(deep));
    timed("a player", &|| usize::from(records.player("player-77").unwrap().is_some()));
    timed("bests of a player", &|| records.bests("player-77", None, 50).unwrap().rows.len());
    timed("versus", &|| records.versus(["player-77", "player-78"], None, 50).unwrap().finished as usize);
    timed("list of leaderboards", &|| records.leaderboards(None, None, 50).unwrap().rows.len());
    let group = vec![("class".to_owned(), "12.5".to_owned()), ("distance_m".to_owned(), "402.336".to_owned())];
    let board =
        BoardQuery { module: "laps".into(), board: "elapsed-time".into(), hash: None, group, after: None, limit: 50 };
    timed("leaderboard, first page", &|| records.leaderboard(&board).unwrap().unwrap().page.rows.len());
    let mut last = BoardQuery { limit: 200, ..board };
    while let Some(next) = records.leaderboard(&last).unwrap().unwrap().page.next {
        last.after = Some(next);
    }
    timed("leaderboard, last page", &|| records.leaderboard(&last).unwrap().unwrap().page.rows.len());
}
