//! Shader variants: the scan kernels of one similarity, its shapes as WGSL constants before the files.

use std::borrow::Cow;
use std::fmt::Write;

use super::coop::Padded;
use super::item_table::ItemLayout;
use super::pack::Record;
use super::plan::TILE;
use super::sections::{REGISTER_LOGITS, Sections};
use crate::backend::Dtype;
use crate::backend::gpu::device::{Bind, KernelSpec, Matrices, Tier, wgsl};
use crate::config::{GatingCombination, MolConfig};
use crate::model::CrossGate;
use crate::tables::Form;
use crate::tensor::Tensor;

const ITEMS: &str = wgsl!("scan/lib/items.wgsl");
const HIT_FILTER: &str = wgsl!("scan/lib/hit_filter.wgsl");
const ORDER_KEY: &str = wgsl!("lib/order_key.wgsl");
const QUERY_STATE: &str = wgsl!("select/lib/query_state.wgsl");
const CHUNK: &str = wgsl!("scan/lib/chunk.wgsl");
const DOT: &str = wgsl!("scan/lib/dot.wgsl");
const DOT_I8: &str = wgsl!("scan/lib/dot_i8.wgsl");
const MOL: &str = wgsl!("scan/lib/mol.wgsl");
const PAIR: &str = wgsl!("scan/lib/pair.wgsl");
const WHOLE: &str = wgsl!("scan/lib/whole.wgsl");
const MAX_SIM: &str = wgsl!("scan/lib/max_sim.wgsl");
const SECTIONS: &str = wgsl!("scan/lib/sections.wgsl");

/// The kernels of one similarity, without their buffers.
#[derive(Clone, Debug)]
pub(crate) struct ShaderVariant {
    kind: Kind,
    /// For people.
    pub name: String,
    /// Shapes, as WGSL constants: arrays in registers cannot be sized by overrides.
    prelude: String,
    dtype: Dtype,
    most_queries: usize,
    /// Of mixtures, on devices with such matrices.
    coop: Option<Padded>,
    /// Whether no vector can leave the range of halves, whatever the items and queries: a number beyond 65504 would be clamped.
    pub fits_halves: bool,
    /// Of mixtures whose gate weights fit into a uniform buffer of the device.
    uniform: bool,
    /// Of the logits of a mixture.
    sections: Sections,
    /// Factor of the logits.
    pub inverse_temperature: f32,
    /// What the packed query table holds of a query.
    pub queries: Record,
    /// (vectors of a query, width) where these are quantized: for inner products with 8-bit vectors.
    pub quantized: Option<(usize, usize)>,
    /// Floating-point operations of one (query, item) pair.
    pub pair_flops: u64,
}

/// What decides about the kernels of mixtures on a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// A software driver gains from four queries a thread however many registers they take.
    pub software: bool,
    /// Bytes of a uniform binding.
    pub uniform_bytes: usize,
    pub matrices: Option<Matrices>,
    /// Logits of a pair that a thread holds at most; more are divided among threads of different subgroups.
    pub thread_logits: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Dot,
    MaxSim {
        /// Vectors of a query that a thread multiplies with one of an item.
        at_once: usize,
    },
    Mol,
}

/// What a Mixture-of-Logits kernel computes of its logits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Score<'a, T> {
    /// The mixture by this cross gate.
    Mixture(&'a CrossGate<T>),
    /// What no mixture exceeds.
    Bound,
}

impl ShaderVariant {
    /// Inner products with `groups` vectors of an item, summed, from vector `first` on; each of `width` values.
    pub fn dot(items: &ItemLayout, (first, groups): (usize, usize), width: usize) -> ShaderVariant {
        ShaderVariant::inner_product(items, (first, groups), width, false)
    }

    /// Inner products with `groups` components from `first` on, that raw embeddings of width `dim` stand for. A query is
    /// (groups, dim) transformed vectors, then (groups) biases.
    pub fn transformed_dot(items: &ItemLayout, (first, groups): (usize, usize), dim: usize) -> ShaderVariant {
        ShaderVariant::inner_product(items, (first, groups), dim, true)
    }

    /// Late interaction with vectors of `width` values, `at_once` (4 or 16) of a query at a time. The floating-point operations are
    /// those of two vectors.
    pub fn max_sim(items: &ItemLayout, width: usize, at_once: usize) -> ShaderVariant {
        let dot = ShaderVariant::dot(items, (0, 1), width);
        let name = format!("late interaction, {}, {width} columns", items.dtype);
        ShaderVariant { kind: Kind::MaxSim { at_once }, name, most_queries: 1, ..dot }
    }

    fn inner_product(
        items: &ItemLayout,
        (first, groups): (usize, usize),
        width: usize,
        transformed: bool,
    ) -> ShaderVariant {
        let biases = transformed.then_some((1, groups));
        let integers = items.dtype == Dtype::I8;
        let queries = if integers {
            let planes = (groups, 2 * width.div_ceil(4));
            Record { quad_words: 1, parts: [planes, (1, groups)].into_iter().chain(biases).collect(), run: 1 }
        } else {
            Record::floats(std::iter::once((groups, width)).chain(biases).collect())
        };
        let counts = [
            ("GROUPS", groups),
            ("FIRST_GROUP", first),
            ("D4", width.div_ceil(4)),
            ("QUERY_WORDS", queries.quads() * queries.quad_words),
            ("RUN", items.record.run),
            ("ITEM_QUADS", items.record.quads()),
            ("SCALES", items.scales),
            ("NORMS", items.norms),
        ];
        ShaderVariant {
            kind: Kind::Dot,
            name: format!("inner products, {}, {groups}x{width}", items.dtype),
            prelude: prelude(&counts, &[("TRANSFORMED", transformed)]),
            dtype: items.dtype,
            most_queries: 16,
            coop: None,
            fits_halves: false,
            uniform: false,
            sections: Sections::whole((1, 1)),
            inverse_temperature: 1.0,
            pair_flops: 8 * queries.quads() as u64,
            queries,
            quantized: integers.then_some((groups, width)),
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
    ) -> ShaderVariant {
        let (p_q, p_x, n_logits) = (config.query_dot_product_groups, config.item_dot_product_groups, config.n_logits());
        let transformed = form == Form::Raw;
        let (query_vectors, item_vectors, width) =
            if transformed { (n_logits, 1, dim) } else { (p_q, p_x, config.dot_product_dimension) };
        let row = (1, n_logits);
        let query_gate = config.gating_query_hidden_dim.map(|_| row);
        let query_parts = [Some((query_vectors, width)), transformed.then_some(row), query_gate];
        let queries = Record::floats(query_parts.iter().flatten().copied().collect());
        // Halves are enough for what is stored as halves, or less. Products of two need more registers.
        let parts = if items.dtype == Dtype::F32 { 2 } else { 1 };
        let coop = match (&score, target.matrices) {
            // A workgroup is a tile of items for each query, and must be whole subgroups.
            (&Score::Mixture(cross), Some(matrices))
                if n_logits <= REGISTER_LOGITS / parts
                    && TILE.is_multiple_of(matrices.subgroup)
                    && (matrices.arithmetic || parts == 1) =>
            {
                Some(Padded::new(matrices, (query_vectors, width), parts, cross))
            }
            _ => None,
        };
        let (hidden, linear) = match score {
            Score::Mixture(cross) => (cross.hidden.as_ref().map_or(0, |layer| layer.n_out), cross.has_linear_part()),
            Score::Bound => (0, false),
        };
        let sections = Sections::new((p_q, p_x), target.thread_logits);
        let (own_query_vectors, own_item_vectors) = if transformed { (sections.n_own(), 1) } else { sections.own };
        let quads = n_logits.div_ceil(4);
        let weights = quads + hidden * (1 + 2 * quads) + if linear { n_logits * quads } else { 0 };
        let gating = match config.gating_combination {
            GatingCombination::GluSilu => 0,
            GatingCombination::GluSiluLn => 1,
            GatingCombination::None => 2,
        };
        let counts = [
            ("QUERY_VECTORS", query_vectors),
            ("ITEM_VECTORS", item_vectors),
            ("OWN_QUERY_VECTORS", own_query_vectors),
            ("OWN_ITEM_VECTORS", own_item_vectors),
            ("P_X", p_x),
            ("D4", width.div_ceil(4)),
            ("L", n_logits),
            ("L4", n_logits.div_ceil(4)),
            ("HIDDEN", hidden.next_multiple_of(sections.units())),
            ("LINEAR", if linear { sections.n_own().next_multiple_of(sections.units()) } else { 0 }),
            ("GATING", gating),
            ("QUERY_QUADS", queries.quads()),
            ("QUERY_GATES", queries.quads_before(1 + usize::from(transformed))),
            ("RUN", items.record.run),
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
        ShaderVariant {
            kind: Kind::Mol,
            name: format!(
                "{} {p_q}x{p_x}x{}, {form}, {hidden} hidden units",
                items.dtype, config.dot_product_dimension
            ),
            prelude: prelude(&[&counts[..], &sections.constants()].concat(), &flags),
            dtype: items.dtype,
            most_queries: match (sections.count(), target.software) {
                (1, true) => 4,
                (1, false) => REGISTER_LOGITS / n_logits,
                _ => 1,
            },
            coop,
            // Raw items of f32 may have any length.
            fits_halves: config.dot_product_l2_norm && (parts == 1 || !transformed),
            uniform: matches!(score, Score::Mixture(_))
                && sections.count() == 1
                && 16 * weights <= target.uniform_bytes,
            sections,
            inverse_temperature: 1.0 / config.temperature,
            queries,
            quantized: None,
            pair_flops: 2 * products as u64,
        }
    }

    /// Queries that one thread serves in a batch of `n_queries`: 1, 2, 4, 8 or 16.
    pub fn queries_per_thread(&self, n_queries: usize) -> usize {
        fitting(self.most_queries, n_queries)
    }

    /// The kernels that may scan for this variant, as far as the device has room for them. Those in registers come first.
    pub fn candidates(&self) -> Vec<Tier> {
        let cooperative = |padded: &Padded| [1, 2].into_iter().filter(|&queries| padded.fits(queries)).collect();
        let cooperative: Vec<usize> = self.coop.as_ref().map_or(Vec::new(), cooperative);
        let uniform = [1, 2, 4].into_iter().filter(|_| self.uniform).map(Tier::Uniform);
        let cooperative = cooperative.into_iter().map(Tier::Cooperative);
        let registers = [1, 2, 4].into_iter().filter(|&queries| queries == 1 || self.sections.count() == 1);
        registers.map(Tier::Registers).chain(uniform).chain(cooperative).collect()
    }

    /// `chosen`, or what suits most devices, for a batch of `n_queries`.
    pub fn tier(&self, chosen: Option<Tier>, n_queries: usize) -> Tier {
        match chosen {
            None => Tier::Registers(self.queries_per_thread(n_queries)),
            Some(Tier::Registers(most)) => Tier::Registers(fitting(most, n_queries)),
            Some(Tier::Uniform(most)) => Tier::Uniform(fitting(most, n_queries)),
            Some(Tier::Cooperative(most)) => Tier::Cooperative(fitting(most, n_queries)),
        }
    }

    /// The kernel of a tier.
    pub fn tier_kernel(&self, tier: Tier) -> KernelSpec {
        match (tier, &self.coop) {
            (Tier::Cooperative(queries), Some(padded)) => self.coop_kernel(padded, queries),
            (Tier::Uniform(queries), _) if self.uniform => self.uniform_kernel(queries),
            (Tier::Registers(queries) | Tier::Uniform(queries) | Tier::Cooperative(queries), _) => {
                self.scan_kernel(queries)
            }
        }
    }

    /// Whether gate weights are bound as a uniform buffer by one of the kernels.
    pub fn has_uniform_weights(&self) -> bool {
        self.uniform
    }

    /// How the logits of a pair are divided among threads.
    pub fn sections(&self) -> &Sections {
        &self.sections
    }

    fn logits(&self) -> &'static str {
        if self.sections.count() == 1 { WHOLE } else { SECTIONS }
    }

    fn uniform_kernel(&self, queries: usize) -> KernelSpec {
        const UNIFORM_WEIGHTS: &[Bind] =
            &[Bind::Params, Bind::Read, Bind::Read, Bind::Read, Bind::Read, Bind::Write, Bind::Write, Bind::Uniform];
        self.mol_kernel(queries, wgsl!("scan/lib/weights_uniform.wgsl"), UNIFORM_WEIGHTS)
    }

    fn mol_kernel(&self, queries: usize, weights: &'static str, bindings: &'static [Bind]) -> KernelSpec {
        let main = wgsl!("scan/mol_scan.wgsl");
        self.spec(
            "mol_scan",
            queries,
            &[ITEMS, ORDER_KEY, HIT_FILTER, CHUNK, self.logits(), PAIR, MOL, weights, main],
            bindings,
        )
    }

    fn coop_kernel(&self, padded: &Padded, queries: usize) -> KernelSpec {
        let main = wgsl!("scan/mol_scan_coop.wgsl");
        let mut spec =
            self.spec("mol_scan_coop", 1, &[ITEMS, ORDER_KEY, HIT_FILTER, CHUNK, WHOLE, PAIR, main], BINDINGS);
        let edge = match padded.edge() {
            8 => wgsl!("scan/lib/matrices_8.wgsl"),
            _ => wgsl!("scan/lib/matrices_16.wgsl"),
        };
        spec.sources.splice(0..0, [Cow::Borrowed(edge), Cow::Owned(padded.prelude(queries))]);
        spec
    }

    /// The gate as that kernel reads it.
    pub fn coop_weights(&self, cross: &CrossGate<Tensor>) -> Option<Vec<half::f16>> {
        self.coop.as_ref().map(|padded| padded.weights(cross))
    }

    /// What tells this variant from others, for files.
    pub fn key(&self) -> String {
        let text = format!("{:?} {:?} {:?}\n{}", self.kind, self.dtype, self.coop, self.prelude);
        format!("{:08x}-{:x}", crc32fast::hash(text.as_bytes()), text.len())
    }

    /// The kernel that scans a chunk with so many queries per thread.
    pub fn scan_kernel(&self, queries: usize) -> KernelSpec {
        match self.kind {
            Kind::Dot => {
                let main = wgsl!("scan/dot_scan.wgsl");
                self.spec(
                    "dot_scan",
                    queries,
                    &[ITEMS, ORDER_KEY, HIT_FILTER, CHUNK, self.dot_file(), main],
                    &BINDINGS[..7],
                )
            }
            Kind::MaxSim { at_once } => {
                let files =
                    [ITEMS, ORDER_KEY, HIT_FILTER, CHUNK, self.dot_file(), MAX_SIM, wgsl!("scan/max_sim_scan.wgsl")];
                self.spec("max_sim_scan", at_once, &files, BINDINGS)
            }
            Kind::Mol => self.mol_kernel(queries, wgsl!("scan/lib/weights_storage.wgsl"), &BINDINGS[..8]),
        }
    }

    /// [`ShaderVariant::scan_kernel`] of a mixture that leaves out gates.
    pub fn pruned_kernel(&self, queries: usize) -> KernelSpec {
        let main = wgsl!("scan/mol_scan_pruned.wgsl");
        let files = [ITEMS, ORDER_KEY, HIT_FILTER, CHUNK, self.logits(), PAIR, MOL, main];
        self.spec("mol_scan_pruned", queries, &files, &BINDINGS[..8])
    }

    /// The kernel that scans inverted lists by inner products.
    pub fn list_kernel(&self) -> KernelSpec {
        let main = wgsl!("scan/list_scan.wgsl");
        self.spec("list_scan", 1, &[ITEMS, ORDER_KEY, HIT_FILTER, self.dot_file(), main], BINDINGS)
    }

    /// The kernel that scores single candidates by late interaction.
    pub fn max_sim_rescore_kernel(&self) -> KernelSpec {
        const BINDINGS: &[Bind] =
            &[Bind::Params, Bind::Read, Bind::Read, Bind::Read, Bind::Read, Bind::Read, Bind::Write];
        let files = [ITEMS, self.dot_file(), MAX_SIM, wgsl!("scan/max_sim_rescore.wgsl")];
        self.spec("max_sim_rescore", self.query_vectors_at_once(), &files, BINDINGS)
    }

    /// By late interaction: vectors of a query that a thread multiplies with one of an item.
    pub fn query_vectors_at_once(&self) -> usize {
        match self.kind {
            Kind::MaxSim { at_once } => at_once,
            Kind::Dot | Kind::Mol => 1,
        }
    }

    fn dot_file(&self) -> &'static str {
        if self.quantized.is_some() { DOT_I8 } else { DOT }
    }

    /// The kernel that scores single candidates by Mixture-of-Logits.
    pub fn rescore_kernel(&self) -> KernelSpec {
        const BINDINGS: &[Bind] = &[Bind::Params, Bind::Read, Bind::Read, Bind::Read, Bind::Read, Bind::Write];
        self.spec("mol_rescore", 1, &[ITEMS, self.logits(), PAIR, MOL, wgsl!("scan/mol_rescore.wgsl")], BINDINGS)
    }

    /// The kernel that gives hits their score by Mixture-of-Logits.
    pub fn rescore_hits_kernel(&self) -> KernelSpec {
        const BINDINGS: &[Bind] = &[Bind::Params, Bind::Read, Bind::Read, Bind::Read, Bind::Read, Bind::Write];
        let main = wgsl!("scan/mol_rescore_hits.wgsl");
        self.spec("mol_rescore_hits", 1, &[ITEMS, ORDER_KEY, QUERY_STATE, self.logits(), PAIR, MOL, main], BINDINGS)
    }

    fn spec(&self, label: &'static str, queries: usize, own: &[&'static str], bindings: &'static [Bind]) -> KernelSpec {
        let table = match self.dtype {
            Dtype::F32 => wgsl!("scan/lib/table_f32.wgsl"),
            Dtype::F16 => wgsl!("scan/lib/table_f16.wgsl"),
            Dtype::I8 => wgsl!("scan/lib/table_i8.wgsl"),
        };
        // Up to four queries lie side by side.
        let blocks = format!("const BLOCKS: u32 = {}u;\n", queries.div_ceil(4));
        let queries = match queries {
            1 => wgsl!("scan/lib/per_query_1.wgsl"),
            2 => wgsl!("scan/lib/per_query_2.wgsl"),
            _ => wgsl!("scan/lib/per_query_4.wgsl"),
        };
        let query =
            if self.quantized.is_some() { "alias Query = PerQueryWord;\n" } else { "alias Query = PerQuery;\n" };
        let files = [query, table, queries].into_iter().chain(own.iter().copied()).map(Cow::Borrowed);
        let sources = [self.prelude.clone(), blocks].map(Cow::Owned).into_iter().chain(files).collect();
        KernelSpec { sources, ..KernelSpec::of_files(label, &[], bindings) }
    }
}

/// Those of `hit_filter.wgsl`, then up to two of the kernel's own.
const BINDINGS: &[Bind] =
    &[Bind::Params, Bind::Read, Bind::Read, Bind::Read, Bind::Read, Bind::Write, Bind::Write, Bind::Read, Bind::Read];

/// The most of 1, 2, 4, 8 or 16, up to `most`, that `n_queries` do not leave half empty; of more than 4, so that a fifth of all threads' queries
/// at most is missing.
fn fitting(most: usize, n_queries: usize) -> usize {
    let fits = |queries: usize| queries / 2 < n_queries;
    let fills = |queries: usize| queries <= 4 || 4 * n_queries.next_multiple_of(queries) <= 5 * n_queries;
    [16, 8, 4, 2].into_iter().find(|&queries| queries <= most && fits(queries) && fills(queries)).unwrap_or(1)
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

#[cfg(test)]
mod tests {
    use super::fitting;

    #[test]
    fn threads_take_as_many_queries_as_there_are() {
        let all = |most| [1, 2, 3, 5, 7, 8, 9, 13, 16, 17, 20, 32].map(|n_queries| fitting(most, n_queries));
        assert_eq!(all(16), [1, 2, 4, 4, 8, 8, 4, 16, 16, 4, 8, 16]);
        assert_eq!(all(4), [1, 2, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4]);
        assert_eq!((fitting(2, 9), fitting(1, 9)), (2, 1));
    }
}
