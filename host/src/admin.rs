//! The admin token: who shows it may change the rules of this host. Made at the first start, kept in a file of the data folder that only its
//! owner may read; a command on the same machine reads it there. It is in no log and in no error.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::files::{Readers, open_regular, write_whole};
use crate::identity::random;

/// Name of the file in the data folder.
pub const ADMIN_TOKEN_FILE: &str = "admin-token";
/// Fewest characters of a token. 32 random bytes make 43; a person may write a shorter one into the file, but none that can be guessed.
pub const TOKEN_CHARS_MIN: usize = 20;
/// Most characters of a token: it has to fit into a header with room to spare.
pub const TOKEN_CHARS_MAX: usize = 256;

/// A secret word, compared in a time that tells nothing about it.
#[derive(Clone)]
pub struct AdminToken {
    text: String,
    hash: blake3::Hash,
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken")
    }
}

/// Why there is no admin token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminTokenError {
    /// The file could not be read or written.
    #[error(
        "cannot {what} {path}: {reason}. Only the user that runs the host may read it: use that user, or give the token itself"
    )]
    File {
        /// read, write
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// The file has something else in it.
    #[error(
        "{path} has no token in it: needed are {TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} characters of A-Z, a-z, 0-9, - and _ on one line. Delete the \
         file, and the host makes a new one at its next start"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The system gave no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

impl AdminToken {
    /// Reads the token in a data folder, or makes one.
    ///
    /// # Errors
    /// See [`AdminTokenError`].
    pub fn load_or_create(data_dir: &Path) -> Result<Self, AdminTokenError> {
        let path = data_dir.join(ADMIN_TOKEN_FILE);
        match path.try_exists() {
            Ok(false) => Self::create(&path),
            _ => Self::load(data_dir),
        }
    }

    /// Reads the token in a data folder.
    ///
    /// # Errors
    /// [`AdminTokenError::File`] or [`AdminTokenError::Damaged`].
    pub fn load(data_dir: &Path) -> Result<Self, AdminTokenError> {
        let path = data_dir.join(ADMIN_TOKEN_FILE);
        let unreadable = |error: std::io::Error| AdminTokenError::File {
            what: "read",
            path: path.clone(),
            reason: error.to_string(),
        };
        let file = open_regular(&path).map_err(unreadable)?;
        warn_if_others_read(&file, &path);
        let mut bytes = Vec::new();
        // One more than a token with its line's end has, so that a longer one is seen to be too long.
        file.take(TOKEN_CHARS_MAX as u64 + 3).read_to_end(&mut bytes).map_err(unreadable)?;
        let text = String::from_utf8(bytes).ok().and_then(|text| Self::parse(text.trim_end()));
        text.ok_or(AdminTokenError::Damaged { path })
    }

    /// A token that a person gave; none if it cannot be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fine = (TOKEN_CHARS_MIN..=TOKEN_CHARS_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        fine.then(|| Self { text: text.to_owned(), hash: blake3::hash(text.as_bytes()) })
    }

    /// Whether this is the token. Takes as long for a near miss as for nonsense: hashes are compared, by blake3's comparison in constant time.
    #[must_use]
    pub fn is(&self, shown: &str) -> bool {
        self.hash == blake3::hash(shown.as_bytes())
    }

    /// The token itself, for the header of a request.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }

    fn create(path: &Path) -> Result<Self, AdminTokenError> {
        let mut bytes = random::<32>().map_err(|error| AdminTokenError::Random(error.to_string()))?;
        // Without its first bit it begins with a letter, never with the dash of an option: it is given on command lines.
        bytes[0] &= 0x7f;
        let text = URL_SAFE_NO_PAD.encode(bytes);
        write_whole(path, format!("{text}\n").as_bytes(), Readers::Owner).map_err(|error| AdminTokenError::File {
            what: "write",
            path: path.to_path_buf(),
            reason: error.to_string(),
        })?;
        let hash = blake3::hash(text.as_bytes());
        Ok(Self { text, hash })
    }
}

/// A file that was copied about may have become readable for everyone on the machine.
#[cfg(unix)]
fn warn_if_others_read(file: &std::fs::File, path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0) {
        tracing::warn!(path = %path.display(), "other users of this machine may read the admin token: chmod 600 it");
    }
}

#[cfg(not(unix))]
fn warn_if_others_read(_: &std::fs::File, _: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stays_the_same_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(AdminToken::load(dir.path()), Err(AdminTokenError::File { what: "read", .. })));
        let first = AdminToken::load_or_create(dir.path()).unwrap();
        let second = AdminToken::load_or_create(dir.path()).unwrap();
        assert_eq!(first.reveal(), second.reveal());
        assert_eq!(first.reveal().len(), 43);
        assert!(first.is(second.reveal()));
        let mut near = first.reveal().to_owned();
        near.pop();
        for wrong in ["", "x", &near, &format!("{}=", first.reveal())] {
            assert!(!first.is(wrong), "{wrong}");
        }
        assert!(!format!("{first:?}").contains(first.reveal()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(dir.path().join(ADMIN_TOKEN_FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_new_token_is_no_option_to_a_command_line() {
        // Half of the tokens of 32 whole random bytes would fail.
        for _ in 0..16 {
            let dir = tempfile::tempdir().unwrap();
            let token = AdminToken::load_or_create(dir.path()).unwrap();
            assert!(token.reveal().starts_with(|first| matches!(first, 'A'..='Z' | 'a'..='f')), "{}", token.reveal());
        }
    }

    #[test]
    fn a_file_without_a_token_is_named_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(ADMIN_TOKEN_FILE);
        for bytes in [&b""[..], b"\n", b"short", b"\xff\xfe\x00\x01", b"with spaces in the middle of it", &[b'x'; 300]]
        {
            std::fs::write(&path, bytes).unwrap();
            let error = AdminToken::load_or_create(dir.path()).unwrap_err();
            assert_eq!(error, AdminTokenError::Damaged { path: path.clone() });
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        std::fs::write(&path, "a-word-that-someone-chose\r\n").unwrap();
        assert!(AdminToken::load_or_create(dir.path()).unwrap().is("a-word-that-someone-chose"));
    }
}
