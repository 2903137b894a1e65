//! What a model is trained on: sequences, and the items that negatives are drawn of.

use std::path::{Path, PathBuf, absolute};

use clap::Args;
use rails_wgpu::dataset::{Sequence, read_item_ids};
use rails_wgpu::train::{DataSource, DataSummary};
use rails_wgpu::{Error, Result};

use crate::model_files::load_dataset;
use crate::options::DataArgs;
use crate::paths::Input;
use crate::progress::note;

/// Which data; of a run that goes on, its own unless others are named.
#[derive(Args)]
pub struct TrainDataArgs {
    /// Sequences, as `rails-bench preprocess` and the reference write them
    #[arg(long, env = "RAILS_DATASET")]
    dataset: Option<Input>,
    /// Items that negatives are drawn of and evaluations search: a text file with one id per line, or a CSV with a movie_id or
    /// item_id column [default: the .items.txt that `preprocess` has written beside the data set, else every id up to the largest]
    #[arg(long)]
    item_ids: Option<Input>,
    /// Pass over malformed lines of the data set, and say how many
    #[arg(long)]
    skip_bad_lines: bool,
    /// Add this to every item id of the data set (1 for the reference's Amazon files, whose ids start at 0)
    #[arg(long, default_value_t = 0)]
    shift_id_by: u32,
}

impl TrainDataArgs {
    /// What a new run reads.
    pub fn source(&self) -> Result<DataSource> {
        match &self.dataset {
            Some(_) => self.changed(&DataSource::default()),
            None => Err(Error::argument("options", "--dataset", "none")),
        }
    }

    /// What a run reads that goes on; what was given replaces what it has read before.
    pub fn changed(&self, before: &DataSource) -> Result<DataSource> {
        let place = |path: &Path| absolute(path).map_err(Error::io("find", path));
        let Some(dataset) = &self.dataset else { return Ok(before.clone()) };
        let beside = dataset.with_extension("items.txt");
        let items: Option<PathBuf> = match &self.item_ids {
            Some(items) => Some(items.to_path_buf()),
            None => beside.is_file().then_some(beside),
        };
        Ok(DataSource {
            dataset: place(dataset)?,
            item_ids: items.map(|items| place(&items)).transpose()?,
            skip_bad_lines: self.skip_bad_lines || before.skip_bad_lines,
            shift_id_by: if self.shift_id_by == 0 { before.shift_id_by } else { self.shift_id_by },
        })
    }
}

/// Data that were read.
pub struct TrainingData {
    pub source: DataSource,
    pub sequences: Vec<Sequence>,
    pub items: Vec<u32>,
}

impl TrainingData {
    /// Reads sequences and items.
    pub fn load(source: &DataSource) -> Result<TrainingData> {
        let input = |path: &Path| Input::from(path.as_os_str().to_os_string());
        let sequences = load_dataset(
            &DataArgs {
                dataset: input(&source.dataset),
                item_ids: None,
                skip_bad_lines: source.skip_bad_lines,
                shift_id_by: source.shift_id_by,
            },
            None,
        )?
        .sequences;
        let largest = sequences.iter().flat_map(|sequence| &sequence.item_ids).max().copied().unwrap_or(0);
        let items = match &source.item_ids {
            Some(path) => read_item_ids(path)?,
            None => (1..=largest).collect(),
        };
        let listed: std::collections::HashSet<u32> = items.iter().copied().collect();
        let used: std::collections::HashSet<u32> =
            sequences.iter().flat_map(|sequence| &sequence.item_ids).copied().collect();
        let absent = used.difference(&listed).count();
        if absent > 0 {
            let n = used.len();
            note!(
                "warning: items with events that are not in the list of items, so that no search finds them: {absent} of {n}"
            );
        }
        Ok(TrainingData { source: source.clone(), sequences, items })
    }

    /// What tells it from other data.
    pub fn summary(&self) -> DataSummary {
        DataSummary::new(self.source.clone(), &self.sequences, &self.items)
    }
}
