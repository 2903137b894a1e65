//! Fitting tangents: the derivatives of the score around the best items, as a linear function of the query.
//!
//! A tangent needs the derivative of the score with respect to the logits around the best items of a query. Finding these
//! items costs each search a scan of a sample, scores and derivatives. But the derivative hardly depends on the items: it is
//! the gate that decides, and most of the gate is the query's. So it can be learned: ridge regression on some queries. The
//! features are inner products of components, because logits are what the gate sees.

use super::learning::{GATE_SHARE, Learning};
use super::least_squares::solve;
use super::query_side::query_components;
use super::sample::Sample;
use crate::backend::cpu::CpuOps;
use crate::backend::{DeviceIndex, Exclusions, QueryBatch, Scorer};
use crate::error::Parameter;
use crate::model::{Mol, Tangents};
use crate::ops::{Linear, Ops};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The least number of items of the sample that a derivative is averaged over, and the greatest.
const BEST: (usize, usize) = (16, 1024);

/// How many queries the mean over all queries weighs as much as.
const PRIOR: f64 = 30.0;

/// Fits tangents to `queries`.
///
/// # Errors
/// If there is no query, shapes do not fit, or nobody wants it any more.
pub(super) fn fit(mol: &Mol<Tensor>, sample: &Sample, queries: &QueryBatch, learning: &Learning) -> Result<Tangents> {
    let mut best = vec![BEST.0.min(sample.len())];
    while let Some(&last) = best.last()
        && last < BEST.1.min(sample.len())
    {
        best.push((2 * last).min(BEST.1).min(sample.len()));
    }
    let targets = derivatives(sample, queries, &best, learning)?;
    let mean_item = mean_item(mol, sample);
    let components = query_components(mol, &queries.prepared());
    let features: Vec<Vec<f32>> =
        (0..targets.rows()).map(|row| Tangents::features(&mean_item, components.row(row))).collect();
    let features = Tensor::trusted(vec![features.len(), features[0].len()], features.concat());
    learning.reached((1.0 + GATE_SHARE) / 2.0)?;
    let scaling = Scaling::of(&features);
    let width = scaling.means.len();
    let n_out = targets.width();
    let means: Vec<f64> =
        (0..n_out).map(|o| mean((0..targets.rows()).map(|row| f64::from(targets.row(row)[o])))).collect();
    let rows: Vec<Vec<f64>> = (0..targets.rows()).map(|row| scaling.scaled(features.row(row))).collect();
    let errors = (0..targets.rows()).flat_map(|row| targets.row(row).iter().zip(&means));
    let errors: Vec<f64> = errors.map(|(target, mean)| f64::from(*target) - mean).collect();
    let solution =
        ridge(&rows, &errors, width, learning)?.filter(|values| values.iter().all(|value| value.is_finite()));
    let solution = solution.ok_or_else(|| {
        Error::argument(Parameter::LearningQueries, "such as tangents can be fitted to", "scores too large for it")
    })?;

    // Undoes the scaling of the features.
    let weight = (0..width * n_out).map(|i| solution[i] * scaling.scales[i / n_out]);
    let weight: Vec<f32> = weight.map(|weight| weight as f32).collect();
    let shift =
        |o: usize| (0..width).map(|i| solution[i * n_out + o] * scaling.scales[i] * scaling.means[i]).sum::<f64>();
    let bias = (0..n_out).map(|o| (means[o] - shift(o)) as f32).collect();
    let (weight, bias) = (Tensor::trusted(vec![width, n_out], weight), Tensor::trusted(vec![n_out], bias));
    learning.reached(1.0)?;
    Ok(Tangents { best, mean: mean_item, layer: Linear { weight, bias: Some(bias), n_in: width, n_out } })
}

/// (F, O): ridge regression of `errors` (B, O) on `rows` (B, F): `(X^T X + c)^-1 X^T E`, or, where there are fewer rows than
/// features, the same number `X^T (X X^T + c)^-1 E`. So the time is bounded by the cube of the smaller of both.
fn ridge(rows: &[Vec<f64>], errors: &[f64], width: usize, learning: &Learning) -> Result<Option<Vec<f64>>> {
    let n_out = errors.len() / rows.len().max(1);
    let mut right = vec![0.0; width * n_out];
    if rows.len() < width {
        let mut products = Vec::with_capacity(rows.len() * rows.len());
        for (i, row) in rows.iter().enumerate() {
            learning.check()?;
            products.extend(rows.iter().map(|other| row.iter().zip(other).map(|(a, b)| a * b).sum::<f64>()));
            products[i * rows.len() + i] += PRIOR;
        }
        let Some(of_rows) = solve(products, errors.to_vec(), rows.len(), learning)? else { return Ok(None) };
        for (row, of_row) in rows.iter().zip(of_rows.chunks_exact(n_out)) {
            learning.check()?;
            add_outer_product(row, of_row, &mut right);
        }
        return Ok(Some(right));
    }
    let mut normal = vec![0.0; width * width];
    for (row, errors) in rows.iter().zip(errors.chunks_exact(n_out)) {
        learning.check()?;
        add_outer_product(row, row, &mut normal);
        add_outer_product(row, errors, &mut right);
    }
    (0..width).for_each(|i| normal[i * width + i] += PRIOR);
    solve(normal, right, width, learning)
}

/// Adds `a b^T` to `sums` (A, B).
fn add_outer_product(a: &[f64], b: &[f64], sums: &mut [f64]) {
    for (a, sums) in a.iter().zip(sums.chunks_exact_mut(b.len())) {
        sums.iter_mut().zip(b).for_each(|(sum, b)| *sum += a * b);
    }
}

/// (P_X, D_P): mean components of the sample.
fn mean_item(mol: &Mol<Tensor>, sample: &Sample) -> Tensor {
    let weights = mol.map(&mut |tensor| CpuOps::default().floats(tensor));
    let components =
        weights.item_side(&mut CpuOps::default(), &CpuOps::default().floats(&sample.raw()), sample.len()).components;
    let shape = vec![mol.config.item_dot_product_groups, mol.config.dot_product_dimension];
    let width = shape.iter().product();
    let column = |j: usize| mean(components.iter().skip(j).step_by(width).map(|&x| f64::from(x))) as f32;
    Tensor::trusted(shape, (0..width).map(column).collect())
}

/// (B, R * L): for each number of `best` items of the sample, the derivative averaged over so many.
fn derivatives(sample: &Sample, queries: &QueryBatch, best: &[usize], learning: &Learning) -> Result<Tensor> {
    let n_queries = queries.embeddings.rows();
    let Some(&most) = best.last().filter(|_| n_queries > 0) else {
        return Err(Error::argument(Parameter::LearningQueries, "at least one, better some hundreds", "none"));
    };
    let queries = queries.prepared();
    let ranked = sample.index().scan(learning.context(), Scorer::Mol, &queries, most, &Exclusions::default())?;
    if let Some(query) = ranked.iter().position(|hits| hits.len() < most) {
        return Err(match learning.context().is_cancelled() {
            true => Error::Cancelled,
            false => Error::NotScored { query, expected: most, found: ranked[query].len() },
        });
    }
    let mut rows: Vec<Vec<f32>> = vec![Vec::new(); n_queries];
    let (mut before, mut sums) = (0, Vec::new());
    for &n in best {
        let ring = ranked.iter().map(|hits| hits[before..n].iter().map(|hit| hit.position).collect());
        let means = sample.index().gradient(&queries, &ring.collect::<Vec<Vec<u32>>>())?;
        sums.resize(means.data().len(), 0.0);
        sums.iter_mut().zip(means.data()).for_each(|(sum, mean)| *sum += mean * (n - before) as f32);
        for (row, sums) in rows.iter_mut().zip(sums.chunks_exact(means.width().max(1))) {
            row.extend(sums.iter().map(|sum| sum / n as f32));
        }
        before = n;
    }
    Ok(Tensor::trusted(vec![n_queries, rows[0].len()], rows.concat()))
}

/// What is done to each feature before the regression: mean 0, variance 1.
struct Scaling {
    means: Vec<f64>,
    scales: Vec<f64>,
}

impl Scaling {
    fn of(features: &Tensor) -> Scaling {
        let column = |j: usize| (0..features.rows()).map(move |row| f64::from(features.row(row)[j]));
        let means: Vec<f64> = (0..features.width()).map(|j| mean(column(j))).collect();
        let deviation = |(j, m): (usize, &f64)| mean(column(j).map(|x| (x - m) * (x - m))).sqrt();
        // The product of a normalised component with itself is always one, but for rounding: it says nothing.
        let inverse = |deviation: f64| if deviation > 1e-5 { 1.0 / deviation } else { 0.0 };
        let scales = means.iter().enumerate().map(deviation).map(inverse).collect();
        Scaling { means, scales }
    }

    fn scaled(&self, features: &[f32]) -> Vec<f64> {
        let scaled = features.iter().zip(&self.means).zip(&self.scales);
        scaled.map(|((x, mean), scale)| (f64::from(*x) - mean) * scale).collect()
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0u64), |(sum, n), value| (sum + value, n + 1));
    sum / n.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regressions_with_fewer_rows_than_features_are_the_same_ones() {
        let rows: Vec<Vec<f64>> =
            (0..7).map(|row| (0..9).map(|j| f64::from(row * 9 + j).sin() * 10.0).collect()).collect();
        let errors: Vec<f64> = (0..14).map(|i| f64::from(i).cos()).collect();
        let fit = |rows: &[Vec<f64>], errors: &[f64]| {
            ridge(rows, errors, 9, &Learning::default()).ok().flatten().unwrap_or_default()
        };
        // Rows of zeros change nothing but which of the two forms is taken.
        let more = [rows.as_slice(), &[vec![0.0; 9], vec![0.0; 9]]].concat();
        let [few, many] = [fit(&rows, &errors), fit(&more, &[errors.as_slice(), &[0.0; 4]].concat())];
        assert_eq!((few.len(), many.len()), (18, 18));
        assert!(few.iter().zip(&many).all(|(a, b)| (a - b).abs() < 1e-12), "{few:?} {many:?}");
        assert!(few.iter().any(|weight| weight.abs() > 1e-3));
    }

    #[test]
    fn scaled_features_have_mean_zero_and_variance_one_and_constants_are_ignored() {
        let features = Tensor::trusted(vec![2, 2], vec![1.0, 7.0, 5.0, 7.0]);
        let scaling = Scaling::of(&features);
        assert_eq!(scaling.scaled(features.row(0)), [-1.0, 0.0]);
        assert_eq!(scaling.scaled(&[7.0, 9.0]), [2.0, 0.0]);
    }
}
