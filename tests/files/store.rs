//! The folder of an index: versions, writers and readers, damage.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use rails_wgpu::store::{Dtype, Store, TensorSpec, Transaction};
use safetensors::SafeTensors;
use serde_json::json;

/// Set in the child process of the test that kills it: the folder to write to.
const CHILD: &str = "RAILS_STORE_TEST_FOLDER";

fn spec(name: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
    TensorSpec { name: name.to_string(), dtype, shape: shape.to_vec() }
}

/// Adds a file with one tensor `values`.
fn add(transaction: &Transaction, stem: &str, values: &[u32]) -> String {
    let tensor = spec("values", Dtype::U32, &[values.len()]);
    let mut file = transaction.file(stem, &BTreeMap::new(), &[tensor]).unwrap();
    file.write("values", bytemuck::cast_slice(values)).unwrap();
    file.finish().unwrap()
}

/// A store of two small files, generation 1.
fn small() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let transaction = Store::create(folder.path()).unwrap().write().unwrap();
    let names = [add(&transaction, "a", &[1, 2, 3]), add(&transaction, "b", &[4, 5, 6])];
    let store = transaction.commit(json!({ "files": names })).unwrap();
    (folder, store)
}

fn names(store: &Store) -> Vec<String> {
    store.shards().map(|shard| shard.name().to_string()).collect()
}

fn values(store: &Store, name: &str) -> Vec<u32> {
    store.shard(name).unwrap().tensor("values").unwrap().values::<u32>().unwrap().to_vec()
}

/// All files of the folder and their bytes.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn message<T: std::fmt::Debug>(result: rails_wgpu::Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_version_is_read_as_it_was_written_and_outlives_its_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path().join("new/index")).unwrap();
    assert_eq!((store.generation(), store.content()), (0, &serde_json::Value::Null));

    // More than two blocks of ids, written in uneven pieces, with another tensor between them.
    let ids: Vec<u64> = (0..300_000).map(|i| i * i).collect();
    let half = [half::f16::from_f32(1.5), half::f16::from_f32(-2.0)];
    let transaction = store.write().unwrap();
    let metadata = BTreeMap::from([("kind".to_string(), "items".to_string())]);
    let tensors = [
        spec("half", Dtype::F16, &[2, 1]),
        spec("ids", Dtype::U64, &[ids.len()]),
        spec("none", Dtype::F32, &[0, 7]),
        spec("last", Dtype::I8, &[1]),
    ];
    let mut file = transaction.file("items", &metadata, &tensors).unwrap();
    for (i, bytes) in bytemuck::cast_slice(&ids).chunks(777_777).enumerate() {
        file.write("ids", bytes).unwrap();
        if i == 1 {
            file.write("half", bytemuck::cast_slice(&half)).unwrap();
        }
    }
    file.write("last", &[0xff]).unwrap();
    let name = file.finish().unwrap();
    assert_eq!(name, "00000001-0001-items.safetensors");
    let content = json!({ "items": name, "dim": 50 });
    transaction.commit(content.clone()).unwrap();

    let store = Store::open(store.folder()).unwrap();
    assert_eq!((store.generation(), store.content()), (1, &content));
    let shard = store.shard(&name).unwrap().clone();
    assert_eq!(shard.tensors().collect::<Vec<_>>(), ["half", "ids", "none", "last"]);
    assert_eq!(shard.metadata()["kind"], "items");
    assert_eq!(shard.bytes(), fs::metadata(shard.path()).unwrap().len());
    shard.tensors().for_each(|tensor| shard.check(tensor).unwrap());
    let tensor = |name| shard.tensor(name).unwrap();
    assert_eq!((tensor("half").dtype(), tensor("half").shape()), (Dtype::F16, &[2, 1][..]));
    assert_eq!(tensor("half").values::<half::f16>().unwrap(), half);
    assert_eq!(tensor("half").values::<u16>(), None);
    assert_eq!(tensor("none").values::<f32>().unwrap(), [0f32; 0]);
    assert_eq!(tensor("last").values::<i8>().unwrap(), [-1]);
    let missing = message(shard.tensor("idz"));
    assert!(missing.contains("`idz`") && missing.contains("half, ids"), "{missing}");
    let mapped = tensor("ids");
    let report = Store::verify(store.folder()).unwrap();
    assert!(report.is_sound() && report.files == 1 && report.bytes == shard.bytes(), "{report:?}");

    // Other programs can read the file.
    let bytes = fs::read(shard.path()).unwrap();
    let theirs = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(theirs.tensor("ids").unwrap().data(), bytemuck::cast_slice::<u64, u8>(&ids));

    drop((store, shard));
    if cfg!(unix) {
        drop(folder);
    }
    assert_eq!(mapped.values::<u64>().unwrap(), ids);
}

#[test]
fn files_are_kept_added_and_removed() {
    let (folder, old) = small();
    let [a, b] = names(&old).try_into().unwrap();
    let mut transaction = old.write().unwrap();
    assert!(message(transaction.remove("c")).contains('c'));
    transaction.remove(&a).unwrap();
    let c = add(&transaction, "a", &[7]);
    let new = transaction.commit(json!(2)).unwrap();
    assert_eq!(names(&new), [b.clone(), c.clone()]);
    assert_eq!(names(&Store::open(folder.path()).unwrap()), names(&new));
    assert_eq!((values(&new, &b), values(&new, &c)), (vec![4, 5, 6], vec![7]));
    if cfg!(unix) {
        // Elsewhere a mapped file may have to wait for the next writer.
        assert!(!folder.path().join(&a).exists());
        assert_eq!(values(&old, &a), [1, 2, 3]);
    }
    assert!(message(new.shard(&a)).contains(&a));

    // A writer begins with the latest version, whatever store it comes from.
    let transaction = old.write().unwrap();
    assert_eq!(transaction.base().generation(), 2);
    assert_eq!(names(&transaction.commit(json!(3)).unwrap()), [b, c]);
}

#[test]
fn there_is_one_writer_and_readers_do_not_wait() {
    let (folder, store) = small();
    let writer = store.write().unwrap();
    let refused = message(store.write());
    assert!(refused.contains("another program is writing") && refused.contains("wait"), "{refused}");
    add(&writer, "c", &[9]);
    assert_eq!(names(&Store::open(folder.path()).unwrap()), names(&store));
    drop(writer);
    store.write().unwrap();
}

#[test]
fn a_dropped_transaction_leaves_nothing() {
    let (folder, store) = small();
    let before = snapshot(folder.path());
    let mut transaction = store.write().unwrap();
    add(&transaction, "c", &[9]);
    let tensor = [spec("values", Dtype::U32, &[1])];
    let unfinished = transaction.file("d", &BTreeMap::new(), &tensor).unwrap();
    assert_eq!(snapshot(folder.path()).len(), before.len() + 2);
    drop(unfinished);
    transaction.remove(&names(&store)[0]).unwrap();
    drop(transaction);
    assert_eq!(snapshot(folder.path()), before);
}

#[test]
fn a_wrong_file_does_not_get_into_a_version() {
    let (folder, store) = small();
    let transaction = store.write().unwrap();
    let none = BTreeMap::new();
    let begin = |tensors: &[TensorSpec]| transaction.file("c", &none, tensors);
    let mut file = begin(&[spec("x", Dtype::U8, &[3])]).unwrap();
    file.write("x", &[1, 2]).unwrap();
    assert!(message(file.write("y", &[1])).contains("`y`"));
    assert!(message(file.write("x", &[1, 2])).contains("3 bytes"));
    assert!(message(file.finish()).contains("3 bytes for `x`"));
    assert!(message(begin(&[spec("x", Dtype::U8, &[3]), spec("x", Dtype::U8, &[3])])).contains("twice"));
    assert!(message(begin(&[spec("__x", Dtype::U8, &[3])])).contains("__x"));
    let own = BTreeMap::from([("file".to_string(), String::new())]);
    assert!(message(transaction.file("c", &own, &[])).contains("`file`"));
    for stem in ["", "../c", "a b", "é"] {
        assert!(message(transaction.file(stem, &none, &[])).contains("1 to 64"), "{stem}");
    }
    let new = transaction.commit(json!(null)).unwrap();
    assert_eq!(names(&new), names(&store));
    assert_eq!(snapshot(folder.path()).len(), 4);
}

/// A writer that fails at each step in turn; after each the previous version must be there, and nothing else.
#[test]
fn a_failed_transaction_keeps_the_previous_version() {
    let (folder, store) = small();
    let path = folder.path();
    let before = snapshot(path);
    let is_before = |step: &str| {
        assert_eq!(snapshot(path), before, "{step}");
        assert_eq!(names(&Store::open(path).unwrap()), names(&store), "{step}");
    };

    // A new file cannot be made.
    let obstacle = path.join("00000002-0001-c.safetensors");
    fs::create_dir(&obstacle).unwrap();
    let transaction = store.write().unwrap();
    let failed = message(transaction.file("c", &BTreeMap::new(), &[]));
    assert!(failed.contains("00000002-0001-c") && failed.contains("nothing that was saved"), "{failed}");
    fs::remove_dir(&obstacle).unwrap();
    drop(transaction);
    is_before("file");

    // A new file is damaged before the commit.
    let transaction = store.write().unwrap();
    let name = add(&transaction, "c", &[9]);
    fs::write(path.join(&name), "short").unwrap();
    let failed = message(transaction.commit(json!(2)));
    assert!(failed.contains(&name) && failed.contains("found 5"), "{failed}");
    is_before("check");

    // The new manifest cannot be made.
    let obstacle = path.join(format!(".manifest.json.{}.tmp", std::process::id()));
    fs::create_dir(&obstacle).unwrap();
    let transaction = store.write().unwrap();
    add(&transaction, "c", &[9]);
    let failed = message(transaction.commit(json!(2)));
    assert!(failed.contains("manifest.json: cannot be written") && failed.contains("move what has this"), "{failed}");
    fs::remove_dir(&obstacle).unwrap();
    is_before("manifest");

    // It cannot take its name.
    let transaction = store.write().unwrap();
    let name = add(&transaction, "c", &[9]);
    let manifest = path.join("manifest.json");
    fs::rename(&manifest, path.join("aside")).unwrap();
    fs::create_dir(&manifest).unwrap();
    let failed = message(transaction.commit(json!(2)));
    assert!(failed.contains("manifest.json: cannot be written"), "{failed}");
    // What is in place cannot be read, so nothing was removed.
    assert!(path.join(&name).exists());
    fs::remove_dir(&manifest).unwrap();
    fs::rename(path.join("aside"), &manifest).unwrap();
    assert_eq!(names(&Store::open(path).unwrap()), names(&store));
    drop(store.write().unwrap());
    is_before("rename");
}

#[test]
fn what_an_interrupted_writer_left_is_ignored_and_removed() {
    let (folder, store) = small();
    let before = snapshot(folder.path());
    let left = ["00000002-0001-c.safetensors", ".manifest.json.1.tmp", ".manifest.json.99999999.tmp"];
    left.iter().for_each(|name| fs::write(folder.path().join(name), "half").unwrap());
    assert_eq!(names(&Store::open(folder.path()).unwrap()), names(&store));
    assert!(Store::verify(folder.path()).unwrap().is_sound());
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let transaction = store.write().unwrap();
    assert_eq!(add(&transaction, "c", &[9]), left[0]);
    drop(transaction);
    fs::remove_file(folder.path().join("notes.txt")).unwrap();
    assert_eq!(snapshot(folder.path()), before);
}

#[test]
fn every_flipped_bit_is_found() {
    let (folder, store) = small();
    let expected = names(&store);
    drop(store);
    for (path, bytes) in snapshot(folder.path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "lock" {
            continue;
        }
        let header = match name {
            "manifest.json" => bytes.len(),
            _ => 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap(),
        };
        // In place: some file systems wait for the disk when a file is replaced.
        let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let mut put = |position: usize, byte: u8| {
            file.seek(SeekFrom::Start(position as u64)).unwrap();
            file.write_all(&[byte]).unwrap();
        };
        for bit in 0..bytes.len() * 8 {
            put(bit / 8, bytes[bit / 8] ^ (1 << (bit % 8)));
            let opened = Store::open(folder.path());
            if bit / 8 < header {
                assert!(message(opened).contains(name), "{name}, bit {bit}");
            } else {
                let damaged = message(opened.unwrap().shard(name).unwrap().check("values"));
                assert!(damaged.contains(name) && damaged.contains("`values`"), "{damaged}");
            }
            match Store::verify(folder.path()) {
                Err(error) => assert!(name == "manifest.json" && error.to_string().contains("verify"), "{error}"),
                Ok(report) => {
                    assert_eq!(report.damage.len(), 1, "{name}, bit {bit}");
                    assert_eq!(report.damage[0].path, path);
                }
            }
            put(bit / 8, bytes[bit / 8]);
        }
    }
    assert!(Store::verify(folder.path()).unwrap().is_sound());
    assert_eq!(names(&Store::open(folder.path()).unwrap()), expected);
}

#[test]
fn missing_truncated_and_swapped_files_are_all_listed() {
    let (folder, store) = small();
    let transaction = store.write().unwrap();
    let c = add(&transaction, "c", &[0; 600_000]);
    let d = add(&transaction, "d", &[7; 3]);
    drop((store, transaction.commit(json!(null)).unwrap()));
    let path = |name: &str| folder.path().join(name);
    let [a, b, ..] = ["00000001-0001-a.safetensors", "00000001-0002-b.safetensors"];

    let swap = |one: &str, other: &str| {
        fs::rename(path(one), path("aside")).unwrap();
        fs::rename(path(other), path(one)).unwrap();
        fs::rename(path("aside"), path(other)).unwrap();
    };
    swap(a, b);
    let swapped = message(Store::open(folder.path()));
    assert!(swapped.contains(a), "{swapped}");
    let mut bytes = fs::read(path(&c)).unwrap();
    let data = bytes.len() - 600_000 * 4;
    bytes[data] = 1;
    bytes[data + 2_000_000] = 1;
    fs::write(path(&c), &bytes).unwrap();
    fs::remove_file(path(&d)).unwrap();
    let report = Store::verify(folder.path()).unwrap();
    let damage: Vec<_> = report.damage.iter().map(|damage| (damage.path.clone(), damage.what.as_str())).collect();
    let [first, second, third, fourth] = damage.try_into().unwrap();
    assert_eq!([&first.0, &second.0, &third.0, &fourth.0], [&path(a), &path(b), &path(&c), &path(&d)]);
    assert!(first.1.contains("header") && second.1.contains("header"), "{first:?} {second:?}");
    assert!(third.1.contains("2 damaged blocks; tensor `values`: bytes"), "{third:?}");
    assert!(fourth.1.contains("cannot be read"), "{fourth:?}");

    swap(a, b);
    assert!(message(Store::open(folder.path())).contains(&d));
    fs::copy(path(a), path(&d)).unwrap();
    assert!(message(Store::open(folder.path())).contains(&d));
    for len in [bytes.len() - 1, bytes.len() + 1, 0] {
        let mut other = bytes.clone();
        other.resize(len, 0);
        fs::write(path(&c), &other).unwrap();
        let found = message(Store::open(folder.path()));
        assert!(found.contains(&c) && found.contains(&format!("found {len}")) && found.contains("copy"), "{found}");
        let report = Store::verify(folder.path()).unwrap();
        assert_eq!(report.damage.iter().map(|damage| &damage.path).collect::<Vec<_>>(), [&path(&c), &path(&d)]);
    }
    fs::remove_file(path("manifest.json")).unwrap();
    assert!(message(Store::open(folder.path())).contains("manifest is missing"));
    assert!(message(Store::create(folder.path())).contains("manifest is missing"));
}

#[test]
fn folders_that_hold_no_index_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    assert!(message(Store::open(folder.path())).contains("no index here"));
    assert!(message(Store::open(folder.path().join("no"))).contains("no index here"));
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(message(Store::open(&file)).contains("give the folder of an index"));
    assert!(message(Store::create(&file)).contains("cannot be written"));
    let error = message(Store::create(folder.path()));
    assert!(error.contains("the folder holds something else: `file`") && error.contains("an empty one"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was written");
    fs::remove_file(&file).unwrap();
    Store::create(folder.path()).unwrap();
    assert!(message(Store::create(folder.path())).contains("an index already"));
    fs::write(folder.path().join("manifest.json"), "{}").unwrap();
    assert!(message(Store::open(folder.path())).contains("manifest is damaged"));
}

/// A pipe would wait for a writer for ever, and a link as the lock would have its target made.
#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_opened() {
    use std::os::unix::fs::symlink;
    let (folder, store) = small();
    let at = |name: &str| folder.path().join(name);
    let pipe = |name: &str| {
        fs::remove_file(at(name)).unwrap();
        assert!(Command::new("mkfifo").arg(at(name)).status().unwrap().success());
    };
    let lock = || message(store.write());
    pipe("lock");
    assert!(lock().contains("expected a file, found a pipe; remove it"), "{}", lock());
    fs::remove_file(at("lock")).unwrap();
    symlink("elsewhere", at("lock")).unwrap();
    assert!(lock().contains("found a symbolic link") && !at("elsewhere").exists(), "{}", lock());
    let shard = names(&store)[0].clone();
    pipe(&shard);
    assert!(message(Store::open(folder.path())).contains("expected a file, found a pipe"));
    let report = Store::verify(folder.path()).unwrap();
    assert!(report.damage[0].what.ends_with("expected a file, found a pipe"), "{report:?}");
    pipe("manifest.json");
    assert!(message(Store::open(folder.path())).contains("manifest.json: cannot be read: expected a file"));
}

/// One version after the other, each of a file that is removed by the next one.
fn commit_next(store: &Store) -> Store {
    let mut transaction = store.write().unwrap();
    let generation = u32::try_from(transaction.base().generation()).unwrap() + 1;
    names(transaction.base()).iter().for_each(|name| transaction.remove(name).unwrap());
    let name = add(&transaction, "items", &vec![generation; 100]);
    transaction.commit(json!({ "items": name, "value": generation })).unwrap()
}

/// Asserts that the latest version fits together; returns its generation.
fn assert_consistent(folder: &Path) -> u64 {
    let store = Store::open(folder).unwrap();
    let content = store.content();
    if store.generation() > 0 {
        assert_eq!(content["value"], store.generation());
        let name = content["items"].as_str().unwrap();
        store.shard(name).unwrap().check("values").unwrap();
        assert_eq!(values(&store, name), vec![u32::try_from(store.generation()).unwrap(); 100]);
    }
    store.generation()
}

#[test]
fn a_reader_sees_whole_versions_while_a_writer_commits() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let verifier = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert!(Store::verify(folder.path()).unwrap().is_sound());
            }
        });
        let reader = scope.spawn(|| {
            let mut seen = vec![0];
            while !done.load(Ordering::Relaxed) {
                seen.push(assert_consistent(folder.path()));
            }
            assert!(seen.is_sorted());
            seen.dedup();
            seen.len()
        });
        {
            let _done = Done(&done);
            let last = (0..200).fold(store, |store, _| commit_next(&store));
            assert_eq!(last.generation(), 200);
        }
        verifier.join().unwrap();
        assert!(reader.join().unwrap() > 2);
    });
    assert_eq!(assert_consistent(folder.path()), 200);
    assert_eq!(snapshot(folder.path()).len(), 3);
}

/// Ends the threads of a test even if it fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the killed process does; does nothing when the tests are run.
#[test]
fn child_that_commits_until_it_is_killed() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let mut store = Store::open(folder).unwrap();
    loop {
        store = commit_next(&store);
    }
}

#[test]
fn a_killed_writer_leaves_a_whole_version() {
    let folder = tempfile::tempdir().unwrap();
    Store::create(folder.path()).unwrap();
    let mut generation = 0;
    for round in 0..25 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::child_that_commits_until_it_is_killed"])
            .env(CHILD, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(20_000 + 1_370 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let now = assert_consistent(folder.path());
        assert!(now >= generation);
        generation = now;
        assert!(Store::verify(folder.path()).unwrap().is_sound());
    }
    assert!(generation > 0, "the child never came to a commit");
    // The lock died with the process, and the next writer tidies up.
    commit_next(&Store::open(folder.path()).unwrap());
    assert_eq!(snapshot(folder.path()).len(), 3);
}

fn tensors() -> impl Strategy<Value = Vec<(TensorSpec, Vec<u8>)>> {
    let dtypes = prop::sample::select(vec![Dtype::U8, Dtype::BOOL, Dtype::F16, Dtype::F32, Dtype::U64]);
    let tensor = (dtypes, prop::collection::vec(0usize..7, 0..4)).prop_flat_map(|(dtype, shape)| {
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        (Just(dtype), Just(shape), prop::collection::vec(any::<u8>(), bytes))
    });
    prop::collection::btree_map("[a-zA-Z0-9.\"é ]{1,12}", tensor, 0..6).prop_map(|tensors| {
        tensors.into_iter().map(|(name, (dtype, shape, bytes))| (TensorSpec { name, dtype, shape }, bytes)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tensors_come_back(tensors in tensors().prop_shuffle(), piece in 1usize..100, flip in any::<prop::sample::Index>()) {
        let folder = tempfile::tempdir().unwrap();
        let transaction = Store::create(folder.path()).unwrap().write().unwrap();
        let specs: Vec<TensorSpec> = tensors.iter().map(|(spec, _)| spec.clone()).collect();
        let mut file = transaction.file("any", &BTreeMap::new(), &specs).unwrap();
        // The tensors take turns.
        for turn in 0..tensors.iter().map(|(_, bytes)| bytes.len()).max().unwrap_or(0).div_ceil(piece) {
            for (spec, bytes) in &tensors {
                if let Some(bytes) = bytes.chunks(piece).nth(turn) {
                    file.write(&spec.name, bytes).unwrap();
                }
            }
        }
        let name = file.finish().unwrap();
        transaction.commit(json!({ "name": name })).unwrap();

        let store = Store::open(folder.path()).unwrap();
        let shard = store.shard(&name).unwrap();
        let mut found: Vec<&str> = shard.tensors().collect();
        let mut expected: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        found.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(found, expected);
        for (spec, bytes) in &tensors {
            let tensor = shard.tensor(&spec.name).unwrap();
            prop_assert_eq!(tensor.bytes(), bytes.as_slice());
            prop_assert_eq!((tensor.dtype(), tensor.shape()), (spec.dtype, spec.shape.as_slice()));
            prop_assert!(bytes.is_empty() || tensor.bytes().as_ptr().addr().is_multiple_of(64));
            shard.check(&spec.name).unwrap();
        }
        prop_assert!(Store::verify(folder.path()).unwrap().is_sound());

        let path = shard.path().to_path_buf();
        drop(store);
        let mut bytes = fs::read(&path).unwrap();
        SafeTensors::deserialize(&bytes).unwrap();
        let bit = flip.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bytes).unwrap();
        prop_assert!(!Store::verify(folder.path()).unwrap().is_sound());
    }
}
