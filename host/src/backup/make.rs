//! Making a backup: what is copied in which order, read back, and given its name. Why in this order is in the documentation of [`super`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::database::{self, DatabaseError, Facts, Kind, Reader};
use super::files::{self, Content, CopyError, FileError};
use super::manifest::{FILES_MAX, FORMAT, FileEntry, MANIFEST_FILE, Manifest, Part, folders, parse_mode};
use super::{Stage, Watch};
use crate::admin::ADMIN_TOKEN_FILE;
use crate::events::cloudevent::rfc3339;
use crate::files::{Readers, write_whole};
use crate::identity::{IDENTITY_FILE, Identity};
use crate::journal::{self, CLOSED_FOLDER, Folder, JOURNAL_EXTENSION, JOURNALS_FOLDER, ReadError};
use crate::limits::disk::{self, DiskSpace};
use crate::modules::{CHOSEN_FILE, KeptModules, MODULES_FOLDER};

/// What is added to the name of a backup that is not finished.
pub(super) const PART: &str = ".part";
/// Space that a backup leaves free, in bytes: it may be the disk of the host, whose journals and events must not meet its end.
const SPACE_RESERVE_BYTES: u64 = 64 << 20;
/// Names of files that are told of one kind; the rest is counted.
const NAMES_SHOWN_MAX: usize = 5;

/// What to back up, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The data folder; its host may run.
    pub data_dir: PathBuf,
    /// The folder to make.
    pub dest: PathBuf,
    /// Whether journals are copied, too.
    pub journals: bool,
}

/// A backup that was made and read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Where it is.
    pub folder: PathBuf,
    /// What is in it.
    pub manifest: Manifest,
    /// What was found in the data folder that is worth a look, in words: journals and modules that are damaged there, files that are not copied.
    pub notes: Vec<String>,
}

/// Why there is no backup. Whatever was copied is deleted by then, but where the text says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// There is nothing to back up.
    #[error("{folder} is no data folder: {problem}. Name that of the host with --data-dir")]
    NoData {
        /// The folder.
        folder: PathBuf,
        /// What is missing.
        problem: String,
    },
    /// The place is taken.
    #[error("{path} is there already and stays as it is; name a folder that is not there yet")]
    Exists {
        /// What is there.
        path: PathBuf,
    },
    /// An unfinished backup is in the way.
    #[error(
        "{path} is there: another backup to this place is being made, or one was killed before it was whole. If none is being made, delete it"
    )]
    Unfinished {
        /// The unfinished one.
        path: PathBuf,
    },
    /// The place is within what is backed up.
    #[error("{dest} is inside the data folder {data_dir}: choose a place outside, on another disk if you have one")]
    Inside {
        /// The place.
        dest: PathBuf,
        /// The data folder.
        data_dir: PathBuf,
    },
    /// It is no name for a folder.
    #[error("{dest} cannot be the name of a new folder; end it with a name, such as backups/2026-11-21")]
    NoName {
        /// What was given.
        dest: PathBuf,
    },
    /// It does not fit.
    #[error("the backup needs {needed_mib} MiB, and the disk of {path} has {free_mib} MiB left, of which {} MiB stay free for the host. Free some space, choose another disk, or leave the journals out with --no-journals", SPACE_RESERVE_BYTES >> 20)]
    NoSpace {
        /// Where it should go.
        path: PathBuf,
        /// What it takes.
        needed_mib: u64,
        /// What there is.
        free_mib: u64,
    },
    /// The identity cannot be read.
    #[error("{0}")]
    Identity(String),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// There are more files than a backup has.
    #[error("there are more than {FILES_MAX} files; leave the journals out with --no-journals, or lower journal_days")]
    TooMany,
    /// What was read back is not what was copied.
    #[error(
        "{path} was read back and is not what was copied: {problem}. The disk does not keep what it is given; choose another, and look at this one"
    )]
    Changed {
        /// The copy.
        path: PathBuf,
        /// How it differs.
        problem: String,
    },
    /// It was told to stop.
    #[error("stopped; what was copied is deleted")]
    Stopped,
}

impl From<CopyError> for BackupError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::File(error) => Self::File(error),
            CopyError::Stopped => Self::Stopped,
        }
    }
}

/// A folder that is deleted unless it was finished.
pub(super) struct Unfinished {
    path: PathBuf,
    is_kept: bool,
}

impl Unfinished {
    pub(super) fn make(path: PathBuf) -> Result<Self, FileError> {
        files::make_secret_folder(&path)?;
        Ok(Self { path, is_kept: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::error!(path = %self.path.display(), %error, "what is not finished cannot be deleted; delete it by hand");
        }
    }
}

/// Makes a backup and reads it back. Blocks, for as long as the disk takes.
///
/// # Errors
/// [`BackupError`]. There is no folder of that name then.
pub fn make(options: &Options, watch: &mut Watch<'_>) -> Result<Made, BackupError> {
    make_in(options, watch, disk::space)
}

/// The same, with what tells how much space there is.
pub(super) fn make_in(
    options: &Options,
    watch: &mut Watch<'_>,
    space: impl Fn(&Path) -> Option<DiskSpace>,
) -> Result<Made, BackupError> {
    let made_at = rfc3339(SystemTime::now());
    let data_dir = data_folder(&options.data_dir)?;
    let dest = &options.dest;
    let no_name = || BackupError::NoName { dest: dest.clone() };
    let part = files::beside(dest, PART).ok_or_else(no_name)?;
    let parent = files::parent_of(dest);
    let real_parent = parent.canonicalize().map_err(|error| FileError::new("use", &parent, &error))?;
    if real_parent.starts_with(&data_dir) {
        return Err(BackupError::Inside { dest: dest.clone(), data_dir: options.data_dir.clone() });
    }
    if dest.symlink_metadata().is_ok() {
        return Err(BackupError::Exists { path: dest.clone() });
    }
    let part = match Unfinished::make(part.clone()) {
        Ok(made) => made,
        Err(_) if part.symlink_metadata().is_ok() => return Err(BackupError::Unfinished { path: part }),
        Err(error) => return Err(error.into()),
    };
    let host = match data_dir.join(IDENTITY_FILE).try_exists() {
        Ok(false) => None,
        _ => {
            Some(Identity::load_or_create(&data_dir).map_err(|error| BackupError::Identity(error.to_string()))?.host_id)
        }
    };
    let mut work = Work {
        folder: Folder::of(&data_dir),
        kept: KeptModules::of(&data_dir),
        data_dir,
        part: part.path().to_owned(),
        watch,
        entries: BTreeMap::new(),
        notes: Vec::new(),
    };
    work.check_space(options.journals, &real_parent, space(&real_parent))?;
    let (records, outbox) = work.copy_all(options.journals)?;
    let mode = std::fs::metadata(&work.data_dir).ok().and_then(|metadata| files::mode_of(&metadata));
    let manifest = Manifest {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        made_at,
        host,
        journals: options.journals,
        mode: mode.map(octal),
        records,
        outbox,
        files: std::mem::take(&mut work.entries),
    };
    work.verify(&manifest)?;
    work.note_left_out();
    let text = serde_json::to_vec_pretty(&manifest).map_err(std::io::Error::other);
    let path = part.path().join(MANIFEST_FILE);
    text.and_then(|text| write_whole(&path, &text, Readers::Owner))
        .map_err(|error| FileError::new("write", &path, &error))?;
    // What a restore will read, read.
    match Manifest::read(part.path()) {
        Ok(read) if read == manifest => {}
        Ok(_) => return Err(BackupError::Changed { path, problem: "it says something else".to_owned() }),
        Err(problem) => return Err(BackupError::Changed { path, problem }),
    }
    for folder in folders() {
        files::sync_folder(&part.path().join(folder));
    }
    files::sync_folder(part.path());
    if dest.symlink_metadata().is_ok() {
        return Err(BackupError::Exists { path: dest.clone() });
    }
    std::fs::rename(part.path(), dest).map_err(|error| FileError::new("rename", part.path(), &error))?;
    part.keep();
    files::sync_folder(&real_parent);
    Ok(Made { folder: dest.clone(), manifest, notes: work.notes })
}

/// The real path of a data folder, checked to be one.
fn data_folder(given: &Path) -> Result<PathBuf, BackupError> {
    let none = |problem: String| BackupError::NoData { folder: given.to_owned(), problem };
    let real = given.canonicalize().map_err(|error| none(error.to_string()))?;
    let has = |kind: Kind| real.join(kind.file()).is_file();
    if !Kind::ALL.into_iter().any(has) {
        return Err(none(format!("it has neither {} nor {}", Kind::Records.file(), Kind::Outbox.file())));
    }
    if has(Kind::Outbox) && !real.join(IDENTITY_FILE).exists() {
        return Err(none(format!("it has an outbox and no {IDENTITY_FILE}")));
    }
    Ok(real)
}

struct Work<'a, 'b> {
    data_dir: PathBuf,
    part: PathBuf,
    folder: Folder,
    kept: KeptModules,
    watch: &'a mut Watch<'b>,
    entries: BTreeMap<String, FileEntry>,
    notes: Vec<String>,
}

impl Work<'_, '_> {
    fn check_space(&mut self, journals: bool, place: &Path, space: Option<DiskSpace>) -> Result<(), BackupError> {
        let mut total = 0u64;
        for kind in Kind::ALL {
            let path = self.data_dir.join(kind.file());
            if path.is_file() {
                total = total.saturating_add(database::bytes_of(kind, &path)?);
            }
        }
        total = self.kept.list().iter().fold(total, |sum, module| sum.saturating_add(module.bytes));
        if journals {
            // What cannot be listed is told when it is to be copied.
            let lists = [self.folder.list_running(), self.folder.list_closed()];
            total = lists.iter().flatten().flatten().fold(total, |sum, entry| sum.saturating_add(entry.bytes));
        }
        if let Some(space) = space
            && space.free_bytes < total.saturating_add(SPACE_RESERVE_BYTES)
        {
            return Err(BackupError::NoSpace {
                path: place.to_owned(),
                needed_mib: total.div_ceil(1 << 20),
                free_mib: space.free_bytes >> 20,
            });
        }
        self.watch.begin(Stage::Copying, total);
        Ok(())
    }

    fn copy_all(&mut self, journals: bool) -> Result<(Option<Facts>, Option<Facts>), BackupError> {
        for name in [IDENTITY_FILE, ADMIN_TOKEN_FILE] {
            self.copy_if_there(name)?;
        }
        // Before the outbox: what is closed by now stays closed.
        let closed = self.rooms(journals, Folder::list_closed)?;
        let running = self.rooms(journals, Folder::list_running)?;
        let mut facts = Vec::new();
        for kind in Kind::ALL {
            facts.push(self.copy_database(kind)?);
        }
        let records = facts.pop().flatten();
        let outbox = facts.pop().flatten();
        // The file that names modules first: what it names is kept.
        self.copy_if_there(CHOSEN_FILE)?;
        self.copy_modules()?;
        if journals {
            self.copy_journals(&closed, &running, records.as_ref())?;
            self.copy_modules()?;
        }
        Ok((records, outbox))
    }

    fn rooms(
        &self,
        journals: bool,
        list: impl Fn(&Folder) -> std::io::Result<Vec<journal::Entry>>,
    ) -> Result<BTreeSet<String>, BackupError> {
        if !journals {
            return Ok(BTreeSet::new());
        }
        match list(&self.folder) {
            Ok(entries) => Ok(entries.into_iter().map(|entry| entry.room).collect()),
            // A host without journals, or none that ran.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(error) => Err(FileError::new("list", self.folder.path(), &error).into()),
        }
    }

    fn copy_database(&mut self, kind: Kind) -> Result<Option<Facts>, BackupError> {
        let (from, to) = (self.data_dir.join(kind.file()), self.part.join(kind.file()));
        if !from.is_file() {
            return Ok(None);
        }
        let facts = database::copy(kind, &from, &to, self.watch).map_err(|error| match error {
            DatabaseError::Stopped => BackupError::Stopped,
            error => error.into(),
        })?;
        let metadata = std::fs::metadata(&from).map_err(|error| FileError::new("read", &from, &error))?;
        files::set_mode(&to, files::mode_of(&metadata))?;
        // Its hash is that of the copy, which is the only file of these bytes: what is in it is compared with the original.
        let content = files::content_of(&to)?;
        self.enter(kind.file(), content, files::mode_of(&metadata))?;
        Ok(Some(facts))
    }

    /// Copies a file that need not be there. False if it is not.
    fn copy_if_there(&mut self, path: &str) -> Result<bool, BackupError> {
        if self.entries.contains_key(path) {
            return Ok(true);
        }
        let (from, to) = (self.data_dir.join(path), self.part.join(path));
        self.make_folders(path)?;
        match files::copy(&from, &to, self.watch) {
            Ok(content) => {
                let metadata = std::fs::metadata(&to).map_err(|error| FileError::new("read", &to, &error))?;
                let mut mode = files::mode_of(&metadata);
                if Part::of(path) == Some(Part::Secret) && mode.is_some() {
                    mode = Some(files::SECRET_MODE);
                    files::set_mode(&to, mode)?;
                }
                self.enter(path, content, mode)?;
                Ok(true)
            }
            Err(CopyError::File(error)) if error.is_gone && error.path == from => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn copy_modules(&mut self) -> Result<(), BackupError> {
        for module in self.kept.list() {
            self.copy_if_there(&format!("{MODULES_FOLDER}/{}.wasm", module.hash))?;
        }
        Ok(())
    }

    fn copy_journals(
        &mut self,
        closed: &BTreeSet<String>,
        running: &BTreeSet<String>,
        records: Option<&Facts>,
    ) -> Result<(), BackupError> {
        for room in closed {
            // One that is gone was too old, or one too many.
            self.copy_if_there(&format!("{JOURNALS_FOLDER}/{CLOSED_FOLDER}/{room}.{JOURNAL_EXTENSION}"))?;
        }
        // Those of layouts before that of journals know of none.
        let has = |table: &str| records.is_some_and(|facts| facts.rows.contains_key(table));
        let known = match records {
            Some(_) => Some(Reader::open(Kind::Records, &self.part.join(Kind::Records.file()))?),
            None => None,
        };
        let knows = |table: &str, room: &str| match &known {
            Some(reader) if has(table) => reader.has_room(table, room),
            _ => Ok(false),
        };
        let mut others = self.rooms(true, Folder::list_running)?;
        others.extend(self.rooms(true, Folder::list_closed)?);
        for room in others.difference(closed) {
            let folder = if knows("journals", room)? {
                format!("{JOURNALS_FOLDER}/{CLOSED_FOLDER}")
            } else if running.contains(room) || knows("rooms", room)? {
                JOURNALS_FOLDER.to_owned()
            } else {
                continue;
            };
            self.copy_open_journal(room, &format!("{folder}/{room}.{JOURNAL_EXTENSION}"))?;
        }
        Ok(())
    }

    /// Copies a journal that is, or was a moment ago, being written.
    fn copy_open_journal(&mut self, room: &str, path: &str) -> Result<(), BackupError> {
        // One that is closed in between has moved: look once more.
        for _ in 0..2 {
            let Some(from) = self.folder.find(room) else { return Ok(()) };
            match journal::whole_blocks_of(&from) {
                Ok(Some(bytes)) => {
                    self.make_folders(path)?;
                    let metadata = std::fs::metadata(self.folder.path());
                    let mode = metadata.ok().and_then(|metadata| files::mode_of(&metadata)).map(|mode| mode & 0o666);
                    let content = files::write(&self.part.join(path), &bytes, mode, self.watch)?;
                    return self.enter(path, content, mode);
                }
                Ok(None) => return Ok(()),
                Err(ReadError::Unreadable { .. }) if !from.exists() => {}
                Err(error) => {
                    self.notes.push(format!("not copied: {error}"));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn make_folders(&self, path: &str) -> Result<(), BackupError> {
        for folder in folders() {
            let at = self.part.join(&folder);
            if path.strip_prefix(&folder).is_some_and(|rest| rest.starts_with('/')) && !at.is_dir() {
                files::make_secret_folder(&at)?;
            }
        }
        Ok(())
    }

    fn enter(&mut self, path: &str, content: Content, mode: Option<u32>) -> Result<(), BackupError> {
        if self.entries.len() >= FILES_MAX {
            return Err(BackupError::TooMany);
        }
        let Content { bytes, blake3 } = content;
        self.entries.insert(path.to_owned(), FileEntry { bytes, blake3, mode: mode.map(octal) });
        Ok(())
    }

    fn verify(&mut self, manifest: &Manifest) -> Result<(), BackupError> {
        self.watch.begin(Stage::Verifying, manifest.bytes());
        let (mut journals, mut modules) = (Vec::new(), Vec::new());
        for (name, entry) in &manifest.files {
            let path = self.part.join(name);
            let content = files::read_back(&path, self.watch)?;
            if (content.bytes, &content.blake3) != (entry.bytes, &entry.blake3) {
                return Err(BackupError::Changed { path, problem: "it has another hash".to_owned() });
            }
            let found = std::fs::metadata(&path).map_err(|error| FileError::new("read", &path, &error))?;
            if files::mode_of(&found) != entry.mode.as_deref().and_then(parse_mode) {
                return Err(BackupError::Changed { path, problem: "it has another mode".to_owned() });
            }
            match Part::of(name) {
                Some(Part::Journal) if !journal::read(&path).is_ok_and(|file| !file.is_damaged) => journals.push(name),
                Some(Part::Module) if !name.contains(&content.blake3) => modules.push(name),
                _ => {}
            }
        }
        for kind in Kind::ALL {
            if let Some(facts) = manifest.facts(kind) {
                database::verify(kind, &self.part.join(kind.file()), facts)?;
            }
        }
        for (what, names) in [("journals", journals), ("modules", modules)] {
            if !names.is_empty() {
                let shown = list(&names);
                self.notes.push(format!(
                    "{} {what} are damaged in the data folder, and so in the backup: {shown}",
                    names.len()
                ));
            }
        }
        Ok(())
    }

    /// Tells of files that nobody knows, so that nobody believes that they are in the backup.
    fn note_left_out(&mut self) {
        let Ok(entries) = std::fs::read_dir(&self.data_dir) else { return };
        let names: BTreeSet<String> =
            entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        let is_known = |name: &str| {
            let of_database = |kind: Kind| {
                name.strip_prefix(kind.file()).is_some_and(|rest| matches!(rest, "" | "-wal" | "-shm" | "-journal"))
            };
            Part::of(name).is_some()
                || Kind::ALL.into_iter().any(of_database)
                || [MODULES_FOLDER, JOURNALS_FOLDER].contains(&name)
                || name.ends_with(".lock")
                || name.ends_with(PART)
        };
        let unknown: Vec<&String> = names.iter().filter(|name| !is_known(name)).collect();
        if !unknown.is_empty() {
            self.notes.push(format!("not in the backup, because no host put it there: {}", list(&unknown)));
        }
    }
}

fn list(names: &[&String]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES_SHOWN_MAX).map(|name| name.as_str()).collect();
    let more = names.len().saturating_sub(NAMES_SHOWN_MAX);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

fn octal(mode: u32) -> String {
    format!("{mode:o}")
}
