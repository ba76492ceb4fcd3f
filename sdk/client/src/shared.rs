//! What the client's handle and its task share: the pacer, the inputs on their way out, the newest snapshot and the
//! counters. One lock, held for moments, never while waiting.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use holeshot_wire::payload::{INPUT_BYTES_MAX, INPUTS_COUNT_MAX, Inputs};
use holeshot_wire::sent::DELTA_FROM_BYTES;
use holeshot_wire::{PayloadError, WholeSnapshot};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::incoming::{Carrier, Snapshot};
use crate::options::InputError;
use crate::pacer::{Advice, Pacer};

/// How many inputs each datagram carries, the newest included: at 50 Hz a gap of 140 ms on the way costs nothing.
const INPUTS_REPEATED_COUNT: usize = 8;

/// How many payloads may wait for the task. They are sent within a poll; more means that the connection hangs, and
/// then only the newest matter.
const OUTBOX_PAYLOADS_MAX: usize = 32;

/// How far the newest snapshot may be ahead of what inputs have acknowledged before it is acknowledged by itself, in frames: who sends inputs never
/// comes to that, and for a spectator's host a base that is a few frames older costs little more than one datagram in four.
const UNACKNOWLEDGED_FRAMES_MAX: u32 = 4;

/// How the connection does. Counters are since [`crate::Client::connect`], over all reconnects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetStats {
    /// Whole snapshots that came, of rising frames.
    pub snapshots_received: u64,
    /// Of them, how many came as deltas.
    pub snapshots_from_deltas: u64,
    /// Deltas of which no snapshot could be made. A host that keeps to the protocol sends none.
    pub deltas_lost: u64,
    /// Frames between them of which no whole snapshot came (in time).
    pub snapshots_missed: u64,
    /// Snapshots that nobody took before the next one came.
    pub snapshots_replaced: u64,
    /// Datagrams and snapshot parts that came again, and snapshots that came after a newer one.
    pub duplicates: u64,
    /// Datagrams and payloads that were not the host's, or broken.
    pub refused: u64,
    /// Frames for which an input was sent.
    pub inputs_sent: u64,
    /// Payloads with inputs that were sent.
    pub input_payloads_sent: u64,
    /// Public events that came, without repeats.
    pub events_received: u64,
    /// Times that the connection was opened again.
    pub reconnects: u64,
    /// How far ahead inputs are sent, in frames.
    pub lead_frames: u32,
    /// The smoothed round trip of payloads, in microseconds; `None` before the first.
    pub rtt_us: Option<u64>,
    /// How inputs and snapshots travel; `None` while that is not settled.
    pub carrier: Option<Carrier>,
}

pub(crate) struct Shared {
    started: Instant,
    state: Mutex<State>,
    /// There is something in the outbox.
    pub(crate) outbox_filled: Notify,
    /// There is a snapshot to take.
    pub(crate) snapshot_filled: Notify,
}

pub(crate) struct State {
    pub(crate) pacer: Pacer,
    pub(crate) stats: NetStats,
    pub(crate) outbox: VecDeque<Vec<u8>>,
    pub(crate) is_closed: bool,
    /// The last inputs, newest first, for `newest_input_frame` and the frames before.
    inputs: VecDeque<Vec<u8>>,
    newest_input_frame: Option<u32>,
    newest_snapshot_frame: Option<u32>,
    /// The newest snapshot that the host was told of.
    acknowledged_frame: Option<u32>,
    snapshot: Option<Snapshot>,
    pub(crate) last_input_us: Option<u64>,
}

impl Shared {
    pub(crate) fn new(tick_hz: u16) -> Self {
        Self {
            started: Instant::now(),
            state: Mutex::new(State {
                pacer: Pacer::new(tick_hz),
                stats: NetStats::default(),
                outbox: VecDeque::with_capacity(OUTBOX_PAYLOADS_MAX),
                is_closed: false,
                inputs: VecDeque::with_capacity(INPUTS_COUNT_MAX),
                newest_input_frame: None,
                newest_snapshot_frame: None,
                acknowledged_frame: None,
                snapshot: None,
                last_input_us: None,
            }),
            outbox_filled: Notify::new(),
            snapshot_filled: Notify::new(),
        }
    }

    /// Microseconds since the client was made.
    pub(crate) fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; if it did, counters and buffers would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an input for the frame that is due; `None` if none is.
    pub(crate) fn send_input(&self, bytes: &[u8]) -> Result<Option<u32>, InputError> {
        let now_us = self.now_us();
        let mut state = self.lock();
        state.check(bytes)?;
        let Some(frame) = state.pacer.take_frame(now_us) else {
            return Ok(None);
        };
        state.queue_input(frame, bytes, now_us)?;
        drop(state);
        self.outbox_filled.notify_one();
        Ok(Some(frame))
    }

    /// Queues an input for a frame of the caller's choice.
    pub(crate) fn send_input_for(&self, frame: u32, bytes: &[u8]) -> Result<(), InputError> {
        let now_us = self.now_us();
        let mut state = self.lock();
        state.check(bytes)?;
        state.queue_input(frame, bytes, now_us)?;
        drop(state);
        self.outbox_filled.notify_one();
        Ok(())
    }

    /// Takes a snapshot. True if it is to be acknowledged by itself: no inputs do it, and it is one of a size for deltas.
    pub(crate) fn on_snapshot(&self, whole: &WholeSnapshot<'_>) -> bool {
        let now_us = self.now_us();
        let mut state = self.lock();
        let advice = Advice { margin_ms: whole.margin_ms, newest_input_frame: whole.newest_input_frame };
        state.pacer.on_snapshot(whole.frame, advice, now_us);
        if let Some(newest) = state.newest_snapshot_frame {
            state.stats.snapshots_missed += u64::from(whole.frame.saturating_sub(newest + 1));
        }
        state.newest_snapshot_frame = Some(whole.frame);
        state.stats.snapshots_received += 1;
        let mut snapshot = Snapshot {
            frame: whole.frame,
            margin_ms: whole.margin_ms,
            newest_input_frame: whole.newest_input_frame,
            bytes: Vec::new(),
        };
        // The buffer of the one that nobody took serves again.
        if let Some(replaced) = state.snapshot.take() {
            state.stats.snapshots_replaced += 1;
            snapshot.bytes = replaced.bytes;
            snapshot.bytes.clear();
        }
        snapshot.bytes.extend_from_slice(whole.bytes);
        state.snapshot = Some(snapshot);
        let ahead = state.acknowledged_frame.map_or(u32::MAX, |frame| whole.frame.saturating_sub(frame));
        let is_alone = ahead > UNACKNOWLEDGED_FRAMES_MAX && whole.bytes.len() >= DELTA_FROM_BYTES;
        if is_alone {
            state.acknowledged_frame = Some(whole.frame);
        }
        drop(state);
        self.snapshot_filled.notify_one();
        is_alone
    }

    pub(crate) fn take_snapshot(&self) -> Option<Snapshot> {
        self.lock().snapshot.take()
    }

    pub(crate) fn on_rtt(&self, rtt_us: u64) {
        let mut state = self.lock();
        // The usual smoothing, an eighth of each new sample (RFC 6298 section 2).
        let smooth_us = match state.stats.rtt_us {
            Some(before_us) => before_us - before_us / 8 + rtt_us / 8,
            None => rtt_us,
        };
        state.stats.rtt_us = Some(smooth_us);
        state.pacer.on_rtt(smooth_us);
    }

    /// Forgets what belonged to the session that ended.
    pub(crate) fn restart(&self) {
        let mut state = self.lock();
        state.pacer.restart();
        state.outbox.clear();
        state.inputs.clear();
        state.newest_input_frame = None;
        state.newest_snapshot_frame = None;
        state.acknowledged_frame = None;
        state.stats.carrier = None;
    }

    pub(crate) fn stats(&self) -> NetStats {
        let state = self.lock();
        NetStats { lead_frames: state.pacer.lead_frames(), ..state.stats }
    }
}

impl State {
    fn check(&self, bytes: &[u8]) -> Result<(), InputError> {
        if self.is_closed {
            return Err(InputError::Closed);
        }
        if bytes.len() > INPUT_BYTES_MAX {
            return Err(InputError::TooLong { bytes: bytes.len(), max: INPUT_BYTES_MAX });
        }
        Ok(())
    }

    fn queue_input(&mut self, frame: u32, bytes: &[u8], now_us: u64) -> Result<(), InputError> {
        let mut payload = Vec::new();
        self.acknowledged_frame = self.newest_snapshot_frame;
        let written = if let Some(new_frames) = self.keep_input(frame, bytes) {
            self.stats.inputs_sent += new_frames as u64;
            let count = new_frames.max(INPUTS_REPEATED_COUNT);
            let inputs = self.inputs.iter().take(count).map(Vec::as_slice);
            Inputs::write(frame, self.newest_snapshot_frame, inputs, &mut payload)
        } else {
            // Not newer than what was sent: it goes alone, and the host decides.
            self.stats.inputs_sent += 1;
            Inputs::write(frame, self.newest_snapshot_frame, [bytes], &mut payload)
        };
        match written {
            Ok(_) => {}
            Err(PayloadError::Range { field: "newest_frame", .. }) => {
                return Err(InputError::Frame { frame });
            }
            Err(_) => {
                return Err(InputError::TooLong { bytes: bytes.len(), max: INPUT_BYTES_MAX });
            }
        }
        self.last_input_us = Some(now_us);
        if self.outbox.len() >= OUTBOX_PAYLOADS_MAX {
            self.outbox.pop_front();
        }
        self.outbox.push_back(payload);
        Ok(())
    }

    /// Puts an input into the history, and into the frames that were skipped before it. Gives how many frames are new, or
    /// `None` if it is not newer than the newest.
    fn keep_input(&mut self, frame: u32, bytes: &[u8]) -> Option<usize> {
        let new_frames = match self.newest_input_frame {
            Some(newest) => frame.checked_sub(newest).filter(|new| *new > 0)?,
            None => 1,
        };
        // Frames that are further back than a datagram reaches are given up.
        let new_frames = (new_frames as usize).min(INPUTS_COUNT_MAX);
        for _ in 0..new_frames {
            if self.inputs.len() >= INPUTS_COUNT_MAX {
                self.inputs.pop_back();
            }
            self.inputs.push_front(bytes.to_vec());
        }
        self.newest_input_frame = Some(frame);
        Some(new_frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holeshot_wire::ToHost;

    fn sent(shared: &Shared) -> Vec<(u32, Vec<u8>)> {
        let payload = shared.lock().outbox.pop_back().unwrap();
        let Ok(ToHost::Inputs(inputs)) = ToHost::decode(&payload) else { panic!() };
        inputs.iter().map(|(frame, bytes)| (frame, bytes.to_vec())).collect()
    }

    #[test]
    fn each_payload_repeats_the_last_inputs() {
        let shared = Shared::new(50);
        for frame in 0..20 {
            shared.send_input_for(frame, &[frame as u8]).unwrap();
        }
        let expected: Vec<_> = (12..20).rev().map(|frame| (frame, vec![frame as u8])).collect();
        assert_eq!(sent(&shared), expected);
    }

    #[test]
    fn skipped_frames_get_the_input_that_follows() {
        let shared = Shared::new(50);
        shared.send_input_for(5, &[5]).unwrap();
        shared.send_input_for(8, &[8]).unwrap();
        let expected = [(8, vec![8]), (7, vec![8]), (6, vec![8]), (5, vec![5])];
        assert_eq!(sent(&shared), expected);
        shared.send_input_for(1_000, &[1]).unwrap();
        let after = sent(&shared);
        assert_eq!(after.len(), INPUTS_COUNT_MAX);
        assert!(after.iter().all(|(frame, bytes)| *frame > 984 && bytes == &[1]));
    }

    #[test]
    fn an_older_frame_goes_alone() {
        let shared = Shared::new(50);
        shared.send_input_for(5, &[5]).unwrap();
        shared.send_input_for(5, &[9]).unwrap();
        assert_eq!(sent(&shared), [(5, vec![9])]);
        shared.send_input_for(6, &[6]).unwrap();
        assert_eq!(sent(&shared), [(6, vec![6]), (5, vec![5])]);
    }

    #[test]
    fn wrong_inputs_are_refused() {
        let shared = Shared::new(50);
        assert_eq!(shared.send_input(&[0; 241]), Err(InputError::TooLong { bytes: 241, max: 240 }));
        assert_eq!(shared.send_input(&[0; 240]), Ok(None));
        assert_eq!(shared.send_input_for(u32::MAX, &[]), Err(InputError::Frame { frame: u32::MAX }));
        shared.lock().is_closed = true;
        assert_eq!(shared.send_input(&[]), Err(InputError::Closed));
    }

    #[test]
    fn the_outbox_keeps_the_newest() {
        let shared = Shared::new(50);
        for frame in 0..100 {
            shared.send_input_for(frame, &[1]).unwrap();
        }
        assert_eq!(shared.lock().outbox.len(), OUTBOX_PAYLOADS_MAX);
        assert_eq!(sent(&shared)[0].0, 99);
    }

    #[test]
    fn the_newest_snapshot_wins() {
        let shared = Shared::new(50);
        for frame in [3, 4, 7] {
            shared.on_snapshot(&WholeSnapshot {
                frame,
                margin_ms: None,
                newest_input_frame: None,
                bytes: &vec![1; frame as usize],
            });
        }
        let snapshot = shared.take_snapshot().unwrap();
        assert_eq!((snapshot.frame, snapshot.bytes.len()), (7, 7));
        assert_eq!(shared.take_snapshot(), None);
        let stats = shared.stats();
        assert_eq!((stats.snapshots_received, stats.snapshots_missed, stats.snapshots_replaced), (3, 2, 2));
    }
}
