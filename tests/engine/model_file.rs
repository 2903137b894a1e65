//! Searchers of model files: encoding, storing, saving.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::common::case::{Case, fixture};
use crate::common::demo::Demo;
use rails_wgpu::checkpoint::Weights;
use rails_wgpu::model_file::MOL_KEY;
use rails_wgpu::{Algorithm, Checkpoint, Dtype, Form, History, Model, ModelFile, QueryBatch, Searcher, Tensor};

const DEMO: &str = "assets/demo.safetensors";
const HISTORY: History = History { user_id: 7, item_ids: &[12, 31, 5], timestamps: &[100, 160, 300], now: 400 };

fn message<T>(result: rails_wgpu::Result<T>) -> String {
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

/// Everything of the file on the CPU.
fn of_file(file: &ModelFile) -> Searcher {
    Searcher::builder().model_file(file).device("cpu").build().unwrap()
}

#[test]
fn a_model_and_its_item_embeddings_find_the_same() {
    let file = ModelFile::open(DEMO, None).unwrap();
    let Demo { model, item_ids, .. } = Demo::load().unwrap();
    let ids: Vec<u64> = item_ids.iter().map(|&id| id.into()).collect();
    let own = Searcher::builder().model_file(&file).item_ids(&ids).device("cpu").build().unwrap();
    let rows = model.item_embeddings(&item_ids).unwrap();
    let given = Searcher::builder().embeddings(&ids, &rows).model_file(&file).device("cpu").build().unwrap();
    assert_eq!((own.index().dim(), own.index().len(), given.index().len()), (16, 200, 200));

    let queries = own.encode(&[HISTORY]).unwrap();
    assert_eq!((queries.embeddings.shape(), queries.user_ids.as_deref()), (&[1, 16][..], Some(&[7][..])));
    assert_eq!(queries, given.encode(&[HISTORY]).unwrap());
    let search = |searcher: &Searcher, queries: &QueryBatch| searcher.search(Algorithm::Exact, queries, 9, &[]);
    let hits = search(&own, &queries).unwrap();
    assert_eq!(hits[0].len(), 9);
    assert_eq!(hits, search(&given, &queries).unwrap());
    // The model has uid embeddings: another user is another query.
    assert_ne!(hits, search(&own, &queries.clone().with_users([8])).unwrap());
    let nobody = QueryBatch::new(queries.embeddings.clone());
    assert!(message(search(&own, &nobody)).contains("user ids: expected one per query"));
    assert!(message(search(&own, &queries.with_users([7, 8]))).contains("1, one per query"));
    assert_eq!(of_file(&file).index().ids(), (1..=220).collect::<Vec<u64>>());
}

/// As the checkpoint has them, in shapes and bits.
#[test]
fn a_model_gives_back_the_tensors_that_it_was_loaded_from() {
    let folders = fs::read_dir(fixture("")).unwrap().map(|entry| entry.unwrap().path());
    let mut cases = 0;
    for folder in folders.filter(|path| path.join("model.safetensors").is_file()) {
        let Case { checkpoint, model, .. } = Case::load(&folder);
        let named = model.named_tensors();
        let names: BTreeSet<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
        let expected: BTreeSet<&str> = checkpoint.names().filter(|&name| name != Weights::IGNORED).collect();
        assert_eq!((names, named.len()), (expected.clone(), expected.len()), "{}", folder.display());
        for (name, tensor) in &named {
            let expected = checkpoint.tensor(name).unwrap();
            let bits = |tensor: &Tensor| tensor.data().iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!((tensor.shape(), bits(tensor)), (expected.shape(), bits(&expected)), "{name}");
        }
        let again = Model::load(&Checkpoint::from_tensors(named.clone(), "memory").unwrap(), model.config).unwrap();
        assert_eq!(again.named_tensors(), named);
        cases += 1;
    }
    assert_eq!(cases, 19);
}

#[test]
fn tensors_in_memory_are_checked_as_those_of_a_file() {
    let tensors = |value| vec![("a".to_string(), Tensor::new([1, 2], vec![1.0, value]).unwrap())];
    let of = |value| Checkpoint::from_tensors(tensors(value), "memory").and_then(|checkpoint| checkpoint.tensor("a"));
    assert_eq!(of(2.0).unwrap().data(), [1.0, 2.0]);
    assert!(
        message(of(f32::NAN)).contains("memory: tensor `a`: expected finite f32 values, found NaN at flat index 1")
    );
    assert!(message(Checkpoint::from_tensors(vec![], "memory")).contains("holds no tensors"));
    assert!(message(Checkpoint::from_tensors([tensors(1.0), tensors(2.0)].concat(), "memory")).contains("two tensors"));
}

#[test]
fn a_model_file_that_was_saved_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let pt = ModelFile::open("tests/oracle/tiny_hstu_mol/model.pt", None).unwrap();
    pt.save(&path).unwrap();
    let saved = ModelFile::open(&path, None).unwrap();
    assert!(saved.whole_model().is_ok());
    assert_eq!(saved.tensors().unwrap(), pt.tensors().unwrap());
    let queries = [&pt, &saved].map(|file| of_file(file).encode(&[HISTORY]).unwrap());
    assert_eq!(queries[0], queries[1]);
}

#[test]
fn nothing_asked_is_nothing_answered() {
    let items = Tensor::from_rows([[1.0, 0.0], [0.0, 1.0]]);
    let searcher = Searcher::builder().embeddings(&[3, 4], &items).device("cpu").build().unwrap();
    let nothing = QueryBatch::new(Tensor::new([0, 2], Vec::new()).unwrap());
    assert!(searcher.search(Algorithm::Exact, &nothing, 1, &[]).unwrap().is_empty());
    let one = QueryBatch::new(Tensor::from_rows([[1.0, 0.0]])).with_users([7, 8]);
    assert!(message(searcher.search(Algorithm::Exact, &one, 1, &[])).contains("user ids: expected 1, one per query"));
    assert!(message(searcher.encode(&[HISTORY])).contains("encoder: expected a searcher made of a whole model"));
    let file = ModelFile::open(DEMO, None).unwrap();
    let queries = of_file(&file).encode(&[]).unwrap();
    assert_eq!(queries.embeddings.shape(), [0, 16]);
    for algorithm in ["exact", "mips", "tangent:10", "avg:10"] {
        assert!(of_file(&file).search(algorithm.parse().unwrap(), &queries, 5, &[]).unwrap().is_empty(), "{algorithm}");
    }
}

#[test]
fn what_cannot_be_indexed_is_refused() {
    let file = ModelFile::open(DEMO, None).unwrap();
    for id in [0, 221, 1 << 32 | 1] {
        let error = message(Searcher::builder().model_file(&file).item_ids(&[id]).device("cpu").build());
        assert!(error.contains("1 to 220") && error.contains(&id.to_string()), "{error}");
    }
    assert!(message(Searcher::builder().model_file(&file).device("abacus").build()).contains("`abacus`"));
    assert!(message(ModelFile::open("no/such.pt", None)).contains("no/such.pt"));
    assert!(message(ModelFile::open(DEMO, Some(Path::new("no/such.gin")))).contains("no/such.gin"));
    assert!(message("f64".parse::<Dtype>()).contains("f32, f16 or int8"));
    assert!(message("round".parse::<Form>()).contains("components or raw"));
    let names = [("f32", Dtype::F32), ("f16", Dtype::F16), ("int8", Dtype::I8), ("i8", Dtype::I8)];
    assert!(names.iter().all(|(name, dtype)| name.parse::<Dtype>().unwrap() == *dtype));
}

#[test]
fn a_stored_searcher_and_saved_ones_are_the_same_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let file = ModelFile::open(DEMO, None).unwrap();
    let builder = || Searcher::builder().model_file(&file).device("cpu").dtype(Dtype::F16);
    let in_memory = builder().build().unwrap();
    let queries = in_memory.encode(&[HISTORY]).unwrap();
    let found = |searcher: &Searcher| searcher.search(Algorithm::Exact, &queries, 30, &[]).unwrap();
    let open = |name: &str| Searcher::builder().folder(path(name)).device("cpu").build().unwrap();

    let stored = builder().save_to(path("stored")).build().unwrap();
    assert!(message(builder().save_to(path("stored")).build()).contains("there is an index already"));
    for searcher in [&in_memory, &stored] {
        searcher.index().remove(&[17, 200]).unwrap();
        let item = Tensor::new([1, 16], file.model().unwrap().item_embeddings(&[3]).unwrap().data().to_vec()).unwrap();
        searcher.index().add(&[900], &item).unwrap();
        searcher.index().distill(&queries).unwrap();
    }
    let expected = found(&in_memory);
    assert_eq!(found(&stored), expected);
    // From memory there is no encoder to store; from a folder it goes along.
    in_memory.index().save(path("of memory")).unwrap();
    stored.index().save(path("of a folder")).unwrap();
    assert!(message(stored.index().save(path("stored"))).contains("there is an index already"));
    assert!(message(open("of memory").encode(&[HISTORY])).contains("encoder: expected"));
    for name in ["stored", "of a folder"] {
        assert_eq!(open(name).encode(&[HISTORY]).unwrap(), queries, "{name}");
    }
    for name in ["stored", "of memory", "of a folder"] {
        let searcher = open(name);
        assert_eq!(found(&searcher), expected, "{name}");
        assert_eq!((searcher.index().len(), searcher.index().dtype()), (219, Dtype::F16));
        assert!(searcher.search("distilled:50".parse().unwrap(), &queries, 5, &[]).is_ok(), "{name}");
        assert!(rails_wgpu::ItemIndex::verify(path(name)).unwrap().is_sound());
    }

    // Embeddings with no similarity but the inner product.
    let items = Tensor::from_rows([[1.0, 0.0], [0.0, 1.0]]);
    let dot = Searcher::builder().embeddings(&[3, 4], &items).device("cpu").save_to(path("dot")).build().unwrap();
    dot.index().save(path("dot again")).unwrap();
    let query = QueryBatch::new(Tensor::from_rows([[0.0, 2.0]]));
    let best = open("dot again").search(Algorithm::Exact, &query, 1, &[]).unwrap()[0][0];
    assert_eq!((best.id, best.score), (4, 2.0));
}

#[test]
fn hyper_parameters_may_be_given_or_lie_beside_or_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, gin) = ("tests/oracle/tiny_hstu_dot/model.safetensors", "tests/oracle/tiny_hstu_dot/config.gin");
    assert!(ModelFile::open(weights, None).unwrap().model().is_some(), "config.gin beside it");
    let alone = folder.path().join("model.safetensors");
    fs::copy(weights, &alone).unwrap();
    assert!(message(ModelFile::open(&alone, None)).contains("holds no hyper-parameters"));
    assert!(ModelFile::open(&alone, Some(Path::new(gin))).unwrap().mol().is_none());
    fs::copy(gin, alone.with_extension("gin")).unwrap();
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
    assert!(message(Searcher::builder().model_file(&file).device("cpu").build()).contains("a whole model"));

    let ids: Vec<u64> = item_ids.iter().map(|&id| id.into()).collect();
    let rows = model.item_embeddings(&item_ids).unwrap();
    let found = |file: &ModelFile| {
        let searcher = Searcher::builder().embeddings(&ids, &rows).model_file(file).device("cpu").build().unwrap();
        let queries = QueryBatch::new(model.item_embeddings(&[5]).unwrap()).with_users([7]);
        searcher.search(Algorithm::Exact, &queries, 20, &[]).unwrap()
    };
    assert_eq!(found(&file), found(&ModelFile::open(DEMO, None).unwrap()));

    assert!(message(open(2, 16, mol)).contains("format version 1, all this program knows"));
    assert!(message(open(1, 17, mol)).contains("expected shape"));
    let cold = rails_wgpu::config::MolConfig { temperature: 0.0, ..mol.clone() };
    assert!(message(open(1, 16, &cold)).contains("temperature"));
}
