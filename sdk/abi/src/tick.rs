//! The tick record: everything that happened to a room since its last tick.

use alloc::vec::Vec;

use crate::bytes::{Cursor, Malformed, push_padded};
use crate::{ACTION_BYTES_MAX, ACTIONS_PER_TICK_MAX, PLAYERS_MAX};

/// Where a player's input for a frame comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum InputStatus {
    /// No input was ever received since the player joined.
    #[default]
    Absent = 0,
    /// It was sent for this frame.
    Fresh = 1,
    /// None came in time: this is the player's last one.
    Repeated = 2,
}

/// What a player's controls say in one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlayerInput<'a> {
    /// Where it comes from.
    pub status: InputStatus,
    /// How old a repeated input is, in frames.
    pub age_frames: u16,
    /// The input in the module's own format.
    pub bytes: &'a [u8],
}

/// Why a player left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LeaveReason {
    /// It said that it leaves.
    Quit = 1,
    /// Its connection was lost for longer than the grace time.
    ConnectionLost = 2,
    /// The host removed it.
    Removed = 3,
}

/// What became of a player's presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is there.
    Joined,
    /// It is gone.
    Left(LeaveReason),
}

/// A player joined or left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The player's slot.
    pub player: u16,
    /// What became of it.
    pub kind: ChangeKind,
}

/// A player's reliable message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action<'a> {
    /// The player's slot.
    pub player: u16,
    /// JSON text.
    pub json: &'a str,
}

const HEADER_BYTES: usize = 16;
const PLAYER_HEADER_BYTES: usize = 4;

/// Builds a tick record in a buffer that is used again for every tick.
///
/// Call [`begin`](TickRecord::begin), then [`set_input`](TickRecord::set_input) for players that have one, then `push_change`, then
/// `push_action`; then the record is [`bytes`](TickRecord::bytes).
#[derive(Debug, Clone, Default)]
pub struct TickRecord {
    bytes: Vec<u8>,
    players: usize,
    stride: usize,
    changes: u16,
    actions: u16,
}

impl TickRecord {
    /// Starts the record of a frame: all inputs absent, no changes, no actions.
    ///
    /// `stride` is the manifest's [`input_stride_bytes`](crate::Manifest::input_stride_bytes); `players` is cut at [`PLAYERS_MAX`].
    pub fn begin(&mut self, frame: u32, players: usize, stride: usize) {
        self.players = players.min(PLAYERS_MAX);
        self.stride = stride.min(crate::INPUT_BYTES_MAX);
        self.changes = 0;
        self.actions = 0;
        self.bytes.clear();
        self.bytes.extend_from_slice(&frame.to_le_bytes());
        self.bytes.extend_from_slice(&(self.players as u16).to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&(self.stride as u16).to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.resize(HEADER_BYTES + self.players * (PLAYER_HEADER_BYTES + self.stride), 0);
    }

    /// Sets the input of one player. False, and nothing set, if there is no such slot or the input is longer than the stride.
    pub fn set_input(&mut self, player: usize, input: PlayerInput<'_>) -> bool {
        if player >= self.players || input.bytes.len() > self.stride {
            return false;
        }
        let at = HEADER_BYTES + player * (PLAYER_HEADER_BYTES + self.stride);
        let Some(slot) = self.bytes.get_mut(at..at + PLAYER_HEADER_BYTES + self.stride) else { return false };
        let (header, body) = slot.split_at_mut(PLAYER_HEADER_BYTES);
        let age = input.age_frames.to_le_bytes();
        header.copy_from_slice(&[input.status as u8, input.bytes.len() as u8, age[0], age[1]]);
        let (used, unused) = body.split_at_mut(input.bytes.len());
        used.copy_from_slice(input.bytes);
        unused.fill(0);
        true
    }

    /// Appends a join or leave. False if the record has actions already or is full.
    pub fn push_change(&mut self, change: Change) -> bool {
        if self.actions > 0 || self.changes == u16::MAX {
            return false;
        }
        let (kind, reason) = match change.kind {
            ChangeKind::Joined => (1, 0),
            ChangeKind::Left(reason) => (2, reason as u8),
        };
        let player = change.player.to_le_bytes();
        self.bytes.extend_from_slice(&[player[0], player[1], kind, reason]);
        self.changes += 1;
        self.patch(6, self.changes);
        true
    }

    /// Appends an action. False if it is too long or the record is full: it then belongs into the next tick.
    pub fn push_action(&mut self, action: Action<'_>) -> bool {
        if action.json.len() > ACTION_BYTES_MAX || usize::from(self.actions) >= ACTIONS_PER_TICK_MAX {
            return false;
        }
        self.bytes.extend_from_slice(&action.player.to_le_bytes());
        self.bytes.extend_from_slice(&(action.json.len() as u16).to_le_bytes());
        push_padded(&mut self.bytes, action.json.as_bytes());
        self.actions += 1;
        self.patch(8, self.actions);
        true
    }

    /// The record.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn patch(&mut self, at: usize, value: u16) {
        if let Some(field) = self.bytes.get_mut(at..at + 2) {
            field.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// How many players of a record have an input of each [`InputStatus`], in the order of its numbers: absent, fresh, repeated.
///
/// For counting records that were just written: nothing else of them is read or checked. Bytes that are no record give some numbers or other.
#[must_use]
pub fn count_inputs(record: &[u8]) -> [u32; 3] {
    let mut counts = [0; 3];
    let Some((&[_, _, _, _, p0, p1, _, _, _, _, s0, s1, ..], slots)) = record.split_first_chunk::<HEADER_BYTES>()
    else {
        return counts;
    };
    let (players, stride) = (u16::from_le_bytes([p0, p1]), u16::from_le_bytes([s0, s1]));
    for slot in slots.chunks_exact(PLAYER_HEADER_BYTES + usize::from(stride)).take(usize::from(players)) {
        if let Some(count) = slot.first().and_then(|status| counts.get_mut(usize::from(*status))) {
            *count += 1;
        }
    }
    counts
}

/// Reads a tick record. All of it is checked by [`read`](TickReader::read); the iterators cannot fail.
#[derive(Debug, Clone, Copy)]
pub struct TickReader<'a> {
    /// The frame.
    pub frame: u32,
    players: usize,
    stride: usize,
    inputs: &'a [u8],
    changes: &'a [u8],
    actions: Cursor<'a>,
    action_count: usize,
}

impl<'a> TickReader<'a> {
    /// Reads a record.
    ///
    /// # Errors
    /// The first field that does not follow the specification.
    #[inline]
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("tick", bytes);
        let frame = cursor.u32("frame")?;
        let players = usize::from(cursor.u16("players")?);
        let change_count = usize::from(cursor.u16("changes")?);
        let action_count = usize::from(cursor.u16("actions")?);
        let stride = usize::from(cursor.u16("stride")?);
        cursor.u32("reserved")?;
        if players > PLAYERS_MAX {
            return Err(cursor.malformed("players", "more than 64"));
        }
        if !stride.is_multiple_of(4) || stride > crate::INPUT_BYTES_MAX {
            return Err(cursor.malformed("stride", "not a multiple of 4, or more than 240"));
        }
        let inputs = cursor.take("inputs", players * (PLAYER_HEADER_BYTES + stride))?;
        for slot in inputs.chunks_exact(PLAYER_HEADER_BYTES + stride) {
            if let [status, len, ..] = *slot
                && (status > 2 || usize::from(len) > stride)
            {
                return Err(cursor.malformed("status", "an input with an unknown status or longer than the stride"));
            }
        }
        let changes = cursor.take("changes", change_count * 4)?;
        for change in changes.chunks_exact(4) {
            if parse_change(change).is_none_or(|c| usize::from(c.player) >= players) {
                return Err(cursor.malformed("changes", "an unknown change, reason or player"));
            }
        }
        let actions = cursor;
        for _ in 0..action_count {
            if next_action(&mut cursor).map(|a| usize::from(a.player) >= players)? {
                return Err(cursor.malformed("actions", "an action of an unknown player"));
            }
        }
        cursor.end()?;
        Ok(Self { frame, players, stride, inputs, changes, actions, action_count })
    }

    /// Number of player slots.
    #[must_use]
    pub const fn players(&self) -> usize {
        self.players
    }

    /// The inputs, one per player slot, in order.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = PlayerInput<'a>> + use<'a> {
        self.inputs.chunks_exact(PLAYER_HEADER_BYTES + self.stride).map(|slot| match *slot {
            [status, len, age_low, age_high, ref body @ ..] => PlayerInput {
                status: match status {
                    1 => InputStatus::Fresh,
                    2 => InputStatus::Repeated,
                    _ => InputStatus::Absent,
                },
                age_frames: u16::from_le_bytes([age_low, age_high]),
                bytes: body.get(..usize::from(len)).unwrap_or_default(),
            },
            _ => PlayerInput::default(),
        })
    }

    /// Joins and leaves, in the order they happened.
    pub fn changes(&self) -> impl Iterator<Item = Change> + use<'a> {
        self.changes.chunks_exact(4).filter_map(parse_change)
    }

    /// Actions, in the order they came.
    pub fn actions(&self) -> impl Iterator<Item = Action<'a>> + use<'a> {
        let mut cursor = self.actions;
        (0..self.action_count).map_while(move |_| next_action(&mut cursor).ok())
    }
}

fn parse_change(bytes: &[u8]) -> Option<Change> {
    let &[low, high, kind, reason] = bytes else { return None };
    let kind = match (kind, reason) {
        (1, _) => ChangeKind::Joined,
        (2, 1) => ChangeKind::Left(LeaveReason::Quit),
        (2, 2) => ChangeKind::Left(LeaveReason::ConnectionLost),
        (2, 3) => ChangeKind::Left(LeaveReason::Removed),
        _ => return None,
    };
    Some(Change { player: u16::from_le_bytes([low, high]), kind })
}

fn next_action<'a>(cursor: &mut Cursor<'a>) -> Result<Action<'a>, Malformed> {
    let player = cursor.u16("player")?;
    let len = usize::from(cursor.u16("len")?);
    let json = cursor.padded_str("action", len)?;
    Ok(Action { player, json })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use proptest::prelude::*;

    fn reasons() -> impl Strategy<Value = ChangeKind> {
        prop_oneof![
            Just(ChangeKind::Joined),
            Just(ChangeKind::Left(LeaveReason::Quit)),
            Just(ChangeKind::Left(LeaveReason::ConnectionLost)),
            Just(ChangeKind::Left(LeaveReason::Removed)),
        ]
    }

    proptest! {
        #[test]
        fn a_record_comes_back(
            frame: u32,
            inputs in proptest::collection::vec((0u8..3, 0u16..9, proptest::collection::vec(any::<u8>(), 0..=8)), 1..=64),
            changes in proptest::collection::vec(reasons(), 0..5),
            actions in proptest::collection::vec(".{0,20}", 0..5),
        ) {
            let mut record = TickRecord::default();
            record.begin(9, 64, 240);
            record.begin(frame, inputs.len(), 8);
            let status = |s| [InputStatus::Absent, InputStatus::Fresh, InputStatus::Repeated][usize::from(s)];
            for (player, (s, age_frames, bytes)) in inputs.iter().enumerate() {
                let input = PlayerInput { status: status(*s), age_frames: *age_frames, bytes };
                prop_assert!(record.set_input(player, input));
            }
            for kind in &changes {
                let change = Change { player: 0, kind: *kind };
                prop_assert!(record.push_change(change));
            }
            for json in &actions {
                let action = Action { player: 0, json };
                prop_assert!(record.push_action(action));
            }
            let bytes = record.bytes();
            let reader = TickReader::read(bytes).unwrap();
            prop_assert_eq!(reader.frame, frame);
            let read: Vec<_> = reader.inputs().map(|i| (i.status as u8, i.age_frames, i.bytes.to_vec())).collect();
            let of_status = |status| read.iter().filter(|(s, ..)| *s == status).count() as u32;
            prop_assert_eq!(count_inputs(bytes), [0, 1, 2].map(of_status));
            prop_assert_eq!(read, inputs);
            prop_assert_eq!(reader.changes().map(|c| c.kind).collect::<Vec<_>>(), changes);
            prop_assert_eq!(reader.actions().map(|a| String::from(a.json)).collect::<Vec<_>>(), actions);
            for cut in 0..bytes.len() {
                prop_assert!(TickReader::read(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn garbage_is_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = TickReader::read(&bytes);
            let _ = count_inputs(&bytes);
        }

        #[test]
        fn a_spoilt_record_never_panics(at in 0usize..60, value: u8) {
            let mut record = TickRecord::default();
            record.begin(1, 2, 8);
            record.push_change(Change { player: 1, kind: ChangeKind::Joined });
            record.push_action(Action { player: 1, json: "{}" });
            let mut bytes = record.bytes().to_vec();
            if let Some(byte) = bytes.get_mut(at) { *byte = value; }
            if let Ok(reader) = TickReader::read(&bytes) {
                reader.inputs().count();
                reader.changes().count();
                reader.actions().count();
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let mut record = TickRecord::default();
        record.begin(0, 2, 4);
        let input = |bytes| PlayerInput { status: InputStatus::Fresh, age_frames: 0, bytes };
        assert!(!record.set_input(2, input(b"a")));
        assert!(!record.set_input(0, input(b"12345")));
        assert!(record.push_action(Action { player: 0, json: "1" }));
        assert!(!record.push_change(Change { player: 0, kind: ChangeKind::Joined }));
        assert!(!record.push_action(Action { player: 0, json: &"1".repeat(1025) }));
        for _ in 1..ACTIONS_PER_TICK_MAX {
            assert!(record.push_action(Action { player: 0, json: "1" }));
        }
        assert!(!record.push_action(Action { player: 0, json: "1" }));
    }
}
