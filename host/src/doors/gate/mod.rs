//! Who may come in how often: finds out who asks, behind proxies too, keeps the [limits] per address and for all together, and counts whom it
//! refuses. What sessions say is counted where each session is, by its [`Allowance`]; nothing here is asked for a message but, once in a while, an atomic.
//!
//! Limits per address do not hold for addresses that are exempt, by default this machine's own: tests, load tests and commands come from there. All other
//! limits hold for everybody.

mod addresses;
mod allowance;
pub mod bucket;
pub mod forwarded;
pub mod limits;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use serde_json::json;

use super::listen::Peer;
use crate::clock::Clock;
use addresses::{Addresses, Done, Entry, Held, group};
pub use allowance::{Allowance, MessageLimits, Over, SharedAllowance};
use bucket::{Bucket, Rate};
pub use forwarded::ProxyHeader;
pub use limits::{Limit, LimitSetting, Limits};

/// Addresses that are known at a time, of which an entry takes 100 bytes: 6 MiB. How many they are that come within a minute is the attacker's
/// choice; see [`addresses`].
pub const ADDRESSES_MAX: usize = 65_536;
/// Parts of the table, each with a lock of its own, so that requests seldom wait for each other.
const PARTS: usize = 16;

/// What an operator says about addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// All limits.
    pub limits: Limits,
    /// Addresses for which limits per address do not hold.
    pub exempt: Vec<IpNet>,
    /// Addresses of proxies, whose word is taken for who asks.
    pub trusted: Vec<IpNet>,
    /// The header that they write.
    pub proxy_header: ProxyHeader,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            exempt: loopback(),
            trusted: Vec::new(),
            proxy_header: ProxyHeader::default(),
        }
    }
}

/// This machine's own addresses.
#[must_use]
pub fn loopback() -> Vec<IpNet> {
    let v4 = ipnet::Ipv4Net::new([127, 0, 0, 0].into(), 8).map(IpNet::V4);
    let v6 = ipnet::Ipv6Net::new(std::net::Ipv6Addr::LOCALHOST, 128).map(IpNet::V6);
    [v4, v6].into_iter().flatten().collect()
}

/// Who sends a request: an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Its address, by the word of a trusted proxy if it came through one.
    pub address: IpAddr,
    /// Whether it came by https or wss, to this host or to its proxy.
    pub is_secure: bool,
}

impl Client {
    /// The URL's scheme under which it finds the WebSocket.
    #[must_use]
    pub const fn websocket_scheme(&self) -> &'static str {
        if self.is_secure { "wss" } else { "ws" }
    }
}

/// Somebody is refused because of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}; try again in {retry_after_s} s", self.reason())]
pub struct Refusal {
    /// The limit.
    pub limit: Limit,
    /// Its value.
    pub value: u64,
    /// When it makes sense to try again, in seconds; at least 1.
    pub retry_after_s: u64,
}

impl Refusal {
    fn is_of_address(&self) -> bool {
        self.limit.name().starts_with("address_")
    }

    fn reason(&self) -> String {
        let Self { limit, value, .. } = self;
        if self.is_of_address() {
            format!("your address has asked or opened too much: the limit `{limit}` of this host is {value}")
        } else {
            format!("the host has too much to do: its limit `{limit}` is {value}")
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code) = if self.is_of_address() {
            (StatusCode::TOO_MANY_REQUESTS, "too_many_requests")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "busy")
        };
        let details = json!({ "limit": self.limit.name(), "value": self.value });
        let body = json!({ "error": { "code": code, "message": self.to_string(), "details": details } });
        (status, [(header::RETRY_AFTER, self.retry_after_s.to_string())], Json(body)).into_response()
    }
}

/// How many were refused, by limit.
#[derive(Debug, Default)]
pub struct Refused([AtomicU64; limits::COUNT]);

impl Refused {
    /// Counts one more.
    pub fn count(&self, limit: Limit) {
        if let Some(counter) = self.0.get(limit.index()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were refused because of this limit.
    #[must_use]
    pub fn get(&self, limit: Limit) -> u64 {
        self.0.get(limit.index()).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

/// TLS handshakes with clients.
#[derive(Debug, Default)]
pub struct TlsHandshakes {
    /// Those that came about.
    pub done: AtomicU64,
    /// Those that did not: refused by either side, broken off, or not over in time.
    pub failed: AtomicU64,
}

/// The gate.
#[derive(Debug)]
pub struct Gate {
    rules: Rules,
    clock: Clock,
    parts: Vec<Mutex<Addresses>>,
    part_of: RandomState,
    handshakes: AtomicU64,
    requests: AtomicU64,
    rooms: AtomicU64,
    half_open: AtomicU64,
    /// Times an address found no place in the table.
    unknown: AtomicU64,
    tls_handshakes: TlsHandshakes,
    refused: Arc<Refused>,
}

/// A place that somebody holds, until it is dropped.
#[derive(Debug)]
pub struct Place {
    gate: Arc<Gate>,
    what: Held,
    /// Whose; none if the address is exempt or not known.
    group: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.what == Held::HalfOpen {
            self.gate.half_open.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(group) = self.group {
            self.gate.part(group).give_back(group, self.what);
        }
    }
}

impl Gate {
    /// A gate with these rules.
    #[must_use]
    pub fn new(rules: Rules, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            rules,
            clock,
            parts: (0..PARTS).map(|_| Mutex::new(Addresses::new(ADDRESSES_MAX / PARTS))).collect(),
            part_of: RandomState::new(),
            handshakes: AtomicU64::default(),
            requests: AtomicU64::default(),
            rooms: AtomicU64::default(),
            half_open: AtomicU64::default(),
            unknown: AtomicU64::default(),
            tls_handshakes: TlsHandshakes::default(),
            refused: Arc::default(),
        })
    }

    /// Its limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.rules.limits
    }

    /// How many it refused, and others by its limits.
    #[must_use]
    pub const fn refused(&self) -> &Arc<Refused> {
        &self.refused
    }

    /// The time by which rates are counted, in microseconds.
    pub(super) fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    /// Addresses that it knows now.
    #[must_use]
    pub fn addresses(&self) -> usize {
        self.parts.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Times that an address found no place in the table, and only the limits for all held for it.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    /// TLS handshakes with clients.
    #[must_use]
    pub const fn tls_handshakes(&self) -> &TlsHandshakes {
        &self.tls_handshakes
    }

    /// WebSockets without a valid hello.
    #[must_use]
    pub fn half_open(&self) -> u64 {
        self.half_open.load(Ordering::Relaxed)
    }

    /// Who sends a request with these headers over this connection.
    #[must_use]
    pub fn client(&self, peer: &Peer, headers: &HeaderMap) -> Client {
        let own = forwarded::canonical(peer.address.ip());
        let direct = Client { address: own, is_secure: peer.is_tls };
        if !forwarded::is_in(&self.rules.trusted, own) {
            return direct;
        }
        // A line that is no text is malformed, and so is the list.
        let lines = |name: &str| headers.get_all(name).into_iter().map(|line| line.to_str().unwrap_or("?"));
        let seen = match self.rules.proxy_header {
            ProxyHeader::XForwardedFor => {
                let (addresses, protocols) = (lines("x-forwarded-for"), lines("x-forwarded-proto"));
                forwarded::x_forwarded(addresses, protocols, &self.rules.trusted)
            }
            ProxyHeader::Forwarded => forwarded::forwarded(lines("forwarded"), &self.rules.trusted),
        };
        Client { address: seen.address.unwrap_or(own), is_secure: seen.is_secure.unwrap_or(peer.is_tls) }
    }

    /// A TCP connection. Those of trusted proxies carry others' requests, and only all connections together are limited for them.
    ///
    /// # Errors
    /// [`Limit::AddressConnections`].
    pub fn connection(self: &Arc<Self>, peer: IpAddr) -> Result<Place, Refusal> {
        if forwarded::is_in(&self.rules.trusted, peer) {
            return Ok(Place { gate: Arc::clone(self), what: Held::Connection, group: None });
        }
        self.hold(peer, Held::Connection, Limit::AddressConnections)
    }

    /// A TLS handshake.
    ///
    /// # Errors
    /// [`Limit::AddressHandshakes`], [`Limit::Handshakes`].
    pub fn tls_handshake(&self, peer: IpAddr) -> Result<(), Refusal> {
        if forwarded::is_in(&self.rules.trusted, peer) {
            return self.take(&self.handshakes, Limit::Handshakes);
        }
        self.handshake(peer)
    }

    /// A WebSocket that may say hello.
    ///
    /// # Errors
    /// [`Limit::AddressHandshakes`], [`Limit::Handshakes`], [`Limit::AddressHalfOpen`], [`Limit::HalfOpen`].
    pub fn half_open_websocket(self: &Arc<Self>, client: &Client) -> Result<Place, Refusal> {
        self.handshake(client.address)?;
        let place = self.hold(client.address, Held::HalfOpen, Limit::AddressHalfOpen);
        // Counted before it is looked at, so that two at once do not both find the last place; the place gives it back.
        let before = self.half_open.fetch_add(1, Ordering::Relaxed);
        match place {
            Ok(_) if before >= self.rules.limits.get(Limit::HalfOpen) => Err(self.refusal(Limit::HalfOpen, 1)),
            Ok(place) => Ok(place),
            Err(refusal) => {
                self.half_open.fetch_sub(1, Ordering::Relaxed);
                Err(refusal)
            }
        }
    }

    /// A session, and what it shares with the others of its address; nothing for one that is exempt or not known.
    ///
    /// # Errors
    /// [`Limit::AddressSessions`].
    pub fn session(self: &Arc<Self>, client: &Client) -> Result<(Place, Option<Arc<SharedAllowance>>), Refusal> {
        let place = self.hold(client.address, Held::Session, Limit::AddressSessions)?;
        let allowance = place.group.and_then(|group| {
            let mut part = self.part(group);
            let entry = part.entry(group, self.clock.now_us())?;
            Some(entry.allowance(|| SharedAllowance::of_address(&self.rules.limits)))
        });
        Ok((place, allowance))
    }

    /// A stream of events.
    ///
    /// # Errors
    /// [`Limit::AddressStreams`].
    pub fn stream(self: &Arc<Self>, client: &Client) -> Result<Place, Refusal> {
        self.hold(client.address, Held::Stream, Limit::AddressStreams)
    }

    /// An HTTP request.
    ///
    /// # Errors
    /// [`Limit::AddressRequests`], [`Limit::Requests`].
    pub fn request(&self, client: &Client) -> Result<(), Refusal> {
        self.take_of(client.address, Done::Request, Limit::AddressRequests)?;
        self.take(&self.requests, Limit::Requests)
    }

    /// A request to open a room.
    ///
    /// # Errors
    /// [`Limit::AddressRooms`], [`Limit::Rooms`].
    pub fn room(&self, client: &Client) -> Result<(), Refusal> {
        self.take_of(client.address, Done::Room, Limit::AddressRooms)?;
        self.take(&self.rooms, Limit::Rooms)
    }

    /// Whether a ticket of this client's is looked at. There is no such limit for all addresses together: by that strangers could keep every
    /// player out. What looking at tickets costs is bounded by the limits on handshakes.
    ///
    /// # Errors
    /// [`Limit::AddressBadTickets`].
    pub fn ticket(&self, client: &Client) -> Result<(), Refusal> {
        let rate = self.rules.limits.rate(Limit::AddressBadTickets);
        let checked = self.with(client.address, |entry, now_us| rate.check(*entry.done(Done::BadTicket), now_us));
        checked.unwrap_or(Ok(())).map_err(|wait_us| self.refusal(Limit::AddressBadTickets, wait_us))
    }

    /// A ticket of this client's opened nothing.
    pub fn bad_ticket(&self, client: &Client) {
        let rate = self.rules.limits.rate(Limit::AddressBadTickets);
        self.with(client.address, |entry, now_us| take_from(entry.done(Done::BadTicket), rate, now_us));
    }

    fn handshake(&self, address: IpAddr) -> Result<(), Refusal> {
        self.take_of(address, Done::Handshake, Limit::AddressHandshakes)?;
        self.take(&self.handshakes, Limit::Handshakes)
    }

    fn hold(self: &Arc<Self>, address: IpAddr, what: Held, limit: Limit) -> Result<Place, Refusal> {
        let max = self.rules.limits.get(limit);
        let held = self.with(address, |entry, _| {
            let held = entry.held(what);
            let has_place = u64::from(*held) < max;
            *held = held.saturating_add(u32::from(has_place));
            has_place
        });
        match held {
            Some(false) => Err(self.refusal(limit, 1)),
            Some(true) => Ok(Place { gate: Arc::clone(self), what, group: Some(group(address)) }),
            None => Ok(Place { gate: Arc::clone(self), what, group: None }),
        }
    }

    fn take_of(&self, address: IpAddr, what: Done, limit: Limit) -> Result<(), Refusal> {
        let rate = self.rules.limits.rate(limit);
        let taken = self.with(address, |entry, now_us| take_from(entry.done(what), rate, now_us));
        taken.unwrap_or(Ok(())).map_err(|wait_us| self.refusal(limit, wait_us))
    }

    /// Takes from a bucket for all addresses, without a lock.
    fn take(&self, bucket: &AtomicU64, limit: Limit) -> Result<(), Refusal> {
        let (rate, now_us) = (self.rules.limits.rate(limit), self.clock.now_us());
        let take = |bits| rate.take(Bucket::from_bits(bits), 1, now_us);
        let taken = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| take(bits).ok().map(Bucket::bits));
        match taken {
            Ok(_) => Ok(()),
            Err(bits) => Err(self.refusal(limit, take(bits).err().unwrap_or(1))),
        }
    }

    /// The entry of an address and the time; none if it is exempt or finds no place.
    fn with<T>(&self, address: IpAddr, act: impl FnOnce(&mut Entry, u64) -> T) -> Option<T> {
        if forwarded::is_in(&self.rules.exempt, address) {
            return None;
        }
        let (group, now_us) = (group(address), self.clock.now_us());
        let mut part = self.part(group);
        let acted = part.entry(group, now_us).map(|entry| act(entry, now_us));
        drop(part);
        if acted.is_none() {
            self.unknown.fetch_add(1, Ordering::Relaxed);
        }
        acted
    }

    fn part(&self, group: IpAddr) -> MutexGuard<'_, Addresses> {
        let at = self.part_of.hash_one(group) as usize % PARTS;
        // There are as many as PARTS, so `at` is one of them. Nothing panics while one is locked.
        #[allow(clippy::indexing_slicing)]
        self.parts[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusal(&self, limit: Limit, wait_us: u64) -> Refusal {
        self.refused.count(limit);
        let retry_after_s = wait_us.div_ceil(1_000_000).max(1);
        Refusal { limit, value: self.rules.limits.get(limit), retry_after_s }
    }
}

fn take_from(bucket: &mut Bucket, rate: Rate, now_us: u64) -> Result<(), u64> {
    *bucket = rate.take(*bucket, 1, now_us)?;
    Ok(())
}

/// Finds out who sends a request, and answers those who send too many.
pub(super) async fn admit(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    if let Some(peer) = request.extensions().get::<Peer>() {
        let client = gate.client(peer, request.headers());
        if let Err(refusal) = gate.request(&client) {
            return refusal.into_response();
        }
        // With the gate, for requests that go on to hold something.
        request.extensions_mut().insert(client);
        request.extensions_mut().insert(Arc::clone(&gate));
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(set: &[(Limit, u64)]) -> Arc<Gate> {
        let set: Vec<_> = set.iter().map(|(limit, value)| LimitSetting::new(*limit, *value)).collect();
        Gate::new(Rules { limits: Limits::new(&set).unwrap(), ..Rules::default() }, Clock::start())
    }

    fn client(address: &str) -> Client {
        Client { address: address.parse().unwrap(), is_secure: false }
    }

    #[test]
    fn one_address_is_limited_and_others_are_not() {
        let gate = gate(&[(Limit::AddressSessions, 2), (Limit::AddressRooms, 1)]);
        let ada = client("192.0.2.1");
        let places = [gate.session(&ada).unwrap(), gate.session(&ada).unwrap()];
        let refusal = gate.session(&ada).unwrap_err();
        assert_eq!((refusal.limit, refusal.value, refusal.retry_after_s), (Limit::AddressSessions, 2, 1));
        assert_eq!(gate.refused().get(Limit::AddressSessions), 1);
        gate.session(&client("192.0.2.2")).unwrap();
        let shared = |places: &(Place, Option<Arc<SharedAllowance>>)| places.1.clone().unwrap();
        assert!(Arc::ptr_eq(&shared(&places[0]), &shared(&places[1])));
        drop(places);
        gate.session(&ada).unwrap();
        gate.room(&ada).unwrap();
        assert_eq!(gate.room(&ada).unwrap_err().retry_after_s, 60);
        // One network of IPv6 is one address; this machine's own is exempt.
        gate.room(&client("2001:db8::1")).unwrap();
        gate.room(&client("2001:db8::2")).unwrap_err();
        for _ in 0..100 {
            gate.room(&client("127.0.0.1")).unwrap();
            gate.room(&client("::1")).unwrap();
        }
    }

    #[test]
    fn all_together_are_limited_wherever_they_come_from() {
        let gate = gate(&[(Limit::HalfOpen, 2), (Limit::Rooms, 3)]);
        let places: Vec<_> = (0..2).map(|_| gate.half_open_websocket(&client("127.0.0.1")).unwrap()).collect();
        let refusal = gate.half_open_websocket(&client("192.0.2.9")).unwrap_err();
        assert_eq!((refusal.limit, gate.half_open()), (Limit::HalfOpen, 2));
        drop(places);
        assert_eq!(gate.half_open(), 0);
        drop(gate.half_open_websocket(&client("192.0.2.9")).unwrap());
        for number in 0..3 {
            gate.room(&client(&format!("192.0.2.{number}"))).unwrap();
        }
        assert_eq!(gate.room(&client("192.0.2.4")).unwrap_err().limit, Limit::Rooms);
    }

    #[test]
    fn bad_tickets_close_the_door_for_their_address() {
        let gate = gate(&[(Limit::AddressBadTickets, 2)]);
        let eve = client("192.0.2.66");
        for _ in 0..2 {
            gate.ticket(&eve).unwrap();
            gate.bad_ticket(&eve);
        }
        assert_eq!(gate.ticket(&eve).unwrap_err().retry_after_s, 30);
        gate.ticket(&client("192.0.2.1")).unwrap();
    }

    #[test]
    fn strangers_cannot_fill_the_table_and_keep_others_out() {
        let gate = gate(&[(Limit::AddressConnections, 1)]);
        let stranger = |number: usize| IpAddr::from((0x0a00_0000 + number as u32).to_be_bytes());
        // Who holds something is never forgotten, however long this takes.
        let places: Vec<_> = (0..2 * ADDRESSES_MAX).map(|number| gate.connection(stranger(number)).unwrap()).collect();
        assert_eq!((gate.addresses(), gate.unknown()), (ADDRESSES_MAX, ADDRESSES_MAX as u64));
        let ada = client("192.0.2.1");
        for _ in 0..2 {
            gate.connection(ada.address).unwrap();
            gate.request(&ada).unwrap();
        }
        let refused = (0..2 * ADDRESSES_MAX).filter(|number| gate.connection(stranger(*number)).is_err()).count();
        assert_eq!(refused, ADDRESSES_MAX, "those that are known are limited");
        drop(places);
        assert!((0..100).all(|number| gate.connection(stranger(number)).is_ok()));
    }

    #[test]
    fn a_header_counts_only_from_a_trusted_proxy() {
        let peer = |address: &str| Peer::new(address.parse().unwrap(), false);
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "6.6.6.6".parse().unwrap());
        headers.append("x-forwarded-for", "192.0.2.1, 10.0.0.2".parse().unwrap());
        headers.append("x-forwarded-proto", "https".parse().unwrap());
        headers.append("forwarded", "for=6.6.6.6;proto=http".parse().unwrap());
        let rules = Rules { trusted: vec!["10.0.0.0/8".parse().unwrap()], ..Rules::default() };
        let gate = Gate::new(rules.clone(), Clock::start());
        let direct = gate.client(&peer("192.0.2.7:4711"), &headers);
        assert_eq!(direct, Client { is_secure: false, ..client("192.0.2.7") });
        let behind = gate.client(&peer("[::ffff:10.0.0.1]:4711"), &headers);
        assert_eq!(behind, Client { is_secure: true, ..client("192.0.2.1") });
        let standard = Gate::new(Rules { proxy_header: ProxyHeader::Forwarded, ..rules }, Clock::start());
        assert_eq!(standard.client(&peer("10.0.0.1:1"), &headers), client("6.6.6.6"));
        headers.append("x-forwarded-for", axum::http::HeaderValue::from_bytes(&[0xff]).unwrap());
        assert_eq!(gate.client(&peer("10.0.0.1:1"), &headers).address, client("10.0.0.1").address);
    }
}
