//! What a broker means when it says no, in words with the next step.

use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, PubAckReason, SubscribeReasonCode};

use super::access::Version;

/// No permission, wherever the broker says it.
pub(super) const NOT_AUTHORIZED: &str = "not authorized: give this user the rights that the documentation of `holeshot` lists (read and write below holeshot/v1/)";

/// Another client has the name of this one.
pub(super) const TAKEN_OVER: &str = "another client came with the same client id: give each host on this broker a host id of its own, and run one \
     manager for one folder of records";

/// Why a message was refused.
pub(super) fn of_publish(reason: PubAckReason) -> &'static str {
    match reason {
        PubAckReason::NotAuthorized => NOT_AUTHORIZED,
        PubAckReason::QuotaExceeded => "the broker's quota is exceeded: raise it, or wait",
        PubAckReason::TopicNameInvalid => "the broker does not like the topic: it must take topics below holeshot/v1/",
        PubAckReason::PayloadFormatInvalid => "the broker takes no UTF-8 there",
        PubAckReason::PacketIdentifierInUse => "the broker finds the packet's number in use",
        _ => "the broker gives no reason that MQTT knows; its log may",
    }
}

/// Why a subscription was refused.
pub(super) fn of_subscription(reason: SubscribeReasonCode) -> &'static str {
    match reason {
        SubscribeReasonCode::NotAuthorized | SubscribeReasonCode::Failure => NOT_AUTHORIZED,
        SubscribeReasonCode::QuotaExceeded => "the broker's quota is exceeded: raise it, or wait",
        SubscribeReasonCode::WildcardSubscriptionsNotSupported => {
            "the broker takes no wildcards, and a manager needs them: switch them on there"
        }
        SubscribeReasonCode::TopicFilterInvalid => "the broker does not like the topic filter",
        _ => "the broker gives no reason that MQTT knows; its log may",
    }
}

/// Why a connection was refused.
pub(super) fn of_connect(code: ConnectReturnCode) -> String {
    match code {
        ConnectReturnCode::BadUserNamePassword => {
            "the broker refuses this user or password: check `broker_username` and `broker_password_file`".to_owned()
        }
        ConnectReturnCode::NotAuthorized => "the broker does not let this client in: check `broker_username` and \
             `broker_password_file`, or does it want a client certificate?"
            .to_owned(),
        ConnectReturnCode::ClientIdentifierNotValid | ConnectReturnCode::BadClientId => {
            "the broker refuses the client id: it must take ids that begin with holeshot-".to_owned()
        }
        ConnectReturnCode::RetainNotSupported => {
            "the broker keeps no retained messages, and a host's status is one: switch them on there".to_owned()
        }
        ConnectReturnCode::QoSNotSupported => {
            "the broker takes QoS 0 only, and events need QoS 1: allow QoS 1 there".to_owned()
        }
        ConnectReturnCode::Banned => "the broker has banned this client: lift that there".to_owned(),
        ConnectReturnCode::BadAuthenticationMethod => {
            "the broker wants a way of authentication other than a password or a certificate".to_owned()
        }
        ConnectReturnCode::UseAnotherServer | ConnectReturnCode::ServerMoved => {
            "the broker is elsewhere now: set `broker` to its new address".to_owned()
        }
        other => format!("the broker refuses the connection ({other:?})"),
    }
}

/// The broker does not speak the version that was asked for.
pub(super) fn of_version(version: Version) -> String {
    format!("the broker does not speak MQTT {version}: set `broker_protocol` to auto, or to a version that it speaks")
}

/// Nothing came in time.
pub(super) fn of_silence() -> String {
    "no answer in time: is this the address of an MQTT broker, and does it speak TLS exactly if the URL says mqtts://?"
        .to_owned()
}
