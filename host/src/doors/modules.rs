//! The HTTP interface for rules modules: what there is, and changing the rules of rooms. Only who shows the admin token may change them. What
//! a change is, is the business of [`crate::swap`].

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, put};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::timeout_at;

use super::http::{ApiError, Doors, Shared, ask};
use super::roles::require_admin;
use crate::manager::Records;
use crate::modules::{LoadedModule, ModulesError, Source};
use crate::rooms::ModuleName;
use crate::rules::{LoadError, MODULE_BYTES_MAX};
use crate::swap::{RoomVerdict, SwapError, SwapReport, SwapRequest, Target, Verdict};

/// How long the body of a request without the right is read, in milliseconds: a client that still writes would take the answer for a broken
/// connection. None of it is kept.
const DRAIN_WAIT_MS: u64 = 2_000;
/// How long a change of rules is waited for, in milliseconds from the request's head: below the half minute after which any request is answered that
/// it was not complete, which would not be true of this one.
const SWAP_ANSWER_MAX_MS: u64 = 28_000;

/// The route of one module, with a limit of its own for the body.
pub(super) fn one_module() -> MethodRouter<Arc<Doors>> {
    put(put_module).layer(DefaultBodyLimit::max(MODULE_BYTES_MAX))
}

pub(super) async fn list_modules(State(doors): Shared) -> Result<Json<Value>, ApiError> {
    let recorded = ask(&doors, Records::modules).await?;
    let modules = Arc::clone(doors.rooms.modules());
    let kept = tokio::task::spawn_blocking(move || modules.kept().list())
        .await
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()))?;
    let budgets: serde_json::Map<String, Value> =
        doors.metrics.modules().await.into_iter().map(|budget| (budget.hash.clone(), json!(budget))).collect();
    let loaded: Vec<NamedModule> =
        doors.rooms.modules().loaded().into_iter().map(|loaded| of(&doors, loaded)).collect();
    Ok(Json(json!({ "loaded": loaded, "kept": kept, "budgets": budgets, "recorded": recorded })))
}

/// What a name has, and how it does.
#[derive(Debug, Serialize)]
struct NamedModule {
    #[serde(flatten)]
    loaded: LoadedModule,
    /// Open rooms in which it failed, and which keep other rules.
    failed_rooms: usize,
}

fn of(doors: &Doors, loaded: LoadedModule) -> NamedModule {
    let ModuleName { name, hash, .. } = &loaded.module;
    let failed_rooms = doors.rooms.of_module(name).iter().filter(|live| live.rules.failed(hash).is_some()).count();
    NamedModule { loaded, failed_rooms }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SwapQuery {
    rooms: Option<String>,
}

async fn put_module(
    State(doors): Shared,
    name: Result<Path<String>, PathRejection>,
    query: Result<Query<SwapQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    // Before anything of the body is kept: eight megabytes are not for everyone.
    if let Err(refusal) = require_admin(&doors.admin, request.headers(), "changing rules") {
        drain(request.into_body()).await;
        return Err(refusal);
    }
    let Path(name) = name?;
    let Query(SwapQuery { rooms }) = query?;
    let deadline = tokio::time::Instant::now() + Duration::from_millis(SWAP_ANSWER_MAX_MS);
    let Ok(target) = rooms.as_deref().unwrap_or("all").parse::<Target>();
    let wasm = Bytes::from_request(request, &()).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let message = LoadError::TooLong { found_bytes: MODULE_BYTES_MAX as u64 + 1 }.to_string();
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
        }
        status => ApiError::new(status, "bad_request", rejection.body_text()),
    })?;
    let request = SwapRequest { wasm: wasm.to_vec(), name: Some(name), target: target.clone(), source: Source::Set };
    let report = timeout_at(deadline, doors.swaps.swap(request)).await.map_err(|_| goes_on(&target))??;
    match (&target, report.rooms.first()) {
        (Target::Room(_), Some(room)) => one_room(&report, room),
        _ => Ok(Json(report).into_response()),
    }
}

/// The answer to who waited as long as a request may. The change itself does not end with it.
fn goes_on(target: &Target) -> ApiError {
    let message = format!(
        "the change of rules (rooms={target}) takes longer than {} s and goes on; do not send it again. GET /api/rooms says which rules each \
         room has, GET /api/modules what new rooms get",
        SWAP_ANSWER_MAX_MS / 1_000
    );
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "goes_on", message)
}

/// For one room its verdict is the answer's.
fn one_room(report: &SwapReport, room: &RoomVerdict) -> Result<Response, ApiError> {
    let (code, message) = match &room.verdict {
        Verdict::Swapped { .. } | Verdict::Unchanged | Verdict::Skipped { .. } => {
            return Ok(Json(report).into_response());
        }
        Verdict::Refused { kind, frame, message, backtrace, .. } => {
            let frame = frame.map(|frame| format!(" in frame {frame}")).unwrap_or_default();
            let backtrace = backtrace.as_deref().map(|text| format!("\n{text}")).unwrap_or_default();
            let message = format!("room {} keeps its rules: {kind}{frame}: {message}{backtrace}", room.room);
            ("swap_refused", message)
        }
        Verdict::Ended => ("room_over", format!("room {} is over; GET /api/rooms lists the rooms", room.room)),
    };
    Err(ApiError::new(StatusCode::CONFLICT, code, message).with_details(json!(report)))
}

async fn drain(body: Body) {
    let mut left = MODULE_BYTES_MAX;
    let mut pieces = body.into_data_stream();
    let reading = async {
        while let Some(Ok(piece)) = pieces.next().await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                return;
            }
        }
    };
    let _cut_off = tokio::time::timeout(Duration::from_millis(DRAIN_WAIT_MS), reading).await;
}

impl From<SwapError> for ApiError {
    fn from(error: SwapError) -> Self {
        let (status, code) = match &error {
            SwapError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            SwapError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            SwapError::Module(ModulesError::Load(LoadError::HostFull { .. })) => {
                (StatusCode::SERVICE_UNAVAILABLE, "full")
            }
            SwapError::Module(ModulesError::Load(_)) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_module"),
            SwapError::Module(ModulesError::Unwritable { .. }) => (StatusCode::INSUFFICIENT_STORAGE, "unwritable"),
            SwapError::Module(ModulesError::TooManyNames) => (StatusCode::CONFLICT, "too_many_modules"),
            SwapError::WrongName { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "wrong_name"),
            SwapError::UnknownRoom { .. } => (StatusCode::NOT_FOUND, "unknown_room"),
            SwapError::OtherGame { .. } => (StatusCode::CONFLICT, "other_game"),
            SwapError::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        let answer = Self::new(status, code, error.to_string());
        match &error {
            SwapError::Module(ModulesError::Load(LoadError::Faulted { fault })) => answer.with_details(json!({
                "kind": fault.kind.as_str(), "message": fault.message, "backtrace": fault.backtrace,
            })),
            _ => answer,
        }
    }
}
