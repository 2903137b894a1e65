//! Ids of items that are strings: kept beside the numbers that stand for them.

use std::collections::HashMap;

use crate::error::Parameter;
use crate::tables::Bytes;
use crate::{Error, Result};

/// The number that stands for a string id, below 2^63: FNV-1a of its bytes, 64 bits, mixed once more so that all bits count.
/// Part of the format of index folders.
pub fn id_of_string(id: &str) -> u64 {
    let hash = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (mixed ^ (mixed >> 33)) >> 1
}

/// The numbers of string ids.
///
/// # Errors
/// If an id is empty or given twice, or two of them have the same number.
pub(super) fn ids_of_strings(strings: &[String]) -> Result<Vec<u64>> {
    let mut known: HashMap<u64, &str> = HashMap::with_capacity(strings.len());
    let mut ids = Vec::with_capacity(strings.len());
    for string in strings {
        if string.is_empty() {
            return Err(Error::argument(Parameter::ItemIds, "strings with at least one character", "an empty one"));
        }
        let id = id_of_string(string);
        match known.insert(id, string) {
            None => ids.push(id),
            Some(other) if other == string => {
                return Err(Error::argument(Parameter::ItemIds, "each id once", format!("`{string}` twice")));
            }
            Some(other) => return Err(same_number(other, string)),
        }
    }
    Ok(ids)
}

/// Two strings cannot be told apart.
pub(super) fn same_number(one: &str, other: &str) -> Error {
    let found = format!("`{one}` and `{other}`, which have the same; call one of them otherwise");
    Error::argument(Parameter::ItemIds, "string ids with different numbers", found)
}

/// One string for each item of a segment.
pub struct StringIds {
    bytes: Bytes<u8>,
    /// Where each ends.
    ends: Bytes<u64>,
}

impl StringIds {
    /// Of strings in memory.
    pub(super) fn new<'a>(strings: impl Iterator<Item = &'a str>) -> StringIds {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for string in strings {
            bytes.extend_from_slice(string.as_bytes());
            ends.push(bytes.len() as u64);
        }
        StringIds { bytes: Bytes::Owned(bytes.into()), ends: Bytes::Owned(ends.into()) }
    }

    /// Of strings wherever they lie; `None` unless they are those of `ids`.
    pub(super) fn of_parts(bytes: Bytes<u8>, ends: Bytes<u64>, ids: &[u64]) -> Option<StringIds> {
        let all = ends.as_slice();
        let whole = all.last().copied().unwrap_or(0) == bytes.as_slice().len() as u64;
        if !all.is_sorted() || all.len() != ids.len() || !whole {
            return None;
        }
        let strings = StringIds { bytes, ends };
        let fits = |(position, &id)| strings.string(position).is_some_and(|string| id_of_string(string) == id);
        ids.iter().enumerate().all(fits).then_some(strings)
    }

    /// The bytes of all strings, one after the other, and where each ends.
    pub(super) fn parts(&self) -> (&[u8], &[u64]) {
        (self.bytes.as_slice(), self.ends.as_slice())
    }

    /// The id of the item at a position.
    pub fn get(&self, position: usize) -> &str {
        self.string(position).unwrap_or_default()
    }

    fn string(&self, position: usize) -> Option<&str> {
        let ends = self.ends.as_slice();
        let from = if position == 0 { 0 } else { ends[position - 1] as usize };
        std::str::from_utf8(self.bytes.as_slice().get(from..ends[position] as usize)?).ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_strings_stay_what_they_are() {
        // FNV-1a of the two is 0xcbf29ce484222325 and 0xaf63dc4c8601ec8c, before it is mixed.
        assert_eq!((id_of_string(""), id_of_string("a")), (8_640_173_135_264_257_171, 4_706_636_184_713_914_157));
        assert!((0..1000).all(|i| id_of_string(&format!("item {i}")) < 1 << 63));
    }

    #[test]
    fn strings_are_kept_and_wrong_parts_refused() {
        let strings = ["a", "long one", "é"];
        let ids = strings.map(id_of_string);
        let kept = StringIds::new(strings.into_iter());
        assert_eq!([0, 1, 2].map(|position| kept.get(position)), strings);
        let again = |bytes: &[u8], ends: &[u64], ids: &[u64]| {
            let (bytes, ends) = (Bytes::Owned(bytes.to_vec().into()), Bytes::Owned(ends.to_vec().into()));
            StringIds::of_parts(bytes, ends, ids).is_some()
        };
        let (bytes, ends) = kept.parts();
        assert!(again(bytes, ends, &ids));
        assert!(!again(bytes, ends, &ids[..2]) && !again(&bytes[1..], ends, &ids) && !again(bytes, &[1, 0, 11], &ids));
        assert!(!again(bytes, &[1, 10, 11], &ids), "in the middle of a character");
        assert!(!again(bytes, ends, &[ids[0], ids[2], ids[1]]), "of other numbers");
    }

    #[test]
    fn strings_that_cannot_be_told_apart_are_refused() {
        let refused = |strings: &[&str]| {
            let strings: Vec<String> = strings.iter().map(ToString::to_string).collect();
            ids_of_strings(&strings).unwrap_err().to_string()
        };
        assert!(refused(&["a", "b", "a"]).contains("each id once, found `a` twice"));
        assert!(refused(&["a", ""]).contains("an empty one"));
        assert!(same_number("a", "b").to_string().contains("`a` and `b`"));
    }
}
