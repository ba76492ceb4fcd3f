//! The session keys: a Noise handshake whose two messages ride in `hello` and `welcome`, and the host's static
//! key pair that it rests on. How the keys are used is in [`crate::datagram`].
//!
//! # Specification
//!
//! The handshake is `Noise_NK_25519_ChaChaPoly_BLAKE2s` (The Noise Protocol Framework, revision 34). The client is
//! the initiator and knows the host's static public key beforehand: it comes with the ticket.
//!
//! - **Prologue**: the ASCII bytes `holeshot/1`, one line feed (0x0A), then the bytes of the ticket exactly as they
//!   stand in `hello.ticket`. So a handshake message counts for one protocol version and one ticket only.
//! - **Message 1**, client to host, `e, es` with an empty payload: 32 + 16 = 48 bytes.
//! - **Message 2**, host to client, `e, ee` with an empty payload: 32 + 16 = 48 bytes.
//! - In JSON a message is written in base64 with the URL-safe alphabet and without padding (RFC 4648 section 5):
//!   64 characters. Anything else is refused.
//! - `Split()` gives two keys of 32 bytes: the first seals datagrams from the client to the host, the second those
//!   from the host to the client.
//!
//! What it gives: datagrams that only this client and the holder of the host's private key can make or read, also
//! if that private key leaks later. What it does not give: proof of who the client is (the ticket does that), and
//! protection of the WebSocket itself (TLS does that).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{BoxedCryptoResolver, CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};

use crate::datagram::{Opener, Sealer};

/// The size of a key, in bytes: private, public and sealing keys alike.
pub const KEY_BYTES: usize = 32;

/// The size of either handshake message, in bytes: an X25519 key and a Poly1305 tag.
pub const HANDSHAKE_MESSAGE_BYTES: usize = 48;

const NOISE_NAME: &str = "Noise_NK_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE_START: &[u8] = b"holeshot/1\n";

/// Why a handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The peer's message does not fit: it was made for another host key, another ticket or another protocol
    /// version, or it was altered on the way.
    #[error(
        "the peer's handshake message does not fit this key, ticket and protocol version; ask for a new ticket \
         and check the host's public key"
    )]
    Mismatch,
    /// The text is not 64 characters of URL-safe base64 without padding.
    #[error("a handshake message is 64 characters of URL-safe base64 without padding; got {chars} characters")]
    Encoding {
        /// How long the text was, in characters.
        chars: usize,
    },
    /// The Noise implementation refused to start. A fault in the build, never in the peer's bytes.
    #[error("the Noise implementation could not start a handshake: {0}")]
    Setup(String),
}

/// One handshake message: 48 bytes, written in JSON as 64 characters of base64.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HandshakeMessage(pub [u8; HANDSHAKE_MESSAGE_BYTES]);

impl HandshakeMessage {
    /// The text that stands in `hello.noise` and `welcome.noise`.
    pub fn to_base64(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Reads that text. Errors: [`HandshakeError::Encoding`].
    pub fn from_base64(text: &str) -> Result<Self, HandshakeError> {
        let refused = HandshakeError::Encoding { chars: text.chars().count() };
        // The length first: nothing is decoded, or given memory, that cannot be a message.
        if text.len() != HANDSHAKE_MESSAGE_BYTES / 3 * 4 {
            return Err(refused);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| refused.clone())?;
        bytes.try_into().map(Self).map_err(|_| refused)
    }
}

impl fmt::Debug for HandshakeMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandshakeMessage({})", self.to_base64())
    }
}

/// The host's static key pair (X25519). The public half goes out with every ticket, the private half stays in the
/// host's state directory.
#[derive(Clone)]
pub struct HostKeypair {
    private: [u8; KEY_BYTES],
    public: [u8; KEY_BYTES],
}

impl HostKeypair {
    /// The pair whose private key is these 32 bytes: fresh random ones for a new host, saved ones for a host that
    /// starts again. Any 32 bytes are a valid private key (RFC 7748 section 5 clamps them).
    pub fn from_private(private: [u8; KEY_BYTES]) -> Result<Self, HandshakeError> {
        let mut dh = DefaultResolver
            .resolve_dh(&DHChoice::Curve25519)
            .ok_or_else(|| HandshakeError::Setup("no X25519 in this build".into()))?;
        dh.set(&private);
        let public =
            dh.pubkey().try_into().map_err(|_| HandshakeError::Setup("an X25519 public key is not 32 bytes".into()))?;
        Ok(Self { private, public })
    }

    /// The public key: what a client must know before it connects.
    pub fn public(&self) -> [u8; KEY_BYTES] {
        self.public
    }

    /// The private key, to be saved where only the host can read it.
    pub fn private(&self) -> &[u8; KEY_BYTES] {
        &self.private
    }
}

impl fmt::Debug for HostKeypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostKeypair").field("public", &URL_SAFE_NO_PAD.encode(self.public)).finish_non_exhaustive()
    }
}

/// The two keys of one session. They can be used once: taking them apart gives the one [`Sealer`] and the one
/// [`Opener`] of this side, so that no sequence number is used twice under a key.
pub struct SessionKeys {
    client_to_host: [u8; KEY_BYTES],
    host_to_client: [u8; KEY_BYTES],
}

impl SessionKeys {
    /// The client's side: seals to the host, opens what the host sealed. `session` is `welcome.session`.
    pub fn into_client(self, session: u32) -> (Sealer, Opener) {
        self.into_client_with(session)
    }

    /// The host's side: seals to the client, opens what the client sealed.
    pub fn into_host(self, session: u32) -> (Sealer, Opener) {
        self.into_host_with(session)
    }

    /// [`SessionKeys::into_client`] with another implementation of the AEAD.
    pub fn into_client_with<C: crate::Cipher>(self, session: u32) -> (Sealer<C>, Opener<C>) {
        (Sealer::new(session, &self.client_to_host), Opener::new(session, &self.host_to_client))
    }

    /// [`SessionKeys::into_host`] with another implementation of the AEAD.
    pub fn into_host_with<C: crate::Cipher>(self, session: u32) -> (Sealer<C>, Opener<C>) {
        (Sealer::new(session, &self.host_to_client), Opener::new(session, &self.client_to_host))
    }
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKeys(secret)")
    }
}

/// The client's half-done handshake: message 1 is made, message 2 is awaited.
pub struct ClientHandshake {
    state: snow::HandshakeState,
}

impl ClientHandshake {
    /// Starts a handshake with the host that has this public key. `random` must be 32 fresh random bytes: they
    /// become the client's ephemeral private key. Gives the state to keep and message 1 for `hello.noise`.
    ///
    /// Errors: [`HandshakeError::Setup`].
    pub fn start(
        host_key: &[u8; KEY_BYTES],
        ticket: &str,
        random: [u8; KEY_BYTES],
    ) -> Result<(Self, HandshakeMessage), HandshakeError> {
        let prologue = prologue(ticket);
        let mut state = builder(random)?
            .prologue(&prologue)
            .and_then(|builder| builder.remote_public_key(host_key))
            .and_then(|builder| builder.build_initiator())
            .map_err(setup)?;
        let message = write(&mut state)?;
        Ok((Self { state }, message))
    }

    /// Takes message 2 from `welcome.noise` and gives the session's keys.
    ///
    /// Errors: [`HandshakeError::Mismatch`] if the host does not hold the private key, or saw another ticket.
    pub fn finish(mut self, message_2: &HandshakeMessage) -> Result<SessionKeys, HandshakeError> {
        read(&mut self.state, message_2)?;
        Ok(split(self.state))
    }
}

impl fmt::Debug for ClientHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientHandshake(secret)")
    }
}

/// The host's whole side of a handshake: takes message 1 from `hello.noise`, gives the session's keys and message
/// 2 for `welcome.noise`. `random` must be 32 fresh random bytes: they become the host's ephemeral private key.
/// Verify the ticket first: it is cheaper to refuse than a handshake.
///
/// Errors: [`HandshakeError::Mismatch`] if message 1 was made for another host, ticket or protocol version.
pub fn accept(
    host: &HostKeypair,
    ticket: &str,
    message_1: &HandshakeMessage,
    random: [u8; KEY_BYTES],
) -> Result<(SessionKeys, HandshakeMessage), HandshakeError> {
    let prologue = prologue(ticket);
    let mut state = builder(random)?
        .prologue(&prologue)
        .and_then(|builder| builder.local_private_key(&host.private))
        .and_then(|builder| builder.build_responder())
        .map_err(setup)?;
    read(&mut state, message_1)?;
    let message_2 = write(&mut state)?;
    Ok((split(state), message_2))
}

fn prologue(ticket: &str) -> Vec<u8> {
    [PROLOGUE_START, ticket.as_bytes()].concat()
}

fn setup(error: snow::Error) -> HandshakeError {
    HandshakeError::Setup(error.to_string())
}

fn builder<'a>(random: [u8; KEY_BYTES]) -> Result<snow::Builder<'a>, HandshakeError> {
    let params: NoiseParams = NOISE_NAME.parse().map_err(setup)?;
    let resolver: BoxedCryptoResolver = Box::new(GivenRandom { random });
    Ok(snow::Builder::with_resolver(params, resolver))
}

fn write(state: &mut snow::HandshakeState) -> Result<HandshakeMessage, HandshakeError> {
    let mut message = [0; HANDSHAKE_MESSAGE_BYTES];
    let written = state.write_message(&[], &mut message).map_err(setup)?;
    if written != HANDSHAKE_MESSAGE_BYTES {
        return Err(HandshakeError::Setup(format!("a handshake message of {written} bytes")));
    }
    Ok(HandshakeMessage(message))
}

fn read(state: &mut snow::HandshakeState, message: &HandshakeMessage) -> Result<(), HandshakeError> {
    // The payload is empty, but snow wants room for the whole message.
    let mut payload = [0; HANDSHAKE_MESSAGE_BYTES];
    match state.read_message(&message.0, &mut payload) {
        Ok(0) => Ok(()),
        Ok(_) | Err(_) => Err(HandshakeError::Mismatch),
    }
}

fn split(mut state: snow::HandshakeState) -> SessionKeys {
    let (client_to_host, host_to_client) = state.dangerously_get_raw_split();
    SessionKeys { client_to_host, host_to_client }
}

/// snow asks its resolver for a source of randomness; this one has the 32 bytes that the caller gave, and no more.
struct GivenRandom {
    random: [u8; KEY_BYTES],
}

impl CryptoResolver for GivenRandom {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once { random: Some(self.random) }))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// Gives the bytes once, for the one ephemeral key of a side; a second request fails instead of repeating them.
struct Once {
    random: Option<[u8; KEY_BYTES]>,
}

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        match self.random.take() {
            Some(random) if dest.len() == random.len() => {
                dest.copy_from_slice(&random);
                Ok(())
            }
            _ => Err(snow::Error::Rng),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKET: &str = "ticket.for.room-1";

    fn host() -> HostKeypair {
        HostKeypair::from_private([7; KEY_BYTES]).unwrap()
    }

    fn client(host_key: &[u8; KEY_BYTES], ticket: &str) -> (ClientHandshake, HandshakeMessage) {
        ClientHandshake::start(host_key, ticket, [8; KEY_BYTES]).unwrap()
    }

    #[test]
    fn both_sides_get_the_same_keys() {
        let (client, message_1) = client(&host().public(), TICKET);
        let (host_keys, message_2) = accept(&host(), TICKET, &message_1, [9; KEY_BYTES]).unwrap();
        let client_keys = client.finish(&message_2).unwrap();
        assert_eq!(client_keys.client_to_host, host_keys.client_to_host);
        assert_eq!(client_keys.host_to_client, host_keys.host_to_client);
        assert_ne!(client_keys.client_to_host, client_keys.host_to_client);
    }

    #[test]
    fn other_random_bytes_give_other_keys() {
        let (_, message_1) = client(&host().public(), TICKET);
        let (one, _) = accept(&host(), TICKET, &message_1, [9; KEY_BYTES]).unwrap();
        let (two, _) = accept(&host(), TICKET, &message_1, [10; KEY_BYTES]).unwrap();
        assert_ne!(one.client_to_host, two.client_to_host);
    }

    #[test]
    fn a_client_with_another_host_key_is_refused() {
        let other = HostKeypair::from_private([70; KEY_BYTES]).unwrap();
        let (_, message_1) = client(&other.public(), TICKET);
        let refused = accept(&host(), TICKET, &message_1, [9; KEY_BYTES]).unwrap_err();
        assert_eq!(refused, HandshakeError::Mismatch);
    }

    #[test]
    fn a_handshake_cannot_be_moved_to_another_ticket() {
        for ticket in ["", "ticket.for.room-2", "ticket.for.room-1\0", "ticket.for.room-"] {
            let (_, message_1) = client(&host().public(), TICKET);
            let refused = accept(&host(), ticket, &message_1, [9; KEY_BYTES]).unwrap_err();
            assert_eq!(refused, HandshakeError::Mismatch, "{ticket:?}");
        }
    }

    #[test]
    fn another_protocol_version_is_another_handshake() {
        // The same client, but with the prologue of a version 2.
        let prologue = format!("holeshot/2\n{TICKET}");
        let key = host().public();
        let mut state = builder([8; KEY_BYTES])
            .unwrap()
            .prologue(prologue.as_bytes())
            .unwrap()
            .remote_public_key(&key)
            .unwrap()
            .build_initiator()
            .unwrap();
        let message_1 = write(&mut state).unwrap();
        let refused = accept(&host(), TICKET, &message_1, [9; KEY_BYTES]).unwrap_err();
        assert_eq!(refused, HandshakeError::Mismatch);
    }

    #[test]
    fn only_the_holder_of_the_private_key_can_answer() {
        let impostor = HostKeypair::from_private([70; KEY_BYTES]).unwrap();
        let (at_impostor, message_1) = client(&host().public(), TICKET);
        assert!(accept(&impostor, TICKET, &message_1, [9; KEY_BYTES]).is_err());
        // Nor can it answer with a message that it made for somebody else.
        let (_, other_1) = client(&impostor.public(), TICKET);
        let (_, other_2) = accept(&impostor, TICKET, &other_1, [9; KEY_BYTES]).unwrap();
        assert_eq!(at_impostor.finish(&other_2).unwrap_err(), HandshakeError::Mismatch);
    }

    #[test]
    fn any_altered_byte_breaks_either_message() {
        for byte in 0..HANDSHAKE_MESSAGE_BYTES {
            // The top bit of an X25519 key is not used (RFC 7748), but Noise hashes the key as it was sent.
            for bit in [0, 7] {
                let (state, mut message_1) = client(&host().public(), TICKET);
                let (_, mut message_2) = accept(&host(), TICKET, &message_1, [9; KEY_BYTES]).unwrap();
                message_1.0[byte] ^= 1 << bit;
                message_2.0[byte] ^= 1 << bit;
                let at = format!("bit {bit} of byte {byte}");
                assert!(accept(&host(), TICKET, &message_1, [9; KEY_BYTES]).is_err(), "{at}");
                assert!(state.finish(&message_2).is_err(), "{at}");
            }
        }
    }

    #[test]
    fn base64_is_read_strictly() {
        let (_, message) = client(&host().public(), TICKET);
        let text = message.to_base64();
        assert_eq!(text.len(), 64);
        assert_eq!(HandshakeMessage::from_base64(&text), Ok(message));
        let padded = format!("{text}==");
        let space = format!(" {}", &text[1..]);
        let standard = "+".repeat(64);
        let wide = "é".repeat(32);
        for wrong in ["", &text[1..], &padded, &space, &standard, &wide] {
            assert!(HandshakeMessage::from_base64(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let (state, message_1) = client(&host().public(), TICKET);
        let (keys, _) = accept(&host(), TICKET, &message_1, [9; KEY_BYTES]).unwrap();
        let printed = format!("{:?} {state:?} {keys:?}", host());
        let secrets = [
            URL_SAFE_NO_PAD.encode([7; KEY_BYTES]),
            URL_SAFE_NO_PAD.encode(keys.client_to_host),
            format!("{:?}", keys.client_to_host),
            format!("{:?}", [7u8; KEY_BYTES]),
        ];
        for secret in secrets {
            assert!(!printed.contains(&secret), "{printed}");
        }
        let (sealer, opener) = keys.into_host(1);
        assert_eq!(
            format!("{sealer:?} {opener:?}"),
            "Sealer { session: 1, next_sequence: 0, .. } Opener { session: 1, .. }"
        );
    }
}
