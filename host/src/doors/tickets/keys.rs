//! The keys with which matchmakers sign tickets: read from files, read again when those change, and made for a matchmaker by `holeshot ticket-key`.
//! What a ticket says is the business of [`super`].
//!
//! # Files
//!
//! A file is one of
//!
//! - a JWK Set (RFC 7517, section 5): an object with `keys`, a list of keys; or one such key by itself;
//! - a public key of Ed25519 in PEM (`-----BEGIN PUBLIC KEY-----`, RFC 8410), as `openssl pkey -pubout` writes it. It has no `kid`.
//!
//! A key is an object:
//!
//! | field | of Ed25519 | of HMAC |
//! | --- | --- | --- |
//! | `kty` | `OKP` | `oct` |
//! | `crv` | `Ed25519` | – |
//! | `x`, `k` | `x`: the public key, 32 bytes, in base64 for URLs without padding | `k`: the secret, 32 to 512 bytes, likewise |
//! | `alg` | `EdDSA`, or absent | `HS256`, or absent |
//! | `kid` | its name, 1 to 128 bytes, or absent; no two keys have the same, and none is `host` | likewise |
//! | `use` | `sig`, or absent | likewise |
//!
//! A private key (`d`) is refused: it belongs to the matchmaker alone. Keys of other kinds (`kty`, `crv`) are passed over with a warning. A file has at most 64 KiB, and all
//! files together 16 keys.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Tickets;

/// The `kid` of the host's own key.
pub const HOST_KID: &str = "host";
/// Keys of matchmakers: a few matchmakers, each with the key before and the next one.
pub const KEYS_MAX: usize = 16;
/// Length of a file of keys, in bytes: ten times what 16 keys take.
pub const KEY_FILE_BYTES_MAX: u64 = 64 << 10;
/// Length of the longest `kid`, in bytes: twice a SHA-256 in hexadecimal.
pub const KID_BYTES_MAX: usize = 128;
/// Fewest bytes of a secret: as many as the hash has (RFC 7518, section 3.2).
pub const SECRET_BYTES_MIN: usize = 32;
/// Most bytes of a secret: more adds nothing to an HMAC with SHA-256.
pub const SECRET_BYTES_MAX: usize = 512;
/// How often the files are looked at, in milliseconds: reading a few KiB costs microseconds.
const LOOK_EVERY_MS: u64 = 1_000;

/// Before the 32 bytes of a public key of Ed25519 in DER (RFC 8410, section 4).
const PUBLIC_DER: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Before the 32 bytes of a private key of Ed25519 in PKCS #8 (RFC 8410, section 7).
const PRIVATE_DER: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Why keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the ticket keys in {path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// What is in it are no keys that can be used.
    #[error("the ticket keys in {path} cannot be used: {problem}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// There are too many.
    #[error("there are more than {KEYS_MAX} ticket keys; {path} has the first that is too many")]
    TooMany {
        /// The file.
        path: PathBuf,
    },
    /// The system gave no random bytes for a new one.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
    /// A new one could not be made.
    #[error("the key could not be made: {0}")]
    Made(String),
}

/// A key that checks tickets, with its one algorithm.
#[derive(Debug, Clone)]
pub struct TicketKey {
    kid: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

impl TicketKey {
    /// The host's own.
    pub(super) fn of_host(key: &[u8; 32]) -> Self {
        Self { kid: Some(HOST_KID.into()), algorithm: Algorithm::HS256, decoding: DecodingKey::from_secret(key) }
    }

    fn ed25519(kid: Option<String>, public: &[u8; 32]) -> Self {
        Self { kid, algorithm: Algorithm::EdDSA, decoding: DecodingKey::from_ed_der(public) }
    }

    pub(super) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) const fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

/// The keys of all matchmakers.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: Vec<TicketKey>,
}

impl KeySet {
    /// Reads the keys in some files.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn read(files: &[PathBuf]) -> Result<Self, KeyError> {
        let mut keys = Self::default();
        for path in files {
            let bytes = read_file(path)
                .map_err(|error| KeyError::Unreadable { path: path.clone(), reason: error.to_string() })?;
            keys.add(path, &bytes)?;
        }
        Ok(keys)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key of a ticket, or what there is none for.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&TicketKey, String> {
        if let Some(kid) = kid {
            return self
                .keys
                .iter()
                .find(|key| key.kid.as_deref() == Some(kid))
                .ok_or_else(|| format!("there is none with the `kid` {kid:?}"));
        }
        let mut fitting = self.keys.iter().filter(|key| key.algorithm == algorithm);
        let nameless = || self.keys.iter().filter(|key| key.algorithm == algorithm && key.kid.is_none());
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(format!("there is none for {algorithm:?}")),
            _ => match (nameless().next(), nameless().nth(1)) {
                (Some(only), None) => Ok(only),
                _ => Err("there are several; the ticket must name one with `kid`".into()),
            },
        }
    }

    /// Adds the keys of a file.
    pub(crate) fn add(&mut self, path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
        let unusable = |problem: String| KeyError::Unusable { path: path.to_path_buf(), problem };
        if bytes.len() as u64 > KEY_FILE_BYTES_MAX {
            return Err(unusable(format!("the file has more than {} KiB", KEY_FILE_BYTES_MAX >> 10)));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| unusable("the file is not text".into()))?;
        let found = if text.trim_start().starts_with('{') { of_json(text, path) } else { of_pem(text) };
        let found = found.map_err(unusable)?;
        if found.is_empty() {
            return Err(unusable("it has no key of Ed25519 or HMAC".into()));
        }
        for key in found {
            if self.keys.len() >= KEYS_MAX {
                return Err(KeyError::TooMany { path: path.to_path_buf() });
            }
            if key.kid.is_some() && self.keys.iter().any(|other| other.kid == key.kid) {
                let kid = key.kid.unwrap_or_default();
                return Err(unusable(format!("its key {kid:?} has the `kid` of another one")));
            }
            self.keys.push(key);
        }
        Ok(())
    }
}

fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One more, so that a longer one is seen to be too long.
    crate::files::open_regular(path)?.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    k: Option<String>,
    d: Option<serde::de::IgnoredAny>,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Value>,
}

fn of_json(text: &str, path: &Path) -> Result<Vec<TicketKey>, String> {
    let whole: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    let list = if whole.get("keys").is_some() {
        JwkSet::deserialize(whole).map_err(|error| format!("it is no JWK Set: {error}"))?.keys
    } else {
        vec![whole]
    };
    let mut keys = Vec::new();
    for (number, value) in list.into_iter().enumerate() {
        // Before it is read as ours: of other kinds nothing is known.
        let kind = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        if !matches!((kind("kty").as_str(), kind("crv").as_str()), ("OKP", "Ed25519") | ("oct", _)) {
            tracing::warn!(path = %path.display(), key = number, kty = kind("kty"), "a ticket key that is neither Ed25519 (OKP) nor HMAC (oct) is passed over");
            continue;
        }
        let key = Jwk::deserialize(value).map_err(|error| format!("keys[{number}]: {error}"))?;
        keys.push(of_jwk(key).map_err(|problem| format!("keys[{number}]: {problem}"))?);
    }
    Ok(keys)
}

fn of_jwk(key: Jwk) -> Result<TicketKey, String> {
    let Jwk { kty, crv, x, k, d, kid, alg, usage } = key;
    if let Some(kid) = &kid {
        if !(1..=KID_BYTES_MAX).contains(&kid.len()) {
            return Err(format!("its `kid` has {} bytes; accepted: 1 to {KID_BYTES_MAX}", kid.len()));
        }
        if kid == HOST_KID {
            return Err(format!("the `kid` {HOST_KID:?} is the host's own key's"));
        }
    }
    if usage.as_deref().is_some_and(|usage| usage != "sig") {
        return Err("its `use` is not sig".into());
    }
    let field = |name: &str, text: Option<String>| {
        let text = text.ok_or_else(|| format!("its `{name}` is missing"))?;
        URL_SAFE_NO_PAD.decode(text).map_err(|error| format!("its `{name}` is not base64 for URLs: {error}"))
    };
    match (kty.as_str(), alg.as_deref()) {
        ("OKP", None | Some("EdDSA")) if crv.as_deref() == Some("Ed25519") => {
            if d.is_some() {
                return Err(
                    "it is a private key (`d`): the host needs the public one only; keep this one with the matchmaker"
                        .into(),
                );
            }
            let x = field("x", x)?;
            let public = <[u8; 32]>::try_from(x).map_err(|x| format!("its `x` has {} bytes instead of 32", x.len()))?;
            Ok(TicketKey::ed25519(kid, &public))
        }
        ("oct", None | Some("HS256")) => {
            let secret = field("k", k)?;
            if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
                return Err(format!(
                    "its `k` has {} bytes; accepted: {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}",
                    secret.len()
                ));
            }
            Ok(TicketKey { kid, algorithm: Algorithm::HS256, decoding: DecodingKey::from_secret(&secret) })
        }
        (_, Some(alg)) => Err(format!("its `alg` is {alg:?}; accepted: EdDSA for Ed25519, HS256 for HMAC")),
        _ => Err("it is neither of Ed25519 nor of HMAC".into()),
    }
}

fn of_pem(text: &str) -> Result<Vec<TicketKey>, String> {
    if text.contains("PRIVATE KEY") {
        return Err("it is a private key: the host needs the public one only (openssl pkey -pubout); keep this one with the matchmaker".into());
    }
    let not_ours = || "it is neither a JWK Set nor a public key of Ed25519 in PEM".to_owned();
    let (_, rest) = text.split_once("-----BEGIN PUBLIC KEY-----").ok_or_else(not_ours)?;
    let (body, after) = rest.split_once("-----END PUBLIC KEY-----").ok_or_else(not_ours)?;
    if after.contains("-----BEGIN") {
        return Err("it has more than one PEM block; one public key is in a file, or several in a JWK Set".into());
    }
    let base64: String = body.split_whitespace().collect();
    let der = STANDARD.decode(base64).map_err(|error| format!("its PEM is not base64: {error}"))?;
    let public = der.strip_prefix(&PUBLIC_DER).and_then(|key| <[u8; 32]>::try_from(key).ok());
    let public = public.ok_or("it is a public key of another kind than Ed25519")?;
    Ok(vec![TicketKey::ed25519(None, &public)])
}

/// A pair of keys for a matchmaker.
pub struct KeyPair {
    /// The private key, PKCS #8 in PEM: what most JWT libraries read, and `openssl`.
    pub private_pem: String,
    /// The public key, a JWK with `kid`.
    pub public_jwk: Value,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("public_jwk", &self.public_jwk).finish_non_exhaustive()
    }
}

impl KeyPair {
    /// Makes a pair of Ed25519. Its `kid` is the one given, or comes from the key.
    ///
    /// # Errors
    /// [`KeyError::Random`] or [`KeyError::Made`].
    pub fn make(kid: Option<&str>) -> Result<Self, KeyError> {
        let seed = crate::identity::random::<32>().map_err(|error| KeyError::Random(error.to_string()))?;
        let der = [&PRIVATE_DER[..], &seed].concat();
        let made = |problem: String| KeyError::Made(problem);
        let key = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(der.as_slice()))
            .map_err(|error| made(error.to_string()))?;
        let public = key.public_key().ok_or_else(|| made("there is no public part".into()))?;
        let public = public
            .as_ref()
            .strip_prefix(&PUBLIC_DER)
            .filter(|public| public.len() == 32)
            .ok_or_else(|| made("the public part is not one of Ed25519".into()))?;
        let named_by_key = || blake3::hash(public).to_hex().chars().take(16).collect::<String>();
        let kid = kid.map_or_else(named_by_key, str::to_owned);
        let x = URL_SAFE_NO_PAD.encode(public);
        let public_jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "alg": "EdDSA", "use": "sig" });
        // It has to be one that a host takes.
        Jwk::deserialize(&public_jwk).map_err(|error| error.to_string()).and_then(of_jwk).map_err(made)?;
        let private_pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
        Ok(Self { private_pem, public_jwk })
    }
}

/// Looks at the files for as long as the host runs: keys that changed take the place of those before, unless they cannot be used.
pub(crate) fn watch(files: Vec<PathBuf>, tickets: Arc<Tickets>) -> Option<tokio::task::JoinHandle<()>> {
    if files.is_empty() {
        return None;
    }
    Some(tokio::spawn(async move {
        let mut known = None;
        let mut looks = tokio::time::interval(Duration::from_millis(LOOK_EVERY_MS));
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let now = look(files.clone()).await;
            if known.as_ref() == Some(&now) {
                continue;
            }
            // The first look finds what was read at the start, unless it changed in between.
            let is_news = known.is_some();
            let mut keys = KeySet::default();
            let read = files.iter().zip(&now).try_for_each(|(path, bytes)| match bytes {
                Ok(bytes) => keys.add(path, bytes),
                Err(reason) => Err(KeyError::Unreadable { path: path.clone(), reason: reason.clone() }),
            });
            match read {
                Ok(()) => {
                    if is_news {
                        tracing::info!(keys = keys.len(), "the ticket keys changed; the new ones count from now on");
                    }
                    tickets.set_matchmakers(keys);
                }
                Err(error) => tracing::warn!(%error, "the ticket keys changed and are refused; those before stay"),
            }
            known = Some(now);
        }
    }))
}

/// What is in the files, or why it cannot be read.
async fn look(files: Vec<PathBuf>) -> Vec<Result<Vec<u8>, String>> {
    let look = move || files.iter().map(|path| read_file(path).map_err(|error| error.to_string())).collect();
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}
