//! What a run reads: sequences, the items to be found, and where they come from.

use std::collections::HashSet;
use std::path::{Path, PathBuf, absolute};

use super::{DataSource, DataSummary, TrainSet};
use crate::dataset::{Dataset, ReadOptions, Sequence, read_item_ids};
use crate::{Error, Result};

/// The data of a run, in memory.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RunData {
    /// Where they were read from; empty for data that were in memory.
    pub source: DataSource,
    /// Histories of users, oldest event first, held-out events included.
    pub sequences: Vec<Sequence>,
    /// Items that negatives are drawn of and evaluations search.
    pub items: Vec<u32>,
    /// What is probably wrong with them, in a sentence each.
    pub warnings: Vec<String>,
}

impl RunData {
    /// Reads sequences and items.
    ///
    /// # Errors
    /// As [`Dataset::read`] and [`read_item_ids`].
    pub fn read(source: &DataSource) -> Result<RunData> {
        let options =
            ReadOptions::default().with_skip_bad_lines(source.skip_bad_lines).with_shift_id_by(source.shift_id_by);
        let (dataset, report) = Dataset::read(&source.dataset, options)?;
        let items = source.item_ids.as_deref().map(read_item_ids).transpose()?;
        let mut data = RunData::new(dataset.sequences, items);
        data.source = source.clone();
        let file = source.dataset.display();
        let mut warnings: Vec<String> = report.warnings().iter().map(|warning| format!("{file}: {warning}")).collect();
        if report.bad_lines > 0 {
            let first = report.first_bad_line.unwrap_or_default();
            warnings.push(format!("{file}: {} malformed lines passed over, the first: {first}", report.bad_lines));
        }
        data.warnings.splice(..0, warnings);
        Ok(data)
    }

    /// Takes sequences, and the items to be found: by default every id from 1 to the largest.
    pub fn new(sequences: Vec<Sequence>, items: Option<Vec<u32>>) -> RunData {
        let used: HashSet<u32> = sequences.iter().flat_map(|sequence| &sequence.item_ids).copied().collect();
        let items = items.unwrap_or_else(|| (1..=used.iter().max().copied().unwrap_or(0)).collect());
        let listed: HashSet<u32> = items.iter().copied().collect();
        let (absent, n) = (used.difference(&listed).count(), used.len());
        let warning = format!(
            "items with events that are not in the list of items, so that no search finds them: {absent} of {n}"
        );
        let warnings = if absent > 0 { vec![warning] } else { Vec::new() };
        RunData { source: DataSource::default(), sequences, items, warnings }
    }

    /// What tells them from other data.
    pub fn summary(&self) -> DataSummary {
        DataSummary::new(self.source.clone(), &self.sequences, &self.items)
    }

    /// As a run takes them.
    pub fn set(&self) -> TrainSet<'_> {
        TrainSet { sequences: &self.sequences, items: &self.items }
    }
}

impl DataSource {
    /// The file of sequences `dataset`, with the items of `item_ids`; by default those of the file `.items.txt` that preprocessing has
    /// written beside the data set, if it is there.
    ///
    /// # Errors
    /// If the current folder is needed and cannot be found.
    pub fn of_files(dataset: &Path, item_ids: Option<&Path>) -> Result<DataSource> {
        let place = |path: &Path| absolute(path).map_err(Error::io("find", path));
        let beside = dataset.with_extension("items.txt");
        let items: Option<PathBuf> = match item_ids {
            Some(items) => Some(items.to_path_buf()),
            None => beside.is_file().then_some(beside),
        };
        Ok(DataSource {
            dataset: place(dataset)?,
            item_ids: items.map(|items| place(&items)).transpose()?,
            ..DataSource::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_without_a_list_are_all_ids_and_those_beside_a_list_are_named() {
        let sequence = Sequence { user_id: 1, item_ids: vec![2, 5, 5], ..Sequence::default() };
        let data = RunData::new(vec![sequence.clone()], None);
        assert_eq!((data.items, data.warnings.len()), (vec![1, 2, 3, 4, 5], 0));
        let data = RunData::new(vec![sequence], Some(vec![2, 3]));
        assert_eq!((&data.items, data.warnings.len()), (&vec![2, 3], 1));
        assert!(data.warnings[0].ends_with(": 1 of 2"), "{:?}", data.warnings);
    }
}
