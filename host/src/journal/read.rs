//! What the host asks of a journal's file without replaying it.

use std::io::Read;
use std::path::Path;

use holeshot_room::journal::{Journal, JournalError, MAGIC};

use super::JOURNAL_BYTES_MAX;
use crate::rules::ModuleHash;

/// The part of a file that is whole blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) bytes: u64,
    pub(super) frames: u32,
    /// Nothing is missing at its end.
    pub(super) is_whole: bool,
    /// What follows is a block that was not all written, or zeros: nobody can read it. Otherwise it is a block that was changed, and what is behind it may be
    /// of use to somebody.
    pub(super) is_torn: bool,
    pub(super) module_name: String,
}

/// Why a file cannot be read as a journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The system does not give it.
    #[error("cannot read {path}: {problem}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        problem: String,
    },
    /// It is too long.
    #[error("{path} has more than the {JOURNAL_BYTES_MAX} bytes that a journal has at most")]
    TooLong {
        /// The file.
        path: String,
    },
    /// Its bytes are no journal.
    #[error("{path}: {error}")]
    Journal {
        /// The file.
        path: String,
        /// What is wrong with them.
        error: JournalError,
    },
}

/// A journal and what is to be said of its file.
#[derive(Debug)]
pub struct JournalFile {
    /// What could be read.
    pub journal: Journal,
    /// Length of the file, in bytes.
    pub bytes: u64,
    /// What was not read is a block that is all there and is not what was written. A file that ends within a block was cut, and so was one that
    /// ends in zeros.
    pub is_damaged: bool,
}

/// Reads a journal's file. Blocks.
///
/// # Errors
/// [`ReadError`].
pub fn read(path: &Path) -> Result<JournalFile, ReadError> {
    let bytes = bytes_of(path)?;
    let journal =
        Journal::read(&bytes).map_err(|error| ReadError::Journal { path: path.display().to_string(), error })?;
    let is_damaged = journal.truncated_at().is_some_and(|offset| !is_torn(&bytes, offset));
    Ok(JournalFile { journal, bytes: bytes.len() as u64, is_damaged })
}

/// How far a journal's file is good; none if it ends before its header does.
pub(super) fn prefix_of(path: &Path) -> Result<Option<Prefix>, ReadError> {
    prefix_in(&bytes_of(path)?, path)
}

/// The bytes of a journal that may be written at this moment, without a block of which only a part is there. None if its header is not all there
/// yet. Blocks.
pub(crate) fn whole_blocks_of(path: &Path) -> Result<Option<Vec<u8>>, ReadError> {
    let mut bytes = bytes_of(path)?;
    let Some(prefix) = prefix_in(&bytes, path)? else { return Ok(None) };
    if prefix.is_torn {
        bytes.truncate(usize::try_from(prefix.bytes).unwrap_or(usize::MAX));
    }
    Ok(Some(bytes))
}

fn prefix_in(bytes: &[u8], path: &Path) -> Result<Option<Prefix>, ReadError> {
    if MAGIC.starts_with(bytes) {
        return Ok(None);
    }
    let journal = match Journal::read(bytes) {
        Ok(journal) => journal,
        Err(JournalError::NoHeader { offset }) if is_torn(bytes, offset) => return Ok(None),
        Err(error) => return Err(ReadError::Journal { path: path.display().to_string(), error }),
    };
    let end = journal.truncated_at().unwrap_or(bytes.len());
    Ok(Some(Prefix {
        bytes: end as u64,
        is_torn: is_torn(bytes, end),
        frames: journal.frames(),
        is_whole: journal.is_whole(),
        module_name: journal.manifest().name.clone(),
    }))
}

/// Whether no whole block begins here: see the format in `holeshot_room::journal`.
fn is_torn(bytes: &[u8], offset: usize) -> bool {
    let rest = bytes.get(offset..).unwrap_or_default();
    let Some((len, rest)) = rest.split_first_chunk::<4>() else { return true };
    let len = u32::from_le_bytes(*len) as usize;
    // The check sum comes before the body.
    len == 0 || rest.len() < len.saturating_add(4)
}

/// The modules that a journal names: those that the room ran under, and those that were undone.
pub(super) fn modules_of(path: &Path) -> Result<Vec<ModuleHash>, ReadError> {
    let JournalFile { journal, .. } = read(path)?;
    let swapped = journal.swaps().iter().map(|swap| swap.to);
    let mut modules: Vec<ModuleHash> =
        std::iter::once(journal.header().module).chain(swapped).map(ModuleHash::from).collect();
    modules.sort();
    modules.dedup();
    Ok(modules)
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, ReadError> {
    let name = || path.display().to_string();
    let mut bytes = Vec::new();
    crate::files::open_regular(path)
        // One more, so that a longer one is seen to be too long.
        .and_then(|file| file.take(JOURNAL_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| ReadError::Unreadable { path: name(), problem: error.to_string() })?;
    if bytes.len() as u64 > JOURNAL_BYTES_MAX {
        return Err(ReadError::TooLong { path: name() });
    }
    Ok(bytes)
}
