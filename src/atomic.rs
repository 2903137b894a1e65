//! Writing a file so that the one it replaces is lost only when the new one is complete.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::Parameter;
use crate::{Error, Result, input};

/// Lets `fill` write a temporary file beside `path`, which reaches the disk and then takes the name: a reader never sees
/// half a file, and a failure leaves an existing one as it was. Where `path` is a symbolic link, the file it leads to is
/// replaced. An existing file keeps its permissions; one that is read-only is not replaced.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written, [`Error::Argument`] if `path` is not the path of a file.
pub fn write(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let Target { file, permissions, temporary } = Target::find(path)?;
    let mut writer = BufWriter::new(File::create_new(&temporary).map_err(Error::io("create", path))?);
    let written = fill(&mut writer)
        .and_then(|()| writer.flush())
        .and_then(|()| permissions.map_or(Ok(()), |permissions| writer.get_ref().set_permissions(permissions)))
        .and_then(|()| writer.get_ref().sync_all())
        .and_then(|()| fs::rename(&temporary, &file));
    if written.is_err() {
        // The first failure is the one worth reporting, not that of the cleaning up.
        let _ = fs::remove_file(&temporary);
    }
    written.and_then(|()| sync_folder(&file)).map_err(Error::io("write", path))
}

/// Whether [`write()`] can begin: for programs that want to fail before a long work and not after it. Nothing is left behind.
///
/// # Errors
/// As [`write()`].
pub fn check(path: &Path) -> Result<()> {
    let temporary = Target::find(path)?.temporary;
    File::create_new(&temporary).and_then(|_| fs::remove_file(&temporary)).map_err(Error::io("create", path))
}

/// What is to be replaced.
struct Target {
    /// The file itself, not a link to it.
    file: PathBuf,
    /// Those of the file that is there.
    permissions: Option<Permissions>,
    /// A name beside it that nothing else has.
    temporary: PathBuf,
}

impl Target {
    fn find(path: &Path) -> Result<Target> {
        let failed = || Error::io("write", path);
        let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
        let file = if is_link { fs::canonicalize(path).map_err(failed())? } else { path.to_path_buf() };
        let permissions = match fs::metadata(&file) {
            Ok(metadata) if !metadata.is_file() => {
                let found = format!("{} {}", input::name(metadata.file_type()), path.display());
                return Err(Error::argument(Parameter::Output, "the path of a file", found));
            }
            Ok(metadata) if metadata.permissions().readonly() => {
                return Err(failed()(io::Error::new(ErrorKind::PermissionDenied, "the file is read-only")));
            }
            Ok(metadata) => Some(metadata.permissions()),
            // Whatever else may be wrong shows when the temporary file is made.
            Err(_) => None,
        };
        let name =
            file.file_name().ok_or_else(|| Error::argument(Parameter::Output, "the path of a file", path.display()))?;
        let temporary = format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id());
        let temporary = file.with_file_name(temporary);
        // Left by a process of the same number that was killed.
        let _ = fs::remove_file(&temporary);
        Ok(Target { file, permissions, temporary })
    }
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
    #[cfg(unix)]
    #[test]
    fn links_lead_to_the_file_and_nothing_but_files_is_replaced() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("private"), "old").unwrap();
        fs::set_permissions(at("private"), Permissions::from_mode(0o600)).unwrap();
        symlink("private", at("link")).unwrap();
        write(&at("link"), |writer| writer.write_all(b"new")).unwrap();
        assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(at("private")).unwrap(), "new");
        assert_eq!(fs::metadata(at("private")).unwrap().permissions().mode() & 0o777, 0o600);

        symlink("nothing", at("dangling")).unwrap();
        fs::write(at("kept"), "kept").unwrap();
        fs::set_permissions(at("kept"), Permissions::from_mode(0o444)).unwrap();
        let error = |path: &Path| write(path, |writer| writer.write_all(b"new")).unwrap_err().to_string();
        assert!(error(&at("dangling")).contains("dangling") && !at("nothing").exists());
        assert!(error(&at("kept")).ends_with("the file is read-only"));
        assert_eq!(fs::read_to_string(at("kept")).unwrap(), "kept");
        assert_eq!(error(Path::new("/dev/null")), "output: expected the path of a file, found a device /dev/null");
        assert_eq!(check(Path::new("/dev/null")).unwrap_err().to_string(), error(Path::new("/dev/null")));
        assert!(error(folder.path()).contains("found a folder"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }
}
