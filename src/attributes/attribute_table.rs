//! The attributes of the items of a segment.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roaring::RoaringBitmap;

use super::{Column, Condition, Value};
use crate::context::Cancel;
use crate::{Error, Result};

/// Conditions whose items are kept.
const KEPT: usize = 64;

/// The bytes of a database, wherever they lie.
pub type Database = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// What the tables of all segments of an index have in common.
pub(super) struct Schema {
    pub columns: Arc<[Column]>,
    /// Whether ids are strings.
    pub string_ids: bool,
}

/// Why a database has no answer.
pub(super) enum Failure {
    /// It is not what was written.
    Damaged(String),
    /// Something else is wrong.
    Other(Error),
}

/// Attributes of items at positions 0 to N - 1, never changed.
pub struct AttributeTable {
    schema: Schema,
    n_items: usize,
    database: Database,
    /// The items that met the last conditions, the latest first.
    matching: Mutex<VecDeque<(Condition, Arc<RoaringBitmap>)>>,
}

impl AttributeTable {
    /// The table in a database.
    pub fn new(columns: Arc<[Column]>, string_ids: bool, n_items: usize, database: Database) -> AttributeTable {
        let schema = Schema { columns, string_ids };
        AttributeTable { schema, n_items, database, matching: Mutex::default() }
    }

    /// A table of items whose values `row` fills in for a position: the id, then one per column.
    ///
    /// # Errors
    /// Those of `row`, or if there are 2 GiB or more of them.
    pub fn build(
        columns: Arc<[Column]>,
        string_ids: bool,
        n_items: usize,
        row: impl FnMut(usize, &mut Vec<Value>) -> Result<()>,
    ) -> Result<AttributeTable> {
        let schema = Schema { columns, string_ids };
        let database = Arc::new(schema.database(n_items, row)?);
        Ok(AttributeTable { schema, n_items, database, matching: Mutex::default() })
    }

    /// A table of rows of others, which have the same columns: for each row the number of its table, and its position there.
    ///
    /// # Errors
    /// What `damaged` makes of the number of a table and what is wrong with it; or as [`AttributeTable::build`].
    pub fn merged(
        tables: &[&AttributeTable],
        rows: &[(usize, usize)],
        damaged: impl FnOnce(String) -> Error,
    ) -> Result<Option<AttributeTable>> {
        let Some(first) = tables.first() else { return Ok(None) };
        let (columns, string_ids) = (first.schema.columns.clone(), first.schema.string_ids);
        let schema = Schema { columns, string_ids };
        let databases: Vec<&[u8]> = tables.iter().map(|table| table.database()).collect();
        let merged = schema.merged(&databases, rows).map_err(|failure| failure.error(damaged))?;
        let (n_items, database) = (rows.len(), Arc::new(merged));
        Ok(Some(AttributeTable { schema, n_items, database, matching: Mutex::default() }))
    }

    /// Names and types of the attributes.
    pub fn columns(&self) -> &Arc<[Column]> {
        &self.schema.columns
    }

    /// A SQLite database of one table `items`.
    pub fn database(&self) -> &[u8] {
        (*self.database).as_ref()
    }

    /// The positions of the items that meet `condition`. Those of the last conditions are remembered; before the database is read,
    /// `check` says whether it may be.
    ///
    /// # Errors
    /// If the condition is no expression over the columns, is too long, takes too long, or is cancelled; what `check` says, or
    /// `damaged` makes of what is wrong with the database.
    pub fn matching(
        &self,
        condition: &Condition,
        cancel: &Cancel,
        check: impl FnOnce() -> Result<()>,
        damaged: impl FnOnce(String) -> Error,
    ) -> Result<Arc<RoaringBitmap>> {
        condition.check_size()?;
        if let Some(known) = self.remembered(condition) {
            return Ok(known);
        }
        check()?;
        let found = self.schema.matching(self.database(), condition, cancel);
        let found = found.and_then(|found| match found.max().filter(|last| *last as usize >= self.n_items) {
            Some(last) => Err(Failure::Damaged(format!("it has a row {last} of {} items", self.n_items))),
            None => Ok(Arc::new(found)),
        });
        let found = found.map_err(|failure| failure.error(damaged))?;
        let mut kept = self.kept();
        // Another search may have found the same meanwhile.
        kept.retain(|(known, _)| known != condition);
        kept.push_front((condition.clone(), found.clone()));
        kept.truncate(KEPT);
        Ok(found)
    }

    fn remembered(&self, condition: &Condition) -> Option<Arc<RoaringBitmap>> {
        let mut kept = self.kept();
        let place = kept.iter().position(|(known, _)| known == condition)?;
        let known = kept.remove(place)?;
        let matching = known.1.clone();
        kept.push_front(known);
        Some(matching)
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(Condition, Arc<RoaringBitmap>)>> {
        // It is never left half changed.
        self.matching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failure {
    fn error(self, damaged: impl FnOnce(String) -> Error) -> Error {
        match self {
            Failure::Damaged(what) => damaged(what),
            Failure::Other(error) => error,
        }
    }
}

#[cfg(all(test, feature = "attributes"))]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::attributes::ColumnType;

    /// Items 0 to 3 with texts as long as can be, in columns of the longest names.
    fn table(n_columns: usize) -> AttributeTable {
        let column = |i: usize| Column::new(format!("{i:0>128}"), ColumnType::Text).unwrap();
        let columns: Vec<Column> = (0..n_columns).map(column).collect();
        let row = |position: usize, values: &mut Vec<Value>| {
            values.push((position as i64).into());
            values.extend((0..n_columns).map(|i| if i == 0 { "a".repeat(1 << 16).into() } else { Value::Null }));
            Ok(())
        };
        AttributeTable::build(columns.into(), false, 4, row).unwrap()
    }

    fn matching(table: &AttributeTable, condition: &Condition) -> Result<Arc<RoaringBitmap>> {
        table.matching(condition, &Cancel::new(), || Ok(()), |what| Error::argument("test", "a table", what))
    }

    #[test]
    fn a_condition_is_kept_once() {
        let table = table(1);
        let condition = Condition::new("id > 1").unwrap();
        let meanwhile = || matching(&table, &condition).map(drop);
        let found =
            table.matching(&condition, &Cancel::new(), meanwhile, |what| Error::argument("test", "a table", what));
        assert_eq!(found.unwrap().iter().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(table.kept().len(), 1);
    }

    #[test]
    fn tables_of_the_most_columns_and_the_longest_texts_are_read() {
        let table = table(1000);
        let sql = format!("\"{:0>128}\" LIKE 'a%a' AND \"{:0>128}\" IS NULL", 0, 999);
        assert_eq!(matching(&table, &Condition::new(sql).unwrap()).unwrap().len(), 4);
        let longer = Condition::new(format!("\"{:0>128}\" || 'a' > ''", 0)).unwrap();
        let error = matching(&table, &longer).unwrap_err().to_string();
        assert!(error.contains("... (1000 in all)") && error.contains("too big") && error.len() < 10_000, "{error}");
    }

    #[test]
    fn a_condition_is_as_long_as_its_parameters() {
        let condition = Condition::new("id = ?1").unwrap().with_params(["1".repeat(1 << 16).into()]);
        let error = matching(&table(1), &condition).unwrap_err().to_string();
        assert!(error.contains("condition: expected up to 65536 bytes with its parameters, found 65543"), "{error}");
    }
}
