//! How our clients reach a broker: the settings as people write them, and the same checked. Connecting is the business of
//! [`super::link`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use serde::Deserialize;

use super::tls::{Tls, TlsError};

/// Port of an MQTT broker whose URL names none (IANA).
const MQTT_PORT: u16 = 1883;

/// The same with TLS.
const MQTTS_PORT: u16 = 8883;

/// Connections in MQTT 3.1.1 after a silence in MQTT 5, without one in MQTT 5 between, after which the latter is no longer tried: a broker
/// that dies at the wrong moment is silent, too, but not so often in a row.
const SILENCES_MAX: u8 = 3;

/// Longest password, in bytes: MQTT has two bytes for its length.
const PASSWORD_MAX_BYTES: u64 = 65_535;

/// A password as a setting: it never appears in logs.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl Secret {
    /// The password itself, for the one place that sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// Which MQTT to speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
pub enum Protocol {
    /// 5 where the broker speaks it, else 3.1.1.
    #[default]
    #[serde(rename = "auto")]
    #[value(name = "auto")]
    Auto,
    /// 3.1.1.
    #[serde(rename = "3.1.1")]
    #[value(name = "3.1.1")]
    V311,
    /// 5.
    #[serde(rename = "5")]
    #[value(name = "5")]
    V5,
}

/// The MQTT of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1.
    V311,
    /// 5.
    V5,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V311 => "3.1.1",
            Self::V5 => "5",
        })
    }
}

/// What this process has learnt of a broker: silences in MQTT 5 in a row, at most [`SILENCES_MAX`], after which it is not tried. Shared by
/// the connections to the broker; equal to any other, as it is no setting.
#[derive(Debug, Clone, Default)]
struct Learnt(Arc<AtomicU8>);

impl PartialEq for Learnt {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Learnt {}

/// Where a broker is and how it is entered, as a person says it. The names are those of the host's own settings, which have them once more: a settings file
/// refuses keys that it does not know, and serde cannot do that for a struct within a struct.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct BrokerSettings {
    /// The MQTT broker: mqtt://host or mqtt://host:port, with TLS mqtts://
    #[arg(long, env = "HOLESHOT_BROKER", value_name = "URL")]
    pub broker: Option<String>,
    /// User name, if the broker wants one
    #[arg(long, env = "HOLESHOT_BROKER_USERNAME", value_name = "NAME")]
    pub broker_username: Option<String>,
    /// Password of that user. Other users of this machine see a command line: prefer the file
    #[arg(long, env = "HOLESHOT_BROKER_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    pub broker_password: Option<Secret>,
    /// File whose first line is that password
    #[arg(long, env = "HOLESHOT_BROKER_PASSWORD_FILE", value_name = "FILE")]
    pub broker_password_file: Option<PathBuf>,
    /// File (PEM) of the authorities that may vouch for the broker's certificate [default: those of the system]
    #[arg(long, env = "HOLESHOT_BROKER_CA", value_name = "FILE")]
    pub broker_ca: Option<PathBuf>,
    /// File (PEM) of a certificate to show to the broker, with those between it and its authority
    #[arg(long, env = "HOLESHOT_BROKER_CERTIFICATE", value_name = "FILE")]
    pub broker_certificate: Option<PathBuf>,
    /// File (PEM) of the private key of that certificate
    #[arg(long, env = "HOLESHOT_BROKER_KEY", value_name = "FILE")]
    pub broker_key: Option<PathBuf>,
    /// Which MQTT to speak; auto: 5 where the broker does [default: auto]
    #[arg(long, env = "HOLESHOT_BROKER_PROTOCOL", value_name = "VERSION")]
    pub broker_protocol: Option<Protocol>,
}

/// Settings of a broker that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The URL cannot be read.
    #[error("{url:?} is not the URL of a broker: {reason}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// No URL where one is needed.
    #[error("no broker is named: give its address with --broker mqtt://host:port")]
    Missing,
    /// A setting says how to enter a broker that is not named.
    #[error("setting `{setting}` is for a broker elsewhere; name that with `broker`, or leave `{setting}` out")]
    NoBroker {
        /// The setting.
        setting: &'static str,
    },
    /// A setting of TLS for a broker without.
    #[error(
        "setting `{setting}` is for TLS, but the broker's URL begins with mqtt://; write mqtts://, or leave `{setting}` out"
    )]
    NoTls {
        /// The setting.
        setting: &'static str,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A password for nobody.
    #[error("a password is set for the broker, but no `broker_username`; MQTT 3.1.1 knows no password without one")]
    NoUsername,
    /// Two passwords.
    #[error("`broker_password` and `broker_password_file` are both set; leave one of them out")]
    TwoPasswords,
    /// The file of the password cannot be used.
    #[error("cannot take the broker's password from {path} (`broker_password_file`): {reason}")]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// The system's reason, or what is wrong with the content.
        reason: String,
    },
}

/// How a client of ours reaches a broker.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerAccess {
    /// Host name or address; an IPv6 address in brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User name, if the broker wants one.
    pub username: Option<String>,
    /// Password of that user.
    pub password: Option<String>,
    /// How to know the broker, and be known, over TLS; none without TLS.
    pub tls: Option<Tls>,
    /// Which MQTT to speak.
    pub protocol: Protocol,
    learnt: Learnt,
}

impl fmt::Debug for BrokerAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password stays out of logs.
        f.debug_struct("BrokerAccess")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("username", &self.username)
            .field("tls", &self.tls.is_some())
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

impl BrokerSettings {
    /// Checks the settings and reads the files that they name. None without a URL.
    ///
    /// # Errors
    /// [`AccessError`]: the first setting that cannot be used.
    pub fn resolve(&self) -> Result<Option<BrokerAccess>, AccessError> {
        let Some(url) = &self.broker else {
            let settings = [
                ("broker_username", self.broker_username.is_some()),
                ("broker_password", self.broker_password.is_some()),
                ("broker_password_file", self.broker_password_file.is_some()),
                ("broker_ca", self.broker_ca.is_some()),
                ("broker_certificate", self.broker_certificate.is_some()),
                ("broker_key", self.broker_key.is_some()),
            ];
            return match settings.into_iter().find(|(_, is_set)| *is_set) {
                Some((setting, _)) => Err(AccessError::NoBroker { setting }),
                None => Ok(None),
            };
        };
        let password = match (&self.broker_password, &self.broker_password_file) {
            (Some(_), Some(_)) => return Err(AccessError::TwoPasswords),
            (Some(password), None) => Some(password.reveal().to_owned()),
            (None, Some(path)) => Some(password_of(path)?),
            (None, None) => None,
        };
        if password.is_some() && self.broker_username.is_none() {
            return Err(AccessError::NoUsername);
        }
        let mut access = BrokerAccess::from_url(url, self.broker_username.clone(), password)?;
        access.protocol = self.broker_protocol.unwrap_or_default();
        let files = [
            ("broker_ca", &self.broker_ca),
            ("broker_certificate", &self.broker_certificate),
            ("broker_key", &self.broker_key),
        ];
        if is_tls(url) {
            let [ca, certificate, key] = files.map(|(_, file)| file.as_deref());
            if access.host.starts_with('[') {
                let reason = "TLS to an IPv6 address is not possible here: write the broker's name";
                return Err(AccessError::Url { url: url.clone(), reason });
            }
            access.tls = Some(Tls::new(ca, certificate, key)?);
        } else if let Some((setting, _)) = files.into_iter().find(|(_, file)| file.is_some()) {
            return Err(AccessError::NoTls { setting });
        } else if access.password.is_some() && !access.is_on_this_machine() {
            tracing::warn!(
                broker = access.host,
                "the broker's password goes over the network unencrypted; write mqtts:// if the broker speaks TLS"
            );
        }
        Ok(Some(access))
    }
}

fn is_tls(url: &str) -> bool {
    url.starts_with("mqtts://") || url.starts_with("ssl://")
}

fn password_of(path: &Path) -> Result<String, AccessError> {
    let wrong = |reason: String| AccessError::PasswordFile { path: path.to_owned(), reason };
    let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut text = String::new();
    // A line end and one byte more than a password may have.
    let mut start = std::io::Read::take(file, PASSWORD_MAX_BYTES + 3);
    std::io::Read::read_to_string(&mut start, &mut text).map_err(|error| wrong(error.to_string()))?;
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() {
        return Err(wrong("its first line is empty".to_owned()));
    }
    if password.len() as u64 > PASSWORD_MAX_BYTES {
        return Err(wrong(format!("its first line has more than {PASSWORD_MAX_BYTES} bytes")));
    }
    Ok(password.to_owned())
}

impl BrokerAccess {
    /// Reads `mqtt://host`, `mqtt://host:port` or `mqtt://[address]:port`; the same with `mqtts`, which does not set [`BrokerAccess::tls`].
    ///
    /// # Errors
    /// [`AccessError::Url`], with what is wrong.
    pub fn from_url(url: &str, username: Option<String>, password: Option<String>) -> Result<Self, AccessError> {
        let wrong = |reason: &'static str| AccessError::Url { url: url.to_owned(), reason };
        let rest = ["mqtt://", "mqtts://", "tcp://", "ssl://"].into_iter().find_map(|scheme| url.strip_prefix(scheme));
        let rest = rest.ok_or_else(|| wrong("it must begin with mqtt:// or mqtts://"))?;
        let default_port = if is_tls(url) { MQTTS_PORT } else { MQTT_PORT };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err(AccessError::Url {
                // What stands before the @ may be a password.
                url: format!("…@{}", rest.rsplit('@').next().unwrap_or_default()),
                reason: "give the user name and the password as settings of their own, not in the URL",
            });
        }
        if rest.contains(['/', '?', '#', ' ']) {
            return Err(wrong("nothing may follow the port"));
        }
        let (host, port) = match rest.rsplit_once(':') {
            // The colons of a bracketed IPv6 address are not the port's.
            Some((host, port)) if !port.ends_with(']') => (
                host,
                port.parse()
                    .ok()
                    .filter(|&port| port != 0)
                    .ok_or_else(|| wrong("the port must be a number from 1 to 65535"))?,
            ),
            _ => (rest, default_port),
        };
        let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        if host.is_empty() || bare_v6 {
            return Err(wrong("it names no host (an IPv6 address is written in brackets)"));
        }
        Ok(Self::new(host.to_owned(), port, username, password))
    }

    /// Access without TLS.
    #[must_use]
    pub fn new(host: String, port: u16, username: Option<String>, password: Option<String>) -> Self {
        Self { host, port, username, password, tls: None, protocol: Protocol::Auto, learnt: Learnt::default() }
    }

    fn is_on_this_machine(&self) -> bool {
        let address = self.host.trim_start_matches('[').trim_end_matches(']');
        self.host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Which MQTT to try next.
    pub(super) fn version(&self) -> Version {
        match self.protocol {
            Protocol::V311 => Version::V311,
            Protocol::Auto if self.learnt.0.load(Ordering::Relaxed) >= SILENCES_MAX => Version::V311,
            Protocol::Auto | Protocol::V5 => Version::V5,
        }
    }

    /// The broker took a connection in MQTT 5.
    pub(super) fn speaks_5(&self) {
        self.learnt.0.store(0, Ordering::Relaxed);
    }

    /// The broker took a connection in MQTT 3.1.1 after it refused MQTT 5, by name or by silence.
    pub(super) fn speaks_311(&self, by_name: bool) {
        let learnt = &self.learnt.0;
        let _before = learnt.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |silences| {
            Some(if by_name { SILENCES_MAX } else { silences.saturating_add(1).min(SILENCES_MAX) })
        });
        if learnt.load(Ordering::Relaxed) == SILENCES_MAX {
            tracing::debug!(broker = self.host, "the broker speaks MQTT 3.1.1 only; 5 is no longer tried");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_brokers_are_read_strictly() {
        let read = |url: &str| BrokerAccess::from_url(url, None, None);
        let access = read("mqtt://broker.example:1884/").unwrap();
        assert_eq!((access.host.as_str(), access.port), ("broker.example", 1884));
        let access = read("mqtt://[::1]").unwrap();
        assert_eq!((access.host.as_str(), access.port), ("[::1]", 1883));
        assert_eq!(read("mqtts://x").unwrap().port, 8883);
        for url in [
            "broker.example",
            "http://x",
            "mqtts://x/topic",
            "mqtt://",
            "mqtt://x:0",
            "mqtt://x:99999",
            "mqtt://::1",
            "mqtt://x/topic",
            "mqtt://:1883",
            "mqtt://x:",
        ] {
            let error = read(url).unwrap_err();
            assert!(error.to_string().contains(url), "{error}");
        }
    }

    #[test]
    fn mqtt_5_is_tried_until_the_broker_has_shown_often_enough_that_it_has_none() {
        let access = BrokerAccess::from_url("mqtt://x", None, None).unwrap();
        let another_link = access.clone();
        assert_eq!(access.version(), Version::V5);
        for _ in 0..2 {
            access.speaks_311(false);
            another_link.speaks_311(false);
            assert_eq!(access.version(), Version::V5);
            access.speaks_5();
        }
        for _ in 0..SILENCES_MAX {
            another_link.speaks_311(false);
        }
        assert_eq!(access.version(), Version::V311);
        let by_name = BrokerAccess::from_url("mqtt://x", None, None).unwrap();
        by_name.speaks_311(true);
        assert_eq!(by_name.version(), Version::V311);
        for (protocol, version) in [(Protocol::V311, Version::V311), (Protocol::V5, Version::V5)] {
            assert_eq!(BrokerAccess { protocol, ..by_name.clone() }.version(), version);
        }
    }

    #[test]
    fn passwords_are_taken_from_one_place_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "hidden\nnot this\n").unwrap();
        let settings = BrokerSettings {
            broker: Some("mqtt://x".to_owned()),
            broker_username: Some("pit".to_owned()),
            broker_password: Some("hidden".parse().unwrap()),
            ..BrokerSettings::default()
        };
        let access = settings.resolve().unwrap().unwrap();
        assert!(!format!("{settings:?} {access:?}").contains("hidden"));
        let both = BrokerSettings { broker_password_file: Some(path.clone()), ..settings.clone() };
        assert_eq!(both.resolve(), Err(AccessError::TwoPasswords));
        let file = BrokerSettings { broker_password: None, ..both.clone() };
        assert_eq!(file.resolve(), Ok(Some(access)));
        let nobody = BrokerSettings { broker_username: None, ..file.clone() };
        assert_eq!(nobody.resolve(), Err(AccessError::NoUsername));
        let nowhere = BrokerSettings { broker: None, ..file.clone() };
        assert_eq!(nowhere.resolve(), Err(AccessError::NoBroker { setting: "broker_username" }));
        assert_eq!(BrokerSettings::default().resolve(), Ok(None));
        for content in [&b""[..], b"\nhidden", &[b'x'; 65_536], b"hid\xffden"] {
            std::fs::write(&path, content).unwrap();
            let error = file.resolve().unwrap_err().to_string();
            assert!(error.contains("password_file") && !error.contains("hid"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(file.resolve().unwrap_err().to_string().contains(path.to_str().unwrap()));
        let in_url = BrokerSettings { broker: Some("mqtt://pit:hidden@x".to_owned()), ..settings };
        let error = in_url.resolve().unwrap_err().to_string();
        assert!(error.contains("settings of their own") && !error.contains("hidden"), "{error}");
    }
}
