//! Options that several commands share.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use rails_wgpu::backend::Dtype;
use rails_wgpu::config::{BlockNorm, FfnActivation};
use rails_wgpu::dataset::item_list_beside;
use rails_wgpu::import::Source;
use rails_wgpu::index::{IndexOptions, OpenOptions};
use rails_wgpu::search::Algorithm;
use rails_wgpu::tables::Form;
use rails_wgpu::{Attributes, Condition, Error, ImportOptions, Result};

use crate::paths::Input;
use crate::progress::{self, note};

/// Where to run.
#[derive(Args)]
pub struct DeviceArgs {
    /// `auto`, `cpu`, `gpu`, or part of a device's name, API and driver (see `rails-bench devices`)
    #[arg(long, default_value = "auto", env = "RAILS_DEVICE")]
    pub device: String,
    /// Number format of the item tables [default: f32; of a stored index, its own, and no other is accepted]
    #[arg(long, env = "RAILS_DTYPE", value_parser = dtype())]
    pub dtype: Option<Dtype>,
}

impl DeviceArgs {
    /// Number format of an index that is built.
    pub fn dtype(&self) -> Dtype {
        self.dtype.unwrap_or(Dtype::F32)
    }
}

/// Fails if another number format than `stored`, that of the index, was asked for.
pub fn check_dtype(asked: impl IntoIterator<Item = Dtype>, stored: Dtype) -> Result<()> {
    match asked.into_iter().find(|dtype| *dtype != stored) {
        None => Ok(()),
        Some(other) => {
            let expected = format!("{stored}, that of the stored index, or no --dtype (and no RAILS_DTYPE)");
            Err(Error::argument("dtype", expected, other))
        }
    }
}

/// How item components are kept; `None`: `auto`.
#[derive(Clone, Copy)]
pub struct FormArg(pub Option<Form>);

impl FromStr for FormArg {
    type Err = Error;

    fn from_str(name: &str) -> Result<FormArg> {
        IndexOptions::parse_form(name).map(FormArg)
    }
}

/// Reads a [`Dtype`]; help and completions list the names.
pub fn dtype() -> impl TypedValueParser<Value = Dtype> {
    let help = |name: &str| match name {
        "f32" => "32-bit floats",
        "f16" => "16-bit floats: half the memory",
        _ => "8-bit integers with one scale per vector: a quarter of the memory",
    };
    let value = move |&(name, aliases): &_| PossibleValue::new(name).aliases(aliases).help(help(name));
    PossibleValuesParser::new(Dtype::NAMES.iter().map(value)).try_map(|name| name.parse::<Dtype>())
}

/// Reads a [`FormArg`]; help and completions list the names.
pub fn form() -> impl TypedValueParser<Value = FormArg> {
    let help = |name: &str| match name {
        "auto" => "As they are, unless that takes more than 4 GiB and the raw form suits the model",
        "components" => "As they are",
        _ => "Not at all: they are computed from raw embeddings in every search. A fraction of the memory",
    };
    let value = move |name: &'static str| PossibleValue::new(name).help(help(name));
    PossibleValuesParser::new(IndexOptions::FORM_NAMES.map(value)).try_map(|name| name.parse::<FormArg>())
}

/// The help of `--algorithm`, which begins with `what`.
pub fn algorithm_help(what: &str) -> String {
    format!(
        "{what}{}. In a stored index, naive-ivf and tangent-ivf want inverted lists (`index build --lists`): without any, they \
         scan all items",
        Algorithm::SYNTAX
    )
}

/// What is known of a checkpoint that another program has written.
#[derive(Args, Clone, Default)]
pub struct ImportArgs {
    /// The program that has written the checkpoint [default: this one, if there are hyper-parameters for it, else the one that writes
    /// tensors of such names]
    #[arg(long, requires = "checkpoint", value_name = "PROGRAM", value_parser = by_name::<Source>(Source::NAMES), help_heading = "Checkpoints of other programs")]
    from: Option<Source>,
    /// Attention heads, where the checkpoint does not tell
    #[arg(long, requires = "checkpoint", value_name = "N", help_heading = "Checkpoints of other programs")]
    num_heads: Option<usize>,
    /// Activation of the feed-forward part, where it is not the program's usual one and the checkpoint does not tell
    #[arg(long, requires = "checkpoint", value_name = "NAME", value_parser = by_name::<FfnActivation>(FfnActivation::NAMES), help_heading = "Checkpoints of other programs")]
    activation: Option<FfnActivation>,
    /// Where the layer norms of a block are; pmixer: `pre` if it was trained with --norm_first, else `post`; `query` by a version
    /// that did not have this option yet
    #[arg(long, requires = "checkpoint", value_name = "PLACE", value_parser = by_name::<BlockNorm>(BlockNorm::NAMES), help_heading = "Checkpoints of other programs")]
    block_norm: Option<BlockNorm>,
    /// Longest history that the model sees, where the checkpoint does not tell
    #[arg(long, requires = "checkpoint", value_name = "N", help_heading = "Checkpoints of other programs")]
    max_sequence_length: Option<usize>,
}

impl ImportArgs {
    /// The same for the library.
    pub fn options(&self) -> ImportOptions {
        ImportOptions::default()
            .with_source(self.from)
            .with_num_heads(self.num_heads)
            .with_activation(self.activation)
            .with_block_norm(self.block_norm)
            .with_max_sequence_length(self.max_sequence_length)
    }
}

/// Reads one of `names`; help and completions list them.
fn by_name<T: FromStr<Err = Error> + Clone + Send + Sync + 'static>(
    names: &'static [(&str, &[&str])],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names.iter().map(|&(name, _)| name)).try_map(|name| name.parse::<T>())
}

/// Which model.
#[derive(Args)]
pub struct ModelArgs {
    /// Trained weights: .pt, .pth, .ckpt or .safetensors
    #[arg(long, env = "RAILS_CHECKPOINT")]
    pub checkpoint: Option<Input>,
    /// Hyper-parameters (.gin); default: those inside a converted .safetensors, else a `config.gin` or a .gin file of
    /// the same name beside the checkpoint
    #[arg(long, env = "RAILS_CONFIG")]
    pub config: Option<Input>,
    #[command(flatten)]
    pub import: ImportArgs,
}

impl ModelArgs {
    /// The file of the weights.
    ///
    /// # Errors
    /// If none was given.
    pub fn checkpoint(&self) -> Result<Input> {
        let missing = || Error::argument("options", "--checkpoint", "none");
        self.checkpoint.clone().ok_or_else(missing)
    }
}

/// Which stored index, if any.
#[derive(Args)]
pub struct StoredIndexArgs {
    /// Search this index, made by `rails-bench index build`, with the model in it; one without a model wants --checkpoint, too
    #[arg(long, value_name = "FOLDER", conflicts_with = "item_ids")]
    pub index: Option<Input>,
    /// Compare the whole index with its checksums before the first search
    #[arg(long, requires = "index")]
    pub check_index: bool,
    /// MiB of tables that may stay on the device; what exceeds them passes through it in every search [default: no limit]
    #[arg(long, value_name = "MIB", requires = "index")]
    pub device_memory: Option<u64>,
}

impl StoredIndexArgs {
    /// How the folder is opened.
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions::default().with_check(self.check_index).with_device_memory(self.device_memory.map(|mib| mib << 20))
    }
}

/// Those of the attributes in a file that `chosen` takes, for `n_items` items.
pub fn read_attributes(
    path: &Path,
    n_items: usize,
    chosen: impl FnOnce(Attributes) -> Attributes,
) -> Result<Attributes> {
    let attributes = chosen(progress::stage(&format!("reading {}", path.display()), || Attributes::read(path))?);
    if attributes.len() < n_items {
        note!("note: {} has attributes of {} of the {n_items} items", path.display(), attributes.len());
    }
    Ok(attributes)
}

/// Which items may be found.
#[derive(Args)]
pub struct ConditionArgs {
    /// Attributes of the items, for --where: a CSV or TSV file with a header, ids in a column `id` or `item_id`. Only those of items to
    /// search are taken. A stored index has its own
    #[arg(long, value_name = "FILE", conflicts_with = "index")]
    pub attributes: Option<Input>,
    /// Find only items whose attributes meet this SQL expression, such as "year >= 1990 AND genre = 'Comedy'"
    #[arg(long = "where", value_name = "SQL")]
    pub condition: Option<Condition>,
}

impl ConditionArgs {
    /// The attributes of items `ids` in the file, if there is one.
    pub fn attributes(&self, ids: &[u64]) -> Result<Option<Attributes>> {
        let read = |path: &Input| read_attributes(path, ids.len(), |all| all.only(ids));
        self.attributes.as_ref().map(read).transpose()
    }

    /// The condition, if there is one, as a search takes it.
    pub fn conditions(&self) -> &[Condition] {
        self.condition.as_slice()
    }

    /// Where items come from, in the words of `source`, and what they have to meet.
    pub fn item_source(&self, source: String) -> String {
        match &self.condition {
            Some(condition) => format!("{source} where {}", condition.sql()),
            None => source,
        }
    }
}

/// Which data.
#[derive(Args)]
pub struct DataArgs {
    /// Sequences, as `rails-bench preprocess` and the reference write them
    #[arg(long, env = "RAILS_DATASET")]
    pub dataset: Input,
    /// Items to search: a text file with one id per line, or a CSV with a movie_id or item_id column [default: the .items.txt that
    /// `preprocess` has written beside the data set, else every row of the model's item table from 1 on]
    #[arg(long)]
    pub item_ids: Option<Input>,
    /// Pass over malformed lines of the data set, and say how many
    #[arg(long)]
    pub skip_bad_lines: bool,
    /// Add this to every item id of the data set (1 for the reference's Amazon files, whose ids start at 0)
    #[arg(long, default_value_t = 0)]
    pub shift_id_by: u32,
}

impl DataArgs {
    /// The list of the items to search, given or beside the data set; `None`: every row of the model's item table.
    pub fn item_list(&self) -> Option<PathBuf> {
        self.item_ids.as_deref().map(Path::to_path_buf).or_else(|| item_list_beside(&self.dataset))
    }

    /// Where the items of a search come from, for people.
    pub fn item_source(&self, stored: &StoredIndexArgs) -> String {
        match (&stored.index, self.item_list()) {
            (Some(folder), _) => format!("index {}", folder.display()),
            (None, Some(list)) => list.display().to_string(),
            (None, None) => "the model's item table".to_string(),
        }
    }
}
