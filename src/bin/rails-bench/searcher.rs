//! The searcher that a command uses: over a stored index, or one that is built in memory.

use rails_wgpu::backend::{QueryBatch, select};
use rails_wgpu::dataset::Sequence;
use rails_wgpu::eval::history_of;
use rails_wgpu::index::{IndexInfo, IndexOptions, ItemIndex};
use rails_wgpu::model::Model;
use rails_wgpu::search::{Algorithm, HistoryEncoder, Searcher, SearcherBuilder};
use rails_wgpu::sequence::History;
use rails_wgpu::{Attributes, Cancel, Error, Result};

use crate::model_files::{load_item_ids, load_model};
use crate::options::{ConditionArgs, DataArgs, DeviceArgs, ModelArgs, StoredIndexArgs, check_dtype};
use crate::paths::Input;
use crate::progress;

/// Opens the stored index if one is given, else builds one of the checkpoint's items.
pub fn open(
    model: &ModelArgs,
    data: &DataArgs,
    stored: &StoredIndexArgs,
    device: &DeviceArgs,
    algorithms: &[Algorithm],
    conditions: &ConditionArgs,
) -> Result<Searcher> {
    let Some(folder) = &stored.index else {
        if model.checkpoint.is_none() {
            return Err(Error::argument("options", "--checkpoint or --index", "neither"));
        }
        let model = load_model(model)?;
        let item_ids = load_item_ids(data.item_list().as_deref(), &model)?;
        let ids: Vec<u64> = item_ids.iter().map(|&id| id.into()).collect();
        return build(&model, &item_ids, device, algorithms, conditions.attributes(&ids)?);
    };
    let model = model_beside(&ItemIndex::info(folder)?, model)?;
    let builder = Searcher::builder().folder(&**folder).device(&device.device).open_options(stored.open_options());
    let builder = model.iter().fold(builder, |builder, model| builder.encoder(model));
    let searcher = progress::stage(&format!("opening {}", folder.display()), || builder.build())?;
    check_dtype(device.dtype, searcher.index().dtype())?;
    Ok(searcher)
}

/// Indexes items `item_ids` of the model, with the inverted lists that `algorithms` look into and with `attributes`.
pub fn build(
    model: &Model,
    item_ids: &[u32],
    device: &DeviceArgs,
    algorithms: &[Algorithm],
    attributes: Option<Attributes>,
) -> Result<Searcher> {
    let backend = select::open(&device.device)?;
    let what = format!("indexing {} items on {}", item_ids.len(), backend.info().name);
    let options = IndexOptions::from(device.dtype()).with_lists(Algorithm::lists_of(algorithms, 0));
    let builder = Searcher::builder().model(model, item_ids).backend(backend).options(options);
    let builder = attributes.into_iter().fold(builder, SearcherBuilder::attributes);
    progress::stage(&what, || builder.build())
}

/// The model of the checkpoint for an index without one.
///
/// # Errors
/// If neither has a model, or both.
pub fn model_beside(index: &IndexInfo, given: &ModelArgs) -> Result<Option<Model>> {
    let named = |given: &Option<Input>, name, environment| match given {
        Some(path) => {
            let expected = format!("no --{name} (and no {environment}): the index has its model in it");
            Err(Error::argument(name, expected, path.display()))
        }
        None => Ok(()),
    };
    match index.encoder {
        true => {
            named(&given.checkpoint, "checkpoint", "RAILS_CHECKPOINT")?;
            named(&given.config, "config", "RAILS_CONFIG")?;
            Ok(None)
        }
        false if given.checkpoint.is_some() => load_model(given).map(Some),
        false => Err(Error::argument("index", "--checkpoint, or an index with an encoder", "an index without one")),
    }
}

/// Lets `index` learn from `queries`, unless that is cancelled, and shows how far it is.
pub fn learn(index: &ItemIndex, queries: &QueryBatch, cancel: &Cancel) -> Result<()> {
    let what = format!("learning from {} users, for tangent, distilled and cascade", queries.len());
    progress::share_of(&what, |progress| index.distill_with(queries, cancel, progress))
}

/// Queries of up to 256 users from all over a data set, for an index to learn from.
pub fn some_queries(encoder: &HistoryEncoder, users: &[Sequence]) -> Result<QueryBatch> {
    let n = users.len().min(256);
    let histories: Vec<History> = (0..n).map(|i| history_of(&users[i * users.len() / n])).collect();
    encoder.encode(&histories)
}

/// Name and driver of the device.
pub fn device(searcher: &Searcher) -> (String, String) {
    let backends = searcher.index().backends();
    backends.first().map(|backend| (backend.info().name.clone(), backend.info().driver.clone())).unwrap_or_default()
}
