//! `rails-bench convert`.

use clap::Args;
use rails_wgpu::{ModelFile, Result, atomic};

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
    let file = ModelFile::open(&args.checkpoint, args.config.as_deref())?;
    let model = file.whole_model()?;
    file.save(&args.output)?;
    let tensors = file.tensors()?;
    let n_values: usize = tensors.iter().map(|(_, tensor)| tensor.data().len()).sum();
    outln!("{}: {}", args.output.display(), model.config.summary())?;
    outln!("{} tensors, {n_values} values, hyper-parameters included", tensors.len())?;
    Ok(())
}
