//! An item index on the device: its tables, built there in chunks of items, and the order of a scan.

use std::ops::Range;
use std::sync::Arc;

use super::pack::Layout;
use super::plan::{ScanLimits, ScanPlan, ScanShape, TILE, shards};
use super::scan::{Program, QueryTable, Rescore, cross_weights};
use super::top_k::{MOST_HITS, TopK};
use super::{Buffer, Gpu, Recorder};
use crate::backend::check;
use crate::backend::{
    Columns, DeviceIndex, DeviceKind, Dtype, Exclusions, Hits, QueryBatch, ScoredPosition, Scorer, Similarity,
};
use crate::model::Mol;
use crate::tables::Tables;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Bytes of the widest intermediate array while the item side of one chunk is computed.
const BUILD_BYTES: usize = 64 << 20;

/// Most queries of one rescore: they are counted along one axis of the grid.
const MOST_LISTS: usize = 65_535;

/// An item index on a device.
#[derive(Debug)]
pub struct GpuIndex {
    gpu: Arc<Gpu>,
    limits: ScanLimits,
    dtype: Dtype,
    dim: usize,
    /// Positions of the items of each shard.
    shards: Vec<Range<usize>>,
    dot: Table,
    mol: Option<Table>,
}

/// A similarity: its program, and its item table in every shard.
#[derive(Debug)]
struct Table {
    program: Program,
    shards: Vec<Buffer>,
    /// Mixture-of-Logits weights; `None` for inner products.
    mol: Option<Mol<Buffer>>,
    /// What the scan kernel reads of them.
    weights: Buffer,
}

impl Table {
    fn new(gpu: &Gpu, program: Program, shards: &[Range<usize>], mol: Option<&Mol<Tensor>>) -> Result<Table> {
        let bytes = |shard: &Range<usize>| program.item_layout().bytes(&program.items, shard.len());
        let shards = shards.iter().map(|shard| gpu.buffer(bytes(shard))).collect::<Result<_>>()?;
        let weights = match mol {
            Some(mol) => gpu.upload(&cross_weights(&mol.gate_cross))?,
            None => gpu.nothing().clone(),
        };
        let mol = mol.map(|mol| uploaded(gpu, mol)).transpose()?;
        Ok(Table { program, shards, mol, weights })
    }
}

impl GpuIndex {
    /// Computes the item side of `embeddings` (N, D) on the device; see [`crate::backend::Backend::index`]. `limits` are
    /// lowered to those of the device.
    ///
    /// # Errors
    /// If there are no items, an embedding is not finite or not as wide as `mol` expects, the tables do not fit, or the
    /// device fails.
    pub fn new(
        gpu: &Arc<Gpu>,
        tables: &Tables,
        similarity: Option<&Similarity>,
        limits: ScanLimits,
    ) -> Result<GpuIndex> {
        let (n_items, dim, dtype) = (tables.len(), tables.raw.width(), tables.dtype());
        let mol = similarity.map(|similarity| &similarity.mol);
        let limits = limits.on(gpu);
        let software = gpu.info().kind == DeviceKind::SoftwareGpu;
        let dot = Program::dot(dim, dtype);
        let mol = mol.map(|mol| (Program::mol(&mol.config, dtype, software), mol));
        let tile_bytes = |program: &Program| program.item_layout().bytes(&program.items, TILE);
        let widest = mol.as_ref().map_or(0, |(program, _)| tile_bytes(program)).max(tile_bytes(&dot));
        let shards = shards(n_items, widest, &limits)?;
        let dot = Table::new(gpu, dot, &shards, None)?;
        let mol = mol.map(|(program, mol)| Table::new(gpu, program, &shards, Some(mol))).transpose()?;
        let index = GpuIndex { gpu: gpu.clone(), limits, dtype, dim, shards, dot, mol };
        index.build(tables)?;
        Ok(index)
    }

    fn build(&self, tables: &Tables) -> Result<()> {
        let widest = tables.named().iter().map(|(_, table)| table.width()).max().unwrap_or(1);
        let bytes = BUILD_BYTES.min(self.limits.binding_bytes as usize);
        let chunk = (bytes / (4 * widest) / TILE).max(1) * TILE;
        let mut recorder = Recorder::new(&self.gpu);
        for (shard, positions) in self.shards.iter().enumerate() {
            for from in positions.clone().step_by(chunk) {
                let n = chunk.min(positions.end - from);
                let first_tile = (from - positions.start) / TILE;
                let mut pack = |table: &Table, parts: &[Vec<f32>]| {
                    let (layout, record) = (table.program.item_layout(), &table.program.items);
                    let parts: Vec<Buffer> = parts.iter().map(|part| recorder.upload(part)).collect();
                    let parts: Vec<&Buffer> = parts.iter().collect();
                    layout.pack(&mut recorder, record, &parts, n, &table.shards[shard], first_tile);
                };
                pack(&self.dot, &[tables.raw.read_rows(from..from + n)]);
                if let (Some(table), Some(mol)) = (&self.mol, &tables.mol) {
                    let rows = |table: &crate::tables::Table| table.read_rows(from..from + n);
                    let parts: Vec<Vec<f32>> = mol.components.iter().chain(&mol.gate).map(rows).collect();
                    pack(table, &parts);
                }
                // Waiting for each chunk bounds the memory of uploads that are under way.
                recorder.read_bytes(&self.dot.shards[shard].slice(0..4))?;
            }
        }
        Ok(())
    }

    /// Scans everything: `program` reads the `tables` of the shards, and `query_parts` yields the arrays of its query
    /// record for some of the queries.
    fn scan_all(
        &self,
        (program, tables, weights): (&Program, &[Buffer], &Buffer),
        n_queries: usize,
        k: usize,
        excluded: &Exclusions,
        query_parts: impl Fn(&mut Recorder, Range<usize>) -> Vec<Buffer>,
    ) -> Result<Vec<Vec<ScoredPosition>>> {
        if k > MOST_HITS {
            return Err(Error::Limit { what: "k on a GPU", need: k as u64, have: MOST_HITS as u64 });
        }
        if n_queries == 0 {
            return Ok(Vec::new());
        }
        let shape = ScanShape {
            n_queries,
            k,
            four_query_bytes: Layout::Queries(4).bytes(&program.queries, 1),
            pair_flops: program.pair_flops,
        };
        let plan = ScanPlan::new(&shape, &self.shards, &self.limits)?;
        let mut hits = Vec::with_capacity(n_queries);
        for from in (0..n_queries).step_by(plan.slice) {
            let slice = from..n_queries.min(from + plan.slice);
            let mut recorder = Recorder::new(&self.gpu);
            let lanes = program.lanes(slice.len());
            let parts = query_parts(&mut recorder, slice.clone());
            let table = packed_queries(&mut recorder, program, lanes, &parts, slice.len());
            let lists = slice.clone().map(|query| excluded.of(query));
            let excluded = recorder.upload(&position_lists(lists));
            let side = QueryTable { n_queries: slice.len(), lanes, table, weights: weights.clone(), excluded };
            let top_k = TopK::new(&mut recorder, slice.len(), k, plan.capacity);
            for (i, submission) in plan.submissions.iter().enumerate() {
                if i > 0 {
                    recorder.submit()?;
                }
                for chunk in submission {
                    let items = &tables[chunk.shard];
                    program.dispatch(&mut recorder, chunk, &self.shards[chunk.shard], items, &side, &top_k);
                    top_k.select(&mut recorder);
                }
            }
            hits.extend(top_k.finish(&mut recorder)?);
        }
        Ok(hits)
    }

    /// Scores the candidates of the queries `slice` in one submission.
    fn rescore_slice(
        &self,
        table: &Table,
        queries: &QueryBatch,
        slice: Range<usize>,
        candidates: &[Vec<u32>],
    ) -> Result<Vec<f32>> {
        let mut recorder = Recorder::new(&self.gpu);
        let lists = || candidates[slice.clone()].iter().map(Vec::as_slice);
        let parts = self.query_parts(table, queries, &mut recorder, slice.clone());
        let rescore = Rescore {
            n_queries: slice.len(),
            longest: lists().map(<[u32]>::len).max().unwrap_or(0),
            queries: packed_queries(&mut recorder, &table.program, 1, &parts, slice.len()),
            weights: table.weights.clone(),
            candidates: recorder.upload(&position_lists(lists())),
            scores: recorder.temporary(lists().map(|list| 4 * list.len() as u64).sum()),
        };
        for (items, positions) in table.shards.iter().zip(&self.shards) {
            table.program.rescore(&mut recorder, positions, items, &rescore);
        }
        Ok(bytemuck::pod_collect_to_vec(&recorder.read_bytes(&rescore.scores)?))
    }

    /// The arrays of a query record: components and gate part, or raw embeddings.
    fn query_parts(
        &self,
        table: &Table,
        queries: &QueryBatch,
        recorder: &mut Recorder,
        slice: Range<usize>,
    ) -> Vec<Buffer> {
        let raw = recorder.upload(&queries.embeddings.data()[slice.start * self.dim..slice.end * self.dim]);
        match &table.mol {
            Some(mol) => {
                let (components, gate) = mol.query_side(recorder, &raw, &queries.user_ids[slice]);
                std::iter::once(components).chain(gate).collect()
            }
            None => vec![raw],
        }
    }

    fn n_items(&self) -> usize {
        self.shards.last().map_or(0, |shard| shard.end)
    }
}

impl DeviceIndex for GpuIndex {
    fn scan(
        &self,
        scorer: Scorer,
        queries: &QueryBatch,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<Vec<Vec<ScoredPosition>>> {
        check::scan((self.n_items(), self.dim, self.mol.is_some()), scorer, queries, k, excluded)?;
        let table = match (scorer, &self.mol) {
            (Scorer::Mol, Some(table)) => table,
            _ => &self.dot,
        };
        let view = (&table.program, table.shards.as_slice(), &table.weights);
        self.scan_all(view, queries.embeddings.rows(), k, excluded, |recorder, slice| {
            self.query_parts(table, queries, recorder, slice)
        })
    }

    fn scan_pruned(&self, queries: &QueryBatch, k: usize, excluded: &Exclusions) -> Result<(Hits, u64)> {
        Ok((self.scan(Scorer::Mol, queries, k, excluded)?, 0))
    }

    fn scan_components(&self, vectors: &Tensor, columns: Columns, k: usize, excluded: &Exclusions) -> Result<Hits> {
        let mol = self.mol.as_ref().and_then(|table| Some((table, &table.mol.as_ref()?.config)));
        let shape = mol.map(|(_, config)| (config.item_dot_product_groups, config.dot_product_dimension));
        check::components(shape, vectors, columns)?;
        check::top_k(self.n_items(), vectors.rows(), k, excluded)?;
        let Some((table, config)) = mol else { return Ok(Vec::new()) };
        let group = match columns {
            Columns::Group(group) => Some(group),
            _ => None,
        };
        let vectors = match columns {
            Columns::Mean => {
                let p_x = config.item_dot_product_groups;
                let row = |v: usize| vectors.row(v).iter().map(|x| x / p_x as f32).collect::<Vec<f32>>().repeat(p_x);
                let data: Vec<f32> = (0..vectors.rows()).flat_map(row).collect();
                &Tensor::new(vec![vectors.rows(), p_x * vectors.width()], data)
            }
            _ => vectors,
        };
        let program = Program::components(config, self.dtype, group);
        let width = vectors.width();
        let view = (&program, table.shards.as_slice(), self.gpu.nothing());
        self.scan_all(view, vectors.rows(), k, excluded, |recorder, slice| {
            vec![recorder.upload(&vectors.data()[slice.start * width..slice.end * width])]
        })
    }

    fn scan_lists(&self, _: usize, _: &Tensor, _: &[Vec<u32>], _: usize, _: &Exclusions) -> Result<Hits> {
        Err(Error::argument("lists", "a CPU", "a GPU"))
    }

    fn above(
        &self,
        vectors: &Tensor,
        columns: Columns,
        thresholds: &[f32],
        excluded: &Exclusions,
    ) -> Result<Vec<Vec<u32>>> {
        let all = self.scan_components(vectors, columns, self.n_items(), excluded)?;
        let above = |(hits, threshold): (Vec<ScoredPosition>, &f32)| {
            let mut positions: Vec<u32> =
                hits.iter().take_while(|hit| hit.score >= *threshold).map(|hit| hit.position).collect();
            positions.sort_unstable();
            positions
        };
        Ok(all.into_iter().zip(thresholds).map(above).collect())
    }

    fn rescore(&self, scorer: Scorer, queries: &QueryBatch, candidates: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
        check::mol_scorer(scorer)?;
        check::mol_queries(self.dim, self.mol.is_some(), queries)?;
        check::candidates(self.n_items(), queries.embeddings.rows(), candidates)?;
        let Some(table) = &self.mol else { return Ok(Vec::new()) };
        let most = (self.limits.dispatch_flops / table.program.pair_flops) as usize;
        let mut scores = Vec::with_capacity(candidates.len());
        let mut from = 0;
        while from < candidates.len() {
            let mut pairs = candidates[from].len();
            let mut to = from + 1;
            while to < candidates.len() && to - from < MOST_LISTS && pairs + candidates[to].len() <= most {
                pairs += candidates[to].len();
                to += 1;
            }
            let mut rest = self.rescore_slice(table, queries, from..to, candidates)?.into_iter();
            scores.extend(candidates[from..to].iter().map(|list| rest.by_ref().take(list.len()).collect::<Vec<f32>>()));
            from = to;
        }
        Ok(scores)
    }

    fn bytes(&self) -> u64 {
        let tables = std::iter::once(&self.dot).chain(&self.mol);
        tables.flat_map(|table| &table.shards).map(Buffer::bytes).sum()
    }
}

/// One list of positions per query as kernels read them: offsets from the start of the array, then positions.
fn position_lists<'a>(lists: impl ExactSizeIterator<Item = &'a [u32]>) -> Vec<u32> {
    let mut array = vec![0; lists.len() + 1];
    array[0] = array.len() as u32;
    for (i, list) in lists.enumerate() {
        array.extend(list);
        array[i + 1] = array.len() as u32;
    }
    array
}

/// Queries as a kernel of `program` reads them.
fn packed_queries(recorder: &mut Recorder, program: &Program, lanes: usize, parts: &[Buffer], n: usize) -> Buffer {
    let layout = Layout::Queries(lanes);
    let packed = recorder.temporary(layout.bytes(&program.queries, n));
    layout.pack(recorder, &program.queries, &parts.iter().collect::<Vec<_>>(), n, &packed, 0);
    packed
}

fn uploaded(gpu: &Gpu, mol: &Mol<Tensor>) -> Result<Mol<Buffer>> {
    let mut failed = None;
    let mol = mol.map(&mut |tensor| {
        gpu.upload(tensor.data()).unwrap_or_else(|error| {
            failed.get_or_insert(error);
            gpu.nothing().clone()
        })
    });
    failed.map_or(Ok(mol), Err)
}
