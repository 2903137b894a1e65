//! Searchers: encoding, searching, changing items.

use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;

use roaring::RoaringTreemap;

use super::border::{RwStatus, guarded, hand_out, optional, places, product, reference, release, slice, text};
use super::model::RwModel;
use crate::index::{Filter, IndexOptions, OpenOptions};
use crate::retriever::{Retriever, index_options};
use crate::search::{Algorithm, Request};
use crate::sequence::History;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Items on a device, the encoder of their model if there is one, and how to search.
pub struct RwSearcher {
    retriever: Retriever,
    device: CString,
}

/// What one user has done so far.
#[repr(C)]
pub struct RwHistory {
    /// The user; only models with uid embeddings look at it.
    pub user_id: i64,
    /// (length): ids of the events, rows of the item table, oldest first.
    pub item_ids: *const u32,
    /// (length): Unix times of the events in seconds.
    pub timestamps: *const i64,
    /// Number of events, at least 1; only the last ones that the model can see count.
    pub length: usize,
    /// Time of the request.
    pub now: i64,
}

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
}

/// How an index is built. All zero: f32 tables of components, no inverted lists, all of it on the device.
#[repr(C)]
pub struct RwIndexOptions {
    /// Number format of tables: "f32", "f16" or "i8"; null: "f32".
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
}

/// Indexes rows `item_ids` of the model's own item table; null: all of them. `device` is "auto", "cpu", "gpu" or a part of
/// a device's name; null: "auto". `options` may be null.
///
/// # Safety
/// Pointers are null or point to what is described; the model is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_from_model(
    model: *const RwModel,
    item_ids: *const u64,
    n_items: usize,
    device: *const c_char,
    options: *const RwIndexOptions,
    out: *mut *mut RwSearcher,
) -> RwStatus {
    guarded(|| {
        // SAFETY: the caller vouches for all of them.
        let (model, ids, place) = unsafe {
            let ids = if item_ids.is_null() { None } else { Some(slice("item ids", item_ids, n_items)?) };
            (reference("model", model)?, ids, Place::new(device, options)?)
        };
        let make = || searcher(Retriever::from_model(&model.0, ids, place.device, place.options)?);
        // SAFETY: the caller vouches for `out`.
        unsafe { hand_out(out, make) }
    })
}

/// Indexes items `ids` (n_items) with raw embeddings (n_items, dim) of the caller's. The similarity is that of `model`;
/// null: the inner product. `device` and `options` as for `rw_searcher_from_model`.
///
/// # Safety
/// Pointers are null or point to what is described; the model is null or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_from_embeddings(
    ids: *const u64,
    embeddings: *const f32,
    n_items: usize,
    dim: usize,
    model: *const RwModel,
    device: *const c_char,
    options: *const RwIndexOptions,
    out: *mut *mut RwSearcher,
) -> RwStatus {
    guarded(|| {
        // SAFETY: the caller vouches for all of them.
        let (ids, embeddings, model, place) = unsafe {
            let embeddings = matrix("item embeddings", embeddings, n_items, dim)?;
            (slice("item ids", ids, n_items)?, embeddings, optional("model", model)?, Place::new(device, options)?)
        };
        let file = model.map(|model| &model.0);
        let make = || searcher(Retriever::from_embeddings(ids, &embeddings, file, place.device, place.options)?);
        // SAFETY: the caller vouches for `out`.
        unsafe { hand_out(out, make) }
    })
}

/// Opens an index folder that `rails-bench index build` made, with the similarity, and the encoder if there is one, that are
/// in it. Items that are added or removed are changed in the folder too. `check`: whether to compare all files with their
/// checksums first. `device_memory`: bytes of tables that may stay on the device; 0: no limit.
///
/// # Safety
/// Texts are null or end with a zero; `out` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_open_index(
    folder: *const c_char,
    device: *const c_char,
    check: bool,
    device_memory: u64,
    out: *mut *mut RwSearcher,
) -> RwStatus {
    guarded(|| {
        // SAFETY: the caller vouches for the texts.
        let (folder, device) = unsafe { (text("folder", folder)?, text("device", device)?.unwrap_or("auto")) };
        let folder = folder.ok_or_else(|| Error::argument("folder", "a path", "a null pointer"))?;
        let options =
            OpenOptions::default().with_check(check).with_device_memory((device_memory > 0).then_some(device_memory));
        // SAFETY: the caller vouches for `out`.
        unsafe { hand_out(out, || searcher(Retriever::from_index(folder, device, options)?)) }
    })
}

/// Learns from `queries` (n_queries, dim) like those that will be asked, a few hundred of them, what the algorithms distilled
/// and cascade need and tangent is better with. `user_ids` as for `rw_searcher_search`. An index folder keeps it.
///
/// # Safety
/// Pointers are null or point to what is described; the searcher is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_distill(
    searcher: *const RwSearcher,
    queries: *const f32,
    n_queries: usize,
    dim: usize,
    user_ids: *const i64,
) -> RwStatus {
    guarded(|| {
        // SAFETY: the caller vouches for all of them.
        let (searcher, queries, users) = unsafe {
            let users = if user_ids.is_null() { None } else { Some(slice("user ids", user_ids, n_queries)?.to_vec()) };
            (reference("searcher", searcher)?, matrix("queries", queries, n_queries, dim)?, users)
        };
        same_dim(searcher, dim)?;
        searcher.retriever.distill(queries, users)
    })
}

/// Rewrites the index without the deleted items and with as few segments as may be.
///
/// # Safety
/// The searcher is null or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_compact(searcher: *const RwSearcher) -> RwStatus {
    // SAFETY: the caller vouches for it.
    guarded(|| unsafe { reference("searcher", searcher) }?.retriever.index().compact())
}

/// Number of items that can be found; 0 for null.
///
/// # Safety
/// `searcher` is null or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_len(searcher: *const RwSearcher) -> usize {
    // SAFETY: the caller vouches for it.
    unsafe { searcher.as_ref() }.map_or(0, |searcher| searcher.retriever.index().len())
}

/// D: width of raw item and query embeddings; 0 for null.
///
/// # Safety
/// `searcher` is null or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_dim(searcher: *const RwSearcher) -> usize {
    // SAFETY: the caller vouches for it.
    unsafe { searcher.as_ref() }.map_or(0, |searcher| searcher.retriever.dim())
}

/// Whether item `id` can be found; false for null.
///
/// # Safety
/// `searcher` is null or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_contains(searcher: *const RwSearcher, id: u64) -> bool {
    // SAFETY: the caller vouches for it.
    unsafe { searcher.as_ref() }.is_some_and(|searcher| searcher.retriever.index().contains(id))
}

/// Name of the device in use, which lives as long as the searcher; empty for null.
///
/// # Safety
/// `searcher` is null or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_device(searcher: *const RwSearcher) -> *const c_char {
    // SAFETY: the caller vouches for it.
    unsafe { searcher.as_ref() }.map_or(c"".as_ptr(), |searcher| searcher.device.as_ptr())
}

/// Encodes histories into `queries` (n_histories, dim), where `dim` must be that of the searcher.
///
/// # Safety
/// Pointers are null or point to what is described; the searcher is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_encode(
    searcher: *const RwSearcher,
    histories: *const RwHistory,
    n_histories: usize,
    dim: usize,
    queries: *mut f32,
) -> RwStatus {
    guarded(|| {
        // SAFETY: the caller vouches for all of them.
        let (searcher, histories, out) = unsafe {
            let out = places("queries", queries, product("queries", n_histories, dim)?)?;
            (reference("searcher", searcher)?, slice("histories", histories, n_histories)?, out)
        };
        same_dim(searcher, dim)?;
        let history = |history: &RwHistory| {
            let n = history.length;
            // SAFETY: the caller vouches for both.
            let (item_ids, timestamps) = unsafe {
                (slice("history: item ids", history.item_ids, n)?, slice("history: timestamps", history.timestamps, n)?)
            };
            Ok(History { user_id: history.user_id, item_ids, timestamps, now: history.now })
        };
        let histories: Vec<History> = histories.iter().map(history).collect::<Result<_>>()?;
        let queries = searcher.retriever.encode(&histories)?;
        out.iter_mut().zip(queries.data()).for_each(|(place, &value)| _ = place.write(value));
        Ok(())
    })
}

/// Finds the `k` best items, 1 <= k <= number of items, of each of the `queries` (n_queries, dim), by score descending,
/// then id ascending. `user_ids` (n_queries) may be null unless the model has uid embeddings; `options` may be null.
///
/// Results: `ids` and `scores` (n_queries, k), `counts` (n_queries). Fewer than k items are found only where fewer are
/// left; the rest of the row is then UINT64_MAX and -infinity. `counts` may be null. Nothing is written on failure.
///
/// # Safety
/// Pointers are null or point to what is described; the searcher is alive; results do not overlap with anything.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_search(
    searcher: *const RwSearcher,
    queries: *const f32,
    n_queries: usize,
    dim: usize,
    user_ids: *const i64,
    k: usize,
    options: *const RwSearchOptions,
    ids: *mut u64,
    scores: *mut f32,
    counts: *mut usize,
) -> RwStatus {
    guarded(|| {
        // SAFETY: the caller vouches for all of them.
        let (searcher, queries, users, options) = unsafe {
            let users = if user_ids.is_null() { None } else { Some(slice("user ids", user_ids, n_queries)?.to_vec()) };
            (
                reference("searcher", searcher)?,
                matrix("queries", queries, n_queries, dim)?,
                users,
                optional("options", options)?,
            )
        };
        same_dim(searcher, dim)?;
        let n_items = searcher.retriever.index().len();
        if k == 0 || k > n_items {
            return Err(Error::argument("k", format!("1..={n_items} (the number of items)"), k));
        }
        let n_results = product("k", n_queries, k)?;
        // SAFETY: the caller vouches for all of them.
        let (ids, scores, counts) = unsafe {
            let counts = if counts.is_null() { None } else { Some(places("counts", counts, n_queries)?) };
            (places("ids", ids, n_results)?, places("scores", scores, n_results)?, counts)
        };
        // SAFETY: the caller vouches for what the options point to.
        let wanted = unsafe { Wanted::new(options, n_queries) }?;
        let request =
            Request::new(wanted.algorithm, k).with_excluded(&wanted.excluded).with_filter(wanted.filter.as_ref());
        let hits = searcher.retriever.search(queries, users, &request)?.hits;

        ids.fill(MaybeUninit::new(u64::MAX));
        scores.fill(MaybeUninit::new(f32::NEG_INFINITY));
        for ((hits, ids), scores) in hits.iter().zip(ids.chunks_mut(k)).zip(scores.chunks_mut(k)) {
            for ((hit, id), score) in hits.iter().zip(ids).zip(scores) {
                id.write(hit.id);
                score.write(hit.score);
            }
        }
        if let Some(counts) = counts {
            hits.iter().zip(counts).for_each(|(hits, count)| _ = count.write(hits.len()));
        }
        Ok(())
    })
}

/// Adds items `ids` (n_items) with raw embeddings (n_items, dim), replacing those that are there. Searches that begin
/// afterwards find them; on failure nothing has changed.
///
/// # Safety
/// Pointers are null or point to what is described; the searcher is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_add(
    searcher: *const RwSearcher,
    ids: *const u64,
    embeddings: *const f32,
    n_items: usize,
    dim: usize,
) -> RwStatus {
    guarded(|| {
        // SAFETY: the caller vouches for all of them.
        let (searcher, ids, embeddings) = unsafe {
            let embeddings = matrix("item embeddings", embeddings, n_items, dim)?;
            (reference("searcher", searcher)?, slice("item ids", ids, n_items)?, embeddings)
        };
        searcher.retriever.index().add(ids, &embeddings)
    })
}

/// Removes items; ids that are not there are passed over. `removed`, unless null, becomes the number of those that were.
///
/// # Safety
/// Pointers are null or point to what is described; the searcher is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_remove(
    searcher: *const RwSearcher,
    ids: *const u64,
    n_ids: usize,
    removed: *mut usize,
) -> RwStatus {
    guarded(|| {
        // SAFETY: the caller vouches for all of them.
        let (searcher, ids, removed) = unsafe {
            let removed = if removed.is_null() { None } else { Some(places("removed", removed, 1)?) };
            (reference("searcher", searcher)?, slice("item ids", ids, n_ids)?, removed)
        };
        let n = searcher.retriever.index().remove(ids)?;
        if let Some(removed) = removed {
            removed[0].write(n);
        }
        Ok(())
    })
}

/// Releases a searcher.
///
/// # Safety
/// `searcher` is null or alive; it ends here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_free(searcher: *mut RwSearcher) {
    // SAFETY: the caller vouches for it.
    unsafe { release(searcher) }
}

fn searcher(retriever: Retriever) -> Result<RwSearcher> {
    let device = CString::new(retriever.backend().info().name.replace('\0', " ")).unwrap_or_default();
    Ok(RwSearcher { retriever, device })
}

/// Where an index goes, and how it is built.
struct Place<'a> {
    device: &'a str,
    options: IndexOptions,
}

impl Place<'_> {
    /// # Safety
    /// As [`text`] and [`optional`].
    unsafe fn new<'a>(device: *const c_char, options: *const RwIndexOptions) -> Result<Place<'a>> {
        // SAFETY: the caller vouches for both.
        let (device, options) = unsafe { (text("device", device)?.unwrap_or("auto"), optional("options", options)?) };
        let Some(given) = options else { return Ok(Place { device, options: IndexOptions::default() }) };
        // SAFETY: the caller vouches for what the options point to.
        let (dtype, form) = unsafe { (text("dtype", given.dtype)?, text("form", given.form)?) };
        let device_memory = (given.device_memory > 0).then_some(given.device_memory);
        let n_lists = given.with_lists.then_some(given.n_lists);
        let options = index_options(dtype.unwrap_or("f32"), form.unwrap_or("auto"), n_lists, device_memory)?;
        Ok(Place { device, options })
    }
}

/// [`RwSearchOptions`], checked.
struct Wanted<'a> {
    algorithm: Algorithm,
    excluded: Vec<&'a [u64]>,
    filter: Option<Filter>,
}

impl Wanted<'_> {
    /// # Safety
    /// The options point to what they describe.
    unsafe fn new<'a>(options: Option<&RwSearchOptions>, n_queries: usize) -> Result<Wanted<'a>> {
        let Some(options) = options else {
            return Ok(Wanted { algorithm: Algorithm::Exact, excluded: Vec::new(), filter: None });
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
            let excluded = excluded(options, n_queries)?;
            Ok(Wanted { algorithm, excluded, filter })
        }
    }
}

/// One list per query, or none at all.
///
/// # Safety
/// The options point to what they describe.
unsafe fn excluded<'a>(options: &RwSearchOptions, n_queries: usize) -> Result<Vec<&'a [u64]>> {
    if options.excluded_offsets.is_null() {
        return match options.excluded.is_null() {
            true => Ok(Vec::new()),
            false => Err(Error::argument("excluded_offsets", "one per query and one more", "a null pointer")),
        };
    }
    // SAFETY: the caller vouches for it.
    let offsets = unsafe { slice("excluded_offsets", options.excluded_offsets, n_queries + 1) }?;
    if let Some(pair) = offsets.windows(2).find(|pair| pair[0] > pair[1]) {
        let found = format!("{} after {}", pair[1], pair[0]);
        return Err(Error::argument("excluded_offsets", "numbers that do not descend", found));
    }
    // SAFETY: the caller vouches for it.
    let ids = unsafe { slice("excluded", options.excluded, offsets[n_queries]) }?;
    Ok(offsets.windows(2).map(|pair| &ids[pair[0]..pair[1]]).collect())
}

/// A (rows, columns) array as a tensor.
///
/// # Safety
/// As [`slice`].
unsafe fn matrix(name: &'static str, values: *const f32, rows: usize, columns: usize) -> Result<Tensor> {
    // SAFETY: the caller vouches for it.
    let values = unsafe { slice(name, values, product(name, rows, columns)?) }?;
    Tensor::new(vec![rows, columns], values.to_vec())
}

fn same_dim(searcher: &RwSearcher, dim: usize) -> Result<()> {
    let own = searcher.retriever.dim();
    if dim == own { Ok(()) } else { Err(Error::argument("dim", format!("{own}, the width of embeddings"), dim)) }
}
