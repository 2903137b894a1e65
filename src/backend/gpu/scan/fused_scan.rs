//! The fused scan: chunks of items, or tasks of inverted lists, one dispatch each, and what is kept of them.

use std::ops::Range;
use std::sync::Arc;

use super::gate::GateWeights;
use super::inverted_lists::{InvertedLists, ListTasks};
use super::item_table::ItemTable;
use super::pack::Layout;
use super::plan::{Chunk, ScanLimits, ScanPlan, ScanShape, TILE};
use super::queries::{packed_queries, position_lists};
use super::sampled::SampledPlan;
use super::token_items::TokenQueries;
use super::variant::ShaderVariant;
use crate::Result;
use crate::backend::gpu::device::{Buffer, Gpu, KernelSpec, Tier, grid_1d, params};
use crate::backend::gpu::kernels::Recorder;
use crate::backend::gpu::select::{HitLists, Passed, TopK};
use crate::backend::{Exclusions, Hits, SearchContext};

/// Records the arrays of the query record for some of the queries.
pub(crate) type QueryParts<'a> = &'a dyn Fn(&mut Recorder, Range<usize>) -> Vec<Buffer>;

/// A scan of one table by one similarity.
pub(crate) struct Scan<'a> {
    pub context: &'a SearchContext,
    pub gpu: &'a Arc<Gpu>,
    pub limits: &'a ScanLimits,
    pub variant: &'a ShaderVariant,
    /// The kernel that the device has chosen, for scans that leave nothing out; `None` if the number of queries decides.
    pub tier: Option<Tier>,
    /// For Mixture-of-Logits.
    pub weights: Option<&'a GateWeights>,
    pub excluded: &'a Exclusions,
    pub n_queries: usize,
    pub query_parts: QueryParts<'a>,
    /// For late interaction, in place of the parts.
    pub tokens: Option<TokenQueries<'a>>,
}

/// The query side of a slice of the batch.
pub(crate) struct Slice {
    pub n_queries: usize,
    pub tier: Tier,
    /// Packed by [`Layout::Queries`].
    pub queries: Buffer,
    /// Where the vectors of each query are, for late interaction.
    pub extents: Option<Buffer>,
    /// From [`position_lists`].
    pub excluded: Buffer,
    pub denied: Option<Buffer>,
}

impl Scan<'_> {
    /// The best `k` items of `table` for every query, and the number of pairs that were left out because `prune` says
    /// that they may be.
    pub fn best(&self, table: &ItemTable, k: usize, prune: bool) -> Result<(Hits, u64)> {
        TopK::check(k)?;
        let Some(plan) = self.sampled_plan(k, &table.rows) else {
            return self.best_by_chunks(table, 0..self.n_queries, k, prune);
        };
        let (mut hits, mut pruned) = (Vec::with_capacity(self.n_queries), 0);
        for range in ranges(self.n_queries, plan.slice) {
            let mut recorder = Recorder::with_context(self.context, self.gpu);
            let (top_k, passed) = self.record_sampled(&mut recorder, (table, &plan), range.clone(), (k, prune))?;
            let sorted = top_k.sorted(&mut recorder);
            let [state, best] = sorted.buffers();
            let read = recorder.read_all(&[&passed.state, state, best])?;
            let mut found = sorted.hits(&read[1], &read[2]);
            let mut left_out: Vec<u64> = HitLists::states(&read[1]).map(|state| u64::from(state.pruned)).collect();
            let lacking = passed.lacking(&read[0]);
            let first = lacking.iter().position(|&lacks| lacks);
            if let Some((first, last)) = first.zip(lacking.iter().rposition(|&lacks| lacks)) {
                let again = range.start + first..range.start + last + 1;
                let (others, others_pruned) = self.best_by_chunks(table, again, k, prune)?;
                found.splice(first..=last, others);
                left_out.splice(first..=last, [others_pruned]);
            }
            hits.extend(found);
            pruned += left_out.into_iter().sum::<u64>();
        }
        Ok((hits, pruned))
    }

    /// [`Scan::best`] of the queries `queries`, in chunks that double, after each of which lists are cut.
    fn best_by_chunks(&self, table: &ItemTable, queries: Range<usize>, k: usize, prune: bool) -> Result<(Hits, u64)> {
        let (mut hits, mut pruned) = (Vec::with_capacity(queries.len()), 0);
        self.selected(table, queries, (k, prune), |recorder, top_k, _| {
            let (found, left_out) = top_k.finish(recorder)?;
            hits.extend(found);
            pruned += left_out.into_iter().map(u64::from).sum::<u64>();
            Ok(())
        })?;
        Ok((hits, pruned))
    }

    /// Submits the search for the best `k` items of `table` for every query, which go to `positions` and `scores`, each (B, k)
    /// words. Does not wait.
    pub fn write_best(&self, table: &ItemTable, k: usize, positions_and_scores: [&Buffer; 2]) -> Result<()> {
        // Nobody looks at a result that stays there: it must be right at once.
        self.selected(table, 0..self.n_queries, (k, false), |recorder, top_k, first_query| {
            top_k.write(recorder, positions_and_scores, first_query);
            recorder.submit()
        })
    }

    /// Scans `table` for slices of the queries `queries`, and calls `finish` with what each has selected and the number of its first
    /// query.
    fn selected(
        &self,
        table: &ItemTable,
        queries: Range<usize>,
        (k, prune): (usize, bool),
        mut finish: impl FnMut(&mut Recorder, TopK, usize) -> Result<()>,
    ) -> Result<()> {
        TopK::check(k)?;
        let plan = self.plan(k, &table.rows)?;
        for range in ranges(queries.len(), plan.slice) {
            let range = queries.start + range.start..queries.start + range.end;
            let first_query = range.start;
            let mut recorder = Recorder::with_context(self.context, self.gpu);
            let top_k = self.record_best(&mut recorder, (table, &plan), range, (k, prune))?;
            finish(&mut recorder, top_k, first_query)?;
        }
        Ok(())
    }

    /// Records the scan of `table` for the queries `range`, of which the plan takes so many together: the threshold from the sample,
    /// the scan of everything, and the selection. Only the last commands are not submitted yet.
    ///
    /// # Errors
    /// Of submissions.
    pub fn record_sampled(
        &self,
        recorder: &mut Recorder,
        (table, plan): (&ItemTable, &SampledPlan),
        range: Range<usize>,
        (k, prune): (usize, bool),
    ) -> Result<(TopK, Passed)> {
        let tier = self.variant.tier(self.tier.filter(|_| !prune), range.len());
        let slice = self.slice(recorder, range, tier);
        let plain = self.variant.tier_kernel(tier);
        let kernel = if prune { self.variant.pruned_kernel(tier.queries()) } else { plain.clone() };
        let mut sample = TopK::new(recorder, slice.n_queries, plan.rank, plan.capacity);
        for chunk in &plan.sample {
            self.dispatch(recorder, &plain, (table, chunk), &slice, &sample.lists);
        }
        sample.select(recorder, plan.sampled, self.limits.long_list);
        let lists = sample.lists;
        lists.take_threshold(recorder);
        for (i, submission) in plan.submissions.iter().enumerate() {
            if i > 0 {
                recorder.submit()?;
            }
            for chunk in submission {
                self.dispatch(recorder, &kernel, (table, chunk), &slice, &lists);
            }
        }
        let passed = lists.passed(recorder, k);
        let mut top_k = TopK::of(lists, k);
        top_k.select(recorder, plan.expected, self.limits.long_list);
        Ok((top_k, passed))
    }

    /// Records the scan of `table` for the queries `range`, of which the plan takes so many together. Only the last commands are
    /// not submitted yet.
    ///
    /// # Errors
    /// Of submissions.
    pub fn record_best(
        &self,
        recorder: &mut Recorder,
        (table, plan): (&ItemTable, &ScanPlan),
        range: Range<usize>,
        (k, prune): (usize, bool),
    ) -> Result<TopK> {
        let tier = self.variant.tier(self.tier.filter(|_| !prune), range.len());
        let slice = self.slice(recorder, range, tier);
        let kernel = if prune { self.variant.pruned_kernel(tier.queries()) } else { self.variant.tier_kernel(tier) };
        let mut top_k = TopK::new(recorder, slice.n_queries, k, plan.capacity);
        for (i, submission) in plan.submissions.iter().enumerate() {
            if i > 0 {
                recorder.submit()?;
            }
            for chunk in submission {
                self.dispatch(recorder, &kernel, (table, chunk), &slice, &top_k.lists);
                top_k.select(recorder, chunk.n_tiles * TILE, self.limits.long_list);
            }
        }
        Ok(top_k)
    }

    /// Records the scan of `table` for the queries `range`, which leaves the hits of at least these thresholds, as far as there
    /// is room for them.
    ///
    /// # Errors
    /// Of submissions.
    pub fn record_above(
        &self,
        recorder: &mut Recorder,
        (table, plan): (&ItemTable, &ScanPlan),
        range: Range<usize>,
        (thresholds, capacity): (&[f32], usize),
    ) -> Result<HitLists> {
        let tier = self.variant.tier(None, range.len());
        let slice = self.slice(recorder, range, tier);
        let kernel = self.variant.tier_kernel(tier);
        let hits = HitLists::at_least(recorder, thresholds, capacity);
        for (i, submission) in plan.submissions.iter().enumerate() {
            if i > 0 {
                recorder.submit()?;
            }
            for chunk in submission {
                self.dispatch(recorder, &kernel, (table, chunk), &slice, &hits);
            }
        }
        Ok(hits)
    }

    /// All positions of `table`, ascending, whose score is at least the query's threshold.
    pub fn above(&self, table: &ItemTable, thresholds: &[f32]) -> Result<Vec<Vec<u32>>> {
        let plan = self.plan(0, &table.rows)?;
        let chunks: Vec<(usize, &Chunk)> =
            plan.submissions.iter().enumerate().flat_map(|(i, chunks)| chunks.iter().map(move |c| (i, c))).collect();
        let mut all = Vec::with_capacity(self.n_queries);
        for range in ranges(self.n_queries, plan.slice) {
            let mut recorder = Recorder::with_context(self.context, self.gpu);
            let tier = self.variant.tier(None, range.len());
            let slice = self.slice(&mut recorder, range.clone(), tier);
            let kernel = self.variant.tier_kernel(tier);
            let mut lists = vec![Vec::new(); slice.n_queries];
            // A hit list has room for a whole chunk; where several chunks together pass more than that, each half of
            // them is scanned by itself.
            let mut windows = vec![chunks.as_slice()];
            while let Some(window) = windows.pop() {
                let hits = HitLists::at_least(&mut recorder, &thresholds[range.clone()], plan.capacity);
                for submission in window.chunk_by(|a, b| a.0 == b.0) {
                    for (_, chunk) in submission {
                        self.dispatch(&mut recorder, &kernel, (table, chunk), &slice, &hits);
                    }
                    recorder.submit()?;
                }
                match hits.positions(&mut recorder)? {
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
    pub fn best_of_lists(&self, lists: &InvertedLists, probes: &[Vec<u32>], k: usize) -> Result<Hits> {
        let tasks = lists.tasks(probes);
        if tasks.longest() == 0 {
            return Ok(vec![Vec::new(); self.n_queries]);
        }
        let k = k.min(tasks.longest());
        TopK::check(k)?;
        let plan = self.list_plan(&tasks, k)?;
        let mut hits = Vec::with_capacity(self.n_queries);
        for range in ranges(self.n_queries, plan.slice) {
            let mut recorder = Recorder::with_context(self.context, self.gpu);
            let top_k = self.record_best_of_lists(&mut recorder, (lists, &tasks, &plan), range, k)?;
            hits.extend(top_k.finish(&mut recorder)?.0);
        }
        Ok(hits)
    }

    /// Records the scan of the lists that the queries `range` probe, of which the plan takes so many together. Only the last
    /// commands are not submitted yet.
    ///
    /// # Errors
    /// Of submissions.
    pub fn record_best_of_lists(
        &self,
        recorder: &mut Recorder,
        (lists, tasks, plan): (&InvertedLists, &ListTasks, &ScanPlan),
        range: Range<usize>,
        k: usize,
    ) -> Result<TopK> {
        let kernel = self.variant.list_kernel();
        let slice = self.slice(recorder, range.clone(), Tier::Registers(1));
        let mut top_k = TopK::new(recorder, slice.n_queries, k, plan.capacity);
        for (i, submission) in plan.submissions.iter().enumerate() {
            if i > 0 {
                recorder.submit()?;
            }
            for chunk in submission {
                let tiles = chunk.first_tile..chunk.first_tile + chunk.n_tiles;
                let shards = lists.chunk(tasks, range.clone(), tiles);
                for (shard, tasks) in shards.iter().enumerate().filter(|(_, tasks)| !tasks.is_empty()) {
                    self.dispatch_tasks(recorder, &kernel, (lists, shard, tasks), &slice, &top_k.lists);
                }
                top_k.select(recorder, chunk.n_tiles * TILE, self.limits.long_list);
            }
        }
        Ok(top_k)
    }

    fn shape(&self, k: usize) -> ScanShape {
        ScanShape {
            n_queries: self.n_queries,
            k,
            four_query_bytes: match &self.tokens {
                Some(tokens) => 4 * tokens.query_bytes(),
                None => Layout::Queries(4).bytes(&self.variant.queries, 1),
            },
            pair_flops: self.variant.pair_flops,
        }
    }

    pub(crate) fn plan(&self, k: usize, shards: &[Range<usize>]) -> Result<ScanPlan> {
        ScanPlan::new(&self.shape(k), shards, self.limits)
    }

    /// The plan of a scan of inverted lists: the tasks of a query lie one after the other like the tiles of a table.
    pub(crate) fn list_plan(&self, tasks: &ListTasks, k: usize) -> Result<ScanPlan> {
        self.plan(k, std::slice::from_ref(&(0..tasks.longest())))
    }

    /// The plan of a scan with a threshold from a sample, where that is worth it.
    pub(crate) fn sampled_plan(&self, k: usize, shards: &[Range<usize>]) -> Option<SampledPlan> {
        SampledPlan::new(&self.shape(k), shards, self.limits)
    }

    pub(crate) fn slice(&self, recorder: &mut Recorder, range: Range<usize>, tier: Tier) -> Slice {
        let n_queries = range.len();
        let lists = position_lists(range.clone().map(|query| self.excluded.of(query)));
        let (queries, extents) = match &self.tokens {
            Some(tokens) => {
                let [queries, extents] = tokens.packed(recorder, range);
                (queries, Some(extents))
            }
            None => {
                let parts = (self.query_parts)(recorder, range);
                (packed_queries(recorder, self.variant, tier.queries_per_thread(), &parts, n_queries), None)
            }
        };
        Slice {
            n_queries,
            tier,
            queries,
            extents,
            excluded: recorder.upload(&lists),
            denied: self.excluded.denied.as_ref().map(|denied| recorder.upload(denied.words())),
        }
    }

    pub(crate) fn dispatch(
        &self,
        recorder: &mut Recorder,
        kernel: &KernelSpec,
        (table, chunk): (&ItemTable, &Chunk),
        slice: &Slice,
        hits: &HitLists,
    ) {
        let rows = &table.rows[chunk.shard];
        let params = ScanParams {
            first_tile: chunk.first_tile as u32,
            tile_stride: chunk.stride as u32,
            n_items: rows.len() as u32,
            first_position: rows.start as u32,
            n_queries: slice.n_queries as u32,
            capacity: hits.capacity as u32,
            has_denied: slice.denied.is_some().into(),
            inverse_temperature: self.variant.inverse_temperature,
        };
        // A workgroup has a tile of items, or a single one.
        let items = if self.tokens.is_some() { TILE as u32 } else { 1 };
        let grid = [slice.n_queries.div_ceil(slice.tier.queries()) as u32, chunk.n_tiles as u32, items];
        let buffers = self.buffers(&table.shards[chunk.shard], slice, hits);
        let halves = self.weights.and_then(|weights| weights.halves.as_ref()).filter(|_| slice.tier.is_cooperative());
        let weights = self.weights.map(|weights| &weights.floats);
        let tokens = self.tokens.as_ref().map(|tokens| &tokens.items.offsets[chunk.shard]);
        let own = [weights, halves, tokens, slice.extents.as_ref()].into_iter().flatten();
        let buffers: Vec<&Buffer> = buffers.into_iter().chain(own).collect();
        recorder.dispatch(kernel, &params, &buffers, grid);
    }

    fn dispatch_tasks(
        &self,
        recorder: &mut Recorder,
        kernel: &KernelSpec,
        (lists, shard, tasks): (&InvertedLists, usize, &[[u32; 3]]),
        slice: &Slice,
        hits: &HitLists,
    ) {
        let params = ListParams {
            n_tasks: tasks.len() as u32,
            capacity: hits.capacity as u32,
            has_denied: slice.denied.is_some().into(),
        };
        let uploaded = recorder.upload(tasks);
        let buffers = self.buffers(&lists.table.shards[shard], slice, hits);
        let buffers: Vec<&Buffer> = buffers.into_iter().chain([&uploaded, &lists.positions[shard]]).collect();
        recorder.dispatch(kernel, &params, &buffers, grid_1d(tasks.len() as u64));
    }

    /// Those of `hit_filter.wgsl`.
    fn buffers<'b>(&self, items: &'b Buffer, slice: &'b Slice, hits: &'b HitLists) -> [&'b Buffer; 6]
    where
        Self: 'b,
    {
        let Slice { queries, excluded, denied, .. } = slice;
        // What is not there is not looked at.
        [queries, items, excluded, denied.as_ref().unwrap_or(excluded), &hits.state, &hits.hits]
    }
}

/// So many of `n` queries at a time.
fn ranges(n: usize, slice: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(slice.max(1)).map(move |from| from..n.min(from + slice))
}

params!(ScanParams {
    first_tile: u32,
    tile_stride: u32,
    n_items: u32,
    first_position: u32,
    n_queries: u32,
    capacity: u32,
    has_denied: u32,
    inverse_temperature: f32
});

params!(ListParams { n_tasks: u32, capacity: u32, has_denied: u32 });
