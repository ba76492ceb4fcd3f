//! The task behind a client: it owns the sockets, keeps the session alive, decides between UDP and the WebSocket, and
//! opens a lost connection again. It takes commands and inputs from the handle and gives events and snapshots back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use holeshot_wire::datagram::DATAGRAM_BYTES_MAX;
use holeshot_wire::payload::Encode;
use holeshot_wire::{ByeCode, ClientMessage, HostMessage, Joined, OpenError, Phase, Reassembler, ToClient, ToHost};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::incoming::{Carrier, Event, Incoming};
use crate::link::{self, Link, UdpLink, WebSocket};
use crate::options::{ConnectError, ConnectOptions};
use crate::shared::Shared;

/// How often the task looks at its deadlines, in milliseconds.
const HOUSEKEEPING_MS: u64 = 50;

/// How often the address is probed until the host has confirmed it, in microseconds.
const PROBE_EVERY_US: u64 = 100_000;

/// How long UDP may stay unconfirmed at the start before the WebSocket takes over, in microseconds.
const UDP_CONFIRM_US_MAX: u64 = 2_000_000;

/// How long UDP may be silent before the WebSocket takes over, in microseconds: four pings without an answer.
const UDP_SILENT_US_MAX: u64 = 2_000_000;

/// How often UDP is probed while the WebSocket stands in for it, in microseconds.
const UDP_RETRY_EVERY_US: u64 = 3_000_000;

/// How often a payload measures the round trip and keeps the path open, in microseconds. Twice as often as the protocol
/// asks, so that silence shows within [`UDP_SILENT_US_MAX`].
const PING_EVERY_US: u64 = 500_000;

/// How often the WebSocket itself is tried with a ping, in microseconds.
const WEBSOCKET_PING_EVERY_US: u64 = 1_000_000;

/// How long the WebSocket may be silent before it counts as lost, in microseconds: a broken path gives no other sign for
/// minutes.
const WEBSOCKET_SILENT_US_MAX: u64 = 5_000_000;

/// How long a write to the WebSocket may take before it counts as lost, in milliseconds.
const WEBSOCKET_WRITE_MS_MAX: u64 = 5_000;

/// How long closing may take, in milliseconds.
const CLOSE_MS_MAX: u64 = 1_000;

/// How many actions may be without a result; more are refused here. Hosts keep the results of 64 to answer repeats.
const ACTIONS_UNANSWERED_MAX: usize = 64;

/// How many datagrams are taken off the socket in a row before anything else gets a turn.
const DATAGRAMS_IN_A_ROW_MAX: usize = 32;

/// How many notices may wait beside the events. They tell of the connection, a few per minute.
const NOTICES_WAITING_MAX: usize = 32;

/// The pauses before the attempts to reconnect: the first, and the longest, in milliseconds.
const RECONNECT_PAUSE_MS: (u64, u64) = (100, 2_000);

/// A session that lasted this long ends a row of failed attempts, in microseconds.
const STABLE_SESSION_US: u64 = 5_000_000;

/// What the handle asks for.
pub(crate) enum Command {
    Ready,
    Action { id: u64, text: String },
    Leave,
}

/// What the task woke up for.
enum Turn {
    /// The handle is gone.
    Dropped,
    /// There is a place for what is pending.
    Place,
    WebSocket(Option<Result<Message, tungstenite::Error>>),
    Command(Command),
    Datagram(std::io::Result<usize>),
    /// There are inputs to send.
    Inputs,
    /// Deadlines are to be looked at.
    House,
}

/// How a session ended.
enum End {
    /// The handle is gone.
    Dropped,
    /// The connection broke.
    Lost(ConnectError),
    /// The host said goodbye, or has nothing more to say after we did.
    Over(Option<Box<Incoming>>),
}

impl End {
    fn over(last: Incoming) -> Self {
        Self::Over(Some(Box::new(last)))
    }
}

pub(crate) struct Driver {
    options: ConnectOptions,
    shared: Arc<Shared>,
    events: mpsc::Sender<Incoming>,
    commands: mpsc::Receiver<Command>,
    alive: oneshot::Receiver<()>,
    /// What did not fit into `events` yet. While there is something, the WebSocket is not read.
    pending: VecDeque<Incoming>,
    /// The ticket for the next connection: the last that a welcome brought. It is kept until another one comes, because the
    /// host takes it again while nothing shows that its answer arrived.
    ticket: String,
    /// The last event seen.
    last_seq: Option<u64>,
    /// Actions without a result, oldest first: id and message.
    unanswered: VecDeque<(u64, String)>,
    said_ready: bool,
    said_leave: bool,
}

/// Where a session stands with UDP.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UdpStage {
    /// Since then, our address is not confirmed.
    Probing { since_us: u64 },
    /// Payloads travel here.
    Live,
    /// Given up for now, at that moment.
    Silent { since_us: u64 },
}

/// What the task knows about the session that is open.
struct Session {
    websocket: WebSocket,
    udp: Option<UdpLink>,
    stage: UdpStage,
    carrier: Option<Carrier>,
    joiner: Reassembler,
    /// The host takes acknowledgements beside those in inputs.
    acknowledges: bool,
    opened_us: u64,
    last_udp_us: u64,
    last_snapshot_us: Option<u64>,
    last_websocket_us: u64,
    next_probe_us: u64,
    next_ping_us: u64,
    next_websocket_ping_us: u64,
    /// For encoding and sealing.
    payload: Vec<u8>,
    datagram: Vec<u8>,
}

impl Driver {
    pub(crate) fn new(
        options: ConnectOptions,
        shared: Arc<Shared>,
        events: mpsc::Sender<Incoming>,
        commands: mpsc::Receiver<Command>,
        alive: oneshot::Receiver<()>,
    ) -> Self {
        let last_seq = options.after;
        Self {
            ticket: options.ticket.clone(),
            options,
            shared,
            events,
            commands,
            alive,
            pending: VecDeque::new(),
            last_seq,
            unanswered: VecDeque::new(),
            said_ready: false,
            said_leave: false,
        }
    }

    /// Keeps the session until the handle is dropped, the host says goodbye, or the host cannot be reached any more.
    pub(crate) async fn run(mut self, link: Link) {
        self.run_sessions(link).await;
        self.shared.lock().is_closed = true;
        // What is left is still handed out, unless nobody is there to take it.
        while let Some(incoming) = self.pending.pop_front() {
            tokio::select! {
                _ = &mut self.alive => return,
                sent = self.events.send(incoming) => if sent.is_err() { return },
            }
        }
    }

    async fn run_sessions(&mut self, link: Link) {
        let mut attempts = 0;
        let mut link = link;
        loop {
            let opened_us = self.shared.now_us();
            let mut error = match self.run_session(link).await {
                End::Dropped => return,
                End::Over(last) => {
                    self.pending.extend(last.map(|last| *last));
                    return;
                }
                End::Lost(error) => error,
            };
            if self.said_leave {
                // The player is gone either way.
                return;
            }
            if self.shared.now_us() - opened_us >= STABLE_SESSION_US {
                attempts = 0;
            }
            self.shared.restart();
            if self.options.reconnect_attempts_max > 0 {
                self.notice(Incoming::Reconnecting { reason: error.to_string() });
            }
            link = loop {
                if attempts >= self.options.reconnect_attempts_max || !error.may_retry() {
                    self.pending.push_back(Incoming::Disconnected { error });
                    return;
                }
                self.flush_pending();
                let pause = pause(attempts);
                attempts += 1;
                let opened = tokio::select! {
                    _ = &mut self.alive => return,
                    opened = async {
                        tokio::time::sleep(pause).await;
                        link::open(&self.options, &self.ticket, self.last_seq).await
                    } => opened,
                };
                match opened {
                    Ok(link) => break link,
                    Err(failed) => error = failed,
                }
            };
            self.shared.lock().stats.reconnects += 1;
            self.notice(Incoming::Reconnected(link.welcome.clone()));
        }
    }

    async fn run_session(&mut self, link: Link) -> End {
        if let Some(resume) = link.resume {
            self.ticket = resume;
        }
        let now_us = self.shared.now_us();
        let phase = link.welcome.phase;
        let has_udp = link.udp.is_some();
        let mut session = Session {
            websocket: link.websocket,
            udp: link.udp,
            stage: UdpStage::Probing { since_us: now_us },
            carrier: None,
            joiner: if link.deltas { Reassembler::with_deltas() } else { Reassembler::new() },
            acknowledges: link.deltas,
            opened_us: now_us,
            last_udp_us: now_us,
            last_snapshot_us: None,
            last_websocket_us: now_us,
            next_probe_us: now_us,
            next_ping_us: now_us,
            next_websocket_ping_us: now_us + WEBSOCKET_PING_EVERY_US,
            payload: Vec::with_capacity(DATAGRAM_BYTES_MAX),
            datagram: Vec::with_capacity(DATAGRAM_BYTES_MAX),
        };
        if !has_udp {
            self.carry(&mut session, Carrier::WebSocket);
        }
        let end = match self.repeat_unanswered(&mut session, phase).await {
            Ok(()) => self.serve(&mut session).await,
            Err(end) => end,
        };
        // Over or not, the host should learn at once that this connection ends.
        let limit = Duration::from_millis(CLOSE_MS_MAX);
        let _ = tokio::time::timeout(limit, session.websocket.close(None)).await;
        end
    }

    /// What the host may not have got before the connection broke.
    async fn repeat_unanswered(&mut self, session: &mut Session, phase: Phase) -> Result<(), End> {
        let is_before_start = matches!(phase, Phase::Opened | Phase::Gathering | Phase::Readying);
        if self.said_ready && is_before_start {
            session.send_message(&ClientMessage::Ready).await?;
        }
        for (_, text) in &self.unanswered {
            session.send_text(text.clone()).await?;
        }
        Ok(())
    }

    async fn serve(&mut self, session: &mut Session) -> End {
        let mut housekeeping = tokio::time::interval(Duration::from_millis(HOUSEKEEPING_MS));
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
        loop {
            let turn = tokio::select! {
                _ = &mut self.alive => Turn::Dropped,
                place = self.events.reserve(), if !self.pending.is_empty() => match place {
                    Ok(_) => Turn::Place,
                    Err(_) => Turn::Dropped,
                },
                message = session.websocket.next(), if self.pending.is_empty() => Turn::WebSocket(message),
                Some(command) = self.commands.recv() => Turn::Command(command),
                received = receive(session.udp.as_ref(), &mut buffer) => Turn::Datagram(received),
                () = self.shared.outbox_filled.notified() => Turn::Inputs,
                _ = housekeeping.tick() => Turn::House,
            };
            let step = match turn {
                Turn::Dropped => Err(End::Dropped),
                Turn::Place => Ok(()),
                Turn::WebSocket(message) => self.on_websocket(session, message).await,
                Turn::Command(command) => self.on_command(session, command).await,
                Turn::Datagram(received) => self.on_datagrams(session, received, &mut buffer).await,
                Turn::Inputs => self.send_inputs(session).await,
                Turn::House => self.keep_house(session).await,
            };
            self.flush_pending();
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn on_command(&mut self, session: &mut Session, command: Command) -> Result<(), End> {
        match command {
            Command::Ready => {
                self.said_ready = true;
                session.send_message(&ClientMessage::Ready).await
            }
            Command::Leave => {
                self.said_leave = true;
                session.send_message(&ClientMessage::Leave).await
            }
            Command::Action { id, .. } if self.unanswered.len() >= ACTIONS_UNANSWERED_MAX => {
                let reason = format!("{ACTIONS_UNANSWERED_MAX} actions wait for a result");
                self.pending.push_back(Incoming::ActionResult { id, accepted: false, reason: Some(reason) });
                Ok(())
            }
            Command::Action { id, text } => {
                self.unanswered.push_back((id, text.clone()));
                session.send_text(text).await
            }
        }
    }

    async fn on_websocket(
        &mut self,
        session: &mut Session,
        message: Option<Result<Message, tungstenite::Error>>,
    ) -> Result<(), End> {
        let closed = |reason: String| match self.said_leave {
            true => End::Over(None),
            false => End::Lost(lost(reason)),
        };
        session.last_websocket_us = self.shared.now_us();
        match message {
            Some(Ok(Message::Text(text))) => self.on_message(&text),
            Some(Ok(Message::Binary(payload))) => self.on_payload(session, &payload, Carrier::WebSocket).await,
            Some(Ok(Message::Close(_))) | None => Err(closed("the host closed the connection".into())),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(()),
            Some(Err(error)) => Err(closed(error.to_string())),
        }
    }

    fn on_message(&mut self, text: &str) -> Result<(), End> {
        let message = HostMessage::decode(text).map_err(|error| {
            // The same message would come again after a reconnect.
            let error = ConnectError::Protocol { reason: error.to_string() };
            End::over(Incoming::Disconnected { error })
        })?;
        match message {
            HostMessage::Event { seq, name, frame, time_ms, data } => {
                if self.last_seq.is_none_or(|last| seq > last) {
                    self.last_seq = Some(seq);
                    self.shared.lock().stats.events_received += 1;
                    let event = Event { seq, name, frame, time_ms, data };
                    self.pending.push_back(Incoming::Event(event));
                }
                Ok(())
            }
            HostMessage::ActionResult { id, accepted, reason } => {
                // A result may come twice if the action was repeated.
                let before = self.unanswered.len();
                self.unanswered.retain(|(waiting, _)| *waiting != id);
                if self.unanswered.len() < before {
                    self.pending.push_back(Incoming::ActionResult { id, accepted, reason });
                }
                Ok(())
            }
            HostMessage::Pong { .. } => Ok(()),
            HostMessage::Bye { code, reason } if code.may_reconnect() && !self.said_leave => {
                Err(End::Lost(lost(format!("the host said goodbye: {code}: {reason}"))))
            }
            HostMessage::Bye { code, reason } => Err(End::over(Incoming::Bye { code, reason })),
            HostMessage::Refused { reason, .. } => Err(End::over(Incoming::Bye { code: ByeCode::Other, reason })),
            HostMessage::Welcome { .. } => {
                let error = ConnectError::Protocol { reason: "a second welcome".into() };
                Err(End::over(Incoming::Disconnected { error }))
            }
        }
    }

    async fn on_datagrams(
        &mut self,
        session: &mut Session,
        first: std::io::Result<usize>,
        buffer: &mut [u8],
    ) -> Result<(), End> {
        let mut received = first;
        for _ in 0..DATAGRAMS_IN_A_ROW_MAX {
            let Ok(bytes) = received else {
                // An ICMP error on a connected socket, or a socket without anything to read: if it is more than that,
                // the silence will show.
                return Ok(());
            };
            self.on_datagram(session, buffer.get_mut(..bytes).unwrap_or_default()).await?;
            let Some(udp) = &session.udp else {
                return Ok(());
            };
            received = udp.socket.try_recv(buffer);
        }
        Ok(())
    }

    async fn on_datagram(&mut self, session: &mut Session, datagram: &mut [u8]) -> Result<(), End> {
        let Some(udp) = &mut session.udp else {
            return Ok(());
        };
        match udp.opener.open(datagram) {
            Ok(opened) => {
                session.last_udp_us = self.shared.now_us();
                self.shared.lock().pacer.on_datagram(opened.sequence);
                self.on_payload(session, opened.payload, Carrier::Udp).await
            }
            Err(OpenError::Duplicate { .. } | OpenError::TooOld { .. }) => {
                self.shared.lock().stats.duplicates += 1;
                Ok(())
            }
            Err(error) => {
                tracing::debug!(%error, "a datagram was refused");
                self.shared.lock().stats.refused += 1;
                Ok(())
            }
        }
    }

    async fn on_payload(&mut self, session: &mut Session, payload: &[u8], carrier: Carrier) -> Result<(), End> {
        match ToClient::decode(payload) {
            Ok(ToClient::Snapshot(part)) => {
                let joined = session.joiner.push(&part);
                let unacknowledged = self.on_joined(joined, &mut session.last_snapshot_us);
                return self.acknowledge(session, unacknowledged).await;
            }
            Ok(ToClient::Delta(part)) => {
                let joined = session.joiner.push_delta(&part);
                if matches!(joined, Joined::Whole(_)) {
                    self.shared.lock().stats.snapshots_from_deltas += 1;
                }
                let unacknowledged = self.on_joined(joined, &mut session.last_snapshot_us);
                return self.acknowledge(session, unacknowledged).await;
            }
            Ok(ToClient::Challenge(bytes)) if carrier == Carrier::Udp => {
                session.send_udp(&ToHost::Response(bytes)).await;
                // The pong shows that the host took the answer: pongs travel as all payloads do.
                session.send_udp(&ToHost::Ping(self.shared.now_us())).await;
            }
            // Challenges are for UDP only.
            Ok(ToClient::Challenge(_)) => {}
            Ok(ToClient::Pong(sent_us)) => {
                let now_us = self.shared.now_us();
                if !(session.opened_us..=now_us).contains(&sent_us) {
                    // Not the token of a ping of this session.
                    self.shared.lock().stats.refused += 1;
                    return Ok(());
                }
                self.shared.on_rtt(now_us - sent_us);
                let confirms = match session.stage {
                    UdpStage::Probing { .. } => true,
                    UdpStage::Live => false,
                    // One from before says nothing about now.
                    UdpStage::Silent { since_us } => sent_us > since_us,
                };
                if carrier == Carrier::Udp && confirms {
                    session.stage = UdpStage::Live;
                    self.carry(session, Carrier::Udp);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a payload was refused");
                self.shared.lock().stats.refused += 1;
            }
        }
        Ok(())
    }

    /// Gives the frame that is to be acknowledged by itself, if one is.
    fn on_joined(&self, joined: Joined<'_>, last_snapshot_us: &mut Option<u64>) -> Option<u32> {
        match joined {
            Joined::Whole(whole) => {
                *last_snapshot_us = Some(self.shared.now_us());
                return self.shared.on_snapshot(&whole).then_some(whole.frame);
            }
            Joined::Partial => {}
            Joined::Stale => self.shared.lock().stats.duplicates += 1,
            Joined::Contradiction => self.shared.lock().stats.refused += 1,
            Joined::BaseMissing { base_frame } => {
                tracing::debug!(?base_frame, "a delta came to a snapshot that is not here");
                self.shared.lock().stats.deltas_lost += 1;
            }
            Joined::NoDelta(error) => {
                tracing::debug!(%error, "a delta cannot be read");
                self.shared.lock().stats.deltas_lost += 1;
            }
        }
        None
    }

    async fn acknowledge(&self, session: &mut Session, frame: Option<u32>) -> Result<(), End> {
        match (frame.filter(|_| session.acknowledges), session.carrier) {
            (Some(frame), Some(Carrier::Udp)) => session.send_udp(&ToHost::Ack(frame)).await,
            (Some(frame), Some(Carrier::WebSocket)) => session.send_payload(&ToHost::Ack(frame)).await?,
            _ => {}
        }
        Ok(())
    }

    async fn send_inputs(&mut self, session: &mut Session) -> Result<(), End> {
        // The lock is not held while sending.
        loop {
            let next = self.shared.lock().outbox.pop_front();
            let Some(payload) = next else {
                return Ok(());
            };
            match session.carrier {
                Some(Carrier::WebSocket) => session.send_binary(payload).await?,
                Some(Carrier::Udp) => session.send_udp_bytes(&payload).await,
                // Without a carrier there was no snapshot, so this is for a frame nobody knows.
                None => continue,
            }
            self.shared.lock().stats.input_payloads_sent += 1;
        }
    }

    async fn keep_house(&mut self, session: &mut Session) -> Result<(), End> {
        let now_us = self.shared.now_us();
        if !self.pending.is_empty() {
            // It is this side that does not read.
            session.last_websocket_us = now_us;
        }
        if now_us - session.last_websocket_us > WEBSOCKET_SILENT_US_MAX {
            return Err(End::Lost(lost("the host is silent".into())));
        }
        if now_us >= session.next_websocket_ping_us {
            session.next_websocket_ping_us = now_us + WEBSOCKET_PING_EVERY_US;
            session.send_message(&ClientMessage::Ping { t: now_us }).await?;
        }
        if session.udp.is_some() {
            self.keep_udp(session, now_us).await?;
        }
        if now_us >= session.next_ping_us {
            session.next_ping_us = now_us + PING_EVERY_US;
            match session.carrier {
                Some(Carrier::Udp) => session.send_udp(&ToHost::Ping(now_us)).await,
                Some(Carrier::WebSocket) => session.send_payload(&ToHost::Ping(now_us)).await?,
                None => {}
            }
        }
        Ok(())
    }

    async fn keep_udp(&mut self, session: &mut Session, now_us: u64) -> Result<(), End> {
        let probe_every_us = match session.stage {
            UdpStage::Probing { since_us } if now_us - since_us > UDP_CONFIRM_US_MAX => {
                return self.fall_back(session, now_us).await;
            }
            UdpStage::Live if self.is_udp_silent(session, now_us) => {
                return self.fall_back(session, now_us).await;
            }
            UdpStage::Live => return Ok(()),
            UdpStage::Probing { .. } => PROBE_EVERY_US,
            UdpStage::Silent { .. } => UDP_RETRY_EVERY_US,
        };
        if now_us >= session.next_probe_us {
            session.next_probe_us = now_us + probe_every_us;
            session.send_udp(&ToHost::Probe).await;
        }
        Ok(())
    }

    /// Nothing comes at all, or small datagrams come and snapshots do not while the player is sending inputs (a path that
    /// drops large packets).
    fn is_udp_silent(&self, session: &Session, now_us: u64) -> bool {
        let is_long_ago = |at_us: u64| now_us.saturating_sub(at_us) > UDP_SILENT_US_MAX;
        let is_playing = self.shared.lock().last_input_us.is_some_and(|at_us| !is_long_ago(at_us));
        is_long_ago(session.last_udp_us) || is_playing && session.last_snapshot_us.is_some_and(is_long_ago)
    }

    async fn fall_back(&mut self, session: &mut Session, now_us: u64) -> Result<(), End> {
        session.stage = UdpStage::Silent { since_us: now_us };
        session.next_probe_us = now_us + UDP_RETRY_EVERY_US;
        self.carry(session, Carrier::WebSocket);
        // The first binary message tells the host.
        session.send_payload(&ToHost::Ping(now_us)).await
    }

    fn carry(&mut self, session: &mut Session, carrier: Carrier) {
        if session.carrier != Some(carrier) {
            session.carrier = Some(carrier);
            self.shared.lock().stats.carrier = Some(carrier);
            self.notice(Incoming::Carrier(carrier));
        }
    }

    fn notice(&mut self, incoming: Incoming) {
        if self.pending.len() < NOTICES_WAITING_MAX {
            self.pending.push_back(incoming);
        }
    }

    /// Hands out what there is room for, without waiting.
    fn flush_pending(&mut self) {
        while !self.pending.is_empty() {
            let Ok(place) = self.events.try_reserve() else {
                return;
            };
            if let Some(incoming) = self.pending.pop_front() {
                place.send(incoming);
            }
        }
    }
}

impl Session {
    async fn send_message(&mut self, message: &ClientMessage) -> Result<(), End> {
        match message.encode() {
            Ok(text) => self.send_text(text).await,
            Err(error) => {
                let error = ConnectError::Protocol { reason: error.to_string() };
                Err(End::over(Incoming::Disconnected { error }))
            }
        }
    }

    async fn send_text(&mut self, text: String) -> Result<(), End> {
        self.send_websocket(Message::text(text)).await
    }

    async fn send_binary(&mut self, payload: Vec<u8>) -> Result<(), End> {
        self.send_websocket(Message::binary(payload)).await
    }

    async fn send_payload(&mut self, payload: &ToHost<'_>) -> Result<(), End> {
        self.payload.clear();
        if payload.encode(&mut self.payload).is_ok() {
            self.send_binary(self.payload.clone()).await?;
        }
        Ok(())
    }

    async fn send_websocket(&mut self, message: Message) -> Result<(), End> {
        let limit = Duration::from_millis(WEBSOCKET_WRITE_MS_MAX);
        match tokio::time::timeout(limit, self.websocket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(End::Lost(lost(error.to_string()))),
            Err(_) => Err(End::Lost(lost("the host does not read".into()))),
        }
    }

    async fn send_udp(&mut self, payload: &ToHost<'_>) {
        self.payload.clear();
        if payload.encode(&mut self.payload).is_ok() {
            let payload = std::mem::take(&mut self.payload);
            self.send_udp_bytes(&payload).await;
            self.payload = payload;
        }
    }

    /// A datagram that cannot be sent is a datagram lost.
    async fn send_udp_bytes(&mut self, payload: &[u8]) {
        let Some(udp) = &mut self.udp else {
            return;
        };
        if let Err(error) = udp.sealer.seal_bytes(payload, &mut self.datagram) {
            tracing::debug!(%error, "a payload was not sealed");
            return;
        }
        if let Err(error) = udp.socket.send(&self.datagram).await {
            tracing::debug!(%error, "a datagram was not sent");
        }
    }
}

async fn receive(udp: Option<&UdpLink>, buffer: &mut [u8]) -> std::io::Result<usize> {
    match udp {
        Some(udp) => udp.socket.recv(buffer).await,
        None => std::future::pending().await,
    }
}

fn lost(reason: String) -> ConnectError {
    ConnectError::Io { what: "the host any more".into(), reason }
}

/// The pause before an attempt: it doubles, and is spread by up to a half, so that the players of a room do not all come
/// back at once.
fn pause(attempt: u32) -> Duration {
    let (first_ms, longest_ms) = RECONNECT_PAUSE_MS;
    let ms = first_ms.saturating_mul(1 << attempt.min(10)).min(longest_ms);
    let mut random = [0; 1];
    let spread = match getrandom::fill(&mut random) {
        Ok(()) => u64::from(random[0]),
        Err(_) => 0,
    };
    Duration::from_millis(ms - ms * spread / 512)
}
