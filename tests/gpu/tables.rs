//! Everything that an index on a GPU is asked, in every number format and form, against the definition; the CPU backend
//! answers the same questions beside it.

use crate::common::gpu;
use crate::common::naive;
use std::sync::Arc;

use crate::common::compare::compare;
use crate::common::models::{Random, Shape};
use crate::common::naive::Num;
use crate::common::tables::{column_scores, mol_scores, scores_of};
use rails_wgpu::backend::cpu::{Cpu, CpuIndex};
use rails_wgpu::backend::gpu::{GpuIndex, ScanLimits};
use rails_wgpu::backend::{
    Bits, CandidateScan, Columns, DeviceIndex, Dtype, Exclusions, Hits, QueryBatch, Retrieval, ScoredPosition, Scorer,
    SearchContext, Similarity,
};
use rails_wgpu::config::GatingCombination;
use rails_wgpu::index::item_tables;
use rails_wgpu::model::{CrossGate, Distilled, Mol};
use rails_wgpu::ops::Linear;
use rails_wgpu::search::profiled;
use rails_wgpu::tables::{Form, Lists, Tables};
use rails_wgpu::tensor::Tensor;

/// Not a multiple of four, so that every kind of padding is there.
const DIM: usize = 7;
const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::I8];
const FORMS: [Form; 2] = [Form::Components, Form::Raw];

/// Every border is crossed many times: shards of a few tiles, slices of three queries (for k = 1000; fewer would have
/// another kernel), chunks of one tile, submissions of one or two chunks.
fn tiny() -> ScanLimits {
    ScanLimits {
        binding_bytes: 40_000,
        hit_list_bytes: 36_000,
        first_chunk: 64,
        dispatch_flops: 100_000,
        submission_flops: 200_000,
        ..ScanLimits::default()
    }
}

/// Small enough for several chunks.
fn small_chunks() -> ScanLimits {
    ScanLimits { first_chunk: 128, ..ScanLimits::default() }
}

/// A model, the tables of some items, and queries.
struct Case {
    similarity: Similarity,
    tables: Arc<Tables>,
    batch: QueryBatch,
}

impl Case {
    fn new(shape: &Shape, (dtype, form): (Dtype, Form), n_items: usize, n_queries: usize) -> Case {
        let mut random = Random::new(n_items as u64);
        let mol = shape.mol(&mut random, DIM);
        let items = random.tensor(&[n_items, mol.item_dim()], 1.0);
        let user_ids: Vec<i64> = (0..n_queries as i64).map(|i| i * 37 - 5).collect();
        let batch = QueryBatch::new(random.tensor(&[n_queries, mol.query_dim()], 1.0)).with_users(user_ids);
        let n_logits = mol.config.n_logits();
        let mut layer = |n_in: usize, n_out: usize| {
            let (weight, bias) = (random.tensor(&[n_in, n_out], 0.7), Some(random.tensor(&[n_out], 0.5)));
            Linear { weight, bias, n_in, n_out }
        };
        let (hidden, output) = (layer(n_logits, 3), layer(3, n_logits));
        let cross = CrossGate { hidden: Some(hidden), output, linear: Some(layer(n_logits, n_logits).weight) };
        let distilled = Distilled { cross, tangents: None };
        let tables = Arc::new(item_tables(&Cpu::default(), &items, Some(&mol), dtype, form).unwrap());
        Case { similarity: Similarity { mol, distilled: Some(distilled) }, tables, batch }
    }

    fn on(&self, gpu: &Arc<rails_wgpu::backend::gpu::Gpu>, limits: ScanLimits) -> GpuIndex {
        GpuIndex::new(&SearchContext::default(), gpu, self.tables.clone(), Some(&self.similarity), limits).unwrap()
    }

    fn scores(&self, scorer: Scorer) -> Vec<Vec<Num>> {
        match scorer {
            Scorer::Dot => scores_of(&self.batch.embeddings, &self.tables.raw),
            _ => mol_scores(scorer, &self.similarity, &self.tables, &self.batch),
        }
    }

    /// Columns, and vectors for them.
    fn columns(&self) -> Vec<(Columns, Tensor)> {
        let config = &self.similarity.mol.config;
        let (p_x, d_p) = (config.item_dot_product_groups, config.dot_product_dimension);
        let all =
            [(Columns::Group(0), d_p), (Columns::Group(p_x - 1), d_p), (Columns::All, p_x * d_p), (Columns::Mean, d_p)];
        let mut random = Random::new(17);
        all.map(|(columns, width)| (columns, random.tensor(&[5, width], 1.0))).to_vec()
    }
}

/// Every format and form of a model with all parts, some of one with few.
fn variants() -> impl Iterator<Item = (Shape, (Dtype, Form))> {
    let full = Shape { gating: GatingCombination::GluSiluLn, ..Shape::default() };
    let bare = Shape {
        gating: GatingCombination::None,
        p_q: 3,
        p_x: 2,
        d_p: 5,
        l2_norm: false,
        query_gate: None,
        hidden: None,
        uid_sizes: vec![],
        ..Shape::default()
    };
    let all = DTYPES.into_iter().flat_map(|dtype| FORMS.map(|form| (dtype, form)));
    let some = [(Dtype::I8, Form::Components), (Dtype::F32, Form::Raw)];
    // Components that are given, and user ids beside them.
    let given = DTYPES.map(|dtype| (Shape { given: true, ..full.clone() }, (dtype, Form::Components)));
    let all: Vec<_> = all.map(|stored| (full.clone(), stored)).collect();
    all.into_iter().chain(some.map(|stored| (bare.clone(), stored))).chain(given)
}

/// The best `k` by the definition, for each list of scores, among what is not excluded.
fn check(what: &str, scores: &[Vec<Num>], excluded: &Exclusions, k: usize, hits: &Hits) {
    assert_eq!(hits.len(), scores.len(), "{what}");
    for (query, (scores, hits)) in scores.iter().zip(hits).enumerate() {
        let shut: Vec<u32> = (0..scores.len() as u32).filter(|&position| excluded.excludes(query, position)).collect();
        compare(scores, &shut, k, hits).unwrap_or_else(|error| panic!("{what}, k = {k}, query {query}: {error}"));
    }
}

/// All scores within their bounds.
fn check_rescored(what: &str, scores: &[Vec<Num>], candidates: &[Vec<u32>], found: &[Vec<f32>]) {
    for ((scores, list), found) in scores.iter().zip(candidates).zip(found) {
        let expected: Vec<Num> = list.iter().map(|&position| scores[position as usize]).collect();
        naive::compare(found, &expected).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

/// Whether `positions` are those with a score of at least `threshold`, as far as f32 can tell.
fn compare_above(scores: &[Num], shut: &[u32], threshold: f32, positions: &[u32]) -> Result<(), String> {
    if !positions.is_sorted_by(|a, b| a < b) {
        return Err("positions do not ascend".to_string());
    }
    for (position, Num { value, error }) in (0u32..).zip(scores) {
        let found = positions.binary_search(&position).is_ok();
        let (may, must) = (value + error >= f64::from(threshold), value - error >= f64::from(threshold));
        let is_shut = shut.contains(&position);
        if found && (is_shut || !may) || !found && !is_shut && must {
            return Err(format!("{position}: found {found} with {value} +- {error:e} for a threshold of {threshold}"));
        }
    }
    match positions.last() {
        Some(&last) if last as usize >= scores.len() => Err(format!("{last} is unknown")),
        _ => Ok(()),
    }
}

fn check_above(what: &str, scores: &[Vec<Num>], excluded: &Exclusions, thresholds: &[f32], found: &[Vec<u32>]) {
    assert_eq!(found.len(), scores.len(), "{what}");
    for (query, (scores, found)) in scores.iter().zip(found).enumerate() {
        let shut: Vec<u32> = (0..scores.len() as u32).filter(|&position| excluded.excludes(query, position)).collect();
        compare_above(scores, &shut, thresholds[query], found)
            .unwrap_or_else(|error| panic!("{what}, query {query}: {error}"));
    }
}

/// Every third item denied, and a list of its own for each of `n` queries.
fn exclusions(n_items: usize, n: usize) -> Exclusions {
    let list = |query: usize| (query as u32..n_items as u32).step_by(5);
    Exclusions {
        offsets: (0..=n).map(|end| (0..end).map(|query| list(query).count() as u32).sum()).collect(),
        positions: (0..n).flat_map(list).collect(),
        denied: Some(Arc::new(Bits::new(n_items, |position| position % 3 == 1))),
    }
}

/// Scans and rescoring by every scorer, on the GPU and on the CPU.
fn check_scorers(
    gpu: &Arc<rails_wgpu::backend::gpu::Gpu>,
    scorers: &[Scorer],
    (shape, (dtype, form)): (&Shape, (Dtype, Form)),
    limits: ScanLimits,
) {
    let n = 200;
    let case = Case::new(shape, (dtype, form), n, 3);
    let whole = case.on(gpu, limits);
    let cpu = CpuIndex::new(case.tables.clone(), Some(&case.similarity));
    let last = n as u32 - 1;
    let candidates: Vec<Vec<u32>> = vec![vec![last, 0, 64, 63, 111], vec![], (0..n as u32).rev().collect()];
    let (context, batch) = (SearchContext::default(), case.batch.prepared());
    for &scorer in scorers {
        let what = format!("{} logits, {dtype:?} {form:?} {scorer:?}", shape.p_q * shape.p_x);
        let scores = case.scores(scorer);
        for (k, excluded) in [(1, Exclusions::default()), (40, exclusions(n, 3)), (n, Exclusions::default())] {
            let hits = whole.scan(&context, scorer, &batch, k, &excluded).unwrap();
            check(&what, &scores, &excluded, k, &hits);
            assert_eq!(hits, whole.scan(&context, scorer, &batch, k, &excluded).unwrap(), "{what}: two runs differ");
            check("cpu", &scores, &excluded, k, &cpu.scan(&context, scorer, &batch, k, &excluded).unwrap());
        }
        if scorer != Scorer::Dot {
            let found = whole.rescore(&context, scorer, &batch, &candidates).unwrap();
            check_rescored(&what, &scores, &candidates, &found);
        }
    }
}

#[test]
fn every_scorer_follows_the_definition_in_every_format_and_form() {
    let Some(gpu) = gpu::shared() else { return };
    for (shape, stored) in variants() {
        let scorers = [Scorer::Mol, Scorer::Distilled, Scorer::Bound, Scorer::Dot];
        // Items that are components have no raw embeddings to multiply.
        let scorers = if shape.given { &scorers[..3] } else { &scorers };
        check_scorers(&gpu, scorers, (&shape, stored), small_chunks());
    }
}

/// Sections that overlap along query components and along item components; units and logits that are no multiple of four.
#[test]
fn more_logits_than_a_thread_holds_are_divided_among_several() {
    let Some(gpu) = gpu::shared() else { return };
    let limits = ScanLimits { thread_logits: Some(4), ..small_chunks() };
    let full = Shape { gating: GatingCombination::GluSiluLn, hidden: Some(6), p_q: 3, p_x: 3, ..Shape::default() };
    let bare = Shape { gating: GatingCombination::None, query_gate: None, ..full.clone() };
    check_scorers(&gpu, &[Scorer::Mol, Scorer::Bound], (&full, (Dtype::F32, Form::Components)), limits);
    check_scorers(&gpu, &[Scorer::Distilled], (&bare, (Dtype::I8, Form::Raw)), limits);
    let case = Case::new(&full, (Dtype::F32, Form::Components), 300, 2);
    let index = case.on(&gpu, ScanLimits { first_chunk: 64, ..limits });
    let (context, batch, none) = (SearchContext::default(), case.batch.prepared(), Exclusions::default());
    let expected = index.scan(&context, Scorer::Mol, &batch, 1, &none).unwrap();
    assert_eq!(index.scan_pruned(&context, &batch, 1, &none).unwrap().0, expected);
    let all = index.scan(&context, Scorer::Mol, &batch, 300, &none).unwrap();
    let positions: Vec<Vec<u32>> = all.iter().map(|hits| hits.iter().map(|hit| hit.position).collect()).collect();
    let rescored = index.rescore(&context, Scorer::Mol, &batch, &positions).unwrap();
    for (hits, rescored) in all.iter().zip(&rescored) {
        assert!(hits.iter().map(|hit| hit.score).eq(rescored.iter().copied()), "a scan and rescoring give other bits");
    }
}

#[test]
fn first_stages_follow_the_definition_in_every_format_and_form() {
    let Some(gpu) = gpu::shared() else { return };
    let n = 200;
    for (shape, (dtype, form)) in variants() {
        let case = Case::new(&shape, (dtype, form), n, 3);
        let index = case.on(&gpu, small_chunks());
        let cpu = CpuIndex::new(case.tables.clone(), Some(&case.similarity));
        for (columns, vectors) in case.columns() {
            let what = format!("{dtype:?} {form:?} {columns:?}");
            let scores = column_scores(&case.similarity.mol, &case.tables, &vectors, columns);
            let excluded = exclusions(n, vectors.rows());
            for (k, excluded) in [(7, &excluded), (n, &Exclusions::default())] {
                let hits = index.scan_components(&SearchContext::default(), &vectors, columns, k, excluded).unwrap();
                check(&what, &scores, excluded, k, &hits);
                check(
                    "cpu",
                    &scores,
                    excluded,
                    k,
                    &cpu.scan_components(&SearchContext::default(), &vectors, columns, k, excluded).unwrap(),
                );
            }
            // Thresholds that let all, some, and no item pass.
            let thresholds = [f32::NEG_INFINITY, -0.5, 0.0, 0.7, f32::INFINITY];
            let found = index.above(&SearchContext::default(), &vectors, columns, &thresholds, &excluded).unwrap();
            check_above(&what, &scores, &excluded, &thresholds, &found);
            let found = cpu.above(&SearchContext::default(), &vectors, columns, &thresholds, &excluded).unwrap();
            check_above("cpu", &scores, &excluded, &thresholds, &found);
        }
    }
}

/// The candidates of a retrieval, scan by scan, and their scores: best first.
fn retrieved_by_scans(index: &GpuIndex, case: &Case, retrieval: &Retrieval, excluded: &Exclusions) -> Hits {
    let context = SearchContext::default();
    let queries = case.batch.prepared();
    let mut lists = vec![Vec::new(); case.batch.len()];
    for scan in &retrieval.scans {
        let (hits, per_query) = match scan {
            CandidateScan::Best { vectors, columns, n, per_query } => {
                let excluded = excluded.repeated(case.batch.len(), *per_query);
                (index.scan_components(&context, vectors, *columns, *n, &excluded).unwrap(), *per_query)
            }
            CandidateScan::Above { vectors, columns, thresholds, .. } => {
                let found = index.above(&context, vectors, *columns, thresholds, excluded).unwrap();
                lists.iter_mut().zip(found).for_each(|(list, found)| list.extend(found));
                continue;
            }
            CandidateScan::Distilled { n } => {
                (index.scan(&context, Scorer::Distilled, &queries, *n, excluded).unwrap(), 1)
            }
            CandidateScan::Lists { .. } | CandidateScan::Tokens { .. } | CandidateScan::Centroids { .. } => {
                panic!("not of these tables")
            }
        };
        for (list, hits) in lists.iter_mut().zip(hits.chunks(per_query)) {
            list.extend(hits.iter().flatten().map(|hit| hit.position));
        }
    }
    let sorted = |scorer, lists: &mut Vec<Vec<u32>>| -> Hits {
        lists.iter_mut().for_each(|list| list.sort_unstable());
        lists.iter_mut().for_each(|list| list.dedup());
        let scores = index.rescore(&context, scorer, &queries, lists).unwrap();
        let best = |(list, scores): (&Vec<u32>, Vec<f32>)| {
            let pairs = list.iter().zip(scores);
            let mut hits: Vec<_> = pairs.map(|(&position, score)| ScoredPosition { position, score }).collect();
            hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.position.cmp(&b.position)));
            hits
        };
        lists.iter().zip(scores).map(best).collect()
    };
    if let Some(n) = retrieval.distilled {
        let judged = sorted(Scorer::Distilled, &mut lists);
        lists = judged.iter().map(|hits| hits.iter().take(n).map(|hit| hit.position).collect()).collect();
    }
    sorted(Scorer::Mol, &mut lists)
}

#[test]
fn a_retrieval_is_what_its_scans_find_whatever_the_limits() {
    let Some(gpu) = gpu::shared() else { return };
    let timed = gpu.info().features.iter().any(|feature| feature == "timestamp-query");
    let n_items = 2000;
    for stored in [(Dtype::F32, Form::Components), (Dtype::I8, Form::Raw)] {
        let case = Case::new(&Shape::default(), stored, n_items, 5);
        let config = &case.similarity.mol.config;
        let (p_q, p_x, d_p) =
            (config.query_dot_product_groups, config.item_dot_product_groups, config.dot_product_dimension);
        let mut random = Random::new(23);
        let mut vectors = |n: usize, width: usize| random.tensor(&[n, width], 1.0);
        let best = |vectors, columns, n, per_query| CandidateScan::Best { vectors, columns, n, per_query };
        let groups = vectors(5 * p_q, d_p);
        let naive: Vec<_> = (0..p_x).map(|m| best(groups.clone(), Columns::Group(m), 20, p_q)).collect();
        let mean = best(vectors(5, d_p), Columns::Mean, 60, 1);
        let all = best(vectors(5, p_x * d_p), Columns::All, 90, 1);
        let above = CandidateScan::Above {
            vectors: vectors(5, d_p),
            columns: Columns::Mean,
            thresholds: vec![0.4, 0.5, f32::INFINITY, 0.3, 0.6],
            expected: 900,
        };
        let retrievals = [
            (vec![mean.clone()], None),
            (naive.iter().cloned().chain([mean]).collect(), None),
            (vec![all], Some(30)),
            (vec![CandidateScan::Distilled { n: 50 }], None),
            (vec![above], None),
        ];
        let sampled = ScanLimits { sampled_items: 64, ..ScanLimits::default() };
        let reference = case.on(&gpu, ScanLimits::default());
        // Tiny ones take a long time: in one format only.
        let tiny = (stored.0 == Dtype::I8).then(|| ("tiny", tiny()));
        for (what, limits) in [("default", ScanLimits::default()), ("sampled", sampled)].into_iter().chain(tiny) {
            let index = case.on(&gpu, limits);
            for (scans, distilled) in &retrievals {
                let retrieval = Retrieval { scans: scans.clone(), distilled: *distilled };
                for (k, keep, excluded) in [(12, false, Exclusions::default()), (12, true, exclusions(n_items, 5))] {
                    let expected = retrieved_by_scans(&reference, &case, &retrieval, &excluded);
                    let queries = case.batch.prepared();
                    let (found, kernels) = profiled(|context| {
                        index.retrieve(context, &retrieval, &[], &queries, (k, keep), &excluded).unwrap()
                    });
                    let what = format!("{stored:?}, {what}, keep {keep}: {retrieval:?}");
                    let found = found.unwrap_or_else(|| panic!("not in one go: {what}"));
                    for (found, expected) in found.iter().zip(&expected) {
                        assert_eq!(found.hits, expected[..k.min(expected.len())], "{what}");
                        assert_eq!((found.n_candidates, found.n_scored), (expected.len(), expected.len()), "{what}");
                        let mut positions: Vec<u32> = expected.iter().map(|hit| hit.position).collect();
                        positions.sort_unstable();
                        assert!(found.candidates == if keep { positions } else { vec![] }, "{what}");
                    }
                    let has_sample = kernels.iter().any(|kernel| kernel.kernel == "take_threshold");
                    let chunks = matches!(scans[0], CandidateScan::Above { .. }) || limits != sampled;
                    assert!(!timed || has_sample != chunks, "{what}");
                }
            }
        }
    }
}

#[test]
fn borders_of_shards_slices_and_submissions_do_not_show_in_any_question() {
    let Some(gpu) = gpu::shared() else { return };
    let n = 1000;
    for (dtype, form) in [(Dtype::I8, Form::Components), (Dtype::F16, Form::Raw)] {
        let case = Case::new(&Shape::default(), (dtype, form), n, 9);
        let (whole, pieces) = (case.on(&gpu, ScanLimits::default()), case.on(&gpu, tiny()));
        let excluded = exclusions(n, 9);
        for k in [1, 100, n] {
            for scorer in [Scorer::Mol, Scorer::Distilled, Scorer::Bound, Scorer::Dot] {
                let expected =
                    whole.scan(&SearchContext::default(), scorer, &case.batch.prepared(), k, &excluded).unwrap();
                assert!(
                    pieces.scan(&SearchContext::default(), scorer, &case.batch.prepared(), k, &excluded).unwrap()
                        == expected,
                    "{dtype:?} {scorer:?} {k}"
                );
            }
            let expected =
                whole.scan(&SearchContext::default(), Scorer::Mol, &case.batch.prepared(), k, &excluded).unwrap();
            assert!(
                pieces.scan_pruned(&SearchContext::default(), &case.batch.prepared(), k, &excluded).unwrap().0
                    == expected,
                "{dtype:?} pruned {k}"
            );
        }
        let candidates: Vec<Vec<u32>> = (0..9).map(|q| (q..n as u32).step_by(7).rev().collect()).collect();
        for scorer in [Scorer::Mol, Scorer::Distilled, Scorer::Bound] {
            let expected =
                whole.rescore(&SearchContext::default(), scorer, &case.batch.prepared(), &candidates).unwrap();
            assert!(
                pieces.rescore(&SearchContext::default(), scorer, &case.batch.prepared(), &candidates).unwrap()
                    == expected,
                "{dtype:?} {scorer:?}"
            );
        }
        for (columns, vectors) in case.columns() {
            let excluded = exclusions(n, vectors.rows());
            let expected = whole.scan_components(&SearchContext::default(), &vectors, columns, 100, &excluded).unwrap();
            assert!(
                pieces.scan_components(&SearchContext::default(), &vectors, columns, 100, &excluded).unwrap()
                    == expected,
                "{columns:?}"
            );
            let thresholds = [f32::NEG_INFINITY, -0.5, 0.0, 0.7, f32::INFINITY];
            let expected = whole.above(&SearchContext::default(), &vectors, columns, &thresholds, &excluded).unwrap();
            let counts: Vec<usize> = expected.iter().map(Vec::len).collect();
            assert!(counts[0] > 500 && counts[4] == 0, "{counts:?}");
            assert!(
                pieces.above(&SearchContext::default(), &vectors, columns, &thresholds, &excluded).unwrap() == expected,
                "{columns:?}"
            );
        }
        assert_eq!(whole.bytes(), pieces.bytes());
    }
}

#[test]
fn smaller_formats_take_less_memory() {
    let Some(gpu) = gpu::shared() else { return };
    let bytes = |dtype, form| Case::new(&Shape::default(), (dtype, form), 640, 1).on(&gpu, tiny()).bytes();
    // Quads per item: raw 2, components 3 * 2, gate 2, mean 2; scales 1 + 3 + 1 + 1.
    assert_eq!(bytes(Dtype::F32, Form::Components), 640 * 12 * 16);
    assert_eq!(bytes(Dtype::F16, Form::Components), 640 * 12 * 8);
    assert_eq!(bytes(Dtype::I8, Form::Components), 640 * (12 + 6) * 4);
    // Raw 2, gate 2, mean 2, norms 1 or 2 or 3; scales 1 + 1 + 1; 9 of raw form are 10, so that two belong to one item.
    assert_eq!(bytes(Dtype::F32, Form::Raw), 640 * (6 + 1) * 16);
    assert_eq!(bytes(Dtype::F16, Form::Raw), 640 * (6 + 2) * 8);
    assert_eq!(bytes(Dtype::I8, Form::Raw), 640 * (6 + 3 + 3 + 1) * 4);
}

#[test]
fn pruning_changes_no_bit_and_counts_what_it_leaves_out() {
    let Some(gpu) = gpu::shared() else { return };
    let n = 2000;
    // One query per thread, two, and four with places left over.
    for (n_queries, k) in [(1, 1), (2, 20), (3, 1), (9, 5)] {
        let case = Case::new(&Shape::default(), (Dtype::F32, Form::Components), n, n_queries);
        let index = case.on(&gpu, ScanLimits { first_chunk: 64, ..ScanLimits::default() });
        for excluded in [Exclusions::default(), exclusions(n, n_queries)] {
            let expected =
                index.scan(&SearchContext::default(), Scorer::Mol, &case.batch.prepared(), k, &excluded).unwrap();
            let (hits, pruned) =
                index.scan_pruned(&SearchContext::default(), &case.batch.prepared(), k, &excluded).unwrap();
            assert!(hits == expected, "B = {n_queries}, k = {k}");
            assert_eq!(
                index.scan_pruned(&SearchContext::default(), &case.batch.prepared(), k, &excluded).unwrap(),
                (hits, pruned),
                "two runs differ"
            );
            // A pair may be left out only if its bound does not exceed the k-th score of the end.
            let bounds = mol_scores(Scorer::Bound, &case.similarity, &case.tables, &case.batch);
            let below = |query: usize| {
                let kth = f64::from(expected[query].last().unwrap().score);
                bounds[query].iter().filter(|bound| bound.value - bound.error <= kth).count() as u64
            };
            let most: u64 = (0..n_queries).map(below).sum();
            assert!(pruned <= most, "B = {n_queries}, k = {k}: {pruned} of {most}");
            // The first chunk is never pruned, and a thread waits for all of its queries.
            assert!(pruned > most / 20, "B = {n_queries}, k = {k}: {pruned} of {most}");
        }
    }
}

#[test]
fn pruning_leaves_out_everything_behind_a_clear_winner() {
    let Some(gpu) = gpu::shared() else { return };
    // One component, scores are inner products: item 0 is far better than the others.
    let shape = Shape { p_q: 1, p_x: 1, l2_norm: false, uid_sizes: vec![], ..Shape::default() };
    let n = 1000;
    let mut case = Case::new(&shape, (Dtype::F32, Form::Components), n, 3);
    let mut items = vec![0.0; n * DIM];
    items[0] = 1.0;
    let Mol { item: Some(item), query: Some(query), .. } = &mut case.similarity.mol else { panic!("no projections") };
    item.output.bias = None;
    let projected: Vec<f32> = item.output.weight.row(0).to_vec();
    query.output.weight = Tensor::new(vec![DIM, projected.len()], vec![0.0; DIM * projected.len()]).unwrap();
    query.output.bias = Some(Tensor::new(vec![projected.len()], projected).unwrap());
    let items = Tensor::new(vec![n, DIM], items).unwrap();
    let tables =
        item_tables(&Cpu::default(), &items, Some(&case.similarity.mol), Dtype::F32, Form::Components).unwrap();
    case.tables = Arc::new(tables);
    let index = case.on(&gpu, ScanLimits { first_chunk: 64, ..ScanLimits::default() });
    let (hits, pruned) =
        index.scan_pruned(&SearchContext::default(), &case.batch.prepared(), 1, &Exclusions::default()).unwrap();
    assert!(hits.iter().all(|hits| hits[0].position == 0));
    assert_eq!(pruned, 3 * (n as u64 - 64), "all but the first chunk, for each query");
}

/// Lists of 0, 1, 64, 65, ... items, in no order.
fn lists(case: &Case, columns: Columns, width: usize) -> Lists {
    let n = case.tables.len();
    let assigned: Vec<u32> =
        (0..n).map(|i| [5, 1, 2, 2, 3, 3, 3, 3, 3, 3][i * 7 % 10] + u32::from(i == 13) * 2).collect();
    Lists::new(columns, Random::new(5).tensor(&[9, width], 1.0), &assigned, &case.tables)
}

#[test]
fn inverted_lists_follow_the_definition() {
    let Some(gpu) = gpu::shared() else { return };
    let n = 700;
    for dtype in DTYPES {
        let mut case = Case::new(&Shape::default(), (dtype, Form::Components), n, 1);
        let made = [(Columns::Group(1), 6), (Columns::All, 18)].map(|(columns, width)| lists(&case, columns, width));
        Arc::get_mut(&mut case.tables).unwrap().lists.extend(made);
        let (whole, pieces) = (case.on(&gpu, ScanLimits::default()), case.on(&gpu, tiny()));
        let cpu = CpuIndex::new(case.tables.clone(), Some(&case.similarity));
        for (number, made) in case.tables.lists.iter().enumerate() {
            let vectors = Random::new(3).tensor(&[6, made.centroids.width()], 1.0);
            let probes = vec![vec![3], vec![2, 0, 1], vec![], vec![8, 7, 6, 5, 4, 3, 2, 1, 0], vec![4], vec![5, 3]];
            let by_row = scores_of(&vectors, &made.vectors);
            let mut scores = by_row.clone();
            for (by_row, scores) in by_row.iter().zip(&mut scores) {
                made.positions.iter().zip(by_row).for_each(|(&position, &score)| scores[position as usize] = score);
            }
            for (k, own) in [(1, Exclusions::default()), (30, exclusions(n, 6)), (n, exclusions(n, 6))] {
                // What a vector does not probe is as good as excluded.
                let mut excluded = Exclusions { offsets: vec![0], positions: vec![], denied: None };
                for (v, probes) in probes.iter().enumerate() {
                    let probed = |position: u32| {
                        let holds = |&list: &u32| made.positions[made.list(list)].binary_search(&position).is_ok();
                        probes.iter().any(holds)
                    };
                    let shut = (0..n as u32).filter(|&p| own.excludes(v, p) || !probed(p));
                    excluded.positions.extend(shut);
                    excluded.offsets.push(excluded.positions.len() as u32);
                }
                let what = format!("{dtype:?} {:?}", made.columns);
                let hits = whole.scan_lists(&SearchContext::default(), number, &vectors, &probes, k, &own).unwrap();
                check(&what, &scores, &excluded, k, &hits);
                check(
                    "cpu",
                    &scores,
                    &excluded,
                    k,
                    &cpu.scan_lists(&SearchContext::default(), number, &vectors, &probes, k, &own).unwrap(),
                );
                assert!(
                    whole.scan_lists(&SearchContext::default(), number, &vectors, &probes, k, &own).unwrap() == hits,
                    "two runs differ"
                );
                assert!(
                    pieces.scan_lists(&SearchContext::default(), number, &vectors, &probes, k, &own).unwrap() == hits,
                    "{what}: borders show"
                );
            }
        }
    }
}

#[test]
fn equal_scores_of_different_lists_are_ordered_by_position() {
    let Some(gpu) = gpu::shared() else { return };
    let n = 640;
    let mut case = Case::new(&Shape::default(), (Dtype::F32, Form::Components), n, 1);
    let items = Tensor::new(vec![n, DIM], case.batch.embeddings.row(0).repeat(n)).unwrap();
    let mol = &case.similarity.mol;
    case.tables = Arc::new(item_tables(&Cpu::default(), &items, Some(mol), Dtype::F32, Form::Components).unwrap());
    // The last positions come first.
    let assigned: Vec<u32> = (0..n as u32).map(|i| 9 - i / 64).collect();
    let made = Lists::new(Columns::Group(0), Random::new(5).tensor(&[10, 6], 1.0), &assigned, &case.tables);
    Arc::get_mut(&mut case.tables).unwrap().lists.push(made);
    let vectors = Random::new(3).tensor(&[2, 6], 1.0);
    for limits in [tiny(), ScanLimits::default()] {
        let index = case.on(&gpu, limits);
        for k in [1, 65, n] {
            let probes = vec![(0..10).collect::<Vec<u32>>(); 2];
            for hits in
                index.scan_lists(&SearchContext::default(), 0, &vectors, &probes, k, &Exclusions::default()).unwrap()
            {
                assert!(hits.iter().map(|hit| hit.position).eq(0..k as u32), "k = {k}");
            }
        }
    }
}

#[test]
fn thresholds_are_met_by_equal_scores() {
    let Some(gpu) = gpu::shared() else { return };
    // Whole numbers have no rounding: component d_p = 1 without a norm is the item itself.
    let shape = Shape { p_q: 1, p_x: 1, d_p: 1, l2_norm: false, uid_sizes: vec![], ..Shape::default() };
    let mut case = Case::new(&shape, (Dtype::F32, Form::Components), 1, 1);
    let output = &mut case.similarity.mol.item.as_mut().unwrap().output;
    output.weight = Tensor::new(vec![DIM, 1], (0..DIM).map(|d| if d == 0 { 1.0 } else { 0.0 }).collect()).unwrap();
    output.bias = None;
    let n = 500;
    let rows = (0..n).flat_map(|i| (0..DIM).map(move |d| if d == 0 { (i % 10) as f32 - 5.0 } else { 0.0 }));
    let items = Tensor::new(vec![n, DIM], rows.collect()).unwrap();
    let mol = &case.similarity.mol;
    case.tables = Arc::new(item_tables(&Cpu::default(), &items, Some(mol), Dtype::F32, Form::Components).unwrap());
    let vectors = Tensor::new(vec![5, 1], vec![1.0, 1.0, 1.0, -1.0, 0.0]).unwrap();
    let thresholds = [4.0, 4.000_001, -0.0, 5.0, 0.0];
    // Chunks, and so hit lists, of one tile: what passes has to be collected chunk by chunk.
    let one_tile = ScanLimits { dispatch_flops: 0, ..tiny() };
    for limits in [tiny(), one_tile, ScanLimits::default()] {
        let index = case.on(&gpu, limits);
        let found = index
            .above(&SearchContext::default(), &vectors, Columns::Group(0), &thresholds, &Exclusions::default())
            .unwrap();
        assert!(found[0].iter().copied().eq((0..n as u32).filter(|i| i % 10 == 9)));
        assert!(found[1].is_empty());
        assert!(found[2].iter().copied().eq((0..n as u32).filter(|i| i % 10 >= 5)));
        assert!(found[3].iter().copied().eq((0..n as u32).filter(|i| i % 10 == 0)));
        assert!(found[4].iter().copied().eq(0..n as u32));
    }
}

#[test]
fn what_an_index_lacks_is_told() {
    let Some(gpu) = gpu::shared() else { return };
    let mut case = Case::new(&Shape::default(), (Dtype::F32, Form::Components), 10, 2);
    case.similarity.distilled = None;
    let index = case.on(&gpu, ScanLimits::default());
    let none = Exclusions::default();
    let error = index
        .scan(&SearchContext::default(), Scorer::Distilled, &case.batch.prepared(), 1, &none)
        .unwrap_err()
        .to_string();
    assert!(error.contains("distilled gate"), "{error}");
    let error = index
        .rescore(&SearchContext::default(), Scorer::Distilled, &case.batch.prepared(), &[vec![0], vec![]])
        .unwrap_err()
        .to_string();
    assert!(error.contains("distilled gate"), "{error}");
    let error = index
        .rescore(&SearchContext::default(), Scorer::Dot, &case.batch.prepared(), &[vec![0], vec![]])
        .unwrap_err()
        .to_string();
    assert!(error.contains("inner products"), "{error}");
    let vectors = Random::new(1).tensor(&[2, 6], 1.0);
    let error = index
        .scan_lists(&SearchContext::default(), 0, &vectors, &[vec![0], vec![0]], 1, &none)
        .unwrap_err()
        .to_string();
    assert!(error.contains("one of 0"), "{error}");
    let error = index
        .scan_components(&SearchContext::default(), &vectors, Columns::Group(3), 1, &none)
        .unwrap_err()
        .to_string();
    assert!(error.contains("0..3"), "{error}");
    let error = index
        .above(&SearchContext::default(), &vectors, Columns::Mean, &[0.0, f32::NAN], &none)
        .unwrap_err()
        .to_string();
    assert!(error.contains("2 numbers"), "{error}");
    let short = Exclusions { denied: Some(Arc::new(Bits::new(40, |_| false))), ..Exclusions::default() };
    let error =
        index.scan(&SearchContext::default(), Scorer::Mol, &case.batch.prepared(), 1, &short).unwrap_err().to_string();
    assert!(error.contains("bits of 10 items"), "{error}");
}

#[test]
fn the_comparators_reject_wrong_answers() {
    let scores: Vec<Num> = [3.0, 5.0, 1.0, 5.0].into_iter().map(|value| Num { value, error: 1e-6 }).collect();
    let accepts = |shut: &[u32], positions: &[u32]| compare_above(&scores, shut, 3.0, positions).is_ok();
    assert!(accepts(&[], &[0, 1, 3]));
    assert!(accepts(&[], &[1, 3]), "within the bound");
    assert!(accepts(&[1], &[0, 3]));
    assert!(!accepts(&[], &[0, 1]), "one is missing");
    assert!(!accepts(&[], &[0, 1, 2, 3]), "one too many");
    assert!(!accepts(&[1], &[0, 1, 3]), "excluded");
    assert!(!accepts(&[], &[0, 3, 1]), "wrong order");
    assert!(!accepts(&[], &[0, 1, 1, 3]), "the same twice");
    assert!(!accepts(&[], &[0, 1, 3, 4]), "unknown");
    // A Mixture-of-Logits by other weights is told apart, and so are other columns.
    let case = Case::new(&Shape::default(), (Dtype::F32, Form::Components), 100, 2);
    let (mol, distilled) = (case.scores(Scorer::Mol), case.scores(Scorer::Distilled));
    let cpu = CpuIndex::new(case.tables.clone(), Some(&case.similarity));
    let hits =
        cpu.scan(&SearchContext::default(), Scorer::Mol, &case.batch.prepared(), 5, &Exclusions::default()).unwrap();
    assert!(compare(&mol[0], &[], 5, &hits[0]).is_ok() && compare(&distilled[0], &[], 5, &hits[0]).is_err());
    let (_, vectors) = case.columns().remove(0);
    let scores = |columns| column_scores(&case.similarity.mol, &case.tables, &vectors, columns);
    let hits =
        cpu.scan_components(&SearchContext::default(), &vectors, Columns::Group(1), 5, &Exclusions::default()).unwrap();
    assert!(compare(&scores(Columns::Group(1))[0], &[], 5, &hits[0]).is_ok());
    assert!(compare(&scores(Columns::Group(0))[0], &[], 5, &hits[0]).is_err());
}
