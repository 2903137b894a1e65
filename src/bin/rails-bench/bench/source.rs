//! What is measured with: a model and a data set, or a bench file.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::measure::{BenchFile, QuerySet, Rules, shuffled};
use rails_wgpu::backend::{Backend, Dtype};
use rails_wgpu::checkpoint::Checkpoint;
use rails_wgpu::config::{MolConfig, SimilarityConfig, find_config, has_config};
use rails_wgpu::dataset::Sequence;
use rails_wgpu::index::{IndexOptions, ItemIndex, ItemSource, OpenOptions, RowIds};
use rails_wgpu::model::Model;
use rails_wgpu::model_file::stored_mol_config;
use rails_wgpu::search::{HistoryEncoder, Searcher, SearcherBuilder};
use rails_wgpu::{Attributes, Condition, Error, Result};

use super::BenchArgs;
use crate::model_files::{load_dataset, load_item_ids, load_model, warn_of_absent, with_history_and_target};
use crate::options::{DataArgs, ModelArgs};
use crate::paths::Input;
use crate::progress::note;
use crate::searcher::model_beside;

/// Items and queries.
pub struct Source {
    items: Items,
    item_source: String,
    limit: Option<usize>,
    attributes: Option<Attributes>,
    conditions: Vec<Condition>,
}

enum Items {
    Trained { model: Box<Model>, item_ids: Vec<u32>, users: Vec<Sequence>, skipped_users: usize },
    File(Box<BenchFile>),
    Stored { index: StoredIndex, model: Box<Model>, users: Vec<Sequence>, skipped_users: usize },
}

/// An index folder, and what is known of it before it is on a device.
struct StoredIndex {
    folder: PathBuf,
    options: OpenOptions,
    n_items: usize,
    dtype: Dtype,
    rows: RowIds,
}

impl Source {
    pub fn open(args: &BenchArgs) -> Result<Source> {
        let limit = args.limit;
        if let Some(path) = &args.bench_file {
            let checkpoint = Checkpoint::open(path)?;
            let config = mol_config(&checkpoint, path, args.config.as_deref())?;
            let file = BenchFile::load(&checkpoint, &config)?;
            if limit == Some(0) {
                return Err(Error::argument("limit", "at least 1 query", 0));
            }
            let item_source = args.conditions.item_source(path.display().to_string());
            let attributes = args.conditions.attributes(&file.item_ids)?;
            let conditions = args.conditions.conditions().to_vec();
            return Ok(Source { items: Items::File(Box::new(file)), item_source, limit, attributes, conditions });
        }
        let given = |path: &Option<_>, name| {
            let missing = || {
                Error::argument(
                    "options",
                    "--bench-file, or --dataset with --checkpoint or --index",
                    format!("no --{name}"),
                )
            };
            path.clone().ok_or_else(missing)
        };
        if let Some(folder) = &args.stored.index {
            return Source::stored(args, folder, given(&args.dataset, "dataset")?);
        }
        let checkpoint = Some(given(&args.checkpoint, "checkpoint")?);
        let model = ModelArgs { checkpoint, config: args.config.clone(), import: args.import.clone() };
        let data = data_args(args, given(&args.dataset, "dataset")?);
        let model = load_model(&model)?;
        let (users, skipped_users) = with_history_and_target(&load_dataset(&data, limit)?.sequences)?;
        let item_ids = shuffled(&load_item_ids(data.item_list().as_deref(), &model)?);
        let known: HashSet<u32> = item_ids.iter().copied().collect();
        warn_of_absent(&users, |id| known.contains(&id));
        let attributes = args.conditions.attributes(&wide(&item_ids))?;
        let items = Items::Trained { model: Box::new(model), item_ids, users, skipped_users };
        let item_source = args.conditions.item_source(data.item_source(&args.stored));
        let conditions = args.conditions.conditions().to_vec();
        Ok(Source { items, item_source, limit, attributes, conditions })
    }

    fn stored(args: &BenchArgs, folder: &Path, dataset: Input) -> Result<Source> {
        let options = args.stored.open_options();
        let data = data_args(args, dataset);
        let (checkpoint, config) = (args.checkpoint.clone(), args.config.clone());
        let model = ModelArgs { checkpoint, config, import: args.import.clone() };
        let model = model_beside(&ItemIndex::info(folder)?, &model)?;
        let on_cpu = Searcher::builder().folder(folder).device("cpu").open_options(options.with_device_memory(None));
        let searcher = on_cpu.build()?;
        let index = searcher.index();
        let none = || Error::argument("index", "an index with an encoder", "one without");
        let model = Box::new(model.map_or_else(|| index.model()?.ok_or_else(none), Ok)?);
        let sequences = load_dataset(&data, args.limit)?.sequences;
        let (users, skipped_users) = with_history_and_target(&sequences)?;
        if index.is_empty() {
            return Err(Error::argument("index", "at least one item (`rails-bench index add`)", "none"));
        }
        let rows = index.row_ids()?;
        warn_of_absent(&users, |row| index.contains(rows.id(row)));
        let index = StoredIndex {
            folder: folder.to_path_buf(),
            // Compared once is enough.
            options: options.with_check(false),
            n_items: index.len(),
            dtype: index.dtype(),
            rows,
        };
        let items = Items::Stored { index, model, users, skipped_users };
        let item_source = args.conditions.item_source(data.item_source(&args.stored));
        let conditions = args.conditions.conditions().to_vec();
        Ok(Source { items, item_source, limit: args.limit, attributes: None, conditions })
    }

    /// Number format of a stored index, which is not built here and must not be changed.
    pub fn stored_dtype(&self) -> Option<Dtype> {
        match &self.items {
            Items::Stored { index, .. } => Some(index.dtype),
            Items::Trained { .. } | Items::File(_) => None,
        }
    }

    /// The model in words.
    pub fn summary(&self) -> String {
        match &self.items {
            Items::Trained { model, .. } | Items::Stored { model, .. } => model.config.summary(),
            Items::File(file) => {
                let MolConfig {
                    query_dot_product_groups: p_q,
                    item_dot_product_groups: p_x,
                    dot_product_dimension: d_p,
                    ..
                } = file.mol.config;
                format!("bench file, D = {}, MoL {p_q}x{p_x}x{d_p}", file.mol.item_dim())
            }
        }
    }

    /// Where the items come from, for people.
    pub fn item_source(&self) -> &str {
        &self.item_source
    }

    pub fn n_items(&self) -> usize {
        match &self.items {
            Items::Trained { item_ids, .. } => item_ids.len(),
            Items::File(file) => file.item_ids.len(),
            Items::Stored { index, .. } => index.n_items,
        }
    }

    pub fn n_queries(&self) -> usize {
        match &self.items {
            Items::Trained { users, .. } | Items::Stored { users, .. } => users.len(),
            Items::File(file) => file.queries(self.limit).len(),
        }
    }

    pub fn skipped_users(&self) -> usize {
        match &self.items {
            Items::Trained { skipped_users, .. } | Items::Stored { skipped_users, .. } => *skipped_users,
            Items::File(_) => 0,
        }
    }

    /// N: length of the model's padded histories, which the reference adds to the number of items it searches for.
    pub fn padded_length(&self) -> usize {
        match &self.items {
            Items::Trained { model, .. } | Items::Stored { model, .. } => model.config.padded_length(),
            Items::File(_) => 0,
        }
    }

    /// How often a batch is timed unless the user says otherwise: a bench file has few queries.
    pub fn default_runs(&self) -> usize {
        match &self.items {
            Items::Trained { .. } | Items::Stored { .. } => 1,
            Items::File(_) => 20,
        }
    }

    /// All queries, encoded on `backend`; `None` if `progress` ended the work.
    pub fn queries(
        &self,
        backend: &dyn Backend,
        rules: Rules,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<QuerySet>> {
        let queries = match &self.items {
            Items::Trained { model, users, .. } => {
                QuerySet::encode(&HistoryEncoder::new(backend, model)?, users, rules, &RowIds::default(), progress)?
            }
            Items::Stored { model, users, index, .. } => {
                QuerySet::encode(&HistoryEncoder::new(backend, model)?, users, rules, &index.rows, progress)?
            }
            Items::File(file) => Some(file.queries(self.limit)),
        };
        Ok(queries.map(|queries| queries.with_conditions(&self.conditions)))
    }

    /// An index of the first `n` items; a stored one as it is.
    pub fn searcher(&self, backend: &dyn Backend, n: usize, options: IndexOptions) -> Result<Searcher> {
        let builder = Searcher::builder().backend(backend.share());
        match &self.items {
            Items::Trained { model, item_ids, .. } => {
                let items = ItemSource::of_model(model, &item_ids[..n]);
                let builder = self.with_attributes(builder, &wide(&item_ids[..n]));
                model.mol.iter().fold(builder.items(items).options(options), SearcherBuilder::mol).build()
            }
            Items::File(file) => {
                let (ids, items) = (&file.item_ids[..n], file.first_items(n));
                self.with_attributes(builder, ids).embeddings(ids, &items).mol(&file.mol).options(options).build()
            }
            Items::Stored { index, .. } => builder.folder(&index.folder).open_options(index.options).build(),
        }
    }

    /// With the attributes of items `ids`, if there are some.
    fn with_attributes<'b>(&self, builder: SearcherBuilder<'b>, ids: &[u64]) -> SearcherBuilder<'b> {
        match &self.attributes {
            Some(attributes) => builder.attributes(attributes.clone().only(ids)),
            None => builder,
        }
    }

    /// The results that a bench file expects among the first `n` items.
    pub fn expected(&self, n: usize) -> Option<&[Vec<u64>]> {
        match &self.items {
            Items::Trained { .. } | Items::Stored { .. } => None,
            Items::File(file) => file.expected(n),
        }
    }
}

fn wide(ids: &[u32]) -> Vec<u64> {
    ids.iter().map(|&id| id.into()).collect()
}

/// Which data, as `eval` has it.
fn data_args(args: &BenchArgs, dataset: Input) -> DataArgs {
    DataArgs {
        dataset,
        item_ids: args.item_ids.clone(),
        skip_bad_lines: args.skip_bad_lines,
        shift_id_by: args.shift_id_by,
    }
}

/// The similarity of the configuration given or lying with the file; what the shapes tell if there is none.
fn mol_config(checkpoint: &Checkpoint, path: &Path, given: Option<&Path>) -> Result<MolConfig> {
    if let (None, Some(config)) = (given, stored_mol_config(checkpoint)?) {
        return Ok(config);
    }
    if given.is_none() && !has_config(checkpoint) {
        let config = BenchFile::guess_config(checkpoint)?;
        note!(
            "{}: no hyper-parameters; taken from the shapes, temperature 0.05, SwiGLU, l2 norm, glu_silu",
            path.display()
        );
        return Ok(config);
    }
    match find_config(checkpoint, given)?.similarity {
        SimilarityConfig::Mol(mol) => Ok(mol),
        _ => Err(Error::argument("config", "a Mixture-of-Logits similarity for the bench file", "a dot product")),
    }
}
