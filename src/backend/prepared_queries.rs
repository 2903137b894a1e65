//! A batch of queries, and what devices have computed of it.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use super::QueryBatch;

/// A batch on its way through the stages and segments of a search. The first scan or rescoring on a device computes the query
/// side of its similarity, which stays on the device and serves all that follow there.
///
/// ```
/// use rails_wgpu::{QueryBatch, Tensor};
///
/// let batch = QueryBatch::new(Tensor::from_rows([[1.0, 0.0], [0.6, 0.8]]));
/// let queries = batch.prepared();
/// assert_eq!((queries.batch().len(), queries.query_sides()), (2, 0));
/// ```
pub struct PreparedQueries<'a> {
    batch: &'a QueryBatch,
    sides: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
}

impl QueryBatch {
    /// These queries for the devices of a search, which have computed nothing yet.
    pub fn prepared(&self) -> PreparedQueries<'_> {
        PreparedQueries { batch: self, sides: Mutex::default() }
    }
}

impl PreparedQueries<'_> {
    /// The queries.
    pub fn batch(&self) -> &QueryBatch {
        self.batch
    }

    /// How many query sides have been computed so far: one for each device and similarity. The host counts as one where an
    /// algorithm has to know the components of queries.
    pub fn query_sides(&self) -> usize {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The query side that `is_it` is true of, made if there is none yet. Types of query sides are private to their backends: none
    /// finds what another one has made.
    pub(super) fn side<T: Any + Send + Sync>(&self, is_it: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> Arc<T> {
        let mut sides = self.sides.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = sides.iter().filter_map(|side| side.clone().downcast::<T>().ok());
        if let Some(side) = known.find(|side| is_it(side)) {
            return side;
        }
        let side = Arc::new(make());
        sides.push(side.clone());
        side
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;

    #[test]
    fn each_query_side_is_made_once() {
        let batch = QueryBatch::new(Tensor::from_rows([[1.0]]));
        let queries = batch.prepared();
        let side = |device: u32| queries.side(move |made: &(u32, &str)| made.0 == device, || (device, "made"));
        assert!(Arc::ptr_eq(&side(1), &side(1)));
        assert_eq!((side(2).0, queries.query_sides()), (2, 2));
        assert_eq!(*queries.side(|_: &u32| true, || 7), 7, "of another type");
        assert_eq!(queries.query_sides(), 3);
    }
}
