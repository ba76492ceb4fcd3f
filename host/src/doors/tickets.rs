//! Tickets: the signed permission to open a session. What a ticket says, who may sign one, and how it is checked. Which tickets were used already
//! is known where the room is (`crate::shard`); the keys of matchmakers are in [`keys`].
//!
//! # Specification
//!
//! All that a matchmaker needs to mint tickets, in any language. The words are those of RFC 7519.
//!
//! A ticket is a JSON Web Token in the compact form (RFC 7515): `header.claims.signature`, each part in base64 for URLs without padding. It has at most
//! 2,048 bytes in all.
//!
//! The header is a JSON object:
//!
//! | field | meaning |
//! | --- | --- |
//! | `alg` | `HS256` (HMAC with SHA-256) or `EdDSA` (Ed25519, RFC 8037) |
//! | `kid` | names the key; at most 128 bytes. It may be absent if the key has none, or if the host was given no other key for `alg` |
//! | `crit` | must be absent |
//!
//! Other fields are ignored. A key has one algorithm: a ticket with another `alg` than its key's is refused, and so is `none`.
//!
//! The claims are a JSON object. Times are seconds since 1970 (`NumericDate`); a fraction is cut off.
//!
//! | claim | meaning |
//! | --- | --- |
//! | `iss` | who made it: a name of the matchmaker's choice, 1 to 64 bytes |
//! | `aud` | the id of the host that it is for, as `serve` prints it at its start (`host-…`), or a list of up to 8 such ids |
//! | `sub` | the name of the player or spectator, 1 to 64 bytes; a player's as it was given when the room was opened |
//! | `room` | the room's id, 1 to 64 bytes |
//! | `role` | `player` or `spectator` |
//! | `player` | the number of the player's slot, from 0, in the order in which the room was opened; absent for a spectator |
//! | `data` | JSON for the rules about this player (its car); may be absent, and is for players only. See below |
//! | `iat` | made at. Decides which of two tickets of a player is the newer |
//! | `nbf` | opens nothing before; may be absent |
//! | `exp` | opens nothing from then on; later than `iat`, by at most the host's setting `ticket_lifetime_max_s` (a day unless it is set) |
//! | `jti` | the ticket's own id, 1 to 128 bytes, no two alike of one `iss`; a UUID will do |
//!
//! Other claims are ignored. `iat` and `nbf` may be ahead of the host's clock, and `exp` behind it, by the setting `ticket_leeway_s` (5 s unless it is set).
//!
//! ## One use
//!
//! - A ticket opens one session. It is used up as soon as anything comes from that session, or after 10 s. Before that the same ticket may be
//!   shown again, and opens the session anew, under other keys: what the host had answered may have been lost on its way. So it never holds two sessions at once.
//! - A player has one session at a time. A ticket with a later `iat` than the one with which the present session began, or with the same `iat` and
//!   another `jti`, takes over: the session before ends at once (`replaced`). The room does not notice; events that were missed are sent again, if
//!   `after` asks for them. A ticket with an earlier `iat` is refused (`superseded_ticket`), one that is used up too (`used_ticket`); neither disturbs the session.
//! - `welcome` brings a ticket of the host's own (`resume`) for the same player, with which a client opens its session again after the connection was lost.
//!   It is used up as any ticket, and void as soon as another session of this player was opened with anything else. Each welcome brings another.
//! - All of this is forgotten when the room closes. Spectators' tickets are good for one use too; spectators do not displace each other.
//!
//! What that promises when a ticket was stolen: thief and owner never both play. Who comes first gets the session, the other is refused, so the owner notices
//! and asks for a newer ticket, which throws the thief out and cannot be answered by anything that the thief has. A thief who comes after the
//! owner gets nothing. Datagrams are sealed with keys that no ticket holds, so neither can read, repeat or continue the other's.
//!
//! ## Data
//!
//! `data` of a player's ticket replaces what the room was opened with for this player, as long as the room gathers its players: the rules begin anew with it.
//! If they refuse it, the session is refused with their words (`refused_by_rules`), the ticket is not used up, and the room is as before. Once the room has gathered its players,
//! `data` changes nothing, and is no error: a player who comes back with a newer ticket of another car goes on in the car of the race. A ticket without `data` leaves the
//! player's data alone.
//!
//! ## The host's own tickets
//!
//! They are as above, with `alg` `HS256`, the key's name `kid` `host`, the host's id as `iss` and `aud`, and in a `resume` ticket the claim `resume`: true, which has no
//! meaning in tickets of others. `iat` of one is never before that of one made earlier, whatever the clock does, and is not compared with the clock.

pub mod keys;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holeshot_abi::{PLAYER_DATA_BYTES_MAX, PLAYER_NAME_BYTES_MAX};
use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::shard::{Pass, TicketId};
use keys::{HOST_KID, KID_BYTES_MAX, KeySet, TicketKey};

/// Length of the longest ticket that is looked at, in bytes: that of the protocol. Ids and a name take 500, which leaves about 1,000 for data.
pub const TICKET_BYTES_MAX: usize = holeshot_wire::message::TICKET_BYTES_MAX;
/// Length of the longest `iss`, `sub`, `room` and audience, in bytes: that of names in the protocol.
pub const CLAIM_BYTES_MAX: usize = 64;
/// Length of the longest `jti`, in bytes: three times a UUID with a prefix.
pub const JTI_BYTES_MAX: usize = 128;
/// Hosts that one ticket may name: a room is on one of them; more is a ticket for everywhere.
pub const AUDIENCES_MAX: usize = 8;
/// How long a `resume` ticket is good, in seconds: a day, longer than any room. It dies with its room, and with the next session.
pub const RESUME_LIFETIME_S: u64 = 86_400;
/// The last whole second that a claim may name: every JSON parser keeps it.
const DATE_S_MAX: u64 = 1 << 53;

/// Why a ticket opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It is not a token, or somebody else signed or changed it.
    #[error(
        "the ticket is not valid: {0}. Ask for one where you got this one, or the host with POST /api/rooms/{{room}}/join"
    )]
    Invalid(String),
    /// No key of this host goes with it.
    #[error(
        "the ticket is signed with a key that this host does not have: {0}. The keys of matchmakers are named with --ticket-keys"
    )]
    UnknownKey(String),
    /// Its time is over.
    #[error(
        "the ticket expired {0} s ago; ask for a new one where you got it, or the host with POST /api/rooms/{{room}}/join"
    )]
    Expired(u64),
    /// Its time has not begun.
    #[error(
        "the ticket is good in {0} s only; if it was made just now, the clock of its maker or of this host is wrong"
    )]
    NotYetValid(u64),
    /// It is good for longer than this host allows.
    #[error(
        "the ticket is good for {lifetime_s} s; this host takes tickets for at most {max_s} s (ticket_lifetime_max_s)"
    )]
    TooLongLived {
        /// From `iat` to `exp`.
        lifetime_s: u64,
        /// The setting.
        max_s: u64,
    },
    /// It is for another host.
    #[error("the ticket is for {0}, not for this host")]
    OtherHost(String),
    /// Its data is too long for a ticket.
    #[error("the ticket would have {bytes} bytes, more than {TICKET_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It could not be signed.
    #[error("the ticket could not be signed: {0}")]
    Signing(String),
}

/// A ticket that was checked: all of it but whether it was used, and whether its room is open and has this player.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The name of the player or spectator.
    pub name: String,
    /// The room.
    pub room: String,
    /// The player's slot; none for a spectator.
    pub player: Option<u16>,
    /// JSON for the rules, as text.
    pub data: Option<String>,
    /// Who made it, and which it is.
    pub id: TicketId,
    /// Made at, in seconds since 1970.
    pub iat_s: u64,
    /// Opens sessions until, in seconds since 1970.
    pub exp_s: u64,
    /// The host made it for a client that comes back.
    pub is_resume: bool,
}

/// What is asked of [`Tickets::sign`].
#[derive(Debug, Clone, Copy)]
pub struct NewTicket<'a> {
    /// The room.
    pub room: &'a str,
    /// The player's slot; none for a spectator.
    pub player: Option<u16>,
    /// The name of the player or spectator.
    pub name: &'a str,
    /// JSON for the rules.
    pub data: Option<&'a Value>,
    /// How long it opens sessions, in seconds.
    pub lifetime_s: u64,
}

/// A ticket of this host.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The ticket.
    pub ticket: String,
    /// Opens sessions until, in seconds since 1970.
    pub exp_s: u64,
    id: TicketId,
}

/// What the settings say of tickets that others sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Longest time from `iat` to `exp`, in seconds.
    pub lifetime_max_s: u32,
    /// What their clocks may be off, in seconds.
    pub leeway_s: u32,
}

/// Signs and checks tickets.
pub struct Tickets {
    host_id: String,
    encoding: EncodingKey,
    own: TicketKey,
    matchmakers: RwLock<Arc<KeySet>>,
    bounds: Bounds,
    /// The latest `iat` of this host's own tickets.
    issued_s: AtomicU64,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").field("host_id", &self.host_id).finish_non_exhaustive()
    }
}

impl Tickets {
    /// Tickets of a host with its key, and of those whose keys are in `matchmakers`.
    #[must_use]
    pub fn new(host_id: &str, key: &[u8; 32], matchmakers: KeySet, bounds: Bounds) -> Self {
        Self {
            host_id: host_id.to_owned(),
            encoding: EncodingKey::from_secret(key),
            own: TicketKey::of_host(key),
            matchmakers: RwLock::new(Arc::new(matchmakers)),
            bounds,
            issued_s: AtomicU64::new(0),
        }
    }

    /// Puts other keys of matchmakers in the place of those before. Tickets signed with keys that are gone open nothing any more; sessions stay.
    pub fn set_matchmakers(&self, keys: KeySet) {
        // Replaced whole: a thread that panicked while it held the lock spoilt nothing.
        *self.matchmakers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    /// Signs a ticket of this host's own at the time `now_s`.
    ///
    /// # Errors
    /// [`TicketError::Signing`].
    pub fn sign(&self, new: &NewTicket<'_>, now_s: u64) -> Result<Signed, TicketError> {
        let iat_s = self.issued_s.fetch_max(now_s, Ordering::Relaxed).max(now_s);
        let exp_s = iat_s.saturating_add(new.lifetime_s);
        self.sign_own(new.room, new.player, new.name, new.data, (iat_s, exp_s), false)
    }

    /// The ticket with which the session that `ticket` opens can be opened again, and what the room has to know of both.
    ///
    /// # Errors
    /// [`TicketError::Signing`].
    pub fn pass(&self, ticket: &Ticket, now_s: u64) -> Result<Pass, TicketError> {
        let dates = (ticket.iat_s, now_s.saturating_add(RESUME_LIFETIME_S));
        let resume = self.sign_own(&ticket.room, ticket.player, &ticket.name, None, dates, true)?;
        Ok(Pass {
            ticket: ticket.id,
            iat_s: ticket.iat_s,
            forget_s: ticket.exp_s.saturating_add(self.bounds.leeway_s.into()),
            shown_s: now_s,
            is_resume: ticket.is_resume,
            resume_ticket: resume.id,
            resume: resume.ticket,
        })
    }

    fn sign_own(
        &self,
        room: &str,
        player: Option<u16>,
        name: &str,
        data: Option<&Value>,
        (iat_s, exp_s): (u64, u64),
        is_resume: bool,
    ) -> Result<Signed, TicketError> {
        let jti = uuid::Uuid::now_v7().simple().to_string();
        let claims = OwnClaims {
            iss: &self.host_id,
            aud: &self.host_id,
            sub: name,
            room,
            role: if player.is_some() { Role::Player } else { Role::Spectator },
            player,
            data,
            iat: iat_s,
            exp: exp_s,
            jti: &jti,
            resume: is_resume,
        };
        let header = Header { kid: Some(HOST_KID.to_owned()), ..Header::new(Algorithm::HS256) };
        let ticket = jsonwebtoken::encode(&header, &claims, &self.encoding)
            .map_err(|error| TicketError::Signing(error.to_string()))?;
        if ticket.len() > TICKET_BYTES_MAX {
            return Err(TicketError::TooLong { bytes: ticket.len() });
        }
        Ok(Signed { ticket, exp_s, id: TicketId::of(&self.host_id, &jti) })
    }

    /// Checks a ticket at the time `now_s`.
    ///
    /// # Errors
    /// Why it opens nothing.
    pub fn check(&self, ticket: &str, now_s: u64) -> Result<Ticket, TicketError> {
        if ticket.len() > TICKET_BYTES_MAX {
            return Err(TicketError::Invalid(format!("{} bytes, more than {TICKET_BYTES_MAX}", ticket.len())));
        }
        let head = head(ticket)?;
        let algorithm = match head.alg.as_str() {
            "HS256" => Algorithm::HS256,
            "EdDSA" => Algorithm::EdDSA,
            _ => return Err(TicketError::Invalid("its `alg` is neither HS256 nor EdDSA".into())),
        };
        if head.kid.as_deref() == Some(HOST_KID) {
            let claims: Claims = verified(ticket, &self.own, algorithm)?;
            return self.own_ticket(claims, now_s);
        }
        let matchmakers = Arc::clone(&self.matchmakers.read().unwrap_or_else(PoisonError::into_inner));
        let key = matchmakers.find(head.kid.as_deref(), algorithm).map_err(TicketError::UnknownKey)?;
        let claims: Claims = verified(ticket, key, algorithm)?;
        self.external_ticket(claims, now_s)
    }

    fn own_ticket(&self, claims: Claims, now_s: u64) -> Result<Ticket, TicketError> {
        self.check_audience(&claims)?;
        check_expiry(claims.exp, now_s)?;
        ticket_of(claims, true)
    }

    fn external_ticket(&self, claims: Claims, now_s: u64) -> Result<Ticket, TicketError> {
        self.check_audience(&claims)?;
        let Bounds { lifetime_max_s, leeway_s } = self.bounds;
        let (max_s, leeway_s) = (u64::from(lifetime_max_s), u64::from(leeway_s));
        let lifetime_s = claims
            .exp
            .checked_sub(claims.iat)
            .filter(|lifetime_s| *lifetime_s > 0)
            .ok_or_else(|| TicketError::Invalid("its `exp` is not after its `iat`".into()))?;
        check_expiry(claims.exp.saturating_add(leeway_s), now_s)?;
        let begins_s = claims.iat.max(claims.nbf.unwrap_or(0));
        if begins_s > now_s.saturating_add(leeway_s) {
            return Err(TicketError::NotYetValid(begins_s.saturating_sub(now_s)));
        }
        if lifetime_s > max_s {
            return Err(TicketError::TooLongLived { lifetime_s, max_s });
        }
        ticket_of(claims, false)
    }

    fn check_audience(&self, claims: &Claims) -> Result<(), TicketError> {
        let named = match &claims.aud {
            Audience::One(id) => std::slice::from_ref(id),
            Audience::Many(ids) => ids.as_slice(),
        };
        if named.len() > AUDIENCES_MAX {
            return Err(TicketError::Invalid(format!(
                "its `aud` has {} hosts; accepted: up to {AUDIENCES_MAX}",
                named.len()
            )));
        }
        if named.contains(&self.host_id) {
            return Ok(());
        }
        // Signed by somebody whom this host knows, and yet not to be trusted with the length of what a person reads.
        let names: Vec<String> = named.iter().map(|id| id.chars().take(CLAIM_BYTES_MAX).collect()).collect();
        Err(TicketError::OtherHost(format!("{names:?}")))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    Player,
    Spectator,
}

/// The claims of the host's own tickets, as they are written.
#[derive(Serialize)]
struct OwnClaims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    room: &'a str,
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    player: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
    iat: u64,
    exp: u64,
    jti: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    resume: bool,
}

/// The claims of anybody's ticket, as they are read.
#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    sub: String,
    room: String,
    role: Role,
    #[serde(default)]
    player: Option<u16>,
    #[serde(default)]
    data: Option<Value>,
    #[serde(deserialize_with = "date")]
    iat: u64,
    #[serde(default, deserialize_with = "date_if_any")]
    nbf: Option<u64>,
    #[serde(deserialize_with = "date")]
    exp: u64,
    jti: String,
    // Whatever a matchmaker means by it is no error.
    #[serde(default)]
    resume: Value,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let wrong = || serde::de::Error::custom(format!("a time is {number}; it must be seconds since 1970, 0 to 2^53"));
    let whole = match number.as_u64() {
        Some(whole) => whole,
        None => {
            let fraction = number.as_f64().filter(|s| (0.0..=DATE_S_MAX as f64).contains(s)).ok_or_else(wrong)?;
            // In range by the line above.
            fraction as u64
        }
    };
    if whole <= DATE_S_MAX { Ok(whole) } else { Err(wrong()) }
}

fn date_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    date(deserializer).map(Some)
}

/// What is read of a header before the signature is checked: nothing but which key and algorithm to check it with.
#[derive(Deserialize)]
struct Head {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<serde::de::IgnoredAny>,
}

fn head(ticket: &str) -> Result<Head, TicketError> {
    let invalid = |problem: &str| TicketError::Invalid(problem.to_owned());
    let mut parts = ticket.split('.');
    let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(invalid("it is not three parts with dots between them"));
    };
    let bytes = URL_SAFE_NO_PAD.decode(header).map_err(|_| invalid("its header is not base64 for URLs"))?;
    let head: Head = serde_json::from_slice(&bytes)
        .map_err(|error| TicketError::Invalid(format!("its header cannot be read: {error}")))?;
    if head.crit.is_some() {
        return Err(invalid("its header has `crit`: it asks for something that this host does not do"));
    }
    if head.kid.as_ref().is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
        return Err(invalid("its `kid` is too long"));
    }
    Ok(head)
}

/// The claims, once the signature was found to be the key's.
fn verified(ticket: &str, key: &TicketKey, algorithm: Algorithm) -> Result<Claims, TicketError> {
    if key.algorithm() != algorithm {
        return Err(TicketError::Invalid("its `alg` is not the one of its key".into()));
    }
    let mut validation = Validation::new(algorithm);
    // Times and audience are checked here, against the caller's clock.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let decoded = jsonwebtoken::decode::<Claims>(ticket, key.decoding(), &validation);
    decoded.map(|decoded| decoded.claims).map_err(|error| TicketError::Invalid(error.to_string()))
}

fn check_expiry(exp_s: u64, now_s: u64) -> Result<(), TicketError> {
    match now_s.checked_sub(exp_s) {
        Some(late_s) => Err(TicketError::Expired(late_s)),
        None => Ok(()),
    }
}

/// Checks what is left: lengths, and that the claims fit each other.
fn ticket_of(claims: Claims, is_own: bool) -> Result<Ticket, TicketError> {
    let invalid = |problem: String| Err(TicketError::Invalid(problem));
    for (claim, text, bytes_max) in [
        ("iss", &claims.iss, CLAIM_BYTES_MAX),
        ("sub", &claims.sub, PLAYER_NAME_BYTES_MAX),
        ("room", &claims.room, CLAIM_BYTES_MAX),
        ("jti", &claims.jti, JTI_BYTES_MAX),
    ] {
        if !(1..=bytes_max).contains(&text.len()) {
            return invalid(format!("its `{claim}` has {} bytes; accepted: 1 to {bytes_max}", text.len()));
        }
    }
    let data = claims.data.map(|data| data.to_string());
    match (claims.role, claims.player, &data) {
        (Role::Player, None, _) => return invalid("its `role` is player and `player`, the slot, is missing".into()),
        (Role::Spectator, Some(_), _) => return invalid("its `role` is spectator and it has `player`, a slot".into()),
        (Role::Spectator, None, Some(_)) => return invalid("its `role` is spectator and it has `data`".into()),
        (_, _, Some(data)) if data.len() > PLAYER_DATA_BYTES_MAX => {
            return invalid(format!("its `data` has {} bytes; accepted: up to {PLAYER_DATA_BYTES_MAX}", data.len()));
        }
        _ => {}
    }
    Ok(Ticket {
        id: TicketId::of(&claims.iss, &claims.jti),
        name: claims.sub,
        room: claims.room,
        player: claims.player,
        data,
        iat_s: claims.iat,
        exp_s: claims.exp,
        is_resume: is_own && claims.resume == Value::Bool(true),
    })
}
