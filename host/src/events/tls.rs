//! TLS to a broker: whom to believe, what to show, and what went wrong, in words with the next step. The host's own certificate, which it
//! shows to players, is the business of [`crate::tls`].

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

/// Largest file of certificates or of a key, in bytes: the roots of a whole system are a fifth of it.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Whom to believe and what to show, ready for connections.
#[derive(Debug, Clone)]
pub struct Tls(Arc<ClientConfig>);

/// Two are equal if they are the same one: a configuration cannot be compared.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Tls {}

/// Files that cannot be used for TLS to a broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path} (`{setting}`): {reason}")]
    Unreadable {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// A file does not hold what it should.
    #[error("{path} (`{setting}`) holds no {wanted}")]
    NotPem {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// An authority's certificate cannot be used.
    #[error("a certificate in {path} (`broker_ca`) cannot be used: {reason}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A certificate without key, or the other way round.
    #[error("`{there}` is set without `{missing}`; a certificate is of no use without its key: set both or none")]
    Half {
        /// The one.
        there: &'static str,
        /// The other.
        missing: &'static str,
    },
    /// Certificate and key are not of one pair.
    #[error(
        "the key in {key} (`broker_key`) does not fit the certificate in {certificate} (`broker_certificate`): {reason}"
    )]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The system has no authorities.
    #[error(
        "this system has no certificates of authorities ({reason}): name a file with `broker_ca`, or install them (Debian: ca-certificates)"
    )]
    NoRoots {
        /// What the search for them met.
        reason: String,
    },
    /// The library refuses.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

impl Tls {
    /// Reads the files: authorities (without any, those of the system), and what to show to the broker, if anything.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(ca: Option<&Path>, certificate: Option<&Path>, key: Option<&Path>) -> Result<Self, TlsError> {
        let roots = match ca {
            Some(path) => authorities(path)?,
            None => system_authorities()?,
        };
        let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(setup)?
            .with_root_certificates(roots);
        let config = match (certificate, key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(_), None) => return Err(TlsError::Half { there: "broker_certificate", missing: "broker_key" }),
            (None, Some(_)) => return Err(TlsError::Half { there: "broker_key", missing: "broker_certificate" }),
            (Some(certificate), Some(key)) => {
                let chain = certificates("broker_certificate", certificate)?;
                let private = PrivateKeyDer::from_pem_slice(&read("broker_key", key)?).map_err(|_| TlsError::NotPem {
                    setting: "broker_key",
                    path: key.to_owned(),
                    wanted: "private key in PEM (`-----BEGIN PRIVATE KEY-----`; one with a password must be decrypted first)",
                })?;
                builder.with_client_auth_cert(chain, private).map_err(|error| TlsError::Pair {
                    certificate: certificate.to_owned(),
                    key: key.to_owned(),
                    reason: error.to_string(),
                })?
            }
        };
        Ok(Self(Arc::new(config)))
    }

    /// The configuration, for a connection.
    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let wrong = |reason: String| TlsError::Unreadable { setting, path: path.to_owned(), reason };
    let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| wrong(error.to_string()))?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(wrong(format!("it has more than {FILE_MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(setting, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| TlsError::NotPem {
        setting,
        path: path.to_owned(),
        wanted: "certificate in PEM (`-----BEGIN CERTIFICATE-----`)",
    })
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("broker_ca", path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Authority { path: path.to_owned(), reason: error.to_string() })?;
    }
    Ok(roots)
}

fn system_authorities() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems hold some that are too old for anybody.
    let (taken, _passed_over) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        let reason = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TlsError::NoRoots { reason });
    }
    Ok(roots)
}

/// What went wrong while TLS was set up with the broker.
pub(super) fn explain_client(error: &rumqttc::TlsError) -> String {
    let io = match error {
        rumqttc::TlsError::Io(error) => error,
        rumqttc::TlsError::TLS(error) => return explain(error),
        rumqttc::TlsError::DNSName(_) => {
            return "TLS: the broker's name in the URL is none that a certificate can have".to_owned();
        }
        other => return format!("TLS: {other}"),
    };
    match io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => explain(error),
        None => format!("TLS: {io}; does the broker speak TLS on this port?"),
    }
}

fn explain(error: &rustls::Error) -> String {
    use CertificateError as Wrong;
    use rustls::Error;
    let next = match error {
        Error::InvalidCertificate(wrong) => match wrong {
            Wrong::UnknownIssuer | Wrong::BadSignature => {
                "nobody whom this side believes vouches for the broker's certificate: name the file of its authority (or the certificate \
                 itself, if it is self-signed) with `broker_ca`"
            }
            Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => {
                "the broker's certificate is for another name: write the name in it into `broker`, or give the broker a certificate for \
                 the name that you use"
            }
            Wrong::Expired | Wrong::ExpiredContext { .. } => {
                "the broker's certificate has expired: renew it, and check the clock of this machine"
            }
            Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => {
                "the broker's certificate is not valid yet: check the clocks of both machines"
            }
            Wrong::Revoked => "the broker's certificate is revoked: give the broker a new one",
            Wrong::InvalidPurpose | Wrong::InvalidPurposeContext { .. } => {
                "the broker's certificate is not for servers: make one that is"
            }
            _ => "the broker's certificate cannot be used",
        },
        Error::InvalidMessage(_) => {
            "the broker speaks no TLS on this port: write mqtt://, or the port on which it does"
        }
        Error::AlertReceived(alert) => of_alert(*alert),
        _ => "TLS failed",
    };
    format!("{next} ({error})")
}

fn of_alert(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "the broker wants a certificate from this side: set `broker_certificate` and `broker_key`"
        }
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::UnsupportedCertificate => {
            "the broker refuses the certificate of this side: show one with `broker_certificate` that its authority has signed and that is valid"
        }
        AlertDescription::HandshakeFailure => {
            "the broker refuses to speak: it may want a certificate (`broker_certificate`, `broker_key`), or know no TLS 1.2 or 1.3"
        }
        AlertDescription::ProtocolVersion => "the broker knows no TLS 1.2 or 1.3: bring it up to date",
        _ => "the broker ended TLS",
    }
}

/// Alerts that come after TLS is set up reach us as the text of another error. In TLS 1.3 a refused client certificate is one of them.
pub(super) fn explain_alert(text: String) -> String {
    let alerts = [
        AlertDescription::CertificateRequired,
        AlertDescription::UnknownCA,
        AlertDescription::BadCertificate,
        AlertDescription::CertificateUnknown,
        AlertDescription::CertificateExpired,
        AlertDescription::CertificateRevoked,
        AlertDescription::UnsupportedCertificate,
        AlertDescription::DecryptError,
        AlertDescription::HandshakeFailure,
    ];
    // rustls writes an alert by its name.
    match alerts.into_iter().find(|alert| text.contains(&format!("fatal alert: {alert:?}"))) {
        Some(alert) => format!("{} ({text})", of_alert(alert)),
        None => text,
    }
}
