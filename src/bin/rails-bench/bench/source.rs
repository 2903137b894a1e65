//! What is measured with: a model and a data set, or a bench file.

use std::ops::ControlFlow;
use std::path::Path;

use rails_wgpu::backend::Backend;
use rails_wgpu::checkpoint::Checkpoint;
use rails_wgpu::config::{MolConfig, SimilarityConfig, find_config, has_config};
use rails_wgpu::dataset::Sequence;
use rails_wgpu::eval::{BenchFile, QuerySet, Rules, shuffled};
use rails_wgpu::index::{IndexOptions, ItemIndex};
use rails_wgpu::model::Model;
use rails_wgpu::{Error, Result};

use super::BenchArgs;
use crate::model_files::{load_dataset, load_item_ids, load_model, with_history_and_target};
use crate::options::{DataArgs, ModelArgs};

/// Items and queries.
pub struct Source {
    items: Items,
    limit: Option<usize>,
}

enum Items {
    Trained { model: Box<Model>, item_ids: Vec<u32>, users: Vec<Sequence>, skipped_users: usize },
    File(Box<BenchFile>),
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
            return Ok(Source { items: Items::File(Box::new(file)), limit });
        }
        let given = |path: &Option<_>, name| {
            let missing =
                || Error::argument("options", "--bench-file, or --checkpoint and --dataset", format!("no --{name}"));
            path.clone().ok_or_else(missing)
        };
        let model = ModelArgs { checkpoint: Some(given(&args.checkpoint, "checkpoint")?), config: args.config.clone() };
        let data = DataArgs {
            dataset: given(&args.dataset, "dataset")?,
            item_ids: args.item_ids.clone(),
            skip_bad_lines: args.skip_bad_lines,
            shift_id_by: args.shift_id_by,
        };
        let model = load_model(&model)?;
        let (users, skipped_users) = with_history_and_target(&load_dataset(&data, limit)?.sequences)?;
        let item_ids = shuffled(&load_item_ids(data.item_ids.as_deref(), &model)?);
        Ok(Source { items: Items::Trained { model: Box::new(model), item_ids, users, skipped_users }, limit })
    }

    /// The model in words.
    pub fn summary(&self) -> String {
        match &self.items {
            Items::Trained { model, .. } => model.config.summary(),
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

    pub fn n_items(&self) -> usize {
        match &self.items {
            Items::Trained { item_ids, .. } => item_ids.len(),
            Items::File(file) => file.item_ids.len(),
        }
    }

    pub fn n_queries(&self) -> usize {
        match &self.items {
            Items::Trained { users, .. } => users.len(),
            Items::File(file) => file.queries(self.limit).len(),
        }
    }

    pub fn skipped_users(&self) -> usize {
        match &self.items {
            Items::Trained { skipped_users, .. } => *skipped_users,
            Items::File(_) => 0,
        }
    }

    /// N: length of the model's padded histories, which the reference adds to the number of items it searches for.
    pub fn padded_length(&self) -> usize {
        match &self.items {
            Items::Trained { model, .. } => model.config.padded_length(),
            Items::File(_) => 0,
        }
    }

    /// How often a batch is timed unless the user says otherwise: a bench file has few queries.
    pub fn default_runs(&self) -> usize {
        match &self.items {
            Items::Trained { .. } => 1,
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
        match &self.items {
            Items::Trained { model, users, .. } => {
                let encoder = backend.encoder(&model.encoder)?;
                QuerySet::encode(encoder.as_ref(), &model.config, model.n_item_rows(), users, rules, progress)
            }
            Items::File(file) => Ok(Some(file.queries(self.limit))),
        }
    }

    /// An index of the first `n` items.
    pub fn index(&self, backend: &dyn Backend, n: usize, options: IndexOptions) -> Result<ItemIndex> {
        match &self.items {
            Items::Trained { model, item_ids, .. } => ItemIndex::from_model(backend, model, &item_ids[..n], options),
            Items::File(file) => {
                ItemIndex::from_embeddings(backend, &file.item_ids[..n], &file.first_items(n), Some(&file.mol), options)
            }
        }
    }

    /// The results that a bench file expects among the first `n` items.
    pub fn expected(&self, n: usize) -> Option<&[Vec<u64>]> {
        match &self.items {
            Items::Trained { .. } => None,
            Items::File(file) => file.expected(n),
        }
    }
}

/// The similarity of the configuration given or lying with the file; what the shapes tell if there is none.
fn mol_config(checkpoint: &Checkpoint, path: &Path, given: Option<&Path>) -> Result<MolConfig> {
    if given.is_none() && !has_config(checkpoint) {
        let config = BenchFile::guess_config(checkpoint)?;
        eprintln!(
            "{}: no hyper-parameters; taken from the shapes, temperature 0.05, SwiGLU, l2 norm, glu_silu",
            path.display()
        );
        return Ok(config);
    }
    match find_config(checkpoint, given)?.similarity {
        SimilarityConfig::Mol(mol) => Ok(mol),
        SimilarityConfig::DotProduct => {
            Err(Error::argument("config", "a Mixture-of-Logits similarity for the bench file", "a dot product"))
        }
    }
}
