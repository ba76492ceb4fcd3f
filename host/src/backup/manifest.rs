//! The manifest of a backup: what is in it, how long it is, and its hash. Only names that a data folder has are accepted, so none leads elsewhere.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::database::{Facts, Kind};
use crate::admin::ADMIN_TOKEN_FILE;
use crate::identity::IDENTITY_FILE;
use crate::journal::{CLOSED_FOLDER, JOURNAL_EXTENSION, JOURNALS_FOLDER, is_file_name};
use crate::modules::{CHOSEN_FILE, MODULES_FOLDER};
use crate::rules::ModuleHash;

/// Name of the manifest in a backup.
pub const MANIFEST_FILE: &str = "backup.json";
/// The format that this program writes, and the newest one that it reads.
pub const FORMAT: u32 = 1;
/// Files in one backup: 4 GiB of journals of the shortest races come to a third of it.
pub(super) const FILES_MAX: usize = 1_000_000;
/// Longest manifest, in bytes: [`FILES_MAX`] entries of 200 bytes, and as much again.
const MANIFEST_BYTES_MAX: u64 = 400 << 20;

/// What is in a backup. As JSON, an object with these fields; every one is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format, from 1. One that a program does not know is refused.
    pub format: u32,
    /// Version of the program that made it.
    pub program: String,
    /// When it was begun, RFC 3339 in UTC.
    pub made_at: String,
    /// The host's id; none if the folder is that of a manager alone.
    pub host: Option<String>,
    /// Whether journals were to be copied.
    pub journals: bool,
    /// Permissions of the data folder, in octal digits; none where there is no such thing.
    pub mode: Option<String>,
    /// The copy of the records; none if the folder had none.
    pub records: Option<Facts>,
    /// The copy of the outbox; none if the folder had none.
    pub outbox: Option<Facts>,
    /// Every file, by its path within the backup, with `/` between folders.
    pub files: BTreeMap<String, FileEntry>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of its bytes, in 64 hexadecimal digits.
    pub blake3: String,
    /// Permissions, in octal digits; none where there is no such thing.
    pub mode: Option<String>,
}

/// What a file of a data folder is, by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Keys: for their owner alone.
    Secret,
    Database(Kind),
    /// `modules.json`.
    Chosen,
    Module,
    Journal,
}

impl Part {
    /// None for a path that no data folder has: other names, other folders, `..`, absolute ones.
    pub(super) fn of(path: &str) -> Option<Self> {
        let is_module = |name: &str| {
            name.strip_suffix(".wasm").is_some_and(|hash| hash.len() == 64 && hash.parse::<ModuleHash>().is_ok())
        };
        let is_journal = |name: &str| {
            name.strip_suffix(JOURNAL_EXTENSION).and_then(|name| name.strip_suffix('.')).is_some_and(is_file_name)
        };
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            [IDENTITY_FILE | ADMIN_TOKEN_FILE] => Some(Self::Secret),
            [CHOSEN_FILE] => Some(Self::Chosen),
            [name] => Kind::ALL.into_iter().find(|kind| kind.file() == *name).map(Self::Database),
            [MODULES_FOLDER, name] if is_module(name) => Some(Self::Module),
            [JOURNALS_FOLDER, name] | [JOURNALS_FOLDER, CLOSED_FOLDER, name] if is_journal(name) => Some(Self::Journal),
            _ => None,
        }
    }
}

/// The folders of a data folder that files are in, each after the one that it is in.
pub(super) fn folders() -> [String; 3] {
    [MODULES_FOLDER.to_owned(), JOURNALS_FOLDER.to_owned(), format!("{JOURNALS_FOLDER}/{CLOSED_FOLDER}")]
}

impl Manifest {
    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.values().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// How many files are journals, and how many are modules.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let count = |part: Part| self.files.keys().filter(|path| Part::of(path) == Some(part)).count();
        (count(Part::Journal), count(Part::Module))
    }

    pub(super) fn facts(&self, kind: Kind) -> Option<&Facts> {
        match kind {
            Kind::Records => self.records.as_ref(),
            Kind::Outbox => self.outbox.as_ref(),
        }
    }

    /// Reads and checks the manifest in a folder.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join(MANIFEST_FILE);
        let unreadable = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                format!("it has no {MANIFEST_FILE}, which is written last: it is none, or was not finished")
            }
            _ => format!("its {MANIFEST_FILE} cannot be read: {error}"),
        };
        let metadata = path.symlink_metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(format!("its {MANIFEST_FILE} is no file"));
        }
        let mut bytes = Vec::new();
        // One more, so that a longer one is seen to be too long.
        crate::files::open_regular(&path)
            .and_then(|file| file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(unreadable)?;
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(format!("its {MANIFEST_FILE} has more than {MANIFEST_BYTES_MAX} bytes"));
        }
        Self::parse(&bytes)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        /// Of any format: the rest is looked at when it is known.
        #[derive(Deserialize)]
        struct AnyFormat {
            format: u32,
            program: Option<String>,
        }
        let wrong = |error: serde_json::Error| format!("its {MANIFEST_FILE} is not what a backup has: {error}");
        let AnyFormat { format, program } = serde_json::from_slice(bytes).map_err(wrong)?;
        if !(1..=FORMAT).contains(&format) {
            return Err(format!(
                "it has format {format}, made by Holeshot {}; this program knows up to {FORMAT}: use the newer program",
                program.as_deref().unwrap_or("of an unknown version")
            ));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(wrong)?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        if self.files.len() > FILES_MAX {
            return Err(format!("its {MANIFEST_FILE} names more than {FILES_MAX} files"));
        }
        check_mode(self.mode.as_deref()).map_err(|problem| format!("its {MANIFEST_FILE}: {problem}"))?;
        for (path, file) in &self.files {
            let place = |problem: &str| format!("its {MANIFEST_FILE} says of {path:?}: {problem}");
            if Part::of(path).is_none() {
                return Err(place("a data folder has no such file. It is not restored"));
            }
            if file.blake3.len() != 64 || !file.blake3.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                return Err(place("its hash is none"));
            }
            check_mode(file.mode.as_deref()).map_err(|problem| place(&problem))?;
        }
        for kind in Kind::ALL {
            if self.facts(kind).is_some() != self.files.contains_key(kind.file()) {
                return Err(format!("its {MANIFEST_FILE} is not of one mind about {}", kind.file()));
            }
        }
        if self.outbox.is_none() && self.records.is_none() {
            return Err("it has neither records nor an outbox".to_owned());
        }
        if self.outbox.is_some() && !(self.host.is_some() && self.files.contains_key(IDENTITY_FILE)) {
            return Err(format!("it has an outbox and no {IDENTITY_FILE}"));
        }
        Ok(())
    }
}

fn check_mode(mode: Option<&str>) -> Result<(), String> {
    match mode.map(parse_mode) {
        None | Some(Some(_)) => Ok(()),
        Some(None) => Err(format!("the mode {:?} is none of 0 to 777", mode.unwrap_or_default())),
    }
}

/// A mode from its octal digits.
pub(super) fn parse_mode(text: &str) -> Option<u32> {
    let is_octal = (1..=3).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    is_octal.then(|| u32::from_str_radix(text, 8).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn only_names_of_a_data_folder_are_parts() {
        let hash = "0".repeat(64);
        for (path, part) in [
            ("identity.json", Part::Secret),
            ("admin-token", Part::Secret),
            ("records.sqlite3", Part::Database(Kind::Records)),
            ("outbox.sqlite3", Part::Database(Kind::Outbox)),
            ("modules.json", Part::Chosen),
            (&format!("modules/{hash}.wasm"), Part::Module),
            ("journals/r-1.journal", Part::Journal),
            ("journals/closed/r-1.journal", Part::Journal),
        ] {
            assert_eq!(Part::of(path), Some(part), "{path}");
        }
        for path in [
            "",
            "/",
            "..",
            "../identity.json",
            "/identity.json",
            "./identity.json",
            "identity.json/",
            "identity.json\0",
            "backup.json",
            "records.sqlite3-wal",
            "holeshot.lock",
            "modules/../identity.json",
            "modules/a.wasm",
            &format!("modules/{hash}.cwasm"),
            &format!("modules/../{hash}.wasm"),
            "journals/../../x.journal",
            "journals/closed/../x.journal",
            "journals/.journal",
            "journals/a.b.journal",
            "journals/closed/x/y.journal",
            "journals\\x.journal",
            "etc/passwd",
        ] {
            assert_eq!(Part::of(path), None, "{path:?}");
        }
    }

    fn small() -> Value {
        let file = json!({ "bytes": 1, "blake3": "a".repeat(64), "mode": "600" });
        let facts = json!({ "layout": 1, "rows": {}, "origins": {} });
        json!({
            "format": 1, "program": "0.1.0", "made_at": "2026-11-21T12:00:00Z", "host": "host-1", "journals": true, "mode": "755",
            "records": null, "outbox": facts, "files": { "identity.json": file, "outbox.sqlite3": file },
        })
    }

    #[test]
    fn a_manifest_is_checked_before_it_is_believed() {
        let parse = |value: &Value| Manifest::parse(value.to_string().as_bytes());
        parse(&small()).unwrap();
        let entry = small()["files"]["identity.json"].clone();
        let cases: [(&str, Value, &str); 13] = [
            ("/format", json!(2), "use the newer program"),
            ("/format", json!(0), "format 0"),
            ("/format", json!("1"), "invalid type"),
            ("/files/identity.json/blake3", json!("A".repeat(64)), "hash"),
            ("/files/identity.json/blake3", json!("../x"), "hash"),
            ("/files/identity.json/bytes", json!(-1), "invalid value"),
            ("/files/identity.json/mode", json!("4755"), "mode"),
            ("/files/identity.json/mode", json!("+7"), "mode"),
            ("/files/identity.json/more", json!(1), "unknown field"),
            ("/files/..~1..~1etc~1passwd", entry.clone(), "a data folder has no such file"),
            ("/files/records.sqlite3", entry, "one mind about records.sqlite3"),
            ("/outbox", json!(null), "one mind about outbox.sqlite3"),
            ("/host", json!(null), "no identity.json"),
        ];
        for (at, value, words) in cases {
            let mut manifest = small();
            let (parent, name) = at.rsplit_once('/').unwrap();
            let name = name.replace("~1", "/");
            manifest.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(name, value);
            let problem = parse(&manifest).unwrap_err();
            assert!(problem.contains(words), "{at}: {problem}");
        }
        for bytes in [&b""[..], b"\xff", b"[]", b"{}", b"{\"format\":1}", b"null"] {
            Manifest::parse(bytes).unwrap_err();
        }
        let text = small().to_string();
        for end in 0..text.len() {
            Manifest::parse(text.as_bytes().get(..end).unwrap()).unwrap_err();
        }
    }
}
