//! What the scan kernels are made of for one similarity: shapes as WGSL constants, and files.

use std::borrow::Cow;
use std::fmt::Write;

use super::coop::{Matrices, Padded};
use super::item_table::ItemLayout;
use super::kernel::ParamsLayout;
use super::pack::Record;
use super::plan::TILE;
use super::rescore::RescoreParams;
use super::scan::{ListParams, ScanParams};
use super::tier::Tier;
use super::{Bind, KernelSpec};
use crate::backend::Dtype;
use crate::config::{GatingCombination, MolConfig};
use crate::model::CrossGate;
use crate::tables::Form;
use crate::tensor::Tensor;

/// Values in registers that a thread of the scan may hold as logits, and again as many as gate values.
const REGISTER_LOGITS: usize = 64;

const ITEMS: &str = include_str!("../../../shaders/lib/items.wgsl");
const SURVIVORS: &str = include_str!("../../../shaders/lib/survivors.wgsl");
const CHUNK: &str = include_str!("../../../shaders/lib/chunk.wgsl");
const DOT: &str = include_str!("../../../shaders/lib/dot.wgsl");
const DOT_I8: &str = include_str!("../../../shaders/lib/dot_i8.wgsl");
const MOL: &str = include_str!("../../../shaders/lib/mol.wgsl");
const PAIR: &str = include_str!("../../../shaders/lib/pair.wgsl");

/// The kernels of one similarity without their buffers.
#[derive(Clone, Debug)]
pub(super) struct Program {
    kind: Kind,
    /// Shapes, as WGSL constants: arrays in registers cannot be sized by overrides.
    prelude: String,
    dtype: Dtype,
    most_lanes: usize,
    /// Of mixtures over tables that hold no more than halves, on devices with such matrices.
    coop: Option<Padded>,
    /// Factor of the logits.
    pub inverse_temperature: f32,
    /// What the packed query table holds of a query.
    pub queries: Record,
    /// (vectors of a query, width) where these are rounded to integers: for inner products with 8-bit vectors.
    pub rounded: Option<(usize, usize)>,
    /// Floating-point operations of one (query, item) pair.
    pub pair_flops: u64,
}

/// What decides about the kernels of mixtures on a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// A software driver gains from four queries a thread however many registers they take.
    pub software: bool,
    pub matrices: Option<Matrices>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Dot,
    Mol,
}

/// What a Mixture-of-Logits kernel computes of its logits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Score<'a, T> {
    /// The mixture by this cross gate.
    Mixture(&'a CrossGate<T>),
    /// What no mixture exceeds.
    Bound,
}

impl Program {
    /// Inner products with `groups` vectors of an item, summed, from vector `first` on; each of `width` values.
    pub fn dot(items: &ItemLayout, (first, groups): (usize, usize), width: usize) -> Program {
        Program::inner_product(items, (first, groups), width, false)
    }

    /// Inner products with `groups` components from `first` on, that raw embeddings of width `dim` stand for. A query is
    /// (groups, dim) transformed vectors, then (groups) biases.
    pub fn transformed_dot(items: &ItemLayout, (first, groups): (usize, usize), dim: usize) -> Program {
        Program::inner_product(items, (first, groups), dim, true)
    }

    fn inner_product(items: &ItemLayout, (first, groups): (usize, usize), width: usize, transformed: bool) -> Program {
        let biases = transformed.then_some((1, groups));
        let integers = items.dtype == Dtype::I8;
        let queries = if integers {
            let planes = (groups, 2 * width.div_ceil(4));
            Record { quad_words: 1, parts: [planes, (1, groups)].into_iter().chain(biases).collect() }
        } else {
            Record::floats(std::iter::once((groups, width)).chain(biases).collect())
        };
        let counts = [
            ("GROUPS", groups),
            ("FIRST_GROUP", first),
            ("D4", width.div_ceil(4)),
            ("QUERY_WORDS", queries.quads() * queries.quad_words),
            ("ITEM_QUADS", items.record.quads()),
            ("SCALES", items.scales),
            ("NORMS", items.norms),
        ];
        Program {
            kind: Kind::Dot,
            prelude: prelude(&counts, &[("TRANSFORMED", transformed)]),
            dtype: items.dtype,
            most_lanes: 4,
            coop: None,
            inverse_temperature: 1.0,
            pair_flops: 8 * queries.quads() as u64,
            queries,
            rounded: integers.then_some((groups, width)),
        }
    }

    /// Mixture-of-Logits of items of width `dim` in the given form. A query is its components, or (L, dim) transformed
    /// ones and (L) biases; then the gate part, if there is one.
    pub fn mol<T>(
        config: &MolConfig,
        items: &ItemLayout,
        (form, dim): (Form, usize),
        score: Score<T>,
        target: Target,
    ) -> Program {
        let (p_q, p_x, n_logits) = (config.query_dot_product_groups, config.item_dot_product_groups, config.n_logits());
        let transformed = form == Form::Raw;
        let (query_vectors, item_vectors, width) =
            if transformed { (n_logits, 1, dim) } else { (p_q, p_x, config.dot_product_dimension) };
        let row = (1, n_logits);
        let query_gate = config.gating_query_hidden_dim.map(|_| row);
        let parts = [Some((query_vectors, width)), transformed.then_some(row), query_gate];
        let queries = Record::floats(parts.iter().flatten().copied().collect());
        let coop = match (&score, target.matrices) {
            (&Score::Mixture(cross), Some(matrices)) if items.dtype != Dtype::F32 && n_logits <= REGISTER_LOGITS => {
                Some(Padded::new(matrices, query_vectors, width, cross))
            }
            _ => None,
        };
        let (hidden, linear) = match score {
            Score::Mixture(cross) => (cross.hidden.as_ref().map_or(0, |layer| layer.n_out), has_linear(cross)),
            Score::Bound => (0, false),
        };
        let gating = match config.gating_combination {
            GatingCombination::GluSilu => 0,
            GatingCombination::GluSiluLn => 1,
            GatingCombination::None => 2,
        };
        let counts = [
            ("QUERY_VECTORS", query_vectors),
            ("ITEM_VECTORS", item_vectors),
            ("P_X", p_x),
            ("D4", width.div_ceil(4)),
            ("L", n_logits),
            ("L4", n_logits.div_ceil(4)),
            ("HIDDEN", hidden),
            ("LINEAR", if linear { n_logits } else { 0 }),
            ("GATING", gating),
            ("QUERY_QUADS", queries.quads()),
            ("QUERY_GATES", queries.quads_before(1 + usize::from(transformed))),
            ("ITEM_QUADS", items.record.quads()),
            ("ITEM_GATES", items.gate),
            ("SCALES", items.scales),
            ("GATE_SCALE", items.gate_scale),
            ("NORMS", items.norms),
        ];
        let flags = [
            ("BOUND", matches!(score, Score::Bound)),
            ("TRANSFORMED", transformed),
            ("SCALED", items.dtype == Dtype::I8),
            ("QUERY_GATE", query_gate.is_some()),
            ("ITEM_GATE", config.gating_item_hidden_dim.is_some()),
        ];
        let products = query_vectors * item_vectors * width + (2 * hidden + usize::from(linear) * n_logits) * n_logits;
        Program {
            kind: Kind::Mol,
            prelude: prelude(&counts, &flags),
            dtype: items.dtype,
            most_lanes: if target.software { 4 } else { REGISTER_LOGITS / n_logits },
            coop,
            inverse_temperature: 1.0 / config.temperature,
            queries,
            rounded: None,
            pair_flops: 2 * products as u64,
        }
    }

    /// Queries that one thread serves in a batch of `n_queries`: 1, 2 or 4.
    pub fn lanes(&self, n_queries: usize) -> usize {
        fitting(self.most_lanes, n_queries)
    }

    /// The kernels that may scan for this program, as far as the device has room for them. Those in registers come first.
    pub fn candidates(&self) -> Vec<Tier> {
        let cooperative = |padded: &Padded| [1, 2].into_iter().filter(|&queries| padded.fits(queries)).collect();
        let cooperative: Vec<usize> = self.coop.as_ref().map_or(Vec::new(), cooperative);
        [1, 2, 4].map(Tier::Registers).into_iter().chain(cooperative.into_iter().map(Tier::Cooperative)).collect()
    }

    /// `chosen`, or what suits most devices, for a batch of `n_queries`.
    pub fn tier(&self, chosen: Option<Tier>, n_queries: usize) -> Tier {
        match chosen {
            None => Tier::Registers(self.lanes(n_queries)),
            Some(Tier::Registers(most)) => Tier::Registers(fitting(most, n_queries)),
            Some(Tier::Cooperative(most)) => Tier::Cooperative(fitting(most, n_queries)),
        }
    }

    /// The kernel of a tier.
    pub fn tier_kernel(&self, tier: Tier) -> KernelSpec {
        match (tier, &self.coop) {
            (Tier::Cooperative(queries), Some(padded)) => self.coop_kernel(padded, queries),
            (Tier::Registers(lanes) | Tier::Cooperative(lanes), _) => self.scan_kernel(lanes),
        }
    }

    fn coop_kernel(&self, padded: &Padded, queries: usize) -> KernelSpec {
        let main = include_str!("../../../shaders/mol_scan_coop.wgsl");
        let mut spec = self.spec("mol_scan_coop", 1, &[ITEMS, SURVIVORS, CHUNK, PAIR, main], BINDINGS);
        let edge = match padded.edge() {
            8 => include_str!("../../../shaders/lib/edge_8.wgsl"),
            _ => include_str!("../../../shaders/lib/edge_16.wgsl"),
        };
        spec.sources.splice(0..0, [Cow::Borrowed(edge), Cow::Owned(padded.prelude(queries))]);
        spec
    }

    /// The gate as that kernel reads it.
    pub fn coop_weights(&self, cross: &CrossGate<Tensor>) -> Option<Vec<half::f16>> {
        self.coop.as_ref().map(|padded| padded.weights(cross))
    }

    /// What tells this program from others, for files.
    pub fn key(&self) -> String {
        let text = format!("{:?} {:?} {:?}\n{}", self.kind, self.dtype, self.coop, self.prelude);
        format!("{:08x}-{:x}", crc32fast::hash(text.as_bytes()), text.len())
    }

    /// The kernel that scans a chunk with `lanes` queries per thread.
    pub fn scan_kernel(&self, lanes: usize) -> KernelSpec {
        match self.kind {
            Kind::Dot => {
                let main = include_str!("../../../shaders/dot_scan.wgsl");
                self.spec("dot_scan", lanes, &[ITEMS, SURVIVORS, CHUNK, self.dot_file(), main], &BINDINGS[..7])
            }
            Kind::Mol => {
                let main = include_str!("../../../shaders/mol_scan.wgsl");
                self.spec("mol_scan", lanes, &[ITEMS, SURVIVORS, CHUNK, PAIR, MOL, main], &BINDINGS[..8])
            }
        }
    }

    /// [`Program::scan_kernel`] of a mixture that leaves out gates.
    pub fn pruned_kernel(&self, lanes: usize) -> KernelSpec {
        let main = include_str!("../../../shaders/mol_scan_pruned.wgsl");
        self.spec("mol_scan_pruned", lanes, &[ITEMS, SURVIVORS, CHUNK, PAIR, MOL, main], &BINDINGS[..8])
    }

    /// The kernel that scans inverted lists by inner products.
    pub fn list_kernel(&self) -> KernelSpec {
        let main = include_str!("../../../shaders/list_scan.wgsl");
        self.spec("list_scan", 1, &[ITEMS, SURVIVORS, self.dot_file(), main], BINDINGS)
    }

    fn dot_file(&self) -> &'static str {
        if self.rounded.is_some() { DOT_I8 } else { DOT }
    }

    /// The kernel that scores single candidates by Mixture-of-Logits.
    pub fn rescore_kernel(&self) -> KernelSpec {
        const BINDINGS: &[Bind] = &[Bind::Params, Bind::Read, Bind::Read, Bind::Read, Bind::Read, Bind::Write];
        self.spec("mol_rescore", 1, &[ITEMS, PAIR, MOL, include_str!("../../../shaders/mol_rescore.wgsl")], BINDINGS)
    }

    fn spec(&self, label: &'static str, lanes: usize, own: &[&'static str], bindings: &'static [Bind]) -> KernelSpec {
        let table = match self.dtype {
            Dtype::F32 => include_str!("../../../shaders/lib/table_f32.wgsl"),
            Dtype::F16 => include_str!("../../../shaders/lib/table_f16.wgsl"),
            Dtype::I8 => include_str!("../../../shaders/lib/table_i8.wgsl"),
        };
        let lanes = match lanes {
            1 => include_str!("../../../shaders/lib/lanes_1.wgsl"),
            2 => include_str!("../../../shaders/lib/lanes_2.wgsl"),
            _ => include_str!("../../../shaders/lib/lanes_4.wgsl"),
        };
        let query = if self.rounded.is_some() { "alias Query = Words;\n" } else { "alias Query = Lanes;\n" };
        let files = [query, table, lanes].into_iter().chain(own.iter().copied()).map(Cow::Borrowed);
        let sources = std::iter::once(Cow::Owned(self.prelude.clone())).chain(files).collect();
        KernelSpec { sources, ..KernelSpec::new(label, "", bindings) }
    }
}

/// Those of `survivors.wgsl`, then up to two of the kernel's own.
const BINDINGS: &[Bind] =
    &[Bind::Params, Bind::Read, Bind::Read, Bind::Read, Bind::Read, Bind::Write, Bind::Write, Bind::Read, Bind::Read];

/// Whether the gate adds products of the logits themselves: a linear layer is all it has, or lies beside the hidden one.
pub(super) fn has_linear<T>(cross: &CrossGate<T>) -> bool {
    cross.hidden.is_none() || cross.linear.is_some()
}

/// The most of 1, 2 or 4, up to `most`, that `n_queries` do not leave half empty.
fn fitting(most: usize, n_queries: usize) -> usize {
    [4, 2].into_iter().find(|&lanes| lanes <= most && lanes / 2 < n_queries).unwrap_or(1)
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

/// The kernels of similarities with and without each part, for tests of `shaders/`.
pub(super) fn kernel_specs() -> Vec<(KernelSpec, ParamsLayout)> {
    let layer = |n_out| crate::ops::Linear { weight: (), bias: None, n_in: 6, n_out };
    let (mut dots, mut mols) = (Vec::new(), Vec::new());
    for dtype in [Dtype::F32, Dtype::F16, Dtype::I8] {
        let components = ItemLayout::new(dtype, (2, 5), Some(6), None);
        dots.push(Program::dot(&components, (1, 1), 5));
        dots.push(Program::dot(&components, (0, 2), 5));
        dots.push(Program::transformed_dot(&ItemLayout::new(dtype, (1, 7), None, Some(2)), (0, 2), 7));
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
                let form = if parts % 2 == 0 { Form::Components } else { Form::Raw };
                let (vectors, norms) = if form == Form::Raw { ((1, 7), Some(2)) } else { ((2, 5), None) };
                let items = ItemLayout::new(dtype, vectors, part(1).map(|_| 6), norms);
                let cross = CrossGate { hidden: part(2).map(layer), output: layer(6), linear: part(0).map(|_| ()) };
                let scores = if parts < 6 {
                    [Score::Mixture(&cross)].to_vec()
                } else {
                    vec![Score::Mixture(&cross), Score::Bound]
                };
                let matrices = |edge| Matrices { edge, subgroup: 32, workgroup_bytes: 32 << 10 };
                let edge = if dtype == Dtype::F16 { 16 } else { 8 };
                let target = Target { software: true, matrices: Some(matrices(edge)) };
                mols.extend(scores.into_iter().map(|score| Program::mol(&config, &items, (form, 7), score, target)));
            }
        }
    }
    let scans = |programs: &[Program], kernel: fn(&Program, usize) -> KernelSpec| -> Vec<_> {
        let kernels =
            programs.iter().flat_map(|program| [1, 2, 4].map(|lanes| (kernel(program, lanes), ScanParams::LAYOUT)));
        kernels.collect()
    };
    let mut specs = scans(&dots, Program::scan_kernel);
    specs.extend(scans(&mols, Program::scan_kernel));
    let tiers = |program: &Program| program.candidates().into_iter().map(|tier| program.tier_kernel(tier)).collect();
    let coop = mols.iter().flat_map(|program| -> Vec<KernelSpec> { tiers(program) });
    specs.extend(coop.filter(|kernel| kernel.label == "mol_scan_coop").map(|kernel| (kernel, ScanParams::LAYOUT)));
    specs.extend(scans(&mols[..3], Program::pruned_kernel));
    specs.extend(dots.iter().map(|program| (program.list_kernel(), ListParams::LAYOUT)));
    specs.extend(mols.iter().map(|program| (program.rescore_kernel(), RescoreParams::LAYOUT)));
    specs
}
