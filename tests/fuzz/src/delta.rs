//! Deltas of snapshots: what anybody may send as one, what a host writes, and a session of host and client with a network between them that the input decides.

use std::collections::BTreeMap;

use holeshot_wire::delta::DELTA_AGE_FRAMES_MAX;
use holeshot_wire::payload::{Encode, SNAPSHOT_BYTES_MAX};
use holeshot_wire::sent::SENT_BYTES_MAX;
use holeshot_wire::{Delta, Joined, Reassembler, Sent, SentToAll, Snapshot, ToClient, snapshot_parts, write_delta};

use crate::take::Take;

/// Frames that a session of one input has at most.
const FRAMES_MAX: u32 = 100;

pub(crate) fn target(input: &[u8]) {
    let mut input = Take(input);
    match input.u8() % 4 {
        0 => read(input.piece(), input.rest()),
        1 => written(input.u8(), input.piece(), input.rest()),
        2 => parts(input),
        _ => session(input),
    }
}

/// Whatever is read as a delta makes as many bytes as it says, or none, and takes no more memory than the largest snapshot.
fn read(base: &[u8], bytes: &[u8]) {
    let Ok(delta) = Delta::read(bytes) else { return };
    assert!((1..=DELTA_AGE_FRAMES_MAX).contains(&delta.age()));
    let mut snapshot = Vec::new();
    let made = delta.apply(base, &mut snapshot);
    assert!(snapshot.capacity() <= SNAPSHOT_BYTES_MAX);
    if made.is_err() {
        assert!(snapshot.is_empty());
        return;
    }
    assert_eq!(snapshot.len(), usize::from(u16::from_le_bytes([bytes[1], bytes[2]])));
    let mut again = Vec::new();
    assert!(write_delta(delta.age(), base, &snapshot, usize::MAX, &mut again));
    applies(&again, base, &snapshot);
}

fn applies(delta: &[u8], base: &[u8], snapshot: &[u8]) {
    let mut made = Vec::new();
    Delta::read(delta).expect("what was written can be read").apply(base, &mut made).expect("and applied");
    assert_eq!(made, snapshot);
}

/// What a host writes makes the snapshot, within the bound that it was given.
fn written(age: u8, base: &[u8], snapshot: &[u8]) {
    let mut delta = Vec::new();
    if !write_delta(age, base, snapshot, usize::MAX, &mut delta) {
        assert!(!(1..=DELTA_AGE_FRAMES_MAX).contains(&age) || snapshot.len() > SNAPSHOT_BYTES_MAX);
        return;
    }
    applies(&delta, base, snapshot);
    let mut bounded = Vec::new();
    assert!(write_delta(age, base, snapshot, delta.len(), &mut bounded) && bounded == delta);
    assert!(!write_delta(age, base, snapshot, delta.len() - 1, &mut bounded) && bounded.is_empty());
}

/// Parts as somebody sends them: frames of what comes out rise, and it is no larger than a snapshot may be.
fn parts(mut input: Take<'_>) {
    let mut joiner = Reassembler::with_deltas();
    let mut last = None;
    while !input.is_empty() {
        let joined = match ToClient::decode(input.piece()) {
            Ok(ToClient::Snapshot(part)) => joiner.push(&part),
            Ok(ToClient::Delta(part)) => joiner.push_delta(&part),
            _ => continue,
        };
        if let Joined::Whole(whole) = joined {
            assert!(whole.bytes.len() <= SNAPSHOT_BYTES_MAX);
            assert!(last.replace(whole.frame) < Some(whole.frame), "frames of whole snapshots rise");
        }
    }
}

/// A host and a client: whatever becomes of their datagrams, what the client makes of them is what the host sent.
fn session(mut input: Take<'_>) {
    let mut state = input.piece().to_vec();
    let (mut sent, mut to_all, mut joiner) = (Sent::default(), None::<Box<SentToAll>>, Reassembler::with_deltas());
    let (mut truth, mut on_the_way, mut buffer) = (BTreeMap::new(), Vec::new(), Vec::new());
    let (mut has, mut frame) = (None, 0);
    while !input.is_empty() && frame < FRAMES_MAX {
        // The room changes, its snapshot is sent, and some of what is on the way arrives.
        let (what, at, byte) = (input.u8(), usize::from(input.u16()) % (state.len() + 1), input.u8());
        match what % 4 {
            0 => state.insert(at, byte),
            1 if at < state.len() => _ = state.remove(at),
            2 => state.splice(at..at, [byte; 8]).for_each(drop),
            _ => state.iter_mut().skip(at).take(3).for_each(|place| *place ^= byte),
        }
        state.truncate(SNAPSHOT_BYTES_MAX);
        frame += 1 + u32::from(what >> 6 == 3) * u32::from(byte);
        let is_shared = what & 16 == 0;
        let delta = sent.delta(frame, &state, is_shared.then_some(&mut to_all), &mut buffer);
        for (part, parts, bytes) in snapshot_parts(delta.unwrap_or(&state)).expect("it is small enough") {
            let part = Snapshot { frame, part, parts, margin_ms: None, newest_input_frame: None, bytes };
            let payload = if delta.is_some() { ToClient::Delta(part) } else { ToClient::Snapshot(part) };
            let mut out = Vec::new();
            payload.encode(&mut out).expect("a host's part can be written");
            on_the_way.push(out);
        }
        truth.insert(frame, state.clone());
        let fate = input.u8();
        for _ in 0..fate % 4 {
            if on_the_way.is_empty() {
                break;
            }
            // In any order, doubled, or lost.
            let payload = on_the_way.swap_remove(usize::from(fate >> 2) % on_the_way.len());
            if fate & 128 != 0 {
                on_the_way.push(payload.clone());
            }
            let joined = match ToClient::decode(&payload) {
                Ok(ToClient::Snapshot(part)) => joiner.push(&part),
                Ok(ToClient::Delta(part)) => joiner.push_delta(&part),
                other => panic!("{other:?}"),
            };
            match joined {
                Joined::Whole(whole) => {
                    assert_eq!(Some(whole.bytes), truth.get(&whole.frame).map(Vec::as_slice));
                    has = Some(whole.frame);
                }
                Joined::Partial | Joined::Stale => {}
                other => panic!("{other:?}"),
            }
        }
        if let Some(has) = has.filter(|_| fate & 64 == 0) {
            sent.acknowledge(has);
        }
        assert!(sent.memory_bytes() <= SENT_BYTES_MAX + 2_048);
    }
}
