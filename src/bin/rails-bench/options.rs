//! Options that several commands share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rails_wgpu::backend::Dtype;
use rails_wgpu::tables::Form;

/// Where to run.
#[derive(Args)]
pub struct DeviceArgs {
    /// `auto`, `cpu`, `gpu`, or part of a device's name (see `rails-bench devices`)
    #[arg(long, default_value = "auto", env = "RAILS_DEVICE")]
    pub device: String,
    /// Number format of the item tables
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

/// Forms of item tables by name.
#[derive(Clone, Copy, ValueEnum)]
pub enum FormArg {
    /// By size
    Auto,
    /// Component embeddings as they are
    Components,
    /// Raw embeddings and inverse norms of the components
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
    pub checkpoint: PathBuf,
    /// Hyper-parameters (.gin); default: those inside a converted .safetensors, else a `config.gin` or a .gin file of
    /// the same name beside the checkpoint
    #[arg(long, env = "RAILS_CONFIG")]
    pub config: Option<PathBuf>,
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
