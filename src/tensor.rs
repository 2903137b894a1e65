//! A dense, row-major f32 tensor on the host: what a checkpoint yields and a backend uploads.

use std::sync::Arc;

use crate::error::Parameter;
use crate::{Error, Result};

/// Dense row-major f32 values with their shape. Cloning shares the values.
///
/// ```
/// use rails_wgpu::Tensor;
///
/// # fn main() -> rails_wgpu::Result<()> {
/// let tensor = Tensor::new(vec![2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// assert_eq!(tensor, Tensor::from_rows([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]));
/// assert_eq!((tensor.rows(), tensor.width(), tensor.row(1)), (2, 3, &[4.0, 5.0, 6.0][..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Arc<Vec<f32>>,
}

impl Tensor {
    /// Wraps `data`, row-major, of the given `shape`, without copying.
    ///
    /// # Errors
    /// If the number of values is not the product of the shape.
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Result<Tensor> {
        let shape = shape.into();
        let n_values = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
        if n_values != Some(data.len()) {
            let n_values = n_values.map_or("more than fit memory".to_string(), |n| n.to_string());
            return Err(Error::argument(
                Parameter::Tensor,
                format!("{n_values} values for shape {shape:?}"),
                data.len(),
            ));
        }
        Ok(Tensor { shape, data: Arc::new(data) })
    }

    /// A matrix (R, C) of literals.
    pub fn from_rows<const R: usize, const C: usize>(rows: [[f32; C]; R]) -> Tensor {
        Tensor::trusted(vec![R, C], rows.concat())
    }

    /// [`Tensor::new`] for data that this crate has made itself.
    pub(crate) fn trusted(shape: Vec<usize>, data: Vec<f32>) -> Tensor {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len(), "tensor data does not fill its shape {shape:?}");
        Tensor { shape, data: Arc::new(data) }
    }

    /// The extent of each axis, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// All values, last axis contiguous.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The shared values themselves.
    pub fn into_shared(self) -> Arc<Vec<f32>> {
        self.data
    }

    /// Number of rows: the extent of the first axis.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Values in one row: the product of all axes but the first.
    pub fn width(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Some rows, in this order.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn select_rows(&self, rows: &[usize]) -> Tensor {
        let shape = [&[rows.len()], self.shape.get(1..).unwrap_or_default()].concat();
        Tensor::trusted(shape, rows.iter().flat_map(|&row| self.row(row)).copied().collect())
    }

    /// Row `row` as a slice of [`Tensor::width`] values.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &[f32] {
        let width = self.width();
        &self.data[row * width..(row + 1) * width]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn values_must_fill_the_shape() {
        let says = |shape: &[usize], n: usize| Tensor::new(shape, vec![0.0; n]).unwrap_err().to_string();
        assert_eq!(says(&[2, 3], 5), "tensor: expected 6 values for shape [2, 3], found 5");
        assert!(says(&[usize::MAX, 2], 0).contains("more than fit memory"));
        assert_eq!(Tensor::new([0, 3], Vec::new()).unwrap().rows(), 0);
        assert_eq!(Tensor::new(Vec::new(), vec![7.0]).unwrap().data(), [7.0]);
    }
}
