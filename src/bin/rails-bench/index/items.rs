//! Items as `index build` and `index add` take them.

use std::path::Path;

use rails_wgpu::dataset::read_item_ids;
use rails_wgpu::index::ItemSource;
use rails_wgpu::model::Model;
use rails_wgpu::{Error, Result};

use crate::model_files::load_item_ids;
use crate::paths::{ItemsArg, is_safetensors};

/// The ids that a list names; without one, all rows of the model's item table.
pub fn listed(items: Option<&ItemsArg>, model: &Model) -> Result<Vec<u32>> {
    match items {
        Some(ItemsArg::List(path)) => load_item_ids(Some(path), model),
        Some(_) => Ok(Vec::new()),
        None => load_item_ids(None, model),
    }
}

/// The items, as the similarity of `model` wants them; `listed`: what [`listed`] said.
pub fn source<'a>(items: Option<&ItemsArg>, model: &'a Model, listed: &'a [u32]) -> Result<ItemSource<'a>> {
    Ok(match items {
        Some(ItemsArg::Safetensors(path)) => with_norm(ItemSource::of_file(path)?, model),
        Some(ItemsArg::Random { n, seed }) => ItemSource::random(model, *n, *seed),
        Some(ItemsArg::List(_)) | None => ItemSource::of_model(model, listed),
    })
}

fn with_norm<'a>(source: ItemSource<'a>, model: &Model) -> ItemSource<'a> {
    match model.config.item_l2_norm {
        true => source.normalised(model.config.l2_norm_eps),
        false => source,
    }
}

/// Items for an index without an encoder: only files have their embeddings.
pub fn without_model(items: &ItemsArg) -> Result<ItemSource<'static>> {
    match items {
        ItemsArg::Safetensors(path) => ItemSource::of_file(path),
        _ => {
            let found = "an index that has no item table";
            Err(Error::argument(
                "items",
                "a .safetensors file with ids and embeddings, or an index with a model",
                found,
            ))
        }
    }
}

/// Ids of any kind of list.
pub fn ids(path: &Path) -> Result<Vec<u64>> {
    match is_safetensors(path) {
        true => ItemSource::ids_of_file(path),
        false => Ok(read_item_ids(path)?.into_iter().map(u64::from).collect()),
    }
}
