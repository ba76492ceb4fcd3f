//! The host's certificate and key: read from two PEM files, checked, and made into what a TLS connection needs.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Length of a PEM file that is read, in bytes: a chain of four certificates has 10 KiB.
const PEM_BYTES_MAX: u64 = 1 << 20;
/// The protocol that this port speaks, for clients that ask (ALPN, RFC 7301).
const ALPN: &[u8] = b"http/1.1";
/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// The files of a certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The host's certificate and, behind it, those that lead to its authority: PEM.
    pub certificate: PathBuf,
    /// The private key of the first of them: PEM of PKCS#8, PKCS#1 (RSA) or SEC1 (EC), not encrypted.
    pub key: PathBuf,
}

/// What the files of a pair hold.
pub(super) struct Bytes {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Bytes {
    /// Tells what the files hold from anything else.
    pub(super) fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(blake3::hash(&self.certificate).as_bytes());
        hasher.update(blake3::hash(&self.key).as_bytes());
        hasher.finalize()
    }
}

/// A certificate that can be shown.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// For new connections: TLS 1.2 and 1.3, no certificates of clients.
    pub config: Arc<ServerConfig>,
    /// Until when it is valid, in seconds since 1970.
    pub not_after_s: u64,
    /// What the files held.
    pub(super) files: blake3::Hash,
}

/// Why files are no certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {reason}. It is named by the setting `{setting}`")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        setting: &'static str,
        /// The system's reason.
        reason: String,
    },
    /// A file is not PEM.
    #[error("{path} is not PEM: {reason}. A PEM file is text with lines like `-----BEGIN CERTIFICATE-----`")]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no certificate in the file.
    #[error(
        "{path} holds no certificate (`BEGIN CERTIFICATE`); name the file of the whole chain with `tls_certificate`"
    )]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// There is no key in the file.
    #[error("{path} holds no private key (PKCS#8, PKCS#1 or SEC1){hint}")]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What to do about it, if that can be told.
        hint: &'static str,
    },
    /// The first certificate in the file is none that can be used.
    #[error("the first certificate in {path} cannot be used: {reason}")]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key is of no kind that can be used.
    #[error(
        "the key in {path} cannot be used: {reason}. RSA (2048 bits and more), ECDSA (P-256, P-384) and Ed25519 can"
    )]
    BadKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key are of two pairs.
    #[error(
        "the key in {key} does not belong to the first certificate in {certificate}; both must come from one request to the authority"
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate's time is over.
    #[error("the certificate in {path} expired {days} days ago; renew it at its authority")]
    Expired {
        /// The file.
        path: PathBuf,
        /// Since when, in whole days.
        days: u64,
    },
    /// The certificate's time has not come, or the machine's clock is wrong.
    #[error("the certificate in {path} is valid only from {days} days from now on; is this machine's clock right?")]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// When it will be, in days, rounded up.
        days: u64,
    },
}

impl Pair {
    /// Reads and checks both files. `now_s` is the time in seconds since 1970.
    ///
    /// # Errors
    /// [`TlsError`] with the file and what to do.
    pub fn load(&self, now_s: u64) -> Result<Certificate, TlsError> {
        self.check(&self.read()?, now_s)
    }

    pub(super) fn read(&self) -> Result<Bytes, TlsError> {
        let read = |path: &Path, setting| {
            read_bounded(path).map_err(|error| TlsError::Unreadable {
                path: path.to_owned(),
                setting,
                reason: error.to_string(),
            })
        };
        Ok(Bytes { certificate: read(&self.certificate, "tls_certificate")?, key: read(&self.key, "tls_key")? })
    }

    pub(super) fn check(&self, bytes: &Bytes, now_s: u64) -> Result<Certificate, TlsError> {
        let chain = self.chain(&bytes.certificate)?;
        let leaf = chain.first().ok_or_else(|| TlsError::NoCertificate { path: self.certificate.clone() })?;
        let not_after_s = self.in_time(leaf, now_s)?;
        let key = self.key(&bytes.key)?;
        let provider = rustls::crypto::ring::default_provider();
        let bad_key = |error: rustls::Error| TlsError::BadKey { path: self.key.clone(), reason: error.to_string() };
        let bad_certificate = |error: rustls::Error| TlsError::BadCertificate {
            path: self.certificate.clone(),
            reason: error.to_string(),
        };
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { certificate: self.certificate.clone(), key: self.key.clone() }
            }
            rustls::Error::InvalidCertificate(_) => bad_certificate(error),
            error => bad_key(error),
        })?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(bad_key)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Certificate { config: Arc::new(config), not_after_s, files: bytes.hash() })
    }

    fn chain(&self, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match chain {
            Ok(chain) if chain.is_empty() => {
                self.no_sections(&self.certificate, pem)?;
                Err(TlsError::NoCertificate { path: self.certificate.clone() })
            }
            Ok(chain) => Ok(chain),
            Err(error) => Err(TlsError::NotPem { path: self.certificate.clone(), reason: error.to_string() }),
        }
    }

    fn key(&self, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
        match PrivateKeyDer::from_pem_slice(pem) {
            Ok(key) => Ok(key),
            Err(rustls::pki_types::pem::Error::NoItemsFound) => {
                self.no_sections(&self.key, pem)?;
                let is_encrypted = find(pem, b"ENCRYPTED PRIVATE KEY") || find(pem, b"Proc-Type: 4,ENCRYPTED");
                let hint = if is_encrypted {
                    ": it is encrypted; write it without a password, `openssl pkey -in OLD -out NEW`"
                } else {
                    "; name the key's file with `tls_key`"
                };
                Err(TlsError::NoKey { path: self.key.clone(), hint })
            }
            Err(error) => Err(TlsError::NotPem { path: self.key.clone(), reason: error.to_string() }),
        }
    }

    /// Refuses a file that has no section of any kind.
    fn no_sections(&self, path: &Path, pem: &[u8]) -> Result<(), TlsError> {
        if find(pem, b"-----BEGIN ") {
            return Ok(());
        }
        // A SEQUENCE with a length of two bytes: the beginning of any certificate or key in DER.
        let reason = if pem.starts_with(&[0x30, 0x82]) {
            "it looks like DER; `openssl x509 -inform der` (or `openssl pkey -inform der`) makes PEM of it"
        } else if pem.is_empty() {
            "it is empty"
        } else {
            "it has no `BEGIN` line"
        };
        Err(TlsError::NotPem { path: path.to_owned(), reason: reason.into() })
    }

    /// The end of the certificate's time, if now is within it.
    fn in_time(&self, leaf: &CertificateDer<'_>, now_s: u64) -> Result<u64, TlsError> {
        let (_, parsed) = X509Certificate::from_der(leaf)
            .map_err(|error| TlsError::BadCertificate { path: self.certificate.clone(), reason: error.to_string() })?;
        let seconds = |at: i64| u64::try_from(at).unwrap_or_default();
        let not_before_s = seconds(parsed.validity().not_before.timestamp());
        let not_after_s = seconds(parsed.validity().not_after.timestamp());
        let path = || self.certificate.clone();
        if now_s > not_after_s {
            return Err(TlsError::Expired { path: path(), days: (now_s - not_after_s) / DAY_S });
        }
        if now_s < not_before_s {
            return Err(TlsError::NotYetValid { path: path(), days: (not_before_s - now_s).div_ceil(DAY_S) });
        }
        Ok(not_after_s)
    }
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    crate::files::open_regular(path)?.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        return Err(std::io::Error::other(format!("it has more than {PEM_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn find(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// 2026-01-01.
    pub(in crate::tls) const NOW_S: u64 = 1_767_225_600;

    /// A certificate for `localhost` that is valid for some days around [`NOW_S`], and its key: PEM.
    pub(in crate::tls) fn made(from_day: i64, to_day: i64) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let day = |day: i64| {
            let at = NOW_S as i64 + day * DAY_S as i64;
            std::time::UNIX_EPOCH + std::time::Duration::from_secs(at as u64)
        };
        parameters.not_before = day(from_day).into();
        parameters.not_after = day(to_day).into();
        (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn pair(dir: &Path, certificate: &[u8], key: &[u8]) -> Pair {
        let pair = Pair { certificate: dir.join("host.pem"), key: dir.join("host.key") };
        std::fs::write(&pair.certificate, certificate).unwrap();
        std::fs::write(&pair.key, key).unwrap();
        pair
    }

    #[test]
    fn a_pair_is_read_and_its_end_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = made(-1, 10);
        let loaded = pair(dir.path(), certificate.as_bytes(), key.as_bytes()).load(NOW_S).unwrap();
        assert_eq!(loaded.not_after_s, NOW_S + 10 * DAY_S);
        assert_eq!(loaded.config.alpn_protocols, [ALPN]);
        // One file for both is a habit of some tools.
        let both = format!("{key}\n{certificate}");
        pair(dir.path(), both.as_bytes(), both.as_bytes()).load(NOW_S).unwrap();
    }

    #[test]
    fn every_refusal_names_the_file_and_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = made(-1, 10);
        let (other, _) = made(-1, 10);
        let (expired, expired_key) = made(-10, -3);
        let (future, future_key) = made(3, 10);
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let cut = &certificate.as_bytes()[..certificate.len() / 2];
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let (certificate, key) = (certificate.as_bytes(), key.as_bytes());
        for (what, certificate, key, words) in [
            ("two pairs", other.as_bytes(), key, ["host.key", "does not belong"]),
            ("swapped files", key, certificate, ["host.pem", "no certificate"]),
            ("no key", certificate, certificate, ["host.key", "`tls_key`"]),
            ("an encrypted key", certificate, encrypted.as_bytes(), ["host.key", "openssl pkey"]),
            ("cut", cut, key, ["host.pem", "not PEM"]),
            ("empty", b"", key, ["host.pem", "it is empty"]),
            ("an empty key", certificate, b"", ["host.key", "it is empty"]),
            ("DER", &[0x30, 0x82, 1, 1], key, ["host.pem", "looks like DER"]),
            ("no DER inside", nonsense.as_bytes(), key, ["host.pem", "cannot be used"]),
            ("expired", expired.as_bytes(), expired_key.as_bytes(), ["host.pem", "expired 3 days ago"]),
            ("too early", future.as_bytes(), future_key.as_bytes(), ["host.pem", "3 days from now"]),
        ] {
            let error = pair(dir.path(), certificate, key).load(NOW_S).expect_err(what).to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{what}: {error}");
        }
        let absent = Pair { certificate: dir.path().join("none"), key: dir.path().join("host.key") };
        let error = absent.load(NOW_S).unwrap_err().to_string();
        assert!(error.contains("none") && error.contains("tls_certificate"), "{error}");
    }
}
