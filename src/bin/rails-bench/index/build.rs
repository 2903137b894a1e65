//! `rails-bench index build`.

use std::path::Path;

use clap::Args;
use rails_wgpu::config::MolConfig;
use rails_wgpu::dataset::{Dataset, ReadOptions, Sequence, read_string_ids};
use rails_wgpu::index::{IndexOptions, ItemSource, ListOptions};
use rails_wgpu::model::Model;
use rails_wgpu::search::{Searcher, SearcherBuilder};
use rails_wgpu::{Error, ModelFile, Mol, Result, Tensor};

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
    /// String ids of the items, instead of numbers: a text file with one a line, in the order of the items [default: the ids that
    /// another program has given to the items of its model's item table, where the checkpoint has them; else numbers]
    #[arg(long, value_name = "FILE")]
    string_ids: Option<Input>,
    /// Attributes of the items, for `--where` of searches: a CSV or TSV file with a header, ids in a column `id` or `item_id`. Every
    /// other column is one attribute: INTEGER, REAL or TEXT
    #[arg(long, value_name = "FILE")]
    attributes: Option<Input>,
    #[command(flatten)]
    components: ComponentArgs,
    /// Items by their token embeddings, several for each, for late interaction (MaxSim), without a model: a .safetensors file with `ids`
    /// (N), `lengths` (N) and `embeddings` (T, D), those of all items one after the other; or a .npy file (T, D) with the lengths
    /// in a file `*.lengths.npy` beside it, and ids in `*.ids.npy` or 0 to N - 1; or (N, n, D) without lengths
    #[arg(long, value_name = "FILE", conflicts_with_all = ["items", "components", "form", "distill"])]
    token_embeddings: Option<Input>,
    /// Make component embeddings of --token-embeddings, the token states of a language model, and index these as --components: a token
    /// pooling, as `TokenPooling.save` of the Python package writes it
    #[arg(long, value_name = "FILE", group = "given", requires = "token_embeddings")]
    pooling: Option<Input>,
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
    /// Also make this many inverted lists of each kind, for naive-ivf and tangent-ivf, or centroids of token embeddings; 0: as
    /// many as suit their number [default: none]
    #[arg(long, value_name = "N")]
    lists: Option<usize>,
    /// Also learn from users of this data set: a small gate for `distilled` and `cascade`, and better tangents
    #[arg(long, value_name = "DATASET")]
    distill: Option<Input>,
}

/// Components that are given as they are.
#[derive(Args)]
struct ComponentArgs {
    /// Items by their component embeddings, without a model: a .npy file (N, P_X, D_P), whose ids are in a file `*.ids.npy` beside it
    /// or 0 to N - 1, or a .safetensors file with `ids` (N) and `embeddings` (N, P_X, D_P). Queries are (B, P_Q, D_P) then
    #[arg(long, value_name = "FILE", group = "given", conflicts_with_all = ["items", "distill"])]
    components: Option<Input>,
    /// The gate of --components or --pooling, as `export_gate` of the Python package writes it [default: none: gating weights are the softmax of the
    /// logits]
    #[arg(long, value_name = "FILE", requires = "given")]
    gate: Option<Input>,
    /// P_Q: component embeddings of a query, without --gate [default: as many as an item has]
    #[arg(long, value_name = "N", requires = "given", conflicts_with = "gate")]
    query_components: Option<usize>,
    /// Divisor of the logits, without --gate [default: 1]
    #[arg(long, requires = "given", conflicts_with = "gate")]
    temperature: Option<f32>,
    /// Divide component embeddings of items and queries by their l2 norm, without --gate
    #[arg(long, requires = "given", conflicts_with = "gate")]
    l2_norm: bool,
}

pub fn run(args: &BuildArgs) -> Result<()> {
    if let Some(path) = &args.token_embeddings {
        without_model(&args.model, "token-embeddings")?;
        let source = items::of_tokens(path, args.pooling.as_deref(), &args.device.device)?;
        if args.pooling.is_some() {
            return build_of_components(args, source);
        }
        finished(args, items::named(source, args.string_ids.as_deref())?, |builder| builder)?;
        return info::print(&args.output);
    }
    if let Some(path) = &args.components.components {
        without_model(&args.model, "components")?;
        return build_of_components(args, ItemSource::of_file(path)?);
    }
    let mut file =
        ModelFile::open_with(args.model.checkpoint()?, args.model.config.as_deref(), &args.model.import.options())?;
    let listed = items::listed(args.items.as_ref(), file.model())?;
    let is_table = !listed.is_empty();
    if let (true, Some(path)) = (is_table, &args.string_ids) {
        file = file.with_item_names(items::names_of_rows(&listed, read_string_ids(path)?)?);
    }
    let model = file.model();
    // Before the index is built: what is wrong with either shows early.
    let users = args.distill.as_deref().map(|dataset| users(dataset, model)).transpose()?;
    let source = items::source(args.items.as_ref(), model, &listed)?;
    let source = match file.item_names().filter(|_| is_table) {
        Some(names) => source.with_string_ids(items::names(&listed, names)?)?,
        None => items::named(source, args.string_ids.as_deref())?,
    };
    let searcher = finished(args, source, |builder| builder.model_file(&file))?;
    if let Some(users) = users {
        let cancel = interrupt::cancel("stopping; the index is there, but has not learned from users");
        learn(searcher.index(), &some_queries(searcher.encoder()?, &users)?, &cancel)?;
    }
    drop(searcher);
    info::print(&args.output)
}

/// The index of items by their component embeddings.
fn build_of_components(args: &BuildArgs, source: ItemSource<'static>) -> Result<()> {
    let (source, mol) = args.components.similarity(source)?;
    let source = items::named(source, args.string_ids.as_deref())?;
    finished(args, source, |builder| builder.mol(&mol))?;
    info::print(&args.output)
}

/// The index of the items, in its folder; `of` gives their similarity to the builder.
fn finished<'a>(
    args: &BuildArgs,
    source: ItemSource<'a>,
    of: impl FnOnce(SearcherBuilder<'a>) -> SearcherBuilder<'a>,
) -> Result<Searcher> {
    if source.is_empty() {
        return Err(Error::argument("items", "at least one item", "none"));
    }
    let source = items::with_attributes(source, args.attributes.as_deref())?;
    let options = IndexOptions::default()
        .with_dtype(args.device.dtype())
        .with_form(args.form.0)
        .with_segment_items(args.segment_items)
        .with_lists(args.lists.map(ListOptions::new));
    let finishing = if args.lists.is_some() { "making lists and writing the index" } else { "writing the index" };
    let bar = progress::bar(source.len() as u64, "items", finishing);
    let source = source.inspect(move |n| bar.add(n as u64));
    of(Searcher::builder().items(source).options(options)).device(&args.device.device).save_to(&*args.output).build()
}

impl ComponentArgs {
    /// The items, and their similarity.
    fn similarity(&self, mut source: ItemSource<'static>) -> Result<(ItemSource<'static>, Mol<Tensor>)> {
        let Some([n_item, width]) = source.component_shape()? else {
            let found = "embeddings (N, D); those are --items, with the projections of a --checkpoint";
            return Err(Error::argument(
                "components",
                "component embeddings (N, P_X, D_P) of at least one item",
                found,
            ));
        };
        let mol = match &self.gate {
            Some(path) => {
                let file = ModelFile::open(path, None)?;
                let given = file.mol().filter(|mol| mol.config.given_components).cloned();
                let expected = "what `export_gate` of the Python package writes: a gate of given components";
                given
                    .ok_or_else(|| Error::argument("gate", expected, format!("another model in {}", path.display())))?
            }
            None => {
                let config = MolConfig::of_components(self.query_components.unwrap_or(n_item), n_item, width);
                let (temperature, dot_product_l2_norm) = (self.temperature.unwrap_or(1.0), self.l2_norm);
                Mol::of_components(&MolConfig { temperature, dot_product_l2_norm, ..config }, None)?
            }
        };
        Ok((source, mol))
    }
}

/// Refuses a model beside `items`, unless it is that of the environment, which other commands want.
fn without_model(model: &ModelArgs, items: &str) -> Result<()> {
    let options = [("checkpoint", &model.checkpoint, "RAILS_CHECKPOINT"), ("config", &model.config, "RAILS_CONFIG")];
    for (name, option, variable) in options {
        if let (Some(path), None) = (option, std::env::var_os(variable)) {
            return Err(Error::argument(name, format!("none beside --{items}"), path.display()));
        }
    }
    Ok(())
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
