//! From what a person types to a journal's file: a path, a room's id, or the beginning of one.

use std::path::{Path, PathBuf};

use super::Folder;

/// How many folders above that of a journal its data folder may be, at most, that of the journal counted: `<data>/journals/closed`.
pub(super) const JOURNAL_FOLDERS_DEEP: usize = 2;

/// Rooms that are named when the one asked for is not there.
const SHOWN_MAX: usize = 5;

/// Why there is no such journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// Neither a file nor a room.
    #[error("there is no journal {asked:?}: no such file, and no such room in {folder}{hint}")]
    Unknown {
        /// What was asked for.
        asked: String,
        /// Where rooms were looked for.
        folder: PathBuf,
        /// Rooms that are there, and what to do.
        hint: String,
    },
    /// The beginning of several rooms' ids.
    #[error("{asked:?} is the beginning of {count} rooms' ids: {shown}. Give more of it")]
    Ambiguous {
        /// What was asked for.
        asked: String,
        /// How many.
        count: usize,
        /// Some of them.
        shown: String,
    },
}

/// Finds the journal of `asked`: the path of a file, a room of this data folder, or the beginning of a room's id that no other has. Blocks.
///
/// # Errors
/// [`FindError`], with the rooms that come nearest.
pub fn find(asked: &str, data_dir: &Path) -> Result<PathBuf, FindError> {
    let file = Path::new(asked);
    if file.is_file() {
        return Ok(file.to_path_buf());
    }
    let folder = Folder::of(data_dir);
    if let Some(path) = folder.find(asked) {
        return Ok(path);
    }
    let rooms = folder.rooms();
    let begin_so: Vec<&String> = rooms.iter().filter(|room| !asked.is_empty() && room.starts_with(asked)).collect();
    let unknown = |hint| FindError::Unknown { asked: asked.to_owned(), folder: folder.path().to_path_buf(), hint };
    match begin_so.as_slice() {
        [one] => folder.find(one).ok_or_else(|| unknown(String::new())),
        [] if rooms.is_empty() => {
            Err(unknown("; that folder has no journals. Name the data folder of the host with --data-dir".to_owned()))
        }
        [] => Err(unknown(format!("; {} are there, such as {}", rooms.len(), nearest(asked, &rooms)))),
        several => {
            let shown: Vec<&str> = several.iter().take(SHOWN_MAX).map(|room| room.as_str()).collect();
            Err(FindError::Ambiguous { asked: asked.to_owned(), count: several.len(), shown: shown.join(", ") })
        }
    }
}

/// The rooms that begin most like `asked`; of those that do so equally, the newest. Ids sort by time.
fn nearest(asked: &str, rooms: &[String]) -> String {
    let alike = |room: &str| asked.bytes().zip(room.bytes()).take_while(|(a, b)| a == b).count();
    let mut rooms: Vec<&String> = rooms.iter().collect();
    rooms.sort_by(|a, b| alike(b).cmp(&alike(a)).then_with(|| b.cmp(a)));
    rooms.iter().take(SHOWN_MAX).map(|room| room.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_found_by_path_by_id_and_by_the_beginning_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::of(dir.path());
        let message = find("r-1", dir.path()).unwrap_err().to_string();
        assert!(message.contains("no journals") && message.contains("--data-dir"), "{message}");
        folder.make().unwrap();
        for room in ["0a11", "0a12", "0b31", "0c41", "0d51", "0e61"] {
            std::fs::write(folder.closed(room), "").unwrap();
        }
        let elsewhere = dir.path().join("copy of a journal");
        std::fs::write(&elsewhere, "").unwrap();
        let found = |asked: &str| find(asked, dir.path());
        assert_eq!(found(elsewhere.to_str().unwrap()), Ok(elsewhere));
        assert_eq!(found("0a12"), Ok(folder.closed("0a12")));
        assert_eq!(found("0b"), Ok(folder.closed("0b31")));
        let message = found("0a1").unwrap_err().to_string();
        assert!(message.contains("2 rooms' ids: 0a11, 0a12"), "{message}");
        let message = found("0a13").unwrap_err().to_string();
        assert!(message.contains("6 are there, such as 0a12, 0a11, 0e61, 0d51, 0c41"), "{message}");
        assert!(message.contains(&folder.path().display().to_string()), "{message}");
        assert!(matches!(found("").unwrap_err(), FindError::Unknown { .. }));
        assert!(matches!(found("../secret").unwrap_err(), FindError::Unknown { .. }));
    }
}
