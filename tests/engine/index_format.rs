//! The content of index folders: old ones keep opening, and wrong ones with right checksums are refused.

use crate::common::catalog;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::catalog::{Catalog, cpu, hits, mol, open, queries};
use crate::common::models::{Random, Shape};
use rails_wgpu::Error;
use rails_wgpu::backend::{Dtype, Similarity};
use rails_wgpu::index::{IndexModel, IndexOptions, ItemIndex, ItemSource, OpenOptions};
use rails_wgpu::model::{CrossGate, Distilled, Mol, Tangents};
use rails_wgpu::ops::Linear;
use rails_wgpu::search::{Algorithm, Hit, Searcher};
use rails_wgpu::store::{Dtype as Element, Store, TensorSpec};
use rails_wgpu::tables::Form;
use rails_wgpu::tensor::Tensor;
use serde_json::{Value, json};

/// Folders that the first version of the format made, with the hits to expect.
const V1: [(&str, Dtype, Form); 3] = [
    ("f32_components", Dtype::F32, Form::Components),
    ("f16_raw", Dtype::F16, Form::Raw),
    ("int8_components", Dtype::I8, Form::Components),
];

fn v1(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/index_v1").join(name)
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.add(&(0..40).map(|i| 3 + 11 * i).collect::<Vec<_>>(), 0);
    catalog
}

/// Makes a folder as those of `tests/index_v1`: two segments with deletions and a small one.
fn make(folder: &Path, dtype: Dtype, form: Form) -> ItemIndex {
    let options = IndexOptions::default().with_dtype(dtype).with_form(form).with_segment_items(20);
    let index = catalog().stored(folder, options);
    index.add(&[3, 500], &catalog::rows(&[3, 500], 1)).unwrap();
    index.remove(&[14, 399]).unwrap();
    index
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn folders_of_the_first_version_keep_opening() {
    for (name, dtype, form) in V1 {
        if std::env::var_os("RAILS_WRITE_INDEX_V1").is_some() {
            let index = Arc::new(Searcher::new(make(&v1(name), dtype, form)));
            let expected: Vec<Vec<(u64, f32)>> = hits(&index, Algorithm::Exact, 10)
                .iter()
                .map(|hits| hits.iter().map(|h| (h.id, h.score)).collect())
                .collect();
            let queries = queries(4).embeddings.data().to_vec();
            std::fs::write(v1(name).join("expected.json"), json!({ "queries": queries, "hits": expected }).to_string())
                .unwrap();
        }
        let text = std::fs::read_to_string(v1(name).join("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        let stored: Vec<f32> = serde_json::from_value(expected["queries"].clone()).unwrap();
        assert_eq!(stored, queries(4).embeddings.data());
        let expected: Vec<Vec<(u64, f32)>> = serde_json::from_value(expected["hits"].clone()).unwrap();
        // Instruction sets sum in other orders.
        let same = |found: &[Vec<Hit>]| {
            let close = |(hit, &(id, score)): (&Hit, &(u64, f32))| hit.id == id && (hit.score - score).abs() < 1e-5;
            found.len() == expected.len()
                && found.iter().zip(&expected).all(|(a, b)| a.len() == b.len() && a.iter().zip(b).all(close))
        };
        assert!(ItemIndex::verify(v1(name)).unwrap().is_sound());
        let index = Arc::new(Searcher::new(open(&v1(name))));
        assert_eq!(index.index().len(), 39);
        let mut found = hits(&index, Algorithm::Exact, 10);
        assert!(same(&found), "{name}: {found:?}");
        found[0].swap(0, 1);
        assert!(!same(&found));
        // They can be changed, too: not in place.
        let folder = tempfile::tempdir().unwrap();
        copy(&v1(name), folder.path());
        let index = open(folder.path());
        index.compact().unwrap();
        assert_eq!(index.snapshot().segments().len(), 3);
        let index = Arc::new(Searcher::new(open(folder.path())));
        assert!(same(&hits(&index, Algorithm::Exact, 10)), "{name} compacted");
    }
}

/// Writes the next version of a folder with some tensors of the file whose name contains `stem` changed, all checksums right.
fn rewrite(folder: &Path, stem: &str, change: impl Fn(&mut Vec<(TensorSpec, Vec<u8>)>, &mut BTreeMap<String, String>)) {
    let mut transaction = Store::open(folder).unwrap().write().unwrap();
    let base = transaction.base().clone();
    let shard = base.shards().find(|shard| shard.name().contains(stem)).unwrap();
    let mut tensors: Vec<(TensorSpec, Vec<u8>)> = shard
        .tensors()
        .map(|name| {
            let tensor = shard.tensor(name).unwrap();
            let spec = TensorSpec { name: name.to_string(), dtype: tensor.dtype(), shape: tensor.shape().to_vec() };
            (spec, tensor.bytes().to_vec())
        })
        .collect();
    let mut metadata = shard.metadata().clone();
    metadata.remove("file");
    change(&mut tensors, &mut metadata);
    transaction.remove(shard.name()).unwrap();
    let specs: Vec<TensorSpec> = tensors.iter().map(|(spec, _)| spec.clone()).collect();
    let mut file = transaction.file("wrong", &metadata, &specs).unwrap();
    tensors.iter().for_each(|(spec, bytes)| file.write(&spec.name, bytes).unwrap());
    let name = file.finish().unwrap();
    let content = base.content().to_string().replace(shard.name(), &name);
    transaction.commit(serde_json::from_str(&content).unwrap()).unwrap();
}

/// Asserts that a checked opening and `verify` refuse a folder, in these words, and that nothing panics without a check.
fn refuses(folder: &Path, words: &str) {
    let options = OpenOptions::default().with_check(true);
    let error = ItemIndex::open(folder, &cpu(), options).err().unwrap_or_else(|| panic!("{words}: it opened"));
    assert!(matches!(error, Error::Index { .. }) && error.to_string().contains(words), "{words}: {error}");
    let report = ItemIndex::verify(folder).unwrap();
    assert!(report.damage.len() == 1 && report.damage[0].what.contains(words), "{words}: {report:?}");
    if let Ok(index) = ItemIndex::open(folder, &cpu(), OpenOptions::default()) {
        let _ = Arc::new(Searcher::new(index)).search(Algorithm::Exact, &queries(2), 5, &[]);
    }
}

/// The tensor `name` of those of a file.
fn named<'a>(tensors: &'a mut [(TensorSpec, Vec<u8>)], name: &str) -> &'a mut (TensorSpec, Vec<u8>) {
    tensors.iter_mut().find(|(spec, _)| spec.name == name).unwrap()
}

#[test]
fn wrong_tensors_with_right_checksums_are_refused() {
    type Change = Box<dyn Fn(&mut Vec<(TensorSpec, Vec<u8>)>, &mut BTreeMap<String, String>)>;
    let nan = f32::NAN.to_le_bytes();
    let cases: Vec<(&str, Change, &str)> = vec![
        ("0001-items", Box::new(|t, _| named(t, "ids").1[..8].fill(0xff)), "ascending ids"),
        (
            "0001-items",
            Box::new(|t, _| {
                let b = named(t, "ids").1[..8].to_vec();
                named(t, "ids").1[8..16].copy_from_slice(&b);
            }),
            "ascending ids",
        ),
        ("0001-items", Box::new(|t, _| named(t, "ids").0.dtype = Element::I64), "expected U64"),
        ("0001-items", Box::new(|t, _| named(t, "raw").0.shape.reverse()), "expected I8 of shape [20, 6]"),
        (
            "0001-items",
            Box::new(|t, _| {
                let raw = named(t, "raw");
                raw.0.shape[0] = 19;
                raw.1.truncate(19 * 6);
            }),
            "found I8 of [19, 6]",
        ),
        ("0001-items", Box::new(|t, _| t.retain(|(spec, _)| spec.name != "mean")), "expected a tensor `mean`"),
        (
            "0001-items",
            Box::new(|t, _| t.retain(|(spec, _)| spec.name != "raw.scales")),
            "expected a tensor `raw.scales`",
        ),
        (
            "0001-items",
            Box::new(move |t, _| named(t, "raw.scales").1[4..8].copy_from_slice(&nan)),
            "`raw.scales`: value 1 is not a finite",
        ),
        (
            "0001-items",
            Box::new(|t, _| named(t, "gate.scales").1[..4].copy_from_slice(&f32::INFINITY.to_le_bytes())),
            "`gate.scales`: value 0",
        ),
        ("0001-items", Box::new(|_, m| drop(m.remove("lists"))), "does not tell the inverted lists"),
        ("0001-items", Box::new(|_, m| drop(m.insert("lists".into(), "1".into()))), "does not tell their columns"),
        (
            "0001-items",
            Box::new(|_, m| {
                m.insert("lists".into(), "1".into());
                m.insert("lists.0.columns".into(), "all".into());
            }),
            "`lists.0.centroids`",
        ),
        ("deleted", Box::new(|t, _| named(t, "positions").1[0] ^= 0xff), "`positions`"),
        (
            "deleted",
            Box::new(|t, _| {
                // The bitmap of position 77.
                let bitmap = roaring::RoaringBitmap::from([77]);
                let (spec, bytes) = named(t, "positions");
                bytes.clear();
                bitmap.serialize_into(&mut *bytes).unwrap();
                spec.shape = vec![bytes.len()];
            }),
            "positions below 20",
        ),
        (
            "model",
            Box::new(|t, _| {
                t.remove(0);
            }),
            "the model cannot be used",
        ),
        ("model", Box::new(move |t, _| t[0].1[..4].copy_from_slice(&nan)), "finite"),
        ("model", Box::new(|_, m| m.clear()), "no hyper-parameters"),
        (
            "model",
            Box::new(|_, m| {
                let json = m["rails.similarity"].replace("\"eps\":", "\"epsilon\":");
                m.insert("rails.similarity".into(), json);
            }),
            "the model cannot be used",
        ),
        (
            "model",
            Box::new(|_, m| {
                let json = m["rails.similarity"].replace("\"temperature\":0.5", "\"temperature\":-1");
                m.insert("rails.similarity".into(), json);
            }),
            "temperature",
        ),
    ];
    let temporary = tempfile::tempdir().unwrap();
    let sound = temporary.path().join("sound");
    make(&sound, Dtype::I8, Form::Components);
    for (i, (stem, change, words)) in cases.iter().enumerate() {
        let folder = temporary.path().join(i.to_string());
        copy(&sound, &folder);
        rewrite(&folder, stem, change);
        refuses(&folder, words);
    }
    let folder = temporary.path().join("same");
    copy(&sound, &folder);
    rewrite(&folder, "0001-items", |_, _| {});
    assert!(ItemIndex::verify(&folder).unwrap().is_sound(), "a rewritten file is not wrong by itself");
}

#[test]
fn wrong_contents_with_right_checksums_are_refused() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 13] = [
        (|c| c["layout"] = 2.into(), "content version 2"),
        (|c| c["layout"] = Value::Null, "the content is wrong"),
        (|c| c["new"] = 1.into(), "unknown field `new`"),
        (|c| c["dtype"] = "f64".into(), "f64"),
        (|c| c["form"] = "both".into(), "both"),
        (|c| c["dim"] = 0.into(), "width"),
        // Names are put into SQL.
        (|c| c["attributes"] = json!([{ "name": "a\", max(b) \"", "type": "text" }]), "names of 1 to 128 bytes"),
        (|c| c["dim"] = 7.into(), "the model cannot be used"),
        (|c| c["segments"][0]["items"] = 21.into(), "found U64 of [20]"),
        (|c| c["segments"][0]["items"] = 0.into(), "segment of 0"),
        (|c| c["segments"][0]["file"] = "00000001-0009-items.safetensors".into(), "does not list"),
        (|c| c["segments"][0]["file"] = c["model"].clone(), "expected a tensor `ids`"),
        (|c| c["segments"] = json!([c["segments"][0], c["segments"][0]]), "twice"),
    ];
    let temporary = tempfile::tempdir().unwrap();
    let sound = temporary.path().join("sound");
    make(&sound, Dtype::F32, Form::Components);
    for (i, (change, words)) in cases.into_iter().enumerate() {
        let folder = temporary.path().join(i.to_string());
        copy(&sound, &folder);
        let transaction = Store::open(&folder).unwrap().write().unwrap();
        let mut content = transaction.base().content().clone();
        change(&mut content);
        transaction.commit(content).unwrap();
        if words == "twice" {
            let report = ItemIndex::verify(&folder).unwrap();
            assert!(report.damage[0].what.contains(words), "{report:?}");
        } else {
            refuses(&folder, words);
        }
    }
}

#[test]
fn every_similarity_comes_back_as_it_was_with_what_it_has_learned() {
    let shapes = [
        Shape::default(),
        Shape { query_glu: Some(5), item_glu: Some(7), ..Shape::default() },
        Shape { query_gate: None, item_gate: None, hidden: None, uid_sizes: vec![], ..Shape::default() },
        Shape { p_q: 4, uid_sizes: vec![5, 9], l2_norm: false, ..Shape::default() },
    ];
    for (i, mut shape) in shapes.into_iter().enumerate() {
        if shape.query_gate.is_none() {
            shape.gating = rails_wgpu::config::GatingCombination::None;
        }
        let mut random = Random::new(i as u64);
        let written: Mol<Tensor> = shape.mol(&mut random, catalog::DIM);
        let l = written.config.n_logits();
        let mut linear = |n_in: usize, n_out: usize| Linear {
            weight: random.tensor(&[n_in, n_out], 1.0),
            bias: Some(random.tensor(&[n_out], 1.0)),
            n_in,
            n_out,
        };
        let gate = CrossGate { hidden: Some(linear(l, 3)), output: linear(3, l), linear: Some(linear(l, l).weight) };
        let linear_gate = CrossGate { hidden: None, output: linear(l, l), linear: None };
        let (p_q, p_x) = (written.config.query_dot_product_groups, written.config.item_dot_product_groups);
        let layer = linear(Tangents::n_features(p_q, p_x), 2 * l);
        let mean = random.tensor(&[p_x, written.config.dot_product_dimension], 1.0);
        let tangents = Some(Tangents { best: vec![16, 32], mean, layer });
        let without = Distilled { cross: linear_gate, tangents: None };
        for distilled in [None, Some(without), Some(Distilled { cross: gate, tangents })] {
            let folder = tempfile::tempdir().unwrap();
            let source = ItemSource::of_embeddings(catalog().ids(), catalog().embeddings());
            let model = IndexModel::similarity(Similarity { mol: written.clone(), distilled: distilled.clone() });
            ItemIndex::create(folder.path(), &cpu(), model, IndexOptions::default(), source).unwrap();
            let index = open(folder.path());
            let snapshot = index.snapshot();
            let read = snapshot.similarity().unwrap();
            assert_eq!(read.mol.named_tensors(), written.named_tensors());
            assert_eq!(format!("{:?}", read.mol), format!("{written:?}"));
            assert_eq!(format!("{:?}", read.distilled), format!("{distilled:?}"));
            assert!(index.model().unwrap().is_none() && index.folder().unwrap() == folder.path());
            assert_eq!(ItemIndex::info(folder.path()).unwrap().distilled, distilled.is_some());
        }
    }
    assert_ne!(mol().named_tensors(), Shape::default().mol(&mut Random::new(4), catalog::DIM).named_tensors());
}

#[test]
fn tangents_that_make_no_sense_are_refused() {
    let similarity = mol();
    let config = &similarity.config;
    let (l, features) =
        (config.n_logits(), Tangents::n_features(config.query_dot_product_groups, config.item_dot_product_groups));
    let zeros = |shape: &[usize]| Tensor::new(shape.to_vec(), vec![0.0; shape.iter().product()]).unwrap();
    let linear = |n_in: usize, n_out: usize| Linear { weight: zeros(&[n_in, n_out]), bias: None, n_in, n_out };
    let mean = zeros(&[config.item_dot_product_groups, config.dot_product_dimension]);
    let opened = |best: Vec<usize>, layer: Linear<Tensor>| {
        let cross = CrossGate { hidden: None, output: linear(l, l), linear: None };
        let tangents = Some(Tangents { best, mean: mean.clone(), layer });
        let distilled = Some(Distilled { cross, tangents });
        let model = IndexModel::similarity(Similarity { mol: similarity.clone(), distilled });
        let source = ItemSource::of_embeddings(catalog().ids(), catalog().embeddings());
        let folder = tempfile::tempdir().unwrap();
        ItemIndex::create(folder.path(), &cpu(), model, IndexOptions::default(), source).map(|_| ())
    };
    opened(vec![16, 32], linear(features, 2 * l)).unwrap();
    for (best, layer, words) in [
        (vec![32, 16], linear(features, 2 * l), "tangents.best"),
        (vec![], linear(features, 0), "tangents.best"),
        (vec![16, 32], linear(features + 1, 2 * l), "tangents.weight"),
        (vec![16, 32], linear(features, l), "tangents.weight"),
    ] {
        let error = opened(best, layer).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
