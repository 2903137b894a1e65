//! How an index is built and searched.

use std::ffi::c_char;

use roaring::RoaringTreemap;

use super::ffi::{optional, slice, text};
use crate::attributes::{Attributes, Condition, Value};
use crate::index::{Filter, IndexOptions};
use crate::search::Algorithm;
use crate::{Error, Result};

/// How to search. All zero: exactly, among all items.
#[repr(C)]
pub struct RwSearchOptions {
    /// "exact", "mips", "tangent:1000", ... as `rails-bench` names them; null: "exact".
    pub algorithm: *const c_char,
    /// Ids that must not be found, the lists of all queries one after the other; null: none.
    pub excluded: *const u64,
    /// (n_queries + 1): where the list of each query begins in `excluded`, and where the last one ends; null if
    /// `excluded` is.
    pub excluded_offsets: *const usize,
    /// (n_allowed): the only ids that may be found; null: all may.
    pub allowed: *const u64,
    /// Number of allowed ids. 0 with a pointer that is not null: none may be found.
    pub n_allowed: usize,
    /// What attributes of an item must be for it to be found: an SQL expression such as "year >= ?1 AND genre = ?2". Null: nothing.
    pub condition: *const c_char,
    /// (n_params): texts that ?1, ?2, ... stand for; beside a column of numbers one is read as a number. Null: none.
    pub params: *const *const c_char,
    /// Number of parameters.
    pub n_params: usize,
}

/// How an index is built. All zero: f32 tables of components, no inverted lists, all of it on the device.
#[repr(C)]
pub struct RwIndexOptions {
    /// Number format of tables: "f32", "f16" or "int8"; null: "f32".
    pub dtype: *const c_char,
    /// How item components are kept: "components", "raw" (computed in every search, for a fraction of the memory) or "auto",
    /// by size; null: "auto".
    pub form: *const c_char,
    /// Whether to make inverted lists, for the algorithms naive-ivf and tangent-ivf.
    pub with_lists: bool,
    /// Number of lists; 0: as many as suit the number of items.
    pub n_lists: usize,
    /// Bytes of tables that may stay on the device; what exceeds them passes through it in every search. 0: no limit.
    pub device_memory: u64,
    /// A new folder to store the index in, with the model: `rw_searcher_open_index` opens it again. Null: in memory only.
    pub folder: *const c_char,
    /// Attributes of the items, for `condition` of searches: a CSV or TSV file with a header and a column `id` or `item_id`. Null: none.
    pub attributes: *const c_char,
}

/// Where an index goes, and how it is built.
pub struct Place<'a> {
    pub device: &'a str,
    pub options: IndexOptions,
    pub folder: Option<&'a str>,
    pub attributes: Option<Attributes>,
}

impl Place<'_> {
    /// # Safety
    /// As [`text`] and [`optional`].
    pub unsafe fn new<'a>(device: *const c_char, options: *const RwIndexOptions) -> Result<Place<'a>> {
        // SAFETY: the caller vouches for both.
        let (device, options) = unsafe { (text("device", device)?.unwrap_or("auto"), optional("options", options)?) };
        let Some(given) = options else {
            return Ok(Place { device, options: IndexOptions::default(), folder: None, attributes: None });
        };
        // SAFETY: the caller vouches for what the options point to.
        let (dtype, form, folder, attributes) = unsafe {
            let (dtype, form) = (text("dtype", given.dtype)?, text("form", given.form)?);
            (dtype, form, text("folder", given.folder)?, text("attributes", given.attributes)?)
        };
        let attributes = attributes.map(Attributes::read).transpose()?;
        let device_memory = (given.device_memory > 0).then_some(given.device_memory);
        let n_lists = given.with_lists.then_some(given.n_lists);
        let options = IndexOptions::named(dtype.unwrap_or("f32"), form.unwrap_or("auto"), n_lists, device_memory)?;
        Ok(Place { device, options, folder, attributes })
    }
}

/// [`RwSearchOptions`], checked.
pub struct Wanted<'a> {
    pub algorithm: Algorithm,
    pub excluded: Vec<&'a [u64]>,
    pub filter: Option<Filter>,
    pub condition: Option<Condition>,
}

impl Wanted<'_> {
    /// # Safety
    /// The options point to what they describe.
    pub unsafe fn new<'a>(options: Option<&RwSearchOptions>, n_queries: usize) -> Result<Wanted<'a>> {
        let Some(options) = options else {
            return Ok(Wanted { algorithm: Algorithm::Exact, excluded: Vec::new(), filter: None, condition: None });
        };
        // SAFETY: the caller vouches for all of them.
        unsafe {
            let algorithm = text("algorithm", options.algorithm)?.unwrap_or("exact").parse()?;
            let allowed = match options.allowed.is_null() {
                true if options.n_allowed > 0 => {
                    return Err(Error::argument("allowed", format!("{} ids", options.n_allowed), "a null pointer"));
                }
                true => None,
                false => Some(slice("allowed", options.allowed, options.n_allowed)?),
            };
            let filter = allowed.map(|ids| Filter::allow(ids.iter().copied().collect::<RoaringTreemap>()));
            let excluded = lists("excluded", options.excluded, options.excluded_offsets, n_queries)?;
            let param = |&param: &*const c_char| {
                let missing = || Error::argument("params", "texts", "a null pointer");
                Ok(Value::from(text("params", param)?.ok_or_else(missing)?))
            };
            let params = slice("params", options.params, options.n_params)?.iter().map(param);
            let params = params.collect::<Result<Vec<Value>>>()?;
            let condition = match text("condition", options.condition)? {
                Some(sql) => Some(Condition::new(sql)?.with_params(params)),
                None if params.is_empty() => None,
                None => return Err(Error::argument("params", "none without `condition`", params.len())),
            };
            Ok(Wanted { algorithm, excluded, filter, condition })
        }
    }
}

/// Lists of ids, one per query, the ids one after the other; none at all where both are null.
///
/// # Safety
/// What is not null points to n_queries + 1 offsets, and to as many ids as the last of them says.
pub unsafe fn lists<'a>(
    name: &'static str,
    ids: *const u64,
    offsets: *const usize,
    n_queries: usize,
) -> Result<Vec<&'a [u64]>> {
    let offsets_name = if name == "excluded" { "excluded_offsets" } else { "offsets" };
    if offsets.is_null() {
        return match ids.is_null() {
            true => Ok(Vec::new()),
            false => Err(Error::argument(offsets_name, "one per query and one more", "a null pointer")),
        };
    }
    let n_offsets = n_queries.checked_add(1).ok_or_else(|| Error::argument("n_queries", "fewer", n_queries))?;
    // SAFETY: the caller vouches for it.
    let offsets = unsafe { slice(offsets_name, offsets, n_offsets) }?;
    if let Some(pair) = offsets.windows(2).find(|pair| pair[0] > pair[1]) {
        let found = format!("{} after {}", pair[1], pair[0]);
        return Err(Error::argument(offsets_name, "numbers that do not descend", found));
    }
    // SAFETY: the caller vouches for it.
    let ids = unsafe { slice(name, ids, offsets[n_queries]) }?;
    Ok(offsets.windows(2).map(|pair| &ids[pair[0]..pair[1]]).collect())
}
