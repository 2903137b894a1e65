//! `rails-bench convert`.

use clap::Args;
use rails_wgpu::checkpoint::Weights;
use rails_wgpu::dataset::write_item_ids;
use rails_wgpu::{Error, ModelFile, Result, atomic};

use crate::options::ImportArgs;
use crate::output::outln;
use crate::paths::{Input, Output};

#[derive(Args)]
pub struct ConvertArgs {
    /// Trained weights: .pt, .pth, .ckpt or .safetensors
    checkpoint: Input,
    /// Hyper-parameters (.gin) [default: those inside the checkpoint, else a `config.gin` or a .gin file of the same name beside it]
    #[arg(long, env = "RAILS_CONFIG")]
    config: Option<Input>,
    #[command(flatten)]
    import: ImportArgs,
    /// The .safetensors file to write
    #[arg(short, long)]
    output: Output,
}

pub fn run(args: &ConvertArgs) -> Result<()> {
    atomic::check(&args.output)?;
    if args.output.extension().is_none_or(|extension| extension != "safetensors") {
        // Other programs choose how to read a checkpoint by its name.
        return Err(Error::argument("output", "a name that ends in .safetensors", args.output.display()));
    }
    let file = ModelFile::open_with(&args.checkpoint, args.config.as_deref(), &args.import.options())?;
    let model = file.whole_model()?;
    file.save(&args.output)?;
    if let Some(names) = file.item_names() {
        let (list, ids) = (args.output.with_extension("items.txt"), (1..=names.len() as u32).collect::<Vec<_>>());
        write_item_ids(&list, &ids, names)?;
        outln!("{}: {} items with their ids in the other program; give it as --item-ids", list.display(), ids.len())?;
    }
    let names = file.checkpoint().names().filter(|name| *name != Weights::IGNORED);
    let shapes: Vec<&[usize]> = names.filter_map(|name| file.checkpoint().shape(name)).collect();
    let n_values: usize = shapes.iter().map(|shape| shape.iter().product::<usize>()).sum();
    outln!("{}: {}", args.output.display(), model.config.summary())?;
    outln!("{} tensors, {n_values} values, hyper-parameters included", shapes.len())?;
    Ok(())
}
