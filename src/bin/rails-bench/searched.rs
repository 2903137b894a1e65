//! The index that a command searches: a stored one, or one that is built in memory.

use std::sync::Arc;

use rails_wgpu::backend::{Backend, QueryBatch, QueryEncoder, select};
use rails_wgpu::dataset::Sequence;
use rails_wgpu::eval::history_of;
use rails_wgpu::index::{IndexOptions, ItemIndex};
use rails_wgpu::model::Model;
use rails_wgpu::search::Algorithm;
use rails_wgpu::sequence::{History, SequenceBatch};
use rails_wgpu::{Dtype, Error, Result};

use crate::model_files::{load_item_ids, load_model};
use crate::options::{DataArgs, DeviceArgs, ModelArgs, StoredIndexArgs, check_dtype};
use crate::progress;

/// An index, the model that makes queries for it, and the device that runs both.
pub struct Searched {
    pub model: Model,
    pub index: ItemIndex,
    pub backend: Arc<dyn Backend>,
}

impl Searched {
    /// Opens the stored index if one is given, else builds one of the checkpoint's items.
    pub fn open(
        model: &ModelArgs,
        data: &DataArgs,
        stored: &StoredIndexArgs,
        device: &DeviceArgs,
        algorithms: &[Algorithm],
    ) -> Result<Searched> {
        let Some(folder) = &stored.index else {
            if model.checkpoint.is_none() {
                return Err(Error::argument("options", "--checkpoint or --index", "neither"));
            }
            let model = load_model(model)?;
            let item_ids = load_item_ids(data.item_ids.as_deref(), &model)?;
            return Searched::build(model, &item_ids, device, algorithms);
        };
        let backend = select::open(&device.device)?;
        let open = || ItemIndex::open(folder, std::slice::from_ref(&backend), stored.open_options());
        let index = progress::stage(&format!("opening {}", folder.display()), open)?;
        check_dtype(device.dtype, index.dtype())?;
        let model = model_of(&index, model)?;
        Ok(Searched { model, index, backend })
    }

    /// Builds an index of items `item_ids` of the model, with the inverted lists that `algorithms` look into.
    pub fn build(model: Model, item_ids: &[u32], device: &DeviceArgs, algorithms: &[Algorithm]) -> Result<Searched> {
        let backend = select::open(&device.device)?;
        let lists = Algorithm::lists_of(algorithms, 0);
        let options = IndexOptions::from(device.dtype()).with_lists(lists);
        let build = || ItemIndex::from_model(backend.as_ref(), &model, item_ids, options);
        let index = progress::stage(&format!("indexing {} items on {}", item_ids.len(), backend.info().name), build)?;
        Ok(Searched { model, index, backend })
    }

    /// Number format of the tables.
    pub fn dtype(&self) -> Dtype {
        self.index.dtype()
    }
}

/// The model stored with an index, or that of the checkpoint if the index has none.
pub fn model_of(index: &ItemIndex, given: &ModelArgs) -> Result<Model> {
    match index.model()? {
        Some(model) => Ok(model),
        None if given.checkpoint.is_some() => load_model(given),
        None => Err(Error::argument("index", "--checkpoint, or an index with an encoder", "an index without one")),
    }
}

/// Lets `index` learn from `queries`, and says so.
pub fn learn(index: &ItemIndex, queries: &QueryBatch) -> Result<()> {
    let what = format!("learning from {} users, for tangent, distilled and cascade", queries.embeddings.rows());
    progress::stage(&what, || index.distill(queries))
}

/// Queries of up to 256 users from all over a data set, for an index to learn from.
pub fn some_queries(model: &Model, encoder: &dyn QueryEncoder, users: &[Sequence]) -> Result<QueryBatch> {
    let n = users.len().min(256);
    let histories: Vec<History> = (0..n).map(|i| history_of(&users[i * users.len() / n])).collect();
    let batch = SequenceBatch::new(&histories, &model.config, model.n_item_rows())?;
    Ok(QueryBatch::new(encoder.encode(&batch)?).with_users(batch.user_ids))
}
