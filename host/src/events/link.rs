//! One supervised MQTT connection (rumqttc, MQTT 3.1.1): it connects, reconnects and cleans up. After a lost
//! connection nothing that was asked of the old one is sent on the new one: rumqttc keeps some such requests, drops
//! others and can wedge on them, so all are dropped here and whoever asked starts again. What to send, and what a
//! message means, is the business of the code that holds the link.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS, SubscribeReasonCode};
use tokio::sync::Notify;

use super::BrokerAccess;

/// Largest packet that is sent or read. The default of rumqttc (10 KiB) ends the connection on a larger one.
const PACKET_MAX_BYTES: usize = 256 * 1024;

/// Requests that wait for the connection's task: acknowledgements of a whole batch of the manager, and some. More
/// than the in-flight window, so that a full channel is never what holds a window up.
const REQUESTS_MAX: usize = 4096;

/// A dead connection is noticed after two of these.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Longest time for connecting and for flushing, in seconds.
const CONNECT_MAX_S: u64 = 2;

/// Pause before the first new attempt; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// Longest pause between attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A message to be published by the broker if the connection ends without a farewell. Retained, QoS 1.
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
}

/// What kind of connection.
pub(crate) struct LinkConfig {
    /// The client id: stable, where the session is to be.
    pub(crate) client_id: String,
    /// The broker.
    pub(crate) access: BrokerAccess,
    /// Whether the broker keeps the session while the connection is away.
    pub(crate) keep_session: bool,
    /// Whether messages are acknowledged by [`LinkHandle::ack`] (otherwise on arrival).
    pub(crate) manual_acks: bool,
    /// QoS 1 messages that may be unacknowledged.
    pub(crate) window: u16,
    /// The last will.
    pub(crate) will: Option<Will>,
}

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
    /// One QoS 1 message of ours was acknowledged.
    Published,
    /// A message arrived.
    Message(Message),
}

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no connection, or not the one that was meant.
    NotConnected,
    /// [`REQUESTS_MAX`] requests wait already.
    Full,
}

struct Gate {
    epoch: u64,
    connected: bool,
    closing: bool,
}

/// Asks things of a link, from any thread, without waiting.
#[derive(Clone)]
pub(crate) struct LinkHandle {
    client: AsyncClient,
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
    ) -> Result<(), Refused> {
        let gate = self.gate();
        if !gate.connected || epoch.is_some_and(|epoch| epoch != gate.epoch) {
            return Err(Refused::NotConnected);
        }
        let qos = if acknowledged { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        // Still under the lock: the driver cleans up under it, so no request slips in behind a lost connection.
        self.client.try_publish(topic, qos, retain, payload).map_err(|_| Refused::Full)
    }

    /// Subscribes with QoS 1.
    pub(crate) fn subscribe(&self, filter: &str) -> Result<(), Refused> {
        let gate = self.gate();
        if !gate.connected {
            return Err(Refused::NotConnected);
        }
        self.client.try_subscribe(filter, QoS::AtLeastOnce).map_err(|_| Refused::Full)
    }

    /// Acknowledges a message. On another connection than the one that brought it the packet number means another
    /// message, so it is not sent there; the broker delivers the message again.
    pub(crate) fn ack(&self, ack: Ack) -> Result<(), Refused> {
        let gate = self.gate();
        if !gate.connected || ack.epoch != gate.epoch {
            return Err(Refused::NotConnected);
        }
        let mut publish = rumqttc::Publish::new("", QoS::AtLeastOnce, Vec::new());
        publish.pkid = ack.packet;
        self.client.try_ack(&publish).map_err(|_| Refused::Full)
    }

    /// Cuts the connection and connects anew.
    pub(crate) fn reconnect(&self) {
        self.kick.notify_one();
    }

    /// Whether there is a connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.gate().connected
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
        let mut options = MqttOptions::new(config.client_id.clone(), config.access.host.clone(), config.access.port);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_session(!config.keep_session)
            .set_manual_acks(config.manual_acks)
            .set_inflight(config.window.max(1))
            .set_max_packet_size(PACKET_MAX_BYTES, PACKET_MAX_BYTES);
        if let Some(username) = &config.access.username {
            options.set_credentials(username.clone(), config.access.password.clone().unwrap_or_default());
        }
        if let Some(will) = config.will {
            options.set_last_will(rumqttc::LastWill::new(will.topic, will.payload, QoS::AtLeastOnce, true));
        }
        let (client, mut events) = AsyncClient::new(options, REQUESTS_MAX);
        events.network_options.set_connection_timeout(CONNECT_MAX_S);
        events.network_options.set_tcp_nodelay(true);
        let handle = LinkHandle {
            client,
            gate: Arc::new(Mutex::new(Gate { epoch: 0, connected: false, closing: false })),
            kick: Arc::new(Notify::new()),
        };
        let react = react(handle.clone());
        let driver = Driver { handle: handle.clone(), name: config.client_id, manual_acks: config.manual_acks };
        Self { handle, task: Some(tokio::spawn(driver.run(events, react))) }
    }

    pub(crate) fn handle(&self) -> &LinkHandle {
        &self.handle
    }

    /// Sends what was asked for, says farewell (the will is not published) and ends, within `wait`.
    pub(crate) async fn close(mut self, wait: Duration) {
        let farewell = {
            let mut gate = self.handle.gate();
            gate.closing = true;
            gate.connected && self.handle.client.try_disconnect().is_ok()
        };
        if let Some(mut task) = self.task.take()
            && (!farewell || tokio::time::timeout(wait, &mut task).await.is_err())
        {
            task.abort();
        }
        self.handle.gate().connected = false;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        {
            // Whoever still holds a handle must not wait for a task that is gone.
            let mut gate = self.handle.gate();
            gate.closing = true;
            gate.connected = false;
        }
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

struct Driver {
    handle: LinkHandle,
    name: String,
    manual_acks: bool,
}

impl Driver {
    async fn run(self, mut events: EventLoop, mut react: impl FnMut(LinkEvent) + Send) {
        let mut backoff = BACKOFF_MIN;
        let mut failures = 0_u32;
        loop {
            // Polling is not safe to cancel for a connection that goes on. A kicked one does not.
            let polled = tokio::select! {
                biased;
                () = self.handle.kick.notified() => Err("cut by this side".to_owned()),
                polled = events.poll() => polled.map_err(|error| error.to_string()),
            };
            match polled {
                Ok(Event::Incoming(Packet::ConnAck(answer))) => {
                    backoff = BACKOFF_MIN;
                    failures = 0;
                    let epoch = {
                        let mut gate = self.handle.gate();
                        gate.epoch += 1;
                        gate.connected = !gate.closing;
                        gate.epoch
                    };
                    tracing::debug!(link = self.name, epoch, "connected to the broker");
                    react(LinkEvent::Connected { epoch, session_present: answer.session_present });
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let ack = (self.manual_acks && publish.qos == QoS::AtLeastOnce)
                        .then(|| Ack { epoch: self.handle.gate().epoch, packet: publish.pkid });
                    react(LinkEvent::Message(Message { topic: publish.topic, payload: publish.payload.to_vec(), ack }));
                }
                Ok(Event::Incoming(Packet::PubAck(_))) => react(LinkEvent::Published),
                Ok(Event::Incoming(Packet::SubAck(answer))) => {
                    let accepted =
                        answer.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_)));
                    if !accepted {
                        tracing::error!(
                            link = self.name,
                            "the broker refused a subscription: give this user the right to subscribe to holeshot/#"
                        );
                    }
                    react(LinkEvent::Subscribed { accepted });
                }
                Ok(Event::Outgoing(Outgoing::Disconnect)) => {
                    self.lost(&mut events);
                    return;
                }
                Ok(_) => {}
                Err(reason) => {
                    if self.lost(&mut events) {
                        tracing::warn!(link = self.name, reason, "lost the broker");
                        react(LinkEvent::Disconnected);
                    } else {
                        failures = failures.saturating_add(1);
                        // Powers of two: a broker that is away for a day costs a dozen lines.
                        if failures.is_power_of_two() {
                            tracing::warn!(link = self.name, failures, reason, "cannot reach the broker; trying again");
                            react(LinkEvent::Unreachable { reason });
                        }
                    }
                    if self.handle.gate().closing {
                        return;
                    }
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// Forgets everything that was asked of the connection. Says whether there was one.
    fn lost(&self, events: &mut EventLoop) -> bool {
        let mut gate = self.handle.gate();
        events.clean();
        events.pending.clear();
        // Both survive in rumqttc 0.25 and would block or confuse the next connection.
        events.state.collision = None;
        events.state.events.clear();
        std::mem::replace(&mut gate.connected, false)
    }
}
