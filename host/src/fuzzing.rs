//! Ways in to decoders that are nobody's interface, for the fuzz targets in `tests/fuzz` and for nobody else: no documentation, no promise that any
//! of it stays. Nothing here decodes; it calls what does.

use std::path::Path;

use holeshot_abi::Manifest;

use crate::doors::tickets::keys::{KeyError, KeySet};
use crate::events::publisher::{Floor, Floors, Receipt};
use crate::manager::Records;
use crate::manager::recorder::Offline;
use crate::modder::scenario::FileError;
use crate::rules::LoadError;

/// Looks at a module as loading it does before it is compiled.
pub fn inspect(module: &[u8]) -> Result<(), LoadError> {
    crate::rules::inspect_module(module)
}

/// Reads and checks the manifest of a backup.
pub fn backup_manifest(json: &[u8]) -> Result<crate::backup::Manifest, String> {
    crate::backup::Manifest::parse(json)
}

/// Reads a scenario without playing it. Gives its number of frames, plays, deeds and expectations.
pub fn scenario(text: &str, manifest: &Manifest) -> Result<[usize; 4], FileError> {
    crate::modder::scenario::parsed(text, manifest)
}

/// Reads a file of matchmakers' keys.
pub fn ticket_keys(file: &[u8]) -> Result<KeySet, KeyError> {
    let mut keys = KeySet::default();
    keys.add(Path::new("keys.json"), file)?;
    Ok(keys)
}

/// An origin, up to which sequence of it everything is stored, and whether later ones came; none of a manager that is merely there.
pub type Stored = Option<(String, u64, bool)>;

/// Reads what a manager says to a host, and writes it again.
pub fn receipt(payload: &[u8]) -> Option<(Stored, Vec<u8>)> {
    let receipt: Receipt = serde_json::from_slice(payload).ok()?;
    let again = serde_json::to_vec(&receipt).ok()?;
    let said = match receipt {
        Receipt::Stored { origin, stored, gap } => Some((origin, stored, gap)),
        Receipt::Ready { .. } => None,
    };
    Some((said, again))
}

/// Writes what a host says to a manager about its outbox.
pub fn floors(floors: &[(&str, u64)]) -> Vec<u8> {
    let origins = floors.iter().map(|(origin, floor)| Floor { origin: (*origin).to_owned(), floor: *floor });
    serde_json::to_vec(&Floors { origins: origins.collect() }).unwrap_or_default()
}

/// What became of a batch: how many of its events are new, known, and could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// Events that are new.
    pub stored: u64,
    /// Events that were there.
    pub duplicates: u64,
    /// Messages, or the data of events, that could not be used.
    pub rejected: u64,
}

/// The manager's recorder on a file of its own, without a broker.
pub struct Recording {
    offline: Offline,
    records: Records,
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recording")
    }
}

impl Recording {
    /// Opens the records of a folder, which come about if they are not there.
    pub fn open(folder: &Path) -> Result<Self, String> {
        let (connection, path) = crate::manager::records::open(folder).map_err(|error| error.to_string())?;
        Ok(Self { offline: Offline::new(connection), records: Records::new(path) })
    }

    /// Takes a batch of messages, topic and payload, in one transaction.
    pub fn take(&mut self, batch: &[(String, Vec<u8>)]) -> Result<Recorded, String> {
        let (stored, duplicates, rejected) = self.offline.take(batch).map_err(|error| error.to_string())?;
        Ok(Recorded { stored, duplicates, rejected })
    }

    /// Every event, by origin and sequence, as its JSON.
    pub fn events(&self) -> Result<Vec<(String, u64, String)>, String> {
        self.offline.events().map_err(|error| error.to_string())
    }

    /// What reads the records.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Forgets everything.
    pub fn clear(&mut self) -> Result<(), String> {
        self.offline.clear().map_err(|error| error.to_string())
    }
}
