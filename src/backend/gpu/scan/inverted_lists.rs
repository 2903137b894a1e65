//! Inverted lists on the device: their vectors as one table in the order of the lists, and the tasks of a scan.

use std::ops::Range;
use std::sync::Arc;

use super::item_table::{ItemSource, ItemTable};
use super::plan::{ScanLimits, TILE, shards};
use crate::Result;
use crate::backend::SearchContext;
use crate::backend::gpu::device::{Buffer, Gpu};
use crate::tables::Lists;

/// Some inverted lists.
#[derive(Debug)]
pub(crate) struct InvertedLists {
    pub table: ItemTable,
    /// Positions of the rows of each shard.
    pub positions: Vec<Buffer>,
    /// (nlist + 1): where each list starts.
    offsets: Vec<u32>,
}

/// What has to be scanned for each query of a batch.
#[derive(Debug)]
pub(crate) struct ListTasks(Vec<Vec<Task>>);

/// Up to a tile of rows of one list, all in one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Task {
    shard: usize,
    /// Counted from the start of the shard.
    rows: Range<u32>,
}

impl ListTasks {
    /// Rows of the query that has most of them, in whole tiles.
    pub fn longest(&self) -> usize {
        self.0.iter().map(Vec::len).max().unwrap_or(0) * TILE
    }
}

impl InvertedLists {
    /// Uploads `lists`.
    ///
    /// # Errors
    /// If they do not fit, or the device fails.
    pub fn new(context: &SearchContext, gpu: &Arc<Gpu>, lists: &Lists, limits: &ScanLimits) -> Result<InvertedLists> {
        let source = ItemSource::plain(&lists.vectors);
        let rows = shards(lists.positions.len(), source.layout().tile_bytes(), limits)?;
        let positions = rows.iter().map(|rows| gpu.upload(&lists.positions[rows.clone()])).collect::<Result<_>>()?;
        let table = ItemTable::new(context, gpu, source, &rows, limits)?;
        Ok(InvertedLists { table, positions, offsets: lists.offsets.clone() })
    }

    /// What has to be scanned for queries that probe these lists.
    pub fn tasks(&self, probes: &[Vec<u32>]) -> ListTasks {
        ListTasks(probes.iter().map(|probes| self.tasks_of(probes)).collect())
    }

    fn tasks_of(&self, probes: &[u32]) -> Vec<Task> {
        let mut probes = probes.to_vec();
        probes.sort_unstable();
        probes.dedup();
        let mut tasks = Vec::new();
        for list in probes {
            let (start, end) = (self.offsets[list as usize] as usize, self.offsets[list as usize + 1] as usize);
            for (shard, rows) in self.table.rows.iter().enumerate() {
                let (from, to) = (start.max(rows.start), end.min(rows.end));
                let task = |from: usize| {
                    let first = (from - rows.start) as u32;
                    Task { shard, rows: first..first + TILE.min(to - from) as u32 }
                };
                tasks.extend((from..to.max(from)).step_by(TILE).map(task));
            }
        }
        tasks
    }

    /// Of each of the `queries` the tasks `range`, as `list_scan.wgsl` reads them, by shard.
    pub fn chunk(&self, tasks: &ListTasks, queries: Range<usize>, range: Range<usize>) -> Vec<Vec<[u32; 3]>> {
        let mut shards = vec![Vec::new(); self.table.rows.len()];
        for (query, tasks) in tasks.0[queries].iter().enumerate() {
            for Task { shard, rows } in &tasks[range.start.min(tasks.len())..range.end.min(tasks.len())] {
                shards[*shard].push([query as u32, rows.start, rows.end]);
            }
        }
        shards
    }

    pub fn bytes(&self) -> u64 {
        self.table.bytes() + self.positions.iter().map(Buffer::bytes).sum::<u64>()
    }
}
