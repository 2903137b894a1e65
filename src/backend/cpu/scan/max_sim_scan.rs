//! Scans and rescoring by late interaction.

use std::ops::Range;

use super::tile_scan::TileScan;
use crate::backend::SearchContext;
use crate::backend::cpu::dot::micro_kernel::TILE;
use crate::backend::cpu::max_sim::{MaxSimScratch, QueryLanes};
use crate::backend::cpu::top_k::local_hits::LocalHits;
use crate::tables::TokenTable;
use crate::threads;
use crate::token_embeddings::TokenEmbeddings;

/// A scan of all items of a table.
pub struct MaxSimScan<'a> {
    items: &'a TokenTable,
    queries: &'a TokenEmbeddings,
    /// All query vectors, those of a query one after the other.
    lanes: QueryLanes,
}

/// Scratch memory of one thread.
#[derive(Default)]
pub struct Scratch {
    work: MaxSimScratch,
    /// (B, TILE)
    scores: Vec<f32>,
}

/// The sum of the maxima of a query, in order.
fn score(maxima: &[f32]) -> f32 {
    maxima.iter().fold(0.0, |sum, maximum| sum + maximum)
}

impl<'a> MaxSimScan<'a> {
    /// Of `items`, for `queries` of the same width.
    pub fn new(items: &'a TokenTable, queries: &'a TokenEmbeddings) -> MaxSimScan<'a> {
        MaxSimScan { items, queries, lanes: QueryLanes::new(queries.vectors().data(), items) }
    }
}

/// Scores of the candidates of each query, the same bits as in a scan of all items; 0 for some of them if the search is cancelled.
pub fn rescore(
    context: &SearchContext,
    items: &TokenTable,
    queries: &TokenEmbeddings,
    candidates: &[Vec<u32>],
) -> Vec<Vec<f32>> {
    let lanes: Vec<QueryLanes> =
        (0..queries.len()).map(|query| QueryLanes::new(queries.vectors_of(query), items)).collect();
    // In order of position, so that items in the cache serve several queries.
    let lists = candidates.iter().enumerate();
    let places =
        |(query, list): (usize, &'_ Vec<u32>)| (0..list.len()).map(move |place| (query, place)).collect::<Vec<_>>();
    let mut pairs: Vec<(usize, usize)> = lists.flat_map(places).collect();
    pairs.sort_unstable_by_key(|&(query, place)| (candidates[query][place], query));
    // Enough of them to be worth a task.
    let scored = threads::map(&pairs, 16, |work: &mut MaxSimScratch, &(query, place): &(usize, usize)| {
        if context.is_cancelled() {
            return 0.0;
        }
        let maxima = lanes[query].maxima(items, candidates[query][place] as usize, work);
        score(&maxima[..queries.range(query).len()])
    });
    let mut all: Vec<Vec<f32>> = candidates.iter().map(|list| vec![0.0; list.len()]).collect();
    for (&(query, place), score) in pairs.iter().zip(scored) {
        all[query][place] = score;
    }
    all
}

impl TileScan for MaxSimScan<'_> {
    type Scratch = Scratch;

    fn scan(&self, tiles: Range<usize>, scratch: &mut Scratch, found: &mut LocalHits) {
        let Scratch { work, scores } = scratch;
        scores.resize(self.queries.len() * TILE, 0.0);
        for tile in tiles {
            let n = found.items_of(tile);
            for lane in 0..n {
                let maxima = self.lanes.maxima(self.items, tile * TILE + lane, work);
                for query in 0..self.queries.len() {
                    scores[query * TILE + lane] = score(&maxima[self.queries.range(query)]);
                }
            }
            for (query, scores) in scores.chunks_exact(TILE).enumerate() {
                found.add_scores(query, &scores[..n], |lane| (tile * TILE + lane) as u32);
            }
        }
    }
}
