//! The encoder kernels: their files, bindings and uniform parameters.

use std::sync::LazyLock;

use crate::backend::gpu::device::{Bind, KernelSpec, ParamsLayout, params, wgsl};

const ACTIVATION: &str = wgsl!("ops/lib/activation.wgsl");
const ATTENTION: &str = wgsl!("ops/lib/attention.wgsl");
const ELEMENT_WISE: &str = wgsl!("ops/lib/element_wise.wgsl");
const GRU_GATES: &str = wgsl!("ops/lib/gru_gates.wgsl");
const REDUCTION: &str = wgsl!("ops/lib/reduction.wgsl");

/// `kernel!(NAME = "file" [LIBRARY, ...] Params Read Write)`: the kernel of `shaders/ops/file.wgsl`, behind these library files.
macro_rules! kernel {
    ($name:ident = $label:literal $([$($lib:ident),+])? $($bind:ident)+) => {
        pub(crate) static $name: LazyLock<KernelSpec> = LazyLock::new(|| KernelSpec {
            label: $label,
            sources: vec![$($($lib.into(),)+)? wgsl!(concat!("ops/", $label, ".wgsl")).into()],
            constants: Vec::new(),
            bindings: &[$(Bind::$bind),+],
            loops_end: true,
        });
    };
}

kernel!(GATHER = "gather" [ELEMENT_WISE] Params Read Read Write);
kernel!(EMBED = "embed" [ELEMENT_WISE] Params Read Read Read Read Write);
kernel!(LINEAR = "linear" [ACTIVATION] Params Read Read Read Read Write);
kernel!(L2_NORM = "norm" [REDUCTION] Params Read Read Read Write);
kernel!(GLU = "glu" [ELEMENT_WISE, ACTIVATION] Params Read Write);
kernel!(CONCAT = "concat" [ELEMENT_WISE] Params Read Write);
kernel!(TIME_BUCKETS = "time_buckets" Params Read Read Read Read Write);
kernel!(HSTU_ATTENTION = "hstu_attention" [ATTENTION, ACTIVATION] Params Read Read Read Read Read Write);
kernel!(HSTU_GATE = "hstu_gate" [ELEMENT_WISE] Params Read Read Write);
kernel!(CAUSAL_ATTENTION = "softmax_attention" [ATTENTION] Params Read Read Read Write);
kernel!(GRU = "gru" [GRU_GATES] Params Read Read Read Read Write);

/// Whose rows are centred.
pub(crate) static LAYER_NORM: LazyLock<KernelSpec> =
    LazyLock::new(|| KernelSpec { constants: vec![("CENTRED", 1.0)], ..L2_NORM.clone() });

/// To all rows of a sequence.
pub(crate) static BIDIRECTIONAL_ATTENTION: LazyLock<KernelSpec> =
    LazyLock::new(|| KernelSpec { constants: vec![("BIDIRECTIONAL", 1.0)], ..CAUSAL_ATTENTION.clone() });

/// For heads of more than 32 columns.
pub(crate) static HSTU_ATTENTION_WIDE: LazyLock<KernelSpec> = LazyLock::new(|| wide(&HSTU_ATTENTION));
pub(crate) static CAUSAL_ATTENTION_WIDE: LazyLock<KernelSpec> = LazyLock::new(|| wide(&CAUSAL_ATTENTION));
pub(crate) static BIDIRECTIONAL_ATTENTION_WIDE: LazyLock<KernelSpec> = LazyLock::new(|| wide(&BIDIRECTIONAL_ATTENTION));

fn wide(attention: &KernelSpec) -> KernelSpec {
    KernelSpec { constants: [&attention.constants[..], &[("WIDE", 1.0)]].concat(), ..attention.clone() }
}

/// The same as [`LAYER_NORM`], with weights.
pub(crate) static AFFINE_LAYER_NORM: LazyLock<KernelSpec> =
    LazyLock::new(|| KernelSpec { constants: vec![("CENTRED", 1.0), ("AFFINE", 1.0)], ..L2_NORM.clone() });

/// [`GRU`] for states of this width.
pub(crate) fn gru(hidden: usize) -> KernelSpec {
    KernelSpec { constants: vec![("HIDDEN", hidden as f64)], ..GRU.clone() }
}

params!(GatherParams { n: u32, width: u32 });
params!(EmbedParams { n: u32, width: u32, scale: f32 });
params!(LinearParams { rows: u32, n_in: u32, n_out: u32, activation: u32, has_bias: u32, has_residual: u32 });
params!(NormParams { rows: u32, width: u32, eps: f32, unbiased: u32 });
params!(GluParams { n: u32, hidden: u32, activation: u32 });
params!(ConcatParams { n: u32, width: u32, total: u32, offset: u32 });
params!(TimeBucketsParams { n: u32, words: u32, n_bounds: u32 });
params!(HstuAttentionParams { rows: u32, heads: u32, dqk: u32, dv: u32, padded_length: u32, words: u32 });
params!(HstuGateParams { n: u32, width: u32, stride: u32, concat_ua: u32 });
params!(SoftmaxAttentionParams { rows: u32, heads: u32, d: u32 });
params!(GruParams { groups: u32, has_bias: u32 });

/// All kernels, for tests of `shaders/`.
pub(crate) fn kernel_specs() -> Vec<(KernelSpec, ParamsLayout)> {
    vec![
        (GATHER.clone(), GatherParams::LAYOUT),
        (EMBED.clone(), EmbedParams::LAYOUT),
        (LINEAR.clone(), LinearParams::LAYOUT),
        (LAYER_NORM.clone(), NormParams::LAYOUT),
        (AFFINE_LAYER_NORM.clone(), NormParams::LAYOUT),
        (L2_NORM.clone(), NormParams::LAYOUT),
        (GLU.clone(), GluParams::LAYOUT),
        (CONCAT.clone(), ConcatParams::LAYOUT),
        (TIME_BUCKETS.clone(), TimeBucketsParams::LAYOUT),
        (HSTU_ATTENTION.clone(), HstuAttentionParams::LAYOUT),
        (HSTU_ATTENTION_WIDE.clone(), HstuAttentionParams::LAYOUT),
        (HSTU_GATE.clone(), HstuGateParams::LAYOUT),
        (CAUSAL_ATTENTION.clone(), SoftmaxAttentionParams::LAYOUT),
        (CAUSAL_ATTENTION_WIDE.clone(), SoftmaxAttentionParams::LAYOUT),
        (BIDIRECTIONAL_ATTENTION.clone(), SoftmaxAttentionParams::LAYOUT),
        (BIDIRECTIONAL_ATTENTION_WIDE.clone(), SoftmaxAttentionParams::LAYOUT),
        (gru(64), GruParams::LAYOUT),
    ]
}
