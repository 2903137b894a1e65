//! Retrieval algorithms: candidates against the reference's, results against the definition, on every backend.

use crate::common::compare;
use crate::common::mol;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::common::backends::backends;
use crate::common::models::{Random, Shape};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rails_wgpu::backend::cpu::{Cpu, CpuIndex, CpuOps};
use rails_wgpu::backend::{Backend, Dtype, QueryBatch, ScoredPosition, Similarity};
use rails_wgpu::config::GatingCombination;
use rails_wgpu::index::{Filter, IndexOptions, ItemIndex, ListOptions, item_tables};
use rails_wgpu::model::{Distilled, Mol};
use rails_wgpu::ops::{Linear, Ops};
use rails_wgpu::search::{Algorithm, Certificate, Hit, Request, Searcher};
use rails_wgpu::tables::Form;
use rails_wgpu::tensor::Tensor;

const DIM: usize = 6;

/// Every algorithm that collects candidates.
fn approximate(candidates: usize, n_probe: usize) -> [Algorithm; 10] {
    [
        Algorithm::Naive { per_group: candidates },
        Algorithm::NaiveIvf { per_group: candidates, n_probe },
        Algorithm::Avg { candidates },
        Algorithm::Comb { per_group: candidates, candidates },
        Algorithm::HIndexer { candidates },
        Algorithm::Tangent { candidates },
        Algorithm::TangentSampled { candidates },
        Algorithm::TangentIvf { candidates, n_probe },
        Algorithm::Distilled { candidates },
        Algorithm::Cascade { tangent: candidates, distilled: candidates },
    ]
}

fn random_search(random: &mut Random, shape: &Shape, n: usize, n_queries: usize) -> (Mol<Tensor>, Tensor, QueryBatch) {
    let mol = shape.mol(random, DIM);
    let items = random.tensor(&[n, mol.item_dim()], 1.0);
    let user_ids: Vec<i64> = (0..n_queries as i64).map(|i| i * 37 - 5).collect();
    let batch = QueryBatch::new(random.tensor(&[n_queries, mol.query_dim()], 1.0)).with_users(user_ids);
    (mol, items, batch)
}

/// An index with inverted lists, if it has 8 items or more, that has learned from queries.
fn full_index(backend: &dyn Backend, ids: &[u64], items: &Tensor, mol: &Mol<Tensor>, dtype: Dtype) -> ItemIndex {
    let lists = Some(ListOptions::new(4));
    let options = IndexOptions::from(dtype).with_lists(lists);
    let index = ItemIndex::from_embeddings(backend, ids, items, Some(mol), options).unwrap();
    let mut random = Random::new(99);
    let queries = QueryBatch::new(random.tensor(&[8, mol.query_dim()], 1.0)).with_users((0..8).collect::<Vec<i64>>());
    index.distill(&queries).unwrap();
    index
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever the algorithm: exactly k (or all that are left) different items of the corpus, in order, none excluded or
    /// filtered out; and with enough candidates the same answer as the definition's.
    #[test]
    fn every_algorithm_keeps_its_promises(
        seed in any::<u64>(),
        gating in prop::sample::select(vec![
            GatingCombination::GluSilu, GatingCombination::GluSiluLn, GatingCombination::None,
        ]),
        ((p_q, p_x, d_p), given) in ((1usize..4, 1usize..4, 1usize..6), any::<bool>()),
        n in prop::sample::select(vec![1usize, 7, 32, 33, 150]),
        (k, candidates) in (1usize..160, 1usize..20),
        filter in prop::sample::select(vec![None, Some((true, 3)), Some((false, 5))]),
    ) {
        let mut random = Random::new(seed);
        let shape = Shape { p_q, p_x, d_p, gating, given, uid_sizes: vec![], ..Shape::default() };
        let (mol, items, batch) = random_search(&mut random, &shape, n, 3);
        let k = k.min(n);
        let ids: Vec<u64> = (0..n as u64).map(|i| 1000 + 3 * i).collect();
        let excluded: Vec<Vec<u64>> = (0..3).map(|q| ids.iter().copied().filter(|id| id % 4 < q).collect()).collect();
        let lists: Vec<&[u64]> = excluded.iter().map(Vec::as_slice).collect();
        let searcher = Searcher::new(full_index(&Cpu::default(), &ids, &items, &mol, Dtype::F32));
        let filter = filter.map(|(allow, every)| {
            let named = ids.iter().copied().filter(|id| id % every == 0).collect();
            if allow { Filter::allow(named) } else { Filter::deny(named) }
        });
        let passes = |query: usize, id: u64| {
            !excluded[query].contains(&id) && filter.as_ref().is_none_or(|filter| filter.passes(id))
        };
        let request = |algorithm| Request::new(algorithm, k).with_excluded(&lists).with_filter(filter.as_ref());
        let scores = mol::scores(&mol, &items, &batch, |x| x);
        for algorithm in approximate(candidates, 2) {
            let answer = searcher.answer(&batch, &request(algorithm)).unwrap();
            for (query, hits) in answer.hits.iter().enumerate() {
                let left = ids.iter().filter(|id| passes(query, **id)).count();
                prop_assert_eq!(hits.len(), k.min(left), "{}", algorithm);
                prop_assert!(hits.is_sorted_by(|a, b| a.score > b.score || a.score == b.score && a.id < b.id));
                let unique: BTreeSet<u64> = hits.iter().map(|hit| hit.id).collect();
                prop_assert_eq!(unique.len(), hits.len());
                for hit in hits {
                    prop_assert!(ids.contains(&hit.id) && passes(query, hit.id), "{} {:?}", algorithm, hit);
                    let exact = scores[query][((hit.id - 1000) / 3) as usize];
                    prop_assert!((f64::from(hit.score) - exact.value).abs() <= exact.error);
                }
            }
        }
        let exact = searcher.answer(&batch, &request(Algorithm::Exact)).unwrap().hits;
        let pruned = searcher.answer(&batch, &request(Algorithm::ExactPruned)).unwrap();
        prop_assert_eq!(&pruned.hits, &exact, "pruning must not show");
        prop_assert_eq!(pruned.stats.pairs + pruned.stats.pruned, 3 * n as u64);
        for algorithm in approximate(n, 4) {
            prop_assert_eq!(&searcher.answer(&batch, &request(algorithm)).unwrap().hits, &exact, "{}", algorithm);
        }
    }
}

/// A certificate of exactness is never wrong, and nothing that was missed exceeds a bound: 9 algorithms, 4 queries.
#[test]
fn certificates_never_lie() {
    let (certified, all) = (Cell::new(0), Cell::new(0));
    let strategy = (
        any::<u64>(),
        prop::sample::select(vec![GatingCombination::GluSilu, GatingCombination::GluSiluLn, GatingCombination::None]),
        prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::I8]),
        // One logit is its own bound, so that both kinds of certificate occur.
        prop::sample::select(vec![(1usize, 1usize), (1, 2), (3, 2)]),
        (1usize..120, 1usize..6, 1usize..40),
    );
    type Case = (u64, GatingCombination, Dtype, (usize, usize), (usize, usize, usize));
    let check = |(seed, gating, dtype, (p_q, p_x), (n, k, candidates)): Case| {
        let mut random = Random::new(seed);
        let shape = Shape { p_q, p_x, gating, uid_sizes: vec![], ..Shape::default() };
        let (mol, items, batch) = random_search(&mut random, &shape, n, 4);
        let ids: Vec<u64> = (0..n as u64).collect();
        let cross = Shape { hidden: None, ..shape }.mol(&mut random, DIM).gate_cross;
        let distilled = Some(Distilled { cross, tangents: None });
        let lists = Some(ListOptions::new(4));
        let options = IndexOptions::from(dtype).with_lists(lists);
        let similarity = Some(Similarity { mol, distilled });
        let index = ItemIndex::build(&[Cpu::default().share()], &ids, &items, similarity, options).unwrap();
        let searcher = Searcher::new(index);
        let exact = searcher.search(Algorithm::Exact, &batch, n, &[]).unwrap();
        for algorithm in approximate(candidates, 2) {
            let request = Request::new(algorithm, k.min(n)).with_certify(true);
            let answer = searcher.answer(&batch, &request).unwrap();
            prop_assert_eq!(answer.certificates.len(), 4);
            for ((hits, certificate), exact) in answer.hits.iter().zip(&answer.certificates).zip(&exact) {
                all.set(all.get() + 1);
                match certificate {
                    Certificate::Exact => {
                        certified.set(certified.get() + 1);
                        prop_assert_eq!(hits, &exact[..hits.len()], "{}", algorithm);
                    }
                    Certificate::AtMost(bound) => {
                        // Candidates that were scored and came after the k-th are not missed.
                        let kth = hits.last().map_or(f32::INFINITY, |hit| hit.score);
                        let missed = |hit: &&Hit| !hits.contains(hit) && hit.score > *bound && hit.score > kth;
                        prop_assert_eq!(exact.iter().find(missed), None, "{}", algorithm);
                    }
                    other => panic!("{algorithm}: {other:?}"),
                }
            }
        }
        Ok(())
    };
    TestRunner::new(ProptestConfig::with_cases(400)).run(&strategy, check).unwrap();
    let (certified, all) = (certified.get(), all.get());
    assert!(all >= 400 * 9 * 4 && certified > all / 50 && certified < all - all / 50, "{certified} of {all}");
}

#[test]
fn every_backend_answers_as_the_definition_does() {
    let given = |backend: &Arc<dyn Backend>| [(backend.clone(), false), (backend.clone(), true)];
    for (backend, given) in backends().iter().flat_map(given) {
        let mut random = Random::new(11);
        let (mol, items, batch) = random_search(&mut random, &Shape { given, ..Shape::default() }, 300, 5);
        let ids: Vec<u64> = (0..300).collect();
        let scores = mol::scores(&mol, &items, &batch, |x| x);
        let searcher = Searcher::new(full_index(backend.as_ref(), &ids, &items, &mol, Dtype::F32));
        let odd = Filter::allow((0..300).filter(|id| id % 2 == 1).collect());
        let even: Vec<u32> = (0..300).step_by(2).collect();
        for algorithm in approximate(300, 4).into_iter().chain([Algorithm::Exact, Algorithm::ExactPruned]) {
            for (filter, shut) in [(None, &[][..]), (Some(&odd), &even)].into_iter().take(if given { 1 } else { 2 }) {
                let request = Request::new(algorithm, 40).with_filter(filter).with_certify(true);
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

/// Components of 4x16 numbers that come from embeddings of 6: an index finds so few directions, and the tangent is as good
/// in them, in either form and on every backend.
#[test]
fn principal_directions_of_the_components_are_found_and_used() {
    let mut random = Random::new(8);
    let shape = Shape { p_q: 2, p_x: 4, d_p: 16, uid_sizes: vec![], ..Shape::default() };
    let (mol, items, batch) = random_search(&mut random, &shape, 900, 6);
    let ids: Vec<u64> = (0..900).collect();
    for backend in backends() {
        for form in [Form::Components, Form::Raw] {
            let options = IndexOptions::default().with_form(form);
            let index = ItemIndex::from_embeddings(backend.as_ref(), &ids, &items, Some(&mol), options).unwrap();
            let snapshot = index.snapshot();
            let principal = snapshot.segments()[0].tables().mol.as_ref().unwrap().principal.as_ref().unwrap();
            assert!(principal.width() <= 32 && principal.width().is_multiple_of(8), "{}", principal.width());
            let searcher = Searcher::new(index);
            // The same with as many directions as there are dimensions, which loses nothing.
            let weight = (0..64 * 64).map(|i| if i % 65 == 0 { 1.0 } else { 0.0 }).collect();
            let all = Linear { weight: Tensor::new(vec![64, 64], weight).unwrap(), bias: None, n_in: 64, n_out: 64 };
            let similarity = Similarity { mol: Mol { principal: Some(all), ..mol.clone() }, distilled: None };
            let options = IndexOptions::default().with_form(form);
            let whole = ItemIndex::build(&[backend.share()], &ids, &items, Some(similarity), options).unwrap();
            let tangent = Algorithm::Tangent { candidates: 120 };
            let expected = Searcher::new(whole).candidates(tangent, &batch, &[]).unwrap();
            let found = searcher.candidates(tangent, &batch, &[]).unwrap();
            let shared = |(a, b): (&Vec<u64>, &Vec<u64>)| a.iter().filter(|id| b.contains(id)).count();
            let shared: usize = found.iter().zip(&expected).map(shared).sum();
            assert!(shared >= 6 * 120 * 19 / 20, "{shared} of {}, {form:?}", 6 * 120);
            // Lengths are kept but for the part that may be lost.
            let layer = snapshot.similarity().unwrap().mol.principal.as_ref().unwrap();
            assert_eq!((layer.n_in, layer.n_out), (64, principal.width()));
            let weights = mol.map(&mut |tensor| CpuOps::default().floats(tensor));
            let side = weights.item_side(&mut CpuOps::default(), &CpuOps::default().floats(&items), 900);
            let square = |values: &[f32]| values.iter().map(|x| f64::from(x * x)).sum::<f64>();
            let (all, kept) = (square(&side.components), square(&principal.read_rows(0..900)));
            assert!(kept <= all * 1.0001 && kept >= all * 0.997, "{kept} of {all}");
        }
    }
    // Components that fill their dimensions are left alone.
    let shape = Shape { p_q: 2, p_x: 2, d_p: 3, uid_sizes: vec![], ..Shape::default() };
    let (mol, items, _) = random_search(&mut random, &shape, 100, 1);
    let index = ItemIndex::from_embeddings(&Cpu::default(), &ids[..100], &items, Some(&mol), Dtype::F32).unwrap();
    assert!(index.snapshot().segments()[0].tables().mol.as_ref().unwrap().principal.is_none());
}

#[test]
fn a_distilled_gate_ranks_almost_as_the_model_does() {
    let mut random = Random::new(5);
    let (mol, items, batch) = random_search(&mut random, &Shape { hidden: Some(24), ..Shape::default() }, 2000, 16);
    let ids: Vec<u64> = (0..2000).collect();
    let index = ItemIndex::from_embeddings(&Cpu::default(), &ids, &items, Some(&mol), Dtype::F32).unwrap();
    let queries = QueryBatch::new(random.tensor(&[64, DIM], 1.0)).with_users((0..64).collect::<Vec<i64>>());
    let searcher = Searcher::new(index);
    let algorithm = Algorithm::Distilled { candidates: 40 };
    let error = searcher.search(algorithm, &batch, 20, &[]).unwrap_err().to_string();
    assert!(error.contains("distilled"), "{error}");
    searcher.index().distill(&queries).unwrap();
    let exact = searcher.search(Algorithm::Exact, &batch, 20, &[]).unwrap();
    let found = searcher.search(algorithm, &batch, 20, &[]).unwrap();
    let share = found.iter().flatten().filter(|hit| exact.iter().flatten().any(|other| other == *hit)).count();
    assert!(share >= 16 * 20 * 9 / 10, "{share} of {}", 16 * 20);
}

#[test]
fn a_query_that_needs_more_candidates_does_not_change_those_of_others() {
    let mut random = Random::new(77);
    let (mol, items, batch) = random_search(&mut random, &Shape::default(), 400, 12);
    let ids: Vec<u64> = (0..400).collect();
    let index = ItemIndex::from_embeddings(&Cpu::default(), &ids, &items, Some(&mol), Dtype::F32).unwrap();
    let searcher = Searcher::new(index);
    let algorithm = Algorithm::Naive { per_group: 3 };
    let own: Vec<usize> = searcher.candidates(algorithm, &batch, &[]).unwrap().iter().map(Vec::len).collect();
    // Enough for half of the queries.
    let mut ordered = own.clone();
    ordered.sort_unstable();
    let k = ordered[6];
    assert!(own.iter().any(|&n| n < k) && own.iter().any(|&n| n >= k), "{own:?}");
    let together = searcher.answer(&batch, &Request::new(algorithm, k)).unwrap();
    let mut candidates = 0;
    for (query, &own) in own.iter().enumerate() {
        let one = batch.select(&[query]);
        let alone = searcher.answer(&one, &Request::new(algorithm, k)).unwrap();
        assert_eq!(alone.hits[0], together.hits[query], "query {query}");
        assert_eq!(alone.stats.candidates > own as u64, own < k, "query {query}");
        candidates += alone.stats.candidates;
    }
    assert_eq!(together.stats.candidates, candidates);
}

/// How many of the best `k` items the first `n_candidates` candidates hold, of `k` for each query.
fn recalled(searcher: &Searcher, algorithm: Algorithm, batch: &QueryBatch, k: usize) -> usize {
    let exact = searcher.search(Algorithm::Exact, batch, k, &[]).unwrap();
    let candidates = searcher.candidates(algorithm, batch, &[]).unwrap();
    let pairs = exact.iter().zip(&candidates);
    pairs.map(|(hits, found)| hits.iter().filter(|hit| found.contains(&hit.id)).count()).sum()
}

#[test]
fn learned_tangents_serve_queries_that_they_have_not_seen() {
    let mut random = Random::new(8);
    let shape = Shape { p_q: 4, p_x: 4, d_p: 8, hidden: Some(24), ..Shape::default() };
    let (mol, items, batch) = random_search(&mut random, &shape, 3000, 24);
    let ids: Vec<u64> = (0..3000).collect();
    let index = ItemIndex::from_embeddings(&Cpu::default(), &ids, &items, Some(&mol), Dtype::F32).unwrap();
    let searcher = Searcher::new(index);
    let (candidates, k) = (60, 30);
    let [avg, tangent, sampled] =
        [Algorithm::Avg { candidates }, Algorithm::Tangent { candidates }, Algorithm::TangentSampled { candidates }];
    let before = searcher.candidates(sampled, &batch, &[]).unwrap();
    assert_eq!(searcher.candidates(tangent, &batch, &[]).unwrap(), before, "an index that has learned nothing samples");
    let queries = QueryBatch::new(random.tensor(&[200, DIM], 1.0)).with_users((0..200).collect::<Vec<i64>>());
    searcher.index().distill(&queries).unwrap();
    assert_eq!(searcher.candidates(sampled, &batch, &[]).unwrap(), before);
    assert_ne!(searcher.candidates(tangent, &batch, &[]).unwrap(), before);
    let recalled = [avg, tangent, sampled].map(|algorithm| recalled(&searcher, algorithm, &batch, k));
    let [avg, tangent, sampled] = recalled;
    // The gate of a model that was not trained depends on the items more than a trained one does; half of what a sample
    // gains over the mean is learned all the same.
    assert!(sampled > avg && tangent - avg >= (sampled - avg) / 2, "avg {avg}, learned {tangent}, sampled {sampled}");
}

#[test]
fn what_is_added_is_found_and_what_is_removed_is_not() {
    let mut random = Random::new(31);
    let (mol, items, batch) = random_search(&mut random, &Shape::default(), 300, 4);
    let row = |range: std::ops::Range<usize>| {
        Tensor::new(vec![range.len(), DIM], items.data()[range.start * DIM..range.end * DIM].to_vec()).unwrap()
    };
    let ids: Vec<u64> = (0..300).map(|i| i * 7 % 300).collect();
    let whole = ItemIndex::from_embeddings(&Cpu::default(), &ids, &items, Some(&mol), Dtype::F32).unwrap();
    let grown = ItemIndex::from_embeddings(&Cpu::default(), &ids[..50], &row(0..50), Some(&mol), Dtype::F32).unwrap();
    // Wrong embeddings first, so that they have to be replaced.
    grown.add(&ids[50..80], &row(0..30)).unwrap();
    for from in (50..300).step_by(10) {
        grown.add(&ids[from..from + 10], &row(from..from + 10)).unwrap();
    }
    let before = grown.snapshot();
    assert_eq!((grown.len(), grown.ids()), (300, whole.ids()));
    assert!(before.segments().len() < 12, "{} segments", before.segments().len());
    let (whole, grown) = (Searcher::new(whole), Searcher::new(grown));
    let algorithms =
        [Algorithm::Exact, Algorithm::Mips, Algorithm::Naive { per_group: 20 }, Algorithm::Avg { candidates: 90 }];
    let same = |what: &str| {
        for algorithm in algorithms {
            let expected = whole.search(algorithm, &batch, 25, &[&[7], &[], &[14, 21], &[]]).unwrap();
            assert_eq!(
                grown.search(algorithm, &batch, 25, &[&[7], &[], &[14, 21], &[]]).unwrap(),
                expected,
                "{what} {algorithm}"
            );
        }
    };
    same("grown");
    let gone: Vec<u64> = (0..300).filter(|id| id % 3 == 0).collect();
    assert_eq!((whole.index().remove(&gone).unwrap(), grown.index().remove(&gone).unwrap()), (100, 100));
    assert_eq!((grown.index().remove(&[0, 9999]).unwrap(), grown.index().len()), (0, 200));
    same("shrunk");
    grown.index().compact().unwrap();
    assert_eq!(grown.index().snapshot().segments().len(), 1);
    same("compacted");
    assert_eq!((before.len(), before.contains(0)), (300, true), "a version that somebody holds stays as it was");
    assert!(grown.index().add(&[1, 1], &row(0..2)).is_err());
    assert!(grown.index().add(&[1], &Tensor::new(vec![1, DIM], vec![f32::NAN; DIM]).unwrap()).is_err());
    for algorithm in approximate(5, 2).into_iter().chain([Algorithm::Exact, Algorithm::ExactPruned]) {
        let all = grown.search(algorithm, &batch, 200, &[]);
        assert_eq!(
            grown.search(algorithm, &batch, 201, &[]).ok(),
            all.ok(),
            "{algorithm}: k beyond N finds all there is"
        );
    }
    let request = Request::new(Algorithm::Avg { candidates: 5 }, 3).with_certify(true);
    grown.index().remove(&grown.index().ids()).unwrap();
    let answer = grown.answer(&batch, &request).unwrap();
    assert_eq!((answer.hits, answer.certificates), (vec![vec![]; 4], vec![Certificate::Exact; 4]), "an empty index");
    assert_eq!(grown.candidates(request.algorithm, &batch, &[]).unwrap(), vec![Vec::<u64>::new(); 4]);
    assert!(grown.search(Algorithm::Exact, &batch, 0, &[]).is_err());
}

/// score(z) by definition, in f64.
fn score(mol: &Mol<Tensor>, z: &[f64], q: Option<&[f32]>, x: Option<&[f32]>) -> f64 {
    let linear = |input: &[f64], layer: &Linear<Tensor>| -> Vec<f64> {
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
        other => panic!("no definition of {other:?} here"),
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
            let tables = item_tables(&Cpu::default(), &items, Some(&mol), Dtype::F32, Form::Components).unwrap();
            let index = CpuIndex::new(Arc::new(tables), Some(&similarity));
            let gradient = index.gradient(&batch.prepared(), &[vec![37]]).unwrap();
            let gradient = gradient.row(0);

            let weights = mol.map(&mut |tensor| CpuOps::default().floats(tensor));
            let (f, q) = weights.query_side(
                &mut CpuOps::default(),
                &CpuOps::default().floats(&batch.embeddings),
                batch.len(),
                batch.user_ids.as_deref(),
            );
            let item = weights.item_side(
                &mut CpuOps::default(),
                &CpuOps::default().floats(&Tensor::new(vec![1, DIM], items.row(37).to_vec()).unwrap()),
                1,
            );
            let d_p = mol.config.dot_product_dimension;
            let dot = |f: &[f32], g: &[f32]| f.iter().zip(g).map(|(f, g)| f64::from(*f) * f64::from(*g)).sum::<f64>();
            let z: Vec<f64> = f
                .chunks(d_p)
                .flat_map(|f| item.components.chunks(d_p).map(move |g| dot(f, g)))
                .map(|dot| dot / f64::from(mol.config.temperature))
                .collect();
            let (q, x) = (q.as_ref().map(|q| &q[..]), item.gate.as_ref().map(|x| &x[..]));
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
    let queries = QueryBatch::new(Random::new(2).tensor(&[1, DIM], 1.0));
    let searcher = Searcher::new(index);
    for algorithm in approximate(3, 1) {
        let error = searcher.search(algorithm, &queries, 2, &[]).unwrap_err().to_string();
        assert!(error.contains("Mixture-of-Logits") && error.contains(&algorithm.to_string()), "{error}");
    }
    let exact = searcher.search(Algorithm::Exact, &queries, 2, &[]).unwrap();
    assert_eq!(exact, searcher.search(Algorithm::Mips, &queries, 2, &[]).unwrap());
}

#[test]
fn users_are_needed_by_uid_embeddings_only() {
    let (mol, items, queries) = random_search(&mut Random::new(3), &Shape::default(), 30, 2);
    assert!(!mol.uid_tables.is_empty());
    let index =
        ItemIndex::from_embeddings(&Cpu::default(), &(0..30).collect::<Vec<u64>>(), &items, Some(&mol), Dtype::F32);
    let searcher = Searcher::new(index.unwrap());
    let nobody = QueryBatch::new(queries.embeddings.clone());
    let everybody = |algorithm| searcher.search(algorithm, &queries, 2, &[]).unwrap();
    assert_eq!(searcher.search(Algorithm::Mips, &nobody, 2, &[]).unwrap(), everybody(Algorithm::Mips));
    let says = |algorithm, queries: &QueryBatch| {
        let error = searcher.search(algorithm, queries, 2, &[]).unwrap_err();
        error.to_string()
    };
    for algorithm in [Algorithm::Exact, Algorithm::ExactPruned].into_iter().chain(approximate(3, 1)) {
        assert!(says(algorithm, &nobody).contains("user ids: expected one per query"), "{algorithm}");
        let three = nobody.clone().with_users([1, 2, 3]);
        assert!(says(algorithm, &three).contains("user ids: expected 2, one per query, found 3"), "{algorithm}");
    }
    let error = searcher.index().distill(&nobody).unwrap_err().to_string();
    assert!(error.contains("user ids: expected one per query"), "{error}");
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
    assert!(error.to_string().contains("at least 1"));
}

#[test]
fn candidates_of_ones_own_get_the_scores_of_an_exact_search() {
    for backend in backends() {
        let mut random = Random::new(31);
        let (mol, items, batch) = random_search(&mut random, &Shape::default(), 150, 3);
        let ids: Vec<u64> = (0..150).map(|i| 1000 - 3 * i).collect();
        for (mol, dtype) in [(Some(&mol), Dtype::F32), (None, Dtype::F32), (None, Dtype::I8), (None, Dtype::F16)] {
            // Segments of 40 items, some of them gone.
            let options = IndexOptions::from(dtype).with_segment_items(40);
            let index = ItemIndex::from_embeddings(backend.as_ref(), &ids, &items, mol, options).unwrap();
            index.remove(&[1000, 700]).unwrap();
            let searcher = Searcher::new(index);
            let exact = searcher.search(Algorithm::Exact, &batch, 148, &[]).unwrap();
            let own: [Vec<u64>; 3] = [vec![], ids[1..99].to_vec(), vec![997, 553, 994, 997]];
            let lists: Vec<&[u64]> = own.iter().map(Vec::as_slice).collect();
            let hits = searcher.rescore(&batch, &lists).unwrap();
            for ((hits, exact), own) in hits.iter().zip(&exact).zip(&own) {
                let expected: Vec<Hit> = exact.iter().filter(|hit| own.contains(&hit.id)).copied().collect();
                assert_eq!(hits, &expected, "{dtype:?}");
            }
            let says = |lists: &[&[u64]]| searcher.rescore(&batch, lists).unwrap_err().to_string();
            assert!(says(&[&[997], &[994, 700], &[]]).contains("id 700"));
            assert!(says(&[&[997]]).contains("3 lists"));
        }
    }
}
