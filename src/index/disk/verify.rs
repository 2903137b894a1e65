//! Reading everything.

use std::path::Path;

use super::Folder;
use crate::backend::select;
use crate::index::{OpenOptions, unique};
use crate::store::{Damage, Report, Store};
use crate::{Error, Result};

/// Checksums first: they tell every damaged file. What passes them and is wrong all the same was written so.
pub(super) fn verify(path: &Path) -> Result<Report> {
    let mut report = Store::verify(path)?;
    if report.is_sound()
        && let Err(error) = check_content(path)
    {
        report.damage.push(match error {
            Error::Index { path, what, .. } => Damage { path, what },
            other => Damage { path: path.to_path_buf(), what: other.to_string() },
        });
    }
    Ok(report)
}

fn check_content(path: &Path) -> Result<()> {
    let store = Store::open(path)?;
    let folder = Folder::new(store, OpenOptions { check: true, device_memory: None })?;
    let segments = folder.segments(&folder.blueprint()?, &[select::open("cpu")?], None)?;
    folder.model()?;
    unique::check(segments.iter())
}
