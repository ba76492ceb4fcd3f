//! One supervised MQTT connection: it connects, reconnects and cleans up. Every connection is a new one, with a new client of
//! rumqttc: nothing that was asked of a lost connection is sent on the next, so whoever asked starts again. What to send, and what a
//! message means, is the business of the code that holds the link; the versions of MQTT are that of [`super::mqtt`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::access::{Protocol, Version};
use super::mqtt::{self, Client, Failure, FailureKind, Polled, Session};

pub(crate) use super::mqtt::{Content, LinkConfig, Will};

/// Pause before the first new attempt; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// Longest pause between attempts. A connection that lasts as long, or was of use, makes the next pause short again.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A message that arrived.
#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    /// Present on QoS 1 messages of a link with manual acknowledgement.
    pub(crate) ack: Option<Ack>,
}

/// The right to acknowledge one message on the connection that brought it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ack {
    epoch: u64,
    packet: u16,
}

/// Everything that happens on a link, in order.
pub(crate) enum LinkEvent {
    /// Connected; `epoch` numbers the connection.
    Connected { epoch: u64, session_present: bool },
    /// The connection is lost; another attempt follows.
    Disconnected,
    /// There is still no connection, as the log says, too: after the first failed attempt, the second, the fourth and so on.
    Unreachable { reason: String },
    /// The broker took the subscription, or refused it.
    Subscribed { accepted: bool },
    /// One QoS 1 message of ours was acknowledged; not accepted, it went nowhere. In the order in which they were published.
    Published { accepted: bool },
    /// A message arrived.
    Message(Message),
}

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no connection, or not the one that was meant.
    NotConnected,
    /// [`mqtt::REQUESTS_MAX`] requests wait already.
    Full,
    /// The broker takes no packet of that size.
    TooLarge,
}

struct Gate {
    epoch: u64,
    /// There while the broker has taken the connection.
    client: Option<Client>,
    packet_max_bytes: Option<u32>,
    closing: bool,
}

/// Asks things of a link, from any thread, without waiting.
#[derive(Clone)]
pub(crate) struct LinkHandle {
    gate: Arc<Mutex<Gate>>,
    kick: Arc<Notify>,
}

impl LinkHandle {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes. With `epoch`, only on that connection.
    pub(crate) fn publish(
        &self,
        epoch: Option<u64>,
        topic: &str,
        payload: Vec<u8>,
        acknowledged: bool,
        retain: bool,
        content: Content,
    ) -> Result<(), Refused> {
        let gate = self.gate();
        let client = gate.client.as_ref().ok_or(Refused::NotConnected)?;
        if epoch.is_some_and(|epoch| epoch != gate.epoch) {
            return Err(Refused::NotConnected);
        }
        if !mqtt::fits(topic, &payload, gate.packet_max_bytes) {
            return Err(Refused::TooLarge);
        }
        client.publish(topic, payload, acknowledged, retain, content).then_some(()).ok_or(Refused::Full)
    }

    /// Subscribes with QoS 1.
    pub(crate) fn subscribe(&self, filter: &str) -> Result<(), Refused> {
        let gate = self.gate();
        let client = gate.client.as_ref().ok_or(Refused::NotConnected)?;
        client.subscribe(filter).then_some(()).ok_or(Refused::Full)
    }

    /// Acknowledges a message. On another connection than the one that brought it the packet number means another
    /// message, so it is not sent there; the broker delivers the message again.
    pub(crate) fn ack(&self, ack: Ack) -> Result<(), Refused> {
        let gate = self.gate();
        let client = gate.client.as_ref().filter(|_| ack.epoch == gate.epoch).ok_or(Refused::NotConnected)?;
        client.acknowledge(ack.packet).then_some(()).ok_or(Refused::Full)
    }

    /// Cuts the connection, if there is one, and connects anew.
    pub(crate) fn reconnect(&self) {
        if self.is_connected() {
            self.kick.notify_one();
        }
    }

    /// Whether there is a connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.gate().client.is_some()
    }
}

/// A connection that is kept up. Dropping it cuts it without a farewell, as the death of the process would.
pub(crate) struct Link {
    handle: LinkHandle,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Link {
    /// Starts to connect. `react` is called with everything that happens, in the link's task: it must not block.
    pub(crate) fn start<R>(config: LinkConfig, react: impl FnOnce(LinkHandle) -> R) -> Self
    where
        R: FnMut(LinkEvent) + Send + 'static,
    {
        let gate = Gate { epoch: 0, client: None, packet_max_bytes: None, closing: false };
        let handle = LinkHandle { gate: Arc::new(Mutex::new(gate)), kick: Arc::new(Notify::new()) };
        let react = react(handle.clone());
        let driver =
            Driver { handle: handle.clone(), config, react, backoff: BACKOFF_MIN, failures: 0, losses: 0, refusals: 0 };
        Self { handle, task: Some(tokio::spawn(driver.run())) }
    }

    pub(crate) fn handle(&self) -> &LinkHandle {
        &self.handle
    }

    /// Sends what was asked for, says farewell (the will is not published) and ends, within `wait`.
    pub(crate) async fn close(mut self, wait: Duration) {
        let farewell = {
            let mut gate = self.handle.gate();
            gate.closing = true;
            gate.client.as_ref().is_some_and(Client::disconnect)
        };
        if let Some(mut task) = self.task.take()
            && (!farewell || tokio::time::timeout(wait, &mut task).await.is_err())
        {
            task.abort();
        }
        self.handle.gate().client = None;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        {
            // Whoever still holds a handle must not wait for a task that is gone.
            let mut gate = self.handle.gate();
            gate.closing = true;
            gate.client = None;
        }
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// How a connection ended.
enum End {
    /// As this side wished.
    Farewell,
    /// It was there, and is lost.
    Lost(Failure),
    /// It was never there.
    NotMade(Failure),
}

struct Driver<R> {
    handle: LinkHandle,
    config: LinkConfig,
    react: R,
    backoff: Duration,
    /// Attempts since the last connection.
    failures: u32,
    /// Connections that were lost since one was of use.
    losses: u32,
    /// Messages and subscriptions that the broker refused.
    refusals: u32,
}

impl<R: FnMut(LinkEvent) + Send> Driver<R> {
    async fn run(mut self) {
        loop {
            let version = self.config.access.version();
            let mut end = self.connection(version, None).await;
            let refused_by_name = match &end {
                End::NotMade(failure) if failure.kind == FailureKind::Version => Some(true),
                End::NotMade(failure) if failure.kind == FailureKind::NoAnswer => Some(false),
                _ => None,
            };
            if self.config.access.protocol == Protocol::Auto && version == Version::V5 && refused_by_name.is_some() {
                tracing::debug!(link = self.config.client_id, "the broker has no answer in MQTT 5; trying 3.1.1");
                end = self.connection(Version::V311, refused_by_name).await;
            }
            match end {
                End::Farewell => return,
                End::Lost(failure) => {
                    self.losses = self.losses.saturating_add(1);
                    // Powers of two: a broker that cuts every connection at once must not fill the log.
                    if self.losses.is_power_of_two() {
                        let (link, losses, reason) = (&self.config.client_id, self.losses, failure.reason);
                        tracing::warn!(link, losses, reason, "lost the broker");
                    }
                    (self.react)(LinkEvent::Disconnected);
                }
                End::NotMade(failure) => {
                    self.failures = self.failures.saturating_add(1);
                    // Powers of two: a broker that is away for a day costs a dozen lines.
                    if self.failures.is_power_of_two() {
                        let (link, failures, reason) = (&self.config.client_id, self.failures, failure.reason);
                        tracing::warn!(link, failures, reason, "cannot reach the broker; trying again");
                        (self.react)(LinkEvent::Unreachable { reason });
                    }
                }
            }
            if self.handle.gate().closing {
                return;
            }
            tokio::time::sleep(self.backoff).await;
            self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// One connection from its making to its end. `refused_by_name`: whether the broker said that it does not speak MQTT 5 or had just no
    /// answer to it; none if it was not asked.
    async fn connection(&mut self, version: Version, refused_by_name: Option<bool>) -> End {
        let (client, mut session) = mqtt::open(&self.config, version);
        let (session_present, packet_max_bytes) = loop {
            match session.poll().await {
                Ok(Polled::Connected { session_present, packet_max_bytes }) => {
                    break (session_present, packet_max_bytes);
                }
                Ok(_) => {}
                Err(failure) => return End::NotMade(failure),
            }
        };
        match (version, refused_by_name) {
            (Version::V5, _) => self.config.access.speaks_5(),
            (Version::V311, Some(by_name)) => self.config.access.speaks_311(by_name),
            (Version::V311, None) => {}
        }
        self.failures = 0;
        let epoch = {
            let mut gate = self.handle.gate();
            gate.epoch += 1;
            gate.client = (!gate.closing).then_some(client);
            gate.packet_max_bytes = packet_max_bytes;
            gate.epoch
        };
        tracing::debug!(link = self.config.client_id, epoch, %version, "connected to the broker");
        (self.react)(LinkEvent::Connected { epoch, session_present });
        let since = Instant::now();
        let end = self.until_lost(&mut session, epoch).await;
        // Nobody asks anything of a connection that is gone.
        self.handle.gate().client = None;
        if since.elapsed() >= BACKOFF_MAX {
            self.was_of_use();
        }
        end
    }

    async fn until_lost(&mut self, session: &mut Session, epoch: u64) -> End {
        let kick = Arc::clone(&self.handle.kick);
        loop {
            // Polling is not safe to cancel for a connection that goes on. A kicked one does not.
            let polled = tokio::select! {
                biased;
                () = kick.notified() => Err(Failure::cut()),
                polled = session.poll() => polled,
            };
            let event = match polled {
                Ok(Polled::Message { topic, payload, packet }) => {
                    self.was_of_use();
                    let packet = packet.filter(|_| self.config.manual_acks);
                    LinkEvent::Message(Message { topic, payload, ack: packet.map(|packet| Ack { epoch, packet }) })
                }
                Ok(Polled::Acknowledged(refused)) => {
                    self.answered("a message", refused);
                    LinkEvent::Published { accepted: refused.is_none() }
                }
                Ok(Polled::Subscribed(refused)) => {
                    self.answered("a subscription", refused);
                    LinkEvent::Subscribed { accepted: refused.is_none() }
                }
                // rumqttc says so also when it would have told the broker of an error, and does not.
                Ok(Polled::Disconnecting) if self.handle.gate().closing => return End::Farewell,
                Ok(Polled::Disconnecting) => return End::Lost(Failure::cut()),
                Ok(Polled::Connected { .. } | Polled::Other) => continue,
                Err(failure) => return End::Lost(failure),
            };
            (self.react)(event);
        }
    }

    /// The broker said yes or no to something.
    fn answered(&mut self, what: &str, refused: Option<&'static str>) {
        let Some(reason) = refused else {
            self.was_of_use();
            return;
        };
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals.is_power_of_two() {
            let (link, refusals) = (&self.config.client_id, self.refusals);
            tracing::error!(link, refusals, reason, "the broker refused {what}");
        }
    }

    fn was_of_use(&mut self) {
        self.backoff = BACKOFF_MIN;
        self.losses = 0;
    }
}
