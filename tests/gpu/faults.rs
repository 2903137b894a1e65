//! Devices that are lost or have no memory left: errors in words, no panic, no hang, and a way on.

use crate::common::gpu;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::demo::Demo;
use crate::common::models::{Random, Shape};
use rails_wgpu::Error;
use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::backend::gpu::{Gpu, GpuBackend};
use rails_wgpu::backend::{Backend, Dtype, QueryBatch, Similarity};
use rails_wgpu::index::{IndexModel, IndexOptions, ItemIndex, ItemSource};
use rails_wgpu::model::Mol;
use rails_wgpu::search::{Algorithm, Hit, Searcher};
use rails_wgpu::sequence::{History, SequenceBatch};
use rails_wgpu::tensor::Tensor;

const DIM: usize = 6;

/// A device of its own for a test that breaks it.
fn opened() -> Option<(Arc<Gpu>, Arc<dyn Backend>)> {
    let gpu = Gpu::open(&gpu::adapter()?).unwrap();
    Some((gpu.clone(), Arc::new(GpuBackend::new(gpu))))
}

struct Case {
    mol: Mol<Tensor>,
    ids: Vec<u64>,
    items: Tensor,
    queries: QueryBatch,
}

fn case(n: usize) -> Case {
    let mut random = Random::new(6);
    let mol = Shape { uid_sizes: vec![], ..Shape::default() }.mol(&mut random, DIM);
    let queries = QueryBatch::new(random.tensor(&[2, DIM], 1.0));
    Case { mol, ids: (0..n as u64).collect(), items: random.tensor(&[n, DIM], 1.0), queries }
}

impl Case {
    fn index(&self, backend: &Arc<dyn Backend>, options: IndexOptions) -> rails_wgpu::Result<ItemIndex> {
        let similarity = Some(Similarity { mol: self.mol.clone(), distilled: None });
        ItemIndex::build(std::slice::from_ref(backend), &self.ids, &self.items, similarity, options)
    }
}

fn assert_lost<T>(what: &str, result: rails_wgpu::Result<T>) {
    let Err(error) = result else { panic!("{what} worked on a lost device") };
    let text = error.to_string();
    assert!(matches!(error, Error::Device { .. }) && text.contains("lost") && text.contains("move"), "{what}: {text}");
}

fn ids(hits: &[Vec<Hit>]) -> Vec<Vec<u64>> {
    hits.iter().map(|hits| hits.iter().map(|hit| hit.id).collect()).collect()
}

#[test]
fn after_a_loss_everything_says_so_and_the_index_moves_on() {
    let Some((gpu, backend)) = opened() else { return };
    let case = case(200);
    let options = IndexOptions::default().with_segment_items(128);
    let searcher = Arc::new(Searcher::new(case.index(&backend, options.clone()).unwrap()));
    let Demo { model, .. } = Demo::load().unwrap();
    let encoder = backend.encoder(&model.encoder).unwrap();
    let history = History { user_id: 1, item_ids: &[3, 5], timestamps: &[10, 20], now: 30 };
    let batch = SequenceBatch::new(&[history], &model.config, model.n_item_rows()).unwrap();
    let embeddings = encoder.encode(&batch).unwrap();
    let algorithms = [
        Algorithm::Exact,
        Algorithm::ExactPruned,
        Algorithm::Mips,
        Algorithm::Avg { candidates: 50 },
        Algorithm::HIndexer { candidates: 50 },
        Algorithm::Tangent { candidates: 50 },
    ];
    let search = |algorithm| searcher.search(algorithm, &case.queries, 10, &[]);
    let before: Vec<_> = algorithms.iter().map(|&algorithm| search(algorithm).unwrap()).collect();

    gpu.device().destroy();
    for algorithm in algorithms {
        assert_lost(&algorithm.to_string(), search(algorithm));
    }
    let pending = searcher.search_async(Algorithm::Exact, case.queries.clone(), 10, vec![]);
    assert_lost("an asynchronous search", futures::executor::block_on(pending));
    assert_lost("candidates", searcher.candidates(Algorithm::Avg { candidates: 9 }, &case.queries, &[]));
    assert_lost("encoding", encoder.encode(&batch));
    assert_lost("another encoder", backend.encoder(&model.encoder));
    assert_lost("another index", case.index(&backend, options));
    let version = searcher.index().snapshot().version();
    assert_lost("adding", searcher.index().add(&[900], &Tensor::new(vec![1, DIM], vec![0.5; DIM]).unwrap()));
    assert_eq!((searcher.index().snapshot().version(), searcher.index().len()), (version, 200), "nothing has changed");
    assert_lost("moving to itself", searcher.index().move_to(&[backend]));

    let (_, new) = opened().unwrap();
    searcher.index().move_to(std::slice::from_ref(&new)).unwrap();
    for (algorithm, before) in algorithms.iter().zip(&before) {
        assert_eq!(&search(*algorithm).unwrap(), before, "{algorithm}");
    }
    searcher.index().add(&[900], &Tensor::new(vec![1, DIM], vec![0.5; DIM]).unwrap()).unwrap();
    assert_eq!(searcher.index().remove(&[900]).unwrap(), 1);
    assert_eq!(&search(Algorithm::Exact).unwrap(), &before[0]);
    assert_eq!(new.encoder(&model.encoder).unwrap().encode(&batch).unwrap().data(), embeddings.data());
    // Where there is no other GPU, the CPU does; and several devices do as well.
    searcher.index().move_to(&[Arc::new(Cpu::default())]).unwrap();
    assert_eq!(ids(&search(Algorithm::Exact).unwrap()), ids(&before[0]));
    searcher.index().move_to(&[Arc::new(Cpu::default()), new]).unwrap();
    assert_eq!(ids(&search(Algorithm::Exact).unwrap()), ids(&before[0]));
    assert!(searcher.index().move_to(&[]).unwrap_err().to_string().contains("at least one device"));
}

#[test]
fn an_index_of_a_folder_moves_and_stays_in_its_folder() {
    let Some((gpu, backend)) = opened() else { return };
    let case = case(150);
    let folder = tempfile::tempdir().unwrap();
    let model = IndexModel::similarity(Similarity { mol: case.mol.clone(), distilled: None });
    let source = ItemSource::of_embeddings(case.ids.clone(), case.items.clone());
    let options = IndexOptions::default();
    let index = ItemIndex::create(folder.path().join("index"), &[backend], model, options, source).unwrap();
    let searcher = Searcher::new(index);
    let before = searcher.search(Algorithm::Exact, &case.queries, 10, &[]).unwrap();
    gpu.device().destroy();
    assert_lost("a search", searcher.search(Algorithm::Exact, &case.queries, 10, &[]));
    searcher.index().move_to(&[opened().unwrap().1]).unwrap();
    assert_eq!(searcher.search(Algorithm::Exact, &case.queries, 10, &[]).unwrap(), before);
    let gone = before[0][0].id;
    assert_eq!(searcher.index().remove(&[gone]).unwrap(), 1);
    let cpu: Arc<dyn Backend> = Arc::new(Cpu::default());
    let again = ItemIndex::open(folder.path().join("index"), &[cpu], Default::default()).unwrap();
    assert_eq!((again.len(), again.contains(gone)), (149, false), "changes still reach the folder");
}

/// Threads search without end; what they find is right or an error, and they recover without being told.
#[test]
fn threads_survive_a_loss_and_go_on_when_the_index_has_moved() {
    let Some((gpu, backend)) = opened() else { return };
    let case = case(100);
    let searcher = Searcher::new(case.index(&backend, IndexOptions::default()).unwrap());
    let expected = searcher.search(Algorithm::Exact, &case.queries, 5, &[]).unwrap();
    const THREADS: usize = 8;
    let (found, lost) = ([0; THREADS].map(AtomicUsize::new), [0; THREADS].map(AtomicUsize::new));
    let end = AtomicBool::new(false);
    let all = |counts: &[AtomicUsize; THREADS], more: usize| {
        let (started, before) = (Instant::now(), counts.each_ref().map(|count| count.load(Ordering::Relaxed)));
        while !counts.iter().zip(before).all(|(count, before)| count.load(Ordering::Relaxed) >= before + more) {
            assert!(started.elapsed() < Duration::from_secs(60), "a thread hangs, or has failed");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    std::thread::scope(|scope| {
        // Ends the threads even where the test fails.
        let _end = EndOnDrop(&end);
        for thread in 0..THREADS {
            let (found, lost) = (&found[thread], &lost[thread]);
            let (searcher, case, expected, end) = (&searcher, &case, &expected, &end);
            scope.spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    match searcher.search(Algorithm::Exact, &case.queries, 5, &[]) {
                        Ok(hits) => {
                            assert_eq!(&hits, expected);
                            found.fetch_add(1, Ordering::Relaxed);
                        }
                        error => {
                            assert_lost("a search", error);
                            lost.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        all(&found, 2);
        gpu.device().destroy();
        all(&lost, 2);
        searcher.index().move_to(&[opened().unwrap().1]).unwrap();
        all(&found, 2);
    });
}

struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// 40,000 items of 6 + 18 + 6 + 6 numbers in four segments: far more than what the work on them takes.
#[test]
fn an_index_that_does_not_fit_says_what_to_do_and_that_helps() {
    let Some((gpu, backend)) = opened() else { return };
    let case = case(40_000);
    let cut =
        |dtype, device_memory| IndexOptions::from(dtype).with_segment_items(10_000).with_device_memory(device_memory);
    let search = |index| Searcher::new(index).search(Algorithm::Exact, &case.queries, 10, &[]);
    let empty = gpu.memory_in_use();
    let whole = case.index(&backend, cut(Dtype::F32, None)).unwrap();
    let tables = whole.bytes();
    assert!(gpu.memory_in_use() >= empty + tables);
    let expected = search(whole).unwrap();
    let kept = gpu.memory_in_use();
    assert!(kept < empty + tables, "the tables are gone with their index: {kept} of {tables} bytes");

    let limit = empty + tables * 3 / 4;
    gpu.limit_memory(Some(limit));
    let error = case.index(&backend, cut(Dtype::F32, None)).map(|_| ()).unwrap_err();
    let text = error.to_string();
    let Error::OutOfMemory { need, in_use, limit: Some(allowed), .. } = error else { panic!("{text}") };
    assert!(need > 0 && in_use <= limit && need + in_use > limit && allowed == limit, "{text}");
    for word in ["device_memory", "f16", "int8", &need.to_string(), &in_use.to_string(), &limit.to_string()] {
        assert!(text.contains(word), "`{word}` is not in {text}");
    }
    assert!(gpu.memory_in_use() <= kept, "what failed has given back what it had");

    // What the error says helps.
    let streamed = case.index(&backend, cut(Dtype::F32, Some(tables / 4))).unwrap();
    assert_eq!(search(streamed).unwrap(), expected);
    let halved = case.index(&backend, cut(Dtype::F16, None)).unwrap();
    assert!(halved.bytes() < tables * 3 / 4 && search(halved).is_ok());
    assert!(gpu.memory_in_use() <= limit);
    gpu.limit_memory(None);
    assert_eq!(search(case.index(&backend, cut(Dtype::F32, None)).unwrap()).unwrap(), expected);
}

#[test]
fn searches_of_many_threads_without_memory_are_errors_and_come_back() {
    let Some((gpu, backend)) = opened() else { return };
    let case = case(300);
    let searcher = Searcher::new(case.index(&backend, IndexOptions::default()).unwrap());
    let search = || searcher.search(Algorithm::Exact, &case.queries, 5, &[]);
    let expected = search().unwrap();
    // Nothing beyond the tables.
    gpu.limit_memory(Some(1));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    // Buffers that are kept for later still serve the first ones.
                    match search() {
                        Ok(hits) => assert_eq!(hits, expected),
                        Err(error) => assert!(matches!(error, Error::OutOfMemory { .. }), "{error}"),
                    }
                }
            });
        }
    });
    assert!(matches!(search(), Err(Error::OutOfMemory { limit: Some(1), .. })));
    gpu.limit_memory(None);
    assert_eq!(search().unwrap(), expected);
}
