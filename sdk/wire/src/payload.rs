//! The payloads: what one datagram, or one binary WebSocket message, says. Fixed-layout little-endian records, decoded
//! without allocating; every length is checked. Cutting a snapshot into parts and joining them is in
//! [`crate::snapshot`].
//!
//! # Specification
//!
//! The first byte names the kind. A payload of another kind, or with bytes missing or left over, is refused whole.
//!
//! ```text
//! client to host
//!   Inputs     0x01, newest_frame u32, snapshot_frame u32, count u8, then count times: len u8, len bytes
//!   Probe      0x02, 8 zero bytes
//!   Response   0x03, the 8 bytes of the challenge
//!   Ping       0x04, token u64
//!   Ack        0x05, snapshot_frame u32, 4 zero bytes
//! host to client
//!   Snapshot   0x81, frame u32, part u8, parts u8, margin_ms i16, newest_input_frame u32, then the bytes of the part
//!   Challenge  0x82, 8 random bytes
//!   Delta      0x83, then as Snapshot: the bytes are those of a delta
//!   Pong       0x84, the token of the ping
//! ```
//!
//! **Inputs** carries the newest input and the ones before it, newest first: the first entry is the input for
//! `newest_frame`, the next for `newest_frame - 1`, and so on without a gap. `count` is 1 to 16 and no entry may
//! reach below frame 0. An entry has 0 to 240 bytes. `snapshot_frame` is the highest frame of which the client has
//! a whole snapshot, 0xFFFF_FFFF for none. The host takes the first input that it sees for a frame, so that
//! repeating the last ones costs nothing and makes up for lost datagrams.
//!
//! **Snapshot** carries one part of the room's state at `frame` ([`crate::snapshot`]) and two fields for this player
//! alone, equal in all parts. `margin_ms` is the advice for the client's lead. The margin of an input is the time from
//! its arrival to the moment at which its frame was due, negative if it came too late; the field is the smallest
//! margin of the last 50 to 100 inputs, in milliseconds, counting only those that were for a newer frame than any
//! before (copies say nothing of the way), clamped to -32,767 to 32,767; -32,768 if none came. `newest_input_frame` is the
//! highest frame for which an input of this player came, too late or not, 0xFFFF_FFFF for none. Inputs that were dropped because they were too
//! far ahead count for the margin and not for this. How a client uses both is in the [crate's documentation](crate#for-which-frame-an-input-is).
//!
//! **Delta** carries one part of a delta ([`crate::delta`]), from which the client makes the snapshot of that frame with one that it has
//! acknowledged; the other fields are those of Snapshot. It comes only to a client whose `hello` had `deltas`, from a host whose `welcome` had it.
//! **Ack** says to such a host what `snapshot_frame` of Inputs says, for who has no inputs to send: a spectator, a player whose game is over. What it
//! names, or an Inputs does, may be the base of a delta for the next 32 frames. A client that cannot get a snapshot back, because its base is not
//! there any more, does not acknowledge it; after 32 frames without another acknowledgement a whole snapshot comes.
//!
//! **Probe**, **Challenge** and **Response** confirm an address ([`crate::path`]). A probe is as long as a challenge,
//! so the answer to a datagram is never larger than the datagram. **Ping** is answered by a **Pong** with the same
//! token at once, the way payloads go; the client measures the round trip and keeps the path alive with it.

use crate::datagram::{HEADER_BYTES, PAYLOAD_BYTES_MAX, TAG_BYTES};

/// How many inputs one `Inputs` carries at most: the newest and 15 before it, 300 ms at 50 Hz.
pub const INPUTS_COUNT_MAX: usize = 16;

/// The largest input, in bytes. Controls fit into 8; the rest of a byte's range stays free for later meanings.
pub const INPUT_BYTES_MAX: usize = 240;

/// The largest snapshot of a room, in bytes: eight full datagrams per tick and player, 400 kB/s at 50 Hz. More is a
/// design error of the rules, not a need.
pub const SNAPSHOT_BYTES_MAX: usize = 8_192;

/// How many bytes of a snapshot one part carries: all parts but the last have exactly this many.
pub const SNAPSHOT_PART_BYTES: usize = PAYLOAD_BYTES_MAX - SNAPSHOT_HEADER_BYTES;

/// How many parts a snapshot has at most: what [`SNAPSHOT_BYTES_MAX`] needs.
pub const SNAPSHOT_PARTS_MAX: usize = SNAPSHOT_BYTES_MAX.div_ceil(SNAPSHOT_PART_BYTES);

/// The size of a challenge, in bytes.
pub const CHALLENGE_BYTES: usize = 8;

/// The size of a sealed `Challenge`, in bytes. No datagram from a client is smaller than this.
pub const CHALLENGE_DATAGRAM_BYTES: usize = HEADER_BYTES + 1 + CHALLENGE_BYTES + TAG_BYTES;

/// The largest payload in a binary WebSocket message from a client, in bytes: the same as in a datagram.
pub const CLIENT_BINARY_BYTES_MAX: usize = PAYLOAD_BYTES_MAX;

/// The largest payload in a binary WebSocket message from the host, in bytes: a whole snapshot in one part.
pub const HOST_BINARY_BYTES_MAX: usize = SNAPSHOT_HEADER_BYTES + SNAPSHOT_BYTES_MAX;

const INPUTS_HEADER_BYTES: usize = 10;
const SNAPSHOT_HEADER_BYTES: usize = 13;
const NO_FRAME: u32 = u32::MAX;
const NO_MARGIN: i16 = i16::MIN;

const INPUTS: u8 = 0x01;
const PROBE: u8 = 0x02;
const RESPONSE: u8 = 0x03;
const PING: u8 = 0x04;
const ACK: u8 = 0x05;
const SNAPSHOT: u8 = 0x81;
const CHALLENGE: u8 = 0x82;
const DELTA: u8 = 0x83;
const PONG: u8 = 0x84;

/// Why a payload could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The payload ends before a field.
    #[error("the payload ends before `{field}`")]
    Truncated {
        /// The field that is missing.
        field: &'static str,
    },
    /// Bytes are left after the last field.
    #[error("{bytes} bytes are left over after the last field")]
    LeftOver {
        /// How many.
        bytes: usize,
    },
    /// No payload of this direction begins so.
    #[error("unknown payload kind {got:#04x}")]
    Kind {
        /// The first byte.
        got: u8,
    },
    /// A field is out of its range.
    #[error("`{field}` is {got}, allowed are {min} to {max}")]
    Range {
        /// The field.
        field: &'static str,
        /// Its value.
        got: u64,
        /// The lowest value allowed here.
        min: u64,
        /// The highest value allowed here.
        max: u64,
    },
}

/// Something that can be written as a payload.
pub trait Encode {
    /// Appends the payload to `out`.
    ///
    /// Errors: [`PayloadError::Range`] if a field is out of the range that the specification gives it; then `out` is
    /// as it was.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), PayloadError>;
}

/// A payload from a client to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToHost<'a> {
    /// The last inputs.
    Inputs(Inputs<'a>),
    /// "This is my address"; asks for a challenge.
    Probe,
    /// The answer to a challenge.
    Response([u8; CHALLENGE_BYTES]),
    /// Asks for a pong with the same token.
    Ping(u64),
    /// The highest frame of which the client has a whole snapshot.
    Ack(u32),
}

impl<'a> ToHost<'a> {
    /// Reads a payload from a client. Errors: all of [`PayloadError`].
    pub fn decode(payload: &'a [u8]) -> Result<Self, PayloadError> {
        let mut reader = Reader { rest: payload };
        let kind = reader.u8("kind")?;
        let decoded = match kind {
            INPUTS => return Inputs::decode(reader).map(Self::Inputs),
            PROBE => match u64::from_le_bytes(reader.array("zeros")?) {
                0 => Self::Probe,
                got => {
                    return Err(PayloadError::Range { field: "zeros", got, min: 0, max: 0 });
                }
            },
            RESPONSE => Self::Response(reader.array("challenge")?),
            PING => Self::Ping(u64::from_le_bytes(reader.array("token")?)),
            ACK => {
                let frame = reader.u32("snapshot_frame")?;
                in_range("snapshot_frame", u64::from(frame), 0, u64::from(NO_FRAME) - 1)?;
                in_range("zeros", u64::from(reader.u32("zeros")?), 0, 0)?;
                Self::Ack(frame)
            }
            got => return Err(PayloadError::Kind { got }),
        };
        reader.end()?;
        Ok(decoded)
    }
}

impl Encode for ToHost<'_> {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), PayloadError> {
        match self {
            Self::Inputs(inputs) => return inputs.encode(out),
            Self::Probe => tagged(out, PROBE, [0; 8]),
            Self::Response(challenge) => tagged(out, RESPONSE, *challenge),
            Self::Ping(token) => tagged(out, PING, token.to_le_bytes()),
            Self::Ack(frame) => {
                in_range("snapshot_frame", u64::from(*frame), 0, u64::from(NO_FRAME) - 1)?;
                tagged(out, ACK, u64::from(*frame).to_le_bytes());
            }
        }
        Ok(())
    }
}

/// A payload from the host to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToClient<'a> {
    /// One part of a snapshot.
    Snapshot(Snapshot<'a>),
    /// One part of a delta: its bytes are the delta's, its frame that of the snapshot.
    Delta(Snapshot<'a>),
    /// Asks for a response with the same bytes, from the address that it was sent to.
    Challenge([u8; CHALLENGE_BYTES]),
    /// The answer to a ping.
    Pong(u64),
}

impl<'a> ToClient<'a> {
    /// Reads a payload from the host. Errors: all of [`PayloadError`].
    pub fn decode(payload: &'a [u8]) -> Result<Self, PayloadError> {
        let mut reader = Reader { rest: payload };
        let kind = reader.u8("kind")?;
        let decoded = match kind {
            SNAPSHOT => return Snapshot::decode(reader).map(Self::Snapshot),
            DELTA => return Snapshot::decode(reader).map(Self::Delta),
            CHALLENGE => Self::Challenge(reader.array("challenge")?),
            PONG => Self::Pong(u64::from_le_bytes(reader.array("token")?)),
            got => return Err(PayloadError::Kind { got }),
        };
        reader.end()?;
        Ok(decoded)
    }
}

impl Encode for ToClient<'_> {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), PayloadError> {
        match self {
            Self::Snapshot(snapshot) => return snapshot.encode(SNAPSHOT, out),
            Self::Delta(delta) => return delta.encode(DELTA, out),
            Self::Challenge(challenge) => tagged(out, CHALLENGE, *challenge),
            Self::Pong(token) => tagged(out, PONG, token.to_le_bytes()),
        }
        Ok(())
    }
}

/// The newest inputs of a player. Made by decoding, or by [`Inputs::write`] for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inputs<'a> {
    newest_frame: u32,
    snapshot_frame: Option<u32>,
    count: u8,
    /// The entries as they stand in the payload; lengths and count are already checked.
    entries: &'a [u8],
}

impl<'a> Inputs<'a> {
    /// Writes an `Inputs` payload to `out` (cleared first). `newest_first` gives the input for `newest_frame`, then
    /// the one for the frame before, and so on; at most 16 are taken, and no more than fit into a datagram. Gives how
    /// many were written.
    ///
    /// Errors: [`PayloadError::Range`] if the first input is missing or one is larger than [`INPUT_BYTES_MAX`], or
    /// `newest_frame` is 2^32 - 1 (which means "none").
    pub fn write<'b>(
        newest_frame: u32,
        snapshot_frame: Option<u32>,
        newest_first: impl IntoIterator<Item = &'b [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<usize, PayloadError> {
        let mut entries = Vec::with_capacity(PAYLOAD_BYTES_MAX);
        let mut count = 0u8;
        let room = PAYLOAD_BYTES_MAX - INPUTS_HEADER_BYTES;
        // No frame is below 0: frame 0 can carry one input, frame 1 two.
        let frames = u64::from(newest_frame) + 1;
        for input in newest_first.into_iter().take(INPUTS_COUNT_MAX) {
            if u64::from(count) == frames || entries.len() + 1 + input.len() > room && count > 0 {
                break;
            }
            in_range("len", input.len() as u64, 0, INPUT_BYTES_MAX as u64)?;
            entries.push(input.len() as u8);
            entries.extend_from_slice(input);
            count += 1;
        }
        out.clear();
        Inputs { newest_frame, snapshot_frame, count, entries: &entries }.encode(out)?;
        Ok(usize::from(count))
    }

    /// The frame of the first input.
    pub fn newest_frame(&self) -> u32 {
        self.newest_frame
    }

    /// The highest frame of which the client has a whole snapshot.
    pub fn snapshot_frame(&self) -> Option<u32> {
        self.snapshot_frame
    }

    /// How many inputs there are: 1 to 16.
    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// The inputs with their frames, newest first.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &'a [u8])> + use<'a> {
        let mut reader = Reader { rest: self.entries };
        let newest_frame = self.newest_frame;
        (0..u32::from(self.count)).map_while(move |back| {
            let len = reader.u8("len").ok()?;
            Some((newest_frame.checked_sub(back)?, reader.bytes("input", usize::from(len)).ok()?))
        })
    }

    fn decode(mut reader: Reader<'a>) -> Result<Self, PayloadError> {
        let newest_frame = reader.u32("newest_frame")?;
        let snapshot_frame = reader.u32("snapshot_frame")?;
        let count = reader.u8("count")?;
        let entries = reader.rest;
        let inputs = Self {
            newest_frame,
            snapshot_frame: (snapshot_frame != NO_FRAME).then_some(snapshot_frame),
            count,
            entries,
        };
        inputs.check_header()?;
        for _ in 0..count {
            let len = reader.u8("len")?;
            in_range("len", u64::from(len), 0, INPUT_BYTES_MAX as u64)?;
            reader.bytes("input", usize::from(len))?;
        }
        reader.end()?;
        Ok(inputs)
    }

    fn check_header(&self) -> Result<(), PayloadError> {
        in_range("newest_frame", u64::from(self.newest_frame), 0, u64::from(NO_FRAME) - 1)?;
        let frames = u64::from(self.newest_frame) + 1;
        in_range("count", u64::from(self.count), 1, frames.min(INPUTS_COUNT_MAX as u64))
    }
}

impl Encode for Inputs<'_> {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), PayloadError> {
        self.check_header()?;
        out.push(INPUTS);
        out.extend_from_slice(&self.newest_frame.to_le_bytes());
        out.extend_from_slice(&self.snapshot_frame.unwrap_or(NO_FRAME).to_le_bytes());
        out.push(self.count);
        out.extend_from_slice(self.entries);
        Ok(())
    }
}

/// One part of a snapshot, with what the host tells this player about its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot<'a> {
    /// The frame after which the room was in this state.
    pub frame: u32,
    /// Which part this is, counted from 0.
    pub part: u8,
    /// How many parts the snapshot has: 1 to 8.
    pub parts: u8,
    /// How early the player's inputs arrive, in milliseconds: the worst of the last one or two seconds, negative if late;
    /// `None` if none came.
    pub margin_ms: Option<i16>,
    /// The highest frame for which the host has an input of this player.
    pub newest_input_frame: Option<u32>,
    /// The bytes of this part.
    pub bytes: &'a [u8],
}

impl<'a> Snapshot<'a> {
    fn decode(mut reader: Reader<'a>) -> Result<Self, PayloadError> {
        let frame = reader.u32("frame")?;
        let part = reader.u8("part")?;
        let parts = reader.u8("parts")?;
        let margin_ms = i16::from_le_bytes(reader.array("margin_ms")?);
        let newest_input_frame = reader.u32("newest_input_frame")?;
        let snapshot = Self {
            frame,
            part,
            parts,
            margin_ms: (margin_ms != NO_MARGIN).then_some(margin_ms),
            newest_input_frame: (newest_input_frame != NO_FRAME).then_some(newest_input_frame),
            bytes: reader.rest,
        };
        snapshot.check()?;
        Ok(snapshot)
    }

    fn check(&self) -> Result<(), PayloadError> {
        in_range("frame", u64::from(self.frame), 0, u64::from(NO_FRAME) - 1)?;
        in_range("parts", u64::from(self.parts), 1, SNAPSHOT_PARTS_MAX as u64)?;
        let last = self.parts - 1;
        in_range("part", u64::from(self.part), 0, u64::from(last))?;
        let (min, max) = if last == 0 {
            (0, SNAPSHOT_BYTES_MAX)
        } else if self.part < last {
            (SNAPSHOT_PART_BYTES, SNAPSHOT_PART_BYTES)
        } else {
            let before = usize::from(last) * SNAPSHOT_PART_BYTES;
            (1, SNAPSHOT_PART_BYTES.min(SNAPSHOT_BYTES_MAX - before))
        };
        in_range("bytes of the part", self.bytes.len() as u64, min as u64, max as u64)
    }

    fn encode(&self, kind: u8, out: &mut Vec<u8>) -> Result<(), PayloadError> {
        self.check()?;
        // The lowest value means "none", so a margin that low is written as the next one.
        let margin_ms = self.margin_ms.map_or(NO_MARGIN, |margin| margin.max(NO_MARGIN + 1));
        out.push(kind);
        out.extend_from_slice(&self.frame.to_le_bytes());
        out.push(self.part);
        out.push(self.parts);
        out.extend_from_slice(&margin_ms.to_le_bytes());
        out.extend_from_slice(&self.newest_input_frame.unwrap_or(NO_FRAME).to_le_bytes());
        out.extend_from_slice(self.bytes);
        Ok(())
    }
}

fn tagged(out: &mut Vec<u8>, kind: u8, bytes: [u8; 8]) {
    out.push(kind);
    out.extend_from_slice(&bytes);
}

pub(crate) fn in_range(field: &'static str, got: u64, min: u64, max: u64) -> Result<(), PayloadError> {
    if (min..=max).contains(&got) { Ok(()) } else { Err(PayloadError::Range { field, got, min, max }) }
}

/// Takes fields off the front of a payload.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], PayloadError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(PayloadError::Truncated { field })?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], PayloadError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(PayloadError::Truncated { field })?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, PayloadError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, PayloadError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn end(self) -> Result<(), PayloadError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(PayloadError::LeftOver { bytes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(payload: &impl Encode) -> Vec<u8> {
        let mut out = Vec::new();
        payload.encode(&mut out).unwrap();
        out
    }

    #[test]
    fn sizes_are_the_ones_specified() {
        assert_eq!(PAYLOAD_BYTES_MAX, 1_171);
        assert_eq!(SNAPSHOT_PART_BYTES, 1_158);
        assert_eq!(SNAPSHOT_PARTS_MAX, 8);
        assert_eq!(CHALLENGE_DATAGRAM_BYTES, 38);
    }

    /// The reason why every datagram of a client pays for a challenge.
    #[test]
    fn no_payload_of_a_client_is_smaller_than_a_challenge() {
        let mut inputs = Vec::new();
        Inputs::write(0, None, [&[][..]], &mut inputs).unwrap();
        let [probe, response, ping, ack] =
            [ToHost::Probe, ToHost::Response([1; 8]), ToHost::Ping(1), ToHost::Ack(1)].map(|payload| written(&payload));
        for payload in [inputs, probe, response, ping, ack] {
            assert!(payload.len() >= written(&ToClient::Challenge([0; 8])).len());
            for shorter in 0..payload.len() {
                assert!(ToHost::decode(&payload[..shorter]).is_err());
            }
        }
    }

    #[test]
    fn the_layouts_are_the_ones_specified() {
        let mut out = Vec::new();
        Inputs::write(0x0102_0304, Some(5), [&[9, 8][..], &[], &[7]], &mut out).unwrap();
        assert_eq!(out, [1, 4, 3, 2, 1, 5, 0, 0, 0, 3, 2, 9, 8, 0, 1, 7]);
        assert_eq!(written(&ToHost::Probe), [2, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(written(&ToHost::Response([1, 2, 3, 4, 5, 6, 7, 8])), [3, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(written(&ToHost::Ping(0x0807)), [4, 7, 8, 0, 0, 0, 0, 0, 0]);
        assert_eq!(written(&ToHost::Ack(0x0102_0304)), [5, 4, 3, 2, 1, 0, 0, 0, 0]);
        assert!(ToHost::Ack(u32::MAX).encode(&mut Vec::new()).is_err());
        let snapshot = Snapshot {
            frame: 0x0102_0304,
            part: 0,
            parts: 1,
            margin_ms: Some(-2),
            newest_input_frame: None,
            bytes: &[42],
        };
        assert_eq!(
            written(&ToClient::Snapshot(snapshot)),
            [0x81, 4, 3, 2, 1, 0, 1, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 42]
        );
        assert_eq!(written(&ToClient::Challenge([1, 2, 3, 4, 5, 6, 7, 8])), [0x82, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(written(&ToClient::Pong(1)), [0x84, 1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_does_not_fit_the_specification_is_refused() {
        let range = |field, got, min, max| Err(PayloadError::Range { field, got, min, max });
        assert_eq!(ToHost::decode(&[]), Err(PayloadError::Truncated { field: "kind" }));
        assert_eq!(ToHost::decode(&[0x81]), Err(PayloadError::Kind { got: 0x81 }));
        assert_eq!(ToClient::decode(&[1]).err(), Some(PayloadError::Kind { got: 1 }));
        assert_eq!(ToHost::decode(&[2, 1, 0, 0, 0, 0, 0, 0, 0]), range("zeros", 1, 0, 0));
        let ping = [4, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(ToHost::decode(&ping), Err(PayloadError::LeftOver { bytes: 1 }));
        let inputs = |newest: u8, count: u8| [1, newest, 0, 0, 0, 0, 0, 0, 0, count, 0, 0, 0];
        assert_eq!(ToHost::decode(&inputs(9, 0)), range("count", 0, 1, 10));
        assert_eq!(ToHost::decode(&inputs(99, 17)), range("count", 17, 1, 16));
        assert_eq!(ToHost::decode(&inputs(1, 3)), range("count", 3, 1, 2));
        assert!(ToHost::decode(&inputs(2, 3)).is_ok());
        let no_frame = [1, 255, 255, 255, 255, 0, 0, 0, 0, 1, 0];
        let last = u64::from(u32::MAX);
        assert_eq!(ToHost::decode(&no_frame), range("newest_frame", last, 0, last - 1));
        let mut long = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 241];
        long.extend([0; 241]);
        assert_eq!(ToHost::decode(&long), range("len", 241, 0, 240));
        let part = |part: u8, parts: u8, bytes: usize| {
            let mut payload = vec![0x81, 0, 0, 0, 0, part, parts, 0, 0, 0, 0, 0, 0];
            payload.resize(13 + bytes, 0);
            ToClient::decode(&payload).err()
        };
        let refused = |field, got, min, max| Some(PayloadError::Range { field, got, min, max });
        assert_eq!(part(0, 0, 0), refused("parts", 0, 1, 8));
        assert_eq!(part(0, 9, 0), refused("parts", 9, 1, 8));
        assert_eq!(part(2, 2, 1), refused("part", 2, 0, 1));
        assert_eq!(part(0, 2, 1_157), refused("bytes of the part", 1_157, 1_158, 1_158));
        assert_eq!(part(1, 2, 0), refused("bytes of the part", 0, 1, 1_158));
        assert_eq!(part(7, 8, 87), refused("bytes of the part", 87, 1, 86));
        assert_eq!(part(0, 1, 8_193), refused("bytes of the part", 8_193, 0, 8_192));
        assert_eq!((part(0, 1, 8_192), part(7, 8, 86), part(0, 1, 0)), (None, None, None));
    }

    #[test]
    fn a_margin_as_low_as_the_mark_for_none_stays_a_margin() {
        let snapshot = Snapshot {
            frame: 1,
            part: 0,
            parts: 1,
            margin_ms: Some(i16::MIN),
            newest_input_frame: Some(0),
            bytes: &[],
        };
        let bytes = written(&ToClient::Snapshot(snapshot));
        let Ok(ToClient::Snapshot(read)) = ToClient::decode(&bytes) else { panic!() };
        assert_eq!(read.margin_ms, Some(i16::MIN + 1));
    }

    #[test]
    fn inputs_are_written_as_far_as_they_fit() {
        let mut out = Vec::new();
        let full = [1u8; INPUT_BYTES_MAX];
        let sixteen = [&full[..]; 16];
        // 4 times 241 bytes fit into 1,161.
        assert_eq!(Inputs::write(100, None, sixteen, &mut out), Ok(4));
        assert!(out.len() <= PAYLOAD_BYTES_MAX);
        assert_eq!(Inputs::write(2, None, sixteen, &mut out), Ok(3));
        assert_eq!(Inputs::write(100, None, [&[1u8; 8][..]; 40], &mut out), Ok(16));
        assert!(Inputs::write(100, None, [], &mut out).is_err());
        assert!(Inputs::write(100, None, [&[0u8; 241][..]], &mut out).is_err());
        assert!(Inputs::write(u32::MAX, None, [&[][..]], &mut out).is_err());
    }

    proptest! {
        #[test]
        fn inputs_come_back(
            newest in 0..u32::MAX,
            snapshot_frame in proptest::option::of(0..u32::MAX),
            inputs in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..=INPUT_BYTES_MAX), 1..20),
        ) {
            let mut out = Vec::new();
            let slices = inputs.iter().map(Vec::as_slice);
            let count = Inputs::write(newest, snapshot_frame, slices, &mut out).unwrap();
            prop_assert!(out.len() <= PAYLOAD_BYTES_MAX);
            let Ok(ToHost::Inputs(read)) = ToHost::decode(&out) else { panic!("not inputs") };
            prop_assert_eq!((read.newest_frame(), read.snapshot_frame()), (newest, snapshot_frame));
            prop_assert_eq!(read.count(), count);
            let entries: Vec<_> = read.iter().collect();
            prop_assert_eq!(entries.len(), count);
            for (back, (frame, bytes)) in entries.into_iter().enumerate() {
                prop_assert_eq!(frame, newest - back as u32);
                prop_assert_eq!(bytes, &inputs[back][..]);
            }
        }

        /// Reading never panics, and what can be read is written back byte for byte.
        #[test]
        fn arbitrary_bytes(
            kind in prop_oneof![any::<u8>(), Just(INPUTS), Just(SNAPSHOT), 0u8..6, 0x80u8..0x86],
            rest in proptest::collection::vec(prop_oneof![any::<u8>(), 0u8..4], 0..60),
        ) {
            let bytes = [&[kind][..], &rest].concat();
            if let Ok(payload) = ToHost::decode(&bytes) {
                prop_assert_eq!(written(&payload), &bytes[..]);
                if let ToHost::Inputs(inputs) = payload {
                    prop_assert_eq!(inputs.iter().count(), inputs.count());
                }
            }
            if let Ok(payload) = ToClient::decode(&bytes) {
                prop_assert_eq!(written(&payload), bytes);
            }
        }
    }
}
