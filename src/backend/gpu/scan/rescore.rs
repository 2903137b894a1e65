//! Scores of single candidates.

use super::item_table::ItemTable;
use super::plan::{ScanLimits, TILE};
use super::queries::{packed_queries, position_lists};
use super::variant::ShaderVariant;
use crate::Result;
use crate::backend::gpu::device::{Buffer, params};
use crate::backend::gpu::kernels::Recorder;
use crate::backend::gpu::select::HitLists;

/// Most queries of one rescore: they are counted along one axis of the grid.
const MOST_LISTS: usize = 65_535;

/// Ranges of lists that are scored in one submission, so that none but a single list has more pairs than `most_pairs`.
pub(crate) fn slices(candidates: &[Vec<u32>], most_pairs: usize) -> Vec<std::ops::Range<usize>> {
    let mut slices = Vec::new();
    let mut from = 0;
    while from < candidates.len() {
        let mut pairs = candidates[from].len();
        let mut to = from + 1;
        while to < candidates.len() && to - from < MOST_LISTS && pairs + candidates[to].len() <= most_pairs {
            pairs += candidates[to].len();
            to += 1;
        }
        slices.push(from..to);
        from = to;
    }
    slices
}

/// Scores the items of `table` at the positions of each list; `parts` are the arrays of the query record.
pub(crate) fn rescore(
    recorder: &mut Recorder,
    variant: &ShaderVariant,
    table: &ItemTable,
    weights: &Buffer,
    parts: &[Buffer],
    candidates: &[Vec<u32>],
) -> Result<Vec<Vec<f32>>> {
    let lists = || candidates.iter().map(Vec::as_slice);
    let longest = lists().map(<[u32]>::len).max().unwrap_or(0);
    let queries = packed_queries(recorder, variant, 1, parts, candidates.len());
    let positions = recorder.upload(&position_lists(lists()));
    let scores = recorder.temporary(lists().map(|list| 4 * list.len() as u64).sum());
    for (items, rows) in table.shards.iter().zip(&table.rows) {
        let params = RescoreParams {
            first_position: rows.start as u32,
            n_items: rows.len() as u32,
            inverse_temperature: variant.inverse_temperature,
        };
        let buffers = [&queries, items, weights, &positions, &scores];
        let grid = [longest.div_ceil(TILE) as u32, candidates.len() as u32, 1];
        recorder.dispatch(&variant.rescore_kernel(), &params, &buffers, grid);
    }
    let scores: Vec<f32> = bytemuck::pod_collect_to_vec(&recorder.read_bytes(&scores)?);
    let mut rest = scores.into_iter();
    Ok(lists().map(|list| rest.by_ref().take(list.len()).collect()).collect())
}

/// Records that up to `longest` hits of each list get the scores of `variant` in place of those that they were found by: in several
/// dispatches, and submissions, where one would take too long.
///
/// # Errors
/// Of submissions.
pub(crate) fn rescore_hits(
    recorder: &mut Recorder,
    (variant, weights, limits): (&ShaderVariant, &Buffer, &ScanLimits),
    table: &ItemTable,
    parts: &[Buffer],
    (lists, longest): (&HitLists, usize),
) -> Result<()> {
    let queries = packed_queries(recorder, variant, 1, parts, lists.n_queries);
    let list_flops = (longest as u64 * variant.pair_flops).max(1);
    let most = ((limits.dispatch_flops / list_flops) as usize).clamp(1, lists.n_queries.max(1));
    let mut flops = 0u64;
    for first_query in (0..lists.n_queries).step_by(most) {
        let n_queries = most.min(lists.n_queries - first_query);
        let more = n_queries as u64 * list_flops;
        if flops > 0 && flops.saturating_add(more) > limits.submission_flops {
            recorder.submit()?;
            flops = 0;
        }
        flops = flops.saturating_add(more);
        for (items, rows) in table.shards.iter().zip(&table.rows) {
            let params = RescoreHitsParams {
                first_position: rows.start as u32,
                n_items: rows.len() as u32,
                first_query: first_query as u32,
                capacity: lists.capacity as u32,
                inverse_temperature: variant.inverse_temperature,
            };
            let buffers = [&queries, items, weights, &lists.state, &lists.hits];
            let grid = [longest.div_ceil(TILE) as u32, n_queries as u32, 1];
            recorder.dispatch(&variant.rescore_hits_kernel(), &params, &buffers, grid);
        }
    }
    Ok(())
}

params!(RescoreHitsParams {
    first_position: u32,
    n_items: u32,
    first_query: u32,
    capacity: u32,
    inverse_temperature: f32
});

params!(RescoreParams { first_position: u32, n_items: u32, inverse_temperature: f32 });
