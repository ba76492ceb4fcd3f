//! Sealed datagrams: their layout, and the two objects that make and open them. What is inside a datagram is in
//! [`crate::payload`]; where datagrams go is in [`crate::path`].
//!
//! # Specification
//!
//! ```text
//! offset  size  what
//!      0     1  version of this layout: 1
//!      1     4  session, u32: welcome.session
//!      5     8  sequence, u64
//!     13     n  the payload, encrypted (1 to 1,171 bytes)
//!   13+n    16  the Poly1305 tag
//! ```
//!
//! The seal is ChaCha20-Poly1305 (RFC 8439). The key is the one of the direction ([`crate::handshake`]); the nonce
//! is four zero bytes and the sequence, little-endian (as Noise does); the associated data is the header, bytes 0
//! to 12. The header stands in the clear so that a host can find the session before it has a key. The sequence
//! is whole, not shortened: nothing has to be guessed on arrival, and 13 bytes are 1.2 % of a full datagram.
//!
//! A sender starts each direction at sequence 0, adds one for each datagram, and stops for good before
//! 2^64 - 1. It never seals two datagrams with one sequence under one key: a new connection has new keys.
//!
//! A receiver refuses, in this order: a wrong size, a wrong version, an unknown session, a sequence outside its
//! replay window (1,024 or more behind the highest one opened) or opened before, a tag that does not fit. Only
//! after the tag fitted may anything change: the window, an address, a counter of the session.

use std::fmt;

use crate::cipher::{Cipher, NONCE_BYTES, PortableCipher};
use crate::handshake::KEY_BYTES;
use crate::payload::{Encode, PayloadError};
pub use crate::window::REPLAY_WINDOW_SEQUENCES;
use crate::window::{Refusal, Window};

/// The version in the first byte of a datagram.
pub const DATAGRAM_VERSION: u8 = 1;

/// The size of the header, in bytes.
pub const HEADER_BYTES: usize = 13;

/// The size of the tag behind the payload, in bytes.
pub const TAG_BYTES: usize = 16;

/// The largest datagram, in bytes of UDP payload. IPv6 promises that packets of 1,280 bytes pass everywhere; minus 40
/// for IPv6 and 8 for UDP that is 1,232, and the rest is left for tunnels. QUIC settles on the same 1,200 (RFC
/// 9000 section 14), so paths that break it are rare. Nothing here depends on path MTU discovery or fragments.
pub const DATAGRAM_BYTES_MAX: usize = 1_200;

/// The smallest datagram, in bytes: a payload of one byte.
pub const DATAGRAM_BYTES_MIN: usize = HEADER_BYTES + 1 + TAG_BYTES;

/// The largest payload in a datagram, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - HEADER_BYTES - TAG_BYTES;

/// What stands in the clear in front of a sealed payload. Nothing of it can be believed before the datagram opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The session that the datagram claims to belong to.
    pub session: u32,
    /// The sequence number that it claims to have.
    pub sequence: u64,
}

impl Header {
    /// Reads the header of a datagram without a key, so that the session can be found.
    ///
    /// Errors: [`OpenError::Size`] and [`OpenError::Version`].
    pub fn peek(datagram: &[u8]) -> Result<Self, OpenError> {
        let bytes = datagram.len();
        if !(DATAGRAM_BYTES_MIN..=DATAGRAM_BYTES_MAX).contains(&bytes) {
            return Err(OpenError::Size { bytes });
        }
        let (header, _) = datagram.split_first_chunk::<HEADER_BYTES>().ok_or(OpenError::Size { bytes })?;
        Self::decode(header)
    }

    fn decode(header: &[u8; HEADER_BYTES]) -> Result<Self, OpenError> {
        let [version, s0, s1, s2, s3, q @ ..] = *header;
        if version != DATAGRAM_VERSION {
            return Err(OpenError::Version { got: version });
        }
        Ok(Self { session: u32::from_le_bytes([s0, s1, s2, s3]), sequence: u64::from_le_bytes(q) })
    }

    fn encode(self) -> [u8; HEADER_BYTES] {
        let [s0, s1, s2, s3] = self.session.to_le_bytes();
        let [q0, q1, q2, q3, q4, q5, q6, q7] = self.sequence.to_le_bytes();
        [DATAGRAM_VERSION, s0, s1, s2, s3, q0, q1, q2, q3, q4, q5, q6, q7]
    }
}

/// Why a payload could not be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The payload does not fit into a datagram, or is empty.
    #[error("a payload in a datagram has 1 to {PAYLOAD_BYTES_MAX} bytes; this one has {bytes}")]
    Size {
        /// The size of the payload, in bytes.
        bytes: usize,
    },
    /// The payload could not be encoded.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// All 2^64 - 1 sequence numbers are used. Open a new session.
    #[error("every sequence number of this session is used; open a new session")]
    Exhausted,
}

/// Why a datagram was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Smaller or larger than any datagram of this protocol.
    #[error("a datagram has {DATAGRAM_BYTES_MIN} to {DATAGRAM_BYTES_MAX} bytes; this one has {bytes}")]
    Size {
        /// The size of the datagram, in bytes.
        bytes: usize,
    },
    /// Another version, or not a datagram of this protocol.
    #[error("datagram version {got}, this side speaks {DATAGRAM_VERSION}")]
    Version {
        /// The first byte.
        got: u8,
    },
    /// It names another session than the one it was given to.
    #[error("datagram for session {got} was given to session {expected}")]
    Session {
        /// The session of the opener.
        expected: u32,
        /// The session in the header.
        got: u32,
    },
    /// The same datagram was opened before: the network doubled it, or somebody replays it.
    #[error("sequence {sequence} was opened before")]
    Duplicate {
        /// The sequence in the header.
        sequence: u64,
    },
    /// Too far behind the highest sequence opened to tell whether it was opened before.
    #[error("sequence {sequence} is {REPLAY_WINDOW_SEQUENCES} or more behind the newest")]
    TooOld {
        /// The sequence in the header.
        sequence: u64,
    },
    /// The tag does not fit: other key, or altered bytes.
    #[error("the seal of sequence {sequence} is broken: it was made with another key, or altered on the way")]
    Forged {
        /// The sequence in the header.
        sequence: u64,
    },
}

/// Seals the datagrams of one direction of one session. It owns the key and the sequence number, so no number is
/// used twice: it cannot be cloned, and it is made only by taking apart [`crate::SessionKeys`]. `C` is the implementation of the AEAD; the
/// bytes do not depend on it.
pub struct Sealer<C = PortableCipher> {
    session: u32,
    /// The next sequence number; `u64::MAX` is never used and means that all are.
    next_sequence: u64,
    cipher: C,
}

impl<C: Cipher> Sealer<C> {
    pub(crate) fn new(session: u32, key: &[u8; KEY_BYTES]) -> Self {
        Self { session, next_sequence: 0, cipher: C::new(key) }
    }

    /// The session that it seals for.
    pub fn session(&self) -> u32 {
        self.session
    }

    /// How many datagrams it has sealed.
    pub fn sealed_count(&self) -> u64 {
        self.next_sequence
    }

    /// Seals one payload. `out` is cleared and holds the datagram afterwards; it does not allocate if its capacity is
    /// at least [`DATAGRAM_BYTES_MAX`]. Gives the sequence number used.
    ///
    /// Errors: all of [`SealError`]; then `out` is empty and no sequence number is used up.
    pub fn seal(&mut self, payload: &impl Encode, out: &mut Vec<u8>) -> Result<u64, SealError> {
        out.clear();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        let sealed = payload.encode(out).map_err(SealError::from).and_then(|()| self.seal_in_place(out));
        if sealed.is_err() {
            out.clear();
        }
        sealed
    }

    /// Seals a payload that is already encoded. As [`Sealer::seal`].
    pub fn seal_bytes(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<u64, SealError> {
        out.clear();
        // Checked before the copy, so that `out` does not grow for what cannot be sent.
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(SealError::Size { bytes: payload.len() });
        }
        out.extend_from_slice(&[0; HEADER_BYTES]);
        out.extend_from_slice(payload);
        let sealed = self.seal_in_place(out);
        if sealed.is_err() {
            out.clear();
        }
        sealed
    }

    fn seal_in_place(&mut self, out: &mut Vec<u8>) -> Result<u64, SealError> {
        let sequence = self.next_sequence;
        if sequence == u64::MAX {
            return Err(SealError::Exhausted);
        }
        let bytes = out.len().saturating_sub(HEADER_BYTES);
        let refused = SealError::Size { bytes };
        if !(1..=PAYLOAD_BYTES_MAX).contains(&bytes) {
            return Err(refused);
        }
        let (header, payload) = out.split_first_chunk_mut::<HEADER_BYTES>().ok_or(refused.clone())?;
        *header = Header { session: self.session, sequence }.encode();
        let tag = self.cipher.seal(&nonce(sequence), header, payload).ok_or(refused)?;
        self.next_sequence = sequence + 1;
        out.extend_from_slice(&tag);
        Ok(sequence)
    }
}

impl<C> fmt::Debug for Sealer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("session", &self.session)
            .field("next_sequence", &self.next_sequence)
            .finish_non_exhaustive()
    }
}

/// An opened datagram: its payload was made by the holder of the session's key, and not opened before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened<'a> {
    /// Its sequence number.
    pub sequence: u64,
    /// Whether it is the newest so far: only then may it move an address.
    pub newest: bool,
    /// The payload, decrypted where it lay.
    pub payload: &'a [u8],
}

/// Opens the datagrams of one direction of one session, each once. `C` as for [`Sealer`].
pub struct Opener<C = PortableCipher> {
    session: u32,
    window: Window,
    cipher: C,
}

impl<C: Cipher> Opener<C> {
    pub(crate) fn new(session: u32, key: &[u8; KEY_BYTES]) -> Self {
        Self { session, window: Window::new(), cipher: C::new(key) }
    }

    /// The session that it opens for.
    pub fn session(&self) -> u32 {
        self.session
    }

    /// Opens a datagram in place. Nothing is allocated.
    ///
    /// Errors: all of [`OpenError`]. Then the opener is as it was before, and the bytes of the datagram are not to
    /// be used.
    pub fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<Opened<'a>, OpenError> {
        let Header { session, sequence } = Header::peek(datagram)?;
        let size = OpenError::Size { bytes: datagram.len() };
        if session != self.session {
            return Err(OpenError::Session { expected: self.session, got: session });
        }
        let newest = self.window.check(sequence).map_err(|refusal| match refusal {
            Refusal::Duplicate => OpenError::Duplicate { sequence },
            Refusal::TooOld => OpenError::TooOld { sequence },
        })?;
        let (header, rest) = datagram.split_first_chunk_mut::<HEADER_BYTES>().ok_or(size)?;
        let payload = self.cipher.open(&nonce(sequence), header, rest).ok_or(OpenError::Forged { sequence })?;
        self.window.mark(sequence);
        Ok(Opened { sequence, newest, payload })
    }
}

impl<C> fmt::Debug for Opener<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("session", &self.session).finish_non_exhaustive()
    }
}

fn nonce(sequence: u64) -> [u8; NONCE_BYTES] {
    let [q0, q1, q2, q3, q4, q5, q6, q7] = sequence.to_le_bytes();
    [0, 0, 0, 0, q0, q1, q2, q3, q4, q5, q6, q7]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{ToClient, ToHost};
    use proptest::prelude::*;

    const KEY: [u8; KEY_BYTES] = [42; KEY_BYTES];

    fn pair(session: u32) -> (Sealer, Opener) {
        (Sealer::new(session, &KEY), Opener::new(session, &KEY))
    }

    fn sealed(sealer: &mut Sealer, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        sealer.seal_bytes(payload, &mut out).unwrap();
        out
    }

    #[test]
    fn the_layout_is_the_one_specified() {
        let (mut sealer, _) = pair(0x0403_0201);
        sealer.next_sequence = 0x0807_0605_0403_0201;
        let datagram = sealed(&mut sealer, b"payload");
        assert_eq!(datagram.len(), 13 + 7 + 16);
        assert_eq!(datagram[..13], [1, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_typed_payload_and_its_bytes_seal_alike() {
        let (mut one, mut two): (Sealer, Sealer) = (Sealer::new(1, &KEY), Sealer::new(1, &KEY));
        let (mut typed, mut bytes) = (Vec::new(), Vec::new());
        one.seal(&ToHost::Ping(77), &mut typed).unwrap();
        ToHost::Ping(77).encode(&mut bytes).unwrap();
        assert_eq!(typed, sealed(&mut two, &bytes));
    }

    #[test]
    fn sealing_into_a_full_sized_buffer_does_not_move_it() {
        let (mut sealer, _) = pair(1);
        let mut out = Vec::with_capacity(DATAGRAM_BYTES_MAX);
        let place = out.as_ptr();
        for bytes in [1, 100, PAYLOAD_BYTES_MAX] {
            sealer.seal_bytes(&vec![1; bytes], &mut out).unwrap();
            assert_eq!(out.len(), HEADER_BYTES + bytes + TAG_BYTES);
        }
        assert_eq!(out.len(), DATAGRAM_BYTES_MAX);
        assert_eq!((place, out.capacity()), (out.as_ptr(), DATAGRAM_BYTES_MAX));
    }

    #[test]
    fn the_wrong_size_is_not_sealed_and_uses_no_sequence() {
        let (mut sealer, _) = pair(1);
        let mut out = vec![1, 2, 3];
        for bytes in [0, PAYLOAD_BYTES_MAX + 1, 100_000] {
            let refused = sealer.seal_bytes(&vec![0; bytes], &mut out);
            assert_eq!(refused, Err(SealError::Size { bytes }));
            assert!(out.is_empty());
        }
        assert_eq!(sealer.sealed_count(), 0);
    }

    #[test]
    fn a_sealer_stops_before_the_last_sequence() {
        let (mut sealer, mut opener) = pair(1);
        sealer.next_sequence = u64::MAX - 1;
        let mut datagram = sealed(&mut sealer, b"last");
        assert_eq!(opener.open(&mut datagram).unwrap().sequence, u64::MAX - 1);
        let mut out = Vec::new();
        for _ in 0..3 {
            assert_eq!(sealer.seal_bytes(b"more", &mut out), Err(SealError::Exhausted));
            assert!(out.is_empty());
        }
    }

    #[test]
    fn a_datagram_opens_once_and_in_any_order() {
        let (mut sealer, mut opener) = pair(1);
        let datagrams: Vec<_> = (0..5u8).map(|i| sealed(&mut sealer, &[i])).collect();
        for (index, newest) in [(1, true), (0, false), (4, true), (3, false), (2, false)] {
            let mut datagram = datagrams[index].clone();
            let opened = opener.open(&mut datagram).unwrap();
            assert_eq!(opened.payload, [index as u8]);
            assert_eq!((opened.sequence, opened.newest), (index as u64, newest));
        }
        for (index, datagram) in datagrams.iter().enumerate() {
            let refused = opener.open(&mut datagram.clone()).map(drop);
            assert_eq!(refused, Err(OpenError::Duplicate { sequence: index as u64 }));
        }
        sealer.next_sequence = REPLAY_WINDOW_SEQUENCES + 5;
        opener.open(&mut sealed(&mut sealer, b"far")).unwrap();
        let refused = opener.open(&mut datagrams[2].clone()).map(drop);
        assert_eq!(refused, Err(OpenError::TooOld { sequence: 2 }));
    }

    /// Any flipped bit is refused, whatever it stands for, and leaves the window as it was.
    #[test]
    fn any_flipped_bit_is_refused_and_changes_nothing() {
        let (mut sealer, mut opener) = pair(3);
        opener.open(&mut sealed(&mut sealer, b"first")).unwrap();
        let good = sealed(&mut sealer, &[0xA5; 20]);
        let before = opener.window.clone();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(opener.open(&mut bad).is_err(), "bit {bit}");
            assert_eq!(opener.window, before, "bit {bit}");
        }
        assert_eq!(opener.open(&mut good.clone()).unwrap().payload, [0xA5; 20]);
    }

    #[test]
    fn a_forged_high_sequence_does_not_silence_the_session() {
        let (mut sealer, mut opener) = pair(1);
        let mut forged = sealed(&mut sealer, b"x");
        forged[5..13].fill(0xFF);
        assert_eq!(opener.open(&mut forged), Err(OpenError::Forged { sequence: u64::MAX }));
        assert!(opener.open(&mut sealed(&mut sealer, b"y")).is_ok());
    }

    #[test]
    fn another_key_session_version_or_size_is_refused() {
        let (mut sealer, mut opener) = pair(1);
        let good = sealed(&mut sealer, b"x");
        let mut other_key: Opener = Opener::new(1, &[43; KEY_BYTES]);
        assert_eq!(other_key.open(&mut good.clone()), Err(OpenError::Forged { sequence: 0 }));
        let mut other_session: Opener = Opener::new(2, &KEY);
        assert_eq!(other_session.open(&mut good.clone()), Err(OpenError::Session { expected: 2, got: 1 }));
        let mut version = good.clone();
        version[0] = 2;
        assert_eq!(opener.open(&mut version), Err(OpenError::Version { got: 2 }));
        for bytes in [0, 1, 13, 29, DATAGRAM_BYTES_MAX + 1] {
            assert_eq!(opener.open(&mut vec![1; bytes]), Err(OpenError::Size { bytes }));
        }
        assert_eq!(Header::peek(&good), Ok(Header { session: 1, sequence: 0 }));
    }

    #[test]
    fn a_payload_that_cannot_be_encoded_is_not_sealed() {
        let (mut sealer, _) = pair(1);
        let mut out = Vec::new();
        let snapshot =
            crate::Snapshot { frame: 1, part: 2, parts: 1, margin_ms: None, newest_input_frame: None, bytes: &[] };
        assert!(sealer.seal(&ToClient::Snapshot(snapshot), &mut out).is_err());
        // A whole snapshot in one part is for the WebSocket; a datagram has no room for it.
        let snapshot = crate::Snapshot { part: 0, bytes: &[0; 2_000], ..snapshot };
        let refused = sealer.seal(&ToClient::Snapshot(snapshot), &mut out);
        assert_eq!(refused, Err(SealError::Size { bytes: 2_013 }));
        assert_eq!((out.len(), sealer.sealed_count()), (0, 0));
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(
            session: u32,
            first in 0..u64::MAX - 10,
            payload in proptest::collection::vec(any::<u8>(), 1..=PAYLOAD_BYTES_MAX),
        ) {
            let (mut sealer, mut opener) = pair(session);
            sealer.next_sequence = first;
            let mut datagram = sealed(&mut sealer, &payload);
            prop_assert!(datagram.len() <= DATAGRAM_BYTES_MAX);
            let opened = opener.open(&mut datagram).unwrap();
            prop_assert_eq!(opened, Opened { sequence: first, newest: true, payload: &payload });
        }

        #[test]
        fn arbitrary_bytes_never_open(mut bytes in proptest::collection::vec(any::<u8>(), 0..1_300)) {
            let (_, mut opener) = pair(0);
            prop_assert!(opener.open(&mut bytes.clone()).is_err());
            // Past the cheap checks too.
            if bytes.len() > HEADER_BYTES {
                bytes[..5].copy_from_slice(&[1, 0, 0, 0, 0]);
            }
            prop_assert!(opener.open(&mut bytes).is_err());
            prop_assert_eq!(opener.window, Window::new());
        }
    }
}
