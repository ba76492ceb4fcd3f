//! The limits of the doors: their names, ranges and defaults with the reason for each, and how they are set. What keeps them is in the files
//! beside this one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::bucket::Rate;
use crate::config::ConfigError;

/// How many seconds of a rate per second may come at once: people and programs come in bursts, a room full of players after a restart in a large one.
const BURST_S: u64 = 5;
const SECOND_US: u64 = 1_000_000;
const MINUTE_US: u64 = 60 * SECOND_US;

macro_rules! limits {
    ($($(#[$doc:meta])* $limit:ident = $name:literal, $default:literal, $least:literal..=$most:literal;)*) => {
        /// A limit, by the name of its setting. Those that begin with `address` hold for one address: for one IPv4 address, or for one network of IPv6
        /// with a prefix of 64 bits, which is what one household has. Those that begin with `session` hold for one session. The others hold for the host.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Limit {
            $($(#[$doc])* $limit,)*
        }

        impl Limit {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$limit),*];

            /// The setting's name, and the label in the metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$limit => $name,)* }
            }

            /// What it is unless it is set.
            #[must_use]
            pub const fn default_value(self) -> u64 {
                match self { $(Self::$limit => $default,)* }
            }

            const fn range(self) -> (u64, u64) {
                match self { $(Self::$limit => ($least, $most),)* }
            }
        }
    };
}

limits! {
    /// TCP connections that have not become WebSockets, at a time. A browser opens 6, a family behind one address has a few of them.
    AddressConnections = "address_connections_max", 128, 1..=1_000_000;
    /// TLS and WebSocket handshakes per second, five seconds' worth at once: 100 players behind one address may come back in one moment.
    AddressHandshakes = "address_handshakes_per_s", 20, 1..=1_000_000;
    /// WebSockets without a valid hello, at a time. An honest one is without for one round trip.
    AddressHalfOpen = "address_half_open_max", 64, 1..=1_000_000;
    /// Sessions at a time. 64 players and their spectators at one party have one address.
    AddressSessions = "address_sessions_max", 256, 1..=1_000_000;
    /// HTTP requests per second, five seconds' worth at once. A page asks for a handful.
    AddressRequests = "address_requests_per_s", 50, 1..=1_000_000;
    /// Requests to open a room per minute, all of them at once if wished. Each takes memory and a place in the pool.
    AddressRooms = "address_rooms_per_minute", 60, 1..=1_000_000;
    /// Messages and datagrams of all its sessions per second, two seconds' worth at once: 100 players at 128 Hz with pings and actions.
    AddressMessages = "address_messages_per_s", 20_000, 1..=100_000_000;
    /// Bytes of them per second, two seconds' worth at once: 100 players with inputs at their largest take half of it.
    AddressBytes = "address_bytes_per_s", 4_194_304, 8_192..=1_000_000_000;
    /// Streams of events at a time. A browser opens 6 connections to one host; a party has a few screens.
    AddressStreams = "address_streams_max", 16, 1..=1_000_000;
    /// Hellos with a ticket that opens nothing, per minute. An honest client has none; one whose ticket expired has one.
    AddressBadTickets = "address_bad_tickets_per_minute", 30, 1..=1_000_000;

    /// TCP connections that have not become WebSockets, at a time, as far as open files allow it. More wait in the system's queue: they are not refused.
    Connections = "connections_max", 1_000, 1..=1_000_000;
    /// TLS and WebSocket handshakes per second, five seconds' worth at once. One takes 0.1 to 0.3 ms of a core with ECDSA, ten times that with RSA.
    Handshakes = "handshakes_per_s", 1_000, 1..=1_000_000;
    /// WebSockets without a valid hello, at a time: they have five seconds, so that many may come in five seconds.
    HalfOpen = "half_open_max", 4_000, 1..=1_000_000;
    /// WebSockets at a time, as far as open files allow it: sessions and those that have not said hello yet.
    Websockets = "websockets_max", 20_000, 1..=1_000_000;
    /// HTTP requests per second, five seconds' worth at once: more than two cores answer.
    Requests = "requests_per_s", 5_000, 1..=1_000_000;
    /// Requests to open a room per minute, all of them at once if wished: the most rooms of a host by default and half as many again.
    Rooms = "rooms_per_minute", 6_000, 1..=1_000_000;

    /// Messages and datagrams of all sessions per second, two seconds' worth at once: 20,000 sessions at 50 Hz.
    Messages = "messages_per_s", 1_000_000, 1..=100_000_000;
    /// Bytes of them per second, two seconds' worth at once: a line of 1 Gbit/s.
    Bytes = "bytes_per_s", 125_000_000, 8_192..=1_000_000_000;

    /// Messages and datagrams of one session per second, two seconds' worth at once. An input a tick at 128 Hz, with pings and actions, is half of it. A session
    /// that sends more WebSocket messages ends; its datagrams beyond it are dropped.
    SessionMessages = "session_messages_per_s", 400, 1..=1_000_000;
    /// Bytes of one session's messages per second, four seconds' worth at once. Inputs at their largest take a tenth of it.
    SessionBytes = "session_bytes_per_s", 262_144, 8_192..=1_000_000_000;
    /// Bytes that may wait to be sent to one session, in messages; it ends when a message finds no place. The events that a rollback tells at once fit in.
    SessionQueued = "session_queued_bytes_max", 1_048_576, 131_072..=1_000_000_000;
}

/// How many limits there are.
pub(super) const COUNT: usize = Limit::ALL.len();

impl Limit {
    /// Whether it holds for one session.
    #[must_use]
    pub const fn is_of_session(self) -> bool {
        matches!(self, Self::SessionMessages | Self::SessionBytes | Self::SessionQueued)
    }

    /// Where it is in an array of all.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One limit as it is set: `name=value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSetting {
    limit: Limit,
    value: u64,
}

impl LimitSetting {
    /// This limit, set to this.
    #[must_use]
    pub const fn new(limit: Limit, value: u64) -> Self {
        Self { limit, value }
    }

    fn named(name: &str, value: u64) -> Result<Self, String> {
        let limit = Limit::ALL.iter().copied().find(|limit| limit.name() == name);
        let limit = limit.ok_or_else(|| {
            let names: Vec<_> = Limit::ALL.iter().map(|limit| limit.name()).collect();
            format!("there is no limit {name:?}; there are {}", names.join(", "))
        })?;
        Ok(Self { limit, value })
    }
}

impl FromStr for LimitSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("write NAME=NUMBER, as in address_requests_per_s=100")?;
        let value = value.trim().parse().map_err(|_| format!("{:?} is no number", value.trim()))?;
        Self::named(name.trim(), value)
    }
}

/// Reads the table `limits` of a settings file.
///
/// # Errors
/// A name that is no limit's, a value that is no number.
pub fn from_table<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<LimitSetting>, D::Error> {
    let table = std::collections::BTreeMap::<String, u64>::deserialize(deserializer)?;
    let named = |(name, value): (String, u64)| LimitSetting::named(&name, value).map_err(serde::de::Error::custom);
    table.into_iter().map(named).collect()
}

/// All limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits([u64; COUNT]);

impl Default for Limits {
    fn default() -> Self {
        let mut values = [0; COUNT];
        for (place, limit) in values.iter_mut().zip(Limit::ALL) {
            *place = limit.default_value();
        }
        Self(values)
    }
}

impl Limits {
    /// The defaults, and what was set; of one that is set twice, the last.
    ///
    /// # Errors
    /// The first one out of its range.
    pub fn new(set: &[LimitSetting]) -> Result<Self, ConfigError> {
        let mut limits = Self::default();
        for LimitSetting { limit, value } in set {
            let (least, most) = limit.range();
            if !(least..=most).contains(value) {
                let accepted = format!("{least} to {most}");
                return Err(ConfigError::OutOfRange { setting: limit.name(), value: *value, accepted });
            }
            if let Some(place) = limits.0.get_mut(limit.index()) {
                *place = *value;
            }
        }
        Ok(limits)
    }

    /// What a limit is.
    #[must_use]
    pub fn get(&self, limit: Limit) -> u64 {
        self.0.get(limit.index()).copied().unwrap_or_else(|| limit.default_value())
    }

    /// The rate that a limit per second or per minute stands for.
    #[must_use]
    pub fn rate(&self, limit: Limit) -> Rate {
        let count = self.get(limit);
        match limit {
            Limit::AddressRooms | Limit::Rooms | Limit::AddressBadTickets => Rate::new(count, MINUTE_US, count),
            Limit::SessionMessages | Limit::AddressMessages | Limit::AddressBytes | Limit::Messages | Limit::Bytes => {
                Rate::new(count, SECOND_US, count.saturating_mul(2))
            }
            Limit::SessionBytes => Rate::new(count, SECOND_US, count.saturating_mul(4)),
            _ => Rate::new(count, SECOND_US, count.saturating_mul(BURST_S)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_its_place_and_a_default_in_its_range() {
        for (place, limit) in Limit::ALL.iter().enumerate() {
            assert_eq!(limit.index(), place);
            let (least, most) = limit.range();
            assert!((least..=most).contains(&limit.default_value()), "{limit}");
            assert!(Limit::ALL[..place].iter().all(|other| other.name() != limit.name()), "{limit}");
        }
    }

    #[test]
    fn a_limit_is_set_by_its_name_and_refused_out_of_its_range() {
        let set = |texts: &[&str]| texts.iter().map(|text| text.parse()).collect::<Result<Vec<LimitSetting>, String>>();
        let limits =
            Limits::new(&set(&["address_half_open_max=3", "rooms_per_minute = 9", "rooms_per_minute=10"]).unwrap());
        let limits = limits.unwrap();
        assert_eq!((limits.get(Limit::AddressHalfOpen), limits.get(Limit::Rooms)), (3, 10));
        assert_eq!(limits.get(Limit::Requests), 5_000);
        for (text, words) in [
            ("address_half_open_max", "NAME=NUMBER"),
            ("rooms=3", "there is no limit \"rooms\"; there are address_connections_max"),
            ("rooms_per_minute=many", "is no number"),
            ("rooms_per_minute=-1", "is no number"),
        ] {
            let error = set(&[text]).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        let error = Limits::new(&set(&["session_bytes_per_s=0"]).unwrap()).unwrap_err().to_string();
        assert_eq!(error, "setting `session_bytes_per_s` is 0; accepted: 8192 to 1000000000");
    }
}
