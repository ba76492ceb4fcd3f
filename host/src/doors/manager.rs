//! The HTTP door of a manager in a process of its own: whether it lives, whether it records, and the records.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::http::{ApiError, BODY_BYTES_MAX};
use super::records::{self, RecordsDoor};
use crate::clock::unix_ms;
use crate::manager::ManagerFigures;
use crate::metrics::gather::manager_page;

/// The routes.
pub fn router(figures: ManagerFigures, door: Arc<RecordsDoor>) -> Router {
    Router::new()
        .route("/healthz", get(async || Json(json!({ "status": "ok" }))))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/asyncapi.json", get(super::http::asyncapi))
        .merge(records::routes(Arc::clone(&door)))
        .merge(records::recorded_rooms(door))
        .fallback(async || {
            let message = "there is nothing here; a manager has the routes about records, its hosts have the others";
            ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
        })
        .method_not_allowed_fallback(async || {
            let message = "this path takes another method: GET";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::new(Shared { figures, started_unix_ms: unix_ms() }))
}

struct Shared {
    figures: ManagerFigures,
    started_unix_ms: u64,
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, ApiError> {
    let page = manager_page(&shared.figures, shared.started_unix_ms).await;
    let page = page.map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], page).into_response())
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    if shared.figures.stats().subscribed {
        return Json(json!({ "status": "ready" })).into_response();
    }
    let message =
        "the manager has no subscription at the broker; its log says why. Hosts keep their events until it has";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", message).into_response()
}
