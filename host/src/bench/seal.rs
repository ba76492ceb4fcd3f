//! `holeshot bench seal`: what it takes to seal and to open one datagram, as the host does it (ring), with the AEAD that `holeshot-wire` brings itself
//! (chacha20poly1305), and beside both, as the limit, ring alone: no header, no sequence, no replay window, no copy.
//!
//! The keys are those of real handshakes, one per session, and the sessions take turns, as players do. The three take turns by rounds, so that
//! whatever else the machine does meets all of them. A datagram that does not open, or to another length, ends the measurement; whether the bytes are the
//! same is tested in `holeshot_seal`.

use std::fmt::Write as _;
use std::time::Instant;

use holeshot_seal::RingCipher;
use holeshot_wire::cipher::NONCE_BYTES;
use holeshot_wire::datagram::{DATAGRAM_BYTES_MAX, HEADER_BYTES, PAYLOAD_BYTES_MAX, TAG_BYTES};
use holeshot_wire::{Cipher, ClientHandshake, HostKeypair, Opener, PortableCipher, Sealer, accept};
use serde::Serialize;

use super::{Cost, cost, head};

/// Most sessions: what one shard can name.
const SESSIONS_MAX: u32 = 1 << 16;
/// Most rounds: a minute's worth.
const ROUNDS_MAX: usize = 100_000;

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Sizes of payloads, in bytes, each 1 to 1,171.
    pub payload_bytes: Vec<usize>,
    /// Sessions that take turns.
    pub sessions: u32,
    /// Times that each session seals and opens a datagram of each size.
    pub rounds: usize,
}

impl Default for Options {
    /// An input with its repetitions, a snapshot of a small room, and one of a large room.
    fn default() -> Self {
        Self { payload_bytes: vec![64, 300, 1_100], sessions: 256, rounds: 300 }
    }
}

/// Figures for one size and one direction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Row {
    /// Size of the payload, in bytes.
    pub payload_bytes: usize,
    /// `seal` or `open`.
    pub what: &'static str,
    /// ring alone: the limit.
    pub limit: Cost,
    /// As the host does it.
    pub host: Cost,
    /// The median of the host over that of the limit.
    pub ratio: f64,
    /// With chacha20poly1305.
    pub portable: Cost,
    /// The median of chacha20poly1305 over that of the limit.
    pub portable_ratio: f64,
}

/// All figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether this program was built with optimisation. Without it the figures mean little.
    pub optimised: bool,
    /// Sessions that took turns.
    pub sessions: u32,
    /// Rounds.
    pub rounds: usize,
    /// Two rows per size.
    pub rows: Vec<Row>,
}

/// Why there are no figures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BenchError {
    /// An option is out of its range.
    #[error("{0}")]
    Option(String),
    /// Something sealed did not open, or to something else.
    #[error("{who} does not open what it sealed: a payload of {payload_bytes} bytes")]
    Differs {
        /// Which implementation.
        who: &'static str,
        /// The size of the payload, in bytes.
        payload_bytes: usize,
    },
    /// No session came about.
    #[error("no keys for the sessions: {0}")]
    Keys(#[from] holeshot_wire::HandshakeError),
}

/// Measures.
///
/// # Errors
/// An option out of range, or an implementation that does not open what it sealed.
pub fn run(options: &Options) -> Result<Report, BenchError> {
    let Options { payload_bytes, sessions, rounds } = options;
    if let Some(bytes) = payload_bytes.iter().find(|bytes| !(1..=PAYLOAD_BYTES_MAX).contains(*bytes)) {
        return Err(BenchError::Option(format!("a payload has 1 to {PAYLOAD_BYTES_MAX} bytes, not {bytes}")));
    }
    if !(1..=SESSIONS_MAX).contains(sessions) || !(1..=ROUNDS_MAX).contains(rounds) {
        return Err(BenchError::Option(format!(
            "1 to {SESSIONS_MAX} sessions and 1 to {ROUNDS_MAX} rounds can be measured, not {sessions} and {rounds}"
        )));
    }
    let mut limit = (0..*sessions).map(Alone::new).collect::<Vec<_>>();
    let (mut host, mut portable) = (Vec::new(), Vec::new());
    for session in 0..*sessions {
        host.push(Session::<RingCipher>::begin(session)?);
        portable.push(Session::<PortableCipher>::begin(session)?);
    }
    let mut rows = Vec::new();
    for &bytes in payload_bytes {
        let payload: Vec<u8> = (0..bytes).map(|index| index as u8).collect();
        // Seal and open of the limit, the host and the portable one, in nanoseconds per datagram.
        let mut ns: [[Vec<f64>; 2]; 3] = Default::default();
        limit.iter_mut().for_each(|alone| alone.fill(&payload));
        for _ in 0..*rounds {
            let round = [
                turn("ring", &mut limit, &payload, Alone::seal, Alone::open)?,
                turn("ring in the host", &mut host, &payload, Session::seal, Session::open)?,
                turn("chacha20poly1305", &mut portable, &payload, Session::seal, Session::open)?,
            ];
            for (all, one) in ns.iter_mut().zip(round) {
                all.iter_mut().zip(one).for_each(|(all, one)| all.push(one));
            }
        }
        let [limit_ns, host_ns, portable_ns] = ns.map(|both| both.map(|ns| cost(&ns)));
        for (what, ((limit, host), portable)) in
            ["seal", "open"].into_iter().zip(limit_ns.into_iter().zip(host_ns).zip(portable_ns))
        {
            let (ratio, portable_ratio) = (host.median_ns / limit.median_ns, portable.median_ns / limit.median_ns);
            rows.push(Row { payload_bytes: bytes, what, limit, host, ratio, portable, portable_ratio });
        }
    }
    Ok(Report { optimised: !cfg!(debug_assertions), sessions: *sessions, rounds: *rounds, rows })
}

/// Every session seals a datagram, then every session opens its own. Gives the nanoseconds of each for one datagram.
fn turn<T>(
    who: &'static str,
    sessions: &mut [T],
    payload: &[u8],
    seal: impl Fn(&mut T, &[u8]) -> bool,
    open: impl Fn(&mut T) -> Option<&[u8]>,
) -> Result<[f64; 2], BenchError> {
    let differs = BenchError::Differs { who, payload_bytes: payload.len() };
    let count = sessions.len() as f64;
    let begun = Instant::now();
    let sealed = sessions.iter_mut().all(|session| seal(session, payload));
    let seal_ns = begun.elapsed().as_nanos() as f64 / count;
    let begun = Instant::now();
    let opened = sessions.iter_mut().all(|session| open(session).is_some_and(|opened| opened.len() == payload.len()));
    let open_ns = begun.elapsed().as_nanos() as f64 / count;
    if sealed && opened { Ok([seal_ns, open_ns]) } else { Err(differs) }
}

/// Both ends of one direction of a session.
struct Session<C> {
    sealer: Sealer<C>,
    opener: Opener<C>,
    datagram: Vec<u8>,
}

impl<C: Cipher> Session<C> {
    fn begin(number: u32) -> Result<Self, holeshot_wire::HandshakeError> {
        let keypair = HostKeypair::from_private([1; 32])?;
        let (handshake, message_1) = ClientHandshake::start(&keypair.public(), "ticket", seed(number))?;
        let (host_keys, message_2) = accept(&keypair, "ticket", &message_1, seed(!number))?;
        let (_, opener) = handshake.finish(&message_2)?.into_client_with(number);
        let (sealer, _) = host_keys.into_host_with(number);
        Ok(Self { sealer, opener, datagram: Vec::with_capacity(DATAGRAM_BYTES_MAX) })
    }

    fn seal(&mut self, payload: &[u8]) -> bool {
        self.sealer.seal_bytes(payload, &mut self.datagram).is_ok()
    }

    fn open(&mut self) -> Option<&[u8]> {
        self.opener.open(&mut self.datagram).ok().map(|opened| opened.payload)
    }
}

/// A key of ring and a payload with its tag, which is sealed and opened where it lies.
struct Alone {
    cipher: RingCipher,
    sealed: Vec<u8>,
}

impl Alone {
    const HEADER: [u8; HEADER_BYTES] = [1; HEADER_BYTES];
    /// The same each time: what is sealed here goes nowhere.
    const NONCE: [u8; NONCE_BYTES] = [2; NONCE_BYTES];

    fn new(number: u32) -> Self {
        Self { cipher: RingCipher::new(&seed(number)), sealed: Vec::with_capacity(DATAGRAM_BYTES_MAX) }
    }

    fn fill(&mut self, payload: &[u8]) {
        self.sealed.clear();
        self.sealed.extend_from_slice(payload);
        self.sealed.extend_from_slice(&[0; TAG_BYTES]);
    }

    fn seal(&mut self, _: &[u8]) -> bool {
        let Some((payload, tag)) = self.sealed.split_last_chunk_mut::<TAG_BYTES>() else { return false };
        let made = self.cipher.seal(&Self::NONCE, &Self::HEADER, payload);
        made.map(|made| *tag = made).is_some()
    }

    fn open(&mut self) -> Option<&[u8]> {
        self.cipher.open(&Self::NONCE, &Self::HEADER, &mut self.sealed)
    }
}

fn seed(number: u32) -> [u8; 32] {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    seed
}

impl Report {
    /// The figures as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = head(self.optimised);
        let _infallible = writeln!(
            text,
            "one datagram on one core, {} sessions in turn, {} rounds; ns (min / median), times ring alone\n",
            self.sessions, self.rounds
        );
        text.push_str("payload bytes   what    ring alone        the host   ratio   chacha20poly1305   ratio\n");
        for row in &self.rows {
            let cost = |cost: Cost| format!("{:.0} / {:.0}", cost.min_ns, cost.median_ns);
            let _infallible = writeln!(
                text,
                "{:>13}   {}   {:>11}   {:>13}   {:>5.2}   {:>16}   {:>5.2}",
                row.payload_bytes,
                row.what,
                cost(row.limit),
                cost(row.host),
                row.ratio,
                cost(row.portable),
                row.portable_ratio
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_sealed_and_opened_by_all_three() {
        let options = Options { payload_bytes: vec![1, PAYLOAD_BYTES_MAX], sessions: 3, rounds: 5 };
        let report = run(&options).unwrap();
        let rows: Vec<_> = report.rows.iter().map(|row| (row.payload_bytes, row.what)).collect();
        assert_eq!(rows, [(1, "seal"), (1, "open"), (PAYLOAD_BYTES_MAX, "seal"), (PAYLOAD_BYTES_MAX, "open")]);
        for row in &report.rows {
            for cost in [row.limit, row.host, row.portable] {
                assert!(cost.min_ns > 0.0 && cost.median_ns >= cost.min_ns, "{row:?}");
            }
        }
        assert_eq!(report.table().matches("open").count(), 2, "{}", report.table());
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let options = Options::default();
        for payload_bytes in [vec![0], vec![64, PAYLOAD_BYTES_MAX + 1]] {
            assert!(matches!(run(&Options { payload_bytes, ..options.clone() }), Err(BenchError::Option(_))));
        }
        assert!(run(&Options { sessions: 0, ..options.clone() }).is_err());
        assert!(run(&Options { rounds: 0, ..options }).is_err());
    }
}
