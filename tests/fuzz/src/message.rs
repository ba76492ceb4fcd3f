//! Text messages of the WebSocket, both ways: what is read keeps the limits of the specification, and is written with the same meaning.

use holeshot_wire::message::{
    ACTION_DATA_BYTES_MAX, CLIENT_MESSAGE_BYTES_MAX, HOST_MESSAGE_BYTES_MAX, INTEGER_MAX, NAME_BYTES_MAX,
    PLAYERS_COUNT_MAX, REASON_BYTES_MAX, TICK_HZ_MAX, TICKET_BYTES_MAX,
};
use holeshot_wire::{ClientMessage, HostMessage, MessageError};

/// Length of the longest error in bytes: it goes into a reason or a log line.
const ERROR_BYTES_MAX: usize = 1_024;

pub(crate) fn target(input: &[u8]) {
    // A WebSocket refuses text that is not UTF-8 itself.
    let Ok(text) = std::str::from_utf8(input) else { return };
    from_client(text);
    from_host(text);
}

fn said(error: &MessageError) {
    let words = error.to_string();
    assert!(words.len() <= ERROR_BYTES_MAX, "{} bytes of error", words.len());
}

fn from_client(text: &str) {
    let message = match ClientMessage::decode(text) {
        Ok(message) => message,
        Err(error) => return said(&error),
    };
    assert!(text.len() <= CLIENT_MESSAGE_BYTES_MAX);
    match &message {
        ClientMessage::Hello { ticket, after, .. } => {
            assert!((1..=TICKET_BYTES_MAX).contains(&ticket.len()));
            assert!(after.is_none_or(|after| after <= INTEGER_MAX));
        }
        ClientMessage::Action { id, data } => {
            assert!(*id <= INTEGER_MAX && data.to_string().len() <= ACTION_DATA_BYTES_MAX);
        }
        ClientMessage::Ping { t } => assert!(*t <= INTEGER_MAX),
        ClientMessage::Ready | ClientMessage::Leave => {}
    }
    let written = message.encode().expect("what was read can be written");
    assert_eq!(ClientMessage::decode(&written).as_ref(), Ok(&message), "{written}");
}

fn from_host(text: &str) {
    let message = match HostMessage::decode(text) {
        Ok(message) => message,
        Err(error) => return said(&error),
    };
    assert!(text.len() <= HOST_MESSAGE_BYTES_MAX);
    let is_name = |name: &str| (1..=NAME_BYTES_MAX).contains(&name.len());
    match &message {
        HostMessage::Welcome { room, players, udp_port, tick_hz, rules, .. } => {
            assert!(is_name(room) && is_name(&rules.name) && is_name(&rules.version) && rules.hash.len() == 64);
            assert!(players.len() <= PLAYERS_COUNT_MAX && (1..=TICK_HZ_MAX).contains(tick_hz));
            assert!(players.iter().all(|player| player.name.len() <= NAME_BYTES_MAX) && *udp_port != Some(0));
        }
        HostMessage::Event { seq, name, frame, .. } => {
            assert!((1..=INTEGER_MAX).contains(seq) && is_name(name) && *frame != Some(u32::MAX));
        }
        HostMessage::Refused { reason, .. } | HostMessage::Bye { reason, .. } => {
            assert!(reason.len() <= REASON_BYTES_MAX);
        }
        HostMessage::ActionResult { id, reason, .. } => {
            assert!(*id <= INTEGER_MAX && reason.as_ref().is_none_or(|reason| reason.len() <= REASON_BYTES_MAX));
        }
        HostMessage::Pong { t } => assert!(*t <= INTEGER_MAX),
    }
    match message.encode() {
        Ok(written) => assert_eq!(HostMessage::decode(&written).as_ref(), Ok(&message), "{written}"),
        // 1e15 is written with all its digits.
        Err(MessageError::TooLong { .. }) => assert!(matches!(message, HostMessage::Event { .. })),
        Err(other) => panic!("what was read cannot be written: {other}"),
    }
}
