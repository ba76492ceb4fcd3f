//! Tickets: the signed permission to open a session. A ticket is a JSON Web Token (RFC 7519) signed with HMAC-SHA-256.
//!
//! | claim | meaning |
//! | --- | --- |
//! | `iss` | the host's id |
//! | `sub` | the name of the player or spectator |
//! | `room` | the room |
//! | `player` | the player's slot in it; absent for a spectator, who sees the room and plays no part in it |
//! | `iat`, `exp` | seconds since 1970: when it was made, and until when it opens a session |
//! | `jti` | its own id |

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

/// What a ticket says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The host's id.
    pub iss: String,
    /// The name of the player or spectator.
    pub sub: String,
    /// The room.
    pub room: String,
    /// The player's slot; `None` for a spectator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub player: Option<u16>,
    /// Made at, in seconds since 1970.
    pub iat: u64,
    /// Opens sessions until, in seconds since 1970.
    pub exp: u64,
    /// The ticket's id.
    pub jti: String,
}

/// Length of the longest ticket that is looked at, in bytes: a name of 64 bytes and ids take 500.
pub const TICKET_BYTES_MAX: usize = 2048;

/// Why a ticket opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It is not a token, or somebody else signed or changed it.
    #[error("the ticket is not valid: {0}. Ask the host for one with POST /api/rooms/{{room}}/join")]
    Invalid(String),
    /// Its time is over.
    #[error("the ticket expired {0} s ago; ask the host for a new one with POST /api/rooms/{{room}}/join")]
    Expired(u64),
    /// Another host made it.
    #[error("the ticket is for the host {0}, not for this one")]
    OtherHost(String),
    /// It could not be signed.
    #[error("the ticket could not be signed: {0}")]
    Signing(String),
}

/// Signs and checks tickets.
pub struct Tickets {
    host_id: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").field("host_id", &self.host_id).finish_non_exhaustive()
    }
}

impl Tickets {
    /// Tickets of a host with its key.
    #[must_use]
    pub fn new(host_id: &str, key: &[u8; 32]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // The time is checked here against the caller's clock; the library would read the machine's, with a leeway of a minute.
        validation.validate_exp = false;
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        Self {
            host_id: host_id.to_owned(),
            encoding: EncodingKey::from_secret(key),
            decoding: DecodingKey::from_secret(key),
            validation,
        }
    }

    /// Signs a ticket that opens sessions for `lifetime_s` seconds from `now_s`.
    ///
    /// # Errors
    /// [`TicketError::Signing`].
    pub fn sign(
        &self,
        room: &str,
        player: Option<u16>,
        name: &str,
        now_s: u64,
        lifetime_s: u64,
        id: String,
    ) -> Result<String, TicketError> {
        let claims = Claims {
            iss: self.host_id.clone(),
            sub: name.to_owned(),
            room: room.to_owned(),
            player,
            iat: now_s,
            exp: now_s.saturating_add(lifetime_s),
            jti: id,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map_err(|error| TicketError::Signing(error.to_string()))
    }

    /// Checks a ticket at the time `now_s`.
    ///
    /// # Errors
    /// Why it opens nothing.
    pub fn check(&self, ticket: &str, now_s: u64) -> Result<Claims, TicketError> {
        if ticket.len() > TICKET_BYTES_MAX {
            return Err(TicketError::Invalid(format!("{} bytes, more than {TICKET_BYTES_MAX}", ticket.len())));
        }
        let claims = jsonwebtoken::decode::<Claims>(ticket, &self.decoding, &self.validation)
            .map_err(|error| TicketError::Invalid(error.to_string()))?
            .claims;
        if claims.iss != self.host_id {
            return Err(TicketError::OtherHost(claims.iss));
        }
        match now_s.checked_sub(claims.exp) {
            Some(late_s) => Err(TicketError::Expired(late_s)),
            None => Ok(claims),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    fn tickets() -> Tickets {
        Tickets::new("host-a", &[7; 32])
    }

    fn ticket() -> String {
        tickets().sign("room-1", Some(1), "Ada", 1_000, 60, "t1".into()).unwrap()
    }

    #[test]
    fn a_ticket_opens_until_it_expires() {
        let claims = tickets().check(&ticket(), 1_059).unwrap();
        assert_eq!((claims.room.as_str(), claims.player, claims.sub.as_str()), ("room-1", Some(1), "Ada"));
        let watcher = tickets().sign("room-1", None, "Eve", 1_000, 60, "t2".into()).unwrap();
        assert_eq!(tickets().check(&watcher, 1_000).unwrap().player, None);
        assert_eq!(tickets().check(&ticket(), 1_060), Err(TicketError::Expired(0)));
    }

    #[test]
    fn a_ticket_of_another_key_or_host_is_refused() {
        assert!(matches!(Tickets::new("host-a", &[8; 32]).check(&ticket(), 1_000), Err(TicketError::Invalid(_))));
        let other = Tickets::new("host-b", &[7; 32]).check(&ticket(), 1_000);
        assert_eq!(other, Err(TicketError::OtherHost("host-a".into())));
    }

    #[test]
    fn every_changed_character_and_every_cut_is_refused() {
        let good = ticket();
        for at in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            // The last character of a base64 text carries bits that decode to nothing; a strict decoder refuses those too.
            assert!(tickets().check(&changed, 1_000).is_err(), "changed at {at}");
            assert!(tickets().check(&good[..at], 1_000).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn an_unsigned_token_is_refused() {
        let claims = URL_SAFE_NO_PAD.decode(ticket().split('.').nth(1).unwrap()).unwrap();
        for algorithm in ["none", "HS512", "RS256"] {
            let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"{algorithm}\",\"typ\":\"JWT\"}}"));
            let token = format!("{header}.{}.", URL_SAFE_NO_PAD.encode(&claims));
            assert!(matches!(tickets().check(&token, 1_000), Err(TicketError::Invalid(_))), "{algorithm}");
        }
        assert!(matches!(tickets().check(&"x".repeat(3_000), 1_000), Err(TicketError::Invalid(_))));
    }
}
