//! Index folders under kill -9, flipped bits, truncation, full disks and read-only folders, mostly through the program.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use std::time::Instant;

use crate::catalog::{Catalog, cpu};
use crate::models::Random;
use rails_wgpu::ModelFile;
use rails_wgpu::backend::{Dtype, QueryBatch};
use rails_wgpu::index::{IndexModel, IndexOptions, ItemIndex, ItemSource, OpenOptions};
use rails_wgpu::search::{Algorithm, Hit, Searcher};
use rails_wgpu::tables::Form;

const PROGRAM: &str = env!("CARGO_BIN_EXE_rails-bench");
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/oracle/tiny_hstu_mol/model.pt");
const WIDTH: usize = 16;

/// Kills of each of the three writing commands.
const KILLS: usize = 70;

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.current_dir(crate::ROOT).args(args).stdin(Stdio::null());
    command.env_remove("RAILS_DEVICE").env_remove("RAILS_CHECKPOINT").env_remove("RAILS_CONFIG");
    command
}

fn succeeds(args: &[&str]) -> String {
    let output = program(args).output().unwrap();
    assert!(output.status.success(), "{args:?} failed:\n{}", message(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What a command that failed in an orderly way said.
fn failure(output: &Output) -> String {
    let message = message(output);
    assert!(output.status.code() == Some(1) && !message.contains("panicked"), "{:?}: {message}", output.status);
    message
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Ids, hits that depend on every item, and the ids of some by their attributes.
type Contents = (Vec<u64>, Vec<Vec<Hit>>, Vec<u64>);

fn contents(index: ItemIndex) -> Contents {
    searched(index).unwrap()
}

fn searched(index: ItemIndex) -> rails_wgpu::Result<Contents> {
    let (ids, width) = (index.ids(), index.snapshot().segments()[0].tables().raw.width());
    let queries = QueryBatch::new(Random::new(4).tensor(&[3, width], 1.0)).with_users([1, 2, 3]);
    let some = match index.columns() {
        [] => Vec::new(),
        _ => index.matching_ids(&"year < 40".parse()?)?,
    };
    let n = ids.len();
    Ok((ids, Searcher::new(index).search(Algorithm::Exact, &queries, n, &[])?, some))
}

fn open(folder: &Path) -> rails_wgpu::Result<ItemIndex> {
    ItemIndex::open(folder, &cpu(), OpenOptions::default())
}

/// Files of a folder that its version does not name.
fn left_behind(folder: &Path) -> Vec<String> {
    let manifest = fs::read_to_string(folder.join("manifest.json")).unwrap_or_default();
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "lock" && name != "manifest.json" && !manifest.contains(&format!("\"{name}\"")));
    names
}

/// Asserts that a folder holds nothing but the files of its version, after the next write.
fn next_write_succeeds_and_cleans_up(folder: &Path) {
    let index = open(folder).unwrap();
    let id = 1_000_000;
    index.add(&[id], &Random::new(1).tensor(&[1, WIDTH], 1.0)).unwrap();
    assert!(index.contains(id) && open(folder).unwrap().contains(id));
    assert_eq!(left_behind(folder), [""; 0]);
}

/// Kills `command` again and again at random moments of its work in `folder`; `before` makes that ready and `check` looks at
/// what is left, and says whether the work was done.
fn kill(command: &[&str], folder: &Path, before: impl Fn(), check: impl Fn() -> bool) {
    // How long the work takes when nothing else happens; the least of three.
    let took = (0..3).map(|_| {
        before();
        let started = Instant::now();
        succeeds(command);
        let took = started.elapsed();
        assert!(check(), "the work was not done");
        took
    });
    let took = took.min().unwrap();
    let mut random = Random::new(command[1].len() as u64);
    let (mut killed, mut amid, mut done, mut runs) = (0, 0, 0, 0);
    while killed < KILLS {
        runs += 1;
        assert!(runs < 10 * KILLS, "{killed} kills in {runs} runs: the program is too fast");
        before();
        let mut child = program(command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(took.mul_f32(0.1 + 0.9 * random.number().abs()));
        child.kill().unwrap();
        killed += usize::from(child.wait().unwrap().signal() == Some(9));
        amid += usize::from(!left_behind(folder).is_empty());
        done += usize::from(check());
    }
    println!(
        "{command:?}: {killed} of {runs} runs killed within {took:?}, {amid} amid files; in {done} the work was done"
    );
    assert!(amid > KILLS / 5, "only {amid} kills came amid the writing");
}

/// An index of 600 items in segments of 20.
fn many_segments(folder: &Path) {
    build(folder, &[]);
}

fn build(folder: &Path, more: &[&str]) {
    let items = ["--items", "random:600", "--segment-items", "20", "--device", "cpu"];
    let mut args = vec!["index", "build", "--checkpoint", MODEL, "-o", text(folder)];
    args.extend(items);
    args.extend(more);
    succeeds(&args);
}

/// A file of attributes of items 1 to `n`.
fn attributes(path: &Path, n: usize, factor: usize) -> &str {
    let rows = (1..=n).map(|id| format!("{id},{}\n", id * factor % 100));
    fs::write(path, format!("id,year\n{}", rows.collect::<String>())).unwrap();
    text(path)
}

#[test]
fn a_killed_build_leaves_nothing_or_all() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("index");
    many_segments(&folder);
    let all = contents(open(&folder).unwrap());
    let args = ["--items", "random:600", "--segment-items", "20", "--device", "cpu"];
    let mut command = vec!["index", "build", "--checkpoint", MODEL, "-o", text(&folder)];
    command.extend(args);
    let file = ModelFile::open(MODEL, None).unwrap();
    kill(
        &command,
        &folder,
        || {
            let _ = fs::remove_dir_all(&folder);
        },
        || match open(&folder) {
            Ok(index) => {
                assert!(ItemIndex::verify(&folder).unwrap().is_sound());
                assert_eq!(contents(index), all);
                next_write_succeeds_and_cleans_up(&folder);
                true
            }
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("no index here") || error.contains("interrupted"), "{error}");
                if error.contains("interrupted") {
                    let damage = ItemIndex::verify(&folder).unwrap().damage;
                    assert!(damage.len() == 1 && damage[0].what.contains("interrupted"), "{damage:?}");
                }
                let model = IndexModel::file(&file).unwrap();
                let items: Vec<u64> = (1..=30).collect();
                let source = ItemSource::of_embeddings(items, Random::new(2).tensor(&[30, WIDTH], 1.0));
                ItemIndex::create(&folder, &cpu(), model, IndexOptions::default(), source).unwrap();
                next_write_succeeds_and_cleans_up(&folder);
                false
            }
        },
    );
}

/// Kills a command that changes `old`.
fn kill_change(old: &Path, command: &str, args: &[&str]) {
    let temporary = tempfile::tempdir().unwrap();
    let (folder, new) = (temporary.path().join("index"), temporary.path().join("new"));
    let with = |folder: &Path| {
        let folder = text(folder).to_string();
        let start = ["index".to_string(), command.to_string(), folder];
        start.into_iter().chain(args.iter().map(|arg| (*arg).to_string())).collect::<Vec<String>>()
    };
    copy(old, &new);
    let whole = with(&new);
    succeeds(&whole.iter().map(String::as_str).collect::<Vec<_>>());
    let (before, after) = (contents(open(old).unwrap()), contents(open(&new).unwrap()));
    let shape = |folder: &Path| {
        let info = ItemIndex::info(folder).unwrap();
        (info.segments.len(), info.deleted)
    };
    let (old_shape, new_shape) = (shape(old), shape(&new));
    assert_ne!(old_shape, new_shape);
    let command = with(&folder);
    kill(
        &command.iter().map(String::as_str).collect::<Vec<_>>(),
        &folder,
        || copy(old, &folder),
        || {
            assert!(ItemIndex::verify(&folder).unwrap().is_sound());
            let (found, found_shape) = (contents(open(&folder).unwrap()), shape(&folder));
            let is_new = found_shape == new_shape;
            assert!(is_new || found_shape == old_shape, "neither the old nor the new version: {found_shape:?}");
            assert!(if is_new { found == after } else { found == before }, "something of the other version");
            next_write_succeeds_and_cleans_up(&folder);
            is_new
        },
    );
}

#[test]
fn a_killed_add_leaves_the_old_version_or_the_new_one() {
    let temporary = tempfile::tempdir().unwrap();
    let [old, of_old, of_new] = ["old", "old.csv", "new.csv"].map(|name| temporary.path().join(name));
    build(&old, &["--attributes", attributes(&of_old, 600, 7)]);
    // Replaces half of the items, in other segments, and so touches every file.
    let with_attributes = ["--attributes", attributes(&of_new, 310, 11)];
    kill_change(&old, "add", &[&["--items", "random:310:7", "--replace"], &with_attributes[..]].concat());
}

#[test]
fn a_killed_compaction_leaves_the_old_version_or_the_new_one() {
    let temporary = tempfile::tempdir().unwrap();
    let [old, of_old] = ["old", "old.csv"].map(|name| temporary.path().join(name));
    build(&old, &["--attributes", attributes(&of_old, 600, 7)]);
    let index = open(&old).unwrap();
    index.remove(&(1..=600).filter(|id| id % 3 != 0).collect::<Vec<_>>()).unwrap();
    kill_change(&old, "compact", &[]);
}

/// A small index with every kind of file but the encoder, in `form`.
fn damaged_soon(folder: &Path, dtype: Dtype, form: Form) {
    let mut catalog = Catalog::default();
    catalog.add(&(0..60).map(|i| 5 * i).collect::<Vec<_>>(), 0);
    let options = IndexOptions::default().with_dtype(dtype).with_form(form).with_segment_items(40);
    let index = catalog.stored(folder, options);
    index.remove(&[5, 15, 200]).unwrap();
}

fn checked(folder: &Path) -> rails_wgpu::Result<ItemIndex> {
    ItemIndex::open(folder, &cpu(), OpenOptions::default().with_check(true))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.metadata().unwrap().len() > 0);
    files.sort();
    files
}

/// What is damaged, according to `verify`; `None`: nothing.
fn damage(folder: &Path) -> Option<String> {
    match ItemIndex::verify(folder) {
        Err(error) => Some(error.to_string()),
        Ok(report) if report.is_sound() => None,
        Ok(report) => Some(format!("{:?}", report.damage)),
    }
}

#[test]
fn every_flipped_bit_is_found_and_none_makes_a_wrong_answer() {
    let mut flips = 0;
    for (dtype, form) in [(Dtype::F32, Form::Components), (Dtype::F16, Form::Raw), (Dtype::I8, Form::Raw)] {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        damaged_soon(folder, dtype, form);
        let right = contents(checked(folder).unwrap());
        let mut random = Random::new(flips);
        let paths = files(folder);
        assert_eq!(paths.len(), 6, "the manifest, two segments, their deletions, the model: {paths:?}");
        for path in &paths {
            let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
            let len = file.metadata().unwrap().len();
            for _ in 0..60 {
                let at = (f64::from(random.number().abs()) * len as f64) as u64;
                let bit = 1u8 << ((random.number().abs() * 8.0) as u32).min(7);
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ bit], at).unwrap();
                let place = format!("byte {at} of {}", path.display());
                let found = damage(folder).unwrap_or_else(|| panic!("not found: {place}"));
                let name = path.file_name().unwrap().to_str().unwrap();
                assert!(found.contains(name), "{found} does not name {name}");
                match checked(folder) {
                    Err(error) => assert!(matches!(error, rails_wgpu::Error::Index { .. }), "{place}: {error}"),
                    Ok(index) => assert_eq!(contents(index), right, "{place}"),
                }
                // Without a check tables may be wrong, and a score not a number, which is an error, but nothing panics.
                if let Ok(index) = open(folder) {
                    assert_eq!(index.ids(), right.0, "{place}");
                    let error = searched(index).err();
                    assert!(matches!(error, None | Some(rails_wgpu::Error::NotScored { .. })), "{place}: {error:?}");
                }
                file.write_all_at(&byte, at).unwrap();
                flips += 1;
            }
        }
        assert_eq!(damage(folder), None);
        assert_eq!(contents(checked(folder).unwrap()), right);
    }
    assert!(flips >= 1000, "{flips}");
}

#[test]
fn every_truncated_or_missing_file_is_found() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    damaged_soon(folder, Dtype::I8, Form::Components);
    for path in files(folder) {
        let bytes = fs::read(&path).unwrap();
        for len in [0, 1, 8, 64, bytes.len() / 2, bytes.len() - 64, bytes.len() - 1] {
            fs::write(&path, &bytes[..len]).unwrap();
            assert!(damage(folder).is_some(), "{len} bytes of {}", path.display());
            let error = open(folder).err().unwrap();
            assert!(matches!(error, rails_wgpu::Error::Index { .. }), "{error}");
        }
        fs::remove_file(&path).unwrap();
        assert!(damage(folder).is_some() && open(folder).is_err());
        fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(damage(folder), None);
}

#[test]
fn verify_lists_all_damage_and_exits_with_1() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    damaged_soon(folder, Dtype::F32, Form::Components);
    assert!(succeeds(&["index", "verify", text(folder)]).contains("sound"));
    let shards: Vec<PathBuf> =
        files(folder).into_iter().filter(|path| path.extension().is_some_and(|e| e == "safetensors")).collect();
    for path in &shards[..2] {
        let len = path.metadata().unwrap().len();
        let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, len - 100).unwrap();
        file.write_all_at(&[byte[0] ^ 1], len - 100).unwrap();
    }
    fs::remove_file(&shards[2]).unwrap();
    let output = program(&["index", "verify", text(folder)]).output().unwrap();
    let list = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{list}");
    for (index, path) in shards.iter().enumerate() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(list.contains(name), index < 3, "{name}:\n{list}");
    }
    let json = program(&["index", "verify", text(folder), "--json", "-"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["sound"], json["damage"].as_array().unwrap().len()), (&false.into(), 3));
    let refused =
        failure(&program(&["index", "add", text(folder), "--items", "random:5", "--replace"]).output().unwrap());
    assert!(refused.contains("index verify"), "{refused}");
}

#[test]
fn a_compaction_does_not_copy_damaged_rows() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    damaged_soon(folder, Dtype::F32, Form::Components);
    let segment = files(folder).into_iter().find(|path| text(path).contains("items")).unwrap();
    let len = segment.metadata().unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&[77], len / 2).unwrap();
    let index = open(folder).unwrap();
    let error = index.compact().unwrap_err().to_string();
    assert!(error.contains("checksum"), "{error}");
    assert!(damage(folder).is_some(), "the damage was made to look right");
}

#[test]
fn a_full_disk_keeps_the_old_version_and_says_what_to_do() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("index");
    many_segments(&folder);
    let before = contents(open(&folder).unwrap());
    // ulimit counts blocks of 512 bytes or of 1 KiB; either is too little for 3000 items in one segment.
    let limited = |args: &str| {
        let command = format!("trap '' XFSZ; ulimit -f 16; exec {PROGRAM} {args}");
        let root = crate::ROOT;
        Command::new("sh").args(["-c", &command]).current_dir(root).stdin(Stdio::null()).output().unwrap()
    };
    let items = temporary.path().join("big.safetensors");
    let ids: Vec<u8> = (0..3000i64).flat_map(|id| (7000 + id).to_le_bytes()).collect();
    let rows: Vec<u8> =
        Random::new(6).tensor(&[3000, WIDTH], 1.0).data().iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = |dtype, shape, bytes| safetensors::tensor::TensorView::new(dtype, shape, bytes).unwrap();
    let tensors = [
        ("ids", view(safetensors::Dtype::I64, vec![3000], &ids[..])),
        ("embeddings", view(safetensors::Dtype::F32, vec![3000, WIDTH], &rows[..])),
    ];
    safetensors::serialize_to_file(tensors, None, &items).unwrap();
    // The segments of 20 fit; the manifest, which names 150 of them, does not.
    let output = limited(&format!("index add {} --items {}", text(&folder), text(&items)));
    let said = failure(&output);
    assert!(said.contains("cannot be written") && said.contains("free space or raise the limit"), "{said}");
    assert!(ItemIndex::verify(&folder).unwrap().is_sound());
    assert_eq!(contents(open(&folder).unwrap()), before);
    next_write_succeeds_and_cleans_up(&folder);

    let new = temporary.path().join("new");
    let said = failure(&limited(&format!(
        "index build --checkpoint {MODEL} --items random:3000 --device cpu -o {}",
        text(&new)
    )));
    assert!(said.contains("free space or raise the limit"), "{said}");
    let items = ["--items", "random:30", "--device", "cpu"];
    let build = ["index", "build", "--checkpoint", MODEL, "-o", text(&new)];
    succeeds(&[&build[..], &items[..]].concat());
}

#[test]
fn a_read_only_folder_can_be_searched_and_not_changed() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("index");
    many_segments(&folder);
    let before = contents(open(&folder).unwrap());
    let (binary, data) = (temporary.path().join("rails-bench"), temporary.path().join("tiny.csv"));
    fs::copy(PROGRAM, &binary).unwrap();
    fs::copy(Path::new(crate::ROOT).join("tests/oracle/tiny.csv"), &data).unwrap();
    let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    allow(temporary.path(), 0o755);
    allow(&data, 0o644);
    allow(&folder, 0o555);
    files(&folder).iter().for_each(|path| allow(path, 0o444));
    fs::read_dir(&folder).unwrap().for_each(|entry| allow(&entry.unwrap().path(), 0o444));
    // Root may write everywhere: become nobody.
    let is_root = fs::metadata(&binary).unwrap().uid() == 0;
    let run = |args: &[&str]| {
        let mut command = Command::new(&binary);
        command.args(args).current_dir("/").stdin(Stdio::null());
        if is_root {
            command.uid(65534).gid(65534);
        }
        command.output().unwrap()
    };
    let data = text(&data);
    let search = ["search", "--index", text(&folder), "--dataset", data, "--user", "37", "--k", "5", "--device", "cpu"];
    let output = run(&search);
    assert!(output.status.success(), "{}", message(&output));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("rank") && table.lines().count() >= 8, "{table}");
    assert!(run(&["index", "verify", text(&folder)]).status.success());
    for args in [
        &["index", "add", text(&folder), "--items", "random:5", "--replace"][..],
        &["index", "compact", text(&folder)][..],
    ] {
        let said = failure(&run(args));
        assert!(said.contains("make the folder writable"), "{said}");
    }
    allow(&folder, 0o755);
    assert_eq!(contents(open(&folder).unwrap()), before);
}

#[test]
fn a_second_writer_is_told_to_wait_and_readers_are_not() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    damaged_soon(folder, Dtype::F32, Form::Components);
    let transaction = rails_wgpu::store::Store::open(folder).unwrap().write().unwrap();
    let said = failure(&program(&["index", "compact", text(folder)]).output().unwrap());
    assert!(said.contains("another program is writing") && said.contains("wait"), "{said}");
    let told = succeeds(&["index", "info", text(folder)]);
    assert!(told.contains("57 in ") && told.contains("; 3 deleted"), "{told}");
    drop(transaction);

    succeeds(&["index", "compact", text(folder)]);
    assert_eq!(open(folder).unwrap().len(), 57);
}
