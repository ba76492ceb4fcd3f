//! TLS of this process: which cryptography, the host's certificate and key, and what replaces them when their files change. What is said over
//! a connection is the doors' business, and the trust that clients put into a certificate is `holeshot-client`'s.

pub mod certificate;
mod reload;

pub use certificate::{Certificate, Pair, TlsError};
pub use reload::{InForce, LOOK_EVERY_MS};

/// Makes ring the cryptography of every TLS connection of this process that names no other: the HTTP and MQTT clients panic without a
/// choice. May be called again and from anywhere; whoever chose first stays chosen.
pub fn install_provider() {
    let _chosen_before = rustls::crypto::ring::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_choice_stands_however_often_it_is_made() {
        super::install_provider();
        super::install_provider();
        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
    }
}
