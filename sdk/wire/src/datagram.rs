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

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, Tag};
use std::fmt;

use crate::handshake::KEY_BYTES;
use crate::payload::{Encode, PayloadError};
pub use crate::window::REPLAY_WINDOW_SEQUENCES;
use crate::window::{Refusal, Window};

// The backend of the AEAD matters: RustCrypto's crate built without cfg flags takes about 1,500 ns for a datagram
// of 32 to 64 bytes, because its runtime-detected AVX2 code is not inlined; with
// `--cfg chacha20_backend="soft" --cfg poly1305_backend="soft"` (set for the whole build, by whoever builds the
// host) it takes 300, and ring 220. The bytes are the same. Only `seal_in_place` and `open` below touch it.

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
        let (header, _) = datagram
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(OpenError::Size { bytes })?;
        Self::decode(header)
    }

    fn decode(header: &[u8; HEADER_BYTES]) -> Result<Self, OpenError> {
        let [version, s0, s1, s2, s3, q @ ..] = *header;
        if version != DATAGRAM_VERSION {
            return Err(OpenError::Version { got: version });
        }
        Ok(Self {
            session: u32::from_le_bytes([s0, s1, s2, s3]),
            sequence: u64::from_le_bytes(q),
        })
    }

    fn encode(self) -> [u8; HEADER_BYTES] {
        let [s0, s1, s2, s3] = self.session.to_le_bytes();
        let [q0, q1, q2, q3, q4, q5, q6, q7] = self.sequence.to_le_bytes();
        [
            DATAGRAM_VERSION,
            s0,
            s1,
            s2,
            s3,
            q0,
            q1,
            q2,
            q3,
            q4,
            q5,
            q6,
            q7,
        ]
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
    #[error(
        "a datagram has {DATAGRAM_BYTES_MIN} to {DATAGRAM_BYTES_MAX} bytes; this one has {bytes}"
    )]
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
    #[error(
        "the seal of sequence {sequence} is broken: it was made with another key, or altered on the way"
    )]
    Forged {
        /// The sequence in the header.
        sequence: u64,
    },
}

/// Seals the datagrams of one direction of one session. It owns the key and the sequence number, so no number is
/// used twice: it cannot be cloned, and it is made only by taking apart [`crate::SessionKeys`].
pub struct Sealer {
    session: u32,
    /// The next sequence number; `u64::MAX` is never used and means that all are.
    next_sequence: u64,
    cipher: ChaCha20Poly1305,
}

impl Sealer {
    pub(crate) fn new(session: u32, key: &[u8; KEY_BYTES]) -> Self {
        Self {
            session,
            next_sequence: 0,
            cipher: ChaCha20Poly1305::new(key.into()),
        }
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
        let sealed = payload
            .encode(out)
            .map_err(SealError::from)
            .and_then(|()| self.seal_in_place(out));
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
            return Err(SealError::Size {
                bytes: payload.len(),
            });
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
        let (header, payload) = out
            .split_first_chunk_mut::<HEADER_BYTES>()
            .ok_or(refused.clone())?;
        *header = Header {
            session: self.session,
            sequence,
        }
        .encode();
        let tag = self
            .cipher
            .encrypt_inout_detached(&nonce(sequence), header, payload.into())
            .map_err(|_| refused)?;
        self.next_sequence = sequence + 1;
        out.extend_from_slice(&tag);
        Ok(sequence)
    }
}

impl fmt::Debug for Sealer {
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

/// Opens the datagrams of one direction of one session, each once.
pub struct Opener {
    session: u32,
    window: Window,
    cipher: ChaCha20Poly1305,
}

impl Opener {
    pub(crate) fn new(session: u32, key: &[u8; KEY_BYTES]) -> Self {
        Self {
            session,
            window: Window::new(),
            cipher: ChaCha20Poly1305::new(key.into()),
        }
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
        let size = OpenError::Size {
            bytes: datagram.len(),
        };
        if session != self.session {
            return Err(OpenError::Session {
                expected: self.session,
                got: session,
            });
        }
        let newest = self
            .window
            .check(sequence)
            .map_err(|refusal| match refusal {
                Refusal::Duplicate => OpenError::Duplicate { sequence },
                Refusal::TooOld => OpenError::TooOld { sequence },
            })?;
        let (header, rest) = datagram
            .split_first_chunk_mut::<HEADER_BYTES>()
            .ok_or(size.clone())?;
        let (payload, tag) = rest.split_last_chunk_mut::<TAG_BYTES>().ok_or(size)?;
        self.cipher
            .decrypt_inout_detached(
                &nonce(sequence),
                header,
                (&mut *payload).into(),
                &Tag::from(*tag),
            )
            .map_err(|_| OpenError::Forged { sequence })?;
        self.window.mark(sequence);
        Ok(Opened {
            sequence,
            newest,
            payload,
        })
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

fn nonce(sequence: u64) -> Nonce {
    let [q0, q1, q2, q3, q4, q5, q6, q7] = sequence.to_le_bytes();
    Nonce::from([0, 0, 0, 0, q0, q1, q2, q3, q4, q5, q6, q7])
}
