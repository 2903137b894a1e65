//! What an attribute is called, and what its values are.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Parameter;
use crate::{Error, Result};

/// Most attributes of an item.
const MOST_COLUMNS: usize = 1000;

/// Longest name, in bytes.
const LONGEST_NAME: usize = 128;

/// Names that mean something else: the id of an item, and SQLite's names for the number of a row.
const RESERVED: [&str; 4] = ["id", "rowid", "oid", "_rowid_"];

/// Type of the values of an attribute. Any of them may be missing (`NULL`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ColumnType {
    /// Whole numbers of 64 bits.
    Integer,
    /// Finite 64-bit floats.
    Real,
    /// Text.
    Text,
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            ColumnType::Integer => "INTEGER",
            ColumnType::Real => "REAL",
            ColumnType::Text => "TEXT",
        })
    }
}

/// An attribute: its name and its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Column {
    /// How conditions name it, whatever the case; between double quotes unless it is a plain word.
    pub name: String,
    /// What its values are.
    #[serde(rename = "type")]
    pub kind: ColumnType,
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.name, self.kind)
    }
}

impl Column {
    /// A column of this name and type.
    ///
    /// # Errors
    /// If no condition could use the name.
    pub fn new(name: impl Into<String>, kind: ColumnType) -> Result<Column> {
        let column = Column { name: name.into(), kind };
        column.check()?;
        Ok(column)
    }

    /// Whether a condition can use the name, and the name cannot leave its double quotes.
    fn check(&self) -> Result<()> {
        let name = &self.name;
        let usable = (1..=LONGEST_NAME).contains(&name.len()) && !name.contains(|c: char| c.is_control() || c == '"');
        if !usable || RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
            let reserved = RESERVED.join(", ");
            let expected =
                format!("names of 1 to {LONGEST_NAME} bytes without double quotes, and other ones than {reserved}");
            return Err(Error::argument(Parameter::Attributes, expected, format!("`{}`", name.escape_debug())));
        }
        Ok(())
    }

    /// Whether this is what `name` names.
    pub fn is_called(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Whether columns, wherever they come from, can be those of one table.
    ///
    /// # Errors
    /// If there are too many, two of them have the same name, or no condition could use one.
    pub(crate) fn check_all(columns: &[Column]) -> Result<()> {
        if columns.len() > MOST_COLUMNS {
            return Err(Error::argument(Parameter::Attributes, format!("up to {MOST_COLUMNS} columns"), columns.len()));
        }
        columns.iter().try_for_each(Column::check)?;
        let mut names = HashSet::new();
        match columns.iter().find(|column| !names.insert(column.name.to_ascii_lowercase())) {
            None => Ok(()),
            Some(column) => {
                let found = format!("two columns `{}` (case makes no difference)", column.name);
                Err(Error::argument(Parameter::Attributes, "columns of different names", found))
            }
        }
    }

    /// Columns, or the first of them, for people: names and types.
    pub(crate) fn list(columns: &[Column]) -> String {
        const MOST: usize = 50;
        let mut names: Vec<String> = columns.iter().take(MOST).map(ToString::to_string).collect();
        if columns.len() > MOST {
            names.push(format!("... ({} in all)", columns.len()));
        }
        names.join(", ")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_condition_could_use_are_refused() {
        for name in ["", "ID", "RowId", "a\"b", "a\nb", &"x".repeat(129)] {
            let error = Column::new(name, ColumnType::Text).unwrap_err().to_string();
            assert!(error.contains("attributes: expected names"), "{error}");
        }
        let column = |name: &str| Column::new(name, ColumnType::Real).unwrap();
        assert_eq!(column("release year").to_string(), "release year REAL");
        let error = Column::check_all(&[column("a"), column("b"), column("A")]).unwrap_err().to_string();
        assert!(error.contains("two columns `A`"), "{error}");
        Column::check_all(&[column("a"), column("b")]).unwrap();
        // As a file may have it.
        let escaped = [Column { name: "a\", (SELECT 1) AS \"b".to_string(), kind: ColumnType::Text }];
        let error = Column::check_all(&escaped).unwrap_err().to_string();
        assert!(error.contains("names of 1 to 128 bytes without double quotes"), "{error}");
    }
}
