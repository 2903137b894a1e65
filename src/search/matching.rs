//! Searches under a condition that few items meet: these are scored one by one.

use super::candidates::Candidates;
use super::course::Course;
use super::first_stage;
use super::{Algorithm, Certificate, Found, all_found, best, named};
use crate::Result;
use crate::backend::{PreparedQueries, Scorer};
use crate::context::Stage;
use crate::index::{Excluded, Matching, Snapshot};

/// An item alone takes up to 2.4 times as long as in a scan that scores everything (docs/EXPERIMENTS.md).
const FEW_OF_SCORED: usize = 3;

/// The same for scans that do less for each item: inner products, and first stages of approximate algorithms.
const FEW_OF_SCANNED: usize = 32;

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
