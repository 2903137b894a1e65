//! In place of `database.rs`, in programs without SQLite.

use roaring::RoaringBitmap;

use super::attribute_table::{Failure, Schema};
use super::{Condition, Value};
use crate::context::Cancel;
use crate::error::Parameter;
use crate::{Error, Result};

impl Schema {
    pub(super) fn database(&self, _: usize, _: impl FnMut(usize, &mut Vec<Value>) -> Result<()>) -> Result<Vec<u8>> {
        Err(missing())
    }

    pub(super) fn merged(&self, _: &[&[u8]], _: &[(usize, usize)]) -> Result<Vec<u8>, Failure> {
        Err(Failure::Other(missing()))
    }

    pub(super) fn matching(&self, _: &[u8], _: &Condition, _: &Cancel) -> Result<RoaringBitmap, Failure> {
        Err(Failure::Other(missing()))
    }
}

fn missing() -> Error {
    Error::argument(Parameter::Attributes, "a program that is built with the feature `attributes`", "one without")
}
