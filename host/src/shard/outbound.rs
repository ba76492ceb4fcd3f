//! What waits to be sent over a session's WebSocket: a queue bounded in messages and in bytes. A reader that is further behind is dropped before it
//! costs memory: here, in the WebSocket's own buffer ([`crate::doors::websocket`]) and in the system's ([`crate::doors::listen`]).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use holeshot_abi::EVENTS_PER_TICK_MAX;
use holeshot_room::RERUN_PUBLIC_EVENTS_MAX;
use tokio_tungstenite::tungstenite::{Bytes, Utf8Bytes};

use crate::doors::gate::{Limit, Limits, MessageLimits, Refused};

/// Messages that may wait for a WebSocket. One that keeps up has places for all that a rollback tells at once, and for the frame's own events.
pub const OUTBOUND_QUEUED_MAX: usize = 256;
const _: () =
    assert!(OUTBOUND_QUEUED_MAX >= RERUN_PUBLIC_EVENTS_MAX + EVENTS_PER_TICK_MAX + OUTBOUND_KEPT_FOR_MESSAGES);
/// Places of a queue that are kept while it is empty: what comes in one tick, most times. Sessions hear nothing for seconds, and those of a burst are given back.
const QUEUED_KEPT: usize = 4;
/// Places of that queue that payloads leave free for messages, which must not be lost. Of the bytes they leave half.
const OUTBOUND_KEPT_FOR_MESSAGES: usize = 64;

/// How long messages gather before the tasks that send them are woken, in microseconds, counted from the clock's zero: 415 events a second (500 races) then wake a sleeping
/// thread 120 times and not 415, and none of them waits for longer than that. A payload, which is late soon, waits only for the end of the shard's look.
const RING_US: u64 = 8_000;

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
    let shared = Arc::<Shared>::default();
    (OutboundSender { shared: Arc::clone(&shared), bell: None, limits }, OutboundReceiver { shared })
}

/// What both ends of a queue have. The lock is held for a push, a pop or a look: no call of the system, no other lock.
#[derive(Debug, Default)]
struct Shared(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Outbound>,
    bytes: usize,
    /// Whom to wake: the WebSocket's task, if it has found nothing.
    task: Option<Waker>,
    /// When the bell wakes it, if it does.
    rung: Option<Ring>,
    has_no_sender: bool,
    has_no_receiver: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the task look.
    fn wake(&self) {
        let task = {
            let mut waiting = self.lock();
            waiting.rung = None;
            waiting.task.take()
        };
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// When a task is woken for what waits for it, the sooner one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ring {
    /// At the end of this look of the shard.
    Now,
    /// At the next multiple of [`RING_US`].
    Soon,
}

/// Wakes the tasks of a shard's WebSockets, many at a time: a thread that sleeps must be woken for the first of them only, by a call of the system on the shard's time
/// and a turn of that thread. Only the shard uses it; the lock is for the compiler.
#[derive(Debug, Default)]
pub(super) struct Bell(Mutex<Rope>);

#[derive(Debug, Default)]
struct Rope {
    now: Vec<Arc<Shared>>,
    soon: Vec<Arc<Shared>>,
    /// The multiple of [`RING_US`] at which it rang last.
    rang: u64,
}

impl Bell {
    /// Wakes all whom it is time to wake. The shard calls it each time it looks.
    pub(super) fn ring(&self, now_us: u64) {
        let mut rope = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Rope { now, soon, rang } = &mut *rope;
        now.drain(..).for_each(|queue| queue.wake());
        let turn = now_us / RING_US;
        if turn != *rang {
            *rang = turn;
            soon.drain(..).for_each(|queue| queue.wake());
        }
    }

    fn pull(&self, queue: &Arc<Shared>, ring: Ring) {
        let mut rope = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = match ring {
            Ring::Now => &mut rope.now,
            Ring::Soon => &mut rope.soon,
        };
        waiting.push(Arc::clone(queue));
    }
}

/// The shard's end.
#[derive(Debug)]
pub struct OutboundSender {
    shared: Arc<Shared>,
    /// Wakes the WebSocket's task; none before a shard has the session, and then it is woken at once.
    bell: Option<Arc<Bell>>,
    limits: SessionLimits,
}

impl OutboundSender {
    /// What the session may do.
    pub(super) const fn limits(&self) -> &SessionLimits {
        &self.limits
    }

    /// Lets this bell wake the WebSocket's task from now on.
    pub(super) fn hang(&mut self, bell: &Arc<Bell>) {
        self.bell = Some(Arc::clone(bell));
    }

    /// Sends what must not be lost. False if it finds no place, or nobody is there: the session is then to be dropped.
    pub(super) fn message(&self, outbound: Outbound) -> bool {
        let sent = self.queue(outbound, OUTBOUND_QUEUED_MAX, self.limits.queued_bytes_max, Ring::Soon);
        if !sent && !self.shared.lock().has_no_receiver {
            self.limits.refused.count(Limit::SessionQueued);
        }
        sent
    }

    /// Sends what may be lost. False if it is.
    pub(super) fn payload(&self, payload: Bytes) -> bool {
        let queued_max = OUTBOUND_QUEUED_MAX - OUTBOUND_KEPT_FOR_MESSAGES;
        self.queue(Outbound::Binary(payload), queued_max, self.limits.queued_bytes_max / 2, Ring::Now)
    }

    fn queue(&self, outbound: Outbound, queued_max: usize, bytes_max: usize, ring: Ring) -> bool {
        let mut waiting = self.shared.lock();
        let bytes = waiting.bytes.saturating_add(outbound.bytes());
        if waiting.has_no_receiver || waiting.queue.len() >= queued_max || bytes > bytes_max {
            return false;
        }
        waiting.bytes = bytes;
        waiting.queue.push_back(outbound);
        if waiting.rung.is_some_and(|rung| rung <= ring) {
            return true;
        }
        waiting.rung = Some(ring);
        drop(waiting);
        match &self.bell {
            Some(bell) => bell.pull(&self.shared, ring),
            None => self.shared.wake(),
        }
        true
    }
}

impl Drop for OutboundSender {
    fn drop(&mut self) {
        self.shared.lock().has_no_sender = true;
        self.shared.wake();
    }
}

/// The WebSocket's end.
#[derive(Debug)]
pub struct OutboundReceiver {
    shared: Arc<Shared>,
}

impl OutboundReceiver {
    /// What comes next; none when the session has been dropped. Only the task that asked last is woken.
    pub fn poll_recv(&self, context: &mut Context<'_>) -> Poll<Option<Outbound>> {
        let mut waiting = self.shared.lock();
        if let Some(outbound) = waiting.queue.pop_front() {
            waiting.bytes = waiting.bytes.saturating_sub(outbound.bytes());
            return Poll::Ready(Some(outbound));
        }
        if waiting.has_no_sender {
            return Poll::Ready(None);
        }
        if waiting.queue.capacity() > QUEUED_KEPT {
            waiting.queue = VecDeque::new();
        }
        let before = waiting.task.replace(context.waker().clone());
        // A task can end with its last waker, and this receiver with it.
        drop(waiting);
        drop(before);
        Poll::Pending
    }

    /// What comes next; none when the session has been dropped. May be cancelled: nothing is lost.
    pub async fn recv(&self) -> Option<Outbound> {
        poll_fn(|context| self.poll_recv(context)).await
    }
}

impl Drop for OutboundReceiver {
    fn drop(&mut self) {
        let left = {
            let mut waiting = self.shared.lock();
            waiting.has_no_receiver = true;
            waiting.bytes = 0;
            (waiting.task.take(), std::mem::take(&mut waiting.queue))
        };
        // Freed without the lock.
        drop(left);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    pub(in crate::shard) fn limits(queued_bytes_max: usize) -> SessionLimits {
        SessionLimits { queued_bytes_max, ..SessionLimits::new(&Limits::default(), Arc::default()) }
    }

    #[tokio::test]
    async fn the_queue_is_bounded_in_bytes_and_payloads_leave_half_for_messages() {
        let (sender, receiver) = outbound(limits(1_000));
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
        assert_eq!(sender.shared.lock().bytes, 0);
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

    /// Counts how often a task is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_task_is_woken_once_for_all_that_gathers_and_at_once_for_what_is_late_soon() {
        let bell = Arc::<Bell>::default();
        let (mut sender, receiver) = outbound(limits(1_000));
        sender.hang(&bell);
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let times = || woken.0.load(Ordering::Relaxed);
        let all = |context: &mut Context<'_>| {
            std::iter::from_fn(|| match receiver.poll_recv(context) {
                Poll::Ready(outbound) => outbound,
                Poll::Pending => None,
            })
            .count()
        };
        assert_eq!(all(&mut context), 0);
        bell.ring(RING_US);
        assert!(sender.message(Outbound::Text("1".into())) && sender.message(Outbound::Text("2".into())));
        bell.ring(2 * RING_US - 1);
        assert_eq!(times(), 0, "they gather");
        bell.ring(2 * RING_US);
        assert_eq!((times(), all(&mut context)), (1, 2));

        assert!(sender.message(Outbound::Text("3".into())) && sender.payload(Bytes::from_static(b"4")));
        bell.ring(2 * RING_US + 1);
        assert_eq!((times(), all(&mut context)), (2, 2), "a payload does not wait, nor what came before it");
        bell.ring(3 * RING_US);
        assert_eq!(times(), 3, "once in vain");
        assert_eq!(all(&mut context), 0);
        drop(sender);
        assert_eq!(times(), 4, "the end does not wait");
    }
}
