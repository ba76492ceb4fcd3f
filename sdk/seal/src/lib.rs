//! ring's ChaCha20-Poly1305 for [`holeshot_wire`], and the test that it gives the bytes of `holeshot_wire`'s own. Nothing else: what a datagram is and
//! which nonces are used stays in `holeshot_wire`, which remains free of C, assembler and randomness, all of which ring has.
//!
//! The host and `holeshot_client` seal with it. A program that links `holeshot_wire` alone and seals much takes it like this:
//!
//! ```
//! use holeshot_seal::RingCipher;
//! use holeshot_wire::SessionKeys;
//!
//! fn sides(keys: SessionKeys, session: u32) {
//!     let (_sealer, _opener) = keys.into_client_with::<RingCipher>(session);
//! }
//! ```
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use std::fmt;

use holeshot_wire::cipher::NONCE_BYTES;
use holeshot_wire::datagram::{HEADER_BYTES, PAYLOAD_BYTES_MAX, TAG_BYTES};
use holeshot_wire::handshake::KEY_BYTES;
use holeshot_wire::{Cipher, PortableCipher};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// ring's ChaCha20-Poly1305. Keeps the key's 32 bytes and gives them to ring for each datagram, which takes 20 to 30 ns: ring's own key has 544 bytes for any of its
/// ciphers, and a host has two for each of thousands of sessions. Does not clear the key when it is dropped, as [`PortableCipher`] does: ring leaves copies anyway.
pub struct RingCipher {
    key: [u8; KEY_BYTES],
}

impl RingCipher {
    /// ring's key. None only if ring refuses it, which it does for keys of another length alone.
    fn key(&self) -> Option<LessSafeKey> {
        UnboundKey::new(&CHACHA20_POLY1305, &self.key).ok().map(LessSafeKey::new)
    }
}

impl Cipher for RingCipher {
    fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self { key: *key }
    }

    fn seal(&self, nonce: &[u8; NONCE_BYTES], header: &[u8], payload: &mut [u8]) -> Option<[u8; TAG_BYTES]> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self.key()?.seal_in_place_separate_tag(nonce, Aad::from(header), payload).ok()?;
        tag.as_ref().try_into().ok()
    }

    fn open<'a>(&self, nonce: &[u8; NONCE_BYTES], header: &[u8], sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.key()?.open_in_place(nonce, Aad::from(header), sealed).ok().map(|payload| &*payload)
    }
}

impl fmt::Debug for RingCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RingCipher(secret)")
    }
}

/// Two implementations of the AEAD do not agree. One of them is miscompiled, or runs on a machine that does not do what it says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "ring and chacha20poly1305 seal a payload of {payload_bytes} bytes differently, or do not open each other's: this build is broken for this machine; \
     build it again here, and report it if that does not help"
)]
pub struct SelfTestError {
    /// The size of the payload, in bytes.
    pub payload_bytes: usize,
}

/// Payloads that the self-test seals, in bytes: around the blocks of Poly1305 (16) and ChaCha20 (64), around the 2 to 16 blocks that vector code takes at a
/// time, and the largest.
const SELF_TEST_PAYLOAD_BYTES: [usize; 16] =
    [1, 15, 16, 17, 63, 64, 65, 127, 191, 255, 256, 320, 512, 641, 1_024, PAYLOAD_BYTES_MAX];

/// Whether the two implementations that the programs of this workspace use agree on this machine: each seals what the other opens, to the same bytes,
/// and neither opens an altered datagram. Both choose their code by what the processor says of itself, so that is worth asking where they run, and
/// not only where they were built. Takes less than 0.2 ms.
///
/// # Errors
/// [`SelfTestError`] with the first size at which they differ.
pub fn self_test() -> Result<(), SelfTestError> {
    let key = std::array::from_fn(|index| index as u8);
    agree(&RingCipher::new(&key), &PortableCipher::new(&key))
}

fn agree(one: &impl Cipher, other: &impl Cipher) -> Result<(), SelfTestError> {
    for payload_bytes in SELF_TEST_PAYLOAD_BYTES {
        let payload: Vec<u8> = (0..payload_bytes).map(|index| index as u8).collect();
        let nonce = [payload_bytes as u8; NONCE_BYTES];
        let (by_one, by_other) = (sealed(one, &nonce, &payload), sealed(other, &nonce, &payload));
        let datagram = by_one.clone().unwrap_or_default();
        let mut altered = datagram.clone();
        altered.iter_mut().take(1).for_each(|byte| *byte ^= 1);
        let good = by_one.is_some()
            && by_one == by_other
            && opened(one, &nonce, datagram.clone()).as_ref() == Some(&payload)
            && opened(other, &nonce, datagram).as_ref() == Some(&payload)
            && opened(one, &nonce, altered.clone()).is_none()
            && opened(other, &nonce, altered).is_none();
        if !good {
            return Err(SelfTestError { payload_bytes });
        }
    }
    Ok(())
}

const SELF_TEST_HEADER: [u8; HEADER_BYTES] = [1; HEADER_BYTES];

fn sealed(cipher: &impl Cipher, nonce: &[u8; NONCE_BYTES], payload: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = payload.to_vec();
    let tag = cipher.seal(nonce, &SELF_TEST_HEADER, &mut bytes)?;
    bytes.extend_from_slice(&tag);
    Some(bytes)
}

fn opened(cipher: &impl Cipher, nonce: &[u8; NONCE_BYTES], mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    cipher.open(nonce, &SELF_TEST_HEADER, &mut bytes).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As ring's, but wrong in one bit from the second block of ChaCha20 on.
    struct Miscompiled(RingCipher);

    impl Cipher for Miscompiled {
        fn new(key: &[u8; KEY_BYTES]) -> Self {
            Self(RingCipher::new(key))
        }

        fn seal(&self, nonce: &[u8; NONCE_BYTES], header: &[u8], payload: &mut [u8]) -> Option<[u8; TAG_BYTES]> {
            payload.iter_mut().skip(64).take(1).for_each(|byte| *byte ^= 0x80);
            self.0.seal(nonce, header, payload)
        }

        fn open<'a>(&self, nonce: &[u8; NONCE_BYTES], header: &[u8], sealed: &'a mut [u8]) -> Option<&'a [u8]> {
            self.0.open(nonce, header, sealed)
        }
    }

    /// As ring's, but whatever the tag is, it opens.
    struct Credulous(RingCipher);

    impl Cipher for Credulous {
        fn new(key: &[u8; KEY_BYTES]) -> Self {
            Self(RingCipher::new(key))
        }

        fn seal(&self, nonce: &[u8; NONCE_BYTES], header: &[u8], payload: &mut [u8]) -> Option<[u8; TAG_BYTES]> {
            self.0.seal(nonce, header, payload)
        }

        fn open<'a>(&self, nonce: &[u8; NONCE_BYTES], header: &[u8], sealed: &'a mut [u8]) -> Option<&'a [u8]> {
            let (payload, _) = sealed.split_last_chunk_mut::<TAG_BYTES>()?;
            self.0.seal(nonce, header, payload)?;
            Some(payload)
        }
    }

    #[test]
    fn the_self_test_finds_what_is_wrong() {
        let key = [7; KEY_BYTES];
        assert_eq!(self_test(), Ok(()));
        assert_eq!(
            agree(&Miscompiled::new(&key), &PortableCipher::new(&key)),
            Err(SelfTestError { payload_bytes: 65 })
        );
        assert_eq!(agree(&PortableCipher::new(&key), &Credulous::new(&key)), Err(SelfTestError { payload_bytes: 1 }));
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", RingCipher::new(&[7; KEY_BYTES])), "RingCipher(secret)");
    }

    proptest! {
        /// Whatever is sealed: the same bytes, each opens the other's, and neither opens it with one bit flipped anywhere.
        #[test]
        fn it_agrees_with_chacha20poly1305(
            key: [u8; KEY_BYTES],
            nonce: [u8; NONCE_BYTES],
            header in proptest::collection::vec(any::<u8>(), 0..64),
            payload in proptest::collection::vec(any::<u8>(), 0..=PAYLOAD_BYTES_MAX),
            flip in any::<proptest::sample::Index>(),
        ) {
            let (ring, portable) = (RingCipher::new(&key), PortableCipher::new(&key));
            let (mut one, mut other) = (payload.clone(), payload.clone());
            let tag = ring.seal(&nonce, &header, &mut one).unwrap();
            prop_assert_eq!(portable.seal(&nonce, &header, &mut other), Some(tag));
            prop_assert_eq!(&one, &other);
            one.extend_from_slice(&tag);
            let mut altered = one.clone();
            let bit = flip.index(altered.len() * 8);
            altered[bit / 8] ^= 1 << (bit % 8);
            let (mut to_ring, mut altered_for_ring) = (one.clone(), altered.clone());
            prop_assert_eq!(ring.open(&nonce, &header, &mut to_ring), Some(&payload[..]));
            prop_assert_eq!(portable.open(&nonce, &header, &mut one), Some(&payload[..]));
            prop_assert_eq!(ring.open(&nonce, &header, &mut altered_for_ring), None);
            prop_assert_eq!(portable.open(&nonce, &header, &mut altered), None);
        }
    }
}
