//! The file of a segment: ids, tables and inverted lists.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::content::damaged;
use super::tensors::{self, Part, checked, floats, table};
use crate::Result;
use crate::backend::Columns;
use crate::store::{Shard, Transaction};
use crate::tables::{Bytes, Lists, MolTables, Table, Tables};

const STEM: &str = "items";

/// Metadata: number of sets of inverted lists.
const N_LISTS: &str = "lists";

/// Writes a segment of items `ids`, ascending, one per item of `tables`. Returns the name of the file.
pub(super) fn write(transaction: &Transaction, ids: &[u64], tables: &Tables) -> Result<String> {
    let mut parts = vec![Part::new("ids", &[ids.len()], ids)];
    for (name, table) in tables.named() {
        parts.extend(Part::of_table(name, table));
    }
    let mut metadata = BTreeMap::from([(N_LISTS.to_string(), tables.lists.len().to_string())]);
    let names: Vec<String> = (0..tables.lists.len()).map(|i| format!("lists.{i}")).collect();
    for (name, lists) in names.iter().zip(&tables.lists) {
        metadata.insert(format!("{name}.columns"), columns_name(lists.columns));
        let named = |part: &str| format!("{name}.{part}");
        let vectors = Part::of_table(&named("vectors"), &lists.vectors);
        parts.push(Part::new(named("centroids"), lists.centroids.shape(), lists.centroids.data()));
        parts.push(Part::new(named("offsets"), &[lists.offsets.len()], &lists.offsets));
        parts.push(Part::new(named("positions"), &[lists.positions.len()], &lists.positions));
        parts.extend(vectors);
    }
    let specs: Vec<_> = parts.iter().map(|part| part.spec.clone()).collect();
    tensors::write(transaction.file(STEM, &metadata, &specs)?, &parts)
}

/// What a file holds, in place: `items` items with tables like the empty ones of `like`. Ids and lists are checked, tables
/// only if `check` says so.
pub(super) fn read(shard: &Shard, items: usize, like: Tables, check: bool) -> Result<(Bytes<u64>, Tables)> {
    let ids = checked::<u64>(shard, "ids", &[Some(items)])?;
    if !ids.values::<u64>().unwrap_or_default().is_sorted_by(|a, b| a < b) {
        return Err(damaged(shard.path(), "tensor `ids`: expected ascending ids, each once"));
    }
    let open = |name: &str, like: &Table| table(shard, name, items, like, check);
    let optional = |name: &str, like: &Option<Table>| like.as_ref().map(|like| open(name, like)).transpose();
    let mol = like.mol.as_ref().map(|mol| {
        Ok(MolTables {
            components: optional("components", &mol.components)?,
            inverse_norms: optional("inverse_norms", &mol.inverse_norms)?,
            mean: open("mean", &mol.mean)?,
            gate: optional("gate", &mol.gate)?,
        })
    });
    let mut tables = Tables { raw: open("raw", &like.raw)?, mol: mol.transpose()?, lists: Vec::new() };
    let n_lists = shard.metadata().get(N_LISTS).and_then(|text| text.parse::<usize>().ok());
    let n_lists = n_lists.ok_or_else(|| damaged(shard.path(), "the metadata does not tell the inverted lists"))?;
    tables.lists = (0..n_lists).map(|i| read_lists(shard, i, &tables, check)).collect::<Result<_>>()?;
    Ok((Bytes::Foreign(Arc::new(ids)), tables))
}

fn read_lists(shard: &Shard, index: usize, tables: &Tables, check: bool) -> Result<Lists> {
    let named = |part: &str| format!("lists.{index}.{part}");
    let wrong = |what: &str| damaged(shard.path(), format!("inverted lists {index}: {what}"));
    let groups = tables.mol.as_ref().and_then(|mol| Some(mol.components.as_ref()?.groups()));
    let groups = groups.or_else(|| tables.mol.as_ref().and_then(|mol| Some(mol.inverse_norms.as_ref()?.width())));
    let groups = groups.ok_or_else(|| wrong("there are no components to make lists of"))?;
    let columns = shard.metadata().get(&named("columns")).and_then(|name| columns_of(name, groups));
    let columns = columns.ok_or_else(|| wrong("the metadata does not tell their columns"))?;
    let (vectors, width) = match columns {
        Columns::All => (groups, tables.component_width()),
        Columns::Group(_) | Columns::Mean => (1, tables.component_width()),
    };
    let centroids = floats(shard, &named("centroids"), &[None, Some(vectors * width)])?;
    let offsets = checked::<u32>(shard, &named("offsets"), &[Some(centroids.rows() + 1)])?;
    let offsets = offsets.values::<u32>().unwrap_or_default().to_vec();
    let n = tables.len();
    if !offsets.is_sorted() || offsets.first() != Some(&0) || offsets.last().map(|&end| end as usize) != Some(n) {
        return Err(wrong("expected offsets that ascend from 0 to the number of items"));
    }
    let positions = checked::<u32>(shard, &named("positions"), &[Some(n)])?;
    let positions = positions.values::<u32>().unwrap_or_default().to_vec();
    let mut seen = vec![false; n];
    let once = |&position: &u32| seen.get_mut(position as usize).is_some_and(|seen| !std::mem::replace(seen, true));
    if !positions.iter().all(once) {
        return Err(wrong("expected the position of each item once"));
    }
    let like = Table::new(vectors, width, tables.dtype());
    let vectors = table(shard, &named("vectors"), n, &like, check)?;
    Ok(Lists { columns, centroids, offsets, positions, vectors })
}

fn columns_name(columns: Columns) -> String {
    match columns {
        Columns::All => "all".to_string(),
        Columns::Mean => "mean".to_string(),
        Columns::Group(group) => format!("group:{group}"),
    }
}

fn columns_of(name: &str, n_groups: usize) -> Option<Columns> {
    match name {
        "all" => Some(Columns::All),
        "mean" => Some(Columns::Mean),
        _ => name.strip_prefix("group:")?.parse().ok().filter(|&group| group < n_groups).map(Columns::Group),
    }
}
