//! Whom a client trusts when it speaks TLS, and what goes wrong there in words.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, RootCertStore};

/// Whom a client trusts: the authorities that may sign a host's certificate. A copy is cheap.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

/// Why there is nobody to trust.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The text is not PEM.
    #[error("the certificates to trust are not PEM: {reason}")]
    NotPem {
        /// What is wrong with it.
        reason: String,
    },
    /// There is no certificate in it that can be used.
    #[error("there is no certificate to trust: {reason}")]
    None {
        /// Where one was looked for.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {reason}")]
    Setup {
        /// Why.
        reason: String,
    },
}

impl Trust {
    /// The authorities that this machine trusts.
    ///
    /// # Errors
    /// [`TrustError::None`] if the machine has none, or none that can be read.
    pub fn system() -> Result<Self, TrustError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _odd) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let reason = found.errors.first().map_or_else(|| "this machine has none".to_owned(), ToString::to_string);
            return Err(TrustError::None { reason: format!("{reason}; install the package ca-certificates") });
        }
        Self::of(roots)
    }

    /// The authorities in this text (PEM), and no others. A certificate that is its own authority counts.
    ///
    /// # Errors
    /// All of [`TrustError`].
    pub fn only(pem: &[u8]) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| TrustError::NotPem { reason: error.to_string() })?;
            roots.add(certificate).map_err(|error| TrustError::None { reason: error.to_string() })?;
        }
        if roots.is_empty() {
            return Err(TrustError::None { reason: "the text has no `BEGIN CERTIFICATE`".into() });
        }
        Self::of(roots)
    }

    fn of(roots: RootCertStore) -> Result<Self, TrustError> {
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| TrustError::Setup { reason: error.to_string() })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// The settings of rustls behind it.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }
}

impl From<Arc<ClientConfig>> for Trust {
    /// Any settings of rustls: client certificates, other checks.
    fn from(config: Arc<ClientConfig>) -> Self {
        Self(config)
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

impl PartialEq for Trust {
    /// Whether both are copies of one.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Trust {}

/// What TLS had against the other side, in words, if the error or what it stands for is TLS's.
#[must_use]
pub fn tls_problem(error: &(dyn Error + 'static)) -> Option<String> {
    let mut error = Some(error);
    // A chain of errors has a handful of links; one that goes round would have no end.
    for _ in 0..16 {
        let link = error?;
        if let Some(tls) = link.downcast_ref::<rustls::Error>() {
            return Some(words(tls));
        }
        error = match link.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            // An I/O error's source is that of the error inside it, which would be left out.
            Some(inside) => Some(inside),
            None => link.source(),
        };
    }
    None
}

fn words(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(reason) = error else {
        return match error {
            rustls::Error::InvalidMessage(_) => "what answers does not speak TLS there".into(),
            rustls::Error::AlertReceived(alert) => format!("the host ended the handshake: {alert:?}"),
            error => error.to_string(),
        };
    };
    match reason {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "nobody who is trusted here has signed the host's certificate; if it is of your own making, trust its authority".into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the host's certificate has expired, or this machine's clock is wrong".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the host's certificate is not valid yet, or this machine's clock is wrong".into()
        }
        CertificateError::NotValidForName => "the host's certificate is for another name".into(),
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!("the host's certificate is for another name: {}", presented.join(", "))
        }
        CertificateError::Revoked => "the host's certificate was revoked".into(),
        other => format!("the host's certificate cannot be used: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tls_error_is_found_however_deep_it_is() {
        let tls = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let deep = std::io::Error::other(std::io::Error::other(tls()));
        assert!(tls_problem(&deep).unwrap().contains("trust its authority"));
        assert!(tls_problem(&tls()).is_some());
        assert_eq!(tls_problem(&std::io::Error::other("else")), None);
        let handshake = tokio_tungstenite::tungstenite::Error::Io(std::io::Error::other(tls()));
        assert!(tls_problem(&handshake).is_some());
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        for (pem, words) in [
            ("", "no `BEGIN CERTIFICATE`"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate to trust"),
            ("-----BEGIN CERTIFICATE-----\nAA", "not PEM"),
        ] {
            let error = Trust::only(pem.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
