//! The HTTP interface of the records alone: what the manager recorded, whatever host ran it. A host serves these routes beside its own; the process
//! `holeshot manager` serves nothing else. What the answers mean is the business of [`crate::manager`].

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::ApiError;
use crate::manager::records::{PAGE_MAX, Records, RecordsError, RoomState, RoomsPage};

/// What these routes need.
#[derive(Debug)]
pub struct RecordsDoor {
    /// None on a host whose records another process keeps.
    records: Option<Records>,
}

impl RecordsDoor {
    /// A door to these records; without any, to the answer that they are elsewhere.
    #[must_use]
    pub fn new(records: Option<Records>) -> Arc<Self> {
        Arc::new(Self { records })
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
        let answer = tokio::task::spawn_blocking(move || question(&records))
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
    Router::new().route("/api/hosts", get(list_hosts)).route("/api/events", get(list_events)).with_state(door)
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
