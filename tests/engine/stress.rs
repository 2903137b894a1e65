//! Many threads search while another one changes the index: every result is that of one version, from first to last hit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::common::models::{Random, Shape};
use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::backend::{Dtype, QueryBatch};
use rails_wgpu::index::ItemIndex;
use rails_wgpu::model::Mol;
use rails_wgpu::search::{Algorithm, Hit, Searcher};
use rails_wgpu::tensor::Tensor;

const DIM: usize = 4;
const THREADS: usize = 16;
const SEARCHES: usize = 10_000;
const QUERIES: usize = 8;
const K: usize = 10;
const ALGORITHMS: [Algorithm; 3] = [Algorithm::Exact, Algorithm::Mips, Algorithm::Avg { candidates: 20 }];

/// What the updater does, over and over; after the last change the items are those of the start.
const CHANGES: [Change; 6] = [
    Change::Add { ids: (200, 230), rows: 2 },
    Change::Remove { ids: (50, 90) },
    Change::Add { ids: (0, 40), rows: 3 },
    Change::Compact,
    Change::Add { ids: (0, 90), rows: 0 },
    Change::Remove { ids: (200, 230) },
];

#[derive(Clone, Copy)]
enum Change {
    /// Ids of a range, with embeddings of the generation `rows`: replaces those that are there.
    Add {
        ids: (u64, u64),
        rows: u64,
    },
    Remove {
        ids: (u64, u64),
    },
    Compact,
}

/// Item id -> generation of its embedding.
type Items = BTreeMap<u64, u64>;

/// The embeddings of some items: each has one per generation.
fn embeddings(items: &Items) -> Tensor {
    let row = |(id, generation): (&u64, &u64)| Random::new(id * 1000 + generation).tensor(&[DIM], 1.0).data().to_vec();
    Tensor::new(vec![items.len(), DIM], items.iter().flat_map(row).collect()).unwrap()
}

impl Change {
    fn of_items(self, items: &mut Items) {
        match self {
            Change::Add { ids: (from, to), rows } => items.extend((from..to).map(|id| (id, rows))),
            Change::Remove { ids: (from, to) } => items.retain(|id, _| !(from..to).contains(id)),
            Change::Compact => {}
        }
    }

    fn of_index(self, index: &ItemIndex) {
        match self {
            Change::Add { ids: (from, to), rows } => {
                let items: Items = (from..to).map(|id| (id, rows)).collect();
                index.add(&(from..to).collect::<Vec<_>>(), &embeddings(&items)).unwrap();
            }
            Change::Remove { ids: (from, to) } => {
                assert_eq!(index.remove(&(from..to).collect::<Vec<_>>()).unwrap(), (to - from) as usize);
            }
            Change::Compact => index.compact().unwrap(),
        }
    }
}

fn index(items: &Items, mol: &Mol<Tensor>) -> ItemIndex {
    let ids: Vec<u64> = items.keys().copied().collect();
    ItemIndex::from_embeddings(&Cpu::default(), &ids, &embeddings(items), Some(mol), Dtype::F32).unwrap()
}

/// For each version of the cycle the results of each algorithm and query, by serial searches of an index built at once.
type Expected = Vec<Vec<Vec<Vec<Hit>>>>;

/// Those versions among `from..=to`, counted from the start of the first cycle, that `found` can be of.
fn versions_of(found: &[Hit], (algorithm, query): (usize, usize), (from, to): (u64, u64), all: &Expected) -> Vec<u64> {
    // After a whole cycle every version has been there.
    let window = from..=to.min(from + CHANGES.len() as u64 - 1);
    let of_version = |version: u64| all[version as usize % CHANGES.len()][algorithm][query].as_slice();
    window.filter(|&version| of_version(version) == found).collect()
}

#[test]
fn results_of_many_threads_equal_serial_ones_while_the_index_changes() {
    let mut random = Random::new(17);
    let shape = Shape { p_q: 2, p_x: 2, d_p: 4, hidden: Some(4), uid_sizes: vec![], ..Shape::default() };
    let mol = shape.mol(&mut random, DIM);
    let queries: Vec<QueryBatch> = (0..QUERIES).map(|_| QueryBatch::new(random.tensor(&[1, DIM], 1.0))).collect();
    let start: Items = (0..200).map(|id| (id, 0)).collect();
    let mut items = start.clone();
    let mut expected: Expected = Vec::new();
    for change in CHANGES {
        let serial = Searcher::new(index(&items, &mol));
        let results = |&algorithm: &Algorithm| -> Vec<Vec<Hit>> {
            queries.iter().map(|query| serial.search(algorithm, query, K, &[]).unwrap().remove(0)).collect()
        };
        expected.push(ALGORITHMS.iter().map(results).collect());
        change.of_items(&mut items);
    }
    assert_eq!(items, start, "a cycle");

    // What the comparison must tell apart: neighbouring versions (a compaction changes nothing), and a result of two of them.
    let differ = (0..CHANGES.len()).filter(|&version| expected[version] != expected[(version + 1) % CHANGES.len()]);
    assert_eq!(differ.count(), CHANGES.len() - 1);
    let mixed: Vec<Hit> = expected[2][0][0][..5].iter().chain(&expected[3][0][0][5..]).copied().collect();
    assert_ne!(expected[2][0][0][..5], expected[3][0][0][..5]);
    assert_eq!(versions_of(&mixed, (0, 0), (0, 100), &expected), [0u64; 0], "a mixed result is no version's");
    assert_eq!(versions_of(&expected[2][0][0], (0, 0), (2, 3), &expected), [2]);
    assert_eq!(versions_of(&expected[2][0][0], (0, 0), (3, 4), &expected), [0u64; 0], "a result of an old version");

    let searcher = Searcher::new(index(&start, &mol));
    let (searching, matched) = (AtomicUsize::new(THREADS), AtomicUsize::new(0));
    let failed = AtomicBool::new(false);
    let seen: BTreeSet<u64> = std::thread::scope(|scope| {
        let (searcher, queries, expected) = (&searcher, &queries, &expected);
        let (searching, matched, failed) = (&searching, &matched, &failed);
        let search = move |thread: usize| {
            let mut seen = BTreeSet::new();
            for i in (0..SEARCHES).map(|i| i + thread) {
                let (algorithm, query) = (i % ALGORITHMS.len(), i % QUERIES);
                let from = searcher.index().snapshot().version();
                let found = searcher.search(ALGORITHMS[algorithm], &queries[query], K, &[]).unwrap().remove(0);
                let to = searcher.index().snapshot().version();
                let versions = versions_of(&found, (algorithm, query), (from, to), expected);
                if versions.is_empty() {
                    failed.store(true, Ordering::Relaxed);
                    panic!("search {i} between versions {from} and {to} found {found:?}");
                }
                matched.fetch_add(1, Ordering::Relaxed);
                seen.extend(versions.first());
            }
            seen
        };
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    // Also where the thread panics: the updater must not wait for it.
                    let _done = Done(searching);
                    search(thread)
                })
            })
            .collect();
        for change in CHANGES.into_iter().cycle() {
            if searching.load(Ordering::Relaxed) == 0 || failed.load(Ordering::Relaxed) {
                break;
            }
            change.of_index(searcher.index());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(matched.into_inner(), THREADS * SEARCHES);
    let changes = searcher.index().snapshot().version();
    println!("{} searches, {changes} changes, results of {} different versions", THREADS * SEARCHES, seen.len());
    assert!(seen.len() > 2 * CHANGES.len(), "{} versions are too few to prove anything", seen.len());
}

/// Counts a thread out.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
