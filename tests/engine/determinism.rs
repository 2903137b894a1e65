//! The same answer to the bit: on every backend from run to run; on the CPU for any number of threads, any split of the batch and
//! any cut of the index too.
//!
//! A GPU thread scores 1, 2 or 4 queries, depending on how many there are, with kernels that differ in nothing but the type of
//! their numbers. WGSL leaves it to a driver whether it contracts products and sums, so that these agree to the bit is no promise;
//! on software drivers they do.

use crate::common::backends::backends;
use crate::common::models::{Random, Shape};
use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::backend::{Backend, DeviceKind, Dtype, QueryBatch};
use rails_wgpu::index::{IndexOptions, ItemIndex, ListOptions};
use rails_wgpu::model::Mol;
use rails_wgpu::search::{Algorithm, Hit, Searcher};
use rails_wgpu::tables::Form;
use rails_wgpu::tensor::Tensor;

const DIM: usize = 6;
const N: usize = 700;
const B: usize = 32;
const K: usize = 20;

/// Every algorithm whose answer does not depend on how the index is cut.
const UNCUT: [Algorithm; 10] = [
    Algorithm::Exact,
    Algorithm::ExactPruned,
    Algorithm::Mips,
    Algorithm::Naive { per_group: 30 },
    Algorithm::Avg { candidates: 60 },
    Algorithm::Comb { per_group: 20, candidates: 40 },
    Algorithm::HIndexer { candidates: 90 },
    Algorithm::Tangent { candidates: 60 },
    Algorithm::Distilled { candidates: 40 },
    Algorithm::Cascade { tangent: 90, distilled: 40 },
];

/// Inverted lists are made within each segment.
const LISTS: [Algorithm; 2] =
    [Algorithm::NaiveIvf { per_group: 30, n_probe: 3 }, Algorithm::TangentIvf { candidates: 60, n_probe: 3 }];

struct World {
    mol: Mol<Tensor>,
    items: Tensor,
    queries: QueryBatch,
}

impl World {
    fn new() -> World {
        let mut random = Random::new(17);
        let mol = Shape::default().mol(&mut random, DIM);
        let (items, embeddings) = (random.tensor(&[N, DIM], 1.0), random.tensor(&[B, DIM], 1.0));
        World {
            mol,
            items,
            queries: QueryBatch::new(embeddings).with_users((0..B as i64).map(|i| i * 37 - 5).collect::<Vec<i64>>()),
        }
    }

    /// Segments of up to `cut` items; with inverted lists and a distilled gate where the form has room for lists.
    fn searcher(&self, backend: &dyn Backend, dtype: Dtype, form: Form, cut: usize) -> Searcher {
        let lists = (form == Form::Components).then_some(ListOptions::new(6));
        let options =
            IndexOptions::default().with_dtype(dtype).with_form(form).with_lists(lists).with_segment_items(cut);
        let ids: Vec<u64> = (0..N as u64).map(|i| 1000 - i).collect();
        let index = ItemIndex::from_embeddings(backend, &ids, &self.items, Some(&self.mol), options).unwrap();
        index.distill(&self.queries).unwrap();
        Searcher::new(index)
    }

    fn answer(&self, searcher: &Searcher, algorithm: Algorithm) -> Vec<Vec<Hit>> {
        searcher.search(algorithm, &self.queries, K, &[]).unwrap()
    }

    /// The same in batches of these sizes.
    fn answer_in(&self, searcher: &Searcher, algorithm: Algorithm, sizes: &[usize]) -> Vec<Vec<Hit>> {
        assert_eq!(sizes.iter().sum::<usize>(), B);
        let mut from = 0;
        let part = |&size: &usize| {
            let batch = self.queries.select(&(from..from + size).collect::<Vec<usize>>());
            from += size;
            searcher.search(algorithm, &batch, K, &[]).unwrap()
        };
        sizes.iter().flat_map(part).collect()
    }
}

/// Where two answers differ in any bit.
fn difference(left: &[Vec<Hit>], right: &[Vec<Hit>]) -> Option<String> {
    if left.len() != right.len() {
        return Some(format!("{} lists and {}", left.len(), right.len()));
    }
    left.iter().zip(right).enumerate().find_map(|(query, (left, right))| {
        let bits = |hits: &[Hit]| hits.iter().map(|hit| (hit.id, hit.score.to_bits())).collect::<Vec<_>>();
        let rank = (0..left.len().max(right.len())).find(|&rank| {
            let of = |hits: &[Hit]| bits(hits).get(rank).copied();
            of(left) != of(right)
        })?;
        Some(format!("query {query}, rank {rank}: {:?} and {:?}", left.get(rank), right.get(rank)))
    })
}

fn same(what: impl std::fmt::Display, left: &[Vec<Hit>], right: &[Vec<Hit>]) {
    assert_eq!(difference(left, right), None, "{what}");
}

fn tables() -> impl Iterator<Item = (Dtype, Form)> {
    [
        (Dtype::F32, Form::Components),
        (Dtype::F16, Form::Components),
        (Dtype::I8, Form::Components),
        (Dtype::F32, Form::Raw),
    ]
    .into_iter()
}

/// Those that tables of this form can answer.
fn algorithms(form: Form) -> Vec<Algorithm> {
    let lists = if form == Form::Components { &LISTS[..] } else { &[] };
    UNCUT.iter().chain(lists).copied().collect()
}

#[test]
fn a_difference_of_one_bit_is_noticed() {
    let answer = vec![vec![Hit { id: 1, score: 0.0 }, Hit { id: 2, score: -1.5 }]];
    assert_eq!(difference(&answer, &answer), None);
    let changed = |change: fn(&mut Vec<Vec<Hit>>)| {
        let mut other = answer.clone();
        change(&mut other);
        difference(&answer, &other)
    };
    assert!(changed(|hits| hits[0][1].score = -1.500_000_1).unwrap().contains("query 0, rank 1"));
    assert!(changed(|hits| hits[0][0].score = -0.0).unwrap().contains("rank 0"));
    assert!(changed(|hits| hits[0][0].id = 3).is_some());
    assert!(changed(|hits| hits[0].truncate(1)).unwrap().contains("rank 1"));
    assert!(changed(|hits| hits.clear()).is_some());
}

#[test]
fn every_backend_repeats_itself() {
    let world = World::new();
    for backend in backends() {
        let build = || world.searcher(backend.as_ref(), Dtype::F32, Form::Components, N);
        let (first, second) = (build(), build());
        for algorithm in algorithms(Form::Components) {
            let expected = world.answer(&first, algorithm);
            same(format!("{algorithm} again"), &expected, &world.answer(&first, algorithm));
            same(format!("{algorithm} of another index"), &expected, &world.answer(&second, algorithm));
        }
    }
}

#[test]
fn the_number_of_threads_does_not_show() {
    let world = World::new();
    for (dtype, form) in tables() {
        let answers = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let searcher = world.searcher(&Cpu::default(), dtype, form, N);
                algorithms(form).into_iter().map(|algorithm| world.answer(&searcher, algorithm)).collect::<Vec<_>>()
            })
        };
        let expected = answers(1);
        for threads in [2, 3] {
            for ((algorithm, left), right) in algorithms(form).iter().zip(&expected).zip(answers(threads)) {
                same(format!("{algorithm}, {dtype:?}, {form:?}, {threads} threads"), left, &right);
            }
        }
    }
}

#[test]
fn the_split_of_a_batch_does_not_show() {
    let world = World::new();
    for (dtype, form) in tables() {
        let searcher = world.searcher(&Cpu::default(), dtype, form, N);
        for algorithm in algorithms(form) {
            let expected = world.answer(&searcher, algorithm);
            for sizes in [&[1, 31][..], &[8; 4], &[1; 32], &[3, 2, 27]] {
                let found = world.answer_in(&searcher, algorithm, sizes);
                same(format!("{algorithm}, {dtype:?}, {form:?}, {sizes:?}"), &expected, &found);
            }
        }
    }
}

#[test]
fn the_cut_of_an_index_does_not_show() {
    let world = World::new();
    for (dtype, form) in tables() {
        let whole = world.searcher(&Cpu::default(), dtype, form, N);
        for cut in [37, 64, 333] {
            let parts = world.searcher(&Cpu::default(), dtype, form, cut);
            assert_eq!(parts.index().snapshot().segments().len(), N.div_ceil(cut));
            for algorithm in UNCUT {
                let expected = world.answer(&whole, algorithm);
                same(format!("{algorithm}, {dtype:?}, {form:?}, {cut}"), &expected, &world.answer(&parts, algorithm));
            }
        }
    }
}

#[test]
fn the_split_of_a_batch_does_not_show_on_a_software_gpu() {
    let world = World::new();
    for backend in backends().iter().filter(|backend| backend.info().kind == DeviceKind::SoftwareGpu) {
        let searcher = world.searcher(backend.as_ref(), Dtype::F32, Form::Components, N);
        let tangent = Algorithm::Tangent { candidates: 60 };
        for algorithm in [Algorithm::Exact, Algorithm::Mips, tangent, Algorithm::Distilled { candidates: 40 }] {
            let expected = world.answer(&searcher, algorithm);
            for sizes in [&[1, 31], &[2, 30]] {
                same(format!("{algorithm}, {sizes:?}"), &expected, &world.answer_in(&searcher, algorithm, sizes));
            }
        }
    }
}
