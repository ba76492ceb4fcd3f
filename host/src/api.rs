//! A client of a host's HTTP interface, for the commands that talk to a running host.

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holeshot_client::{ConnectOptions, Trust, tls_problem};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

use crate::admin::AdminToken;
use crate::rules::ModuleHash;

/// How long one request may take, in seconds: a host answers in milliseconds, a module compiles in seconds.
const REQUEST_WAIT_MAX_S: u64 = 30;
/// How long a change of rules may take, in seconds: twice what the host lets it take, for a slow connection.
const SWAP_WAIT_MAX_S: u64 = 60;
/// Length of an answer in bytes: the verdicts of 30,000 rooms, each with a backtrace of some kilobytes. What is longer comes from something else.
const ANSWER_BYTES_MAX: usize = 128 << 20;

/// A host's HTTP interface.
#[derive(Debug, Clone)]
pub struct Api {
    url: String,
    http: reqwest::Client,
    trust: Option<Trust>,
    token: Option<AdminToken>,
}

/// What a ticket is wished for.
#[derive(Debug, Clone, Copy)]
pub enum TicketWish<'a> {
    /// To play.
    Player {
        /// The player's name.
        name: &'a str,
        /// JSON for the rules.
        data: Option<&'a Value>,
    },
    /// To watch.
    Spectator {
        /// The spectator's name.
        name: &'a str,
    },
}

/// A player's permission to open a session, as the host gives it.
#[derive(Clone, Deserialize)]
pub struct TicketGrant {
    ticket: String,
    ws_url: String,
    host_key: String,
    /// Whom to trust for TLS: whom the one trusted who asked for it.
    #[serde(skip)]
    trust: Option<Trust>,
}

/// What a host said to new rules.
#[derive(Debug, Clone, PartialEq)]
pub struct SwapAnswer {
    /// A `SwapReport` of `/openapi.json`.
    pub report: Value,
    /// Why the one room that was asked for does not have them.
    pub refusal: Option<String>,
}

impl std::fmt::Debug for TicketGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Whoever has the ticket can play in this player's name.
        f.debug_struct("TicketGrant").field("ws_url", &self.ws_url).finish_non_exhaustive()
    }
}

impl TicketGrant {
    /// What a client needs to open the session, with datagrams or without.
    ///
    /// # Errors
    /// If the host's key is not one.
    pub fn connect_options(&self, with_udp: bool) -> anyhow::Result<ConnectOptions> {
        let trust = self.trust.clone();
        if !with_udp {
            return Ok(ConnectOptions { trust, ..ConnectOptions::websocket(&self.ws_url, &self.ticket) });
        }
        let key = URL_SAFE_NO_PAD.decode(&self.host_key).ok().and_then(|key| <[u8; 32]>::try_from(key).ok());
        let key = key.with_context(|| format!("the host's key {:?} is not 32 bytes in base64", self.host_key))?;
        Ok(ConnectOptions { trust, ..ConnectOptions::udp(&self.ws_url, &self.ticket, key) })
    }
}

impl Api {
    /// Of the host at this URL. With `https://`, the authorities that this machine trusts are trusted.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        Self::trusting(url, None)
    }

    /// Of the host at this URL. With `https://`, the authorities in the file `ca` (PEM) are trusted and no others.
    ///
    /// # Errors
    /// If the file cannot be read or used, or the HTTP client cannot be set up.
    pub fn trusting(url: &str, ca: Option<&Path>) -> anyhow::Result<Self> {
        let mut http = reqwest::Client::builder().timeout(Duration::from_secs(REQUEST_WAIT_MAX_S)).no_proxy();
        let trust = match ca {
            _ if !url.starts_with("https://") => None,
            None => Some(Trust::system()?),
            Some(path) => {
                let pem =
                    std::fs::read(path).with_context(|| format!("cannot read {}, named by --ca", path.display()))?;
                Some(Trust::only(&pem).with_context(|| format!("{}, named by --ca, cannot be used", path.display()))?)
            }
        };
        crate::tls::install_provider();
        if let Some(trust) = &trust {
            http = http.tls_backend_preconfigured((*trust.config()).clone());
        }
        let http = http.build().context("the HTTP client cannot be set up")?;
        Ok(Self { url: url.trim_end_matches('/').to_owned(), http, trust, token: None })
    }

    /// This interface, with the admin token for what needs it.
    #[must_use]
    pub fn with_token(self, token: AdminToken) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Opens a room and gives its id.
    ///
    /// # Errors
    /// The host's own words, or why it cannot be reached.
    pub async fn create_room(&self, players: &[Value], options: &Value, seed: Option<u64>) -> anyhow::Result<String> {
        self.create_room_of(None, players, options, seed).await
    }

    /// Opens a room under the module of this name, the host's default if there is none, and gives its id.
    ///
    /// # Errors
    /// As for [`create_room`](Api::create_room).
    pub async fn create_room_of(
        &self,
        module: Option<&str>,
        players: &[Value],
        options: &Value,
        seed: Option<u64>,
    ) -> anyhow::Result<String> {
        let mut body = json!({ "players": players, "options": options });
        if let Some(object) = body.as_object_mut() {
            object.extend(module.map(|module| ("module".to_owned(), module.into())));
            object.extend(seed.map(|seed| ("seed".to_owned(), seed.into())));
        }
        let created = self.post("/api/rooms", &body).await?;
        let room = created.get("room").and_then(Value::as_str);
        Ok(room.context("the host's answer names no room; is it a Holeshot host of this version?")?.to_owned())
    }

    /// Gets a player's ticket.
    ///
    /// # Errors
    /// As for [`create_room`](Api::create_room).
    pub async fn join(&self, room: &str, player: &str) -> anyhow::Result<TicketGrant> {
        let grant = self.post(&format!("/api/rooms/{room}/join"), &json!({ "player": player })).await?;
        self.grant(grant)
    }

    /// Gets a spectator's ticket.
    ///
    /// # Errors
    /// As for [`create_room`](Api::create_room).
    pub async fn watch(&self, room: &str) -> anyhow::Result<TicketGrant> {
        let grant = self.post(&format!("/api/rooms/{room}/watch"), &json!({})).await?;
        self.grant(grant)
    }

    fn grant(&self, answer: Value) -> anyhow::Result<TicketGrant> {
        let grant: TicketGrant = serde_json::from_value(answer)
            .context("the host's answer is no ticket; is it a Holeshot host of this version?")?;
        Ok(TicketGrant { trust: self.trust.clone(), ..grant })
    }

    /// Gets a ticket, as the host writes it: a `Ticket` of `/openapi.json`.
    ///
    /// # Errors
    /// As for [`create_room`](Api::create_room).
    pub async fn ticket(&self, room: &str, wish: &TicketWish<'_>, lifetime_s: Option<u64>) -> anyhow::Result<Value> {
        let (path, mut body) = match wish {
            TicketWish::Player { name, data: None } => ("join", json!({ "player": name })),
            TicketWish::Player { name, data: Some(data) } => ("join", json!({ "player": name, "data": data })),
            TicketWish::Spectator { name } => ("watch", json!({ "name": name })),
        };
        if let (Some(lifetime_s), Some(object)) = (lifetime_s, body.as_object_mut()) {
            object.insert("lifetime_s".into(), lifetime_s.into());
        }
        self.post(&format!("/api/rooms/{room}/{path}"), &body).await
    }

    /// Whatever a path answers.
    ///
    /// # Errors
    /// As for [`create_room`](Api::create_room).
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.answer(self.http.get(format!("{}{path}", self.url))).await
    }

    /// A page of a list as it came, and the path of the next one if there is one. `path` may ask for JSON or for CSV.
    ///
    /// # Errors
    /// As for [`create_room`](Api::create_room).
    pub async fn page(&self, path: &str) -> anyhow::Result<(Vec<u8>, Option<String>)> {
        let response = self.send(self.http.get(format!("{}{path}", self.url))).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = self.body(response).await?;
        if !status.is_success() {
            let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            if body.pointer("/error/message").is_some() {
                bail!("{}", Self::refusal(&body));
            }
            bail!("{} answered {status}, and not as a Holeshot host does", self.url);
        }
        let link = headers.get("link").and_then(|link| link.to_str().ok());
        let next = link.and_then(|link| link.strip_prefix('<')?.strip_suffix(">; rel=\"next\""));
        // Another place than this host's is no next page.
        Ok((bytes, next.filter(|next| next.starts_with("/api/")).map(str::to_owned)))
    }

    /// Sends a rules module for `rooms`: `all`, `new` or the id of one.
    ///
    /// # Errors
    /// No room was asked: in the host's own words, or why it cannot be reached.
    pub async fn swap(&self, name: &str, rooms: &str, token: &AdminToken, wasm: Vec<u8>) -> anyhow::Result<SwapAnswer> {
        let mut url = reqwest::Url::parse(&self.url).with_context(|| format!("{:?} is no URL of a host", self.url))?;
        // As parts of the path and the query, whatever characters they have.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "modules", name]);
        }
        url.query_pairs_mut().append_pair("rooms", rooms);
        let sent = ModuleHash::of(&wasm).to_string();
        let request = self
            .http
            .put(url)
            .timeout(Duration::from_secs(SWAP_WAIT_MAX_S))
            .bearer_auth(token.reveal())
            .header("content-type", "application/wasm")
            .body(wasm);
        let (is_success, mut body) = self.ask(request).await?;
        if is_success {
            // Something else may answer 200 to anything: a proxy, a page that says that one has to log in.
            if body.pointer("/module/hash").and_then(Value::as_str) != Some(sent.as_str()) {
                bail!(
                    "{} took it, and not as a Holeshot host does: there is no word of this module in its answer",
                    self.url
                );
            }
            return Ok(SwapAnswer { report: body, refusal: None });
        }
        let report = body.pointer_mut("/error/details").map(Value::take);
        match report.filter(|details| details.get("rooms").is_some()) {
            Some(report) => Ok(SwapAnswer { report, refusal: Some(Self::refusal(&body)) }),
            None => bail!("{}", Self::refusal(&body)),
        }
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.http.post(format!("{}{path}", self.url)).json(body);
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.reveal()),
            None => request,
        };
        self.answer(request).await
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let (is_success, body) = self.ask(request).await?;
        if is_success { Ok(body) } else { bail!("{}", Self::refusal(&body)) }
    }

    /// Whether the request was met, and the body of the answer. A failed one without a body says its status there.
    async fn ask(&self, request: reqwest::RequestBuilder) -> anyhow::Result<(bool, Value)> {
        let response = self.send(request).await?;
        let status = response.status();
        let bytes = self.body(response).await?;
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let is_known = if status.is_success() { body.is_object() } else { body.pointer("/error/message").is_some() };
        if is_known {
            return Ok((status.is_success(), body));
        }
        bail!("{} answered {status}, and not as a Holeshot host does", self.url)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<reqwest::Response> {
        request.send().await.or_else(|error| match tls_problem(&error) {
            Some(problem) => bail!("no TLS with {}: {problem} (--ca FILE names whom to trust)", self.url),
            None => Err(error).with_context(|| {
                let url = &self.url;
                format!("cannot reach a host at {url}; start one with `holeshot serve`, or name it with --url")
            }),
        })
    }

    async fn body(&self, mut response: reqwest::Response) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let broken = || format!("the answer of {} broke off", self.url);
        while let Some(piece) = response.chunk().await.with_context(broken)? {
            if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
                bail!(
                    "the answer of {} is longer than {} MiB; is it a Holeshot host?",
                    self.url,
                    ANSWER_BYTES_MAX >> 20
                );
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    fn refusal(body: &Value) -> String {
        let message = body.pointer("/error/message").and_then(Value::as_str).unwrap_or("nothing");
        format!("the host says: {message}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What a swap becomes where each request gets this answer.
    async fn swap_against(body: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Api::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _request = stream.read(&mut [0; 4 << 10]).await;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let token = AdminToken::parse("a-token-that-is-long-enough").unwrap();
        api.swap("drag-race", "all", &token, b"\0asm".to_vec()).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn what_answers_200_to_anything_has_not_swapped() {
        for body in ["<html>Log in</html>", "", "[]", "{}", r#"{"module":{"hash":"00"},"rooms":[]}"#] {
            let message = swap_against(body).await;
            assert!(message.contains("not as a Holeshot host does"), "{body}: {message}");
        }
    }
}
