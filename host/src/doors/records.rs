//! The HTTP interface of the records alone: what the manager recorded, whatever host ran it. A host serves these routes beside its own; the process
//! `holeshot manager` serves nothing else. What the answers mean is the business of [`crate::manager`].

mod feed;
mod question;
mod table;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, watch};

use super::http::ApiError;
use crate::events::cloudevent::rfc3339;
use crate::manager::records::boards::{BoardError, BoardQuery};
use crate::manager::records::results::{DATA_FIELDS_MAX, ResultsQuery};
use crate::manager::records::{PAGE_MAX, Records, RecordsError, RoomState, RoomsPage};
use feed::Streams;
use question::{Question, VALUE_BYTES_MAX, bad, check_length, cursor_text};
use table::{Answer, Form};

pub use feed::StreamFigures;

/// Streams of events at a time unless the setting says otherwise: a tenth of the connections that a host takes.
pub const STREAMS_MAX_DEFAULT: u32 = 100;
/// Questions that are answered at a time, over all clients; others wait their turn, for as long as a request may take. The longest look at tens of
/// thousands of rows: some 100 ms of a core, on which shards may run, and as many of them as there are clients would leave the shards little.
const QUESTIONS_AT_ONCE_MAX: usize = 4;

/// What these routes need.
#[derive(Debug)]
pub struct RecordsDoor {
    /// None on a host whose records another process keeps.
    records: Option<Records>,
    streams: Streams,
    questions: Arc<Semaphore>,
}

impl RecordsDoor {
    /// A door to these records, with so many streams of events at a time; without records, to the answer that they are elsewhere.
    #[must_use]
    pub fn new(records: Option<Records>, streams_max: u32) -> Arc<Self> {
        let questions = Arc::new(Semaphore::new(QUESTIONS_AT_ONCE_MAX));
        Arc::new(Self { records, streams: Streams::new(streams_max), questions })
    }

    /// Ends every stream of events: their answers would never be complete otherwise.
    pub fn close(&self) {
        self.streams.close();
    }

    /// How the streams of events do.
    #[must_use]
    pub fn stream_figures(&self) -> StreamFigures {
        self.streams.figures()
    }

    /// What the recorder says of its commits.
    fn commits(&self) -> Result<watch::Receiver<i64>, ApiError> {
        Ok(self.records.as_ref().ok_or_else(elsewhere)?.commits())
    }

    /// Whether this process keeps the records.
    #[must_use]
    pub fn are_here(&self) -> bool {
        self.records.is_some()
    }

    /// Puts a question to the records on a thread that may wait for the disk.
    ///
    /// # Errors
    /// The records cannot be read, or another process keeps them: 503.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Records) -> Result<T, RecordsError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let records = self.records.clone().ok_or_else(elsewhere)?;
        // Never closed, so there is a permit in the end. The thread gives it back: a client that is gone does not end a question.
        let place = Arc::clone(&self.questions).acquire_owned().await.ok();
        let answer = move || {
            let answer = question(&records);
            drop(place);
            answer
        };
        let answer = tokio::task::spawn_blocking(answer)
            .await
            .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()))?;
        Ok(answer?)
    }
}

/// The answer of a host with `manager = no`.
pub(super) fn elsewhere() -> ApiError {
    let message =
        "this host keeps no records (`manager` is no); ask the process that runs `holeshot manager` on the same broker";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "records_elsewhere", message)
}

/// The routes that a host and a manager on its own have in common. They have no fallback, so that they can be merged into any router.
pub fn routes<S: Clone + Send + Sync + 'static>(door: Arc<RecordsDoor>) -> Router<S> {
    Router::new()
        .route("/api/hosts", get(list_hosts))
        .route("/api/events", get(list_events))
        .route("/api/events/stream", get(feed::stream))
        .route("/api/results", get(results))
        .route("/api/players/{player}", get(player))
        .route("/api/players/{player}/bests", get(bests))
        .route("/api/versus", get(versus))
        .route("/api/leaderboards", get(leaderboards))
        .route("/api/leaderboards/{module}/{board}", get(leaderboard))
        .with_state(door)
}

/// The routes about rooms for a process without any: what a host answers there, with the records' half of it only.
pub fn recorded_rooms<S: Clone + Send + Sync + 'static>(door: Arc<RecordsDoor>) -> Router<S> {
    Router::new().route("/api/rooms", get(list_rooms)).route("/api/rooms/{room}", get(one_room)).with_state(door)
}

type Shared = State<Arc<RecordsDoor>>;

/// Rows of a page, unless the request asks for fewer.
const PAGE_ROWS_DEFAULT: usize = 50;
/// Most rows of a page: an answer stays below a megabyte or so.
pub const PAGE_ROWS_MAX: usize = PAGE_MAX;

/// The rows that a request asks for.
///
/// # Errors
/// 400, with what is accepted.
pub(super) fn limit_in_range(limit: Option<usize>) -> Result<usize, ApiError> {
    match limit {
        None => Ok(PAGE_ROWS_DEFAULT),
        Some(limit) if (1..=PAGE_ROWS_MAX).contains(&limit) => Ok(limit),
        Some(limit) => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "bad_request",
            format!("`limit` is {limit}; accepted: 1 to {PAGE_ROWS_MAX}"),
        )),
    }
}

/// The parameters of a list of rooms.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoomsQuery {
    pub(super) after: Option<String>,
    pub(super) limit: Option<usize>,
    pub(super) state: Option<RoomState>,
}

async fn list_rooms(
    State(door): Shared,
    query: Result<Query<RoomsQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(RoomsQuery { after, limit, state }) = query?;
    let page = RoomsPage { after, limit: Some(limit_in_range(limit)?), state };
    let recorded = door.ask(move |records| records.rooms(&page)).await?;
    Ok(Json(json!({ "open": [], "recorded": recorded })))
}

async fn one_room(State(door): Shared, room: Result<Path<String>, PathRejection>) -> Result<Json<Value>, ApiError> {
    let Path(room) = room?;
    let id = room.clone();
    let Some(recorded) = door.ask(move |records| records.room(&id)).await? else {
        let message = format!("there is no recorded room {room:?}; GET /api/rooms lists them");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_room", message));
    };
    Ok(Json(json!({ "open": null, "recorded": recorded, "journal": null })))
}

async fn list_hosts(State(door): Shared) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "hosts": door.ask(Records::hosts).await? })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    after: Option<i64>,
    limit: Option<usize>,
}

async fn list_events(
    State(door): Shared,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(EventsQuery { after, limit }) = query?;
    let limit = limit_in_range(limit)?;
    let events = door.ask(move |records| records.events(after.unwrap_or(0), limit)).await?;
    Ok(Json(json!({ "events": events })))
}

// ---- results, players, leaderboards ----

async fn results(State(door): Shared, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let mut question = Question::read(&uri)?;
    let form = Form::asked(&mut question, &headers)?;
    let (from, to) = times(&mut question)?;
    let query = ResultsQuery {
        player: question.take("player")?,
        module: question.take("module")?,
        hash: question.take("hash")?,
        room: question.take("room")?,
        from,
        to,
        outcome: question.take("outcome")?,
        data: question.take_fields("data.", "data.<field>", DATA_FIELDS_MAX)?,
        after: question.take_after()?,
        limit: question.take_limit()?,
    };
    let asked = question.finish()?;
    let page = door.ask(move |records| records.results(&query)).await?;
    Answer::list("results", page.rows, page.next.as_ref()).write(form, &asked)
}

/// The time from and the time before which rooms ended: `from` and `to`, or `day`, which is one day in UTC.
fn times(question: &mut Question) -> Result<(Option<String>, Option<String>), ApiError> {
    let (day, from, to) = (question.take("day")?, question.take("from")?, question.take("to")?);
    let Some(day) = day else {
        let time = |name, text: Option<String>| text.map(|text| read_time(name, &text).map(rfc3339)).transpose();
        return Ok((time("from", from)?, time("to", to)?));
    };
    if from.is_some() || to.is_some() {
        return Err(bad(
            "`day` is a `from` and a `to` of its own; accepted: either `day`, or `from` and `to`".to_owned()
        ));
    }
    let start = if day.len() == DAY_BYTES { read_time("day", &day)? } else { return Err(not_a_time("day", &day)) };
    // The last day that can be written has no end that can be.
    let end = start.checked_add(Duration::from_secs(24 * 3_600)).filter(|_| day != "9999-12-31");
    Ok((Some(rfc3339(start)), end.map(rfc3339)))
}

/// Length of `2026-11-21`.
const DAY_BYTES: usize = 10;

/// A time: `2026-11-21T18:00:00Z` with or without decimals, or a day, which is its beginning.
fn read_time(name: &str, text: &str) -> Result<SystemTime, ApiError> {
    let whole = if text.len() == DAY_BYTES { format!("{text}T00:00:00Z") } else { text.to_owned() };
    humantime::parse_rfc3339(&whole).map_err(|_| not_a_time(name, text))
}

fn not_a_time(name: &str, text: &str) -> ApiError {
    let accepted = if name == "day" { "`2026-11-21`" } else { "`2026-11-21` or `2026-11-21T18:00:00Z`, in UTC" };
    bad(format!("`{name}` is {text:?}; accepted: {accepted}"))
}

/// A name out of the path.
fn named<T>(path: Result<Path<T>, PathRejection>, texts: impl Fn(&T) -> Vec<&str>) -> Result<T, ApiError> {
    let Path(names) = path?;
    for text in texts(&names) {
        check_length("a name in the path", text, VALUE_BYTES_MAX)?;
    }
    Ok(names)
}

fn unknown_player(name: &str) -> ApiError {
    let message = format!("no room on record had a player {name:?}; names are compared letter by letter");
    ApiError::new(StatusCode::NOT_FOUND, "unknown_player", message)
}

async fn player(
    State(door): Shared,
    name: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let name = named(name, |name| vec![name])?;
    let mut question = Question::read(&uri)?;
    let form = Form::asked(&mut question, &headers)?;
    let asked = question.finish()?;
    let of = name.clone();
    let summary = door.ask(move |records| records.player(&of)).await?.ok_or_else(|| unknown_player(&name))?;
    match form {
        Form::Json => Ok(axum::response::IntoResponse::into_response(Json(summary))),
        Form::Csv => Answer::list("players", vec![summary], None::<&()>).write(form, &asked),
    }
}

async fn bests(
    State(door): Shared,
    name: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let name = named(name, |name| vec![name])?;
    let mut question = Question::read(&uri)?;
    let form = Form::asked(&mut question, &headers)?;
    let (after, limit) = (question.take_after()?, question.take_limit()?);
    let asked = question.finish()?;
    let of = name.clone();
    let page = door.ask(move |records| records.bests(&of, after.as_ref(), limit)).await?;
    if page.rows.is_empty() {
        // A player without a score and a name that nobody has are two things.
        let of = name.clone();
        door.ask(move |records| records.player(&of)).await?.ok_or_else(|| unknown_player(&name))?;
    }
    let mut answer = Answer::list("bests", page.rows, page.next.as_ref());
    answer.about.insert("name".to_owned(), name.into());
    answer.write(form, &asked)
}

async fn versus(State(door): Shared, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let mut question = Question::read(&uri)?;
    let form = Form::asked(&mut question, &headers)?;
    let players = <[String; 2]>::try_from(question.take_all("player"));
    let (after, limit) = (question.take_after()?, question.take_limit()?);
    let asked = question.finish()?;
    let Some(players) = players.ok().filter(|[first, second]| first != second) else {
        return Err(bad("`player` has to be there twice, with the names of two players".to_owned()));
    };
    let versus = door
        .ask(move |records| {
            let [first, second] = &players;
            for name in [first, second] {
                if records.player(name)?.is_none() {
                    return Ok(Err(unknown_player(name)));
                }
            }
            records.versus([first, second], after.as_ref(), limit).map(Ok)
        })
        .await??;
    let mut answer = Answer::list("rooms", versus.page.rows, versus.page.next.as_ref());
    answer.about = Map::from_iter([
        ("players".to_owned(), json!(versus.players)),
        ("finished".to_owned(), json!(versus.finished)),
        ("undecided".to_owned(), json!(versus.undecided)),
        ("complete".to_owned(), json!(versus.complete)),
    ]);
    answer.write(form, &asked)
}

async fn leaderboards(State(door): Shared, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let mut question = Question::read(&uri)?;
    let form = Form::asked(&mut question, &headers)?;
    let module = question.take("module")?;
    let (after, limit) = (question.take_after()?, question.take_limit()?);
    let asked = question.finish()?;
    let page = door.ask(move |records| records.leaderboards(module.as_deref(), after.as_ref(), limit)).await?;
    Answer::list("leaderboards", page.rows, page.next.as_ref()).write(form, &asked)
}

async fn leaderboard(
    State(door): Shared,
    names: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (module, board) = named(names, |(module, board)| vec![module, board])?;
    let mut question = Question::read(&uri)?;
    let form = Form::asked(&mut question, &headers)?;
    let query = BoardQuery {
        module,
        board,
        hash: question.take("hash")?,
        group: question.take_fields("group.", "group.<field>", holeshot_abi::LEADERBOARD_GROUP_FIELDS_MAX)?,
        after: question.take_after()?,
        limit: question.take_limit()?,
    };
    let asked = question.finish()?;
    let found = door.ask(move |records| records.leaderboard(&query)).await?;
    let found = found.map_err(|error| {
        let (status, code) = match error {
            BoardError::UnknownModule(_) => (StatusCode::NOT_FOUND, "unknown_module"),
            BoardError::UnknownBoard { .. } => (StatusCode::NOT_FOUND, "unknown_leaderboard"),
            BoardError::Group { .. } => (StatusCode::BAD_REQUEST, "bad_request"),
        };
        ApiError::new(status, code, error.to_string())
    })?;
    let about = Map::from_iter([
        ("module".to_owned(), json!(found.module)),
        ("version".to_owned(), json!(found.version)),
        ("hash".to_owned(), json!(found.hash)),
        ("board".to_owned(), json!(found.board.name)),
        ("score".to_owned(), json!(found.board.score)),
        ("best".to_owned(), json!(found.board.best)),
        ("group_by".to_owned(), json!(found.board.group_by)),
        ("group".to_owned(), found.group),
    ]);
    let next = found.page.next.as_ref().map(cursor_text);
    Answer { about, list: "entries", rows: found.page.rows, next }.write(form, &asked)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::manager::records;

    #[tokio::test]
    async fn a_few_questions_are_answered_at_a_time_and_all_in_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let (_connection, path) = records::open(directory.path()).unwrap();
        let door = RecordsDoor::new(Some(Records::new(path)), 1);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        let asked: Vec<_> = (0..5 * QUESTIONS_AT_ONCE_MAX)
            .map(|number| {
                let (door, now, most, gate) = (Arc::clone(&door), now.clone(), most.clone(), gate.clone());
                let question = move |_: &Records| {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    gate.lock().unwrap().recv().unwrap();
                    now.fetch_sub(1, Ordering::SeqCst);
                    Ok(number)
                };
                tokio::spawn(async move { door.ask(question).await })
            })
            .collect();
        // As many as may be are under way, and wait for each other's word.
        tokio::time::timeout(Duration::from_secs(30), async {
            while now.load(Ordering::SeqCst) < QUESTIONS_AT_ONCE_MAX {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        // Whose client goes away: a question that is under way goes on and keeps its place, the others are not asked.
        asked.iter().step_by(5).for_each(tokio::task::JoinHandle::abort);
        for _ in &asked {
            release.send(()).unwrap();
        }
        let mut answered = 0;
        for asked in asked {
            answered += usize::from(asked.await.is_ok_and(|answer| answer.is_ok()));
        }
        assert_eq!(answered, 4 * QUESTIONS_AT_ONCE_MAX);
        assert_eq!(most.load(Ordering::SeqCst), QUESTIONS_AT_ONCE_MAX);
    }
}
