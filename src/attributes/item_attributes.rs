//! Attributes on their way into an index.

use std::collections::HashSet;

use super::{Column, ColumnType, Value};
use crate::error::Parameter;
use crate::{Error, Result};

/// Longest text, in bytes: what a condition can look through in no time.
pub(super) const LONGEST_TEXT: usize = 1 << 16;

/// Attributes of some items: columns with one value per item, which may be missing.
///
/// ```
/// use rails_wgpu::attributes::Attributes;
///
/// # fn main() -> rails_wgpu::Result<()> {
/// let attributes = Attributes::new(vec![10, 20, 30])
///     .with_column("year", vec![Some(1994), None, Some(2001)])?
///     .with_column("genre", vec!["Comedy", "Drama", "Comedy"])?;
/// assert_eq!(attributes.len(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Attributes {
    keys: ItemKeys,
    columns: Vec<Column>,
    values: Vec<ColumnValues>,
}

/// What items are called.
#[derive(Clone, Debug)]
pub enum ItemKeys {
    /// By numbers.
    Numbers(Vec<u64>),
    /// By strings.
    Strings(Vec<String>),
}

/// Values of an attribute, one per item; `None`: missing.
#[derive(Clone, Debug)]
pub enum ColumnValues {
    /// Whole numbers.
    Integers(Vec<Option<i64>>),
    /// Finite numbers.
    Reals(Vec<Option<f64>>),
    /// Texts; in a column of numbers what a file has in their place.
    Texts(Vec<Option<String>>),
}

impl Attributes {
    /// Of items `ids` (N), without columns yet.
    pub fn new(ids: Vec<u64>) -> Attributes {
        Attributes { keys: ItemKeys::Numbers(ids), columns: Vec::new(), values: Vec::new() }
    }

    /// Of items that have string ids (N).
    pub fn of_strings(ids: Vec<String>) -> Attributes {
        Attributes { keys: ItemKeys::Strings(ids), columns: Vec::new(), values: Vec::new() }
    }

    /// One column more; its type is that of the values.
    ///
    /// # Errors
    /// If there is not one value per item, the name is taken or unusable, a number is not finite, or a text is longer than 64 KiB or
    /// has a zero byte.
    pub fn with_column(self, name: impl Into<String>, values: impl Into<ColumnValues>) -> Result<Attributes> {
        let values = values.into();
        let kind = match values {
            ColumnValues::Integers(_) => ColumnType::Integer,
            ColumnValues::Reals(_) => ColumnType::Real,
            ColumnValues::Texts(_) => ColumnType::Text,
        };
        self.with_typed_column(Column::new(name, kind)?, values)
    }

    /// The same; texts are allowed in any column.
    pub(super) fn with_typed_column(mut self, column: Column, values: ColumnValues) -> Result<Attributes> {
        let wrong = |expected: String, found: String| {
            let found = format!("{found} in column `{}`", column.name);
            Err(Error::argument(Parameter::Attributes, expected, found))
        };
        if values.len() != self.len() {
            return wrong(format!("{} values, one per item", self.len()), values.len().to_string());
        }
        if let ColumnValues::Reals(reals) = &values
            && let Some(real) = reals.iter().flatten().find(|real| !real.is_finite())
        {
            return wrong("finite numbers (or none, where a value is missing)".to_string(), real.to_string());
        }
        if let ColumnValues::Texts(texts) = &values {
            if let Some(text) = texts.iter().flatten().find(|text| text.len() > LONGEST_TEXT) {
                return wrong(format!("texts of up to {LONGEST_TEXT} bytes"), format!("one of {}", text.len()));
            }
            if texts.iter().flatten().any(|text| text.contains('\0')) {
                return wrong("texts without zero bytes".to_string(), "one".to_string());
            }
        }
        self.columns.push(column);
        self.values.push(values);
        Column::check_all(&self.columns)?;
        Ok(self)
    }

    /// Those of these items only.
    #[must_use]
    pub fn only(self, ids: &[u64]) -> Attributes {
        let wanted: HashSet<u64> = ids.iter().copied().collect();
        let rows: Vec<usize> = match &self.keys {
            ItemKeys::Numbers(ids) => (0..ids.len()).filter(|&row| wanted.contains(&ids[row])).collect(),
            // These are none of numbers, and stay to be refused.
            ItemKeys::Strings(_) => return self,
        };
        if rows.len() == self.len() {
            return self;
        }
        let keys = match self.keys {
            ItemKeys::Numbers(ids) => ItemKeys::Numbers(rows.iter().map(|&row| ids[row]).collect()),
            strings => strings,
        };
        let values = self.values.iter().map(|values| values.select(&rows)).collect();
        Attributes { keys, columns: self.columns, values }
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        match &self.keys {
            ItemKeys::Numbers(ids) => ids.len(),
            ItemKeys::Strings(ids) => ids.len(),
        }
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ids of the items.
    pub fn keys(&self) -> &ItemKeys {
        &self.keys
    }

    /// Names and types of the attributes.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// For each of `wanted`, the columns of a table, where it is here; an attribute that is not here is missing everywhere.
    ///
    /// # Errors
    /// If there is a column here that is not wanted, or of a type whose values do not fit.
    pub(crate) fn places(&self, wanted: &[Column]) -> Result<Vec<Option<usize>>> {
        let fits = |(own, values): (&Column, &ColumnValues), other: &Column| match (own.kind, other.kind) {
            (own, other) if own == other => true,
            (ColumnType::Integer, ColumnType::Real) => true,
            // As they are in a file.
            (_, ColumnType::Text) if matches!(values, ColumnValues::Texts(_)) => true,
            _ => values.are_missing(),
        };
        let own = || self.columns.iter().zip(&self.values);
        let stranger = own().find(|own| !wanted.iter().any(|other| other.is_called(&own.0.name) && fits(*own, other)));
        match stranger {
            None => Ok(wanted.iter().map(|other| self.columns.iter().position(|c| c.is_called(&other.name))).collect()),
            Some((column, _)) => {
                let expected = format!("attributes of the index: {}", Column::list(wanted));
                Err(Error::argument(Parameter::Attributes, expected, format!("`{column}`")))
            }
        }
    }

    /// A value, in a column of a table of type `kind`.
    pub(crate) fn value(&self, column: usize, row: usize, kind: ColumnType) -> Value {
        match (&self.values[column], kind) {
            (ColumnValues::Integers(values), ColumnType::Real) => values[row].map(|value| value as f64).into(),
            (ColumnValues::Integers(values), _) => values[row].into(),
            (ColumnValues::Reals(values), _) => values[row].into(),
            (ColumnValues::Texts(values), kind) => values[row].as_deref().map_or(Value::Null, |text| match kind {
                ColumnType::Integer => text.parse::<i64>().ok().into(),
                ColumnType::Real => text.parse::<f64>().ok().into(),
                ColumnType::Text => text.into(),
            }),
        }
    }
}

impl ColumnValues {
    fn select(&self, rows: &[usize]) -> ColumnValues {
        match self {
            ColumnValues::Integers(values) => ColumnValues::Integers(rows.iter().map(|&row| values[row]).collect()),
            ColumnValues::Reals(values) => ColumnValues::Reals(rows.iter().map(|&row| values[row]).collect()),
            ColumnValues::Texts(values) => ColumnValues::Texts(rows.iter().map(|&row| values[row].clone()).collect()),
        }
    }

    /// Whether there is no value, so that nothing says of which type they are.
    fn are_missing(&self) -> bool {
        match self {
            ColumnValues::Integers(values) => values.iter().all(Option::is_none),
            ColumnValues::Reals(values) => values.iter().all(Option::is_none),
            ColumnValues::Texts(values) => values.iter().all(Option::is_none),
        }
    }

    fn len(&self) -> usize {
        match self {
            ColumnValues::Integers(values) => values.len(),
            ColumnValues::Reals(values) => values.len(),
            ColumnValues::Texts(values) => values.len(),
        }
    }
}

macro_rules! column_values {
    ($($type:ty => $variant:ident),*) => {
        $(impl From<Vec<$type>> for ColumnValues {
            fn from(values: Vec<$type>) -> ColumnValues {
                ColumnValues::$variant(values.into_iter().map(|value| Some(value.into())).collect())
            }
        }

        impl From<Vec<Option<$type>>> for ColumnValues {
            fn from(values: Vec<Option<$type>>) -> ColumnValues {
                ColumnValues::$variant(values.into_iter().map(|value| value.map(Into::into)).collect())
            }
        })*
    };
}
column_values!(i64 => Integers, i32 => Integers, u32 => Integers, bool => Integers, f64 => Reals, f32 => Reals, &str => Texts, String => Texts);

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_are_refused() {
        let refused = |values: ColumnValues, word: &str| {
            let error = Attributes::new(vec![1, 2]).with_column("x", values).unwrap_err().to_string();
            assert!(error.starts_with("attributes: ") && error.contains(word), "{error}");
        };
        refused(vec![1, 2, 3].into(), "expected 2 values, one per item, found 3 in column `x`");
        refused(vec![1.0, f64::NAN].into(), "NaN in column `x`");
        refused(vec![1.0, f64::INFINITY].into(), "inf in column `x`");
        refused(vec!["a", "b\0"].into(), "zero bytes");
        refused(vec!["a".to_string(), "b".repeat(1 << 16) + "b"].into(), "one of 65537");
        let twice = Attributes::new(vec![1]).with_column("x", vec![1]).unwrap().with_column("X", vec![1]);
        assert!(twice.unwrap_err().to_string().contains("two columns `X`"));
    }

    #[test]
    fn columns_go_where_they_fit() {
        let column = |name: &str, kind| Column::new(name, kind).unwrap();
        let table = [column("year", ColumnType::Real), column("genre", ColumnType::Text)];
        let some = Attributes::new(vec![1]).with_column("YEAR", vec![1990]).unwrap();
        assert_eq!(some.places(&table).unwrap(), [Some(0), None]);
        assert_eq!(some.value(0, 0, ColumnType::Real), Value::Real(1990.0));
        let missing = Attributes::new(vec![1]).with_column("genre", vec![None::<i64>]).unwrap();
        assert_eq!(
            (missing.places(&table).unwrap(), missing.value(0, 0, ColumnType::Text)),
            (vec![None, Some(0)], Value::Null)
        );
        let refused = |attributes: Attributes| attributes.places(&table).unwrap_err().to_string();
        let text = Attributes::new(vec![1]).with_column("year", vec!["old"]).unwrap();
        assert!(refused(text).contains("attributes of the index: year REAL, genre TEXT, found `year TEXT`"));
        assert!(refused(Attributes::new(vec![1]).with_column("genre", vec![3]).unwrap()).contains("`genre INTEGER`"));
        assert!(refused(Attributes::new(vec![1]).with_column("price", vec![3]).unwrap()).contains("`price INTEGER`"));
        let missing = Attributes::new(vec![1]).with_column("genre", vec![None::<i64>]).unwrap();
        let missing = missing.with_column("year", vec![None::<String>]).unwrap();
        assert_eq!(missing.places(&table).unwrap(), [Some(1), Some(0)]);
        assert_eq!(missing.value(0, 0, ColumnType::Text), Value::Null);
    }
}
