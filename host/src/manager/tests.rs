//! The records' file: which files are taken and which are refused. How events get there is tested in `events::tests`.

use rusqlite::Connection;

use super::records::{self, RecordsError};

#[test]
fn a_file_of_a_newer_program_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (connection, path) = records::open(directory.path()).unwrap();
    connection.execute_batch("PRAGMA user_version = 77").unwrap();
    drop(connection);
    let error = records::open(directory.path()).unwrap_err();
    assert_eq!(error, RecordsError::Newer { path: path.clone(), found: 77, known: 1 });
    assert!(error.to_string().contains("use the newer program"));
    let version: i64 = Connection::open(&path).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(version, 77);
}

#[test]
fn a_file_of_another_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    Connection::open(directory.path().join(records::FILE)).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(matches!(records::open(directory.path()).unwrap_err(), RecordsError::Foreign { .. }));
    std::fs::write(directory.path().join(records::FILE), b"no database at all, but a text").unwrap();
    assert!(matches!(records::open(directory.path()).unwrap_err(), RecordsError::Sqlite { .. }));
}

#[test]
fn opening_again_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (first, path) = records::open(directory.path()).unwrap();
    let id = super::manager_id(&first, &path).unwrap();
    drop(first);
    let (again, _) = records::open(directory.path()).unwrap();
    assert_eq!(super::manager_id(&again, &path).unwrap(), id);
}
