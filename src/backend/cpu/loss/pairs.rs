//! Mixture-of-Logits of pairs, position by position: scores, and from their derivatives the gradients.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::cross_gate::{CrossSums, CrossWeights};
use super::rows::{RowSums, Term, dot};
use super::tile::{PairRows, Tile, TileWork};
use crate::backend::cpu::dot::micro_kernel::{RowBlocks, TILE};
use crate::backend::cpu::mol::logits::Logits;
use crate::backend::cpu::simd::aligned::AlignedFloats;
use crate::backend::cpu::simd::prefetch::PrefetchQueue;
use crate::backend::cpu::simd::run_with_kernel;
use crate::backend::cpu::simd::transpose::{SIDE, Transpose, transpose_matrix, transpose_rows};
use crate::backend::loss::{GateDropout, MolSide};
use crate::config::MolConfig;

/// Pairs of each position from which on its tiles have no other position's pairs: products with one query are cheaper, lanes without
/// pairs are not.
const ALONE: usize = 24;

/// Positions of the largest group; the number of positions of every group divides it.
pub const MAX_GROUP: usize = TILE;

/// The pairs of positives, or of negatives.
#[derive(Clone, Copy)]
pub struct Pairs<'a> {
    /// Shape, temperature, combination of the gate.
    pub config: &'a MolConfig,
    /// The cross part of the gate.
    pub weights: &'a CrossWeights,
    /// P rows.
    pub queries: MolSide<'a>,
    /// M rows.
    pub items: MolSide<'a>,
    /// (P, R): the items of each position's pairs.
    pub indices: &'a [u32],
    /// R
    pub per_position: usize,
    /// Element `pair * L + l`.
    pub dropout: GateDropout,
}

impl Pairs<'_> {
    /// Positions that share tiles: as many as fill these, unless one does.
    pub fn group(&self) -> usize {
        if self.per_position >= ALONE {
            return 1;
        }
        (0..=MAX_GROUP.ilog2())
            .map(|i| 1 << i)
            .find(|n| (n * self.per_position).is_multiple_of(TILE))
            .unwrap_or(MAX_GROUP)
    }

    /// Numbers of a pair's gradients: of the inner products of its components (L), and of the item-only part of the gate (L), if there
    /// is one.
    pub fn row(&self) -> usize {
        self.weights.n_logits * if self.items.gate.is_some() { 2 } else { 1 }
    }

    /// Width of a query.
    pub fn query_width(&self) -> usize {
        self.config.query_dot_product_groups * self.config.dot_product_dimension
    }

    /// Width of an item.
    pub fn item_width(&self) -> usize {
        self.config.item_dot_product_groups * self.config.dot_product_dimension
    }
}

/// Gradients of the pairs of some positions.
pub struct PairGradients<'a> {
    /// (pairs, [`Pairs::row`])
    pub pairs: &'a mut [f32],
    /// (positions, P_Q * D_P): of the queries, which are added to.
    pub queries: &'a mut [f32],
    /// (positions, L), or nothing: of the query-only part of the gate, which is added to.
    pub query_gate: &'a mut [f32],
    /// Of the weights, which are added to.
    pub cross: &'a mut CrossSums,
}

/// The tiles of some positions. Memory of one thread.
#[derive(Default)]
pub struct Group {
    positions: Range<usize>,
    tiles: Vec<Tile>,
    scores: AlignedFloats,
    work: TileWork,
    /// (P_X * D_P, TILE): components of a tile's items.
    columns: AlignedFloats,
    prefetch: PrefetchQueue,
    /// (pairs, L): gradients of the query-only part of the gate.
    query_gate: Vec<f32>,
    terms: Vec<Term>,
}

impl Group {
    /// The scores of all pairs of some positions, in order.
    pub fn forward(&mut self, pairs: &Pairs, positions: Range<usize>) -> &mut [f32] {
        let n_pairs = positions.len() * pairs.per_position;
        let n_tiles = n_pairs.div_ceil(TILE);
        self.positions = positions;
        self.tiles.resize_with(n_tiles.max(self.tiles.len()), Tile::default);
        self.scores.resize(n_tiles * TILE);
        let (has_query_gate, has_item_gate) = (pairs.queries.gate.is_some(), pairs.items.gate.is_some());
        self.tiles[..n_tiles].iter_mut().for_each(|tile| tile.fit(pairs.weights, has_query_gate, has_item_gate));
        self.work.fit(pairs.weights);
        self.columns.resize(pairs.item_width() * TILE);
        run_with_kernel!(kernel => Forward { kernel, pairs, group: self });
        &mut self.scores[..n_pairs]
    }

    /// (pairs, L): the gate's probabilities, after [`Group::forward`].
    pub fn probabilities(&mut self, pairs: &Pairs, out: &mut [f32]) {
        let n_logits = pairs.weights.n_logits;
        for (tile, out) in self.tiles.iter().zip(out.chunks_mut(TILE * n_logits)) {
            run_with_kernel!(kernel => ToRows { kernel, values: &tile.probabilities, rows: &mut self.work.rows });
            out.copy_from_slice(&self.work.rows[..out.len()]);
        }
    }

    /// The gradients, after [`Group::forward`], from the derivatives with respect to the scores, which are where the scores were,
    /// and beside these to the probabilities, `extra` (pairs, L).
    pub fn back(&mut self, pairs: &Pairs, extra: Option<&[f32]>, out: &mut PairGradients) {
        self.query_gate.resize(self.positions.len() * pairs.per_position * pairs.weights.n_logits, 0.0);
        run_with_kernel!(kernel => Back { kernel, pairs, group: self, extra, out });
    }
}

struct ToRows<'a, K> {
    kernel: K,
    values: &'a [f32],
    rows: &'a mut [f32],
}

impl<K: Transpose> WithSimd for ToRows<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        transpose_matrix(&self.kernel, self.values, TILE, self.rows, self.values.len() / TILE);
    }
}

struct Forward<'a, K> {
    kernel: K,
    pairs: &'a Pairs<'a>,
    group: &'a mut Group,
}

impl<K: Transpose> WithSimd for Forward<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Forward { kernel, pairs, group } = self;
        let MolConfig {
            query_dot_product_groups: p_q, item_dot_product_groups: p_x, dot_product_dimension: d_p, ..
        } = *pairs.config;
        let (n_logits, width) = (p_q * p_x, pairs.query_width());
        let inverse_temperature = 1.0 / pairs.config.temperature;
        let query = |position: usize| &pairs.queries.components[position * width..][..width];
        let alone = (group.positions.len() == 1).then(|| RowBlocks::from_rows(query(group.positions.start), p_q, d_p));
        let (start, end) = (group.positions.start * pairs.per_position, group.positions.end * pairs.per_position);
        for ((tile, scores), first) in
            group.tiles.iter_mut().zip(group.scores.chunks_exact_mut(TILE)).zip((start..end).step_by(TILE))
        {
            // Lanes beyond the last pair repeat it.
            let lanes: [usize; TILE] = std::array::from_fn(|lane| (first + lane).min(end - 1));
            let items = lanes.map(|pair| pairs.indices[pair] as usize);
            let positions = lanes.map(|pair| pair / pairs.per_position);
            if let Some(gate) = pairs.items.gate {
                gather(&kernel, gate, n_logits, &items, &mut tile.item_gate);
            }
            if let Some(gate) = pairs.queries.gate {
                gather(&kernel, gate, n_logits, &positions, &mut tile.query_gate);
            }
            if let Some(query) = &alone {
                gather(&kernel, pairs.items.components, p_x * d_p, &items, &mut group.columns);
                for (m, component) in group.columns.chunks_exact(d_p * TILE).enumerate() {
                    let mut sink = Logits { logits: &mut tile.logits, m, p_x, inverse_temperature };
                    query.multiply(simd, component, &mut sink);
                }
            } else {
                let of_tile = &mut group.work.rows[..TILE * n_logits];
                let rows = of_tile.chunks_exact_mut(n_logits);
                for ((row, &position), &item) in rows.zip(&positions).zip(&items) {
                    let item = &pairs.items.components[item * p_x * d_p..][..p_x * d_p];
                    for (row, f) in row.chunks_exact_mut(p_x).zip(query(position).chunks_exact(d_p)) {
                        for (logit, g) in row.iter_mut().zip(item.chunks_exact(d_p)) {
                            *logit = dot(simd, f, g) * inverse_temperature;
                        }
                    }
                }
                transpose_matrix(&kernel, of_tile, n_logits, &mut tile.logits, TILE);
            }
            group.prefetch.clear();
            for &item in pairs.indices.iter().skip(first + TILE).take(TILE) {
                group.prefetch.add_values(&pairs.items.components[item as usize * p_x * d_p..][..p_x * d_p]);
                if let Some(gate) = pairs.items.gate {
                    group.prefetch.add_values(&gate[item as usize * n_logits..][..n_logits]);
                }
            }
            let weights = (pairs.weights, pairs.config.gating_combination);
            let (work, prefetch) = (&mut group.work, &mut group.prefetch);
            tile.forward(simd, &kernel, weights, (&pairs.dropout, first), (work, prefetch), scores);
        }
    }
}

/// (width, TILE): rows of a table (any, width), each in a lane.
#[inline(always)]
fn gather<K: Transpose>(kernel: &K, table: &[f32], width: usize, rows: &[usize; TILE], out: &mut [f32]) {
    for lane in (0..TILE).step_by(SIDE) {
        let rows = std::array::from_fn(|i| &table[rows[lane + i] * width..][..width]);
        transpose_rows(kernel, rows, out, lane, TILE);
    }
}

struct Back<'a, 'b, K> {
    kernel: K,
    pairs: &'a Pairs<'a>,
    group: &'a mut Group,
    extra: Option<&'a [f32]>,
    out: &'a mut PairGradients<'b>,
}

impl<K: Transpose> WithSimd for Back<'_, '_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Back { kernel, pairs, group, extra, out } = self;
        let MolConfig {
            query_dot_product_groups: p_q, item_dot_product_groups: p_x, dot_product_dimension: d_p, ..
        } = *pairs.config;
        let (n_logits, row) = (p_q * p_x, TILE * p_q * p_x);
        let n_pairs = group.positions.len() * pairs.per_position;
        let has_query_gate = pairs.queries.gate.is_some();
        let shape = (pairs.weights, pairs.config.gating_combination, pairs.config.temperature);
        let mut sums = out.cross.parts(pairs.weights);
        // Lanes beyond the last pair have no part in any sum.
        group.scores[n_pairs..].fill(0.0);
        let mut extra_lanes = AlignedFloats::default();
        let scores = group.scores.chunks_exact(TILE);
        for (i, (tile, coefficients)) in group.tiles.iter().zip(scores).enumerate() {
            let rows = i * row..n_pairs.min((i + 1) * TILE) * n_logits;
            if let Some(extra) = extra {
                extra_lanes.resize(row);
                let of_tile = &mut group.work.rows[..row];
                of_tile.fill(0.0);
                of_tile[..rows.len()].copy_from_slice(&extra[rows.clone()]);
                transpose_matrix(&kernel, of_tile, n_logits, &mut extra_lanes, TILE);
            }
            let stride = pairs.row();
            let of_pairs = i * TILE * stride..n_pairs.min((i + 1) * TILE) * stride;
            let out = PairRows {
                pairs: &mut out.pairs[of_pairs],
                query_gate: if has_query_gate { &mut group.query_gate[rows] } else { &mut [] },
            };
            let extra = extra.map(|_| &extra_lanes[..]);
            let from = (coefficients, extra);
            tile.back(simd, &kernel, shape, &pairs.dropout, from, &mut group.work, &mut sums, out);
        }

        let of_queries = RowSums {
            coefficients: out.pairs,
            strides: [pairs.row(), p_x, 1],
            counts: (p_q, p_x),
            vectors: pairs.items.components,
            width: d_p,
        };
        for (i, position) in group.positions.clone().enumerate() {
            let of_position = position * pairs.per_position..(position + 1) * pairs.per_position;
            group.terms.clear();
            for (pair, &row) in (i * pairs.per_position..).zip(&pairs.indices[of_position]) {
                group.terms.push(Term { pair: pair as u32, row });
            }
            let width = pairs.query_width();
            of_queries.add(simd, &group.terms, pairs.per_position, &mut out.queries[i * width..][..width]);
            if has_query_gate {
                let sums = &mut out.query_gate[i * n_logits..][..n_logits];
                let n = pairs.per_position * n_logits;
                for row in group.query_gate[i * n..][..n].chunks_exact(n_logits) {
                    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                }
            }
        }
    }
}
