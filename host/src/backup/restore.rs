//! Restoring a backup: checked first, then copied beside its place, looked at there, and given its name in one step. Nothing is deleted.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::database::{self, DatabaseError, Kind};
use super::files::{self, CopyError, FileError};
use super::make::Unfinished;
use super::manifest::{FILES_MAX, MANIFEST_FILE, Manifest, Part, folders, parse_mode};
use super::{Stage, Watch};
use crate::admin::{ADMIN_TOKEN_FILE, AdminToken};
use crate::files::open_regular;
use crate::identity::{IDENTITY_FILE, Identity};
use crate::server::LOCK_FILES;

/// What is added to the name of a data folder that is not restored yet.
const PART: &str = ".restore-part";

/// A data folder that was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Where it is.
    pub data_dir: PathBuf,
    /// Where the one that was there before is now.
    pub before: Option<PathBuf>,
    /// What was in the backup.
    pub manifest: Manifest,
}

/// Why nothing was restored. What was there is untouched, but where the text says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// It is no backup, or one that cannot be trusted.
    #[error("{folder} is not a backup that can be restored: {problem}. Nothing was changed")]
    Refused {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A host runs there.
    #[error("a host runs on the data folder {data_dir}; stop it first, or restore to another folder")]
    Running {
        /// The data folder.
        data_dir: PathBuf,
    },
    /// There is something already.
    #[error(
        "{data_dir} is not empty and stays as it is. With --replace it is moved aside first, to {data_dir}.before-<time>"
    )]
    NotEmpty {
        /// The data folder.
        data_dir: PathBuf,
    },
    /// It cannot be the data folder.
    #[error("cannot restore to {data_dir}: {problem}")]
    Place {
        /// The data folder.
        data_dir: PathBuf,
        /// Why not, and what to do.
        problem: String,
    },
    /// An unfinished one is in the way.
    #[error(
        "{path} is there: another restore to this place is under way, or one was killed before it was done. If none is, delete it"
    )]
    Unfinished {
        /// The unfinished one.
        path: PathBuf,
    },
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A database of the backup, as it was copied.
    #[error("the backup cannot be restored: {0}. Nothing was changed")]
    Database(DatabaseError),
    /// It was told to stop.
    #[error("stopped; nothing was changed")]
    Stopped,
}

impl From<CopyError> for RestoreError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::File(error) => Self::File(error),
            CopyError::Stopped => Self::Stopped,
        }
    }
}

/// Restores a backup to a data folder that is not there, or is empty, or is moved aside with `replace`. Blocks, for as long as the disk takes.
///
/// # Errors
/// [`RestoreError`].
pub fn restore(backup: &Path, data_dir: &Path, replace: bool, watch: &mut Watch<'_>) -> Result<Restored, RestoreError> {
    let refused = |problem: String| RestoreError::Refused { folder: backup.to_owned(), problem };
    let source = backup.canonicalize().map_err(|error| refused(error.to_string()))?;
    let manifest = Manifest::read(&source).map_err(refused)?;
    check_listing(&source, &manifest).map_err(refused)?;
    let place = Place::look(data_dir, &source, replace)?;

    let staged = files::beside(&place.real, PART).ok_or_else(|| place.cannot("it has no name"))?;
    let staged = match Unfinished::make(staged.clone()) {
        Ok(made) => made,
        Err(_) if staged.symlink_metadata().is_ok() => return Err(RestoreError::Unfinished { path: staged }),
        Err(error) => return Err(error.into()),
    };
    copy(&source, &manifest, staged.path(), watch, &refused)?;
    verify(&manifest, staged.path(), watch, &refused)?;
    files::set_mode(staged.path(), manifest.mode.as_deref().and_then(parse_mode).map(|mode| mode | 0o700))?;
    place.give_owner(staged.path(), &manifest);

    let before = place.clear()?;
    if let Err(error) = std::fs::rename(staged.path(), &place.real) {
        let problem = match error.kind() {
            ErrorKind::ResourceBusy | ErrorKind::CrossesDevices => {
                format!("it is where a disk is mounted: restore to a folder in it ({error})")
            }
            _ => error.to_string(),
        };
        let problem = match before {
            None => problem,
            Some(before) => match std::fs::rename(&before, &place.real) {
                Ok(()) => format!("{problem}. What was there is back in its place"),
                Err(_) => format!("{problem}. What was there is at {}", before.display()),
            },
        };
        return Err(place.cannot(&problem));
    }
    staged.keep();
    files::sync_folder(&files::parent_of(&place.real));
    Ok(Restored { data_dir: data_dir.to_owned(), before, manifest })
}

/// Checks that the folder has the files of the manifest, of their lengths, and nothing else.
fn check_listing(source: &Path, manifest: &Manifest) -> Result<(), String> {
    let mut found = BTreeSet::new();
    for folder in std::iter::once(String::new()).chain(folders()) {
        let at = source.join(&folder);
        match at.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("{} cannot be read: {error}", at.display())),
            Ok(metadata) if !metadata.is_dir() => return Err(format!("{folder} in it is no folder")),
            Ok(_) => {}
        }
        let entries = std::fs::read_dir(&at).map_err(|error| format!("{} cannot be read: {error}", at.display()))?;
        for entry in entries {
            let entry = entry.map_err(|error| format!("{} cannot be read: {error}", at.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            if path == MANIFEST_FILE || folders().contains(&path) {
                continue;
            }
            // Of the entry itself: a link is none of these.
            let metadata =
                entry.path().symlink_metadata().map_err(|error| format!("{path} in it cannot be read: {error}"))?;
            let Some(expected) = manifest.files.get(&path) else {
                return Err(format!(
                    "{path:?} is in it and not in its {MANIFEST_FILE}: somebody put it there. Move it away, if the rest is to be trusted"
                ));
            };
            if !metadata.is_file() {
                return Err(format!("{path} in it is no file but {}", kind_of(&metadata)));
            }
            if metadata.len() != expected.bytes {
                return Err(format!("{path} in it has {} bytes instead of {}", metadata.len(), expected.bytes));
            }
            found.insert(path);
            if found.len() > FILES_MAX {
                return Err(format!("it has more than {FILES_MAX} files"));
            }
        }
    }
    match manifest.files.keys().find(|path| !found.contains(*path)) {
        Some(missing) => Err(format!("{missing} is missing in it")),
        None => Ok(()),
    }
}

fn kind_of(metadata: &std::fs::Metadata) -> &'static str {
    if metadata.is_symlink() {
        "a link"
    } else if metadata.is_dir() {
        "a folder"
    } else {
        "something else"
    }
}

fn copy(
    source: &Path,
    manifest: &Manifest,
    staged: &Path,
    watch: &mut Watch<'_>,
    refused: &dyn Fn(String) -> RestoreError,
) -> Result<(), RestoreError> {
    watch.begin(Stage::Copying, manifest.bytes());
    for folder in folders() {
        files::make_secret_folder(&staged.join(folder))?;
    }
    for (path, entry) in &manifest.files {
        let to = staged.join(path);
        let content = files::copy(&source.join(path), &to, watch)?;
        // What is restored is what was hashed: it is read once.
        if (content.bytes, &content.blake3) != (entry.bytes, &entry.blake3) {
            return Err(refused(format!("{path} in it has been changed: its hash is another one")));
        }
        let mode = entry.mode.as_deref().and_then(parse_mode);
        files::set_mode(
            &to,
            match Part::of(path) {
                Some(Part::Secret) => Some(files::SECRET_MODE),
                // Its owner reads and writes it, and nothing in a data folder is a program.
                _ => mode.map(|mode| mode & 0o666 | files::SECRET_MODE),
            },
        )?;
    }
    Ok(())
}

fn verify(
    manifest: &Manifest,
    staged: &Path,
    watch: &mut Watch<'_>,
    refused: &dyn Fn(String) -> RestoreError,
) -> Result<(), RestoreError> {
    watch.begin(Stage::Verifying, manifest.bytes());
    for path in manifest.files.keys() {
        let file = staged.join(path);
        let content = files::read_back(&file, watch)?;
        if manifest.files.get(path).is_none_or(|entry| entry.blake3 != content.blake3) {
            return Err(RestoreError::Place {
                data_dir: staged.to_owned(),
                problem: format!("{path} was read back and is not what was written; look at this disk"),
            });
        }
    }
    for kind in Kind::ALL {
        if let Some(facts) = manifest.facts(kind) {
            database::verify(kind, &staged.join(kind.file()), facts).map_err(RestoreError::Database)?;
        }
    }
    if manifest.files.contains_key(IDENTITY_FILE) {
        let identity = Identity::load_or_create(staged).map_err(|error| refused(error.to_string()))?;
        if manifest.host.as_ref() != Some(&identity.host_id) {
            return Err(refused(format!("its {IDENTITY_FILE} is of another host than its {MANIFEST_FILE} says")));
        }
    }
    if manifest.files.contains_key(ADMIN_TOKEN_FILE) {
        AdminToken::load(staged).map_err(|error| refused(error.to_string()))?;
    }
    for folder in folders() {
        files::sync_folder(&staged.join(folder));
    }
    files::sync_folder(staged);
    Ok(())
}

/// Where a data folder is to be.
struct Place {
    given: PathBuf,
    /// Where it really is, if there is something; where it will be, otherwise.
    real: PathBuf,
    /// There is a folder with something in it.
    is_full: bool,
    /// There is a folder.
    is_there: bool,
    /// Held until it is restored, so that no host starts meanwhile.
    _locks: Vec<File>,
}

impl Place {
    fn look(given: &Path, source: &Path, replace: bool) -> Result<Self, RestoreError> {
        let cannot = |problem: String| RestoreError::Place { data_dir: given.to_owned(), problem };
        let mut place = Self {
            given: given.to_owned(),
            real: given.to_owned(),
            is_full: false,
            is_there: false,
            _locks: Vec::new(),
        };
        match given.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let parent = files::parent_of(given);
                let parent = parent
                    .canonicalize()
                    .map_err(|error| cannot(format!("the folder {} that it would be in: {error}", parent.display())))?;
                let name = given.file_name().ok_or_else(|| cannot("it has no name".to_owned()))?;
                place.real = parent.join(name);
            }
            Err(error) => return Err(cannot(error.to_string())),
            Ok(_) => {
                place.real = given.canonicalize().map_err(|error| cannot(error.to_string()))?;
                let mut entries = std::fs::read_dir(&place.real).map_err(|error| cannot(error.to_string()))?;
                place.is_there = true;
                place.is_full = entries.next().is_some();
            }
        }
        if place.real.starts_with(source) || source.starts_with(&place.real) {
            return Err(cannot(
                "the backup is inside it, or it inside the backup; move the backup elsewhere first".to_owned(),
            ));
        }
        // Told before it is told that the folder is not empty: the next step is another one.
        place.lock()?;
        if place.is_full && !replace {
            return Err(RestoreError::NotEmpty { data_dir: given.to_owned() });
        }
        Ok(place)
    }

    fn lock(&mut self) -> Result<(), RestoreError> {
        for name in LOCK_FILES {
            let path = self.real.join(name);
            let file = match open_regular(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(FileError::new("read", &path, &error).into()),
            };
            match file.try_lock() {
                Ok(()) => self._locks.push(file),
                Err(TryLockError::WouldBlock) => {
                    return Err(RestoreError::Running { data_dir: self.given.clone() });
                }
                Err(TryLockError::Error(error)) => {
                    tracing::warn!(%error, path = %path.display(), "the data folder cannot be locked; make sure that no host uses it");
                }
            }
        }
        Ok(())
    }

    fn cannot(&self, problem: &str) -> RestoreError {
        RestoreError::Place { data_dir: self.given.clone(), problem: problem.to_owned() }
    }

    /// Moves what is there aside. Says where it is.
    fn clear(&self) -> Result<Option<PathBuf>, RestoreError> {
        if !self.is_full {
            return Ok(None);
        }
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace([':', '-'], "");
        let aside =
            files::beside(&self.real, &format!(".before-{time}")).ok_or_else(|| self.cannot("it has no name"))?;
        if aside.symlink_metadata().is_ok() {
            return Err(self.cannot(&format!("{} is there already; try again in a second", aside.display())));
        }
        std::fs::rename(&self.real, &aside).map_err(|error| match error.kind() {
            ErrorKind::ResourceBusy | ErrorKind::CrossesDevices => self.cannot(&format!(
                "it is where a disk is mounted and cannot be moved aside ({error}): restore to a folder in it"
            )),
            _ => RestoreError::File(FileError::new("rename", &self.real, &error)),
        })?;
        Ok(Some(aside))
    }

    /// Gives what is restored to the owner of the folder that was there, so that an administrator may restore for the user of the host. Without the right to
    /// do that, whoever restores is the owner.
    fn give_owner(&self, staged: &Path, manifest: &Manifest) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt, chown};
            let (Ok(there), Ok(made)) = (self.real.metadata(), staged.metadata()) else { return };
            if !self.is_there || (there.uid(), there.gid()) == (made.uid(), made.gid()) {
                return;
            }
            let paths = std::iter::once(String::new()).chain(folders()).chain(manifest.files.keys().cloned());
            for path in paths {
                if let Err(error) = chown(staged.join(&path), Some(there.uid()), Some(there.gid())) {
                    tracing::warn!(%error, data_dir = %self.given.display(), "the files cannot be given to the owner of the folder that was there");
                    return;
                }
            }
        }
        #[cfg(not(unix))]
        let _no_owners = (staged, manifest);
    }
}
