//! `GET /api/events/stream`: events as they are recorded, as Server-Sent Events (HTML Living Standard, section 9.2).
//!
//! A stream reads from its own place in the records, so it holds no queue that could grow: the recorder says that something was committed, and the
//! stream reads what is new, a chunk at a time, when its client has taken the one before. Whoever is slow reads later. Whoever leaves a chunk for
//! [`SLOW_MAX`] is dropped, and comes back with the id of its last event.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::super::gate::{Client, Gate, Place};
use super::super::http::ApiError;
use super::super::listen::LongLived;
use super::question::{Question, bad};
use super::{RecordsDoor, Shared};
use crate::manager::records::events::{FeedPage, FeedQuery};

/// A comment is sent after this long without an event, so that both ends and every proxy know that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a client may leave a chunk untaken. Half a minute without any reading at all, and the connection is cut in any case.
const SLOW_MAX: Duration = Duration::from_secs(20);
/// What one stream holds in memory at most, beside the connection's own buffers, in bytes: a chunk ends with the event that reaches it.
const CHUNK_BYTES_MAX: usize = 128 << 10;
/// Least time between two looks of one stream at the records: a recorder under load commits more often than anybody can read.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What a browser is told to wait before it comes back, in milliseconds.
const RETRY_MS: u32 = 2_000;

/// What all streams of a door have in common.
#[derive(Debug)]
pub(super) struct Streams {
    places: Arc<Semaphore>,
    max: u32,
    slow_max: Duration,
    counters: Arc<Counters>,
    closing: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Counters {
    opened: AtomicU64,
    refused: AtomicU64,
    slow: AtomicU64,
}

/// How the streams do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamFigures {
    /// Streams open now.
    pub open: u64,
    /// Streams that may be open: the setting `streams_max`.
    pub max: u64,
    /// Streams opened since the start.
    pub opened: u64,
    /// Streams refused because as many were open as may be.
    pub refused: u64,
    /// Streams ended because their client did not read.
    pub slow: u64,
}

impl Streams {
    pub(super) fn new(max: u32) -> Self {
        Self {
            places: Arc::new(Semaphore::new(max as usize)),
            max,
            slow_max: SLOW_MAX,
            counters: Arc::default(),
            closing: watch::Sender::new(false),
        }
    }

    pub(super) fn close(&self) {
        self.closing.send_replace(true);
    }

    pub(super) fn figures(&self) -> StreamFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StreamFigures {
            open: u64::from(self.max).saturating_sub(self.places.available_permits() as u64),
            max: self.max.into(),
            opened: read(&self.counters.opened),
            refused: read(&self.counters.refused),
            slow: read(&self.counters.slow),
        }
    }
}

pub(super) async fn stream(
    State(door): Shared,
    asks: Option<Extension<Client>>,
    gate: Option<Extension<Arc<Gate>>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut question = Question::read(&uri)?;
    let query = FeedQuery { room: question.take("room")?, kind: question.take("kind")? };
    let number = |name: &str, text: &str| {
        text.trim().parse::<i64>().ok().filter(|id| *id >= 0).ok_or_else(|| {
            bad(format!("`{name}` is {text:?}; accepted: the id of an event, or 0 for all that are recorded"))
        })
    };
    let after = question.take("after")?.map(|after| number("after", &after)).transpose()?;
    question.finish()?;
    // A browser that comes back says it in the header, and still has the address that it had.
    let last = headers.get("last-event-id").map(|last| number("Last-Event-ID", last.to_str().unwrap_or("not a text")));
    let after = last.transpose()?.or(after);
    let commits = door.commits()?;
    let newest = *commits.borrow();
    let streams = &door.streams;
    let of_address = match (&gate, &asks) {
        (Some(gate), Some(client)) => match gate.stream(client) {
            Ok(place) => Some(place),
            Err(refusal) => return Ok(refusal.into_response()),
        },
        _ => None,
    };
    let Ok(place) = Arc::clone(&streams.places).try_acquire_owned() else {
        streams.counters.refused.fetch_add(1, Ordering::Relaxed);
        let message = format!("there are {} streams already, as many as `streams_max` allows; try later", streams.max);
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "full", message));
    };
    streams.counters.opened.fetch_add(1, Ordering::Relaxed);
    let feed = Feed {
        commits,
        closing: streams.closing.subscribe(),
        counters: Arc::clone(&streams.counters),
        slow_max: streams.slow_max,
        query,
        // Beyond the newest are ids of records that were put back to an earlier time: what comes next is new to this client.
        cursor: after.unwrap_or(newest).min(newest),
        greeted: false,
        more: true,
        given: None,
        door: Arc::clone(&door),
        _place: place,
        _of_address: of_address,
    };
    let body = Body::from_stream(futures_util::stream::unfold(feed, Feed::next));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // A proxy (nginx) that collects an answer before it passes it on would pass on nothing.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Extension(LongLived), body).into_response())
}

/// One stream.
struct Feed {
    door: Arc<RecordsDoor>,
    commits: watch::Receiver<i64>,
    closing: watch::Receiver<bool>,
    counters: Arc<Counters>,
    slow_max: Duration,
    query: FeedQuery,
    /// The last event that was looked at.
    cursor: i64,
    greeted: bool,
    /// Whether there may be events after the cursor already.
    more: bool,
    /// When the client was given a chunk that it has not come back from.
    given: Option<Instant>,
    _place: OwnedSemaphorePermit,
    _of_address: Option<Place>,
}

impl Feed {
    /// The next chunk; none at the end.
    async fn next(mut self) -> Option<(std::io::Result<Bytes>, Self)> {
        if self.is_slow() {
            return None;
        }
        self.given = None;
        if !self.greeted {
            self.greeted = true;
            // So that the client knows that it is heard before anything happens.
            let greeting = format!("retry: {RETRY_MS}\n: after {}\n\n", self.cursor);
            return self.give(greeting.into());
        }
        let heartbeat = Instant::now() + HEARTBEAT;
        loop {
            if *self.closing.borrow() {
                return None;
            }
            if self.more {
                self.commits.mark_unchanged();
                let (query, cursor) = (self.query.clone(), self.cursor);
                let page = self.door.ask(move |records| records.feed(&query, cursor, CHUNK_BYTES_MAX)).await;
                // The client comes back, and is told then if the records cannot be read.
                let FeedPage { events, cursor, more } = page.ok()?;
                (self.cursor, self.more) = (cursor, more);
                let mut text = Vec::new();
                for event in &events {
                    text.extend_from_slice(format!("id: {}\ndata: ", event.id).as_bytes());
                    // JSON of one line: line breaks within texts are escaped.
                    serde_json::to_writer(&mut text, event).ok()?;
                    text.extend_from_slice(b"\n\n");
                }
                if !text.is_empty() {
                    return self.give(text);
                }
                continue;
            }
            tokio::select! {
                changed = self.commits.changed() => {
                    // No recorder, no more events.
                    changed.ok()?;
                    sleep(LOOK_EVERY).await;
                    self.more = true;
                }
                _closing = self.closing.changed() => {}
                () = sleep_until(heartbeat) => return self.give(b":\n\n".to_vec()),
            }
        }
    }

    fn give(mut self, text: Vec<u8>) -> Option<(std::io::Result<Bytes>, Self)> {
        self.given = Some(Instant::now());
        Some((Ok(Bytes::from(text)), self))
    }

    fn is_slow(&self) -> bool {
        self.given.is_some_and(|given| given.elapsed() >= self.slow_max)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if self.is_slow() {
            self.counters.slow.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::BodyDataStream;
    use futures_util::StreamExt;
    use rusqlite::Connection;

    use crate::manager::records;

    /// Records with `count` events, and what a recorder would say of them.
    fn records(directory: &std::path::Path, count: i64) -> (Connection, watch::Sender<i64>, records::Records) {
        let (connection, path) = records::open(directory).unwrap();
        let commits = watch::Sender::new(0);
        let records = records::Records::live(path, commits.subscribe());
        add(&connection, &commits, 1..=count);
        (connection, commits, records)
    }

    fn add(connection: &Connection, commits: &watch::Sender<i64>, ids: std::ops::RangeInclusive<i64>) {
        let end = *ids.end();
        connection.execute("INSERT OR IGNORE INTO origins (id, origin, host) VALUES (1, 'pit.1', 'pit')", []).unwrap();
        for id in ids {
            let kind = if id % 2 == 0 { "room.opened" } else { "rules.beep" };
            connection
                .execute(
                    "INSERT INTO events (id, origin, sequence, time, kind, room, json) VALUES (?1, 1, ?1, 't', ?2, ?3, '{\"a\":\"b\\n\"}')",
                    rusqlite::params![id, kind, format!("r-{}", id % 3)],
                )
                .unwrap();
        }
        commits.send_replace(end);
    }

    async fn open(door: &Arc<RecordsDoor>, query: &str, last: Option<&str>) -> Result<BodyDataStream, ApiError> {
        let mut headers = HeaderMap::new();
        headers.extend(last.map(|last| (header::HeaderName::from_static("last-event-id"), last.parse().unwrap())));
        let uri = format!("/api/events/stream{query}").parse().unwrap();
        let response = stream(State(Arc::clone(door)), None, None, uri, headers).await?;
        assert!(response.extensions().get::<LongLived>().is_some());
        let mut body = response.into_body().into_data_stream();
        let greeting = body.next().await.unwrap().unwrap();
        assert!(greeting.starts_with(b"retry: 2000\n: after "), "{greeting:?}");
        Ok(body)
    }

    /// Ids of the events up to `last`.
    async fn ids(body: &mut BodyDataStream, last: i64) -> Vec<i64> {
        let mut ids: Vec<i64> = Vec::new();
        while ids.last() != Some(&last) {
            let chunk = body.next().await.expect("the stream goes on").unwrap();
            let text = String::from_utf8(chunk.to_vec()).unwrap();
            for event in text.split_terminator("\n\n").filter(|event| *event != ":") {
                let (id, data) = event.split_once('\n').unwrap();
                let data: serde_json::Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
                assert_eq!(id, format!("id: {}", data["id"]));
                assert_eq!(data["event"]["a"], "b\n");
                ids.push(data["id"].as_i64().unwrap());
            }
        }
        ids
    }

    #[tokio::test]
    async fn a_stream_goes_on_where_the_client_was_and_leaves_out_what_is_not_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let (connection, commits, records) = records(directory.path(), 5_000);
        let door = RecordsDoor::new(Some(records), 8);
        let mut all = open(&door, "?after=0", None).await.unwrap();
        assert_eq!(ids(&mut all, 5_000).await, (1..=5_000).collect::<Vec<_>>());
        let mut rest = open(&door, "?after=7", Some("4990")).await.unwrap();
        assert_eq!(ids(&mut rest, 5_000).await, (4_991..=5_000).collect::<Vec<_>>());
        let mut rooms = open(&door, "?after=4900&room=r-1&kind=room.", None).await.unwrap();
        let of_room: Vec<i64> = (4_901..=5_000).filter(|id| id % 3 == 1 && id % 2 == 0).collect();
        assert_eq!(ids(&mut rooms, *of_room.last().unwrap()).await, of_room);
        // New ones reach those who wait; ids of records that are gone are no reason to wait for ever.
        let mut new = open(&door, "", None).await.unwrap();
        let mut beyond = open(&door, "?after=900000", None).await.unwrap();
        add(&connection, &commits, 5_001..=5_003);
        for body in [&mut all, &mut new, &mut beyond] {
            assert_eq!(ids(body, 5_003).await, [5_001, 5_002, 5_003]);
        }
        assert_eq!(door.stream_figures().open, 5);
        door.close();
        for mut body in [all, rest, rooms, new, beyond] {
            // What was on its way may still come.
            while let Some(chunk) = body.next().await {
                chunk.unwrap();
            }
        }
        assert_eq!(door.stream_figures().open, 0);
    }

    #[tokio::test]
    async fn streams_are_bounded_in_number_and_in_patience() {
        let directory = tempfile::tempdir().unwrap();
        let (_connection, _commits, records) = records(directory.path(), 10_000);
        let mut door = RecordsDoor::new(Some(records), 2);
        Arc::get_mut(&mut door).unwrap().streams.slow_max = Duration::from_millis(50);
        let mut slow = open(&door, "?after=0", None).await.unwrap();
        let other = open(&door, "", None).await.unwrap();
        let refusal = format!("{:?}", open(&door, "", None).await.unwrap_err());
        assert!(refusal.contains("streams_max") && refusal.contains("503"), "{refusal}");
        drop(other);
        let chunk = slow.next().await.unwrap().unwrap();
        assert!(chunk.len() > 1_000 && chunk.len() < CHUNK_BYTES_MAX + 1_000, "{}", chunk.len());
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(slow.next().await.is_none());
        drop(slow);
        let figures = door.stream_figures();
        assert_eq!(figures, StreamFigures { open: 0, max: 2, opened: 2, refused: 1, slow: 1 });
        for query in ["?after=x", "?after=-1", "?kinds=room."] {
            assert!(open(&door, query, None).await.is_err(), "{query}");
        }
        assert!(open(&door, "", Some("many")).await.is_err());
    }
}
