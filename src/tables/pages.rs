//! A growing array of numbers in huge pages.

use memmap2::MmapMut;

/// Bytes from which on an array is worth pages of its own.
const LARGE: usize = 4 << 20;

/// A vector of numbers that, once it is large, lies in huge pages where the system has them. A scan of small ones stops at each of
/// them, since prefetchers know no addresses beyond, and every random row of a large table costs a walk through page tables.
pub struct Pages<T> {
    place: Place<T>,
    len: usize,
}

enum Place<T> {
    /// Room is the length: what is beyond `len` is zeros.
    Heap(Vec<T>),
    Map(MmapMut),
}

impl<T> Default for Pages<T> {
    fn default() -> Pages<T> {
        Pages::from(Vec::new())
    }
}

impl<T> From<Vec<T>> for Pages<T> {
    fn from(values: Vec<T>) -> Pages<T> {
        let len = values.len();
        Pages { place: Place::Heap(values), len }
    }
}

impl<T: bytemuck::Pod> Pages<T> {
    /// The numbers.
    #[inline]
    pub fn as_slice(&self) -> &[T] {
        match &self.place {
            Place::Heap(values) => &values[..self.len],
            Place::Map(map) => &bytemuck::cast_slice(map)[..self.len],
        }
    }

    /// The numbers, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        match &mut self.place {
            Place::Heap(values) => &mut values[..self.len],
            Place::Map(map) => &mut bytemuck::cast_slice_mut(map)[..self.len],
        }
    }

    /// Appends.
    pub fn extend(&mut self, more: impl ExactSizeIterator<Item = T>) {
        self.reserve(more.len());
        let room = match &mut self.place {
            Place::Heap(values) => &mut values[self.len..],
            Place::Map(map) => &mut bytemuck::cast_slice_mut(map)[self.len..],
        };
        self.len += room.iter_mut().zip(more).map(|(place, value)| *place = value).count();
    }

    /// Makes room for `more` numbers: just so many at first, then at least as many as there are.
    pub fn reserve(&mut self, more: usize) {
        let capacity = match &self.place {
            Place::Heap(values) => values.len(),
            Place::Map(map) => map.len() / size_of::<T>(),
        };
        if self.len + more <= capacity {
            return;
        }
        let capacity = (self.len + more).max(2 * self.len);
        let bytes = capacity * size_of::<T>();
        if bytes >= LARGE
            && let Some(mut map) = huge_pages(bytes)
        {
            bytemuck::cast_slice_mut(&mut map)[..self.len].copy_from_slice(self.as_slice());
            self.place = Place::Map(map);
            return;
        }
        if let Place::Map(_) = &self.place {
            self.place = Place::Heap(self.as_slice().to_vec());
        }
        if let Place::Heap(values) = &mut self.place {
            values.resize(capacity, T::zeroed());
        }
    }
}

/// Zeros; nothing where memory cannot be had in this way.
fn huge_pages(bytes: usize) -> Option<MmapMut> {
    let map = MmapMut::map_anon(bytes).ok()?;
    // Without huge pages, small ones do as well.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Some(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_stays_what_it_is_as_it_grows_into_pages() {
        let mut pages = Pages::<u16>::from(vec![7, 8]);
        let mut expected = vec![7u16, 8];
        for step in [0, 1, 5, 1000, LARGE / 2, 3, LARGE] {
            let more = (0..step).map(|i| (i * 31) as u16);
            expected.extend(more.clone());
            pages.extend(more);
            assert_eq!(pages.as_slice().len(), expected.len());
            assert!(pages.as_slice() == expected, "after {step} more");
        }
        assert!(matches!(pages.place, Place::Map(_)));
        assert!(matches!(Pages::<f32>::default().place, Place::Heap(_)));
    }
}
