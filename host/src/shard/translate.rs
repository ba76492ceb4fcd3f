//! Between the wire and the room: the one module that knows both. What leaves a room becomes messages, payloads and events.

use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use holeshot_abi::count_inputs;
use holeshot_room::{AbortReason, ActionOutcome, Departure, EventSource, LeftReason, Outcome, Phase, PublicEvent, Ran};
use holeshot_wire::{
    ByeCode, HandshakeMessage, HostMessage, PlayerName, Route, RulesInfo, SentToAll, Snapshot, ToClient, snapshot_parts,
};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::meter::Operation;
use super::outgoing::Outgoing;
use super::seats::Spectator;
use super::session::{SessionId, Sessions};
use super::shed::Shed;
use super::{RoomSlot, ShardCounters, count, emit};
use crate::clock::Clock;
use crate::events::{EventSink, InternalEvent};
use crate::journal::RoomJournal;
use crate::metrics::budget::{ModuleBudgets, RoomBudget};
use crate::rooms::{LiveRoom, ModuleName};
use crate::swap::FailedModule;

/// Takes what leaves one room in one step and sends it where it belongs.
pub(super) struct Departures<'a> {
    pub(super) live: &'a LiveRoom,
    pub(super) journal: &'a mut RoomJournal,
    pub(super) players: &'a mut [Option<SessionId>],
    pub(super) spectators: &'a [Spectator],
    /// What the players are told when the room closes.
    pub(super) farewell: &'a mut ByeCode,
    pub(super) sessions: &'a mut Sessions,
    /// What the room's snapshots for everybody were.
    pub(super) sent_to_all: &'a mut Option<Box<SentToAll>>,
    pub(super) outgoing: &'a mut Outgoing,
    pub(super) sink: &'a EventSink,
    pub(super) counters: &'a ShardCounters,
    pub(super) clock: Clock,
    /// What the room's rules cost, and those of its shard's other rooms.
    pub(super) budget: &'a mut RoomBudget,
    pub(super) modules: &'a mut ModuleBudgets,
    /// Which snapshots are left out.
    pub(super) shed: &'a mut Shed,
    /// Whether a frame was stepped.
    pub(super) ticked: bool,
    /// Time that the journal took, if operations are timed.
    pub(super) journal_ns: u64,
    /// Sessions that could not take a message that must not be lost: to be detached after the step.
    pub(super) lost: Vec<SessionId>,
}

impl Departures<'_> {
    pub(super) fn send(&mut self, departure: Departure<'_>) {
        let begun = self.counters.meter.begin();
        self.journal.note(&departure);
        self.journal_ns += begun.map_or(0, nanoseconds_since);
        self.budget.note(self.modules, &departure);
        match departure {
            Departure::PhaseChanged { phase } => {
                tracing::debug!(room = self.live.id, phase = phase.as_str(), "phase");
                self.counters.note_phase(self.live.weight, self.live.phase(), Some(phase));
                self.live.set_phase(phase);
            }
            Departure::PublicEvent(event) => {
                count(&self.counters.public_events, 1);
                let begun = self.counters.meter.begin();
                let text = self::event(&event, self.clock);
                for at in 0..self.players.len() {
                    self.text(at, &text);
                }
                for spectator in self.spectators {
                    self.text_to(spectator.session, &text);
                }
                self.counters.meter.end(Operation::PublicEvent, begun);
            }
            Departure::InternalEvent { source, kind, frame, json } => self.internal_event(source, kind, frame, json),
            Departure::PlayerLeft { player, reason } => {
                let at = usize::from(player);
                if let Some(id) = self.players.get_mut(at).and_then(Option::take) {
                    let code = if reason == LeftReason::Quit { ByeCode::Left } else { ByeCode::Removed };
                    self.sessions.end(id, code, reason.as_str());
                }
            }
            Departure::Tick { frame, record, ran } => {
                self.live.set_frame(frame);
                self.ticked = true;
                count(&self.counters.ticks, 1);
                let [absent, fresh, repeated] = count_inputs(record).map(u64::from);
                count(&self.counters.inputs_fresh, fresh);
                count(&self.counters.inputs_repeated, repeated);
                count(&self.counters.inputs_absent, absent);
                if let Ran::Stepped { usage, .. } = ran {
                    self.counters.meter.took(Operation::Rules, usage.time_ns);
                }
                if let Ran::Skipped { fault } = ran {
                    count(&self.counters.ticks_skipped, 1);
                    tracing::warn!(room = self.live.id, module = self.live.module, frame, %fault, "the rules took too long; this frame goes on without them");
                }
            }
            Departure::Checkpoint { .. } => {}
            Departure::RulesSwapped { next_frame, from, to } => {
                count(&self.counters.rules_swapped, 1);
                let (from, to) = (ModuleName::of_program(from), ModuleName::of_program(to));
                tracing::debug!(
                    room = self.live.id,
                    module = to.name,
                    next_frame,
                    from = from.hash,
                    to = to.hash,
                    "new rules took over, on probation"
                );
                self.live.rules.swapped(to);
            }
            Departure::RulesKept { next_frame } => {
                tracing::debug!(
                    room = self.live.id,
                    module = self.live.module,
                    next_frame,
                    "the new rules passed their probation"
                );
                self.live.rules.kept();
            }
            Departure::RulesRolledBack { since_frame, frame, failed, to, fault, .. } => {
                count(&self.counters.rules_rolled_back, 1);
                let (failed, to) = (ModuleName::of_program(failed), ModuleName::of_program(to));
                let backtrace = fault.backtrace.as_deref().unwrap_or_default();
                tracing::warn!(
                    room = self.live.id,
                    module = failed.name,
                    version = failed.version,
                    hash = failed.hash,
                    since_frame,
                    frame,
                    %fault,
                    backtrace,
                    "the new rules failed on probation; the room was taken back and goes on under the former ones"
                );
                let reason = fault.kind.as_str().to_owned();
                let failed = FailedModule { hash: failed.hash, frame: Some(frame), reason, rules_failed: true };
                self.live.rules.rolled_back(to, failed);
            }
            Departure::RulesRetried { frame, fault } => {
                count(&self.counters.rules_retried, 1);
                let backtrace = fault.backtrace.as_deref().unwrap_or_default();
                tracing::warn!(room = self.live.id, module = self.live.module, frame, %fault, backtrace, "the rules failed, and did not when run again");
            }
            Departure::Snapshot { player, frame, bytes, margin_us, last_input_frame, is_shared } => {
                let Some(&mut Some(id)) = self.players.get_mut(usize::from(player)) else { return };
                if self.shed.leaves_out_player(id, frame) {
                    return count(&self.counters.snapshots_shed_players, 1);
                }
                let margin_ms = margin_us.map(margin_ms);
                let whole =
                    Snapshot { frame, part: 0, parts: 1, margin_ms, newest_input_frame: last_input_frame, bytes };
                self.snapshot(id, whole, is_shared);
            }
            Departure::SharedSnapshot { frame, bytes } => {
                let whole = Snapshot { frame, part: 0, parts: 1, margin_ms: None, newest_input_frame: None, bytes };
                for spectator in self.spectators {
                    if self.shed.leaves_out_spectator(spectator.session, frame) {
                        count(&self.counters.snapshots_shed_spectators, 1);
                        continue;
                    }
                    self.snapshot(spectator.session, whole, true);
                }
            }
            Departure::ActionResult { player, id, outcome } => {
                let (accepted, reason) = match outcome {
                    ActionOutcome::Applied { .. } => (true, None),
                    ActionOutcome::Refused(refusal) => (false, Some(refusal.to_string())),
                };
                if let Ok(text) = (HostMessage::ActionResult { id, accepted, reason }).encode() {
                    self.text(usize::from(player), &text.into());
                }
            }
            Departure::TicksLost { count: lost, next_frame } => {
                // A busy machine makes thousands of rooms late at once: each doubling of the sum is news, each room is not.
                let before = self.counters.ticks_lost.fetch_add(lost, Ordering::Relaxed);
                let sum = before.saturating_add(lost);
                if sum.leading_zeros() < before.leading_zeros() {
                    tracing::warn!(room = self.live.id, lost, next_frame, sum, "ticks lost: the shard came too late");
                }
            }
            Departure::RulesFault { frame, fault } => {
                count(&self.counters.rules_faults, 1);
                let backtrace = fault.backtrace.as_deref().unwrap_or_default();
                tracing::error!(
                    room = self.live.id,
                    module = self.live.module,
                    hash = self.live.rules.module().hash,
                    frame,
                    %fault,
                    backtrace,
                    "the rules failed; the room ends"
                );
            }
            Departure::Ended { outcome } => match outcome {
                Outcome::Finished { frames, .. } => {
                    *self.farewell = ByeCode::RoomFinished;
                    tracing::info!(room = self.live.id, frames, "room finished");
                }
                Outcome::Aborted { frames, reason } => {
                    *self.farewell = match reason {
                        AbortReason::HostStopping => ByeCode::HostClosing,
                        _ => ByeCode::RoomAborted,
                    };
                    tracing::info!(room = self.live.id, frames, reason = reason.as_str(), "room aborted");
                }
            },
        }
    }

    /// The step is over: the journal gets what came of it.
    pub(super) fn hand_over(&mut self) {
        let begun = self.counters.meter.begin();
        self.journal.hand_over();
        if let (Some(begun), true) = (begun, self.ticked) {
            self.counters.meter.took(Operation::Journal, self.journal_ns + nanoseconds_since(begun));
        }
    }

    fn text(&mut self, player: usize, text: &Utf8Bytes) {
        if let Some(&mut Some(id)) = self.players.get_mut(player) {
            self.text_to(id, text);
        }
    }

    fn text_to(&mut self, id: SessionId, text: &Utf8Bytes) {
        if !self.sessions.send_text(id, text.clone(), self.counters) && !self.lost.contains(&id) {
            self.lost.push(id);
        }
    }

    fn internal_event(&mut self, source: EventSource, kind: &str, frame: Option<u32>, json: &str) {
        let begun = self.counters.meter.begin();
        let mut data = serde_json::from_str(json).unwrap_or_else(|_| serde_json::Value::String(json.into()));
        let kind = match source {
            EventSource::Room => {
                if let ("player.joined", Some(fields)) = (kind, data.as_object_mut()) {
                    let player = fields.get("player").and_then(serde_json::Value::as_u64);
                    fields.insert("transport".into(), self.transport(player).into());
                }
                kind.to_owned()
            }
            EventSource::Module => {
                data = serde_json::json!({ "frame": frame, "data": data });
                format!("rules.{kind}")
            }
        };
        let event = InternalEvent {
            kind,
            module: Some(self.live.module.clone()),
            room: Some(self.live.id.clone()),
            data,
            time: SystemTime::now(),
        };
        emit(self.sink, self.counters, &self.live.id, event);
        self.counters.meter.end(Operation::InternalEvent, begun);
    }

    /// How the player asked for its payloads to travel.
    fn transport(&mut self, player: Option<u64>) -> &'static str {
        let slot = player.and_then(|player| usize::try_from(player).ok());
        let id = slot.and_then(|slot| *self.players.get(slot)?);
        match id.and_then(|id| self.sessions.get_mut(id)) {
            Some(session) if session.has_keys() => "udp",
            _ => "websocket",
        }
    }

    /// Sends a snapshot, or the delta to one that the session has.
    fn snapshot(&mut self, id: SessionId, whole: Snapshot<'_>, is_shared: bool) {
        let Some((session, buffer)) = self.sessions.with_buffer(id) else { return };
        let route = session.route();
        if route == Route::Nowhere {
            return;
        }
        count(&self.counters.snapshots, 1);
        let to_all = is_shared.then_some(&mut *self.sent_to_all);
        let delta = session.sent.as_mut().and_then(|sent| sent.delta(whole.frame, whole.bytes, to_all, buffer));
        let bytes = delta.unwrap_or(whole.bytes);
        if delta.is_some() {
            count(&self.counters.snapshots_delta, 1);
            count(&self.counters.snapshot_bytes_delta, bytes.len() as u64);
            count(&self.counters.snapshot_bytes_saved, whole.bytes.len().saturating_sub(bytes.len()) as u64);
        } else {
            count(&self.counters.snapshot_bytes_whole, bytes.len() as u64);
        }
        let mut send = |part, parts, bytes| {
            let part = Snapshot { part, parts, bytes, ..whole };
            let payload = if delta.is_some() { ToClient::Delta(part) } else { ToClient::Snapshot(part) };
            session.send_payload(&payload, self.outgoing, self.counters);
        };
        if route == Route::WebSocket {
            send(0, 1, bytes);
        } else if let Ok(parts) = snapshot_parts(bytes) {
            parts.for_each(|(part, parts, bytes)| send(part, parts, bytes));
        }
    }
}

fn nanoseconds_since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A margin in the unit of the wire, rounded towards "later": 900 µs early is 0 ms early, 100 µs late is 1 ms late.
fn margin_ms(margin_us: i32) -> i16 {
    let ms = margin_us.div_euclid(1_000);
    i16::try_from(ms).unwrap_or(if ms < 0 { i16::MIN } else { i16::MAX })
}

/// A public event as a message. Its data goes through as the room has it, so the text is put together here.
pub(super) fn event(event: &PublicEvent<'_>, clock: Clock) -> Utf8Bytes {
    let PublicEvent { seq, name, frame, at_us, json } = *event;
    let time_ms = clock.unix_ms_at(at_us);
    let frame = frame.map(|frame| format!(",\"frame\":{frame}")).unwrap_or_default();
    // A name of an event has no character that JSON would escape.
    format!("{{\"type\":\"event\",\"seq\":{seq},\"name\":\"{name}\"{frame},\"time_ms\":{time_ms},\"data\":{json}}}")
        .into()
}

/// The first message of a session.
#[allow(clippy::too_many_arguments)]
pub(super) fn welcome(
    id: SessionId,
    player: Option<u16>,
    slot: &RoomSlot,
    noise: Option<HandshakeMessage>,
    udp_port: u16,
    resumed: bool,
    resume: String,
    deltas: bool,
) -> Utf8Bytes {
    let live = &slot.live;
    let players = live.players.iter().map(|p| PlayerName { player: p.player, name: p.name.clone() }).collect();
    let module = live.rules.module();
    let welcome = HostMessage::Welcome {
        session: id.bits(),
        room: live.id.clone(),
        player,
        players,
        udp_port: noise.is_some().then_some(udp_port),
        noise,
        tick_hz: u16::try_from(slot.room.manifest().tick_hz).unwrap_or(u16::MAX),
        rules: RulesInfo { name: module.name.clone(), version: module.version.clone(), hash: module.hash.clone() },
        phase: phase(slot.room.phase()),
        resumed,
        resume: Some(resume),
        deltas,
    };
    match welcome.encode() {
        Ok(text) => text.into(),
        Err(error) => {
            // Every field was checked when the room was opened; if one slipped through, the client is told rather than left waiting.
            tracing::error!(room = live.id, %error, "the welcome cannot be written");
            let bye = HostMessage::Bye { code: ByeCode::Internal, reason: "the host cannot write its welcome".into() };
            bye.encode().unwrap_or_default().into()
        }
    }
}

const fn phase(phase: Phase) -> holeshot_wire::Phase {
    match phase {
        Phase::Gathering => holeshot_wire::Phase::Gathering,
        Phase::Readying => holeshot_wire::Phase::Readying,
        Phase::Cutscene => holeshot_wire::Phase::Cutscene,
        Phase::Countdown => holeshot_wire::Phase::Countdown,
        Phase::Running => holeshot_wire::Phase::Running,
        Phase::Finished => holeshot_wire::Phase::Finished,
        Phase::Aborted => holeshot_wire::Phase::Aborted,
        Phase::Closed => holeshot_wire::Phase::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_message_that_a_client_reads() {
        let clock = Clock::start();
        let json = "{\"player\":1,\"a\":[1.5]}";
        let text = event(&PublicEvent { seq: 7, name: "red_light", frame: Some(3), at_us: 5_999, json }, clock);
        let Ok(HostMessage::Event { seq, name, frame, time_ms, data }) = HostMessage::decode(text.as_str()) else {
            panic!("not an event: {text}");
        };
        assert_eq!((seq, name.as_str(), frame), (7, "red_light", Some(3)));
        assert_eq!(time_ms, Some(clock.unix_ms_at(0) + 5), "when it happened, not when it was written");
        assert_eq!(data, serde_json::json!({ "player": 1, "a": [1.5] }));
        let text = event(&PublicEvent { seq: 1, name: "a", frame: None, at_us: 0, json: "null" }, clock);
        assert!(HostMessage::decode(text.as_str()).is_ok());
    }

    #[test]
    fn margins_never_look_earlier_than_they_are() {
        assert_eq!([900, -100, -1_000, 1_000, i32::MAX, i32::MIN].map(margin_ms), [0, -1, -1, 1, i16::MAX, i16::MIN]);
    }
}
