//! Where a device keeps what it has learned about itself: which kernels are fast, and compiled pipelines.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::lock::lock;
use crate::atomic;

/// Names a folder of its own, or, empty, none.
const VARIABLE: &str = "RAILS_CACHE_DIR";

/// The folder of this user: `RAILS_CACHE_DIR`, or `rails-wgpu` in the platform's folder for caches. `None` if the variable is empty,
/// or if there is no such folder. Software drivers compile for caches of their own and are never timed: they keep something
/// only in a folder that is named.
pub(crate) fn folder(software: bool) -> Option<PathBuf> {
    folder_of(software, &|name| std::env::var_os(name))
}

fn folder_of(software: bool, variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(named) = variable(VARIABLE) {
        return Some(PathBuf::from(named)).filter(|folder| !folder.as_os_str().is_empty());
    }
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let caches = if cfg!(windows) {
        absolute("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        absolute("HOME").map(|home| home.join("Library/Caches"))
    } else {
        absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))
    };
    caches.filter(|_| !software).map(|caches| caches.join("rails-wgpu"))
}

/// Replaces a file of the cache, whose folder is made if need be. A cache that cannot be written costs time only.
pub(crate) fn write(path: &Path, bytes: &[u8]) {
    // Devices of one program must not write the same temporary file at once.
    static WRITING: Mutex<()> = Mutex::new(());
    let _one = lock(&WRITING);
    let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(crate::Error::io("create", path));
    if let Err(error) = folder.and_then(|()| atomic::write(path, |file| std::io::Write::write_all(file, bytes))) {
        log::warn!("nothing is kept for the next start: {error}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn folder_with(software: bool, variables: &[(&str, &str)]) -> Option<PathBuf> {
        folder_of(software, &|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_variable_comes_first_and_switches_off_when_empty() {
        let home = ("HOME", "/home/a");
        assert_eq!(folder_with(false, &[home, (VARIABLE, "there")]), Some(PathBuf::from("there")));
        assert_eq!(folder_with(true, &[home, (VARIABLE, "there")]), Some(PathBuf::from("there")));
        assert_eq!(folder_with(false, &[home, (VARIABLE, "")]), None);
        assert_eq!(folder_with(false, &[]), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn else_the_platform_says() {
        let home = ("HOME", "/home/a");
        assert_eq!(folder_with(false, &[home]), Some(PathBuf::from("/home/a/.cache/rails-wgpu")));
        assert_eq!(folder_with(false, &[home, ("XDG_CACHE_HOME", "/c")]), Some(PathBuf::from("/c/rails-wgpu")));
        assert_eq!(
            folder_with(false, &[home, ("XDG_CACHE_HOME", "c")]),
            Some(PathBuf::from("/home/a/.cache/rails-wgpu"))
        );
        assert_eq!(folder_with(true, &[home]), None, "a software driver");
    }

    #[test]
    fn files_are_replaced_and_their_folder_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/file");
        write(&path, b"one");
        write(&path, b"two");
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        write(&folder.path().join("new/folder/file/below"), b"no folder: said in the log only");
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
    }
}
