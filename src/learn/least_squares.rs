//! Small least-squares problems.

use super::learning::Learning;
use crate::Result;

/// (W, O): the solution X of `normal X = right`, for a symmetric positive definite matrix `normal` (W, W) and `right` (W, O), by
/// Cholesky's factorisation; `None` if it is not positive definite.
///
/// # Errors
/// If nobody wants it any more.
pub(super) fn solve(
    mut normal: Vec<f64>,
    mut right: Vec<f64>,
    width: usize,
    learning: &Learning,
) -> Result<Option<Vec<f64>>> {
    let n_out = right.len() / width.max(1);
    for i in 0..width {
        learning.check()?;
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| normal[i * width + k] * normal[j * width + k]).sum();
            let rest = normal[i * width + j] - sum;
            if i == j && rest <= 0.0 {
                return Ok(None);
            }
            normal[i * width + j] = if i == j { rest.sqrt() } else { rest / normal[j * width + j] };
        }
    }
    for o in 0..n_out {
        learning.check()?;
        for i in 0..width {
            let sum: f64 = (0..i).map(|k| normal[i * width + k] * right[k * n_out + o]).sum();
            right[i * n_out + o] = (right[i * n_out + o] - sum) / normal[i * width + i];
        }
        for i in (0..width).rev() {
            let sum: f64 = (i + 1..width).map(|k| normal[k * width + i] * right[k * n_out + o]).sum();
            right[i * n_out + o] = (right[i * n_out + o] - sum) / normal[i * width + i];
        }
    }
    Ok(Some(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_system_is_solved() {
        // [[4, 2], [2, 3]] X = [[8, 2], [8, 5]] has X = [[1, -0.5], [2, 2]].
        let solution = solve(vec![4.0, 2.0, 2.0, 3.0], vec![8.0, 2.0, 8.0, 5.0], 2, &Learning::default());
        let solution = solution.ok().flatten().unwrap_or_default();
        let expected = [1.0, -0.5, 2.0, 2.0];
        assert!(solution.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{solution:?}");
        assert_eq!(solution.len(), 4);
    }

    #[test]
    fn a_singular_matrix_is_refused() {
        let solution = solve(vec![1.0, 1.0, 1.0, 1.0], vec![1.0, 1.0], 2, &Learning::default());
        assert!(matches!(solution, Ok(None)));
    }
}
