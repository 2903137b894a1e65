//! Options that several commands share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rails_wgpu::backend::Dtype;
use rails_wgpu::index::OpenOptions;
use rails_wgpu::tables::Form;
use rails_wgpu::{Error, Result};

/// Where to run.
#[derive(Args)]
pub struct DeviceArgs {
    /// `auto`, `cpu`, `gpu`, or part of a device's name (see `rails-bench devices`)
    #[arg(long, default_value = "auto", env = "RAILS_DEVICE")]
    pub device: String,
    /// Number format of the item tables; a stored index keeps its own
    #[arg(long, default_value = "f32", env = "RAILS_DTYPE")]
    pub dtype: DtypeArg,
}

/// Number formats by name.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DtypeArg {
    /// 32-bit floats
    F32,
    /// 16-bit floats: half the memory
    F16,
    /// 8-bit integers with one scale per vector: a quarter of the memory
    Int8,
}

impl DtypeArg {
    pub fn dtype(self) -> Dtype {
        match self {
            DtypeArg::F32 => Dtype::F32,
            DtypeArg::F16 => Dtype::F16,
            DtypeArg::Int8 => Dtype::I8,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            DtypeArg::F32 => "f32",
            DtypeArg::F16 => "f16",
            DtypeArg::Int8 => "int8",
        }
    }
}

impl From<Dtype> for DtypeArg {
    fn from(dtype: Dtype) -> DtypeArg {
        match dtype {
            Dtype::F32 => DtypeArg::F32,
            Dtype::F16 => DtypeArg::F16,
            Dtype::I8 => DtypeArg::Int8,
        }
    }
}

/// How item components are kept, by name.
#[derive(Clone, Copy, ValueEnum)]
pub enum FormArg {
    /// As they are, unless that takes more than 4 GiB and the raw form suits the model
    Auto,
    /// As they are
    Components,
    /// Not at all: they are computed from raw embeddings in every search. A fraction of the memory
    Raw,
}

impl FormArg {
    pub fn form(self) -> Option<Form> {
        match self {
            FormArg::Auto => None,
            FormArg::Components => Some(Form::Components),
            FormArg::Raw => Some(Form::Raw),
        }
    }
}

/// Which model.
#[derive(Args)]
pub struct ModelArgs {
    /// Trained weights: .pt, .pth or .safetensors
    #[arg(long, env = "RAILS_CHECKPOINT")]
    pub checkpoint: Option<PathBuf>,
    /// Hyper-parameters (.gin); default: those inside a converted .safetensors, else a `config.gin` or a .gin file of
    /// the same name beside the checkpoint
    #[arg(long, env = "RAILS_CONFIG")]
    pub config: Option<PathBuf>,
}

impl ModelArgs {
    /// The file of the weights.
    ///
    /// # Errors
    /// If none was given.
    pub fn checkpoint(&self) -> Result<PathBuf> {
        let missing = || Error::argument("options", "--checkpoint", "none");
        self.checkpoint.clone().ok_or_else(missing)
    }
}

/// Which stored index, if any.
#[derive(Args)]
pub struct StoredIndexArgs {
    /// Search this index, made by `rails-bench index build`, with the model in it; no checkpoint is needed
    #[arg(long, value_name = "FOLDER", conflicts_with = "item_ids")]
    pub index: Option<PathBuf>,
    /// Compare the whole index with its checksums before the first search
    #[arg(long, requires = "index")]
    pub check_index: bool,
    /// MiB of tables that may stay on the device; what exceeds them passes through it in every search
    #[arg(long, value_name = "MIB", requires = "index")]
    pub device_memory: Option<u64>,
}

impl StoredIndexArgs {
    /// How the folder is opened.
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions { check: self.check_index, device_memory: self.device_memory.map(|mib| mib << 20) }
    }
}

/// Which data.
#[derive(Args)]
pub struct DataArgs {
    /// Sequences, as `rails-bench preprocess` and the reference write them
    #[arg(long, env = "RAILS_DATASET")]
    pub dataset: PathBuf,
    /// Items to search: a text file with one id per line, or a CSV with a movie_id or item_id column; default: every
    /// row of the model's item table from 1 on
    #[arg(long)]
    pub item_ids: Option<PathBuf>,
    /// Pass over malformed lines of the data set, and say how many
    #[arg(long)]
    pub skip_bad_lines: bool,
    /// Add this to every item id of the data set (1 for the reference's Amazon files, whose ids start at 0)
    #[arg(long, default_value_t = 0)]
    pub shift_id_by: u32,
}
