//! Files that a process creates for itself, and that others recognise as abandoned once it has ended.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Result};
use std::path::Path;

use super::retry::exists;

/// Creates a file that is claimed as long as the result lives. Returns `None` if another process has a file of this name, or
/// claims the new one before this process does, in order to remove it: choose another name then.
///
/// Claims are locks. On a file system without locks every file that is created is claimed, and none is ever abandoned.
///
/// # Errors
/// Returns an error if the file cannot be created.
#[doc(hidden)]
pub fn create_claimed(path: &Path) -> Result<Option<File>> {
    let file = match File::create_new(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        file => file?,
    };
    if matches!(try_lock(&file), Err(TryLockError::WouldBlock)) {
        return Ok(None);
    }
    // It may have been claimed, removed and released before it was locked.
    Ok(exists(path)?.then_some(file))
}

/// Claims a file that an ended process left behind. Returns `None` if the file is in use or does not exist.
#[doc(hidden)]
pub fn claim_abandoned(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    try_lock(&file).ok()?;
    Some(file)
}

/// Locks a file unless another process has.
///
/// # Errors
/// Returns an error if the file is locked, or cannot be.
#[doc(hidden)]
pub fn try_lock(file: &File) -> std::result::Result<(), TryLockError> {
    loop {
        match file.try_lock() {
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            locked => return locked,
        }
    }
}
