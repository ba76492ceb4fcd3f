//! What makes a host the same host after a restart: its id, the key that signs its tickets, and its static key of the handshake.
//! Made at the first start, kept in one file that only its owner may read.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holeshot_wire::HostKeypair;
use serde::{Deserialize, Serialize};

use crate::files::{Readers, open_regular, write_whole};

/// The host's id and secrets.
#[derive(Clone)]
pub struct Identity {
    /// 1 to 64 characters of `a-z 0-9 -`: it stands in topics and records.
    pub host_id: String,
    /// Signs tickets (HMAC-SHA-256).
    pub ticket_key: [u8; 32],
    /// The static key of the Noise handshake.
    pub keypair: HostKeypair,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("host_id", &self.host_id).finish_non_exhaustive()
    }
}

/// Why there is no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The file could not be read or written.
    #[error(
        "cannot {what} {path}: {reason}. Check that the data folder belongs to the user that runs the host, and that its disk is not full"
    )]
    File {
        /// read, write
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// The file is not one that a host wrote.
    #[error(
        "{path} is damaged: {problem}. Restore it from a backup, or delete it: the host then makes a new identity, and tickets given out before are void"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The system gave no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    host_id: String,
    ticket_key: String,
    handshake_key: String,
}

/// Longest such file, in bytes: some 200, and what an editor may add. Another cannot be read as one.
const IDENTITY_BYTES_MAX: u64 = 4 << 10;
/// Name of the file in the data folder.
pub const IDENTITY_FILE: &str = "identity.json";

impl Identity {
    /// Reads the identity in a data folder, or makes one.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load_or_create(data_dir: &Path) -> Result<Self, IdentityError> {
        let path = data_dir.join(IDENTITY_FILE);
        let mut bytes = Vec::new();
        // One more than it may have, so that a longer one is seen not to be one.
        let read = open_regular(&path).and_then(|file| file.take(IDENTITY_BYTES_MAX + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) => Self::parse(&bytes).map_err(|problem| IdentityError::Damaged { path, problem }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::create(&path),
            Err(error) => Err(IdentityError::File { what: "read", path, reason: error.to_string() }),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let stored: Stored = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let key = |field: &str, text: &str| -> Result<[u8; 32], String> {
            let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| format!("`{field}`: {error}"))?;
            <[u8; 32]>::try_from(bytes).map_err(|bytes| format!("`{field}` has {} bytes instead of 32", bytes.len()))
        };
        let id_is_fine = (1..=64).contains(&stored.host_id.len())
            && stored.host_id.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if !id_is_fine {
            return Err(format!("`host_id` is {:?}, not 1 to 64 characters of a-z, 0-9 and -", stored.host_id));
        }
        Ok(Self {
            host_id: stored.host_id,
            ticket_key: key("ticket_key", &stored.ticket_key)?,
            keypair: HostKeypair::from_private(key("handshake_key", &stored.handshake_key)?)
                .map_err(|error| format!("`handshake_key`: {error}"))?,
        })
    }

    fn create(path: &Path) -> Result<Self, IdentityError> {
        let ticket_key = random::<32>()?;
        let handshake_key = random::<32>()?;
        let keypair = HostKeypair::from_private(handshake_key)
            .map_err(|error| IdentityError::Damaged { path: path.to_path_buf(), problem: error.to_string() })?;
        let id = random::<5>()?;
        let host_id = id.iter().fold(String::from("host-"), |text, byte| text + &format!("{byte:02x}"));
        let stored = Stored {
            host_id,
            ticket_key: URL_SAFE_NO_PAD.encode(ticket_key),
            handshake_key: URL_SAFE_NO_PAD.encode(handshake_key),
        };
        let file_error = |error: std::io::Error| IdentityError::File {
            what: "write",
            path: path.to_path_buf(),
            reason: error.to_string(),
        };
        let text = serde_json::to_string_pretty(&stored)
            .map_err(|error| file_error(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
        write_whole(path, text.as_bytes(), Readers::Owner).map_err(file_error)?;
        Ok(Self { host_id: stored.host_id, ticket_key, keypair })
    }
}

/// Random bytes from the system.
///
/// # Errors
/// [`IdentityError::Random`] where the system has none.
pub fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| IdentityError::Random(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_stays_the_same_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(dir.path()).unwrap();
        let second = Identity::load_or_create(dir.path()).unwrap();
        assert_eq!((&first.host_id, first.ticket_key), (&second.host_id, second.ticket_key));
        assert_eq!(first.keypair.public(), second.keypair.public());
        assert!(!format!("{first:?}").contains(&URL_SAFE_NO_PAD.encode(first.ticket_key)));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(dir.path().join(IDENTITY_FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_file_is_named_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(IDENTITY_FILE);
        for (text, word) in [
            (&b""[..], "EOF"),
            (b"\xff\xfe\x00", "expected value"),
            (b"{\"host_id\":\"a\",\"ticket_key\":\"AA\",\"handshake_key\":\"AA\"}", "ticket_key"),
            (b"{\"host_id\":\"A/b\",\"ticket_key\":\"AA\",\"handshake_key\":\"AA\"}", "host_id"),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = Identity::load_or_create(dir.path()).unwrap_err().to_string();
            assert!(message.contains(word) && message.contains("delete it"), "{message}");
            assert_eq!(std::fs::read(&path).unwrap(), text);
        }
    }
}
