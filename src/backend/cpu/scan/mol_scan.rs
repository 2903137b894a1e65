//! Scans and rescoring by Mixture-of-Logits.

use std::ops::Range;
use std::sync::Arc;

use super::tile_scan::TileScan;
use crate::backend::SearchContext;
use crate::backend::cpu::dot::micro_kernel::TILE;
use crate::backend::cpu::mol::bound::BoundStage;
use crate::backend::cpu::mol::item_side::MolTile;
use crate::backend::cpu::mol::kernel::MolKernel;
use crate::backend::cpu::mol::logits::LogitStage;
use crate::backend::cpu::mol::mixture::MixtureStage;
use crate::backend::cpu::mol::query::MolQuery;
use crate::backend::cpu::mol::query_side::QuerySide;
use crate::backend::cpu::mol::scratch::MolScratch;
use crate::backend::cpu::simd::run;
use crate::backend::cpu::top_k::local_hits::LocalHits;
use crate::tables::Tables;
use crate::threads;

/// What is computed for a pair of a query and an item.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Score {
    /// The mixture.
    Mixture,
    /// An upper bound of the mixture.
    Bound,
}

/// A scan of the items of some tables.
pub struct MolScan<'a> {
    /// Weights and shape.
    pub kernel: &'a MolKernel,
    /// The queries.
    pub side: Arc<QuerySide>,
    /// The items. They need Mixture-of-Logits tables.
    pub tables: &'a Tables,
    /// What to compute.
    pub score: Score,
    /// Whether to leave out pairs whose bound is below the threshold.
    pub prune: bool,
}

/// Scratch memory of one thread.
#[derive(Default)]
pub struct Scratch {
    items: MolTile,
    work: MolScratch,
    /// (B), if pairs are left out.
    pending: Vec<Pending>,
}

/// Items of one query with a bound at the threshold or above. They are scored when they fill a tile.
#[derive(Default)]
struct Pending {
    positions: Vec<u32>,
    work: MolScratch,
    item_gate: Vec<f32>,
}

impl MolScan<'_> {
    /// (B)
    fn queries(&self) -> &[MolQuery] {
        self.side.queries(self.tables.form())
    }

    fn load(&self, items: &mut MolTile, n: usize, row_of: impl Fn(usize) -> usize) {
        if let Some(mol) = &self.tables.mol {
            items.load(&self.tables.raw, mol, n, row_of);
        }
    }

    fn logits(&self, query: &MolQuery, items: &MolTile, work: &mut MolScratch) {
        work.fit(self.kernel);
        run(LogitStage { kernel: self.kernel, query, items, work });
    }

    fn bounds(&self, work: &mut MolScratch) -> [f32; TILE] {
        let mut bounds = [0.0; TILE];
        run(BoundStage { kernel: self.kernel, work, bounds: &mut bounds });
        bounds
    }

    fn mixtures(&self, query: &MolQuery, item_gate: Option<&[f32]>, work: &mut MolScratch) -> [f32; TILE] {
        let mut scores = [0.0; TILE];
        let query_gate = query.gate.as_deref();
        run(MixtureStage { kernel: self.kernel, query_gate, item_gate, work, scores: &mut scores });
        scores
    }

    /// Scores of one tile of items for one query.
    fn scores(&self, query: &MolQuery, items: &MolTile, work: &mut MolScratch) -> [f32; TILE] {
        self.logits(query, items, work);
        match self.score {
            Score::Bound => self.bounds(work),
            Score::Mixture => self.mixtures(query, items.gate(), work),
        }
    }

    /// Scores of the candidates of each query, the same bits as in a scan of all items; 0 for some of them if the search is cancelled.
    ///
    /// Where candidates are in order of position, tiles of all queries are scored in that order, so that items in the cache serve several
    /// queries.
    pub fn rescore(&self, context: &SearchContext, candidates: &[Vec<u32>]) -> Vec<Vec<f32>> {
        let tiles =
            |(query, list): (usize, &'_ Vec<u32>)| (0..list.len()).step_by(TILE).map(move |first| (query, first));
        let mut tiles: Vec<(usize, usize)> = candidates.iter().enumerate().flat_map(tiles).collect();
        tiles.sort_unstable_by_key(|&(query, first)| (candidates[query][first], query));
        let queries = self.queries();
        let score = |scratch: &mut Scratch, &(query, first): &(usize, usize)| {
            if context.is_cancelled() {
                return [0.0; TILE];
            }
            let list = &candidates[query];
            let positions = &list[first..list.len().min(first + TILE)];
            self.load(&mut scratch.items, positions.len(), |lane| positions[lane] as usize);
            self.scores(&queries[query], &scratch.items, &mut scratch.work)
        };
        // Large enough to be worth a task, small enough to divide the candidates of a single query.
        let scored = threads::map(&tiles, 4, score);
        let mut all: Vec<Vec<f32>> = candidates.iter().map(|list| vec![0.0; list.len()]).collect();
        for (&(query, first), scores) in tiles.iter().zip(scored) {
            let to = &mut all[query][first..];
            let n = to.len().min(TILE);
            to[..n].copy_from_slice(&scores[..n]);
        }
        all
    }

    /// Collects the items of one tile with a bound at the threshold or above, and scores them when they fill a tile.
    fn scan_pruned(&self, tile: usize, query: usize, scratch: &mut Scratch, found: &mut LocalHits) {
        let Scratch { items, work, pending } = scratch;
        let n_logits = self.kernel.n_logits();
        let pending = &mut pending[query];
        self.logits(&self.queries()[query], items, work);
        let (bounds, threshold, n) = (self.bounds(work), found.threshold(query), found.items_of(tile));
        for lane in (0..n).filter(|&lane| bounds[lane] >= threshold) {
            let to = pending.positions.len();
            pending.work.fit(self.kernel);
            let (from_rows, to_rows) = (work.logits(self.kernel), pending.work.logits(self.kernel));
            for l in 0..n_logits {
                to_rows[l * TILE + to] = from_rows[l * TILE + lane];
            }
            if let Some(gate) = items.gate() {
                pending.item_gate.resize(n_logits * TILE, 0.0);
                (0..n_logits).for_each(|l| pending.item_gate[l * TILE + to] = gate[l * TILE + lane]);
            }
            pending.positions.push((tile * TILE + lane) as u32);
            if pending.positions.len() == TILE {
                self.flush(query, pending, found);
            }
        }
        found.pruned += bounds[..n].iter().filter(|&&bound| bound < threshold).count() as u64;
    }

    fn flush(&self, query: usize, pending: &mut Pending, found: &mut LocalHits) {
        let Pending { positions, work, item_gate } = pending;
        let gate = self.tables.mol.as_ref().and_then(|mol| mol.gate.as_ref()).map(|_| item_gate.as_slice());
        let scores = self.mixtures(&self.queries()[query], gate, work);
        found.add_scores(query, &scores[..positions.len()], |lane| positions[lane]);
        positions.clear();
    }
}

impl TileScan for MolScan<'_> {
    type Scratch = Scratch;

    fn scan(&self, tiles: Range<usize>, scratch: &mut Scratch, found: &mut LocalHits) {
        scratch.pending.resize_with(if self.prune { self.queries().len() } else { 0 }, Pending::default);
        for tile in tiles {
            self.load(&mut scratch.items, found.items_of(tile), |lane| tile * TILE + lane);
            for (index, query) in self.queries().iter().enumerate() {
                if self.prune {
                    self.scan_pruned(tile, index, scratch, found);
                } else {
                    let scores = self.scores(query, &scratch.items, &mut scratch.work);
                    let n = found.items_of(tile);
                    found.add_scores(index, &scores[..n], |lane| (tile * TILE + lane) as u32);
                }
            }
        }
    }

    fn finish(&self, scratch: &mut Scratch, found: &mut LocalHits) {
        for (query, pending) in scratch.pending.iter_mut().enumerate().filter(|(_, p)| !p.positions.is_empty()) {
            self.flush(query, pending, found);
        }
    }
}
