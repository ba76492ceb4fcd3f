//! A player's WebSocket: the upgrade, the hello with its ticket and handshake, then messages both ways until either side ends it. What messages
//! mean is the shard's business.

mod line;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holeshot_wire::message::CLIENT_MESSAGE_BYTES_MAX;
use holeshot_wire::{ByeCode, ClientMessage, HostMessage, PROTOCOL_VERSION, RefusalCode};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::{self, Message};

use self::line::{Line, Say};
use super::entry::{self, Hello};
use super::gate::{Allowance, Client, Gate, Limit, MessageLimits, Place};
use super::http::{ApiError, Doors};
use crate::shard::{Command, Outbound, OutboundReceiver, SessionId, SessionLimits, ShardHandle, outbound};

/// How long a client has for its hello, in seconds: it has nothing else to do first.
pub const HELLO_WAIT_S: u64 = 5;
/// How long a WebSocket may be silent before the host asks whether it still lives, in seconds.
pub const SILENCE_PING_S: u64 = 10;
/// How long it may be silent before it is taken for dead, in seconds: two pings unanswered.
pub const SILENCE_MAX_S: u64 = 30;
/// How long a client may take to accept one message before it is dropped, in seconds.
pub const SEND_WAIT_MAX_S: u64 = 10;
/// How long a message may wait until its address, or all together, have said less, in seconds. Nothing is read meanwhile, so that the client waits, too.
const HELD_UP_MAX_S: u64 = 10;
/// Silent WebSockets are looked at at multiples of this time, in milliseconds: the timers of a thousand of them then wake a thread ten times a second at most.
const SILENCE_LOOK_MS: u64 = 100;

/// Counts open WebSockets.
#[derive(Debug)]
pub struct SocketCount {
    open: watch::Sender<usize>,
    max: u32,
}

impl SocketCount {
    /// Counts up to `max`.
    #[must_use]
    pub fn new(max: u32) -> Self {
        Self { open: watch::Sender::new(0), max }
    }

    /// How many are open.
    #[must_use]
    pub fn open(&self) -> usize {
        *self.open.borrow()
    }

    /// How many may be open.
    #[must_use]
    pub const fn max(&self) -> u32 {
        self.max
    }

    /// Waits until none is open.
    pub async fn none_left(&self) {
        let mut open = self.open.subscribe();
        // It fails only when the sender is gone, and that is `self`.
        let _ = open.wait_for(|open| *open == 0).await;
    }
}

/// One open WebSocket in the count, until it is dropped.
struct Counted(Arc<Doors>);

impl Counted {
    fn new(doors: &Arc<Doors>) -> Option<Self> {
        let max = doors.sockets.max as usize;
        let taken = doors.sockets.open.send_if_modified(|open| {
            let free = *open < max;
            *open += usize::from(free);
            free
        });
        taken.then(|| Self(Arc::clone(doors)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.sockets.open.send_modify(|open| *open = open.saturating_sub(1));
    }
}

type Stream = TokioIo<hyper::upgrade::Upgraded>;
/// In a box: a future that hands it on has it twice otherwise.
type Socket = Box<Line<Stream>>;

/// Answers a request for a WebSocket.
pub async fn upgrade(
    State(doors): State<Arc<Doors>>,
    Extension(client): Extension<Client>,
    mut request: Request,
) -> Response {
    let value =
        |name: header::HeaderName| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let wants_websocket = value(header::UPGRADE).eq_ignore_ascii_case("websocket")
        && value(header::CONNECTION).split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
        && value(header::SEC_WEBSOCKET_VERSION) == "13";
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let (true, Some(accept)) = (wants_websocket, key) else {
        let message = "this is the players' WebSocket (RFC 6455, version 13); connect with a WebSocket client";
        return ApiError::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", message).into_response();
    };
    let (Some(on_upgrade), Ok(accept)) =
        (request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>(), HeaderValue::from_str(&accept))
    else {
        return ApiError::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", "this connection cannot be upgraded")
            .into_response();
    };
    let half_open = match doors.gate.half_open_websocket(&client) {
        Ok(half_open) => half_open,
        Err(refusal) => return refusal.into_response(),
    };
    let Some(counted) = Counted::new(&doors) else {
        doors.gate.refused().count(Limit::Websockets);
        let max = doors.sockets.max;
        let message = format!(
            "the host has its {max} WebSockets; try again later, or raise its limit `websockets_max` and that on open files (ulimit -n)"
        );
        let refusal = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_sockets", message);
        return ([(header::RETRY_AFTER, "5")], refusal).into_response();
    };
    tokio::spawn(async move {
        if let Ok(upgraded) = on_upgrade.await {
            serve(TokioIo::new(upgraded), &counted.0, &client, half_open).await;
        }
    });
    let headers = [
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

async fn serve(stream: Stream, doors: &Doors, client: &Client, half_open: Place) {
    let mut socket = Box::new(Line::new(stream, CLIENT_MESSAGE_BYTES_MAX));
    // What is over in a moment has a place of its own, and is not kept for as long as the session is.
    let greeted = Box::pin(hello(&mut socket, doors, client)).await;
    drop(half_open);
    match greeted {
        Ok(entered) => converse(socket, entered, doors).await,
        Err(Refusal::Say(code, reason)) => Box::pin(refuse(socket, code, reason)).await,
        Err(Refusal::Gone) => {}
    }
}

async fn refuse(mut socket: Socket, code: RefusalCode, reason: String) {
    tracing::debug!(code = code.as_str(), reason, "session refused");
    let last_words = async {
        if let Ok(text) = (HostMessage::Refused { code, reason }).encode() {
            socket.say(Say::Text(text.into()))?;
        }
        poll_fn(|context| socket.poll_close(context)).await
    };
    let _gone = timeout(Duration::from_secs(SEND_WAIT_MAX_S), last_words).await;
    linger(&mut socket).await;
}

/// A session that is open.
struct Entered {
    session: SessionId,
    shard: ShardHandle,
    messages: OutboundReceiver,
    limits: SessionLimits,
    /// Its place among the sessions of its address.
    _place: Place,
}

enum Refusal {
    /// The client is told.
    Say(RefusalCode, String),
    /// There is nobody to tell.
    Gone,
}

impl Refusal {
    fn say(code: RefusalCode, reason: impl Into<String>) -> Self {
        Self::Say(code, reason.into())
    }
}

/// Reads the first message, which must be text.
async fn first_text(socket: &mut Socket) -> Result<tungstenite::Utf8Bytes, Refusal> {
    loop {
        match poll_fn(|context| socket.poll_read(context)).await {
            Some(Ok(Message::Text(text))) => return Ok(text),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_))) | None => return Err(Refusal::Gone),
            Some(Ok(_)) => {
                return Err(Refusal::say(RefusalCode::BadMessage, "the first message must be `hello`, as text"));
            }
            Some(Err(error)) => return Err(Refusal::say(RefusalCode::BadMessage, error.to_string())),
        }
    }
}

/// Reads the hello and attaches the player to its room.
async fn hello(socket: &mut Socket, doors: &Doors, client: &Client) -> Result<Box<Entered>, Refusal> {
    // Only the client's part has a limit: a time-out after the shard took the player would leave a session that nobody reads.
    let text = timeout(Duration::from_secs(HELLO_WAIT_S), first_text(socket))
        .await
        .map_err(|_| Refusal::say(RefusalCode::HelloTimeout, format!("no hello came within {HELLO_WAIT_S} s")))??;
    let message =
        ClientMessage::decode(&text).map_err(|error| Refusal::say(RefusalCode::BadMessage, error.to_string()))?;
    socket.forget_first(text.len());
    drop(text);
    let ClientMessage::Hello { protocol, ticket, noise, after, deltas } = message else {
        return Err(Refusal::say(RefusalCode::BadMessage, "the first message must be `hello`"));
    };
    if protocol != PROTOCOL_VERSION {
        let reason = format!(
            "the client speaks protocol {protocol}, this host {PROTOCOL_VERSION}; use a client of this host's version"
        );
        return Err(Refusal::say(RefusalCode::ProtocolVersion, reason));
    }
    doors.gate.ticket(client).map_err(|refusal| Refusal::say(RefusalCode::TooManyAttempts, refusal.to_string()))?;
    let (place, allowance) = doors
        .gate
        .session(client)
        .map_err(|refusal| Refusal::say(RefusalCode::TooManySessions, refusal.to_string()))?;
    let limits = SessionLimits { said: doors.session_limits.said.at(allowance), ..doors.session_limits.clone() };
    let (outbound, messages) = outbound(limits.clone());
    let (session, shard) =
        entry::enter(doors, Hello { ticket, noise, after, deltas }, outbound).await.map_err(|(code, reason)| {
            if matches!(code, RefusalCode::BadTicket | RefusalCode::ExpiredTicket | RefusalCode::WrongRoom) {
                doors.gate.bad_ticket(client);
            }
            Refusal::Say(code, reason)
        })?;
    Ok(Box::new(Entered { session, shard, messages, limits, _place: place }))
}

/// What the two sides of a session's task, that which reads and that which writes, have of each other. Nobody else has it: the lock is for the compiler.
struct Talk(Mutex<Both>);

struct Both {
    socket: Socket,
    /// What the reader has to say. The writer alone writes, and after a goodbye nothing else.
    answer: Option<Answer>,
    /// The reader waits until its answer before this one is taken.
    has_more: bool,
    /// The reader has ended.
    has_said_all: bool,
    /// Since when the reader has waited for a message, if it does.
    silent_since: Option<Instant>,
}

impl Talk {
    fn lock(&self) -> MutexGuard<'_, Both> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next message; none at the end.
    async fn next(&self) -> Option<Result<Message, tungstenite::Error>> {
        self.lock().silent_since = Some(Instant::now());
        let next = poll_fn(|context| self.lock().socket.poll_read(context)).await;
        self.lock().silent_since = None;
        next
    }

    /// Leaves something to say to the writer, which looks after the reader did. Meanwhile nothing is read: who does not take answers gets none.
    async fn answer(&self, answer: Answer) {
        let mut answer = Some(answer);
        poll_fn(|_| {
            let mut both = self.lock();
            both.has_more = both.answer.is_some();
            if both.has_more {
                return Poll::Pending;
            }
            both.answer = answer.take();
            Poll::Ready(())
        })
        .await;
    }

    /// Sends one message, within a time.
    async fn send(&self, say: Say) -> Result<(), tungstenite::Error> {
        self.lock().socket.say(say)?;
        self.in_time(|context, socket| socket.poll_written(context)).await
    }

    /// Closes the WebSocket, within a time. False if the client does not take that.
    async fn close(&self) -> bool {
        self.in_time(|context, socket| socket.poll_close(context)).await.is_ok()
    }

    /// Writes. A timer is made only when the system does not take all at once.
    async fn in_time(
        &self,
        poll: impl Fn(&mut Context<'_>, &mut Socket) -> Poll<Result<(), tungstenite::Error>>,
    ) -> Result<(), tungstenite::Error> {
        let mut written = poll_fn(|context| poll(context, &mut self.lock().socket));
        if let Poll::Ready(written) = poll_fn(|context| Poll::Ready(Pin::new(&mut written).poll(context))).await {
            return written;
        }
        match Box::pin(timeout(Duration::from_secs(SEND_WAIT_MAX_S), written)).await {
            Ok(written) => written,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }
}

/// Moves messages both ways until one side ends it.
async fn converse(socket: Socket, entered: Box<Entered>, doors: &Doors) {
    let both = Both { socket, answer: None, has_more: false, has_said_all: false, silent_since: None };
    let talk = Talk(Mutex::new(both));
    let Entered { session, shard, limits, .. } = &*entered;
    let is_told = {
        let reader = pin!(read(&talk, *session, shard, Says::new(&doors.gate, &limits.said)));
        let mut writer = pin!(write(&talk, &entered.messages, &doors.gate));
        tokio::select! {
            biased;
            // The writer ends by itself once it has sent the reader's last words; a client that takes nothing gets no more time.
            () = reader => {
                talk.lock().has_said_all = true;
                Box::pin(timeout(Duration::from_secs(1), writer)).await.unwrap_or(false)
            }
            is_told = &mut writer => is_told,
        }
    };
    shard.send(Command::Detach(*session)).await;
    if is_told {
        let mut socket = talk.0.into_inner().unwrap_or_else(PoisonError::into_inner).socket;
        linger(&mut socket).await;
    }
}

/// Writes what the shard and the reader have to say, until there is nothing more. True if the client was told that this is the end.
async fn write(talk: &Talk, messages: &OutboundReceiver, gate: &Gate) -> bool {
    let mut look = pin!(sleep_until(silence_look(gate, Duration::from_secs(SILENCE_PING_S))));
    let mut said_goodbye = false;
    while !said_goodbye {
        let say = match poll_fn(|context| poll_next(talk, messages, gate, look.as_mut(), context)).await {
            Next::Say(say) => say,
            Next::Goodbye(text) => {
                said_goodbye = true;
                Say::Text(text.into())
            }
            Next::Over => break,
        };
        if talk.send(say).await.is_err() {
            // Who takes no message takes no goodbye either: its room hears of it now, not after the time for closing.
            return false;
        }
    }
    talk.close().await
}

/// What a writer does next.
enum Next {
    Say(Say),
    /// The last words: the WebSocket closes behind them.
    Goodbye(String),
    Over,
}

fn poll_next(
    talk: &Talk,
    messages: &OutboundReceiver,
    gate: &Gate,
    mut look: Pin<&mut Sleep>,
    context: &mut Context<'_>,
) -> Poll<Next> {
    match messages.poll_recv(context) {
        Poll::Ready(Some(Outbound::Text(text))) => return Poll::Ready(Next::Say(Say::Text(text.into()))),
        Poll::Ready(Some(Outbound::Binary(bytes))) => return Poll::Ready(Next::Say(Say::Binary(bytes))),
        // The shard has said goodbye, or has dropped a session that was too slow.
        Poll::Ready(Some(Outbound::Close) | None) => return Poll::Ready(Next::Over),
        Poll::Pending => {}
    }
    let mut both = talk.lock();
    if let Some(answer) = both.answer.take() {
        if both.has_more {
            context.waker().wake_by_ref();
        }
        return Poll::Ready(match answer {
            Answer::Message(text) => Next::Say(Say::Text(text.into())),
            Answer::Goodbye(text) => Next::Goodbye(text),
        });
    }
    // The client is gone, and what the reader had to say is said.
    if both.has_said_all {
        return Poll::Ready(Next::Over);
    }
    let (ping, max) = (Duration::from_secs(SILENCE_PING_S), Duration::from_secs(SILENCE_MAX_S));
    while look.as_mut().poll(context).is_ready() {
        // A reader that does not wait for its client has no silent one.
        let silent = both.silent_since.map_or(Duration::ZERO, |since| since.elapsed());
        if silent >= max {
            let reason = format!("nothing came for {SILENCE_MAX_S} s");
            let bye = (HostMessage::Bye { code: ByeCode::Idle, reason }).encode();
            return Poll::Ready(bye.map_or(Next::Over, Next::Goodbye));
        }
        let is_silent = silent >= ping;
        let wait = if is_silent { ping } else { ping.saturating_sub(silent) };
        look.as_mut().reset(silence_look(gate, wait));
        if is_silent {
            return Poll::Ready(Next::Say(Say::Ping));
        }
    }
    Poll::Pending
}

/// When a WebSocket is looked at that is to be looked at after this time.
fn silence_look(gate: &Gate, wait: Duration) -> Instant {
    let now = Duration::from_micros(gate.now_us());
    let step_us = SILENCE_LOOK_MS * 1_000;
    let at_us = u64::try_from((now + wait).as_micros()).unwrap_or(u64::MAX);
    let at = Duration::from_micros(at_us.checked_next_multiple_of(step_us).unwrap_or(at_us));
    Instant::now() + at.saturating_sub(now)
}

/// Ends the connection beneath a WebSocket that has said its last words, so that its client reads them whatever it goes on to say: the bytes, as a
/// WebSocket that met a frame too long reads no more messages.
async fn linger(socket: &mut Socket) {
    // A client that takes nothing leaves TLS nowhere to say that it ends.
    let _slow = Box::pin(timeout(Duration::from_secs(SEND_WAIT_MAX_S), socket.stream().shutdown())).await;
}

/// What a client says over its WebSocket.
struct Says<'a> {
    gate: &'a Gate,
    limits: &'a MessageLimits,
    said: Allowance,
}

impl<'a> Says<'a> {
    fn new(gate: &'a Gate, limits: &'a MessageLimits) -> Self {
        Self { gate, limits, said: Allowance::default() }
    }

    /// Takes a message of this length, when its address and all together may say so much; or says which limit forbids it. A session that is beyond its own
    /// limits is not honest. One whose neighbours have said too much may be, and its messages come late instead of never.
    async fn take(&mut self, bytes: usize, held_up_max: Duration) -> Result<(), Limit> {
        let mut held_up_until = None;
        loop {
            let Err(over) = self.said.take(self.limits, bytes, self.gate.now_us()) else { return Ok(()) };
            let now = Instant::now();
            let until = *held_up_until.get_or_insert_with(|| {
                self.gate.refused().count(over.limit);
                now + held_up_max
            });
            if over.limit.is_of_session() || now >= until {
                return Err(over.limit);
            }
            Box::pin(sleep_until((now + Duration::from_micros(over.wait_us)).min(until))).await;
        }
    }
}

/// What a reader has to say to its client, as text.
enum Answer {
    Message(String),
    /// The last words: the WebSocket closes behind them.
    Goodbye(String),
}

async fn read(talk: &Talk, session: SessionId, shard: &ShardHandle, mut says: Says<'_>) {
    let bye = async |code, reason: String| {
        if let Ok(text) = (HostMessage::Bye { code, reason }).encode() {
            talk.answer(Answer::Goodbye(text)).await;
        }
    };
    // A ping is answered here; the first one still tells the room that the client has its welcome.
    let mut is_heard = false;
    loop {
        let message = match talk.next().await {
            Some(Ok(message)) => message,
            Some(Err(tungstenite::Error::Capacity(error))) => return bye(ByeCode::BadMessage, error.to_string()).await,
            Some(Err(_)) | None => return,
        };
        if let Err(limit) = says.take(message.len(), Duration::from_secs(HELD_UP_MAX_S)).await {
            let max = says.gate.limits().get(limit);
            let reason = format!("more than the limit `{limit}` of this host allows: {max}");
            return bye(ByeCode::TooManyMessages, reason).await;
        }
        let command = match message {
            Message::Text(text) => match ClientMessage::decode(&text) {
                Ok(ClientMessage::Ready) => Command::Ready(session),
                Ok(ClientMessage::Action { id, data }) => Command::Action(session, id, data.to_string()),
                Ok(ClientMessage::Leave) => Command::Leave(session),
                Ok(ClientMessage::Ping { t }) => {
                    if !std::mem::replace(&mut is_heard, true) && !shard.send(Command::Heard(session)).await {
                        return;
                    }
                    if let Ok(text) = (HostMessage::Pong { t }).encode() {
                        talk.answer(Answer::Message(text)).await;
                    }
                    continue;
                }
                Ok(ClientMessage::Hello { .. }) => {
                    return bye(
                        ByeCode::BadMessage,
                        "a second `hello`; open another WebSocket for another session".into(),
                    )
                    .await;
                }
                Err(error) => return bye(ByeCode::BadMessage, error.to_string()).await,
            },
            Message::Binary(bytes) => Command::Payload(session, bytes),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        if !shard.send(command).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::doors::gate::{LimitSetting, Limits, Rules, SharedAllowance};

    #[tokio::test]
    async fn who_has_loud_neighbours_waits_and_who_waits_too_long_is_told_why() {
        let limits = Limits::new(&[LimitSetting::new(Limit::AddressMessages, 1)]).unwrap();
        let gate = Gate::new(Rules { limits, ..Rules::default() }, Clock::start());
        let address = Arc::new(SharedAllowance::of_address(&limits));
        let limits = MessageLimits::new(&limits).at(Some(address));
        let (mut loud, mut quiet) = (Allowance::default(), Says::new(&gate, &limits));
        let counted = || gate.refused().get(Limit::AddressMessages);
        // A machine that stands still for a second gives the allowance back, so each may take more than one try.
        while counted() == 0 {
            while loud.take(&limits, 1, gate.now_us()).is_ok() {}
            quiet.take(1, Duration::from_secs(60)).await.unwrap();
        }
        assert_eq!(counted(), 1, "one that waits is counted once, however often it asks");
        loop {
            while loud.take(&limits, 1, gate.now_us()).is_ok() {}
            if let Err(limit) = quiet.take(1, Duration::ZERO).await {
                assert_eq!((limit, counted()), (Limit::AddressMessages, 2));
                break;
            }
        }
    }
}
