//! From the paths a user gives to a model and its data.

use std::path::Path;

use rails_wgpu::dataset::{Dataset, ReadOptions, Sequence, read_item_ids};
use rails_wgpu::model::Model;
use rails_wgpu::{Error, ModelFile, Result};

use crate::options::{DataArgs, ModelArgs};
use crate::progress::{self, note};

/// Loads the checkpoint with the configuration that was given or that lies with it.
pub fn load_model(args: &ModelArgs) -> Result<Model> {
    let path = args.checkpoint()?;
    let options = args.import.options();
    let read = || ModelFile::open_with(&path, args.config.as_deref(), &options)?.whole_model().cloned();
    progress::stage(&format!("reading {}", path.display()), read)
}

/// Reads the sequences and says what was passed over.
pub fn load_dataset(args: &DataArgs, limit: Option<usize>) -> Result<Dataset> {
    let options = ReadOptions::default()
        .with_limit(limit)
        .with_skip_bad_lines(args.skip_bad_lines)
        .with_shift_id_by(args.shift_id_by);
    let read = || Dataset::read(&args.dataset, options);
    let (dataset, report) = progress::stage(&format!("reading {}", args.dataset.display()), read)?;
    for warning in report.warnings() {
        note!("warning: {}: {warning}", args.dataset.display());
    }
    if report.bad_lines > 0 {
        let first = report.first_bad_line.unwrap_or_default();
        note!("{}: {} malformed lines passed over, the first: {first}", args.dataset.display(), report.bad_lines);
    }
    Ok(dataset)
}

/// The items to search: those of the file, or every row of the item table from 1 on.
pub fn load_item_ids(path: Option<&Path>, model: &Model) -> Result<Vec<u32>> {
    match path {
        Some(path) => read_item_ids(path),
        None => Ok((1..model.n_item_rows() as u32).collect()),
    }
}

/// The users that can be evaluated, and how many others there are, which is also said.
pub fn with_history_and_target(sequences: &[Sequence]) -> Result<(Vec<Sequence>, usize)> {
    let usable: Vec<Sequence> = sequences.iter().filter(|sequence| sequence.len() >= 2).cloned().collect();
    let skipped = sequences.len() - usable.len();
    if usable.is_empty() {
        let found = format!("{} users, all with fewer", sequences.len());
        return Err(Error::argument("dataset", "users with at least two events (a history and a target)", found));
    }
    if skipped > 0 {
        note!("{skipped} users with fewer than two events left out: they have no history or no target");
    }
    Ok((usable, skipped))
}

/// Says how many users have a next item that no search can find, because it is not among the items.
pub fn warn_of_absent(users: &[Sequence], contains: impl Fn(u32) -> bool) {
    let absent = users.iter().filter(|user| user.item_ids.last().is_some_and(|&id| !contains(id))).count();
    if absent > 0 {
        let users = users.len();
        note!("warning: users whose next item is not among the items, which counts as not found: {absent} of {users}");
    }
}
