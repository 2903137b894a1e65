//! `Searcher::builder`: every source, and every wrong combination.

use std::sync::Arc;

use crate::common::demo::Demo;
use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::backend::{Backend, Dtype, QueryBatch};
use rails_wgpu::index::{IndexModel, IndexOptions, ItemIndex, ItemSource, OpenOptions};
use rails_wgpu::search::{Algorithm, Hit, Searcher, SearcherBuilder};
use rails_wgpu::tensor::Tensor;

const IDS: [u64; 3] = [10, 20, 30];

fn items() -> Tensor {
    Tensor::new(vec![3, 2], vec![1.0, 0.0, 0.0, 1.0, 0.6, 0.8]).unwrap()
}

fn cpu() -> Arc<dyn Backend> {
    Arc::new(Cpu::default())
}

#[test]
fn embeddings_are_searched_by_inner_product() {
    let items = items();
    let queries = QueryBatch::new(Tensor::new(vec![1, 2], vec![0.0, 2.0]).unwrap());
    // Scores 0, 2 and 1.6.
    let expected = [Hit { id: 20, score: 2.0 }, Hit { id: 30, score: 1.6 }];
    for builder in [Searcher::builder().device("cpu"), Searcher::builder().backend(cpu())] {
        let searcher = builder.embeddings(&IDS, &items).build().unwrap();
        assert_eq!(searcher.search(Algorithm::Exact, &queries, 2, &[]).unwrap()[0], expected);
    }
    let index = ItemIndex::from_embeddings(&Cpu::default(), &IDS, &items, None, Dtype::F32).unwrap();
    let searcher = Searcher::builder().index(index).build().unwrap();
    assert_eq!(searcher.search(Algorithm::Exact, &queries, 2, &[]).unwrap()[0], expected);
}

#[test]
fn a_model_its_embeddings_with_its_similarity_and_its_folder_give_the_same() {
    let Demo { model, item_ids, .. } = Demo::load().unwrap();
    let ids: Vec<u64> = item_ids.iter().map(|&id| id.into()).collect();
    let embeddings = model.item_embeddings(&item_ids).unwrap();
    let mol = model.mol.as_ref().unwrap();
    let queries = QueryBatch::new(model.item_embeddings(&[3, 90]).unwrap()).with_users([1, 2]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let similarity = rails_wgpu::backend::Similarity { mol: mol.clone(), distilled: None };
    let source = ItemSource::of_embeddings(ids.clone(), embeddings.clone());
    ItemIndex::create(&path, &[cpu()], IndexModel::similarity(similarity), Dtype::F16.into(), source).unwrap();
    let builders = [
        Searcher::builder().model(&model, &item_ids).dtype(Dtype::F16),
        Searcher::builder().embeddings(&ids, &embeddings).mol(mol).options(Dtype::F16.into()),
        Searcher::builder().folder(&path).open_options(OpenOptions::default().with_check(true)),
    ];
    let mut found = builders.into_iter().map(|builder| {
        let searcher = builder.backend(cpu()).build().unwrap();
        assert_eq!(searcher.index().dtype(), Dtype::F16);
        searcher.search(Algorithm::Exact, &queries, 20, &[]).unwrap()
    });
    let first = found.next().unwrap();
    assert_eq!(first[0].len(), 20);
    assert!(found.all(|other| other == first));
}

#[test]
fn a_number_format_goes_before_that_of_the_options() {
    let items = items();
    let options = IndexOptions::default().with_dtype(Dtype::F16).with_segment_items(2);
    let builder = Searcher::builder().device("cpu").embeddings(&IDS, &items).dtype(Dtype::I8).options(options);
    let searcher = builder.build().unwrap();
    assert_eq!(searcher.index().dtype(), Dtype::I8);
    assert_eq!(searcher.index().snapshot().segments().len(), 2);
}

#[test]
fn wrong_combinations_are_explained() {
    let Demo { model, item_ids, .. } = Demo::load().unwrap();
    let items = items();
    let mol = model.mol.as_ref().unwrap();
    let index = || ItemIndex::from_embeddings(&Cpu::default(), &IDS, &items, None, Dtype::F32).unwrap();
    let both = || Searcher::builder().embeddings(&IDS, &items);
    let wrong: [(SearcherBuilder, &str); 14] = [
        (Searcher::builder(), "exactly one of `folder`, `model`, `model_file`, `embeddings` and `index`, found none"),
        (both().model(&model, &item_ids), "found `model` and `embeddings`"),
        (both().index(index()), "found `embeddings` and `index`"),
        (both().folder("x").index(index()), "found `folder` and `embeddings` and `index`"),
        (both().device("cpu").backend(cpu()), "a `device` or a `backend`, found both"),
        (both().device("no such"), "no device `no such`"),
        (both().open_options(OpenOptions::default()), "`open_options` only with `folder`"),
        (both().device("cpu").mol(mol), "item embeddings"),
        (Searcher::builder().index(index()).device("cpu"), "`device` only with"),
        (Searcher::builder().folder("x").dtype(Dtype::F16), "`dtype` only with `model`, `model_file` or `embeddings`"),
        (Searcher::builder().model(&model, &item_ids).mol(mol), "`mol` only with `embeddings`"),
        (both().item_ids(&IDS), "`item_ids` only with the item table"),
        (Searcher::builder().folder("x").save_to("y"), "`save_to` only with"),
        (Searcher::builder().folder("/no/such/folder").device("cpu"), "/no/such/folder"),
    ];
    for (builder, expected) in wrong {
        let error = builder.build().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn searchers_may_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Searcher>();
    shared::<Arc<dyn Backend>>();
    shared::<rails_wgpu::Error>();
}
