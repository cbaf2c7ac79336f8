//! The directory that holds a daemon's files, and the lock that gives it to one process.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The file whose lock says that a daemon uses the directory; it holds the process id.
const LOCK_NAME: &str = "tidegate.lock";

/// A state directory, locked for as long as this value lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// The kernel releases its lock with the process, however that ends.
    _lock: File,
}

/// Why a state directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    #[error("can't make the state directory {}: {source}; set instance.state_dir to a directory that this user can write", path.display())]
    Create { path: PathBuf, source: std::io::Error },
    #[error("can't write in the state directory {}: {source}; set instance.state_dir to a directory that this user can write", path.display())]
    Unwritable { path: PathBuf, source: std::io::Error },
    #[error("another tidegate{owner} uses the state directory {}: stop it, or give each its own instance.state_dir", path.display())]
    InUse {
        path: PathBuf,
        /// ` (process 123)`, where it is known.
        owner: String,
    },
    #[error("can't lock {}: {source}; put instance.state_dir on a file system with file locks", path.display())]
    Lock { path: PathBuf, source: std::io::Error },
}

impl StateDir {
    /// Makes the directory if it is not there (mode 0750), locks it, and sees that it can be written.
    ///
    /// # Errors
    /// It can't be made or written, or another process has it.
    pub fn open(path: &Path) -> Result<StateDir, StateDirError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(path);
        made.map_err(|source| StateDirError::Create { path: path.to_owned(), source })?;
        let unwritable = |source| StateDirError::Unwritable { path: path.to_owned(), source };
        let lock_path = path.join(LOCK_NAME);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(unwritable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StateDirError::InUse { path: path.to_owned(), owner: owner(&mut lock) });
            }
            Err(TryLockError::Error(source)) => return Err(StateDirError::Lock { path: lock_path, source }),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(unwritable)?;
        // The lock file may be older than the directory's present permissions.
        let probe = path.join(".tidegate-probe");
        match fs::remove_file(&probe) {
            Err(source) if source.kind() != ErrorKind::NotFound => return Err(unwritable(source)),
            _ => {}
        }
        File::create_new(&probe).and_then(|_| fs::remove_file(&probe)).map_err(unwritable)?;
        Ok(StateDir { path: path.to_owned(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn owner(lock: &mut File) -> String {
    let mut text = String::new();
    match lock.take(20).read_to_string(&mut text) {
        Ok(_) if text.trim().parse::<u32>().is_ok() => format!(" (process {})", text.trim()),
        _ => String::new(),
    }
}
