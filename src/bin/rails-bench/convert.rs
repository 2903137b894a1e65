//! `rails-bench convert`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use rails_wgpu::checkpoint::Weights;
use rails_wgpu::dataset::item_list_text;
use rails_wgpu::{Error, ModelFile, Result, atomic};

use crate::options::ImportArgs;
use crate::output::outln;
use crate::paths::{self, Input, Output};

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
    /// The list of the ids that another program gave to items, if the checkpoint says them [default: the output's name with .items.txt]
    #[arg(long)]
    items_output: Option<Output>,
}

pub fn run(args: &ConvertArgs) -> Result<()> {
    atomic::check(&args.output)?;
    if args.output.extension().is_none_or(|extension| extension != "safetensors") {
        // Other programs choose how to read a checkpoint by its name.
        return Err(Error::argument("output", "a name that ends in .safetensors", args.output.display()));
    }
    let file = ModelFile::open_with(&args.checkpoint, args.config.as_deref(), &args.import.options())?;
    let model = file.whole_model()?;
    let list = item_list(args, file.item_names())?;
    file.save(&args.output)?;
    if let Some(ItemList { path, n_items, text }) = &list {
        atomic::write(path, |file| file.write_all(text))?;
        outln!("{}: {n_items} items with their ids in the other program; give it as --item-ids", path.display())?;
    }
    let names = file.checkpoint().names().filter(|name| *name != Weights::IGNORED);
    let shapes: Vec<&[usize]> = names.filter_map(|name| file.checkpoint().shape(name)).collect();
    let n_values: usize = shapes.iter().map(|shape| shape.iter().product::<usize>()).sum();
    outln!("{}: {}", args.output.display(), model.config.summary())?;
    outln!("{} tensors, {n_values} values, hyper-parameters included", shapes.len())?;
    Ok(())
}

/// A list of items that can be written.
struct ItemList {
    path: PathBuf,
    n_items: usize,
    text: Vec<u8>,
}

/// The list of the items 1, 2, ... with their `names`.
///
/// # Errors
/// If it cannot be written, or another list would be lost whose path the user has not named; nothing has been written then.
fn item_list(args: &ConvertArgs, names: Option<&[String]>) -> Result<Option<ItemList>> {
    let Some(names) = names else {
        return match &args.items_output {
            None => Ok(None),
            Some(path) => {
                let expected = "nothing, as the checkpoint does not say which ids its items had";
                Err(Error::argument("items-output", expected, path.display()))
            }
        };
    };
    let ids: Vec<u32> = (1..=names.len() as u32).collect();
    let text = item_list_text(&ids, names)?;
    let named = args.items_output.as_deref();
    let path = named.map_or_else(|| args.output.with_extension("items.txt"), Path::to_path_buf);
    paths::check(&[args.checkpoint.to_path_buf()], &[&args.output, &path])?;
    if named.is_none() && path.exists() && fs::read(&path).ok().as_ref() != Some(&text) {
        let expected = "a path for the list of items (--items-output), as the usual one is that of another file";
        return Err(Error::argument("items-output", expected, format!("{}, which would be lost", path.display())));
    }
    atomic::check(&path)?;
    Ok(Some(ItemList { path, n_items: ids.len(), text }))
}
