//! The numbers of a table, wherever they lie.

use std::fmt;
use std::sync::Arc;

use half::f16;

use crate::error::Parameter;
use crate::names::names;

use super::pages::Pages;

/// Number format of the tables of an index. Sums are in f32, those of inner products with 8-bit vectors in integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// 16-bit floats: half the memory; values are rounded to 11 significant bits. Items with magnitudes beyond 65504, or whose
    /// components or gate part have such, are refused.
    F16,
    /// 8-bit integers with one f32 scale per vector: a quarter of the memory; a value is off by up to 1/254 of the
    /// largest magnitude of its vector. For inner products a query becomes integers too, of 16 bits: a number of it is off
    /// by up to 1/32512 of the largest magnitude of its vector, an inner product with an item x by that times the sum of
    /// |x|. All devices find the same scores, to the bit,
    /// unless numbers are so small (1e-36 and less) that a device takes them for zero.
    I8,
}

names!(Dtype, Parameter::Dtype, { F32: "f32", F16: "f16", I8: "int8" | "i8" });

impl Dtype {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 => 2,
            Dtype::I8 => 1,
        }
    }
}

/// Memory that somebody else owns, such as a mapped file.
pub type Foreign = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Numbers in memory of our own, or of somebody else.
pub enum Bytes<T> {
    /// Our own.
    Owned(Pages<T>),
    /// Little-endian numbers, aligned for `T`.
    Foreign(Foreign),
}

impl<T: bytemuck::Pod> Bytes<T> {
    /// The numbers.
    #[inline]
    pub fn as_slice(&self) -> &[T] {
        match self {
            Bytes::Owned(values) => values.as_slice(),
            Bytes::Foreign(bytes) => bytemuck::cast_slice((**bytes).as_ref()),
        }
    }

    /// Changes the numbers; those that somebody else owns are copied first.
    pub fn change(&mut self, change: impl FnOnce(&mut Pages<T>)) {
        if let Bytes::Foreign(_) = self {
            *self = Bytes::Owned(self.as_slice().to_vec().into());
        }
        if let Bytes::Owned(values) = self {
            change(values);
        }
    }

    /// Appends.
    pub fn extend(&mut self, more: impl ExactSizeIterator<Item = T>) {
        self.change(|values| values.extend(more));
    }
}

/// The numbers of a table.
pub enum Values {
    /// 32-bit floats.
    F32(Bytes<f32>),
    /// 16-bit floats.
    F16(Bytes<f16>),
    /// 8-bit integers.
    I8(Bytes<i8>),
}

impl Values {
    /// The numbers as little-endian bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Values::F32(values) => bytemuck::cast_slice(values.as_slice()),
            Values::F16(values) => bytemuck::cast_slice(values.as_slice()),
            Values::I8(values) => bytemuck::cast_slice(values.as_slice()),
        }
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = match self {
            Values::F32(_) => "f32",
            Values::F16(_) => "f16",
            Values::I8(_) => "i8",
        };
        write!(f, "{} bytes of {kind}", self.as_bytes().len())
    }
}
