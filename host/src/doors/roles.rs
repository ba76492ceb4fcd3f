//! Who may do what over HTTP. The token itself is in [`crate::admin`]; what players and spectators may do is decided by their tickets.
//!
//! | role | shows | may |
//! | --- | --- | --- |
//! | anybody | nothing | read: rooms, records, events, journals, modules, figures; nothing of these is secret |
//! | anybody, with open doors | nothing | open rooms and get tickets for them, too |
//! | player, spectator | a ticket, on the WebSocket | play; watch |
//! | admin | the token (`Authorization: Bearer …`) | all of that, and change rules |
//!
//! Doors are open by the setting `open_doors`. With `auto` they are while HTTP listens on a loopback address and no proxy is trusted (`trusted_proxies`): then whoever
//! reaches it has an account on this machine. Two kinds of requests come from there all the same for somebody else, and need the token: those that a proxy
//! passed on (it says so in a header, or in the name that it was asked by), and those of a web page whose name was made to lead to this machine (DNS rebinding).
//!
//! `/metrics` and the records name rooms, players and modules. They are open on purpose: who may watch a race may know its result, and a Prometheus needs no token. Who
//! wants them closed puts a proxy in front.

use std::net::{IpAddr, SocketAddr};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use serde::Serialize;

use super::http::ApiError;
use crate::admin::AdminToken;
use crate::config::OpenDoors;

/// Whether the doors are open, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Openness {
    /// Anybody may open rooms and get tickets.
    pub is_open: bool,
    /// The setting that it comes from.
    pub setting: OpenDoors,
}

impl Openness {
    /// What the setting means for a host that listens there, and that names proxies which it trusts or does not.
    #[must_use]
    pub fn of(setting: OpenDoors, http: SocketAddr, has_proxies: bool) -> Self {
        let is_open = match setting {
            OpenDoors::Auto => http.ip().to_canonical().is_loopback() && !has_proxies,
            OpenDoors::Yes => true,
            OpenDoors::No => false,
        };
        Self { is_open, setting }
    }

    /// Whether a request with these headers may do what open doors let anybody do.
    pub(super) fn lets_in(self, headers: &HeaderMap) -> bool {
        self.is_open && (self.setting == OpenDoors::Yes || is_for_this_machine(headers))
    }
}

/// Whether a request names this machine's own address, or `localhost`, as the one that it is for, and no proxy passed it on.
fn is_for_this_machine(headers: &HeaderMap) -> bool {
    let asked =
        headers.get(header::HOST).and_then(|host| host.to_str().ok()).and_then(|host| host.parse::<Authority>().ok());
    let is_own = asked.is_some_and(|asked| {
        let name = asked.host();
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name).parse::<IpAddr>();
        address.map_or(name.eq_ignore_ascii_case("localhost"), |address| address.to_canonical().is_loopback())
    });
    is_own && ["forwarded", "x-forwarded-for"].iter().all(|name| !headers.contains_key(*name))
}

impl std::fmt::Display for Openness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.is_open, self.setting) {
            (true, OpenDoors::Auto) => "open: anybody on this machine may open rooms and get tickets (open_doors = auto, HTTP on a loopback address)",
            (true, _) => "open: anybody who reaches HTTP may open rooms and get tickets (open_doors = yes)",
            (false, OpenDoors::Auto) => "closed: opening rooms and getting tickets needs the admin token (open_doors = auto, HTTP on another address than loopback, or behind a proxy)",
            (false, _) => "closed: opening rooms and getting tickets needs the admin token (open_doors = no)",
        })
    }
}

/// Lets the admin pass. `what` is what was asked for, as the beginning of a sentence.
pub(super) fn require_admin(token: &AdminToken, headers: &HeaderMap, what: &str) -> Result<(), ApiError> {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = shown.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let problem = match bearer {
        Some(bearer) if token.is(bearer) => return Ok(()),
        Some(_) => "this is not the admin token of this host".to_owned(),
        None => format!("{what} needs the admin token"),
    };
    let message = format!(
        "{problem}: send `Authorization: Bearer TOKEN`; the token is in the file `admin-token` of the host's data folder"
    );
    Err(ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_opens_the_door() {
        let token = AdminToken::parse("a-token-that-is-long-enough").unwrap();
        let check = |value: Option<&[u8]>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(header::AUTHORIZATION, value.try_into().unwrap());
            }
            require_admin(&token, &headers, "this").is_ok()
        };
        assert!(check(Some(b"Bearer a-token-that-is-long-enough")));
        assert!(check(Some(b"bearer  a-token-that-is-long-enough ")));
        for wrong in [
            None,
            Some(&b""[..]),
            Some(b"Bearer"),
            Some(b"Bearer "),
            Some(b"a-token-that-is-long-enough"),
            Some(b"Basic a-token-that-is-long-enough"),
            Some(b"Bearer a-token-that-is-long-enoug"),
            Some(b"Bearer a-token-that-is-long-enough-and-more"),
            Some(b"Bearer \xff\xfe"),
        ] {
            assert!(!check(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn doors_that_are_open_by_themselves_are_so_for_this_machine() {
        let lets_in = |setting, host: &str, more: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            headers.extend(more.map(|name| (header::HeaderName::from_static(name), "192.0.2.1".parse().unwrap())));
            Openness::of(setting, "127.0.0.1:1".parse().unwrap(), false).lets_in(&headers)
        };
        for (host, is_own) in [
            ("127.0.0.1:7700", true),
            ("127.1.2.3", true),
            ("[::1]:7700", true),
            ("localhost:7700", true),
            ("LocalHost", true),
            ("evil.example:7700", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("192.168.1.5:7700", false),
            ("127.0.0.1:7700 ", false),
            ("", false),
        ] {
            assert_eq!(lets_in(OpenDoors::Auto, host, None), is_own, "{host:?}");
            assert!(lets_in(OpenDoors::Yes, host, None) && !lets_in(OpenDoors::No, host, None));
            for header in ["forwarded", "x-forwarded-for"] {
                assert!(!lets_in(OpenDoors::Auto, host, Some(header)), "{host:?}");
            }
        }
        let auto = Openness::of(OpenDoors::Auto, "127.0.0.1:1".parse().unwrap(), false);
        assert!(!auto.lets_in(&HeaderMap::new()), "a request that names nobody");
    }

    #[test]
    fn doors_are_open_by_themselves_on_loopback_addresses_only() {
        let open = |setting, address: &str| Openness::of(setting, address.parse().unwrap(), false).is_open;
        for (address, is_loopback) in [
            ("127.0.0.1:1", true),
            ("127.9.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("192.168.1.5:1", false),
        ] {
            assert_eq!(open(OpenDoors::Auto, address), is_loopback, "{address}");
            assert!(open(OpenDoors::Yes, address) && !open(OpenDoors::No, address));
            // Behind a proxy an address says nothing of who comes.
            let proxied = |setting| Openness::of(setting, address.parse().unwrap(), true).is_open;
            assert!(proxied(OpenDoors::Yes) && !proxied(OpenDoors::Auto) && !proxied(OpenDoors::No));
        }
    }
}
