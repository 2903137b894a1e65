//! Attributes and conditions as Python has them.

use std::path::PathBuf;

use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use rails_wgpu::attributes::{ColumnValues, Value};
use rails_wgpu::{Attributes, Condition};

use crate::arrays::numbers;
use crate::errors::exception;

/// A file; or ids of items, and columns of their attributes with one value each.
#[derive(FromPyObject)]
pub enum GivenAttributes<'py> {
    File(PathBuf),
    Numbers(PyReadonlyArray1<'py, u64>, Vec<(String, GivenColumn)>),
    Strings(Vec<String>, Vec<(String, GivenColumn)>),
}

/// Values of a column; `None`: missing.
#[derive(FromPyObject)]
pub enum GivenColumn {
    Integers(Vec<Option<i64>>),
    Reals(Vec<Option<f64>>),
    Texts(Vec<Option<String>>),
}

/// A value of a parameter.
#[derive(FromPyObject)]
pub enum GivenValue {
    Integer(i64),
    Real(f64),
    Text(String),
}

/// The SQL of a condition, and values of its parameters.
pub type GivenCondition = (String, Vec<Option<GivenValue>>);

/// Reads a file, if it is one.
///
/// # Errors
/// If it cannot be read, or values do not fit.
pub fn attributes(given: GivenAttributes) -> PyResult<Attributes> {
    let (attributes, columns) = match given {
        GivenAttributes::File(path) => return Attributes::read(path).map_err(exception),
        GivenAttributes::Numbers(ids, columns) => (Attributes::new(numbers("ids", &ids)?), columns),
        GivenAttributes::Strings(ids, columns) => (Attributes::of_strings(ids), columns),
    };
    let add = |attributes: Attributes, (name, values): (String, GivenColumn)| {
        let values = match values {
            GivenColumn::Integers(values) => ColumnValues::Integers(values),
            GivenColumn::Reals(values) => ColumnValues::Reals(values),
            GivenColumn::Texts(values) => ColumnValues::Texts(values),
        };
        attributes.with_column(name, values)
    };
    columns.into_iter().try_fold(attributes, add).map_err(exception)
}

/// The conditions of a search.
///
/// # Errors
/// If one is no expression.
pub fn conditions(given: Vec<GivenCondition>) -> PyResult<Vec<Condition>> {
    let value = |value: Option<GivenValue>| match value {
        Some(GivenValue::Integer(value)) => Value::Integer(value),
        Some(GivenValue::Real(value)) => Value::Real(value),
        Some(GivenValue::Text(value)) => Value::Text(value),
        None => Value::Null,
    };
    let condition = |(sql, params): GivenCondition| Ok(Condition::new(sql)?.with_params(params.into_iter().map(value)));
    given.into_iter().map(condition).collect::<rails_wgpu::Result<_>>().map_err(exception)
}
