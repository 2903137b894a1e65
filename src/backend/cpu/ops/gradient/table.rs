//! Gradients of tables whose rows are looked up: sums over all who looked, in the order of their rows.

use crate::backend::cpu::ops::attention::sequences;
use crate::threads;

/// Adds row i of `dy` (n, width), times `scale`, to row `indices[i]` of `gradient`, for every i in order.
pub fn gather(indices: &[u32], width: usize, scale: f32, dy: &[f32], gradient: &mut [f32]) {
    // Every thread looks at all indices and takes those of its own rows, so that none waits for another and the order is kept.
    let rows = gradient.len() / width.max(1);
    let piece = rows.div_ceil(4 * threads::count()).max(1);
    threads::for_each(gradient.chunks_mut((piece * width).max(1)).enumerate(), |(number, gradient)| {
        let first = (number * piece) as u32;
        let own = first..first + (gradient.len() / width) as u32;
        for (&index, dy) in indices.iter().zip(dy.chunks_exact(width)) {
            if own.contains(&index) {
                let row = &mut gradient[(index - first) as usize * width..][..width];
                row.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += scale * dy);
            }
        }
    });
}

/// Adds to row p of `gradient` row p of every sequence of `dy` (rows, width) that has one, in the order of sequences.
pub fn positions(start: &[u32], width: usize, dy: &[f32], gradient: &mut [f32]) {
    let sequences: Vec<_> = sequences(start).collect();
    threads::for_each_row(gradient, width, 1, |position, sum| {
        for rows in sequences.iter().filter(|rows| position < rows.len()) {
            let dy = &dy[(rows.start + position) * width..][..width];
            sum.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy);
        }
    });
}
