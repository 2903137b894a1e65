//! The running top-k of the wgpu backend: both ways to cut hit lists, and the sort, against plain sorting.
//!
//! Items have one number each, so scores are known to the bit, and results have to be.

use crate::common::gpu;
use std::sync::Arc;

use crate::common::models::Random;
use rails_wgpu::backend::gpu::{Gpu, GpuBackend, GpuIndex, ScanLimits};
use rails_wgpu::backend::{DeviceIndex, Dtype, Exclusions, QueryBatch, ScoredPosition, Scorer, SearchContext};
use rails_wgpu::index::item_tables;
use rails_wgpu::search::{KernelTime, profiled};
use rails_wgpu::tables::Form;
use rails_wgpu::tensor::Tensor;

const N: usize = 6000;

/// Many workgroups for each list, always.
const LONG: ScanLimits = ScanLimits { long_list: 64, ..DEFAULT };

/// One workgroup for each list, always.
const SHORT: ScanLimits = ScanLimits { long_list: usize::MAX, ..DEFAULT };

/// All items at once: the first list has them all.
const DEFAULT: ScanLimits = ScanLimits {
    binding_bytes: 1 << 30,
    workgroups: 65_535,
    hit_list_bytes: 64 << 20,
    first_chunk: N,
    sampled_items: usize::MAX,
    long_list: 16_384,
    dispatch_flops: 50_000_000_000,
    submission_flops: 200_000_000_000,
    thread_logits: None,
};

fn index(gpu: &Arc<Gpu>, items: &[f32], limits: ScanLimits) -> GpuIndex {
    let items = Tensor::new(vec![items.len(), 1], items.to_vec()).unwrap();
    let tables = item_tables(&GpuBackend::new(gpu.clone()), &items, None, Dtype::F32, Form::Components).unwrap();
    GpuIndex::new(&SearchContext::default(), gpu, Arc::new(tables), None, limits).unwrap()
}

/// Queries that multiply by these numbers.
fn factors(factors: &[f32]) -> QueryBatch {
    QueryBatch::new(Tensor::new(vec![factors.len(), 1], factors.to_vec()).unwrap())
}

fn expected(items: &[f32], factor: f32, k: usize, excluded: &[u32]) -> Vec<(u32, u32)> {
    let all = (0u32..).zip(items).filter(|(position, _)| !excluded.contains(position));
    let mut hits: Vec<(u32, f32)> = all.map(|(position, item)| (position, item * factor)).collect();
    hits.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));
    hits.truncate(k);
    hits.into_iter().map(|(position, score)| (position, score.to_bits())).collect()
}

fn bits(hits: &[ScoredPosition]) -> Vec<(u32, u32)> {
    hits.iter().map(|hit| (hit.position, hit.score.to_bits())).collect()
}

/// What selection and sort have to cope with.
fn lists() -> Vec<(&'static str, Vec<f32>)> {
    let mut random = Random::new(8);
    let random: Vec<f32> = (0..N).map(|_| random.number()).collect();
    vec![
        ("random", random.clone()),
        ("seven values", (0..N).map(|i| (i * 5 % 7) as f32 - 3.5).collect()),
        ("one value: more hits with the prefix than are gathered", vec![2.0; N]),
        ("three digits in common", (0..N as u32).map(|i| f32::from_bits(1.0f32.to_bits() + i * 77 % 256)).collect()),
        ("rising", (0..N).map(|i| i as f32 - 2500.5).collect()),
        (
            "all magnitudes that items may have",
            random.iter().enumerate().map(|(i, x)| x * 10f32.powi(i as i32 % 48 - 30)).collect(),
        ),
    ]
}

#[test]
fn lists_are_cut_and_sorted_to_the_bit_by_one_workgroup_or_by_many() {
    let Some(gpu) = gpu::shared() else { return };
    let timed = gpu.info().features.iter().any(|feature| feature == "timestamp-query");
    let numbers = [1.0, -1.0, 0.5];
    let batch = factors(&numbers);
    for (name, items) in lists() {
        for (limits, long) in [(SHORT, false), (LONG, true), (ScanLimits { first_chunk: 256, ..LONG }, true)] {
            let index = index(&gpu, &items, limits);
            for k in [1, 100, 1024, 1025, N] {
                let (hits, kernels) = profiled(|context| {
                    index.scan(context, Scorer::Dot, &batch.prepared(), k, &Exclusions::default()).unwrap()
                });
                for (factor, hits) in numbers.iter().zip(&hits) {
                    let what = format!("{name}, k = {k}, first chunk {}, many: {long}", limits.first_chunk);
                    assert!(bits(hits) == expected(&items, *factor, k, &[]), "{what}, factor {factor}");
                }
                let many = kernels.iter().any(|kernel| kernel.kernel == "select_compact");
                assert_eq!(many, timed && long, "{name}, k = {k}");
            }
        }
    }
}

#[test]
fn lists_with_fewer_hits_than_k_are_kept_beside_full_ones() {
    let Some(gpu) = gpu::shared() else { return };
    let items: Vec<f32> = (0..N).map(|i| (i % 1000) as f32).collect();
    let batch = factors(&[1.0, 1.0, -1.0]);
    // All but five; none; all.
    let excluded: [Vec<u32>; 3] = [(0..N as u32).filter(|i| i % 1200 != 7).collect(), vec![], (0..N as u32).collect()];
    let mut exclusions = Exclusions { offsets: vec![0], positions: vec![], denied: None };
    for list in &excluded {
        exclusions.positions.extend(list);
        exclusions.offsets.push(exclusions.positions.len() as u32);
    }
    for limits in [SHORT, LONG, ScanLimits { first_chunk: 128, ..LONG }] {
        let index = index(&gpu, &items, limits);
        for k in [5, 6, 3000] {
            let hits = index.scan(&SearchContext::default(), Scorer::Dot, &batch.prepared(), k, &exclusions).unwrap();
            for (query, factor) in [1.0, 1.0, -1.0].into_iter().enumerate() {
                let expected = expected(&items, factor, k, &excluded[query]);
                assert!(bits(&hits[query]) == expected, "query {query}, k = {k}, first chunk {}", limits.first_chunk);
            }
        }
    }
}

#[test]
fn long_lists_take_few_dispatches_and_leave_nothing_behind() {
    let Some(gpu) = gpu::shared() else { return };
    let n = 20_000;
    let mut random = Random::new(9);
    let items: Vec<f32> = (0..n).map(|_| random.number()).collect();
    let index = index(&gpu, &items, ScanLimits { first_chunk: n, ..ScanLimits::default() });
    for k in [1000, 2048, 10_000, n, 2048] {
        let batch = factors(&[1.0]);
        let (hits, kernels) =
            profiled(|context| index.scan(context, Scorer::Dot, &batch.prepared(), k, &Exclusions::default()).unwrap());
        assert!(bits(&hits[0]) == expected(&items, 1.0, k, &[]), "k = {k}");
        let dispatches = |name: &str| {
            kernels.iter().filter(|kernel| kernel.kernel.starts_with(name)).map(|kernel| kernel.dispatches).sum::<u32>()
        };
        if !kernels.is_empty() {
            let merges = match k {
                ..=1024 => 0,
                1025..=16_384 => 1,
                _ => 2,
            };
            assert_eq!((dispatches("select"), dispatches("sort"), dispatches("merge")), (6, 1, merges), "k = {k}");
        }
    }
}

/// Numbers of items in the tiles of the sample, and of all others: what the sample says is wrong for one of them.
fn beside_the_sample(n: usize, of_sample: impl Fn(usize) -> f32, of_others: impl Fn(usize) -> f32) -> Vec<f32> {
    // As in `src/backend/gpu/scan/sampled.rs`: 1024 items and more, in tiles of 64 that are as far apart as fits.
    let stride = n.div_ceil(64) / 16;
    let sampled = |i: usize| i / 64 >= stride / 2 && (i / 64 - stride / 2).is_multiple_of(stride);
    (0..n).map(|i| if sampled(i) { of_sample(i) } else { of_others(i) }).collect()
}

fn dispatches(kernels: &[KernelTime], name: &str) -> u32 {
    kernels.iter().filter(|kernel| kernel.kernel == name).map(|kernel| kernel.dispatches).sum()
}

#[test]
fn a_threshold_from_a_sample_never_changes_a_result() {
    let Some(gpu) = gpu::shared() else { return };
    let timed = gpu.info().features.iter().any(|feature| feature == "timestamp-query");
    let mut random = Random::new(10);
    let mut noise: Vec<f32> = (0..N).map(|_| random.number()).collect();
    let shuffled = noise.clone();
    noise.sort_by(f32::total_cmp);
    let rising = noise.clone();
    noise.reverse();
    // Whether the scan with the threshold is enough for k items of a query that multiplies by 1.
    type Enough = fn(usize) -> Option<bool>;
    let cases: [(&str, Vec<f32>, Enough); 7] = [
        ("random", shuffled.clone(), |_| Some(true)),
        ("rising", rising, |_| None),
        ("falling", noise, |_| None),
        ("one value", vec![2.0; N], |_| Some(false)),
        ("two values", (0..N).map(|i| (1 + i % 2) as f32).collect(), |_| None),
        ("all others are better", beside_the_sample(N, |i| -(i as f32), |i| 1.0 + shuffled[i].abs()), |_| Some(false)),
        ("all others are worse", beside_the_sample(N, |i| i as f32, |i| -1.0 - shuffled[i].abs()), |k| Some(k == 1)),
    ];
    for (name, items, is_enough) in cases {
        for limits in [DEFAULT, LONG, ScanLimits { binding_bytes: 60_000, ..SHORT }] {
            let index = index(&gpu, &items, ScanLimits { sampled_items: 64, first_chunk: 256, ..limits });
            for k in [1, 100, 700] {
                let batch = factors(&[1.0, -1.0, 0.5]);
                let find = |batch: &QueryBatch| {
                    let none = Exclusions::default();
                    profiled(|context| index.scan(context, Scorer::Dot, &batch.prepared(), k, &none).unwrap())
                };
                let hits = find(&batch).0;
                for (factor, hits) in [1.0, -1.0, 0.5].into_iter().zip(&hits) {
                    assert!(bits(hits) == expected(&items, factor, k, &[]), "{name}, k = {k}, factor {factor}");
                }
                let kernels = find(&factors(&[1.0])).1;
                if timed && limits == DEFAULT {
                    assert_eq!(dispatches(&kernels, "take_threshold"), 1, "{name}, k = {k}");
                    let scans = dispatches(&kernels, "dot_scan");
                    assert!(is_enough(k).is_none_or(|enough| enough == (scans == 2)), "{name}, k = {k}: {scans} scans");
                }
            }
        }
    }
}

#[test]
fn excluded_items_do_not_make_a_sampled_list_short() {
    let Some(gpu) = gpu::shared() else { return };
    let items: Vec<f32> = (0..N).map(|i| (i * 7 % 1000) as f32).collect();
    let index = index(&gpu, &items, ScanLimits { sampled_items: 64, ..DEFAULT });
    // All but five; the best half; none.
    let excluded: [Vec<u32>; 3] = [
        (0..N as u32).filter(|i| i % 1200 != 7).collect(),
        (0..N as u32).filter(|&i| items[i as usize] >= 500.0).collect(),
        vec![],
    ];
    let mut exclusions = Exclusions { offsets: vec![0], positions: vec![], denied: None };
    for list in &excluded {
        exclusions.positions.extend(list);
        exclusions.offsets.push(exclusions.positions.len() as u32);
    }
    for k in [1, 6, 300] {
        let batch = factors(&[1.0; 3]);
        let hits = index.scan(&SearchContext::default(), Scorer::Dot, &batch.prepared(), k, &exclusions).unwrap();
        for (query, hits) in hits.iter().enumerate() {
            assert!(bits(hits) == expected(&items, 1.0, k, &excluded[query]), "query {query}, k = {k}");
        }
    }
}

#[test]
fn a_million_items_take_few_dispatches() {
    let Some(gpu) = gpu::shared() else { return };
    let mut random = Random::new(11);
    let items: Vec<f32> = (0..1_000_000).map(|_| random.number()).collect();
    let index = index(&gpu, &items, ScanLimits::default());
    for (batch, k) in [(1, 1), (1, 2048), (2, 100), (1, 1024)] {
        let batch = factors(&vec![1.0; batch]);
        let none = Exclusions::default();
        let (hits, kernels) =
            profiled(|context| index.scan(context, Scorer::Dot, &batch.prepared(), k, &none).unwrap());
        assert!(bits(&hits[0]) == expected(&items, 1.0, k, &[]), "k = {k}");
        if !kernels.is_empty() {
            let all: u32 = kernels.iter().map(|kernel| kernel.dispatches).sum();
            assert!(all <= 12 && dispatches(&kernels, "take_threshold") == 1, "k = {k}: {kernels:?}");
        }
    }
}
