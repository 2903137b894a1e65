//! `rails-bench index build`.

use std::path::Path;

use clap::Args;
use rails_wgpu::dataset::{Dataset, ReadOptions, Sequence};
use rails_wgpu::index::{IndexOptions, ListOptions};
use rails_wgpu::model::Model;
use rails_wgpu::search::Searcher;
use rails_wgpu::{Error, ModelFile, Result};

use super::info;
use super::items;
use crate::interrupt;
use crate::model_files::with_history_and_target;
use crate::options::{DeviceArgs, FormArg, ModelArgs, form};
use crate::paths::{Input, ItemsArg, Output};
use crate::progress;
use crate::searcher::{learn, some_queries};

#[derive(Args)]
pub struct BuildArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Items: a list of ids as for `eval --item-ids`; a .safetensors file with `ids` (N) and `embeddings` (N, D); a .npy file
    /// with embeddings (N, D), whose ids are in a file `*.ids.npy` beside it or 0 to N - 1; or `random:N[:SEED]`, synthetic
    /// items for tests of capacity [default: every row of the model's item table from 1 on]
    #[arg(long)]
    items: Option<ItemsArg>,
    /// The folder to make: new, or empty
    #[arg(short, long)]
    output: Output,
    #[command(flatten)]
    device: DeviceArgs,
    /// How component embeddings are kept
    #[arg(long, default_value = "auto", value_parser = form())]
    form: FormArg,
    /// Most items in one segment (file); a segment is held in memory while it is built
    #[arg(long, default_value_t = IndexOptions::default().segment_items, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    segment_items: usize,
    /// Also make this many inverted lists of each kind, for naive-ivf and tangent-ivf; 0: as many as suit the number of
    /// items [default: no lists]
    #[arg(long, value_name = "N")]
    lists: Option<usize>,
    /// Also learn from users of this data set: a small gate for `distilled` and `cascade`, and better tangents
    #[arg(long, value_name = "DATASET")]
    distill: Option<Input>,
}

pub fn run(args: &BuildArgs) -> Result<()> {
    let file = ModelFile::open(args.model.checkpoint()?, args.model.config.as_deref())?;
    let model = file.model();
    // Before the index is built: what is wrong with either shows early.
    let users = args.distill.as_deref().map(|dataset| users(dataset, model)).transpose()?;
    let listed = items::listed(args.items.as_ref(), model)?;
    let source = items::source(args.items.as_ref(), model, &listed)?;
    if source.is_empty() {
        return Err(Error::argument("items", "at least one item", "none"));
    }
    let options = IndexOptions::default()
        .with_dtype(args.device.dtype())
        .with_form(args.form.0)
        .with_segment_items(args.segment_items)
        .with_lists(args.lists.map(ListOptions::new));
    let finishing = if args.lists.is_some() { "making lists and writing the index" } else { "writing the index" };
    let bar = progress::bar(source.len() as u64, "items", finishing);
    let source = source.inspect(|n| bar.add(n as u64));
    let builder = Searcher::builder().items(source).model_file(&file).options(options);
    let built = builder.device(&args.device.device).save_to(&*args.output).build();
    drop(bar);
    let searcher = built?;
    if let Some(users) = users {
        let cancel = interrupt::cancel("stopping; the index is there, but has not learned from users");
        learn(searcher.index(), &some_queries(searcher.encoder()?, &users)?, &cancel)?;
    }
    drop(searcher);
    info::print(&args.output)
}

/// The users to learn from.
fn users(dataset: &Path, model: Option<&Model>) -> Result<Vec<Sequence>> {
    if model.is_none() {
        let expected = "a whole model, whose encoder makes queries of users; to learn from queries of your own, call \
                        `ItemIndex::distill` in a program, or `distill` in Python";
        return Err(Error::argument("distill", expected, "a similarity only"));
    }
    let (dataset, _) = Dataset::read(dataset, ReadOptions::default())?;
    Ok(with_history_and_target(&dataset.sequences)?.0)
}
