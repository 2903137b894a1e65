//! Late interaction: the token embeddings of items on the device, and those of queries as its kernels read them.

use std::ops::Range;
use std::sync::Arc;

use super::item_table::{ItemSource, ItemTable};
use super::pack::Layout;
use super::plan::{ScanLimits, TILE};
use super::queries::{packed_queries, position_lists};
use super::variant::ShaderVariant;
use crate::backend::gpu::device::{Buffer, Gpu, KernelSpec, ParamsLayout, grid_1d, params};
use crate::backend::gpu::kernels::Recorder;
use crate::backend::{DeviceKind, SearchContext};
use crate::tables::TokenTable;
use crate::token_embeddings::TokenEmbeddings;
use crate::{Error, Result};

/// Query vectors side by side in the packed query table.
const SIDE_BY_SIDE: usize = 4;

/// The vectors of all items.
#[derive(Debug)]
pub(crate) struct TokenItems {
    /// Rows of each shard are items; its buffer holds their vectors.
    pub table: ItemTable,
    /// Of each shard: the first vector of each item, and the end.
    pub offsets: Vec<Buffer>,
    pub variant: ShaderVariant,
    /// Vectors of an item in the longest tile of items, on its average.
    mean_length: u64,
}

impl TokenItems {
    /// Uploads and packs `tokens`.
    ///
    /// # Errors
    /// If they do not fit, or the device fails.
    pub fn new(
        context: &SearchContext,
        gpu: &Arc<Gpu>,
        tokens: &TokenTable,
        limits: &ScanLimits,
    ) -> Result<TokenItems> {
        let source = ItemSource::plain(tokens.vectors());
        let shards = shards(tokens, source.layout().tile_bytes(), limits)?;
        let rows = |items: &Range<usize>| tokens.rows_of(items.start).start..tokens.rows_of(items.end - 1).end;
        let vectors: Vec<Range<usize>> = shards.iter().map(rows).collect();
        let table = ItemTable::new(context, gpu, source, &vectors, limits)?;
        let mut offsets = Vec::with_capacity(shards.len());
        for (items, vectors) in shards.iter().zip(&vectors) {
            let of_shard = &tokens.offsets()[items.start..=items.end];
            let of_shard: Vec<u32> = of_shard.iter().map(|&offset| (offset - vectors.start as u64) as u32).collect();
            let buffer = gpu.buffer(4 * of_shard.len() as u64)?;
            gpu.write(&buffer, bytemuck::cast_slice(&of_shard))?;
            offsets.push(buffer);
        }
        // A software driver compiles sixteen for minutes.
        let at_once = if gpu.info().kind == DeviceKind::SoftwareGpu { 4 } else { 16 };
        let variant = ShaderVariant::max_sim(&table.layout, tokens.vectors().width(), at_once);
        let mean_length = greatest_mean_length(tokens);
        Ok(TokenItems { table: ItemTable { rows: shards, ..table }, offsets, variant, mean_length })
    }

    /// The kernels for `queries`, which know what a pair costs.
    pub fn variant_for(&self, queries: &TokenEmbeddings) -> ShaderVariant {
        let longest = TokenQueries { items: self, queries }.longest();
        let pair_flops = self.variant.pair_flops * self.mean_length * longest as u64;
        let mut variant = self.variant.clone();
        variant.pair_flops = pair_flops.max(1);
        variant
    }

    pub fn bytes(&self) -> u64 {
        self.table.bytes() + self.offsets.iter().map(Buffer::bytes).sum::<u64>()
    }

    /// Scores of the candidates of each query.
    pub fn rescore(
        &self,
        recorder: &mut Recorder,
        queries: &TokenEmbeddings,
        candidates: &[Vec<u32>],
    ) -> Result<Vec<Vec<f32>>> {
        let lists = || candidates.iter().map(Vec::as_slice);
        let longest = lists().map(<[u32]>::len).max().unwrap_or(0);
        let [packed, extents] = TokenQueries { items: self, queries }.packed(recorder, 0..queries.len());
        let positions = recorder.upload(&position_lists(lists()));
        let scores = recorder.temporary(lists().map(|list| 4 * list.len() as u64).sum());
        for (shard, rows) in self.table.rows.iter().enumerate() {
            let params = RescoreParams { first_position: rows.start as u32, n_items: rows.len() as u32 };
            let (items, offsets) = (&self.table.shards[shard], &self.offsets[shard]);
            let buffers = [&packed, items, offsets, &extents, &positions, &scores];
            let [x, z, _] = grid_1d(longest as u64);
            let grid = [x, candidates.len() as u32, z];
            recorder.dispatch(&self.variant.max_sim_rescore_kernel(), &params, &buffers, grid);
        }
        let scores: Vec<f32> = bytemuck::pod_collect_to_vec(&recorder.read_bytes(&scores)?);
        let mut rest = scores.into_iter();
        Ok(lists().map(|list| rest.by_ref().take(list.len()).collect()).collect())
    }
}

params!(RescoreParams { first_position: u32, n_items: u32 });

/// The rescoring of `variant`, for tests of `shaders/`.
pub(crate) fn rescore_spec(variant: &ShaderVariant) -> (KernelSpec, ParamsLayout) {
    (variant.max_sim_rescore_kernel(), RescoreParams::LAYOUT)
}

/// Queries of a scan of `items`.
#[derive(Clone, Copy)]
pub(crate) struct TokenQueries<'a> {
    pub items: &'a TokenItems,
    pub queries: &'a TokenEmbeddings,
}

impl TokenQueries<'_> {
    /// Of the queries `range`: their vectors in whole blocks, and the number of the first block and of the vectors of each.
    pub fn packed(&self, recorder: &mut Recorder, range: Range<usize>) -> [Buffer; 2] {
        let (mut rows, mut extents) = (Vec::new(), Vec::new());
        let dim = self.queries.dim();
        for query in range {
            let n = self.queries.range(query).len();
            let at_once = self.items.variant.query_vectors_at_once();
            extents.push([(rows.len() / dim.max(1) / at_once) as u32, n as u32]);
            rows.extend_from_slice(self.queries.vectors_of(query));
            rows.resize(rows.len() + (self.padded(n) - n) * dim, 0.0f32);
        }
        let n = rows.len() / dim.max(1);
        let vectors = recorder.upload(&rows);
        let packed = packed_queries(recorder, &self.items.variant, SIDE_BY_SIDE, &[vectors], n);
        [packed, recorder.upload(&extents)]
    }

    /// Bytes of the packed vectors of the longest query.
    pub fn query_bytes(&self) -> u64 {
        Layout::Queries(SIDE_BY_SIDE).bytes(&self.items.variant.queries, self.longest())
    }

    /// Vectors of the longest query, in whole blocks.
    fn longest(&self) -> usize {
        (0..self.queries.len()).map(|query| self.padded(self.queries.range(query).len())).max().unwrap_or(0)
    }

    fn padded(&self, n: usize) -> usize {
        n.next_multiple_of(self.items.variant.query_vectors_at_once())
    }
}

/// Vectors of an item, on the average of that tile of adjacent items that has most: a dispatch may happen to scan only such.
fn greatest_mean_length(tokens: &TokenTable) -> u64 {
    let mean = |items: &[u64]| (items[items.len() - 1] - items[0]).div_ceil(items.len() as u64 - 1);
    let tiles = (0..tokens.len()).step_by(TILE).map(|from| from..=tokens.len().min(from + TILE));
    tiles.map(|tile| mean(&tokens.offsets()[tile])).max().unwrap_or(1)
}

/// Items of each shard: whole tiles, so that a scan may count in them, whose vectors fit a binding.
fn shards(tokens: &TokenTable, tile_bytes: u64, limits: &ScanLimits) -> Result<Vec<Range<usize>>> {
    let most = (limits.binding_bytes / tile_bytes.max(1)) as usize * TILE;
    let mut shards: Vec<Range<usize>> = Vec::new();
    for from in (0..tokens.len()).step_by(TILE) {
        let to = tokens.len().min(from + TILE);
        let end = tokens.rows_of(to - 1).end;
        let fits = |from: usize| end - tokens.rows_of(from).start <= most;
        match shards.last_mut() {
            Some(shard) if fits(shard.start) => shard.end = to,
            _ if fits(from) => shards.push(from..to),
            _ => {
                let need = ((end - tokens.rows_of(from).start).div_ceil(TILE)) as u64 * tile_bytes;
                let what = "bytes of the token embeddings of 64 items";
                return Err(Error::Limit { what, need, have: limits.binding_bytes });
            }
        }
    }
    Ok(shards)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Dtype;

    #[test]
    fn work_is_planned_by_the_tile_of_the_longest_items() {
        let mut tokens = TokenTable::new(1, Dtype::F32);
        assert_eq!(greatest_mean_length(&tokens), 1);
        // Short items, a tile that begins with long ones, and a part of a tile.
        for position in 0..2 * TILE + 3 {
            let length = if (TILE..TILE + TILE / 2).contains(&position) { 20 } else { 1 };
            tokens.append(&vec![0.0; length]);
        }
        assert_eq!(greatest_mean_length(&tokens), 11);
    }
}
