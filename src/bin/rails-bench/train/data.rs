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

/// Users of the data sets that presets were published for, after the reference's preprocessing.
const USERS: [(&str, usize); 3] = [("ml-1m", 6_040), ("ml-20m", 138_493), ("amzn-books", 694_897)];

/// Says that the hyper-parameters of `preset`, DATA/MODEL, were chosen for other data, if they were.
pub fn mention_other_data(preset: &str, data: &RunData) {
    let published = USERS.iter().find(|(name, _)| preset.split('/').next() == Some(name));
    if let Some((name, users)) = published.filter(|(_, users)| *users != data.sequences.len()) {
        note!(
            "warning: `{preset}` was chosen for {name}, which has {users} users, and this data set has {}: other hyper-parameters \
             may suit it better",
            data.sequences.len()
        );
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
