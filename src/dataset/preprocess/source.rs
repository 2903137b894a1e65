//! Where raw files lie: a zip archive, a folder, or one file with others beside it. Each may be compressed with gzip.
//!
//! Members of an archive are streamed. Their names are compared and shown, never used as paths.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use crate::{Error, Result, input};

pub(super) enum Source {
    Zip(PathBuf),
    Folder(PathBuf),
    File(PathBuf),
}

impl Source {
    pub fn open(path: &Path) -> Result<Source> {
        let read = Error::io("read", path);
        if path.is_dir() {
            return Ok(Source::Folder(path.into()));
        }
        let mut magic = Vec::new();
        input::open(path).and_then(|file| file.take(4).read_to_end(&mut magic)).map_err(read)?;
        let zip = magic == b"PK\x03\x04" || magic == b"PK\x05\x06";
        Ok(if zip { Source::Zip(path.into()) } else { Source::File(path.into()) })
    }

    /// Hands the file of events to `read`: the member called `name`, or ending with it if it starts with a dot. A single
    /// file is taken whatever its name.
    pub fn main<T>(&self, name: &str, read: impl FnOnce(&mut dyn BufRead, &Path) -> Result<T>) -> Result<T> {
        if let Source::File(path) = self {
            return read_file(path, read);
        }
        self.find(name, read)?.ok_or_else(|| match self {
            Source::Folder(path) => {
                fault(path, format!("expected a file `{name}` here or one folder below, found none"))
            }
            Source::Zip(path) | Source::File(path) => fault(path, format!("expected a member `{name}`, found none")),
        })
    }

    /// Hands the file `name` to `read`, if there is one.
    pub fn find<T>(&self, name: &str, read: impl FnOnce(&mut dyn BufRead, &Path) -> Result<T>) -> Result<Option<T>> {
        match self {
            Source::File(path) => {
                let beside = [path.with_file_name(name), path.with_file_name(format!("{name}.gz"))];
                let beside = beside.iter().find(|beside| beside.is_file());
                beside.map(|beside| read_file(beside, read)).transpose()
            }
            Source::Folder(path) => {
                let mut files = list(path)?;
                files.retain(|file| file.file_name().is_some_and(|file| matches(&file.to_string_lossy(), name)));
                let Some(file) = only(path, name, files, |file| file.display().to_string())? else { return Ok(None) };
                read_file(&file, read).map(Some)
            }
            Source::Zip(path) => {
                let file = input::open(path).map_err(Error::io("read", path))?;
                let broken = |source| fault(path, format!("not a readable zip archive: {source}"));
                let mut archive = ZipArchive::new(BufReader::new(file)).map_err(broken)?;
                let members = archive.file_names().enumerate();
                let members = members.filter_map(|(index, member)| Some((index, member.ok()?.into_owned())));
                let members = members.filter(|(_, member)| matches(base_name(member), name)).collect();
                let member = only(path, name, members, |(_, member)| member.clone())?;
                let Some((index, member)) = member else { return Ok(None) };
                let member_path = PathBuf::from(format!("{}/{member}", path.display()));
                let file = archive.by_index(index).map_err(|source| fault(&member_path, source.to_string()))?;
                let mut reader = BufReader::with_capacity(1 << 16, file);
                match member.ends_with(".gz") {
                    true => read(&mut input::decompressed(reader), &member_path),
                    false => read(&mut reader, &member_path),
                }
                .map(Some)
            }
        }
    }
}

/// The files at `input` that go by one of `names`, as [`Source::find`] has them: itself and those beside it, or in the folder
/// that it is.
pub(super) fn files(input: &Path, names: &[&str]) -> Result<Vec<PathBuf>> {
    if input.is_dir() {
        let mut files = list(input)?;
        let named = |file: &PathBuf| file.file_name().map(|file| file.to_string_lossy().into_owned());
        files.retain(|file| named(file).is_some_and(|file| names.iter().any(|name| matches(&file, name))));
        return Ok(files);
    }
    let beside = names.iter().map(|name| match name.strip_prefix('.') {
        Some(extension) => input.with_extension(extension),
        None => input.with_file_name(name),
    });
    Ok(std::iter::once(input.to_path_buf()).chain(beside.filter(|path| path.is_file())).collect())
}

fn fault(path: &Path, what: String) -> Error {
    Error::Dataset { path: path.to_path_buf(), line: 0, what }
}

fn read_file<T>(path: &Path, read: impl FnOnce(&mut dyn BufRead, &Path) -> Result<T>) -> Result<T> {
    read(&mut input::text(path)?, path)
}

fn base_name(member: &str) -> &str {
    member.rsplit(['/', '\\']).next().unwrap_or(member)
}

/// Hidden files are nobody's data: macOS puts `._ratings.inter` into its archives.
fn matches(file: &str, name: &str) -> bool {
    let file = file.strip_suffix(".gz").unwrap_or(file);
    file == name || (name.starts_with('.') && file.ends_with(name) && !file.starts_with('.'))
}

/// The files of `folder` and of the folders in it.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let children = |folder: &Path| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        entries.map_err(Error::io("read", folder))
    };
    let (folders, mut files): (Vec<_>, Vec<_>) = children(folder)?.into_iter().partition(|path| path.is_dir());
    for folder in folders {
        files.extend(children(&folder)?.into_iter().filter(|path| path.is_file()));
    }
    Ok(files)
}

fn only<T>(path: &Path, name: &str, mut found: Vec<T>, show: impl Fn(&T) -> String) -> Result<Option<T>> {
    if found.len() > 1 {
        let mut names: Vec<_> = found.iter().map(show).collect();
        names.sort();
        return Err(fault(path, format!("expected one file `{name}`, found {}; give the right one", names.join(", "))));
    }
    Ok(found.pop())
}
