//! Batches that overlap on a GPU: the same results, in the same order, as one after the other, and errors where they belong.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::common::backends::backends;
use crate::common::demo::Demo;
use rails_wgpu::backend::{Backend, DeviceKind, QueryBatch};
use rails_wgpu::eval::{Evaluator, Protocol};
use rails_wgpu::index::IndexOptions;
use rails_wgpu::search::{Algorithm, Cancel, Hit, Request, Searcher, pipelined};
use rails_wgpu::tensor::Tensor;
use rails_wgpu::{Error, Result};

const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::Exact, Algorithm::Avg { candidates: 60 }, Algorithm::TangentSampled { candidates: 60 }];

fn searcher(demo: &Demo, backend: &Arc<dyn Backend>) -> Searcher {
    let options = IndexOptions::default().with_segment_items(400);
    let builder = Searcher::builder().model(&demo.model, &demo.item_ids).backend(backend.clone());
    builder.options(options).build().unwrap()
}

/// Batches of different sizes.
fn batches(queries: &QueryBatch) -> Vec<QueryBatch> {
    let batch = |rows: Vec<usize>| queries.select(&rows);
    [0..7, 7..8, 8..40, 40..41, 41..60, 60..96].map(|rows| batch(rows.collect())).to_vec()
}

#[test]
fn overlapping_searches_find_what_single_ones_find() {
    let demo = Demo::load().unwrap();
    for backend in backends() {
        let searcher = searcher(&demo, &backend);
        let expected_depth = if backend.info().kind == DeviceKind::Cpu { 1 } else { 2 };
        assert_eq!(searcher.in_flight(), expected_depth);
        let batches = batches(&demo.queries(backend.as_ref()).unwrap());
        for algorithm in ALGORITHMS {
            let search = |batch: &QueryBatch| searcher.search(algorithm, batch, 10, &[]);
            let one_by_one: Vec<Vec<Vec<Hit>>> = batches.iter().map(|batch| search(batch).unwrap()).collect();
            for depth in [1, 2, 3] {
                let mut found = Vec::new();
                let collect = |hits| {
                    found.push(hits);
                    Ok(())
                };
                pipelined(depth, &batches, search, collect).unwrap();
                assert!(found == one_by_one, "{} {algorithm}, depth {depth}", backend.info().name);
            }
        }
    }
}

#[test]
fn an_error_or_a_cancelled_batch_ends_it_there() {
    let demo = Demo::load().unwrap();
    for backend in backends() {
        let searcher = searcher(&demo, &backend);
        let mut batches = batches(&demo.queries(backend.as_ref()).unwrap());
        batches[3].embeddings = Tensor::new(vec![1, 3], vec![0.0; 3]).unwrap();
        let mut handed_over = 0;
        let search = |batch: &QueryBatch| searcher.search(Algorithm::Exact, batch, 10, &[]);
        let count = |_| {
            handed_over += 1;
            Ok(())
        };
        let error = pipelined(2, &batches, search, count).unwrap_err();
        assert!(matches!(error, Error::Argument { .. }), "{error}");
        assert_eq!(handed_over, 3);

        let (cancel, mut handed_over) = (Cancel::new(), 0);
        let request = Request::new(Algorithm::Exact, 10).with_cancel(&cancel);
        let stop_after_two = |_| -> Result<()> {
            handed_over += 1;
            if handed_over == 2 {
                cancel.cancel();
            }
            Ok(())
        };
        batches.truncate(3);
        let many = batches.iter().cycle().take(60);
        let ended = pipelined(2, many, |batch| searcher.answer(batch, &request), stop_after_two);
        assert!(matches!(ended, Err(Error::Cancelled)));
        // What was done already when it was cancelled may still come.
        assert!((2..=4).contains(&handed_over), "{handed_over}");
        assert!(search(&batches[0]).is_ok(), "the device goes on");
    }
}

#[test]
fn an_evaluation_does_not_depend_on_what_overlaps() {
    let demo = Demo::load().unwrap();
    for backend in backends() {
        let searcher = searcher(&demo, &backend);
        let ranks = |batch_size: usize| {
            let evaluator =
                Evaluator { searcher: &searcher, conditions: &[], protocol: Protocol::Strict, k: 50, batch_size };
            let mut progress = Vec::new();
            let evaluations = evaluator
                .run(&ALGORITHMS, &demo.dataset.sequences, |done| {
                    progress.push(done);
                    ControlFlow::Continue(())
                })
                .unwrap();
            let expected: Vec<usize> = (1..=96usize.div_ceil(batch_size)).map(|i| 96.min(i * batch_size)).collect();
            assert_eq!(progress, expected);
            let numbers = |quality: &rails_wgpu::metrics::Quality| {
                [quality.hit_rate(1), quality.hit_rate(10), quality.ndcg(50), quality.mrr(), quality.len() as f64]
            };
            evaluations.iter().map(|evaluation| numbers(&evaluation.quality)).collect::<Vec<_>>()
        };
        // A single batch has nothing to overlap with.
        assert_eq!(ranks(13), ranks(96), "{}", backend.info().name);
    }
}
