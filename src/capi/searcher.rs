//! Searchers: making, storing and releasing them.

use std::ffi::{CString, c_char};

use super::ffi::{RwStatus, guarded, hand_out, optional, product, reference, release, slice, text};
use super::model::RwModel;
use super::options::{Place, RwIndexOptions};
use crate::attributes::Attributes;
use crate::index::{ItemSource, OpenOptions};
use crate::search::{Searcher, SearcherBuilder};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Items on a device, the encoder of their model if there is one, and how to search.
pub struct RwSearcher {
    pub(super) searcher: Searcher,
    device: CString,
}

impl RwSearcher {
    /// Builds or opens it; a new index with `attributes`, if there are some, is stored in `folder`, if there is one.
    fn build(builder: SearcherBuilder, folder: Option<&str>, attributes: Option<Attributes>) -> Result<RwSearcher> {
        let builder = attributes.into_iter().fold(builder, SearcherBuilder::attributes);
        let searcher = folder.into_iter().fold(builder, SearcherBuilder::save_to).build()?;
        let backends = searcher.index().backends();
        let name = backends.first().map_or("", |backend| backend.info().name.as_str());
        let device = CString::new(name.replace('\0', " ")).unwrap_or_default();
        Ok(RwSearcher { searcher, device })
    }

    /// Whether `dim` is the width of query embeddings, or of their token embeddings.
    ///
    /// # Errors
    /// If it is not.
    pub(super) fn check_dim(&self, dim: usize) -> Result<()> {
        let own = self.searcher.index().query_dim();
        let expected = || format!("{own}, the width of query embeddings");
        if dim == own { Ok(()) } else { Err(Error::argument("dim", expected(), dim)) }
    }
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
        let make = || {
            let builder = Searcher::builder().model_file(&model.0).device(place.device).options(place.options);
            let builder = ids.into_iter().fold(builder, |builder, ids| builder.item_ids(ids));
            RwSearcher::build(builder, place.folder, place.attributes)
        };
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
            let embeddings = slice("item embeddings", embeddings, product("item embeddings", n_items, dim)?)?;
            (slice("item ids", ids, n_items)?, embeddings, optional("model", model)?, Place::new(device, options)?)
        };
        let make = || {
            let rows_of = |rows: &[usize]| {
                let values = rows.iter().flat_map(|row| &embeddings[row * dim..(row + 1) * dim]).copied().collect();
                Tensor::new([rows.len(), dim], values)
            };
            let items = ItemSource::of_rows(ids, [n_items, dim], rows_of)?;
            let builder = Searcher::builder().items(items).device(place.device).options(place.options);
            let builder = model.into_iter().fold(builder, |builder, model| builder.model_file(&model.0));
            RwSearcher::build(builder, place.folder, place.attributes)
        };
        // SAFETY: the caller vouches for `out`.
        unsafe { hand_out(out, make) }
    })
}

/// Opens an index folder that `rails-bench index build` or a searcher's options made, with the similarity, and the encoder if there is one, that are
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
        let builder = Searcher::builder().folder(folder).device(device).open_options(options);
        // SAFETY: the caller vouches for `out`.
        unsafe { hand_out(out, || RwSearcher::build(builder, None, None)) }
    })
}

/// Writes the items as they are now into a new folder, with the similarity, and with the encoder if this searcher was opened from
/// a folder that has one. `rw_searcher_open_index` opens it. This searcher stays where it is.
///
/// # Safety
/// The searcher is null or alive; the text is null or ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_save(searcher: *const RwSearcher, folder: *const c_char) -> RwStatus {
    guarded(|| {
        // SAFETY: the caller vouches for both.
        let (searcher, folder) = unsafe { (reference("searcher", searcher)?, text("folder", folder)?) };
        let folder = folder.ok_or_else(|| Error::argument("folder", "a path", "a null pointer"))?;
        searcher.searcher.index().save(folder)
    })
}

/// Number of items that can be found; 0 for null.
///
/// # Safety
/// `searcher` is null or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_len(searcher: *const RwSearcher) -> usize {
    // SAFETY: the caller vouches for it.
    unsafe { searcher.as_ref() }.map_or(0, |searcher| searcher.searcher.index().len())
}

/// D: width of raw item embeddings, or of token embeddings; 0 for null. Of given components (see `export_gate` in Python)
/// those of an item lie side by side: P_X * D_P.
///
/// # Safety
/// `searcher` is null or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_dim(searcher: *const RwSearcher) -> usize {
    // SAFETY: the caller vouches for it.
    unsafe { searcher.as_ref() }.map_or(0, |searcher| searcher.searcher.index().dim())
}

/// Width of query embeddings; 0 for null. Another one than `rw_searcher_dim` only where components are given, those of a query
/// side by side: P_Q * D_P.
///
/// # Safety
/// `searcher` is null or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_query_dim(searcher: *const RwSearcher) -> usize {
    // SAFETY: the caller vouches for it.
    unsafe { searcher.as_ref() }.map_or(0, |searcher| searcher.searcher.index().query_dim())
}

/// Whether item `id` can be found; false for null.
///
/// # Safety
/// `searcher` is null or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_contains(searcher: *const RwSearcher, id: u64) -> bool {
    // SAFETY: the caller vouches for it.
    unsafe { searcher.as_ref() }.is_some_and(|searcher| searcher.searcher.index().contains(id))
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

/// Releases a searcher.
///
/// # Safety
/// `searcher` is null or alive; it ends here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_free(searcher: *mut RwSearcher) {
    // SAFETY: the caller vouches for it.
    unsafe { release(searcher) }
}
