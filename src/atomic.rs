//! Writing a file so that the one it replaces is lost only when the new one is complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Lets `fill` write a temporary file beside `path`, which reaches the disk and then takes the name: a reader never sees
/// half a file, and a failure leaves an existing one as it was.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written, [`Error::Argument`] if `path` has no file name.
pub fn write(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let temporary = temporary(path)?;
    let mut writer = BufWriter::new(File::create(&temporary).map_err(Error::io("create", path))?);
    let written = fill(&mut writer)
        .and_then(|()| writer.flush())
        .and_then(|()| writer.get_ref().sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first failure is the one worth reporting, not that of the cleaning up.
        let _ = fs::remove_file(&temporary);
    }
    written.and_then(|()| sync_folder(path)).map_err(Error::io("write", path))
}

/// Whether [`write()`] can begin: for programs that want to fail before a long work and not after it. Nothing is left behind.
///
/// # Errors
/// As [`write()`].
pub fn check(path: &Path) -> Result<()> {
    let temporary = temporary(path)?;
    File::create(&temporary).map_err(Error::io("create", path))?;
    if path.is_dir() {
        let _ = fs::remove_file(&temporary);
        return Err(Error::argument("output", "the path of a file", format!("the folder {}", path.display())));
    }
    fs::remove_file(&temporary).map_err(Error::io("create", path))
}

fn temporary(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| Error::argument("output", "the path of a file", path.display()))?;
    Ok(path.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id())))
}

/// Makes the name `path` itself durable, where folders can be synced.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_keeps_the_old_file_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.csv");
        fs::write(&path, "old").unwrap();
        let error = write(&path, |writer| {
            writer.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        })
        .unwrap_err();
        assert_eq!(error.to_string(), format!("cannot write {}: disk full", path.display()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        write(&path, |writer| writer.write_all(b"new")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_check_leaves_nothing_behind_and_touches_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.json");
        check(&path).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        fs::write(&path, "old").unwrap();
        check(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert!(check(folder.path()).is_err());
        assert!(check(&folder.path().join("no/such/out.json")).unwrap_err().to_string().contains("no/such/out.json"));
    }
}
