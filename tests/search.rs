//! Retrieval algorithms: candidates against the reference's, results against the definition, on every backend.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/compare.rs"]
mod compare;
#[cfg(feature = "gpu")]
#[allow(dead_code, reason = "each test program uses a part")]
#[path = "common/gpu.rs"]
mod gpu;
#[allow(dead_code, reason = "each test program uses a part")]
#[path = "common/models.rs"]
mod models;
#[path = "common/mol.rs"]
mod mol;
#[allow(dead_code, reason = "each test program uses a part")]
#[path = "common/naive.rs"]
mod naive;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use models::{Random, Shape};
use proptest::prelude::*;
use rails_wgpu::backend::cpu::{Cpu, CpuIndex, CpuOps};
use rails_wgpu::backend::{Backend, Dtype, QueryBatch, ScoredPosition, Similarity};
use rails_wgpu::checkpoint::Checkpoint;
use rails_wgpu::config::{GatingCombination, ModelConfig};
use rails_wgpu::index::{Filter, ItemIndex};
use rails_wgpu::model::{Model, Mol};
use rails_wgpu::ops::Ops;
use rails_wgpu::search::{Algorithm, Certificate, Request, Searcher};
use rails_wgpu::tables::Form;
use rails_wgpu::tensor::Tensor;
use safetensors::SafeTensors;

const DIM: usize = 6;

fn backends() -> Vec<Arc<dyn Backend>> {
    #[cfg_attr(not(feature = "gpu"), allow(unused_mut, reason = "only GPUs are added"))]
    let mut all: Vec<Arc<dyn Backend>> = vec![Arc::new(Cpu::default())];
    #[cfg(feature = "gpu")]
    all.extend(gpu::shared().map(|gpu| Arc::new(rails_wgpu::backend::gpu::GpuBackend::new(gpu)) as Arc<dyn Backend>));
    all
}

fn approximate(candidates: usize) -> [Algorithm; 4] {
    [
        Algorithm::Naive { per_group: candidates },
        Algorithm::Avg { candidates },
        Algorithm::Comb { per_group: candidates, candidates },
        Algorithm::Tangent { candidates },
    ]
}

/// Candidate sets of a reference case; returns how many (query, algorithm) sets were compared, and how many differ.
fn reference_candidates(case: &str, backend: &dyn Backend) -> (usize, Vec<String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle").join(case);
    let checkpoint = Checkpoint::open(folder.join("model.pt")).unwrap();
    let model = Model::load(&checkpoint, ModelConfig::from_gin(folder.join("config.gin")).unwrap()).unwrap();
    let bytes = std::fs::read(folder.join("oracle.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let long = |name: &str| -> Vec<i64> {
        tensors
            .tensor(name)
            .unwrap()
            .data()
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    let embeddings = tensors.tensor("enc.query_embeddings").unwrap();
    let values = embeddings.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let queries =
        QueryBatch { embeddings: Tensor::new(embeddings.shape().to_vec(), values), user_ids: long("in.user_ids") };
    let ids: Vec<u32> = long("in.all_item_ids").iter().map(|&id| id as u32).collect();
    let searcher = Searcher::new(ItemIndex::from_model(backend, &model, &ids, Dtype::F32).unwrap());

    let (mut compared, mut different) = (0, Vec::new());
    for name in tensors.names() {
        let Some(reference) = name.strip_prefix("cand.").and_then(|name| name.strip_suffix("__f32.ids")) else {
            continue;
        };
        let tensor = tensors.tensor(name).unwrap();
        let columns: Vec<u64> =
            tensor.data().chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()) as u64).collect();
        let found = searcher.candidates(reference.parse().unwrap(), &queries, &[]).unwrap();
        for (query, (found, expected)) in found.iter().zip(columns.chunks_exact(tensor.shape()[1])).enumerate() {
            let expected: BTreeSet<u64> = expected.iter().copied().collect();
            let found: BTreeSet<u64> = found.iter().copied().collect();
            compared += 1;
            if found != expected {
                let lost: Vec<_> = expected.symmetric_difference(&found).collect();
                different.push(format!("{case} {reference} query {query}: {lost:?}"));
            }
        }
    }
    (compared, different)
}

#[test]
fn candidates_are_those_of_the_reference() {
    let cases = [
        "tiny_hstu_mol",
        "tiny_hstu_mol_concatua",
        "tiny_hstu_mol_geglu",
        "tiny_hstu_mol_itemhidden",
        "tiny_hstu_mol_itemhidden_swiglu",
        "tiny_hstu_mol_nol2_nouid",
        "tiny_hstu_mol_none",
        "tiny_hstu_mol_none_sum",
        "tiny_hstu_mol_qhidden0",
        "tiny_hstu_mol_uids2",
        "tiny_sasrec_mol",
        "tiny_sasrec_mol_gelu",
    ];
    for backend in backends() {
        let (mut compared, mut different) = (0, Vec::new());
        for case in cases {
            let (n, others) = reference_candidates(case, backend.as_ref());
            compared += n;
            different.extend(others);
        }
        assert!(compared >= 12 * 16 * 7, "only {compared} sets were compared");
        assert!(different.is_empty(), "{} of {compared} sets differ: {different:#?}", different.len());
    }
}

fn random_search(random: &mut Random, shape: &Shape, n: usize, n_queries: usize) -> (Mol<Tensor>, Tensor, QueryBatch) {
    let (mol, items) = (shape.mol(random, DIM), random.tensor(&[n, DIM], 1.0));
    let user_ids = (0..n_queries as i64).map(|i| i * 37 - 5).collect();
    let batch = QueryBatch { embeddings: random.tensor(&[n_queries, DIM], 1.0), user_ids };
    (mol, items, batch)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever the algorithm: exactly k (or all that are left) different items of the corpus, in order, none excluded;
    /// and with enough candidates the same answer as the definition's.
    #[test]
    fn every_algorithm_keeps_its_promises(
        seed in any::<u64>(),
        gating in prop::sample::select(vec![
            GatingCombination::GluSilu, GatingCombination::GluSiluLn, GatingCombination::None,
        ]),
        (p_q, p_x, d_p) in (1usize..4, 1usize..4, 1usize..6),
        n in prop::sample::select(vec![1usize, 7, 32, 33, 150]),
        (k, candidates) in (1usize..160, 1usize..20),
    ) {
        let mut random = Random::new(seed);
        let shape = Shape { p_q, p_x, d_p, gating, uid_sizes: vec![], ..Shape::default() };
        let (mol, items, batch) = random_search(&mut random, &shape, n, 3);
        let k = k.min(n);
        let ids: Vec<u64> = (0..n as u64).map(|i| 1000 + 3 * i).collect();
        let excluded: Vec<Vec<u64>> = (0..3).map(|q| ids.iter().copied().filter(|id| id % 4 < q).collect()).collect();
        let lists: Vec<&[u64]> = excluded.iter().map(Vec::as_slice).collect();
        let index = ItemIndex::from_embeddings(&Cpu::default(), &ids, &items, Some(&mol), Dtype::F32).unwrap();
        let searcher = Searcher::new(index);
        let scores = mol::scores(&mol, &items, &batch, |x| x);
        for algorithm in approximate(candidates) {
            for (query, hits) in searcher.search(algorithm, &batch, k, &lists).unwrap().iter().enumerate() {
                prop_assert_eq!(hits.len(), k.min(n - excluded[query].len()), "{}", algorithm);
                prop_assert!(hits.is_sorted_by(|a, b| a.score > b.score || a.score == b.score && a.id < b.id));
                let unique: BTreeSet<u64> = hits.iter().map(|hit| hit.id).collect();
                prop_assert_eq!(unique.len(), hits.len());
                for hit in hits {
                    prop_assert!(ids.contains(&hit.id) && !excluded[query].contains(&hit.id), "{} {:?}", algorithm, hit);
                    let exact = scores[query][((hit.id - 1000) / 3) as usize];
                    prop_assert!((f64::from(hit.score) - exact.value).abs() <= exact.error);
                }
            }
        }
        let exact = searcher.search(Algorithm::Exact, &batch, k, &lists).unwrap();
        for algorithm in approximate(n) {
            prop_assert_eq!(&searcher.search(algorithm, &batch, k, &lists).unwrap(), &exact, "{}", algorithm);
        }
    }
}

#[test]
fn every_backend_answers_as_the_definition_does() {
    for backend in backends() {
        let mut random = Random::new(11);
        let (mol, items, batch) = random_search(&mut random, &Shape::default(), 300, 5);
        let ids: Vec<u64> = (0..300).collect();
        let scores = mol::scores(&mol, &items, &batch, |x| x);
        let index = ItemIndex::from_embeddings(backend.as_ref(), &ids, &items, Some(&mol), Dtype::F32).unwrap();
        let searcher = Searcher::new(index);
        let others = [Algorithm::Exact, Algorithm::ExactPruned, Algorithm::HIndexer { candidates: 300 }];
        let odd = Filter::allow((0..300).filter(|id| id % 2 == 1).collect());
        let even: Vec<u32> = (0..300).step_by(2).collect();
        for algorithm in approximate(300).into_iter().chain(others) {
            for (filter, shut) in [(None, &[][..]), (Some(&odd), &even)] {
                let request = Request { filter, certify: true, ..Request::new(algorithm, 40) };
                let answer = searcher.answer(&batch, &request).unwrap();
                for (scores, hits) in scores.iter().zip(answer.hits) {
                    let hits: Vec<_> =
                        hits.iter().map(|hit| ScoredPosition { position: hit.id as u32, score: hit.score }).collect();
                    compare::compare(scores, shut, 40, &hits).unwrap_or_else(|what| panic!("{algorithm}: {what}"));
                }
                // All candidates were scored, so nothing was missed.
                assert_eq!(answer.certificates, [Certificate::Exact; 5], "{algorithm}");
            }
        }
    }
}

/// score(z) by definition, in f64.
fn score(mol: &Mol<Tensor>, z: &[f64], q: Option<&[f32]>, x: Option<&[f32]>) -> f64 {
    let linear = |input: &[f64], layer: &rails_wgpu::ops::Linear<Tensor>| -> Vec<f64> {
        let column =
            |j: usize| input.iter().enumerate().map(|(i, v)| v * f64::from(layer.weight.row(i)[j])).sum::<f64>();
        (0..layer.n_out).map(|j| column(j) + layer.bias.as_ref().map_or(0.0, |b| f64::from(b.data()[j]))).collect()
    };
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let hidden = mol.gate_cross.hidden.as_ref().map(|layer| linear(z, layer).iter().map(|x| x * sigmoid(*x)).collect());
    let mut g = linear(&hidden.unwrap_or(z.to_vec()), &mol.gate_cross.output);
    for (l, g) in g.iter_mut().enumerate() {
        let (q, x) = (q.map(|q| f64::from(q[l])), x.map(|x| f64::from(x[l])));
        *g += match (q, x, mol.config.gating_combination) {
            (Some(q), Some(x), GatingCombination::None) => q + x,
            (Some(q), Some(x), _) => q * x,
            (part, None, _) | (None, part, _) => part.unwrap_or(0.0),
        };
    }
    let mean = g.iter().sum::<f64>() / g.len() as f64;
    let deviation = (g.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / g.len() as f64 + 1e-5).sqrt();
    let w = |g: f64| match mol.config.gating_combination {
        GatingCombination::GluSilu => g * sigmoid(g),
        GatingCombination::GluSiluLn => g * sigmoid((g - mean) / deviation),
        GatingCombination::None => g,
    };
    let e: Vec<f64> = g.iter().map(|&g| w(g).exp()).collect();
    e.iter().zip(z).map(|(e, z)| e * z).sum::<f64>() / e.iter().sum::<f64>()
}

#[test]
fn the_gradient_is_the_slope_of_the_definition() {
    for (seed, gating) in
        [GatingCombination::GluSilu, GatingCombination::GluSiluLn, GatingCombination::None].into_iter().enumerate()
    {
        for (hidden, parts) in [(Some(8), 3), (None, 3), (Some(5), 1), (Some(5), 2), (None, 0)] {
            let mut random = Random::new(seed as u64);
            let part = |bit: usize| (parts >> bit & 1 == 1).then_some(4);
            let shape = Shape { gating, hidden, query_gate: part(0), item_gate: part(1), ..Shape::default() };
            let (mol, items, batch) = random_search(&mut random, &shape, 40, 1);
            let n_logits = mol.config.n_logits();
            let similarity = Similarity { mol: mol.clone(), distilled: None };
            let tables = Cpu::default().tables(&items, Some(&mol), Dtype::F32, Form::Components).unwrap();
            let index = CpuIndex::new(Arc::new(tables), Some(&similarity));
            let gradient = index.gradient(&batch, &[vec![37]]).unwrap();
            let gradient = gradient.row(0);

            let weights = mol.map(&mut |tensor| CpuOps.floats(tensor));
            let (f, q) = weights.query_side(&mut CpuOps, &CpuOps.floats(&batch.embeddings), &batch.user_ids);
            let item =
                weights.item_side(&mut CpuOps, &CpuOps.floats(&Tensor::new(vec![1, DIM], items.row(37).to_vec())), 1);
            let d_p = mol.config.dot_product_dimension;
            let dot = |f: &[f32], g: &[f32]| f.iter().zip(g).map(|(f, g)| f64::from(*f) * f64::from(*g)).sum::<f64>();
            let z: Vec<f64> = f
                .chunks(d_p)
                .flat_map(|f| item.components.chunks(d_p).map(move |g| dot(f, g)))
                .map(|dot| dot / f64::from(mol.config.temperature))
                .collect();
            let (q, x) = (q.as_ref().map(|q| q.as_slice()), item.gate.as_ref().map(|x| x.as_slice()));
            for l in 0..n_logits {
                let at = |step: f64| {
                    let mut z = z.clone();
                    z[l] += step;
                    score(&mol, &z, q, x)
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                let found = f64::from(gradient[l]);
                assert!((found - slope).abs() < 1e-4 * (1.0 + slope.abs()), "{gating:?} {l}: {found} is not {slope}");
                assert!((found - slope - 0.01).abs() > 1e-4 * (1.0 + slope.abs()), "a wrong slope must show");
            }
        }
    }
}

#[test]
fn algorithms_that_need_a_mixture_say_so() {
    let items = Random::new(1).tensor(&[5, DIM], 1.0);
    let index = ItemIndex::from_embeddings(&Cpu::default(), &[1, 2, 3, 4, 5], &items, None, Dtype::F32).unwrap();
    let queries = QueryBatch { embeddings: Random::new(2).tensor(&[1, DIM], 1.0), user_ids: vec![0] };
    let searcher = Searcher::new(index);
    for algorithm in approximate(3) {
        let error = searcher.search(algorithm, &queries, 2, &[]).unwrap_err().to_string();
        assert!(error.contains("Mixture-of-Logits") && error.contains(&algorithm.to_string()), "{error}");
    }
    let exact = searcher.search(Algorithm::Exact, &queries, 2, &[]).unwrap();
    assert_eq!(exact, searcher.search(Algorithm::Mips, &queries, 2, &[]).unwrap());
}

#[test]
fn asynchronous_searches_answer_as_blocking_ones_do() {
    let mut random = Random::new(21);
    let (mol, items, batch) = random_search(&mut random, &Shape::default(), 200, 4);
    let ids: Vec<u64> = (0..200).collect();
    let index = ItemIndex::from_embeddings(&Cpu::default(), &ids, &items, Some(&mol), Dtype::F32).unwrap();
    let searcher = Arc::new(Searcher::new(index));
    let none: [&[u64]; 4] = [&[], &[1, 2], &[], &[9]];
    let lists = || none.iter().map(|list| list.to_vec()).collect::<Vec<_>>();
    let pending: Vec<_> =
        (1..=20).map(|k| (k, searcher.search_async(Algorithm::Exact, batch.clone(), k, lists()))).collect();
    drop(searcher.search_async(Algorithm::Exact, batch.clone(), 200, lists()));
    for (k, pending) in pending {
        let expected = searcher.search(Algorithm::Exact, &batch, k, &none).unwrap();
        assert_eq!(futures::executor::block_on(pending).unwrap(), expected);
    }
    let error = futures::executor::block_on(searcher.search_async(Algorithm::Exact, batch, 0, vec![])).unwrap_err();
    assert!(error.to_string().contains("1..=200"));
}
