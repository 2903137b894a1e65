//! The fused scan: what its kernels are made of for one similarity, and the dispatch of one chunk.

use std::borrow::Cow;
use std::fmt::Write;
use std::ops::Range;

use super::kernel::{ParamsLayout, params};
use super::pack::{Layout, Record};
use super::plan::{Chunk, TILE};
use super::top_k::TopK;
use super::{Bind, Buffer, KernelSpec, Recorder};
use crate::backend::Dtype;
use crate::config::{GatingCombination, MolConfig};
use crate::model::CrossGate;
use crate::tensor::Tensor;

/// Values in registers that a thread of the scan may hold as logits, and again as many as gate values.
const REGISTER_LOGITS: usize = 64;

const MOL: &str = include_str!("../../../shaders/lib/mol.wgsl");

/// A scan kernel without its buffers.
#[derive(Clone, Debug)]
pub(super) struct Program {
    label: &'static str,
    /// WGSL files after those that all scans share.
    sources: Vec<&'static str>,
    /// Shapes, as WGSL constants: arrays in registers cannot be sized by overrides.
    prelude: String,
    dtype: Dtype,
    inverse_temperature: f32,
    most_lanes: usize,
    /// What the packed query table holds of a query.
    pub queries: Record,
    /// What the packed item table holds of an item.
    pub items: Record,
    /// Floating-point operations of one (query, item) pair.
    pub pair_flops: u64,
}

impl Program {
    /// Inner products of raw embeddings of width `dim`.
    pub fn dot(dim: usize, dtype: Dtype) -> Program {
        let record = Record { parts: vec![(1, dim)] };
        Program::inner_product(record.clone(), record, 0, dtype)
    }

    /// Inner products with component `group` of every item, or with all of them side by side, in the tables of
    /// [`Program::mol`].
    pub fn components(config: &MolConfig, dtype: Dtype, group: Option<usize>) -> Program {
        let (p_x, d_p) = (config.item_dot_product_groups, config.dot_product_dimension);
        let queries = Record { parts: vec![(group.map_or(p_x, |_| 1), d_p)] };
        let first_quad = group.map_or(0, |group| group * d_p.div_ceil(4));
        Program::inner_product(queries, item_record(config), first_quad, dtype)
    }

    fn inner_product(queries: Record, items: Record, first_quad: usize, dtype: Dtype) -> Program {
        let counts = [("D4", queries.quads()), ("ITEM_QUADS", items.quads()), ("FIRST_QUAD", first_quad)];
        Program {
            label: "dot_scan",
            sources: vec![include_str!("../../../shaders/dot_scan.wgsl")],
            prelude: prelude(&counts, &[]),
            dtype,
            inverse_temperature: 1.0,
            most_lanes: 4,
            pair_flops: 8 * queries.quads() as u64,
            queries,
            items,
        }
    }

    /// Mixture-of-Logits. A software driver gains from four queries a thread however many registers they take.
    pub fn mol(config: &MolConfig, dtype: Dtype, software: bool) -> Program {
        let (p_q, p_x) = (config.query_dot_product_groups, config.item_dot_product_groups);
        let (d_p, n_logits) = (config.dot_product_dimension, config.n_logits());
        let hidden = config.gating_qi_hidden_dim;
        let gating = match config.gating_combination {
            GatingCombination::GluSilu => 0,
            GatingCombination::GluSiluLn => 1,
            GatingCombination::None => 2,
        };
        let counts = [
            ("P_Q", p_q),
            ("P_X", p_x),
            ("D4", d_p.div_ceil(4)),
            ("L", n_logits),
            ("L4", n_logits.div_ceil(4)),
            ("HIDDEN", hidden.unwrap_or(n_logits)),
            ("GATING", gating),
        ];
        let flags = [
            ("CROSS_HIDDEN", hidden.is_some()),
            ("QUERY_GATE", config.gating_query_hidden_dim.is_some()),
            ("ITEM_GATE", config.gating_item_hidden_dim.is_some()),
        ];
        Program {
            label: "mol_scan",
            sources: vec![MOL, include_str!("../../../shaders/mol_scan.wgsl")],
            prelude: prelude(&counts, &flags),
            dtype,
            inverse_temperature: 1.0 / config.temperature,
            most_lanes: if software { 4 } else { REGISTER_LOGITS / n_logits },
            queries: side_record(config, p_q, config.gating_query_hidden_dim),
            items: item_record(config),
            pair_flops: (2 * n_logits * d_p + hidden.map_or(2 * n_logits, |hidden| 4 * hidden) * n_logits) as u64,
        }
    }

    /// Queries that one thread serves in a batch of `n_queries`: 1, 2 or 4.
    pub fn lanes(&self, n_queries: usize) -> usize {
        [4, 2].into_iter().find(|&lanes| lanes <= self.most_lanes && lanes / 2 < n_queries).unwrap_or(1)
    }

    /// Layout of the item table.
    pub fn item_layout(&self) -> Layout {
        Layout::Items(self.dtype)
    }

    /// The scan kernel for `lanes` queries per thread.
    pub fn kernel(&self, lanes: usize) -> KernelSpec {
        const BINDINGS: &[Bind] =
            &[Bind::Params, Bind::Read, Bind::Read, Bind::Read, Bind::Read, Bind::Write, Bind::Write];
        let survivors = include_str!("../../../shaders/lib/survivors.wgsl");
        let own = std::iter::once(survivors).chain(self.sources.iter().copied());
        self.spec(self.label, lanes, own, BINDINGS)
    }

    /// The kernel that scores single candidates of a [`Program::mol`].
    pub fn rescore_kernel(&self) -> KernelSpec {
        const BINDINGS: &[Bind] = &[Bind::Params, Bind::Read, Bind::Read, Bind::Read, Bind::Read, Bind::Write];
        self.spec("mol_rescore", 1, [MOL, include_str!("../../../shaders/mol_rescore.wgsl")], BINDINGS)
    }

    fn spec(
        &self,
        label: &'static str,
        lanes: usize,
        own: impl IntoIterator<Item = &'static str>,
        bindings: &'static [Bind],
    ) -> KernelSpec {
        let table = match self.dtype {
            Dtype::F32 => include_str!("../../../shaders/lib/table_f32.wgsl"),
            _ => include_str!("../../../shaders/lib/table_f16.wgsl"),
        };
        let lanes = match lanes {
            1 => include_str!("../../../shaders/lib/lanes_1.wgsl"),
            2 => include_str!("../../../shaders/lib/lanes_2.wgsl"),
            _ => include_str!("../../../shaders/lib/lanes_4.wgsl"),
        };
        let files = [table, lanes].into_iter().chain(own).map(Cow::Borrowed);
        let sources = std::iter::once(Cow::Owned(self.prelude.clone())).chain(files).collect();
        KernelSpec { sources, ..KernelSpec::new(label, "", bindings) }
    }

    /// Scores the candidates of this shard; see `mol_rescore.wgsl` for the layout of `candidates`.
    pub fn rescore(&self, recorder: &mut Recorder, positions: &Range<usize>, items: &Buffer, rescore: &Rescore) {
        let params = RescoreParams {
            first_position: positions.start as u32,
            n_items: positions.len() as u32,
            inverse_temperature: self.inverse_temperature,
        };
        let buffers = [&rescore.queries, items, &rescore.weights, &rescore.candidates, &rescore.scores];
        let grid = [rescore.longest.div_ceil(TILE) as u32, rescore.n_queries as u32, 1];
        recorder.dispatch(&self.rescore_kernel(), &params, &buffers, grid);
    }

    /// Scans one chunk of the shard whose items have these `positions` and whose packed table is `items`.
    pub fn dispatch(
        &self,
        recorder: &mut Recorder,
        chunk: &Chunk,
        positions: &Range<usize>,
        items: &Buffer,
        queries: &QueryTable,
        top_k: &TopK,
    ) {
        let params = ScanParams {
            first_tile: chunk.first_tile as u32,
            n_items: positions.len() as u32,
            first_position: positions.start as u32,
            n_queries: queries.n_queries as u32,
            capacity: top_k.capacity() as u32,
            inverse_temperature: self.inverse_temperature,
        };
        let buffers = [&queries.table, items, &queries.weights, &queries.excluded, &top_k.state, &top_k.survivors];
        let grid = [queries.n_queries.div_ceil(queries.lanes) as u32, chunk.n_tiles as u32, 1];
        recorder.dispatch(&self.kernel(queries.lanes), &params, &buffers, grid);
    }
}

/// What a rescore reads and writes beside the items.
#[derive(Debug)]
pub(super) struct Rescore {
    pub n_queries: usize,
    /// Candidates of the longest list.
    pub longest: usize,
    /// Packed by [`Layout::Queries`] of one lane.
    pub queries: Buffer,
    /// From [`cross_weights`].
    pub weights: Buffer,
    /// Offsets (B + 1) from the start of this array, then positions.
    pub candidates: Buffer,
    /// One per candidate.
    pub scores: Buffer,
}

/// What a scan reads beside the items.
#[derive(Debug)]
pub(super) struct QueryTable {
    pub n_queries: usize,
    pub lanes: usize,
    /// Packed by [`Layout::Queries`].
    pub table: Buffer,
    /// From [`cross_weights`].
    pub weights: Buffer,
    /// Offsets (B + 1) from the start of this array, then positions.
    pub excluded: Buffer,
}

/// The cross gate as `mol_scan.wgsl` reads it.
pub(super) fn cross_weights(cross: &CrossGate<Tensor>) -> Vec<f32> {
    let n_logits = cross.output.n_out;
    let quads = |values: &mut dyn Iterator<Item = f32>| {
        let mut padded: Vec<f32> = values.collect();
        padded.resize(padded.len().next_multiple_of(4), 0.0);
        padded
    };
    let mut weights = match &cross.output.bias {
        Some(bias) => quads(&mut bias.data().iter().copied()),
        None => quads(&mut std::iter::repeat_n(0.0, n_logits)),
    };
    for unit in 0..cross.output.n_in {
        if let Some(hidden) = &cross.hidden {
            let bias = hidden.bias.as_ref().map_or(0.0, |bias| bias.data()[unit]);
            weights.extend([bias, 0.0, 0.0, 0.0]);
            weights.extend(quads(&mut hidden.weight.data().iter().skip(unit).step_by(hidden.n_out).copied()));
        }
        weights.extend(quads(&mut cross.output.weight.row(unit).iter().copied()));
    }
    weights
}

/// Components of an item or a query, and its gate part, if it has one.
fn side_record(config: &MolConfig, groups: usize, gate: Option<usize>) -> Record {
    let gate = gate.map(|_| (1, config.n_logits()));
    Record { parts: std::iter::once((groups, config.dot_product_dimension)).chain(gate).collect() }
}

fn item_record(config: &MolConfig) -> Record {
    side_record(config, config.item_dot_product_groups, config.gating_item_hidden_dim)
}

fn prelude(counts: &[(&str, usize)], flags: &[(&str, bool)]) -> String {
    let mut text = format!("const TILE: u32 = {TILE}u;\n");
    for (name, value) in counts {
        let _ = writeln!(text, "const {name}: u32 = {value}u;");
    }
    for (name, value) in flags {
        let _ = writeln!(text, "const {name}: bool = {value};");
    }
    text
}

params!(ScanParams {
    first_tile: u32,
    n_items: u32,
    first_position: u32,
    n_queries: u32,
    capacity: u32,
    inverse_temperature: f32
});

params!(RescoreParams { first_position: u32, n_items: u32, inverse_temperature: f32 });

/// The kernels of similarities with and without each part, for tests of `shaders/`.
pub(super) fn kernel_specs() -> Vec<(KernelSpec, ParamsLayout)> {
    let mut programs = vec![Program::dot(6, Dtype::F32), Program::dot(8, Dtype::F16)];
    for gating_combination in [GatingCombination::GluSilu, GatingCombination::GluSiluLn, GatingCombination::None] {
        for parts in 0..8 {
            let part = |bit: usize| (parts >> bit & 1 == 1).then_some(4);
            let config = MolConfig {
                query_dot_product_groups: 3,
                item_dot_product_groups: 2,
                dot_product_dimension: 5,
                temperature: 0.05,
                dot_product_l2_norm: true,
                eps: 1e-6,
                query_hidden: None,
                item_hidden: None,
                uid_embedding_hash_sizes: Vec::new(),
                gating_combination,
                gating_query_hidden_dim: part(0),
                gating_item_hidden_dim: part(1),
                gating_qi_hidden_dim: part(2),
            };
            programs.push(Program::components(&config, Dtype::F32, Some(1)));
            programs.push(Program::components(&config, Dtype::F16, None));
            programs.extend([Dtype::F32, Dtype::F16].map(|dtype| Program::mol(&config, dtype, true)));
        }
    }
    let scans = programs.iter().flat_map(|program| [1, 2, 4].map(|lanes| (program.kernel(lanes), ScanParams::LAYOUT)));
    let rescores = programs.iter().filter(|program| program.label == "mol_scan");
    scans.chain(rescores.map(|program| (program.rescore_kernel(), RescoreParams::LAYOUT))).collect()
}
