//! The files and folders that a user names: what a command writes must not be what it reads.

use std::ffi::OsString;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ArgMatches;
use rails_wgpu::config::config_beside;
use rails_wgpu::dataset::item_list_beside;
use rails_wgpu::{Error, Result};

/// A file or folder that is read.
#[derive(Clone, Debug)]
pub struct Input(PathBuf);

/// A file or folder that is written; `-` may stand for the standard output.
#[derive(Clone, Debug)]
pub struct Output(PathBuf);

macro_rules! path {
    ($($name:ident),*) => {
        $(impl From<OsString> for $name {
            fn from(path: OsString) -> $name {
                $name(path.into())
            }
        }

        impl AsRef<Path> for $name {
            fn as_ref(&self) -> &Path {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = Path;

            fn deref(&self) -> &Path {
                &self.0
            }
        })*
    };
}
path!(Input, Output);

/// Where items come from.
#[derive(Clone, Debug, PartialEq)]
pub enum ItemsArg {
    /// A list of rows of the model's item table.
    List(PathBuf),
    /// Ids with embeddings, in a .safetensors or .npy file.
    Embeddings(PathBuf),
    /// Synthetic ones.
    Random { n: usize, seed: u64 },
}

impl ItemsArg {
    /// The file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            ItemsArg::List(path) | ItemsArg::Embeddings(path) => Some(path),
            ItemsArg::Random { .. } => None,
        }
    }
}

impl FromStr for ItemsArg {
    type Err = String;

    fn from_str(text: &str) -> Result<ItemsArg, String> {
        if let Some(numbers) = text.strip_prefix("random:") {
            let (n, seed) = numbers.split_once(':').unwrap_or((numbers, "0"));
            let expected = |_| "expected random:N or random:N:SEED with whole numbers".to_string();
            return Ok(ItemsArg::Random { n: n.parse().map_err(expected)?, seed: seed.parse().map_err(expected)? });
        }
        let path = PathBuf::from(text);
        Ok(if holds_embeddings(&path) { ItemsArg::Embeddings(path) } else { ItemsArg::List(path) })
    }
}

/// Ids of items.
#[derive(Clone, Debug, PartialEq)]
pub enum IdsArg {
    /// Themselves.
    Ids(Vec<u64>),
    /// A file with them.
    File(PathBuf),
}

impl IdsArg {
    /// The file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            IdsArg::File(path) => Some(path),
            IdsArg::Ids(_) => None,
        }
    }
}

impl From<OsString> for IdsArg {
    fn from(text: OsString) -> IdsArg {
        let ids = text.to_str().and_then(|text| text.split(',').map(|id| id.trim().parse().ok()).collect());
        ids.map_or_else(|| IdsArg::File(text.into()), IdsArg::Ids)
    }
}

/// Whether the name of `path` says that it is a .safetensors or .npy file, and not a list.
pub fn holds_embeddings(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "safetensors" || extension == "npy")
}

/// Checks everything that was given to the innermost command of `matches`, whichever option it was.
///
/// # Errors
/// As [`check`].
pub fn check_all(matches: &ArgMatches) -> Result<()> {
    if let Some((_, matches)) = matches.subcommand() {
        return check_all(matches);
    }
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    for id in matches.ids() {
        let id = id.as_str();
        let first = inputs.len();
        inputs
            .extend(matches.try_get_many::<Input>(id).into_iter().flatten().flatten().map(|input| input.to_path_buf()));
        if id == "dataset" {
            let lists: Vec<PathBuf> = inputs[first..].iter().filter_map(|dataset| item_list_beside(dataset)).collect();
            inputs.extend(lists);
        }
        let items = matches.try_get_many::<ItemsArg>(id).into_iter().flatten().flatten();
        inputs.extend(items.filter_map(ItemsArg::path).map(Path::to_path_buf));
        for output in matches.try_get_many::<Output>(id).into_iter().flatten().flatten() {
            if **output == *Path::new("-") && id != "json" {
                let expected = "a file or folder (`-`, standard output, is for --json; a file of that name is ./-)";
                return Err(Error::argument("output", expected, "-"));
            }
            outputs.push(&**output);
        }
        let ids = matches.try_get_many::<IdsArg>(id).into_iter().flatten().flatten();
        inputs.extend(ids.filter_map(IdsArg::path).map(Path::to_path_buf));
    }
    let configs: Vec<PathBuf> = inputs.iter().filter_map(|input| config_beside(input)).collect();
    inputs.extend(configs);
    let arrays: Vec<PathBuf> = inputs.iter().flat_map(|input| arrays_beside(input)).collect();
    inputs.extend(arrays);
    check(&inputs, &outputs)
}

/// The ids and lengths that belong to a .npy file.
fn arrays_beside(input: &Path) -> Vec<PathBuf> {
    let is_array = input.extension().is_some_and(|extension| extension == "npy");
    let names = if is_array { &["ids.npy", "lengths.npy"][..] } else { &[] };
    names.iter().map(|name| input.with_extension(name)).filter(|file| file.is_file()).collect()
}

/// Checks that each of `outputs` is another file than every one of `inputs` and the other outputs, whatever it is called,
/// and that none lies in an index that is read.
///
/// # Errors
/// [`Error::Argument`] that names both.
pub fn check(inputs: &[PathBuf], outputs: &[&Path]) -> Result<()> {
    let refused = |output: &Path, other: &Path, what: &str| {
        let found = format!("{}: {what} {}", output.display(), other.display());
        Err(Error::argument("output", "a path of its own, where nothing is lost", found))
    };
    let outputs: Vec<&Path> = outputs.iter().copied().filter(|output| *output != Path::new("-")).collect();
    for (n, output) in outputs.iter().enumerate() {
        let written = identity(output);
        let folder = written.is_some().then(|| identity(&parent(output))).flatten();
        for input in inputs {
            let read = identity(input);
            if read.is_some() && read == written {
                return refused(output, input, "it would replace the input");
            }
            if read.is_some() && read == folder && input.join("manifest.json").exists() {
                return refused(output, input, "it would lie in the index");
            }
        }
        if let Some(other) = outputs[..n].iter().find(|other| written.is_some() && identity(other) == written) {
            return refused(output, other, "it is also the output");
        }
    }
    Ok(())
}

/// What two paths share if they lead to one place.
#[derive(PartialEq)]
enum Identity {
    /// Device and number of a file or folder.
    #[cfg(unix)]
    Inode(u64, u64),
    /// An absolute path without links.
    Path(PathBuf),
}

/// `None` if neither `path` nor its folder is there.
fn identity(path: &Path) -> Option<Identity> {
    #[cfg(unix)]
    if let Ok(metadata) = fs::metadata(path) {
        use std::os::unix::fs::MetadataExt;
        return Some(Identity::Inode(metadata.dev(), metadata.ino()));
    }
    let real = fs::canonicalize(path).or_else(|_| {
        let folder = fs::canonicalize(parent(path))?;
        Ok::<_, std::io::Error>(path.file_name().map_or(folder.clone(), |name| folder.join(name)))
    });
    real.ok().map(Identity::Path)
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}
