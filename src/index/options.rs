//! How an index is built.

use crate::tables::{Dtype, Form};

/// Choices of whoever builds an index. [`Default`] suits most; a [`Dtype`] alone converts into it.
#[derive(Clone, Debug)]
pub struct IndexOptions {
    /// Number format of the tables.
    pub dtype: Dtype,
    /// How components are kept; `None`: as they are, unless that takes more than [`IndexOptions::large`] bytes and the raw
    /// form suits the model.
    pub form: Option<Form>,
    /// Bytes of component tables from which on the raw form is chosen.
    pub large: u64,
    /// Most items of one segment. Segments are what is loaded, streamed and rewritten as a whole.
    pub segment_items: usize,
    /// Bytes of tables that may stay on each device; what exceeds them passes through it in every search.
    pub device_memory: Option<u64>,
    /// Inverted lists to make, if any.
    pub lists: Option<ListOptions>,
}

/// Which inverted lists to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListOptions {
    /// Number of lists; 0: the square root of the number of items, times two.
    pub n_lists: usize,
    /// Lists of every single component, for `naive-ivf`.
    pub groups: bool,
    /// Lists of all components together, for `tangent-ivf`.
    pub all: bool,
}

impl Default for IndexOptions {
    fn default() -> IndexOptions {
        IndexOptions {
            dtype: Dtype::F32,
            form: None,
            large: 4 << 30,
            segment_items: 4 << 20,
            device_memory: None,
            lists: None,
        }
    }
}

impl From<Dtype> for IndexOptions {
    fn from(dtype: Dtype) -> IndexOptions {
        IndexOptions { dtype, ..IndexOptions::default() }
    }
}

/// How an index folder is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Whether to compare all tables with their checksums first, which reads all of them. Those that a device copies are
    /// compared in any case; the CPU uses them in place, and reads nothing of them before a search does.
    pub check: bool,
    /// Bytes of tables that may stay on each device; what exceeds them passes through it in every search.
    pub device_memory: Option<u64>,
}
