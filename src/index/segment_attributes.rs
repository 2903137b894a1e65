//! The attributes of a segment, in memory or in a file of the index folder.

use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::attributes::{AttributeTable, Column, Condition, Database};
use crate::context::Cancel;
use crate::error::Parameter;
use crate::store::{RESTORE, Shard};
use crate::{Error, Result};

/// The attributes of a segment, and the file that they are stored in, if they are.
pub(super) struct SegmentAttributes {
    pub table: AttributeTable,
    pub file: Option<Shard>,
}

impl SegmentAttributes {
    /// What is stored in `file`, in place; unread.
    ///
    /// # Errors
    /// If the file is none of a database.
    pub fn stored(columns: Arc<[Column]>, string_ids: bool, n_items: usize, file: &Shard) -> Result<SegmentAttributes> {
        let database: Database = Arc::new(file.tensor(Shard::DATABASE)?);
        let table = AttributeTable::new(columns, string_ids, n_items, database);
        Ok(SegmentAttributes { table, file: Some(file.clone()) })
    }

    /// Compares the file with its checksums.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn check(&self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.check(Shard::DATABASE))
    }

    /// The rows of several segments as one table: for each row the segment, and the position there.
    ///
    /// # Errors
    /// If a database is damaged, or there are too many values.
    pub fn merged(group: &[&SegmentAttributes], rows: &[(usize, usize)]) -> Result<Option<SegmentAttributes>> {
        let tables: Vec<&AttributeTable> = group.iter().map(|attributes| &attributes.table).collect();
        let merged = AttributeTable::merged(&tables, rows, damaged)?;
        Ok(merged.map(|table| SegmentAttributes { table, file: None }))
    }

    /// The positions of the items that meet a condition.
    ///
    /// # Errors
    /// As [`AttributeTable::matching`].
    pub fn matching(&self, condition: &Condition, cancel: &Cancel) -> Result<Arc<RoaringBitmap>> {
        let damaged = |what| match &self.file {
            Some(file) => Error::index(file.path(), format!("the attributes are damaged: {what}"), RESTORE),
            None => damaged(what),
        };
        self.table.matching(condition, cancel, || self.check(), damaged)
    }
}

fn damaged(what: String) -> Error {
    Error::argument(Parameter::Attributes, "databases as they were written", what)
}
