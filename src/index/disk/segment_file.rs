//! The file of a segment: ids, tables and inverted lists.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::content::damaged;
use super::tensors::{self, Part, checked, floats, table};
use crate::Result;
use crate::backend::Columns;
use crate::index::StringIds;
use crate::index::segment_attributes::SegmentAttributes;
use crate::store::{Shard, Transaction};
use crate::tables::{Bytes, Lists, MolTables, Table, Tables, TokenCodes, TokenTable};

const STEM: &str = "items";

/// Of the file of attributes.
const ATTRIBUTES: &str = "attributes";

/// Tensors of token embeddings: all vectors, and where those of each item begin.
const TOKENS: &str = "tokens";
const OFFSETS: &str = "tokens.offsets";

/// Tensors of their centroids, and which of them each item has.
const CENTROIDS: &str = "tokens.centroids";
const CODES: &str = "tokens.codes";
const CODE_OFFSETS: &str = "tokens.codes.offsets";

/// Metadata: number of sets of inverted lists.
const N_LISTS: &str = "lists";

/// The strings that ids stand for: their bytes, one after the other, and where each ends.
const STRINGS: &str = "strings";
const STRING_ENDS: &str = "strings.ends";

/// Writes a segment of items `ids`, ascending, one per item of `tables`, and the strings that they stand for, if ids are strings.
/// Returns the name of the file.
pub(super) fn write(
    transaction: &Transaction,
    (ids, strings): (&[u64], Option<&StringIds>),
    tables: &Tables,
) -> Result<String> {
    let mut parts = vec![Part::new("ids", &[ids.len()], ids)];
    if let Some((bytes, ends)) = strings.map(StringIds::parts) {
        parts.push(Part::new(STRINGS, &[bytes.len()], bytes));
        parts.push(Part::new(STRING_ENDS, &[ends.len()], ends));
    }
    for (name, table) in tables.named() {
        parts.extend(Part::of_table(name, table));
    }
    if let Some(tokens) = &tables.tokens {
        parts.extend(Part::of_table(TOKENS, tokens.vectors()));
        parts.push(Part::new(OFFSETS, &[tokens.offsets().len()], tokens.offsets()));
        if let Some(codes) = &tokens.codes {
            parts.push(Part::new(CENTROIDS, codes.centroids().shape(), codes.centroids().data()));
            parts.push(Part::new(CODE_OFFSETS, &[codes.offsets().len()], codes.offsets()));
            parts.push(Part::new(CODES, &[codes.codes().len()], codes.codes()));
        }
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

/// Writes the attributes of a segment, if it has some, into a file of their own. Returns its name.
pub(super) fn write_attributes(
    transaction: &Transaction,
    attributes: Option<&SegmentAttributes>,
) -> Result<Option<String>> {
    attributes.map(|attributes| transaction.database(ATTRIBUTES, attributes.table.database())).transpose()
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
            principal: optional("principal", &mol.principal)?,
            gate: optional("gate", &mol.gate)?,
        })
    });
    let tokens = like.tokens.as_ref().map(|tokens| read_tokens(shard, items, tokens.vectors(), check)).transpose()?;
    let mut tables = Tables { raw: open("raw", &like.raw)?, mol: mol.transpose()?, tokens, lists: Vec::new() };
    let n_lists = shard.metadata().get(N_LISTS).and_then(|text| text.parse::<usize>().ok());
    let n_lists = n_lists.ok_or_else(|| damaged(shard.path(), "the metadata does not tell the inverted lists"))?;
    tables.lists = (0..n_lists).map(|i| read_lists(shard, i, &tables, check)).collect::<Result<_>>()?;
    Ok((Bytes::Foreign(Arc::new(ids)), tables))
}

/// The token embeddings of `items` items, whose vectors are like those of `like`. Offsets are checked.
fn read_tokens(shard: &Shard, items: usize, like: &Table, check: bool) -> Result<TokenTable> {
    let offsets = checked::<u64>(shard, OFFSETS, &[Some(items + 1)])?;
    let n = offsets.values::<u64>().and_then(|offsets| usize::try_from(*offsets.last()?).ok()).unwrap_or_default();
    let vectors = table(shard, TOKENS, n, like, check)?;
    let wrong = || damaged(shard.path(), format!("tensor `{OFFSETS}`: expected numbers that ascend from 0, each once"));
    let mut tokens = TokenTable::from_parts(vectors, Bytes::Foreign(Arc::new(offsets))).ok_or_else(wrong)?;
    if shard.tensors().any(|name| name == CENTROIDS) {
        let centroids = floats(shard, CENTROIDS, &[None, Some(like.width())])?;
        let offsets = checked::<u64>(shard, CODE_OFFSETS, &[Some(items + 1)])?;
        let codes = checked::<u16>(shard, CODES, &[None])?;
        let wrong = || damaged(shard.path(), format!("tensor `{CODES}`: expected numbers of centroids for each item"));
        let parts = (Bytes::Foreign(Arc::new(offsets)), Bytes::Foreign(Arc::new(codes)));
        tokens.codes = Some(TokenCodes::from_parts(centroids, parts.0, parts.1).ok_or_else(wrong)?);
    }
    Ok(tokens)
}

/// The strings of a file that `ids` stand for, in place and checked.
pub(super) fn read_strings(shard: &Shard, ids: &[u64]) -> Result<StringIds> {
    let bytes = checked::<u8>(shard, STRINGS, &[None])?;
    let ends = checked::<u64>(shard, STRING_ENDS, &[Some(ids.len())])?;
    let strings = StringIds::of_parts(Bytes::Foreign(Arc::new(bytes)), Bytes::Foreign(Arc::new(ends)), ids);
    strings.ok_or_else(|| damaged(shard.path(), "tensor `strings`: expected the string that each id stands for"))
}

fn read_lists(shard: &Shard, index: usize, tables: &Tables, check: bool) -> Result<Lists> {
    let named = |part: &str| format!("lists.{index}.{part}");
    let wrong = |what: &str| damaged(shard.path(), format!("inverted lists {index}: {what}"));
    let groups = tables.components().map(Table::groups);
    let groups = groups.or_else(|| tables.mol.as_ref().and_then(|mol| Some(mol.inverse_norms.as_ref()?.width())));
    let groups = groups.ok_or_else(|| wrong("there are no components to make lists of"))?;
    let columns = shard.metadata().get(&named("columns")).and_then(|name| columns_of(name, groups));
    let columns = columns.ok_or_else(|| wrong("the metadata does not tell their columns"))?;
    let (vectors, width) = match columns {
        Columns::All => (groups, tables.component_width()),
        Columns::Group(_) | Columns::Mean | Columns::Principal => (1, tables.component_width()),
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
        Columns::Principal => "principal".to_string(),
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::tables::{Dtype, ItemSide};
    use crate::tensor::Tensor;

    const N: usize = 5;

    /// Tables of items with two components of width two, and lists of all kinds.
    fn tables(dtype: Dtype) -> Tables {
        let mut tables = empty(dtype);
        let numbers = |n: usize| (0..n).map(|i| (i as f32).sin()).collect::<Vec<f32>>();
        let side = ItemSide { components: numbers(N * 4), norms: vec![1.0; N * 2], gate: None, principal: None };
        tables.append(&numbers(N * 3), Some(&side));
        for (columns, width) in [(Columns::All, 4), (Columns::Group(1), 2), (Columns::Mean, 2)] {
            let centroids = Tensor::trusted(vec![3, width], numbers(3 * width));
            let lists = Lists::new(columns, centroids, &[2, 0, 2, 1, 0], &tables);
            tables.lists.push(lists);
        }
        tables
    }

    fn empty(dtype: Dtype) -> Tables {
        let mol = MolTables {
            components: Some(Table::new(2, 2, dtype)),
            inverse_norms: None,
            mean: Table::new(1, 2, dtype),
            principal: None,
            gate: None,
        };
        Tables { raw: Table::new(1, 3, dtype), mol: Some(mol), tokens: None, lists: Vec::new() }
    }

    fn stored(tables: &Tables) -> (tempfile::TempDir, Result<(Bytes<u64>, Tables)>) {
        let folder = tempfile::tempdir().unwrap();
        let transaction = Store::create(folder.path()).unwrap().write().unwrap();
        let name = write(&transaction, (&[2, 3, 5, 7, 11], None), tables).unwrap();
        let shard = transaction.shard(&name).unwrap();
        let read = read(&shard, N, empty(tables.dtype()), true);
        (folder, read)
    }

    #[test]
    fn lists_come_back_as_they_were() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::I8] {
            let written = tables(dtype);
            let (_folder, read) = stored(&written);
            let (ids, read) = read.unwrap();
            assert_eq!(ids.as_slice(), [2, 3, 5, 7, 11]);
            assert_eq!(read.lists.len(), 3);
            assert_eq!(read.bytes(), written.bytes());
            for (read, written) in read.lists.iter().zip(&written.lists) {
                assert_eq!((read.columns, &read.offsets), (written.columns, &written.offsets));
                assert_eq!((&read.positions, &read.centroids), (&written.positions, &written.centroids));
                assert_eq!(read.vectors.read_rows(0..N), written.vectors.read_rows(0..N));
            }
        }
    }

    #[test]
    fn token_embeddings_come_back_and_wrong_offsets_are_refused() {
        let written = |offsets: &[u64], dtype| {
            let folder = tempfile::tempdir().unwrap();
            let transaction = Store::create(folder.path()).unwrap().write().unwrap();
            let mut tables = Tables::of_tokens(2, dtype);
            let vectors = [[0.5, 1.0, -2.0, 3.0].as_slice(), &[1.0, 0.25]];
            tables.append_tokens(&[0.0; 4], vectors.into_iter());
            let tokens = tables.tokens.as_ref().unwrap();
            let mut parts = vec![Part::new("ids", &[2], &[5u64, 6])];
            parts.extend(Part::of_table("raw", &tables.raw));
            parts.extend(Part::of_table(TOKENS, tokens.vectors()));
            parts.push(Part::new(OFFSETS, &[offsets.len()], offsets));
            let specs: Vec<_> = parts.iter().map(|part| part.spec.clone()).collect();
            let metadata = BTreeMap::from([(N_LISTS.to_string(), "0".to_string())]);
            let name = tensors::write(transaction.file(STEM, &metadata, &specs).unwrap(), &parts).unwrap();
            let shard = transaction.shard(&name).unwrap();
            let read = read(&shard, 2, Tables::of_tokens(2, dtype), true).map(|(_, tables)| tables);
            (folder, tables, read)
        };
        for dtype in [Dtype::F32, Dtype::F16, Dtype::I8] {
            let (_folder, tables, read) = written(&[0, 2, 3], dtype);
            let (tokens, read) = (tables.tokens.unwrap(), read.unwrap().tokens.unwrap());
            assert_eq!(read.offsets(), tokens.offsets());
            assert_eq!(read.vectors().read_rows(0..3), tokens.vectors().read_rows(0..3));
        }
        for offsets in [&[0, 2, 2][..], &[1, 2, 3], &[0, 3, 2], &[0, 0, 3], &[0, 3]] {
            let error = written(offsets, Dtype::F32).2.err().unwrap().to_string();
            assert!(error.contains("tokens"), "{offsets:?}: {error}");
        }
    }

    #[test]
    fn wrong_lists_are_refused() {
        type Damage = (fn(&mut Lists), &'static str);
        let cases: [Damage; 6] = [
            (|lists| lists.positions[1] = 5, "position of each item once"),
            (|lists| lists.positions[1] = lists.positions[0], "position of each item once"),
            (|lists| lists.offsets[1] = 9, "offsets that ascend"),
            (|lists| lists.offsets[0] = 1, "offsets that ascend"),
            (|lists| lists.offsets[3] = 4, "offsets that ascend"),
            (|lists| lists.columns = Columns::Group(2), "columns"),
        ];
        for (change, words) in cases {
            let mut wrong = tables(Dtype::F32);
            change(&mut wrong.lists[1]);
            let (_folder, read) = stored(&wrong);
            let error = read.err().unwrap().to_string();
            assert!(error.contains(words) && error.contains("lists 1"), "{words}: {error}");
        }
    }
}
