//! The fused scan: chunks of items, or tasks of inverted lists, one dispatch each, and what is kept of them.

use std::ops::Range;
use std::sync::Arc;

use super::item_table::ItemTable;
use super::kernel::{ParamsLayout, params};
use super::lists::ListTable;
use super::mol_side::Weights;
use super::pack::Layout;
use super::plan::{Chunk, ScanLimits, ScanPlan, ScanShape, TILE};
use super::program::Program;
use super::round::rounded;
use super::survivors::Survivors;
use super::tier::Tier;
use super::top_k::TopK;
use super::{Buffer, Gpu, KernelSpec, Recorder, grid_1d};
use crate::Result;
use crate::backend::{Exclusions, Hits};

/// Records the arrays of the query record for some of the queries.
pub(super) type QueryParts<'a> = &'a dyn Fn(&mut Recorder, Range<usize>) -> Vec<Buffer>;

/// A scan of one table by one similarity.
pub(super) struct Scan<'a> {
    pub gpu: &'a Arc<Gpu>,
    pub limits: &'a ScanLimits,
    pub program: &'a Program,
    /// For Mixture-of-Logits.
    pub weights: Option<&'a Weights>,
    pub excluded: &'a Exclusions,
    pub n_queries: usize,
    pub query_parts: QueryParts<'a>,
}

/// The query side of a slice of the batch.
pub(super) struct Slice {
    pub n_queries: usize,
    pub tier: Tier,
    /// Packed by [`Layout::Queries`].
    pub queries: Buffer,
    /// From [`position_lists`].
    pub excluded: Buffer,
    pub denied: Option<Buffer>,
}

impl Scan<'_> {
    /// The best `k` items of `table` for every query, and the number of pairs that were left out because `prune` says
    /// that they may be.
    pub fn best(&self, table: &ItemTable, k: usize, prune: bool) -> Result<(Hits, u64)> {
        let (mut hits, mut pruned) = (Vec::with_capacity(self.n_queries), 0);
        self.selected(table, k, prune, |recorder, top_k, _| {
            let (found, left_out) = top_k.finish(recorder)?;
            hits.extend(found);
            pruned += left_out.into_iter().map(u64::from).sum::<u64>();
            Ok(())
        })?;
        Ok((hits, pruned))
    }

    /// Submits the search for the best `k` items of `table` for every query, which go to `positions` and `scores`, each (B, k)
    /// words. Does not wait.
    pub fn leave_best(&self, table: &ItemTable, k: usize, positions_and_scores: [&Buffer; 2]) -> Result<()> {
        self.selected(table, k, false, |recorder, top_k, first_query| {
            top_k.leave(recorder, positions_and_scores, first_query);
            recorder.submit()
        })
    }

    /// Scans `table` for slices of the batch, and calls `finish` with what each has selected and the number of its first
    /// query.
    fn selected(
        &self,
        table: &ItemTable,
        k: usize,
        prune: bool,
        mut finish: impl FnMut(&mut Recorder, TopK, usize) -> Result<()>,
    ) -> Result<()> {
        TopK::check(k)?;
        let plan = self.plan(k, &table.rows)?;
        let chosen = if prune { None } else { self.chosen(table)? };
        for range in self.slices(&plan) {
            let first_query = range.start;
            let mut recorder = Recorder::new(self.gpu);
            let tier = self.program.tier(chosen, range.len());
            let slice = self.slice(&mut recorder, range, tier);
            let kernel =
                if prune { self.program.pruned_kernel(tier.queries()) } else { self.program.tier_kernel(tier) };
            let mut top_k = TopK::new(&mut recorder, slice.n_queries, k, plan.capacity);
            for (i, submission) in plan.submissions.iter().enumerate() {
                if i > 0 {
                    recorder.submit()?;
                }
                for chunk in submission {
                    self.dispatch(&mut recorder, &kernel, (table, chunk), &slice, &top_k.survivors);
                    top_k.select(&mut recorder, chunk.n_tiles * TILE, self.limits);
                }
            }
            finish(&mut recorder, top_k, first_query)?;
        }
        Ok(())
    }

    /// All positions of `table`, ascending, whose score is at least the query's threshold.
    pub fn above(&self, table: &ItemTable, thresholds: &[f32]) -> Result<Vec<Vec<u32>>> {
        let plan = self.plan(0, &table.rows)?;
        let chunks: Vec<(usize, &Chunk)> =
            plan.submissions.iter().enumerate().flat_map(|(i, chunks)| chunks.iter().map(move |c| (i, c))).collect();
        let mut all = Vec::with_capacity(self.n_queries);
        for range in self.slices(&plan) {
            let mut recorder = Recorder::new(self.gpu);
            let tier = self.program.tier(None, range.len());
            let slice = self.slice(&mut recorder, range.clone(), tier);
            let kernel = self.program.tier_kernel(tier);
            let mut lists = vec![Vec::new(); slice.n_queries];
            // A survivor list has room for a whole chunk; where several chunks together pass more than that, each half of
            // them is scanned by itself.
            let mut windows = vec![chunks.as_slice()];
            while let Some(window) = windows.pop() {
                let survivors = Survivors::at_least(&mut recorder, &thresholds[range.clone()], plan.capacity);
                for submission in window.chunk_by(|a, b| a.0 == b.0) {
                    for (_, chunk) in submission {
                        self.dispatch(&mut recorder, &kernel, (table, chunk), &slice, &survivors);
                    }
                    recorder.submit()?;
                }
                match survivors.positions(&mut recorder)? {
                    Some(found) => lists.iter_mut().zip(found).for_each(|(list, found)| list.extend(found)),
                    None => {
                        let (first, second) = window.split_at(window.len() / 2);
                        windows.extend([second, first]);
                    }
                }
            }
            all.extend(lists);
        }
        Ok(all)
    }

    /// The best `k` items for every query among the lists that `probes` names for it.
    pub fn best_of_lists(&self, lists: &ListTable, probes: &[Vec<u32>], k: usize) -> Result<Hits> {
        let tasks: Vec<_> = probes.iter().map(|probes| lists.tasks(probes)).collect();
        let most = tasks.iter().map(Vec::len).max().unwrap_or(0) * TILE;
        if most == 0 {
            return Ok(vec![Vec::new(); self.n_queries]);
        }
        // The tasks of a query lie one after the other like the tiles of a table.
        let (k, extent) = (k.min(most), 0..most);
        TopK::check(k)?;
        let plan = self.plan(k, std::slice::from_ref(&extent))?;
        let kernel = self.program.list_kernel();
        let mut hits = Vec::with_capacity(self.n_queries);
        for range in self.slices(&plan) {
            let mut recorder = Recorder::new(self.gpu);
            let slice = self.slice(&mut recorder, range.clone(), Tier::Registers(1));
            let mut top_k = TopK::new(&mut recorder, slice.n_queries, k, plan.capacity);
            for (i, submission) in plan.submissions.iter().enumerate() {
                if i > 0 {
                    recorder.submit()?;
                }
                for chunk in submission {
                    let shards = lists.chunk(&tasks[range.clone()], chunk.first_tile..chunk.first_tile + chunk.n_tiles);
                    for (shard, tasks) in shards.iter().enumerate().filter(|(_, tasks)| !tasks.is_empty()) {
                        self.dispatch_tasks(&mut recorder, &kernel, (lists, shard, tasks), &slice, &top_k.survivors);
                    }
                    top_k.select(&mut recorder, chunk.n_tiles * TILE, self.limits);
                }
            }
            hits.extend(top_k.finish(&mut recorder)?.0);
        }
        Ok(hits)
    }

    fn plan(&self, k: usize, shards: &[Range<usize>]) -> Result<ScanPlan> {
        let shape = ScanShape {
            n_queries: self.n_queries,
            k,
            four_query_bytes: Layout::Queries(4).bytes(&self.program.queries, 1),
            pair_flops: self.program.pair_flops,
        };
        ScanPlan::new(&shape, shards, self.limits)
    }

    fn slices(&self, plan: &ScanPlan) -> impl Iterator<Item = Range<usize>> + use<> {
        let (n_queries, slice) = (self.n_queries, plan.slice);
        (0..n_queries).step_by(slice).map(move |from| from..n_queries.min(from + slice))
    }

    pub(super) fn slice(&self, recorder: &mut Recorder, range: Range<usize>, tier: Tier) -> Slice {
        let n_queries = range.len();
        let lists = position_lists(range.clone().map(|query| self.excluded.of(query)));
        let parts = (self.query_parts)(recorder, range);
        Slice {
            n_queries,
            tier,
            queries: packed_queries(recorder, self.program, tier.lanes(), &parts, n_queries),
            excluded: recorder.upload(&lists),
            denied: self.excluded.denied.as_ref().map(|denied| recorder.upload(denied.words())),
        }
    }

    pub(super) fn dispatch(
        &self,
        recorder: &mut Recorder,
        kernel: &KernelSpec,
        (table, chunk): (&ItemTable, &Chunk),
        slice: &Slice,
        survivors: &Survivors,
    ) {
        let rows = &table.rows[chunk.shard];
        let params = ScanParams {
            first_tile: chunk.first_tile as u32,
            n_items: rows.len() as u32,
            first_position: rows.start as u32,
            n_queries: slice.n_queries as u32,
            capacity: survivors.capacity as u32,
            has_denied: slice.denied.is_some().into(),
            inverse_temperature: self.program.inverse_temperature,
        };
        let grid = [slice.n_queries.div_ceil(slice.tier.queries()) as u32, chunk.n_tiles as u32, 1];
        let buffers = self.buffers(&table.shards[chunk.shard], slice, survivors);
        let halves = self.weights.and_then(|weights| weights.halves.as_ref()).filter(|_| slice.tier.is_cooperative());
        let weights = self.weights.map(|weights| &weights.floats);
        let buffers: Vec<&Buffer> = buffers.into_iter().chain(weights).chain(halves).collect();
        recorder.dispatch(kernel, &params, &buffers, grid);
    }

    fn dispatch_tasks(
        &self,
        recorder: &mut Recorder,
        kernel: &KernelSpec,
        (lists, shard, tasks): (&ListTable, usize, &[[u32; 3]]),
        slice: &Slice,
        survivors: &Survivors,
    ) {
        let params = ListParams {
            n_tasks: tasks.len() as u32,
            capacity: survivors.capacity as u32,
            has_denied: slice.denied.is_some().into(),
        };
        let uploaded = recorder.upload(tasks);
        let buffers = self.buffers(&lists.table.shards[shard], slice, survivors);
        let buffers: Vec<&Buffer> = buffers.into_iter().chain([&uploaded, &lists.positions[shard]]).collect();
        recorder.dispatch(kernel, &params, &buffers, grid_1d(tasks.len() as u64));
    }

    /// Those of `survivors.wgsl`.
    fn buffers<'b>(&self, items: &'b Buffer, slice: &'b Slice, survivors: &'b Survivors) -> [&'b Buffer; 6]
    where
        Self: 'b,
    {
        let Slice { queries, excluded, denied, .. } = slice;
        // What is not there is not looked at.
        [queries, items, excluded, denied.as_ref().unwrap_or(excluded), &survivors.state, &survivors.hits]
    }
}

/// One list of positions per query as kernels read them: offsets from the start of the array, then positions.
pub(super) fn position_lists<'a>(lists: impl ExactSizeIterator<Item = &'a [u32]>) -> Vec<u32> {
    let mut array = vec![0; lists.len() + 1];
    array[0] = array.len() as u32;
    for (i, list) in lists.enumerate() {
        array.extend(list);
        array[i + 1] = array.len() as u32;
    }
    array
}

/// Queries as a kernel of `program` reads them; `parts` are row-major arrays of floats: vectors, then what else there is.
pub(super) fn packed_queries(
    recorder: &mut Recorder,
    program: &Program,
    lanes: usize,
    parts: &[Buffer],
    n: usize,
) -> Buffer {
    let layout = Layout::Queries(lanes);
    let integers = program.rounded.zip(parts.split_first());
    let integers = integers.map(|((groups, width), (vectors, others))| {
        let [planes, scales] = rounded(recorder, vectors, n * groups, width);
        [&[planes, scales], others].concat()
    });
    let packed = recorder.temporary(layout.bytes(&program.queries, n));
    layout.pack(recorder, &program.queries, integers.as_deref().unwrap_or(parts), n, &packed, 0);
    packed
}

params!(ScanParams {
    first_tile: u32,
    n_items: u32,
    first_position: u32,
    n_queries: u32,
    capacity: u32,
    has_denied: u32,
    inverse_temperature: f32
});

params!(ListParams { n_tasks: u32, capacity: u32, has_denied: u32 });
