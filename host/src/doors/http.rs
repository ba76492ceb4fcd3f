//! The HTTP interface: rooms, tickets, records, health. JSON in and out; its description is served at `/openapi.json`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use holeshot_abi::PLAYER_NAME_BYTES_MAX;

use super::gate::{Client, Gate};
use super::records::{RecordsDoor, RoomsQuery, limit_in_range};
use super::roles::{Openness, require_admin};
use super::tickets::{NewTicket, TICKET_BYTES_MAX, TicketError, Tickets};
use crate::admin::AdminToken;
use crate::clock::unix_ms;
use crate::journal::Journals;
use crate::manager::records::{Records, RecordsError, RoomsPage};
use crate::metrics::gather::{Budget, Metrics, Sockets};
use crate::rooms::{CreateError, CreateRoom, RoomSummary, Rooms};
use crate::shard::SessionLimits;
use crate::swap::Swaps;
use crate::tls::InForce;

/// Longest request body in bytes: the options and the data of 64 players at their largest, twice over for JSON's escapes.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// What the interface needs of the rest of the host.
#[derive(Debug)]
pub struct Doors {
    /// The rooms.
    pub rooms: Arc<Rooms>,
    /// Changes rules.
    pub swaps: Arc<Swaps>,
    /// Who shows it may change rules.
    pub admin: AdminToken,
    /// The figures.
    pub metrics: Metrics,
    /// The records.
    pub records: Arc<RecordsDoor>,
    /// The journals.
    pub journals: Journals,
    /// Signs and checks tickets.
    pub tickets: Arc<Tickets>,
    /// Whether anybody may open rooms and get tickets.
    pub openness: Openness,
    /// How long a ticket opens sessions, in seconds.
    pub ticket_lifetime_s: u32,
    /// The host's public key of the handshake.
    pub host_key: [u8; 32],
    /// The host's key pair of the handshake.
    pub keypair: holeshot_wire::HostKeypair,
    /// Where datagrams are taken.
    pub udp_address: SocketAddr,
    /// False before everything runs and from the first moment of a stop.
    pub ready: AtomicBool,
    /// WebSockets open at the moment.
    pub sockets: super::websocket::SocketCount,
    /// Who may come in how often.
    pub gate: Arc<Gate>,
    /// The certificate, if the host speaks TLS.
    pub tls: Option<Arc<InForce>>,
    /// What each session may do.
    pub session_limits: SessionLimits,
}

/// The host's description of its HTTP interface (OpenAPI 3.1).
pub const OPENAPI: &str = include_str!("openapi.json");

/// The routes.
pub fn router(doors: Arc<Doors>) -> Router {
    Router::new()
        .route("/healthz", get(async || Json(json!({ "status": "ok" }))))
        .route("/readyz", get(readyz))
        .route("/openapi.json", get(async || ([(header::CONTENT_TYPE, "application/json")], OPENAPI)))
        .route("/asyncapi.json", get(asyncapi))
        .route("/metrics", get(metrics))
        .route("/api/shards", get(shards))
        .route("/api/rooms", get(list_rooms).post(create_room))
        .route("/api/rooms/{room}", get(one_room))
        .route("/api/rooms/{room}/join", post(join_room))
        .route("/api/rooms/{room}/watch", post(watch_room))
        .route("/api/rooms/{room}/journal", get(super::journal::download))
        .route("/api/modules", get(super::modules::list_modules))
        .route("/api/modules/{name}", super::modules::one_module())
        .route("/ws", get(super::websocket::upgrade))
        .merge(super::records::routes(Arc::clone(&doors.records)))
        .fallback(async || {
            ApiError::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "there is nothing here; GET /openapi.json lists what there is",
            )
        })
        .method_not_allowed_fallback(async || {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this path takes another method; GET /openapi.json lists them",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(doors)
}

/// An answer that says what was wrong: `{"error": {"code": "…", "message": "…"}}`.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Option<Value>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: None }
    }

    /// With what a program may want to know of it, as `details` beside `message`.
    pub(super) fn with_details(self, details: Value) -> Self {
        Self { details: Some(details), ..self }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = json!({ "error": { "code": self.code, "message": self.message } });
        if let (Some(details), Some(error)) = (self.details, body.get_mut("error").and_then(Value::as_object_mut)) {
            error.insert("details".into(), details);
        }
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), "bad_request", rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), "bad_request", rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), "bad_request", rejection.body_text())
    }
}

impl From<RecordsError> for ApiError {
    fn from(error: RecordsError) -> Self {
        tracing::error!(%error, "the records cannot be read");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "records_unavailable", error.to_string())
    }
}

impl From<CreateError> for ApiError {
    fn from(error: CreateError) -> Self {
        let (status, code) = match &error {
            CreateError::UnknownModule { .. } => (StatusCode::NOT_FOUND, "unknown_module"),
            CreateError::BadRequest { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "bad_request"),
            CreateError::Refused { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "refused_by_rules"),
            CreateError::ModuleFault { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "module_fault"),
            CreateError::Full { .. } | CreateError::NoMemory(_) => (StatusCode::SERVICE_UNAVAILABLE, "full"),
            CreateError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            CreateError::Internal { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, code, error.to_string())
    }
}

pub(super) type Shared = State<Arc<Doors>>;

/// The description of the events.
pub(super) async fn asyncapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], crate::events::asyncapi::DOCUMENT)
}

async fn readyz(State(doors): Shared) -> Response {
    if doors.ready.load(Ordering::Acquire) {
        Json(json!({ "status": "ready" })).into_response()
    } else {
        let rooms = doors.rooms.open_count();
        let message = format!("the host is stopping: it opens no more rooms; {rooms} are open and come to their end");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "draining", message)
            .with_details(json!({ "rooms": rooms }))
            .into_response()
    }
}

async fn metrics(State(doors): Shared) -> Result<Response, ApiError> {
    let sockets = Sockets {
        open: doors.sockets.open(),
        max: doors.sockets.max(),
        gate: Arc::clone(&doors.gate),
        certificate_until_s: doors.tls.as_ref().map(|tls| tls.not_after_s()),
        streams: doors.records.stream_figures(),
    };
    let page = doors.metrics.page(sockets).await;
    let page = page
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()))?
        .to_string();
    Ok(([(header::CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], page).into_response())
}

async fn shards(State(doors): Shared) -> Json<Value> {
    Json(json!({ "shards": doors.metrics.shards().await }))
}

async fn create_room(
    State(doors): Shared,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Result<Json<CreateRoom>, JsonRejection>,
) -> Result<Response, ApiError> {
    if let Err(refusal) = doors.gate.room(&client) {
        return Ok(refusal.into_response());
    }
    may_enter(&doors, &headers, "opening a room")?;
    let Json(request) = body?;
    let created = doors.rooms.create(request).await?;
    let location = format!("/api/rooms/{}", created.room);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(created)).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Join {
    player: String,
    /// JSON for the rules, in place of what the room was opened with.
    data: Option<Value>,
    /// How long the ticket opens a session, in seconds.
    lifetime_s: Option<u64>,
}

/// With open doors anybody may; else the admin alone.
fn may_enter(doors: &Doors, headers: &HeaderMap, what: &str) -> Result<(), ApiError> {
    if doors.openness.lets_in(headers) { Ok(()) } else { require_admin(&doors.admin, headers, what) }
}

/// A ticket and where to take it.
#[derive(Debug, Serialize)]
struct Joined {
    room: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    player: Option<u16>,
    ticket: String,
    expires_ms: u64,
    ws_url: String,
    udp_port: u16,
    host_key: String,
}

async fn join_room(
    State(doors): Shared,
    room: Result<Path<String>, PathRejection>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Result<Json<Join>, JsonRejection>,
) -> Result<Json<Joined>, ApiError> {
    may_enter(&doors, &headers, "a ticket")?;
    let Path(room) = room?;
    let Json(Join { player: name, data, lifetime_s }) = body?;
    let live = doors.rooms.live(&room).ok_or_else(|| no_such_room(&room))?;
    let player = live.players.iter().position(|player| player.name == name).ok_or_else(|| {
        let names: Vec<_> = live.players.iter().map(|player| player.name.as_str()).collect();
        let message = format!("room {room} has no player {name:?}; its players: {}", names.join(", "));
        ApiError::new(StatusCode::NOT_FOUND, "unknown_player", message)
    })?;
    let player = u16::try_from(player).unwrap_or(u16::MAX);
    let lifetime_s = lifetime(&doors, lifetime_s)?;
    let new = NewTicket { room: &room, player: Some(player), name: &name, data: data.as_ref(), lifetime_s };
    ticket(&doors, &new, &client, &headers)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Watch {
    /// The spectator's name, for the ticket; nobody else sees it.
    name: Option<String>,
    /// How long the ticket opens a session, in seconds.
    lifetime_s: Option<u64>,
}

async fn watch_room(
    State(doors): Shared,
    room: Result<Path<String>, PathRejection>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Result<Json<Watch>, JsonRejection>,
) -> Result<Json<Joined>, ApiError> {
    may_enter(&doors, &headers, "a ticket")?;
    let Path(room) = room?;
    let Json(Watch { name, lifetime_s }) = body?;
    let name = name.unwrap_or_else(|| "spectator".into());
    if !(1..=PLAYER_NAME_BYTES_MAX).contains(&name.len()) {
        let message = format!("`name` has {} bytes; accepted: 1 to {PLAYER_NAME_BYTES_MAX}", name.len());
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_request", message));
    }
    doors.rooms.live(&room).ok_or_else(|| no_such_room(&room))?;
    let lifetime_s = lifetime(&doors, lifetime_s)?;
    ticket(&doors, &NewTicket { room: &room, player: None, name: &name, data: None, lifetime_s }, &client, &headers)
}

/// How long a ticket that was asked for is good, in seconds.
fn lifetime(doors: &Doors, asked_s: Option<u64>) -> Result<u64, ApiError> {
    let max_s = u64::from(doors.ticket_lifetime_s);
    match asked_s {
        None => Ok(max_s),
        Some(asked_s) if (1..=max_s).contains(&asked_s) => Ok(asked_s),
        Some(asked_s) => {
            let message = format!("`lifetime_s` is {asked_s}; accepted: 1 to {max_s} (ticket_lifetime_s)");
            Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_request", message))
        }
    }
}

/// Signs a ticket for a player or a spectator and says where to take it.
fn ticket(doors: &Doors, new: &NewTicket<'_>, client: &Client, headers: &HeaderMap) -> Result<Json<Joined>, ApiError> {
    let signed = doors.tickets.sign(new, unix_ms() / 1_000).map_err(|error| match error {
        // All else of it is short.
        TicketError::TooLong { bytes } => {
            let message = format!("`data` makes a ticket of {bytes} bytes; accepted: up to {TICKET_BYTES_MAX}");
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_request", message)
        }
        error => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
    })?;
    // The name that the client used for this host is the one it can reach.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    Ok(Json(Joined {
        room: new.room.to_owned(),
        player: new.player,
        ticket: signed.ticket,
        expires_ms: signed.exp_s.saturating_mul(1_000),
        ws_url: format!("{}://{host}/ws", client.websocket_scheme()),
        udp_port: doors.udp_address.port(),
        host_key: URL_SAFE_NO_PAD.encode(doors.host_key),
    }))
}

fn no_such_room(room: &str) -> ApiError {
    let message = format!("there is no open room {room:?}; GET /api/rooms lists the rooms");
    ApiError::new(StatusCode::NOT_FOUND, "unknown_room", message)
}

/// Runs a question to the records on a thread that may wait for the disk.
pub(super) async fn ask<T: Send + 'static>(
    doors: &Doors,
    question: impl FnOnce(&Records) -> Result<T, RecordsError> + Send + 'static,
) -> Result<T, ApiError> {
    doors.records.ask(question).await
}

async fn list_rooms(
    State(doors): Shared,
    query: Result<Query<RoomsQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(RoomsQuery { after, limit, state }) = query?;
    let limit = limit_in_range(limit)?;
    let open: Vec<_> = doors.rooms.page(after.as_deref(), limit).iter().map(|live| live.summary()).collect();
    let page = RoomsPage { after, limit: Some(limit), state };
    // Open rooms are known without the records, too.
    let recorded =
        if doors.records.are_here() { Some(ask(&doors, move |records| records.rooms(&page)).await?) } else { None };
    Ok(Json(json!({ "open": open, "recorded": recorded })))
}

/// An open room with what its rules cost; without while its shard has not taken it yet, or any more.
#[derive(Debug, Serialize)]
struct OpenRoom {
    #[serde(flatten)]
    summary: RoomSummary,
    budget: Option<Budget>,
}

async fn one_room(State(doors): Shared, room: Result<Path<String>, PathRejection>) -> Result<Json<Value>, ApiError> {
    let Path(room) = room?;
    let id = room.clone();
    let recorded = if doors.records.are_here() { ask(&doors, move |records| records.room(&id)).await? } else { None };
    let live = match doors.rooms.live(&room) {
        Some(live) => Some(OpenRoom { summary: live.summary(), budget: doors.metrics.room(&live).await }),
        None => None,
    };
    let journal = super::journal::facts(&doors, &room).await?;
    if live.is_none() && !doors.records.are_here() {
        return Err(super::records::elsewhere());
    }
    if recorded.is_none() && live.is_none() {
        let message = format!("there is no room {room:?}, open or recorded; GET /api/rooms lists the rooms");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_room", message));
    }
    Ok(Json(json!({ "open": live, "recorded": recorded, "journal": journal })))
}
