//! The fused scan and the top-k of the wgpu backend against the definition.

use crate::common::compare::compare;
use crate::common::gpu;
use crate::common::models::{Random, Shape};
use crate::common::mol;
use crate::common::mol::{dot_scores, halved};
use crate::common::naive::Num;
use rails_wgpu::Result;
use rails_wgpu::backend::gpu::{Gpu, GpuBackend, GpuIndex, ScanLimits};
use rails_wgpu::backend::{
    DeviceIndex, Dtype, Exclusions, QueryBatch, ScoredPosition, Scorer, SearchContext, Similarity,
};
use rails_wgpu::config::GatingCombination::{self, GluSilu, GluSiluLn};
use rails_wgpu::index::item_tables;
use rails_wgpu::model::Mol;
use rails_wgpu::tables::Form;
use rails_wgpu::tensor::Tensor;
use std::sync::Arc;

const DIM: usize = 6;

/// Chunks of 2, 2, 4, 8 ... tiles.
fn small_chunks() -> ScanLimits {
    ScanLimits { first_chunk: 128, ..ScanLimits::default() }
}

fn random_batch(random: &mut Random, n_queries: usize) -> QueryBatch {
    let user_ids: Vec<i64> = (0..n_queries as i64).map(|i| i * 37 - 5).collect();
    QueryBatch::new(random.tensor(&[n_queries, DIM], 1.0)).with_users(user_ids)
}

/// Scans twice, for the same bits, and compares each list.
fn check(
    index: &GpuIndex,
    scorer: Scorer,
    batch: &QueryBatch,
    k: usize,
    excluded: &Exclusions,
    scores: &[Vec<Num>],
) -> Vec<Vec<ScoredPosition>> {
    let hits = index.scan(&SearchContext::default(), scorer, &batch.prepared(), k, excluded).unwrap();
    assert_eq!(
        hits,
        index.scan(&SearchContext::default(), scorer, &batch.prepared(), k, excluded).unwrap(),
        "two runs differ"
    );
    assert_eq!(hits.len(), scores.len());
    for (query, (scores, hits)) in scores.iter().zip(&hits).enumerate() {
        if let Err(what) = compare(scores, excluded.of(query), k, hits) {
            panic!("{scorer:?}, N = {}, k = {k}, query {query}: {what}", scores.len());
        }
    }
    hits
}

fn index(gpu: &Arc<Gpu>, items: &Tensor, mol: &Mol<Tensor>, dtype: Dtype, limits: ScanLimits) -> GpuIndex {
    try_index(gpu, items, Some(mol), dtype, limits).unwrap()
}

fn try_index(
    gpu: &Arc<Gpu>,
    items: &Tensor,
    mol: Option<&Mol<Tensor>>,
    dtype: Dtype,
    limits: ScanLimits,
) -> Result<GpuIndex> {
    let tables = item_tables(&GpuBackend::new(gpu.clone()), items, mol, dtype, Form::Components)?;
    let similarity = mol.map(|mol| Similarity { mol: mol.clone(), distilled: None });
    GpuIndex::new(&SearchContext::default(), gpu, Arc::new(tables), similarity.as_ref(), limits)
}

/// Every shape: `gating` with all parts, and what else may be missing, odd or there.
fn shapes(gating: GatingCombination) -> [Shape; 6] {
    let full = Shape { gating, ..Shape::default() };
    [
        full.clone(),
        Shape { query_gate: None, p_q: 3, p_x: 1, d_p: 5, hidden: Some(3), ..full.clone() },
        Shape { item_gate: None, p_q: 1, p_x: 3, d_p: 4, l2_norm: false, uid_sizes: vec![], ..full.clone() },
        Shape { query_gate: None, item_gate: None, hidden: None, item_glu: Some(4), ..full.clone() },
        Shape {
            hidden: None,
            query_glu: Some(3),
            p_q: 1,
            p_x: 1,
            d_p: 1,
            l2_norm: false,
            uid_sizes: vec![],
            ..full.clone()
        },
        Shape { p_q: 5, p_x: 2, d_p: 9, hidden: Some(1), uid_sizes: vec![7, 3], ..full },
    ]
}

fn check_gating(gating: GatingCombination) {
    let Some(gpu) = gpu::shared() else { return };
    for (seed, shape) in shapes(gating).into_iter().enumerate() {
        let mut random = Random::new(seed as u64);
        let (mol, items) = (shape.mol(&mut random, DIM), random.tensor(&[130, DIM], 1.0));
        let batch = random_batch(&mut random, 3);
        let scores = mol::scores(&mol, &items, &batch, |x| x);
        let index = index(&gpu, &items, &mol, Dtype::F32, small_chunks());
        for k in [1, 10, 130] {
            check(&index, Scorer::Mol, &batch, k, &Exclusions::default(), &scores);
        }
        // The bounds are small beside the differences that they have to tell apart, save where a layer norm of one logit
        // divides rounding errors by sqrt(eps).
        let widest = scores.iter().flatten().map(|score| score.error).fold(0.0, f64::max);
        let values = || scores.iter().flatten().map(|score| score.value);
        let spread = values().fold(f64::MIN, f64::max) - values().fold(f64::MAX, f64::min);
        assert!(
            widest < 1e-3 * spread || mol.config.n_logits() == 1,
            "model {seed}: bound {widest:e} for a spread of {spread}"
        );
    }
}

#[test]
fn glu_silu_follows_the_definition() {
    check_gating(GluSilu);
}

#[test]
fn glu_silu_with_layer_norm_follows_the_definition() {
    check_gating(GluSiluLn);
}

#[test]
fn summed_gates_follow_the_definition() {
    check_gating(GatingCombination::None);
}

#[test]
fn all_sizes_around_tiles_and_chunks_work() {
    let Some(gpu) = gpu::shared() else { return };
    let mut random = Random::new(1);
    let mol = Shape::default().mol(&mut random, DIM);
    for n in [1, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000] {
        let items = random.tensor(&[n, DIM], 1.0);
        let index = index(&gpu, &items, &mol, Dtype::F32, small_chunks());
        for n_queries in [0, 1, 3] {
            let batch = random_batch(&mut random, n_queries);
            let mol_scores = mol::scores(&mol, &items, &batch, |x| x);
            let dot_scores = dot_scores(&items, &batch, |x| x);
            for k in [1, 10, n].into_iter().filter(|k| *k <= n) {
                check(&index, Scorer::Mol, &batch, k, &Exclusions::default(), &mol_scores);
                check(&index, Scorer::Dot, &batch, k, &Exclusions::default(), &dot_scores);
            }
        }
    }
}

#[test]
fn borders_of_shards_slices_and_submissions_do_not_show() {
    let Some(gpu) = gpu::shared() else { return };
    let mut random = Random::new(2);
    let (mol, items) = (Shape::default().mol(&mut random, DIM), random.tensor(&[1000, DIM], 1.0));
    let batch = random_batch(&mut random, 28);
    let whole = index(&gpu, &items, &mol, Dtype::F32, ScanLimits::default());
    let tiny = ScanLimits {
        binding_bytes: 36_000, // four tiles of this model; hit lists of four queries at k = 1000
        hit_list_bytes: 36_000,
        first_chunk: 64,
        dispatch_flops: 100_000,
        submission_flops: 300_000,
        ..ScanLimits::default()
    };
    let pieces = index(&gpu, &items, &mol, Dtype::F32, tiny);
    let excluded = Exclusions {
        offsets: (0..29).map(|query| 2 * query).collect(),
        positions: (0..28).flat_map(|query| [query, 999 - query]).collect(),
        denied: None,
    };
    for k in [1, 100, 1000] {
        for scorer in [Scorer::Mol, Scorer::Dot] {
            let expected = whole.scan(&SearchContext::default(), scorer, &batch.prepared(), k, &excluded).unwrap();
            let found = pieces.scan(&SearchContext::default(), scorer, &batch.prepared(), k, &excluded).unwrap();
            let differs = found.iter().flatten().zip(expected.iter().flatten()).find(|(a, b)| a != b);
            assert_eq!(differs, None, "{scorer:?}, k = {k}");
            assert!(found.iter().map(Vec::len).eq(expected.iter().map(Vec::len)));
        }
    }
    assert_eq!(whole.bytes(), pieces.bytes());
}

#[test]
fn equal_scores_are_ordered_by_position() {
    let Some(gpu) = gpu::shared() else { return };
    let mut random = Random::new(3);
    let mol = Shape::default().mol(&mut random, DIM);
    // Four different items, over and over.
    let four = random.tensor(&[4, DIM], 1.0);
    let items = Tensor::new(vec![900, DIM], (0..900).flat_map(|i| four.row(i % 4).to_vec()).collect()).unwrap();
    let batch = random_batch(&mut random, 2);
    let index = index(&gpu, &items, &mol, Dtype::F32, small_chunks());
    for scorer in [Scorer::Mol, Scorer::Dot] {
        for k in [1, 3, 226, 500, 900] {
            for hits in
                index.scan(&SearchContext::default(), scorer, &batch.prepared(), k, &Exclusions::default()).unwrap()
            {
                let order: Vec<u32> =
                    [0, 1, 2, 3].into_iter().map(|rank| hits.get(rank * 225).map_or(9, |h| h.position)).collect();
                for (rank, hit) in hits.iter().enumerate() {
                    let expected = order[rank / 225] + 4 * (rank % 225) as u32;
                    assert_eq!(hit.position, expected, "{scorer:?}, k = {k}, rank {rank}");
                }
                assert!(order[0] < 4);
            }
        }
    }
}

#[test]
fn ascending_scores_fill_every_hit_list_and_lose_nothing() {
    let Some(gpu) = gpu::shared() else { return };
    let n = 3000;
    let items = Tensor::new(vec![n, 1], (0..n).map(|i| i as f32 - 1500.0).collect()).unwrap();
    let batch = QueryBatch::new(Tensor::new(vec![2, 1], vec![1.0, -2.0]).unwrap());
    let index = try_index(&gpu, &items, None, Dtype::F32, small_chunks()).unwrap();
    for k in [1, 1024, 1025, 2049, n] {
        let hits =
            index.scan(&SearchContext::default(), Scorer::Dot, &batch.prepared(), k, &Exclusions::default()).unwrap();
        let up =
            (0..k).map(|rank| ScoredPosition { position: (n - 1 - rank) as u32, score: (1499 - rank as i32) as f32 });
        assert!(hits[0].iter().copied().eq(up), "k = {k}");
        let down = (0..k).map(|rank| ScoredPosition { position: rank as u32, score: -2.0 * (rank as f32 - 1500.0) });
        assert!(hits[1].iter().copied().eq(down), "k = {k}");
    }
}

#[test]
fn excluded_items_never_appear() {
    let Some(gpu) = gpu::shared() else { return };
    let mut random = Random::new(4);
    let (mol, items) = (Shape::default().mol(&mut random, DIM), random.tensor(&[200, DIM], 1.0));
    let batch = random_batch(&mut random, 4);
    let scores = mol::scores(&mol, &items, &batch, |x| x);
    let index = index(&gpu, &items, &mol, Dtype::F32, small_chunks());
    // All but item 77; all; none; every second one.
    let lists: [Vec<u32>; 4] =
        [(0..200).filter(|i| *i != 77).collect(), (0..200).collect(), vec![], (0..200).step_by(2).collect()];
    let mut excluded = Exclusions { offsets: vec![0], positions: vec![], denied: None };
    for list in lists {
        excluded.positions.extend(list);
        excluded.offsets.push(excluded.positions.len() as u32);
    }
    for k in [1, 10, 200] {
        let hits = check(&index, Scorer::Mol, &batch, k, &excluded, &scores);
        assert_eq!(hits[0].iter().map(|hit| hit.position).collect::<Vec<_>>(), [77]);
        assert!(hits[1].is_empty());
    }
}

#[test]
fn half_precision_tables_hold_rounded_values() {
    let Some(gpu) = gpu::shared() else { return };
    for (seed, shape) in shapes(GluSilu).into_iter().enumerate() {
        let mut random = Random::new(seed as u64);
        let (mol, items) = (shape.mol(&mut random, DIM), random.tensor(&[130, DIM], 1.0));
        let batch = random_batch(&mut random, 3);
        let index = index(&gpu, &items, &mol, Dtype::F16, small_chunks());
        check(&index, Scorer::Mol, &batch, 130, &Exclusions::default(), &mol::scores(&mol, &items, &batch, halved));
        check(&index, Scorer::Dot, &batch, 130, &Exclusions::default(), &dot_scores(&items, &batch, halved));
    }
}

#[test]
fn the_largest_halves_are_scored_and_what_is_beyond_them_is_refused() {
    let Some(gpu) = gpu::shared() else { return };
    let items = Tensor::from_rows([[65504.0], [-65504.0], [1.0]]);
    let batch = QueryBatch::new(Tensor::from_rows([[1.0]]));
    let index = try_index(&gpu, &items, None, Dtype::F16, ScanLimits::default()).unwrap();
    let hits =
        index.scan(&SearchContext::default(), Scorer::Dot, &batch.prepared(), 3, &Exclusions::default()).unwrap();
    assert_eq!(hits[0].iter().map(|hit| hit.score).collect::<Vec<_>>(), [65504.0, 1.0, -65504.0]);
    let beyond = Tensor::from_rows([[1.0], [-1e6]]);
    let error = try_index(&gpu, &beyond, None, Dtype::F16, ScanLimits::default()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("-1e6 in row 1"), "{error}");
}

#[test]
fn negative_zero_ties_with_zero() {
    let Some(gpu) = gpu::shared() else { return };
    let items = Tensor::new(vec![4, 1], vec![-0.0, 0.0, -0.0, f32::MIN_POSITIVE]).unwrap();
    let batch = QueryBatch::new(Tensor::new(vec![1, 1], vec![1.0]).unwrap());
    let index = try_index(&gpu, &items, None, Dtype::F32, ScanLimits::default()).unwrap();
    let hits =
        index.scan(&SearchContext::default(), Scorer::Dot, &batch.prepared(), 4, &Exclusions::default()).unwrap();
    assert_eq!(hits[0].iter().map(|hit| hit.position).collect::<Vec<_>>(), [3, 0, 1, 2]);
}

#[test]
fn wrong_arguments_are_told() {
    let Some(gpu) = gpu::shared() else { return };
    let mut random = Random::new(5);
    let (mol, items) = (Shape::default().mol(&mut random, DIM), random.tensor(&[10, DIM], 1.0));
    let build = |items: &Tensor, mol: Option<&Mol<Tensor>>, limits: ScanLimits| {
        try_index(&gpu, items, mol, Dtype::F32, limits).map(|_| ()).unwrap_err().to_string()
    };
    assert!(build(&random.tensor(&[10, 5], 1.0), Some(&mol), ScanLimits::default()).contains("shape (N, 6)"));
    assert!(build(&Tensor::new(vec![0, DIM], vec![]).unwrap(), Some(&mol), ScanLimits::default()).contains("1 <= N"));
    let not_a_number = Tensor::new(vec![2, 1], vec![0.0, f32::NAN]).unwrap();
    assert!(build(&not_a_number, None, ScanLimits::default()).contains("NaN in row 1"));
    let small = ScanLimits { binding_bytes: 1000, ..ScanLimits::default() };
    assert!(build(&items, None, small).contains("the device has 1000"));

    let index = index(&gpu, &items, &mol, Dtype::F32, ScanLimits::default());
    let batch = random_batch(&mut random, 2);
    let scan = |scorer: Scorer, batch: &QueryBatch, k: usize, excluded: Exclusions| {
        index.scan(&SearchContext::default(), scorer, &batch.prepared(), k, &excluded).unwrap_err().to_string()
    };
    let none = Exclusions::default;
    assert!(scan(Scorer::Mol, &batch, 0, none()).contains("1 to 10"));
    assert!(scan(Scorer::Mol, &batch, 11, none()).contains("1 to 10"));
    let wide = QueryBatch::new(random.tensor(&[2, 7], 1.0)).with_users([0, 1]);
    let error = scan(Scorer::Dot, &wide, 1, none());
    assert!(error.contains("shape (n, 6)"), "{error}");
    let nobody = batch.clone().with_users([1]);
    assert!(scan(Scorer::Mol, &nobody, 1, none()).contains("one per query"));
    assert!(
        scan(Scorer::Mol, &batch, 1, Exclusions { offsets: vec![0, 1], positions: vec![0], denied: None })
            .contains("3 ascending")
    );
    let short = Exclusions { offsets: vec![0, 1, 3], positions: vec![0, 1], denied: None };
    assert!(scan(Scorer::Mol, &batch, 1, short).contains("3 ascending"));
    let unsorted = Exclusions { offsets: vec![0, 0, 2], positions: vec![1, 1], denied: None };
    assert!(scan(Scorer::Mol, &batch, 1, unsorted).contains("query 1"));
    let plain = try_index(&gpu, &items, None, Dtype::F32, ScanLimits::default()).unwrap();
    assert!(
        plain
            .scan(&SearchContext::default(), Scorer::Mol, &batch.prepared(), 1, &none())
            .unwrap_err()
            .to_string()
            .contains("Mixture-of-Logits")
    );
}

#[test]
fn the_comparator_rejects_wrong_answers() {
    let scores: Vec<Num> = [3.0, 5.0, 1.0, 5.0, 4.0].into_iter().map(|value| Num { value, error: 1e-6 }).collect();
    let hits = |list: &[(u32, f32)]| -> Vec<ScoredPosition> {
        list.iter().map(|&(position, score)| ScoredPosition { position, score }).collect()
    };
    let accepts = |excluded: &[u32], k, list: &[(u32, f32)]| compare(&scores, excluded, k, &hits(list)).is_ok();
    assert!(accepts(&[], 3, &[(1, 5.0), (3, 5.0), (4, 4.0)]));
    assert!(accepts(&[], 2, &[(3, 5.000_000_5), (1, 5.0)]), "within the bound");
    assert!(accepts(&[1, 3], 9, &[(4, 4.0), (0, 3.0), (2, 1.0)]), "fewer are left");
    assert!(!accepts(&[], 3, &[(1, 5.0), (3, 5.0)]), "too short");
    assert!(!accepts(&[], 3, &[(1, 5.0), (3, 5.0), (0, 3.0)]), "wrong id");
    assert!(!accepts(&[], 3, &[(1, 5.0), (4, 4.0), (3, 5.0)]), "wrong order");
    assert!(!accepts(&[], 3, &[(3, 5.0), (1, 5.0), (4, 4.0)]), "wrong order of a tie");
    assert!(!accepts(&[], 3, &[(1, 5.0), (3, 5.0), (4, 4.00001)]), "wrong score");
    assert!(!accepts(&[], 2, &[(1, 5.0), (1, 5.0)]), "the same twice");
    assert!(!accepts(&[1], 1, &[(1, 5.0)]), "excluded");
}
