//! Tickets and the keys that they are checked with: whatever is in a ticket, it opens a session only for this host, within its time, and signed with a
//! key of this host's or of one of its matchmakers.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holeshot::doors::tickets::keys::{KEYS_MAX, KeySet};
use holeshot::doors::tickets::{Bounds, CLAIM_BYTES_MAX, NewTicket, TICKET_BYTES_MAX, Ticket, TicketError, Tickets};
use holeshot_abi::{PLAYER_DATA_BYTES_MAX, PLAYER_NAME_BYTES_MAX};
use jsonwebtoken::{Algorithm, EncodingKey};

use crate::take::Take;

/// The host that the targets' tickets are for.
pub const HOST: &str = "host-pit";
/// Its key.
pub const HOST_KEY: [u8; 32] = [7; 32];
/// The secret of the matchmaker `mm`.
pub const MATCHMAKER_KEY: [u8; 32] = [5; 32];
/// The time, in seconds since 1970.
pub const NOW_S: u64 = 1_795_000_000;
/// What the host allows.
pub const BOUNDS: Bounds = Bounds { lifetime_max_s: 86_400, leeway_s: 5 };
/// Length of the longest error in bytes: it is a session's refusal.
const ERROR_BYTES_MAX: usize = 4_096;

/// The keys of the matchmakers `mm` (HMAC) and `ed` (Ed25519: the first vector of RFC 8032, section 7.1).
pub const KEYS: &str = r#"{"keys":[
{"kty":"oct","kid":"mm","alg":"HS256","k":"BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU"},
{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// The private key of `ed` in PKCS #8 (RFC 8410, section 7).
const ED_PRIVATE: [u8; 48] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20, //
    0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, //
    0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
];

fn matchmakers() -> KeySet {
    holeshot::fuzzing::ticket_keys(KEYS.as_bytes()).expect("the keys above can be read")
}

static OURS: LazyLock<Tickets> = LazyLock::new(|| Tickets::new(HOST, &HOST_KEY, matchmakers(), BOUNDS));
static NO_KEYS: LazyLock<Tickets> = LazyLock::new(|| Tickets::new(HOST, &[8; 32], KeySet::default(), BOUNDS));

pub(crate) fn target(input: &[u8]) {
    match written(input) {
        Some(ticket) => check(&ticket),
        None => keys(&input[1..]),
    }
}

/// The ticket that an input of this target means; none if it means a file of keys.
#[must_use]
pub fn written(input: &[u8]) -> Option<String> {
    let mut input = Take(input);
    let (key, algorithm) = match input.u8() % 5 {
        0 => return Some(String::from_utf8_lossy(input.rest()).into_owned()),
        1 => return None,
        // Somebody's own way to write one, with the right key.
        2 => (EncodingKey::from_secret(&HOST_KEY), Algorithm::HS256),
        3 => (EncodingKey::from_secret(&MATCHMAKER_KEY), Algorithm::HS256),
        _ => (EncodingKey::from_ed_der(&ED_PRIVATE), Algorithm::EdDSA),
    };
    let header = input.piece();
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(input.rest()));
    let signature = jsonwebtoken::crypto::sign(text.as_bytes(), &key, algorithm).expect("the keys are good");
    Some(format!("{text}.{signature}"))
}

fn check(ticket: &str) {
    let found = match OURS.check(ticket, NOW_S) {
        Ok(found) => found,
        Err(error) => {
            let words = error.to_string().len();
            return assert!(words <= ERROR_BYTES_MAX, "{words} bytes of error");
        }
    };
    let Ticket { name, room, player, data, iat_s, exp_s, .. } = &found;
    assert!(ticket.len() <= TICKET_BYTES_MAX);
    assert!((1..=PLAYER_NAME_BYTES_MAX).contains(&name.len()) && (1..=CLAIM_BYTES_MAX).contains(&room.len()));
    assert!(data.as_ref().is_none_or(|data| data.len() <= PLAYER_DATA_BYTES_MAX && player.is_some()));
    let leeway_s = u64::from(BOUNDS.leeway_s);
    assert!(*exp_s + leeway_s > NOW_S);
    assert!(matches!(OURS.check(ticket, exp_s + leeway_s), Err(TicketError::Expired(_))));
    assert!(matches!(NO_KEYS.check(ticket, NOW_S), Err(TicketError::Invalid(_) | TicketError::UnknownKey(_))));
    // Any other signature is none.
    let (signed, signature) = ticket.rsplit_once('.').expect("a ticket has three parts");
    let flipped: String = signature.chars().map(|c| if c == 'A' { 'B' } else { 'A' }).collect();
    for forged in [format!("{signed}."), format!("{signed}.{flipped}"), signed.to_owned()] {
        assert!(matches!(OURS.check(&forged, NOW_S), Err(TicketError::Invalid(_))));
    }
    OURS.pass(&found, NOW_S).expect("a client can come back with what was read");
    // The host's own way to write the same.
    let value = data.as_ref().map(|data| serde_json::from_str(data).expect("data is JSON"));
    // One of the host's own may end before it was made, if the clock was set back meanwhile; a new one never does.
    let lifetime_s = exp_s.saturating_sub(*iat_s).max(1);
    let new = NewTicket { room, player: *player, name, data: value.as_ref(), lifetime_s };
    match OURS.sign(&new, NOW_S) {
        Ok(again) => {
            let read = OURS.check(&again.ticket, NOW_S).expect("a ticket just signed is good");
            assert_eq!((&read.room, &read.name, read.player, &read.data), (room, name, *player, data));
        }
        Err(error) => assert!(matches!(error, TicketError::TooLong { .. }), "{error}"),
    }
}

/// A file of keys that is taken has some, and no more than there may be; one that is not is told in words.
fn keys(file: &[u8]) {
    match holeshot::fuzzing::ticket_keys(file) {
        Ok(keys) => assert!(keys.len() <= KEYS_MAX),
        Err(error) => assert!(error.to_string().len() <= ERROR_BYTES_MAX, "{error}"),
    }
}
