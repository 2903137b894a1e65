//! Candidate sets and results of the approximate algorithms against those of an independent PyTorch implementation, on every
//! backend. `RAILS_ORACLE_CASES` may name folders of further cases, separated by commas.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::common::backends::backends;
use crate::common::case::{Case, fixture};
use half::bf16;
use rails_wgpu::backend::{Backend, Dtype, QueryBatch};
use rails_wgpu::config::MolConfig;
use rails_wgpu::index::ItemIndex;
use rails_wgpu::search::{Algorithm, Hit, Searcher};
use rails_wgpu::tensor::Tensor;
use safetensors::SafeTensors;

const CASES: [&str; 12] = [
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

/// A score of the reference and ours may differ by so much: both are f32 sums of some hundred terms of magnitude 1 to 20.
const SCORE_TOLERANCE: f32 = 1e-4;

/// What the reference gives to columns that name an item once more.
const REPEATED: f32 = -32767.0;

/// All fixtures, and the cases that the environment names.
fn cases() -> Vec<Case> {
    let more = std::env::var("RAILS_ORACLE_CASES").unwrap_or_default();
    let more = more.split(',').filter(|folder| !folder.is_empty()).map(PathBuf::from);
    CASES.iter().map(|case| fixture(case)).chain(more).map(|folder| Case::load(&folder)).collect()
}

/// What is asked of a case here.
impl Case {
    /// The first `n` query embeddings of the reference.
    fn first_queries(&self, n: usize) -> QueryBatch {
        let all = self.floats("enc.query_embeddings");
        let embeddings = Tensor::new(vec![n, all.width()], all.data()[..n * all.width()].to_vec()).unwrap();
        QueryBatch::new(embeddings).with_users(self.integers("in.user_ids")[..n].to_vec())
    }

    fn searcher(&self, backend: &dyn Backend) -> Searcher {
        Searcher::new(ItemIndex::from_model(backend, &self.model, &self.item_ids(), Dtype::F32).unwrap())
    }

    /// Names of the reference's algorithms with columns called `kind.NAMEsuffix.ids`.
    fn algorithms(&self, kind: &str, suffix: &str) -> Vec<String> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let name = |tensor: &str| {
            let name = tensor.strip_prefix(kind)?.strip_suffix(".ids")?.strip_suffix(suffix)?.to_string();
            (!name.contains("__") && !name.contains("BruteForce")).then_some(name)
        };
        tensors.names().into_iter().filter_map(name).collect()
    }
}

#[test]
fn candidates_are_those_of_the_reference() {
    for backend in backends() {
        let (mut compared, mut near_ties, mut different) = (0, 0, Vec::new());
        for case in cases() {
            let (searcher, ids) = (case.searcher(backend.as_ref()), case.item_ids());
            let (query_components, item_components) =
                (case.floats("mol.query_components"), case.floats("mol.item_components"));
            for name in case.algorithms("cand.", "__f32") {
                let (shape, columns) = case.find(&format!("cand.{name}__f32.ids"), i32::from_le_bytes).unwrap();
                let queries = case.first_queries(shape[0]);
                let found = searcher.candidates(name.parse().unwrap(), &queries, &[]).unwrap();
                for (query, (found, expected)) in found.iter().zip(columns.chunks_exact(shape[1])).enumerate() {
                    let expected: BTreeSet<u64> = expected.iter().map(|&id| id as u64).collect();
                    let found: BTreeSet<u64> = found.iter().copied().collect();
                    compared += 1;
                    if found != expected {
                        // Only items whose f32 scores may be equal to that of the last one can be exchanged.
                        let components = (&query_components, &item_components);
                        let (surely, maybe) = bounds(&case, name.parse().unwrap(), query, components, |x| x);
                        let place = |id: &u64| ids.iter().position(|other| u64::from(*other) == *id).unwrap();
                        let lost: Vec<_> = expected.symmetric_difference(&found).collect();
                        near_ties += 1;
                        if !lost.iter().all(|id| maybe[place(id)] && !surely[place(id)]) {
                            different.push(format!("{} {name} query {query}: {lost:?}", case.name));
                        }
                    }
                }
            }
        }
        println!("{}: {compared} sets compared, {near_ties} of them with near-ties", backend.info().name);
        assert!(near_ties <= compared / 500, "{near_ties} of {compared} are too many near-ties");
        assert!(compared >= 12 * 16 * 7, "only {compared} sets were compared");
        assert!(different.is_empty(), "{} of {compared} sets differ: {different:#?}", different.len());
    }
}

/// Why `hits` are not the columns (ids, scores) of the reference, if they are not.
fn compare(hits: &[Hit], ids: &[i64], scores: &[f32]) -> Result<(), String> {
    for (rank, (hit, (&id, &score))) in hits.iter().zip(ids.iter().zip(scores)).enumerate() {
        if (hit.score - score).abs() > SCORE_TOLERANCE {
            return Err(format!("rank {rank}: {hit:?} is not {id} with {score}"));
        }
        // Scores that are as close as rounding may change places.
        let near = |other: usize| (scores[other] - score).abs() <= SCORE_TOLERANCE;
        let places = (0..ids.len().min(scores.len())).filter(|&other| ids[other] as u64 == hit.id).collect::<Vec<_>>();
        if hit.id != id as u64 && !places.iter().any(|&place| near(place)) && rank + 1 < hits.len() {
            return Err(format!("rank {rank}: {hit:?} is not {id}, and their scores differ"));
        }
    }
    Ok(())
}

#[test]
fn results_are_those_of_the_reference() {
    for backend in backends() {
        let mut compared = 0;
        for case in cases() {
            let searcher = case.searcher(backend.as_ref());
            for name in case.algorithms("topk.", "__f32") {
                let (shape, ids) = case.find(&format!("topk.{name}__f32.ids"), i64::from_le_bytes).unwrap();
                let scores = case.floats(&format!("topk.{name}__f32.scores"));
                let algorithm: Algorithm = name.parse().unwrap();
                let queries = case.first_queries(shape[0]);
                // The reference returns repeated columns at the end; ours are unique.
                let width = |row: usize| scores.row(row).iter().take_while(|score| **score > REPEATED).count();
                let k = (0..shape[0]).map(width).min().unwrap();
                let found = searcher.search(algorithm, &queries, k, &[]).unwrap();
                for (query, hits) in found.iter().enumerate() {
                    let ids = &ids[query * shape[1]..(query + 1) * shape[1]];
                    let what = compare(hits, ids, scores.row(query));
                    assert_eq!(what, Ok(()), "{} {} {name} query {query}", backend.info().name, case.name);
                    compared += 1;
                }
            }
        }
        assert!(compared >= 12 * 16 * 7, "only {compared} lists were compared");
    }
}

#[test]
fn a_wrong_result_is_rejected() {
    let hits: Vec<Hit> = [(3, 2.0), (5, 1.5), (9, 1.0)].map(|(id, score)| Hit { id, score }).to_vec();
    assert_eq!(compare(&hits, &[3, 5, 9], &[2.0, 1.5, 1.0]), Ok(()));
    assert!(compare(&hits, &[5, 3, 9], &[2.0, 1.5, 1.0]).is_err());
    assert!(compare(&hits, &[3, 4, 9], &[2.0, 1.5, 1.0]).is_err());
    assert!(compare(&hits, &[3, 5, 9], &[2.0, 1.501, 1.0]).is_err());
}

/// What an f32 number becomes in the reference's bfloat16.
fn halved(x: f64) -> f64 {
    bf16::from_f32(x as f32).to_f64()
}

/// Score of one first stage, with numbers rounded as in the reference, known up to the rounding of its f32 sums: (lowest,
/// highest).
fn product(query: &[f32], item: &[f32], round: fn(f64) -> f64) -> (f64, f64) {
    let exact: f64 = query.iter().zip(item).map(|(a, b)| round((*a).into()) * round((*b).into())).sum();
    let magnitude: f64 = query.iter().zip(item).map(|(a, b)| (f64::from(*a) * f64::from(*b)).abs()).sum();
    let error = magnitude * f64::from(f32::EPSILON) * query.len() as f64;
    (round(exact - error), round(exact + error))
}

/// Items that surely are, and items that may be, among the best `k`.
fn surely_and_maybe(scores: &[(f64, f64)], k: usize) -> (Vec<bool>, Vec<bool>) {
    let kth = |of: fn(&(f64, f64)) -> f64| {
        let mut sorted: Vec<f64> = scores.iter().map(of).collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        sorted[k - 1]
    };
    let (low, high) = (kth(|score| score.0), kth(|score| score.1));
    (scores.iter().map(|score| score.0 > high).collect(), scores.iter().map(|score| score.1 >= low).collect())
}

/// For one query: which items must be in the reference's set, and which may be.
fn bounds(
    case: &Case,
    algorithm: Algorithm,
    query: usize,
    components: (&Tensor, &Tensor),
    round: fn(f64) -> f64,
) -> (Vec<bool>, Vec<bool>) {
    let MolConfig { query_dot_product_groups: p_q, item_dot_product_groups: p_x, dot_product_dimension: d_p, .. } =
        *case.model.mol.as_ref().map(|mol| &mol.config).unwrap();
    let (f, g) = (components.0.row(query), components.1);
    let mut all = (vec![false; g.rows()], vec![false; g.rows()]);
    let mut join = |scores: Vec<(f64, f64)>, k: usize| {
        let (surely, maybe) = surely_and_maybe(&scores, k);
        all.0.iter_mut().zip(surely).for_each(|(all, one)| *all |= one);
        all.1.iter_mut().zip(maybe).for_each(|(all, one)| *all |= one);
    };
    let (per_group, candidates) = match algorithm {
        Algorithm::Naive { per_group } => (Some(per_group), None),
        Algorithm::Avg { candidates } => (None, Some(candidates)),
        Algorithm::Comb { per_group, candidates } => (Some(per_group), Some(candidates)),
        other => panic!("{other}"),
    };
    if let Some(k) = per_group {
        for (n, m) in (0..p_q).flat_map(|n| (0..p_x).map(move |m| (n, m))) {
            let item = |i: usize| &g.row(i)[m * d_p..(m + 1) * d_p];
            join((0..g.rows()).map(|i| product(&f[n * d_p..(n + 1) * d_p], item(i), round)).collect(), k);
        }
    }
    if let Some(k) = candidates {
        let round32 = |x: f32| round(x.into()) as f32;
        let sum: Vec<f32> = (0..d_p).map(|j| f.iter().skip(j).step_by(d_p).sum()).collect();
        let mean = |i: usize| -> Vec<f32> {
            let row = g.row(i);
            (0..d_p)
                .map(|j| round32(row.iter().skip(j).step_by(d_p).map(|x| round32(*x)).sum::<f32>() / p_x as f32))
                .collect()
        };
        join((0..g.rows()).map(|i| product(&sum, &mean(i), round)).collect(), k);
    }
    all
}

#[test]
fn bfloat16_candidates_are_those_of_the_reference_up_to_ties() {
    let (mut compared, mut narrow) = (0, 0);
    for case in cases() {
        let ids = case.item_ids();
        let components = (case.floats("mol.query_components"), case.floats("mol.item_components"));
        for name in case.algorithms("cand.", "") {
            let (shape, columns) = case.find(&format!("cand.{name}.ids"), i32::from_le_bytes).unwrap();
            for (query, columns) in columns.chunks_exact(shape[1]).enumerate() {
                let set: BTreeSet<u32> = columns.iter().map(|&id| id as u32).collect();
                let (surely, maybe) =
                    bounds(&case, name.parse().unwrap(), query, (&components.0, &components.1), halved);
                let place = |(i, id): (usize, &u32)| (set.contains(id), surely[i], maybe[i]);
                let places: Vec<_> = ids.iter().enumerate().map(place).collect();
                let missing = places.iter().filter(|(is, surely, _)| *surely && !is).count();
                let surplus = places.iter().filter(|(is, _, maybe)| *is && !maybe).count();
                assert_eq!((missing, surplus), (0, 0), "{} {name} query {query}", case.name);
                let open = places.iter().filter(|(_, surely, maybe)| *maybe && !surely).count();
                narrow += usize::from(open * 5 <= set.len());
                compared += 1;
            }
        }
    }
    assert!(compared >= 12 * 16 * 7, "only {compared} sets were compared");
    assert!(narrow * 10 >= compared * 5, "the bounds leave too much open to mean anything: {narrow} of {compared}");
}
