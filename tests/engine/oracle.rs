//! Every reference case, layer by layer and end to end, on every backend: tensors and metrics in `tests/oracle` were made
//! by an independent PyTorch implementation, those of GRU4Rec and BERT4Rec by `python/make_encoder_cases.py`.

use crate::common::compare;
use crate::common::mol;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::common::case::{Case, fixture};
use crate::common::naive::{Naive, Num};
use rails_wgpu::backend::cpu::{Cpu, CpuOps};
use rails_wgpu::backend::{Backend, Dtype, QueryBatch};
use rails_wgpu::dataset::{Dataset, ReadOptions};
use rails_wgpu::eval::{Evaluator, Protocol};
use rails_wgpu::index::ItemIndex;
use rails_wgpu::ops::Ops;
use rails_wgpu::search::{Algorithm, Searcher};
use rails_wgpu::sequence::{History, SequenceBatch};
use rails_wgpu::tensor::Tensor;

const LAYER_TOLERANCE: f32 = 1e-5;

/// What is asked of a case here.
impl Case {
    fn lengths(&self) -> Vec<usize> {
        self.integers("in.past_lengths").iter().map(|&length| length as usize).collect()
    }

    fn batch(&self) -> SequenceBatch {
        let padded = self.model.config.padded_length();
        let ids: Vec<u32> = self.integers("in.past_ids").iter().map(|&id| id as u32).collect();
        let (times, users) = (self.integers("in.timestamps"), self.integers("in.user_ids"));
        let histories: Vec<History> = self
            .lengths()
            .iter()
            .enumerate()
            .map(|(i, &length)| History {
                user_id: users[i],
                item_ids: &ids[i * padded..i * padded + length],
                timestamps: &times[i * padded..i * padded + length],
                now: times[i * padded + length],
            })
            .collect();
        SequenceBatch::new(&histories, &self.model.config, self.model.n_item_rows()).unwrap()
    }

    /// The reference's own query embeddings.
    fn queries(&self) -> QueryBatch {
        QueryBatch::new(self.floats("enc.query_embeddings")).with_users(self.integers("in.user_ids"))
    }

    /// Valid rows of a padded (B, N, D) tensor, one sequence after the other; a (R, D) tensor is that already.
    fn packed(&self, name: &str) -> Vec<f32> {
        let tensor = self.floats(name);
        if tensor.shape().len() == 2 {
            return tensor.data().to_vec();
        }
        let (padded, width) = (tensor.shape()[1], tensor.shape()[2]);
        let rows = self.lengths().into_iter().enumerate();
        rows.flat_map(|(i, n)| &tensor.data()[i * padded * width..][..n * width]).copied().collect()
    }

    /// Raw item embeddings as the index sees them.
    fn items(&self) -> Tensor {
        self.floats("item.embeddings")
    }
}

/// All intermediate arrays of an encoder run, by name, and `query_embeddings`.
fn intermediates<O: Ops>(
    case: &Case,
    mut ops: O,
    value: fn(&mut O, &O::Floats) -> Vec<f32>,
) -> BTreeMap<String, Vec<f32>> {
    let encoder = case.model.encoder.map(&mut |tensor: &Tensor| ops.floats(tensor));
    let mut tapped = Vec::new();
    let queries = encoder.forward(&mut ops, &case.batch(), &mut |name, array: &O::Floats, _| {
        tapped.push((name.to_string(), array.clone()));
    });
    tapped.push(("query_embeddings".to_string(), queries));
    tapped.into_iter().map(|(name, array)| (name, value(&mut ops, &array))).collect()
}

fn assert_close(case: &str, name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{case} {name}");
    assert!(!found.is_empty(), "{case} {name}: nothing was compared");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= LAYER_TOLERANCE, "{case} {name}: off by {worst:e}");
}

/// Compares every layer with the reference.
fn check_encoder(case: &Case, found: &BTreeMap<String, Vec<f32>>) {
    assert_close(&case.name, "preproc_out", &found["preproc_out"], &case.packed("enc.preproc_out"));
    let mut layers = 0;
    for (name, values) in found {
        if [".jagged_out", ".states", ".block_out"].iter().any(|end| name.ends_with(end)) {
            assert_close(&case.name, name, values, case.floats(&format!("enc.{name}")).data());
            layers += 1;
        } else if let Some(layer) = name.strip_suffix(".ffn_out") {
            assert_close(&case.name, name, values, &case.packed(&format!("enc.{layer}.ffn_out_before_mask")));
            layers += 1;
        }
    }
    assert_eq!(layers, 2, "{}: every layer is compared", case.name);
    assert_close(&case.name, "query", &found["query_embeddings"], case.floats("enc.query_embeddings").data());
}

/// Scores (B, N) by definition with error bounds, in position order.
fn definition(case: &Case, scorer: Algorithm) -> Vec<Vec<Num>> {
    let (items, queries) = (case.items(), case.queries());
    if let (Algorithm::Exact, Some(mol)) = (scorer, &case.model.mol) {
        return mol::scores(mol, &items, &queries, |x| x);
    }
    mol::dot_scores(&items, &queries, |x| x)
}

/// The reference's name of the algorithm in this case.
fn reference_name(case: &Case, algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Exact if case.model.mol.is_some() => "MoLBruteForceTopK",
        _ => "MIPSBruteForceTopK",
    }
}

/// Scores and order of all items against the definition, and the first ids against the reference's own list.
fn check_search(case: &Case, backend: &dyn Backend, algorithm: Algorithm) {
    let ids = case.item_ids();
    assert!(ids.is_sorted(), "positions follow the ids");
    let index = ItemIndex::from_model(backend, &case.model, &ids, Dtype::F32).unwrap();
    let hits = Searcher::new(index).search(algorithm, &case.queries(), ids.len(), &[]).unwrap();
    let position = |id: u64| ids.binary_search(&(id as u32)).unwrap() as u32;
    let scores = definition(case, algorithm);
    for (query, (hits, scores)) in hits.iter().zip(&scores).enumerate() {
        let found: Vec<rails_wgpu::backend::ScoredPosition> = hits
            .iter()
            .map(|hit| rails_wgpu::backend::ScoredPosition { position: position(hit.id), score: hit.score })
            .collect();
        compare::compare(scores, &[], ids.len(), &found).unwrap_or_else(|e| panic!("{} query {query}: {e}", case.name));
    }
    let name = reference_name(case, algorithm);
    let expected = case.integers(&format!("topk.{name}.ids"));
    let k = expected.len() / hits.len();
    assert!(k >= 20, "{}: {name} holds too little", case.name);
    let mut swapped = 0;
    for (query, ((hits, expected), scores)) in hits.iter().zip(expected.chunks_exact(k)).zip(&scores).enumerate() {
        let found: Vec<u32> = hits[..k].iter().map(|hit| position(hit.id)).collect();
        let expected: Vec<u32> = expected.iter().map(|&id| position(id as u64)).collect();
        swapped += differences(scores, &found, &expected)
            .unwrap_or_else(|e| panic!("{} {name} query {query}: {e}", case.name));
    }
    assert!(swapped <= 2, "{} {name}: {swapped} places differ, more than one pair of near-ties", case.name);
}

/// Places at which two lists of positions differ. The reference's list is computed in f32, too: of two items whose scores are as
/// near as f32 can tell, either may be first, and nothing else may differ.
fn differences(scores: &[Num], found: &[u32], expected: &[u32]) -> Result<usize, String> {
    if found.len() != expected.len() {
        return Err(format!("expected {} items, found {}", expected.len(), found.len()));
    }
    let different: Vec<_> = found.iter().zip(expected).enumerate().filter(|(_, (a, b))| a != b).collect();
    for &(rank, (&a, &b)) in &different {
        let (found, expected) = (&scores[a as usize], &scores[b as usize]);
        if (found.value - expected.value).abs() > found.error + expected.error {
            return Err(format!("rank {rank}: expected {b} with {expected:?}, found {a} with {found:?}"));
        }
    }
    Ok(different.len())
}

/// Metrics of all users, through encoder, index and search, in the reference's protocol.
fn check_metrics(case: &Case, backend: &dyn Backend) {
    let folder = fixture(&case.name);
    let oracle: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("oracle.json")).unwrap()).unwrap();
    let expected = &oracle["metrics"];
    let csv = fixture("tiny.csv");
    let (dataset, _) = Dataset::read(&csv, ReadOptions::default()).unwrap();
    let ids = case.item_ids();
    let searcher = Searcher::builder().model(&case.model, &ids).backend(backend.share()).build().unwrap();
    let evaluator = Evaluator {
        searcher: &searcher,
        conditions: &[],
        protocol: Protocol::Reference,
        k: Protocol::Reference.depth(200, ids.len()).unwrap(),
        batch_size: 32,
    };
    let results = evaluator.run(&[Algorithm::Exact], &dataset.sequences, |_| ControlFlow::Continue(())).unwrap();
    let quality = &results[0].quality;
    assert_eq!(quality.len() as u64, expected["users"].as_f64().unwrap() as u64, "{}", case.name);
    let hit_rates = [1, 5, 10, 50, 100, 200].map(|n| (format!("hr@{n}"), quality.hit_rate(n)));
    let ndcgs = [1, 5, 10, 50, 100, 200].map(|n| (format!("ndcg@{n}"), quality.ndcg(n)));
    for (name, found) in hit_rates.into_iter().chain(ndcgs).chain([("mrr".to_string(), quality.mrr())]) {
        let expected = expected[&name].as_f64().unwrap_or_else(|| panic!("{} has no {name}", case.name));
        assert!((found - expected).abs() < 1e-6, "{} {name}: expected {expected}, found {found}", case.name);
    }
}

macro_rules! cases {
    ($($name:ident)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn definition_agrees_with_the_reference() {
                let case = Case::load(&fixture(stringify!($name)));
                check_encoder(&case, &intermediates(&case, Naive, |_, array| array.iter().map(|x| x.value as f32).collect()));
                let reference = case.floats("scores.full");
                for (query, scores) in definition(&case, Algorithm::Exact).iter().enumerate() {
                    for (item, score) in scores.iter().enumerate() {
                        let found = f64::from(reference.row(query)[item]);
                        assert!((found - score.value).abs() <= score.error, "{query} {item}: {found} is not {score:?}");
                    }
                }
            }

            #[test]
            fn cpu() {
                let case = Case::load(&fixture(stringify!($name)));
                check_encoder(&case, &intermediates(&case, CpuOps::default(), |ops, array| ops.read(array).unwrap()));
                check_search(&case, &Cpu::default(), Algorithm::Exact);
                check_search(&case, &Cpu::default(), Algorithm::Mips);
                check_metrics(&case, &Cpu::default());
            }

            #[cfg(feature = "gpu")]
            #[test]
            fn gpu() {
                use rails_wgpu::backend::gpu::{GpuBackend, Recorder};
                let Some(gpu) = crate::common::gpu::shared() else { return };
                let case = Case::load(&fixture(stringify!($name)));
                check_encoder(&case, &intermediates(&case, Recorder::new(&gpu), |ops, array| ops.read(array).unwrap()));
                let backend = GpuBackend::new(gpu);
                check_search(&case, &backend, Algorithm::Exact);
                check_search(&case, &backend, Algorithm::Mips);
                check_metrics(&case, &backend);
            }
        }
    )*};
}

cases! {
    tiny_bert4rec
    tiny_bert4rec_prenorm
    tiny_bert4rec_unbiased
    tiny_gru4rec
    tiny_gru4rec_bias
    tiny_hstu_dot
    tiny_hstu_mol
    tiny_hstu_mol_concatua
    tiny_hstu_mol_geglu
    tiny_hstu_mol_itemhidden
    tiny_hstu_mol_itemhidden_swiglu
    tiny_hstu_mol_nol2_nouid
    tiny_hstu_mol_none
    tiny_hstu_mol_none_sum
    tiny_hstu_mol_qhidden0
    tiny_hstu_mol_uids2
    tiny_sasrec_dot
    tiny_sasrec_mol
    tiny_sasrec_mol_gelu
}

#[test]
#[should_panic(expected = "off by")]
fn a_wrong_layer_is_rejected() {
    let case = Case::load(&fixture("tiny_hstu_mol"));
    let mut found = intermediates(&case, CpuOps::default(), |ops, array| ops.read(array).unwrap());
    found.get_mut("layer1.jagged_out").unwrap()[7] += 3e-5;
    check_encoder(&case, &found);
}

#[test]
fn lists_may_differ_in_near_ties_only() {
    let scores = [0.9, 0.5, 0.5 + 1e-8, 0.1].map(|value| Num { value, error: 1e-7 });
    assert_eq!(differences(&scores, &[0, 1, 2], &[0, 2, 1]), Ok(2));
    assert_eq!(differences(&scores, &[0, 1, 2], &[0, 1, 2]), Ok(0));
    assert!(differences(&scores, &[1, 0, 2], &[0, 1, 2]).unwrap_err().starts_with("rank 0: expected 0"));
    assert!(differences(&scores, &[0, 1, 3], &[0, 1, 2]).unwrap_err().starts_with("rank 2: expected 2"));
    assert!(differences(&scores, &[0, 1], &[0, 1, 2]).unwrap_err().contains("expected 3 items"));
}

#[test]
fn scores_of_another_model_are_rejected() {
    let (case, other) = (Case::load(&fixture("tiny_hstu_mol")), Case::load(&fixture("tiny_hstu_mol_geglu")));
    let scores = definition(&case, Algorithm::Exact);
    let reference = other.floats("scores.full");
    let wrong = (0..scores[0].len())
        .filter(|&i| (f64::from(reference.row(0)[i]) - scores[0][i].value).abs() > scores[0][i].error);
    assert!(wrong.count() > 150, "bounds this wide reject nothing");
}
