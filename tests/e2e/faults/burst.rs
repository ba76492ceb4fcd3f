//! Many short games at once, with players who write down what they see; and the count: what these players saw end, against the rows that
//! the manager has.
//!
//! What happened is known from outside. The rules tell numbered events in every tick; how many there were is the player's result, in the
//! public event `finished`. A room that said `bye` with `room_finished` promised that all of it is on the host's disk, so every event of it
//! must come to the records, whatever was killed before or after: exactly once, in order. Of a room that was cut off, what is recorded must be
//! the beginning of the same story, without a hole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use holeshot_wire::{ByeCode, ClientMessage, HostMessage, PROTOCOL_VERSION};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Grant, JOURNAL_CLOSED, SOON, client, open_records};
use crate::modules_made::Tally;

/// Name of the module.
pub(crate) const NUMBERED: &str = "tally-numbered";
/// Frames of one game: 0.6 s.
const FRAMES: u32 = 30;
/// How long a player waits for anything before it gives a room up as cut off: longer than any fault lasts that leaves the host alive.
const PATIENCE: Duration = Duration::from_secs(30);

/// The rules: short, without input, with so many events per tick.
pub(crate) fn rules(per_tick: u32) -> Vec<u8> {
    Tally::new(NUMBERED, FRAMES).with_numbered(per_tick).wasm()
}

/// What a player saw of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The end, by `bye`, after so many numbered events.
    Whole(u64),
    /// The game's results, but no `bye`.
    Finished(u64),
    /// No end.
    Cut,
}

/// Rooms by their ids.
pub(crate) type Rooms = BTreeMap<String, Seen>;

/// Players who open rooms, play them and open others, until they are told to stop.
pub(crate) struct Burst {
    url: watch::Sender<Option<String>>,
    stop: Arc<AtomicBool>,
    rooms: Arc<Mutex<Rooms>>,
    /// Numbered events of the rooms that ended so far.
    told: Arc<AtomicU64>,
    players: Vec<JoinHandle<()>>,
}

impl Burst {
    /// So many players at once, on the host with this URL. They wait with new games while its outbox has more than `waiting_max` events.
    pub(crate) fn start(players: usize, url: &str, outbox: &Path, waiting_max: i64) -> Self {
        let url = watch::Sender::new(Some(url.to_owned()));
        let (stop, rooms, told): (Arc<AtomicBool>, Arc<Mutex<Rooms>>, Arc<AtomicU64>) = Default::default();
        let pause = Arc::new(AtomicBool::new(false));
        tokio::spawn(watch_outbox(outbox.to_owned(), waiting_max, Arc::clone(&pause), Arc::clone(&stop)));
        let players = (0..players)
            .map(|number| {
                let (url, stop, rooms, told) =
                    (url.subscribe(), Arc::clone(&stop), Arc::clone(&rooms), Arc::clone(&told));
                let pause = Arc::clone(&pause);
                tokio::spawn(async move {
                    // Not all games end at the same moment.
                    sleep(Duration::from_millis(90) * number as u32).await;
                    lane(url, &pause, &stop, &rooms, &told).await;
                })
            })
            .collect();
        Self { url, stop, rooms, told, players }
    }

    /// The host is gone, or is elsewhere from now on.
    pub(crate) fn host(&self, url: Option<String>) {
        self.url.send_replace(url);
    }

    /// Waits until rooms with so many more events have ended.
    pub(crate) async fn goes_on(&self, events: u64) {
        let goal = self.told.load(Ordering::Relaxed) + events;
        let waited = timeout(3 * SOON, async {
            while self.told.load(Ordering::Relaxed) < goal {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert!(waited.is_ok(), "the games do not go on: {:?}", self.rooms());
    }

    /// What was seen so far.
    pub(crate) fn rooms(&self) -> Rooms {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets every player end its room and go. Gives what they saw.
    pub(crate) async fn stop(self) -> Rooms {
        self.stop.store(true, Ordering::Relaxed);
        for player in self.players {
            timeout(PATIENCE * 2, player).await.expect("the players go").unwrap();
        }
        let rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.clone()
    }
}

async fn lane(
    mut url: watch::Receiver<Option<String>>,
    pause: &AtomicBool,
    stop: &AtomicBool,
    rooms: &Mutex<Rooms>,
    told: &AtomicU64,
) {
    let http = client();
    while !stop.load(Ordering::Relaxed) {
        let now = url.borrow_and_update().clone();
        let Some(now) = now.filter(|_| !pause.load(Ordering::Relaxed)) else {
            let _looked_again = timeout(Duration::from_millis(50), url.changed()).await;
            continue;
        };
        let Some(grant) = open(&http, &now).await else {
            // The host has just been killed.
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let room = grant.room.clone();
        let note = |seen| {
            rooms.lock().unwrap_or_else(PoisonError::into_inner).insert(room.clone(), seen);
        };
        note(Seen::Cut);
        let seen = play(&grant).await;
        note(seen);
        if let Seen::Whole(events) = seen {
            told.fetch_add(events, Ordering::Relaxed);
        }
    }
}

async fn watch_outbox(path: PathBuf, waiting_max: i64, pause: Arc<AtomicBool>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let rows = outbox_rows(&path);
        pause.store(rows.is_ok_and(|rows| rows > waiting_max), Ordering::Relaxed);
        sleep(Duration::from_millis(100)).await;
    }
}

async fn open(http: &reqwest::Client, url: &str) -> Option<Grant> {
    let request = json!({ "module": NUMBERED, "players": [{ "name": "Ada" }] });
    let created: Value = ask(http.post(format!("{url}/api/rooms")).json(&request)).await?;
    let room = created["room"].as_str()?;
    let join = http.post(format!("{url}/api/rooms/{room}/join")).json(&json!({ "player": "Ada" }));
    serde_json::from_value(ask(join).await?).ok()
}

async fn ask(request: reqwest::RequestBuilder) -> Option<Value> {
    let answer = request.send().await.ok()?;
    if answer.status().is_success() { answer.json().await.ok() } else { None }
}

/// Plays one room. The host may die at any moment.
async fn play(grant: &Grant) -> Seen {
    let mut seen = Seen::Cut;
    let address = grant.ws_url.strip_prefix("ws://").and_then(|rest| rest.strip_suffix("/ws")).unwrap();
    let Ok(tcp) = TcpStream::connect(address).await else { return seen };
    let Ok((mut ws, _)) = tokio_tungstenite::client_async(&grant.ws_url, tcp).await else { return seen };
    let (protocol, ticket) = (PROTOCOL_VERSION, grant.ticket.clone());
    let hello = ClientMessage::Hello { protocol, ticket, noise: None, after: Some(0), deltas: false };
    for message in [hello, ClientMessage::Ready] {
        if ws.send(Message::text(message.encode().unwrap())).await.is_err() {
            return seen;
        }
    }
    while let Ok(Some(Ok(message))) = timeout(PATIENCE, ws.next()).await {
        let Message::Text(text) = message else { continue };
        match HostMessage::decode(&text).unwrap_or_else(|error| panic!("{error}: {text}")) {
            HostMessage::Event { name, data, .. } if name == "finished" => {
                seen =
                    Seen::Finished(data["results"][0]["data"].as_u64().unwrap_or_else(|| panic!("no result: {data}")));
            }
            HostMessage::Bye { code, reason } => {
                return match (code, seen) {
                    (ByeCode::RoomFinished, Seen::Finished(events)) => Seen::Whole(events),
                    // What the host says when it could not keep its promise.
                    (ByeCode::Internal, seen) => seen,
                    _ => panic!("{code:?}: {reason}, after {seen:?}"),
                };
            }
            _ => {}
        }
    }
    seen
}

/// What the records have, against what was seen.
#[derive(Debug, Default)]
pub(crate) struct Count {
    /// Rooms that were seen to end.
    pub(crate) whole: u64,
    /// Rooms that were cut off.
    pub(crate) cut: u64,
    /// Their rooms' events, as seen from outside.
    pub(crate) sent: u64,
    /// Those of them that are recorded.
    pub(crate) recorded: u64,
    /// Those of them that are not.
    pub(crate) lost: u64,
    /// Those of them that are recorded more than once, and rows of others that are.
    pub(crate) doubled: u64,
    /// Events of rooms that were cut off.
    pub(crate) of_cut: u64,
    /// What is wrong, in words.
    pub(crate) wrong: Vec<String>,
}

/// Counts with SQL of its own. `rooms` may be a part of those in the records.
pub(crate) fn count(records: &Path, rooms: &Rooms) -> rusqlite::Result<Count> {
    let connection = open_records(records);
    let mut count = Count::default();
    for (room, seen) in rooms {
        let told = story(&connection, room)?;
        let journals = told.iter().filter(|kind| *kind == JOURNAL_CLOSED).count();
        let told: Vec<&str> = told.iter().map(String::as_str).filter(|kind| *kind != JOURNAL_CLOSED).collect();
        let expected = expectation(match seen {
            Seen::Whole(events) | Seen::Finished(events) => Some(*events),
            Seen::Cut => None,
        });
        if let Seen::Whole(_) = seen {
            count.whole += 1;
            count.sent += expected.len() as u64;
            count.recorded += told.len() as u64;
            let (lost, doubled) = difference(&expected, &told);
            // Its place on the disk was told at least once: it is told again if the host died before that was on the disk.
            let lost = lost + u64::from(journals == 0);
            count.lost += lost;
            count.doubled += doubled;
            if told != expected || journals == 0 {
                count.wrong.push(format!(
                    "room {room}: {} of {} events, {journals} journals: {}",
                    told.len(),
                    expected.len(),
                    shown(&told)
                ));
            }
        } else {
            count.cut += 1;
            count.of_cut += told.len() as u64;
            let is_beginning = match seen {
                Seen::Cut => begins_a_story(&told),
                _ => expected.starts_with(&told.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>()),
            };
            if !is_beginning {
                count.wrong.push(format!("room {room}, which was cut off: {}", shown(&told)));
            }
        }
    }
    count.wrong.extend(holes(&connection)?);
    let twice = "SELECT COUNT(*) FROM (SELECT 1 FROM events GROUP BY json_extract(json, '$.id') HAVING COUNT(*) > 1)";
    let twice: i64 = connection.query_row(twice, [], |row| row.get(0))?;
    count.doubled += u64::try_from(twice).unwrap();
    Ok(count)
}

/// Kinds of a room's events in the order of their hosts' sequences; a numbered one with its number.
fn story(connection: &Connection, room: &str) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT kind, json_extract(json, '$.data.data') FROM events WHERE room = ?1 ORDER BY id";
    let mut select = connection.prepare_cached(sql)?;
    let rows = select.query_map([room], |row| {
        let kind: String = row.get(0)?;
        if kind == "rules.numbered" { Ok(format!("{}", row.get::<_, i64>(1)?)) } else { Ok(kind) }
    });
    rows?.collect()
}

const BEFORE: [&str; 3] = ["room.opened", "player.joined", "room.started"];
const AFTER: [&str; 2] = ["room.finished", "room.closed"];

fn expectation(numbered: Option<u64>) -> Vec<String> {
    let numbers = (0..numbered.unwrap_or(0)).map(|number| number.to_string());
    BEFORE
        .iter()
        .map(|kind| (*kind).to_owned())
        .chain(numbers)
        .chain(AFTER.iter().map(|kind| (*kind).to_owned()))
        .collect()
}

/// Whether these are the first events of a room, of whose end nothing is known.
fn begins_a_story(told: &[&str]) -> bool {
    let numbered = told.iter().filter(|kind| kind.parse::<u64>().is_ok()).count() as u64;
    expectation(Some(numbered)).iter().zip(told).all(|(expected, kind)| expected == kind)
}

/// How many events are missing, and how many are there once too often.
fn difference(expected: &[String], told: &[&str]) -> (u64, u64) {
    let mut times: BTreeMap<&str, i64> = BTreeMap::new();
    for kind in expected {
        *times.entry(kind).or_default() += 1;
    }
    for kind in told {
        *times.entry(kind).or_default() -= 1;
    }
    let sum = |of: &dyn Fn(i64) -> i64| u64::try_from(times.values().map(|left| of(*left)).sum::<i64>()).unwrap();
    (sum(&|left| left.max(0)), sum(&|left| (-left).max(0)))
}

fn shown(told: &[&str]) -> String {
    let ends = told.len().saturating_sub(3);
    format!("{:?} … {:?}", &told[..told.len().min(5)], &told[ends..])
}

/// Sequences of an origin that are missing, and messages that the manager could not use.
fn holes(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut wrong = Vec::new();
    let sql = "SELECT o.origin, COUNT(*), MIN(e.sequence), MAX(e.sequence), COUNT(DISTINCT e.sequence)
        FROM events AS e JOIN origins AS o ON o.id = e.origin GROUP BY o.id";
    let mut select = connection.prepare(sql)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let origin: String = row.get(0)?;
        let [events, first, last, different]: [i64; 4] = [1, 2, 3, 4].map(|column| row.get(column).unwrap());
        if (first, last, different) != (1, events, events) {
            wrong.push(format!("origin {origin} has {events} events, {different} different, from {first} to {last}"));
        }
    }
    let out_of_order = "SELECT COUNT(*) FROM (SELECT sequence - LAG(sequence) OVER (PARTITION BY origin ORDER BY id) AS step FROM events) WHERE step <> 1";
    let out_of_order: i64 = connection.query_row(out_of_order, [], |row| row.get(0))?;
    if out_of_order > 0 {
        wrong.push(format!("{out_of_order} events are out of their order"));
    }
    let rejected: i64 = connection.query_row("SELECT COUNT(*) FROM rejected", [], |row| row.get(0))?;
    if rejected > 0 {
        wrong.push(format!("the manager rejected {rejected} messages"));
    }
    Ok(wrong)
}

/// Events in a host's outbox.
pub(crate) fn outbox_rows(outbox: &Path) -> Result<i64, String> {
    let connection = rusqlite::Connection::open_with_flags(outbox, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY);
    let count = connection.and_then(|connection| {
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.query_row("SELECT COUNT(*) FROM outbox", [], |row| row.get(0))
    });
    count.map_err(|error| error.to_string())
}
