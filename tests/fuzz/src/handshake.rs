//! Handshake messages 1 and 2: only the unaltered ones, for this host and this ticket, make keys, and then both sides have the same.

use holeshot_wire::datagram::{DATAGRAM_BYTES_MAX, PAYLOAD_BYTES_MAX};
use holeshot_wire::handshake::HANDSHAKE_MESSAGE_BYTES;
use holeshot_wire::{ClientHandshake, HandshakeError, HandshakeMessage, HostKeypair, accept};

use crate::take::Take;

const TICKET: &str = "a ticket";

pub(crate) fn target(input: &[u8]) {
    let mut input = Take(input);
    match input.u8() % 4 {
        0 => text(input.rest()),
        1 => first(input),
        2 => second(input),
        _ => both(input),
    }
}

fn host() -> HostKeypair {
    HostKeypair::from_private([9; 32]).expect("any 32 bytes are a private key")
}

/// There is one text for each message, and nothing else is one.
fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(message) = HandshakeMessage::from_base64(text) {
        assert_eq!(message.to_base64(), text);
    }
    if let Some(message) = bytes.first_chunk::<HANDSHAKE_MESSAGE_BYTES>() {
        let message = HandshakeMessage(*message);
        assert_eq!(HandshakeMessage::from_base64(&message.to_base64()), Ok(message));
    }
}

/// A message 1 that is made up, or altered, or for another ticket or host, is refused.
fn first(mut input: Take<'_>) {
    let (_, good) = ClientHandshake::start(&host().public(), TICKET, [3; 32]).expect("a handshake starts");
    let message = altered(&mut input, good);
    let ticket = String::from_utf8_lossy(input.rest()).into_owned();
    let accepted = accept(&host(), &ticket, &message, [4; 32]).map(|_| ());
    let is_good = message == good && ticket == TICKET;
    assert_eq!(accepted, if is_good { Ok(()) } else { Err(HandshakeError::Mismatch) });
}

/// A message 2 that is made up or altered is refused.
fn second(mut input: Take<'_>) {
    let (client, message_1) = ClientHandshake::start(&host().public(), TICKET, [3; 32]).expect("a handshake starts");
    let (_, good) = accept(&host(), TICKET, &message_1, [4; 32]).expect("message 1 is good");
    let message = altered(&mut input, good);
    match client.finish(&message) {
        Ok(_) => assert_eq!(message, good),
        Err(error) => assert!(error == HandshakeError::Mismatch && message != good),
    }
}

/// The input's own message, or a good one with some bits changed.
fn altered(input: &mut Take<'_>, good: HandshakeMessage) -> HandshakeMessage {
    let is_altered = input.u8().is_multiple_of(2);
    let mut bytes = input.array::<HANDSHAKE_MESSAGE_BYTES>();
    if is_altered {
        bytes.iter_mut().zip(good.0).for_each(|(mask, byte)| *mask ^= byte);
    }
    HandshakeMessage(bytes)
}

/// With any keys, any randomness and any ticket both sides come to the same keys, and these open what the other sealed.
fn both(mut input: Take<'_>) {
    let host = HostKeypair::from_private(input.array()).expect("any 32 bytes are a private key");
    let (client_random, host_random) = (input.array(), input.array());
    let payload = input.piece();
    let ticket = String::from_utf8_lossy(input.rest()).into_owned();
    let (client, message_1) = ClientHandshake::start(&host.public(), &ticket, client_random).expect("it starts");
    let (host_keys, message_2) = accept(&host, &ticket, &message_1, host_random).expect("message 1 is good");
    let client_keys = client.finish(&message_2).expect("message 2 is good");
    let (mut client_seals, mut client_opens) = client_keys.into_client(1);
    let (mut host_seals, mut host_opens) = host_keys.into_host(1);
    let mut datagram = Vec::with_capacity(DATAGRAM_BYTES_MAX);
    if payload.is_empty() || payload.len() > PAYLOAD_BYTES_MAX {
        return;
    }
    client_seals.seal_bytes(payload, &mut datagram).expect("it fits");
    // The two directions have keys of their own: nothing comes back to its sender.
    assert!(client_opens.open(&mut datagram.clone()).is_err());
    assert_eq!(host_opens.open(&mut datagram).expect("the client's opens").payload, payload);
    host_seals.seal_bytes(payload, &mut datagram).expect("it fits");
    assert!(host_opens.open(&mut datagram.clone()).is_err());
    assert_eq!(client_opens.open(&mut datagram).expect("the host's opens").payload, payload);
}
