//! Attributes of items, such as a year or a genre, and conditions on them in SQL.
//!
//! [`Attributes`] are columns of values with the ids of their items, from a CSV file or a program. An index keeps them, for each of
//! its segments, as a SQLite database of one table `items` ([`AttributeTable`]). A [`Condition`] is what stands behind `WHERE`: a
//! search takes it as the set of the items that meet it. docs/FILTERS.md is the guide.

mod attribute_table;
mod column;
mod condition;
mod csv_file;
#[cfg(feature = "attributes")]
mod database;
#[cfg(not(feature = "attributes"))]
#[path = "no_database.rs"]
mod database;
mod item_attributes;
mod value;

pub use attribute_table::{AttributeTable, Database};
pub use column::{Column, ColumnType};
pub use condition::Condition;
pub use item_attributes::{Attributes, ColumnValues, ItemKeys};
pub use value::Value;
