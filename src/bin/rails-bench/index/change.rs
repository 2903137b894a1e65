//! `rails-bench index add`, `index remove` and `index compact`.

use std::path::Path;

use clap::Args;
use rails_wgpu::Result;
use rails_wgpu::backend::select;
use rails_wgpu::index::{ItemIndex, OpenOptions};

use super::items;
use crate::output::outln;
use crate::paths::{Input, ItemsArg};
use crate::progress;

#[derive(Args)]
pub struct AddArgs {
    /// The folder of the index
    index: Input,
    /// Items: a list of rows of the model's item table; a .safetensors file with `ids` (N) and `embeddings` (N, D); or
    /// `random:N[:SEED]`
    #[arg(long)]
    items: ItemsArg,
    /// Where to compute their tables: see `rails-bench devices`
    #[arg(long, default_value = "cpu")]
    device: String,
}

#[derive(Args)]
pub struct RemoveArgs {
    /// The folder of the index
    index: Input,
    /// Ids: a list as for `eval --item-ids`, or a .safetensors file with `ids`
    #[arg(long)]
    ids: Input,
}

#[derive(Args)]
pub struct CompactArgs {
    /// The folder of the index
    index: Input,
}

pub fn add(args: &AddArgs) -> Result<()> {
    let index = ItemIndex::open(&args.index, &[select::open(&args.device)?], OpenOptions::default())?;
    let model = index.model()?;
    let listed = model.as_ref().map_or(Ok(Vec::new()), |model| items::listed(Some(&args.items), model))?;
    let source = match &model {
        Some(model) => items::source(Some(&args.items), model, &listed)?,
        None => items::without_model(&args.items)?,
    };
    let (before, n) = (index.len(), source.len());
    let bar = progress::bar(n as u64, "items");
    let added = index.add_all(source.inspect(|n| bar.inc(n as u64)));
    bar.finish_and_clear();
    added?;
    let new = index.len() - before;
    outln!("{}: {new} items added, {} replaced; {} now", args.index.display(), n - new, index.len())?;
    Ok(())
}

pub fn remove(args: &RemoveArgs) -> Result<()> {
    let ids = items::ids(&args.ids)?;
    let index = open(&args.index)?;
    let n = index.remove(&ids)?;
    outln!("{}: {n} items removed, {} left", args.index.display(), index.len())?;
    Ok(())
}

pub fn compact(args: &CompactArgs) -> Result<()> {
    let index = open(&args.index)?;
    let before = index.snapshot().segments().len();
    index.compact()?;
    let after = index.snapshot().segments().len();
    outln!("{}: {} items in {after} segments, before in {before}", args.index.display(), index.len())?;
    Ok(())
}

fn open(folder: &Path) -> Result<ItemIndex> {
    ItemIndex::open(folder, &[select::open("cpu")?], OpenOptions::default())
}
