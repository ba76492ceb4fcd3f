//! What proxies say of the client's address: a client cannot change it by what it writes itself.
//!
//! An input is a mode and lines of a header; with `X-Forwarded-For`, those behind an empty line are of `X-Forwarded-Proto`.

use std::net::IpAddr;
use std::sync::LazyLock;

use holeshot::doors::gate::forwarded::{Seen, canonical, forwarded, is_in, x_forwarded};

use crate::take::Take;

static TRUSTED: LazyLock<Vec<ipnet::IpNet>> = LazyLock::new(|| {
    ["10.0.0.0/8", "127.0.0.1/32", "fd00::/8"].iter().map(|range| range.parse().expect("a range")).collect()
});

pub(crate) fn target(input: &[u8]) {
    let mut input = Take(input);
    let is_x = input.u8().is_multiple_of(2);
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    let (addresses, protocols) = text.split_once("\n\n").unwrap_or((text, ""));
    // An empty line at the end is none; one in the middle is a header without a value.
    let addresses = addresses.trim_end_matches(['\r', '\n']);
    let seen = |addresses: &str| {
        if is_x {
            x_forwarded(addresses.lines(), protocols.lines(), &TRUSTED)
        } else {
            forwarded(addresses.lines(), &TRUSTED)
        }
    };
    let found = seen(addresses);
    assert_eq!(found, seen(addresses));
    let Some(address) = found.address else { return };
    assert_eq!(address, canonical(address), "one address has one form");
    if is_in(&TRUSTED, address) {
        return;
    }
    // The client put lines of its own in front, in its own way to write them.
    let claim = if is_x { "192.0.2.66" } else { "for=192.0.2.66;proto=http" };
    for forged in [format!("{claim}\n{addresses}"), format!("{claim}, {addresses}"), format!("nonsense\n{addresses}")] {
        let Seen { address: after, .. } = seen(&forged);
        // What is malformed says nothing of anybody.
        assert!(after.is_none_or(|after| after == address), "{after:?} instead of {address}: {forged:?}");
    }
    // A proxy that is trusted adds the address that it was asked from.
    let asked: IpAddr = "198.51.100.7".parse().expect("an address");
    let added = if is_x { format!("{addresses}\n{asked}") } else { format!("{addresses}\nfor={asked}") };
    let after = seen(&added).address;
    assert_eq!(after, Some(asked));
}
