//! Tickets: whatever is in one, it opens a session only for this host, before it expires, and signed with this host's key.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holeshot::doors::tickets::{TICKET_BYTES_MAX, TicketError, Tickets};
use jsonwebtoken::{Algorithm, EncodingKey};

use crate::take::Take;

const HOST: &str = "pit";
const KEY: [u8; 32] = [7; 32];
const NOW_S: u64 = 1_795_000_000;
/// Length of the longest error in bytes: it is a session's refusal.
const ERROR_BYTES_MAX: usize = 4_096;

static OURS: LazyLock<Tickets> = LazyLock::new(|| Tickets::new(HOST, &KEY));
static OTHER_KEY: LazyLock<Tickets> = LazyLock::new(|| Tickets::new(HOST, &[8; 32]));
static OTHER_HOST: LazyLock<Tickets> = LazyLock::new(|| Tickets::new("paddock", &KEY));

pub(crate) fn target(input: &[u8]) {
    let mut input = Take(input);
    match input.u8() % 2 {
        0 => {
            let Ok(ticket) = std::str::from_utf8(input.rest()) else { return };
            check(ticket);
        }
        // A matchmaker's own way to write one, with the right key.
        _ => {
            let header = input.piece();
            let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(input.rest()));
            let key = EncodingKey::from_secret(&KEY);
            let Ok(signature) = jsonwebtoken::crypto::sign(text.as_bytes(), &key, Algorithm::HS256) else { return };
            check(&format!("{text}.{signature}"));
        }
    }
}

fn check(ticket: &str) {
    let claims = match OURS.check(ticket, NOW_S) {
        Ok(claims) => claims,
        Err(error) => {
            assert!(error.to_string().len() <= ERROR_BYTES_MAX, "{} bytes of error", error.to_string().len());
            return;
        }
    };
    assert!(ticket.len() <= TICKET_BYTES_MAX && claims.iss == HOST && claims.exp > NOW_S);
    assert!(matches!(OURS.check(ticket, claims.exp), Err(TicketError::Expired(0))));
    assert!(matches!(OTHER_KEY.check(ticket, NOW_S), Err(TicketError::Invalid(_))));
    assert_eq!(OTHER_HOST.check(ticket, NOW_S), Err(TicketError::OtherHost(HOST.into())));
    // Any other signature is none.
    let (signed, signature) = ticket.rsplit_once('.').expect("a ticket has three parts");
    let flipped: String = signature.chars().map(|c| if c == 'A' { 'B' } else { 'A' }).collect();
    for forged in [format!("{signed}."), format!("{signed}.{flipped}"), signed.to_owned()] {
        assert!(matches!(OURS.check(&forged, NOW_S), Err(TicketError::Invalid(_))));
    }
    // The host's own way to write the same.
    let lifetime_s = claims.exp - NOW_S;
    let again = OURS.sign(&claims.room, claims.player, &claims.sub, NOW_S, lifetime_s, claims.jti.clone());
    let again = again.expect("claims that were read can be signed");
    if again.len() <= TICKET_BYTES_MAX {
        let read = OURS.check(&again, NOW_S).expect("a ticket just signed is good");
        assert_eq!(read, holeshot::doors::tickets::Claims { iat: NOW_S, ..claims });
    }
}
