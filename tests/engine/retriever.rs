//! A model file, a device and an index behind one handle.

use std::path::Path;

use crate::common::demo::Demo;
use rails_wgpu::retriever::{MOL_KEY, ModelFile, Retriever, index_options};
use rails_wgpu::search::{Algorithm, Request};
use rails_wgpu::sequence::History;
use rails_wgpu::{Dtype, Form, ListOptions, Tensor};

const DEMO: &str = "assets/demo.safetensors";
const HISTORY: History = History { user_id: 7, item_ids: &[12, 31, 5], timestamps: &[100, 160, 300], now: 400 };

fn message<T>(result: rails_wgpu::Result<T>) -> String {
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn a_model_and_its_item_embeddings_find_the_same() {
    let file = ModelFile::open(DEMO, None).unwrap();
    let Demo { model, item_ids, .. } = Demo::load().unwrap();
    let ids: Vec<u64> = item_ids.iter().map(|&id| id.into()).collect();
    let own = Retriever::from_model(&file, Some(&ids), "cpu", Dtype::F32).unwrap();
    let rows = model.item_embeddings(&item_ids).unwrap();
    let given = Retriever::from_embeddings(&ids, &rows, Some(&file), "cpu", Dtype::F32).unwrap();
    assert_eq!((own.dim(), own.index().len(), given.index().len()), (16, 200, 200));

    let queries = own.encode(&[HISTORY]).unwrap();
    assert_eq!(queries.shape(), [1, 16]);
    assert_eq!(queries, given.encode(&[HISTORY]).unwrap());
    let request = Request::new(Algorithm::Exact, 9);
    let hits = own.search(queries.clone(), Some(vec![7]), &request).unwrap().hits;
    assert_eq!(hits[0].len(), 9);
    assert_eq!(hits, given.search(queries.clone(), Some(vec![7]), &request).unwrap().hits);
    // The model has uid embeddings: another user is another query.
    assert_ne!(hits, own.search(queries.clone(), Some(vec![8]), &request).unwrap().hits);
    assert!(message(own.search(queries.clone(), None, &request)).contains("user ids: expected one per query"));
    assert!(message(own.search(queries, Some(vec![7, 8]), &request)).contains("1, one per query"));

    let all = Retriever::from_model(&file, None, "cpu", Dtype::F32).unwrap();
    assert_eq!(all.index().ids(), (1..=220).collect::<Vec<u64>>());
}

#[test]
fn nothing_asked_is_nothing_answered() {
    let items = Tensor::new(vec![2, 2], vec![1.0, 0.0, 0.0, 1.0]).unwrap();
    let retriever = Retriever::from_embeddings(&[3, 4], &items, None, "cpu", Dtype::F32).unwrap();
    let nothing = Tensor::new(vec![0, 2], Vec::new()).unwrap();
    assert!(retriever.search(nothing, None, &Request::new(Algorithm::Exact, 1)).unwrap().hits.is_empty());
    assert!(message(retriever.encode(&[HISTORY])).contains("encoder: expected a whole model"));
}

#[test]
fn what_cannot_be_indexed_is_refused() {
    let file = ModelFile::open(DEMO, None).unwrap();
    for id in [0, 221, 1 << 32 | 1] {
        let error = message(Retriever::from_model(&file, Some(&[id]), "cpu", Dtype::F32));
        assert!(error.contains("1..=220") && error.contains(&id.to_string()), "{error}");
    }
    assert!(message(Retriever::from_model(&file, None, "abacus", Dtype::F32)).contains("`abacus`"));
    assert!(message(ModelFile::open("no/such.pt", None)).contains("no/such.pt"));
    assert!(message(ModelFile::open(DEMO, Some(Path::new("no/such.gin")))).contains("no/such.gin"));
    assert!(message(index_options("f64", "auto", None, None)).contains("f32, f16 or int8"));
    assert!(message(index_options("f32", "flat", None, None)).contains("auto, components or raw"));
    let options = index_options("i8", "raw", Some(7), Some(9)).unwrap();
    assert_eq!((options.dtype, options.form, options.device_memory), (Dtype::I8, Some(Form::Raw), Some(9)));
    assert_eq!(options.lists, Some(ListOptions::new(7)));
}

#[test]
fn hyper_parameters_may_be_given_or_lie_beside_or_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, gin) = ("tests/oracle/tiny_hstu_dot/model.safetensors", "tests/oracle/tiny_hstu_dot/config.gin");
    assert!(ModelFile::open(weights, None).unwrap().model().is_some(), "config.gin beside it");
    let alone = folder.path().join("model.safetensors");
    std::fs::copy(weights, &alone).unwrap();
    assert!(message(ModelFile::open(&alone, None)).contains("holds no hyper-parameters"));
    assert!(ModelFile::open(&alone, Some(Path::new(gin))).unwrap().mol().is_none());
    std::fs::copy(gin, alone.with_extension("gin")).unwrap();
    assert_eq!(ModelFile::open(&alone, None).unwrap().dim(), 16);
}

#[test]
fn a_similarity_alone_is_a_file_too() {
    use rails_wgpu::checkpoint::{Checkpoint, save_safetensors};
    use rails_wgpu::config::SimilarityConfig;

    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(DEMO).unwrap();
    let names = checkpoint.names().filter(|name| name.starts_with("_ndp_module."));
    let tensors: Vec<_> = names.map(|name| (name.to_string(), checkpoint.tensor(name).unwrap())).collect();
    let Demo { model, item_ids, .. } = Demo::load().unwrap();
    let SimilarityConfig::Mol(mol) = &model.config.similarity else { unreachable!("the demo has a mixture") };
    let open = |format: u32, dim: usize, mol: &rails_wgpu::config::MolConfig| {
        let path = folder.path().join("mol.safetensors");
        let json = serde_json::json!({ "format": format, "dim": dim, "mol": mol }).to_string();
        save_safetensors(&path, &tensors, &[(MOL_KEY.to_string(), json)].into()).unwrap();
        ModelFile::open(path, None)
    };
    let file = open(1, 16, mol).unwrap();
    assert!(file.model().is_none() && file.mol().is_some() && file.dim() == 16);
    assert!(message(Retriever::from_model(&file, None, "cpu", Dtype::F32)).contains("a whole model"));

    let ids: Vec<u64> = item_ids.iter().map(|&id| id.into()).collect();
    let rows = model.item_embeddings(&item_ids).unwrap();
    let request = Request::new(Algorithm::Exact, 20);
    let found = |file: &ModelFile| {
        let retriever = Retriever::from_embeddings(&ids, &rows, Some(file), "cpu", Dtype::F32).unwrap();
        let queries = Tensor::new(vec![1, 16], model.item_embeddings(&[5]).unwrap().data().to_vec()).unwrap();
        retriever.search(queries, Some(vec![7]), &request).unwrap().hits
    };
    assert_eq!(found(&file), found(&ModelFile::open(DEMO, None).unwrap()));

    assert!(message(open(2, 16, mol)).contains("format version 1, all this program knows"));
    assert!(message(open(1, 17, mol)).contains("expected shape"));
    let cold = rails_wgpu::config::MolConfig { temperature: 0.0, ..mol.clone() };
    assert!(message(open(1, 16, &cold)).contains("temperature"));
}
