//! The token embeddings of items by the centroids nearest to them.

use std::ops::Range;

use super::values::Bytes;
use crate::tensor::Tensor;

/// Most centroids.
pub const MOST_CENTROIDS: usize = 1 << 16;

/// Each vector of an item stands for the centroid nearest to it, each centroid once.
pub struct TokenCodes {
    centroids: Tensor,
    /// (N + 1): where the codes of each item begin, and the end.
    offsets: Bytes<u64>,
    /// Numbers of centroids, ascending within an item.
    codes: Bytes<u16>,
}

impl std::fmt::Debug for TokenCodes {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} codes of {} centroids", self.codes.as_slice().len(), self.centroids.rows())
    }
}

impl TokenCodes {
    /// Of `centroids` (C, D), of which there are at most [`MOST_CENTROIDS`], and the number of one for each vector, with the rows of
    /// each item.
    pub fn new(centroids: Tensor, assigned: &[u32], items: impl Iterator<Item = Range<usize>>) -> TokenCodes {
        let (mut offsets, mut codes) = (vec![0u64], Vec::new());
        for rows in items {
            let mut own: Vec<u16> = assigned[rows].iter().map(|&centroid| centroid as u16).collect();
            own.sort_unstable();
            own.dedup();
            codes.extend(own);
            offsets.push(codes.len() as u64);
        }
        TokenCodes { centroids, offsets: Bytes::Owned(offsets.into()), codes: Bytes::Owned(codes.into()) }
    }

    /// Of what was stored; `None` if offsets do not ascend strictly from 0 to the number of codes, or a code names no centroid.
    pub fn from_parts(centroids: Tensor, offsets: Bytes<u64>, codes: Bytes<u16>) -> Option<TokenCodes> {
        let (ends, all) = (offsets.as_slice(), codes.as_slice());
        let fits = ends.first() == Some(&0) && ends.last() == Some(&(all.len() as u64));
        let known = all.iter().all(|&code| usize::from(code) < centroids.rows());
        (fits && known && ends.is_sorted_by(|a, b| a < b)).then_some(TokenCodes { centroids, offsets, codes })
    }

    /// (C, D)
    pub fn centroids(&self) -> &Tensor {
        &self.centroids
    }

    /// (N + 1)
    pub fn offsets(&self) -> &[u64] {
        self.offsets.as_slice()
    }

    /// All codes, those of an item one after the other.
    pub fn codes(&self) -> &[u16] {
        self.codes.as_slice()
    }

    /// The codes of the item at `position`.
    #[inline]
    pub fn of(&self, position: usize) -> &[u16] {
        let offsets = self.offsets();
        &self.codes()[offsets[position] as usize..offsets[position + 1] as usize]
    }

    /// Bytes of all of it.
    pub fn bytes(&self) -> u64 {
        (size_of_val(self.centroids.data()) + size_of_val(self.offsets()) + size_of_val(self.codes())) as u64
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_item_has_each_of_its_centroids_once() {
        let centroids = Tensor::from_rows([[0.0], [1.0], [2.0]]);
        let codes = TokenCodes::new(centroids.clone(), &[2, 0, 2, 1, 1], [0..3, 3..5].into_iter());
        assert_eq!((codes.of(0), codes.of(1)), (&[0, 2][..], &[1][..]));
        let parts = |offsets: Vec<u64>, codes: Vec<u16>| {
            TokenCodes::from_parts(centroids.clone(), Bytes::Owned(offsets.into()), Bytes::Owned(codes.into()))
        };
        assert_eq!(parts(vec![0, 2, 3], vec![0, 2, 1]).unwrap().of(0), [0, 2]);
        for (offsets, codes) in
            [(vec![0, 2, 4], vec![0, 2, 1]), (vec![0, 2, 2, 3], vec![0, 2, 1]), (vec![0, 1], vec![3])]
        {
            assert!(parts(offsets, codes).is_none());
        }
    }
}
