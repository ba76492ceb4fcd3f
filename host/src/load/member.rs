//! A player's datagrams: what comes is opened, joined and answered by the player's program, an input goes out in every tick of the player's own clock, and the bad
//! network of both directions is in between. The one place of the generator that reads and writes payloads.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use holeshot_client::pacer::{Advice, Pacer};
use holeshot_seal::RingCipher;
use holeshot_wire::payload::{Encode, INPUTS_COUNT_MAX};
use holeshot_wire::{Inputs, Joined, Opener, Reassembler, Sealer, Snapshot, ToClient, ToHost};
use tokio::sync::oneshot;

use super::Tally;
use super::impairment::{Impairment, Waiting, Way};
use super::ledger::Ledger;
use super::recent::Recent;
use super::recording::Recording;
use crate::bots::crowd::Answer;
use crate::clock::Clock;
use crate::random::Random;

/// How often the address is probed until the host has confirmed it, in microseconds: as the client library does.
const PROBE_EVERY_US: u64 = 100_000;
/// How often a payload measures the round trip, in microseconds: as the client library does.
const PING_EVERY_US: u64 = 500_000;
/// Inputs in each datagram, the newest included: as in the client library.
const INPUTS_REPEATED: usize = 8;
/// How long an input waits for the snapshot of its tick before it goes out without, in microseconds; half a tick if that is less. A person's controls are read in every
/// frame, whatever came.
const SNAPSHOT_WAIT_US_MAX: u64 = 10_000;
/// Inputs that wait for a snapshot that can show them, at most: eight seconds at 128 Hz. The oldest counts as shown when there are more.
const SHOWN_WAIT_FRAMES_MAX: usize = 1_024;
/// How long a player who is to leave waits until the host has stepped its last input, in microseconds, beyond what the network takes: a second more than the largest
/// lead.
const QUIET_WAIT_US_MAX: u64 = 1_500_000;
/// No moment.
const NEVER_US: u64 = u64::MAX;

/// What decides a player's inputs.
pub(super) enum Plays {
    /// A player's program.
    Program(Answer),
    /// What a journal has of the player in this slot.
    Recorded(Arc<Recording>, usize),
}

/// What a session's handshake gives for its datagrams.
pub(super) struct Line {
    pub(super) session: u32,
    pub(super) host: SocketAddr,
    pub(super) sealer: Sealer<RingCipher>,
    pub(super) opener: Opener<RingCipher>,
    pub(super) tick_hz: u16,
}

/// Where a member stands.
enum Stage {
    /// It sends an input in every tick.
    Playing,
    /// It is to leave: the last inputs go out so many times again, so that none of them has fewer copies than the others.
    Repeating(usize, oneshot::Sender<()>),
    /// It waits until the host has stepped the last of them, or until this moment.
    Waiting(u64, oneshot::Sender<()>),
    /// It says nothing more.
    Silent,
}

/// A player's side of the datagrams.
pub(super) struct Member {
    line: Line,
    /// Which socket of its thread it has.
    pub(super) socket: usize,
    up: Way,
    down: Way,
    /// The longest that both ways take, in microseconds.
    ways_us_max: u64,
    joiner: Reassembler,
    pacer: Pacer,
    plays: Plays,
    tick_us: u64,
    stage: Stage,
    /// What was answered last.
    said: Option<Vec<u8>>,
    inputs: Recent,
    newest_input: Option<u32>,
    newest_snapshot: Option<u32>,
    snapshot_at_us: u64,
    lead_before: u32,
    is_confirmed: bool,
    next_probe_us: u64,
    next_ping_us: u64,
    /// When an input goes out without a snapshot.
    next_say_us: u64,
    /// Inputs that no snapshot showed so far: frame, and when they were due.
    unseen: VecDeque<(u32, u64)>,
    ledger: Ledger,
}

/// What is on its way in the bad network, of the member in this place with this session.
#[derive(Debug, Clone, Copy)]
pub(super) struct OnTheWay {
    pub(super) place: usize,
    pub(super) session: u32,
    pub(super) what: Travelling,
}

/// A datagram on its way.
#[derive(Debug, Clone, Copy)]
pub(super) enum Travelling {
    /// To the host, sealed; with inputs up to a frame, so many.
    Up { inputs: Option<(u32, u32)> },
    /// From the host, opened; its number, if it is the first copy.
    Down { sequence: Option<u64> },
}

/// What a member needs of its thread.
pub(super) struct Out<'a> {
    pub(super) clock: Clock,
    /// When this look should have begun.
    pub(super) due_us: u64,
    pub(super) place: usize,
    pub(super) sockets: &'a [UdpSocket],
    pub(super) tally: &'a mut Tally,
    pub(super) waiting: &'a mut Waiting<OnTheWay>,
    pub(super) payload: &'a mut Vec<u8>,
    pub(super) datagram: &'a mut Vec<u8>,
}

impl Member {
    pub(super) fn new(line: Line, plays: Plays, impairment: Impairment, seed: u64) -> Self {
        let tick_hz = line.tick_hz.max(1);
        let way = |number: u64| Way::new(impairment, Random::new(seed.wrapping_mul(2).wrapping_add(number)).next());
        Self {
            socket: 0,
            up: way(0),
            down: way(1),
            ways_us_max: impairment.delay_us_max() * 2,
            joiner: Reassembler::with_deltas(),
            pacer: Pacer::new(tick_hz),
            plays,
            tick_us: 1_000_000 / u64::from(tick_hz),
            stage: Stage::Playing,
            said: None,
            inputs: Recent::default(),
            newest_input: None,
            newest_snapshot: None,
            snapshot_at_us: 0,
            lead_before: 0,
            is_confirmed: false,
            next_probe_us: 0,
            next_ping_us: 0,
            next_say_us: NEVER_US,
            unseen: VecDeque::new(),
            ledger: Ledger::new(),
            line,
        }
    }

    pub(super) const fn session(&self) -> u32 {
        self.line.session
    }

    pub(super) const fn host(&self) -> SocketAddr {
        self.line.host
    }

    pub(super) fn into_ledger(self) -> Ledger {
        self.ledger
    }

    /// Reads what the next datagram will need, so that it is near the processor then: what one player has is pushed out by the others' between two of its ticks. The
    /// reads of a few players are under way at the same time, which those of one, each after the other, are not.
    pub(super) fn warm(&self) -> u64 {
        let newest = self.newest_input.unwrap_or_default();
        let unseen = self.unseen.front().map_or(0, |(_, due_us)| *due_us);
        let pacer = self.pacer.frame_now(0).map_or(0, u64::from);
        unseen ^ pacer ^ self.ledger.warm(newest) ^ self.inputs.warm() ^ self.next_say_us ^ u64::from(self.line.tick_hz)
    }

    /// It is to leave; `done` hears when the host has stepped all that it sent.
    pub(super) fn quiet(&mut self, done: oneshot::Sender<()>) {
        self.stage = Stage::Repeating(INPUTS_REPEATED, done);
        if self.newest_input.is_none() {
            self.silence();
        }
    }

    /// It sends nothing more.
    pub(super) fn silence(&mut self) {
        if let Stage::Repeating(_, done) | Stage::Waiting(_, done) = std::mem::replace(&mut self.stage, Stage::Silent) {
            let _nobody_waits = done.send(());
        }
        self.next_say_us = NEVER_US;
    }

    /// When it wants to be looked at.
    pub(super) fn next_us(&self) -> u64 {
        let own_us = if self.is_confirmed { self.next_ping_us } else { self.next_probe_us };
        match self.stage {
            Stage::Silent => NEVER_US,
            Stage::Waiting(..) => 0,
            Stage::Playing | Stage::Repeating(..) => own_us.min(self.next_say_us),
        }
    }

    /// Takes a datagram off the socket, and gives it to the way that leads here. None if it is not the host's.
    pub(super) fn arrive(&mut self, datagram: &mut [u8], out: &mut Out<'_>) -> Option<()> {
        let opened = self.line.opener.open(datagram).ok()?;
        let (sequence, payload) = (opened.sequence, opened.payload);
        if let ToClient::Snapshot(Snapshot { frame, newest_input_frame, .. })
        | ToClient::Delta(Snapshot { frame, newest_input_frame, .. }) = ToClient::decode(payload).ok()?
        {
            self.ledger.see(frame, newest_input_frame);
        }
        let fate = self.down.decide();
        if fate.is_lost() {
            out.tally.lost_down += 1;
            return Some(());
        }
        let mut sequence = Some(sequence);
        for delay_us in fate.delays_us() {
            let sequence = sequence.take();
            if delay_us == 0 {
                self.take(payload, sequence, out);
            } else {
                let due_us = out.due_us.saturating_add(delay_us);
                out.delay(due_us, self.line.session, Travelling::Down { sequence }, payload);
            }
        }
        Some(())
    }

    /// Takes a payload that came through the network.
    pub(super) fn take(&mut self, payload: &[u8], sequence: Option<u64>, out: &mut Out<'_>) {
        let now_us = out.clock.now_us();
        if let Some(sequence) = sequence {
            self.pacer.on_datagram(sequence);
        }
        // It was read before.
        let Ok(payload) = ToClient::decode(payload) else { return };
        match payload {
            ToClient::Challenge(bytes) => {
                self.is_confirmed = true;
                self.send(&ToHost::Response(bytes), out);
            }
            ToClient::Pong(sent_us) => self.pacer.on_rtt(now_us.saturating_sub(sent_us)),
            ToClient::Snapshot(part) => self.take_snapshot(&part, false, now_us, out),
            ToClient::Delta(part) => self.take_snapshot(&part, true, now_us, out),
        }
    }

    fn take_snapshot(&mut self, part: &Snapshot<'_>, is_delta: bool, now_us: u64, out: &mut Out<'_>) {
        let joined = if is_delta { self.joiner.push_delta(part) } else { self.joiner.push(part) };
        let Joined::Whole(whole) = joined else { return };
        let frame = whole.frame;
        let tally = &mut *out.tally;
        tally.snapshots += 1;
        if let Some(newest) = self.newest_snapshot {
            tally.snapshots_missed += u64::from(frame.saturating_sub(newest.saturating_add(1)));
            let gap_us = now_us.saturating_sub(self.snapshot_at_us);
            tally.observed.snapshot_gap.record_corrected(gap_us, self.tick_us);
        }
        // The next one should be there by now.
        tally.snapshots_late += u64::from(self.pacer.frame_now(now_us).is_some_and(|due| due > frame));
        (self.newest_snapshot, self.snapshot_at_us) = (Some(frame), now_us);
        while let Some((_, due_us)) = self.unseen.pop_front_if(|(unseen, _)| *unseen <= frame) {
            tally.observed.input_delay.record(now_us.saturating_sub(due_us));
        }
        let advice = Advice { margin_ms: whole.margin_ms, newest_input_frame: whole.newest_input_frame };
        self.pacer.on_snapshot(frame, advice, now_us);
        if let Plays::Program(answer) = &mut self.plays {
            let delay_ms = u64::from(self.pacer.lead_frames()) * self.tick_us / 1_000;
            if let Some(said) = answer(whole.bytes, u32::try_from(delay_ms).unwrap_or(u32::MAX)) {
                self.said = Some(said);
            }
        }
        if matches!(self.stage, Stage::Playing) {
            self.say(now_us, out.due_us, out);
        }
    }

    /// Does what is due.
    pub(super) fn keep(&mut self, out: &mut Out<'_>) {
        let now_us = out.clock.now_us();
        if !self.is_confirmed && now_us >= self.next_probe_us {
            self.next_probe_us = now_us + PROBE_EVERY_US;
            self.send(&ToHost::Probe, out);
        } else if self.is_confirmed && now_us >= self.next_ping_us {
            self.next_ping_us = now_us + PING_EVERY_US;
            self.send(&ToHost::Ping(now_us), out);
        }
        let is_due = now_us >= self.next_say_us;
        match &mut self.stage {
            Stage::Playing if is_due => self.say(now_us, self.next_say_us, out),
            Stage::Repeating(left, _) if is_due => {
                *left = left.saturating_sub(1);
                let is_last = *left == 0;
                let due_us = self.next_say_us;
                self.next_say_us = due_us + self.tick_us;
                self.send_inputs(0, due_us, out);
                if is_last && let Stage::Repeating(_, done) = std::mem::replace(&mut self.stage, Stage::Silent) {
                    let until_us = now_us + QUIET_WAIT_US_MAX + self.ways_us_max;
                    self.stage = Stage::Waiting(until_us, done);
                }
            }
            Stage::Waiting(until_us, _) if now_us >= *until_us || self.ledger.seen_frame() >= self.newest_input => {
                self.silence();
            }
            _ => {}
        }
    }

    /// Sends an input for the frame whose turn it is, if there is one. Frames that were skipped get the same.
    fn say(&mut self, now_us: u64, due_us: u64, out: &mut Out<'_>) {
        if let Some(frame) = self.pacer.take_frame(now_us)
            && (self.said.is_some() || matches!(self.plays, Plays::Recorded(..)))
        {
            let lead = self.pacer.lead_frames();
            let new = self.newest_input.map_or(1, |newest| frame.saturating_sub(newest).max(1));
            let raised = if self.newest_input.is_some() { lead.saturating_sub(self.lead_before) } else { 0 };
            self.lead_before = lead;
            // Frames that are further back than a datagram reaches are given up.
            let new = new.min(INPUTS_COUNT_MAX as u32);
            for back in (0..new).rev() {
                let of_frame = frame.saturating_sub(back);
                self.inputs.push(match &self.plays {
                    Plays::Program(_) => self.said.as_deref().unwrap_or_default(),
                    Plays::Recorded(recording, slot) => recording.input(*slot, of_frame),
                });
                // Those that the lead skipped are due now; those that this generator skipped were due before.
                let skipped_us = u64::from(back.saturating_sub(raised)) * self.tick_us;
                self.unseen.push_back((of_frame, due_us.saturating_sub(skipped_us)));
            }
            while self.unseen.len() > SHOWN_WAIT_FRAMES_MAX
                && let Some((_, due_us)) = self.unseen.pop_front()
            {
                out.tally.observed.input_delay.record(now_us.saturating_sub(due_us));
            }
            self.newest_input = Some(frame);
            self.send_inputs(new, due_us, out);
        }
        // The clock's next frame.
        let wait_us = SNAPSHOT_WAIT_US_MAX.min(self.tick_us / 2);
        let next_us =
            self.pacer.frame_now(now_us).and_then(|frame| self.pacer.frame_begins_us(frame.saturating_add(1)));
        self.next_say_us = next_us.map_or(NEVER_US, |next_us| next_us.max(now_us) + wait_us);
    }

    /// Sends the last inputs, of which `new` were not sent before.
    fn send_inputs(&mut self, new: u32, due_us: u64, out: &mut Out<'_>) {
        let Some(frame) = self.newest_input else { return };
        let inputs = self.inputs.iter().take(INPUTS_REPEATED.max(new as usize));
        let Ok(count) = Inputs::write(frame, self.newest_snapshot, inputs, out.payload) else { return };
        if self.line.sealer.seal_bytes(out.payload, out.datagram).is_err() {
            return;
        }
        out.tally.inputs += u64::from(new);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.send_sealed(Some((frame, count, new)), due_us, out);
    }

    fn send(&mut self, payload: &impl Encode, out: &mut Out<'_>) {
        if self.line.sealer.seal(payload, out.datagram).is_ok() {
            self.send_sealed(None, out.due_us, out);
        }
    }

    /// Gives the datagram in the buffer to the way that leads to the host. `inputs` is their newest frame, their number, and how many are new.
    fn send_sealed(&mut self, inputs: Option<(u32, u32, u32)>, due_us: u64, out: &mut Out<'_>) {
        let fate = self.up.decide();
        if let Some((newest, _, new @ 1..)) = inputs {
            self.ledger.say(newest, new, fate.is_lost());
        }
        if fate.is_lost() {
            out.tally.lost_up += 1;
            return;
        }
        let inputs = inputs.map(|(newest, count, _)| (newest, count));
        for delay_us in fate.delays_us() {
            if delay_us == 0 {
                let datagram = std::mem::take(out.datagram);
                self.hand_over(&datagram, inputs, due_us, out);
                *out.datagram = datagram;
            } else {
                let datagram = std::mem::take(out.datagram);
                out.delay(due_us.saturating_add(delay_us), self.line.session, Travelling::Up { inputs }, &datagram);
                *out.datagram = datagram;
            }
        }
    }

    /// Hands a datagram to the system, which was due at that moment.
    pub(super) fn hand_over(&mut self, datagram: &[u8], inputs: Option<(u32, u32)>, due_us: u64, out: &mut Out<'_>) {
        let sent = out.sockets.get(self.socket).map(|socket| socket.send(datagram));
        if !matches!(sent, Some(Ok(_))) {
            out.tally.datagrams_unsent += 1;
            return;
        }
        if let Some((newest, count)) = inputs {
            self.ledger.hand(newest, count);
            out.tally.observed.send_late.record(out.clock.now_us().saturating_sub(due_us));
        }
    }
}

impl Out<'_> {
    fn delay(&mut self, due_us: u64, session: u32, what: Travelling, bytes: &[u8]) {
        let what = OnTheWay { place: self.place, session, what };
        if self.waiting.push(due_us, what, bytes).is_err() {
            self.tally.no_place += 1;
        }
    }
}
