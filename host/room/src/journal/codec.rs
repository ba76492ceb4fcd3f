//! The small parts of the format: integers, texts, faults, and tick records as differences to what was expected.

use holeshot_abi::{
    Action, Change, ChangeKind, INPUT_BYTES_MAX, InputStatus, LeaveReason, PLAYERS_MAX, PlayerInput, TickReader,
    TickRecord,
};

use crate::messages::AbortReason;
use crate::rules::FaultKind;
use crate::warm::{Ask, ask_for};

pub(super) const HEADER: u8 = 0x01;
pub(super) const CHECKPOINT: u8 = 0x02;
pub(super) const SWAPPED: u8 = 0x03;
pub(super) const KEPT: u8 = 0x04;
pub(super) const ROLLED_BACK: u8 = 0x05;
pub(super) const RETRIED: u8 = 0x06;
pub(super) const TICKS_LOST: u8 = 0x07;
pub(super) const FAULT: u8 = 0x08;
pub(super) const ENDED: u8 = 0x09;
pub(super) const END: u8 = 0x0a;
pub(super) const STEPPED: u8 = 0x10;
pub(super) const SKIPPED: u8 = 0x20;
pub(super) const FAULTED: u8 = 0x30;

const FLAG_INPUTS: u8 = 1;
const FLAG_CHANGES: u8 = 2;
const FLAG_ACTIONS: u8 = 4;
const FLAGS: u8 = FLAG_INPUTS | FLAG_CHANGES | FLAG_ACTIONS;

const FORM_ABSENT: u8 = 241;
const FORM_REPEATED: u8 = 242;
const FORM_REPEATED_OTHER: u8 = 243;

pub(super) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) const fn fault_code(kind: FaultKind) -> u8 {
    match kind {
        FaultKind::Trap => 1,
        FaultKind::FuelExhausted => 2,
        FaultKind::DeadlineExceeded => 3,
        FaultKind::MemoryExceeded => 4,
        FaultKind::BadSpan => 5,
        FaultKind::BadOutput => 6,
        FaultKind::StateRefused => 7,
        FaultKind::NoInstance => 8,
    }
}

const fn fault_kind(code: u8) -> Option<FaultKind> {
    Some(match code {
        1 => FaultKind::Trap,
        2 => FaultKind::FuelExhausted,
        3 => FaultKind::DeadlineExceeded,
        4 => FaultKind::MemoryExceeded,
        5 => FaultKind::BadSpan,
        6 => FaultKind::BadOutput,
        7 => FaultKind::StateRefused,
        8 => FaultKind::NoInstance,
        _ => return None,
    })
}

pub(super) const fn abort_code(reason: AbortReason) -> u8 {
    match reason {
        AbortReason::NotEnoughPlayers => 1,
        AbortReason::EveryoneLeft => 2,
        AbortReason::TooLong => 3,
        AbortReason::RulesFault => 4,
        AbortReason::HostStopping => 5,
        AbortReason::Requested => 6,
    }
}

pub(super) const fn abort_reason(code: u8) -> Option<AbortReason> {
    Some(match code {
        1 => AbortReason::NotEnoughPlayers,
        2 => AbortReason::EveryoneLeft,
        3 => AbortReason::TooLong,
        4 => AbortReason::RulesFault,
        5 => AbortReason::HostStopping,
        6 => AbortReason::Requested,
        _ => return None,
    })
}

/// A field that does not follow the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) field: &'static str,
    pub(super) problem: &'static str,
}

/// A walk over bytes that may be anything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    pub(super) const fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) const fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(super) fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], Bad> {
        let end = self.at.checked_add(len);
        let bytes = end.and_then(|end| self.bytes.get(self.at..end)).ok_or(Bad { field, problem: "is cut off" })?;
        self.at += len;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Bad> {
        self.take(field, N)?.try_into().map_err(|_| Bad { field, problem: "is cut off" })
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, Bad> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, Bad> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, Bad> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, Bad> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(super) fn hash(&mut self, field: &'static str) -> Result<[u8; 32], Bad> {
        self.array(field)
    }

    pub(super) fn varint(&mut self, field: &'static str) -> Result<u64, Bad> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(field)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Bad { field, problem: "has more than 64 bits" })
    }

    /// A count of things of which each takes `each_bytes` at least, so that no more can be claimed than there are bytes.
    pub(super) fn count(&mut self, field: &'static str, each_bytes: usize) -> Result<usize, Bad> {
        let left = self.bytes.len().saturating_sub(self.at);
        match usize::try_from(self.varint(field)?) {
            Ok(count) if count.checked_mul(each_bytes).is_some_and(|bytes| bytes <= left) => Ok(count),
            _ => Err(Bad { field, problem: "is more than there are bytes" }),
        }
    }

    pub(super) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], Bad> {
        let len = self.count(field, 1)?;
        self.take(field, len)
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, Bad> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| Bad { field, problem: "is not UTF-8" })
    }

    pub(super) fn fault(&mut self, field: &'static str) -> Result<FaultKind, Bad> {
        fault_kind(self.u8(field)?).ok_or(Bad { field, problem: "is no known fault" })
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Input {
    status: InputStatus,
    age_frames: u16,
    len: u8,
}

/// What the inputs of the next frame are expected to be: the same for who writes and who reads.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    next_frame: u32,
    inputs: Vec<Input>,
    /// As many per player as its longest input took so far, about: a journal is written in every tick, and two players' inputs are mostly a few bytes.
    bytes: Vec<u8>,
    stride_bytes: usize,
}

/// Bytes that each player's input has place for at first.
const STRIDE_BYTES_FIRST: usize = 8;

impl Expected {
    pub(super) fn new(players: usize) -> Self {
        let (players, stride_bytes) = (players.min(PLAYERS_MAX), STRIDE_BYTES_FIRST);
        Self {
            next_frame: 0,
            inputs: vec![Input::default(); players],
            bytes: vec![0; players * stride_bytes],
            stride_bytes,
        }
    }

    /// Makes place for inputs of so many bytes.
    #[cold]
    fn widen(&mut self, bytes: usize) {
        let stride_bytes = bytes.next_power_of_two().min(INPUT_BYTES_MAX);
        let mut wide = vec![0; self.inputs.len() * stride_bytes];
        for (to, from) in wide.chunks_mut(stride_bytes).zip(self.bytes.chunks(self.stride_bytes)) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
        (self.bytes, self.stride_bytes) = (wide, stride_bytes);
    }

    /// The part of the journal in [`Room::warm`](crate::Room::warm).
    pub(super) fn warm(&self, ask: impl Ask) {
        ask_for(self.inputs.as_slice(), ask);
        ask_for(self.bytes.as_slice(), ask);
    }

    pub(super) const fn next_frame(&self) -> u32 {
        self.next_frame
    }

    /// The bytes of a player's input in the frame before.
    fn before(&self, player: usize) -> &[u8] {
        let len = self.inputs.get(player).map_or(0, |input| usize::from(input.len));
        let at = player * self.stride_bytes;
        self.bytes.get(at..at + len).unwrap_or_default()
    }

    /// Takes note of an input. Longer ones than there can be are cut.
    fn set(&mut self, player: usize, input: PlayerInput<'_>) {
        let given = input.bytes.get(..INPUT_BYTES_MAX).unwrap_or(input.bytes);
        if given.len() > self.stride_bytes {
            self.widen(given.len());
        }
        let at = player * self.stride_bytes;
        if let (Some(place), Some(bytes)) = (self.inputs.get_mut(player), self.bytes.get_mut(at..at + given.len())) {
            bytes.copy_from_slice(given);
            *place = Input { status: input.status, age_frames: input.age_frames, len: given.len() as u8 };
        }
    }

    /// Appends the frame of a record to `out`: `kind` with its flags, then what they announce.
    pub(super) fn encode(&mut self, kind: u8, record: &TickReader<'_>, out: &mut Vec<u8>) {
        let kind_at = out.len();
        out.push(kind);
        let mut flags = 0;
        let bits_at = out.len();
        let bits_len = self.inputs.len().div_ceil(8);
        out.resize(bits_at + bits_len, 0);
        for (player, input) in record.inputs().enumerate().take(self.inputs.len()) {
            let before = self.inputs.get(player).copied().unwrap_or_default();
            let was_absent = before.status == InputStatus::Absent;
            let is_same = !was_absent && input.bytes == self.before(player);
            let is_expected = match input.status {
                InputStatus::Absent => was_absent,
                InputStatus::Fresh => is_same,
                InputStatus::Repeated => false,
            };
            if is_expected {
                if let Some(known) = self.inputs.get_mut(player) {
                    *known = Input { status: input.status, age_frames: 0, ..before };
                }
                continue;
            }
            flags |= FLAG_INPUTS;
            if let Some(byte) = out.get_mut(bits_at + player / 8) {
                *byte |= 1 << (player % 8);
            }
            match input.status {
                InputStatus::Absent => out.push(FORM_ABSENT),
                InputStatus::Fresh => {
                    out.push(input.bytes.len() as u8);
                    out.extend_from_slice(input.bytes);
                }
                InputStatus::Repeated if is_same && input.age_frames == before.age_frames.saturating_add(1) => {
                    out.push(FORM_REPEATED);
                }
                InputStatus::Repeated => {
                    out.push(FORM_REPEATED_OTHER);
                    out.extend_from_slice(&input.age_frames.to_le_bytes());
                    out.push(input.bytes.len() as u8);
                    out.extend_from_slice(input.bytes);
                }
            }
            self.set(player, input);
        }
        if flags == 0 {
            out.truncate(bits_at);
        }
        let changes = record.changes().count();
        if changes > 0 {
            flags |= FLAG_CHANGES;
            push_varint(out, changes as u64);
            for change in record.changes() {
                let [low, high] = change.player.to_le_bytes();
                let (kind, reason) = match change.kind {
                    ChangeKind::Joined => (1, 0),
                    ChangeKind::Left(reason) => (2, reason as u8),
                };
                out.extend_from_slice(&[low, high, kind, reason]);
            }
        }
        let actions = record.actions().count();
        if actions > 0 {
            flags |= FLAG_ACTIONS;
            push_varint(out, actions as u64);
            for action in record.actions() {
                push_varint(out, action.player.into());
                push_bytes(out, action.json.as_bytes());
            }
        }
        if let Some(kind) = out.get_mut(kind_at) {
            *kind |= flags;
        }
        self.next_frame = self.next_frame.saturating_add(1);
    }

    /// Reads what follows the kind of a frame into `record`, with inputs of `stride` bytes.
    pub(super) fn decode(
        &mut self,
        kind: u8,
        walk: &mut Walk<'_>,
        stride: usize,
        record: &mut TickRecord,
    ) -> Result<(), Bad> {
        let players = self.inputs.len();
        record.begin(self.next_frame, players, stride);
        let bits = if kind & FLAG_INPUTS != 0 { walk.take("inputs", players.div_ceil(8))? } else { &[] };
        for player in 0..players {
            let is_other = bits.get(player / 8).is_some_and(|byte| byte >> (player % 8) & 1 != 0);
            if is_other {
                self.decode_input(player, walk, stride)?;
            } else if let Some(input) = self.inputs.get_mut(player).filter(|input| input.status != InputStatus::Absent)
            {
                *input = Input { status: InputStatus::Fresh, age_frames: 0, ..*input };
            }
            if let Some(Input { status, age_frames, .. }) = self.inputs.get(player).copied() {
                let bytes = self.before(player);
                if !record.set_input(player, PlayerInput { status, age_frames, bytes }) {
                    return Err(Bad { field: "inputs", problem: "has one that is longer than the stride" });
                }
            }
        }
        if kind & FLAG_CHANGES != 0 {
            for _ in 0..walk.count("changes", 4)? {
                let change = decode_change(walk)?;
                if usize::from(change.player) >= players || !record.push_change(change) {
                    return Err(Bad { field: "changes", problem: "has an unknown player, or too many" });
                }
            }
        }
        if kind & FLAG_ACTIONS != 0 {
            for _ in 0..walk.count("actions", 2)? {
                let player = u16::try_from(walk.varint("actions")?).unwrap_or(u16::MAX);
                let json = walk.text("actions")?;
                if usize::from(player) >= players || !record.push_action(Action { player, json }) {
                    return Err(Bad {
                        field: "actions",
                        problem: "has an unknown player, one that is too long, or too many",
                    });
                }
            }
        }
        self.next_frame = self
            .next_frame
            .checked_add(1)
            .ok_or(Bad { field: "kind", problem: "is one frame more than there can be" })?;
        Ok(())
    }

    fn decode_input(&mut self, player: usize, walk: &mut Walk<'_>, stride: usize) -> Result<(), Bad> {
        let field = "inputs";
        let form = walk.u8(field)?;
        let before = self.inputs.get(player).copied().unwrap_or_default();
        let input = match form {
            FORM_ABSENT => PlayerInput::default(),
            FORM_REPEATED => {
                let age_frames = before.age_frames.saturating_add(1);
                if let Some(input) = self.inputs.get_mut(player) {
                    *input = Input { status: InputStatus::Repeated, age_frames, ..before };
                }
                return Ok(());
            }
            FORM_REPEATED_OTHER => {
                let age_frames = walk.u16(field)?;
                let len = walk.u8(field)?;
                PlayerInput { status: InputStatus::Repeated, age_frames, bytes: walk.take(field, len.into())? }
            }
            len if usize::from(len) <= INPUT_BYTES_MAX => {
                PlayerInput { status: InputStatus::Fresh, age_frames: 0, bytes: walk.take(field, len.into())? }
            }
            _ => return Err(Bad { field, problem: "has an unknown form" }),
        };
        if input.bytes.len() > stride {
            return Err(Bad { field, problem: "has one that is longer than the stride" });
        }
        self.set(player, input);
        Ok(())
    }
}

/// Whether a kind is that of a frame, without its flags.
pub(super) const fn is_frame(kind: u8) -> bool {
    matches!(kind & !FLAGS, STEPPED | SKIPPED | FAULTED)
}

/// The kind of a frame without its flags.
pub(super) const fn frame_kind(kind: u8) -> u8 {
    kind & !FLAGS
}

fn decode_change(walk: &mut Walk<'_>) -> Result<Change, Bad> {
    let field = "changes";
    let player = walk.u16(field)?;
    let kind = match (walk.u8(field)?, walk.u8(field)?) {
        (1, 0) => ChangeKind::Joined,
        (2, 1) => ChangeKind::Left(LeaveReason::Quit),
        (2, 2) => ChangeKind::Left(LeaveReason::ConnectionLost),
        (2, 3) => ChangeKind::Left(LeaveReason::Removed),
        _ => return Err(Bad { field, problem: "has an unknown kind or reason" }),
    };
    Ok(Change { player, kind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STRIDE: usize = 8;

    #[test]
    fn varints_come_back_and_overlong_ones_are_refused() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, value);
            assert_eq!(Walk::new(&bytes, 0).varint("v"), Ok(value));
            for cut in 0..bytes.len() {
                assert!(Walk::new(&bytes[..cut], 0).varint("v").is_err());
            }
        }
        assert!(Walk::new(&[0xff; 11], 0).varint("v").is_err());
        assert!(Walk::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], 0).varint("v").is_err());
    }

    #[test]
    fn codes_come_back() {
        let faults = (0..=u8::MAX).filter_map(fault_kind).map(fault_code);
        assert_eq!(faults.collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8]);
        let reasons = (0..=u8::MAX).filter_map(abort_reason).map(abort_code);
        assert_eq!(reasons.collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn inputs_of_any_length_come_back_whoever_had_the_longest_so_far() {
        let (mut writes, mut reads) = (Expected::new(3), Expected::new(3));
        let mut decoded = TickRecord::default();
        let long = [7; INPUT_BYTES_MAX];
        // Each is the second time as it was the first time: those beside it were kept when it took more place.
        for (frame, lens) in (0u32..).zip([[1, 8, 0], [1, 9, 2], [1, 9, 2], [240, 9, 3], [240, 9, 3], [0, 240, 17]]) {
            let mut record = TickRecord::default();
            record.begin(frame, 3, INPUT_BYTES_MAX);
            for (player, len) in lens.into_iter().enumerate() {
                let input = PlayerInput { status: InputStatus::Fresh, age_frames: 0, bytes: &long[..len] };
                assert!(record.set_input(player, input));
            }
            let mut bytes = Vec::new();
            writes.encode(STEPPED, &TickReader::read(record.bytes()).unwrap(), &mut bytes);
            assert_eq!(bytes.len() == 1, frame == 2 || frame == 4, "frame {frame}: {bytes:?}");
            let mut walk = Walk::new(&bytes, 1);
            assert_eq!(reads.decode(bytes[0], &mut walk, INPUT_BYTES_MAX, &mut decoded), Ok(()));
            assert_eq!(decoded.bytes(), record.bytes(), "frame {frame}");
        }
    }

    /// Inputs (status, age, bytes), changes and actions of a frame.
    type Drawn = (Vec<(u8, u16, Vec<u8>)>, Vec<u8>, Vec<String>);

    fn frames() -> impl Strategy<Value = Vec<Drawn>> {
        let bytes = || proptest::collection::vec(0u8..2, 0..=2);
        let input = || (0u8..4, 0u16..4, bytes());
        let frame = (
            proptest::collection::vec(input(), 3),
            proptest::collection::vec(0u8..4, 0..3),
            proptest::collection::vec("[0-9]{1,4}", 0..3),
        );
        proptest::collection::vec(frame, 1..40)
    }

    proptest! {
        #[test]
        fn records_come_back_byte_for_byte(frames in frames()) {
            let (mut writes, mut reads) = (Expected::new(3), Expected::new(3));
            let mut decoded = TickRecord::default();
            for (frame, (inputs, changes, actions)) in (0u32..).zip(&frames) {
                let mut record = TickRecord::default();
                record.begin(frame, 3, STRIDE);
                for (player, (status, age_frames, bytes)) in inputs.iter().enumerate() {
                    let status = [InputStatus::Absent, InputStatus::Fresh, InputStatus::Fresh, InputStatus::Repeated][usize::from(*status)];
                    let input = PlayerInput {
                        status,
                        age_frames: if status == InputStatus::Repeated { *age_frames } else { 0 },
                        bytes: if status == InputStatus::Absent { &[] } else { bytes },
                    };
                    assert!(record.set_input(player, input));
                }
                for change in changes {
                    let reasons = [LeaveReason::Quit, LeaveReason::ConnectionLost, LeaveReason::Removed];
                    let kind = reasons.get(usize::from(*change)).map_or(ChangeKind::Joined, |reason| ChangeKind::Left(*reason));
                    assert!(record.push_change(Change { player: u16::from(change % 3), kind }));
                }
                for action in actions {
                    assert!(record.push_action(Action { player: 2, json: action }));
                }
                let mut bytes = Vec::new();
                writes.encode(STEPPED, &TickReader::read(record.bytes()).unwrap(), &mut bytes);
                let mut walk = Walk::new(&bytes, 1);
                prop_assert!(is_frame(bytes[0]) && frame_kind(bytes[0]) == STEPPED);
                prop_assert_eq!(reads.decode(bytes[0], &mut walk, STRIDE, &mut decoded), Ok(()));
                prop_assert!(walk.is_at_end());
                prop_assert_eq!(decoded.bytes(), record.bytes());
            }
        }

        #[test]
        fn anything_decodes_to_a_record_or_is_refused(kind: u8, bytes: Vec<u8>, players in 0usize..70) {
            let mut expected = Expected::new(players);
            let mut record = TickRecord::default();
            let mut walk = Walk::new(&bytes, 0);
            for _ in 0..3 {
                if expected.decode(kind, &mut walk, STRIDE, &mut record).is_err() {
                    return Ok(());
                }
                prop_assert!(TickReader::read(record.bytes()).is_ok());
            }
        }
    }
}
