//! The encoder kernels at the shapes of published models.

use super::op_kernels::*;
use super::ops::{ATTENTION_ROWS, LINEAR_SIDE};
use crate::backend::gpu::device::{KernelSpec, ShapedKernel};

/// Threads of a workgroup of `linear` and of the attentions.
const THREADS: usize = 256;

/// Columns of `x` that `linear` takes at a time.
const LINEAR_DEPTH: usize = 16;

/// Threads of a workgroup of `norm`.
const NORM_THREADS: usize = 64;

/// Rows of a history.
const LENGTH: usize = 200;

fn shaped(spec: &KernelSpec, shape: String, multiply_adds: f64, turns: Vec<usize>) -> ShapedKernel {
    let turns = turns.into_iter().map(|turns| turns as u64).collect();
    ShapedKernel { spec: spec.clone(), shape, dtype: "f32", multiply_adds, turns }
}

fn linear(n_in: usize) -> ShapedKernel {
    let sums = LINEAR_SIDE * LINEAR_SIDE / THREADS;
    shaped(&LINEAR, format!("n_in={n_in}"), (sums * n_in) as f64, vec![n_in.div_ceil(LINEAR_DEPTH)])
}

/// The last rows of a history: its attention to all of it, products of `width` numbers for each pair of rows.
fn attention(spec: &KernelSpec, heads: &str, width: usize, turns: Vec<usize>) -> ShapedKernel {
    let pairs = ATTENTION_ROWS * ATTENTION_ROWS * turns[0];
    shaped(spec, heads.to_string(), (pairs * width) as f64 / THREADS as f64, turns)
}

/// Sums and products of a number: those of `kinds` loops over a row.
fn norm(spec: &KernelSpec, name: &str, width: usize, operations: usize, loops: usize) -> ShapedKernel {
    let operations = (operations * width) as f64 / NORM_THREADS as f64;
    shaped(spec, format!("{name}, width {width}"), operations, vec![width.div_ceil(NORM_THREADS); loops])
}

/// All of them.
pub(crate) fn shaped_kernels() -> Vec<ShapedKernel> {
    let tiles = LENGTH.div_ceil(ATTENTION_ROWS);
    let mut kernels = vec![linear(50), linear(256)];
    for (heads, d) in [("2 heads of 25", 25usize), ("8 heads of 32", 32)] {
        let turns = vec![tiles, d.div_ceil(ATTENTION_ROWS), ATTENTION_ROWS];
        kernels.push(attention(&HSTU_ATTENTION, heads, 2 * d, turns));
    }
    let turns = vec![tiles, 50usize.div_ceil(ATTENTION_ROWS), ATTENTION_ROWS];
    kernels.push(attention(&CAUSAL_ATTENTION, "1 head of 50", 100, turns));
    for width in [50, 256] {
        kernels.push(norm(&L2_NORM, "l2", width, 2, 2));
        kernels.push(norm(&LAYER_NORM, "layer", width, 4, 3));
    }
    let plain = [&GATHER, &EMBED, &GLU, &CONCAT, &TIME_BUCKETS, &HSTU_GATE];
    kernels.extend(plain.into_iter().map(|spec| ShapedKernel::plain((**spec).clone())));
    kernels
}
