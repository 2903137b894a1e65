//! The micro-kernel of all products in floats: a block of rows times a tile of items that lie in SIMD lanes.

use pulp::Simd;

use crate::backend::cpu::simd::aligned::AlignedFloats;

/// Items in one tile.
pub const TILE: usize = 32;

/// Rows in one block. With two registers of lanes each they make eight independent sums, which hide the latency of FMA.
pub const ROWS: usize = 4;

/// Steps of the depth that are unrolled. Loop counters and jumps compete with products where another thread shares the core, and
/// the end of a loop of few iterations is predicted better than that of a long one.
const UNROLLED: usize = 8;

/// Receives the sums of [`RowBlocks::multiply`]. A trait and not a closure, because only a method can be marked
/// `#[inline(always)]`, and code that is not inlined falls back to the baseline instruction set.
pub trait Sink<S: Simd> {
    /// Takes the sums of row `row` with the items in the registers `first` and `first + 1` of the tile.
    fn take(&mut self, simd: S, row: usize, first: usize, sums: [S::f32s; 2]);

    /// Called first, with the number of calls of [`Sink::step`] that follow.
    #[inline(always)]
    fn expect_steps(&mut self, _n: usize) {}

    /// Called every few products, for work that should be spread between them, such as prefetching.
    #[inline(always)]
    fn step(&mut self) {}
}

/// A matrix (rows, depth) packed for the micro-kernel: `[row / 4][depth][row % 4]`, padded with zero rows.
pub struct RowBlocks {
    data: AlignedFloats,
    rows: usize,
    depth: usize,
}

impl RowBlocks {
    /// Packs `rows` rows of `depth` values, last axis contiguous.
    pub fn from_rows(values: &[f32], rows: usize, depth: usize) -> RowBlocks {
        RowBlocks::pack(rows, depth, |row, j| values[row * depth + j])
    }

    /// Packs the transpose of `values` (depth, rows): the weight of a [`Linear`](crate::ops::Linear) as rows of
    /// outputs.
    pub fn from_columns(values: &[f32], rows: usize, depth: usize) -> RowBlocks {
        RowBlocks::pack(rows, depth, |row, j| values[j * rows + row])
    }

    fn pack(rows: usize, depth: usize, value: impl Fn(usize, usize) -> f32) -> RowBlocks {
        let mut data = AlignedFloats::zeros(rows.div_ceil(ROWS) * ROWS * depth);
        for row in 0..rows {
            let block = &mut data[row / ROWS * ROWS * depth..][..ROWS * depth];
            for j in 0..depth {
                block[j * ROWS + row % ROWS] = value(row, j);
            }
        }
        RowBlocks { data, rows, depth }
    }

    /// Hands to `sink`, for each row and each pair of registers of the tile `x` (depth, TILE), the sums over the depth. Each sum is
    /// one chain of fused multiply-adds in order of depth.
    #[inline(always)]
    pub fn multiply<S: Simd>(&self, simd: S, x: &[f32], sink: &mut impl Sink<S>) {
        let (x, _) = S::as_simd_f32s(&x[..self.depth * TILE]);
        let block = (ROWS * self.depth).max(1);
        let rows_at_once = if S::REGISTER_COUNT >= 32 { 2 * ROWS } else { ROWS };
        sink.expect_steps(self.rows.div_ceil(rows_at_once) * (TILE / S::F32_LANES / 2) * (self.depth / UNROLLED));
        let (mut first_row, mut weights) = (0, &self.data[..]);
        // With registers for two blocks at a time, each load of lanes serves twice as many products, and twice as many sums are
        // independent.
        while rows_at_once > ROWS && weights.len() >= 2 * block {
            let (two, rest) = weights.split_at(2 * block);
            let (a, b) = two.split_at(block);
            self.block_rows::<S, ROWS, 2>(simd, x, [a, b], first_row, sink);
            (first_row, weights) = (first_row + 2 * ROWS, rest);
        }
        for weights in weights.chunks_exact(block) {
            match self.rows - first_row {
                // A single row, as of a batch of one: the three rows of padding are not multiplied.
                1 => self.block_rows::<S, 1, 1>(simd, x, [weights], first_row, sink),
                _ => self.block_rows::<S, ROWS, 1>(simd, x, [weights], first_row, sink),
            }
            first_row += ROWS;
        }
    }

    /// The first R rows of N blocks, which begin with `first_row`, two registers of lanes at a time.
    #[inline(always)]
    fn block_rows<S: Simd, const R: usize, const N: usize>(
        &self,
        simd: S,
        x: &[S::f32s],
        blocks: [&[f32]; N],
        first_row: usize,
        sink: &mut impl Sink<S>,
    ) {
        let registers = TILE / S::F32_LANES;
        let unrolled = self.depth / UNROLLED * UNROLLED;
        let (x, x_rest) = x.split_at(unrolled * registers);
        let split = blocks.map(|weights| weights.split_at(unrolled * ROWS));
        for first in (0..registers).step_by(2) {
            let mut sums = [[[simd.splat_f32s(0.0); 2]; R]; N];
            let mut weights = split.map(|(weights, _)| weights.chunks_exact(UNROLLED * ROWS));
            for lanes in x.chunks_exact(UNROLLED * registers) {
                sink.step();
                let weights = weights.each_mut().map(|chunks| chunks.next().unwrap_or(&[]));
                for step in 0..UNROLLED {
                    for n in 0..N {
                        let weights = &weights[n][step * ROWS..][..R];
                        add_products(simd, &lanes[step * registers + first..][..2], weights, &mut sums[n]);
                    }
                }
            }
            for (step, lanes) in x_rest.chunks_exact(registers).enumerate() {
                for n in 0..N {
                    add_products(simd, &lanes[first..][..2], &split[n].1[step * ROWS..][..R], &mut sums[n]);
                }
            }
            // All R rows are computed, also where padding is among them: with a constant number of rows, sums stay in registers.
            for (block, sums) in sums.into_iter().enumerate() {
                for (row, sums) in sums.into_iter().enumerate() {
                    let row = first_row + block * ROWS + row;
                    if row < self.rows {
                        sink.take(simd, row, first, sums);
                    }
                }
            }
        }
    }
}

/// For the kernels of small batches.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
impl RowBlocks {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// [depth][ROWS]: the rows from `index` * ROWS on.
    pub fn block(&self, index: usize) -> &[f32] {
        &self.data[index * ROWS * self.depth..][..ROWS * self.depth]
    }

    /// All values times `factor`, or `None` if one of these is not finite.
    pub fn scaled(&self, factor: f32) -> Option<RowBlocks> {
        let mut data = AlignedFloats::zeros(self.data.len());
        for (scaled, value) in data.iter_mut().zip(self.data.iter()) {
            *scaled = value * factor;
        }
        data.iter().all(|value| value.is_finite()).then_some(RowBlocks { data, ..*self })
    }
}

/// One step of the depth: two registers of lanes by R weights.
#[inline(always)]
fn add_products<S: Simd, const R: usize>(simd: S, lanes: &[S::f32s], weights: &[f32], sums: &mut [[S::f32s; 2]; R]) {
    for (sums, &weight) in sums.iter_mut().zip(weights) {
        let weight = simd.splat_f32s(weight);
        sums[0] = simd.mul_add_e_f32s(weight, lanes[0], sums[0]);
        sums[1] = simd.mul_add_e_f32s(weight, lanes[1], sums[1]);
    }
}

/// Stores two registers into row `row` of a (rows, TILE) array, at the registers `first` and `first + 1`.
#[inline(always)]
pub fn store<S: Simd>(out: &mut [f32], row: usize, first: usize, values: [S::f32s; 2]) {
    let (registers, _) = S::as_mut_simd_f32s(&mut out[row * TILE..][..TILE]);
    registers[first] = values[0];
    registers[first + 1] = values[1];
}

/// The registers `first` and `first + 1` of row `row` of a (rows, TILE) array.
#[inline(always)]
pub fn row<S: Simd>(values: &[f32], row: usize, first: usize) -> [S::f32s; 2] {
    let (registers, _) = S::as_simd_f32s(&values[row * TILE..][..TILE]);
    [registers[first], registers[first + 1]]
}

/// Stores sums as they are, in a (rows, TILE) array.
pub struct Store<'a>(pub &'a mut [f32]);

impl<S: Simd> Sink<S> for Store<'_> {
    #[inline(always)]
    fn take(&mut self, _: S, row: usize, first: usize, sums: [S::f32s; 2]) {
        store::<S>(self.0, row, first, sums);
    }
}

/// Adds sums to the values of a (rows, TILE) array.
pub struct AddTo<'a>(pub &'a mut [f32]);

impl<S: Simd> Sink<S> for AddTo<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, l: usize, first: usize, [a, b]: [S::f32s; 2]) {
        let [x, y] = row::<S>(self.0, l, first);
        store::<S>(self.0, l, first, [simd.add_f32s(a, x), simd.add_f32s(b, y)]);
    }
}
