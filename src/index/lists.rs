//! Inverted lists, and centroids of token embeddings: k-means++ (Arthur and Vassilvitskii, 2007) on a sample, then Lloyd's
//! iterations and the assignment of all items as scans on the device that builds: the nearest of the centres c to a vector x is
//! the one with the greatest `<x, c> - |c|^2 / 2`, the best hit of the query (x, 1) among the items (c, -|c|^2 / 2).

use std::sync::Arc;

use rayon::prelude::*;

use super::ListOptions;
use crate::Result;
use crate::backend::{Backend, Columns, Dtype, Exclusions, QueryBatch, Scorer, SearchContext};
use crate::tables::{Form, Lists, MOST_CENTROIDS, Tables, TokenCodes, TokenTable};
use crate::tensor::Tensor;
use crate::threads;

/// Vectors that the centres are trained on, for each list.
const TRAINED_ON: usize = 64;

/// The same for each centroid of token embeddings, of which there are many more.
const TOKENS_TRAINED_ON: usize = 8;

/// Lloyd's iterations for these.
const TOKEN_ITERATIONS: usize = 4;

/// Lloyd's iterations.
const ITERATIONS: usize = 8;

/// Vectors assigned at a time.
const CHUNK: usize = 2048;

/// The lists that `options` ask for, of tables that keep components.
///
/// # Errors
/// If the device fails.
pub(super) fn lists(backend: &dyn Backend, tables: &Tables, options: ListOptions) -> Result<Vec<Lists>> {
    let n_items = tables.len();
    let n_lists = match options.n_lists {
        0 => 2 * (n_items as f64).sqrt() as usize,
        n => n,
    };
    let p_x = tables.n_components();
    // A few items are scanned sooner than clustered.
    if n_items / 2 < n_lists || p_x == 0 {
        return Ok(Vec::new());
    }
    let groups = (0..p_x).map(Columns::Group).filter(|_| options.groups);
    let columns = groups.chain(options.all.then_some(Columns::All));
    columns.map(|columns| clustered(backend, tables, columns, n_lists)).collect()
}

/// Token embeddings by their nearest centroids; `None` if there are too few vectors for as many as `options` ask for.
///
/// # Errors
/// If the device fails.
pub(super) fn token_codes(
    backend: &dyn Backend,
    tokens: &TokenTable,
    options: ListOptions,
) -> Result<Option<TokenCodes>> {
    let (vectors, n) = (tokens.vectors(), tokens.vectors().rows());
    let n_centroids = match options.n_lists {
        // As many as PLAID takes before it rounds them down to a power of two.
        0 => 16 * (n as f64).sqrt() as usize,
        n => n,
    };
    let n_centroids = n_centroids.min(MOST_CENTROIDS);
    if n / 2 < n_centroids {
        return Ok(None);
    }
    let width = vectors.width();
    let n_trained = n.min(TOKENS_TRAINED_ON * n_centroids);
    let trained: Vec<f32> = (0..n_trained)
        .flat_map(|i| {
            let row = i * n / n_trained;
            vectors.read_rows(row..row + 1)
        })
        .collect();
    // Every so many vectors; choosing them more carefully takes longer than all the rest.
    let seeds =
        (0..n_centroids).flat_map(|i| trained[i * n_trained / n_centroids * width..][..width].to_vec()).collect();
    let centres = trained_centres(backend, (&trained, seeds), width, TOKEN_ITERATIONS)?;
    let assigned = assign(backend, &centres, width, n, |from, to| vectors.read_rows(from..to))?;
    let items = (0..tokens.len()).map(|item| tokens.rows_of(item));
    Ok(Some(TokenCodes::new(Tensor::trusted(vec![n_centroids, width], centres), &assigned, items)))
}

/// Lloyd's iterations on some vectors, from `centres` on.
fn trained_centres(
    backend: &dyn Backend,
    (trained, mut centres): (&[f32], Vec<f32>),
    width: usize,
    iterations: usize,
) -> Result<Vec<f32>> {
    let n_trained = trained.len() / width;
    for _ in 0..iterations {
        let assigned =
            assign(backend, &centres, width, n_trained, |from, to| trained[from * width..to * width].to_vec())?;
        centres = means(trained, width, &assigned, centres);
    }
    Ok(centres)
}

fn clustered(backend: &dyn Backend, tables: &Tables, columns: Columns, n_lists: usize) -> Result<Lists> {
    let width = match columns {
        Columns::All => tables.n_components() * tables.component_width(),
        Columns::Group(_) | Columns::Mean | Columns::Principal => tables.component_width(),
    };
    let read = |positions: &mut dyn Iterator<Item = usize>| {
        let mut rows = Vec::new();
        for position in positions {
            let from = rows.len();
            rows.resize(from + width, 0.0);
            tables.read_columns(columns, position, &mut rows[from..]);
        }
        rows
    };
    let n_items = tables.len();
    let n_trained = n_items.min(TRAINED_ON * n_lists);
    // Evenly spread: positions follow ids, which may follow age or origin.
    let trained = read(&mut (0..n_trained).map(|i| i * n_items / n_trained));
    let seeds = seeds(&trained, width, n_lists);
    let centres = trained_centres(backend, (&trained, seeds), width, ITERATIONS)?;
    let assigned = assign(backend, &centres, width, n_items, |from, to| read(&mut (from..to)))?;
    Ok(Lists::new(columns, Tensor::trusted(vec![n_lists, width], centres), &assigned, tables))
}

/// k-means++: each further centre is a vector drawn with a probability in proportion to its squared distance to the nearest
/// centre so far.
fn seeds(vectors: &[f32], width: usize, n: usize) -> Vec<f32> {
    let rows: Vec<&[f32]> = vectors.chunks_exact(width).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut distances = vec![f32::INFINITY; rows.len()];
    let mut next = (uniform() * rows.len() as f64) as usize;
    let mut centres = Vec::with_capacity(n * width);
    loop {
        let centre = rows[next.min(rows.len() - 1)];
        centres.extend_from_slice(centre);
        if centres.len() == n * width {
            return centres;
        }
        let nearer = |(distance, row): (&mut f32, &&[f32])| {
            let to_centre: f32 = row.iter().zip(centre).map(|(a, b)| (a - b) * (a - b)).sum();
            *distance = distance.min(to_centre);
        };
        threads::run(|| distances.par_iter_mut().zip(rows.par_iter()).with_min_len(256).for_each(nearer));
        let total: f64 = distances.iter().map(|&distance| f64::from(distance)).sum();
        let mut left = uniform() * total;
        next = distances
            .iter()
            .position(|&distance| {
                left -= f64::from(distance);
                left < 0.0
            })
            // All vectors are centres already: take any.
            .unwrap_or((uniform() * rows.len() as f64) as usize);
    }
}

/// The nearest centre of each of `n` vectors.
fn assign(
    backend: &dyn Backend,
    centres: &[f32],
    width: usize,
    n: usize,
    vectors: impl Fn(usize, usize) -> Vec<f32>,
) -> Result<Vec<u32>> {
    let augmented = |rows: &[f32], last: &dyn Fn(&[f32]) -> f32| {
        let data = rows.chunks_exact(width).flat_map(|row| row.iter().copied().chain([last(row)])).collect();
        Tensor::trusted(vec![rows.len() / width, width + 1], data)
    };
    let half_norm = |row: &[f32]| -row.iter().map(|x| x * x).sum::<f32>() / 2.0;
    let centres = augmented(centres, &half_norm);
    let mut tables = Tables::new::<Tensor>(width + 1, None, Dtype::F32, Form::Components)?;
    tables.append(centres.data(), None);
    let context = SearchContext::default();
    let index = backend.load(&context, Arc::new(tables), None)?;
    let mut assigned = Vec::with_capacity(n);
    for from in (0..n).step_by(CHUNK) {
        let to = n.min(from + CHUNK);
        let embeddings = augmented(&vectors(from, to), &|_| 1.0);
        let queries = QueryBatch::new(embeddings);
        let nearest = index.scan(&context, Scorer::Dot, &queries.prepared(), 1, &Exclusions::default())?;
        assigned.extend(nearest.iter().map(|hits| hits.first().map_or(0, |hit| hit.position)));
    }
    Ok(assigned)
}

/// The mean of the vectors of each list; the old centre where there is none.
fn means(vectors: &[f32], width: usize, assigned: &[u32], old: Vec<f32>) -> Vec<f32> {
    let n_lists = old.len() / width;
    let mut sums = vec![0.0f64; old.len()];
    let mut counts = vec![0usize; n_lists];
    for (row, &list) in vectors.chunks_exact(width).zip(assigned) {
        counts[list as usize] += 1;
        let sum = &mut sums[list as usize * width..][..width];
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let mean = |(i, old): (usize, f32)| match counts[i / width] {
        0 => old,
        count => (sums[i] / count as f64) as f32,
    };
    old.into_iter().enumerate().map(mean).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;

    /// 40 vectors around each of (0, 0), (10, 0), (0, 10), one after the other.
    fn blobs() -> Vec<f32> {
        let centres = [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]];
        let point = |i: usize| {
            let [x, y] = centres[i % 3];
            [x + (i as f32).sin() * 0.5, y + (i as f32 * 1.7).cos() * 0.5]
        };
        (0..120).flat_map(point).collect()
    }

    #[test]
    fn seeds_fall_into_different_clusters() {
        let mut found: Vec<usize> = seeds(&blobs(), 2, 3)
            .chunks(2)
            .map(|c| {
                if c[0] > 5.0 {
                    1
                } else if c[1] > 5.0 {
                    2
                } else {
                    0
                }
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found, [0, 1, 2]);
        assert_eq!(seeds(&[1.0, 1.0, 1.0], 1, 3), [1.0, 1.0, 1.0]);
    }

    #[test]
    fn every_vector_goes_to_its_nearest_centre() {
        let vectors = blobs();
        let centres = [0.0, 0.0, 10.0, 0.0, 0.0, 10.0];
        let assigned =
            assign(&Cpu::default(), &centres, 2, 120, |from, to| vectors[2 * from..2 * to].to_vec()).unwrap();
        assert_eq!(assigned, (0..120).map(|i| i % 3).collect::<Vec<u32>>());
        let means = means(&vectors, 2, &assigned, centres.to_vec());
        assert!(means.iter().zip(centres).all(|(mean, centre)| (mean - centre).abs() < 0.2), "{means:?}");
        assert_eq!(super::means(&[4.0, 6.0], 1, &[1, 1], vec![7.0, 0.0]), [7.0, 5.0]);
    }
}
