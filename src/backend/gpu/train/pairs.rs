//! What pairs of a position and an item do: their softmax, and their gradients as sums over lists of pairs.

use super::kernels::*;
use super::lists::Lists;
use super::ops::GpuTrainingOps;
use crate::Result;
use crate::backend::gpu::device::{Buffer, grid_1d};
use crate::backend::loss::SampledSoftmax;

/// `WORKGROUP` and `BLOCKS` of component_sums.wgsl.
const SPAN: usize = 64;
const BLOCKS: usize = 16;

/// The softmax of all positions, on the device.
pub struct Softmax<'a> {
    softmax: SampledSoftmax<'a>,
    correction: Option<Buffer>,
    /// P
    pub positions: usize,
    /// 1 + R: a positive and its negatives.
    pub slots: usize,
    /// (P, 1 + R): items of pairs, the positive of each position first.
    pub items: Vec<u32>,
    /// The same on the device.
    pub indices: Buffer,
    /// (P, 1 + R): what is written before [`Softmax::dispatch`].
    pub similarities: Buffer,
    /// (P, 1 + R): derivatives of the mean loss with respect to similarities.
    pub dy: Buffer,
    losses: Buffer,
}

impl<'a> Softmax<'a> {
    /// Room for it. There is at least one position.
    pub fn new(ops: &mut GpuTrainingOps, softmax: SampledSoftmax<'a>) -> Softmax<'a> {
        let positions = softmax.positives.len();
        let slots = softmax.negatives.len() / positions + 1;
        let pairs = softmax.positives.iter().zip(softmax.negatives.chunks(slots - 1));
        let items: Vec<u32> = pairs
            .flat_map(|(&positive, negatives)| std::iter::once(positive).chain(negatives.iter().copied()))
            .collect();
        Softmax {
            softmax,
            correction: softmax.correction.map(|correction| ops.recorder.upload(correction)),
            positions,
            slots,
            indices: ops.recorder.upload(&items),
            items,
            similarities: ops.result(positions * slots),
            dy: ops.result(positions * slots),
            losses: ops.result(positions),
        }
    }

    /// The losses and derivatives of `n` positions from `first` on.
    pub fn dispatch(&self, ops: &mut GpuTrainingOps, first: usize, n: usize) {
        let params = SampledSoftmaxParams {
            positions: n as u32,
            first_position: first as u32,
            per_position: self.slots as u32,
            temperature: self.softmax.temperature,
            has_correction: self.correction.is_some().into(),
            scale: (1.0 / (self.positions as f64 * f64::from(self.softmax.temperature))) as f32,
        };
        let none = ops.placeholder();
        let correction = self.correction.as_ref().unwrap_or(&none);
        let buffers = [&self.similarities, &self.indices, correction, &self.losses, &self.dy];
        ops.recorder.dispatch(&SAMPLED_SOFTMAX, &params, &buffers, grid_1d(n as u64));
    }

    /// The mean loss, and the values of some other arrays.
    ///
    /// # Errors
    /// If the device failed.
    pub fn read(&self, ops: &mut GpuTrainingOps, others: &[Buffer]) -> Result<(f64, Vec<Vec<f32>>)> {
        let buffers: Vec<&Buffer> = std::iter::once(&self.losses).chain(others).collect();
        let read = ops.recorder.read_all(&buffers)?;
        let mut values = read.iter().map(|bytes| bytemuck::pod_collect_to_vec(bytes));
        let losses: Vec<f32> = values.next().unwrap_or_default();
        let sum: f64 = losses.iter().map(|&loss| f64::from(loss)).sum();
        Ok((sum / self.positions as f64, values.collect()))
    }
}

/// Lists of pairs on the device.
pub struct PairLists {
    /// (rows + 1): where the lists begin.
    starts: Buffer,
    /// Each pair, and its row on the other side.
    list: Buffer,
    rows: usize,
}

impl PairLists {
    fn new(ops: &mut GpuTrainingOps, starts: &[u32], list: &[[u32; 2]]) -> PairLists {
        let (starts_there, list) = (ops.recorder.upload(starts), ops.recorder.upload(list));
        PairLists { starts: starts_there, list, rows: starts.len() - 1 }
    }

    /// For each position its pairs, from the item of each pair.
    pub fn of_positions(ops: &mut GpuTrainingOps, items: &[u32], per_position: usize) -> PairLists {
        let starts: Vec<u32> = (0..=items.len()).step_by(per_position).map(|first| first as u32).collect();
        let list: Vec<[u32; 2]> = (0..).zip(items).map(|(pair, &item)| [pair, item]).collect();
        PairLists::new(ops, &starts, &list)
    }

    /// For each of `n_items` items its pairs, ascending.
    pub fn of_items(ops: &mut GpuTrainingOps, items: &[u32], per_position: usize, n_items: usize) -> PairLists {
        let lists = Lists::of(items, n_items);
        let list: Vec<[u32; 2]> = lists.places.iter().map(|&pair| [pair, pair / per_position as u32]).collect();
        PairLists::new(ops, &lists.starts, &list)
    }
}

/// Sums over lists of pairs of derivatives of products, times rows of the other side.
pub struct PairSums<'a> {
    /// (width / inner, plane): of each pair, for `inner` columns together.
    pub derivatives: &'a Buffer,
    /// Pairs.
    pub plane: usize,
    /// Width of a row.
    pub width: usize,
    /// See `derivatives`.
    pub inner: usize,
    /// (any, width): rows of the other side, and which is the first; without any they are 1.
    pub x: Option<(&'a Buffer, usize)>,
}

impl PairSums<'_> {
    /// Adds the sums over `lists` to the rows of y from `first_row` on.
    pub fn add_to(&self, ops: &mut GpuTrainingOps, lists: &PairLists, (y, first_row): (&Buffer, usize)) {
        let PairSums { derivatives, plane, width, inner, x } = *self;
        let n = lists.rows * width;
        let params = PairSumsParams {
            n: n as u32,
            width: width as u32,
            inner: inner as u32,
            plane: plane as u32,
            has_x: x.is_some().into(),
            x_first: x.map_or(0, |(_, first)| first as u32),
            first_row: first_row as u32,
        };
        let none = ops.placeholder();
        let buffers = [&lists.starts, &lists.list, derivatives, x.map_or(&none, |(x, _)| x), y];
        ops.element_wise(&PAIR_SUMS, &params, &buffers, n);
    }
}

/// Sums over lists of pairs, and over components of the other side, of derivatives of products times components.
pub struct ComponentSums<'a> {
    /// (own * others, plane): of each product, of each pair.
    pub derivatives: &'a Buffer,
    /// Pairs.
    pub plane: usize,
    /// Components of a row, and from one to the next in `derivatives`.
    pub own: (usize, usize),
    /// The same of the other side.
    pub others: (usize, usize),
    /// Width of a component.
    pub d: usize,
    /// (any, others, d): rows of the other side, and which is the first.
    pub x: (&'a Buffer, usize),
}

impl ComponentSums<'_> {
    /// Adds the sums over `lists` to the rows of y from `first_row` on.
    pub fn add_to(&self, ops: &mut GpuTrainingOps, lists: &PairLists, (y, first_row): (&Buffer, usize)) {
        let ComponentSums { derivatives, plane, own, others, d, x } = *self;
        let span = SPAN.min((BLOCKS - 1) * d);
        let params = ComponentSumsParams {
            rows: lists.rows as u32,
            own: own.0 as u32,
            others: others.0 as u32,
            d: d as u32,
            plane: plane as u32,
            own_stride: own.1 as u32,
            other_stride: others.1 as u32,
            x_first: x.1 as u32,
            first_row: first_row as u32,
            span: span as u32,
        };
        let grid = grid_1d((lists.rows * (own.0.div_ceil(4) * d).div_ceil(span)) as u64);
        let buffers = [&lists.starts, &lists.list, derivatives, x.0, y];
        ops.recorder.dispatch(&COMPONENT_SUMS, &params, &buffers, grid);
    }
}
