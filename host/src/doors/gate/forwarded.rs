//! Who asks, behind proxies: what the headers say that a proxy adds. Pure, and total: any header gives an answer.
//!
//! Each proxy on the way appends the address that it was asked from. So the list is read from its end, and for as long as the address there is that
//! of a proxy which the operator trusts; the first other address is the client's. What stands before it the client itself may have written.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::Deserialize;

/// Addresses of one list that are looked at, from its end: no real chain of proxies is longer. What stands before them a client wrote.
pub const HOPS_MAX: usize = 32;

/// Which header the proxy in front writes. Only that one is read: a proxy passes the others on as the client wrote them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeader {
    /// `X-Forwarded-For` and `X-Forwarded-Proto`, as nginx, Caddy, Traefik, Envoy and most clouds do.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// What the headers of a trusted proxy say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The client's address; none if the list is malformed or empty: the proxy's own stands for it then.
    pub address: Option<IpAddr>,
    /// Whether the client came by https or wss; none if that is not said.
    pub is_secure: Option<bool>,
}

/// An address without what makes one of two: IPv4 in IPv6 (`::ffff:192.0.2.1`) is IPv4.
#[must_use]
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Whether one of the ranges holds the address.
#[must_use]
pub fn is_in(ranges: &[IpNet], address: IpAddr) -> bool {
    let address = canonical(address);
    ranges.iter().any(|range| range.contains(&address))
}

/// Reads `X-Forwarded-For` and `X-Forwarded-Proto`: all lines of each, in order.
pub fn x_forwarded<'a>(
    addresses: impl Iterator<Item = &'a str>,
    protocols: impl Iterator<Item = &'a str>,
    trusted: &[IpNet],
) -> Seen {
    let hops: Vec<_> = addresses.flat_map(|line| line.split(',')).collect();
    let from_the_end = hops.into_iter().rev().map(|hop| address(hop.trim()));
    // Of several, the first: the client's own connection. It decides on nothing but the URL that this client is told.
    let protocol = protocols.flat_map(|line| line.split(',')).next();
    Seen { address: client(from_the_end, trusted), is_secure: protocol.and_then(is_secure) }
}

/// Reads `Forwarded`: all lines in order. Of a line that is malformed only what stands behind its last comma counts: a proxy that appends to a
/// client's line writes there, and a client cannot hide behind the proxy by a line that nobody can read.
pub fn forwarded<'a>(lines: impl Iterator<Item = &'a str>, trusted: &[IpNet]) -> Seen {
    let mut hops = Vec::new();
    let mut protocol = None;
    for line in lines {
        let before = hops.len();
        let mut rest = Some(line);
        while let Some(text) = rest {
            let Some((element, after)) = element(text) else {
                hops.truncate(before);
                let last = line.rsplit(',').next().and_then(element_alone);
                hops.extend([None, last.and_then(|element| element.address)]);
                break;
            };
            if protocol.is_none() {
                protocol = element.protocol.as_deref().and_then(is_secure);
            }
            hops.push(element.address);
            rest = after;
        }
    }
    let from_the_end = hops.iter().rev().map(|hop| hop.as_deref().and_then(address));
    Seen { address: client(from_the_end, trusted), is_secure: protocol }
}

/// An element with nothing behind it.
fn element_alone(text: &str) -> Option<Element> {
    element(text).filter(|(_, after)| after.is_none()).map(|(element, _)| element)
}

fn is_secure(protocol: &str) -> Option<bool> {
    let protocol = protocol.trim();
    let is = |words: [&str; 2]| words.iter().any(|word| protocol.eq_ignore_ascii_case(word));
    if is(["https", "wss"]) {
        Some(true)
    } else if is(["http", "ws"]) {
        Some(false)
    } else {
        None
    }
}

/// The first address that is no trusted proxy, of those looked at from the end of the list; the last one looked at if all are proxies.
fn client(from_the_end: impl Iterator<Item = Option<IpAddr>>, trusted: &[IpNet]) -> Option<IpAddr> {
    let mut last = None;
    for hop in from_the_end.take(HOPS_MAX) {
        // What is before something that is no address was said by nobody who is known.
        let address = canonical(hop?);
        if !is_in(trusted, address) {
            return Some(address);
        }
        last = Some(address);
    }
    last
}

/// An address as proxies write it: with a port or without, IPv6 in brackets or without.
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    let (inside, port) = text.strip_prefix('[')?.split_once(']')?;
    // RFC 7239 lets a port be a word that hides it.
    let is_port = port.strip_prefix(':').is_some_and(|port| !port.is_empty() && port.bytes().all(is_token));
    if port.is_empty() || is_port { inside.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6) } else { None }
}

/// One element of `Forwarded`: what one proxy saw.
#[derive(Debug, Default)]
struct Element {
    address: Option<String>,
    protocol: Option<String>,
}

/// Reads an element: `name=value` pairs with `;` between them, a value being a token or a quoted string (RFC 7239, section 4). Gives what follows
/// its comma, if there is one. None if it is malformed.
fn element(text: &str) -> Option<(Element, Option<&str>)> {
    let mut element = Element::default();
    let mut rest = text.trim_start_matches([' ', '\t']);
    loop {
        let (name, after) = rest.split_once('=')?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return None;
        }
        let (value, after) = value(after)?;
        if name.eq_ignore_ascii_case("for") {
            // Twice in one element is forbidden: somebody meddled.
            if element.address.replace(value).is_some() {
                return None;
            }
        } else if name.eq_ignore_ascii_case("proto") && element.protocol.replace(value).is_some() {
            return None;
        }
        rest = after.trim_start_matches([' ', '\t']);
        if rest.is_empty() {
            return Some((element, None));
        }
        if let Some(after) = rest.strip_prefix(',') {
            return Some((element, Some(after)));
        }
        rest = rest.strip_prefix(';')?.trim_start_matches([' ', '\t']);
    }
}

fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.bytes().position(|byte| !is_token(byte)).unwrap_or(text.len());
        let (token, after) = text.split_at_checked(end)?;
        return if token.is_empty() { None } else { Some((token.to_owned(), after)) };
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            character => value.push(character),
        }
    }
    None
}

/// A character of a token (RFC 9110, section 5.6.2).
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trusted() -> Vec<IpNet> {
        ["10.0.0.0/8", "2001:db8:ffff::/48"].map(|range| range.parse().unwrap()).into()
    }

    fn by_x(lines: &[&str]) -> Option<String> {
        x_forwarded(lines.iter().copied(), [].into_iter(), &trusted()).address.map(|address| address.to_string())
    }

    fn by_rfc(lines: &[&str]) -> Option<String> {
        forwarded(lines.iter().copied(), &trusted()).address.map(|address| address.to_string())
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_client() {
        for (lines, client) in [
            (&["192.0.2.1"][..], Some("192.0.2.1")),
            (&["6.6.6.6, 192.0.2.1, 10.0.0.1"], Some("192.0.2.1")),
            (&["6.6.6.6", " 192.0.2.1 ,10.0.0.1 "], Some("192.0.2.1")),
            (&["10.0.0.7, 10.0.0.1"], Some("10.0.0.7")),
            (&["192.0.2.1:4711"], Some("192.0.2.1")),
            (&["[2001:db8::1]:4711"], Some("2001:db8::1")),
            (&["2001:db8::1"], Some("2001:db8::1")),
            (&["::ffff:192.0.2.1"], Some("192.0.2.1")),
            (&["192.0.2.1, ::ffff:10.0.0.1"], Some("192.0.2.1")),
            (&["nonsense, 192.0.2.1"], Some("192.0.2.1")),
            (&["192.0.2.1, nonsense"], None),
            (&["192.0.2.1, nonsense, 10.0.0.1"], None),
            (&["192.0.2.1,"], None),
            (&[""], None),
            (&[], None),
            (&["unknown"], None),
            (&["192.0.2.256"], None),
        ] {
            assert_eq!(by_x(lines).as_deref(), client, "{lines:?}");
        }
        let long = vec!["6.6.6.6"; 2 * HOPS_MAX].join(",");
        assert_eq!(
            by_x(&[&long, "192.0.2.1, 10.0.0.1"]).as_deref(),
            Some("192.0.2.1"),
            "nobody hides behind a long list"
        );
    }

    #[test]
    fn the_standard_header_is_read_with_its_quotes_and_names() {
        for (lines, client) in [
            (&["for=192.0.2.1"][..], Some("192.0.2.1")),
            (&["For=\"[2001:db8:cafe::17]:4711\""], Some("2001:db8:cafe::17")),
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"], Some("192.0.2.60")),
            (&["for=6.6.6.6, for=192.0.2.1;proto=https, for=10.0.0.1"], Some("192.0.2.1")),
            (&["for=6.6.6.6", "for=192.0.2.1 , for=10.0.0.1"], Some("192.0.2.1")),
            (&["for=\"192.0.2.1:_hidden\""], None),
            (&["for=\"[2001:db8::1]:_hidden\""], Some("2001:db8::1")),
            (&["for=unknown"], None),
            (&["for=_secret, for=10.0.0.1"], None),
            // The element of the nearest proxy names nobody.
            (&["for=192.0.2.1, by=10.0.0.1"], None),
            // A client's own line that nobody can read, with the proxy's word behind it.
            (&["for=\"6.6.6.6, for=192.0.2.1"], Some("192.0.2.1")),
            (&["nonsense", "for=192.0.2.1"], Some("192.0.2.1")),
            (&["for=6.6.6.6;, for=10.0.0.1"], None),
            (&["by=\"a,b;for=6.6.6.6\";for=192.0.2.1"], Some("192.0.2.1")),
            (&["for=\"192.\\0.2.1\""], Some("192.0.2.1")),
            (&["for=192.0.2.1;for=192.0.2.2"], None),
            (&["for=\"192.0.2.1"], None),
            (&["for"], None),
            (&["for="], None),
            (&["for=192.0.2.1,"], None),
            (&["=192.0.2.1"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(by_rfc(lines).as_deref(), client, "{lines:?}");
        }
    }

    #[test]
    fn the_protocol_is_the_clients() {
        let x = |protocols: &[&str]| x_forwarded([].into_iter(), protocols.iter().copied(), &[]).is_secure;
        assert_eq!(
            [x(&["https"]), x(&["HTTP"]), x(&["wss, http"]), x(&["gopher"]), x(&[])],
            [Some(true), Some(false), Some(true), None, None]
        );
        let seen = forwarded(["for=192.0.2.1;proto=https, for=10.0.0.1;proto=http"].into_iter(), &trusted());
        assert_eq!(seen.is_secure, Some(true));
    }

    proptest! {
        #[test]
        fn nothing_breaks_the_readers(lines in prop::collection::vec("[ -~]{0,60}", 0..4)) {
            let lines = || lines.iter().map(String::as_str);
            x_forwarded(lines(), lines(), &trusted());
            forwarded(lines(), &trusted());
        }

        /// Whatever a client writes, its proxy's word comes last.
        #[test]
        fn a_client_cannot_choose_its_address(forged in "[a-z0-9.:, \"=;\\[\\]]{0,40}", a: [u8; 4]) {
            let real = IpAddr::from(a);
            prop_assume!(!is_in(&trusted(), real));
            let appended = format!("{forged}, {real}");
            prop_assert_eq!(x_forwarded([appended.as_str()].into_iter(), [].into_iter(), &trusted()).address, Some(real));
            let lines = [forged.as_str(), &real.to_string()];
            prop_assert_eq!(x_forwarded(lines.into_iter(), [].into_iter(), &trusted()).address, Some(real));
            let appended = format!("{forged}, for={real}");
            prop_assert_eq!(forwarded([appended.as_str()].into_iter(), &trusted()).address, Some(real));
        }

        #[test]
        fn addresses_are_read_as_they_are_written(a: [u8; 4], b: [u16; 8], port: u16) {
            let (four, six) = (IpAddr::from(a), IpAddr::from(b));
            for (written, address) in [
                (four.to_string(), four),
                (format!("{four}:{port}"), four),
                (six.to_string(), six),
                (format!("[{six}]"), six),
                (format!("[{six}]:{port}"), six),
            ] {
                prop_assert_eq!(super::address(&written), Some(address));
                let line = format!("for=\"{written}\"");
                prop_assert_eq!(forwarded([line.as_str()].into_iter(), &[]).address, Some(canonical(address)));
            }
        }
    }
}
