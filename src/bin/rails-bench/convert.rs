//! `rails-bench convert`.

use clap::Args;
use rails_wgpu::checkpoint::{Checkpoint, Weights, save_safetensors};
use rails_wgpu::config::{CONFIG_KEY, find_config};
use rails_wgpu::model::Model;
use rails_wgpu::{Result, atomic};

use crate::output::outln;
use crate::paths::{Input, Output};

#[derive(Args)]
pub struct ConvertArgs {
    /// Trained weights: .pt, .pth or .safetensors
    checkpoint: Input,
    /// Hyper-parameters (.gin); default as for `eval`
    #[arg(long, env = "RAILS_CONFIG")]
    config: Option<Input>,
    /// The file to write
    #[arg(short, long)]
    output: Output,
}

pub fn run(args: &ConvertArgs) -> Result<()> {
    atomic::check(&args.output)?;
    let checkpoint = Checkpoint::open(&args.checkpoint)?;
    let config = find_config(&checkpoint, args.config.as_deref())?;
    let model = Model::load(&checkpoint, config)?;
    let tensors = checkpoint
        .names()
        .filter(|name| *name != Weights::IGNORED)
        .map(|name| Ok((name.to_string(), checkpoint.tensor(name)?)))
        .collect::<Result<Vec<_>>>()?;
    let metadata = [(CONFIG_KEY.to_string(), model.config.to_json())].into();
    save_safetensors(&args.output, &tensors, &metadata)?;
    let n_values: usize = tensors.iter().map(|(_, tensor)| tensor.data().len()).sum();
    outln!("{}: {}", args.output.display(), model.config.summary())?;
    outln!("{} tensors, {n_values} values, hyper-parameters included", tensors.len())?;
    Ok(())
}
