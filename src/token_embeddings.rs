//! Token embeddings: several vectors for each query or item, a varying number of them, for late interaction.

use std::ops::Range;

use crate::error::Parameter;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The token embeddings (multi-vector representation) of n queries or items: at least one vector of width D each.
///
/// ```
/// use rails_wgpu::{Tensor, TokenEmbeddings};
///
/// # fn main() -> rails_wgpu::Result<()> {
/// // Two texts, of two tokens and of one.
/// let vectors = Tensor::from_rows([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]);
/// let texts = TokenEmbeddings::new(vectors, &[2, 1])?;
/// assert_eq!((texts.len(), texts.dim(), texts.vectors_of(1)), (2, 2, &[0.6, 0.8][..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TokenEmbeddings {
    /// (T, D)
    vectors: Tensor,
    /// (n + 1): the rows of each text begin and end here; strictly ascending.
    offsets: Vec<usize>,
}

impl TokenEmbeddings {
    /// The rows of `vectors` (T, D), `lengths` (n) of them for each query or item, one after the other.
    ///
    /// # Errors
    /// If `vectors` is no matrix, a length is 0, or the lengths do not add up to T.
    pub fn new(vectors: Tensor, lengths: &[usize]) -> Result<TokenEmbeddings> {
        if vectors.shape().len() != 2 || vectors.width() == 0 {
            let found = format!("{:?}", vectors.shape());
            return Err(Error::argument(Parameter::TokenEmbeddings, "shape (T, D) with D >= 1", found));
        }
        if let Some(at) = lengths.iter().position(|&length| length == 0) {
            return Err(Error::argument(Parameter::TokenLengths, "at least 1 token each", format!("0 at {at}")));
        }
        let mut offsets = vec![0];
        let mut end = 0usize;
        for &length in lengths {
            end = end.saturating_add(length);
            offsets.push(end);
        }
        if end != vectors.rows() {
            let expected = format!("lengths that add up to {}, the number of vectors", vectors.rows());
            return Err(Error::argument(Parameter::TokenLengths, expected, end));
        }
        Ok(TokenEmbeddings { vectors, offsets })
    }

    /// (T, D): all vectors.
    pub fn vectors(&self) -> &Tensor {
        &self.vectors
    }

    /// (n + 1): where the vectors of each one begin, and the end.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// n: number of queries or items.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// D.
    pub fn dim(&self) -> usize {
        self.vectors.width()
    }

    /// The rows of number `index`.
    ///
    /// # Panics
    /// If there is no such one.
    pub fn range(&self, index: usize) -> Range<usize> {
        self.offsets[index]..self.offsets[index + 1]
    }

    /// (length, D), row-major: the vectors of number `index`.
    ///
    /// # Panics
    /// If there is no such one.
    pub fn vectors_of(&self, index: usize) -> &[f32] {
        let range = self.range(index);
        &self.vectors.data()[range.start * self.dim()..range.end * self.dim()]
    }

    /// Some of them, in this order.
    ///
    /// # Panics
    /// If there is no such one.
    pub fn select(&self, indices: &[usize]) -> TokenEmbeddings {
        let rows: Vec<usize> = indices.iter().flat_map(|&index| self.range(index)).collect();
        let mut offsets = vec![0];
        offsets.extend(indices.iter().scan(0, |end, &index| {
            *end += self.range(index).len();
            Some(*end)
        }));
        TokenEmbeddings { vectors: self.vectors.select_rows(&rows), offsets }
    }

    /// Every vector as one of its own.
    pub(crate) fn single_vectors(&self) -> TokenEmbeddings {
        TokenEmbeddings { vectors: self.vectors.clone(), offsets: (0..=self.vectors.rows()).collect() }
    }

    /// (n, D): the sum of the vectors of each.
    pub(crate) fn sums(&self) -> Tensor {
        self.reduced(|_| 1.0)
    }

    /// (n, D): the mean of the vectors of each.
    pub(crate) fn means(&self) -> Tensor {
        self.reduced(|length| length as f32)
    }

    /// (n, D): the sum of the vectors of each, divided by the `divisor` of its length.
    fn reduced(&self, divisor: impl Fn(usize) -> f32) -> Tensor {
        let dim = self.dim();
        let mut data = Vec::with_capacity(self.len() * dim);
        for index in 0..self.len() {
            let from = data.len();
            data.resize(from + dim, 0.0f32);
            for row in self.vectors_of(index).chunks_exact(dim) {
                data[from..].iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
            let divisor = divisor(self.range(index).len());
            data[from..].iter_mut().for_each(|sum| *sum /= divisor);
        }
        Tensor::trusted(vec![self.len(), dim], data)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn lengths_divide_the_vectors_and_wrong_ones_are_refused() {
        let vectors = Tensor::from_rows([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0], [0.5, 0.25]]);
        let texts = TokenEmbeddings::new(vectors.clone(), &[1, 3]).unwrap();
        assert_eq!(texts.means(), Tensor::from_rows([[1.0, 2.0], [8.5 / 3.0, 13.25 / 3.0]]));
        assert_eq!(texts.sums().row(1), [8.5, 13.25]);
        let swapped = texts.select(&[1, 0, 0]);
        assert_eq!((swapped.offsets(), swapped.vectors_of(2)), (&[0, 3, 4, 5][..], &[1.0, 2.0][..]));
        assert_eq!(texts.single_vectors().len(), 4);
        for (lengths, words) in [(&[1, 0, 3][..], "0 at 1"), (&[4, 1], "found 5"), (&[], "found 0")] {
            let error = TokenEmbeddings::new(vectors.clone(), lengths).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(TokenEmbeddings::new(vectors, &[usize::MAX, 2]).is_err());
        assert!(TokenEmbeddings::new(Tensor::trusted(vec![4], vec![0.0; 4]), &[4]).is_err());
    }
}
