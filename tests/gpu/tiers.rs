//! The kernels among which a device chooses for scans by Mixture-of-Logits: cooperative matrices against the definition with every
//! rounding to a half accounted for, the choice itself, and what of it outlives the device.
//!
//! Cooperative matrices need a driver that has them (lavapipe of Mesa 26 does); without one these tests say so and end, unless
//! `RAILS_REQUIRE_COOPERATIVE=1`.

use crate::common::gpu;
use crate::common::naive;
use crate::common::tables;
use std::path::Path;
use std::sync::Arc;

use crate::common::compare::compare;
use crate::common::models::{Random, Shape};
use crate::common::mol::{Weights, logits, mixture, row};
use crate::common::naive::{Naive, Num, dot};
use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::backend::gpu::{Gpu, GpuIndex, GpuOptions, ScanLimits, ScanTier, ShaderChecks};
use rails_wgpu::backend::{
    Backend, DeviceIndex, Dtype, Exclusions, Hits, QueryBatch, Scorer, SearchContext, Similarity,
};
use rails_wgpu::config::GatingCombination;
use rails_wgpu::index::item_tables;
use rails_wgpu::model::{CrossGate, Distilled, Mol};
use rails_wgpu::ops::{Linear, Ops};
use rails_wgpu::tables::{Form, Tables};
use rails_wgpu::tensor::Tensor;

/// Not a multiple of four, so that every kind of padding is there.
const DIM: usize = 7;

fn open(scan_tier: ScanTier, cache: Option<&Path>) -> Option<Arc<Gpu>> {
    let options = GpuOptions::default().with_scan_tier(scan_tier).with_cache(cache.map(Path::to_path_buf));
    gpu::adapter().map(|adapter| Gpu::open_with(&adapter, &options).unwrap())
}

/// A device with cooperative matrices.
fn cooperative() -> Option<Arc<Gpu>> {
    let gpu = open(ScanTier::Cooperative, None)?;
    if gpu.info().features.iter().any(|feature| feature == "cooperative-matrix") {
        return Some(gpu);
    }
    let required = std::env::var("RAILS_REQUIRE_COOPERATIVE").is_ok_and(|value| value == "1");
    assert!(!required, "no cooperative matrices, and they are required");
    gpu::say("SKIPPED: no cooperative matrices");
    None
}

/// A model, the tables of some items, and queries.
struct Case {
    similarity: Similarity,
    tables: Arc<Tables>,
    batch: QueryBatch,
}

impl Case {
    fn new(shape: &Shape, (dtype, form): (Dtype, Form), dim: usize, (n_items, n_queries): (usize, usize)) -> Case {
        let mut random = Random::new((n_items + dim) as u64);
        let mol = shape.mol(&mut random, dim);
        let items = random.tensor(&[n_items, dim], 1.0);
        let user_ids: Vec<i64> = (0..n_queries as i64).map(|i| i * 37 - 5).collect();
        let batch = QueryBatch::new(random.tensor(&[n_queries, dim], 1.0)).with_users(user_ids);
        let n_logits = mol.config.n_logits();
        let mut layer = |n_in: usize, n_out: usize| {
            let (weight, bias) = (random.tensor(&[n_in, n_out], 0.7), Some(random.tensor(&[n_out], 0.5)));
            Linear { weight, bias, n_in, n_out }
        };
        let (hidden, output) = (layer(n_logits, 9), layer(9, n_logits));
        let cross = CrossGate { hidden: Some(hidden), output, linear: Some(layer(n_logits, n_logits).weight) };
        let distilled = Distilled { cross, tangents: None };
        let tables = Arc::new(item_tables(&Cpu::default(), &items, Some(&mol), dtype, form).unwrap());
        Case { similarity: Similarity { mol, distilled: Some(distilled) }, tables, batch }
    }

    fn on(&self, gpu: &Arc<Gpu>) -> GpuIndex {
        // Chunks of one and two tiles.
        let limits = ScanLimits { first_chunk: 64, ..ScanLimits::default() };
        GpuIndex::new(&SearchContext::default(), gpu, self.tables.clone(), Some(&self.similarity), limits).unwrap()
    }

    fn scan(&self, gpu: &Arc<Gpu>, scorer: Scorer, k: usize) -> Hits {
        self.on(gpu).scan(&SearchContext::default(), scorer, &self.batch.prepared(), k, &Exclusions::default()).unwrap()
    }

    /// (B, N): scores by definition, where `stored` happens to all that is multiplied as a half.
    fn scores(&self, scorer: Scorer, stored: fn(Num) -> Num) -> Vec<Vec<Num>> {
        let mol = match (scorer, &self.similarity.distilled) {
            (Scorer::Distilled, Some(distilled)) => {
                Mol { gate_cross: distilled.cross.clone(), ..self.similarity.mol.clone() }
            }
            _ => self.similarity.mol.clone(),
        };
        let mol = mol.map(&mut |tensor| Naive.floats(tensor));
        let (n_queries, n_items) = (self.batch.len(), self.tables.len());
        let (f, q) = mol.query_side(
            &mut Naive,
            &Naive.floats(&self.batch.embeddings),
            self.batch.len(),
            self.batch.user_ids.as_deref(),
        );
        let host = self.tables.mol.as_ref().unwrap();
        let gate = host.gate.as_ref().map(tables::numbers);
        let table = host.components.as_ref().unwrap_or(&self.tables.raw);
        // Those of 16 and 8 bits are halves as they are.
        let of_table = if table.dtype() == Dtype::F32 { stored } else { |x| x };
        let vectors: Vec<Num> = tables::numbers(table).iter().map(|&x| of_table(x)).collect();
        let norms = host.inverse_norms.as_ref().map(tables::numbers);
        let pair = |b: usize, i: usize| {
            let (f, v) = (row(&f, n_queries, b), row(&vectors, n_items, i));
            let z = match &norms {
                None => logits(&mol, &f.iter().map(|&f| stored(f)).collect::<Vec<_>>(), v),
                Some(norms) => raw_logits(&mol, f, v, row(norms, n_items, i), stored),
            };
            let one_sided = (q.as_ref().map(|q| row(q, n_queries, b)), gate.as_ref().map(|x| row(x, n_items, i)));
            mixture(&mol, &z, one_sided, stored)
        };
        (0..n_queries).map(|b| (0..n_items).map(|i| pair(b, i)).collect()).collect()
    }
}

/// Component logits of a raw embedding `x`: `(<W_m^T f_n, x> + <f_n, b_m>) / (norm_m(x) temperature)`.
fn raw_logits(mol: &Weights, f: &[Num], x: &[Num], norms: &[Num], stored: fn(Num) -> Num) -> Vec<Num> {
    let (d_p, output) = (mol.config.dot_product_dimension, &mol.item.as_ref().unwrap().output);
    let logit = |f: &[Num], m: usize| {
        let columns = m * d_p..(m + 1) * d_p;
        let weights = |d: usize| output.weight[d * output.n_out..][columns.clone()].iter().copied();
        let transformed: Vec<Num> = (0..x.len()).map(|d| stored(dot(f, weights(d)))).collect();
        let bias = dot(f, output.bias.as_ref().unwrap()[columns.clone()].iter().copied());
        (dot(&transformed, x.iter().copied()) + bias) * norms[m] / naive::exact(mol.config.temperature)
    };
    f.chunks(d_p).flat_map(|f| (0..norms.len()).map(move |m| (f, m))).map(|(f, m)| logit(f, m)).collect()
}

/// A value that is rounded to a half: by 2^-11 of itself, or 2^-25 where halves are subnormal.
fn as_half(x: Num) -> Num {
    Num { error: x.error + (x.value.abs() + x.error) * 2f64.powi(-11) + 2f64.powi(-25), ..x }
}

fn check(what: &str, scores: &[Vec<Num>], k: usize, hits: &Hits) {
    assert_eq!(hits.len(), scores.len(), "{what}");
    for (query, (scores, hits)) in scores.iter().zip(hits).enumerate() {
        compare(scores, &[], k, hits).unwrap_or_else(|error| panic!("{what}, query {query}: {error}"));
    }
}

/// A value that is two halves: off by 2^-22 of itself, or 2^-25 where the first one is subnormal; and half of what a product loses that
/// leaves out that of both second halves, 2^-22 of itself.
fn as_two_halves(x: Num) -> Num {
    Num { error: x.error + (x.value.abs() + x.error) * 1.5 * 2f64.powi(-22) + 2f64.powi(-25), ..x }
}

/// What happens to what is multiplied for tables of `dtype`.
fn staged(dtype: Dtype) -> fn(Num) -> Num {
    if dtype == Dtype::F32 { as_two_halves } else { as_half }
}

/// What an index stores.
const STORED: [(Dtype, Form); 6] = [
    (Dtype::F32, Form::Components),
    (Dtype::F32, Form::Raw),
    (Dtype::F16, Form::Components),
    (Dtype::F16, Form::Raw),
    (Dtype::I8, Form::Components),
    (Dtype::I8, Form::Raw),
];

/// Tiles that are full, half empty, several; depths of more than one slice; parts that are missing.
fn shapes() -> [(Shape, usize); 6] {
    let full = Shape::default();
    let bare = Shape { query_gate: None, uid_sizes: vec![], ..full.clone() };
    [
        (full.clone(), DIM),
        (Shape { gating: GatingCombination::GluSiluLn, p_q: 8, p_x: 4, d_p: 16, hidden: Some(20), ..full.clone() }, 16),
        (Shape { gating: GatingCombination::None, p_q: 5, p_x: 2, d_p: 70, hidden: Some(1), ..full.clone() }, 70),
        (Shape { p_q: 3, p_x: 1, d_p: 5, hidden: None, ..bare.clone() }, DIM),
        (Shape { p_q: 1, p_x: 3, d_p: 4, item_gate: None, l2_norm: false, ..bare.clone() }, DIM),
        (Shape { p_q: 3, p_x: 3, item_gate: None, hidden: Some(17), ..bare }, DIM),
    ]
}

#[test]
fn cooperative_matrices_follow_the_definition() {
    let Some(gpu) = cooperative() else { return };
    for (model, (shape, dim)) in shapes().iter().enumerate() {
        for stored in STORED {
            let what = format!("model {model}, {stored:?}");
            let case = Case::new(shape, stored, *dim, (150, 5));
            let hits = case.scan(&gpu, Scorer::Mol, 150);
            check(&what, &case.scores(Scorer::Mol, staged(stored.0)), 150, &hits);
            assert_eq!(hits, case.scan(&gpu, Scorer::Mol, 150), "{what}: two runs differ");
            gpu.set_scan_tier(ScanTier::Registers);
            assert_ne!(hits, case.scan(&gpu, Scorer::Mol, 150), "{what}: the same kernel");
            gpu.set_scan_tier(ScanTier::Cooperative);
        }
    }
}

#[test]
fn a_gate_with_a_linear_part_follows_the_definition() {
    let Some(gpu) = cooperative() else { return };
    for (shape, dim) in &shapes()[..2] {
        for dtype in [Dtype::F16, Dtype::F32] {
            let case = Case::new(shape, (dtype, Form::Components), *dim, (100, 3));
            let scores = case.scores(Scorer::Distilled, staged(dtype));
            check("distilled", &scores, 20, &case.scan(&gpu, Scorer::Distilled, 20));
        }
        let case = Case::new(shape, (Dtype::F16, Form::Components), *dim, (100, 3));
        // Bounds are not rounded: they are computed as ever.
        let bounds = case.scan(&gpu, Scorer::Bound, 20);
        gpu.set_scan_tier(ScanTier::Registers);
        assert_eq!(bounds, case.scan(&gpu, Scorer::Bound, 20));
        gpu.set_scan_tier(ScanTier::Cooperative);
    }
}

/// What is done to a model.
type Change = fn(&mut Mol<Tensor>);

/// The bounds are narrow enough to tell a model from one that lacks a part, in f32 on the CPU.
#[test]
fn a_kernel_that_leaves_something_out_would_be_noticed() {
    let parts: [(&str, Change); 3] = [
        ("biases of the gate", |mol| mol.gate_cross.output.bias = None),
        ("the last layer", |mol| zero(&mut mol.gate_cross.output.weight, |_| true)),
        ("one depth", |mol| zero(&mut mol.query.as_mut().unwrap().output.weight, |row| row == 0)),
    ];
    for (model, (shape, dim)) in shapes().iter().enumerate() {
        for stored in STORED {
            let mut case = Case::new(shape, stored, *dim, (150, 5));
            let scores = case.scores(Scorer::Mol, staged(stored.0));
            let whole = case.similarity.mol.clone();
            let refused = |case: &Case| {
                let index = Cpu::default()
                    .load(&SearchContext::default(), case.tables.clone(), Some(&case.similarity))
                    .unwrap();
                let hits = index
                    .scan(&SearchContext::default(), Scorer::Mol, &case.batch.prepared(), 150, &Exclusions::default())
                    .unwrap();
                scores.iter().zip(&hits).any(|(scores, hits)| compare(scores, &[], 150, hits).is_err())
            };
            assert!(!refused(&case), "model {model}, {stored:?}");
            for (part, leave_out) in parts {
                leave_out(&mut case.similarity.mol);
                assert!(refused(&case), "model {model}, {stored:?}: without {part}");
                case.similarity.mol = whole.clone();
            }
        }
    }
}

fn zero(weights: &mut Tensor, row: fn(usize) -> bool) {
    let width = weights.width();
    let data = weights.data().iter().enumerate().map(|(i, &w)| if row(i / width) { 0.0 } else { w }).collect();
    *weights = Tensor::new(weights.shape().to_vec(), data).unwrap();
}

#[test]
fn batches_of_any_size_agree() {
    let Some(gpu) = cooperative() else { return };
    let (shape, dim) = &shapes()[1];
    let case = Case::new(shape, (Dtype::F16, Form::Components), *dim, (200, 5));
    let all = case.scan(&gpu, Scorer::Mol, 30);
    for (query, expected) in all.iter().enumerate() {
        let single = case
            .on(&gpu)
            .scan(
                &SearchContext::default(),
                Scorer::Mol,
                &case.batch.select(&[query]).prepared(),
                30,
                &Exclusions::default(),
            )
            .unwrap();
        assert_eq!(&single[0], expected, "query {query}");
    }
}

/// Single halves are far outside the bounds of two.
#[test]
fn rounding_an_index_of_f32_to_halves_would_be_noticed() {
    let case = Case::new(&Shape::default(), (Dtype::F32, Form::Components), DIM, (150, 3));
    let scores = case.scores(Scorer::Mol, as_two_halves);
    let rounded = Case::new(&Shape::default(), (Dtype::F16, Form::Components), DIM, (150, 3));
    let index = Cpu::default().load(&SearchContext::default(), rounded.tables.clone(), Some(&case.similarity)).unwrap();
    let hits = index
        .scan(&SearchContext::default(), Scorer::Mol, &case.batch.prepared(), 150, &Exclusions::default())
        .unwrap();
    assert!(scores.iter().zip(&hits).all(|(scores, hits)| compare(scores, &[], 150, hits).is_err()));
}

#[test]
fn halves_find_what_floats_find() {
    let Some(gpu) = cooperative() else { return };
    let (shape, dim) = &shapes()[1];
    let case = Case::new(shape, (Dtype::F16, Form::Components), *dim, (1500, 8));
    let exact = case.scores(Scorer::Mol, |x| x);
    let k = 100;
    let found: usize = case
        .scan(&gpu, Scorer::Mol, k)
        .iter()
        .zip(&exact)
        .map(|(hits, scores)| {
            let mut order: Vec<u32> = (0..scores.len() as u32).collect();
            order.sort_by(|&a, &b| scores[b as usize].value.total_cmp(&scores[a as usize].value));
            hits.iter().filter(|hit| order[..k].contains(&hit.position)).count()
        })
        .sum();
    assert!(found as f64 >= 0.99 * (8 * k) as f64, "recall {}", found as f64 / (8 * k) as f64);
}

#[test]
fn timing_changes_no_bit_of_scans_in_registers() {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::new(&Shape::default(), (Dtype::F32, Form::Components), DIM, (700, 5));
    let Some(gpu) = open(ScanTier::Registers, None) else { return };
    let expected = case.scan(&gpu, Scorer::Mol, 40);
    let may_cooperate = gpu.info().features.iter().any(|feature| feature == "cooperative-matrix");
    for _ in 0..2 {
        let gpu = open(ScanTier::Timed, Some(folder.path())).unwrap();
        let hits = case.scan(&gpu, Scorer::Mol, 40);
        match may_cooperate {
            true => check("timed", &case.scores(Scorer::Mol, as_two_halves), 40, &hits),
            false => assert_eq!(hits, expected),
        }
        assert_eq!(case.scan(&gpu, Scorer::Mol, 40), hits);
    }
    let names = names(folder.path());
    let tiers: Vec<&String> = names.iter().filter(|name| name.starts_with("tiers-")).collect();
    let [tiers] = tiers[..] else { panic!("{names:?}") };
    let tiers = folder.path().join(tiers);
    let content = std::fs::read_to_string(&tiers).unwrap();
    assert!(content.contains(&gpu.info().driver), "{content}");

    // Whichever was the fastest.
    let chosen = ["registers", "uniform", "cooperative"]
        .iter()
        .flat_map(|name| [1, 2, 4].map(|n| format!("\"{name}-{n}\"")))
        .collect::<Vec<_>>();
    let chosen = chosen.iter().find(|name| content.contains(*name)).unwrap();
    for tier in ["\"uniform-1\"", "\"uniform-2\"", "\"uniform-4\""] {
        std::fs::write(&tiers, content.replace(chosen, tier)).unwrap();
        let gpu = open(ScanTier::Timed, Some(folder.path())).unwrap();
        assert_eq!(case.scan(&gpu, Scorer::Mol, 40), expected, "{tier}");
    }
}

#[test]
fn checks_of_loops_change_no_bit() {
    let Some(adapter) = gpu::adapter() else { return };
    let open = |checks| Gpu::open_with(&adapter, &GpuOptions::default().with_shader_checks(checks)).unwrap();
    let [bounds, full] = [ShaderChecks::Bounds, ShaderChecks::Full].map(open);
    for dtype in [Dtype::F32, Dtype::I8] {
        let case = Case::new(&shapes()[0].0, (dtype, Form::Components), DIM, (300, 5));
        for scorer in [Scorer::Mol, Scorer::Dot] {
            assert_eq!(case.scan(&bounds, scorer, 20), case.scan(&full, scorer, 20), "{dtype:?} {scorer:?}");
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_timed_choice_stays() {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::new(&Shape::default(), (Dtype::F16, Form::Components), DIM, (300, 3));
    let Some(gpu) = open(ScanTier::Timed, Some(folder.path())) else { return };
    let first = case.scan(&gpu, Scorer::Mol, 40);
    check("timed", &case.scores(Scorer::Mol, as_half), 40, &first);
    for gpu in [gpu, open(ScanTier::Timed, Some(folder.path())).unwrap()] {
        assert_eq!(case.scan(&gpu, Scorer::Mol, 40), first);
    }
}

#[test]
fn compiled_pipelines_outlive_the_device() {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::new(&Shape::default(), (Dtype::F32, Form::Components), DIM, (100, 3));
    let run = || {
        let gpu = open(ScanTier::Registers, Some(folder.path()))?;
        let found = case.scan(&gpu, Scorer::Mol, 40);
        Some((found, gpu.info().features.iter().any(|feature| feature == "pipeline-cache")))
    };
    let Some((expected, has_cache)) = run() else { return };
    let files = names(folder.path());
    assert_eq!(files.len(), usize::from(has_cache), "{files:?}");
    let Some(file) = files.first().map(|name| folder.path().join(name)) else { return };
    let whole = std::fs::read(&file).unwrap();
    assert_eq!(run().unwrap().0, expected);
    // Torn, foreign, empty: as if there were none, and replaced.
    for broken in [&whole[..whole.len() - 1], b"something else", b""] {
        std::fs::write(&file, broken).unwrap();
        assert_eq!(run().unwrap().0, expected);
        assert!(std::fs::read(&file).unwrap().starts_with(&whole[..16]));
    }
}
