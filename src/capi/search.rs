//! Encoding and searching.

use std::collections::HashMap;
use std::mem::MaybeUninit;

use super::ffi::{RwStatus, guarded, optional, places, product, queries, reference, slice, token_queries};
use super::options::{RwSearchOptions, Wanted, lists};
use super::searcher::RwSearcher;
use crate::backend::QueryBatch;
use crate::search::{Hit, Request};
use crate::sequence::History;
use crate::{Error, Result};

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

/// Encodes histories into `queries` (n_histories, dim), where `dim` must be `rw_searcher_query_dim`.
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
        searcher.check_dim(dim)?;
        let history = |history: &RwHistory| {
            let n = history.length;
            // SAFETY: the caller vouches for both.
            let (item_ids, timestamps) = unsafe {
                (slice("history: item ids", history.item_ids, n)?, slice("history: timestamps", history.timestamps, n)?)
            };
            Ok(History { user_id: history.user_id, item_ids, timestamps, now: history.now })
        };
        let histories: Vec<History> = histories.iter().map(history).collect::<Result<_>>()?;
        let queries = searcher.searcher.encode(&histories)?;
        out.iter_mut().zip(queries.embeddings.data()).for_each(|(place, &value)| _ = place.write(value));
        Ok(())
    })
}

/// Finds the `k` >= 1 best items of each of the queries with `embeddings` (n_queries, dim), by score descending,
/// then id ascending; `dim` must be `rw_searcher_query_dim`. `user_ids` (n_queries) may be null unless the model has uid
/// embeddings; `options` may be null.
///
/// Results: `ids` and `scores` (n_queries, k), `counts` (n_queries). Fewer than k items are found only where fewer are
/// left; the rest of the row is then UINT64_MAX and -infinity. `counts` may be null. Nothing is written on failure.
///
/// # Safety
/// Pointers are null or point to what is described; the searcher is alive; results do not overlap with anything.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_search(
    searcher: *const RwSearcher,
    embeddings: *const f32,
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
        unsafe {
            let searcher = reference("searcher", searcher)?;
            searcher.check_dim(dim)?;
            let queries = queries(embeddings, n_queries, dim, user_ids)?;
            search(searcher, &queries, k, options, (ids, scores, counts))
        }
    })
}

/// `rw_searcher_search` for an index of token embeddings (late interaction, MaxSim): the queries have several vectors each,
/// `token_embeddings` (T, dim), those of all queries one after the other, and `lengths` (n_queries) says how many each has, at
/// least 1.
///
/// # Safety
/// Pointers are null or point to what is described; the searcher is alive; results do not overlap with anything.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_search_tokens(
    searcher: *const RwSearcher,
    token_embeddings: *const f32,
    lengths: *const usize,
    n_queries: usize,
    dim: usize,
    k: usize,
    options: *const RwSearchOptions,
    ids: *mut u64,
    scores: *mut f32,
    counts: *mut usize,
) -> RwStatus {
    guarded(|| {
        // SAFETY: the caller vouches for all of them.
        unsafe {
            let searcher = reference("searcher", searcher)?;
            searcher.check_dim(dim)?;
            let queries = token_queries(token_embeddings, lengths, n_queries, dim)?;
            search(searcher, &queries, k, options, (ids, scores, counts))
        }
    })
}

/// Searches, and writes ids, scores and counts.
///
/// # Safety
/// As [`rw_searcher_search`].
unsafe fn search(
    searcher: &RwSearcher,
    queries: &QueryBatch,
    k: usize,
    options: *const RwSearchOptions,
    (ids, scores, counts): (*mut u64, *mut f32, *mut usize),
) -> Result<()> {
    if k == 0 {
        return Err(Error::argument("k", "at least 1", k));
    }
    let n_queries = queries.len();
    let n_results = product("k", n_queries, k)?;
    // SAFETY: the caller vouches for all of them.
    let (ids, scores, counts) = unsafe {
        let counts = if counts.is_null() { None } else { Some(places("counts", counts, n_queries)?) };
        (places("ids", ids, n_results)?, places("scores", scores, n_results)?, counts)
    };
    // SAFETY: the caller vouches for them, and for what they point to.
    let wanted = unsafe { Wanted::new(optional("options", options)?, n_queries) }?;
    let request = Request::new(wanted.algorithm, k)
        .with_excluded(&wanted.excluded)
        .with_filter(wanted.filter.as_ref())
        .with_conditions(wanted.condition.as_slice());
    let hits = searcher.searcher.answer(queries, &request)?.hits;

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
}

/// Scores items of the caller's choice, all of which must be there: the candidates of query i are those of `candidates` from
/// `offsets[i]` up to `offsets[i + 1]`. `offsets` (n_queries + 1) begins with 0; `user_ids` as for `rw_searcher_search`.
///
/// Results: `scores`, one per candidate, in their order.
///
/// # Safety
/// Pointers are null or point to what is described; the searcher is alive; results do not overlap with anything.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_rescore(
    searcher: *const RwSearcher,
    embeddings: *const f32,
    n_queries: usize,
    dim: usize,
    user_ids: *const i64,
    candidates: *const u64,
    offsets: *const usize,
    scores: *mut f32,
) -> RwStatus {
    guarded(|| {
        // SAFETY: the caller vouches for all of them.
        let (searcher, queries, lists) = unsafe {
            let queries = queries(embeddings, n_queries, dim, user_ids)?;
            (reference("searcher", searcher)?, queries, lists("candidates", candidates, offsets, n_queries)?)
        };
        searcher.check_dim(dim)?;
        // SAFETY: the caller vouches for it.
        let places = unsafe { places("scores", scores, lists.iter().map(|list| list.len()).sum()) }?;
        let hits = searcher.searcher.rescore(&queries, &lists)?;
        let found = lists.iter().zip(&hits).flat_map(|(list, hits)| scores_of(list, hits));
        places.iter_mut().zip(found).for_each(|(place, score)| _ = place.write(score));
        Ok(())
    })
}

/// The scores of `ids` among `hits`, in the order of the ids.
fn scores_of(ids: &[u64], hits: &[Hit]) -> Vec<f32> {
    let scores: HashMap<u64, f32> = hits.iter().map(|hit| (hit.id, hit.score)).collect();
    ids.iter().map(|id| scores.get(id).copied().unwrap_or(f32::NEG_INFINITY)).collect()
}
