//! What a search tells about itself: counts, times, kernels, log lines.

use std::sync::Mutex;
use std::time::Duration;

use crate::common::backends::backends;
use crate::common::models::{Random, Shape};
use rails_wgpu::TokenEmbeddings;
use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::backend::{Backend, DeviceKind, Dtype, QueryBatch};
use rails_wgpu::index::{IndexOptions, ItemIndex, ListOptions};
use rails_wgpu::search::{Algorithm, Answer, Request, ScoreFusion, Searcher, Stage};

const DIM: usize = 6;
const N: usize = 300;

/// P_Q = 2, P_X = 3, D_P = 6 and an item gate: L = 6.
fn searcher(backend: &dyn Backend, dtype: Dtype) -> (Searcher, QueryBatch) {
    let mut random = Random::new(4);
    let mol = Shape { uid_sizes: vec![], ..Shape::default() }.mol(&mut random, DIM);
    let (ids, items): (Vec<u64>, _) = ((0..N as u64).collect(), random.tensor(&[N, DIM], 1.0));
    let lists = Some(ListOptions::new(4));
    let options = IndexOptions::from(dtype).with_lists(lists);
    let index = ItemIndex::from_embeddings(backend, &ids, &items, Some(&mol), options).unwrap();
    (Searcher::new(index), QueryBatch::new(random.tensor(&[2, DIM], 1.0)))
}

fn answer(searcher: &Searcher, queries: &QueryBatch, algorithm: Algorithm, profile: bool) -> Answer {
    searcher.answer(queries, &Request::new(algorithm, 10).with_profile(profile)).unwrap()
}

#[test]
fn pairs_candidates_and_bytes_are_those_of_the_definition() {
    for backend in backends() {
        for (dtype, size) in [(Dtype::F32, 4), (Dtype::F16, 2)] {
            let (searcher, queries) = searcher(backend.as_ref(), dtype);
            let stats = |algorithm| answer(&searcher, &queries, algorithm, false).stats;
            let pair = (3 * 6 + 6) * size;

            let exact = stats(Algorithm::Exact);
            assert_eq!((exact.pairs, exact.candidates, exact.pruned), (600, 0, 0));
            assert_eq!(exact.bytes_read, 300 * pair, "components and item gate of every item");
            let pruned = stats(Algorithm::ExactPruned);
            assert_eq!((pruned.pairs + pruned.pruned, pruned.bytes_read), (600, 300 * pair));
            assert_eq!(stats(Algorithm::Mips).bytes_read, 300 * 6 * size, "raw embeddings");

            let avg = stats(Algorithm::Avg { candidates: 40 });
            assert_eq!((avg.pairs, avg.candidates), (80, 80));
            assert_eq!(avg.bytes_read, 300 * 6 * size + 80 * pair, "means, then the candidates");
            let naive = stats(Algorithm::Naive { per_group: 15 });
            assert_eq!(naive.bytes_read, 300 * 3 * 6 * size + naive.pairs * pair, "each component once");
            let all_lists = stats(Algorithm::NaiveIvf { per_group: 15, n_probe: 4 });
            assert_eq!(all_lists.bytes_read, naive.bytes_read);
            let one_list = stats(Algorithm::NaiveIvf { per_group: 15, n_probe: 1 });
            assert!(one_list.bytes_read - one_list.pairs * pair < 300 * 3 * 6 * size);
            for algorithm in [Algorithm::Exact, Algorithm::Avg { candidates: 40 }] {
                let stats = stats(algorithm);
                let stages: Duration = Stage::ALL.iter().map(|&stage| stats.time(stage)).sum();
                assert!(stages <= stats.total && stats.scoring > Duration::ZERO, "{stats:?}");
                assert_eq!(stats.first_stage > Duration::ZERO, algorithm != Algorithm::Exact);
            }
        }
    }
}

#[test]
fn kernels_are_timed_when_asked_for_and_results_stay() {
    for backend in backends() {
        let (searcher, queries) = searcher(backend.as_ref(), Dtype::F32);
        let gpu = backend.info().kind != DeviceKind::Cpu;
        let timed = gpu && backend.info().features.iter().any(|feature| feature == "timestamp-query");
        for algorithm in [Algorithm::Exact, Algorithm::Avg { candidates: 40 }] {
            let plain = answer(&searcher, &queries, algorithm, false);
            let profiled = answer(&searcher, &queries, algorithm, true);
            assert_eq!((&profiled.hits, profiled.stats.pairs), (&plain.hits, plain.stats.pairs));
            assert!(plain.kernels.is_empty());
            assert_eq!(!profiled.kernels.is_empty(), timed, "{}", backend.info().name);
            if timed {
                let of_stage = |stage| profiled.kernels.iter().filter(move |kernel| kernel.stage == stage);
                assert!(of_stage(Stage::Scoring).any(|kernel| kernel.time > Duration::ZERO), "{:?}", profiled.kernels);
                assert_eq!(of_stage(Stage::FirstStage).count() > 0, algorithm != Algorithm::Exact);
                let device: Duration = profiled.kernels.iter().map(|kernel| kernel.time).sum();
                assert!(device <= profiled.stats.total, "{device:?} of {:?}", profiled.stats.total);
                let scans = of_stage(Stage::Scoring).map(|kernel| kernel.dispatches).sum::<u32>();
                assert!(scans > 0 && profiled.kernels.iter().all(|kernel| kernel.dispatches > 0));
            }
        }
    }
}

/// Keeps the lines of the thread that wants them.
struct Lines(Mutex<Vec<String>>);

static LINES: Lines = Lines(Mutex::new(Vec::new()));

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        if record.target() == "rails_wgpu::search" && std::thread::current().name() == Some(LOGGED) {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

const LOGGED: &str = "a_search_is_one_line_and_one_per_stage";

#[test]
fn a_search_is_one_line_and_one_per_stage() {
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Debug);
    // Tests may be run in threads of any name.
    let logged = std::thread::Builder::new().name(LOGGED.to_string()).spawn(|| {
        let (searcher, queries) = searcher(&Cpu::default(), Dtype::F32);
        LINES.0.lock().unwrap().clear();
        answer(&searcher, &queries, Algorithm::Avg { candidates: 40 }, false);
        let lines = std::mem::take(&mut *LINES.0.lock().unwrap());
        let stages = ["query-side", "first-stage", "scoring", "selection"];
        assert_eq!(lines.len(), stages.len() + 1, "{lines:#?}");
        for (line, stage) in lines.iter().zip(stages) {
            assert!(line.starts_with(&format!("stage={stage} ms=")), "{line}");
        }
        let expected = "search algorithm=avg:40 batch=2 k=10 pairs=80 pruned=0 candidates=80 bytes=14880 ms=";
        assert!(lines[4].starts_with(expected), "{}", lines[4]);

        let refused = searcher.search(Algorithm::Exact, &queries, 0, &[]);
        assert!(refused.is_err());
        let lines = std::mem::take(&mut *LINES.0.lock().unwrap());
        assert!(lines.len() == 1 && lines[0].contains("error=\"k: expected at least 1"), "{lines:?}");

        // Items with scores of the caller's are scored in a stage of that name.
        let scores = [&[(3, 0.5)][..], &[]];
        let request = Request::new(Algorithm::Exact, 10).with_fusion(ScoreFusion::new(1.0, &scores));
        searcher.answer(&queries, &request).unwrap();
        let lines = std::mem::take(&mut *LINES.0.lock().unwrap());
        let stages: Vec<&str> =
            lines.iter().filter_map(|line| line.strip_prefix("stage=")?.split(' ').next()).collect();
        assert_eq!(stages, ["scoring", "selection", "scoring", "selection"]);

        // What is missing is said after a search that wanted it, not after one that was refused.
        let notices = |searcher: &Searcher, queries: &QueryBatch, algorithm: &str| -> Vec<String> {
            let _ = searcher.search(algorithm.parse().unwrap(), queries, 1, &[]);
            let lines = std::mem::take(&mut *LINES.0.lock().unwrap());
            lines.into_iter().filter(|line| line.contains("the index has no")).collect()
        };
        let vectors = Random::new(6).tensor(&[4, DIM], 1.0);
        let dot = Searcher::builder().embeddings(&[1, 2, 3, 4], &vectors).device("cpu").build().unwrap();
        assert!(notices(&dot, &queries, "naive-ivf:2@1").is_empty());
        let tokens = TokenEmbeddings::new(vectors, &[1, 3]).unwrap();
        let texts = Searcher::builder().token_embeddings(&[1, 2], &tokens).device("cpu").build().unwrap();
        let queries = QueryBatch::of_tokens(tokens);
        assert!(notices(&texts, &queries, "naive-ivf:2@1").is_empty());
        let said = notices(&texts, &queries, "centroids:1");
        assert!(said.len() == 1 && said[0].contains("the index has no centroids"), "{said:?}");
        assert!(notices(&texts, &queries, "centroids:1").is_empty(), "said once");
    });
    logged.unwrap().join().unwrap();
}
