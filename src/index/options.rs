//! How an index is built.

use crate::error::{Parameter, Result};
use crate::names;
use crate::tables::{Dtype, Form};

/// How an index is built. [`Default`] suits most; a [`Dtype`] alone converts into it.
///
/// ```
/// use rails_wgpu::{Dtype, IndexOptions};
///
/// let options = IndexOptions::from(Dtype::F16).with_segment_items(1 << 20);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IndexOptions {
    /// Number format of the tables.
    pub dtype: Dtype,
    /// How components are kept; `None`: as they are, unless that takes more than [`IndexOptions::max_component_bytes`] and
    /// the raw form suits the model.
    pub form: Option<Form>,
    /// Bytes of component tables beyond which `form: None` means the raw form; 4 GiB unless said otherwise.
    pub max_component_bytes: u64,
    /// Most items of one segment. Segments are what is loaded, streamed and rewritten as a whole.
    pub segment_items: usize,
    /// Bytes of tables that may stay on each device; what exceeds them passes through it in every search.
    pub device_memory: Option<u64>,
    /// Inverted lists to make, if any.
    pub lists: Option<ListOptions>,
}

/// Which inverted lists to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListOptions {
    /// Number of lists; 0: the square root of the number of items, times two.
    pub n_lists: usize,
    /// Lists of every single component, for `naive-ivf`.
    pub groups: bool,
    /// Lists of all components together, for `tangent-ivf`.
    pub all: bool,
}

impl ListOptions {
    /// `n_lists` lists of each kind; 0: the square root of the number of items, times two.
    pub fn new(n_lists: usize) -> ListOptions {
        ListOptions { n_lists, groups: true, all: true }
    }
}

impl IndexOptions {
    /// Sets [`IndexOptions::dtype`].
    #[must_use]
    pub fn with_dtype(self, dtype: Dtype) -> IndexOptions {
        IndexOptions { dtype, ..self }
    }

    /// Sets [`IndexOptions::form`].
    #[must_use]
    pub fn with_form(self, form: impl Into<Option<Form>>) -> IndexOptions {
        IndexOptions { form: form.into(), ..self }
    }

    /// Sets [`IndexOptions::max_component_bytes`].
    #[must_use]
    pub fn with_max_component_bytes(self, max_component_bytes: u64) -> IndexOptions {
        IndexOptions { max_component_bytes, ..self }
    }

    /// Sets [`IndexOptions::segment_items`].
    #[must_use]
    pub fn with_segment_items(self, segment_items: usize) -> IndexOptions {
        IndexOptions { segment_items, ..self }
    }

    /// Sets [`IndexOptions::device_memory`], in bytes.
    #[must_use]
    pub fn with_device_memory(self, device_memory: impl Into<Option<u64>>) -> IndexOptions {
        IndexOptions { device_memory: device_memory.into(), ..self }
    }

    /// Sets [`IndexOptions::lists`].
    #[must_use]
    pub fn with_lists(self, lists: impl Into<Option<ListOptions>>) -> IndexOptions {
        IndexOptions { lists: lists.into(), ..self }
    }

    /// Choices by the names that the bindings for C and Python have for them: of a [`Dtype`] and of a form (see
    /// [`IndexOptions::parse_form`]); `n_lists` inverted lists of each kind (0: as many as suit the number of items; `None`:
    /// none); bytes of tables that may stay on each device.
    ///
    /// # Errors
    /// If there is no such name.
    pub fn named(dtype: &str, form: &str, n_lists: Option<usize>, device_memory: Option<u64>) -> Result<IndexOptions> {
        Ok(IndexOptions::from(dtype.parse::<Dtype>()?)
            .with_form(IndexOptions::parse_form(form)?)
            .with_lists(n_lists.map(ListOptions::new))
            .with_device_memory(device_memory))
    }

    /// The names that [`IndexOptions::parse_form`] knows.
    pub const FORM_NAMES: [&str; 3] = ["auto", Form::NAMES[0].0, Form::NAMES[1].0];

    /// The choice of [`IndexOptions::form`] called `name`: `auto` (`None`), or a [`Form`].
    ///
    /// # Errors
    /// If there is no such name.
    pub fn parse_form(name: &str) -> Result<Option<Form>> {
        match name {
            "auto" => Ok(None),
            _ => match name.parse() {
                Ok(form) => Ok(Some(form)),
                Err(_) => Err(names::unknown(Parameter::Form, IndexOptions::FORM_NAMES, name)),
            },
        }
    }
}

impl Default for IndexOptions {
    fn default() -> IndexOptions {
        IndexOptions {
            dtype: Dtype::F32,
            form: None,
            max_component_bytes: 4 << 30,
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
#[non_exhaustive]
pub struct OpenOptions {
    /// Whether to compare all tables with their checksums first, which reads all of them. Those that a device copies are
    /// compared in any case; the CPU uses them in place, and reads nothing of them before a search does.
    pub check: bool,
    /// Bytes of tables that may stay on each device; what exceeds them passes through it in every search.
    pub device_memory: Option<u64>,
}

impl OpenOptions {
    /// Sets [`OpenOptions::check`].
    #[must_use]
    pub fn with_check(self, check: bool) -> OpenOptions {
        OpenOptions { check, ..self }
    }

    /// Sets [`OpenOptions::device_memory`], in bytes.
    #[must_use]
    pub fn with_device_memory(self, device_memory: impl Into<Option<u64>>) -> OpenOptions {
        OpenOptions { device_memory: device_memory.into(), ..self }
    }
}
