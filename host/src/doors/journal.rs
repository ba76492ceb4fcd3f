//! The journal of a room over HTTP: its facts, and its bytes as they are on disk. What the bytes mean is `holeshot_room::journal`'s.

use std::io::Read;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::http::{ApiError, Doors, Shared};
use crate::journal::JournalFacts;

/// Bytes that are read from the disk and sent at a time: what one download holds in memory.
const CHUNK_BYTES: usize = 64 << 10;

/// What an answer says of a room's journal.
#[derive(Debug, Clone, Serialize)]
pub(super) struct JournalOffer {
    /// Where the bytes are.
    path: String,
    /// How many there are now.
    bytes: u64,
    /// What is known while it is written; the records have it afterwards.
    writing: Option<JournalFacts>,
}

/// The journal of a room, if its file is there.
pub(super) async fn facts(doors: &Arc<Doors>, room: &str) -> Result<Option<JournalOffer>, ApiError> {
    let writing = doors.journals.facts(room);
    let Some((_, bytes)) = open(doors, room).await? else { return Ok(None) };
    Ok(Some(JournalOffer { path: format!("/api/rooms/{room}/journal"), bytes, writing }))
}

/// `GET /api/rooms/{room}/journal`. Of an open room: what is written at this moment.
pub(super) async fn download(
    State(doors): Shared,
    room: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(room) = room?;
    let Some((file, bytes)) = open(&doors, &room).await? else {
        let hint = if doors.journals.are_kept() {
            "journals are deleted when they are older than journal_days or more than journal_bytes_max; GET /api/rooms/{room} says what is known of it"
        } else {
            "this host keeps none (journal_days is 0)"
        };
        let message = format!("there is no journal of room {room:?}: {hint}");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "no_journal", message));
    };
    let name = format!("attachment; filename=\"{room}.journal\"");
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, bytes.to_string()),
        (header::CONTENT_DISPOSITION, name),
    ];
    // What is added to it meanwhile is not sent: the length has been said.
    let chunks = futures_util::stream::try_unfold(file.take(bytes), async |mut file| {
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = vec![0; CHUNK_BYTES];
            let len = file.read(&mut chunk)?;
            chunk.truncate(len);
            Ok::<_, std::io::Error>((chunk, file))
        });
        let (chunk, file) = read.await.map_err(std::io::Error::other)??;
        Ok::<_, std::io::Error>((!chunk.is_empty()).then(|| (Bytes::from(chunk), file)))
    });
    Ok((headers, Body::from_stream(chunks)).into_response())
}

async fn open(doors: &Arc<Doors>, room: &str) -> Result<Option<(std::fs::File, u64)>, ApiError> {
    let (journals, room) = (doors.journals.clone(), room.to_owned());
    let opened = tokio::task::spawn_blocking(move || journals.read(&room))
        .await
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()))?;
    opened.map_err(|error| {
        tracing::error!(%error, "a journal cannot be read");
        let message = format!("the journal cannot be read: {error}");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "journal_unavailable", message)
    })
}
