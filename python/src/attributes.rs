//! Attributes and conditions as Python has them.

use std::path::PathBuf;

use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use rails_wgpu::attributes::{ColumnValues, Value};
use rails_wgpu::{Attributes, Condition};

use crate::arrays::numbers;
use crate::errors::exception;

/// A file; or ids of items, and columns of their attributes.
#[derive(FromPyObject)]
pub enum GivenAttributes<'py> {
    File(PathBuf),
    Numbers(PyReadonlyArray1<'py, u64>, Vec<GivenColumn<'py>>),
    Strings(Vec<String>, Vec<GivenColumn<'py>>),
}

/// The name of a column, the type of its values, and a list of one value per item; `None`: missing.
pub type GivenColumn<'py> = (String, String, Bound<'py, PyAny>);

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
    let add = |attributes: Attributes, (name, kind, values): GivenColumn| {
        let values = match kind.as_str() {
            "INTEGER" => ColumnValues::Integers(values.extract()?),
            "REAL" => ColumnValues::Reals(values.extract()?),
            _ => ColumnValues::Texts(values.extract()?),
        };
        attributes.with_column(name, values).map_err(exception)
    };
    columns.into_iter().try_fold(attributes, add)
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
