//! Late interaction: an index of token embeddings, searched by MaxSim.

use std::sync::Arc;

use rails_wgpu::backend::{Backend, DeviceKind, ScoredPosition};
use rails_wgpu::index::{IndexModel, ItemSource, Items};
use rails_wgpu::{
    Algorithm, Cancel, Certificate, Dtype, Error, Filter, Hit, IndexOptions, ItemIndex, ListOptions, OpenOptions,
    QueryBatch, Request, ScoreFusion, Searcher, Tensor, TokenEmbeddings,
};

use crate::common::backends::backends;
use crate::common::compare::compare;
use crate::common::models::Random;
use crate::common::naive::{self, Num, exact};

/// Width of a vector: no multiple of a register or a block.
const DIM: usize = 20;

const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::I8];

/// Texts of these lengths.
fn texts(seed: u64, lengths: &[usize]) -> TokenEmbeddings {
    let n = lengths.iter().sum::<usize>();
    TokenEmbeddings::new(Random::new(seed).tensor(&[n, DIM], 1.0), lengths).unwrap()
}

/// Seventy items of up to nine vectors, which fill two tiles and a part of one.
fn items() -> (Vec<u64>, TokenEmbeddings) {
    let lengths: Vec<usize> = (0..70).map(|i| 1 + i * 5 % 9).collect();
    ((0..70).map(|i| 1000 - 7 * i).collect(), texts(1, &lengths))
}

/// Of one vector, of some, and of more than fit into a tile.
fn queries() -> QueryBatch {
    QueryBatch::of_tokens(texts(2, &[1, 5, 40]))
}

fn index(backend: &Arc<dyn Backend>, dtype: Dtype, segment_items: usize) -> ItemIndex {
    let (ids, tokens) = items();
    let lists = ListOptions::new(12);
    let options = IndexOptions::from(dtype).with_segment_items(segment_items).with_lists(lists);
    let source = ItemSource::of_token_embeddings(&ids, &tokens).unwrap();
    ItemIndex::from_source(std::slice::from_ref(backend), None, options, source).unwrap()
}

/// The score by definition: `tokens` of a query, whose numbers 8-bit tables round, and `rows` of an item.
fn max_sim(tokens: &[f32], rows: &[f32], dtype: Dtype) -> Num {
    let products = tokens.chunks_exact(DIM).map(|q| {
        let largest = q.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let error = if dtype == Dtype::I8 { f64::from(largest) / 32512.0 } else { 0.0 };
        let q: Vec<Num> = q.iter().map(|&x| Num { value: x.into(), error }).collect();
        let products = rows.chunks_exact(DIM).map(|row| naive::dot(&q, row.iter().map(|&x| exact(x))));
        products.reduce(Num::max).unwrap()
    });
    naive::sum(products.collect::<Vec<_>>().into_iter())
}

/// The scores of all items of the only segment, and their vectors as they are stored.
fn scores(index: &ItemIndex, query: &[f32]) -> Vec<Num> {
    let snapshot = index.snapshot();
    let [segment] = snapshot.segments() else { panic!("one segment") };
    let tokens = segment.tables().tokens.as_ref().unwrap();
    let rows = |item: usize| tokens.vectors().read_rows(tokens.rows_of(item));
    (0..tokens.len()).map(|item| max_sim(query, &rows(item), index.dtype())).collect()
}

/// Hits as positions of the only segment, whose ids ascend.
fn positions(index: &ItemIndex, hits: &[Hit]) -> Vec<ScoredPosition> {
    let snapshot = index.snapshot();
    hits.iter().map(|hit| ScoredPosition { position: snapshot.position(hit.id).unwrap(), score: hit.score }).collect()
}

fn bits(hits: &[Vec<Hit>]) -> Vec<Vec<(u64, u32)>> {
    hits.iter().map(|hits| hits.iter().map(|hit| (hit.id, hit.score.to_bits())).collect()).collect()
}

#[test]
fn exact_search_finds_the_best_by_definition() {
    let queries = queries();
    let tokens = queries.token_embeddings.as_ref().unwrap();
    for backend in backends() {
        for dtype in DTYPES {
            let searcher = Searcher::new(index(&backend, dtype, 1000));
            let excluded = [&[1000, 993, 5][..], &[], &[972]];
            for k in [1, 10, 70] {
                let hits = searcher.search(Algorithm::Exact, &queries, k, &excluded).unwrap();
                for query in 0..3 {
                    let index = searcher.index();
                    let own =
                        excluded[query].iter().filter_map(|&id| index.snapshot().position(id)).collect::<Vec<_>>();
                    let scores = scores(index, tokens.vectors_of(query));
                    let found = positions(index, &hits[query]);
                    compare(&scores, &own, k, &found).unwrap_or_else(|wrong| panic!("{dtype} {query}: {wrong}"));
                    // A definition without the last token of the query is another one.
                    if query > 0 {
                        let shorter = &tokens.vectors_of(query)[DIM..];
                        let others = super::late_interaction::scores(index, shorter);
                        assert!(compare(&others, &own, k, &found).is_err(), "the comparison accepts anything");
                    }
                }
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_batch_or_cut_and_rescoring_finds_the_same_bits() {
    let queries = queries();
    for backend in backends() {
        for dtype in DTYPES {
            let whole = Searcher::new(index(&backend, dtype, 1000));
            let together = whole.search(Algorithm::Exact, &queries, 70, &[]).unwrap();
            let cut = Searcher::new(index(&backend, dtype, 11));
            assert!(cut.index().snapshot().segments().len() > 5);
            assert_eq!(bits(&cut.search(Algorithm::Exact, &queries, 70, &[]).unwrap()), bits(&together), "{dtype}");
            for query in 0..3 {
                let alone = whole.search(Algorithm::Exact, &queries.select(&[query]), 70, &[]).unwrap();
                assert_eq!(bits(&alone), bits(&together[query..=query]), "{dtype} {query}");
            }
            let some: Vec<u64> = (0..70).step_by(3).map(|i| 1000 - 7 * i).collect();
            for searcher in [&whole, &cut] {
                let scored = searcher.rescore(&queries, &[&some, &some, &[993]]).unwrap();
                for (query, scored) in scored.iter().enumerate() {
                    let expected: Vec<_> = bits(&together)[query]
                        .iter()
                        .filter(|(id, _)| if query == 2 { *id == 993 } else { some.contains(id) })
                        .copied()
                        .collect();
                    assert_eq!(bits(std::slice::from_ref(scored))[0], expected, "{dtype} {query}");
                }
            }
        }
    }
}

#[test]
fn first_stages_collect_what_they_are_defined_to() {
    let queries = queries();
    let tokens = queries.token_embeddings.as_ref().unwrap();
    for backend in backends() {
        let searcher = Searcher::new(index(&backend, Dtype::F32, 1000));
        let snapshot = searcher.index().snapshot();
        let id_of = |position: usize| snapshot.id(position as u32);
        let best = |scores: &[Num], n: usize| {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].value.total_cmp(&scores[a].value));
            order.truncate(n);
            order.into_iter().map(id_of).collect::<Vec<u64>>()
        };
        let raw = &snapshot.segments()[0].tables().raw;
        let found = |name: &str| searcher.candidates(name.parse().unwrap(), &queries, &[]).unwrap();
        let (avg, naive) = (found("avg:9"), found("naive:2"));
        for query in 0..3 {
            let sum: Vec<f64> = (0..DIM)
                .map(|j| tokens.vectors_of(query).iter().skip(j).step_by(DIM).map(|&x| f64::from(x)).sum())
                .collect();
            let mean = |item: usize| raw.read_rows(item..item + 1);
            let products: Vec<Num> = (0..70)
                .map(|item| exact(mean(item).iter().zip(&sum).map(|(&x, q)| f64::from(x) * q).sum::<f64>()))
                .collect();
            let mut expected = best(&products, 9);
            expected.sort_unstable();
            assert_eq!(avg[query], expected, "avg, query {query}");
            let rows = tokens.vectors_of(query).chunks_exact(DIM);
            let mut expected: Vec<u64> = rows.flat_map(|row| best(&scores(searcher.index(), row), 2)).collect();
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(naive[query], expected, "naive, query {query}");
            // A GPU looks at the vectors themselves.
            if backend.info().kind == DeviceKind::Cpu {
                let own = snapshot.segments()[0].tables().tokens.as_ref().unwrap().codes.as_ref().unwrap();
                let centroids = |item: usize| own.of(item).iter().flat_map(|&code| own.centroids().row(code.into()));
                let scored: Vec<Num> = (0..70)
                    .map(|item| {
                        max_sim(tokens.vectors_of(query), &centroids(item).copied().collect::<Vec<f32>>(), Dtype::F32)
                    })
                    .collect();
                // Products are rounded to 256 steps between the least and the greatest of a query.
                let rows = tokens.vectors_of(query).chunks_exact(DIM);
                let products = rows.flat_map(|q| {
                    let row =
                        |c: usize| own.centroids().row(c).iter().zip(q).map(|(&x, &q)| f64::from(x * q)).sum::<f64>();
                    (0..own.centroids().rows()).map(row).collect::<Vec<f64>>()
                });
                let (least, greatest) = products.fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(x), b.max(x)));
                let error = (greatest - least) / 255.0 * 0.501 * tokens.range(query).len() as f64;
                let listed = found("centroids:4")[query].clone();
                let of = |id: &u64| scored[snapshot.position(*id).unwrap() as usize].value;
                let worst = listed.iter().map(of).fold(f64::MAX, f64::min);
                let others = (0..70).map(id_of).filter(|id| !listed.contains(id));
                let missed = others.map(|id| of(&id)).fold(f64::MIN, f64::max);
                assert!(
                    listed.len() == 4 && worst >= missed - 2.0 * error,
                    "centroids, query {query}: {worst} {missed}"
                );
                let spread = scored.iter().map(|score| score.value).fold(f64::MIN, f64::max) - worst;
                assert!(error < 5.0 * spread.max(0.1), "the bound says nothing: {error} beside {spread}");
            }
        }
        let exact = searcher.search(Algorithm::Exact, &queries, 5, &[]).unwrap();
        for name in ["avg:70", "naive:70", "centroids:70", "exact-pruned"] {
            assert_eq!(
                bits(&searcher.search(name.parse().unwrap(), &queries, 5, &[]).unwrap()),
                bits(&exact),
                "{name}"
            );
        }
        // Too few candidates are doubled until they are enough, and a certificate tells what they have missed.
        let request = Request::new(Algorithm::Avg { candidates: 1 }, 5).with_certify(true);
        let answer = searcher.answer(&queries, &request).unwrap();
        for (query, (certificate, hits)) in answer.certificates.iter().zip(&answer.hits).enumerate() {
            assert_eq!(hits.len(), 5);
            match certificate {
                Certificate::Exact => assert_eq!(hits, &exact[query]),
                Certificate::AtMost(score) => {
                    let missed = exact[query].iter().find(|hit| !hits.contains(hit)).unwrap();
                    assert_eq!(*score, missed.score);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn scores_of_the_callers_are_added_to_the_similarity() {
    let queries = queries();
    for backend in backends() {
        for (segment_items, algorithm) in [(1000, "exact"), (11, "exact"), (1000, "avg:70"), (1000, "mips")] {
            let searcher = Searcher::new(index(&backend, Dtype::F32, segment_items));
            let algorithm: Algorithm = algorithm.parse().unwrap();
            let all = searcher.search(algorithm, &queries, 70, &[]).unwrap();
            // Of items that are there, excluded or denied, and of one that is not.
            let own: Vec<(u64, f32)> =
                [(993, 4.5), (517, -3.0), (1000, 7.25), (986, 0.5), (5, 9.0), (972, 2.0)].to_vec();
            let (scores, excluded) = ([own.as_slice(), &[], &own[..2]], [&[986][..], &[], &[]]);
            let denied = Filter::deny([972].into_iter().collect());
            for (weight, k) in [(0.5, 70), (2.0, 5)] {
                let request = Request::new(algorithm, k).with_excluded(&excluded).with_filter(&denied);
                let request = request.with_fusion(ScoreFusion::new(weight, &scores));
                let found = searcher.answer(&queries, &request).unwrap().hits;
                for (query, hits) in all.iter().enumerate() {
                    let score = |id| scores[query].iter().find(|(own, _)| *own == id).map_or(0.0, |(_, score)| *score);
                    let left = hits.iter().filter(|hit| hit.id != 972 && !excluded[query].contains(&hit.id));
                    let mut expected: Vec<Hit> =
                        left.map(|hit| Hit { score: weight * hit.score + score(hit.id), ..*hit }).collect();
                    expected.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
                    expected.truncate(k);
                    assert_eq!(found[query], expected, "{algorithm} {segment_items} {weight} {query}");
                }
            }
            let wrong = |weight: f32, scores: &[&[(u64, f32)]]| {
                let request = Request::new(algorithm, 5).with_fusion(ScoreFusion::new(weight, scores));
                searcher.answer(&queries, &request).unwrap_err().to_string()
            };
            assert!(wrong(0.0, &scores).contains("a positive number") && wrong(f32::NAN, &scores).contains("NaN"));
            assert!(wrong(1.0, &scores[1..]).contains("3 lists"));
            assert!(wrong(1.0, &[&[(7, 1.0), (7, 1.0)], &[], &[]]).contains("id 7 twice for query 0"));
            assert!(wrong(1.0, &[&[], &[(9, f32::INFINITY)], &[]]).contains("id 9 of query 1"));
        }
    }
}

#[test]
fn items_come_and_go_in_memory_and_in_a_folder() {
    let (queries, folder) = (queries(), tempfile::tempdir().unwrap());
    for backend in backends() {
        for dtype in DTYPES {
            let path = folder.path().join(format!("{dtype} {}", backend.info().kind));
            let (ids, tokens) = items();
            let builder = Searcher::builder().token_embeddings(&ids, &tokens).backend(backend.clone());
            let options = IndexOptions::from(dtype).with_lists(ListOptions::new(12));
            let searcher = builder.options(options).save_to(&path).build().unwrap();
            let memory = Searcher::new(index(&backend, dtype, 16));
            let reopened = |path| {
                Searcher::new(ItemIndex::open(path, std::slice::from_ref(&backend), OpenOptions::default()).unwrap())
            };
            // A tie: the same item under two ids.
            let twin = TokenEmbeddings::new(tokens.vectors().select_rows(&[0]), &[1]).unwrap();
            let new = texts(3, &[4, 12]);
            for index in [searcher.index(), memory.index()] {
                index.remove(&[993, 972]).unwrap();
                index.add_token_embeddings(&[3, 986], &new).unwrap();
                index.add_token_embeddings(&[1001], &twin).unwrap();
            }
            let hits = memory.search(Algorithm::Exact, &queries, 71, &[]).unwrap();
            assert!(hits.iter().all(|hits| hits.len() == 70 && !hits.iter().any(|hit| hit.id == 993)));
            for hits in &hits {
                let place = hits.iter().position(|hit| hit.id == 1000).unwrap();
                assert_eq!((hits[place + 1].id, hits[place + 1].score), (1001, hits[place].score));
            }
            let stored = reopened(&path);
            assert_eq!(bits(&stored.search(Algorithm::Exact, &queries, 71, &[]).unwrap()), bits(&hits), "{dtype}");
            let centroids = |name: &str| stored.search(name.parse().unwrap(), &queries, 5, &[]).unwrap();
            assert_eq!(bits(&centroids("centroids:71")), bits(&centroids("exact")));
            stored.index().compact().unwrap();
            stored.index().save(path.join("copy")).unwrap();
            assert!(ItemIndex::verify(&path).unwrap().is_sound());
            let copy = reopened(&path.join("copy"));
            assert!(copy.index().has_token_embeddings());
            assert_eq!(bits(&copy.search(Algorithm::Exact, &queries, 71, &[]).unwrap()), bits(&hits), "{dtype}");
            let info = ItemIndex::info(&path).unwrap();
            assert_eq!((info.similarity.as_str(), info.dim, info.items), ("MaxSim", DIM, 70));
            let filter = Filter::allow([3, 986, 1000].into_iter().collect());
            let request = Request::new(Algorithm::Exact, 5).with_filter(&filter);
            let filtered = copy.answer(&queries, &request).unwrap().hits;
            assert!(filtered.iter().all(|hits| hits.len() == 3 && hits.iter().all(|hit| filter.passes(hit.id))));
        }
    }
}

#[test]
fn items_added_later_do_not_drive_others_out_of_the_candidates_by_centroids() {
    // The added items are too few for centroids, so that their vectors themselves are scored.
    let (ids, tokens) = items();
    let options = IndexOptions::default().with_lists(ListOptions::new(12));
    let cpu = backends().into_iter().find(|backend| backend.info().kind == DeviceKind::Cpu).unwrap();
    let builder = Searcher::builder().token_embeddings(&ids, &tokens).backend(cpu).options(options);
    let searcher = builder.build().unwrap();
    let collected = |n: usize| searcher.candidates(Algorithm::Centroids { candidates: n }, &queries(), &[]).unwrap();
    let before = collected(8);
    let new = texts(5, &[1; 12]);
    searcher.index().add_token_embeddings(&(1..=12).collect::<Vec<u64>>(), &new).unwrap();
    let snapshot = searcher.index().snapshot();
    assert_eq!(snapshot.segments().len(), 2, "the added items are a segment of their own");
    for (before, after) in before.iter().zip(collected(8)) {
        let (own, added): (Vec<u64>, Vec<u64>) = after.iter().partition(|&&id| id > 12);
        assert_eq!(&own, before, "the candidates among the first items");
        assert_eq!(added.len(), 8, "candidates among the added ones");
    }
}

#[test]
fn what_does_not_fit_is_refused_and_a_cancelled_search_ends() {
    let backend = backends().remove(0);
    let searcher = Searcher::new(index(&backend, Dtype::F32, 1000));
    let said = |error: Error| error.to_string();
    let single = QueryBatch::new(Tensor::from_rows([[1.0; DIM]]));
    assert!(said(searcher.search(Algorithm::Exact, &single, 1, &[]).unwrap_err()).contains("QueryBatch::of_tokens"));
    assert_eq!(searcher.search(Algorithm::Mips, &single, 1, &[]).unwrap()[0].len(), 1);
    let wide = QueryBatch::of_tokens(TokenEmbeddings::new(Tensor::from_rows([[1.0; 3]; 2]), &[2]).unwrap());
    assert!(said(searcher.search(Algorithm::Exact, &wide, 1, &[]).unwrap_err()).contains("(B, 20)"));
    // Embeddings and token embeddings that are not of the same queries or items.
    for embeddings in [Tensor::from_rows([[1.0; DIM]]), Tensor::from_rows([[f32::NAN; DIM]; 3])] {
        let mut torn = queries();
        torn.embeddings = embeddings;
        for algorithm in ["naive:2", "avg:2", "exact"] {
            let wrong = said(searcher.search(algorithm.parse().unwrap(), &torn, 1, &[]).unwrap_err());
            assert!(wrong.contains("query embeddings"), "{algorithm}: {wrong}");
        }
    }
    let torn = |embeddings: Tensor| {
        let mut items = Items::of_tokens(vec![1], texts(4, &[3]));
        items.embeddings = embeddings;
        ItemSource::new(1, std::iter::once(Ok(items)))
    };
    let built = |source| {
        let options = IndexOptions::from(Dtype::F16);
        said(ItemIndex::from_source(std::slice::from_ref(&backend), None, options, source).err().unwrap())
    };
    for embeddings in [Tensor::from_rows([[1.0; 3]]), Tensor::from_rows([[f32::NAN; DIM]])] {
        assert!(built(torn(embeddings)).contains("item embeddings"));
    }
    assert!(built(torn(Tensor::from_rows([[1e5; DIM]]))).contains("f16"));
    assert!(built(torn(Tensor::from_rows([[1.0; DIM]])).normalised(1e-6)).contains("one embedding each"));
    let tangent = searcher.search("tangent:5".parse().unwrap(), &queries(), 1, &[]).unwrap_err();
    assert!(said(tangent).contains("`tangent:5` on an index of token embeddings"));
    assert!(
        said(searcher.index().add(&[1], &Tensor::from_rows([[1.0; DIM]])).unwrap_err()).contains("token embeddings")
    );
    let infinite = TokenEmbeddings::new(Tensor::from_rows([[f32::INFINITY; DIM]]), &[1]).unwrap();
    assert!(said(searcher.index().add_token_embeddings(&[77], &infinite).unwrap_err()).contains("id 77"));
    let wrong = said(searcher.index().add_token_embeddings(&[77, 78], &infinite).unwrap_err());
    assert!(wrong.contains("one per embedding"), "{wrong}");
    let large = TokenEmbeddings::new(Tensor::from_rows([[1e5; DIM]]), &[1]).unwrap();
    let builder = Searcher::builder().token_embeddings(&[7], &large).backend(backend.clone()).dtype(Dtype::F16);
    assert!(said(builder.build().err().unwrap()).contains("f16"));

    let dot = Searcher::builder().embeddings(&[1], &single.embeddings).backend(backend.clone()).build().unwrap();
    assert!(
        said(dot.search(Algorithm::Exact, &queries(), 1, &[]).unwrap_err()).contains("one embedding of 20 numbers")
    );
    let folder = tempfile::tempdir().unwrap();
    let (ids, tokens) = items();
    let source = ItemSource::of_token_embeddings(&ids, &tokens).unwrap();
    let created = ItemIndex::create(folder.path(), &[backend], IndexModel::dot(DIM), IndexOptions::default(), source);
    assert!(created.is_err());

    let cancel = Cancel::new();
    cancel.cancel();
    let request = Request::new(Algorithm::Exact, 1).with_cancel(&cancel);
    assert!(matches!(searcher.answer(&queries(), &request), Err(Error::Cancelled)));
}
