//! `rails-bench index add`, `index remove` and `index compact`.

use std::path::Path;

use clap::Args;
use rails_wgpu::dataset::read_string_ids;
use rails_wgpu::search::Searcher;
use rails_wgpu::{Error, Result};

use super::items;
use crate::output::{counted, outln};
use crate::paths::{IdsArg, Input, ItemsArg};
use crate::progress;

#[derive(Args)]
pub struct AddArgs {
    /// The folder of the index
    index: Input,
    /// Items: a list of rows of the model's item table; a .safetensors file with `ids` (N) and `embeddings` (N, D); a .npy
    /// file with embeddings (N, D), whose ids are in a file `*.ids.npy` beside it or 0 to N - 1; or `random:N[:SEED]`. For an
    /// index of token embeddings a file as for `index build --token-embeddings`.
    /// Those of a list or a file replace items with the same ids
    #[arg(long)]
    items: ItemsArg,
    /// For an index of component embeddings: --items are token embeddings, of which this token pooling makes components
    #[arg(long, value_name = "FILE")]
    pooling: Option<Input>,
    /// String ids of the items, for an index that has such: a text file with one a line, in the order of the items [default: the names
    /// that the model has for rows of a list]
    #[arg(long, value_name = "FILE")]
    string_ids: Option<Input>,
    /// Attributes of the items, for an index that has such: a CSV or TSV file as for `index build`. Items without have none afterwards
    #[arg(long, value_name = "FILE")]
    attributes: Option<Input>,
    /// Let synthetic items (`random:N`), whose ids are 1 to N, replace items with the same ids too
    #[arg(long)]
    replace: bool,
    /// Device that computes their tables: `auto`, `cpu`, `gpu`, or part of a device's name, API and driver (see `rails-bench devices`)
    #[arg(long, default_value = "cpu")]
    device: String,
}

#[derive(Args)]
pub struct RemoveArgs {
    /// The folder of the index
    index: Input,
    /// Ids, separated by commas; or a file with them: a list as for `eval --item-ids`, a .safetensors file with `ids` (N), or a
    /// .npy file with whole numbers (N)
    #[arg(long, value_name = "IDS|FILE", required_unless_present = "string_ids")]
    ids: Option<IdsArg>,
    /// String ids, of an index that has such: a text file with one a line
    #[arg(long, value_name = "FILE", conflicts_with = "ids")]
    string_ids: Option<Input>,
}

#[derive(Args)]
pub struct CompactArgs {
    /// The folder of the index
    index: Input,
}

pub fn add(args: &AddArgs) -> Result<()> {
    let searcher = open(&args.index, &args.device)?;
    let index = searcher.index();
    let model = index.model()?;
    let listed = items::listed(Some(&args.items), model.as_ref())?;
    items::check_pooling(args.pooling.as_deref(), index.has_token_embeddings())?;
    let source = match index.has_token_embeddings() || args.pooling.is_some() {
        true => items::of_tokens(items::token_file(&args.items)?, args.pooling.as_deref(), &args.device)?,
        false => items::source(Some(&args.items), model.as_ref(), &listed)?,
    };
    let names = if args.string_ids.is_none() && index.has_string_ids() { index.item_names()? } else { None };
    let source = match names.filter(|_| !listed.is_empty()) {
        Some(names) => source.with_string_ids(items::names(&listed, &names)?)?,
        None => items::named(source, args.string_ids.as_deref())?,
    };
    let source = items::with_attributes(source, args.attributes.as_deref())?;
    if let ItemsArg::Random { n, .. } = args.items
        && !args.replace
    {
        keep(&index.ids(), n as u64)?;
    }
    let (before, n) = (index.len(), source.len());
    let bar = progress::bar(n as u64, "items", "writing the index");
    let added = index.add_all(source.inspect(|n| bar.add(n as u64)));
    drop(bar);
    added?;
    let new = index.len() - before;
    outln!("{}: {} added, {} replaced; {} now", args.index.display(), counted(new, "item"), n - new, index.len())?;
    Ok(())
}

/// Refuses synthetic items, 1 to `n`, where some of `ids` would be lost.
fn keep(ids: &[u64], n: u64) -> Result<()> {
    match ids.iter().filter(|id| (1..=n).contains(id)).count() {
        0 => Ok(()),
        taken => {
            let expected = "ids 1 to N that are free (with --replace, synthetic items take the place of what is there)";
            Err(Error::argument("items", expected, format!("{taken} items with such ids")))
        }
    }
}

pub fn remove(args: &RemoveArgs) -> Result<()> {
    let ids = args.ids.as_ref().map(items::ids).transpose()?;
    let strings = args.string_ids.as_deref().map(read_string_ids).transpose()?;
    let searcher = open(&args.index, "cpu")?;
    let index = searcher.index();
    if strings.is_none() && index.has_string_ids() {
        return Err(Error::argument("ids", "--string-ids, since ids of the index are strings", "numbers"));
    }
    let n = match strings {
        Some(strings) => index.remove_strings(&strings)?,
        None => index.remove(&ids.unwrap_or_default())?,
    };
    outln!("{}: {} removed, {} left", args.index.display(), counted(n, "item"), index.len())?;
    Ok(())
}

pub fn compact(args: &CompactArgs) -> Result<()> {
    let searcher = open(&args.index, "cpu")?;
    let index = searcher.index();
    let before = index.snapshot().segments().len();
    progress::stage(&format!("compacting {}", args.index.display()), || index.compact())?;
    let after = index.snapshot().segments().len();
    let segments = counted(after, "segment");
    outln!("{}: {} in {segments} (before: {before})", args.index.display(), counted(index.len(), "item"))?;
    Ok(())
}

fn open(folder: &Path, device: &str) -> Result<Searcher> {
    Searcher::builder().folder(folder).device(device).build()
}
