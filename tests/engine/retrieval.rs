//! What approximate searches share: the query side, computed once, and what a GPU does in one submission.

use std::sync::{Arc, OnceLock};

use crate::common::backends::backends;
use crate::common::models::{Random, Shape};
use crate::common::spy::{SpiedBackend, Spy};
use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::backend::{Backend, DeviceKind, Dtype, QueryBatch, Similarity};
use rails_wgpu::index::{Filter, IndexOptions, ItemIndex, ListOptions};
use rails_wgpu::search::{Algorithm, Answer, Hit, Request, Searcher};
use rails_wgpu::tables::Form;
use rails_wgpu::tensor::Tensor;

const DIM: usize = 6;
const N: usize = 300;

/// Items, queries, and a similarity that has learned from them.
fn case() -> &'static (Tensor, QueryBatch, Similarity) {
    static CASE: OnceLock<(Tensor, QueryBatch, Similarity)> = OnceLock::new();
    CASE.get_or_init(|| {
        let mut random = Random::new(5);
        let mol = Shape { uid_sizes: vec![], ..Shape::default() }.mol(&mut random, DIM);
        let items = random.tensor(&[N, DIM], 1.0);
        let queries = QueryBatch::new(random.tensor(&[5, DIM], 1.0));
        let cpu: Arc<dyn Backend> = Arc::new(Cpu::default());
        let index = build(&[cpu], &items, Similarity { mol, distilled: None }, IndexOptions::default());
        index.distill(&queries).unwrap();
        let similarity = index.snapshot().similarity().unwrap().clone();
        (items, queries, similarity)
    })
}

fn build(devices: &[Arc<dyn Backend>], items: &Tensor, similarity: Similarity, options: IndexOptions) -> ItemIndex {
    let ids: Vec<u64> = (0..items.rows() as u64).collect();
    ItemIndex::build(devices, &ids, items, Some(similarity), options).unwrap()
}

fn spied(inner: &Arc<dyn Backend>, spy: &Arc<Spy>) -> Arc<dyn Backend> {
    Arc::new(SpiedBackend { inner: inner.clone(), spy: spy.clone() })
}

#[test]
fn the_query_side_is_computed_once_per_batch_and_device() {
    let (items, queries, similarity) = case();
    let devices = backends();
    // Each device by itself, then all of them together.
    let single = devices.iter().map(|device| vec![device.clone()]);
    for devices in single.chain([devices.clone()]) {
        let gpus = devices.iter().filter(|device| device.info().kind != DeviceKind::Cpu).count();
        for (form, segment_items) in [(Form::Components, 60), (Form::Raw, 60), (Form::Components, N)] {
            let spy = Spy::new(|_| ());
            let spied: Vec<_> = devices.iter().map(|inner| spied(inner, &spy)).collect();
            let options = IndexOptions::default().with_segment_items(segment_items).with_form(form);
            let searcher = Searcher::new(build(&spied, items, similarity.clone(), options));
            for name in [
                "exact",
                "exact-pruned",
                "naive:9",
                "avg:40",
                "comb:9_40",
                "h-indexer:60",
                "tangent:40",
                "tangent-sampled:40",
                "distilled:40",
                "cascade:80_40",
            ] {
                spy.query_sides();
                let algorithm: Algorithm = name.parse().unwrap();
                searcher.answer(queries, &Request::new(algorithm, 10).with_certify(true)).unwrap();
                // First stages are prepared on the host, which counts as the CPU whether a segment is there or not.
                let host = usize::from(gpus < devices.len() || !name.starts_with("exact"));
                let what = format!("{name}, {form:?}, {segment_items} items, {} devices", devices.len());
                assert_eq!(spy.query_sides(), [gpus + host], "{what}");
            }
        }
    }
}

/// An index on a GPU that is asked for everything in one go, or scan by scan.
struct OnGpu {
    searcher: Searcher,
    spy: Arc<Spy>,
}

impl OnGpu {
    fn new(items: &Tensor, options: IndexOptions) -> Option<OnGpu> {
        let gpu = backends().into_iter().find(|device| device.info().kind != DeviceKind::Cpu)?;
        let spy = Spy::new(|_| ());
        let index = build(&[spied(&gpu, &spy)], items, case().2.clone(), options);
        let searcher = Searcher::new(index);
        // Tables and samples are there from the first search on.
        searcher.search(Algorithm::Avg { candidates: 9 }, &case().1, 3, &[]).unwrap();
        Some(OnGpu { searcher, spy })
    }

    /// The answer in one go; that of a search scan by scan is the same to the bit.
    fn answer(&self, queries: &QueryBatch, request: &Request) -> Answer {
        let answer = self.searcher.answer(queries, request).unwrap();
        self.spy.set_scan_by_scan(true);
        let expected = self.searcher.answer(queries, request).unwrap();
        self.spy.set_scan_by_scan(false);
        assert_eq!(answer.hits, expected.hits, "{}", request.algorithm);
        assert_eq!(answer.certificates, expected.certificates, "{}", request.algorithm);
        assert_eq!(answer.stats.candidates, expected.stats.candidates, "{}", request.algorithm);
        // Several segments score more than is left of their candidates.
        if answer.stats.submissions <= 2 && self.searcher.index().snapshot().segments().len() == 1 {
            let counts = |answer: &Answer| (answer.stats.pairs, answer.stats.bytes_read);
            assert_eq!(counts(&answer), counts(&expected), "{}", request.algorithm);
        }
        assert!(expected.stats.readbacks >= 2, "{}: {:?}", request.algorithm, expected.stats);
        answer
    }
}

#[test]
fn a_batch_is_one_submission_and_one_readback_on_a_gpu() {
    let (items, queries, _) = case();
    let seen: Vec<Vec<u64>> = (0..5).map(|query| (0..30 * query).map(|i| (7 * i) % N as u64).collect()).collect();
    let seen: Vec<&[u64]> = seen.iter().map(Vec::as_slice).collect();
    let filter = Filter::deny((0..N as u64).filter(|id| id % 5 == 2).collect());
    for (dtype, form) in [(Dtype::F32, Form::Components), (Dtype::I8, Form::Raw)] {
        let Some(gpu) = OnGpu::new(items, IndexOptions::from(dtype).with_form(form)) else { return };
        for name in [
            "naive:9",
            "avg:40",
            "comb:9_40",
            "h-indexer:60",
            "tangent:40",
            "tangent-sampled:40",
            "distilled:40",
            "cascade:80_40",
        ] {
            let request = Request::new(name.parse().unwrap(), 10);
            let stats = gpu.answer(queries, &request).stats;
            assert_eq!((stats.submissions, stats.readbacks), (1, 1), "{name}");
            let request = request.with_excluded(&seen).with_filter(&filter);
            let stats = gpu.answer(queries, &request).stats;
            assert_eq!((stats.submissions, stats.readbacks), (1, 1), "{name}, with exclusions");
            // The scan for certificates is one more of each.
            let stats = gpu.answer(queries, &request.with_certify(true)).stats;
            assert_eq!((stats.submissions, stats.readbacks), (2, 2), "{name}, certified");
        }
    }
}

#[test]
fn a_batch_is_one_submission_and_one_readback_for_each_segment_on_a_gpu() {
    let (items, queries, _) = case();
    let seen: Vec<Vec<u64>> = (0..5).map(|query| (0..30 * query).map(|i| (7 * i) % N as u64).collect()).collect();
    let seen: Vec<&[u64]> = seen.iter().map(Vec::as_slice).collect();
    let lists = ListOptions::new(6);
    for (segment_items, options) in [
        // Lists are few here: the last segment, of 30 items, has some as well.
        (90, IndexOptions::default().with_lists(lists)),
        (N, IndexOptions::from(Dtype::I8).with_lists(lists)),
        (120, IndexOptions::from(Dtype::F16).with_form(Form::Raw)),
    ] {
        let Some(gpu) = OnGpu::new(items, options.with_segment_items(segment_items)) else { return };
        let segments = N.div_ceil(segment_items) as u64;
        // Items that are gone are denied, in one segment here.
        gpu.searcher.index().remove(&[3, 4, 5]).unwrap();
        for name in [
            "naive:9",
            "naive-ivf:9@2",
            "avg:40",
            "comb:9_40",
            "h-indexer:60",
            "tangent:40",
            "tangent-ivf:40@3",
            "tangent-sampled:40",
            "distilled:40",
            "cascade:80_40",
        ] {
            let what = format!("{name}, {segments} segments");
            let request = Request::new(name.parse().unwrap(), 10);
            let stats = gpu.answer(queries, &request).stats;
            assert_eq!((stats.submissions, stats.readbacks), (segments, segments), "{what}");
            let request = request.with_excluded(&seen).with_certify(true);
            let stats = gpu.answer(queries, &request).stats;
            assert_eq!((stats.submissions, stats.readbacks), (2 * segments, 2 * segments), "{what}, certified");
        }
    }
}

/// Where the distilled gate prefers items that are no candidates of the index, others have to be scored afterwards.
#[test]
fn candidates_that_a_segment_has_not_scored_are_scored_afterwards() {
    let items = &case().0;
    let Some(gpu) = OnGpu::new(items, IndexOptions::default().with_segment_items(60)) else { return };
    // Far from those that the gate has learned from.
    let queries = QueryBatch::new(Random::new(17).tensor(&[60, DIM], 3.0));
    let answer = gpu.answer(&queries, &Request::new(Algorithm::Cascade { tangent: 6, distilled: 1 }, 1));
    assert_eq!(answer.stats.candidates, 60);
    // Each of the 5 segments has scored the best by the gate of its own 6 best.
    let more = answer.stats.pairs - 60 * 5;
    assert!(more > 0 && more < 60, "{:?}", answer.stats);
    assert!(answer.stats.submissions > 5, "{:?}", answer.stats);
}

/// Equal scores are in the order of ids, which is not that of the segments.
#[test]
fn ties_of_segments_are_told_by_ids() {
    let (items, queries, _) = case();
    let Some(gpu) = OnGpu::new(items, IndexOptions::default()) else { return };
    // Items 0 to 139 become those of 160 to 299, in a segment behind these.
    let ids: Vec<u64> = (0..140).collect();
    gpu.searcher.index().add(&ids, &items.select_rows(&(160..N).collect::<Vec<_>>())).unwrap();
    assert_eq!(gpu.searcher.index().snapshot().segments().len(), 2);
    for name in ["naive:5", "avg:15", "tangent:15", "distilled:15", "cascade:25_15"] {
        let answer = gpu.answer(queries, &Request::new(name.parse().unwrap(), 9));
        let stats = answer.stats;
        assert_eq!((stats.submissions, stats.readbacks), (2, 2), "{name}");
        let tied =
            |hits: &[Hit]| hits.windows(2).any(|pair| pair[0].score == pair[1].score && pair[0].id + 160 == pair[1].id);
        assert!(answer.hits.iter().all(|hits| tied(hits)), "{name}");
    }
}

#[test]
fn queries_that_find_too_few_ask_again_by_themselves() {
    let (items, queries, _) = case();
    let Some(gpu) = OnGpu::new(items, IndexOptions::default()) else { return };
    // 3, 6 and 12 candidates for 10 hits; all but 4 items excluded for one query, which has them at once.
    let answer = gpu.answer(queries, &Request::new(Algorithm::Avg { candidates: 3 }, 10));
    assert!(answer.hits.iter().all(|hits| hits.len() == 10));
    assert_eq!((answer.stats.submissions, answer.stats.readbacks), (3, 3));
    assert_eq!((answer.stats.candidates, answer.stats.pairs), (5 * 12, 5 * (3 + 6 + 12)));
    let most: Vec<u64> = (0..N as u64 - 4).collect();
    let excluded: [&[u64]; 5] = [&most, &[], &[], &[], &[]];
    let answer = gpu.answer(queries, &Request::new(Algorithm::Avg { candidates: 10 }, 10).with_excluded(&excluded));
    assert_eq!((answer.hits[0].len(), answer.stats.submissions, answer.stats.candidates), (4, 1, 4 + 4 * 10));
}

#[test]
fn more_candidates_than_there_is_room_for_go_scan_by_scan() {
    let (_, queries, _) = case();
    // Items that are all the same meet any threshold that one of them meets.
    let row = [0.3, -0.1, 0.2, 0.5, -0.4, 0.6];
    let n = 1500;
    let items = Tensor::new([n, DIM], row.repeat(n)).unwrap();
    let Some(gpu) = OnGpu::new(&items, IndexOptions::default()) else { return };
    let answer = gpu.answer(queries, &Request::new(Algorithm::HIndexer { candidates: 20 }, 5));
    assert_eq!(answer.stats.candidates, 5 * n as u64);
    assert!(answer.stats.submissions > 1);
    assert!(answer.hits.iter().all(|hits| hits.iter().map(|hit| hit.id).eq(0..5)));
}
