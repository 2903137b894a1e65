//! Tensors of a shard with the type and the shape that they must have.

use std::sync::Arc;

use super::content::damaged;
use crate::Result;
use crate::store::{Dtype as Element, MappedTensor, Shard, ShardWriter, TensorSpec, Value};
use crate::tables::{Dtype, Foreign, Table, Values};
use crate::tensor::Tensor;

/// A tensor to be written, and its bytes.
pub(super) struct Part<'a> {
    pub spec: TensorSpec,
    pub bytes: &'a [u8],
}

impl<'a> Part<'a> {
    pub fn new<T: Value>(name: impl Into<String>, shape: &[usize], values: &'a [T]) -> Part<'a> {
        let spec = TensorSpec { name: name.into(), dtype: T::DTYPE, shape: shape.to_vec() };
        Part { spec, bytes: bytemuck::cast_slice(values) }
    }

    /// The numbers of `table`, and its scales if it has any.
    pub fn of_table(name: &str, table: &'a Table) -> Vec<Part<'a>> {
        let parts = table.parts();
        let shape = vec![table.rows(), table.width()];
        let spec = TensorSpec { name: name.to_string(), dtype: element(table.dtype()), shape };
        let mut all = vec![Part { spec, bytes: parts.values }];
        if let Some(bytes) = parts.scales {
            let shape = vec![table.rows(), table.groups()];
            all.push(Part { spec: TensorSpec { name: scales_of(name), dtype: Element::F32, shape }, bytes });
        }
        all
    }
}

/// Writes all parts and ends the file.
pub(super) fn write(mut file: ShardWriter<'_>, parts: &[Part]) -> Result<String> {
    parts.iter().try_for_each(|part| file.write(&part.spec.name, part.bytes))?;
    file.finish()
}

/// The tensor `name` of this type and shape; an extent of `None` may be any.
pub(super) fn tensor(shard: &Shard, name: &str, dtype: Element, shape: &[Option<usize>]) -> Result<MappedTensor> {
    let tensor = shard.tensor(name)?;
    let fits = |(found, expected): (&usize, &Option<usize>)| expected.is_none_or(|expected| expected == *found);
    let same = tensor.shape().len() == shape.len() && tensor.shape().iter().zip(shape).all(fits);
    if tensor.dtype() != dtype || !same {
        let extent = |extent: &Option<usize>| extent.map_or("any".to_string(), |extent| extent.to_string());
        let expected = shape.iter().map(extent).collect::<Vec<_>>().join(", ");
        let (found, shape) = (tensor.dtype(), tensor.shape());
        let what = format!("tensor `{name}`: expected {dtype:?} of shape [{expected}], found {found:?} of {shape:?}");
        return Err(damaged(shard.path(), what));
    }
    Ok(tensor)
}

/// The values of a tensor, all of whose bytes are compared with their checksums.
pub(super) fn checked<T: Value>(shard: &Shard, name: &str, shape: &[Option<usize>]) -> Result<MappedTensor> {
    shard.check(name)?;
    tensor(shard, name, T::DTYPE, shape)
}

/// A small tensor of finite numbers, checked and copied.
pub(super) fn floats(shard: &Shard, name: &str, shape: &[Option<usize>]) -> Result<Tensor> {
    let tensor = checked::<f32>(shard, name, shape)?;
    let values = tensor.values::<f32>().unwrap_or_default();
    finite(shard, name, values)?;
    Ok(Tensor::trusted(tensor.shape().to_vec(), values.to_vec()))
}

/// A table in place, as large as `like` but for its rows; `check`: whether to read it.
pub(super) fn table(shard: &Shard, name: &str, rows: usize, like: &Table, check: bool) -> Result<Table> {
    let (groups, width) = (like.groups(), like.group_width());
    let shape = [Some(rows), Some(like.width())];
    let values: Foreign = Arc::new(tensor(shard, name, element(like.dtype()), &shape)?);
    let scales = match like.dtype() {
        Dtype::I8 => {
            let scales = tensor(shard, &scales_of(name), Element::F32, &[Some(rows), Some(groups)])?;
            Some(Arc::new(scales) as Foreign)
        }
        Dtype::F32 | Dtype::F16 => None,
    };
    let unusable = || damaged(shard.path(), format!("tensor `{name}` cannot be used in place"));
    let table = Table::foreign(groups, width, like.dtype(), values, scales).ok_or_else(unusable)?;
    if check {
        shard.check(name)?;
        match table.values() {
            Values::F32(values) => finite(shard, name, values.as_slice())?,
            Values::F16(values) => {
                let bad = values.as_slice().iter().position(|value| !value.is_finite());
                bad.map_or(Ok(()), |at| Err(not_finite(shard, name, at)))?;
            }
            Values::I8(_) => {
                shard.check(&scales_of(name))?;
                finite(shard, &scales_of(name), table.scales())?;
            }
        }
    }
    Ok(table)
}

fn finite(shard: &Shard, name: &str, values: &[f32]) -> Result<()> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(not_finite(shard, name, at)),
    }
}

fn not_finite(shard: &Shard, name: &str, at: usize) -> crate::Error {
    damaged(shard.path(), format!("tensor `{name}`: value {at} is not a finite number"))
}

fn scales_of(name: &str) -> String {
    format!("{name}.scales")
}

fn element(dtype: Dtype) -> Element {
    match dtype {
        Dtype::F32 => Element::F32,
        Dtype::F16 => Element::F16,
        Dtype::I8 => Element::I8,
    }
}
