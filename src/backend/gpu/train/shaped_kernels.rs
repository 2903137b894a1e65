//! The kernels of training at the shapes of published models.

use super::kernels::*;
use crate::backend::gpu::device::{KernelSpec, ShapedKernel};

/// Rows of a history.
const LENGTH: u64 = 200;

/// Negatives of a position.
const NEGATIVES: u64 = 128;

/// Side of the tile that a thread of `matrix_product` or `mol_logits` computes, and numbers of it in `component_sums`.
const TILE: u64 = 4;

/// Columns of a that `matrix_product` takes at a time, and terms that `component_sums` does.
const DEPTH: u64 = 16;
const TERMS: u64 = 32;

/// Threads of a workgroup of `softmax_pairs`.
const THREADS: u64 = 64;

fn shaped(spec: &KernelSpec, shape: &str, multiply_adds: u64, turns: &[u64]) -> ShapedKernel {
    let (spec, shape, turns) = (spec.clone(), shape.to_string(), turns.to_vec());
    ShapedKernel { spec, shape, dtype: "f32", multiply_adds: multiply_adds as f64, turns }
}

/// Components of a pair's logits, and sums of their gradients, of these P_Q, P_X and D_P.
fn mixture(shape: &str, [p_q, p_x, d_p]: [u64; 3]) -> [ShapedKernel; 3] {
    [
        shaped(&MOL_LOGITS, shape, TILE * p_x * d_p, &[p_x / TILE, d_p]),
        shaped(&COMPONENT_SUMS, &format!("{shape}, queries"), TILE * NEGATIVES * p_x, &[NEGATIVES * p_x / TERMS, 1]),
        shaped(&COMPONENT_SUMS, &format!("{shape}, items"), TILE * NEGATIVES * p_q, &[NEGATIVES * p_q / TERMS, 1]),
    ]
}

/// All of them.
pub(crate) fn shaped_kernels() -> Vec<ShapedKernel> {
    let keys = LENGTH.div_ceil(THREADS);
    let mut kernels = vec![
        shaped(&MATRIX_PRODUCT, "depth 128", TILE * TILE * 128, &[128 / DEPTH]),
        shaped(&PAIR_PRODUCTS, "50 columns", 50, &[50]),
        shaped(&PAIR_SUMS, "50 columns", NEGATIVES, &[NEGATIVES]),
        shaped(&ATTENTION_SUMS, "history of 200", LENGTH, &[LENGTH]),
        shaped(&HSTU_PAIRS, "8 heads of 32", 2 * 32, &[32, 32]),
        shaped(&SOFTMAX_PAIRS, "1 head of 50", keys * 2 * 50, &[keys, 50, keys, keys, 50, keys]),
        shaped(&gru_gradient_spec(64), "64 columns", LENGTH * 4 * 3 * 64, &[1, LENGTH, 1, 1]),
    ];
    kernels.extend(mixture("ml-1m 8x4x64", [8, 4, 64]));
    kernels.extend(mixture("books 8x8x32", [8, 8, 32]));
    let shapes: Vec<&'static str> = kernels.iter().map(|kernel| kernel.spec.label()).collect();
    let others = kernel_specs().into_iter().filter(|(spec, _)| !shapes.contains(&spec.label()));
    kernels.extend(others.map(|(spec, _)| ShapedKernel::plain(spec)));
    kernels
}
