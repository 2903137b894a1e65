//! A dense, row-major f32 tensor on the host: what a checkpoint yields and a backend uploads.

use std::sync::Arc;

/// Dense row-major f32 values with their shape. Cloning shares the values.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Arc<Vec<f32>>,
}

impl Tensor {
    /// Wraps `data` of the given `shape`.
    ///
    /// # Panics
    /// If the number of values is not the product of the shape: a bug of the caller, never of user input.
    pub fn new(shape: Vec<usize>, data: Vec<f32>) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "tensor data does not fill its shape {shape:?}");
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
    pub fn select_rows(&self, rows: &[usize]) -> Tensor {
        let shape = [&[rows.len()], self.shape.get(1..).unwrap_or_default()].concat();
        Tensor::new(shape, rows.iter().flat_map(|&row| self.row(row)).copied().collect())
    }

    /// Row `row` as a slice of [`Tensor::width`] values.
    pub fn row(&self, row: usize) -> &[f32] {
        let width = self.width();
        &self.data[row * width..(row + 1) * width]
    }
}
