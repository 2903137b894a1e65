//! Searches that nobody waits for any more end soon, and leave everything as it was. Work is counted, time is not.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::backends::backends;
use crate::common::models::{Random, Shape};
use crate::common::spy::{SpiedBackend, Spy};
use rails_wgpu::Error;
use rails_wgpu::backend::{Backend, DeviceKind, QueryBatch, Similarity};
use rails_wgpu::index::{IndexOptions, ItemIndex};
use rails_wgpu::search::{Algorithm, Answer, Cancel, Request, Searcher};

const DIM: usize = 6;
const SEGMENTS: usize = 24;

/// An index of so many segments, each of which is a piece of work.
fn searcher(backend: &Arc<dyn Backend>, spy: &Arc<Spy>) -> (Arc<Searcher>, QueryBatch) {
    let mut random = Random::new(3);
    let shape = Shape { uid_sizes: vec![], ..Shape::default() };
    let mol = shape.mol(&mut random, DIM);
    let n = SEGMENTS * 40;
    let items = random.tensor(&[n, DIM], 1.0);
    let ids: Vec<u64> = (0..n as u64).collect();
    let spied: Arc<dyn Backend> = Arc::new(SpiedBackend { inner: backend.clone(), spy: spy.clone() });
    let options = IndexOptions::default().with_segment_items(40);
    let similarity = Some(Similarity { mol, distilled: None });
    let index = ItemIndex::build(&[spied], &ids, &items, similarity, options).unwrap();
    assert_eq!(index.snapshot().segments().len(), SEGMENTS);
    let queries = QueryBatch::new(random.tensor(&[3, DIM], 1.0));
    (Arc::new(Searcher::new(index)), queries)
}

/// A spy that stops before piece number `at`, says so, and goes on when it is told to; later pieces just pass.
fn stopping(at: usize) -> (Arc<Spy>, Receiver<()>, Sender<()>) {
    let (stopped, stops) = channel();
    let (go, going) = channel();
    let ends = Mutex::new((stopped, going));
    let spy = Spy::new(move |piece| {
        if piece == at {
            let ends = ends.lock().unwrap();
            ends.0.send(()).unwrap();
            let _: Result<(), _> = ends.1.recv();
        }
    });
    (spy, stops, go)
}

/// Waits until the worker has let go of the searcher.
fn wait_for_the_worker(searcher: &Arc<Searcher>) {
    let started = Instant::now();
    while Arc::strong_count(searcher) > 1 {
        assert!(started.elapsed() < Duration::from_secs(60), "the worker does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn dropping_the_future_ends_the_search() {
    for backend in backends() {
        let (spy, stops, go) = stopping(2);
        let (searcher, queries) = searcher(&backend, &spy);
        let future = searcher.search_async(Algorithm::Exact, queries.clone(), 20, vec![]);
        stops.recv().unwrap();
        drop(future);
        go.send(()).unwrap();
        wait_for_the_worker(&searcher);
        assert_eq!(spy.begun(), 2, "of {SEGMENTS} segments");
        // A GPU is handed nothing any more; a CPU goes through its segment without looking at it.
        let by_itself = usize::from(backend.info().kind != DeviceKind::Cpu);
        assert_eq!(spy.given_up(), by_itself, "{}", backend.info().name);

        let expected = searcher.search(Algorithm::Exact, &queries, 20, &[]).unwrap();
        assert_eq!(spy.begun(), 2 + SEGMENTS, "a whole search looks at every segment");
        let again = searcher.search_async(Algorithm::Exact, queries, 20, vec![]);
        assert_eq!(futures::executor::block_on(again).unwrap(), expected);
    }
}

/// In whatever stage: no piece of work is begun after the one in which the search is cancelled.
#[test]
fn a_cancelled_request_says_so_and_ends() {
    for backend in backends() {
        for algorithm in [
            Algorithm::Exact,
            Algorithm::ExactPruned,
            Algorithm::Mips,
            Algorithm::Avg { candidates: 60 },
            Algorithm::HIndexer { candidates: 60 },
            Algorithm::Tangent { candidates: 60 },
        ] {
            let (cancel, at) = (Arc::new(Mutex::new(Cancel::new())), Arc::new(Mutex::new(usize::MAX)));
            let spy = {
                let (cancel, at) = (cancel.clone(), at.clone());
                Spy::new(move |piece| {
                    if piece == *at.lock().unwrap() {
                        cancel.lock().unwrap().cancel();
                    }
                })
            };
            let (searcher, queries) = searcher(&backend, &spy);
            let answer = |cancel: &Cancel| -> rails_wgpu::Result<Answer> {
                let request = Request::new(algorithm, 20).with_certify(true).with_cancel(cancel);
                searcher.answer(&queries, &request)
            };
            let whole = answer(&Cancel::new()).unwrap();
            let pieces = spy.begun();
            assert!(pieces >= SEGMENTS, "{algorithm}: {pieces}");
            for piece in [1, SEGMENTS / 2, pieces - 1, pieces] {
                *cancel.lock().unwrap() = Cancel::new();
                *at.lock().unwrap() = spy.begun() + piece;
                let (before, now) = (spy.begun(), cancel.lock().unwrap().clone());
                let error = answer(&now).unwrap_err();
                assert!(matches!(error, Error::Cancelled), "{algorithm}: {error}");
                assert_eq!(spy.begun() - before, piece, "{algorithm}");
            }
            let before = spy.begun();
            assert!(matches!(answer(&cancel.lock().unwrap()), Err(Error::Cancelled)), "cancelled before it began");
            assert_eq!(spy.begun(), before);
            let again = answer(&Cancel::new()).unwrap();
            assert_eq!((again.hits, again.certificates), (whole.hits, whole.certificates));
        }
    }
}
