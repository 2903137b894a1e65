//! Items as `index build` and `index add` take them.

use std::path::Path;

use rails_wgpu::backend::select;
use rails_wgpu::dataset::{read_item_ids, read_string_ids};
use rails_wgpu::index::ItemSource;
use rails_wgpu::model::Model;
use rails_wgpu::{Error, Result, TokenPooling};

use crate::model_files::load_item_ids;
use crate::options::read_attributes;
use crate::paths::{IdsArg, ItemsArg, holds_embeddings};

/// The rows of the item table of `model` that a list names; without a list, all of them.
pub fn listed(items: Option<&ItemsArg>, model: Option<&Model>) -> Result<Vec<u32>> {
    match (items, model) {
        (Some(ItemsArg::List(path)), Some(model)) => load_item_ids(Some(path), model),
        (None, Some(model)) => load_item_ids(None, model),
        _ => Ok(Vec::new()),
    }
}

/// The items, as the similarity of `model` wants them; `listed`: what [`listed`] said. Where there is a similarity but no
/// whole model, only files have embeddings.
pub fn source<'a>(items: Option<&ItemsArg>, model: Option<&'a Model>, listed: &'a [u32]) -> Result<ItemSource<'a>> {
    match (items, model) {
        (Some(ItemsArg::Embeddings(path)), None) => ItemSource::of_file(path),
        (Some(ItemsArg::Embeddings(path)), Some(model)) => Ok(with_norm(ItemSource::of_file(path)?, model)),
        (Some(ItemsArg::Random { n, seed }), Some(model)) => Ok(ItemSource::random(model, *n, *seed)),
        (Some(ItemsArg::List(_)) | None, Some(model)) => Ok(ItemSource::of_model(model, listed)),
        (_, None) => {
            let expected =
                "a .safetensors file with `ids` and `embeddings` or a .npy file, since there is no item table";
            Err(Error::argument("items", expected, items.map_or("none", |_| "a list or synthetic items")))
        }
    }
}

/// The names that rows `listed` have in a model with `names` of its rows from 1 on.
pub fn names(listed: &[u32], names: &[String]) -> Result<Vec<String>> {
    let name = |&row: &u32| {
        let name = (row as usize).checked_sub(1).and_then(|at| names.get(at)).filter(|name| !name.is_empty());
        let missing =
            || Error::argument("items", "rows of the item table that have names", format!("row {row} without one"));
        name.cloned().ok_or_else(missing)
    };
    listed.iter().map(name).collect()
}

/// Names of the rows of a model from 1 on, of which `listed` ones have these `strings`.
pub fn names_of_rows(listed: &[u32], strings: Vec<String>) -> Result<Vec<String>> {
    if strings.len() != listed.len() {
        return Err(Error::argument("string-ids", format!("{}, one per item", listed.len()), strings.len()));
    }
    let mut names = vec![String::new(); listed.iter().copied().max().unwrap_or(0) as usize];
    for (row, string) in listed.iter().zip(strings) {
        if let Some(name) = (*row as usize).checked_sub(1).and_then(|at| names.get_mut(at)) {
            *name = string;
        }
    }
    Ok(names)
}

/// The items, or queries, of a file of token embeddings; by the components that the token pooling in a file makes of these, if one is given.
pub fn of_tokens(path: &Path, pooling: Option<&Path>, device: &str) -> Result<ItemSource<'static>> {
    let source = ItemSource::of_token_file(path)?;
    match pooling {
        Some(pooling) => Ok(source.pooled(select::open(device)?, TokenPooling::open(pooling)?)),
        None => Ok(source),
    }
}

/// Refuses a pooling where token embeddings themselves are indexed.
pub fn check_pooling(pooling: Option<&Path>, of_tokens: bool) -> Result<()> {
    match pooling.filter(|_| of_tokens) {
        Some(path) => Err(Error::argument("pooling", "none for an index of token embeddings", path.display())),
        None => Ok(()),
    }
}

/// The file with the token embeddings of new items of an index of such.
pub fn token_file(items: &ItemsArg) -> Result<&Path> {
    match items {
        ItemsArg::Embeddings(path) => Ok(path),
        ItemsArg::List(_) | ItemsArg::Random { .. } => {
            let expected = "a .safetensors or .npy file with token embeddings, as the items of the index have";
            Err(Error::argument("items", expected, "a list or synthetic items"))
        }
    }
}

fn with_norm<'a>(source: ItemSource<'a>, model: &Model) -> ItemSource<'a> {
    match model.config.item_l2_norm {
        true => source.normalised(model.config.l2_norm_eps),
        false => source,
    }
}

/// The items with string ids of a file, if one is given.
pub fn named<'a>(source: ItemSource<'a>, string_ids: Option<&Path>) -> Result<ItemSource<'a>> {
    match string_ids {
        Some(path) => source.with_string_ids(read_string_ids(path)?),
        None => Ok(source),
    }
}

/// The items with the attributes of a file, if one is given.
pub fn with_attributes<'a>(source: ItemSource<'a>, attributes: Option<&Path>) -> Result<ItemSource<'a>> {
    let Some(path) = attributes else { return Ok(source) };
    let attributes = read_attributes(path, source.len(), |all| all)?;
    Ok(source.with_attributes(attributes))
}

/// Ids, whichever way they are given.
pub fn ids(given: &IdsArg) -> Result<Vec<u64>> {
    match given {
        IdsArg::Ids(ids) => Ok(ids.clone()),
        IdsArg::File(path) if holds_embeddings(path) => ItemSource::ids_of_file(path),
        IdsArg::File(path) => Ok(read_item_ids(path)?.into_iter().map(u64::from).collect()),
    }
}
