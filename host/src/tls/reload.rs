//! The certificate in force, and what replaces it when its files change. Both files are read once a second, a few kilobytes: times and sizes
//! do not tell when a link is pointed elsewhere, which is how certificates are often renewed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::task::{JoinHandle, spawn_blocking};

use super::certificate::{Certificate, Pair, TlsError};
use crate::clock::unix_ms;

/// How often the files are looked at, in milliseconds; both must be the same in two looks before they are taken.
pub const LOOK_EVERY_MS: u64 = 1_000;
const DAY_S: u64 = 86_400;
/// How long before its end a certificate is warned of, in seconds: 14 days. Tools renew a month before.
const WARN_S: u64 = 14 * DAY_S;
/// How often, in seconds.
const WARN_EVERY_S: u64 = DAY_S;

/// The certificate that new connections are shown.
#[derive(Debug)]
pub struct InForce {
    config: RwLock<Arc<ServerConfig>>,
    not_after_s: AtomicU64,
    /// What the files held when the host started.
    at_start: blake3::Hash,
}

impl InForce {
    /// This one, until it is replaced.
    #[must_use]
    pub fn new(certificate: Certificate) -> Self {
        let Certificate { config, not_after_s, files } = certificate;
        Self { config: RwLock::new(config), not_after_s: AtomicU64::new(not_after_s), at_start: files }
    }

    /// For a new connection.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        // Nothing panics while it is held; if it did, the pointer would still be whole.
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Until when the certificate is valid, in seconds since 1970.
    #[must_use]
    pub fn not_after_s(&self) -> u64 {
        self.not_after_s.load(Ordering::Relaxed)
    }

    fn replace(&self, certificate: Certificate) {
        let Certificate { config, not_after_s, .. } = certificate;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        self.not_after_s.store(not_after_s, Ordering::Relaxed);
    }

    /// Looks at the files again and again until it is aborted. What does not fit is refused in the log, and what is in force stays. Warns once a day of a
    /// certificate that runs out, or has.
    pub fn follow(self: Arc<Self>, pair: Pair) -> JoinHandle<()> {
        tokio::spawn(async move {
            let mut watched = Watched::new(pair, self.at_start);
            let mut reminder = Reminder::default();
            loop {
                if let Some(end) = reminder.look(self.not_after_s(), unix_ms() / 1_000) {
                    end.warn(&watched.pair);
                }
                let look = spawn_blocking(move || {
                    let seen = watched.look(unix_ms() / 1_000);
                    (watched, seen)
                });
                // The runtime is ending.
                let Ok((next, seen)) = look.await else { return };
                watched = next;
                match seen {
                    Seen::Nothing => {}
                    Seen::New(certificate) => {
                        tracing::info!(
                            valid_until_s = certificate.not_after_s,
                            "new connections get the certificate that is in the files now"
                        );
                        self.replace(certificate);
                    }
                    Seen::Refused(error) => {
                        tracing::warn!("the certificate in force stays; what is in the files now is refused: {error}");
                    }
                }
                tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
            }
        })
    }
}

/// What is to be said of a certificate's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It comes in so many whole days.
    Soon { days: u64 },
    /// It was so many whole days ago.
    Past { days: u64 },
}

impl End {
    fn warn(self, pair: &Pair) {
        let path = pair.certificate.display();
        match self {
            Self::Soon { days } => {
                tracing::warn!(%path, days, "the certificate expires soon; renew it, the host takes the new files by itself");
            }
            Self::Past { days } => {
                tracing::warn!(%path, days, "the certificate has expired, and clients refuse it; renew it, the host takes the new files by itself");
            }
        }
    }
}

/// When a certificate's end was told of last. Pure: the time is an argument.
#[derive(Debug, Default)]
struct Reminder {
    /// Its end, when that was told, and whether it was past then.
    told: Option<(u64, u64, bool)>,
}

impl Reminder {
    /// What is to be said now: once a day, and at once when it has come to its end or is another one. A clock that was set back is no reason for silence.
    fn look(&mut self, not_after_s: u64, now_s: u64) -> Option<End> {
        if now_s.saturating_add(WARN_S) <= not_after_s {
            return None;
        }
        let is_past = now_s > not_after_s;
        let is_told = self.told.is_some_and(|(of, at_s, was_past)| {
            of == not_after_s && was_past == is_past && (at_s..at_s.saturating_add(WARN_EVERY_S)).contains(&now_s)
        });
        if is_told {
            return None;
        }
        self.told = Some((not_after_s, now_s, is_past));
        let days = now_s.abs_diff(not_after_s) / DAY_S;
        Some(if is_past { End::Past { days } } else { End::Soon { days } })
    }
}

/// What a look at the files tells.
#[derive(Debug)]
enum Seen {
    /// Nothing that was not seen before, or nothing that has settled yet.
    Nothing,
    /// Another certificate with its key.
    New(Certificate),
    /// Something that cannot be used; told once.
    Refused(TlsError),
}

/// The files, and what was seen of them.
#[derive(Debug)]
struct Watched {
    pair: Pair,
    /// At the last look.
    last: Option<blake3::Hash>,
    /// What was taken or refused last.
    judged: blake3::Hash,
    unreadable: Option<TlsError>,
}

impl Watched {
    /// `in_force` is what was read from the files before.
    const fn new(pair: Pair, in_force: blake3::Hash) -> Self {
        Self { pair, last: None, judged: in_force, unreadable: None }
    }

    fn look(&mut self, now_s: u64) -> Seen {
        let bytes = match self.pair.read() {
            Ok(bytes) => bytes,
            Err(error) => {
                self.last = None;
                if self.unreadable.as_ref() == Some(&error) {
                    return Seen::Nothing;
                }
                self.unreadable = Some(error.clone());
                return Seen::Refused(error);
            }
        };
        self.unreadable = None;
        let now = bytes.hash();
        let has_settled = self.last.replace(now) == Some(now);
        if !has_settled || self.judged == now {
            return Seen::Nothing;
        }
        self.judged = now;
        match self.pair.check(&bytes, now_s) {
            Ok(certificate) => Seen::New(certificate),
            Err(error) => Seen::Refused(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificate::tests::{NOW_S, made};
    use super::*;

    fn write(pair: &Pair, (certificate, key): &(String, String)) {
        std::fs::write(&pair.certificate, certificate).unwrap();
        std::fs::write(&pair.key, key).unwrap();
    }

    #[test]
    fn the_end_is_told_once_a_day_and_at_once_when_it_comes() {
        let (end, mut reminder) = (100 * DAY_S, Reminder::default());
        let mut told = Vec::new();
        // As often as the files are looked at would be long; every minute of twenty days.
        for now_s in (end - 17 * DAY_S..end + 3 * DAY_S).step_by(60) {
            told.extend(reminder.look(end, now_s));
        }
        let soon = (0..14).rev().map(|days| End::Soon { days });
        let past = (0..3).map(|days| End::Past { days });
        assert_eq!(told, [End::Soon { days: 13 }].into_iter().chain(soon.skip(1)).chain(past).collect::<Vec<_>>());
        // Another one that is no better, a better one, and a clock that is set back.
        let now_s = end + 3 * DAY_S;
        assert_eq!(reminder.look(now_s + 1, now_s), Some(End::Soon { days: 0 }));
        assert_eq!(reminder.look(now_s + 90 * DAY_S, now_s), None);
        assert_eq!(reminder.look(end, now_s), Some(End::Past { days: 3 }));
        assert_eq!(reminder.look(end, now_s - DAY_S), Some(End::Past { days: 2 }));
        assert_eq!(reminder.look(end, now_s - DAY_S + 1), None);
    }

    #[test]
    fn a_new_pair_is_taken_once_both_files_have_settled_and_a_bad_one_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let pair = Pair { certificate: dir.path().join("host.pem"), key: dir.path().join("host.key") };
        let first = made(-1, 10);
        write(&pair, &first);
        let mut watched = Watched::new(pair.clone(), pair.load(NOW_S).unwrap().files);
        let mut look = || watched.look(NOW_S);
        for _ in 0..3 {
            assert!(matches!(look(), Seen::Nothing), "what is in force is no news");
        }
        // Half of a new pair, for as long as the other half takes to come: refused, and told once.
        let second = made(-1, 20);
        std::fs::write(&pair.certificate, &second.0).unwrap();
        assert!(matches!(look(), Seen::Nothing), "not settled");
        assert!(matches!(look(), Seen::Refused(TlsError::Mismatch { .. })));
        assert!(matches!(look(), Seen::Nothing));
        write(&pair, &second);
        assert!(matches!(look(), Seen::Nothing), "not settled");
        let Seen::New(taken) = look() else { panic!("the new pair is not taken") };
        assert_eq!(taken.not_after_s, NOW_S + 20 * 86_400);
        // Gone, and back as it was.
        std::fs::remove_file(&pair.key).unwrap();
        assert!(matches!(look(), Seen::Refused(TlsError::Unreadable { .. })));
        assert!(matches!(look(), Seen::Nothing));
        write(&pair, &second);
        for _ in 0..3 {
            assert!(matches!(look(), Seen::Nothing));
        }
        write(&pair, &made(-10, -5));
        look();
        assert!(matches!(look(), Seen::Refused(TlsError::Expired { days: 5, .. })));
        // The one before it again: that is in force, and may be told again.
        write(&pair, &second);
        look();
        assert!(matches!(look(), Seen::New(_)));
    }
}
