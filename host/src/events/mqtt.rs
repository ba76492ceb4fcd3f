//! One connection in either version of MQTT (rumqttc has a client for each), as one type: what can be asked of it, and what comes
//! from it. A connection is made once and thrown away with everything that was asked of it: rumqttc 0.25 keeps some requests over a
//! lost connection and drops others, and of the state that it keeps some wedges the next one (a collision of packet numbers in both
//! versions; in version 5 also the last packet number, when the broker's receive maximum shrinks). When to connect is the business of
//! [`super::link`].

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use rumqttc::v5::mqttbytes::v5 as five;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode, PubAckReason};
use rumqttc::{Outgoing, Transport, v5};

use super::access::{BrokerAccess, Version};
use super::cloudevent::CONTENT_TYPE;
use super::{reason, tls};

/// Largest packet that is sent or read, in bytes: the largest event with room to spare. The default of rumqttc (10 KiB) ends the
/// connection on a larger one.
pub(super) const PACKET_MAX_BYTES: usize = 256 * 1024;

/// Requests that wait for the connection's task: acknowledgements of a whole batch of the manager, and some. More
/// than the in-flight window, so that a full channel is never what holds a window up.
pub(super) const REQUESTS_MAX: usize = 4096;

/// Messages that a broker of version 5 may send before it has acknowledgements: these all fit into the requests.
const RECEIVE_MAX: u16 = 2048;

/// A dead connection is noticed after two of these.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Longest time for connecting, in seconds.
const CONNECT_MAX_S: u64 = 2;

/// Longest time without anything from the connection, not even an answer to a ping: two pings, and one to spare. rumqttc's client for version 5
/// waits without end for a broker that takes no bytes.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// How long a broker of version 5 keeps the session of a manager that is away, in seconds. Then the hosts send everything again,
/// which they can do for as long as their outboxes hold; nobody cleans up sessions that are kept for ever.
const SESSION_KEPT_S: u32 = 3_600;

/// What a publish of ours may have beyond its topic and payload, in bytes: header, packet number, properties.
const OVERHEAD_MAX_BYTES: usize = 128;

/// What a payload is. Version 5 says so on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// A CloudEvent in structured mode.
    Event,
    /// Other JSON.
    Json,
}

impl Content {
    fn content_type(self) -> String {
        match self {
            Self::Event => format!("{CONTENT_TYPE}; charset=utf-8"),
            Self::Json => "application/json".to_owned(),
        }
    }
}

/// A message to be published by the broker if the connection ends without a farewell. Retained, QoS 1.
#[derive(Debug, Clone)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
}

/// What kind of connection.
#[derive(Debug, Clone)]
pub(crate) struct LinkConfig {
    /// The client id: stable, where the session is to be.
    pub(crate) client_id: String,
    /// The broker.
    pub(crate) access: BrokerAccess,
    /// Whether the broker keeps the session while the connection is away.
    pub(crate) keep_session: bool,
    /// Whether messages are acknowledged by hand (otherwise on arrival).
    pub(crate) manual_acks: bool,
    /// QoS 1 messages that may be unacknowledged.
    pub(crate) window: u16,
    /// The last will.
    pub(crate) will: Option<Will>,
}

/// Asks things of one connection, without waiting. Says whether they were taken.
#[derive(Clone)]
pub(super) enum Client {
    V311(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// The connection itself: must be polled for anything to happen.
pub(super) enum Session {
    V311(Box<rumqttc::EventLoop>),
    V5(Box<v5::EventLoop>),
}

/// What comes from a connection.
pub(super) enum Polled {
    /// The broker took the connection.
    Connected {
        session_present: bool,
        /// Largest packet that the broker takes, if it says.
        packet_max_bytes: Option<u32>,
    },
    /// A message; `packet` numbers those that want an acknowledgement.
    Message { topic: String, payload: Vec<u8>, packet: Option<u16> },
    /// A message of ours was dealt with; with what the broker has against it.
    Acknowledged(Option<&'static str>),
    /// A subscription was dealt with; with what the broker has against it.
    Subscribed(Option<&'static str>),
    /// A DISCONNECT was written.
    Disconnecting,
    /// Nothing of interest.
    Other,
}

/// Why a connection ended, or was not made.
#[derive(Debug)]
pub(super) struct Failure {
    /// For people, with the next step where there is one.
    pub(super) reason: String,
    pub(super) kind: FailureKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The broker says that it does not speak this version.
    Version,
    /// The broker said nothing that is an answer: perhaps it does not speak this version.
    NoAnswer,
    /// Another reason.
    Other,
}

impl Client {
    pub(super) fn publish(
        &self,
        topic: &str,
        payload: Vec<u8>,
        acknowledged: bool,
        retain: bool,
        content: Content,
    ) -> bool {
        match self {
            Self::V311(client) => {
                let qos = if acknowledged { rumqttc::QoS::AtLeastOnce } else { rumqttc::QoS::AtMostOnce };
                client.try_publish(topic, qos, retain, payload).is_ok()
            }
            Self::V5(client) => {
                use v5::mqttbytes::QoS;
                let qos = if acknowledged { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                let properties = five::PublishProperties {
                    // 1: the payload is UTF-8.
                    payload_format_indicator: Some(1),
                    content_type: Some(content.content_type()),
                    ..Default::default()
                };
                client.try_publish_with_properties(topic, qos, retain, payload, properties).is_ok()
            }
        }
    }

    /// Subscribes with QoS 1.
    pub(super) fn subscribe(&self, filter: &str) -> bool {
        match self {
            Self::V311(client) => client.try_subscribe(filter, rumqttc::QoS::AtLeastOnce).is_ok(),
            Self::V5(client) => client.try_subscribe(filter, v5::mqttbytes::QoS::AtLeastOnce).is_ok(),
        }
    }

    /// Acknowledges the message with this number.
    pub(super) fn acknowledge(&self, packet: u16) -> bool {
        match self {
            Self::V311(client) => {
                let mut publish = rumqttc::Publish::new("", rumqttc::QoS::AtLeastOnce, Vec::new());
                publish.pkid = packet;
                client.try_ack(&publish).is_ok()
            }
            Self::V5(client) => {
                let mut publish = five::Publish::new("", v5::mqttbytes::QoS::AtLeastOnce, Vec::new(), None);
                publish.pkid = packet;
                client.try_ack(&publish).is_ok()
            }
        }
    }

    /// Says farewell, after everything that was asked before.
    pub(super) fn disconnect(&self) -> bool {
        match self {
            Self::V311(client) => client.try_disconnect().is_ok(),
            Self::V5(client) => client.try_disconnect().is_ok(),
        }
    }
}

/// Whether a message fits into a packet that the broker takes.
pub(super) fn fits(topic: &str, payload: &[u8], packet_max_bytes: Option<u32>) -> bool {
    let max = packet_max_bytes.map_or(PACKET_MAX_BYTES, |max| PACKET_MAX_BYTES.min(max as usize));
    topic.len() + payload.len() + OVERHEAD_MAX_BYTES <= max
}

/// A connection that is not made yet: the first [`Session::poll`] does it.
pub(super) fn open(config: &LinkConfig, version: Version) -> (Client, Session) {
    let access = &config.access;
    let transport = match &access.tls {
        Some(tls) => Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(tls.config())),
        None => Transport::tcp(),
    };
    match version {
        Version::V311 => {
            let mut options = rumqttc::MqttOptions::new(config.client_id.clone(), access.host.clone(), access.port);
            options
                .set_transport(transport)
                .set_keep_alive(KEEP_ALIVE)
                .set_clean_session(!config.keep_session)
                .set_manual_acks(config.manual_acks)
                .set_inflight(config.window.max(1))
                .set_max_packet_size(PACKET_MAX_BYTES, PACKET_MAX_BYTES);
            if let Some(username) = &access.username {
                options.set_credentials(username.clone(), access.password.clone().unwrap_or_default());
            }
            if let Some(Will { topic, payload }) = config.will.clone() {
                options.set_last_will(rumqttc::LastWill::new(topic, payload, rumqttc::QoS::AtLeastOnce, true));
            }
            let (client, mut events) = rumqttc::AsyncClient::new(options, REQUESTS_MAX);
            events.network_options.set_connection_timeout(CONNECT_MAX_S);
            events.network_options.set_tcp_nodelay(true);
            (Client::V311(client), Session::V311(Box::new(events)))
        }
        Version::V5 => {
            let mut network = rumqttc::NetworkOptions::new();
            network.set_tcp_nodelay(true);
            network.set_connection_timeout(CONNECT_MAX_S);
            let mut options = v5::MqttOptions::new(config.client_id.clone(), access.host.clone(), access.port);
            options
                .set_transport(transport)
                .set_network_options(network)
                .set_connection_timeout(CONNECT_MAX_S)
                .set_keep_alive(KEEP_ALIVE)
                .set_clean_start(!config.keep_session)
                .set_session_expiry_interval(config.keep_session.then_some(SESSION_KEPT_S))
                .set_receive_maximum(Some(RECEIVE_MAX))
                .set_max_packet_size(u32::try_from(PACKET_MAX_BYTES).ok())
                .set_manual_acks(config.manual_acks)
                .set_outgoing_inflight_upper_limit(config.window.max(1));
            if let Some(username) = &access.username {
                options.set_credentials(username.clone(), access.password.clone().unwrap_or_default());
            }
            if let Some(Will { topic, payload }) = config.will.clone() {
                let properties = five::LastWillProperties {
                    delay_interval: None,
                    payload_format_indicator: Some(1),
                    message_expiry_interval: None,
                    content_type: Some(Content::Json.content_type()),
                    response_topic: None,
                    correlation_data: None,
                    user_properties: Vec::new(),
                };
                let qos = v5::mqttbytes::QoS::AtLeastOnce;
                options.set_last_will(five::LastWill::new(topic, payload, qos, true, Some(properties)));
            }
            let (client, events) = v5::AsyncClient::new(options, REQUESTS_MAX);
            (Client::V5(client), Session::V5(Box::new(events)))
        }
    }
}

impl Session {
    /// The next thing that happens. Not safe to cancel for a connection that goes on.
    pub(super) async fn poll(&mut self) -> Result<Polled, Failure> {
        let polled = async {
            match self {
                Self::V311(events) => events.poll().await.map_or_else(|error| Err(failure_311(&error)), polled_311),
                Self::V5(events) => {
                    let polled = events.poll().await;
                    polled.map_or_else(|error| Err(failure_5(&error)), |event| polled_5(events, event))
                }
            }
        };
        // What a broker sends is decoded in there, and not every length is checked.
        match tokio::time::timeout(SILENCE_MAX, AssertUnwindSafe(polled).catch_unwind()).await {
            Ok(Ok(polled)) => polled,
            Ok(Err(_panic)) => Err(Failure::other("the broker sent something that broke the MQTT client")),
            Err(_elapsed) => Err(Failure::other("the broker is silent")),
        }
    }
}

impl Failure {
    fn other(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), kind: FailureKind::Other }
    }

    /// A connection that this side ended.
    pub(super) fn cut() -> Self {
        Self::other("cut by this side")
    }
}

fn polled_311(event: rumqttc::Event) -> Result<Polled, Failure> {
    use rumqttc::{Event, Packet, QoS, SubscribeReasonCode};
    Ok(match event {
        Event::Incoming(Packet::ConnAck(answer)) => {
            Polled::Connected { session_present: answer.session_present, packet_max_bytes: None }
        }
        Event::Incoming(Packet::Publish(publish)) => Polled::Message {
            packet: (publish.qos == QoS::AtLeastOnce).then_some(publish.pkid),
            topic: publish.topic,
            payload: publish.payload.to_vec(),
        },
        // This version has no way to refuse: a broker takes the message and drops it, or cuts the connection.
        Event::Incoming(Packet::PubAck(_)) => Polled::Acknowledged(None),
        Event::Incoming(Packet::SubAck(answer)) => {
            let is_taken = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
            Polled::Subscribed((!answer.return_codes.iter().all(is_taken)).then_some(reason::NOT_AUTHORIZED))
        }
        Event::Outgoing(Outgoing::Disconnect) => Polled::Disconnecting,
        _ => Polled::Other,
    })
}

fn polled_5(events: &mut v5::EventLoop, event: v5::Event) -> Result<Polled, Failure> {
    use five::{Packet, SubscribeReasonCode};
    use v5::{Event, mqttbytes::QoS};
    Ok(match event {
        Event::Incoming(Packet::ConnAck(answer)) => {
            let properties = answer.properties.as_ref();
            // It may be said that there is none, or that it is long; rumqttc takes 0 for "always" and pings without end.
            if events.options.keep_alive() < KEEP_ALIVE || events.options.keep_alive() > KEEP_ALIVE {
                events.options.set_keep_alive(KEEP_ALIVE);
            }
            if properties.is_some_and(|said| said.receive_max == Some(0)) {
                return Err(Failure::other("the broker breaks the protocol: it takes 0 messages at a time"));
            }
            if properties.is_some_and(|said| said.max_qos == Some(0)) {
                return Err(Failure::other("the broker takes QoS 0 only, and events need QoS 1: allow QoS 1 there"));
            }
            Polled::Connected {
                session_present: answer.session_present,
                packet_max_bytes: properties.and_then(|said| said.max_packet_size),
            }
        }
        Event::Incoming(Packet::Publish(publish)) => Polled::Message {
            packet: (publish.qos == QoS::AtLeastOnce).then_some(publish.pkid),
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload.to_vec(),
        },
        Event::Incoming(Packet::PubAck(answer)) => Polled::Acknowledged(match answer.reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
            refused => Some(reason::of_publish(refused)),
        }),
        Event::Incoming(Packet::SubAck(answer)) => {
            let refused = answer.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
            Polled::Subscribed(refused.map(|code| reason::of_subscription(*code)))
        }
        Event::Outgoing(Outgoing::Disconnect) => Polled::Disconnecting,
        _ => Polled::Other,
    })
}

fn failure_311(error: &rumqttc::ConnectionError) -> Failure {
    use rumqttc::{ConnectReturnCode as Code, ConnectionError as Error};
    match error {
        Error::Tls(error) => Failure::other(tls::explain_client(error)),
        Error::ConnectionRefused(Code::RefusedProtocolVersion) => {
            Failure { reason: reason::of_version(Version::V311), kind: FailureKind::Version }
        }
        Error::ConnectionRefused(code) => Failure::other(match code {
            Code::BadUserNamePassword => reason::of_connect(ConnectReturnCode::BadUserNamePassword),
            Code::NotAuthorized => reason::of_connect(ConnectReturnCode::NotAuthorized),
            Code::BadClientId => reason::of_connect(ConnectReturnCode::ClientIdentifierNotValid),
            other => format!("the broker refuses the connection ({other:?})"),
        }),
        Error::MqttState(error) => {
            Failure { reason: tls::explain_alert(error.to_string()), kind: FailureKind::NoAnswer }
        }
        Error::NetworkTimeout => Failure { reason: reason::of_silence(), kind: FailureKind::NoAnswer },
        other => Failure::other(other.to_string()),
    }
}

fn failure_5(error: &v5::ConnectionError) -> Failure {
    use v5::{ConnectionError as Error, StateError};
    match error {
        Error::Tls(error) => Failure::other(tls::explain_client(error)),
        Error::ConnectionRefused(
            ConnectReturnCode::RefusedProtocolVersion | ConnectReturnCode::UnsupportedProtocolVersion,
        ) => Failure { reason: reason::of_version(Version::V5), kind: FailureKind::Version },
        Error::ConnectionRefused(code) => Failure::other(reason::of_connect(*code)),
        Error::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            let said = reason_string.as_deref().map(|said| format!(" ({said})")).unwrap_or_default();
            let reason = match reason_code {
                DisconnectReasonCode::SessionTakenOver => reason::TAKEN_OVER.to_owned(),
                DisconnectReasonCode::NotAuthorized => reason::NOT_AUTHORIZED.to_owned(),
                other => format!("the broker ended the connection: {other:?}"),
            };
            Failure::other(reason + &said)
        }
        Error::MqttState(error) => {
            Failure { reason: tls::explain_alert(error.to_string()), kind: FailureKind::NoAnswer }
        }
        Error::Timeout(_) => Failure { reason: reason::of_silence(), kind: FailureKind::NoAnswer },
        other => Failure::other(other.to_string()),
    }
}
