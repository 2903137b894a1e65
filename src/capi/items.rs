//! Changing the items of a searcher.

use super::ffi::{RwStatus, guarded, matrix, optional_place, queries, reference, slice};
use super::searcher::RwSearcher;

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
        searcher.searcher.index().add(ids, &embeddings)
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
            (reference("searcher", searcher)?, slice("item ids", ids, n_ids)?, optional_place("removed", removed)?)
        };
        let n = searcher.searcher.index().remove(ids)?;
        removed.map(|place| place.write(n));
        Ok(())
    })
}

/// Goes to the latest version of the index folder, where another process may have changed it. `changed`, unless null, becomes
/// whether it is another version; false for an index in memory.
///
/// # Safety
/// The searcher is null or alive; `changed` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_refresh(searcher: *const RwSearcher, changed: *mut bool) -> RwStatus {
    guarded(|| {
        // SAFETY: the caller vouches for both.
        let (searcher, changed) = unsafe { (reference("searcher", searcher)?, optional_place("changed", changed)?) };
        let is_another = searcher.searcher.index().refresh()?;
        changed.map(|place| place.write(is_another));
        Ok(())
    })
}

/// Learns from queries with `embeddings` (n_queries, dim) like those that will be asked, a few hundred of them, what the algorithms distilled
/// and cascade need and tangent is better with. `user_ids` as for `rw_searcher_search`. An index folder keeps it.
///
/// # Safety
/// Pointers are null or point to what is described; the searcher is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_distill(
    searcher: *const RwSearcher,
    embeddings: *const f32,
    n_queries: usize,
    dim: usize,
    user_ids: *const i64,
) -> RwStatus {
    guarded(|| {
        // SAFETY: the caller vouches for all of them.
        let (searcher, queries) =
            unsafe { (reference("searcher", searcher)?, queries(embeddings, n_queries, dim, user_ids)?) };
        searcher.check_dim(dim)?;
        searcher.searcher.index().distill(&queries)
    })
}

/// Rewrites the index without the deleted items and with as few segments as may be.
///
/// # Safety
/// The searcher is null or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_compact(searcher: *const RwSearcher) -> RwStatus {
    // SAFETY: the caller vouches for it.
    guarded(|| unsafe { reference("searcher", searcher) }?.searcher.index().compact())
}
