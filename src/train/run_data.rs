//! What a run reads: sequences, the items to be found, and where they come from.

use std::collections::HashSet;
use std::path::{Path, absolute};

use super::{DataSource, DataSummary};
use crate::dataset::{Dataset, ReadOptions, Sequence, item_list_beside, read_item_ids};
use crate::error::Parameter;
use crate::{Error, Result};

/// Ids up to this are taken whatever the number of items, and others up to so many per item: an item table has a row for each id.
const IDS: usize = 1_000_000;
const IDS_PER_ITEM: usize = 20;

/// What a model is trained on.
#[derive(Clone, Copy, Debug)]
pub struct TrainSet<'a> {
    /// Histories of users, oldest event first, held-out events included.
    pub sequences: &'a [Sequence],
    /// Items that negatives are drawn of and evaluations search.
    pub items: &'a [u32],
}

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
    /// As [`Dataset::read`], [`read_item_ids`] and [`RunData::new`].
    pub fn read(source: &DataSource) -> Result<RunData> {
        let options =
            ReadOptions::default().with_skip_bad_lines(source.skip_bad_lines).with_shift_id_by(source.shift_id_by);
        let (dataset, report) = Dataset::read(&source.dataset, options)?;
        let items = source.item_ids.as_deref().map(read_item_ids).transpose()?;
        let mut data = RunData::new(dataset.sequences, items)?;
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
    ///
    /// # Errors
    /// If an id is far larger than there are items, so that a table with a row for each id would mostly be empty.
    pub fn new(sequences: Vec<Sequence>, items: Option<Vec<u32>>) -> Result<RunData> {
        n_item_rows(TrainSet { sequences: &sequences, items: items.as_deref().unwrap_or_default() })?;
        let used: HashSet<u32> = sequences.iter().flat_map(|sequence| &sequence.item_ids).copied().collect();
        let items = items.unwrap_or_else(|| (1..=used.iter().max().copied().unwrap_or(0)).collect());
        let listed: HashSet<u32> = items.iter().copied().collect();
        let (absent, n) = (used.difference(&listed).count(), used.len());
        let warning = format!(
            "items with events that are not in the list of items, so that no search finds them: {absent} of {n}"
        );
        let warnings = if absent > 0 { vec![warning] } else { Vec::new() };
        Ok(RunData { source: DataSource::default(), sequences, items, warnings })
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

/// Rows of an item table for all items that occur or can be found, with one for the id 0, which is padding.
///
/// # Errors
/// As [`RunData::new`].
pub(super) fn n_item_rows(set: TrainSet) -> Result<usize> {
    let ids = set.sequences.iter().flat_map(|sequence| &sequence.item_ids).chain(set.items);
    let items: HashSet<u32> = ids.copied().collect();
    let largest = items.iter().max().map_or(0, |&id| id as usize);
    let most = IDS.max(IDS_PER_ITEM * items.len());
    if largest > most {
        let expected = format!(
            "ids up to {most}: the item table has a row for each id up to the largest, and there are {} items; give them \
             numbers from 1 on, as `rails-bench preprocess` does",
            items.len()
        );
        return Err(Error::argument(Parameter::ItemIds, expected, largest));
    }
    Ok(largest + 1)
}

impl DataSource {
    /// The file of sequences `dataset`, with the items of `item_ids`; by default those of the list beside the data
    /// set ([`item_list_beside`]), if it is there.
    ///
    /// # Errors
    /// If the current folder is needed and cannot be found.
    pub fn of_files(dataset: &Path, item_ids: Option<&Path>) -> Result<DataSource> {
        let place = |path: &Path| absolute(path).map_err(Error::io("find", path));
        let items = item_ids.map(Path::to_path_buf).or_else(|| item_list_beside(dataset));
        Ok(DataSource {
            dataset: place(dataset)?,
            item_ids: items.map(|items| place(&items)).transpose()?,
            ..DataSource::default()
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn items_without_a_list_are_all_ids_and_those_beside_a_list_are_named() {
        let sequence = Sequence { user_id: 1, item_ids: vec![2, 5, 5], ..Sequence::default() };
        let data = RunData::new(vec![sequence.clone()], None).unwrap();
        assert_eq!((data.items, data.warnings.len()), (vec![1, 2, 3, 4, 5], 0));
        let data = RunData::new(vec![sequence.clone()], Some(vec![2, 3])).unwrap();
        assert_eq!((&data.items, data.warnings.len()), (&vec![2, 3], 1));
        assert!(data.warnings[0].ends_with(": 1 of 2"), "{:?}", data.warnings);
        for (items, largest) in [(None, u32::MAX), (Some(vec![2, 1_000_001]), 5)] {
            let sequence = Sequence { item_ids: vec![2, largest], ..sequence.clone() };
            let error = RunData::new(vec![sequence], items).unwrap_err().to_string();
            assert!(error.starts_with("item ids: expected ids up to 1000000: "), "{error}");
        }
        let many = (1_000_001..1_060_000).collect();
        assert!(RunData::new(vec![sequence], Some(many)).is_ok());
    }
}
