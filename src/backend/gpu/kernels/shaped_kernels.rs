//! The encoder kernels at the shapes of published models.

use super::op_kernels::*;
use super::ops::{ATTENTION_COLUMNS, ATTENTION_ROWS, LINEAR_SIDE};
use crate::backend::gpu::device::{KernelSpec, ShapedKernel};

/// Threads of a workgroup of `linear` and of the attentions.
const THREADS: usize = 256;

/// Columns of what is multiplied that `linear` and the attentions take at a time; the last ones by four.
const DEPTH: usize = 16;

/// Keys that an attention takes at a time.
const KEYS: usize = 32;

/// Threads of a workgroup of `norm`.
const NORM_THREADS: usize = 64;

/// Rows of a history.
const LENGTH: usize = 200;

fn shaped(spec: &KernelSpec, shape: String, multiply_adds: f64, turns: Vec<usize>) -> ShapedKernel {
    let turns = turns.into_iter().map(|turns| turns as u64).collect();
    ShapedKernel { spec: spec.clone(), shape, dtype: "f32", multiply_adds, turns }
}

/// Turns of the two loops over so many columns.
fn turns_over(columns: usize) -> [usize; 2] {
    [columns / DEPTH, (columns % DEPTH).div_ceil(4)]
}

fn linear(n_in: usize) -> ShapedKernel {
    let sums = LINEAR_SIDE * LINEAR_SIDE / THREADS;
    shaped(&LINEAR, format!("n_in={n_in}"), (sums * n_in) as f64, turns_over(n_in).to_vec())
}

/// The last rows of a history: their attention to all of it, by heads of width `d`.
fn attention([narrow, wide]: [&KernelSpec; 2], heads: &str, d: usize) -> ShapedKernel {
    let kernel = if d > ATTENTION_COLUMNS { wide } else { narrow };
    let turns = [&[LENGTH.div_ceil(KEYS)], &turns_over(d)[..]].concat();
    let pairs = ATTENTION_ROWS * KEYS * turns[0] / THREADS;
    shaped(kernel, heads.to_string(), (pairs * 2 * d) as f64, turns)
}

/// Sums and products of a number: those of `kinds` loops over a row.
fn norm(spec: &KernelSpec, name: &str, width: usize, operations: usize, loops: usize) -> ShapedKernel {
    let operations = (operations * width) as f64 / NORM_THREADS as f64;
    shaped(spec, format!("{name}, width {width}"), operations, vec![width.div_ceil(NORM_THREADS); loops])
}

/// All of them.
pub(crate) fn shaped_kernels() -> Vec<ShapedKernel> {
    let mut kernels = vec![linear(50), linear(256)];
    for (heads, d) in [("2 heads of 25", 25), ("8 heads of 32", 32)] {
        kernels.push(attention([&HSTU_ATTENTION, &HSTU_ATTENTION_WIDE], heads, d));
    }
    kernels.push(attention([&CAUSAL_ATTENTION, &CAUSAL_ATTENTION_WIDE], "1 head of 50", 50));
    for width in [50, 256] {
        kernels.push(norm(&L2_NORM, "l2", width, 2, 2));
        kernels.push(norm(&LAYER_NORM, "layer", width, 4, 3));
    }
    let plain = [&GATHER, &EMBED, &GLU, &CONCAT, &TIME_BUCKETS, &HSTU_GATE];
    kernels.extend(plain.into_iter().map(|spec| ShapedKernel::plain((**spec).clone())));
    kernels
}
