//! Indexes that change: in memory, in a folder, and rebuilt from scratch they answer alike.

use crate::common::catalog;
use crate::common::compare;
#[cfg(feature = "gpu")]
use crate::common::gpu;
use crate::common::mol;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::common::catalog::{Catalog, DIM, cpu, hits, open, queries, rows, similarity};
use crate::common::models::{Random, Shape};
use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::backend::{Backend, Dtype, QueryBatch, ScoredPosition, Similarity};
use rails_wgpu::index::{
    Filter, IndexModel, IndexOptions, ItemIndex, ItemSource, Items, ListOptions, OpenOptions, Segment,
};
use rails_wgpu::search::{Algorithm, Request, Searcher};
use rails_wgpu::tables::Form;
use rails_wgpu::tensor::Tensor;
use roaring::RoaringTreemap;

fn options(dtype: Dtype, form: Form) -> IndexOptions {
    IndexOptions::default().with_dtype(dtype).with_form(form).with_segment_items(32)
}

fn small() -> IndexOptions {
    options(Dtype::F32, Form::Components)
}

fn first(n: u64) -> Catalog {
    let mut catalog = Catalog::default();
    catalog.add(&(0..n).map(|i| 10 + 7 * i).collect::<Vec<_>>(), 0);
    catalog
}

/// Files of a folder, but for the lock.
fn files(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "lock").collect();
    names.sort();
    names
}

#[test]
fn changes_on_disk_in_memory_and_rebuilt_from_scratch_answer_alike() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::I8] {
        for form in [Form::Components, Form::Raw] {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path().join("index");
            let options = options(dtype, form);
            let mut catalog = first(100);
            let disk = Arc::new(Searcher::new(catalog.stored(&folder, options.clone())));
            let reader = Arc::new(Searcher::new(open(&folder)));
            let memory = Arc::new(Searcher::new(catalog.rebuilt(options.clone())));
            let mut random = Random::new(5);
            let mut pick = |n: u64| (random.number().abs() * n as f32) as u64;
            let mut before = Vec::new();
            for step in 0..24 {
                match step % 6 {
                    // New ones and old ones, unsorted.
                    0 | 1 | 3 => {
                        let mut ids: Vec<u64> = (0..1 + pick(25)).map(|_| pick(900)).collect();
                        ids.sort_unstable();
                        ids.dedup();
                        ids.reverse();
                        catalog.add(&ids, step);
                        disk.index().add(&ids, &rows(&ids, step)).unwrap();
                        memory.index().add(&ids, &rows(&ids, step)).unwrap();
                    }
                    2 | 4 => {
                        let ids: Vec<u64> = (0..20).map(|_| pick(900)).collect();
                        let len = catalog.0.len();
                        catalog.remove(&ids);
                        assert_eq!(disk.index().remove(&ids).unwrap(), len - catalog.0.len());
                        memory.index().remove(&ids).unwrap();
                    }
                    _ => {
                        disk.index().compact().unwrap();
                        memory.index().compact().unwrap();
                        let segments = disk.index().snapshot();
                        assert!(segments.segments().iter().all(|segment| segment.deleted().is_none()));
                    }
                }
                assert_eq!(disk.index().ids(), catalog.ids());
                let everything = Algorithm::Tangent { candidates: catalog.0.len() };
                let tangent = Algorithm::Tangent { candidates: 15 };
                let expected = hits(&Arc::new(Searcher::new(catalog.rebuilt(options.clone()))), Algorithm::Exact, 20);
                assert_eq!(hits(&disk, Algorithm::Exact, 20), expected, "{dtype:?} {form:?} step {step}");
                assert_eq!(hits(&memory, Algorithm::Exact, 20), expected);
                assert_eq!(hits(&disk, everything, 20), expected);
                assert_eq!(hits(&disk, tangent, 10), hits(&memory, tangent, 10), "{dtype:?} {form:?} step {step}");
                let reopened = Arc::new(Searcher::new(open(&folder)));
                assert_eq!(hits(&reopened, Algorithm::Exact, 20), expected);
                assert_eq!(hits(&reopened, tangent, 10), hits(&memory, tangent, 10));
                if step > 0 {
                    assert_eq!(hits(&reader, Algorithm::Exact, 20), before, "a reader keeps its version");
                }
                let old_version = reader.index().snapshot().version();
                let newer = disk.index().snapshot().version() > old_version;
                assert_eq!(reader.index().refresh().unwrap(), newer);
                assert_eq!(hits(&reader, Algorithm::Exact, 20), expected);
                assert!(!reader.index().refresh().unwrap());
                before = expected;
            }
            assert!(ItemIndex::verify(&folder).unwrap().is_sound());
        }
    }
}

#[test]
fn a_writer_works_from_the_latest_version() {
    let folder = tempfile::tempdir().unwrap();
    let mut catalog = first(50);
    let one = catalog.stored(folder.path(), small());
    let two = open(folder.path());
    catalog.add(&[1, 2, 3], 1);
    one.add(&[1, 2, 3], &rows(&[1, 2, 3], 1)).unwrap();
    assert!(!two.contains(2));
    catalog.remove(&[2, 10]);
    assert_eq!(two.remove(&[2, 10]).unwrap(), 2, "an item that another writer added");
    assert_eq!(two.ids(), catalog.ids());
    assert!(one.contains(2));
    one.compact().unwrap();
    assert_eq!(one.ids(), catalog.ids());
    assert!(two.refresh().unwrap());
    let (one, two) = (Arc::new(Searcher::new(one)), Arc::new(Searcher::new(two)));
    assert_eq!(hits(&one, Algorithm::Exact, 30), hits(&two, Algorithm::Exact, 30));
    assert_eq!(
        hits(&one, Algorithm::Exact, 30),
        hits(&Arc::new(Searcher::new(catalog.rebuilt(small()))), Algorithm::Exact, 30)
    );
}

#[test]
fn an_index_can_lose_all_items_and_get_new_ones() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = first(40);
    let index = catalog.stored(folder.path(), small());
    assert_eq!(index.remove(&catalog.ids()).unwrap(), 40);
    assert!(index.is_empty() && open(folder.path()).is_empty());
    assert_eq!(files(folder.path()).len(), 2, "the manifest and the model: {:?}", files(folder.path()));
    index.compact().unwrap();
    index.add(&[5], &rows(&[5], 0)).unwrap();
    assert_eq!(open(folder.path()).ids(), [5]);
}

#[test]
fn another_index_in_the_same_folder_is_not_mistaken_for_a_new_version() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let old = first(50).stored(&path, small());
    let ids = old.ids();
    std::fs::remove_dir_all(&path).unwrap();
    first(60).stored(&path, small());
    for message in [
        old.refresh().unwrap_err().to_string(),
        old.remove(&[10]).unwrap_err().to_string(),
        old.add(&[1], &rows(&[1], 0)).unwrap_err().to_string(),
    ] {
        assert!(message.contains("another index") && message.contains("open it anew"), "{message}");
    }
    assert_eq!(old.ids(), ids);
}

#[test]
fn a_folder_restored_from_a_copy_is_not_mistaken_for_the_version_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let (path, saved) = (folder.path().join("index"), folder.path().join("saved"));
    let catalog = first(50);
    let index = catalog.stored(&path, small());
    std::fs::create_dir(&saved).unwrap();
    let copy = |from: &Path, to: &Path| {
        for name in files(from) {
            std::fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
    };
    copy(&path, &saved);
    index.add(&[1, 2], &rows(&[1, 2], 1)).unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    copy(&saved, &path);
    // The same number of the version, the same names of files, as many items.
    open(&path).add(&[1, 3], &rows(&[1, 3], 2)).unwrap();
    assert!(index.refresh().unwrap());
    let mut changed = catalog;
    changed.add(&[1, 3], 2);
    assert_eq!(index.ids(), changed.ids());
    let (index, rebuilt) = (Arc::new(Searcher::new(index)), Arc::new(Searcher::new(changed.rebuilt(small()))));
    assert_eq!(hits(&index, Algorithm::Exact, 50), hits(&rebuilt, Algorithm::Exact, 50));
}

/// Every version of the index has one marker in all of its items: the score for the query (1, 0).
#[test]
fn searches_during_updates_see_one_version() {
    const ITEMS: u64 = 40;
    const UPDATES: u64 = 200;
    let marked = |version: u64| {
        let data = (0..ITEMS).flat_map(|id| [version as f32, id as f32]).collect();
        Tensor::new(vec![ITEMS as usize, 2], data).unwrap()
    };
    let ids: Vec<u64> = (0..ITEMS).rev().collect();
    let folder = tempfile::tempdir().unwrap();
    let source = ItemSource::of_embeddings(ids.clone(), marked(0));
    let options = IndexOptions::default().with_segment_items(16);
    let index = ItemIndex::create(folder.path(), &cpu(), IndexModel::dot(2), options, source).unwrap();
    let (writer, done) = (Searcher::new(index), AtomicBool::new(false));
    let versions_seen = AtomicUsize::new(0);
    let query = QueryBatch::new(Tensor::new(vec![1, 2], vec![1.0, 0.0]).unwrap());
    let look = |searcher: &Searcher, last: &mut f32| {
        let hits = searcher.search(Algorithm::Exact, &query, ITEMS as usize, &[]).unwrap().remove(0);
        let version = hits[0].score;
        assert!(hits.len() == ITEMS as usize && hits.iter().all(|hit| hit.score == version), "{hits:?}");
        assert!(hits.iter().enumerate().all(|(id, hit)| hit.id == id as u64));
        assert!(version >= *last, "version {version} after {last}");
        versions_seen.fetch_add(usize::from(version > *last), Ordering::Relaxed);
        *last = version;
    };
    std::thread::scope(|scope| {
        // Two threads on the index that changes, one on another index of the same folder.
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0.0;
                while !done.load(Ordering::Relaxed) {
                    look(&writer, &mut last);
                }
            });
        }
        scope.spawn(|| {
            let (reader, mut last) = (Searcher::new(open(folder.path())), 0.0);
            while !done.load(Ordering::Relaxed) {
                reader.index().refresh().unwrap();
                look(&reader, &mut last);
            }
        });
        for version in 1..=UPDATES {
            writer.index().add(&ids, &marked(version)).unwrap();
            if version % 10 == 0 {
                writer.index().compact().unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let mut last = 0.0;
    look(&writer, &mut last);
    assert_eq!(last, UPDATES as f32);
    let seen = versions_seen.load(Ordering::Relaxed);
    assert!(seen > 100, "only {seen} changes were seen");
}

#[test]
fn one_filter_serves_many_versions_and_indexes() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = first(120);
    let disk = catalog.stored(folder.path(), small());
    disk.add(&[3, 24], &rows(&[3, 24], 1)).unwrap();
    disk.remove(&[31, 38]).unwrap();
    // The last two have the same number of a version, and other ids at the same places.
    let mut other = Catalog::default();
    other.add(&(0..120).map(|i| 11 + 7 * i).collect::<Vec<_>>(), 0);
    let indexes = [disk, catalog.rebuilt(small()), other.rebuilt(small())].map(Searcher::new);
    let some: RoaringTreemap = (0..1000).filter(|id| id % 3 == 0).collect();
    for filter in [Filter::allow(some.clone()), Filter::deny(some)] {
        for round in 0..6 {
            let searcher = &indexes[round % 3];
            let n = searcher.index().len();
            let all = searcher.search(Algorithm::Exact, &queries(4), n, &[]).unwrap();
            for algorithm in [Algorithm::Exact, Algorithm::Tangent { candidates: n }] {
                let request = Request::new(algorithm, 25).with_filter(&filter);
                let found = searcher.answer(&queries(4), &request).unwrap().hits;
                for (all, found) in all.iter().zip(found) {
                    let expected: Vec<_> = all.iter().filter(|hit| filter.passes(hit.id)).take(25).copied().collect();
                    assert!(expected.len() == 25 && expected != all[..25]);
                    assert_eq!(found, expected, "{algorithm} round {round}");
                }
            }
        }
    }
}

#[test]
fn devices_share_an_index_and_results_do_not_show_it() {
    let folder = tempfile::tempdir().unwrap();
    let two: Vec<Arc<dyn Backend>> = vec![Arc::new(Cpu::default()), Arc::new(Cpu::default())];
    let catalog = first(150);
    let one = Arc::new(Searcher::new(catalog.rebuilt(small())));
    let source = ItemSource::of_embeddings(catalog.ids(), catalog.embeddings());
    ItemIndex::create(folder.path(), &two, IndexModel::similarity(similarity()), small(), source).unwrap();
    let opened = ItemIndex::open(folder.path(), &two, OpenOptions::default()).unwrap();
    let on = |index: &ItemIndex, device: usize| {
        let snapshot = index.snapshot();
        let segments = snapshot.segments().iter().filter(|segment| Arc::ptr_eq(segment.backend(), &two[device]));
        segments.map(|segment| segment.len()).sum::<usize>()
    };
    assert!(on(&opened, 0) > 40 && on(&opened, 1) > 40);
    let memory = ItemIndex::build(&two, &catalog.ids(), &catalog.embeddings(), Some(similarity()), small()).unwrap();
    for index in [opened, memory] {
        let both = Arc::new(Searcher::new(index));
        for algorithm in [Algorithm::Exact, Algorithm::Tangent { candidates: 150 }, Algorithm::Mips] {
            assert_eq!(hits(&both, algorithm, 40), hits(&one, algorithm, 40), "{algorithm}");
        }
        both.index().add(&[1, 2, 17], &rows(&[1, 2, 17], 1)).unwrap();
        both.index().compact().unwrap();
        let mut changed = catalog.clone();
        changed.add(&[1, 2, 17], 1);
        let expected = Arc::new(Searcher::new(changed.rebuilt(small())));
        assert_eq!(hits(&both, Algorithm::Exact, 40), hits(&expected, Algorithm::Exact, 40));
    }
}

#[cfg(feature = "gpu")]
#[test]
fn a_processor_and_a_gpu_share_an_index() {
    let Some(gpu) = gpu::shared() else { return };
    let gpu: Arc<dyn Backend> = Arc::new(rails_wgpu::backend::gpu::GpuBackend::new(gpu));
    let both: Vec<Arc<dyn Backend>> = vec![Arc::new(Cpu::default()), gpu];
    let folder = tempfile::tempdir().unwrap();
    let catalog = first(150);
    catalog.stored(folder.path(), small());
    let scores = mol::scores(&catalog::mol(), &catalog.embeddings(), &queries(4), |x| x);
    let ids = catalog.ids();
    let memory = |device_memory| OpenOptions::default().with_device_memory(device_memory).with_check(true);
    for options in [memory(None), memory(Some(1))] {
        let index = ItemIndex::open(folder.path(), &both, options).unwrap();
        let found = hits(&Arc::new(Searcher::new(index)), Algorithm::Exact, 40);
        for (scores, hits) in scores.iter().zip(found) {
            let position = |id| ids.binary_search(&id).unwrap() as u32;
            let hits: Vec<_> =
                hits.iter().map(|hit| ScoredPosition { position: position(hit.id), score: hit.score }).collect();
            compare::compare(scores, &[], 40, &hits).unwrap();
            let mut wrong = hits.clone();
            wrong.swap(0, 1);
            assert!(compare::compare(scores, &[], 40, &wrong).is_err());
        }
    }
}

#[test]
fn segments_that_pass_through_a_device_give_the_same_results() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = first(150);
    let stays = Arc::new(Searcher::new(catalog.stored(folder.path(), small())));
    for device_memory in [1, 40_000] {
        let options = OpenOptions::default().with_device_memory(device_memory);
        let passes = Arc::new(Searcher::new(ItemIndex::open(folder.path(), &cpu(), options).unwrap()));
        for algorithm in [Algorithm::Exact, Algorithm::Tangent { candidates: 20 }, Algorithm::Avg { candidates: 30 }] {
            assert_eq!(
                hits(&passes, algorithm, 15),
                hits(&stays, algorithm, 15),
                "{algorithm} in {device_memory} bytes"
            );
        }
        passes.index().add(&[1], &rows(&[1], 0)).unwrap();
        passes.index().remove(&[1]).unwrap();
        stays.index().refresh().unwrap();
    }
}

#[test]
fn sources_in_any_order_and_in_pieces_make_the_same_index() {
    let catalog = first(200);
    let expected = Arc::new(Searcher::new(catalog.rebuilt(small())));
    let mut shuffled = catalog.ids();
    let mut random = Random::new(8);
    (1..shuffled.len()).for_each(|i| shuffled.swap(i, (random.number().abs() * i as f32) as usize));
    for ids in [catalog.ids(), shuffled] {
        for size in [1, 7, 64, 200] {
            let folder = tempfile::tempdir().unwrap();
            let chunks = ids.chunks(size).map(|ids| Ok(Items::new(ids.to_vec(), rows(ids, 0))));
            let mut seen = 0;
            let source = ItemSource::new(ids.len(), chunks).inspect(|n| seen += n);
            let model = IndexModel::similarity(similarity());
            let index = ItemIndex::create(folder.path(), &cpu(), model, small(), source).unwrap();
            assert_eq!((seen, index.snapshot().segments().len()), (200, 7));
            assert_eq!(
                hits(&Arc::new(Searcher::new(index)), Algorithm::Exact, 30),
                hits(&expected, Algorithm::Exact, 30)
            );
            assert!(ItemIndex::verify(folder.path()).unwrap().is_sound());
        }
    }
}

#[test]
fn a_source_that_fails_leaves_nothing_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let items = |ids: &[u64]| Ok(Items::new(ids.to_vec(), rows(ids, 0)));
    let ascending: Vec<u64> = (0..100).collect();
    let mut not_a_number = rows(&[500], 0).data().to_vec();
    not_a_number[2] = f32::NAN;
    let bad: Vec<(Items, &str)> = vec![
        (items(&[200, 201, 200]).unwrap(), "200 twice"),
        (items(&[300, 3]).unwrap(), "3 twice"),
        (Items::new(vec![500], Tensor::new(vec![1, DIM], not_a_number).unwrap()), "finite"),
        (Items::new(vec![500], Tensor::new(vec![1, 2], vec![0.0; 2]).unwrap()), "(N, 6)"),
        (Items::new(vec![500, 501], rows(&[1], 0)), "one per embedding"),
    ];
    let source = |bad: &Items| {
        let chunks = vec![items(&ascending), Ok(bad.clone())];
        ItemSource::new(101, chunks.into_iter())
    };
    for (bad, words) in &bad {
        let model = IndexModel::similarity(similarity());
        let error = ItemIndex::create(&path, &cpu(), model, small(), source(bad)).err().unwrap().to_string();
        assert!(error.contains(words), "{words}: {error}");
        assert_eq!(files(&path), ["manifest.json"], "the first version was begun");
        let report = ItemIndex::verify(&path).unwrap();
        assert!(report.damage.len() == 1 && report.damage[0].what.contains("interrupted"), "{report:?}");
        let error = ItemIndex::open(&path, &cpu(), OpenOptions::default()).err().unwrap().to_string();
        assert!(error.contains("interrupted") && error.contains("build it again"), "{error}");
    }
    let catalog = first(50);
    let index = catalog.stored(&path, small());
    let (before, version) = (files(&path), index.snapshot().version());
    for (bad, words) in &bad {
        let error = index.add_all(source(bad)).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
        assert_eq!((index.ids(), index.snapshot().version()), (catalog.ids(), version));
        assert_eq!(files(&path), before);
    }
    let again = ItemIndex::create(&path, &cpu(), IndexModel::dot(DIM), small(), source(&items(&[400]).unwrap()));
    assert!(again.err().unwrap().to_string().contains("there is an index already"));
    index.add_all(source(&items(&[400]).unwrap())).unwrap();
    assert_eq!(index.len(), 50 + 101 - catalog.ids().iter().filter(|id| **id < 100).count());
}

#[test]
fn item_files_are_read_in_every_number_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("items.safetensors");
    let write = |ids: (safetensors::Dtype, Vec<usize>, Vec<u8>), rows: (safetensors::Dtype, Vec<usize>, Vec<u8>)| {
        let view = |(dtype, shape, bytes)| safetensors::tensor::TensorView::new(dtype, shape, bytes);
        let ids = view((ids.0, ids.1, &ids.2[..])).unwrap();
        let rows = view((rows.0, rows.1, &rows.2[..])).unwrap();
        safetensors::serialize_to_file([("ids", ids), ("embeddings", rows)], None, &path).unwrap();
    };
    use safetensors::Dtype as D;
    let f32s =
        || (D::F32, vec![2, 2], [1.0f32, 2.0, 3.0, 4.5].iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    let ids32 = |ids: [i32; 2]| ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>();
    let ids64 = |ids: [i64; 2]| ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>();

    let f16s: Vec<u8> = [1.0, 2.0, 3.0, 4.5].iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
    let bf16s: Vec<u8> = [1.0, 2.0, 3.0, 4.5].iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect();
    for ids in [
        (D::I64, vec![2], ids64([9, 4])),
        (D::U64, vec![2], ids64([9, 4])),
        (D::I32, vec![2], ids32([9, 4])),
        (D::U32, vec![2], ids32([9, 4])),
    ] {
        for rows in [f32s(), (D::F16, vec![2, 2], f16s.clone()), (D::BF16, vec![2, 2], bf16s.clone())] {
            write(ids.clone(), rows);
            assert_eq!(ItemSource::ids_of_file(&path).unwrap(), [9, 4]);
            let index = folder.path().join("index");
            let source = ItemSource::of_file(&path).unwrap();
            assert_eq!(source.len(), 2);
            let built = ItemIndex::create(&index, &cpu(), IndexModel::dot(2), IndexOptions::default(), source).unwrap();
            let snapshot = built.snapshot();
            assert_eq!(built.ids(), [4, 9]);
            assert_eq!(snapshot.segments()[0].tables().raw.read_rows(0..2), [3.0, 4.5, 1.0, 2.0]);
            std::fs::remove_dir_all(index).unwrap();
        }
    }
    let cases = [
        ((D::I64, vec![2], ids64([9, -4])), f32s(), "-4"),
        ((D::F32, vec![2], ids32([9, 4])), f32s(), "type F32"),
        ((D::I64, vec![2, 1], ids64([9, 4])), f32s(), "[2, 1]"),
        ((D::I64, vec![2], ids64([9, 4])), (D::F32, vec![4], f32s().2), "[4]"),
        ((D::I64, vec![2], ids64([9, 4])), (D::F32, vec![1, 4], f32s().2), "[1, 4]"),
        ((D::I64, vec![2], ids64([9, 4])), (D::I32, vec![2, 2], f32s().2), "type I32"),
    ];
    for (ids, rows, words) in cases {
        write(ids, rows);
        let read = ItemSource::of_file(&path).and_then(|source| {
            let index = folder.path().join("never");
            ItemIndex::create(index, &cpu(), IndexModel::dot(2), IndexOptions::default(), source)
        });
        let error = read.err().unwrap().to_string();
        assert!(error.contains(words) && error.contains("`ids` (N)"), "{words}: {error}");
    }
    std::fs::write(&path, "not a file of tensors").unwrap();
    assert!(ItemSource::of_file(&path).is_err() && ItemSource::ids_of_file(&path).is_err());
}

#[test]
fn a_distilled_gate_and_inverted_lists_stay_with_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = first(60);
    let lists = Some(ListOptions::new(4));
    let options = small().with_lists(lists).with_segment_items(40);
    let index = catalog.stored(folder.path(), options);
    let reader = open(folder.path());
    index.distill(&queries(8)).unwrap();
    index.add(&[5, 6, 7], &rows(&[5, 6, 7], 1)).unwrap();
    assert!(reader.refresh().unwrap());
    index.distill(&queries(3)).unwrap();
    assert!(reader.refresh().unwrap());
    assert!(ItemIndex::verify(folder.path()).unwrap().is_sound());
    let gates = files(folder.path()).iter().filter(|name| name.contains("distilled")).count();
    assert_eq!(gates, 1, "the first gate has gone");
    let lists = |index: &ItemIndex| -> Vec<usize> {
        index.snapshot().segments().iter().map(|segment| segment.tables().lists.len()).collect()
    };
    assert_eq!(lists(&index), [4, 4, 0], "lists of three components and of all together; none of a few items");
    let (index, reader) = (Arc::new(Searcher::new(index)), Arc::new(Searcher::new(reader)));
    let opened = Arc::new(Searcher::new(open(folder.path())));
    for algorithm in ["distilled:12", "tangent:9", "cascade:20_10", "naive-ivf:3@1", "tangent-ivf:8@2"] {
        let expected = hits(&index, algorithm.parse().unwrap(), 6);
        assert_eq!(hits(&reader, algorithm.parse().unwrap(), 6), expected, "{algorithm}, refreshed");
        assert_eq!(hits(&opened, algorithm.parse().unwrap(), 6), expected, "{algorithm}, opened");
    }
}

/// Components of 4x16 numbers out of embeddings of 6 have few principal directions, which a folder keeps.
#[test]
fn principal_directions_stay_with_the_folder() {
    let mut random = Random::new(12);
    let shape = Shape { p_q: 2, p_x: 4, d_p: 16, uid_sizes: vec![], ..Shape::default() };
    let (mol, items) = (shape.mol(&mut random, 6), random.tensor(&[600, 6], 1.0));
    let batch = QueryBatch::new(random.tensor(&[4, 6], 1.0));
    for form in [Form::Components, Form::Raw] {
        let folder = tempfile::tempdir().unwrap();
        let options = options(Dtype::I8, form).with_segment_items(250);
        let model = IndexModel::similarity(Similarity { mol: mol.clone(), distilled: None });
        let source = ItemSource::of_embeddings((0..600).collect(), items.clone());
        let created = ItemIndex::create(folder.path(), &[Arc::new(Cpu::default())], model, options, source).unwrap();
        created.add(&[700], &Tensor::new(vec![1, 6], items.row(3).to_vec()).unwrap()).unwrap();
        created.remove(&[5]).unwrap();
        let opened = open(folder.path());
        let width = |index: &ItemIndex| {
            index.snapshot().similarity().unwrap().mol.principal.as_ref().map(|layer| (layer.n_in, layer.n_out))
        };
        assert!(width(&created).is_some_and(|(n_in, n_out)| n_in == 64 && n_out <= 32), "{:?}", width(&created));
        assert_eq!(width(&opened), width(&created));
        assert!(ItemIndex::verify(folder.path()).unwrap().is_sound());
        created.compact().unwrap();
        assert!(opened.refresh().unwrap());
        let search = |index| {
            let request = Algorithm::Tangent { candidates: 60 };
            Searcher::new(index).search(request, &batch, 10, &[]).unwrap()
        };
        assert_eq!(search(opened), search(created), "{form:?}");
    }
}

/// What reads beyond the end of a mapped file is ended by the system: that must be found out before.
#[cfg(unix)]
#[test]
fn a_file_that_was_cut_short_while_it_was_in_use_is_an_error() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("index");
    let mut random = Random::new(12);
    let mol = Shape { uid_sizes: Vec::new(), ..Shape::default() }.mol(&mut random, 6);
    let (ids, items): (Vec<u64>, Tensor) = ((0..40).collect(), random.tensor(&[40, 6], 1.0));
    let builder = Searcher::builder().embeddings(&ids, &items).mol(&mol).device("cpu").save_to(&folder);
    let searcher = builder.options(IndexOptions::default().with_segment_items(20)).build().unwrap();
    let queries = QueryBatch::new(random.tensor(&[2, 6], 1.0));
    let search = || searcher.search(Algorithm::Exact, &queries, 5, &[]);
    let expected = search().unwrap();
    let index = searcher.index();
    let file = folder.join(index.snapshot().segments()[1].file().unwrap());
    let whole = std::fs::read(&file).unwrap();
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(0).unwrap();
    let exclude: &[&[u64]] = &[&[25], &[30]];
    let searches = [
        search().map(|_| ()),
        searcher.search(Algorithm::Tangent { candidates: 9 }, &queries, 5, exclude).map(|_| ()),
        searcher.candidates(Algorithm::Avg { candidates: 9 }, &queries, exclude).map(|_| ()),
        searcher.rescore(&queries, &[&[25], &[30]]).map(|_| ()),
        index.save(temporary.path().join("other")),
    ];
    let changes = [
        index.remove(&[25]).map(|_| ()),
        index.add(&[25], &items.select_rows(&[1])),
        index.distill(&queries),
        index.compact(),
    ];
    let words = format!("expected {} bytes, found 0", whole.len());
    for (errors, words) in [(&searches[..], format!("it was changed while it was in use: {words}")), (&changes, words)]
    {
        for error in errors {
            let error = error.as_ref().unwrap_err().to_string();
            assert!(error.contains(&words) && error.contains(file.to_str().unwrap()), "{error}");
        }
    }
    // The same file, whole again.
    std::fs::write(&file, whole).unwrap();
    assert_eq!(search().unwrap(), expected);
}

#[test]
fn string_ids_stay_with_their_items_in_memory_and_in_folders() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..30).map(|i| format!("item {i}")).collect();
    let items = Random::new(5).tensor(&[33, DIM], 1.0);
    let some = |range: Range<usize>| items.select_rows(&range.collect::<Vec<usize>>());
    let source = || ItemSource::of_embeddings(vec![0; 30], some(0..30)).with_string_ids(names.clone()).unwrap();
    let stored =
        ItemIndex::create(folder.path(), &cpu(), IndexModel::dot(DIM), small().with_segment_items(8), source())
            .unwrap();
    let memory =
        ItemIndex::from_source(&[cpu(), cpu()].concat(), None, small().with_segment_items(8), source()).unwrap();
    let check = |index: &ItemIndex, known: &[(String, usize)]| {
        let snapshot = index.snapshot();
        let mut found = index.string_ids();
        found.sort_unstable();
        let mut expected: Vec<&String> = known.iter().map(|(name, _)| name).collect();
        expected.sort_unstable();
        assert!(found.iter().eq(expected));
        for (name, row) in known {
            let id = snapshot.id_of(name).unwrap();
            assert_eq!((snapshot.string_id(id), snapshot.id_of(&format!("{name}?"))), (Some(name.as_str()), None));
            let of_segment = |segment: &Segment| Some(segment.tables().raw.read_rows(position(segment, id)?));
            let raw = snapshot.segments().iter().find_map(of_segment).unwrap();
            assert_eq!(raw, items.row(*row), "{name}");
        }
    };
    let mut known: Vec<(String, usize)> = names.iter().cloned().zip(0..).collect();
    for index in [&stored, &memory] {
        check(index, &known);
        index.add_strings(&["new".to_string(), names[7].clone(), "é".to_string()], &some(30..33)).unwrap();
        assert_eq!(index.remove_strings(&["item 3", "item 29", "nothing"]).unwrap(), 2);
    }
    known.retain(|(name, _)| !["item 3", "item 29"].contains(&name.as_str()));
    known.iter_mut().filter(|(name, _)| *name == names[7]).for_each(|(_, row)| *row = 31);
    known.extend([("new".to_string(), 30), ("é".to_string(), 32)]);
    let opened = || ItemIndex::open(folder.path(), &cpu(), OpenOptions::default()).unwrap();
    [&stored, &memory, &opened()].into_iter().for_each(|index| check(index, &known));
    [&stored, &memory].into_iter().for_each(|index| index.compact().unwrap());
    [&stored, &memory, &opened()].into_iter().for_each(|index| check(index, &known));
    assert!(ItemIndex::verify(folder.path()).unwrap().is_sound());
    // What others have added is removed, too.
    opened().add_strings(&["late".to_string()], &some(0..1)).unwrap();
    assert_eq!(stored.remove_strings(&["late"]).unwrap(), 1);

    let error = |result: rails_wgpu::Result<()>| result.unwrap_err().to_string();
    assert!(error(stored.add(&[5], &some(0..1))).contains("expected strings, as those of the index, found numbers"));
    let numbers = ItemIndex::from_embeddings(&Cpu::default(), &[1, 2], &some(0..2), None, Dtype::F32).unwrap();
    let strings = ["a".to_string()];
    assert!(error(numbers.add_strings(&strings, &some(0..1))).contains("expected numbers, as those of the index"));
    assert!(error(stored.add_strings(&strings, &some(0..2))).contains("expected 2, one per embedding, found 1"));
    check(&stored, &known);
    #[cfg(unix)]
    {
        let file = folder.path().join(stored.snapshot().segments()[0].file().unwrap());
        std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(0).unwrap();
        assert!(error(stored.remove_strings(&["new"]).map(|_| ())).contains("found 0"));
    }
}

/// The row of an item in a segment that has it.
fn position(segment: &Segment, id: u64) -> Option<Range<usize>> {
    segment.position(id).map(|position| position as usize..position as usize + 1)
}
