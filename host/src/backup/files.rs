//! Files of a backup: copied with their hash, read back, listed. Which ones, and what is in them, is decided elsewhere.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::{Stopped, Watch};
use crate::files::open_regular;

/// Bytes that are read at a time: enough that the system reads ahead, little enough that a stop is heard at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Mode of a file that is a secret.
pub(super) const SECRET_MODE: u32 = 0o600;

/// Mode of a folder that has secrets in it.
pub(super) const SECRET_FOLDER_MODE: u32 = 0o700;

/// What went wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {what} {path}: {reason}")]
pub struct FileError {
    /// read, write, make, list, rename
    pub what: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What the system says, and what to do about it.
    pub reason: String,
    /// The file is not there.
    pub is_gone: bool,
}

impl FileError {
    pub(crate) fn new(what: &'static str, path: &Path, error: &std::io::Error) -> Self {
        let step = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ". Free some space, or choose a place with more",
            ErrorKind::FileTooLarge => ". The file system or a limit of this process (ulimit -f) takes no longer files",
            ErrorKind::PermissionDenied => ". Use the user that runs the host, and a place that it may write to",
            ErrorKind::ReadOnlyFilesystem => ". Choose a place that can be written to",
            _ => "",
        };
        Self {
            what,
            path: path.to_owned(),
            reason: format!("{error}{step}"),
            is_gone: error.kind() == ErrorKind::NotFound,
        }
    }
}

/// Why a copy ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CopyError {
    File(FileError),
    Stopped,
}

impl From<FileError> for CopyError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<Stopped> for CopyError {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopped
    }
}

/// The length and the BLAKE3 hash of what was written or read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) bytes: u64,
    pub(super) blake3: String,
}

/// Copies a file to a new one, and its mode. The source may be a link; what it leads to is copied.
pub(super) fn copy(from: &Path, to: &Path, watch: &mut Watch<'_>) -> Result<Content, CopyError> {
    let mut source = open_regular(from).map_err(|error| FileError::new("read", from, &error))?;
    let mode = mode_of(&source.metadata().map_err(|error| FileError::new("read", from, &error))?);
    let mut target = create(to, mode)?;
    let content = pass(&mut source, from, |bytes| {
        target.write_all(bytes).map_err(|error| FileError::new("write", to, &error))?;
        Ok(watch.add(bytes.len() as u64)?)
    })?;
    set_mode(to, mode)?;
    Ok(content)
}

/// Writes a new file.
pub(super) fn write(to: &Path, bytes: &[u8], mode: Option<u32>, watch: &mut Watch<'_>) -> Result<Content, CopyError> {
    let mut target = create(to, mode)?;
    target.write_all(bytes).map_err(|error| FileError::new("write", to, &error))?;
    set_mode(to, mode)?;
    watch.add(bytes.len() as u64)?;
    Ok(Content { bytes: bytes.len() as u64, blake3: blake3::hash(bytes).to_hex().to_string() })
}

/// Reads a file to its end, and brings it to the disk first: what a power cut would take away is not what was verified.
pub(super) fn read_back(path: &Path, watch: &mut Watch<'_>) -> Result<Content, CopyError> {
    let mut file = open_regular(path).map_err(|error| FileError::new("read", path, &error))?;
    file.sync_all().map_err(|error| FileError::new("write", path, &error))?;
    pass(&mut file, path, |bytes| Ok(watch.add(bytes.len() as u64)?))
}

/// Length and hash of a file.
pub(super) fn content_of(path: &Path) -> Result<Content, CopyError> {
    let mut file = open_regular(path).map_err(|error| FileError::new("read", path, &error))?;
    pass(&mut file, path, |_| Ok(()))
}

fn pass(
    file: &mut File,
    path: &Path,
    mut each: impl FnMut(&[u8]) -> Result<(), CopyError>,
) -> Result<Content, CopyError> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes = 0u64;
    loop {
        let count = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(FileError::new("read", path, &error).into()),
        };
        let read = chunk.get(..count).unwrap_or_default();
        hasher.update(read);
        each(read)?;
        bytes = bytes.saturating_add(count as u64);
    }
    Ok(Content { bytes, blake3: hasher.finalize().to_hex().to_string() })
}

fn create(path: &Path, mode: Option<u32>) -> Result<File, FileError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if let Some(mode) = mode {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    }
    #[cfg(not(unix))]
    let _no_modes = mode;
    options.open(path).map_err(|error| FileError::new("write", path, &error))
}

/// Makes a folder that its owner alone may enter.
pub(super) fn make_secret_folder(path: &Path) -> Result<(), FileError> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, SECRET_FOLDER_MODE);
    builder.create(path).map_err(|error| FileError::new("make", path, &error))
}

/// The permissions of a file or folder, without those that let it run as somebody else; none where there is no such thing.
pub(super) fn mode_of(metadata: &std::fs::Metadata) -> Option<u32> {
    #[cfg(unix)]
    {
        Some(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777)
    }
    #[cfg(not(unix))]
    {
        let _no_modes = metadata;
        None
    }
}

/// Gives a file a mode, whatever the process's umask is.
pub(super) fn set_mode(path: &Path, mode: Option<u32>) -> Result<(), FileError> {
    #[cfg(unix)]
    if let Some(mode) = mode {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, permissions).map_err(|error| FileError::new("write", path, &error))?;
    }
    #[cfg(not(unix))]
    let _no_modes = (path, mode);
    Ok(())
}

/// Brings the names in a folder to the disk. Where a folder cannot be opened as a file (Windows), the file system sees to it.
pub(super) fn sync_folder(path: &Path) {
    let _no_such_thing = File::open(path).and_then(|folder| folder.sync_all());
}

/// The folder that something is in, or would be: `.` for a plain name.
pub(super) fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A name beside `path`: the same with something added. None for a path that ends in `..` or is a root.
pub(super) fn beside(path: &Path, added: &str) -> Option<PathBuf> {
    let mut name = path.file_name()?.to_os_string();
    name.push(added);
    Some(path.with_file_name(name))
}
