//! One state directory, one process.

use std::fs;

use tempfile::TempDir;
use tidegate::state_dir::{StateDir, StateDirError};

#[test]
fn a_state_directory_belongs_to_one_process() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("made/on demand");
    let held = StateDir::open(&path).unwrap();
    assert_eq!(held.path(), path);
    let error = StateDir::open(&path).unwrap_err();
    assert!(matches!(error, StateDirError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(held);
    StateDir::open(&path).unwrap();
}

#[test]
fn a_state_directory_that_cannot_be_made_is_a_clear_error() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("state")] {
        let error = StateDir::open(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("instance.state_dir"), "{error}");
    }
}
