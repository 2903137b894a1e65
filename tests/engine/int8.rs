//! Inner products with 8-bit tables: every backend against a plain definition in integers, to the bit.

use std::sync::Arc;

use crate::common::backends::backends;
use crate::common::models::{Random, Shape};
use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::backend::{
    Backend, Columns, DeviceIndex, DeviceKind, Exclusions, QueryBatch, ScoredPosition, Scorer, SearchContext,
};
use rails_wgpu::backend::{Dtype, Similarity};
use rails_wgpu::index::item_tables;
use rails_wgpu::model::Mol;
use rails_wgpu::ops::Linear;
use rails_wgpu::tables::{Form, Lists, Table, Tables, Values};
use rails_wgpu::tensor::Tensor;

/// A fixed-point vector by definition: the nearest integers (ties to even) to value / scale, where the scale is the least
/// power of two, from 2^-125 on, that leaves none above 32512.
fn rounded(vector: &[f32]) -> (Vec<i64>, f32) {
    let largest = vector.iter().fold(0.0f64, |largest, &x| largest.max(f64::from(x).abs()));
    let scale = (-125..).map(|exponent| 2f64.powi(exponent)).find(|scale| largest / scale <= 32512.0).unwrap();
    (vector.iter().map(|&x| (f64::from(x) / scale).round_ties_even() as i64).collect(), scale as f32)
}

/// The product with an 8-bit vector: sums of 512 products each, exact, then added as f32; times both scales.
fn product(query: &[f32], (item, item_scale): (&[i8], f32)) -> f32 {
    let (query, scale) = rounded(query);
    assert_eq!(query.len(), item.len());
    let parts = query.chunks(512).zip(item.chunks(512));
    let part =
        |(query, item): (&[i64], &[i8])| query.iter().zip(item).map(|(&q, &x)| q * i64::from(x)).sum::<i64>() as f32;
    parts.map(part).fold(0.0, |sum, part| sum + part) * item_scale * scale
}

/// Vector `group` of row `row`.
fn vector(table: &Table, row: usize, group: usize) -> (&[i8], f32) {
    let Values::I8(values) = table.values() else { panic!("not an 8-bit table") };
    let vector = row * table.groups() + group;
    (&values.as_slice()[vector * table.group_width()..][..table.group_width()], table.scales()[vector])
}

/// (V, N): scores of vectors with all groups of the rows of a table from `first` on.
fn plain(vectors: &Tensor, table: &Table, first: usize) -> Vec<Vec<f32>> {
    let score = |v: &[f32], row: usize| {
        let groups = v.chunks(table.group_width()).zip(first..);
        groups.map(|(v, group)| product(v, vector(table, row, group))).fold(0.0, |sum, part| sum + part)
    };
    (0..vectors.rows()).map(|v| (0..table.rows()).map(|row| score(vectors.row(v), row)).collect()).collect()
}

/// (V, N): scores with components from `first` on that raw embeddings stand for.
fn transformed(mol: &Mol<Tensor>, vectors: &Tensor, tables: &Tables, first: usize) -> Vec<Vec<f32>> {
    let (output, d_p) = (&mol.item.as_ref().unwrap().output, mol.config.dot_product_dimension);
    let norms = tables.mol.as_ref().unwrap().inverse_norms.as_ref().unwrap();
    let score = |v: &[f32], row: usize| {
        let norms = norms.read_rows(row..row + 1);
        v.chunks(d_p).zip(first..).fold(0.0, |sum, (v, m)| {
            let dot = |weights: &[f32]| v.iter().zip(&weights[m * d_p..]).map(|(v, w)| v * w).fold(0.0, |a, b| a + b);
            let query: Vec<f32> = (0..output.n_in).map(|d| dot(output.weight.row(d))).collect();
            let bias = dot(output.bias.as_ref().unwrap().data());
            (product(&query, vector(&tables.raw, row, 0)) + bias) * norms[m] + sum
        })
    };
    (0..vectors.rows()).map(|v| (0..tables.len()).map(|row| score(vectors.row(v), row)).collect()).collect()
}

/// Whether `hits` are the best of `scores` to the bit; a position without a score cannot be found.
fn compare(scores: &[Option<f32>], k: usize, hits: &[ScoredPosition]) -> Result<(), String> {
    let mut expected: Vec<(u32, f32)> = (0..).zip(scores).filter_map(|(i, score)| Some((i, (*score)?))).collect();
    expected.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));
    expected.truncate(k);
    let expected: Vec<(u32, u32)> = expected.into_iter().map(|(position, score)| (position, score.to_bits())).collect();
    let found: Vec<(u32, u32)> = hits.iter().map(|hit| (hit.position, hit.score.to_bits())).collect();
    match (0..expected.len().max(found.len())).find(|&rank| expected.get(rank) != found.get(rank)) {
        None => Ok(()),
        Some(rank) => Err(format!("rank {rank}: {:?} instead of {:?}", found.get(rank), expected.get(rank))),
    }
}

fn check(what: &str, scores: &[Vec<f32>], hits: &[Vec<ScoredPosition>]) {
    assert_eq!(scores.len(), hits.len(), "{what}");
    for (query, (scores, hits)) in scores.iter().zip(hits).enumerate() {
        let all: Vec<Option<f32>> = scores.iter().map(|&score| Some(score)).collect();
        compare(&all, scores.len(), hits).unwrap_or_else(|error| panic!("{what}, query {query}: {error}"));
    }
}

fn flat(items: &Tensor) -> Arc<Tables> {
    let mut tables = Tables::new::<Tensor>(items.width(), None, Dtype::I8, Form::Components).unwrap();
    tables.append(items.data(), None);
    Arc::new(tables)
}

fn mips(index: &dyn DeviceIndex, queries: &Tensor, n: usize) -> Vec<Vec<ScoredPosition>> {
    let batch = QueryBatch::new(queries.clone());
    index.scan(&SearchContext::default(), Scorer::Dot, &batch.prepared(), n, &Exclusions::default()).unwrap()
}

#[test]
fn flat_scans_have_the_bits_of_the_definition_at_every_width_and_batch() {
    let mut random = Random::new(1);
    for (width, n) in [
        (1, 70),
        (3, 33),
        (4, 130),
        (5, 64),
        (15, 65),
        (16, 31),
        (17, 129),
        (33, 40),
        (64, 200),
        (511, 33),
        (513, 40),
        (1100, 35),
    ] {
        let tables = flat(&random.tensor(&[n, width], 3.0));
        for backend in backends() {
            let index = backend.load(&SearchContext::default(), tables.clone(), None).unwrap();
            for n_queries in [1, 2, 3, 5, 9] {
                let queries = random.tensor(&[n_queries, width], 0.3);
                let what = format!("{}, width {width}, batch {n_queries}", backend.info().backend);
                check(&what, &plain(&queries, &tables.raw, 0), &mips(index.as_ref(), &queries, n));
            }
        }
    }
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    // 2048 columns are four parts whose sums are as large as they can be: 512 * 32512 * 127 of 2^31 each.
    let width = 2048;
    let signs = |flip: usize| (0..width).map(move |d| if flip > 0 && d % flip == 0 { -127.0 } else { 127.0 });
    let items = Tensor::new(vec![4, width], [0, 1, 2, 3].into_iter().flat_map(signs).collect()).unwrap();
    let queries = Tensor::new(vec![2, width], [vec![32512.0; width], vec![-32512.0; width]].concat()).unwrap();
    let tables = flat(&items);
    let whole = 2048.0 * 32512.0 * 127.0;
    for backend in backends() {
        let index = backend.load(&SearchContext::default(), tables.clone(), None).unwrap();
        let hits = mips(index.as_ref(), &queries, 4);
        check(&backend.info().backend, &plain(&queries, &tables.raw, 0), &hits);
        // 512 * 32512 * 127 has fewer than 24 significant bits, so the extreme scores are exact.
        let ends = |hits: &[ScoredPosition]| [hits[0], hits[3]].map(|hit| (hit.position, hit.score));
        assert_eq!(ends(&hits[0]), [(0, whole), (1, -whole)]);
        assert_eq!(ends(&hits[1]), [(1, whole), (0, -whole)]);
    }
}

#[test]
fn zeros_and_tiny_numbers_are_scored() {
    let mut random = Random::new(2);
    let mut items = random.tensor(&[40, 7], 1.0).data().to_vec();
    items[..7].fill(0.0);
    let tables = flat(&Tensor::new(vec![40, 7], items).unwrap());
    let (tiny, row) = (f32::MIN_POSITIVE.next_down(), random.tensor(&[7], 1.0));
    let huge: Vec<f32> = row.data().iter().map(|x| x * 1e30).collect();
    let small: Vec<f32> = row.data().iter().map(|x| x * 1e-25).collect();
    let queries = Tensor::new(vec![5, 7], [vec![0.0; 7], vec![-0.0; 7], vec![tiny; 7], huge, small].concat()).unwrap();
    for backend in backends() {
        let index = backend.load(&SearchContext::default(), tables.clone(), None).unwrap();
        let hits = mips(index.as_ref(), &queries, 40);
        check(&backend.info().backend, &plain(&queries, &tables.raw, 0), &hits);
        for hits in &hits[..3] {
            assert!(hits.iter().enumerate().all(|(i, hit)| hit.position == i as u32 && hit.score.to_bits() == 0));
        }
    }
}

/// A model whose components have principal directions.
fn mol(random: &mut Random, d_p: usize, dim: usize) -> Mol<Tensor> {
    let mol = Shape { d_p, ..Shape::default() }.mol(random, dim);
    let (n_in, n_out) = (3 * d_p, 10);
    let weight = random.tensor(&[n_in, n_out], 0.5);
    Mol { principal: Some(Linear { weight, bias: None, n_in, n_out }), ..mol }
}

#[test]
fn first_stages_have_the_bits_of_the_definition() {
    let mut random = Random::new(3);
    let n = 150;
    for (d_p, dim, form) in
        [(6, 7, Form::Components), (19, 32, Form::Components), (6, 7, Form::Raw), (19, 37, Form::Raw)]
    {
        let mol = mol(&mut random, d_p, dim);
        let items = random.tensor(&[n, dim], 1.0);
        let tables = Arc::new(item_tables(&Cpu::default(), &items, Some(&mol), Dtype::I8, form).unwrap());
        let host = tables.mol.as_ref().unwrap();
        let similarity = Similarity { mol: mol.clone(), distilled: None };
        let principal = host.principal.as_ref().unwrap();
        let vectors = [d_p, d_p, 10, 3 * d_p].map(|width| random.tensor(&[5, width], 1.0));
        let [mean, group, directions, all] = &vectors;
        let of_components = |vectors: &Tensor, first: usize| match &host.components {
            Some(components) => plain(vectors, components, first),
            None => transformed(&mol, vectors, &tables, first),
        };
        let asked = [
            (Columns::Mean, mean, plain(mean, &host.mean, 0)),
            (Columns::Principal, directions, plain(directions, principal, 0)),
            (Columns::Group(0), group, of_components(group, 0)),
            (Columns::Group(2), group, of_components(group, 2)),
            (Columns::All, all, of_components(all, 0)),
        ];
        for backend in backends() {
            // Products of floats, of which the transformed query and the sum over norms consist, may be contracted by a driver.
            let contracts = backend.info().kind != DeviceKind::Cpu && backend.info().kind != DeviceKind::SoftwareGpu;
            let index = backend.load(&SearchContext::default(), tables.clone(), Some(&similarity)).unwrap();
            for (columns, vectors, scores) in &asked {
                if form == Form::Raw && contracts && !matches!(columns, Columns::Mean | Columns::Principal) {
                    continue;
                }
                let what = format!("{} {form:?} {columns:?}, d_p = {d_p}", backend.info().backend);
                let hits = index
                    .scan_components(&SearchContext::default(), vectors, *columns, n, &Exclusions::default())
                    .unwrap();
                check(&what, scores, &hits);
                let thresholds: Vec<f32> = scores.iter().map(|scores| scores[7]).collect();
                let found = index
                    .above(&SearchContext::default(), vectors, *columns, &thresholds, &Exclusions::default())
                    .unwrap();
                for ((scores, &threshold), found) in scores.iter().zip(&thresholds).zip(&found) {
                    let expected = (0..n as u32).filter(|&i| scores[i as usize] >= threshold);
                    assert!(found.iter().copied().eq(expected), "{what}: a threshold that a score equals");
                }
            }
        }
    }
}

#[test]
fn inverted_lists_have_the_bits_of_the_definition() {
    let mut random = Random::new(4);
    let n = 300;
    let mol = mol(&mut random, 19, 23);
    let items = random.tensor(&[n, 23], 1.0);
    let mut tables = item_tables(&Cpu::default(), &items, Some(&mol), Dtype::I8, Form::Components).unwrap();
    let assigned: Vec<u32> = (0..n).map(|i| [0, 1, 1, 3, 3, 3, 3, 3, 3, 3][i * 7 % 10]).collect();
    for (columns, width) in [(Columns::Group(1), 19), (Columns::All, 57), (Columns::Principal, 10)] {
        let lists = Lists::new(columns, random.tensor(&[4, width], 1.0), &assigned, &tables);
        tables.lists.push(lists);
    }
    let (tables, similarity) = (Arc::new(tables), Similarity { mol, distilled: None });
    let probes = [vec![3], vec![0, 1], vec![2], vec![3, 2, 1, 0]];
    for backend in backends() {
        let index = backend.load(&SearchContext::default(), tables.clone(), Some(&similarity)).unwrap();
        for (number, lists) in tables.lists.iter().enumerate() {
            let vectors = random.tensor(&[4, lists.centroids.width()], 1.0);
            let found = index
                .scan_lists(&SearchContext::default(), number, &vectors, &probes, n, &Exclusions::default())
                .unwrap();
            let by_row = plain(&vectors, &lists.vectors, 0);
            for ((probes, by_row), hits) in probes.iter().zip(&by_row).zip(&found) {
                let mut scores = vec![None; n];
                for row in probes.iter().flat_map(|&list| lists.list(list)) {
                    scores[lists.positions[row] as usize] = Some(by_row[row]);
                }
                let what = format!("{} {:?}", backend.info().backend, lists.columns);
                compare(&scores, n, hits).unwrap_or_else(|error| panic!("{what}, lists {probes:?}: {error}"));
            }
        }
    }
}

/// Scores differ from inner products with the same items by what rounding the query may cost, half a scale for each number
/// of the item, and by the roundings of f32: of each part, of their sum, of two products.
#[test]
fn rounding_a_query_costs_no_more_than_its_bound() {
    let mut random = Random::new(5);
    for width in [1, 7, 64, 1100] {
        let tables = flat(&random.tensor(&[100, width], 2.0));
        let queries = random.tensor(&[4, width], 5.0);
        let scores = plain(&queries, &tables.raw, 0);
        let mut seen = 0;
        for (v, scores) in scores.iter().enumerate() {
            let query = queries.row(v);
            let largest = query.iter().fold(0.0f64, |largest, &x| largest.max(f64::from(x).abs()));
            for (row, &score) in scores.iter().enumerate() {
                let (item, scale) = vector(&tables.raw, row, 0);
                let item: Vec<f64> = item.iter().map(|&x| f64::from(x) * f64::from(scale)).collect();
                let pairs = || item.iter().zip(query).map(|(&x, &q)| (x, f64::from(q)));
                let value: f64 = pairs().map(|(x, q)| x * q).sum();
                let magnitude: f64 = pairs().map(|(x, q)| (x * q).abs()).sum();
                let by_query = largest / 32512.0 * item.iter().map(|x| x.abs()).sum::<f64>();
                let roundings = (2 * width.div_ceil(512) + 2) as f64 * f64::from(f32::EPSILON) * (magnitude + by_query);
                let error = (f64::from(score) - value).abs();
                assert!(error <= by_query + roundings, "width {width}: {error:e} for {by_query:e} + {roundings:e}");
                seen += usize::from(error > roundings);
            }
        }
        assert!(seen > 0, "width {width}: rounding the query must show");
    }
}

#[test]
fn other_bits_are_noticed() {
    let mut random = Random::new(6);
    let tables = flat(&random.tensor(&[50, 20], 1.0));
    let queries = random.tensor(&[1, 20], 1.0);
    let scores: Vec<Option<f32>> = plain(&queries, &tables.raw, 0)[0].iter().map(|&score| Some(score)).collect();
    let hits =
        mips(Cpu::default().load(&SearchContext::default(), tables.clone(), None).unwrap().as_ref(), &queries, 50)
            .remove(0);
    assert_eq!(compare(&scores, 50, &hits), Ok(()));
    let refused = |change: fn(&mut Vec<ScoredPosition>)| {
        let mut hits = hits.clone();
        change(&mut hits);
        compare(&scores, 50, &hits).is_err()
    };
    assert!(refused(|hits| hits[3].score = hits[3].score.next_up()));
    assert!(refused(|hits| hits[3].position = hits[4].position));
    assert!(refused(|hits| hits.truncate(49)));
    assert!(refused(|hits| hits.swap(0, 1)));
    // Neither the product with the query as it is, nor that with another scale, has these bits.
    let (item, scale) = vector(&tables.raw, 0, 0);
    let exact: f64 = item.iter().zip(queries.row(0)).map(|(&x, &q)| f64::from(x) * f64::from(q)).sum();
    assert_ne!((exact * f64::from(scale)) as f32, scores[0].unwrap());
    let coarser: f64 = {
        let (query, scale) = rounded(queries.row(0));
        let halved = query.iter().map(|&q| (q as f64 / 2.0).round_ties_even() * 2.0 * f64::from(scale));
        item.iter().zip(halved).map(|(&x, q)| f64::from(x) * q).sum()
    };
    assert_ne!((coarser * f64::from(scale)) as f32, scores[0].unwrap());
}
