//! `Searcher::builder`: every source, and every wrong combination.

use std::sync::Arc;

use crate::common::demo::Demo;
use crate::common::models::{Random, Shape};
use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::backend::{Backend, Dtype, QueryBatch};
use rails_wgpu::index::{IndexModel, IndexOptions, ItemIndex, ItemSource, Items, OpenOptions};
use rails_wgpu::search::{Algorithm, Hit, Searcher, SearcherBuilder};
use rails_wgpu::tensor::Tensor;
use rails_wgpu::{History, ModelFile};

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
    let rows = |rows: &[usize]| Ok(embeddings.select_rows(rows));
    let items = || ItemSource::of_rows(&ids, [ids.len(), embeddings.width()], rows).unwrap();
    let stored = folder.path().join("stored");
    let build = Searcher::builder().items(items()).mol(mol).dtype(Dtype::F16).save_to(&stored).device("cpu");
    drop(build.build().unwrap());
    let builders = [
        Searcher::builder().items(items()).mol(mol).dtype(Dtype::F16),
        Searcher::builder().folder(&stored),
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

    // Where the items have no encoder with them, that of a model makes queries.
    let history = History { user_id: 7, item_ids: &[12, 31, 5], timestamps: &[100, 160, 300], now: 400 };
    let whole = Searcher::builder().model(&model, &item_ids).device("cpu").build().unwrap();
    let expected = whole.encode(&[history]).unwrap();
    let narrow = Tensor::from_rows([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
    let index = || ItemIndex::from_embeddings(&Cpu::default(), &ids, &embeddings, None, Dtype::F32).unwrap();
    let builders = [
        Searcher::builder().folder(&path).device("cpu"),
        Searcher::builder().embeddings(&ids, &embeddings).device("cpu"),
        Searcher::builder().index(index()),
    ];
    for builder in builders {
        let searcher = builder.encoder(&model).build().unwrap();
        assert_eq!(searcher.encode(&[history]).unwrap(), expected);
        assert_eq!(searcher.encoder().unwrap().config().item_embedding_dim, 16);
    }
    let file = ModelFile::open("assets/demo.safetensors", None).unwrap();
    let both = folder.path().join("both");
    drop(Searcher::builder().model_file(&file).save_to(&both).device("cpu").build().unwrap());
    let wrong = [
        (Searcher::builder().folder(&both).device("cpu"), "encoder: expected one, that of the index"),
        (Searcher::builder().embeddings(&IDS, &narrow).device("cpu"), "of width 2, that of queries, found 16"),
    ];
    for (builder, expected) in wrong {
        let error = builder.encoder(&model).build().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn items_come_in_any_order_and_number() {
    let mut random = Random::new(5);
    let shape = Shape::default();
    let mol = shape.mol(&mut random, 6);
    // More than a chunk, in an order of their own.
    let n = 5000;
    let embeddings = random.tensor(&[n, 6], 1.0);
    let ids: Vec<u64> = (0..n as u64).map(|i| i * 2003 % 5003).collect();
    let queries = QueryBatch::new(random.tensor(&[3, 6], 1.0)).with_users([1, 2, 3]);
    for (dtype, mol) in [(Dtype::F32, None), (Dtype::I8, None), (Dtype::F16, Some(&mol)), (Dtype::I8, Some(&mol))] {
        let options = IndexOptions::from(dtype).with_segment_items(4100);
        let all = || Searcher::builder().embeddings(&ids, &embeddings).options(options.clone()).device("cpu");
        let chunks = || {
            let chunk = |from: usize| {
                let rows: Vec<usize> = (from..n.min(from + 1500)).collect();
                Ok(Items::new(ids[from..n.min(from + 1500)].to_vec(), embeddings.select_rows(&rows)))
            };
            ItemSource::new(n, (0..n).step_by(1500).map(chunk))
        };
        let source = Searcher::builder().items(chunks()).options(options.clone()).device("cpu");
        let read = |rows: &[usize]| Ok(embeddings.select_rows(rows));
        let rows = ItemSource::of_rows(&ids, [n, 6], read).unwrap();
        let rows = Searcher::builder().items(rows).options(options.clone()).device("cpu");
        let [all, source, rows] = [all(), source, rows].map(|builder| {
            let searcher = mol.into_iter().fold(builder, SearcherBuilder::mol).build().unwrap();
            assert_eq!(searcher.index().snapshot().segments().len(), 2);
            searcher.search(Algorithm::Exact, &queries, 200, &[]).unwrap()
        });
        assert!(all == source && all == rows && all[0].len() == 200, "{dtype}");
    }
    // A source that says another number than it has is found out, and so is an id that comes twice, in whatever chunk.
    let items = |ids: &[u64]| {
        let embeddings = Tensor::new([ids.len(), 2], vec![1.0; 2 * ids.len()]);
        Ok(Items::new(ids.to_vec(), embeddings?))
    };
    let wrong = [
        (3, vec![items(&[1, 2]), items(&[])], "item ids: expected 3, as the source says, found 2"),
        (3, vec![items(&[1, 2]), items(&[3, 4])], "item ids: expected 3, as the source says, found more"),
        (4, vec![items(&[1, 2]), items(&[3, 1])], "each id once, found id 1 twice"),
        (0, vec![], "index: expected at least one item"),
        (2, vec![Err(rails_wgpu::Error::Cancelled)], "cancelled"),
    ];
    for (len, chunks, expected) in wrong {
        let builder = Searcher::builder().items(ItemSource::new(len, chunks.into_iter())).device("cpu");
        let error = builder.build().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let message = |ids: &[u64]| {
        let source = ItemSource::of_rows(ids, [3, 2], |_| unreachable!("refused before"));
        source.map(|_| ()).unwrap_err().to_string()
    };
    assert!(message(&[1, 2]).contains("item ids: expected 3, one per embedding, found 2"));
    assert!(message(&[7, 2, 7]).contains("each id once, found id 7 twice"));
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
    let wrong: [(SearcherBuilder, &str); 16] = [
        (
            Searcher::builder(),
            "exactly one of `folder`, `model`, `model_file`, `embeddings`, `token_embeddings`, `items` and `index`, found none",
        ),
        (both().model(&model, &item_ids), "found `model` and `embeddings`"),
        (both().items(ItemSource::new(0, std::iter::empty())), "found `embeddings` and `items`"),
        (Searcher::builder().model(&model, &item_ids).encoder(&model), "`encoder` only with a source without one"),
        (both().index(index()), "found `embeddings` and `index`"),
        (both().folder("x").index(index()), "found `folder` and `embeddings` and `index`"),
        (both().device("cpu").backend(cpu()), "a `device` or a `backend`, found both"),
        (both().device("no such"), "no device `no such`"),
        (both().open_options(OpenOptions::default()), "`open_options` only with `folder`"),
        (both().device("cpu").mol(mol), "item embeddings"),
        (Searcher::builder().index(index()).device("cpu"), "`device` only with"),
        (
            Searcher::builder().folder("x").dtype(Dtype::F16),
            "`dtype` only with `model`, `model_file`, `embeddings`, `token_embeddings` or `items`",
        ),
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
