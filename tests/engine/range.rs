//! Numbers at the ends of the range of floats: what cannot be scored is refused by name, and everything else is scored.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::backends::backends;
use crate::common::compare::compare;
use crate::common::models::{Random, Shape};
use crate::common::mol::{dot_scores, scores};
use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::backend::{
    Backend, DeviceIndex, DeviceInfo, DeviceKind, Dtype, QueryBatch, QueryEncoder, ScoredPosition, SearchContext,
    Similarity,
};
use rails_wgpu::config::GatingCombination;
use rails_wgpu::index::{IndexModel, IndexOptions, ItemIndex, ItemSource, ListOptions};
use rails_wgpu::model::{Encoder, Mol, TokenPooling};
use rails_wgpu::search::{Algorithm, Cancel, Request, Searcher};
use rails_wgpu::tables::{Form, ItemSide, Tables};
use rails_wgpu::tensor::Tensor;
use rails_wgpu::{Error, Result, TokenEmbeddings};

const DIM: usize = 6;
const N: usize = 40;

const ALGORITHMS: [&str; 13] = [
    "exact",
    "exact-pruned",
    "mips",
    "naive:2",
    "naive-ivf:2@1",
    "avg:3",
    "comb:2_3",
    "h-indexer:3",
    "tangent:3",
    "tangent-sampled:3",
    "tangent-ivf:3@1",
    "distilled:3",
    "cascade:4_3",
];

fn ids() -> Vec<u64> {
    (100..100 + N as u64).collect()
}

/// Row `row` times `factor`.
fn enlarged(tensor: &Tensor, row: usize, factor: f32) -> Tensor {
    let width = tensor.width();
    let scaled = |(i, x): (usize, &f32)| if i / width == row { x * factor } else { *x };
    Tensor::new(tensor.shape(), tensor.data().iter().enumerate().map(scaled).collect()).unwrap()
}

fn batch(random: &mut Random, n: usize) -> QueryBatch {
    QueryBatch::new(random.tensor(&[n, DIM], 1.0))
}

fn options() -> IndexOptions {
    IndexOptions::default().with_segment_items(16).with_lists(ListOptions::new(4))
}

fn gated() -> Shape {
    Shape { query_glu: Some(5), item_glu: Some(5), uid_sizes: vec![], ..Shape::default() }
}

#[test]
fn what_cannot_be_scored_is_refused_by_name_wherever_it_comes_in() {
    let mut random = Random::new(1);
    let (mol, items) = (gated().mol(&mut random, DIM), random.tensor(&[N, DIM], 1.0));
    let queries = batch(&mut random, 3);
    for backend in backends() {
        let backends = [backend.share()];
        let build = |items: &Tensor| ItemIndex::from_embeddings(backend.as_ref(), &ids(), items, Some(&mol), options());
        let index = build(&items).unwrap();
        index.distill(&batch(&mut random, 8)).unwrap();
        let searcher = Searcher::new(index);
        for factor in [1e20, 1e25, 1e30, 1e38] {
            let names = |error: Option<Error>, what: &[&str]| {
                let error = error.map(|error| error.to_string()).unwrap_or_default();
                assert!(what.iter().all(|what| error.contains(what)), "{factor:e}: {error}");
            };
            let large = enlarged(&queries.embeddings, 1, factor);
            let large = QueryBatch::new(large);
            let query = ["query embeddings", "row 1", "may reach"];
            for algorithm in ALGORITHMS {
                let algorithm: Algorithm = algorithm.parse().unwrap();
                let request = Request::new(algorithm, 3).with_certify(true);
                names(searcher.answer(&large, &request).err(), &query);
                names(searcher.candidates(algorithm, &large, &[]).err(), &query);
            }
            names(searcher.rescore(&large, &[&[100], &[101], &[102]]).err(), &query);
            names(searcher.index().distill(&large).err(), &query);

            let large = enlarged(&items, 7, factor);
            let item = ["item embeddings", "id 107", "may reach"];
            names(build(&large).err(), &item);
            names(searcher.index().add(&ids(), &large).err(), &item);
            let source = || ItemSource::of_embeddings(ids(), large.clone());
            names(searcher.index().add_all(source()).err(), &item);
            let model = IndexModel::similarity(Similarity { mol: mol.clone(), distilled: None });
            let folder = tempfile::tempdir().unwrap();
            names(ItemIndex::create(folder.path(), &backends, model, options(), source()).err(), &item);
            let dot = ItemIndex::from_embeddings(backend.as_ref(), &ids(), &large, None, options_of_dot());
            names(dot.err(), &item);
        }
        assert_eq!(searcher.search(Algorithm::Exact, &queries, N, &[]).unwrap()[1].len(), N, "nothing has changed");
    }
}

fn options_of_dot() -> IndexOptions {
    options().with_lists(None)
}

/// Whatever is accepted is scored as the definition says, by every algorithm, on every backend, in every form.
#[test]
fn what_is_accepted_is_scored() {
    let shapes = [
        Shape { uid_sizes: vec![], ..Shape::default() },
        gated(),
        Shape { gating: GatingCombination::GluSiluLn, ..gated() },
        Shape { l2_norm: false, gating: GatingCombination::GluSiluLn, uid_sizes: vec![], ..Shape::default() },
        Shape { l2_norm: false, ..gated() },
        Shape { l2_norm: false, gating: GatingCombination::None, uid_sizes: vec![], ..Shape::default() },
    ];
    let (mut accepted, mut largest) = ([0; 2], 0.0f32);
    for backend in backends() {
        // Each shape takes a GPU some kernels of its own.
        let every = if backend.info().kind == DeviceKind::Cpu { 1 } else { 2 };
        for (seed, shape) in shapes.iter().enumerate().step_by(every) {
            let mut random = Random::new(seed as u64);
            let (mol, items) = (shape.mol(&mut random, DIM), random.tensor(&[N, DIM], 1.0));
            let (queries, learned_from) = (batch(&mut random, 2), batch(&mut random, 4));
            for exponent in [6, 9, 18, 19] {
                let (factor, small) = (10f32.powi(exponent), 1.0);
                for (of_items, of_queries) in [(factor, small), (small, factor), (factor, factor)] {
                    let items = enlarged(&items, 5, of_items);
                    let form = if exponent % 2 == 1 && shape.item_glu.is_none() { Form::Raw } else { Form::Components };
                    let lists = options().lists.filter(|_| form == Form::Components);
                    let options = options().with_form(form).with_lists(lists);
                    let index = ItemIndex::from_embeddings(backend.as_ref(), &ids(), &items, Some(&mol), options);
                    let Ok(index) = index else { continue };
                    accepted[0] += 1;
                    index.distill(&learned_from).unwrap();
                    let large = enlarged(&queries.embeddings, 1, of_queries);
                    let queries = QueryBatch::new(large);
                    let searcher = Searcher::new(index);
                    let Ok(exact) = searcher.search(Algorithm::Exact, &queries, N, &[]) else { continue };
                    accepted[1] += 1;
                    largest = largest.max(factor);
                    for (scores, hits) in scores(&mol, &items, &queries, |x| x).iter().zip(&exact) {
                        let hit = |hit: &rails_wgpu::search::Hit| ScoredPosition {
                            position: (hit.id - 100) as u32,
                            score: hit.score,
                        };
                        let hits: Vec<ScoredPosition> = hits.iter().map(hit).collect();
                        compare(scores, &[], N, &hits).unwrap_or_else(|what| panic!("{shape:?} 1e{exponent}: {what}"));
                    }
                    for algorithm in ALGORITHMS {
                        let hits = searcher.search(algorithm.parse().unwrap(), &queries, N, &[]);
                        let hits = hits.unwrap_or_else(|error| panic!("{algorithm} {shape:?} 1e{exponent}: {error}"));
                        assert!(hits.iter().all(|hits| hits.len() == N), "{algorithm}");
                        assert!(algorithm == "mips" || hits == exact, "{algorithm} {shape:?} 1e{exponent}");
                    }
                }
            }
        }
    }
    assert!(accepted[0] > 30 && accepted[1] > 20 && largest >= 1e18, "{accepted:?}, up to {largest:e}");
}

#[test]
fn inner_products_of_accepted_vectors_are_finite_and_right() {
    for backend in backends() {
        for dtype in [Dtype::F32, Dtype::I8] {
            // A norm of 8.2e18; squares are exact.
            let large = 5.0 * 2f32.powi(60);
            let items = Tensor::from_rows([[large, large], [-large, large], [1.0, 0.0]]);
            let index = ItemIndex::from_embeddings(backend.as_ref(), &[1, 2, 3], &items, None, dtype).unwrap();
            let queries = QueryBatch::new(Tensor::from_rows([[large; 2]]));
            let hits = Searcher::new(index).search(Algorithm::Exact, &queries, 3, &[]).unwrap().remove(0);
            let expected = &dot_scores(&items, &queries, |x| x)[0];
            assert_eq!(hits.iter().map(|hit| hit.id).collect::<Vec<_>>(), [1, 3, 2], "{dtype:?}");
            for hit in hits {
                let expected = expected[hit.id as usize - 1].value as f32;
                assert!((hit.score - expected).abs() <= 1e-2 * expected.abs(), "{dtype:?} {hit:?} {expected}");
            }
        }
    }
}

#[test]
fn numbers_beyond_halves_are_refused_by_f16_tables() {
    let items = Tensor::from_rows([[65504.0], [1e5], [2e5]]);
    let build = |items: &Tensor, mol: Option<&Mol<Tensor>>, dtype: Dtype| {
        let ids: Vec<u64> = (1..=items.rows() as u64).collect();
        ItemIndex::from_embeddings(&Cpu::default(), &ids, items, mol, dtype).map(|index| index.len())
    };
    let error = build(&items, None, Dtype::F16).unwrap_err().to_string();
    assert!(error.contains("65504") && error.contains("1e5 in id 2"), "{error}");
    assert_eq!([build(&items, None, Dtype::F32).unwrap(), build(&items, None, Dtype::I8).unwrap()], [3, 3]);
    // Components and gate parts can be larger than what they are computed from.
    let mut random = Random::new(3);
    let shape = Shape {
        l2_norm: false,
        item_gate: None,
        gating: GatingCombination::None,
        uid_sizes: vec![],
        ..Shape::default()
    };
    for (shape, what) in [(shape, "a component"), (Shape { uid_sizes: vec![], ..Shape::default() }, "gate")] {
        let (mol, items) = (shape.mol(&mut random, DIM), random.tensor(&[N, DIM], 6e4));
        let error = build(&items, Some(&mol), Dtype::F16).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("in id "), "{error}");
        assert_eq!(build(&items, Some(&mol), Dtype::F32).unwrap(), N);
    }
}

#[test]
fn tiny_numbers_are_in_the_right_order() {
    let search = |items: &[[f32; 2]], query: [f32; 2], dtype: Dtype| {
        let ids: Vec<u64> = (1..=items.len() as u64).collect();
        let items = Tensor::new([items.len(), 2], items.as_flattened().to_vec()).unwrap();
        let index = ItemIndex::from_embeddings(&Cpu::default(), &ids, &items, None, dtype).unwrap();
        let queries = QueryBatch::new(Tensor::from_rows([query, [1.0, 0.0]]));
        Searcher::new(index).search(Algorithm::Exact, &queries, ids.len(), &[]).unwrap().remove(0)
    };
    for dtype in [Dtype::F32, Dtype::F16, Dtype::I8] {
        let hits = search(&[[1.0, 0.0], [2.0, 0.0]], [1e-38, 0.0], dtype);
        assert_eq!([hits[0].id, hits[1].id], [2, 1], "{dtype:?}");
        assert!((hits[0].score - 2e-38).abs() < 2e-40 && (hits[1].score - 1e-38).abs() < 1e-40, "{dtype:?} {hits:?}");
        let hits = search(&[[1.0, 0.0], [2.0, 0.0]], [1e-45, 0.0], dtype);
        assert_eq!([hits[0].id, hits[1].id], [2, 1], "{dtype:?}: the least of all numbers");
        assert_eq!(search(&[[1.0, 0.0], [2.0, 0.0]], [0.0, -0.0], dtype)[0].score, 0.0);
    }
    for dtype in [Dtype::F32, Dtype::I8] {
        for scale in [1e-30f32, 1e-36, 1e-37, 1e-38, 1e-39, 1e-41] {
            let hits = search(&[[scale, 0.1 * scale], [scale, scale], [scale, 0.5 * scale]], [0.0, 1.0], dtype);
            assert_eq!(hits.iter().map(|hit| hit.id).collect::<Vec<_>>(), [2, 3, 1], "{dtype:?} {scale:e}");
            assert!((hits[0].score / scale - 1.0).abs() < 0.02, "{dtype:?} {scale:e} {hits:?}");
        }
    }
}

/// A CPU whose item side of some rows is not a number, as that of a driver with a fault might be.
#[derive(Clone, Default)]
struct Faulty(Cpu);

impl Backend for Faulty {
    fn info(&self) -> &DeviceInfo {
        self.0.info()
    }

    fn share(&self) -> Arc<dyn Backend> {
        Arc::new(self.clone())
    }

    fn encoder(&self, encoder: &Encoder<Tensor>) -> Result<Box<dyn QueryEncoder>> {
        self.0.encoder(encoder)
    }

    fn pool(&self, pooling: &TokenPooling, texts: &TokenEmbeddings) -> Result<Tensor> {
        self.0.pool(pooling, texts)
    }

    fn item_side(&self, mol: &Mol<Tensor>, items: &Tensor) -> Result<ItemSide> {
        let mut side = self.0.item_side(mol, items)?;
        let width = side.components.len() / items.rows();
        side.components[3 * width..5 * width].fill(-f32::NAN);
        Ok(side)
    }

    fn load(
        &self,
        context: &SearchContext,
        tables: Arc<Tables>,
        similarity: Option<&Similarity>,
    ) -> Result<Box<dyn DeviceIndex>> {
        self.0.load(context, tables, similarity)
    }
}

/// Items that are damaged all the same end no search in a loop, and none in silence.
#[test]
fn a_search_that_finds_fewer_items_than_there_are_says_so() {
    let mut random = Random::new(4);
    let (mol, items) = (gated().mol(&mut random, DIM), random.tensor(&[N, DIM], 1.0));
    let options = options_of_dot().with_segment_items(N);
    let index = ItemIndex::from_embeddings(&Faulty::default(), &ids(), &items, Some(&mol), options).unwrap();
    let queries = batch(&mut random, 2);
    let error = index.distill(&queries).unwrap_err();
    assert!(
        matches!(error, Error::NotScored { expected: N, found: 38, .. }) || error.to_string().contains("too large")
    );
    let searcher = Searcher::new(index);
    for algorithm in ALGORITHMS.iter().filter(|name| !["mips", "distilled:3", "cascade:4_3"].contains(name)) {
        let error = searcher.search(algorithm.parse().unwrap(), &queries, N, &[]).unwrap_err();
        assert!(matches!(error, Error::NotScored { query: 0, expected: N, .. }), "{algorithm}: {error}");
        assert!(error.to_string().contains("verify"), "{error}");
    }
    // Left out by the caller, they are not missed.
    let without: [&[u64]; 2] = [&[103, 104]; 2];
    let hits = searcher.search(Algorithm::Exact, &queries, N, &without).unwrap();
    assert_eq!([hits[0].len(), hits[1].len()], [N - 2; 2]);
}

/// 64 components of a query make 2,000 features and more, which cost the cube of that as normal equations.
#[test]
fn learning_with_many_components_takes_as_long_as_queries_are_many_and_can_be_cancelled() {
    let mut random = Random::new(5);
    let shape = Shape { p_q: 64, p_x: 1, d_p: 4, hidden: Some(4), uid_sizes: vec![], ..Shape::default() };
    let (mol, items) = (shape.mol(&mut random, DIM), random.tensor(&[N, DIM], 1.0));
    let index = ItemIndex::from_embeddings(&Cpu::default(), &ids(), &items, Some(&mol), Dtype::F32).unwrap();
    let (queries, calls) = (batch(&mut random, 3), AtomicUsize::new(0));
    let (cancel, version) = (Cancel::new(), index.snapshot().version());
    let stop = |share: f32| {
        calls.fetch_add(1, Ordering::Relaxed);
        if share > 0.3 {
            cancel.cancel();
        }
    };
    assert!(matches!(index.distill_with(&queries, &cancel, &stop), Err(Error::Cancelled)));
    assert_eq!(index.snapshot().version(), version, "nothing has changed");
    let begun = std::time::Instant::now();
    let last = std::sync::Mutex::new(0.0f32);
    let rises = |share: f32| {
        let mut last = last.lock().unwrap();
        assert!((*last..=1.0).contains(&share));
        *last = share;
    };
    index.distill_with(&queries, &Cancel::new(), &rises).unwrap();
    assert!(calls.into_inner() > 3 && *last.lock().unwrap() == 1.0);
    // Minutes before.
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    let learned = index.snapshot();
    let tangents = learned.similarity().unwrap().distilled.as_ref().unwrap().tangents.as_ref().unwrap();
    assert_eq!(tangents.layer.n_in, 64 + 64 * 65 / 2);
}
