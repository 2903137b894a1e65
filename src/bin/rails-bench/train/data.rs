//! What a model is trained on: sequences, and the items that negatives are drawn of.

use clap::Args;
use rails_wgpu::train::{DataSource, RunData};
use rails_wgpu::{Error, Result};

use crate::paths::Input;
use crate::progress::{self, note};

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
        let Some(dataset) = &self.dataset else { return Ok(before.clone()) };
        Ok(DataSource {
            skip_bad_lines: self.skip_bad_lines || before.skip_bad_lines,
            shift_id_by: if self.shift_id_by == 0 { before.shift_id_by } else { self.shift_id_by },
            ..DataSource::of_files(dataset, self.item_ids.as_deref())?
        })
    }
}

/// Reads the data, and says what is wrong with them.
pub fn read_data(source: &DataSource) -> Result<RunData> {
    let data = progress::stage(&format!("reading {}", source.dataset.display()), || RunData::read(source))?;
    for warning in &data.warnings {
        note!("warning: {warning}");
    }
    Ok(data)
}
