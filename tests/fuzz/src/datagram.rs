//! Datagrams and what is in them: headers, seals, the replay window, payloads both ways, and snapshots in parts.

use std::cell::RefCell;

use holeshot_wire::datagram::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, PAYLOAD_BYTES_MAX, REPLAY_WINDOW_SEQUENCES};
use holeshot_wire::payload::{Encode, INPUT_BYTES_MAX, INPUTS_COUNT_MAX, SNAPSHOT_BYTES_MAX};
use holeshot_wire::{
    ClientHandshake, Header, HostKeypair, Inputs, Joined, OpenError, Opener, Reassembler, SealError, Sealer, Snapshot,
    ToClient, ToHost, accept, snapshot_parts,
};

use crate::take::Take;

/// Datagrams that one input seals at most, besides skipped ones: enough to double, drop and reorder.
const SEALED_MAX: usize = 64;

pub(crate) fn target(input: &[u8]) {
    let mut input = Take(input);
    match input.u8() % 5 {
        0 => payload(input.rest()),
        1 => garbage(input.rest()),
        2 => sealed(input),
        3 => window(input),
        _ => snapshots(input),
    }
}

/// Both sides of two sessions. They live as long as the thread, because a handshake takes a hundred times as long as a datagram; what is
/// asserted does not depend on the sequence that a session has come to.
struct Sessions {
    ours: (Sealer, Opener),
    theirs: (Sealer, Opener),
}

thread_local! {
    static SESSIONS: RefCell<Sessions> = RefCell::new(Sessions { ours: session(7, 1), theirs: session(7, 2) });
}

/// The client's sealer and the host's opener of a session.
fn session(number: u32, seed: u8) -> (Sealer, Opener) {
    let host = HostKeypair::from_private([9; 32]).expect("any 32 bytes are a private key");
    let (client, message_1) = ClientHandshake::start(&host.public(), "ticket", [seed; 32]).expect("a handshake starts");
    let (host_keys, message_2) = accept(&host, "ticket", &message_1, [seed + 100; 32]).expect("message 1 is good");
    let client_keys = client.finish(&message_2).expect("message 2 is good");
    (client_keys.into_client(number).0, host_keys.into_host(number).1)
}

/// A payload that can be read is written byte for byte, and keeps its limits.
fn payload(bytes: &[u8]) {
    let mut written = Vec::new();
    if let Ok(read) = ToHost::decode(bytes) {
        read.encode(&mut written).expect("what was read can be written");
        assert_eq!(written, bytes);
        if let ToHost::Inputs(inputs) = read {
            let entries: Vec<(u32, &[u8])> = inputs.iter().collect();
            assert_eq!(entries.len(), inputs.count());
            assert!((1..=INPUTS_COUNT_MAX).contains(&entries.len()));
            assert!(entries.iter().all(|(_, bytes)| bytes.len() <= INPUT_BYTES_MAX));
            assert!(entries.iter().zip(0..).all(|((frame, _), back)| *frame == inputs.newest_frame() - back));
            // The client's way of writing the same.
            if bytes.len() <= PAYLOAD_BYTES_MAX {
                let newest_first = entries.iter().map(|(_, bytes)| *bytes);
                let mut again = Vec::new();
                let count = Inputs::write(inputs.newest_frame(), inputs.snapshot_frame(), newest_first, &mut again);
                assert_eq!((count, again.as_slice()), (Ok(entries.len()), bytes));
            }
        }
    }
    written.clear();
    if let Ok(read) = ToClient::decode(bytes) {
        read.encode(&mut written).expect("what was read can be written");
        assert_eq!(written, bytes);
        if let ToClient::Snapshot(snapshot) = read {
            assert!(snapshot.part < snapshot.parts && snapshot.bytes.len() <= SNAPSHOT_BYTES_MAX);
        }
    }
    assert!(ToHost::decode(bytes).is_err() || ToClient::decode(bytes).is_err(), "no kind goes both ways");
}

/// Bytes that nobody sealed do not open, and change nothing.
fn garbage(bytes: &[u8]) {
    let peeked = Header::peek(bytes);
    let has_size = (DATAGRAM_BYTES_MIN..=DATAGRAM_BYTES_MAX).contains(&bytes.len());
    assert_eq!(peeked.is_ok(), has_size && bytes.first() == Some(&1));
    SESSIONS.with_borrow_mut(|sessions| {
        let (sealer, opener) = &mut sessions.ours;
        let opened = opener.open(&mut bytes.to_vec()).map(|_| ());
        match (peeked, opened) {
            (Err(why), Err(refused)) => assert_eq!(why, refused),
            (Ok(header), Err(OpenError::Session { got, .. })) => assert!(got == header.session && got != 7),
            (Ok(_), Err(OpenError::Duplicate { .. } | OpenError::TooOld { .. } | OpenError::Forged { .. })) => {}
            (_, other) => panic!("{other:?}"),
        }
        opens_once(sealer, opener, b"after garbage");
    });
}

fn opens_once(sealer: &mut Sealer, opener: &mut Opener, payload: &[u8]) {
    let mut datagram = Vec::new();
    let sequence = sealer.seal_bytes(payload, &mut datagram).expect("a payload that fits is sealed");
    let mut copy = datagram.clone();
    let opened = opener.open(&mut datagram).expect("what was sealed opens");
    assert_eq!((opened.sequence, opened.newest, opened.payload), (sequence, true, payload));
    assert_eq!(opener.open(&mut copy), Err(OpenError::Duplicate { sequence }));
}

/// What was sealed opens once, with its key, unaltered; altered or under another key it changes nothing.
fn sealed(mut input: Take<'_>) {
    let (at, mask) = (usize::from(input.u16()), input.u8());
    let payload = input.rest();
    SESSIONS.with_borrow_mut(|sessions| {
        let (sealer, opener) = &mut sessions.ours;
        let mut datagram = Vec::new();
        let sealed = sealer.seal_bytes(payload, &mut datagram);
        if payload.is_empty() || payload.len() > PAYLOAD_BYTES_MAX {
            assert_eq!((sealed, datagram.len()), (Err(SealError::Size { bytes: payload.len() }), 0));
            return;
        }
        let sequence = sealed.expect("a payload that fits is sealed");
        assert_eq!(Header::peek(&datagram), Ok(Header { session: 7, sequence }));
        assert!((DATAGRAM_BYTES_MIN..=DATAGRAM_BYTES_MAX).contains(&datagram.len()));
        let mut altered = datagram.clone();
        let at = at % altered.len();
        altered[at] ^= mask.max(1);
        assert!(opener.open(&mut altered).is_err(), "altered at {at}");
        let mut cut = datagram[..at].to_vec();
        assert!(opener.open(&mut cut).is_err(), "cut at {at}");
        assert!(sessions.theirs.1.open(&mut datagram.clone()).is_err(), "opened with another session's key");
        let opened = opener.open(&mut datagram).expect("the refused ones changed nothing");
        assert_eq!((opened.sequence, opened.newest, opened.payload), (sequence, true, payload));
    });
}

/// Datagrams that are lost, doubled and out of order open exactly once each, unless they are too old.
fn window(mut input: Take<'_>) {
    SESSIONS.with_borrow_mut(|sessions| {
        let (sealer, opener) = &mut sessions.theirs;
        opens_once(sealer, opener, b"the highest so far");
        let mut highest = sealer.sealed_count() - 1;
        // Sealed datagrams with their sequences, and whether they were opened.
        let mut sent: Vec<(u64, Vec<u8>, bool)> = Vec::new();
        let mut skips = 0;
        while !input.is_empty() {
            match input.u8() {
                0..100 if sent.len() < SEALED_MAX => {
                    let mut datagram = Vec::new();
                    let sequence = sealer.seal_bytes(&[1], &mut datagram).expect("one byte fits");
                    sent.push((sequence, datagram, false));
                }
                // Lost ones; at most a few windows of them.
                100..110 if skips < 8 => {
                    skips += 1;
                    let mut lost = Vec::new();
                    for _ in 0..u64::from(input.u8()) * 2 {
                        sealer.seal_bytes(&[2], &mut lost).expect("one byte fits");
                    }
                }
                pick if !sent.is_empty() => {
                    let at = usize::from(pick) % sent.len();
                    let (sequence, datagram, was_opened) = &mut sent[at];
                    let result = opener.open(&mut datagram.clone()).map(|opened| opened.newest);
                    let expected = if highest.saturating_sub(*sequence) >= REPLAY_WINDOW_SEQUENCES {
                        Err(OpenError::TooOld { sequence: *sequence })
                    } else if *was_opened {
                        Err(OpenError::Duplicate { sequence: *sequence })
                    } else {
                        Ok(*sequence > highest)
                    };
                    assert_eq!(result, expected);
                    *was_opened |= result.is_ok();
                    if result == Ok(true) {
                        highest = *sequence;
                    }
                }
                _ => {}
            }
        }
    });
}

/// Snapshots come together from their parts, in any order, and only from parts that agree.
fn snapshots(mut input: Take<'_>) {
    let mut joiner = Reassembler::new();
    let mut last = None;
    let mut rose = |frame: u32| assert!(last.replace(frame) < Some(frame), "frames of whole snapshots rise");
    if input.u8().is_multiple_of(2) {
        // Parts as somebody sends them.
        while !input.is_empty() {
            if let Ok(ToClient::Snapshot(part)) = ToClient::decode(input.piece())
                && let Joined::Whole(whole) = joiner.push(&part)
            {
                assert!(whole.bytes.len() <= SNAPSHOT_BYTES_MAX && whole.frame == part.frame);
                rose(whole.frame);
            }
        }
        return;
    }
    // A host's snapshot in parts, in an order of the input's.
    let order = input.array::<16>();
    let repeats = usize::from(input.u8() % 8) + 1;
    let state = input.rest().repeat(repeats);
    let Ok(parts) = snapshot_parts(&state) else {
        assert!(state.len() > SNAPSHOT_BYTES_MAX);
        return;
    };
    let parts: Vec<_> = parts.collect();
    let mut have = vec![false; parts.len()];
    for pick in order.iter().map(|pick| usize::from(*pick) % parts.len()).chain(0..parts.len()) {
        let (part, count, bytes) = parts[pick];
        let snapshot = Snapshot { frame: 5, part, parts: count, margin_ms: Some(-3), newest_input_frame: None, bytes };
        let mut written = Vec::new();
        ToClient::Snapshot(snapshot).encode(&mut written).expect("a host's part can be written");
        assert!(written.len() <= PAYLOAD_BYTES_MAX);
        assert_eq!(ToClient::decode(&written), Ok(ToClient::Snapshot(snapshot)));
        let was_there = std::mem::replace(&mut have[pick], true);
        match joiner.push(&snapshot) {
            Joined::Whole(whole) => {
                assert!(have.iter().all(|have| *have) && !was_there);
                assert_eq!((whole.frame, whole.bytes), (5, state.as_slice()));
                rose(whole.frame);
            }
            Joined::Partial => assert!(!was_there && !have.iter().all(|have| *have)),
            Joined::Stale => assert!(was_there),
            other => panic!("a host's parts agree, and are no delta: {other:?}"),
        }
    }
    assert_eq!(last, Some(5));
}
