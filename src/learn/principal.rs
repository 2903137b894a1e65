//! Principal directions: the few directions in which the components of the items vary. The components of an item, side by
//! side, come from one embedding of D numbers, so they fill little more than D of their P_X * D_P dimensions. A first stage
//! that multiplies in these directions only is as good and several times cheaper.

use crate::Result;
use crate::backend::Backend;
use crate::backend::cpu::CpuOps;
use crate::model::Mol;
use crate::ops::{Activation, Linear, Ops};
use crate::tensor::Tensor;

/// Most items that directions are found from.
const ITEMS: usize = 8192;

/// Narrower components are multiplied as they are.
const LEAST_WIDTH: usize = 32;

/// The share of the squared length of all components that may be lost. On a trained model of 23,715 items, 8x4x64, 56 of 256
/// directions lost .0018 of it; recall@100 of the tangent was the same with 64, and lower by .001 with 48.
const LOST: f64 = 1.0 / 500.0;

/// Iterations of the subspace.
const ITERATIONS: usize = 20;

/// Whether the components are wide enough for directions to be worth it.
pub(crate) fn has_directions(mol: &Mol<Tensor>) -> bool {
    mol.config.item_dot_product_groups * mol.config.dot_product_dimension >= LEAST_WIDTH
}

/// (P_X * D_P -> R): coordinates in the principal directions of items with raw embeddings `rows` (n of width D); `None` where
/// they would not be worth it: if components are narrow, or fill half of their dimensions.
///
/// # Errors
/// If the device fails.
pub(crate) fn directions(backend: &dyn Backend, mol: &Mol<Tensor>, rows: &[&[f32]]) -> Result<Option<Linear<Tensor>>> {
    let width = mol.config.item_dot_product_groups * mol.config.dot_product_dimension;
    let (dim, most, n_items) = (mol.item_dim(), width / 2 / 8 * 8, rows.len());
    if !has_directions(mol) || n_items < width {
        return Ok(None);
    }
    let n = n_items.min(ITEMS);
    let picked = (0..n).flat_map(|i| rows[i * n_items / n]).copied().collect();
    let components = backend.item_side(mol, &Tensor::trusted(vec![n, dim], picked))?.components;
    let moments = moments(&components, width);
    let total: f64 = (0..width).map(|i| moments[i * width + i]).sum();
    let basis = subspace(&moments, width, most);
    let energy = |v: &Vec<f64>| times(&moments, v).iter().zip(v).map(|(a, b)| a * b).sum::<f64>();
    let mut left = total;
    let enough = basis.iter().position(|direction| {
        left -= energy(direction);
        left <= LOST * total
    });
    let Some(n_out) = enough.map(|last| (last + 1).next_multiple_of(8)) else { return Ok(None) };
    let weight = (0..width * n_out).map(|i| basis[i % n_out][i / n_out] as f32).collect();
    let weight = Tensor::trusted(vec![width, n_out], weight);
    Ok(Some(Linear { weight, bias: None, n_in: width, n_out }))
}

/// (V, R): vectors (V, P_X * D_P) in the principal directions `layer`.
pub(crate) fn coordinates(layer: &Linear<Tensor>, vectors: &Tensor) -> Tensor {
    let (n, weights) = (vectors.rows(), layer.map(&mut |tensor| CpuOps::default().floats(tensor)));
    let reduced = CpuOps::default().linear(&CpuOps::default().floats(vectors), n, &weights, Activation::Identity, None);
    Tensor::trusted(vec![n, layer.n_out], reduced.to_vec())
}

/// (W, W): sum of the outer products of all rows with themselves.
fn moments(rows: &[f32], width: usize) -> Vec<f64> {
    let mut sums = vec![0.0; width * width];
    for row in rows.chunks_exact(width) {
        for (a, sums) in row.iter().zip(sums.chunks_exact_mut(width)) {
            sums.iter_mut().zip(row).for_each(|(sum, b)| *sum += f64::from(a * b));
        }
    }
    sums
}

/// `n` orthonormal directions that span the most of a symmetric matrix, the greatest first: orthogonal iteration.
fn subspace(matrix: &[f64], width: usize, n: usize) -> Vec<Vec<f64>> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    let mut basis: Vec<Vec<f64>> = (0..n).map(|_| (0..width).map(|_| random()).collect()).collect();
    orthonormalise(&mut basis);
    for _ in 0..ITERATIONS {
        basis = basis.iter().map(|direction| times(matrix, direction)).collect();
        orthonormalise(&mut basis);
    }
    basis
}

fn times(matrix: &[f64], v: &[f64]) -> Vec<f64> {
    matrix.chunks_exact(v.len()).map(|row| row.iter().zip(v).map(|(a, b)| a * b).sum()).collect()
}

/// Gram and Schmidt's procedure, twice over, since once is not exact enough. A direction that depends on those before it
/// becomes zero.
fn orthonormalise(basis: &mut [Vec<f64>]) {
    for i in 0..basis.len() {
        let (before, rest) = basis.split_at_mut(i);
        let direction = &mut rest[0];
        for other in before.iter().chain(before.iter()) {
            let along: f64 = other.iter().zip(direction.iter()).map(|(a, b)| a * b).sum();
            direction.iter_mut().zip(other).for_each(|(x, o)| *x -= along * o);
        }
        let norm = direction.iter().map(|x| x * x).sum::<f64>().sqrt();
        let scale = if norm > 1e-12 { 1.0 / norm } else { 0.0 };
        direction.iter_mut().for_each(|x| *x *= scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subspace_of_a_known_matrix_is_found() {
        // Eigenvalues 5, 3 and 0.1 along rotated axes.
        let axes = [[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]];
        let values = [3.0, 0.1, 5.0];
        let entry = |i: usize, j: usize| (0..3).map(|k| values[k] * axes[k][i] * axes[k][j]).sum::<f64>();
        let matrix: Vec<f64> = (0..9).map(|i| entry(i / 3, i % 3)).collect();
        let basis = subspace(&matrix, 3, 2);
        let along = |v: &[f64], axis: [f64; 3]| v.iter().zip(axis).map(|(a, b)| a * b).sum::<f64>().abs();
        assert!((along(&basis[0], axes[2]) - 1.0).abs() < 1e-6, "{basis:?}");
        assert!((along(&basis[1], axes[0]) - 1.0).abs() < 1e-6, "{basis:?}");
    }

    #[test]
    fn moments_are_sums_of_outer_products() {
        assert_eq!(moments(&[1.0, 2.0, 3.0, -1.0], 2), [10.0, -1.0, -1.0, 5.0]);
    }
}
