//! Searches under a condition that few items meet: these are scored one by one.

use super::candidates::Candidates;
use super::course::Course;
use super::first_stage;
use super::groups::in_batch;
use super::{Algorithm, Certificate, Found, all_found, best, named};
use crate::Result;
use crate::backend::{PreparedQueries, Scorer};
use crate::context::Stage;
use crate::index::{Excluded, Matching, Snapshot};

/// An item alone takes up to 2.4 times as long as in a scan that scores everything (docs/EXPERIMENTS.md).
const FEW_OF_SCORED: usize = 3;

/// The same for scans that do less for each item: inner products, and first stages of approximate algorithms.
const FEW_OF_SCANNED: usize = 32;

/// Most pairs that are scored at a time, unless a single query has more.
const MOST_PAIRS: usize = if cfg!(test) { 16 } else { 1 << 22 };

/// Whether scoring the matching items alone takes less than `algorithm` does, or they are no more than what it has to find.
pub(super) fn are_few(algorithm: Algorithm, k: usize, matching: &Matching, snapshot: &Snapshot) -> bool {
    let n_matching = matching.len();
    match algorithm {
        Algorithm::Exact | Algorithm::ExactPruned if snapshot.scorer() != Scorer::Dot => {
            n_matching <= snapshot.len() / FEW_OF_SCORED
        }
        Algorithm::Exact | Algorithm::ExactPruned | Algorithm::Mips => n_matching <= snapshot.len() / FEW_OF_SCANNED,
        _ => n_matching <= k.max(snapshot.len() / FEW_OF_SCANNED),
    }
}

/// Queries that are scored at a time where so many items match.
fn at_once(n_matching: usize) -> usize {
    (MOST_PAIRS / n_matching.max(1)).max(1)
}

/// The `k` best of the matching items for each query.
///
/// # Errors
/// If the index does not have what the algorithm is for, the device fails, or the search was cancelled.
pub(super) fn best_of(
    course: &mut Course,
    (snapshot, matching): (&Snapshot, &Matching),
    queries: &PreparedQueries,
    (algorithm, k, certified): (Algorithm, usize, bool),
    excluded: &Excluded,
) -> Result<Found> {
    first_stage::check(algorithm, snapshot)?;
    let (context, n_queries) = (course.context, queries.batch().len());
    let at_once = at_once(matching.len());
    if n_queries > at_once {
        let (mut hits, mut certificates) = (Vec::with_capacity(n_queries), Vec::new());
        for first in (0..n_queries).step_by(at_once) {
            let rows: Vec<usize> = (first..n_queries.min(first + at_once)).collect();
            let (batch, excluded) = (queries.batch().select(&rows), snapshot.select_queries(excluded, &rows));
            let some = best_of(course, (snapshot, matching), &batch.prepared(), (algorithm, k, certified), &excluded);
            let (found, certificate) = some.map_err(|error| in_batch(error, &rows))?;
            hits.extend(found);
            certificates.extend(certificate);
        }
        return Ok((hits, certificates));
    }
    let scorer = if algorithm == Algorithm::Mips { Scorer::Dot } else { snapshot.scorer() };
    let lists: Candidates =
        (0..n_queries).map(|query| snapshot.matching_positions(matching, excluded, query)).collect();
    course.stats.pairs += lists.iter().map(|list| list.len() as u64).sum::<u64>();
    let scores = course.stage(Stage::Scoring, || snapshot.rescore(context, scorer, queries, &lists))?;
    let pairs = lists.iter().zip(scores);
    let hits: Vec<_> = course.stage(Stage::Selection, || {
        Ok(pairs.map(|(list, scores)| named(snapshot, best(snapshot, list, scores, k))).collect())
    })?;
    all_found(snapshot, excluded, k, &hits)?;
    Ok((hits, vec![Certificate::Exact; if certified { n_queries } else { 0 }]))
}

#[cfg(all(test, feature = "attributes"))]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use crate::{Algorithm, Attributes, Condition, QueryBatch, Request, Searcher, Tensor};

    #[test]
    fn queries_in_groups_find_what_each_finds_alone() {
        let ids: Vec<u64> = (0..200).collect();
        let items = Tensor::new([200, 2], (0..400).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect()).unwrap();
        let attributes = Attributes::new(ids.clone()).with_column("n", (0..200i64).collect::<Vec<_>>()).unwrap();
        let builder = Searcher::builder().embeddings(&ids, &items).attributes(attributes).device("cpu");
        let searcher = builder.build().unwrap();
        // 5 items for each of 7 queries, each of which leaves out another one.
        let conditions = [Condition::new("n % 40 = 3").unwrap()];
        let vectors = Tensor::new([7, 2], (0..7).flat_map(|i| [i as f32 - 3.0, 1.0]).collect()).unwrap();
        let all = QueryBatch::new(vectors);
        let lists: Vec<Vec<u64>> = (0..7).map(|i| vec![3 + 40 * (i % 5)]).collect();
        let found = |rows: &[usize]| {
            let lists: Vec<&[u64]> = rows.iter().map(|&row| lists[row].as_slice()).collect();
            let request = Request::new(Algorithm::Exact, 9).with_conditions(&conditions).with_excluded(&lists);
            let answer = searcher.answer(&all.select(rows), &request.with_certify(true)).unwrap();
            (answer.hits, answer.certificates.len(), answer.stats.pairs)
        };
        let (hits, n_certificates, n_pairs) = found(&[0, 1, 2, 3, 4, 5, 6]);
        assert_eq!((n_certificates, n_pairs), (7, 28));
        for (query, hits) in hits.iter().enumerate() {
            assert_eq!((hits, hits.len()), (&found(&[query]).0[0], 4));
        }
    }

    #[test]
    fn no_more_pairs_are_scored_at_a_time_than_fit() {
        let pairs = |n_matching: usize| n_matching * super::at_once(n_matching);
        assert_eq!([0, 1, 5, 16, 17].map(pairs), [0, 16, 15, 16, 17]);
    }
}
