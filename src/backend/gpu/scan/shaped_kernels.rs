//! The scan kernels at the shapes of published models, on hardware.

use super::item_table::ItemLayout;
use super::variant::{Score, ShaderVariant, Target};
use super::{pack, quantized_queries};
use crate::backend::Dtype;
use crate::backend::gpu::device::{KernelSpec, Matrices, ShapedKernel, Tier};
use crate::config::{GatingCombination, MolConfig};
use crate::model::CrossGate;
use crate::ops::Linear;
use crate::tables::Form;

/// Hidden units of every gate.
const HIDDEN: usize = 128;

/// Scores of an item that pass the filter: few do.
const PASSING: u64 = 0;

/// A similarity, most of them published: P_Q x P_X x D_P over embeddings of a width.
struct Published {
    name: &'static str,
    groups: (usize, usize),
    width: usize,
    dim: usize,
}

const PUBLISHED: [Published; 3] = [
    Published { name: "ml-1m 8x4x64", groups: (8, 4), width: 64, dim: 50 },
    Published { name: "ml-20m 8x4x128", groups: (8, 4), width: 128, dim: 256 },
    Published { name: "books 8x8x32", groups: (8, 8), width: 32, dim: 64 },
];

/// Similarities of more logits than a thread has.
const LARGE: [Published; 2] = [
    Published { name: "128 logits 16x8x64", groups: (16, 8), width: 64, dim: 64 },
    Published { name: "256 logits 16x16x64", groups: (16, 16), width: 64, dim: 64 },
];

const TARGET: Target = Target {
    software: false,
    uniform_bytes: 64 << 10,
    matrices: Some(Matrices { edge: 16, subgroup: 64, workgroup_bytes: 32 << 10, arithmetic: true }),
    thread_logits: 64,
};

impl Published {
    fn config(&self) -> MolConfig {
        MolConfig {
            query_dot_product_groups: self.groups.0,
            item_dot_product_groups: self.groups.1,
            dot_product_dimension: self.width,
            given_components: false,
            temperature: 0.05,
            dot_product_l2_norm: true,
            eps: 1e-6,
            query_hidden: None,
            item_hidden: None,
            uid_embedding_hash_sizes: Vec::new(),
            gating_combination: GatingCombination::GluSilu,
            gating_query_hidden_dim: Some(HIDDEN),
            gating_item_hidden_dim: Some(HIDDEN),
            gating_qi_hidden_dim: Some(HIDDEN),
        }
    }

    fn kernels(&self, dtype: Dtype, form: Form) -> Vec<ShapedKernel> {
        let config = self.config();
        let (n_logits, p_x) = (config.n_logits(), self.groups.1);
        let layer = |n_in, n_out| Linear { weight: (), bias: Some(()), n_in, n_out };
        let cross = CrossGate { hidden: Some(layer(n_logits, HIDDEN)), output: layer(HIDDEN, n_logits), linear: None };
        let (vectors, norms, words) = match form {
            Form::Raw => ((1, self.dim), Some(p_x), ", raw form"),
            Form::Components => ((p_x, self.width), None, ""),
        };
        let items = ItemLayout::new(dtype, vectors, Some(n_logits), norms).in_lines();
        let variant = |score| ShaderVariant::mol(&config, &items, (form, self.dim), score, TARGET);
        let (mixture, bound) = (variant(Score::Mixture(&cross)), variant(Score::Bound));
        let shaped = |spec: KernelSpec, words: &str, multiply_adds: u64| ShapedKernel {
            spec,
            shape: format!("{}{words}", self.name),
            dtype: dtype.name(),
            multiply_adds: multiply_adds as f64,
            turns: vec![if form == Form::Raw { self.dim } else { self.width }.div_ceil(4) as u64, PASSING],
        };
        let mut kernels = Vec::new();
        let sections = mixture.sections().count() as u64;
        // A thread of a section serves one query, however many there are.
        for &n_queries in if sections > 1 { &[32][..] } else { &[1, 32] } {
            let Tier::Registers(queries) = mixture.tier(None, n_queries) else { continue };
            let pairs = |variant: &ShaderVariant| variant.pair_flops / 2 * queries as u64 / sections;
            let words = format!("{words}, B={n_queries}");
            kernels.push(shaped(mixture.scan_kernel(queries), &words, pairs(&mixture)));
            if form == Form::Components && mixture.has_uniform_weights() {
                let kernel = mixture.tier_kernel(Tier::Uniform(queries));
                kernels.push(shaped(kernel, &format!("{words}, uniform weights"), pairs(&mixture)));
            }
            if form == Form::Components {
                kernels.push(shaped(bound.scan_kernel(queries), &format!("{words}, bound"), pairs(&bound)));
                // What it does depends on the scores: its products are those of the other scan.
                kernels.push(shaped(mixture.pruned_kernel(queries), &words, 0));
            }
        }
        // No score has to pass.
        let mut rescore = shaped(mixture.rescore_kernel(), words, mixture.pair_flops / 2 / sections);
        rescore.turns.pop();
        kernels.push(rescore);
        let cooperative = mixture.candidates().into_iter().filter(|tier| tier.is_cooperative());
        kernels.extend(cooperative.map(|tier| shaped(mixture.tier_kernel(tier), &format!("{words}, {tier}"), 0)));
        kernels
    }
}

/// Inner products of `groups` vectors of `width` values: those of first stages.
fn first_stage(dtype: Dtype, (groups, width): (usize, usize)) -> Vec<ShapedKernel> {
    let items = ItemLayout::new(dtype, (groups, width), None, None);
    // Several vectors are components, which candidates are scored by, too; inverted lists have tables of their own.
    let scanned = if groups > 1 { items.clone().in_lines() } else { items.clone() };
    let [variant, listed] = [&scanned, &items].map(|items| ShaderVariant::dot(items, (0, groups), width));
    let products = match dtype {
        Dtype::I8 => groups * width.div_ceil(4) * 2,
        Dtype::F32 | Dtype::F16 => groups * width,
    };
    let shaped = |spec: KernelSpec, words: &str, queries: usize| ShapedKernel {
        spec,
        shape: format!("{} columns{words}", groups * width),
        dtype: dtype.name(),
        multiply_adds: (products * queries) as f64,
        // The loop over vectors, then that over scores.
        turns: if groups > 1 && queries == 1 { vec![groups as u64, PASSING] } else { vec![PASSING] },
    };
    let scan = |n_queries| {
        let queries = variant.queries_per_thread(n_queries);
        shaped(variant.scan_kernel(queries), &format!(", B={n_queries}"), queries)
    };
    // A thread of inverted lists has one score: no loop.
    let mut lists = shaped(listed.list_kernel(), "", 1);
    lists.turns.pop();
    vec![scan(1), scan(32), lists]
}

/// Late interaction with vectors of `width` values: a thread multiplies two vectors of an item with sixteen of the query.
fn late_interaction(dtype: Dtype, width: usize) -> Vec<ShapedKernel> {
    const ROWS: u64 = 2;
    const AT_ONCE: u64 = 16;
    let variant = ShaderVariant::max_sim(&ItemLayout::new(dtype, (1, width), None, None), width, AT_ONCE as usize);
    let products = match dtype {
        Dtype::I8 => width.div_ceil(4) * 2,
        Dtype::F32 | Dtype::F16 => width,
    };
    let shaped = |spec: KernelSpec| ShapedKernel {
        spec,
        shape: format!("{width} columns"),
        dtype: dtype.name(),
        multiply_adds: (products as u64 * AT_ONCE * ROWS) as f64,
        // Vectors of the query, then of the item; one thread of all has the other loops.
        turns: vec![1, ROWS],
    };
    vec![shaped(variant.scan_kernel(1)), shaped(variant.max_sim_rescore_kernel())]
}

/// All of them.
pub(crate) fn shaped_kernels() -> Vec<ShapedKernel> {
    let dtypes = [Dtype::F32, Dtype::F16, Dtype::I8];
    let mut kernels = Vec::new();
    for published in &PUBLISHED {
        kernels.extend(dtypes.iter().flat_map(|&dtype| published.kernels(dtype, Form::Components)));
    }
    kernels.extend(LARGE.iter().flat_map(|large| large.kernels(Dtype::F32, Form::Components)));
    kernels.extend(dtypes.iter().flat_map(|&dtype| PUBLISHED[0].kernels(dtype, Form::Raw)));
    for vectors in [(1, 64), (4, 64)] {
        kernels.extend(dtypes.iter().flat_map(|&dtype| first_stage(dtype, vectors)));
    }
    kernels.extend(dtypes.iter().flat_map(|&dtype| late_interaction(dtype, 128)));
    kernels.extend(pack::kernel_specs().into_iter().map(|(spec, _)| ShapedKernel::plain(spec)));
    kernels.push(ShapedKernel::plain(quantized_queries::kernel_spec().0));
    kernels
}
