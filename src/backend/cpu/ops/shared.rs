//! Arrays of the CPU backend, and the pool that training takes them from.

use std::collections::BTreeMap;
use std::mem;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// A device array of the CPU backend: shared host memory, which goes back to its pool, if it is from one, when the last owner drops it.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    values: Arc<Vec<f32>>,
    pool: Option<Arc<Pool>>,
}

impl From<Arc<Vec<f32>>> for Shared {
    fn from(values: Arc<Vec<f32>>) -> Shared {
        Shared { values, pool: None }
    }
}

impl Shared {
    /// The values to be changed: a copy of them, if there are other owners.
    pub fn make_mut(&mut self) -> &mut [f32] {
        if Arc::get_mut(&mut self.values).is_none() {
            let mut copy = self.pool.as_ref().map_or_else(Vec::new, |pool| pool.take(self.values.len()));
            copy.clear();
            copy.extend_from_slice(&self.values);
            self.values = Arc::new(copy);
        }
        // Nobody else has it now, so that nothing is cloned.
        Arc::<Vec<f32>>::make_mut(&mut self.values)
    }
}

impl Deref for Shared {
    type Target = [f32];

    #[inline]
    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let (Some(pool), Some(values)) = (&self.pool, Arc::get_mut(&mut self.values)) {
            pool.give(mem::take(values));
        }
    }
}

/// Memory of arrays that are no longer needed. The steps of a training need arrays of about the same sizes again and again.
#[derive(Debug, Default)]
pub struct Pool {
    /// By capacity.
    free: Mutex<BTreeMap<usize, Vec<Vec<f32>>>>,
}

impl Pool {
    /// Arrays shorter than this are left to the allocator.
    const LEAST: usize = 1024;

    /// A vector of this length whose values are unspecified: zeros or what an earlier one held.
    fn take(&self, len: usize) -> Vec<f32> {
        if len < Pool::LEAST {
            return vec![0.0; len];
        }
        // Capacities of eight sizes between powers of two, so that batches of other lengths find room, too.
        let capacity = len.next_multiple_of((len.next_power_of_two() / 16).max(1));
        let found = self.free.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&capacity).and_then(Vec::pop);
        let mut values = found.unwrap_or_else(|| Vec::with_capacity(capacity));
        values.resize(len, 0.0);
        values
    }

    fn give(&self, values: Vec<f32>) {
        if values.len() >= Pool::LEAST {
            self.free.lock().unwrap_or_else(PoisonError::into_inner).entry(values.capacity()).or_default().push(values);
        }
    }
}

/// Where new arrays come from.
#[derive(Clone, Debug, Default)]
pub struct Memory(Option<Arc<Pool>>);

impl Memory {
    /// A pool of its own.
    pub fn pooled() -> Memory {
        Memory(Some(Arc::default()))
    }

    /// An array of this length whose values are unspecified.
    pub fn unspecified(&self, len: usize) -> Shared {
        let values = self.0.as_ref().map_or_else(|| vec![0.0; len], |pool| pool.take(len));
        Shared { values: Arc::new(values), pool: self.0.clone() }
    }

    /// An array of zeros.
    pub fn zeros(&self, len: usize) -> Shared {
        let mut array = self.unspecified(len);
        if self.0.is_some() {
            array.make_mut().fill(0.0);
        }
        array
    }

    /// The gradient that is there, or zeros of this length.
    pub fn gradient<'a>(&self, gradient: &'a mut Option<Shared>, len: usize) -> &'a mut [f32] {
        gradient.get_or_insert_with(|| self.zeros(len)).make_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_dropped_arrays_is_used_again() {
        let memory = Memory::pooled();
        let mut first = memory.zeros(5000);
        first.make_mut()[4999] = 1.0;
        let (place, second) = (first.as_ptr(), first.clone());
        drop(first);
        assert_eq!((second[4999], second.as_ptr()), (1.0, place));
        drop(second);
        // One a little shorter, and zeros where zeros are asked for.
        let third = memory.zeros(4990);
        assert_eq!((third.as_ptr(), third.iter().sum::<f32>(), third.len()), (place, 0.0, 4990));
        assert_ne!(memory.zeros(5000).as_ptr(), place);
    }

    #[test]
    fn an_array_with_two_owners_is_copied_before_it_changes() {
        for memory in [Memory::default(), Memory::pooled()] {
            let first = memory.zeros(2000);
            let mut second = first.clone();
            second.make_mut()[0] = 3.0;
            assert_eq!((first[0], second[0], second.len()), (0.0, 3.0, 2000));
            let place = second.as_ptr();
            second.make_mut()[1] = 4.0;
            assert_eq!(second.as_ptr(), place);
        }
        let host = Arc::new(vec![1.0, 2.0]);
        let mut shared = Shared::from(host.clone());
        shared.make_mut()[0] = 5.0;
        assert_eq!((host[0], shared[0]), (1.0, 5.0));
    }
}
