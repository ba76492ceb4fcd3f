//! What waits to be sent over a session's WebSocket: a queue bounded in messages and in bytes. A reader that is further behind is dropped before it
//! costs memory: here, in the WebSocket's own buffer ([`crate::doors::websocket`]) and in the system's ([`crate::doors::listen`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use holeshot_abi::EVENTS_PER_TICK_MAX;
use holeshot_room::RERUN_PUBLIC_EVENTS_MAX;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Bytes, Utf8Bytes};

use crate::doors::gate::{Limit, Limits, MessageLimits, Refused};

/// Messages that may wait for a WebSocket. One that keeps up has places for all that a rollback tells at once, and for the frame's own events.
pub const OUTBOUND_QUEUED_MAX: usize = 256;
const _: () =
    assert!(OUTBOUND_QUEUED_MAX >= RERUN_PUBLIC_EVENTS_MAX + EVENTS_PER_TICK_MAX + OUTBOUND_KEPT_FOR_MESSAGES);
/// Places of that queue that payloads leave free for messages, which must not be lost. Of the bytes they leave half.
const OUTBOUND_KEPT_FOR_MESSAGES: usize = 64;

/// What a shard hands to a player's WebSocket.
#[derive(Debug, Clone)]
pub enum Outbound {
    /// A text message.
    Text(Utf8Bytes),
    /// A payload.
    Binary(Bytes),
    /// Close the WebSocket once what came before is sent.
    Close,
}

impl Outbound {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
            Self::Close => 0,
        }
    }
}

/// What one session may do.
#[derive(Debug, Clone)]
pub struct SessionLimits {
    /// Messages and datagrams from it, and their bytes.
    pub said: MessageLimits,
    /// Bytes that may wait for it.
    pub queued_bytes_max: usize,
    /// Counts when a limit held.
    pub refused: Arc<Refused>,
}

impl SessionLimits {
    /// By these limits, counted there.
    #[must_use]
    pub fn new(limits: &Limits, refused: Arc<Refused>) -> Self {
        Self {
            said: MessageLimits::new(limits),
            queued_bytes_max: usize::try_from(limits.get(Limit::SessionQueued)).unwrap_or(usize::MAX),
            refused,
        }
    }
}

/// A queue for one session.
#[must_use]
pub fn outbound(limits: SessionLimits) -> (OutboundSender, OutboundReceiver) {
    let (sender, receiver) = mpsc::channel(OUTBOUND_QUEUED_MAX);
    let queued_bytes = Arc::<AtomicUsize>::default();
    (
        OutboundSender { sender, queued_bytes: Arc::clone(&queued_bytes), limits },
        OutboundReceiver { receiver, queued_bytes },
    )
}

/// The shard's end.
#[derive(Debug)]
pub struct OutboundSender {
    sender: mpsc::Sender<Outbound>,
    queued_bytes: Arc<AtomicUsize>,
    limits: SessionLimits,
}

impl OutboundSender {
    /// What the session may do.
    pub(super) const fn limits(&self) -> &SessionLimits {
        &self.limits
    }

    /// Sends what must not be lost. False if it finds no place, or nobody is there: the session is then to be dropped.
    pub(super) fn message(&self, outbound: Outbound) -> bool {
        let sent = self.queue(outbound, self.limits.queued_bytes_max);
        if !sent && !self.sender.is_closed() {
            self.limits.refused.count(Limit::SessionQueued);
        }
        sent
    }

    /// Sends what may be lost. False if it is.
    pub(super) fn payload(&self, payload: Bytes) -> bool {
        self.sender.capacity() > OUTBOUND_KEPT_FOR_MESSAGES
            && self.queue(Outbound::Binary(payload), self.limits.queued_bytes_max / 2)
    }

    fn queue(&self, outbound: Outbound, bytes_max: usize) -> bool {
        let bytes = outbound.bytes();
        // Nobody else adds: what is read here can only have become less.
        if self.queued_bytes.load(Ordering::Relaxed).saturating_add(bytes) > bytes_max {
            return false;
        }
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let sent = self.sender.try_send(outbound).is_ok();
        if !sent {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        sent
    }
}

/// The WebSocket's end.
#[derive(Debug)]
pub struct OutboundReceiver {
    receiver: mpsc::Receiver<Outbound>,
    queued_bytes: Arc<AtomicUsize>,
}

impl OutboundReceiver {
    /// What comes next; none when the session has been dropped. May be cancelled: nothing is lost.
    pub async fn recv(&mut self) -> Option<Outbound> {
        let outbound = self.receiver.recv().await?;
        self.queued_bytes.fetch_sub(outbound.bytes(), Ordering::Relaxed);
        Some(outbound)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::shard) fn limits(queued_bytes_max: usize) -> SessionLimits {
        SessionLimits { queued_bytes_max, ..SessionLimits::new(&Limits::default(), Arc::default()) }
    }

    #[tokio::test]
    async fn the_queue_is_bounded_in_bytes_and_payloads_leave_half_for_messages() {
        let (sender, mut receiver) = outbound(limits(1_000));
        let text = |bytes: usize| Outbound::Text("x".repeat(bytes).into());
        assert!(sender.payload(Bytes::from(vec![0; 400])) && !sender.payload(Bytes::from(vec![0; 101])));
        assert!(sender.message(text(600)) && !sender.message(text(1)));
        assert_eq!(sender.limits.refused.get(Limit::SessionQueued), 1);
        assert!(sender.message(Outbound::Close), "the end always fits");
        receiver.recv().await.unwrap();
        assert!(sender.message(text(400)));
        for _ in 0..3 {
            receiver.recv().await.unwrap();
        }
        assert_eq!(sender.queued_bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn the_queue_is_bounded_in_messages_and_one_without_a_reader_is_no_slow_reader() {
        let (sender, receiver) = outbound(limits(1_000_000));
        let payloads = (0..300).filter(|_| sender.payload(Bytes::from_static(b"x"))).count();
        assert_eq!(payloads, OUTBOUND_QUEUED_MAX - OUTBOUND_KEPT_FOR_MESSAGES);
        let messages = (0..300).filter(|_| sender.message(Outbound::Text("x".into()))).count();
        assert_eq!(messages, OUTBOUND_KEPT_FOR_MESSAGES);
        assert_eq!(sender.limits.refused.get(Limit::SessionQueued), 300 - 64);
        drop(receiver);
        assert!(!sender.message(Outbound::Close));
        assert_eq!(sender.limits.refused.get(Limit::SessionQueued), 300 - 64);
    }
}
