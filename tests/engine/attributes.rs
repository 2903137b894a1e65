//! Attributes of items and conditions on them: what is found is what a filter leaves of everything, in memory and in folders that
//! change; whatever is wrong is said.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::backends::backends;
use crate::common::models::{Random, Shape};
use proptest::prelude::*;
use rails_wgpu::attributes::{Attributes, Condition, Value};
use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::backend::{Backend, QueryBatch};
use rails_wgpu::index::{Filter, IndexOptions, ItemIndex, ItemSource, ListOptions, OpenOptions};
use rails_wgpu::search::{Algorithm, Certificate, Hit, Request, ScoreFusion, Searcher};
use rails_wgpu::store::Store;
use rails_wgpu::tensor::Tensor;
use rails_wgpu::{Cancel, Error};

const DIM: usize = 6;
const GENRES: [&str; 4] = ["Comedy", "Drama", "it's", "100%"];

/// What an item has.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    year: Option<i64>,
    score: Option<f64>,
    genre: Option<String>,
}

fn row(random: &mut Random) -> Row {
    let mut pick = |n: u32| ((random.number() + 1.0) * 0.5 * n as f32) as u32 % n;
    Row {
        year: (pick(6) > 0).then(|| 1990 + i64::from(pick(8))),
        score: (pick(6) > 0).then(|| f64::from(pick(9)) / 2.0),
        genre: (pick(6) > 0).then(|| GENRES[pick(4) as usize].to_string()),
    }
}

fn attributes(rows: &BTreeMap<u64, Row>) -> Attributes {
    let column = |attributes: Attributes, name: &str| match name {
        "year" => attributes.with_column(name, rows.values().map(|row| row.year).collect::<Vec<_>>()),
        "score" => attributes.with_column(name, rows.values().map(|row| row.score).collect::<Vec<_>>()),
        _ => attributes.with_column(name, rows.values().map(|row| row.genre.clone()).collect::<Vec<_>>()),
    };
    let none = Attributes::new(rows.keys().copied().collect());
    ["year", "score", "genre"].into_iter().fold(none, |attributes, name| column(attributes, name).unwrap())
}

/// An expression, in SQL and as SQL understands it: `None` is neither true nor false.
#[derive(Clone, Debug)]
enum Expression {
    Year(&'static str, i64),
    Score(&'static str, f64),
    Genre(usize),
    Known(&'static str),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
}

fn compare<T: PartialOrd>(operator: &str, left: Option<T>, right: T) -> Option<bool> {
    left.map(|left| match operator {
        "<" => left < right,
        ">=" => left >= right,
        _ => left == right,
    })
}

impl Expression {
    fn sql(&self) -> String {
        match self {
            Expression::Year(operator, year) => format!("year {operator} {year}"),
            Expression::Score(operator, score) => format!("score {operator} {score:?}"),
            Expression::Genre(genre) => format!("genre = '{}'", GENRES[*genre].replace('\'', "''")),
            Expression::Known(column) => format!("{column} IS NOT NULL"),
            Expression::And(a, b) => format!("({} AND {})", a.sql(), b.sql()),
            Expression::Or(a, b) => format!("({} OR {})", a.sql(), b.sql()),
            Expression::Not(a) => format!("NOT ({})", a.sql()),
        }
    }

    fn holds(&self, row: &Row) -> Option<bool> {
        match self {
            Expression::Year(operator, year) => compare(operator, row.year, *year),
            Expression::Score(operator, score) => compare(operator, row.score, *score),
            Expression::Genre(genre) => row.genre.as_ref().map(|own| own == GENRES[*genre]),
            Expression::Known("year") => Some(row.year.is_some()),
            Expression::Known(_) => Some(row.genre.is_some()),
            Expression::And(a, b) => match (a.holds(row), b.holds(row)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Expression::Or(a, b) => match (a.holds(row), b.holds(row)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Expression::Not(a) => a.holds(row).map(|holds| !holds),
        }
    }
}

fn expression() -> impl Strategy<Value = Expression> {
    let operator = || prop::sample::select(vec!["<", ">=", "="]);
    let leaf = prop_oneof![
        (operator(), 1989i64..1999).prop_map(|(operator, year)| Expression::Year(operator, year)),
        (operator(), 0u32..10).prop_map(|(operator, score)| Expression::Score(operator, f64::from(score) / 2.0)),
        (0..GENRES.len()).prop_map(Expression::Genre),
        prop::sample::select(vec!["year", "genre"]).prop_map(Expression::Known),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        let pair = || (inner.clone(), inner.clone()).prop_map(|(a, b)| (Box::new(a), Box::new(b)));
        prop_oneof![
            pair().prop_map(|(a, b)| Expression::And(a, b)),
            pair().prop_map(|(a, b)| Expression::Or(a, b)),
            inner.clone().prop_map(|a| Expression::Not(Box::new(a))),
        ]
    })
}

fn condition(sql: &str) -> Condition {
    Condition::new(sql).unwrap()
}

/// An index of several segments, some of whose items were added later, replaced or removed; and what its items have.
fn changed_index(backend: &Arc<dyn Backend>, seed: u64, n: usize) -> (Searcher, QueryBatch, BTreeMap<u64, Row>) {
    let mut random = Random::new(seed);
    let shape = Shape { uid_sizes: vec![], ..Shape::default() };
    let mol = shape.mol(&mut random, DIM);
    let mut rows: BTreeMap<u64, Row> = (0..n as u64).map(|i| (1000 + 7 * i, row(&mut random))).collect();
    let options = IndexOptions::default().with_segment_items(n / 2 + 1).with_lists(ListOptions::new(4));
    let embeddings = random.tensor(&[n, mol.item_dim()], 1.0);
    let ids: Vec<u64> = rows.keys().copied().collect();
    let source = ItemSource::of_embeddings(ids, embeddings).with_attributes(attributes(&rows));
    let similarity = rails_wgpu::backend::Similarity { mol: mol.clone(), distilled: None };
    let index = ItemIndex::from_source(std::slice::from_ref(backend), Some(similarity), options, source).unwrap();
    let queries = QueryBatch::new(random.tensor(&[4, mol.query_dim()], 1.0));
    index.distill(&queries).unwrap();
    // Some are replaced and some new, with attributes; others lose theirs.
    let added: BTreeMap<u64, Row> = (0..n as u64 / 4).map(|i| (1000 + 14 * i + i % 2, row(&mut random))).collect();
    let source = ItemSource::of_embeddings(added.keys().copied().collect(), random.tensor(&[added.len(), DIM], 1.0));
    index.add_all(source.with_attributes(attributes(&added))).unwrap();
    rows.extend(added);
    index.add(&[1007, 5], &random.tensor(&[2, DIM], 1.0)).unwrap();
    rows.extend([1007, 5].map(|id| (id, Row { year: None, score: None, genre: None })));
    assert_eq!(index.remove(&[1021, 1035]).unwrap(), 2);
    rows.remove(&1021);
    rows.remove(&1035);
    (Searcher::new(index), queries, rows)
}

/// What is left of everything, an exact result.
fn filtered(everything: &[Hit], k: usize, passes: impl Fn(u64) -> bool) -> Vec<Hit> {
    everything.iter().filter(|hit| passes(hit.id)).take(k).copied().collect()
}

/// Algorithms that collect candidates, by the number of these.
const APPROXIMATE: [fn(usize) -> Algorithm; 6] = [
    |candidates| Algorithm::Tangent { candidates },
    |candidates| Algorithm::Avg { candidates },
    |per_group| Algorithm::Naive { per_group },
    |candidates| Algorithm::HIndexer { candidates },
    |candidates| Algorithm::TangentIvf { candidates, n_probe: 1 },
    |candidates| Algorithm::Cascade { tangent: candidates, distilled: candidates },
];

/// Compares searches under conditions, one for each query, with everything filtered afterwards.
fn check(
    backend: &Arc<dyn Backend>,
    (seed, n, k): (u64, usize, usize),
    approximate: &[fn(usize) -> Algorithm],
    expressions: &[Expression],
) {
    let (searcher, queries, rows) = changed_index(backend, seed, n);
    let conditions: Vec<Condition> = expressions.iter().map(|expression| condition(&expression.sql())).collect();
    let holds = |query: usize, id: u64| expressions[query % expressions.len()].holds(&rows[&id]) == Some(true);
    let seen: Vec<Vec<u64>> = (0..4).map(|q| rows.keys().copied().filter(|id| id % 5 == q).collect()).collect();
    let lists: Vec<&[u64]> = seen.iter().map(Vec::as_slice).collect();
    let denied = Filter::deny(rows.keys().copied().filter(|id| id % 11 == 0).collect());
    let passes = |query: usize, id: u64| holds(query, id) && !seen[query].contains(&id) && denied.passes(id);
    let all = rows.len();
    for algorithm in [Algorithm::Exact, Algorithm::ExactPruned, Algorithm::Mips] {
        let everything = searcher.search(algorithm, &queries, all, &[]).unwrap();
        assert_eq!(everything[0].len(), all);
        let request =
            Request::new(algorithm, k).with_excluded(&lists).with_filter(&denied).with_conditions(&conditions);
        let answer = searcher.answer(&queries, &request.with_certify(true)).unwrap();
        for (query, hits) in answer.hits.iter().enumerate() {
            let expected = filtered(&everything[query], k, |id| passes(query, id));
            assert_eq!(*hits, expected, "{algorithm} {}", conditions[query % conditions.len()].sql());
            assert_eq!(answer.certificates[query], Certificate::Exact);
        }
    }
    let everything = searcher.search(Algorithm::Exact, &queries, all, &[]).unwrap();
    let (few, all_of_it) = (3, all);
    for (algorithm, candidates) in approximate.iter().flat_map(|of| [few, all_of_it].map(|n| (of(n), n))) {
        let request =
            Request::new(algorithm, k).with_excluded(&lists).with_filter(&denied).with_conditions(&conditions);
        let answer = searcher.answer(&queries, &request).unwrap();
        for (query, hits) in answer.hits.iter().enumerate() {
            let expected = filtered(&everything[query], k, |id| passes(query, id));
            assert_eq!(hits.len(), expected.len(), "{algorithm}: as many as there are, up to k");
            assert!(hits.iter().all(|hit| everything[query].contains(hit) && passes(query, hit.id)), "{algorithm}");
            let n_matching = rows.keys().filter(|id| holds(query, **id)).count();
            if n_matching <= k || candidates == all && !matches!(algorithm, Algorithm::TangentIvf { .. }) {
                assert_eq!(*hits, expected, "{algorithm}");
            }
        }
    }
    let matching: Vec<u64> = rows.keys().copied().filter(|id| holds(0, *id)).collect();
    assert_eq!(searcher.index().matching_ids(&conditions[0]).unwrap(), matching);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn conditions_leave_what_a_filter_would(
        seed in any::<u64>(),
        n in prop::sample::select(vec![16usize, 70, 150]),
        k in 1usize..40,
        expressions in prop_oneof![prop::collection::vec(expression(), 1), prop::collection::vec(expression(), 4)],
    ) {
        let cpu: Arc<dyn Backend> = Arc::new(Cpu::default());
        check(&cpu, (seed, n, k), &APPROXIMATE, &expressions);
    }
}

#[test]
fn conditions_mean_the_same_on_every_backend() {
    let most = Expression::Not(Box::new(Expression::Year("=", 1992)));
    let few = Expression::And(Box::new(Expression::Genre(2)), Box::new(Expression::Year(">=", 1996)));
    for backend in backends() {
        // Of the approximate ones, for which a GPU has most to compile, the one by candidates of one scan.
        let expressions = [most.clone(), few.clone(), most.clone(), Expression::Genre(0)];
        check(&backend, (7, 70, 5), &APPROXIMATE[..1], &expressions);
    }
}

#[test]
fn conditions_also_hold_for_scores_of_the_callers() {
    let cpu: Arc<dyn Backend> = Arc::new(Cpu::default());
    let (searcher, queries, rows) = changed_index(&cpu, 3, 70);
    let everything = searcher.search(Algorithm::Exact, &queries, rows.len(), &[]).unwrap();
    let given: Vec<(u64, f32)> = rows.keys().step_by(3).map(|&id| (id, 5.0)).collect();
    let scores = [&given[..], &given[..5], &[], &given[..]];
    let of = |genre: usize| Expression::Genre(genre);
    for expressions in [vec![Expression::Known("year")], vec![of(0), of(1), of(0), Expression::Year("<", 1996)]] {
        let conditions: Vec<Condition> = expressions.iter().map(|expression| condition(&expression.sql())).collect();
        let request = Request::new(Algorithm::Exact, 6).with_conditions(&conditions);
        let answer = searcher.answer(&queries, &request.with_fusion(ScoreFusion::new(1.0, &scores))).unwrap();
        for (query, hits) in answer.hits.iter().enumerate() {
            let own = |id: u64| scores[query].iter().find(|(other, _)| *other == id).map_or(0.0, |(_, score)| *score);
            let mut fused = filtered(&everything[query], rows.len(), |id| {
                expressions[query % expressions.len()].holds(&rows[&id]) == Some(true)
            });
            fused.iter_mut().for_each(|hit| hit.score += own(hit.id));
            fused.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
            fused.truncate(6);
            assert_eq!(*hits, fused);
        }
    }
}

/// Items 1 to `n` on a line, with years from 1990 on and two genres.
fn line(n: u64) -> (ItemSource<'static>, Attributes) {
    let ids: Vec<u64> = (1..=n).collect();
    let rows = (1..=n).flat_map(|id| [id as f32, 1.0]).collect();
    let years: Vec<i64> = (0..n as i64).map(|i| 1990 + i).collect();
    let genres: Vec<&str> = (0..n as usize).map(|i| GENRES[i % 2]).collect();
    let attributes = Attributes::new(ids.clone()).with_column("year", years).unwrap();
    let attributes = attributes.with_column("genre", genres).unwrap();
    (ItemSource::of_embeddings(ids, Tensor::new([n as usize, 2], rows).unwrap()), attributes)
}

fn stored(folder: &Path, n: u64) -> Searcher {
    let (source, attributes) = line(n);
    let options = IndexOptions::default().with_segment_items(8);
    let builder = Searcher::builder().items(source).attributes(attributes).options(options);
    builder.device("cpu").save_to(folder).build().unwrap()
}

fn ids(searcher: &Searcher, sql: &str) -> Result<Vec<u64>, Error> {
    let queries = QueryBatch::new(Tensor::from_rows([[1.0, 0.0]]));
    let conditions = [Condition::new(sql)?];
    let answer = searcher.answer(&queries, &Request::new(Algorithm::Exact, 1000).with_conditions(&conditions))?;
    Ok(answer.hits[0].iter().map(|hit| hit.id).collect())
}

fn opened(folder: &Path) -> Searcher {
    Searcher::builder().folder(folder).device("cpu").build().unwrap()
}

#[test]
fn a_folder_keeps_attributes_and_changes_them_with_its_items() {
    let folder = tempfile::tempdir().unwrap();
    let searcher = stored(folder.path(), 20);
    let names: Vec<String> = searcher.index().columns().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["year INTEGER", "genre TEXT"]);
    let reader = opened(folder.path());
    assert_eq!(ids(&reader, "year < 1993").unwrap(), [3, 2, 1]);

    let (source, attributes) = line(3);
    let drama = attributes.only(&[2, 3]);
    searcher.index().add_all(source.with_attributes(drama)).unwrap();
    assert_eq!(searcher.index().remove(&[5]).unwrap(), 1);
    let (before, after) = (ids(&reader, "year < 1996").unwrap(), ids(&searcher, "year < 1996").unwrap());
    assert_eq!((before, after), (vec![6, 5, 4, 3, 2, 1], vec![6, 4, 3, 2]), "a reader keeps its version");
    assert_eq!(ids(&searcher, "year IS NULL").unwrap(), [1]);
    assert!(reader.index().refresh().unwrap());
    assert_eq!(ids(&reader, "year < 1996").unwrap(), [6, 4, 3, 2]);

    searcher.index().compact().unwrap();
    assert!(ItemIndex::verify(folder.path()).unwrap().is_sound());
    assert_eq!(ItemIndex::info(folder.path()).unwrap().attributes.len(), 2);
    let copy = tempfile::tempdir().unwrap();
    searcher.index().save(copy.path()).unwrap();
    for searcher in [&searcher, &opened(folder.path()), &opened(copy.path())] {
        assert_eq!(ids(searcher, "genre = 'Drama' AND year BETWEEN 1993 AND 1999").unwrap(), [10, 8, 6, 4]);
        assert_eq!(ids(searcher, "year IS NULL OR id > 19").unwrap(), [20, 1]);
    }
    // No file is left of what was replaced, and each segment has one.
    let databases = |folder: &Path| {
        std::fs::read_dir(folder).unwrap().filter(|entry| is_database(&entry.as_ref().unwrap().path())).count()
    };
    assert_eq!(databases(folder.path()), searcher.index().snapshot().segments().len());
}

fn is_database(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "sqlite")
}

#[test]
fn items_with_string_ids_have_attributes_by_their_strings() {
    let strings = ["b", "a", "17"].map(str::to_string).to_vec();
    let embeddings = Tensor::from_rows([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]);
    let build = |attributes: Attributes| {
        let source = ItemSource::of_embeddings(vec![0, 1, 2], embeddings.clone()).with_attributes(attributes);
        Searcher::builder().items(source.with_string_ids(strings.clone())?).device("cpu").build()
    };
    let attributes =
        Attributes::of_strings(vec!["17".to_string(), "a".to_string()]).with_column("year", vec![1990, 1991]);
    let searcher = build(attributes.unwrap()).unwrap();
    let queries = QueryBatch::new(Tensor::from_rows([[1.0, 0.0]]));
    let found = |sql: &str| {
        let conditions = [condition(sql)];
        let request = Request::new(Algorithm::Exact, 3).with_conditions(&conditions);
        searcher.answer(&queries, &request).unwrap().string_ids[0].clone()
    };
    assert_eq!(
        (found("year >= 1990"), found("id = 'b'")),
        (vec!["17".to_string(), "a".to_string()], vec!["b".to_string()])
    );
    // Those of a file, in which all happen to look like numbers.
    assert!(build(Attributes::new(vec![17]).with_column("year", vec![1990]).unwrap()).is_ok());
    let unknown = Attributes::of_strings(vec!["c".to_string()]).with_column("year", vec![1990]).unwrap();
    let error = build(unknown).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("1 of other ids, the first `c`"), "{error}");
    let twice = Attributes::of_strings(vec!["a".to_string(); 2]).with_column("year", vec![1990, 1991]).unwrap();
    let error = build(twice).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("`a` twice"), "{error}");
}

#[test]
fn attributes_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let build = |attributes: Attributes| {
        let folder = tempfile::tempdir().unwrap();
        let builder = Searcher::builder().items(line(4).0).attributes(attributes).device("cpu");
        let error = builder.save_to(folder.path()).build().map(|_| ()).unwrap_err().to_string();
        let opened = ItemIndex::open(folder.path(), &[Arc::new(Cpu::default())], OpenOptions::default());
        assert!(opened.is_err(), "nothing is there");
        error
    };
    let column = |attributes: Attributes, n: usize| attributes.with_column("year", vec![1990; n]).unwrap();
    let error = build(column(Attributes::new(vec![1, 2, 9, 10]), 4));
    assert!(
        error.contains("attributes of items that are indexed with them, found 2 of other ids, the first 9"),
        "{error}"
    );
    assert!(build(column(Attributes::new(vec![1, 2, 1]), 3)).contains("id 1 twice"));
    let error = build(column(Attributes::of_strings(vec!["tt1".to_string()]), 1));
    assert!(error.contains("whole numbers as ids of items, as those of the index, found `tt1`"), "{error}");
    let large = ItemSource::of_embeddings(vec![1 << 63], Tensor::from_rows([[1.0, 0.0]]));
    let attributes = column(Attributes::new(vec![1 << 63]), 1);
    let error = Searcher::builder().items(large).attributes(attributes).device("cpu").build().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("ids below 2^63"), "{error}");

    let searcher = stored(folder.path(), 4);
    let add = |attributes: Attributes| {
        let source = ItemSource::of_embeddings(vec![30], Tensor::from_rows([[1.0, 0.0]]));
        searcher.index().add_all(source.with_attributes(attributes)).unwrap_err().to_string()
    };
    let error = add(Attributes::new(vec![30]).with_column("price", vec![1.5]).unwrap());
    assert!(error.contains("attributes of the index: year INTEGER, genre TEXT, found `price REAL`"), "{error}");
    assert!(add(column(Attributes::new(vec![31]), 1)).contains("1 of other ids, the first 31"));
    assert_eq!(searcher.index().len(), 4, "nothing has changed");
    let without = Searcher::builder().items(line(4).0).device("cpu").build().unwrap();
    let source = line(4).0.with_attributes(line(4).1);
    let error = without.index().add_all(source).unwrap_err().to_string();
    assert!(error.contains("none, as the index was built without, found year INTEGER, genre TEXT"), "{error}");
    let error = Searcher::builder().folder(folder.path()).attributes(line(4).1).build().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("`attributes` only with"), "{error}");
}

#[test]
fn conditions_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let searcher = stored(folder.path(), 20);
    let queries = QueryBatch::new(Tensor::from_rows([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]));
    let answer = |conditions: &[Condition], algorithm: Algorithm| {
        searcher.answer(&queries, &Request::new(algorithm, 3).with_conditions(conditions)).map(|answer| answer.hits)
    };
    let refused = |conditions: &[Condition]| answer(conditions, Algorithm::Exact).unwrap_err().to_string();
    let error = refused(&[condition("yeer > 3")]);
    assert!(
        error.contains("over the columns id INTEGER, year INTEGER, genre TEXT, found no such column: yeer"),
        "{error}"
    );
    assert!(
        refused(&[condition("year > 3"), condition("1")]).contains("one for all queries, or 3, one per query, found 2")
    );
    assert!(refused(&[condition("year > ?1")]).contains("1 parameters"));
    assert!(refused(&[condition("id IN (SELECT id FROM items)")]).contains("a subquery"));
    let injected = condition("genre = ?1").with_params([Value::from("x'); DROP TABLE items; --")]);
    assert_eq!(answer(&[injected], Algorithm::Exact).unwrap(), vec![Vec::new(); 3]);
    // Whatever few items match, an algorithm must suit the index.
    let error = answer(&[condition("year = 1990")], Algorithm::Tangent { candidates: 5 }).unwrap_err().to_string();
    assert!(error.contains("`exact` or `mips`"), "{error}");
    let cancel = Cancel::new();
    cancel.cancel();
    let conditions = [condition("year > 1991")];
    let request = Request::new(Algorithm::Exact, 3).with_conditions(&conditions).with_cancel(&cancel);
    assert!(matches!(searcher.answer(&queries, &request), Err(Error::Cancelled)));
    let without = Searcher::builder().items(line(4).0).device("cpu").build().unwrap();
    let error = ids(&without, "year > 3").unwrap_err().to_string();
    assert!(error.contains("an index with attributes") && error.contains("for one without"), "{error}");
    assert_eq!(ids(&searcher, "year = 1990 OR year = 2009").unwrap(), [20, 1], "all is as it was");
}

#[test]
fn damaged_attributes_are_found_and_cost_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    drop(stored(folder.path(), 20));
    let database: PathBuf = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| is_database(path))
        .unwrap();
    let sound = std::fs::read(&database).unwrap();
    assert!(sound.starts_with(b"SQLite format 3\0"), "other programs open it");
    let mut damaged = sound.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    std::fs::write(&database, &damaged).unwrap();
    let report = ItemIndex::verify(folder.path()).unwrap();
    assert!(report.damage.len() == 1 && report.damage[0].path == database, "{:?}", report.damage);
    let searcher = opened(folder.path());
    let error = ids(&searcher, "year > 1990").unwrap_err().to_string();
    assert!(error.contains("do not match their checksum") && error.contains(".sqlite"), "{error}");
    assert_eq!(
        searcher.search(Algorithm::Exact, &QueryBatch::new(Tensor::from_rows([[1.0, 0.0]])), 1, &[]).unwrap()[0][0].id,
        20
    );
    let kept = tempfile::tempdir().unwrap();
    for error in [searcher.index().compact(), searcher.index().save(kept.path())] {
        assert!(error.is_ok() || error.unwrap_err().to_string().contains("checksum"));
    }
    std::fs::write(&database, &sound[..4096]).unwrap();
    let error = ItemIndex::open(folder.path(), &[Arc::new(Cpu::default())], OpenOptions::default());
    assert!(error.map(|_| ()).unwrap_err().to_string().contains("bytes, found 4096"));

    // Another database, whose checksums are right.
    std::fs::write(&database, &sound).unwrap();
    let mut transaction = Store::open(folder.path()).unwrap().write().unwrap();
    let name = database.file_name().unwrap().to_str().unwrap().to_string();
    let wrong = transaction.database("attributes", &[7; 4096]).unwrap();
    transaction.remove(&name).unwrap();
    let content = transaction.base().content().to_string().replace(&name, &wrong);
    transaction.commit(serde_json::from_str(&content).unwrap()).unwrap();
    let error = ids(&opened(folder.path()), "year > 1990").unwrap_err().to_string();
    assert!(error.contains("the attributes are damaged: file is not a database"), "{error}");
    assert_eq!(ItemIndex::verify(folder.path()).unwrap().damage.len(), 1);
}
