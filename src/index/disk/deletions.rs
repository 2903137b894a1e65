//! The file of the deletions of a segment: positions as a roaring bitmap, so as small as they are few.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use super::content::damaged;
use super::tensors::{self, Part, checked};
use crate::Result;
use crate::backend::Bits;
use crate::store::{Shard, Transaction};

const STEM: &str = "deleted";
const TENSOR: &str = "positions";

/// Writes the positions in `deleted`. Returns the name of the file.
pub(super) fn write(transaction: &Transaction, deleted: &Bits) -> Result<String> {
    let words = deleted.words().iter().enumerate();
    let positions = words.flat_map(|(word, &bits)| {
        (0..32u32).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word as u32 * 32 + bit)
    });
    let bitmap: RoaringBitmap = positions.collect();
    let mut bytes = Vec::with_capacity(bitmap.serialized_size());
    // Writing to memory does not fail.
    let _ = bitmap.serialize_into(&mut bytes);
    let part = Part::new(TENSOR, &[bytes.len()], &bytes);
    tensors::write(transaction.file(STEM, &BTreeMap::new(), std::slice::from_ref(&part.spec))?, &[part])
}

/// The deleted ones of `items` positions.
pub(super) fn read(shard: &Shard, items: usize) -> Result<Bits> {
    let tensor = checked::<u8>(shard, TENSOR, &[None])?;
    let wrong = |what: String| damaged(shard.path(), format!("tensor `{TENSOR}`: {what}"));
    let bitmap = RoaringBitmap::deserialize_from(tensor.bytes()).map_err(|error| wrong(error.to_string()))?;
    if bitmap.max().is_some_and(|last| last as usize >= items) {
        return Err(wrong(format!("expected positions below {items}")));
    }
    let mut deleted = Bits::new(items, |_| false);
    bitmap.iter().for_each(|position| deleted.insert(position));
    Ok(deleted)
}
