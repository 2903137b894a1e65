//! The fused scan and the top-k of the CPU backend against the definition.

use std::sync::Arc;

use crate::common::compare::compare;
use crate::common::models::{Random, Shape};
use crate::common::mol;
use crate::common::mol::{dot_scores, halved};
use crate::common::naive::Num;
use proptest::prelude::*;
use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::backend::{
    Backend, DeviceIndex, Dtype, Exclusions, QueryBatch, ScoredPosition, Scorer, SearchContext, Similarity,
};
use rails_wgpu::config::GatingCombination;
use rails_wgpu::index::item_tables;
use rails_wgpu::model::Mol;
use rails_wgpu::tables::Form;
use rails_wgpu::tensor::Tensor;

const DIM: usize = 6;

fn batch(random: &mut Random, n_queries: usize) -> QueryBatch {
    let user_ids: Vec<i64> = (0..n_queries as i64).map(|i| i * 37 - 5).collect();
    QueryBatch::new(random.tensor(&[n_queries, DIM], 1.0)).with_users(user_ids)
}

fn index(items: &Tensor, mol: &Mol<Tensor>, dtype: Dtype) -> Box<dyn DeviceIndex> {
    let tables = item_tables(&Cpu::default(), items, Some(mol), dtype, Form::Components).unwrap();
    let similarity = Similarity { mol: mol.clone(), distilled: None };
    Cpu::default().load(&SearchContext::default(), Arc::new(tables), Some(&similarity)).unwrap()
}

/// An index of raw embeddings alone.
fn plain(items: &Tensor) -> Box<dyn DeviceIndex> {
    let tables = item_tables(&Cpu::default(), items, None, Dtype::F32, Form::Components).unwrap();
    Cpu::default().load(&SearchContext::default(), Arc::new(tables), None).unwrap()
}

fn check(hits: &[Vec<ScoredPosition>], excluded: &Exclusions, k: usize, scores: &[Vec<Num>]) -> Result<(), String> {
    assert_eq!(hits.len(), scores.len());
    let mut lists = hits.iter().zip(scores).enumerate();
    lists.try_for_each(|(query, (hits, scores))| compare(scores, excluded.of(query), k, hits))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any shape of model, any number of items around tile borders, any k, any exclusions.
    #[test]
    fn scans_follow_the_definition(
        seed in any::<u64>(),
        (p_q, p_x, d_p) in (1usize..6, 1usize..5, 1usize..10),
        gating in prop::sample::select(vec![
            GatingCombination::GluSilu, GatingCombination::GluSiluLn, GatingCombination::None,
        ]),
        (query_gate, item_gate) in prop::sample::select(vec![(Some(3), Some(2)), (None, Some(2)), (Some(3), None), (None, None)]),
        hidden in prop::option::of(1usize..7),
        l2_norm in any::<bool>(),
        n in prop::sample::select(vec![1usize, 2, 31, 32, 33, 63, 64, 65, 600]),
        (n_queries, k, excluded_share) in (0usize..5, 1usize..700, 0u32..4),
    ) {
        let shape = Shape {
            p_q, p_x, d_p, gating, query_gate, item_gate, hidden, l2_norm, uid_sizes: vec![], ..Shape::default()
        };
        let mut random = Random::new(seed);
        let (mol, items) = (shape.mol(&mut random, DIM), random.tensor(&[n, DIM], 1.0));
        let (batch, k) = (batch(&mut random, n_queries), k.min(n));
        let mut excluded = Exclusions { offsets: vec![0], positions: vec![], denied: None };
        for query in 0..n_queries as u32 {
            excluded.positions.extend((0..n as u32).filter(|i| (i + query) % 4 < excluded_share));
            excluded.offsets.push(excluded.positions.len() as u32);
        }
        let index = index(&items, &mol, Dtype::F32);
        let found = index.scan(&SearchContext::default(), Scorer::Mol, &batch.prepared(), k, &excluded).unwrap();
        check(&found, &excluded, k, &mol::scores(&mol, &items, &batch, |x| x)).map_err(TestCaseError::fail)?;
        let found = index.scan(&SearchContext::default(), Scorer::Dot, &batch.prepared(), k, &excluded).unwrap();
        check(&found, &excluded, k, &dot_scores(&items, &batch, |x| x)).map_err(TestCaseError::fail)?;
    }
}

#[test]
fn half_precision_tables_hold_rounded_values() {
    let mut random = Random::new(8);
    let (mol, items) = (Shape::default().mol(&mut random, DIM), random.tensor(&[130, DIM], 1.0));
    let batch = batch(&mut random, 3);
    let index = index(&items, &mol, Dtype::F16);
    let none = Exclusions::default();
    let hits = index.scan(&SearchContext::default(), Scorer::Mol, &batch.prepared(), 130, &none).unwrap();
    check(&hits, &none, 130, &mol::scores(&mol, &items, &batch, halved)).unwrap();
    assert!(check(&hits, &none, 130, &mol::scores(&mol, &items, &batch, |x| x)).is_err(), "rounding must show");
    let hits = index.scan(&SearchContext::default(), Scorer::Dot, &batch.prepared(), 130, &none).unwrap();
    check(&hits, &none, 130, &dot_scores(&items, &batch, halved)).unwrap();
    assert_eq!(2 * index.bytes(), self::index(&items, &mol, Dtype::F32).bytes());
}

#[test]
fn equal_scores_are_ordered_by_position_and_negative_zero_ties_with_zero() {
    let mut random = Random::new(3);
    let mol = Shape::default().mol(&mut random, DIM);
    let four = random.tensor(&[4, DIM], 1.0);
    let items = Tensor::new(vec![900, DIM], (0..900).flat_map(|i| four.row(i % 4).to_vec()).collect()).unwrap();
    let hits = index(&items, &mol, Dtype::F32).scan(
        &SearchContext::default(),
        Scorer::Mol,
        &batch(&mut random, 2).prepared(),
        900,
        &Exclusions::default(),
    );
    for hits in hits.unwrap() {
        for (rank, hit) in hits.iter().enumerate() {
            let first = hits[rank / 225 * 225].position;
            assert_eq!(hit.position, first + 4 * (rank % 225) as u32);
        }
    }
    let items = Tensor::new(vec![4, 1], vec![-0.0, 0.0, -0.0, f32::MIN_POSITIVE]).unwrap();
    let batch = QueryBatch::new(Tensor::new(vec![1, 1], vec![1.0]).unwrap());
    let hits = plain(&items)
        .scan(&SearchContext::default(), Scorer::Dot, &batch.prepared(), 4, &Exclusions::default())
        .unwrap();
    assert_eq!(hits[0].iter().map(|hit| hit.position).collect::<Vec<_>>(), [3, 0, 1, 2]);
}

#[test]
fn threads_and_batches_do_not_change_a_bit() {
    let mut random = Random::new(4);
    let (mol, items) = (Shape::default().mol(&mut random, DIM), random.tensor(&[3000, DIM], 1.0));
    let (whole, index) = (batch(&mut random, 7), index(&items, &mol, Dtype::F32));
    let none = Exclusions::default();
    for scorer in [Scorer::Mol, Scorer::Dot] {
        let expected = index.scan(&SearchContext::default(), scorer, &whole.prepared(), 50, &none).unwrap();
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(
                pool.install(|| index.scan(&SearchContext::default(), scorer, &whole.prepared(), 50, &none)).unwrap(),
                expected,
                "{threads} threads"
            );
        }
        for (i, expected) in expected.iter().enumerate() {
            let alone = whole.select(&[i]);
            assert_eq!(
                &index.scan(&SearchContext::default(), scorer, &alone.prepared(), 50, &none).unwrap()[0],
                expected,
                "query {i} alone"
            );
        }
    }
}

#[test]
fn wrong_arguments_are_told() {
    let mut random = Random::new(5);
    let (mol, items) = (Shape::default().mol(&mut random, DIM), random.tensor(&[10, DIM], 1.0));
    let build = |items: &Tensor| {
        item_tables(&Cpu::default(), items, Some(&mol), Dtype::F32, Form::Components).unwrap_err().to_string()
    };
    assert!(build(&random.tensor(&[10, 5], 1.0)).contains("shape (N, 6)"));
    assert!(build(&Tensor::new(vec![0, DIM], vec![]).unwrap()).contains("1 <= N"));
    let mut damaged = items.data().to_vec();
    damaged[DIM] = f32::NAN;
    assert!(build(&Tensor::new(vec![10, DIM], damaged).unwrap()).contains("NaN in row 1"));
    let (index, batch) = (index(&items, &mol, Dtype::F32), batch(&mut random, 2));
    let scan = |k: usize, excluded: Exclusions| {
        index.scan(&SearchContext::default(), Scorer::Mol, &batch.prepared(), k, &excluded).unwrap_err().to_string()
    };
    assert!(scan(0, Exclusions::default()).contains("1 to 10"));
    assert!(scan(11, Exclusions::default()).contains("1 to 10"));
    assert!(scan(1, Exclusions { offsets: vec![0, 1], positions: vec![0], denied: None }).contains("3 ascending"));
    assert!(scan(1, Exclusions { offsets: vec![0, 0, 2], positions: vec![1, 1], denied: None }).contains("query 1"));
    let error = plain(&items)
        .scan(&SearchContext::default(), Scorer::Mol, &batch.prepared(), 1, &Exclusions::default())
        .unwrap_err();
    assert!(error.to_string().contains("Mixture-of-Logits"));
}
