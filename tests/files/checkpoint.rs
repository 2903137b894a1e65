//! Checkpoints: every format and element type, every way in which a file can be wrong.
//!
//! `tests/valid` and `tests/hostile` are written by `python/make_hostile_pt.py`; `tests/oracle` holds models that an
//! independent PyTorch program trained and saved in both formats.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rails_wgpu::checkpoint::{Checkpoint, Weights, save_safetensors};
use rails_wgpu::tensor::Tensor;
use rails_wgpu::{Error, Parameter};

fn tests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)
}

fn valid(name: &str) -> Checkpoint {
    Checkpoint::open(tests("valid").join(name)).unwrap()
}

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    checkpoint.tensor(name).unwrap().data().to_vec()
}

fn bits(tensor: &Tensor) -> (Vec<usize>, Vec<u32>) {
    (tensor.shape().to_vec(), tensor.data().iter().map(|value| value.to_bits()).collect())
}

/// Opens the file and reads every tensor.
fn read_all(path: &Path) -> Result<BTreeMap<String, Tensor>, Error> {
    let checkpoint = Checkpoint::open(path)?;
    checkpoint.names().map(|name| Ok((name.to_string(), checkpoint.tensor(name)?))).collect()
}

/// What the error says of a file that must be refused.
fn refusal(path: &Path) -> String {
    match read_all(path) {
        Ok(tensors) => panic!("{} was read: {:?}", path.display(), tensors.keys()),
        Err(error) => error.to_string(),
    }
}

// ---- the reference's checkpoints

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(tests("oracle")).unwrap().map(|entry| entry.unwrap().path());
    let cases: Vec<PathBuf> = entries.filter(|path| path.join("model.pt").exists()).collect();
    assert_eq!(cases.len(), 14);
    cases
}

#[test]
fn both_formats_of_every_case_hold_the_same_bits() {
    for case in cases() {
        let pt = read_all(&case.join("model.pt")).unwrap();
        let st = read_all(&case.join("model.safetensors")).unwrap();
        assert!(pt.len() > 10, "{}", case.display());
        assert_eq!(pt.keys().collect::<Vec<_>>(), st.keys().collect::<Vec<_>>(), "{}", case.display());
        for (name, tensor) in &pt {
            assert_eq!(bits(tensor), bits(&st[name]), "{}: {name}", case.display());
        }
        assert!(!pt.keys().any(|name| name.starts_with("module.") || name.contains("exp_avg")));
        // The comparison sees a single changed bit.
        let first = &pt["_embedding_module._item_emb.weight"];
        let mut flipped = first.data().to_vec();
        flipped[0] = f32::from_bits(flipped[0].to_bits() ^ 1);
        assert_ne!(bits(first), bits(&Tensor::new(first.shape().to_vec(), flipped).unwrap()));
    }
}

#[test]
fn a_case_holds_what_its_own_header_says() {
    // Read by hand: 8 bytes of length, JSON, then data; independent of the library that the checkpoint uses.
    let path = tests("oracle/tiny_hstu_mol/model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let mut seen = 0;
    for (name, entry) in header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__") {
        let name = name.strip_prefix("module.").unwrap();
        assert_eq!(checkpoint.dtype(name).unwrap().to_uppercase(), entry["dtype"].as_str().unwrap());
        assert_eq!(serde_json::json!(checkpoint.shape(name).unwrap()), entry["shape"], "{name}");
        if entry["dtype"] == "F32" {
            let (start, end) = (entry["data_offsets"][0].as_u64().unwrap(), entry["data_offsets"][1].as_u64().unwrap());
            let data = &bytes[8 + length + start as usize..8 + length + end as usize];
            let expected: Vec<f32> = data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            assert_eq!(values(&checkpoint, name), expected, "{name}");
            seen += 1;
        }
    }
    assert_eq!(seen, 29);
    assert_eq!(checkpoint.metadata().unwrap()["epoch"], "134");
    assert!(Checkpoint::open(tests("oracle/tiny_hstu_mol/model.pt")).unwrap().metadata().is_none());
}

#[test]
fn the_mask_is_bool_and_lower_triangular() {
    let checkpoint = Checkpoint::open(tests("oracle/tiny_hstu_dot/model.pt")).unwrap();
    assert_eq!(checkpoint.dtype("_attn_mask"), Some("bool"));
    let mask = checkpoint.tensor("_attn_mask").unwrap();
    assert_eq!(mask.shape(), [23, 23]);
    // The reference stores 1 where attention is forbidden.
    for row in 0..23 {
        for column in 0..23 {
            assert_eq!(mask.row(row)[column], f32::from(u8::from(column > row)), "{row} {column}");
        }
    }
}

// ---- formats and element types

#[test]
fn every_element_type_becomes_f32() {
    let file = valid("dtypes.pt");
    let expected: [(&str, &[f32]); 11] = [
        ("f64", &[0.1, -2.5]),
        ("f32", &[0.1, -2.5]),
        ("f16", &[1.5, -0.25, 65504.0]),
        ("bf16", &[1.0, -2.0, 3.140625]),
        ("i64", &[-1.0, 5.0, 1_099_511_627_776.0]),
        ("i32", &[-7.0, 16_777_216.0]),
        ("i16", &[-300.0, 300.0]),
        ("i8", &[-128.0, 127.0]),
        ("u8", &[0.0, 255.0]),
        ("u16", &[7.0, 65535.0]),
        ("bool", &[0.0, 1.0, 1.0]),
    ];
    assert_eq!(file.names().count(), expected.len());
    for (name, wanted) in expected {
        assert_eq!(file.dtype(name), Some(name));
        assert_eq!(values(&file, name), wanted, "{name}");
        assert_eq!(file.shape(name), Some([wanted.len()].as_slice()));
    }
}

#[test]
fn views_are_gathered_in_logical_order() {
    let file = valid("views.pt");
    // Storage 0 1 2 3 4 5.
    let transposed = file.tensor("transposed").unwrap();
    assert_eq!((transposed.shape(), transposed.data()), ([3, 2].as_slice(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0].as_slice()));
    assert_eq!(values(&file, "tail"), [4.0, 5.0]);
    assert_eq!(values(&file, "column"), [1.0, 4.0]);
    assert_eq!(values(&file, "expanded"), [2.0, 3.0, 2.0, 3.0]);
    assert_eq!((values(&file, "scalar"), file.shape("scalar")), (vec![5.0], Some([].as_slice())));
    assert_eq!((values(&file, "empty"), file.shape("empty")), (vec![], Some([0, 4].as_slice())));
    assert_eq!(values(&valid("legacy_views.pt"), "transposed"), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
}

#[test]
fn weights_are_found_wherever_programs_put_them() {
    for name in [
        "plain.pt",
        "compressed.pt",
        "protocol4.pt",
        "state_dict.pt",
        "model.pt",
        "legacy.pt",
        "optimizer.pt",
        "optimizer_flat.pt",
    ] {
        let file = valid(name);
        assert_eq!(file.names().collect::<Vec<_>>(), ["w"], "{name}");
        assert_eq!(values(&file, "w"), [1.0, 2.0, 3.0], "{name}");
    }
    // Names that merely begin with one of the keys are names.
    assert_eq!(values(&valid("model_names.pt"), "model.w"), [1.0, 2.0, 3.0]);
    let module = valid("whole_module.pt");
    assert_eq!(module.names().collect::<Vec<_>>(), ["fc.weight", "table"]);
    assert_eq!(values(&module, "fc.weight"), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn content_decides_not_the_extension() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("weights.bin");
    for source in ["valid/legacy.pt", "valid/plain.pt"] {
        fs::copy(tests(source), &odd).unwrap();
        assert_eq!(values(&Checkpoint::open(&odd).unwrap(), "w"), [1.0, 2.0, 3.0]);
    }
    fs::copy(tests("oracle/tiny_hstu_dot/model.safetensors"), folder.path().join("a.pt")).unwrap();
    assert!(Checkpoint::open(folder.path().join("a.pt")).unwrap().metadata().is_some());
}

#[test]
fn old_names_become_present_names() {
    let file = valid("old_names.pt");
    let names: Vec<&str> = file.names().collect();
    let prefix = "_ndp_module._item_embeddings_fn._item_emb_proj_module.1.";
    assert_eq!(names, [format!("{prefix}bias"), format!("{prefix}weight")]);
    assert_eq!(values(&file, names[0]), [4.0]);
}

// ---- hostile files

#[test]
fn calls_are_refused_by_name_and_never_made() {
    let cases = [
        ("call_os_system.pt", "`posix.system`"),
        ("call_eval.pt", "`builtins.eval`"),
        ("call_eval_protocol4.pt", "`builtins.eval`"),
        ("call_popped.pt", "`posix.system`"),
        ("call_from_memo.pt", "`posix.system`"),
        ("call_popped_name.pt", "computes the name of a global"),
        ("call_old_instance.pt", "unknown opcode 0x69"),
        ("call_dotted.pt", "`torch.nn.modules.os.system`"),
        ("call_legacy.pt", "`posix.system`"),
        ("call_build.pt", "`posix.system`"),
        ("import_recbole.pt", "`builtins.eval`"),
        ("import_recbole_module.pt", "`recbolex.config.Config`"),
        ("import_rectools.pt", "`posix.system`"),
        ("import_lightning.pt", "`builtins.eval`"),
        ("import_gru4rec.pt", "weights_only=False).model.state_dict(), 'weights.pt')"),
        ("import_pickle.pt", ").fit_trainer.save_checkpoint('model.ckpt')"),
    ];
    for (name, named) in cases {
        let message = refusal(&tests("hostile").join(name));
        assert!(message.contains(named), "{name}: {message}");
    }
    for folder in [PathBuf::from("."), tests("hostile"), std::env::current_dir().unwrap(), std::env::temp_dir()] {
        assert!(!folder.join("PWNED").exists(), "{}", folder.display());
    }
    // Without the gate these files would look valid: the library keeps such calls as inert objects.
    let ungated = pytorch_reader::PytorchReader::new(tests("hostile/call_os_system.pt")).unwrap();
    assert!(ungated.get("w").is_some());
}

#[test]
fn wrong_sizes_are_refused_and_nothing_large_is_allocated() {
    let cases = [
        ("storage_short.pt", "requires 3 elements"),
        ("storage_missing.pt", "not found in archive"),
        ("offset_outside.pt", "needs 4 elements"),
        ("shape_huge.pt", "needs 1099511627776 elements"),
        ("shape_overflow.pt", "overflows"),
        ("storage_huge.pt", "above the 10737418240 byte limit"),
        ("storage_claims.pt", "at most 67108864 bytes"),
        ("legacy_storage_claims.pt", "extends beyond the end of the file"),
        ("stride_zero_huge.pt", "at most 67108864 bytes"),
        ("stride_negative.pt", "non-negative"),
        ("stride_overflow.pt", "overflows"),
        ("stride_rank.pt", "does not match shape rank"),
        ("offset_negative.pt", "non-negative"),
        ("bomb_storage.pt", "at most 67108864 bytes"),
        ("bomb_pickle.pt", "more than 2000000 instructions; write the file again"),
        ("bomb_pickle.pt", "del file['hyper_parameters']['item_external_ids']"),
        ("bomb_text.pt", "ends too early"),
        ("bomb_memo.pt", ""),
        ("bomb_text_in_memo.pt", "memo bomb"),
        ("bomb_name_in_memo.pt", "a name of more than 512 bytes"),
        ("deep.pt", "nesting exceeds"),
    ];
    for (name, reason) in cases {
        let before = std::time::Instant::now();
        let message = refusal(&tests("hostile").join(name));
        assert!(message.contains(reason), "{name}: {message}");
        assert!(before.elapsed().as_secs() < 10, "{name}");
    }
    #[cfg(target_os = "linux")]
    {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(peak < 1 << 20, "peak memory {peak} kB");
    }
}

#[test]
fn values_that_f32_cannot_hold_are_named() {
    for (name, found) in [
        ("nan.pt", "tensor `w`: expected finite f32 values, found NaN at flat index 1"),
        ("infinite.pt", "found -inf at flat index 1"),
        ("too_large.pt", "found 1000000000000000"),
    ] {
        let message = refusal(&tests("hostile").join(name));
        assert!(message.contains(found), "{name}: {message}");
    }
}

#[test]
fn files_of_other_kinds_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let hostile = |name: &str| tests("hostile").join(name);
    let cases = [
        (hostile("no_tensors.pt"), "holds no tensors"),
        (hostile("not_a_dict.pt"), "Expected a dictionary"),
        (hostile("same_name.pt"), "two tensors named `w`"),
        (hostile("big_endian.pt"), "byteorder"),
        (hostile("no_pickle.pt"), "No data.pkl"),
        (hostile("complex.pt"), "ComplexFloatStorage"),
        (write("empty.pt", b""), "the file is empty"),
        (write("short.pt", b"PK\x03\x04"), "damaged zip"),
        (write("text.pt", b"epoch,loss\n1,2\n"), "neither"),
        (write("bare.pt", b"\x80\x02}."), "a pickle that `torch.save` did not write"),
        (folder.path().to_path_buf(), "expected a file, found a folder"),
        (folder.path().join("none.pt"), "No such file"),
    ];
    for (path, reason) in cases {
        let message = refusal(&path);
        assert!(message.contains(reason), "{}: {message}", path.display());
        assert!(message.contains(&path.display().to_string()), "{message}");
    }
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn damaged_safetensors_are_refused() {
    let one = |dtype: &str, shape: &str, range: &str| {
        safetensors(&format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{range}}}}}"#), &[0; 8])
    };
    let cases = [
        ("length", [&u64::MAX.to_le_bytes(), b"{}".as_slice()].concat(), "header"),
        ("long", [&90_000_000_u64.to_le_bytes(), b"{}".as_slice()].concat(), "header"),
        ("json", safetensors("{\"w\":", &[]), "header"),
        ("end", one("F32", "[3]", "[0,12]"), "damaged"),
        ("short", one("F32", "[1]", "[0,4]"), "damaged"),
        ("size", one("F32", "[3]", "[0,8]"), "damaged"),
        ("gap", one("F32", "[1]", "[4,8]"), "damaged"),
        ("backwards", one("F32", "[2]", "[8,0]"), "damaged"),
        ("overflow", one("F32", "[9223372036854775807,4]", "[0,8]"), "damaged"),
        ("negative", one("F32", "[-2]", "[0,8]"), "damaged"),
        ("dtype", one("F8_E4M3", "[8]", "[0,8]"), "unsupported type"),
        ("unknown", one("F31", "[2]", "[0,8]"), "damaged"),
        (
            "twice",
            safetensors(
                r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#,
                &[0; 8],
            ),
            "two tensors are called `w`",
        ),
        ("gzip", vec![0x1f, 0x8b, 8, 0], "compressed with gzip"),
        ("none", safetensors("{}", &[]), "holds no tensors"),
        ("depth", safetensors(&"{\"a\":".repeat(100_000), &[]), "damaged"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, one("F32", "[2]", "[0,8]")).unwrap();
    assert_eq!(read_all(&path).unwrap()["w"].data(), [0.0, 0.0]);
    for (name, bytes, reason) in cases {
        fs::write(&path, bytes).unwrap();
        let message = refusal(&path);
        assert!(message.contains(reason), "{name}: {message}");
    }
    let nan = [f32::NAN.to_le_bytes(), 1_f32.to_le_bytes()].concat();
    fs::write(&path, safetensors(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, &nan)).unwrap();
    assert!(refusal(&path).contains("found NaN at flat index 0"));
}

/// Numbers that look random and repeat from run to run.
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 33) as usize
}

#[test]
fn truncated_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut");
    let mut state = 1;
    for source in ["oracle/tiny_hstu_dot/model.pt", "oracle/tiny_hstu_dot/model.safetensors", "valid/legacy.pt"] {
        let bytes = fs::read(tests(source)).unwrap();
        let n = bytes.len();
        let mut lengths = vec![0, 1, 4, 8, 9, 64, 100, n / 4, n / 2, n * 3 / 4, n - 1000.min(n / 8), n - 22, n - 1];
        lengths.extend((0..30).map(|_| random(&mut state) % n));
        for length in lengths {
            fs::write(&cut, &bytes[..length]).unwrap();
            assert!(read_all(&cut).is_err(), "{source}: read with {length} of {n} bytes");
        }
    }
}

#[test]
fn flipped_bytes_never_panic_and_storages_are_checksummed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flipped");
    let mut state = 7;
    let sources = [
        "oracle/tiny_hstu_dot/model.pt",
        "oracle/tiny_hstu_dot/model.safetensors",
        "valid/plain.pt",
        "valid/compressed.pt",
        "valid/protocol4.pt",
        "valid/legacy.pt",
        "valid/whole_module.pt",
        "valid/dtypes.pt",
    ];
    for source in sources {
        let bytes = fs::read(tests(source)).unwrap();
        let mut refused = 0;
        for round in 0..300 {
            let mut flipped = bytes.clone();
            for _ in 0..=round % 4 {
                // Half of the flips hit the first part of the file, where its structure is.
                let range = if random(&mut state).is_multiple_of(2) { bytes.len().min(2000) } else { bytes.len() };
                let at = random(&mut state) % range;
                flipped[at] ^= 1 << (random(&mut state) % 8);
            }
            fs::write(&path, &flipped).unwrap();
            refused += usize::from(read_all(&path).is_err());
        }
        assert!(refused > 30, "{source}: only {refused} of 300 damaged files were noticed");
    }
    // The bytes of a tensor itself: 3 floats after the entry `archive/data/0`.
    let mut bytes = fs::read(tests("valid/plain.pt")).unwrap();
    let one = bytes.windows(4).position(|window| window == 1_f32.to_le_bytes()).unwrap();
    bytes[one] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let message = refusal(&path);
    assert!(message.contains("tensor `w`") && message.contains("checksum"), "{message}");
}

// ---- models reading weights

#[test]
fn weights_are_taken_by_name_and_shape() {
    let file = valid("views.pt");
    let mut weights = Weights::new(&file);
    assert_eq!(weights.take("tail", &[2]).unwrap().data(), [4.0, 5.0]);
    assert_eq!(weights.rows("transposed").unwrap(), 3);
    assert_eq!(weights.shape("transposed"), Some([3, 2].as_slice()));
    assert!(weights.has("scalar") && !weights.has("scalars"));
    assert!(weights.take_optional("nothing", &[2]).unwrap().is_none());
    assert!(weights.take_optional("column", &[2]).unwrap().is_some());
    let message = |result: Result<Tensor, Error>| result.unwrap_err().to_string();
    let wrong = message(weights.take("transposed", &[2, 3]));
    assert!(wrong.contains("tensor `transposed`: expected shape [2, 3], found shape [3, 2]"), "{wrong}");
    let missing = message(weights.take("transposes", &[6]));
    assert!(missing.contains("tensor `transposes`: expected shape [6]"), "{missing}");
    assert!(missing.contains("nearest: `transposed`"), "{missing}");
    assert!(weights.take_optional("column", &[3]).is_err());
    assert!(weights.rows("scalar").is_err() && weights.rows("nothing").is_err());
    let unread = weights.finish().unwrap_err().to_string();
    assert!(unread.contains("4 tensors") && unread.contains("`empty`, `expanded`, `scalar`, `transposed`"), "{unread}");
}

#[test]
fn only_the_mask_may_stay_unread() {
    let file = Checkpoint::open(tests("oracle/tiny_hstu_dot/model.pt")).unwrap();
    let mut weights = Weights::new(&file);
    for name in file.names().filter(|name| *name != "_attn_mask") {
        weights.take(name, file.shape(name).unwrap()).unwrap();
    }
    weights.finish().unwrap();
}

#[test]
fn an_unknown_tensor_is_an_error() {
    let message = valid("plain.pt").tensor("v").unwrap_err().to_string();
    assert!(message.contains("tensor `v`") && message.contains("nearest: `w`"), "{message}");
}

// ---- writing

fn named(name: &str, shape: &[usize], data: &[f32]) -> (String, Tensor) {
    (name.to_string(), Tensor::new(shape.to_vec(), data.to_vec()).unwrap())
}

#[test]
fn saved_tensors_come_back_and_bytes_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let tensors = [
        named("b", &[2, 2], &[1.0, -0.0, f32::MIN_POSITIVE / 2.0, f32::MAX]),
        named("a.\"quoted\" ü", &[3], &[0.1, 0.2, 0.3]),
        named("none", &[0, 5], &[]),
        named("scalar", &[], &[7.0]),
    ];
    let metadata = BTreeMap::from(["rails.config", "z", "a"].map(|key| (key.to_string(), format!("{key} = {{}}"))));
    fs::write(&path, "an older file").unwrap();
    save_safetensors(&path, &tensors, &metadata).unwrap();
    let read = read_all(&path).unwrap();
    assert_eq!(read.len(), tensors.len());
    for (name, tensor) in &tensors {
        assert_eq!(bits(&read[name]), bits(tensor));
    }
    assert_eq!(Checkpoint::open(&path).unwrap().metadata(), Some(&metadata));
    let bytes = fs::read(&path).unwrap();
    let reversed: Vec<_> = tensors.iter().rev().cloned().collect();
    save_safetensors(&path, &reversed, &metadata).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(u64::from_le_bytes(bytes[..8].try_into().unwrap()) % 8, 0);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left");
}

#[test]
fn a_failed_save_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let tensor = named("w", &[1], &[1.0]);
    let path = folder.path().join("model.safetensors");
    fs::write(&path, "kept").unwrap();
    for tensors in [vec![tensor.clone(), tensor.clone()], vec![named("__metadata__", &[1], &[1.0])]] {
        let error = save_safetensors(&path, &tensors, &BTreeMap::new()).unwrap_err();
        assert!(matches!(error, Error::Argument { parameter: Parameter::Tensors, .. }), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), b"kept");
    let nowhere = folder.path().join("no/such/folder.safetensors");
    assert!(matches!(
        save_safetensors(&nowhere, std::slice::from_ref(&tensor), &BTreeMap::new()),
        Err(Error::Io { .. })
    ));
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).unwrap();
    let error = save_safetensors(&taken, &[tensor], &BTreeMap::new()).unwrap_err().to_string();
    assert!(error.contains("the path of a file, found a folder"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "a temporary file was left");
}
