//! The kernels of training: their files, bindings and uniform parameters.

use std::sync::LazyLock;

use crate::backend::gpu::device::{Bind, KernelSpec, ParamsLayout, params, wgsl};

const ACTIVATION: &str = wgsl!("ops/lib/activation.wgsl");
const ELEMENT_WISE: &str = wgsl!("ops/lib/element_wise.wgsl");
const GRU_GATES: &str = wgsl!("ops/lib/gru_gates.wgsl");
const REDUCTION: &str = wgsl!("ops/lib/reduction.wgsl");
const DROPOUT: &str = wgsl!("train/lib/dropout.wgsl");
const SLOPE: &str = wgsl!("train/lib/slope.wgsl");
const PAIRS: &str = wgsl!("train/lib/pairs.wgsl");
const GATE: &str = wgsl!("train/lib/mol_gate.wgsl");
const INFORMATION: &str = wgsl!("train/lib/mutual_information.wgsl");

/// `kernel!(NAME = "file" [LIBRARY, ...] Params Read Write)`: the kernel of `shaders/train/file.wgsl`, behind these library files.
macro_rules! kernel {
    ($name:ident = $label:literal $([$($lib:ident),+])? $($bind:ident)+) => {
        pub static $name: LazyLock<KernelSpec> = LazyLock::new(|| KernelSpec {
            label: $label,
            sources: vec![$($($lib.into(),)+)? wgsl!(concat!("train/", $label, ".wgsl")).into()],
            constants: Vec::new(),
            bindings: &[$(Bind::$bind),+],
            loops_end: true,
        });
    };
}

kernel!(ADD = "add" [ELEMENT_WISE] Params Read Read Write);
kernel!(DROP_OUT = "drop_out" [ELEMENT_WISE, DROPOUT] Params Read Write);
kernel!(ACTIVATION_GRADIENT = "activation_gradient" [ELEMENT_WISE, ACTIVATION, SLOPE] Params Read Read Write);
kernel!(GLU_GRADIENT = "glu_gradient" [ELEMENT_WISE, ACTIVATION, SLOPE] Params Read Read Write);
kernel!(COLUMNS = "columns" [ELEMENT_WISE] Params Read Write);
kernel!(COLUMN_SUMS = "column_sums" [ELEMENT_WISE] Params Read Write);
kernel!(MATRIX_PRODUCT = "matrix_product" Params Read Read Write);
kernel!(L2_NORM_GRADIENT = "norm_gradient" [REDUCTION] Params Read Read Read Write Write);
kernel!(HSTU_GATE_GRADIENT = "hstu_gate_gradient" [ELEMENT_WISE] Params Read Read Read Write Write);
kernel!(SUM_LISTS = "sum_lists" [ELEMENT_WISE] Params Read Read Read Write);
kernel!(ATTENTION_SUMS = "attention_sums" [ELEMENT_WISE] Params Read Read Read Write);
kernel!(SOFTMAX_PAIRS = "softmax_pairs" [DROPOUT, REDUCTION] Params Read Read Read Read Write Write);
kernel!(HSTU_PAIRS = "hstu_pairs" [ELEMENT_WISE, ACTIVATION, SLOPE] Params Read Read Read Read Read Read Write);
kernel!(HSTU_BIAS_GRADIENT = "hstu_bias_gradient" [ELEMENT_WISE] Params Read Read Read Write);
kernel!(PAIR_PRODUCTS = "pair_products" [ELEMENT_WISE] Params Read Read Read Write);
kernel!(SAMPLED_SOFTMAX = "sampled_softmax" [REDUCTION] Params Read Read Read Write Write);
kernel!(FULL_SOFTMAX = "full_softmax" [REDUCTION] Params Read Write Write);
kernel!(GRU_GRADIENT = "gru_gradient" [GRU_GATES] Params Read Read Read Read Read Read Write Write);
kernel!(PAIR_SUMS = "pair_sums" [ELEMENT_WISE] Params Read Read Read Read Write);
kernel!(COMPONENT_SUMS = "component_sums" Params Read Read Read Read Write);
kernel!(MOL_LOGITS = "mol_logits" [ELEMENT_WISE, DROPOUT, PAIRS] Params Read Read Read Write Write);
kernel!(HIDDEN_UNITS = "hidden_units" [ELEMENT_WISE, ACTIVATION] Params Read Write Write);
kernel!(
    MOL_GATE = "mol_gate"
        [ELEMENT_WISE, ACTIVATION, DROPOUT, PAIRS, GATE]
        Params Read Read Read Read Read Write Write Write
);
kernel!(
    MOL_GATE_GRADIENT = "mol_gate_gradient"
        [ELEMENT_WISE, ACTIVATION, SLOPE, PAIRS, GATE, INFORMATION]
        Params Read Read Read Write Write
);
kernel!(MOL_LOGITS_GRADIENT = "mol_logits_gradient" [ELEMENT_WISE, DROPOUT] Params Read Write);
kernel!(MUTUAL_INFORMATION = "mutual_information" [ELEMENT_WISE, INFORMATION] Params Read Write);
kernel!(SQUARED_ROWS = "squared_rows" [ELEMENT_WISE] Params Read Read Write Write);
kernel!(ADAMW = "adamw" [ELEMENT_WISE] Params Read Read Write Write Write);
kernel!(SQUARE_SUMS = "square_sums" [REDUCTION] Params Read Write);

/// Whose rows are centred.
pub static LAYER_NORM_GRADIENT: LazyLock<KernelSpec> =
    LazyLock::new(|| KernelSpec { constants: vec![("CENTRED", 1.0)], ..L2_NORM_GRADIENT.clone() });

/// The same, with weights.
pub static AFFINE_LAYER_NORM_GRADIENT: LazyLock<KernelSpec> =
    LazyLock::new(|| KernelSpec { constants: vec![("CENTRED", 1.0), ("AFFINE", 1.0)], ..L2_NORM_GRADIENT.clone() });

/// The weights of pairs only.
pub static SOFTMAX_WEIGHTS: LazyLock<KernelSpec> =
    LazyLock::new(|| KernelSpec { constants: vec![("FORWARD", 1.0)], ..SOFTMAX_PAIRS.clone() });

/// [`GRU_GRADIENT`] for states of this width.
pub fn gru_gradient_spec(hidden: usize) -> KernelSpec {
    KernelSpec { constants: vec![("HIDDEN", hidden as f64)], ..GRU_GRADIENT.clone() }
}

params!(AddParams { n: u32 });
params!(DropOutParams { n: u32, sharing: u32, threshold: u32, scale: f32, key_0: u32, key_1: u32 });
params!(ActivationGradientParams { n: u32, activation: u32 });
params!(GluGradientParams { n: u32, hidden: u32, activation: u32 });
params!(ColumnsParams { n: u32, width: u32, total: u32, first: u32 });
params!(ColumnSumsParams { n: u32, rows: u32, width: u32, chunk: u32 });
params!(MatrixProductParams {
    rows: u32,
    depth: u32,
    columns: u32,
    chunk: u32,
    a_row: u32,
    a_column: u32,
    b_row: u32,
    b_column: u32
});
params!(NormGradientParams { rows: u32, width: u32, eps: f32, unbiased: u32 });
params!(HstuGateGradientParams { n: u32, width: u32, stride: u32, concat_ua: u32 });
params!(SumListsParams { n: u32, width: u32, scale: f32 });
params!(AttentionSumsParams {
    n: u32,
    rows: u32,
    width: u32,
    length: u32,
    x_stride: u32,
    x_first: u32,
    y_stride: u32,
    y_first: u32,
    transposed: u32,
    causal: u32
});
params!(SoftmaxPairsParams {
    rows: u32,
    heads: u32,
    d: u32,
    head: u32,
    length: u32,
    causal: u32,
    mask_stride: u32,
    threshold: u32,
    scale: f32,
    key_0: u32,
    key_1: u32
});
params!(HstuPairsParams {
    n: u32,
    length: u32,
    heads: u32,
    dqk: u32,
    dv: u32,
    padded_length: u32,
    words: u32,
    head: u32,
    plane: u32
});
params!(HstuBiasGradientParams { n: u32, rows: u32, length: u32, padded_length: u32, words: u32, chunk: u32 });
params!(PairProductsParams { n: u32, dim: u32, per_position: u32 });
params!(SampledSoftmaxParams {
    positions: u32,
    first_position: u32,
    per_position: u32,
    temperature: f32,
    has_correction: u32,
    scale: f32
});
params!(FullSoftmaxParams { positions: u32, first_position: u32, items: u32, temperature: f32, scale: f32 });
params!(GruGradientParams { groups: u32 });
params!(PairSumsParams { n: u32, width: u32, inner: u32, plane: u32, has_x: u32, x_first: u32, first_row: u32 });
params!(ComponentSumsParams {
    rows: u32,
    own: u32,
    others: u32,
    d: u32,
    plane: u32,
    own_stride: u32,
    other_stride: u32,
    x_first: u32,
    first_row: u32,
    span: u32
});
params!(MolLogitsParams {
    n: u32,
    pairs: u32,
    p_q: u32,
    p_x: u32,
    d: u32,
    inverse_temperature: f32,
    first_position: u32,
    per_position: u32,
    slots: u32,
    first_slot: u32,
    has_dropout: u32,
    threshold: u32,
    scale: f32,
    key_0: u32,
    key_1: u32
});
params!(HiddenUnitsParams { n: u32, pairs: u32, has_bias: u32 });
params!(MolGateParams {
    n: u32,
    pairs: u32,
    logits: u32,
    combination: u32,
    has_query_gate: u32,
    has_item_gate: u32,
    has_bias: u32,
    first_position: u32,
    per_position: u32,
    slots: u32,
    first_slot: u32,
    has_dropout: u32,
    threshold: u32,
    scale: f32,
    key_0: u32,
    key_1: u32
});
params!(MolGateGradientParams {
    n: u32,
    pairs: u32,
    logits: u32,
    combination: u32,
    first_position: u32,
    per_position: u32,
    slots: u32,
    first_slot: u32,
    has_dropout: u32,
    mi_pairs: f32,
    mi_scale: f32
});
params!(MolLogitsGradientParams {
    n: u32,
    pairs: u32,
    logits: u32,
    first_pair: u32,
    inverse_temperature: f32,
    has_dropout: u32,
    threshold: u32,
    scale: f32,
    key_0: u32,
    key_1: u32
});
params!(MutualInformationParams { n: u32, pairs: u32, logits: u32, chunk: u32 });
params!(SquaredRowsParams { n: u32, width: u32, scale: f32 });
params!(AdamwParams {
    n: u32,
    width: u32,
    has_gradient: u32,
    has_places: u32,
    lazy: u32,
    keep: f32,
    step_size: f32,
    inverse_root: f32,
    gradient_scale: f32,
    keep_first: f32,
    keep_second: f32,
    eps: f32
});
params!(SquareSumsParams { n: u32 });

/// All of them.
pub(crate) fn kernel_specs() -> Vec<(KernelSpec, ParamsLayout)> {
    vec![
        (ADD.clone(), AddParams::LAYOUT),
        (DROP_OUT.clone(), DropOutParams::LAYOUT),
        (ACTIVATION_GRADIENT.clone(), ActivationGradientParams::LAYOUT),
        (GLU_GRADIENT.clone(), GluGradientParams::LAYOUT),
        (COLUMNS.clone(), ColumnsParams::LAYOUT),
        (COLUMN_SUMS.clone(), ColumnSumsParams::LAYOUT),
        (MATRIX_PRODUCT.clone(), MatrixProductParams::LAYOUT),
        (L2_NORM_GRADIENT.clone(), NormGradientParams::LAYOUT),
        (LAYER_NORM_GRADIENT.clone(), NormGradientParams::LAYOUT),
        (AFFINE_LAYER_NORM_GRADIENT.clone(), NormGradientParams::LAYOUT),
        (HSTU_GATE_GRADIENT.clone(), HstuGateGradientParams::LAYOUT),
        (SUM_LISTS.clone(), SumListsParams::LAYOUT),
        (ATTENTION_SUMS.clone(), AttentionSumsParams::LAYOUT),
        (SOFTMAX_PAIRS.clone(), SoftmaxPairsParams::LAYOUT),
        (SOFTMAX_WEIGHTS.clone(), SoftmaxPairsParams::LAYOUT),
        (HSTU_PAIRS.clone(), HstuPairsParams::LAYOUT),
        (HSTU_BIAS_GRADIENT.clone(), HstuBiasGradientParams::LAYOUT),
        (PAIR_PRODUCTS.clone(), PairProductsParams::LAYOUT),
        (SAMPLED_SOFTMAX.clone(), SampledSoftmaxParams::LAYOUT),
        (FULL_SOFTMAX.clone(), FullSoftmaxParams::LAYOUT),
        (gru_gradient_spec(64), GruGradientParams::LAYOUT),
        (PAIR_SUMS.clone(), PairSumsParams::LAYOUT),
        (COMPONENT_SUMS.clone(), ComponentSumsParams::LAYOUT),
        (MOL_LOGITS.clone(), MolLogitsParams::LAYOUT),
        (HIDDEN_UNITS.clone(), HiddenUnitsParams::LAYOUT),
        (MOL_GATE.clone(), MolGateParams::LAYOUT),
        (MOL_GATE_GRADIENT.clone(), MolGateGradientParams::LAYOUT),
        (MOL_LOGITS_GRADIENT.clone(), MolLogitsGradientParams::LAYOUT),
        (MUTUAL_INFORMATION.clone(), MutualInformationParams::LAYOUT),
        (SQUARED_ROWS.clone(), SquaredRowsParams::LAYOUT),
        (ADAMW.clone(), AdamwParams::LAYOUT),
        (SQUARE_SUMS.clone(), SquareSumsParams::LAYOUT),
    ]
}
