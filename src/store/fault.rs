//! What to do about errors of the file system.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::Error;

/// What mends a damaged index.
pub(crate) const RESTORE: &str =
    "restore it from a copy or build the index again; `rails-bench index verify` lists every damaged file";

/// For `map_err`: `path` could not be written. The fix depends on the cause.
pub(super) fn writing(path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_path_buf();
    move |error| {
        let fix = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                "free space or raise the limit"
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "make the folder writable, or copy the index to one that is"
            }
            ErrorKind::AlreadyExists => "move what has this name out of the folder",
            _ => "remove the cause",
        };
        let fix = format!("{fix}, then run it again; nothing that was saved before is lost");
        Error::index(&path, format!("cannot be written: {error}"), fix)
    }
}

/// For `map_err`: `path` could not be read.
pub(super) fn reading(path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_path_buf();
    move |error| {
        let fix = match error.kind() {
            ErrorKind::NotFound => RESTORE,
            ErrorKind::PermissionDenied => "make it readable",
            ErrorKind::NotADirectory => "give the folder of an index, as `rails-bench index build` makes it",
            _ => "check the disk, or restore the file from a copy",
        };
        Error::index(&path, format!("cannot be read: {error}"), fix)
    }
}
