//! Attributes on their way to the items of an index.

use std::collections::HashMap;
use std::sync::Arc;

use super::segment_attributes::SegmentAttributes;
use super::string_ids::{StringIds, id_of_string};
use super::unique::twice;
use crate::attributes::{AttributeTable, Attributes, Column, ItemKeys, Value};
use crate::error::Parameter;
use crate::{Error, Result};

/// Attributes for the items of a source, found by their ids.
pub(super) struct AttributeSource {
    attributes: Attributes,
    rows: HashMap<u64, usize>,
    used: Vec<bool>,
}

impl AttributeSource {
    /// For items whose ids are strings, or numbers.
    ///
    /// # Errors
    /// If ids are of the other kind, or given twice.
    pub fn new(attributes: Attributes, string_ids: bool) -> Result<AttributeSource> {
        let mut rows = HashMap::with_capacity(attributes.len());
        let known_before = |id: u64, row: usize, rows: &mut HashMap<u64, usize>| rows.insert(id, row).is_some();
        match attributes.keys() {
            // Strings may look like numbers.
            ItemKeys::Numbers(ids) if string_ids => {
                for (row, id) in ids.iter().map(ToString::to_string).enumerate() {
                    if known_before(id_of_string(&id), row, &mut rows) {
                        return Err(string_twice(&id));
                    }
                }
            }
            ItemKeys::Numbers(ids) => {
                for (row, &id) in ids.iter().enumerate() {
                    if known_before(id, row, &mut rows) {
                        return Err(twice(id));
                    }
                }
            }
            ItemKeys::Strings(ids) if string_ids => {
                for (row, id) in ids.iter().enumerate() {
                    if known_before(id_of_string(id), row, &mut rows) {
                        return Err(string_twice(id));
                    }
                }
            }
            ItemKeys::Strings(ids) => {
                let found = ids.iter().find(|id| id.parse::<u64>().is_err()).map_or("strings", String::as_str);
                let expected = "whole numbers as ids of items, as those of the index";
                return Err(Error::argument(Parameter::Attributes, expected, format!("`{found}`")));
            }
        }
        let used = vec![false; attributes.len()];
        Ok(AttributeSource { attributes, rows, used })
    }

    /// Names and types of the attributes.
    pub fn columns(&self) -> &[Column] {
        self.attributes.columns()
    }

    /// Whether every one of them was one of an item.
    ///
    /// # Errors
    /// With the first that was not.
    pub fn check_used(&self) -> Result<()> {
        let Some(first) = self.used.iter().position(|used| !used) else { return Ok(()) };
        let n = self.used.iter().filter(|used| !**used).count();
        let id = match self.attributes.keys() {
            ItemKeys::Numbers(ids) => ids[first].to_string(),
            ItemKeys::Strings(ids) => format!("`{}`", ids[first]),
        };
        let found = format!("{n} of other ids, the first {id}");
        Err(Error::argument(Parameter::Attributes, "attributes of items that are indexed with them", found))
    }
}

/// The attributes of items `ids`, of an index with `columns`; those that the source does not have are missing.
///
/// # Errors
/// If the source has others, there are too many values, or an id is too large.
pub(super) fn of_items(
    source: Option<&mut AttributeSource>,
    columns: &Arc<[Column]>,
    ids: &[u64],
    strings: Option<&StringIds>,
) -> Result<SegmentAttributes> {
    let places = source.as_ref().map(|source| source.attributes.places(columns)).transpose()?.unwrap_or_default();
    let mut source = source;
    let table = AttributeTable::build(columns.clone(), strings.is_some(), ids.len(), |position, values| {
        values.push(match strings {
            Some(strings) => strings.get(position).into(),
            None => {
                let large = || {
                    let expected = "ids below 2^63, of items with attributes";
                    Error::argument(Parameter::ItemIds, expected, format!("id {}", ids[position]))
                };
                Value::Integer(i64::try_from(ids[position]).map_err(|_| large())?)
            }
        });
        let row = source.as_ref().and_then(|source| source.rows.get(&ids[position]).copied());
        if let (Some(row), Some(source)) = (row, source.as_mut()) {
            source.used[row] = true;
        }
        values.extend(columns.iter().enumerate().map(|(i, column)| match (row, &source, places.get(i)) {
            (Some(row), Some(source), Some(Some(place))) => source.attributes.value(*place, row, column.kind),
            _ => Value::Null,
        }));
        Ok(())
    })?;
    Ok(SegmentAttributes { table, file: None })
}

fn string_twice(id: &str) -> Error {
    Error::argument(Parameter::ItemIds, "each id once", format!("`{id}` twice"))
}
