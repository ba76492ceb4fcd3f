//! What seals: the AEAD of [`crate::datagram`] as a trait, so that a program can bring the implementation that is fastest where it runs, and
//! the one that this crate brings itself. Which key, nonce and header a datagram has is decided there, and not by an implementation.
//!
//! [`PortableCipher`] is plain Rust without a C compiler or an assembler. On x86-64 machines with AVX2 it takes 1,370 ns to seal or open a payload of 64
//! bytes, 1,030 of them in the `poly1305` crate: that chooses its vector code when the program runs, and the code is not inlined, whatever the
//! profile. Programs that seal thousands of datagrams a second bring another, such as `holeshot_seal::RingCipher` (190 ns).

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, Tag};

use crate::datagram::TAG_BYTES;
use crate::handshake::KEY_BYTES;

/// The size of a nonce, in bytes (RFC 8439 section 2.8).
pub const NONCE_BYTES: usize = 12;

/// ChaCha20-Poly1305 as in RFC 8439 section 2.8, under one key.
///
/// # Contract
///
/// - Every implementation gives the same bytes. `holeshot_seal::self_test` compares two.
/// - It never looks at its key, nor compares a tag, in a time that depends on secrets.
/// - Nonces are the caller's business: [`crate::Sealer`] uses none twice.
pub trait Cipher: Sized {
    /// The cipher of this key. Whatever it can work out beforehand it works out here, and not for each datagram.
    fn new(key: &[u8; KEY_BYTES]) -> Self;

    /// Encrypts `payload` where it lies and gives the tag over it and `header`. None if it cannot; then `payload` is not to be used.
    fn seal(&self, nonce: &[u8; NONCE_BYTES], header: &[u8], payload: &mut [u8]) -> Option<[u8; TAG_BYTES]>;

    /// Decrypts what lies in front of the tag that ends `sealed`, where it lies, and gives it. None if the tag does not fit; then `sealed` is not to be used.
    fn open<'a>(&self, nonce: &[u8; NONCE_BYTES], header: &[u8], sealed: &'a mut [u8]) -> Option<&'a [u8]>;
}

/// The implementation that this crate brings: the `chacha20poly1305` crate. 32 bytes for a key, cleared when it is dropped.
#[derive(Debug)]
pub struct PortableCipher(ChaCha20Poly1305);

impl Cipher for PortableCipher {
    fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(ChaCha20Poly1305::new(key.into()))
    }

    fn seal(&self, nonce: &[u8; NONCE_BYTES], header: &[u8], payload: &mut [u8]) -> Option<[u8; TAG_BYTES]> {
        self.0.encrypt_inout_detached(&Nonce::from(*nonce), header, payload.into()).ok().map(Into::into)
    }

    fn open<'a>(&self, nonce: &[u8; NONCE_BYTES], header: &[u8], sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let (payload, tag) = sealed.split_last_chunk_mut::<TAG_BYTES>()?;
        let tag = Tag::from(*tag);
        self.0.decrypt_inout_detached(&Nonce::from(*nonce), header, (&mut *payload).into(), &tag).ok()?;
        Some(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8439 section 2.8.2.
    #[test]
    fn the_example_of_the_rfc() {
        const TEXT: &[u8] =
            b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
            sunscreen would be it.";
        let key = std::array::from_fn(|index| 0x80 + index as u8);
        let nonce = [0x07, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
        let header = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let cipher = PortableCipher::new(&key);
        let mut bytes = TEXT.to_vec();
        let tag = cipher.seal(&nonce, &header, &mut bytes).unwrap();
        let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert_eq!(
            hex(&bytes),
            "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b\
             1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc\
             3ff4def08e4b7a9de576d26586cec64b6116"
        );
        assert_eq!(hex(&tag), "1ae10b594f09e26a7e902ecbd0600691");
        bytes.extend_from_slice(&tag);
        assert_eq!(cipher.open(&nonce, &header, &mut bytes), Some(TEXT));
    }

    #[test]
    fn what_has_no_room_for_a_tag_does_not_open() {
        let cipher = PortableCipher::new(&[1; KEY_BYTES]);
        for bytes in 0..=TAG_BYTES {
            assert_eq!(cipher.open(&[0; NONCE_BYTES], b"", &mut vec![0; bytes]), None);
        }
    }
}
